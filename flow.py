"""Alignment along optical flow: what moved by itself in an outer frame is brought to where the reference shows it.

[departs D9: the paper feeds the frames as they are. Where the reference is saturated, a bright thing that moved as a whole is in the
short frame, but elsewhere; attention weighs features where they are, and does not move them.]
register.py takes the camera's motion out first; this file finds the rest, pixel by pixel. Both images of a pair are looked at as the
longer exposure of the two shows them (register.at_one_exposure), so that both are saturated where one is. The flow u takes a pixel of
the reference to where the frame shows the same:
    frame(x + u(x)) = reference(x)
It is found by DIS (Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016), OpenCV's. Nothing checks it: where a
thing is hidden, or the reference all white, it is a guess, and the network judges what it brings.

    python flow.py DIR         how far things moved between the frames of a scene
"""

import argparse
import math

import cv2
import torch
import torch.nn.functional as nnf

import common
from data import load_scene
from register import at_one_exposure, between_pixels, register

LARGEST = 1_600_000     # pixels of the image that flow is looked for in; a larger photograph is shrunk by a whole number
SMALLEST = 32           # side below which a frame is left as it is, pixels: DIS compares patches of 8, over several scales
REFINEMENTS = 20        # of DIS's variational refinement, at each scale
STRIP = 2 ** 20         # pixels that are sampled at once: the grid of a large photograph would take gigabytes

cv2.setNumThreads(1)    # else each worker of a DataLoader would start as many threads as there are cores


def find_flow(reference, frame, stops):
    """Where the frame shows what the reference shows.

    reference, frame: (3, H, W) coded in [0, 1]; stops: by how much the reference is exposed longer, negative: shorter.
    Returns: (2, H, W) float32, pixels to the right and down to go in the frame.
    """
    height, width = frame.shape[1:]
    k = math.ceil(math.sqrt(height * width / LARGEST))
    greys = nnf.pad(at_one_exposure(reference, frame, stops)[None], (0, -width % k, 0, -height % k), mode="replicate")
    small = nnf.avg_pool2d(greys, k)[0]                                         # (2, h, w)
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    dis.setVariationalRefinementIterations(REFINEMENTS)
    u = dis.calc(*(small.cpu() * 255).round().byte().numpy(), None)             # (h, w, 2)
    u = torch.from_numpy(u).permute(2, 0, 1)[None].to(frame.device) * k
    return nnf.interpolate(u, scale_factor=k, mode="bilinear", align_corners=False)[0, :, :height, :width]


def sample_along(frame, u):
    """The frame (3, H, W), coded in [0, 1], along a flow u (2, H, W). Returns: the same shape; where u leaves the frame, the frame as it is."""
    height, width = frame.shape[1:]
    out, x, y = torch.empty_like(frame), torch.arange(width, device=frame.device), torch.arange(height, device=frame.device)[:, None]
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        grid = torch.stack([2 * (x + u[0, strip]) / (width - 1) - 1, 2 * (y[strip] + u[1, strip]) / (height - 1) - 1], dim=-1)
        out[:, strip] = torch.where((grid.abs() <= 1).all(dim=-1), between_pixels(frame, grid[None]), frame[:, strip])
    return out


@torch.no_grad()
def follow_flow(ldr, ev):
    """Brings the outer frames of a bracket to the reference along flow. ldr: (3, 3, H, W) coded in [0, 1]; ev: (3,) stops.

    Returns: the same shape. The reference stays as it is, and so does a bracket of fewer than SMALLEST pixels a side.
    """
    aligned = ldr.clone()
    if min(ldr.shape[2:]) >= SMALLEST:
        for i in (0, 2):
            aligned[i] = sample_along(ldr[i], find_flow(ldr[1], ldr[i], float(ev[1] - ev[i])))
    return aligned


@torch.no_grad()
def align_frames(ldr, ev, registered=True, followed=True):
    """What a bracket goes through before the network sees it: registration, then flow.

    ldr: (3, 3, H, W) float32, coded in [0, 1]: frame, then RGB channel; exposure rises, frame 1 is the reference. ev: (3,) stops.
    registered, followed: False leaves out the one or the other.
    Returns: the bracket, of the same shape. Raises: ValueError for another shape.
    """
    if registered:
        ldr, _ = register(ldr, ev)
    return follow_flow(ldr, ev) if followed else ldr


def main():
    """Prints how far things moved."""
    parser = argparse.ArgumentParser(description="How far things moved between the frames of a scene, after register.py.")
    parser.add_argument("folder", help="folder with three or more photographs and their exposures, see data.py")
    scene = load_scene(parser.parse_args().folder)
    ldr, _ = register(scene["ldr"], scene["ev"])
    for i, name in ((0, "short"), (2, "long")):
        u = find_flow(ldr[1], ldr[i], float(scene["ev"][1] - scene["ev"][i]))
        length = u.norm(dim=0).flatten().sort().values
        print(f"{name:<6} " + ", ".join(f"{100 * q:g} % of the pixels moved by {float(length[int(q * (len(length) - 1))]):.1f} pixels or less"
                                        for q in (0.5, 0.9, 0.99)))


if __name__ == "__main__":
    common.run(main)
