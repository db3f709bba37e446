"""Reads and writes Radiance files (.hdr), which hold linear light as three mantissas and a common exponent.

imagecodecs handles the usual files. It takes XYZ for RGB, and does not know CRLF, long lines, the older run lengths or other orders of pixels.
Those are handled here; XYZ is refused. Source: Ward, "Real pixels", Graphics Gems II, 1991, and the manual page of Radiance's file formats.
"""

import math
import re

import imagecodecs
import numpy as np

from brackets.kinds import Unsupported, check_size

KEEP = "write it again as Radiance RGBE, which keeps its values"


def read_radiance(path):
    """Reads a Radiance file. Returns: (H, W, 3) float32 linear light; EXPOSURE is not applied. Raises: ValueError, Unsupported, OSError."""
    data = path.read_bytes()
    blank = re.search(rb"\n\r?\n([^\n]*)\n", data)          # a blank line, and the line that gives the size
    if blank is None:
        raise ValueError("it has no Radiance header")
    pixel_format = re.search(rb"^FORMAT[ \t]*=[ \t]*(\S{1,80})", data[:blank.start()], re.MULTILINE)
    if pixel_format and pixel_format[1] != b"32-bit_rle_rgbe":
        raise Unsupported(f"its pixels are {pixel_format[1].decode(errors='replace')}, not 32-bit_rle_rgbe; {KEEP} (ra_xyze -r does it for XYZ)")
    size = re.fullmatch(rb"([-+])([XY])[ \t]+(\d{1,9})[ \t]+([-+])([XY])[ \t]+(\d{1,9})[ \t]*\r?", blank[1])
    if size is None or size[2] == size[5]:
        raise ValueError(f"its size line is {blank[1][:80].decode(errors='replace')!r}, not like -Y height +X width")
    lines, length, pixels = int(size[3]), int(size[6]), data[blank.end():]
    check_size(length, lines)
    # The fewest bytes that a line can take. A false header must not claim all memory.
    fewest = 4 + 8 * math.ceil(length / 127) if pixels[:4] == bytes([2, 2, length >> 8 & 255, length & 255]) and 8 <= length < 2 ** 15 else 0
    if len(pixels) < fewest * lines:
        raise ValueError(f"it says {lines} lines of {length} pixels but has only {len(pixels)} bytes of them")
    if fewest:
        image = imagecodecs.rgbe_decode(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (lines, length) + pixels)
    else:
        image = _with_old_runs(pixels, lines * length).reshape(lines, length, 3)
    image = image[::-1 if size[1] + size[2] in (b"+Y", b"-X") else 1, ::-1 if size[4] + size[5] in (b"+Y", b"-X") else 1]
    return image if size[2] == b"Y" else image.swapaxes(0, 1)


def _with_old_runs(data, count):
    """Decodes four-byte pixels, where (1, 1, 1, n) repeats the last pixel n times; the k-th in a row (from 0), n 256^k times. Returns: (count, 3) float32."""
    stored = np.frombuffer(data, np.uint8)[:len(data) // 4 * 4].reshape(-1, 4)
    run, place = (stored[:, :3] == 1).all(axis=1), np.arange(len(stored))
    source = np.maximum.accumulate(np.where(run, -1, place))                # the pixel that is shown: the last one that is not a run
    times = np.where(run, stored[:, 3].astype(np.int64) << 8 * (place - source - 1).clip(0, 3), 1)
    end = int(np.searchsorted(np.cumsum(times), count)) + 1                 # what comes after the image is ignored
    if end > len(stored) or times[:end].sum() != count or source[0] < 0:
        raise ValueError(f"its pixels do not fill the image: {times[:end].sum()} of {count}")
    mantissas, exponents = stored[source[:end], :3], stored[source[:end], 3:].astype(np.int32)
    light = np.where(exponents > 0, np.ldexp(mantissas.astype(np.float32), exponents - 136), np.float32(0))
    return light.repeat(times[:end], axis=0)


def radiance_bytes(image, mark=""):
    """Encodes an image as a Radiance file. image: (H, W, 3) float32 >= 0; mark: from marks.py, for the header. Returns: bytes."""
    # The codec truncates the 8-bit mantissas, which is 0.3 % too dark on average. Adding half a step makes it round.
    brightest = image.max(axis=2, keepdims=True)
    exponent = np.frexp(brightest * np.float32(512 / 511))[1]               # a mantissa that rounds up to 1 takes the next exponent
    half_step = np.where(brightest > 0, np.ldexp(np.float32(1 / 512), exponent), np.float32(0))
    height, width, _ = image.shape
    room = 1000 + height * (8 * width + 16)     # the default is 4 bytes per pixel, too few for noise, which has no runs
    data = imagecodecs.rgbe_encode(image + half_step, out=room)
    return data.replace(b"\n", b"\nSOFTWARE=%s\n" % mark.encode(), 1) if mark else data
