"""Makes the EXIF and colour profile of a result: what the reference photograph says about when, with what and how it was taken, and about its colours.

It leaves out the orientation and the size, which no longer apply, the thumbnail and the maker's notes. For privacy it leaves out GPS, serial numbers
and comments, too; artist and copyright stay. `exiftool -TagsFromFile PHOTO -gps:all NAME.jpg` adds the place.
"""

import io

from PIL import Image, ImageCms

from brackets.kinds import kind_of
from brackets.marks import RESULT, SOFTWARE
from brackets.png import png_exif

EXIF_IFD, COLOUR_SPACE, WIDTH, HEIGHT, PROFILE = 0x8769, 0xA001, 0xA002, 0xA003, 0x8773
SRGB, OTHER = 1, 0xFFFF                                 # colour spaces
PROFILES = ("Display P3", "Adobe RGB (1998)")           # wider than sRGB, with nearly its curve
KEPT = (0x010F, 0x0110, 0x0132, 0x013B, 0x8298)         # make, model, date, artist, copyright
KEPT_IN_EXIF = (
    0x829A, 0x829D, 0x8822, 0x8827, 0x8830, 0x8831, 0x8832,                     # time, f-number, program, ISO and its kind
    0x9000, 0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9290, 0x9291, 0x9292,     # version, dates, time zones, fractions of seconds
    0x9201, 0x9202, 0x9203, 0x9204, 0x9205, 0x9206, 0x9207, 0x9208, 0x9209, 0x920A,     # APEX values, bias, distance, metering, light, flash, focal length
    0xA402, 0xA403, 0xA404, 0xA405, 0xA406, 0xA432, 0xA433, 0xA434)             # modes, zoom, focal length on 35 mm film, lens


def exif_of(path):
    """Reads the EXIF of a photograph. path: of any kind of image. Returns: Image.Exif, empty where there is none or it cannot be read."""
    exif = Image.Exif()
    try:
        with open(path, "rb") as file:
            if file.read(2) in (b"II", b"MM"):          # TIFF and most kinds of RAW; Pillow does not open every TIFF
                file.seek(0)
                exif.load_from_fp(file)
                exif.get_ifd(EXIF_IFD)                  # read while the file is open
                return exif
        if kind_of(path) == "PNG":
            return png_exif(path)
        with Image.open(path) as image:
            return image.getexif()
    except Exception:                                   # a picture without its date is better than none
        return exif


def profile_of(path):
    """Reads the colour profile of a photograph, if it is one of PROFILES, as phones and cameras write them. path: of any kind of image.

    The network leaves primaries as they are, so the result has the photograph's. Returns: bytes; b"" for sRGB, other profiles and none.
    """
    try:
        profile = exif_of(path).get(PROFILE)            # of a TIFF
        if profile is None:
            with Image.open(path) as image:
                profile = image.info.get("icc_profile")
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        return profile if name.startswith(PROFILES) else b""
    except Exception:                                   # as in exif_of
        return b""


def exif_for_result(path, width, height, profile=b""):
    """Makes the EXIF of a result. path: of the reference photograph; profile: from profile_of. Returns: bytes of the segment, with the mark of marks.py."""
    for taken in (exif_of(path), Image.Exif()):         # the empty one, if the photograph has values that do not fit their tags
        exif, details = Image.Exif(), taken.get_ifd(EXIF_IFD)
        for tag in KEPT:
            if tag in taken:
                exif[tag] = taken[tag]
        exif[SOFTWARE] = RESULT
        exif.get_ifd(EXIF_IFD).update({tag: details[tag] for tag in KEPT_IN_EXIF if tag in details})
        exif.get_ifd(EXIF_IFD).update({COLOUR_SPACE: OTHER if profile else SRGB, WIDTH: width, HEIGHT: height})
        try:
            return exif.tobytes()
        except Exception:                               # many kinds of error, from packing each value
            continue
    raise AssertionError("EXIF without the photograph's always fits")
