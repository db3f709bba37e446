"""Reads TIFF files: the picture and not its thumbnail, all of it or nothing.

tifffile decodes. It leaves missing parts black, and walks through as many strips as a file claims to have. So the claims of a file are first
compared with what it holds. YCbCr without JPEG compression, which tifffile takes for RGB, is converted here.
"""

import logging
import math
import struct
from itertools import islice

import numpy as np
import tifffile

from brackets.kinds import Unsupported, check_size
from brackets.raw import read_raw
from brackets.transfer import coded_for_display, of_profile

MOST_PAGES = 64
REDUCED_OR_MASK = 5             # bits of NewSubfileType
RAW = 32803, 34892              # photometric: what a colour filter array saw, and the same after interpolation
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR = 0, 1, 2, 6
MOST_PER_BYTE = {1: 1, 5: 2000, 8: 2000, 32946: 2000, 32773: 2000}  # {compression: bytes that one byte can become}: none, LZW, deflate twice, PackBits
JPEG, OTHERS = (6, 7), (50000, 34925, 34926)    # other compressions that are read: JPEG; Zstandard and LZMA, where a byte can become many
WHITES = 511, 1023, 2047, 4095, 8191, 16383, 32767      # of samples of 9 to 15 bits that are stored in 16
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}          # markers in a JPEG that are followed by its size

logging.getLogger("tifffile").setLevel(logging.CRITICAL)    # what it logs about a damaged file is raised as an error here


def picture_of(tiff):
    """Returns the page that holds the picture: the largest that is neither a thumbnail nor a mask, the first of equals. RAW pages take precedence."""
    pages = [page for top in islice(tiff.pages, MOST_PAGES) for page in (top, *islice(top.pages or (), MOST_PAGES))]     # and their SubIFDs
    if not pages:
        raise ValueError("it holds no image")
    whole = [page for page in pages if page.photometric in RAW] or [page for page in pages if not page.subfiletype & REDUCED_OR_MASK] or pages
    return max(whole, key=lambda page: page.imagewidth * page.imagelength)


def tag_of(tiff, page, code):
    """Reads a tag of a page. If the page does not have it, the first page's is returned, which applies to the whole file."""
    value = page.tags.valueof(code)
    return tiff.pages[0].tags.valueof(code) if value is None else value


def white_of(page):
    """Returns the sample that is white in a 16-bit page: 65535, or what the tag MaxSampleValue says if that is the largest value of 9 to 15 bits.

    Other values of the tag are the largest sample of this one image, "for statistical purposes" [TIFF 6.0, Section 8], and not white.
    """
    stated = np.atleast_1d(page.tags.valueof(281, default=0))[:3 if page.photometric == RGB else 1]
    return int(stated[0]) if stated.size and (stated == stated[0]).all() and stated[0] in WHITES else 65535


def stated_white(path):
    """Returns white_of the picture in a TIFF, or None if it has no 16-bit samples for display."""
    with tifffile.TiffFile(path) as tiff:
        page = picture_of(tiff)
        return white_of(page) if page.dtype == np.uint16 and page.photometric not in RAW else None


def _in_16_bits(image, white, colours):
    """Scales 16-bit samples, (H, W, samples), so that white becomes 65535. Raises: Unsupported if colours are above white."""
    largest = image[:, :, :colours].max()
    if largest > white:
        raise Unsupported(f"its tag MaxSampleValue says {white}, but its samples go up to {largest}; remove the tag, or correct it")
    scaled = ((image.astype(np.uint32) * 65535 + white // 2) // white).astype(np.uint16)
    return scaled if image.max() <= white else np.concatenate([scaled[:, :, :colours], image[:, :, colours:]], axis=2)      # alpha uses all 16 bits


def _check(page, size):
    """Raises: ValueError if a page claims more than its file holds; Unsupported. size: of the file, bytes."""
    kind, bits, width, height = page.photometric, page.bitspersample, page.imagewidth, page.imagelength
    if kind not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR):
        raise Unsupported(f"its colours are {getattr(kind, 'name', kind)}, not RGB or grey; save it again as RGB")
    if bits not in (8, 16, 32, 64) or page.dtype is None or np.dtype(page.dtype).name not in ("uint8", "uint16", "float16", "float32", "float64"):
        raise Unsupported(f"its values are {page.dtype or ''} of {bits} bits, whose white level is uncertain; save it again with 8 or 16 bits")
    if kind == WHITE_IS_ZERO and page.dtype.kind == "f":
        raise Unsupported("its white is zero in floating point; save it again with 8 or 16 bits")
    if page.compression not in (*MOST_PER_BYTE, *JPEG, *OTHERS):
        raise Unsupported(f"its compression is {getattr(page.compression, 'name', page.compression)}; save it again with LZW, or without compression")
    check_size(width, height)
    samples = page.samplesperpixel
    if samples < (3 if kind in (RGB, YCBCR) else 1) or samples > 64 or page.imagedepth != 1:
        raise ValueError(f"it has {samples} samples and {page.imagedepth} layers")
    across, down = (page.tilewidth, page.tilelength) if page.is_tiled else (width, min(page.rowsperstrip, height))
    pieces = -(-width // max(across, 1)) * -(-height // max(down, 1)) * (samples if page.planarconfig == 2 else 1)
    offsets, counts = page.dataoffsets[:pieces], page.databytecounts[:pieces]
    there = sum(0 < offset and 0 < count and offset + count <= size for offset, count in zip(offsets, counts))
    if there < pieces:
        raise ValueError(f"it has {there} of its {pieces} strips or tiles")
    needed, held = width * height * samples * bits // 8, sum(counts)
    if kind == YCBCR:
        needed //= samples                  # at least the luma
    if held > size or needed > held * MOST_PER_BYTE.get(page.compression, math.inf):
        raise ValueError(f"it says {width}x{height} pixels but has only {held} bytes of them")
    for offset, count in zip(offsets, counts) if page.compression in JPEG else ():
        page.parent.filehandle.seek(offset)
        size_inside = _jpeg_size(page.parent.filehandle.read(min(count, 2 ** 16)))
        if math.prod(size_inside) > (across + 16) * (down + 16):
            raise ValueError(f"a JPEG of {size_inside[1]}x{size_inside[0]} pixels is stored for a strip or tile of {across}x{down}")


def _jpeg_size(data):
    """Reads the height and width from a JPEG's header. data: its first bytes. Raises: ValueError."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in START_OF_FRAME:
            return struct.unpack(">HH", data[at + 5:at + 9])
        at += 2 + int.from_bytes(data[at + 2:at + 4])
    raise ValueError("a JPEG in it has no size")


def _decoded(page):
    """Decodes the pixels of a page that _check has passed, (H, W, samples). tifffile raises an error if a strip or tile does not fill its place."""
    pixels = page.asarray(squeeze=False)                            # (planes, 1, H, W, samples of a plane)
    planes, _, height, width, samples = pixels.shape
    return pixels[0, 0] if planes == 1 else np.moveaxis(pixels[:, 0], 0, 2).reshape(height, width, planes * samples)


def _ycbcr(page):
    """Decodes a YCbCr page to RGB, (H, W, 3) uint8. Its data are units of across x down luma values and two chroma values [TIFF 6.0, Section 21]."""
    if page.bitspersample != 8 or page.planarconfig == 2 or page.predictor != 1 or page.samplesperpixel != 3 or page.fillorder != 1:
        raise Unsupported("it is YCbCr of an unusual sort; save it again as RGB")
    across, down = page.tags.valueof(530, default=(2, 2))
    decompress, out, size = tifffile.TIFF.DECOMPRESSORS[page.compression], np.empty((page.imagelength, page.imagewidth, 3), np.uint8), across * down
    high, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, page.imagelength), page.imagewidth)
    columns = -(-page.imagewidth // wide)
    for k, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts)):
        place = out[k // columns * high:, k % columns * wide:][:high, :wide]
        rows, units = -(-(high if page.is_tiled else place.shape[0]) // down), -(-wide // across)
        page.parent.filehandle.seek(offset)
        data = np.frombuffer(decompress(page.parent.filehandle.read(count)), np.uint8)[:rows * units * (size + 2)].reshape(rows, units, size + 2)
        luma = data[..., :size].reshape(rows, units, down, across).swapaxes(1, 2).reshape(rows * down, units * across, 1)
        chroma = data[..., size:].repeat(down, axis=0).repeat(across, axis=1)
        place[...] = _rgb(np.concatenate([luma, chroma], axis=2)[:place.shape[0], :place.shape[1]], page)
    return out


def _rgb(codes, page):
    """Converts YCbCr codes (h, w, 3) to RGB, uint8, with the page's coefficients and reference levels."""
    red, green, blue = (top / bottom for top, bottom in np.reshape(page.tags.valueof(529, default=(299, 1000, 587, 1000, 114, 1000)), (3, 2)))
    levels = np.reshape(page.tags.valueof(532, default=(0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)), (3, 2, 2)).astype(np.float32)
    black, white = (levels[..., 0] / levels[..., 1]).T
    y, cb, cr = np.moveaxis((codes - black) * (np.float32([255, 127, 127]) / (white - black)), 2, 0)
    r, b = y + (2 - 2 * red) * cr, y + (2 - 2 * blue) * cb
    return np.stack([r, (y - red * r - blue * b) / green, b], axis=2).round().clip(0, 255).astype(np.uint8)


def read_tiff(path):
    """Reads the picture of a TIFF as it is stored.

    Returns: (H, W, 1 or 3) uint8, uint16 or float32; alpha (H, W) of the same type, or None; orientation as the tag says; a note, or "".
    Raises: ValueError if it is damaged; Unsupported, OSError.
    """
    with tifffile.TiffFile(path) as tiff:
        page = picture_of(tiff)
        if page.photometric in RAW:
            return read_raw(path)
        orientation, profile = tag_of(tiff, page, 0x0112), tag_of(tiff, page, 0x8773)
        _check(page, tiff.filehandle.size)
        if page.photometric == YCBCR and page.compression not in JPEG:
            return _ycbcr(page), None, orientation, ""
        image = _decoded(page)
        white = white_of(page) if image.dtype == np.uint16 else 65535
        colours = 3 if page.photometric in (RGB, YCBCR) else 1
        if white < 65535:
            image = _in_16_bits(image, white, colours)
        alpha = next((image[:, :, colours + i] for i, kind in enumerate(page.extrasamples) if kind in (1, 2) and colours + i < image.shape[2]), None)
        image = image[:, :, :colours]
        if page.photometric == WHITE_IS_ZERO:
            image = np.iinfo(image.dtype).max - image
    if image.dtype.kind == "f":
        image, alpha = image.astype(np.float32), None if alpha is None else alpha.astype(np.float32)
    image, note = coded_for_display(image, of_profile(profile))
    return image, alpha, orientation, ", ".join(filter(None, (f"white is {white}, as the tag MaxSampleValue says" * (white < 65535), note)))
