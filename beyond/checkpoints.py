"""Reads and writes checkpoints: plain dicts, numbers and tensors. A file is checked before anything is built from it, and no code in it is run.

PyTorch writes a zip archive with a checksum for each tensor, but does not check them when it reads. This file does.
"""

import io
import math
import zipfile
from pathlib import Path

import torch

from brackets.kinds import instead_of
from common import write_atomically

REQUIRED, OPTIONAL = {"variant": str, "config": dict, "model": dict}, {"correct": bool, "lpenet": dict, "training": dict, "step": int}
FLOATS = torch.float32, torch.float16, torch.bfloat16, torch.float64        # types that a network's tensors may have


def save_checkpoint(path, checkpoint):
    """Writes plain dicts, numbers and tensors, atomically."""
    whole = io.BytesIO()            # on a full disk, torch.save itself would raise a RuntimeError that names no file
    torch.save(checkpoint, whole)
    write_atomically(path, lambda file: file.write(whole.getbuffer()))


def _check_archive(path):
    """Raises: ValueError for a damaged archive, or one whose contents would need more memory than the file has bytes."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError(f"{path}: holds more than its size says; it is not a checkpoint of this project, use another")
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f"{path}: is damaged, {damaged} does not match its checksum; copy it again")


def load_checkpoint(path):
    """Reads a checkpoint onto the CPU.

    Returns: the dict that save_checkpoint was given.
    Raises: FileNotFoundError; ValueError if the file is damaged or is not such a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {instead_of('checkpoint', path)}; train one first, or name another" + ", such as best.pt in it" * path.is_dir())
    try:
        _check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (PermissionError, MemoryError):
        raise
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: not a readable checkpoint ({error}); use another file") from None
    except Exception as error:   # zipfile and torch.load raise a dozen kinds of error for a broken file; all mean the same to a user
        raise ValueError(f"{path}: not a readable checkpoint ({type(error).__name__}); it may be truncated, copy it again") from None
    missing = sorted(set(REQUIRED) - set(checkpoint if isinstance(checkpoint, dict) else {}))
    if missing:
        raise ValueError(f"{path}: not a checkpoint of this project (no {', '.join(missing)} in it); name another file")
    for name, kind in {**REQUIRED, **OPTIONAL}.items():
        if name in checkpoint and not isinstance(checkpoint[name], kind):
            raise ValueError(f"{path}: its {name} is of type {type(checkpoint[name]).__name__}, not {kind.__name__}; name another file")
    for name in ("config", "training"):
        if not _are_settings(checkpoint.get(name, {})):
            raise ValueError(f"{path}: its {name} holds more than plain values; name another file")
    if not all(isinstance(name, str) for name in checkpoint["model"]):
        raise ValueError(f"{path}: its weights are not tensors by name; name another file")
    steps = checkpoint.get("steps")
    if steps is not None and not _are_steps(steps):
        raise ValueError(f"{path}: its exposure steps are {_shown(steps)}, not a least and a greatest one in stops; name another file")
    return checkpoint


def _are_settings(value, depth=0):
    """Whether a value is plain, or a dict, list or tuple of such values, nested no deeper than settings are."""
    if isinstance(value, (dict, list, tuple)):
        return depth < 9 and all(_are_settings(part, depth + 1) for part in (value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, (str, int, float))


def _are_steps(steps):
    """Whether these are the least and the greatest exposure step, stops."""
    return isinstance(steps, (list, tuple)) and len(steps) == 2 and {*map(type, steps)} <= {int, float} and 0 < steps[0] <= steps[1] < 100


def _shown(value):
    """Shows any value on one line, cut off."""
    return " ".join(repr(value).split())[:60]


def check_run(saved, parts, whole, path):
    """Checks the plain values that a run continues from.

    saved: checkpoint; parts: names of what else it must hold; whole: names of its whole numbers besides "step"; path: of the file, for the message.
    Returns: the settings of the run, as from flags_of. Raises: ValueError if a value is missing or impossible.
    """
    for name in ("training", "step", "best", *parts):
        if name not in saved:
            raise ValueError(f"{path}: has no {name}, so it is not the last.pt of a run; name another --out, or start from it with --init")
    for name, value in {**{name: saved.get(name, 0) for name in whole}, "step": saved["step"], "best": saved["best"]}.items():
        kind, least = (float, -math.inf) if name == "best" else (int, 0)
        if type(value) is not kind or not least <= value < 2 ** 31:
            raise ValueError(f"{path}: its {name} is {_shown(value)}, from which no run can continue; start from it with --init")
    return flags_of(saved["training"])


def _is_plain(tensor):
    """Whether a tensor holds plain floating-point numbers in memory: not sparse, nested, quantised, integer, complex or without values."""
    return tensor.dtype in FLOATS and tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_nested


def check_fit(module, state, path):
    """Compares a state dict with the network that is to load it, which may be on the meta device. path: of the file, for the message.

    Raises: ValueError that names the first tensor that is missing, left over, of another kind or shape, or not finite.
    """
    wanted = module.state_dict()
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path}: its weights are not tensors by name; name another file")
    for name in [*wanted, *sorted(map(str, state.keys() - wanted.keys()))]:
        if name not in state or name not in wanted:
            raise ValueError(f"{path}: {name} is {'missing' if name in wanted else 'left over'}; the weights do not fit the architecture stored with them, "
                             "use another file")
        if not _is_plain(state[name]):
            raise ValueError(f"{path}: {name} is a tensor of {state[name].dtype}, {state[name].layout}, on {state[name].device.type}; a network's are plain "
                             "floating point, use another file")
        if state[name].shape != wanted[name].shape:
            raise ValueError(f"{path}: {name} has the shape {tuple(state[name].shape)}, the network's is {tuple(wanted[name].shape)}; the weights do not "
                             "fit the architecture stored with them, use another file")
        if state[name].untyped_storage().nbytes() < state[name].numel() * state[name].element_size():
            raise ValueError(f"{path}: {name} claims more values than the file holds; use another file")
        if not state[name].isfinite().all():
            raise ValueError(f"{path}: {name} holds values that are not finite; use an earlier checkpoint")
        if name == "z_std" and not (state[name] > 0).all():
            raise ValueError(f"{path}: {name} is {state[name].flatten().tolist()}, and a deviation is positive; use another file")


def fill(module, state, path):
    """Loads a state dict into a network. Raises: ValueError as check_fit. Returns: the network."""
    check_fit(module, state, path)
    module.load_state_dict(state)
    return module


def _fill_adam(optimiser, state):
    """Loads what Adam keeps for each parameter. The learning rates stay the run's own. Raises: ValueError, KeyError and the like if it does not fit."""
    parameters = dict(enumerate(parameter for group in optimiser.param_groups for parameter in group["params"]))
    for number, moments in state["state"].items():
        shape = parameters[number].shape
        if moments.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError(f"for parameter {number} it keeps {', '.join(map(str, moments)) or 'nothing'}")
        for name, value in moments.items():
            fits = isinstance(value, torch.Tensor) and _is_plain(value) and value.shape == (() if name == "step" else shape) and bool(value.isfinite().all())
            if not fits or value.untyped_storage().nbytes() < value.numel() * value.element_size() or (name != "exp_avg" and (value < 0).any()):
                raise ValueError(f"{name} of parameter {number} is not a tensor that Adam keeps")
    optimiser.load_state_dict({"state": state["state"], "param_groups": optimiser.state_dict()["param_groups"]})


def _fill_scaler(scaler, state):
    """Loads the loss scale of float16; the state is empty unless the run was in float16. Raises: as _fill_adam."""
    changing = {name: state[name] for name in ("scale", "_growth_tracker")} if state != {} else {}
    if changing and not (type(changing["scale"]) is float and 0 < changing["scale"] < math.inf and type(changing["_growth_tracker"]) is int):
        raise ValueError(f"its scale is {_shown(changing)}")
    if changing and scaler.is_enabled():
        scaler.load_state_dict({**scaler.state_dict(), **changing})


def fill_parts(parts, saved, path):
    """Loads what a run continues with. parts: {name: network, Adam or scaler}; saved: checkpoint. Raises: ValueError as check_fit."""
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module):
            fill(part, saved[name], path)
            continue
        try:
            (_fill_adam if isinstance(part, torch.optim.Optimizer) else _fill_scaler)(part, saved[name])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{path}: its {name} does not fit ({type(error).__name__}: {error}); start from it with --init") from None
    if saved["step"] and saved["scaler"] == {} and not parts["optimiser"].state:        # in float16 the first steps may skip the optimiser
        raise ValueError(f"{path}: its optimiser has not taken the run's {saved['step']} steps; start from it with --init")


def flags_of(config):
    """Flattens the settings of a script to {field's name: value}. config: what asdict made of its dataclass."""
    flat = {}
    for name, value in config.items():
        flat.update(flags_of(value) if isinstance(value, dict) else {name: value})
    return flat
