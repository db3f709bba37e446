"""Brackets and data sets (Sec. 4.1 and 5.1), the mu-law T of Eq. 6, and the plain merge others are compared with.

Symbols, paper -> code:  L_i -> ldr[:, i]   H_i = L_i^2.2 / t_i -> the last three channels of network_input
                         t_i -> 2 ** (ev_i - min ev)   H -> hdr   T(H) -> hdr_mu   mu -> MU
The paper says H for the truth and for the gamma-corrected inputs; here `hdr` is the truth alone.

A sample is a dict of float32 tensors:
    ldr  (3, 3, H, W)  gamma-coded frames in [0, 1]: frame, then RGB channel; exposure rises, frame 1 is the reference
    ev   (3,)          exposures in stops, the shortest is 0
    hdr  (3, H, W)     linear radiance in [0, 1]; 1 is where the shortest exposure clips
A frame without noise is L_i = clip(H * 2**ev_i, 0, 1) ** (1 / 2.2).

    python data.py FOLDER       shows what was found in a scene: files, sizes, dtypes, exposures
"""

import argparse
import hashlib
import math
import os
import re
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

import common
from images import LDR_SUFFIXES, exif_ev, read_exif, read_exposures, read_image, to_float

MU = 5000.0  # compression of the mu-law [paper: Sec. 4.1]
GAMMA = 2.2  # camera curve L = H ** (1 / GAMMA) [paper: Sec. 4.1]

# layout: (file of the exposures, its unit, file of the truth, file of which pattern are frames)
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
    "sen": ("one folder a scene, each with its images and exposures.txt", "https://web.ece.ucsb.edu/~psen/hdrvideo"),
    "tursun": ("one folder a scene, each with its .tiff images and exposure.txt",
               "https://user.ceng.metu.edu.tr/~akyuz/files/eg2016/index.html"),
}


# --- radiance ---------------------------------------------------------------------------------------------------------

def T(hdr):
    """Compresses radiance by the mu-law, the domain of the losses and of PSNR-mu.

    hdr: any shape, linear radiance in [0, 1], any float dtype.
    Returns: the same shape in [0, 1], float32 always: near 0 the slope is mu / log(1 + mu) = 587, where half precision
        would cost whole decibels.
    Source: Eq. 6.
    """
    # Eq. 6:  T(x) = log(1 + mu*x) / log(1 + mu)
    return torch.log1p(MU * hdr.float()) / math.log1p(MU)


def T_inverse(hdr_mu):
    """Undoes T: linear radiance, float32, of the same shape as hdr_mu."""
    return torch.expm1(hdr_mu.float() * math.log1p(MU)) / MU


def to_radiance(ldr, ev):
    """Gamma-corrects a bracket: H_i = L_i^2.2 / t_i, in units of the shortest exposure.

    ldr: (B, 3, 3, H, W) gamma-coded in [0, 1]. ev: (B, 3) exposures in stops, any offset.
    Returns: (B, 3, 3, H, W) linear radiance in [0, 1], float32.
    Source: Sec. 4.1.
    """
    t = 2.0 ** (ev.float() - ev.float().amin(dim=1, keepdim=True))  # (B, 3), the shortest is 1
    return ldr.float() ** GAMMA / t[:, :, None, None, None]


def network_input(ldr, ev):
    """Puts each frame beside its gamma-corrected self: X_i = [L_i, H_i].

    ldr: (B, 3, 3, H, W) gamma-coded in [0, 1]. ev: (B, 3) exposures in stops, any offset.
    Returns: (B, 3, 6, H, W), float32: frame, then R G B of L_i, then R G B of H_i.
    Source: Sec. 4.1.
    """
    return torch.cat([ldr.float(), to_radiance(ldr, ev)], dim=2)


def weighted_merge(ldr, ev):
    """Averages the three frames with triangle weights and no alignment: whatever moved leaves a ghost.

    Each value is weighted by its distance from both ends of its frame's range. The shortest frame keeps its full weight
    up to white, for nothing else shows the highlights, and the longest keeps its down to black. So saturated in all
    frames gives the shortest, black in all gives the longest; where the frames contradict each other so much that no
    weight is left (something moved), the reference decides.

    ldr: (B, 3, 3, H, W) gamma-coded in [0, 1], rising exposure. ev: (B, 3) exposures in stops.
    Returns: (B, 3, H, W) linear radiance in units of the shortest exposure, float32.
    Source: triangle weights of [Debevec and Malik 1997], their open ends as in [Kalantari 2017]'s ground truth.
    """
    short, reference, long = ldr.float().unbind(dim=1)  # (B, 3, H, W) each
    weight = torch.stack([(2 * short).clamp(max=1),
                          1 - (2 * reference - 1).abs(),
                          (2 - 2 * long).clamp(max=1)], dim=1)  # (B, 3, 3, H, W)
    hdr = to_radiance(ldr, ev)
    total = weight.sum(dim=1)
    merged = (weight * hdr).sum(dim=1) / total.clamp(min=1e-12)
    return torch.where(total > 0, merged, hdr[:, 1])


# What one has without any network: {title: function (ldr, ev) -> (B, 3, H, W) linear radiance}, arguments as of weighted_merge.
PLAIN = {"reference alone": lambda ldr, ev: to_radiance(ldr, ev)[:, 1], "weighted merge": weighted_merge}


# --- scenes -----------------------------------------------------------------------------------------------------------

def _natural(path):
    """Sorts 2 before 10, in upper or lower case."""
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(re.split(r"(\d+)", path.name))]


def _frames(folder):
    """The photographs in a folder, by name. Hidden files (._x.jpg) and pictures that infer.py wrote are none."""
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
    """Finds the three frames of a scene, their exposures and the truth, without decoding an image. See load_scene.

    Returns: ([short, reference, long] paths, (3,) float32 array of stops from 0, path of the truth or None).
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give a folder with three or more photographs of one scene")
    if layout != "auto" and layout not in LAYOUTS:
        raise ValueError(f"load_scene: unknown layout {layout!r}; use auto, {', '.join(LAYOUTS)}")
    frames = _frames(folder)
    layout = _guess_layout(folder, frames) if layout == "auto" else layout
    exposure_name, unit, truth_name, pattern = LAYOUTS[layout]
    frames = [p for p in frames if re.fullmatch(pattern, p.name.lower())]
    if len(frames) < 3:
        raise FileNotFoundError(f"{folder}: found {len(frames)} photographs; three or more of .tif .png .jpg are needed, of rising exposure")
    exposure_file = _named(folder, exposure_name)
    if exposure_file:
        ev = read_exposures(exposure_file, unit)
    elif layout == "photos":
        exif = [read_exif(p) for p in frames]
        terms = ["time"] + [term for term in ("f_number", "iso") if any(e[term] for e in exif)]
        ev = np.array([exif_ev(p, terms) for p in frames])
    else:
        raise FileNotFoundError(f"{folder}: {exposure_name} is missing; write the exposures into it, one a line")
    if len(ev) != len(frames):
        raise ValueError(f"{exposure_file}: {len(ev)} exposures for {len(frames)} photographs ({', '.join(p.name for p in frames)}); "
                         "write one for each, in the order of their names")
    order = np.argsort(ev, kind="stable")
    order = order[(len(order) - 3) // 2:][:3]  # the middle three; of an even number, the shorter ones
    frames, ev = [frames[i] for i in order], ev[order]
    if np.diff(ev).min() < 0.1:
        raise ValueError(f"{folder}: the exposures are {', '.join(f'{e:g}' for e in ev)} stops ({', '.join(p.name for p in frames)}); "
                         "they must differ by 0.1 or more (if these are seconds, write them as 1/60s)")
    return frames, (ev - ev[0]).astype(np.float32), _named(folder, truth_name)


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

    folder: three or more images and their exposures. Of more than three the middle three are taken. Exposures belong to the
        images in the order of names (2 before 10); then both are sorted by exposure.
    layout: where the exposures are, and in which unit:
        kalantari  exposure.txt, stops; truth HDRImg.hdr          hu      input_exp.txt, stops; ref_hdr_aligned_linear.hdr
        sen        exposures.txt, log2 of times                   tursun  exposure.txt, seconds
        photos     exposure.txt, stops, or else EXIF; truth HDRImg.hdr if there is one
        auto       by the name of that file. Kalantari and Tursun share one name: it holds seconds where all images end in
                   .tiff (Tursun's do), else stops. Values are never looked at; 1/60s or -2EV in the file settle the unit.
    Returns: a sample, see the top of this file, and "name", the folder's name. No "hdr" where there is no truth; truth
        above 1 is clipped, for H is at most 1 by definition.
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

    data: "kalantari", "hu", "sen" or "tursun". root: the folder it was unzipped to. split: "train" or "test". Hu: the first
        85 folders train, the last 15 test. Sen and Tursun have no ground truth: "test" only.
    Returns: list of folders, in natural order.
    Raises: FileNotFoundError in one line: which files are expected where, and where to get them. ValueError for another name.
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


# --- datasets ---------------------------------------------------------------------------------------------------------

class Scenes(Dataset):
    """Whole images, for validation and testing: Scenes(folders)[i] is load_scene(folders[i])."""

    def __init__(self, folders, layout="auto"):
        self.folders, self.layout = [Path(f) for f in folders], layout

    def __len__(self):
        return len(self.folders)

    def __getitem__(self, i):
        return load_scene(self.folders[i], self.layout)


def _cache_file(folder, layout, cache, align):
    """Returns: where the decoded scene is kept (elsewhere once a file changes its size or time, or aligned frames their exposures), (3,) stops."""
    paths, ev, truth = scene_files(folder, layout)
    if truth is None:
        raise ValueError(f"{folder}: there is no ground truth; training needs {LAYOUTS['kalantari'][2]} or {LAYOUTS['hu'][2]}")
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths + [truth]]
    if align is not None:
        stats += [ev.tolist(), align.__qualname__, getattr(align, "version", None)]
    return cache / f"{Path(folder).name}-{hashlib.sha256(repr(stats).encode()).hexdigest()[:20]}.npy", ev


def _fill_cache(folder, layout, path, align):
    """Decodes a scene into (H, W) records: 9 LDR values as stored, 3 of the truth as float32 (half would round it).

    align: see Patches; what it returns is stored in 16 bits.
    """
    frames, ev, hdr = _decode(folder, layout)
    if align is not None:
        aligned = align(torch.stack([_to_chw(to_float(image)) for image in frames]), torch.from_numpy(ev))
        frames = [*(aligned * 65535).round().numpy().astype(np.uint16).transpose(0, 2, 3, 1)]
    if len({image.dtype for image in frames}) > 1:
        frames = [to_float(image) for image in frames]
    pixels = np.empty(hdr.shape[:2], np.dtype([("ldr", frames[0].dtype, (3, 3)), ("hdr", np.float32, (3,))]))
    pixels["ldr"], pixels["hdr"] = np.stack(frames, axis=2), hdr
    try:
        common.write_atomically(path, lambda handle: np.save(handle, pixels))
    except PermissionError:  # Windows does not replace a file that another process has open: it wrote the same
        if not path.exists():
            raise


def patch_grid(height, width, patch, stride):
    """How many patches fit into an image, down and across. A rim narrower than the stride is left out."""
    return (height - patch) // stride + 1, (width - patch) // stride + 1


class Patches(Dataset):
    """All patches of some scenes, shuffled anew each epoch, flipped and turned: 22,792 in Kalantari's 74 training scenes.

    scenes: folders, see find_scenes. cache: folder for the decoded scenes (30 bytes a pixel for 16-bit frames: 3.3 GB for Kalantari);
        several processes may share it. patch, stride: pixels [paper: Sec. 5.1]. augment: one of the 8 flips and quarter turns.
        align: function (ldr, ev) -> ldr of one bracket, which whole frames go through before they are kept, such as flow.align_frames; or None.
        An attribute `version` tells the cache when its results have changed.
    Sample i depends on (seed, i) alone, so workers, ranks and resumed runs agree. i may run on past the length: i // len is
    the epoch, and each epoch holds every patch once. For the same reason a plain `for sample in patches` would never end.
    Returns (by index): {"ldr": (3, 3, patch, patch), "ev": (3,), "hdr": (3, patch, patch)}, float32 tensors.
    Raises: ValueError for a scene without truth or smaller than a patch, and what load_scene raises.
    """

    def __init__(self, scenes, cache, patch=128, stride=64, seed=0, augment=True, layout="auto", align=None):
        if not scenes:
            raise ValueError("Patches: the list of scenes is empty; see find_scenes")
        self.patch, self.stride, self.seed, self.augment = patch, stride, seed, augment
        self.files, self.ev = zip(*(_cache_file(folder, layout, Path(cache), align) for folder in scenes))
        todo = {file: folder for file, folder in zip(self.files, scenes) if not file.exists()}
        start = int(os.environ.get("LOCAL_RANK", "0")) * len(todo) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        todo = [*todo.items()][start:] + [*todo.items()][:start]  # ranks begin at different scenes and share the work
        for file, folder in tqdm(todo, desc=f"decoding into {cache}", unit="scene", disable=not todo):
            if not file.exists():
                _fill_cache(folder, layout, file, align)
        self._open, self._order = {}, (-1, None)
        self.grids = []
        for k, folder in enumerate(scenes):
            height, width = self._pixels(k).shape
            if min(height, width) < patch:
                raise ValueError(f"{folder}: {width}x{height} pixels; too small for patches of {patch}, choose a smaller patch")
            self.grids.append(patch_grid(height, width, patch, stride))
        self.first = np.cumsum([0] + [rows * columns for rows, columns in self.grids])  # index of each scene's first patch

    def __getstate__(self):
        return {**self.__dict__, "_open": {}}  # a memory map would be pickled with all its pixels

    def __len__(self):
        return int(self.first[-1])

    def _pixels(self, k):
        if k not in self._open:
            self._open[k] = np.load(self.files[k], mmap_mode="r")
        return self._open[k]

    def _shuffled(self, epoch):
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch, 1]).permutation(len(self))
        return self._order[1]

    def __getitem__(self, i):
        if i < 0:
            raise IndexError(f"patch {i}: indices start at 0")
        n = self._shuffled(i // len(self))[i % len(self)]
        k = int(np.searchsorted(self.first, n, side="right")) - 1
        row, column = divmod(int(n - self.first[k]), self.grids[k][1])
        y, x = row * self.stride, column * self.stride
        pixels = self._pixels(k)[y:y + self.patch, x:x + self.patch]  # (h, w) records
        ldr, hdr = to_float(pixels["ldr"]).transpose(2, 3, 0, 1), pixels["hdr"].transpose(2, 0, 1)
        if self.augment:
            turn = int(np.random.default_rng([self.seed, i]).integers(8))
            ldr, hdr = (np.rot90(a, turn % 4, axes=(-2, -1)) for a in (ldr, hdr))
            ldr, hdr = (a[..., ::-1] if turn >= 4 else a for a in (ldr, hdr))
        return {"ldr": torch.from_numpy(np.array(ldr, order="C")), "ev": torch.from_numpy(self.ev[k].copy()),
                "hdr": torch.from_numpy(np.array(hdr, order="C"))}


def main():
    """Prints what load_scene finds in a folder."""
    parser = argparse.ArgumentParser(description="Shows what was found in the folder of a scene.")
    parser.add_argument("folder", help="folder with three or more photographs and their exposures")
    parser.add_argument("--layout", default="auto", help="auto, " + ", ".join(LAYOUTS))
    args = parser.parse_args()
    paths, ev, truth = scene_files(args.folder, args.layout)
    sample = load_scene(args.folder, args.layout)
    height, width = sample["ldr"].shape[-2:]
    print(f"{sample['name']}: {width}x{height}")
    for path, stops, frame in zip(paths, ev, sample["ldr"]):
        clipped = 100 * (frame.amax(dim=0) >= 1).float().mean()
        print(f"  {path.name:24s} {read_image(path).dtype!s:8s} +{stops:.2f} EV  mean {frame.mean():.3f}, {clipped:.1f} % saturated")
    if truth:
        print(f"  {truth.name:24s} float32  truth      mean {sample['hdr'].mean():.4f}, largest {read_image(truth).max():.4f} before clipping at 1")


if __name__ == "__main__":
    common.run(main)
