"""DHRNet: the regression network that rebuilds the HDR image with the help of the low-frequency prior z.

Paper: Sec. 4.1, Fig. 2 (a), Fig. 3, Eq. 7-10.

    paper            code
    F_{n-1}          F            (B, C, H, W) features; torch.nn.functional is `nnf` in this file
    F^low, F^high    F_low        (B, C, H/k, W/k);  F_high (B, C, H, W)
    k                pool         2 in an FRM, 4 in a PIM
    Q^, K^, V^       Q, K, V      cross-attention: (B, C, hw), (B, N, hw), (B, N, hw): channels are the tokens
    W_c, W_d         1x1 convolution, 3x3 depth-wise convolution
    gamma            gamma        trainable; not the gamma 2.2 of the camera (data.GAMMA)
    [45]             Restormer (Zamir et al., CVPR 2022): MDTA and GDFN

The paper prints matrices as (pixels x channels); we keep PyTorch's (channels, pixels), so its V^ . A is A^T V here.

    python dhrnet.py           prints shapes and parameter counts
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from align import AlignmentModule
from common import count_parameters
from data import T
from lpenet import LPENetConfig, ResidualBlock
from beyond.fast import by_strips, strip_rows


@dataclass
class DHRNetConfig:
    """DHRNet, with its alignment module."""
    channels: int = 60              # C, features at full resolution [paper: Sec. 5.1]
    frms: tuple[int, ...] = (3, 3, 3)   # L_1, L_2, L_3: FRMs in each reconstruction block, after its PIM [paper: Sec. 5.1]
    heads: int = 6                  # heads of the self-attention in an FRM; the PIM has one [paper: Sec. 5.1]
    expansion: float = 2.66         # width of the GDFN over C [paper: Sec. 5.1]
    pool_frm: int = 2               # k of Eq. 7 in an FRM [paper: Sec. 5.1]
    pool_pim: int = 4               # k of Eq. 7 in a PIM: the size of z [paper: Sec. 5.1]
    high_blocks: int = 4            # residual blocks on F_high; 1 is the literal reading [assumed A2: meets Table 3]
    upsample: str = "bilinear"      # Upsample of Eq. 7 and 8, "bilinear" or "nearest" [assumed A5]
    blend: bool = False             # the output is a blend of Eq. 10 and the frames, weighed pixel by pixel [departs D8]


# --- Eq. 7: the split into frequencies ------------------------------------------------------------------------------

def upsample(F_low, k, mode="bilinear"):
    """Upsample(.) of Eq. 7 and 8. F_low: (B, C, h, w). Returns: (B, C, k h, k w). [assumed A5: align_corners=False]"""
    if mode == "nearest":
        return nnf.interpolate(F_low, scale_factor=k, mode="nearest")
    return nnf.interpolate(F_low, scale_factor=k, mode=mode, align_corners=False)


def split_frequencies(F, k, mode="bilinear", out=None):
    """Splits features into a small smooth map and what it leaves out.

    F: (B, C, H, W), H and W multiples of k. k: kernel of the average pooling. out: see strips.py.
    Returns: F_low (B, C, H/k, W/k) and F_high (B, C, H, W), with F = F_high + Upsample(F_low).
    Source: Eq. 7.
    """
    # Eq. 7:  F_low = AvgPool(F, k);  F_high = F - Upsample(F_low)
    F_low = nnf.avg_pool2d(F, k)                        # (B, C, H/k, W/k)
    F_high = by_strips(lambda F_low: upsample(-F_low, k, mode), F_low, halo=1, plus=F, channels=k * k * F.shape[1], out=out)   # (B, C, H, W)
    return F_low, F_high


# --- [45]: Restormer's self-attention and feed-forward network ------------------------------------------------------

class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of each pixel, as in [45]."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, F):
        """F: (B, C, h, w). Returns: the same shape, mean 0 and variance 1 over C before the affine part."""
        return self.norm(F.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _project(in_channels, out_channels):
    """W_d W_c: point-wise 1x1, then depth-wise 3x3 convolution, without bias as in [45]."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False),
                         nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels, bias=False))


def cosines(QK, N, heads=1):
    """Cosine of the angle between each channel of Q and each of K, over the pixels: normalize(Q) normalize(K)^T.

    QK: (B, N + M, h, w), the N channels of Q and the M of K. Returns: (B, heads, N / heads, M / heads) float32. All products of two
    channels are summed first, and the lengths are on their diagonal: no normalised map is ever made. Rows of a strip are summed
    in QK's own precision, strips in float32; where there are no strips (training, GPU) all of it in float32.
    """
    rows = strip_rows(QK)
    with torch.autocast(QK.device.type, enabled=False):
        if rows == QK.shape[-2]:
            pixels = QK.flatten(2).to(torch.promote_types(QK.dtype, torch.float32))             # (B, N + M, h w)
            gram = pixels @ pixels.transpose(1, 2)                                              # (B, N + M, N + M)
        else:
            gram = sum((part @ part.T).float() for part in (strip[0].flatten(1) for strip in QK.split(rows, dim=-2)))[None]
    squares = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-24)                                    # as in nnf.normalize
    cosine = gram[:, :N, N:] / (squares[:, :N, None] * squares[:, None, N:]).sqrt()             # (B, N, M)
    return cosine.unflatten(2, (heads, -1)).unflatten(1, (heads, -1)).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)


def mix_channels(A, V):
    """A V, head by head: each channel of the result is a mixture of V's. A: (B, heads, c, d), V: (B, heads * d, h, w).

    Returns: (B, heads * c, h, w). For a single image it is a 1x1 convolution, which keeps the layout of V in memory.
    """
    B, heads, c, d = A.shape
    if B == 1:
        return nnf.conv2d(V, torch.block_diag(*A[0]).to(V.dtype)[:, :, None, None])
    return (A.to(V.dtype) @ V.flatten(2).unflatten(1, (heads, d))).reshape(B, heads * c, *V.shape[2:])


class MDTA(nn.Module):
    """Multi-Dconv head transposed attention of [45]: channels attend to channels, so the cost is linear in pixels."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = _project(channels, 3 * channels)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, F, skip=None):
        """F, skip: (B, C, h, w), the features after and, if given, before the norm. Returns: (B, C, h, w), the attention's update plus `skip`."""
        C = F.shape[1]
        QK, V = by_strips(self.qkv, F, halo=1, channels=3 * C).split([2 * C, C], dim=1)     # (B, 2C, h, w), (B, C, h, w)
        A = torch.softmax(cosines(QK, C, self.heads) * self.temperature, dim=-1)            # (B, heads, C/heads, C/heads)
        return by_strips(lambda V: self.out(mix_channels(A, V)), V, halo=0, plus=skip)


class GDFN(nn.Module):
    """Gated-Dconv feed-forward network of [45]: GELU(a) * b."""

    def __init__(self, channels, expansion):
        super().__init__()
        hidden = int(channels * expansion)
        self.widest = 2 * hidden
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
        F_low = self.mdta(by_strips(self.norm1, F_low, halo=0), skip=F_low)
        return by_strips(lambda F: self.gdfn(self.norm2(F)), F_low, halo=1, plus=F_low, channels=self.gdfn.widest)


# --- Eq. 9: cross-attention with the prior --------------------------------------------------------------------------

class CrossAttention(nn.Module):
    """Eq. 9: each of the C features is told which of the N prior channels to take its low frequencies from.

    A single head: with N = 3 heads each head would hold one key, and Softmax over one key is always 1.
    """

    def __init__(self, channels, prior_channels, expansion):
        super().__init__()
        self.q = _project(channels, channels)                       # W_d^Q W_c^Q
        self.k = _project(prior_channels, prior_channels)           # W_d^K W_c^K
        self.v = _project(prior_channels, prior_channels)           # W_d^V W_c^V
        self.gamma = nn.Parameter(torch.ones(1))
        self.W_c = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm, self.gdfn = ChannelLayerNorm(channels), GDFN(channels, expansion)

    def attend(self, F, z):
        """Eq. 9 itself. F: (B, C, h, w), z: (B, N, h, w). Returns: F^ (B, C, h, w).

        Source: Eq. 9, Fig. 3 (b). [assumed A6: K and Q have unit length over the pixels, Softmax over the N keys]
        """
        Q, K, V = self.q(F), self.k(z), self.v(z)                       # (B, C, h, w), (B, N, h, w), (B, N, h, w)
        # Eq. 9:  F̂ = W_c V̂ · Softmax(K̂ Q̂ / γ) + F
        A = torch.softmax(cosines(torch.cat([K, Q], dim=1), K.shape[1]) / self.gamma, dim=2)    # (B, 1, N, C), sums to 1 over N
        return self.W_c(mix_channels(A.transpose(2, 3), V)) + F

    def forward(self, F_low, z):
        """F_low: (B, C, h, w), z: (B, N, h, w). Returns: (B, C, h, w)."""
        F_low = self.attend(F_low, z)
        return by_strips(lambda F: self.gdfn(self.norm(F)), F_low, halo=1, plus=F_low, channels=self.gdfn.widest)     # [assumed A6: a GDFN, as in SA]


# --- Eq. 8: the modules ---------------------------------------------------------------------------------------------

class ChannelAttention(nn.Module):
    """Weighs each channel by a number in (0, 1) computed from all channel means [paper: Sec. 4.1 | assumed A16: squeeze by 4]."""

    def __init__(self, channels):
        super().__init__()
        squeezed = max(channels // 4, 1)
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), nn.ReLU(),
                                   nn.Conv2d(squeezed, channels, 1), nn.Sigmoid())

    def forward(self, F, plus=None, out=None):
        """F: (B, C, H, W); plus, out: see strips.py. Returns: the same shape."""
        weights = self.weigh(nnf.avg_pool2d(F, math.gcd(4, *F.shape[2:])))     # the mean of means: a tenth of the time of one mean
        return by_strips(lambda F: F * weights, F, halo=0, plus=plus, out=out)              # (B, C, H, W) * (B, C, 1, 1)


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
        if prior_channels:
            self.low = CrossAttention(C, prior_channels, config.expansion)
        else:
            self.low = SelfAttention(C, config.heads, config.expansion)
        self.merge = nn.Conv2d(2 * C, C, 1)
        self.channel_attention = ChannelAttention(C)

    def forward(self, F_in, z=None):
        """F_in: (B, C, H, W), H and W multiples of k; z: (B, N, H/k, W/k) for a PIM. Returns: (B, C, H, W).

        Source: Eq. 7, 8; Eq. 9 through CrossAttention.
        """
        F = self.residual(F_in)
        F_low, F_high = split_frequencies(F, self.k, self.mode, out=F)          # Eq. 7
        # Eq. 8:  F' = Concat[ RB(F_high), Upsample(SA(F_low)) ]      (PIM: Eq. 9 for SA)
        F_low = self.low(F_low) if z is None else self.low(F_low, z)            # (B, C, H/k, W/k)
        spare = None
        for block in self.high:
            F_high, spare = block(F_high, out=spare), F_high                    # (B, C, H, W)
        F = by_strips(self.concat_and_merge, F_high, F_low, halo=1, out=F_high)
        return self.channel_attention(F, plus=F_in, out=F)                      # [assumed A3: the skip]

    def concat_and_merge(self, F_high, F_low):
        """merge(Concat[F_high, Upsample(F_low)]) of Eq. 8 without the concatenation.

        A 1x1 convolution of a concatenation is the sum of one for each part, and the second commutes with Upsample, whose weights
        add up to 1: it runs on the small map.
        """
        W_high, W_low = self.merge.weight.chunk(2, dim=1)                       # (C, C, 1, 1) each
        return nnf.conv2d(F_high, W_high, self.merge.bias).add_(upsample(nnf.conv2d(F_low, W_low), self.k, self.mode))


class PIM(FRM):
    """Prior integration module: the FRM whose low-frequency branch attends to z (Eq. 9). PIM(config, prior_channels)."""


class ReconstructionBlock(nn.Module):
    """One PIM and then N FRMs; the baseline of Table 3 has an FRM in the PIM's place."""

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


class Blend(nn.Module):
    """D8, no part of the paper: each value of the result is a weighted mean of the three frames' and of what Eq. 10 says.

    What a frame shows well need not pass through the features then: it comes out as sharp and as exact as it went in. Two convolutions
    see the features and the four choices, compressed by T, and decide. Source: the weight estimator of [Kalantari 2017], with a fourth choice.
    """

    def __init__(self, channels):
        super().__init__()
        self.compare = nn.Conv2d(channels + 12, channels, 3, padding=1)
        self.weigh = nn.Conv2d(channels, 12, 3, padding=1)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)
        nn.init.constant_(self.weigh.bias[-3:], 3.0)        # weight 0.87 for Eq. 10, until something better is learned

    def forward(self, F, H_frames, hdr_hat):
        """F: (B, C, H, W) features; H_frames: (B, 3, 3, H, W), H_1 to H_3, linear; hdr_hat: (B, 3, H, W) of Eq. 10. Returns: (B, 3, H, W)."""
        choices = torch.cat([H_frames, hdr_hat[:, None]], dim=1)                            # (B, 4, 3, H, W)
        weights = self.weigh(nnf.leaky_relu(self.compare(torch.cat([F, T(choices).flatten(1, 2)], dim=1))))
        return (torch.softmax(weights.unflatten(1, (4, 3)), dim=1) * choices).sum(dim=1)    # the weights of the 4 choices add up to 1


class DHRNet(nn.Module):
    """Alignment module, reconstruction blocks and the output convolution of Eq. 10, at full resolution [assumed A1]."""

    def __init__(self, config, prior_channels=3):
        """config: DHRNetConfig. prior_channels: N, or 0 for the baseline without a prior.

        Raises: ValueError when the heads do not divide the channels, or for an unknown upsampling.
        """
        super().__init__()
        if config.upsample not in ("bilinear", "nearest"):
            raise ValueError(f"--upsample {config.upsample}: use bilinear or nearest")
        if config.channels % config.heads:
            raise ValueError(f"--heads {config.heads}: do not divide {config.channels} channels; "
                             "choose --channels as a multiple of --heads")
        self.align = AlignmentModule(6, config.channels)
        self.blocks = nn.ModuleList([ReconstructionBlock(config, n, prior_channels) for n in config.frms])
        self.out = nn.Conv2d(config.channels, 3, 3, padding=1)
        self.blend = Blend(config.channels) if config.blend else None

    def forward(self, X, z=None):
        """X: (B, 3, 6, H, W), H and W multiples of 4; z: (B, N, H/4, W/4), None for the baseline.

        Returns: H^ (B, 3, H, W), linear radiance in (0, 1), with a blend in [0, 1], float32.
        Source: Eq. 10.
        """
        F_0 = self.align(X)                             # (B, C, H, W)
        F = F_0
        for block in self.blocks:
            F = block(F, z)
        # Eq. 10:  Ĥ = Conv3x3(DHRNet(X_i, z))          [assumed A3: F_0 is added; A4: sigmoid, in float32]
        with torch.autocast(F.device.type, enabled=False):
            return by_strips(self.output, F, F_0, X[:, :, 3:], halo=3)      # (B, 3, H, W); three convolutions with a blend, else one

    def output(self, F, F_0, H_frames):
        """The image from the features. F, F_0: (B, C, H, W); H_frames: (B, 3, 3, H, W). Returns: (B, 3, H, W) float32."""
        F = F.float() + F_0.float()
        hdr_hat = torch.sigmoid(self.out(F))
        if self.blend is None:
            return hdr_hat
        blended = self.blend(F, H_frames.float(), hdr_hat)
        if self.training:       # every other patch teaches Eq. 10 alone: where the blend does without it, it would unlearn
            blended[1::2] = hdr_hat[1::2]
        return blended


if __name__ == "__main__":
    config = DHRNetConfig()
    X, z, F = torch.rand(1, 3, 6, 64, 64), torch.rand(1, 3, 16, 16), torch.rand(1, config.channels, 64, 64)
    F_low, F_high = split_frequencies(F, config.pool_frm)
    print(f"Eq. 7    F {tuple(F.shape)} -> F_low {tuple(F_low.shape)}, F_high {tuple(F_high.shape)}")
    frm, pim, net = FRM(config), PIM(config, LPENetConfig().prior_channels), DHRNet(config)
    print(f"FRM      F {tuple(F.shape)} -> {tuple(frm(F).shape)}   {count_parameters(frm):,} parameters")
    print(f"PIM      F {tuple(F.shape)}, z {tuple(z.shape)} -> {tuple(pim(F, z).shape)}   {count_parameters(pim):,} parameters")
    print(f"DHRNet   X {tuple(X.shape)}, z {tuple(z.shape)} -> {tuple(net(X, z).shape)}   {count_parameters(net):,} parameters")
