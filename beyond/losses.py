"""D5, not part of the paper: further terms beside Eq. 11. Each has a weight, and a term of weight 0 is not computed.

Why: T has slope 0.12 at H = 1 and 587 at 0, so errors in highlights hardly count in Eq. 11. Besides, the scores measure squared error.
"""

import torch

from data import T

SMALL_MSE = 1e-5        # mean squared error of an image that is good enough: 50 dB


def decibels(image_hat, image):
    """Measures by how many dB the PSNR of each image falls short of 50, smoothly: 3 at 50 dB, 0 far above. Arguments: (B, 3, H, W). Returns: the mean."""
    mse = (image_hat - image).square().mean(dim=(1, 2, 3))                                      # (B,)
    return 10 * torch.log10(1 + mse / SMALL_MSE).mean()


def further_terms(weights, hdr_hat, hdr):
    """Computes what the train scripts add to L_r of Eq. 11.

    weights: has linear and decibel, two numbers (BeyondConfig); hdr_hat, hdr: (B, 3, H, W) linear in [0, 1].
    Returns: the weighted sum of the terms (0 if all weights are 0), and the terms {"L1_lin", "dB_mu", "dB_l"} that were computed, detached
    and unweighted; float32 scalars.
    """
    terms = {"L1_lin": (weights.linear, lambda: (hdr_hat - hdr).abs().mean()),
             "dB_mu": (weights.decibel[0], lambda: decibels(T(hdr_hat), T(hdr))),
             "dB_l": (weights.decibel[1], lambda: decibels(hdr_hat, hdr))}
    with torch.autocast(hdr.device.type, enabled=False):
        values = {name: term() for name, (weight, term) in terms.items() if weight}
    return sum(terms[name][0] * value for name, value in values.items()), {name: value.detach() for name, value in values.items()}


def loss_columns(loss, beyond):
    """Lists the columns of the log for L_r and for its terms whose weights are not 0. loss: LossConfig, beyond: BeyondConfig."""
    weights = {"L1_mu": 1, "L_phi": loss.lam, "L1_lin": beyond.linear, "dB_mu": beyond.decibel[0], "dB_l": beyond.decibel[1]}
    return ["L_r", *(name for name, weight in weights.items() if weight)]
