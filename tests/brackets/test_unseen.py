"""Pixels that a frame does not show are NaN in a bracket: they count as beyond the frame, in registration, light, flow and the result."""

import numpy as np
import pytest
import torch

import test_light
import test_register
from brackets.prepare import PrepareConfig, prepare, registered_frames
from brackets.register import estimate, filled_reference, normalise, register, warp, with_nearest
from test_register import EV, corner_error, homography

RIMS = ((24, 0, 5), (12, 0, 0), (0, 24, 0))     # pixels at the left, right and top that short, reference and long frame do not show
STEPS = [PrepareConfig(), PrepareConfig(register=False), PrepareConfig(flow=False), PrepareConfig(False, False, False)]


def with_rims(ldr, rims=RIMS):
    ldr = ldr.clone()
    for frame, (left, right, top) in zip(ldr, rims):
        frame[:, :, :left] = frame[:, :, frame.shape[2] - right:] = frame[:, :top] = torch.nan
    return ldr


def still(height=200, width=300):
    """Makes a bracket in which neither scene nor camera moved and nothing is saturated: the longest frame reaches 0.96."""
    view = test_register.radiance(height, width)
    return torch.stack([test_register.photograph(view / view.max() / 17.5, ev) for ev in EV])


@pytest.mark.parametrize("config", STEPS, ids=["all steps", "no registration", "no flow", "no step"])
def test_rims_are_filled_as_the_other_frames_show_them_and_nothing_else_changes(config):
    ldr = still()
    full, prepared = prepare(ldr, EV, config), prepare(with_rims(ldr), EV, config)
    assert prepared.light is None and (prepared.homographies == torch.eye(3)).all() and torch.equal(prepared.ev, full.ev)
    assert not prepared.ldr.isnan().any() and (prepared.ldr - full.ldr).abs().max() < 0.02
    registered = registered_frames(with_rims(ldr), EV, prepared.homographies, prepared.light)
    assert (registered - registered_frames(ldr, EV, full.homographies, full.light)).abs().max() < 0.02


def test_black_rims_are_not_the_same_thing():
    """This shows that the test above can fail: black pixels are believed."""
    ldr = still()
    assert (prepare(with_rims(ldr).nan_to_num(0), EV).ldr - prepare(ldr, EV).ldr).abs().max() > 0.2


@pytest.mark.parametrize("height, width, short, long", test_register.MOTIONS)
def test_motion_is_found_in_what_both_frames_show(height, width, short, long):
    """A third or more of each frame is unseen, in a different place each: if it counted as flat or black, the motion would be wrong by pixels."""
    W_short, W_long = homography(height, width, **short), homography(height, width, **long)
    third = width // 3
    ldr = with_rims(test_register.bracket(height, width, W_short, W_long), ((0, third, 0), (third // 2, 0, 60), (0, third, 60)))
    registered, found = register(ldr, EV)
    assert corner_error(found[0], W_short, height, width) < 0.3 and corner_error(found[2], W_long, height, width) < 0.3
    assert not registered.isnan().any()


def test_rims_at_the_same_place_do_not_hold_a_frame_that_moved():
    """As black, they would look like a scene that stands still. Half of the picture is unseen."""
    W = homography(200, 300, (9.0, -4.0))
    ldr = with_rims(test_register.bracket(200, 300, W, None), [(75, 75, 0)] * 3)
    assert corner_error(estimate(ldr[1], ldr[0], 2.0), W, 200, 300) < 0.5


def test_a_reference_of_which_little_is_seen_is_recognised():
    W = homography(400, 300, (7.3, -4.6))
    ldr = with_rims(test_register.bracket(400, 300, W, None), ((0, 0, 0), (0, 272, 0), (0, 0, 0)))
    assert corner_error(estimate(ldr[1], ldr[0], 2.0), W, 400, 28) < 1


def test_a_rim_in_a_flat_picture_shows_nothing():
    grey = np.full((40, 50), 0.5, np.float32)
    grey[:, :20] = np.nan
    assert np.isnan(normalise(grey)[:, :20]).all() and np.abs(normalise(grey)[:, 20:]).max() < 1e-4


@pytest.mark.parametrize("curve", ["real camera", "sigmoid"])
def test_the_curve_is_found_in_what_the_frames_show(curve):
    ldr, ev = test_light.bracket(curve)
    light = prepare(with_rims(ldr, ((60, 0, 0), (30, 0, 0), (0, 60, 0))), ev, PrepareConfig(flow=False)).light
    assert np.median(test_light.off(light, curve)) < 0.06


def test_a_reference_is_filled_from_the_long_frame_or_where_that_is_white_from_the_short_one():
    ldr = torch.stack([torch.full((3, 4, 6), value) for value in (0.2, 0.5, 0.8)])
    ldr[1, :, :, :4] = torch.nan
    ldr[2, :, :, 1:3], ldr[0, :, :, 2], ldr[2, :, :, 3] = 1, torch.nan, torch.nan
    reference = filled_reference(ldr, EV, torch.eye(3).repeat(3, 1, 1))[0, 0]
    from_long, from_short = 0.8 * 2 ** (-2 / 2.2), 0.2 * 2 ** (2 / 2.2)
    assert np.allclose(reference, [from_long, from_short, 0.5, from_short, 0.5, 0.5])      # where no frame shows it, the nearest pixel


def test_a_short_frame_that_does_not_exist_tells_nothing_of_the_reference():
    ldr = torch.stack([torch.full((3, 4, 6), value) for value in (0.0, 0.5, 1.0)])
    ldr[1, :, :, :2] = torch.nan
    assert (filled_reference(ldr, EV, torch.eye(3).repeat(3, 1, 1)) == 0.5).all()


def test_a_frame_is_read_only_where_all_pixels_around_are_seen():
    frame, reference = torch.full((3, 20, 30), 0.6), torch.full((3, 20, 30), 0.5)
    frame[:, :, :10] = torch.nan
    moved = warp(frame, homography(20, 30, (2.5, 0.0)), reference, 1.0)[0, 10]
    exposed = 0.5 * 2 ** (-1 / 2.2)
    assert np.allclose(moved[:8], exposed) and np.allclose(moved[8:27], 0.6) and np.allclose(moved[28:], exposed)


def test_the_nearest_pixel_that_is_seen_stands_for_one_that_is_not():
    planes = np.full((2, 3, 5), np.nan, np.float32)
    planes[:, 1, 1], planes[:, 1, 4] = (3, 5), (7, 9)
    assert with_nearest(planes)[0].tolist() == [[3, 3, 3, 7, 7]] * 3 and with_nearest(planes)[1, 0].tolist() == [5, 5, 5, 9, 9]
    assert np.isnan(with_nearest(planes * np.nan)).all()
