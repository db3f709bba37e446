"""Makes weights from scratch: the data, stage 1, stage 2, the file that replaces the shipped one, and its scores.

    python weights/recipe.py --hdr-dir DIR                  the small network; resumes wherever it was stopped
    python weights/recipe.py --hdr-dir DIR --size paper     the paper's network, for a machine with one GPU and 16 cores
    python weights/recipe.py --hdr-dir DIR --dry-run        prints the commands
    python weights/recipe.py --hdr-dir DIR --size paper --minutes 9 --pieces STATE      where a job may only run for a limited time

The last one stops after nine minutes. Run it again to continue. STATE holds the checkpoints of both stages in files of at most 15 MiB. On another
machine, give the same --out and --hdr-dir: training continues from STATE once the renders and the bank have been made there.

DIR holds .hdr images, subfolders included. Ours are 42 panoramas from Poly Haven (CC0, 1024x512) and 10 OpenEXR images (BSD). The renders need
`pip install mitsuba pyoidn` and LLVM's shared library (synthetic/rendered/__main__.py says which). Everything is written under --out; renders, bank and
rulers take 5.7 GB.

On two cores of an AMD EPYC (AVX512-BF16), it took 8 hours: 0.7 for the renders, 0.6 for the bank, 1.0 for stage 1, 5.3 for stage 2 beside other work (about 3
on idle cores), and some minutes for the scores. Training takes 3 GB of memory.

Each stage has one loss and one learning rate that rises and then falls to 0 by a cosine. The seed is 0 throughout.
"""

import io
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))     # so that it finds the project when run as a script

from brackets.kinds import check_folder
from brackets.ownership import check_writable
from common import Count, Whole, parse, run, write_atomically

ROOT = Path(__file__).resolve().parent.parent
SIZES = {       # flags of stage 1, of stage 2, of both; epochs of each. An epoch is 24,000 patches.
    "small": ("--channels 32 --frms 2 2 --high-blocks 2 --heads 4 --lr 1e-3", "--unet-width 16 --warmup 0.2 --lr 5e-4", "--batch 8 --cosine 200", 1, 2),
    "paper": ("--lr 2e-4", "--warmup 0.2 --lr 2e-4", "--batch 16 --cosine 500", 2, 4),
}
LOSS = "--lam 0 --linear 1 --align --correct --decibel 0.03 0.02"
LOSS2 = LOSS.replace("0.03 0.02", "0.03 0.03")      # of stage 2: PSNR-L counts more
VALIDATION = "--val-every 500 --val-scenes 24"
PIECE = 15 * 2 ** 20            # bytes
STAGES = ("stage1", "stage2")
KEPT = ("last.pt", "best.pt", "weights.pt", "log.csv")      # of a stage's folder


@dataclass
class RecipeConfig:
    """The recipe."""
    hdr_dir: str = ""           # folder of .hdr images
    out: str = "runs/recipe"    # folder for everything that is made
    size: str = "small"         # small: the network of the shipped file; paper: that of Sec. 5.1
    brackets: Count = 6000      # in the bank
    renders: Whole = 200        # scenes that are rendered for training
    minutes: Whole = 0          # stop after this many, 0 for never; a stage saves its last step when it is stopped
    pieces: str = ""            # folder for the checkpoints, weights and logs of both stages, in files of at most 15 MiB
    dry_run: bool = False       # only print the commands


def commands(config):
    """Returns the commands that make the weights, and those that score them: lists of lists of words, without the interpreter."""
    out = Path(config.out)
    bank, rendered, stage1, stage2 = (str(out / name) for name in ("bank", "rendered", *STAGES))
    network, unet, training, epochs1, epochs2 = SIZES[config.size]
    files = ["--hdr-dir", config.hdr_dir, "--rendered-dir", rendered]
    shared = ["--data", "bank", "--root", bank, *files, *f"{training} {VALIDATION}".split()]
    resume1, resume2 = (["--resume"] * (out / stage / "last.pt").exists() for stage in STAGES)
    weights, scores = str(out / "stage2" / "weights.pt"), str(out / "scores")
    rulers = [["-m", "synthetic", "--ruler", half, "--export", str(out / "ruler" / half), "--count", "72", *files] for half in ("val", "test")]
    making = [["-m", "synthetic.rendered", "--hdr-dir", config.hdr_dir, "--out", rendered, "--train", str(config.renders), "--val", "24"],
              ["-m", "synthetic.bank", *files, "--out", bank, "--count", str(config.brackets)],
              ["train_stage1.py", *shared, *f"{LOSS} {network}".split(), "--epochs", str(epochs1), "--out", stage1, *resume1],
              ["train_stage2.py", *shared, *f"{LOSS2} {unet}".split(), "--epochs", str(epochs2), "--stage1", f"{stage1}/last.pt", "--out", stage2, *resume2]]
    scoring = ["evaluate.py", "--data", "folder", "--root", str(out / "ruler" / "val"), "--weights", weights, "--compare", "--out", scores]
    return making, [*rulers, scoring]


def states_in(pieces):
    """Lists the folders that take_apart has finished, the latest last. pieces: Path."""
    return [folder for folder in sorted(pieces.glob("recipe_" + 6 * "[0-9]")) if any(folder.glob("stage*"))]


def take_apart(out, pieces):
    """Writes the KEPT files of both stages into a numbered folder in `pieces`, in files of at most 15 MiB, then deletes the earlier one. out, pieces: Path."""
    states, draft = states_in(pieces), pieces / "recipe_unfinished"
    shutil.rmtree(draft, ignore_errors=True)
    for stage, name in itertools.product(STAGES, KEPT):
        data = io.BytesIO((out / stage / name).read_bytes() if (out / stage / name).exists() else b"")
        for number, piece in enumerate(iter(lambda source=data: source.read(PIECE), b"")):
            write_atomically(draft / f"{stage}.{name}.{number:03d}", lambda file, piece=piece: file.write(piece))
    if draft.exists():
        draft.rename(pieces / f"recipe_{int(states[-1].name[-6:]) + 1 if states else 0:06d}")
        for earlier in states:
            shutil.rmtree(earlier)


def put_together(pieces, out):
    """Restores the files that take_apart has split, for each stage that has not begun in `out`. pieces, out: Path."""
    missing = [stage for stage in STAGES if not (out / stage / "last.pt").exists()]
    for stage, name in itertools.product(missing, KEPT):
        found = [path.read_bytes() for state in states_in(pieces)[-1:] for path in sorted(state.glob(f"{stage}.{name}.*"))]
        if found:
            write_atomically(out / stage / name, lambda file, found=found: file.writelines(found))


def finish(words, until):
    """Runs a command and asks it to stop at the time `until` of time.monotonic(), or never if that is None.

    Returns: whether it ran to its end. Raises: ValueError if it failed.
    """
    print(f"+ python {shlex.join(words)}", flush=True)
    first, *others = words
    first = str(ROOT / first) if first.endswith(".py") else first
    with subprocess.Popen([sys.executable, "-P", first, *others], env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:     # wherever we were started
        try:
            process.wait(until and max(0, until - time.monotonic()))
        except BaseException as error:          # its time is up, or we are being stopped; leaving this block waits until it has saved
            process.terminate()
            if isinstance(error, subprocess.TimeoutExpired):
                return False
            raise
    if process.returncode:
        raise ValueError("the command above failed; fix what it reports and run the recipe again: it resumes there")
    return True


def main():
    """Runs the commands one after the other."""
    config = parse(RecipeConfig, description=__doc__)
    if config.size not in SIZES or not config.hdr_dir:
        raise ValueError(f"--size {config.size}, --hdr-dir {config.hdr_dir!r}: need {' or '.join(SIZES)}, and a folder of .hdr images")
    out, pieces = Path(config.out), Path(config.pieces)
    if config.dry_run:
        print(*(f"+ python {shlex.join(words)}" for words in itertools.chain(*commands(config))), sep="\n")
        return
    check_folder(config.hdr_dir, "give a folder of .hdr images")
    check_writable(out)
    if config.pieces:
        put_together(pieces, out)
    until = time.monotonic() + 60 * config.minutes if config.minutes else None
    making, scoring = commands(config)
    try:
        ended = all(finish(words, until) for words in making)
    finally:
        if config.pieces:
            take_apart(out, pieces)
    if ended:
        made, shipped = out / "stage2" / "weights.pt", "lfdiff.pt" if config.size == "small" else f"lfdiff_{config.size}.pt"
        write_atomically(ROOT / "weights" / shipped, lambda file: file.write(made.read_bytes()))
        ended = all(finish(words, until) for words in scoring)
    if not ended:
        print(f"stopped after {config.minutes} minutes; run the same command again to continue", file=sys.stderr)
        sys.exit(143)


if __name__ == "__main__":
    run(main)
