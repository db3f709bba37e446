"""What moves in front of a synthetic world: its paths, how frames show it; and the textures that surfaces are made of."""

import numpy as np
import pytest
import torch

from synthetic import objects
from synthetic.dataset import SyntheticConfig
from synthetic.textures import texture_bank
from synthetic.world import draw_object, stamp


def shifted(dx, dy):
    """The pose of a camera whose picture has moved by (dx, dy) pixels."""
    return np.array([[1.0, 0.0, -dx], [0.0, 1.0, -dy], [0.0, 0.0, 1.0]])


def test_an_object_that_stands_still_moves_with_the_camera():
    frames = np.ones((3, 3, 80, 90), np.float32)
    poses = np.stack([shifted(5, -3), np.eye(3), shifted(-4, 2)])
    config = SyntheticConfig(static_scene=0.0, object_motion=(1e-9, 1e-9), object_rotation=0.0, object_deformation=0.0, motion_blur=0.0)
    objects.add_objects(np.random.default_rng(4), frames, poses, draw_object, config)
    inner = frames[1][:, 20:60, 20:70]
    assert np.ptp(inner) > 0.1
    assert np.abs(frames[0][:, 20 - 3:60 - 3, 20 + 5:70 + 5] - inner).max() < 1e-3
    assert np.abs(frames[2][:, 20 + 2:60 + 2, 20 - 4:70 - 4] - inner).max() < 1e-3


def test_an_opaque_object_hides_and_a_half_transparent_one_mixes():
    for opacity in (1.0, 0.5):
        frame = np.full((3, 32, 32), 8.0, np.float32)
        cut_out, alpha = np.full((3, 12, 12), 2.0, np.float32), np.full((12, 12), opacity, np.float32)
        stamp(frame, cut_out, alpha, [(16.0, 16.0, 0.0, 0.0, 0.0)])
        assert frame[:, 16, 16] == pytest.approx(2.0 * opacity + 8.0 * (1 - opacity))
        assert (frame[:, :8] == 8.0).all() and (frame[:, :, :8] == 8.0).all()


def test_objects_move_up_to_eighty_pixels_between_neighbouring_frames_and_pass_their_focus():
    config, steps = SyntheticConfig(), []
    for seed in range(600):
        path = np.array(objects.object_path(np.random.default_rng(seed), (50.0, 40.0), config))
        steps += [*np.hypot(*np.diff(path[:, :2], axis=0).T)]
        assert np.isclose(path[:, :2], (50.0, 40.0)).all(1).any()
    assert max(steps) <= 80 and max(steps) > 70 and min(steps) < 1
    assert 3 < np.median(steps) < 10  # log-uniform from 0.5 to 80, then 0.5 to 1 of it


def test_a_smeared_object_covers_its_share_of_the_way_and_stays_where_it_was():
    path = [(0.0, 0.0, 0.1, 0.2, 0.3), (30.0, -10.0, 0.0, 0.0, 0.0), (50.0, 20.0, 0.4, 0.5, 0.6)]
    x, y, *rest = np.array(objects.smeared(path, 2, 0.4)).T
    assert (np.ptp(x), np.ptp(y)) == pytest.approx((8, 12)) and (x.mean(), y.mean()) == pytest.approx((50, 20))
    assert [part.tolist() for part in rest] == [[0.4] * 15, [0.5] * 15, [0.6] * 15]     # 14.4 pixels


def test_motion_blur_smears_the_long_frame_and_sometimes_the_reference_never_the_short_one(monkeypatch):
    stamped = []
    monkeypatch.setattr(objects, "stamp", lambda frame, radiance, alpha, poses: stamped.append(len(poses)))
    config = SyntheticConfig(static_scene=0.0, motion_blur=1.0, middle_blur=0.5)
    for seed in range(40):
        frames = np.ones((3, 3, 32, 32), np.float32)
        objects.add_objects(np.random.default_rng(seed), frames, np.stack([np.eye(3)] * 3), draw_object, config)
    counts = np.array(stamped).reshape(-1, 3)
    assert (counts[:, 0] == 1).all() and (counts[:, 2] >= 4).all()
    assert 0.3 < (counts[:, 1] > 1).mean() < 0.7


# --- textures ---------------------------------------------------------------------------------------------------------


def test_textures_are_periodic_and_normalised():
    for name, levels in texture_bank().items():
        tile = levels[0][0, 0]
        assert torch.equal(tile[0], tile[-1]) and torch.equal(tile[:, 0], tile[:, -1]), name
        assert abs(tile.mean()) < 0.1 and 0.8 < tile.std() < 1.1, name  # clipped at three deviations
        halved = tile[:-1, :-1].reshape(256, 2, 256, 2).mean((1, 3))
        assert torch.allclose(levels[1][0, 0, :-1, :-1], halved, atol=1e-5), name
