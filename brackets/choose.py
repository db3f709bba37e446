"""Which frames of a bracket the network sees. It takes three, and photographers take two, five, seven or nine.

The reference is the frame whose moment the result shows. Of the others, the network sees one that is shorter and one that is longer, at exposure
steps that its weights know. Frames beyond these three are put into the result afterwards (wider.py). On synthetic brackets of 7 and 9 frames, with
earlier weights, the narrower of two such triples gave better results than the wider one, because what the network need not rebuild comes out as taken.
A frame that does not exist is black where it is the short one, and white where it is the long one, so that nothing is learned of the camera from it.
After the alignment, it shows the reference at its exposure. PSNR-mu / PSNR-L of the shipped weights on 16 synthetic scenes with motion:
                                                                          the longer frame is the reference     the shorter one is
    the reference at its exposure                                         41.5 / 38.3                           46.7 / 41.5
    the other frame at its exposure                                       39.2 / 38.2                           45.7 / 37.0
    nothing (white, black)                                                40.9 / 38.3                           44.7 / 39.7
    no network: a merge of the two aligned frames                         36.2 / 36.2                           42.3 / 35.3
    no network: the reference alone                                       29.3 / 22.3                           40.9 / 40.0
    all three frames                                                      43.0 / 38.3                           47.5 / 39.4
(examples/two_frames.py; in the second column, the truth ends where the reference clips)
"""

from dataclasses import dataclass

import numpy as np
import torch

from brackets.register import exposed_as_frame
from brackets.scenes import LEAST, read_frames

KNOWN = 2.0, 3.0            # range of the exposure steps of the paper's data, stops: for weights that do not say which they know
SHOWN = 0.05, 0.95          # coded values between which a pixel shows something
BETTER = 0.1                # share of the pixels by which a frame must show more than one nearer to the middle, where there are three or more
SAMPLED = 1_000_000         # pixels of a photograph that are looked at


@dataclass
class Choice:
    """The frames that are used, as indices into a bracket's frames, whose exposures rise."""
    three: tuple                # short, reference, long; None for a frame that does not exist
    beyond: list                # shorter than the short one or longer than the long one
    step: float                 # at which a frame that does not exist is shown, stops


def by_name(bracket, reference):
    """The index of the frame that --reference names. reference: a file's name, with or without suffix, or a number from 1, the shortest, on.

    Raises: ValueError where there is no such frame.
    """
    for names in ([path.name.lower() for path in bracket.paths], [path.stem.lower() for path in bracket.paths]):
        if names.count(reference.lower()) == 1:
            return names.index(reference.lower())
    if reference.isdecimal() and 1 <= int(reference) <= len(bracket.paths):
        return int(reference) - 1
    raise ValueError(f"--reference {reference}: not a frame of {bracket.folder}; use one of {', '.join(path.name for path in bracket.paths)}, "
                     f"or a number from 1, the shortest, to {len(bracket.paths)}")


def share_shown(path):
    """The share of a photograph's pixels that are neither dark nor nearly white."""
    frame = read_frames(path.parent, [path])[0][0]
    step = max(1, round((frame[0].numel() / SAMPLED) ** 0.5))
    level = frame[:, ::step, ::step].amax(dim=0)
    return float(((level > SHOWN[0]) & (level < SHOWN[1])).float().mean())


def pick_reference(bracket, known=None):
    """The index of the frame that shows most, of those near the middle: of 5 or more the middle one and its neighbours, of an even number the middle two.

    A frame for which the others lie at less known steps is passed over. known: least and greatest step that the weights know, stops, or None.
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


def nearest(known, step):
    """The known step that is nearest to a step."""
    return min(max(step, known[0]), known[1])


def best_pair(ev, reference, known):
    """The outer frames for a reference: those whose steps are nearest to what is known, and of equally near ones the narrowest.

    Returns: by how many stops their steps differ from known ones, in all; stops from the short one to the long one; their indices, None for a frame
    that does not exist.
    """
    def cost(pair):
        steps = [abs(float(ev[i] - ev[reference])) for i in pair if i is not None]
        return round(sum(abs(step - nearest(known, step)) for step in steps), 1) if steps else float("inf"), sum(steps), pair

    shorter = [i for i in range(len(ev)) if ev[reference] - ev[i] >= LEAST] or [None]
    longer = [i for i in range(len(ev)) if ev[i] - ev[reference] >= LEAST] or [None]
    return min((cost((i, k)) for i in shorter for k in longer), key=lambda found: found[:2])


def choose(ev, reference, known=None):
    """Chooses the short and the long frame, and the frames beyond them.

    ev: (n,) stops, rising; reference: index; known: least and greatest step that the weights know, stops, or None. Returns: Choice.
    Raises: ValueError where every frame has the reference's exposure.
    """
    known = known or KNOWN
    _, _, (short, long) = best_pair(ev, reference, known)
    if short is None and long is None:
        raise ValueError(f"choose: all frames are exposed within {LEAST:g} EV of the reference; give frames of different exposure")
    step = nearest(known, max(abs(float(ev[i] - ev[reference])) for i in (short, long) if i is not None))
    beyond = []
    for side, last in ((-1, short), (1, long)):
        for i in range(len(ev))[::side]:
            if last is not None and side * (ev[i] - ev[last]) >= LEAST:
                beyond, last = [*beyond, i], i
    return Choice((short, reference, long), sorted(beyond), step)


def load_three(bracket, choice):
    """Reads the three frames of a bracket. Returns: a sample as data.py describes it, with the bracket's name as "name".

    A frame that does not exist is black or white, see above. "hdr", where there is one, is in units of the shortest frame of the whole bracket.
    """
    short, reference, long = choice.three
    frames, hdr = read_frames(bracket.folder, [bracket.paths[i] for i in choice.three if i is not None], bracket.truth, bracket.paths)
    ldr = [torch.zeros_like(frames[0])] * (short is None) + frames + [torch.ones_like(frames[0])] * (long is None)
    at = bracket.ev[reference]
    ev = [at - choice.step if short is None else bracket.ev[short], at, at + choice.step if long is None else bracket.ev[long]]
    sample = {"ldr": torch.stack(ldr), "ev": torch.tensor(np.array(ev) - ev[0], dtype=torch.float32), "name": bracket.name}
    return sample if hdr is None else {**sample, "hdr": hdr}


def stand_in(ldr, ev, choice):
    """Shows the reference in place of a frame that does not exist, exposed as that frame would be. ldr: (3, 3, H, W), changed; ev: (3,). Returns: ldr."""
    for k, i in enumerate(choice.three):
        if i is None:
            ldr[k] = exposed_as_frame(ldr[1], float(ev[1] - ev[k]))
    return ldr


def use_of(bracket, choice, i):
    """What frame i is used for, in words."""
    short, reference, long = choice.three
    if i in choice.beyond:
        return "for highlights that the others clip" if i < reference else "for shadows that are dark in the others"
    return {short: "short frame", reference: "reference", long: "long frame"}.get(i, "not needed")


def missing_in_words(choice):
    """A line about a frame that does not exist, or ""."""
    name = {0: "shorter", 2: "longer"}.get(choice.three.index(None)) if None in choice.three else None
    return f"  no frame is {name} than the reference, which stands in for it at {choice.step:g} EV" if name else ""


def in_words(bracket, choice):
    """A line for each frame: its number, name, exposure, and what it is used for."""
    lines = [f"  {i + 1:<2} {path.name:24s} +{stops:.2f} EV  {use_of(bracket, choice, i)}" for i, (path, stops) in enumerate(zip(bracket.paths, bracket.ev))]
    return "\n".join(filter(None, [*lines, missing_in_words(choice)]))
