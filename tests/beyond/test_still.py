"""still.py: D14, a weighted mean of the network's image and a merge."""

import math

import pytest
import torch

from beyond import fast
from beyond.still import EVEN, with_merge


@pytest.mark.parametrize(("noise", "share"), [(EVEN, 1 / 2), (2 * EVEN, 1 / 5), (0.0, 1.0)])
def test_the_mean_is_taken_after_T_with_weights_as_the_noise_asks(noise, share):
    ldr, ev = torch.full((1, 3, 3, 2, 2), 0.5), torch.tensor([[0.0, 0.0, 0.0]])
    merged = 0.5 ** 2.2                                                         # what all three frames show
    mean = (1 + 5000 * 0.01) ** (1 - share) * (1 + 5000 * merged) ** share      # T is a logarithm: its mean is a geometric one
    hdr_hat = with_merge(torch.full((1, 3, 2, 2), 0.01), ldr, ev, noise)
    assert hdr_hat.flatten().tolist() == pytest.approx([(mean - 1) / 5000] * 12, rel=1e-5)


def test_a_bracket_that_is_not_still_keeps_the_image_of_the_network():
    hdr_hat = torch.rand(1, 3, 40, 24)
    assert with_merge(hdr_hat, torch.rand(1, 3, 3, 40, 24), torch.tensor([[0.0, 2.0, 4.0]]), math.inf) is hdr_hat


def test_a_large_image_is_worked_off_strip_by_strip(monkeypatch):
    hdr_hat, ldr, ev = torch.rand(1, 3, 40, 24), torch.rand(1, 3, 3, 40, 24), torch.tensor([[0.0, 2.0, 4.0]])
    whole = with_merge(hdr_hat, ldr, ev, EVEN)
    monkeypatch.setattr(fast, "STRIP_BYTES", 3000)
    assert (with_merge(hdr_hat, ldr, ev, EVEN) - whole).abs().max() < 1e-6
