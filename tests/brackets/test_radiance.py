"""radiance.py: headers of many writers, both kinds of runs, all orders of pixels, and files that claim more than they hold."""

import imagecodecs
import numpy as np
import pytest

from brackets.files import read_image, write_image
from photographs import opencv

RNG = np.random.default_rng(0)


def test_radiance_file_holds_rounded_values_and_another_library_reads_the_same(tmp_path):
    image = np.exp(RNG.normal(0, 3, (200, 300, 3))).astype(np.float32)
    image[0, 0], image[0, 1] = 0, (1, 0, 0)
    image[0, 2] = 0.9999999, 0.5, 0.25  # rounds up to the next exponent
    write_image(tmp_path / "a.hdr", image)
    ours = read_image(tmp_path / "a.hdr")
    assert np.array_equal(ours, opencv(tmp_path / "a.hdr"))
    brightest = image.max(axis=2, keepdims=True)
    assert (np.abs(ours - image) <= brightest / 256).all()
    assert abs(((ours - image) / np.maximum(brightest, 1e-9)).mean()) < 2e-4  # truncated instead of rounded: -3e-3
    assert not ours[0, 0].any() and np.array_equal(ours[0, 1], (1, 0, 0))
    write_image(tmp_path / "b.hdr", ours)
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
    image = read_image(tmp_path / "a.hdr")
    assert image.shape == (2, 3, 3) and image.dtype == np.float32 and (image == (1, 0.5, 0.25)).all()


def in_order(image, first, second):
    """Puts the pixels of an image in the order that a size line such as -Y +X states: Y counts upwards, X to the right. Returns: list of pixels."""
    steps = {"-Y": range(len(image)), "+Y": range(len(image))[::-1], "+X": range(image.shape[1]), "-X": range(image.shape[1])[::-1]}
    return [image[y, x] if first[1] == "Y" else image[x, y] for y in steps[first] for x in steps[second]]


@pytest.mark.parametrize("width", [3, 12])      # the codec's new runs begin at 8
@pytest.mark.parametrize("order", ["-Y +X", "-Y -X", "+Y +X", "+Y -X", "+X -Y", "-X -Y", "+X +Y", "-X +Y"])
def test_the_first_pixel_may_be_in_any_corner_and_lines_may_be_columns(tmp_path, order, width):
    first, second = order.split()
    image = RNG.integers(0, 256, (10, width, 4), dtype=np.uint8)
    image[..., 0] |= 128                                                    # so that no pixel is a run
    image[..., 3] = 136                                                     # so that mantissas are the values
    lengths = {"Y": 10, "X": width}
    pixels = np.array(in_order(image, first, second))
    size = f"{first} {lengths[first[1]]} {second} {lengths[second[1]]}".encode()
    coded = pixels.tobytes()
    if lengths[second[1]] >= 8:
        lines = pixels[:, :3].reshape(lengths[first[1]], lengths[second[1]], 3).astype(np.float32)
        coded = bytes(imagecodecs.rgbe_encode(lines, header=False, rle=True, out=10_000))
    (tmp_path / "a.hdr").write_bytes(radiance_file(coded, size=size))
    assert np.array_equal(read_image(tmp_path / "a.hdr"), image[..., :3])


def test_old_runs_repeat_the_pixel_before_and_following_ones_count_by_256(tmp_path):
    pixels = [(10, 20, 30, 136), (1, 1, 1, 9), (0, 2, 0, 136), (5, 6, 7, 136), (1, 1, 1, 3), (1, 1, 1, 2), (9, 9, 9, 0)]
    expected = [(10, 20, 30)] * 10 + [(0, 2, 0)] + [(5, 6, 7)] * (1 + 3 + 2 * 256) + [(0, 0, 0)]
    content = radiance_file(bytes(sum(pixels, ())) + b"anything after", size=b"-Y 22 +X 24")
    (tmp_path / "a.hdr").write_bytes(content)
    assert np.array_equal(read_image(tmp_path / "a.hdr"), np.array(expected, np.float32).reshape(22, 24, 3))


NEW = b"\2\2\x75\x30" + bytes(100)        # the start of a line of 30000 pixels
BAD = {
    "xyz": (radiance_file(FLAT, lines=b"#?RADIANCE\nFORMAT=32-bit_rle_xyze\n"), "xyze.*ra_xyze"),
    "no size": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n", "no Radiance header"), "zero": (radiance_file(FLAT, size=b"-Y 0 +X 3"), "3x0"),
    "same axis": (radiance_file(FLAT, size=b"-Y 2 +Y 3"), "size line"), "huge": (radiance_file(NEW, size=b"-Y 8000 +X 30000"), "8000 lines of 30000"),
    "huge, old": (radiance_file(FLAT, size=b"-Y 8000 +X 30000"), "6 of 240000000"), "too large": (radiance_file(FLAT, size=b"-Y 30000 +X 30000"), "smaller"),
    "a run first": (radiance_file(b"\1\1\1\6", size=b"-Y 2 +X 3"), "fill"), "a run too long": (radiance_file(FLAT[:4] + b"\1\1\1\7"), "8 of 6"),
    "runs that would count to 2^40": (radiance_file(FLAT[:4] + b"\1\1\1\7" * 9), "of 6"), "half": (radiance_file(FLAT[:12]), "3 of 6"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_understood_is_refused_before_memory_is_taken_with_advice_that_keeps_the_light(tmp_path, monkeypatch, name):
    monkeypatch.setattr(imagecodecs, "rgbe_decode", lambda *_: pytest.fail("the decoder was asked"))
    content, found = BAD[name]
    (tmp_path / "a.hdr").write_bytes(content)
    with pytest.raises(ValueError, match=found) as caught:
        read_image(tmp_path / "a.hdr")
    assert str(caught.value).startswith(f"{tmp_path / 'a.hdr'}: ") and "8-" not in str(caught.value) and ";" in str(caught.value)
