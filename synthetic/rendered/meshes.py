"""Meshes of rendered scenes: panels, boxes, rods, balls, cloth, leaves, walls and walking figures. Plain numpy.

A mesh is a tuple (V, F, UV): vertices (n, 3), faces (m, 3) counter-clockwise seen from outside, texture coordinates (n, 2).
Units: metres, radians; z up. An object stands on its origin.
"""

import math

import numpy as np


def sheet(points, repeat=(1.0, 1.0)):
    """Makes a surface through points (rows, columns, 3). repeat: how often the texture repeats on it, across and up."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    u, v = np.meshgrid(np.linspace(0, repeat[0], columns), np.linspace(0, repeat[1], rows))
    F = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    return points.reshape(-1, 3).astype(float), F, np.stack([u, v], -1).reshape(-1, 2)


def panel(corner, along, up, scale=1.0, cuts=1):
    """Makes a parallelogram from corner (3,) along two edges (3,), in cuts x cuts pieces. scale: textures per metre; None: one texture."""
    corner, along, up = (np.asarray(v, float) for v in (corner, along, up))
    t = np.linspace(0, 1, cuts + 1)
    repeat = (1, 1) if scale is None else (np.linalg.norm(along) * scale, np.linalg.norm(up) * scale)
    return sheet(corner + t[None, :, None] * along + t[:, None, None] * up, repeat)


def joined(meshes):
    """Joins several meshes into one."""
    starts = np.cumsum([0] + [len(V) for V, _, _ in meshes])
    return (np.concatenate([V for V, _, _ in meshes]), np.concatenate([F + s for (_, F, _), s in zip(meshes, starts)]),
            np.concatenate([UV for _, _, UV in meshes]))


def box(low, high, scale=1.0, cuts=1):
    """Makes a box between low (3,) and high (3,), parallel to the axes, with its faces outwards. scale, cuts: as for panel()."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    faces = []
    for axis in range(3):
        a, b = np.diag(high - low)[[(axis + 1) % 3, (axis + 2) % 3]]
        far = low + np.eye(3)[axis] * (high - low)
        faces += [panel(low, b, a, scale, cuts), panel(far, a, b, scale, cuts)]
    return joined(faces)


def tube(path, radius, sides=14, repeat=(1.0, 1.0)):
    """Makes a round rod along path (n, 3), with its faces outwards. radius: one number, or one per point. sides: of its cross-section."""
    path = np.asarray(path, float)
    direction = np.gradient(path, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    side = np.cross(direction, np.eye(3)[np.argmin(np.abs(direction).sum(0))])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(direction, side)
    angle = np.linspace(0, 2 * np.pi, sides + 1)[None, :, None]
    ring = side[:, None] * np.cos(angle) + other[:, None] * np.sin(angle)
    return sheet(path[:, None] + np.broadcast_to(radius, len(path))[:, None, None] * ring, repeat)


def lathe(profile, sides=32):
    """Makes a surface of revolution about z. profile: points (radius, height), from the bottom up."""
    radius, z = np.asarray(profile, float).T[:, :, None]
    angle, radius = np.linspace(0, 2 * np.pi, sides + 1)[None], np.maximum(radius, 1e-4)
    return sheet(np.stack([-radius * np.sin(angle), radius * np.cos(angle), z + 0 * angle], -1), (2.0, 1.0))


def ball(radius, center=(0, 0, 0)):
    """Makes a sphere, or an ellipsoid if radius has three numbers. center: (3,)."""
    t = np.linspace(0, np.pi, 20)
    V, F, UV = lathe(np.stack([np.sin(t), -np.cos(t)], -1), 28)
    return V * radius + np.asarray(center, float), F, UV


def limb(a, b, ra, rb, repeat=(1.0, 1.0)):
    """Makes a capsule from point a to point b. Its radius goes from ra to rb."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    length, cap = np.linalg.norm(b - a), np.sin(np.linspace(0, np.pi / 2, 5))
    t = np.concatenate([-ra * cap[::-1], np.linspace(0, length, 5)[1:-1], length + rb * cap])
    over = np.maximum(np.maximum(-t / ra, (t - length) / rb), 0)
    radius = (ra + (rb - ra) * np.clip(t / length, 0, 1)) * np.sqrt(np.maximum(1 - over**2, 1e-6))
    return tube(a + t[:, None] * (b - a) / length, radius, repeat=repeat)


def bent(mesh, curvature, twist=0.0):
    """Bends the z axis of a mesh into an arc towards x and twists it about itself. Lengths along the axis stay the same.

    curvature: 1/m; twist: rad/m.
    """
    V, F, UV = mesh
    x, y, z = V.T
    c, s = np.cos(twist * z), np.sin(twist * z)
    x, y = c * x - s * y, s * x + c * y
    k = curvature if abs(curvature) > 1e-4 else 1e-4
    return np.stack([1 / k - (1 / k - x) * np.cos(k * z), y, (1 / k - x) * np.sin(k * z)], -1), F, UV


def placed(mesh, shift, heading=0.0):
    """Turns a mesh about z by heading, then shifts it by (3,)."""
    c, s = math.cos(heading), math.sin(heading)
    return mesh[0] @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + np.asarray(shift, float), mesh[1], mesh[2]


def cloth(width, height, phase, depth):
    """Makes a hanging cloth of width x height metres with its upper edge at z = height. Its waves, `depth` metres deep, travel with the phase."""
    x, z = np.meshgrid(np.linspace(-width / 2, width / 2, 40), np.linspace(0, height, 30))
    free = (1 - z / height) ** 0.7 + 0.15
    return sheet(np.stack([x, depth * free * np.sin(9 * x / width + 2 * z / height + phase), z], -1), (2 * width, 2 * height))


def foliage(rng, radii, count, size):
    """Makes leaves in an ellipsoid about the origin. Each takes its colour from another place in the texture.

    radii: (3,) of the ellipsoid, metres; count: leaves; size: of a leaf, metres.
    """
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
    """Makes a wall with rectangular openings, from corner (3,) to corner + along (3,).

    openings: list of (s0, s1, z0, z1), metres along the wall and upwards, sorted by s; scale: textures per metre.
    """
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
    """Makes a walking figure of capsules, 1.75 m tall, that looks along x.

    phase: of its gait, radians; stride: amplitude of the legs, radians; raised: angle of one arm, radians, 0 if it hangs; fat: 1 is slim.
    Returns: meshes of its skin, its top and its trousers.
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
