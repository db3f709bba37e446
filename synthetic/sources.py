"""Files from which the synthetic brackets take their radiance.

    photographed   .hdr images: perspective views of panoramas (width = 2 height), crops of photographs
    rendered       .npy files of `python -m synthetic.rendered`: three moments of one scene with parallax, moving objects and shadows

A file serves either training or validation. in_validation decides for images; renders are in separate folders.
Units: pixels of the output image; logarithms of radiance are natural. Arrays are numpy, (C, H, W), float32.
"""

import functools
import math
import re
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf

from brackets.files import read_array, read_image
from brackets.kinds import check_folder, in_a_sentence
from synthetic.camera import quantile
from synthetic.textures import log_uniform
from synthetic.world import draw_object

CACHE_BYTES = 400e6  # decoded images kept by one process
MAX_HALF_ANGLE = math.radians(60)  # of a perspective view into a panorama


# --- photographed radiance --------------------------------------------------------------------------------------------


def in_validation(path):
    """Whether radiance from this image file is kept for validation. About one name in five is.

    path: of the file, or its name with the suffix. Only the name decides. Digits beside letters do not count, so numbered pictures of
    one place stay together.
    Returns: bool, the same on every machine, whatever else lies in the folder.
    """
    stem = Path(path).stem
    name = re.sub(r"\d", "", stem) or stem
    return zlib.crc32(name.encode(errors="surrogateescape")) % 5 == 0


def image_size(path):
    """Reads (height, width) from the header of a Radiance file.

    Raises: FileNotFoundError; ValueError for a file that cannot be opened, or whose header has no size or another orientation.
    """
    try:
        with open(path, "rb") as file:
            found = re.search(rb"\n-Y[ \t]+(\d+)[ \t]+\+X[ \t]+(\d+)", file.read(65536))
    except OSError as error:
        raise in_a_sentence(path, error) from error
    if not found:
        raise ValueError(f"{path}: no '-Y height +X width' line in its header; save it again as a Radiance image, or remove it")
    return int(found[1]), int(found[2])


def hdr_files(folder):
    """Lists the .hdr files in a folder and its subfolders, sorted. Raises: FileNotFoundError if there are none; OSError for a folder we may not open."""
    check_folder(folder, "give a folder with .hdr images")
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() == ".hdr" and not path.is_dir())
    if not paths:
        raise FileNotFoundError(f"{folder}: no .hdr image found; give a folder that holds some, or no folder for the procedural world")
    return paths


def find_images(folder, height, width, split="all"):
    """Finds the .hdr images of a folder and its subfolders that are large enough for a view.

    height, width: of the view, pixels; split: "train", "val" or "all".
    Returns: sorted list of (path, height, width). For "val" it may be empty.
    Raises: FileNotFoundError if there is no image, ValueError if all are too small or kept for validation, or one is broken.
    """
    paths, images = hdr_files(folder), []
    for path in paths:
        h, w = image_size(path)
        # The width from which a panorama's pixels are no coarser than those of the widest view
        need = max(height, width) * math.pi / math.tan(MAX_HALF_ANGLE)
        if (w == 2 * h and w >= need) or (w != 2 * h and h >= height and w >= width):
            images.append((path, h, w))
    if not images:
        raise ValueError(f"{folder}: {len(paths)} .hdr images, all too small for views of {width}x{height}, which include room for "
                         "the camera's motion and for what flow sees around a patch; use larger images or a smaller size")
    chosen = [image for image in images if split == "all" or in_validation(image[0]) == (split == "val")]
    if not chosen and split == "train":
        raise ValueError(f"{folder}: the names of all {len(images)} images put them into validation; add images or rename one")
    return chosen


_decoded = {}  # (path, level) -> image, the most recently used last; each process has its own


def decoded(path, level=0):
    """Decodes an image, and keeps it while the cache has room.

    level: the image is averaged over squares of 2^level pixels.
    Returns: (3, H, W) float32, finite and above 0.
    """
    if (path, level) in _decoded:
        _decoded[path, level] = _decoded.pop((path, level))
        return _decoded[path, level]
    if level:
        image = nnf.avg_pool2d(torch.from_numpy(decoded(path))[None], 2**level)[0].numpy()
    else:
        image = np.ascontiguousarray(np.moveaxis(read_image(path), -1, 0), np.float32)
        image = np.where(np.isfinite(image), image, np.float32(0))
        middle = float(np.median(image.max(0)))
        image = np.clip(image, max(middle * 1e-5, 1e-12), max(middle, 1e-9) * 1e5)  # suns reach 1e5, a black pixel has no logarithm
    while _decoded and sum(x.nbytes for x in _decoded.values()) + image.nbytes > CACHE_BYTES:
        _decoded.pop(next(iter(_decoded)))
    _decoded[path, level] = image
    return image


def perspective(rng, panorama, height, width):
    """Draws a view into a panorama: in any direction, mostly level, never finer than the panorama's own pixels.

    panorama(level): returns it as (3, h, 2h) linear, averaged over squares of 2^level pixels, as decoded() does.
    Returns: radiance (3, height, width), focal length in pixels.
    """
    rows, columns = panorama(0).shape[1:]
    finest = columns / (2 * math.pi)  # focal length at which a pixel in the middle of the view is a pixel of the panorama
    widest = 0.5 * max(width, height) / math.tan(MAX_HALF_ANGLE)
    focal = log_uniform(rng, max(widest, finest / 8), max(widest, finest))
    level = int(math.log2(finest / focal) + 1e-6) if focal < finest else 0
    while level and (rows % 2**level or columns % 2**level):
        level -= 1
    image = panorama(level)  # a wide view of a large panorama: average first, or it would alias
    yaw, pitch, roll = rng.uniform(-math.pi, math.pi), rng.normal(0, 0.25), rng.normal(0, 0.05)
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None] / focal
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2)[None, :] / focal
    x, y = math.cos(roll) * x - math.sin(roll) * y, math.sin(roll) * x + math.cos(roll) * y
    down, forward = math.cos(pitch) * y + math.sin(pitch), math.cos(pitch) - math.sin(pitch) * y
    longitude = (np.arctan2(x, forward) + yaw) / (2 * math.pi) % 1.0  # 0 to 1 across the panorama
    latitude = np.arctan2(down, np.hypot(x, forward)) / math.pi + 0.5  # 0 at the zenith
    h, w = image.shape[1:]
    wrapped = torch.from_numpy(np.concatenate([image[..., -1:], image, image[..., :1]], -1))[None]
    column = longitude * w + 0.5  # pixel k's centre lies at (k + 1/2) / w; one column was put before it
    grid = np.stack([column * (2 / (w + 1)) - 1, np.clip(latitude * h - 0.5, 0, h - 1) * (2 / (h - 1)) - 1], -1)
    grid = torch.from_numpy(np.float32(grid))[None]
    return nnf.grid_sample(wrapped, grid, mode="bilinear", padding_mode="border", align_corners=True)[0].numpy(), focal


def photographed_view(rng, image, height, width):
    """Draws a view of an image, mirrored in half of the cases. image: (path, h, w).

    Returns: radiance (3, height, width), and the height of the scene in view heights.
    """
    path, h, w = image
    if w == 2 * h:
        view, focal = perspective(rng, functools.partial(decoded, path), height, width)
        ratio = focal / height  # a photograph of the whole scene would be about 53 degrees high
    else:
        step = max(1, int(rng.uniform(1, min(h / height, w / width, 4.0) + 1e-6)))  # a wider crop, averaged down
        y, x = int(rng.integers(h - step * height + 1)), int(rng.integers(w - step * width + 1))
        crop = decoded(path)[:, y : y + step * height, x : x + step * width]
        view, ratio = crop.reshape(3, height, step, width, step).mean((2, 4)), h / (step * height)
    return (view[..., ::-1] if rng.random() < 0.5 else view), ratio


def photographed_world(rng, height, width, image):
    """Takes the world from an image (path, h, w). Returns: log radiance (3, height, width), and the scene's height in image heights."""
    view, ratio = photographed_view(rng, image, height, width)
    return np.log(np.ascontiguousarray(view)), ratio


def photographed_object(rng, radius, images):
    """Draws an object as world.draw_object() does. Half of the objects show a part of one of the images. images: list of (path, h, w)."""
    radiance, alpha = draw_object(rng, radius)
    if rng.random() < 0.5:
        n = alpha.shape[0]
        fitting = [image for image in images if image[1] >= n and image[2] >= n]
        if fitting:
            view, _ = photographed_view(rng, fitting[int(rng.integers(len(fitting)))], n, n)
            radiance = np.log(np.ascontiguousarray(view)) - math.log(quantile(view, 0.5)) - 1.5
    return radiance, alpha


# --- rendered radiance ------------------------------------------------------------------------------------------------


def open_render(path):
    """Maps a render into memory. Returns: (3, 3, H, W), floating point. Raises: FileNotFoundError; ValueError for a damaged file or one of another kind."""
    frames = read_array(path)
    if frames.ndim != 4 or frames.shape[:2] != (3, 3) or frames.dtype.kind != "f":
        raise ValueError(f"{path}: holds {frames.dtype} of shape {frames.shape}, not (3, 3, height, width) of radiance; remove it")
    return frames


def read_render(path, window=...):
    """Reads a render, or a window of it. Returns: (3, 3, h, w) float32. Raises: as open_render does, and for values that are not finite."""
    frames = np.array(open_render(path)[window], np.float32)
    if not np.isfinite(frames).all():
        raise ValueError(f"{path}: holds values that are not finite; remove it and render it again")
    return frames


def find_renders(folder, height, width, split="all"):
    """Finds the renders, folder/train/*.npy and folder/val/*.npy, that are at least height x width.

    folder: made by `python -m synthetic.rendered`; split: "train", "val" or "all".
    Returns: sorted list of (path, height, width). For "val" it may be empty.
    Raises: FileNotFoundError if there is no render, ValueError for a file of another kind or if all are too small.
    """
    check_folder(folder, f"render some with python -m synthetic.rendered --out {folder}, or give no folder")
    folder = Path(folder)
    paths = [path for name in ("train", "val") if split in (name, "all") for path in sorted((folder / name).glob("*.npy"))]
    if not paths and split != "val":
        raise FileNotFoundError(f"{folder}: no .npy in its train/; render some with python -m synthetic.rendered --out {folder}, or give no folder")
    renders = []
    for path in paths:
        frames = open_render(path)
        if frames.shape[2] >= height and frames.shape[3] >= width:
            renders.append((path, *frames.shape[2:]))
    if paths and not renders:
        raise ValueError(f"{folder}: {len(paths)} renders, all smaller than {width}x{height}; render larger ones or choose a smaller size")
    return renders


def rendered_world(rng, height, width, render, turn=0.0):
    """Takes the world from a render (path, h, w): the same crop of its three frames, mirrored in half of the cases.

    turn: probability of a quarter or half turn, where the render is large enough.
    Returns: log radiance (3, 3, height, width), and the scene's height in image heights.
    """
    path, h, w = render
    quarters = int(rng.integers(1, 4)) if rng.random() < turn else 0
    if quarters % 2 and (h < width or w < height):
        quarters = 0
    tall, wide = (width, height) if quarters % 2 else (height, width)
    y, x = int(rng.integers(h - tall + 1)), int(rng.integers(w - wide + 1))
    crop = read_render(path, (..., slice(y, y + tall), slice(x, x + wide)))
    crop = np.rot90(crop, quarters, axes=(-2, -1))
    crop = crop[..., ::-1] if rng.random() < 0.5 else crop
    return np.log(np.maximum(np.ascontiguousarray(crop), np.float32(1e-5))), h / tall
