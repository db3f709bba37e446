"""denoiser.py: the U-Net against its parts, and its attention against loops."""

import math

import numpy as np
import pytest
import torch

from denoiser import Denoiser, DenoiserConfig, PixelAttention, TimeResidualBlock, timestep_embedding
from slow import SMALL, arrays, assert_close, conv_of, normal, randomise, softmax

torch.set_num_threads(1)


def test_time_embedding_at_hand_values():
    embedding = timestep_embedding(torch.tensor([0, 3]), 4)                     # frequencies 1 and 1/100
    by_hand = [[0, 0, 1, 1], [math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)]]
    assert torch.allclose(embedding, torch.tensor(by_hand), atol=1e-6)


def group_norm(p, name, x, groups=8):
    y = np.zeros_like(x)
    for g in np.split(np.arange(len(x)), groups):
        y[g] = (x[g] - x[g].mean()) / np.sqrt(x[g].var() + 1e-5)
    return y * p[name + ".weight"][:, None, None] + p[name + ".bias"][:, None, None]


@torch.no_grad()
@pytest.mark.parametrize("window", [0, 2, 4, 8])
def test_pixel_attention_agrees_with_a_loop_over_the_pixels_of_each_window(window):
    module, x = randomise(PixelAttention(16, window)), normal(2, 16, 3, 4).double()
    p, side = arrays(module), window or 4
    def same_window(i, j):
        return (i // 4 // side, i % 4 // side) == (j // 4 // side, j % 4 // side)          # 4 pixels per row
    for image in range(2):
        Q, K, V = np.split(conv_of(p, "qkv", group_norm(p, "norm", x[image].numpy())).reshape(48, 12), 3)
        y = np.zeros((16, 12))
        for i in range(12):
            others = [j for j in range(12) if same_window(i, j)]
            for weight, j in zip(softmax([Q[:, i] @ K[:, j] / 4 for j in others]), others):
                y[:, i] += weight * V[:, j]
        assert_close(module(x)[image], x[image].numpy() + conv_of(p, "out", y.reshape(16, 3, 4)), 1e-12)


@torch.no_grad()
def test_windows_change_nothing_in_a_training_patch_of_128():
    torch.manual_seed(0)
    net = Denoiser(DenoiserConfig())
    whole = Denoiser(DenoiserConfig(unet_window=0))
    whole.load_state_dict(net.state_dict())
    t = torch.tensor([7, 90])
    patch, larger = normal(2, 3, 32, 32), normal(2, 3, 64, 64)                             # 1/4 of 128 pixels, of 256
    assert torch.equal(net(patch, patch, t), whole(patch, patch, t))
    assert not torch.allclose(net(larger, larger, t), whole(larger, larger, t), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("out", [8, 16])
def test_time_residual_block_agrees_with_loops(out):
    module, x, time = randomise(TimeResidualBlock(8, out, 5)), normal(1, 8, 3, 4).double(), normal(1, 5, seed=1).double()
    def silu(x):
        return x / (1 + np.exp(-x))
    p = arrays(module)
    y = conv_of(p, "conv1", silu(group_norm(p, "norm1", x[0].numpy())))
    y = y + (p["time.weight"] @ silu(time[0].numpy()) + p["time.bias"])[:, None, None]
    y = conv_of(p, "conv2", silu(group_norm(p, "norm2", y)))
    assert_close(module(x, time)[0], y + (x[0].numpy() if out == 8 else conv_of(p, "skip", x[0].numpy())), 1e-12)


def test_unet_has_three_levels_of_two_blocks_and_attention_below():
    net, sizes = Denoiser(DenoiserConfig()), []
    for module in net.modules():
        if isinstance(module, TimeResidualBlock):
            module.register_forward_hook(lambda layer, inputs, output: sizes.append(tuple(output.shape[1:3])))
    assert net(normal(1, 3, 16, 16), normal(1, 3, 16, 16), torch.tensor([5])).shape == (1, 3, 16, 16)
    assert sizes == 2 * [(32, 16)] + 2 * [(64, 8)] + 4 * [(64, 4)] + 3 * [(64, 4)] + 3 * [(64, 8)] + 3 * [(32, 16)]
    assert sum(isinstance(module, PixelAttention) for module in net.modules()) == 2 + 1 + 3


@torch.no_grad()
def test_unet_of_one_block_a_level_is_wired_as_written_out_here():
    net, z_t, D, t = Denoiser(SMALL.denoiser), normal(2, 3, 8, 8), normal(2, 3, 8, 8, seed=1), torch.tensor([3, 17])
    def block(stage, i, x):
        return stage["attentions"][i](stage["blocks"][i](x, time))
    def twice(x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    time = net.time(timestep_embedding(t, 16))
    full = net.inward(torch.cat([z_t, D], dim=1))
    a = block(net.down[0], 0, full)                                                         # 16 channels at 8x8
    half = net.down[0]["resize"](a)
    b = block(net.down[1], 0, half)                                                         # 32 at 4x4
    quarter = net.down[1]["resize"](b)
    c = block(net.down[2], 0, quarter)                                                      # 32 at 2x2, with attention
    x = net.middle2(net.middle_attention(net.middle1(c, time)), time)
    for stage, skips in zip(net.up, ((c, quarter), (b, half), (a, full))):                  # the last made is the first used
        for i, skip in enumerate(skips):
            x = block(stage, i, torch.cat([x, skip], dim=1))
        x = stage["resize"](x if stage is net.up[2] else twice(x))
    x = net.norm(x)
    assert torch.allclose(net(z_t, D, t), net.out(x * torch.sigmoid(x)), atol=1e-6)


@torch.no_grad()
def test_denoiser_sees_z_t_then_D_and_the_time():
    net, z_t, D, seen = Denoiser(SMALL.denoiser), normal(2, 3, 4, 8), normal(2, 3, 4, 8, seed=1), []
    net.inward.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    output = net(z_t, D, torch.tensor([3, 17]))
    assert output.shape == (2, 3, 4, 8) and torch.equal(seen[0], torch.cat([z_t, D], dim=1))
    assert (net(z_t, D, torch.tensor([3, 3]))[0] - output[0]).abs().max() < 1e-5            # each sample its own time
    assert (net(z_t, D, torch.tensor([3, 3]))[1] - output[1]).abs().max() > 1e-4
    assert (net(z_t, 0 * D, torch.tensor([3, 17])) - output).abs().max() > 1e-3
