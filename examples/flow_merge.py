"""A baseline without learning: optical flow aligns the outer frames with the reference, and a weighted merge follows.

    python examples/flow_merge.py --scenes DIR --out OUT        writes OUT/NAME.hdr for each scene folder in --scenes
    python evaluate.py --data folder --root DIR --predictions OUT --compare

An outer frame is aligned in three steps. First, frame and reference are brought to the longer of their two exposures (register.at_one_exposure),
so that both clip at the same radiance. Then the flow from the reference to the frame is estimated. Last, the frame is sampled along that flow.

The flow is OpenCV's DIS (Kroeger et al. 2016) at its medium preset, without changes. Nothing checks it: where something was hidden, it is wrong.
brackets/flow.py is more careful. evaluate.py's "merge, aligned" merges the frames that brackets/flow.py aligns.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from brackets.files import write_image
from brackets.marks import PICTURE
from brackets.merge import weighted_merge
from brackets.register import at_one_exposure, register
from common import parse, run
from evaluate import EvaluateConfig
from evaluation.scoring import open_scenes


@dataclass
class FlowMergeConfig:
    """Flow-aligned merge of scene folders."""
    scenes: str = ""        # folder whose sub-folders are scenes, as brackets.scenes.load_scene reads them
    out: str = ""           # folder for NAME.hdr
    register: bool = False  # register the frames first (brackets/register.py); flow then finds what is left


def align_to(reference, frame, stops):
    """Samples the frame where it shows what the reference shows.

    reference, frame: (3, H, W) gamma-coded in [0, 1]; stops: by how much longer the reference is exposed; negative: shorter.
    Returns: (3, H, W), the frame at its own exposure.
    """
    pair = [np.uint8(image.permute(1, 2, 0).numpy() * 255 + 0.5) for image in at_one_exposure(reference, frame, stops)]    # (H, W, 3) each
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in pair]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)                       # (H, W, 2): reference -> frame
    y, x = np.mgrid[:flow.shape[0], :flow.shape[1]].astype(np.float32)
    image = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
    sampled = cv2.remap(image, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return torch.from_numpy(sampled).permute(2, 0, 1)


def flow_merge(ldr, ev):
    """Makes the flow-aligned weighted merge. ldr: (3, 3, H, W) gamma-coded in [0, 1], ev: (3,) stops. Returns: (3, H, W) linear radiance."""
    short, long = (align_to(ldr[1], ldr[i], float(ev[1] - ev[i])) for i in (0, 2))
    return weighted_merge(torch.stack([short, ldr[1], long])[None], ev[None])[0]


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
        write_image(Path(config.out) / f"{scene.name}.hdr", hdr.permute(1, 2, 0).contiguous().numpy(), PICTURE)
    print(f"wrote {len(scenes)} images into {config.out}")


if __name__ == "__main__":
    run(main)
