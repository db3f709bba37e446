"""transfer.py: what profiles say about samples, and how linear photographs of every kind are recoded."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from brackets.files import read_stored
from brackets.transfer import coded_for_display, of_profile
from photographs import SMOOTH8, png_bytes

RGB16 = np.random.default_rng(0).integers(0, 65536, (9, 14, 3), dtype=np.uint16)


def profile(curve, tag=b"rTRC"):
    """Makes an ICC profile that holds only a tone curve."""
    return bytes(128) + struct.pack(">I4sII", 1, tag, 144, len(curve)) + curve


def table(power, n=1024):
    return b"curv\0\0\0\0" + struct.pack(">I", n) + np.rint(np.linspace(0, 1, n) ** power * 65535).astype(">u2").tobytes()


LINEAR = profile(b"curv\0\0\0\0\0\0\0\0")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("content, exponent", [
    (LINEAR, 1), (profile(b"curv\0\0\0\0\0\0\0\1\2\x33"), 1 / 2.2), (profile(b"curv\0\0\0\0\0\0\0\1\1\0", b"kTRC"), 1),
    (profile(b"para" + bytes(8) + struct.pack(">i", 65536)), 1), (profile(b"para" + bytes(8) + struct.pack(">i", round(1.8 * 65536))), 1 / 1.8),
    (profile(table(1)), 1), (profile(table(2.4)), 1 / 2.4), (SRGB, 0.45)])
def test_the_exponent_of_a_profile_is_read(content, exponent):
    assert of_profile(content) == pytest.approx(exponent, rel=0.01)


@pytest.mark.parametrize("content", [None, b"", b"hello", bytes(200), LINEAR[:140], profile(b"curv"), profile(table(1)[:50]),
                                     profile(b"curv\0\0\0\0\0\0\0\1\0\0"),
                                     profile(b"para" + bytes(8)), profile(b"mft2" + bytes(30)), profile(table(0)), profile(table(1), b"wtpt")])
def test_a_profile_that_says_nothing_changes_nothing(content):
    assert of_profile(content) is None


def written(path, image, icc):
    """Writes a photograph with a profile, in the format that its name says."""
    if path.suffix == ".tif":
        tifffile.imwrite(path, image, photometric="rgb", iccprofile=icc)
    elif path.suffix == ".png16":
        path.write_bytes(png_bytes(image, (b"iCCP", b"x\0\0" + zlib.compress(icc))))
    else:
        Image.fromarray(image).save(path, icc_profile=icc, lossless=True)
    return read_stored(path)


@pytest.mark.parametrize("name, image", [("a.tif", RGB16), ("a.tif", SMOOTH8), ("a.tif", RGB16 / np.float32(65535)), ("a.png16", RGB16), ("a.png", SMOOTH8),
                                         ("a.webp", SMOOTH8), ("a.jpg", SMOOTH8)])
def test_linear_photographs_are_recoded_whatever_their_format(tmp_path, name, image):
    linear, display = written(tmp_path / name, image, LINEAR), written(tmp_path / name, image, SRGB)
    assert linear.note == "linear light, coded with gamma 2.2" and linear.pixels.dtype == np.float32
    assert display.note == "" and display.pixels.dtype == image.dtype
    scale = 1 if image.dtype == np.float32 else np.iinfo(image.dtype).max
    assert np.abs(linear.pixels - (display.pixels / scale) ** (1 / 2.2)).max() < 1e-5


def test_float_values_outside_of_a_photograph_s_range_are_left_for_the_scene_to_refuse():
    image = np.full((2, 2, 3), 1.5, np.float32)
    assert coded_for_display(image, 1.0)[0] is image and coded_for_display(image / 2, 1.0)[1] == "linear light, coded with gamma 2.2"
