"""Stage 1: LPENet and DHRNet are trained together; the prior z comes from the ground truth.

Paper: Sec. 4.1, Fig. 2 (a), Eq. 11; settings of Sec. 5.1.

    python train_stage1.py --data kalantari                         the paper's run
    torchrun --nproc-per-node 4 train_stage1.py --data kalantari    the same on four GPUs
    python train_stage1.py --data kalantari --baseline              Table 3's baseline: no prior, FRMs for PIMs
    python train_stage1.py --help                                   every setting, with its source

Logged: L_r (Eq. 11) and its terms L1_mu, L_phi, L1_lin, dB and soft (before their weights), the gradient's norm before clipping, patches per second;
at validations PSNR-mu and PSNR-L. All under the run's folder: log.csv, log.png, step_N.png, last.pt, best.pt.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from common import autocast, config_from, count_parameters, describe, load_checkpoint, parse, pick_precision, run, seed_all, start_processes
from data import network_input
from lfdiff import LFDiffConfig, Stage1, pad_to_multiple, part_of
from loss import LossConfig, load_vgg19, reconstruction_loss, well_exposed
from beyond.fast import keep_memory
from training import Log, TrainingConfig, averaged, batches, follow, open_data, refuse_to_overwrite, resume_run, save_run, to_device, validate


@dataclass
class Stage1Config:
    """Stage 1."""
    out: str = ""                   # folder of the run; empty: runs/stage1, or runs/baseline
    init: str = ""                  # weights.pt or a checkpoint to start from; the flags of the architecture are then the file's; empty: random
    baseline: bool = False          # train Table 3's baseline instead
    training: TrainingConfig = field(default_factory=TrainingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    model: LFDiffConfig = field(default_factory=LFDiffConfig)


def first_network(config):
    """The network to train: random, or --init's. Returns: Stage1.

    Raises: FileNotFoundError, ValueError for a checkpoint without the networks of this stage.
    """
    if not config.init:
        return Stage1(config.model, config.baseline)
    saved = load_checkpoint(config.init)
    network = Stage1(config_from(LFDiffConfig, saved["config"]), config.baseline)
    if (saved["variant"] == "baseline") != config.baseline:
        raise ValueError(f"{config.init}: holds variant {saved['variant']}; a baseline goes on from a baseline, and only that")
    for name, part in network.named_children():
        part.load_state_dict(part_of(saved, name, config.init))
    return network


def validation_predictor(network, device, dtype):
    """H^ with the prior of the ground truth, padded and cropped. Returns: function (ldr, ev, hdr) -> H^."""
    def predict(ldr, ev, hdr):
        H, W = hdr.shape[-2:]
        with torch.no_grad(), autocast(device, dtype):
            return network(pad_to_multiple(network_input(ldr, ev)), pad_to_multiple(hdr))[..., :H, :W]
    return predict


def main():
    """Config, seed, device, data, model, optimiser, resume, loop, save."""
    config = parse(Stage1Config, description=__doc__)
    settings, loss, out = config.training, config.loss, Path(config.out or ("runs/baseline" if config.baseline else "runs/stage1"))
    rank, world, device = start_processes(settings.device)
    dtype = pick_precision(settings.precision, device)
    seed_all(settings.seed)
    keep_memory()
    if not settings.resume:
        refuse_to_overwrite(out)
    train_set, val_set = open_data(settings)
    epoch = max(len(train_set) // settings.batch, 1)        # steps
    steps = settings.epochs * epoch

    network = first_network(config).to(device, memory_format=torch.channels_last)
    config.model = network.config
    vgg = load_vgg19(loss, device)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, settings.decay_epochs * epoch, settings.decay)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    average = averaged(network, settings.ema)
    parts = {"model": average, "trained": network, "optimiser": optimiser, "schedule": schedule, "scaler": scaler}
    start, best = resume_run(out / "last.pt", parts, network, config) if settings.resume else (0, float("-inf"))
    model = torch.compile(network) if settings.compile else network
    if world > 1:
        model = DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
    if rank == 0:
        print(f"{describe(config)}\n{network.variant}: {count_parameters(network):,} parameters, {steps} steps of {settings.batch} patches, "
              f"{world} x {device}, {dtype}", flush=True)

    log = Log(out, ["L_r", "L1_mu", "L_phi", "L1_lin", "dB", "soft", "grad_norm", "lr", "patches_per_s", "val_psnr_mu", "val_psnr_l"], start, write=rank == 0)
    bar = tqdm(initial=start * settings.batch, total=steps * settings.batch,
               unit="patch", disable=rank > 0 or None, smoothing=0.05)
    for step, batch in enumerate(batches(train_set, settings, start, steps, rank, world), start + 1):
        ldr, ev, hdr = to_device(batch, device)
        with autocast(device, dtype):
            hdr_hat = model(network_input(ldr, ev), hdr)                                # Eq. 6 to 10
        L_r, terms = reconstruction_loss(hdr_hat, hdr, vgg, loss.lam, linear=loss.linear, decibel=loss.decibel, sharp=loss.sharp,
                                         seen=well_exposed(ldr))                        # Eq. 11, see loss.py
        optimiser.zero_grad()
        scaler.scale(L_r).backward()
        scaler.unscale_(optimiser)
        grad_norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        scaler.step(optimiser)
        scaler.update()
        schedule.step()
        follow(average, network, settings.ema, step)

        bar.update(settings.batch)
        log.collect({"L_r": L_r.detach(), **terms, "grad_norm": grad_norm})
        validating = step % settings.val_every == 0 or step == steps
        if step % settings.log_every and not validating:
            continue
        row = {**log.row(step, settings.batch), "lr": schedule.get_last_lr()[0]}
        if validating and rank == 0:
            predict = validation_predictor(average, device, dtype)
            row["val_psnr_mu"], row["val_psnr_l"] = validate(val_set, {"H": predict}, device, out / f"step_{step:06d}.png", settings.align)["H"]
            log.check_finite(step, "val_psnr_mu", row["val_psnr_mu"])
        log.add(row, bar)                       # before the checkpoint: a resumed log starts behind the checkpoint's step
        if validating and rank == 0:
            if row["val_psnr_mu"] > best:
                best = row["val_psnr_mu"]
                save_run(out / "best.pt", parts, network, config, step, best)
            save_run(out / "last.pt", parts, network, config, step, best)
        log.restart_clock()


if __name__ == "__main__":
    run(main)
