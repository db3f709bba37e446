"""Reads and writes image files.

Some library calls return wrong pixels without an error. The calls below were tried and are right:
    16-bit PNG    imagecodecs; imageio with Pillow returns 8 bits
    .hdr          imagecodecs after our own reading of the header (radiance.py); imageio.imwrite("x.hdr") would write a TIFF
    TIFF          tifffile, with imagecodecs for LZW, after a check of what the file holds (tiff.py)

Arrays are (H, W, 3), RGB. Their range follows from the dtype (uint8 / 255, uint16 / 65535, float32 as it is), never from the values.
"""

from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import imageio.v3 as iio
import numpy as np
import tifffile
from PIL import Image

from brackets.kinds import SUFFIXES, Unsupported, check_size, in_a_sentence, kind_to_read
from brackets.marks import PICTURE, marked_png, software_exif
from brackets.ownership import check_replaceable
from brackets.png import png_exif, read_png
from brackets.radiance import radiance_bytes, read_radiance
from brackets.raw import raw_size_and_orientation, read_raw
from brackets.tiff import picture_of, read_tiff, tag_of
from brackets.transfer import coded_for_display, of_profile
from common import write_atomically

WRITTEN = {".tif": "uint8 uint16 float32", ".tiff": "uint8 uint16 float32", ".png": "uint8 uint16", ".jpg": "uint8", ".jpeg": "uint8", ".hdr": "float32"}
OPAQUE = 0.99       # alpha, on a scale from 0 to 1, from which a pixel counts as seen: a half-transparent edge is half of something else

Image.MAX_IMAGE_PIXELS = None       # Pillow would warn about photographs of 90 megapixels; check_size has our own limit


def _read_with_pillow(path):
    """Reads a JPEG or WebP as it is stored; of several pictures, the first. Returns: as tiff.read_tiff."""
    with Image.open(path) as file:
        check_size(*file.size)
        if file.mode not in ("RGB", "L", "RGBA"):
            raise Unsupported(f"its colours are {file.mode}, not RGB or grey; save it again as RGB")
        # A block of 64 pixels takes at least one bit in a JPEG. WebP has no such limit, but photographs never come near this one.
        if file.width * file.height > (10_000 if file.format == "WEBP" else 600) * path.stat().st_size:
            raise ValueError(f"it says {file.width}x{file.height} pixels but has only {path.stat().st_size} bytes")
        orientation, profile, image = file.getexif().get(0x0112), file.info.get("icc_profile"), np.asarray(file)
    image = image[:, :, None] if image.ndim == 2 else image
    alpha = image[:, :, 3] if image.shape[2] == 4 else None
    image, note = coded_for_display(image[:, :, :3], of_profile(profile))
    return image, alpha, orientation, note


READERS = {"TIFF": read_tiff, "PNG": read_png, "JPEG": _read_with_pillow, "WebP": _read_with_pillow, "RAW": read_raw,
           "Radiance": lambda path: (read_radiance(path), None, 1, "")}


@dataclass
class Stored:
    """An image as its file holds it."""
    pixels: np.ndarray          # (H, W, 3) uint8 or uint16 as coded, or float32; not turned upright
    seen: np.ndarray | None     # (H, W) bool, False where the file says that the pixel is transparent; None: all are opaque
    orientation: int            # EXIF's, 1 to 8
    note: str                   # what was done to the values, or ""


def read_stored(path):
    """Reads an image file of any kind in kinds.SUFFIXES, whatever its name. Arguments and errors: as read_image. Returns: Stored."""
    path = Path(path)
    try:
        kind = kind_to_read(path)
        if path.suffix.lower() in SUFFIXES["Radiance"] and kind != "Radiance":      # whoever reads an .hdr takes its values for light
            raise Unsupported(f"this is a {kind} file, not Radiance; save linear light as Radiance, and give a photograph its own suffix")
        image, alpha, orientation, note = READERS[kind](path)
        if image.ndim != 3 or image.size == 0 or image.dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(f"it decodes to {image.dtype} of shape {image.shape}")
    except Exception as error:      # each decoder raises its own kinds of exception, some of them plain RuntimeError or struct.error
        raise in_a_sentence(path, error) from error
    image = image if image.shape[2] == 3 else image.repeat(3, axis=2)
    seen = None if alpha is None else alpha >= OPAQUE * (1 if alpha.dtype == np.float32 else np.iinfo(alpha.dtype).max)
    return Stored(image, None if seen is None or seen.all() else seen, int(orientation) if orientation in range(1, 9) else 1, note)


def stored_size_and_orientation(path):
    """Reads the header of a photograph. Returns: (width, height) as stored, and the EXIF orientation, 1 to 8. Raises: as read_image."""
    path = Path(path)
    try:
        kind = kind_to_read(path)
        if kind == "RAW":
            return raw_size_and_orientation(path)
        if kind == "TIFF":
            with tifffile.TiffFile(path) as tiff:
                page = picture_of(tiff)
                size, orientation = (page.imagewidth, page.imagelength), tag_of(tiff, page, 0x0112)
        else:
            with Image.open(path) as image:
                size, orientation = image.size, (png_exif(path) if kind == "PNG" else image.getexif()).get(0x0112)
    except Exception as error:      # as above
        raise in_a_sentence(path, error) from error
    return size, int(orientation) if orientation in range(1, 9) else 1


def upright(image, orientation):
    """Applies the EXIF orientation (1 to 8) to an array (H, W) or (H, W, C)."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def read_image(path):
    """Reads an image file as it is, upright.

    path: a JPEG, PNG, TIFF, WebP, RAW or Radiance file. Its content decides which, not its name, but a file named .hdr must be Radiance.
    Grey becomes three equal channels, alpha is dropped, the orientation tag is applied, and the largest of several pages is taken. Of a colour
    profile only the tone curve is applied, and only if it is not a display's (transfer.py). EXPOSURE of an .hdr is not applied.
    Returns: (H, W, 3) RGB, uint8 or uint16 coded for a display, or float32: linear for an .hdr, otherwise as stored or recoded to gamma 2.2.
    Raises: FileNotFoundError; ValueError for a file that cannot be opened, is not an image, is of a kind that is not read, is too large, or is damaged.
    """
    stored = read_stored(path)
    return upright(stored.pixels, stored.orientation)


def read_array(path):
    """Opens the array of a .npy file, mapped into memory. Raises: as read_image."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:      # as above
        raise in_a_sentence(path, error) from error


def as_frame(stored, orientation=None):
    """Turns a photograph into a frame. stored: Stored; orientation: the EXIF orientation to apply, by default the photograph's own.

    Returns: (H, W, 3) float32, upright, scaled by dtype; NaN where the photograph does not show the scene, because it is transparent there.
    """
    frame = to_float(upright(stored.pixels, orientation or stored.orientation))
    if stored.seen is not None:
        frame[~upright(stored.seen, orientation or stored.orientation)] = np.nan
    return frame


def save_figure(path, figure, dpi, mark=PICTURE):
    """Writes a matplotlib figure as a PNG. mark, errors: as in write_image."""
    if mark == PICTURE:
        check_replaceable(path)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=dpi, metadata={"Software": mark}))


def write_image(path, image, mark="", quality=95):
    """Writes an image file whole or not at all, and makes its folder if there is none.

    path: .tif/.tiff (uint8, uint16, float32), .png (uint8, uint16), .jpg/.jpeg (uint8) or .hdr (float32 >= 0; the three
        channels share one exponent, so the error is up to 1/256 of the pixel's brightest channel).
    image: (H, W, 3) RGB. mark: "", or one of marks.py. A file marked as a PICTURE replaces only files with that mark. quality: of a JPEG.
    Raises: ValueError for another shape, dtype or suffix, for NaN, infinite or negative values in an .hdr, and for a file that must not be replaced.
    """
    path, image = Path(path), np.ascontiguousarray(image)
    suffix = path.suffix.lower()
    able = [end for end, kinds in WRITTEN.items() if image.dtype.name in kinds.split()]
    if suffix not in able:
        raise ValueError(f"{path}: {image.dtype} cannot be written as {suffix or 'a file without a suffix'}; "
                         f"{'end its name in ' + ' or '.join(able) if able else 'give uint8, uint16 or float32'}")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"{path}: found an image of shape {image.shape}; give (H, W, 3)")
    if mark == PICTURE:
        check_replaceable(path)
    if suffix == ".hdr":
        if not np.isfinite(image).all() or image.min() < 0:
            raise ValueError(f"{path}: the image has NaN, infinite or negative values; Radiance files cannot hold them")
        data = radiance_bytes(image, mark)
    elif suffix == ".png":
        data = imagecodecs.png_encode(image)
        data = marked_png(data, mark) if mark else data
    elif suffix in (".jpg", ".jpeg"):
        data = iio.imwrite("<bytes>", image, plugin="pillow", extension=".jpg", quality=quality, subsampling=0, exif=software_exif(mark))
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
