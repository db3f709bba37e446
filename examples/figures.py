"""Draws the pictures of the README and of docs/spread.md with the shipped weights: `python examples/figures.py` (a minute on two cores).

    examples/cafe_panel.png     the example scene: three frames, a plain merge, ours, the truth, the error, ours as in NAME.jpg
    examples/cafe.jpg           the example's reference frame beside the picture in NAME.jpg
    examples/spread.png         a harder scene: the same, and where eight samples of the prior differ

The harder scene is procedural, a bracket of synthetic/ with three stops between frames. Objects cross regions that saturate the reference. No training
or validation bracket has its seed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from beyond.pictures import heat_map, panels, plain_results, sample_images, save_panel, spread_in_words
from beyond.tonemap import picture
from beyond.weights import SHIPPED, load_weights
from brackets.files import save_figure, write_image
from brackets.marks import PICTURE
from brackets.scenes import load_scene
from common import Count, Seed, Whole, autocast, parse, pick_device, pick_precision, run
from data import T, psnr
from sharpness import prepared_batch
from synthetic.dataset import AS_TAKEN, FIRST, SyntheticBrackets, SyntheticConfig

HERE = Path(__file__).resolve().parent


@dataclass
class FigureConfig:
    """The README's pictures."""
    weights: str = SHIPPED      # trained weights
    out: str = str(HERE)                    # folder for the pictures
    seed: Seed = 2_000_003                  # of the set that the harder scene comes from
    index: Whole = 10                       # of the harder scene in that set
    samples: Count = 8                      # priors for the spread
    device: str = "auto"                    # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"                 # see infer.py


def hard_scene(config):
    """Makes a bracket of 512x384 pixels with objects in front of highlights. Returns: a sample, see brackets/scenes.py."""
    hard = SyntheticConfig(patches=False, static_camera=0.0, steady=0.0, static_scene=0.0, on_highlight=1.0, objects=(2, 4),
                           object_motion=(30.0, 80.0), saturated_fraction=(0.2, 0.35), ev_steps=(3.0,), iso=FIRST["iso"], **AS_TAKEN)
    return SyntheticBrackets((384, 512), config.seed, config=hard)[config.index]


def save_spread_figure(path, ldr, ev, mean, spread, hdr):
    """Draws frames, merge, result, truth, error, and the spread as a heat map with a colour bar.

    ldr: (1, 3, 3, H, W), ev: (1, 3), mean, hdr: (1, 3, H, W), spread: (H, W).
    """
    shown, columns = panels(ldr, ev, mean, hdr[0])
    H, W = spread.shape
    figure = Figure(figsize=(4 * columns, 2 * (4 * H / W + 0.3)), layout="constrained")
    axes = figure.subplots(2, columns).flat
    for axis, (title, image) in zip(axes, [*shown[:-1], ("standard deviation of T(H) over the samples", None)]):
        axis.set_axis_off()
        axis.set_title(title, fontsize=9)
        if image is not None:
            axis.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy())
        else:
            heat_map(figure, axis, spread)
    save_figure(path, figure, dpi=100)


def save_before_and_after(path, reference, hdr):
    """Writes a frame beside the picture of a result, as a JPEG. reference: (3, H, W) coded in [0, 1]; hdr: (3, H, W) linear radiance."""
    frame, hdr = ((255 * reference).round().byte().permute(1, 2, 0).numpy(), hdr.permute(1, 2, 0).contiguous().numpy())
    write_image(path, np.concatenate([frame, picture(hdr)], axis=1), PICTURE, quality=88)


def main():
    """Makes all pictures and prints their scores."""
    config = parse(FigureConfig, description=__doc__)
    device = pick_device(config.device)
    dtype, model, out = pick_precision(config.precision, device), load_weights(config.weights, device), Path(config.out)
    for name, sample, samples in (("cafe_panel", load_scene(HERE / "cafe"), 1), ("spread", hard_scene(config), config.samples)):
        registered, ldr, ev, hdr, _ = prepared_batch(sample, model.prepare)
        with autocast(device, dtype):
            mean, spread = (part.cpu() for part in sample_images(model, ldr.to(device), ev.to(device), range(samples)))
        if name == "cafe_panel":
            save_panel(out / f"{name}.png", *panels(registered, ev, mean, hdr[0]))
            save_before_and_after(out / "cafe.jpg", ldr[0, 1], mean[0])
        else:
            save_spread_figure(out / f"{name}.png", registered, ev, mean, spread[0, 0], hdr)
            print(spread_in_words(spread, ldr, ev))
        for title, image in {**plain_results(registered, ev), "LF-Diff": mean}.items():
            print(f"{name}: {title:<16} PSNR-μ {psnr(T(image), T(hdr)):.2f}, PSNR-L {psnr(image, hdr):.2f} dB")
        print(f"wrote {out / name}.png")


if __name__ == "__main__":
    run(main)
