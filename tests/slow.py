"""Slow versions of Eq. 6 to 10 and of the papers' modules, in NumPy and float64, and small models to compare with them.

The slow versions use the formulas of the papers and the names of our parameters, but none of PyTorch's layers.
"""

import math

import numpy as np
import torch

from ddim import DiffusionConfig
from denoiser import DenoiserConfig
from dhrnet import DHRNetConfig
from lfdiff import LFDiffConfig, build
from lpenet import LPENetConfig

SMALL = LFDiffConfig(DHRNetConfig(channels=12, frms=(1, 2), heads=2, high_blocks=1), LPENetConfig(prior_width=8, prior_blocks=2, condition_width=8),
                     DenoiserConfig(unet_width=16, unet_blocks=1), DiffusionConfig(T=20, S=3, beta_1=0.005, beta_T=0.5))
VARIANTS = ("baseline", "s1", "s2_without_dm", "s2")


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomise(module, seed=0):
    """Makes every parameter random, even those that start at 1 or 0, so that none can be forgotten. Returns: the module in float64."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.dim() == 4 else 4
        parameter.data = torch.randn(parameter.shape, generator=generator) * fan_in ** -0.5 + (1.0 if parameter.dim() != 4 else 0.0)
    return module.double()


def fresh(variant, seed=0, config=SMALL):
    torch.manual_seed(seed)
    return build(variant, config)


def bracket(B, H, W, seed=0):
    """Returns ldr (B, 3, 3, H, W), ev (B, 3), hdr (B, 3, H, W)."""
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
    """The logits of attention are float32 in our modules (relative 6e-8, some digits lost in sums); everything else is float64 here."""
    slow = np.asarray(slow)
    assert ours.shape == slow.shape
    assert np.abs(ours.detach().numpy() - slow).max() < tolerance * np.abs(slow).max()


def slow_alignment(p, X):
    def leaky(x):
        return np.where(x > 0, x, 0.01 * x)
    f = [leaky(conv_of(p, "extract", X[i])) for i in range(3)]
    for i, name in ((0, "attention_1"), (2, "attention_3")):
        A = conv_of(p, name + ".conv2", leaky(conv_of(p, name + ".conv1", np.concatenate([f[i], f[1]]))))
        f[i] = f[i] / (1 + np.exp(-A))
    return conv_of(p, "fuse", np.concatenate(f))
