"""files.py: images against OpenCV and Pillow, exposures as people write them, and every bad file we could think of."""

import errno
import io
import os
import re

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

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
    "cmyk.jpg": encoded(CMYK, lambda f, a: a.save(f, "JPEG")), "cmyk.tif": encoded(CMYK, lambda f, a: a.save(f, "TIFF")),
    "palette.tif": encoded(Image.fromarray(SMOOTH8).quantize(16), lambda f, a: a.save(f, "TIFF")),
    "int32.tif": encoded(RGB16.astype(np.int32), lambda f, a: tifffile.imwrite(f, a, photometric="rgb")),
    "10 bits.tif": encoded(RGB16 // 64, lambda f, a: tifffile.imwrite(f, a, photometric="rgb", bitspersample=10)),
    "a.gif": b"GIF89a", "no suffix": b"hello",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(BAD[name])
    with pytest.raises(ValueError) as caught:
        files.read_image(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / name)) and ";" in message and "\n" not in message


def test_content_tells_what_a_file_is_and_its_name_does_not(tmp_path):
    for k, content in enumerate((TIFF, PNG, encoded(RGB8, lambda f, a: Image.fromarray(a).save(f, "WEBP", lossless=True)))):
        for name in (f"{k}.jpg", f"{k}.TIF", f"{k}.png", f"{k}.webp", f"{k}", f"{k}.jpg_original"):
            (tmp_path / name).write_bytes(content)
            assert np.array_equal(files.read_image(tmp_path / name), RGB8 if k == 2 else RGB16), name
    for name in ("a.tif", "a.JPG"):
        (tmp_path / name).write_bytes(jpeg_bytes())
        assert np.array_equal(files.read_image(tmp_path / name), np.asarray(Image.open(io.BytesIO(jpeg_bytes()))))
    (tmp_path / "light.png").write_bytes(HDR)
    assert (files.read_image(tmp_path / "light.png") == 1).all()


@pytest.mark.parametrize("content", [TIFF, PNG, jpeg_bytes()])
def test_what_is_called_hdr_is_taken_for_light_and_must_hold_it(tmp_path, content):
    (tmp_path / "HDRImg.hdr").write_bytes(content)
    with pytest.raises(ValueError, match="HDRImg.hdr: this is a (TIFF|PNG|JPEG) file, not Radiance; save linear light as Radiance"):
        files.read_image(tmp_path / "HDRImg.hdr")


def test_webp_says_what_is_seen_and_how_it_stands(tmp_path):
    alpha = np.full((16, 24, 1), 255, np.uint8)
    alpha[:, :4], alpha[3, 10] = 0, 200
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.concatenate([SMOOTH8, alpha], axis=2)).save(tmp_path / "a.webp", lossless=True, exact=True, exif=exif.tobytes())
    stored = files.read_stored(tmp_path / "a.webp")
    assert stored.orientation == 6 and np.array_equal(stored.pixels, SMOOTH8) and np.array_equal(stored.seen, alpha[..., 0] == 255)
    frame = files.as_frame(stored)
    assert frame.shape == (24, 16, 3) and np.array_equal(np.isnan(frame[..., 0]), np.rot90(alpha[..., 0], -1) < 255)
    assert np.allclose(frame[~np.isnan(frame)], (np.rot90(SMOOTH8, -1) / np.float32(255))[~np.isnan(frame)])


def kinds_of_error(folder):
    """Returns {file: what must be said about it}, one for each kind of error that a reader meets."""
    (folder / "folder.tif").mkdir()
    jpeg = jpeg_bytes()
    size = jpeg.index(b"\xff\xc0") + 5
    for name, content in {"empty.jpg": b"", "text.jpg": b"hello", "phone.heic": b"\0\0\0\x18ftypheic" + bytes(20), "cmyk.jpg": BAD["cmyk.jpg"],
                          "cut.jpg": jpeg[:-200], "large.jpg": jpeg[:size] + b"\xff\xdc\xff\xdc" + jpeg[size + 4:],
                          "long.jpg": jpeg[:size] + b"\0\x08\x80\0" + jpeg[size + 4:],
                          "claims.jpg": jpeg[:size] + b"\x20\0\x20\0" + jpeg[size + 4:]}.items():
        (folder / name).write_bytes(content)
    return {"nothing.jpg": "no such file; check the name", "folder.tif": "this is a folder; name a file", "empty.jpg": r"damaged \(the file is empty\); copy",
            "text.jpg": "this is not an image; give TIFF, PNG, JPEG", "phone.heic": "HEIC files are not read; give",
            "cmyk.jpg": "colours are CMYK, not RGB or grey; save",
            "cut.jpg": r"damaged \(.*\); copy it again", "large.jpg": "65500x65500 pixels, more than are read .*; make it smaller",
            "long.jpg": "32768x8 pixels, more than are read .*, 32766 a side.; make it smaller",
            "claims.jpg": r"damaged \(it says 8192x8192 pixels but has only \d+ bytes\); copy"}


def test_a_webp_that_claims_much_more_than_it_holds_is_refused_before_decoding(tmp_path):
    data = encoded(RGB8, lambda f, a: Image.fromarray(a).save(f, "WEBP"))
    (tmp_path / "a.webp").write_bytes(data[:26] + b"\xff\x3f\xff\x3f" + data[30:])
    with pytest.raises(ValueError, match="16383x16383 pixels but has only"):
        files.read_image(tmp_path / "a.webp")


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_header_says_what_the_whole_file_says(tmp_path, fmt):
    (tmp_path / "a").write_bytes(jpeg_bytes(SMOOTH8, 6, fmt=fmt))
    assert files.stored_size_and_orientation(tmp_path / "a") == ((24, 16), 6)
    (tmp_path / "b").write_text("hello")
    with pytest.raises(ValueError, match="b: this is not an image"):
        files.stored_size_and_orientation(tmp_path / "b")


def test_errors_are_of_few_kinds_and_each_has_its_sentence(tmp_path):
    for name, sentence in kinds_of_error(tmp_path).items():
        with pytest.raises((ValueError, FileNotFoundError), match=f"^{re.escape(str(tmp_path / name))}: (it says )?(its )?{sentence}"):
            files.read_image(tmp_path / name)


@pytest.mark.parametrize("code, sentence", [(errno.EACCES, "may not be opened; allow it to be read"), (errno.EIO, "could not be read from the disk ")])
def test_a_file_that_the_system_does_not_give_is_not_said_to_be_a_bad_image(tmp_path, monkeypatch, code, sentence):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.setattr(files, "kind_to_read", refuse)
    with pytest.raises(ValueError, match=f"a.png: {sentence}"):
        files.read_image(tmp_path / "a.png")


def test_a_wrong_suffix_is_named_with_those_that_fit(tmp_path):
    with pytest.raises(ValueError, match=r"a\.bmp: uint8 cannot be written as \.bmp; end its name in \.tif or \.tiff or \.png or \.jpg or \.jpeg$"):
        files.write_image(tmp_path / "a.bmp", RGB8)
    with pytest.raises(ValueError, match=r"a: uint16 cannot be written as a file without a suffix; end its name in \.tif or \.tiff or \.png$"):
        files.write_image(tmp_path / "a", RGB16)


def test_a_lower_quality_makes_a_smaller_jpeg(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    sizes = []
    for quality in (85, 95):
        files.write_image(tmp_path / "a.jpg", noise, quality=quality)
        sizes.append((tmp_path / "a.jpg").stat().st_size)
    assert sizes[0] < 0.8 * sizes[1]


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


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc"), ValueError("Insufficient memory")])
def test_a_decoder_without_memory_does_not_call_the_file_damaged(tmp_path, monkeypatch, error):
    def too_large(path):
        raise error
    monkeypatch.setitem(files.READERS, "PNG", too_large)
    (tmp_path / "a.png").write_bytes(PNG)
    with pytest.raises(ValueError, match=r"a\.png: too large for the memory of this machine; make it smaller"):
        files.read_image(tmp_path / "a.png")
