"""Is the result as sharp as the reference frame where nothing had to be invented? Gradients of T(H) are compared with those of the truth.

    python examples/sharpness.py --scenes DIR        scene folders with a truth, as brackets.scenes.load_scene reads them

Only pixels on which all three frames agree count. There the reference is neither dark nor saturated, and each outer frame that is neither
shows the same radiance. With g for the gradient of T(H), two numbers are printed:

    gain     <g(H^), g(H)> / <g(H), g(H)>      1 is as sharp as the truth, less is blurred; noise does not count, because it is independent of H
    energy   |g(H^)|² / |g(H)|²                gain², plus what was added: noise, ringing

The same numbers are printed for the network without D14 (beyond/still.py), and for the reference frame alone. The reference's gain would be 1 if its
camera had no response curve of its own. Its energy shows its noise.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as nnf

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from beyond.still import with_merge
from beyond.weights import SHIPPED, load_weights
from brackets.prepare import prepare, registered_frames
from common import autocast, parse, pick_device, pick_precision, run
from data import T, to_radiance
from evaluate import EvaluateConfig
from evaluation.scoring import open_scenes
from lfdiff import reconstruct

AGREE = 0.03            # largest difference of T(H) between frames that agree
USABLE = 0.05, 0.95     # range of a gamma-coded value that is neither dark nor saturated


@dataclass
class SharpnessConfig:
    """Sharpness of well-exposed static regions."""
    scenes: str = ""                        # folder whose sub-folders are scenes
    weights: str = SHIPPED      # trained weights
    device: str = "auto"                    # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"                 # see infer.py


def gradients(image):
    """Computes the differences to the right and downwards. image: (B, 3, H, W). Returns: (B, 6, H - 1, W - 1)."""
    return torch.cat([image[..., :-1, 1:] - image[..., :-1, :-1], image[..., 1:, :-1] - image[..., :-1, :-1]], dim=1)


def agreed(ldr, ev):
    """Marks the pixels on which the frames agree, in regions of 3x3 pixels or more. ldr: (1, 3, 3, H, W), ev: (1, 3). Returns: (1, 1, H, W) bool."""
    hdr_mu, usable = T(to_radiance(ldr, ev)), (ldr > USABLE[0]) & (ldr < USABLE[1])
    difference = nnf.avg_pool2d(hdr_mu[0] - hdr_mu[:, 1], 5, 1, 2, count_include_pad=False).abs()       # (3, 3, H, W): frame, channel
    good = (((difference < AGREE) | ~usable[0]) & usable[:, 1]).all(dim=(0, 1))[None, None]               # (1, 1, H, W)
    return nnf.max_pool2d((~good).float(), 3, 1, 1) == 0


def products(hdr_hat, hdr, region):
    """Computes the sums over the region that make up gain and energy: <g^, g>, <g^, g^>, <g, g>. Images (1, 3, H, W), region (1, 1, H, W)."""
    g_hat, g, region = gradients(T(hdr_hat).double()), gradients(T(hdr).double()), region[..., :-1, :-1]
    return torch.stack([(part * region).sum() for part in (g_hat * g, g_hat ** 2, g ** 2)])


def prepared_batch(sample, config):
    """Prepares a sample with a truth as a batch of one. config: PrepareConfig of the network.

    Returns: the bracket registered and recoded, and the bracket as the network gets it, (1, 3, 3, H, W) each; ev (1, 3); hdr (1, 3, H, W); noise, as in
        prepare.Prepared.
    """
    prepared = prepare(sample["ldr"], sample["ev"], config)
    registered = registered_frames(sample["ldr"], prepared.stated, prepared.homographies, prepared.light)
    return registered[None], prepared.ldr[None], prepared.ev[None], sample["hdr"][None], prepared.noise


def prepared_scenes(root, config):
    """Yields prepared_batch() of each scene in a folder. Raises: ValueError for a scene without a truth."""
    if not root:
        raise ValueError("--scenes: missing; give a folder of scenes with a truth")
    for scene in open_scenes(EvaluateConfig(data="folder", root=root)):
        if not scene.truth:
            raise ValueError(f"{scene.name}: has no truth to compare with; give scenes that have HDRImg.hdr")
        yield prepared_batch(scene.load(), config)


def main():
    """Sums over all scenes, then prints the ratios."""
    config = parse(SharpnessConfig, description=__doc__)
    device = pick_device(config.device)
    dtype, model, sums, pixels = pick_precision(config.precision, device), load_weights(config.weights, device), {}, 0
    for registered, ldr, ev, hdr, noise in prepared_scenes(config.scenes, model.prepare):
        with autocast(device, dtype):
            hdr_hat = reconstruct(model, ldr.to(device), ev.to(device), generator=torch.Generator().manual_seed(0)).cpu()
        region = agreed(registered, ev)
        pixels += int(region.sum())
        images = {"reference alone": to_radiance(registered, ev)[:, 1], "network alone": hdr_hat, "LF-Diff": with_merge(hdr_hat, ldr, ev, noise)}
        for name, image in images.items():
            sums[name] = sums.get(name, 0) + products(image, hdr, region)
    for name, (product, energy, truth) in sums.items():
        print(f"{name:<16} gain {product / truth:.3f}, energy {energy / truth:.3f}   ({pixels:,} pixels)")


if __name__ == "__main__":
    run(main)
