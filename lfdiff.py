"""LF-Diff: how the components make the two training stages and the inference of Fig. 2, and the variants of Table 3.

    Fig. 2 (a)   Stage1          z = LPENet(H),                      H^ = DHRNet(X, z)         trained with Eq. 11
    Fig. 2 (b)   Stage2          z_T from z, S DDIM steps give z^,   H^ = DHRNet(X, z^)        trained with Eq. 11 + Eq. 15
    Fig. 2 (c)   reconstruct     z_T ~ N(0, I), S steps give z^,     H^ = DHRNet(X, z^)        no ground truth anywhere

    variant           Table 3                       made of
    baseline          Baseline                      DHRNet with an FRM in each PIM's place
    s1                LF-Diff_s1                    DHRNet + LPENet: an upper bound, it sees the truth
    s2_without_dm     LF-Diff_s2 w/o DM             DHRNet + ConditionNet, whose D is the prior
    s2                LF-Diff_s2 w/ DM, and Split   DHRNet + ConditionNet + Denoiser

    python lfdiff.py           prints the parameters of each variant beside the paper's
"""

from dataclasses import asdict, dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as nnf

from common import config_from, count_parameters, load_checkpoint, save_checkpoint
from data import network_input
from ddim import DiffusionConfig, Schedule, ddim, diffuse, noise_from_output
from denoiser import Denoiser, DenoiserConfig
from dhrnet import DHRNet, DHRNetConfig
from lpenet import ConditionNet, LPENet, LPENetConfig
from beyond.fast import by_strips, give_back_memory

VARIANTS = ("baseline", "s1", "s2_without_dm", "s2")
PAPER_PARAMETERS = {"baseline": 5.09e6, "s1": 5.24e6, "s2_without_dm": 5.85e6, "s2": 7.48e6}     # Table 3
OVERLAP = 128       # of two tiles, pixels
MULTIPLE = 16       # H and W are padded to it: PixelUnshuffle 4, times two halvings in the U-Net [assumed A15]


@dataclass
class LFDiffConfig:
    """All hyperparameters of the model."""
    dhrnet: DHRNetConfig = field(default_factory=DHRNetConfig)
    lpenet: LPENetConfig = field(default_factory=LPENetConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)


def check_sizes(config):
    """Raises: ValueError where the prior, the PIMs and the U-Net would not fit each other on images padded to MULTIPLE."""
    if config.lpenet.unshuffle != config.dhrnet.pool_pim:
        raise ValueError(f"--unshuffle {config.lpenet.unshuffle}, --pool-pim {config.dhrnet.pool_pim}: must be equal, or z does not fit the PIMs")
    needed = config.lpenet.unshuffle * 2 ** (len(config.denoiser.unet_multipliers) - 1)
    if MULTIPLE % needed or MULTIPLE % config.dhrnet.pool_frm:
        raise ValueError(f"--unet-multipliers, --unshuffle, --pool-frm: need images in multiples of {needed} and {config.dhrnet.pool_frm}; "
                         f"they are padded to multiples of {MULTIPLE}")


class Stage1(nn.Module):
    """Fig. 2 (a): LPENet and DHRNet, trained together on L_r (Eq. 11). With baseline=True, DHRNet alone without a prior."""

    def __init__(self, config, baseline=False):
        super().__init__()
        check_sizes(config)
        self.config, self.variant = config, "baseline" if baseline else "s1"
        self.dhrnet = DHRNet(config.dhrnet, 0 if baseline else config.lpenet.prior_channels)
        self.lpenet = None if baseline else LPENet(config.lpenet)

    def forward(self, X, hdr):
        """X: (B, 3, 6, H, W), hdr: (B, 3, H, W), H and W multiples of 4. Returns: H^ (B, 3, H, W)."""
        z = self.lpenet(hdr) if self.lpenet is not None else None       # Eq. 6, see lpenet.py
        return self.dhrnet(X, z)                                        # Eq. 10, see dhrnet.py


class Stage2(nn.Module):
    """Fig. 2 (b) and (c): the diffusion model of the prior and DHRNet. With without_dm=True, D itself is the prior.

    The diffusion sees the prior standardised channel by channel, (z - z_mean) / z_std, measured on the training set
    [assumed A11]; DHRNet sees it as LPENet made it. `z` is the standardised prior in this class.
    """

    def __init__(self, config, without_dm=False):
        super().__init__()
        check_sizes(config)
        self.config, self.variant = config, "s2_without_dm" if without_dm else "s2"
        self.schedule = Schedule(config.diffusion)
        self.dhrnet = DHRNet(config.dhrnet, config.lpenet.prior_channels)
        self.condition = ConditionNet(config.lpenet)
        self.denoiser = None if without_dm else Denoiser(config.denoiser, config.lpenet.prior_channels)
        self.register_buffer("z_mean", torch.zeros(1, config.lpenet.prior_channels, 1, 1))
        self.register_buffer("z_std", torch.ones(1, config.lpenet.prior_channels, 1, 1))

    def standardise(self, z_raw):
        """LPENet's prior (B, N, h, w) -> mean 0, deviation 1 per channel over the training set, float32."""
        return (z_raw.float() - self.z_mean) / self.z_std

    def rebuild(self, X, z):
        """H^ of Eq. 10 from a standardised prior. X: (B, 3, 6, H, W), z: (B, N, H/4, W/4). Returns: (B, 3, H, W)."""
        return self.dhrnet(X, z * self.z_std + self.z_mean)

    def eps_theta(self, z_t, D, t):
        """The predicted noise. z_t, D: (B, N, h, w), t: (B,) int64 in 1 .. T. Returns: eps_hat (B, N, h, w), float32."""
        return noise_from_output(self.denoiser(z_t, D, t).float(), z_t, t, self.schedule)

    def forward(self, X, z, t, eps, eps_T, joint=True):
        """One training pass of stage 2.

        X: (B, 3, 6, H, W); z: (B, N, H/4, W/4) standardised prior of the truth; t: (B,) int64 in 1 .. T;
        eps, eps_T: (B, N, H/4, W/4) noise for z_t and z_T; joint: False leaves DHRNet out (warm-up and Split).
        Returns: H^ (B, 3, H, W) or None, z_hat (B, N, H/4, W/4), eps_hat (same shape) or None without a denoiser.
        Source: Sec. 4.2, Fig. 2 (b).
        """
        T, S = self.schedule.T, self.config.diffusion.S
        D = self.condition(X).float()                                           # Eq. 13, see lpenet.py
        if self.denoiser is None:
            z_hat, eps_hat = D, None
        else:
            z_t = diffuse(z, t, eps, self.schedule)                             # Eq. 2, see ddim.py
            eps_hat = self.eps_theta(z_t, D, t)
            z_T = diffuse(z, T, eps_T, self.schedule)                           # Eq. 12
            z_hat = ddim(lambda z_t, t: self.eps_theta(z_t, D, t), z_T, self.schedule, S)
        return self.rebuild(X, z_hat) if joint else None, z_hat, eps_hat

    def sample_prior(self, D, S=None, generator=None):
        """Fig. 2 (c): the prior from the LDR frames alone.

        D: (B, N, H/4, W/4), what self.condition makes of the frames, H and W multiples of 16; S: sampling steps, default the
        trained ones; generator: CPU generator.
        Returns: z_hat (B, N, H/4, W/4) standardised, float32.
        Source: Sec. 4.3.
        """
        D = D.float()
        if self.denoiser is None:
            return D
        z_T = torch.randn(D.shape, generator=generator).to(D)                   # on the CPU: one seed, one image anywhere
        diffusion = self.config.diffusion
        return ddim(lambda z_t, t: self.eps_theta(z_t, D, t), z_T, self.schedule, S or diffusion.S, diffusion.eta, generator)


def pad_to_multiple(image, multiple=MULTIPLE):
    """Pads H and W at the right and bottom by reflection (by repetition where the image is smaller than the padding).

    image: (..., H, W). Returns: (..., H', W'), multiples of `multiple`. [assumed A15]
    """
    H, W = image.shape[-2:]
    down, right = -H % multiple, -W % multiple
    if not down and not right:
        return image
    mode = "reflect" if down < H and right < W else "replicate"
    flat = image.reshape(-1, 1, H, W)
    return nnf.pad(flat, (0, right, 0, down), mode=mode).reshape(*image.shape[:-2], H + down, W + right)


def tile_ramps(length, tile, overlap):
    """How tiles cover one side of an image, and with which weights they are blended.

    length: multiple of 16; tile, overlap: pixels. Returns: list of (start, weights), start a multiple of 16, weights (tile,) float32
    that rise linearly over the middle half of an overlap and, at each pixel of the image, add up to 1 over the tiles.
    """
    count = -(-(length - overlap) // (tile - overlap)) if length > tile else 1
    starts = [min(k * (tile - overlap), length - tile) for k in range(count)]
    covered, ramps, place = torch.zeros(length), [], torch.arange(tile)
    for start in starts:
        left = place + 0.5 if start > 0 else torch.full((tile,), float("inf"))              # distance from a border within the image
        right = tile - place - 0.5 if start + tile < length else torch.full((tile,), float("inf"))
        ramps.append(((torch.minimum(left, right) - overlap / 4) / (overlap / 2)).clamp(0, 1))
        covered[start:start + tile] += ramps[-1]
    return [(start, ramp / covered[start:start + tile]) for start, ramp in zip(starts, ramps)]


def rebuild_in_tiles(rebuild, ldr, z, tile, overlap=OVERLAP):
    """Eq. 10 tile by tile, with one prior for the whole image.

    rebuild: function (ldr, z) -> H^ of a part of the image; ldr: (B, 3, 3, H, W); z: (B, N, H/4, W/4) or None; H, W multiples of 16.
    Returns: H^ (B, 3, H, W). DHRNet's attentions pool over the tile, not the image: see the README for what that changes.
    """
    H, W = ldr.shape[-2:]
    height, width, k = min(tile, H), min(tile, W), 1 if z is None else W // z.shape[-1]
    hdr_hat = ldr.new_zeros(len(ldr), 3, H, W)
    for top, down in tile_ramps(H, height, overlap):
        for left, across in tile_ramps(W, width, overlap):
            y, x = slice(top, top + height), slice(left, left + width)
            z_tile = None if z is None else z[..., top // k:(top + height) // k, left // k:(left + width) // k]
            hdr_hat[..., y, x] += rebuild(ldr[..., y, x], z_tile) * (down[:, None] * across).to(ldr)
    return hdr_hat


@torch.no_grad()
def estimate_prior(model, ldr, ev, S=None, generator=None):
    """The prior of Fig. 2 (c): condition net and S steps. ldr: (B, 3, 3, H, W), H and W multiples of 16; the rest as in reconstruct.

    Returns: z_hat (B, N, H/4, W/4) standardised, float32.
    """
    D = by_strips(lambda ldr: model.condition(network_input(ldr, ev)), ldr, halo=model.condition.halo,
                  shrink=model.config.lpenet.unshuffle)
    return model.sample_prior(D, S, generator)


@torch.no_grad()
def reconstruct(model, ldr, ev, S=None, generator=None, tile=0):
    """The inference of Fig. 2 (c): three LDR frames to one HDR image, any size.

    model: Stage2, or the baseline Stage1. ldr: (B, 3, 3, H, W) gamma-coded in [0, 1], rising exposure; ev: (B, 3) stops.
    S: sampling steps, default the trained ones; generator: CPU generator of the initial noise; tile: side in pixels, 0 is none.
    Returns: H^ (B, 3, H, W) linear radiance in [0, 1] in units of the shortest exposure, float32.
    Raises: ValueError for the variant s1, whose prior needs the ground truth, or a tile that cannot overlap its neighbour.
    """
    if model.variant == "s1":
        raise ValueError("weights: these are of stage 1, whose prior comes from the ground truth; use stage 2's (train_stage2.py)")
    if tile and (tile < 2 * OVERLAP or tile % MULTIPLE):
        raise ValueError(f"--tile {tile}: must be a multiple of {MULTIPLE}, {2 * OVERLAP} or more, for tiles overlap by {OVERLAP} pixels")
    H, W = ldr.shape[-2:]
    ldr = pad_to_multiple(ldr)
    if model.variant == "baseline":
        z_hat = None
        def rebuild(ldr, z):
            return model.dhrnet(network_input(ldr, ev))
    else:
        z_hat = estimate_prior(model, ldr, ev, S, generator)
        def rebuild(ldr, z):
            return model.rebuild(network_input(ldr, ev), z)
    if tile and tile < max(ldr.shape[-2:]):
        give_back_memory()          # the U-Net's maps are not of a tile's size
        return rebuild_in_tiles(rebuild, ldr, z_hat, tile)[..., :H, :W]
    return rebuild(ldr, z_hat)[..., :H, :W]


def build(variant, config):
    """A fresh model of one of VARIANTS. Returns: Stage1 or Stage2. Raises: ValueError for another name."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}: not one of {', '.join(VARIANTS)}")
    if variant in ("baseline", "s1"):
        return Stage1(config, baseline=variant == "baseline")
    return Stage2(config, without_dm=variant == "s2_without_dm")


def save_weights(path, model, notes, lpenet=None):
    """Writes what inference needs, in float16: variant, config, weights, and `notes` (a dict of plain values).

    lpenet: of stage 1. Inference does not need it, but with it training can go on from the file (--init).
    """
    states = {name: {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
              for name, network in (("model", model), ("lpenet", lpenet)) if network is not None}
    save_checkpoint(path, {"variant": model.variant, "config": asdict(model.config), **states, "notes": notes})


def part_of(checkpoint, name, path):
    """The state of one network, such as "dhrnet", in a checkpoint of the train scripts or in save_weights' file, as a dict.

    path: of the file, for the message. Raises: ValueError when it holds no such network.
    """
    state = {key.removeprefix(name + "."): value for key, value in checkpoint["model"].items() if key.startswith(name + ".")}
    state = checkpoint.get(name, state)
    if not state:
        raise ValueError(f"{path}: of variant {checkpoint['variant']}, it holds no {name}; start from another file")
    return state


def load_weights(path, device="cpu"):
    """Reads save_weights' file, or a checkpoint of the train scripts; the architecture comes from the file.

    Returns: the model on the device, in float32, eval mode.
    Raises: FileNotFoundError; ValueError for a file that is not ours.
    """
    checkpoint = load_checkpoint(path)
    model = build(checkpoint["variant"], config_from(LFDiffConfig, checkpoint["config"]))
    try:
        model.load_state_dict(checkpoint["model"])
    except RuntimeError as error:
        raise ValueError(f"{path}: weights do not fit the architecture stored with them ({str(error).splitlines()[-1].strip()})") from None
    return model.to(device, memory_format=torch.channels_last).eval()


if __name__ == "__main__":
    print(f"{'variant':<15} {'ours':>10} {'paper':>10} {'difference':>11}")
    for variant in VARIANTS:
        ours, paper = count_parameters(build(variant, LFDiffConfig())), PAPER_PARAMETERS[variant]
        print(f"{variant:<15} {ours / 1e6:>8.3f} M {paper / 1e6:>8.2f} M {100 * (ours / paper - 1):>+9.2f} %")
