"""Draws the scenes that render.py renders: the camera, furnished rooms and outdoor places, lamps, the panorama around them.

Axes: x right, y into the picture, z up; metres, radians, seen from an eye near (0, 0, 1.5). tau: time in frames, 0 is the reference.
What stands and moves in a scene comes from things.py.
"""

import math
from dataclasses import dataclass

import numpy as np

from synthetic.rendered.materials import light, material
from synthetic.rendered.meshes import ball, box, foliage, joined, lathe, limb, panel, placed, tube, wall
from synthetic.rendered.things import Thing, movers, still
from synthetic.textures import log_uniform

SUN = 2000.0  # panoramas are clipped here, in units of their median: a sun of half a degree still casts shadows, and the noise stays in bounds
SHAKE = 30.0  # largest shift of the camera relative to the reference, pixels
MOTION = (1.0, 80.0)  # of the fastest object between neighbouring frames, pixels, log-uniform
STILL = 0.15  # probability of a scene in which next to nothing moves
BLURRED = 0.45  # probability that the long exposure has motion blur
BLUR = 24.0  # longest motion blur, pixels


@dataclass
class View:
    """The camera."""

    eye: np.ndarray  # metres
    fov: float  # horizontal, radians
    focal: float  # focal length, pixels
    pitch: float  # upwards, radians
    shake: np.ndarray  # (3, 6) x, y, z, yaw, pitch, roll of the three frames relative to the reference, metres and radians


@dataclass
class Stage:
    """Everything in a scene, ready to be rendered."""

    things: list[Thing]
    panorama: np.ndarray  # (n, 2n, 3) radiance all around; its middle column lies in direction y
    view: View
    blur: float  # how long the long exposure lasts, in frames; 0 for an instant


# --- the camera -------------------------------------------------------------------------------------------------------


def hand_held(rng, focal, depth):
    """Draws how a hand shakes the camera: mostly by a few pixels, never by more than SHAKE, sometimes not at all (a tripod).

    focal: focal length, pixels; depth: distance at which the pixels are counted, metres.
    Returns: (3, 6) as in View.shake.
    """
    shake = np.zeros((3, 6))
    if rng.random() < 0.12:
        return shake
    largest = SHAKE * rng.random() ** 2.5
    for frame in (0, 2):
        turned = rng.random()  # this share of the shift is a turn of the camera; the rest is a step aside, with parallax
        angle, other = rng.uniform(0, 2 * np.pi, 2)
        turn, step = 0.9 * largest * turned / focal, 0.9 * largest * (1 - turned) * depth / focal
        shake[frame, :3] = step * math.cos(other), step * rng.uniform(-0.5, 0.5), step * math.sin(other)
        shake[frame, 3:] = turn * math.cos(angle), turn * math.sin(angle), min(0.1 * largest / focal, 0.01) * rng.uniform(-1, 1)
    return shake


def draw_view(rng, width):
    """Draws a camera in front of the scene, at the height of a person's eyes or lower. width: of the image, pixels. Returns: View."""
    fov = math.radians(rng.uniform(38, 72))
    focal = width / 2 / math.tan(fov / 2)
    eye = np.array([rng.uniform(-0.5, 0.5), 0.0, rng.uniform(0.9, 1.7)])
    return View(eye, fov, focal, rng.uniform(-0.12, 0.06), hand_held(rng, focal, log_uniform(rng, 1.5, 8)))


def pose(view, tau):
    """Finds where the camera is at time tau. Between frames it moves along a line. Returns: eye (3,), yaw, pitch, roll."""
    offset = [np.interp(tau, (-1, 0, 1), column) for column in view.shake.T]
    return view.eye + offset[:3], offset[3], view.pitch + offset[4], offset[5]


# --- places -----------------------------------------------------------------------------------------------------------


def clutter(rng, low, high, count, images):
    """Puts boxes, balls and vases on the floor between low and high, both (x, y). Returns: list of things."""
    things, groups = [], [material(rng, vivid=0.55) for _ in range(3)] + [material(rng, images=images)]
    meshes = [[] for _ in groups]
    for k in range(count):
        size, place = log_uniform(rng, 0.08, 0.7), (*rng.uniform(low, high), 0)
        kind = rng.integers(3)
        z = np.linspace(0, 1, 20)
        mesh = (box((-size / 2, -size / 2, 0), size * rng.uniform(0.3, 1.2, 3), 1 / size),
                ball(size / 3, (0, 0, size / 3)),
                lathe(np.stack([(0.18 + 0.12 * np.sin(rng.uniform(3, 7) * z + rng.uniform(0, 6))) * (z < 1), z], -1) * size * 1.3))[kind]
        meshes[k % 4].append(placed(mesh, place, rng.uniform(0, 6)))
    things += [still(look, joined(group)) for look, group in zip(groups, meshes) if group]
    return things


def shelf(rng, corner, width, height):
    """Makes a bookcase full of books that faces the camera. corner: left, front, bottom. Returns: list of things."""
    rows, depth = int(rng.integers(2, 6)), 0.3      # metres
    board = [box((0, 0, height * k / rows), (width, depth, height * k / rows + 0.03)) for k in range(rows + 1)]
    board += [box((x, 0, 0), (x + 0.03, depth, height)) for x in (0, width)] + [box((0, depth, 0), (width, depth + 0.02, height))]
    books = [[], [], []]
    for row in range(rows):
        x = 0.05
        while x < width - 0.1:
            thick, tall = rng.uniform(0.02, 0.07), height / rows * rng.uniform(0.5, 0.88)
            low = height * row / rows + 0.03
            V, F, UV = box((x, rng.uniform(0.02, 0.08), low), (x + thick, depth, low + tall), 0.5)
            if rng.random() < 0.9:
                books[rng.integers(3)].append((V, F, UV + rng.random(2)))
            x += thick + 0.004
    things = [still(material(rng, "wood", 0.1), placed(joined(board), corner))]
    return things + [still(material(rng, vivid=0.6), placed(joined(group), corner)) for group in books if group]


def table(rng, place):
    """Makes a table with things on it. place: (3,) of its middle on the floor. Returns: list of things."""
    width, depth, height = rng.uniform(0.8, 1.8), rng.uniform(0.6, 0.9), rng.uniform(0.45, 0.8)
    feet = [(x, y) for x in (-width / 2.2, width / 2.2) for y in (-depth / 2.3, depth / 2.3)]
    legs = [box((x - 0.03, y - 0.03, 0), (x + 0.03, y + 0.03, height)) for x, y in feet]
    top = box((-width / 2, -depth / 2, height), (width / 2, depth / 2, height + 0.04))
    heading = rng.uniform(-0.4, 0.4)
    things = [still(material(rng, "wood", 0.15), placed(joined([top, *legs]), place, heading))]
    for _ in range(int(rng.integers(2, 7))):
        x, y, size = rng.uniform(-0.4, 0.4) * width, rng.uniform(-0.4, 0.4) * depth, rng.uniform(0.06, 0.16)
        z = np.linspace(0, 1, 16)
        form = (ball(size, (0, 0, size)), placed(box((-size, -size / 2, 0), (size, size / 2, size), 4), (0, 0, 0), rng.uniform(0, 3)),
                lathe(np.stack([(0.35 + 0.15 * np.sin(7 * z)) * (z < 1), 2 * z], -1) * size))[rng.integers(3)]
        things.append(still(material(rng, vivid=0.5), placed(placed(form, (x, y, height + 0.04)), place, heading)))
    return things


def lamps(rng, count, low, high, ceiling, radiance):
    """Makes hanging globes, standing lamps and coloured tubes.

    low, high: (x, y) between which they stand; ceiling: its height, or None for standing lamps only; radiance: range of their radiance.
    Returns: list of things.
    """
    things = []
    for _ in range(count):
        x, y = rng.uniform(low, high)
        size, kind = rng.uniform(0.05, 0.15), rng.integers(3) if ceiling else 1
        glow = light(rng, log_uniform(rng, *radiance))
        dark = material(rng, "grain", 0.2)
        if kind == 0:
            z = ceiling - rng.uniform(0.3, 1.0)
            swing = rng.uniform(0, 0.15) * (rng.random() < 0.3)
            hang = lambda mesh, x=x, y=y, s=swing: lambda tau: placed(mesh, (x + s * math.sin(1.3 * tau), y, 0))
            cord = tube([(0, 0, z), (0, 0, ceiling)], 0.008, 6)
            things += [Thing(glow, hang(ball(size, (0, 0, z))), swing > 0), Thing(dark, hang(cord), swing > 0)]
        elif kind == 1:
            z = rng.uniform(1.2, 1.8) if ceiling else rng.uniform(2.2, 3.6)
            things += [still(glow, ball(size, (x, y, z))), still(dark, tube([(x, y, 0), (x, y, z)], 0.02, 8))]
        else:
            t = np.linspace(0, 1, 30)[:, None]
            curve = (x, y, rng.uniform(1.0, ceiling - 0.4)) + np.concatenate([t - 0.5, 0 * t, 0.15 * np.sin(rng.uniform(0, 12) * t)], 1)
            things.append(still(light(rng, log_uniform(rng, *radiance), 2.0), tube(curve, 0.02, 8)))
    return things


def window_wall(rng, corner, along, height):
    """Makes a wall with one to three windows. corner, along: as for meshes.wall; height: metres. Returns: meshes of the wall and of its frames and bars."""
    length, count = np.linalg.norm(along), int(rng.integers(1, 4))
    edges = np.linspace(0, length, count + 1)
    wide, low, high = rng.uniform(0.45, 0.85), rng.choice([0.02, rng.uniform(0.5, 1.0)]), height - rng.uniform(0.15, 0.5)
    openings = [((a + b) / 2 - wide * (b - a) / 2, (a + b) / 2 + wide * (b - a) / 2, low, high) for a, b in zip(edges[:-1], edges[1:])]
    bars = []
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    for s0, s1, z0, z1 in openings:
        for k in range(columns + 1):
            s, half = s0 + (s1 - s0) * k / columns, 0.05 if k in (0, columns) else 0.02
            bars.append(box((s - half, -half, z0), (s + half, half, z1)))
        for k in range(rows + 1):
            z, half = z0 + (z1 - z0) * k / rows, 0.05 if k in (0, rows) else 0.02
            bars.append(box((s0, -half, z - half), (s1, half, z + half)))
    return wall(corner, along, height, openings, 0.5), placed(joined(bars), corner, math.atan2(along[1], along[0]))


def interior(rng, images):
    """Furnishes a room with windows in one wall. images: for the pictures on the walls.

    Returns: list of things, limits for movers(), and the direction (x, y) out of the window.
    """
    half, depth, height = rng.uniform(1.8, 3.6), rng.uniform(3.2, 7), rng.uniform(2.4, 3.2)
    paint = [material(rng, kind, 0.25) for kind in (rng.choice(["cloud", "grain", "stripes", "bricks", "dots"]), "grain")]
    corners = {"back": ((-half, depth, 0), (2 * half, 0, 0), (0, 1)), "left": ((-half, -1, 0), (0, depth + 1, 0), (-1, 0)),
               "right": ((half, -1, 0), (0, depth + 1, 0), (1, 0)), "front": ((-half, -1, 0), (2 * half, 0, 0), (0, -1))}
    side = str(rng.choice(["back", "left", "right"], p=(0.7, 0.15, 0.15)))
    things = []
    for name, (corner, along, _) in corners.items():
        mesh = wall(corner, along, height, [], 0.5)
        if name == side:
            mesh, frame = window_wall(rng, corner, np.array(along, float), height)
            things.append(still(material(rng, "grain", 0.15), frame))
        things.append(still(paint[name == side], mesh))
    floor = material(rng, str(rng.choice(["wood", "checks", "cloud", "plaid", "cells"])), 0.2)
    things.append(still(floor, panel((-half, -1, 0), (2 * half, 0, 0), (0, depth + 1, 0), 0.4)))
    white = material(rng, "grain", 0.0)
    white.picture = 0.5 + 0.4 * white.picture
    things.append(still(white, panel((-half, -1, height), (2 * half, 0, 0), (0, depth + 1, 0))))
    if rng.random() < 0.85:  # a lamp behind the camera; with it the outside is 4 to 60 times as bright as the room
        things.append(still(light(rng, log_uniform(rng, 0.5, 9), 0.2), panel((-half, -0.95, height - 0.01), (0, 0.7, 0), (2 * half, 0, 0))))
    for x in {"back": (-1, 1), "left": (1,), "right": (-1,)}[side]:  # pictures and shelves along the walls
        for y in np.arange(1.2, depth - 0.8, 1.3):
            size, z = rng.uniform(0.4, 0.9), rng.uniform(0.9, 1.5)
            screen = material(rng, images=images) if rng.random() < 0.7 else material(rng)
            if rng.random() < 0.15:
                screen.glow = screen.picture * np.float32(log_uniform(rng, 0.1, 1.5))
            things.append(still(screen, panel((x * (half - 0.03), y, z), (0, -x * size, 0), (0, 0, size), None)))
    if side != "back" or rng.random() < 0.3:
        things += shelf(rng, (rng.uniform(-half, half - 1), depth - 0.36, 0), rng.uniform(0.8, 2), rng.uniform(0.8, height - 0.4))
    for _ in range(int(rng.integers(1, 3))):
        things += table(rng, (rng.uniform(-half + 0.6, half - 0.6), rng.uniform(1.8, depth - 0.6), 0))
    things += clutter(rng, (-half + 0.3, 1.5), (half - 0.3, depth - 0.3), int(rng.integers(3, 12)), images)
    count = int(rng.choice([0, 1, 2, 3], p=(0.3, 0.3, 0.25, 0.15)))
    things += lamps(rng, count, (-half + 0.3, 1.5), (half - 0.3, depth - 0.3), height, (1.0, 60))
    return things, (half - 0.3, depth - 0.4), corners[side][2]


def exterior(rng, images):
    """Builds an outdoor place: ground, houses, trees and street furniture. Returns: as interior(), with None for the direction."""
    ground = str(rng.choice(["grain", "bricks", "cells", "checks", "cloud"]))
    things = [still(material(rng, ground, 0.15), panel((-40, -10, 0), (80, 0, 0), (0, 60, 0), 0.5))]
    for _ in range(int(rng.integers(1, 5))):
        x, y, width, height = rng.uniform(-9, 9), rng.uniform(6, 20), rng.uniform(2, 7), rng.uniform(2, 9)
        house = placed(box((-width / 2, -2, 0), (width / 2, 2, height), rng.uniform(0.1, 0.4)), (x, y, 0), rng.uniform(-0.6, 0.6))
        things.append(still(material(rng, str(rng.choice(["windows", "bricks", "stripes", "cloud", "print"])), 0.35), house))
    for _ in range(int(rng.integers(0, 5))):
        x, y, size = rng.uniform(-6, 6), rng.uniform(3.5, 14), rng.uniform(1.5, 5)
        crown = placed(foliage(rng, size * rng.uniform(0.2, 0.4, 3), 700, 0.06 * size), (x, y, 0.75 * size))
        green = material(rng, "grain", 0.2)
        green.picture = green.picture * np.float32([0.5, 0.9, 0.3])
        things += [still(green, crown), still(material(rng, "wood", 0.1), limb((x, y, 0), (x, y, 0.7 * size), 0.04 * size, 0.02 * size))]
    if rng.random() < 0.4:  # a fence
        y, step = rng.uniform(3, 7), rng.uniform(0.15, 0.5)
        posts = [box((x, y, 0), (x + 0.05, y + 0.05, 1.0)) for x in np.arange(-6, 6, step)]
        rails = [box((-6, y, z), (6, y + 0.04, z + 0.05)) for z in (0.4, 0.9)]
        things.append(still(material(rng, vivid=0.4), joined(posts + rails)))
    if rng.random() < 0.5:  # a billboard
        x, y, size = rng.uniform(-3, 2), rng.uniform(3, 8), rng.uniform(0.8, 2)
        things.append(still(material(rng, images=images), panel((x, y, rng.uniform(0.2, 1)), (size * 1.3, 0, 0), (0, 0, size), None)))
    if rng.random() < 0.4:
        things += table(rng, (rng.uniform(-1.5, 1.5), rng.uniform(2, 5), 0))
    things += clutter(rng, (-3, 2), (3, 9), int(rng.integers(4, 16)), images)
    things += lamps(rng, int(rng.choice([0, 1, 3])), (-3, 3), (3, 10), None, (10, 90))
    return things, (3.0, 12.0), None


def turned_panorama(rng, panorama, outwards):
    """Turns the panorama by a random angle, mirrors it at random, divides it by its median and clips it at SUN.

    panorama: (n, 2n, 3); outwards: direction (x, y) out of the window, or None. Behind a window only the half that can be seen is kept.
    Returns: (n, 2n, 3) float32.
    """
    width = panorama.shape[1]
    around = np.roll(panorama, int(rng.integers(width)), 1)[:, :: int(rng.choice([-1, 1]))]
    around = np.minimum(around / max(float(np.median(around)), 1e-6), SUN)
    if outwards is not None:  # a closed room gets all its light through the window, so paths need not be wasted on the rest
        yaw = (np.arange(width) + 0.5 - width / 2) * 2 * np.pi / width
        around = around * ((np.sin(yaw) * outwards[0] + np.cos(yaw) * outwards[1]) > 0.1)[None, :, None]
    return around.astype(np.float32)


def draw_stage(rng, panorama, images, width):
    """Draws everything in a scene.

    panorama: (n, 2n, 3) radiance; images: list of (H, W, 3) radiance for pictures in it; width: of the rendered image, pixels.
    Returns: Stage.
    """
    view = draw_view(rng, width)
    things, limits, outwards = (interior if rng.random() < 0.55 else exterior)(rng, images)
    around = turned_panorama(rng, panorama, outwards)
    pixels = rng.uniform(0, 0.5) if rng.random() < STILL else log_uniform(rng, *MOTION)
    things = things + movers(rng, view, pixels, limits, images)
    blur = min(rng.uniform(0.15, 0.7), BLUR / max(pixels, 1)) if rng.random() < BLURRED else 0.0
    return Stage(things, around, view, blur)
