"""exposures.py: numbers as people write them, and the EXIF of every kind of file."""

import math
import os

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from brackets.exposures import TAGS, exif_exposures, read_exif, read_exposures
from brackets.files import read_image
from photographs import SMOOTH8

@pytest.mark.parametrize("content, unit, expected", [
    (b"-2\n0\n2\n", "ev", [-2, 0, 2]),
    (b"0.00\n2.67\n5.33", "ev", [0, 2.67, 5.33]),
    (b"\r\n-3.5\r\n\r\n.5\r\n+4.\r\n\r\n", "ev", [-3.5, 0.5, 4]),
    (b"\xef\xbb\xbf-2, 0, 2", "ev", [-2, 0, 2]),
    (b"10 -12\t1e1;3", "ev", [10, -12, 10, 3]), (b"0 2EV 4", "ev", [0, 2, 4]),
    ("\N{MINUS SIGN}2\n-1/3\n2".encode(), "ev", [-2, -1 / 3, 2]),
    (b"0.25\n1\n4", "seconds", [-2, 0, 2]),
    (b"1/64 1/16 1/4", "seconds", [-6, -4, -2]),
    (b"1/64s\n1/16 sec\n0.25 s", "ev", [-6, -4, -2]),
    (b"-2EV\n0 EV\n+2ev", "seconds", [-2, 0, 2])])
def test_exposures_are_read_as_people_write_them(tmp_path, content, unit, expected):
    (tmp_path / "e.txt").write_bytes(content)
    assert np.allclose(read_exposures(tmp_path / "e.txt", unit), expected)


@pytest.mark.parametrize("content, unit", [(b"", "ev"), (b"\n \n", "ev"), (b"a.jpg 2", "ev"), (b"1/0", "ev"), (b"0\n1\n2", "seconds"),
                                           (b"-1", "seconds"), (b"1s\n2ev", "ev"), (b"nan", "ev"), (b"1", "lux"),
                                           (b"1e308 1 2", "ev"), (b"0 1e999 2", "ev"), (b"1e308", "seconds")])
def test_exposures_that_make_no_sense_are_refused(tmp_path, content, unit):
    (tmp_path / "e.txt").write_bytes(content)
    with pytest.raises(ValueError, match=";"):
        read_exposures(tmp_path / "e.txt", unit)
    with pytest.raises(FileNotFoundError, match=r"none\.txt: no such file; write"):
        read_exposures(tmp_path / "none.txt")


def test_what_stands_in_the_place_of_an_exposure_file_is_named(tmp_path):
    path = tmp_path / "exposure.txt"
    path.mkdir()
    with pytest.raises(FileNotFoundError, match=r"exposure\.txt: a folder, not a file; write a file of that name"):
        read_exposures(path)
    path.rmdir()
    path.symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"exposure\.txt: a broken link, not a file; "):
        read_exposures(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among the files of this system")
def test_a_pipe_is_named_and_never_opened(tmp_path):
    """Opening it would wait for a writer that never comes."""
    for name in ("exposure.txt", "HDRImg.hdr"):
        os.mkfifo(tmp_path / name)
        os.write(os.open(tmp_path / name, os.O_RDWR), bytes(8192))      # so that a reader would find zeros instead of waiting for ever
    with pytest.raises(FileNotFoundError, match=r"exposure\.txt: a pipe or device, not a file; "):
        read_exposures(tmp_path / "exposure.txt")
    with pytest.raises(ValueError, match=r"HDRImg\.hdr: a pipe or device, not a file; "):
        read_image(tmp_path / "HDRImg.hdr")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_exposures_of_windows_editors_are_read_in_their_encodings(tmp_path, encoding):
    (tmp_path / "e.txt").write_bytes("-2\r\n0\r\n+2.5\r\n".encode(encoding))
    assert read_exposures(tmp_path / "e.txt").tolist() == [-2, 0, 2.5]


@pytest.mark.parametrize("text, written, meant", [("-1,5\n0\n1,5", "-1,5", "-1.5"), ("0,33 1 2", "0,33", "0.33"), ("-2,5;0;+2,5", "-2,5", "-2.5"),
                                                  ("0,5s\n1s\n2s", "0,5", "0.5")])
def test_decimal_commas_are_refused_with_what_to_write(tmp_path, text, written, meant):
    (tmp_path / "e.txt").write_text(text)
    with pytest.raises(ValueError, match=f"found '{written}'; write '{meant}' if the comma is a decimal point".replace("+", r"\+")):
        read_exposures(tmp_path / "e.txt")


@pytest.mark.parametrize("text", ["-2,0,2", "-2, 0, 2", "-2,\n0,\n2\n", " -2,0,2\n"])
def test_commas_between_numbers_are_commas(tmp_path, text):
    (tmp_path / "e.txt").write_text(text)
    assert read_exposures(tmp_path / "e.txt").tolist() == [-2, 0, 2]


# --- EXIF -------------------------------------------------------------------------------------------------------------

KINDS = [("JPEG", "jpg"), ("PNG", "png"), ("TIFF", "tif"), ("WEBP", "webp"), ("TIFF", "jpg")]


def photo(path, fmt="JPEG", **tags):
    """Makes a photograph with EXIF tags. tags: names in exposures.TAGS."""
    exif = Image.Exif()
    for name, value in tags.items():
        exif.get_ifd(0x8769)[TAGS[name][0]] = value
    Image.fromarray(SMOOTH8).save(path, fmt, exif=exif.tobytes())
    return path


@pytest.mark.parametrize("fmt, suffix", KINDS)
def test_exif_rationals_give_the_exposure_in_every_kind_of_file(tmp_path, fmt, suffix):
    path = photo(tmp_path / f"a.{suffix}", fmt, time=IFDRational(1, 60), f_number=IFDRational(28, 10), iso=200, bias=IFDRational(-2, 3))
    assert read_exif(path) == {"time": pytest.approx(1 / 60), "f_number": pytest.approx(2.8), "iso": 200, "bias": pytest.approx(-2 / 3)}
    brighter = photo(tmp_path / "b", fmt, time=IFDRational(1, 15), f_number=IFDRational(28, 20), iso=100)
    ev, why = exif_exposures([path, brighter])
    assert ev == pytest.approx([math.log2(1 / 60 * 2 / 2.8 ** 2), math.log2(1 / 15 / 1.4 ** 2)]) and why == ""


@pytest.mark.parametrize("fmt, suffix", KINDS)
def test_apex_values_stand_for_time_and_f_number_that_are_missing(tmp_path, fmt, suffix):
    path = photo(tmp_path / f"a.{suffix}", fmt, shutter=IFDRational(6, 1), aperture=IFDRational(4, 1))
    assert read_exif(path) == {"time": 1 / 64, "f_number": 4, "iso": None, "bias": None}
    path = photo(tmp_path / f"b.{suffix}", fmt, shutter=IFDRational(-2, 1), f_number=IFDRational(8, 1), aperture=IFDRational(4, 1))
    assert read_exif(path) == {"time": 4, "f_number": 8, "iso": None, "bias": None}


@pytest.mark.parametrize("fmt, suffix", KINDS)
def test_of_a_tag_with_two_values_the_first_counts(tmp_path, fmt, suffix):
    path = photo(tmp_path / f"a.{suffix}", fmt, time=(IFDRational(1, 60), IFDRational(1, 30)), iso=(400, 100))
    assert read_exif(path) == {"time": pytest.approx(1 / 60), "f_number": None, "iso": 400, "bias": None}


@pytest.mark.parametrize("fmt, suffix", KINDS)
def test_values_that_are_no_numbers_count_as_missing(tmp_path, fmt, suffix):
    path = photo(tmp_path / f"a.{suffix}", fmt, time=IFDRational(0, 0), f_number=IFDRational(0, 1), shutter=IFDRational(2 ** 30, 1), aperture=IFDRational(1, 0))
    assert read_exif(path) == {"time": None, "f_number": None, "iso": None, "bias": None}


def test_the_exposure_bias_counts_where_times_are_missing_and_only_there(tmp_path, capsys):
    paths = [photo(tmp_path / f"{k}.jpg", bias=IFDRational(bias, 3)) for k, bias in enumerate((-6, 0, 6))]
    assert np.allclose(exif_exposures(paths)[0], [-2, 0, 2]) and exif_exposures(paths)[1] == ""
    assert capsys.readouterr().out == f"{tmp_path}: no exposure times in the EXIF of 0.jpg, 1.jpg, 2.jpg; the exposure bias of each photograph is used\n"
    alike = [photo(tmp_path / f"{k}.jpg", bias=IFDRational(1, 3)) for k in range(3)]
    assert exif_exposures(alike) == (None, "no time in the EXIF of 0.jpg, 1.jpg, 2.jpg")
    timed = [photo(tmp_path / f"{k}.jpg", time=2.0 ** k, bias=IFDRational(bias, 1)) for k, bias in enumerate((5, 0, 1))]
    assert np.allclose(exif_exposures(timed)[0], [0, 1, 2])
    partly = [*timed[:2], photo(tmp_path / "2.jpg")]
    assert exif_exposures(partly) == (None, "no time in the EXIF of 2.jpg")
    assert capsys.readouterr().out == ""


def test_what_is_no_photograph_says_so(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"II*\0 hello")
    with pytest.raises(ValueError, match="a.jpg: damaged"):
        read_exif(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_text("hello")
    with pytest.raises(ValueError, match="b.jpg: this is not an image; give"):
        read_exif(tmp_path / "b.jpg")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_exif(tmp_path / "none.jpg")
