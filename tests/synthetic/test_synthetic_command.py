"""python -m synthetic: brackets written as folders of photographs, and the contact sheet."""

import runpy
import sys

import imagecodecs
import numpy as np
import pytest
import torch

from brackets.files import write_image
from brackets.marks import RESULT
from brackets.scenes import load_scene
from synthetic.__main__ import contact_sheet
from synthetic.dataset import AS_TAKEN, SyntheticBrackets, SyntheticConfig, export, validation_set


@pytest.fixture
def command(monkeypatch):
    """Returns a function that runs `python -m synthetic` with its words, in this process."""
    def run(*words):
        monkeypatch.setattr("sys.argv", ["synthetic", *map(str, words)])
        monkeypatch.delitem(sys.modules, "synthetic.__main__", raising=False)  # imported above; runpy would warn
        runpy.run_module("synthetic", run_name="__main__")
    return run


def test_exported_brackets_are_as_the_camera_gives_them(command, tmp_path, capsys):
    command("--export", tmp_path, "--count", 2, "--size", 48, "--split", "train", "--seed", 5)
    folders = sorted(tmp_path.iterdir())
    assert f"2 scenes, {folders[0].name} to {folders[1].name}" in capsys.readouterr().out
    for index, folder in enumerate(folders):
        expected = SyntheticBrackets(48, 5, 2, split="train", config=SyntheticConfig(**AS_TAKEN))[index]
        assert (load_scene(folder)["ldr"] - expected["ldr"]).abs().max() <= 0.5 / 65535 + 1e-6


def test_the_command_exports_the_validation_scenes_of_its_folders(command, folders, tmp_path):
    command("--export", tmp_path, "--count", 3, "--size", 48, "--split", "val", "--seed", 5,
            "--hdr-dir", folders["hdr_dir"], "--rendered-dir", folders["rendered_dir"])
    dataset = validation_set(48, 3, **folders)
    for index, item in enumerate(dataset):
        assert (load_scene(tmp_path / dataset.name(index))["ldr"] - item["ldr"]).abs().max() <= 0.5 / 65535 + 1e-6


def test_the_command_writes_the_contact_sheet(command, tmp_path):
    command("--count", 2, "--size", 32, "--seed", 3, "--out", tmp_path / "deep" / "sheet.png")
    sheet = imagecodecs.png_decode((tmp_path / "deep" / "sheet.png").read_bytes())
    assert (sheet == contact_sheet(SyntheticBrackets(32, 3), 2)).all()


@pytest.mark.parametrize("mark", ["", RESULT], ids=["photograph", "result"])
def test_photographs_and_results_are_not_replaced_by_a_contact_sheet(command, tmp_path, capsys, mark):
    photograph, words = tmp_path / "1.png", ("--count", 2, "--size", 16)
    write_image(photograph, np.zeros((8, 8, 3), np.uint8), mark)
    before = photograph.read_bytes()
    with pytest.raises(SystemExit):
        command(*words, "--out", photograph)
    assert photograph.read_bytes() == before
    assert "1.png: is not from an earlier run and would be replaced; move it away, or choose another --out" in capsys.readouterr().err
    for _ in range(2):                              # it replaces its own
        command(*words, "--out", tmp_path / "sheet.png")


@pytest.mark.parametrize(("words", "message"), [(("--count", 0), "--count 0: must be a whole number of 1 or more"), (("--split", "test"), "split 'test'")])
def test_a_wrong_flag_is_one_line_and_exit_code_two(command, words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(*words)
    found = capsys.readouterr().err
    assert stopped.value.code == 2 and message in found and found.count("\n") == 1


def test_exported_scenes_are_the_validation_scenes(folders, tmp_path):
    """As load_scene reads them: frames within half a step of the file, truth within the step of RGBE."""
    dataset = validation_set((32, 48), 9, **folders)
    made, suffixes = export(dataset, tmp_path), set()
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in made} and len(made) == 9
    for folder, item in zip(made, dataset):
        scene = load_scene(folder)
        suffix = next(folder.glob("1.*")).suffix
        suffixes.add(suffix)
        assert torch.equal(scene["ev"], item["ev"])
        assert (scene["ldr"] - item["ldr"]).abs().max() <= {".png": 1e-6, ".tif": 0.5 / 65535 + 1e-6}[suffix]
        assert ((scene["hdr"] - item["hdr"]).abs() <= item["hdr"].amax(0) / 255 + 1e-9).all()  # 1/256, and a little where 511.5 rounds up
    assert suffixes == {".png", ".tif"}


def test_an_export_replaces_brackets_that_it_made_and_nothing_else(command, tmp_path, capsys):
    words = ("--export", tmp_path, "--count", 3, "--size", 32)
    for seed in (1, 2):                             # other frames, some of them in files of the other kind
        command(*words, "--seed", seed)
        made = sorted(tmp_path.iterdir())
        assert len(made) == 3 and all(len(list(folder.iterdir())) == 5 and load_scene(folder)["ldr"].shape[0] == 3 for folder in made)
    for path in made[1].iterdir():
        path.unlink()
    (made[1] / "1.tif").write_bytes(b"mine")
    before = {path: path.read_bytes() for folder in made for path in folder.iterdir()}
    with pytest.raises(SystemExit) as stopped:
        command(*words)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and str(made[1]) in said and said.count("\n") == 1
    assert {path: path.read_bytes() for folder in made for path in folder.iterdir()} == before


def test_the_contact_sheet_has_five_pictures_a_row():
    sheet = contact_sheet(SyntheticBrackets((24, 32)), 2)
    assert sheet.dtype == np.uint8 and sheet.shape == (2 * 24, 5 * 32, 3)
