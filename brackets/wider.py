"""Uses the frames beyond the three: shorter ones show what all three clip, longer ones what is dark in all three.

The network sees three frames. If a bracket has more, those shorter than the short frame or longer than the long one are put into the result
afterwards, one by one, the nearest exposure first. Each is aligned to its neighbour, the aligned frame of the next exposure, as prepare() aligns
frames: homography, light, flow. A shorter frame contributes where the neighbour is nearly white, a longer one where it is dark, and both only where
they do not contradict the neighbour.
[departs D13: the paper's brackets have three frames.]
"""

import numpy as np
import torch

from brackets.flow import SMALLEST, enlarged, flow_of, ghosts, shrunk_pair
from brackets.light import apply
from brackets.register import estimate, warp
from brackets.scenes import read_frames
from data import GAMMA

WHITE = 0.9, 0.97       # coded values of the neighbour between which a shorter frame takes over
DARK = 0.25, 0.12       # the same for a longer frame
BELIEVED = 0.95         # coded value of a longer frame up to which it is believed
FEWEST = 1000           # fewest pixels from which the step between two frames is measured; with fewer, the stated one is taken


def measured_step(neighbour, frame, stops):
    """Measures by how many stops the neighbour is exposed longer than the aligned frame. Returns the stated stops if the two show too little."""
    between = (torch.minimum(neighbour, frame) > 0.1) & (torch.maximum(neighbour, frame) < 0.9)
    if between.sum() < FEWEST:
        return stops
    ratio = (neighbour[between] / frame[between])
    return float(GAMMA * torch.log2(ratio[::1 + len(ratio) // 1_000_000].median()))


def align_to(neighbour, frame, stops, config):
    """Aligns a frame to its neighbour: shows it as the camera would have seen it at the neighbour's moment.

    neighbour, frame: (3, H, W) coded in [0, 1]; stops: by how much the neighbour is exposed longer, as stated, negative: shorter; config: PrepareConfig.
    Returns: (3, H, W); where it contradicts the neighbour, (1, H, W) in [0, 1]; the stops, as measured.
    """
    homography = estimate(neighbour, frame, stops) if config.register else None
    homography = np.eye(3) if homography is None else homography
    aligned = warp(frame, homography, neighbour, stops)
    stops = measured_step(neighbour, aligned, stops)
    if min(frame.shape[1:]) < SMALLEST:
        return aligned, torch.zeros(1, *frame.shape[1:]), stops
    pair, k = shrunk_pair(neighbour, frame, stops, homography)
    u = flow_of(pair) if config.flow else torch.zeros(2, *pair.shape[2:])
    if config.flow:
        aligned = warp(frame, homography, neighbour, stops, enlarged(u * k, k, frame))
    return aligned, ghosts(pair, u, k, neighbour, aligned, stops), stops


@torch.no_grad()
def put_in(hdr, neighbour, neighbour_ev, frame, ev, config):
    """Puts one frame into a result.

    hdr: (3, H, W) linear, 1 is where an exposure of 0 stops clips; changed in place. neighbour: (3, H, W) coded, aligned to hdr, exposed by
    neighbour_ev; frame: (3, H, W) coded, light corrected, not aligned; ev: its exposure as stated.
    Returns: the frame, aligned; its exposure as measured.
    """
    aligned, ghost, stops = align_to(neighbour, frame, neighbour_ev - ev, config)
    shorter, ev = neighbour_ev > ev, neighbour_ev - stops
    start, end = WHITE if shorter else DARK
    weight = ((neighbour.amax(dim=0) - start) / (end - start)).clamp(0, 1) * (1 - ghost[0])
    if not shorter:
        weight = weight * ((1 - aligned.amax(dim=0)) / (1 - BELIEVED)).clamp(0, 1)
    hdr.lerp_(aligned ** GAMMA * 2.0 ** -ev, weight)
    return aligned, ev


def widen(hdr_hat, prepared, bracket, choice, config):
    """Puts the frames beyond the three into the result, and converts it to units of the bracket's shortest exposure.

    hdr_hat: (1, 3, H, W) linear, in units of the shortest of the three, changed in place; prepared: Prepared of the three; bracket, choice: where they
    come from; config: PrepareConfig.
    Returns: (1, 3, H, W) in [0, 1]; by how many stops the shortest of the three is exposed longer than the shortest of all, negative if the shortest
        of the three is missing.
    """
    longer_by = 0.0
    for side, k in ((-1, 0), (1, 2)):
        reference, last = choice.three[1], choice.three[k]
        neighbour, there = prepared.ldr[k], float(prepared.ev[k])
        for i in sorted((i for i in choice.beyond if side * (i - reference) > 0), key=lambda i: side * i):
            frame = read_frames(bracket.folder, [bracket.paths[i]], among=bracket.paths)[0][0]
            if frame.shape != neighbour.shape:
                raise ValueError(f"{bracket.paths[i]}: {frame.shape[2]}x{frame.shape[1]} pixels, the others {neighbour.shape[2]}x{neighbour.shape[1]}; "
                                 "give images of one size")
            if prepared.light is not None:
                frame = apply(frame[None], prepared.light, (k,))[0][0]
            neighbour, there = put_in(hdr_hat[0], neighbour, there, frame, there + bracket.ev[i] - bracket.ev[last], config)
            last, longer_by = i, max(longer_by, -there)
    if choice.three[0] is None:
        longer_by = -choice.step
    return (hdr_hat * 2.0 ** -longer_by).clamp(max=1) if longer_by else hdr_hat, longer_by
