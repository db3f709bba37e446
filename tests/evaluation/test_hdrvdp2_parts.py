"""evaluation/hdrvdp2.py, part by part: resizing, the eye, bands, masking."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation import hdrvdp2 as vdp
from evaluation.hdrvdp2 import pixels_per_degree

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
HERE = ROOT / "evaluation"
CONSTANTS = json.loads((HERE / "hdrvdp2.json").read_text(encoding="utf-8"))
PPD = 23.787357547725868            # 30 inches, 1500 x 1000 pixels, 0.55 m


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- resizing --------------------------------------------------------------------------------------------------------

def cubic(t):
    t = abs(t)
    return (1.5 * t - 2.5) * t * t + 1 if t < 1 else ((-0.5 * t + 2.5) * t - 4) * t + 2 if t < 2 else 0.0


def slow_resize(row, n_out):
    """One row: every output sample sums over all samples of the mirrored row that its kernel reaches, positions counted from 1."""
    n_in, s, out = len(row), n_out / len(row), []
    for j in range(1, n_out + 1):
        u, k = j / s + 0.5 * (1 - 1 / s), min(s, 1)
        total = weights = 0.0
        for i in range(math.floor(u - 2 / k) - 1, math.ceil(u + 2 / k) + 2):
            mirrored = i
            while not 1 <= mirrored <= n_in:
                mirrored = 1 - mirrored if mirrored < 1 else 2 * n_in + 1 - mirrored
            total, weights = total + k * cubic(k * (u - i)) * row[mirrored - 1], weights + k * cubic(k * (u - i))
        out.append(total / weights)
    return out


@pytest.mark.parametrize(("n_in", "n_out"), [(20, 10), (10, 20), (67, 34), (34, 67), (17, 9), (9, 17), (100, 7), (3, 50), (50, 2)])
def test_resizing_agrees_with_a_sum_over_the_mirrored_row(n_in, n_out):
    x = random(n_in, 5)
    slow = torch.tensor([slow_resize(x[:, c].tolist(), n_out) for c in range(5)], dtype=torch.float64).T
    assert (vdp.resize(x, n_out, 5) - slow).abs().max() < 1e-13
    assert (vdp.resize(x.T, 5, n_out) - slow.T).abs().max() < 1e-13


def test_doubling_an_impulse_shows_the_kernel():
    # Samples of the cubic at 0.25, 0.75, 1.25 and 1.75, by hand.
    row = torch.zeros(1, 9, dtype=torch.float64)
    row[0, 4] = 1
    right = [0.8671875, 0.2265625, -0.0703125, -0.0234375]
    expected = torch.tensor([0] * 5 + right[::-1] + right + [0] * 5, dtype=torch.float64)
    assert (vdp.resize(row, 1, 18)[0] - expected).abs().max() < 1e-15


@pytest.mark.parametrize(("h", "w"), [(25, 32), (34, 51), (80, 120), (130, 99)])
def test_resizing_agrees_with_pillow_away_from_the_border(h, w):
    x = random(67, 100)
    pillow = torch.from_numpy(np.array(Image.fromarray(x.numpy().astype(np.float32)).resize((w, h), Image.Resampling.BICUBIC)))
    a, b = -(-h * 8 // 67), -(-w * 9 // 100)                                                    # Pillow treats the border differently
    assert (vdp.resize(x, h, w) - pillow)[a:-a, b:-b].abs().max() < 1e-5                        # Pillow computes in float32


def test_resizing_keeps_constants_and_leading_axes():
    x = random(2, 4, 1, 1).expand(2, 4, 20, 30)
    assert (vdp.resize(x, 11, 40) - x[:, :, :1, :1]).abs().max() < 1e-14


# --- the eye ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("diagonal", "distance", "ppd"), [(30, 0.55, PPD), (28, 0.55, 25.342365242086828), (24, 0.5, 26.762696)])
def test_pixels_per_degree_of_three_screens(diagonal, distance, ppd):
    assert abs(pixels_per_degree(diagonal, (1500, 1000), distance) - ppd) < 1e-6


def test_far_away_a_degree_is_the_distance_over_57_screens():
    height = 24 * 0.0254 * 3 / 5                            # of a 4:3 screen: 3-4-5 triangle
    assert abs(pixels_per_degree(24, (1600, 1200), 1000) / (1200 * 1000 * math.pi / 180 / height) - 1) < 1e-6


@pytest.mark.parametrize("screen", [(0, (1500, 1000), 0.5), (30, (1500, 0), 0.5), (30, (1500, 1000), -1), (30, (1500,), 1),
                                    (math.nan, (1500, 1000), 0.5), (30, (1500, 1000), math.nan)])
def test_impossible_screens_are_refused(screen):
    with pytest.raises(ValueError, match="pixels_per_degree: .*must be positive"):
        pixels_per_degree(*screen)


def test_srgb_display_at_hand_values():
    light = vdp.display(torch.tensor([0, 0.04, 0.5, 1], dtype=torch.float64), "sRGB-display").tolist()
    for found, expected in zip(light, (1, 1.3065015480, 22.190072914, 100)):                    # 1 + 99 * 0.214041140 at 0.5
        assert abs(found - expected) < 1e-7
    assert vdp.display(torch.tensor(7.0), "rgb-bt.709") == 7


def test_optics_pass_a_constant_whole_and_fine_detail_as_the_formula_says():
    rho = torch.tensor([0, 8, 1000], dtype=torch.float64)
    p0, p1 = 0.061466549455263, 0.99727370023777070
    at_8 = 0.426 * p1 * math.exp(-0.224) + 0.574 * p1 * math.exp(-2.96) + (1 - p1) * p0 * math.exp(-296)
    for found, expected in zip(vdp.mtf(rho).tolist(), (1, at_8, 0)):
        assert abs(found - expected) < 1e-9


PARAMETERS = {0.002: (0.991265, 3.74038, 0.50722, 4.46044), 0.02: (0.800889, 3.54104, 0.682505, 4.94958),
              0.2: (0.476505, 4.37453, 0.750315, 5.28678), 2: (0.405782, 4.40602, 0.935314, 5.61425),
              20: (0.334278, 3.79542, 1.07327, 6.4635), 150: (0.394533, 2.7755, 1.16577, 7.45665)}


def slow_csf(rho, p1, p2, p3, p4):
    return p4 * (1 - math.exp(-rho * rho / 49)) ** (p3 / 2) / math.sqrt(1 + (p1 * rho) ** p2)


@pytest.mark.parametrize("rho", [0.5, 3, 12.0])
def test_contrast_sensitivity_has_its_printed_parameters(rho):
    for L, parameters in PARAMETERS.items():
        assert abs(vdp.csf(rho, torch.tensor(L, dtype=torch.float64)).item() / slow_csf(rho, *parameters) - 1) < 1e-12
    between = [(a + b) / 2 for a, b in zip(PARAMETERS[0.2], PARAMETERS[2])]                     # halfway on a log axis
    assert abs(vdp.csf(rho, torch.tensor(0.4 ** 0.5, dtype=torch.float64)).item() / slow_csf(rho, *between) - 1) < 1e-12
    for L, end in ((1e-5, 0.002), (1e4, 150)):
        assert abs(vdp.csf(rho, torch.tensor(L, dtype=torch.float64)).item() / slow_csf(rho, *PARAMETERS[end]) - 1) < 1e-12


def test_contrast_sensitivity_of_a_constant_is_zero():
    assert vdp.csf(torch.zeros(2, dtype=torch.float64), torch.tensor(20.0, dtype=torch.float64)).tolist() == [0, 0]


def test_noise_is_the_inverse_of_sensitivity_at_each_pixel():
    log_La = torch.tensor([-6.0, -1, 1.5, 6], dtype=torch.float64).clamp(-5, 5).repeat_interleave(8).expand(3, 32)
    N = vdp.neural_noise(log_La, 4.0, 3, 32)
    for column, log_L in ((2, -5), (12, -1), (20, 1.5), (29, 5)):
        expected = 1 / vdp.csf(4.0, torch.tensor(10.0 ** log_L, dtype=torch.float64)).item()
        assert abs(N[1, column].item() / expected - 1) < 1e-3                                   # the table has 256 entries
    assert vdp.neural_noise(log_La, 4.0, 2, 9).shape == (2, 9)


def slow_responses():
    """Both sensitivities on the grid, in plain Python, and their sums of trapezoids."""
    grid = [10 ** (-5 + 10 * i / 2047) for i in range(2048)]

    def joint(c):
        return 30.162 * ((4.0627 / c) ** 1.6596 + 1) ** -0.2712

    def rod(c):
        exponent, divisor = (2.9899, 0.5547) if c > 1.1732 else (1.2167, 1.1478)
        return 10 ** 1.1414 * math.exp(-abs(math.log10(c / 1.1732)) ** exponent / divisor)

    cone = 0.5 * np.interp([min(2 * c, grid[-1]) for c in grid], grid, [max(joint(c) - rod(c), 1e-3) for c in grid])
    responses = []
    for sensitivity in (cone, [rod(c) for c in grid]):
        total, response = 0.0, [0.0]
        for i in range(1, 2048):
            total += 0.5 * (sensitivity[i - 1] + sensitivity[i]) * math.log(grid[i] / grid[i - 1])
            response.append(total * 0.006894596 / 10 ** -2.4)
        responses.append(response)
    return grid, *responses


def test_responses_are_sums_of_trapezoids():
    log_c, *responses = vdp.receptor_responses()
    grid, *slow = slow_responses()
    assert abs(10 ** log_c[700].item() / grid[700] - 1) < 1e-12
    for response, expected in zip(responses, slow):
        assert response[0] == 0 and (response - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-9 * expected[-1]
        assert (response.diff() >= 0).all()


def test_cones_in_daylight_respond_to_the_logarithm():
    # Rods are blind there, and the joint sensitivity is 30.162: each cone gets half.
    log_c, cone, rod = vdp.receptor_responses()
    slope = ((cone[1700] - cone[1600]) / (log_c[1700] - log_c[1600]) / math.log(10)).item()
    assert abs(slope / (0.5 * 30.162 * 0.006894596 / 10 ** -2.4) - 1) < 1e-4 and rod[1700] - rod[1600] < 1e-9


def test_interpolation_is_that_of_numpy():
    xs, ys, x = [-1.0, 0.5, 2, 7], [3.0, -1, 4, 4.5], np.linspace(-3, 9, 61)
    assert np.abs(vdp.interpolate(torch.from_numpy(x), xs, ys).numpy() - np.interp(x, xs, ys)).max() < 1e-14
    assert vdp.interpolate(0.5, xs, ys) == -1


def test_filtering_on_a_canvas_agrees_with_the_whole_complex_spectrum():
    x, ppd, fill = random(9, 14), 20.0, 0.3
    canvas = np.full((18, 28), fill)
    canvas[9:, 14:] = x.numpy()                                                                 # the margin may lie on any side
    rho = np.hypot(np.fft.fftfreq(18)[:, None] * ppd, np.fft.fftfreq(28) * ppd)
    gain = vdp.mtf(torch.from_numpy(rho)).numpy()
    slow = np.fft.ifft2(np.fft.fft2(canvas) * gain).real[9:, 14:]
    assert np.abs(vdp.filter_padded(x, vdp.mtf(vdp.frequencies(9, 14, ppd, "cpu")), fill).numpy() - slow).max() < 1e-14


def test_receptors_without_blur_see_each_pixel_alone():
    light, ppd = 10 ** (6 * random(3, 6, 7) - 3), 1e-12                                         # pixels as large as the world
    P, La = vdp.photoreceptors(light, ppd)
    R_L, R_M, _, R_rod = np.einsum("chw,cl->lhw", light.numpy(), np.array(CONSTANTS["lmsr_of_rgb_ccfl_lcd"]))
    grid, cone, rod = slow_responses()
    P_L, P_M, P_rod = (np.interp(np.log10(R), np.log10(grid), response) for R, response in ((R_L, cone), (R_M, cone), (R_rod, rod)))
    assert np.abs(La.numpy() / (R_L + R_M) - 1).max() < 1e-6
    assert np.abs(P.numpy() - (P_L + P_M - (P_L + P_M).mean() + P_rod - P_rod.mean())).max() < 1e-6


def test_a_bright_image_is_darker_at_its_border():
    _, La = vdp.photoreceptors(torch.full((3, 40, 40), 100, dtype=torch.float64), 30)           # the dark around it is blurred in
    assert La[0, 0] < La[0, 20] < La[20, 20] < 100 * sum(row[0] + row[1] for row in CONSTANTS["lmsr_of_rgb_ccfl_lcd"])


# --- bands -----------------------------------------------------------------------------------------------------------

def slow_correlate(x, f):
    r, padded = len(f) // 2, np.pad(x, len(f) // 2, mode="reflect")
    return sum(f[u, v] * padded[u:u + x.shape[0], v:v + x.shape[1]] for u in range(2 * r + 1) for v in range(2 * r + 1))


@pytest.mark.parametrize("shape", [(9, 9), (17, 31), (40, 26)])
def test_correlation_agrees_with_shifted_sums(shape):
    x, filters = random(2, *shape), [random(3, 3), random(17, 17, seed=1), random(9, 9, seed=2)]
    for f, y in zip(filters, vdp.correlate(x, filters)):
        for image, result in zip(x, y):
            assert np.abs(result.numpy() - slow_correlate(image.numpy(), f.numpy())).max() < 1e-12


def test_correlation_in_float32_is_good_to_seven_digits():
    x, f = random(1, 40, 50), random(15, 15, seed=1) - 0.5
    found, = vdp.correlate(x.float(), [f.float()])
    exact, = vdp.correlate(x, [f])
    assert found.dtype == torch.float32 and 0 < (found - exact).abs().max() < 1e-6 * exact.abs().max()


@pytest.mark.parametrize(("n", "fast"), [(1, 1), (17, 18), (1016, 1024), (2017, 2025)])
def test_fft_lengths_have_factors_of_two_three_and_five(n, fast):
    assert vdp._fast_size(n) == fast


@pytest.mark.parametrize(("H", "W", "n"), [(16, 99, 0), (17, 17, 1), (33, 99, 1), (34, 34, 2), (67, 100, 2), (99, 68, 3), (130, 200, 3),
                                           (1000, 1500, 6), (136, 136, 4)])
def test_levels_follow_the_shorter_side_halved_and_rounded_down(H, W, n):
    assert vdp.pyramid_levels(H, W) == n


@pytest.mark.parametrize(("H", "W", "sizes"), [(67, 100, [(67, 100), (67, 100), (34, 50), (17, 25)]),
                                               (130, 201, [(130, 201), (130, 201), (65, 101), (33, 51), (17, 26)])])
def test_sizes_of_bands_round_up(H, W, sizes):
    bands = list(vdp.steerable_pyramid(random(2, H, W), torch.float32))
    assert [tuple(band.shape) for band in bands] == [(2, 1 if b in (0, len(sizes) - 1) else 4, *size) for b, size in enumerate(sizes)]
    assert all(band.dtype == torch.float32 for band in bands)


def test_pyramid_agrees_with_its_recipe_in_shifted_sums():
    x = random(2, 39, 34)
    hi0, lo0, lo, oriented = (np.array(CONSTANTS[name]) for name in ("sp3_hi0", "sp3_lo0", "sp3_lo", "sp3_bands"))
    found = list(vdp.steerable_pyramid(x, torch.float64))
    for i in range(2):
        expected, low = [[slow_correlate(x[i].numpy(), hi0)]], slow_correlate(x[i].numpy(), lo0)
        for _ in range(2):
            expected.append([slow_correlate(low, f) for f in oriented])
            low = slow_correlate(low, lo)[::2, ::2]
        expected.append([low])
        assert len(found) == 4
        for band, slow in zip(found, expected):
            assert np.abs(band[i].numpy() - np.stack(slow)).max() < 1e-12


def test_base_band_is_filtered_under_its_own_light_with_the_references_mean_around():
    P, La = random(2, 20, 30) * 100, torch.stack([torch.full((20, 30), L, dtype=torch.float64) for L in (0.2, 20)])
    *_, plain = vdp.steerable_pyramid(P, torch.float64)
    *others, base = vdp.all_bands(P, La, 30.0, torch.float64)
    assert len(others) == 2 and base.shape == plain.shape == (2, 1, 10, 15)
    ppd = 30 / 2 / 4 * 2 * 2 ** 0.5                                                             # band 2 lies at 30 / 2 / 4
    rho = np.hypot(np.fft.fftfreq(20)[:, None] * ppd, np.fft.fftfreq(30) * ppd)
    for i, L in enumerate((0.2, 20)):
        canvas = np.full((20, 30), plain[1].mean().item())
        canvas[:10, :15] = plain[i, 0].numpy()
        gain = np.vectorize(lambda r, L=L: slow_csf(r, *PARAMETERS[L]))(rho)
        slow = np.fft.ifft2(np.fft.fft2(canvas) * gain).real[:10, :15]
        assert np.abs(base[i, 0].numpy() - slow).max() < 1e-10 * np.abs(slow).max()


# --- masking ---------------------------------------------------------------------------------------------------------

def test_mutual_mask_is_the_mean_of_the_smaller_magnitude():
    T = torch.tensor([[9.0, -9, 0], [-3, 6, 0], [0, 0, 0]], dtype=torch.float64)
    R = torch.tensor([[-1.0, -9, 5], [9, -3, 0], [0, 0, 4]], dtype=torch.float64)
    M = vdp.mutual_mask(torch.stack([T, R])[:, None])                                           # the smaller: 1 9 0 / 3 3 0 / 0 0 0
    assert M.shape == (1, 3, 3)
    assert abs(M[0, 1, 1].item() - 16 / 9) < 1e-15 and abs(M[0, 0, 0].item() - 16 / 9) < 1e-15 and abs(M[0, 2, 2].item() - 3 / 9) < 1e-15


def test_neighbours_mask_their_own_orientation_or_share_the_only_one():
    ones = torch.ones(4, 1, 1, dtype=torch.float64)
    finer, coarser = (torch.tensor(values, dtype=torch.float64)[:, None, None] * ones[0] for values in ([1, 2, 3, 4], [10, 20, 30, 40]))
    M, finer, coarser = torch.zeros(4, 12, 12).double(), finer.expand(4, 24, 24), coarser.expand(4, 6, 6)
    xn = vdp.neighbour_mask(M, finer, coarser, 4.0)                                             # divided by 4 / 2 and by 4 * 2
    assert torch.allclose(xn[:, 5, 5], torch.tensor([1 / 2 + 10 / 8, 2 / 2 + 20 / 8, 3 / 2 + 30 / 8, 4 / 2 + 40 / 8]).double())
    only = vdp.neighbour_mask(M, finer[2:3], None, 4.0)
    assert only.shape == (1, 12, 12) and torch.allclose(only, torch.tensor(1.5).double())       # one map for all four
    first = vdp.neighbour_mask(M[:1], finer, None, 4.0)
    assert torch.allclose(first, torch.tensor(0.5).double())                                    # one orientation has the first of four
    spike = torch.zeros(1, 12, 12, dtype=torch.float64)
    spike[0, 6, 6] = 1
    assert vdp.resize(spike, 24, 24).min() < 0 <= vdp.neighbour_mask(torch.zeros(1, 24, 24).double(), None, spike, 1.0).min()


def test_visible_difference_at_one_pixel_by_hand():
    T, R, M, N, bn, xn = [3.0, -1.0, 0.5, 2.0], [1.0, -2.0, 0.5, 2.5], [0.3, 0.7, 0.2, 0.1], 0.25, 4.0, [0.05, 0.6, 0.02, 0.4]
    p, q, k_self, k_xo, k_xn = (10 ** e for e in (0.544068, 0.49576, 0.189065, 0.449199, 1.52512))
    pair = torch.tensor([T, R], dtype=torch.float64)[:, :, None, None]
    maps = [torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (M, xn)]
    found = [D.item() for D in vdp.visible_difference(pair, *maps, torch.full((1, 1), N, dtype=torch.float64), bn)]
    for o in range(4):
        N_mask = bn * (k_self * (M[o] / N / bn) ** q + k_xo * ((sum(M) - M[o]) / N / bn) ** q + k_xn * (xn[o] / N) ** q)
        D = math.copysign(abs((T[o] - R[o]) / bn) ** p * bn, T[o] - R[o]) if T[o] != R[o] else 0
        assert abs(found[o] - D / math.sqrt(N ** (2 * p) + N_mask ** 2)) < 1e-12
    assert found[0] > 0 == found[2] > found[3]
