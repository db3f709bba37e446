"""beyond/steps.py: brackets at steps that the weights have not seen are shown at steps that they have."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as nnf

from beyond.steps import in_words, nearest_step, scale_back, show_at
from beyond.tiles import reconstruct_in_tiles
from beyond.weights import load_weights
from data import T, psnr

ROOT = Path(__file__).parent.parent.parent


def scene(height=96, width=128):
    """Linear radiance (3, H, W) in [0, 1]: a dim ground and a bright sky, both with smooth patches."""
    noise = torch.rand(1, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(0))
    patches = nnf.interpolate(noise, size=(height, width), mode="bicubic", align_corners=False)[0].clamp(0, 1)
    return torch.where(torch.arange(height)[:, None] < 0.4 * height, 0.2 + 0.5 * patches, 0.003 + 0.06 * patches)


def photographed(hdr, ev):
    """An exact bracket (1, 3, 3, H, W), and its stops (1, 3). hdr: (3, H, W)."""
    return torch.stack([(hdr * 2 ** stops).clamp(max=1) ** (1 / 2.2) for stops in ev])[None], torch.tensor([ev])


@pytest.mark.parametrize("ev, step", [((0, 2, 4), None), ((0, 2.01, 4), None), ((0, 2.1, 4.2), 2), ((0, 1, 2), 2),
                                      ((0, 2, 4.8), 2), ((0, 2, 5.2), 3), ((0, 4, 8), 3), ((0, 2.9, 5.9), 3)])
def test_the_nearest_step_of_training_is_chosen_for_both_outer_frames(ev, step):
    ev = torch.tensor(ev, dtype=torch.float32)
    assert nearest_step((2.0, 3.0), ev) == step
    assert nearest_step(None, ev) is None
    assert (in_words((2.0, 3.0), ev) == "") == (step is None)


def test_the_line_says_what_was_taken_known_and_shown():
    assert in_words((2.0, 3.0), torch.tensor([0, 1.0, 2.0])) == "\nthe exposure steps are 1 and 1 EV; the weights know 2, 3 EV, and were shown 2 EV"


@pytest.mark.parametrize("taken, step", [(1.0, 2.0), (4.0, 3.0), (2.0, 3.0)])
def test_a_bracket_is_shown_as_if_it_had_been_taken_so_but_for_what_its_frames_saturate(taken, step):
    hdr = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)) ** 3
    ldr, ev = photographed(hdr, (0.0, taken, 2 * taken))
    shown, shown_ev = show_at(step, ldr, ev)
    other, _ = photographed(hdr * 2 ** (taken - step), (0.0, step, 2 * step))               # the same light, so the same reference
    assert shown_ev.tolist() == [[0, step, 2 * step]] and torch.equal(shown[:, 1], ldr[:, 1])
    for i in (0, 2):
        as_taken = ldr[:, i] < 0.97
        assert (shown[:, i] - other[:, i])[as_taken].abs().max() < 1e-5
    assert (shown[:, 2] - other[:, 2]).abs().max() < 1e-5 or taken < step                   # ... where it shows the reference, which tells it


@pytest.mark.parametrize("taken, step", [(1.0, 2.0), (4.0, 3.0)])
def test_a_perfect_result_comes_back_in_the_units_of_the_bracket_with_its_highlights(taken, step):
    hdr = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)) ** 3
    ldr, ev = photographed(hdr, (0.0, taken, 2 * taken))
    shown, shown_ev = show_at(step, ldr, ev)
    perfect = (hdr * 2 ** (taken - step)).clamp(max=1)[None]
    assert (scale_back(perfect, shown, shown_ev, ldr, ev)[0] - hdr).abs().max() < 1e-5


@pytest.mark.parametrize("step", [0.7, 1.0, 1.5, 2.5, 4.0])
def test_the_shipped_weights_take_a_static_exact_bracket_at_any_step(step):
    model, hdr = load_weights(ROOT / "weights" / "lfdiff.pt"), scene()
    ldr, ev = photographed(hdr, (0.0, step, 2 * step))
    hdr_hat = reconstruct_in_tiles(model, ldr, ev, generator=torch.Generator().manual_seed(0))
    found = psnr(T(hdr_hat[0]), T(hdr))
    model.steps = None                                      # as if the file did not say: the frames are seen as they were taken
    naive = psnr(T(reconstruct_in_tiles(model, ldr, ev, generator=torch.Generator().manual_seed(0))[0]), T(hdr))
    assert found > 45 and naive < 40
