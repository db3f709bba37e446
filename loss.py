"""The losses of both stages.

Paper: Eq. 11 (L_r, Sec. 4.1), Eq. 15 (L_diff, Sec. 4.2).

    paper           code
    H, H^           hdr, hdr_hat    (B, 3, H, W) linear radiance in [0, 1]
    T(.)            data.T          mu-law
    phi_ij          VGG19Features   j-th convolution (after ReLU) after the i-th max-pooling of VGG19; the mean over several [assumed A12]
    lambda          lam             1e-2
    eps, eps_theta  eps, eps_hat    the noise inside z_t, and its prediction: the same eps in both
    z, z^           z, z_hat        prior of the ground truth and predicted prior, standardised [assumed A11]

Norms are means over all elements. Everything here is float32, whatever precision the networks used.

    python loss.py             prints the layers of VGG19, and those that phi uses
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from common import Weight
from data import T

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
VGG19_WIDTHS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)     # convolutions between max-poolings


@dataclass
class LossConfig:
    """The losses."""
    lam: Weight = 1e-2          # lambda, weight of the perceptual term; 0 leaves VGG19 out [paper: Sec. 4.1 | departs D1: 0]
    phi: tuple[str, ...] = ("1,1", "2,1", "3,1", "4,1")    # (i, j) of phi_ij: j-th convolution after the i-th max-pooling [assumed A12]
    vgg: str = ""               # VGG19 weight file; empty: torch.hub downloads the official one (548 MB) once


class VGG19Features(nn.Module):
    """phi: features of an ImageNet-trained VGG19, frozen.

    phi: iterable of (i, j), i-th max-pooling (0: before the first), j-th convolution after it, both as in Eq. 11.
    state: the official VGG19 state dict ("features.0.weight", ...). Channels are RGB.
    Raises: ValueError for a layer that VGG19 does not have.
    """

    def __init__(self, phi, state):
        super().__init__()
        self.phi = [tuple(pair) for pair in phi]
        for i, j in self.phi:
            if not (0 <= i < len(VGG19_WIDTHS) and 1 <= j <= len(VGG19_WIDTHS[i])):
                raise ValueError(f"phi: VGG19 has no convolution {j} after max-pooling {i}; python loss.py lists them")
        self.stages, in_channels, index = nn.ModuleList(), 3, 0     # index counts conv, ReLU and pooling, as the file does
        last_i, last_j = max(self.phi)
        for i, widths in enumerate(VGG19_WIDTHS[:last_i + 1]):
            stage = nn.ModuleList()
            for width in widths[:last_j] if i == last_i else widths:
                conv = nn.Conv2d(in_channels, width, 3, padding=1)
                conv.load_state_dict({name: state[f"features.{index}.{name}"] for name in ("weight", "bias")})
                stage.append(conv)
                in_channels, index = width, index + 2
            self.stages.append(stage)
            index += 1
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, hdr_mu):
        """hdr_mu: (B, 3, H, W) RGB in [0, 1], H and W at least 16. Returns: list of feature maps, one for each (i, j)."""
        x, features = (hdr_mu - self.mean) / self.std, {}
        for i, stage in enumerate(self.stages):
            if i > 0:
                x = nnf.max_pool2d(x, 2)
            for j, conv in enumerate(stage, start=1):
                x = nnf.relu(conv(x))
                features[i, j] = x
        return [features[pair] for pair in self.phi]


def reconstruction_loss(hdr_hat, hdr, vgg, lam):
    """L_r. hdr_hat, hdr: (B, 3, H, W) linear in [0, 1]; vgg: VGG19Features, or None for the first term alone; lam: weight of the second.

    Returns: L_r, and its terms {"L1_mu"} or {"L1_mu", "L_phi"}, detached and without their weights; float32 scalars. Source: Eq. 11.
    """
    with torch.autocast(hdr.device.type, enabled=False):
        hdr_mu, hdr_mu_hat = T(hdr), T(hdr_hat)
        # Eq. 11:  L_r = ‖T(H) - T(Ĥ)‖_1 + λ ‖φ_ij(T(H)) - φ_ij(T(Ĥ))‖_1
        L_r = L1_mu = (hdr_mu - hdr_mu_hat).abs().mean()
        terms = {"L1_mu": L1_mu.detach()}
        if vgg is not None:
            with torch.no_grad():
                features = vgg(hdr_mu)
            L_phi = sum((phi - phi_hat).abs().mean() for phi, phi_hat in zip(features, vgg(hdr_mu_hat))) / len(features)
            L_r, terms["L_phi"] = L1_mu + lam * L_phi, L_phi.detach()
    return L_r, terms


def diffusion_loss(eps, eps_hat, z_hat, z):
    """L_diff. eps, eps_hat: (B, N, h, w) noise inside z_t and its prediction, which is None without a diffusion model; z_hat, z: like eps,
    predicted and true prior, standardised.

    Returns: L_diff, and its terms {"L_eps", "L1_z"} ("L1_z" alone without a diffusion model), detached; float32 scalars. Source: Eq. 15.
    """
    L1_z = (z_hat.float() - z).abs().mean()
    if eps_hat is None:                                         # Table 3, w/o DM
        return L1_z, {"L1_z": L1_z.detach()}
    # Eq. 5:  E‖ε_t - f_θ(√ᾱ_t x_0 + √(1 - ᾱ_t) ε_t, t)‖²      (the first term below, with the condition D)
    L_eps = (eps - eps_hat.float()).square().mean()
    # Eq. 15:  L_diff = E‖ε_t - ε_θ(z_t, D, t)‖² + ‖ẑ - z‖_1
    L_diff = L_eps + L1_z
    return L_diff, {"L_eps": L_eps.detach(), "L1_z": L1_z.detach()}


if __name__ == "__main__":
    for i, widths in enumerate(VGG19_WIDTHS):
        print(f"after max-pooling {i}: " + "  ".join(f"phi_{i}{j} ({width} channels)" for j, width in enumerate(widths, start=1)))
    print("Eq. 11 uses " + ", ".join(LossConfig().phi) + f"; weights from {VGG19_URL}")
