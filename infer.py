"""From three photographs to one HDR image: the inference of Fig. 2 (c).

Paper: Sec. 4.3.

    python infer.py --scene examples/cafe                 writes results/cafe.hdr, cafe.png and cafe_panel.png
    python infer.py --scene DIR --seed 1 --steps 20       another sample of the prior, with more DDIM steps
    python infer.py --scene DIR --samples 8               the mean of 8 samples, and where they differ: NAME_spread.png

DIR holds three or more photographs of one scene (TIFF, PNG or JPEG, 8 or 16 bit, any size) and exposure.txt, or EXIF in the
photographs; see data.load_scene. If a ground truth HDRImg.hdr lies beside them, PSNR is printed too.

NAME.hdr is linear radiance in units of the shortest exposure, so in [0, 1]; NAME.png is T(H) of Eq. 6, in 8 bits; NAME_panel.png shows
the frames, a plain merge with its ghosts, our result, and truth and error where there is a truth.

The prior is sampled, so the answer has a spread: with --samples K, NAME.hdr is the mean of K results, and NAME_spread.png shows their
standard deviation at each pixel. How far that tells generated content from observed content is measured in the README.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as nnf

from common import autocast, parse, pick_device, pick_precision, run, save_panel
from brackets.scenes import load_scene
from data import PLAIN, T, to_radiance, weighted_merge
from brackets.flow import follow_flow
from brackets.files import write_image
from lfdiff import load_weights, pad_to_multiple, reconstruct
from loss import psnr
from brackets.register import corner_motion
from brackets.prepare import register_and_recode
from beyond.fast import by_strips, keep_memory

WHOLE = 3_000_000       # pixels of an image above which it is rebuilt in tiles
TILE = 1280             # side of such a tile, pixels
PANEL = 2000            # longest side of one picture in the panel, pixels


@dataclass
class InferConfig:
    """Inference on one bracket."""
    scene: str = ""             # folder of the bracket
    out: str = "results"        # folder for the results
    weights: str = str(Path(__file__).parent / "weights" / "lfdiff.pt")     # trained weights
    steps: int = 0              # DDIM steps S; 0: as trained [paper: 10]
    seed: int = 0               # of the initial noise z_T; the same seed gives the same image
    samples: int = 1            # priors to draw, with seeds from --seed on; the result is the mean over them, their spread a picture
    device: str = "auto"        # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"     # auto (bfloat16 where the hardware has it; else float16 on CUDA, float32 elsewhere), float32, bfloat16, float16
    register: bool = True       # warp the outer frames onto the reference by a homography first, as hand-held frames need [departs D6]
    response: bool = True       # then recode the frames to gamma 2.2 where the camera's curve is another [departs D10]
    flow: bool = True           # then bring what moved by itself to where the reference shows it, along optical flow [departs D9]
    compile: bool = False       # torch.compile the networks: minutes once, pays on a GPU for many images of one size
    tile: int = 0               # side of the tiles of a large image, pixels; 0: none up to 3 megapixels, else 1280; -1: never any


@torch.no_grad()
def plain_results(ldr, ev):
    """What one has without any network. ldr: (1, 3, 3, H, W), ev: (1, 3). Returns: {title: (1, 3, H, W) linear radiance}."""
    return {title: by_strips(lambda ldr, plain=plain: plain(ldr, ev), ldr, halo=0) for title, plain in PLAIN.items()}


def tile_for(tile, H, W):
    """Side of the tiles for an image, 0 for none. tile: --tile, see InferConfig; H, W: pixels."""
    return max(tile or (TILE if H * W > WHOLE else 0), 0)


@torch.no_grad()
def sample_images(model, ldr, ev, seeds, S=None, tile=0):
    """Results from one prior for each seed: their mean, and their standard deviation after T.

    model, ldr, ev, S, tile: see lfdiff.reconstruct; batch of one. seeds: list of int.
    Returns: mean (1, 3, H, W) linear radiance, float32; spread (1, 1, H, W), root mean square over the channels of the standard
    deviation of T(H^) over the seeds (of the population, so 0 for one seed).
    """
    if len(seeds) == 1:
        hdr_hat = reconstruct(model, ldr, ev, S, torch.Generator().manual_seed(seeds[0]), tile)
        return hdr_hat, torch.zeros_like(hdr_hat[:, :1])
    mean, of_T, squares = 0, 0, 0
    for k, seed in enumerate(seeds, start=1):
        hdr_hat = reconstruct(model, ldr, ev, S, torch.Generator().manual_seed(seed), tile)
        hdr_mu = T(hdr_hat)
        mean = mean + (hdr_hat - mean) / k                      # Welford's running mean and sum of squares: 0 exactly for equal images
        step = hdr_mu - of_T
        of_T = of_T + step / k
        squares = squares + step * (hdr_mu - of_T)
    return mean, (squares / len(seeds)).clamp(min=0).mean(dim=1, keepdim=True).sqrt()


@torch.no_grad()
def regions(ldr, ev, white=0.98, darker=0.7):
    """Where the reference frame observed the scene, and where not. ldr: (1, 3, 3, H, W), ev: (1, 3).

    Returns: {name: (1, 1, H, W) bool}. A pixel that the reference saturates is as bright as 1 / t_2 or brighter. The short frame, which
    should know how bright, contradicts where it is darker than that: something moved there, and no frame holds the content.
    """
    saturated = (ldr[:, 1] >= white).any(dim=1, keepdim=True)
    H_1, H_2 = to_radiance(ldr[:, :2], ev[:, :2]).unbind(dim=1)
    contradicted = ((H_1 < darker * H_2) & (ldr[:, 1] >= white)).any(dim=1, keepdim=True)
    return {"saturated, and the short frame contradicts": contradicted, "saturated, the short frame agrees": saturated & ~contradicted,
            "not saturated": ~saturated}


def heat_map(figure, axis, spread):
    """Draws a spread (H, W) with its colour bar, cut where only one pixel in a thousand is above."""
    top = float(spread.flatten().sort().values[int(0.999 * (spread.numel() - 1))])
    figure.colorbar(axis.imshow(spread.numpy(), cmap="magma", vmin=0, vmax=max(top, 1e-6)), ax=axis, shrink=0.8, extend="max")


def save_spread(path, hdr_mu, spread):
    """The result beside the map of its spread, with a colour bar. hdr_mu: (3, H, W) in [0, 1], spread: (H, W)."""
    from matplotlib.figure import Figure        # 0.3 s to import: only when a plot is drawn
    H, W = spread.shape
    hdr_mu, spread = shrink(hdr_mu), shrink(spread[None])[0]
    figure = Figure(figsize=(14, 7 * H / W + 0.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(hdr_mu.permute(1, 2, 0).clamp(0, 1).numpy())
    heat_map(figure, right, spread)
    left.set_title("mean of the samples, T(H)")
    right.set_title("standard deviation of T(H) over the samples")
    for axis in (left, right):
        axis.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def shrink(image):
    """An image (C, H, W) as the panel shows it: by a whole number smaller, until no side is longer than PANEL."""
    return nnf.avg_pool2d(image, -(-max(image.shape[-2:]) // PANEL))


@torch.no_grad()
def panels(ldr, ev, hdr_hat, hdr=None):
    """The pictures of the panel, of at most PANEL pixels a side, and their columns, for save_panel.

    ldr: (1, 3, 3, H, W), ev: (1, 3), hdr_hat: (1, 3, H, W), hdr: (3, H, W) or None.
    """
    ldr = torch.stack([shrink(frame) for frame in ldr[0]])[None]
    shown = [(f"frame {i + 1}, {float(stops):+g} EV", frame) for i, (stops, frame) in enumerate(zip(ev[0], ldr[0]))]
    shown += [("weighted merge", T(weighted_merge(ldr, ev)[0])), ("LF-Diff", T(shrink(hdr_hat[0])))]
    if hdr is not None:
        truth = T(shrink(hdr))
        shown += [("truth", truth), ("5 x |LF-Diff - truth|", 5 * (T(shrink(hdr_hat[0])) - truth).abs())]
    return shown, 4 if hdr is not None else 3


def main():
    """Reads the bracket, reconstructs, writes the three files and says how well it went where there is a truth."""
    config = parse(InferConfig, description=__doc__)
    if not config.scene:
        raise ValueError("--scene: missing; give the folder of a bracket, such as --scene examples/cafe")
    if config.steps < 0:
        raise ValueError(f"--steps {config.steps}: must be 1 or more (0: as trained)")
    if config.samples < 1:
        raise ValueError(f"--samples {config.samples}: must be 1 or more")
    device = pick_device(config.device)
    dtype = pick_precision(config.precision, device)
    sample = load_scene(config.scene)
    H, W = sample["ldr"].shape[-2:]
    model = load_weights(config.weights, device)
    if config.samples > 1 and model.variant != "s2":
        raise ValueError(f"--samples {config.samples}: the weights are of {model.variant}, which draws nothing; use weights of s2 (train_stage2.py)")
    if config.compile:
        for network in model.children():
            network.compile()

    start = time.perf_counter()
    ev, taken = sample["ev"][None], sample.pop("ldr")                           # (1, 3), (3, 3, H, W)
    ldr, homographies, curve = register_and_recode(taken, ev[0], config.register, config.response)
    moved = [corner_motion(homography, H, W) for homography in homographies if (homography != torch.eye(3)).any()]
    registered = ldr if "hdr" in sample else torch.stack([shrink(frame) for frame in ldr])     # for the panel alone, where there is no truth
    if config.flow:
        del ldr                                                                 # a large bracket takes a gigabyte
        ldr = follow_flow(taken, ev[0], homographies, curve)
    del taken
    ldr, registered = pad_to_multiple(ldr)[None], registered[None]              # (1, 3, 3, H', W'), (1, 3, 3, h, w)
    tile = tile_for(config.tile, H, W)
    keep_memory(2 ** 26 if tile else 2 ** 30)                                   # only strips where memory is short; what loading needed is gone

    with autocast(device, dtype):
        hdr_hat, spread = sample_images(model, ldr.to(device), ev.to(device), range(config.seed, config.seed + config.samples),
                                        config.steps or None, tile)
    ldr, hdr_hat, spread = ldr[..., :H, :W], hdr_hat.cpu()[..., :H, :W], spread.cpu()[..., :H, :W]      # (1, 3, 3, H, W), (1, 3, H, W), (1, 1, H, W)
    seconds = time.perf_counter() - start
    if not torch.isfinite(hdr_hat).all():
        raise ValueError(f"{config.scene}: the result is not finite in {dtype}; try --precision float32")

    out, name = Path(config.out), sample["name"]
    write_image(out / f"{name}.hdr", hdr_hat[0].permute(1, 2, 0).contiguous().numpy())
    write_image(out / f"{name}.png", (T(hdr_hat[0]).permute(1, 2, 0) * 255).round().byte().numpy())
    save_panel(out / f"{name}_panel.png", *panels(registered, ev, hdr_hat, sample.get("hdr")))

    print(f"{name}: {W}x{H}, exposures {', '.join(f'{float(stops):+g}' for stops in ev[0])} EV, "
          f"{seconds:.1f} s on {device} in {str(dtype).removeprefix('torch.')}" + "".join(f", registered by {pixels:.1f} px" for pixels in moved)
          + (", recoded to gamma 2.2" if curve is not None else ""))
    if "hdr" in sample:
        truth, results = sample["hdr"][None], {**plain_results(registered, ev), "LF-Diff": hdr_hat}
        print(f"{'':<16} {'PSNR-μ':>8} {'PSNR-L':>8}   (dB, against the ground truth)")
        for title, image in results.items():
            print(f"{title:<16} {psnr(T(image), T(truth)):>8.2f} {psnr(image, truth):>8.2f}")
    if config.samples > 1:
        save_spread(out / f"{name}_spread.png", T(hdr_hat[0]), spread[0, 0])
        print(f"spread over {config.samples} samples, mean standard deviation of T(H):")
        for title, region in regions(ldr, ev).items():
            print(f"  {title:<43} {float(spread[region].mean()) if region.any() else float('nan'):.5f}   ({100 * region.float().mean():.1f} % of the pixels)")
    print(f"wrote {out / name}.hdr, {name}.png, {name}_panel.png" + (f", {name}_spread.png" if config.samples > 1 else ""))


if __name__ == "__main__":
    run(main)
