"""Global registration of a hand-held bracket: each outer frame is warped onto the reference by one homography.

[departs D6: the paper feeds the frames as they are. Its data were nearly aligned; hand-held frames are 10 to 100 pixels apart.]
What still moves afterwards, objects and parallax, is left to flow.py and to the network.

Both images of a pair are shown at the longer of their two exposures. This needs no estimate of the noise:
    g_short = min(L_short 2^(stops / 2.2), 1), g_long = L_long                   mean over R G B; saturated in one is saturated in both
    n(g) = (g - mean(g)) / sqrt(var(g) + FLOOR²)                                 mean, var over WINDOW x WINDOW pixels
n has no local mean or contrast, so exposures and response curves need only be roughly right. Let R = n(reference), F = n(frame).
The homography W takes points x of the reference to the frame. It minimises
    E(W) = sum_x rho( F(W x) - R(x) )                                            rho: Tukey's biweight; moving objects are outliers
over a pyramid, coarse to fine. The coarsest level tries all translations. From then on, W <- W (I + dW) with Gauss-Newton's dW from the
mean of both images' gradients: first a similarity, then an affinity, finally a full homography.
W is kept if E(W) is clearly below E(W⁻¹). The motion and its opposite blur F alike. If nothing moved, noise makes both equally good.

A pixel of a frame may be NaN: the photograph does not show the scene there, just as beyond its rim. It is left out of E and filled like the rim.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch

from data import GAMMA

LARGEST = 1_600_000     # most pixels of an image that is registered; a larger photograph is shrunk by a whole number
COARSEST = 96, 16       # the coarsest level's longer side is at most the first, its shorter side at least the second, pixels
REACH = 0.15            # longest translation that is searched for, in units of the longer side
SEARCHED = 2.0          # the search clips |n| at this value
WINDOW = 15             # side of the neighbourhood whose mean and contrast are removed, pixels
FLOOR = 0.06            # contrast below which nothing is amplified: noise, quantisation; coded values
SEEN = 0.2              # |n| from which a pixel shows something
TUKEY = 4.685           # residuals above this many deviations have no weight [usual: 95 % efficiency on Gaussian noise]
LIMIT = 4.0             # the last check truncates the squares that it compares at this value
BLOCK = 8               # side of the blocks of the last check, pixels
SMALLEST = 64           # side below which an image is left alone: with few blocks, another scene could match by chance
STILL = 0.3             # a frame is left alone if no corner moves more than this, pixels
FAR = 0.25              # the result is not believed if a corner moves more than this, in units of the longer side
SURE = 5.5              # ... or if the error falls by less than this, in standard errors: noise alone reaches 5
ALIKE = 0.3             # ... or if F(W x) and R correlate less than this (at 256x256: mostly > 0.5, for different scenes < 0.2)
WHITE = 0.97            # coded value of the reference from which it counts as saturated
STRIP = 2 ** 19         # pixels that are warped at once: the positions of all pixels of a large photograph would take gigabytes

# dW = [[p0 p1 p2] [p3 p4 p5] [p6 p7 0]]; columns: a basis of p
_P = np.eye(8)
MODELS = {"similarity": np.stack([_P[2], _P[5], _P[0] + _P[4], _P[3] - _P[1]], axis=1), "affinity": _P[:, :6], "homography": _P}

cv2.setNumThreads(1)    # OpenCV's results depend on its number of threads, and each DataLoader worker would start its own; see in_threads()


def in_threads(function, items):
    """Returns [function(item) for item in items], computed in as many threads as torch has: two for inference on two cores, one in a DataLoader worker."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(function, items))


def pixel_units(height, width):
    """Returns the (3, 3) float64 matrix that takes points in units of half the longer side, from the image's centre, to pixels."""
    half = max(height, width) / 2
    return np.array([[half, 0, (width - 1) / 2], [0, half, (height - 1) / 2], [0, 0, 1]])


def enlarged_by(k, homography):
    """Returns the homography for images whose sides are k times as long; both (3, 3) in pixels, with (0, 0) the centre of the first pixel."""
    S = np.array([[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2], [0, 0, 1]])
    return S @ np.asarray(homography) @ np.linalg.inv(S)


def corner_motion(homography, height, width):
    """Returns how far a homography in pixels moves the corner that it moves most, pixels; infinite if it turns the image inside out."""
    corners = np.array([[x, y, 1.0] for x in (0, width - 1) for y in (0, height - 1)]).T      # (3, 4)
    moved = np.asarray(homography) @ corners
    return float(np.hypot(*(moved[:2] / moved[2] - corners[:2])).max()) if (moved[2] > 0).all() else math.inf


def box_mean(image, side):
    """Averages over side x side pixels, mirrored at the rim. image: (h, w) or (h, w, C) float32 array. Returns: the same shape."""
    return cv2.blur(image, (side, side))


def with_nearest(planes):
    """Replaces NaN in planes (C, h, w) by the nearest pixel that is seen, as cv2.BORDER_REPLICATE does beyond a rim."""
    seen = ~np.isnan(planes[0])
    if seen.all() or not seen.any():
        return planes
    labels = cv2.distanceTransformWithLabels((~seen).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    places = np.empty(labels.max() + 1, np.int64)
    places[labels[seen]] = np.flatnonzero(seen)
    return planes.reshape(len(planes), -1)[:, places[labels]]


def normalise(grey):
    """Computes n(g) of the header, with g smoothed over 3x3 pixels. grey: (h, w) float32 array, coded. Returns: the same shape, mostly -3 to 3; NaN stays."""
    unseen, grey = np.isnan(grey), box_mean(with_nearest(grey[None])[0], 3)
    mean = box_mean(grey, WINDOW)
    var = (box_mean(grey ** 2, WINDOW) - mean ** 2).clip(min=0)
    return np.where(unseen, np.float32(np.nan), (grey - mean) / np.sqrt(var + FLOOR ** 2))


def at_one_exposure(reference, frame, stops):
    """Shows both images at the longer of their two exposures: g of the header, before the mean of its channels.

    reference, frame: (..., H, W) coded in [0, 1]; stops: by how much the reference is exposed longer, negative: shorter.
    Yields: (..., H, W) in [0, 1], reference then frame.
    """
    gains = (2 ** (max(-stops, 0) / GAMMA), 2 ** (max(stops, 0) / GAMMA))     # 1 for the longer exposure
    for image, gain in zip((reference, frame), gains):
        yield (image * gain).clamp(max=1)


def shrunk(image, k):
    """Divides the sides of an array (h, w) by k; what does not fill a pixel is left out."""
    height, width = (n // k for n in image.shape)
    return cv2.resize(image[:height * k, :width * k], (width, height), interpolation=cv2.INTER_AREA)


def search(R, F):
    """Finds the translation by whole pixels, up to REACH, that correlates best. R, F: (h, w) from normalise(). Returns: (3, 3) float64."""
    x, y = (min(math.ceil(REACH * max(R.shape)), n // 2) for n in R.shape[::-1])
    R, F = (np.where(np.isnan(n), 0, n.clip(-SEARCHED, SEARCHED)) for n in (R, F))
    _, _, _, (left, top) = cv2.minMaxLoc(cv2.matchTemplate(cv2.copyMakeBorder(F, y, y, x, x, cv2.BORDER_CONSTANT), R, cv2.TM_CCORR_NORMED))
    return np.array([[1, 0, left - x], [0, 1, top - y], [0, 0, 1.0]])


def _warped(F, W):
    """Returns F(W x), (h, w), and where it is seen, inside the frame."""
    size, to_W, unseen = F.shape[::-1], cv2.WARP_INVERSE_MAP, np.isnan(F)
    inside = cv2.warpPerspective(np.where(unseen, 0, 255).astype(np.uint8), W, size, flags=cv2.INTER_NEAREST | to_W) > 0
    return cv2.warpPerspective(np.where(unseen, 0, F), W, size, flags=cv2.INTER_CUBIC | to_W, borderMode=cv2.BORDER_REPLICATE), inside


def refine(R, F, W, model, steps):
    """Minimises E(W) by at most `steps` Gauss-Newton steps.

    R, F: (h, w) float32 from normalise(); W: (3, 3) float64 to start from, in pixels; model: a key of MODELS. Returns: (3, 3) float64, W[2, 2] = 1.
    Source: Benhimane and Malis, Real-time image-based tracking of planes using efficient second-order minimization, 2004; weights added.
    """
    (height, width), N = R.shape, pixel_units(*R.shape)         # dW is found in N's units, in which its numbers are of similar size
    half, (X, Y) = N[0, 0], (((np.arange(n) - (n - 1) / 2) / N[0, 0]).astype(np.float32) for n in (width, height))
    Y, slope, B = Y[:, None], np.float32([[-0.5, 0, 0.5]]), MODELS[model]
    shown, R = ~np.isnan(R), np.where(np.isnan(R), 0, R)
    for _ in range(steps):
        warped, inside = _warped(F, W)
        inside = inside & shown
        r = warped - R
        seen = r[inside & (np.abs(warped) + np.abs(R) > SEEN)]  # over mostly flat pixels, the median would be 0
        if seen.size < 4 * BLOCK ** 2:
            break
        sigma = 1.4826 * float(np.median(np.abs(seen[::1 + seen.size // 20_000]))) + 1e-3
        weight = np.square((1 - np.square(r / (TUKEY * sigma))).clip(min=0)) * inside
        gx, gy = (cv2.filter2D(warped + R, -1, kernel) * np.float32(half / 2) for kernel in (slope, slope.T))
        inward = -(gx * X + gy * Y)
        J = np.stack([gx * X, gx * Y, gx, gy * X, gy * Y, gy, inward * X, inward * Y]).reshape(8, -1)       # dr / dp
        A, b = (B.T @ (J * weight.ravel() @ right).astype(np.float64) for right in (J.T, r.ravel()))
        A = A @ B
        p = -B @ np.linalg.solve(A + 1e-6 * (np.trace(A) / len(A) + 1) * np.eye(len(A)), b)             # B^T J w J^T B p = -B^T J w r
        W = W @ N @ (np.eye(3) + np.append(p, 0).reshape(3, 3)) @ np.linalg.inv(N)
        W = W / W[2, 2]
        if np.abs(p).max() * half < 0.02:
            break
    return W


def believable(R, F, W):
    """Whether W explains the frame clearly better than the opposite motion, and the frame shows the same scene at all.

    Blocks of pixels are compared, because neighbouring pixels are not independent: the mean fall of their errors must exceed SURE standard errors.
    """
    (there, inside), (back, inside_back) = _warped(F, W), _warped(F, np.linalg.inv(W))
    inside, R = inside & ~np.isnan(R), np.where(np.isnan(R), 0, R)
    both = (inside & inside_back).astype(np.float32)
    fall = np.square(back - R).clip(max=LIMIT) - np.square(there - R).clip(max=LIMIT)
    share, fall = (shrunk(image, BLOCK) for image in (both, fall * both))
    fall = fall[share > 0.3]
    if fall.size < 4:
        return False
    a, b = there[inside], R[inside]
    alike = float((a * b).sum()) / max(math.sqrt(float((a ** 2).sum()) * float((b ** 2).sum())), 1e-6)
    return alike > ALIKE and float(fall.mean()) > SURE * float(fall.std()) / fall.size ** 0.5


def estimate(reference, frame, stops):
    """Estimates how the camera moved between two photographs of different exposure.

    reference, frame: (3, H, W) coded in [0, 1]; stops: by how much the reference is exposed longer, negative: shorter.
    Returns: (3, 3) float64 array, the homography from the reference's pixels to the frame's; None if the frame is to be left alone:
        it moved by less than STILL or less than its noise lets us see, there is too little to see, or it shows another scene.
    """
    height, width = reference.shape[1:]
    if min(height, width) < SMALLEST:
        return None
    k = math.ceil(math.sqrt(height * width / LARGEST))
    levels, (longest, shortest) = [[shrunk(image.mean(dim=0).numpy(), k) for image in at_one_exposure(reference, frame, stops)]], COARSEST
    while max(levels[-1][0].shape) > longest and min(levels[-1][0].shape) >= 2 * shortest:
        levels.append([shrunk(grey, 2) for grey in levels[-1]])
    W = None
    for greys in reversed(levels):
        R, F = map(normalise, greys)
        longer = max(R.shape)
        model, steps = "similarity" if longer < 100 else "affinity" if longer < 200 else "homography", 8 if longer < 400 else 4 if longer < 1000 else 2
        W = refine(R, F, search(R, F) if W is None else enlarged_by(2, W), model, steps)        # larger levels start near their solution
    if not believable(R, F, W):
        return None
    homography = enlarged_by(k, W)
    homography /= homography[2, 2]
    return homography if STILL < corner_motion(homography, height, width) < FAR * max(height, width) else None


def within(x, y, height, width):
    """Finds which positions x, y (arrays, pixels) are on an image, up to a thousandth of a pixel, because they are rounded."""
    return (x > -1e-3) & (x < width - 0.999) & (y > -1e-3) & (y < height - 0.999)


def between_pixels(frame, x, y):
    """Samples a frame between its pixels: bicubic, but exactly 1 between saturated ones.

    frame: (C, H, W) float32 array, coded; x, y: (h, w) float32 arrays, pixels. Returns: (C, h, w) in [0, 1]; beyond the frame, its nearest value.
    """
    def read(plane, how):
        return cv2.remap(plane, x, y, how, borderMode=cv2.BORDER_REPLICATE)
    return np.stack([np.where(read(plane, cv2.INTER_LINEAR) > 0.9999, 1, read(plane, cv2.INTER_CUBIC).clip(0, 1)) for plane in frame])


def exposed_as_frame(reference, stops):
    """Shows the reference at the frame's exposure, clip(H_2 t_i, 0, 1)^(1/2.2). reference: coded, tensor or array; stops: as in estimate()."""
    return (reference * 2 ** (-stops / GAMMA)).clip(max=1)


def warp(frame, homography, reference, stops, u=None):
    """Shows the frame as the reference's camera would have seen it.

    frame, reference: (3, H, W) coded in [0, 1]; homography: (3, 3), the reference's pixels to the frame's; stops: as in estimate(); u: None, or
        a flow (2, H, W), offsets in pixels right and down, applied before the homography. One interpolation does both, because two would blur.
    Returns: (3, H, W) float32 in [0, 1], as between_pixels() finds it. Outside the frame, or where it is NaN, the result shows the
        reference, exposed as the frame is: clip(H_2 t_i, 0, 1)^(1/2.2), which leaves no ghost. Where the reference is saturated, that
        is only a lower bound, and the nearest value inside the frame is taken if it is higher. With the identity, no flow and no NaN, the frame itself.
    """
    whole = all_seen(frame)
    if u is None and whole and (np.asarray(homography) == np.eye(3)).all():
        return frame
    (height, width), rows = frame.shape[1:], max(1, STRIP // frame.shape[2])
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(homography).tolist()
    planes, shown, out = frame.contiguous().numpy(), reference.numpy(), np.empty(frame.shape, np.float32)
    seen, planes = (None, planes) if whole else ((~np.isnan(planes[0])).astype(np.float32), with_nearest(planes))

    def fill(top):
        strip = slice(top, min(top + rows, height))
        x, y = np.arange(width, dtype=np.float32)[None], np.arange(strip.start, strip.stop, dtype=np.float32)[:, None]
        if u is not None:
            x, y = x + u[0, strip].numpy(), y + u[1, strip].numpy()
        scale = g * x + h * y + i
        X, Y = (a * x + b * y + c) / scale, (d * x + e * y + f) / scale
        image, exposed = between_pixels(planes, X, Y), exposed_as_frame(shown[:, strip], stops)
        beyond = np.where(shown[:, strip] > WHITE, np.maximum(image, exposed), exposed)
        inside = within(X, Y, height, width) & (scale > 0)
        if seen is not None:
            inside &= cv2.remap(seen, X, Y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) > 0.999
        out[:, strip] = np.where(inside, image, beyond)
    in_threads(fill, range(0, height, rows))
    return torch.from_numpy(out)


def all_seen(frame):
    """Whether a tensor is free of NaN."""
    return not bool(frame.sum().isnan())


def filled_reference(ldr, ev, homographies):
    """Fills the reference where it is NaN: from the long frame; where that is saturated or NaN, from the short one; otherwise from the nearest pixel.

    ldr: (3, 3, H, W) coded in [0, 1]; ev: (3,) stops; homographies: (3, 3, 3) from the reference's pixels to each frame's. Returns: (3, H, W).
    """
    if all_seen(ldr[1]):
        return ldr[1]
    reference = torch.from_numpy(with_nearest(ldr[1].contiguous().numpy()))
    for i in (0, 2):
        frame = warp(ldr[i], homographies[i], ldr[1], float(ev[1] - ev[i]))     # NaN where the frame does not show what the reference lacks
        level = frame.amax(dim=0)
        better = ldr[1].isnan() & ~frame.isnan() & (level > 0 if i == 0 else level < WHITE)     # a missing short frame is black
        reference = torch.where(better, exposed_as_frame(frame, float(ev[i] - ev[1])), reference)
    return reference


def onto_reference(ldr, ev, homographies):
    """Warps the outer frames of a bracket onto the reference, and fills what a frame does not show. Arguments: as filled_reference; ldr is changed in place.

    Returns: ldr.
    """
    ldr[1] = filled_reference(ldr, ev, homographies)
    for i in (0, 2):
        ldr[i] = warp(ldr[i], homographies[i], ldr[1], float(ev[1] - ev[i]))
    return ldr


def check_bracket(ldr, ev):
    """Raises: ValueError if ldr is not (3, 3, H, W) or ev not (3,)."""
    if ldr.ndim != 4 or ldr.shape[:2] != (3, 3) or len(ev) != 3:
        raise ValueError(f"register: found ldr {tuple(ldr.shape)}, {len(ev)} exposures; give one bracket (3, 3, H, W) and 3 exposures")


def find_motion(ldr, ev):
    """Finds how the camera moved in a bracket. Arguments and errors: as register.

    Returns: (3, 3, 3) float64 homographies from the reference's pixels to each frame's; the identity for the reference, and for a frame that moved
        by less than STILL or was not recognised (see estimate).
    """
    check_bracket(ldr, ev)
    homographies = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    for i in (0, 2):
        homography = estimate(ldr[1], ldr[i], float(ev[1] - ev[i]))
        if homography is not None:
            homographies[i] = torch.from_numpy(homography)
    return homographies


def register(ldr, ev):
    """Warps the two outer frames of a bracket onto the reference.

    ldr: (3, 3, H, W) float32, coded in [0, 1]: frame, then RGB channel; exposure rises, frame 1 is the reference. ev: (3,) stops.
    Returns: the bracket, registered, of the same shape, and the homographies of find_motion. The reference stays as it is, and so does a frame with
        the identity. Pixels from outside a frame show the reference, exposed as the frame is (see warp).
    Raises: ValueError for another shape.
    """
    homographies = find_motion(ldr, ev)
    return onto_reference(ldr.clone(), ev, homographies), homographies


def in_words(homography, height, width):
    """Describes a homography from the reference's pixels to a frame's in words."""
    if corner_motion(homography, height, width) == 0:
        return "left alone: it did not move, or was not recognised"
    half, N = max(height, width) / 2, pixel_units(height, width)
    W = np.linalg.inv(N) @ np.asarray(homography) @ N
    (a, b, x), (c, d, y) = W[:2] / W[2, 2]
    turn, moved = math.degrees(math.atan2(c - b, a + d)), corner_motion(homography, height, width)
    return (f"shifted by {x * half:+.1f}, {y * half:+.1f} pixels (right, down), turned by {turn:+.2f} degrees, "
            f"{moved:.1f} pixels at the corner that moved most")
