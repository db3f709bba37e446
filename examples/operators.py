"""Draws HDR images with several tone mapping operators. Its sheet, docs/pictures.jpg, was used to choose NAME.jpg's operator.

    python examples/operators.py --images results/cafe.hdr DIR/0014.npy --out docs/pictures.jpg       a column per image, a row per operator

An image is a Radiance file, or a render of `python -m synthetic.rendered`, whose second frame is taken. It is clipped at the level
that makes one pixel in 500 white, as in the shortest photograph of a bracket.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from beyond.tonemap import picture
from brackets.files import read_image, write_image
from brackets.marks import PICTURE
from common import Side, parse, run
from data import T
from synthetic.sources import read_render

WHITE = 0.998       # quantile of the largest channel


@dataclass
class OperatorsConfig:
    """Tone mapping operators side by side."""
    images: tuple[str, ...] = ()            # .hdr files, or .npy files of synthetic.rendered
    out: str = "results/pictures.jpg"       # JPEG to write
    width: Side = 260                       # of one picture, pixels


def codes(image):
    """Rounds and clips an image in about [0, 1] to 8 bits."""
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def mantiuk(hdr):
    """Applies Mantiuk's operator. Returns: codes. It needs radiance above 0, and its output may be a little below 0, where gamma is not defined."""
    return codes(cv2.createTonemapMantiuk(gamma=1.0).process(np.maximum(hdr, 1e-6)).clip(0) ** (1 / 2.2))


OPERATORS = {       # (H, W, 3) linear radiance in [0, 1] -> (H, W, 3) uint8; all parameters but gamma are OpenCV's defaults
    "T of Eq. 6": lambda hdr: codes(T(torch.from_numpy(hdr)).numpy()),
    "Drago": lambda hdr: codes(cv2.createTonemapDrago(gamma=2.2).process(hdr)),
    "Reinhard": lambda hdr: codes(cv2.createTonemapReinhard(gamma=2.2).process(hdr)),
    "Mantiuk": mantiuk,
    "exposure fusion (NAME.jpg)": picture,
}


def load(path):
    """Reads an image and clips it as the shortest photograph would. Returns: (H, W, 3) linear radiance in [0, 1], float32. Raises: ValueError."""
    if Path(path).suffix.lower() == ".npy":
        hdr = read_render(path)[1].transpose(1, 2, 0)
    else:
        hdr = read_image(path)
        if hdr.dtype != np.float32:
            raise ValueError(f"{path}: found {hdr.dtype}, coded for a display; give radiance, as an .hdr file")
        hdr = np.maximum(hdr, 0)
    return np.ascontiguousarray(np.minimum(hdr / max(float(np.quantile(hdr.max(axis=2), WHITE)), 1e-6), 1))


def contact_sheet(images, width):
    """Draws a column per image, a row per operator. images: list of (H, W, 3) radiance; width: of one picture. Returns: (h, w, 3) uint8."""
    height, rows = width * 2 // 3, []
    for name, operator in OPERATORS.items():
        row = []
        for hdr in images:
            H, W = hdr.shape[:2]
            h, w = min(H, W * 2 // 3), min(W, H * 3 // 2)           # the middle, with sides of three to two
            shown = operator(hdr)[(H - h) // 2:(H + h) // 2, (W - w) // 2:(W + w) // 2]
            row.append(cv2.resize(shown, (width, height), interpolation=cv2.INTER_AREA))
        strip = Image.fromarray(np.concatenate(row, axis=1))
        box = ImageDraw.Draw(strip).textbbox((4, 3), name)
        ImageDraw.Draw(strip).rectangle((0, 0, box[2] + 4, box[3] + 3), fill="black")
        ImageDraw.Draw(strip).text((4, 3), name, fill="white")
        rows.append(np.asarray(strip))
    return np.concatenate(rows)


def main():
    """Reads the images and writes the sheet."""
    config = parse(OperatorsConfig, description=__doc__)
    if not config.images:
        raise ValueError("--images: none given; give at least one .hdr file, or .npy file of synthetic.rendered")
    write_image(config.out, contact_sheet([load(path) for path in config.images], config.width), PICTURE, quality=85)
    print(f"wrote {config.out}")


if __name__ == "__main__":
    run(main)
