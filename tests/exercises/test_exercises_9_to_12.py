"""Grades exercises 9 to 12: schedule and forward process, the ancestral step, the DDIM step and its loop. All in float64."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from slow import normal
from yours import holds, same


def schedule_by_loop(T=200, beta_1=5e-4, beta_T=0.1):
    """beta, alpha and abar, written out."""
    beta, abar = [0.0], [1.0]
    for t in range(1, T + 1):
        beta.append(beta_1 + (beta_T - beta_1) * (t - 1) / max(T - 1, 1))
        abar.append(abar[-1] * (1 - beta[t]))
    as_tensor = lambda values: torch.tensor(values, dtype=torch.float64)
    return SimpleNamespace(T=T, beta=as_tensor(beta), alpha=1 - as_tensor(beta), abar=as_tensor(abar), predict="eps")


TWO = schedule_by_loop(2, 0.1, 0.3)             # alpha = 0.9, 0.7; abar = 0.9, 0.63


def scalar(value):
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


def noise(*shape, seed=0):
    return normal(*shape, seed=seed).double()


# --- 9: schedule and forward process ----------------------------------------------------------------------------------

def test_ex9_two_steps_have_the_schedule_computed_by_hand(code):
    schedule = code.ddim.Schedule(code.ddim.DiffusionConfig(T=2, S=2, beta_1=0.1, beta_T=0.3))
    for name, values in (("beta", [0, 0.1, 0.3]), ("alpha", [1, 0.9, 0.7]), ("abar", [1, 0.9, 0.63])):
        same(f"schedule.{name}, T = 2", getattr(schedule, name), values, 1e-7)


def test_ex9_the_paper_s_schedule_agrees_with_a_loop_in_float64(code):
    schedule, wanted = code.ddim.Schedule(code.ddim.DiffusionConfig()), schedule_by_loop()
    for name in ("beta", "alpha", "abar"):
        same(f"schedule.{name}, T = 200", getattr(schedule, name), getattr(wanted, name), 1e-12)


def test_ex9_forward_process_has_the_values_computed_by_hand(code):
    same("Eq. 2, z_0 = 2, ε = -1, ᾱ = 0.63", code.ddim.diffuse(scalar(2.0), 2, scalar(-1.0), TWO), scalar(2 * math.sqrt(0.63) - math.sqrt(0.37)), 1e-9)
    same("Eq. 2 at t = 0", code.ddim.diffuse(scalar(2.0), 0, scalar(-1.0), TWO), scalar(2.0), 1e-9)


def test_ex9_each_image_of_a_batch_has_its_own_time(code):
    schedule, z_0, eps, t = schedule_by_loop(), noise(3, 2, 2, 2), noise(3, 2, 2, 2, seed=1), torch.tensor([1, 77, 200])
    wanted = [math.sqrt(schedule.abar[t[i]]) * z_0[i] + math.sqrt(1 - schedule.abar[t[i]]) * eps[i] for i in range(3)]
    same("Eq. 2 at t = 1, 77, 200", code.ddim.diffuse(z_0, t, eps, schedule), torch.stack(wanted), 1e-9)


# --- 10: the ancestral step -------------------------------------------------------------------------------------------

MEAN = (1 - 0.3 / math.sqrt(0.37) * 0.5) / math.sqrt(0.7)       # of the step from t = 2, with z_t = 1 and ε_θ = 0.5


def test_ex10_a_step_of_eq_14_has_the_value_computed_by_hand(code):
    yours = code.ddim.ancestral_step(scalar(1.0), 2, scalar(0.5), scalar(2.0), TWO)
    same("Eq. 14 at t = 2", yours, scalar(MEAN + 2 * math.sqrt(0.3)), 1e-9)


def test_ex10_the_posterior_variance_is_that_of_eq_3(code):
    yours = code.ddim.ancestral_step(scalar(1.0), 2, scalar(0.5), scalar(2.0), TWO, "posterior")
    same("Eq. 14 with Eq. 3's variance, at t = 2", yours, scalar(MEAN + 2 * math.sqrt(0.1 / 0.37 * 0.3)), 1e-9)


def test_ex10_the_last_step_adds_no_noise(code):
    yours = code.ddim.ancestral_step(scalar(1.0), 1, scalar(0.5), scalar(9.0), TWO)
    same("Eq. 14 at t = 1", yours, scalar((1 - 0.1 / math.sqrt(0.1) * 0.5) / math.sqrt(0.9)), 1e-9)


def test_ex10_every_step_agrees_with_numpy(code):
    schedule, z_t, eps_hat, eps = schedule_by_loop(), noise(1, 2, 2, 2), noise(1, 2, 2, 2, seed=1), noise(1, 2, 2, 2, seed=2)
    for t in (2, 50, 199, 200):
        alpha, abar = float(schedule.alpha[t]), float(schedule.abar[t])
        wanted = (z_t.numpy() - (1 - alpha) / np.sqrt(1 - abar) * eps_hat.numpy()) / np.sqrt(alpha) + np.sqrt(1 - alpha) * eps.numpy()
        same(f"Eq. 14 at t = {t}", code.ddim.ancestral_step(z_t, t, eps_hat, eps, schedule), wanted, 1e-9)


# --- 11: one DDIM step ------------------------------------------------------------------------------------------------

def slow_step(z_t, t, t_next, eps_hat, schedule, eta=0.0, eps=None):
    """A DDIM step number by number."""
    a, b, z = float(schedule.abar[t]), float(schedule.abar[t_next]), torch.empty_like(z_t)
    sigma = eta * math.sqrt((1 - b) / (1 - a) * (1 - a / b))
    for place in np.ndindex(*z_t.shape):
        z_0 = (float(z_t[place]) - math.sqrt(1 - a) * float(eps_hat[place])) / math.sqrt(a)
        z[place] = math.sqrt(b) * z_0 + math.sqrt(max(1 - b - sigma ** 2, 0)) * float(eps_hat[place]) + (sigma * float(eps[place]) if eta else 0)
    return z


def test_ex11_z_0_and_a_step_have_the_values_computed_by_hand(code):
    z_0 = (1 - math.sqrt(0.37) * 0.5) / math.sqrt(0.63)
    same("Eq. 2 solved for z_0", code.ddim.predict_z0(scalar(1.0), 2, scalar(0.5), TWO), scalar(z_0), 1e-9)
    same("DDIM from 2 to 1", code.ddim.ddim_step(scalar(1.0), 2, 1, scalar(0.5), TWO), scalar(math.sqrt(0.9) * z_0 + math.sqrt(0.1) * 0.5), 1e-9)
    same("DDIM from 2 to 0", code.ddim.ddim_step(scalar(1.0), 2, 0, scalar(0.5), TWO), scalar(z_0), 1e-9)


def test_ex11_fresh_noise_takes_the_place_of_old_noise(code):
    sigma = 0.5 * math.sqrt(0.1 / 0.37) * math.sqrt(1 - 0.63 / 0.9)
    z_0 = (1 - math.sqrt(0.37) * 0.5) / math.sqrt(0.63)
    wanted = math.sqrt(0.9) * z_0 + math.sqrt(0.1 - sigma ** 2) * 0.5 + sigma * 2
    same("DDIM from 2 to 1, η = 0.5", code.ddim.ddim_step(scalar(1.0), 2, 1, scalar(0.5), TWO, 0.5, scalar(2.0)), scalar(wanted), 1e-9)


def test_ex11_steps_agree_with_a_loop(code):
    schedule, z_t, eps_hat, eps = schedule_by_loop(), noise(2, 1, 2, 2), noise(2, 1, 2, 2, seed=1), noise(2, 1, 2, 2, seed=2)
    for t, t_next, eta in ((200, 180, 0.0), (120, 119, 1.0), (20, 0, 0.0), (77, 5, 0.3)):
        yours = code.ddim.ddim_step(z_t, t, t_next, eps_hat, schedule, eta, eps if eta else None)
        same(f"DDIM from {t} to {t_next}, η = {eta}", yours, slow_step(z_t, t, t_next, eps_hat, schedule, eta, eps), 1e-8)
    t = torch.tensor([3, 190])
    wanted = [(z_t[i] - math.sqrt(1 - schedule.abar[t[i]]) * eps_hat[i]) / math.sqrt(schedule.abar[t[i]]) for i in range(2)]
    same("Eq. 2 solved for z_0 at t = 3, 190", code.ddim.predict_z0(z_t, t, eps_hat, schedule), torch.stack(wanted), 1e-8)


# --- 12: the DDIM loop ------------------------------------------------------------------------------------------------

def test_ex12_the_times_are_those_computed_by_hand(code):
    for (T, S), times in {(10, 3): [10, 7, 3], (200, 10): [200, 180, 160, 140, 120, 100, 80, 60, 40, 20], (4, 4): [4, 3, 2, 1], (200, 1): [200]}.items():
        yours = list(code.ddim.sampling_times(T, S))
        holds(f"sampling_times({T}, {S})\n    yours   {yours}\n    wanted  {times}", yours == times)


@pytest.mark.parametrize("S, eta", [(1, 0.0), (3, 0.0), (10, 0.0), (5, 0.7)])
def test_ex12_the_loop_agrees_with_one_written_out(code, monkeypatch, S, eta):
    monkeypatch.setattr(code.ddim, "ddim_step", slow_step)
    schedule, z_T, asked = schedule_by_loop(20, 0.005, 0.5), noise(2, 1, 1, 2), []

    def denoise(z_t, t):
        holds("denoise: t is wanted as an int64 tensor of shape (B,)", isinstance(t, torch.Tensor) and t.dtype == torch.int64 and t.shape == (2,))
        asked.append(int(t[0]))
        return torch.tanh(z_t) * torch.cos(t.double()).reshape(-1, 1, 1, 1)
    yours = code.ddim.ddim(denoise, z_T, schedule, S, eta, torch.Generator().manual_seed(3))
    times, draws, z = [round(20 * k / S) for k in range(S, 0, -1)], torch.Generator().manual_seed(3), z_T
    holds(f"S = {S}: the times at which the denoiser is asked\n    yours   {asked}\n    wanted  {times}", asked == times)
    for t, t_next in zip(times, [*times[1:], 0]):
        eps = torch.randn(z.shape, generator=draws).double() if eta else None
        z = slow_step(z, t, t_next, torch.tanh(z) * math.cos(t), schedule, eta, eps)
    same(f"DDIM in {S} steps, η = {eta}", yours, z, 1e-8)
