"""The denoising network of the diffusion model: a small U-Net in the latent space of the prior.

Paper: Sec. 4.2 "eps_theta(Concat(z_t, D), t)", Sec. 5.1 "U-Net ... from [19], with 3 levels of blocks {2, 2, 2}".
The blocks are those of DDPM ([8], Ho et al. 2020) [assumed A8].

    paper        code
    z_t          z_t      (B, N, h, w) noisy prior, h = H/4
    D            D        (B, N, h, w) condition from the LDR frames
    t            t        (B,) int64 in 1 .. T
    eps_theta    output   (B, N, h, w): v, from which ddim.noise_from_output makes the noise eps_hat, or eps_hat itself

    python denoiser.py         prints shapes and parameter counts
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from common import count_parameters

SCORES = 2 ** 21        # elements of softmax(Q K^T) at a time on the CPU: 4 MB in bfloat16


@dataclass
class DenoiserConfig:
    """The denoising U-Net."""
    unet_width: int = 32                            # features of the first level [assumed A8: meets Table 3's +1.63 M]
    unet_multipliers: tuple[int, ...] = (1, 2, 2)   # width of each level over the first [paper: 3 levels | assumed A8]
    unet_blocks: int = 2                            # residual blocks a level [paper: Sec. 5.1]


def timestep_embedding(t, dim):
    """Sines and cosines of t at geometric frequencies. t: (B,). Returns: (B, dim) float32, dim even. Source: [8]."""
    frequency = torch.exp(-math.log(10000.0) * torch.arange(dim // 2, device=t.device) / (dim // 2))     # (dim/2,)
    angle = t[:, None].float() * frequency[None, :]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class TimeResidualBlock(nn.Module):
    """Residual block of [8]: norm, SiLU, conv, twice, with the time added in between."""

    def __init__(self, in_channels, out_channels, time_channels):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, in_channels), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_channels, out_channels)
        self.norm2, self.conv2 = nn.GroupNorm(8, out_channels), nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x, time):
        """x: (B, C_in, h, w), time: (B, time_channels). Returns: (B, C_out, h, w)."""
        at_inference = not torch.is_grad_enabled()                  # then a norm's output may be overwritten
        y = self.conv1(nnf.silu(self.norm1(x), inplace=at_inference))
        y = y.add_(self.time(nnf.silu(time))[:, :, None, None])
        return self.conv2(nnf.silu(self.norm2(y), inplace=at_inference)).add_(self.skip(x))


def attention(Q, K, V):
    """softmax(Q K^T / sqrt(C)) V. Q, K, V: (B, 1, n, C). Returns: (B, 1, n, C).

    On the CPU without gradients some queries at a time: both products are then plain matrix products in the cache, 2.8 times as fast
    in bfloat16 as torch's own fused attention.
    """
    if torch.is_grad_enabled() or Q.device.type != "cpu" or len(Q) > 1:
        return nnf.scaled_dot_product_attention(Q, K, V)
    Q, K, V = Q[0, 0], K[0, 0].T / Q.shape[-1] ** 0.5, V[0, 0]                          # (n, C), (C, n), (n, C)
    some = max(SCORES // len(V), 64)
    return torch.cat([torch.softmax(Q_s @ K, dim=-1) @ V for Q_s in Q.split(some)])[None, None]


class PixelAttention(nn.Module):
    """Self-attention over pixels, one head, as in [8]; used at the lowest level only."""

    def __init__(self, channels):
        super().__init__()
        self.norm, self.qkv, self.out = nn.GroupNorm(8, channels), nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        """x: (B, C, h, w). Returns: (B, C, h, w)."""
        B, C, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, 3, C, h * w)
        Q, K, V = (part.transpose(1, 2).contiguous()[:, None] for part in qkv.unbind(dim=1))      # (B, 1, hw, C): with a head
        y = attention(Q, K, V)[:, 0]                                # and contiguous, so that memory stays linear in hw
        return x + self.out(y.transpose(1, 2).reshape(B, C, h, w))


class Denoiser(nn.Module):
    """The network of eps_theta(Concat(z_t, D), t)."""

    def __init__(self, config, prior_channels=3):
        super().__init__()
        widths = [config.unet_width * m for m in config.unet_multipliers]
        width, time_channels, lowest = widths[0], 4 * widths[0], len(widths) - 1
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels))
        self.inward = nn.Conv2d(2 * prior_channels, width, 3, padding=1)

        self.down, skips = nn.ModuleList(), [width]     # one entry a level: blocks, attentions, downsampling
        for level, out in enumerate(widths):
            blocks, attentions = nn.ModuleList(), nn.ModuleList()
            for _ in range(config.unet_blocks):
                blocks.append(TimeResidualBlock(width, out, time_channels))
                attentions.append(PixelAttention(out) if level == lowest else nn.Identity())
                width = out
                skips.append(width)
            smaller = nn.Conv2d(width, width, 3, stride=2, padding=1) if level < lowest else None
            if smaller is not None:
                skips.append(width)
            self.down.append(nn.ModuleDict({"blocks": blocks, "attentions": attentions, "resize": smaller or nn.Identity()}))

        self.middle1, self.middle2 = (TimeResidualBlock(width, width, time_channels) for _ in range(2))
        self.middle_attention = PixelAttention(width)

        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            blocks, attentions = nn.ModuleList(), nn.ModuleList()
            for _ in range(config.unet_blocks + 1):
                blocks.append(TimeResidualBlock(width + skips.pop(), out, time_channels))
                attentions.append(PixelAttention(out) if level == lowest else nn.Identity())
                width = out
            larger = nn.Conv2d(width, width, 3, padding=1) if level > 0 else nn.Identity()
            self.up.append(nn.ModuleDict({"blocks": blocks, "attentions": attentions, "resize": larger}))
        self.norm, self.out = nn.GroupNorm(8, width), nn.Conv2d(width, prior_channels, 3, padding=1)

    def forward(self, z_t, D, t):
        """z_t, D: (B, N, h, w), h and w multiples of 4; t: (B,) int64 in 1 .. T. Returns: output (B, N, h, w), see the top of this file.

        Source: Sec. 4.2, below Eq. 13.
        """
        time = self.time(timestep_embedding(t, self.width))         # (B, 4 width)
        x = self.inward(torch.cat([z_t, D], dim=1))                 # (B, 2N, h, w) -> (B, width, h, w)
        skips = [x]
        for level, stage in enumerate(self.down):
            for block, attention in zip(stage["blocks"], stage["attentions"]):
                x = attention(block(x, time))
                skips.append(x)
            if level < len(self.down) - 1:
                x = stage["resize"](x)                              # half the size
                skips.append(x)
        x = self.middle2(self.middle_attention(self.middle1(x, time)), time)
        for level, stage in enumerate(self.up):
            for block, attention in zip(stage["blocks"], stage["attentions"]):
                x = attention(block(torch.cat([x, skips.pop()], dim=1), time))
            if level < len(self.up) - 1:
                x = stage["resize"](nnf.interpolate(x, scale_factor=2, mode="nearest"))     # twice the size
        return self.out(nnf.silu(self.norm(x)))                     # (B, N, h, w)


if __name__ == "__main__":
    denoiser = Denoiser(DenoiserConfig())
    z_t, D, t = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32), torch.tensor([1, 200])
    print(f"Denoiser   z_t {tuple(z_t.shape)}, D {tuple(D.shape)}, t {tuple(t.shape)} -> "
          f"{tuple(denoiser(z_t, D, t).shape)}   {count_parameters(denoiser):,} parameters")
