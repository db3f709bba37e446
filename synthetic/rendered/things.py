"""Things for rendered training scenes: materials, procedural pictures, meshes, and how they move. Plain numpy, no renderer.

Units: metres, radians, texels where a comment says so; z up, a thing stands on its origin. tau: time in frames, 0 is the reference.
A mesh is a tuple (V, F, UV): vertices (n, 3), faces (m, 3) counter-clockwise seen from outside, texture coordinates (n, 2).
Colours and pictures are linear albedos, RGB. See render_scenes.py for the scenes made of them.
"""

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

TILE = 256  # side of a procedural picture, texels


@dataclass
class Material:
    """What a surface looks like: Mitsuba's principled BSDF with a picture, or glass, or a light."""

    picture: np.ndarray  # (h, w, 3) albedo
    rough: float = 0.8  # roughness
    metallic: float = 0.0  # 1 for a metal
    specular: float = 0.3  # strength of the reflection of a dielectric
    glow: np.ndarray | None = None  # (h, w, 3) radiance where it shines by itself
    glass: bool = False  # clear glass, the picture is ignored


@dataclass
class Motion:
    """How a thing moves; all rates are per frame."""

    place: np.ndarray  # where it is at tau = 0, metres
    velocity: np.ndarray  # metres
    swerve: np.ndarray  # change of the velocity, metres
    heading: float  # about z at tau = 0, radians
    spin: float  # radians
    phase: float  # of its swing or gait at tau = 0, radians
    rate: float  # of the phase, radians


@dataclass
class Thing:
    """A mesh for every moment, and its material."""

    material: Material
    mesh: Callable  # tau -> mesh
    moving: bool = False


def log_uniform(rng, low, high):
    """One draw whose logarithm is uniform between those of low and high."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


# --- textures ---------------------------------------------------------------------------------------------------------


def color(rng, vivid=0.3):
    """An albedo (3,), strongly coloured with the given probability."""
    strong = rng.random() < vivid
    saturation = rng.uniform(0.65, 1.0) if strong else rng.uniform(0.0, 0.4)
    value = rng.uniform(0.45, 0.95) if strong else rng.uniform(0.15, 0.92)
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value)) ** 2.2


def fractal(rng, slope, stretch=1.0):
    """A periodic random field of unit deviation whose amplitude falls as frequency^-slope. (TILE, TILE)"""
    fy, fx = np.fft.fftfreq(TILE)[:, None] * TILE, np.fft.rfftfreq(TILE)[None] * TILE * stretch
    waves = np.fft.rfft2(rng.standard_normal((TILE, TILE))) * np.maximum(np.hypot(fy, fx), 1) ** -slope
    waves[0, 0] = 0
    field = np.fft.irfft2(waves, s=(TILE, TILE))
    return field / field.std()


def pattern(rng, kind):
    """A periodic pattern in [0, 1]. (TILE, TILE)"""
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
    """A procedural picture: two or three colours laid out by a pattern, roughened, since made things are rough too. (TILE, TILE, 3)"""
    amount = pattern(rng, kind or PATTERNS[rng.integers(len(PATTERNS))])[..., None]
    albedo = color(rng, vivid) * (1 - amount) + color(rng, vivid) * amount
    if rng.random() < 0.35:
        albedo = np.where((fractal(rng, 1.9) > rng.uniform(0.5, 1.5))[..., None], color(rng, vivid), albedo)
    rough = np.exp(rng.uniform(0.03, 0.22) * fractal(rng, rng.uniform(0.7, 1.4)))[..., None]
    return np.clip(albedo * rough, 0.01, 0.92).astype(np.float32)


def photograph(rng, images):
    """A piece of one of the images, tone-mapped into an albedo."""
    image = images[rng.integers(len(images))]
    height = int(rng.integers(120, min(360, len(image)) + 1))
    width = min(int(height * rng.uniform(0.8, 1.5)), image.shape[1])
    top, left = rng.integers(len(image) - height + 1), rng.integers(image.shape[1] - width + 1)
    piece = image[top:top + height, left:left + width]
    bright = np.quantile(piece, rng.uniform(0.85, 0.98)) + 1e-6
    return (0.9 * np.clip(piece / bright, 0, 1) ** 0.8).astype(np.float32)


def material(rng, kind=None, vivid=0.3, images=None):
    """A surface: mostly matt, often glossy, sometimes metal. Of a photograph if images are given."""
    image = picture(rng, kind, vivid) if images is None else photograph(rng, images)
    finish = rng.random()
    if finish < 0.55:
        return Material(image, rough=rng.uniform(0.6, 1.0), specular=0.2)
    if finish < 0.88:
        return Material(image, rough=rng.uniform(0.15, 0.5), specular=0.5)
    return Material(image, rough=rng.uniform(0.2, 0.5), metallic=1.0)


def light(rng, radiance, tint=0.4):
    """A lamp: white, warm, or of a strong colour with probability tint / 2."""
    shade = color(rng, 1.0) if rng.random() < tint / 2 else np.array([1.0, rng.uniform(0.6, 1.0), rng.uniform(0.3, 1.0)])
    glow = np.broadcast_to(np.float32(radiance * shade / shade.max()), (2, 2, 3))
    return Material(np.full((2, 2, 3), 0.5, np.float32), glow=np.ascontiguousarray(glow))


# --- meshes -----------------------------------------------------------------------------------------------------------


def sheet(points, repeat=(1.0, 1.0)):
    """A surface through points (rows, columns, 3); the texture is laid on it `repeat` times."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    u, v = np.meshgrid(np.linspace(0, repeat[0], columns), np.linspace(0, repeat[1], rows))
    F = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    return points.reshape(-1, 3).astype(float), F, np.stack([u, v], -1).reshape(-1, 2)


def panel(corner, along, up, scale=1.0, cuts=1):
    """A parallelogram of cuts² pieces, with `scale` textures a metre; scale None: one texture in all."""
    corner, along, up = (np.asarray(v, float) for v in (corner, along, up))
    t = np.linspace(0, 1, cuts + 1)
    repeat = (1, 1) if scale is None else (np.linalg.norm(along) * scale, np.linalg.norm(up) * scale)
    return sheet(corner + t[None, :, None] * along + t[:, None, None] * up, repeat)


def joined(meshes):
    """One mesh out of several."""
    starts = np.cumsum([0] + [len(V) for V, _, _ in meshes])
    return (np.concatenate([V for V, _, _ in meshes]), np.concatenate([F + s for (_, F, _), s in zip(meshes, starts)]),
            np.concatenate([UV for _, _, UV in meshes]))


def box(low, high, scale=1.0, cuts=1):
    """An axis-parallel box, its faces outwards."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    faces = []
    for axis in range(3):
        a, b = np.diag(high - low)[[(axis + 1) % 3, (axis + 2) % 3]]
        far = low + np.eye(3)[axis] * (high - low)
        faces += [panel(low, b, a, scale, cuts), panel(far, a, b, scale, cuts)]
    return joined(faces)


def tube(path, radius, sides=14, repeat=(1.0, 1.0)):
    """A round rod along path (n, 3), outwards; radius: one number or one a point."""
    path = np.asarray(path, float)
    direction = np.gradient(path, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    side = np.cross(direction, np.eye(3)[np.argmin(np.abs(direction).sum(0))])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(direction, side)
    angle = np.linspace(0, 2 * np.pi, sides + 1)[None, :, None]
    ring = side[:, None] * np.cos(angle) + other[:, None] * np.sin(angle)
    return sheet(path[:, None] + np.broadcast_to(radius, len(path))[:, None, None] * ring, repeat)


def lathe(profile, sides=32, repeat=(2.0, 1.0)):
    """A surface of revolution about z through (radius, height), from below."""
    radius, z = np.asarray(profile, float).T[:, :, None]
    angle, radius = np.linspace(0, 2 * np.pi, sides + 1)[None], np.maximum(radius, 1e-4)
    return sheet(np.stack([-radius * np.sin(angle), radius * np.cos(angle), z + 0 * angle], -1), repeat)


def ball(radius, center=(0, 0, 0), repeat=(2.0, 1.0)):
    """A sphere, or an ellipsoid if radius has three numbers."""
    t = np.linspace(0, np.pi, 20)
    V, F, UV = lathe(np.stack([np.sin(t), -np.cos(t)], -1), 28, repeat)
    return V * radius + np.asarray(center, float), F, UV


def limb(a, b, ra, rb, repeat=(1.0, 1.0)):
    """A capsule from a to b whose radius goes from ra to rb."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    length, cap = np.linalg.norm(b - a), np.sin(np.linspace(0, np.pi / 2, 5))
    t = np.concatenate([-ra * cap[::-1], np.linspace(0, length, 5)[1:-1], length + rb * cap])
    over = np.maximum(np.maximum(-t / ra, (t - length) / rb), 0)
    radius = (ra + (rb - ra) * np.clip(t / length, 0, 1)) * np.sqrt(np.maximum(1 - over**2, 1e-6))
    return tube(a + t[:, None] * (b - a) / length, radius, repeat=repeat)


def bent(mesh, curvature, twist=0.0):
    """The mesh with its z axis bent into an arc towards x (1/m) and twisted about itself (rad/m); lengths along the axis stay."""
    V, F, UV = mesh
    x, y, z = V.T
    c, s = np.cos(twist * z), np.sin(twist * z)
    x, y = c * x - s * y, s * x + c * y
    k = curvature if abs(curvature) > 1e-4 else 1e-4
    return np.stack([1 / k - (1 / k - x) * np.cos(k * z), y, (1 / k - x) * np.sin(k * z)], -1), F, UV


def placed(mesh, shift, heading=0.0):
    """The mesh turned about z, then shifted."""
    c, s = math.cos(heading), math.sin(heading)
    return mesh[0] @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + np.asarray(shift, float), mesh[1], mesh[2]


def cloth(width, height, phase, depth):
    """A hanging cloth with waves that travel with the phase, (width, height) metres, its upper edge at z = height."""
    x, z = np.meshgrid(np.linspace(-width / 2, width / 2, 40), np.linspace(0, height, 30))
    free = (1 - z / height) ** 0.7 + 0.15
    return sheet(np.stack([x, depth * free * np.sin(9 * x / width + 2 * z / height + phase), z], -1), (2 * width, 2 * height))


def foliage(rng, radii, count, size):
    """Leaves in an ellipsoid about the origin; each takes its colour from a place of its own in the texture."""
    out = rng.standard_normal((count, 3))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    center = out * radii * rng.uniform(0.4, 1, (count, 1))
    a = np.cross(out + 0.7 * rng.standard_normal((count, 3)), rng.standard_normal((count, 3)))
    a *= size * rng.uniform(0.6, 1.3, (count, 1)) / np.linalg.norm(a, axis=1, keepdims=True)
    b = np.cross(a, out)
    b *= 0.45 * size / np.maximum(np.linalg.norm(b, axis=1, keepdims=True), 1e-9)
    V = np.stack([center - a, center + b, center + a, center - b], 1).reshape(-1, 3)
    first = 4 * np.arange(count)[:, None]
    F = np.concatenate([first + [[0, 1, 2]], first + [[0, 2, 3]]])
    return V, F, np.repeat(rng.random((count, 2)), 4, 0) + 0.02 * rng.random((4 * count, 2))


def wall(corner, along, height, openings, scale=1.0):
    """A wall from corner in the direction and length of `along`, with rectangular openings (s0, s1, z0, z1), metres, sorted by s."""
    corner, along, up = np.asarray(corner, float), np.asarray(along, float), np.array([0, 0, 1.0])
    length = np.linalg.norm(along)
    pieces, last = [], 0.0
    for s0, s1, z0, z1 in openings:
        pieces += [(last, s0, 0, height), (s0, s1, 0, z0), (s0, s1, z1, height)]
        last = s1
    pieces.append((last, length, 0, height))
    meshes = []
    for s0, s1, z0, z1 in pieces:
        if s1 > s0 and z1 > z0:
            V, F, UV = panel(corner + along / length * s0 + up * z0, along / length * (s1 - s0), up * (z1 - z0), scale)
            meshes.append((V, F, UV + np.array([s0, z0]) * scale))
    return joined(meshes)


def figure(phase, stride, raised, fat):
    """A walking figure of capsules, 1.75 m, that looks along x: meshes of its skin, its top and its trousers.

    stride: amplitude of the legs, radians; raised: angle of one arm, radians, 0 hanging; fat: 1 is slim.
    """
    def step(start, angle, length, out=0.0):
        return start + length * np.array([math.sin(angle), out, -math.cos(angle)])

    skin, top, legs = [ball((0.10, 0.085, 0.13), (0.02, 0, 1.62)), limb((0, 0, 1.4), (0.01, 0, 1.52), 0.05, 0.05)], [], []
    top.append(limb((0, 0, 0.98), (0, 0, 1.33), 0.14 * fat, 0.16 * fat, (2, 2)))
    for side in (-1, 1):
        swing = side * stride * math.sin(phase)
        hip = np.array([0, 0.09 * side, 0.93])
        knee = step(hip, swing, 0.43)
        ankle = step(knee, swing - stride * max(0.0, side * math.cos(phase)) - 0.1, 0.43)
        legs += [limb(hip, knee, 0.085 * fat, 0.06 * fat), limb(knee, ankle, 0.06 * fat, 0.045)]
        legs.append(limb(ankle, ankle + [0.15, 0, -0.03], 0.045, 0.04))
        shoulder = np.array([0, 0.19 * side * fat, 1.38])
        reach = raised + 0.4 * math.sin(phase) if side > 0 and raised else -swing
        elbow = step(shoulder, reach, 0.28, 0.12 * side)
        hand = step(elbow, reach + 0.4, 0.26)
        top.append(limb(shoulder, elbow, 0.06 * fat, 0.05 * fat))
        skin += [limb(elbow, hand, 0.042, 0.035), ball(0.05, hand)]
    return joined(skin), joined(top), joined(legs)


# --- what moves -------------------------------------------------------------------------------------------------------


def draw_motion(rng, place, pixels, metre, reach, flying=False):
    """A motion whose image moves by `pixels` a frame, and whose turning and swinging move its outermost parts by no more.

    place: (3,) metres; metre: size of a pixel at its depth, metres; reach: largest distance of a part from the axis, metres.
    """
    step = pixels * metre
    angle = rng.uniform(0, 2 * np.pi)
    direction = (math.cos(angle), 0, math.sin(angle)) if flying else (math.copysign(1, angle - np.pi), rng.uniform(-0.5, 0.5), 0)
    velocity = np.array(direction) * step
    swerve = 0.3 * step * rng.uniform(-1, 1, 3) * [1, 1, flying]
    heading = math.atan2(velocity[1], velocity[0]) if not flying else rng.uniform(0, 2 * np.pi)
    spin, rate = rng.uniform(-1, 1) * min(step / reach, 1.0), rng.uniform(0.4, 1.0) * min(step / (0.5 * reach), 1.2)
    return Motion(np.asarray(place, float), velocity, swerve, heading, spin, rng.uniform(0, 2 * np.pi), rate)


def position(motion, tau):
    """Where it is at time tau, metres (3,)."""
    return motion.place + motion.velocity * tau + 0.5 * motion.swerve * tau * tau


def at_rest(motion):
    """The same without going anywhere."""
    return Motion(motion.place, 0 * motion.velocity, 0 * motion.swerve, motion.heading, 0.0, motion.phase, motion.rate)


def walker(rng, motion):
    """A person who walks, or stands and waves."""
    raised = rng.uniform(1.5, 2.8) if rng.random() < 0.4 else 0.0
    if raised and rng.random() < 0.5:
        motion = at_rest(motion)
    stride, fat, tall = rng.uniform(0.35, 0.6), rng.uniform(0.95, 1.35), rng.uniform(0.85, 1.1)
    if not motion.velocity.any():
        stride, motion.heading = 0.05, rng.uniform(0, 2 * np.pi)
    skin = np.float32(np.array([0.75, 0.47, 0.35]) * log_uniform(rng, 0.2, 1.1)) * np.ones((2, 2, 1), np.float32)
    parts = (Material(skin, rough=0.5, specular=0.4), material(rng), material(rng, vivid=0.2))

    def mesh(part):
        def at(tau):
            V, F, UV = figure(motion.phase + motion.rate * tau, stride, raised, fat)[part]
            return placed((V * tall, F, UV), position(motion, tau), motion.heading)
        return at

    return [Thing(look, mesh(part), True) for part, look in enumerate(parts)]


def bender(rng, motion, size):
    """A post, a board or a vase that bends and twists."""
    width = size * rng.uniform(0.12, 0.35)
    body = box((-width, -width * rng.uniform(0.2, 1), 0), (width, width * rng.uniform(0.2, 1), size), 1 / size, 14)
    if rng.random() < 0.5:
        z = np.linspace(0, size, 24)
        body = lathe(np.stack([width * (1 + 0.5 * np.sin(z / size * rng.uniform(3, 9) + rng.uniform(0, 6))) * (z < size), z], -1))
    bend, twist = rng.uniform(0.3, 0.9) / size, rng.uniform(0, 1.2) / size

    def at(tau):
        wave = math.sin(motion.phase + motion.rate * tau)
        return placed(bent(body, bend * wave, twist * wave), position(motion, tau), motion.heading + motion.spin * tau)

    return [Thing(material(rng, vivid=0.55), at, True)]


def ball_or_box(rng, motion, size):
    """A ball, a ring or a box that flies, rolls or spins; glass now and then."""
    form = rng.integers(3)
    turn = np.linspace(0, 2 * np.pi, 40)
    body = (ball(size / 2), box([-size / 2] * 3, size / 2 * rng.uniform(0.4, 1, 3), 1.5 / size),
            tube(np.stack([np.cos(turn), 0 * turn, np.sin(turn)], -1) * size * 0.4, size * 0.1, repeat=(1, 4)))[form]
    look = material(rng, vivid=0.5)
    look.glass = bool(form == 0 and rng.random() < 0.15)
    return [Thing(look, lambda tau: placed(body, position(motion, tau), motion.heading + motion.spin * tau), True)]


def banner(rng, motion, size, images):
    """A cloth that waves, hung up or carried past; it may bear a photograph."""
    width, depth = size * rng.uniform(0.6, 1.6), size * rng.uniform(0.04, 0.12)
    motion = motion if rng.random() < 0.6 else at_rest(motion)
    look = material(rng, vivid=0.5, images=images if rng.random() < 0.3 else None)
    at = lambda tau: placed(cloth(width, size, motion.phase + motion.rate * tau, depth), position(motion, tau), motion.spin * tau)
    return [Thing(look, at, True)]


def plant(rng, motion, size):
    """A potted plant or a small tree whose crown sways in the wind."""
    motion = at_rest(motion)
    leaves = foliage(rng, size * rng.uniform(0.15, 0.35, 3), int(rng.integers(150, 500)), size * rng.uniform(0.03, 0.07))
    crown = placed(leaves, (0, 0, 0.7 * size))
    stem = limb((0, 0, 0), (0, 0, 0.6 * size), 0.03 * size, 0.015 * size)
    pot = lathe([(0.08 * size, 0), (0.12 * size, 0.2 * size), (0, 0.19 * size)])
    green = material(rng, "grain", 0.0)
    green.picture = green.picture * np.float32([0.5, 0.9, 0.3]) if rng.random() < 0.8 else green.picture

    def swaying(mesh):
        return lambda tau: placed(bent(mesh, 0.35 / size * math.sin(motion.phase + motion.rate * tau)), motion.place, motion.heading)

    return [Thing(green, swaying(crown), True), Thing(material(rng), swaying(stem), True),
            Thing(material(rng), lambda tau: placed(pot, motion.place))]


def movers(rng, view, pixels, limits, images):
    """One to five things that move through the view. pixels: motion of the fastest; limits: (x, y) that they keep within, metres."""
    things = []
    for k in range(int(rng.integers(1, 6))):
        depth = min(log_uniform(rng, 1.3, 7.0), limits[1])
        x = np.clip(view.eye[0] + depth * math.tan(rng.uniform(-0.42, 0.42) * view.fov), -limits[0], limits[0])
        metre, size = depth / view.focal, rng.uniform(0.15, 0.5) * depth
        speed = pixels * (1 if k == 0 else rng.uniform(0.2, 1))
        floor, air = (x, view.eye[1] + depth, 0), (x, view.eye[1] + depth, view.eye[2] + depth * rng.uniform(-0.25, 0.25))
        kind = rng.choice(5, p=(0.4, 0.18, 0.2, 0.12, 0.1))
        if kind == 0:
            things += walker(rng, draw_motion(rng, floor, speed, metre, 0.8))
        elif kind == 1:
            things += bender(rng, draw_motion(rng, floor, speed, metre, size), max(size, 0.5))
        elif kind == 2:
            size = 0.5 * size
            things += ball_or_box(rng, draw_motion(rng, (*air[:2], max(air[2], size / 2)), speed, metre, size / 2, True), size)
        elif kind == 3:
            things += banner(rng, draw_motion(rng, (*air[:2], max(air[2] - size / 2, 0.05)), speed, metre, size / 2), size, images)
        else:
            things += plant(rng, draw_motion(rng, floor, speed, metre, size), max(size, 0.6))
    return things
