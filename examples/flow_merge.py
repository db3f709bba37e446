"""A baseline without learning: optical flow brings the outer frames onto the reference, then the weighted merge of data.py.

    python examples/flow_merge.py --scenes DIR --out DIR        writes OUT/NAME.hdr for each scene folder in --scenes
    python evaluate.py --data folder --root DIR --predictions OUT --compare

How the outer frame i is aligned: both frames are brought to one exposure, the flow from the reference to frame i is found on them, and
frame i is sampled along it.

    short frame     L_1 brightened to the reference's exposure, clip(L_1 (t_2 / t_1)^(1/2.2), 0, 1)
    long frame      the reference brightened to the long exposure, which clips both at the same radiance

The flow is OpenCV's DIS (Kroeger et al. 2016) at its medium preset, as it comes. Nothing checks it: where something was hidden, it is wrong.
The merge of what flow.py, which is finer, makes of registered frames is evaluate.py's "merge, aligned".
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import parse, run
from data import GAMMA, weighted_merge
from evaluate import EvaluateConfig, open_scenes
from brackets.files import write_image
from brackets.register import register


@dataclass
class FlowMergeConfig:
    """Flow-aligned merge of scene folders."""
    scenes: str = ""        # folder whose sub-folders are scenes, as data.load_scene reads them
    out: str = ""           # folder for NAME.hdr
    register: bool = False  # frames go through register.py first, and flow finds what is left


def brighten(ldr, stops):
    """A gamma-coded frame as `stops` more of exposure would have made it. ldr: (H, W, 3) in [0, 1]. Returns: the same shape."""
    return np.clip(ldr * 2 ** (stops / GAMMA), 0, 1)


def align_to(reference, frame, image):
    """Samples `image` where `frame` shows what `reference` shows. reference, frame: (H, W, 3) of one exposure. Returns: as image, (H, W, 3)."""
    grey = [cv2.cvtColor(np.uint8(x * 255 + 0.5), cv2.COLOR_RGB2GRAY) for x in (reference, frame)]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)               # (H, W, 2): reference -> frame
    y, x = np.mgrid[:flow.shape[0], :flow.shape[1]].astype(np.float32)
    return cv2.remap(image, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def flow_merge(ldr, ev):
    """The flow-aligned weighted merge. ldr: (3, 3, H, W) gamma-coded in [0, 1], ev: (3,) stops. Returns: (3, H, W) linear radiance."""
    short, reference, long = (np.ascontiguousarray(frame.permute(1, 2, 0).numpy()) for frame in ldr)
    short = align_to(reference, brighten(short, float(ev[1] - ev[0])), short)
    long = align_to(brighten(reference, float(ev[2] - ev[1])), long, long)
    aligned = torch.from_numpy(np.stack([short, reference, long])).permute(0, 3, 1, 2)
    return weighted_merge(aligned[None], ev[None])[0]


def main():
    """Merges every scene folder."""
    config = parse(FlowMergeConfig, description=__doc__)
    if not config.scenes or not config.out:
        raise ValueError("--scenes, --out: missing; give the folder of the scenes and one for the results")
    scenes = open_scenes(EvaluateConfig(data="folder", root=config.scenes))
    for scene in scenes:
        sample = scene.load()
        ldr = register(sample["ldr"], sample["ev"])[0] if config.register else sample["ldr"]
        hdr = flow_merge(ldr, sample["ev"]).clamp(0, 1)
        write_image(Path(config.out) / f"{scene.name}.hdr", hdr.permute(1, 2, 0).contiguous().numpy())
    print(f"wrote {len(scenes)} images into {config.out}")


if __name__ == "__main__":
    run(main)
