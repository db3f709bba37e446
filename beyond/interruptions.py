"""Training runs that are interrupted: Ctrl-C, the SIGTERM of a cluster that wants its machine back, and the restarts of torchrun."""

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

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Stop:
    """Whether a signal has asked this process to stop. The run then finishes its step, saves, and ends with 130 (SIGINT) or 143 (SIGTERM)."""
    number: int = 0         # of the signal; 0: none came
    when: float = 0.0       # when it came, seconds
    before: dict = field(default_factory=dict)      # the handlers that were there before, by signal

    def note(self, number, frame):
        """Handles a signal. A second one, from an impatient user and not from the terminal and torchrun at once, ends the process here."""
        if self.number and time.monotonic() - self.when > 1:
            sys.exit(128 + number)
        self.number, self.when = number, time.monotonic()

    def agreed(self):
        """The signal that reached any of the processes, 0 for none. All processes call it, and so leave the loop at the same step."""
        if not dist.is_initialized():
            return self.number
        number = torch.tensor(self.number)          # on the CPU, so no GPU is waited for
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number)

    def release(self):
        """Signals do again what they did before."""
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
    """From now on the signals only ask the run to stop. Returns: Stop, which never stops outside the main thread: there are no signals."""
    stop = Stop()
    for number in SIGNALS if threading.current_thread() is threading.main_thread() else ():
        stop.before[number] = signal.signal(number, stop.note)
    return stop


def ignore_signals(*_):
    """For processes that load or prepare data: a signal to the whole group is the main process's business, which ends them itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def job():
    """The name of this torchrun job, the same on all ranks and in all its restarts; empty without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    if name == "none":                              # torchrun without --rdzv-id: the process that starts the ranks tells jobs apart
        names = [f"{socket.gethostname()} {os.getppid()}"]
        dist.broadcast_object_list(names)
        name = names[0]
    return name


def goes_on(path):
    """Whether torchrun has restarted the job that wrote the checkpoint at `path`: then the run goes on from it without --resume."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 and load_checkpoint(path).get("job") == job()
