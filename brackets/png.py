"""Reads PNG files: 16 bits stay 16 bits, and a file that says it is not coded for a display is recoded, or refused.

libpng returns samples as they are stored. Their meaning is given by the first of the chunks cICP, iCCP, sRGB and gAMA that is present.
"""

import struct
import zlib

import imagecodecs
from PIL import Image

from brackets.kinds import Unsupported, check_size
from brackets.transfer import coded_for_display, of_profile

SDR = 1, 2, 4, 5, 6, 13, 14, 15    # transfer functions of cICP for displays (ITU-T H.273): BT.709 and its kin, gamma 2.2 and 2.8, sRGB; 2: unknown
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}   # samples per pixel, by colour type


def _chunks(data):
    """Returns {name: content} of a PNG's chunks, the first of each name; for IDAT, the number of bytes in all of them."""
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
    """Returns the exponent from light to samples, or None if none is stated. chunks: from _chunks. Raises: Unsupported for HDR and for implausible curves."""
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
            return None                             # like libpng, which ignores a broken profile
    if b"sRGB" in chunks or b"gAMA" not in chunks:
        return None
    gamma = struct.unpack(">I", chunks[b"gAMA"])[0] / 100_000
    if not 0.2 <= gamma <= 2:
        raise Unsupported(f"its samples are light to the power {gamma:g} (gAMA), which no camera writes; export it as sRGB")
    return gamma


def png_exif(path, chunks=None):
    """Reads the EXIF of a PNG. chunks: from _chunks, to avoid reading the file again. Returns: Pillow's Exif."""
    chunks = _chunks(path.read_bytes()) if chunks is None else chunks
    if b"eXIf" not in chunks:
        with Image.open(path) as image:             # some writers put EXIF into a text chunk
            return Image.Image.getexif(image)       # PngImageFile.getexif would decode all pixels to look for EXIF after them
    exif = Image.Exif()
    exif.load(chunks[b"eXIf"])
    return exif


def read_png(path):
    """Reads a PNG as it is stored.

    Returns: (H, W, 1 or 3) uint8, uint16 or, if it had to be recoded, float32; alpha (H, W), or None; orientation; a note about recoding, or "".
    Raises: ValueError if it is damaged; Unsupported, OSError.
    """
    data = path.read_bytes()
    chunks = _chunks(data)
    width, height, bits, colours = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    check_size(width, height)
    if height * (width * bits * CHANNELS[colours] // 8) > 1032 * chunks[b"IDAT"]:       # deflate expands a byte to at most 1032
        raise ValueError(f"it says {width}x{height} pixels but has only {chunks[b'IDAT']} bytes of them")
    exponent = _exponent(chunks)
    image = imagecodecs.png_decode(data)
    image = image[:, :, None] if image.ndim == 2 else image
    image, alpha = (image[:, :, :-1], image[:, :, -1]) if image.shape[2] in (2, 4) else (image, None)
    image, note = coded_for_display(image, exponent)
    return image, alpha, png_exif(path, chunks).get(0x0112), note
