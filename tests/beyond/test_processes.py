"""beyond/processes.py: a run that is stopped keeps its last step, and one that torchrun restarts continues by itself."""

import os
import signal
import subprocess
import sys
import time

import pytest

from beyond import processes
from beyond.checkpoints import load_checkpoint, save_checkpoint
from beyond.processes import Stop, catch_signals, goes_on
from scripts import DATA, NET, ROOT, column, same, stage1, weights

RUN = [*DATA, *NET, "--workers", "1", "--val-every", "1000", "--log-every", "2"]


def start_training(out, *words, launcher=()):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, *launcher, str(ROOT / "train_stage1.py"), *RUN, "--out", str(out), *words], env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(process, out, count):
    """Waits until the log has that many rows. The run must not end before."""
    until = time.monotonic() + 200
    while not ((out / "log.csv").exists() and len((out / "log.csv").read_text().splitlines()) > count):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signals to another process")
@pytest.mark.parametrize(("number", "code", "launcher"), [
    (signal.SIGINT, 130, ()), (signal.SIGTERM, 143, ()),
    (signal.SIGTERM, None, ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"))])
def test_a_signal_saves_the_last_finished_step_and_ends_without_a_traceback(number, code, launcher, tmp_path):
    process = start_training(tmp_path, "--epochs", "500", launcher=launcher)
    wait_for_rows(process, tmp_path, 3)
    process.send_signal(number)
    _, said = process.communicate(timeout=100)
    step = load_checkpoint(tmp_path / "last.pt")["step"]
    assert step == int(column(tmp_path, "step")[-1]) >= 6 and f"stopped at step {step}" in said
    if not launcher:
        assert process.returncode == code and "Traceback" not in said and len(said.strip().splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signals to another process")
def test_torchrun_restarts_a_job_from_its_last_checkpoint(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--max-restarts", "1", "--nproc-per-node", "1")
    process = start_training(tmp_path / "run", "--epochs", "10", "--save-every", "4", launcher=launcher)
    wait_for_rows(process, tmp_path / "run", 3)
    worker = int(subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()[0])
    os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    whole = stage1(tmp_path / "whole", "--epochs", "10", "--val-every", "1000", "--log-every", "2")
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] == 40 and same(weights(tmp_path / "run"), weights(whole))


ALONE = """
import os, torch
from beyond.processes import start_processes
start_processes("cpu")
torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))(torch.ones(2, 2)).sum().backward()
names = lambda: [open(f"/proc/self/task/{thread}/comm").read() for thread in os.listdir("/proc/self/task")]
assert any("gloo" in name for name in names()), names()
torch.distributed.destroy_process_group()
assert not any("gloo" in name for name in names()), names()
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are listed by Linux")
def test_no_thread_of_the_process_group_outlives_it():
    """Such a thread could abort the process while Python shuts down, and torchrun would call a finished run failed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = subprocess.run([sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_is_written_every_so_many_steps_beside_validations(tmp_path, monkeypatch):
    from training import Run
    saved, save = [], Run.save
    monkeypatch.setattr(Run, "save", lambda run, name: saved.append((run.step, name)) or save(run, name))
    stage1(tmp_path, "--epochs", "3", "--val-every", "8", "--save-every", "3", "--log-every", "100")
    assert [step for step, name in saved if name == "last.pt"] == [3, 6, 8, 9, 12] and len(column(tmp_path, "val_psnr_mu")) == 2


def test_a_second_signal_does_not_wait_but_the_same_one_sent_twice_at_once_does(monkeypatch):
    stop, clock = Stop(), [100.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: clock[0])
    stop.note(signal.SIGINT, None)
    clock[0] += 0.5                                         # sent by the terminal and by torchrun
    stop.note(signal.SIGINT, None)
    assert stop.agreed() == signal.SIGINT
    clock[0] += 2
    with pytest.raises(SystemExit) as end:
        stop.note(signal.SIGTERM, None)
    assert end.value.code == 143


def test_signals_do_again_what_they_did_before_when_a_run_is_over():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop = catch_signals()
    signal.raise_signal(signal.SIGTERM)
    assert stop.agreed() == signal.SIGTERM
    stop.release()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_only_a_restart_of_the_same_job_goes_on_by_itself(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "last.pt", {"variant": "s1", "config": {}, "model": {}, "job": "mine"})
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    for restarts, name, expected in (("0", "mine", False), ("1", "mine", True), ("2", "other", False)):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
        assert goes_on(tmp_path / "last.pt") is expected
