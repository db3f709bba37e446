"""png.py: the meaning of samples is read from the file, and a file that says it is linear is not taken for gamma 2.2."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from brackets.exposures import read_exif
from brackets.files import read_image, read_stored
from photographs import png_bytes, png_chunk

RNG = np.random.default_rng(0)
RGB16 = RNG.integers(0, 65536, (9, 14, 3), dtype=np.uint16)
RGB8 = RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8)


def png(path, image, *chunks):
    path.write_bytes(png_bytes(image, *chunks))
    return path


def gamma(value):
    return b"gAMA", struct.pack(">I", round(value * 100_000))


LINEAR = b"cICP", bytes([1, 8, 0, 1])


@pytest.mark.parametrize("image", [RGB8, RGB16, RGB16[..., 0]], ids=["8 bits", "16 bits", "grey"])
@pytest.mark.parametrize("meaning, exponent", [(gamma(1), 1), (LINEAR, 1), (gamma(0.7), 0.7), (gamma(0.3), 0.3)],
                         ids=["gAMA 1", "cICP", "gAMA 0.7", "gAMA 0.3"])
def test_samples_that_are_not_coded_for_a_display_are_recoded_to_gamma_two_point_two(tmp_path, image, meaning, exponent):
    read = read_stored(png(tmp_path / "a.png", image, meaning))
    light = (image.astype(np.float64) / np.iinfo(image.dtype).max) ** (1 / exponent)        # sample = light^gAMA
    assert read.pixels.dtype == np.float32 and "light" in read.note
    assert np.abs(read.pixels - (light ** (1 / 2.2) if image.ndim == 3 else (light ** (1 / 2.2))[..., None])).max() < 1e-5


@pytest.mark.parametrize("chunks", [
    [gamma(0.45455)], [gamma(1 / 1.8)], [gamma(1 / 2.4)], [(b"sRGB", b"\0"), gamma(1)], [(b"cICP", bytes([1, 13, 0, 1])), gamma(1)],
    [(b"iCCP", b"x\0\0" + zlib.compress(b"a profile")), gamma(1)], [(b"cICP", bytes([9, 1, 0, 1]))]],
    ids=["1/2.2", "1/1.8", "1/2.4", "sRGB goes before gAMA", "cICP goes before gAMA", "a profile goes before gAMA", "BT.709"])
def test_samples_that_are_coded_for_a_display_stay_as_they_are(tmp_path, chunks):
    read = read_stored(png(tmp_path / "a.png", RGB16, *chunks))
    assert np.array_equal(read.pixels, RGB16) and read.note == ""


@pytest.mark.parametrize("meaning, found", [((b"cICP", bytes([9, 16, 0, 1])), "PQ"), ((b"cICP", bytes([9, 18, 0, 1])), "HLG"),
                                            ((b"cICP", bytes([9, 99, 0, 1])), "number 99"), (gamma(5), "power 5"), (gamma(0), "power 0")])
def test_a_tone_curve_that_is_none_of_a_photograph_is_refused_with_the_reason(tmp_path, meaning, found):
    with pytest.raises(ValueError, match=f"{found}.*; export it as"):
        read_image(png(tmp_path / "a.png", RGB16, meaning))


def test_linear_alpha_stays_alpha(tmp_path):
    alpha = np.full((9, 14), 65535, np.uint16)
    alpha[:, :3] = 0
    read = read_stored(png(tmp_path / "a.png", np.dstack([RGB16, alpha]), gamma(1)))
    assert read.pixels.shape == (9, 14, 3) and np.array_equal(read.seen, alpha > 0)


def test_transparency_of_every_sort_says_what_is_seen(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:, 2:] = 200, 100, 50
    for name, settings in (("key", {"transparency": (0, 0, 0)}), ("palette", {"transparency": 0})):
        image = Image.fromarray(picture) if name == "key" else Image.fromarray((picture[..., 0] > 0).astype(np.uint8))
        if name == "palette":
            image.putpalette([0, 0, 0, 200, 100, 50])
        image.save(tmp_path / f"{name}.png", **settings)
        read = read_stored(tmp_path / f"{name}.png")
        assert np.array_equal(read.seen, picture[..., 0] > 0) and np.array_equal(read.pixels, picture), name


@pytest.mark.parametrize("behind", [False, True])
def test_exif_is_found_before_and_behind_the_pixels(tmp_path, behind):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x829A] = 0.25
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    data = bytes(imagecodecs.png_encode(RGB8))
    place = len(data) - 12 if behind else 33
    (tmp_path / "a.png").write_bytes(data[:place] + png_chunk(b"eXIf", content) + data[place:])
    assert read_stored(tmp_path / "a.png").orientation == 6 and read_exif(tmp_path / "a.png")["time"] == 0.25


def test_a_header_that_claims_more_than_the_pixels_that_are_there_is_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(imagecodecs, "png_decode", lambda *_: pytest.fail("the decoder was asked"))
    data = bytes(imagecodecs.png_encode(RGB8))
    for width, height, found in ((10_000, 10_000, "10000x10000 pixels but has only"), (100_000, 100_000, "smaller"), (0, 5, "0x5")):
        header = struct.pack(">II", width, height) + data[24:29]
        (tmp_path / "a.png").write_bytes(data[:8] + png_chunk(b"IHDR", header) + data[33:])
        with pytest.raises(ValueError, match=found):
            read_image(tmp_path / "a.png")


def test_exif_that_older_writers_put_into_a_text_is_found(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    content = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    buffer, info = io.BytesIO(), PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(content):8d}\n{content.hex()}\n")
    Image.fromarray(RGB8).save(buffer, "PNG", pnginfo=info)
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    assert read_stored(tmp_path / "a.png").orientation == 8
