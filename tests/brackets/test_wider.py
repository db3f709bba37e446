"""wider.py: what frames beyond the three add to a result, against known radiance."""

import numpy as np
import pytest
import torch

from brackets import flow
from brackets.choose import choose, load_three
from brackets.curve import phi
from brackets.files import write_image
from brackets.light import Light, apply
from brackets.prepare import Prepared, PrepareConfig, prepare
from brackets.scenes import find_bracket
from brackets.wider import measured_step, put_in, widen

ALL = PrepareConfig()


def radiance(height=96, width=128):
    """Makes a dim patchy ground and a lamp whose middle is 1, (3, H, W)."""
    rng, y, x = np.random.default_rng(0), *np.mgrid[0:height, 0:width]
    patches = np.exp(rng.uniform(np.log(0.002), np.log(0.03), (1, height // 8, width // 8))).repeat(8, 1).repeat(8, 2) * np.array([1, 0.8, 0.6])[:, None, None]
    return torch.from_numpy(np.clip(patches + 1.02 * np.exp(-((x - 90) ** 2 + (y - 40) ** 2) / 250), 0, 1)).float()


def photograph(hdr, ev):
    return ((hdr * 2.0 ** ev).clamp(0, 1) ** (1 / 2.2) * 255).round() / 255


def write_bracket(folder, hdr, evs, coded=lambda frame: frame):
    for i, ev in enumerate(evs):
        write_image(folder / f"{i}.png", (coded(photograph(hdr, ev)).permute(1, 2, 0) * 255).round().byte().numpy())
    (folder / "exposure.txt").write_text(" ".join(map(str, evs)), encoding="utf-8")
    return find_bracket(folder)


def test_a_shorter_frame_shows_what_was_clipped_and_a_longer_one_what_was_dark():
    hdr = radiance()
    clipped = hdr.clamp(max=2.0 ** -2) * 4                                      # as a frame at 2 EV shows it, in its own units
    wide = clipped.clone()
    _, ev = put_in(wide, photograph(hdr, 2), 0.0, photograph(hdr, 0), -2.0, ALL)
    lost = hdr > 0.26
    assert abs(ev + 2) < 0.02 and lost.float().mean() > 0.02 and ((wide / 4 - hdr)[lost].abs() < 0.02 * hdr[lost] + 0.003).all()
    assert torch.equal(wide[:, hdr.amax(0) < 0.15], clipped[:, hdr.amax(0) < 0.15])
    noisy = hdr + 0.002
    put_in(noisy, photograph(hdr, 0), 0.0, photograph(hdr, 3), 3.0, ALL)
    dark, bright = hdr.amax(0) < 0.008, hdr.amax(0) > 0.06
    assert dark.float().mean() > 0.1 and (noisy - hdr)[:, dark].abs().median() < 1e-4 and torch.equal(noisy[:, bright], (hdr + 0.002)[:, bright])


def test_what_contradicts_the_neighbour_is_left_out():
    hdr, gone = radiance(), radiance()
    gone[:, 20:60, 70:110] = 0.01                                               # the lamp is off when the shorter frame is taken
    wide = hdr.clamp(max=0.25) * 4
    before = wide.clone()
    put_in(wide, photograph(hdr, 2), 0.0, photograph(gone, 0), -2.0, PrepareConfig(register=False, flow=False))
    assert torch.equal(wide[:, 25:55, 75:105], before[:, 25:55, 75:105])


@pytest.mark.parametrize("largest", [1_600_000, 160 * 240 // 16 + 1])
def test_small_things_of_a_longer_frame_that_moved_are_left_out_of_large_photographs_too(largest, monkeypatch):
    monkeypatch.setattr(flow, "LARGEST", largest)
    ground = 0.0015 * (1 + 0.5 * torch.sin(torch.arange(240.0) / 7) * torch.sin(torch.arange(160.0)[:, None] / 11)).expand(3, 160, 240)
    lights, moved = ground.clone(), ground.clone()
    for n in range(5):
        lights[:, 30 * n + 10:30 * n + 18, 36 * n + 20:36 * n + 28] = moved[:, 30 * n + 10:30 * n + 18, 36 * n + 29:36 * n + 37] = 0.008
    wide, there = lights * 16, (moved > 0.007) & (lights < 0.007)
    put_in(wide, photograph(lights, 4), 0.0, photograph(moved, 6), 2.0, PrepareConfig(register=False))
    assert wide[there].mean() / 16 < 1.1 * lights[there].mean()


def test_the_step_is_measured_where_both_frames_show_something():
    hdr = radiance(240, 320) * 0.5
    assert abs(measured_step(photograph(hdr, 4), photograph(hdr, 2.3), 2.0) - 1.7) < 0.02
    assert measured_step(torch.ones(3, 9, 9), torch.ones(3, 9, 9), 2.0) == 2.0


@pytest.mark.parametrize("bend", [0.0, 0.4])
def test_the_result_is_in_units_of_the_shortest_frame_of_all(tmp_path, bend):
    """The truth, as the three frames show it, stands in for the network's result. If the camera has another curve, it is undone in every frame."""
    hdr, curve, codes = radiance(), np.full(13, 0.0), np.linspace(0, 1, 4097)
    curve[0] = bend
    bracket = write_bracket(tmp_path, hdr, (0, 2, 4, 6, 8), lambda frame: torch.from_numpy(np.interp(frame, phi(codes, curve), codes)))
    choice = choose(bracket.ev, 2, (2, 3))
    sample = load_three(bracket, choice)
    found = Light(sample["ev"], curve, 1.0, 0.0, np.zeros((3, 3)), 0.0)
    prepared = Prepared(apply(sample["ldr"], found)[0], sample["ev"], torch.eye(3).repeat(3, 1, 1), found, sample["ev"])
    hdr_hat = (hdr[None] * 4).clamp(max=1)
    wide, longer_by = widen(hdr_hat.clone(), prepared, bracket, choice, ALL)
    assert choice.three == (1, 2, 3) and choice.beyond == [0, 4] and abs(longer_by - 2) < 0.02
    assert (wide[0] - hdr).abs().max() < 0.02 and (hdr_hat[0] / 4 - hdr).abs().max() > 0.7


def test_without_further_frames_the_result_is_left_alone_and_without_a_short_one_it_is_in_units_of_the_reference(tmp_path):
    hdr = radiance()
    bracket = write_bracket(tmp_path, hdr, (0, 2))
    for reference, shift in ((1, 0.0), (0, -2.0)):
        choice = choose(bracket.ev, reference, (2, 3))
        sample = load_three(bracket, choice)
        hdr_hat = hdr[None] * 2.0 ** shift
        wide, longer_by = widen(hdr_hat.clone(), prepare(sample["ldr"], sample["ev"], PrepareConfig(False, False, False)), bracket, choice, ALL)
        assert longer_by == shift and (wide - hdr).abs().max() < 1e-6


def test_a_misstated_exposure_is_put_in_as_it_was():
    hdr = radiance()
    wide = hdr.clamp(max=0.25) * 4
    _, ev = put_in(wide, photograph(hdr, 2), 0.0, photograph(hdr, 0), -2.4, ALL)
    assert abs(ev + 2) < 0.02 and (wide / 4 - hdr).abs().max() < 0.02
