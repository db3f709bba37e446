"""Handles exposure steps that the weights have not seen [departs D11]: shows the outer frames at steps that they have seen, and scales the result back.

A frame taken at another exposure shows the same light times a factor, so its coded values are multiplied by 2^(stops / 2.2). If a step is too
small, nothing is lost: the short frame becomes darker, and the long one brighter. If a step is too large, the long frame becomes darker, and
shows the reference where it saturates. The short frame becomes brighter, and what saturates is afterwards taken from the original short frame.
This is not part of the paper, whose data have steps of 2 and 3 EV only.
"""

import torch

from data import GAMMA

SLACK = 0.06            # stops by which a step may lie outside the range of training
WHITE = 0.97            # coded value from which a frame counts as saturated; from there up to 1 it is believed less and less


def nearest_steps(known, ev):
    """Finds the steps at which to show a bracket. known: the least and the greatest step of training, stops, or None; ev: (3,) stops.

    Returns: two steps, stops; None if the bracket's own steps lie in that range, or the range is None.
    """
    taken = ev[1:] - ev[:-1]
    nearest = taken.clamp(*known) if known else taken
    return nearest.tolist() if float((taken - nearest).abs().max()) > SLACK else None


def in_words(known, ev):
    """Returns a line about a bracket that is shown at steps other than its own, else "". Arguments: as in nearest_steps."""
    steps = nearest_steps(known, ev)
    if steps is None:
        return ""
    taken, shown = (" and ".join(f"{stops:.3g}" for stops in pair) for pair in ((ev[1:] - ev[:-1]).tolist(), steps))
    return f"\nthe exposure steps are {taken} EV; the weights know {known[0]:.2g} to {known[1]:.2g} EV, and were shown {shown} EV"


def show_at(steps, ldr, ev):
    """Shows a bracket as if it had been taken at other steps. steps: two, stops; ldr: (1, 3, 3, H, W) coded, ev: (1, 3) stops.

    Returns: ldr and ev of the same shapes. The reference stays as it is.
    """
    shown_ev = torch.tensor([[0, steps[0], sum(steps)]]).to(ev)
    stops = (shown_ev - shown_ev[:, 1:2]) - (ev - ev[:, 1:2])                               # stops by which each frame is shown brighter
    shown = (ldr * 2 ** (stops / GAMMA)[:, :, None, None, None]).clamp(max=1)
    if stops[0, 2] < 0:     # where the long frame saturates, it says nothing, so it shows the reference at its exposure
        shown[:, 2] = torch.where(ldr[:, 2] >= WHITE, (ldr[:, 1] * 2 ** (steps[1] / GAMMA)).clamp(max=1), shown[:, 2])
    return shown, shown_ev


def scale_back(hdr_hat, shown, shown_ev, ldr, ev):
    """Converts a result to units of the bracket's own shortest exposure.

    hdr_hat: (1, 3, H, W) in units of the shortest exposure that was shown; shown, shown_ev: from show_at; ldr, ev: the bracket itself.
    Returns: (1, 3, H, W) linear radiance in [0, 1].
    """
    hdr = (hdr_hat * 2 ** float(shown_ev[0, 1] - ev[0, 1])).clamp(max=1)
    if shown_ev[0, 1] < ev[0, 1] - ev[0, 0]:                                                # the short frame was shown brighter than it is
        hdr = torch.lerp(hdr, ldr[:, 0].float() ** GAMMA, ((shown[:, 0] - WHITE) / (1 - WHITE)).clamp(0, 1))
    return hdr
