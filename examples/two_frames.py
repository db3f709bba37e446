"""What should the network see in place of the frame that a bracket of two lacks? Prints the PSNR with several stand-ins.

    python -m synthetic --split val --export DIR --count 16 --size 192 --hdr-dir IMAGES     makes scenes
    python examples/two_frames.py --scenes DIR                                              some minutes on two CPU cores

Each scene has three frames and a truth, which shows the moment of the reference. The long frame is left out, then the short one. The reference is the longer
of the two in the first column and the shorter in the second, where the truth is clipped at the reference's white.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import autocast, parse, pick_device, pick_precision, run
import torch

from beyond.pictures import sample_images
from beyond.weights import SHIPPED, load_weights
from brackets.kinds import check_folder
from brackets.merge import weighted_merge
from brackets.prepare import prepare
from brackets.register import exposed_as_frame
from brackets.scenes import load_scene, scene_folders
from data import T, psnr, to_radiance


@dataclass
class TwoFramesConfig:
    """Brackets of two."""
    scenes: str = ""            # folder whose sub-folders are scenes
    weights: str = SHIPPED      # trained weights
    device: str = "auto"        # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"     # see infer.py


def stand_ins(ldr, ev, missing):
    """Returns {title: bracket (1, 3, 3, H, W)} with different frames in place of the missing one. ldr: (3, 3, H, W), aligned; ev: (3,); missing: 0 or 2."""
    other, shown = 2 - missing, {}
    for title, frame in (("the reference at its exposure", exposed_as_frame(ldr[1], float(ev[1] - ev[missing]))),
                         ("the other frame at its exposure", exposed_as_frame(ldr[other], float(ev[other] - ev[missing]))),
                         ("nothing: white, black", torch.full_like(ldr[1], missing / 2))):
        shown[title] = ldr.clone()[None]
        shown[title][0, missing] = frame
    return shown


def results(sample, missing, reconstruct, config):
    """Computes the results of one scene without one of its frames, and the truth, in units of the shortest frame that is left.

    sample: from load_scene; reconstruct: function (ldr, ev) -> (1, 3, H, W); config: PrepareConfig. Returns: {title: (1, 3, H, W)}; (1, 3, H, W).
    """
    ldr, step = sample["ldr"].clone(), float(sample["ev"][2 - missing] - sample["ev"][1])
    ev, scale = torch.tensor([0, 1, 2.0]) * abs(step), 2.0 ** (abs(step) * (missing == 0))
    ldr[missing] = missing / 2
    prepared = prepare(ldr, ev, config)
    shown, found = stand_ins(prepared.ldr, prepared.ev, missing), {}
    for title, bracket in shown.items():
        found[title] = reconstruct(bracket, prepared.ev[None])
    nothing = shown["nothing: white, black"]
    found["no network: a merge of the two"] = weighted_merge(nothing, prepared.ev[None])
    found["no network: the reference alone"] = to_radiance(nothing, prepared.ev[None])[:, 1]
    found, whole = {title: image * scale for title, image in found.items()}, prepare(sample["ldr"], sample["ev"], config)
    unit = 2.0 ** (float(sample["ev"][1] - sample["ev"][0]) * (missing == 0))
    found["all three frames"] = reconstruct(whole.ldr[None], whole.ev[None]) * unit
    return {title: image.clamp(0, 1) for title, image in found.items()}, (sample["hdr"][None] * unit).clamp(max=1)


def main():
    """Prints the means over all scenes in a table."""
    config = parse(TwoFramesConfig, description=__doc__)
    check_folder(config.scenes or "--scenes", "give a folder of scenes with a truth")
    folders = scene_folders(Path(config.scenes))
    if not folders:
        raise ValueError(f"{config.scenes}: no folder in it holds photographs; give a folder of scenes with a truth")
    device = pick_device(config.device)
    dtype, model, sums = pick_precision(config.precision, device), load_weights(config.weights, device), {}

    def reconstruct(ldr, ev):
        with autocast(device, dtype):
            return sample_images(model, ldr.to(device), ev.to(device), [0])[0].cpu()

    for sample in map(load_scene, folders):
        if "hdr" not in sample:
            raise ValueError(f"{sample['name']}: has no truth to compare with; give scenes that have HDRImg.hdr")
        for missing in (2, 0):
            found, truth = results(sample, missing, reconstruct, model.prepare)
            for title, image in found.items():
                sums.setdefault(title, torch.zeros(2, 2, dtype=torch.float64))[missing // 2] += torch.tensor([psnr(T(image), T(truth)), psnr(image, truth)])
    print(f"{'PSNR-mu / PSNR-L, ' + str(len(folders)) + ' scenes; stand-in':<44} {'reference longer':>18} {'reference shorter':>18}")
    for title, total in sums.items():
        print(f"{title:<44} " + " ".join(f"{mu:>10.2f} / {linear:.2f}" for mu, linear in (total[[1, 0]] / len(folders)).tolist()))


if __name__ == "__main__":
    run(main)
