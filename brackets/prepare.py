"""What a bracket goes through before the network sees it: registration, gamma 2.2 for the camera's own curve, optical flow.

No part of the paper: it feeds the frames as they are [departs D6, D9, D10]. Each step can be left out.

    python -m brackets DIR     what was found in a scene: files, exposures, motion of the camera, tone curve, motion of things
"""

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from brackets.flow import follow_flow
from brackets.light import estimate_response, recode
from brackets.register import check_bracket, corner_motion, register, warp
from brackets.scenes import LAYOUTS, load_scene, scene_files
from common import write_atomically

VERSION = 4     # counts up with every change of what prepare() returns: cached scenes are then prepared anew


@dataclass(frozen=True)
class PrepareConfig:
    """How the frames are prepared."""
    register: bool = True   # warp the outer frames onto the reference by a homography, as hand-held frames need [departs D6]
    response: bool = True   # recode the frames to gamma 2.2 where the camera's curve is another [departs D10]
    flow: bool = True       # bring what moved by itself to where the reference shows it, along optical flow [departs D9]


UNPREPARED = PrepareConfig(False, False, False)     # frames as they were taken: the paper's way


@dataclass
class Prepared:
    """A prepared bracket, and what was found on the way."""
    ldr: torch.Tensor           # (3, 3, H, W) gamma-coded in [0, 1]
    ev: torch.Tensor            # (3,) stops
    homographies: torch.Tensor  # (3, 3, 3) float64, from the reference's pixels to each frame's; the identity where nothing was warped
    curve: np.ndarray | None    # of light.estimate_response; None where frames were not recoded

    def in_words(self):
        """What was done, for people, such as ", registered by 11.9 px, recoded to gamma 2.2"."""
        height, width = self.ldr.shape[-2:]
        moved = [corner_motion(homography, height, width) for homography in self.homographies if (homography != torch.eye(3)).any()]
        return "".join(f", registered by {pixels:.1f} px" for pixels in moved) + (", recoded to gamma 2.2" if self.curve is not None else "")


def registered_frames(ldr, ev, homographies, curve):
    """The bracket recoded and warped onto the reference, without flow. Arguments and result as the fields of Prepared."""
    ldr = ldr.clone() if curve is None else recode(ldr, curve)
    for i in (0, 2):
        ldr[i] = warp(ldr[i], homographies[i], ldr[1], float(ev[1] - ev[i]))
    return ldr


@torch.no_grad()
def prepare(ldr, ev, config=None):
    """Prepares a bracket for the network.

    ldr: (3, 3, H, W) float32, coded in [0, 1]: frame, then RGB channel; exposure rises, frame 1 is the reference. ev: (3,) stops.
    config: PrepareConfig, all steps by default.
    Returns: Prepared. Raises: ValueError for another shape.
    """
    config = config or PrepareConfig()
    check_bracket(ldr, ev)
    registered, homographies = register(ldr, ev) if config.register else (ldr, torch.eye(3, dtype=torch.float64).repeat(3, 1, 1))
    curve = estimate_response(registered, ev) if config.response else None
    if curve is not None or config.flow:
        del registered                                          # a large bracket takes a gigabyte
        registered = (follow_flow if config.flow else registered_frames)(ldr, ev, homographies, curve)
    return Prepared(registered, ev, homographies, curve)


def prepared_sample(sample, config=None):
    """A sample of data.py's kind with its frames prepared. Returns: a new dict."""
    prepared = prepare(sample["ldr"], sample["ev"], config)
    return {**sample, "ldr": prepared.ldr, "ev": prepared.ev}


# --- scenes on the disk, for training ---------------------------------------------------------------------------------

def _cache_file(folder, layout, cache, config):
    """Where a prepared scene is kept: elsewhere once a file changes its size or time, or exposures or settings change."""
    paths, ev, truth = scene_files(folder, layout)
    if truth is None:
        raise ValueError(f"{folder}: there is no ground truth; training needs {LAYOUTS['kalantari'][2]} or {LAYOUTS['hu'][2]}")
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths + [truth]]
    stats += [ev.tolist(), astuple(config), VERSION]
    return cache / f"{Path(folder).name}-{hashlib.sha256(repr(stats).encode()).hexdigest()[:20]}.npy"


def _ev_file(file):
    return file.with_suffix(".ev.npy")


def _fill_cache(folder, file, layout, config):
    """Writes (H, W) records: nine LDR values in 16 bits, three of the truth as float32 (half would round it), and the exposures beside it."""
    if file.exists():                                           # another rank was faster
        return
    sample = prepared_sample(load_scene(folder, layout), config)
    pixels = np.empty(sample["hdr"].shape[1:], np.dtype([("ldr", np.uint16, (3, 3)), ("hdr", np.float32, (3,))]))
    pixels["ldr"] = (sample["ldr"] * 65535).round().numpy().astype(np.uint16).transpose(2, 3, 0, 1)
    pixels["hdr"] = sample["hdr"].numpy().transpose(1, 2, 0)
    try:
        write_atomically(_ev_file(file), lambda handle: np.save(handle, sample["ev"].numpy()))
        write_atomically(file, lambda handle: np.save(handle, pixels))
    except PermissionError:  # Windows does not replace a file that another process has open: it wrote the same
        if not file.exists():
            raise


def _in_one_thread():
    torch.set_num_threads(1)


def cache_scenes(folders, cache, layout="auto", config=UNPREPARED, workers=0):
    """Decodes and prepares scenes once, for data.Patches: 30 bytes a pixel, 3.3 GB for Kalantari's training scenes.

    folders: of scenes with a truth; cache: folder for the files, which several processes may share; config: PrepareConfig; workers: processes
    that work at it, 0: this one.
    Returns: list of (path, (3,) exposures), one for each folder. Raises: ValueError for a scene without truth, and what load_scene raises.
    """
    files = [_cache_file(folder, layout, Path(cache), config) for folder in folders]
    todo = [(folder, file) for folder, file in zip(folders, files) if not file.exists()]
    start = int(os.environ.get("LOCAL_RANK", "0")) * len(todo) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    todo = todo[start:] + todo[:start]  # ranks begin at different scenes and share the work
    fill = partial(_fill_cache, layout=layout, config=config)
    with tqdm(total=len(todo), desc=f"preparing scenes into {cache}", unit="scene", disable=not todo) as bar:
        if workers and len(todo) > 1:
            with ProcessPoolExecutor(min(workers, len(todo)), get_context("spawn"), _in_one_thread) as pool:
                for _ in pool.map(fill, *zip(*todo)):
                    bar.update()
        else:
            for folder, file in todo:
                fill(folder, file)
                bar.update()
    return [(file, np.load(_ev_file(file))) for file in files]
