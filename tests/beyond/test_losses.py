"""beyond/losses.py: the terms that the paper does not have (D5)."""

import math
from types import SimpleNamespace

import pytest
import torch

from beyond.config import BeyondConfig
from beyond.losses import decibels, further_terms, loss_columns, softness, well_exposed
from data import T_inverse, psnr
from loss import LossConfig

torch.set_num_threads(1)


def mu_law(x):
    return torch.log(1 + 5000 * x.double()) / math.log(5001)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_linear_term_is_the_mean_absolute_difference_of_radiance_times_its_weight():
    hdr, hdr_hat = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1), torch.tensor([0.1, 0.5, 0.7]).reshape(1, 3, 1, 1)
    L, terms = further_terms(BeyondConfig(linear=2.0), hdr_hat, hdr, None)
    assert list(terms) == ["L1_lin"] and abs(terms["L1_lin"].item() - 0.4 / 3) < 1e-6 and abs(L.item() - 0.8 / 3) < 1e-6


@pytest.mark.parametrize("weights", [(0.1, 0.0), (0.0, 0.1), (0.1, 0.3)])
def test_the_decibel_terms_are_what_the_psnrs_of_every_patch_lack_to_fifty_times_their_weights(weights):
    hdr, spread = rand(3, 3, 8, 8), torch.tensor([0.02, 0.1, 0.4]).reshape(3, 1, 1, 1)
    hdr_hat = (hdr + spread * torch.randn(hdr.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    lack_mu, lack_l = (50 - sum(psnr(code(hdr_hat[i]), code(hdr[i])) for i in range(3)) / 3 for code in (mu_law, lambda hdr: hdr))
    L, terms = further_terms(BeyondConfig(decibel=weights), hdr_hat, hdr, None)
    assert set(terms) == {name for name, weight in zip(("dB_mu", "dB_l"), weights) if weight}
    for name, lack in (("dB_mu", lack_mu), ("dB_l", lack_l)):
        assert name not in terms or abs(terms[name].item() - lack) < 0.1                        # but for the 1 in the logarithm
    assert abs(L.item() - weights[0] * lack_mu - weights[1] * lack_l) < 0.03
    assert decibels(hdr, hdr).item() == 0                                                       # finite where nothing is wrong


def test_softness_is_the_share_of_the_gradients_that_is_missing_where_the_reference_shows_something():
    hdr_mu = rand(2, 3, 12, 14)
    mean, seen = hdr_mu.mean(dim=(2, 3), keepdim=True), torch.zeros(2, 1, 12, 14, dtype=torch.bool)
    seen[:, :, :, :7] = True
    soft = mean + 0.75 * (hdr_mu - mean)                        # a quarter of each gradient is missing ...
    soft[:, :, :, 7:] = mean                                    # ... and all of it where nobody looks
    whole = softness(soft, hdr_mu, seen)
    assert abs(whole - 0.25) < 0.001
    halves = [softness(soft[i:i + 1], hdr_mu[i:i + 1], seen[i:i + 1]) for i in (0, 1)]
    assert abs(sum(halves) / 2 - whole) < 1e-6                  # the mean over processes is that of one
    noise = 0.05 * torch.randn(hdr_mu.shape, generator=torch.Generator().manual_seed(1))
    for image, expected in ((hdr_mu + noise, 0.0), (mean + 1.2 * (hdr_mu - mean), 0.0), (mean.expand_as(hdr_mu), 1.0)):
        assert abs(softness(image, hdr_mu, seen) - expected) < 0.02     # noise is no sharpness, nor is too much of it rewarded
    flat = torch.full_like(hdr_mu, 0.3)
    assert softness(flat + noise, flat, seen) == 0


def test_the_sharpness_term_looks_where_the_reference_frame_is_well_exposed():
    hdr_mu, ldr = rand(1, 3, 12, 14), torch.full((1, 3, 3, 12, 14), 0.5)
    ldr[:, 1, :, :, 7:] = 1
    hdr, soft = T_inverse(hdr_mu), T_inverse(hdr_mu.mean(dim=(2, 3), keepdim=True) + 0.75 * (hdr_mu - hdr_mu.mean(dim=(2, 3), keepdim=True)))
    L, terms = further_terms(BeyondConfig(sharp=0.1), soft, hdr, ldr)
    assert list(terms) == ["soft"] and abs(terms["soft"] - 0.25) < 0.002 and abs(L - 0.1 * terms["soft"]) < 1e-6
    ldr[:, 1] = 1
    assert further_terms(BeyondConfig(sharp=0.1), soft, hdr, ldr)[0] == 0


def test_well_exposed_pixels_are_neither_black_nor_white_in_any_channel_of_the_reference():
    ldr = torch.zeros(1, 3, 3, 1, 4)
    ldr[0, 1] = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.96, 0.5], [0.5, 0.5, 0.04], [0.06, 0.94, 0.5]]).T[:, None]
    assert well_exposed(ldr).flatten().tolist() == [True, False, False, True]


def test_terms_of_weight_zero_are_neither_computed_nor_logged():
    image = SimpleNamespace(device=torch.device("cpu"))           # nothing else can be asked of it
    assert further_terms(BeyondConfig(), image, image, None) == (0, {})
    assert loss_columns(LossConfig(), BeyondConfig()) == ["L_r", "L1_mu", "L_phi"]
    assert loss_columns(LossConfig(lam=0), BeyondConfig(linear=1, decibel=(0, 0.1), sharp=0.1)) == ["L_r", "L1_mu", "L1_lin", "dB_l", "soft"]
