"""Is the result as sharp as the reference frame where nothing had to be invented? Gradients of T(H) against those of the truth.

    python examples/sharpness.py --scenes DIR        scene folders with a truth, as data.load_scene reads them

Looked at are pixels that all three frames agree about: the reference is neither dark nor saturated, and each outer frame that is not either
shows the same radiance. There, with g the gradient of T:

    gain     <g(H^), g(H)> / <g(H), g(H)>      1: as sharp as the truth; below: blurred; noise, which is independent of H, does not count
    energy   |g(H^)|² / |g(H)|²                gain² and what was added: noise, ringing

Compare with the reference frame's own gain, which is 1 but for its camera's response curve; its energy shows its noise.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as nnf

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import autocast, parse, pick_device, pick_precision, run
from data import T, to_radiance
from evaluate import EvaluateConfig, open_scenes
from brackets.flow import follow_flow
from infer import InferConfig
from lfdiff import load_weights, reconstruct
from loss import gradients
from brackets.light import register_and_recode

AGREE = 0.03            # largest difference of T(H) between frames that show the same
USABLE = 0.05, 0.95     # of a gamma-coded value that is neither dark nor saturated


@dataclass
class SharpnessConfig:
    """Sharpness of well-exposed static regions."""
    scenes: str = ""                        # folder whose sub-folders are scenes
    weights: str = InferConfig.weights      # trained weights
    device: str = "auto"                    # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"                 # see infer.py


def agreed(ldr, ev):
    """Pixels that the frames agree about. ldr: (1, 3, 3, H, W), ev: (1, 3). Returns: (1, 1, H, W) bool, smooth by a 3x3 minimum."""
    hdr_mu, usable = T(to_radiance(ldr, ev)), (ldr > USABLE[0]) & (ldr < USABLE[1])
    same = ((nnf.avg_pool2d((hdr_mu[0] - hdr_mu[:, 1]), 5, 1, 2, count_include_pad=False).abs() < AGREE) | ~usable[0]).all(dim=0).all(dim=0)[None, None]
    good = same & usable[:, 1].all(dim=1, keepdim=True)
    return nnf.max_pool2d((~good).float(), 3, 1, 1) == 0


def products(hdr_hat, hdr, region):
    """The sums over the region that gain and energy are made of: <g^, g>, <g^, g^>, <g, g>. Images (1, 3, H, W), region (1, 1, H, W)."""
    g_hat, g, region = gradients(T(hdr_hat).double()), gradients(T(hdr).double()), region[..., :-1, :-1]
    return torch.stack([(part * region).sum() for part in (g_hat * g, g_hat ** 2, g ** 2)])


def aligned_scenes(root):
    """Yields the scenes of a folder: ldr (1, 3, 3, H, W), registered and recoded, and aligned along flow, too; ev (1, 3), hdr (1, 3, H, W).

    Raises: ValueError for one without a truth.
    """
    if not root:
        raise ValueError("--scenes: missing; give a folder of scenes with a truth")
    for scene in open_scenes(EvaluateConfig(data="folder", root=root)):
        if not scene.truth:
            raise ValueError(f"{scene.name}: has no truth to compare with; give scenes that have HDRImg.hdr")
        sample = scene.load()
        registered, homographies, curve = register_and_recode(sample["ldr"], sample["ev"])
        aligned = follow_flow(sample["ldr"], sample["ev"], homographies, curve)
        yield registered[None], aligned[None], sample["ev"][None], sample["hdr"][None]


@torch.no_grad()
def main():
    """Sums over all scenes, then the ratios."""
    config = parse(SharpnessConfig, description=__doc__)
    device = pick_device(config.device)
    dtype, model, sums, pixels = pick_precision(config.precision, device), load_weights(config.weights, device), {}, 0
    for registered, ldr, ev, hdr in aligned_scenes(config.scenes):
        with autocast(device, dtype):
            hdr_hat = reconstruct(model, ldr.to(device), ev.to(device), generator=torch.Generator().manual_seed(0)).cpu()
        region = agreed(registered, ev)
        pixels += int(region.sum())
        for name, image in (("reference alone", to_radiance(registered, ev)[:, 1]), ("LF-Diff", hdr_hat)):
            sums[name] = sums.get(name, 0) + products(image, hdr, region)
    for name, (product, energy, truth) in sums.items():
        print(f"{name:<16} gain {product / truth:.3f}, energy {energy / truth:.3f}   ({pixels:,} pixels)")


if __name__ == "__main__":
    run(main)
