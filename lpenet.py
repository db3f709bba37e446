"""LPENet: the low-frequency prior z of a ground truth (stage 1), and LPENet_DM: the condition D of three LDR frames.

Paper: Sec. 4.1 and Eq. 6 (LPENet), Sec. 4.2 and Eq. 13 (LPENet_DM), Fig. 2.

    paper            code
    I_gt, H          hdr          (B, 3, H, W) linear radiance in [0, 1]
    T(.)             data.T       mu-law; not the number T of diffusion steps in ddim.py
    k                unshuffle    4: the prior is 4 times smaller on each side
    z                z            (B, N, H/k, W/k), N = 3; not bounded and not normalised here
    D                D            (B, N, H/k, W/k)

    python lpenet.py            prints shapes and parameter counts
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from align import AlignmentModule
from common import Count, Depth, count_parameters
from data import T


@dataclass
class LPENetConfig:
    """LPENet and LPENet_DM."""
    prior_channels: Count = 3   # N, channels of the prior z [paper: Sec. 5.1]
    unshuffle: Count = 4        # k, downsampling of PixelUnshuffle [paper: Sec. 5.1]
    prior_blocks: Depth = 4     # residual blocks [paper: Sec. 5.1]
    prior_width: Count = 40     # features inside LPENet and LPENet_DM [assumed A7: meets Table 3's +0.15 M]
    condition_width: Count = 64  # output of AM_DM = input of LPENet_DM [assumed A7]


class ResidualBlock(nn.Module):
    """RB: conv3x3, ReLU, conv3x3, plus its input. Used here and in dhrnet.py."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, F_in):
        """F_in: (B, C, H, W). Returns: (B, C, H, W)."""
        return F_in + self.conv2(nnf.relu(self.conv1(F_in)))


def _trunk(in_channels, config):
    """Returns the layers of LPENet or LPENet_DM, which differ only in the input width of the first convolution [paper: Sec. 4.2]."""
    return nn.Sequential(nn.Conv2d(in_channels, config.prior_width, 3, padding=1),
                         *[ResidualBlock(config.prior_width) for _ in range(config.prior_blocks)],
                         nn.Conv2d(config.prior_width, config.prior_channels, 3, padding=1))


class LPENet(nn.Module):
    """Eq. 6: the low-frequency prior representation of a ground-truth image."""

    def __init__(self, config):
        super().__init__()
        self.unshuffle = config.unshuffle
        self.trunk = _trunk(6 * config.unshuffle ** 2, config)

    def forward(self, hdr):
        """hdr: (B, 3, H, W) linear in [0, 1], H and W multiples of 4. Returns: z (B, N, H/4, W/4). Source: Eq. 6."""
        # Eq. 6:  z = LPENet(PixelUnshuffle(Concat(I_gt, T(I_gt))))
        I = torch.cat([hdr, T(hdr)], dim=1)                 # (B, 6, H, W)
        I = nnf.pixel_unshuffle(I, self.unshuffle)          # (B, 96, H/4, W/4)
        return self.trunk(I)                                # (B, N, H/4, W/4)


class ConditionNet(nn.Module):
    """Eq. 13: AM_DM and LPENet_DM, which see the three LDR frames only."""

    def __init__(self, config):
        super().__init__()
        self.unshuffle = config.unshuffle
        self.align = AlignmentModule(6 * config.unshuffle ** 2, config.condition_width)     # AM_DM
        self.trunk = _trunk(config.condition_width, config)                                 # LPENet_DM

    def forward(self, X):
        """X: (B, 3, 6, H, W), H and W multiples of 4. Returns: D (B, N, H/4, W/4). Source: Eq. 13."""
        # Eq. 13:  D = LPENet_DM(AM(PixelUnshuffle(X_i)))
        X = nnf.pixel_unshuffle(X, self.unshuffle)          # (B, 3, 96, H/4, W/4)
        return self.trunk(self.align(X))                    # (B, 64, H/4, W/4) -> (B, N, H/4, W/4)


if __name__ == "__main__":
    config = LPENetConfig()
    for name, net, image in (("LPENet", LPENet(config), torch.rand(1, 3, 64, 64)), ("AM_DM + LPENet_DM", ConditionNet(config), torch.rand(1, 3, 6, 64, 64))):
        print(f"{name:<18} {tuple(image.shape)} -> {tuple(net(image).shape)}   {count_parameters(net):,} parameters")
