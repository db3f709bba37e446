"""What every script needs and no paper describes: the command line and its ranges, devices, files.

    @dataclass
    class Config:
        lr: float = 1e-4  # learning rate of Adam [paper: Sec. 5.1]

    config = parse(Config)          # tyro makes the command line; the comments become --help, nested dataclasses are flattened
"""

import contextlib
import errno
import os
import secrets
import signal
import sys
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path

# Set before torch is imported, which takes a second: Ctrl-C then ends it without a traceback, and OpenMP's threads do not spin on a busy machine.
os.environ.update({"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", **os.environ})
sys.excepthook = lambda kind, *rest, before=sys.excepthook: print("stopped", file=sys.stderr) if kind is KeyboardInterrupt else before(kind, *rest)

import torch
import tyro


# --- command line ---------------------------------------------------------------------------------------------------

class Within(typing.NamedTuple):
    """The range of a field's values, both ends included, as a note on its type; whole numbers must be multiples of `multiple`."""
    low: float
    high: float
    multiple: int = 1


Whole, Count, Few, Depth = (typing.Annotated[int, Within(*ends)] for ends in ((0, 2 ** 31 - 1), (1, 2 ** 31 - 1), (0, 100), (1, 100)))
Eights, Sixteens, Side, Seed = (typing.Annotated[int, Within(*ends)] for ends in ((8, 2 ** 15, 8), (16, 2 ** 15, 16), (16, 2 ** 15), (0, 2 ** 32 - 1)))
Share, Decay, Weight, Positive = (typing.Annotated[float, Within(*ends)] for ends in ((0, 1), (0, 0.999999), (0, 1e30), (1e-30, 1e30)))


def _misfit(value, kind):
    """Says what a value should be instead; empty if it fits its kind: a type, tuple[...] of types, or either with a note Within."""
    base, *notes = typing.get_args(kind) if typing.get_origin(kind) is typing.Annotated else (kind,)
    if typing.get_origin(base) is tuple:
        kinds = typing.get_args(base)
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis and isinstance(value, tuple) else kinds
        misfits = [*map(_misfit, value, kinds)] if isinstance(value, tuple) and len(value) == len(kinds) else [f"{len(kinds)} values"]
        return next(filter(None, misfits), "")
    if base in (int, float):
        low, high, multiple = next((note for note in notes if isinstance(note, Within)), Within(-1e30, 1e30))
        fits = isinstance(value, (int, base)) and not isinstance(value, bool) and low <= value <= high and (base is float or value % multiple == 0)
        whole = "a whole number" if multiple == 1 else f"a multiple of {multiple}"
        ends = f"from {low:.10g} to {high:.10g}" if high < 2 ** 31 - 1 or (isinstance(value, (int, float)) and value > high) else f"of {low:.10g} or more"
        return "" if fits else f"{'a number' if base is float else whole} {ends}"
    return "" if not isinstance(base, type) or isinstance(value, base) else f"of type {base.__name__}"


def check(config):
    """Returns a dataclass if its values have the types and ranges of its fields. Raises: ValueError if not, and for nan and empty values."""
    kinds = typing.get_type_hints(type(config), include_extras=True)
    for name, value, default in ((field.name, getattr(config, field.name), field.default) for field in fields(config)):
        if is_dataclass(value):
            check(value)
            continue
        empty = value in ("", ()) and isinstance(default, type(value)) and len(default) > 0
        if misfit := f"{'a name' if value == '' else 'one value or more'}; if left out, it is {default}" if empty else _misfit(value, kinds[name]):
            shown = (" ".join(map(str, value)) if isinstance(value, tuple) else str(value)) or '""'
            raise ValueError(f"--{name.replace('_', '-')} {shown}: must be {misfit}")
    return config


def parse(config_class, argv=None, description=""):
    """Reads a dataclass from the command line.

    config_class: a dataclass whose fields are plain values, tuples of them, or dataclasses of such fields, whose flags are flattened.
    argv: list of words, default sys.argv[1:]; description: its first line heads --help.
    Returns: an instance of config_class. Raises: SystemExit with code 2 and a message for a wrong flag; ValueError for a value out of range.
    """
    spec = sys.modules["__main__"].__spec__     # of `python -m`
    prog = f"python -m {spec.name.removesuffix('.__main__')}" if spec else f"python {Path(sys.argv[0]).name}"
    return check(tyro.cli(tyro.conf.OmitArgPrefixes[config_class], prog=prog, args=argv, description=description.split("\n")[0]))


def config_from(config_class, saved):
    """Rebuilds a dataclass from the plain dict that asdict() made of it, as checkpoints store it.

    A field that is newer than the checkpoint gets its default.
    Returns: an instance of config_class. Raises: ValueError for fields that the dataclass does not know (from a newer version), or a value out of range.
    """
    types, made = typing.get_type_hints(config_class), {}
    if not isinstance(saved, dict):
        raise ValueError(f"checkpoint: its {config_class.__name__} is {saved!r:.60} and holds no settings; use another file")
    unknown = sorted(set(map(str, saved)) - {field.name for field in fields(config_class)})
    if unknown:
        raise ValueError(f"checkpoint: its {config_class.__name__} has {', '.join(unknown)}, which this version does not know; "
                         "use the version of the code that wrote it")
    for name, value in saved.items():
        made[name] = config_from(types[name], value) if is_dataclass(types[name]) else tuple(value) if isinstance(value, list) else value
    return check(config_class(**made))


def in_words(error):
    """Returns one line for an error that a user can fix: where, what, and what to do; empty for a bug of ours."""
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, MemoryError) or any(word in str(error) for word in ("out of memory", "allocate memory", "Insufficient memory", "bad_alloc")):
        return f"out of memory ({first or 'no more available'}); choose a smaller --batch, --tile, --size or image, or --device cpu"
    if isinstance(error, OSError) and error.errno:
        return f"{error.filename or 'standard output'}: {'; '.join(reason_and_cure(error))}"
    return first if isinstance(error, (ValueError, OSError)) else ""


def reason_and_cure(error):
    """Returns what went wrong with a file, and what to do. error: OSError; without errno if a library could not write all its bytes."""
    stands = "a broken link" if os.path.islink(error.filename or "") and not os.path.exists(error.filename) else "a file"
    reason = f"{stands} is where a folder should be" if error.errno in (errno.EEXIST, errno.ENOTDIR) else error.strerror or str(error)
    cure = {errno.EACCES: "allow it, or ", **dict.fromkeys((errno.ENOSPC, errno.EFBIG, None), "make room, or ")}.get(error.errno, "")
    return reason, f"{cure}name another file or folder"


def run(main):
    """Runs a script. An expected error gives one line on stderr and exit code 2; Ctrl-C gives exit code 130, a closed pipe 141, SIGTERM 143.

    main: function without arguments. Errors of our own code (AssertionError and the like) keep their traceback.
    """
    for name in ("stdout", "stderr"):
        setattr(sys, name, stream := getattr(sys, name) or open(os.devnull, "w"))      # a closed stream is None
        if hasattr(stream, "reconfigure"):      # a notebook's stream cannot do this; a redirected one on Windows cannot print μ
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))    # so that a half-written file is removed
    try:
        try:
            main()
        finally:
            sys.stdout.flush()                  # Python also does so at its end, but no error can be caught there
    except Exception as error:
        if isinstance(error, OSError) and error.errno and not error.filename:
            sys.stdout = open(os.devnull, "w")  # do not try again what cannot be written
        if isinstance(error, BrokenPipeError):
            sys.exit(141)                       # `| head` has read enough: silence, as with other tools
        if not (words := in_words(error)):
            raise
        print(f"error: {words}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


# --- device, precision ----------------------------------------------------------------------------------------------

def pick_device(name="auto"):
    """Returns the device to run on. name: "auto" (CUDA, then Apple's MPS, then CPU) or any torch device such as "cuda:1".

    Returns: torch.device. Raises: ValueError when the device is not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()          # a device such as meta holds no values
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: not usable here ({str(error).splitlines()[0]}); try --device cpu") from None
    return device


def pick_precision(name, device):
    """Returns the number format of convolutions and attention; T, the last convolution and the losses are always float32.

    name: "auto" (CUDA: bfloat16 where the GPU has it in hardware, else float16; CPU: bfloat16 where it has that in hardware, else
        float32; MPS: float32), "float32", "bfloat16" or "float16".
    On CUDA it also turns TF32 off, so that float32 means float32 on Ampere and later, too.
    Returns: torch.dtype. Raises: ValueError for an unknown name, or float16 without CUDA.
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


# --- files ----------------------------------------------------------------------------------------------------------

def write_atomically(path, write):
    """Writes a file whole or not at all: a reader sees the old file or the new, never half. The project writes all its files with it.

    path: folders are made as needed. A link is replaced by the new file, and the file that it pointed to is left alone.
    write: function that writes to the open binary file it is given.
    Raises: OSError that names the file, if the disk is full or the folder is not writable; the old file is then still there.
    """
    path = Path(path)
    if path.exists() and not path.is_file():    # a folder; or a device such as /dev/null, which root would lose
        raise OSError(f"{path}: cannot be written (it is not a regular file); name another file")
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())             # otherwise a power cut may leave the new name with an empty file
        temporary.replace(path)
    except OSError as error:
        raise type(error)("{}: cannot be written ({}); {}".format(path, *reason_and_cure(error))) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def count_parameters(module):
    """Returns the number of parameters of a module (buffers not counted)."""
    return sum(parameter.numel() for parameter in module.parameters())
