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

TILE = 512  # side of a texture tile, texels
FIELDS = 4  # texture fields of one layer; a material mixes them
LABEL_SCALE = 2  # shapes are drawn this much finer than pixels, then averaged: smooth edges
CACHE_BYTES = 320e6  # decoded images of hdr_dir kept by one process
MAX_HALF_ANGLE = math.radians(60)  # of a perspective view into a panorama
# Columns of a material: log albedo (3), texture weights (4), shading g0 + gx x + gy y + gq (x² + y²), share of the scene's light, opacity
TEXTURE, SHADE, LIT, ALPHA, COLUMNS = 3, 7, 11, 12, 13


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


@dataclass
class View:
    """The window of the world that one canvas shows."""

    height: int  # of the canvas, pixels
    width: int  # of the canvas, pixels
    scale: float  # pixels per unit of the scene; the scene is 1 high and 1.5 wide, its centre is (0, 0)
    x: float  # centre of the window, scene units
    y: float  # centre of the window, scene units, downwards


def log_uniform(rng, low, high):
    """One draw whose logarithm is uniform between those of `low` and `high`."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


# ---------------------------------------------------------------- textures


def fractal(rng, slope, stretch=1.0):
    """A periodic random field whose amplitude falls as frequency^-slope; `stretch` > 1 makes grain along x. (TILE, TILE)"""
    fy = np.fft.fftfreq(TILE)[:, None] * TILE
    fx = np.fft.rfftfreq(TILE)[None, :] * TILE * stretch
    radius = np.maximum(np.hypot(fx, fy), 1.0)
    noise = rng.standard_normal((TILE, TILE // 2 + 1)) + 1j * rng.standard_normal((TILE, TILE // 2 + 1))
    return np.fft.irfft2(noise * radius**-slope, s=(TILE, TILE))


def cells(rng, count):
    """Distances to the nearest and second nearest of jittered points on a periodic grid of count², and the nearest one's number."""
    jitter = rng.uniform(0.1, 0.9, (count, count, 2))
    position = np.arange(TILE) * count / TILE
    y, x = position[:, None], position[None, :]
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    first, second, number = np.full((TILE, TILE), 9.0), np.full((TILE, TILE), 9.0), np.zeros((TILE, TILE), int)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            r, c = (row + dy) % count, (column + dx) % count
            distance = np.hypot(row + dy + jitter[r, c, 0] - y, column + dx + jitter[r, c, 1] - x)
            closer = distance < first
            second = np.minimum(second, np.where(closer, first, distance))
            number = np.where(closer, r * count + c, number)
            first = np.minimum(first, distance)
    return first, second, number


def bricks(rng, rows, columns, gap, offset):
    """Rows of rectangles with dark joints, each with its own tone. `gap` in tile heights of a brick, `offset` of every other row."""
    y = np.arange(TILE)[:, None] * rows / TILE
    row = np.floor(y).astype(int)
    x = np.arange(TILE)[None, :] * columns / TILE + offset * (row % 2)
    column = np.floor(x).astype(int) % columns
    joint = (y % 1 < gap) | (x % 1 < gap * columns / rows)
    return np.where(joint, -2.0, rng.standard_normal((rows, columns))[row, column] * 0.6)


def text(rng, lines, letters):
    """Lines of random letters (3x5 dots), words and paragraphs, dark on a bright page."""
    dots = np.zeros((lines * 8, letters * 4))
    for line in range(lines):
        if rng.random() < 0.15:
            continue
        for letter in range(int(letters * rng.uniform(0.5, 1.0))):
            if rng.random() < 0.84:
                dots[line * 8 + 1 : line * 8 + 6, letter * 4 : letter * 4 + 3] = rng.random((5, 3)) < 0.6
    return -np.kron(dots, np.ones((TILE // dots.shape[0], TILE // dots.shape[1])))


def leaves(rng, count, radius):
    """Many small overlapping ellipses of random tone: foliage, gravel, crowds. Periodic."""
    tile = np.zeros((2 * TILE, 2 * TILE), np.float32)
    for _ in range(count):
        cy, cx = rng.uniform(0, TILE, 2)
        size = radius * rng.pareto(2.5) + radius
        a, b, angle, tone = min(size, TILE / 6), min(size, TILE / 6) * rng.uniform(0.3, 1.0), rng.uniform(0, math.pi), rng.standard_normal()
        for oy in (0, TILE):
            for ox in (0, TILE):
                paint(tile, tone, "ellipse", cx + ox, cy + oy, a, b, angle)
    half = TILE // 2  # the copies overlap around the middle: cut the period where all four have been painted
    return tile[half : half + TILE, half : half + TILE]


@functools.lru_cache(maxsize=1)
def texture_bank():
    """Periodic textures of unit deviation, made once per process and always the same.

    Returns: {name: [(1, 1, n + 1, n + 1) tensor of each of three resolutions, the finest first]}.
    """
    rng = np.random.default_rng(20240849)
    wave = np.arange(TILE) * 2 * math.pi / TILE
    near, next_near, number = cells(rng, 24)
    stones = rng.standard_normal(24 * 24)[number]
    ridge = np.abs(fractal(rng, 1.6))
    tiles = {
        "clouds": fractal(rng, 1.9),
        "plaster": fractal(rng, 1.3),
        "stone": fractal(rng, 1.0),
        "sand": fractal(rng, 0.5),
        "marble": -(np.sqrt(ridge / ridge.mean())),
        "wood": np.sin(14 * wave[:, None] + 6 * fractal(rng, 1.8, 5.0) / fractal(rng, 1.8).std()) + 6e2 * fractal(rng, 1.0, 8.0),
        "grass": fractal(rng, 0.8, 0.25),
        "gravel": stones * 0.6 - np.exp(-((next_near - near) * 9)) * 2,
        "leather": np.minimum(next_near - near, 0.35),
        "leaves": leaves(rng, 2500, 5.0),
        "foliage": leaves(rng, 5000, 2.5) + 4e2 * fractal(rng, 1.5),
        "bricks": bricks(rng, 32, 12, 0.12, 0.5),
        "tiles": bricks(rng, 12, 12, 0.06, 0.0),
        "planks": bricks(rng, 14, 2, 0.08, 0.4),
        "windows": -((np.sin(wave * 12)[:, None] > -0.2) & (np.sin(wave * 10)[None, :] > 0.1)).astype(float),
        "checks": np.sign(np.sin(wave * 8)[:, None] * np.sin(wave * 8)[None, :]),
        "stripes": np.sign(np.sin(wave * 16))[:, None] + np.zeros((1, TILE)),
        "weave": np.sin(wave * 48)[:, None] * np.sin(wave * 48)[None, :] + 0.5 * np.sin(wave * 6)[:, None],
        "text": text(rng, 16, 32),
        "print": text(rng, 8, 16),
    }
    for name in ("gravel", "leather", "bricks", "tiles", "planks", "windows", "checks", "stripes", "wood"):  # made things are rough too
        rough = fractal(rng, 1.0)
        tiles[name] = tiles[name] / np.std(tiles[name]) + 0.3 * rough / rough.std()
    return {name: pyramid(tile) for name, tile in tiles.items()}


def pyramid(tile):
    """A tile at three resolutions, normalised to mean 0 and deviation 1, with the first row and column repeated at the end for wrapping."""
    tile = np.clip((tile - tile.mean()) / tile.std(), -3, 3)
    level, levels = torch.from_numpy(tile).float()[None, None], []
    for _ in range(3):
        levels.append(torch.cat([torch.cat([level, level[..., :1]], -1), torch.cat([level[..., :1, :], level[..., :1, :1]], -1)], -2))
        level = F.avg_pool2d(level, 2)
    return levels


def texture_field(rng, name, height, width, pitch, tilt=0.0, angle=0.0):
    """A texture laid over a canvas.

    pitch: texels per pixel in the middle; tilt: change of the pitch towards top and bottom, as on a receding floor, in (-1, 1);
    angle: radians.
    Returns: (height, width) float32, about mean 0 and deviation 1.
    """
    y = (np.arange(height, dtype=np.float32) - height / 2)[:, None]
    x = (np.arange(width, dtype=np.float32) - width / 2)[None, :]
    scale = pitch / TILE
    if tilt:
        depth = scale / (1 + tilt * y / (height / 2))
        x, y = x * depth, y * depth
    else:
        x, y = x * scale, y * scale
    c, s = math.cos(angle), math.sin(angle)
    u = c * x - s * y + rng.random()
    v = s * x + c * y + rng.random()
    grid = np.stack([u - np.floor(u), v - np.floor(v)], -1) * 2 - 1
    level = min(max(int(math.log2(max(pitch / (1 - abs(tilt)), 1e-3)) + 0.5), 0), 2)
    out = F.grid_sample(texture_bank()[name][level], torch.from_numpy(np.float32(grid))[None], mode="bilinear", align_corners=True)
    return out[0, 0].numpy()


# ---------------------------------------------------------------- shapes and materials


def paint(labels, value, form, cx, cy, a, b, angle=0.0):
    """Draw one filled shape into `labels`, in place. Centre (cx, cy) and half axes a, b in label pixels, angle in radians."""
    reach_x = abs(a * math.cos(angle)) + abs(b * math.sin(angle)) if form != "blob" else 1.4 * max(a, b)
    reach_y = abs(a * math.sin(angle)) + abs(b * math.cos(angle)) if form != "blob" else 1.4 * max(a, b)
    y0, y1 = max(math.floor(cy - reach_y), 0), min(math.ceil(cy + reach_y) + 1, labels.shape[0])
    x0, x1 = max(math.floor(cx - reach_x), 0), min(math.ceil(cx + reach_x) + 1, labels.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    if form == "box" and angle == 0:
        labels[y0:y1, x0:x1] = value
        return
    y = (np.arange(y0, y1, dtype=np.float32) - cy)[:, None]
    x = (np.arange(x0, x1, dtype=np.float32) - cx)[None, :]
    c, s = math.cos(angle), math.sin(angle)
    u, v = (x * (c / a) + y * (s / a)), (y * (c / b) - x * (s / b))
    if form == "ellipse":
        inside = u * u + v * v <= 1
    elif form == "box":
        inside = np.maximum(np.abs(u), np.abs(v)) <= 1
    elif form == "diamond":
        inside = np.abs(u) + np.abs(v) <= 1
    else:  # blob: the radius swings with the direction
        t = np.arctan2(v, u)
        inside = u * u + v * v <= (1 + 0.2 * np.sin(3 * t + cx) + 0.12 * np.sin(5 * t + cy)) ** 2
    np.copyto(labels[y0:y1, x0:x1], value, where=inside, casting="unsafe")


def colour(rng, vivid=0.08, brightness=None):
    """Log albedo, (3,): mostly weak colours, blue to orange rather than green to purple; now and then a vivid one."""
    value = log_uniform(rng, 0.04, 0.9) if brightness is None else brightness
    strength = rng.uniform(0.7, 1.5) if rng.random() < vivid else 0.27 * abs(rng.standard_normal())
    warm, green = rng.standard_normal() + 0.3, 0.5 * rng.standard_normal()
    hue = np.array([0.6 * warm - 0.35 * green, 0.7 * green, -0.6 * warm - 0.35 * green])
    return math.log(value) + strength * hue / max(np.abs(hue).max(), 0.2)


def material(rng, table, vivid=0.08, brightness=None, gain=0.0, lit=1.0, texture=None, contrast=None,
             centre=(0.0, 0.0), size=1.0, bulge=0.0):
    """Append a material to `table`.

    vivid, brightness: see colour(); gain: extra log radiance (lamps, the world behind a window); lit: share of the scene's light and
    shadow it takes; texture: number of the field, drawn if None; contrast: of the texture, log units, drawn if None; centre, size:
    where the shading is centred and over which length it changes, canvas units (-1 to 1); bulge: log units it is darker at `size`.
    Returns: its number, the label to paint it with.
    """
    row = np.zeros(COLUMNS, np.float32)
    row[:3] = colour(rng, vivid, brightness) + gain
    field = int(rng.integers(FIELDS)) if texture is None else texture
    row[TEXTURE + field] = (0.02 if rng.random() < 0.2 else log_uniform(rng, 0.06, 0.8)) if contrast is None else contrast
    if rng.random() < 0.6:
        row[TEXTURE + int(rng.integers(FIELDS))] += log_uniform(rng, 0.02, 0.25)
    gx, gy = rng.standard_normal(2) * log_uniform(rng, 0.02, 0.5) / size
    gq = -bulge / size**2
    cx, cy = centre  # g·(x - c) + gq |x - c|², multiplied out
    row[SHADE : SHADE + 4] = (gq * (cx * cx + cy * cy) - gx * cx - gy * cy, gx - 2 * gq * cx, gy - 2 * gq * cy, gq)
    row[LIT], row[ALPHA] = lit, 1.0
    table.append(row)
    return len(table) - 1


def shade(labels, table, fields, log_light):
    """Turn labels into log radiance.

    labels (2h, 2w) numbers of materials; table (M, COLUMNS); fields (FIELDS, h, w) textures; log_light (3, h, w) or None.
    Returns: log radiance (3, h, w), opacity (h, w).
    """
    height, width = labels.shape[0] // 2, labels.shape[1] // 2
    rows = np.asarray(table, np.float32)[labels.reshape(height, 2, width, 2)]  # (h, 2, w, 2, COLUMNS)
    rows = np.moveaxis((rows[:, 0, :, 0] + rows[:, 0, :, 1] + rows[:, 1, :, 0] + rows[:, 1, :, 1]) * 0.25, -1, 0)  # (COLUMNS, h, w)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    detail = np.clip(rows[SHADE] + rows[SHADE + 1] * x + rows[SHADE + 2] * y + rows[SHADE + 3] * (x * x + y * y), -3, 2)
    for k in range(FIELDS):
        detail += rows[TEXTURE + k] * fields[k]
    radiance = rows[:3] + detail
    if log_light is not None:
        radiance += rows[LIT] * log_light
    return radiance, rows[ALPHA]


# ---------------------------------------------------------------- the world


def draw_view(rng, height, width, side, config):
    """Choose how large the scene is and which part of it the canvas shows; `side` is the shorter side of the image."""
    low = config.scene_height[0] * side
    scale = log_uniform(rng, low, max(config.scene_height[1], 1.5 * low))
    free_x, free_y = max(0.75 - 0.5 * width / scale, 0.05), max(0.5 - 0.5 * height / scale, 0.05)
    return View(height, width, scale, rng.uniform(-free_x, free_x), rng.uniform(-free_y, free_y))


def place(labels, view, value, form, x, y, a, b, angle=0.0):
    """Paint a shape given in scene units."""
    s = LABEL_SCALE * view.scale
    cx, cy = (x - view.x) * s + labels.shape[1] / 2, (y - view.y) * s + labels.shape[0] / 2
    paint(labels, value, form, cx, cy, max(a * s, 0.6), max(b * s, 0.6), angle)


def centre_of(view, x, y):
    """Scene units to the canvas units of shading, where the canvas spans -1 to 1."""
    return (x - view.x) * 2 * view.scale / view.width, (y - view.y) * 2 * view.scale / view.height


def landscape(rng, labels, view, table):
    """Sky, sun, hills or houses, ground, poles."""
    horizon, sky = rng.uniform(-0.25, 0.3), log_uniform(rng, 2, 20)
    labels[:] = material(rng, table, 0.2, 0.5, gain=math.log(sky), lit=0.1, texture=0, contrast=rng.choice([0.02, 0.2, 0.5]))
    if rng.random() < 0.3:
        sun = material(rng, table, 0, 0.9, gain=math.log(sky * log_uniform(rng, 5, 100)), lit=0.0, contrast=0.0)
        place(labels, view, sun, "ellipse", rng.uniform(-0.7, 0.7), horizon - rng.uniform(0.05, 0.4), 0.02, 0.02)
    columns = (np.arange(labels.shape[1]) / labels.shape[1] - 0.5) * view.width / view.scale + view.x
    rows = ((np.arange(labels.shape[0]) / labels.shape[0] - 0.5) * view.height / view.scale + view.y)[:, None]
    for depth in range(int(rng.integers(0, 3))):
        f, p = rng.uniform(1, 6, 5) * 2.0 ** np.arange(5), rng.uniform(0, 7, 5)
        profile = (0.06 * 2.0 ** -np.arange(5) * np.sin(columns[:, None] * f + p)).sum(1) + horizon - 0.1 + 0.07 * depth
        labels[rows > profile] = material(rng, table, 0.1, log_uniform(rng, 0.05, 0.4), lit=0.8)
    x = -0.8
    while rng.random() < 0.93 and x < 0.8:  # houses
        w, h = rng.uniform(0.03, 0.12), rng.uniform(0.05, 0.35)
        wall = material(rng, table, 0.1, lit=1.0, texture=1 if rng.random() < 0.6 else None, centre=centre_of(view, x, horizon), size=2.0)
        place(labels, view, wall, "box", x + w, horizon - h / 2, w, h / 2 + 0.02)
        x += 2 * w + (rng.uniform(0, 0.3) if rng.random() < 0.4 else 0)
    labels[np.broadcast_to(rows > horizon, labels.shape)] = material(rng, table, 0.1, log_uniform(rng, 0.06, 0.4), texture=2)
    for _ in range(int(rng.integers(0, 5))):  # trees, poles
        x, h = rng.uniform(-0.75, 0.75), rng.uniform(0.1, 0.5)
        place(labels, view, material(rng, table, brightness=0.06), "box", x, horizon + 0.05 - h / 2, rng.uniform(0.002, 0.015), h / 2)
        if rng.random() < 0.6:
            crown = material(rng, table, 0.3, log_uniform(rng, 0.03, 0.2), texture=3, contrast=0.5)
            place(labels, view, crown, "blob", x, horizon + 0.05 - h, h * 0.35, h * 0.4)


def window(rng, labels, view, table, x, y, w, h, gain):
    """A frame, the bright outside, bars."""
    frame = material(rng, table, 0.0, log_uniform(rng, 0.1, 0.8), contrast=0.05)
    outside = material(rng, table, 0.1, 0.5, gain=gain, lit=0.0, texture=0, centre=centre_of(view, x, y), size=1.0)
    place(labels, view, frame, "box", x, y, w * 1.08 + 0.005, h * 1.05 + 0.005)
    place(labels, view, outside, "box", x, y, w, h)
    if rng.random() < 0.6:  # what stands outside: trees, houses
        tree = material(rng, table, 0.2, 0.15, gain=gain, lit=0.0, texture=3, contrast=0.4)
        top = rng.uniform(0.1, 0.9)
        place(labels, view, tree, "box", x, y + h * (1 - top), w, h * top)
    for bar in np.linspace(-1, 1, int(rng.integers(2, 6)))[1:-1]:
        place(labels, view, frame, "box", x + bar * w, y, 0.012 * w + 0.002, h)
    if rng.random() < 0.5:
        place(labels, view, frame, "box", x, y + rng.uniform(-0.5, 0.5) * h, w, 0.003)


def room(rng, labels, view, table):
    """Back wall, side walls, floor, ceiling, windows or doors, pictures, shelves, furniture."""
    labels[:] = material(rng, table, 0.05, log_uniform(rng, 0.1, 0.8))
    left, right, top, bottom = rng.uniform(-0.7, -0.3), rng.uniform(0.3, 0.7), rng.uniform(-0.48, -0.2), rng.uniform(0.1, 0.45)
    s = LABEL_SCALE * view.scale
    x = ((np.arange(labels.shape[1], dtype=np.float32) - labels.shape[1] / 2) / s + view.x)[None, :]
    y = ((np.arange(labels.shape[0], dtype=np.float32) - labels.shape[0] / 2) / s + view.y)[:, None]
    spread = rng.uniform(0.6, 1.6)  # how fast the side walls open towards the camera
    for side in (left - x, x - right):
        wall = material(rng, table, 0.05, log_uniform(rng, 0.1, 0.8))
        labels[(side > 0) & (side * spread > top - y) & (side * spread > y - bottom)] = wall
    for gap, texture in ((top - y, None), (y - bottom, 2)):
        labels[(gap > 0) & (gap > (left - x) * spread) & (gap > (x - right) * spread)] = material(rng, table, 0.05, texture=texture)
    gain = math.log(log_uniform(rng, 5, 60))
    for _ in range(int(rng.integers(1, 4))):
        w, h = rng.uniform(0.04, 0.18), rng.uniform(0.08, 0.25)
        window(rng, labels, view, table, rng.uniform(left, right), rng.uniform(top, bottom) * 0.5, w, h, gain)
    for _ in range(int(rng.integers(2, 8))):  # pictures, cupboards, boards
        cx, cy, w, h = rng.uniform(-0.7, 0.7), rng.uniform(-0.3, 0.45), log_uniform(rng, 0.02, 0.15), log_uniform(rng, 0.02, 0.15)
        if rng.random() < 0.5:
            frame = material(rng, table, brightness=log_uniform(rng, 0.03, 0.6), contrast=0.02)
            place(labels, view, frame, "box", cx, cy, w * 1.1, h * 1.1)
        place(labels, view, material(rng, table, 0.25, centre=centre_of(view, cx, cy)), "box", cx, cy, w, h)


def facade(rng, labels, view, table):
    """A wall with a grid of windows, some lit or mirroring the sky, cornices, signs."""
    labels[:] = material(rng, table, 0.1, log_uniform(rng, 0.1, 0.7), texture=1)
    across, up = rng.uniform(0.08, 0.3), rng.uniform(0.12, 0.35)
    w, h, gain = across * rng.uniform(0.2, 0.4), up * rng.uniform(0.2, 0.4), math.log(log_uniform(rng, 3, 40))
    dark = material(rng, table, 0.0, 0.03, contrast=0.3, texture=0)
    for y in np.arange(-0.5, 0.5 + up, up):
        place(labels, view, material(rng, table, 0.05), "box", 0, y + up / 2, 1, rng.uniform(0.002, 0.02))
        for x in np.arange(-0.75, 0.75 + across, across):
            if rng.random() < 0.35:
                window(rng, labels, view, table, x, y, w, h, gain)
            else:
                place(labels, view, dark, "box", x, y, w, h)
    for _ in range(int(rng.integers(0, 5))):
        sign = material(rng, table, 0.5, texture=3, gain=rng.choice([0.0, 2.0]))
        place(labels, view, sign, "box", rng.uniform(-0.7, 0.7), rng.uniform(-0.4, 0.4), rng.uniform(0.03, 0.12), rng.uniform(0.01, 0.05))


def clutter(rng, labels, view, table, count, smallest):
    """Overlapping shapes of all sizes, few large and many small ones: an image without a preferred scale ("dead leaves").

    count: shapes; smallest: radius, pixels. Densities fall as radius^-2.5.
    """
    height, width = labels.shape
    largest = 0.35 * LABEL_SCALE * min(view.scale, 2.0 * max(view.height, view.width))
    smallest = min(smallest * LABEL_SCALE, 0.3 * largest)
    radii = (smallest**-1.5 - rng.random(count) * (smallest**-1.5 - largest**-1.5)) ** (-1 / 1.5)
    crowd = rng.uniform(0, 1, 2) * (width, height) if rng.random() < 0.6 else None  # things gather: on a table, at a corner
    for r in np.sort(radii)[::-1]:
        if crowd is None or rng.random() < 0.2:
            cx, cy = rng.uniform(-r, width + r), rng.uniform(-r, height + r)
        else:
            cx, cy = crowd + rng.standard_normal(2) * (0.25 * width, 0.1 * height)
        a, b = r, r * rng.uniform(0.3, 1.0)
        form, angle = rng.choice(["ellipse", "box", "diamond", "blob", "box", "box"]), rng.choice([0.0, rng.uniform(0, math.pi)])
        if r > 0.03 * height or rng.random() < 0.5:
            where = (2 * cx / width - 1, 2 * cy / height - 1)
            bulge = rng.uniform(0.3, 1.5) if form == "ellipse" and rng.random() < 0.5 else 0.0
            value = material(rng, table, 0.12, centre=where, size=max(2 * r / width, 0.1), bulge=bulge)
        else:
            value = int(rng.integers(len(table)))  # small things share materials
        if rng.random() < 0.15:  # thin: wires, twigs, edges of things
            a, b = 3 * r, LABEL_SCALE * rng.uniform(0.4, 1.5)
        paint(labels, value, form, cx, cy, a, b, angle)


def lighting(rng, view, lamps):
    """Log of the light on the scene, (3, h, w): a warm or cool key light with gradients and shadows, dim ambient light, lamps.

    lamps: list of (cx, cy, reach, power, tint) in pixels of the canvas; the light falls to half at `reach`.
    """
    h, w = view.height, view.width
    ambient = np.exp(0.25 * rng.standard_normal() * np.array([-1, 0, 1])) * log_uniform(rng, 0.03, 0.5)
    key = np.exp(0.3 * rng.standard_normal() * np.array([1, 0.1, -1]))
    strength = texture_field(rng, "clouds", h, w, TILE / (3 * view.scale)) * rng.uniform(0.1, 0.9)
    if rng.random() < 0.6:  # the edge of a shadow, straight or ragged, hard or soft
        name, period, angle = str(rng.choice(["clouds", "plaster", "stripes", "leaves"])), rng.uniform(0.5, 3), rng.uniform(0, 6)
        edge = texture_field(rng, name, h, w, TILE / (period * view.scale), angle=angle)
        depth, level, softness = rng.uniform(0.5, 3.0), rng.uniform(-0.7, 0.7), log_uniform(rng, 0.02, 1.0)
        strength = strength - depth / (1 + np.exp(np.clip((edge - level) / softness, -30, 30)))
    light = np.exp(strength)[None] * np.float32(key)[:, None, None] + np.float32(ambient)[:, None, None]
    y, x = np.arange(h, dtype=np.float32)[:, None], np.arange(w, dtype=np.float32)[None, :]
    for cx, cy, r, power, tint in lamps:
        light += np.float32(tint)[:, None, None] * (power / (1 + ((x - cx) ** 2 + (y - cy) ** 2) / (r * r)))
    return np.log(light)


def texture_names(rng):
    """The textures of a layer's four fields: clouds and smooth ones, walls, grounds, fine detail."""
    return (
        str(rng.choice(["clouds", "plaster", "marble", "clouds"])),
        str(rng.choice(["bricks", "windows", "plaster", "planks", "stone", "tiles", "text", "stripes"])),
        str(rng.choice(["sand", "gravel", "tiles", "wood", "grass", "checks", "leather", "stone"])),
        str(rng.choice(["foliage", "leaves", "weave", "print", "text", "stone", "stripes", "grass"])),
    )


def draw_fields(rng, height, width, scale):
    """The texture fields of a layer, (FIELDS, h, w). scale: pixels per scene height; the smaller, the finer the textures."""
    fields = np.empty((FIELDS, height, width), np.float32)
    for k, name in enumerate(texture_names(rng)):
        pitch = min(log_uniform(rng, 0.7, 3.5) * (700 / scale) ** 0.4, 5.0)
        tilt = rng.uniform(-0.5, 0.5) if k == 2 else 0.0
        angle = float(rng.choice([0.0, math.pi / 2, 0.1 * rng.standard_normal(), rng.uniform(0, 6)]))
        fields[k] = texture_field(rng, name, height, width, pitch, tilt, angle)
    return fields


def world(rng, view):
    """Everything that does not move: log radiance (3, h, w) of the canvas."""
    labels = np.zeros((LABEL_SCALE * view.height, LABEL_SCALE * view.width), np.int16)
    table = []
    kind = rng.choice(["landscape", "room", "facade", "clutter", "plain"], p=[0.22, 0.3, 0.18, 0.2, 0.1])
    if kind == "landscape":
        landscape(rng, labels, view, table)
    elif kind == "room":
        room(rng, labels, view, table)
    elif kind == "facade":
        facade(rng, labels, view, table)
    else:
        material(rng, table)
    area = view.height * view.width / 160**2
    many = {"clutter": rng.integers(25, 60), "plain": 0}.get(str(kind), rng.integers(0, 10))
    clutter(rng, labels, view, table, int(many * min(area, 4) ** 0.7), log_uniform(rng, 1.0, 12.0))
    lamps = []
    for _ in range(int(rng.poisson(0.5 if kind != "landscape" else 0.15))):
        r = log_uniform(rng, 0.004, 0.04) * max(view.scale, 300)
        cx, cy = rng.uniform(0, view.width), rng.uniform(0, view.height)
        tint = np.exp(0.25 * (rng.standard_normal() + 1) * np.array([1, 0, -1]))
        bulb = material(rng, table, 0.0, 0.9, gain=math.log(log_uniform(rng, 20, 1000)), lit=0.0, contrast=0.0)
        table[bulb][:3] += np.float32(np.log(tint))
        form, flat, angle = rng.choice(["ellipse", "box"]), rng.uniform(0.2, 1), rng.choice([0.0, rng.uniform(0, 3)])
        paint(labels, bulb, form, LABEL_SCALE * cx, LABEL_SCALE * cy, LABEL_SCALE * r, LABEL_SCALE * r * flat, angle)
        lamps.append((cx, cy, r * rng.uniform(2, 8), log_uniform(rng, 0.5, 20), tint))
    log_light = lighting(rng, view, lamps)
    radiance, _ = shade(labels, table, draw_fields(rng, view.height, view.width, view.scale), log_light)
    if rng.random() < 0.4:
        radiance = np.exp(radiance)
        for _ in range(int(rng.integers(1, 4) * max(1.0, area**0.5 / 2))):  # people and things that stand still
            size = min(log_uniform(rng, 0.04, 0.4) * min(view.height, view.width), 120.0)
            cx, cy = rng.uniform(0, view.width), rng.uniform(0, view.height)
            log_object, alpha = draw_object(rng, size)
            log_object = log_object + log_light[:, min(int(cy), view.height - 1), min(int(cx), view.width - 1)][:, None, None]
            stamp(radiance, np.exp(log_object), alpha, [(cx, cy, rng.uniform(-0.2, 0.2), 0.0, 0.0)])
        radiance = np.log(radiance)
    return radiance * np.float32(rng.uniform(0.9, 1.5))  # contrast of the whole scene


# ---------------------------------------------------------------- moving objects


def draw_person(rng, labels, table, r):
    """Head, trunk, arms and legs at random angles; cx = cy = middle of the sprite; r: half height, label pixels."""
    middle = labels.shape[0] / 2
    skin = material(rng, table, 0, log_uniform(rng, 0.08, 0.6), contrast=0.03)
    table[skin][:3] += np.float32([0.25, 0, -0.25])
    shirt, trousers = material(rng, table, 0.3, bulge=0.5), material(rng, table, 0.1)
    for side in (-1, 1):
        swing = side * rng.uniform(0.0, 0.5)
        paint(labels, trousers, "ellipse", middle + math.sin(swing) * 0.3 * r, middle + 0.6 * r, 0.11 * r, 0.42 * r, -swing)
        swing = side * rng.uniform(0.1, 1.3)
        elbow = middle + side * 0.2 * r + math.sin(swing) * 0.2 * r
        paint(labels, rng.choice([skin, shirt]), "ellipse", elbow, middle - 0.2 * r, 0.07 * r, 0.33 * r, -swing)
    paint(labels, shirt, "ellipse", middle, middle - 0.1 * r, 0.25 * r, 0.45 * r)
    paint(labels, skin, "ellipse", middle, middle - 0.7 * r, 0.14 * r, 0.18 * r)
    if rng.random() < 0.7:
        paint(labels, material(rng, table, 0, 0.05), "ellipse", middle, middle - 0.8 * r, 0.15 * r, 0.1 * r)


def draw_thing(rng, labels, table, r):
    """One to four parts: a ball, a box, a board, a stick, a car-like heap."""
    middle = labels.shape[0] / 2
    for part in range(int(rng.choice([1, 1, 2, 4]))):
        a = r * (rng.uniform(0.6, 0.95) if part == 0 else rng.uniform(0.15, 0.6))
        b = a * float(rng.choice([rng.uniform(0.3, 1.0), 0.9, 0.12]))
        form = str(rng.choice(["ellipse", "box", "blob", "diamond"]))
        shift = 0.0 if part == 0 else 0.4 * r
        value = material(rng, table, 0.3, bulge=rng.uniform(0, 2) if form == "ellipse" else 0.0)
        cx, cy = middle + rng.uniform(-shift, shift, 2)
        paint(labels, value, form, cx, cy, 0.9 * a, 0.9 * b, rng.uniform(0, 3.2))


def draw_object(rng, radius):
    """A cut-out: log radiance (3, n, n), with mid-grey in full light near -1.5, and opacity (n, n)."""
    n = 2 * math.ceil(radius) + 6
    labels = np.zeros((LABEL_SCALE * n, LABEL_SCALE * n), np.int16)
    table = []
    material(rng, table)
    table[0][ALPHA] = 0.0
    draw = draw_person if rng.random() < 0.4 else draw_thing
    draw(rng, labels, table, LABEL_SCALE * radius)
    table[0][:ALPHA] = table[1][:ALPHA]  # what shows through at the soft edge
    return shade(labels, table, draw_fields(rng, n, n, 6 * radius), None)


def stamp(frame, radiance, alpha, poses):
    """Composite a cut-out over a frame, in place.

    frame (3, H, W) linear; radiance (3, n, n) linear; alpha (n, n) opacity; poses: list of (cx, cy, angle, bend, phase), of which the
    mean is shown (several of them: motion blur).
    """
    n = alpha.shape[0]
    x0 = max(math.floor(min(p[0] for p in poses) - 0.72 * n), 0)
    x1 = min(math.ceil(max(p[0] for p in poses) + 0.72 * n), frame.shape[2])
    y0 = max(math.floor(min(p[1] for p in poses) - 0.72 * n), 0)
    y1 = min(math.ceil(max(p[1] for p in poses) + 0.72 * n), frame.shape[1])
    if x0 >= x1 or y0 >= y1:
        return
    sprite = torch.from_numpy(np.concatenate([radiance * alpha, alpha[None]]))[None]
    layer = np.zeros((4, y1 - y0, x1 - x0), np.float32)
    for cx, cy, angle, bend, phase in poses:
        y = (np.arange(y0, y1, dtype=np.float32) - cy)[:, None] * (2 / n)
        x = (np.arange(x0, x1, dtype=np.float32) - cx)[None, :] * (2 / n)
        c, s = math.cos(angle), math.sin(angle)
        u, v = c * x + s * y, c * y - s * x
        grid = np.stack([u + bend * np.sin(3 * v + phase), v + bend * np.cos(3 * u + phase)], -1).astype(np.float32)
        layer += F.grid_sample(sprite, torch.from_numpy(grid)[None], mode="bilinear", align_corners=False)[0].numpy() / len(poses)
    region = frame[:, y0:y1, x0:x1]
    region *= 1 - layer[3]
    region += layer[:3]


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
