"""beyond/tiles.py: tiles blend without seams and agree with the whole image."""

import contextlib
import io
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as nnf
from tqdm import tqdm

from beyond import fast
from beyond.fast import speed_up
from beyond.tiles import check_steps, rebuild_in_tiles, reconstruct_in_tiles, tile_for, tile_ramps
from beyond.weights import load_weights
from data import T, psnr
from dhrnet import DHRNetConfig
from lfdiff import LFDiffConfig, Stage2, reconstruct
from lpenet import LPENetConfig
from synthetic.dataset import SyntheticBrackets

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(("length", "tile"), [(512, 256), (752, 256), (528, 512), (256, 256), (128, 128), (96, 96), (6000 - 6000 % 16, 1280)])
def test_ramps_of_the_tiles_add_up_to_one(length, tile):
    covered = torch.zeros(length)
    for start, ramp in tile_ramps(length, tile):
        assert start % 16 == 0 and ramp.shape == (tile,) and ramp.min() >= 0
        covered[start:start + tile] += ramp
    assert (covered - 1).abs().max() < 1e-6


@pytest.mark.parametrize(("steps", "sampler", "message"), [(5, "ddim", "--steps 5: a.pt"), (0, "ancestral", "--sampler ancestral: a.pt"), (0, "ddim", "")])
def test_a_network_without_a_diffusion_model_takes_no_steps(steps, sampler, message):
    with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
        check_steps(steps, sampler, SimpleNamespace(variant="baseline"), "a.pt")


@torch.no_grad()
def test_a_pointwise_network_is_the_same_in_tiles():
    ldr, z = torch.rand(1, 3, 3, 272, 528), torch.rand(1, 3, 68, 132)
    def rebuild(ldr, z):
        return ldr[:, 1] + nnf.interpolate(z, scale_factor=4)
    assert (rebuild_in_tiles(rebuild, ldr, z, tile=256) - rebuild(ldr, z)).abs().max() < 1e-6


@pytest.fixture(scope="module")
def bracket():
    """Makes a synthetic bracket of 640x480 pixels in which objects move."""
    sample = SyntheticBrackets(640, seed=3, length=1)[0]
    return sample["ldr"][None, ..., :480, :], sample["ev"][None]


@torch.no_grad()
def test_tiles_agree_with_the_whole_image_and_leave_no_seam(bracket, capsys):
    model, (ldr, ev) = load_weights(ROOT / "weights" / "lfdiff.pt"), bracket
    whole, tiled = (T(reconstruct_in_tiles(model, ldr, ev, tile, generator=torch.Generator().manual_seed(0))) for tile in (0, 384))
    decibel = psnr(tiled, whole)
    with capsys.disabled():
        print(f"\n640x480 in tiles of 384 against the whole image: PSNR-μ {decibel:.2f} dB")
    assert decibel > 40
    steps = (tiled[..., 1:] - tiled[..., :-1]).abs().mean(dim=(0, 1, 2)), (tiled[..., 1:, :] - tiled[..., :-1, :]).abs().mean(dim=(0, 1, 3))
    plain = (whole[..., 1:] - whole[..., :-1]).abs().mean(dim=(0, 1, 2)), (whole[..., 1:, :] - whole[..., :-1, :]).abs().mean(dim=(0, 1, 3))
    for tiled_step, whole_step, length in zip(steps, plain, (640, 480)):
        borders = [start + at for start, _ in tile_ramps(length, 384)[1:] for at in (0, 31, 32, 63, 95, 96, 127)]
        assert abs(tiled_step[borders].mean() / whole_step[borders].mean() - 1) < 0.05


@torch.no_grad()
@pytest.mark.parametrize("k", [2, 4])
def test_the_prior_fits_strips_and_tiles_for_any_unshuffle(monkeypatch, bracket, k):
    torch.manual_seed(0)
    lpenet = LPENetConfig(prior_width=8, condition_width=8, unshuffle=k)
    model = Stage2(LFDiffConfig(dhrnet=DHRNetConfig(channels=8, heads=2, frms=(), high_blocks=1, pool_pim=k), lpenet=lpenet), without_dm=True)
    model = speed_up(model.eval())
    ldr, ev = bracket[0][..., :128, :320], bracket[1]           # as high as the overlap of tiles
    whole = reconstruct(model, ldr, ev)
    monkeypatch.setattr(fast, "STRIP_BYTES", 200_000)
    assert (reconstruct(model, ldr, ev) - whole).abs().max() < 1e-4
    assert (reconstruct_in_tiles(model, ldr, ev, 256) - whole).abs().max() < 0.05


def test_a_tile_that_cannot_overlap_is_refused(bracket):
    model = speed_up(Stage2(LFDiffConfig(DHRNetConfig(channels=12, heads=3, frms=(1,), high_blocks=2))))
    for tile in (100, 64, 129):
        with pytest.raises(ValueError, match=f"--tile {tile}: must be a multiple of 16, 256 or more"):
            reconstruct_in_tiles(model, *bracket, tile)


@pytest.mark.parametrize("tile, H, W, side", [(0, 1000, 1500, 0), (0, 2001, 1500, 1280), (-1, 4000, 6000, 0), (512, 100, 100, 512)])
def test_the_default_tile_is_none_up_to_three_megapixels(tile, H, W, side):
    assert tile_for(tile, H, W) == side


def test_a_large_image_shows_its_steps_and_tiles_in_a_terminal_and_nothing_elsewhere(monkeypatch, capsys):
    model = Stage2(LFDiffConfig(DHRNetConfig(channels=8, heads=2, frms=(1,), high_blocks=1))).eval()
    ldr, ev, bars = torch.rand(1, 3, 3, 272, 400), torch.tensor([[0.0, 2, 4]]), []
    plain = reconstruct_in_tiles(speed_up(model), ldr, ev, tile=256, S=3, generator=torch.Generator().manual_seed(0))
    assert capsys.readouterr() == ("", "")

    def bar(disable, **settings):
        assert disable is None                                              # tqdm's "only in a terminal"
        bars.append(tqdm(disable=False, file=io.StringIO(), **settings))
        return bars[-1]

    monkeypatch.setattr("beyond.tiles.tqdm", bar)
    shown = reconstruct_in_tiles(model, ldr, ev, tile=256, S=3, generator=torch.Generator().manual_seed(0))
    assert [(bar.unit, bar.n, bar.total) for bar in bars] == [("step", 3, 3), ("tile", 6, 6)] and torch.equal(plain, shown)
    assert not model.denoiser._forward_hooks
