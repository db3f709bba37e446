"""Ten bugs, each one line, each a mistake that published code has made. Reading on spoils the hunt; see README.md, "Find the bug", for how it works."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """A correct line, and the same line with a mistake."""
    number: int
    file: str
    equations: tuple[str, ...]      # the numbers that name the place: equations, sections, or references of the paper
    before: str
    after: str
    symptom: str                    # what `hint` says
    story: str                      # what `check` says once it is found
    test: str                       # the test that must fail


BUGS = (
    Bug(1, "ddim.py", ("4.3", "4.2", "27"),
        "zip(times, times[1:] + [0]):", "zip(times, times[1:]):",
        "The prior looks right and is a little noisy. Count how often something happens.",
        "The loop leaves out the last step, from t = 20 to 0, so ẑ still has the noise of t = 20. S times need S + 1 ends.",
        "tests/test_diffusion.py::test_ddim_ends_at_time_zero"),
    Bug(2, "loss.py", ("11",),
        "L1_mu + lam * L_phi, L_phi.detach()", "L1_mu + L1_mu * L_phi, L_phi.detach()",
        "Training runs and the image improves. Change --lam and the loss does not change.",
        "Loss times loss in place of λ times loss. The weight then falls as the image gets better, and the gradient has unintended terms.",
        "tests/test_loss.py::test_eq_11_is_its_two_terms_from_an_independent_vgg19"),
    Bug(3, "brackets/exposures.py", ("4.1",),
        "values.append(float(match[1]) / float(match[2] or 1))", "values.append(int(float(match[1])) / float(match[2] or 1))",
        "The example is as good as before. Scenes whose steps are not whole stops come out with bands of brightness.",
        "Exposures are read as whole numbers (some published loaders take the first character), so 2.67 stops become 2 and t_i is wrong by a factor of 1.6.",
        "tests/brackets/test_exposures.py::test_exposures_are_read_as_people_write_them"),
    Bug(4, "ddim.py", ("1", "2", "12"),
        "return abar_t.sqrt() * z_0 + (1 - abar_t).sqrt() * eps", "return abar_t * z_0 + (1 - abar_t).sqrt() * eps",
        "Only training is wrong: the variance of z_t falls below 1 in the middle of the schedule.",
        "ᾱ_t in place of √ᾱ_t. Code that stores the root and code that stores ᾱ look alike.",
        "tests/test_diffusion.py::test_forward_process_at_hand_values"),
    Bug(5, "dhrnet.py", ("9",),
        "/ gamma, dim=1)", "/ gamma, dim=2)",
        "The network trains and z hardly matters. Add up the attention's entries along each of its axes.",
        "Softmax runs over the C features in place of the N keys. All features compete for each prior channel; none of them chooses among the three.",
        "tests/test_dhrnet.py::test_softmax_sums_to_one_over_the_three_keys"),
    Bug(6, "loss.py", ("11",),
        "x, features = (hdr_mu - self.mean) / self.std, {}", "x, features = (hdr_mu.flip(1) - self.mean) / self.std, {}",
        "Nothing fails and nothing is NaN. Ask what a network trained on ImageNet expects to see.",
        "BGR is fed to an RGB VGG, a habit of code that reads images with OpenCV. VGG then sees a picture with blue skin.",
        "tests/test_loss.py::test_first_convolution_sees_red_first_with_imagenet_mean_and_deviation"),
    Bug(7, "dhrnet.py", ("4.1", "5.1", "10"),
        "nn.ModuleList([FRM(config) for _ in range(frms)])", "nn.ModuleList([FRM(config)] * frms)",
        "The shapes are right and the network is as slow as before. Compare with Table 3.",
        "The same module is registered several times, so there is only one FRM in each block. It runs three times with the same weights.",
        "tests/test_lfdiff.py::test_no_two_parameters_share_their_storage"),
    Bug(8, "lfdiff.py", ("2", "15", "4.2"),
        "z_t = diffuse(z, t, eps, self.schedule)  ", "z_t = diffuse(z, t, eps_T, self.schedule)",     # the comment behind it stays where it is
        "One term of a loss does not fall below 1, however long one trains.",
        "The noise in z_t is not the noise in the loss. The denoiser is asked for an ε that its input does not hold.",
        "tests/test_lfdiff.py::test_perfect_denoiser_has_no_diffusion_loss"),
    Bug(9, "brackets/files.py", ("4.1",),
        "return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)", "return image.astype(np.float32) / np.float32(65535)",
        "The example is as good as before. Ordinary photographs come out almost black.",
        "An 8-bit photograph is divided by 65535. The range follows from the dtype of the file, never from habit.",
        "tests/brackets/test_files.py::test_scaling_goes_by_dtype_and_never_by_the_values"),
    Bug(10, "ddim.py", ("4", "14"),
        "return z + sigma_t * eps if t > 1 else z", "return z + sigma_t * eps if t > 0 else z",
        "Run the example with --sampler ancestral and with ddim. Look at the very last step.",
        "Noise is added in the last step, too, so the result is z_0 plus noise of deviation √β_1. DDPM's Algorithm 2 has ε = 0 at t = 1.",
        "tests/test_diffusion.py::test_last_ancestral_step_adds_no_noise"),
)


def bug(number):
    """Returns the bug with that number. Raises: ValueError if there is none."""
    if not 1 <= number <= len(BUGS):
        raise ValueError(f"bug {number}: choose 1 to {len(BUGS)}")
    return BUGS[number - 1]


def names_the_file(found, path):
    """Whether the student's file is the bug's: "files.py" and "brackets/files.py" are the same."""
    return path.replace("\\", "/").split("/")[-1].removesuffix(".py") == found.file.split("/")[-1].removesuffix(".py")


def names_the_equation(found, words):
    """Whether the student's words, such as "14", "eq14" or "Sec. 4.1", name the bug's place in the paper."""
    number = re.search(r"\d+(\.\d+)?", words)
    return number is not None and number[0] in found.equations
