"""D8, no part of the paper: the output is a blend of Eq. 10 and the three frames, weighed pixel by pixel.

What a frame shows well need not pass through the features then: it comes out as sharp and as exact as it went in. Two convolutions see the
features and the four choices, compressed by T, and decide. Source: the weight estimator of [Kalantari 2017], with a fourth choice.
"""

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as nnf

from data import T
from dhrnet import DHRNet


class Blend(nn.Module):
    """Each value of the result is a weighted mean of the three frames' and of what Eq. 10 says; the four weights add up to 1."""

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
        blended = (torch.softmax(weights.unflatten(1, (4, 3)), dim=1) * choices).sum(dim=1)
        if self.training:       # every other patch trains Eq. 10 alone, which has no gradient where the blend ignores it
            first = dist.get_rank() * len(F) if dist.is_initialized() else 0                # of this process's patches in the whole batch
            blended[(first + 1) % 2::2] = hdr_hat[(first + 1) % 2::2]
        return blended


class BlendedDHRNet(DHRNet):
    """DHRNet with a blend behind it. add_blend() makes one."""

    def output(self, F, F_0, H_frames):
        """As DHRNet.output, then the blend. H_frames: (B, 3, 3, H, W), H_1 to H_3. Returns: (B, 3, H, W) in [0, 1]."""
        with torch.autocast(F.device.type, enabled=False):
            return self.blend(F.float() + F_0.float(), H_frames.float(), super().output(F, F_0))

    def forward(self, X, z=None):
        """As DHRNet.forward."""
        F_0 = self.align(X)
        return self.output(self.refine(F_0, z), F_0, X[:, :, 3:])


def add_blend(model):
    """Puts a fresh blend behind the DHRNet of a Stage1 or Stage2, unless there is one. Call it before speed_up. Returns: the model."""
    dhrnet = model.dhrnet
    if not isinstance(dhrnet, BlendedDHRNet):
        dhrnet.__class__, dhrnet.blend = BlendedDHRNet, Blend(dhrnet.out.in_channels)
    return model
