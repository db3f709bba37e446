"""common.py: command line from dataclasses, exit codes, precision."""

import errno
import inspect
import os
import re
import signal
import stat
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
import torch

from beyond.config import describe
from beyond.processes import start_processes
from common import (Count, Eights, Few, Share, autocast, check, config_from, count_parameters, parse, pick_device, pick_precision, reason_and_cure, run,
                    write_atomically)
from ddim import DiffusionConfig
from denoiser import DenoiserConfig
from dhrnet import DHRNetConfig
from lfdiff import LFDiffConfig
from loss import LossConfig
from lpenet import LPENetConfig

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent


@dataclass
class Inner:
    """Inner part."""
    width: int = 8              # features, 100 % of them
    sizes: tuple[int, ...] = (1, 2)     # two sizes


@dataclass
class Outer:
    """The whole."""
    name: str = "a#b"           # a name
    learning_rate: float = 1e-4     # step of the optimiser [paper: Sec. 5.1]
    fast: bool = False          # skip something
    strict: bool = True         # be strict
    words: tuple[str, ...] = ("x",)     # some words
    inner: Inner = field(default_factory=Inner)


# --- command line ----------------------------------------------------------------------------------------------------

def test_empty_command_line_gives_the_defaults():
    assert parse(Outer, []) == Outer()


@dataclass
class Narrow:
    """A whole whose part has other defaults than the part itself."""
    inner: Inner = field(default_factory=lambda: Inner(width=2))


def test_defaults_of_a_part_are_those_the_whole_gives_it(capsys):
    assert parse(Narrow, ["--sizes", "3"]) == Narrow(Inner(2, (3,)))
    with pytest.raises(SystemExit):
        parse(Narrow, ["--help"])
    assert "features, 100 % of them (default: 2)" in " ".join(capsys.readouterr().out.split())


def test_flags_of_every_type_reach_their_fields():
    config = parse(Outer, "--name c --learning-rate 3e-3 --fast --no-strict --words p q r --width 16 --sizes 5 6 7".split())
    assert config == Outer("c", 3e-3, True, False, ("p", "q", "r"), Inner(16, (5, 6, 7)))
    assert isinstance(config.inner.width, int) and isinstance(config.words, tuple) and isinstance(config.inner.sizes, tuple)
    assert parse(Outer, ["--no-fast", "--strict"]) == Outer()


def test_words_default_to_those_of_the_process(monkeypatch):
    monkeypatch.setattr("sys.argv", ["script.py", "--width", "3"])
    assert parse(Outer).inner.width == 3


@pytest.mark.parametrize("words", [["--wrong"], ["--width", "wide"], ["--widt", "3"], ["stray"], ["--learning-rate"]])
def test_wrong_command_line_exits_with_code_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Outer, words)
    said = capsys.readouterr()
    assert stop.value.code == 2 and "--help" in said.out + said.err


def test_field_comments_and_defaults_are_the_help(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Outer, ["--help"], "First line.\nSecond line.")
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and "First line." in text and "Second line" not in text
    for part in ("step of the optimiser [paper: Sec. 5.1] (default: 0.0001)", "features, 100 % of them (default: 8)", "Inner part.", "--no-fast"):
        assert part in text


def test_two_fields_of_one_name_are_refused():
    @dataclass
    class Twice:
        width: int = 1          # the same name as Inner's
        inner: Inner = field(default_factory=Inner)
    with pytest.raises(Exception, match="Name conflict"):
        parse(Twice, [])


@pytest.mark.parametrize("config_class", [DiffusionConfig, DenoiserConfig, DHRNetConfig, LPENetConfig, LossConfig])
def test_every_hyperparameter_has_a_comment_with_its_source(config_class):
    comments = dict(re.findall(r"^    (\w+):[^#\n]*#\s*(.+)$", inspect.getsource(config_class), re.MULTILINE))
    assert set(comments) == set(asdict(config_class()))
    assert all(any(tag in text for tag in ("[paper", "[assumed A", "[departs D")) or name == "vgg" for name, text in comments.items())


def test_model_flags_reach_all_components():
    config = parse(LFDiffConfig, "--channels 24 --frms 1 1 --prior-width 16 --unet-width 16 --T 50 --S 5 --predict eps".split())
    assert (config.dhrnet.channels, config.dhrnet.frms, config.lpenet.prior_width, config.denoiser.unet_width) == (24, (1, 1), 16, 16)
    assert config.diffusion == DiffusionConfig(T=50, S=5, predict="eps")


@dataclass
class Ranged:
    """Fields of each kind."""
    few: Few = 1                # 0 to 100
    eights: Eights = 8          # multiples of 8
    share: Share = 0.5          # 0 to 1
    plain: float = 0.0          # any number
    many: tuple[Count, ...] = ()        # 1 or more each, or none
    some: tuple[Count, ...] = (1, 2)    # 1 or more each
    two: tuple[Share, Share] = (0, 1)   # two shares
    maybe: bool | None = None   # no range
    folder: str = "runs/x"      # a name
    further: str = ""           # a name, or none


@pytest.mark.parametrize(("name", "right", "wrong"), [
    ("few", [0, 100], [-1, 101, 1.0, True, "1", None]), ("eights", [8, 16], [0, 12, 4]), ("share", [0, 1, 0.3], [-0.1, 1.5, float("nan"), "0.5"]),
    ("plain", [-1e9, 3], [float("inf"), float("nan"), False]), ("many", [(), (1, 5)], [(1, 0), [1], 3]), ("two", [(0.1, 0.2)], [(0.1,), (0.1, 2)]),
    ("maybe", [True], []), ("folder", ["y", " "], ["", 3]), ("further", ["", "y"], [3])])
def test_a_value_is_of_its_type_and_in_its_range(name, right, wrong):
    for value in right:
        check(Ranged(**{name: value}))
    for value in wrong:
        with pytest.raises(ValueError, match=f"^--{name} .*: must be "):
            check(Ranged(**{name: value}))
    with pytest.raises(ValueError, match="--share 2: must be a number from 0 to 1"):
        check(Ranged(share=2))
    with pytest.raises(ValueError, match="--some 4294967296: must be a whole number from 1 to"):        # the upper end is told to those who passed it
        check(Ranged(some=(2 ** 32,)))
    with pytest.raises(ValueError, match='^--folder "": must be a name; if left out, it is runs/x$'):     # else the files would go into the current folder
        parse(Ranged, ["--folder", ""])
    with pytest.raises(ValueError, match=r'^--some "": must be one value or more; if left out, it is \(1, 2\)$'):     # a flag without its values
        parse(Ranged, ["--some"])


# --- configurations in checkpoints -----------------------------------------------------------------------------------

def test_config_survives_asdict_and_lists_for_tuples():
    config = Outer("c", 3e-3, True, False, ("p", "q"), Inner(16, (5, 6, 7)))
    assert config_from(Outer, asdict(config)) == config
    saved = {**asdict(config), "words": ["p", "q"], "inner": {"width": 16, "sizes": [5, 6, 7]}}
    assert config_from(Outer, saved) == config


@dataclass
class Grown:
    """A part that got another field after checkpoints had been written."""
    width: int = 8
    colour: str = "red"


def test_a_field_that_is_newer_than_the_checkpoint_gets_its_default():
    assert config_from(Grown, {"width": 3}) == Grown(3, "red")
    saved = asdict(Outer(inner=Inner(width=5)))
    del saved["learning_rate"], saved["inner"]["sizes"]
    assert config_from(Outer, saved) == Outer(inner=Inner(width=5))


def test_config_with_an_unknown_field_is_refused_by_name():
    with pytest.raises(ValueError, match=r"checkpoint: its Outer has colour, which this version does not know; use"):
        config_from(Outer, {**asdict(Outer()), "colour": 3})


def test_description_shows_every_value():
    text = describe(Outer())
    assert text.count("\n") == 5 and "learning_rate  0.0001" in text and "width=8  sizes=(1, 2)" in text


# --- errors of scripts -----------------------------------------------------------------------------------------------

def raising(error):
    def main():
        raise error
    return main


@pytest.mark.parametrize("error", [ValueError("here: this; do that"), FileNotFoundError("here: this; do that")])
def test_expected_error_is_one_line_and_exit_code_2(error, capsys):
    with pytest.raises(SystemExit) as stop:
        run(raising(error))
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err == "error: here: this; do that\n"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory.\nA long table"), MemoryError(), MemoryError("Unable to allocate 3 GiB"),
                                   RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
                                   RuntimeError("std::bad_alloc"), RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")])
def test_too_little_memory_is_one_line_with_advice(error, capsys):
    with pytest.raises(SystemExit) as stop:
        run(raising(error))
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and err.startswith("error: out of memory (") and "--batch" in err and "--tile" in err


def test_errors_of_the_system_say_where_what_and_what_to_do(tmp_path, capsys):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")
    for main, words in ((lambda: open(tmp_path), f"error: {tmp_path}: "),
                        (lambda: write_atomically(tmp_path / "a.png", full), f"error: {tmp_path / 'a.png'}: cannot be written (No space")):
        with pytest.raises(SystemExit) as stop:
            run(main)
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.startswith(words) and "Errno" not in err and err.count("\n") == 1 and "; " in err


def piped(code, stdout):
    """Runs code that ends in run(main) with a given stdout. Returns: exit code and stderr."""
    done = subprocess.run([sys.executable, "-c", f"from common import *\n{code}"], cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120)
    return done.returncode, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently there")
@pytest.mark.parametrize("code", ["run(lambda: print('x'))", "run(lambda: print('x', flush=True))", "run(lambda: parse(Within, ['--help']))"])
def test_a_pipe_that_nobody_reads_ends_a_script_silently(code):
    read, write = os.pipe()
    os.close(read)
    assert piped(code, write) == (141, "")
    os.close(write)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no full device")
@pytest.mark.parametrize("flush", [False, True])
def test_output_that_does_not_fit_is_not_blamed_on_a_file(flush):
    with open("/dev/full", "w") as full:
        code, err = piped(f"run(lambda: print('x', flush={flush}))", full)
    assert (code, err) == (2, "error: standard output: No space left on device; make room, or name another file or folder\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_closed_stdout_is_no_error():
    command = f"{sys.executable} -c \"from common import *; run(lambda: (print('x'), sys.stdout.flush()))\" >&-"
    done = subprocess.run(command, shell=True, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_cure_fits_what_stopped_the_writing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot be written \(a file is where a folder should be\); name another file or folder$"):
        write_atomically(tmp_path / "file" / "a.png", lambda file: None)
    for link, target in (("dangling", "nowhere"), ("to a file", "file")):
        (tmp_path / link).symlink_to(target)
        found = "a broken link" if link == "dangling" else "a file"
        with pytest.raises(OSError, match=rf"cannot be written \({found} is where a folder should be\); name another file or folder$"):
            write_atomically(tmp_path / link / "a.png", lambda file: None)
    for number, cure in ((errno.ENOSPC, "make room, or name"), (errno.EACCES, "allow it, or name"), (errno.EIO, "name")):
        assert reason_and_cure(OSError(number, "why")) == ("why", f"{cure} another file or folder")
    assert reason_and_cure(OSError("30 requested and 10 written")) == ("30 requested and 10 written", "make room, or name another file or folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no such files")
def test_a_device_or_a_folder_is_never_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "device")
    for path in (tmp_path / "device", tmp_path, Path("")):
        with pytest.raises(OSError, match="cannot be written .it is not a regular file.; name another file"):
            write_atomically(path, lambda file: file.write(b"a"))
    assert stat.S_ISFIFO((tmp_path / "device").stat().st_mode) and len(list(tmp_path.iterdir())) == 1


def test_sigterm_clears_away_half_a_file_and_ends_with_code_143(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stop:
            run(lambda: write_atomically(tmp_path / "a", lambda file: signal.raise_signal(signal.SIGTERM)))
        assert stop.value.code == 143 and not any(tmp_path.iterdir())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_interrupt_is_one_line_and_exit_code_130(capsys):
    with pytest.raises(SystemExit) as stop:
        run(raising(KeyboardInterrupt()))
    assert stop.value.code == 130 and capsys.readouterr().err.count("\n") == 1


def test_an_interrupt_while_the_libraries_are_imported_is_one_line(tmp_path):
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")        # is found before the real one
    done = subprocess.run([sys.executable, str(ROOT / "infer.py")], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode and done.stderr == "stopped\n"


@pytest.mark.parametrize("kind", [AssertionError, RuntimeError, KeyError])
def test_bug_of_our_own_keeps_its_traceback(kind):
    with pytest.raises(kind):
        run(raising(kind("a bug")))


def test_main_without_an_error_returns():
    done = []
    assert run(lambda: done.append(1)) is None and done == [1]


# --- device and precision --------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("capabilities", "dtype"), [({}, torch.float32), ({"avx512_bf16": False, "avx512_f": True}, torch.float32),
                                                     ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16)])
def test_auto_precision_of_a_cpu_is_what_its_hardware_has(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert pick_precision("auto", torch.device("cpu")) is dtype
    assert pick_precision("auto", torch.device("mps")) is torch.float32


@pytest.mark.parametrize("in_hardware, dtype", [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_precision_of_a_gpu_is_what_its_hardware_has(monkeypatch, in_hardware, dtype):
    def supported(including_emulation=True):
        return in_hardware or including_emulation           # old GPUs emulate bfloat16, slowly
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert pick_precision("auto", torch.device("cuda")) is dtype


def test_named_precision_is_taken_or_refused():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert pick_precision("bfloat16", cpu) is torch.bfloat16 and pick_precision("float32", cuda) is torch.float32
    assert pick_precision("float16", cuda) is torch.float16
    for name, device in (("float16", cpu), ("float64", cpu), ("half", cuda)):
        with pytest.raises(ValueError, match=f"--precision {name}: .*; use"):
            pick_precision(name, device)


def test_float32_on_a_gpu_is_not_tf32():
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    try:
        conv.fp32_precision = "tf32"
        pick_precision("float32", torch.device("cuda"))
        assert conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
    finally:
        conv.fp32_precision = before


def test_autocast_is_off_for_float32_and_on_for_bfloat16():
    x, cpu = torch.ones(2, 2), torch.device("cpu")
    with warnings.catch_warnings(action="error"), autocast(cpu, torch.float32):     # torch.autocast itself would warn
        assert (x @ x).dtype == torch.float32
    with autocast(cpu, torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16


def test_device_is_picked_or_refused():
    assert pick_device("cpu").type == "cpu" and pick_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("toaster", "cuda:99"):
        with pytest.raises(ValueError, match=f"--device {name}: .*; try --device cpu") as error:
            pick_device(name)
        assert "\n" not in str(error.value)


def test_process_without_torchrun_is_alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert start_processes("cpu") == (0, 1, torch.device("cpu"))


# --- files -----------------------------------------------------------------------------------------------------------

def test_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "last.pt"
    write_atomically(path, lambda file: file.write(b"old"))
    def half(file):
        file.write(b"ne")
        raise OSError("disk full")
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, half)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path, seen = tmp_path / "last.pt", []
    write_atomically(path, lambda file: file.write(b"old"))
    write_atomically(path, lambda file: (file.write(b"new"), file.flush(), seen.append(path.read_bytes())))
    assert seen == [b"old"] and path.read_bytes() == b"new"


def test_parameters_are_counted_without_buffers():
    assert count_parameters(torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))) == 2 * 3 * 9 + 3 + 3 + 3


def test_openmp_waits_asleep_unless_the_user_has_chosen():
    """A variable counts only if it is set before torch is loaded, so this runs in a process of its own."""
    code = "import os, common; print(os.environ['OMP_WAIT_POLICY'], os.environ['GOMP_SPINCOUNT'])"
    bare = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    for chosen, expected in (({}, "PASSIVE 1000"), ({"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "5"}, "ACTIVE 5")):
        done = subprocess.run([sys.executable, "-c", code], env={**bare, **chosen, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
        assert done.stdout.split() == expected.split()
