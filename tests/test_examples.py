"""The scripts in examples/: what they measure and align, on images whose answer is known."""

import sys
from pathlib import Path

import torch
import torch.nn.functional as nnf

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import flow_merge
import sharpness
import spread
from data import T, weighted_merge
from loss import psnr
from synthetic import SyntheticBrackets, SyntheticConfig

STILL = SyntheticConfig(static_camera=1.0, static_scene=1.0, shake=0.0, iso=(100.0, 100.0), response=(1.0, 0.0), jpeg=0.0, output_bits=(16,), ev_error=0.0)


def test_flow_brings_a_shifted_bracket_together_again():
    sample = SyntheticBrackets(160, seed=8, config=STILL)[1]
    ldr = sample["ldr"].clone()
    ldr[0], ldr[2] = ldr[0].roll((3, -4), (1, 2)), ldr[2].roll((-2, 5), (1, 2))
    inner = (..., slice(12, -12), slice(12, -12))
    def score(hdr):
        return psnr(T(hdr[inner]), T(sample["hdr"][inner]))
    shifted, merged = score(weighted_merge(ldr[None], sample["ev"][None])[0]), score(flow_merge.flow_merge(ldr, sample["ev"]))
    assert merged > shifted + 5 and merged > score(weighted_merge(sample["ldr"][None], sample["ev"][None])[0]) - 4


def test_gain_is_1_for_the_truth_and_for_noise_and_below_for_a_blur():
    hdr = SyntheticBrackets(96, seed=8, config=STILL)[2]["hdr"][None]
    everywhere = torch.ones(1, 1, 96, 96, dtype=torch.bool)
    def ratios(image):
        product, energy, truth = sharpness.products(image, hdr, everywhere)
        return (product / truth).item(), (energy / truth).item()
    assert ratios(hdr) == (1.0, 1.0)
    gain, energy = ratios(nnf.avg_pool2d(hdr, 3, 1, 1))
    assert gain < 0.9 and energy < 0.9
    gain, energy = ratios((hdr * (1 + 0.1 * torch.randn(hdr.shape, generator=torch.Generator().manual_seed(0)))).clamp(0, 1))
    assert abs(gain - 1) < 0.05 and energy > 1.02


def test_only_pixels_that_the_frames_agree_about_count():
    sample = SyntheticBrackets(96, seed=8, config=STILL)[2]
    ldr, ev = sample["ldr"][None].clone(), sample["ev"][None]
    before = sharpness.agreed(ldr, ev)
    ldr[:, 1, :, 20:60, 20:60] = 0.3                                                        # something stands there in the reference alone
    after = sharpness.agreed(ldr, ev)
    assert before.float().mean() > 0.3 and not after[..., 24:56, 24:56].any() and torch.equal(before[..., 64:, :], after[..., 64:, :])


def test_rank_correlation_agrees_with_hand_values():
    a = torch.tensor([0.1, 5.0, 2.0, 3.0])
    assert abs(spread.rank_correlation(a, a.exp()) - 1) < 1e-12 and abs(spread.rank_correlation(a, -a) + 1) < 1e-12
    assert abs(spread.rank_correlation(a, torch.tensor([1.0, 2.0, 4.0, 3.0])) - 0.2) < 1e-12         # 1 - 6 (0 + 4 + 4 + 0) / (4 (16 - 1))
