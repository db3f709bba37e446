"""Makes gain-map JPEGs: an ordinary JPEG for every viewer and, in the same file, a map of how much brighter the scene is, for HDR screens.

Formats: Ultra HDR 1.1 (developer.android.com/media/platform/hdr-image-format), whose metadata are XMP, and ISO 21496-1, whose metadata are
binary. The file has both, because older readers know the first and Apple's know the second. At each pixel and channel, a reader computes

    hdr = white ((sdr + 1/64) 2^(low + (high - low) map) - 1/64)

with sdr and map in [0, 1], sdr linear. White is the radiance that a screen shows like the white of the ordinary picture. A screen that can be
h stops brighter than its white applies h / headroom of the exponent, and all of it from headroom on.

Layout: the ordinary JPEG with XMP, ISO and MPF segments (CIPA DC-007: where the images are), then the map's JPEG with XMP and ISO segments.
imagecodecs.ultrahdr_encode makes such files too, but from the radiance alone: its ordinary picture comes from a global tone curve of its own.
"""

import io
import struct

import cv2
import numpy as np
from PIL import Image

from beyond.tonemap import LUMINANCE

OFFSET = 1 / 64                 # of both images: below it, ratios are noise
QUALITY = 95                    # JPEG quality of the picture and of the map
HEADROOM = 4.0                  # most stops above white for which the HDR image is meant; today's screens have 1 to 3
_CODES = np.arange(256) / 255
LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4).astype(np.float32)     # of sRGB's 8-bit codes
ISO = b"urn:iso:std:iso:ts:21496:-1\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
DESCRIPTION = ('<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
               'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" %s</rdf:Description></rdf:RDF></x:xmpmeta>')
DIRECTORY = ('xmlns:Container="http://ns.google.com/photos/1.0/container/" xmlns:Item="http://ns.google.com/photos/1.0/container/item/">'
             '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/></rdf:li>'
             '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap" Item:Mime="image/jpeg" Item:Length="%d"/></rdf:li></rdf:Seq>'
             '</Container:Directory>')


def white_level(sdr, hdr):
    """Finds the radiance that the HDR image shows as white: half of its pixels are brighter than in the ordinary picture, half are darker.

    sdr: (H, W, 3) linear in [0, 1]; hdr: (H, W, 3) linear radiance. Returns: float > 0.
    """
    sdr, hdr = (image[::4, ::4] @ LUMINANCE for image in (sdr, hdr))
    return max(float(np.median(hdr / np.maximum(sdr, 1e-3))), 1e-6)


def gain_map(sdr, hdr, white):
    """Computes the map and the range that it spans. sdr, hdr: as white_level. Returns: (H, W, 3) uint8; low and high in stops, multiples of 1/65536."""
    gain = (cv2.log(hdr * np.float32(1 / white) + np.float32(OFFSET)) - cv2.log(sdr + np.float32(OFFSET))) * np.float32(1 / np.log(2))
    low = np.floor(65536 * float(gain.min())) / 65536
    high = max(np.ceil(65536 * float(gain.max())) / 65536, low + 1 / 256)
    return np.rint((gain - np.float32(low)) * np.float32(255 / (high - low))).astype(np.uint8), low, high


def gain_map_jpeg(picture, hdr, exif=b"", profile=b""):
    """Encodes an ordinary picture and the radiance that it shows.

    picture: (H, W, 3) uint8 with the curve of sRGB; hdr: (H, W, 3) linear radiance >= 0, float32, any unit; exif: bytes of the EXIF segment;
    profile: bytes of the ICC profile whose primaries both have, b"" for sRGB.
    Returns: bytes of the file; white, the radiance, in the unit of hdr, that a reader returns as 1.
    """
    usual = _jpeg(picture, exif, profile)
    sdr = LINEAR[np.asarray(Image.open(io.BytesIO(usual)))]             # as readers will see it, so that the map makes up for its losses
    white = white_level(sdr, hdr)
    values, low, high = gain_map(sdr, hdr, white)
    headroom = min(max(np.log2(max(float(hdr.max()), 1e-6) / white), 1 / 16), HEADROOM)
    fields = {"GainMapMin": low, "GainMapMax": high, "Gamma": 1, "OffsetSDR": OFFSET, "OffsetHDR": OFFSET, "HDRCapacityMin": 0, "HDRCapacityMax": headroom}
    words = " ".join(f'hdrgm:{name}="{value:.6f}"' for name, value in fields.items()) + ' hdrgm:BaseRenditionIsHDR="False">'
    fractions = [(0, 1), (round(65536 * headroom), 65536), (round(65536 * low), 65536), (round(65536 * high), 65536), (1, 1), (1, 64), (1, 64)]
    iso = struct.pack(">HHB", 0, 0, 0x40) + b"".join(struct.pack(">iI", *fraction) for fraction in fractions)      # 0x40: primaries of the base
    second = _with_segments(_jpeg(values), [(0xE1, XMP + (DESCRIPTION % words).encode()), (0xE2, ISO + iso)])
    return _joined(usual, second), white


def _jpeg(image, exif=b"", profile=b""):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY, subsampling=0, exif=exif, icc_profile=profile or None)
    return file.getvalue()


def _with_segments(jpeg, segments):
    """Inserts segments, pairs of marker and content, after the JFIF and EXIF segments of a JPEG."""
    place = 2
    while jpeg[place + 1] in (0xE0, 0xE1):
        place += 2 + int.from_bytes(jpeg[place + 2:place + 4])
    return jpeg[:place] + b"".join(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in segments) + jpeg[place:]


def _index(first, second, offset):
    """Makes the index of images, MPF: a TIFF directory of three tags, then 16 bytes per image. first, second: their sizes; offset: of the second from "MM"."""
    tags = struct.pack(">HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(">HHII", 0xB001, 4, 1, 2) + struct.pack(">HHII", 0xB002, 7, 32, 50)
    images = struct.pack(">IIIHH", 0x030000, first, 0, 0, 0) + struct.pack(">IIIHH", 0, second, offset, 0, 0)
    return b"MPF\0MM\0*" + struct.pack(">IH", 8, 3) + tags + bytes(4) + images


def _joined(usual, second):
    """Joins both JPEGs into one file."""
    xmp = XMP + (DESCRIPTION % (DIRECTORY % len(second))).encode()
    iso = ISO + struct.pack(">HH", 0, 0)
    make = lambda index: _with_segments(usual, [(0xE1, xmp), (0xE2, iso), (0xE2, index)])
    first = make(_index(0, 0, 0))                                       # only the numbers in it change
    return make(_index(len(first), len(second), len(first) - first.index(b"MPF\0MM\0*") - 4)) + second
