"""Finds the brackets in a folder: the folder itself, its subfolders, or a sequence of photographs that makes several brackets.

A folder of photographs is one bracket, unless EXIF shows that there are several. Photographs are put in the order in which they were taken. A bracket
ends where the camera or the size changes, and where nothing was taken for a while. The sequence in between is cut where a pattern of exposures repeats:
    0 -2 +2  0 -2 +2    or    0 -2 +2  0.3 -1.7 +2.3
are two brackets of three, although in the second sequence the light has changed and no exposure repeats exactly. If there is no such pattern, a new
bracket begins at the first exposure that the current one already has.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from brackets.exposures import exif_exposures
from brackets.folders import natural, photographs
from brackets.kinds import check_folder
from brackets.scenes import LEAST, has_exposure_file, scene_folders

PAUSE = 20.0            # a longer pause between the end of one photograph and the start of the next separates brackets, seconds
DRIFT = 0.5             # share of the smallest exposure step by which the light may change from one bracket to the next


@dataclass(frozen=True)
class Shot:
    """What EXIF says about a photograph."""
    path: Path
    ev: float                   # stops
    camera: tuple               # make, model, width, height as shown
    stored: tuple               # width, height before rotation
    taken: float | None         # seconds since some moment
    lasted: float               # exposure time, seconds


def camera_and_moment(path):
    """Reads the camera and the time from EXIF, as far as it can. Returns: (make, model, width, height), (width, height) before rotation, seconds since
    some moment or None, exposure time in seconds or 0."""
    try:
        with Image.open(path) as image:
            tags, size = image.getexif(), image.size
            exif = tags.get_ifd(0x8769)
    except Exception:           # read_image says what is wrong with such a file; Pillow does not open some TIFFs and RAW files
        return ("", "", 0, 0), (0, 0), None, 0.0
    shown = size[::-1] if tags.get(0x0112) in (5, 6, 7, 8) else size
    camera = tuple(str(tags.get(tag, "")).strip("\0 ") for tag in (0x010F, 0x0110)) + shown
    try:
        moment = datetime.strptime(str(exif.get(0x9003) or tags.get(0x0132)).strip("\0 "), "%Y:%m:%d %H:%M:%S").timestamp()
    except (ValueError, OverflowError, OSError):
        return camera, size, None, 0.0
    part = str(exif.get(0x9291, "")).strip("\0 ")
    try:
        lasted = max(float(exif.get(0x829A) or 0), 0.0)
    except (TypeError, ValueError, ZeroDivisionError):
        lasted = 0.0
    return camera, size, moment + (float(f"0.{part}") if part.isdecimal() else 0.0), lasted


def distinct(ev):
    """Whether all exposures differ. ev: list of stops."""
    return len(ev) < 2 or np.diff(np.sort(ev)).min() >= LEAST


def repeats(ev, n):
    """Whether exposures repeat a pattern of n, up to a change of the light. ev: (m,) stops, m a multiple of n."""
    chunks = np.asarray(ev).reshape(-1, n)
    steps = np.diff(np.sort(chunks, axis=1), axis=1)
    relative = chunks - chunks[:, :1]
    return steps.min() >= LEAST and np.ptp(relative, axis=0).max() < LEAST and np.abs(np.diff(chunks[:, 0])).max(initial=0) < DRIFT * steps.min()


def cut_run(ev):
    """Cuts a sequence of exposures into brackets. ev: list of stops. Returns: the length of each bracket; a single photograph has 1."""
    m = len(ev)
    for n in range(2, m + 1):
        if m % n == 0 and repeats(ev, n):
            return [n] * (m // n)
    lengths, start = [], 0
    for i in range(1, m + 1):
        if i == m or not distinct(ev[start:i + 1]):
            lengths, start = [*lengths, i - start], i
    return lengths


def as_neighbours_lie(shots):
    """Gives a photograph the shown size of its neighbours if only its orientation tag differs from theirs; scenes.py reports such a tag and ignores it.

    shots: list of Shot, in the order in which one camera took them. Returns: list of Shot.
    """
    found = []
    for i, shot in enumerate(shots):
        first = min(max(i - 1, 0), max(len(shots) - 3, 0))
        near = [other for other in shots[first:first + 3] if other is not shot]
        alone = len(near) == 2 and near[0].camera == near[1].camera and all(other.stored == shot.stored for other in near)
        found.append(replace(shot, camera=shot.camera[:2] + near[0].camera[2:]) if alone else shot)
    return found


def group(shots):
    """Cuts a folder's photographs into brackets. shots: list of Shot, in the order of their names. Returns: list of lists of Shot."""
    timed = all(shot.taken is not None for shot in shots)
    shots = sorted(shots, key=lambda shot: (shot.camera[:2], shot.taken if timed else 0))       # stable: within one second, the order of the names
    shots = sorted(as_neighbours_lie(shots), key=lambda shot: shot.camera)
    runs = [[shots[0]]]
    for last, shot in zip(shots, shots[1:]):
        paused = None not in (last.taken, shot.taken) and shot.taken - last.taken - last.lasted > PAUSE
        runs = [*runs, [shot]] if paused or shot.camera != last.camera else [*runs[:-1], [*runs[-1], shot]]
    groups = []
    for run in runs:
        ends = np.cumsum([0, *cut_run([shot.ev for shot in run])])
        groups += [run[start:end] for start, end in zip(ends, ends[1:])]
    several = sum(len(found) > 1 for found in groups)
    if several < 2 and distinct([shot.ev for shot in shots]) and len({shot.camera for shot in shots}) == 1:
        return [shots]          # one bracket, taken slowly
    return groups


def in_folder(folder):
    """Finds the brackets among a folder's photographs. Returns: list of lists of paths, one path for a single photograph; None if they count as one."""
    paths = photographs(folder)[0]
    if len(paths) < 4 or has_exposure_file(folder):
        return None
    ev, why = exif_exposures(paths)
    if why:
        return None
    told = [camera_and_moment(path) for path in paths]
    groups = group([Shot(path, stops, *about) for path, stops, about in zip(paths, ev.tolist(), told)])
    if len(groups) == 1 or not any(len(found) > 1 for found in groups):
        return None             # EXIF shows no brackets: find_bracket says what is wrong, or estimates the exposures
    return sorted(([shot.path for shot in found] for found in groups), key=lambda found: natural(found[0]))


@dataclass
class Place:
    """Where a bracket is."""
    folder: Path
    name: str
    paths: list | None          # its photographs; None: all of the folder


def find_places(root):
    """Finds every bracket in a folder: the folder itself, or those that its photographs make, or else those in its subfolders, down to two levels.

    root: Path. Returns: list of Place, at least one, even for a folder without photographs: find_bracket says what is wrong with it; list of paths of
    single photographs, which are left out.
    Raises: FileNotFoundError if there is no such folder.
    """
    check_folder(root, "give a folder with two or more photographs of one scene")
    places, singles = [], []
    for folder in [root] if len(photographs(root)[0]) > 1 else scene_folders(root) or [root]:
        groups = in_folder(folder)
        for paths in groups or ():
            if len(paths) > 1:
                places.append(Place(folder, f"{paths[0].stem}-{paths[-1].stem}", paths))
            else:
                singles += paths
        if groups is None:
            places.append(Place(folder, folder.resolve().name, None))
    return places, singles
