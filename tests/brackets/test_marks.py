"""marks.py: each kind of file that the project writes is recognised, whatever its name; photographs are not."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from brackets.files import read_image, save_figure, write_image
from brackets.marks import ALIGNED, PICTURE, RESULT, mark_of
from photographs import SMOOTH8, jpeg_bytes, opencv


@pytest.mark.parametrize("mark", [RESULT, PICTURE, ALIGNED])
@pytest.mark.parametrize("name, image", [("a.png", SMOOTH8), ("a.png", SMOOTH8.astype(np.uint16) * 257), ("a.jpg", SMOOTH8), ("a.tif", SMOOTH8),
                                         ("a.tif", SMOOTH8.astype(np.uint16) * 257), ("a.tif", SMOOTH8 / np.float32(255)),
                                         ("a.hdr", SMOOTH8 / np.float32(255))])
def test_a_marked_file_is_recognised_and_its_pixels_are_what_they_were(tmp_path, name, image, mark):
    write_image(tmp_path / name, image, mark)
    write_image(tmp_path / f"un{name}", image)
    assert mark_of(tmp_path / name) == mark and mark_of(tmp_path / f"un{name}") == ""
    for read in (read_image, opencv):
        assert np.array_equal(read(tmp_path / name), read(tmp_path / f"un{name}"))
    (tmp_path / name).rename(tmp_path / "photo")
    assert mark_of(tmp_path / "photo") == mark


def test_a_figure_of_ours_is_marked_and_one_of_somebody_else_is_not(tmp_path):
    figure = Figure(figsize=(1, 1))
    save_figure(tmp_path / "ours.png", figure, dpi=50)
    figure.savefig(tmp_path / "theirs.png", dpi=50)
    assert mark_of(tmp_path / "ours.png") == PICTURE and mark_of(tmp_path / "theirs.png") == ""


def test_a_marked_png_is_whole_for_a_reader_that_checks_every_chunk(tmp_path):
    write_image(tmp_path / "a.png", SMOOTH8, RESULT)
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
    with Image.open(tmp_path / "a.png") as image:
        assert image.text == {"Software": RESULT}


def test_photographs_and_what_cannot_be_read_have_no_mark(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(jpeg_bytes(time=0.01))
    (tmp_path / "text.jpg").write_text("hello")
    assert [mark_of(tmp_path / name) for name in ("photo.jpg", "text.jpg", "none.jpg")] == ["", "", ""]
