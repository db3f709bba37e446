"""align.py: AM of AHDRNet."""

import torch
import torch.nn as nn

from align import AlignmentModule
from slow import arrays, assert_close, normal, rand, randomise, slow_alignment

torch.set_num_threads(1)


@torch.no_grad()
def test_alignment_agrees_with_loops():
    module, X = randomise(AlignmentModule(6, 4)), normal(1, 3, 6, 5, 6).double()
    assert_close(module(X)[0], slow_alignment(arrays(module), X[0].numpy()), 1e-12)


@torch.no_grad()
def test_zeroed_attention_halves_the_outer_frames_and_leaves_the_reference_whole():
    module, X, seen = AlignmentModule(6, 4), rand(1, 3, 6, 5, 6), []
    for attention in (module.attention_1, module.attention_3):
        attention.conv2.weight.zero_()
        attention.conv2.bias.zero_()                                            # sigmoid(0) = 0.5
    module.fuse.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    module(X)
    f = nn.functional.leaky_relu(module.extract(X[0]))
    assert torch.allclose(seen[0][0], torch.cat([0.5 * f[0], f[1], 0.5 * f[2]]), atol=1e-6)
    module.attention_3.conv2.bias.fill_(-100.0)                                 # the long frame is rejected, the short one is not
    module(X)
    assert torch.allclose(seen[1][0], torch.cat([0.5 * f[0], f[1], 0 * f[2]]), atol=1e-6)
