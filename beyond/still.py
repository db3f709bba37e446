"""D14, not part of the paper: if nothing moves, the network's image is kept near a plain merge and averaged with it, after T.

The network cannot be sure that the outer frames show what the reference shows, so it relies on the reference. If the frames show the same everywhere,
there is nothing to doubt, and the only error of a merge is noise. What noise cannot explain in the network's image is its own error, and is cut off.
Then the two are combined with weights inversely proportional to the variances of their errors. The merge's variance grows with the square of the
frames' noise, which flow.still_noise measures. The network's hardly depends on it. docs/results.md has the numbers.
"""

import math

import torch

from beyond.fast import by_strips
from brackets.merge import merge_weights, weighted_merge
from data import GAMMA, T, T_inverse, to_radiance

EVEN = 0.0045       # noise of a pair of frames at which a merge is as good as the shipped network, root mean square of coded values
MOST = 2.5          # how far the network's image may be from the merge, in standard deviations of the merge's noise


@torch.no_grad()
def with_merge(hdr_hat, ldr, ev, noise):
    """Keeps the network's image near a merge and mixes both. Infinite noise, which stands for a bracket that is not still, leaves the image as it is.

    hdr_hat: (1, 3, H, W) of the network, linear; ldr: (1, 3, 3, H, W) coded in [0, 1]; ev: (1, 3) stops; noise: as in prepare.Prepared.
    Returns: as hdr_hat.
    """
    share = 1 / (1 + (noise / EVEN) ** 2)
    if share == 0:
        return hdr_hat
    brighter = 2 ** (float(ev.diff().max()) / GAMMA)    # noise was measured after the shorter frame of a pair, with its noise, was made so much brighter
    sigma = noise / math.sqrt(1 + brighter ** 2)        # of one frame

    def mixed(hdr_hat, ldr):
        merge = weighted_merge(ldr, ev)
        errors = merge_weights(ldr) * (to_radiance(ldr + sigma, ev) - to_radiance(ldr, ev))     # that each frame brings into the merge
        most = MOST * (T(merge + errors.square().sum(dim=1).sqrt()) - T(merge))
        return T_inverse(T(hdr_hat.float()).clamp(T(merge) - most, T(merge) + most).lerp(T(merge), share))
    return by_strips(mixed, hdr_hat, ldr, halo=0, channels=27)
