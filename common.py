"""What every script needs and no paper describes: the command line, devices, several processes, checkpoints, panels.

    @dataclass
    class Config:
        lr: float = 1e-4  # learning rate of Adam [paper: Sec. 5.1]

    config = parse(Config)          # the comments above become --help; nested dataclasses are flattened

Nothing here knows about HDR, and this file imports nothing of the project.
"""

import argparse
import contextlib
import datetime
import inspect
import os
import random
import re
import secrets
import sys
import typing
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist


# --- command line ---------------------------------------------------------------------------------------------------

def _comments(config_class):
    """The trailing comment of each field: {"lr": "learning rate of Adam [paper: Sec. 5.1]"}."""
    found = re.findall(r"^\s+(\w+):[^#\n]*#\s*(.+)$", inspect.getsource(config_class), re.MULTILINE)
    return dict(found)


def _add_flags(parser, config_class, group=None, defaults=None):
    comments, types = _comments(config_class), typing.get_type_hints(config_class)
    for field in fields(config_class):
        kind, default = types[field.name], getattr(defaults or config_class(), field.name)
        if is_dataclass(kind):
            _add_flags(parser, kind, parser.add_argument_group(kind.__name__, (kind.__doc__ or "").split("\n")[0]), default)
            continue
        flag = "--" + field.name.replace("_", "-")
        text = f"{comments.get(field.name, '')} (default: {default})".replace("%", "%%")
        if kind is bool:
            (group or parser).add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)
        elif typing.get_origin(kind) is tuple:
            (group or parser).add_argument(flag, type=typing.get_args(kind)[0], nargs="+", default=default, help=text)
        else:
            (group or parser).add_argument(flag, type=kind, default=default, help=text)


def _build(config_class, values):
    types = typing.get_type_hints(config_class)
    made = {}
    for field in fields(config_class):
        kind = types[field.name]
        if is_dataclass(kind):
            made[field.name] = _build(kind, values)
        else:
            made[field.name] = tuple(values[field.name]) if typing.get_origin(kind) is tuple else values[field.name]
    return config_class(**made)


def parse(config_class, argv=None, description=""):
    """Reads a dataclass from the command line.

    config_class: a dataclass whose fields are bool, int, float, str, tuples of one of these, or dataclasses of such
        fields (flattened: all names must differ). `argv`: list of words, default sys.argv[1:].
    Returns: an instance of config_class.
    Raises: SystemExit with code 2 and a usage line for a wrong flag (argparse).
    """
    parser = argparse.ArgumentParser(description=description.split("\n")[0], allow_abbrev=False)
    _add_flags(parser, config_class)
    return _build(config_class, vars(parser.parse_args(argv)))


def config_from(config_class, saved):
    """Rebuilds a dataclass from the plain dict that asdict() made of it, as checkpoints store it.

    Returns: an instance of config_class.
    Raises: ValueError when the dict and the dataclass differ in their fields (a checkpoint of another version).
    """
    types, made = typing.get_type_hints(config_class), {}
    names = {field.name for field in fields(config_class)}
    if set(saved) != names:
        raise ValueError(f"checkpoint: its {config_class.__name__} differs from the code's in {sorted(set(saved) ^ names)}; "
                         "use the version of the code that wrote it")
    for name, value in saved.items():
        if is_dataclass(types[name]):
            made[name] = config_from(types[name], value)
        else:
            made[name] = tuple(value) if isinstance(value, (list, tuple)) else value
    return config_class(**made)


def run(main):
    """Runs a script: an expected error becomes one line on stderr and exit code 2, Ctrl-C exit code 130.

    main: function without arguments. Errors of our own code (AssertionError and the like) keep their traceback.
    """
    for stream in (sys.stdout, sys.stderr):     # a redirected stream on Windows knows no μ
        if hasattr(stream, "reconfigure"):      # a notebook's has not
            stream.reconfigure(errors="replace")
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except torch.OutOfMemoryError as error:
        print(f"error: {str(error).splitlines()[0]} In training choose a smaller --batch, at inference --device cpu.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


# --- device, precision, processes -----------------------------------------------------------------------------------

def pick_device(name="auto"):
    """The device to run on. name: "auto" (CUDA, then Apple's MPS, then CPU) or any torch device such as "cuda:1".

    Returns: torch.device.
    Raises: ValueError when the device is not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: not usable here ({str(error).splitlines()[0]}); try --device cpu") from None
    return device


def pick_precision(name, device):
    """The number format of convolutions and attention; T, the last convolution and the losses are float32 always.

    name: "auto" (CUDA: bfloat16 where the GPU has it in hardware, else float16; CPU: bfloat16 where it has that in hardware, else
        float32; MPS: float32), "float32", "bfloat16" or "float16".
    Returns: torch.dtype.
    Raises: ValueError for an unknown name, or float16 without CUDA.
    """
    if name == "auto":
        if device.type == "cpu" and any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16")):
            return torch.bfloat16
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in dtypes or (name == "float16" and device.type != "cuda"):
        raise ValueError(f"--precision {name}: not available on {device.type}; use auto, float32 or bfloat16")
    return dtypes[name]


def autocast(device, dtype):
    """Automatic mixed precision as a context manager; does nothing for float32."""
    return torch.autocast(device.type, dtype) if dtype is not torch.float32 else contextlib.nullcontext()


def start_processes(device_name="auto"):
    """Joins the process group when `torchrun` started us; alone otherwise.

    Returns: rank, world size, device (each rank has its own GPU; without CUDA the backend is gloo on the CPU).
    """
    if "RANK" not in os.environ:
        return 0, 1, pick_device(device_name)
    if device_name == "auto" and not torch.cuda.is_available():
        device_name = "cpu"                     # gloo knows no MPS tensors
    elif device_name in ("auto", "cuda"):
        device_name = f"cuda:{os.environ['LOCAL_RANK']}"
    device = pick_device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    patience = datetime.timedelta(hours=2)      # rank 0 validates while the others wait
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    return dist.get_rank(), dist.get_world_size(), device


def seed_all(seed):
    """Seeds Python, NumPy and PyTorch: weights start the same on every rank and in every run."""
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    torch.manual_seed(seed)


# --- files ----------------------------------------------------------------------------------------------------------

def write_atomically(path, write):
    """Writes a file whole or not at all: a reader sees the old file or the new, never half.

    path: folders are made as needed. write: function that writes to the open binary file it is given.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(path, checkpoint):
    """Writes plain dicts, numbers and tensors, atomically."""
    write_atomically(path, lambda file: torch.save(checkpoint, file))


def load_checkpoint(path, device="cpu"):
    """Reads a checkpoint without running code from it (weights_only).

    Returns: the dict that save_checkpoint was given.
    Raises: FileNotFoundError; ValueError when the file is not such a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; train one first, or name another")
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:   # torch.load raises a dozen kinds for a broken file; all mean the same to a user
        raise ValueError(f"{path}: not a readable checkpoint ({type(error).__name__}); it may be truncated, copy it again") from None
    missing = {"variant", "config", "model"} - set(checkpoint if isinstance(checkpoint, dict) else {})
    if missing:
        raise ValueError(f"{path}: not a checkpoint of this project (no {', '.join(sorted(missing))} in it)")
    return checkpoint


def describe(config):
    """The configuration as lines of `name = value`, printed at the start of each run."""
    lines = []
    for name, value in asdict(config).items():
        if isinstance(value, dict):
            value = "  ".join(f"{key}={inner}" for key, inner in value.items())
        lines.append(f"  {name:<14} {value}")
    return "\n".join(lines)


def count_parameters(module):
    """Number of parameters of a module (buffers not counted)."""
    return sum(parameter.numel() for parameter in module.parameters())


# --- pictures -------------------------------------------------------------------------------------------------------

def save_panel(path, panels, columns=3, width=4.0):
    """Writes titled pictures side by side as one PNG.

    panels: list of (title, image), image (3, H, W) in [0, 1] (clipped), all of one size; width: of one picture, inches.
    """
    from matplotlib.figure import Figure    # 0.3 s to import: only when a picture is drawn
    _, H, W = panels[0][1].shape
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(columns * width, rows * (width * H / W + 0.3)), layout="constrained")
    for i, (title, image) in enumerate(panels):
        axis = figure.add_subplot(rows, columns, i + 1)
        axis.set_axis_off()
        axis.set_title(title, fontsize=9)
        axis.imshow(image.float().clamp(0, 1).permute(1, 2, 0).cpu().numpy(), interpolation="antialiased")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
