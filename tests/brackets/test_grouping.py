"""grouping.py: which photographs in a folder make a bracket, with times and exposures written by hand."""

import errno
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brackets.folders import is_pseudo
from brackets.grouping import Shot, camera_and_moment, cut_run, find_places, group
from photographs import SMOOTH8

CAMERA = ("Canon", "R5", 6000, 4000)


@pytest.mark.parametrize(("ev", "lengths"), [
    ([0, -2, 2], [3]),
    ([0, -2, 2] * 3, [3, 3, 3]),
    ([0, -2, 2, 0.3, -1.7, 2.3, 0.7, -1.3, 2.7], [3, 3, 3]),
    ([-4, -3, -2, -1, 0, 1, 2, 3, 4], [9]),
    ([0, 1, 2, 3], [4]),
    ([0, -2, 2, 0, -2, 0, -2, 2], [3, 2, 3]),
    ([0, -2, 2, 0], [3, 1]),
    ([0, 0, 0], [1, 1, 1]),
    ([0, -1, 1, -2, 2, 0, -1, 1, -2, 2], [5, 5]),
])
def test_a_run_is_cut_where_its_pattern_repeats_or_an_exposure_comes_again(ev, lengths):
    assert cut_run(ev) == lengths


def shots(ev, taken, cameras=None):
    return [Shot(Path(f"{i}.jpg"), stops, camera, camera[2:], seconds, 0.01 * 2.0 ** stops)
            for i, (stops, seconds, camera) in enumerate(zip(ev, taken, cameras or [CAMERA] * len(ev)))]


def names(groups):
    return [[int(shot.path.stem) for shot in found] for found in groups]


def test_brackets_are_cut_by_time_camera_and_size():
    assert names(group(shots([0, -2, 2, 1, -1, 3], [0, 1, 2, 100, 101, 102]))) == [[0, 1, 2], [3, 4, 5]]        # a pause, although no exposure repeats
    assert names(group(shots([0, -2, 2, 1, -1, 3], [2, 0, 1, 100, 101, 102]))) == [[1, 2, 0], [3, 4, 5]]        # names out of order
    other = ("Canon", "R5", 3000, 2000)
    assert names(group(shots([0, 0, -2, -2, 2, 2], [0, 0, 1, 1, 2, 2], [CAMERA, other] * 3))) == [[1, 3, 5], [0, 2, 4]]
    assert names(group(shots([0, -2, 2, 0, -2, 2], [None] * 6))) == [[0, 1, 2], [3, 4, 5]]                      # no times: the order of the names


def test_a_bracket_that_was_taken_slowly_stays_whole_and_a_long_exposure_is_no_pause():
    assert names(group(shots([0, 2, 4], [0, 60, 120]))) == [[0, 1, 2]]
    assert names(group(shots([8, 12, 9, 10], [0, 5, 50, 58]))) == [[0, 1, 2, 3]]           # they last 3, 41, 5 and 10 s


def jpeg(path, ev, taken, model="R5", orientation=1, part=None, size=(16, 24)):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Canon", model, orientation
    ifd = exif.get_ifd(0x8769)
    ifd[0x829A], ifd[0x829D], ifd[0x8827] = 2.0 ** ev / 60, 8.0, 100
    if taken:
        ifd[0x9003] = f"2026:06:01 12:{taken // 60:02d}:{taken % 60:02d}"
    if part:
        ifd[0x9291] = part
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(SMOOTH8[:size[0], :size[1]])).save(data, "JPEG", exif=exif.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.getvalue())
    return path


def test_camera_size_and_moment_are_read_from_a_file(tmp_path):
    camera, stored, taken, lasted = camera_and_moment(jpeg(tmp_path / "a.jpg", 2, 70, orientation=6, part="25"))
    assert camera == ("Canon", "R5", 16, 24) and stored == (24, 16) and abs(lasted - 4 / 60) < 1e-4
    assert abs(taken - camera_and_moment(jpeg(tmp_path / "b.jpg", 0, 11))[2] - 59.25) < 1e-6
    (tmp_path / "c.jpg").write_bytes(b"no image")
    assert camera_and_moment(tmp_path / "c.jpg")[2] is None and camera_and_moment(jpeg(tmp_path / "d.jpg", 0, None))[2] is None


@pytest.mark.parametrize("odd", range(6))
def test_an_orientation_tag_that_contradicts_the_neighbours_takes_no_photograph_out_of_its_bracket(tmp_path, odd):
    for i, ev in enumerate((0, -2, 2, 0, -2, 2)):
        jpeg(tmp_path / f"{i}.jpg", ev, 10 + i, orientation=6 if i == odd else 1)
    places, singles = find_places(tmp_path)
    assert [[path.name for path in place.paths] for place in places] == [["0.jpg", "1.jpg", "2.jpg"], ["3.jpg", "4.jpg", "5.jpg"]] and not singles


def test_a_bracket_that_was_taken_upright_is_no_part_of_the_one_before_it(tmp_path):
    for i, ev in enumerate((0, -2, 2, 3, 1, 5)):                                # no exposure repeats
        jpeg(tmp_path / f"{i}.jpg", ev, 10 + i, orientation=6 if i > 2 else 1)
    assert [place.name for place in find_places(tmp_path)[0]] == ["0-2", "3-5"]


def test_a_flat_folder_of_brackets_is_taken_apart_and_a_single_photograph_left_out(tmp_path):
    for i, (ev, taken) in enumerate([(0, 10), (-2, 11), (2, 12), (0, 14), (-2, 15), (2, 16), (1, 300)]):
        jpeg(tmp_path / f"IMG_{i + 8}.jpg", ev, taken)
    places, singles = find_places(tmp_path)
    assert [(place.name, [path.name for path in place.paths]) for place in places] == [
        ("IMG_8-IMG_10", ["IMG_8.jpg", "IMG_9.jpg", "IMG_10.jpg"]), ("IMG_11-IMG_13", ["IMG_11.jpg", "IMG_12.jpg", "IMG_13.jpg"])]
    assert [path.name for path in singles] == ["IMG_14.jpg"]
    (tmp_path / "exposure.txt").write_text("0 1 2 3 4 5 6", encoding="utf-8")
    assert [place.paths for place in find_places(tmp_path)[0]] == [None]        # whoever writes this file means one bracket


def test_folders_of_photographs_are_found_two_levels_deep_and_one_bracket_stays_one(tmp_path):
    for folder in ("a", "b/c", "b/d"):
        for i, ev in enumerate((0, 1, 2, 3, 4)):
            jpeg(tmp_path / folder / f"{i}.jpg", ev, 10 + i)
    places, singles = find_places(tmp_path)
    assert [(place.name, place.paths) for place in places] == [("a", None), ("c", None), ("d", None)] and not singles
    assert [place.name for place in find_places(tmp_path / "a")[0]] == ["a"]
    jpeg(tmp_path / "stray.jpg", 0, 10)                                         # one photograph is not a bracket
    assert len(find_places(tmp_path)[0]) == 3
    (tmp_path / "empty").mkdir()
    assert [place.folder for place in find_places(tmp_path / "empty")[0]] == [tmp_path / "empty"]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_places(tmp_path / "nowhere")
    (tmp_path / "a.jpg").touch()
    with pytest.raises(FileNotFoundError, match="a file, not a folder"):
        find_places(tmp_path / "a.jpg")


def tree(root, *folders):
    """Makes folders with two photographs each."""
    for folder in folders:
        for k in range(2):
            jpeg(root / folder / f"{k}.jpg", k, 10 + k)
    return root


def test_views_of_the_system_are_no_folders_of_photographs(tmp_path, monkeypatch):
    """/proc is a file system of its own, without space for files. The test simulates such a folder: on another device, without space."""
    tree(tmp_path, "a", "b/c", "proc/d", "b/proc")
    at, room = Path.stat, os.statvfs
    monkeypatch.setattr(Path, "stat", lambda path, **how: os.stat_result([*at(path, **how)[:2], 99 * (path.name == "proc"), *at(path, **how)[3:10]]))
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result([*room(path)[:2], 0, *room(path)[3:]]))
    assert [place.name for place in find_places(tmp_path)[0]] == ["a", "c"]     # those without space on their parent's device stay: some disks do not report it
    monkeypatch.setattr(os, "statvfs", room)
    assert [place.name for place in find_places(tmp_path)[0]] == ["a", "c", "proc", "d"]     # a disk mounted in a folder is searched
    monkeypatch.delattr(os, "statvfs")                                          # as on Windows
    assert len(find_places(tmp_path)[0]) == 4


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc on this system")
def test_proc_is_a_view_of_the_system_and_a_folder_is_not(tmp_path):
    assert is_pseudo(Path("/proc")) and not is_pseudo(tmp_path) and not is_pseudo(tmp_path / "nowhere")


def test_a_folder_that_may_not_be_opened_is_named_and_the_others_are_found(tmp_path, monkeypatch, capsys):
    tree(tmp_path, "a", "System Volume Information", "b/c", "b/lost+found")
    listed = Path.iterdir

    def iterdir(path):
        if path.name in ("System Volume Information", "lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)
    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert [place.name for place in find_places(tmp_path)[0]] == ["a", "c"]
    assert capsys.readouterr().out == "".join(f"{tmp_path / name}: cannot be opened (Permission denied); it is left out\n"
                                              for name in ("b/lost+found", "System Volume Information"))


def test_a_tree_of_too_many_folders_is_refused_with_its_name(tmp_path, monkeypatch):
    tree(tmp_path, "a", "b/c", "b/d")                                           # four folders are searched: a, b, c, d
    monkeypatch.setattr("brackets.scenes.MOST_FOLDERS", 4)
    assert len(find_places(tmp_path)[0]) == 3
    monkeypatch.setattr("brackets.scenes.MOST_FOLDERS", 3)
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path))}: has more than 3 folders to look into for photographs; give one with fewer"):
        find_places(tmp_path)
