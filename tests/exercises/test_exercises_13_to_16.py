"""Grades exercises 13 to 16: the losses, a pass of stage 2, inference."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from slow import normal, rand
from yours import holds, same


def slow_T(hdr):
    return torch.log(1 + 5000 * hdr.float()) / math.log(5001)


def row(*values):
    return torch.tensor(values).reshape(1, 1, 1, -1)


# --- 13: L_r ----------------------------------------------------------------------------------------------------------

def two_maps(hdr_mu):
    """Stands in for VGG19: the image, and three times its red channel."""
    return [hdr_mu, 3 * hdr_mu[:, :1]]


def test_ex13_the_loss_of_a_grey_image_is_as_computed_by_hand(code, monkeypatch):
    monkeypatch.setattr(code.loss, "T", slow_T)
    zero, grey = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.01)        # T(0.01) = log 51 / log 5001 = 0.46164
    L_r, terms = code.loss.reconstruction_loss(grey, zero, None, 0.01)
    same("Eq. 11 without VGG", L_r, math.log(51) / math.log(5001))
    holds(f"the terms without VGG: 'L1_mu' alone is wanted, yours are {list(terms)}", list(terms) == ["L1_mu"])
    L_r, terms = code.loss.reconstruction_loss(grey, zero, two_maps, 0.5)       # the norms of the maps: 0.46164 and 3 times that
    same("Eq. 11, λ = 0.5, its second term before λ", terms["L_phi"], 2 * math.log(51) / math.log(5001))
    same("Eq. 11, λ = 0.5", L_r, 2 * math.log(51) / math.log(5001))


def test_ex13_the_loss_agrees_with_numpy(code, monkeypatch):
    monkeypatch.setattr(code.loss, "T", slow_T)
    hdr_hat, hdr = rand(2, 3, 4, 6) ** 4, rand(2, 3, 4, 6, seed=1) ** 4
    a, b = (np.log(1 + 5000 * image.double().numpy()) / np.log(5001) for image in (hdr_hat, hdr))
    L1, L_phi = np.abs(a - b).mean(), (np.abs(a - b).mean() + 3 * np.abs(a - b)[:, 0].mean()) / 2
    for lam in (0.01, 0.5):
        L_r, terms = code.loss.reconstruction_loss(hdr_hat, hdr, two_maps, lam)
        same("Eq. 11, its first term", terms["L1_mu"], L1)
        same("Eq. 11, its second term before λ", terms["L_phi"], L_phi)
        same(f"Eq. 11, λ = {lam}", L_r, L1 + lam * L_phi)


def test_ex13_the_gradient_reaches_the_output_and_the_terms_are_detached(code, monkeypatch):
    monkeypatch.setattr(code.loss, "T", slow_T)
    hdr_hat, hdr = (rand(1, 3, 2, 2) + 0.1).requires_grad_(), rand(1, 3, 2, 2, seed=1)
    L_r, terms = code.loss.reconstruction_loss(hdr_hat, hdr, two_maps, 0.5)
    L_r.backward()
    holds("the terms are for the log: detach them", not any(term.requires_grad for term in terms.values()))
    slope = 5000 / (1 + 5000 * hdr_hat.detach()) / math.log(5001) * (hdr_hat.detach() - hdr).sign()
    wanted = slope / 12 * 1.25                                                  # first term, and half of λ times the first map
    wanted[:, 0] += 0.25 * 3 / 4 * slope[:, 0]                                  # the second map: the mean over 4 pixels
    same("the gradient of Eq. 11", hdr_hat.grad, wanted)


# --- 14: L_diff -------------------------------------------------------------------------------------------------------

def test_ex14_the_loss_of_two_numbers_is_as_computed_by_hand(code):
    L_diff, terms = code.loss.diffusion_loss(row(1.0, -1.0), row(0.0, 1.0), row(0.5, 0.0), row(0.0, 0.25))
    same("Eq. 15, first term", terms["L_eps"], 2.5)                             # (1² + 2²) / 2
    same("Eq. 15, second term", terms["L1_z"], 0.375)                           # (0.5 + 0.25) / 2
    same("Eq. 15", L_diff, 2.875)


def test_ex14_the_loss_agrees_with_a_loop(code):
    eps, eps_hat, z_hat, z = (normal(2, 3, 2, 2, seed=seed) for seed in range(4))
    squares = [(float(eps[i]) - float(eps_hat[i])) ** 2 for i in np.ndindex(2, 3, 2, 2)]
    distances = [abs(float(z_hat[i]) - float(z[i])) for i in np.ndindex(2, 3, 2, 2)]
    same("Eq. 15", code.loss.diffusion_loss(eps, eps_hat, z_hat, z)[0], (sum(squares) + sum(distances)) / 24)


def test_ex14_without_a_diffusion_model_the_second_term_remains(code):
    L_diff, terms = code.loss.diffusion_loss(row(5.0, 5.0), None, row(0.5, 0.0), row(0.0, 0.25))
    same("Eq. 15 without a diffusion model", L_diff, 0.375)
    holds(f"its terms: 'L1_z' alone is wanted, yours are {list(terms)}", list(terms) == ["L1_z"])


def test_ex14_both_terms_have_a_gradient(code):
    eps_hat, z_hat = row(0.0, 1.0).requires_grad_(), row(0.5, 0.0).requires_grad_()
    L_diff, terms = code.loss.diffusion_loss(row(1.0, -1.0), eps_hat, z_hat, row(0.0, 0.25))
    L_diff.backward()
    same("Eq. 15, gradient of ε_θ", eps_hat.grad, row(-1.0, 2.0))
    same("Eq. 15, gradient of ẑ", z_hat.grad, row(0.5, -0.5))
    holds("the terms are for the log: detach them", not any(term.requires_grad for term in terms.values()))


# --- 15: a pass of stage 2 --------------------------------------------------------------------------------------------

def stub_of_stage_2(code, monkeypatch, denoiser=True):
    """A Stage2 whose parts are formulas: D = mean of X, ε_θ = z_t / 2 + D + t / 100, Ĥ = 10 ẑ + X. diffuse and ddim are just as short."""
    schedule = SimpleNamespace(T=20, abar=torch.linspace(1, 0.05, 21))

    def diffuse(z_0, t, eps, schedule):
        a = schedule.abar[t].reshape(-1, 1, 1, 1)
        return a.sqrt() * z_0 + (1 - a).sqrt() * eps

    def ddim(denoise, z_T, schedule, S, eta=0.0, generator=None):
        for _ in range(S):
            z_T = z_T - denoise(z_T, torch.full((len(z_T),), 7)) / 4
        return z_T
    monkeypatch.setattr(code.lfdiff, "diffuse", diffuse)
    monkeypatch.setattr(code.lfdiff, "ddim", ddim)
    model = SimpleNamespace(
        schedule=schedule, config=SimpleNamespace(diffusion=SimpleNamespace(T=20, S=3, eta=0.0)), denoiser=object() if denoiser else None,
        condition=lambda X: X.mean(dim=(1, 2, 3, 4)).reshape(-1, 1, 1, 1).expand(-1, 1, 1, 2),
        eps_theta=lambda z_t, D, t: z_t / 2 + D + t.reshape(-1, 1, 1, 1) / 100, rebuild=lambda X, z: 10 * z + X[:, 0, :1, :1, :2])
    model.sample = lambda z_T, D, *rest: code.lfdiff.Stage2.sample(model, z_T, D, *rest)        # a student may call it: η is 0 here
    return model


def test_ex15_one_image_goes_through_as_computed_by_hand(code, monkeypatch):
    model = stub_of_stage_2(code, monkeypatch)
    model.config.diffusion.S, model.schedule.abar = 1, torch.full((21,), 0.64)      # √ᾱ = 0.8, √(1 - ᾱ) = 0.6 at any t
    X, z, eps, eps_T = torch.ones(1, 3, 6, 1, 2), row(1.0, 2.0), row(1.0, 0.0), row(0.0, 1.0)
    hdr_hat, z_hat, eps_hat = code.lfdiff.Stage2.forward(model, X, z, torch.tensor([5]), eps, eps_T)
    same("ε_θ(z_t, D, t) at t = 5", eps_hat, row(0.7 + 1.05, 0.8 + 1.05))           # z_t = (1.4, 1.6), D = 1
    same("ẑ after one step of the stub", z_hat, row(0.8 - (0.4 + 1.07) / 4, 2.2 - (1.1 + 1.07) / 4))        # z_T = (0.8, 2.2)
    same("Ĥ", hdr_hat, 10 * z_hat + 1)


def test_ex15_a_batch_agrees_with_the_formulas_written_out(code, monkeypatch):
    model = stub_of_stage_2(code, monkeypatch)
    X, z, t = rand(2, 3, 6, 1, 2), normal(2, 1, 1, 2), torch.tensor([3, 17])
    eps, eps_T = normal(2, 1, 1, 2, seed=1), normal(2, 1, 1, 2, seed=2)
    hdr_hat, z_hat, eps_hat = code.lfdiff.Stage2.forward(model, X, z, t, eps, eps_T)
    for i in range(2):
        D, a, a_T = float(X[i].mean()), float(model.schedule.abar[t[i]]), float(model.schedule.abar[20])
        same("ε_θ", eps_hat[i], (math.sqrt(a) * z[i] + math.sqrt(1 - a) * eps[i]) / 2 + D + float(t[i]) / 100)
        wanted = math.sqrt(a_T) * z[i] + math.sqrt(1 - a_T) * eps_T[i]
        for _ in range(3):
            wanted = wanted - (wanted / 2 + D + 0.07) / 4
        same("ẑ", z_hat[i], wanted)
        same("Ĥ", hdr_hat[i], 10 * wanted + X[i, 0, :1, :1, :2])


def test_ex15_the_gradient_passes_from_the_image_through_all_steps(code, monkeypatch):
    model, D = stub_of_stage_2(code, monkeypatch), torch.ones(1, 1, 1, 2, requires_grad=True)
    model.condition = lambda X: D
    hdr_hat, _, _ = code.lfdiff.Stage2.forward(model, torch.ones(1, 3, 6, 1, 2), row(1.0, 2.0), torch.tensor([5]), row(1.0, 0.0), row(0.0, 1.0))
    hdr_hat.sum().backward()                                                        # each of 3 steps is z -> 7/8 z - D / 4
    same("dĤ/dD", D.grad, row(*2 * [-10 / 4 * (1 + 7 / 8 + 49 / 64)]))


def test_ex15_without_dhrnet_there_is_no_image_and_without_a_denoiser_D_is_the_prior(code, monkeypatch):
    X, z, noise = rand(1, 3, 6, 1, 2), normal(1, 1, 1, 2), normal(1, 1, 1, 2, seed=1)
    hdr_hat, z_hat, _ = code.lfdiff.Stage2.forward(stub_of_stage_2(code, monkeypatch), X, z, torch.tensor([5]), noise, noise, joint=False)
    holds("joint=False: the image is None, and ẑ is there all the same", hdr_hat is None and isinstance(z_hat, torch.Tensor))
    model = stub_of_stage_2(code, monkeypatch, denoiser=False)
    hdr_hat, z_hat, eps_hat = code.lfdiff.Stage2.forward(model, X, None, None, None, None)
    same("without a denoiser, ẑ is D", z_hat, model.condition(X))
    same("without a denoiser, Ĥ", hdr_hat, 10 * model.condition(X) + X[:, 0, :1, :1, :2])
    holds("without a denoiser, eps_hat is None", eps_hat is None)


# --- 16: inference ----------------------------------------------------------------------------------------------------

def stub_of_a_model(calls):
    """A model whose prior has a quarter of X's sides, and whose image is X's first three channels plus the prior's mean."""
    def sample(z_T, D, S=None, sampler="ddim", generator=None):
        calls.append((z_T, D, S, sampler, generator))
        return z_T + 100 * D
    return SimpleNamespace(variant="s2", condition=lambda X: X[:, 1, :3, ::4, ::4], sample=sample,
                           rebuild=lambda X, z: X[:, 0, :3] + z.mean())


def test_ex16_a_constant_comes_out_as_computed_by_hand(code, monkeypatch):
    monkeypatch.setattr(code.lfdiff, "network_input", lambda ldr, ev: torch.cat([ldr, ldr], dim=2))
    model = stub_of_a_model([])
    model.sample = lambda z_T, D, S=None, sampler="ddim", generator=None: 0 * z_T + D
    same("Ĥ of frames of 0.25, X + mean of D", code.lfdiff.reconstruct(model, torch.full((1, 3, 3, 16, 16), 0.25), torch.tensor([[0.0, 2.0, 4.0]])),
         torch.full((1, 3, 16, 16), 0.5))


@pytest.mark.parametrize("H, W", [(16, 16), (5, 18)])
def test_ex16_noise_becomes_a_prior_and_the_prior_an_image_of_the_given_size(code, monkeypatch, H, W):
    monkeypatch.setattr(code.lfdiff, "network_input", lambda ldr, ev: torch.cat([ldr, 0.5 * ldr], dim=2))
    calls, ldr, generator = [], rand(1, 3, 3, H, W), torch.Generator().manual_seed(4)
    yours = code.lfdiff.reconstruct(stub_of_a_model(calls), ldr, torch.tensor([[0.0, 2.0, 4.0]]), 7, "ancestral", generator)
    holds(f"model.sample is wanted once, yours is called {len(calls)} times", len(calls) == 1)
    padded = torch.from_numpy(np.pad(ldr.numpy(), (*3 * [(0, 0)], (0, -H % 16), (0, -W % 16)), mode="edge" if H == 5 else "reflect"))
    z_T = torch.randn(1, 3, padded.shape[-2] // 4, padded.shape[-1] // 4, generator=torch.Generator().manual_seed(4))
    same("D", calls[0][1], padded[:, 1, :, ::4, ::4])
    same("z_T, the generator's first numbers", calls[0][0], z_T)
    holds("S, sampler and generator go on to model.sample", calls[0][2:4] == (7, "ancestral") and calls[0][4] is generator)
    same("Ĥ", yours, ldr[:, 0] + (z_T + 100 * padded[:, 1, :, ::4, ::4]).mean(), 1e-4)
