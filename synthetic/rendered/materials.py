"""Materials of rendered scenes: colours, procedural pictures, pieces of photographs, lamps. Plain numpy.

Colours and pictures are linear albedos, RGB.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

TILE = 256  # side of a procedural picture, texels


@dataclass
class Material:
    """What a surface looks like: Mitsuba's principled BSDF with a picture, glass, or a lamp."""

    picture: np.ndarray  # (h, w, 3) albedo
    rough: float = 0.8  # roughness
    metallic: float = 0.0  # 1 for a metal
    specular: float = 0.3  # how strongly a non-metal reflects
    glow: np.ndarray | None = None  # (h, w, 3) radiance, if it shines by itself
    glass: bool = False  # clear glass; the picture is ignored


def color(rng, vivid=0.3):
    """Draws an albedo (3,), strongly coloured with probability `vivid`."""
    strong = rng.random() < vivid
    saturation = rng.uniform(0.65, 1.0) if strong else rng.uniform(0.0, 0.4)
    value = rng.uniform(0.45, 0.95) if strong else rng.uniform(0.15, 0.92)
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value)) ** 2.2


def fractal(rng, slope, stretch=1.0):
    """Makes a periodic random field of unit deviation whose amplitude falls as frequency^-slope. stretch: above 1 it makes grain. Returns: (TILE, TILE)."""
    fy, fx = np.fft.fftfreq(TILE)[:, None] * TILE, np.fft.rfftfreq(TILE)[None] * TILE * stretch
    waves = np.fft.rfft2(rng.standard_normal((TILE, TILE))) * np.maximum(np.hypot(fy, fx), 1) ** -slope
    waves[0, 0] = 0
    field = np.fft.irfft2(waves, s=(TILE, TILE))
    return field / field.std()


def pattern(rng, kind):
    """Draws a periodic pattern. kind: one of PATTERNS. Returns: (TILE, TILE) in [0, 1]."""
    y, x = np.mgrid[:TILE, :TILE] / TILE
    n = int(rng.integers(4, 17))
    if kind in ("cloud", "grain"):
        return 1 / (1 + np.exp(-1.5 * fractal(rng, 1.8 if kind == "cloud" else 0.9)))
    if kind == "wood":
        return 0.5 + 0.5 * np.sin(2 * np.pi * n * x + 2.5 * fractal(rng, 1.8, 4.0))
    if kind == "stripes":
        return (n * x % 1 < rng.uniform(0.2, 0.8)).astype(float)
    if kind == "checks":
        return (np.floor(2 * n * x) + np.floor(2 * n * y)) % 2
    if kind == "plaid":
        return 0.5 * (n * x % 1 < 0.4) + 0.5 * (n * y % 1 < 0.4)
    if kind == "dots":
        return (np.hypot(n * x % 1 - 0.5, n * y % 1 - 0.5) < 0.3).astype(float)
    if kind in ("bricks", "windows"):
        rows, columns = (2 * n, n) if kind == "bricks" else (n, n)
        row = np.floor(y * rows).astype(int)
        u, v = (x * columns + (0.5 * (row % 2) if kind == "bricks" else 0)) % columns, y * rows % 1
        tone = rng.uniform(0.4, 1.0, (rows, columns))[row, np.floor(u).astype(int) % columns]
        edge = 0.08 if kind == "bricks" else 0.3
        return np.where((u % 1 < edge) | (v < 1.6 * edge), 0.0, tone)
    if kind == "print":  # lines of letters
        ink = np.zeros((TILE // 4, TILE // 4))
        for line in range(0, len(ink) - 5, 8):
            ink[line:line + 5, : int(len(ink) * rng.uniform(0.5, 1))] = 1
        return np.kron(ink * (rng.random(ink.shape) < 0.55) * (rng.random(len(ink)) < 0.85), np.ones((4, 4)))
    points = rng.random((3 * n, 2))  # cells: each place has the tone of the nearest point
    apart = np.abs(np.stack([y, x], -1)[:, :, None] - points)
    nearest = (np.minimum(apart, 1 - apart) ** 2).sum(-1).argmin(-1)
    return rng.random(3 * n)[nearest]


PATTERNS = ("cloud", "grain", "wood", "stripes", "checks", "plaid", "dots", "bricks", "windows", "print", "cells")


def picture(rng, kind=None, vivid=0.3):
    """Draws a procedural picture: two or three colours laid out by a pattern, then roughened, because man-made surfaces are rough too.

    kind: one of PATTERNS, drawn if None; vivid: probability of each strong colour.
    Returns: (TILE, TILE, 3) float32.
    """
    amount = pattern(rng, kind or PATTERNS[rng.integers(len(PATTERNS))])[..., None]
    albedo = color(rng, vivid) * (1 - amount) + color(rng, vivid) * amount
    if rng.random() < 0.35:
        albedo = np.where((fractal(rng, 1.9) > rng.uniform(0.5, 1.5))[..., None], color(rng, vivid), albedo)
    rough = np.exp(rng.uniform(0.03, 0.22) * fractal(rng, rng.uniform(0.7, 1.4)))[..., None]
    return np.clip(albedo * rough, 0.01, 0.92).astype(np.float32)


def photograph(rng, images):
    """Cuts a piece out of one of the images, (H, W, 3) linear, and tone-maps it. Returns: (h, w, 3) float32 albedo."""
    image = images[rng.integers(len(images))]
    height = int(rng.integers(120, min(360, len(image)) + 1))
    width = min(int(height * rng.uniform(0.8, 1.5)), image.shape[1])
    top, left = rng.integers(len(image) - height + 1), rng.integers(image.shape[1] - width + 1)
    piece = image[top:top + height, left:left + width]
    bright = np.quantile(piece, rng.uniform(0.85, 0.98)) + 1e-6
    return (0.9 * np.clip(piece / bright, 0, 1) ** 0.8).astype(np.float32)


def material(rng, kind=None, vivid=0.3, images=None):
    """Draws a material: mostly matt, often glossy, sometimes metal. kind, vivid: as for picture(). images: show a piece of one of these instead."""
    image = picture(rng, kind, vivid) if images is None else photograph(rng, images)
    finish = rng.random()
    if finish < 0.55:
        return Material(image, rough=rng.uniform(0.6, 1.0), specular=0.2)
    if finish < 0.88:
        return Material(image, rough=rng.uniform(0.15, 0.5), specular=0.5)
    return Material(image, rough=rng.uniform(0.2, 0.5), metallic=1.0)


def light(rng, radiance, tint=0.4):
    """Makes a material that shines, white or warm, or in a strong colour with probability tint / 2. radiance: of its brightest channel."""
    shade = color(rng, 1.0) if rng.random() < tint / 2 else np.array([1.0, rng.uniform(0.6, 1.0), rng.uniform(0.3, 1.0)])
    glow = np.broadcast_to(np.float32(radiance * shade / shade.max()), (2, 2, 3))
    return Material(np.full((2, 2, 3), 0.5, np.float32), glow=np.ascontiguousarray(glow))
