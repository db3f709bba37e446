"""Photographs and scenes on disk that several test files make and read."""

import io
import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from brackets.files import write_image

SMOOTH8 = np.stack([*np.meshgrid(np.arange(0, 240, 10), np.arange(0, 160, 10)), np.full((16, 24), 90)], axis=2).astype(np.uint8)


def opencv(path):
    """Reads with an independent library, in RGB."""
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]


def jpeg_bytes(image=SMOOTH8, orientation=None, time=None, f_number=None, iso=None, fmt="JPEG"):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    ifd = exif.get_ifd(0x8769)
    for tag, value in ((0x829A, time), (0x829D, f_number), (0x8827, iso)):
        if value is not None:
            ifd[tag] = value
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, fmt, exif=exif.tobytes(), **({"quality": 95} if fmt == "JPEG" else {}))
    return buffer.getvalue()


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_bytes(image, *chunks):
    """Makes a PNG with chunks, (name, content) each, before its pixels."""
    data = bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))
    return data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:]


def linear_png(image):
    """Makes a PNG that says that its samples are light."""
    return png_bytes(image, (b"gAMA", struct.pack(">I", 100_000)))


def frame(k, dtype=np.uint16, size=(24, 40), seed=0):
    """Makes a frame whose brightness tells which one it is: all values lie between 1000 * k and 1000 * k + 999."""
    values = np.random.default_rng([seed, k]).integers(0, 1000, (*size, 3)) + 1000 * k
    return values.astype(dtype) if dtype == np.uint16 else (values // 16).astype(dtype)


def kalantari_scene(folder, size=(24, 40), seed=0, ev="-2\n0\n2\n", truth=True):
    folder.mkdir(parents=True, exist_ok=True)
    for k in (1, 2, 3):
        tifffile.imwrite(folder / f"262A000{k}.tif", frame(k, size=size, seed=seed), photometric="rgb", compression="lzw")
    (folder / "exposure.txt").write_text(ev)
    if truth:
        write_image(folder / "HDRImg.hdr", np.random.default_rng(seed).random((*size, 3), dtype=np.float32))
    return folder


def which(sample):
    """Returns the number k of each of the three frames of a 16-bit sample, by their brightness."""
    return [int(f.mean() * 65535 // 1000) for f in sample["ldr"]]


def two_scenes(root):
    return [kalantari_scene(root / "a", size=(24, 40), seed=1), kalantari_scene(root / "b", size=(33, 20), seed=2, ev="0 3 6")]
