"""What both train scripts share: data by name, batches, validation pictures, the log and its plot.

A batch is a function of (seed, step): rank r of w processes takes its slice of the samples step * batch .. (step + 1) * batch,
and sample i is a function of (seed, i). So a resumed run sees what the uninterrupted one would have seen, and several
processes see together what one sees alone.
"""

import copy
import csv
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from common import load_checkpoint, save_checkpoint, save_panel
from brackets.prepare import UNPREPARED, PrepareConfig, cache_scenes, prepared_sample
from brackets.scenes import Scenes, find_scenes
from data import Patches, T
from loss import psnr
from synthetic.dataset import AS_TAKEN, VALIDATION_SEED, SyntheticBrackets, SyntheticConfig, validation_set

# What a resumed run may do otherwise than it began; everything else must be as it was
MAY_CHANGE = {"lr", "epochs", "warmup", "device", "precision", "workers", "compile", "resume", "val_every", "val_scenes", "val_size", "log_every",
              "out", "init", "stage1", "vgg"}


@dataclass
class TrainingConfig:
    """Data, optimisation and housekeeping of a training run."""
    data: str = "synthetic"         # synthetic, kalantari or hu
    root: str = ""                  # folder of the data set (default: data/NAME)
    hdr_dir: str = ""               # folder of .hdr images, panoramas and photographs, for the synthetic set; one name in five validates
    rendered_dir: str = ""          # folder made by render_scenes.py for the synthetic set: its train/ and val/
    samples: int = 22792            # patches in an epoch of the synthetic set [Kalantari's number]
    patch: int = 128                # side of a training patch, pixels [paper: Sec. 5.1]
    stride: int = 64                # distance of neighbouring patches, pixels [paper: Sec. 5.1]
    batch: int = 64                 # patches in a step, all processes together [paper: Sec. 5.1]
    epochs: int = 300               # passes over the data [paper: Sec. 5.1]
    lr: float = 1e-4                # learning rate of Adam [paper: Sec. 5.1]
    decay: float = 0.1              # factor of the learning rate ... [paper: Sec. 5.1]
    decay_epochs: int = 50          # ... after every so many epochs [paper: Sec. 5.1 | A14: reaches 1e-9 by epoch 250]
    clip: float = 1.0               # largest norm of the gradient [assumed A13]
    ema: float = 0.0                # share that stays, a step, of a running mean of the weights: it is validated and saved; 0: no mean [departs D7]
    seed: int = 0                   # of weights, data and noise
    val_every: int = 1000           # steps between validations
    val_scenes: int = 8             # validation scenes; 0 is all (Kalantari and Hu: of the test split)
    val_size: int = 256             # side of a synthetic validation scene, pixels
    align: bool = True              # frames go through flow.align_frames, in training and validation; --no-align is the paper's, then also
                                    # evaluate and infer with --no-register --no-response --no-flow [departs D6, D9, D10]
    log_every: int = 50             # steps between log lines
    workers: int = 2                # processes that load data; 0 loads in the main one
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"         # auto (bfloat16 where the hardware has it; else float16 on CUDA, float32 elsewhere), float32, bfloat16, float16
    compile: bool = False           # torch.compile the network
    resume: bool = False            # continue from last.pt in --out


def open_data(config):
    """The training and validation sets by name. config: TrainingConfig.

    Returns: two datasets of samples {"ldr", "ev", "hdr"}. Validation scenes are never trained on: of the synthetic set's folders
        each side has files of its own, and in validation the sources take turns (one that has no validation file is left out).
    Raises: ValueError for an unknown name or a setting out of range; FileNotFoundError of one line when the data set is not there.
    """
    for name in ("samples", "batch", "epochs", "decay_epochs", "val_every", "log_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(config, name)}: must be 1 or more")
    if not 0 <= config.ema < 1:
        raise ValueError(f"--ema {config.ema}: must be 0 or more and less than 1")
    if config.patch < 16 or config.patch % 16:
        raise ValueError(f"--patch {config.patch}: must be a multiple of 16 (PixelUnshuffle by 4, then a U-Net of three levels)")
    if config.data == "synthetic":
        if config.seed == VALIDATION_SEED:
            raise ValueError(f"--seed {config.seed}: is the seed of the validation scenes; choose another")
        brackets = SyntheticConfig(**({} if config.align else AS_TAKEN))
        train_set = SyntheticBrackets(config.patch, config.seed, config.samples, config.hdr_dir, config.rendered_dir, "train", brackets)
        val_set = validation_set(config.val_size, config.val_scenes or 16, config.hdr_dir, config.rendered_dir)
        return train_set, val_set
    if config.data not in ("kalantari", "hu"):
        raise ValueError(f"--data {config.data}: training knows synthetic, kalantari and hu")
    root = Path(config.root or Path("data") / config.data)
    train_set = Patches(cache_scenes(find_scenes(config.data, root, "train"), root / "cache", config.data, PrepareConfig() if config.align else UNPREPARED,
                                     config.workers), config.patch, config.stride, config.seed)
    scenes = find_scenes(config.data, root, "test")
    return train_set, Scenes(scenes[:config.val_scenes or len(scenes)])


def batches(train_set, config, start, stop, rank=0, world=1):
    """The batches of steps start .. stop - 1 for one process. Returns: DataLoader of dicts with batch / world samples each.

    Raises: ValueError when the batch does not split evenly.
    """
    if config.batch % world:
        raise ValueError(f"--batch {config.batch}: does not split over {world} processes; choose a multiple")
    share = config.batch // world
    first = [step * config.batch + rank * share for step in range(start, stop)]
    return DataLoader(train_set, batch_sampler=[range(i, i + share) for i in first], num_workers=config.workers,
                      pin_memory=torch.cuda.is_available())


def to_device(sample, device):
    """A collated sample on the device: ldr (B, 3, 3, H, W), ev (B, 3), hdr (B, 3, H, W)."""
    return [sample[name].to(device, non_blocking=True) for name in ("ldr", "ev", "hdr")]


def averaged(network, ema):
    """The network that is validated and saved: a copy that follows the trained one, or with ema = 0 the trained one itself."""
    return copy.deepcopy(network).requires_grad_(False) if ema else network


@torch.no_grad()
def follow(average, network, ema, step):
    """average <- ema average + (1 - ema) network. Step n, counted from 1, keeps at most n / (n + 10) of the average, which begins untrained."""
    ema = min(ema, step / (step + 10))
    for mean, value in zip(average.parameters(), network.parameters()):
        mean.lerp_(value, 1 - ema)


def validate(val_set, predictors, device, picture=None, align=True):
    """Mean PSNR of one or more predictors over a validation set.

    predictors: {name: function (ldr, ev, hdr) -> Ĥ (1, 3, H, W)}, of a batch of one on the device.
    picture: path of a PNG of the first scene (LDRs, output of the first predictor, truth, error), or None. align: frames are aligned first,
        as in infer.py.
    Returns: {name: (PSNR-mu, PSNR-L)} in dB.
    """
    scores = {name: [] for name in predictors}
    for i in range(len(val_set)):
        sample = val_set[i]
        if align:
            sample = prepared_sample(sample)
        ldr, ev, hdr = (part[None] for part in to_device(sample, device))
        for name, predict in predictors.items():
            hdr_hat = predict(ldr, ev, hdr)
            scores[name].append((psnr(T(hdr_hat), T(hdr)), psnr(hdr_hat, hdr)))
            if i == 0 and picture and name == next(iter(predictors)):
                save_progress_picture(picture, ldr[0], hdr_hat[0], hdr[0])
    return {name: tuple(sum(column) / len(column) for column in zip(*rows)) for name, rows in scores.items()}


def save_progress_picture(path, ldr, hdr_hat, hdr):
    """LDRs, output, truth and 5 x error in the mu-law domain, side by side. ldr: (3, 3, H, W); hdr_hat, hdr: (3, H, W)."""
    output, truth = T(hdr_hat), T(hdr)
    save_panel(path, [("short", ldr[0]), ("reference", ldr[1]), ("long", ldr[2]),
                      (f"output, PSNR-μ {psnr(output, truth):.2f} dB", output), ("truth", truth),
                      ("5 x |output - truth|", 5 * (output - truth).abs())], columns=3)


def save_run(path, parts, network, config, step, best):
    """Writes a checkpoint: the state of each of `parts` {name: object with state_dict()}, the architecture, step and best score.

    All other randomness is a function of (seed, step): see training.py's header.
    """
    save_checkpoint(path, {"variant": network.variant, "config": asdict(network.config), "training": asdict(config), "step": step,
                           "best": best, **{name: part.state_dict() for name, part in parts.items()}})


def flags_of(config):
    """The settings of a script, groups flattened, as {field's name: value}. config: what asdict made of its dataclass."""
    groups = [flags_of(value) for value in config.values() if isinstance(value, dict)]
    return {**{name: value for name, value in config.items() if not isinstance(value, dict)}, **{k: v for group in groups for k, v in group.items()}}


def resume_run(path, parts, network, config):
    """Loads save_run's checkpoint into `parts`; config: the script's. Returns: step, best.

    Raises: FileNotFoundError; ValueError when the command line asks for another architecture, loss, data or schedule than the
        checkpoint's. MAY_CHANGE names the settings that may differ.
    """
    saved = load_checkpoint(path)
    if (saved["variant"], saved["config"]) != (network.variant, asdict(network.config)):
        raise ValueError(f"{path}: was trained with another architecture; resume with the flags it was started with, or choose another --out")
    then, now = flags_of(saved["training"]), flags_of(asdict(config))
    changed = [f"--{name.replace('_', '-')}" for name, value in now.items() if name not in MAY_CHANGE and then.get(name) != value]
    if changed:
        raise ValueError(f"{path}: was trained with another {', '.join(changed)}; resume with the flags it was started with")
    for name, part in parts.items():
        if saved[name]:                         # the scaler's state is empty unless the run was in float16
            part.load_state_dict(saved[name])
    ratio = now["lr"] / then["lr"]              # a lower --lr on resuming lowers what the schedule has made of it
    for group in parts["optimiser"].param_groups:
        group["lr"], group["initial_lr"] = group["lr"] * ratio, group["initial_lr"] * ratio
    parts["schedule"].base_lrs = [lr * ratio for lr in parts["schedule"].base_lrs]
    return saved["step"], saved["best"]


def refuse_to_overwrite(folder):
    """Raises: ValueError when a run already lives in the folder of a new one."""
    if (Path(folder) / "last.pt").exists():
        raise ValueError(f"{folder}: holds a run already; continue it with --resume, choose another --out, or delete it")


class Log:
    """log.csv in the run's folder, and log.png, its plot. A resumed run goes on behind the row of its first step.

    Rows hold means over the steps since the row before. Only a writing log (rank 0) touches the disk.
    """

    def __init__(self, folder, columns, first_step=0, write=True):
        self.path, self.columns, self.write = Path(folder) / "log.csv", ["step", *columns], write
        self.terms, self.clock = [], time.perf_counter()
        if write:
            rows = [row for row in self.rows() if int(row["step"]) <= first_step] if first_step else []
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns)
                writer.writeheader()
                writer.writerows(rows)

    def rows(self):
        """All rows so far, as dicts of strings; a value that was not measured at that step is empty."""
        if not self.path.is_file():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def collect(self, terms):
        """Keeps the detached scalars of one step for the next row."""
        self.terms.append(terms)

    def row(self, step, batch):
        """Means of what was collected, and patches per second since the last row. Returns: dict.

        Raises: ValueError when a loss is not finite: the run must stop before it overwrites a good checkpoint.
        """
        row = {"step": step}
        for name in self.terms[-1]:
            row[name] = torch.stack([terms[name].float() for terms in self.terms if name in terms]).mean().item()
            if name.startswith("L"):
                self.check_finite(step, name, row[name])
        row["patches_per_s"] = len(self.terms) * batch / (time.perf_counter() - self.clock)
        self.restart_clock()
        return row

    def check_finite(self, step, name, value):
        """Raises: ValueError when a loss or a score is nan, or a loss infinite (a PSNR may be)."""
        if math.isnan(value) or (math.isinf(value) and name.startswith("L")):
            last = self.path.parent / "last.pt"
            advice = f"resume the last good checkpoint, {last}," if last.is_file() else "start again"
            raise ValueError(f"step {step}: {name} is {value}; {advice} with a lower --lr, or with --precision float32")

    def restart_clock(self):
        """Starts a new window, so that a validation does not count as training time."""
        self.terms, self.clock = [], time.perf_counter()

    def add(self, row, bar):
        """Appends a row to log.csv and the terminal, and shows its losses on the progress bar."""
        if not self.write:
            return
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow({name: f"{value:.6g}" if name != "step" else value for name, value in row.items()})
        tqdm.write("  ".join(f"{name} {value:.4g}" if name != "step" else f"step {value}" for name, value in row.items()))
        sys.stdout.flush()      # a log file shows the line now, not with the next 8 kB
        bar.set_postfix({name: f"{value:.4f}" for name, value in row.items() if name.startswith("L")}, refresh=False)
        if any(name.startswith("val_") for name in row):
            self.plot()

    def plot(self):
        """Draws losses over the steps on a logarithmic axis, and validations in dB."""
        from matplotlib.figure import Figure    # 0.3 s to import: only when a plot is drawn
        figure, rows = Figure(figsize=(10, 4), layout="constrained"), self.rows()
        losses, decibels = figure.subplots(1, 2)
        for name in (name for name in self.columns if name.startswith(("L", "val_"))):
            points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
            if any(value > 0 for _, value in points):
                (losses if name.startswith("L") else decibels).plot(*zip(*points), label=name, marker="" if name.startswith("L") else ".")
        losses.set(yscale="log", xlabel="step", title="training losses")
        decibels.set(xlabel="step", title="validation PSNR, dB")
        for axis in (losses, decibels):
            axis.grid(alpha=0.3)
            if axis.lines:
                axis.legend(fontsize=8)
        figure.savefig(self.path.with_suffix(".png"), dpi=100)
