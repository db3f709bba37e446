"""The fast path of the networks on a CPU. speed_up(model) gives each module a fast form, which computes the same; tests compare both.

The paper's files compute every formula as it is printed. At 1000x1500, one feature map of the paper's network takes 180 MB in bfloat16, and the
processor waits for memory most of the time. Five measures help:

    row strips          Convolutions are local: rows r .. r + n of their result need rows r - halo .. r + n + halo of their input and no
                        others. by_strips runs a local function on some rows at a time. Its intermediate maps stay in the cache, and only
                        the result goes to main memory. The result equals that of the whole map: rows that saw the edge of a strip instead
                        of the image's own are cut off. Training, GPUs and batches run the function once, on the whole map.
    no concatenation    A 1x1 convolution of a concatenation is the sum of one convolution for each part (FRM).
    one product         Cosines between channels come from one matrix of all their products. No normalised map is made (MDTA, cross-attention).
    a mean of means     Pooling by four first is ten times as fast as one mean over the image (channel attention).
    kept memory         The C library keeps freed memory for the next map (keep_memory). Fresh pages cost as much as several passes over them.

The fast forms are subclasses that add no parameters, so it is enough to change the classes of a model's modules.
"""

import ctypes
import math
import sys

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from align import AlignmentModule
from beyond.correct import CorrectingDHRNet
from data import network_input
from denoiser import TimeResidualBlock
from dhrnet import FRM, MDTA, PIM, ChannelAttention, CrossAttention, DHRNet, SelfAttention, upsample
from lpenet import ConditionNet, ResidualBlock

STRIP_BYTES = 32 * 2 ** 20       # of the widest map inside a strip


def strip_rows(*maps, channels=None):
    """Returns how many rows a strip of (B, ..., H, W) maps has, counted in the lowest map; all rows if strips do not pay off. channels: see by_strips."""
    height, x = min(x.shape[-2] for x in maps), maps[0]
    if torch.is_grad_enabled() or x.device.type != "cpu" or len(x) > 1:
        return height
    bytes_each = 2 if torch.is_autocast_enabled("cpu") else x.element_size()
    row_bytes = x.shape[-2] // height * x.shape[-1] * (channels or x.shape[-3]) * bytes_each
    return min(max(int(STRIP_BYTES // row_bytes), 1), height)


def by_strips(f, *maps, halo, shrink=1, plus=None, channels=None, out=None):
    """Evaluates a local function of feature maps strip by strip. Returns: f(*maps), or f(*maps) + plus.

    f: function of maps (1, ..., H_i, W_i) to one map (1, C, H, W), whose row r depends on rows r - halo .. r + halo of the inputs
        and, beyond the border of the image, only on zero padding or repetition. Heights are multiples of the lowest map's, and halo
        counts its rows.
    plus: a map like the result: the skip connection around f.
    shrink: how much lower than the lowest map the result is; halo then counts the result's rows.
    channels: of the widest intermediate map inside f; by default those of the first input.
    out: a map like the result, to write it into. It may be `plus`, or an input of which f reads only row r for row r. If no strips are
        needed, as in training, it keeps its values.
    """
    height, rows = min(x.shape[-2] for x in maps) // shrink, max(strip_rows(*maps, channels=channels) // shrink, 1)
    if rows >= height:
        return f(*maps) if plus is None else plus + f(*maps)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        above, below = max(top - halo, 0), min(bottom + halo, height)
        strip = f(*(x.narrow(-2, above * (x.shape[-2] // height), (below - above) * (x.shape[-2] // height)) for x in maps))
        scale = strip.shape[-2] // (below - above)
        first, count = top * scale, (bottom - top) * scale
        strip = strip.narrow(-2, (top - above) * scale, count)
        if out is None:
            out = torch.empty(1, strip.shape[1], height * scale, strip.shape[3], dtype=strip.dtype, memory_format=torch.channels_last)
        if plus is None:
            out.narrow(-2, first, count).copy_(strip)
        else:
            torch.add(plus.narrow(-2, first, count), strip, out=out.narrow(-2, first, count))
    return out


def _libc(name):
    """Returns a function of the C library if that is glibc; else None."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


def keep_memory(largest=2 ** 30):
    """Asks the C library, if it is glibc, to keep freed memory for the next map instead of giving it back; else does nothing.

    Fresh pages cost as much as several passes over them. largest: bytes; larger blocks go back at once, and leave no holes.
    """
    mallopt = _libc("mallopt")
    if mallopt is not None:
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3                 # malloc.h
        mallopt(M_MMAP_THRESHOLD, largest)
        mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1)


def give_back_memory():
    """Gives the kept memory back to the system, if the C library is glibc; else does nothing. Call it before maps of other sizes."""
    malloc_trim = _libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


# --- the fast forms ---------------------------------------------------------------------------------------------------

class FastResidualBlock(ResidualBlock):
    """RB in strips."""

    def forward(self, F_in, out=None):
        """As the plain form. out: see by_strips."""
        return by_strips(lambda F: self.conv2(nnf.relu(self.conv1(F), inplace=True)), F_in, halo=2, plus=F_in, out=out)


class FastAlignmentModule(AlignmentModule):
    """AM in strips: 1 + 2 + 1 convolutions make the halo of 4."""

    def forward(self, X):
        """As the plain form."""
        return by_strips(super().forward, X, halo=4, channels=2 * self.fuse.out_channels)


class FastConditionNet(ConditionNet):
    """AM_DM and LPENet_DM in strips."""

    def halo(self):
        """Returns how many rows on each side a row of D depends on: 4 in AM_DM, the rest in LPENet_DM."""
        return 4 + sum(2 if isinstance(layer, ResidualBlock) else 1 for layer in self.trunk)

    def forward(self, X):
        """As the plain form."""
        return by_strips(super().forward, X, halo=self.halo(), shrink=self.unshuffle)

    def from_frames(self, ldr, ev):
        """Computes D from the frames, without X_i of the whole image, which takes 72 bytes per pixel. ldr: (1, 3, 3, H, W), ev: (1, 3), as in data.py."""
        return by_strips(lambda ldr: super(FastConditionNet, self).forward(network_input(ldr, ev)), ldr, halo=self.halo(), shrink=self.unshuffle)


class FastTimeResidualBlock(TimeResidualBlock):
    """The U-Net's residual block without copies."""

    def forward(self, x, time):
        """As the plain form. At inference a norm's output may be overwritten."""
        inplace = not torch.is_grad_enabled()
        y = self.conv1(nnf.silu(self.norm1(x), inplace=inplace)).add_(self.time(nnf.silu(time))[:, :, None, None])
        return self.conv2(nnf.silu(self.norm2(y), inplace=inplace)).add_(self.skip(x))


class SteadyConv2d(nn.Conv2d):
    """A convolution of stride 2 that computes narrow maps in float32.

    On some processors, oneDNN's bfloat16 convolution reads memory that was never written if the map is 1 or 2 pixels wide: for images up to 16
    pixels wide, the bits changed from run to run, or were nan.
    """
    NARROW = 4      # pixels, with a margin for safety

    def forward(self, x):
        """As the plain form."""
        with torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and x.shape[-1] > self.NARROW):
            return super().forward(x if torch.is_autocast_enabled(x.device.type) else x.to(self.weight.dtype))


def cosines(QK, N, heads=1):
    """Computes the cosine of the angle between each channel of Q and each of K, over the pixels: normalize(Q) normalize(K)^T.

    QK: (B, N + M, h, w), the N channels of Q and the M of K. Returns: (B, heads, N / heads, M / heads) float32. The products of all
    pairs of channels are summed first. Their diagonal has the squared lengths, so no normalised map is made. Rows of a strip are summed
    in QK's own precision, strips in float32; without strips (training, GPU), everything is summed in float32.
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
    """Computes A V, head by head: each channel of the result is a mixture of V's. A: (B, heads, c, d), V: (B, heads * d, h, w).

    Returns: (B, heads * c, h, w). For a single image it is a 1x1 convolution, which keeps the layout of V in memory.
    """
    B, heads, c, d = A.shape
    if B == 1:
        return nnf.conv2d(V, torch.block_diag(*A[0]).to(V.dtype)[:, :, None, None])
    return (A.to(V.dtype) @ V.flatten(2).unflatten(1, (heads, d))).reshape(B, heads * c, *V.shape[2:])


def _update_by_gdfn(F, norm, gdfn):
    """Computes F + GDFN(norm(F)) in strips."""
    return by_strips(lambda F: gdfn(norm(F)), F, halo=1, plus=F, channels=gdfn.inward[0].out_channels)


class FastMDTA(MDTA):
    """MDTA with cosines from one matrix of products."""

    def forward(self, F, skip=None):
        """As the plain form, plus `skip` (B, C, h, w) where it is given."""
        C = F.shape[1]
        QK, V = by_strips(self.qkv, F, halo=1, channels=3 * C).split([2 * C, C], dim=1)     # (B, 2C, h, w), (B, C, h, w)
        A = torch.softmax(cosines(QK, C, self.heads) * self.temperature, dim=-1)            # (B, heads, C/heads, C/heads)
        return by_strips(lambda V: self.out(mix_channels(A, V)), V, halo=0, plus=skip)


class FastSelfAttention(SelfAttention):
    """SA in strips."""

    def forward(self, F_low):
        """As the plain form."""
        F_low = self.mdta(by_strips(self.norm1, F_low, halo=0), skip=F_low)
        return _update_by_gdfn(F_low, self.norm2, self.gdfn)


class FastCrossAttention(CrossAttention):
    """Eq. 9 with cosines from one matrix of products."""

    def attend(self, F, z):
        """As the plain form."""
        Q, K, V = self.q(F), self.k(z), self.v(z)                               # (B, C, h, w), (B, N, h, w), (B, N, h, w)
        A = torch.softmax(cosines(torch.cat([K, Q], dim=1), K.shape[1]) / self.gamma.clamp(min=self.SMALLEST_GAMMA), dim=2)      # (B, 1, N, C)
        return self.W_c(mix_channels(A.transpose(2, 3), V)) + F

    def forward(self, F_low, z):
        """As the plain form."""
        return _update_by_gdfn(self.attend(F_low, z), self.norm, self.gdfn)


class FastChannelAttention(ChannelAttention):
    """The channel attention by a mean of means."""

    def forward(self, F, plus=None, out=None):
        """As the plain form. plus, out: see by_strips."""
        weights = self.weigh(nnf.avg_pool2d(F, math.gcd(4, *F.shape[2:])))
        return by_strips(lambda F: F * weights, F, halo=0, plus=plus, out=out)              # (B, C, H, W) * (B, C, 1, 1)


class FastFRM(FRM):
    """Eq. 7 and 8 in strips, in few maps, and without the concatenation."""

    def forward(self, F_in, z=None):
        """As the plain form."""
        F = self.residual(F_in)
        F_low = nnf.avg_pool2d(F, self.k)                                       # Eq. 7
        F_high = by_strips(lambda F_low: upsample(-F_low, self.k, self.mode), F_low, halo=1, plus=F, channels=self.k ** 2 * F.shape[1], out=F)
        F_low = self.low(F_low) if z is None else self.low(F_low, z)            # Eq. 8
        spare = None
        for block in self.high:
            F_high, spare = block(F_high, out=spare), F_high
        F = by_strips(self.concat_and_merge, F_high, F_low, halo=1, out=F_high)
        return self.channel_attention(F, plus=F_in, out=F)

    def concat_and_merge(self, F_high, F_low):
        """merge(Concat[F_high, Upsample(F_low)]): the second part commutes with Upsample, whose weights add up to 1, so it runs on the small map."""
        W_high, W_low = self.merge.weight.chunk(2, dim=1)                       # (C, C, 1, 1) each
        return nnf.conv2d(F_high, W_high, self.merge.bias).add_(upsample(nnf.conv2d(F_low, W_low), self.k, self.mode))


class FastPIM(FastFRM, PIM):
    """The PIM in the same way."""


class FastDHRNet(DHRNet):
    """The output of Eq. 10 in strips."""

    def forward(self, X, z=None):
        """As the plain form."""
        F_0 = self.align(X)
        return by_strips(self.output, self.refine(F_0, z), F_0, halo=1)


class FastCorrectingDHRNet(FastDHRNet, CorrectingDHRNet):
    """The same where Eq. 10 corrects a merge (D8): three convolutions in a row."""

    def forward(self, X, z=None):
        """As the plain form."""
        F_0 = self.align(X)
        return by_strips(self.output, self.refine(F_0, z), F_0, X, halo=3, channels=256)        # its many maps together; with fewer, it takes twice as long


FAST = {ResidualBlock: FastResidualBlock, AlignmentModule: FastAlignmentModule, ConditionNet: FastConditionNet,
        TimeResidualBlock: FastTimeResidualBlock, MDTA: FastMDTA, SelfAttention: FastSelfAttention, CrossAttention: FastCrossAttention,
        ChannelAttention: FastChannelAttention, FRM: FastFRM, PIM: FastPIM, DHRNet: FastDHRNet, CorrectingDHRNet: FastCorrectingDHRNet}


def speed_up(model):
    """Gives each module of a model its fast form, in place. Weights, gradients and results stay the same. Returns: the model."""
    for module in model.modules():
        strided = type(module) is nn.Conv2d and module.stride != (1, 1)
        module.__class__ = SteadyConv2d if strided else FAST.get(type(module), type(module))
    return model
