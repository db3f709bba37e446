"""Things in rendered scenes, and how they move. Plain numpy, no renderer.

A thing is a material (materials.py) with a mesh (meshes.py) for every moment.
Units: metres, radians; z up. tau: time in frames, 0 is the reference.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from synthetic.rendered.materials import Material, material
from synthetic.rendered.meshes import ball, bent, box, cloth, figure, foliage, lathe, limb, placed, tube
from synthetic.textures import log_uniform


@dataclass
class Thing:
    """A mesh for every moment, and its material."""

    material: Material
    mesh: Callable  # tau -> mesh
    moving: bool = False


@dataclass
class Motion:
    """How a thing moves. All rates are per frame."""

    place: np.ndarray  # where it is at tau = 0, metres
    velocity: np.ndarray  # metres
    swerve: np.ndarray  # change of the velocity, metres
    heading: float  # about z at tau = 0, radians
    spin: float  # radians
    phase: float  # of its swing or gait at tau = 0, radians
    rate: float  # of the phase, radians


def still(look, mesh):
    """Makes a thing that stays where it is. look: Material."""
    return Thing(look, lambda tau: mesh)


def draw_motion(rng, place, pixels, metre, reach, flying=False):
    """Draws a motion of `pixels` per frame in the image. Turning and swinging move the outermost parts by no more than that.

    place: (3,) metres; metre: size of a pixel at its depth, metres; reach: largest distance of a part from the axis, metres; flying:
    it also moves up and down, not along the floor.
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
    """Returns where a thing is at time tau, (3,) metres."""
    return motion.place + motion.velocity * tau + 0.5 * motion.swerve * tau * tau


def at_rest(motion):
    """Returns the same motion without travel and without turning. It may still swing."""
    return Motion(motion.place, 0 * motion.velocity, 0 * motion.swerve, motion.heading, 0.0, motion.phase, motion.rate)


def walker(rng, motion):
    """Makes a person who walks, or stands and waves. Returns: list of things."""
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
    """Makes a post, a board or a vase that bends and twists. size: height, metres. Returns: list of one thing."""
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
    """Makes a ball, a ring or a box that flies and spins. A ball may be glass. size: metres. Returns: list of one thing."""
    form = rng.integers(3)
    turn = np.linspace(0, 2 * np.pi, 40)
    body = (ball(size / 2), box([-size / 2] * 3, size / 2 * rng.uniform(0.4, 1, 3), 1.5 / size),
            tube(np.stack([np.cos(turn), 0 * turn, np.sin(turn)], -1) * size * 0.4, size * 0.1, repeat=(1, 4)))[form]
    look = material(rng, vivid=0.5)
    look.glass = bool(form == 0 and rng.random() < 0.15)
    return [Thing(look, lambda tau: placed(body, position(motion, tau), motion.heading + motion.spin * tau), True)]


def banner(rng, motion, size, images):
    """Makes a cloth that waves, hung up or carried past. It may show one of the images. size: height, metres. Returns: list of one thing."""
    width, depth = size * rng.uniform(0.6, 1.6), size * rng.uniform(0.04, 0.12)
    motion = motion if rng.random() < 0.6 else at_rest(motion)
    look = material(rng, vivid=0.5, images=images if rng.random() < 0.3 else None)
    at = lambda tau: placed(cloth(width, size, motion.phase + motion.rate * tau, depth), position(motion, tau), motion.spin * tau)
    return [Thing(look, at, True)]


def plant(rng, motion, size):
    """Makes a potted plant or a small tree whose crown sways in the wind. size: height, metres. Returns: list of things."""
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
    """Draws one to five things that move through the view.

    view: scenes.View; pixels: motion of the fastest per frame; limits: largest |x| and largest depth of their places, metres; images: to show.
    Returns: list of things.
    """
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
