"""The camera of the synthetic brackets: how it is held, its lens, exposure, sensor, and the file it writes.

    motion     shift, rotation, zoom and perspective of the two outer frames relative to the reference; their registration
    lens       blur, veiling glare
    exposure   chosen so that a given fraction of the reference saturates
    sensor     white balance, shot and read noise, clipping, quantisation
    file       response curve, 8, 12 or 16 bits, JPEG

Symbols: H radiance in units of the shortest exposure (H = 1 is where it clips), ev exposures in stops,
    L_i = clip(H 2^ev_i, 0, 1)^(1/2.2).
`config` is the SyntheticConfig of dataset.py. Units: pixels of the output image. Arrays are numpy, (C, H, W), float32.
"""

import io
import math

import numpy as np
import torch
import torch.nn.functional as nnf
from PIL import Image

from brackets.register import warp
from data import GAMMA
from synthetic.textures import log_uniform

BEYOND = 4.0  # linear values are clipped here before the sensor; no noise can bring such a value below white
SUBSAMPLING = ("4:4:4", "4:2:2", "4:2:0")  # of the colours in a JPEG file
CODED = np.linspace(0, 1, 4001)[1:]  # coded values at which a picture style is tabulated


# --- motion -----------------------------------------------------------------------------------------------------------


def project(pose, x, y):
    """Applies the homography `pose` (3, 3) to the points (x, y), arrays of one shape. Returns: x, y."""
    w = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2]
    return (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2]) / w, (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2]) / w


def displacement(pose, height, width):
    """Returns the largest distance by which the homography moves a corner of the image, pixels."""
    x, y = np.array([-1, 1, -1, 1]) * (width - 1) / 2, np.array([-1, -1, 1, 1]) * (height - 1) / 2
    u, v = project(pose, x, y)
    return float(np.hypot(u - x, v - y).max())


def camera_poses(rng, height, width, config):
    """Draws the pose of the camera in each frame, relative to the reference.

    Returns: (3, 3, 3) homographies from a frame's pixels to the reference's, both counted from the centre of the image. The
        reference's is the identity, and so are all three of a still camera. No corner moves further than config.shift, or than
        config.steady_shift if the camera is held steady.
    """
    poses = np.stack([np.eye(3)] * 3)
    if rng.random() < config.static_camera or config.shift <= 0:
        return poses
    limit = config.steady_shift if rng.random() < config.steady else config.shift
    for frame in (0, 2):
        poses[frame] = draw_pose(rng, height, width, limit, config)
    return poses


def draw_pose(rng, height, width, limit, config):
    """Draws a homography (3, 3) as in camera_poses() that moves no corner by more than `limit` pixels."""
    size, heading = limit * rng.random() ** 2.5, rng.uniform(0, 2 * math.pi)  # mostly small
    turn, zoom = math.radians(config.rotation) * rng.uniform(-1, 1) * rng.random(), config.zoom * rng.uniform(-1, 1)
    tilt = config.perspective * rng.uniform(-1, 1, 2) * rng.random() / (0.5 * max(height, width))
    c, s = math.cos(turn) * math.exp(zoom), math.sin(turn) * math.exp(zoom)
    pose = np.array([[c, -s, -size * math.cos(heading)], [s, c, -size * math.sin(heading)], [*tilt, 1.0]])
    while (moved := displacement(pose, height, width)) > limit:
        pose = np.eye(3) + (pose - np.eye(3)) * (0.99 * limit / moved)
    return pose


def register_by_poses(rng, ldr, ev, poses, config):
    """Registers a bracket by its known poses plus a small error. It imitates brackets/register.py, which looks at the frames.

    A patch shows too little to estimate the motion from it.
    ldr: (3, 3, H, W) coded; ev: (3,) stops; poses: camera_poses(). The error moves no corner by more than a length drawn from
    config.residual.
    Returns: (3, 3, H, W), the outer frames warped onto the reference by register.warp. A frame whose camera did not move is left as it is.
    """
    height, width = ldr.shape[-2:]
    centre = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])  # poses count from the centre, warp() from the first pixel
    frames = torch.from_numpy(ldr)
    registered = frames.clone()
    for frame in (0, 2):
        if (poses[frame] != np.eye(3)).any():
            error = draw_pose(rng, height, width, log_uniform(rng, *config.residual), config)
            homography = centre @ np.linalg.inv(poses[frame]) @ error @ np.linalg.inv(centre)  # the reference's pixels to the frame's
            registered[frame] = warp(frames[frame], homography, frames[1], float(ev[1] - ev[frame]))
    return registered.numpy()


def look(log_canvas, pose, origin, height, width):
    """Shows the part of the canvas that the camera sees.

    log_canvas: (3, h, w) log radiance; pose: one of camera_poses(); origin: where on the canvas the image's centre lies, x and y in
    pixels. Logarithms are interpolated, because cubic interpolation of radiance itself would go below 0 beside a lamp.
    Returns: (3, height, width) linear.
    """
    h, w = log_canvas.shape[1:]
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None]
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2)[None, :]
    u, v = project(pose, x, y)
    grid = np.stack([(u + origin[0]) * (2 / (w - 1)) - 1, (v + origin[1]) * (2 / (h - 1)) - 1], -1).astype(np.float32)
    canvas, grid = torch.from_numpy(log_canvas)[None], torch.from_numpy(grid)[None]
    return np.exp(nnf.grid_sample(canvas, grid, mode="bicubic", padding_mode="border", align_corners=True)[0].numpy())


# --- lens -------------------------------------------------------------------------------------------------------------


def blur(images, sigma):
    """Blurs the last two axes by a Gaussian of five taps per direction. Edges are repeated. sigma: pixels.

    It adds shifted copies, because a convolution might add in an order that depends on the number of threads.
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
    """Scatters light in the lens: each frame of (3, 3, H, W) loses a share, which returns smeared over a large neighbourhood."""
    small = nnf.avg_pool2d(torch.from_numpy(frames), 8, ceil_mode=True)
    for _ in range(2):
        small = nnf.avg_pool2d(small, 5, stride=1, padding=2, count_include_pad=False)
    # nnf.interpolate would do, but its last bits depend on the number of threads
    y, x = ((2 * np.arange(n, dtype=np.float32) + 1) / (8 * math.ceil(n / 8)) - 1 for n in frames.shape[-2:])
    grid = torch.from_numpy(np.stack(np.broadcast_arrays(x[None, :], y[:, None]), -1))[None].expand(3, -1, -1, -1)
    smeared = nnf.grid_sample(small, grid, mode="bilinear", padding_mode="border", align_corners=False).numpy()
    return frames * np.float32(1 - share) + np.float32(share) * smeared


# --- exposure ---------------------------------------------------------------------------------------------------------


def quantile(values, q):
    """Returns the value below which a share q of `values` lies. It is one of the values, so no rounding depends on the machine."""
    flat = values.ravel()
    k = min(int(q * flat.size), flat.size - 1)
    return float(np.partition(flat, k)[k])


def expose(rng, frames, ev, ratio, config):
    """Scales radiance to units of the shortest exposure.

    frames: (3, 3, H, W) linear, any unit; ev: (3,) stops; ratio: height of the scene in image heights.
    The reference saturates at H = 2^-ev[1]. The drawn fraction of its pixels is put above that level. If the image is a small crop of
    its scene, it may have any fraction, with the scene's as the mean. Above the level, the range is compressed if the shortest
    exposure would clip more than light sources. In some brackets it is stretched instead, until it reaches H = 1. Below the level, the
    range is compressed if half of the image would be black.
    Returns: H, (3, 3, H, W) float32.
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
    bright = rng.random() < config.bright
    share, limit = (rng.uniform(0.02, 0.15), rng.uniform(0.75, 0.95)) if bright else (rng.uniform(0.001, 0.02), rng.uniform(0.6, 1.0))
    top, limit = max(quantile(stops[1].max(0), 1 - share), 0.1), limit * ev[1]
    if top > limit or bright:
        stops = np.where(stops > 0, stops * np.float32(min(limit / top, 3.0)), stops)
    return np.exp2(stops - np.float32(ev[1]))


# --- sensor and file --------------------------------------------------------------------------------------------------


def sensor(rng, linear, iso, read_noise, bits, gains=(1.0, 1.0, 1.0), correlated=False, full_well=30000.0):
    """Turns the noise-free exposure into what the raw converter passes on.

    linear: (..., 3, H, W) radiance times exposure time, 1 is white after white balance. iso: sensitivity. read_noise: electrons.
    bits: of the linear quantisation, 0 for none. gains: of red, green and blue, 1 or more, applied after the sensor. correlated: whether
    noise is smoothed over neighbours. full_well: electrons at the white level at ISO 100.
    At ISO s the white level is N = full_well * 100 / s electrons. A pixel holds N x / gain electrons. They have Poisson (shot) noise, here
    in its Gaussian limit, and `read_noise` electrons of readout noise:
        Var[x] = gain x / N + (gain read_noise / N)²
    Returns: linear values in [0, 1], float32; exactly 1 where saturated.
    """
    electrons = full_well * 100 / iso
    gain = np.array(gains, np.float32)[:, None, None]
    raw = np.minimum(linear, np.float32(BEYOND)) / gain
    noise = rng.standard_normal(raw.shape, dtype=np.float32)
    if correlated:
        smooth = np.float32(0.25) * np.roll(noise, 1, -1) + np.float32(0.25) * np.roll(noise, 1, -2)
        noise = (noise + smooth) * np.float32(1 / math.sqrt(1.125))  # weights 1, 1/4, 1/4: the variance stays 1
    raw = raw + noise * np.sqrt(raw * np.float32(1 / electrons) + np.float32((read_noise / electrons) ** 2))
    raw = np.clip(raw, 0, 1)
    if bits:
        raw = np.rint(raw * np.float32(2**bits - 1)) * np.float32(1 / (2**bits - 1))
    return np.minimum(raw * gain, 1)


def respond(linear, curve):
    """Applies the camera's curve to linear values in [0, 1].

    curve: a gamma, L = x^(1 / gamma); 0 for sRGB's curve; or (n,) light at the coded values CODED. Returns: coded values, float32.
    """
    if np.ndim(curve):
        return np.interp(linear, curve, CODED).astype(np.float32)
    if curve:
        return linear ** np.float32(1 / curve)
    return np.where(linear <= 0.0031308, np.float32(12.92) * linear, np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055))


def picture_style(rng):
    """Draws the curve of a camera's JPEGs: sRGB after a sigmoid of random strength and crossing, with ripples.

    Returns: light at the coded values CODED, rising to 1 at 1. Its slope in logarithms is that of gamma 2.2 times exp(slope).
    """
    strength, crossing, toe, srgb = rng.uniform(0.15, 0.8), rng.uniform(0.55, 0.75), rng.uniform(0.08, 0.2), rng.uniform(0.6, 1.2)
    slope = strength * np.log((1.04 - crossing) / (1.04 - CODED)) * (1 - np.exp(-((CODED / toe) ** 2))) + 0.02 * rng.standard_normal()
    slope += srgb * np.log(np.where(CODED <= 0.04045, 1 / GAMMA, 2.4 / GAMMA * CODED / (CODED + 0.055)))
    for k in (1, 2, 3):
        slope += 0.05 * rng.standard_normal() / k * np.cos(np.pi * k * CODED + rng.uniform(0, 6))
    steps = np.exp(0.5 * (slope[1:] + slope[:-1])) * np.diff(np.log(CODED))
    return np.exp(GAMMA * np.append(-np.cumsum(steps[::-1])[::-1], 0))


def draw_response(rng, config):
    """Draws a curve for respond(): gamma 2.2, which the network assumes, 0 for sRGB's curve, a picture style, or another gamma."""
    kind = rng.random()
    gamma, srgb, style = np.cumsum(config.response)
    if kind < srgb:
        return GAMMA if kind < gamma else 0.0
    return picture_style(rng) if kind < style else GAMMA * math.exp(config.response_spread * rng.standard_normal())


def happens(rng, probability):
    """Draws whether something happens. At probability 0 it uses no random number, so that all other draws stay the same."""
    return probability > 0 and rng.random() < probability


def quantise(coded, bits):
    """Rounds coded values in [0, 1] to the 2^bits levels of a file. With bits = 0 they stay as they are."""
    return np.rint(coded * np.float32(2**bits - 1)) / np.float32(2**bits - 1) if bits else coded


def jpeg(coded, quality, subsampling, top=0, left=0):
    """Writes a JPEG file and reads it again.

    coded: (3, H, W) in [0, 1]; quality, subsampling: of the file; top, left: rows and columns that precede it in the file.
    Returns: (3, H, W) in [0, 1], levels of 8 bits.
    """
    pixels = np.pad(np.uint8(np.rint(coded.transpose(1, 2, 0) * 255)), [(top, 0), (left, 0), (0, 0)], mode="edge")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    decoded = np.asarray(Image.open(file))[top:, left:]
    return np.ascontiguousarray(decoded.transpose(2, 0, 1), np.float32) / np.float32(255)


def photograph(rng, frames, ev, config):
    """Takes the three photographs.

    frames: (3, 3, H, W) radiance in units of the shortest exposure, as each frame sees it; ev: (3,) stops, as the camera states them.
    Returns: ldr (3, 3, H, W) coded, in [0, 1], float32; the bits of the file (0: not quantised); and the stops by which the shortest exposure is
        misstated: the truth in true units is 2^-stops times the truth in stated units.
    """
    error = config.ev_error * rng.standard_normal(2)  # stops between neighbouring frames; the reference is right by definition
    misstated = np.zeros(2)
    if happens(rng, config.misstated):
        misstated = rng.uniform(-config.misstatement, config.misstatement, 2)
        error += misstated
    stops = np.float32([ev[0] - error[0], ev[1], ev[2] + error[1]])
    linear = frames * np.exp2(stops)[:, None, None, None]
    gains = (rng.uniform(*config.white_balance), 1.0, rng.uniform(*config.white_balance))
    iso, read_noise = log_uniform(rng, *config.iso), rng.uniform(*config.read_noise)
    correlated = rng.random() < config.correlated_noise
    linear = sensor(rng, linear, iso, read_noise, int(rng.choice(config.sensor_bits)), gains, correlated, config.full_well)
    curve, bits = draw_response(rng, config), int(rng.choice(config.output_bits))
    black = np.float32(rng.uniform(0, config.black_level) if happens(rng, config.raised_black) else 0)
    coded = respond(black + (1 - black) * linear, curve)
    if happens(rng, config.clipped_early):
        coded = np.minimum(coded, np.float32(rng.integers(config.clip_codes[0], config.clip_codes[1] + 1) / 255))
    if bits == 8 and rng.random() < config.jpeg:
        quality = round(rng.uniform(*config.jpeg_quality))
        subsampling, top, left = SUBSAMPLING[int(rng.integers(3))], int(rng.integers(16)), int(rng.integers(16))
        return np.stack([jpeg(frame, quality, subsampling, top, left) for frame in coded]), bits, misstated[0]
    return quantise(coded, bits), bits, misstated[0]
