"""Rendered scenes without the renderer: meshes, how far things move on the image, the split, the files, the command."""

import math
import importlib.util
import runpy
import sys

import numpy as np
import pytest

from brackets.files import read_image, write_image
from synthetic.rendered import render
from synthetic.rendered.materials import PATTERNS, picture
from synthetic.rendered.meshes import ball, bent, box, cloth, figure, foliage, joined, lathe, limb, placed, tube, wall
from synthetic.rendered.render import FIRST_SEED, contact_sheet, find_panoramas
from synthetic.rendered.scenes import SHAKE, View, draw_stage, hand_held, pose, turned_panorama, window_wall
from synthetic.rendered.things import at_rest, draw_motion, position


def volume(mesh):
    """Computes the enclosed volume by the divergence theorem: positive only if the faces look outwards."""
    V, F, _ = mesh
    return np.einsum("ij,ij->i", V[F[:, 0]], np.cross(V[F[:, 1]], V[F[:, 2]])).sum() / 6


def area(mesh):
    V, F, _ = mesh
    return np.linalg.norm(np.cross(V[F[:, 1]] - V[F[:, 0]], V[F[:, 2]] - V[F[:, 0]]), axis=1).sum() / 2


def on_image(point, view, tau):
    """Pinhole projection (x right, y down) written for this test: rotate the world into the camera, divide by the depth."""
    eye, yaw, pitch, roll = pose(view, tau)
    cz, sz, cx, sx, cy, sy = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch), math.cos(roll), math.sin(roll)
    x, y, z = np.asarray(point) - eye
    x, y = cz * x - sz * y, sz * x + cz * y
    y, z = cx * y + sx * z, -sx * y + cx * z
    x, z = cy * x - sy * z, sy * x + cy * z
    return np.array([x, -z]) / y * view.focal


@pytest.mark.parametrize(("mesh", "expected"), [
    (box((1, 2, 3), (2, 4, 6)), 6.0),
    (box((0, 0, 0), (1, 1, 2), cuts=5), 2.0),
    (ball(0.5, (3, -1, 2)), 4 / 3 * math.pi / 8),
    (ball((0.1, 0.2, 0.3)), 4 / 3 * math.pi * 0.006),
    (lathe([(0, 0), (1, 0), (1, 3), (0, 3)], sides=60), math.pi * 3),
    (limb((0, 0, 0), (1, 1, 1), 0.2, 0.2), math.pi * 0.04 * math.sqrt(3) + 4 / 3 * math.pi * 0.008),
])
def test_solids_face_outwards_and_hold_the_volume_of_their_formula(mesh, expected):
    assert volume(mesh) == pytest.approx(expected, rel=0.04)  # facets cut a few per cent off


@pytest.mark.parametrize("end", [(2, 0, 0), (0, 2, 0), (0, 0, 2), (1, -1, math.sqrt(2))])
def test_a_tube_is_a_cylinder_that_faces_outwards_whatever_its_direction(end):
    end = np.array(end, float)
    V, F, UV = tube([0 * end, end / 2, end], 0.5, sides=60)
    assert area((V, F, UV)) == pytest.approx(2 * math.pi * 0.5 * 2, rel=0.01)
    # Measured about its middle and without lids: 2/3 of the volume. The lids' cones (2 times π r² times 1 over 3) are the rest.
    assert volume((V - end / 2, F, UV)) == pytest.approx(2 / 3 * math.pi * 0.25 * 2, rel=0.01)


def test_a_bent_axis_is_an_arc_of_the_same_length():
    axis = (np.stack([np.zeros(200), np.zeros(200), np.linspace(0, 2, 200)], -1), None, None)
    V = bent(axis, 0.7)[0]
    assert V[-1] == pytest.approx([(1 - math.cos(1.4)) / 0.7, 0, math.sin(1.4) / 0.7], abs=1e-9)
    assert np.linalg.norm(np.diff(V, axis=0), axis=1).sum() == pytest.approx(2, rel=1e-4)


def test_bending_by_nothing_changes_nothing_and_a_twist_turns_each_height_by_its_own_angle():
    post = box((-0.1, -0.2, 0), (0.1, 0.2, 1), cuts=4)
    assert np.abs(bent(post, 0.0)[0] - post[0]).max() < 1e-4
    V = bent(post, 0.0, math.pi / 2)[0]
    top = post[0][:, 2] == 1
    assert V[top] == pytest.approx(np.stack([-post[0][top, 1], post[0][top, 0], np.ones(top.sum())], -1), abs=2e-4)
    assert np.hypot(V[:, 0], V[:, 1]) == pytest.approx(np.hypot(post[0][:, 0], post[0][:, 1]), abs=2e-4)


def test_a_quarter_turn_takes_x_to_y():
    V, _, _ = placed((np.array([[1.0, 0, 0]]), None, None), (0, 0, 5), math.pi / 2)
    assert V == pytest.approx(np.array([[0, 1, 5]]), abs=1e-12)


def test_a_wall_lacks_exactly_its_openings():
    mesh = wall((1, 2, 0), (0, 6, 0), 3.0, [(1, 2, 0.5, 2), (3, 5, 0, 2.5)])
    assert area(mesh) == pytest.approx(18 - 1.5 - 5)
    assert (mesh[0][:, 0] == 1).all()
    inside = mesh[0][mesh[1]].mean(1) - (1, 2, 0)
    assert not ((inside[:, 1] > 1) & (inside[:, 1] < 2) & (inside[:, 2] > 0.5) & (inside[:, 2] < 2)).any()


def test_a_window_wall_is_open_and_its_bars_stand_in_it():
    rng = np.random.default_rng(0)
    mesh, bars = window_wall(rng, (2, -1, 0), np.array([0, 7.0, 0]), 2.6)
    assert 0.3 * 7 * 2.6 < area(mesh) < 0.8 * 7 * 2.6
    assert np.abs(bars[0][:, 0] - 2).max() < 0.06
    assert bars[0][:, 1].min() > -1 and bars[0][:, 1].max() < 6


def test_joined_meshes_keep_their_faces():
    one, two = box((0, 0, 0), (1, 1, 1)), ball(1.0, (9, 0, 0))
    assert volume(joined([one, two])) == pytest.approx(volume(one) + volume(two))


@pytest.mark.parametrize("pixels", [0.3, 5.0, 80.0])
@pytest.mark.parametrize("flying", [False, True])
def test_things_move_by_the_pixels_asked_for_between_neighbouring_frames(pixels, flying):
    view = View(np.zeros(3), 1.0, 300.0, 0.0, np.zeros((3, 6)))
    for seed in range(20):
        motion = draw_motion(np.random.default_rng(seed), (0.5, 6.0, 0.0), pixels, 6.0 / 300, 0.8, flying)
        before, now, after = (on_image(position(motion, tau), view, tau) for tau in (-1, 0, 1))
        # The swerve changes each step by at most 0.15 per coordinate; moving in depth, by up to half of the step, changes the scale.
        assert 0.7 * pixels < np.linalg.norm(after - now) < 1.45 * pixels
        assert 0.7 * pixels < np.linalg.norm(now - before) < 1.45 * pixels
        assert abs(motion.spin) * 0.8 <= pixels * 6.0 / 300 + 1e-12
        assert not (position(at_rest(motion), 1.0) - position(motion, 0.0)).any()


@pytest.mark.parametrize("pixels", [0.2, 10.0])
def test_the_limbs_of_a_walker_move_no_further_than_its_body_in_a_frame(pixels):
    metre = 4.0 / 300
    for seed in range(10):
        motion = draw_motion(np.random.default_rng(seed), (0, 4, 0), pixels, metre, 0.8)
        for part in range(3):
            V = [figure(motion.phase + motion.rate * tau, 0.6, 2.0, 1.2)[part][0] for tau in (0.0, 1.0)]
            assert np.linalg.norm(V[1] - V[0], axis=1).max() < 2.5 * pixels * metre


def test_a_cloth_hangs_from_its_upper_edge_and_waves_most_at_the_lower_one():
    V = np.stack([cloth(1.0, 2.0, phase, 0.1)[0] for phase in np.linspace(0, 6, 20)]).reshape(20, 30, 40, 3)
    assert V[..., 2].max() == 2.0 and V[..., 2].min() == 0.0
    assert V[:, 0, :, 1].std() > 5 * V[:, -1, :, 1].std()


def test_leaves_lie_in_their_ellipsoid():
    V, F, UV = foliage(np.random.default_rng(0), np.array([0.5, 0.4, 0.3]), 200, 0.02)
    assert len(V) == 800 and len(F) == 400 and len(UV) == 800
    assert np.linalg.norm(V / [0.5, 0.4, 0.3], axis=1).max() < 1 + 0.02 * 1.3 * 2.5 / 0.3


def test_the_hand_shifts_the_image_by_at_most_thirty_pixels_mostly_by_few():
    shifts = []
    for seed in range(400):
        view = View(np.array([0.0, 0, 1.5]), 1.0, 260.0, 0.0, hand_held(np.random.default_rng(seed), 260.0, 4.0))
        assert not view.shake[1].any()
        middle = on_image((0, 4.0, 1.5), view, 0)
        shifts += [np.linalg.norm(on_image((0, 4.0, 1.5), view, tau) - middle) for tau in (-1, 1)]
    assert max(shifts) < SHAKE
    assert max(shifts) > 0.6 * SHAKE
    assert 1 < np.median(shifts) < 8
    assert 0.05 < np.mean(np.array(shifts) == 0) < 0.2


def test_between_two_frames_the_camera_is_on_the_line_between_its_places():
    view = View(np.array([1.0, 0, 1.5]), 1.0, 260.0, -0.1, np.array([[0.0] * 6, [0.0] * 6, [0.2, 0, 0.4, 0.02, 0.04, 0.06]]))
    eye, yaw, pitch, roll = pose(view, 0.5)
    assert [*eye, yaw, pitch, roll] == pytest.approx([1.1, 0, 1.7, 0.01, -0.08, 0.03])


def test_behind_a_window_a_panorama_keeps_only_the_half_outside():
    panorama = np.ones((16, 32, 3), np.float32)
    around = turned_panorama(np.random.default_rng(0), panorama, (0, 1))  # the window looks along y: the middle column
    assert (around[:, 10:22] == 1).all() and not around[:, :8].any() and not around[:, 24:].any()
    around = turned_panorama(np.random.default_rng(0), panorama, (1, 0))  # along x: a quarter turn to the right
    assert (around[:, 20:28] == 1).all() and not around[:, :16].any()
    panorama[3, 5] = 1e6
    assert turned_panorama(np.random.default_rng(0), panorama, None).max() == 2000


def test_pictures_are_albedos():
    for kind in PATTERNS:
        image = picture(np.random.default_rng(3), kind)
        assert image.shape == (256, 256, 3) and image.min() >= 0.01 and image.max() <= 0.92
        assert image.std() > 0.002


@pytest.fixture
def folder(tmp_path):
    """Makes small .hdr files: panoramas and photographs of either split (only the name decides which)."""
    for name, shape in (("abbey_1k", (8, 16)), ("autoshop_01_1k", (8, 16)), ("deep/chinese_garden_1k", (8, 16)), ("openexr_Desk", (8, 9))):
        write_image(tmp_path / f"{name}.hdr", np.ones((*shape, 3), np.float32))
    return tmp_path


def test_training_and_validation_share_no_file_and_only_panoramas_light(folder):
    found = {split: find_panoramas(folder, split) for split in ("train", "val")}
    names = {split: {path.stem for path in files} for split, (_, files) in found.items()}
    assert names == {"train": {"abbey_1k", "openexr_Desk"}, "val": {"autoshop_01_1k", "chinese_garden_1k"}}
    assert [path.stem for path in found["train"][0]] == ["abbey_1k"]
    for path in found["val"][1]:
        path.unlink()
    with pytest.raises(FileNotFoundError, match="no panorama .* for val"):
        find_panoramas(folder, "val")


def test_no_seed_of_training_is_one_of_validation():
    assert abs(FIRST_SEED["val"] - FIRST_SEED["train"]) >= 100_000


def test_a_stage_is_a_function_of_its_seed():
    panorama = np.random.default_rng(0).random((128, 256, 3)).astype(np.float32) + 0.1
    images = [np.random.default_rng(1).random((200, 300, 3)).astype(np.float32)]
    moving = 0
    for seed in range(3):
        one, two, other = (draw_stage(np.random.default_rng(s), panorama, images, 288) for s in (seed, seed, seed + 100))
        assert len(one.things) == len(two.things) >= 5 and len(one.things) + one.blur != len(other.things) + other.blur
        for a, b in zip(one.things, two.things):
            V, F, UV = a.mesh(1.0)
            assert (V == b.mesh(1.0)[0]).all() and (a.material.picture == b.material.picture).all()
            assert np.isfinite(V).all() and F.min() >= 0 and F.max() < len(V) == len(UV)
            moved = np.abs(V - a.mesh(0.0)[0]).max() > 0
            assert not moved or a.moving
            moving += moved
    assert moving > 5


def test_the_sheet_shows_three_exposures_and_everything(tmp_path):
    (tmp_path / "train").mkdir()
    frames = np.full((3, 3, 208, 288), 1.0, np.float16)
    frames[1, :, :, :144] = 64.0
    np.save(tmp_path / "train" / "0000.npy", frames)
    sheet = contact_sheet(tmp_path, 3)
    assert sheet.shape == (208, 4 * 288, 3)
    levels = sheet[100, [0, 288 + 200, 288, 2 * 288]][:, 0]
    assert levels.tolist() == [round(255 * (1 / 32) ** (1 / 2.2)), round(255 * 0.25 ** (1 / 2.2)), 255, 255]
    with pytest.raises(FileNotFoundError, match="render some first"):
        contact_sheet(tmp_path / "empty", 3)


def test_the_renderer_is_not_needed_to_import_the_script():
    assert "mitsuba" not in sys.modules and render.SPP > 0


def test_the_command_draws_the_sheet_of_what_is_there(tmp_path, monkeypatch):
    (tmp_path / "val").mkdir()
    np.save(tmp_path / "val" / "0000.npy", np.full((3, 3, 256, 384), 0.5, np.float16))
    monkeypatch.setattr("sys.argv", ["synthetic.rendered", "--out", str(tmp_path), "--sheet", str(tmp_path / "sheet.png")])
    runpy.run_module("synthetic.rendered", run_name="__main__")
    assert (read_image(tmp_path / "sheet.png") == contact_sheet(tmp_path, 12)).all()


def test_a_renderer_that_is_not_installed_is_named_with_its_command(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "mitsuba" else find(name, *more) or True)
    monkeypatch.setattr("sys.argv", ["synthetic.rendered", "--hdr-dir", "x"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("synthetic.rendered", run_name="__main__")
    assert stopped.value.code == 2 and "mitsuba not found; run pip install mitsuba" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "message"), [((), "--hdr-dir: not given"), (("--hdr-dir", "x", "--workers", "0"), "--workers 0: must be a whole number")])
def test_a_wrong_flag_of_the_renderer_is_one_line_and_exit_code_two(words, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["synthetic.rendered", *words])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("synthetic.rendered", run_name="__main__")
    found = capsys.readouterr().err
    assert stopped.value.code == 2 and message in found and found.count("\n") == 1
