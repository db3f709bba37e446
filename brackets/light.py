"""Estimates the light in a bracket of camera files from the bracket itself: tone curve, true exposures, clip level, black level and colour gains.

[departs D10: the paper's frames have exactly gamma 2.2 and exact exposures; frames from cameras and converters do not.]
Frame i shows light H in channel c as the coded value v. With phi, what gamma 2.2 would write where the camera writes v (curve.py),
    phi(v)^2.2 = black + (1 - black) H 2^(ev_i + gain_i + colour_ic)                                   up to v = clip, where it saturates
Registered frames show which values belong together (comparagram: Mann and Picard 1995): rows of v_i, v_j for neighbouring frames, trimmed
means of light over the blocks of one v_j, which leave out what moved. From these rows, curve.py finds phi, black and the gains. If gamma
2.2 at the stated exposures explains the rows, the frames stay the same, bit for bit. docs/light.md has the measurements.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from brackets.curve import BASIS, CURVE, GAIN, at, compete, phi, residual
from data import GAMMA

BLOCK, BLOCKS = 4, 20_000       # side of a block, pixels; blocks sampled per frame
BINS, FEWEST, MOST = 40, 20, 1000   # bins for the coded values of the brighter frame; fewest and most blocks in a bin
LOW, TOP = 0.05, 0.02           # lowest coded value that is used; how far below the clip level values must stay
ENOUGH = 12                     # fewest rows from which anything is estimated
COLOURED = 0.1                  # difference between the colour gains above which the white balance counts as different, stops
LEAST = 0.11                    # gain below which stated exposures are left alone, stops: they are exact to about 0.1
FAITHLESS = 0.06                # median residual above which the frames do not show one scene, stops
QUARTILES = torch.tensor([0.25, 0.5, 0.75])
U8 = 1 / 255                    # one code of 8 bits


@dataclass
class Light:
    """How a bracket's files relate to its light; see the top of this file."""
    ev: torch.Tensor        # (3,) true exposures, stops from the shortest
    curve: np.ndarray       # (13,) float64, see curve.py; all 0 is gamma 2.2
    clip: float             # coded value at which the frames saturate
    black: float            # light that the frames show where there is none; white is 1
    colour: np.ndarray      # (3, 3) stops by which a frame's channel is brighter than ev says; the reference's are 0
    misfit: float           # median residual that remains, stops


# --- which values belong together ---------------------------------------------------------------------------------------

def _blocks(ldr):
    """Samples blocks all over the frames, where no frame is NaN. Returns: (frames, 3, n, 16), n up to about BLOCKS."""
    h, w = (side // BLOCK for side in ldr.shape[2:])
    apart = BLOCK * max(1, round(math.sqrt(h * w / BLOCKS)))
    blocks = ldr.unfold(2, BLOCK, apart).unfold(3, BLOCK, apart).reshape(*ldr.shape[:2], -1, BLOCK * BLOCK).float().cpu()
    return blocks[:, :, ~blocks.isnan().any(dim=3).any(dim=1).any(dim=0)]


def find_clip(blocks):
    """Finds the coded value at which frames saturate: near white, very many flat blocks have it and hardly any block is brighter.

    blocks: from _blocks. Returns: float; 1 if nothing saturates, or only at white.
    """
    pair = blocks[1:]
    codes = 255 * pair.mean(dim=-1)                                                 # (2, 3, n): reference and long frame
    flat = pair.amax(dim=-1) - pair.amin(dim=-1) < 2.5 * U8
    counts = torch.histc(codes[flat], 31, 225.5, 256.5).numpy()                     # of codes 226 .. 256
    best = 4 + int(counts[4:].argmax())
    peak, below = counts[best - 1:best + 2].sum(), counts[:best - 2][-6:].mean()
    level, brighter = 226 + best, int((codes > 229 + best).sum())
    saturated = flat & ((codes - level).abs() < 1.5)
    shorter = blocks[:2].mean(dim=-1)[saturated]                                    # a white wall has one value there, saturated areas have many
    if level >= 254 or peak < max(30, 0.001 * codes.numel()) or peak < 6 * below or brighter > 0.03 * peak or shorter.std() < 0.03 * shorter.mean():
        return 1.0
    return float(codes[saturated].median()) * U8


def comparagram(blocks, clip=1.0, curve=None):
    """Finds which values of neighbouring frames belong together.

    blocks: from _blocks; clip: from find_clip; curve: the best estimate so far, as in Light, because the means are of light.
    Returns: (n, 5) float64: pair (0: short and reference, 1: reference and long), channel, v_i, v_j, deviation of the residual.
    """
    values = np.linspace(0, 1, 1025)
    table = (values if curve is None else phi(values, curve)) ** GAMMA
    slopes = np.exp(BASIS @ (np.zeros(BASIS.shape[1]) if curve is None else curve))
    x = blocks * (len(values) - 1)
    low = x.int().clamp(max=len(values) - 2)
    lights = torch.from_numpy(table).float()
    light = torch.lerp(lights[low], lights[low + 1], x - low)
    mean = light.mean(dim=-1)                                                       # (3, 3, n)
    spread = (light - mean[..., None]).square_().mean(dim=-1).sqrt().double().numpy()
    mean = mean.double().numpy()
    coded = np.interp(mean, table, values)
    usable = blocks.amax(dim=-1).numpy() < clip - 1.5 * U8                          # a block with a clipped pixel is brighter than its mean
    rows = []
    for pair, channel in np.ndindex(2, 3):
        relative = spread[pair + 1, channel] / mean[pair + 1, channel].clip(1e-9)
        bins = np.where(usable[pair + 1, channel], (coded[pair + 1, channel] * BINS).astype(int), BINS)
        order = np.argsort(bins, kind="stable")
        cuts = np.searchsorted(bins[order], np.arange(BINS + 1))
        for chosen in (order[a:b] for a, b in zip(cuts, cuts[1:]) if b - a >= FEWEST):
            chosen = chosen[relative[chosen] <= np.median(relative[chosen])]        # edges are unreliable
            chosen = chosen[::1 + len(chosen) // MOST]
            light_i, light_j, deviation = _one_row(mean[pair, channel, chosen], mean[pair + 1, channel, chosen], spread[pair, channel, chosen])
            v_i, v_j = np.interp([light_i, light_j], table, values)
            if LOW < v_i and v_j < clip - TOP:
                of_light = deviation / at(slopes, np.array([v_i]))[0]
                rows.append((pair, channel, v_i, v_j, math.sqrt(0.005 ** 2 + (U8 / 4 / v_i) ** 2 + of_light ** 2)))
    return np.array(rows).reshape(-1, 5)


def _one_row(dark, bright, spread):
    """Returns the mean light of one bin's blocks in each frame, without what moved, and the deviation of the darker one's ln phi. Arguments: (n,)."""
    n, ranked = len(dark), np.argsort(dark)
    middle = ranked[n // 4:n - n // 4]
    light_i, light_j = max(dark[middle].mean(), 1e-9), bright[middle].mean()
    scatter = (dark[ranked[int(0.8 * n)]] - dark[ranked[int(0.2 * n)]]) / (1.68 * GAMMA * light_i)
    noise = min(np.median(spread) / light_i, 2)                                     # JPEG and clipping average codes, not light: a bias
    return light_i, light_j, math.sqrt(1.7 * scatter ** 2 / n + 0.04 * noise ** 4)


def _solve(blocks, clip, steps):
    """Finds the preferred model. steps(rows): stops of each row, as stated.

    Returns: theta, None if too little is seen; the rows it was fitted to; 0, 1, 2 for gamma 2.2, sRGB, any curve.
    """
    theta, found, model, rows = None, None, 0, comparagram(blocks, clip)
    for _ in range(2):                                                              # the second time, means are of the light found the first time
        if len(rows) < ENOUGH:
            break
        fits, model = compete(rows, steps(rows), GAIN, 2)
        theta, found = fits[model][0], rows
        if not model:
            break
        rows = comparagram(blocks, clip, theta[CURVE])
    return theta, found, model


def _in_stops(theta, rows, steps):
    """Returns the residuals as stops of light."""
    return residual(theta, rows, steps)[0] * np.exp(at(BASIS @ theta[CURVE], rows[:, 2])) * GAMMA / math.log(2)


def _colours(theta, rows, steps):
    """Returns (3, 3) stops by which channels of the outer frames are brighter than the reference's colours imply, see Light."""
    colour, off = np.zeros((3, 3)), _in_stops(theta, rows, steps)
    for pair, frame, sign in ((0, 0, 1), (1, 2, -1)):
        channels = [off[(rows[:, 0] == pair) & (rows[:, 1] == channel)] for channel in range(3)]
        if min(map(len, channels)) >= ENOUGH / 2:
            found = sign * np.array([np.median(channel) for channel in channels])
            scatter = max(np.median(np.abs(channel - np.median(channel))) for channel in channels)
            if np.ptp(found) > max(COLOURED, 3 * scatter):
                colour[frame] = found - found.mean()
    return colour


# --- what other files call ----------------------------------------------------------------------------------------------

def estimate(ldr, ev, where="light"):
    """Estimates how a bracket's files relate to its light.

    ldr: (3, 3, H, W) coded in [0, 1], registered; ev: (3,) stops, rising, as stated; where: the bracket's place, for the message.
    Returns: Light; None if the frames have gamma 2.2 at the stated exposures, or too little is seen: then they must stay the same, bit for bit.
    Raises: ValueError if a frame is darker than one that is stated to be exposed less.
    """
    if min(ldr.shape[2:]) < BLOCK:
        return None
    ev, blocks = np.asarray(ev, np.float64), _blocks(ldr)
    _check_order(blocks, ev, where)
    clip = find_clip(blocks)
    colour = np.zeros((3, 3))

    def steps(rows):
        pair, channel = rows[:, :2].astype(int).T
        return np.diff(ev)[pair] + colour[pair + 1, channel] - colour[pair, channel]

    theta, rows, model = _solve(blocks, clip, steps)
    if theta is not None:
        colour = _colours(theta, rows, steps(rows))
        if colour.any():
            theta, rows, model = _solve(blocks, clip, steps)
        misfit = float(np.median(np.abs(_in_stops(theta, rows, steps(rows)))))
    faithless = theta is not None and misfit > FAITHLESS
    if theta is None or faithless:
        theta, colour, misfit = np.zeros(CURVE.stop + 2), np.zeros((3, 3)), misfit if faithless else 0.0
    elif model < 2 and np.abs(theta[CURVE.stop:]).max() < LEAST:
        theta[CURVE.stop:] = 0
    black, curve, gains = theta[0], theta[CURVE], theta[CURVE.stop:]
    if not (curve.any() or gains.any() or black or colour.any() or clip < 1 or faithless):
        return None
    true = np.concatenate([[0], np.cumsum(np.diff(ev) + gains)])
    return Light(torch.from_numpy(true).float(), curve, clip, float(black), colour, misfit)


def _check_order(blocks, ev, where):
    """Raises: ValueError if a frame is mostly darker than the frame before, although ev says that it is exposed more."""
    for i, step in enumerate(np.diff(ev)):
        darker, brighter = (torch.quantile(blocks[k].mean(dim=-1).flatten()[:2 ** 20], QUARTILES) for k in (i, i + 1))
        if (brighter <= darker).all() and (brighter < 0.93 * darker).any():         # equal where both are black or saturated
            raise ValueError(f"{where}: frame {i + 2} is darker than frame {i + 1}, but is stated to be exposed {step:.1f} EV more; "
                             "correct the exposure file, or write exposure.txt")


def _table(light, frame, channel):
    """Returns what 4097 evenly spaced values of a frame's channel become."""
    v = np.linspace(0, 1, 4097)
    net = (phi(v, light.curve) ** GAMMA - light.black).clip(0) / (1 - light.black) * 2.0 ** -light.colour[frame, channel]
    coded = net.clip(0, 1) ** (1 / GAMMA)
    if light.clip < 1 or light.colour[frame].any():                                 # saturated values become white, the others stay
        t = ((v - light.clip) / U8 + 1.25).clip(0, 0.75) / 0.75                     # from 1.25 codes of 8 bits below the clip level to half a code
        coded += (1 - coded) * t
    return coded


@torch.no_grad()
def apply(ldr, light, frames=(0, 1, 2)):
    """Recodes frames to gamma 2.2, saturated at 1 and black at 0.

    ldr: (n, 3, H, W) coded in [0, 1], of any memory format; light: from estimate; frames: which frame of the bracket each of the n is, or is like.
    Returns: a new tensor of the same shape in [0, 1], and the true exposures (3,), stops from the shortest. The brightness stays that of the files:
        phi(1) = 1, and what saturates becomes white at its clip level.
    """
    out = ldr.clone()
    if not (light.curve.any() or light.black or light.colour.any() or light.clip < 1):
        return out, light.ev.clone()
    for i, frame in zip(frames, out):
        for c, plane in enumerate(frame):                                           # one plane at a time, for large photographs
            table = torch.from_numpy(_table(light, i, c)).to(ldr)
            place = plane * (len(table) - 1)
            low = place.int().clamp(0, len(table) - 2)                          # NaN becomes an arbitrary index here, and NaN again below
            plane.copy_(torch.lerp(table[low], table[low + 1], place - low))
    return out, light.ev.clone()


def implausible(light, ev):
    """Lists in words what is hard to believe about a Light; usually nothing. ev: (3,) stops as stated."""
    off = np.diff(light.ev.numpy()) - np.diff(np.asarray(ev, np.float64))
    found = [f"the step between frames {i + 1} and {i + 2} is {abs(step):.1f} EV {'more' if step > 0 else 'less'} than stated"
             for i, step in enumerate(off) if abs(step) > 0.5]
    if light.black > 0.02:
        found.append(f"black is at {100 * light.black:.1f} % of white")
    if light.misfit > FAITHLESS / 2:
        found.append(f"the frames contradict each other by {light.misfit:.2f} EV")
    return found


def in_words(light, ev):
    """Describes a Light, or None, in one line. ev: (3,) stops as stated."""
    def stops(values):
        return ", ".join(f"{float(value):+.3g}" for value in values)

    stated = [float(value) - float(ev[0]) for value in ev]
    if light is None:
        return f"exposures {stops(stated)} EV"
    parts = [f"exposures {stops(light.ev)} EV"]
    if np.abs(light.ev.numpy() - stated).max() > 0.005:
        parts[0] += f" (stated {stops(stated)})"
    if light.curve.any():
        parts.append("curve: not gamma 2.2")
    if light.clip < 1:
        parts.append(f"clips at {light.clip * 255:.0f} of 255")
    if light.black:
        parts.append(f"black at {100 * light.black:.2g} % of white")
    if light.colour.any():
        parts.append(f"white balance differs by up to {np.ptp(light.colour, axis=1).max():.2f} EV")
    doubts = implausible(light, ev)
    return "; ".join(parts) + (f". Doubtful: {'; '.join(doubts)}" if doubts else "")


def estimate_exposures(frames):
    """Estimates the exposures of photographs that state none: how many stops brighter each is than the darkest, under the same three models.

    frames: list of (3, H, W) coded in [0, 1], of one scene, in any order. They need not be registered: each frame is compared with the next
    brighter one by quantiles, which motion hardly changes (Grossberg and Nayar 2003).
    Returns: (n,) float32 stops, the darkest 0. They are right up to a common factor that only the prior on curves settles, mostly within 10 %.
    Raises: ValueError if two frames are equally bright, or too little is seen.
    """
    coded = [_blocks(frame[None]).mean(dim=-1)[0].double().numpy() for frame in frames]         # (3, n) each
    order = np.argsort([values.mean() for values in coded])
    rows, white = [], max(values.max() for values in coded)
    for pair, (dark, bright) in enumerate(zip(order, order[1:])):
        for channel in range(3):
            for v_i, v_j in zip(*(np.quantile(coded[k][channel], np.linspace(0.02, 0.98, 49)) for k in (dark, bright))):
                if 2 * LOW < v_i and v_j < white - 2 * TOP:
                    rows.append((pair, channel, v_i, v_j, 0.03))
    rows = np.array(rows).reshape(-1, 5)
    pair = rows[:, 0].astype(int)
    if any((pair == k).sum() < ENOUGH for k in range(len(frames) - 1)):
        raise ValueError("light: the frames overlap too little to estimate their exposures; write them into exposure.txt")
    first = np.array([np.median(GAMMA * np.log2(rows[pair == k, 3] / rows[pair == k, 2])) for k in range(len(frames) - 1)])
    fits, best = compete(rows, first[pair], 10.0, len(frames) - 1)
    steps = first + fits[best][0][CURVE.stop:]
    if steps.min() < 0.1:
        raise ValueError("light: two frames are equally bright, so their exposures cannot be estimated; give frames of different exposure")
    ev = np.empty(len(frames), np.float32)
    ev[order] = np.concatenate([[0], np.cumsum(steps)])
    return ev
