"""What both train scripts share: data by name, batches, and what surrounds their loops: validation, checkpoints, the log.

A batch is a function of (seed, step): rank r of w processes takes its slice of the samples step * batch .. (step + 1) * batch,
and sample i is a function of (seed, i). So a resumed run sees what the uninterrupted one would have seen, and several
processes together see what one process sees alone.
"""

import copy
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from beyond.checkpoints import check_run, fill_parts, flags_of, load_checkpoint, save_checkpoint
from beyond.log import Log
from beyond.optimise import follow
from beyond.processes import catch_signals, ignore_signals, job
from beyond.pictures import save_progress_picture
from beyond.weights import architecture
from brackets.prepare import cache_scenes, prepared_sample
from brackets.scenes import find_scenes, load_scene
from common import Count, Positive, Seed, Sixteens, Whole
from data import Patches, T, psnr
from synthetic.bank import open_bank
from synthetic.dataset import AS_TAKEN, VALIDATION_SEED, SyntheticBrackets, SyntheticConfig, validation_set
from synthetic.ruler import RULER, ruler

# Settings that may differ when a run is resumed
MAY_CHANGE = {"lr", "epochs", "device", "precision", "workers", "compile", "resume", "val_every", "val_scenes", "val_size", "log_every",
              "save_every", "out", "init", "stage1", "vgg"}


@dataclass
class TrainingConfig:
    """Data, optimisation and housekeeping of a training run."""
    data: str = "kalantari"         # kalantari, hu, synthetic (which needs no files) or bank (of python -m synthetic.bank) [paper: Sec. 5.1]
    root: str = ""                  # folder of the data set (default: data/NAME)
    hdr_dir: str = ""               # folder of .hdr images, for the synthetic set and for the validation of a bank; one name in five is for validation
    rendered_dir: str = ""          # folder made by python -m synthetic.rendered, for the same: its train/ and val/
    samples: Count = 22792          # patches in an epoch of the synthetic set [Kalantari's number]
    patch: Sixteens = 128           # side of a training patch, pixels [paper: Sec. 5.1]
    stride: Count = 64              # distance between neighbouring patches, pixels [paper: Sec. 5.1]
    batch: Count = 64               # patches in a step, all processes together [paper: Sec. 5.1]
    epochs: Count = 300             # passes over the data [paper: Sec. 5.1]
    lr: Positive = 1e-4             # learning rate of Adam [paper: Sec. 5.1]
    decay: Positive = 0.1           # factor of the learning rate ... [paper: Sec. 5.1]
    decay_epochs: Count = 50        # ... after every so many epochs [paper: Sec. 5.1 | assumed A14: reaches 1e-9 by epoch 250]
    clip: Positive = 1.0            # largest norm of the gradient [assumed A13]
    seed: Seed = 0                  # of weights, data and noise
    val_on: str = "train"           # best.pt is chosen on scenes held back from "train", or on those of "test", whose scores are then optimistic
    val_scenes: Whole = 5           # validation scenes; 0: all of the test split (synthetic: 16, bank: 72)
    val_every: Count = 1000         # steps between validations
    val_size: Sixteens = 256        # side of a synthetic validation scene, pixels
    save_every: Count = 200         # steps between checkpoints; validations and a signal to stop write one, too
    log_every: Count = 50           # steps between log lines
    workers: Whole = 2              # processes that load data; 0 loads in the main one
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"         # auto (bfloat16 where the hardware has it; else float16 on CUDA, float32 elsewhere), float32, bfloat16, float16
    compile: bool = False           # torch.compile the network
    resume: bool = False            # continue from last.pt in --out


# --- data -------------------------------------------------------------------------------------------------------------

def check(config, beyond):
    """Checks the settings. config: TrainingConfig, beyond: BeyondConfig. Raises: ValueError for a setting out of range."""
    if config.data not in ("kalantari", "hu", "synthetic", "bank"):
        raise ValueError(f"--data {config.data}: use kalantari, hu, synthetic or bank")
    if config.data == "bank" and not beyond.align:
        raise ValueError("--data bank: its brackets are aligned; add --align")
    if config.val_on not in ("train", "test") or (config.val_on == "train" and config.data in ("kalantari", "hu") and config.val_scenes < 1):
        raise ValueError(f"--val-on {config.val_on}, --val-scenes {config.val_scenes}: use train with 1 scene or more, or test")
    if config.data == "synthetic" and config.seed == VALIDATION_SEED:
        raise ValueError(f"--seed {config.seed}: is the seed of the validation scenes; choose another")


def open_data(config, beyond):
    """Opens the training and validation sets by name. config: TrainingConfig, beyond: BeyondConfig.

    Returns: a dataset of training samples {"ldr", "ev", "hdr"}, and a list of whole validation samples, prepared once. No validation scene is
        trained on: with Kalantari and Hu, some training scenes are held back; with synthetic data, each side has its own files.
    Raises: ValueError for a setting out of range; FileNotFoundError of one line if the data set is missing.
    """
    check(config, beyond)
    if config.data == "synthetic":
        train_set = SyntheticBrackets(config.patch, config.seed, config.samples, config.hdr_dir, config.rendered_dir, "train",
                                      SyntheticConfig(**({} if beyond.align else AS_TAKEN)))
        val_set = validation_set(config.val_size, config.val_scenes or 16, config.hdr_dir, config.rendered_dir)
    elif config.data == "bank":
        train_set = Patches(open_bank(config.root or "data/bank"), config.patch, config.stride, config.seed)
        val_set = ruler(config.val_size, config.val_scenes or RULER, config.hdr_dir, config.rendered_dir)
    else:
        root = Path(config.root or Path("data") / config.data)
        scenes, count = find_scenes(config.data, root, "train"), config.val_scenes
        if config.val_on == "train":
            if len(scenes) <= count:
                raise ValueError(f"--val-scenes {count}: only {len(scenes)} training scenes were found in {root}; hold back fewer, or use --val-on test")
            held_back = {scenes[k * len(scenes) // count] for k in range(count)}
            scenes, held_back = [scene for scene in scenes if scene not in held_back], [scene for scene in scenes if scene in held_back]
        else:
            held_back = find_scenes(config.data, root, "test")[:count or None]
        cached = cache_scenes(scenes, root / "cache", config.data, beyond.prepare, config.workers)
        train_set = Patches(cached, config.patch, config.stride, config.seed)
        val_set = [load_scene(scene, config.data) for scene in held_back]
    return train_set, [prepared_sample(val_set[i], beyond.prepare) for i in range(len(val_set))]


def batches(train_set, config, start, stop, rank=0, world=1):
    """Makes the batches of steps start .. stop - 1 for one process. Returns: DataLoader of dicts with batch / world samples each.

    Raises: ValueError if the batch does not split evenly.
    """
    if config.batch % world:
        raise ValueError(f"--batch {config.batch}: does not split over {world} processes; choose a multiple")
    share = config.batch // world
    first = [step * config.batch + rank * share for step in range(start, stop)]
    return DataLoader(train_set, batch_sampler=[range(i, i + share) for i in first], num_workers=config.workers,
                      worker_init_fn=ignore_signals, pin_memory=torch.cuda.is_available())


def to_device(sample, device):
    """Moves a collated sample to the device. Returns: ldr (B, 3, 3, H, W), ev (B, 3), hdr (B, 3, H, W)."""
    return [sample[name].to(device, non_blocking=True) for name in ("ldr", "ev", "hdr")]


# --- around the loop --------------------------------------------------------------------------------------------------

def distributed(network, settings, device, find_unused_parameters=False):
    """Returns the network as the loop calls it: compiled if --compile is given, and with averaged gradients if there are several processes."""
    model = torch.compile(network) if settings.compile else network
    if dist.is_initialized():
        model = DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None,
                                        find_unused_parameters=find_unused_parameters)
    return model


@torch.no_grad()
def validate(val_set, predictors, device, picture=None):
    """Measures the mean PSNR of one or more predictors over a validation set.

    predictors: {name: function (ldr, ev, hdr) -> Ĥ (1, 3, H, W)}, for a batch of one on the device.
    picture: path for a PNG of the first scene (LDRs, output of the first predictor, truth, error), or None.
    Returns: {name: (PSNR-mu, PSNR-L)} in dB.
    """
    scores = {name: [] for name in predictors}
    for i, sample in enumerate(val_set):
        ldr, ev, hdr = (part[None] for part in to_device(sample, device))
        for name, predict in predictors.items():
            hdr_hat = predict(ldr, ev, hdr)
            scores[name].append((psnr(T(hdr_hat), T(hdr)), psnr(hdr_hat, hdr)))
            if i == 0 and picture and name == next(iter(predictors)):
                save_progress_picture(picture, ldr[0], hdr_hat[0], hdr[0])
    return {name: tuple(sum(column) / len(column) for column in zip(*rows)) for name, rows in scores.items()}


class Run:
    """Everything around the loop of a train script: resuming, the running mean of the weights, log, validation, checkpoints.

    config: the script's; out: the run's folder; network: the one to train; parts: {name: object with state_dict()} that checkpoints also hold,
    "optimiser" among them; steps: in the whole run; columns: of the log; rank; ev_steps: of the training set; further: values for the checkpoint.
    All randomness is a function of (seed, step), see the header, so a checkpoint needs no more than this.
    """

    def __init__(self, config, out, network, parts, steps, columns, rank, ev_steps, further=None):
        self.made_of = architecture(network, config.beyond.prepare, ev_steps)
        self.config, self.settings, self.out, self.network, self.last, self.rank = config, config.training, out, network, steps, rank
        self.average = copy.deepcopy(network).requires_grad_(False) if config.beyond.ema else network      # validated and saved
        self.parts, self.step, self.best, self.further = {"model": self.average, "trained": network, **parts}, 0, -math.inf, further or {}
        self.job, self.stop = job(), catch_signals()
        if self.settings.resume:
            self.resume(out / "last.pt")
        self.log = Log(out / "log.csv", columns, self.step, write=rank == 0)
        if self.step >= steps and rank == 0:
            print(f"{out}: has already taken all {steps} steps; to continue, give more --epochs")
        self.bar = tqdm(initial=self.step, total=steps, unit="step", disable=rank > 0 or None, smoothing=0.05)

    def resume(self, path):
        """Loads a checkpoint.

        Raises: FileNotFoundError; ValueError if the command line asks for another architecture, loss, data or schedule than the
            checkpoint's. MAY_CHANGE names the settings that may differ.
        """
        saved = load_checkpoint(path)
        then, now = check_run(saved, self.parts, self.further, path), flags_of(asdict(self.config))
        if any(saved.get(name, False) != self.made_of[name] for name in ("variant", "config", "correct")):
            raise ValueError(f"{path}: was trained with another architecture; resume with the flags it was started with, or choose another --out")
        changed = [f"--{name.replace('_', '-')}" for name, value in now.items() if name not in MAY_CHANGE and then.get(name, value) != value]
        if changed:
            raise ValueError(f"{path}: was trained with another {', '.join(changed)}; resume with the flags it was started with")
        fill_parts(self.parts, saved, path)
        self.step, self.best, self.further = saved["step"], saved["best"], {name: saved.get(name, value) for name, value in self.further.items()}

    def save(self, name):
        """Writes a checkpoint into the run's folder."""
        states = {part: of.state_dict() for part, of in self.parts.items()}
        save_checkpoint(self.out / name, {**self.made_of, "training": asdict(self.config), "step": self.step, "best": self.best, "job": self.job,
                                          **self.further, **states})

    def finish_step(self, step, terms, val_set, predictors, on_best=lambda: None):
        """Does what follows an optimiser step: running mean, log, validation, checkpoints. All processes call it.

        terms: detached scalars for the log; predictors: as in validate(), the first chooses best.pt; on_best: called after each new best.pt.
        """
        settings, self.step = self.settings, step
        if self.average is not self.network:
            follow(self.average, self.network, self.config.beyond.ema, step)
        self.bar.update()
        self.log.collect(terms)
        stopped = self.stop.agreed()
        validating = step % settings.val_every == 0 or step == self.last
        saving = validating or stopped or step % settings.save_every == 0
        if step % settings.log_every and not saving:
            return
        row, scores = {**self.log.row(step, settings.batch), "lr": self.parts["optimiser"].param_groups[0]["lr"]}, {}
        if validating and self.rank == 0:
            scores = validate(val_set, predictors, next(self.network.parameters()).device, self.out / f"step_{step:06d}.png")
            row.update({f"val_psnr_{domain}_{prior}".rstrip("_"): value for prior, pair in scores.items() for domain, value in zip(("mu", "l"), pair)})
        self.log.add(row, self.bar)                 # before the checkpoint: a resumed log continues after the checkpoint's step
        if scores:
            score = next(iter(scores.values()))[0]
            if score > self.best:
                self.best = score
                self.save("best.pt")
                on_best()
        if saving and self.rank == 0:
            self.save("last.pt")
        self.log.restart_clock()
        if step == self.last:
            self.stop.release()
        elif stopped:
            self.stop.end(stopped, f"stopped at step {step}, saved in {self.out / 'last.pt'}; continue with --resume" if self.rank == 0 else "")
