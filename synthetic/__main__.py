"""Shows synthetic brackets as a contact sheet, or writes them as folders of photographs.

    python -m synthetic --count 8 --out synthetic.png                          # three LDRs, a plain merge, T(truth)
    python -m synthetic --count 8 --hdr-dir DIR --rendered-dir DIR             # the same from all three sources
    python -m synthetic --ruler val --export DIR --count 72 --hdr-dir D --rendered-dir R   # the scenes for choosing new weights, as folders
    python -m synthetic --split val --export DIR --count 36 --hdr-dir D --rendered-dir R   # the validation scenes of --data synthetic, as folders
"""

from dataclasses import dataclass
from pathlib import Path

from common import Count, Seed, Side, parse, run
import numpy as np
import torch

from brackets.files import write_image
from brackets.marks import PICTURE
from brackets.merge import weighted_merge
from brackets.ownership import check_replaceable
from data import T
from synthetic.ruler import ruler
from synthetic.dataset import AS_TAKEN, FIRST, SyntheticBrackets, SyntheticConfig, export, validation_set


@dataclass
class Config:
    """What to draw and where to write it."""

    count: Count = 8  # brackets: rows of the sheet, or folders
    size: Side = 256  # side of the images, pixels
    seed: Seed = 0  # of the brackets; --split val has its own
    hdr_dir: str = ""  # folder of .hdr images: panoramas and photographs
    rendered_dir: str = ""  # folder made by python -m synthetic.rendered
    split: str = "all"  # files that the brackets are made from: train, val or all; val draws the validation scenes of --data synthetic
    ruler: str = ""  # val or test: draw the scenes of that half of the ruler, see ruler.py
    first: bool = False  # draw brackets like those that earlier weights were trained on, with steps of 2 and 3 stops
    out: str = "synthetic.png"  # contact sheet to write
    export: str = ""  # write the brackets into this folder, as unaligned photographs, instead of a sheet


def contact_sheet(dataset, count):
    """Draws one row per bracket: its three frames, their plain merge and the truth, the last two after T.

    dataset: SyntheticBrackets, of which the first `count` are drawn.
    Returns: (count H, 5 W, 3) uint8.
    """
    rows = []
    for index in range(count):
        item = dataset[index]
        merged = weighted_merge(item["ldr"][None], item["ev"][None])[0]
        rows.append(torch.cat([*item["ldr"], T(merged), T(item["hdr"])], -1).numpy())
    return np.uint8(np.concatenate(rows, -2).transpose(1, 2, 0) * 255 + 0.5)


def main():
    """Reads the command line, then writes the sheet or the folders."""
    config = parse(Config, description=__doc__)
    if config.ruler not in ("", "val", "test") or config.split not in ("train", "val", "all"):
        raise ValueError(f"--ruler {config.ruler!r}, --split {config.split!r}: use val or test for the first, train, val or all for the second")
    if not config.export:
        check_replaceable(Path(config.out))
    if config.ruler:
        dataset = ruler(config.size, config.count, config.hdr_dir, config.rendered_dir, config.ruler)
    elif config.split == "val":
        dataset = validation_set(config.size, config.count, config.hdr_dir, config.rendered_dir)
    else:
        settings = SyntheticConfig(**(FIRST if config.first else {}), **(AS_TAKEN if config.export else {}))    # whoever reads the files aligns them
        dataset = SyntheticBrackets(config.size, config.seed, config.count, config.hdr_dir, config.rendered_dir, config.split, settings)
    if config.export:
        folders = export(dataset, Path(config.export))
        print(f"{config.export}: {len(folders)} scenes, {folders[0].name} to {folders[-1].name}")
    else:
        write_image(config.out, contact_sheet(dataset, config.count), PICTURE)
        print(f"{config.out}: {config.count} brackets; columns: short, reference, long exposure, plain merge, truth")


if __name__ == "__main__":
    run(main)
