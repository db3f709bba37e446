"""gainmap.py: libultrahdr, the reader by the makers of the format, returns the radiance from either kind of metadata; others see an ordinary JPEG."""

import io
import struct

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from beyond.exif import exif_for_result
from beyond.gainmap import ISO, LINEAR, OFFSET, XMP, gain_map, gain_map_jpeg, white_level
from beyond.tonemap import picture
from brackets.marks import RESULT


def scene(size=(97, 150), stops=9, seed=0):
    """Makes smooth radiance over some stops with colour and a little noise. Returns: (H, W, 3) float32."""
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:size[0], :size[1]] / max(size)
    logs = stops * (x - 1) + np.stack([np.sin(9 * y), np.cos(7 * x), np.sin(5 * (x + y))], axis=2).transpose(2, 0, 1) * 0.5 + rng.normal(0, 0.03, (3, *size))
    return (2 ** logs).transpose(1, 2, 0).astype(np.float32)


def by_libultrahdr(data):
    return imagecodecs.ultrahdr_decode(data)[..., :3].astype(np.float64)        # (H, W, 3) linear, 1 is white


def relative_error(decoded, hdr, white):
    return np.abs(decoded - hdr / white) / (hdr / white + OFFSET)


def segments(data):
    """Lists markers and contents of a JPEG up to its pixels."""
    place, found = 2, []
    while data[place + 1] != 0xDA:
        size = int.from_bytes(data[place + 2:place + 4])
        found.append((data[place + 1], data[place + 4:place + 2 + size]))
        place += 2 + size
    return found


def both_images(data):
    """Cuts a file at the places that its index of images (MPF) names."""
    start = data.index(b"MPF\0") + 4
    (size_1, offset_1), (size_2, offset_2) = (struct.unpack(">II", data[start + 54 + 16 * i:start + 62 + 16 * i]) for i in (0, 1))
    assert offset_1 == 0 and start + offset_2 == size_1 and size_1 + size_2 == len(data)
    assert f'Item:Length="{size_2}"'.encode() in data[:size_1]
    return data[:size_1], data[start + offset_2:]


@pytest.mark.parametrize("size", [(97, 150), (64, 64), (1, 1), (5, 301)])
def test_libultrahdr_gives_back_the_radiance(size):
    hdr = scene(size)
    data, white = gain_map_jpeg(picture(hdr), hdr)
    decoded = by_libultrahdr(data)
    assert decoded.shape == hdr.shape
    error = relative_error(decoded, hdr, white)
    assert np.median(error) < 0.03 and np.quantile(error, 0.95) < 0.1       # 8 bits over some 6 stops are 0.8 %; the rest is JPEG's


def test_a_colour_profile_stands_in_the_file_and_changes_no_value():
    hdr = scene()
    with Image.open(io.BytesIO(imagecodecs.ultrahdr_encode(np.ones((16, 16, 4), np.float16)))) as image:
        profile = image.info["icc_profile"]
    plain, wide = (gain_map_jpeg(picture(hdr), hdr, profile=given)[0] for given in (b"", profile))
    with Image.open(io.BytesIO(wide)) as image:
        assert image.info["icc_profile"] == profile
    assert np.array_equal(by_libultrahdr(plain), by_libultrahdr(wide))


def test_a_reader_that_knows_only_xmp_gives_back_the_same():
    hdr = scene()
    data, _ = gain_map_jpeg(picture(hdr), hdr)
    first, second = both_images(data)
    for image in (first, second):
        assert ISO in image
    hidden = data.replace(ISO, ISO.replace(b"21496", b"00000"))
    assert np.allclose(by_libultrahdr(hidden), by_libultrahdr(data), rtol=2e-3)


def test_the_map_follows_the_formula_of_the_standard():
    hdr = scene()
    data, white = gain_map_jpeg(picture(hdr), hdr)
    first, second = both_images(data)
    sdr, values = (np.asarray(Image.open(io.BytesIO(image))) for image in (first, second))
    xmp = next(content for marker, content in segments(second) if content.startswith(XMP)).decode()
    low, high, headroom = (float(xmp.split(f'hdrgm:{name}="')[1].split('"')[0]) for name in ("GainMapMin", "GainMapMax", "HDRCapacityMax"))
    sdr = np.where(sdr / 255 <= 0.04045, sdr / 255 / 12.92, ((sdr / 255 + 0.055) / 1.055) ** 2.4)                   # IEC 61966-2-1
    by_hand = (sdr + 1 / 64) * 2 ** (low + (high - low) * values / 255) - 1 / 64
    assert np.quantile(np.abs(by_hand - by_libultrahdr(data)) / (by_hand + 1 / 64), 0.99) < 0.02      # libultrahdr keeps its factors in tables
    assert np.isclose(headroom, min(np.log2(hdr.max() / white), 4), atol=1e-5)


def test_white_is_where_half_of_the_pixels_are_brighter_than_in_the_usual_picture():
    hdr = scene((400, 600))
    sdr = LINEAR[picture(hdr)]
    brighter = (hdr @ np.float32([0.2126, 0.7152, 0.0722])) / white_level(sdr, hdr) > sdr @ np.float32([0.2126, 0.7152, 0.0722])
    assert 0.48 < brighter.mean() < 0.52


def test_the_gain_of_a_pixel_by_hand():
    sdr, hdr = np.array([[[0.25] * 3, [1.0] * 3]], np.float32), np.array([[[0.5] * 3, [8.0] * 3]], np.float32)
    values, low, high = gain_map(sdr, hdr, white=2.0)
    wanted = [np.log2((0.25 + 1 / 64) / (0.25 + 1 / 64)), np.log2((4 + 1 / 64) / (1 + 1 / 64))]
    assert np.allclose([low, high], wanted, atol=1e-4) and values[0, 0, 0] == 0 and values[0, 1, 2] == 255


def test_usual_readers_open_the_usual_picture():
    hdr = scene()
    shown = picture(hdr)
    data, _ = gain_map_jpeg(shown, hdr, exif_for_result("none", 150, 97))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (150, 97)) and image.getexif()[0x0131] == RESULT
        by_pillow = np.asarray(image)
    by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    for pixels in (by_pillow, by_opencv):
        assert np.abs(pixels.astype(int) - shown).mean() < 2
    assert [marker for marker, _ in segments(data)[:2]] == [0xE0, 0xE1]             # JFIF, then EXIF, where readers look for it


@pytest.mark.parametrize("level", [0.0, 1e-6, 1.0])
def test_an_image_without_contrast_is_written_too(level):
    hdr = np.full((32, 40, 3), level, np.float32)
    data, white = gain_map_jpeg(picture(hdr), hdr)
    assert relative_error(by_libultrahdr(data), hdr, white).max() < 0.02
