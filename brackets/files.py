"""Reads and writes image files, and reads exposures from text files and EXIF.

Some calls give wrong pixels without an error. These were tried and are right:
    16-bit PNG    imagecodecs; imageio with Pillow returns 8 bits
    .hdr          imagecodecs after our own reading of the header; imageio.imwrite("x.hdr") would write a TIFF
    TIFF          tifffile, with imagecodecs for LZW; a file cut off after its header decodes to no pixels, so the size is checked

Arrays are (H, W, 3), RGB. Their range follows from the dtype (uint8 / 255, uint16 / 65535, float32 as it is), never from the values.
"""

import math
import re
from pathlib import Path

import imagecodecs
import imageio.v3 as iio
import numpy as np
import tifffile
from PIL import Image

from brackets.marks import marked_png, software_exif
from common import write_atomically

LDR_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
TIFF_SUFFIXES = (".tif", ".tiff")


# --- image files ------------------------------------------------------------------------------------------------------

def _upright(image, orientation):
    """Applies the EXIF orientation (1 to 8) to an (H, W, C) array."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def _read_tiff(path):
    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) == 0:
            raise ValueError("it holds no image")
        page = tiff.pages[0]  # further pages are thumbnails
        kind, bits = page.photometric, page.bitspersample
        if kind not in (0, 1, 2, 6):  # white is zero, black is zero, RGB, YCbCr (comes out as RGB)
            raise ValueError(f"its colours are {getattr(kind, 'name', kind)}, not RGB or grey")
        if bits not in (8, 16, 32, 64):
            raise ValueError(f"it stores {bits} bits a value, whose white level is uncertain")
        image = page.asarray()
        if page.axes == "SYX":
            image = image.transpose(1, 2, 0)
        if kind == 0:
            if image.dtype.kind != "u":
                raise ValueError("its white is zero in floating point")
            image = np.iinfo(image.dtype).max - image
    return image.astype(np.float32) if image.dtype in (np.float16, np.float64) else image


def _read_jpeg(path):
    with Image.open(path) as file:
        if file.format not in ("JPEG", "MPO"):
            raise ValueError(f"it is a {file.format} file")
        if file.mode not in ("RGB", "L"):
            raise ValueError(f"its colours are {file.mode}, not RGB or grey")
    return iio.imread(path, plugin="pillow", index=0)


def _read_radiance(path):
    """Reads the header here and leaves the pixels to the codec, which takes XYZ for RGB and knows neither CRLF nor long lines."""
    data = path.read_bytes()
    header = re.match(rb"#\?(?:RADIANCE|RGBE)[^\n]*\n((?:[^\n]*[^\r\n][^\n]*\n)*)\r?\n([^\n]*)\n", data)
    if header is None:
        raise ValueError("it has no Radiance header")
    pixel_format = re.search(rb"^FORMAT[ \t]*=[ \t]*(\S+)", header[1], re.MULTILINE)
    if pixel_format and pixel_format[1] != b"32-bit_rle_rgbe":
        raise ValueError(f"its pixels are {pixel_format[1].decode(errors='replace')}, not 32-bit_rle_rgbe")
    size = re.fullmatch(rb"-Y[ \t]+(\d+)[ \t]+\+X[ \t]+(\d+)[ \t]*\r?", header[2])
    if size is None:
        raise ValueError(f"its size line is {header[2].decode(errors='replace')!r}, not -Y height +X width")
    height, width = int(size[1]), int(size[2])
    # The fewest bytes that a row can take. A false header must not claim all memory.
    row = 4 + 8 * math.ceil(width / 127) if 8 <= width <= 32767 else 4 * width
    pixels = data[header.end():]
    if height * width == 0 or len(pixels) < min(row, 4 * width) * height:
        raise ValueError(f"it says {width}x{height} pixels but has only {len(pixels)} bytes of them")
    standard = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (height, width)
    return imagecodecs.rgbe_decode(standard + pixels)


def read_image(path):
    """Reads an image file as it is, upright.

    path: .tif, .tiff, .png, .jpg, .jpeg or .hdr. Grey becomes three equal channels, alpha is dropped, the orientation tag
        is applied, and of several pages the first is taken. Colour profiles and the EXPOSURE of an .hdr are not applied.
    Returns: (H, W, 3) RGB, uint8 or uint16 gamma-coded, or float32 (linear for .hdr).
    Raises: FileNotFoundError; ValueError for a file that is damaged, of another kind than its suffix says, CMYK, a palette
        TIFF or of another bit depth. Save such a file again as 8- or 16-bit RGB.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in LDR_SUFFIXES + (".hdr",):
        raise ValueError(f"{path}: files of type {suffix or '(none)'} are not read; use .tif .png .jpg or .hdr")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the name")
    try:
        if suffix == ".hdr":
            image = _read_radiance(path)
        elif suffix in TIFF_SUFFIXES:
            image = _read_tiff(path)
        elif suffix == ".png":
            image = imagecodecs.png_decode(path.read_bytes())  # imageio gives 8 bits of a 16-bit PNG
        else:
            image = _read_jpeg(path)
        orientation = 1 if suffix == ".hdr" else _exif_tags(path)[0]
    except Exception as error:  # each decoder has its own kinds of exception, some of them plain RuntimeError or struct.error
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: cannot be read ({reason}); save it again as an 8- or 16-bit RGB image") from error
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.size == 0 or image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"{path}: decoded to {image.dtype} of shape {image.shape}, the file is damaged or of an unusual kind; "
                         "save it again as an 8- or 16-bit RGB image")
    image = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1].repeat(3, axis=2)
    return np.ascontiguousarray(_upright(image, orientation))


def write_image(path, image, mark=""):
    """Writes an image file whole or not at all, and makes its folder where there is none.

    path: .tif/.tiff (uint8, uint16, float32), .png (uint8, uint16), .jpg/.jpeg (uint8) or .hdr (float32 >= 0; the three
        channels share one exponent, so the error is up to 1/256 of the pixel's brightest channel).
    image: (H, W, 3) RGB. mark: "", or one of marks.py, for .tif, .png and .jpg.
    Raises: ValueError for another shape, dtype or suffix, and for NaN, infinite or negative values in an .hdr.
    """
    path, image = Path(path), np.ascontiguousarray(image)
    suffix = path.suffix.lower()
    kinds = {".tif": "uint8 uint16 float32", ".tiff": "uint8 uint16 float32", ".png": "uint8 uint16", ".jpg": "uint8",
             ".jpeg": "uint8", ".hdr": "float32"}.get(suffix, "")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype.name not in kinds.split():
        raise ValueError(f"{path}: cannot hold {image.dtype} of shape {image.shape}; give (H, W, 3) of {kinds or 'a suffix that is known'}")
    if suffix == ".hdr":
        if not np.isfinite(image).all() or image.min() < 0:
            raise ValueError(f"{path}: the image has NaN, infinite or negative values; Radiance files cannot hold them")
        # The codec cuts off the 8-bit mantissas: 0.3 % too dark on average. Half a step more makes it round.
        brightest = image.max(axis=2, keepdims=True)
        exponent = np.frexp(brightest * np.float32(512 / 511))[1]  # a mantissa that rounds up to 1 takes the next exponent
        half_step = np.where(brightest > 0, np.ldexp(np.float32(1 / 512), exponent), np.float32(0))
        height, width, _ = image.shape
        room = 1000 + height * (8 * width + 16)  # by default 4 bytes per pixel, too few for noise, which has no runs
        data = imagecodecs.rgbe_encode(image + half_step, out=room)
    elif suffix == ".png":
        data = imagecodecs.png_encode(image)
        data = marked_png(data, mark) if mark else data
    elif suffix in (".jpg", ".jpeg"):
        data = iio.imwrite("<bytes>", image, plugin="pillow", extension=".jpg", quality=95, subsampling=0, exif=software_exif(mark))
    else:
        write_atomically(path, lambda handle: tifffile.imwrite(
            handle, image, photometric="rgb", compression="zlib", predictor=image.dtype != np.float32, software=mark or None))
        return
    write_atomically(path, lambda handle: handle.write(data))


def to_float(image):
    """Scales by dtype alone: uint8 / 255, uint16 / 65535, float32 as it is.

    image: array of any shape. Returns: float32, the same shape.
    Raises: ValueError for another dtype.
    """
    if image.dtype == np.float32:
        return image
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"to_float: found {image.dtype}; give uint8, uint16 or float32")
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


# --- exposures --------------------------------------------------------------------------------------------------------

def read_exposures(path, unit="ev"):
    """Reads the numbers of an exposure file.

    path: text file of numbers such as -2.5, +1 or 1/60, separated by line ends, blanks, commas or semicolons. A comma is never
        a decimal point.
    unit: "ev" or "log2" (stops), or "seconds" (exposure times). A unit in the file goes before it: 1/60s (seconds), -2EV (stops).
    Returns: (n,) float64 array of stops, in the order of the file.
    Raises: FileNotFoundError; ValueError for a word that is no number, an empty file, or a time that is not positive.
    """
    path = Path(path)
    if unit not in ("ev", "log2", "seconds"):
        raise ValueError(f"read_exposures: unknown unit {unit!r}; use ev, log2 or seconds")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; write one exposure per line into it")
    text = path.read_bytes().decode("utf-8-sig", errors="replace").lower()
    text = re.sub(r"(?<=[\d.])[ \t]+(?=(s|sec|ev)\b)", "", text.replace("\N{MINUS SIGN}", "-"))
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
    if len(units) > 1:
        raise ValueError(f"{path}: some values are seconds and some are stops; give all of them the same unit")
    if units != {"seconds"}:
        return np.array(values)
    if min(values) <= 0:
        raise ValueError(f"{path}: found the exposure time {min(values):g} s; times must be positive (stops are written -2EV)")
    return np.log2(values)


def _number(value):
    """What an EXIF reader gives (number, rational, pair, tuple) as a positive float, or else None."""
    if isinstance(value, tuple):
        if len(value) == 2 and value[1] == 0:
            return None
        value = value[0] / value[1] if len(value) == 2 else value[0] if value else None
    try:
        value = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def _exif_tags(path):
    """Returns: orientation (1 to 8), exposure time, f-number, ISO, the last three as the library gives them."""
    if path.suffix.lower() in TIFF_SUFFIXES:  # Pillow does not open every TIFF
        with tifffile.TiffFile(path) as tiff:
            tags = tiff.pages[0].tags
            orientation, exif = tags.valueof(0x0112), tags.valueof(0x8769) or {}
        values = [exif.get(name) for name in ("ExposureTime", "FNumber", "ISOSpeedRatings")]
    else:
        with Image.open(path) as image:
            exif = image.getexif()
            orientation, exif = exif.get(0x0112), exif.get_ifd(0x8769)
        values = [exif.get(tag) for tag in (0x829A, 0x829D, 0x8827)]
    return int(orientation) if orientation in range(1, 9) else 1, *values


def read_exif(path):
    """Reads the exposure of a photograph from its EXIF.

    path: .jpg, .png or .tif.
    Returns: {"time": seconds, "f_number": number, "iso": number}, None for each that is missing.
    Raises: ValueError where the file cannot be opened as an image.
    """
    try:
        _, time, f_number, iso = _exif_tags(Path(path))
    except Exception as error:  # see read_image
        raise ValueError(f"{path}: cannot be read ({error}); remove it or save it again as an image") from error
    iso = iso[0] if isinstance(iso, tuple) and iso else iso  # a list of ratings, not a fraction
    return {"time": _number(time), "f_number": _number(f_number), "iso": _number(iso)}


def exif_ev(path, terms=("time", "f_number", "iso")):
    """Works out how much a photograph was exposed, from its EXIF: log2(time * ISO/100 / f_number^2).

    path: .jpg, .png or .tif.
    terms: which of the three enter. scene_files leaves out f_number or iso where no frame of the bracket has it: with an old
        lens or a phone it did not change. Where only some frames have it, it enters and its absence is an error.
    Returns: stops; only differences within one bracket mean something.
    Raises: ValueError where a term is missing: write exposure.txt.
    """
    exif = read_exif(path)
    missing = [term for term in terms if exif[term] is None]
    if missing:
        raise ValueError(f"{path}: no {' and no '.join(missing)} in its EXIF; write exposure.txt beside it, one EV per line")
    power = {"time": 1, "iso": 1, "f_number": -2}
    return sum(power[term] * math.log2(exif[term] / (100 if term == "iso" else 1)) for term in terms)
