"""The losses of both stages, and PSNR.

Paper: Eq. 11 (L_r, Sec. 4.1), Eq. 15 (L_diff, Sec. 4.2).

    paper           code
    H, H^           hdr, hdr_hat    (B, 3, H, W) linear radiance in [0, 1]
    T(.)            data.T          mu-law
    phi_ij          VGG19Features   j-th convolution (after ReLU) after the i-th max-pooling of VGG19; the mean over several [assumed A12]
    lambda          lam             1e-2
    eps_t, eps_th   eps, eps_hat    the noise inside z_t, and its prediction: the same eps in both
    z, z^           z, z_hat        prior of the ground truth and predicted prior, standardised [assumed A11]

Norms are means over all elements. Everything here is float32, whatever the networks ran in.

    python loss.py             prints which VGG19 layers phi is made of
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from data import T

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
VGG19_WIDTHS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)     # convolutions between max-poolings
SMALL_MSE = 1e-5        # mean squared error of an image that is good enough: 50 dB
FLAT = 1e-5             # mean square of the gradients of T(H) below which there is hardly anything to be sharp


@dataclass
class LossConfig:
    """The losses."""
    lam: float = 1e-2           # lambda, weight of the perceptual term; 0 leaves VGG19 out [paper: Sec. 4.1]
    phi: tuple[str, ...] = ("1,1", "2,1", "3,1", "4,1")    # (i, j) of phi_ij: j-th convolution after the i-th max-pooling [assumed A12]
    linear: float = 0.0         # weight of a third term, the L1 distance of linear radiance; 0 is the paper's loss [departs D5]
    decibel: tuple[float, ...] = (0.0, 0.0)    # weights of a fourth, by how many dB PSNR-mu and PSNR-L of a patch miss 50; 0 0 is the paper's loss [departs D5]
    sharp: float = 0.0          # weight of a fifth, by how much the gradients lack to the truth's; 0 is the paper's loss [departs D5]
    vgg: str = ""               # VGG19 weight file; empty: torch.hub downloads the official one (548 MB) once

    def __post_init__(self):
        if len(self.decibel) != 2:
            raise ValueError(f"--decibel {' '.join(map(str, self.decibel))}: give two weights, of PSNR-mu and of PSNR-L")


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
                raise ValueError(f"phi: VGG19 has no convolution {j} after max-pooling {i}; see python loss.py")
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


def load_vgg19(config, device="cpu"):
    """phi of Eq. 11 with the official weights, or None when lam is 0.

    Returns: VGG19Features on the device, or None.
    Raises: FileNotFoundError when the file is neither here nor to be had; ValueError when it is not VGG19.
    """
    if config.lam == 0:
        return None
    file = config.vgg or VGG19_URL
    try:
        if config.vgg:
            state = torch.load(config.vgg, map_location="cpu", weights_only=True)
        else:
            state = torch.hub.load_state_dict_from_url(VGG19_URL, map_location="cpu", weights_only=True)
    except (URLError, OSError) as error:
        raise FileNotFoundError(f"VGG19 for Eq. 11: {file} could not be read ({error}); download it, pass it as "
                                "--vgg FILE, or train without the perceptual term: --lam 0") from None
    except Exception as error:   # torch.load raises a dozen kinds for a broken file; all mean the same to a user
        raise ValueError(f"{file}: not a readable weight file ({type(error).__name__}); it may be truncated, download it again") from None
    try:
        pairs = [tuple(int(number) for number in pair.split(",")) for pair in config.phi]
        return VGG19Features(pairs, state).to(device)
    except (KeyError, IndexError, TypeError, RuntimeError) as error:
        found = f"no {error} in it" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ValueError(f"{file}: {found}; Eq. 11 needs VGG19's official state dict (\"features.0.weight\", ...)") from None


def gradients(image):
    """Differences to the right and downwards. image: (B, 3, H, W). Returns: (B, 6, H - 1, W - 1)."""
    return torch.cat([image[..., :-1, 1:] - image[..., :-1, :-1], image[..., 1:, :-1] - image[..., :-1, :-1]], dim=1)


def well_exposed(ldr):
    """The pixels that the reference frame shows, neither black nor saturated. ldr: (B, 3, 3, H, W) coded. Returns: (B, 1, H, W) bool."""
    return ((ldr[:, 1] > 0.05) & (ldr[:, 1] < 0.95)).all(dim=1, keepdim=True)


def reconstruction_loss(hdr_hat, hdr, vgg, lam, linear=0.0, decibel=(0.0, 0.0), sharp=0.0, seen=None):
    """L_r. hdr_hat, hdr: (B, 3, H, W) linear in [0, 1]; vgg: VGG19Features, or None for the first term alone.

    linear: weight of the L1 distance of radiance itself. T has slope 0.12 at H = 1 and 587 at 0, so that errors in highlights hardly
    count in Eq. 11. decibel: two weights, of what PSNR-mu and what PSNR-L, by which results are scored, lack to 50 dB, -10 log10(1e-5), as
    means over the batch. sharp: weight of how much of the gradients g of T(H) is missing, 1 - <g^, g> / <g, g> or 0 if
    that is negative, as the mean over the batch; g between pixels both `seen` (B, 1, H, W) bool, which the reference frame exposed well. The
    smallest squared error has an image that is a little too soft [all three depart D5].
    Returns: L_r, and its terms {"L1_mu", "L_phi", "L1_lin", "dB", "soft"} (each before its weight, dB the mean of both; L_phi is 0 without
    vgg, soft without seen), float32 scalars.
    Source: Eq. 11.
    """
    with torch.autocast(hdr.device.type, enabled=False):
        hdr_mu, hdr_mu_hat = T(hdr), T(hdr_hat)
        L1_mu = (hdr_mu - hdr_mu_hat).abs().mean()
        L_phi = torch.zeros_like(L1_mu)
        if vgg is not None:
            with torch.no_grad():
                features = vgg(hdr_mu)
            for phi, phi_hat in zip(features, vgg(hdr_mu_hat)):
                L_phi = L_phi + (phi - phi_hat).abs().mean() / len(features)
        # Eq. 11:  L_r = ‖T(H) - T(Ĥ)‖_1 + λ ‖φ_ij(T(H)) - φ_ij(T(Ĥ))‖_1
        L_r = L1_mu + lam * L_phi
        L1_lin = (hdr - hdr_hat).abs().mean()
        squares = torch.stack([(hdr_mu - hdr_mu_hat).square(), (hdr - hdr_hat).square()])       # (2, B, 3, H, W)
        dB = 10 * torch.log10(1 + squares.mean(dim=(2, 3, 4)) / SMALL_MSE).mean(dim=1)          # (2,)
        soft = torch.zeros_like(L1_mu)
        if seen is not None:
            both = (gradients(seen.float().expand_as(hdr)) == 0) & seen[..., :-1, :-1]     # neighbours, one seen like the other
            g, g_hat = gradients(hdr_mu) * both, gradients(hdr_mu_hat)
            lack, energy = (g * (g - g_hat)).mean(dim=(1, 2, 3)), g.square().mean(dim=(1, 2, 3))        # (B,)
            soft = (lack / (energy + FLAT)).clamp(min=0).mean()
        L_r = L_r + linear * L1_lin + decibel[0] * dB[0] + decibel[1] * dB[1] + sharp * soft       # no part of Eq. 11 [departs D5]
    return L_r, {"L1_mu": L1_mu.detach(), "L_phi": L_phi.detach(), "L1_lin": L1_lin.detach(), "dB": dB.mean().detach(), "soft": soft.detach()}


def diffusion_loss(eps, eps_hat, z_hat, z):
    """L_diff. eps, eps_hat: (B, N, h, w) noise inside z_t and its prediction (eps_hat is None without a diffusion model);
    z_hat, z: (B, N, h, w) predicted and true prior, standardised.

    Returns: L_diff, and its terms {"L_eps", "L1_z"}, float32 scalars.
    Source: Eq. 15.
    """
    L1_z = (z_hat.float() - z).abs().mean()
    L_eps = torch.zeros_like(L1_z) if eps_hat is None else (eps - eps_hat.float()).square().mean()
    # Eq. 5:  E‖ε_t - f_θ(√ᾱ_t x_0 + √(1 - ᾱ_t) ε_t, t)‖²      (the first term below, with the condition D)
    # Eq. 15:  L_diff = E‖ε_t - ε_θ(z_t, D, t)‖² + ‖ẑ - z‖_1
    L_diff = L_eps + L1_z
    return L_diff, {"L_eps": L_eps.detach(), "L1_z": L1_z.detach()}


def psnr(hdr_hat, hdr):
    """PSNR-L of linear images in [0, 1]; PSNR-mu when given T(.) of them. Peak 1, nothing clipped or rounded.

    hdr_hat, hdr: the same shape, any. Returns: decibels, float (inf for equal images).
    """
    mse = (hdr_hat.cpu().double() - hdr.cpu().double()).square().mean()        # on the CPU: MPS has no float64
    return float(-10 * torch.log10(mse))


if __name__ == "__main__":
    for i, widths in enumerate(VGG19_WIDTHS):
        print(f"after max-pooling {i}: " + "  ".join(f"phi_{i}{j} ({width} channels)" for j, width in enumerate(widths, start=1)))
    print("Eq. 11 uses " + ", ".join(LossConfig().phi) + f"; weights from {Path(VGG19_URL).name}")
