"""strips.py and the fast paths it serves: strip by strip gives what the whole map gives; tiles blend without seams."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as nnf

import lfdiff
from beyond import fast as strips
from align import AlignmentModule
from data import T
from dhrnet import DHRNet, DHRNetConfig, FRM, PIM, SelfAttention, cosines, mix_channels, split_frequencies
from lfdiff import LFDiffConfig, Stage2, rebuild_in_tiles, reconstruct, tile_ramps
from loss import psnr
from lpenet import ConditionNet, LPENetConfig, ResidualBlock
from beyond.fast import by_strips, strip_rows
from synthetic.dataset import SyntheticBrackets

ROOT = Path(__file__).parent.parent
SMALL = DHRNetConfig(channels=12, heads=3, frms=(1,), high_blocks=2)
CLOSE = 2e-5        # float32 sums in another order


@pytest.fixture
def narrow_strips(monkeypatch):
    """Strips of a few rows, so that a small map has many of them, and a last one of another height."""
    monkeypatch.setattr(strips, "STRIP_BYTES", 10_000)


def random_map(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def in_strips_and_whole(module, *maps):
    """The module's result strip by strip and, with gradients enabled, on the whole map."""
    torch.manual_seed(0)
    for parameter in module.parameters():       # biases and scales of 0 and 1 would hide mistakes
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        strip_wise = module(*(x.clone() for x in maps))
    with torch.enable_grad():
        whole = module(*maps).detach()
    return strip_wise, whole


MODULES = [(ResidualBlock(12), (1, 12, 52, 40)), (SelfAttention(12, 3, 2.66), (1, 12, 52, 40)), (AlignmentModule(6, 12), (1, 3, 6, 52, 40)),
           (ConditionNet(LPENetConfig(prior_width=8, condition_width=8)), (1, 3, 6, 80, 32)), (FRM(SMALL), (1, 12, 52, 40))]


@pytest.mark.parametrize(("module", "shape"), MODULES, ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "")
def test_a_module_gives_the_same_strip_by_strip(narrow_strips, module, shape):
    x = random_map(*shape)
    with torch.no_grad():
        assert strip_rows(x) < shape[-2] // 2
    strip_wise, whole = in_strips_and_whole(module, x)
    assert (strip_wise - whole).abs().max() < CLOSE * whole.abs().max()


def test_a_pim_gives_the_same_strip_by_strip(narrow_strips):
    strip_wise, whole = in_strips_and_whole(PIM(SMALL, 3), random_map(1, 12, 52, 40), random_map(1, 3, 13, 10, seed=1))
    assert (strip_wise - whole).abs().max() < CLOSE * whole.abs().max()


def test_a_blend_gives_the_same_strip_by_strip(narrow_strips):
    strip_wise, whole = in_strips_and_whole(DHRNet(replace(SMALL, blend=True)), random_map(1, 3, 6, 52, 40).abs(), random_map(1, 3, 13, 10))
    assert (strip_wise - whole).abs().max() < CLOSE * whole.abs().max()


@torch.no_grad()
def test_a_halo_too_small_would_show(narrow_strips):
    x, w = random_map(1, 12, 52, 40), random_map(12, 12, 5, 5, seed=1)
    whole = nnf.conv2d(x, w, padding=2)
    assert torch.allclose(by_strips(lambda x: nnf.conv2d(x, w, padding=2), x, halo=2), whole, atol=1e-3)
    assert (by_strips(lambda x: nnf.conv2d(x, w, padding=2), x, halo=1) - whole).abs().max() > 1


@torch.no_grad()
def test_a_map_may_take_the_result_where_its_halo_does_not_matter(narrow_strips):
    F, plus = random_map(1, 12, 52, 40), random_map(1, 12, 52, 40, seed=1)
    expected = 2 * F + plus
    result = by_strips(lambda F: 2 * F, F, halo=0, plus=plus, out=F)
    assert result.data_ptr() == F.data_ptr() and torch.equal(result, expected)


@torch.no_grad()
def test_inputs_survive_unless_they_are_given_away(narrow_strips):
    frm, F = FRM(SMALL), random_map(1, 12, 52, 40)
    before = F.clone()
    frm(F)
    assert torch.equal(F, before)


@pytest.mark.parametrize("case", ["gradients", "a batch", "a small map"])
def test_no_strips_where_they_do_not_pay(monkeypatch, case):
    monkeypatch.setattr(strips, "STRIP_BYTES", 2 ** 40 if case == "a small map" else 1)
    seen, x = [], random_map(2 if case == "a batch" else 1, 3, 8, 8)
    with torch.set_grad_enabled(case == "gradients"):
        by_strips(lambda x: seen.append(x.shape) or x, x, halo=1)
    assert seen == [x.shape]


@torch.no_grad()
def test_maps_of_several_heights_are_cut_alike(narrow_strips):
    low, high = random_map(1, 12, 26, 20), random_map(1, 12, 104, 80, seed=1)
    result = by_strips(lambda low, high: high + nnf.interpolate(low, scale_factor=4), low, high, halo=0)
    assert torch.equal(result, high + nnf.interpolate(low, scale_factor=4))
    pooled = by_strips(lambda high: nnf.avg_pool2d(high, 4), high, halo=0, shrink=4)
    assert torch.equal(pooled, nnf.avg_pool2d(high, 4))


# --- exact forms of the fast paths -----------------------------------------------------------------------------------

@torch.no_grad()
@pytest.mark.parametrize("strip_bytes", [10_000, 2 ** 40])
def test_cosines_are_the_products_of_unit_vectors(monkeypatch, strip_bytes):
    monkeypatch.setattr(strips, "STRIP_BYTES", strip_bytes)
    Q, K = random_map(1, 12, 52, 40), random_map(1, 6, 52, 40, seed=1) + 0.5
    unit_Q, unit_K = (nnf.normalize(x.flatten(2).unflatten(1, (3, -1)), dim=-1) for x in (Q, K))
    assert (cosines(torch.cat([Q, K], dim=1), 12, heads=3) - unit_Q @ unit_K.transpose(2, 3)).abs().max() < 1e-6


def test_the_cosine_of_an_empty_channel_is_zero():
    QK = torch.cat([torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4)], dim=1)
    assert torch.equal(cosines(QK, 2), torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("B", [1, 2])
def test_mixing_channels_is_the_product_head_by_head(B):
    A, V = random_map(B, 3, 2, 4), random_map(B, 12, 5, 7, seed=1)
    expected = torch.einsum("bhcd,bhdp->bhcp", A, V.reshape(B, 3, 4, 35)).reshape(B, 6, 5, 7)
    assert torch.allclose(mix_channels(A, V), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("make", [FRM, lambda config: PIM(config, 3)])
def test_merging_is_the_convolution_of_the_concatenation(make, mode):
    frm = make(DHRNetConfig(channels=12, heads=3, upsample=mode))
    F_high, F_low = random_map(2, 12, 16, 24), random_map(2, 12, 16 // frm.k, 24 // frm.k, seed=1)
    up = nnf.interpolate(F_low, scale_factor=frm.k, mode=mode, **({"align_corners": False} if mode == "bilinear" else {}))
    assert torch.allclose(frm.concat_and_merge(F_high, F_low), frm.merge(torch.cat([F_high, up], dim=1)), atol=1e-5)


@torch.no_grad()
def test_frequencies_split_in_place_add_up_to_the_whole(narrow_strips):
    F = random_map(1, 12, 52, 40)
    F_low, F_high = split_frequencies(F.clone(), 2, out=F.clone())
    assert torch.allclose(F_high + nnf.interpolate(F_low, scale_factor=2, mode="bilinear", align_corners=False), F, atol=1e-6)


# --- memory ----------------------------------------------------------------------------------------------------------

def test_keeping_memory_changes_no_result():
    code = ("import sys, torch; sys.path.insert(0, sys.argv[1]); from strips import keep_memory\n"
            "x = torch.ones(4, 2 ** 20).sum(); keep_memory(); assert torch.ones(4, 2 ** 20).sum() == x == 2 ** 22")
    subprocess.run([sys.executable, "-c", code, str(ROOT)], check=True)


# --- tiles -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("length", "tile", "overlap"), [(512, 256, 128), (752, 256, 128), (528, 512, 128),
                                                           (256, 256, 128), (128, 128, 128), (96, 96, 128), (6000 - 6000 % 16, 1280, 128)])
def test_ramps_of_the_tiles_add_up_to_one(length, tile, overlap):
    covered = torch.zeros(length)
    for start, ramp in tile_ramps(length, tile, overlap):
        assert start % 16 == 0 and ramp.shape == (tile,) and ramp.min() >= 0
        covered[start:start + tile] += ramp
    assert (covered - 1).abs().max() < 1e-6


@torch.no_grad()
def test_a_pointwise_network_is_the_same_in_tiles():
    ldr, z = torch.rand(1, 3, 3, 272, 528), torch.rand(1, 3, 68, 132)
    def rebuild(ldr, z):
        return ldr[:, 1] + nnf.interpolate(z, scale_factor=4)
    assert (rebuild_in_tiles(rebuild, ldr, z, tile=256) - rebuild(ldr, z)).abs().max() < 1e-6


@pytest.fixture(scope="module")
def bracket():
    """A synthetic bracket of 640x480 in which things move."""
    sample = SyntheticBrackets(640, seed=3, length=1)[0]
    return sample["ldr"][None, ..., :480, :], sample["ev"][None]


@torch.no_grad()
def test_tiles_agree_with_the_whole_image_and_leave_no_seam(bracket, capsys):
    model, (ldr, ev) = lfdiff.load_weights(ROOT / "weights" / "lfdiff.pt"), bracket
    whole, tiled = (T(reconstruct(model, ldr, ev, generator=torch.Generator().manual_seed(0), tile=tile)) for tile in (0, 384))
    decibel = psnr(tiled, whole)
    with capsys.disabled():
        print(f"\n640x480 in tiles of 384 against the whole image: PSNR-μ {decibel:.2f} dB")
    assert decibel > 40
    steps = (tiled[..., 1:] - tiled[..., :-1]).abs().mean(dim=(0, 1, 2)), (tiled[..., 1:, :] - tiled[..., :-1, :]).abs().mean(dim=(0, 1, 3))
    plain = (whole[..., 1:] - whole[..., :-1]).abs().mean(dim=(0, 1, 2)), (whole[..., 1:, :] - whole[..., :-1, :]).abs().mean(dim=(0, 1, 3))
    for tiled_step, whole_step, length in zip(steps, plain, (640, 480)):
        borders = [start + at for start, _ in tile_ramps(length, 384, lfdiff.OVERLAP)[1:] for at in (0, 31, 32, 63, 95, 96, 127)]
        assert abs(tiled_step[borders].mean() / whole_step[borders].mean() - 1) < 0.05


@torch.no_grad()
@pytest.mark.parametrize("k", [2, 4])
def test_the_prior_fits_strips_and_tiles_for_any_unshuffle(monkeypatch, bracket, k):
    torch.manual_seed(0)
    lpenet = LPENetConfig(prior_width=8, condition_width=8, unshuffle=k)
    model = Stage2(LFDiffConfig(dhrnet=DHRNetConfig(channels=8, heads=2, frms=(), high_blocks=1, pool_pim=k), lpenet=lpenet), without_dm=True)
    ldr, ev = bracket[0][..., :128, :320], bracket[1]           # as high as tiles overlap
    whole = reconstruct(model, ldr, ev)
    monkeypatch.setattr(strips, "STRIP_BYTES", 200_000)
    assert (reconstruct(model, ldr, ev) - whole).abs().max() < 1e-4
    assert (reconstruct(model, ldr, ev, tile=256) - whole).abs().max() < 0.05


def test_a_tile_that_cannot_overlap_is_refused(bracket):
    model = Stage2(LFDiffConfig(dhrnet=SMALL))
    for tile in (100, 64, 129):
        with pytest.raises(ValueError, match=f"--tile {tile}: must be a multiple of 16, 256 or more"):
            reconstruct(model, *bracket, tile=tile)
