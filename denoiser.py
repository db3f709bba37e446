"""The denoising network of the diffusion model: a small U-Net in the latent space of the prior.

Paper: Sec. 4.2 "eps_theta(Concat(z_t, D), t)", Sec. 5.1 "U-Net ... from [19], with 3 levels of blocks {2, 2, 2}".
The blocks are those of DDPM ([8], Ho et al. 2020) [assumed A8].

    paper        code
    z_t          z_t      (B, N, h, w) noisy prior, h = H/4
    D            D        (B, N, h, w) condition from the LDR frames
    t            t        (B,) int64 in 1 .. T
    eps_theta    output   (B, N, h, w): v, from which ddim.noise_from_output computes the noise eps_hat, or eps_hat itself

    python denoiser.py         prints shapes and parameter counts
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from common import Depth, Eights, Whole, count_parameters


@dataclass
class DenoiserConfig:
    """The denoising U-Net."""
    unet_width: Eights = 32                         # features of the first level [assumed A8: meets Table 3's +1.63 M]
    unet_multipliers: tuple[Depth, ...] = (1, 2, 2)  # width of each level relative to the first [paper: 3 levels | assumed A8]
    unet_blocks: Depth = 2                          # residual blocks per level [paper: Sec. 5.1]
    unet_window: Whole = 8                          # side of the attention windows, in pixels of the lowest level; 0: none [assumed A8: a patch of 128]


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
        y = self.conv1(nnf.silu(self.norm1(x)))                     # (B, C_out, h, w)
        y = y + self.time(nnf.silu(time))[:, :, None, None]
        return self.skip(x) + self.conv2(nnf.silu(self.norm2(y)))


def windows(x, m, n):
    """Cuts maps into windows of m x n pixels. x: (B, C, a m, b n). Returns: (B a b, 1, m n, C): each pixel is a token, and there is one head."""
    return x.unflatten(3, (-1, n)).unflatten(2, (-1, m)).permute(0, 2, 4, 3, 5, 1).reshape(-1, 1, m * n, x.shape[1])


def unwindows(tokens, m, n, H, W):
    """Undoes `windows`. tokens: (B a b, 1, m n, C). Returns: (B, C, H, W), H = a m, W = b n."""
    return tokens.reshape(-1, H // m, W // n, m, n, tokens.shape[-1]).permute(0, 5, 1, 3, 2, 4).reshape(-1, tokens.shape[-1], H, W)


class PixelAttention(nn.Module):
    """Self-attention over pixels, one head, as in [8]; used at the lowest level only. A pixel attends only to its own window [assumed A8].

    By default, a window is as large as a training patch of 128 pixels at this level, so each window of a large image looks like a training patch.
    """

    def __init__(self, channels, window):
        super().__init__()
        self.window = window            # side in pixels; 0: one window, the whole map
        self.norm, self.qkv, self.out = nn.GroupNorm(8, channels), nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        """x: (B, C, h, w). Returns: (B, C, h, w)."""
        h, w = x.shape[-2:]
        m, n = min(self.window or h, h), min(self.window or w, w)
        padding = (0, -w % n, 0, -h % m)                            # the windows at the right and bottom reach beyond the map
        qkv = nnf.pad(self.qkv(self.norm(x)), padding)              # (B, 3C, a m, b n)
        (H, W), inside = qkv.shape[-2:], None
        if any(padding):
            inside = windows(nnf.pad(torch.ones(1, 1, h, w, dtype=torch.bool, device=x.device), padding), m, n).transpose(2, 3)
            inside = inside.repeat(len(x), 1, 1, 1)                 # (B a b, 1, 1, m n): pixels beyond the map are masked out
        Q, K, V = (windows(part, m, n) for part in qkv.chunk(3, dim=1))                     # (B a b, 1, m n, C)
        y = unwindows(nnf.scaled_dot_product_attention(Q, K, V, attn_mask=inside), m, n, H, W)[..., :h, :w]
        return x + self.out(y)


class Denoiser(nn.Module):
    """The network of eps_theta(Concat(z_t, D), t)."""

    def __init__(self, config, prior_channels=3):
        super().__init__()
        widths = [config.unet_width * m for m in config.unet_multipliers]
        width, time_channels, lowest = widths[0], 4 * widths[0], len(widths) - 1
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels))
        self.inward = nn.Conv2d(2 * prior_channels, width, 3, padding=1)

        def level_of(ins, out, attends, stride):        # ins: channels into each block; stride: of the last convolution, 0 for none
            pairs = [(TimeResidualBlock(channels, out, time_channels), PixelAttention(out, config.unet_window) if attends else nn.Identity())
                     for channels in ins]
            blocks, attentions = map(nn.ModuleList, zip(*pairs))
            resize = nn.Conv2d(out, out, 3, stride=stride, padding=1) if stride else nn.Identity()
            return nn.ModuleDict({"blocks": blocks, "attentions": attentions, "resize": resize})

        self.down, self.up, skips, n = nn.ModuleList(), nn.ModuleList(), [width], config.unet_blocks
        for level, out in enumerate(widths):
            self.down.append(level_of([width] + [out] * (n - 1), out, level == lowest, 2 * (level < lowest)))
            skips += [out] * (n + (level < lowest))
            width = out
        self.middle1, self.middle2 = (TimeResidualBlock(width, width, time_channels) for _ in range(2))
        self.middle_attention = PixelAttention(width, config.unet_window)
        for level, out in reversed(list(enumerate(widths))):
            ins = [channels + skips.pop() for channels in [width] + [out] * n]
            self.up.append(level_of(ins, out, level == lowest, int(level > 0)))
            width = out
        self.norm, self.out = nn.GroupNorm(8, width), nn.Conv2d(width, prior_channels, 3, padding=1)

    def forward(self, z_t, D, t):
        """z_t, D: (B, N, h, w), h and w multiples of 4; t: (B,) int64 in 1 .. T. Returns: output (B, N, h, w), see the header. Source: Sec. 4.2."""
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
    output = denoiser(torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32), torch.tensor([1, 200]))
    print(f"Denoiser   z_t and D (2, 3, 32, 32), t (2,) -> {tuple(output.shape)}   {count_parameters(denoiser):,} parameters")
