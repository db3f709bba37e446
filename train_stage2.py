"""Stage 2: the diffusion model learns the prior from the LDR frames, together with DHRNet.

Paper: Sec. 4.2, Fig. 2 (b), Eq. 11-15; settings of Sec. 5.1; Split and w/o DM of Table 3.

    python train_stage2.py --data kalantari                         the paper's run, after train_stage1.py
    torchrun --nproc-per-node 4 train_stage2.py --data kalantari    the same on four GPUs
    python train_stage2.py --data kalantari --split                 Table 3, Split training: DHRNet stays as stage 1 left it
    python train_stage2.py --data kalantari --without-dm            Table 3, w/o DM: LPENet_DM predicts the prior itself

LPENet of stage 1 is frozen and gives the target z. The defaults are the paper's, except for two things that it does not state but training needs: the
U-Net predicts v [departs D3; --predict eps], and for the first `warmup` of the steps the diffusion model trains alone, on Eq. 15 [departs D4, A13;
--warmup 0]. Then it and DHRNet train together on Eq. 11 + Eq. 15. All other departures from the paper are in one group of flags and off.

The log has L_r and its terms (once joint), L_diff (Eq. 15) and its terms L_eps and L1_z. Validations add PSNR with three priors:
the predicted one (as in infer.py), the true one (LPENet of the truth: the bound) and the mean one (no information). The gap between
mean and predicted shows how much DHRNet relies on its prior. Only train_stage1.py --baseline shows what a prior is worth.
"""

from dataclasses import dataclass, field
from pathlib import Path

from common import Share, Whole, autocast, count_parameters, parse, run
import torch

from beyond.checkpoints import fill, load_checkpoint
from beyond.fast import speed_up
from beyond.config import BeyondConfig, describe
from beyond.optimise import learning_rate
from beyond.losses import further_terms, loss_columns
from beyond.processes import start
from beyond.weights import load_vgg19, model_from, part_of, save_weights, with_correction
from data import network_input
from ddim import DiffusionConfig
from denoiser import DenoiserConfig
from lfdiff import LFDiffConfig, Stage2, pad_to_multiple, reconstruct
from loss import LossConfig, diffusion_loss, reconstruction_loss
from lpenet import LPENet
from training import Run, TrainingConfig, batches, distributed, open_data, to_device

SCRIPTS = {"s1": "train_stage1.py", "s2": "train_stage2.py", "s2_without_dm": "train_stage2.py --without-dm"}


@dataclass
class Stage2Config:
    """Stage 2. DHRNet's and LPENet's shapes come from stage 1's checkpoint."""
    stage1: str = "runs/stage1/best.pt"     # checkpoint of train_stage1.py
    init: str = ""                          # weights.pt or a checkpoint of this script to continue from, in place of --stage1 and its architecture
    out: str = ""                           # folder of the run; empty: runs/stage2, runs/stage2_split or runs/stage2_without_dm
    split: bool = False                     # Table 3, Split training: DHRNet is frozen
    without_dm: bool = False                # Table 3, w/o DM: D is the prior
    warmup: Share = 0.3                     # share of the steps in which only Eq. 15 is trained [departs D4, assumed A13]
    prior_batches: Whole = 32               # batches over which mean and deviation of z are measured; 0: z is left as it is [assumed A11]
    training: TrainingConfig = field(default_factory=TrainingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    beyond: BeyondConfig = field(default_factory=BeyondConfig)


def first_networks(config, device):
    """Makes the networks to train: stage 1's and a new diffusion model, or all those of --init.

    Returns: Stage2 and the frozen LPENet, both on the device.
    Raises: FileNotFoundError, ValueError for a checkpoint of another variant.
    """
    path, expected = (config.init, "s2_without_dm" if config.without_dm else "s2") if config.init else (config.stage1, "s1")
    saved = load_checkpoint(path)
    if saved["variant"] != expected:
        raise ValueError(f"{path}: holds variant {saved.get('variant')}, not {expected}; train one with {SCRIPTS[expected]}")
    if config.split and config.beyond.correct and not saved.get("correct"):
        raise ValueError(f"{path}: DHRNet does not correct a merge, and --split leaves it as it is; leave out --correct, or train stage 1 with it")
    if config.init:
        network = model_from(saved, path)
    else:
        first = model_from(saved, path)
        network = Stage2(LFDiffConfig(first.config.dhrnet, first.config.lpenet, config.denoiser, config.diffusion), config.without_dm)
        network = with_correction(network, saved.get("correct"))
        fill(network.dhrnet, part_of(saved, "dhrnet", path), path)
    network = speed_up(with_correction(network, config.beyond.correct))
    lpenet = fill(LPENet(network.config.lpenet), part_of(saved, "lpenet", path), path)
    lpenet.requires_grad_(False)
    network.dhrnet.requires_grad_(not config.split)
    return network.to(device, memory_format=torch.channels_last), lpenet.to(device, memory_format=torch.channels_last)


@torch.no_grad()
def measure_prior(lpenet, train_set, config, count, device):
    """Measures mean and standard deviation of each channel of z over the first `count` training batches, the same on every rank.

    config: TrainingConfig; count: batches. Returns: two (1, N, 1, 1) float32 tensors. [assumed A11]
    """
    sums, squares, n = 0.0, 0.0, 0
    for batch in batches(train_set, config, 0, count):
        z = lpenet(to_device(batch, device)[2]).cpu().double()      # (B, N, H/4, W/4); MPS has no float64
        sums, squares = sums + z.sum((0, 2, 3), keepdim=True), squares + z.square().sum((0, 2, 3), keepdim=True)
        n += z.numel() // z.shape[1]
    mean = sums / n
    std = (squares / n - mean ** 2).clamp(min=0).sqrt()
    std[std < 1e-6] = 1                                             # a channel that stage 1 left constant
    return mean.float().to(device), std.float().to(device)


def draw_noise(z, T, seed, step, rank, world):
    """Draws t, eps and eps_T of one step from (seed, step). All ranks draw for the whole batch, and each takes its slice.

    z: (B, N, h, w) of this rank. Returns: t (B,) int64 in 1 .. T, eps and eps_T (B, N, h, w).
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    B, mine = len(z), slice(rank * len(z), (rank + 1) * len(z))
    t = torch.randint(1, T + 1, (B * world,), generator=generator)[mine]
    eps, eps_T = (torch.randn(B * world, *z.shape[1:], generator=generator)[mine] for _ in range(2))
    return t.to(z.device), eps.to(z), eps_T.to(z)


def validation_predictors(network, lpenet, device, dtype):
    """Makes predictors of H^ with the predicted, the true and the mean prior, with the same noise in every validation.

    Returns: {name: function (ldr, ev, hdr) -> H^}.
    """
    def given(prior):
        def predict(ldr, ev, hdr):
            H, W = hdr.shape[-2:]
            with autocast(device, dtype):
                z = network.standardise(lpenet(pad_to_multiple(hdr)))
                return network.eval().rebuild(pad_to_multiple(network_input(ldr, ev)), prior(z))[..., :H, :W]
        return predict

    def predicted(ldr, ev, hdr):
        with autocast(device, dtype):
            return reconstruct(network.eval(), ldr, ev, generator=torch.Generator().manual_seed(0))
    return {"predicted": predicted, "true": given(lambda z: z), "mean": given(torch.zeros_like)}


def main():
    """Runs stage 2: config, seed, device, data, model, prior statistics, optimiser, resume, loop, save."""
    config = parse(Stage2Config, description=__doc__)
    settings, loss, beyond = config.training, config.loss, config.beyond
    out = Path(config.out or "runs/stage2" + ("_split" if config.split else "_without_dm" if config.without_dm else ""))
    rank, world, device, dtype = start(settings, out)
    train_set, val_set = open_data(settings, beyond)
    epoch = max(len(train_set) // settings.batch, 1)        # steps
    steps = settings.epochs * epoch

    network, lpenet = first_networks(config, device)
    config.denoiser, config.diffusion = network.config.denoiser, network.config.diffusion
    vgg = None if config.split else load_vgg19(loss, device)      # Split training never computes Eq. 11
    if not settings.resume and not config.init and config.prior_batches:
        network.z_mean, network.z_std = measure_prior(lpenet, train_set, settings, config.prior_batches, device)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=settings.lr)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    columns = [*loss_columns(loss, beyond), "L_diff", "L_eps", "L1_z", "grad_norm", "lr", "patches_per_s",
               *(f"val_psnr_{domain}_{prior}" for prior in ("predicted", "true", "mean") for domain in ("mu", "l"))]
    training = Run(config, out, network, {"lpenet": lpenet, "optimiser": optimiser, "scaler": scaler}, steps, columns, rank,
                   train_set.steps, {"warmup_steps": int(config.warmup * steps)})     # kept, so more --epochs later do not move the warm-up's end
    schedule = learning_rate(optimiser, settings, beyond, epoch, training.step)
    predictors = validation_predictors(training.average, lpenet, device, dtype)
    model = distributed(network, settings, device, find_unused_parameters=True)
    if rank == 0:
        print(f"{describe(config)}\n{network.variant}: {count_parameters(network):,} parameters, {steps} steps of {settings.batch} patches, "
              f"{world} x {device}, {dtype}\nz: mean {network.z_mean.flatten().tolist()}, deviation {network.z_std.flatten().tolist()}", flush=True)

    def keep_best():
        notes = {"step": training.step, "val_psnr_mu": training.best, "data": settings.data, "seed": settings.seed}
        save_weights(out / "weights.pt", training.average, beyond.prepare, notes, lpenet, train_set.steps)

    for step, batch in enumerate(batches(train_set, settings, training.step, steps, rank, world), training.step + 1):
        model.train()
        joint = step > training.further["warmup_steps"] and not config.split
        ldr, ev, hdr = to_device(batch, device)
        with autocast(device, dtype):
            with torch.no_grad():
                z = network.standardise(lpenet(hdr))                                    # Eq. 6, frozen
            t, eps, eps_T = draw_noise(z, network.schedule.T, settings.seed, step, rank, world)
            hdr_hat, z_hat, eps_hat = model(network_input(ldr, ev), z, t, eps, eps_T, joint)    # Eq. 12 to 14, 7 to 10
        L, terms = diffusion_loss(eps, eps_hat, z_hat, z)                               # Eq. 15
        terms = {"L_diff": L.detach(), **terms}
        if joint:
            L_r, terms_r = reconstruction_loss(hdr_hat, hdr, vgg, loss.lam)             # Eq. 11
            L_further, further = further_terms(beyond, hdr_hat, hdr)                    # 0 in the paper's run [departs D5]
            L, terms = L_r + L_further + L, {"L_r": L_r.detach(), **terms_r, **further, **terms}
        optimiser.zero_grad()
        scaler.scale(L).backward()
        scaler.unscale_(optimiser)
        grad_norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        scaler.step(optimiser)
        scaler.update()
        schedule.step()
        training.finish_step(step, {**terms, "grad_norm": grad_norm}, val_set, predictors, keep_best)


if __name__ == "__main__":
    run(main)
