"""DHRNet: the regression network that rebuilds the HDR image with the help of the low-frequency prior z.

Paper: Sec. 4.1, Fig. 2 (a), Fig. 3, Eq. 7-10.

    paper            code
    F_{n-1}          F            (B, C, H, W) features; torch.nn.functional is `nnf` in this file
    F^low, F^high    F_low        (B, C, H/k, W/k);  F_high (B, C, H, W)
    k                k            config.pool_frm, 2, in an FRM; config.pool_pim, 4, in a PIM
    Q^, K^, V^       Q, K, V      cross-attention: (B, C, hw), (B, N, hw), (B, N, hw): channels are the tokens
    W_c, W_d         1x1 convolution, 3x3 depth-wise convolution
    gamma            gamma        trainable; not the gamma 2.2 of the camera (data.GAMMA)
    [45]             Restormer (Zamir et al., CVPR 2022): MDTA and GDFN

The paper prints matrices as (pixels x channels); we keep PyTorch's (channels, pixels), so its V^ . A is A^T V here.
Every formula stands here once, as printed. beyond/fast.py makes the same modules faster on a CPU.

    python dhrnet.py           prints shapes and parameter counts
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from align import AlignmentModule
from common import Count, Depth, Few, Positive, count_parameters
from lpenet import ResidualBlock


@dataclass
class DHRNetConfig:
    """DHRNet, with its alignment module."""
    channels: Count = 60            # C, features at full resolution [paper: Sec. 5.1]
    frms: tuple[Few, ...] = (3, 3, 3)   # L_1, L_2, L_3: FRMs in each reconstruction block, after its PIM [paper: Sec. 5.1]
    heads: Count = 6                # heads of the self-attention in an FRM; the PIM has one [paper: Sec. 5.1]
    expansion: Positive = 2.66      # width of the GDFN relative to C [paper: Sec. 5.1]
    pool_frm: Count = 2             # k of Eq. 7 in an FRM [paper: Sec. 5.1]
    pool_pim: Count = 4             # k of Eq. 7 in a PIM: F_low gets the size of z [paper: Sec. 5.1]
    high_blocks: Depth = 4          # residual blocks on F_high; 1 is the literal reading [assumed A2: meets Table 3]
    upsample: str = "bilinear"      # Upsample of Eq. 7 and 8, "bilinear" or "nearest" [assumed A5]


def upsample(F_low, k, mode="bilinear"):
    """Upsample(.) of Eq. 7 and 8. F_low: (B, C, h, w); mode: "bilinear" or "nearest". Returns: (B, C, k h, k w). [assumed A5: align_corners=False]"""
    return nnf.interpolate(F_low, scale_factor=k, mode=mode, align_corners=None if mode == "nearest" else False)


def split_frequencies(F, k, mode="bilinear"):
    """Splits features into a small smooth map and the rest. F: (B, C, H, W), H and W multiples of k, the size of the pooling kernel; mode: as in upsample.

    Returns: F_low (B, C, H/k, W/k) and F_high (B, C, H, W), with F = F_high + Upsample(F_low). Source: Eq. 7.
    """
    # Eq. 7:  F_low = AvgPool(F, k);  F_high = F - Upsample(F_low)
    F_low = nnf.avg_pool2d(F, k)                        # (B, C, H/k, W/k)
    F_high = F - upsample(F_low, k, mode)               # (B, C, H, W)
    return F_low, F_high


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of each pixel, as in [45]."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, F):
        """F: (B, C, h, w). Returns: the same shape, with mean 0 and variance 1 over C before the affine part."""
        return self.norm(F.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _project(in_channels, out_channels):
    """W_d W_c: point-wise 1x1, then depth-wise 3x3 convolution, without bias as in [45]."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False),
                         nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels, bias=False))


class MDTA(nn.Module):
    """Multi-Dconv head transposed attention of [45]: channels attend to channels, so the cost is linear in pixels."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = _project(channels, 3 * channels)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, F):
        """F: (B, C, h, w). Returns: (B, C, h, w), the update without the skip."""
        Q, K, V = self.qkv(F).flatten(2).unflatten(1, (3, self.heads, -1)).unbind(dim=1)    # (B, heads, C/heads, hw) each
        Q, K = nnf.normalize(Q, dim=-1), nnf.normalize(K, dim=-1)                           # unit length over the pixels
        A = torch.softmax(Q @ K.transpose(-2, -1) * self.temperature, dim=-1)               # (B, heads, C/heads, C/heads)
        return self.out((A.to(V.dtype) @ V).reshape(F.shape))                               # (B, C, h, w)


class GDFN(nn.Module):
    """Gated-Dconv feed-forward network of [45]: GELU(a) * b."""

    def __init__(self, channels, expansion):
        super().__init__()
        hidden = int(channels * expansion)
        self.inward = _project(channels, 2 * hidden)
        self.out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, F):
        """F: (B, C, h, w). Returns: (B, C, h, w), the update without the skip."""
        a, b = self.inward(F).chunk(2, dim=1)           # (B, hidden, h, w) each
        return self.out(nnf.gelu(a) * b)


class SelfAttention(nn.Module):
    """SA of Eq. 8: one transformer block of [45]."""

    def __init__(self, channels, heads, expansion):
        super().__init__()
        self.norm1, self.mdta = ChannelLayerNorm(channels), MDTA(channels, heads)
        self.norm2, self.gdfn = ChannelLayerNorm(channels), GDFN(channels, expansion)

    def forward(self, F_low):
        """F_low: (B, C, h, w). Returns: (B, C, h, w)."""
        F_low = F_low + self.mdta(self.norm1(F_low))
        return F_low + self.gdfn(self.norm2(F_low))


class CrossAttention(nn.Module):
    """Eq. 9: each of the C feature channels takes its low frequencies from a mixture of the N prior channels.

    It has a single head: with N = 3 heads, each head would hold one key, and Softmax over one key is always 1.
    """
    SMALLEST_GAMMA = 0.01       # keeps γ above 0 in training; at 0, Softmax is NaN

    def __init__(self, channels, prior_channels, expansion):
        super().__init__()
        self.q = _project(channels, channels)                       # W_d^Q W_c^Q
        self.k = _project(prior_channels, prior_channels)           # W_d^K W_c^K
        self.v = _project(prior_channels, prior_channels)           # W_d^V W_c^V
        self.gamma = nn.Parameter(torch.ones(1))                    # γ
        self.W_c = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm, self.gdfn = ChannelLayerNorm(channels), GDFN(channels, expansion)

    def attend(self, F, z):
        """F: (B, C, h, w), z: (B, N, h, w). Returns: F^ (B, C, h, w). Source: Eq. 9, Fig. 3 (b). [assumed A6: Q^, K^; Softmax over the N keys]"""
        Q, K, V = self.q(F).flatten(2), self.k(z).flatten(2), self.v(z).flatten(2)          # (B, C, hw), (B, N, hw), (B, N, hw)
        Q, K = nnf.normalize(Q, dim=-1), nnf.normalize(K, dim=-1)                           # Q̂, K̂
        gamma = self.gamma.clamp(min=self.SMALLEST_GAMMA)
        # Eq. 9:  F̂ = W_c V̂ · Softmax(K̂ Q̂ / γ) + F
        A = torch.softmax(K @ Q.transpose(1, 2) / gamma, dim=1)                             # (B, N, C), sums to 1 over N
        return self.W_c((A.to(V.dtype).transpose(1, 2) @ V).reshape(F.shape)) + F           # (B, C, h, w)

    def forward(self, F_low, z):
        """F_low: (B, C, h, w), z: (B, N, h, w). Returns: (B, C, h, w)."""
        F_low = self.attend(F_low, z)
        return F_low + self.gdfn(self.norm(F_low))      # [assumed A6: a GDFN, as in SA]


class ChannelAttention(nn.Module):
    """Multiplies each channel by a number in (0, 1) computed from all channel means [paper: Sec. 4.1 | assumed A16: squeeze by 4]."""

    def __init__(self, channels):
        super().__init__()
        squeezed = max(channels // 4, 1)
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), nn.ReLU(),
                                   nn.Conv2d(squeezed, channels, 1), nn.Sigmoid())

    def forward(self, F):
        """F: (B, C, H, W). Returns: the same shape."""
        return F * self.weigh(F)                        # (B, C, H, W) * (B, C, 1, 1)


class FRM(nn.Module):
    """Feature refinement module, Fig. 3 (a): high frequencies by convolutions, low ones by self-attention.

    With `prior_channels` > 0 it is the PIM: cross-attention with z in place of the self-attention, k = pool_pim.
    """

    def __init__(self, config, prior_channels=0):
        super().__init__()
        C = config.channels
        self.k, self.mode = config.pool_pim if prior_channels else config.pool_frm, config.upsample
        self.residual = ResidualBlock(C)
        self.high = nn.Sequential(*[ResidualBlock(C) for _ in range(config.high_blocks)])       # RB of Eq. 8
        self.low = CrossAttention(C, prior_channels, config.expansion) if prior_channels else SelfAttention(C, config.heads, config.expansion)
        self.merge = nn.Conv2d(2 * C, C, 1)
        self.channel_attention = ChannelAttention(C)

    def forward(self, F_in, z=None):
        """F_in: (B, C, H, W), H and W multiples of k; z: (B, N, H/k, W/k) for a PIM. Returns: (B, C, H, W). Source: Eq. 7, 8."""
        F = self.residual(F_in)
        F_low, F_high = split_frequencies(F, self.k, self.mode)                 # Eq. 7
        # Eq. 8:  F' = Concat[ RB(F_high), Upsample(SA(F_low)) ]      (PIM: Eq. 9 for SA)
        F_low = self.low(F_low) if z is None else self.low(F_low, z)            # (B, C, H/k, W/k)
        F = torch.cat([self.high(F_high), upsample(F_low, self.k, self.mode)], dim=1)   # (B, 2C, H, W)
        F = self.channel_attention(self.merge(F))                               # (B, C, H, W)
        return F_in + F                                                         # [assumed A3: the skip]


class PIM(FRM):
    """Prior integration module: the FRM whose low-frequency branch attends to z (Eq. 9). PIM(config, prior_channels)."""


class ReconstructionBlock(nn.Module):
    """One PIM followed by FRMs; the baseline of Table 3 has an FRM in the PIM's place."""

    def __init__(self, config, frms, prior_channels):
        super().__init__()
        self.first = PIM(config, prior_channels) if prior_channels else FRM(config)
        self.rest = nn.ModuleList([FRM(config) for _ in range(frms)])

    def forward(self, F, z=None):
        """F: (B, C, H, W), z: (B, N, H/4, W/4) or None for the baseline. Returns: (B, C, H, W)."""
        F = self.first(F, z)
        for frm in self.rest:
            F = frm(F)
        return F


class DHRNet(nn.Module):
    """Alignment module, reconstruction blocks and the output convolution of Eq. 10, at full resolution [assumed A1]."""

    def __init__(self, config, prior_channels=3):
        """config: DHRNetConfig; prior_channels: N, or 0 for the baseline. Raises: ValueError for settings that do not fit."""
        super().__init__()
        if config.upsample not in ("bilinear", "nearest"):
            raise ValueError(f"--upsample {config.upsample}: use bilinear or nearest")
        if (C := config.channels) % config.heads or not 1 <= C * config.expansion <= 2 ** 15:
            raise ValueError(f"--heads {config.heads}, --expansion {config.expansion:g}: do not fit {C} channels; choose a divisor, and a product up to 32768")
        self.align = AlignmentModule(6, config.channels)
        self.blocks = nn.ModuleList([ReconstructionBlock(config, n, prior_channels) for n in config.frms])
        self.out = nn.Conv2d(config.channels, 3, 3, padding=1)

    def refine(self, F, z=None):
        """Runs the reconstruction blocks. F: (B, C, H, W), z as in forward. Returns: (B, C, H, W)."""
        for block in self.blocks:
            F = block(F, z)
        return F

    def output(self, F, F_0):
        """Makes the image from refined and aligned features, both (B, C, H, W). Returns: H^ (B, 3, H, W). Source: Eq. 10."""
        with torch.autocast(F.device.type, enabled=False):
            # Eq. 10:  Ĥ = Conv3x3(DHRNet(X_i, z))          [assumed A3: F_0 is added; A4: a sigmoid, in float32]
            return torch.sigmoid(self.out(F.float() + F_0.float()))

    def forward(self, X, z=None):
        """X: (B, 3, 6, H, W), H and W multiples of 4; z: (B, N, H/4, W/4), None for the baseline. Returns: H^ (B, 3, H, W) linear, float32."""
        F_0 = self.align(X)                             # (B, C, H, W)
        return self.output(self.refine(F_0, z), F_0)


if __name__ == "__main__":
    config, X, z, F = DHRNetConfig(), torch.rand(1, 3, 6, 64, 64), torch.rand(1, 3, 16, 16), torch.rand(1, 60, 64, 64)
    print("Eq. 7    F {} -> F_low {}, F_high {}".format(tuple(F.shape), *(tuple(part.shape) for part in split_frequencies(F, config.pool_frm))))
    for module, inputs in ((FRM(config), (F,)), (PIM(config, 3), (F, z)), (DHRNet(config), (X, z))):
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        print(f"{type(module).__name__:<8} {shapes} -> {tuple(module(*inputs).shape)}   {count_parameters(module):,} parameters")
