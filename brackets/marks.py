"""Marks the files that this project makes, so that a result stored beside its photographs is not taken for one of them.

The mark stands where programs write their own name: in the tag Software (0x0131) of EXIF and TIFF, in a text chunk "Software" of PNG, and in the
header of a Radiance file. write_image(..., mark=RESULT) and save_figure write it. Code that writes JPEG or TIFF files by itself sets that tag.
"""

import re
import struct
import zlib

import tifffile
from PIL import Image

SOFTWARE = 0x0131
RESULT = "LF-Diff image"            # from infer.py: never a frame
PICTURE = "LF-Diff result"          # from everything else that draws: never a frame; the command that drew it may replace it
TRUTH = "LF-Diff truth"             # of a bracket that this project made: the command that made it may fill its folder again
ALIGNED = "LF-Diff aligned frame"   # an aligned frame: counts as a photograph unless its originals or results lie beside it (folders.py)


def marked_png(data, mark):
    """Adds a mark to a PNG file. data: bytes of a PNG; mark: one of these. Returns: bytes."""
    chunk = b"tEXtSoftware\0" + mark.encode("latin-1")
    after_header = 33               # signature 8, IHDR 25: the only chunk that has a fixed place
    return data[:after_header] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[after_header:]


def software_exif(mark):
    """Makes the EXIF of a JPEG, with nothing but a mark. Returns: bytes, empty for the mark ""."""
    exif = Image.Exif()
    exif[SOFTWARE] = mark
    return exif.tobytes() if mark else b""


def mark_of(path):
    """Reads the mark of an image file. Returns: one of these, or "" for a file that has none or cannot be read."""
    try:
        with open(path, "rb") as file:
            first = file.read(1000)
        if first.startswith(b"#?"):         # Radiance
            software = re.search(r"^SOFTWARE=(.*)$", first.decode("latin-1"), re.MULTILINE)[1]
        elif first[:2] in (b"II", b"MM"):   # Pillow does not open every TIFF
            with tifffile.TiffFile(path) as tiff:
                software = tiff.pages[0].tags.valueof(SOFTWARE)
        else:
            with Image.open(path) as image:
                software = image.info.get("Software") or Image.Image.getexif(image).get(SOFTWARE)     # PngImageFile.getexif decodes all pixels
    except Exception:                       # read_image says what is wrong with such a file
        return ""
    return next((mark for mark in (RESULT, PICTURE, TRUTH, ALIGNED) if str(software).startswith(mark)), "")
