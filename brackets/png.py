"""Reads PNG files: 16 bits stay 16 bits, and a file that says it is not coded for a display is recoded, or refused.

libpng hands out samples as they are stored. What they mean stands in the first of the chunks cICP, iCCP, sRGB and gAMA that there is.
"""

import struct
import zlib

import imagecodecs
from PIL import Image

from brackets.kinds import Unsupported, check_size
from brackets.transfer import coded_for_display, of_profile

SDR = 1, 2, 4, 5, 6, 13, 14, 15    # transfer functions of cICP for displays (ITU-T H.273): BT.709 and its kin, gamma 2.2 and 2.8, sRGB; 2: unknown
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}   # samples of a pixel, by colour type


def _chunks(data):
    """{name: content} of the chunks of a PNG, of several the first; under IDAT how many bytes there are of it."""
    chunks, at, stored = {}, 8, 0
    while at + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[at:at + 8])
        if at + 12 + length > len(data):
            break
        stored += length * (name == b"IDAT")
        chunks.setdefault(name, None if name == b"IDAT" else data[at + 8:at + 8 + length])
        at += 12 + length
    return {**chunks, b"IDAT": stored}


def _exponent(chunks):
    """The exponent from light to samples, or None where nothing is said. chunks: of _chunks. Raises: Unsupported for HDR and for what no camera writes."""
    if b"cICP" in chunks:
        transfer = chunks[b"cICP"][1]
        if transfer not in SDR + (8,):
            name = {16: "PQ, an HDR curve", 18: "HLG, an HDR curve"}.get(transfer, f"number {transfer}")
            raise Unsupported(f"its tone curve is {name} (cICP); export it as an ordinary picture, sRGB")
        return 1.0 if transfer == 8 else None
    if b"iCCP" in chunks:                           # name, 0, method, profile
        try:
            return of_profile(zlib.decompressobj().decompress(chunks[b"iCCP"].partition(b"\0")[2][1:], 2 ** 22))
        except zlib.error:
            return None                             # as libpng, which does without a broken one
    if b"sRGB" in chunks or b"gAMA" not in chunks:
        return None
    gamma = struct.unpack(">I", chunks[b"gAMA"])[0] / 100_000
    if not 0.2 <= gamma <= 2:
        raise Unsupported(f"its samples are light to the power {gamma:g} (gAMA), which no camera writes; export it as sRGB")
    return gamma


def png_exif(path, chunks=None):
    """The EXIF of a PNG, a Pillow Exif. chunks: of _chunks, to save a reading."""
    chunks = _chunks(path.read_bytes()) if chunks is None else chunks
    if b"eXIf" not in chunks:
        with Image.open(path) as image:             # some writers put EXIF into a text
            return Image.Image.getexif(image)       # PngImageFile's own would decode all pixels to look behind them
    exif = Image.Exif()
    exif.load(chunks[b"eXIf"])
    return exif


def read_png(path):
    """Reads a PNG as it is stored.

    Returns: (H, W, 1 or 3) uint8, uint16 or, where it had to be recoded, float32; alpha (H, W), or None; orientation; a note about recoding, or "".
    Raises: ValueError where it is damaged; Unsupported, TooLarge, OSError.
    """
    data = path.read_bytes()
    chunks = _chunks(data)
    width, height, bits, colours = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    check_size(width, height)
    if height * (width * bits * CHANNELS[colours] // 8) > 1032 * chunks[b"IDAT"]:       # deflate makes at most 1032 bytes of one
        raise ValueError(f"it says {width}x{height} pixels but has only {chunks[b'IDAT']} bytes of them")
    exponent = _exponent(chunks)
    image = imagecodecs.png_decode(data)
    image = image[:, :, None] if image.ndim == 2 else image
    image, alpha = (image[:, :, :-1], image[:, :, -1]) if image.shape[2] in (2, 4) else (image, None)
    image, note = coded_for_display(image, exponent)
    return image, alpha, png_exif(path, chunks).get(0x0112), note
