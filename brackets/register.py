"""Global registration of a hand-held bracket: each outer frame is warped onto the reference by one homography.

[departs D6: the paper feeds the frames as they are; its data were nearly aligned, frames from a hand are 10 to 100 pixels apart.]
What still moves afterwards, objects and parallax, is the network's part.

Both images of a pair are looked at as the longer exposure of the two shows them, which is free of any estimate of the noise:
    g_short = min(L_short 2^(stops / 2.2), 1), g_long = L_long                   mean over R G B; saturated in one is saturated in both
    n(g) = (g - mean(g)) / sqrt(var(g) + FLOOR²)                                 mean, var over WINDOW x WINDOW pixels
n has no mean and no contrast, so exposures and response curves need to be right only roughly. With R = n(reference), F = n(frame), the
homography W that takes points x of the reference to the frame minimises
    E(W) = sum_x rho( F(W x) - R(x) )                                            rho: Tukey's biweight, moving objects are outliers
over a pyramid, coarse to fine. The coarsest level tries all translations. From then on, W <- W (I + dW) with Gauss-Newton's dW from the
mean of both images' gradients: first a similarity, then an affinity, at last all of it.

Coordinates: points count from the image's centre in units of half its longer side, so W is the same at all levels. Homographies handed out
are in pixels, (0, 0) the centre of the first one.
"""

import math

import numpy as np
import torch
import torch.nn.functional as nnf

from data import GAMMA

LARGEST = 1_600_000     # pixels of the finest level that is looked at
COARSEST = 96, 16       # the coarsest level's longer side is at most the first, its shorter side at least the second, pixels
REACH = 0.15            # longest translation that is searched for, in units of the longer side
WINDOW = 15             # side of the neighbourhood whose mean and contrast are taken out, pixels of each level
FLOOR = 0.06            # contrast below which it is not amplified: noise, quantisation; coded values
SEEN = 0.2              # |n| from which a pixel shows something
TUKEY = 4.685           # residuals above it times their deviation have no weight [usual: 95 % efficiency on Gaussian noise]
LIMIT = 4.0             # of the truncated squares by which the search and the last check compare motions
BLOCK = 16              # side of the blocks of the last check, pixels
SMALLEST = 64           # side below which an image is left alone: blocks would be few, other scenes would be recognised by chance
STILL = 0.3             # motion of the corner that moves most up to which a frame is left alone, pixels
FAR = 0.25              # the same above which the result is not believed, in units of the longer side
SURE = 3.0              # fall of the error below which it is not believed either, in standard errors
ALIKE = 0.3             # the same for the correlation of F(W x) and R (at 256x256: true ones mostly > 0.5, of different scenes < 0.2)
WHITE = 0.97            # coded value of the reference from which it counts as saturated

# dW = [[p0 p1 p2] [p3 p4 p5] [p6 p7 0]]; columns: what p is made of
_P = np.eye(8)
MODELS = {"similarity": np.stack([_P[2], _P[5], _P[0] + _P[4], _P[3] - _P[1]], axis=1), "affinity": _P[:, :6], "homography": _P}


def axes(height, width, level=0, device=None):
    """Where the pixels of a pyramid level are: x (w,) and y (h,), from the image's centre, in units of half its longer side; float32."""
    step = 2 ** level
    return [((torch.arange(n // step, device=device) * step + (step - n) / 2) / (max(height, width) / 2)).float() for n in (width, height)]


def pixel_units(height, width):
    """(3, 3) float64: takes points in the units of axes() to pixels."""
    half = max(height, width) / 2
    return np.array([[half, 0, (width - 1) / 2], [0, half, (height - 1) / 2], [0, 0, 1]])


def corner_motion(homography, height, width):
    """How far a homography in pixels moves the corner of the image that it moves most, pixels; infinite if it turns one inside out."""
    corners = np.array([[x, y, 1.0] for x in (0, width - 1) for y in (0, height - 1)]).T      # (3, 4)
    moved = np.asarray(homography) @ corners
    return float(np.hypot(*(moved[:2] / moved[2] - corners[:2])).max()) if (moved[2] > 0).all() else math.inf


def _look_up(W, x, y, rows=slice(None), u=(0, 0)):
    """Where W takes the points (x + u_0, y[rows] + u_1): as grid_sample wants it (1, h, w, 2), and whether that is inside the image (h, w)."""
    (a, b, c), (d, e, f), (g, h, i) = W.tolist()
    X, Y = x[None, :] + u[0], y[rows, None] + u[1]
    scale = g * X + h * Y + i
    grid = torch.stack([2 * ((a * X + b * Y + c) / scale - x[0]) / (x[-1] - x[0]) - 1,
                        2 * ((d * X + e * Y + f) / scale - y[0]) / (y[-1] - y[0]) - 1], dim=-1)
    return grid[None], (grid.abs() <= 1).all(dim=-1) & (scale > 0)


def box_mean(image, side):
    """Mean over side x side pixels, at the rim over those that exist. image: (B, C, h, w). Returns: the same shape."""
    image = nnf.avg_pool2d(image, (side, 1), 1, (side // 2, 0), count_include_pad=False)
    return nnf.avg_pool2d(image, (1, side), 1, (0, side // 2), count_include_pad=False)


def normalise(grey):
    """n(g) of the header, of g smoothed over 3x3 pixels. grey: (1, 1, h, w) coded. Returns: the same shape, mostly within -3 to 3."""
    grey = box_mean(grey, 3)
    mean = box_mean(grey, WINDOW)
    var = (box_mean(grey ** 2, WINDOW) - mean ** 2).clamp(min=0)
    return (grey - mean) / (var + FLOOR ** 2).sqrt()


def at_one_exposure(reference, frame, stops):
    """Both images as the longer exposure of the two shows them: g of the header before the mean of its channels.

    reference, frame: (3, H, W) coded in [0, 1]; stops: by how much the reference is exposed longer, negative: shorter.
    Yields: (3, H, W) in [0, 1], reference then frame.
    """
    gains = (2 ** (max(-stops, 0) / GAMMA), 2 ** (max(stops, 0) / GAMMA))     # the longer one's is 1
    for image, gain in zip((reference, frame), gains):
        yield (image * gain).clamp(max=1)


def pyramid(reference, frame, stops):
    """at_one_exposure() at all sizes. Arguments as there.

    Returns: list of (2, 1, h, w), reference then frame, each half as large as the one before (an odd row or column is left out).
    """
    levels = [torch.stack([image.mean(dim=0, keepdim=True) for image in at_one_exposure(reference, frame, stops)])]
    longest, shortest = COARSEST
    while max(levels[-1].shape[2:]) > longest and min(levels[-1].shape[2:]) >= 2 * shortest:
        levels.append(nnf.avg_pool2d(levels[-1], 2))
    return levels


def search(R, F):
    """The translation by whole pixels that fits best, by exhaustive search. R, F: (1, 1, h, w). Returns: dx, dy, pixels."""
    h, w = R.shape[2:]
    reach_x, reach_y = (min(math.ceil(REACH * min(max(h, w), COARSEST[0])), n // 2) for n in (w, h))
    F, there = (nnf.pad(image, [reach_x, reach_x, reach_y, reach_y]) for image in (F, torch.ones_like(F)))
    rows = []
    for dy in range(2 * reach_y + 1):   # a row of candidates at a time
        shifted, seen = (nnf.unfold(image[:, :, dy:dy + h], (h, w))[0] for image in (F, there))     # (h w, 2 reach_x + 1)
        errors = (shifted - R.reshape(-1, 1)).square().clamp(max=LIMIT)
        rows.append((errors * seen).sum(dim=0) / seen.sum(dim=0))
    dy, dx = divmod(int(torch.stack(rows).argmin()), 2 * reach_x + 1)
    return dx - reach_x, dy - reach_y


def _warped(F, W, x, y):
    """F(W x) (h, w), and where that is inside of the frame."""
    grid, inside = _look_up(W, x, y)
    return nnf.grid_sample(F, grid, mode="bilinear", padding_mode="border", align_corners=True)[0, 0], inside


def _gradient(image):
    """Central differences of (h, w), per pixel; 0 at the rim."""
    return (nnf.pad((image[:, 2:] - image[:, :-2]) / 2, [1, 1]), nnf.pad((image[2:] - image[:-2]) / 2, [0, 0, 1, 1]))


def refine(R, F, W, model, x, y, steps):
    """Gauss-Newton on E(W), at most `steps` of them.

    R, F: (1, 1, h, w) from normalise(); W: (3, 3) float64 to start from; model: a key of MODELS; x, y: axes() of the level.
    Returns: (3, 3) float64, W[2, 2] = 1.
    Source: Benhimane and Malis, Real-time image-based tracking of planes using efficient second-order minimization, 2004; weights added.
    """
    B, pixel, R = MODELS[model], float(x[1] - x[0]), R[0, 0]
    X, Y, (Rx, Ry) = x[None, :], y[:, None], _gradient(R)
    for _ in range(steps):
        warped, inside = _warped(F, W, x, y)
        r = warped - R
        seen = r[inside & (warped.abs() + R.abs() > SEEN)]      # of flat pixels alone, the median would be 0
        if seen.numel() < BLOCK ** 2:
            break
        sigma = 1.4826 * float(seen[::1 + seen.numel() // 20_000].abs().median()) + 1e-3
        weight = (1 - (r / (TUKEY * sigma)).square()).clamp(min=0).square() * inside
        Fx, Fy = _gradient(warped)
        gx, gy = (Rx + Fx) / (2 * pixel), (Ry + Fy) / (2 * pixel)
        inward = -(gx * X + gy * Y)
        J = torch.stack([gx * X, gx * Y, gx, gy * X, gy * Y, gy, inward * X, inward * Y]).reshape(8, -1)      # dr / dp
        A, b = (B.T @ ((J * weight.reshape(-1)) @ right).cpu().double().numpy() for right in (J.T, r.reshape(-1)))
        A = A @ B
        p = -B @ np.linalg.solve(A + 1e-6 * (np.trace(A) / len(A) + 1) * np.eye(len(A)), b)     # B^T J w J^T B p = -B^T J w r
        W = W @ (np.eye(3) + np.append(p, 0).reshape(3, 3))
        W = W / W[2, 2]
        if np.abs(p).max() < 0.02 * pixel:
            break
    return W


def believable(R, F, W, x, y):
    """Whether W explains the frame better than no motion does, and the frame shows the same scene at all.

    Blocks of pixels are compared, as neighbours are not independent: the mean fall of their errors must be SURE of its standard errors.
    """
    before, inside_before = _warped(F, np.eye(3), x, y)
    after, inside = _warped(F, W, x, y)
    both = inside & inside_before
    fall = (before - R[0, 0]).square().clamp(max=LIMIT) - (after - R[0, 0]).square().clamp(max=LIMIT)
    share, fall = (nnf.avg_pool2d(image[None, None], BLOCK, ceil_mode=True) for image in (both.float(), fall * both))
    fall = fall[share > 0.3]
    if fall.numel() < 4:
        return False
    a, b = after[inside], R[0, 0][inside]
    alike = float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt().clamp(min=1e-6))
    return alike > ALIKE and float(fall.mean()) > SURE * float(fall.std()) / len(fall) ** 0.5


@torch.no_grad()
def estimate(reference, frame, stops):
    """How the camera moved between two photographs of different exposure.

    reference, frame: (3, H, W) coded in [0, 1]; stops: by how much the reference is exposed longer, negative: shorter.
    Returns: (3, 3) float64 array, the homography from the reference's pixels to the frame's; None where the frame is to be left alone:
        it moved by less than STILL, there is too little to see, another scene, no fall of the error.
    """
    height, width = reference.shape[1:]
    if min(height, width) < SMALLEST:
        return None
    levels, W = pyramid(reference, frame, stops), np.eye(3)
    for level in reversed(range(len(levels))):
        if levels[level][0].numel() > LARGEST and level < len(levels) - 1:
            break
        R, F = (normalise(grey[None]) for grey in levels[level])
        x, y = axes(height, width, level, reference.device)
        longer = max(R.shape)
        steps = 8 if longer < 400 else 4 if longer < 1000 else 2   # it has converged on the level before
        if level == len(levels) - 1:
            W[:2, 2] = np.array(search(R, F)) * float(x[1] - x[0])
        W = refine(R, F, W, "similarity" if longer < 100 else "affinity" if longer < 200 else "homography", x, y, steps)
    if not believable(R, F, W, x, y):
        return None
    homography = pixel_units(height, width) @ W @ np.linalg.inv(pixel_units(height, width))
    homography /= homography[2, 2]
    return homography if STILL < corner_motion(homography, height, width) < FAR * max(height, width) else None


def between_pixels(frame, grid):
    """A frame between its pixels: bicubic, and exactly 1 between saturated ones. frame: (3, H, W) coded; grid: (1, h, w, 2) of grid_sample.

    Returns: (3, h, w) in [0, 1]; beyond the frame, its nearest value.
    """
    image = nnf.grid_sample(frame[None], grid, mode="bicubic", padding_mode="border", align_corners=True)[0].clamp(0, 1)
    white = nnf.grid_sample(frame[None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0] > 0.9999
    return torch.where(white, 1.0, image)


def exposed_as_frame(reference, stops):
    """The reference as the frame's exposure would show it, clip(H_2 t_i, 0, 1)^(1/2.2). reference: coded, any shape; stops: as in estimate()."""
    return (reference * 2 ** (-stops / GAMMA)).clamp(max=1)


@torch.no_grad()
def warp(frame, homography, reference, stops, u=None):
    """Shows the frame as the reference's camera would have seen it.

    frame, reference: (3, H, W) coded in [0, 1]; homography: (3, 3), the reference's pixels to the frame's; stops: as in estimate(); u: None, or
        a flow (2, H, W), pixels to the right and down to go before the homography: both at once, for interpolated twice a frame is blurred.
    Returns: (3, H, W) float32 in [0, 1], as between_pixels() finds it. What lies outside of the frame is the
        reference, exposed as the frame is: clip(H_2 t_i, 0, 1)^(1/2.2), which leaves no ghost. Where the reference is saturated, that
        is only a lower bound, and the nearest value inside of the frame is taken if it is higher. With the identity and no flow, the frame itself.
    """
    if u is None and (np.asarray(homography) == np.eye(3)).all():
        return frame
    height, width = frame.shape[1:]
    N, out = pixel_units(height, width), torch.empty_like(frame)
    W, (x, y) = np.linalg.inv(N) @ np.asarray(homography) @ N, axes(height, width, 0, frame.device)
    rows = max(1, 2 ** 20 // width)     # strips of a million pixels: the grid of a large photograph would take gigabytes
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        grid, inside = _look_up(W, x, y, strip, (0, 0) if u is None else u[:, strip] * (x[1] - x[0]))
        image, exposed = between_pixels(frame, grid), exposed_as_frame(reference[:, strip], stops)
        beyond = torch.where(reference[:, strip] > WHITE, torch.maximum(image, exposed), exposed)
        out[:, strip] = torch.where(inside, image, beyond)
    return out


def check_bracket(ldr, ev):
    """Raises: ValueError where ldr is not (3, 3, H, W) or ev not (3,)."""
    if ldr.ndim != 4 or ldr.shape[:2] != (3, 3) or len(ev) != 3:
        raise ValueError(f"register: found ldr {tuple(ldr.shape)}, {len(ev)} exposures; give one bracket (3, 3, H, W) and 3 exposures")


def register(ldr, ev):
    """Warps the two outer frames of a bracket onto the reference.

    ldr: (3, 3, H, W) float32, coded in [0, 1]: frame, then RGB channel; exposure rises, frame 1 is the reference. ev: (3,) stops.
    Returns: the bracket, registered, of the same shape; (3, 3, 3) float64 homographies from the reference's pixels to each frame's.
        The reference stays as it is, and so does, with the identity, a frame that moved by less than STILL or that was not
        recognised (see estimate). Pixels from outside of a frame show the reference, exposed as the frame is (see warp).
    Raises: ValueError for another shape.
    """
    check_bracket(ldr, ev)
    registered, homographies = ldr.clone(), torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    for i in (0, 2):
        stops = float(ev[1] - ev[i])
        homography = estimate(ldr[1], ldr[i], stops)
        if homography is not None:
            registered[i] = warp(ldr[i], homography, ldr[1], stops)
            homographies[i] = torch.from_numpy(homography)
    return registered, homographies


def in_words(homography, height, width):
    """A homography from the reference's pixels to a frame's, for people."""
    if corner_motion(homography, height, width) == 0:
        return "left alone: it did not move, or was not recognised"
    half, N = max(height, width) / 2, pixel_units(height, width)
    W = np.linalg.inv(N) @ np.asarray(homography) @ N
    (a, b, x), (c, d, y) = W[:2] / W[2, 2]
    turn, moved = math.degrees(math.atan2(c - b, a + d)), corner_motion(homography, height, width)
    return (f"shifted by {x * half:+.1f}, {y * half:+.1f} pixels (right, down), turned by {turn:+.2f} degrees, "
            f"{moved:.1f} pixels at the corner that moved most")
