"""tiff.py: the picture and not its thumbnail, YCbCr with every subsampling, and files that claim more than they hold."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from brackets.files import read_image, read_stored

RNG = np.random.default_rng(0)
RGB16 = RNG.integers(0, 65536, (32, 48, 3), dtype=np.uint16)


def tiff(path, *images, **settings):
    """Writes pages into one TIFF. images: arrays, or (array, settings of its page)."""
    with tifffile.TiffWriter(path) as writer:
        for image in images:
            image, own = image if isinstance(image, tuple) else (image, {})
            writer.write(image, **{"photometric": "rgb", "metadata": None, **settings, **own})
    return path


THUMBNAIL = RGB16[::4, ::4] // 2


@pytest.mark.parametrize("pages", [
    [(THUMBNAIL, {"subfiletype": 1}), RGB16], [THUMBNAIL, RGB16], [(THUMBNAIL, {"subfiletype": 1, "subifds": 1}), RGB16], [(THUMBNAIL, {"subifds": 1}), RGB16],
    [RGB16, (THUMBNAIL, {"subfiletype": 1})], [RGB16, RGB16 // 2], [(np.ones((64, 96), bool), {"subfiletype": 4, "photometric": "minisblack"}), RGB16],
    [(np.tile(RGB16, (2, 2, 1)), {"subfiletype": 1}), RGB16]],
    ids=["second page", "not marked", "sub ifd", "sub ifd, not marked", "thumbnail after", "two of one size", "mask", "a larger one that is marked"])
def test_the_picture_is_read_and_not_its_thumbnail(tmp_path, pages):
    assert np.array_equal(read_image(tiff(tmp_path / "a.tif", *pages)), RGB16)


def test_orientation_stands_in_the_picture_or_else_in_the_first_page(tmp_path):
    turned = {"extratags": [(274, "H", 1, 6, True)]}
    assert read_stored(tiff(tmp_path / "a.tif", (THUMBNAIL, turned), RGB16)).orientation == 6
    assert read_stored(tiff(tmp_path / "b.tif", (THUMBNAIL, turned), (RGB16, {"extratags": [(274, "H", 1, 3, True)]}))).orientation == 3


@pytest.mark.parametrize("settings", [
    {}, {"byteorder": ">"}, {"compression": "lzw"}, {"compression": "zlib", "predictor": True}, {"compression": "packbits"}, {"rowsperstrip": 5},
    {"tile": (16, 32)},
    {"tile": (16, 32), "compression": "zlib"}, {"compression": "lzw", "rowsperstrip": 7, "byteorder": ">"}, {"bigtiff": True}, {"compression": "zstd"}])
def test_strips_and_tiles_of_every_compression_fill_the_picture(tmp_path, settings):
    with tifffile.TiffWriter(tmp_path / "a.tif", **{key: settings.pop(key) for key in ("byteorder", "bigtiff") if key in settings}) as writer:
        writer.write(RGB16, photometric="rgb", **settings)
    assert np.array_equal(read_image(tmp_path / "a.tif"), RGB16)


def test_separate_planes_fill_the_picture_too(tmp_path):
    path = tiff(tmp_path / "a.tif", np.moveaxis(RGB16, 2, 0), planarconfig="separate", compression="zlib", rowsperstrip=5)
    assert np.array_equal(read_image(path), RGB16)


@pytest.mark.parametrize("kind, expected", [("unassalpha", True), ("assocalpha", True), ("unspecified", False)])
def test_alpha_says_what_is_seen_and_another_extra_channel_does_not(tmp_path, kind, expected):
    alpha = np.full((32, 48, 1), 65535, np.uint16)
    alpha[:, :5], alpha[0, 40] = 0, 40000
    stored = read_stored(tiff(tmp_path / "a.tif", np.concatenate([RGB16, alpha], axis=2), extrasamples=[kind]))
    assert np.array_equal(stored.pixels, RGB16)
    assert np.array_equal(stored.seen, alpha[..., 0] == 65535) if expected else stored.seen is None


def ycbcr_tiff(luma, across, down, compress=bytes):
    """Makes a YCbCr TIFF of one chroma, (90, 200): units of across x down Y, one Cb, one Cr, in strips of two rows of units. luma: (H, W) uint8."""
    height, width = luma.shape
    padded = np.pad(luma, ((0, -height % down), (0, -width % across)), mode="edge")
    strips = []
    for top in range(0, len(padded), 2 * down):
        strip = b""
        for y in range(top, min(top + 2 * down, len(padded)), down):
            for x in range(0, padded.shape[1], across):
                strip += padded[y:y + down, x:x + across].tobytes() + bytes([90, 200])
        strips.append(compress(strip))
    n = len(strips)
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, None), (259, 3, 1, 1 if compress is bytes else 8), (262, 3, 1, 6), (273, 4, n, None),
            (277, 3, 1, 3), (278, 3, 1, 2 * down), (279, 4, n, None), (530, 3, 2, across | down << 16)]
    end = 8 + 2 + 12 * len(tags) + 4
    places = {258: end, 273: end + 6, 279: end + 6 + 4 * n}
    entries = b"".join(struct.pack("<HHII", tag, kind, count, places.get(tag, value)) for tag, kind, count, value in tags)
    first, sizes = end + 6 + 8 * n, [len(strip) for strip in strips]
    offsets = [first + sum(sizes[:k]) for k in range(n)]
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + struct.pack(f"<3H{2 * n}I", 8, 8, 8, *offsets, *sizes) + b"".join(strips))


@pytest.mark.parametrize("compress", [bytes, zlib.compress])
@pytest.mark.parametrize("size", [(16, 24), (17, 27)])
@pytest.mark.parametrize("across, down", [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2), (4, 4)])
def test_ycbcr_without_jpeg_becomes_rgb_as_pillow_converts_it(tmp_path, across, down, size, compress):
    luma = RNG.integers(60, 200, size, dtype=np.uint8)
    (tmp_path / "a.tif").write_bytes(ycbcr_tiff(luma, across, down, compress))
    chroma = [np.full(size, code, np.uint8) for code in (90, 200)]
    expected = np.asarray(Image.merge("YCbCr", [Image.fromarray(plane) for plane in (luma, *chroma)]).convert("RGB"))
    image = read_image(tmp_path / "a.tif")
    assert image.shape == (*size, 3) and image.dtype == np.uint8 and np.abs(image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
def test_ycbcr_as_pillow_writes_it_becomes_rgb(tmp_path, compression):
    picture = Image.new("RGB", (40, 24), (200, 100, 50))
    picture.paste((20, 40, 200), (0, 0, 20, 24))
    (picture if compression == "jpeg" else picture.convert("YCbCr")).save(tmp_path / "a.tif", compression=compression)
    assert np.abs(read_image(tmp_path / "a.tif")[:, [0, 39]].astype(int) - [(20, 40, 200), (200, 100, 50)]).max() <= 3


def changed(path, tag, value, kind=None, at=0):
    """Overwrites a tag of the first page with a number: its at-th value, and its type if kind is given."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        found = file.pages[0].tags[tag]
        width = {3: "H", 4: "I"}[kind or int(found.dtype)]
        if kind:
            struct.pack_into("<HI", data, found.offset + 2, kind, 1)
        place = found.offset + 8 if kind or found.count == 1 else found.valueoffset + at * struct.calcsize(width)
        struct.pack_into(f"<{width}", data, place, value)
    path.write_bytes(data)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tag, value", [(273, 0), (279, 0), (273, 10 ** 9), (279, 10 ** 9)], ids=["no offset", "no bytes", "offset behind", "bytes behind"])
def test_a_missing_strip_is_damage_and_not_black_rows(tmp_path, tag, value, compression):
    path = tiff(tmp_path / "a.tif", RGB16, rowsperstrip=8, compression=compression)
    changed(path, tag, value if tag == 273 and compression is None else min(value, 65535), at=1)
    with pytest.raises(ValueError, match="3 of its 4 strips.*copy it again"):
        read_image(path)


@pytest.mark.parametrize("settings", [{"rowsperstrip": 8}, {"tile": (16, 16)}], ids=["strips", "tiles"])
@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "zstd", "lzma"])
def test_a_strip_with_too_few_rows_is_damage(tmp_path, compression, settings):
    """The second strip or tile of flat pixels is replaced by one with half of its rows."""
    flat = np.full((32, 48, 3), 7, np.uint8)
    path = tiff(tmp_path / "a.tif", flat, compression=compression, **settings)
    half = {"rowsperstrip": 4} if "rowsperstrip" in settings else {"rowsperstrip": 8}
    short = tiff(tmp_path / "b.tif", flat[:8, :48 if "rowsperstrip" in settings else 16], compression=compression, **half)
    with tifffile.TiffFile(path) as whole, tifffile.TiffFile(short) as other:
        (place, room), (start, count) = [(page.dataoffsets[k], page.databytecounts[k]) for page, k in ((whole.pages[0], 1), (other.pages[0], 0))]
        tag = 279 if 279 in whole.pages[0].tags else 325
    assert count <= room
    data = bytearray(path.read_bytes())
    data[place:place + count] = short.read_bytes()[start:start + count]
    path.write_bytes(data)
    changed(path, tag, count, at=1)
    with pytest.raises(ValueError, match="; copy it again"):
        read_image(path)


@pytest.mark.parametrize("rows, found", [(33_554_442, "smaller"), (30_000, "1 of its 3000 strips"), (1000, "1 of its 100 strips")])
def test_rows_that_are_claimed_but_not_there_are_refused_at_once(tmp_path, rows, found):
    path = tiff(tmp_path / "a.tif", np.zeros((10, 12, 3), np.uint8), compression="zlib")
    changed(path, 257, rows, kind=4)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=found):
        read_image(path)
    assert time.perf_counter() - start < 2


def test_one_strip_that_claims_many_rows_is_refused_before_it_is_decoded(tmp_path):
    path = tiff(tmp_path / "a.tif", np.zeros((10, 12, 3), np.uint8), compression="zlib")
    for tag in (257, 278):
        changed(path, tag, 30_000, kind=4)
    with pytest.raises(ValueError, match="12x30000 pixels but has only"):
        read_image(path)


def test_a_jpeg_inside_that_claims_to_be_larger_than_its_strip_is_refused_before_it_is_decoded(tmp_path):
    path = tiff(tmp_path / "a.tif", (RGB16 >> 8).astype(np.uint8), compression="jpeg")
    data = path.read_bytes()
    place = data.index(b"\xff\xc0") + 5
    path.write_bytes(data[:place] + b"\x7f\xff\x7f\xff" + data[place + 4:])
    start = time.perf_counter()
    with pytest.raises(ValueError, match="a JPEG of 32767x32767 pixels is stored for a strip or tile of 48x32"):
        read_image(path)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("settings", [{}, {"rowsperstrip": 16}, {"tile": (16, 32)}])
def test_jpeg_inside_of_a_tiff_is_read_nearly(tmp_path, settings):
    smooth = np.clip(np.add.outer(np.arange(33), np.arange(50))[..., None] * [2, 1, 3], 0, 255).astype(np.uint8)
    image = read_image(tiff(tmp_path / "a.tif", smooth, compression="jpeg", **settings))
    assert image.shape == smooth.shape and np.abs(image.astype(int) - smooth).mean() < 4


def test_a_compression_that_is_not_read_is_named(tmp_path):
    with pytest.raises(ValueError, match="its compression is JPEG2000; save it again with LZW"):
        read_image(tiff(tmp_path / "a.tif", (RGB16 >> 8).astype(np.uint8), compression="jpeg2000"))


def test_colours_that_are_not_rgb_are_named(tmp_path):
    with pytest.raises(ValueError, match="SEPARATED.*save it again as RGB"):
        read_image(tiff(tmp_path / "a.tif", RNG.integers(0, 99, (32, 48, 4), dtype=np.uint8), photometric="separated"))


def test_a_chain_of_pages_that_bites_its_tail_ends(tmp_path):
    path = tiff(tmp_path / "a.tif", RGB16, RGB16 // 2)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        first, second = (page.offset for page in file.pages)
        tags = struct.unpack("<H", data[second:second + 2])[0]
    struct.pack_into("<I", data, second + 2 + 12 * tags, first)
    path.write_bytes(data)
    assert np.array_equal(read_image(path), RGB16)


@pytest.mark.parametrize(("tag", "white"), [((4095, 4095, 4095), 4095), (1023, 1023), ((16383,) * 3, 16383), ((4095, 4095, 1023), 65535), (4000, 65535),
                                            (255, 65535), (65535, 65535), ((), 65535)])
def test_the_tag_max_sample_value_says_what_is_white_where_it_is_the_largest_of_9_to_15_bits(tmp_path, tag, white):
    """Other values are the largest sample of the image. In 12 bits, 1000 of 4095 is 16003.66 of 65535, and 2048 of 4095 is 32775.5."""
    image = np.zeros((4, 5, 3), np.uint16)
    image[0, 0], image[1, 2] = (255, 200, 0), (white, white, white)
    image[2, 3] = (0, min(white, 1000), min(white, 2048))
    values = tag if isinstance(tag, tuple) else (tag,)
    stored = read_stored(tiff(tmp_path / "a.tif", image, extratags=[(281, "H", len(values), values, True)] if values else []))
    assert stored.pixels.dtype == np.uint16 and stored.note == ("" if white == 65535 else f"white is {white}, as the tag MaxSampleValue says")
    assert stored.pixels[1, 2].tolist() == [65535] * 3 and not stored.pixels[0, 0, 2]
    expected = {65535: [0, 1000, 2048], 4095: [0, 16004, 32776], 1023: [0, 64062, 65535], 16383: [0, 4000, 8192]}[white]
    assert stored.pixels[2, 3].tolist() == expected


def test_a_tag_max_sample_value_without_a_value_says_nothing(tmp_path):
    path = tiff(tmp_path / "a.tif", np.full((4, 5, 3), 7, np.uint16), extratags=[(281, "H", 3, (4095,) * 3, True)])
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags[281].offset + 4
    data = bytearray(path.read_bytes())
    data[place:place + 4] = bytes(4)                    # the number of values
    path.write_bytes(data)
    assert (read_image(path) == 7).all()


def test_a_tag_max_sample_value_below_the_samples_is_refused(tmp_path):
    image = np.full((4, 5, 3), 4095, np.uint16)
    image[3, 3, 1] = 4096
    with pytest.raises(ValueError, match="a.tif: its tag MaxSampleValue says 4095, but its samples go up to 4096; remove the tag, or correct it"):
        read_image(tiff(tmp_path / "a.tif", image, extratags=[(281, "H", 3, (4095,) * 3, True)]))


@pytest.mark.parametrize("opaque", [4095, 65535])
def test_alpha_has_the_bits_of_the_colours_or_all_16(tmp_path, opaque):
    image = np.full((4, 5, 4), 1000, np.uint16)
    image[..., 3], image[0, 0, 3] = opaque, 0
    stored = read_stored(tiff(tmp_path / "a.tif", image, extrasamples=["unassalpha"], extratags=[(281, "H", 4, (4095,) * 3 + (opaque,), True)]))
    assert (stored.pixels == 16004).all() and stored.seen.sum() == 19 and not stored.seen[0, 0]


def test_white_may_be_zero_in_12_bits_too_and_floats_have_no_such_tag(tmp_path):
    image = np.array([[0, 4095], [1000, 2048]], np.uint16)
    twelve = {"extratags": [(281, "H", 1, 4095, True)]}
    read = read_image(tiff(tmp_path / "a.tif", image, photometric="miniswhite", **twelve))
    assert read[..., 0].tolist() == [[65535, 0], [65535 - 16004, 65535 - 32776]]
    values = np.full((2, 2, 3), 0.5, np.float32)
    assert np.array_equal(read_image(tiff(tmp_path / "b.tif", values, **twelve)), values)
