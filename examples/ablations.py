"""Shows what each part is worth: trains Table 3's rows and three of our own choices on the recipe's data, with one budget and several seeds.

    python weights/recipe.py --hdr-dir DIR                        makes the renders and the bank first
    python examples/ablations.py --hdr-dir DIR --seeds 0 1        trains the runs that are missing, row by row, and prints the table

The network is the recipe's small one, with the losses of its stage 1 and its schedule. Each row sees the same 48,000 patches of 64x64 pixels: 2
epochs of the bank. Where there are two stages, stage 2 gets the second epoch. The scores are PSNR in dB at the last step, over the first 36 scenes of
the ruler. The prior is the one that infer.py would use; for s2, the table also lists PSNR-mu with the true prior and with the mean prior (no
information). lfdiff.py explains the rows. Table 4 needs no training: python evaluate.py --steps 1 2 5 10 20 50 100.
"""

import csv
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import Seed, parse, run
from weights.recipe import LOSS, ROOT, SIZES

NETWORK, UNET, TRAINING, *_ = SIZES["small"]
ALL = f"--data bank --patch 64 --stride 128 --val-scenes 36 --val-every 1000000 --log-every 100 --workers 1 {TRAINING}"
STAGE1, STAGE2 = f"train_stage1.py {NETWORK} {LOSS} {ALL}", f"train_stage2.py {UNET} {LOSS} {ALL}"
WHOLE, HALF = "--epochs 2", "--epochs 1"

RUNS = {        # name: (what it is, run whose LPENet and DHRNet it starts from, command)
    "stage1": ("(stage 1 of the rows below)", None, f"{STAGE1} {HALF}"),
    "baseline": ("baseline", None, f"{STAGE1} {WHOLE} --baseline"),
    "stage1_long": ("s1, sees the truth", None, f"{STAGE1} {WHOLE}"),
    "stage2_split": ("split training", "stage1", f"{STAGE2} {HALF} --split"),
    "stage2_without_dm": ("s2 without DM", "stage1", f"{STAGE2} {HALF} --without-dm"),
    "stage2": ("s2 with DM", "stage1", f"{STAGE2} {HALF}"),
    "raw_z": ("s2 with DM, z not standardised", "stage1", f"{STAGE2} {HALF} --prior-batches 0"),
    "leak": ("s2 with DM, β 1e-4 to 0.02: ᾱ_T = 0.13", "stage1", f"{STAGE2} {HALF} --beta-1 1e-4 --beta-T 0.02"),
    "stage1_paints": ("(stage 1 of the next row)", None, f"{STAGE1} {HALF} --no-correct"),
    "stage2_paints": ("s2 with DM, without D8", "stage1_paints", f"{STAGE2} {HALF} --no-correct"),
}


@dataclass
class AblationsConfig:
    """Which ablations to run, and where."""
    hdr_dir: str = ""                       # folder of .hdr images, the recipe's
    recipe: str = "runs/recipe"             # the recipe's folder, with renders and bank
    out: str = "runs/ablations"             # folder of the runs, OUT/seedN/NAME
    seeds: tuple[Seed, ...] = (0, 1)         # of weights, data and noise
    rows: tuple[str, ...] = tuple(RUNS)     # which rows, by name; a row needs the run that it starts from
    train: bool = True                      # train the runs that are missing; --no-train prints the table of those that exist
    device: str = "auto"                    # auto, cpu, cuda, cuda:1, mps


def train(config, name, seed):
    """Runs one command unless its best.pt exists; resumes one that was stopped. Its output goes to OUT/seedN/NAME.txt. Raises: ValueError if it fails."""
    folder, (_, begin, command) = Path(config.out) / f"seed{seed}", RUNS[name]
    if (folder / name / "best.pt").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    recipe = Path(config.recipe).resolve()
    command = [sys.executable, *f"{command} --seed {seed} --device {config.device}".split(), "--root", str(recipe / "bank"),
               "--hdr-dir", str(Path(config.hdr_dir).resolve()), "--rendered-dir", str(recipe / "rendered"), "--out", str((folder / name).resolve())]
    if begin:
        command += ["--stage1", str((folder / begin / "best.pt").resolve())]
    if (folder / name / "last.pt").is_file():
        command += ["--resume"]
    print(f"seed {seed}: {name}", flush=True)
    with open(folder / f"{name}.txt", "a", encoding="utf-8") as log:
        if subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT).returncode:
            raise ValueError(f"{folder / name}: training failed; {folder / name}.txt says why")


def last_scores(folder):
    """Reads the last validation in a run's log.csv. Returns: {"mu" and the like: dB}, or {} if there is no log."""
    path = Path(folder) / "log.csv"
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    try:
        return {name.removeprefix("val_psnr_"): float(value) for row in rows[-1:] for name, value in row.items() if name.startswith("val_psnr_") and value}
    except (AttributeError, TypeError, ValueError) as error:        # more or fewer cells than columns, or cells that are not numbers
        raise ValueError(f"{path}: damaged ({error}); delete the run and train it again") from None


def mean_and_spread(values):
    """Formats a list of dB as "mean ± standard deviation". A single value stands alone, and an empty list becomes a dash."""
    if not values:
        return "–"
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def table(config):
    """Makes the table. Returns: rows of Markdown with title, number of seeds, PSNR-mu and -L, PSNR-mu with the true and the mean prior."""
    lines = ["| | seeds | PSNR-μ | PSNR-L | true prior | mean prior |", "|---|---|---|---|---|---|"]
    for name in config.rows:
        runs = [scores for scores in (last_scores(Path(config.out) / f"seed{seed}" / name) for seed in config.seeds) if scores]
        columns = [mean_and_spread([scores[key] for scores in runs for key in keys if key in scores])
                   for keys in (("mu", "mu_predicted"), ("l", "l_predicted"), ("mu_true",), ("mu_mean",))]
        lines.append(" | ".join([f"| {RUNS[name][0]}", str(len(runs)), *columns]) + " |")
    return lines


def main():
    """Trains row by row, each with all seeds, and prints the table."""
    config = parse(AblationsConfig, description=__doc__)
    unknown = [name for name in config.rows if name not in RUNS]
    if unknown:
        raise ValueError(f"--rows {' '.join(unknown)}: no such row; choose from {', '.join(RUNS)}")
    if config.train:
        for name in config.rows:
            for seed in config.seeds:
                train(config, name, seed)
    print("\n".join(table(config)))


if __name__ == "__main__":
    run(main)
