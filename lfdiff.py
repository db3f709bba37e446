"""LF-Diff: how the components form the two training stages and the inference of Fig. 2, and the variants of Table 3.

    Fig. 2 (a)   Stage1          z = LPENet(H),                      H^ = DHRNet(X, z)         trained with Eq. 11
    Fig. 2 (b)   Stage2          z_T from z, S DDIM steps give z^,   H^ = DHRNet(X, z^)        trained with Eq. 11 + Eq. 15
    Fig. 2 (c)   reconstruct     z_T ~ N(0, I), S steps give z^,     H^ = DHRNet(X, z^)        no ground truth anywhere

    variant           Table 3                       made of
    baseline          Baseline                      DHRNet with an FRM in each PIM's place
    s1                LF-Diff_s1                    DHRNet + LPENet: an upper bound, it sees the truth
    s2_without_dm     LF-Diff_s2 w/o DM             DHRNet + ConditionNet, whose D is the prior
    s2                LF-Diff_s2 w/ DM, and Split   DHRNet + ConditionNet + Denoiser

    python lfdiff.py           prints the parameters of each variant beside the paper's
"""

from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from common import count_parameters
from data import network_input
from ddim import DiffusionConfig, Schedule, ancestral, ddim, diffuse, noise_from_output
from denoiser import Denoiser, DenoiserConfig
from dhrnet import DHRNet, DHRNetConfig
from lpenet import ConditionNet, LPENet, LPENetConfig

PAPER_PARAMETERS = {"baseline": 5.09e6, "s1": 5.24e6, "s2_without_dm": 5.85e6, "s2": 7.48e6}     # Table 3
VARIANTS = tuple(PAPER_PARAMETERS)
MULTIPLE = 16       # H and W are padded to it: PixelUnshuffle 4, times two halvings in the U-Net [assumed A15]


@dataclass
class LFDiffConfig:
    """All hyperparameters of the model."""
    dhrnet: DHRNetConfig = field(default_factory=DHRNetConfig)
    lpenet: LPENetConfig = field(default_factory=LPENetConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)

    def check(self, levels=1):
        """Checks the sizes of the prior, the PIMs and a U-Net of `levels` levels. Raises: ValueError if they do not fit images padded to MULTIPLE."""
        k, needed = self.lpenet.unshuffle, self.lpenet.unshuffle * 2 ** (levels - 1)
        if k != self.dhrnet.pool_pim or MULTIPLE % needed or MULTIPLE % self.dhrnet.pool_frm:
            raise ValueError(f"--unshuffle {k}, --pool-pim {self.dhrnet.pool_pim}, --pool-frm {self.dhrnet.pool_frm}, U-Net of {levels} level(s): the first "
                             f"two must be equal, and images padded to multiples of {MULTIPLE} must divide by {needed} and by --pool-frm")


class Stage1(nn.Module):
    """Fig. 2 (a): LPENet and DHRNet, trained together on L_r (Eq. 11). With baseline=True, DHRNet alone without a prior."""

    def __init__(self, config, baseline=False):
        super().__init__()
        config.check()
        self.config, self.variant = config, "baseline" if baseline else "s1"
        self.dhrnet = DHRNet(config.dhrnet, 0 if baseline else config.lpenet.prior_channels)
        self.lpenet = None if baseline else LPENet(config.lpenet)

    def forward(self, X, hdr):
        """X: (B, 3, 6, H, W), hdr: (B, 3, H, W), H and W multiples of 4. Returns: H^ (B, 3, H, W)."""
        z = self.lpenet(hdr) if self.lpenet is not None else None       # Eq. 6, see lpenet.py
        return self.dhrnet(X, z)                                        # Eq. 10, see dhrnet.py


class Stage2(nn.Module):
    """Fig. 2 (b) and (c): the diffusion model of the prior and DHRNet. With without_dm=True, D itself is the prior.

    The diffusion sees the prior standardised channel by channel, (z - z_mean) / z_std, measured on the training set
    [assumed A11]; DHRNet sees it as LPENet made it. `z` is the standardised prior in this class.
    """

    def __init__(self, config, without_dm=False):
        super().__init__()
        config.check(1 if without_dm else len(config.denoiser.unet_multipliers))
        self.config, self.variant = config, "s2_without_dm" if without_dm else "s2"
        self.schedule = Schedule(config.diffusion)
        self.dhrnet = DHRNet(config.dhrnet, config.lpenet.prior_channels)
        self.condition = ConditionNet(config.lpenet)
        self.denoiser = None if without_dm else Denoiser(config.denoiser, config.lpenet.prior_channels)
        self.register_buffer("z_mean", torch.zeros(1, config.lpenet.prior_channels, 1, 1))
        self.register_buffer("z_std", torch.ones(1, config.lpenet.prior_channels, 1, 1))

    def standardise(self, z_raw):
        """Shifts and scales LPENet's prior (B, N, h, w) to mean 0, deviation 1 per channel over the training set. Returns: float32."""
        return (z_raw.float() - self.z_mean) / self.z_std

    def rebuild(self, X, z):
        """Computes H^ of Eq. 10 from a standardised prior. X: (B, 3, 6, H, W), z: (B, N, H/4, W/4). Returns: (B, 3, H, W)."""
        return self.dhrnet(X, z * self.z_std + self.z_mean)

    def eps_theta(self, z_t, D, t):
        """Predicts the noise. z_t, D: (B, N, h, w), t: (B,) int64 in 1 .. T. Returns: eps_hat (B, N, h, w), float32."""
        return noise_from_output(self.denoiser(z_t, D, t).float(), z_t, t, self.schedule)

    def forward(self, X, z, t, eps, eps_T, joint=True):
        """Runs one training pass of stage 2.

        X: (B, 3, 6, H, W); z: (B, N, H/4, W/4) standardised prior of the truth; t: (B,) int64 in 1 .. T; eps, eps_T: like z, noise for
        z_t and z_T; joint: False leaves DHRNet out (warm-up and Split).
        Returns: H^ (B, 3, H, W) or None, z_hat (B, N, H/4, W/4), eps_hat (same shape) or None without a denoiser. Source: Sec. 4.2, Fig. 2 (b).
        """
        D = self.condition(X).float()                                           # Eq. 13, see lpenet.py
        z_hat, eps_hat = D, None
        if self.denoiser is not None:
            z_t = diffuse(z, t, eps, self.schedule)                             # Eq. 2, see ddim.py
            eps_hat = self.eps_theta(z_t, D, t)
            z_T = diffuse(z, self.schedule.T, eps_T, self.schedule)             # Eq. 12
            z_hat = ddim(lambda z_t, t: self.eps_theta(z_t, D, t), z_T, self.schedule, self.config.diffusion.S)
        return self.rebuild(X, z_hat) if joint else None, z_hat, eps_hat

    def sample(self, z_T, D, S=None, sampler="ddim", generator=None):
        """Samples the prior from noise, given only what the frames show.

        z_T, D: (B, N, H/4, W/4), H and W multiples of 16; S: DDIM steps, by default as in training; sampler: "ddim", or "ancestral" for all T
        steps of Eq. 14; generator: of the noise, on the CPU. Returns: z_hat (B, N, H/4, W/4) standardised; D without a denoiser. Source: Sec. 4.3.
        """
        if self.denoiser is None:
            return D
        denoise = lambda z_t, t: self.eps_theta(z_t, D, t)
        if sampler == "ancestral":
            return ancestral(denoise, z_T, self.schedule, generator)
        return ddim(denoise, z_T, self.schedule, S or self.config.diffusion.S, self.config.diffusion.eta, generator)


def pad_to_multiple(image):
    """Pads (..., H, W) at the right and bottom by reflection, or a very small image by repetition. Returns: (..., H', W'), multiples of 16 [assumed A15]."""
    H, W = image.shape[-2:]
    down, right = -H % MULTIPLE, -W % MULTIPLE
    mode = "reflect" if down < H and right < W else "replicate"
    padded = nnf.pad(image.reshape(-1, 1, H, W), (0, right, 0, down), mode=mode) if down or right else image
    return padded.reshape(*image.shape[:-2], H + down, W + right)


@torch.no_grad()
def reconstruct(model, ldr, ev, S=None, sampler="ddim", generator=None):
    """The inference of Fig. 2 (c): turns three LDR frames of any size into one HDR image.

    model: Stage2, or the baseline Stage1. ldr: (B, 3, 3, H, W) gamma-coded in [0, 1], rising exposure; ev: (B, 3) stops.
    S, sampler, generator: see Stage2.sample. Returns: H^ (B, 3, H, W) linear radiance in [0, 1], units of the shortest exposure, float32.
    Raises: ValueError for variant s1, whose prior needs the ground truth.
    """
    if model.variant == "s1":
        raise ValueError("weights: these are from stage 1, whose prior comes from the ground truth; use those of stage 2 (train_stage2.py)")
    H, W = ldr.shape[-2:]
    X = network_input(pad_to_multiple(ldr), ev)                         # X_i = [L_i, H_i]   (B, 3, 6, H, W)
    if model.variant == "baseline":
        return model.dhrnet(X)[..., :H, :W]
    D = model.condition(X).float()                                      # Eq. 13             (B, N, H/4, W/4)
    z_T = torch.randn(D.shape, generator=generator).to(D)               # N(0, I), drawn on the CPU, so a seed gives the same image anywhere
    z_hat = model.sample(z_T, D, S, sampler, generator)                 # Eq. 14, or DDIM    (B, N, H/4, W/4)
    hdr_hat = model.rebuild(X, z_hat)                                   # Eq. 7 to 10        (B, 3, H, W)
    return hdr_hat[..., :H, :W]


def build(variant, config):
    """Builds an untrained model of one of VARIANTS. config: LFDiffConfig. Returns: Stage1 or Stage2. Raises: ValueError for another name."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}: not one of {', '.join(VARIANTS)}; use another file")
    return Stage1(config, variant == "baseline") if variant in ("baseline", "s1") else Stage2(config, variant == "s2_without_dm")


if __name__ == "__main__":
    print(f"{'variant':<15} {'ours':>10} {'paper':>10} {'difference':>11}")
    for variant in VARIANTS:
        ours, paper = count_parameters(build(variant, LFDiffConfig())), PAPER_PARAMETERS[variant]
        print(f"{variant:<15} {ours / 1e6:>8.3f} M {paper / 1e6:>8.2f} M {100 * (ours / paper - 1):>+9.2f} %")
