"""Handles the processes of a training run, also under torchrun and after its restarts, and the signals that stop them: Ctrl-C, a cluster's SIGTERM."""

import datetime
import importlib
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from beyond.checkpoints import load_checkpoint
from beyond.fast import keep_memory
from brackets.ownership import RUN_LOCK, lock
from common import pick_device, pick_precision

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 15.0     # seconds until another run counts as running: after a kill, the processes that load data live on for a few seconds
held = []           # the lock on the run's folder


def start_processes(device_name="auto"):
    """Joins the process group if `torchrun` started us; otherwise we are alone.

    Returns: rank, world size, device (each rank has its own GPU; without CUDA the backend is gloo on the CPU).
    """
    if "RANK" not in os.environ:
        return 0, 1, pick_device(device_name)
    if device_name == "auto" and not torch.cuda.is_available():
        device_name = "cpu"                     # gloo cannot handle MPS tensors
    elif device_name in ("auto", "cuda"):
        device_name = f"cuda:{os.environ['LOCAL_RANK']}"
    device = pick_device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # DistributedDataParallel imports the module below, whose default arguments keep a group that exists at its first import. Gloo's threads would then
    # outlive destroy_process_group. If one ends its work while Python shuts down, it aborts the process: a finished run would be reported as failed.
    importlib.import_module("torch.distributed.nn.functional")
    patience = datetime.timedelta(hours=2)      # rank 0 validates while the others wait
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=patience)
    return dist.get_rank(), dist.get_world_size(), device


@dataclass
class Stop:
    """Whether a signal has asked this process to stop. The run then finishes its step, saves, and ends with 130 (SIGINT) or 143 (SIGTERM)."""
    number: int = 0         # of the signal; 0: none came
    when: float = 0.0       # when it came, seconds
    before: dict = field(default_factory=dict)      # the handlers that were there before, by signal

    def note(self, number, frame):
        """Handles a signal. A second one ends the process here, if it comes from an impatient user, not from the terminal and torchrun at once."""
        if self.number and time.monotonic() - self.when > 1:
            sys.exit(128 + number)
        self.number, self.when = number, time.monotonic()

    def agreed(self):
        """Returns the signal that reached any of the processes, 0 for none. All processes call it, so they leave the loop at the same step."""
        if not dist.is_initialized():
            return self.number
        number = torch.tensor(self.number)          # on the CPU, so as not to wait for a GPU
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number)

    def release(self):
        """Ends the run: frees its folder and restores the earlier signal handlers."""
        held.clear()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def end(self, number, words):
        """Ends a process whose run is saved. words: printed to stderr if not empty. Raises: SystemExit."""
        self.agreed()                               # the others wait here until the first has saved
        self.release()
        if words:
            print(words, file=sys.stderr, flush=True)
        sys.exit(128 + number)


def catch_signals():
    """Makes signals only ask the run to stop. Returns: Stop, which never stops outside the main thread, where there are no signals."""
    stop = Stop()
    for number in SIGNALS if threading.current_thread() is threading.main_thread() else ():
        stop.before[number] = signal.signal(number, stop.note)
    return stop


def ignore_signals(*_):
    """Ignores signals in processes that load or prepare data: the main process handles a signal to the whole group, and ends them itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def job():
    """Returns the name of this torchrun job, the same on all ranks and in all its restarts; empty without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    if name == "none":                              # torchrun without --rdzv-id: jobs differ by the process that starts the ranks
        names = [f"{socket.gethostname()} {os.getppid()}"]
        dist.broadcast_object_list(names)
        name = names[0]
    return name


def goes_on(path):
    """Whether torchrun has restarted the job that wrote the checkpoint at `path`: then the run continues from it without --resume."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 and load_checkpoint(path).get("job") == job()


def start(settings, out):
    """Starts a run: processes, device, precision, seed. settings: training.TrainingConfig, whose `resume` a restart by torchrun sets; out: Path.

    Returns: rank, world size, device, dtype. Raises: ValueError if `out` already holds a run, or one is running there.
    """
    rank, world, device = start_processes(settings.device)
    if rank == 0:
        held[:] = [lock(out / RUN_LOCK, PATIENCE)]      # before looking at anything there
        for left in out.glob(".*.pt.*.tmp"):            # half a checkpoint, from a run that was killed while it wrote
            left.unlink()
    if not settings.resume and (out / "last.pt").exists():
        settings.resume = goes_on(out / "last.pt")
        if not settings.resume:
            raise ValueError(f"{out}: holds a run already; continue it with --resume, choose another --out, or delete it")
    for path in [] if settings.resume else (out / "best.pt", out / "weights.pt"):
        if path.exists():
            raise ValueError(f"{path}: would be replaced, and there is no last.pt to resume; choose another --out, or move it away")
    torch.manual_seed(settings.seed)    # weights start the same on every rank
    keep_memory()
    return rank, world, device, pick_precision(settings.precision, device)
