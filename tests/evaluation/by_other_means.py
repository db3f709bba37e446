"""The metrics of images by other means: scikit-image and NumPy."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def mu_law(hdr):
    return np.log(1 + 5000 * hdr) / np.log(5001)


def skimage_ssim(a, b):
    """SSIM of two (H, W, 3) images in [0, 1]. The map has a reflected border, so its valid region is cut out, as for scikit-image's own mean."""
    _, full = structural_similarity(255 * a.clip(0, 1), 255 * b.clip(0, 1), gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                    data_range=255, channel_axis=2, full=True)
    return full[5:-5, 5:-5].mean()


def expected(hdr_hat, hdr):
    """Computes the metrics of two (3, H, W) tensors with scikit-image."""
    a, b = (image.permute(1, 2, 0).double().numpy() for image in (hdr_hat, hdr))
    return {"psnr_mu": peak_signal_noise_ratio(mu_law(b), mu_law(a), data_range=1), "psnr_l": peak_signal_noise_ratio(b, a, data_range=1),
            "ssim_mu": skimage_ssim(mu_law(a), mu_law(b)), "ssim_l": skimage_ssim(a, b)}


def assert_scored(row, hdr_hat, hdr):
    for key, value in expected(hdr_hat, hdr).items():
        assert row[key] == pytest.approx(value, abs=2e-4 if "psnr" in key else 2e-6), key       # H^ and T are float32


def noisy_pair(H=41, W=37):
    generator = torch.Generator().manual_seed(3)
    hdr = torch.rand(3, H, W, generator=generator) ** 3
    return (hdr + 0.05 * torch.randn(3, H, W, generator=generator)).clamp(0, 1), hdr
