"""From three photographs to one HDR image: the inference of Fig. 2 (c).

Paper: Sec. 4.3.

    python infer.py --scene examples/cafe                 writes results/cafe.hdr, cafe.png and cafe_panel.png
    python infer.py --scene DIR --seed 1 --steps 20       another sample of the prior, with more DDIM steps

DIR holds three or more photographs of one scene (TIFF, PNG or JPEG, 8 or 16 bit, any size) and exposure.txt, or EXIF in the
photographs; see data.load_scene. If a ground truth HDRImg.hdr lies beside them, PSNR is printed too.

NAME.hdr is linear radiance in units of the shortest exposure, so in [0, 1]; NAME.png is T(H) of Eq. 6, in 8 bits; NAME_panel.png shows
the frames, a plain merge with its ghosts, our result, and truth and error where there is a truth.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from common import autocast, parse, pick_device, pick_precision, run, save_panel
from data import T, load_scene, to_radiance, weighted_merge
from images import write_image
from lfdiff import load_weights, reconstruct
from loss import psnr


@dataclass
class InferConfig:
    """Inference on one bracket."""
    scene: str = ""             # folder of the bracket
    out: str = "results"        # folder for the results
    weights: str = str(Path(__file__).parent / "weights" / "lfdiff.pt")     # trained weights
    steps: int = 0              # DDIM steps S; 0: as trained [paper: 10]
    seed: int = 0               # of the initial noise z_T; the same seed gives the same image
    device: str = "auto"        # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"     # auto (CUDA: bfloat16 or float16; else float32), float32, bfloat16, float16


def main():
    """Reads the bracket, reconstructs, writes the three files and says how well it went where there is a truth."""
    config = parse(InferConfig, description=__doc__)
    if not config.scene:
        raise ValueError("--scene: missing; give the folder of a bracket, such as --scene examples/cafe")
    if config.steps < 0:
        raise ValueError(f"--steps {config.steps}: must be 1 or more (0: as trained)")
    device = pick_device(config.device)
    dtype = pick_precision(config.precision, device)
    sample = load_scene(config.scene)
    model = load_weights(config.weights, device)
    ldr, ev = sample["ldr"][None].to(device), sample["ev"][None].to(device)     # (1, 3, 3, H, W), (1, 3)

    start = time.perf_counter()
    with autocast(device, dtype):
        hdr_hat = reconstruct(model, ldr, ev, config.steps or None, torch.Generator().manual_seed(config.seed))    # (1, 3, H, W)
    hdr_hat = hdr_hat.cpu()
    seconds = time.perf_counter() - start
    if not torch.isfinite(hdr_hat).all():
        raise ValueError(f"{config.scene}: the result is not finite in {dtype}; try --precision float32")

    ldr, ev, out, name = sample["ldr"][None], sample["ev"][None], Path(config.out), sample["name"]
    results = {"reference alone": to_radiance(ldr, ev)[:, 1], "weighted merge": weighted_merge(ldr, ev), "LF-Diff": hdr_hat}
    panels = [(f"frame {i + 1}, {float(stops):+g} EV", frame) for i, (stops, frame) in enumerate(zip(ev[0], ldr[0]))]
    panels += [(title, T(results[title][0])) for title in ("weighted merge", "LF-Diff")]
    if "hdr" in sample:
        truth = sample["hdr"][None]
        panels += [("truth", T(truth[0])), ("5 x |LF-Diff - truth|", 5 * (T(hdr_hat[0]) - T(truth[0])).abs())]
    write_image(out / f"{name}.hdr", hdr_hat[0].permute(1, 2, 0).contiguous().numpy())
    write_image(out / f"{name}.png", (T(hdr_hat[0]).permute(1, 2, 0) * 255).round().byte().numpy())
    save_panel(out / f"{name}_panel.png", panels, columns=4 if "hdr" in sample else 3)

    print(f"{name}: {ldr.shape[-1]}x{ldr.shape[-2]}, exposures {', '.join(f'{float(stops):+g}' for stops in ev[0])} EV, "
          f"{seconds:.1f} s on {device} in {str(dtype).removeprefix('torch.')}")
    if "hdr" in sample:
        print(f"{'':<16} {'PSNR-μ':>8} {'PSNR-L':>8}   (dB, against the ground truth)")
        for title, image in results.items():
            print(f"{title:<16} {psnr(T(image), T(truth)):>8.2f} {psnr(image, truth):>8.2f}")
    print(f"wrote {out / name}.hdr, {name}.png, {name}_panel.png")


if __name__ == "__main__":
    run(main)
