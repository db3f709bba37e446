"""Prints what was found in the folder of a scene: files, sizes, exposures, motion of the camera, tone curve, motion of things.

    python -m brackets DIR
"""

import argparse
import math

import numpy as np

from brackets.files import read_image
from brackets.flow import find_flow
from brackets.light import interpolate
from brackets.prepare import PrepareConfig, prepare
from brackets.register import in_words
from brackets.scenes import LAYOUTS, load_scene, scene_files
from common import run


def main():
    """One paragraph for the files, one for the camera, one for what moved by itself."""
    parser = argparse.ArgumentParser(prog="python -m brackets", description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="folder with three or more photographs and their exposures")
    parser.add_argument("--layout", default="auto", help="auto, " + ", ".join(LAYOUTS))
    args = parser.parse_args()
    paths, ev, truth = scene_files(args.folder, args.layout)
    sample = load_scene(args.folder, args.layout)
    height, width = sample["ldr"].shape[-2:]
    print(f"{sample['name']}: {width}x{height}")
    for path, stops, frame in zip(paths, ev, sample["ldr"]):
        clipped = 100 * (frame.amax(dim=0) >= 1).float().mean()
        print(f"  {path.name:24s} {read_image(path).dtype!s:8s} +{stops:.2f} EV  mean {frame.mean():.3f}, {clipped:.1f} % saturated")
    if truth:
        print(f"  {truth.name:24s} float32  truth      mean {sample['hdr'].mean():.4f}, largest {read_image(truth).max():.4f} before clipping at 1")

    prepared = prepare(sample["ldr"], sample["ev"], PrepareConfig(flow=False))
    print("camera")
    for i, name in ((0, "short"), (2, "long")):
        print(f"  {name:<6} {in_words(prepared.homographies[i], height, width)}")
    if prepared.curve is None:
        print("tone curve: gamma 2.2, or nothing that can be told from these frames")
    else:
        print("tone curve: not gamma 2.2")
        for v in np.linspace(0.1, 1, 10):
            print(f"  {v:.1f} shows what gamma 2.2 would code as {v * math.exp(interpolate(v, prepared.curve)):.3f}")
    print("what moved by itself")
    for i, name in ((0, "short"), (2, "long")):
        u = find_flow(prepared.ldr[1], prepared.ldr[i], float(sample["ev"][1] - sample["ev"][i]))
        length = u.norm(dim=0).flatten().sort().values
        print(f"  {name:<6} " + ", ".join(f"{100 * q:g} % of the pixels by {float(length[int(q * (len(length) - 1))]):.1f} pixels or less"
                                          for q in (0.5, 0.9, 0.99)))


if __name__ == "__main__":
    run(main)
