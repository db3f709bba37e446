"""raw.py: a RAW file becomes linear light with the camera's white balance, the same for every frame. With rawpy, the tests open real DNG files."""

import builtins

import numpy as np
import pytest
import tifffile

from brackets.files import read_image, read_stored, stored_size_and_orientation
from brackets.light import estimate
from brackets.scenes import load_scene

WHITE = 16383                           # code at which the sensor saturates
LIGHT = np.kron(np.random.default_rng(0).uniform(0.02, 0.4, (8, 12)), np.ones((16, 16)))


def dng(path, light, exposure=None, neutral=(1.0, 1.0, 1.0), orientation=1, colours=(0, 1, 1, 2)):
    """Makes a DNG of a grey scene: what a sensor with RGGB filters records. light: (H, W) in [0, 1], white is 1; exposure: time, f-number, ISO;
    neutral: how bright the camera sees white in R, G, B."""
    codes = np.minimum(light, 1)
    for k, colour in enumerate(colours):
        codes[k // 2::2, k % 2::2] = np.minimum(light[k // 2::2, k % 2::2] * neutral[colour], 1)
    fractions = [number for value in neutral for number in (round(value * 10 ** 6), 10 ** 6)]
    srgb_to_camera = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])     # from XYZ: a camera that sees sRGB
    matrix = [number for value in srgb_to_camera.ravel() for number in (round(value * 10 ** 4), 10 ** 4)]
    tags = [(274, "H", 1, orientation, True), (271, "s", 0, "Test", True), (272, "s", 0, "Camera", True), (50706, "B", 4, (1, 4, 0, 0), True),
            (50708, "s", 0, "Test Camera", True), (33421, "H", 2, (2, 2), True), (33422, "B", 4, colours, True), (50714, "H", 1, 0, True),
            (50717, "I", 1, WHITE, True), (50721, "2i", 9, matrix, True), (50728, "2I", 3, fractions, True), (50778, "H", 1, 21, True)]
    if exposure:
        time, f_number, iso = exposure
        tags += [(33434, "2I", 1, (round(time * 10 ** 6), 10 ** 6), True), (33437, "2I", 1, (round(f_number * 10), 10), True), (34855, "H", 1, iso, True)]
    tifffile.imwrite(path, np.rint(codes * WHITE).astype(np.uint16), photometric="cfa", subfiletype=0, metadata=None, extratags=tags)
    return path


@pytest.fixture
def rawpy():
    return pytest.importorskip("rawpy", reason="pip install -r requirements-raw.txt")


def middles(image):
    """Returns the pixels in the middle of each block of LIGHT, where demosaicing sees one colour."""
    return image[8::16, 8::16]


@pytest.mark.parametrize("neutral", [(1.0, 1.0, 1.0), (0.5, 1.0, 0.7)])
def test_a_raw_file_is_light_coded_with_gamma_two_point_two_at_the_cameras_white_balance(rawpy, tmp_path, neutral):
    stored = read_stored(dng(tmp_path / "a.dng", LIGHT.copy(), neutral=neutral))
    assert stored.pixels.dtype == np.float32 and stored.pixels.shape == (*LIGHT.shape, 3) and "RAW, linear light" in stored.note
    assert np.abs(middles(stored.pixels) ** 2.2 - middles(LIGHT)[..., None]).max() < 0.004


def test_the_level_of_white_does_not_follow_the_brightest_pixel(rawpy, tmp_path):
    dark, bright = (middles(read_image(dng(tmp_path / f"{k}.dng", LIGHT * gain))) ** 2.2 for k, gain in enumerate((1, 2)))
    assert np.abs(bright / dark - 2).max() < 0.02


def test_a_raw_file_stands_upright_and_its_content_tells_what_it_is(rawpy, tmp_path):
    upright = read_image(dng(tmp_path / "a.dng", LIGHT.copy()))
    turned = read_stored(dng(tmp_path / "b.tif", LIGHT.copy(), orientation=6))
    assert turned.orientation == 6 and turned.pixels.shape == upright.shape
    assert np.abs(np.rot90(upright, -1) - read_image(tmp_path / "b.tif")).max() < 1e-6


def test_a_bracket_of_raw_files_needs_no_curve_and_its_exif_is_read(rawpy, tmp_path, capsys):
    rng = np.random.default_rng(1)
    light = np.kron(np.exp(rng.uniform(-5, 0, (20, 24))), np.ones((8, 8)))
    for k, time in enumerate((0.01, 0.04, 0.16)):
        dng(tmp_path / f"{k}.dng", light * 4.0 ** k / 8, (time, 4.0, 100))
    sample = load_scene(tmp_path)
    assert np.allclose(sample["ev"], [0, 2, 4], atol=1e-3) and estimate(sample["ldr"], sample["ev"]) is None
    assert capsys.readouterr().out == f"{tmp_path}: 0.dng, 1.dng, 2.dng: RAW, linear light with the camera's white balance, coded with gamma 2.2\n"


def test_a_damaged_raw_file_is_one_line(rawpy, tmp_path):
    data = dng(tmp_path / "a.dng", LIGHT.copy()).read_bytes()
    (tmp_path / "a.dng").write_bytes(data[:len(data) // 3])
    (tmp_path / "b.cr2").write_bytes(b"II*\0\x10\0\0\0CR\x02\0" + bytes(400))
    for name in ("a.dng", "b.cr2"):
        with pytest.raises(ValueError, match=rf"{name}: .*; (copy it again|convert it to DNG)") as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_without_rawpy_one_line_says_what_to_install(tmp_path, monkeypatch):
    found = builtins.__import__

    def without(name, *rest):
        if name == "rawpy":
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"a.dng: RAW files need the package rawpy; run `pip install -r requirements-raw.txt`, or export JPEG or TIFF"):
        read_image(dng(tmp_path / "a.dng", LIGHT.copy()))


def test_the_header_of_a_raw_file_says_its_size_and_orientation(rawpy, tmp_path):
    assert stored_size_and_orientation(dng(tmp_path / "a.dng", LIGHT.copy(), orientation=6)) == ((192, 128), 6)
