"""ddim.py: Eq. 1-5, 12, 14 and the DDIM loop, against hand values, closed forms and NumPy.

Everything runs in float64, so that a tolerance of 1e-10 means "the same formula".
"""

import numpy as np
import pytest
import torch

from ddim import (DiffusionConfig, Schedule, ancestral, ancestral_step, ddim, ddim_step, diffuse, noise_from_output, predict_z0,
                  sampling_times)

torch.set_num_threads(1)

TWO = Schedule(DiffusionConfig(T=2, S=2, beta_1=0.1, beta_T=0.3))      # alpha = 0.9, 0.7; abar = 0.9, 0.63
PAPER = Schedule(DiffusionConfig())


def abar_by_product(config=None):
    """abar_t written out in NumPy, independently of Schedule."""
    config = config or DiffusionConfig()
    abar = [1.0]
    for t in range(1, config.T + 1):
        abar.append(abar[-1] * (1 - config.beta_1 - (config.beta_T - config.beta_1) * (t - 1) / max(config.T - 1, 1)))
    return np.array(abar)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scalar(value):
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


def oracle(z_0, abar):
    """The denoiser that knows z_0: Eq. 2 solved for the noise."""
    def denoise(z_t, t):
        a = torch.tensor(abar)[t].reshape(-1, 1, 1, 1)
        return (z_t - a.sqrt() * z_0) / (1 - a).sqrt()
    return denoise


def exact_noise_of_gaussian(m, s, abar):
    """E[ε | z_t] when z_0 ~ N(m, s²): √(1-ᾱ)(z_t - √ᾱ m) / (ᾱ s² + 1 - ᾱ)."""
    def denoise(z_t, t):
        a = float(abar[int(t.flatten()[0])])
        return (1 - a) ** 0.5 * (z_t - a ** 0.5 * m) / (a * s ** 2 + 1 - a)
    return denoise


# --- schedule -------------------------------------------------------------------------------------------------------

def test_two_step_schedule_has_the_values_computed_by_hand():
    assert np.allclose(TWO.beta, [0, 0.1, 0.3], atol=1e-7)
    assert np.allclose(TWO.alpha, [1, 0.9, 0.7], atol=1e-7)
    assert np.allclose(TWO.abar, [1, 0.9, 0.63], atol=1e-7)


def test_beta_rises_linearly_between_its_two_ends():
    beta = PAPER.beta.numpy()
    assert len(beta) == 201 and abs(beta[1] - 5e-4) < 1e-8 and abs(beta[200] - 0.1) < 1e-8
    assert np.allclose(np.diff(beta[1:]), (0.1 - 5e-4) / 199, atol=1e-7)


def test_abar_falls_from_one_to_almost_nothing():
    abar = PAPER.abar.numpy()
    assert abar[0] == 1 and (np.diff(abar) < 0).all() and 0 < abar[-1] < 1e-3
    assert np.allclose(abar, abar_by_product(), rtol=1e-5, atol=0)      # the running product to t, not to T
    assert abs(abar[-1] - 3e-5) < 1e-6                                  # the number the documentation quotes


def test_unscaled_ddpm_schedule_would_leave_the_truth_in_z_T():
    assert 0.12 < Schedule(DiffusionConfig(beta_1=1e-4, beta_T=0.02)).abar[-1] < 0.14


@pytest.mark.parametrize("wrong", [{"S": 0}, {"S": 201}, {"T": 0}, {"beta_1": 0.0}, {"beta_T": 1.0}, {"beta_1": 0.2}, {"beta_1": float("nan")},
                                   {"eta": 1.5}, {"T": 10 ** 6}, {"predict": "z_0"}])
def test_schedule_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match=r"--beta-T .*: need|--predict .*: use"):
        Schedule(DiffusionConfig(**wrong))


# --- Eq. 1, 2, 12: forward process -----------------------------------------------------------------------------------

def test_forward_process_at_hand_values():
    assert abs(diffuse(scalar(2.0), 2, scalar(-1.0), TWO).item() - (2 * 0.63 ** 0.5 - 0.37 ** 0.5)) < 1e-6
    assert diffuse(scalar(2.0), 0, scalar(-1.0), TWO).item() == 2.0


def test_forward_process_has_mean_and_variance_of_eq_12():
    # 5 standard errors: of a mean σ/√n, of a variance σ² √(2/n). √ᾱ = 0.72 and ᾱ = 0.52 are 280 of them apart.
    n, t = 200_000, 50
    abar_t = abar_by_product()[t]
    z_t = diffuse(torch.full((n, 1, 1, 1), 1.5, dtype=torch.float64), t, normal(n, 1, 1, 1), PAPER)
    assert abs(z_t.mean().item() - abar_t ** 0.5 * 1.5) < 5 * ((1 - abar_t) / n) ** 0.5
    assert abs(z_t.var().item() - (1 - abar_t)) < 5 * (1 - abar_t) * (2 / n) ** 0.5


def test_each_sample_of_a_batch_has_its_own_time():
    z_0, eps, t = normal(4, 3, 2, 2), normal(4, 3, 2, 2, seed=1), torch.tensor([0, 1, 77, 200])
    z_t, abar = diffuse(z_0, t, eps, PAPER), abar_by_product()
    for i in range(4):
        by_hand = abar[t[i]] ** 0.5 * z_0[i] + (1 - abar[t[i]]) ** 0.5 * eps[i]
        assert (z_t[i] - by_hand).abs().max() < 1e-6
        assert (z_t[i] - diffuse(z_0[i:i + 1], int(t[i]), eps[i:i + 1], PAPER)[0]).abs().max() < 1e-12


# --- from noise back to z_0 ------------------------------------------------------------------------------------------

def test_true_noise_recovers_z_0_in_one_step_from_any_time():
    z_0, eps = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    for t in range(1, 201):
        assert (predict_z0(diffuse(z_0, t, eps, PAPER), t, eps, PAPER) - z_0).abs().max() < 1e-12    # rounding 2e-16 / √ᾱ_T
    t = torch.tensor([3, 190])
    assert (predict_z0(diffuse(z_0, t, eps, PAPER), t, eps, PAPER) - z_0).abs().max() < 1e-12


@pytest.mark.parametrize("S", [1, 3, 10, 200])
def test_true_noise_recovers_z_0_through_S_steps(S):
    z_0, eps = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    z_T = diffuse(z_0, 200, eps, PAPER)
    assert (ddim(oracle(z_0, PAPER.abar.numpy()), z_T, PAPER, S) - z_0).abs().max() < 1e-10


def test_v_output_turns_into_the_noise_it_was_made_of():
    z_0, eps, t = normal(3, 3, 2, 2), normal(3, 3, 2, 2, seed=1), torch.tensor([1, 60, 200])
    a = torch.tensor(abar_by_product())[t].reshape(3, 1, 1, 1)
    z_t, v = a.sqrt() * z_0 + (1 - a).sqrt() * eps, a.sqrt() * eps - (1 - a).sqrt() * z_0
    assert (noise_from_output(v, z_t, t, PAPER) - eps).abs().max() < 1e-6       # the schedule's beta is rounded to float32


def test_eps_output_is_the_noise_itself():
    output = normal(3, 3, 2, 2)
    schedule = Schedule(DiffusionConfig(predict="eps"))
    assert torch.equal(noise_from_output(output, normal(3, 3, 2, 2, seed=1), torch.tensor([1, 60, 200]), schedule), output)


# --- Eq. 3, 4, 14: ancestral sampler ---------------------------------------------------------------------------------

def test_ancestral_step_at_hand_values():
    z, eps_hat, eps = scalar(1.0), scalar(0.5), scalar(2.0)
    mean = (1 - 0.3 / 0.37 ** 0.5 * 0.5) / 0.7 ** 0.5
    assert abs(ancestral_step(z, 2, eps_hat, eps, TWO).item() - (mean + 2 * 0.3 ** 0.5)) < 1e-6
    posterior = (0.1 / 0.37 * 0.3) ** 0.5                                       # Eq. 3
    assert abs(ancestral_step(z, 2, eps_hat, eps, TWO, "posterior").item() - (mean + 2 * posterior)) < 1e-6


def test_last_ancestral_step_adds_no_noise():
    mean = (1 - 0.1 / 0.1 ** 0.5 * 0.5) / 0.9 ** 0.5
    for variance in ("beta", "posterior"):
        assert abs(ancestral_step(scalar(1.0), 1, scalar(0.5), scalar(9.0), TWO, variance).item() - mean) < 1e-6


def moments_of_ancestral_chain(m, s, variance):
    """Mean and variance at t = 0 of the chain that starts at N(0, 1) and asks exact_noise_of_gaussian: each step is z -> k z + c + σ ε."""
    config, abar, mean, var = DiffusionConfig(), abar_by_product(), 0.0, 1.0
    for t in range(config.T, 0, -1):
        alpha = abar[t] / abar[t - 1]
        sigma2 = 0 if t == 1 else (1 - alpha) if variance == "beta" else (1 - abar[t - 1]) / (1 - abar[t]) * (1 - alpha)
        spread = abar[t] * s ** 2 + 1 - abar[t]
        k, c = (1 - (1 - alpha) / spread) / alpha ** 0.5, (1 - alpha) / spread * (abar[t] / alpha) ** 0.5 * m
        mean, var = k * mean + c, k ** 2 * var + sigma2
    return mean, var


# Eq. 14's variance β_t is exact for data of variance 1, Eq. 3's β̃_t for data of variance 0 (Ho et al. 2020, Sec. 3.2). In between T = 200
# steps leave an error of this size; the chain itself must have the moments of its recursion within 5 standard errors.
@pytest.mark.parametrize("s, variance, error", [(1.0, "beta", 0.001), (0.5, "beta", 0.02), (0.5, "posterior", 0.07)])
def test_ancestral_sampler_reproduces_gaussian_data(s, variance, error):
    m, n = 2.0, 20_000
    denoise = exact_noise_of_gaussian(m, s, PAPER.abar.numpy())
    z = normal(n, 1, 1, 1)
    for t in range(200, 0, -1):
        z = ancestral_step(z, t, denoise(z, torch.tensor([t])), normal(n, 1, 1, 1, seed=t), PAPER, variance)
    mean, var = moments_of_ancestral_chain(m, s, variance)
    assert abs(mean - m) < 1e-4 and abs(var / s ** 2 - 1) < error
    assert abs(z.mean().item() - mean) < 5 * s / n ** 0.5
    assert abs(z.var().item() / var - 1) < 5 * (2 / n) ** 0.5


def test_the_ancestral_loop_reproduces_gaussian_data_in_all_steps_from_t_to_1():
    m, s, n, visited = 2.0, 0.5, 20_000, []
    exact = exact_noise_of_gaussian(m, s, PAPER.abar.numpy())
    z = ancestral(lambda z_t, t: visited.append(int(t[0])) or exact(z_t, t), normal(n, 1, 1, 1), PAPER, torch.Generator().manual_seed(1))
    mean, var = moments_of_ancestral_chain(m, s, "beta")
    assert visited == list(range(200, 0, -1)) and z.dtype == torch.float64
    assert abs(z.mean().item() - mean) < 5 * s / n ** 0.5 and abs(z.var().item() / var - 1) < 5 * (2 / n) ** 0.5


# --- DDIM ------------------------------------------------------------------------------------------------------------

def test_ddim_with_every_step_and_eta_one_is_the_posterior_sampler_step_by_step():
    z_t, eps_hat, eps = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1), normal(2, 3, 4, 4, seed=2)
    for t in range(1, 201):
        theirs = ancestral_step(z_t, t, eps_hat, eps, PAPER, "posterior")
        assert (ddim_step(z_t, t, t - 1, eps_hat, PAPER, 1.0, eps) - theirs).abs().max() < 1e-9, t


def test_ddim_with_every_step_and_eta_one_is_the_posterior_sampler_in_distribution():
    m, s, n = 2.0, 0.5, 20_000
    denoise = exact_noise_of_gaussian(m, s, PAPER.abar.numpy())
    z = ddim(denoise, normal(n, 1, 1, 1), PAPER, 200, eta=1.0, generator=torch.Generator().manual_seed(1))
    mean, var = moments_of_ancestral_chain(m, s, "posterior")
    assert abs(z.mean().item() - mean) < 5 * s / n ** 0.5
    assert abs(z.var().item() / var - 1) < 5 * (2 / n) ** 0.5
    normalised = ((z.flatten() - mean) / var ** 0.5).sort().values          # and it is a Gaussian: quantiles, 5 standard errors each
    for quantile, expected, density in ((0.025, -1.96, 0.0584), (0.25, -0.6745, 0.3178), (0.5, 0.0, 0.3989), (0.975, 1.96, 0.0584)):
        assert abs(normalised[int(quantile * n)].item() - expected) < 5 * (quantile * (1 - quantile) / n) ** 0.5 / density


def test_deterministic_ddim_carries_z_T_to_gaussian_data_with_few_steps():
    # The exact flow of Gaussian data keeps (z_t - mean_t) / deviation_t, so 200 steps must give m + s z_T.
    m, s, z_T = 2.0, 0.5, normal(1000, 1, 1, 1)
    z = ddim(exact_noise_of_gaussian(m, s, PAPER.abar.numpy()), z_T, PAPER, 200)
    assert (z - (m + s * z_T)).abs().max() < 0.08


@pytest.mark.parametrize("S, eta", [(10, 0.0), (7, 0.0), (10, 0.5), (200, 1.0)])
def test_ddim_loop_agrees_with_numpy(S, eta):
    z_T, abar = normal(2, 3, 2, 2), PAPER.abar.numpy()
    ours = ddim(lambda z, t: torch.tanh(z) * torch.cos(t.double()).reshape(-1, 1, 1, 1), z_T, PAPER, S, eta,
                torch.Generator().manual_seed(3))
    z, draws = z_T.numpy(), torch.Generator().manual_seed(3)
    times = [int(np.round(200 * k / S)) for k in range(S, -1, -1)]
    for t, nxt in zip(times[:-1], times[1:]):
        eps_hat = np.tanh(z) * np.cos(t)
        x0 = (z - np.sqrt(1 - abar[t]) * eps_hat) / np.sqrt(abar[t])
        sigma = eta * np.sqrt((1 - abar[nxt]) / (1 - abar[t]) * (1 - abar[t] / abar[nxt]))
        z = np.sqrt(abar[nxt]) * x0 + np.sqrt(max(1 - abar[nxt] - sigma ** 2, 0)) * eps_hat
        if eta:
            z = z + sigma * torch.randn(2, 3, 2, 2, generator=draws).double().numpy()
    assert np.abs(ours.numpy() - z).max() < 1e-9 * max(1, np.abs(z).max())


@pytest.mark.parametrize("T, S, times", [(200, 10, [200, 180, 160, 140, 120, 100, 80, 60, 40, 20]), (10, 3, [10, 7, 3]), (4, 4, [4, 3, 2, 1])])
def test_ddim_asks_the_denoiser_at_these_times(T, S, times):
    asked = []
    def denoise(z_t, t):
        assert t.dtype == torch.int64 and t.shape == (2,)
        asked.append(t.tolist())
        return torch.zeros_like(z_t)
    ddim(denoise, normal(2, 1, 1, 1), Schedule(DiffusionConfig(T=T, S=S)), S)
    assert asked == [[t, t] for t in times]


def test_ddim_ends_at_time_zero():
    # A denoiser that sees no noise: every step multiplies by √(ᾱ_next / ᾱ_t), and the product is 1/√ᾱ_T only if the last step ends at t = 0.
    for S in (1, 7, 10, 200):
        z = ddim(lambda z_t, t: torch.zeros_like(z_t), scalar(1.0), PAPER, S)
        assert abs(z.item() * PAPER.abar[-1].item() ** 0.5 - 1) < 1e-12


def test_last_ddim_step_is_the_predicted_z_0_itself():
    z_t, eps_hat = normal(2, 3, 2, 2), normal(2, 3, 2, 2, seed=1)
    for eta in (0.0, 1.0):
        assert torch.equal(ddim_step(z_t, 20, 0, eps_hat, PAPER, eta, normal(2, 3, 2, 2, seed=2)), predict_z0(z_t, 20, eps_hat, PAPER))


@pytest.mark.parametrize("T, S", [(200, 1), (200, 5), (200, 10), (200, 20), (200, 50), (200, 100), (200, 200), (200, 7), (200, 133), (3, 2), (1, 1)])
def test_sampling_times_fall_from_T_without_repetition(T, S):
    times = sampling_times(T, S)
    assert len(times) == S and times[0] == T and times[-1] >= 1
    assert all(a > b for a, b in zip(times, times[1:]))


@pytest.mark.parametrize("S", [0, -1, 201])
def test_more_sampling_steps_than_were_trained_are_refused(S):
    with pytest.raises(ValueError, match="steps"):
        sampling_times(200, S)


def test_gradient_passes_through_all_steps_of_the_loop():
    # A noise w_t that does not depend on z_t: z / √ᾱ changes by w_t (√(1/ᾱ_next - 1) - √(1/ᾱ_t - 1)) at each step, from z_T / √ᾱ_T to z_0.
    z_T, w = normal(1, 1, 2, 2).requires_grad_(), torch.zeros(201, dtype=torch.float64, requires_grad=True)
    ddim(lambda z_t, t: w[t[0]].expand(z_t.shape), z_T, PAPER, 10).sum().backward()
    root = (1 / PAPER.abar - 1).sqrt()
    by_hand = torch.zeros(201, dtype=torch.float64)
    for t in range(20, 201, 20):
        by_hand[t] = 4 * (root[t - 20] - root[t])
    assert torch.allclose(z_T.grad, 1 / PAPER.abar[-1].sqrt(), rtol=1e-9) and torch.allclose(w.grad, by_hand, rtol=1e-9)


def test_ddim_noise_comes_from_the_generator_alone():
    first, again, other = (ddim(lambda z_t, t: 0.1 * z_t, normal(1, 1, 2, 2), PAPER, 5, 1.0, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
