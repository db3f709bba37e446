"""Renders the example scene examples/cafe: a hand-held bracket of a corner café, in the layout of Kalantari's data set.

A waiter carries a tray past a window into a sunny street, a guest waves to him, a cat crosses the floor; lamps burn over
the counter and the corners are dark. Every shape, texture and figure is made here from a seed: the script reads no file.

    pip install mitsuba scipy scikit-image pyoidn
    python render_cafe.py                      # the shipped files; see README.md for the minutes it takes
    python render_cafe.py --spp 32 --out /path # a preview

Written into --out: 1.tif 2.tif 3.tif (16-bit RGB, gamma 2.2, rising exposure), exposure.txt (three EV, one per line) and
HDRImg.hdr (linear radiance of frame 2, in [0, 1], in units of the shortest exposure).

How a frame is made:       H^(i)  scene and camera at the time of frame i, path-traced and denoised
                           e    = min(H^(i) 2^EV_i, 1) full_well              electrons
                           DN   = round((Poisson(e) + N(0, read²)) / gain)    12 bits, linear
                           L_i  = (DN / 4095)^(1/2.2)                         10 bits, in 16-bit files
The truth is H^(2), the very render that frame 2 was made from.

The variant llvm_ad_rgb needs LLVM's shared library, 16 or newer; set DRJIT_LIBLLVM_PATH if it is not found.
--variant scalar_rgb works everywhere and is many times slower.

Axes: x to the right, y into the picture, z up, metres. Angles in degrees. Colours are given as sRGB in [0, 1].
A mesh is a tuple (V, F, UV, N, C): vertices, faces, texture coordinates, normals, vertex colours; None where absent.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import drjit as dr
import mitsuba as mi
import numpy as np
import pyoidn
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage import measure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from brackets.files import write_image
from brackets.marks import TRUTH
from brackets.ownership import check_bracket_folder, check_writable
from common import Count, Seed, Whole, parse, run, write_atomically

WIDTH, HEIGHT = 750, 500  # pixels
EV = (0.0, 3.0, 6.0)  # stops
FOV = 58.0  # horizontal field of view, degrees: 676 px focal length
FULL_WELL = 16000.0  # electrons at saturation
READ_NOISE = 5.0  # electrons
SENSOR_LEVELS = 4095  # 12-bit converter
FILE_STEP = 64  # step of the 16-bit numbers after the gamma curve: finer than the noise everywhere, and it keeps the files small
PIECE = 4  # paths per pixel traced at once: a whole piece is in memory at a time
EXPOSURE = 1.25  # the shortest frame clips at a scene radiance of 1 / EXPOSURE
TO_SUN = np.array([0.30, 0.70, 0.65]) / np.linalg.norm([0.30, 0.70, 0.65])  # direction to the sun
WINDOW = (-2.1, 0.9, 0.78, 2.68)  # x0, x1, z0, z1 of the opening in the back wall at y = BACK
UPRIGHT = np.eye(3)  # no rotation
BACK = 3.0  # y of the back wall's face
BACKDROP = (-8.0, 8.0, -0.3, 5.2, 9.0)  # x0, x1, z0, z1, y of the picture of the street behind the window


@dataclass
class Shot:
    """What differs between the three frames."""

    eye: tuple[float, float, float]  # camera position, m
    look: tuple[float, float]  # x and z of the point at y = 3 m that the camera looks at
    roll: float  # camera roll, degrees
    waiter_x: float  # waiter's place along the window, m
    gait: float  # phase of his walk, degrees
    wave: float  # angle of the guest's forearm, degrees
    cat: tuple[float, float]  # the cat's place on the floor, m
    cat_gait: float  # phase of its walk, degrees


SHOTS = (
    Shot((0.185, -3.19, 1.485), (-0.08, 1.26), -0.45, -1.02, 20.0, 62.0, (0.78, 0.70), 10.0),
    Shot((0.200, -3.20, 1.500), (-0.02, 1.30), 0.0, -0.60, 75.0, 98.0, (0.52, 0.74), 120.0),
    Shot((0.222, -3.185, 1.508), (0.05, 1.32), 0.35, -0.16, 130.0, 130.0, (0.25, 0.78), 230.0),
)


# ---------------------------------------------------------------------------------------------------- textures


def srgb(color):
    """Converts sRGB-coded values in [0, 1] to linear ones by a plain power of 2.2 as in the rest of the project."""
    return np.power(np.asarray(color, np.float32), 2.2)


def noise(rng, shape, cell, octaves=4):
    """Makes fractal value noise (H, W) in about [-1, 1] that repeats at its borders; cell: size of the largest grain, pixels (y, x)."""
    total, amplitude = np.zeros(shape, np.float32), 1.0
    cell = np.broadcast_to(np.asarray(cell, float), (2,))
    for octave in range(octaves):
        grid = [max(2, round(n * 2**octave / c)) for n, c in zip(shape, cell)]
        coarse = rng.standard_normal(grid).astype(np.float32)
        rows = np.arange(shape[0]) * grid[0] / shape[0]
        cols = np.arange(shape[1]) * grid[1] / shape[1]
        at = np.meshgrid(rows, cols, indexing="ij")
        total += amplitude * ndimage.map_coordinates(coarse, at, order=1, mode="grid-wrap")
        amplitude *= 0.5
    return total / 2.0


def font(size):
    """Loads the typeface that comes with Pillow. size: pixels."""
    return ImageFont.load_default(size=size)


def paint(size, background, commands):
    """Draws on a canvas. size: (W, H); commands: a function of (ImageDraw, W, H). Returns (H, W, 3) in [0, 1]."""
    scale = 2  # drawn twice as large, then reduced: smooth edges
    image = Image.new("RGB", (size[0] * scale, size[1] * scale), tuple(int(255 * c) for c in background))
    commands(ImageDraw.Draw(image), size[0] * scale, size[1] * scale)
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float32) / 255


def rgb(*color):
    """Converts a colour in [0, 1] to what Pillow wants."""
    return tuple(int(255 * c) for c in color)


def wood(rng, base, size=(512, 512), planks=0):
    """Draws wood with its grain along v. planks: number of boards side by side, 0 for one piece. Returns (H, W, 3) in [0, 1]."""
    height, width = size
    rings = noise(rng, size, (height / 2, width / 5), 3) * 5 + np.linspace(0, 9, width, endpoint=False)[None]
    grain = 0.55 * np.sin(2 * np.pi * rings) + 0.9 * noise(rng, size, (height / 3, 7), 3)
    color = np.array(base, np.float32) * (1 + 0.13 * grain[..., None] * np.array([0.8, 1.0, 1.15]))
    if planks:
        board = np.arange(width) * planks // width
        color *= (1 + 0.13 * rng.standard_normal(planks))[board][None, :, None]
        gap = (np.arange(width) * planks / width) % 1
        color[:, gap * width / planks < 2.5] *= 0.3
    return np.clip(color, 0, 1).astype(np.float32)


def floor_tiles(rng, tiles=4, size=1024):
    """Draws a patch of tiles x tiles cement tiles, cream and bottle green, each with an ornament and wear. Returns (size, size, 3)."""
    y, x = np.mgrid[0:size, 0:size] * tiles / size
    u, v = x % 1 - 0.5, y % 1 - 0.5
    odd = (np.floor(x) + np.floor(y)) % 2
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    flower = radius < 0.23 + 0.07 * np.cos(4 * angle)
    ring = np.abs(np.abs(u) + np.abs(v) - 0.46) < 0.022
    cream, green, rust = np.array([0.83, 0.77, 0.64]), np.array([0.17, 0.31, 0.28]), np.array([0.60, 0.31, 0.20])
    color = np.where(odd[..., None] > 0, green, cream)
    color = np.where((flower & (odd > 0))[..., None], cream * 0.9, color)
    color = np.where((flower & (odd == 0))[..., None], green * 1.1, color)
    color = np.where((radius < 0.09)[..., None] | ring[..., None], rust, color)
    shade = (1 + 0.09 * rng.standard_normal((tiles, tiles)))[np.floor(y).astype(int), np.floor(x).astype(int)]
    color = color * shade[..., None] * (1 + 0.16 * noise(rng, (size, size), size / 6, 6)[..., None])
    color[np.maximum(np.abs(u), np.abs(v)) > 0.488] = (0.34, 0.32, 0.29)
    return np.clip(color, 0, 1).astype(np.float32)


def bricks(rng, size=(768, 1024), rows=16, columns=8):
    """Draws a brick wall. Returns (H, W, 3)."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    row = np.floor(y * rows / size[0]).astype(int)
    x = (x * columns / size[1] + 0.5 * (row % 2)) % columns
    column = np.floor(x).astype(int)
    tone = rng.standard_normal((rows, columns))[row, column]
    color = np.array([0.52, 0.27, 0.20]) * (1 + 0.17 * tone[..., None] * np.array([0.8, 1, 1.1]))
    u, v = x % 1, (y * rows / size[0]) % 1
    edge = np.minimum(np.minimum(u, 1 - u) * size[1] / columns, np.minimum(v, 1 - v) * size[0] / rows)  # pixels to the joint
    mortar = np.clip(1.4 - edge / 2.2, 0, 1)[..., None]
    color = color * (1 - mortar) + np.array([0.58, 0.54, 0.48]) * mortar
    return np.clip(color * (1 + 0.22 * noise(rng, size, 60, 6)[..., None]), 0, 1).astype(np.float32)


def plaster(rng, base, strength=0.08, size=512):
    """Draws brushed plaster. Returns (size, size, 3)."""
    cloud = noise(rng, (size, size), size / 3, 7)
    return np.clip(np.array(base) * (1 + strength * cloud[..., None]), 0, 1).astype(np.float32)


def plaid(rng, base, line, accent, size=512, cells=8):
    """Draws woven plaid. Returns (size, size, 3)."""
    t = np.arange(size) * cells / size % 1
    band = 0.5 * (np.abs(t - 0.5) < 0.22) + 0.5 * (np.abs(t - 0.5) < 0.05)
    thin = (np.abs(t - 0.08) < 0.03).astype(float)
    dark = 0.5 * (band[:, None] + band[None]) * 0.9
    bright = np.maximum(thin[:, None], thin[None])
    color = np.array(base) * (1 - dark[..., None]) + np.array(line) * dark[..., None]
    color = color * (1 - 0.7 * bright[..., None]) + 0.7 * np.array(accent) * bright[..., None]
    weave = 1 + 0.07 * rng.standard_normal((size, size))
    return np.clip(color * weave[..., None], 0, 1).astype(np.float32)


def menu_board(rng):
    """Draws the chalked menu. Returns (H, W, 3)."""
    lines = (
        ("espresso", "1.8"),
        ("cappuccino", "2.9"),
        ("flat white", "2.6"),
        ("hot cocoa", "3.2"),
        ("apple pie", "3.5"),
        ("soup & bread", "4.9"),
    )

    def draw(d, w, h):
        chalk = rgb(0.90, 0.89, 0.84)
        d.text((w / 2, h * 0.12), "MENU", font=font(w * 0.15), fill=rgb(0.96, 0.82, 0.45), anchor="mm")
        d.line((w * 0.2, h * 0.215, w * 0.8, h * 0.215), fill=chalk, width=w // 90)
        for i, (name, price) in enumerate(lines):
            y = h * (0.31 + 0.125 * i)
            d.text((w * 0.07, y), name, font=font(w * 0.098), fill=chalk, anchor="lm")
            d.text((w * 0.93, y), price, font=font(w * 0.098), fill=chalk, anchor="rm")

    board = paint((640, 700), (0.10, 0.11, 0.11), draw)
    return np.clip(board * (1 + 0.15 * noise(rng, board.shape[:2], 120, 5)[..., None]), 0, 1)


def poster_jazz(rng):
    """Draws a concert poster. Returns (H, W, 3)."""

    def draw(d, w, h):
        for i in range(9):
            r = w * (0.46 - 0.048 * i)
            fill = rgb(0.86, 0.33, 0.17) if i % 2 == 0 else rgb(0.95, 0.84, 0.62)
            d.ellipse((w / 2 - r, h * 0.40 - r, w / 2 + r, h * 0.40 + r), fill=fill)
        d.rectangle((w * 0.46, h * 0.16, w * 0.50, h * 0.52), fill=rgb(0.08, 0.12, 0.2))
        d.ellipse((w * 0.30, h * 0.46, w * 0.50, h * 0.57), fill=rgb(0.08, 0.12, 0.2))
        d.polygon(((w * 0.46, h * 0.16), (w * 0.68, h * 0.22), (w * 0.68, h * 0.30), (w * 0.46, h * 0.24)), fill=rgb(0.08, 0.12, 0.2))
        d.text((w / 2, h * 0.79), "JAZZ", font=font(w * 0.31), fill=rgb(0.95, 0.84, 0.62), anchor="mm")
        d.text((w / 2, h * 0.925), "friday 20:30", font=font(w * 0.135), fill=rgb(0.95, 0.84, 0.62), anchor="mm")

    return paint((420, 600), (0.10, 0.22, 0.33), draw)


def newspaper(rng):
    """Draws a page with a headline, a picture and columns of grey lines. Returns (H, W, 3)."""

    def draw(d, w, h):
        d.text((w / 2, h * 0.08), "THE DAILY", font=font(w * 0.15), fill=rgb(0.1, 0.1, 0.1), anchor="mm")
        d.line((w * 0.05, h * 0.15, w * 0.95, h * 0.15), fill=rgb(0.1, 0.1, 0.1), width=w // 100)
        d.rectangle((w * 0.06, h * 0.19, w * 0.60, h * 0.48), fill=rgb(0.45, 0.45, 0.44))
        for column in range(3):
            top = 0.52 if column < 2 else 0.20
            for y in np.arange(top, 0.96, 0.026):
                d.line(
                    (w * (0.06 + 0.31 * column), h * y, w * (0.31 + 0.31 * column - 0.08 * rng.random()), h * y),
                    fill=rgb(0.25, 0.25, 0.25),
                    width=w // 90,
                )

    return paint((320, 440), (0.88, 0.86, 0.80), draw)


def facade(rng, base, floors, bays, shop):
    """Draws the front of a house: windows with frames and shutters, a cornice, a shop on the ground floor. Returns (H, W, 3)."""
    width, height = 110 * bays, 110 * (floors + 1)
    shutter = rng.uniform(0.15, 0.6, 3)
    awning = rng.uniform(0.25, 0.8, 3)

    def draw(d, w, h):
        bay, storey = w / bays, h / (floors + 1)
        for f in range(floors):
            y = h * 0.05 + f * storey
            d.rectangle((0, y + 0.98 * storey, w, y + 1.02 * storey), fill=rgb(*(np.array(base) * 0.75)))
            for b in range(bays):
                x = (b + 0.5) * bay
                a, t, u = 0.17 * bay, y + 0.16 * storey, y + 0.82 * storey
                d.rectangle((x - 2.1 * a, t, x - 1.1 * a, u), fill=rgb(*shutter))
                d.rectangle((x + 1.1 * a, t, x + 2.1 * a, u), fill=rgb(*shutter))
                d.rectangle((x - 1.1 * a, t - 4, x + 1.1 * a, u + 4), fill=rgb(0.92, 0.90, 0.86))
                glass = 0.12 + 0.22 * rng.random()
                d.rectangle((x - 0.9 * a, t + 3, x + 0.9 * a, u), fill=rgb(glass * 0.8, glass * 0.95, glass * 1.15))
                d.line((x, t, x, u), fill=rgb(0.92, 0.90, 0.86), width=5)
                d.line((x - a, t + 0.3 * (u - t), x + a, t + 0.3 * (u - t)), fill=rgb(0.92, 0.90, 0.86), width=5)
        d.rectangle((0, 0, w, h * 0.035), fill=rgb(*(np.array(base) * 0.6)))
        y = h - storey * 0.95
        d.rectangle((0, y, w, h), fill=rgb(*(np.array(base) * 0.55)))
        d.rectangle((w * 0.06, y + 0.34 * storey, w * 0.62, h * 0.985), fill=rgb(0.14, 0.17, 0.2))
        d.rectangle((w * 0.72, y + 0.30 * storey, w * 0.90, h), fill=rgb(0.24, 0.15, 0.10))
        for i in range(12):
            tone = awning if i % 2 else (0.93, 0.91, 0.86)
            d.rectangle((w * (0.04 + 0.05 * i), y + 0.28 * storey, w * (0.09 + 0.05 * i), y + 0.46 * storey), fill=rgb(*tone))
        d.text((w * 0.36, y + 0.14 * storey), shop, font=font(0.22 * storey), fill=rgb(0.95, 0.88, 0.7), anchor="mm")

    image = paint((width, height), base, draw)
    return np.clip(image * (1 + 0.07 * noise(rng, image.shape[:2], 150, 6)[..., None]), 0, 1)


def sky(rng, shape):
    """Draws the linear radiance of a summer sky with clouds, (H, W, 3): zenith in the first row, horizon half-way down, ground below."""
    height, width = shape
    elevation = np.clip(1 - 2 * np.arange(height) / height, 0, 1)[:, None, None]
    blue = srgb([0.24, 0.44, 0.78]) * elevation**0.5 + srgb([0.56, 0.70, 0.85]) * (1 - elevation**0.5)
    puffs = noise(rng, shape, (height / 14, width / 18), 7)
    cover = np.clip(1.9 * (puffs + 0.08), 0, 1)[..., None] * np.clip(elevation * 8, 0, 1)
    lit = np.clip(0.85 + 0.5 * (puffs - ndimage.shift(puffs, (-6, 6), mode="wrap")), 0.55, 1.25)[..., None]
    above = blue * (1 - cover) + np.array([0.64, 0.63, 0.61]) * lit * cover
    above = above * (1 + 3.5 * np.clip(3 * elevation - 1, 0, 1))  # a bright zenith, out of sight, softens the shadows
    return np.where(elevation > 0, above, 0.25).astype(np.float32)


# ------------------------------------------------------------------------------------------------------ meshes


def rotation(axis, degrees):
    """Returns the 3x3 rotation about 'x', 'y' or 'z', to be applied to column vectors."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def moved(mesh, shift=(0, 0, 0), heading=0.0):
    """Returns the mesh turned about the z axis by heading degrees, then shifted."""
    V, F, UV, N, C = mesh
    R = rotation("z", heading).T
    return V @ R + np.asarray(shift, float), F, UV, None if N is None else N @ R, C


def joined(meshes):
    """Joins several meshes that have the same attributes into one."""
    offsets = np.cumsum([0] + [len(m[0]) for m in meshes[:-1]])
    parts = [np.concatenate([m[k] for m in meshes]) if meshes[0][k] is not None else None for k in (0, 2, 3, 4)]
    faces = np.concatenate([m[1] + o for m, o in zip(meshes, offsets)])
    return parts[0], faces, parts[1], parts[2], parts[3]


def painted(mesh, color):
    """Returns the mesh with one colour (or one per vertex) as vertex colours and without texture coordinates."""
    V, F, _, N, _ = mesh
    return V, F, None, N, np.broadcast_to(srgb(color), V.shape).copy()


def quad(corner, along, up, repeat=(1, 1)):
    """Makes a rectangle. The lower edge of the texture runs from corner along `along`."""
    corner, along, up = (np.asarray(v, float) for v in (corner, along, up))
    V = np.array([corner, corner + along, corner + along + up, corner + up])
    UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float) * repeat
    return V, np.array([[0, 1, 2], [0, 2, 3]]), UV, None, None


def box(low, high, scale=1.0):
    """Makes an axis-parallel box. Texture: `scale` repeats per metre, v along the longer side of each face."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    size, faces = high - low, []
    for axis in range(3):
        a, b = [k for k in range(3) if k != axis]
        if size[a] > size[b]:
            a, b = b, a
        for side in (0, 1):
            corner, u, v = low.copy(), np.zeros(3), np.zeros(3)
            corner[axis], u[a], v[b] = (low, high)[side][axis], size[a], size[b]
            V, F, UV, _, _ = quad(corner, u, v, (size[a] * scale, size[b] * scale))
            out = np.eye(3)[axis] * (2 * side - 1)
            faces.append((V, F if np.dot(np.cross(u, v), out) > 0 else F[:, ::-1], UV + 0.37 * axis, np.tile(out, (4, 1)), None))
    return joined(faces)


def grid_mesh(points, closed=False, repeat=(1, 1)):
    """Makes a smooth sheet through points (rows, columns, 3); closed: the last column joins the first. Normals are averaged."""
    rows, columns = points.shape[:2]
    if closed:
        points = np.concatenate([points, points[:, :1]], 1)
        columns += 1
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    F = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    V = points.reshape(-1, 3)
    u, v = np.meshgrid(np.linspace(0, repeat[0], columns), np.linspace(0, repeat[1], rows))
    face = np.cross(V[F[:, 1]] - V[F[:, 0]], V[F[:, 2]] - V[F[:, 0]])
    N = np.zeros_like(V)
    for k in range(3):
        np.add.at(N, F[:, k], face)
    if closed:
        grid = N.reshape(rows, columns, 3)
        grid[:, 0] += grid[:, -1]
        grid[:, -1] = grid[:, 0]
    N /= np.maximum(np.linalg.norm(N, axis=1, keepdims=True), 1e-12)
    return V, F, np.stack([u, v], -1).reshape(-1, 2), N, None


def lathe(profile, center=(0, 0, 0), sides=48):
    """Makes a surface of revolution about z. profile: (radius, height) from the outside bottom up; equal points make a crease."""
    profile = np.array(profile, float)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    parts = []
    for (r0, z0), (r1, z1) in zip(profile[:-1], profile[1:]):  # a ring for each piece: creases stay sharp
        ring = np.stack([np.stack([r * np.cos(angle), r * np.sin(angle), np.full(sides, z)], -1) for r, z in ((r0, z0), (r1, z1))])
        parts.append(grid_mesh(ring + np.asarray(center, float), closed=True))
    return joined(parts)


def tube(path, radius, sides=12):
    """Makes a round rod along a polyline (n, 3); radius: one number, or one per point."""
    path = np.asarray(path, float)
    radius = np.broadcast_to(radius, len(path))
    direction = np.gradient(path, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    helper = np.eye(3)[np.argmin(np.abs(direction).sum(0))]
    side = np.cross(direction, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(direction, side)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = side[:, None] * np.cos(angle)[None, :, None] - other[:, None] * np.sin(angle)[None, :, None]
    return grid_mesh(path[:, None] + radius[:, None, None] * ring, closed=True)


def blob(center, radii, sides=24):
    """Makes an ellipsoid."""
    t = np.linspace(1e-3, np.pi - 1e-3, sides)[:, None]
    p = np.linspace(0, 2 * np.pi, 2 * sides, endpoint=False)[None]
    unit = np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), -np.cos(t) + 0 * p], -1)
    V, F, UV, _, _ = grid_mesh(unit * np.asarray(radii, float), closed=True)
    N = V / np.asarray(radii, float) ** 2
    return V + np.asarray(center, float), F, UV, N / np.linalg.norm(N, axis=1, keepdims=True), None


def foliage(rng, center, radii, count, size, colors):
    """Makes leaves on and inside an ellipsoid, as quads. Each has a colour of its own, a mix of the two rows of colors."""
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    place = np.asarray(center) + direction * np.asarray(radii) * rng.uniform(0.55, 1.0, (count, 1)) ** 0.5
    normal = direction + 0.7 * rng.standard_normal((count, 3))
    a = np.cross(normal, rng.standard_normal((count, 3)))
    a *= size * rng.uniform(0.7, 1.3, (count, 1)) / np.linalg.norm(a, axis=1, keepdims=True)
    b = np.cross(normal, a)
    b *= 0.45 * size / np.linalg.norm(b, axis=1, keepdims=True)
    V = np.stack([place - a, place + b, place + a, place - b], 1).reshape(-1, 3)
    first = 4 * np.arange(count)[:, None]
    F = np.concatenate([first + np.array([[0, 1, 2]]), first + np.array([[0, 2, 3]])])
    mix = rng.random((count, 1))
    C = srgb(colors[0]) * mix + srgb(colors[1]) * (1 - mix)
    return V, F, None, None, np.repeat(C, 4, 0)


# ----------------------------------------------------------------------------- figures: signed distances, meshed


def capsule(a, b, ra, rb):
    """Returns the distance function of a rod from a to b whose radius goes from ra to rb."""
    a, ab = np.asarray(a, np.float32), np.asarray(b, np.float32) - np.asarray(a, np.float32)

    def distance(P):
        t = np.clip((P - a) @ ab / (ab @ ab), 0, 1)
        return np.linalg.norm(P - a - t[:, None] * ab, axis=1) - (ra + (rb - ra) * t)

    return distance


def ellipsoid(center, radii, turn=UPRIGHT):
    """Returns the distance function (to first order) of an ellipsoid turned by a 3x3 rotation."""
    center, radii, turn = np.asarray(center, np.float32), np.asarray(radii, np.float32), np.asarray(turn, np.float32)

    def distance(P):
        Q = (P - center) @ turn
        k0, k1 = np.linalg.norm(Q / radii, axis=1), np.linalg.norm(Q / radii**2, axis=1)
        return k0 * (k0 - 1) / np.maximum(k1, 1e-6)

    return distance


def smooth(k, *shapes):
    """Returns the union of shapes, with seams rounded over about k metres."""

    def distance(P):
        d = shapes[0](P)
        for shape in shapes[1:]:
            e = shape(P)
            h = np.maximum(k - np.abs(d - e), 0) / k
            d = np.minimum(d, e) - h * h * k / 4
        return d

    return distance


def minus(shape, cut):
    """Returns the shape without the cut."""
    return lambda P: np.maximum(shape(P), -cut(P))


def wrinkled(shape, size, depth):
    """Returns the shape with folds of about `size` metres in wavelength."""
    w = 2 * np.pi / size

    def distance(P):
        x, y, z = P.T
        return shape(P) + depth * np.sin(w * (x + 0.6 * z) + 2 * np.sin(0.7 * w * y)) * np.sin(0.8 * w * (y - 0.4 * z) + 1)

    return distance


def sculpt(parts, step=0.0075):
    """Meshes parts [(distance function, colour or function of points → colours)] by marching cubes at `step` metres."""
    low, high = np.array([-0.75, -0.75, -0.02]), np.array([0.85, 0.75, 1.98])
    coarse = 8 * step  # find the cells that the surface passes through first: most of the box is empty
    shape = np.ceil((high - low) / coarse).astype(int)
    corner = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1).reshape(-1, 3)

    def field(P):
        return np.min([part(P) for part, _ in parts], axis=0)

    middle = field((low + (corner + 0.5) * coarse).astype(np.float32))
    near = np.abs(middle) < 1.6 * coarse
    volume = np.kron(middle.reshape(shape), np.ones((8, 8, 8), np.float32))
    fine = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), -1).reshape(-1, 3)
    cells = (corner[near][:, None] * 8 + fine[None]).reshape(-1, 3)
    volume[tuple(cells.T)] = field((low + cells * step).astype(np.float32))
    V, F, N, _ = measure.marching_cubes(volume, 0.0, spacing=(step,) * 3, gradient_direction="ascent")
    P = (V + low).astype(np.float32)
    owner = np.argmin([part(P) for part, _ in parts], axis=0)
    C = np.zeros_like(P)
    for i, (_, color) in enumerate(parts):
        mine = owner == i
        C[mine] = srgb(color(P[mine]) if callable(color) else color)
    h = 0.5 * step
    N = np.stack([field(P + h * e) - field(P - h * e) for e in np.eye(3, dtype=np.float32)], -1)
    N /= np.maximum(np.linalg.norm(N, axis=1, keepdims=True), 1e-9)
    return P.astype(float), F[:, ::-1], None, N.astype(float), C


def limb(forward, outward, side):
    """Returns the unit vector of an arm or leg: 0, 0 hangs down; forward lifts it to the front, outward to its own side. side: +1 left, -1 right."""
    f, o = np.radians(forward), np.radians(outward)
    return np.array([np.sin(f) * np.cos(o), side * np.sin(o), -np.cos(f) * np.cos(o)])


@dataclass
class Pose:
    """Angles of a figure, in degrees; arms and legs as (left, right)."""

    hip: float = 0.93  # height of the hips, m
    lean: float = 3.0  # of the trunk, to the front
    thigh: tuple[float, float] = (0.0, 0.0)  # to the front
    shin: tuple[float, float] = (0.0, 0.0)  # to the front; negative: to the back
    upper_arm: tuple[tuple[float, float], tuple[float, float]] = ((8.0, 12.0), (-8.0, 12.0))  # (forward, outward)
    forearm: tuple[tuple[float, float], tuple[float, float]] = ((20.0, 8.0), (10.0, 8.0))  # (forward, outward)
    head: float = 0.0  # turn to the left
    nod: float = 0.0  # of the head, to the front


@dataclass
class Look:
    """Colours (sRGB) and dress of a figure."""

    skin: tuple[float, float, float] = (0.80, 0.60, 0.48)
    hair: tuple[float, float, float] = (0.20, 0.12, 0.08)
    shirt: tuple[float, float, float] = (0.92, 0.91, 0.88)
    stripe: tuple[float, float, float] | None = None  # second colour of a striped shirt
    trousers: tuple[float, float, float] = (0.16, 0.17, 0.22)
    shoes: tuple[float, float, float] = (0.10, 0.07, 0.05)
    vest: tuple[float, float, float] | None = None
    apron: tuple[float, float, float] | None = None
    long_hair: bool = False
    moustache: bool = False


def joints(pose):
    """Computes the places of the joints in the figure's own axes: x to the front, y to the left, z up, origin below the hips."""
    J, lean = {"hip": np.array([0, 0, pose.hip])}, rotation("y", pose.lean)

    def upper(x, y, z):
        return J["hip"] + lean @ np.array([x, y, z])

    J["waist"], J["chest"], J["neck"] = upper(0, 0, 0.16), upper(0.01, 0, 0.36), upper(0, 0, 0.54)
    J["head"] = upper(0.02, 0, 0.665) + np.array([0.0012 * pose.nod, 0, 0])
    for k, side in enumerate((1, -1)):
        name = "LR"[k]
        J["hip" + name] = J["hip"] + np.array([0, 0.09 * side, -0.02])
        J["knee" + name] = J["hip" + name] + 0.42 * limb(pose.thigh[k], 2, side)
        J["foot" + name] = J["knee" + name] + 0.41 * limb(pose.shin[k], 0, side)
        J["shoulder" + name] = upper(0, 0.185 * side, 0.47)
        J["elbow" + name] = J["shoulder" + name] + 0.285 * limb(*pose.upper_arm[k], side)
        J["wrist" + name] = J["elbow" + name] + 0.25 * limb(*pose.forearm[k], side)
        J["hand" + name] = J["wrist" + name] + 0.075 * limb(*pose.forearm[k], side)
    return J


def head_parts(J, pose, look):
    """Makes head, face and hair as parts for sculpt."""
    turn = rotation("z", pose.head) @ rotation("y", pose.nod)
    center = J["head"]

    def at(x, y, z):
        return center + turn @ np.array([x, y, z])

    face = smooth(
        0.03,
        ellipsoid(at(-0.005, 0, 0.03), (0.098, 0.077, 0.095), turn),
        ellipsoid(at(0.028, 0, -0.045), (0.062, 0.055, 0.068), turn),
        capsule(at(0.088, 0, 0.015), at(0.106, 0, -0.018), 0.009, 0.014),
        capsule(J["neck"] + [0, 0, -0.03], center + [0, 0, -0.04], 0.056, 0.05),
    )
    ears = smooth(0.01, *[ellipsoid(at(-0.005, 0.078 * s, 0.0), (0.020, 0.011, 0.032), turn) for s in (1, -1)])

    def face_color(P):
        Q = (P - center) @ turn
        color = np.tile(np.array(look.skin), (len(P), 1))
        cheek = np.exp(-((Q[:, 0] - 0.07) ** 2 + (np.abs(Q[:, 1]) - 0.04) ** 2 + (Q[:, 2] + 0.025) ** 2) / 0.0008)
        color *= 1 - cheek[:, None] * np.array([0.0, 0.14, 0.12])
        y = np.abs(Q[:, 1])
        front = Q[:, 0] > 0.05
        color[front & (np.hypot(y - 0.032, (Q[:, 2] - 0.020) * 1.4) < 0.0125)] = (0.07, 0.05, 0.04)
        color[front & (np.abs(y - 0.033) < 0.018) & (np.abs(Q[:, 2] - 0.043) < 0.006)] = look.hair
        color[front & (y < 0.026) & (np.abs(Q[:, 2] + 0.058) < 0.008)] = (0.62, 0.28, 0.26)
        if look.moustache:
            color[front & (y < 0.032) & (np.abs(Q[:, 2] + 0.041 + 0.25 * y) < 0.009)] = look.hair
        return color

    hair = minus(
        ellipsoid(at(-0.018, 0, 0.048), (0.108, 0.090, 0.100), turn),
        smooth(0.02, ellipsoid(at(0.105, 0, -0.03), (0.085, 0.105, 0.105), turn), ellipsoid(at(0.03, 0, -0.11), (0.09, 0.12, 0.10), turn)),
    )
    if look.long_hair:
        lock = smooth(
            0.05,
            capsule(at(-0.06, 0, 0.02), at(-0.095, 0.01, -0.14), 0.075, 0.07),
            capsule(at(-0.09, 0, -0.12), at(-0.10, 0.01, -0.27), 0.07, 0.03),
        )
        sides = smooth(0.02, *[capsule(at(-0.02, 0.07 * s, 0.04), at(-0.03, 0.082 * s, -0.15), 0.032, 0.022) for s in (1, -1)])
        hair = smooth(0.03, hair, lock, sides)

    def hair_color(P):
        strand = np.sin(430 * P[:, 1] + 3 * np.sin(25 * P[:, 2])) * np.sin(390 * P[:, 0] + 2 * np.sin(21 * P[:, 2]))
        return np.clip(np.array(look.hair) * (1 + 0.25 * strand[:, None]), 0, 1)

    return [(face, face_color), (ears, look.skin), (wrinkled(hair, 0.03, 0.0015), hair_color)]


def arm_parts(J, look):
    """Makes sleeves and hands as parts for sculpt; each hand has four fingers and a thumb."""
    parts = []
    for name in "LR":
        S, E, W, H = (J[k + name] for k in ("shoulder", "elbow", "wrist", "hand"))

        def sleeve_color(P, S=S, E=E, W=W):
            upper, lower = (E - S) / np.linalg.norm(E - S), (W - E) / np.linalg.norm(W - E)
            on_lower = capsule(E, W, 0.04, 0.04)(P) < capsule(S, E, 0.05, 0.05)(P)
            along = np.where(on_lower, 0.285 + (P - E) @ lower, (P - S) @ upper)
            return stripes(along, look)

        sleeve = smooth(0.03, capsule(S, E, 0.060, 0.050), capsule(E, W - 0.01 * (W - E), 0.050, 0.038))
        parts.append((wrinkled(sleeve, 0.09, 0.004), sleeve_color))
        d = (H - W) / np.linalg.norm(H - W)
        across = np.cross(d, [0.3, 0.9, 0.2])
        across /= np.linalg.norm(across)
        fingers = [
            capsule(H + 0.015 * d + k * 0.017 * across, H + (0.085 - 0.008 * abs(k)) * d + k * 0.026 * across, 0.0095, 0.008)
            for k in (-1.5, -0.5, 0.5, 1.5)
        ]
        thumb = capsule(H - 0.02 * d - 0.02 * across, H + 0.02 * d - 0.062 * across, 0.012, 0.010)
        palm = smooth(0.02, capsule(W, H, 0.026, 0.030), capsule(H - 0.022 * across, H + 0.022 * across, 0.024, 0.022))
        parts.append((smooth(0.008, palm, thumb, *fingers), look.skin))
    return parts


def stripes(along, look):
    """Returns the colour of a shirt at a height, or at a distance along its sleeve, in metres."""
    color = np.tile(np.array(look.shirt, float), (len(along), 1))
    if look.stripe is not None:
        color[(along / 0.046) % 1 < 0.42] = look.stripe
    return color


def person(pose, look):
    """Makes a figure as a mesh with vertex colours, in its own axes (see joints)."""
    J, lean = joints(pose), rotation("y", pose.lean)
    parts = head_parts(J, pose, look) + arm_parts(J, look)
    for name in "LR":
        hip, knee, foot = (J[k + name] for k in ("hip", "knee", "foot"))
        leg = smooth(0.04, capsule(hip, knee, 0.088, 0.062), capsule(knee, foot + [0, 0, 0.03], 0.062, 0.050))
        parts.append((wrinkled(leg, 0.11, 0.004), look.trousers))
        shin = (foot - knee) / np.linalg.norm(foot - knee)
        toe = np.array([-shin[2], 0, shin[0]])  # at right angles to the shin
        parts.append((capsule(foot + 0.045 * shin - 0.03 * toe, foot + 0.065 * shin + 0.14 * toe, 0.042, 0.032), look.shoes))
    trunk = smooth(
        0.09,
        ellipsoid(J["hip"] + [0, 0, 0.02], (0.115, 0.165, 0.12), lean),
        ellipsoid(J["waist"], (0.100, 0.140, 0.13), lean),
        ellipsoid(J["chest"], (0.115, 0.168, 0.16), lean),
        capsule(J["shoulderL"], J["shoulderR"], 0.058, 0.058),
    )
    parts.append((wrinkled(trunk, 0.13, 0.004), lambda P: stripes(((P - J["hip"]) @ lean)[:, 2], look)))
    parts.append((ellipsoid(J["hip"] + [0, 0, -0.02], (0.122, 0.172, 0.10), lean), look.trousers))
    if look.vest is not None:
        below = ellipsoid(J["neck"] + lean @ np.array([0.12, 0, -0.02]), (0.09, 0.05, 0.20), lean)
        vest = minus(minus(lambda P: trunk(P) - 0.009, below), lambda P: ((P - J["hip"]) @ lean)[:, 2] - 0.05)
        arms = smooth(
            0.02,
            *[
                capsule(J["shoulder" + n], J["shoulder" + n] + lean @ np.array([0, 0.1 * s, -0.1]), 0.08, 0.08)
                for n, s in (("L", 1), ("R", -1))
            ],
        )
        parts.append((minus(vest, arms), look.vest))
    if look.apron is not None:
        skirt = capsule(J["hip"] + [0, 0, 0.10], J["hip"] + [0.02, 0, -0.42], 0.145, 0.215)
        shaped = minus(minus(skirt, lambda P: P[:, 0] + 0.01), lambda P: P[:, 2] - (pose.hip - 0.40))
        parts.append((wrinkled(shaped, 0.16, 0.009), look.apron))
    return sculpt(parts)


def cat(gait):
    """Makes a ginger cat in its own axes, walking to the front (x); gait: phase of its step in degrees."""
    parts, coat = [], np.array([0.78, 0.46, 0.20])

    def fur(P):
        band = 0.5 + 0.5 * np.sin(95 * P[:, 0] + 2.5 * np.sin(30 * P[:, 2] + 14 * P[:, 1]))
        color = coat * (1 - 0.45 * (band > 0.62)[:, None] * (P[:, 2] > 0.15)[:, None])
        color[P[:, 2] < 0.035] = (0.92, 0.88, 0.82)
        color[(P[:, 0] > 0.13) & (P[:, 2] < 0.205) & (np.abs(P[:, 1]) < 0.045)] = (0.92, 0.88, 0.82)
        return color

    def face(P):
        color = fur(P)
        y = np.abs(P[:, 1])
        color[(P[:, 0] > 0.30) & (P[:, 2] < 0.285)] = (0.93, 0.89, 0.83)
        color[(P[:, 0] > 0.27) & (np.hypot(y - 0.024, P[:, 2] - 0.305) < 0.0105)] = (0.10, 0.14, 0.06)
        color[(P[:, 0] > 0.332) & (np.hypot(y, P[:, 2] - 0.288) < 0.007)] = (0.70, 0.38, 0.36)
        return color

    body = smooth(
        0.06,
        capsule((-0.15, 0, 0.205), (0.12, 0, 0.205), 0.075, 0.070),
        ellipsoid((-0.13, 0, 0.20), (0.085, 0.07, 0.085)),
        capsule((0.13, 0, 0.22), (0.23, 0, 0.28), 0.058, 0.05),
    )
    parts.append((body, fur))
    head = smooth(0.015, ellipsoid((0.275, 0, 0.30), (0.058, 0.056, 0.050)), ellipsoid((0.315, 0, 0.283), (0.028, 0.03, 0.022)))
    ears = smooth(0.008, *[capsule((0.262, 0.033 * s, 0.335), (0.255, 0.043 * s, 0.378), 0.020, 0.004) for s in (1, -1)])
    parts += [(smooth(0.008, head, ears), face)]
    for x, y, lag in ((0.12, 0.042, 0), (0.12, -0.042, 180), (-0.15, 0.045, 90), (-0.15, -0.045, 270)):
        swing = np.radians(gait + lag)
        lift = 0.035 * max(0.0, np.cos(swing))
        knee = np.array([x + 0.02 * np.sin(swing) + (0.02 if x > 0 else -0.035), y, 0.105 + 0.5 * lift])
        paw = np.array([x + 0.065 * np.sin(swing), y, 0.018 + lift])
        parts.append(
            (
                smooth(
                    0.02,
                    capsule((x, y, 0.18), knee, 0.042, 0.024),
                    capsule(knee, paw, 0.024, 0.017),
                    capsule(paw, paw + [0.025, 0, -0.002], 0.019, 0.016),
                ),
                fur,
            )
        )
    sway = 0.05 * np.sin(np.radians(gait))
    t = np.linspace(0, 1, 9)
    tail = np.stack([-0.20 - 0.16 * t + 0.05 * t**3, sway * t**2, 0.235 + 0.26 * t**1.4], -1)
    parts.append((smooth(0.01, *[capsule(a, b, 0.020, 0.017) for a, b in zip(tail[:-1], tail[1:])]), fur))
    return sculpt(parts, step=0.005)


# -------------------------------------------------------------------------------------- from arrays to Mitsuba


def texture(image):
    """Makes a Mitsuba texture of an sRGB-coded picture (H, W, 3), first row on top (v = 1)."""
    return {"type": "bitmap", "bitmap": mi.Bitmap(np.ascontiguousarray(srgb(image)[::-1])), "raw": True}


@dataclass(frozen=True, eq=False)
class Surface:
    """A material, the same on both sides: a colour (sRGB), a picture (H, W, 3), or None for the mesh's own vertex colours."""

    color: object = None
    rough: float = 0.6
    specular: float = 0.4
    metallic: float = 0.0


def flat(mesh):
    """Returns the mesh with normals. If it has none, every face gets vertices of its own."""
    V, F, UV, N, C = mesh
    if N is not None:
        return mesh
    V, UV, C = (None if part is None else part[F].reshape(-1, part.shape[1]) for part in (V, UV, C))
    N = np.cross(V[1::3] - V[0::3], V[2::3] - V[0::3])
    N /= np.maximum(np.linalg.norm(N, axis=1, keepdims=True), 1e-12)
    return V, np.arange(len(V)).reshape(-1, 3), UV, np.repeat(N, 3, 0), C


def assemble(things):
    """Makes Mitsuba shapes from a list of (mesh, Surface). All that share picture (or none) and finish become one shape, which keeps rendering fast."""
    groups = {}
    for mesh, surface in things:
        mesh, color = flat(mesh), surface.color
        if np.ndim(color) != 3:  # plain colours travel as vertex colours
            mesh = mesh[:2] + (None,) + mesh[3:] if color is None else painted(mesh, color)
            color = None
        else:
            mesh = mesh[:4] + (None,)
        key = (id(color), surface.rough, surface.specular, surface.metallic)
        groups.setdefault(key, (color, []))[1].append(mesh)
    return [shape(joined(meshes), color, *key[1:]) for key, (color, meshes) in groups.items()]


def shape(mesh, picture, rough, specular, metallic):
    """Makes a Mitsuba mesh with a picture, or with its vertex colours if picture is None."""
    V, F, UV, N, C = mesh
    color = {"type": "mesh_attribute", "name": "vertex_color"} if picture is None else texture(picture)
    inner = {"type": "principled", "base_color": color, "roughness": rough, "specular": specular, "metallic": metallic}
    properties = mi.Properties()
    properties["surface"] = mi.load_dict({"type": "twosided", "material": inner})
    result = mi.Mesh("mesh", len(V), len(F), has_vertex_normals=True, has_vertex_texcoords=UV is not None, props=properties)
    if C is not None:
        result.add_attribute("vertex_color", 3, np.ravel(C).astype(np.float32))
    parameters = mi.traverse(result)
    parameters["vertex_positions"] = np.ravel(V).astype(np.float32)
    parameters["vertex_normals"] = np.ravel(N).astype(np.float32)
    parameters["faces"] = np.ravel(F).astype(np.uint32)
    if UV is not None:
        parameters["vertex_texcoords"] = np.ravel(UV).astype(np.float32)
    parameters.update()
    return result


def camera(eye, target, roll, fov, size):
    """Makes a pinhole camera. fov: horizontal field of view, degrees; size: (W, H), pixels."""
    up = [float(np.sin(np.radians(roll))), 0.0, float(np.cos(np.radians(roll)))]
    film = {"type": "hdrfilm", "width": size[0], "height": size[1], "rfilter": {"type": "box"}, "pixel_format": "rgb"}
    view = mi.ScalarTransform4f().look_at(origin=list(eye), target=list(target), up=up)
    return {"type": "perspective", "fov": fov, "fov_axis": "x", "to_world": view, "film": film, "near_clip": 0.05}


def render(scene, spp, seed, depth):
    """Path-traces a scene and denoises it, guided by albedo (of lights: their own colour) and normals.

    Returns: (H, W, 3) linear radiance, float32.
    """
    paths = mi.load_dict({"type": "path", "max_depth": depth, "rr_depth": 4})
    guides = mi.load_dict({"type": "aov", "aovs": "albedo:albedo,normal:sh_normal", "light": {"type": "path", "max_depth": 1}})
    rounds = max(1, spp // PIECE)
    color, guide = 0.0, 0.0
    for k in range(rounds):
        sample = np.array(mi.render(scene, integrator=paths, spp=PIECE, seed=seed * 1000 + k), np.float32)
        color = color + np.minimum(sample, 100.0) / rounds  # a stray path must not outshine a lamp
    for k in range(min(rounds, 6)):
        guide = guide + np.array(mi.render(scene, integrator=guides, spp=PIECE, seed=seed * 1000 + k), np.float32)
    light, albedo, normal = np.split(guide / min(rounds, 6), 3, axis=-1)
    albedo = np.clip(albedo + light, 0, 1)
    clean = pyoidn.denoise(color, np.ascontiguousarray(albedo), np.ascontiguousarray(normal), hdr=True)
    return np.maximum(clean, 0)


# ------------------------------------------------------------------------------------------ the street outside


def street_things(rng):
    """Makes houses, pavements, trees and walkers in the street behind the window. Returns a list of (mesh, Surface)."""
    things = []

    def add(mesh, surface):
        things.append((mesh, surface))

    add(quad((-60, 3, 0), (120, 0, 0), (0, 140, 0)), Surface((0.64, 0.63, 0.61)))
    for left, right in ((-9.0, -4.6), (2.0, 9.0)):
        add(box((left, 4, 0), (right, 80, 0.14)), Surface((0.74, 0.71, 0.66)))
    tones = [(0.90, 0.78, 0.60), (0.84, 0.58, 0.46), (0.93, 0.88, 0.78), (0.74, 0.79, 0.76), (0.88, 0.68, 0.50), (0.80, 0.74, 0.66)]
    names = ("BOULANGERIE", "LIVRES", "FLEURS", "TABAC", "CAVE", "OPTIQUE", "MUSIQUE", "MODE")
    for side, x in (("left", -7.2), ("right", 3.6)):
        front = 11.0 if side == "left" else 20.0
        for i in range(6):
            bays, floors = int(rng.integers(3, 5)), int(rng.integers(2, 4))
            length, height = 2.3 * bays, 3.1 * (floors + 1)
            wall = Surface(facade(rng, tones[(i + (side == "right") * 3) % 6], floors, bays, names[(i + 3 * (side == "right")) % 8]))
            corner, along = ((x, front + length, 0), (0, -length, 0)) if side == "right" else ((x, front, 0), (0, length, 0))
            add(quad(corner, along, (0, 0, height)), wall)
            out = -1 if side == "left" else 1
            add(quad((x, front, 0), (out * 12, 0, 0), (0, 0, height)), Surface((0.72, 0.60, 0.50)))
            add(
                box((min(x, x + out * 12) - 0.2, front, height), (max(x, x + out * 12) + 0.2, front + length, height + 0.3)),
                Surface((0.55, 0.33, 0.26)),
            )
            front += length + (0.05 if i % 3 else 1.5)
    add(quad((-14, 78, 0), (34, 0, 0), (0, 0, 12)), Surface(facade(rng, (0.90, 0.84, 0.72), 3, 12, "HOTEL DU PARC")))
    add(quad((-4.0, 76, 0), (3.2, 0, 0), (0, 0, 15)), Surface(facade(rng, (0.88, 0.80, 0.66), 4, 1, "")))
    add(box((-4.3, 75.7, 15), (-0.5, 79.5, 15.5)), Surface((0.80, 0.72, 0.60)))
    add(moved(lathe([(2.4, 15.5), (1.3, 18), (0.12, 23), (0.0, 24)], sides=4), (-2.4, 77.6, 0), 45), Surface((0.35, 0.45, 0.45)))
    add(blob((-2.4, 75.9, 13.2), (1.0, 0.05, 1.0)), Surface((0.95, 0.93, 0.86)))
    for tip in ((0.0, 0.7), (0.4, -0.2)):
        add(tube([(-2.4, 75.8, 13.2), (-2.4 + tip[0], 75.8, 13.2 + tip[1])], 0.07), Surface((0.1, 0.1, 0.1)))
    greens = ((0.50, 0.67, 0.28), (0.27, 0.46, 0.18))
    for x, y_tree, size in ((-5.3, 25, 1.4), (-5.3, 37, 1.6), (2.4, 34, 1.6), (2.4, 46, 1.7)):
        add(tube([(x, y_tree, 0), (x + 0.05, y_tree, 1.6), (x, y_tree, 3.2)], [0.14, 0.11, 0.08]), Surface((0.36, 0.28, 0.22)))
        add(foliage(rng, (x, y_tree, 3.9), (size, size, size * 1.05), 7000, 0.085, greens), Surface())
    walkers = (
        (-5.9, 13.0, 75, (0.75, 0.30, 0.25)),
        (-5.6, 15.2, 250, (0.25, 0.40, 0.60)),
        (-2.9, 22.0, 180, (0.85, 0.75, 0.35)),
        (-1.2, 30.0, 80, (0.3, 0.3, 0.34)),
    )
    for i, (x, y_walker, heading, shirt) in enumerate(walkers):
        stride = Pose(thigh=(24, -18), shin=(12, -42), upper_arm=((-20, 8), (22, 8)), forearm=((-5, 6), (45, 6)))
        look = Look(shirt=shirt, long_hair=i % 2 == 0, trousers=(0.3, 0.27 + 0.04 * i, 0.32))
        add(moved(person(stride, look), (x, y_walker, 0.12), heading), Surface())
    return things


def street(rng, spp):
    """Renders the street behind the window, as it is seen from the middle of the room.

    Returns: (H, W, 3) linear radiance of the picture that hangs at BACKDROP, first row on top.
    """
    x0, x1, z0, z1, y = BACKDROP
    eye = np.array([0.2, -3.2, 1.5])
    things = street_things(rng)
    heaven = sky(rng, (512, 1024))
    light = {"type": "envmap", "bitmap": mi.Bitmap(heaven), "scale": 1.3, "to_world": mi.ScalarTransform4f().rotate([1, 0, 0], 90)}
    sun = {"type": "directional", "direction": [-0.55, -0.35, -0.65], "irradiance": {"type": "rgb", "value": [3.7, 3.35, 2.8]}}
    width = 1800
    half = (x1 - x0) / 2
    fov = float(2 * np.degrees(np.arctan(half / (y - eye[1]))))
    middle = ((x0 + x1) / 2, y, eye[2])
    height = round(width * (z1 - eye[2]) / half)
    view = camera((middle[0], eye[1], eye[2]), middle, 0.0, fov, (width, height))
    parts = {f"part{i}": part for i, part in enumerate(assemble(things))}
    scene = mi.load_dict({"type": "scene", "view": view, "light": light, "sun": sun, **parts})
    picture = render(scene, spp, seed=77, depth=5)
    return picture[: round(height * (z1 - z0) / (2 * (z1 - eye[2])))]


# ------------------------------------------------------------------------------------------------ the café


def room(rng):
    """Makes floor, walls, ceiling, window frame and skirting. Returns a list of (mesh, Surface)."""
    x0, x1, z0, z1 = WINDOW
    oak, dark = wood(rng, (0.52, 0.34, 0.20)), wood(rng, (0.25, 0.15, 0.09))
    paint_white = Surface(plaster(rng, (0.80, 0.78, 0.72), 0.04), rough=0.45)
    upper = Surface(plaster(rng, (0.20, 0.42, 0.42), 0.13))
    panel = Surface(wood(rng, (0.22, 0.33, 0.31), planks=6), rough=0.4)
    V, F, UV, N, C = quad((-8, -8, 0), (16, 0, 0), (0, 16, 0))
    UV = (V[:, :2] @ rotation("z", 45)[:2, :2]) / 1.56  # the tiles lie at 45 degrees, four to 1.56 m
    parts = [((V, F, UV, N, C), Surface(floor_tiles(rng), rough=0.30, specular=0.5))]
    for low, high in (
        ((-3.4, BACK, 1.0), (x0, BACK + 0.25, 3.2)),
        ((x1, BACK, 1.0), (3.4, BACK + 0.25, 3.2)),
        ((x0, BACK, z1), (x1, BACK + 0.25, 3.2)),
    ):
        parts.append((box(low, high, 0.5), upper))
    for low, high in (
        ((-3.4, BACK - 0.02, 0), (x0, BACK + 0.25, 1.0)),
        ((x1, BACK - 0.02, 0), (3.4, BACK + 0.25, 1.0)),
        ((x0, BACK - 0.02, 0), (x1, BACK + 0.25, z0 - 0.05)),
    ):
        parts.append((box(low, high, 1.4), panel))
    parts.append((box((-3.4, BACK - 0.05, 0.98), (x0, BACK, 1.03)), Surface(dark)))
    parts.append((box((x1, BACK - 0.05, 0.98), (3.4, BACK, 1.03)), Surface(dark)))
    parts.append((box((-3.4, BACK - 0.04, 0), (3.4, BACK, 0.12)), Surface(dark)))
    parts.append((quad((-3.3, -7, 0), (0, 10.1, 0), (0, 0, 3.2), (4.6, 1.6)), Surface(bricks(rng), rough=0.8)))
    parts.append((quad((3.3, 3.1, 0), (0, -10.1, 0), (0, 0, 3.2), (4, 1.4)), Surface(plaster(rng, (0.55, 0.40, 0.26), 0.12))))
    parts.append((quad((-3.4, -7, 3.15), (6.8, 0, 0), (0, 10.3, 0), (3, 4)), Surface(plaster(rng, (0.78, 0.74, 0.66), 0.06))))
    for y in (-1.6, 0.0, 1.6):
        parts.append((box((-3.3, y, 2.97), (3.3, y + 0.16, 3.15), 1.0), Surface(dark)))
    frame, depth = 0.07, (BACK + 0.10, BACK + 0.17)
    bars = [(x0, x0 + frame, z0, z1), (x1 - frame, x1, z0, z1), (x0, x1, z0, z0 + frame), (x0, x1, z1 - frame, z1), (x0, x1, 2.16, 2.21)]
    bars += [(x0 + (x1 - x0) * k / 3 - 0.025, x0 + (x1 - x0) * k / 3 + 0.025, z0, z1) for k in (1, 2)]
    for a, b, low, high in bars:
        parts.append((box((a, depth[0], low), (b, depth[1], high)), paint_white))
    parts.append((box((x0 - 0.08, BACK - 0.16, z0 - 0.05), (x1 + 0.08, BACK + 0.25, z0)), Surface(oak, rough=0.35)))
    for a, b, low, high in ((x0 - 0.09, x0, z0, z1 + 0.09), (x1, x1 + 0.09, z0, z1 + 0.09), (x0 - 0.09, x1 + 0.09, z1, z1 + 0.09)):
        parts.append((box((a, BACK - 0.03, low), (b, BACK + 0.02, high)), paint_white))
    return parts


def curtains(rng):
    """Makes two plaid curtains on a rod. Returns a list of (mesh, Surface)."""
    cloth = Surface(plaid(rng, (0.70, 0.22, 0.17), (0.20, 0.12, 0.14), (0.93, 0.85, 0.66)), rough=0.9, specular=0.1)
    x0, x1, _, z1 = WINDOW
    parts = []
    for a, b in ((x0 - 0.42, x0 + 0.12), (x1 - 0.12, x1 + 0.36)):
        u, v = np.meshgrid(np.linspace(0, 1, 120), np.linspace(0, 1, 30))
        gather = 1 - 0.35 * np.exp(-(((v - 0.38) / 0.18) ** 2))
        x = (a + b) / 2 + (u - 0.5) * (b - a) * gather
        y = BACK - 0.11 + 0.035 * np.sin(u * 2 * np.pi * 6.5 + 0.7 * np.sin(4 * v))
        parts.append((grid_mesh(np.stack([x, y, 0.35 + v * (z1 - 0.30)], -1), repeat=(2.2, 4.6)), cloth))
    rod = tube([(x0 - 0.55, BACK - 0.11, z1 + 0.07), (x1 + 0.5, BACK - 0.11, z1 + 0.07)], 0.016)
    return parts + [(rod, Surface((0.75, 0.58, 0.30), rough=0.25, metallic=1.0))]


def chair(center, heading):
    """Makes a bentwood chair whose seat faces x before it is turned by heading. Returns a mesh without colours."""
    t = np.linspace(0, np.pi, 25)
    outer = np.stack([-0.19 - 0.06 * np.sin(t), 0.19 * np.cos(t), 0.45 + 0.47 * np.sin(t) ** 0.7], -1)
    inner = np.stack([-0.185 - 0.045 * np.sin(t), 0.11 * np.cos(t), 0.46 + 0.34 * np.sin(t) ** 0.7], -1)
    parts = [lathe([(0, 0.44), (0.20, 0.44), (0.21, 0.455), (0.20, 0.475), (0, 0.465)]), tube(outer, 0.015), tube(inner, 0.011)]
    for x, y in ((0.15, 0.13), (0.15, -0.13), (-0.15, 0.13), (-0.15, -0.13)):
        parts.append(tube([(x * 1.25, y * 1.25, 0), (x * 1.1, y * 1.1, 0.25), (x, y, 0.45)], [0.012, 0.016, 0.017]))
    ring = np.linspace(0, 2 * np.pi, 33)
    parts.append(tube(np.stack([0.165 * np.cos(ring), 0.165 * np.sin(ring), np.full(33, 0.24)], -1), 0.008))
    return moved(joined(parts), center, heading)


def cup(center, size=1.0):
    """Makes a cup on its saucer."""
    s, inside = size, [(0.036, 0.066), (0.030, 0.03), (0.0, 0.028)]
    profile = [
        (0.0, 0.0),
        (0.045, 0.002),
        (0.075, 0.014),
        (0.072, 0.017),
        (0.04, 0.008),
        (0.022, 0.008),
        (0.030, 0.02),
        (0.039, 0.066),
    ] + inside
    t = np.linspace(-1.9, 1.9, 15)
    handle = tube(np.stack([0.036 + 0.020 * np.cos(t), 0 * t, 0.042 + 0.020 * np.sin(t)], -1) * s + np.asarray(center), 0.0045 * s)
    return joined([lathe(np.array(profile) * s, center), handle])


def table(center, radius=0.40):
    """Makes a round table. Returns (top, foot) meshes; the top's texture is mapped flat, so that the grain runs all across."""
    x, y = center
    top = lathe(
        [(0, 0.715), (radius - 0.01, 0.715), (radius, 0.725), (radius, 0.742), (radius - 0.008, 0.75), (0, 0.75)], (x, y, 0), sides=72
    )
    V, F, _, N, C = top
    foot = [(0.24, 0.0), (0.24, 0.02), (0.06, 0.05), (0.035, 0.10), (0.028, 0.45), (0.035, 0.66), (0.10, 0.715)]
    return (V, F, V[:, :2] * 1.1 + 0.5, N, C), lathe(foot, (x, y, 0))


def vase(rng, center, blooms):
    """Makes a vase with leaves and flowers. Returns a list of (mesh, Surface)."""
    x, y, z = center
    pot = lathe([(0.035, 0), (0.055, 0.04), (0.05, 0.09), (0.028, 0.13), (0.036, 0.16), (0.030, 0.16), (0.02, 0.12)], center)
    things = [(pot, Surface((0.25, 0.42, 0.62), rough=0.15, specular=0.7))]
    for k in range(9):
        angle, reach = k * 2.4, 0.035 + 0.06 * rng.random()
        tip = np.array([x + reach * np.cos(angle), y + reach * np.sin(angle), z + 0.24 + 0.09 * rng.random()])
        things.append(
            (
                tube([(x, y, z + 0.12), (0.4 * tip[0] + 0.6 * x, 0.4 * tip[1] + 0.6 * y, z + 0.2), tip], 0.003, 6),
                Surface((0.25, 0.42, 0.18)),
            )
        )
        petals = [blob(tip + 0.016 * np.array([np.cos(a), np.sin(a), 0.2]), (0.014, 0.014, 0.008), 10) for a in np.arange(6) * np.pi / 3]
        things.append((joined(petals), Surface(blooms[k % len(blooms)])))
        things.append((blob(tip + [0, 0, 0.008], (0.009, 0.009, 0.007), 10), Surface((0.92, 0.75, 0.2))))
    things.append((foliage(rng, (x, y, z + 0.19), (0.07, 0.07, 0.05), 26, 0.03, ((0.35, 0.52, 0.22), (0.18, 0.34, 0.14))), Surface()))
    return things


def bookcase(rng, low, high, rows):
    """Makes a case full of books in the plane y = low[1]. Returns a list of (mesh, Surface)."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    dark = Surface(wood(rng, (0.30, 0.18, 0.11)), rough=0.45)
    boards = [box((x0, y1 - 0.02, z0), (x1, y1, z1)), box((x0 - 0.03, y0, z0), (x0, y1, z1)), box((x1, y0, z0), (x1 + 0.03, y1, z1))]
    step, books = (z1 - z0) / rows, []
    palette = np.array(
        [
            (0.58, 0.16, 0.14),
            (0.16, 0.26, 0.42),
            (0.72, 0.58, 0.32),
            (0.18, 0.34, 0.24),
            (0.80, 0.74, 0.62),
            (0.34, 0.20, 0.30),
            (0.76, 0.40, 0.18),
        ]
    )
    for r in range(rows + 1):
        boards.append(box((x0 - 0.03, y0, z0 + r * step - 0.012), (x1 + 0.03, y1, z0 + r * step + 0.012)))
    for r in range(rows):
        x, z = x0 + 0.01, z0 + r * step + 0.012
        while x < x1 - 0.07:
            thick, tall = rng.uniform(0.022, 0.055), step * rng.uniform(0.58, 0.86)
            if rng.random() < 0.93:
                color = np.clip(palette[rng.integers(len(palette))] * rng.uniform(0.8, 1.2), 0, 1)
                front = y0 + rng.uniform(0.02, 0.06)
                books.append(painted(box((x, front, z), (x + thick - 0.002, y1 - 0.03, z + tall)), color))
                for at in (0.16, 0.78):
                    band = box((x, front - 0.001, z + at * tall), (x + thick - 0.002, front, z + (at + 0.05) * tall))
                    books.append(painted(band, (0.85, 0.72, 0.42) if thick > 0.03 else color * 0.6))
            x += thick
    return [(joined(boards), dark), (joined(books), Surface(rough=0.5))]


def counter(rng):
    """Makes the counter with the espresso machine, cups, a cake stand, and shelves of bottles behind. Returns a list of (mesh, Surface)."""
    steel = Surface((0.80, 0.80, 0.82), rough=0.22, metallic=1.0)
    china, black = Surface((0.92, 0.91, 0.88), rough=0.15, specular=0.6), Surface((0.05, 0.05, 0.055), rough=0.3)
    oak = Surface(wood(rng, (0.50, 0.31, 0.17), planks=5), rough=0.4)
    things = [(box((1.62, 0.55, 0.10), (2.25, 2.75, 1.02), 1.0), oak), (box((1.66, 0.60, 0.0), (2.2, 2.7, 0.10)), black)]
    things.append(
        (box((1.52, 0.47, 1.02), (2.32, 2.75, 1.07), 0.9), Surface(plaster(rng, (0.78, 0.76, 0.73), 0.12), rough=0.15, specular=0.6))
    )
    things += [
        (box((1.70, 1.75, 1.11), (2.15, 2.45, 1.20)), steel),
        (box((1.86, 1.75, 1.20), (2.15, 2.45, 1.42)), Surface((0.62, 0.12, 0.10), rough=0.2, specular=0.7)),
    ]
    things += [(box((1.68, 1.72, 1.42), (2.17, 2.48, 1.50)), steel)]
    things += [(lathe([(0.03, 0), (0.03, 0.05)], (x, y, 1.07)), steel) for x, y in ((1.74, 1.8), (1.74, 2.4), (2.1, 1.8), (2.1, 2.4))]
    for y in (1.95, 2.25):
        things.append((lathe([(0, 0), (0.032, 0), (0.036, 0.05), (0, 0.05)], (1.78, y, 1.33)), steel))
        things.append((tube([(1.78, y, 1.345), (1.62, y, 1.335)], 0.012), black))
    things += [(cup((1.76 + 0.11 * (k % 3), 1.83 + 0.12 * (k // 3), 1.50), 0.9), china) for k in range(12)]
    stand = lathe([(0, 0), (0.08, 0), (0.02, 0.02), (0.015, 0.10), (0.15, 0.115), (0.155, 0.125), (0, 0.12)], (1.86, 1.15, 1.07))
    things.append((stand, china))
    for k in range(7):
        a = k * 2 * np.pi / 7
        things.append(
            (
                blob((1.86 + 0.09 * np.cos(a), 1.15 + 0.09 * np.sin(a), 1.215), (0.04, 0.04, 0.024), 12),
                Surface((0.72, 0.42, 0.18), rough=0.4),
            )
        )
    things.append((blob((1.86, 1.15, 1.235), (0.045, 0.045, 0.035), 12), Surface((0.85, 0.30, 0.28), rough=0.3)))
    plank = Surface(wood(rng, (0.32, 0.20, 0.12)))
    hues = [(0.12, 0.28, 0.14), (0.40, 0.20, 0.07), (0.10, 0.16, 0.28), (0.55, 0.12, 0.10), (0.75, 0.62, 0.30)]
    for z in (1.25, 1.62, 1.99):
        things.append((box((3.06, 0.4, z - 0.025), (3.3, 2.6, z), 1.0), plank))
        y = 0.5
        while y < 2.5:
            r, h = rng.uniform(0.032, 0.042), rng.uniform(0.20, 0.29)
            profile = [(0, 0), (r, 0), (r, 0.62 * h), (0.3 * r, 0.78 * h), (0.3 * r, h), (0, h)]
            things.append((lathe(profile, (3.17, y, z), 24), Surface(hues[rng.integers(len(hues))], rough=0.12, specular=0.8)))
            things.append((lathe([(r + 0.001, 0.2 * h), (r + 0.001, 0.5 * h)], (3.17, y, z), 24), Surface((0.86, 0.80, 0.66))))
            y += rng.uniform(0.09, 0.17)
    return things


def pictures(rng):
    """Makes the menu board and a framed poster. Returns a list of (mesh, Surface)."""
    things = []
    dark = Surface(wood(rng, (0.28, 0.17, 0.10)), rough=0.4)
    for image, x, z, w, h in ((menu_board(rng), 2.02, 1.40, 1.00, 1.10), (poster_jazz(rng), 1.33, 1.42, 0.52, 0.74)):
        things.append((quad((x, BACK - 0.035, z), (w, 0, 0), (0, 0, h)), Surface(image, rough=0.7)))
        for low, high in (
            ((x - 0.04, z - 0.04), (x + w + 0.04, z)),
            ((x - 0.04, z + h), (x + w + 0.04, z + h + 0.04)),
            ((x - 0.04, z), (x, z + h)),
            ((x + w, z), (x + w + 0.04, z + h)),
        ):
            things.append((box((low[0], BACK - 0.05, low[1]), (high[0], BACK, high[1])), dark))
    return things


def tables(rng):
    """Makes tables, chairs and what stands on them. Returns a list of (mesh, Surface)."""
    oak, iron = Surface(wood(rng, (0.55, 0.35, 0.20)), rough=0.3), Surface((0.07, 0.07, 0.075), rough=0.35, metallic=0.6)
    bent, china = Surface((0.30, 0.14, 0.07), rough=0.3), Surface((0.93, 0.92, 0.89), rough=0.15, specular=0.6)
    things = []
    for center, radius in (((-0.78, 0.92), 0.38), ((1.02, -0.72), 0.44), ((0.72, 1.75), 0.34)):
        top, foot = table(center, radius)
        things += [(top, oak), (foot, iron)]
    for center, heading in (((-1.28, 0.42, 0), 45), ((-0.30, 1.38, 0), 225), ((1.62, -0.42, 0), 205), ((0.36, 2.05, 0), -40)):
        things.append((chair(center, heading), bent))
    cloth = plaid(rng, (0.86, 0.84, 0.80), (0.20, 0.34, 0.52), (0.70, 0.20, 0.18), cells=5)
    x, y = 1.02, -0.72
    u, v = np.meshgrid(np.linspace(-0.36, 0.36, 60), np.linspace(-0.36, 0.36, 60))
    over = np.maximum(np.hypot(u, v) - 0.44, 0)
    things.append((grid_mesh(np.stack([x + u, y + v, 0.756 - 1.1 * over], -1)), Surface(cloth, rough=0.9, specular=0.1)))
    things += vase(rng, (1.12, -0.60, 0.757), [(0.93, 0.55, 0.20), (0.95, 0.92, 0.86), (0.85, 0.25, 0.35)])
    things += [(cup((0.86, -0.86, 0.757)), china), (cup((-0.92, 0.72, 0.75)), china), (cup((-0.62, 1.10, 0.75)), china)]
    things.append((lathe([(0, 0), (0.034, 0), (0.034, 0.001), (0, 0.001)], (0.86, -0.86, 0.812)), Surface((0.25, 0.13, 0.06))))
    V, F, UV, N, C = quad((-0.16, -0.22, 0), (0.32, 0, 0), (0, 0.44, 0))
    things.append((moved((V, F, UV, N, C), (1.13, -0.93, 0.759), 28), Surface(newspaper(rng), rough=0.9)))
    things += vase(rng, (0.72, 1.75, 0.75), [(0.90, 0.80, 0.30), (0.95, 0.95, 0.92)])
    return things


def plants(rng):
    """Makes the pots on the window sill and a tall plant in the corner. Returns a list of (mesh, Surface)."""
    clay, things = Surface((0.62, 0.33, 0.22), rough=0.7), []
    z = WINDOW[2]
    for x, size in ((-1.86, 1.0), (-1.50, 0.7), (0.62, 0.85)):
        things.append(
            (
                lathe(
                    [
                        (0.06 * size, 0),
                        (0.08 * size, 0.13 * size),
                        (0.09 * size, 0.13 * size),
                        (0.09 * size, 0.16 * size),
                        (0.07 * size, 0.15 * size),
                        (0, 0.14 * size),
                    ],
                    (x, BACK - 0.04, z),
                ),
                clay,
            )
        )
        leaves = foliage(
            rng,
            (x, BACK - 0.05, z + 0.27 * size),
            (0.15 * size, 0.10 * size, 0.13 * size),
            130,
            0.045,
            ((0.42, 0.58, 0.26), (0.18, 0.36, 0.15)),
        )
        things.append((leaves, Surface(rough=0.5)))
    pot = lathe([(0.15, 0), (0.19, 0.34), (0.205, 0.34), (0.205, 0.38), (0.17, 0.37), (0, 0.35)], (-2.55, 2.25, 0))
    things.append((pot, Surface((0.24, 0.26, 0.30), rough=0.4)))
    for k in range(13):
        angle, lift = 2.4 * k, rng.uniform(0.75, 1.25)
        reach = rng.uniform(0.22, 0.42)
        t = np.linspace(0, 1, 14)
        stem = np.stack([reach * t**1.5 * np.cos(angle), reach * t**1.5 * np.sin(angle), 0.35 + lift * (t - 0.28 * t**3)], -1) + np.array(
            [-2.55, 2.25, 0]
        )
        across = 0.055 * np.sin(np.pi * np.clip(1.25 * t - 0.25, 0, 1)) + 0.004
        side = np.array([-np.sin(angle), np.cos(angle), 0])
        leaf = np.stack([stem - across[:, None] * side, stem - [0, 0, 0.02], stem + across[:, None] * side], 1)
        things.append((grid_mesh(leaf), Surface((0.20 + 0.05 * rng.random(), 0.40, 0.20), rough=0.35)))
    return things


def lamps():
    """Makes two pendant lamps over the counter. Returns (list of (mesh, Surface), emitters)."""
    things, emitters = [], {}
    enamel, brass = Surface((0.13, 0.30, 0.26), rough=0.2, specular=0.7), Surface((0.80, 0.60, 0.30), rough=0.25, metallic=1.0)
    for k, (x, y, z) in enumerate(((1.88, 0.90, 2.30), (1.88, 2.05, 2.30))):
        outside = [(0.190, 0.0), (0.180, 0.03), (0.115, 0.115), (0.045, 0.17), (0.030, 0.22), (0.0, 0.225)]
        inside = [(0.189, 0.0), (0.178, 0.028), (0.113, 0.112), (0.043, 0.166), (0.0, 0.168)]
        things += [(lathe(outside, (x, y, z)), enamel), (lathe(inside, (x, y, z)), Surface((0.93, 0.90, 0.82), rough=0.5))]
        things.append((tube([(x, y, z + 0.22), (x, y, 3.15)], 0.006, 6), Surface((0.06, 0.06, 0.06))))
        things.append((lathe([(0.022, 0.10), (0.022, 0.17)], (x, y, z)), brass))
        glow = {"type": "area", "radiance": {"type": "rgb", "value": [34.0, 23.0, 12.5]}}
        emitters[f"bulb{k}"] = {"type": "sphere", "center": [x, y, z + 0.045], "radius": 0.05, "glow": glow}
    return things, emitters


def actors(shot):
    """Makes the waiter with his tray, the guest and the cat, as they are in one frame. Returns a list of (mesh, Surface)."""
    skin_cloth = Surface(rough=0.65, specular=0.25)
    swing = np.sin(np.radians(shot.gait))
    bend = np.cos(np.radians(shot.gait))
    thigh, shin = (27 * swing, -27 * swing), (27 * swing - 12 - 24 * max(0, bend), -27 * swing - 12 - 24 * max(0, -bend))
    walk = Pose(0.93 - 0.025 * abs(swing), 4, thigh, shin, ((-22 * swing, 9), (38, 18)), ((-22 * swing + 18, 6), (118, 12)), head=-28)
    waiter = Look(vest=(0.17, 0.13, 0.14), apron=(0.48, 0.12, 0.14), moustache=True, trousers=(0.13, 0.13, 0.16), hair=(0.16, 0.10, 0.07))
    place, heading = (shot.waiter_x, 2.05, 0.0), -6
    things = [(moved(person(walk, waiter), place, heading), skin_cloth)]
    hand = joints(walk)["handR"] + [0.05, 0, 0.035]
    tray = lathe([(0, 0), (0.17, 0), (0.18, 0.018), (0.175, 0.018), (0.165, 0.005), (0, 0.005)])
    things.append((moved(moved(tray, hand), place, heading), Surface((0.75, 0.72, 0.68), rough=0.2, metallic=1.0)))
    for x, y in ((0.07, 0.05), (-0.06, 0.06)):
        things.append((moved(moved(cup((x, y, 0.005)), hand), place, heading), Surface((0.93, 0.92, 0.89), rough=0.15)))
    bottle = lathe([(0, 0.005), (0.034, 0.005), (0.034, 0.15), (0.012, 0.20), (0.012, 0.25), (0, 0.25)])
    things.append((moved(moved(bottle, hand + [0.02, -0.08, 0]), place, heading), Surface((0.20, 0.42, 0.20), rough=0.1, specular=0.8)))
    up = shot.wave
    sit = Pose(0.53, 2, (84, 88), (-4, 6), ((35, 14), (58, 34)), ((88, -10), (172, up - 92)), head=4, nod=-4)
    guest = Look(
        shirt=(0.90, 0.87, 0.80),
        stripe=(0.16, 0.22, 0.40),
        trousers=(0.30, 0.36, 0.50),
        hair=(0.50, 0.27, 0.13),
        long_hair=True,
        skin=(0.86, 0.66, 0.55),
    )
    things.append((moved(person(sit, guest), (-1.28, 0.42, 0.0), 45), skin_cloth))
    things.append((moved(cat(shot.cat_gait), (*shot.cat, 0), 168), Surface(rough=0.8, specular=0.2)))
    return things


def cafe(rng, view):
    """Makes everything that stands still: shapes, lights, and the street's picture as a light behind the window. Returns a scene dictionary."""
    things = counter(rng) + pictures(rng) + tables(rng) + plants(rng) + bookcase(rng, (-3.22, 2.62, 0.05), (-2.62, 2.93, 2.15), 6)
    lamp_things, scene = lamps()
    things += lamp_things + room(rng) + curtains(rng)
    scene.update({f"still{i}": s for i, s in enumerate(assemble(things))})
    x0, x1, z0, z1, y = BACKDROP
    place = mi.ScalarTransform4f().look_at(
        origin=[(x0 + x1) / 2, y, (z0 + z1) / 2], target=[(x0 + x1) / 2, y - 1, (z0 + z1) / 2], up=[0, 0, 1]
    )
    place = place @ mi.ScalarTransform4f().scale([(x1 - x0) / 2, (z1 - z0) / 2, 1])
    radiance = {"type": "bitmap", "bitmap": mi.Bitmap(np.ascontiguousarray(view[::-1])), "raw": True}
    scene["street"] = {"type": "rectangle", "to_world": place, "glow": {"type": "area", "radiance": radiance}}
    scene["sun"] = {
        "type": "directional",
        "direction": [float(-c) for c in TO_SUN],
        "irradiance": {"type": "rgb", "value": [4.1, 3.65, 2.95]},
    }
    back = mi.ScalarTransform4f().look_at(origin=[0.5, -6.9, 2.0], target=[0.3, 0, 1.0], up=[0, 0, 1]) @ mi.ScalarTransform4f().scale(
        [1.6, 0.9, 1]
    )
    scene["door"] = {
        "type": "rectangle",
        "to_world": back,
        "glow": {"type": "area", "radiance": {"type": "rgb", "value": [0.62, 0.66, 0.74]}},
    }
    return scene


def radiance(still, shot, spp, seed):
    """Renders one frame. Returns H^(i), (HEIGHT, WIDTH, 3) linear radiance, 1 where the shortest exposure clips, not clipped."""
    moving = {f"actor{i}": s for i, s in enumerate(assemble(actors(shot)))}
    view = camera(shot.eye, (shot.look[0], BACK, shot.look[1]), shot.roll, FOV, (WIDTH, HEIGHT))
    scene = mi.load_dict({"type": "scene", "view": view, **still, **moving})
    return EXPOSURE * render(scene, spp, seed, depth=8)


# --------------------------------------------------------------------------------------- the camera's electronics


def photograph(rng, hdr, ev):
    """Takes one exposure of a radiance: shot noise, read noise, 12-bit conversion, clipping, gamma. Returns (H, W, 3) uint16."""
    exposed = hdr.astype(np.float64) * 2**ev
    electrons = rng.poisson(np.minimum(exposed, 1.0) * FULL_WELL) + READ_NOISE * rng.standard_normal(hdr.shape)
    number = np.clip(np.rint(electrons / FULL_WELL * SENSOR_LEVELS), 0, SENSOR_LEVELS)
    number[exposed >= 1.0] = SENSOR_LEVELS  # a full well reads as the largest number, without noise
    coded = np.rint((number / SENSOR_LEVELS) ** (1 / 2.2) * 65536 / FILE_STEP) * FILE_STEP
    return np.minimum(coded, 65535).astype(np.uint16)


@dataclass
class RenderConfig:
    """The bracket and how well it is rendered."""

    out: str = str(Path(__file__).parent / "cafe")  # folder to write to
    spp: Count = 48  # paths per pixel, 4 or more
    seed: Seed = 7  # of textures, plants and sensor noise
    variant: str = "llvm_ad_rgb"  # Mitsuba variant
    threads: Whole = 0  # processor cores to use, 0 for all


def main():
    """Renders the bracket and writes it."""
    args = parse(RenderConfig, description=__doc__)
    if args.variant not in mi.variants():
        raise ValueError(f"--variant {args.variant}: unknown; use one of {', '.join(mi.variants())}")
    if args.spp < PIECE:
        raise ValueError(f"--spp {args.spp}: must be {PIECE} or more")
    out = Path(args.out)
    check_bracket_folder(out)
    check_writable(out)
    mi.set_variant(args.variant)
    if args.threads:
        dr.set_thread_count(args.threads)

    view = street(np.random.default_rng(args.seed), args.spp // 4)
    still = cafe(np.random.default_rng(args.seed + 1), view)
    for i in (1, 0, 2):     # the truth first: its mark identifies the folder
        ev, hdr = EV[i], radiance(still, SHOTS[i], args.spp, seed=i)
        ldr = photograph(np.random.default_rng([args.seed, i]), hdr, ev - min(EV))
        if i == 1:
            write_image(out / "HDRImg.hdr", np.clip(hdr, 0, 1).astype(np.float32), TRUTH)
        write_image(out / f"{i + 1}.tif", ldr)
        print(f"{i + 1}.tif: EV {ev:g}, {100 * np.mean((ldr == 65535).any(-1)):.1f} % of the pixels have a clipped channel")
    write_atomically(out / "exposure.txt", lambda file: file.write("".join(f"{ev:.1f}\n" for ev in EV).encode()))


if __name__ == "__main__":
    run(main)
