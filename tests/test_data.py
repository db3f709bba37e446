"""data.py: the mu-law, X_i and PSNR by hand, and patches against slow loops over the whole image."""

import math
import os
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import data


# --- radiance ---------------------------------------------------------------------------------------------------------

def test_mu_law_has_the_values_computed_by_hand():
    x = torch.tensor([0.0, 1 / 5000, 0.01, 0.5, 1.0])
    expected = torch.tensor([0.0, math.log(2) / math.log(5001), math.log(51) / math.log(5001), math.log(2501) / math.log(5001), 1.0])
    assert torch.allclose(data.T(x), expected, atol=1e-6)


def test_mu_law_is_float32_even_for_half_precision_and_under_autocast():
    x = torch.tensor([1e-4, 0.3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert data.T(x.bfloat16()).dtype == torch.float32
    assert data.T(x.half()).dtype == torch.float32 and data.T_inverse(x.half()).dtype == torch.float32


def test_mu_law_keeps_tiny_radiance():
    # log(1 + 5e-6) loses 2 % in float32; log1p does not.
    assert math.isclose(float(data.T(torch.tensor(1e-9))), math.log1p(5e-6) / math.log(5001), rel_tol=1e-5)


def test_inverse_undoes_the_mu_law():
    x = torch.logspace(-8, 0, 200)
    assert torch.allclose(data.T_inverse(data.T(x)), x, rtol=1e-5, atol=1e-10)
    assert float(data.T_inverse(torch.tensor(0.5))) == pytest.approx((math.sqrt(5001) - 1) / 5000, rel=1e-5)


def test_network_input_is_the_frame_and_its_gamma_corrected_self():
    ldr = torch.rand(2, 3, 3, 2, 2)
    ev = torch.tensor([[-2.0, 0.0, 2.0], [0.0, 3.0, 6.0]])
    x = data.network_input(ldr, ev)
    assert x.shape == (2, 3, 6, 2, 2) and x.dtype == torch.float32
    assert torch.equal(x[:, :, :3], ldr)
    for b, t in enumerate([(1, 4, 16), (1, 8, 64)]):
        for i in range(3):
            assert torch.allclose(x[b, i, 3:], ldr[b, i] ** 2.2 / t[i], rtol=1e-5)


def test_radiance_is_in_units_of_the_shortest_exposure():
    ldr = torch.full((1, 3, 3, 1, 1), 0.5)
    hdr = data.to_radiance(ldr, torch.tensor([[-1.0, 0.0, 2.0]]))
    assert hdr.shape == ldr.shape and hdr.dtype == torch.float32
    assert torch.allclose(hdr[0, :, 0, 0, 0], 0.5 ** 2.2 / torch.tensor([1.0, 2.0, 8.0]))


# --- PSNR -------------------------------------------------------------------------------------------------------------

def test_psnr_at_hand_values():
    zero = torch.zeros(1, 3, 4, 4)
    assert abs(data.psnr(zero + 0.1, zero) - 20) < 1e-4
    assert abs(data.psnr(zero + 0.001, zero) - 60) < 1e-4
    assert abs(data.psnr(zero + 3, zero) + 20 * math.log10(3)) < 1e-4        # nothing is clipped
    assert data.psnr(zero, zero) == math.inf and isinstance(data.psnr(zero + 1, zero), float)


def test_psnr_averages_squared_errors_over_pixels_and_channels():
    a, b = torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 1, 2)
    a[0, 0, 0, 0] = 0.6                                                 # mean square 0.36 / 6 = 0.06
    assert abs(data.psnr(a, b) + 10 * math.log10(0.06)) < 1e-5


# --- training patches -------------------------------------------------------------------------------------------------

def scene(path, size=(24, 40), seed=0, ev=(0, 2, 4)):
    """Writes a scene as Patches takes it. Returns: (path, exposures), and the whole image's sample."""
    rng = np.random.default_rng(seed)
    pixels = np.empty(size, np.dtype([("ldr", np.uint16, (3, 3)), ("hdr", np.float32, (3,))]))
    pixels["ldr"], pixels["hdr"] = rng.integers(0, 65536, (*size, 3, 3)), rng.random((*size, 3))
    np.save(path, pixels)
    ev = np.array(ev, np.float32)
    return (path, ev), {"ldr": torch.from_numpy(pixels["ldr"] / np.float32(65535)).permute(2, 3, 0, 1), "ev": torch.from_numpy(ev),
                        "hdr": torch.from_numpy(pixels["hdr"].copy()).permute(2, 0, 1)}


def two_scenes(folder):
    return [*zip(scene(folder / "a.npy", (24, 40), 1), scene(folder / "b.npy", (33, 20), 2, (0, 3, 6)))]


def test_every_epoch_holds_every_patch_of_the_grid_once(tmp_path):
    scenes, samples = two_scenes(tmp_path)
    patches = data.Patches(scenes, patch=8, stride=6, augment=False)
    expected = {}  # by slow loops over the whole images
    for sample in samples:
        _, height, width = sample["hdr"].shape
        for y in range(0, height - 8 + 1, 6):
            for x in range(0, width - 8 + 1, 6):
                expected[sample["ldr"][:, :, y:y + 8, x:x + 8].numpy().tobytes()] = (sample["hdr"][:, y:y + 8, x:x + 8], sample["ev"])
    assert len(patches) == len(expected) == 3 * 6 + 5 * 3
    orders = []
    for epoch in range(2):
        served = [patches[epoch * len(patches) + j] for j in range(len(patches))]
        orders.append([s["ldr"].numpy().tobytes() for s in served])
        assert set(orders[-1]) == set(expected) and len(set(orders[-1])) == len(served)
        for sample, key in zip(served, orders[-1]):
            assert torch.equal(sample["hdr"], expected[key][0]) and torch.equal(sample["ev"], expected[key][1])
    assert orders[0] != orders[1] and orders[0] != list(expected)


def test_augmentation_gives_all_eight_turns_to_frames_and_truth_alike(tmp_path):
    one, whole = scene(tmp_path / "s.npy", size=(8, 8))
    turns = {}
    for k in range(4):
        for flip in (False, True):
            ldr, hdr = (torch.rot90(whole[key].flip(-1) if flip else whole[key], k, (-2, -1)) for key in ("ldr", "hdr"))
            turns[ldr.numpy().tobytes()] = hdr
    patches = data.Patches([one], patch=8)
    seen = [patches[i] for i in range(100)]
    assert len(turns) == 8 and {s["ldr"].numpy().tobytes() for s in seen} == set(turns)
    assert all(torch.equal(s["hdr"], turns[s["ldr"].numpy().tobytes()]) for s in seen)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ("ldr", "ev", "hdr"))


def test_a_patch_depends_on_seed_and_index_alone(tmp_path):
    scenes, _ = two_scenes(tmp_path)
    a, b, c = (data.Patches(scenes, patch=8, stride=6, seed=seed) for seed in (0, 0, 1))
    indices = [3, 70, 0, 40, 3]
    first = [a[i] for i in indices]
    assert all(same(x, b[i]) for x, i in reversed([*zip(first, indices)]))
    assert not all(same(x, c[i]) for x, i in zip(first, indices))
    c.augment = a.augment = False
    assert not all(same(a[i], c[i]) for i in indices)  # another order, not only other turns
    a.augment = True
    loader = DataLoader(a, batch_size=None, sampler=indices, num_workers=2, multiprocessing_context="spawn")
    assert all(same(x, y) for x, y in zip(first, loader, strict=True))


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="has no list of the open files")
def test_no_file_stays_open(tmp_path):
    """A process may have 256 files open on macOS, and 1,024 on Linux. A bank has 6,000."""
    scenes = [scene(tmp_path / f"{k}.npy")[0] for k in range(20)]
    before = len(os.listdir("/dev/fd"))
    patches = data.Patches(scenes, patch=8)
    samples = [patches[i] for i in range(len(patches))]
    assert len(samples) >= 20 and len(os.listdir("/dev/fd")) == before


def test_an_opened_dataset_is_pickled_without_its_pixels(tmp_path):
    patches = data.Patches([scene(tmp_path / "s.npy", size=(200, 200))[0]], patch=8, stride=64)
    before = patches[0]
    pickled = pickle.dumps(patches)
    assert len(pickled) < 5000 and same(pickle.loads(pickled)[0], before)


@pytest.mark.parametrize(("stops", "expected"), [
    ([(0, 2, 4), (0, 3, 6)], (2.0, 3.0)),
    ([(0, 0.72, 4.7), (0, 2, 3)] * 200 + [(0, 3, 1), (0, 9, 18)], (0.7, 4.0)),      # two of 402 are taken for mistakes
    ([(0, -1, 1), (0, -1, 1)], (0.1, 2.0))])
def test_the_steps_of_patches_are_their_range_without_the_outermost(tmp_path, stops, expected):
    one, _ = scene(tmp_path / "s.npy", size=(8, 8))
    assert data.Patches([(one[0], np.array(ev, np.float32)) for ev in stops], patch=8).steps == expected


def test_patches_refuse_scenes_they_cannot_use(tmp_path):
    with pytest.raises(ValueError, match="too small for patches of 128"):
        data.Patches([scene(tmp_path / "b.npy")[0]])
    with pytest.raises(ValueError, match="empty"):
        data.Patches([])
