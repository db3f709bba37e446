"""The camera's response curve: known curves are found, whatever moves; gamma 2.2 is left alone; frames come out in gamma 2.2."""

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf

from brackets import light as module
from brackets.light import comparagram, estimate_response, recode
from brackets.prepare import UNPREPARED, PrepareConfig, prepare
from brackets.register import register, warp
from synthetic.camera import respond

EV = torch.tensor([0.0, 2.0, 4.0])


def bracket(curve, ev=EV, noise=0.0, size=160, seed=0, moving=True):
    """Three exposures of a smooth scene of six stops, through a curve; a box of other content stands elsewhere in each."""
    generator = torch.Generator().manual_seed(seed)
    scene = nnf.interpolate(torch.randn(1, 3, 12, 12, generator=generator), size=(size, size), mode="bicubic")[0]
    scene = torch.exp2(-4.5 + 2.0 * scene)
    frames = scene.repeat(3, 1, 1, 1)
    if moving:
        for i, left in enumerate((10, 60, 110)):
            frames[i, :, 40:90, left:left + 45] = torch.tensor([0.02, 0.2, 0.05])[:, None, None]
    light = frames * torch.exp2(ev)[:, None, None, None]
    light = light + noise * light.sqrt() * torch.randn(light.shape, generator=generator)
    return curve(light.clamp(0, 1))


def gamma(exponent):
    return lambda light: light ** (1 / exponent)


def sRGB(light):
    return torch.from_numpy(respond(light.numpy(), 0.0))


def s_curve(light):
    """A camera's picture style: gamma 2.2 and then more contrast, 0.25 off at most."""
    v = light ** (1 / 2.2)
    return v + 0.9 * v ** 1.5 * (1 - v) * (2 * v - 0.35)


CURVES = {"gamma 1.8": gamma(1.8), "gamma 2.6": gamma(2.6), "sRGB": sRGB, "S": s_curve}


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("name", CURVES)
def test_frames_of_a_known_curve_are_recoded_to_gamma_2_2(name, noise):
    ldr = bracket(CURVES[name], noise=noise)
    d = estimate_response(ldr, EV)
    assert d is not None and d.shape == (module.KNOTS,) and abs(d[-1]) < 1e-9
    light = torch.logspace(-1.7, 0, 200)
    v = CURVES[name](light)
    off, left = ((frame / light ** (1 / 2.2)).log()[v < 0.9] for frame in (v, recode(v[None, None], d)[0, 0]))
    assert off.std() > 0.03 and left.std() < 0.01
    if name != "S":                                             # its shoulder, above the brightest values that tell something, hides the scale
        assert left.abs().max() < 0.05


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_gamma_2_2_is_left_alone_and_so_is_what_no_curve_explains(seed, noise):
    ldr = bracket(gamma(2.2), noise=noise, seed=seed)
    assert estimate_response(ldr, EV) is None
    assert estimate_response(ldr, EV + torch.tensor([0.0, 0.03, -0.03])) is None              # exposures are not exact
    other = torch.stack([ldr[0].flip(1), ldr[1], ldr[2].flip(2)])
    assert estimate_response(other, EV) is None                                                # three scenes
    assert estimate_response(torch.full((3, 3, 64, 64), 0.5), EV) is None                      # nothing to see
    for side in (8, 3):
        assert estimate_response(torch.rand(3, 3, side, side), EV) is None                     # too few pixels
    for value in (0.0, 1.0):
        assert estimate_response(torch.full((3, 3, 64, 64), value), EV) is None


def test_a_black_border_of_one_frame_tells_nothing():
    ldr = bracket(sRGB)
    whole = estimate_response(ldr, EV)
    ldr[2, :, :, :16] = 0
    assert np.abs(estimate_response(ldr, EV) - whole)[3:].max() < 0.02
    ldr[2] = 0
    assert estimate_response(ldr, EV) is None or np.isfinite(estimate_response(ldr, EV)).all()


def test_the_comparagram_holds_the_values_that_belong_together_and_no_clipped_ones():
    ldr = bracket(gamma(2.2))
    rows = comparagram(ldr[0], ldr[1])
    assert len(rows) > 10 and rows[:, 1].max() < module.WHITE and rows[:, 0].min() > module.BLACK and rows[:, 2].max() <= 1
    ratios = rows[:, 1] / rows[:, 0]                                                           # though a seventh of the pixels shows something else
    assert (np.abs(ratios - 2 ** (2 / 2.2)) < 0.01).mean() > 0.9


def test_recoding_is_phi_at_every_value_monotonic_and_keeps_black_and_white():
    v = np.linspace(0, 1, module.KNOTS)
    d = 0.3 * (v - 1) + 0.2 * np.sin(3 * np.pi * v) * (1 - v)
    values = torch.linspace(0, 1, 1001)[None].repeat(2, 1)
    out = recode(values[None], d)[0]
    assert torch.equal(out[0], out[1]) and out.dtype == torch.float32
    assert out[0, 0] == 0 and out[0, -1] == 1 and (out[0].diff() > 0).all()
    assert np.abs(out[0].numpy() - values[0].numpy() * np.exp(np.interp(values[0].numpy(), v, d))).max() < 1e-4


def test_recoding_gives_the_same_values_whatever_the_memory_layout():
    d = np.linspace(0.2, 0, module.KNOTS)
    ldr = bracket(gamma(2.2), size=40)
    expected = torch.from_numpy(ldr.numpy() * np.exp(np.interp(ldr.numpy(), np.linspace(0, 1, module.KNOTS), d)))
    for given in (ldr, ldr.contiguous(memory_format=torch.channels_last), ldr.transpose(2, 3).contiguous().transpose(2, 3), ldr.flip(2)[:, :, 10:30].flip(2)):
        out = recode(given, d)
        assert out.shape == given.shape and out.is_contiguous()
        assert torch.equal(out, recode(given.contiguous(), d))
    assert (recode(ldr.contiguous(memory_format=torch.channels_last), d) - expected).abs().max() < 1e-4


def test_each_step_can_be_left_out():
    still = bracket(sRGB, moving=False)
    moved = still.clone()
    moved[0] = still[0].roll((3, 5), dims=(1, 2))
    both = prepare(moved, EV, PrepareConfig(flow=False))
    assert both.curve is not None and (both.homographies[0] != torch.eye(3)).any() and not torch.equal(both.ldr, moved)
    same = prepare(moved, EV, UNPREPARED)
    assert same.ldr is moved and same.curve is None and (same.homographies == torch.eye(3)).all()
    registered = prepare(moved, EV, PrepareConfig(response=False, flow=False))
    assert registered.curve is None and torch.equal(registered.ldr, register(moved, EV)[0])
    recoded = recode(moved, estimate_response(registered.ldr, EV))
    assert torch.equal(both.ldr[1], recoded[1]) and not torch.equal(both.ldr[1], moved[1])     # the reference, too, is recoded
    assert torch.equal(both.ldr[0], warp(recoded[0], register(moved, EV)[1][0], recoded[1], 2.0))
    with pytest.raises(ValueError, match="give one bracket"):
        prepare(moved[:2], EV, PrepareConfig(register=False, flow=False))


def test_beyond_a_recoded_frame_is_the_recoded_reference():
    wide = bracket(s_curve, moving=False, size=200)
    ldr = torch.stack([wide[0, :, 20:180, :160], wide[1, :, 20:180, 20:180], wide[2, :, 20:180, 20:180]])
    prepared = prepare(ldr, EV, PrepareConfig(flow=False))
    assert prepared.curve is not None and abs(prepared.homographies[0][0, 2] - 20) < 0.5
    rim, reference = (frame[:, 10:150, 145:155] for frame in prepared.ldr[:2])
    fits = (rim - reference * 2 ** (-2 / 2.2)).abs()[reference < 0.9]
    assert fits.max() < 1e-3
