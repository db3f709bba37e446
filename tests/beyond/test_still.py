"""still.py: D14, a weighted mean of the network's image and a merge."""

import math

import pytest
import torch

from beyond import fast
from beyond.still import EVEN, with_merge
from data import T


@pytest.mark.parametrize(("noise", "share"), [(EVEN, 1 / 2), (2 * EVEN, 1 / 5), (0.0, 1.0)])
def test_the_mean_is_taken_after_T_with_weights_as_the_noise_asks(noise, share):
    ldr, ev = torch.full((1, 3, 3, 2, 2), 0.5), torch.tensor([[0.0, 0.0, 0.0]])
    merged = 0.5 ** 2.2                                                         # what all three frames show
    near = 0.95 * merged                                                        # so that noise may explain the difference
    mean = (1 + 5000 * near) ** (1 - share) * (1 + 5000 * merged) ** share      # T is a logarithm: its mean is a geometric one
    hdr_hat = with_merge(torch.full((1, 3, 2, 2), near), ldr, ev, noise)
    assert hdr_hat.flatten().tolist() == pytest.approx([(mean - 1) / 5000] * 12, rel=1e-5)


@pytest.mark.parametrize(("hdr_hat", "sign"), [(0.001, -1), (1.0, 1)])
def test_what_noise_cannot_explain_is_cut_off(hdr_hat, sign):
    """At twice EVEN: the image is 3 times the noise from the merge at most, of which a fifth is then the merge."""
    ldr, ev = torch.full((1, 3, 3, 2, 2), 0.5), torch.tensor([[0.0, 0.0, 0.0]])
    found = T(with_merge(torch.full((1, 3, 2, 2), hdr_hat), ldr, ev, 2 * EVEN)) - T(torch.tensor(0.5 ** 2.2))
    assert found.flatten().tolist() == pytest.approx([sign * 4 / 5 * 3 * 2 * EVEN] * 12, rel=1e-4)


def test_a_bracket_that_is_not_still_keeps_the_image_of_the_network():
    hdr_hat = torch.rand(1, 3, 40, 24)
    assert with_merge(hdr_hat, torch.rand(1, 3, 3, 40, 24), torch.tensor([[0.0, 2.0, 4.0]]), math.inf) is hdr_hat


def test_a_large_image_is_worked_off_strip_by_strip(monkeypatch):
    hdr_hat, ldr, ev = torch.rand(1, 3, 40, 24), torch.rand(1, 3, 3, 40, 24), torch.tensor([[0.0, 2.0, 4.0]])
    whole = with_merge(hdr_hat, ldr, ev, EVEN)
    monkeypatch.setattr(fast, "STRIP_BYTES", 3000)
    assert (with_merge(hdr_hat, ldr, ev, EVEN) - whole).abs().max() < 1e-6
