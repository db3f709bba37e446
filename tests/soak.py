"""Long trials, started by hand: runs that are killed, many inferences in one process, long training, damaged files. CI runs each for a few seconds.

    python tests/soak.py kills --count 50           kill -9 at random moments of both stages; each resumed run must equal the uninterrupted one
    python tests/soak.py inferences --count 500     infer.py on small scenes in one process; memory must not grow
    python tests/soak.py training --minutes 60      stage 1 and stage 2; losses must be finite, memory must not grow
    python tests/soak.py readers --minutes 30       damaged files of every kind; each must give an image or one sentence, within seconds and 1 GB

Each prints what it did in one line, and ends with an AssertionError if something does not hold. They run on Linux and macOS.
"""

import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":                          # as pytest does
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent), str(Path(__file__).parent / "brackets")]

from common import Count, Positive, Seed, parse
import infer
from beyond.checkpoints import load_checkpoint
from scripts import DATA, DM, NET, ROOT, column, make_scene, run_script, same, weights
from tyro.conf import Positional

RUN = [*DATA, "--val-every", "20", "--log-every", "4", "--epochs", "10"]      # 40 steps


@dataclass
class SoakConfig:
    """Which trial, and how long."""
    trial: Positional[str]      # kills, inferences, training or readers
    count: Count = 50           # kills, or inferences
    minutes: Positive = 1.0     # of training, or of damaged files
    seed: Seed = 0              # of the moments, and of the damage


def words_of(stage, folder, out):
    """Returns the command line of a small run that continues where a killed one stopped. folder: of the whole runs."""
    resume = ["--resume"] * (out / "last.pt").exists()
    for name in () if resume else ("best.pt", "weights.pt"):        # the kill came between the first of them and last.pt
        (out / name).unlink(missing_ok=True)
    words = NET if stage == "train_stage1" else [*DM, "--warmup", "0.5", "--stage1", str(folder / "train_stage1" / "last.pt")]
    return [sys.executable, str(ROOT / f"{stage}.py"), *RUN, *words, "--save-every", "3", "--ema", "0.9", "--out", str(out), *resume]


def kills(folder, count, seed=0):
    """Kills runs of both stages, `count` times in all, at random moments from start to end. Returns: what was done, in words."""
    rng, survived, resumed, finished = random.Random(seed), 0, 0, 0
    for stage, until in (("train_stage1", (count + 1) // 2), ("train_stage2", count))[:count]:
        start = time.monotonic()
        subprocess.run(words_of(stage, folder, folder / stage), check=True, capture_output=True)
        seconds = time.monotonic() - start
        while survived < until:
            out = folder / f"{stage}_cut"
            process = subprocess.Popen(words_of(stage, folder, out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            try:
                text, _ = process.communicate(timeout=rng.uniform(0.3, 0.9) * seconds)
                assert process.returncode == 0, text.decode()
                finished += 1
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                survived += 1
            if (out / "last.pt").exists():                          # it loads, whenever the kill came
                resumed += 0 < load_checkpoint(out / "last.pt")["step"] < 40
            if process.returncode == 0:                             # the next run starts over
                compare(folder / stage, out)
                out.rename(folder / f"{stage}_done_{finished}")
        out = folder / f"{stage}_cut"
        if out.exists():
            subprocess.run(words_of(stage, folder, out), check=True, capture_output=True)
            compare(folder / stage, out)
            finished += 1
    return f"kills: {survived}, of which {resumed} left a checkpoint on the way; {finished} runs ended, each bit for bit like the uninterrupted one"


def compare(whole, cut):
    """Asserts that two runs have the same weights, mean weights, optimiser and best score."""
    assert same(weights(whole), weights(cut)) and same(load_checkpoint(whole / "best.pt")["model"], load_checkpoint(cut / "best.pt")["model"])
    a, b = (load_checkpoint(folder / "last.pt") for folder in (whole, cut))
    assert same(a["trained"], b["trained"]) and a["step"] == b["step"] == 40 and a["best"] == b["best"]
    assert all((a["optimiser"]["state"][i]["exp_avg"] == b["optimiser"]["state"][i]["exp_avg"]).all() for i in a["optimiser"]["state"])


def resident():
    """Returns the memory of this process in MB, or 0 where the system does not say."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * resource.getpagesize() / 2 ** 20 if path.exists() else 0


def inferences(folder, count, seed=0):
    """Runs infer.py's main() `count` times on scenes of a few sizes. Returns: what was done, in words."""
    scenes = [make_scene(folder / f"scene{k}", size=size, hdr=False)[0] for k, size in enumerate([(16, 16), (37, 50), (64, 96)])]
    memory = []
    for k in range(count):
        run_script(infer, "--scene", scenes[k % 3], "--out", folder / "out", "--seed", seed + k)
        memory.append(resident())
    warm = memory[min(count // 4, 30):]
    growth = sum(warm[-len(warm) // 3:]) / len(warm[-len(warm) // 3:]) - sum(warm[:len(warm) // 3 + 1]) / (len(warm) // 3 + 1)
    assert count < 60 or growth < 20, f"memory grew by {growth:.0f} MB: {memory}"
    return f"inferences: {count}; memory {warm[0]:.0f} MB at the {count - len(warm) + 1}th, {memory[-1]:.0f} MB at the last"


def training(folder, minutes):
    """Trains stage 1 and then stage 2, each for half the minutes, and stops them with SIGTERM. Returns: what was done, in words."""
    said = []
    for stage in ("train_stage1", "train_stage2"):
        words = words_of(stage, folder, folder / stage)
        words[words.index("--epochs") + 1] = "1000000"
        words[words.index("--save-every") + 1] = words[words.index("--val-every") + 1] = "500"
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until, memory = time.monotonic() + 30 * minutes, []
        while time.monotonic() < until or not (folder / stage / "log.csv").exists() or len(column(folder / stage, "step")) < 2:
            assert process.poll() is None, process.stderr.read().decode()
            statm = Path(f"/proc/{process.pid}/statm")
            memory.append(int(statm.read_text().split()[1]) * resource.getpagesize() / 2 ** 20 if statm.exists() else 0)
            time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        process.communicate()
        step, half = load_checkpoint(folder / stage / "last.pt")["step"], memory[len(memory) // 2:]
        assert process.returncode == 143 and step == column(folder / stage, "step")[-1]
        assert minutes < 5 or half[-1] < half[0] + 30, f"memory grew from {half[0]:.0f} to {half[-1]:.0f} MB"
        said.append(f"{step} steps of {stage} ({half[0]:.0f} MB after half of the time, {half[-1]:.0f} MB at the end)")
    return "training: " + ", ".join(said)


def readers(folder, minutes, seed=0):
    """Reads damaged files of every kind, with little memory available. Returns: what was done, in words."""
    from test_mutations import WHOLE, check, mutated
    limits, rng, count, slowest = resource.getrlimit(resource.RLIMIT_AS), random.Random(seed), 0, 0.0
    if Path("/proc/self/statm").exists():
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 2 ** 30, limits[1]))
    try:
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            name = rng.choice(list(WHOLE))
            path = folder / f"a{Path(name).suffix}"
            path.write_bytes(mutated(WHOLE[name], rng))
            start = time.monotonic()
            check(path)
            slowest, count = max(slowest, time.monotonic() - start), count + 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    return f"readers: {count} damaged files, the slowest took {slowest:.2f} s"


def main():
    """Runs one trial in a temporary folder."""
    config = parse(SoakConfig, description=__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trials = {"kills": lambda: kills(folder, config.count, config.seed), "inferences": lambda: inferences(folder, config.count, config.seed),
                  "training": lambda: training(folder, config.minutes), "readers": lambda: readers(folder, config.minutes, config.seed)}
        print(trials[config.trial]())


if __name__ == "__main__":
    main()
