"""Two HDR images that need no network: the reference frame alone, and a plain weighted merge. Results are compared with them."""

import torch

from data import to_radiance


def merge_weights(ldr):
    """Computes triangle weights for the three frames. Each value is weighted by its distance from both ends of its frame's range.

    The shortest frame keeps its full weight up to white, because nothing else shows the highlights. The longest keeps its full weight down to
    black. A pixel that is saturated in all frames therefore comes from the shortest, and one that is black in all frames from the longest. Where
    something moved, all three weights can be 0; there the reference decides.

    ldr: (B, 3, 3, H, W) gamma-coded in [0, 1], rising exposure. Returns: the same shape, float32; the three add up to 1.
    Source: triangle weights of [Debevec and Malik 1997], with open ends as in the ground truth of [Kalantari 2017].
    """
    short, reference, long = ldr.float().unbind(dim=1)  # (B, 3, H, W) each
    weight = torch.stack([(2 * short).clamp(max=1),
                          1 - (2 * reference - 1).abs(),
                          (2 - 2 * long).clamp(max=1)], dim=1)  # (B, 3, 3, H, W)
    total = weight.sum(dim=1, keepdim=True)
    alone = torch.tensor([0.0, 1.0, 0.0]).to(weight)[:, None, None, None]
    return torch.where(total > 0, weight / total.clamp(min=1e-12), alone)


def weighted_merge(ldr, ev):
    """Averages the three frames with merge_weights and no alignment: whatever moved leaves a ghost.

    ldr: (B, 3, 3, H, W) gamma-coded in [0, 1], rising exposure. ev: (B, 3) exposures in stops.
    Returns: (B, 3, H, W) linear radiance in units of the shortest exposure, float32.
    """
    return (merge_weights(ldr) * to_radiance(ldr, ev)).sum(dim=1)


# {title: function (ldr, ev) -> (B, 3, H, W) linear radiance}; arguments and result as in weighted_merge.
PLAIN = {"reference alone": lambda ldr, ev: to_radiance(ldr, ev)[:, 1], "weighted merge": weighted_merge}
