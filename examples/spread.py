"""Does the spread of the samples tell generated from observed content? Its mean in each region, and its rank correlation with the error.

    python examples/spread.py --scenes DIR --samples 8      scene folders with a truth, as brackets.scenes.load_scene reads them

Three numbers are printed for each region of beyond.pictures.regions, over the pixels of all scenes: the region's share of the pixels, the mean
spread of T(H^), and the mean absolute error of the samples' mean. Spearman's rank correlation of spread and error follows, as the mean over
the scenes.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from beyond.pictures import regions, sample_images
from beyond.weights import SHIPPED, load_weights
from common import Count, autocast, parse, pick_device, pick_precision, run
from data import T
from sharpness import prepared_scenes


@dataclass
class SpreadConfig:
    """The spread over scenes."""
    scenes: str = ""                        # folder whose sub-folders are scenes
    weights: str = SHIPPED      # trained weights, of s2
    samples: Count = 8                      # priors for each scene, 2 or more
    device: str = "auto"                    # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"                 # see infer.py


def rank_correlation(a, b):
    """Computes Spearman's rank correlation of two tensors of the same size, in float64. Equal values get different ranks, in the order of the tensor."""
    ranks = [x.flatten().argsort(stable=True).argsort().double() for x in (a, b)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def main():
    """Sums over all scenes, then prints the table."""
    config = parse(SpreadConfig, description=__doc__)
    if config.samples < 2:
        raise ValueError(f"--samples {config.samples}: must be 2 or more, because a single sample has no spread")
    device = pick_device(config.device)
    dtype, model, sums, correlations = pick_precision(config.precision, device), load_weights(config.weights, device), {}, []
    for _, ldr, ev, hdr, _ in prepared_scenes(config.scenes, model.prepare):
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
