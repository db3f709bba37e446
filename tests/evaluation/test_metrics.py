"""evaluation/metrics.py: PSNR and SSIM by hand and against scikit-image."""

import numpy as np
import pytest
import torch

from by_other_means import assert_scored, noisy_pair
from evaluation.hdrvdp2 import HDRVDP2Config, hdrvdp2
from evaluation.metrics import score, ssim


def test_psnr_has_the_values_computed_by_hand():
    white, black, grey = torch.ones(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 0.5)
    assert score(white, black)["psnr_l"] == score(white, black)["psnr_mu"] == 0                 # mean squared error 1
    assert score(white, grey)["psnr_l"] == pytest.approx(6.0206, abs=1e-4)                      # 1/4
    assert score(white, grey)["psnr_mu"] == pytest.approx(-20 * np.log10(np.log(5001 / 2501) / np.log(5001)), abs=1e-4)     # 21.80
    one = black.clone()
    one[0, 1, 3, 4] = 0.1
    assert score(one, black)["psnr_l"] == pytest.approx(10 * np.log10(3 * 16 * 16 / 0.01), abs=1e-4)        # over pixels and channels


def test_psnr_and_ssim_agree_with_scikit_image():
    hdr_hat, hdr = noisy_pair()
    assert_scored(score(hdr_hat[None], hdr[None]), hdr_hat, hdr)
    assert score(hdr_hat[None], hdr[None]).keys() == {"psnr_mu", "psnr_l", "ssim_mu", "ssim_l"}


def test_ssim_of_two_constants_is_its_luminance_term():
    a, b = torch.full((3, 12, 20), 0.2), torch.full((3, 12, 20), 0.6)
    C1 = 2.55 ** 2
    assert ssim(a, b) == pytest.approx((2 * 51 * 153 + C1) / (51 ** 2 + 153 ** 2 + C1), rel=1e-6)
    assert ssim(a, a) == 1


def test_ssim_of_one_window_is_the_formula_with_weights_written_out():
    a, b = (image[:, :11, :11] for image in noisy_pair())
    offsets = np.arange(11) - 5
    weight = np.exp(-(offsets[:, None] ** 2 + offsets ** 2) / 4.5)
    weight, values = weight / weight.sum(), []
    for x, y in zip(255 * a.double().numpy(), 255 * b.double().numpy()):
        mx, my = (weight * x).sum(), (weight * y).sum()
        vx, vy, cov = (weight * (x - mx) ** 2).sum(), (weight * (y - my) ** 2).sum(), (weight * (x - mx) * (y - my)).sum()
        values.append((2 * mx * my + 6.5025) * (2 * cov + 58.5225) / ((mx ** 2 + my ** 2 + 6.5025) * (vx + vy + 58.5225)))
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-10)


def test_ssim_clips_and_does_not_round():
    hdr_hat, hdr = noisy_pair()
    beyond = torch.where(hdr_hat == 1, 3.0, torch.where(hdr_hat == 0, -2.0, hdr_hat))
    assert (beyond != hdr_hat).any() and ssim(beyond, hdr) == ssim(hdr_hat, hdr)
    flat = torch.full((3, 16, 16), 0.5)
    assert 1 > ssim(flat + 0.3 / 255 * (hdr[:, :16, :16] - 0.5), flat) > 0.999          # all of it would round to one value


def test_ssim_refuses_images_that_have_no_window_in_common():
    for a, b in (((3, 10, 40), (3, 10, 40)), ((3, 20, 20), (3, 20, 21)), ((2, 3, 20, 20), (2, 3, 20, 20))):
        with pytest.raises(ValueError, match="ssim: found .*one size"):
            ssim(torch.zeros(a), torch.zeros(b))


def test_hdrvdp2_is_that_of_its_settings_and_takes_values_a_rounding_above_1():
    hdr_hat, hdr = noisy_pair()
    screen = HDRVDP2Config("rgb-bt.709", 24.0, (1920, 1200), 0.5, peak=300.0)
    by_default, by_screen = (score(hdr_hat[None], hdr[None], config)["hdrvdp2"] for config in (HDRVDP2Config(), screen))
    assert by_default == hdrvdp2(hdr_hat, hdr) and by_screen != by_default
    hdr[0, 0, 0] = 1
    assert score((hdr + 1.2e-7)[None], hdr[None], HDRVDP2Config())["hdrvdp2"] > 99.99
