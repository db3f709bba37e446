"""light.py: known curves, gains, clip and black levels are found, whatever moves; a bracket that is already right stays the same, bit for bit."""

import numpy as np
import pytest
import torch

from brackets.curve import BASIS, CURVE, GRID, KNOTS, compete, phi, residual
from brackets.light import Light, apply, comparagram, estimate, estimate_exposures, find_clip, implausible, in_words
from brackets.light import _blocks as blocks
from brackets.prepare import prepare
from brackets.register import find_motion
from synthetic.camera import jpeg, respond

EV = torch.tensor([0.0, 2.0, 4.0])
# ln(phi(v) / v) of a real camera's JPEGs at v = 0, 1/16 .. 1
REAL = np.array([1.93, .77, .41, .23, .10, 0, -.09, -.14, -.18, -.19, -.19, -.18, -.16, -.13, -.09, -.04, 0])


def scene(height=240, width=320, seed=0):
    """Makes linear radiance (3, H, W) in [0, 1]: a dim, textured room and a bright, textured window; smooth shading over three decades."""
    rng, y, x = np.random.default_rng(seed), *np.mgrid[0:height, 0:width]
    waves = sum(np.sin(2 * np.pi * (rng.uniform(-n, n, 3) * x[..., None] / width + rng.uniform(-n, n, 3) * y[..., None] / height) + rng.uniform(0, 6, 3)) / n
                for n in (1, 2, 3, 5, 8, 13))
    t = (waves - waves.min()) / (waves.max() - waves.min())
    window = ((x > .55 * width) & (x < .9 * width) & (y > .15 * height) & (y < .6 * height))[..., None]
    return np.clip(np.where(window, .15 + .8 * t, .0015 * 40 ** t * (.4 + y[..., None] / height)), 0, 1).transpose(2, 0, 1)


def real_camera(light):
    v = np.linspace(0, 1, 4001)
    coded = np.maximum.accumulate(v * np.exp(np.interp(v, np.linspace(0, 1, 17), REAL))) + 1e-9 * np.arange(4001)
    return np.interp(light ** (1 / 2.2), coded / coded[-1], v)


def sigmoid(light):
    """A picture style: sRGB after a curve with a toe and a shoulder."""
    return respond(np.float32((light ** 1.3 / (light ** 1.3 + .25 ** 1.3)) * (1 + .25 ** 1.3)), 0.0)


CURVES = {"gamma 2.2": lambda light: light ** (1 / 2.2), "sRGB": lambda light: respond(np.float32(light), 0.0), "real camera": real_camera, "sigmoid": sigmoid}


def bracket(curve="gamma 2.2", steps=(2.0, 2.0), noise=0.0, black=0.0, clip=1.0, bits=8, quality=0, moving=False, brightness=1.0, colour=None, seed=0,
            size=(240, 320)):
    """Makes three frames (3, 3, H, W) as a camera writes them, and their true stops."""
    rng, H, ev = np.random.default_rng(seed), scene(*size, seed=seed) * brightness, np.cumsum([0, *steps])
    frames = []
    for i, stops in enumerate(ev):
        shown = H.copy()
        if moving:                                              # a tenth of the pixels shows something else in each frame
            shown[:, 30:110, 40 + 70 * i:140 + 70 * i] = H[:, 120:200, 60:160] * (1.5, .6, 2)[i]
        light = shown * 2.0 ** stops * 2.0 ** np.reshape((colour or np.zeros((3, 3)))[i], (3, 1, 1))
        light = np.clip(light + rng.normal(size=light.shape) * np.sqrt(noise * (light + .005)), 0, 1)
        coded = np.minimum(CURVES[curve](black + (1 - black) * light), clip)
        frames.append(jpeg(np.float32(coded), quality, "4:2:0") if quality else np.rint(coded * (2 ** bits - 1)) / (2 ** bits - 1))
    return torch.from_numpy(np.float32(frames)), torch.from_numpy(np.float32(ev))


def off(light, curve, black=0.0):
    """Returns the stops by which the light of coded values from 0.06 up is wrong, without their common scale; light up to 0.9."""
    true = np.geomspace(.002, .9, 80)
    true = true[CURVES[curve](true) > .06]
    v = CURVES[curve](black + (1 - black) * true)
    error = np.log2(np.maximum(phi(v, light.curve) ** 2.2 - light.black, 1e-9) / true)
    return np.abs(error - np.median(error))


@pytest.mark.parametrize("noise, quality", [(0, 0), (2e-4, 0), (2e-4, 85)])
@pytest.mark.parametrize("curve", ["sRGB", "real camera", "sigmoid"])
def test_a_known_curve_is_found_whatever_moves(curve, noise, quality):
    ldr, ev = bracket(curve, noise=noise, quality=quality, moving=True)
    light = estimate(ldr, ev)
    assert light.curve.any() and np.median(off(light, curve)) < 0.06 and np.quantile(off(light, curve), .9) < 0.3
    assert (light.ev - ev).abs().max() < 0.2
    assert np.median(off(Light(ev, 0 * light.curve, 1, 0, np.zeros((3, 3)), 0), curve)) > 0.06     # gamma 2.2 would have been worse


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("steps", [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0), (2.02, 1.97)])
@pytest.mark.parametrize("noise", [0, 2e-4, 2e-3])
def test_gamma_2_2_at_exposures_as_stated_is_left_alone(steps, bits, noise):
    ldr, _ = bracket(steps=steps, bits=bits, noise=noise, moving=True)
    assert estimate(ldr, np.cumsum([0, *np.round(steps)])) is None


@pytest.mark.parametrize("step", [2.0, 3.0])
def test_dark_frames_with_noise_and_a_black_level_are_not_recoded(step):
    for seed in range(3):
        ldr, ev = bracket(steps=(step, step), noise=6e-5, black=2e-5, brightness=.02, seed=seed)
        assert estimate(ldr, ev) is None


@pytest.mark.parametrize("true", [2.15, 1.8, 1.5])
def test_a_wrong_exposure_is_taken_for_one_and_not_for_a_curve(true):
    ldr, ev = bracket(steps=(true, true), bits=16, moving=True)
    light = estimate(ldr, EV)
    assert (light.ev - ev).abs().max() < 0.02 and not light.curve.any() and light.clip == 1 and light.black == 0
    same, corrected = apply(ldr, light)
    assert torch.equal(same, ldr) and torch.equal(corrected, light.ev)
    assert f"exposures +0, +{light.ev[1]:.3g}, +{light.ev[2]:.3g} EV (stated +0, +2, +4)" in in_words(light, EV)


def test_a_long_frame_that_is_white_leaves_the_gain_of_its_pair_alone():
    ldr, _ = bracket(steps=(1.5, 4.5), bits=16)
    ldr[2] = 1
    stated = torch.tensor([0.0, 2.0, 6.0])
    assert (estimate(ldr, stated).ev - torch.tensor([0.0, 1.5, 5.5])).abs().max() < 0.03


@pytest.mark.parametrize("count, gain", [(5, 0.0), (20, -1.5)])
def test_a_gain_needs_more_than_a_few_rows(count, gain):
    """Rows of gamma 2.2: the first pair is as stated, the second is 1.5 stops less."""
    rows = [(pair, 0, (2.0 ** -step * v ** 2.2) ** (1 / 2.2), v, 0.02) for pair, step, n in ((0, 2.0, 40), (1, 0.5, count)) for v in np.linspace(0.3, 0.9, n)]
    fits, preferred = compete(np.array(rows), np.full(len(rows), 2.0), 0.05, 2)
    assert preferred == 0 and fits[0][0][CURVE.stop:] == pytest.approx([0, gain], abs=0.01)


@pytest.mark.parametrize("rim", [0.0, 1.0])
def test_a_wrong_order_is_found_whatever_is_black_or_white_in_all_frames(rim):
    ldr, ev = bracket()
    ldr[:, :, :120] = rim
    with pytest.raises(ValueError, match="frame 2 is darker than frame 1"):
        estimate(ldr[[1, 0, 2]], ev)


def test_what_is_hard_to_believe_is_said():
    dark = Light(torch.tensor([0.0, 1.2, 3.2]), np.zeros(BASIS.shape[1]), 1.0, 0.025, np.zeros((3, 3)), 0.04)
    assert implausible(dark, EV) == ["the step between frames 1 and 2 is 0.8 EV less than stated", "black is at 2.5 % of white",
                                     "the frames contradict each other by 0.04 EV"]
    assert "Doubtful: the step" in in_words(dark, EV)
    assert implausible(Light(EV, np.zeros(BASIS.shape[1]), 0.97, 0.0, np.zeros((3, 3)), 0.01), EV) == []


def test_each_outer_frame_has_its_own_gain():
    ldr, ev = bracket(steps=(2.3, 1.8), noise=1e-4)
    assert (estimate(ldr, EV).ev - ev).abs().max() < 0.03


@pytest.mark.parametrize("quality", [0, 90])
@pytest.mark.parametrize("code", [240, 248, 252])
def test_the_clip_level_is_found_and_what_is_clipped_becomes_white(code, quality):
    ldr, ev = bracket(clip=code / 255, quality=quality)
    light = estimate(ldr, ev)
    assert abs(light.clip * 255 - code) < 0.6 and not light.curve.any() and (light.ev - ev).abs().max() < 0.01
    out, _ = apply(ldr, light)
    clipped, below = scene() * 16 > 1.02, ldr[2] < (code - 3) / 255
    assert (out[2][torch.from_numpy(clipped)] == 1).float().mean() > (0.9 if quality else 0.999)
    assert (out[2][below] - ldr[2][below]).abs().max() < 1e-3                       # the brightness stays
    assert f"clips at {code} of 255" in in_words(light, ev)


def test_a_static_bracket_that_clips_early_is_not_warped():
    """Before its clip level is known, the long frame seems to have moved by 0.4 pixels: what is white in it is not white in the reference."""
    ldr, ev = bracket(steps=(3.0, 3.0), clip=248 / 255, size=(320, 480))
    prepared = prepare(ldr, ev)
    assert abs(prepared.light.clip * 255 - 248) < 1.5 and torch.equal(prepared.homographies, torch.eye(3, dtype=torch.float64).repeat(3, 1, 1))
    assert not torch.equal(find_motion(ldr, ev), prepared.homographies)


def test_a_white_wall_is_no_clip_level():
    ldr, ev = bracket(bits=16)
    ldr[2].clamp_(max=0.97)
    ldr[2, :, :100] = 0.95
    ldr[1, :, :100] = 0.95 * 2 ** (-2 / 2.2)
    ldr[0, :, :100] = 0.95 * 2 ** (-4 / 2.2)
    assert abs(find_clip(blocks(ldr)) - 0.95) > 0.01


def test_a_smooth_sky_is_no_clip_level_even_where_the_shorter_frame_shows_something_else():
    ldr, _ = bracket(bits=16)
    ldr[1] = ldr[0]
    ldr[2] = (.84 + .145 * torch.linspace(0, 1, 320) ** .6).expand(3, 240, 320)             # the brighter, the more of it
    assert find_clip(blocks(ldr)) == 1


def test_recoding_gives_gamma_2_2_of_the_light_and_keeps_black_and_white():
    v = torch.linspace(0, 1, 1001).expand(3, 3, 4, 1001).contiguous()
    light = Light(EV, np.eye(BASIS.shape[1])[2], 1.0, 0.0, np.zeros((3, 3)), 0.0)
    out, ev = apply(v, light)
    x = v[0, 0, 0].double().numpy()
    true = np.where(x <= .04045, x / 12.92, ((x + .055) / 1.055) ** 2.4) ** (1 / 2.2)
    assert torch.equal(ev, EV) and out[..., 0].abs().max() == 0 and (out[..., -1] == 1).all()
    assert np.abs(out[1, 2, 3].numpy() - true)[10:].max() < 3e-3 and (out.diff(dim=-1) > 0).all()


@pytest.mark.parametrize("curve", ["gamma 2.2", "sRGB"])
def test_the_black_level_is_found(curve):
    ldr, ev = bracket(curve, black=0.006, noise=1e-4)
    light = estimate(ldr, ev)
    assert abs(light.black - 0.006) < 0.0006 and off(light, curve, black=0.006).max() < 0.1
    out, _ = apply(ldr, light)
    assert abs(float((out[2] ** 2.2).mean()) - np.clip(scene() * 16, 0, 1).mean()) < 0.01


def test_a_white_balance_of_its_own_is_taken_out_of_an_outer_frame():
    colour = [[.15, 0, -.15], [0, 0, 0], [-.1, 0, .1]]
    ldr, ev = bracket(noise=1e-4, colour=colour)
    light = estimate(ldr, ev)
    assert np.abs(light.colour - colour).max() < 0.03 and not light.curve.any() and light.misfit < 0.02
    out, _ = apply(ldr, light)
    ratio = (out[1] ** 2.2).mean(dim=(1, 2)) / (out[0] ** 2.2 * 4).clamp(max=1).mean(dim=(1, 2))
    assert (ratio - 1).abs().max() < 0.03


def test_curves_rise_whatever_their_numbers_and_gamma_2_2_is_among_them():
    rng, v = np.random.default_rng(0), np.linspace(0, 1, 4001)
    assert np.abs(phi(v, np.zeros(BASIS.shape[1])) - v).max() < 1e-9
    assert np.abs(phi(v, np.eye(BASIS.shape[1])[0] * np.log(2)) - v ** 2).max() < 1e-3                  # slope 2 everywhere
    srgb = phi(v, np.eye(BASIS.shape[1])[2])
    light = np.where(v <= .04045, v / 12.92, ((v + .055) / 1.055) ** 2.4)
    assert np.abs(srgb - light ** (1 / 2.2))[v > .02].max() < 2e-3
    for _ in range(20):
        values = phi(v, rng.normal(size=BASIS.shape[1]))
        assert (np.diff(values) > 0).all() and values[0] == 0 and abs(values[-1] - 1) < 1e-12
    assert KNOTS[0] == 0 and GRID[-1] == 0


def test_the_residual_is_0_on_exact_rows_and_its_derivatives_are_differences():
    theta = np.concatenate([[.002], np.random.default_rng(1).normal(size=BASIS.shape[1]) * .2, [.1, -.2]])
    v = np.linspace(.3, .95, 8)
    rows, steps = np.stack([np.arange(8) % 2, 0 * v, v, v, 0 * v + .01], axis=1), np.full(8, 2.0)
    fine = np.linspace(.01, 1, 20001)
    l = phi(fine, theta[CURVE]) ** 2.2
    dark = .002 + 2.0 ** -(2 + theta[CURVE.stop:][np.arange(8) % 2]) * (phi(v, theta[CURVE]) ** 2.2 - .002)
    rows[:, 2] = np.interp(dark, l, fine)
    r, J = residual(theta, rows, steps)
    assert np.abs(r).max() < 1e-3
    for k in range(len(theta)):
        moved = theta.copy()
        moved[k] += 1e-6
        assert np.abs((residual(moved, rows, steps)[0] - r) / 1e-6 - J[:, k]).max() < 1e-3 * max(1, np.abs(J[:, k]).max())


def test_the_comparagram_holds_the_values_that_belong_together_and_no_clipped_ones():
    ldr, _ = bracket(moving=True, bits=16)
    rows = comparagram(blocks(ldr))
    assert len(rows) > 60 and rows[:, 3].max() < 0.98 and rows[:, 2].min() > 0.05
    assert (np.abs(rows[:, 3] / rows[:, 2] - 2 ** (2 / 2.2)) < 0.02).mean() > 0.75


@pytest.mark.parametrize("curve", ["gamma 2.2", "real camera"])
def test_memory_format_changes_nothing_and_is_kept(curve):
    ldr, ev = bracket(curve, clip=.97)
    last = ldr.contiguous(memory_format=torch.channels_last)
    light, same = estimate(ldr, ev), estimate(last, ev)
    assert torch.equal(light.ev, same.ev) and np.array_equal(light.curve, same.curve) and light.clip == same.clip
    out, _ = apply(last, light)
    assert out.is_contiguous(memory_format=torch.channels_last) and torch.equal(out, apply(ldr, light)[0])


def test_what_tells_nothing_is_left_alone():
    ldr, ev = bracket("real camera")
    three_scenes = torch.stack([ldr[0].flip(1), ldr[1], ldr[2].flip(2)])
    light = estimate(three_scenes, ev)
    assert torch.equal(apply(three_scenes, light)[0], three_scenes) and torch.equal(light.ev, ev)
    assert "Doubtful: the frames contradict each other" in in_words(light, ev)
    for value in (0.0, 0.5, 1.0):
        assert estimate(torch.full((3, 3, 64, 64), value), ev) is None
    assert estimate(torch.full((3, 3, 3, 3), 0.5), ev) is None
    assert in_words(None, ev) == "exposures +0, +2, +4 EV"


def test_exposures_against_the_brightness_of_the_frames_are_an_error():
    ldr, ev = bracket()
    with pytest.raises(ValueError, match="frame 2 is darker than frame 1, but is stated to be exposed 2.0 EV more"):
        estimate(ldr[[1, 0, 2]], ev)


@pytest.mark.parametrize("curve, within", [("gamma 2.2", 0.05), ("sRGB", 0.05), ("real camera", 0.12), ("sigmoid", 0.25)])
def test_missing_exposures_are_estimated_from_frames_in_any_order_though_the_camera_moved(curve, within):
    ldr, ev = bracket(curve, noise=1e-4)
    frames = [ldr[2].roll(9, 1), ldr[0], ldr[1].roll(5, 2)]
    found = estimate_exposures(frames)
    assert found[1] == 0 and abs(found[0] / 4 - 1) < within and abs(found[2] / 2 - 1) < within
    with pytest.raises(ValueError, match="equally bright"):
        estimate_exposures([ldr[1], ldr[1], ldr[0]])
    with pytest.raises(ValueError, match="overlap too little"):
        estimate_exposures([ldr[0] * 0, ldr[1], ldr[2]])
