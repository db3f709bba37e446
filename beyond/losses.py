"""D5, no part of the paper: further terms beside Eq. 11. Each has a weight, and a term of weight 0 is not computed.

Why: T has slope 0.12 at H = 1 and 587 at 0, so errors in highlights hardly count in Eq. 11. What is scored is squared error. And the image
of the smallest squared error is a little too soft.
"""

import torch

from data import T

SMALL_MSE = 1e-5        # mean squared error of an image that is good enough: 50 dB
FLAT = 1e-5             # mean square of the gradients of T(H) below which there is hardly anything to be sharp


def gradients(image):
    """Differences to the right and downwards. image: (B, 3, H, W). Returns: (B, 6, H - 1, W - 1)."""
    return torch.cat([image[..., :-1, 1:] - image[..., :-1, :-1], image[..., 1:, :-1] - image[..., :-1, :-1]], dim=1)


def well_exposed(ldr):
    """The pixels that the reference frame shows, neither black nor saturated. ldr: (B, 3, 3, H, W) coded. Returns: (B, 1, H, W) bool."""
    return ((ldr[:, 1] > 0.05) & (ldr[:, 1] < 0.95)).all(dim=1, keepdim=True)


def decibels(image_hat, image):
    """By how many dB the PSNR of each image falls short of 50. Arguments: (B, 3, H, W). Returns: the mean over the batch, a scalar."""
    mse = (image_hat - image).square().mean(dim=(1, 2, 3))                                      # (B,)
    return 10 * torch.log10(1 + mse / SMALL_MSE).mean()


def softness(hdr_mu_hat, hdr_mu, seen):
    """Which share of the truth's gradients g is missing in the result: 1 - <g^, g> / <g, g>, or 0 if that is negative.

    hdr_mu_hat, hdr_mu: (B, 3, H, W) after T; seen: (B, 1, H, W) bool, pixels that count. A gradient counts between two of them.
    Returns: the mean over the batch, a scalar.
    """
    both = (gradients(seen.float().expand_as(hdr_mu)) == 0) & seen[..., :-1, :-1]              # neighbours, one seen like the other
    g, g_hat = gradients(hdr_mu) * both, gradients(hdr_mu_hat)
    lack, energy = (g * (g - g_hat)).mean(dim=(1, 2, 3)), g.square().mean(dim=(1, 2, 3))        # (B,)
    return (lack / (energy + FLAT)).clamp(min=0).mean()


def further_terms(weights, hdr_hat, hdr, ldr):
    """What the train scripts add to L_r of Eq. 11.

    weights: has linear, decibel (two numbers) and sharp (BeyondConfig); hdr_hat, hdr: (B, 3, H, W) linear in [0, 1];
    ldr: (B, 3, 3, H, W) coded.
    Returns: their weighted sum (0 where all weights are), and the terms {"L1_lin", "dB_mu", "dB_l", "soft"} that were computed, detached and
    before their weights; float32 scalars.
    """
    terms = {"L1_lin": (weights.linear, lambda: (hdr_hat - hdr).abs().mean()),
             "dB_mu": (weights.decibel[0], lambda: decibels(T(hdr_hat), T(hdr))),
             "dB_l": (weights.decibel[1], lambda: decibels(hdr_hat, hdr)),
             "soft": (weights.sharp, lambda: softness(T(hdr_hat), T(hdr), well_exposed(ldr)))}
    with torch.autocast(hdr.device.type, enabled=False):
        values = {name: term() for name, (weight, term) in terms.items() if weight}
    return sum(terms[name][0] * value for name, value in values.items()), {name: value.detach() for name, value in values.items()}


def loss_columns(loss, beyond):
    """The columns of the log for L_r and those of its terms whose weights are not 0. loss: LossConfig, beyond: BeyondConfig."""
    weights = {"L1_mu": 1, "L_phi": loss.lam, "L1_lin": beyond.linear, "dB_mu": beyond.decibel[0], "dB_l": beyond.decibel[1], "soft": beyond.sharp}
    return ["L_r", *(name for name, weight in weights.items() if weight)]
