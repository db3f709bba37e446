"""Aligns frames along optical flow: objects that moved in an outer frame are brought to where the reference shows them.

[departs D9: the paper feeds the frames as they are. Where the reference is saturated, a bright object that moved as a whole is in the
short frame, but elsewhere. Attention weighs features in place and does not move them.]
register.py removes the camera's motion first; this file finds the rest, pixel by pixel. Both images of a pair are shown at the longer of
their two exposures (register.at_one_exposure), so both are saturated where one is. The flow u takes a pixel of the reference to the place
where the frame shows the same:
    frame(x + u(x)) = reference(x)
It is found by OpenCV's DIS (Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016), which looks at one channel.
A colour may move without a change of grey, or be the only one that is not saturated. So flow is computed five times: in the mean of the
channels, with and without DIS's brightness normalisation, and in each channel at half the size. Each pixel takes the flow that brings the
frame's colours around it closest to the reference's (as in Lempitsky et al., "FusionFlow", CVPR 2008, without its smoothness).
A median filter removes outliers. Where an object is hidden, or the reference is all white, the flow is a guess. Where a long frame still
contradicts the reference, the reference replaces it (see follow_flow); the network judges the rest. Flow is computed between registered
frames, but the result is sampled from the photograph itself, through homography and flow at once: interpolating twice would blur it.
"""

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as nnf

from brackets.light import apply
from brackets.register import at_one_exposure, box_mean, exposed_as_frame, filled_reference, in_threads, onto_reference, warp, within

LARGEST = 1_600_000     # most pixels of an image in which flow is computed; a larger photograph is shrunk by a whole number
SMALLEST = 32           # side below which a frame is left as it is, pixels: DIS compares patches of 8, over several scales
REFINEMENTS = 10, 5     # iterations of DIS's variational refinement, at each scale, for flow at full size and at half size
WINDOW = 7              # side of the neighbourhood whose colours decide which flow is taken and whether a frame contradicts the reference, pixels
MEDIAN = 5              # side of the median filter of the chosen flow, pixels
CONTRADICTED = 0.08     # mean difference around a pixel above which the long frame is doubted; from 1.5 times as much, it is not used
STILL, STAR = 0.03, 0.08        # largest mean difference in WINDOW and in 3x3 pixels if two frames show the same. The latter sees a moving star
REACH = 9               # side of the neighbourhood that is doubted along with a pixel: contours are wrong, too


def shrinking(image):
    """Returns the whole number by which the sides of an image (3, H, W) are divided, so that it has no more than LARGEST pixels."""
    return math.ceil(math.sqrt(image[0].numel() / LARGEST))


def shrunk_pair(reference, frame, stops, homography):
    """Makes the pair in which flow is computed: both images at one exposure, no larger than LARGEST, the frame registered by its homography.

    They are shrunk last. A frame clips pixel by pixel, so a mean of several pixels may only be taken when both are clipped alike.
    Other arguments: as in find_flow. Returns: (2, 3, h, w) in [0, 1], reference then frame; and the whole number by which the sides were divided.
    """
    k, (height, width) = shrinking(frame), frame.shape[1:]
    margin = 0, -width % k, 0, -height % k
    pair = at_one_exposure(reference, warp(frame, homography, reference, stops), stops)
    return torch.cat([nnf.avg_pool2d(nnf.pad(image[None], margin, mode="replicate"), k) for image in pair]), k


def enlarged(maps, k, like):
    """Enlarges maps of a shrunk image (C, h, w) to the size of the image `like` (3, H, W). Returns: (C, H, W)."""
    height, width = like.shape[1:]
    return nnf.interpolate(maps[None], scale_factor=k, mode="bilinear", align_corners=False)[0, :, :height, :width]


def flow_of(pair):
    """Computes the flow of a shrunk pair, (2, 3, h, w) in [0, 1] at one exposure. Returns: (2, h, w) float32, pixels of the shrunk images."""
    images, channels, mean = pair.numpy(), (pair * 255).round().byte().numpy(), (pair.mean(dim=1) * 255).round().byte().numpy()

    def look(job):
        """Returns a flow (h, w, 2) and the error it leaves around each pixel (h, w)."""
        grey, normalised, scale = job
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        dis.setFinestScale(scale)
        dis.setVariationalRefinementIterations(REFINEMENTS[scale])
        dis.setUseMeanNormalization(normalised)
        u = dis.calc(*grey, None)
        return u, box_mean(np.abs(_along(images[1], u[..., 0], u[..., 1]) - images[0]).mean(axis=0), WINDOW)

    jobs = [(mean, True, 0), (mean, False, 0)] + [(channels[:, c], True, 1) for c in range(3)]
    (u, least), *others = in_threads(look, jobs)
    for other, error in others:
        u, least = np.where((error < least)[..., None], other, u), np.minimum(error, least)
    return torch.stack([torch.from_numpy(cv2.medianBlur(np.ascontiguousarray(u[..., i]), MEDIAN)) for i in range(2)])


def find_flow(reference, frame, stops):
    """Finds where the frame shows what the reference shows.

    reference, frame: (3, H, W) coded in [0, 1]; stops: by how much the reference is exposed longer, negative: shorter.
    Returns: (2, H, W) float32, the offset in the frame, pixels to the right and down.
    """
    pair, k = shrunk_pair(reference, frame, stops, np.eye(3))
    return enlarged(flow_of(pair) * k, k, frame)


def _along(planes, right, down):
    """sample_along for arrays: (3, h, w), (h, w), (h, w)."""
    height, width = right.shape
    x, y = np.arange(width, dtype=np.float32) + right, np.arange(height, dtype=np.float32)[:, None] + down
    there = within(x, y, height, width)
    return np.stack([np.where(there, cv2.remap(plane, x, y, cv2.INTER_LINEAR), plane) for plane in planes])


def sample_along(frame, u):
    """Samples a frame (3, H, W), coded in [0, 1], along a flow u (2, H, W), bilinearly. Returns: the same shape; unchanged where u leaves the frame."""
    return torch.from_numpy(_along(frame.contiguous().numpy(), *u.numpy()))


def contradiction(reference, frame, stops=0.0):
    """Finds where two images (3, h, w) show different things, whatever their noise. stops: as in find_flow. Returns: (1, h, w) in [0, 1]."""
    difference = np.zeros(frame.shape[1:], np.float32)
    for planes in zip(reference, frame):                                            # by channel, because a large bracket takes a gigabyte
        a, b = at_one_exposure(*planes, stops)
        np.maximum(difference, np.abs(box_mean((a - b).numpy(), WINDOW)), out=difference)
    return torch.from_numpy(cv2.dilate((difference / CONTRADICTED - 1).clip(0, 0.5) * 2, np.ones((REACH, REACH))))[None]


def ghosts(pair, u, k, reference, aligned, stops):
    """Finds where a frame, aligned along the flow u of a shrunk pair, still contradicts the reference.

    pair, k: from shrunk_pair; reference, aligned: (3, H, W) coded in [0, 1]; stops: as in find_flow. Returns: (1, H, W) in [0, 1].
    A shrunk pair hardly shows small things. So a longer frame is compared in full size, too. Where a shorter frame shows a small dark thing, the
    reference may be white: then the frame is right.
    """
    found = enlarged(contradiction(pair[0], sample_along(pair[1], u)), k, aligned)
    return torch.maximum(found, contradiction(reference, aligned, stops)) if k > 1 and stops < 0 else found


def still_noise(ldr, ev):
    """Measures the noise of three frames that show the same everywhere: the root mean square difference of a pair, at one exposure and clipped alike.

    ldr: (3, 3, H, W) coded in [0, 1], without NaN, with corrected light; ev: (3,) stops. Returns: float, of the worse pair; infinity if something moves.
    """
    k, noise = shrinking(ldr[1]), 0.0
    for i in (0, 2):
        squares = 0.0
        for planes in zip(ldr[1], ldr[i]):                                      # by channel, because a large bracket takes a gigabyte
            reference, frame = at_one_exposure(*planes, float(ev[1] - ev[i]))
            difference = (reference - frame).numpy()
            if any(np.abs(box_mean(difference, side)).max() > most for side, most in ((k * WINDOW, STILL), (3, STAR))):
                return math.inf
            squares += float(np.square(difference).mean()) / len(ldr[1])
        noise = max(noise, math.sqrt(squares))
    return noise


@torch.no_grad()
def follow_flow(ldr, ev, homographies=None, light=None):
    """Brings the outer frames of a bracket to the reference along flow.

    ldr: (3, 3, H, W) coded in [0, 1]; ev: (3,) stops, as stated. homographies, light: as the fields of Prepared, for a bracket as it was
    taken; by default, the bracket must be registered and in the right light.
    Where the long frame then still contradicts the reference, the reference takes its place, exposed as the long frame is: clip(H_2 t_3,
    0, 1)^(1/2.2). The short frame keeps what it shows: beside a highlight, even the wrong place is informative.
    Returns: the same shape, without NaN. Flow does not change the reference, nor any frame of a bracket smaller than SMALLEST pixels a side.
    """
    aligned, ev = (ldr.clone(), ev) if light is None else apply(ldr, light)
    homographies = torch.eye(3).expand(3, 3, 3) if homographies is None else homographies
    if min(ldr.shape[2:]) < SMALLEST:                                           # register.py leaves these alone as well
        return onto_reference(aligned, ev, homographies)
    aligned[1] = filled_reference(aligned, ev, homographies)
    for i in (0, 2):
        stops = float(ev[1] - ev[i])
        pair, k = shrunk_pair(aligned[1], aligned[i], stops, homographies[i])
        u = flow_of(pair)
        aligned[i] = warp(aligned[i], homographies[i], aligned[1], stops, enlarged(u * k, k, aligned[i]))
        if i == 2:
            aligned[i].lerp_(exposed_as_frame(aligned[1], stops), ghosts(pair, u, k, aligned[1], aligned[i], stops))
    return aligned
