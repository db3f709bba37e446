"""Measures how accurately brackets/light.py finds the light of simulated cameras: the numbers of docs/light.md.

    python examples/simulated_cameras.py                        200 cameras, about two minutes on one core
    python examples/simulated_cameras.py --hdr-dir DIR          every other scene is a view into one of DIR's .hdr images

Each camera photographs a different scene. A tenth of the pixels show something else in each frame. The ISO is 100 to 6400, steps are 2 or 3 EV,
outer frames are off by up to 0.3 EV, clip levels are 240 to 255, black levels up to 1 % of white. Files have 8 bits; seven in ten are JPEGs. One
camera in eight has gamma 2.2, one in eight sRGB; the others have sRGB after a picture style: a sigmoid of random strength and crossing, with ripples.
The error is that of the merged light, in stops, after one global scale, over pixels that some frame exposes well (coded light 0.1 to 0.95).
It is computed without noise, so it is due to the model alone.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))       # so that it finds the project when run as a script

from brackets.curve import phi
from brackets.light import estimate
from common import Count, parse, run
from synthetic.camera import CODED, expose, jpeg, picture_style, quantile, sensor
from synthetic.dataset import SyntheticConfig, procedural_world
from synthetic.sources import find_images, photographed_world
from synthetic.textures import log_uniform

HEIGHT, WIDTH = 320, 480


@dataclass
class CamerasConfig:
    """Simulated cameras."""
    cameras: Count = 200        # how many
    hdr_dir: str = ""           # folder of .hdr images for every other scene; without one, all scenes are drawn


def draw_curve(rng):
    """Draws the light (4000,) at which the camera writes CODED."""
    kind = rng.random()
    if kind < 0.125:
        return CODED ** 2.2
    if kind < 0.25:
        return np.where(CODED <= 0.04045, CODED / 12.92, ((CODED + 0.055) / 1.055) ** 2.4)      # of sRGB
    return picture_style(rng)


def drawn_world(rng, height, width):
    """Draws a scene with synthetic.dataset.procedural_world."""
    return procedural_world(rng, height, width, min(height, width), SyntheticConfig(patches=False))


def photograph(rng, background):
    """Takes a bracket. Returns: frames (3, 3, H, W), stated stops, and the truth: radiance (3, H, W), gains, clip, black, curve."""
    config = SyntheticConfig(patches=False)
    canvas, ratio = background(rng, HEIGHT, WIDTH)
    radiance = np.exp(canvas)
    frames = np.minimum(np.stack([radiance] * 3), np.float32(quantile(radiance.max(0), 0.6) * 3e4))
    ev = np.float32([0, 1, 2]) * np.float32(rng.choice([2, 2, 3]))
    frames = expose(rng, frames, ev, 1.0, config).astype(np.float32)
    radiance, moved = frames[1].copy(), np.zeros((HEIGHT, WIDTH), bool)
    while moved.mean() < 0.1:
        h, w = rng.integers(30, 80, 2)
        y, x = rng.integers(HEIGHT - h), rng.integers(WIDTH - w)
        moved[y:y + h, x:x + w] = True
        for i in (0, 2):
            top, left = rng.integers(HEIGHT - h), rng.integers(WIDTH - w)
            frames[i, :, y:y + h, x:x + w] = radiance[:, top:top + h, left:left + w] * np.exp(0.3 * rng.standard_normal())
    gains, clip, black = np.array([rng.uniform(-0.3, 0.3), 0, rng.uniform(-0.3, 0.3)]), rng.integers(240, 256) / 255, rng.uniform(0, 0.01)
    curve = draw_curve(rng)
    linear = frames * np.exp2(ev + gains).astype(np.float32)[:, None, None, None]
    white_balance = rng.uniform(1, 2.4), 1, rng.uniform(1, 2.4)
    linear = sensor(rng, linear, log_uniform(rng, 100, 6400), rng.uniform(1.5, 6), 14, white_balance, rng.random() < 0.3)
    coded = np.minimum(np.interp(black + (1 - black) * linear, curve, CODED), clip).astype(np.float32)
    if rng.random() < 0.7:
        coded = np.stack([jpeg(frame, int(rng.uniform(70, 98)), rng.choice(["4:2:0", "4:4:4"])) for frame in coded])
    return np.float32(np.rint(coded * 255) / 255), ev, (radiance, gains, clip, black, curve)


def light_error(found, ev, truth):
    """Returns by how many stops the merged light is off, for each well-exposed value. found: Light, or None; truth: from photograph."""
    radiance, gains, clip, black, curve = truth
    H, merged, weights, exposed = np.clip(radiance[:, ::3, ::3].ravel(), 1e-9, 1e5), 0, 0, False
    for i, stops in enumerate(ev if found is None else found.ev.numpy()):
        light = np.minimum(H * 2.0 ** (ev[i] + gains[i]), 1)
        v = np.minimum(np.interp(black + (1 - black) * light, curve, CODED), clip)
        seen = v ** 2.2 if found is None else np.maximum(phi(v, found.curve) ** 2.2 - found.black, 0) / (1 - found.black)
        u = np.where(v > clip - 0.5 / 255, 1, light ** (1 / 2.2))
        weight = (1 - np.abs(2 * u - 1) if i == 1 else np.minimum(2 - 2 * u, 1)) * np.clip(u / 0.1, 0, 1) ** 2
        merged, weights, exposed = merged + weight * seen / 2.0 ** stops, weights + weight, exposed | ((u > 0.1) & (u < 0.95))
    error = np.log2(np.maximum(merged / np.maximum(weights, 1e-9), 1e-9) / H)[exposed & (weights > 1e-3)]
    return np.abs(error - np.median(error))


def main():
    """Prints the errors without and with the model."""
    config = parse(CamerasConfig, description=__doc__)
    torch.set_num_threads(1)
    images = find_images(config.hdr_dir, HEIGHT + 60, WIDTH + 60) if config.hdr_dir else []
    rows = []
    for seed in range(config.cameras):
        rng = np.random.default_rng([seed, 7])
        background = partial(photographed_world, image=images[seed % len(images)]) if images and seed % 2 else drawn_world
        ldr, ev, truth = photograph(rng, background)
        found = estimate(torch.from_numpy(ldr), torch.from_numpy(ev))
        code, is_code = truth[2] * 255, 255 if found is None else found.clip * 255
        errors = [light_error(light, ev, truth) for light in (None, found)]
        rows.append([f(error) for error in errors for f in (np.median, np.mean, lambda e: np.quantile(e, 0.95))] + [abs(code - is_code) < 1.5])
    rows = np.array(rows)
    print(f"{'error of light, stops':<28}{'median pixel':>22}{'mean':>22}{'95 % of pixels':>22}")
    for k, name in ((0, "as gamma 2.2, as stated"), (3, "with the model")):
        print(f"{name:<28}" + "".join(f"{np.median(column):>11.3f} ({np.quantile(column, 0.95):.3f})".rjust(22) for column in rows[:, k:k + 3].T))
    print(f"of {config.cameras} cameras: the median (95 % are below the number in brackets); clip level right for {100 * rows[:, 6].mean():.0f} %")


if __name__ == "__main__":
    run(main)
