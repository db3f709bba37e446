"""Grades exercises 5 to 8: self-attention, cross-attention, the alignment's attention, feature refinement."""

import math

import numpy as np
import torch
import torch.nn as nn
from slow import arrays, channel_attention, conv_of, cross_attention, enlarge, mdta, normal, pool, randomise, residual, slow_alignment
from yours import same

from dhrnet import DHRNetConfig


def set_to_identity(conv, factor=1.0):
    """Makes a convolution pass its input on, times a factor: output channel o gets input channel o, starting over where the inputs end."""
    with torch.no_grad():
        conv.weight.zero_()
        if conv.bias is not None:
            conv.bias.zero_()
        for o in range(conv.out_channels):
            conv.weight[o, o % conv.weight.shape[1], conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = factor


# --- 5: MDTA ----------------------------------------------------------------------------------------------------------

@torch.no_grad()
def test_ex5_two_channels_attend_to_each_other_as_computed_by_hand(code):
    module = code.dhrnet.MDTA(2, heads=1)
    for conv in (*module.qkv, module.out):
        set_to_identity(conv)                                                   # Q = K = V = F
    module.temperature.fill_(math.log(3))                                       # softmax of (log 3, 0) is (3/4, 1/4)
    F = torch.tensor([[5.0, 0.0], [0.0, 2.0]]).reshape(1, 2, 1, 2)              # unit length over the pixels: (1, 0) and (0, 1)
    same("MDTA of the channels (5, 0) and (0, 2)", module(F), [[[[3.75, 0.5]], [[1.25, 1.5]]]])


@torch.no_grad()
def test_ex5_mdta_agrees_with_a_loop_over_heads_and_channels(code):
    module, x = randomise(code.dhrnet.MDTA(6, 2)), normal(2, 6, 4, 5).double()
    same("MDTA", module(x), np.stack([mdta(arrays(module), "", image.numpy(), 2) for image in x]), 3e-5)


# --- 6: cross-attention -----------------------------------------------------------------------------------------------

@torch.no_grad()
def test_ex6_two_features_choose_among_three_keys_as_computed_by_hand(code):
    module = code.dhrnet.CrossAttention(2, 3, 2.66)
    for conv in (*module.q, *module.k, module.v[0], module.W_c):
        set_to_identity(conv)
    set_to_identity(module.v[1], factor=10)                                     # V = 10 z
    module.gamma.fill_(1 / math.log(2))                                         # exp(x / γ) = 2^x
    F = torch.tensor([[5.0, 0.0], [0.0, 2.0]]).reshape(1, 2, 1, 2)              # Q̂: (1, 0) and (0, 1)
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).reshape(1, 3, 1, 2)  # K̂ = z; K̂ Q̂: (1, 0, 1) and (0, 1, 0)
    # Softmax: (2, 1, 2) / 5 and (1, 2, 1) / 4. F̂ = F + 10 (4/5, 1/5) and F + 10 (1/2, 1/2)
    same("Eq. 9, F̂", module.attend(F, z), [[[[13, 2]], [[5, 7]]]])


@torch.no_grad()
def test_ex6_cross_attention_agrees_with_a_sum_over_pixels_and_channels(code):
    module, x, z = randomise(code.dhrnet.CrossAttention(6, 3, 2.66)), normal(2, 6, 4, 5).double(), normal(2, 3, 4, 5, seed=1).double()
    for gamma in (1.0, 0.3):
        module.gamma.fill_(gamma)
        wanted = np.stack([cross_attention(arrays(module), "", x[b].numpy(), z[b].numpy()) for b in range(2)])
        same(f"Eq. 9, γ = {gamma}", module.attend(x, z), wanted, 3e-5)


@torch.no_grad()
def test_ex6_a_gamma_of_zero_gives_no_nan(code):
    module, x, z = randomise(code.dhrnet.CrossAttention(6, 3, 2.66)), normal(1, 6, 4, 5).double(), normal(1, 3, 4, 5, seed=1).double()
    module.gamma.fill_(0.0)
    p = {**arrays(module), "gamma": np.array([0.01])}                           # SMALLEST_GAMMA
    same("Eq. 9, γ = 0, held at SMALLEST_GAMMA", module.attend(x, z)[0], cross_attention(p, "", x[0].numpy(), z[0].numpy()), 1e-3)


# --- 7: AM ------------------------------------------------------------------------------------------------------------

@torch.no_grad()
def test_ex7_the_attention_map_of_one_channel_is_as_computed_by_hand(code):
    module = code.align.AttentionMap(1)
    for conv in (module.conv1, module.conv2):
        conv.weight.zero_()
        conv.bias.zero_()
    module.conv1.weight[0, :, 1, 1] = torch.tensor([1.0, -1.0])                 # f_i - f_2
    module.conv2.weight[0, 0, 1, 1] = 1
    f_i, f_2 = torch.tensor([3.0, 1.0]).reshape(1, 1, 1, 2), torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)
    same("A_i of f_i - f_2 = 2 and -2", module(f_i, f_2), [[[[1 / (1 + math.exp(-2)), 1 / (1 + math.exp(0.02))]]]])     # LeakyReLU: -2 is -0.02


@torch.no_grad()
def test_ex7_half_the_outer_frames_and_the_whole_reference_are_fused(code):
    module, X = code.align.AlignmentModule(1, 1), torch.tensor([2.0, 3.0, 4.0]).reshape(1, 3, 1, 1, 1)
    for conv in (module.attention_1.conv2, module.attention_3.conv2, module.fuse):
        conv.weight.zero_()
        conv.bias.zero_()                                                       # A = sigmoid(0) = 0.5
    set_to_identity(module.extract)
    module.fuse.weight[0, :, 1, 1] = torch.tensor([100.0, 10.0, 1.0])
    same("AM of the frames 2, 3, 4", module(X), [[[[100 * 1 + 10 * 3 + 2]]]])


@torch.no_grad()
def test_ex7_alignment_agrees_with_loops(code):
    module, X = randomise(code.align.AlignmentModule(6, 4)), normal(2, 3, 6, 5, 6).double()
    same("AM", module(X), np.stack([slow_alignment(arrays(module), bracket.numpy()) for bracket in X]))


# --- 8: FRM -----------------------------------------------------------------------------------------------------------

class Stub(nn.Module):
    """Stands in for SA or Eq. 9: twice the low frequencies, plus the prior's first channel where there is a prior."""

    def forward(self, F_low, z=None):
        return 2 * F_low if z is None else 2 * F_low + z[:, :1]


def split_by_loops(F, k, mode="bilinear"):
    low = [pool(image.double().numpy(), k) for image in F]
    high = [image.double().numpy() - enlarge(small, k) for image, small in zip(F, low)]
    return tuple(torch.from_numpy(np.stack(part)).to(F.dtype) for part in (low, high))


def frm_of(code, monkeypatch, prior_channels=0):
    monkeypatch.setattr(code.dhrnet, "split_frequencies", split_by_loops)
    module = code.dhrnet.FRM(DHRNetConfig(channels=4, heads=2, high_blocks=2), prior_channels)
    module.low = Stub()
    return module


@torch.no_grad()
def test_ex8_a_constant_comes_out_as_computed_by_hand(code, monkeypatch):
    module = frm_of(code, monkeypatch)
    for parameter in module.parameters():
        parameter.zero_()                                                       # residual blocks pass on; channel attention is sigmoid(0) = 0.5
    for c in range(4):
        module.merge.weight[c, c] = 1                                           # the first C channels of Concat: the high branch
        module.merge.weight[c, 4 + c] = 10                                      # the last C: the low branch
    # F = 3: F_high = 0, SA gives 6, merged 60, weighed 30, plus the input
    same("Eq. 8 of a constant 3", module(torch.full((1, 4, 4, 4), 3.0))[0, 0], torch.full((4, 4), 33.0))


@torch.no_grad()
def test_ex8_frm_and_pim_agree_with_loops(code, monkeypatch):
    for prior_channels, k in ((0, 2), (3, 4)):
        module, F, z = randomise(frm_of(code, monkeypatch, prior_channels)), normal(1, 4, 8, 12).double(), normal(1, 3, 2, 3, seed=1).double()
        p = arrays(module)
        y = residual(p, "residual.", F[0].numpy())
        low = pool(y, k)
        high = y - enlarge(low, k)
        for i in range(2):
            high = residual(p, f"high.{i}.", high)
        low = 2 * low + (z[0, :1].numpy() if prior_channels else 0)
        y = channel_attention(p, "channel_attention", conv_of(p, "merge", np.concatenate([high, enlarge(low, k)])))
        yours = module(F, z)[0] if prior_channels else module(F)[0]
        same("PIM, Eq. 7 to 9" if prior_channels else "FRM, Eq. 8", yours, F[0].numpy() + y)
