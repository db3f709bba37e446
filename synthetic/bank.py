"""Makes a bank of brackets. They are made and aligned once, so that training need not wait for the camera and the front end.

    python -m synthetic.bank --hdr-dir DIR --rendered-dir data/rendered --out data/bank      6,000 brackets: 35 minutes on two busy cores, 5.3 GB
    python train_stage1.py --data bank --root data/bank --align ...                         trains on crops of them

Each bracket is photographed as in dataset.py and prepared by the front end (brackets/prepare.py) with its real errors. It is made larger,
so that registration and flow see more than the part that is kept. Bracket i is a function of (seed, i) and the folders; files that exist
are skipped. The truth is scaled to the light that the front end found, because its scale is a convention. If the front end gets the light
wrong by more than such a scale, or refuses the bracket, no network could know better, and another bracket takes its place.

Written: OUT/000000.npy and OUT/000000.ev.npy and so on, see prepare.write_record; OUT/settings.json, with which a bank is continued.
"""

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path

from common import Count, Seed, Whole, parse, run, write_atomically
import numpy as np
import torch
import torch.nn.functional as nnf

from brackets.prepare import is_written, prepare, read_records, share_work, write_record
from data import to_radiance
from synthetic.dataset import AS_TAKEN, SyntheticBrackets, SyntheticConfig

MISTAKEN = 0.15     # a bracket is left out if its light, after one scale, is off by more than this, stops; see light_error
REFUSED = 10 ** 6   # added to the index of a bracket that is left out, so that no two brackets of a bank are alike
BLOCK, SHOWN = 8, 0.02  # side of the blocks in which the light is compared, pixels; share of them that must be well exposed
PHOTOGRAPH = 208, 288     # height and width of the photographed and prepared frames, pixels: those of the training renders


@dataclass(frozen=True)
class BankConfig:
    """How many brackets to make, from what, and where they go."""
    count: Count = 6000     # brackets
    size: Count = 192       # side of a bracket, pixels
    seed: Seed = 0          # of everything random
    hdr_dir: str = ""       # folder of .hdr images, panoramas and photographs
    rendered_dir: str = ""  # folder made by python -m synthetic.rendered
    out: str = "data/bank"  # folder to write to
    workers: Whole = os.cpu_count() or 1    # processes that share the work


def light_error(ldr, ev, hdr):
    """Measures how the light of a prepared bracket differs from the truth. Arguments: those of a sample.

    It compares blocks of 8x8 pixels that the reference exposes well, or else the short or the long frame.
    Returns: the median difference in stops, and the distance from it within which three in four blocks lie. None if too little is well exposed.
    """
    radiance = to_radiance(ldr[None], ev[None])[0]
    for i in (1, 0, 2):
        seen = nnf.avg_pool2d(((ldr[i] > 0.05) & (ldr[i] < 0.95) & (hdr > 0)).float(), BLOCK) == 1
        if seen.float().mean() > SHOWN:
            off = torch.log2(nnf.avg_pool2d(radiance[i], BLOCK)[seen] / nnf.avg_pool2d(hdr, BLOCK)[seen])
            return float(off.median()), float((off - off.median()).abs().quantile(0.75))
    return None


def prepared_bracket(brackets, index, size):
    """Makes one bracket as training sees it. brackets: SyntheticBrackets, as taken; size: side of the part that is kept, pixels.

    Returns: a sample {"ldr", "ev", "hdr"}, see data.py; None where the front end fails.
    """
    ldr, ev, hdr, _ = brackets.bracket(index)
    hdr = torch.from_numpy(hdr)
    try:
        prepared = prepare(torch.from_numpy(ldr), torch.from_numpy(ev))
    except ValueError:                                              # frames whose order contradicts the stated exposures
        return None
    error = light_error(prepared.ldr, prepared.ev, hdr)
    if error is None or error[1] > MISTAKEN:
        return None
    hdr = (hdr * 2.0 ** error[0]).clamp(max=1)
    height, width = hdr.shape[1:]
    top, left = np.random.default_rng([brackets.seed, index, 2]).integers((height - size + 1, width - size + 1))
    window = ..., slice(top, top + size), slice(left, left + size)
    return {"ldr": prepared.ldr[window], "ev": prepared.ev, "hdr": hdr[window]}


@functools.lru_cache(maxsize=1)
def open_brackets(config):
    """Opens the brackets of a bank as the camera takes them. config: BankConfig. Returns: SyntheticBrackets."""
    settings = SyntheticConfig(**AS_TAKEN)
    return SyntheticBrackets(PHOTOGRAPH, config.seed, hdr_dir=config.hdr_dir, rendered_dir=config.rendered_dir, split="train", config=settings)


def fill(index, config):
    """Writes bracket `index`. If the front end fails on it, tries index + REFUSED, index + 2 REFUSED, ... in its place."""
    sample, file = None, bank_file(config.out, index)
    while sample is None:
        sample = prepared_bracket(open_brackets(config), index, config.size)
        index += REFUSED
    write_record(file, sample, np.float16)


def bank_file(folder, index):
    """Returns the file of bracket `index` in a bank."""
    return Path(folder) / f"{index:06d}.npy"


def check_settings(config):
    """Writes what the brackets are made with into OUT/settings.json. Raises: ValueError if the folder holds brackets made with other settings."""
    path, made_with = Path(config.out) / "settings.json", {name: getattr(config, name) for name in ("size", "seed", "hdr_dir", "rendered_dir")}
    text = json.dumps(made_with, indent=1).encode()
    if path.read_bytes() != text if path.is_file() else is_written(bank_file(config.out, 0)):
        raise ValueError(f"{config.out}: its brackets were made with another --size, --seed, --hdr-dir or --rendered-dir; choose another --out")
    write_atomically(path, lambda file: file.write(text))


def open_bank(folder):
    """Opens the brackets of a bank for data.Patches.

    Returns: list of (path, (3,) float32 exposures). Raises: FileNotFoundError where there is none.
    """
    files = [file for file in sorted(Path(folder).glob("[0-9]*.npy")) if not file.stem.endswith(".ev") and is_written(file)]
    if not files:
        raise FileNotFoundError(f"{folder}: holds no bank of brackets; make one with python -m synthetic.bank --out {folder}")
    return read_records(files)


def main():
    """Reads the command line, then makes the brackets that are missing."""
    config = parse(BankConfig, description=__doc__)
    if not 16 <= config.size <= min(PHOTOGRAPH):
        raise ValueError(f"--size {config.size}: must be from 16 to {min(PHOTOGRAPH)} pixels")
    open_brackets(config)                                           # raises its errors before the work starts
    check_settings(config)
    missing = [(i,) for i in range(config.count) if not is_written(bank_file(config.out, i))]
    share_work(functools.partial(fill, config=config), missing, config.workers, f"making brackets into {config.out}")
    print(f"{config.out}: {len(open_bank(config.out))} brackets, {len(missing)} of them new")


if __name__ == "__main__":
    run(main)
