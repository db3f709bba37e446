"""folders.py: photographs and results of this project, whatever their names, and what is said about the files left out."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from brackets.files import save_figure, write_image
from brackets.folders import other_than_named, photographs
from brackets.grouping import find_places
from brackets.marks import ALIGNED, RESULT, SOFTWARE
from brackets.ownership import draft
from brackets.scenes import load_scene, scene_files
from data import T
from photographs import SMOOTH8, frame, jpeg_bytes, kalantari_scene, which


def kept(folder):
    return [path.name for path in photographs(folder)[0]]


def left_out(folder):
    return {why: [path.name for path in paths] for why, paths in photographs(folder)[1].items()}


def result(folder, name, mark):
    """Makes the NAME.hdr and NAME.png of a run of infer.py, with a mark or as they were before there were marks."""
    hdr = np.exp(np.random.default_rng(0).uniform(-9, 0, (24, 40, 3))).astype(np.float32)
    write_image(folder / f"{name}.hdr", hdr)
    write_image(folder / f"{name}.png", (T(torch.from_numpy(hdr)) * 255).round().byte().numpy(), mark)


def test_photographs_may_have_any_name(tmp_path, capsys):
    for k, name in enumerate(("1.JPG", "2.tif", "3", "4.jpg_original"), start=1):
        (tmp_path / name).write_bytes(jpeg_bytes(np.full((16, 24, 3), 10 * k, np.uint8), None, 2.0 ** k))
    Image.fromarray(SMOOTH8).save(tmp_path / "5.webp")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "Thumbs.db").write_bytes(bytes(100))
    (tmp_path / "._1.JPG").write_bytes(bytes(100))
    assert kept(tmp_path) == ["1.JPG", "2.tif", "3", "4.jpg_original", "5.webp"] and left_out(tmp_path) == {}
    assert other_than_named(photographs(tmp_path)[0]) == {"JPEG": [tmp_path / name for name in ("2.tif", "3", "4.jpg_original")]}
    (tmp_path / "5.webp").unlink()
    (tmp_path / "4.jpg_original").unlink()
    load_scene(tmp_path)
    assert capsys.readouterr().out == f"{tmp_path}: 2.tif, 3: JPEG inside, and read as such\n"


def test_a_file_that_is_named_like_a_photograph_counts_whatever_it_holds(tmp_path):
    (tmp_path / "1.jpg").write_text("hello")
    (tmp_path / "2.tif").touch()
    assert kept(tmp_path) == ["1.jpg", "2.tif"]


@pytest.mark.parametrize("name", ["scene", "262A0001", "HDRImg"])
def test_results_written_into_the_scene_are_no_frames_and_are_named(tmp_path, capsys, name):
    folder = kalantari_scene(tmp_path / "scene", truth=False)
    result(folder, name, RESULT)
    save_figure(folder / f"{name}_panel.png", Figure(figsize=(1, 1)), dpi=50)
    save_figure(folder / f"{name}_spread.png", Figure(figsize=(1, 1)), dpi=50)
    save_figure(folder / "renamed.png", Figure(figsize=(1, 1)), dpi=50)
    exif = Image.Exif()
    exif[SOFTWARE] = RESULT
    (folder / f"{name}.jpg").write_bytes(b"")
    Image.fromarray(SMOOTH8).save(folder / f"{name}.jpg", exif=exif)
    for k in (1, 2, 3):
        write_image(folder / f"{name}_aligned_{k}.tif", frame(k), ALIGNED)
    assert which(load_scene(folder)) == [1, 2, 3]
    said = capsys.readouterr().out
    assert said.startswith(f"{folder}: left out ") and said.endswith(": made by this project\n") and said.count("\n") == 1
    for file in (f"{name}.png", f"{name}.jpg", f"{name}_panel.png", f"{name}_spread.png", "renamed.png", *(f"{name}_aligned_{k}.tif" for k in (1, 2, 3))):
        assert f" {file}" in said


def test_a_result_that_an_editor_has_saved_without_its_mark_is_no_photograph(tmp_path):
    folder = kalantari_scene(tmp_path / "scene", truth=False)
    with draft([folder / "scene.jpg", folder / "scene.hdr"], "key") as drafts:
        write_image(drafts / "scene.jpg", SMOOTH8, RESULT)
        write_image(drafts / "scene.hdr", np.ones((4, 4, 3), np.float32))
    Image.fromarray(SMOOTH8).save(folder / "scene.jpg")
    assert left_out(folder) == {"made by this project": ["scene.jpg"]}
    (folder / "scene.hdr").unlink()             # the results were deleted, and a photograph has this name
    assert left_out(folder) == {} and "scene.jpg" in kept(folder)


def test_photographs_that_are_called_like_results_stay(tmp_path):
    for name in ("solar_panel.png", "butter_spread.png", "1.png"):
        write_image(tmp_path / name, SMOOTH8)
    write_image(tmp_path / "1.hdr", np.ones((*SMOOTH8.shape[:2], 3), np.float32))
    write_image(tmp_path / "2.hdr", np.ones((4, 4, 3), np.float32))
    write_image(tmp_path / "2.png", SMOOTH8)
    assert kept(tmp_path) == ["1.png", "2.png", "butter_spread.png", "solar_panel.png"] and left_out(tmp_path) == {}


def test_aligned_frames_in_a_folder_of_their_own_are_photographs(tmp_path):
    for k in (1, 2, 3):
        write_image(tmp_path / f"scene_aligned_{k}.tif", frame(k), ALIGNED)
    (tmp_path / "exposure.txt").write_text("0 2 4")
    result(tmp_path, "scene", RESULT)
    assert which(load_scene(tmp_path)) == [1, 2, 3] and left_out(tmp_path) == {"made by this project": ["scene.png"]}


def test_aligned_frames_beside_the_results_of_several_brackets_make_no_bracket(tmp_path):
    for name in ("a", "b"):
        kalantari_scene(tmp_path / name, truth=False)
    for out in (tmp_path, tmp_path / "results"):
        out.mkdir(exist_ok=True)
        for name in ("a", "b"):
            result(out, name, RESULT)
            for k in (1, 2, 3):
                write_image(out / f"{name}_aligned_{k}.tif", frame(k), ALIGNED)
        assert kept(out) == []
    assert [place.folder for place in find_places(tmp_path)[0]] == [tmp_path / "a", tmp_path / "b"]


def test_a_raw_file_beside_its_jpeg_and_a_picture_that_is_not_read_are_left_out(tmp_path):
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (tmp_path / name).write_bytes(jpeg_bytes())
        (tmp_path / name.replace("jpg", "CR2")).write_bytes(b"II*\0\x10\0\0\0CR\x02\0" + bytes(40))
    (tmp_path / "4.NEF").write_bytes(b"MM\0*\0\0\0\x08" + bytes(40))
    (tmp_path / "5.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    assert kept(tmp_path) == ["1.jpg", "2.jpg", "3.jpg", "4.NEF"]
    assert left_out(tmp_path) == {"another file holds the same photograph": ["1.CR2", "2.CR2", "3.CR2"], "HEIC files are not read": ["5.heic"]}


def test_light_that_is_called_like_a_photograph_is_none(tmp_path):
    write_image(tmp_path / "1.hdr", np.full((4, 4, 3), 0.5, np.float32))
    (tmp_path / "1.hdr").rename(tmp_path / "1.jpg")
    assert kept(tmp_path) == [] and left_out(tmp_path) == {"linear light, not a photograph": ["1.jpg"]}


def test_too_few_photographs_are_counted_with_what_was_left_out(tmp_path):
    for k in (1, 2, 3):
        (tmp_path / f"{k}.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(FileNotFoundError, match=r"found 0 photographs; left out 1.heic, 2.heic, 3.heic: HEIC files are not read; give three or more"):
        scene_files(tmp_path)
