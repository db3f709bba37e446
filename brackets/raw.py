"""Reads the RAW files of cameras through LibRaw, if the package rawpy is installed (pip install -r requirements-raw.txt).

They become linear light in 16 bits: demosaiced, with the camera's white balance, in sRGB's primaries, without any brightening and with the same
white level in all frames. Coded with gamma 2.2, they are what the network expects, so no tone curve has to be found.
"""

import numpy as np

from brackets.kinds import Unsupported, check_size
from data import GAMMA

NOTE = "RAW, linear light with the camera's white balance, coded with gamma 2.2"
ORIENTATIONS = {0: 1, 3: 3, 5: 8, 6: 6}     # LibRaw's flip -> EXIF


def _opened(path):
    """Opens the file with rawpy, for use in a `with` statement. Raises: Unsupported if rawpy is missing, or LibRaw does not know the camera."""
    try:
        import rawpy
    except ImportError:
        raise Unsupported("RAW files need the package rawpy; run `pip install -r requirements-raw.txt`, or export JPEG or TIFF files") from None
    try:
        return rawpy.imread(str(path))
    except rawpy.LibRawFileUnsupportedError:
        raise Unsupported("LibRaw does not know this RAW file; convert it to DNG, or export a JPEG or TIFF file") from None


def read_raw(path):
    """Reads a RAW file. Returns: (H, W, 3) float32 coded with gamma 2.2 in [0, 1]; None; orientation as in EXIF; NOTE.

    Raises: Unsupported; an error from LibRaw if the file is damaged.
    """
    with _opened(path) as raw:
        sizes = raw.sizes
        check_size(sizes.width, sizes.height)
        # adjust_maximum_thr: otherwise LibRaw would set the white level of each frame by its brightest pixel
        light = raw.postprocess(use_camera_wb=True, output_bps=16, gamma=(1, 1), no_auto_bright=True, adjust_maximum_thr=0, user_flip=0)
    return (light.astype(np.float32) / np.float32(65535)) ** np.float32(1 / GAMMA), None, ORIENTATIONS.get(sizes.flip, 1), NOTE


def raw_size_and_orientation(path):
    """Reads the width and height of a RAW file as stored, and its EXIF orientation."""
    with _opened(path) as raw:
        return (raw.sizes.width, raw.sizes.height), ORIENTATIONS.get(raw.sizes.flip, 1)


def raw_exif(path):
    """Reads the exposure time, f-number and ISO of a RAW file, 0 for what is missing."""
    with _opened(path) as raw:
        return raw.other.shutter_speed, raw.other.aperture, raw.other.iso_speed
