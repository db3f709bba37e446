"""Files of every kind, damaged at random: reading gives an image or one sentence, quickly and without much memory.

    python tests/brackets/test_mutations.py MINUTES SEED    runs for that long, and names what fails
"""

import io
import random
import struct
import sys
import time
import zlib
from pathlib import Path

if __name__ == "__main__":                          # as pytest does
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from brackets.exposures import read_exif, read_exposures
from brackets.files import read_image, stored_size_and_orientation
from brackets.marks import mark_of
from photographs import SMOOTH8, jpeg_bytes, png_bytes
from test_radiance import FLAT, radiance_file
from test_tiff import ycbcr_tiff
from test_transfer import LINEAR, SRGB

RGB16 = np.random.default_rng(0).integers(0, 65536, (24, 36, 3), dtype=np.uint16)
RGB8 = (RGB16 >> 8).astype(np.uint8)
ALPHA = np.concatenate([RGB16, RGB16[..., :1]], axis=2)
BORDERS = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2 ** 24, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]


def saved(fmt, **settings):
    buffer = io.BytesIO()
    Image.fromarray(RGB8).save(buffer, fmt, **settings)
    return buffer.getvalue()


def tiff(*images, **settings):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=settings.pop("bigtiff", False)) as writer:
        for image in images:
            writer.write(image, photometric="rgb", **settings)
    return buffer.getvalue()


WHOLE = {
    "a.jpg": jpeg_bytes(SMOOTH8, 6, 0.01, 4.0, 100), "progressive.jpg": saved("JPEG", progressive=True, icc_profile=SRGB), "a.webp": saved("WEBP"),
    "lossless.webp": saved("WEBP", lossless=True, icc_profile=LINEAR), "linear.png": png_bytes(RGB16, (b"gAMA", struct.pack(">I", 100_000))),
    "profile.png": png_bytes(RGB16, (b"iCCP", b"x\0\0" + zlib.compress(SRGB))), "alpha.png": png_bytes(ALPHA), "exif.png": jpeg_bytes(fmt="PNG", time=0.01),
    "a.hdr": bytes(imagecodecs.rgbe_encode(RGB8 / np.float32(255), out=20_000)), "flat.hdr": radiance_file(FLAT),
    "old.hdr": radiance_file(FLAT[:4] + b"\1\1\1\5", size=b"+X 2 -Y 3"), "a.tif": tiff(RGB16), "strips.tif": tiff(RGB16, rowsperstrip=4),
    "lzw.tif": tiff(RGB16, compression="lzw", rowsperstrip=5), "deflate.tif": tiff(RGB16, compression="zlib", predictor=True),
    "big.tif": tiff(RGB16, bigtiff=True),
    "tiles.tif": tiff(RGB16, tile=(16, 16), compression="zlib"), "packbits.tif": tiff(RGB8, compression="packbits"), "jpeg.tif": tiff(RGB8, compression="jpeg"),
    "alpha.tif": tiff(ALPHA, extrasamples=["unassalpha"]), "thumbnail.tif": tiff(RGB16[::4, ::4].copy(), RGB16), "profile.tif": tiff(RGB16, iccprofile=LINEAR),
    "float.tif": tiff((RGB16 / 65535).astype(np.float32), compression="zlib", predictor=3), "ycbcr.tif": ycbcr_tiff(RGB8[..., 0].copy(), 2, 2),
    "ycbcr, deflate.tif": ycbcr_tiff(RGB8[..., 0].copy(), 4, 2, zlib.compress), "exif.tif": jpeg_bytes(fmt="TIFF", time=0.01),
    "planes.tif": tiff(np.moveaxis(RGB16, 2, 0), planarconfig="separate", compression="zlib", rowsperstrip=5),
    "stops.txt": b"-2\n0\n+2EV", "times.txt": "1/60s\r\n0.25 s\r\n1s".encode("utf-16"),
}


def mutated(data, rng):
    """Makes a file with one or more faults: bytes changed, numbers set to the limits of their types, pieces lost, added or moved, the end cut off."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        if len(data) < 8:
            break
        i, fault = rng.randrange(min(len(data), 400) if rng.random() < 0.6 else len(data)), rng.random()
        if fault < 0.4:
            data[i] ^= 1 << rng.randrange(8) if fault < 0.1 else rng.randrange(1, 256)
        elif fault < 0.6:
            kind = rng.choice(["<H", ">H", "<I", ">I"])
            struct.pack_into(kind, data, min(i, len(data) - 4), rng.choice(BORDERS) & (0xFFFF if "H" in kind else 0xFFFFFFFF))
        elif fault < 0.7:
            del data[i:i + rng.choice([1, 2, 4, 16, 200])]
        elif fault < 0.8:
            data[i:i] = rng.randbytes(rng.choice([1, 2, 4, 16]))
        elif fault < 0.95:
            j, length = rng.randrange(len(data)), rng.choice([1, 4, 12, 64])
            data[i:i + length] = data[j:j + length]
        else:
            del data[i:]
    return bytes(data)


def check(path):
    """Reads a file in every way. Raises: AssertionError if the outcome is not as promised."""
    for read in (read_exposures,) if path.suffix == ".txt" else (read_image, stored_size_and_orientation, read_exif, mark_of):
        start = time.perf_counter()
        try:
            found = read(path)
            assert read is not read_image or (found.ndim == 3 and found.shape[2] == 3 and found.size and found.dtype in (np.uint8, np.uint16, np.float32))
            assert read is not read_exposures or np.isfinite(found).all()
        except ValueError as error:
            assert type(error) is ValueError and str(error).startswith(f"{path}: ") and "; " in str(error) and "\n" not in str(error), str(error)
        assert time.perf_counter() - start < 5, f"{read.__name__} took {time.perf_counter() - start:.0f} s"


@pytest.mark.filterwarnings("ignore::UserWarning")      # Pillow warns about damaged EXIF
@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_file_is_an_image_or_one_sentence(tmp_path, name):
    rng = random.Random(name)
    path = tmp_path / f"a{Path(name).suffix}"
    path.write_bytes(WHOLE[name])
    check(path)
    for _ in range(40):
        path.write_bytes(mutated(WHOLE[name], rng))
        check(path)


if __name__ == "__main__":
    minutes, seed = float(sys.argv[1]), sys.argv[2]
    rng, end, count, folder = random.Random(seed), time.time() + 60 * minutes, 0, Path(f"mutations_{seed}")
    folder.mkdir(exist_ok=True)
    while time.time() < end:
        name = rng.choice(list(WHOLE))
        path = folder / f"{count}{Path(name).suffix}"
        path.write_bytes(mutated(WHOLE[name], rng))
        count += 1
        try:
            check(path)
            path.unlink()                               # a file that fails, or ends the process, stays
        except Exception as error:
            print(f"{path}: of {name}: {type(error).__name__}: {error}")
    print(f"{count} files")
