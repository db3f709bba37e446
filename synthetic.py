"""Synthetic HDR brackets: training data made on the fly, no files needed.

The paper trains on the photographs of Kalantari and Hu (Sec. 5.1). This file makes brackets of the same kind from two integers,
(seed, index), so that anyone can train and test the whole system on a laptop. A sample is a small world, photographed three times
by a hand-held camera:

    world      what stands still (landscape, room, facade, clutter, plain surface): materials, textures, shadows, windows, lamps
    objects    people, balls, boxes, sticks, boards that stand at another place in each of the three frames
    camera     a shift, a rotation and a zoom per frame, lens blur, veiling glare
    exposure   chosen on the reference, so that a given fraction of it saturates
    sensor     shot noise, read noise, clipping, quantisation, gamma 1/2.2

With `hdr_dir`, a folder of .hdr images takes the place of the procedural world: panoramas (width = 2 height) by perspective views,
photographs by crops.

Symbols: H radiance in units of the shortest exposure (H = 1 is where it clips), ev exposures in stops,
    L_i = clip(H 2^ev_i, 0, 1)^(1/2.2).
Units: pixels of the output image unless a comment says otherwise; logarithms of radiance are natural. Arrays are numpy, (C, H, W),
float32.

    python synthetic.py --count 8 --out synthetic.png   # a contact sheet: three LDRs, a plain merge, T(truth) (5 seconds)
    python synthetic.py --count 8 --hdr-dir DIR         # the same from a folder of .hdr images
"""

import argparse
import functools
import math
import re
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F

import common
from data import T, weighted_merge
from images import read_image
from textures import log_uniform
from world import draw_object, draw_view, stamp, world

CACHE_BYTES = 320e6  # decoded images of hdr_dir kept by one process
MAX_HALF_ANGLE = math.radians(60)  # of a perspective view into a panorama


@dataclass
class SyntheticConfig:
    """Hyperparameters of the synthetic brackets; every range is (low, high)."""

    ev_steps: tuple[float, ...] = (2.0, 3.0)  # stops between neighbouring frames, one is drawn per sample [paper: Sec. 5.1, data of Kalantari]
    saturated_fraction: tuple[float, ...] = (0.03, 0.25)  # of the reference's pixels, at the level of the scene a patch is cut from
    scene_height: tuple[float, ...] = (0.8, 1400.0)  # of the scene the image is a crop of: low in image sides, high in pixels
    static_camera: float = 0.15  # probability that the camera stands still
    shift: float = 12.0  # largest camera shift against the reference, pixels
    rotation: float = 1.0  # largest camera rotation, degrees
    zoom: float = 0.004  # largest relative change of scale
    static_scene: float = 0.35  # probability that nothing moves in the image
    objects: tuple[int, ...] = (1, 4)  # moving objects where something moves
    object_motion: tuple[float, ...] = (0.5, 40.0)  # of an object between neighbouring frames, pixels, log-uniform
    object_rotation: float = 8.0  # largest rotation of an object between neighbouring frames, degrees
    object_deformation: float = 0.06  # largest bending of an object, in units of its size
    motion_blur: float = 0.3  # probability that a moving object is smeared in the longest exposure
    on_highlight: float = 0.5  # probability that an object crosses a region that saturates the reference
    lens_blur: tuple[float, ...] = (0.35, 1.0)  # Gaussian, standard deviation in pixels
    veil: tuple[float, ...] = (0.001, 0.03)  # share of the light scattered over the image, log-uniform
    iso: tuple[float, ...] = (100.0, 3200.0)  # log-uniform
    full_well: float = 30000.0  # electrons at the white level, ISO 100
    read_noise: tuple[float, ...] = (1.5, 6.0)  # electrons
    correlated_noise: float = 0.3  # probability that noise is smoothed over neighbours as demosaicing does, variance kept
    sensor_bits: tuple[int, ...] = (0, 12, 14)  # linear quantisation in the sensor, one is drawn; 0: none
    output_bits: tuple[int, ...] = (8, 16)  # quantisation of the gamma-coded file, one is drawn; 0: none


# ---------------------------------------------------------------- motion


def object_path(rng, focus, config):
    """Poses of one object in the three frames: [(x, y, angle, bend, phase)] * 3. In one of them, drawn, it stands at `focus`."""
    distance, heading = log_uniform(rng, *config.object_motion), rng.uniform(0, 2 * math.pi)
    turn, bend = math.radians(config.object_rotation), config.object_deformation
    angle, phase, at = rng.uniform(-0.3, 0.3), rng.uniform(0, 6), int(rng.integers(3))
    poses = []
    for frame in range(3):
        step = (frame - at) * distance * rng.uniform(0.6, 1.4)
        poses.append((
            focus[0] + step * math.cos(heading) + 0.15 * distance * rng.standard_normal() * (frame != at),
            focus[1] + step * math.sin(heading) + 0.15 * distance * rng.standard_normal() * (frame != at),
            angle + rng.uniform(-turn, turn),
            rng.uniform(0, bend),
            phase + rng.uniform(-0.5, 0.5),
        ))
    return poses


# ---------------------------------------------------------------- camera and sensor


def camera_poses(rng, config):
    """(3, 4): shift x, shift y (pixels), rotation (radians), log zoom of each frame; zero for the reference."""
    poses = np.zeros((3, 4))
    if rng.random() >= config.static_camera:
        for frame in (0, 2):
            size, heading = config.shift * rng.random() ** 1.5, rng.uniform(0, 2 * math.pi)
            turn, zoom = math.radians(config.rotation) * rng.uniform(-1, 1) * rng.random(), config.zoom * rng.uniform(-1, 1)
            poses[frame] = size * math.cos(heading), size * math.sin(heading), turn, zoom
    return poses


def look(log_canvas, pose, origin, height, width):
    """What a camera sees of the canvas, (3, height, width) linear.

    pose: a row of camera_poses(); origin: where on the canvas the image's centre lies, x and y in pixels. The interpolation is done
    on logarithms: beside a lamp, cubic interpolation of radiance itself would go below 0.
    """
    h, w = log_canvas.shape[1:]
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None]
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2)[None, :]
    dx, dy, angle, zoom = pose
    c, s = math.cos(angle) * math.exp(zoom), math.sin(angle) * math.exp(zoom)
    u, v = c * x - s * y + (origin[0] - dx), s * x + c * y + (origin[1] - dy)
    grid = np.stack([u * (2 / (w - 1)) - 1, v * (2 / (h - 1)) - 1], -1).astype(np.float32)
    canvas, grid = torch.from_numpy(log_canvas)[None], torch.from_numpy(grid)[None]
    return np.exp(F.grid_sample(canvas, grid, mode="bicubic", padding_mode="border", align_corners=True)[0].numpy())


def blur(images, sigma):
    """Gaussian blur of the last two axes, five taps a direction, edges repeated. sigma: pixels.

    Sums of shifted copies, not a convolution, whose order of summation may depend on the number of threads.
    """
    taps = np.exp(-0.5 * (np.arange(3) / sigma) ** 2)
    taps = np.float32(taps / (2 * taps.sum() - taps[0]))
    for axis in (-1, -2):
        pad = [(0, 0)] * images.ndim
        pad[axis] = (2, 2)
        padded, n = np.pad(images, pad, mode="edge"), images.shape[axis]
        part = [padded[(..., slice(k, k + n)) if axis == -1 else (..., slice(k, k + n), slice(None))] for k in range(5)]
        images = part[2] * taps[0] + (part[1] + part[3]) * taps[1] + (part[0] + part[4]) * taps[2]
    return images


def veiling_glare(frames, share):
    """Light scattered in the lens: each frame (3, 3, H, W) loses a share, which comes back smeared over a large neighbourhood."""
    small = F.avg_pool2d(torch.from_numpy(frames), 8, ceil_mode=True)
    for _ in range(2):
        small = F.avg_pool2d(small, 5, stride=1, padding=2, count_include_pad=False)
    # F.interpolate would do, but its last bits depend on the number of threads
    y, x = ((2 * np.arange(n, dtype=np.float32) + 1) / (8 * math.ceil(n / 8)) - 1 for n in frames.shape[-2:])
    grid = torch.from_numpy(np.stack(np.broadcast_arrays(x[None, :], y[:, None]), -1))[None].expand(3, -1, -1, -1)
    smeared = F.grid_sample(small, grid, mode="bilinear", padding_mode="border", align_corners=False).numpy()
    return frames * np.float32(1 - share) + np.float32(share) * smeared


def sensor(rng, linear, iso, read_noise, sensor_bits, output_bits, correlated, config):
    """From the noise-free exposure to the file.

    linear: radiance times exposure time, 1 is the white level. At ISO s the white level is full_well * 100 / s electrons, N; a pixel x then
    holds x N electrons with Poisson (shot) noise, here its Gaussian limit, and `read_noise` electrons of readout noise:
        Var[x] = x / N + (read_noise / N)²
    Returns: gamma-coded, quantised, in [0, 1], float32.
    """
    electrons = config.full_well * 100 / iso
    noise = rng.standard_normal(linear.shape, dtype=np.float32)
    if correlated:
        smooth = np.float32(0.25) * np.roll(noise, 1, -1) + np.float32(0.25) * np.roll(noise, 1, -2)
        noise = (noise + smooth) * np.float32(1 / math.sqrt(1.125))  # weights 1, 1/4, 1/4: the variance stays 1
    x = linear + noise * np.sqrt(linear * np.float32(1 / electrons) + np.float32((read_noise / electrons) ** 2))
    x = np.clip(x, 0, 1)
    if sensor_bits:
        x = np.rint(x * np.float32(2**sensor_bits - 1)) * np.float32(1 / (2**sensor_bits - 1))
    x = x ** np.float32(1 / 2.2)
    if output_bits:
        x = np.rint(x * np.float32(2**output_bits - 1)) / np.float32(2**output_bits - 1)
    return x


def quantile(values, q):
    """The value that a share q of `values` lies below; a value of the set itself, so no rounding depends on the machine."""
    flat = values.ravel()
    k = min(int(q * flat.size), flat.size - 1)
    return float(np.partition(flat, k)[k])


def expose(rng, frames, ev, ratio, config):
    """Scale radiance to units of the shortest exposure.

    frames (3, 3, H, W) linear, any unit; ev (3,) stops; ratio: scene height per image height.
    The reference saturates at H = 2^-ev[1]: the drawn fraction of its pixels is put above that. An image that is a small crop of its
    scene may have any fraction, the scene's is then the mean. Above that level the range is compressed, where it must be, until the
    shortest exposure clips little but light sources; below it too, where half of the image would be black.
    Returns: (3, 3, H, W) float32, H.
    """
    fraction = rng.uniform(*config.saturated_fraction)
    if ratio > 1.3:
        spread = min(max(8 / ratio**2, 0.7), 8.0)
        fraction = rng.beta(fraction * spread, (1 - fraction) * spread)
    brightest = frames[1].max(0)
    white = quantile(brightest, 1 - fraction)
    if fraction < 0.003:
        white = brightest.max() * log_uniform(rng, 1.0, 6.0)  # a crop from a darker place
    elif fraction > 0.997:
        white = brightest.min() / log_uniform(rng, 1.0, 2.0)
    stops = np.log2(np.maximum(frames / np.float32(max(white, 1e-12)), np.float32(2.0**-18)))  # above the reference's white level
    middle, darkest = quantile(stops[1].max(0), 0.5), -rng.uniform(2.0, 7.0)
    if middle < darkest:  # a photographer would not have taken that
        stops = np.where(stops < 0, stops * np.float32(darkest / middle), stops)
    top = max(quantile(stops[1].max(0), 1 - rng.uniform(0.001, 0.02)), 0.1)
    limit = ev[1] * rng.uniform(0.6, 1.0)
    if top > limit:
        stops = np.where(stops > 0, stops * np.float32(limit / top), stops)
    return np.exp2(stops - np.float32(ev[1]))


# ---------------------------------------------------------------- photographed radiance


def find_images(folder, height, width, config):
    """The .hdr images of `folder` and its subfolders that are large enough for a canvas: sorted list of (path, height, width)."""
    folder, margin = Path(folder), canvas_margin(height, width, config)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".hdr") if folder.is_dir() else []
    if not paths:
        raise FileNotFoundError(f"{folder}: no .hdr image found; give a folder that holds some, or none for the procedural world")
    images = []
    for path in paths:
        with open(path, "rb") as file:
            found = re.search(rb"\n-Y[ \t]+(\d+)[ \t]+\+X[ \t]+(\d+)", file.read(65536))
        if not found:
            raise ValueError(f"{path}: no '-Y height +X width' line in its header; save it again as a Radiance image, or remove it")
        h, w = int(found[1]), int(found[2])
        # The width from which a panorama's pixels are no coarser than those of the widest view
        need = (max(height, width) + 2 * margin) * math.pi / math.tan(MAX_HALF_ANGLE)
        if (w == 2 * h and w >= need) or (w != 2 * h and h >= height + 2 * margin and w >= width + 2 * margin):
            images.append((path, h, w))
    if not images:
        raise ValueError(f"{folder}: {len(paths)} .hdr images, all too small for {width}x{height}; use larger images or a smaller size")
    return images


_decoded = {}  # path -> image, the most recently used last; of this process


def decoded(path):
    """The image as (3, H, W) float32, finite and above 0; kept while the cache has room."""
    if path in _decoded:
        _decoded[path] = _decoded.pop(path)
        return _decoded[path]
    image = np.ascontiguousarray(np.moveaxis(read_image(path), -1, 0), np.float32)
    image = np.where(np.isfinite(image), image, np.float32(0))
    middle = float(np.median(image.max(0)))
    image = np.clip(image, max(middle * 1e-5, 1e-12), max(middle, 1e-9) * 1e5)  # suns reach 1e5, a black pixel has no logarithm
    while _decoded and sum(x.nbytes for x in _decoded.values()) + image.nbytes > CACHE_BYTES:
        _decoded.pop(next(iter(_decoded)))
    _decoded[path] = image
    return image


def perspective(rng, image, height, width):
    """A view into a panorama, in any direction, mostly level, never finer than the panorama's own pixels.

    Returns: radiance (3, height, width), focal length in pixels.
    """
    finest = image.shape[2] / (2 * math.pi)  # focal length at which a pixel in the middle of the view is a pixel of the panorama
    widest = 0.5 * max(width, height) / math.tan(MAX_HALF_ANGLE)
    focal = log_uniform(rng, max(widest, finest / 8), max(widest, finest))
    level = int(math.log2(finest / focal) + 1e-6) if focal < finest else 0
    while level and (image.shape[1] % 2**level or image.shape[2] % 2**level):
        level -= 1
    if level:  # a wide view of a large panorama: average first, or it would alias
        image = F.avg_pool2d(torch.from_numpy(image)[None], 2**level)[0].numpy()
    yaw, pitch, roll = rng.uniform(-math.pi, math.pi), rng.normal(0, 0.25), rng.normal(0, 0.05)
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None] / focal
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2)[None, :] / focal
    x, y = math.cos(roll) * x - math.sin(roll) * y, math.sin(roll) * x + math.cos(roll) * y
    down, forward = math.cos(pitch) * y + math.sin(pitch), math.cos(pitch) - math.sin(pitch) * y
    longitude = (np.arctan2(x, forward) + yaw) / (2 * math.pi) % 1.0  # 0 to 1 across the panorama
    latitude = np.arctan2(down, np.hypot(x, forward)) / math.pi + 0.5  # 0 at the zenith
    h, w = image.shape[1:]
    wrapped = torch.from_numpy(np.concatenate([image[..., -1:], image, image[..., :1]], -1))[None]
    column = longitude * w + 0.5  # pixel k's centre lies at (k + 1/2) / w; one column was put before it
    grid = np.stack([column * (2 / (w + 1)) - 1, np.clip(latitude * h - 0.5, 0, h - 1) * (2 / (h - 1)) - 1], -1)
    grid = torch.from_numpy(np.float32(grid))[None]
    return F.grid_sample(wrapped, grid, mode="bilinear", padding_mode="border", align_corners=True)[0].numpy(), focal


def photographed_view(rng, images, height, width):
    """A random view of a random image: radiance (3, height, width) and scene heights per view height. The image may stand mirrored."""
    path, h, w = images[int(rng.integers(len(images)))]
    image = decoded(path)
    if w == 2 * h:
        view, focal = perspective(rng, image, height, width)
        ratio = focal / height  # a photograph of the whole scene would be about 53 degrees high
    else:
        step = max(1, int(rng.uniform(1, min(h / height, w / width, 4.0) + 1e-6)))  # a wider crop, averaged down
        y, x = int(rng.integers(h - step * height + 1)), int(rng.integers(w - step * width + 1))
        crop = image[:, y : y + step * height, x : x + step * width]
        view, ratio = crop.reshape(3, height, step, width, step).mean((2, 4)), h / (step * height)
    return (view[..., ::-1] if rng.random() < 0.5 else view), ratio


def photographed_world(rng, height, width, images):
    """As world(), from a folder of images: log radiance (3, h, w) and scene heights per image height."""
    view, ratio = photographed_view(rng, images, height, width)
    return np.log(np.ascontiguousarray(view)), ratio


def photographed_object(rng, radius, images):
    """As draw_object(), half of them cut out of another image of the folder."""
    radiance, alpha = draw_object(rng, radius)
    if rng.random() < 0.5:
        n = alpha.shape[0]
        fitting = [image for image in images if image[1] >= n and image[2] >= n]
        if fitting:
            view, _ = photographed_view(rng, fitting, n, n)
            radiance = np.log(np.ascontiguousarray(view)) - math.log(quantile(view, 0.5)) - 1.5
    return radiance, alpha


# ---------------------------------------------------------------- the bracket


def add_objects(rng, frames, poses, side, cut_out, config):
    """Let objects move through the three linear frames, in place. `cut_out(rng, radius)` draws one: log radiance, opacity."""
    height, width = frames.shape[-2:]
    if rng.random() < config.static_scene:
        return
    brightest = frames[1].max(0)
    highlight, middle = quantile(brightest, 0.85), quantile(brightest, 0.5)
    count = int(rng.integers(config.objects[0], config.objects[1] + 1) * max(1.0, side / 256))
    for _ in range(count):
        radius = min(log_uniform(rng, 0.06, 0.6) * side, log_uniform(rng, 20, 160))
        radiance, alpha = cut_out(rng, radius)
        if rng.random() < config.on_highlight:
            ys, xs = np.nonzero(brightest >= highlight)
            k = int(rng.integers(len(ys)))
            focus = xs[k] + 0.5 * radius * rng.standard_normal(), ys[k] + 0.5 * radius * rng.standard_normal()
        else:
            focus = rng.uniform(-0.1, 1.1) * width, rng.uniform(-0.1, 1.1) * height
        level = middle * 2 ** rng.uniform(-3.0, 2.5) / math.exp(-1.5)
        radiance = np.exp(np.clip(radiance, -9, 9)) * np.float32(level)
        if rng.random() < 0.4:  # out of focus
            edge = rng.uniform(0.5, 1.5)
            solid = blur(alpha, edge)
            radiance, alpha = blur(radiance * alpha, edge) / np.maximum(solid, np.float32(1e-4)), solid
        path = object_path(rng, focus, config)
        smear = rng.uniform(0.1, 0.4) if rng.random() < config.motion_blur else 0.0
        for frame, (x, y, angle, bend, phase) in enumerate(path):
            here = [(x + poses[frame, 0], y + poses[frame, 1], angle, bend, phase)]
            if smear and frame == 2:
                vx, vy = smear * (path[2][0] - path[1][0]), smear * (path[2][1] - path[1][1])
                here = [(here[0][0] + t * vx, here[0][1] + t * vy, angle, bend, phase) for t in (-0.5, -0.17, 0.17, 0.5)]
            stamp(frames[frame], radiance, alpha, here)


def canvas_margin(height, width, config):
    """Pixels that the canvas must have around the image for the camera to move in."""
    return math.ceil(config.shift + 0.5 * max(height, width) * (math.radians(config.rotation) + config.zoom)) + 3


def make_bracket(rng, height, width, config, background=None, cut_out=draw_object):
    """One bracket of three exposures.

    rng: numpy Generator; height, width: of the images; background(rng, h, w) -> (log radiance (3, h, w), scene heights per image
    height), the procedural world if None; cut_out(rng, radius) -> (log radiance (3, n, n), opacity (n, n)) draws a moving object.
    Returns: ldr (3, 3, H, W) gamma-coded in [0, 1]; ev (3,) stops from 0; hdr (3, H, W) linear in [0, 1], units of the shortest
    exposure: the reference without noise; all float32.
    """
    side = min(height, width)
    margin = canvas_margin(height, width, config)
    canvas_size = height + 2 * margin, width + 2 * margin
    if background is None:
        view = draw_view(rng, *canvas_size, side, config)
        canvas, ratio = world(rng, view), view.scale / side
    else:
        canvas, ratio = background(rng, *canvas_size)
    step = float(rng.choice(config.ev_steps))
    ev = np.array([0.0, step, 2 * step], np.float32)
    poses = camera_poses(rng, config)
    # A fraction of a pixel: otherwise the reference would lie on the canvas's own pixels and be the only sharp frame
    origin = (canvas_size[1] - 1) / 2 + rng.uniform(-0.5, 0.5), (canvas_size[0] - 1) / 2 + rng.uniform(-0.5, 0.5)
    frames = np.stack([look(canvas, pose, origin, height, width) for pose in poses])  # (3, 3, H, W)
    add_objects(rng, frames, poses, side, cut_out, config)
    frames = np.minimum(frames, np.float32(quantile(frames[1].max(0), 0.6) * 3e4))
    frames = veiling_glare(frames, log_uniform(rng, *config.veil))
    frames = blur(frames, rng.uniform(*config.lens_blur))
    frames = expose(rng, frames, ev, ratio, config)
    linear = np.clip(frames * np.exp2(ev)[:, None, None, None], 0, 1)
    iso, read_noise, correlated = log_uniform(rng, *config.iso), rng.uniform(*config.read_noise), rng.random() < config.correlated_noise
    ldr = sensor(rng, linear, iso, read_noise, int(rng.choice(config.sensor_bits)), int(rng.choice(config.output_bits)), correlated, config)
    return ldr, ev, np.clip(frames[1], 0, 1)


class SyntheticBrackets(torch.utils.data.Dataset):
    """Brackets as a pure function of (seed, index): the same in any process, any order, on any rank.

    size: side of the square images, or (height, width); length: what len() says, any index >= 0 works; hdr_dir: folder of .hdr
    images (its subfolders too) in place of the procedural world; config: SyntheticConfig().
    An item is {"ldr": (3, 3, H, W) gamma-coded in [0, 1], "ev": (3,) stops from 0, "hdr": (3, H, W) linear in [0, 1], in units of
    the shortest exposure}, float32 tensors.
    Raises: FileNotFoundError or ValueError if `hdr_dir` holds no .hdr image large enough; IndexError for an index below 0.
    """

    def __init__(self, size=128, seed=0, length=10000, hdr_dir=None, config=None):
        self.height, self.width = (size, size) if isinstance(size, int) else size
        if min(self.height, self.width) < 16:
            raise ValueError(f"SyntheticBrackets: size {size} is too small; use 16 pixels or more")
        self.seed, self.length, self.config = seed, length, SyntheticConfig() if config is None else config
        self.images = None if hdr_dir is None else find_images(hdr_dir, self.height, self.width, self.config)

    def __len__(self):
        return self.length

    def __iter__(self):
        return (self[index] for index in range(self.length))  # without this a for loop would never end: there is no last index

    def __getitem__(self, index):
        if index < 0:
            raise IndexError(f"SyntheticBrackets: index {index}; use 0 or more")
        rng = np.random.default_rng([self.seed, index])
        if self.images is None:
            ldr, ev, hdr = make_bracket(rng, self.height, self.width, self.config)
        else:
            background = functools.partial(photographed_world, images=self.images)
            cut_out = functools.partial(photographed_object, images=self.images)
            ldr, ev, hdr = make_bracket(rng, self.height, self.width, self.config, background, cut_out)
        return {"ldr": torch.from_numpy(ldr), "ev": torch.from_numpy(ev), "hdr": torch.from_numpy(hdr)}


# ---------------------------------------------------------------- a look at it


def contact_sheet(dataset, count):
    """Rows of a bracket's three frames, plain merge and truth (both after T), as 8-bit (H, W, 3)."""
    rows = []
    for index in range(count):
        item = dataset[index]
        merged = weighted_merge(item["ldr"][None], item["ev"][None])[0]
        rows.append(torch.cat([*item["ldr"], T(merged), T(item["hdr"])], -1).numpy())
    return np.uint8(np.concatenate(rows, -2).transpose(1, 2, 0) * 255 + 0.5)


def main():
    """Write a contact sheet."""
    parser = argparse.ArgumentParser(description="Write a contact sheet of synthetic brackets: three LDRs, a plain merge, T(truth).")
    parser.add_argument("--count", type=int, default=8, help="brackets, one a row")
    parser.add_argument("--size", type=int, default=256, help="side of the images, pixels")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set")
    parser.add_argument("--hdr-dir", default=None, help="folder of .hdr images in place of the procedural world")
    parser.add_argument("--out", type=Path, default=Path("synthetic.png"), help="PNG to write")
    args = parser.parse_args()
    dataset = SyntheticBrackets(args.size, args.seed, hdr_dir=args.hdr_dir)
    iio.imwrite(args.out, contact_sheet(dataset, args.count))
    print(f"{args.out}: {args.count} brackets; columns: short, reference, long exposure, plain merge, truth")


if __name__ == "__main__":
    common.run(main)
