"""The list of exercises: which functions are written again, in the order of the paper. README.md shows the same list as a table."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Exercise:
    """One exercise of "Write it again"."""
    number: int
    title: str
    functions: tuple[str, ...]      # file.function or file.Class.method
    source: str                     # equation or section of the paper
    minutes: int
    difficulty: int                 # 1 to 5
    importance: int                 # 1 to 5
    hint: str
    keeps: int = 0                  # statements at the head of its first function that stay, which check the arguments


EXERCISES = (
    Exercise(1, "the μ-law and its inverse", ("data.T", "data.T_inverse"), "Eq. 6", 10, 1, 4,
             "torch.log1p(x) is log(1 + x) without the rounding of 1 + x, and torch.expm1 undoes it. Half precision is not enough near 0: convert first."),
    Exercise(2, "the network's input X_i", ("data.to_radiance", "data.network_input"), "Sec. 4.1", 10, 1, 5,
             "t_i is a ratio of exposure times, 2 to the power of a difference of stops. The shortest has t = 1, whatever its EV. ev needs three more axes "
             "to multiply a bracket. The six channels are L first, then H."),
    Exercise(3, "the prior z of the truth", ("lpenet.LPENet.forward",), "Eq. 6", 10, 1, 4,
             "Work from the inside out: Concat, PixelUnshuffle, LPENet. The layers are ready in self.trunk, and torch has pixel_unshuffle. I_gt is first."),
    Exercise(4, "low and high frequencies", ("dhrnet.split_frequencies",), "Eq. 7", 10, 1, 5,
             "torch has avg_pool2d. The function upsample above yours has the right convention for pixel centres; give it the mode, too."),
    Exercise(5, "self-attention over channels (MDTA)", ("dhrnet.MDTA.forward",), "Restormer [45]", 30, 4, 3,
             "A channel is a token and its pixels are the token's vector, so flatten the pixels first. self.qkv gives 3C channels: all of Q, then K, then V, "
             "and in each the heads follow one another. Q and K get unit length over the pixels, not over the channels. self.temperature multiplies Q Kᵀ, "
             "one number for each head. Softmax runs over the keys, and self.out comes last."),
    Exercise(6, "cross-attention with the prior", ("dhrnet.CrossAttention.attend",), "Eq. 9", 30, 4, 5,
             "Give each matrix its shape first: Q (B, C, hw), K and V (B, N, hw). K Qᵀ is (B, N, C). Each of the C features chooses among N keys, so Softmax "
             "runs over N. Q̂ and K̂ have unit length over the pixels (A6), V does not. γ divides; clamp it at SMALLEST_GAMMA."),
    Exercise(7, "the attention of the alignment module", ("align.AttentionMap.forward", "align.AlignmentModule.forward"), "AHDRNet [41]", 15, 2, 4,
             "Frame i and the reference are concatenated in this order. LeakyReLU follows the first convolution, a sigmoid the second. The reference is not "
             "weighted. X.unbind(dim=1) gives the three frames."),
    Exercise(8, "feature refinement (FRM)", ("dhrnet.FRM.forward",), "Eq. 8", 20, 3, 5,
             "Five steps: residual block, split, the two branches, 1x1 convolution of both, channel attention. The input is added at the very end. With a "
             "prior, self.low takes it as its second argument."),
    Exercise(9, "noise schedule and forward process", ("ddim.Schedule.__init__", "ddim.diffuse"), "Eq. 1, 2, 12", 15, 2, 5,
             "A zero in front of beta makes beta[t] mean β_t. Stay in float64: a product of 200 factors loses digits. _at(schedule.abar, t, z_0) gives ᾱ_t in "
             "a shape that multiplies z_0. ᾱ is not its square root.", keeps=3),
    Exercise(10, "the ancestral step", ("ddim.ancestral_step",), "Eq. 3, 4, 14", 20, 3, 3,
             "Write the bracket of Eq. 14 first, then 1/√α_t in front of it. The noise has the deviation √(1 - α_t), or the root of β̃_t of Eq. 3. At t = 1 "
             "there is none."),
    Exercise(11, "one DDIM step", ("ddim.predict_z0", "ddim.ddim_step"), "Eq. 12 and 16 of DDIM [27]", 20, 3, 5,
             "predict_z0 is Eq. 2 solved for z_0. A step goes to that z_0 and then back to the noise level of t_next, with the same ε. With η > 0, a part σ² "
             "of the noise is fresh, and the old noise has that much less."),
    Exercise(12, "the DDIM loop", ("ddim.sampling_times", "ddim.ddim"), "Sec. 4.3; DDIM [27]", 15, 2, 5,
             "The times are T k / S for k = S to 1, each rounded to the nearest whole number. After the last comes 0, because S steps have S + 1 ends. "
             "denoise wants t as an int64 tensor with one entry per image.", keeps=1),
    Exercise(13, "reconstruction loss", ("loss.reconstruction_loss",), "Eq. 11", 15, 2, 4,
             "Both images pass through T before anything else. A norm is a mean here. vgg gives a list of maps; L_phi is the mean of their norms. The truth's "
             "features need no gradient. The second result is a dict of detached terms without their weights."),
    Exercise(14, "diffusion loss", ("loss.diffusion_loss",), "Eq. 15", 10, 1, 5,
             "One norm is squared, the other is not. Without a diffusion model there is no noise, and the second term remains."),
    Exercise(15, "a pass of stage 2", ("lfdiff.Stage2.forward",), "Fig. 2 (b), Sec. 4.2", 25, 4, 5,
             "Two different noises: eps in z_t, which is for the loss, and eps_T in z_T, from which the S steps start. DHRNet gets what the steps predict, "
             "never z itself. In training, η is 0. Without a denoiser, D is the prior, and there is no eps_hat."),
    Exercise(16, "inference", ("lfdiff.reconstruct",), "Fig. 2 (c), Sec. 4.3", 10, 2, 5,
             "Four lines: D, z_T, ẑ, Ĥ, with model.condition, torch.randn, model.sample and model.rebuild. Draw z_T on the CPU with the generator. Crop "
             "at the end.", keeps=4),
)


def exercise(number):
    """Returns the exercise with that number. Raises: ValueError if there is none."""
    if not 1 <= number <= len(EXERCISES):
        raise ValueError(f"exercise {number}: choose 1 to {len(EXERCISES)}")
    return EXERCISES[number - 1]


def keeps(task, name):
    """Returns how many statements at the head of a function stay."""
    return task.keeps if name == task.functions[0] else 0


def place(name):
    """Returns a function's file and its name within the file: "dhrnet.MDTA.forward" -> ("dhrnet.py", "MDTA.forward")."""
    module, _, inner = name.partition(".")
    return f"{module}.py", inner
