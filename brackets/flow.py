"""Alignment along optical flow: what moved by itself in an outer frame is brought to where the reference shows it.

[departs D9: the paper feeds the frames as they are. Where the reference is saturated, a bright thing that moved as a whole is in the
short frame, but elsewhere; attention weighs features where they are, and does not move them.]
register.py takes the camera's motion out first and response.py its curve; this file finds the rest, pixel by pixel. Both images of a
pair are looked at as the longer exposure of the two shows them (register.at_one_exposure), so that both are saturated where one is. The
flow u takes a pixel of the reference to where the frame shows the same:
    frame(x + u(x)) = reference(x)
It is found by DIS (Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016), OpenCV's, which looks at one channel.
So it is found five times: in the mean of the channels, with and without DIS's normalisation of brightness, and in each channel, for a
colour may move without a change of grey, or be the only one that is not saturated. Of these flows each pixel takes the one by which the
frame's colours around it come nearest to the reference's (as in Lempitsky et al., "FusionFlow", CVPR 2008, without its smoothness), and
a median takes out what stands alone. Two more flows start from there, and the choice is made again. Where a thing is hidden, or the
reference all white, that is a guess. A long frame that contradicts the reference after all gives way to it, see follow_flow; else the
network judges what it gets. Flow is looked for in frames that register.py has warped, but what is found is read from the photograph
itself, through homography and flow at once: interpolated twice it would be blurred.
"""

import math

import cv2
import torch
import torch.nn.functional as nnf

from brackets.register import at_one_exposure, between_pixels, box_mean, exposed_as_frame, warp
from brackets.light import apply

LARGEST = 1_600_000     # pixels of the image that flow is looked for in; a larger photograph is shrunk by a whole number
SMALLEST = 32           # side below which a frame is left as it is, pixels: DIS compares patches of 8, over several scales
REFINEMENTS = 20        # of DIS's variational refinement, at each scale
WINDOW = 7              # side of the neighbourhood whose colours choose among the flows, and say whether a frame contradicts, pixels
MEDIAN = 5              # side of the median filter of the chosen flow, pixels
CONTRADICTED = 0.08     # mean difference around a pixel above which the long frame is doubted; from half as much again it is not used
REACH = 9               # side of the neighbourhood that is doubted with a pixel: the contours, too, are wrong
STRIP = 2 ** 20         # pixels that are sampled at once: the grid of a large photograph would take gigabytes

cv2.setNumThreads(1)    # else each worker of a DataLoader would start as many threads as there are cores


def shrunk_pair(reference, frame, stops):
    """What flow is looked for in: both images at one exposure, not larger than LARGEST. Arguments as of find_flow.

    Returns: (2, 3, h, w) in [0, 1], reference then frame, on the CPU; and by how much the sides were divided, a whole number.
    """
    k = math.ceil(math.sqrt(frame[0].numel() / LARGEST))
    height, width = frame.shape[1:]
    margin = 0, -width % k, 0, -height % k
    pair = [nnf.avg_pool2d(nnf.pad(image[None], margin, mode="replicate"), k) for image in at_one_exposure(reference, frame, stops)]
    return torch.cat(pair).cpu(), k


def enlarged(maps, k, like):
    """Maps of a shrunk image (C, h, w) at the size of the image `like` (3, H, W) and on its device. Returns: (C, H, W)."""
    height, width = like.shape[1:]
    return nnf.interpolate(maps[None].to(like.device), scale_factor=k, mode="bilinear", align_corners=False)[0, :, :height, :width]


def flow_of(pair):
    """Flow of a shrunk pair, (2, 3, h, w) in [0, 1] at one exposure. Returns: (2, h, w) float32, pixels of the shrunk images."""
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    dis.setVariationalRefinementIterations(REFINEMENTS)
    flows, errors = [], []

    def look(channels, normalised=True, start=None):
        dis.setUseMeanNormalization(normalised)
        greys = (pair[:, channels].reshape(2, -1, *pair.shape[2:]).mean(dim=1) * 255).round().byte().numpy()
        flows.append(torch.from_numpy(dis.calc(*greys, start)).permute(2, 0, 1))                        # (2, h, w)
        errors.append(box_mean((sample_along(pair[1], flows[-1]) - pair[0]).abs().mean(dim=0)[None, None], WINDOW)[0])

    def best():
        choice = torch.stack(errors).argmin(dim=0)                                                      # (1, h, w)
        u = torch.stack(flows).gather(0, choice.expand(1, 2, -1, -1))[0]
        return torch.stack([torch.from_numpy(cv2.medianBlur(component.numpy(), MEDIAN)) for component in u])

    grey = slice(0, 3)
    look(grey)
    look(grey, normalised=False)
    for channel in range(3):
        look(channel)
    start = best().permute(1, 2, 0).contiguous().numpy()
    look(grey, start=start.copy())                                              # a copy, for calc writes into it
    look(grey, normalised=False, start=start.copy())
    return best()


def find_flow(reference, frame, stops):
    """Where the frame shows what the reference shows.

    reference, frame: (3, H, W) coded in [0, 1]; stops: by how much the reference is exposed longer, negative: shorter.
    Returns: (2, H, W) float32, pixels to the right and down to go in the frame.
    """
    pair, k = shrunk_pair(reference, frame, stops)
    return enlarged(flow_of(pair) * k, k, frame)


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


def contradiction(reference, frame):
    """Where two images of one exposure show something else, whatever their noise: (3, h, w) each. Returns: (1, h, w) in [0, 1]."""
    difference = box_mean((reference - frame)[None], WINDOW)[0].abs().amax(dim=0, keepdim=True)
    return nnf.max_pool2d((difference / CONTRADICTED - 1).clamp(0, 0.5) * 2, REACH, 1, REACH // 2)


@torch.no_grad()
def follow_flow(ldr, ev, homographies=None, light=None):
    """Brings the outer frames of a bracket to the reference along flow.

    ldr: (3, 3, H, W) coded in [0, 1], ev: (3,) stops. homographies, light: of register and light.estimate, for a bracket that is as it was taken,
    with exposures as stated; by default it is registered, and coded by gamma 2.2.
    Where the long frame then still contradicts the reference, the reference takes its place, exposed as the long frame is: clip(H_2 t_3,
    0, 1)^(1/2.2). The short frame keeps what it shows: beside a highlight even the wrong place tells something.
    Returns: the same shape. The reference is at most recoded, and so is a bracket of fewer than SMALLEST pixels a side.
    """
    aligned, ev = (ldr.clone(), ev) if light is None else apply(ldr, light)
    if min(ldr.shape[2:]) < SMALLEST:                                           # register.py leaves these alone, too
        return aligned
    homographies = torch.eye(3).expand(3, 3, 3) if homographies is None else homographies
    for i in (0, 2):
        stops = float(ev[1] - ev[i])
        registered = warp(aligned[i], homographies[i], aligned[1], stops)
        pair, k = shrunk_pair(aligned[1], registered, stops)
        u = flow_of(pair)
        aligned[i] = warp(aligned[i], homographies[i], aligned[1], stops, enlarged(u * k, k, registered))
        if i == 2:
            ghost = enlarged(contradiction(pair[0], sample_along(pair[1], u)), k, registered)
            aligned[i].lerp_(exposed_as_frame(aligned[1], stops), ghost)
    return aligned
