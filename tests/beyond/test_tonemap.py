"""tonemap.py: the fusion against values computed by hand, what a good picture needs, and large images."""

import cv2
import numpy as np
import pytest

from beyond import tonemap
from beyond.tonemap import exposures, fuse, picture


def window_and_room(size=(120, 180), stops=8):
    """Makes a dark room with a bright window, both with a texture of a factor of 2. Returns: (H, W, 3) radiance, mask of the window."""
    y, x = np.mgrid[:size[0], :size[1]]
    texture = np.where((x // 6 + y // 6) % 2, 1.0, 0.5)
    window = (x > size[1] // 3) & (x < 2 * size[1] // 3) & (y > size[0] // 4) & (y < 3 * size[0] // 4)
    return ((texture * np.where(window, 1.0, 2.0 ** -stops))[..., None] * [1, 0.9, 0.8]).astype(np.float32), window


@pytest.mark.parametrize("large", [16 * 16, 8 * 8])
def test_two_exposures_of_one_tone_are_fused_with_weights_computed_by_hand(large, monkeypatch):
    monkeypatch.setattr(tonemap, "LARGE", large)
    codes = np.round(255 * np.array([0.05, 0.5]) ** (1 / 2.2)) / 255                # 0.255 and 0.729
    weights = np.exp(-(codes - 0.5) ** 2 / (2 * 0.2 ** 2)) ** 3                     # Mertens et al., Sec. 3.1: a product over three channels
    assert np.allclose(weights, [0.105, 0.139], atol=2e-3)
    frames = [np.full((16, 16, 3), round(255 * code), np.uint8) for code in codes]
    assert np.allclose(fuse(frames, frames[0].shape), (weights * codes).sum() / weights.sum(), atol=1e-3)


def test_the_shortest_exposure_shows_the_brightest_at_half_and_the_longest_the_geometric_mean_a_stop_above_white():
    hdr = np.full((64, 64, 3), 2.0, np.float32)
    hdr[:, :32] = 1 / 2
    factors = exposures(hdr)
    assert np.isclose(factors[0], 0.5 / 2) and np.isclose(factors[-1], 2 / 1, rtol=1e-2) and len(factors) == 3      # 3 stops in steps of 2 at most


def test_room_and_window_both_show_their_texture_where_one_exposure_shows_only_one():
    hdr, window = window_and_room()
    shown = picture(hdr).astype(float).mean(axis=2)
    for region in (cv2.erode(window.astype(np.uint8), np.ones((9, 9))) > 0, cv2.dilate(window.astype(np.uint8), np.ones((9, 9))) == 0):
        dark, bright = np.quantile(shown[region], [0.1, 0.9])
        assert 15 < dark < bright - 15 and bright < 252
    for_window, for_room = (np.rint(255 * np.clip(exposed, 0, 1) ** (1 / 2.2)).mean(axis=2) for exposed in (hdr, hdr * 2 ** 8))
    assert np.ptp(for_window[~window]) < 8 and for_room[window].min() == 255


def test_the_unit_of_radiance_does_not_matter_and_grey_stays_grey():
    hdr, _ = window_and_room()
    assert np.abs(picture(hdr).astype(int) - picture(1000 * hdr)).max() <= 1
    grey = picture(hdr[..., :1].repeat(3, axis=2)).astype(int)
    assert np.ptp(grey, axis=2).max() <= 1 and grey.std() > 30


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 200)])
@pytest.mark.parametrize("level", [0.0, 1e-30, 1.0])
def test_an_image_without_contrast_or_of_a_few_pixels_is_shown_too(shape, level):
    shown = picture(np.full((*shape, 3), level, np.float32))
    assert shown.shape == (*shape, 3) and (shown == shown[0, 0]).all() and (shown[0, 0, 0] > 100) == (level == 1)


@pytest.mark.parametrize("levels", [1, 2])
def test_a_large_image_looks_as_if_it_had_been_fused_at_full_size(levels, monkeypatch):
    hdr, _ = window_and_room((241, 362), stops=6)
    hdr[20:220:12, 10:350:12] *= 60                         # lamps of one pixel
    whole = picture(hdr).astype(float)
    monkeypatch.setattr(tonemap, "LARGE", 241 * 362 // 3 ** levels)
    shown, lamps = picture(hdr).astype(float), hdr[..., 0] > 20 * np.median(hdr)
    assert np.sqrt(((shown - whole) ** 2).mean()) < 4 and abs(shown - whole)[lamps].mean() < 4 and whole[lamps].mean() > whole.mean() + 40
