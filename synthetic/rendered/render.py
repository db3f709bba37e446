"""Renders the scenes with Mitsuba, removes their noise, and writes them as files.

A file is (3, 3, H, W) float16, frame (1 is the reference), then RGB: linear radiance, at most 6e4; the median of the reference is 1.
mitsuba, drjit and pyoidn are imported where they are used, so that everything else works without them.
"""

import math
import time
from pathlib import Path

import numpy as np
import torch

from brackets.files import read_image
from brackets.kinds import check_folder
from common import write_atomically
from data import GAMMA, T
from synthetic.rendered.scenes import draw_stage, pose
from synthetic.sources import hdr_files, image_size, in_validation, read_render

SIZES = {"train": (288, 208), "val": (384, 256)}  # width, height, pixels
FIRST_SEED = {"train": 0, "val": 1_000_000}  # added to the index, so that the two splits share no seed
SPP = 24  # paths per pixel
GUIDES = 8  # samples per pixel of albedo and normals: they take half as long as the same number of paths, and have little noise
PIECE = 8  # paths per pixel traced at once; each piece is clipped at BRIGHTEST, so that a stray path cannot outshine a lamp
BRIGHTEST = 100.0  # in units of a panorama's median


# --- rendering --------------------------------------------------------------------------------------------------------


def shape(mi, thing, tau):
    """Makes a Mitsuba mesh of a thing at time tau. mi: the module."""
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
    parameters["vertex_positions"] = np.ravel(V).astype(np.float32)  # Mitsuba updates the normals
    parameters.update()
    return mesh


def trace(mi, stage, fixed, tau, size, spp, seed):
    """Traces paths from the camera at time tau.

    fixed: what does not move, as {name: Mitsuba object}; size: width, height; spp: paths per pixel.
    Returns: (H, W, 9) radiance, albedo, normal.
    """
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
    """Removes the noise, guided by albedo and normals. The sky has no surface, so its own colour guides it.

    layers: (H, W, 9) of trace(). Returns: (H, W, 3) radiance.
    """
    import pyoidn

    radiance, albedo, normal = (np.ascontiguousarray(part) for part in np.split(layers, 3, -1))
    covered = np.clip(np.linalg.norm(normal, axis=-1, keepdims=True), 0, 1)
    albedo = np.clip(albedo + (1 - covered) * np.clip(radiance / (4 * np.median(radiance) + 1e-6), 0, 1), 0, 1)
    return np.maximum(pyoidn.denoise(radiance, np.ascontiguousarray(albedo, np.float32), normal, hdr=True), 0)


def render_stage(stage, size, spp, seed):
    """Renders the three frames of a stage. Arguments: as for trace().

    Returns: (3, 3, H, W) float32 linear radiance; the median of the reference is 1.
    """
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


def find_panoramas(folder, split):
    """Finds the .hdr files of a split, "train" or "val", in a folder and its subfolders.

    Returns: paths of the panoramas (width = 2 height), paths of all images, both sorted by name.
    Raises: FileNotFoundError if the split has no panorama, ValueError for a file without a size in its header.
    """
    files = sorted((path for path in hdr_files(folder) if in_validation(path) == (split == "val")), key=lambda path: path.name)
    sizes = [image_size(path) for path in files]
    panoramas = [path for path, (height, width) in zip(files, sizes) if width == 2 * height]
    if not panoramas:
        raise FileNotFoundError(f"{folder}: no panorama (.hdr, width = 2 height) for {split}; name a folder with more of them")
    return panoramas, files


def start(threads):
    """Prepares a process for rendering with this many threads."""
    import drjit
    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    drjit.set_thread_count(threads)


def render_file(task, hdr_dir, seed, spp):
    """Renders one file. The scenes of a split use its panoramas in turn.

    task: split, index and path of the file. hdr_dir: folder of .hdr images. seed: of everything random. spp: paths per pixel.
    Returns: a line that says what was done.
    """
    split, index, target = task
    began = time.time()
    number = FIRST_SEED[split] + index
    rng = np.random.default_rng([seed, number])
    panoramas, files = find_panoramas(hdr_dir, split)
    images = [read_image(files[k]) for k in rng.choice(len(files), min(4, len(files)), replace=False)]
    panorama = panoramas[index % len(panoramas)]
    stage = draw_stage(rng, read_image(panorama), images, SIZES[split][0])
    frames = render_stage(stage, SIZES[split], spp, number + 31 * seed)
    if not np.isfinite(frames).all():
        return f"{target}: LEFT OUT, the renderer gave values that are not finite"
    write_atomically(target, lambda file: np.save(file, np.minimum(frames, 6e4).astype(np.float16)))
    return f"{split}/{target.name} {panorama.stem} {time.time() - began:.1f} s"


def contact_sheet(folder, count):
    """Draws scenes one below another, as a noiseless camera would take them at -3, 0 and +3 stops, then T(reference).

    folder: of the rendered scenes; count: how many of each split, from the first on.
    Returns: (H, W, 3) uint8. Raises: FileNotFoundError if there is no scene.
    """
    check_folder(folder, "render some first")
    rows = []
    width, height = SIZES["train"]
    for path in sorted(Path(folder).glob("val/*.npy"))[:count] + sorted(Path(folder).glob("train/*.npy"))[:count]:
        frames = read_render(path, (..., slice(height), slice(width)))
        views = [np.clip(frame * 0.25 * 2.0**stops, 0, 1) ** (1 / GAMMA) for frame, stops in zip(frames, (-3, 0, 3))]
        views.append(T(torch.from_numpy(frames[1] / 32).clamp(0, 1)).numpy())
        rows.append(np.concatenate(views, -1))
    if not rows:
        raise FileNotFoundError(f"{folder}: no scenes in train/ or val/; render some first")
    return (np.concatenate(rows, 1).transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)
