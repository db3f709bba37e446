"""Objects that move in front of a synthetic world: their paths, and how the three exposures see them.

An object is a cut-out, drawn by world.draw_object or taken from a photograph. In each frame it is at another place, and is turned
and bent a little. A long exposure may smear it along its path. When the camera moves, the object moves with the world behind it.

`config` is the SyntheticConfig of dataset.py. Units: pixels of the output image. A pose is (x, y, angle, bend, phase), see
world.stamp. Arrays are numpy, (C, H, W), float32.
"""

import math

import numpy as np

from synthetic.camera import blur, project, quantile
from synthetic.textures import log_uniform
from synthetic.world import stamp


def object_path(rng, focus, config):
    """Draws the poses of one object in the three frames.

    Between neighbouring frames it moves by config.object_motion, not quite straight and not quite evenly. In one frame, drawn at
    random, it stands at `focus` (x, y).
    Returns: a list of three poses.
    """
    distance, heading = log_uniform(rng, *config.object_motion), rng.uniform(0, 2 * math.pi)
    turn, bend = math.radians(config.object_rotation), config.object_deformation
    angle, phase, at = rng.uniform(-0.3, 0.3), rng.uniform(0, 6), int(rng.integers(3))
    steps = [(distance * rng.uniform(0.5, 1.0), heading + 0.3 * rng.standard_normal()) for _ in range(2)]
    x = np.cumsum([0.0] + [size * math.cos(towards) for size, towards in steps])
    y = np.cumsum([0.0] + [size * math.sin(towards) for size, towards in steps])
    return [(focus[0] + x[frame] - x[at], focus[1] + y[frame] - y[at], angle + rng.uniform(-turn, turn), rng.uniform(0, bend),
             phase + rng.uniform(-0.5, 0.5)) for frame in range(3)]


def smeared(path, frame, share):
    """Returns the poses that an object takes during the exposure of frame 1 or 2. share: how much of its way from the previous frame it covers."""
    x, y, angle, bend, phase = path[frame]
    dx, dy = share * (x - path[frame - 1][0]), share * (y - path[frame - 1][1])
    count = max(4, math.ceil(math.hypot(dx, dy)))  # a pixel apart, which looks smeared rather than copied
    return [(x + t * dx, y + t * dy, angle, bend, phase) for t in np.linspace(-0.5, 0.5, count)]


def seen_by(camera, pose, height, width):
    """Finds where a frame shows an object when its camera has moved.

    camera: homography from that frame to the reference; pose: of the object in the reference's pixels.
    Returns: the pose in the frame's pixels.
    """
    x, y, angle, bend, phase = pose
    inverse = np.linalg.inv(camera)
    u, v = project(inverse, np.array(x - (width - 1) / 2), np.array(y - (height - 1) / 2))
    turn = math.atan2(inverse[1, 0], inverse[0, 0])
    return float(u) + (width - 1) / 2, float(v) + (height - 1) / 2, angle + turn, bend, phase


def draw_cut_out(rng, side, middle, cut_out):
    """Draws one object.

    side: shorter side of the image, pixels; middle: median radiance of the scene; cut_out: as in add_objects.
    Returns: radiance (3, n, n) linear, opacity (n, n), radius in pixels.
    """
    radius = min(log_uniform(rng, 0.06, 0.6) * side, log_uniform(rng, 20, 160))
    radiance, alpha = cut_out(rng, radius)
    level = middle * 2 ** rng.uniform(-3.0, 2.5) / math.exp(-1.5)
    radiance = np.exp(np.clip(radiance, -9, 9)) * np.float32(level)
    if rng.random() < 0.4:  # out of focus
        edge = rng.uniform(0.5, 1.5)
        solid = blur(alpha, edge)
        radiance, alpha = blur(radiance * alpha, edge) / np.maximum(solid, np.float32(1e-4)), solid
    return radiance, alpha, radius


def add_objects(rng, frames, poses, cut_out, config):
    """Draws moving objects into the three frames, in place.

    frames: (3, 3, H, W) linear; poses: camera_poses(); cut_out(rng, radius): returns log radiance (3, n, n) and opacity (n, n).
    """
    height, width = frames.shape[-2:]
    side = min(height, width)
    if rng.random() < config.static_scene:
        return
    brightest = frames[1].max(0)
    highlight, middle = quantile(brightest, 0.85), quantile(brightest, 0.5)
    count = int(rng.integers(config.objects[0], config.objects[1] + 1) * max(1.0, side / 256))
    for _ in range(count):
        radiance, alpha, radius = draw_cut_out(rng, side, middle, cut_out)
        if rng.random() < config.on_highlight:
            ys, xs = np.nonzero(brightest >= highlight)
            k = int(rng.integers(len(ys)))
            focus = xs[k] + 0.5 * radius * rng.standard_normal(), ys[k] + 0.5 * radius * rng.standard_normal()
        else:
            focus = rng.uniform(-0.1, 1.1) * width, rng.uniform(-0.1, 1.1) * height
        path = object_path(rng, focus, config)
        smear = rng.uniform(0.1, 0.4) if rng.random() < config.motion_blur else 0.0
        shares = (0.0, smear * rng.uniform(0.2, 0.5) if rng.random() < config.middle_blur else 0.0, smear)
        for frame, share in enumerate(shares):
            here = smeared(path, frame, share) if share else [path[frame]]
            stamp(frames[frame], radiance, alpha, [seen_by(poses[frame], pose, height, width) for pose in here])
