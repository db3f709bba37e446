"""Reconstructs large images: Fig. 2 (c) with the last step, DHRNet, tile by tile, so that the size of a tile bounds the memory.

All tiles share one prior, so neighbouring tiles agree. DHRNet's attentions pool over a tile instead of the image: docs/speed.md says what that
changes.
"""

import contextlib
import itertools

import torch
from tqdm import tqdm

from beyond.fast import give_back_memory, keep_memory
from beyond.steps import nearest_steps, scale_back, show_at
from data import network_input
from lfdiff import MULTIPLE, pad_to_multiple, reconstruct

WHOLE = 3_000_000       # pixels of an image above which it is rebuilt in tiles
TILE = 1280             # side of such a tile, pixels
OVERLAP = 128           # overlap of two tiles, pixels


def tile_for(tile, H, W):
    """Returns the side of the tiles for an image, 0 for none. tile: a side in pixels, 0 for the default (none up to WHOLE, else TILE), -1 for never."""
    return max(tile or (TILE if H * W > WHOLE else 0), 0)


def keep_memory_for(tile):
    """Keeps freed memory for the next map (fast.py). With tiles, memory is short, and only small blocks are kept. tile: from tile_for."""
    keep_memory(2 ** 26 if tile else 2 ** 30)


def check_sampler(sampler, steps):
    """Checks --sampler. steps: of the command line, 0 or empty if it has none. Raises: ValueError for an unknown sampler, or steps beside "ancestral"."""
    if sampler not in ("ddim", "ancestral"):
        raise ValueError(f"--sampler {sampler}: use ddim or ancestral")
    if sampler == "ancestral" and steps:
        raise ValueError("--sampler ancestral: takes all T steps of Eq. 14; leave out --steps")


def check_steps(steps, sampler, model, file):
    """Checks --steps and --sampler against a network. steps: 0 or None if the command line has none; model: Stage1 or Stage2; file: its weights.

    Raises: ValueError for more than T steps, or where there is no diffusion model.
    """
    if (steps or sampler == "ancestral") and model.variant != "s2":
        flag = f"--steps {steps}" if steps else "--sampler ancestral"
        raise ValueError(f"{flag}: {file} is of the variant {model.variant}, which has no diffusion model; leave it out")
    if steps and steps > model.schedule.T:
        raise ValueError(f"--steps {steps}: {file} has T = {model.schedule.T}; choose fewer")


def tile_ramps(length, tile):
    """Finds how tiles cover one side of an image, and the weights with which they are blended.

    length: multiple of 16; tile: pixels. Returns: list of (start, weights), start a multiple of 16, weights (tile,) float32
    that rise linearly over the middle half of an overlap and, at each pixel of the image, add up to 1 over the tiles.
    """
    count = -(-(length - OVERLAP) // (tile - OVERLAP)) if length > tile else 1
    starts = [min(k * (tile - OVERLAP), length - tile) for k in range(count)]
    covered, ramps, place = torch.zeros(length), [], torch.arange(tile)
    for start in starts:
        left = place + 0.5 if start > 0 else torch.full((tile,), float("inf"))              # distance from a border within the image
        right = tile - place - 0.5 if start + tile < length else torch.full((tile,), float("inf"))
        ramps.append(((torch.minimum(left, right) - OVERLAP / 4) / (OVERLAP / 2)).clamp(0, 1))
        covered[start:start + tile] += ramps[-1]
    return [(start, ramp / covered[start:start + tile]) for start, ramp in zip(starts, ramps)]


def bar_of(total, unit):
    """Makes a progress bar that is shown only in a terminal, and leaves nothing behind."""
    return tqdm(total=total, unit=unit, leave=False, disable=None)


@contextlib.contextmanager
def steps_shown(model, S, sampler):
    """Shows each pass of the denoiser in a progress bar. Arguments: as in reconstruct_in_tiles."""
    if model.denoiser is None:
        yield
        return
    with bar_of(model.schedule.T if sampler == "ancestral" else S or model.config.diffusion.S, "step") as bar:
        def passed(*_):             # what a hook returns would replace the module's output
            bar.update()
        hook = model.denoiser.register_forward_hook(passed)
        try:
            yield
        finally:
            hook.remove()


def rebuild_in_tiles(rebuild, ldr, z, tile):
    """Computes Eq. 10 tile by tile, with one prior for the whole image.

    rebuild: function (ldr, z) -> H^ of a part of the image; ldr: (B, 3, 3, H, W); z: (B, N, H/4, W/4) or None; H, W multiples of 16.
    Returns: H^ (B, 3, H, W).
    """
    H, W = ldr.shape[-2:]
    height, width, k = min(tile, H), min(tile, W), 1 if z is None else W // z.shape[-1]
    hdr_hat = ldr.new_zeros(len(ldr), 3, H, W)
    rows, columns = tile_ramps(H, height), tile_ramps(W, width)
    with bar_of(len(rows) * len(columns), "tile") as bar:
        for (top, down), (left, across) in itertools.product(rows, columns):
            y, x = slice(top, top + height), slice(left, left + width)
            z_tile = None if z is None else z[..., top // k:(top + height) // k, left // k:(left + width) // k]
            hdr_hat[..., y, x] += rebuild(ldr[..., y, x], z_tile) * (down[:, None] * across).to(ldr)
            bar.update()
    return hdr_hat


@torch.no_grad()
def reconstruct_in_tiles(model, ldr, ev, tile=0, S=None, sampler="ddim", generator=None):
    """Runs lfdiff.reconstruct on one bracket, in tiles if the image is larger than one, and at steps that the weights know (steps.py, D11).

    model: Stage2 or the baseline Stage1, after speed_up; tile: side in pixels, 0 for none; the other arguments and the result: as there.
    Raises: ValueError for a tile that cannot overlap its neighbour.
    """
    steps = nearest_steps(getattr(model, "steps", None), ev[0].cpu())
    if steps is not None:
        shown, shown_ev = show_at(steps, ldr, ev)
        return scale_back(reconstruct_in_tiles(model, shown, shown_ev, tile, S, sampler, generator), shown, shown_ev, ldr, ev)
    if not tile or (tile >= max(ldr.shape[-2:]) and tile % MULTIPLE == 0):
        return reconstruct(model, ldr, ev, S, sampler, generator)
    if tile < 2 * OVERLAP or tile % MULTIPLE:
        raise ValueError(f"--tile {tile}: must be a multiple of {MULTIPLE}, {2 * OVERLAP} or more, because tiles overlap by {OVERLAP} pixels")
    H, W = ldr.shape[-2:]
    ldr = pad_to_multiple(ldr)
    if model.variant == "baseline":
        z_hat, rebuild = None, lambda ldr, z: model.dhrnet(network_input(ldr, ev))
    else:
        D = model.condition.from_frames(ldr, ev).float()
        with steps_shown(model, S, sampler):
            z_hat = model.sample(torch.randn(D.shape, generator=generator).to(D), D, S, sampler, generator)
        rebuild = lambda ldr, z: model.rebuild(network_input(ldr, ev), z)
    give_back_memory()          # the U-Net's maps do not have a tile's size
    return rebuild_in_tiles(rebuild, ldr, z_hat, tile)[..., :H, :W]
