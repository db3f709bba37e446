"""Recodes photographs whose samples are not coded for a display. Samples with a display's curve are left as they are, for light.py to correct.

Samples that are linear, or far from any display's curve, are recoded to gamma 2.2 if the file says so: in an ICC profile, or in PNG's chunks (png.py).
"""

import math
import struct

import numpy as np

from data import GAMMA

DISPLAY = 1 / 2.7, 1 / 1.7      # exponents from light to samples that displays have


def of_profile(profile):
    """Reads the exponent from light to samples from an ICC profile. profile: bytes, or None. Returns: float, 1 for linear; None if it states none.

    A curve counts as the power that matches it in its middle. Source: ICC.1:2022, 10.6 and 10.18.
    """
    try:
        count = struct.unpack(">I", profile[128:132])[0]
        tags = {name: (offset, size) for name, offset, size in struct.iter_unpack(">4sII", profile[132:132 + 12 * min(count, 100)])}
        offset, size = tags.get(b"rTRC") or tags[b"kTRC"]
        curve = profile[offset:offset + size]
        kind, number = curve[:4], struct.unpack(">I", curve[8:12])[0]
        if kind == b"para":
            power, a, b = (*struct.unpack(">3i", curve[12:24].ljust(12, b"\0")),) if number >> 16 else (*struct.unpack(">i", curve[12:16]), 65536, 0)
            middle = ((a / 2 + b) / 65536) ** (power / 65536)
        elif kind != b"curv":
            return None
        elif number == 0:
            return 1.0
        elif number == 1:
            return 256 / struct.unpack(">H", curve[12:14])[0]
        else:
            values = np.frombuffer(curve, ">u2", number, 12) / 65535
            middle = np.interp(0.5, np.linspace(0, 1, number), values)
        return math.log(0.5) / math.log(middle)
    except (TypeError, KeyError, struct.error, ValueError, ZeroDivisionError, OverflowError):
        return None


def coded_for_display(image, exponent):
    """Recodes an image to gamma 2.2 if its samples are light to a power that displays do not have.

    image: (H, W, C) uint8, uint16, or float32 in [0, 1]; exponent: from of_profile. Returns: float32 of the same shape and a note for people; the
        image itself and "" if the exponent is None, a display's, or absurd, or if float values lie outside [0, 1].
    """
    if exponent is None or DISPLAY[0] <= exponent <= DISPLAY[1] or not 0.2 <= exponent <= 2:
        return image, ""
    if image.dtype == np.float32 and not (image.min() >= 0 and image.max() <= 1):
        return image, ""
    values = image if image.dtype == np.float32 else image / np.float32(np.iinfo(image.dtype).max)
    light = "linear light" if abs(exponent - 1) < 0.05 else f"light to the power {exponent:.2g}"
    return values ** np.float32(1 / (GAMMA * exponent)), f"{light}, coded with gamma 2.2"
