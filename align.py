"""AM: the alignment module of AHDRNet, which LF-Diff uses twice.

Paper: LF-Diff Sec. 4.1 "we employ an alignment module [41]", and inside Eq. 13. [41] is Yan et al., "Attention-guided
network for ghost-free high dynamic range imaging", CVPR 2019, Sec. 3.2: each outer frame is weighted, pixel by pixel and
channel by channel, by how well it agrees with the reference. Nothing is warped.

    paper     code
    X_i       X[:, i - 1]    frame i of the bracket, [L_i, H_i]; frame 2 is the reference
    f_i       f_1, f_2, f_3  features of the frames
    A_i       A_1, A_3       attention maps in (0, 1)

    python align.py            prints shapes and parameter counts
"""

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from common import count_parameters


class AttentionMap(nn.Module):
    """A_i of [41]: how well each feature of frame i agrees with the reference."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.conv2 = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, f_i, f_2):
        """f_i, f_2: (B, C, H, W) features of a frame and of the reference. Returns: A_i (B, C, H, W) in (0, 1)."""
        A_i = nnf.leaky_relu(self.conv1(torch.cat([f_i, f_2], dim=1)))  # (B, 2C, H, W)
        return torch.sigmoid(self.conv2(A_i))                           # (B, C, H, W)


class AlignmentModule(nn.Module):
    """AM of [41]: three frames in, one feature map out; the reference enters as it is.

    in_channels: channels of one frame (6, or 96 after PixelUnshuffle_4); channels: C of the output.
    Source: [41] Sec. 3.2; LF-Diff Sec. 4.1 and Eq. 13.
    """

    def __init__(self, in_channels, channels):
        super().__init__()
        self.extract = nn.Conv2d(in_channels, channels, 3, padding=1)   # shared by the three frames
        self.attention_1 = AttentionMap(channels)                       # short frame against reference
        self.attention_3 = AttentionMap(channels)                       # long frame against reference
        self.fuse = nn.Conv2d(3 * channels, channels, 3, padding=1)

    def forward(self, X):
        """X: (B, 3, in_channels, H, W), three frames of rising exposure. Returns: (B, C, H, W)."""
        f_1, f_2, f_3 = (nnf.leaky_relu(self.extract(X_i)) for X_i in X.unbind(dim=1))   # (B, C, H, W) each
        A_1, A_3 = self.attention_1(f_1, f_2), self.attention_3(f_3, f_2)                # (B, C, H, W) each
        return self.fuse(torch.cat([A_1 * f_1, f_2, A_3 * f_3], dim=1))                  # (B, 3C, H, W) -> (B, C, H, W)


if __name__ == "__main__":
    for name, in_channels, channels, size in (("AM", 6, 60, 64), ("AM_DM", 96, 64, 16)):
        module = AlignmentModule(in_channels, channels)
        X = torch.rand(1, 3, in_channels, size, size)
        print(f"{name:<6} X {tuple(X.shape)} -> {tuple(module(X).shape)}   {count_parameters(module):,} parameters")
