"""Finds and reads scenes on disk: their folders, and the files in them that are frames, exposures and ground truth.

A scene becomes a sample, a dict of float32 tensors as data.py describes it: "ldr" (3, 3, H, W), "ev" (3,), "hdr" (3, H, W).
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from brackets.exposures import exif_exposures, read_exposures
from brackets.files import as_frame, read_image, read_stored, stored_size_and_orientation
from brackets.folders import is_pseudo, named, names, natural, other_than_named, photographs, say
from brackets.kinds import check_folder, in_a_sentence, kind_of
from brackets.light import estimate_exposures
from brackets.tiff import stated_white

# layout: (file of the exposures, its unit, file of the truth, pattern of the frames' names)
LAYOUTS = {
    "kalantari": ("exposure.txt", "ev", "HDRImg.hdr", r".*"),
    "hu": ("input_exp.txt", "ev", "ref_hdr_aligned_linear.hdr", r"input_\d+_aligned\..*"),
    "sen": ("exposures.txt", "ev", None, r".*"),
    "tursun": ("exposure.txt", "seconds", None, r".*"),
    "photos": ("exposure.txt", "ev", "HDRImg.hdr", r".*"),
}

WHERE_TO_GET = {  # data set: (what find_scenes looks for, the page of its authors)
    "kalantari": ("Training/*/ and Test/*/ or Test/{EXTRA,PAPER}/*/, each with three .tif, exposure.txt, HDRImg.hdr",
                  "https://cseweb.ucsd.edu/~viscomp/projects/SIG17HDR/"),
    "hu": ("001/ to 100/, each with input_{0,1,2}_aligned.tif, input_exp.txt, ref_hdr_aligned_linear.hdr",
           "https://github.com/nadir-zeeshan/sensor-realistic-synthetic-data"),
    "sen": ("one folder per scene, each with its images and exposures.txt", "https://web.ece.ucsb.edu/~psen/hdrvideo"),
    "tursun": ("one folder per scene, each with its .tiff images and exposure.txt",
               "https://user.ceng.metu.edu.tr/~akyuz/files/eg2016/index.html"),
}


BY_FILE = "hu", "sen", "kalantari"      # layouts recognised by the name of the exposure file; tursun's has kalantari's name, see _exposures_in
LEAST, MOST = 0.1, 20.0     # plausible exposures: least step between neighbours, and greatest range from the shortest to the longest, stops
MOST_FOLDERS = 20_000       # most folders that are searched for photographs: with more, a whole disk was probably named
NUMBER = {2: "two", 3: "three"}
SEEN = 1_000_000            # pixels per photograph from which exposures are estimated


def has_exposure_file(folder):
    """Whether a file states the exposures of the photographs in a folder."""
    return _guess_layout(folder) != "photos"


def _guess_layout(folder):
    return next((layout for layout in BY_FILE if named(folder, LAYOUTS[layout][0])), "photos")


@dataclass
class Bracket:
    """Photographs of one scene that differ in exposure, found but not yet read."""
    name: str
    folder: Path
    paths: list             # the photographs, rising exposure
    ev: np.ndarray          # (n,) float64 stops, the shortest is 0
    truth: Path | None
    part: bool              # whether the folder holds other brackets, too


def find_bracket(folder, layout="auto", only=None, name="", least=2):
    """Finds all frames of a scene, their exposures and the truth. It decodes images only if no usable exposures are stated.

    folder, layout: as in load_scene. only, name: the photographs that make this bracket, and its name; by default all in the folder, and its name.
    least: how many frames there must be at least.
    Returns: Bracket.
    Raises: FileNotFoundError, ValueError: what is missing or wrong, and what to do.
    """
    check_folder(folder, f"give a folder with {NUMBER[least]} or more photographs of one scene")
    folder = Path(folder).resolve()
    if layout != "auto" and layout not in LAYOUTS:
        raise ValueError(f"--layout {layout!r}: unknown; use auto, {', '.join(LAYOUTS)}")
    frames, left_out = photographs(folder) if only is None else (only, {})
    why = "".join(f"; left out {names(paths)}: {reason}" for reason, paths in left_out.items())
    exposure_name, unit, truth_name, pattern = LAYOUTS[_guess_layout(folder) if layout == "auto" else layout]
    frames = [p for p in frames if re.fullmatch(pattern, p.name.lower())]
    if len(frames) < least:
        raise FileNotFoundError(f"{folder}: found {len(frames)} photograph{'s' * (len(frames) != 1)}{why}; give {NUMBER[least]} or more of different exposure "
                                "(TIFF, PNG, JPEG, WebP or RAW)")
    notes = why + "".join(f"; {names(paths)}: {kind} inside, and read as such" for kind, paths in other_than_named(frames).items())
    if notes:
        say(f"{folder}{notes.replace(';', ':', 1)}")
    exposure_file = named(folder, exposure_name)
    stated, why = _stated_exposures(folder, frames, exposure_name, unit, layout)
    if not why and not _usable(stated):
        source = exposure_file.name if exposure_file else "EXIF"
        why = f"the exposures {', '.join(f'{e:g}' for e in stated)} in {source} are not at least {LEAST:g} stops apart and within {MOST:g} stops"
        if exposure_file and stated.max() > MOST and (stated == stated.round()).all() and stated.min() > 0:
            why += f" (shutter speeds are written 1/{stated[0]:g}s)"
    cure = f"correct {exposure_file.name}" if exposure_file else "write exposure.txt"
    ev = np.asarray(_estimated_exposures(tuple(frames), why, cure) if why else stated, np.float64)
    order = np.argsort(ev, kind="stable")
    return Bracket(name or folder.name, folder, [frames[i] for i in order], ev[order] - ev.min(), named(folder, truth_name), only is not None)


def scene_files(folder, layout="auto"):
    """Finds the three frames of a scene, their exposures and the truth. Of more frames it takes the middle three; of an even number, the shorter ones.

    folder, layout, errors: as in load_scene.
    Returns: [short, reference, long] paths; (3,) float32 array of stops, the shortest is 0; path of the truth or None.
    """
    bracket = find_bracket(folder, layout, least=3)
    there = _distinct(bracket.ev)
    middle = there[(len(there) - 3) // 2:][:3]
    return [bracket.paths[i] for i in middle], (bracket.ev[middle] - bracket.ev[middle[0]]).astype(np.float32), bracket.truth


def _distinct(ev):
    """Returns the indices of the first frame, and of each frame exposed longer by LEAST or more than the last one kept. ev: (n,) stops, rising."""
    found = [0]
    for i, stops in enumerate(ev):
        if stops - ev[found[-1]] >= LEAST:
            found.append(i)
    return found


def _usable(ev):
    """Whether exposures are plausible. ev: (n,) stops."""
    return np.ptp(ev) <= MOST and len(_distinct(np.sort(ev))) >= min(len(ev), 3)


def _stated_exposures(folder, frames, name, unit, layout):
    """Reads the exposures that files or photographs state. Returns: stops, and ""; or None, and why there are none."""
    exposure_file = named(folder, name)
    if not exposure_file:
        if layout not in ("auto", "photos"):
            raise FileNotFoundError(f"{folder}: {name} is missing; write the exposures into it, one per line")
        return exif_exposures(frames)
    ev = _exposures_in(exposure_file, frames, unit, layout)
    units = {name: unit, **{other: its for other, its, *_ in map(LAYOUTS.get, BY_FILE) if layout == "auto"}}
    for other in sorted(folder.iterdir()):              # of these names, in upper or lower case
        if other.name.lower() in units and other != exposure_file:
            theirs = _exposures_in(other, frames, units[other.name.lower()], layout)
            if not np.allclose(ev - ev[0], theirs - theirs[0], atol=LEAST):
                raise ValueError(f"{folder}: {exposure_file.name} and {other.name} state different exposures; remove the one that is wrong")
    return ev, ""


def _exposures_in(exposure_file, frames, unit, layout):
    """Reads the exposures that a file states, in stops, one for each frame."""
    ev = read_exposures(exposure_file, unit)
    if len(ev) != len(frames):
        raise ValueError(f"{exposure_file}: {len(ev)} exposures for {len(frames)} photographs ({names(frames)}); "
                         "write one for each, in the order of their names")
    if layout == "auto" and ev.min() > 0 and np.diff(np.sort(ev)).min() < LEAST:        # not stops, but perhaps times, such as 1/250 or 0.004
        seconds = read_exposures(exposure_file, "seconds")
        if (seconds != ev).any() and _usable(seconds):
            say(f"{exposure_file}: the numbers differ by less than {LEAST:g}, so they are seconds and not stops")
            return seconds
    return ev


@functools.lru_cache(maxsize=4096)
def _estimated_exposures(frames, why, cure):
    """Estimates exposures from the photographs themselves, and prints a line that says so.

    frames: tuple of paths; why: no exposures are stated; cure: what settles them. Returns: (n,) stops, one for each.
    """
    shown = []
    for path in frames:
        image = as_frame(read_stored(path))
        step = max(1, round((image.shape[0] * image.shape[1] / SEEN) ** 0.5))     # some pixels of a large photograph are enough
        shown.append(_to_chw(image[::step, ::step]))
    try:
        ev = estimate_exposures(shown)
    except ValueError as error:
        raise ValueError(f"{frames[0].parent}: {why}, and they cannot be estimated from the frames ({error}); "
                         f"{cure}, one EV per line, or times such as 1/60s" + ", or give each bracket its own folder" * (len(frames) > 3)) from None
    print(f"{frames[0].parent}: {why}; estimated from the frames: {', '.join(f'{e:+.2g}' for e in ev)} EV. To settle them, {cure}.")
    return ev


@functools.lru_cache(maxsize=4096)
def _orientations(folder, paths):
    """Finds the orientation of each frame: its own, or that of most frames if it contradicts them. paths: tuple. Returns: {path: EXIF orientation}."""
    sizes, own = zip(*map(stored_size_and_orientation, paths))
    usual = max(set(own), key=own.count)
    if len(set(own)) == 1 or len(set(sizes)) > 1:       # if sizes differ, a program has rotated frames and changed their tags
        return dict(zip(paths, own))
    if 2 * own.count(usual) <= len(own):
        raise ValueError(f"{folder}: the orientation tags are {', '.join(f'{o} ({p.name})' for p, o in zip(paths, own))}; correct them, most must agree")
    odd = ", ".join(f"{path.name} says {orientation}" for path, orientation in zip(paths, own) if orientation != usual)
    say(f"{folder}: the orientation tag of {odd}, those of the others {usual}; all are read as {usual}")
    return dict.fromkeys(paths, usual)


@functools.lru_cache(maxsize=4096)
def _check_whites(folder, paths):
    """Raises: ValueError if 16-bit TIFFs do not agree on which sample is white: their exposures could not be compared. paths: tuple."""
    whites = {path: white for path in paths if kind_of(path) == "TIFF" and (white := stated_white(path))}
    if len(set(whites.values())) > 1:
        raise ValueError(f"{folder}: white is {', '.join(f'{white} ({path.name})' for path, white in whites.items())}, as the tag MaxSampleValue says or "
                         "leaves open; correct the tags, or remove them")


def read_frames(folder, paths, truth=None, among=None):
    """Reads photographs of one size, and the truth.

    folder: for messages; paths: of the photographs; truth: path or None; among: all photographs of the scene, by default paths: the majority of their
        orientation tags is believed.
    Returns: list of (3, H, W) float32 tensors in [0, 1], NaN where a photograph is transparent; (3, H, W) float32 radiance in [0, 1] or None.
    Raises: ValueError for sizes that differ and values outside [0, 1], and whatever read_stored raises.
    """
    stored = [read_stored(path) for path in paths]
    for path, frame in zip(paths, stored):
        if frame.pixels.dtype == np.float32 and not (frame.pixels.min() >= 0 and frame.pixels.max() <= 1):  # NaN fails both
            raise ValueError(f"{path}: floating point from {frame.pixels.min():g} to {frame.pixels.max():g}; a frame must be gamma-coded in [0, 1]")
        if frame.seen is not None and not frame.seen.any():
            raise ValueError(f"{path}: no pixel is opaque; save it again without transparency")
    for note in {frame.note for frame in stored} - {""}:
        say(f"{folder}: {names(path for path, frame in zip(paths, stored) if frame.note == note)}: {note}")
    orientations = _orientations(folder, tuple(among or paths))
    _check_whites(folder, tuple(among or paths))
    try:
        frames = [as_frame(frame, orientations[path]) for path, frame in zip(paths, stored)]
    except MemoryError as error:
        raise in_a_sentence(folder, error) from error
    hdr = read_image(truth) if truth else None
    sizes = {p.name: f"{image.shape[1]}x{image.shape[0]}" for p, image in zip(paths + [truth] * bool(truth), frames + [hdr] * bool(truth))}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{folder}: the images differ in size ({', '.join(f'{n} {s}' for n, s in sizes.items())}); give images of one size")
    if hdr is not None and hdr.max() > 1:
        share = 100 * (hdr.max(axis=2) > 1).mean()
        say(f"{truth}: {share:.2g} % of the pixels are above 1, up to {hdr.max():.3g}; they are clipped, because white is 1")
    return [_to_chw(frame) for frame in frames], None if hdr is None else _to_chw(hdr.clip(0, 1))


def _to_chw(image):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, -3)))


def load_scene(folder, layout="auto"):
    """Loads a bracket of photographs.

    folder: three or more images and their exposures. The file lists the exposures in the order of the images' names (2 before 10).
        Both are then sorted by exposure, and of more than three the middle three are taken.
    layout: where the exposures are stated, and in which unit:
        kalantari  exposure.txt, stops; truth HDRImg.hdr          hu      input_exp.txt, stops; ref_hdr_aligned_linear.hdr
        sen        exposures.txt, log2 of times                   tursun  exposure.txt, seconds
        photos     exposure.txt, stops, or else EXIF; truth HDRImg.hdr if there is one
        auto       by the name of that file. exposure.txt holds stops, unless they would differ by less than LEAST and are plausible as
                   seconds, or a unit in the file, as in 1/60s or -2EV, says otherwise. Other seconds need the layout tursun.
    Returns: a sample, see the top of this file, with the folder's name as "name". It has no "hdr" if there is no truth.
        A frame is NaN where its photograph is transparent: it does not show the scene there. prepare.prepare fills that in.
        Truth above 1 is clipped, because H is at most 1 by definition.
    Raises: FileNotFoundError, ValueError: what is missing or wrong, and what to do.
    """
    paths, ev, truth = scene_files(folder, layout)
    frames, hdr = read_frames(folder, paths, truth)
    sample = {"ldr": torch.stack(frames), "ev": torch.from_numpy(ev), "name": Path(folder).resolve().name}      # (3, 3, H, W), (3,)
    return {**sample, "hdr": hdr} if truth else sample


def scene_folders(parent, depth=2, looked_into=None):
    """Finds the folders with photographs in them, down to `depth` levels, in natural order. A printed line says which ones cannot be opened.

    looked_into: the folders searched so far, in a recursive call. Raises: ValueError if there are more than MOST_FOLDERS to search.
    """
    if parent is None or not parent.is_dir():
        return []
    found, looked_into = [], [] if looked_into is None else looked_into
    for folder in sorted((p for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".") and not is_pseudo(p)), key=natural):
        looked_into.append(folder)
        if len(looked_into) > MOST_FOLDERS:
            raise ValueError(f"{looked_into[0].parent}: has more than {MOST_FOLDERS} folders to look into for photographs; give one with fewer in it")
        try:
            found += [folder] if photographs(folder)[0] else scene_folders(folder, depth - 1, looked_into) if depth > 1 else []
        except OSError as error:
            say(f"{folder}: cannot be opened ({error.strerror}); it is left out")
    return found


def find_scenes(data, root, split):
    """Lists the scenes of a data set.

    data: "kalantari", "hu", "sen" or "tursun". root: the folder it was unzipped to. split: "train" or "test". Of Hu, the first
        85 folders are for training and the others for testing. Sen and Tursun have no ground truth, so they have "test" only.
    Returns: list of folders, in natural order.
    Raises: FileNotFoundError: which files are expected where, and where to get them. ValueError for another data set or split.
    """
    if data not in WHERE_TO_GET or split not in ("train", "test"):
        raise ValueError(f"find_scenes: found data {data!r}, split {split!r}; use {', '.join(WHERE_TO_GET)} and train or test")
    if split == "train" and data in ("sen", "tursun"):
        raise ValueError(f"find_scenes: {data} has no ground truth to train on; use it for testing, train on kalantari, hu or synthetic")
    root = Path(root)
    if data == "kalantari":
        scenes = scene_folders(named(root, "Training" if split == "train" else "Test")) if root.is_dir() else []
    else:
        scenes = scene_folders(root)
        scenes = scenes if data != "hu" else scenes[:85] if split == "train" else scenes[85:]
    if not scenes:
        expected, page = WHERE_TO_GET[data]
        raise FileNotFoundError(f"{root}: no {split} scenes of {data}; expected {expected} in {root.resolve()}; get them from {page}")
    return scenes
