"""align.py, lpenet.py, dhrnet.py, denoiser.py, lfdiff.py: Eq. 6-10 and 13 against slow loops in float64, and what networks must keep.

The slow versions below know the formulas of the papers and the parameters of our modules, nothing of PyTorch's layers.
"""

import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn as nn

import lfdiff
from align import AlignmentModule
from common import save_checkpoint
from data import T, T_inverse, network_input, to_radiance
from ddim import DiffusionConfig, diffuse
from denoiser import Denoiser, DenoiserConfig, PixelAttention, TimeResidualBlock, timestep_embedding
from dhrnet import FRM, MDTA, PIM, Blend, ChannelAttention, CrossAttention, DHRNet, DHRNetConfig, SelfAttention, split_frequencies, upsample
from lfdiff import LFDiffConfig, build, load_weights, pad_to_multiple, reconstruct, save_weights
from loss import diffusion_loss
from lpenet import ConditionNet, LPENet, LPENetConfig, ResidualBlock

torch.set_num_threads(1)

SMALL = LFDiffConfig(DHRNetConfig(channels=12, frms=(1, 2), heads=2, high_blocks=1), LPENetConfig(prior_width=8, prior_blocks=2, condition_width=8),
                     DenoiserConfig(unet_width=16, unet_blocks=1), DiffusionConfig(T=20, S=3, beta_1=0.005, beta_T=0.5))
VARIANTS = ("baseline", "s1", "s2_without_dm", "s2")


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomise(module, seed=0):
    """Every parameter random, the ones that start at 1 or 0 too, so that none can be forgotten. Returns: the module in float64."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.dim() == 4 else 4
        parameter.data = torch.randn(parameter.shape, generator=generator) * fan_in ** -0.5 + (1.0 if parameter.dim() != 4 else 0.0)
    return module.double()


def fresh(variant, seed=0, config=SMALL):
    torch.manual_seed(seed)
    return build(variant, config)


def bracket(B, H, W, seed=0):
    """ldr (B, 3, 3, H, W), ev (B, 3), hdr (B, 3, H, W)."""
    hdr, ev = rand(B, 3, H, W, seed=seed) ** 4, torch.tensor([0.0, 2.0, 4.0]).expand(B, 3)
    return torch.stack([(hdr * 2.0 ** e).clamp(max=1) ** (1 / 2.2) for e in (0, 2, 4)], dim=1), ev, hdr


# --- the slow versions: NumPy, float64, one image (C, H, W) ----------------------------------------------------------

def arrays(module):
    return {name: parameter.detach().double().numpy() for name, parameter in module.named_parameters()}


def conv(x, weight, bias=None, groups=1):
    """Convolution with zero padding, stride 1: a loop over outputs, inputs and taps."""
    out, fan_in, k, _ = weight.shape
    padded, (_, H, W) = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2))), x.shape
    y = np.zeros((out, H, W))
    for o in range(out):
        first = o // (out // groups) * fan_in
        for i in range(fan_in):
            for dy in range(k):
                for dx in range(k):
                    y[o] += weight[o, i, dy, dx] * padded[first + i, dy:dy + H, dx:dx + W]
        y[o] += 0 if bias is None else bias[o]
    return y


def conv_of(p, name, x, groups=1):
    return conv(x, p[name + ".weight"], p.get(name + ".bias"), groups)


def project(p, name, x):
    y = conv_of(p, name + ".0", x)
    return conv_of(p, name + ".1", y, groups=len(y))


def residual(p, name, x):
    return x + conv_of(p, name + "conv2", np.maximum(conv_of(p, name + "conv1", x), 0))


def layer_norm(p, name, x):
    y = np.zeros_like(x)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            v = x[:, i, j]
            y[:, i, j] = (v - v.mean()) / math.sqrt(((v - v.mean()) ** 2).mean() + 1e-5) * p[name + ".norm.weight"] + p[name + ".norm.bias"]
    return y


def softmax(values):
    e = [math.exp(v) for v in values]
    return [v / sum(e) for v in e]


def mdta(p, name, x, heads):
    C, h, w = x.shape
    qkv = project(p, name + "qkv", x)
    Q, K, V = qkv[:C], qkv[C:2 * C], qkv[2 * C:]
    y, size = np.zeros_like(x), C // heads
    for head in range(heads):
        keys = range(head * size, (head + 1) * size)
        for c in keys:
            logits = [(Q[c] * K[n]).sum() / math.sqrt((Q[c] ** 2).sum() * (K[n] ** 2).sum()) * p[name + "temperature"][head, 0, 0] for n in keys]
            for weight, n in zip(softmax(logits), keys):
                y[c] += weight * V[n]
    return conv_of(p, name + "out", y)


def gdfn(p, name, x):
    y = project(p, name + "inward", x)
    a, b = y[:len(y) // 2], y[len(y) // 2:]
    return conv_of(p, name + "out", a * 0.5 * (1 + np.vectorize(math.erf)(a / math.sqrt(2))) * b)


def self_attention(p, name, x, heads):
    x = x + mdta(p, name + "mdta.", layer_norm(p, name + "norm1", x), heads)
    return x + gdfn(p, name + "gdfn.", layer_norm(p, name + "norm2", x))


def cross_attention(p, name, x, z):
    """Eq. 9 pixel by pixel and channel by channel."""
    Q, K, V = project(p, name + "q", x), project(p, name + "k", z), project(p, name + "v", z)
    C, N, (h, w) = len(Q), len(K), x.shape[1:]
    mixed = np.zeros_like(x)
    for c in range(C):
        logits = []
        for n in range(N):
            dot = norm_q = norm_k = 0.0
            for i in range(h):
                for j in range(w):
                    dot, norm_q, norm_k = dot + K[n, i, j] * Q[c, i, j], norm_q + Q[c, i, j] ** 2, norm_k + K[n, i, j] ** 2
            logits.append(dot / math.sqrt(norm_q * norm_k) / p[name + "gamma"][0])
        A = softmax(logits)
        for i in range(h):
            for j in range(w):
                mixed[c, i, j] = sum(A[n] * V[n, i, j] for n in range(N))
    return conv_of(p, name + "W_c", mixed) + x


def pool(x, k):
    C, H, W = x.shape
    return x.reshape(C, H // k, k, W // k, k).mean(axis=(2, 4))


def enlarge(x, k):
    """Bilinear: output pixel i looks at (i + 0.5) / k - 0.5, and the border is repeated (align_corners=False)."""
    C, h, w = x.shape
    y = np.zeros((C, h * k, w * k))
    for i in range(h * k):
        for j in range(w * k):
            v, u = min(max((i + 0.5) / k - 0.5, 0), h - 1), min(max((j + 0.5) / k - 0.5, 0), w - 1)
            i0, j0 = int(v), int(u)
            i1, j1, a, b = min(i0 + 1, h - 1), min(j0 + 1, w - 1), v - int(v), u - int(u)
            y[:, i, j] = (1 - a) * ((1 - b) * x[:, i0, j0] + b * x[:, i0, j1]) + a * ((1 - b) * x[:, i1, j0] + b * x[:, i1, j1])
    return y


def channel_attention(p, name, x):
    mean = x.mean(axis=(1, 2), keepdims=True)
    weight = conv_of(p, name + ".weigh.3", np.maximum(conv_of(p, name + ".weigh.1", mean), 0))
    return x / (1 + np.exp(-weight))


def frm(module, x, z=None):
    """Eq. 7 and 8 from the input to the output of an FRM (z is None) or a PIM."""
    p = arrays(module)
    y = residual(p, "residual.", x)
    low = pool(y, module.k)
    high = y - enlarge(low, module.k)
    for i in range(len(module.high)):
        high = residual(p, f"high.{i}.", high)
    if z is None:
        low = self_attention(p, "low.", low, module.low.mdta.heads)
    else:
        low = cross_attention(p, "low.", low, z)
        low = low + gdfn(p, "low.gdfn.", layer_norm(p, "low.norm", low))
    y = conv_of(p, "merge", np.concatenate([high, enlarge(low, module.k)]))
    return x + channel_attention(p, "channel_attention", y)


def assert_close(ours, slow, tolerance=2e-6):
    """Attention's logits are float32 in our modules (relative 6e-8, some digits lost in sums); all else is float64 here."""
    slow = np.asarray(slow)
    assert ours.shape == slow.shape
    assert np.abs(ours.detach().numpy() - slow).max() < tolerance * np.abs(slow).max()


# --- Eq. 6 -----------------------------------------------------------------------------------------------------------

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
    module.gamma.fill_(0.3)                                                     # far from 1: it divides
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
    for scale in (0.1, 10.0):                                                   # unit length: nor on the contrast of its queries and keys
        module.q[0].weight.mul_(scale)
        module.k[0].weight.mul_(scale)
        assert (module.attend(x, z) - once).abs().max() < 1e-5


# --- AM and Eq. 13 ---------------------------------------------------------------------------------------------------

def slow_alignment(p, X):
    def leaky(x):
        return np.where(x > 0, x, 0.01 * x)
    f = [leaky(conv_of(p, "extract", X[i])) for i in range(3)]
    for i, name in ((0, "attention_1"), (2, "attention_3")):
        A = conv_of(p, name + ".conv2", leaky(conv_of(p, name + ".conv1", np.concatenate([f[i], f[1]]))))
        f[i] = f[i] / (1 + np.exp(-A))
    return conv_of(p, "fuse", np.concatenate(f))


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
def test_a_blend_is_the_weighted_mean_of_the_frames_and_eq_10():
    blend, F, H_frames, hdr_hat = randomise(Blend(5)), normal(1, 5, 6, 7).double(), rand(1, 3, 3, 6, 7, seed=1).double(), rand(1, 3, 6, 7, seed=2).double()
    seen = np.concatenate([F[0].numpy(), *T(H_frames)[0].numpy(), T(hdr_hat)[0].numpy()])
    hidden = conv_of(arrays(blend), "compare", seen)
    scores = conv_of(arrays(blend), "weigh", np.where(hidden > 0, hidden, 0.01 * hidden))
    slow = np.zeros((3, 6, 7))
    for c in range(3):
        weights = np.exp([scores[3 * i + c] for i in range(4)])
        choices = [H_frames[0, i, c].numpy() for i in range(3)] + [hdr_hat[0, c].numpy()]
        slow[c] = sum(w * choice for w, choice in zip(weights, choices)) / weights.sum(0)
    assert_close(blend(F, H_frames, hdr_hat)[0], slow, 1e-12)


@torch.no_grad()
@pytest.mark.parametrize("i", [0, 1, 2])
def test_a_blend_can_give_a_frame_back_exactly(i):
    torch.manual_seed(0)
    net, z = DHRNet(replace(SMALL.dhrnet, blend=True)), normal(1, 3, 4, 4)
    ldr, ev, _ = bracket(1, 16, 16)
    net.blend.weigh.bias[:] = -100.0
    net.blend.weigh.bias[3 * i:3 * i + 3] = 100.0
    assert torch.equal(net(network_input(ldr, ev), z), to_radiance(ldr, ev)[:, i])


@torch.no_grad()
def test_a_fresh_blend_is_eq_10_and_a_little_of_the_frames():
    torch.manual_seed(0)
    net, z = DHRNet(replace(SMALL.dhrnet, blend=True)), normal(1, 3, 4, 4)
    ldr, ev, _ = bracket(1, 16, 16)
    blended, H_frames, net.blend = net(network_input(ldr, ev), z), to_radiance(ldr, ev), None
    direct, share = net(network_input(ldr, ev), z), math.exp(3) / (math.exp(3) + 3)
    assert share > 0.85 and torch.allclose(blended, share * direct + (1 - share) * H_frames.mean(dim=1), atol=1e-6)


def test_in_training_every_other_patch_of_a_blend_is_eq_10_alone():
    torch.manual_seed(0)
    net, z, (ldr, ev, _) = DHRNet(replace(SMALL.dhrnet, blend=True)), normal(3, 3, 4, 4), bracket(3, 16, 16)
    trained = net(network_input(ldr, ev), z).detach()
    with torch.no_grad():
        blended, net.blend = net.eval()(network_input(ldr, ev), z), None
        direct = net(network_input(ldr, ev), z)
    assert torch.allclose(trained[[0, 2]], blended[[0, 2]]) and torch.allclose(trained[1], direct[1])
    assert all((blended[i] - direct[i]).abs().max() > 0.01 for i in range(3))


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


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="heads 4: .*10 channels; choose"):
        DHRNet(DHRNetConfig(channels=10, heads=4))


def test_unknown_upsampling_is_refused():
    with pytest.raises(ValueError, match="--upsample bicubic: use"):
        DHRNet(DHRNetConfig(upsample="bicubic"))


@pytest.mark.parametrize("dhrnet, lpenet, denoiser", [({"pool_pim": 2}, {}, {}), ({"pool_frm": 3}, {}, {}), ({"pool_pim": 8}, {"unshuffle": 8}, {}),
                                                      ({}, {}, {"unet_multipliers": (1, 2, 2, 2)})])
def test_sizes_that_do_not_fit_each_other_are_refused(dhrnet, lpenet, denoiser):
    config = LFDiffConfig(DHRNetConfig(**dhrnet), LPENetConfig(**lpenet), DenoiserConfig(**denoiser))
    with pytest.raises(ValueError, match="--unshuffle|--unet-multipliers"):
        build("s2", config)


def test_reconstruction_blocks_are_one_pim_and_three_frms_each():
    net, baseline = DHRNet(DHRNetConfig(channels=12)), DHRNet(DHRNetConfig(channels=12), 0)
    assert [type(block.first) for block in net.blocks] == 3 * [PIM] and [type(block.first) for block in baseline.blocks] == 3 * [FRM]
    for some in (net, baseline):
        assert [len(block.rest) for block in some.blocks] == [3, 3, 3]
        rest = [module for block in some.blocks for module in block.rest]
        assert all(type(module) is FRM and isinstance(module.low, SelfAttention) and module.low.mdta.heads == 6 for module in rest)
    assert all(isinstance(block.first.low, CrossAttention) for block in net.blocks)


# --- denoiser --------------------------------------------------------------------------------------------------------

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
        return (i // 4 // side, i % 4 // side) == (j // 4 // side, j % 4 // side)          # 4 pixels a row
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


# --- all variants ----------------------------------------------------------------------------------------------------

def training_loss(model, seed=3):
    """One training pass on a 16x16 bracket of two, weighted at random so that no gradient cancels."""
    ldr, ev, hdr = bracket(2, 16, 16)
    X, weight = network_input(ldr, ev), normal(2, 3, 16, 16, seed=seed)
    if model.variant in ("baseline", "s1"):
        return (model(X, hdr) * weight).sum()
    z, eps = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    hdr_hat, z_hat, eps_hat = model(X, z, torch.tensor([2, 19]), eps, normal(2, 3, 4, 4, seed=2))
    return (hdr_hat * weight).sum() + (diffusion_loss(eps, eps_hat, z_hat, z)[0] if eps_hat is not None else 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_gradient(variant):
    model = fresh(variant)
    training_loss(model).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.abs().max() > 1e-7]
    assert without == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_two_parameters_share_their_storage(variant):
    model = fresh(variant)
    named = list(model.named_parameters(remove_duplicate=False))
    assert len({parameter.data_ptr() for _, parameter in named}) == len(named)
    assert len({id(module) for module in model.modules()}) == len(list(model.named_modules(remove_duplicate=False)))
    if variant == "s2":                     # two modules of one name would leave one set of parameters: count the table's parts
        parts = (model.dhrnet, model.condition, model.denoiser)
        assert sum(len(list(part.parameters())) for part in parts) == len(named)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_image_in_a_batch_comes_out_as_it_does_alone(variant):
    model, (ldr, ev, hdr) = fresh(variant), bracket(2, 16, 16)
    X = network_input(ldr, ev)
    def forward(i):
        if variant in ("baseline", "s1"):
            return [model(X[i], hdr[i])]
        z, eps, eps_T = (normal(2, 3, 4, 4, seed=seed)[i] for seed in range(3))
        return [part for part in model(X[i], z, torch.tensor([2, 19])[i], eps, eps_T) if part is not None]
    together = forward(slice(0, 2))
    for i in range(2):
        for batch, alone in zip(together, forward(slice(i, i + 1))):
            assert (batch[i] - alone[0]).abs().max() < 1e-4 * max(1, alone.abs().max())
            assert (batch[i] - batch[1 - i]).abs().max() > 1e-4             # and the two are not the same picture


@pytest.mark.parametrize("variant, paper", [("baseline", 5.09e6), ("s1", 5.24e6), ("s2_without_dm", 5.85e6), ("s2", 7.48e6)])
def test_parameter_count_is_within_one_and_a_half_percent_of_table_3(variant, paper):
    ours = sum(math.prod(parameter.shape) for parameter in build(variant, LFDiffConfig()).parameters())
    assert abs(ours / paper - 1) < 0.015
    assert lfdiff.PAPER_PARAMETERS[variant] == paper


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="variant 's3': not one of baseline, s1"):
        build("s3", SMALL)


# --- stage 2 ---------------------------------------------------------------------------------------------------------

class KnowsThePrior(nn.Module):
    """In the denoiser's place: inverts Eq. 2 with the true prior, and notes what it was asked."""

    def __init__(self, z, schedule):
        super().__init__()
        self.z, self.schedule, self.asked = z, schedule, []

    def forward(self, z_t, D, t):
        self.asked.append((z_t.detach().clone(), t.tolist()))
        a = self.schedule.abar[t].float().reshape(-1, 1, 1, 1)
        eps = (z_t - a.sqrt() * self.z) / (1 - a).sqrt()
        return eps if self.schedule.predict == "eps" else a.sqrt() * eps - (1 - a).sqrt() * self.z


@torch.no_grad()
@pytest.mark.parametrize("predict", ["v", "eps"])
def test_perfect_denoiser_has_no_diffusion_loss(predict):
    model = fresh("s2", config=LFDiffConfig(SMALL.dhrnet, SMALL.lpenet, SMALL.denoiser, DiffusionConfig(predict=predict)))
    z, eps, eps_T, t = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1), normal(2, 3, 4, 4, seed=2), torch.tensor([30, 170])
    model.denoiser = KnowsThePrior(z, model.schedule)
    X = network_input(*bracket(2, 16, 16)[:2])
    hdr_hat, z_hat, eps_hat = model(X, z, t, eps, eps_T)
    L_diff, terms = diffusion_loss(eps, eps_hat, z_hat, z)
    assert terms["L_eps"] < 1e-8 and terms["L1_z"] < 1e-3                       # float32, magnified 1/√ᾱ_T = 180 times on the way
    assert diffusion_loss(eps_T, eps_hat, z_hat, z)[1]["L_eps"] > 1             # the noise of another z_t will not do
    asked = model.denoiser.asked
    assert asked[0][1] == [30, 170] and torch.equal(asked[0][0], diffuse(z, t, eps, model.schedule))
    assert [times for _, times in asked[1:]] == [[s, s] for s in range(200, 0, -20)]
    assert torch.equal(asked[1][0], diffuse(z, 200, eps_T, model.schedule))     # Eq. 12: z_T is made of z in training
    assert torch.allclose(hdr_hat, model.dhrnet(X, z), atol=1e-3)
    without, z_again, _ = model(X, z, t, eps, eps_T, joint=False)
    assert without is None and torch.equal(z_again, z_hat)


def test_reconstruction_loss_trains_the_diffusion_model_through_all_its_steps():
    model, X = fresh("s2"), network_input(*bracket(2, 16, 16)[:2])
    z, eps = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    hdr_hat, z_hat, _ = model(X, z, torch.tensor([2, 19]), eps, normal(2, 3, 4, 4, seed=2))
    gradient = torch.autograd.grad((hdr_hat * normal(2, 3, 16, 16, seed=3)).sum(), [*model.denoiser.parameters(), *model.condition.parameters(), z_hat])
    assert all(part.abs().max() > 0 for part in gradient)


@torch.no_grad()
def test_without_a_diffusion_model_the_condition_is_the_prior():
    model, X = fresh("s2_without_dm"), network_input(*bracket(2, 16, 16)[:2])
    hdr_hat, z_hat, eps_hat = model(X, None, None, None, None)
    assert torch.equal(z_hat, model.condition(X)) and eps_hat is None
    assert torch.equal(model.sample_prior(model.condition(X)), z_hat) and torch.equal(hdr_hat, model.dhrnet(X, z_hat))


@torch.no_grad()
def test_diffusion_sees_the_prior_standardised_and_dhrnet_as_lpenet_made_it():
    model, X = fresh("s2"), network_input(*bracket(1, 16, 16)[:2])
    model.z_mean, model.z_std = torch.tensor([1.0, -2.0, 0.5]).reshape(1, 3, 1, 1), torch.tensor([2.0, 0.5, 4.0]).reshape(1, 3, 1, 1)
    raw = torch.tensor([5.0, -1.0, -3.5]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    z = model.standardise(raw)
    assert z[0, :, 1, 2].tolist() == [2, 2, -1]
    assert torch.allclose(model.rebuild(X, z), model.dhrnet(X, raw), atol=1e-6)


def test_stage_1_gives_dhrnet_the_prior_of_the_truth():
    model, (ldr, ev, hdr) = fresh("s1"), bracket(1, 16, 16)
    X = network_input(ldr, ev)
    assert torch.equal(model(X, hdr), model.dhrnet(X, model.lpenet(hdr)))
    assert not torch.equal(model(X, hdr), model(X, hdr.flip(-1)))


# --- inference -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("H, W", [(37, 50), (17, 16), (5, 7), (16, 32)])
@pytest.mark.parametrize("variant", ["baseline", "s2_without_dm", "s2"])
def test_any_size_comes_out_at_its_size(variant, H, W):
    ldr, ev, _ = bracket(1, H, W)
    hdr_hat = reconstruct(fresh(variant), ldr, ev)
    assert hdr_hat.shape == (1, 3, H, W) and hdr_hat.dtype == torch.float32 and not hdr_hat.requires_grad
    assert ((0 < hdr_hat) & (hdr_hat < 1)).all()


@pytest.mark.parametrize("H, W, mode", [(37, 50, "reflect"), (17, 16, "reflect"), (5, 7, "edge"), (20, 3, "edge"), (16, 32, "reflect")])
def test_padding_reflects_to_multiples_of_16(H, W, mode):
    image = rand(2, 3, H, W)
    padded = pad_to_multiple(image)
    assert padded.shape == (2, 3, -(-H // 16) * 16, -(-W // 16) * 16)
    assert np.array_equal(padded.numpy(), np.pad(image.numpy(), ((0, 0), (0, 0), (0, -H % 16), (0, -W % 16)), mode=mode))


def test_inference_pads_and_crops_without_moving_the_image():
    ldr, ev, _ = bracket(2, 19, 35)
    shapes = []
    def radiance_of_reference(X):
        shapes.append(tuple(X.shape))
        return X[:, 1, 3:]
    hdr_hat = reconstruct(SimpleNamespace(variant="baseline", dhrnet=radiance_of_reference), ldr, ev)
    assert shapes == [(2, 3, 6, 32, 48)]
    assert torch.allclose(hdr_hat, ldr[:, 1] ** 2.2 / 4, atol=1e-6)             # 2 stops above the shortest


def test_stage_1_is_refused_at_inference():
    with pytest.raises(ValueError, match="stage 1, .*; use stage 2's"):
        reconstruct(fresh("s1"), *bracket(1, 16, 16)[:2])


def test_one_seed_gives_one_image_and_another_seed_another():
    model, (ldr, ev, _) = fresh("s2"), bracket(1, 16, 16)
    first, again, other = (reconstruct(model, ldr, ev, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("S, times", [(None, [20, 13, 7]), (1, [20]), (20, list(range(20, 0, -1)))])
def test_inference_takes_the_asked_number_of_steps_from_pure_noise(S, times):
    model, (ldr, ev, _) = fresh("s2"), bracket(1, 16, 16)
    model.denoiser = KnowsThePrior(torch.zeros(1, 3, 4, 4), model.schedule)
    reconstruct(model, ldr, ev, S, torch.Generator().manual_seed(1))
    assert [t for _, [t] in model.denoiser.asked] == times
    assert torch.equal(model.denoiser.asked[0][0], torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1)))


# --- weight files ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_come_back_rounded_to_float16(tmp_path, variant):
    model = fresh(variant).train()
    for name, buffer in model.named_buffers():
        buffer.copy_(normal(*buffer.shape, seed=len(name)).abs() + 0.5)
    save_weights(tmp_path / "weights.pt", model, {"step": 3})
    loaded = load_weights(tmp_path / "weights.pt")
    assert loaded.variant == variant and loaded.config == SMALL and not loaded.training
    state = loaded.state_dict()
    assert set(state) == set(model.state_dict())
    for name, value in model.state_dict().items():
        assert state[name].dtype == torch.float32 and torch.equal(state[name], value.half().float()), name
    assert (tmp_path / "weights.pt").stat().st_size < 2.6 * sum(p.numel() for p in model.parameters()) + 80_000       # 2 bytes a weight
    if variant != "s1":
        ldr, ev, _ = bracket(1, 16, 16)
        a, b = (reconstruct(m, ldr, ev, generator=torch.Generator().manual_seed(0)) for m in (model, loaded))
        assert (a - b).abs().max() < 0.02


@pytest.mark.parametrize("kind", ["text", "truncated", "no model", "no variant", "no config", "unknown variant", "other config", "other shapes",
                                  "missing weight"])
def test_foreign_weight_file_is_refused_in_one_line(tmp_path, kind):
    path, model = tmp_path / "weights.pt", fresh("s2")
    good = {"variant": "s2", "config": asdict(SMALL), "model": model.state_dict(), "notes": {}}
    if kind == "text":
        path.write_text("<html>not found</html>")
    elif kind == "truncated":
        save_checkpoint(path, good)
        path.write_bytes(path.read_bytes()[:-5000])
    elif kind == "other shapes":
        save_checkpoint(path, {**good, "model": {**model.state_dict(), "dhrnet.out.bias": torch.zeros(4)}})
    elif kind == "missing weight":
        save_checkpoint(path, {**good, "model": {name: value for name, value in model.state_dict().items() if name != "dhrnet.out.bias"}})
    elif kind == "unknown variant":
        save_checkpoint(path, {**good, "variant": "s9"})
    elif kind == "other config":
        save_checkpoint(path, {**good, "config": {"channels": 12}})
    else:
        save_checkpoint(path, {name: value for name, value in good.items() if name != kind.removeprefix("no ")})
    with pytest.raises(ValueError) as error:
        load_weights(path)
    assert "\n" not in str(error.value) and len(str(error.value)) > 20


def test_missing_weight_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights\.pt: no such"):
        load_weights(tmp_path / "weights.pt")
