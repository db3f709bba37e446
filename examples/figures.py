"""The two pictures of the README, made by the shipped weights: `python examples/figures.py` (a minute on two cores).

    examples/cafe_panel.png     the example scene: three frames, a plain merge, ours, the truth, the error
    examples/spread.png         a harder scene: the same, and where eight samples of the prior differ

The harder scene is procedural: a bracket of synthetic.py, three stops between frames, with objects that cross what the reference saturates. It is
drawn from a seed that no training or validation bracket has.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import autocast, parse, pick_device, pick_precision, run, save_panel
from data import PLAIN, T, load_scene
from brackets.flow import follow_flow
from infer import InferConfig, heat_map, panels, regions, sample_images
from lfdiff import load_weights
from loss import psnr
from brackets.light import register_and_recode
from synthetic.dataset import AS_TAKEN, SyntheticBrackets, SyntheticConfig

HERE = Path(__file__).resolve().parent


@dataclass
class FigureConfig:
    """The README's pictures."""
    weights: str = InferConfig.weights      # trained weights
    out: str = str(HERE)       # folder for the pictures
    seed: int = 2_000_003                   # of the harder scene's set
    index: int = 10                         # of the scene in it
    samples: int = 8                        # priors for the spread
    device: str = "auto"                    # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"                 # see infer.py


def hard_scene(config):
    """A bracket of 512x384 pixels with objects in front of highlights. Returns: a sample, see data.py."""
    hard = SyntheticConfig(patches=False, static_camera=0.0, steady=0.0, static_scene=0.0, on_highlight=1.0, objects=(2, 4),
                           object_motion=(30.0, 80.0), saturated_fraction=(0.2, 0.35), ev_steps=(3.0,), **AS_TAKEN)
    return SyntheticBrackets((384, 512), config.seed, config=hard)[config.index]


def save_spread_figure(path, ldr, ev, mean, spread, hdr):
    """Frames, merge, result, truth, and the spread as a heat map with a colour bar.

    ldr: (1, 3, 3, H, W), ev: (1, 3), mean, hdr: (1, 3, H, W), spread: (H, W).
    """
    from matplotlib.figure import Figure        # 0.3 s to import: only when a picture is drawn
    shown, _ = panels(ldr, ev, mean, hdr[0])
    shown = [*shown, ("standard deviation of T(H) over the samples", None)]
    H, W = spread.shape
    figure = Figure(figsize=(16, 2 * (4 * H / W + 0.3)), layout="constrained")
    for axis, (title, image) in zip(figure.subplots(2, 4).flat, shown):
        axis.set_axis_off()
        axis.set_title(title, fontsize=9)
        if image is not None:
            axis.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy())
        else:
            heat_map(figure, axis, spread)
    figure.savefig(path, dpi=100)


def main():
    """Both pictures, and what they show in numbers."""
    config = parse(FigureConfig, description=__doc__)
    device = pick_device(config.device)
    dtype, model, out = pick_precision(config.precision, device), load_weights(config.weights, device), Path(config.out)
    for name, sample, samples in (("cafe_panel", load_scene(HERE / "cafe"), 1), ("spread", hard_scene(config), config.samples)):
        registered, homographies, curve = register_and_recode(sample["ldr"], sample["ev"])
        ldr = follow_flow(sample["ldr"], sample["ev"], homographies, curve)
        registered, ldr, ev, hdr = registered[None], ldr[None], sample["ev"][None], sample["hdr"][None]
        with autocast(device, dtype):
            mean, spread = (part.cpu() for part in sample_images(model, ldr.to(device), ev.to(device), range(samples)))
        if samples == 1:
            save_panel(out / f"{name}.png", *panels(registered, ev, mean, hdr[0]))
        else:
            save_spread_figure(out / f"{name}.png", registered, ev, mean, spread[0, 0], hdr)
            for title, region in regions(ldr, ev).items():
                print(f"{title:<43} spread {float(spread[region].mean()):.5f}   ({100 * region.float().mean():.1f} % of the pixels)")
        for title, image in {**{title: plain(registered, ev) for title, plain in PLAIN.items()}, "LF-Diff": mean}.items():
            print(f"{name}: {title:<16} PSNR-μ {psnr(T(image), T(hdr)):.2f}, PSNR-L {psnr(image, hdr):.2f} dB")
        print(f"wrote {out / name}.png")


if __name__ == "__main__":
    run(main)
