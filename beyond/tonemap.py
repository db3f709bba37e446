"""Makes a picture for a screen, one that a person would keep: radiance becomes 8 bits, without blown-out windows or black corners.

Radiance is exposed several times, from the exposure that shows the brightest part to one that shows the darker half, and OpenCV fuses these
exposures (exposure fusion; Mertens, Kautz and Van Reeth, Pacific Graphics 2007): at each pixel, the exposures that show it at
medium brightness count most. docs/pictures.md shows it beside other operators.
"""

import cv2
import numpy as np

LUMINANCE = np.float32([0.2126, 0.7152, 0.0722])    # of linear RGB with the primaries of sRGB; near enough for others
STEP = 2.0              # most stops between two exposures
BRIGHTEST = 0.995       # quantile of the luminance that the shortest exposure shows at half of white
LONGEST = 2.0           # value at which the longest exposure would show the geometric mean, 1 is white; so what is darker than the mean is seen
SHOULDER = 0.8          # code values above it are compressed to stay below 1
LARGE = 4_000_000       # pixels of an image that OpenCV may fuse
WELL = 0.2              # how far a code value may be from 0.5 to count much, as in Mertens et al.


def exposures(hdr):
    """Chooses the exposures that are fused. hdr: (H, W, 3) linear radiance >= 0. Returns: (n,) factors of radiance, rising."""
    luminance = (hdr[::4, ::4] @ LUMINANCE).ravel()             # a sixteenth of the pixels is enough
    top = max(float(np.quantile(luminance, BRIGHTEST)), 1e-9)
    middle = float(np.exp(np.log(luminance + 1e-4 * top).mean()))
    short, long = 0.5 / top, LONGEST / middle
    count = 1 + max(0, int(np.ceil(np.log2(long / short) / STEP)))
    return np.geomspace(short, max(long, short), count)


def fuse(frames, shape):
    """Fuses exposures by weighing the levels of their Laplacian pyramids.

    frames: iterable of (H, W, 3) uint8; shape: (H, W, 3). Returns: (H, W, 3) float32, about in [0, 1].
    OpenCV takes 150 bytes per pixel. So the finest level of a large image is fused here, one exposure after the other, and the rest at half the size.
    """
    if shape[0] * shape[1] <= LARGE:
        return cv2.createMergeMertens(contrast_weight=0, saturation_weight=0, exposure_weight=1).process(list(frames))
    halves, fine, total = [], np.zeros(shape, np.float32), np.zeros((*shape[:2], 1), np.float32)
    for frame in frames:
        halves.append(cv2.pyrDown(frame))
        weight = np.exp(sum(np.square(channel / np.float32(255) - np.float32(0.5)) for channel in cv2.split(frame)) / np.float32(-2 * WELL ** 2))[..., None]
        detail = frame.astype(np.float32)
        detail -= cv2.pyrUp(halves[-1].astype(np.float32), dstsize=shape[1::-1])
        detail *= weight
        fine += detail
        total += weight
    fine /= 255 * total
    fine += cv2.pyrUp(fuse(halves, halves[0].shape), dstsize=shape[1::-1])
    return fine


def picture(hdr):
    """Tone-maps radiance by exposure fusion.

    hdr: (H, W, 3) linear radiance >= 0, float32. Its unit does not matter. Returns: (H, W, 3) uint8, gamma-coded.
    """
    coded, factors = cv2.pow(np.ascontiguousarray(hdr), 1 / 2.2), exposures(hdr)
    frames = (cv2.convertScaleAbs(coded, alpha=255 * factor ** (1 / 2.2)) for factor in factors)        # rounds and clips as a camera does
    fused = np.maximum(fuse(frames, coded.shape), 0)
    peak = np.maximum(fused.max(axis=2, keepdims=True), SHOULDER)
    peak = (SHOULDER + (1 - SHOULDER) * np.tanh((peak - SHOULDER) / (1 - SHOULDER))) / peak           # the same for all three channels, so hues stay
    return np.rint(255 * peak * fused).astype(np.uint8)
