"""data.py: values by hand, files against OpenCV and Pillow, every layout, every bad file we could think of."""

import io
import math
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import IFDRational
from torch.utils.data import DataLoader

import common
import data
from brackets import files as images

RNG = np.random.default_rng(0)
RGB16 = RNG.integers(0, 65536, (9, 14, 3), dtype=np.uint16)
RGB8 = RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8)
SMOOTH8 = np.stack([*np.meshgrid(np.arange(0, 240, 10), np.arange(0, 160, 10)), np.full((16, 24), 90)], axis=2).astype(np.uint8)


def opencv(path):
    """Reads with an independent library, in RGB."""
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]


def jpeg_bytes(image=SMOOTH8, orientation=None, time=None, f_number=None, iso=None, fmt="JPEG"):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    ifd = exif.get_ifd(0x8769)
    for tag, value in ((0x829A, time), (0x829D, f_number), (0x8827, iso)):
        if value is not None:
            ifd[tag] = value
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, fmt, exif=exif.tobytes(), **({"quality": 95} if fmt == "JPEG" else {}))
    return buffer.getvalue()


def frame(k, dtype=np.uint16, size=(24, 40), seed=0):
    """A frame whose brightness tells which one it is: all values between 1000 * k and 1000 * k + 999."""
    values = np.random.default_rng([seed, k]).integers(0, 1000, (*size, 3)) + 1000 * k
    return values.astype(dtype) if dtype == np.uint16 else (values // 16).astype(dtype)


def kalantari_scene(folder, size=(24, 40), seed=0, ev="-2\n0\n2\n", truth=True):
    folder.mkdir(parents=True, exist_ok=True)
    for k in (1, 2, 3):
        tifffile.imwrite(folder / f"262A000{k}.tif", frame(k, size=size, seed=seed), photometric="rgb", compression="lzw")
    (folder / "exposure.txt").write_text(ev)
    if truth:
        images.write_image(folder / "HDRImg.hdr", np.random.default_rng(seed).random((*size, 3), dtype=np.float32))
    return folder


def which(sample):
    """The number k of each of the three frames of a 16-bit sample, by their brightness."""
    return [int(f.mean() * 65535 // 1000) for f in sample["ldr"]]


# --- radiance ---------------------------------------------------------------------------------------------------------

def test_mu_law_has_the_values_computed_by_hand():
    x = torch.tensor([0.0, 1 / 5000, 0.01, 0.5, 1.0])
    expected = torch.tensor([0.0, math.log(2) / math.log(5001), math.log(51) / math.log(5001), math.log(2501) / math.log(5001), 1.0])
    assert torch.allclose(data.T(x), expected, atol=1e-6)


def test_mu_law_is_float32_even_for_half_precision_and_under_autocast():
    x = torch.tensor([1e-4, 0.3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert data.T(x.bfloat16()).dtype == torch.float32
    assert data.T(x.half()).dtype == torch.float32 and data.T_inverse(x.half()).dtype == torch.float32


def test_mu_law_keeps_tiny_radiance():
    # log(1 + 5e-6) loses 2 % in float32; log1p does not.
    assert math.isclose(float(data.T(torch.tensor(1e-9))), math.log1p(5e-6) / math.log(5001), rel_tol=1e-5)


def test_inverse_undoes_the_mu_law():
    x = torch.logspace(-8, 0, 200)
    assert torch.allclose(data.T_inverse(data.T(x)), x, rtol=1e-5, atol=1e-10)
    assert float(data.T_inverse(torch.tensor(0.5))) == pytest.approx((math.sqrt(5001) - 1) / 5000, rel=1e-5)


def test_network_input_is_the_frame_and_its_gamma_corrected_self():
    ldr = torch.rand(2, 3, 3, 2, 2)
    ev = torch.tensor([[-2.0, 0.0, 2.0], [0.0, 3.0, 6.0]])
    x = data.network_input(ldr, ev)
    assert x.shape == (2, 3, 6, 2, 2) and x.dtype == torch.float32
    assert torch.equal(x[:, :, :3], ldr)
    for b, t in enumerate([(1, 4, 16), (1, 8, 64)]):
        for i in range(3):
            assert torch.allclose(x[b, i, 3:], ldr[b, i] ** 2.2 / t[i], rtol=1e-5)


def bracket_of(hdr, ev=(0.0, 2.0, 4.0)):
    """A bracket without noise of (3, H, W) radiance."""
    ev = torch.tensor([ev])
    return (hdr * 2 ** ev[0, :, None, None, None]).clamp(0, 1)[None] ** (1 / 2.2), ev


def test_merge_of_a_still_scene_without_noise_is_the_radiance():
    hdr = torch.logspace(-5, 0, 300).reshape(3, 10, 10)
    assert torch.allclose(data.weighted_merge(*bracket_of(hdr))[0], hdr, rtol=1e-4)


@pytest.mark.parametrize("frames, weights", [((0.1, 0.5, 0.75), (0.2, 1, 0.5)), ((0.8, 0.9, 0.25), (1, 0.2, 1)), ((0.5, 0.2, 1), (1, 0.4, 0))])
def test_merge_weighs_by_triangles(frames, weights):
    ldr = torch.tensor(frames).reshape(1, 3, 1, 1, 1).expand(1, 3, 3, 1, 1)
    expected = sum(w * value ** 2.2 / t for w, value, t in zip(weights, frames, (1, 4, 16))) / sum(weights)
    assert torch.allclose(data.weighted_merge(ldr, torch.tensor([[0.0, 2.0, 4.0]])), torch.tensor(expected), rtol=1e-5)


@pytest.mark.parametrize("frames, expected", [((1, 1, 1), 1.0), ((0.9, 1, 1), 0.9 ** 2.2), ((0, 0, 0), 0.0),
                                              ((0, 0, 0.4), 0.4 ** 2.2 / 16), ((0, 1, 1), 0.25), ((0, 0, 1), 0.0)])
def test_merge_at_the_ends_of_the_range(frames, expected):
    ldr = torch.tensor(frames, dtype=torch.float32).reshape(1, 3, 1, 1, 1).expand(1, 3, 3, 1, 1)
    merged = data.weighted_merge(ldr, torch.tensor([[0.0, 2.0, 4.0]]))
    assert torch.allclose(merged, torch.tensor(float(expected)), rtol=1e-5)


# --- image files ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, image", [("a.tif", RGB8), ("a.tif", RGB16), ("a.TIFF", RGB16 / np.float32(65535)), ("a.png", RGB8), ("a.PNG", RGB16)])
def test_written_images_come_back_and_another_library_reads_the_same(tmp_path, name, image):
    path = tmp_path / "new folder" / name
    images.write_image(path, image)
    assert images.read_image(path).dtype == image.dtype
    assert np.array_equal(images.read_image(path), image) and np.array_equal(opencv(path), image)
    assert [p.name for p in path.parent.iterdir()] == [name]  # no temporary file is left


@pytest.mark.parametrize("suffix, image", [(".tif", RGB8), (".tif", RGB16), (".png", RGB8), (".png", RGB16), (".tiff", RGB16 / np.float32(7))])
def test_images_of_another_library_are_read_to_the_same_values(tmp_path, suffix, image):
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), image[..., ::-1])
    assert np.array_equal(images.read_image(path), image)


def test_jpeg_comes_back_nearly_and_in_rgb_order(tmp_path):
    images.write_image(tmp_path / "a.jpg", SMOOTH8)
    ours, theirs = images.read_image(tmp_path / "a.jpg"), opencv(tmp_path / "a.jpg")
    assert np.abs(ours.astype(int) - SMOOTH8).max() < 12 and np.abs(ours.astype(int) - theirs).max() <= 1


def test_radiance_file_holds_rounded_values_and_another_library_reads_the_same(tmp_path):
    image = np.exp(RNG.normal(0, 3, (200, 300, 3))).astype(np.float32)
    image[0, 0], image[0, 1] = 0, (1, 0, 0)
    image[0, 2] = 0.9999999, 0.5, 0.25  # rounds up to the next exponent
    images.write_image(tmp_path / "a.hdr", image)
    ours = images.read_image(tmp_path / "a.hdr")
    assert np.array_equal(ours, opencv(tmp_path / "a.hdr"))
    brightest = image.max(axis=2, keepdims=True)
    assert (np.abs(ours - image) <= brightest / 256).all()
    assert abs(((ours - image) / np.maximum(brightest, 1e-9)).mean()) < 2e-4  # cut off instead of rounded: -3e-3
    assert not ours[0, 0].any() and np.array_equal(ours[0, 1], (1, 0, 0))
    images.write_image(tmp_path / "b.hdr", ours)
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
    image = images.read_image(tmp_path / "a.hdr")
    assert image.shape == (2, 3, 3) and image.dtype == np.float32 and (image == (1, 0.5, 0.25)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt, suffix", [("JPEG", ".jpg"), ("PNG", ".png"), ("TIFF", ".tif")])
def test_images_come_upright_as_pillow_turns_them(tmp_path, orientation, fmt, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(jpeg_bytes(SMOOTH8, orientation, fmt=fmt))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert images.read_image(path).shape == expected.shape
    assert np.abs(images.read_image(path).astype(int) - expected).max() <= 1


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
        assert np.array_equal(images.read_image(tmp_path / name), RGB16), name
    assert images.read_image(tmp_path / "double.tif").dtype == np.float32
    tifffile.imwrite(tmp_path / "grey.tif", RGB16[..., 0], photometric="minisblack")
    tifffile.imwrite(tmp_path / "white.tif", 65535 - RGB16[..., 0], photometric="miniswhite")
    for name in ("grey.png", "grey.tif", "white.tif"):
        assert np.array_equal(images.read_image(tmp_path / name), RGB16[..., :1].repeat(3, axis=2)), name
    Image.fromarray(SMOOTH8).convert("L").save(tmp_path / "grey.jpg")
    assert images.read_image(tmp_path / "grey.jpg").shape == SMOOTH8.shape


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
        images.read_image(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / name)) and ";" in message and "\n" not in message


def test_a_false_radiance_size_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    (tmp_path / "huge.hdr").write_bytes(BAD["huge.hdr"])
    monkeypatch.setattr(imagecodecs, "rgbe_decode", lambda *_: pytest.fail("the decoder was asked"))
    with pytest.raises(ValueError, match="30000x30000 pixels but"):
        images.read_image(tmp_path / "huge.hdr")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file;"):
        images.read_image(tmp_path / "nothing.tif")


@pytest.mark.parametrize("name, image", [
    ("a.jpg", RGB16), ("a.png", RGB16.astype(np.float32)), ("a.hdr", RGB16), ("a.gif", RGB8), ("a.tif", RGB8[..., 0]),
    ("a.hdr", np.full((2, 2, 3), np.nan, np.float32)), ("a.hdr", np.full((2, 2, 3), -1, np.float32)), ("a.hdr", np.full((2, 2, 3), np.inf, np.float32))])
def test_what_a_format_cannot_hold_is_not_written(tmp_path, name, image):
    with pytest.raises(ValueError, match=";"):
        images.write_image(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    images.write_image(tmp_path / "a.tif", RGB8)

    def full_disk(handle, *_, **__):
        handle.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tifffile, "imwrite", full_disk)
    with pytest.raises(OSError, match="disk full"):
        images.write_image(tmp_path / "a.tif", RGB16)
    monkeypatch.undo()
    assert np.array_equal(images.read_image(tmp_path / "a.tif"), RGB8) and len(list(tmp_path.iterdir())) == 1


def test_scaling_goes_by_dtype_and_never_by_the_values():
    assert np.allclose(images.to_float(np.array([0, 51, 255], np.uint8)), [0, 0.2, 1])
    assert np.allclose(images.to_float(np.array([0, 13107, 65535], np.uint16)), [0, 0.2, 1])
    assert np.allclose(images.to_float(np.array([0, 200], np.uint16)), [0, 200 / 65535])  # a dark frame stays dark
    assert np.array_equal(images.to_float(np.array([0.5, 300], np.float32)), [0.5, 300])
    assert all(images.to_float(np.zeros(1, kind)).dtype == np.float32 for kind in (np.uint8, np.uint16, np.float32))
    with pytest.raises(ValueError, match="int32"):
        images.to_float(np.zeros(1, np.int32))


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
    assert np.allclose(images.read_exposures(tmp_path / "e.txt", unit), expected)


@pytest.mark.parametrize("content, unit", [(b"", "ev"), (b"\n \n", "ev"), (b"a.jpg 2", "ev"), (b"1/0", "ev"), (b"0\n1\n2", "seconds"),
                                           (b"-1", "seconds"), (b"1s\n2ev", "ev"), (b"nan", "ev"), (b"1", "lux"), (b"\xff\xfe1\0", "ev")])
def test_exposures_that_make_no_sense_are_refused(tmp_path, content, unit):
    (tmp_path / "e.txt").write_bytes(content)
    with pytest.raises(ValueError, match=";"):
        images.read_exposures(tmp_path / "e.txt", unit)
    with pytest.raises(FileNotFoundError):
        images.read_exposures(tmp_path / "none.txt")


@pytest.mark.parametrize("fmt, suffix", [("JPEG", ".jpg"), ("PNG", ".png"), ("TIFF", ".tif")])
def test_exif_rationals_give_the_exposure(tmp_path, fmt, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(jpeg_bytes(SMOOTH8, 6, IFDRational(1, 60), IFDRational(28, 10), 200, fmt=fmt))
    assert images.read_exif(path) == {"time": pytest.approx(1 / 60), "f_number": pytest.approx(2.8), "iso": 200}
    assert images.exif_ev(path) == pytest.approx(math.log2(1 / 60 * 2 / 2.8 ** 2))


def test_exif_without_a_time_asks_for_exposure_txt(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(time=IFDRational(0, 0), iso=100))
    with pytest.raises(ValueError, match="no time and no f_number.*exposure.txt"):
        images.exif_ev(tmp_path / "a.jpg")


# --- scenes -----------------------------------------------------------------------------------------------------------

def test_kalantari_scene_keeps_all_16_bits_and_the_order_of_frames_and_channels(tmp_path):
    folder = kalantari_scene(tmp_path / "Test" / "PAPER" / "BarbequeDay")
    sample = data.load_scene(folder)
    assert set(sample) == {"ldr", "ev", "hdr", "name"} and sample["name"] == "BarbequeDay"
    assert sample["ldr"].shape == (3, 3, 24, 40) and sample["hdr"].shape == (3, 24, 40)
    assert all(sample[key].dtype == torch.float32 and sample[key].is_contiguous() for key in ("ldr", "ev", "hdr"))
    assert sample["ev"].tolist() == [0, 2, 4] and which(sample) == [1, 2, 3]
    for k in (1, 2, 3):
        expected = opencv(folder / f"262A000{k}.tif").transpose(2, 0, 1) / 65535
        assert np.abs(sample["ldr"][k - 1].numpy() - expected).max() < 1e-7
    assert np.array_equal(sample["hdr"].numpy(), opencv(folder / "HDRImg.hdr").transpose(2, 0, 1))


def test_exposures_that_do_not_rise_are_sorted_together_with_their_files(tmp_path):
    sample = data.load_scene(kalantari_scene(tmp_path / "s", ev="2.5\n-2\n0"))
    assert which(sample) == [2, 3, 1] and sample["ev"].tolist() == [0, 2, 4.5]


def test_truth_above_one_is_clipped(tmp_path):
    folder = kalantari_scene(tmp_path / "s", truth=False)
    images.write_image(folder / "HDRImg.hdr", np.full((24, 40, 3), 3, np.float32))
    assert (data.load_scene(folder)["hdr"] == 1).all()


def test_hu_scene_takes_the_input_images_alone(tmp_path):
    for k in (0, 1, 2):
        images.write_image(tmp_path / f"input_{k}_aligned.tif", frame(k + 1))
        images.write_image(tmp_path / f"ref_{k}_aligned.tif", frame(7))
    (tmp_path / "input_exp.txt").write_text("-2\n0\n2")
    images.write_image(tmp_path / "ref_hdr_aligned_linear.hdr", np.full((24, 40, 3), 0.5, np.float32))
    images.write_image(tmp_path / "ref_hdr_aligned.hdr", np.full((24, 40, 3), 0.25, np.float32))
    sample = data.load_scene(tmp_path)
    assert which(sample) == [1, 2, 3] and sample["ev"].tolist() == [0, 2, 4] and (sample["hdr"] == 0.5).all()


def test_sen_scene_takes_the_three_frames_in_the_middle_in_natural_order(tmp_path):
    for k in (1, 2, 3, 9, 10):
        images.write_image(tmp_path / f"img{k}.tif", frame(k))
    (tmp_path / "exposures.txt").write_text("-8\n-6.5\n-4\n-2\n0")
    sample = data.load_scene(tmp_path)
    assert which(sample) == [2, 3, 9] and sample["ev"].tolist() == [0, 2.5, 4.5] and "hdr" not in sample


def test_exposure_txt_holds_seconds_beside_tiff_and_stops_beside_tif(tmp_path):
    for suffix in ("tiff", "tif"):
        for k in (1, 2, 3):
            images.write_image(tmp_path / suffix / f"{k}.{suffix}", frame(k))
        (tmp_path / suffix / "exposure.txt").write_text("1\n4\n16")
    assert data.load_scene(tmp_path / "tiff")["ev"].tolist() == [0, 2, 4]
    assert data.load_scene(tmp_path / "tif")["ev"].tolist() == [0, 3, 15]
    assert data.load_scene(tmp_path / "tif", layout="tursun")["ev"].tolist() == [0, 2, 4]
    assert data.load_scene(tmp_path / "tiff", layout="photos")["ev"].tolist() == [0, 3, 15]


def photographs(folder, *exposures):
    """JPEGs 1.jpg, 2.jpg, ... whose grey is 10, 20, ...; exposures: (time, f-number, ISO) of each, None for what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, (time, f_number, iso) in enumerate(exposures, start=1):
        (folder / f"{k}.jpg").write_bytes(jpeg_bytes(np.full((16, 24, 3), 10 * k, np.uint8), 6, time, f_number, iso))
    return folder


def greys(sample):
    return [round(float(f.mean()) * 255) for f in sample["ldr"]]


def test_photographs_are_sorted_by_their_exif_exposure_and_stand_upright(tmp_path):
    folder = photographs(tmp_path, (IFDRational(1, 15), 4.0, 100), (IFDRational(1, 240), 4.0, 100), (IFDRational(1, 240), 4.0, 400))
    sample = data.load_scene(folder)
    assert greys(sample) == [20, 30, 10] and np.allclose(sample["ev"], [0, 2, 4], atol=1e-5)
    assert sample["ldr"].shape == (3, 3, 24, 16) and sample["ldr"].max() < 0.2  # 8 bits: divided by 255


def test_the_aperture_counts_with_its_square(tmp_path):
    folder = photographs(tmp_path, (0.01, 8.0, 100), (0.01, 4.0, 100), (0.01, 2.0, 100))
    assert np.allclose(data.load_scene(folder)["ev"], [0, 2, 4], atol=1e-5)


def test_of_five_photographs_the_middle_three_are_taken(tmp_path):
    folder = photographs(tmp_path, *[(2.0 ** -k, 4.0, 100) for k in range(5)])
    assert greys(data.load_scene(folder)) == [40, 30, 20]


def test_an_f_number_missing_everywhere_is_ignored_and_one_missing_once_is_an_error(tmp_path):
    assert np.allclose(data.load_scene(photographs(tmp_path / "a", (0.01, None, 100), (0.04, None, 100), (0.16, None, 100)))["ev"], [0, 2, 4], atol=1e-5)
    with pytest.raises(ValueError, match=r"2\.jpg.*no f_number.*exposure.txt"):
        data.load_scene(photographs(tmp_path / "b", (0.01, 4.0, 100), (0.04, None, 100), (0.16, 4.0, 100)))


def test_exposure_txt_goes_before_exif(tmp_path):
    folder = photographs(tmp_path, (0.01, 4.0, 100), (0.04, 4.0, 100), (0.16, 4.0, 100))
    (folder / "Exposure.TXT").write_text("0 3 6")
    assert data.load_scene(folder)["ev"].tolist() == [0, 3, 6]


def test_other_files_in_the_folder_are_no_photographs(tmp_path):
    folder = tmp_path / "Übung mit Lücken 写真"
    kalantari_scene(folder)
    (folder / "262A0001.tif").rename(folder / "262A0001.TIF")
    for name in ("._262A0001.tif", ".x.jpg", "Thumbs.db", "notes.txt", "262A0001.CR2"):
        (folder / name).write_bytes(b"no image")
    for name in ("result.png", "result_panel.png", "Other_Panel.PNG"):  # as infer.py writes them
        images.write_image(folder / name, RGB8)
    images.write_image(folder / "result.hdr", np.ones((2, 2, 3), np.float32))
    sample = data.load_scene(folder)
    assert which(sample) == [1, 2, 3] and sample["hdr"].shape == (3, 24, 40) and sample["name"] == folder.name


def test_frames_of_different_bit_depths_each_go_by_their_own(tmp_path):
    for k, image in enumerate((np.full((4, 5, 3), 51, np.uint8), np.full((4, 5, 3), 26214, np.uint16), np.full((4, 5, 3), 0.6, np.float32)), 1):
        images.write_image(tmp_path / f"{k}.tif", image)
    (tmp_path / "exposure.txt").write_text("0 2 4")
    assert np.allclose(data.load_scene(tmp_path)["ldr"].mean(dim=(1, 2, 3)), [0.2, 0.4, 0.6])


def broken(folder, name):
    """Scenes with one thing wrong."""
    kalantari_scene(folder, ev={"too few exposures": "0 2", "equal": "0 2 2", "seconds as stops": "1/250\n1/60\n1/15"}.get(name, "0 2 4"))
    if name == "two frames":
        (folder / "262A0001.tif").unlink()
    if name == "sizes":
        images.write_image(folder / "262A0002.tif", frame(2, size=(40, 24)))
    if name == "truth size":
        images.write_image(folder / "HDRImg.hdr", np.ones((12, 20, 3), np.float32))
    if name == "no exif":
        (folder / "exposure.txt").unlink()
    if name == "float range":
        images.write_image(folder / "262A0002.tif", np.full((24, 40, 3), 1.5, np.float32))
    if name == "damaged":
        (folder / "262A0003.tif").write_bytes(b"II*\0\x08\0\0\0")
    if name == "text as jpg":
        (folder / "exposure.txt").unlink()
        (folder / "262A0004.jpg").write_text("hello")
    return folder


@pytest.mark.parametrize("name, found", [
    ("two frames", "found 2 photographs"), ("too few exposures", "2 exposures for 3 photographs"), ("equal", "differ by 0.1"),
    ("seconds as stops", "1/60s"), ("sizes", "24x40"), ("truth size", "HDRImg.hdr 20x12"), ("no exif", "no time"), ("float range", "1.5"),
    ("damaged", "262A0003.tif"), ("text as jpg", "262A0004.jpg")])
def test_a_broken_scene_says_what_is_wrong_and_what_to_do(tmp_path, name, found):
    with pytest.raises((ValueError, FileNotFoundError), match=";") as caught:
        data.load_scene(broken(tmp_path / "scene", name))
    assert found in str(caught.value) and "scene" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_folder_and_an_unknown_layout_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        data.load_scene(tmp_path / "nothing")
    with pytest.raises(ValueError, match="unknown layout"):
        data.load_scene(kalantari_scene(tmp_path / "s"), layout="canon")
    (tmp_path / "s" / "exposure.txt").unlink()
    with pytest.raises(FileNotFoundError, match="exposure.txt is missing"):
        data.load_scene(tmp_path / "s", layout="kalantari")


def test_scenes_of_kalantari_are_found_as_unzipped_and_flattened(tmp_path):
    for name in ("Training/10", "Training/9", "Training/001", "Test/EXTRA/002", "Test/PAPER/BarbequeDay"):
        kalantari_scene(tmp_path / name)
    (tmp_path / "Training" / "empty").mkdir()
    (tmp_path / "Training" / "readme.txt").touch()
    assert [p.name for p in data.find_scenes("kalantari", tmp_path, "train")] == ["001", "9", "10"]
    assert [p.name for p in data.find_scenes("kalantari", str(tmp_path), "test")] == ["002", "BarbequeDay"]
    (tmp_path / "Test").rename(tmp_path / "old")
    kalantari_scene(tmp_path / "test" / "007")
    assert [p.name for p in data.find_scenes("kalantari", tmp_path, "test")] == ["007"]


def test_hu_trains_on_the_first_85_and_tests_on_the_last_15(tmp_path):
    for k in range(1, 101):
        (tmp_path / f"{k:03d}").mkdir()
        (tmp_path / f"{k:03d}" / "input_0_aligned.tif").touch()
    train, test = (data.find_scenes("hu", tmp_path, split) for split in ("train", "test"))
    assert [p.name for p in train + test] == [f"{k:03d}" for k in range(1, 101)] and len(train) == 85 and len(test) == 15


@pytest.mark.parametrize("name, split", [("kalantari", "train"), ("kalantari", "test"), ("hu", "test"), ("sen", "test"), ("tursun", "test")])
def test_a_missing_data_set_is_one_line_with_the_files_and_the_address(tmp_path, name, split):
    for root in (tmp_path, tmp_path / "not there"):
        with pytest.raises(FileNotFoundError) as caught:
            data.find_scenes(name, root, split)
        message = str(caught.value)
        assert "\n" not in message and str(root) in message and "https://" in message and ("exp" in message.split("expected", 1)[1])


def test_data_sets_without_truth_are_not_for_training(tmp_path):
    with pytest.raises(ValueError, match="no ground truth"):
        data.find_scenes("sen", tmp_path, "train")
    with pytest.raises(ValueError, match="validation"):
        data.find_scenes("hu", tmp_path, "validation")


# --- datasets ---------------------------------------------------------------------------------------------------------

def two_scenes(root):
    return [kalantari_scene(root / "a", size=(24, 40), seed=1), kalantari_scene(root / "b", size=(33, 20), seed=2, ev="0 3 6")]


def test_74_scenes_of_1000x1500_give_the_22792_patches_of_the_paper(tmp_path):
    folder = kalantari_scene(tmp_path / "scene", truth=False)
    for k in (1, 2, 3):
        images.write_image(folder / f"262A000{k}.tif", np.full((1000, 1500, 3), k, np.uint16))
    images.write_image(folder / "HDRImg.hdr", np.ones((1000, 1500, 3), np.float32))
    patches = data.Patches([folder] * 74, tmp_path / "cache")
    assert len(patches) == 22792 == 74 * ((1000 - 128) // 64 + 1) * ((1500 - 128) // 64 + 1)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert patches[22791]["ldr"].shape == (3, 3, 128, 128)


def test_every_epoch_holds_every_patch_of_the_grid_once(tmp_path):
    folders = two_scenes(tmp_path)
    patches = data.Patches(folders, tmp_path / "cache", patch=8, stride=6, augment=False)
    expected = {}  # by slow loops over the whole images
    for sample in (data.load_scene(f) for f in folders):
        _, height, width = sample["hdr"].shape
        for y in range(0, height - 8 + 1, 6):
            for x in range(0, width - 8 + 1, 6):
                expected[sample["ldr"][:, :, y:y + 8, x:x + 8].numpy().tobytes()] = (sample["hdr"][:, y:y + 8, x:x + 8], sample["ev"])
    assert len(patches) == len(expected) == 3 * 6 + 5 * 3
    orders = []
    for epoch in range(2):
        served = [patches[epoch * len(patches) + j] for j in range(len(patches))]
        orders.append([s["ldr"].numpy().tobytes() for s in served])
        assert set(orders[-1]) == set(expected) and len(set(orders[-1])) == len(served)
        for sample, key in zip(served, orders[-1]):
            assert torch.equal(sample["hdr"], expected[key][0]) and torch.equal(sample["ev"], expected[key][1])
    assert orders[0] != orders[1] and orders[0] != list(expected)


def test_augmentation_gives_all_eight_turns_to_frames_and_truth_alike(tmp_path):
    folder = kalantari_scene(tmp_path / "s", size=(8, 8))
    whole = data.load_scene(folder)
    turns = {}
    for k in range(4):
        for flip in (False, True):
            ldr, hdr = (torch.rot90(whole[key].flip(-1) if flip else whole[key], k, (-2, -1)) for key in ("ldr", "hdr"))
            turns[ldr.numpy().tobytes()] = hdr
    patches = data.Patches([folder], tmp_path / "cache", patch=8)
    seen = [patches[i] for i in range(100)]
    assert len(turns) == 8 and {s["ldr"].numpy().tobytes() for s in seen} == set(turns)
    assert all(torch.equal(s["hdr"], turns[s["ldr"].numpy().tobytes()]) for s in seen)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ("ldr", "ev", "hdr"))


def test_a_patch_depends_on_seed_and_index_alone(tmp_path):
    folders = two_scenes(tmp_path)
    a, b, c = (data.Patches(folders, tmp_path / "cache", patch=8, stride=6, seed=seed) for seed in (0, 0, 1))
    indices = [3, 70, 0, 40, 3]
    first = [a[i] for i in indices]
    assert all(same(x, b[i]) for x, i in reversed([*zip(first, indices)]))
    assert not all(same(x, c[i]) for x, i in zip(first, indices))
    c.augment = a.augment = False
    assert not all(same(a[i], c[i]) for i in indices)  # another order, not only other turns
    a.augment = True
    loader = DataLoader(a, batch_size=None, sampler=indices, num_workers=2, multiprocessing_context="spawn")
    assert all(same(x, y) for x, y in zip(first, loader, strict=True))


def test_an_opened_dataset_is_pickled_without_its_pixels(tmp_path):
    patches = data.Patches([kalantari_scene(tmp_path / "s", size=(200, 200))], tmp_path / "cache", patch=8, stride=64)
    before = patches[0]
    pickled = pickle.dumps(patches)
    assert len(pickled) < 5000 and same(pickle.loads(pickled)[0], before)


def test_the_cache_is_used_until_a_file_of_the_scene_changes(tmp_path, monkeypatch):
    folder, cache = kalantari_scene(tmp_path / "s"), tmp_path / "cache"
    data.Patches([folder], cache, patch=8)
    decode = data._decode
    monkeypatch.setattr(data, "_decode", lambda *_: pytest.fail("decoded again"))
    data.Patches([folder], cache, patch=8)
    monkeypatch.setattr(data, "_decode", decode)
    images.write_image(folder / "262A0002.tif", np.full((24, 40, 3), 65535, np.uint16))
    assert (data.Patches([folder], cache, patch=8)[0]["ldr"][1] == 1).all()
    (folder / "exposure.txt").write_text("0\n3\n6\n")
    assert data.Patches([folder], cache, patch=8)[0]["ev"].tolist() == [0, 3, 6]


def test_aligned_frames_are_cached_in_16_bits_beside_the_frames_as_they_are(tmp_path):
    folder, seen = kalantari_scene(tmp_path / "s"), []

    def align(ldr, ev):
        seen.append((ldr, ev))
        return torch.stack([ldr[1], ldr[1], 0.25 * ldr[2]])
    aligned, plain = (data.Patches([folder], tmp_path / "cache", patch=24, augment=False, align=function)[0] for function in (align, None))
    scene = data.load_scene(folder)
    assert len(seen) == 1 and torch.equal(seen[0][0], scene["ldr"]) and torch.equal(seen[0][1], scene["ev"])
    assert torch.equal(plain["ldr"], scene["ldr"][..., :24, :24]) and torch.equal(plain["hdr"], aligned["hdr"])
    expected = torch.stack([scene["ldr"][1], scene["ldr"][1], 0.25 * scene["ldr"][2]])[..., :24, :24]
    assert (aligned["ldr"] - expected).abs().max() <= 0.5 / 65535 + 1e-7
    assert len(list((tmp_path / "cache").iterdir())) == 2
    (folder / "exposure.txt").write_text("0\n3\n6\n")
    data.Patches([folder], tmp_path / "cache", patch=24, align=align)
    assert len(seen) == 2 and seen[1][1].tolist() == [0, 3, 6]


def test_the_cache_keeps_tiny_radiance_exactly(tmp_path):
    folder = kalantari_scene(tmp_path / "s", truth=False)
    images.write_image(folder / "HDRImg.hdr", np.full((24, 40, 3), 2.0 ** -30, np.float32))  # half precision makes it 0
    hdr = data.Patches([folder], tmp_path / "cache", patch=8)[0]["hdr"]
    assert hdr.dtype == torch.float32 and (hdr.double() == 2.0 ** -30).all()


def test_the_cache_keeps_frames_of_different_bit_depths(tmp_path):
    folder = kalantari_scene(tmp_path / "s", size=(8, 8))
    images.write_image(folder / "262A0001.tif", np.full((8, 8, 3), 51, np.uint8))
    sample = data.Patches([folder], tmp_path / "cache", patch=8, augment=False)[0]
    assert torch.equal(sample["ldr"], data.load_scene(folder)["ldr"]) and np.allclose(sample["ldr"][0], 0.2)


def test_processes_that_fill_one_cache_at_once_agree(tmp_path):
    folders = two_scenes(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        made = [*pool.map(lambda _: data.Patches(folders, tmp_path / "cache", patch=8)[5], range(4))]
    assert all(same(made[0], m) for m in made) and len(list((tmp_path / "cache").iterdir())) == 2


def test_patches_refuse_scenes_they_cannot_use(tmp_path):
    with pytest.raises(ValueError, match="no ground truth"):
        data.Patches([kalantari_scene(tmp_path / "a", truth=False)], tmp_path / "cache")
    with pytest.raises(ValueError, match="too small for patches of 128"):
        data.Patches([kalantari_scene(tmp_path / "b")], tmp_path / "cache")
    with pytest.raises(ValueError, match="empty"):
        data.Patches([], tmp_path / "cache")


def test_scenes_serves_whole_images(tmp_path):
    scenes = data.Scenes(two_scenes(tmp_path))
    assert len(scenes) == 2 and scenes[1]["name"] == "b" and scenes[1]["ldr"].shape == (3, 3, 33, 20)
    batch = next(iter(DataLoader(scenes, batch_size=1)))
    assert batch["hdr"].shape == (1, 3, 24, 40) and batch["name"] == ["a"]


def test_the_command_prints_what_it_found_and_an_error_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["data.py", str(kalantari_scene(tmp_path / "scene"))])
    common.run(data.main)
    text = capsys.readouterr().out
    assert "scene: 40x24" in text and "262A0002.tif" in text and "uint16" in text and "+2.00 EV" in text and "HDRImg.hdr" in text
    monkeypatch.setattr(sys, "argv", ["data.py", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit) as caught:
        common.run(data.main)
    assert caught.value.code == 2 and capsys.readouterr().err.count("\n") == 1
