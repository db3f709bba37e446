"""Ablations at equal budget: Table 3's rows, Table 4's S and four of our own choices, in a small network and several seeds.

    python -m synthetic --split train --export runs/ablations/data/Training --count 240 --size 192 --hdr-dir DIR --rendered-dir DIR
    python -m synthetic --split val --export runs/ablations/data/Test --count 24 --size 256 --hdr-dir DIR --rendered-dir DIR
    python examples/ablations.py --seeds 0 1 2        trains the runs that are missing, row by row, and prints the tables

Every row sees the same number of patches: 3 epochs of each stage, or 6 where there is only one. The frames are registered, recoded and aligned along
optical flow. The scores are PSNR in dB, from the last validation, over all scenes of Test. The prior is the one that infer.py would have; for s2,
PSNR-mu with the true prior and with the mean one (no information) stands beside it. One seed takes about an hour on one core of an AMD EPYC.
lfdiff.py says what the rows are.
"""

import csv
import statistics
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from beyond.weights import load_weights
from brackets.prepare import prepared_sample
from brackets.scenes import Scenes, find_scenes
from common import Seed, autocast, parse, pick_device, pick_precision, run
from lfdiff import reconstruct
from training import validate

HERE = Path(__file__).resolve().parent.parent
ALL = ("--data kalantari --val-on test --val-scenes 0 --val-every 1000000 --log-every 80 --patch 64 --batch 8 --workers 1 --lam 0 "
       "--align --linear 1 --ema 0.99")     # D6, D9 and D10, D5, D7
STAGE1 = "train_stage1.py --channels 16 --heads 4 --frms 1 1 --lr 1e-3 --decay 0.3"
STAGE2 = "train_stage2.py --unet-width 16 --unet-blocks 1 --lr 5e-4 --decay 0.3"
SHORT, LONG = "--epochs 3 --decay-epochs 2", "--epochs 6 --decay-epochs 4"
STEPS = 1, 2, 5, 10, 20, 50, 100        # Table 4 has 5, 10, 20, 50, 100

RUNS = {        # name: (what it is, run whose LPENet and DHRNet it starts from, command)
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
    """Which ablations to run, and where."""
    root: str = "runs/ablations/data"           # folder with Training/ and Test/, made as the top of this file says
    out: str = "runs/ablations"                 # folder of the runs, OUT/seedN/NAME
    seeds: tuple[Seed, ...] = (0, 1, 2)         # of weights, data and noise
    rows: tuple[str, ...] = tuple(RUNS)         # which rows, by name; a row needs the run that it starts from
    train: bool = True                          # train the runs that are missing; --no-train prints the tables of those that exist
    device: str = "auto"                        # auto, cpu, cuda, cuda:1, mps


def train(config, name, seed):
    """Runs one command unless its best.pt exists. Its output goes to OUT/seedN/NAME.txt. Raises: ValueError when it fails."""
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
    """The last validation in a run's log.csv. Returns: {"mu" and the like: dB}, or {} where there is no log."""
    path = Path(folder) / "log.csv"
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    try:
        return {name.removeprefix("val_psnr_"): float(value) for row in rows[-1:] for name, value in row.items() if name.startswith("val_psnr_") and value}
    except (AttributeError, TypeError, ValueError) as error:        # more or fewer cells than columns, or no numbers
        raise ValueError(f"{path}: damaged ({error}); delete the run and train it again") from None


def mean_and_spread(values):
    """A list of dB as "mean ± standard deviation". A single value stands alone, and an empty list becomes a dash."""
    if not values:
        return "–"
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def table(config):
    """Table 3 and our choices. Returns: rows of Markdown with title, number of seeds, PSNR-mu and -L, PSNR-mu with the true and the mean prior."""
    lines = ["| | seeds | PSNR-μ | PSNR-L | true prior | mean prior |", "|---|---|---|---|---|---|"]
    for name in config.rows:
        runs = [scores for scores in (last_scores(Path(config.out) / f"seed{seed}" / name) for seed in config.seeds) if scores]
        columns = [mean_and_spread([scores[key] for scores in runs for key in keys if key in scores])
                   for keys in (("mu", "mu_predicted"), ("l", "l_predicted"), ("mu_true",), ("mu_mean",))]
        lines.append(" | ".join([f"| {RUNS[name][0]}", str(len(runs)), *columns]) + " |")
    return lines


def steps_table(config):
    """Table 4 on Test, for the runs "stage2": they were trained with S = 10 and are sampled with others. Returns: rows of Markdown."""
    device, scores = pick_device(config.device), {S: [] for S in STEPS}
    dtype, test_set = pick_precision("auto", device), Scenes(find_scenes("kalantari", config.root, "test"))
    for seed in config.seeds:
        path = Path(config.out) / f"seed{seed}" / "stage2" / "best.pt"
        if path.is_file():
            model = load_weights(path, device)
            scenes = (prepared_sample(sample, model.prepare) for sample in test_set)
            for S, pair in validate(scenes, step_predictors(model, device, dtype), device).items():
                scores[S].append(pair)
    return ["| S | seeds | PSNR-μ | PSNR-L |", "|---|---|---|---|",
            *(f"| {S} | {len(pairs)} | {mean_and_spread([mu for mu, _ in pairs])} | {mean_and_spread([l for _, l in pairs])} |" for S, pairs in scores.items())]


def step_predictors(model, device, dtype):
    """{S: function (ldr, ev, hdr) -> H^ after S steps}, as training.validate takes them. All of them start from the same noise."""
    def predict(ldr, ev, hdr, S):
        with autocast(device, dtype):
            return reconstruct(model, ldr, ev, S, generator=torch.Generator().manual_seed(0))
    return {S: partial(predict, S=S) for S in STEPS}


def main():
    """Trains row by row, each with all seeds, and prints both tables."""
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
