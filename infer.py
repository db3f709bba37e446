"""From three photographs to one HDR image: the inference of Fig. 2 (c), see lfdiff.reconstruct.

Paper: Sec. 4.3.

    python infer.py --scene examples/cafe                 writes results/cafe.hdr, cafe.png and cafe_panel.png
    python infer.py --scene DIR --seed 1 --steps 20       another sample of the prior, with more DDIM steps
    python infer.py --scene DIR --samples 8               the mean of 8 samples, and where they differ: NAME_spread.png

DIR holds three or more photographs of one scene (TIFF, PNG or JPEG, 8 or 16 bit, any size) and exposure.txt, or EXIF in the
photographs; see brackets/scenes.py. If a ground truth HDRImg.hdr lies beside them, PSNR is printed too. The frames are prepared like those
of the training (brackets/prepare.py).

NAME.hdr is linear radiance in units of the shortest exposure, so in [0, 1]; NAME.png is T(H) of Eq. 6, in 8 bits; NAME_panel.png shows the
frames, a plain merge with its ghosts, our result, and truth and error where there is a truth.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tyro.conf import DisallowNone

from beyond import steps
from beyond.fast import keep_memory
from beyond.pictures import panels, plain_results, sample_images, save_panel, save_spread, shrunk_bracket, spread_in_words
from beyond.tiles import tile_for
from beyond.weights import load_weights
from brackets.files import write_image
from brackets.prepare import prepare, registered_frames
from brackets.scenes import load_scene
from common import autocast, parse, pick_device, pick_precision, run
from data import T, psnr


@dataclass
class InferConfig:
    """Inference on one bracket."""
    scene: str = ""             # folder of the bracket
    out: str = "results"        # folder for the results
    weights: str = str(Path(__file__).parent / "weights" / "lfdiff.pt")     # trained weights
    steps: int = 0              # DDIM steps S; 0: as trained [paper: 10]
    sampler: str = "ddim"       # ddim, or ancestral: all T steps of Eq. 14
    seed: int = 0               # of the initial noise z_T; the same seed gives the same image
    samples: int = 1            # priors to draw, with seeds from --seed on; the result is the mean over them, their spread a picture
    device: str = "auto"        # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"     # auto (bfloat16 where the hardware has it; else float16 on CUDA, float32 elsewhere), float32, bfloat16, float16
    register: DisallowNone[bool | None] = None  # warp the outer frames onto the reference by a homography; None: as the weights were trained [departs D6]
    response: DisallowNone[bool | None] = None  # correct tone curve, exposures and clip level as found in the frames; None: as trained [departs D10]
    flow: DisallowNone[bool | None] = None      # bring what moved to where the reference shows it, along optical flow; None: as trained [departs D9]
    compile: bool = False       # torch.compile the networks: minutes once, pays on a GPU for many images of one size
    tile: int = 0               # side of the tiles of a large image, pixels; 0: none up to 3 megapixels, else 1280; -1: never any


def check(config):
    """Raises: ValueError for a setting out of range."""
    if not config.scene:
        raise ValueError("--scene: missing; give the folder of a bracket, such as --scene examples/cafe")
    for name, least in (("steps", 0), ("samples", 1)):
        if getattr(config, name) < least:
            raise ValueError(f"--{name} {getattr(config, name)}: must be 1 or more" + (" (0: as trained)" if least == 0 else ""))
    if config.sampler not in ("ddim", "ancestral"):
        raise ValueError(f"--sampler {config.sampler}: use ddim or ancestral")


def main():
    """Reads the bracket, prepares it, reconstructs, writes the files and says how well it went where there is a truth."""
    config = parse(InferConfig, description=__doc__)
    check(config)
    device = pick_device(config.device)
    dtype = pick_precision(config.precision, device)
    sample = load_scene(config.scene)
    name, (H, W), hdr = sample["name"], sample["ldr"].shape[-2:], sample.get("hdr")
    model = load_weights(config.weights, device)
    if model.variant == "s1" or (config.samples > 1 and model.variant != "s2"):
        raise ValueError(f"--weights {config.weights}: found the variant {model.variant}; use weights of train_stage2.py")
    for network in model.children() if config.compile else ():
        network.compile()

    start = time.perf_counter()
    prepared = prepare(sample["ldr"], sample["ev"], model.prepare.overridden(config.register, config.response, config.flow))
    taken = sample.pop("ldr"), prepared.homographies
    taken = taken if hdr is not None else shrunk_bracket(*taken)                # a large bracket takes a gigabyte, which is let go
    registered = registered_frames(taken[0], prepared.stated, taken[1], prepared.light)[None]       # what others would merge
    ldr, ev = prepared.ldr[None], prepared.ev[None]                             # (1, 3, 3, H, W), (1, 3)
    tile = tile_for(config.tile, H, W)
    keep_memory(2 ** 26 if tile else 2 ** 30)                                   # with tiles only small blocks are kept, for memory is short
    with autocast(device, dtype):
        hdr_hat, spread = sample_images(model, ldr.to(device), ev.to(device), range(config.seed, config.seed + config.samples), tile,
                                        config.steps or None, config.sampler)
    hdr_hat, spread = hdr_hat.cpu(), spread.cpu()                               # (1, 3, H, W), (1, 1, H, W)
    seconds = time.perf_counter() - start
    if not torch.isfinite(hdr_hat).all():
        raise ValueError(f"{config.scene}: the result is not finite in {dtype}; try --precision float32")

    out = Path(config.out)
    write_image(out / f"{name}.hdr", hdr_hat[0].permute(1, 2, 0).contiguous().numpy())
    write_image(out / f"{name}.png", (T(hdr_hat[0]).permute(1, 2, 0) * 255).round().byte().numpy())
    save_panel(out / f"{name}_panel.png", *panels(registered, ev, hdr_hat, hdr))
    print(f"{name}: {W}x{H}, {prepared.in_words()}; {seconds:.1f} s on {device} in {str(dtype).removeprefix('torch.')}"
          + steps.in_words(model.steps, prepared.ev))
    if hdr is not None:
        print(f"{'':<16} {'PSNR-μ':>8} {'PSNR-L':>8}   (dB, against the ground truth)")
        for title, image in {**plain_results(registered, ev), "LF-Diff": hdr_hat}.items():
            print(f"{title:<16} {psnr(T(image), T(hdr[None])):>8.2f} {psnr(image, hdr[None]):>8.2f}")
    if config.samples > 1:
        save_spread(out / f"{name}_spread.png", T(hdr_hat[0]), spread[0, 0])
        print(f"spread over {config.samples} samples, mean standard deviation of T(H):\n{spread_in_words(spread, ldr, ev)}")
    print(f"wrote {out / name}.hdr, {name}.png, {name}_panel.png" + (f", {name}_spread.png" if config.samples > 1 else ""))


if __name__ == "__main__":
    run(main)
