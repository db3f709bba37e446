"""flow.py: alignment finds known motion at different exposures, and brings objects to where the reference shows them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from torch.utils.data import DataLoader

from brackets import flow
from brackets.flow import find_flow, follow_flow, sample_along, still_noise
from brackets.light import Light, apply
from brackets.register import warp
from synthetic.dataset import SyntheticBrackets, SyntheticConfig


def texture(height, width, seed=0):
    """Makes a smooth random picture, (3, height, width) in [0, 1]."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    for _ in range(3):
        noise = nnf.avg_pool2d(noise, 5, 1, 2, count_include_pad=False)
    return ((noise[0] - 0.5) * 8 + 0.5).clamp(0.02, 1)


def bracket(frames, ev):
    """Codes radiances (3, 3, H, W) as the exposures show them."""
    return (frames * 2 ** ev[:, None, None, None]).clamp(0, 1) ** (1 / 2.2)


EV = torch.tensor([0.0, 2.0, 4.0])


@pytest.mark.parametrize("first, second", [(0, 1), (1, 0), (1, 2)])
def test_flow_is_the_motion_whatever_the_exposures(first, second):
    world = texture(140, 170) ** 2.2 / 4
    reference, frame = world[:, 20:120, 20:150], world[:, 17:117, 25:155]       # what is at (x, y) is at (x - 5, y + 3) in the frame
    ldr = bracket(torch.stack([reference, frame, frame]), EV[[first, second, second]])
    u = find_flow(ldr[0], ldr[1], float(EV[first] - EV[second]))
    assert u.shape == (2, 100, 130) and u.dtype == torch.float32
    error = (u - torch.tensor([-5.0, 3.0])[:, None, None])[:, 12:-12, 12:-12].norm(dim=0)
    assert error.median() < 0.15 and (error < 1).float().mean() > 0.97


def test_flow_of_a_large_photograph_is_found_in_a_smaller_one_and_counts_its_own_pixels(monkeypatch):
    world = nnf.interpolate(texture(100, 120)[None], scale_factor=3, mode="bicubic")[0].clamp(0, 1)
    reference, frame = world[:, 20:271, 20:320], world[:, 14:265, 29:329]       # 251 rows: not a multiple of the factor
    monkeypatch.setattr(flow, "LARGEST", 251 * 300 // 9 + 1)
    sizes, create = [], flow.cv2.DISOpticalFlow_create
    class Spy:
        def __init__(self, preset):
            self.dis = create(preset)
        def __getattr__(self, name):
            return getattr(self.dis, name)
        def calc(self, a, b, u):
            sizes.append(a.shape)
            return self.dis.calc(a, b, u)
    monkeypatch.setattr(flow.cv2, "DISOpticalFlow_create", Spy)
    u = find_flow(reference, frame, 0.0)
    assert sizes == [(84, 100)] * 5 and u.shape == (2, 251, 300)
    assert (u - torch.tensor([-9.0, 6.0])[:, None, None])[:, 30:-30, 30:-30].norm(dim=0).median() < 0.4


def test_sampling_moves_whole_pixels_exactly_keeps_white_and_leaves_what_the_flow_carries_beyond_the_frame():
    frame = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    frame[:, 10:20, 10:20] = 1
    moved = sample_along(frame, torch.tensor([4.0, -2.0])[:, None, None].expand(2, 40, 50))
    assert (moved[:, 2:, :46] - frame[:, :38, 4:]).abs().max() < 1e-4
    assert torch.equal(moved[:, :2], frame[:, :2]) and torch.equal(moved[:, :, 46:], frame[:, :, 46:])
    half = sample_along(frame, torch.full((2, 40, 50), 0.5))
    assert (half[:, 10:19, 10:19] == 1).all() and half.min() >= 0 and half.max() <= 1


def test_what_moved_comes_to_where_the_reference_shows_it_saturated_or_not():
    """A bright ball, white in the reference, is elsewhere in the short frame; after alignment its radiance is in the right place."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    def world(cx):
        inside = ((x - cx) ** 2 + (y - 64) ** 2 < 20 ** 2).float()
        return inside * (0.6 + 0.2 * ((x - cx) / 20)) * torch.tensor([1.0, 0.8, 0.6])[:, None, None] + (1 - inside) * 0.1 * texture(128, 128) ** 2.2
    frames = torch.stack([world(52.0), world(64.0), world(76.0)])
    ldr = bracket(frames, EV)
    assert (ldr[1, :, 64, 64] == 1).all()
    aligned = follow_flow(ldr, EV)
    assert torch.equal(aligned[1], ldr[1]) and aligned.shape == ldr.shape
    ball = ((x - 64) ** 2 + (y - 64) ** 2 < 20 ** 2)
    error = [((short ** 2.2 - frames[1])[:, ball] ** 2).mean().item() for short in (ldr[0], aligned[0])]
    assert error[1] < error[0] / 10


def test_what_moves_in_colour_alone_is_found():
    """A red square on a green background of the same grey moves by 9 pixels: the mean of the channels is flat."""
    def picture(left):
        image = torch.tensor([0.2, 0.6, 0.4])[:, None, None] * torch.ones(3, 96, 96)
        image[:, 30:60, left:left + 30] = torch.tensor([0.6, 0.2, 0.4])[:, None, None]
        return image
    reference, frame = picture(30), picture(39)
    assert (reference.mean(dim=0) - frame.mean(dim=0)).abs().max() < 1e-6
    aligned = sample_along(frame, find_flow(reference, frame, 0.0))
    assert (frame - reference).abs().mean() > 4 * (aligned - reference).abs().mean()


def test_the_reference_takes_the_place_of_a_long_frame_that_contradicts_it():
    """Only the long frame lacks a dark disc, so flow cannot find it there."""
    world = (0.02 + 0.1 * texture(128, 128)) ** 1.5
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    disc = (x - 64) ** 2 + (y - 64) ** 2 < 20 ** 2
    there = torch.where(disc, torch.tensor([0.02, 0.002, 0.002])[:, None, None], world)
    ldr = bracket(torch.stack([there, there, world]), EV)
    aligned = follow_flow(ldr, EV)
    expected = bracket(torch.stack([there] * 3), EV)[2]
    inner = (x - 64) ** 2 + (y - 64) ** 2 < 14 ** 2
    assert (ldr[2] - expected)[:, inner].abs().mean() > 0.2
    assert (aligned[2] - expected)[:, inner].abs().mean() < 0.01
    assert (aligned[2] - ldr[2])[:, 8:30, 8:120].abs().max() < 0.1              # where they agree, the long frame stays
    short = follow_flow(bracket(torch.stack([world, there, there]), EV), EV)[0]
    assert (short - bracket(torch.stack([there] * 3), EV)[0])[:, inner].abs().mean() > 0.05          # the short frame keeps what it shows
    noisy = ldr.clone()
    noisy[1] = (noisy[1] + 0.05 * torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert (follow_flow(noisy, EV)[2] - ldr[2])[:, 8:30, 8:120].abs().mean() < 0.02        # noise is not a contradiction


def test_a_large_long_frame_does_not_keep_small_lights_where_the_reference_shows_none(monkeypatch):
    y, x = torch.meshgrid(torch.arange(180.0), torch.arange(240.0), indexing="ij")
    dark = (0.0015 * (1 + 0.5 * torch.sin(x / 7) * torch.sin(y / 11))).expand(3, 180, 240)
    frames = dark.repeat(3, 1, 1, 1)
    for i, frame in enumerate(frames):
        for n in range(5):                                                      # five lights of 8x8 pixels, each moves by 9
            frame[:, 30 * n + 20:30 * n + 28, 36 * n + 20 + 9 * i:36 * n + 28 + 9 * i] = 0.012
    ldr, here, there = bracket(frames, EV + EV / 2), *(frames[1:, 0] > 0.01)
    for k in (2, 3, 4):
        monkeypatch.setattr(flow, "LARGEST", 180 * 240 // k ** 2 + 1)
        long = follow_flow(ldr, EV + EV / 2)[2] ** 2.2 / 64
        assert long[:, there & ~here].mean() < 1.1 * dark[:, there & ~here].mean() and (long - dark)[:, :, :15].abs().max() < 1e-3


LIGHT = Light(torch.tensor([0.0, 2.1, 4.0]), np.eye(13)[0] * 0.1, 1.0, 0.0, np.zeros((3, 3)), 0.0)


@pytest.mark.parametrize("light, largest", [(None, 10 ** 6), (LIGHT, 10 ** 6), (None, 4000)])
def test_a_bracket_as_taken_comes_to_where_the_registered_one_does(light, largest, monkeypatch):
    """Only the camera moved: along homography and flow, the long frame shows what register.warp shows, beyond its rim, too."""
    monkeypatch.setattr(flow, "LARGEST", largest)                               # 4000 pixels: flow is computed in images of half the size
    world = texture(140, 170) ** 2.2 / 40
    ldr = bracket(torch.stack([world[:, 20:120, 20:150]] * 2 + [world[:, 14:114, 29:159]]), EV)
    shift = torch.tensor([[1.0, 0, -9], [0, 1, 6], [0, 0, 1]], dtype=torch.float64)
    homographies = torch.stack([torch.eye(3).double()] * 2 + [shift])
    coded, ev = (ldr, EV) if light is None else apply(ldr, light)
    expected = warp(coded[2], shift, coded[1], float(ev[1] - ev[2]))
    aligned = follow_flow(ldr, EV, homographies, light)
    assert torch.equal(aligned[1], coded[1])
    assert (aligned[2] - expected).abs().mean() < 0.01 < (coded[2] - expected).abs().mean()


def test_brackets_too_small_for_flow_stay_as_they_are():
    ldr = torch.rand(3, 3, 31, 64)
    assert torch.equal(follow_flow(ldr, EV), ldr)
    assert not torch.equal(follow_flow(ldr.repeat(1, 1, 2, 1), EV), ldr.repeat(1, 1, 2, 1))


def test_workers_of_a_loader_find_the_flow_that_their_parent_finds_in_one_thread_each():
    assert flow.cv2.getNumThreads() == 1
    dataset = SyntheticBrackets(64, seed=3, config=SyntheticConfig(followed=1.0), length=4)
    expected = [dataset[index]["ldr"] for index in range(4)]
    for item, ldr in zip(DataLoader(dataset, batch_size=None, num_workers=2, timeout=60), expected, strict=True):
        assert torch.equal(item["ldr"], ldr)


def test_the_noise_of_still_frames_is_the_deviation_of_their_differences():
    ldr, noise = bracket(torch.stack([texture(100, 120) ** 2.2 / 4] * 3), EV[[0, 0, 0]]), torch.randn(100, 120, generator=torch.Generator().manual_seed(0))
    assert still_noise(ldr, EV[[0, 0, 0]]) == 0
    ldr[2] += 0.004 * noise
    assert still_noise(ldr, EV[[0, 0, 0]]) == pytest.approx(0.004, rel=0.05)


def test_what_saturates_does_not_move():
    ldr = bracket(torch.stack([texture(100, 120) ** 2.2 / 4] * 3), EV)
    assert (ldr[2] == 1).float().mean() > 0.3 and still_noise(ldr, EV) < 1e-6


def test_a_large_pair_agrees_at_fine_highlights(monkeypatch):
    monkeypatch.setattr(flow, "LARGEST", 100 * 120 // 9)
    ldr = bracket(torch.rand(1, 3, 101, 121, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1, 1) ** 4, EV)
    for i in (0, 2):
        pair, k = flow.shrunk_pair(ldr[1], ldr[i], float(EV[1] - EV[i]), torch.eye(3, dtype=torch.float64))
        assert k > 2 and pair.shape == (2, 3, -(-101 // k), -(-121 // k)) and (pair[0] - pair[1]).abs().max() < 1e-5


def test_a_large_still_bracket_with_fine_highlights_keeps_its_noise_and_a_large_moving_one_is_noticed(monkeypatch):
    monkeypatch.setattr(flow, "LARGEST", 100 * 120 // 9)
    ldr = bracket(torch.rand(1, 3, 100, 120, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1, 1) ** 4, EV)
    assert still_noise(ldr, EV) < 1e-6
    ldr[2] += 0.03 * torch.randn(ldr[2].shape, generator=torch.Generator().manual_seed(1)) * (ldr[2] < 1)
    assert still_noise(ldr, EV) == pytest.approx(0.03 * float((ldr[2] < 1).float().mean()) ** 0.5, rel=0.1)
    ldr[0] = ldr[0].roll(6, 2)
    assert still_noise(ldr, EV) == math.inf


@pytest.mark.parametrize("i", [0, 1, 2])
def test_a_small_thing_that_moves_and_a_step_of_the_camera_are_noticed_in_any_frame(i):
    ldr = bracket(torch.stack([0.01 + 0.02 * texture(100, 120)] * 3), EV)
    assert still_noise(ldr, EV) < 1e-6
    thing, step = ldr.clone(), ldr.clone()
    thing[i, :, 40:48, 60:68] *= 1.2
    step[i] = step[i].roll(2, 2)
    assert still_noise(thing, EV) == still_noise(step, EV) == math.inf


@pytest.mark.parametrize("largest", [60 * 60, 60 * 60 // 16])
@pytest.mark.parametrize("i", [0, 1, 2])
def test_a_star_that_moves_is_noticed(i, largest, monkeypatch):
    monkeypatch.setattr(flow, "LARGEST", largest)
    sky = torch.full((3, 3, 60, 60), 0.005)
    sky[:, :, 30:32, 30:32] = 0.05
    assert still_noise(bracket(sky, EV), EV) < 1e-6
    sky[i] = sky[i].roll(3, 2)
    assert still_noise(bracket(sky, EV), EV) == math.inf
