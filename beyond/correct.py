"""D8, no part of the paper: the network corrects a merge of the frames instead of painting the image anew.

A plain merge of aligned frames is right almost everywhere. So Eq. 10 gives what the merge lacks, after T, where the loss is measured:
    T(Ĥ_10) = T(H_merge) + Conv3x3(DHRNet(X_i, z)), cut to [0, 1]
And what a frame shows well need not pass through the features at all: each value of the result is a weighted mean of the three frames' and of
Ĥ_10. Two convolutions see the features and the four choices and change the weights, which are the merge's to begin with.
Sources: residual learning of [DnCNN, Zhang et al. 2017]; the weight estimator of [Kalantari 2017], with a fourth choice.
"""

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from brackets.merge import merge_weights
from data import T, T_inverse
from dhrnet import DHRNet

LEAST = 1e-3        # a frame's weight where the merge gives it none: the network may still choose it


class Blend(nn.Module):
    """Weighs the frames and Eq. 10 against each other."""

    def __init__(self, channels):
        super().__init__()
        self.compare = nn.Conv2d(channels + 12, channels // 2, 3, padding=1)
        self.weigh = nn.Conv2d(channels // 2, 12, 3, padding=1)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)

    def forward(self, F, H_frames, weights, hdr_hat):
        """F: (B, C, H, W) features; H_frames: (B, 3, 3, H, W), H_1 to H_3, linear; weights: of the merge, like H_frames; hdr_hat: (B, 3, H, W) of Eq. 10.

        Returns: (B, 3, H, W), half of the merge and half of Eq. 10 before any training.
        """
        choices = torch.cat([H_frames, hdr_hat[:, None]], dim=1)                                # (B, 4, 3, H, W)
        scores = self.weigh(nnf.leaky_relu(self.compare(torch.cat([F, T(choices).flatten(1, 2)], dim=1)))).unflatten(1, (4, 3))
        at_first = torch.cat([weights.clamp(min=LEAST), torch.ones_like(hdr_hat[:, None])], dim=1)
        return (torch.softmax(scores + at_first.log(), dim=1) * choices).sum(dim=1)


class CorrectingDHRNet(DHRNet):
    """DHRNet whose Eq. 10 corrects a merge. add_correction() makes one."""

    def output(self, F, F_0, X):
        """As DHRNet.output. X: (B, 3, 6, H, W). Returns: (B, 3, H, W) in [0, 1]."""
        with torch.autocast(F.device.type, enabled=False):
            F, (L, H_frames) = F.float() + F_0.float(), X.float().split(3, dim=2)
            weights = merge_weights(L)                                                          # (B, 3, 3, H, W), add up to 1
            hdr_hat = T_inverse((T((weights * H_frames).sum(dim=1)) + self.out(F)).clamp(0, 1))
            return self.blend(F, H_frames, weights, hdr_hat)

    def forward(self, X, z=None):
        """As DHRNet.forward."""
        F_0 = self.align(X)
        return self.output(self.refine(F_0, z), F_0, X)


def add_correction(model):
    """Has the DHRNet of a Stage1 or Stage2 correct a merge, unless it does already. Call it before speed_up. Returns: the model."""
    dhrnet = model.dhrnet
    if not isinstance(dhrnet, CorrectingDHRNet):
        dhrnet.__class__, dhrnet.blend = CorrectingDHRNet, Blend(dhrnet.out.in_channels)
        nn.init.zeros_(dhrnet.out.weight)
        nn.init.zeros_(dhrnet.out.bias)
    return model
