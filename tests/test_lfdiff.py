"""lfdiff.py: both stages, the variants of Table 3, and the inference of Fig. 2 (c)."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn as nn

import lfdiff
from data import network_input
from ddim import DiffusionConfig, ancestral_step, diffuse
from denoiser import DenoiserConfig
from dhrnet import DHRNetConfig
from lfdiff import LFDiffConfig, build, pad_to_multiple, reconstruct
from loss import diffusion_loss
from lpenet import LPENetConfig
from slow import SMALL, VARIANTS, bracket, fresh, normal, rand

torch.set_num_threads(1)


@pytest.mark.parametrize("dhrnet, lpenet, denoiser", [({"pool_pim": 2}, {}, {}), ({"pool_frm": 3}, {}, {}), ({"pool_pim": 8}, {"unshuffle": 8}, {}),
                                                      ({}, {}, {"unet_multipliers": (1, 2, 2, 2)})])
def test_sizes_that_do_not_fit_each_other_are_refused(dhrnet, lpenet, denoiser):
    config = LFDiffConfig(DHRNetConfig(**dhrnet), LPENetConfig(**lpenet), DenoiserConfig(**denoiser))
    with pytest.raises(ValueError, match="--unshuffle .* U-Net of [34] level"):
        build("s2", config)


def test_only_a_u_net_needs_sizes_that_halve_further():
    """A prior of H/8 fits a U-Net of two levels, and stage 1, which has none, whatever its settings say."""
    config = LFDiffConfig(DHRNetConfig(channels=6, pool_pim=8), LPENetConfig(unshuffle=8))
    for variant in ("baseline", "s1", "s2_without_dm"):
        build(variant, config)
    config.denoiser.unet_multipliers = (1, 2)
    build("s2", config)


# --- all variants ----------------------------------------------------------------------------------------------------

def training_loss(model, seed=3):
    """Runs one training pass on a batch of two 16x16 brackets, weighted at random so that no gradient cancels."""
    ldr, ev, hdr = bracket(2, 16, 16)
    X, weight = network_input(ldr, ev), normal(2, 3, 16, 16, seed=seed)
    if model.variant in ("baseline", "s1"):
        return (model(X, hdr) * weight).sum()
    z, eps = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    hdr_hat, z_hat, eps_hat = model(X, z, torch.tensor([2, 19]), eps, normal(2, 3, 4, 4, seed=2))
    return (hdr_hat * weight).sum() + (diffusion_loss(eps, eps_hat, z_hat, z)[0] if eps_hat is not None else 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_gradient(variant):
    model = fresh(variant)
    training_loss(model).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.abs().max() > 1e-7]
    assert without == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_two_parameters_share_their_storage(variant):
    model = fresh(variant)
    named = list(model.named_parameters(remove_duplicate=False))
    assert len({parameter.data_ptr() for _, parameter in named}) == len(named)
    assert len({id(module) for module in model.modules()}) == len(list(model.named_modules(remove_duplicate=False)))
    if variant == "s2":                     # two modules with the same name would leave one set of parameters: count those of the parts
        parts = (model.dhrnet, model.condition, model.denoiser)
        assert sum(len(list(part.parameters())) for part in parts) == len(named)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_image_in_a_batch_comes_out_as_it_does_alone(variant):
    model, (ldr, ev, hdr) = fresh(variant), bracket(2, 16, 16)
    X = network_input(ldr, ev)
    def forward(i):
        if variant in ("baseline", "s1"):
            return [model(X[i], hdr[i])]
        z, eps, eps_T = (normal(2, 3, 4, 4, seed=seed)[i] for seed in range(3))
        return [part for part in model(X[i], z, torch.tensor([2, 19])[i], eps, eps_T) if part is not None]
    together = forward(slice(0, 2))
    for i in range(2):
        for batch, alone in zip(together, forward(slice(i, i + 1))):
            assert (batch[i] - alone[0]).abs().max() < 1e-4 * max(1, alone.abs().max())
            assert (batch[i] - batch[1 - i]).abs().max() > 1e-4             # and the two are not the same picture


@pytest.mark.parametrize("variant, paper", [("baseline", 5.09e6), ("s1", 5.24e6), ("s2_without_dm", 5.85e6), ("s2", 7.48e6)])
def test_parameter_count_is_within_one_and_a_half_percent_of_table_3(variant, paper):
    ours = sum(math.prod(parameter.shape) for parameter in build(variant, LFDiffConfig()).parameters())
    assert abs(ours / paper - 1) < 0.015
    assert lfdiff.PAPER_PARAMETERS[variant] == paper


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="variant 's3': not one of baseline, s1"):
        build("s3", SMALL)


# --- stage 2 ---------------------------------------------------------------------------------------------------------

class KnowsThePrior(nn.Module):
    """Stands in for the denoiser: inverts Eq. 2 with the true prior, and records what it was asked."""

    def __init__(self, z, schedule):
        super().__init__()
        self.z, self.schedule, self.asked = z, schedule, []

    def forward(self, z_t, D, t):
        self.asked.append((z_t.detach().clone(), t.tolist()))
        a = self.schedule.abar[t].float().reshape(-1, 1, 1, 1)
        eps = (z_t - a.sqrt() * self.z) / (1 - a).sqrt()
        return eps if self.schedule.predict == "eps" else a.sqrt() * eps - (1 - a).sqrt() * self.z


@torch.no_grad()
@pytest.mark.parametrize("predict", ["v", "eps"])
def test_perfect_denoiser_has_no_diffusion_loss(predict):
    model = fresh("s2", config=LFDiffConfig(SMALL.dhrnet, SMALL.lpenet, SMALL.denoiser, DiffusionConfig(predict=predict)))
    z, eps, eps_T, t = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1), normal(2, 3, 4, 4, seed=2), torch.tensor([30, 170])
    model.denoiser = KnowsThePrior(z, model.schedule)
    X = network_input(*bracket(2, 16, 16)[:2])
    hdr_hat, z_hat, eps_hat = model(X, z, t, eps, eps_T)
    L_diff, terms = diffusion_loss(eps, eps_hat, z_hat, z)
    assert terms["L_eps"] < 1e-8 and terms["L1_z"] < 1e-3                       # float32, magnified 1/√ᾱ_T = 180 times on the way
    assert diffusion_loss(eps_T, eps_hat, z_hat, z)[1]["L_eps"] > 1             # the noise of another z_t will not do
    asked = model.denoiser.asked
    assert asked[0][1] == [30, 170] and torch.equal(asked[0][0], diffuse(z, t, eps, model.schedule))
    assert [times for _, times in asked[1:]] == [[s, s] for s in range(200, 0, -20)]
    assert torch.equal(asked[1][0], diffuse(z, 200, eps_T, model.schedule))     # Eq. 12: z_T is made of z in training
    assert torch.allclose(hdr_hat, model.dhrnet(X, z), atol=1e-3)
    without, z_again, _ = model(X, z, t, eps, eps_T, joint=False)
    assert without is None and torch.equal(z_again, z_hat)


def test_reconstruction_loss_trains_the_diffusion_model_through_all_its_steps():
    model, X = fresh("s2"), network_input(*bracket(2, 16, 16)[:2])
    z, eps = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    hdr_hat, z_hat, _ = model(X, z, torch.tensor([2, 19]), eps, normal(2, 3, 4, 4, seed=2))
    gradient = torch.autograd.grad((hdr_hat * normal(2, 3, 16, 16, seed=3)).sum(), [*model.denoiser.parameters(), *model.condition.parameters(), z_hat])
    assert all(part.abs().max() > 0 for part in gradient)


@torch.no_grad()
def test_without_a_diffusion_model_the_condition_is_the_prior():
    model, X = fresh("s2_without_dm"), network_input(*bracket(2, 16, 16)[:2])
    hdr_hat, z_hat, eps_hat = model(X, None, None, None, None)
    assert torch.equal(z_hat, model.condition(X)) and eps_hat is None
    assert torch.equal(model.sample(None, model.condition(X)), z_hat) and torch.equal(hdr_hat, model.dhrnet(X, z_hat))


@torch.no_grad()
def test_diffusion_sees_the_prior_standardised_and_dhrnet_as_lpenet_made_it():
    model, X = fresh("s2"), network_input(*bracket(1, 16, 16)[:2])
    model.z_mean, model.z_std = torch.tensor([1.0, -2.0, 0.5]).reshape(1, 3, 1, 1), torch.tensor([2.0, 0.5, 4.0]).reshape(1, 3, 1, 1)
    raw = torch.tensor([5.0, -1.0, -3.5]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    z = model.standardise(raw)
    assert z[0, :, 1, 2].tolist() == [2, 2, -1]
    assert torch.allclose(model.rebuild(X, z), model.dhrnet(X, raw), atol=1e-6)


def test_stage_1_gives_dhrnet_the_prior_of_the_truth():
    model, (ldr, ev, hdr) = fresh("s1"), bracket(1, 16, 16)
    X = network_input(ldr, ev)
    assert torch.equal(model(X, hdr), model.dhrnet(X, model.lpenet(hdr)))
    assert not torch.equal(model(X, hdr), model(X, hdr.flip(-1)))


# --- inference -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("H, W", [(37, 50), (17, 16), (5, 7), (16, 32)])
@pytest.mark.parametrize("variant", ["baseline", "s2_without_dm", "s2"])
def test_any_size_comes_out_at_its_size(variant, H, W):
    ldr, ev, _ = bracket(1, H, W)
    hdr_hat = reconstruct(fresh(variant), ldr, ev)
    assert hdr_hat.shape == (1, 3, H, W) and hdr_hat.dtype == torch.float32 and not hdr_hat.requires_grad
    assert ((0 < hdr_hat) & (hdr_hat < 1)).all()


@pytest.mark.parametrize("H, W, mode", [(37, 50, "reflect"), (17, 16, "reflect"), (5, 7, "edge"), (20, 3, "edge"), (16, 32, "reflect")])
def test_padding_reflects_to_multiples_of_16(H, W, mode):
    image = rand(2, 3, H, W)
    padded = pad_to_multiple(image)
    assert padded.shape == (2, 3, -(-H // 16) * 16, -(-W // 16) * 16)
    assert np.array_equal(padded.numpy(), np.pad(image.numpy(), ((0, 0), (0, 0), (0, -H % 16), (0, -W % 16)), mode=mode))


def test_inference_pads_and_crops_without_moving_the_image():
    ldr, ev, _ = bracket(2, 19, 35)
    shapes = []
    def radiance_of_reference(X):
        shapes.append(tuple(X.shape))
        return X[:, 1, 3:]
    hdr_hat = reconstruct(SimpleNamespace(variant="baseline", dhrnet=radiance_of_reference), ldr, ev)
    assert shapes == [(2, 3, 6, 32, 48)]
    assert torch.allclose(hdr_hat, ldr[:, 1] ** 2.2 / 4, atol=1e-6)             # 2 stops above the shortest


def test_stage_1_is_refused_at_inference():
    with pytest.raises(ValueError, match="stage 1, .*; use those of stage 2"):
        reconstruct(fresh("s1"), *bracket(1, 16, 16)[:2])


def test_one_seed_gives_one_image_and_another_seed_another():
    model, (ldr, ev, _) = fresh("s2"), bracket(1, 16, 16)
    first, again, other = (reconstruct(model, ldr, ev, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_ancestral_sampler_takes_all_steps_of_eq_14_from_the_same_noise():
    model, (ldr, ev, _) = fresh("s2"), bracket(1, 16, 16)
    z_T, z, generator = (torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1)), normal(1, 3, 4, 4, seed=5),
                         torch.Generator().manual_seed(1))
    torch.randn(1, 3, 4, 4, generator=generator)                                # z_T is drawn first
    knows = model.denoiser = KnowsThePrior(z, model.schedule)
    hdr_hat = reconstruct(model, ldr, ev, sampler="ancestral", generator=torch.Generator().manual_seed(1))
    assert [t for _, [t] in knows.asked] == list(range(20, 0, -1))
    z_t = z_T
    for (seen, [t]) in knows.asked:
        assert torch.allclose(seen, z_t, atol=1e-5)
        eps_hat = (z_t - model.schedule.abar[t].sqrt().float() * z) / (1 - model.schedule.abar[t]).sqrt().float()
        z_t = ancestral_step(z_t, t, eps_hat, torch.randn(1, 3, 4, 4, generator=generator), model.schedule)
    X = network_input(ldr, ev)
    assert torch.allclose(hdr_hat, model.rebuild(X, z_t), atol=1e-4) and (z_t - z).abs().max() < 1e-3     # the true noise leads back to z


@pytest.mark.parametrize("S, times", [(None, [20, 13, 7]), (1, [20]), (20, list(range(20, 0, -1)))])
def test_inference_takes_the_asked_number_of_steps_from_pure_noise(S, times):
    model, (ldr, ev, _) = fresh("s2"), bracket(1, 16, 16)
    model.denoiser = KnowsThePrior(torch.zeros(1, 3, 4, 4), model.schedule)
    reconstruct(model, ldr, ev, S, generator=torch.Generator().manual_seed(1))
    assert [t for _, [t] in model.denoiser.asked] == times
    assert torch.equal(model.denoiser.asked[0][0], torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1)))
