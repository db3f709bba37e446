"""Pictures of an exercise: the student's result in the upper row, the right one below it. The right one is computed here, in NumPy."""

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as nnf

from beyond.weights import load_weights
from brackets.scenes import load_scene
from common import save_figure
from exercises.catalog import ROOT


def bracket():
    """The example at half its size. Returns: ldr (1, 3, 3, 250, 375), ev (1, 3)."""
    sample = load_scene(ROOT / "examples" / "cafe")
    return nnf.avg_pool2d(sample["ldr"], 2)[None], sample["ev"][None]


def two_answers(abar, t, z_t):
    """The exact noise in z_t where z_0 is -1 or 1, equally often. abar: (T + 1,); t: int. Returns: like z_t."""
    a = float(abar[t])
    return (z_t - a ** 0.5 * np.tanh(a ** 0.5 * z_t / (1 - a))) / (1 - a) ** 0.5


def schedule():
    """The paper's schedule, as ddim.Schedule has it."""
    beta = np.concatenate([[0], np.linspace(5e-4, 0.1, 200)])
    return SimpleNamespace(T=200, predict="eps", **{name: torch.from_numpy(values) for name, values in
                                                    (("beta", beta), ("alpha", 1 - beta), ("abar", np.cumprod(1 - beta)))})


def paths(step, times, draws):
    """Twelve values of z on their way from t = T to 0. step: function (z_t, t, t_next, eps_hat, eps) -> z_next in NumPy. Returns: (steps + 1, 12)."""
    abar, z = schedule().abar.numpy(), [np.linspace(-2, 2, 12)]
    for t, t_next in zip(times, [*times[1:], 0]):
        z.append(step(z[-1], t, t_next, two_answers(abar, t, z[-1]), draws.standard_normal(12)))
    return np.stack(z)


def in_torch(step):
    """A step of the student's, (B, N, h, w) in torch, as `paths` wants it."""
    batch = lambda values: torch.from_numpy(np.asarray(values)).reshape(-1, 1, 1, 1)
    return lambda z_t, t, t_next, eps_hat, eps: step(batch(z_t), t, t_next, batch(eps_hat), batch(eps)).flatten().numpy()


# --- the pictures: lists of (title, yours, wanted); a picture is (3, H, W) or (H, W), curves are (n,) or (n, curves) -------------------

def mu_law():
    """The μ-law and its inverse as curves. Source: Eq. 6."""
    from data import T, T_inverse
    x = torch.linspace(0, 1, 500)
    return [("T(x)", T(x), np.log(1 + 5000 * x.numpy()) / np.log(5001)), ("T_inverse(x)", T_inverse(x), (5001 ** x.double().numpy() - 1) / 5000)]


def input_radiance():
    """The three frames in linear radiance."""
    from data import to_radiance
    ldr, ev = bracket()
    yours = to_radiance(ldr, ev)[0]
    wanted = [ldr[0, i].numpy() ** 2.2 / 2 ** float(ev[0, i] - ev[0].min()) for i in range(3)]
    return [(f"H_{i + 1} x 8, {float(ev[0, i]):+g} EV", 8 * yours[i], 8 * wanted[i]) for i in range(3)]


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


def attention():
    """The attention maps of frames 1 and 3."""
    from data import network_input
    model, (ldr, ev) = load_weights(ROOT / "weights" / "lfdiff.pt", fast=False).dhrnet.align, bracket()
    f = [nnf.leaky_relu(model.extract(X)) for X in network_input(ldr, ev)[0, :, None]]
    shown = []
    for name, i, module in (("A_1", 0, model.attention_1), ("A_3", 2, model.attention_3)):
        hidden = module.conv1(torch.cat([f[i], f[1]], dim=1)).numpy()
        wanted = 1 / (1 + np.exp(-module.conv2(torch.from_numpy(np.where(hidden > 0, hidden, 0.01 * hidden))).numpy()))
        shown.append((f"{name}, mean over its channels", module(f[i], f[1])[0].mean(dim=0), wanted[0].mean(axis=0)))
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
    return [("200 steps of Eq. 14: z_0 is -1 or 1", *(paths(step, times, np.random.default_rng(0)) for step in (yours, wanted)))]


def ddim_paths():
    """Paths of DDIM to one of two answers."""
    from ddim import ddim_step
    s, times = schedule(), list(range(200, 0, -20))

    def wanted(z_t, t, t_next, eps_hat, eps):
        a, b = float(s.abar[t]), float(s.abar[t_next])
        return b ** 0.5 * (z_t - (1 - a) ** 0.5 * eps_hat) / a ** 0.5 + (1 - b) ** 0.5 * eps_hat
    yours = in_torch(lambda z_t, t, t_next, eps_hat, eps: ddim_step(z_t, t, t_next, eps_hat, s))
    return [("10 DDIM steps: z_0 is -1 or 1", *(paths(step, times, np.random.default_rng(0)) for step in (yours, wanted)))]


def ddim_results():
    """Where DDIM ends, for four numbers of steps."""
    from ddim import ddim
    s, start, shown = schedule(), np.linspace(-2, 2, 200), []
    for S in (1, 3, 10, 50):
        z_T = torch.from_numpy(start).reshape(-1, 1, 1, 1)
        yours = ddim(lambda z_t, t: torch.from_numpy(two_answers(s.abar, int(t[0]), z_t.numpy())), z_T, s, S)
        z, times = start, [round(200 * k / S) for k in range(S, -1, -1)]
        for a, b, t in zip(s.abar[times[:-1]].tolist(), s.abar[times[1:]].tolist(), times):
            eps_hat = two_answers(s.abar, t, z)
            z = b ** 0.5 * (z - (1 - a) ** 0.5 * eps_hat) / a ** 0.5 + (1 - b) ** 0.5 * eps_hat
        shown.append((f"ẑ over z_T from -2 to 2, S = {S}", yours.flatten(), z))
    return shown


PICTURES = {1: mu_law, 2: input_radiance, 4: frequencies, 7: attention, 9: noised, 10: ancestral_paths, 11: ddim_paths, 12: ddim_results}


def draw(path, shown):
    """Writes yours above wanted as one PNG. shown: a list as the functions above return it."""
    from matplotlib.figure import Figure        # 0.3 s to import: only when a picture is drawn
    figure = Figure(figsize=(max(4 * len(shown), 8), 6), layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False)
    for column, (title, *pair) in enumerate(shown):
        for axis, who, image in zip(axes[:, column], ("yours", "wanted"), pair):
            image = np.asarray(image)
            axis.set_title(f"{who}: {title}", fontsize=9)
            if image.ndim == 3 or image.shape[-1] > 20 and image.ndim == 2:
                axis.imshow(image.transpose(1, 2, 0).clip(0, 1) if image.ndim == 3 else image, vmin=0, vmax=1, cmap="magma")
                axis.axis("off")
            else:
                axis.plot(image)
    save_figure(path, figure, dpi=80)


@torch.no_grad()
def show(number):
    """Draws an exercise. Returns: the path of the picture. Raises: ValueError where no picture tells, or the function is still blank."""
    if number not in PICTURES:
        raise ValueError(f"exercise {number}: has no picture; those of {', '.join(map(str, PICTURES))} have one")
    try:
        shown = PICTURES[number]()
    except NotImplementedError as error:
        raise ValueError(f"nothing to draw yet ({error})") from None
    path = ROOT / "results" / f"exercise_{number:02d}.png"
    draw(path, shown)
    return path
