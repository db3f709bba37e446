"""beyond/steps.py: brackets at steps that the weights have not seen are shown at steps that they have."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as nnf

from beyond.steps import in_words, nearest_steps, scale_back, show_at
from beyond.tiles import reconstruct_in_tiles
from beyond.weights import load_weights
from data import T, psnr

ROOT = Path(__file__).parent.parent.parent


def scene(height=96, width=128):
    """Makes linear radiance (3, H, W) in [0, 1]: a dim ground and a bright sky, both with smooth patches."""
    noise = torch.rand(1, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(0))
    patches = nnf.interpolate(noise, size=(height, width), mode="bicubic", align_corners=False)[0].clamp(0, 1)
    return torch.where(torch.arange(height)[:, None] < 0.4 * height, 0.2 + 0.5 * patches, 0.003 + 0.06 * patches)


def photographed(hdr, ev):
    """Makes an exact bracket (1, 3, 3, H, W) and its stops (1, 3). hdr: (3, H, W)."""
    return torch.stack([(hdr * 2 ** stops).clamp(max=1) ** (1 / 2.2) for stops in ev])[None], torch.tensor([ev])


@pytest.mark.parametrize("ev, steps", [((0, 2, 4), None), ((0, 1.95, 4.95), None), ((0, 2.5, 5.2), None), ((0, 1, 2), [2, 2]), ((0, 2.5, 3.5), [2.5, 2]),
                                       ((0, 2, 5.2), [2, 3]), ((0, 4, 8), [3, 3]), ((0, 1, 5), [2, 3])])
def test_each_step_that_training_did_not_have_becomes_the_nearest_that_it_had(ev, steps):
    ev = torch.tensor(ev, dtype=torch.float32)
    assert nearest_steps((2.0, 3.0), ev) == steps
    assert nearest_steps(None, ev) is None
    assert (in_words((2.0, 3.0), ev) == "") == (steps is None)


def test_the_line_says_what_was_taken_known_and_shown():
    said = "\nthe exposure steps are 1 and 2.5 EV; the weights know 2 to 3 EV, and were shown 2 and 2.5 EV"
    assert in_words((2.0, 3.0), torch.tensor([0, 1.0, 3.5])) == said


PAIRS = [((1.0, 1.0), (2.0, 2.0)), ((4.0, 4.0), (3.0, 3.0)), ((2.5, 1.0), (2.5, 2.0)), ((5.0, 2.0), (3.0, 2.0)), ((1.0, 4.0), (2.0, 3.0))]


def two_ways(taken, steps):
    """Returns light, a bracket of it with the steps `taken`, the bracket as it is shown, and one taken with the other steps and the same reference."""
    hdr = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)) ** 3
    ldr, ev = photographed(hdr, (0.0, taken[0], sum(taken)))
    other, _ = photographed(hdr * 2 ** (taken[0] - steps[0]), (0.0, steps[0], sum(steps)))
    return hdr, ldr, ev, *show_at(steps, ldr, ev), other


@pytest.mark.parametrize("taken, steps", PAIRS)
def test_a_bracket_is_shown_as_if_it_had_been_taken_so_but_for_what_its_frames_saturate(taken, steps):
    _, ldr, _, shown, shown_ev, other = two_ways(taken, steps)
    assert shown_ev.tolist() == [[0, steps[0], sum(steps)]] and torch.equal(shown[:, 1], ldr[:, 1])
    for i in (0, 2):
        as_taken = ldr[:, i] < 0.97
        assert (shown[:, i] - other[:, i])[as_taken].abs().max() < 1e-5
    assert (shown[:, 2] - other[:, 2]).abs().max() < 1e-5 or taken[1] < steps[1]            # where it saturates, it shows the reference


@pytest.mark.parametrize("taken, steps", PAIRS)
def test_a_perfect_result_comes_back_in_the_units_of_the_bracket_with_its_highlights(taken, steps):
    hdr, ldr, ev, shown, shown_ev, _ = two_ways(taken, steps)
    perfect = (hdr * 2 ** (taken[0] - steps[0])).clamp(max=1)[None]
    assert (scale_back(perfect, shown, shown_ev, ldr, ev)[0] - hdr).abs().max() < 1e-5


@pytest.mark.parametrize("step", [0.7, 1.0, 1.5, 2.5, 4.0])
def test_the_shipped_weights_take_a_static_exact_bracket_at_any_step(step):
    model, hdr = load_weights(ROOT / "weights" / "lfdiff.pt"), scene()
    ldr, ev = photographed(hdr, (0.0, step, 2 * step))
    hdr_hat = reconstruct_in_tiles(model, ldr, ev, generator=torch.Generator().manual_seed(0))
    assert psnr(T(hdr_hat[0]), T(hdr)) > 50
