"""The procedural world of the synthetic brackets: static scenes and moving objects, as log radiance.

    static     landscape, room, facade, clutter or a plain surface, with materials, textures, shadows, windows and lamps
    objects    people, balls, boxes, sticks, boards

Shapes are painted as labels, on a grid twice as fine as the pixels. A table holds one material per label. `shade` turns both into
radiance. Most functions add to `labels` (2h, 2w) and `table` (a list of materials) in place.
Units: pixels of the canvas, or scene units (View); logarithms of radiance are natural. Arrays are numpy, (C, H, W), float32.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nnf

from synthetic.textures import TILE, log_uniform, paint, texture_field

FIELDS = 4  # texture fields of one layer; a material mixes them
LABEL_SCALE = 2  # shapes are drawn this much finer than pixels, then averaged, for smooth edges
# Columns of a material: log albedo (3), texture weights (4), shading g0 + gx x + gy y + gq (x² + y²), share of the scene's light, opacity
TEXTURE, SHADE, LIT, ALPHA, COLUMNS = 3, 7, 11, 12, 13


@dataclass
class View:
    """The window of the world that one canvas shows."""

    height: int  # of the canvas, pixels
    width: int  # of the canvas, pixels
    scale: float  # pixels per unit of the scene; the scene is 1 high and 1.5 wide, its centre is (0, 0)
    x: float  # centre of the window, scene units
    y: float  # centre of the window, scene units, downwards


# --- shapes and materials ---------------------------------------------------------------------------------------------


def colour(rng, vivid=0.12, brightness=None):
    """Draws a log albedo (3,). Most colours are weak and lie between blue and orange.

    vivid: probability of a strong colour; brightness: mean albedo, drawn if None.
    """
    value = log_uniform(rng, 0.04, 0.9) if brightness is None else brightness
    strength = rng.uniform(0.7, 1.5) if rng.random() < vivid else 0.27 * abs(rng.standard_normal())
    warm, green = rng.standard_normal() + 0.3, 0.5 * rng.standard_normal()
    hue = np.array([0.6 * warm - 0.35 * green, 0.7 * green, -0.6 * warm - 0.35 * green])
    return math.log(value) + strength * hue / max(np.abs(hue).max(), 0.2)


def material(rng, table, vivid=0.12, brightness=None, gain=0.0, lit=1.0, texture=None, contrast=None,
             centre=(0.0, 0.0), size=1.0, bulge=0.0):
    """Draws a material and appends it to `table`.

    vivid, brightness: see colour(). gain: log radiance to add, for lamps and for the world behind a window. lit: share of the scene's
    light and shadow that it takes. texture: number of its field, drawn if None. contrast: of the texture, log units, drawn if None.
    centre, size: where the shading is centred and over which length it changes, canvas units (-1 to 1). bulge: how much darker it is at
    `size`, log units.
    Returns: its number in the table, which is the label to paint with.
    """
    row = np.zeros(COLUMNS, np.float32)
    row[:3] = colour(rng, vivid, brightness) + gain
    field = int(rng.integers(FIELDS)) if texture is None else texture
    row[TEXTURE + field] = (0.02 if rng.random() < 0.2 else log_uniform(rng, 0.06, 0.8)) if contrast is None else contrast
    if rng.random() < 0.6:
        row[TEXTURE + int(rng.integers(FIELDS))] += log_uniform(rng, 0.02, 0.25)
    gx, gy = rng.standard_normal(2) * log_uniform(rng, 0.02, 0.5) / size
    gq = -bulge / size**2
    cx, cy = centre  # g·(x - c) + gq |x - c|², multiplied out
    row[SHADE : SHADE + 4] = (gq * (cx * cx + cy * cy) - gx * cx - gy * cy, gx - 2 * gq * cx, gy - 2 * gq * cy, gq)
    row[LIT], row[ALPHA] = lit, 1.0
    table.append(row)
    return len(table) - 1


def shade(labels, table, fields, log_light):
    """Turns labels into log radiance.

    labels: (2h, 2w) numbers of materials; table: (M, COLUMNS); fields: (FIELDS, h, w) textures; log_light: (3, h, w) or None for full light.
    Returns: log radiance (3, h, w), opacity (h, w).
    """
    height, width = labels.shape[0] // 2, labels.shape[1] // 2
    rows = np.asarray(table, np.float32)[labels.reshape(height, 2, width, 2)]  # (h, 2, w, 2, COLUMNS)
    rows = np.moveaxis((rows[:, 0, :, 0] + rows[:, 0, :, 1] + rows[:, 1, :, 0] + rows[:, 1, :, 1]) * 0.25, -1, 0)  # (COLUMNS, h, w)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    detail = np.clip(rows[SHADE] + rows[SHADE + 1] * x + rows[SHADE + 2] * y + rows[SHADE + 3] * (x * x + y * y), -3, 2)
    for k in range(FIELDS):
        detail += rows[TEXTURE + k] * fields[k]
    radiance = rows[:3] + detail
    if log_light is not None:
        radiance += rows[LIT] * log_light
    return radiance, rows[ALPHA]


# --- the world --------------------------------------------------------------------------------------------------------


def draw_view(rng, height, width, side, config):
    """Draws how large the scene is and which part of it the canvas shows.

    height, width: of the canvas; side: the shorter side of the image.
    Returns: View.
    """
    low = config.scene_height[0] * side
    scale = log_uniform(rng, low, max(config.scene_height[1], 1.5 * low))
    free_x, free_y = max(0.75 - 0.5 * width / scale, 0.05), max(0.5 - 0.5 * height / scale, 0.05)
    return View(height, width, scale, rng.uniform(-free_x, free_x), rng.uniform(-free_y, free_y))


def place(labels, view, value, form, x, y, a, b):
    """Paints a shape given in scene units; otherwise as textures.paint."""
    s = LABEL_SCALE * view.scale
    cx, cy = (x - view.x) * s + labels.shape[1] / 2, (y - view.y) * s + labels.shape[0] / 2
    paint(labels, value, form, cx, cy, max(a * s, 0.6), max(b * s, 0.6))


def centre_of(view, x, y):
    """Converts scene units to the units of shading, in which the canvas spans -1 to 1. Returns: x, y."""
    return (x - view.x) * 2 * view.scale / view.width, (y - view.y) * 2 * view.scale / view.height


def landscape(rng, labels, view, table):
    """Paints sky, sun, hills or houses, ground, trees and poles."""
    horizon, sky = rng.uniform(-0.25, 0.3), log_uniform(rng, 2, 20)
    labels[:] = material(rng, table, 0.2, 0.5, gain=math.log(sky), lit=0.1, texture=0, contrast=rng.choice([0.02, 0.2, 0.5]))
    if rng.random() < 0.3:
        sun = material(rng, table, 0, 0.9, gain=math.log(sky * log_uniform(rng, 5, 100)), lit=0.0, contrast=0.0)
        place(labels, view, sun, "ellipse", rng.uniform(-0.7, 0.7), horizon - rng.uniform(0.05, 0.4), 0.02, 0.02)
    columns = (np.arange(labels.shape[1]) / labels.shape[1] - 0.5) * view.width / view.scale + view.x
    rows = ((np.arange(labels.shape[0]) / labels.shape[0] - 0.5) * view.height / view.scale + view.y)[:, None]
    for depth in range(int(rng.integers(0, 3))):
        f, p = rng.uniform(1, 6, 5) * 2.0 ** np.arange(5), rng.uniform(0, 7, 5)
        profile = (0.06 * 2.0 ** -np.arange(5) * np.sin(columns[:, None] * f + p)).sum(1) + horizon - 0.1 + 0.07 * depth
        labels[rows > profile] = material(rng, table, 0.1, log_uniform(rng, 0.05, 0.4), lit=0.8)
    x = -0.8
    while rng.random() < 0.93 and x < 0.8:  # houses
        w, h = rng.uniform(0.03, 0.12), rng.uniform(0.05, 0.35)
        wall = material(rng, table, 0.1, lit=1.0, texture=1 if rng.random() < 0.6 else None, centre=centre_of(view, x, horizon), size=2.0)
        place(labels, view, wall, "box", x + w, horizon - h / 2, w, h / 2 + 0.02)
        x += 2 * w + (rng.uniform(0, 0.3) if rng.random() < 0.4 else 0)
    labels[np.broadcast_to(rows > horizon, labels.shape)] = material(rng, table, 0.1, log_uniform(rng, 0.06, 0.4), texture=2)
    for _ in range(int(rng.integers(0, 5))):  # trees, poles
        x, h = rng.uniform(-0.75, 0.75), rng.uniform(0.1, 0.5)
        place(labels, view, material(rng, table, brightness=0.06), "box", x, horizon + 0.05 - h / 2, rng.uniform(0.002, 0.015), h / 2)
        if rng.random() < 0.6:
            crown = material(rng, table, 0.3, log_uniform(rng, 0.03, 0.2), texture=3, contrast=0.5)
            place(labels, view, crown, "blob", x, horizon + 0.05 - h, h * 0.35, h * 0.4)


def window(rng, labels, view, table, x, y, w, h, gain):
    """Paints a window: its frame, the bright outside, bars. x, y: centre, w, h: half sides, scene units; gain: log radiance outside."""
    frame = material(rng, table, 0.0, log_uniform(rng, 0.1, 0.8), contrast=0.05)
    outside = material(rng, table, 0.1, 0.5, gain=gain, lit=0.0, texture=0, centre=centre_of(view, x, y), size=1.0)
    place(labels, view, frame, "box", x, y, w * 1.08 + 0.005, h * 1.05 + 0.005)
    place(labels, view, outside, "box", x, y, w, h)
    if rng.random() < 0.6:  # what stands outside: trees, houses
        tree = material(rng, table, 0.2, 0.15, gain=gain, lit=0.0, texture=3, contrast=0.4)
        top = rng.uniform(0.1, 0.9)
        place(labels, view, tree, "box", x, y + h * (1 - top), w, h * top)
    for bar in np.linspace(-1, 1, int(rng.integers(2, 6)))[1:-1]:
        place(labels, view, frame, "box", x + bar * w, y, 0.012 * w + 0.002, h)
    if rng.random() < 0.5:
        place(labels, view, frame, "box", x, y + rng.uniform(-0.5, 0.5) * h, w, 0.003)


def room(rng, labels, view, table):
    """Paints a room: walls, floor, ceiling, windows, pictures and cupboards."""
    labels[:] = material(rng, table, 0.05, log_uniform(rng, 0.1, 0.8))
    left, right, top, bottom = rng.uniform(-0.7, -0.3), rng.uniform(0.3, 0.7), rng.uniform(-0.48, -0.2), rng.uniform(0.1, 0.45)
    s = LABEL_SCALE * view.scale
    x = ((np.arange(labels.shape[1], dtype=np.float32) - labels.shape[1] / 2) / s + view.x)[None, :]
    y = ((np.arange(labels.shape[0], dtype=np.float32) - labels.shape[0] / 2) / s + view.y)[:, None]
    spread = rng.uniform(0.6, 1.6)  # how fast the side walls open towards the camera
    for side in (left - x, x - right):
        wall = material(rng, table, 0.05, log_uniform(rng, 0.1, 0.8))
        labels[(side > 0) & (side * spread > top - y) & (side * spread > y - bottom)] = wall
    for gap, texture in ((top - y, None), (y - bottom, 2)):
        labels[(gap > 0) & (gap > (left - x) * spread) & (gap > (x - right) * spread)] = material(rng, table, 0.05, texture=texture)
    gain = math.log(log_uniform(rng, 5, 60))
    for _ in range(int(rng.integers(1, 4))):
        w, h = rng.uniform(0.04, 0.18), rng.uniform(0.08, 0.25)
        window(rng, labels, view, table, rng.uniform(left, right), rng.uniform(top, bottom) * 0.5, w, h, gain)
    for _ in range(int(rng.integers(2, 8))):  # pictures, cupboards, boards
        cx, cy, w, h = rng.uniform(-0.7, 0.7), rng.uniform(-0.3, 0.45), log_uniform(rng, 0.02, 0.15), log_uniform(rng, 0.02, 0.15)
        if rng.random() < 0.5:
            frame = material(rng, table, brightness=log_uniform(rng, 0.03, 0.6), contrast=0.02)
            place(labels, view, frame, "box", cx, cy, w * 1.1, h * 1.1)
        place(labels, view, material(rng, table, 0.25, centre=centre_of(view, cx, cy)), "box", cx, cy, w, h)


def facade(rng, labels, view, table):
    """Paints a wall with a grid of windows, some of them bright, cornices and signs."""
    labels[:] = material(rng, table, 0.1, log_uniform(rng, 0.1, 0.7), texture=1)
    across, up = rng.uniform(0.08, 0.3), rng.uniform(0.12, 0.35)
    w, h, gain = across * rng.uniform(0.2, 0.4), up * rng.uniform(0.2, 0.4), math.log(log_uniform(rng, 3, 40))
    dark = material(rng, table, 0.0, 0.03, contrast=0.3, texture=0)
    for y in np.arange(-0.5, 0.5 + up, up):
        place(labels, view, material(rng, table, 0.05), "box", 0, y + up / 2, 1, rng.uniform(0.002, 0.02))
        for x in np.arange(-0.75, 0.75 + across, across):
            if rng.random() < 0.35:
                window(rng, labels, view, table, x, y, w, h, gain)
            else:
                place(labels, view, dark, "box", x, y, w, h)
    for _ in range(int(rng.integers(0, 5))):
        sign = material(rng, table, 0.5, texture=3, gain=rng.choice([0.0, 2.0]))
        place(labels, view, sign, "box", rng.uniform(-0.7, 0.7), rng.uniform(-0.4, 0.4), rng.uniform(0.03, 0.12), rng.uniform(0.01, 0.05))


def clutter(rng, labels, view, table, count, smallest):
    """Paints overlapping shapes, few large and many small ones: an image without a preferred scale ("dead leaves").

    count: shapes; smallest: radius, pixels. The density of radii falls as radius^-2.5.
    """
    height, width = labels.shape
    largest = 0.35 * LABEL_SCALE * min(view.scale, 2.0 * max(view.height, view.width))
    smallest = min(smallest * LABEL_SCALE, 0.3 * largest)
    radii = (smallest**-1.5 - rng.random(count) * (smallest**-1.5 - largest**-1.5)) ** (-1 / 1.5)
    crowd = rng.uniform(0, 1, 2) * (width, height) if rng.random() < 0.6 else None  # things gather: on a table, at a corner
    for r in np.sort(radii)[::-1]:
        if crowd is None or rng.random() < 0.2:
            cx, cy = rng.uniform(-r, width + r), rng.uniform(-r, height + r)
        else:
            cx, cy = crowd + rng.standard_normal(2) * (0.25 * width, 0.1 * height)
        a, b = r, r * rng.uniform(0.3, 1.0)
        form, angle = rng.choice(["ellipse", "box", "diamond", "blob", "box", "box"]), rng.choice([0.0, rng.uniform(0, math.pi)])
        if r > 0.03 * height or rng.random() < 0.5:
            where = (2 * cx / width - 1, 2 * cy / height - 1)
            bulge = rng.uniform(0.3, 1.5) if form == "ellipse" and rng.random() < 0.5 else 0.0
            value = material(rng, table, 0.12, centre=where, size=max(2 * r / width, 0.1), bulge=bulge)
        else:
            value = int(rng.integers(len(table)))  # small things share materials
        if rng.random() < 0.15:  # thin: wires, twigs, edges of things
            a, b = 3 * r, LABEL_SCALE * rng.uniform(0.4, 1.5)
        paint(labels, value, form, cx, cy, a, b, angle)


def lighting(rng, view, lamps):
    """Lights the scene: a warm or cool key light with gradients and shadows, dim ambient light, and lamps.

    lamps: list of (cx, cy, reach, power, tint), in pixels of the canvas. A lamp's light falls to half at `reach`.
    Returns: log of the light, (3, h, w).
    """
    h, w = view.height, view.width
    ambient = np.exp(0.25 * rng.standard_normal() * np.array([-1, 0, 1])) * log_uniform(rng, 0.03, 0.5)
    key = np.exp(0.3 * rng.standard_normal() * np.array([1, 0.1, -1]))
    strength = texture_field(rng, "clouds", h, w, TILE / (3 * view.scale)) * rng.uniform(0.1, 0.9)
    if rng.random() < 0.6:  # the edge of a shadow, straight or ragged, hard or soft
        name, period, angle = str(rng.choice(["clouds", "plaster", "stripes", "leaves"])), rng.uniform(0.5, 3), rng.uniform(0, 6)
        edge = texture_field(rng, name, h, w, TILE / (period * view.scale), angle=angle)
        depth, level, softness = rng.uniform(0.5, 3.0), rng.uniform(-0.7, 0.7), log_uniform(rng, 0.02, 1.0)
        strength = strength - depth / (1 + np.exp(np.clip((edge - level) / softness, -30, 30)))
    light = np.exp(strength)[None] * np.float32(key)[:, None, None] + np.float32(ambient)[:, None, None]
    y, x = np.arange(h, dtype=np.float32)[:, None], np.arange(w, dtype=np.float32)[None, :]
    for cx, cy, r, power, tint in lamps:
        light += np.float32(tint)[:, None, None] * (power / (1 + ((x - cx) ** 2 + (y - cy) ** 2) / (r * r)))
    return np.log(light)


def texture_names(rng):
    """Draws the textures of a layer's four fields: a smooth one, a wall, a ground, fine detail."""
    return (
        str(rng.choice(["clouds", "plaster", "marble", "clouds"])),
        str(rng.choice(["bricks", "windows", "plaster", "planks", "stone", "tiles", "text", "stripes"])),
        str(rng.choice(["sand", "gravel", "tiles", "wood", "grass", "checks", "leather", "stone"])),
        str(rng.choice(["foliage", "leaves", "weave", "print", "text", "stone", "stripes", "grass"])),
    )


def draw_fields(rng, height, width, scale):
    """Draws the texture fields of a layer. scale: pixels per scene height; a small scene has fine textures. Returns: (FIELDS, height, width)."""
    fields = np.empty((FIELDS, height, width), np.float32)
    for k, name in enumerate(texture_names(rng)):
        pitch = min(log_uniform(rng, 0.7, 3.5) * (700 / scale) ** 0.4, 5.0)
        tilt = rng.uniform(-0.5, 0.5) if k == 2 else 0.0
        angle = float(rng.choice([0.0, math.pi / 2, 0.1 * rng.standard_normal(), rng.uniform(0, 6)]))
        fields[k] = texture_field(rng, name, height, width, pitch, tilt, angle)
    return fields


def world(rng, view):
    """Draws everything that does not move. view: View. Returns: log radiance (3, h, w) of the canvas."""
    labels = np.zeros((LABEL_SCALE * view.height, LABEL_SCALE * view.width), np.int16)
    table = []
    kind = rng.choice(["landscape", "room", "facade", "clutter", "plain"], p=[0.22, 0.3, 0.18, 0.2, 0.1])
    if kind == "landscape":
        landscape(rng, labels, view, table)
    elif kind == "room":
        room(rng, labels, view, table)
    elif kind == "facade":
        facade(rng, labels, view, table)
    else:
        material(rng, table)
    area = view.height * view.width / 160**2
    many = {"clutter": rng.integers(25, 60), "plain": 0}.get(str(kind), rng.integers(0, 10))
    clutter(rng, labels, view, table, int(many * min(area, 4) ** 0.7), log_uniform(rng, 1.0, 12.0))
    lamps = []
    for _ in range(int(rng.poisson(0.5 if kind != "landscape" else 0.15))):
        r = log_uniform(rng, 0.004, 0.04) * max(view.scale, 300)
        cx, cy = rng.uniform(0, view.width), rng.uniform(0, view.height)
        warm = 0.25 * (rng.standard_normal() + 1) * np.array([1, 0, -1])
        tint = np.exp(0.8 * rng.standard_normal(3) if rng.random() < 0.2 else warm)  # neon, traffic lights
        bulb = material(rng, table, 0.0, 0.9, gain=math.log(log_uniform(rng, 20, 1000)), lit=0.0, contrast=0.0)
        table[bulb][:3] += np.float32(np.log(tint))
        form, flat, angle = rng.choice(["ellipse", "box"]), rng.uniform(0.2, 1), rng.choice([0.0, rng.uniform(0, 3)])
        paint(labels, bulb, form, LABEL_SCALE * cx, LABEL_SCALE * cy, LABEL_SCALE * r, LABEL_SCALE * r * flat, angle)
        lamps.append((cx, cy, r * rng.uniform(2, 8), log_uniform(rng, 0.5, 20), tint))
    log_light = lighting(rng, view, lamps)
    radiance, _ = shade(labels, table, draw_fields(rng, view.height, view.width, view.scale), log_light)
    if rng.random() < 0.4:
        radiance = np.exp(radiance)
        for _ in range(int(rng.integers(1, 4) * max(1.0, area**0.5 / 2))):  # people and things that stand still
            size = min(log_uniform(rng, 0.04, 0.4) * min(view.height, view.width), 120.0)
            cx, cy = rng.uniform(0, view.width), rng.uniform(0, view.height)
            log_object, alpha = draw_object(rng, size)
            log_object = log_object + log_light[:, min(int(cy), view.height - 1), min(int(cx), view.width - 1)][:, None, None]
            stamp(radiance, np.exp(log_object), alpha, [(cx, cy, rng.uniform(-0.2, 0.2), 0.0, 0.0)])
        radiance = np.log(radiance)
    return radiance * np.float32(rng.uniform(0.9, 1.5))  # contrast of the whole scene


# --- moving objects ---------------------------------------------------------------------------------------------------


def draw_person(rng, labels, table, r):
    """Paints a person in the middle: head, trunk, arms and legs at random angles. r: half height, label pixels."""
    middle = labels.shape[0] / 2
    skin = material(rng, table, 0, log_uniform(rng, 0.08, 0.6), contrast=0.03)
    table[skin][:3] += np.float32([0.25, 0, -0.25])
    shirt, trousers = material(rng, table, 0.3, bulge=0.5), material(rng, table, 0.1)
    for side in (-1, 1):
        swing = side * rng.uniform(0.0, 0.5)
        paint(labels, trousers, "ellipse", middle + math.sin(swing) * 0.3 * r, middle + 0.6 * r, 0.11 * r, 0.42 * r, -swing)
        swing = side * rng.uniform(0.1, 1.3)
        elbow = middle + side * 0.2 * r + math.sin(swing) * 0.2 * r
        paint(labels, rng.choice([skin, shirt]), "ellipse", elbow, middle - 0.2 * r, 0.07 * r, 0.33 * r, -swing)
    paint(labels, shirt, "ellipse", middle, middle - 0.1 * r, 0.25 * r, 0.45 * r)
    paint(labels, skin, "ellipse", middle, middle - 0.7 * r, 0.14 * r, 0.18 * r)
    if rng.random() < 0.7:
        paint(labels, material(rng, table, 0, 0.05), "ellipse", middle, middle - 0.8 * r, 0.15 * r, 0.1 * r)


def draw_thing(rng, labels, table, r):
    """Paints one to four overlapping shapes in the middle: a ball, a box, a board, a stick, a heap. r: radius, label pixels."""
    middle = labels.shape[0] / 2
    for part in range(int(rng.choice([1, 1, 2, 4]))):
        a = r * (rng.uniform(0.6, 0.95) if part == 0 else rng.uniform(0.15, 0.6))
        b = a * float(rng.choice([rng.uniform(0.3, 1.0), 0.9, 0.12]))
        form = str(rng.choice(["ellipse", "box", "blob", "diamond"]))
        shift = 0.0 if part == 0 else 0.4 * r
        value = material(rng, table, 0.3, bulge=rng.uniform(0, 2) if form == "ellipse" else 0.0)
        cx, cy = middle + rng.uniform(-shift, shift, 2)
        paint(labels, value, form, cx, cy, 0.9 * a, 0.9 * b, rng.uniform(0, 3.2))


def draw_object(rng, radius):
    """Draws a cut-out. radius: pixels. Returns: log radiance (3, n, n), in which mid-grey in full light is near -1.5, and opacity (n, n)."""
    n = 2 * math.ceil(radius) + 6
    labels = np.zeros((LABEL_SCALE * n, LABEL_SCALE * n), np.int16)
    table = []
    material(rng, table)
    table[0][ALPHA] = 0.0
    draw = draw_person if rng.random() < 0.4 else draw_thing
    draw(rng, labels, table, LABEL_SCALE * radius)
    table[0][:ALPHA] = table[1][:ALPHA]  # what shows through at the soft edge
    return shade(labels, table, draw_fields(rng, n, n, 6 * radius), None)


def stamp(frame, radiance, alpha, poses):
    """Draws a cut-out over a frame, in place.

    frame: (3, H, W) linear; radiance: (3, n, n) linear; alpha: (n, n) opacity; poses: list of (cx, cy, angle, bend, phase): centre in
    pixels, angle in radians, bending in half sides of the cut-out and the phase of its waves. Several poses are averaged: motion blur.
    """
    n = alpha.shape[0]
    x0 = max(math.floor(min(p[0] for p in poses) - 0.72 * n), 0)
    x1 = min(math.ceil(max(p[0] for p in poses) + 0.72 * n), frame.shape[2])
    y0 = max(math.floor(min(p[1] for p in poses) - 0.72 * n), 0)
    y1 = min(math.ceil(max(p[1] for p in poses) + 0.72 * n), frame.shape[1])
    if x0 >= x1 or y0 >= y1:
        return
    sprite = torch.from_numpy(np.concatenate([radiance * alpha, alpha[None]]))[None]
    layer = np.zeros((4, y1 - y0, x1 - x0), np.float32)
    for cx, cy, angle, bend, phase in poses:
        y = (np.arange(y0, y1, dtype=np.float32) - cy)[:, None] * (2 / n)
        x = (np.arange(x0, x1, dtype=np.float32) - cx)[None, :] * (2 / n)
        c, s = math.cos(angle), math.sin(angle)
        u, v = c * x + s * y, c * y - s * x
        grid = np.stack([u + bend * np.sin(3 * v + phase), v + bend * np.cos(3 * u + phase)], -1).astype(np.float32)
        layer += nnf.grid_sample(sprite, torch.from_numpy(grid)[None], mode="bilinear", align_corners=False)[0].numpy() / len(poses)
    region = frame[:, y0:y1, x0:x1]
    region *= 1 - layer[3]
    region += layer[:3]
