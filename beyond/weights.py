"""Reads and writes files of weights: what inference needs, in float16. Builds models from them.

A file is a dict of plain values and tensors: "variant" and "config" (the architecture), "correct" (whether DHRNet corrects a merge, D8),
"prepare" (how the training frames were prepared), "steps" (the range of their exposure steps), "model" and "lpenet" (state dicts), "notes".
Checkpoints of the train scripts have the same keys.
VGG19's file for Eq. 11 is also read here.
"""

from dataclasses import asdict
from pathlib import Path

import torch

from beyond.checkpoints import check_fit, fill, load_checkpoint, save_checkpoint
from beyond.correct import CorrectingDHRNet, add_correction
from beyond.fast import speed_up
from brackets.kinds import instead_of
from brackets.prepare import UNPREPARED, PrepareConfig
from common import config_from
from lfdiff import LFDiffConfig, build
from loss import VGG19_URL, VGG19Features

SHIPPED = str(Path(__file__).parent.parent / "weights" / "lfdiff.pt")     # what is used if no other file is named


def architecture(model, prepare, steps=None):
    """Returns what a checkpoint says about a model besides its weights.

    prepare: PrepareConfig of its training frames; steps: least and greatest exposure step they have, in stops. Returns: dict of plain values.
    """
    return {"variant": model.variant, "config": asdict(model.config), "correct": isinstance(model.dhrnet, CorrectingDHRNet), "prepare": asdict(prepare),
            "steps": steps}


def save_weights(path, model, prepare, notes, lpenet=None, steps=None):
    """Writes a file of weights, in float16.

    prepare, steps: as in architecture(); notes: dict of plain values; lpenet: of stage 1. Inference does not need it, but with it training can
    start from the file (--init).
    """
    states = {name: {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
              for name, network in (("model", model), ("lpenet", lpenet)) if network is not None}
    save_checkpoint(path, {**architecture(model, prepare, steps), **states, "notes": notes})


def part_of(checkpoint, name, path):
    """Returns the state of one network, such as "dhrnet", in a checkpoint or a file of weights, as a dict.

    path: of the file, for the message. Raises: ValueError if it holds no such network.
    """
    state = {key.removeprefix(name + "."): value for key, value in checkpoint["model"].items() if key.startswith(name + ".")}
    state = checkpoint.get(name, state)
    if not state:
        raise ValueError(f"{path}: its variant is {checkpoint['variant']}, and it holds no {name}; start from another file")
    return state


def in_a_file(path, error):
    """Rewords an error about a setting that comes from a file, not from a flag on the command line. Returns: ValueError, to be raised."""
    text = str(error)
    return ValueError(f"{path}: its settings do not fit ({text.replace('--', '')}); name another file" if text.startswith("--") else f"{path}: {text}")


def model_from(checkpoint, path, variant=None):
    """Builds a model of the architecture that a checkpoint describes, with its weights.

    path: of the file, for messages; variant: to build instead of the checkpoint's; the checkpoint must hold its networks.
    Returns: Stage1 or Stage2, float32, on the CPU. Raises: ValueError that names what does not fit. No memory is taken until everything fits.
    """
    try:
        config = config_from(LFDiffConfig, checkpoint["config"])
        make = lambda: with_correction(build(variant or checkpoint["variant"], config), checkpoint.get("correct"))
        with torch.device("meta"):
            empty = make()
    except ValueError as error:
        raise in_a_file(path, error) from None
    state = checkpoint["model"]
    if variant:
        state = {f"{name}.{key}": value for name, _ in empty.named_children() for key, value in part_of(checkpoint, name, path).items()}
    check_fit(empty, state, path)
    return fill(make(), state, path)


def with_correction(model, correct):
    """Makes the DHRNet of a Stage1 or Stage2 correct a merge (D8), if that is wanted. Returns: the model."""
    return add_correction(model) if correct else model


def load_weights(path, device="cpu", fast=True):
    """Reads a file of weights or a checkpoint of the train scripts; the architecture comes from the file.

    fast: give the modules their fast form (beyond/fast.py).
    Returns: the model on the device, float32, channels_last, in eval mode. model.prepare is the PrepareConfig it was trained with, and model.steps
        the least and the greatest exposure step it has seen, in stops, or None.
    Raises: FileNotFoundError; ValueError for a file that is not ours.
    """
    checkpoint = load_checkpoint(path)
    model = model_from(checkpoint, path)
    try:
        model.prepare = config_from(PrepareConfig, checkpoint["prepare"]) if "prepare" in checkpoint else UNPREPARED
    except ValueError as error:
        raise in_a_file(path, error) from None
    model.steps = checkpoint.get("steps")
    model = model.to(device, memory_format=torch.channels_last).eval()
    return speed_up(model) if fast else model


def load_vgg19(config, device="cpu"):
    """Loads phi of Eq. 11 with the official weights. config: loss.LossConfig.

    Returns: VGG19Features on the device, or None if lam is 0.
    Raises: FileNotFoundError if the file is not here and cannot be downloaded; ValueError if it is not VGG19, or for a wrong --phi.
    """
    if config.lam == 0:
        return None
    file = config.vgg or VGG19_URL
    try:
        pairs = [(int(i), int(j)) for i, j in (pair.split(",") for pair in config.phi)]
    except ValueError:
        raise ValueError(f"--phi {' '.join(config.phi)}: give pairs i,j such as 1,1 2,1") from None
    try:
        if config.vgg:
            if not Path(file).is_file():                                # opening a pipe would wait until something is written into it
                raise FileNotFoundError(instead_of("file", file))
            state = torch.load(config.vgg, map_location="cpu", weights_only=True)
        else:
            state = torch.hub.load_state_dict_from_url(VGG19_URL, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FileNotFoundError(f"VGG19 for Eq. 11: {file} could not be read ({error}); download it, pass it as "
                                "--vgg FILE, or train without the perceptual term: --lam 0") from None
    except Exception as error:   # torch.load raises a dozen kinds of error for a broken file; all mean the same to a user
        raise ValueError(f"{file}: not a readable weight file ({type(error).__name__}); it may be truncated, download it again") from None
    try:
        return VGG19Features(pairs, state).to(device)
    except (KeyError, IndexError, TypeError, RuntimeError) as error:
        found = f"no {error} in it" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ValueError(f"{file}: {found}; Eq. 11 needs VGG19's official state dict (\"features.0.weight\", ...)") from None
