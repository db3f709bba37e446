"""The shipped weights on brackets of a static scene, from the camera's frames to the result: brackets that are exact and brackets that are not."""

import numpy as np
import pytest
import torch

from beyond.tiles import reconstruct_in_tiles
from beyond.weights import SHIPPED, load_weights
from brackets.prepare import prepare
from data import T, psnr


@pytest.fixture(scope="module")
def model():
    return load_weights(SHIPPED)


def room(height=160, width=240):
    """Makes (3, H, W) radiance over three decades: smooth shades on dim walls, and a bright window."""
    y, x = np.mgrid[0:height, 0:width] / height
    shades = np.stack([np.sin(9 * x + 2 * y + k) * np.sin(7 * y - 4 * x * y + 2 * k) + 0.3 * np.sin(40 * x + 23 * y + k) for k in range(3)])
    walls, outside = 0.01 * 10 ** (0.7 * shades), 0.5 + 0.3 * shades
    return np.where((0.8 < x) & (x < 1.3) & (0.2 < y) & (y < 0.6), outside, walls).clip(0, 1)


def s_curve(u):
    """Applies a camera's curve with more contrast than gamma 2.2: deeper shadows, brighter mid-tones. u: what gamma 2.2 writes."""
    return 0.4 * u + 0.6 * u ** 2 * (3 - 2 * u)


def result(model, stated, true, curve=lambda u: u, white=255, seed=0):
    """Returns PSNR-mu and PSNR-L of the result for an 8-bit bracket. stated, true: step, EV; white: code at which the frames clip."""
    hdr, rng, frames = room(), np.random.default_rng(seed), []
    for k in range(3):
        light = hdr * 2.0 ** (k * true)
        light = (light + rng.normal(size=light.shape) * np.sqrt(2e-5 * light + 1e-7)).clip(0, 1)
        frames.append((curve(light ** (1 / 2.2)) * 255).clip(0, white).round() / 255)
    prepared = prepare(torch.from_numpy(np.stack(frames)).float(), torch.tensor([0.0, stated, 2 * stated]))
    hdr_hat = reconstruct_in_tiles(model, prepared.ldr[None], prepared.ev[None], generator=torch.Generator().manual_seed(0))[0]
    truth = torch.from_numpy(hdr).float()
    return psnr(T(hdr_hat), T(truth)), psnr(hdr_hat, truth)


@pytest.mark.parametrize(("true", "least"), [(2.0, 50), (1.9, 40), (1.8, 50), (1.5, 50)])        # an error of 0.1 EV is left alone
def test_exposures_may_be_wrong(true, least, model):
    assert result(model, 2.0, true)[0] > least


@pytest.mark.parametrize("step", [2.0, 3.0])
def test_frames_may_clip_early(step, model):
    psnr_mu, psnr_l = result(model, step, step, white=248)
    assert psnr_mu > 48 and psnr_l > 39


@pytest.mark.parametrize(("step", "least"), [(2.0, 36), (3.0, 44)])
def test_the_camera_may_have_a_curve_of_its_own(step, least, model):
    assert result(model, step, step, s_curve)[0] > least
