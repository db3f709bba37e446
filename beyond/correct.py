"""D8, not part of the paper: the result is made of what the frames show, and Eq. 10 corrects a merge of them instead of painting the image anew.

A plain merge of aligned frames is right almost everywhere. So Eq. 10 adds what the merge lacks, after T, where the loss is measured:
    T(Ĥ_10) = T(H_merge) + Conv3x3(DHRNet(X_i, z)), clipped to [0, 1]
What a frame shows well need not pass through the features at all: each pixel p of the result is a weighted mean of what the three frames show
at p and at 16 places d around it, and of Ĥ_10:
    Ĥ(p) = (Σ_i,d e^(s_i,d) w_i(p + d) H_i(p + d) + e^(s_10) Ĥ_10(p)) / (Σ_i,d e^(s_i,d) w_i(p + d) + e^(s_10))
w_i are the merge's weights, separate for each channel. The 52 scores s are the same for all channels; two convolutions compute them from the features and
from what the frames and Ĥ_10 show at p. The places around p let the network average noise away where there are no contours, and fetch what the
alignment has slightly misplaced.
Sources: residual learning of [DnCNN, Zhang et al. 2017]; the weights of [Kalantari 2017]; kernels for each pixel of [KPN, Mildenhall et al. 2018].
"""

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from brackets.merge import merge_weights
from data import T, T_inverse
from dhrnet import DHRNet

LEAST = 1e-3        # a frame's weight where the merge gives it none: the network may still choose it
REACH = 3           # distance of the farther ring, pixels
AROUND = [(y * far, x * far) for far in (1, REACH) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
PLACES = [(0, 0), *AROUND]      # d, rows and columns
AT_FIRST = -5.0     # score of the places around a pixel before training: all of them together weigh a tenth of the pixel itself


class Blend(nn.Module):
    """Weighs what the frames show near a pixel and Eq. 10 against each other."""

    def __init__(self, channels):
        super().__init__()
        self.compare = nn.Conv2d(channels + 12, channels, 3, padding=1)
        self.weigh = nn.Conv2d(channels, 3 * len(PLACES) + 1, 3, padding=1)         # scores place by place, three frames each; the last is Eq. 10's
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)
        nn.init.constant_(self.weigh.bias[3:-1], AT_FIRST)

    def forward(self, F, H_frames, weights, hdr_hat):
        """F: (B, C, H, W) features; H_frames: (B, 3, 3, H, W), H_1 to H_3, linear; weights: of the merge, like H_frames; hdr_hat: (B, 3, H, W) of Eq. 10.

        Returns: (B, 3, H, W); before any training, about half merge and half Eq. 10.
        """
        seen = torch.cat([F, T(torch.cat([H_frames, hdr_hat[:, None]], dim=1)).flatten(1, 2)], dim=1)
        scores = self.weigh(nnf.leaky_relu(self.compare(seen)))
        shares = (scores - scores.amax(dim=1, keepdim=True)).exp()                                      # (B, 52, H, W)
        weights = weights.clamp(min=LEAST)
        weighted, weights = (nnf.pad(x.flatten(1, 2), (REACH,) * 4, mode="replicate").unflatten(1, (3, 3)) for x in (weights * H_frames, weights))
        total, weight = shares[:, -1:] * hdr_hat, shares[:, -1:].expand_as(hdr_hat)
        (H, W), of_frames = F.shape[-2:], shares[:, :-1, None].split(3, dim=1)                         # (B, 3, 1, H, W) for each place
        for share, (y, x) in zip(of_frames, PLACES):
            there = ..., slice(REACH + y, REACH + y + H), slice(REACH + x, REACH + x + W)
            total, weight = total + (share * weighted[there]).sum(dim=1), weight + (share * weights[there]).sum(dim=1)
        return total / weight


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
    """Makes the DHRNet of a Stage1 or Stage2 correct a merge, unless it already does. Call it before speed_up. Returns: the model."""
    dhrnet = model.dhrnet
    if not isinstance(dhrnet, CorrectingDHRNet):
        dhrnet.__class__, dhrnet.blend = CorrectingDHRNet, Blend(dhrnet.out.in_channels)
        nn.init.zeros_(dhrnet.out.weight)
        nn.init.zeros_(dhrnet.out.bias)
    return model
