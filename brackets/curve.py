"""Camera tone curves: a family of curves that always rise, and the fit of one to a bracket's comparagram, with gains and a black level.

phi(v) is what gamma 2.2 would write where the camera writes v:
    ln phi(v) = -int_v^1 exp(q(u)) du / u                                                              so phi rises whatever q is
    q(u) = c_1 + c_2 S(u) + c_3 q_sRGB(u) + r(u)
q is the logarithm of phi's slope on log-log axes. q = 0 is gamma 2.2, another constant is another gamma, and q_sRGB is the curve of sRGB.
    S(u) = (-0.63 - 0.62 ln(1.04 - u)) (1 - exp(-(u / 0.12)^2))
is the S-curve of a picture style: slope below 1 in the middle, a shoulder at the top. It was fitted to what 19 cameras apply before sRGB (the
base curves that darktable publishes). r is smooth, a Gaussian process given at KNOTS. Below the data q continues, so phi is roughly a power there.

A row of the comparagram says that one frame shows v_i where the next brighter one shows v_j. With l = phi^2.2, its residual in ln v_i is
    ( ln l(v_i) / 2.2 - ln(black + 2^-(step + gain) (l(v_j) - black)) / 2.2 ) / exp(q(v_i))
It must be measured in v: measured in phi, a curve that is flatter everywhere would fit better everywhere. Gauss-Newton minimises Cauchy's
robust cost of the residuals (whatever moved is an outlier) plus the squares of the prior.

What can be known: with free exposures, phi^a and steps times a explain the same frames for every a (Grossberg and Nayar, "Determining the
camera response from images: what is knowable?", PAMI 2003). Only a prior can decide. So three models compete: gamma 2.2, sRGB (gains free
in both), and any curve (gains of GAIN stops, and a curve like those of cameras). The last must explain the frames clearly better. A camera
with a different plain gamma is therefore taken for one with different exposures. The overall scale is a convention: phi(1) = 1.

theta always holds: black, the 13 numbers of the curve (c_1, c_2, c_3, r at the knots), the gain of each pair of neighbouring frames.
"""

import math

import numpy as np

from data import GAMMA

KNOTS = np.array([0, 0.08, 0.16, 0.26, 0.38, 0.52, 0.66, 0.8, 0.92, 1.0])   # coded values at which r is given
GRID = np.linspace(math.log(0.004), 0, 400)     # ln of coded values at which phi is computed
GAIN = 0.05                     # standard deviation of true exposures from stated ones, stops, where a curve is fitted as well
BLACK, LEAST_BLACK, MOST_BLACK = 0.003, 5e-4, 0.03  # standard deviation of the black level, and its smallest and largest plausible value; light
TYPICAL = np.array([0.02, 0.7, 1.0])    # c_1, c_2, c_3 of cameras: sRGB after a picture style
SPREAD = np.array([0.02, 0.35, 0.2])    # their standard deviations
CAUCHY = 2.0                    # residual, in standard deviations, from which it loses weight
FEW = 8                         # fewest rows from which a pair's gain is estimated
BETTER, SHARE = 12.0, 0.3       # by how much a model must lower the cost to be preferred: at least, and as a share of the remaining cost


def _basis():
    """Returns (400, 13): what each number of a curve contributes to q, at GRID."""
    v = np.exp(GRID)
    s_curve = (-0.63 - 0.62 * np.log(1.04 - v)) * (1 - np.exp(-(v / 0.12) ** 2))
    srgb = np.where(v <= 0.04045, -math.log(GAMMA), np.log(2.4 / GAMMA * v / (v + 0.055)))
    return np.column_stack([np.ones_like(v), s_curve, srgb] + [np.interp(v, KNOTS, e) for e in np.eye(len(KNOTS))])


BASIS = _basis()                # (400, 13)
CURVE = slice(1, 1 + BASIS.shape[1])    # where the curve is in theta: black, curve, gain of each pair


def _integral(values):
    """Returns -int_v^1 values du / u at GRID, for values at GRID, (400,) or (400, n)."""
    steps = (values[1:] + values[:-1]) * ((GRID[1] - GRID[0]) / 2)
    return np.concatenate([-np.cumsum(steps[::-1], axis=0)[::-1], np.zeros_like(values[:1])])


def at(values, v):
    """Interpolates values given at GRID, (400,) or (400, n), at coded values v (m,)."""
    x = np.clip((np.log(np.maximum(v, 1e-9)) - GRID[0]) / (GRID[1] - GRID[0]), 0, len(GRID) - 1)
    low = np.minimum(x.astype(int), len(GRID) - 2)
    t = (x - low).reshape(-1, *[1] * (values.ndim - 1))
    return values[low] * (1 - t) + values[low + 1] * t


def phi(v, curve):
    """Computes what gamma 2.2 would write where the camera writes v. v: (m,) in [0, 1]; curve: (13,). Returns: (m,) in [0, 1], rising."""
    v, slope = np.asarray(v, np.float64), np.exp(BASIS @ curve)
    below = np.minimum(np.log(np.maximum(v, 1e-30)) - GRID[0], 0) * slope[0]        # a power law below the grid
    return np.where(v > 0, np.exp(at(_integral(slope), v) + below), 0)


def residual(theta, rows, steps):
    """Returns the residual of each row, (n,), and its derivatives, (n, len(theta)). theta: black, curve, gain of each pair; steps: (n,) stops."""
    pair, black, curve, gains = rows[:, 0].astype(int), theta[0], theta[CURVE], theta[CURVE.stop:]
    slope = np.exp(np.clip(BASIS @ curve, -3, 3))
    F, J = _integral(slope), _integral(slope[:, None] * BASIS)
    t = 2.0 ** -(steps + gains[pair])
    l_j = np.exp(GAMMA * at(F, rows[:, 3]))
    seen = np.maximum(black + t * (l_j - black), 1e-7)                              # what the darker frame should show
    by_black = (t - 1) / seen / GAMMA
    by_curve = at(J, rows[:, 2]) - (t * l_j / seen)[:, None] * at(J, rows[:, 3])
    by_gain = (t * (l_j - black) / seen * math.log(2) / GAMMA)[:, None] * (pair[:, None] == np.arange(len(gains)))
    slope_i, r = at(slope, rows[:, 2]), at(F, rows[:, 2]) - np.log(seen) / GAMMA
    r /= slope_i                                                                    # ln phi -> ln v: noise and coding act on v
    return r, np.column_stack([by_black, by_curve - (r * slope_i)[:, None] * at(BASIS, rows[:, 2]), by_gain]) / slope_i[:, None]


def prior(gains, deviation):
    """Returns the square root of the prior's precision matrix, in theta's order. gains: their number; deviation: of true exposures from stated ones, stops."""
    amplitude = 0.08 + 0.17 * np.exp(-(KNOTS / 0.15) ** 2)                          # cameras differ most in the dark
    covariance = np.outer(amplitude, amplitude) * np.exp(-0.5 * ((KNOTS[:, None] - KNOTS) / 0.25) ** 2)
    covariance += np.diag(1e-5 + np.square(0.5 * np.exp(-((1 - KNOTS) / 0.06) ** 2)))   # ... and in the last few codes before white
    root = np.diag(1 / np.array([BLACK, *SPREAD, *np.ones(len(KNOTS)), *[deviation] * gains]))
    root[4:CURVE.stop, 4:CURVE.stop] = np.linalg.cholesky(np.linalg.inv(covariance)).T
    return root


def fit(rows, steps, start, root, free):
    """Fits theta by Gauss-Newton with Levenberg's damping. start: theta, also the prior's mean; free: indices that may change. Returns: theta, cost."""
    def cost(theta):
        z = residual(theta, rows, steps)[0] / rows[:, 4]
        return 0.5 * CAUCHY ** 2 * np.log1p((z / CAUCHY) ** 2).sum() + 0.5 * np.square(root[:, free] @ (theta - start)[free]).sum()

    theta, least, damping = start.copy(), cost(start), 1e-3
    for _ in range(30):
        r, J = residual(theta, rows, steps)
        weight = 1 / np.sqrt(1 + (r / rows[:, 4] / CAUCHY) ** 2) / rows[:, 4]
        A, y = np.concatenate([J * weight[:, None], root])[:, free], np.concatenate([-r * weight, -root[:, free] @ (theta - start)[free]])
        H, g = A.T @ A, A.T @ y
        for _ in range(6):
            new = theta.copy()
            new[free] += np.linalg.solve(H + damping * np.diag(np.diag(H)), g)
            new[0] = np.clip(new[0], 0, MOST_BLACK)
            lower = cost(new)
            if lower <= least:
                break
            damping *= 6
        else:
            break
        fall, theta, least, damping = least - lower, new, lower, max(damping / 5, 1e-6)
        if fall < 1e-4 * max(1, least):
            break
    return theta, least


def start_at(curve, gains):
    """Returns theta with the given first components of the curve and 0 elsewhere."""
    return np.concatenate([[0.0], curve, np.zeros(CURVE.stop - 1 - len(curve) + gains)])


def compete(rows, steps, deviation, gains):
    """Fits the three models to rows. rows: from light.comparagram; steps: (n,) stops of each row, as stated; deviation: see GAIN;
    gains: how many pairs of neighbouring frames there are. A pair with fewer than FEW rows keeps a gain of 0.

    Returns: [(theta, cost) of gamma 2.2, of sRGB, of any curve], each with a black level only if it helps clearly; the index of the preferred one.
    """
    gain = CURVE.stop + np.flatnonzero(np.bincount(rows[:, 0].astype(int), minlength=gains) >= FEW)
    fits = []
    for curve, free, spread in (((0, 0, 0), gain, 10.0), ((0, 0, 1), gain, 10.0), (TYPICAL, np.r_[np.arange(*CURVE.indices(CURVE.stop)), gain], deviation)):
        black, no_black = (fit(rows, steps, start_at(curve, gains), prior(gains, spread), indices) for indices in (np.r_[0, free], free))
        fits.append(black if black[1] < no_black[1] - BETTER and black[0][0] > LEAST_BLACK else no_black)
    simple = int(fits[1][1] < fits[0][1] - BETTER)
    return fits, simple if fits[simple][1] < fits[2][1] + max(BETTER, SHARE * fits[2][1]) else 2
