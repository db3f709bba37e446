"""dhrnet.py: Eq. 7 to 10 against slow loops."""

import re

import numpy as np
import pytest
import torch

from dhrnet import FRM, MDTA, PIM, ChannelAttention, CrossAttention, DHRNet, DHRNetConfig, SelfAttention, split_frequencies, upsample
from slow import (SMALL, arrays, assert_close, channel_attention, conv_of, cross_attention, enlarge, frm, mdta, normal, pool, rand, randomise,
                  self_attention)

torch.set_num_threads(1)


# --- Eq. 7 -----------------------------------------------------------------------------------------------------------

def test_split_at_hand_values():
    F = torch.tensor([0.0, 0.0, 4.0, 4.0]).reshape(1, 1, 1, 4).expand(1, 1, 2, 4)
    F_low, F_high = split_frequencies(F, 2)
    assert F_low.flatten().tolist() == [0, 4]                                   # bilinear between them: 0 1 3 4
    assert F_high.reshape(2, 4).tolist() == 2 * [[0, -1, 1, 0]]
    F_low, F_high = split_frequencies(torch.tensor([[1.0, 2.0], [3.0, 6.0]]).reshape(1, 1, 2, 2), 2)
    assert F_low.item() == 3 and F_high.flatten().tolist() == [-2, -1, 0, 3]


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("k", [2, 4])
def test_both_parts_add_up_to_the_whole(mode, k):
    F = normal(2, 3, 8, 12)
    F_low, F_high = split_frequencies(F, k, mode)
    assert F_low.shape == (2, 3, 8 // k, 12 // k) and F_high.shape == F.shape
    assert np.allclose(F_low[1].numpy(), pool(F[1].numpy(), k), atol=1e-6)
    assert (F_high + upsample(F_low, k, mode) - F).abs().max() < 1e-6           # one rounding of float32
    if mode == "bilinear":
        assert np.allclose(upsample(F_low, k)[1].numpy(), enlarge(F_low[1].double().numpy(), k), atol=1e-6)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_constant_has_no_high_frequencies(mode):
    F_low, F_high = split_frequencies(torch.full((1, 2, 8, 8), 3.25), 4, mode)
    assert (F_low == 3.25).all() and (F_high == 0).all()


def test_split_is_linear():
    a, b = normal(1, 2, 8, 8).double(), normal(1, 2, 8, 8, seed=1).double()
    for whole, of_a, of_b in zip(split_frequencies(2 * a - 3 * b, 2), split_frequencies(a, 2), split_frequencies(b, 2)):
        assert (whole - (2 * of_a - 3 * of_b)).abs().max() < 1e-12


def test_with_nearest_upsampling_the_parts_are_orthogonal():
    F = normal(1, 2, 8, 12).double()
    F_low, F_high = split_frequencies(F, 4, "nearest")
    assert np.abs(pool(F_high[0].numpy(), 4)).max() < 1e-12
    assert abs(F.square().sum() - F_high.square().sum() - upsample(F_low, 4, "nearest").square().sum()) < 1e-9


# --- Eq. 8 and [45] --------------------------------------------------------------------------------------------------

@torch.no_grad()
def test_mdta_agrees_with_a_loop_over_heads_and_channels():
    module, x = randomise(MDTA(6, 2)), normal(2, 6, 4, 5).double()
    for i in range(2):
        assert_close(module(x)[i], mdta(arrays(module), "", x[i].numpy(), 2))


@torch.no_grad()
def test_self_attention_block_agrees_with_loops():
    module, x = randomise(SelfAttention(4, 2, 2.66)), normal(1, 4, 4, 6).double()
    assert module.gdfn.out.in_channels == 10                                    # int(2.66 · 4)
    assert_close(module(x)[0], self_attention(arrays(module), "", x[0].numpy(), 2))


@torch.no_grad()
def test_channel_attention_scales_channels_by_their_means():
    module, x = randomise(ChannelAttention(8)), normal(1, 8, 4, 6).double()
    assert_close(module(x)[0], channel_attention({"c." + name: value for name, value in arrays(module).items()}, "c", x[0].numpy()), 1e-12)


@torch.no_grad()
def test_frm_agrees_with_eq_7_and_8_written_as_loops():
    module = randomise(FRM(DHRNetConfig(channels=4, heads=2, high_blocks=2)))
    assert module.k == 2
    x = normal(1, 4, 8, 12).double()
    assert_close(module(x)[0], frm(module, x[0].numpy()))


@torch.no_grad()
def test_pim_agrees_with_eq_7_to_9_written_as_loops():
    module = randomise(PIM(DHRNetConfig(channels=4, heads=2, high_blocks=2), 3))
    assert module.k == 4
    x, z = normal(1, 4, 8, 12).double(), normal(1, 3, 2, 3, seed=1).double()
    assert_close(module(x, z)[0], frm(module, x[0].numpy(), z[0].numpy()))


# --- Eq. 9 -----------------------------------------------------------------------------------------------------------

@torch.no_grad()
def test_cross_attention_agrees_with_a_sum_over_pixels_and_channels():
    module, x, z = randomise(CrossAttention(6, 3, 2.66)), normal(2, 6, 4, 5).double(), normal(2, 3, 4, 5, seed=1).double()
    module.gamma.fill_(0.3)                                                     # far from 1, because it divides
    for i in range(2):
        assert_close(module.attend(x, z)[i], cross_attention(arrays(module), "", x[i].numpy(), z[i].numpy()))


def test_gradient_reaches_all_weights_of_the_cross_attention():
    torch.manual_seed(0)
    module = CrossAttention(6, 3, 2.66)
    (module.attend(normal(1, 6, 4, 4), normal(1, 3, 4, 4, seed=1)) * normal(1, 6, 4, 4, seed=2)).sum().backward()
    weights = [module.q[0].weight, module.q[1].weight, module.k[0].weight, module.k[1].weight, module.v[0].weight, module.v[1].weight,
               module.gamma, module.W_c.weight]
    assert all(weight.grad.abs().max() > 1e-4 for weight in weights)            # with one key per softmax K, Q and gamma would have none


@torch.no_grad()
def test_softmax_sums_to_one_over_the_three_keys():
    module, x = randomise(CrossAttention(5, 3, 2.66)), normal(1, 5, 4, 4).double()
    module.v[0].weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))                  # V = z
    module.v[1].weight.zero_()[:, :, 1, 1] = 1
    module.W_c.weight.copy_(torch.eye(5).reshape(5, 5, 1, 1))                   # F^ - F = the mixture itself
    assert (module.attend(x, torch.ones(1, 3, 4, 4).double()) - x - 1).abs().max() < 1e-6
    shares = []
    for n in range(3):                                                          # V_n alone: A_n
        z = normal(1, 3, 4, 4, seed=1).double()
        module.v[0].weight.zero_()
        module.v[0].weight[n] = torch.tensor([1.0, 2.0, -1.0]).reshape(3, 1, 1)
        V_n = z[0, 0] + 2 * z[0, 1] - z[0, 2]
        share = (module.attend(x, z) - x)[0] / V_n                              # (5, 4, 4): the same at all pixels
        assert (share - share[:, :1, :1]).abs().max() < 1e-6 and ((0 < share) & (share < 1)).all()
        shares.append(share[:, 0, 0])
    assert (sum(shares) - 1).abs().max() < 1e-6
    assert torch.stack(shares).std(dim=0).min() > 0.01                          # and the three keys are not alike


@torch.no_grad()
def test_cross_attention_does_not_depend_on_how_often_the_image_repeats():
    module, x, z = randomise(CrossAttention(6, 3, 2.66)), normal(1, 6, 4, 5).double(), normal(1, 3, 4, 5, seed=1).double()
    for branch in (module.q, module.k, module.v):                               # only the centre taps: zero padding breaks the repetition
        centre = branch[1].weight[:, :, 1, 1].clone()
        branch[1].weight.zero_()[:, :, 1, 1] = centre
    once = module.attend(x, z)
    assert (module.attend(x.repeat(1, 1, 2, 2), z.repeat(1, 1, 2, 2)) - once.repeat(1, 1, 2, 2)).abs().max() < 1e-5
    for scale in (0.1, 10.0):                                                   # nor on the contrast of its queries and keys, which have unit length
        module.q[0].weight.mul_(scale)
        module.k[0].weight.mul_(scale)
        assert (module.attend(x, z) - once).abs().max() < 1e-5


@pytest.mark.parametrize("gamma", [0.0, -1.0, 1e-30])
def test_a_gamma_that_training_took_to_zero_gives_no_nan(gamma):
    module, x, z = CrossAttention(5, 3, 2.66), normal(1, 5, 4, 4), normal(1, 3, 4, 4, seed=1)
    module.gamma.data.fill_(gamma)
    result = module.attend(x, z)
    result.sum().backward()
    assert torch.isfinite(result).all() and all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


# --- Eq. 10 ----------------------------------------------------------------------------------------------------------

@torch.no_grad()
def test_output_is_the_sigmoid_of_a_convolution_of_features_plus_aligned_frames():
    net, X, z = randomise(DHRNet(SMALL.dhrnet)), rand(1, 3, 6, 8, 8).double(), normal(1, 3, 2, 2).double()
    net.out.float()
    F_0 = net.align(X)
    F = net.blocks[0].first(F_0, z)
    F = net.blocks[0].rest[0](F)
    F = net.blocks[1].first(F, z)
    F = net.blocks[1].rest[1](net.blocks[1].rest[0](F))
    slow = conv_of(arrays(net), "out", (F + F_0)[0].numpy())
    assert_close(net(X, z)[0], 1 / (1 + np.exp(-slow)), 1e-5)


@torch.no_grad()
def test_output_layer_is_float32_under_autocast():
    net, seen = DHRNet(SMALL.dhrnet), []
    net.out.register_forward_hook(lambda layer, inputs, output: seen.extend([inputs[0].dtype, output.dtype]))
    merged = []
    net.blocks[0].first.high[0].conv1.register_forward_hook(lambda layer, inputs, output: merged.append(output.dtype))
    X, z = rand(1, 3, 6, 16, 16), normal(1, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        hdr_hat = net(X, z)
    assert hdr_hat.dtype == torch.float32 and seen == [torch.float32, torch.float32] and merged == [torch.bfloat16]
    assert ((0 < hdr_hat) & (hdr_hat < 1)).all()
    assert (hdr_hat - net(X, z)).abs().max() < 0.02                             # bfloat16 keeps 8 bits


@pytest.mark.parametrize("heads, expansion", [(4, 2.66), (2, 0.05), (2, 1e30)])
def test_heads_and_an_expansion_that_do_not_fit_the_channels_are_refused(heads, expansion):
    with pytest.raises(ValueError, match=f"--heads {heads}, --expansion {re.escape(f'{expansion:g}')}: .*10 channels; choose"):
        DHRNet(DHRNetConfig(channels=10, heads=heads, expansion=expansion))


def test_unknown_upsampling_is_refused():
    with pytest.raises(ValueError, match="--upsample bicubic: use"):
        DHRNet(DHRNetConfig(upsample="bicubic"))


def test_reconstruction_blocks_are_one_pim_and_three_frms_each():
    net, baseline = DHRNet(DHRNetConfig(channels=12)), DHRNet(DHRNetConfig(channels=12), 0)
    assert [type(block.first) for block in net.blocks] == 3 * [PIM] and [type(block.first) for block in baseline.blocks] == 3 * [FRM]
    for some in (net, baseline):
        assert [len(block.rest) for block in some.blocks] == [3, 3, 3]
        rest = [module for block in some.blocks for module in block.rest]
        assert all(type(module) is FRM and isinstance(module.low, SelfAttention) and module.low.mdta.heads == 6 for module in rest)
    assert all(isinstance(block.first.low, CrossAttention) for block in net.blocks)
