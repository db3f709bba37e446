"""Synthetic HDR brackets: training data made on the fly, from nothing or from images you have.

The paper trains on the photographs of Kalantari and Hu (Sec. 5.1). This file makes brackets of the same kind from two integers,
(seed, index), so that anyone can train and test the whole system on a laptop. A sample is a small world. A simulated hand-held camera
(camera.py) photographs it three times while objects (objects.py) move in front of it. Most brackets are then registered, by the
known motion and a small error, and aligned along optical flow. Renders are registered as photographs are. Worlds come from three sources:

    procedural     needs no files (world.py): materials, textures, shadows, windows, lamps
    photographed   a folder of .hdr images: views into panoramas, crops of photographs (sources.py)
    rendered       a folder made by `python -m synthetic.rendered`: parallax, moving and deforming objects, shadows

People, balls, boxes, boards and cut-outs of the images move in front of a world. Renders have motion of their own and seldom get such objects.

Symbols: H radiance in units of the shortest exposure (H = 1 is where it clips), ev exposures in stops,
    L_i = clip(H 2^ev_i, 0, 1)^(1/2.2).
Units: pixels of the output image unless a comment says otherwise; logarithms of radiance are natural. Arrays are numpy, (C, H, W),
float32. `python -m synthetic` draws a contact sheet of brackets or writes them as folders.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from brackets.files import write_image
from brackets.flow import follow_flow
from brackets.marks import TRUTH
from brackets.ownership import check_bracket_folder
from brackets.register import register
from common import write_atomically
from synthetic.camera import blur, camera_poses, displacement, expose, look, photograph, quantile, register_by_poses, veiling_glare
from synthetic.objects import add_objects
from synthetic.sources import find_images, find_renders, photographed_object, photographed_world, rendered_world
from synthetic.textures import log_uniform
from synthetic.world import draw_object, draw_view, world

SOURCES = ("procedural", "photographed", "rendered")
VALIDATION_SEED = 1_000_000  # seed of the validation scenes, the same for every run
FIRST = {"ev_steps": (2.0, 3.0), "saturated_fraction": (0.03, 0.35), "iso": (100.0, 6400.0), "response": (0.6, 0.2, 0.0), "misstated": 0.0,
         "clipped_early": 0.0, "raised_black": 0.0}  # settings of the earlier ruler (docs/results.md), whose scenes validation_set draws
MOVES = {"patches": False, "static_camera": 0.0, "steady": 0.0, "static_scene": 0.0, "rendered_objects": 1.0}  # a whole photograph; something moves
AS_TAKEN = {"registered": 0.0, "followed": 0.0, "context": 0.0}  # settings for brackets as the camera takes them, not aligned


@dataclass
class SyntheticConfig:
    """Hyperparameters of the synthetic brackets. Every range is (low, high)."""

    mix: tuple[float, ...] = (0.3, 0.35, 0.35)  # shares of procedural, photographed and rendered brackets; a source without a folder gets none
    ev_range: tuple[float, ...] = (0.7, 4.0)  # stops between neighbouring frames
    ev_steps: tuple[float, ...] = ()  # if given: both steps are one of these instead [paper: Sec. 5.1, data of Kalantari: 2 or 3]
    unequal: float = 0.3  # probability that the two steps differ
    in_thirds: float = 0.7  # probability that steps are in thirds of a stop, as on cameras
    ev_error: float = 0.03  # standard deviation of an exposure step from its nominal value, stops
    misstated: float = 0.15  # probability that the outer frames' exposures are stated wrongly ...
    misstatement: float = 0.3  # ... by up to this, stops
    saturated_fraction: tuple[float, ...] = (0.0, 0.6)  # share of the reference's pixels that saturate
    patches: bool = True  # the image is a patch of a larger photograph: the share above is the photograph's, the patch may have any share
    bright: float = 0.5  # probability that what saturates the reference is stretched up to H = 1
    vivid: float = 0.2  # probability that all colours of the scene are strengthened ...
    vividness: tuple[float, ...] = (1.2, 2.2)  # ... by this factor on their log differences
    scene_height: tuple[float, ...] = (0.8, 1400.0)  # height of the scene that the image is a crop of: low end in image sides, high end in pixels
    static_camera: float = 0.15  # probability that the camera stands still
    shift: float = 30.0  # largest distance by which camera motion moves a corner of the image relative to the reference, pixels
    steady: float = 0.2  # probability that the camera is held steady (a burst, a poor tripod) ...
    steady_shift: float = 2.0  # ... so that no corner moves further than this, pixels
    rotation: float = 2.0  # largest camera rotation, degrees
    zoom: float = 0.008  # largest relative change of scale
    perspective: float = 0.02  # largest relative change of scale between the middle and an edge of the image
    shake: float = 0.15  # probability that the camera moves during the longest exposure ...
    shake_length: tuple[float, ...] = (0.5, 4.0)  # ... by this distance, pixels, log-uniform
    static_scene: float = 0.35  # probability that nothing moves in the image
    still: bool = False  # nothing moves in renders either, and their camera stands still
    objects: tuple[int, ...] = (1, 4)  # number of moving objects where something moves; images above 256 pixels have more
    object_motion: tuple[float, ...] = (0.5, 80.0)  # distance an object moves between neighbouring frames, pixels, log-uniform
    object_rotation: float = 8.0  # largest rotation of an object between neighbouring frames, degrees
    object_deformation: float = 0.06  # largest bending of an object, in units of its size
    motion_blur: float = 0.3  # probability that a moving object is smeared in the longest exposure
    middle_blur: float = 0.3  # probability that a smeared object is smeared in the reference too, and so in the truth
    on_highlight: float = 0.5  # probability that an object crosses a region that saturates the reference
    rendered_camera: float = 0.3  # probability that a render gets the camera motion above in addition to its own
    rendered_objects: float = 0.25  # probability that such objects move in front of a render
    rendered_turn: float = 0.3  # probability that a render is turned by a quarter or half turn
    lens_blur: tuple[float, ...] = (0.35, 1.0)  # standard deviation of the lens's Gaussian blur, pixels
    veil: tuple[float, ...] = (0.001, 0.03)  # share of the light that the lens scatters over the image, log-uniform
    white_balance: tuple[float, ...] = (1.0, 2.4)  # gains of red and of blue after the sensor; that of green is 1
    iso: tuple[float, ...] = (50.0, 12800.0)  # sensitivity, log-uniform
    full_well: float = 30000.0  # electrons at the sensor's white level, ISO 100
    read_noise: tuple[float, ...] = (1.5, 6.0)  # electrons
    correlated_noise: float = 0.3  # probability that noise is smoothed over neighbours, as demosaicing does; its variance stays the same
    sensor_bits: tuple[int, ...] = (12, 14)  # bits of the sensor's linear values; one of them is drawn; 0: not quantised
    response: tuple[float, ...] = (0.5, 0.2, 0.3)  # probabilities of gamma 2.2, sRGB's curve and a picture style; otherwise it is another gamma
    response_spread: float = 0.04  # standard deviation of that gamma's logarithm around that of 2.2
    clipped_early: float = 0.25  # probability that the files saturate below white ...
    clip_codes: tuple[int, ...] = (240, 254)  # ... at a code in this range, out of 255
    raised_black: float = 0.2  # probability that black is raised ...
    black_level: float = 0.01  # ... by up to this, as a share of white
    output_bits: tuple[int, ...] = (8, 8, 12, 16)  # bits of the coded file; one of them is drawn; 0: not quantised
    jpeg: float = 0.7  # probability that a file of 8 bits is a JPEG ...
    jpeg_quality: tuple[float, ...] = (70.0, 98.0)  # ... of this quality
    registered: float = 0.9  # probability that the frames are registered, as brackets/prepare.py does ...
    residual: tuple[float, ...] = (0.05, 2.0)  # ... up to an error that moves a corner by at most this, pixels, log-uniform
    followed: float = 0.9  # probability that the frames, registered or not, are aligned along optical flow, as brackets/prepare.py does
    context: float = 0.5  # brackets are made with sides longer by this share, so that flow sees more, then cropped; all of the above is about the larger image


# --- the bracket ------------------------------------------------------------------------------------------------------


def procedural_world(rng, height, width, side, config):
    """Draws a procedural world for a canvas.

    height, width: of the canvas; side: the shorter side of the image, which is a part of the canvas.
    Returns: log radiance (3, height, width), and the height of the scene in image heights.
    """
    view = draw_view(rng, height, width, side, config)
    return world(rng, view), view.scale / side


def strengthen(log_canvas, factor):
    """Multiplies the colour differences of log radiance (..., 3, h, w). No channel ends up further than a factor of 10 from the mean."""
    mean = log_canvas.mean(-3, keepdims=True)
    return mean + np.clip(np.float32(factor) * (log_canvas - mean), -2.3, 2.3)


def expose_frames(rng, canvases, poses, height, width, config):
    """Looks at the world through the camera, once per frame.

    canvases: three log radiances (3, h, w), one per frame; poses: camera_poses().
    Returns: (3, 3, height, width) linear.
    """
    h, w = canvases[0].shape[-2:]
    if (h, w) == (height, width):
        return np.exp(np.stack(canvases))  # nothing to interpolate
    # A fraction of a pixel: otherwise the reference would lie on the canvas's own pixels and be the only sharp frame
    origin = (w - 1) / 2 + rng.uniform(-0.5, 0.5), (h - 1) / 2 + rng.uniform(-0.5, 0.5)
    frames = np.stack([look(canvas, pose, origin, height, width) for canvas, pose in zip(canvases, poses)])
    if rng.random() < config.shake:
        length, heading = log_uniform(rng, *config.shake_length), rng.uniform(0, 2 * math.pi)
        for t in (-0.5, 0.5):
            there = origin[0] + t * length * math.cos(heading), origin[1] + t * length * math.sin(heading)
            frames[2] += look(canvases[2], poses[2], there, height, width)
        frames[2] /= 3
    return frames


def draw_exposures(rng, config):
    """Draws the nominal exposures of a bracket. Returns: (3,) float32 stops that rise from 0."""
    if config.ev_steps:
        steps = np.repeat(rng.choice(config.ev_steps), 2)
    else:
        steps = rng.uniform(*config.ev_range, 2)
        if rng.random() >= config.unequal:
            steps[1] = steps[0]
        if rng.random() < config.in_thirds:
            steps = np.clip(np.rint(3 * steps) / 3, *config.ev_range)
    return np.array([0.0, *np.cumsum(steps)], np.float32)


def make_bracket(rng, height, width, config, background, cut_out):
    """Makes one bracket of three exposures.

    rng: numpy Generator; height, width: of the images; config: SyntheticConfig, whose `context` is not used.
    background(rng, h, w): returns the world as log radiance, (3, h, w) or (3, 3, h, w) for three frames, and the height of the
        scene in image heights.
    cut_out(rng, radius): draws a moving object, log radiance (3, n, n) and opacity (n, n).
    Returns: four values.
        ldr (3, 3, H, W): coded frames in [0, 1], float32
        ev (3,): stops from 0, float32
        hdr (3, H, W): the reference without noise, linear in [0, 1] in units of the shortest exposure as it was taken, float32
        bits: of the files, 0 if they are not quantised. Values of a registered frame lie between these levels.
    """
    poses = camera_poses(rng, height, width, config)
    moved = max(displacement(poses[frame], height, width) for frame in (0, 2))
    margin = math.ceil(moved) + 3 if moved else 0
    canvas, ratio = background(rng, height + 2 * margin, width + 2 * margin)
    if config.still and canvas.ndim == 4:
        canvas = canvas[1]  # the middle one of three moments
    if rng.random() < config.vivid:
        canvas = strengthen(canvas, rng.uniform(*config.vividness))
    ev = draw_exposures(rng, config)
    frames = expose_frames(rng, canvas if canvas.ndim == 4 else [canvas] * 3, poses, height, width, config)  # (3, 3, H, W)
    add_objects(rng, frames, poses, cut_out, config)
    frames = np.minimum(frames, np.float32(quantile(frames[1].max(0), 0.6) * 3e4))
    frames = veiling_glare(frames, log_uniform(rng, *config.veil))
    frames = blur(frames, rng.uniform(*config.lens_blur))
    frames = expose(rng, frames, ev, ratio if config.patches else 1.0, config)
    ldr, bits, misstated = photograph(rng, frames, ev, config)
    if rng.random() < config.registered:
        if canvas.ndim == 4:  # how a render's own camera moves is not known here
            ldr = register(torch.from_numpy(ldr), ev)[0].numpy()
        else:
            ldr = register_by_poses(rng, ldr, ev, poses, config)
    if rng.random() < config.followed:
        ldr = follow_flow(torch.from_numpy(ldr), ev).numpy()
    return ldr, ev, np.clip(frames[1] * np.float32(2.0**-misstated), 0, 1), bits


class SyntheticBrackets(torch.utils.data.Dataset):
    """Brackets as a pure function of (seed, index): the same in any process, in any order, on any rank.

    size: side of the square images, or (height, width). length: what len() says; any index from 0 works.
    hdr_dir: folder of .hdr images, searched with its subfolders. rendered_dir: folder made by `python -m synthetic.rendered`.
    split: "train" and "val" take only the files of that split (see sources.py), "all" takes all. In "train" and "all" a source is drawn by
        config.mix, then one of its files. In "val" the sources take turns, and so do their files; a source without a validation file
        is left out.
    config: SyntheticConfig() by default.
    Returns (by index): {"ldr": (3, 3, H, W) coded, in [0, 1]; "ev": (3,) stops from 0; "hdr": (3, H, W) linear in [0, 1], in units of
        the shortest exposure}, float32 tensors.
    Raises: ValueError for another split, or a size below 16; FileNotFoundError or ValueError for a folder without any usable file;
        IndexError for an index below 0.
    """

    def __init__(self, size=128, seed=0, length=10000, hdr_dir=None, rendered_dir=None, split="all", config=None):
        self.height, self.width = (size, size) if isinstance(size, int) else size
        if min(self.height, self.width) < 16:
            raise ValueError(f"SyntheticBrackets: size {size} is too small; use 16 pixels or more")
        if split not in ("train", "val", "all"):
            raise ValueError(f"SyntheticBrackets: found split {split!r}; use train, val or all")
        self.seed, self.length, self.split, self.config = seed, length, split, SyntheticConfig() if config is None else config
        margin = math.ceil(self.config.shift) + 3
        height, width = self.drawn = tuple(round(side * (1 + self.config.context)) for side in (self.height, self.width))
        self.files = {"procedural": []}
        if hdr_dir:
            self.files["photographed"] = find_images(hdr_dir, height + 2 * margin, width + 2 * margin, split)
        if rendered_dir:
            self.files["rendered"] = find_renders(rendered_dir, height, width, split)
        able = {"procedural"} | {name for name, files in self.files.items() if files}
        shares = {name: share for name, share in zip(SOURCES, self.config.mix) if share > 0 and name in able}
        self.shares = shares or {"procedural": 1.0}

    @property
    def steps(self):
        """The smallest and the largest nominal exposure step, in stops."""
        steps = self.config.ev_steps or self.config.ev_range
        return float(min(steps)), float(max(steps))

    def __len__(self):
        return self.length

    def __iter__(self):
        return (self[index] for index in range(self.length))  # without this a for loop would never end: there is no last index

    def source(self, index):
        """Draws where a bracket comes from.

        Returns: name of the source, (path, height, width) of its file or None, and the Generator that draws the rest.
        """
        if index < 0:
            raise IndexError(f"SyntheticBrackets: index {index}; use 0 or more")
        rng = np.random.default_rng([self.seed, index])
        names = [*self.shares]
        if self.split == "val":
            name, turn = names[index % len(names)], index // len(names)
        else:
            shares = np.array([*self.shares.values()])
            name, turn = names[int(np.searchsorted(np.cumsum(shares[:-1]) / shares.sum(), rng.random(), "right"))], None
        files = self.files[name]
        if not files:
            return name, None, rng
        return name, files[int(rng.integers(len(files))) if turn is None else turn % len(files)], rng

    def name(self, index):
        """Names a bracket after its source and file, such as photographed_04_Tree."""
        source, file, _ = self.source(index)
        return f"{source}_{index:02d}" + (f"_{file[0].stem}" if file else "")

    def bracket(self, index):
        """Makes a bracket. Returns: ldr, ev and hdr as arrays and the bits of the files, as make_bracket() does."""
        source, file, rng = self.source(index)
        cut_out, config, (height, width) = draw_object, self.config, self.drawn
        background = functools.partial(procedural_world, side=min(height, width), config=config)
        if "photographed" in self.shares:
            cut_out = functools.partial(photographed_object, images=self.files["photographed"])
        if source == "photographed":
            background = functools.partial(photographed_world, image=file)
        if source == "rendered":
            turn = 0.0 if self.split == "val" else config.rendered_turn
            background = functools.partial(rendered_world, render=file, turn=turn)
            room = max(min((file[1] - height) // 2, (file[2] - width) // 2) - 3, 0)
            if not config.still:
                config = dataclasses.replace(config, static_camera=1 - config.rendered_camera, shift=min(config.shift, room),
                                             static_scene=1 - config.rendered_objects)
        ldr, ev, hdr, bits = make_bracket(rng, height, width, config, background, cut_out)
        top, left = int(rng.integers(height - self.height + 1)), int(rng.integers(width - self.width + 1))
        window = ..., slice(top, top + self.height), slice(left, left + self.width)
        return np.ascontiguousarray(ldr[window]), ev, np.ascontiguousarray(hdr[window]), bits

    def __getitem__(self, index):
        ldr, ev, hdr, _ = self.bracket(index)
        return {"ldr": torch.from_numpy(ldr), "ev": torch.from_numpy(ev), "hdr": torch.from_numpy(hdr)}


def validation_set(size, count, hdr_dir=None, rendered_dir=None):
    """Opens the scenes that validate training: whole photographs, made from files that no training bracket uses.

    Objects move in each of them, because without motion there is nothing to deghost. The camera moves as well, in renders on a
    path of its own, and frames are left as taken. Exposure steps are 2 or 3 stops, so that scores can be compared with earlier ones.
    Arguments and Returns: as for SyntheticBrackets; count: number of scenes.
    """
    return SyntheticBrackets(size, VALIDATION_SEED, count, hdr_dir, rendered_dir, "val", SyntheticConfig(**MOVES, **FIRST, **AS_TAKEN))


# --- as files ---------------------------------------------------------------------------------------------------------


def export(dataset, folder):
    """Writes each bracket as a folder that brackets.scenes.load_scene reads.

    A folder holds frames 1, 2, 3 (PNG for 8 bits, else 16-bit TIFF), exposure.txt and HDRImg.hdr. JPEG artefacts are in the pixels.
    Returns: list of the folders. Raises: ValueError, before anything is made, if a folder holds something else.
    """
    made = []
    for index in range(len(dataset)):
        check_bracket_folder(Path(folder) / dataset.name(index))
    for index in range(len(dataset)):
        ldr, ev, hdr, bits = dataset.bracket(index)
        made.append(Path(folder) / dataset.name(index))
        write_image(made[-1] / "HDRImg.hdr", hdr.transpose(1, 2, 0), TRUTH)     # first, so that a killed run can go on in its folders
        for earlier in made[-1].glob("[123].*"):        # from an export with other settings
            earlier.unlink()
        suffix, levels, dtype = (".png", 255, np.uint8) if bits == 8 else (".tif", 65535, np.uint16)
        for number, frame in enumerate(ldr, 1):
            write_image(made[-1] / f"{number}{suffix}", np.rint(frame.transpose(1, 2, 0) * levels).astype(dtype))
        write_atomically(made[-1] / "exposure.txt", lambda file, ev=ev: file.write("".join(f"{stops:g}\n" for stops in ev).encode()))
    return made
