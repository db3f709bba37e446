"""A walk through Fig. 2 (c) and Fig. 3: from three photographs to one image, with every step under its name in the paper.

    python -m exercises.walk            prints all shapes and writes docs/walk.png; one to two minutes on a laptop

The cells marked `# %%` run one by one, like a notebook, in editors that know them (VS Code, PyCharm, Spyder). Where a step is one line of the
paper's files, that line is called here. Where it is hidden in a module, its parts are called one after the other.
"""

# %% The trained model, and the example: L_1 is the short frame, L_2 the reference, L_3 the long one. H is the truth.
import sys
from pathlib import Path

import torch
import torch.nn.functional as nnf
from matplotlib.figure import Figure

# A notebook has no __file__. It starts in exercises/ or above it.
sys.path.insert(0, next((str(at) for at in Path(globals().get("__file__", "walk.py")).resolve().parents if (at / "lfdiff.py").exists()), "."))
from beyond.checkpoints import load_checkpoint
from beyond.weights import SHIPPED, load_weights, part_of
from brackets.prepare import prepare
from brackets.scenes import load_scene
from brackets.files import save_figure
from data import T, network_input, psnr
from ddim import ddim_step, predict_z0, sampling_times
from dhrnet import split_frequencies, upsample
from exercises.catalog import ROOT
from lfdiff import pad_to_multiple
from lpenet import LPENet

torch.set_grad_enabled(False)
model, scene = load_weights(SHIPPED, fast=False), load_scene(ROOT / "examples" / "cafe")
prepared = prepare(scene["ldr"], scene["ev"], model.prepare)       # registered and aligned, as the weights were trained
ldr, ev, hdr = pad_to_multiple(prepared.ldr)[None], prepared.ev[None], pad_to_multiple(scene["hdr"])[None]


def say(name, tensor, what):
    """Prints the shape and the range of a tensor under its name in the paper."""
    print(f"{name:<10} {str(tuple(tensor.shape)):<20} {float(tensor.min()):>8.3f} to {float(tensor.max()):>7.3f}   {what}")


say("L_i", ldr, f"frames at {', '.join(f'{float(stops):+g}' for stops in ev[0])} EV, gamma-coded")

# %% Sec. 4.1: X_i = [L_i, H_i]. The three H_i have the same brightness; where they differ, a frame is clipped, or something moved.
X = network_input(ldr, ev)                                          # (1, 3, 6, H, W)
say("X_i", X, "L_i, and H_i = L_i^2.2 / t_i")

# %% Eq. 13: the condition D. All that the diffusion knows about the scene.
D = model.condition(X)                                              # (1, 3, H/4, W/4)
say("D", D, "condition, from the frames alone")

# %% Eq. 14 by DDIM: from noise z_T to the prior in S steps. Before each step, the network already has an estimate of the end, z_0.
schedule = model.schedule
z_t = torch.randn(D.shape, generator=torch.Generator().manual_seed(0))
times = sampling_times(schedule.T, model.config.diffusion.S)        # 200, 180, ..., 20
way, opinions = {schedule.T: z_t}, {}
for t, t_next in zip(times, [*times[1:], 0]):
    eps_hat = model.eps_theta(z_t, D, torch.tensor([t]))            # ε_θ(z_t, D, t)
    opinions[t] = predict_z0(z_t, t, eps_hat, schedule)             # Eq. 2 solved for z_0
    z_t = way[t_next] = ddim_step(z_t, t, t_next, eps_hat, schedule)
    say(f"z_{t_next}", z_t, f"after the step from t = {t}; its noise has deviation {float((1 - schedule.abar[t_next]).sqrt()):.3f}")
z_hat = z_t

# %% Eq. 6: the prior z that LPENet makes of the truth. At test time nobody has it; here we see how close ẑ came.
lpenet = LPENet(model.config.lpenet)
lpenet.load_state_dict(part_of(load_checkpoint(SHIPPED), "lpenet", SHIPPED))
z = model.standardise(lpenet(hdr))
say("z", z, "prior of the truth, standardised [assumed A11]")
say("z_hat - z", z_hat - z, f"mean distance {float((z_hat - z).abs().mean()):.3f}")

# %% AM: the attention maps A_1 and A_3 weight the features of the outer frames. The reference enters as it is.
align = model.dhrnet.align
f_1, f_2, f_3 = (nnf.leaky_relu(align.extract(X[:, i])) for i in range(3))
A_1, A_3 = align.attention_1(f_1, f_2), align.attention_3(f_3, f_2)
F_0 = align.fuse(torch.cat([A_1 * f_1, f_2, A_3 * f_3], dim=1))     # (1, C, H, W)
say("A_1", A_1, "attention of the short frame")
say("A_3", A_3, "attention of the long frame")
say("F_0", F_0, "aligned features")

# %% Fig. 3, Eq. 7: the first PIM splits its features.
pim = model.dhrnet.blocks[0].first
F = pim.residual(F_0)
F_low, F_high = split_frequencies(F, pim.k)                         # (1, C, H/4, W/4), (1, C, H, W)
say("F_low", F_low, "low frequencies: as large as z")
say("F_high", F_high, "high frequencies")

# %% Fig. 3 (b), Eq. 9: each of the C features (queries) chooses among the N = 3 channels of the prior (keys).
cross, prior = pim.low, z_hat * model.z_std + model.z_mean
Q, K = cross.q(F_low).flatten(2), cross.k(prior).flatten(2)         # (1, C, hw), (1, N, hw)
A = torch.softmax(nnf.normalize(K, dim=-1) @ nnf.normalize(Q, dim=-1).transpose(1, 2) / cross.gamma, dim=1)     # (1, N, C)
F_hat = cross.attend(F_low, prior)
say("A", A, f"Softmax(K Q / γ), γ = {float(cross.gamma):.3f}; each column adds up to 1")
say("F_hat", F_hat - F_low, "W_c V A: what the prior adds to F_low")

# %% Fig. 3 (a), Eq. 8: residual blocks refine F_high, and both branches are joined. In an FRM, self-attention (SA) replaces Eq. 9.
RB_high = pim.high(F_high)                                          # (1, C, H, W)
F_prime = torch.cat([RB_high, upsample(pim.low(F_low, prior), pim.k, pim.mode)], dim=1)         # (1, 2C, H, W)
merged = pim.merge(F_prime)                                         # 1x1 convolution   (1, C, H, W)
F_1 = F_0 + pim.channel_attention(merged)
share_of_channels = pim.channel_attention.weigh(merged).flatten()   # (C,)
say("F'", F_prime, "high and low branch")
say("F_1", F_1, f"after the first PIM; channel attention weighs by {float(share_of_channels.min()):.2f} to {float(share_of_channels.max()):.2f}")

# %% Eq. 10: the other modules do the same again. In the paper, a convolution then makes the image. In the shipped weights, it corrects a merge, and the
# result is mixed with what the frames show [departs D8].
hdr_hat = model.rebuild(X, z_hat)
say("H_hat", hdr_hat, f"PSNR-μ {psnr(T(hdr_hat), T(hdr)):.2f} dB, PSNR-L {psnr(hdr_hat, hdr):.2f} dB (with the padding)")


# %% One page with everything.
def rgb(image):
    """Converts an image (1, 3, H, W) to the layout that matplotlib shows."""
    return image[0].clamp(0, 1).permute(1, 2, 0).numpy()


def latent(z):
    """Converts a prior (1, 3, h, w) to a picture."""
    return rgb(0.5 + z / 5)                                         # -2.5 to 2.5 becomes black to white; N = 3 channels as R, G, B


def feature(F, c):
    """Converts one channel to a picture, from its 1 % to its 99 % quantile."""
    values = F[0, c].flatten().sort().values
    low, high = values[len(values) // 100], values[-len(values) // 100]
    return ((F[0, c] - low) / (high - low + 1e-9)).clamp(0, 1).numpy()


def standardised(D):
    """Shifts and scales each channel to mean 0 and deviation 1, as in z."""
    return (D - D.mean((2, 3), keepdim=True)) / D.std((2, 3), keepdim=True)


c = int(F_low[0].flatten(1).std(dim=1).argmax())                    # the channel that varies most
shown = [200, 160, 100, 60, 20]                                     # times whose z_t is drawn
low, high = float(A.min()), float(A.max())
white, error = (ldr[:, 1] >= 0.98).any(dim=1), (T(hdr_hat) - T(hdr)).square().mean(dim=1)
share = float(error[white].sum() / error.sum())
distance = float((z_hat - z).abs().mean())
quarter = f"{z.shape[-1]}x{z.shape[-2]}"
rows = [
    ("1  Input.  X_i = [L_i, H_i], registered and aligned before. H_i is radiance in common units: where L_2 or L_3 is white, H_2 or H_3 is too dark (grey).",
     [(f"L_{i + 1}, {float(ev[0, i]):+g} EV", rgb(ldr[:, i])) for i in range(3)] + [(f"T(H_{i + 1})", rgb(T(X[:, i, 3:]))) for i in range(3)]),
    (f"2  Diffusion (Fig. 2 c).  AM and LPENet_DM make the condition D of the frames (Eq. 13), all that the diffusion knows. "
     f"{len(times)} DDIM steps lead from noise z_T to ẑ.",
     [(f"D, {quarter}, 3 channels as RGB", latent(standardised(D)))]
     + [(f"z_t at t = {t}" + (" = T" if t == schedule.T else ""), latent(way[t])) for t in shown]),
    (f"3  The same steps: what the network expects z_0 to be when it sees the z_t above. "
     f"Left: the true z of LPENet (Eq. 6), for training only. ẑ is {distance:.2f} from it on average.",
     [("z, prior of the truth", latent(z))]
     + [(f"z_0 expected at t = {t}" + (": this is ẑ" if t == shown[-1] else ""), latent(opinions[t])) for t in shown]),
    (f"4  DHRNet (Fig. 2 a).  AM weighs the outer frames by A_1, A_3 (dark: not trusted). "
     f"The first PIM (Fig. 3) splits F by Eq. 7: F = F_high + Upsample(F_low). Channel {c}.",
     [("A_1, short frame, mean", A_1[0].mean(0).numpy()), ("A_3, long frame, mean", A_3[0].mean(0).numpy()), ("F_0, aligned features", feature(F_0, c)),
      ("F, after a residual block", feature(F, c)), (f"F_low, {quarter}", feature(F_low, c)), ("F_high", feature(F_high, c))]),
    (f"5  Low branch (Fig. 3 b): A says how much of each prior channel a feature takes "
     f"({low:.2f} to {high:.2f} here). High branch: residual blocks. Eq. 8 joins both (Fig. 3 a).",
     [("ẑ, the prior", latent(z_hat)), (f"A: 3 keys down, {A.shape[-1]} features across", ((A[0] - low) / (high - low)).numpy()),
      ("W_c V A: what ẑ gives", feature(F_hat - F_low, c)), ("F̂_low = F_low + W_c V A", feature(F_hat, c)),
      ("RB(F_high)", feature(RB_high, c)), ("F_1: joined, weighed, plus F_0", feature(F_1, c))]),
    (f"6  Image.  FRMs and PIMs follow. Eq. 10 corrects a merge, and D8 mixes the result with the frames. "
     f"{share:.0%} of the squared error is where L_2 is white ({white.float().mean():.0%} of the image).",
     [("T(Ĥ)", rgb(T(hdr_hat))), ("T(H), the truth", rgb(T(hdr))), ("10 x |T(Ĥ) - T(H)|", rgb(10 * (T(hdr_hat) - T(hdr)).abs()))]),
]
figure = Figure(figsize=(18, 17.5), layout="constrained")
for part, (heading, pictures) in zip(figure.subfigures(len(rows), 1, height_ratios=[1, 1, 1, 1, 1, 1.8]), rows):
    part.suptitle(heading, fontsize=12, x=0.005, ha="left", weight="bold")
    for axis, (title, picture) in zip(part.subplots(1, len(pictures), squeeze=False)[0], pictures):
        axis.imshow(picture, vmin=0, vmax=1, cmap="magma" if title[0] == "A" else "gray", aspect="auto" if title.startswith("A:") else "equal")
        axis.set_title(title, fontsize=11)
        axis.set_axis_off()
save_figure(ROOT / "docs" / "walk.png", figure, dpi=72)
print("wrote docs/walk.png")
