"""Scenes on the disk: which folders there are, which files in them are frames, exposures and ground truth, and what they hold.

A scene becomes a sample, a dict of float32 tensors as data.py describes it: "ldr" (3, 3, H, W), "ev" (3,), "hdr" (3, H, W).
"""

import functools
import re
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from brackets.files import LDR_SUFFIXES, exif_ev, read_exif, read_exposures, read_image, to_float
from brackets.light import estimate_exposures

# layout: (file of the exposures, its unit, file of the truth, pattern of the frames' names)
LAYOUTS = {
    "kalantari": ("exposure.txt", "ev", "HDRImg.hdr", r".*"),
    "hu": ("input_exp.txt", "ev", "ref_hdr_aligned_linear.hdr", r"input_\d+_aligned\..*"),
    "sen": ("exposures.txt", "log2", None, r".*"),
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


LEAST, MOST = 0.1, 20.0     # stops between neighbouring exposures, and from the shortest to the longest, that are believed
_USABLE = f"{LEAST:g} stops apart or more, and within {MOST:g}"
SEEN = 1_000_000            # pixels of a photograph from which exposures are estimated


def _natural(path):
    """A sort key that puts 2 before 10, in upper or lower case."""
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(re.split(r"(\d+)", path.name))]


def _frames(folder):
    """The photographs in a folder, by name. Hidden files (._x.jpg) and pictures that infer.py wrote are left out."""
    files = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    made = {p.stem.lower() for p in files if p.suffix.lower() == ".hdr"}  # NAME.hdr stands beside NAME.png
    return sorted((p for p in files if p.suffix.lower() in LDR_SUFFIXES and not p.stem.lower().endswith("_panel")
                   and not (p.suffix.lower() == ".png" and p.stem.lower() in made)), key=_natural)


def _named(folder, name):
    """The file of that name in upper or lower case, or None."""
    return next((p for p in sorted(folder.iterdir()) if name and p.name.lower() == name.lower()), None)


def _guess_layout(folder, frames):
    if _named(folder, "input_exp.txt"):
        return "hu"
    if _named(folder, "exposures.txt"):
        return "sen"
    if _named(folder, "exposure.txt"):
        return "tursun" if frames and all(p.suffix.lower() == ".tiff" for p in frames) else "kalantari"
    return "photos"


def scene_files(folder, layout="auto"):
    """Finds the three frames of a scene, their exposures and the truth. It decodes images only where no usable exposures are stated.

    folder, layout: as of load_scene.
    Returns: [short, reference, long] paths; (3,) float32 array of stops, the shortest is 0; path of the truth or None.
    Raises: FileNotFoundError, ValueError: what is missing or wrong, and what to do.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give a folder with three or more photographs of one scene")
    if layout != "auto" and layout not in LAYOUTS:
        raise ValueError(f"scene_files: unknown layout {layout!r}; use auto, {', '.join(LAYOUTS)}")
    frames = _frames(folder)
    layout = _guess_layout(folder, frames) if layout == "auto" else layout
    exposure_name, unit, truth_name, pattern = LAYOUTS[layout]
    frames = [p for p in frames if re.fullmatch(pattern, p.name.lower())]
    if len(frames) < 3:
        raise FileNotFoundError(f"{folder}: found {len(frames)} photographs; give three or more (.tif .png .jpg) of different exposure")
    stated, why = _stated_exposures(folder, frames, exposure_name, unit, layout)
    if not why:
        paths, ev = _middle_three(frames, stated)
        why = f"the exposures {', '.join(f'{e:g}' for e in stated)} are not {_USABLE}" if not np.ptp(stated) <= MOST or np.diff(ev).min() < LEAST else ""
    if why:
        paths, ev = _middle_three(frames, _estimated_exposures(tuple(frames), why))
    return paths, (ev - ev[0]).astype(np.float32), _named(folder, truth_name)


def _middle_three(frames, ev):
    """The three photographs of middle exposure, of an even number the shorter ones, and their exposures, both rising."""
    order = np.argsort(ev, kind="stable")[(len(ev) - 3) // 2:][:3]
    return [frames[i] for i in order], ev[order]


def _stated_exposures(folder, frames, name, unit, layout):
    """The exposures that files or photographs state, in stops, and ""; or None and why there are none."""
    exposure_file = _named(folder, name)
    if exposure_file:
        ev = read_exposures(exposure_file, unit)
        if len(ev) != len(frames):
            raise ValueError(f"{exposure_file}: {len(ev)} exposures for {len(frames)} photographs ({', '.join(p.name for p in frames)}); "
                             "write one for each, in the order of their names")
        return ev, ""
    if layout != "photos":
        raise FileNotFoundError(f"{folder}: {name} is missing; write the exposures into it, one per line")
    exif = [read_exif(p) for p in frames]
    terms = ["time"] + [term for term in ("f_number", "iso") if any(e[term] for e in exif)]
    missing = {term: [p.name for p, e in zip(frames, exif) if e[term] is None] for term in terms}
    if any(missing.values()):
        return None, "; ".join(f"no {term} in the EXIF of {', '.join(names)}" for term, names in missing.items() if names)
    return np.array([exif_ev(p, terms) for p in frames]), ""


@functools.lru_cache(maxsize=4096)
def _estimated_exposures(frames, why):
    """Exposures from the photographs themselves, with a line that says so. frames: tuple of paths. Returns: (n,) stops, one for each."""
    shown = []
    for path in frames:
        image = read_image(path)
        step = max(1, round((image.shape[0] * image.shape[1] / SEEN) ** 0.5))     # some pixels of a large photograph tell enough
        shown.append(_to_chw(to_float(image[::step, ::step])))
    try:
        ev = estimate_exposures(shown)
    except ValueError as error:
        raise ValueError(f"{frames[0].parent}: {why}, and they cannot be told from the frames ({error}); "
                         "write exposure.txt, one EV per line, or times such as 1/60s") from None
    print(f"{frames[0].parent}: {why}; estimated from the frames: {', '.join(f'{e:+.2g}' for e in ev)} EV. A file exposure.txt settles them.")
    return ev


def _decode(folder, layout):
    """Returns: three (H, W, 3) arrays as stored, (3,) stops, (H, W, 3) float32 truth in [0, 1] or None."""
    paths, ev, truth = scene_files(folder, layout)
    frames = [read_image(p) for p in paths]
    hdr = read_image(truth) if truth else None
    sizes = {p.name: f"{image.shape[1]}x{image.shape[0]}" for p, image in zip(paths + [truth] * bool(truth), frames + [hdr] * bool(truth))}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{folder}: the images differ in size ({', '.join(f'{n} {s}' for n, s in sizes.items())}); give images of one size")
    for path, image in zip(paths, frames):
        if image.dtype == np.float32 and not (image.min() >= 0 and image.max() <= 1):  # NaN fails both
            raise ValueError(f"{path}: floating point from {image.min():g} to {image.max():g}; a frame must be gamma-coded in [0, 1]")
    return frames, ev, None if hdr is None else hdr.clip(0, 1)


def _to_chw(image):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, -3)))


def load_scene(folder, layout="auto"):
    """Loads a bracket of photographs.

    folder: three or more images and their exposures. The file lists the exposures in the order of the images' names (2 before 10).
        Both are then sorted by exposure, and of more than three the middle three are taken.
    layout: where the exposures stand, and in which unit:
        kalantari  exposure.txt, stops; truth HDRImg.hdr          hu      input_exp.txt, stops; ref_hdr_aligned_linear.hdr
        sen        exposures.txt, log2 of times                   tursun  exposure.txt, seconds
        photos     exposure.txt, stops, or else EXIF; truth HDRImg.hdr if there is one
        auto       by the name of that file. Kalantari and Tursun share one name: it holds seconds where all images end in
                   .tiff (Tursun's do), else stops. The values never decide; a unit in the file, as in 1/60s or -2EV, does.
    Returns: a sample, see the top of this file, with the folder's name as "name". It has no "hdr" where there is no truth.
        Truth above 1 is clipped, because H is at most 1 by definition.
    Raises: FileNotFoundError, ValueError: what is missing or wrong, and what to do.
    """
    frames, ev, hdr = _decode(folder, layout)
    sample = {"ldr": torch.stack([_to_chw(to_float(image)) for image in frames]),  # (3, 3, H, W)
              "ev": torch.from_numpy(ev), "name": Path(folder).resolve().name}
    if hdr is not None:
        sample["hdr"] = _to_chw(hdr)
    return sample


def _scene_folders(parent, depth=2):
    """The folders with photographs in them, down to `depth` levels, in natural order."""
    if parent is None or not parent.is_dir():
        return []
    found = []
    for folder in sorted((p for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")), key=_natural):
        found += [folder] if _frames(folder) else _scene_folders(folder, depth - 1) if depth > 1 else []
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
        scenes = _scene_folders(_named(root, "Training" if split == "train" else "Test")) if root.is_dir() else []
    else:
        scenes = _scene_folders(root)
        scenes = scenes if data != "hu" else scenes[:85] if split == "train" else scenes[85:]
    if not scenes:
        expected, page = WHERE_TO_GET[data]
        raise FileNotFoundError(f"{root}: no {split} scenes of {data}; expected {expected} in {root.resolve()}; get them from {page}")
    return scenes


class Scenes(Dataset):
    """Whole images, for validation and testing: Scenes(folders)[i] is load_scene(folders[i])."""

    def __init__(self, folders, layout="auto"):
        self.folders, self.layout = [Path(f) for f in folders], layout

    def __len__(self):
        return len(self.folders)

    def __getitem__(self, i):
        return load_scene(self.folders[i], self.layout)
