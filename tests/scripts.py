"""How the tests run the project's scripts: in this process, or as a user does."""

import csv
import subprocess
import sys
from pathlib import Path

import torch

import train_stage1
import train_stage2
from beyond.checkpoints import load_checkpoint
from brackets.files import write_image
from synthetic.dataset import AS_TAKEN, FIRST, SyntheticBrackets, SyntheticConfig

ROOT = Path(__file__).parent.parent
PLAIN_BRACKETS = SyntheticConfig(**AS_TAKEN)      # what the train scripts draw without --align
DATA = ["--data", "synthetic", "--precision", "float32", "--lam", "0", "--patch", "32", "--batch", "4", "--samples", "16", "--val-scenes", "1",
        "--val-size", "32", "--val-every", "4", "--log-every", "4", "--workers", "0", "--device", "cpu"]
NET = ["--channels", "8", "--heads", "2", "--frms", "1", "--high-blocks", "1", "--prior-width", "8", "--prior-blocks", "1"]
DM = ["--unet-width", "8", "--unet-multipliers", "1", "1", "1", "--unet-blocks", "1", "--prior-batches", "2"]


def run_script(script, *words):
    """Runs a train script's main() in this process with a command line."""
    before = sys.argv
    sys.argv = [script.__name__, *map(str, words)]
    try:
        script.main()
    finally:
        sys.argv = before


def stage1(out, *words):
    run_script(train_stage1, *DATA, *NET, "--out", out, *words)
    return out


def stage2(out, first, *words):
    run_script(train_stage2, *DATA, *DM, "--stage1", first / "last.pt", "--out", out, *words)
    return out


def column(folder, name):
    with open(folder / "log.csv", newline="", encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def weights(folder):
    return load_checkpoint(folder / "last.pt")["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def one_line(script, *words):
    """Runs a script by itself and checks that it ends with code 2 and a single line. Returns: its stderr."""
    done = subprocess.run([sys.executable, str(ROOT / script), *map(str, words)], capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def make_scene(folder, size=(37, 50), hdr=True):
    """Writes a synthetic bracket as a user's folder: 8-bit PNGs and exposure.txt."""
    sample = SyntheticBrackets(size, seed=5, config=SyntheticConfig(**FIRST))[0]
    for i, frame in enumerate(sample["ldr"]):
        write_image(folder / f"{i + 1}.png", (frame.permute(1, 2, 0) * 255).round().byte().numpy())
    (folder / "exposure.txt").write_text("\n".join(str(float(stops)) for stops in sample["ev"]))
    if hdr:
        write_image(folder / "HDRImg.hdr", sample["hdr"].permute(1, 2, 0).contiguous().numpy())
    return folder, sample
