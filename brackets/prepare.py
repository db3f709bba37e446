"""Prepares a bracket for the network: registers the frames, corrects their light, aligns them along optical flow.

The paper does none of this. It feeds the frames as they are [departs D6, D9, D10]. Each step can be left out.

    python -m brackets DIR     what was found in a scene: files, exposures, camera motion, light, moving objects
"""

import hashlib
import math
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import astuple, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from tyro.conf import DisallowNone

from brackets.files import read_array
from brackets.flow import follow_flow, still_noise
from brackets.light import Light, apply, estimate
from brackets.light import in_words as light_in_words
from brackets.register import all_seen, check_bracket, corner_motion, find_motion, onto_reference, register
from brackets.scenes import LAYOUTS, load_scene, scene_files
from common import write_atomically

VERSION = 10    # raise it with every change in what prepare() returns: cached scenes are then prepared anew


@dataclass(frozen=True)
class PrepareConfig:
    """How the frames are prepared."""
    register: bool = True   # warp the outer frames onto the reference by a homography, as hand-held frames need [departs D6]
    response: bool = True   # find the camera's tone curve, true exposures and clip level, and correct for them [departs D10]
    flow: bool = True       # bring moving objects to where the reference shows them, along optical flow [departs D9]

    def overridden(self, register=None, response=None, flow=None):
        """Replaces the steps that are not None. Returns: a new PrepareConfig."""
        return PrepareConfig(*(old if new is None else new for old, new in zip(astuple(self), (register, response, flow))))


UNPREPARED = PrepareConfig(False, False, False)     # frames as they were taken: the paper's way


@dataclass
class AlignmentConfig:
    """How the frames are prepared; by default, like the training frames of the weights."""
    register: DisallowNone[bool | None] = None  # warp the outer frames onto the reference by a homography [departs D6]
    response: DisallowNone[bool | None] = None  # correct tone curve, exposures and clip level as found in the frames [departs D10]
    flow: DisallowNone[bool | None] = None      # bring moving objects to where the reference shows them, along optical flow [departs D9]


@dataclass
class Prepared:
    """A prepared bracket, and what was found out about it."""
    ldr: torch.Tensor           # (3, 3, H, W) gamma-coded in [0, 1]
    ev: torch.Tensor            # (3,) stops from 0; corrected where `light` says so
    homographies: torch.Tensor  # (3, 3, 3) float64, from the reference's pixels to each frame's; the identity where nothing was warped
    light: Light | None         # what light.estimate found; None if frames and exposures were left alone
    stated: torch.Tensor        # (3,) stops, as the files state them
    noise: float = math.inf     # of the frames as still_noise measures it, if neither the camera nor an object moved; else infinity

    def in_words(self):
        """Says what was found and done, such as "exposures +0, +2.1, +4 EV (stated +0, +2, +4); clips at 248 of 255; registered by 11.9 px"."""
        height, width = self.ldr.shape[-2:]
        moved = [corner_motion(homography, height, width) for homography in self.homographies if (homography != torch.eye(3)).any()]
        return "; ".join([light_in_words(self.light, self.stated), *(f"registered by {pixels:.1f} px" for pixels in moved),
                          *[f"still, with {100 * self.noise:.1f} % of noise"] * (self.noise < math.inf)])


def registered_frames(ldr, ev, homographies, light):
    """Corrects the light of a bracket and warps the outer frames onto the reference, without flow.

    ldr: (3, 3, H, W) as taken; ev: (3,) stops, as stated; homographies, light: as the fields of Prepared.
    Returns: a new bracket of the same shape.
    """
    return onto_reference(*((ldr.clone(), ev) if light is None else apply(ldr, light)), homographies)


@torch.no_grad()
def prepare(ldr, ev, config=None, where="light"):
    """Prepares a bracket for the network.

    ldr: (3, 3, H, W) float32, coded in [0, 1]: frame, then RGB channel; exposure rises, frame 1 is the reference. NaN where a frame does not
        show the scene. ev: (3,) stops. config: PrepareConfig; None does all steps; where: the bracket's place, for messages.
    Returns: Prepared. Its ldr has no NaN. It is the given tensor itself if every step is left out and nothing was NaN.
    Raises: ValueError for another shape, and if a frame is darker than one that is stated to be exposed less.
    """
    config = config or PrepareConfig()
    check_bracket(ldr, ev)
    whole, registered, homographies, noise = all(map(all_seen, ldr)), ldr, torch.eye(3, dtype=torch.float64).repeat(3, 1, 1), math.inf
    if config.register:
        registered, homographies = register(ldr, ev)
    elif not whole:
        registered = onto_reference(ldr.clone(), ev, homographies)
    # Filled-in pixels are left out, because they follow gamma 2.2 by construction. Frames with transparent rims hardly move.
    light = estimate(registered if whole else torch.where(ldr.isnan(), ldr, registered), ev, where) if config.response else None
    if light is not None or config.flow:
        del registered                                          # a large bracket takes a gigabyte
        in_light = (ldr, ev) if light is None else apply(ldr, light)
        if light is not None and config.register:               # in the right light, motion is found more reliably: a static frame stays where it is
            homographies = find_motion(*in_light)
        if whole and config.flow and (homographies == torch.eye(3)).all():
            noise = still_noise(*in_light)
        del in_light
        registered = (follow_flow if config.flow else registered_frames)(ldr, ev, homographies, light)
    return Prepared(registered, ev if light is None else light.ev.to(ev), homographies, light, ev, noise)


def prepared_sample(sample, config=None):
    """Prepares the frames of a sample as data.py describes it. config: as in prepare. Returns: a new dict, its other entries unchanged."""
    prepared = prepare(sample["ldr"], sample["ev"], config, sample.get("name", "light"))
    return {**sample, "ldr": prepared.ldr, "ev": prepared.ev}


# --- scenes on the disk, for training ---------------------------------------------------------------------------------

def _cache_file(folder, layout, cache, config):
    """The file that keeps a prepared scene. Its name changes with the size or time of a photograph, the exposures, the config and VERSION."""
    paths, ev, truth = scene_files(folder, layout)
    if truth is None:
        raise ValueError(f"{folder}: there is no ground truth; training needs {LAYOUTS['kalantari'][2]} or {LAYOUTS['hu'][2]}")
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths + [truth]]
    stats += [ev.tolist(), astuple(config), VERSION]
    return cache / f"{paths[0].parent.name}-{hashlib.sha256(repr(stats).encode()).hexdigest()[:20]}.npy"


def _ev_file(file):
    return file.with_suffix(".ev.npy")


def is_written(file):
    """Whether write_record has written this file."""
    return file.exists() and _ev_file(file).exists()


def write_record(file, sample, truth=np.float32):
    """Writes a sample for data.Patches: (H, W) records of nine 16-bit LDR values and three of the truth, and the exposures in a file beside it.

    truth: dtype of the truth; float16 rounds it by up to 0.05 %.
    """
    pixels = np.empty(sample["hdr"].shape[1:], np.dtype([("ldr", np.uint16, (3, 3)), ("hdr", truth, (3,))]))
    pixels["ldr"] = (sample["ldr"] * 65535).round().numpy().astype(np.uint16).transpose(2, 3, 0, 1)
    pixels["hdr"] = sample["hdr"].numpy().transpose(1, 2, 0)
    for path, array in ((_ev_file(file), sample["ev"].numpy()), (file, pixels)):
        try:
            write_atomically(path, lambda handle, array=array: np.save(handle, array))
        except PermissionError:     # Windows does not replace a file that another process has open, but that process wrote the same
            if not path.exists():
                raise


def read_records(files):
    """Lists what data.Patches takes: (path, (3,) float32 exposures in stops) for each file. files: written by write_record.

    Raises: ValueError for a file that is damaged, or was written by something else.
    """
    records = [(file, np.array(read_array(_ev_file(file)))) for file in files]
    for file, ev in records:
        if read_array(file).dtype.names != ("ldr", "hdr") or ev.shape != (3,):
            raise ValueError(f"{file}: holds no bracket of this project; delete it and make it again")
    return records


def _fill_cache(file, folder, layout, config):
    """Prepares a scene and writes it, unless another process was faster."""
    if not is_written(file):
        write_record(file, prepared_sample(load_scene(folder, layout), config))


def _in_one_thread():
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)                # Ctrl-C also reaches the main process, which ends the others


def share_work(work, jobs, workers, what):
    """Calls work(*job) for each job, in several processes with one thread each.

    work: function at the top level of a module, or a partial of one; jobs: list of tuples; workers: number of processes, 0 works in this one;
    what: title of the progress bar.
    Raises: ValueError if a process is stopped; whatever work raises.
    """
    with tqdm(total=len(jobs), desc=what, disable=not jobs or None) as bar:
        if workers and len(jobs) > 1:
            try:
                with ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _in_one_thread) as pool:
                    for _ in pool.map(work, *zip(*jobs)):
                        bar.update()
            except BrokenProcessPool:
                raise ValueError(f"{what}: a process was stopped, probably for lack of memory; use fewer --workers") from None
        else:
            for job in jobs:
                work(*job)
                bar.update()


def cache_scenes(folders, cache, layout="auto", config=UNPREPARED, workers=0):
    """Decodes and prepares scenes once, for data.Patches. The files take 30 bytes per pixel: 3.3 GB for Kalantari's training scenes.

    folders: scenes with a ground truth. cache: folder for the files; several processes may fill it at once. layout: as in scenes.load_scene.
    config: PrepareConfig. workers: number of processes that share the work; 0 works in this one.
    Returns: list of (path, (3,) float32 exposures in stops), one for each folder.
    Raises: ValueError for a scene without a ground truth; whatever load_scene raises.
    """
    files = [_cache_file(folder, layout, Path(cache), config) for folder in folders]
    todo = [*{file: folder for file, folder in zip(files, folders) if not is_written(file)}.items()]
    start = int(os.environ.get("LOCAL_RANK", "0")) * len(todo) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    todo = todo[start:] + todo[:start]                          # each rank begins at a different scene, so that they share the work
    share_work(partial(_fill_cache, layout=layout, config=config), todo, workers, f"preparing scenes into {cache}")
    return read_records(files)
