"""The five numbers of Table 1 for one image: PSNR and SSIM, linear and after the mu-law, and HDR-VDP-2.

Paper: Sec. 5.1. Everything is measured on the whole image, range 1 (SSIM: 255), without rounding to 8 bits.

    PSNR-L     -10 log10 of the mean squared error over all pixels and channels (data.py, psnr)
    SSIM-L     ssim of H^ and H
    -mu        the same after T of Eq. 6
    HDR-VDP-2  see evaluation/hdrvdp2.py; the number means nothing without its settings

SSIM is not in loss.py, because it is only reported and nothing trains on it.
"""

import torch

from data import T, psnr
from evaluation.hdrvdp2 import quality

METRICS = {"psnr_mu": ("PSNR-μ", ".2f"), "psnr_l": ("PSNR-L", ".2f"), "ssim_mu": ("SSIM-μ", ".4f"), "ssim_l": ("SSIM-L", ".4f"),
           "hdrvdp2": ("HDR-VDP-2", ".2f")}     # key: title and format

WINDOW, SIGMA = 11, 1.5                         # of the Gaussian, pixels
RANGE, K1, K2 = 255.0, 0.01, 0.03


def _blur(x):
    """Computes the Gaussian mean around each pixel whose window lies inside the image. x: (1, 1, H, W). Returns: (1, 1, H - 10, W - 10)."""
    k = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weight = torch.exp(-k ** 2 / (2 * SIGMA ** 2))
    weight = weight / weight.sum()
    rows = sum(w * x[..., i:x.shape[-2] - WINDOW + 1 + i, :] for i, w in enumerate(weight))
    return sum(w * rows[..., i:x.shape[-1] - WINDOW + 1 + i] for i, w in enumerate(weight))


@torch.no_grad()
def ssim(image_hat, image):
    """Computes the structural similarity: Gaussian window 11x11 of deviation 1.5, valid region, C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2.

    image_hat, image: (3, H, W) or (1, 3, H, W) of one size, H and W at least 11; clipped to [0, 1] and multiplied by 255, not rounded.
    Returns: float, the mean over pixels and channels; 1 for equal images. Computed in float64, because a variance is a small difference
        between two means, and one channel at a time, which takes 120 bytes per pixel.
    Raises: ValueError for images that differ in size or are too small.
    Source: Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.
    """
    if image_hat.shape != image.shape or image.numel() != 3 * image.shape[-2] * image.shape[-1] or min(image.shape[-2:]) < WINDOW:
        raise ValueError(f"ssim: found {tuple(image_hat.shape)} and {tuple(image.shape)}; give two images (3, H, W) of one size, "
                         f"{WINDOW} or more pixels per side")
    C1, C2, values = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2, []
    for x, y in zip(image_hat.reshape(3, 1, 1, *image.shape[-2:]), image.reshape(3, 1, 1, *image.shape[-2:])):
        x, y = (RANGE * (c.cpu() if c.device.type == "mps" else c).double().clamp(0, 1) for c in (x, y))      # MPS has no float64
        mean_x, mean_y = _blur(x), _blur(y)
        var_x, var_y, cov = _blur(x * x) - mean_x ** 2, _blur(y * y) - mean_y ** 2, _blur(x * y) - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + C1) / (mean_x ** 2 + mean_y ** 2 + C1)
        values.append((luminance * (2 * cov + C2) / (var_x + var_y + C2)).mean())
    return float(torch.stack(values).mean())


def score(hdr_hat, hdr, screen=None):
    """Computes all scores of one image.

    hdr_hat, hdr: (1, 3, H, W) linear radiance in [0, 1], on the same device. screen: HDRVDP2Config, or None to leave HDR-VDP-2 out.
    Returns: {key of METRICS: float}.
    """
    hdr_mu_hat, hdr_mu = T(hdr_hat), T(hdr)
    scores = {"psnr_mu": psnr(hdr_mu_hat, hdr_mu), "psnr_l": psnr(hdr_hat, hdr),
              "ssim_mu": ssim(hdr_mu_hat, hdr_mu), "ssim_l": ssim(hdr_hat, hdr)}
    del hdr_mu_hat, hdr_mu
    if screen is not None:
        scores["hdrvdp2"] = quality(hdr_hat.clamp(0, 1), hdr, screen)       # blended tiles and a merge can reach 1.0000001, which it refuses
    return scores
