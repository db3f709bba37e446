"""The response curve of a camera, from the bracket itself: frames are recoded to the gamma 2.2 that everything else supposes.

[departs D10: the paper's frames are coded as H^(1/2.2); a camera's JPEG has a tone curve of its own.]
Where a frame shows v, the light would be coded phi(v) by gamma 2.2. Two frames i and j show the same thing as v_i and v_j with
    phi(v_j) = phi(v_i) 2^((ev_j - ev_i) / 2.2)
Which v_i and v_j belong together is read off registered frames (comparagram: Mann and Picard 1995), as the trimmed mean of v_i over all
blocks with one v_j: things that moved are outliers. Means are of light, for means of noisy coded values are too dark. With
phi(v) = v e^d(v) that is linear in d, which is solved for by least squares, robust ones, as
    d(v) = c_1 ln v + c_2 d_sRGB(v) + r(v)          another gamma; sRGB's curve; what is left of it, smooth
and d(1) = 0: white stays white. (Debevec and Malik, SIGGRAPH 1997, solve for the whole curve, smooth, too, from points picked by hand.)
"""

import math

import numpy as np
import torch
import torch.nn.functional as nnf

from data import GAMMA

BLOCK = 4               # side of the blocks whose mean light is looked at, pixels: less noise, less of an error in registration
BINS = 40               # coded values of the brighter frame that are told apart
FEWEST = 30             # blocks in a bin
MOST = 1000             # blocks above which a bin does not weigh more
BLACK, WHITE = 0.05, 0.975  # coded values between which a block tells something
KNOTS = 17              # coded values at which d is found, from 0 to 1
SMOOTH, SMALL = 2.0, (0.02, 0.005, 0.1)  # weights of the second differences of r, and of c_1, c_2 and r themselves, against one full bin's 1
CLOSE = 0.02            # error of ln phi above which a bin is trusted less
OFF = 0.025             # mean error of ln phi that gamma 2.2 may make: exposures are not exact either


def comparagram(dark, bright):
    """Which values of two registered frames belong together.

    dark, bright: (3, H, W) coded in [0, 1], exposed less and more. Returns: (n, 3) float64: value in dark, in bright, weight up to 1.
    """
    light_dark, light_bright = (nnf.avg_pool2d(frame ** GAMMA, BLOCK).flatten().cpu().double() for frame in (dark, bright))
    clipped = nnf.max_pool2d(bright, BLOCK).flatten().cpu() > WHITE + 0.02      # such a block is brighter than its mean
    bins = (light_bright ** (1 / GAMMA) * BINS).long()
    rows = []
    for b in range(BINS):
        chosen = (bins == b) & ~clipped
        n = int(chosen.sum())
        if n >= FEWEST:
            middle = light_dark[chosen].argsort()[n // 4:n - n // 4]
            values = [float(light[chosen][middle].mean()) ** (1 / GAMMA) for light in (light_dark, light_bright)]
            if min(values) > BLACK and values[1] < WHITE:
                rows.append([*values, math.sqrt(min(n, MOST) / MOST)])
    return np.array(rows).reshape(-1, 3)


def interpolate(v, d):
    """d at coded values v, any shape, from its values at the knots: (KNOTS,), or (KNOTS, n) for n of them."""
    place = np.clip(v, 0, 1)[..., None] * (KNOTS - 1)
    return np.clip(1 - np.abs(place - np.arange(KNOTS)), 0, None) @ d


def estimate_response(ldr, ev):
    """The curve of the camera.

    ldr: (3, 3, H, W) coded in [0, 1], registered; ev: (3,) stops. Returns: (KNOTS,) float64, d at KNOTS equidistant coded values; None
    where gamma 2.2 explains the frames, where no curve does much better, or where too little is seen.
    """
    if min(ldr.shape[2:]) < BLOCK:
        return None
    pairs = [comparagram(ldr[i], ldr[i + 1]) for i in (0, 1)]
    steps = np.concatenate([np.full(len(pair), float(ev[i + 1] - ev[i])) for i, pair in enumerate(pairs)])
    dark, bright, weight = np.concatenate(pairs).T
    if len(steps) < KNOTS:
        return None
    knots = np.linspace(0, 1, KNOTS).clip(0.01)
    light = np.where(knots <= 0.04045, knots / 12.92, ((knots + 0.055) / 1.055) ** 2.4)     # by sRGB's curve
    basis = np.concatenate([np.stack([np.log(knots), np.log(light) / GAMMA - np.log(knots)], axis=1), np.eye(KNOTS)[:, :-1]], axis=1)
    A = interpolate(bright, basis) - interpolate(dark, basis)                   # A c = b: phi(v_j) = phi(v_i) 2^(...), in logarithms
    b = steps * math.log(2) / GAMMA - np.log(bright / dark)
    smooth = np.concatenate([np.zeros((KNOTS - 2, 2)), SMOOTH * np.diff(np.eye(KNOTS), 2, axis=0)[:, :-1]], axis=1)
    prior = np.concatenate([smooth, np.diag([*SMALL[:2], *[SMALL[2]] * (KNOTS - 1)])])
    trust = weight
    for _ in range(10):
        c = np.linalg.lstsq(np.concatenate([A * trust[:, None], prior]), np.concatenate([b * trust, np.zeros(len(prior))]), rcond=None)[0]
        error = np.abs(A @ c - b)
        trust = weight * np.sqrt(CLOSE / np.maximum(error, CLOSE))
    d = basis @ c
    before, after = np.average(np.abs(b), weights=weight), np.average(error, weights=weight)
    v = np.linspace(0, 1, 1000)[1:]
    rises = (np.diff(v * np.exp(interpolate(v, d))) > 0).all()
    return d if rises and before > OFF and after < before / 2 else None


def recode(ldr, d):
    """phi of frames. ldr: (..., H, W) coded in [0, 1]; d: of estimate_response. Returns: the same shape, in [0, 1]."""
    v = np.linspace(0, 1, 4097)
    phi, out = torch.from_numpy(v * np.exp(interpolate(v, d))).float().to(ldr), torch.empty(ldr.shape, dtype=ldr.dtype, device=ldr.device)
    for plane, into in zip(ldr.flatten(0, -3), out.flatten(0, -3)):             # a large photograph's planes, not all at once
        low = (plane * (len(v) - 1)).int().clamp(max=len(v) - 2)
        into.copy_(torch.lerp(phi[low], phi[low + 1], plane * (len(v) - 1) - low))
    return out
