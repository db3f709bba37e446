"""still.py: D14, the network's image kept near a merge and averaged with it."""

import math

import pytest
import torch

from beyond import fast
from beyond.still import EVEN, MOST, with_merge
from brackets.flow import still_noise
from brackets.merge import weighted_merge
from data import T


@pytest.mark.parametrize(("noise", "share"), [(EVEN, 1 / 2), (2 * EVEN, 1 / 5), (0.0, 1.0)])
def test_the_mean_is_taken_after_T_with_weights_as_the_noise_asks(noise, share):
    ldr, ev = torch.full((1, 3, 3, 2, 2), 0.5), torch.tensor([[0.0, 0.0, 0.0]])
    merged = 0.5 ** 2.2                                                         # what all three frames show
    near = 0.99 * merged                                                        # so that noise may explain the difference
    mean = (1 + 5000 * near) ** (1 - share) * (1 + 5000 * merged) ** share      # T is a logarithm: its mean is a geometric one
    hdr_hat = with_merge(torch.full((1, 3, 2, 2), near), ldr, ev, noise)
    assert hdr_hat.flatten().tolist() == pytest.approx([(mean - 1) / 5000] * 12, rel=1e-5)


@pytest.mark.parametrize(("hdr_hat", "sign"), [(0.001, -1), (1.0, 1)])
@pytest.mark.parametrize(("light", "ev"), [(0.002, [0.0, 2, 4]), (0.02, [0.0, 2, 4]), (0.1, [0.0, 2, 4]), (0.02, [0.0, 1, 4])])
def test_what_noise_cannot_explain_is_cut_off(light, ev, hdr_hat, sign):
    """The limit is MOST standard deviations of a merge after T, as far as frames with noise show that merge and its noise."""
    ev = torch.tensor([ev])
    clean = (light * 2 ** ev).clamp(max=1)[..., None, None, None].expand(-1, -1, 3, 96, 96) ** (1 / 2.2)
    noisy = (clean + 0.004 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))).clamp(max=1)
    noise = still_noise(noisy[0], ev[0])
    found = T(with_merge(torch.full((1, 3, 96, 96), hdr_hat), clean, ev, noise)) - T(torch.tensor(light))
    limit = MOST * T(weighted_merge(noisy, ev)).std() * (1 - 1 / (1 + (noise / EVEN) ** 2))
    assert found.flatten().tolist() == pytest.approx([sign * float(limit)] * found.numel(), rel=0.1)


def test_a_bracket_that_is_not_still_keeps_the_image_of_the_network():
    hdr_hat = torch.rand(1, 3, 40, 24)
    assert with_merge(hdr_hat, torch.rand(1, 3, 3, 40, 24), torch.tensor([[0.0, 2.0, 4.0]]), math.inf) is hdr_hat


def test_a_large_image_is_worked_off_strip_by_strip(monkeypatch):
    hdr_hat, ldr, ev = torch.rand(1, 3, 40, 24), torch.rand(1, 3, 3, 40, 24), torch.tensor([[0.0, 2.0, 4.0]])
    whole = with_merge(hdr_hat, ldr, ev, EVEN)
    monkeypatch.setattr(fast, "STRIP_BYTES", 3000)
    assert (with_merge(hdr_hat, ldr, ev, EVEN) - whole).abs().max() < 1e-5
