"""lpenet.py: Eq. 6 and 13."""

import math

import torch
import torch.nn as nn

from data import T, T_inverse
from lpenet import ConditionNet, LPENet, LPENetConfig, ResidualBlock
from slow import SMALL, arrays, assert_close, conv_of, normal, rand, randomise, residual

torch.set_num_threads(1)


def test_mu_law_at_hand_values_and_back():
    x = torch.tensor([0.0, 1.0, 0.01, 0.0002, 0.5])
    by_hand = [0, 1, math.log(51) / math.log(5001), math.log(2) / math.log(5001), math.log(2501) / math.log(5001)]
    assert torch.allclose(T(x), torch.tensor(by_hand), atol=1e-6, rtol=0)
    assert torch.allclose(T_inverse(T(x)), x, rtol=1e-5, atol=1e-8)


def test_lpenet_sees_radiance_then_its_mu_law_unshuffled_by_four():
    net, hdr, seen = LPENet(SMALL.lpenet), rand(2, 3, 8, 12), []
    net.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert net(hdr).shape == (2, 3, 2, 3)
    assert seen[0].shape == (2, 96, 2, 3)
    for c in range(6):
        plane = hdr[:, c] if c < 3 else torch.log(1 + 5000 * hdr[:, c - 3]) / math.log(5001)
        for dy in range(4):
            for dx in range(4):
                assert torch.allclose(seen[0][:, 16 * c + 4 * dy + dx], plane[:, dy::4, dx::4], atol=1e-6)


def test_lpenet_is_a_convolution_four_residual_blocks_and_a_convolution():
    net = LPENet(LPENetConfig())
    assert [type(module) for module in net.trunk] == [nn.Conv2d] + 4 * [ResidualBlock] + [nn.Conv2d]
    net, x = randomise(LPENet(SMALL.lpenet)), normal(96, 3, 2).double()
    p, y = arrays(net), conv_of(arrays(net), "trunk.0", x.numpy())
    for i in (1, 2):
        y = residual(p, f"trunk.{i}.", y)
    assert_close(net.trunk(x[None])[0], conv_of(p, "trunk.3", y), 1e-12)


def test_condition_sees_each_frame_unshuffled_by_four():
    net, X, seen = ConditionNet(SMALL.lpenet), rand(2, 3, 6, 8, 12), []
    net.align.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert net(X).shape == (2, 3, 2, 3) and seen[0].shape == (2, 3, 96, 2, 3)
    for frame in range(3):
        for c in range(6):
            for dy in range(4):
                for dx in range(4):
                    assert torch.equal(seen[0][:, frame, 16 * c + 4 * dy + dx], X[:, frame, c, dy::4, dx::4])
    assert len({module.weight.shape for module in (net.trunk[0], LPENet(SMALL.lpenet).trunk[0])}) == 2      # only the first layer differs
    assert [m.conv1.weight.shape for m in net.trunk[1:-1]] == [m.conv1.weight.shape for m in LPENet(SMALL.lpenet).trunk[1:-1]]
