"""Experiments with the trained model: one part of it is changed or replaced, and PSNR says what it was worth.

    python -m exercises.measure steps       DDIM with 1 to 200 steps, and Eq. 14
    python -m exercises.measure prior       the prior of Fig. 2 (c) replaced by others
    python -m exercises.measure mu          PSNR-μ of one result for four values of μ
    python -m exercises.measure upsample    nearest in place of bilinear in Eq. 7 and 8
    python -m exercises.measure leak        a β schedule that leaves the truth in z_T
    python -m exercises.measure stops       brackets with steps of 1 to 6 stops
    python -m exercises.measure tiles       the image in tiles of 256 to 512 pixels
    python -m exercises.measure spread      where eight samples of the prior differ
    python -m exercises.measure all         everything that predict.md says, in this order

Each takes a few minutes on a laptop, and all together less than an hour. exercises/predict.md asks the questions and has the answers.
"""

import math
from dataclasses import dataclass

from common import Count, parse, run
import torch
from tyro.conf import Positional

from beyond.checkpoints import fill, load_checkpoint
from beyond.pictures import regions, sample_images
from beyond.tiles import reconstruct_in_tiles
from beyond.weights import SHIPPED, load_weights, part_of
from brackets.merge import weighted_merge
from brackets.prepare import prepare
from brackets.scenes import load_scene
from data import T, network_input, psnr
from ddim import DiffusionConfig, Schedule, ddim, diffuse
from dhrnet import FRM
from exercises.catalog import ROOT
from lfdiff import pad_to_multiple, reconstruct
from lpenet import LPENet
from synthetic.dataset import AS_TAKEN, SyntheticBrackets, SyntheticConfig


@dataclass
class MeasureConfig:
    """What to measure, and on what."""
    what: Positional[str]                                   # steps, prior, mu, upsample, leak, stops, tiles, spread or all
    scene: str = str(ROOT / "examples" / "cafe")            # folder of a bracket with its truth HDRImg.hdr
    weights: str = SHIPPED                                  # trained weights of stage 2
    scenes: Count = 8                                       # synthetic brackets for each row of "stops"


def setting(config):
    """Returns the model, and the scene's prepared frames (1, 3, 3, H, W), exposures (1, 3) and truth (1, 3, H, W)."""
    model, sample = load_weights(config.weights), load_scene(config.scene)
    if "hdr" not in sample:
        raise ValueError(f"--scene {config.scene}: has no truth for PSNR; put HDRImg.hdr into it")
    prepared = prepare(sample["ldr"], sample["ev"], model.prepare)
    return model, prepared.ldr[None], prepared.ev[None], sample["hdr"][None]


def seeded():
    """Returns the generator of z_T, which gives the same noise for every row."""
    return torch.Generator().manual_seed(0)


def row(title, hdr_hat, hdr):
    """Prints both PSNRs of an image (1, 3, H, W) after its title."""
    print(f"{title:<46} {psnr(T(hdr_hat), T(hdr)):>8.2f} {psnr(hdr_hat, hdr):>8.2f}", flush=True)


def heading(first):
    """Prints the heading of such rows."""
    print(f"{first:<46} {'PSNR-μ':>8} {'PSNR-L':>8}   (dB)")


def true_prior(config, model, hdr):
    """Computes LPENet's prior of a truth (1, 3, H, W), standardised. Returns: z (1, N, H'/4, W'/4), H' and W' multiples of 16. Source: Eq. 6."""
    lpenet = fill(LPENet(model.config.lpenet), part_of(load_checkpoint(config.weights), "lpenet", config.weights), config.weights)
    return model.standardise(lpenet(pad_to_multiple(hdr)))


def measure_steps(config):
    """Prints the result of DDIM with several numbers of steps S, and of all T steps of Eq. 14."""
    model, ldr, ev, hdr = setting(config)
    heading("sampler")
    for S in (1, 2, 5, 10, 20, 50, 200):
        row(f"DDIM, S = {S}", reconstruct(model, ldr, ev, S, generator=seeded()), hdr)
    row(f"Eq. 14, T = {model.config.diffusion.T}", reconstruct(model, ldr, ev, sampler="ancestral", generator=seeded()), hdr)


def measure_prior(config):
    """Prints how well the network rebuilds one bracket with six different priors."""
    model, ldr, ev, hdr = setting(config)
    H, W = hdr.shape[-2:]
    z = true_prior(config, model, hdr)
    other = SyntheticBrackets((H, W), seed=5, config=SyntheticConfig(**AS_TAKEN))[0]["hdr"][None]
    X = network_input(pad_to_multiple(ldr), ev)
    D = model.condition(X).float()
    priors = {"the diffusion's, as trained": model.sample(torch.randn(D.shape, generator=seeded()), D),
              "the truth's": z, "zeros": torch.zeros_like(z), "another scene's": true_prior(config, model, other),
              "the truth's, mirrored": z.flip(-1), "noise N(0, I)": torch.randn(z.shape, generator=seeded())}
    heading("prior")
    for title, prior in priors.items():
        row(f"{title} (L1 to z {(prior - z).abs().mean():.2f})", model.rebuild(X, prior)[..., :H, :W], hdr)


def measure_mu(config):
    """Prints PSNR-μ of two images for four values of μ."""
    model, ldr, ev, hdr = setting(config)
    images = {"LF-Diff": reconstruct(model, ldr, ev, generator=seeded()), "weighted merge": weighted_merge(ldr, ev)}
    print(f"{'PSNR-μ (dB)':<16}" + "".join(f"{f'μ = {mu}':>12}" for mu in (50, 500, 5000, 50000)))
    for title, image in images.items():
        compressed = ((torch.log1p(mu * x) / math.log1p(mu) for x in (image, hdr)) for mu in (50, 500, 5000, 50000))
        print(f"{title:<16}" + "".join(f"{psnr(*pair):>12.2f}" for pair in compressed))


def measure_upsample(config):
    """Prints the result with bilinear and with nearest Upsample. Source: Eq. 7."""
    model, ldr, ev, hdr = setting(config)
    heading("Upsample of Eq. 7 and 8")
    for mode in ("bilinear", "nearest"):
        for module in model.modules():
            if isinstance(module, FRM):
                module.mode = mode
        row(mode, reconstruct(model, ldr, ev, generator=seeded()), hdr)


def measure_leak(config):
    """Prints the result of starting at t = T, where z_T is noise, and at the t whose ᾱ_t a schedule with β up to 0.02 would have at its end."""
    model, ldr, ev, hdr = setting(config)
    H, W = hdr.shape[-2:]
    z, X = true_prior(config, model, hdr), network_input(pad_to_multiple(ldr), ev)
    D, noise = model.condition(X).float(), torch.randn(z.shape, generator=seeded())
    leaky = float(Schedule(DiffusionConfig(beta_1=1e-4, beta_T=0.02)).abar[-1])
    trained, whole = model.config.diffusion, model.schedule
    early = int((whole.abar - leaky).abs().argmin())
    heading("z_T at inference")
    for start in (whole.T, early):
        # The schedule as far as t = start: the same β_t, so the network knows every noise level that it meets.
        schedule = Schedule(DiffusionConfig(start, trained.S, trained.beta_1, float(whole.beta[start])))
        for title, z_T in (("from the truth", diffuse(z, start, noise, schedule)), ("N(0, I)", noise)):
            z_hat = ddim(lambda z_t, t: model.eps_theta(z_t, D, t), z_T, schedule, trained.S)
            row(f"{title}, ᾱ_T = {float(schedule.abar[-1]):.5f}, L1 {(z_hat - z).abs().mean():.2f}", model.rebuild(X, z_hat)[..., :H, :W], hdr)


def measure_stops(config):
    """Prints the results of the bare network, of infer.py and of a merge for brackets with steps of 1 to 6 EV."""
    model = load_weights(config.weights)
    ways = {"LF-Diff": lambda ldr, ev: reconstruct(model, ldr, ev, generator=seeded()),
            "LF-Diff, shown a step it knows (D11)": lambda ldr, ev: reconstruct_in_tiles(model, ldr, ev, 0, generator=seeded()),
            "merge of the same frames": weighted_merge}
    heading(f"mean of {config.scenes} brackets, 256x256")
    for stops in range(1, 7):
        drawn = SyntheticBrackets((256, 256), seed=7, config=SyntheticConfig(ev_steps=(float(stops),), ev_error=0.0, **AS_TAKEN))
        total = dict.fromkeys(ways, (0, 0))
        for i in range(config.scenes):
            sample = drawn[i]
            prepared, hdr = prepare(sample["ldr"], sample["ev"], model.prepare), sample["hdr"][None]
            ldr, ev = prepared.ldr[None], prepared.ev[None]
            for title, (mu, linear) in total.items():
                image = ways[title](ldr, ev)
                total[title] = mu + psnr(T(image), T(hdr)) / config.scenes, linear + psnr(image, hdr) / config.scenes
        for title, (mu, linear) in total.items():
            print(f"{f'{stops} EV, {title}':<46} {mu:>8.2f} {linear:>8.2f}", flush=True)


def measure_tiles(config):
    """Prints the result with DHRNet in tiles, all of which have the same prior."""
    model, ldr, ev, hdr = setting(config)
    heading("side of a tile")
    for tile in (256, 384, 512, 0):
        row(f"{tile} pixels" if tile else "the whole image", reconstruct_in_tiles(model, ldr, ev, tile, generator=seeded()), hdr)


def measure_spread(config):
    """Prints how far eight samples differ, for pixels grouped by what the frames show there."""
    model, ldr, ev, hdr = setting(config)
    mean, spread = sample_images(model, ldr, ev, range(8))
    for name, region in regions(ldr, ev).items():
        print(f"{name:<46} {float(region.float().mean()):>8.1%} {float(spread[region].mean()) if region.any() else 0:>9.5f}")
    heading("image")
    row("mean of 8 samples", mean, hdr)
    row("one sample", reconstruct(model, ldr, ev, generator=seeded()), hdr)


MEASURES = {"steps": measure_steps, "prior": measure_prior, "mu": measure_mu, "upsample": measure_upsample, "leak": measure_leak, "stops": measure_stops,
            "tiles": measure_tiles, "spread": measure_spread}


@torch.no_grad()
def main():
    """Runs one of MEASURES, or all."""
    config = parse(MeasureConfig, description=__doc__)
    if config.what not in (*MEASURES, "all"):
        raise ValueError(f"{config.what}: not measured here; use {', '.join(MEASURES)} or all")
    for what in MEASURES if config.what == "all" else (config.what,):
        MEASURES[what](config)


if __name__ == "__main__":
    run(main)
