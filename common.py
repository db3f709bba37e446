"""What every script needs and no paper describes: the command line, devices, several processes, files.

    @dataclass
    class Config:
        lr: float = 1e-4  # learning rate of Adam [paper: Sec. 5.1]

    config = parse(Config)          # tyro makes the command line; the comments become --help, nested dataclasses are flattened

Nothing here knows about HDR, and this file imports nothing of the project.
"""

import contextlib
import datetime
import os
import random
import secrets
import sys
import typing
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import tyro


# --- command line ---------------------------------------------------------------------------------------------------

def parse(config_class, argv=None, description="", default=None):
    """Reads a dataclass from the command line.

    config_class: a dataclass whose fields are plain values, tuples of them, or dataclasses of such fields, whose flags are flattened.
    argv: list of words, default sys.argv[1:]; description: its first line heads --help; default: an instance whose values are the defaults.
    Returns: an instance of config_class.
    Raises: SystemExit with code 2 and a message for a wrong flag.
    """
    spec = sys.modules["__main__"].__spec__     # of `python -m`
    prog = f"python -m {spec.name.removesuffix('.__main__')}" if spec else f"python {Path(sys.argv[0]).name}"
    return tyro.cli(tyro.conf.OmitArgPrefixes[config_class], prog=prog, args=argv, description=description.split("\n")[0], default=default)


def config_from(config_class, saved):
    """Rebuilds a dataclass from the plain dict that asdict() made of it, as checkpoints store it.

    A field that is newer than the checkpoint gets the value that means "as before": config_class.BEFORE[name], or else its default.
    Returns: an instance of config_class.
    Raises: ValueError when the dict holds what the dataclass does not know (a checkpoint of a newer version).
    """
    types, made = typing.get_type_hints(config_class), dict(getattr(config_class, "BEFORE", {}))
    unknown = sorted(set(saved) - {field.name for field in fields(config_class)})
    if unknown:
        raise ValueError(f"checkpoint: its {config_class.__name__} has {', '.join(unknown)}, which this version does not know; "
                         "use the version of the code that wrote it")
    for name, value in saved.items():
        made[name] = config_from(types[name], value) if is_dataclass(types[name]) else tuple(value) if isinstance(value, list) else value
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
    On CUDA it also turns TF32 off, so that float32 means float32 on Ampere and later, too.
    Returns: torch.dtype.
    Raises: ValueError for an unknown name, or float16 without CUDA.
    """
    if device.type == "cuda":
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = "ieee"
        torch.backends.cuda.matmul.fp32_precision = "ieee"
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
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=patience)
    return dist.get_rank(), dist.get_world_size(), device


def seed_all(seed):
    """Seeds Python, NumPy and PyTorch: weights start the same on every rank and in every run."""
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    torch.manual_seed(seed)


# --- files ----------------------------------------------------------------------------------------------------------

def write_atomically(path, write):
    """Writes a file whole or not at all: a reader sees the old file or the new, never half. Every file of the project is written by it.

    path: folders are made as needed. A link is replaced by the new file, and the file that it pointed to is left alone.
    write: function that writes to the open binary file it is given.
    Raises: OSError that names the file, where the disk is full or the folder is closed to us; the old file is then still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())             # else a power cut may leave the new name with an empty file
        temporary.replace(path)
    except OSError as error:
        raise type(error)(f"{path}: cannot be written ({error.strerror or error}); make room, or choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def save_figure(path, figure, dpi):
    """Writes a figure of matplotlib as a PNG, atomically, with the mark of brackets/marks.py: it is no photograph."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=dpi, metadata={"Software": "LF-Diff result"}))


def describe(config):
    """The configuration as lines of `name = value`, printed at the start of each run."""
    words = lambda value: "  ".join(f"{key}={inner}" for key, inner in value.items()) if isinstance(value, dict) else value
    return "\n".join(f"  {name:<14} {words(value)}" for name, value in asdict(config).items())


def count_parameters(module):
    """Number of parameters of a module (buffers not counted)."""
    return sum(parameter.numel() for parameter in module.parameters())
