"""Properties that hold for every shape, number type and exposure. hypothesis draws the cases, the same ones in every run."""

import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from beyond.tiles import reconstruct_in_tiles
from brackets.files import read_image, to_float, write_image
from brackets.prepare import prepare
from brackets.scenes import load_scene
from common import config_from
from data import T, T_inverse, network_input, to_radiance
from ddim import DiffusionConfig, Schedule, diffuse, predict_z0, sampling_times
from denoiser import DenoiserConfig
from dhrnet import DHRNetConfig
from lfdiff import LFDiffConfig, pad_to_multiple
from lpenet import LPENetConfig
from slow import fresh

torch.set_num_threads(1)

settings.register_profile("same", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("same")

SIDES = st.integers(1, 40)
STEPS = st.floats(0.1, 6)
MODEL = fresh("s2").eval()


def frames(height, width, seed):
    return torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(seed))


@given(SIDES, SIDES, STEPS, STEPS, st.integers(0, 99))
def test_any_image_gives_a_finite_result_of_its_own_size(height, width, first, second, seed):
    """Even for one pixel, with exposure steps that no training had; a second run gives the same bits."""
    ldr, ev = frames(height, width, seed)[None], torch.tensor([[0, first, first + second]])
    with torch.no_grad():
        results = [reconstruct_in_tiles(MODEL, ldr, ev, 0, 2, "ddim", torch.Generator().manual_seed(seed)) for _ in range(2)]
    assert results[0].shape == (1, 3, height, width) and results[0].isfinite().all() and 0 <= results[0].min() and results[0].max() <= 1
    assert torch.equal(*results)


@settings(max_examples=10)
@given(SIDES, SIDES, STEPS, STEPS, st.integers(0, 99))
def test_any_bracket_can_be_prepared(height, width, first, second, seed):
    ev = torch.tensor([0, first, first + second])
    hdr = frames(height, width, seed)[0] ** 4
    prepared = prepare((hdr * 2 ** ev[:, None, None, None]).clamp(max=1) ** (1 / 2.2), ev)
    assert prepared.ldr.shape == (3, 3, height, width) and prepared.ldr.isfinite().all() and 0 <= prepared.ldr.min() and prepared.ldr.max() <= 1
    assert prepared.ev.diff().min() > 0 and prepared.in_words()


@given(SIDES, SIDES, st.integers(1, 5))
def test_padding_keeps_the_image_and_makes_multiples_of_16(height, width, channels):
    image = torch.rand(1, channels, height, width)
    padded = pad_to_multiple(image)
    assert padded.shape[-2] % 16 == padded.shape[-1] % 16 == 0 and max(padded.shape[-2] - height, padded.shape[-1] - width) < 16
    assert torch.equal(padded[..., :height, :width], image) and padded.max() <= image.max()


@given(arrays(np.float32, st.integers(1, 30), elements=st.floats(0, 1, width=32)))
def test_the_mu_law_is_undone_by_its_inverse_and_keeps_the_order(radiance):
    x = torch.from_numpy(radiance)
    assert (T_inverse(T(x)) - x).abs().max() < 2e-6 and 0 <= T(x).min() and T(x).max() <= 1 + 1e-6
    order = x.argsort()
    assert (T(x)[order].diff() >= 0).all()


@given(STEPS, STEPS, st.floats(-20, 20))
def test_radiance_does_not_depend_on_where_exposures_begin(first, second, offset):
    ldr, ev = frames(3, 4, 1)[None], torch.tensor([[0, first, first + second]])
    assert torch.allclose(to_radiance(ldr, ev), to_radiance(ldr, ev + offset), rtol=2e-4)
    X = network_input(ldr, ev)
    assert X.shape == (1, 3, 6, 3, 4) and torch.equal(X[:, :, :3], ldr) and X.max() <= 1


@given(st.integers(1, 300), st.data())
def test_sampling_times_fall_from_t_to_one_or_more_without_a_repetition(T_steps, data):
    S = data.draw(st.integers(1, T_steps))
    times = sampling_times(T_steps, S)
    assert len(times) == S and times[0] == T_steps and times[-1] >= 1 and all(a > b for a, b in zip(times, times[1:]))


@given(st.integers(1, 200), st.integers(0, 99))
def test_the_true_noise_leads_back_from_any_time(t, seed):
    generator = torch.Generator().manual_seed(seed)
    z_0, eps = (torch.randn(1, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    schedule = Schedule(DiffusionConfig())
    assert (predict_z0(diffuse(z_0, t, eps, schedule), t, eps, schedule) - z_0).abs().max() < 1e-9


@given(st.sampled_from([(np.uint8, ".png"), (np.uint8, ".tif"), (np.uint16, ".png"), (np.uint16, ".tif")]), SIDES, SIDES, st.integers(0, 99))
def test_what_is_written_is_read(kind, height, width, seed):
    dtype, suffix = kind
    image = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)
    with tempfile.TemporaryDirectory() as folder:
        write_image(Path(folder) / f"image{suffix}", image)
        assert np.array_equal(read_image(Path(folder) / f"image{suffix}"), image)
    assert to_float(image).dtype == np.float32 and to_float(image).max() <= 1


@given(arrays(np.float32, st.tuples(SIDES, SIDES, st.just(3)), elements=st.floats(0, 1e4, width=32)))
def test_radiance_is_written_to_a_255th_of_a_pixel_s_largest_channel(radiance):
    with tempfile.TemporaryDirectory() as folder:
        write_image(Path(folder) / "image.hdr", radiance)
        read = read_image(Path(folder) / "image.hdr")
    assert read.shape == radiance.shape and (np.abs(read - radiance) <= radiance.max(axis=2, keepdims=True) / 255 + 1e-30).all()


@settings(max_examples=15)
@given(st.permutations(range(3)), st.floats(-8, 8), st.integers(3, 20), st.integers(3, 20))
def test_frames_are_sorted_by_their_exposures_whatever_their_names_say(order, offset, height, width):
    with tempfile.TemporaryDirectory() as folder:
        for name, k in enumerate(order):                # frame k is of the constant tone 60 + 60 k
            write_image(Path(folder) / f"{name}.png", np.full((height, width, 3), 60 + 60 * k, np.uint8))
        Path(folder, "exposure.txt").write_text("\n".join(f"{2 * k + offset:.4f}" for k in order))
        sample = load_scene(folder)
    assert sample["ldr"].shape == (3, 3, height, width) and sample["ev"].tolist() == pytest.approx([0, 2, 4], abs=1e-3)
    assert [round(255 * frame.mean().item()) for frame in sample["ldr"]] == [60, 120, 180]


@given(st.integers(1, 512), st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple), st.integers(1, 64).map(lambda n: 8 * n), st.floats(1e-6, 0.05))
def test_an_architecture_survives_its_checkpoint(channels, frms, width, beta_1):
    config = LFDiffConfig(DHRNetConfig(channels=channels, frms=frms), LPENetConfig(), DenoiserConfig(unet_width=width), DiffusionConfig(beta_1=beta_1))
    assert config_from(LFDiffConfig, asdict(config)) == config
