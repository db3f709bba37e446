"""Chooses the frames of a bracket that the network sees. The network takes three; photographers take two, five, seven or nine.

The reference is the frame whose moment the result shows. The network also sees one shorter and one longer frame, at exposure steps that its
weights know. Frames beyond these three are put into the result afterwards (wider.py). On synthetic brackets of 7 and 9 frames, with earlier
weights, the narrower of two such triples gave better results than the wider one, because what the network need not rebuild stays as photographed.
A missing short frame is black and a missing long frame is white, so that nothing about the camera is inferred from it. After the
alignment, the reference takes that place, at the missing frame's exposure. PSNR-mu / PSNR-L of the shipped weights on 16 synthetic scenes with motion,
by what takes the place of the missing frame ("its exposure" is the missing frame's):
                                                                          the longer frame is the reference     the shorter one is
    the reference at its exposure                                         42.2 / 38.8                           46.6 / 41.5
    the other frame at its exposure                                       39.7 / 38.8                           46.0 / 38.4
    nothing (white, black)                                                41.2 / 38.8                           45.8 / 41.0
    no network: a merge of the two aligned frames                         36.2 / 36.2                           42.3 / 35.3
    no network: the reference alone                                       29.3 / 22.3                           40.9 / 40.0
    all three frames                                                      43.7 / 38.8                           48.2 / 40.5
(examples/two_frames.py; in the second column, the truth ends where the reference clips)
"""

from dataclasses import dataclass

import numpy as np
import torch

from brackets.register import exposed_as_frame
from brackets.scenes import LEAST, read_frames

KNOWN = 2.0, 3.0            # range of exposure steps in the paper's data, stops: used for weights that do not state their own
SHOWN = 0.05, 0.95          # a pixel shows something if its coded value lies between these
BETTER = 0.1                # a frame must show this much more, as a share of the pixels, to be preferred to one nearer the middle, if there are three or more
SAMPLED = 1_000_000         # pixels sampled per photograph


@dataclass
class Choice:
    """The frames that are used, as indices into the bracket's frames, which are sorted by rising exposure."""
    three: tuple                # short, reference, long; None for a missing frame
    beyond: list                # frames shorter than the short one or longer than the long one
    step: float                 # exposure step at which a missing frame is shown, stops


def by_name(bracket, reference):
    """Returns the index of the frame that --reference names. reference: a file name, with or without suffix, or a number; 1 is the shortest frame.

    Raises: ValueError if there is no such frame.
    """
    for names in ([path.name.lower() for path in bracket.paths], [path.stem.lower() for path in bracket.paths]):
        if names.count(reference.lower()) == 1:
            return names.index(reference.lower())
    if reference.isdecimal() and 1 <= int(reference) <= len(bracket.paths):
        return int(reference) - 1
    raise ValueError(f"--reference {reference}: not a frame of {bracket.folder}; use one of {', '.join(path.name for path in bracket.paths)}, "
                     f"or a number from 1 (the shortest) to {len(bracket.paths)}")


def share_shown(path):
    """Returns the share of a photograph's pixels that are neither dark nor nearly white."""
    frame = read_frames(path.parent, [path])[0][0]
    step = max(1, round((frame[0].numel() / SAMPLED) ** 0.5))
    level = frame[:, ::step, ::step].amax(dim=0)
    return float(((level > SHOWN[0]) & (level < SHOWN[1])).float().mean())


def pick_reference(bracket, known=None):
    """Returns the index of the frame near the middle that shows most. An even number of frames has two near the middle; an odd number from 5 on, three.

    A frame whose steps to the others are further from known ones than the middle frame's is skipped. known: as in choose.
    """
    n = len(bracket.paths)
    if n == 3:
        return 1
    wider = int(n > 4 and n % 2 == 1)
    near = sorted(range((n - 1) // 2 - wider, n // 2 + 1 + wider), key=lambda i: abs(i - (n - 1) / 2))
    off = {i: best_pair(bracket.ev, i, known or KNOWN)[0] for i in near}
    best, most = None, -1.0
    for i in near:
        shown = share_shown(bracket.paths[i]) if off[i] <= off[near[0]] else -1.0
        if shown > most + (BETTER if n > 2 else 0):
            best, most = i, shown
    return best


def best_pair(ev, reference, known):
    """Finds the outer frames for a reference: the pair whose steps are nearest to known ones; among equally near pairs, the narrowest.

    Returns: how far the steps are from known ones, summed, in stops; stops from the short to the long frame; their indices, None for a missing frame.
    """
    def cost(pair):
        steps = [abs(float(ev[i] - ev[reference])) for i in pair if i is not None]
        return round(sum(abs(step - np.clip(step, *known)) for step in steps), 1) if steps else float("inf"), sum(steps), pair

    shorter = [i for i in range(len(ev)) if ev[reference] - ev[i] >= LEAST] or [None]
    longer = [i for i in range(len(ev)) if ev[i] - ev[reference] >= LEAST] or [None]
    return min((cost((i, k)) for i in shorter for k in longer), key=lambda found: found[:2])


def choose(ev, reference, known=None):
    """Chooses the short and the long frame, and the frames beyond them.

    ev: (n,) stops, rising; reference: index; known: least and greatest step that the weights know, stops, or None. Returns: Choice.
    Raises: ValueError if every frame has the reference's exposure.
    """
    known = known or KNOWN
    _, _, (short, long) = best_pair(ev, reference, known)
    if short is None and long is None:
        raise ValueError(f"choose: all frames are exposed within {LEAST:g} EV of the reference; give frames of different exposure")
    step = float(np.clip(max(abs(ev[i] - ev[reference]) for i in (short, long) if i is not None), *known))
    beyond = []
    for side, last in ((-1, short), (1, long)):
        for i in range(len(ev))[::side]:
            if last is not None and side * (ev[i] - ev[last]) >= LEAST:
                beyond, last = [*beyond, i], i
    return Choice((short, reference, long), sorted(beyond), step)


def load_three(bracket, choice):
    """Reads the three frames of a bracket. Returns: a sample as data.py describes it, with the bracket's name as "name".

    A missing frame is black or white, see above. "hdr", if there is one, is in units of the shortest frame of the whole bracket.
    """
    short, reference, long = choice.three
    frames, hdr = read_frames(bracket.folder, [bracket.paths[i] for i in choice.three if i is not None], bracket.truth, bracket.paths)
    ldr = [torch.zeros_like(frames[0])] * (short is None) + frames + [torch.ones_like(frames[0])] * (long is None)
    at = bracket.ev[reference]
    ev = [at - choice.step if short is None else bracket.ev[short], at, at + choice.step if long is None else bracket.ev[long]]
    sample = {"ldr": torch.stack(ldr), "ev": torch.tensor(np.array(ev) - ev[0], dtype=torch.float32), "name": bracket.name}
    return sample if hdr is None else {**sample, "hdr": hdr}


def stand_in(ldr, ev, choice):
    """Shows the reference in place of a missing frame, exposed as that frame would be. ldr: (3, 3, H, W), changed in place; ev: (3,). Returns: ldr."""
    for k, i in enumerate(choice.three):
        if i is None:
            ldr[k] = exposed_as_frame(ldr[1], float(ev[1] - ev[k]))
    return ldr


def use_of(choice, i):
    """Says what frame i is used for."""
    short, reference, long = choice.three
    if i in choice.beyond:
        return "for highlights that the others clip" if i < reference else "for shadows that are dark in the others"
    return {short: "short frame", reference: "reference", long: "long frame"}.get(i, "not needed")


def missing_in_words(choice):
    """Returns a line about the missing frame, or ""."""
    name = {0: "shorter", 2: "longer"}.get(choice.three.index(None)) if None in choice.three else None
    return f"  there is no {name} frame; the reference stands in for it at {choice.step:g} EV" if name else ""


def in_words(bracket, choice):
    """Returns a line for each frame: its number, name, exposure and use."""
    lines = [f"  {i + 1:<2} {path.name:24s} +{stops:.2f} EV  {use_of(choice, i)}" for i, (path, stops) in enumerate(zip(bracket.paths, bracket.ev))]
    return "\n".join(filter(None, [*lines, missing_in_words(choice)]))
