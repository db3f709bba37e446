"""Ablations at equal budget: Table 3's rows, Table 4's S and four of our choices, in a small network and several seeds.

    python synthetic.py --split train --export runs/ablations/data/Training --count 240 --size 192 --hdr-dir DIR --rendered-dir DIR
    python synthetic.py --split val --export runs/ablations/data/Test --count 24 --size 256 --hdr-dir DIR --rendered-dir DIR
    python examples/ablations.py --seeds 0 1 2        trains what is not there yet, row by row, then prints the tables

Every row sees as many patches in all: 3 epochs of each stage, or 6 of the only one. The scores are those of the last validation, over all
scenes of Test: PSNR in dB with the prior that infer.py would have, and for s2 PSNR-mu with the true prior and with the mean one (no information)
beside it. One seed takes about an hour on one core of an AMD EPYC. For the rows' meaning see lfdiff.py.
"""

import csv
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import autocast, parse, pick_device, pick_precision, run
from data import Scenes, find_scenes
from lfdiff import load_weights, reconstruct
from training import validate

HERE = Path(__file__).resolve().parent.parent
ALL = "--data kalantari --lam 0 --linear 1 --patch 64 --batch 8 --ema 0.99 --workers 1 --val-scenes 0 --val-every 1000000 --log-every 80"
STAGE1 = "train_stage1.py --channels 16 --heads 4 --frms 1 1 --lr 1e-3 --decay 0.3"
STAGE2 = "train_stage2.py --unet-width 16 --unet-blocks 1 --lr 5e-4 --decay 0.3"
SHORT, LONG = "--epochs 3 --decay-epochs 2", "--epochs 6 --decay-epochs 4"
STEPS = 1, 2, 5, 10, 20, 50, 100        # Table 4 has 5, 10, 20, 50, 100

RUNS = {        # name: (what it is, run whose LPENet and DHRNet it begins with, command)
    "stage1": ("(stage 1 of the rows below)", None, f"{STAGE1} --high-blocks 1 {SHORT}"),
    "baseline": ("baseline", None, f"{STAGE1} --high-blocks 1 {LONG} --baseline"),
    "stage1_long": ("s1, sees the truth", None, f"{STAGE1} --high-blocks 1 {LONG}"),
    "stage2_split": ("split training", "stage1", f"{STAGE2} {SHORT} --split"),
    "stage2_without_dm": ("s2 without DM", "stage1", f"{STAGE2} {SHORT} --warmup 0.5 --without-dm"),
    "stage2": ("s2 with DM", "stage1", f"{STAGE2} {SHORT} --warmup 0.5"),
    "raw_z": ("s2, z not standardised", "stage1", f"{STAGE2} {SHORT} --warmup 0.5 --prior-batches 0"),
    "leak": ("s2, β 1e-4 to 0.02: ᾱ_T = 0.13", "stage1", f"{STAGE2} {SHORT} --warmup 0.5 --beta-1 1e-4 --beta-T 0.02"),
    "stage1_high4": ("(stage 1 of the next row)", None, f"{STAGE1} --high-blocks 4 {SHORT}"),
    "high4": ("s2, 4 high-frequency blocks", "stage1_high4", f"{STAGE2} {SHORT} --warmup 0.5"),
    "baseline_blend": ("baseline, blended with the frames", None, f"{STAGE1} --high-blocks 1 {LONG} --baseline --blend"),
    "blend": ("s2 with DM, blended with the frames", "stage1", f"{STAGE2} {SHORT} --warmup 0.5 --blend"),
}


@dataclass
class AblationsConfig:
    """Which ablations, where."""
    root: str = "runs/ablations/data"           # folder with Training/ and Test/, see above
    out: str = "runs/ablations"                 # folder of the runs, OUT/seedN/NAME
    seeds: tuple[int, ...] = (0, 1, 2)          # of weights, data and noise
    rows: tuple[str, ...] = tuple(RUNS)         # which of them, by name; a row needs the one it begins with
    train: bool = True                          # --no-train: tables of what is there
    device: str = "auto"                        # auto, cpu, cuda, cuda:1, mps


def train(config, name, seed):
    """Runs one command unless its best.pt is there. Its output goes to OUT/seedN/NAME.txt. Raises: ValueError when it fails."""
    folder, (_, begin, command) = Path(config.out) / f"seed{seed}", RUNS[name]
    if (folder / name / "best.pt").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *f"{command} {ALL} --seed {seed} --device {config.device}".split(), "--root", str(Path(config.root).resolve()),
               "--out", str((folder / name).resolve())]
    if begin:
        command += ["--stage1", str((folder / begin / "best.pt").resolve())]
    print(f"seed {seed}: {name}", flush=True)
    with open(folder / f"{name}.txt", "w", encoding="utf-8") as log:
        if subprocess.run(command, cwd=HERE, stdout=log, stderr=subprocess.STDOUT).returncode:
            raise ValueError(f"{folder / name}: training failed; {folder / name}.txt says why")


def last_scores(folder):
    """The last validation of a run's log.csv. Returns: {column: dB}, or {} where there is none."""
    path = Path(folder) / "log.csv"
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name.removeprefix("val_psnr_"): float(value) for row in rows[-1:] for name, value in row.items() if name.startswith("val_psnr_") and value}


def mean_and_spread(values):
    """"mean ± standard deviation" of some dB, the mean alone of a single one, a dash of none."""
    if not values:
        return "–"
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def table(config):
    """Rows of Markdown: what, seeds, PSNR-mu and -L, PSNR-mu with the true and with the mean prior."""
    lines = ["| | seeds | PSNR-μ | PSNR-L | true prior | mean prior |", "|---|---|---|---|---|---|"]
    for name in config.rows:
        runs = [scores for scores in (last_scores(Path(config.out) / f"seed{seed}" / name) for seed in config.seeds) if scores]
        columns = [mean_and_spread([scores[key] for scores in runs for key in keys if key in scores])
                   for keys in (("mu", "mu_predicted"), ("l", "l_predicted"), ("mu_true",), ("mu_mean",))]
        lines.append(" | ".join([f"| {RUNS[name][0]}", str(len(runs)), *columns]) + " |")
    return lines


def steps_table(config):
    """Table 4 on Test, of the runs "stage2": trained with S = 10, sampled with others. Returns: rows of Markdown."""
    device, scores = pick_device(config.device), {S: [] for S in STEPS}
    dtype, test_set = pick_precision("auto", device), Scenes(find_scenes("kalantari", config.root, "test"))
    for seed in config.seeds:
        path = Path(config.out) / f"seed{seed}" / "stage2" / "best.pt"
        if path.is_file():
            for S, pair in validate(test_set, step_predictors(load_weights(path, device), device, dtype), device).items():
                scores[S].append(pair)
    return ["| S | seeds | PSNR-μ | PSNR-L |", "|---|---|---|---|",
            *(f"| {S} | {len(pairs)} | {mean_and_spread([mu for mu, _ in pairs])} | {mean_and_spread([l for _, l in pairs])} |" for S, pairs in scores.items())]


def step_predictors(model, device, dtype):
    """{S: function (ldr, ev, hdr) -> H^ after S steps from the same noise}, as training.validate takes them."""
    def predictor(S):
        def predict(ldr, ev, hdr):
            with autocast(device, dtype):
                return reconstruct(model, ldr, ev, S, generator=torch.Generator().manual_seed(0))
        return predict
    return {S: predictor(S) for S in STEPS}


def main():
    """Trains, row by row over the seeds, and prints both tables."""
    config = parse(AblationsConfig, description=__doc__)
    unknown = [name for name in config.rows if name not in RUNS]
    if unknown:
        raise ValueError(f"--rows {' '.join(unknown)}: no such row; choose from {', '.join(RUNS)}")
    if config.train:
        for name in config.rows:
            for seed in config.seeds:
                train(config, name, seed)
    print("\n".join([*table(config), "", *steps_table(config)]))


if __name__ == "__main__":
    run(main)
