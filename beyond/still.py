"""D14, no part of the paper: where nothing moves and there is little noise, the result is the mean of the network's image and of a plain merge, after T.

The network must doubt whether the outer frames show what the reference shows, and leans on the reference. If the frames show the same everywhere
(flow.is_still), there is nothing to doubt: a merge errs by noise alone. Its errors and the network's are hardly correlated, so their mean is nearly
as good as the better of both, and often better. docs/results.md has the numbers. Where there is more noise, the network's image is better by far.
"""

import torch

from beyond.fast import by_strips
from brackets.merge import weighted_merge
from data import T, T_inverse


@torch.no_grad()
def mean_with_merge(hdr_hat, ldr, ev):
    """hdr_hat: (1, 3, H, W) of the network, linear; ldr: (1, 3, 3, H, W) coded in [0, 1]; ev: (1, 3) stops. Returns: as hdr_hat, float32."""
    return by_strips(lambda hdr_hat, ldr: T_inverse((T(hdr_hat.float()) + T(weighted_merge(ldr, ev))) / 2), hdr_hat, ldr, halo=0)
