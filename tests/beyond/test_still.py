"""still.py: D14, the mean of the network's image and a merge."""

import pytest
import torch

from beyond import fast
from beyond.still import mean_with_merge


def test_the_mean_is_taken_after_T():
    ldr, ev = torch.full((1, 3, 3, 2, 2), 0.5), torch.tensor([[0.0, 0.0, 0.0]])
    hdr_hat = mean_with_merge(torch.full((1, 3, 2, 2), 0.01), ldr, ev)
    merged = 0.5 ** 2.2                                                         # what all three frames show
    mean = ((1 + 5000 * 0.01) * (1 + 5000 * merged)) ** 0.5                     # T is a logarithm: its mean is a geometric one
    assert hdr_hat.flatten().tolist() == pytest.approx([(mean - 1) / 5000] * 12, rel=1e-5)


def test_a_large_image_is_worked_off_strip_by_strip(monkeypatch):
    hdr_hat, ldr, ev = torch.rand(1, 3, 40, 24), torch.rand(1, 3, 3, 40, 24), torch.tensor([[0.0, 2.0, 4.0]])
    whole = mean_with_merge(hdr_hat, ldr, ev)
    monkeypatch.setattr(fast, "STRIP_BYTES", 3000)
    assert (mean_with_merge(hdr_hat, ldr, ev) - whole).abs().max() < 1e-6
