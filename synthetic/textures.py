"""Shapes and procedural textures for the synthetic brackets: tiles with structure at all scales, and their sampling at any pitch.

Units: texels of a tile, pixels of the canvas where a comment says so. Arrays are numpy, (H, W) or (C, H, W), float32.
world.py makes scenes from them.
"""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as nnf

TILE = 512  # side of a texture tile, texels


def log_uniform(rng, low, high):
    """Draws a number whose logarithm is uniform between those of `low` and `high`."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def paint(labels, value, form, cx, cy, a, b, angle=0.0):
    """Draws one filled shape into `labels`, in place.

    value: label to draw; form: "ellipse", "box", "diamond" or "blob"; cx, cy: centre, a, b: half axes, all in label pixels; angle: radians.
    """
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


def fractal(rng, slope, stretch=1.0):
    """Makes a periodic random field whose amplitude falls as frequency^-slope. stretch: above 1 it makes grain. Returns: (TILE, TILE)."""
    fy = np.fft.fftfreq(TILE)[:, None] * TILE
    fx = np.fft.rfftfreq(TILE)[None, :] * TILE * stretch
    radius = np.maximum(np.hypot(fx, fy), 1.0)
    noise = rng.standard_normal((TILE, TILE // 2 + 1)) + 1j * rng.standard_normal((TILE, TILE // 2 + 1))
    return np.fft.irfft2(noise * radius**-slope, s=(TILE, TILE))


def cells(rng, count):
    """Makes cells around the jittered points of a periodic grid of count x count.

    Returns: distances to the nearest and to the second nearest point, and the number of the nearest, (TILE, TILE) each.
    """
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
    """Makes rows of rectangles, each of its own tone, with dark joints. gap: joint, in heights of a brick; offset: shift of every other row, in bricks."""
    y = np.arange(TILE)[:, None] * rows / TILE
    row = np.floor(y).astype(int)
    x = np.arange(TILE)[None, :] * columns / TILE + offset * (row % 2)
    column = np.floor(x).astype(int) % columns
    joint = (y % 1 < gap) | (x % 1 < gap * columns / rows)
    return np.where(joint, -2.0, rng.standard_normal((rows, columns))[row, column] * 0.6)


def text(rng, lines, letters):
    """Makes lines of random letters of 3x5 dots, dark on a bright page, with gaps between words and paragraphs. letters: per line."""
    dots = np.zeros((lines * 8, letters * 4))
    for line in range(lines):
        if rng.random() < 0.15:
            continue
        for letter in range(int(letters * rng.uniform(0.5, 1.0))):
            if rng.random() < 0.84:
                dots[line * 8 + 1 : line * 8 + 6, letter * 4 : letter * 4 + 3] = rng.random((5, 3)) < 0.6
    return -np.kron(dots, np.ones((TILE // dots.shape[0], TILE // dots.shape[1])))


def leaves(rng, count, radius):
    """Makes many small overlapping ellipses of random tone, periodic: foliage, gravel, crowds. count: ellipses; radius: of the smallest, texels."""
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
    """Makes all textures, once per process and always the same: periodic, with mean 0 and standard deviation 1.

    Returns: {name: list of three resolutions, finest first, each a (1, 1, n + 1, n + 1) tensor}.
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
    for name in ("gravel", "leather", "bricks", "tiles", "planks", "windows", "checks", "stripes", "wood"):  # man-made surfaces are rough too
        rough = fractal(rng, 1.0)
        tiles[name] = tiles[name] / np.std(tiles[name]) + 0.3 * rough / rough.std()
    return {name: pyramid(tile) for name, tile in tiles.items()}


def pyramid(tile):
    """Normalises a tile to mean 0 and deviation 1. Returns: three resolutions of it, the first row and column repeated at the end for wrapping."""
    tile = np.clip((tile - tile.mean()) / tile.std(), -3, 3)
    level, levels = torch.from_numpy(tile).float()[None, None], []
    for _ in range(3):
        levels.append(nnf.pad(level, (0, 1, 0, 1), mode="circular"))
        level = nnf.avg_pool2d(level, 2)
    return levels


def texture_field(rng, name, height, width, pitch, tilt=0.0, angle=0.0):
    """Lays a texture over a canvas.

    name: a key of texture_bank(); pitch: texels per pixel in the middle; tilt: change of the pitch towards top and bottom, as on a
    receding floor, in (-1, 1); angle: radians.
    Returns: (height, width) float32, of about mean 0 and deviation 1.
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
    out = nnf.grid_sample(texture_bank()[name][level], torch.from_numpy(np.float32(grid))[None], mode="bilinear", align_corners=True)
    return out[0, 0].numpy()
