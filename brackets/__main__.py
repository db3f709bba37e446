"""Prints what was found in the folder of a scene: files, exposures, motion of the camera, light, motion of things.

    python -m brackets DIR
"""

from dataclasses import dataclass

from common import parse, run
import numpy as np
from tyro.conf import Positional

from brackets import light
from brackets.curve import phi
from brackets.files import read_image, read_stored
from brackets.flow import SMALLEST, find_flow
from brackets.kinds import kind_of
from brackets.prepare import PrepareConfig, prepare
from brackets.register import in_words
from brackets.scenes import load_scene, scene_files


@dataclass
class Config:
    """Which scene to look at."""
    folder: Positional[str]     # folder with three or more photographs and their exposures
    layout: str = "auto"        # auto, kalantari, hu, sen, tursun or photos: see brackets/scenes.py


def print_files(config, sample):
    """Prints a line for each frame and for the truth. sample: as load_scene gives it."""
    paths, ev, truth = scene_files(config.folder, config.layout)
    height, width = sample["ldr"].shape[-2:]
    print(f"{sample['name']}: {width}x{height}")
    for path, stops, frame in zip(paths, ev, sample["ldr"]):
        saturated, unseen = (100 * where.float().mean() for where in (frame.amax(dim=0) >= 1, frame[0].isnan()))
        print(f"  {path.name:24s} {kind_of(path):5s} {read_stored(path).pixels.dtype!s:8s} +{stops:.2f} EV  mean {frame.nanmean():.3f}, "
              f"{saturated:.1f} % saturated" + (f", {unseen:.1f} % transparent" if unseen else ""))
    if truth:
        print(f"  {truth.name:24s} {kind_of(truth)} float32  truth      mean {sample['hdr'].mean():.4f}, "
              f"largest {read_image(truth).max():.4f} before clipping at 1")


def print_motion(prepared):
    """Prints how the camera moved, what was found of the light, and how far things moved by themselves. prepared: Prepared, without flow."""
    ldr, ev, outer = prepared.ldr, prepared.ev, ((0, "short"), (2, "long"))
    height, width = ldr.shape[-2:]
    print("camera")
    for i, name in outer:
        print(f"  {name:<6} {in_words(prepared.homographies[i], height, width)}")
    print(f"light\n  {light.in_words(prepared.light, prepared.stated)}")
    if prepared.light is not None and prepared.light.curve.any():
        for v in np.linspace(0.1, 1, 10):
            print(f"  {v:.1f} shows what gamma 2.2 would code as {phi(v[None], prepared.light.curve)[0]:.3f}")
    print("what moved by itself")
    for i, name in outer:
        if min(height, width) < SMALLEST:
            print(f"  {name:<6} not looked for in frames of fewer than {SMALLEST} pixels a side")
            continue
        length = find_flow(ldr[1], ldr[i], float(ev[1] - ev[i])).norm(dim=0).flatten().sort().values
        half, most, nearly_all = (length[int(share * (len(length) - 1))] for share in (0.5, 0.9, 0.99))
        print(f"  {name:<6} 50 % of the pixels moved by at most {half:.1f} pixels, 90 % by {most:.1f}, 99 % by {nearly_all:.1f}")


def main():
    """Reads the command line and the scene, and prints what was found."""
    config = parse(Config, description=__doc__)
    sample = load_scene(config.folder, config.layout)
    print_files(config, sample)
    print_motion(prepare(sample["ldr"], sample["ev"], PrepareConfig(flow=False)))


if __name__ == "__main__":
    run(main)
