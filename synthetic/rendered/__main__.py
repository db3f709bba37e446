"""Renders training scenes with a physically based renderer, for what cut-outs on a plane cannot show.

A scene is one place at three moments, one per exposure. It has parallax under a hand-held camera; walking figures; objects that bend,
twist, swing, roll and spin; occlusion, cast shadows, lamps in view, and rooms with a window to the bright outside. Panoramas light it.
It holds radiance only: dataset.py adds exposure, noise, clipping and files.

    pip install mitsuba pyoidn                  # needed only here
    python -m synthetic.rendered --hdr-dir DIR --out data/rendered --train 200 --val 24    # 40 minutes on two busy cores; 260 MB
    python -m synthetic.rendered --out data/rendered --sheet sheet.png                     # look at them (seconds)

DIR is searched for .hdr files, subfolders included. Panoramas (width = 2 height) light the scenes and are seen behind them. Photographs
and panoramas become pictures on walls and screens. Training scenes use the files that sources.in_validation gives to training,
validation scenes use the others, so no image is in both.
The renderer needs LLVM's shared library. Set DRJIT_LIBLLVM_PATH to a newer one if it is not found, or if Mitsuba stops with "LLVM ERROR:
Cannot select" (Mitsuba 3.9 does with LLVM 15, not with 19).

Written: OUT/train/NNNN.npy and OUT/val/NNNN.npy, see render.py. A scene is a function of (seed, split, index) and DIR. Files that exist
are skipped.
"""

import functools
import importlib.util
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from common import Count, Seed, Whole, parse, run
from brackets.files import write_image
from brackets.marks import PICTURE
from synthetic.rendered.render import SPP, contact_sheet, find_panoramas, render_file, start


@dataclass
class Config:
    """What to render and where to write it."""

    hdr_dir: str = ""  # folder of .hdr panoramas and photographs, searched with its subfolders
    out: str = "data/rendered"  # folder to write to
    train: Whole = 200  # training scenes
    val: Whole = 24  # validation scenes
    seed: Seed = 0  # of everything random
    spp: Count = SPP  # paths per pixel
    workers: Count = os.cpu_count() or 1  # scenes rendered at a time; they share the cores
    sheet: str = ""  # only write this contact sheet of the scenes in --out
    rows: Count = 12  # scenes of each split in the sheet


def main():
    """Reads the command line, then renders the scenes that are missing, or draws the sheet."""
    config = parse(Config, description=__doc__)
    out = Path(config.out)
    if config.sheet:
        write_image(config.sheet, contact_sheet(out, config.rows), PICTURE)
        return
    if not config.hdr_dir:
        raise FileNotFoundError("--hdr-dir: not given; name a folder with .hdr panoramas, for example from polyhaven.com (CC0)")
    missing = [name for name in ("mitsuba", "pyoidn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"python -m synthetic.rendered: {' and '.join(missing)} not found; run pip install {' '.join(missing)}")
    for split, count in (("val", config.val), ("train", config.train)):
        if count:
            find_panoramas(config.hdr_dir, split)           # raises its errors before the work starts
    tasks = [(split, index, out / split / f"{index:04d}.npy") for split, count in (("val", config.val), ("train", config.train)) for index in range(count)]
    tasks = [task for task in tasks if not task[-1].exists()]
    render = functools.partial(render_file, hdr_dir=config.hdr_dir, seed=config.seed, spp=config.spp)
    threads = max(1, (os.cpu_count() or 1) // config.workers)
    try:
        with ProcessPoolExecutor(config.workers, multiprocessing.get_context("spawn"), start, (threads,)) as pool:
            for done, line in enumerate(pool.map(render, tasks), 1):
                print(f"{done}/{len(tasks)} {line}", flush=True)
    except BrokenProcessPool:       # a Pool would start its processes again and again
        raise ValueError("python -m synthetic.rendered: a process of the renderer ended, for lack of memory or of LLVM; see the output above and the top of "
                         "this file, or use fewer --workers") from None


if __name__ == "__main__":
    run(main)
