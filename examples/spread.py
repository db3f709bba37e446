"""Does the spread of the samples tell generated from observed content? Its means by region, and its rank correlation with the error.

    python examples/spread.py --scenes DIR --samples 8      scene folders with a truth, as data.load_scene reads them

For each region of infer.regions, over the pixels of all scenes: its share, the mean spread of T(H^) and the mean absolute error of the
samples' mean. Then Spearman's rank correlation of spread and error, the mean over the scenes.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import autocast, parse, pick_device, pick_precision, run
from data import T
from infer import InferConfig, regions, sample_images
from lfdiff import load_weights
from sharpness import aligned_scenes


@dataclass
class SpreadConfig:
    """The spread over scenes."""
    scenes: str = ""                        # folder whose sub-folders are scenes
    weights: str = InferConfig.weights      # trained weights, of s2
    samples: int = 8                        # priors a scene
    device: str = "auto"                    # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"                 # see infer.py


def rank_correlation(a, b):
    """Spearman's rank correlation of two tensors of one size, in float64; equal values keep the order they have."""
    ranks = [x.flatten().argsort().argsort().double() for x in (a, b)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def main():
    """Sums over all scenes, then the table."""
    config = parse(SpreadConfig, description=__doc__)
    device = pick_device(config.device)
    dtype, model, sums, correlations = pick_precision(config.precision, device), load_weights(config.weights, device), {}, []
    for _, ldr, ev, hdr in aligned_scenes(config.scenes):
        with autocast(device, dtype):
            mean, spread = (part.cpu() for part in sample_images(model, ldr.to(device), ev.to(device), range(config.samples)))
        error = (T(mean) - T(hdr)).abs().mean(dim=1, keepdim=True)
        correlations.append(rank_correlation(spread, error))
        for title, region in regions(ldr, ev).items():
            sums[title] = sums.get(title, 0) + torch.stack([region.sum(), spread[region].sum(), error[region].sum()]).double()
    total = sum(part[0] for part in sums.values())
    print(f"{'':<45} {'pixels':>7} {'spread':>9} {'error':>9}")
    for title, (pixels, spread, error) in sums.items():
        print(f"{title:<45} {100 * pixels / total:>6.1f}% {spread / pixels:>9.5f} {error / pixels:>9.5f}")
    print(f"rank correlation of spread and error: {sum(correlations) / len(correlations):.2f} ({len(correlations)} scenes)")


if __name__ == "__main__":
    run(main)
