"""tonemap.py: the fusion against values computed by hand, what a good picture needs, and large images."""

import cv2
import numpy as np
import pytest

from beyond import tonemap
from beyond.tonemap import enlarge, exposures, fuse, picture


def window_and_room(size=(120, 180), stops=8):
    """Makes a dark room with a bright window, both with a texture of a factor of 2. Returns: (H, W, 3) radiance, mask of the window."""
    y, x = np.mgrid[:size[0], :size[1]]
    texture = np.where((x // 6 + y // 6) % 2, 1.0, 0.5)
    window = (x > size[1] // 3) & (x < 2 * size[1] // 3) & (y > size[0] // 4) & (y < 3 * size[0] // 4)
    return ((texture * np.where(window, 1.0, 2.0 ** -stops))[..., None] * [1, 0.9, 0.8]).astype(np.float32), window


def test_two_exposures_of_one_tone_are_fused_with_weights_computed_by_hand():
    codes = np.round(255 * np.array([0.05, 0.5]) ** (1 / 2.2)) / 255                # 0.255 and 0.729
    weights = np.exp(-(codes - 0.5) ** 2 / (2 * 0.2 ** 2)) ** 3                     # Mertens et al., Sec. 3.1: a product over three channels
    assert np.allclose(weights, [0.105, 0.139], atol=2e-3)
    assert np.allclose(fuse(np.ones((16, 16, 3), np.float32), [0.05, 0.5]), (weights * codes).sum() / weights.sum(), atol=1e-3)


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


def test_a_large_image_looks_as_if_it_had_been_fused_at_full_size(monkeypatch):
    hdr, window = window_and_room((240, 360), stops=6)
    hdr = cv2.GaussianBlur(hdr, (0, 0), 1.5)                # an edge of a photograph is 2 or 3 pixels wide
    whole, sizes, fuse_of = picture(hdr).astype(float), [], tonemap.fuse
    monkeypatch.setattr(tonemap, "fuse", lambda coded, factors: sizes.append(coded.shape[:2]) or fuse_of(coded, factors))
    monkeypatch.setattr(tonemap, "LARGE", 240 * 360 // 4)
    shown = picture(hdr).astype(float)
    by_interpolation = cv2.resize(fuse_of(cv2.resize(cv2.pow(hdr, 1 / 2.2), (180, 120), interpolation=cv2.INTER_AREA), exposures(hdr)), (360, 240)) * 255
    error = lambda image: float(np.sqrt(((image - whole) ** 2).mean()))
    assert sizes == [(120, 180)] and error(shown) < 4 and error(shown) < error(by_interpolation) / 2


def test_what_is_linear_in_the_small_image_is_exact_in_the_large_one():
    coded = np.random.default_rng(0).uniform(0, 1, (60, 80, 3)).astype(np.float32)
    small = cv2.resize(coded, (40, 30), interpolation=cv2.INTER_AREA)
    assert np.allclose(enlarge(0.3 * small + 0.2, small, coded), 0.3 * coded + 0.2, atol=2e-3)
