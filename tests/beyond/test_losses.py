"""beyond/losses.py: the terms that the paper does not have (D5)."""

import math
from types import SimpleNamespace

import pytest
import torch

from beyond.config import BeyondConfig
from beyond.losses import decibels, further_terms, loss_columns
from data import psnr
from loss import LossConfig

torch.set_num_threads(1)


def mu_law(x):
    return torch.log(1 + 5000 * x.double()) / math.log(5001)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_linear_term_is_the_mean_absolute_difference_of_radiance_times_its_weight():
    hdr, hdr_hat = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1), torch.tensor([0.1, 0.5, 0.7]).reshape(1, 3, 1, 1)
    L, terms = further_terms(BeyondConfig(linear=2.0), hdr_hat, hdr)
    assert list(terms) == ["L1_lin"] and abs(terms["L1_lin"].item() - 0.4 / 3) < 1e-6 and abs(L.item() - 0.8 / 3) < 1e-6


@pytest.mark.parametrize("weights", [(0.1, 0.0), (0.0, 0.1), (0.1, 0.3)])
def test_the_decibel_terms_are_what_the_psnrs_of_every_patch_lack_to_fifty_times_their_weights(weights):
    hdr, spread = rand(3, 3, 8, 8), torch.tensor([0.02, 0.1, 0.4]).reshape(3, 1, 1, 1)
    hdr_hat = (hdr + spread * torch.randn(hdr.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    lack_mu, lack_l = (50 - sum(psnr(code(hdr_hat[i]), code(hdr[i])) for i in range(3)) / 3 for code in (mu_law, lambda hdr: hdr))
    L, terms = further_terms(BeyondConfig(decibel=weights), hdr_hat, hdr)
    assert set(terms) == {name for name, weight in zip(("dB_mu", "dB_l"), weights) if weight}
    for name, lack in (("dB_mu", lack_mu), ("dB_l", lack_l)):
        assert name not in terms or abs(terms[name].item() - lack) < 0.1                        # up to the 1 in the logarithm
    assert abs(L.item() - weights[0] * lack_mu - weights[1] * lack_l) < 0.03
    assert decibels(hdr, hdr).item() == 0                                                       # finite even without an error


def test_terms_of_weight_zero_are_neither_computed_nor_logged():
    image = SimpleNamespace(device=torch.device("cpu"))           # it has no other attribute
    assert further_terms(BeyondConfig(), image, image) == (0, {})
    assert loss_columns(LossConfig(), BeyondConfig()) == ["L_r", "L1_mu", "L_phi"]
    assert loss_columns(LossConfig(lam=0), BeyondConfig(linear=1, decibel=(0, 0.1))) == ["L_r", "L1_mu", "L1_lin", "dB_l"]
