"""exif.py: what is kept from the reference's EXIF, what is not, and files that have none."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from beyond.exif import EXIF_IFD, exif_for_result, profile_of
from brackets.marks import RESULT

PHOTO = np.tile(np.arange(40, dtype=np.uint8)[:, None, None], (1, 60, 3))


def camera_exif():
    """Makes EXIF like a camera's, including what must not be passed on."""
    exif = Image.Exif()
    exif.update({0x010F: "Maker", 0x0110: "Camera 7", 0x0112: 6, 0x0131: "Firmware 1.0", 0x0132: "2026:11:26 12:00:00", 0x013B: "A. Photographer"})
    exif.get_ifd(EXIF_IFD).update({0x829A: 1 / 60, 0x829D: 5.6, 0x8827: 400, 0x9003: "2026:11:26 12:00:00", 0x920A: 24.0, 0xA434: "Lens 24mm",
                                   0xA431: "serial 123", 0x927C: b"notes", 0x9286: b"comment", 0xA002: 6000, 0xA003: 4000, 0xA001: 65535})
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 0.0)})
    return exif


def read(data):
    exif = Image.Exif()
    exif.load(data)
    return dict(exif), exif.get_ifd(EXIF_IFD)


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.tif"])
def test_date_camera_lens_and_exposure_are_kept_and_nothing_that_no_longer_holds_or_is_private(tmp_path, name):
    if name.endswith(".tif"):
        (tmp_path / name).write_bytes(camera_exif().tobytes().removeprefix(b"Exif\0\0"))      # EXIF is a TIFF; Pillow cannot open this one as an image
    else:
        Image.fromarray(PHOTO).save(tmp_path / name, exif=camera_exif())
    main, details = read(exif_for_result(tmp_path / name, 300, 200))
    assert {tag: value for tag, value in main.items() if tag != EXIF_IFD} == {
        0x010F: "Maker", 0x0110: "Camera 7", 0x0131: RESULT, 0x0132: "2026:11:26 12:00:00", 0x013B: "A. Photographer"}
    assert np.isclose(details.pop(0x829A), 1 / 60, rtol=1e-6) and np.isclose(details.pop(0x829D), 5.6)
    assert details == {0x8827: 400, 0x9003: "2026:11:26 12:00:00", 0x920A: 24.0, 0xA434: "Lens 24mm", 0xA001: 1, 0xA002: 300, 0xA003: 200}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("content", [None, b"", b"II", b"II*\0\xff\xff\xff\xff", b"text", camera_exif().tobytes()[:60]])
def test_a_file_without_readable_exif_gives_the_mark_and_the_colour_space_alone(tmp_path, content):
    path = tmp_path / "photo.jpg"
    if content is not None:
        path.write_bytes(content)
    main, details = read(exif_for_result(path, 30, 20))
    assert {tag: value for tag, value in main.items() if tag != EXIF_IFD} == {0x0131: RESULT} and details == {0xA001: 1, 0xA002: 30, 0xA003: 20}


def test_a_value_that_does_not_fit_its_tag_costs_the_photograph_s_tags_and_not_the_picture(tmp_path, monkeypatch):
    def odd_exif(path=None):
        exif = camera_exif()
        exif.get_ifd(EXIF_IFD)[0x8827] = 2 ** 70
        return exif
    monkeypatch.setattr("beyond.exif.exif_of", odd_exif)
    with pytest.raises(struct.error):
        odd_exif().tobytes()
    assert 0x010F not in read(exif_for_result(tmp_path / "photo.jpg", 30, 20))[0]


def display_p3():
    """Returns a profile that libultrahdr makes."""
    with Image.open(io.BytesIO(imagecodecs.ultrahdr_encode(np.ones((16, 16, 4), np.float16)))) as image:
        return image.info["icc_profile"]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_wide_profile_of_the_reference_is_found_and_srgb_is_not_worth_copying(tmp_path, name):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, wanted in ((display_p3(), display_p3()), (srgb, b""), (b"damaged", b""), (None, b"")):
        if name == "a.tif":
            tifffile.imwrite(tmp_path / name, PHOTO.astype(np.uint16) * 257, photometric="rgb", iccprofile=profile)
        else:
            Image.fromarray(PHOTO).save(tmp_path / name, icc_profile=profile)
        assert profile_of(tmp_path / name) == wanted
    assert read(exif_for_result(tmp_path / name, 3, 2, display_p3()))[1][0xA001] == 0xFFFF
