"""Turns three photographs into one HDR image: the inference of Fig. 2 (c), see lfdiff.reconstruct.

Paper: Sec. 4.3.

    python infer.py --scene examples/cafe                 writes results/cafe.jpg and more, see beyond/outputs.py
    python infer.py --scene DIR --seed 1 --steps 20       another sample of the prior, with more DDIM steps
    python infer.py --scene DIR --samples 8               the mean of 8 samples, and where they differ: NAME_spread.png
    python infer.py --scene DIR --dry-run                 which brackets were found, which frames are used, where results go

DIR holds two or more photographs of one scene, with their exposures in exposure.txt or in EXIF; see brackets/scenes.py. It may also hold several
brackets (brackets/grouping.py). If there are more than three frames, the network sees three (brackets/choose.py), and the others are added to its
result (brackets/wider.py). The frames are prepared like the training frames (brackets/prepare.py). If the ground truth HDRImg.hdr is beside them,
PSNR is printed, too.
"""

import time
from dataclasses import dataclass, field

from common import Count, Seed, Whole, autocast, parse, pick_device, pick_precision, run
import torch

from beyond import steps
from beyond.outputs import OutputConfig, Result, check_outputs, endings, write_results
from beyond.pictures import sample_images, shrunk_bracket
from beyond.plan import InputConfig, make_plan, work_off
from beyond.still import with_merge
from beyond.tiles import check_sampler, check_steps, keep_memory_for, tile_for
from beyond.weights import SHIPPED, load_weights
from brackets.choose import load_three, stand_in
from brackets.prepare import AlignmentConfig, prepare, registered_frames
from brackets.wider import widen


@dataclass
class NetworkConfig:
    """The network, its weights and the device."""
    weights: str = SHIPPED      # trained weights
    steps: Whole = 0            # DDIM steps S; 0: as trained [paper: 10]
    sampler: str = "ddim"       # ddim, or ancestral: all T steps of Eq. 14
    seed: Seed = 0              # of the initial noise z_T; the same seed gives the same image
    samples: Count = 1          # priors to draw, with seeds from --seed on; the result is the mean of their images, and a picture shows the spread
    device: str = "auto"        # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"     # auto (bfloat16 where the hardware has it; else float16 on CUDA, float32 elsewhere), float32, bfloat16, float16
    compile: bool = False       # torch.compile the networks: takes minutes once, pays off on a GPU for many images of one size
    tile: int = 0               # side of the tiles of a large image, pixels; 0: no tiles up to 3 megapixels, else 1280; -1: never tiles


@dataclass
class InferConfig:
    """Inference on brackets."""
    input: InputConfig = field(default_factory=InputConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    output: OutputConfig = field(default_factory=OutputConfig)


def reconstruct_scene(job, model, config, device, dtype):
    """Runs Fig. 2 (c) and all that photographs need before and after it. job: plan.Job; model: from load_weights; config: InferConfig. Returns: Result."""
    sample, network, start = load_three(job.bracket, job.choice), config.network, time.perf_counter()
    how, (H, W), hdr = model.prepare.overridden(**vars(config.alignment)), sample["ldr"].shape[-2:], sample.get("hdr")
    prepared = prepare(sample["ldr"], sample["ev"], how, job.bracket.folder)
    taken, homographies = sample.pop("ldr"), prepared.homographies
    if hdr is None:
        taken, homographies = shrunk_bracket(taken, homographies)               # a large bracket takes a gigabyte, which is freed
    registered = stand_in(registered_frames(taken, prepared.stated, homographies, prepared.light), prepared.ev, job.choice)[None]   # what other programs merge
    ldr, ev = stand_in(prepared.ldr, prepared.ev, job.choice)[None].to(device), prepared.ev[None].to(device)        # (1, 3, 3, H, W), (1, 3)
    tile = tile_for(network.tile, H, W)
    keep_memory_for(tile)
    with autocast(device, dtype):
        hdr_hat, spread = sample_images(model, ldr, ev, range(network.seed, network.seed + network.samples), tile, network.steps or None, network.sampler)
    if not torch.isfinite(hdr_hat).all():
        raise ValueError(f"{job.bracket.folder}: the result is not finite in {dtype}; try --precision float32")
    hdr_hat = with_merge(hdr_hat, ldr, ev, prepared.noise)                      # [departs D14]
    hdr_hat, spread = hdr_hat.cpu(), spread.cpu() if network.samples > 1 else None          # (1, 3, H, W), (1, 1, H, W)
    hdr_hat, longer_by = widen(hdr_hat, prepared, job.bracket, job.choice, how)
    said = f"{time.perf_counter() - start:.1f} s on {device} in {str(dtype).removeprefix('torch.')}" + steps.in_words(model.steps, prepared.ev)
    return Result(hdr_hat, prepared, registered, longer_by, job.bracket.paths[job.choice.three[1]], said, spread, hdr)


def main():
    """Finds the brackets and prints the plan; then reads, prepares and reconstructs them one after the other, and writes the results."""
    config = parse(InferConfig, description=__doc__)
    if not config.input.scene:
        raise ValueError("--scene: missing; give the folder of a bracket, such as --scene examples/cafe")
    check_sampler(config.network.sampler, config.network.steps)
    check_outputs(config.output)
    network, device = config.network, pick_device(config.network.device)
    dtype = pick_precision(network.precision, device)
    model = load_weights(network.weights, device)
    if model.variant == "s1" or (network.samples > 1 and model.variant != "s2"):
        raise ValueError(f"--weights {network.weights}: found the variant {model.variant}; use weights of train_stage2.py")
    check_steps(network.steps, network.sampler, model, network.weights)
    for part in model.children() if network.compile else ():
        part.compile()
    ends = endings(config.output, network.samples > 1)
    jobs, failed = make_plan(config.input, config.output.out, ends, model.steps)
    work_off([] if config.input.dry_run else jobs, failed, ends, lambda job: reconstruct_scene(job, model, config, device, dtype),
             lambda stem, result: write_results(stem, result, config.output))


if __name__ == "__main__":
    run(main)
