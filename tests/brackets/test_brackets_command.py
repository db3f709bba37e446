"""python -m brackets: files, camera motion, tone curve and moving objects, in scenes where they are known."""

import runpy
import struct

import numpy as np
import pytest

import test_light
import test_register
from brackets.files import write_image
from brackets.marks import RESULT
from brackets.prepare import PrepareConfig, prepare
from brackets.scenes import load_scene
from photographs import frame, kalantari_scene, png_bytes


@pytest.fixture
def command(monkeypatch, capsys):
    """Returns a function that runs `python -m brackets` with the words it is given, in this process, and returns its lines; if it failed, stderr's."""
    def run(*words):
        monkeypatch.setattr("sys.argv", ["brackets", *map(str, words)])
        try:
            runpy.run_module("brackets", run_name="__main__")
        except SystemExit as error:
            assert error.code == 2
            return capsys.readouterr().err.splitlines()
        return capsys.readouterr().out.splitlines()
    return run


def write_scene(folder, ldr):
    for i, image in enumerate(ldr, 1):
        write_image(folder / f"{i}.tif", np.asarray(image * 65535).round().astype(np.uint16).transpose(1, 2, 0))
    (folder / "exposure.txt").write_text("0\n2\n4\n", encoding="utf-8")
    return folder


def test_the_files_come_first_and_frames_too_small_for_flow_are_said_to_be(command, tmp_path):
    lines = command(kalantari_scene(tmp_path / "scene"))
    assert lines[0] == "scene: 40x24" and [line.split()[0] for line in lines[1:5]] == ["262A0001.tif", "262A0002.tif", "262A0003.tif", "HDRImg.hdr"]
    assert lines[2].split()[1:6] == ["TIFF", "uint16", "+2.00", "EV", "mean"] and lines[2].endswith(", 0.0 % saturated")
    mean = load_scene(tmp_path / "scene")["hdr"].mean()
    assert f"truth      mean {mean:.4f}, largest " in lines[4] and lines[-1].endswith("not searched for in frames smaller than 32 pixels a side")


def test_what_was_left_out_recoded_and_is_not_seen_is_said(command, tmp_path):
    kalantari_scene(tmp_path)
    write_image(tmp_path / "result.png", frame(1), RESULT)
    alpha = np.full((24, 40, 1), 65535, np.uint16)
    alpha[:, :10] = 0
    (tmp_path / "262A0003.tif").write_bytes(png_bytes(np.concatenate([frame(3), alpha], axis=2), (b"gAMA", struct.pack(">I", 100_000))))
    said = command(tmp_path)
    assert said[:2] == [f"{tmp_path}: left out result.png: made by this project; 262A0003.tif: PNG inside, and read as such",
                        f"{tmp_path}: 262A0003.tif: linear light, coded with gamma 2.2"]
    assert said[5].split()[:3] == ["262A0003.tif", "PNG", "float32"] and said[5].endswith("0.0 % saturated, 25.0 % transparent")


def test_an_error_is_one_line(command, tmp_path):
    assert command("") == ["error: FOLDER: missing; give the folder of a bracket, such as examples/cafe"]
    assert command(tmp_path / "nothing") == [f"error: {tmp_path / 'nothing'}: no such folder; give a folder with two or more photographs of one scene"]
    assert command(kalantari_scene(tmp_path / "scene"), "--layout", "canon")[0].startswith("error: --layout 'canon': unknown; use auto, kalantari")


def test_the_command_tells_how_the_camera_moved_for_both_frames(command, tmp_path):
    write_scene(tmp_path, test_register.bracket(150, 200, test_register.homography(150, 200, (6.0, 3.0)), None))
    lines = command(tmp_path)
    short, long = lines[lines.index("camera") + 1:][:2]
    assert short.startswith("  short  shifted by +6.0, +3.0 pixels") and long.startswith("  long   left alone")


@pytest.mark.parametrize("name", ["real camera", "sigmoid"])
def test_the_command_prints_the_curve(command, tmp_path, name):
    curve = test_light.CURVES[name]
    lines = command(write_scene(tmp_path, test_light.bracket(name)[0]))
    table = lines[lines.index("light") + 2:lines.index("moving objects")]
    for line, shown in zip(table, np.linspace(0.1, 1, 10), strict=True):
        v, coded = float(line.split()[0]), float(line.split()[-1])
        light = np.linspace(0, 1, 20001)
        exact = light[np.abs(curve(light) - v).argmin()] ** (1 / 2.2)
        assert abs(v - shown) < 1e-9 and abs(coded - exact) < 0.03


def test_the_command_says_how_far_a_thing_moved(command, tmp_path):
    """A quarter of the picture moves by 8 pixels to the right from the short frame to the reference, and by 8 more to the long one."""
    still, thing = test_register.radiance(160, 160), test_register.radiance(80, 80, seed=5)
    ldr = []
    for left, ev in zip((32, 40, 48), (0, 2, 4)):
        view = still.copy()
        view[:, 40:120, left:left + 80] = thing
        ldr.append(test_register.photograph(view, ev))
    lines = command(write_scene(tmp_path, ldr))
    for line in lines[lines.index("moving objects") + 1:]:
        half, most, nearly_all = (float(part.split("by ")[-1].removeprefix("at most ").split()[0]) for part in line.split(", "))
        assert half < 0.5 < 7.5 < most < 8.5 and most <= nearly_all < 60, line
    assert len(lines) == lines.index("moving objects") + 3


def test_the_example_is_told_from_end_to_end(command):
    lines = command("examples/cafe")
    assert lines[0] == "cafe: 750x500" and lines[lines.index("light") + 1] == "  exposures +0, +3, +6 EV"
    assert [line.split()[0] for line in lines[-2:]] == ["short", "long"] and all("50 % of the pixels moved by at most" in line for line in lines[-2:])
    sample = load_scene("examples/cafe")
    camera = lines[lines.index("camera") + 1:][:2]
    for line, told in zip(camera, prepare(sample["ldr"], sample["ev"], PrepareConfig(flow=False)).in_words().split("; ")[1:], strict=True):
        assert f"{told.split()[-2]} pixels at the corner that moved most" in line


def test_every_frame_of_a_longer_bracket_is_told_with_its_use_and_a_missing_one_is_said_to_be_missing(command, tmp_path):
    ldr = [test_register.photograph(test_register.radiance(40, 60), ev) for ev in (-5, -3, -1, 1, 3)]
    write_scene(tmp_path / "five", ldr)
    (tmp_path / "five" / "exposure.txt").write_text("0 2 4 6 8", encoding="utf-8")
    uses = [line.split("; ")[1] for line in command(tmp_path / "five")[1:6]]
    assert uses == ["for highlights that the others clip", "short frame", "reference", "long frame", "for shadows that are dark in the others"]
    write_scene(tmp_path / "two", ldr[1:3])
    (tmp_path / "two" / "exposure.txt").write_text("0 2", encoding="utf-8")
    lines = command(tmp_path / "two")
    assert "the reference stands in for it at 2 EV" in lines[3] and sum("left alone" in line or "shifted" in line for line in lines) == 1


def test_several_brackets_are_listed(command, tmp_path):
    for name in "ab":
        kalantari_scene(tmp_path / name)
    lines = command(tmp_path)
    assert [line for line in lines if not line.startswith("  ")] == ["a", "b"] and sum("reference" in line for line in lines) == 2


def test_a_bracket_that_cannot_be_used_does_not_end_the_list(command, tmp_path):
    for name in "abc":
        write_scene(tmp_path / name, np.full((3, 3, 24, 40), 0.5))
    (tmp_path / "b" / "exposure.txt").write_text("0 2", encoding="utf-8")
    lines = [line for line in command(tmp_path) if not line.startswith("  ")]
    assert lines[0] == "a" and lines[1].startswith(f"{tmp_path / 'b'}: cannot be used: ") and lines[2:] == ["c"]
    for name in "ac":
        (tmp_path / name / "exposure.txt").write_text("0 2", encoding="utf-8")
    assert command(tmp_path)[-1] == f"error: {tmp_path}: holds no bracket that can be used"
