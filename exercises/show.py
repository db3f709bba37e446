"""Draws the pictures of the exercises: the student's result in the upper row, the right one below. The right one is computed here, without the paper's files.

A picture needs no other exercise: whatever else the student's function calls has a stand-in here, and only the layers of the trained model are used.
"""

import traceback
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as nnf

from beyond.checkpoints import load_checkpoint
from beyond.weights import SHIPPED, part_of
from brackets.scenes import load_scene
from brackets.files import save_figure
from common import config_from
from exercises.catalog import ROOT


def bracket():
    """Loads the example at half its size. Returns: ldr (1, 3, 3, 250, 375), ev (1, 3)."""
    sample = load_scene(ROOT / "examples" / "cafe")
    return nnf.avg_pool2d(sample["ldr"], 2)[None], sample["ev"][None]


def input_by_hand(ldr, ev):
    """Computes X_i of a bracket (1, 3, 3, H, W). Returns: (3, 6, H, W). Source: Sec. 4.1."""
    t = 2 ** (ev[0] - ev[0].min()).reshape(3, 1, 1, 1)
    return torch.cat([ldr[0], ldr[0] ** 2.2 / t], dim=1)


def mu_law_by_hand(hdr):
    """Computes T of Eq. 6 here, too, so that no picture needs another exercise. hdr: linear in [0, 1], any shape."""
    return torch.log(1 + 5000 * hdr) / np.log(5001)


def fill(module, part):
    """Loads the shipped weights of a part, such as "dhrnet.align", into a module. Returns: the module."""
    module.load_state_dict(part_of(load_checkpoint(SHIPPED), part, SHIPPED))
    return module


def channels():
    """Returns C of the shipped network."""
    return load_checkpoint(SHIPPED)["config"]["dhrnet"]["channels"]


def extracted(ldr, ev):
    """Computes the features of the three frames with the shipped AM. Returns: the module, and (3, C, H, W)."""
    from align import AlignmentModule
    align = fill(AlignmentModule(6, channels()), "dhrnet.align")
    return align, nnf.leaky_relu(align.extract(input_by_hand(ldr, ev)))


def truth_and_prior():
    """Loads the example's truth and computes its prior. Returns: LPENet with the shipped weights, H (1, 3, 500, 748), z (1, 3, 125, 187)."""
    from lpenet import LPENet, LPENetConfig
    lpenet = fill(LPENet(config_from(LPENetConfig, load_checkpoint(SHIPPED)["config"]["lpenet"])), "lpenet")
    hdr = load_scene(ROOT / "examples" / "cafe")["hdr"][None, :, :500, :748]
    planes = torch.cat([hdr, mu_law_by_hand(hdr)], dim=1).reshape(6, 125, 4, 187, 4)
    return lpenet, hdr, lpenet.trunk(planes.permute(0, 2, 4, 1, 3).reshape(1, 96, 125, 187))


def weights_of(q, k, scale):
    """Computes Softmax over the last axis of (q · k) scale, with rows q and k scaled to unit length. Returns: (rows of q, rows of k)."""
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    A = np.exp(unit(q) @ unit(k).T * scale)
    return A / A.sum(axis=-1, keepdims=True)


def two_answers(abar, t, z_t):
    """Computes the expected noise in z_t, exactly, if z_0 is -1 or 1 equally often. abar: (T + 1,); t: int. Returns: like z_t."""
    a = float(abar[t])
    return (z_t - a ** 0.5 * np.tanh(a ** 0.5 * z_t / (1 - a))) / (1 - a) ** 0.5


def schedule():
    """Returns the default schedule, in the form of ddim.Schedule."""
    beta = np.concatenate([[0], np.linspace(5e-4, 0.1, 200)])
    return SimpleNamespace(T=200, predict="eps", **{name: torch.from_numpy(values) for name, values in
                                                    (("beta", beta), ("alpha", 1 - beta), ("abar", np.cumprod(1 - beta)))})


def paths(step, times, draws):
    """Follows twelve values of z from t = T to 0. step: function (z_t, t, t_next, eps_hat, eps) -> z_next in NumPy. Returns: (steps + 1, 12)."""
    abar, z = schedule().abar.numpy(), [np.linspace(-2, 2, 12)]
    for t, t_next in zip(times, [*times[1:], 0]):
        z.append(step(z[-1], t, t_next, two_answers(abar, t, z[-1]), draws.standard_normal(12)))
    return np.stack(z)


def in_torch(step):
    """Adapts a student's step, (B, N, h, w) in torch, to what `paths` expects."""
    batch = lambda values: torch.from_numpy(np.asarray(values)).reshape(-1, 1, 1, 1)
    return lambda z_t, t, t_next, eps_hat, eps: step(batch(z_t), t, t_next, batch(eps_hat), batch(eps)).flatten().numpy()


# --- the pictures: lists of (title, yours, wanted), images (3, H, W) or (H, W) in [0, 1]. Curves (n,) or (n, curves) also have x and its name --

def mu_law():
    """The μ-law and its inverse as curves. Source: Eq. 6."""
    from data import T, T_inverse
    x = torch.linspace(0, 1, 500)
    return [("T(x)", T(x), mu_law_by_hand(x), x, "x, linear"), ("T_inverse(x)", T_inverse(x), (5001 ** x.double().numpy() - 1) / 5000, x, "x, after T")]


def input_radiance():
    """The three frames as radiance. All show the same brightness, except where they are clipped: a white window becomes grey."""
    from data import to_radiance
    ldr, ev = bracket()
    yours, wanted = to_radiance(ldr, ev)[0], input_by_hand(ldr, ev)[:, 3:]
    return [(f"T(H_{i + 1}), taken at {float(ev[0, i]):+g} EV", mu_law_by_hand(yours[i]), mu_law_by_hand(wanted[i])) for i in range(3)]


def prior_of_truth():
    """The prior of the example's truth, its three channels as red, green and blue. Source: Eq. 6."""
    lpenet, hdr, wanted = truth_and_prior()
    with mock.patch("lpenet.T", mu_law_by_hand):
        yours = lpenet(hdr)
    mean, std = wanted.mean(dim=(2, 3), keepdim=True), wanted.std(dim=(2, 3), keepdim=True)
    return [("z of the truth, 187x125, channels as RGB", *(0.5 + (z - mean)[0] / (5 * std)[0] for z in (yours, wanted)))]


def frequencies():
    """The two frequency parts of a frame. Source: Eq. 7."""
    from dhrnet import split_frequencies
    F = nnf.interpolate(bracket()[0][:, 1], (248, 376))
    F_low, F_high = split_frequencies(F, 4)
    low = F[0].reshape(3, 62, 4, 94, 4).mean(dim=(2, 4))
    up = low.numpy()
    for axis, n in ((1, 248), (2, 376)):                                        # bilinear, one axis after the other
        at = np.clip((np.arange(n) + 0.5) / 4 - 0.5, 0, n // 4 - 1)
        below = np.minimum(at.astype(int) + 1, n // 4 - 1)
        share = (at - at.astype(int)).reshape(-1, *[1] * (2 - axis))
        up = (1 - share) * np.take(up, at.astype(int), axis) + share * np.take(up, below, axis)
    return [("F_low", F_low[0], low), ("0.5 + F_high", 0.5 + F_high[0], 0.5 + F[0].numpy() - up)]


def self_attention():
    """MDTA with Q = K = V = F. Of 32 channels, half are a noisy picture, half its mirror image. Each channel finds its own kind, and the noise averages out."""
    from dhrnet import MDTA
    module, image = MDTA(32, heads=1), bracket()[0][0, 1].mean(dim=0)
    image = image - image.mean()
    F = torch.stack(16 * [image] + 16 * [image.flip(-1)])
    F = F + 0.25 * torch.randn(F.shape, generator=torch.Generator().manual_seed(0))
    for conv in (*module.qkv, module.out):
        conv.weight.zero_()
        for o in range(conv.out_channels):
            conv.weight[o, o % conv.weight.shape[1], conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1
    module.temperature.fill_(5.0)
    rows = F.flatten(1).double().numpy()
    yours, wanted = module(F[None])[0], (weights_of(rows, rows, 5.0) @ rows).reshape(F.shape)
    return [("what goes in, channel 1", *2 * [0.5 + F[0]]), ("what comes out, channel 1", 0.5 + yours[0], 0.5 + wanted[0]),
            ("what comes out, channel 17", 0.5 + yours[16], 0.5 + wanted[16])]


def cross_attention():
    """What the prior of the truth adds to the features of the reference, in the channel where it varies most. Source: Eq. 9."""
    from dhrnet import CrossAttention
    sample, (_, _, z) = load_scene(ROOT / "examples" / "cafe"), truth_and_prior()
    _, f = extracted(sample["ldr"][None, :, :, :500, :748], sample["ev"][None])
    F = nnf.avg_pool2d(f[1:2], 4)                                               # (1, C, 125, 187)
    module = fill(CrossAttention(channels(), z.shape[1], 2.66), "dhrnet.blocks.0.first.low")
    Q, K, V = (part[0].flatten(1).double().numpy() for part in (module.q(F), module.k(z), module.v(z)))
    mixed = torch.from_numpy(weights_of(Q, K, 1 / float(module.gamma)) @ V).float().reshape(F.shape)
    wanted, yours = module.W_c(mixed)[0], (module.attend(F, z) - F)[0]
    c = int(wanted.flatten(1).std(dim=1).argmax())
    low, span = wanted[c].min(), wanted[c].max() - wanted[c].min()
    return [(f"W_c V A = F̂ - F, channel {c}", (yours[c] - low) / span, (wanted[c] - low) / span)]


def attention():
    """The attention maps of frames 1 and 3."""
    model, f = extracted(*bracket())
    f, shown = f[:, None], []
    for name, i, module in (("A_1, short frame", 0, model.attention_1), ("A_3, long frame", 2, model.attention_3)):
        hidden = module.conv1(torch.cat([f[i], f[1]], dim=1)).numpy()
        wanted = 1 / (1 + np.exp(-module.conv2(torch.from_numpy(np.where(hidden > 0, hidden, 0.01 * hidden))).numpy()))
        shown.append((f"{name}, mean of the channels", module(f[i], f[1])[0].mean(dim=0), wanted[0].mean(axis=0)))
    return shown


def noised():
    """An image after the forward process, for five times t."""
    from ddim import Schedule, DiffusionConfig, diffuse
    z_0 = 4 * (bracket()[0][:, 1] - 0.5)
    eps, shown = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(0)), []
    for t in (0, 20, 60, 100, 200):
        a = float(schedule().abar[t])
        shown.append((f"z_t at t = {t}", diffuse(z_0, t, eps, Schedule(DiffusionConfig()))[0] / 4 + 0.5, (a ** 0.5 * z_0 + (1 - a) ** 0.5 * eps)[0] / 4 + 0.5))
    return shown


def ancestral_paths():
    """Paths of the ancestral sampler to one of two answers. Source: Eq. 14."""
    from ddim import ancestral_step
    s = schedule()

    def wanted(z_t, t, t_next, eps_hat, eps):
        a, b = float(s.alpha[t]), float(s.abar[t])
        return (z_t - (1 - a) / (1 - b) ** 0.5 * eps_hat) / a ** 0.5 + ((1 - a) ** 0.5 * eps if t > 1 else 0)
    yours = in_torch(lambda z_t, t, t_next, eps_hat, eps: ancestral_step(z_t, t, eps_hat, eps, s))
    times = list(range(200, 0, -1))
    return [("z_t in 200 steps of Eq. 14; z_0 is -1 or 1", *(paths(step, times, np.random.default_rng(0)) for step in (yours, wanted)), [*times, 0], "t")]


def step_by_hand(z_t, t, t_next, eps_hat, *_):
    """A DDIM step with η = 0."""
    a, b = float(schedule().abar[t]), float(schedule().abar[t_next])
    return b ** 0.5 * (z_t - (1 - a) ** 0.5 * eps_hat) / a ** 0.5 + (1 - b) ** 0.5 * eps_hat


def ddim_paths():
    """Paths of DDIM to one of two answers."""
    from ddim import ddim_step
    s, times = schedule(), list(range(200, 0, -20))
    yours = in_torch(lambda z_t, t, t_next, eps_hat, eps: ddim_step(z_t, t, t_next, eps_hat, s))
    return [("z_t in 10 DDIM steps; z_0 is -1 or 1", *(paths(step, times, np.random.default_rng(0)) for step in (yours, step_by_hand)), [*times, 0], "t")]


def ddim_results():
    """Where DDIM ends, for four numbers of steps."""
    from ddim import ddim
    s, start, shown = schedule(), np.linspace(-2, 2, 200), []
    for S in (1, 3, 10, 50):
        z_T = torch.from_numpy(start).reshape(-1, 1, 1, 1)
        with mock.patch("ddim.ddim_step", step_by_hand):
            yours = ddim(lambda z_t, t: torch.from_numpy(two_answers(s.abar, int(t[0]), z_t.numpy())), z_T, s, S)
        z, times = start, [round(200 * k / S) for k in range(S, -1, -1)]
        for t, t_next in zip(times, times[1:]):
            z = step_by_hand(z, t, t_next, two_answers(s.abar, t, z))
        shown.append((f"ẑ for S = {S}; z_0 is -1 or 1", yours.flatten(), z, start, "z_T"))
    return shown


PICTURES = {1: mu_law, 2: input_radiance, 3: prior_of_truth, 4: frequencies, 5: self_attention, 6: cross_attention, 7: attention, 9: noised,
            10: ancestral_paths, 11: ddim_paths, 12: ddim_results}


def said(yours, wanted):
    """Says how far yours is from wanted."""
    if yours.shape != wanted.shape:
        return f"its shape is {yours.shape}, not {wanted.shape}"
    worst = float(np.abs(yours - wanted).max())
    return "as wanted" if worst < 2e-3 else f"differs by up to {worst:.2g}"


def draw(path, shown):
    """Writes yours above wanted as one PNG. shown: a list as returned by the functions above."""
    from matplotlib.figure import Figure        # 0.3 s to import: only when a picture is drawn
    figure = Figure(figsize=(max(4.5 * len(shown), 9), 6.4), layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False)
    pairs = [tuple(np.asarray(image, dtype=float) for image in pair[:2]) for _, *pair in shown]
    low, high = min(wanted.min() for _, wanted in pairs), max(wanted.max() for _, wanted in pairs)
    for column, ((title, _, _, *x), pair) in enumerate(zip(shown, pairs)):
        for axis, who, image in zip(axes[:, column], (f"yours, {said(*pair)}", "wanted"), pair):
            axis.set_title(f"{title}\n{who}", fontsize=10)
            if x:
                axis.plot(x[0], image)
                axis.set_xlim(x[0][0], x[0][-1])            # t falls from left to right
                axis.set_ylim(low - 0.2 * (high - low), high + 0.2 * (high - low))
                axis.set_xlabel(x[1])
            else:
                axis.imshow(image.transpose(1, 2, 0).clip(0, 1) if image.ndim == 3 else image, vmin=0, vmax=1, cmap="gray")
                axis.axis("off")
    save_figure(path, figure, dpi=80)


@torch.no_grad()
def show(number):
    """Draws an exercise. Returns: the path of the picture. Raises: ValueError if it has no picture, or the function is blank or fails."""
    if number not in PICTURES:
        raise ValueError(f"exercise {number}: has no picture; exercises {', '.join(map(str, PICTURES))} have one")
    path = ROOT / "results" / f"exercise_{number:02d}.png"
    try:
        draw(path, PICTURES[number]())
    except NotImplementedError as error:
        raise ValueError(f"nothing to draw yet ({error})") from None
    except OSError:                 # a full disk
        raise
    except Exception as error:      # whatever a student's function may raise
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == ROOT]
        where = f"{Path(lines[-1].filename).name}, line {lines[-1].lineno}: " if lines else ""
        what = " ".join([type(error).__name__ + ":", *str(error).splitlines()[:1]])
        raise ValueError(f"{where}{what}; `python -m exercises check {number}` says more") from error
    return path
