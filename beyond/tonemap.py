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
LARGE = 4_000_000       # pixels; fusion takes 150 bytes per pixel, so a larger image is fused at a smaller size
WINDOW, FLAT = 5, 1e-4  # of the guided filter, at the smaller size: pixels; variance, relative to the squared mean, that is no detail


def exposures(hdr):
    """Chooses the exposures that are fused. hdr: (H, W, 3) linear radiance >= 0. Returns: (n,) factors of radiance, rising."""
    luminance = (hdr[::4, ::4] @ LUMINANCE).ravel()             # a sixteenth of the pixels is enough
    top = max(float(np.quantile(luminance, BRIGHTEST)), 1e-9)
    middle = float(np.exp(np.log(luminance + 1e-4 * top).mean()))
    short, long = 0.5 / top, LONGEST / middle
    count = 1 + max(0, int(np.ceil(np.log2(long / short) / STEP)))
    return np.geomspace(short, max(long, short), count)


def fuse(coded, factors):
    """Fuses exposures. coded: (H, W, 3) radiance to the power 1/2.2, float32; factors: from exposures(). Returns: (H, W, 3), about in [0, 1]."""
    frames = [cv2.convertScaleAbs(coded, alpha=255 * factor ** (1 / 2.2)) for factor in factors]     # rounds and clips as a camera does
    return cv2.createMergeMertens(contrast_weight=0, saturation_weight=0, exposure_weight=1).process(frames)


def enlarge(small_fused, small, coded):
    """Transfers what fusion did at a small size to the full size: near each pixel, fused = a coded + b, so that edges stay where they are.

    small_fused, small: (h, w, 3) fused and coded at the small size; coded: (H, W, 3). Returns: (H, W, 3).
    Source: the fast guided filter (He and Sun, arXiv 1505.00996).
    """
    mean = lambda image: cv2.blur(image, (WINDOW, WINDOW))
    m, f = mean(small), mean(small_fused)
    a = (mean(small * small_fused) - m * f) / (mean(small * small) - m * m + FLAT * m * m + 1e-12)
    a, b = (cv2.resize(mean(part), coded.shape[1::-1], interpolation=cv2.INTER_LINEAR) for part in (a, f - a * m))
    return a * coded + b


def picture(hdr):
    """Tone-maps radiance by exposure fusion.

    hdr: (H, W, 3) linear radiance >= 0, float32. Its unit does not matter. Returns: (H, W, 3) uint8, gamma-coded.
    """
    coded, factors = cv2.pow(np.ascontiguousarray(hdr), 1 / 2.2), exposures(hdr)
    shrink = int(np.ceil(np.sqrt(coded.shape[0] * coded.shape[1] / LARGE)))
    if shrink > 1:
        small = cv2.resize(coded, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        fused = enlarge(fuse(small, factors), small, coded)
    else:
        fused = fuse(coded, factors)
    fused = np.maximum(fused, 0)
    peak = np.maximum(fused.max(axis=2, keepdims=True), SHOULDER)
    peak = (SHOULDER + (1 - SHOULDER) * np.tanh((peak - SHOULDER) / (1 - SHOULDER))) / peak           # the same for all three channels, so hues stay
    return np.rint(255 * peak * fused).astype(np.uint8)
