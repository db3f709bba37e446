"""files.py: images against OpenCV and Pillow, exposures as people write them, every bad file we could think of."""

import io
import math

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import IFDRational

from brackets import files
from photographs import SMOOTH8, jpeg_bytes, opencv

RNG = np.random.default_rng(0)
RGB16 = RNG.integers(0, 65536, (9, 14, 3), dtype=np.uint16)
RGB8 = RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8)


# --- image files ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, image", [("a.tif", RGB8), ("a.tif", RGB16), ("a.TIFF", RGB16 / np.float32(65535)), ("a.png", RGB8), ("a.PNG", RGB16)])
def test_written_images_come_back_and_another_library_reads_the_same(tmp_path, name, image):
    path = tmp_path / "new folder" / name
    files.write_image(path, image)
    assert files.read_image(path).dtype == image.dtype
    assert np.array_equal(files.read_image(path), image) and np.array_equal(opencv(path), image)
    assert [p.name for p in path.parent.iterdir()] == [name]  # no temporary file is left


@pytest.mark.parametrize("suffix, image", [(".tif", RGB8), (".tif", RGB16), (".png", RGB8), (".png", RGB16), (".tiff", RGB16 / np.float32(7))])
def test_images_of_another_library_are_read_to_the_same_values(tmp_path, suffix, image):
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), image[..., ::-1])
    assert np.array_equal(files.read_image(path), image)


def test_jpeg_comes_back_nearly_and_in_rgb_order(tmp_path):
    files.write_image(tmp_path / "a.jpg", SMOOTH8)
    ours, theirs = files.read_image(tmp_path / "a.jpg"), opencv(tmp_path / "a.jpg")
    assert np.abs(ours.astype(int) - SMOOTH8).max() < 12 and np.abs(ours.astype(int) - theirs).max() <= 1


def test_radiance_file_holds_rounded_values_and_another_library_reads_the_same(tmp_path):
    image = np.exp(RNG.normal(0, 3, (200, 300, 3))).astype(np.float32)
    image[0, 0], image[0, 1] = 0, (1, 0, 0)
    image[0, 2] = 0.9999999, 0.5, 0.25  # rounds up to the next exponent
    files.write_image(tmp_path / "a.hdr", image)
    ours = files.read_image(tmp_path / "a.hdr")
    assert np.array_equal(ours, opencv(tmp_path / "a.hdr"))
    brightest = image.max(axis=2, keepdims=True)
    assert (np.abs(ours - image) <= brightest / 256).all()
    assert abs(((ours - image) / np.maximum(brightest, 1e-9)).mean()) < 2e-4  # cut off instead of rounded: -3e-3
    assert not ours[0, 0].any() and np.array_equal(ours[0, 1], (1, 0, 0))
    files.write_image(tmp_path / "b.hdr", ours)
    assert (tmp_path / "a.hdr").read_bytes() == (tmp_path / "b.hdr").read_bytes()


def radiance_file(pixels, size=b"-Y 2 +X 3", lines=b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", end=b"\n"):
    return lines.replace(b"\n", end) + end + size + end + pixels


FLAT = bytes([128, 64, 32, 129] * 6)  # 128 * 2 ** (129 - 136) = 1


@pytest.mark.parametrize("content", [
    radiance_file(FLAT),
    radiance_file(FLAT, end=b"\r\n"),
    radiance_file(FLAT, lines=b"#?RGBE\n# made by hand\nEXPOSURE=2\nFORMAT = 32-bit_rle_rgbe\nGAMMA=1\n"),
    radiance_file(FLAT, lines=b"#?RADIANCE\n" + b"SOFTWARE=" + b"x" * 500 + b"\nFORMAT=32-bit_rle_rgbe\n"),
    radiance_file(FLAT, lines=b"#?RADIANCE\n")], ids=["plain", "crlf", "comments", "long line", "no format"])
def test_radiance_headers_of_many_writers_are_understood(tmp_path, content):
    (tmp_path / "a.hdr").write_bytes(content)
    image = files.read_image(tmp_path / "a.hdr")
    assert image.shape == (2, 3, 3) and image.dtype == np.float32 and (image == (1, 0.5, 0.25)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt, suffix", [("JPEG", ".jpg"), ("PNG", ".png"), ("TIFF", ".tif")])
def test_images_come_upright_as_pillow_turns_them(tmp_path, orientation, fmt, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(jpeg_bytes(SMOOTH8, orientation, fmt=fmt))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert files.read_image(path).shape == expected.shape
    assert np.abs(files.read_image(path).astype(int) - expected).max() <= 1


def test_unusual_but_sound_images_become_rgb(tmp_path):
    alpha = np.concatenate([RGB16, RGB16[..., :1] // 2], axis=2)
    (tmp_path / "alpha.png").write_bytes(imagecodecs.png_encode(alpha))
    (tmp_path / "grey.png").write_bytes(imagecodecs.png_encode(RGB16[..., 0].copy()))
    tifffile.imwrite(tmp_path / "lzw.tif", RGB16, photometric="rgb", compression="lzw")
    tifffile.imwrite(tmp_path / "alpha.tif", alpha, photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "planes.tif", RGB16.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([RGB16, RGB16 // 2]), photometric="rgb")
    tifffile.imwrite(tmp_path / "double.tif", RGB16.astype(np.float64), photometric="rgb")
    for name in ("alpha.png", "lzw.tif", "alpha.tif", "planes.tif", "pages.tif", "double.tif"):
        assert np.array_equal(files.read_image(tmp_path / name), RGB16), name
    assert files.read_image(tmp_path / "double.tif").dtype == np.float32
    tifffile.imwrite(tmp_path / "grey.tif", RGB16[..., 0], photometric="minisblack")
    tifffile.imwrite(tmp_path / "white.tif", 65535 - RGB16[..., 0], photometric="miniswhite")
    for name in ("grey.png", "grey.tif", "white.tif"):
        assert np.array_equal(files.read_image(tmp_path / name), RGB16[..., :1].repeat(3, axis=2)), name
    Image.fromarray(SMOOTH8).convert("L").save(tmp_path / "grey.jpg")
    assert files.read_image(tmp_path / "grey.jpg").shape == SMOOTH8.shape


def encoded(image, writer):
    buffer = io.BytesIO()
    writer(buffer, image)
    return buffer.getvalue()


TIFF = encoded(RGB16, lambda f, a: tifffile.imwrite(f, a, photometric="rgb"))
LZW = encoded(RGB16, lambda f, a: tifffile.imwrite(f, a, photometric="rgb", compression="lzw"))
CMYK = Image.fromarray(SMOOTH8).convert("CMYK")
HDR = bytes(imagecodecs.rgbe_encode(np.ones((20, 30, 3), np.float32)))
PNG = imagecodecs.png_encode(RGB16)
BAD = {
    "empty.tif": b"", "empty.png": b"", "empty.jpg": b"", "empty.hdr": b"",
    "text.tif": b"hello", "text.png": b"hello", "text.jpg": b"hello", "text.hdr": b"hello",
    "header only.tif": TIFF[:8],  # decodes to shape (0,) without an error
    "half.tif": TIFF[:len(TIFF) // 2], "half lzw.tif": LZW[:len(LZW) // 2], "tags.tif": TIFF[:60],
    "half.png": PNG[:len(PNG) // 2], "half.jpg": jpeg_bytes()[:-100], "half.hdr": HDR[:len(HDR) // 2],
    "png inside.jpg": PNG, "jpeg inside.png": jpeg_bytes(),
    "cmyk.jpg": encoded(CMYK, lambda f, a: a.save(f, "JPEG")), "cmyk.tif": encoded(CMYK, lambda f, a: a.save(f, "TIFF")),
    "palette.tif": encoded(Image.fromarray(SMOOTH8).quantize(16), lambda f, a: a.save(f, "TIFF")),
    "int32.tif": encoded(RGB16.astype(np.int32), lambda f, a: tifffile.imwrite(f, a, photometric="rgb")),
    "10 bits.tif": encoded(RGB16 // 64, lambda f, a: tifffile.imwrite(f, a, photometric="rgb", bitspersample=10)),
    "xyz.hdr": radiance_file(FLAT, lines=b"#?RADIANCE\nFORMAT=32-bit_rle_xyze\n"),
    "flipped.hdr": radiance_file(FLAT, size=b"+Y 2 +X 3"), "turned.hdr": radiance_file(FLAT, size=b"+X 3 -Y 2"),
    "no size.hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n", "zero.hdr": radiance_file(FLAT, size=b"-Y 0 +X 3"),
    "huge.hdr": radiance_file(FLAT * 100, size=b"-Y 30000 +X 30000"),  # 10 GB if it were believed
    "old runs.hdr": radiance_file(bytes([10, 20, 30, 128, 1, 1, 1, 9]) * 4, size=b"-Y 4 +X 10"),
    "a.gif": b"GIF89a", "no suffix": PNG,
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(BAD[name])
    with pytest.raises(ValueError) as caught:
        files.read_image(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / name)) and ";" in message and "\n" not in message


def test_a_false_radiance_size_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    (tmp_path / "huge.hdr").write_bytes(BAD["huge.hdr"])
    monkeypatch.setattr(imagecodecs, "rgbe_decode", lambda *_: pytest.fail("the decoder was asked"))
    with pytest.raises(ValueError, match="30000x30000 pixels but"):
        files.read_image(tmp_path / "huge.hdr")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file;"):
        files.read_image(tmp_path / "nothing.tif")


@pytest.mark.parametrize("name, image", [
    ("a.jpg", RGB16), ("a.png", RGB16.astype(np.float32)), ("a.hdr", RGB16), ("a.gif", RGB8), ("a.tif", RGB8[..., 0]),
    ("a.hdr", np.full((2, 2, 3), np.nan, np.float32)), ("a.hdr", np.full((2, 2, 3), -1, np.float32)), ("a.hdr", np.full((2, 2, 3), np.inf, np.float32))])
def test_what_a_format_cannot_hold_is_not_written(tmp_path, name, image):
    with pytest.raises(ValueError, match=";"):
        files.write_image(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    files.write_image(tmp_path / "a.tif", RGB8)

    def full_disk(handle, *_, **__):
        handle.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tifffile, "imwrite", full_disk)
    with pytest.raises(OSError, match="disk full"):
        files.write_image(tmp_path / "a.tif", RGB16)
    monkeypatch.undo()
    assert np.array_equal(files.read_image(tmp_path / "a.tif"), RGB8) and len(list(tmp_path.iterdir())) == 1


def test_scaling_goes_by_dtype_and_never_by_the_values():
    assert np.allclose(files.to_float(np.array([0, 51, 255], np.uint8)), [0, 0.2, 1])
    assert np.allclose(files.to_float(np.array([0, 13107, 65535], np.uint16)), [0, 0.2, 1])
    assert np.allclose(files.to_float(np.array([0, 200], np.uint16)), [0, 200 / 65535])  # a dark frame stays dark
    assert np.array_equal(files.to_float(np.array([0.5, 300], np.float32)), [0.5, 300])
    assert all(files.to_float(np.zeros(1, kind)).dtype == np.float32 for kind in (np.uint8, np.uint16, np.float32))
    with pytest.raises(ValueError, match="int32"):
        files.to_float(np.zeros(1, np.int32))


# --- exposures --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("content, unit, expected", [
    (b"-2\n0\n2\n", "ev", [-2, 0, 2]),
    (b"0.00\n2.67\n5.33", "ev", [0, 2.67, 5.33]),
    (b"\r\n-3.5\r\n\r\n.5\r\n+4.\r\n\r\n", "ev", [-3.5, 0.5, 4]),
    (b"\xef\xbb\xbf-2, 0, 2", "ev", [-2, 0, 2]),
    (b"10 -12\t1e1;3", "log2", [10, -12, 10, 3]),
    ("\N{MINUS SIGN}2\n-1/3\n2".encode(), "ev", [-2, -1 / 3, 2]),
    (b"0.25\n1\n4", "seconds", [-2, 0, 2]),
    (b"1/64 1/16 1/4", "seconds", [-6, -4, -2]),
    (b"1/64s\n1/16 sec\n0.25 s", "ev", [-6, -4, -2]),
    (b"-2EV\n0 EV\n+2ev", "seconds", [-2, 0, 2])])
def test_exposures_are_read_as_people_write_them(tmp_path, content, unit, expected):
    (tmp_path / "e.txt").write_bytes(content)
    assert np.allclose(files.read_exposures(tmp_path / "e.txt", unit), expected)


@pytest.mark.parametrize("content, unit", [(b"", "ev"), (b"\n \n", "ev"), (b"a.jpg 2", "ev"), (b"1/0", "ev"), (b"0\n1\n2", "seconds"),
                                           (b"-1", "seconds"), (b"1s\n2ev", "ev"), (b"nan", "ev"), (b"1", "lux"), (b"\xff\xfe1\0", "ev")])
def test_exposures_that_make_no_sense_are_refused(tmp_path, content, unit):
    (tmp_path / "e.txt").write_bytes(content)
    with pytest.raises(ValueError, match=";"):
        files.read_exposures(tmp_path / "e.txt", unit)
    with pytest.raises(FileNotFoundError):
        files.read_exposures(tmp_path / "none.txt")


@pytest.mark.parametrize("fmt, suffix", [("JPEG", ".jpg"), ("PNG", ".png"), ("TIFF", ".tif")])
def test_exif_rationals_give_the_exposure(tmp_path, fmt, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(jpeg_bytes(SMOOTH8, 6, IFDRational(1, 60), IFDRational(28, 10), 200, fmt=fmt))
    assert files.read_exif(path) == {"time": pytest.approx(1 / 60), "f_number": pytest.approx(2.8), "iso": 200}
    assert files.exif_ev(path) == pytest.approx(math.log2(1 / 60 * 2 / 2.8 ** 2))


def test_exif_without_a_time_asks_for_exposure_txt(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(time=IFDRational(0, 0), iso=100))
    with pytest.raises(ValueError, match="no time and no f_number.*exposure.txt"):
        files.exif_ev(tmp_path / "a.jpg")
