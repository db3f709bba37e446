"""HDR-VDP-2.2's quality score Q: how much the difference between two images would bother a viewer in front of a screen.

Paper: Mantiuk, Kim, Rempel, Heidrich, HDR-VDP-2, ACM Transactions on Graphics 30(4), 2011; weights of the bands from Narwaria, Mantiuk,
Perreira Da Silva, Le Callet, HDR-VDP-2.2, Journal of Electronic Imaging 24(1), 2015. Q is that of the authors' release 2.2.2.
Its constants are in this file and in hdrvdp2.json, whose licence covers both: Copyright (c) 2011, Rafal Mantiuk (text in hdrvdp2.json).

Apart from PyTorch, only this file and hdrvdp2.json are needed. The command line also needs brackets/files.py, to read image files:

    python -m evaluation.hdrvdp2 test.hdr reference.hdr
    python -m evaluation.hdrvdp2 test.png reference.png --diagonal 24 --resolution 1920 1200 --distance 0.5
    python -m evaluation.hdrvdp2 test.hdr reference.hdr --encoding rgb-bt.709 --peak 1000

    paper               code
    rho             rho     spatial frequency, cycles per degree
    R_L, R_M, R_R   R_*     light caught by L cones, M cones and rods, cd/m2; L_a is La, the adapting luminance R_L + R_M
    P               P       response of the photoreceptors, in just noticeable steps
    f, o            b, o    band (0: high-pass residual, 1 .. n: levels, n + 1: base; at 2^-b ppd / 2) and orientation
    B_T, B_R        T, R    bands of test and reference; in pairs (2, ...) the test image comes first
    D               D       difference in one band, in units of the detection threshold

Q depends on the display as much as on the images: the same pair at 24" and 0.5 m or at 30" and 0.55 m can differ by more than a point.
So print `settings` beside every Q. Linear radiance in [0, 1] has no absolute scale. Evaluation scripts published with deghosting papers pass
it to sRGB-display unchanged. The defaults here do the same, to be comparable, although this treats linear values as gamma-coded ones.
With rgb-bt.709 and a peak in cd/m2 the light is right, and Q comes out different.
Everything is float64, but the filters of the pyramid run in float32 unless double=True. With float32, Q changes by less than 5e-5. It saves
memory, and time on GPUs that are slow in float64.
"""

import argparse
import functools
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as nnf

ENCODINGS = ("sRGB-display", "rgb-bt.709")
SMALLEST = 17                                       # shortest side that gives the pyramid a first level, pixels
DARK = 1e-5                                         # cd/m2 around the image, and the minimum of a pixel

# Scatter in the eye: MTF(rho) = sum of A exp(-B rho), B in degrees
NARROW = 0.99727370023777070                        # share of the light in the first two terms, which blur by minutes of arc
HALO = 0.061466549455263                            # share of the third term in the rest, which spreads over degrees
MTF_A = (0.426 * NARROW, 0.574 * NARROW, (1 - NARROW) * HALO, (1 - NARROW) * (1 - HALO))
MTF_B = (0.028, 0.37, 37.0, 360.0)

# Sensitivity of the receptors over luminance
JOINT = (30.162, 4.0627, 1.6596, 0.2712)            # cones and rods together: height, knee in cd/m2, two exponents
ROD_PEAK = 1.1732                                   # cd/m2 where rods are most sensitive
ROD_HEIGHT = 10 ** 1.1414                           # their sensitivity there
ROD_BELOW, ROD_ABOVE = (1.2167, 1.1478), (2.9899, 0.5547)      # exponent and width on either side of the peak
RESPONSE_SCALE = 0.006894596 / 10 ** -2.4           # from summed sensitivity to just noticeable steps

# Contrast sensitivity: p1 .. p4 at these luminances, interpolated over log10 L
CSF_LUMINANCE = (0.002, 0.02, 0.2, 2.0, 20.0, 150.0)           # cd/m2
CSF_P1 = (0.991265, 0.800889, 0.476505, 0.405782, 0.334278, 0.394533)
CSF_P2 = (3.74038, 3.54104, 4.37453, 4.40602, 3.79542, 2.7755)
CSF_P3 = (0.50722, 0.682505, 0.750315, 0.935314, 1.07327, 1.16577)
CSF_P4 = (4.46044, 4.94958, 5.28678, 5.61425, 6.4635, 7.45665)

# Contrast masking
CHANGED = 0.001                                     # relative difference of a channel that makes a pixel count as changed
POWER = 10 ** 0.544068                              # p: exponent of the difference
MASK_POWER = 10 ** 0.49576                          # q: exponent of what masks it
K_SELF, K_XO, K_XN = 10 ** 0.189065, 10 ** 0.449199, 10 ** 1.52512     # masking by the band itself, other orientations, neighbouring bands

# Pooling: weight of a band over its frequency in cycles per degree (HDR-VDP-2.2)
WEIGHT_RHO = (0.1172, 0.2344, 0.4688, 0.9375, 1.875, 3.75, 7.5, 15.0, 30.0, 60.0)
WEIGHT = (0.0, 0.0, 0.0003, 0.0003, 0.0398, 0.2690, 0.2142, 0.2832, 0.2832, 0.0)
EPSILON = 1e-12                                     # added to the pooled difference before its logarithm, so that equal images have Q = 100


@dataclass
class HDRVDP2Config:
    """HDR-VDP-2: what the pixel values mean, and the screen they are seen on."""
    encoding: str = "sRGB-display"                  # sRGB-display: [0, 1] shown at 1 to 100 cd/m2; rgb-bt.709: linear light
    diagonal: float = 30.0                          # of the screen, inches
    resolution: tuple[int, ...] = (1500, 1000)      # of the screen: width and height, pixels
    distance: float = 0.55                          # between eye and screen, metres
    peak: float = 1.0                               # rgb-bt.709: cd/m2 of the value 1 (1: the values are cd/m2 themselves)


# --- helpers ----------------------------------------------------------------------------------------------------------

@functools.cache
def _constants():
    """Reads the filters and the spectral weights from hdrvdp2.json, float64 on the CPU."""
    path = Path(__file__).with_name("hdrvdp2.json")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; copy it next to hdrvdp2.py, which needs it")
    values = json.loads(path.read_text(encoding="utf-8"))
    names = ("sp3_hi0", "sp3_lo0", "sp3_lo", "sp3_bands", "lmsr_of_rgb_ccfl_lcd")
    return {name: torch.tensor(values[name], dtype=torch.float64) for name in names}


def interpolate(x, xs, ys):
    """Interpolates linearly between the points (xs, ys), xs ascending; beyond the ends the value stays constant.

    x: float64 tensor of any shape, or number; xs, ys: sequences of numbers, or (n,). Returns: float64, shape and device of x.
    """
    x = torch.as_tensor(x, dtype=torch.float64)
    xs, ys = (torch.as_tensor(values, dtype=torch.float64, device=x.device) for values in (xs, ys))
    i = torch.searchsorted(xs, x.contiguous()).clamp(1, len(xs) - 1)
    t = ((x - xs[i - 1]) / (xs[i] - xs[i - 1])).clamp(0, 1)
    return torch.lerp(ys[i - 1], ys[i], t)


def resize(x, h, w):
    """Resizes by bicubic interpolation (a = -0.5) with antialiasing and a half-sample symmetric border, the way MATLAB's imresize does it.

    x: (..., H, W). Returns: (..., h, w); not clamped, so values may overshoot.
    """
    return _resize_rows(_resize_rows(x, h).mT, w).mT


def _resize_rows(x, n_out):
    """Resizes the last axis but one."""
    n_in = x.shape[-2]
    if n_out == n_in:
        return x
    s = n_out / n_in
    shrink = min(s, 1.0)                            # the kernel is wider when downsampling
    centre = torch.arange(n_out, dtype=torch.float64, device=x.device) / s + 0.5 / s - 0.5
    taps = math.ceil(4 / shrink) + 2
    source = (centre - 2 / shrink).floor()[:, None] + torch.arange(taps, dtype=torch.float64, device=x.device)     # (n_out, taps)
    t = shrink * (centre[:, None] - source).abs()
    weight = torch.where(t <= 1, 1.5 * t ** 3 - 2.5 * t ** 2 + 1, torch.where(t <= 2, -0.5 * t ** 3 + 2.5 * t ** 2 - 4 * t + 2, 0.0))
    weight = weight / weight.sum(dim=1, keepdim=True)
    source = source.long().remainder(2 * n_in)
    source = torch.where(source < n_in, source, 2 * n_in - 1 - source)                  # the image, mirrored again and again
    out = torch.zeros(*x.shape[:-2], n_out, x.shape[-1], dtype=x.dtype, device=x.device)
    for k in range(taps):
        out.addcmul_(x.index_select(-2, source[:, k]), weight[:, k, None])
    return out


def frequencies(H, W, ppd, device):
    """Computes the radial frequency on the half plane of a real FFT of twice the image's size. Returns: (2H, W + 1) cycles per degree."""
    rows = torch.fft.fftfreq(2 * H, dtype=torch.float64, device=device) * ppd
    columns = torch.fft.rfftfreq(2 * W, dtype=torch.float64, device=device) * ppd
    return torch.hypot(rows[:, None], columns)


def filter_padded(image, gain, fill):
    """Pads an image to twice its size and multiplies its spectrum by a gain.

    image: (H, W); gain: (2H, W + 1), see `frequencies`; fill: value around the image. Returns: (H, W).
    """
    H, W = image.shape
    canvas = image.new_full((2 * H, 2 * W), float(fill))
    canvas[:H, :W] = image
    return torch.fft.irfft2(torch.fft.rfft2(canvas).mul_(gain), s=canvas.shape)[:H, :W]


# --- the eye ----------------------------------------------------------------------------------------------------------

def pixels_per_degree(diagonal_inch, resolution, distance_m):
    """Computes how many pixels a degree of the visual field covers, in the middle of a screen with square pixels.

    diagonal_inch: of the screen; resolution: its (width, height) in pixels; distance_m: from the eye, metres.
    Returns: float. Raises: ValueError unless all are positive.
    """
    W, H = resolution if len(resolution) == 2 else (0, 0)
    if not all(0 < value < math.inf for value in (diagonal_inch, W, H, distance_m)):
        raise ValueError(f"pixels_per_degree: diagonal {diagonal_inch} inches, resolution {tuple(resolution)}, distance {distance_m} m; "
                         "all must be positive, the resolution is width and height")
    height_m = diagonal_inch * 0.0254 / math.sqrt(1 + (W / H) ** 2)
    return H / math.degrees(2 * math.atan(0.5 * height_m / distance_m))


def display(image, encoding):
    """Computes the light that a screen emits. image: any shape. Returns: cd/m2 (each channel on its own scale), the same shape."""
    if encoding == "rgb-bt.709":
        return image
    linear = torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    return 99 * linear + 1


def mtf(rho):
    """Returns the share of the contrast at rho cycles per degree that passes the optics of the eye; mtf(0) = 1."""
    return sum(a * torch.exp(-b * rho) for a, b in zip(MTF_A, MTF_B))


def csf(rho, L):
    """Returns the contrast sensitivity at rho cycles per degree under an adapting luminance of L cd/m2; csf(0, L) = 0.

    rho: number or float64 tensor; L: float64 tensor; their shapes broadcast.
    """
    rho, log_L = torch.as_tensor(rho, dtype=torch.float64, device=L.device), torch.log10(L)
    p1, p2, p3, p4 = (interpolate(log_L, [math.log10(l) for l in CSF_LUMINANCE], p) for p in (CSF_P1, CSF_P2, CSF_P3, CSF_P4))
    return p4 / torch.sqrt((1 + (p1 * rho) ** p2) / (1 - torch.exp(-(rho / 7) ** 2)) ** p3)


def receptor_responses(device="cpu"):
    """Tabulates the responses of cones and rods over luminance.

    Returns: log10 of the luminance, response of a cone (L or M), response of a rod; float64 (2048,) each.
    """
    c = torch.logspace(-5, 5, 2048, dtype=torch.float64, device=device)
    height, knee, inner, outer = JOINT
    both = height * ((knee / c) ** inner + 1) ** -outer
    distance = torch.log10(c / ROD_PEAK).abs()
    below, above = (ROD_HEIGHT * torch.exp(-distance ** exponent / width) for exponent, width in (ROD_BELOW, ROD_ABOVE))
    rod = torch.where(c > ROD_PEAK, above, below)
    # L and M cones share what the rods leave; each sees half of the luminance.
    cone = 0.5 * interpolate((2 * c).clamp(max=float(c[-1])), c, (both - rod).clamp(min=1e-3))
    # A step is just noticeable where sensitivity x relative change is 1, so the response is the integral over ln(c).
    log_c = c.log()
    integral = [nnf.pad(torch.cumulative_trapezoid(s, log_c), (1, 0)) * RESPONSE_SCALE for s in (cone, rod)]
    return torch.log10(c), *integral


def photoreceptors(light, ppd):
    """Computes the receptors' response to an image: blur by the optics, then L cones, M cones and rods, each of which compresses luminance.

    light: (3, H, W) cd/m2, float64. Returns: P (H, W) with mean 0; La (H, W) adapting luminance in cd/m2.
    """
    _, H, W = light.shape
    # 2. Scatter in the eye, channel by channel; the world around the image is dark.
    gain = mtf(frequencies(H, W, ppd, light.device))                                    # (2H, W + 1)
    rgb = torch.stack([filter_padded(channel, gain, DARK).clamp(DARK, 1e10) for channel in light])
    del gain
    # 3. Light that L cones, M cones and rods catch from the three primaries (S cones are left out), compressed by their responses. The
    #    means of the cone and the rod response over the image are subtracted.
    weights = _constants()["lmsr_of_rgb_ccfl_lcd"].to(light.device)[:, [0, 1, 3]]
    R_L, R_M, R_rod = torch.tensordot(weights.T, rgb, dims=1)                           # (H, W) each
    del rgb
    log_c, cone_response, rod_response = receptor_responses(light.device)
    P_L, P_M, P_rod = (interpolate(torch.log10(R.clamp(1e-5, 1e5)), log_c, response)
                       for R, response in ((R_L, cone_response), (R_M, cone_response), (R_rod, rod_response)))
    P_cone = P_L + P_M
    return P_cone - P_cone.mean() + P_rod - P_rod.mean(), R_L + R_M


# --- bands ------------------------------------------------------------------------------------------------------------

def _fast_size(n):
    """Returns the smallest length from n on that suits the FFT: one without prime factors other than 2, 3 and 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def correlate(images, filters):
    """Correlates images with filters, without flipping them; the border is reflected without repeating its edge.

    images: (C, H, W), more than half as large as the filters; filters: list of (k, k), k odd, of the images' dtype and device.
    Returns: generator of (C, H, W), one for each filter. It uses the FFT, which is exact, faster than a direct sum in float64 for
        15 x 15 taps, and free of the reduced precision that GPUs may use in a convolution.
    """
    H, W = images.shape[-2:]
    border = max(len(f) for f in filters) // 2
    padded = nnf.pad(images, [border] * 4, mode="reflect")
    size = [_fast_size(n) for n in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, s=size)
    for f in filters:
        k = border - len(f) // 2
        result = torch.fft.irfft2(torch.fft.rfft2(f, s=size).conj() * spectrum, s=size)
        yield result[..., k:k + H, k:k + W]


def pyramid_levels(H, W):
    """Returns the number n of levels with four orientations; the pyramid has n + 2 bands."""
    n, side = 0, min(H, W)
    while side >= SMALLEST:
        n, side = n + 1, side // 2
    return n


def steerable_pyramid(images, dtype):
    """Splits images into bands of one octave, and each band into four orientations (3rd derivatives).

    images: (2, H, W); dtype: of the filtering.
    Returns: generator of (2, O, h, w) of that dtype, fine to coarse: O = 1 for the high-pass residual and the base, else 4; h, w are
        H, W for the residual and the first level and then halve from level to level, odd sizes rounding up.
    """
    hi0, lo0, lo, oriented = (_constants()[name].to(images.device, dtype) for name in ("sp3_hi0", "sp3_lo0", "sp3_lo", "sp3_bands"))
    # 4. high-pass residual | four orientations, half the size, four orientations, ... | what is left
    levels = pyramid_levels(*images.shape[1:])
    high, low = correlate(images.to(dtype), [hi0, lo0])
    del images
    yield high.unsqueeze(1)
    del high                                                                            # to save memory: photographs are large
    for _ in range(levels):
        bands = low.new_empty(2, len(oriented), *low.shape[1:])                         # filled one by one, to save memory
        for o, band in enumerate(correlate(low, oriented)):
            bands[:, o] = band
        yield bands
        del bands, band
        # lo sums to 2, and the gain bn of a band doubles with its level
        low = next(correlate(low, [lo]))[:, ::2, ::2].clone()
    yield low.unsqueeze(1)


def all_bands(P, La, ppd, dtype):
    """Yields the bands of a pair, with contrast sensitivity applied to the base. P, La: (2, H, W). Returns: generator as in steerable_pyramid."""
    n, mean_La, pyramid = pyramid_levels(*P.shape[1:]), La.mean(dim=(1, 2)), steerable_pyramid(P, dtype)
    del P, La
    for b, pair in enumerate(pyramid):
        if b <= n:
            yield pair
    # 5. The base band is filtered as a whole, under the mean light of its image. Both images are padded with the reference's mean.
    pair = pair[:, 0].double()                                                          # (2, h, w)
    base_ppd = 2.0 ** -b * ppd / 2 * 2 * math.sqrt(2)
    rho = frequencies(*pair.shape[1:], base_ppd, pair.device)
    yield torch.stack([filter_padded(image, csf(rho, light), pair[1].mean()) for image, light in zip(pair, mean_La)]).unsqueeze(1)


# --- what can be seen -------------------------------------------------------------------------------------------------

def mutual_mask(pair):
    """Computes the contrast that both images have around a pixel, which hides differences. pair: (2, O, h, w). Returns: (O, h, w) float64."""
    smaller = torch.minimum(pair[0].abs(), pair[1].abs()).double()
    return nnf.avg_pool2d(smaller, 3, stride=1, padding=1)                              # zeros beyond the border, divided by 9 there too


def neighbour_mask(M, M_finer, M_coarser, bn):
    """Computes the masking by the two neighbouring bands: by the same orientation where they have four, else by their only one.

    M: (O, h, w) mutual mask of the band; M_finer, M_coarser: (O', h', w') those of its neighbours, or None; bn: gain of the band.
    Returns: (O, h, w), or (1, h, w) where all orientations share it.
    """
    O, h, w = M.shape
    xn = M.new_zeros(1, h, w)
    for neighbour, gain in ((M_finer, bn / 2), (M_coarser, bn * 2)):
        if neighbour is not None:
            xn = xn + resize(neighbour[:O], h, w).clamp(min=0) / gain
    return xn


def neural_noise(log_La, rho, h, w):
    """Computes the noise in the eye at rho cycles per degree: the inverse of the contrast sensitivity under the light at each pixel.

    log_La: (H, W) log10 of the adapting luminance, in [-5, 5]. Returns: (h, w).
    """
    grid = torch.linspace(-5, 5, 256, dtype=torch.float64, device=log_La.device)
    return 1 / interpolate(resize(log_La, h, w), grid, csf(rho, 10 ** grid))


def visible_difference(pair, M, xn, N, bn):
    """6. Yields the difference between two images in one band, in units of the threshold set by noise and masking.

    pair: (2, O, h, w) bands of test and reference; M: (O, h, w) their mutual mask; xn: see neighbour_mask;
    N: (h, w) or number, neural noise; bn: number, gain of the band.
    Returns: generator of D, (h, w), one for each orientation.
    """
    noise = N ** (2 * POWER)
    for o, (T, R) in enumerate(zip(pair[0], pair[1])):
        others = [i for i in range(len(M)) if i != o]
        N_mask = K_SELF * (M[o] / N / bn) ** MASK_POWER                                 # self-masking
        N_mask += K_XO * (M[others].sum(dim=0) / N / bn) ** MASK_POWER                  # across orientations
        N_mask += K_XN * (xn[min(o, len(xn) - 1)] / N) ** MASK_POWER                    # across bands
        N_mask *= bn
        d = (T.double() - R.double()) / bn
        D = d.sign() * d.abs() ** POWER * bn
        yield D / torch.sqrt(noise + N_mask ** 2)


def _check(name, image, encoding):
    """Checks one input. Returns: the image as (3, H, W) float64."""
    image = image[0] if image.dim() == 4 and len(image) == 1 else image
    if image.dim() != 3 or len(image) != 3 or min(image.shape[1:]) < SMALLEST:
        raise ValueError(f"hdrvdp2: {name} is {tuple(image.shape)}; give (3, H, W) with H and W at least {SMALLEST}")
    if not image.is_floating_point():
        raise ValueError(f"hdrvdp2: {name} is {image.dtype}; scale it to [0, 1] in floating point")
    low, high = float(image.min()), float(image.max())                                  # both pass NaN on
    if not (low >= 0 and high < math.inf):
        raise ValueError(f"hdrvdp2: {name} has values from {low:g} to {high:g}; light is finite and not negative, clip or repair the image")
    if encoding == "sRGB-display" and high > 1:
        raise ValueError(f"hdrvdp2: {name} goes up to {high:g}; sRGB-display shows [0, 1], divide by the white level or use rgb-bt.709")
    return image.to("cpu" if image.device.type == "mps" else image.device).double()     # MPS has no float64


@torch.no_grad()
def hdrvdp2(test, reference, encoding="sRGB-display", ppd=23.787357547725868, double=False):
    """Computes HDR-VDP-2.2's quality score Q of a test image against a reference.

    test, reference: (3, H, W) or (1, 3, H, W) RGB, floating point, H and W at least 17, on one device, where Q is computed (on the CPU for MPS).
    encoding: "sRGB-display" for values in [0, 1], or "rgb-bt.709" for linear light in cd/m2.
    ppd: pixels per degree; the default is a 30" screen of 1500 x 1000 pixels at 0.55 m. double: filter the pyramid in float64 too.
    Returns: Q, float: 100 for equal images, lower the more they differ (there is no lower bound).
    Raises: ValueError for images that differ in size or are too small, NaN, infinite or negative values, an unknown encoding.
    Source: HDR-VDP-2 and HDR-VDP-2.2, see the top of this file.
    Cost: 350 bytes per pixel on top of the images (0.5 GB at 1000 x 1500, 8 GB at 6000 x 4000), 400 with double; measured on one CPU core,
        3.3 s at 1000 x 1500 and 26 s at 2000 x 3000, no more with double.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"hdrvdp2: unknown encoding {encoding!r}; use {' or '.join(ENCODINGS)}")
    if not 0 < ppd < math.inf:
        raise ValueError(f"hdrvdp2: {ppd} pixels per degree; it must be positive, see pixels_per_degree")
    test, reference = _check("test", test, encoding), _check("reference", reference, encoding)
    if test.shape != reference.shape:
        raise ValueError(f"hdrvdp2: test is {tuple(test.shape)}, reference {tuple(reference.shape)}; crop or resize to one size")

    # 1. Pixel values become light. Pixels that differ by less than a thousandth do not count, even where blur spreads a difference to them.
    test, reference = display(test, encoding), display(reference, encoding)
    changed = ((test - reference).abs() / reference > CHANGED).any(dim=0).double()      # (H, W), 0 or 1; 0 / 0 is no change
    # 2., 3. Scatter and receptors: see photoreceptors.
    P, La = (torch.stack(maps) for maps in zip(photoreceptors(test, ppd), photoreceptors(reference, ppd)))     # (2, H, W) each
    del test, reference
    # 4., 5. Bands: see steerable_pyramid and all_bands. Each is masked by its neighbours, so one neighbour is kept on either side.
    n, Q = pyramid_levels(*changed.shape), 100.0
    log_La = torch.log10(La.mean(dim=0)).clamp(-5, 5)                                   # (H, W)
    bands = all_bands(P, La, ppd, torch.float64 if double else torch.float32)
    del P, La
    following = next(bands)
    M_before, M_following = None, mutual_mask(following)
    for b in range(n + 2):
        band, M, following, M_following = following, M_following, None, None
        if b <= n:
            following = next(bands)
            M_following = mutual_mask(following)
        rho, bn = 2.0 ** -b * ppd / 2, 2.0 ** b
        N = 1.0 if b == n + 1 else neural_noise(log_La, rho, *band.shape[2:])           # the base band already includes the sensitivity
        xn = neighbour_mask(M, M_before, M_following if b < n else None, bn)            # the base band does not mask others
        seen = resize(changed, *band.shape[2:])
        # 7. Pooling: each band and orientation lowers Q by the logarithm of its mean difference, weighted by the band's frequency.
        weight = float(interpolate(rho, WEIGHT_RHO, WEIGHT))
        for D in visible_difference(band, M, xn, N, bn):
            error = float(torch.linalg.vector_norm(D * seen)) / D.numel()
            Q -= weight * (math.log(error + EPSILON) - math.log(EPSILON))
        M_before = M
    return Q


# --- settings and command line ----------------------------------------------------------------------------------------

def quality(test, reference, config):
    """Calls hdrvdp2 with the settings of an HDRVDP2Config; rgb-bt.709 values are multiplied by its peak first. Returns: Q, float."""
    if not 0 < config.peak < math.inf or (config.peak != 1 and config.encoding != "rgb-bt.709"):
        raise ValueError(f"--peak {config.peak:g} with --encoding {config.encoding}; give a positive number of cd/m2, and only with rgb-bt.709")
    ppd = pixels_per_degree(config.diagonal, config.resolution, config.distance)
    return hdrvdp2(test * config.peak, reference * config.peak, config.encoding, ppd)


def settings(config):
    """Returns the line to print beside every Q, which means nothing without it."""
    W, H = config.resolution
    light = f" with 1 = {config.peak:g} cd/m2" if config.encoding == "rgb-bt.709" else ""
    return (f'HDR-VDP-2.2, {config.encoding}{light}, {config.diagonal:g}" screen of {W}x{H} pixels at {config.distance:g} m, '
            f"{pixels_per_degree(config.diagonal, config.resolution, config.distance):.3f} pixels per degree")


def _read(path, encoding):
    """Reads an image file. Returns: (3, H, W) float32."""
    try:
        from brackets.files import read_image, to_float     # imported only here: everything else runs without it
    except ImportError as error:
        raise ValueError(f"{path}: image files are read by brackets/files.py and its packages ({error}); install them, or call "
                         "hdrvdp2 from Python with tensors") from None
    image = read_image(path)
    if encoding == "rgb-bt.709" and image.dtype.kind == "u":
        raise ValueError(f"{path}: {image.dtype} is gamma-coded, rgb-bt.709 takes linear light; use --encoding sRGB-display, or an .hdr")
    return torch.from_numpy(to_float(image)).permute(2, 0, 1)


def main(argv=None):
    """Runs the command line. argv: list of words, default sys.argv[1:]. Returns: exit code."""
    default = HDRVDP2Config()
    parser = argparse.ArgumentParser(description="HDR-VDP-2.2: quality of a test image against a reference, 100 for equal images.")
    parser.add_argument("test", help="image file: .hdr, .tif, .png or .jpg")
    parser.add_argument("reference", help="image file of the same size")
    parser.add_argument("--encoding", choices=ENCODINGS, default=default.encoding,
                        help="sRGB-display: values in [0, 1], shown at 1 to 100 cd/m2; rgb-bt.709: linear light (default: %(default)s)")
    parser.add_argument("--resolution", type=int, nargs=2, default=default.resolution, metavar=("W", "H"),
                        help="of the screen, pixels (default: %(default)s)")
    for name, meaning in (("diagonal", "of the screen, inches"), ("distance", "from eye to screen, metres"),
                          ("peak", "rgb-bt.709: cd/m2 of the value 1")):
        parser.add_argument(f"--{name}", type=float, default=getattr(default, name), help=f"{meaning} (default: %(default)s)")
    parser.add_argument("--cpu", action="store_true", help="use the CPU even where there is a GPU with CUDA")
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        parser.print_help()
        return 2
    flags = parser.parse_args(argv)
    config = HDRVDP2Config(flags.encoding, flags.diagonal, tuple(flags.resolution), flags.distance, flags.peak)
    device = "cuda" if torch.cuda.is_available() and not flags.cpu else "cpu"
    try:
        test, reference = (_read(path, config.encoding).to(device) for path in (flags.test, flags.reference))
        print(f"Q = {quality(test, reference, config):.4f}   ({settings(config)})")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
