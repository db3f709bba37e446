"""Reads exposures, in stops, from text files as people write them and from the EXIF of photographs."""

import math
import re
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from brackets.folders import say
from brackets.kinds import in_a_sentence, instead_of, kind_to_read
from brackets.png import png_exif
from brackets.raw import raw_exif
from brackets.tiff import picture_of, tag_of

MOST = 1e6      # stops or seconds above which a number is not an exposure
TAGS = {"time": (0x829A, "ExposureTime"), "f_number": (0x829D, "FNumber"), "iso": (0x8827, "ISOSpeedRatings"), "shutter": (0x9201, "ShutterSpeedValue"),
        "aperture": (0x9202, "ApertureValue"), "bias": (0x9204, "ExposureBiasValue")}    # number in EXIF, and tifffile's name for it
IN_STOPS = {"time": 1, "iso": 1, "f_number": -2}


# --- text files -------------------------------------------------------------------------------------------------------

def _text(data):
    """Decodes text in UTF-8 or UTF-16, with or without a byte order mark."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data:                               # a digit in UTF-16 has one zero byte: the second, or the first
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def read_exposures(path, unit="ev"):
    """Reads the numbers of an exposure file.

    path: text file, UTF-8 or UTF-16, of numbers such as -2.5, +1 or 1/60, separated by line ends, spaces, commas or semicolons. A comma is
        never a decimal point.
    unit: "ev" (stops) or "seconds" (exposure times). A unit in the file takes precedence: 1/60s (seconds), -2EV (stops).
    Returns: (n,) float64 array of stops, in the order of the file.
    Raises: FileNotFoundError; ValueError for a word that is not a number, decimal commas, an empty file, or a time that is not positive.
    """
    path = Path(path)
    if unit not in ("ev", "seconds"):
        raise ValueError(f"read_exposures: unknown unit {unit!r}; use ev or seconds")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {instead_of('file', path)}; write a file of that name, one exposure per line")
    try:
        text = _text(path.read_bytes()).lower()
    except OSError as error:
        raise in_a_sentence(path, error) from error
    text = re.sub(r"(?<=[\d.])[ \t]+(?=(s|sec|ev)\b)", "", text.replace("\N{MINUS SIGN}", "-"))
    decimal = re.search(r"[-+]?\d+,\d+", text)
    if decimal and re.search(r"[^\s;][\s;]+[^\s;]", text):                      # the numbers are also separated by something else
        raise ValueError(f"{path}: found {decimal[0]!r}; write {decimal[0].replace(',', '.')!r} if the comma is a decimal point, or else spaces for commas")
    values, units = [], set()
    words = [word for word in re.split(r"[\s,;]+", text) if word]
    if not words:
        raise ValueError(f"{path}: the file is empty; write one exposure per line into it")
    for word in words:
        match = re.fullmatch(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?:/(\d+\.?\d*))?(s|sec|ev)?", word)
        if match is None or (match[2] and float(match[2]) == 0):
            raise ValueError(f"{path}: found {word!r} where a number should be; write one exposure per line, such as -2 or 1/60s")
        values.append(float(match[1]) / float(match[2] or 1))
        units.add({"s": "seconds", "sec": "seconds", "ev": "ev", None: unit}[match[3]])
        if not abs(values[-1]) <= MOST:
            raise ValueError(f"{path}: found {word!r}, which is not an exposure; write stops such as -2, or times such as 1/60s")
    if len(units) > 1:
        raise ValueError(f"{path}: some values are seconds and some are stops; give all of them the same unit")
    if units != {"seconds"}:
        return np.array(values)
    if min(values) <= 0:
        raise ValueError(f"{path}: found the exposure time {min(values):g} s; times must be positive (stops are written -2EV)")
    return np.log2(values)


# --- EXIF -------------------------------------------------------------------------------------------------------------

def _number(value, rational=False):
    """Returns the first number of a tag's value as a finite float, or None. rational: whether whole numbers come in pairs, as from tifffile."""
    if isinstance(value, tuple):
        if rational and len(value) >= 2 and all(isinstance(part, int) for part in value[:2]):
            value = value[0] / value[1] if value[1] else None
        else:
            value = value[0] if value else None
    try:
        value = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None


def _tags(path):
    """Reads the tags in TAGS from a photograph: {name: float or None}."""
    kind = kind_to_read(path)
    if kind == "RAW":
        return dict(zip(TAGS, (*raw_exif(path), None, None, None)))
    if kind == "TIFF":                                      # Pillow does not open every TIFF
        with tifffile.TiffFile(path) as tiff:
            page = picture_of(tiff)
            exif = tag_of(tiff, page, 0x8769) or {}
            values = {name: exif.get(title, tag_of(tiff, page, code)) for name, (code, title) in TAGS.items()}
        return {name: _number(value, rational=name != "iso") for name, value in values.items()}
    if kind == "PNG":
        exif = png_exif(path)
    else:
        with Image.open(path) as image:
            exif = image.getexif()
    exif = exif.get_ifd(0x8769)
    return {name: _number(exif.get(code)) for name, (code, _) in TAGS.items()}


def read_exif(path):
    """Reads the exposure of a photograph from its EXIF.

    path: a photograph of any kind that is read. If the time or f-number is missing, its APEX value is used instead.
    Returns: {"time": seconds, "f_number": number, "iso": number, "bias": stops}, None for each that is missing or not positive; bias may be negative.
    Raises: FileNotFoundError, ValueError if the file cannot be opened as an image.
    """
    try:
        tags = _tags(Path(path))
    except Exception as error:      # each library raises its own kinds of exception
        raise in_a_sentence(path, error) from error
    exif = {name: tags[name] if tags[name] and tags[name] > 0 else None for name in IN_STOPS}
    if exif["time"] is None and tags["shutter"] is not None and abs(tags["shutter"]) < 30:
        exif["time"] = 2.0 ** -tags["shutter"]              # APEX: Tv = -log2 t
    if exif["f_number"] is None and tags["aperture"] and 0 < tags["aperture"] < 30:
        exif["f_number"] = 2.0 ** (tags["aperture"] / 2)    # APEX: Av = 2 log2 N
    return {**exif, "bias": tags["bias"] if tags["bias"] is not None and abs(tags["bias"]) < 30 else None}


def exif_exposures(paths):
    """Computes exposures from the EXIF of photographs: log2(time * ISO/100 / f_number^2), or the exposure bias if times are missing.

    f_number or ISO is left out if no photograph has it, as with an old lens or a phone: it did not change.
    Returns: (n,) float64 stops, of which only differences are meaningful, and ""; or None, and what is missing in which photograph.
    Raises: as read_exif.
    """
    exif = [read_exif(path) for path in paths]
    terms = ["time"] + [term for term in ("f_number", "iso") if any(e[term] for e in exif)]
    missing = {term: [path.name for path, e in zip(paths, exif) if e[term] is None] for term in terms}
    if not any(missing.values()):
        return np.array([sum(IN_STOPS[term] * math.log2(e[term] / (100 if term == "iso" else 1)) for term in terms) for e in exif]), ""
    biases = [e["bias"] for e in exif]
    if missing["time"] and None not in biases and len(set(biases)) > 1:
        say(f"{paths[0].parent}: no exposure times in the EXIF of {', '.join(missing['time'])}; the exposure bias of each photograph is used")
        return np.array(biases), ""
    return None, "; ".join(f"no {term} in the EXIF of {', '.join(names)}" for term, names in missing.items() if names)
