"""Renders training scenes with a physically based renderer: what cut-outs on a plane cannot give.

A scene is one radiance at the moments of three exposures: parallax under a hand-held camera, figures that walk, things that bend, twist,
swing, roll and spin, occlusion, cast shadows, lamps in view, rooms with a window to the bright outside, lit by panoramas. Exposure,
noise, clipping and files are not in it: they belong to whatever photographs it afterwards.

    pip install mitsuba numpy imageio imagecodecs pyoidn                       # tools of this script, no dependency of the project
    python render_scenes.py --hdr-dir DIR --out data/rendered --train 200 --val 24    # 25 minutes on two busy cores; 260 MB
    python render_scenes.py --out data/rendered --sheet sheet.png              # look at them (seconds)

DIR is searched, subfolders too, for .hdr files: panoramas (width = 2 height) light the scenes and are seen behind them; photographs and
panoramas become pictures on walls and screens. Training scenes use the files that sources.in_validation gives to training, validation
scenes the others, so no panorama is in both. The variant llvm_ad_rgb needs LLVM's shared library: set DRJIT_LIBLLVM_PATH if not found,
or if Mitsuba stops with "LLVM ERROR: Cannot select" (3.9 does with LLVM 15, not with 19).

Written: OUT/train/NNNN.npy, OUT/val/NNNN.npy: (3, 3, H, W) float16, frame (1 is the reference) then RGB, linear radiance, median of the
reference 1, at most 6e4. A scene is a function of (seed, split, index) and DIR; files that exist are skipped.

Axes: x right, y into the picture, z up; metres, radians, seen from an eye near (0, 0, 1.5). tau: time in frames, 0 is the reference.
The things in a scene, their pictures, meshes and motions come from render_things.py.
"""

import argparse
import math
import multiprocessing
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import imageio.v3 as iio
import numpy as np

from synthetic.rendered.things import (Thing, ball, box, foliage, joined, lathe, light, limb, log_uniform, material, movers, panel, placed, tube,
                           wall)
from synthetic.sources import in_validation

SIZES = {"train": (288, 208), "val": (384, 256)}  # width, height, pixels
FIRST_SEED = {"train": 0, "val": 1_000_000}  # added to the index: no scene of one split has a seed of the other
SPP = 24  # paths a pixel
GUIDES = 8  # samples a pixel of albedo and normals: they take half the time of as many paths, and have little noise
PIECE = 8  # paths a pixel traced at once; each piece is cut at BRIGHTEST, so that a stray path cannot outshine a lamp
BRIGHTEST = 100.0  # in units of a panorama's median
SUN = 2000.0  # panoramas are cut here, in units of their median: a sun of half a degree still casts shadows and the noise stays in bounds
SHAKE = 30.0  # largest shift of the camera against the reference, pixels
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
    shake: np.ndarray  # (3, 6) x, y, z, yaw, pitch, roll of the three frames against the reference, metres and radians


@dataclass
class Stage:
    """What Mitsuba is given: everything in a scene."""

    things: list[Thing]
    panorama: np.ndarray  # (n, 2n, 3) radiance around, its middle column in direction y
    view: View
    blur: float  # share of a frame's time that the long exposure lasts, 0 for an instant


# --- the camera -------------------------------------------------------------------------------------------------------


def hand_held(rng, focal, depth):
    """What a hand does to the camera: mostly a few pixels, never more than SHAKE; none on a tripod.

    focal: pixels; depth: of what the pixels are counted at, metres. Returns: (3, 6) as in View.shake.
    """
    shake = np.zeros((3, 6))
    if rng.random() < 0.12:
        return shake
    largest = SHAKE * rng.random() ** 2.5
    for frame in (0, 2):
        turned = rng.random()  # share of the shift that is a turn of the camera; the rest is a step aside, with parallax
        angle, other = rng.uniform(0, 2 * np.pi, 2)
        turn, step = 0.9 * largest * turned / focal, 0.9 * largest * (1 - turned) * depth / focal
        shake[frame, :3] = step * math.cos(other), step * rng.uniform(-0.5, 0.5), step * math.sin(other)
        shake[frame, 3:] = turn * math.cos(angle), turn * math.sin(angle), min(0.1 * largest / focal, 0.01) * rng.uniform(-1, 1)
    return shake


def draw_view(rng, width):
    """A camera at the height of a person's eyes or lower, in front of the scene."""
    fov = math.radians(rng.uniform(38, 72))
    focal = width / 2 / math.tan(fov / 2)
    eye = np.array([rng.uniform(-0.5, 0.5), 0.0, rng.uniform(0.9, 1.7)])
    return View(eye, fov, focal, rng.uniform(-0.12, 0.06), hand_held(rng, focal, log_uniform(rng, 1.5, 8)))


def pose(view, tau):
    """Where the camera is at time tau, between its three places on a line: eye (3,), yaw, pitch, roll."""
    offset = [np.interp(tau, (-1, 0, 1), column) for column in view.shake.T]
    return view.eye + offset[:3], offset[3], view.pitch + offset[4], offset[5]


# --- places -----------------------------------------------------------------------------------------------------------


def still(look, mesh):
    """A thing that stays where it is."""
    return Thing(look, lambda tau: mesh)


def clutter(rng, low, high, count, images):
    """Boxes, balls, vases and books on the floor between low and high (x, y)."""
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


def shelf(rng, corner, width, height, depth=0.3):
    """A bookcase in front of a wall behind it (y), full of books; corner: left, front, bottom."""
    rows = int(rng.integers(2, 6))
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
    """A table with things on it."""
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
    """Hanging globes, standing lamps and coloured tubes between low and high (x, y); ceiling None: standing ones alone."""
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
    """A wall with one to three windows: wall, and the frames around and the bars in its openings. Returns two meshes."""
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


def interior(rng, view, images):
    """A furnished room with windows in one wall. Returns things, (x, y) limits, and the direction (x, y) out of the window."""
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
    if rng.random() < 0.85:  # a lamp behind the camera: the outside is some 4 to 60 times as bright as the room, more without it
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


def exterior(rng, view, images):
    """Ground, houses, trees and street furniture under the open sky. Returns as interior, without a window."""
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
    """The panorama from another side, its radiance in units of its median, cut at SUN; behind a window only the half that can be seen."""
    height, width = panorama.shape[:2]
    around = np.roll(panorama, int(rng.integers(width)), 1)[:, :: int(rng.choice([-1, 1]))]
    around = np.minimum(around / max(float(np.median(around)), 1e-6), SUN)
    if outwards is not None:  # all light of a closed room comes through the window: no path is lost on the rest
        yaw = (np.arange(width) + 0.5 - width / 2) * 2 * np.pi / width
        around = around * ((np.sin(yaw) * outwards[0] + np.cos(yaw) * outwards[1]) > 0.1)[None, :, None]
    return around.astype(np.float32)


def draw_stage(rng, panoramas, images, number, width):
    """Everything in scene `number`: the panoramas take turns."""
    view = draw_view(rng, width)
    things, limits, outwards = (interior if rng.random() < 0.55 else exterior)(rng, view, images)
    around = turned_panorama(rng, panoramas[number % len(panoramas)], outwards)
    pixels = rng.uniform(0, 0.5) if rng.random() < STILL else log_uniform(rng, *MOTION)
    things = things + movers(rng, view, pixels, limits, images)
    blur = min(rng.uniform(0.15, 0.7), BLUR / max(pixels, 1)) if rng.random() < BLURRED else 0.0
    return Stage(things, around, view, blur)


# --- rendering --------------------------------------------------------------------------------------------------------


def shape(mi, thing, tau):
    """A Mitsuba mesh of a thing at time tau."""
    V, F, UV = thing.mesh(tau)
    look = thing.material
    properties = mi.Properties()
    bitmap = lambda values: {"type": "bitmap", "bitmap": mi.Bitmap(np.ascontiguousarray(values[::-1])), "raw": True}
    surface = {"type": "principled", "base_color": bitmap(look.picture), "roughness": look.rough, "metallic": look.metallic,
               "specular": look.specular}
    properties["surface"] = mi.load_dict({"type": "dielectric"} if look.glass else {"type": "twosided", "inner": surface})
    if look.glow is not None:
        properties["glow"] = mi.load_dict({"type": "area", "radiance": bitmap(look.glow)})
    mesh = mi.Mesh("mesh", len(V), len(F), has_vertex_normals=True, has_vertex_texcoords=True, props=properties)
    parameters = mi.traverse(mesh)
    parameters["vertex_texcoords"] = np.ravel(UV).astype(np.float32)
    parameters["faces"] = np.ravel(F).astype(np.uint32)
    parameters["vertex_positions"] = np.ravel(V).astype(np.float32)  # the normals follow by themselves
    parameters.update()
    return mesh


def trace(mi, stage, fixed, tau, size, spp, seed):
    """Paths from the camera at time tau. Returns: (H, W, 9) radiance, albedo, normal."""
    eye, yaw, pitch, roll = pose(stage.view, tau)
    ahead = np.array([math.sin(yaw) * math.cos(pitch), math.cos(yaw) * math.cos(pitch), math.sin(pitch)])
    place = mi.ScalarTransform4f().look_at(origin=eye.tolist(), target=(eye + ahead).tolist(), up=[math.sin(roll), 0, math.cos(roll)])
    film = {"type": "hdrfilm", "width": size[0], "height": size[1], "rfilter": {"type": "box"}, "pixel_format": "rgb"}
    camera = {"type": "perspective", "fov": math.degrees(stage.view.fov), "fov_axis": "x", "to_world": place, "film": film,
              "near_clip": 0.05}
    moving = {f"moving{k}": shape(mi, thing, tau) for k, thing in enumerate(stage.things) if thing.moving}
    scene = mi.load_dict({"type": "scene", "camera": camera, **fixed, **moving})
    paths = mi.load_dict({"type": "path", "max_depth": 6, "rr_depth": 4})
    guides = mi.load_dict({"type": "aov", "aovs": "albedo:albedo,normal:sh_normal"})
    radiance, rounds = 0.0, max(1, spp // PIECE)
    for k in range(rounds):
        piece = np.array(mi.render(scene, integrator=paths, spp=spp // rounds, seed=(seed * 10 + k) % 2**32), np.float32)
        radiance = radiance + np.minimum(piece, BRIGHTEST) / rounds
    guide = mi.render(scene, integrator=guides, spp=max(1, GUIDES * spp // SPP), seed=seed % 2**32)
    return np.concatenate([radiance, np.array(guide, np.float32)[..., -6:]], -1)


def denoised(layers):
    """The radiance (H, W, 3) without noise, guided by albedo and normals; what has no surface, the sky, guides by its own colour."""
    import pyoidn

    radiance, albedo, normal = (np.ascontiguousarray(part) for part in np.split(layers, 3, -1))
    covered = np.clip(np.linalg.norm(normal, axis=-1, keepdims=True), 0, 1)
    albedo = np.clip(albedo + (1 - covered) * np.clip(radiance / (4 * np.median(radiance) + 1e-6), 0, 1), 0, 1)
    return np.maximum(pyoidn.denoise(radiance, np.ascontiguousarray(albedo, np.float32), normal, hdr=True), 0)


def render_stage(stage, size, spp, seed):
    """The three frames of a stage. Returns: (3, 3, H, W) float32 linear radiance, the median of the reference 1."""
    import mitsuba as mi

    fixed = {f"fixed{k}": shape(mi, thing, 0.0) for k, thing in enumerate(stage.things) if not thing.moving}
    upright = mi.ScalarTransform4f().rotate([1, 0, 0], 90)  # Mitsuba's panoramas have y upwards and direction y at their edge
    around = np.ascontiguousarray(np.roll(stage.panorama, stage.panorama.shape[1] // 2, 1))
    fixed["sky"] = mi.load_dict({"type": "envmap", "bitmap": mi.Bitmap(around), "to_world": upright})
    frames = []
    for frame, tau in enumerate((-1.0, 0.0, 1.0)):
        times = tau + stage.blur * np.linspace(-0.5, 0.5, 8) if frame == 2 and stage.blur else [tau]
        layers = [trace(mi, stage, fixed, t, size, spp // len(times), seed * 100 + 10 * frame + k) for k, t in enumerate(times)]
        frames.append(denoised(sum(layers) / len(layers)).transpose(2, 0, 1))
    frames = np.stack(frames)
    return frames / max(float(np.median(frames[1])), 1e-6)


# --- files ------------------------------------------------------------------------------------------------------------


def is_panorama(path):
    """Whether the header of a Radiance file says width = 2 height."""
    with path.open("rb") as handle:
        size = re.search(rb"\n-Y +(\d+) +\+X +(\d+)", handle.read(2000))
    if size is None:
        raise ValueError(f"{path}: no line -Y height +X width in its header; take it out of the folder or save it again")
    return int(size[2]) == 2 * int(size[1])


def find_images(folder, split):
    """The files of a split: paths of panoramas (width = 2 height) and of all images.

    Raises: FileNotFoundError if the split has no panorama.
    """
    files = sorted((path for path in Path(folder).rglob("*.hdr") if in_validation(path) == (split == "val")), key=lambda path: path.name)
    panoramas = [path for path in files if is_panorama(path)]
    if not panoramas:
        raise FileNotFoundError(f"{folder}: no panorama (.hdr, width = 2 height) for {split}; name a folder with more of them")
    return panoramas, files


def read_radiance(path):
    """(H, W, 3) float32 of a Radiance file."""
    return np.maximum(imagecodecs.rgbe_decode(path.read_bytes()), 0)


def start(threads):
    """Prepares a process for rendering."""
    import drjit
    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    drjit.set_thread_count(threads)


def render_one(task):
    """Renders one file of the set and writes it whole or not at all. task: hdr_dir, target, split, index, seed, spp. Returns a line."""
    hdr_dir, target, split, index, seed, spp = task
    began = time.time()
    number = FIRST_SEED[split] + index
    rng = np.random.default_rng([seed, number])
    panoramas, files = find_images(hdr_dir, split)
    images = [read_radiance(files[k]) for k in rng.choice(len(files), min(4, len(files)), replace=False)]
    panorama = [read_radiance(panoramas[index % len(panoramas)])]
    stage = draw_stage(rng, panorama, images, 0, SIZES[split][0])
    frames = render_stage(stage, SIZES[split], spp, number + 31 * seed)
    if not np.isfinite(frames).all():
        return f"{target}: LEFT OUT, the renderer gave values that are not finite"
    partial = target.with_suffix(".partial")
    with partial.open("wb") as handle:
        np.save(handle, np.minimum(frames, 6e4).astype(np.float16))
    partial.replace(target)
    return f"{target.parent.name}/{target.name} {panoramas[index % len(panoramas)].stem} {time.time() - began:.1f} s"


def contact_sheet(out, count):
    """The first `count` scenes of each split one below another, as a noiseless camera takes them at -3, 0, +3 stops, then T(reference).

    Returns: (H, W, 3) uint8. Raises: FileNotFoundError if there is no scene.
    """
    rows = []
    for path in sorted(Path(out).glob("val/*.npy"))[:count] + sorted(Path(out).glob("train/*.npy"))[:count]:
        frames = np.load(path).astype(np.float32)[:, :, :208, :288]
        views = [np.clip(frame * 0.25 * 2.0**stops, 0, 1) ** (1 / 2.2) for frame, stops in zip(frames, (-3, 0, 3))]
        views.append(np.log1p(5000 * np.clip(frames[1] / 32, 0, 1)) / np.log1p(5000))
        rows.append(np.concatenate(views, -1))
    if not rows:
        raise FileNotFoundError(f"{out}: no scenes in train/ or val/; render some first")
    return (np.concatenate(rows, 1).transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hdr-dir", type=Path, help="folder of .hdr panoramas and photographs, searched with its subfolders")
    parser.add_argument("--out", type=Path, default=Path("data/rendered"), help="folder to write to")
    parser.add_argument("--train", type=int, default=200, help="training scenes")
    parser.add_argument("--val", type=int, default=24, help="validation scenes")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--spp", type=int, default=SPP, help="paths a pixel")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="scenes rendered at a time, sharing the cores")
    parser.add_argument("--sheet", type=Path, help="only write this contact sheet of the scenes in --out")
    parser.add_argument("--rows", type=int, default=12, help="scenes of each split in the sheet")
    args = parser.parse_args()
    if args.sheet:
        iio.imwrite(args.sheet, contact_sheet(args.out, args.rows))
        return
    if args.hdr_dir is None:
        raise FileNotFoundError("--hdr-dir: not given; name a folder with .hdr panoramas, for example from polyhaven.com (CC0)")
    tasks = []
    for split, count in (("val", args.val), ("train", args.train)):
        (args.out / split).mkdir(parents=True, exist_ok=True)
        files = [(index, args.out / split / f"{index:04d}.npy") for index in range(count)]
        tasks += [(args.hdr_dir, file, split, index, args.seed, args.spp) for index, file in files if not file.exists()]
    threads = max(1, (os.cpu_count() or 1) // args.workers)
    with multiprocessing.get_context("spawn").Pool(args.workers, start, (threads,)) as pool:
        for done, line in enumerate(pool.imap_unordered(render_one, tasks), 1):
            print(f"{done}/{len(tasks)} {line}", flush=True)


if __name__ == "__main__":
    main()
