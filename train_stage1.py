"""Stage 1: LPENet and DHRNet are trained together; the prior z comes from the ground truth.

Paper: Sec. 4.1, Fig. 2 (a), Eq. 11; settings of Sec. 5.1. The defaults are the paper's; all departures from it are in one group of flags.

    python train_stage1.py --data kalantari                         the paper's run
    torchrun --nproc-per-node 4 train_stage1.py --data kalantari    the same on four GPUs
    python train_stage1.py --data kalantari --baseline              Table 3's baseline: no prior, FRMs in place of PIMs
    python train_stage1.py --help                                   every setting, with its source

The log has L_r (Eq. 11) and its terms without their weights, the gradient norm before clipping, and patches per second; validations add PSNR-mu
and PSNR-L. Everything is in the run's folder: log.csv, log.png, step_N.png, last.pt, best.pt.
"""

from dataclasses import dataclass, field
from pathlib import Path

from common import autocast, count_parameters, parse, run
import torch

from beyond.checkpoints import load_checkpoint
from beyond.fast import speed_up
from beyond.config import BeyondConfig, describe
from beyond.optimise import learning_rate
from beyond.losses import further_terms, loss_columns
from beyond.processes import start
from beyond.weights import load_vgg19, model_from, with_correction
from data import network_input
from dhrnet import DHRNetConfig
from lfdiff import LFDiffConfig, Stage1, pad_to_multiple
from loss import LossConfig, reconstruction_loss
from lpenet import LPENetConfig
from training import Run, TrainingConfig, batches, distributed, open_data, to_device


@dataclass
class Stage1Config:
    """Stage 1."""
    out: str = ""                   # folder of the run; empty: runs/stage1, or runs/baseline
    init: str = ""                  # weights.pt or a checkpoint to start from, which then sets the architecture; empty: random weights
    baseline: bool = False          # train Table 3's baseline instead
    training: TrainingConfig = field(default_factory=TrainingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    dhrnet: DHRNetConfig = field(default_factory=DHRNetConfig)
    lpenet: LPENetConfig = field(default_factory=LPENetConfig)
    beyond: BeyondConfig = field(default_factory=BeyondConfig)


def first_network(config):
    """Makes the network to train, with random weights or those of --init. Returns: Stage1.

    Raises: FileNotFoundError, ValueError for a checkpoint without the networks of this stage.
    """
    if not config.init:
        network = Stage1(LFDiffConfig(config.dhrnet, config.lpenet), config.baseline)
    else:
        saved = load_checkpoint(config.init)
        if (saved["variant"] == "baseline") != config.baseline:
            raise ValueError(f"{config.init}: holds variant {saved['variant']}; --baseline needs a baseline, and only --baseline can use one")
        network = model_from(saved, config.init, "baseline" if config.baseline else "s1")
    return with_correction(network, config.beyond.correct)


def validation_predictor(network, device, dtype):
    """Returns a function (ldr, ev, hdr) -> H^ that uses the prior of the ground truth, and pads and crops."""
    def predict(ldr, ev, hdr):
        H, W = hdr.shape[-2:]
        with autocast(device, dtype):
            return network.eval()(pad_to_multiple(network_input(ldr, ev)), pad_to_multiple(hdr))[..., :H, :W]
    return predict


def main():
    """Runs stage 1: config, seed, device, data, model, optimiser, resume, loop, save."""
    config = parse(Stage1Config, description=__doc__)
    settings, loss, beyond = config.training, config.loss, config.beyond
    out = Path(config.out or ("runs/baseline" if config.baseline else "runs/stage1"))
    rank, world, device, dtype = start(settings, out)
    train_set, val_set = open_data(settings, beyond)
    epoch = max(len(train_set) // settings.batch, 1)        # steps
    steps = settings.epochs * epoch

    network = speed_up(first_network(config)).to(device, memory_format=torch.channels_last)
    config.dhrnet, config.lpenet = network.config.dhrnet, network.config.lpenet
    vgg = load_vgg19(loss, device)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.lr)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    columns = [*loss_columns(loss, beyond), "grad_norm", "lr", "patches_per_s", "val_psnr_mu", "val_psnr_l"]
    training = Run(config, out, network, {"optimiser": optimiser, "scaler": scaler}, steps, columns, rank, train_set.steps)
    schedule = learning_rate(optimiser, settings, beyond, epoch, training.step)
    predictors = {"": validation_predictor(training.average, device, dtype)}
    model = distributed(network, settings, device)
    if rank == 0:
        print(f"{describe(config)}\n{network.variant}: {count_parameters(network):,} parameters, {steps} steps of {settings.batch} patches, "
              f"{world} x {device}, {dtype}", flush=True)

    for step, batch in enumerate(batches(train_set, settings, training.step, steps, rank, world), training.step + 1):
        model.train()
        ldr, ev, hdr = to_device(batch, device)
        with autocast(device, dtype):
            hdr_hat = model(network_input(ldr, ev), hdr)                                # Eq. 6 to 10
        L_r, terms = reconstruction_loss(hdr_hat, hdr, vgg, loss.lam)                   # Eq. 11
        L_further, further = further_terms(beyond, hdr_hat, hdr)                        # 0 in the paper's run [departs D5]
        L = L_r + L_further
        optimiser.zero_grad()
        scaler.scale(L).backward()
        scaler.unscale_(optimiser)
        grad_norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        scaler.step(optimiser)
        scaler.update()
        schedule.step()
        training.finish_step(step, {"L_r": L_r.detach(), **terms, **further, "grad_norm": grad_norm}, val_set, predictors)


if __name__ == "__main__":
    run(main)
