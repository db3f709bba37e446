"""The diffusion: noise schedule, forward process, the ancestral sampler, and the DDIM loop that LF-Diff samples with.

Paper: Sec. 3 (Eq. 1-5), Sec. 4.2 (Eq. 12, 14). [8] is DDPM (Ho et al. 2020), [27] is DDIM (Song et al. 2021).

    paper        code
    beta_t       beta[t]      t = 1 .. T; index 0 is a placeholder, so that beta[t] means beta_t
    alpha_t      alpha[t]     1 - beta_t
    alpha-bar_t  abar[t]      product of alpha_1 .. alpha_t; abar[0] = 1. NOT its square root: roots are taken in the formulas
    T            T            number of diffusion steps; the mu-law T(.) is data.T and does not occur here
    S            S            number of sampling steps
    epsilon      eps          noise;  eps_hat is the network's estimate of it

The product in the paper's Sec. 3 runs over i = 1 .. T; it must be 1 .. t [departs D2].

    python ddim.py             prints the schedule and the sampling times
"""

from dataclasses import dataclass

import torch


@dataclass
class DiffusionConfig:
    """Diffusion process and sampling."""
    T: int = 200                # diffusion steps in training [paper: Sec. 5.1]
    S: int = 10                 # DDIM steps, in training and at inference [paper: Sec. 5.1]
    beta_1: float = 5e-4        # beta at t = 1 [assumed A9: DDPM's 1e-4 scaled by 1000/T]
    beta_T: float = 0.1         # beta at t = T [assumed A9: DDPM's 0.02 scaled by 1000/T; leaves abar_T = 3e-5]
    eta: float = 0.0            # at inference: 0 is deterministic DDIM, 1 is ancestral sampling; training uses 0 [assumed A10]
    predict: str = "v"          # what the U-Net outputs: "v", from which eps follows, or "eps" itself [departs D3]


class Schedule:
    """beta, alpha and abar as float64 tensors of T + 1 entries; beta_t rises linearly from beta_1 to beta_T.

    config: DiffusionConfig. Raises: ValueError for settings that do not make a schedule."""

    def __init__(self, config):
        if not (1 <= config.S <= config.T <= 100_000 and 0 < config.beta_1 <= config.beta_T < 1 and 0 <= config.eta <= 1):
            raise ValueError(f"--T --S --beta-1 --beta-T --eta {config}: need 1 <= S <= T <= 100,000, 0 < beta_1 <= beta_T < 1, 0 <= eta <= 1")
        if config.predict not in ("v", "eps"):
            raise ValueError(f"--predict {config.predict}: use v or eps")
        self.T, self.predict = config.T, config.predict
        beta = torch.linspace(config.beta_1, config.beta_T, config.T, dtype=torch.float64)
        self.beta = torch.cat([torch.zeros_like(beta[:1]), beta])      # (T+1,)
        self.alpha = 1 - self.beta                                     # (T+1,)
        self.abar = torch.cumprod(self.alpha, dim=0)                   # (T+1,)


def _at(values, t, like):
    """Returns values[t], shaped to multiply `like`: a scalar if t is an int, (B, 1, 1, 1) if t is (B,)."""
    if isinstance(t, int):
        return values[t].to(like.dtype).to(like.device)
    return values.to(like.dtype).to(like.device)[t].reshape(-1, *[1] * (like.dim() - 1))     # MPS has no float64


def diffuse(z_0, t, eps, schedule):
    """The forward process: makes a sample of q(z_t | z_0) from the noise eps.

    z_0, eps: (B, N, h, w), eps ~ N(0, I); t: int or (B,) int64 in 0 .. T. Returns: z_t (B, N, h, w). Source: Eq. 1, 2, 12.
    """
    abar_t = _at(schedule.abar, t, z_0)
    # Eq. 1:  q(z_t | z_0) = N(z_t; √ᾱ_t z_0, (1 - ᾱ_t) I)
    # Eq. 2:  z_t = √ᾱ_t z_0 + √(1 - ᾱ_t) ε
    # Eq. 12:  q(z_T | z) = N(z_T; √ᾱ_T z, (1 - ᾱ_T) I)       (the same at t = T)
    return abar_t.sqrt() * z_0 + (1 - abar_t).sqrt() * eps


def predict_z0(z_t, t, eps_hat, schedule):
    """Eq. 2 solved for z_0. Shapes as in diffuse. Returns: z_0 (B, N, h, w)."""
    abar_t = _at(schedule.abar, t, z_t)
    return (z_t - (1 - abar_t).sqrt() * eps_hat) / abar_t.sqrt()


def noise_from_output(output, z_t, t, schedule):
    """Computes eps_theta from the U-Net's output. Both (B, N, h, w); t: (B,) int64. Returns: eps_hat (B, N, h, w).

    With predict="v" the output is v = √ᾱ_t ε - √(1-ᾱ_t) z_0 (Salimans & Ho 2022, Appendix D), so ε = √ᾱ_t v + √(1-ᾱ_t) z_t.
    [departs D3: at t = T, z_0 = (z_T - √(1-ᾱ_T) ε)/√ᾱ_T magnifies an error of ε 180 times, an error of v not at all. The price:
    the error of ε is √ᾱ_t times that of v, so near T the first term of Eq. 15 teaches little, and the second must do it]
    """
    if schedule.predict == "eps":
        return output
    abar_t = _at(schedule.abar, t, z_t)
    return abar_t.sqrt() * output + (1 - abar_t).sqrt() * z_t


def ancestral_step(z_t, t, eps_hat, eps, schedule, variance="beta"):
    """One step of the ancestral sampler, t -> t - 1.

    z_t, eps_hat, eps: (B, N, h, w), eps ~ N(0, I) fresh; t: int in 1 .. T; variance: "beta" as Eq. 14 prints it, or "posterior", the β̃_t of Eq. 3.
    Returns: z_{t-1} (B, N, h, w); at t = 1 no noise is added, as in [8]. Source: Eq. 14 (Eq. 4 with the network's noise in it).
    """
    alpha_t, abar_t, abar_before = _at(schedule.alpha, t, z_t), _at(schedule.abar, t, z_t), _at(schedule.abar, t - 1, z_t)
    sigma_t = (1 - alpha_t).sqrt()
    if variance == "posterior":
        # Eq. 3:  q(z_{t-1} | z_t, z_0) = N(z_{t-1}; μ̃_t, β̃_t I),  β̃_t = (1 - ᾱ_{t-1}) / (1 - ᾱ_t) β_t
        sigma_t = ((1 - abar_before) / (1 - abar_t) * (1 - alpha_t)).sqrt()
    # Eq. 4:  p_θ(z_{t-1} | z_t) = N(z_{t-1}; μ_θ(z_t, t), Σ_θ),  Σ_θ = σ_t² I fixed
    # Eq. 14:  z_{t-1} = 1/√α_t (z_t - (1 - α_t)/√(1 - ᾱ_t) ε_θ(z_t, D, t)) + √(1 - α_t) ε
    z = 1 / alpha_t.sqrt() * (z_t - (1 - alpha_t) / (1 - abar_t).sqrt() * eps_hat)
    return z + sigma_t * eps if t > 1 else z


def ancestral(denoise, z_T, schedule, generator=None):
    """The sampler that the paper prints: from z_T at t = T to the prior at t = 0 by all T steps of Eq. 14.

    denoise, z_T, generator: as in ddim(). Returns: z_hat (B, N, h, w). Source: Eq. 14; [8] Algorithm 2.
    """
    z_t = z_T
    for t in range(schedule.T, 0, -1):
        eps_hat = denoise(z_t, torch.full((len(z_t),), t, device=z_t.device)).to(z_t.dtype)
        eps = torch.randn(z_t.shape, generator=generator).to(z_t)
        z_t = ancestral_step(z_t, t, eps_hat, eps, schedule)            # Eq. 14
    return z_t


def sampling_times(T, S):
    """The S times that DDIM visits, falling from T; after the last one comes 0 [assumed A10]. Returns: list. Raises: ValueError unless 1 <= S <= T."""
    if not 1 <= S <= T:
        raise ValueError(f"sampling: found {S} steps; choose 1 to {T}")
    return [round(T * k / S) for k in range(S, 0, -1)]


def ddim_step(z_t, t, t_next, eps_hat, schedule, eta=0.0, eps=None):
    """One DDIM step from t to t_next < t.

    z_t, eps_hat: (B, N, h, w); t, t_next: ints, t_next >= 0; eps: fresh noise, used when eta > 0.
    Returns: z at t_next (B, N, h, w); at t_next = 0 it is the predicted z_0 itself. Source: [27] Eq. 12 and 16.
    """
    abar_t, abar_next = _at(schedule.abar, t, z_t), _at(schedule.abar, t_next, z_t)
    z_0 = predict_z0(z_t, t, eps_hat, schedule)
    # Eq. 16 [DDIM]:  σ_t = η √((1 - ᾱ_next)/(1 - ᾱ_t)) √(1 - ᾱ_t/ᾱ_next)
    sigma_t = eta * ((1 - abar_next) / (1 - abar_t)).sqrt() * (1 - abar_t / abar_next).sqrt()
    # Eq. 12 [DDIM]:  z_next = √ᾱ_next z_0 + √(1 - ᾱ_next - σ_t²) ε_θ + σ_t ε
    z_next = abar_next.sqrt() * z_0                                     # "predicted z_0"
    z_next = z_next + (1 - abar_next - sigma_t ** 2).sqrt() * eps_hat   # "direction pointing to z_t"
    return z_next + sigma_t * eps if eta > 0 else z_next                # "random noise"


def ddim(denoise, z_T, schedule, S, eta=0.0, generator=None):
    """The DDIM loop: from z_T at t = T to the prior at t = 0 in S steps. Gradients pass through all of them.

    denoise: function (z_t, t) -> eps_hat with t (B,) int64, the condition D already inside.
    z_T: (B, N, h, w); generator: torch.Generator on the CPU, for eta > 0. Returns: z_hat (B, N, h, w). Source: Sec. 4.2 and 4.3; [27].
    """
    times = sampling_times(schedule.T, S)                               # T = times[0] > ... > times[S-1] >= 1
    z_t = z_T
    for t, t_next in zip(times, times[1:] + [0]):
        eps_hat = denoise(z_t, torch.full((len(z_t),), t, device=z_t.device)).to(z_t.dtype)
        eps = torch.randn(z_t.shape, generator=generator).to(z_t) if eta > 0 else None
        z_t = ddim_step(z_t, t, t_next, eps_hat, schedule, eta, eps)
    return z_t


if __name__ == "__main__":
    config, schedule = DiffusionConfig(), Schedule(DiffusionConfig())
    for t in (1, 50, 100, 150, 200):
        print(f"t = {t:<4} beta_t {schedule.beta[t]:.5f}   √ᾱ_t {schedule.abar[t].sqrt():.5f}   √(1 - ᾱ_t) {(1 - schedule.abar[t]).sqrt():.5f}")
    print(f"S = {config.S}: t = {sampling_times(config.T, config.S)}, then 0")
