"""register.py against scenes given by a formula, which a camera in any place can photograph exactly, and against OpenCV."""

import math

import cv2
import numpy as np
import pytest
import torch

from brackets import register as module
from brackets.merge import weighted_merge
from brackets.register import believable, corner_motion, estimate, in_words, normalise, pixel_units, register, warp
from data import T

EV = torch.tensor([0.0, 2.0, 4.0])


def homography(height, width, shift=(0.0, 0.0), turn=0.0, zoom=1.0, tilt=(0.0, 0.0)):
    """Makes a homography from pixels to pixels: turned by degrees and tilted about the image's centre, then shifted."""
    c, s = zoom * math.cos(math.radians(turn)), zoom * math.sin(math.radians(turn))
    centre = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    half = max(height, width) / 2
    return centre @ np.array([[c, -s, shift[0]], [s, c, shift[1]], [tilt[0] / half, tilt[1] / half, 1]]) @ np.linalg.inv(centre)


def scene(x, y, seed=0, waves=20):
    """Returns the linear radiance (3, h, w) at any position: the exponential of waves of 7 to 90 pixels."""
    rng = np.random.default_rng(seed)
    total = np.zeros((3, *x.shape), np.float32)
    for _ in range(waves):
        length, heading, phase = math.exp(rng.uniform(math.log(7), math.log(90))), rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
        wave = np.cos(2 * math.pi / length * (math.cos(heading) * x + math.sin(heading) * y) + phase)
        total += wave * rng.uniform(0.05, 0.3, (3, 1, 1)).astype(np.float32) * length ** 0.2
    return np.exp(total) * 0.12


def radiance(height, width, W=None, seed=0):
    """Shows the scene as seen by a camera that has the reference's pixel x at W x."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    X, Y, scale = np.einsum("ij,jhw->ihw", np.linalg.inv(np.eye(3) if W is None else W), np.stack([x, y, np.ones_like(x)]))
    return scene((X / scale).astype(np.float32), (Y / scale).astype(np.float32), seed)


def photograph(hdr, ev, noise=0.0, seed=1):
    """Codes linear radiance as a (3, H, W) tensor; noise: of the coded values at white."""
    linear = hdr * 2.0 ** float(ev)
    linear = linear + noise * np.sqrt(np.maximum(linear, 0.02)) * np.random.default_rng(seed).standard_normal(hdr.shape)
    return torch.from_numpy(np.clip(linear, 0, 1) ** (1 / 2.2)).float()


def bracket(height, width, W_short, W_long, noise=0.0):
    views = [radiance(height, width, W) for W in (W_short, None, W_long)]
    return torch.stack([photograph(view, ev, noise, seed) for seed, (view, ev) in enumerate(zip(views, EV))])


def corner_error(found, true, height, width):
    """Returns the largest distance between corners, over all four, pixels."""
    corners = np.array([[x, y, 1.0] for x in (0, width - 1) for y in (0, height - 1)]).T
    a, b = np.asarray(found) @ corners, np.asarray(true) @ corners
    return np.hypot(*(a[:2] / a[2] - b[:2] / b[2])).max()


MOTIONS = [  # height, width, motion of the short and of the long frame
    (200, 300, {"shift": (7.3, -4.6)}, {"shift": (-2.4, 1.2), "turn": 1.5}),
    (251, 383, {"shift": (3.0, 9.0), "turn": -2.0, "zoom": 1.01}, {"shift": (-12.7, 5.5), "turn": 0.8, "tilt": (0.015, -0.02)}),
    (331, 214, {"tilt": (-0.02, 0.01), "turn": 0.5}, {"shift": (0.4, 0.3)}),
    (240, 240, {"shift": (19.2, 0.0)}, {"shift": (-13.6, -13.6), "turn": 3.0}),     # 8 % of the side
    (200, 300, {"shift": (42.0, 9.0)}, {"shift": (-30.0, 0.0)}),                    # 14 %, 10 %
]


def test_the_identity_leaves_a_frame_as_it_is():
    frame = torch.rand(3, 70, 90)
    assert torch.equal(warp(frame, torch.eye(3), torch.zeros_like(frame), 2.0), frame)


def test_along_homography_and_flow_a_frame_is_interpolated_once():
    """A frame is moved by half a pixel and back by half a pixel. Two steps blur it twice; one step does not blur it at all."""
    frame, reference = 0.9 * torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0)), torch.full((3, 40, 50), 0.2)
    W, still = homography(40, 50, (4.5, -2.5)), torch.eye(3)
    u = torch.tensor([-0.5, 0.5])[:, None, None].expand(2, 40, 50)
    once, twice = warp(frame, W, reference, 0.0, u), warp(warp(frame, W, reference, 0.0), still, reference, 0.0, u)
    assert (once[:, 2:, :46] - frame[:, :38, 4:]).abs().max() < 1e-4
    assert (twice[:, 2:, :46] - frame[:, :38, 4:]).abs().mean() > 0.02
    assert torch.equal(once[:, :2], reference[:, :2]) and torch.equal(once[:, :, 46:], reference[:, :, 46:])     # outside the frame


def test_a_flow_goes_before_the_homography_and_counts_pixels_of_the_reference():
    x, y = np.meshgrid(np.arange(90.0), np.arange(70.0))
    picture = lambda x, y: torch.from_numpy(np.stack([0.4 + 0.004 * x, 0.3 + 0.005 * y, 0.2 + 0.002 * (x + y)])).float()
    W = homography(70, 90, (2.0, -1.0), turn=3.0, zoom=1.05, tilt=(0.02, 0.01))
    u = np.stack([3 + 0.02 * y, -2 - 0.03 * x])
    X, Y, scale = np.einsum("ij,jhw->ihw", W, np.stack([x + u[0], y + u[1], np.ones_like(x)]))
    found = warp(picture(x, y), W, torch.zeros(3, 70, 90), 0.0, torch.from_numpy(u).float())
    inner = slice(15, -15), slice(15, -15)
    assert (found - picture(X / scale, Y / scale))[:, inner[0], inner[1]].abs().max() < 4e-4      # torch's bicubic is off by 0.04 pixels on a plane


@pytest.mark.parametrize("height, width, short, long", MOTIONS)
def test_known_homographies_are_recovered_to_a_fifth_of_a_pixel(height, width, short, long):
    true = [homography(height, width, **short), np.eye(3), homography(height, width, **long)]
    ldr = bracket(height, width, true[0], true[2])
    registered, found = register(ldr, EV)
    assert found.dtype == torch.float64 and torch.equal(found[1], torch.eye(3, dtype=torch.float64))
    assert registered.shape == ldr.shape and registered.dtype == torch.float32 and torch.equal(registered[1], ldr[1])
    assert max(corner_error(found[i], true[i], height, width) for i in (0, 2)) < 0.2


def test_noise_and_a_large_object_that_moves_cost_less_than_half_a_pixel():
    height, width = 240, 320
    true = [homography(height, width, (11.0, -6.0), 1.2, 0.995, (0.01, 0.0)), np.eye(3), homography(height, width, (-8.0, 9.0), -0.7)]
    ldr = bracket(height, width, true[0], true[2], noise=0.05)
    thing = radiance(120, 97, seed=5)       # 15 % of the image
    for i, (top, left) in enumerate([(20, 10), (60, 60), (110, 120)]):
        ldr[i, :, top:top + 120, left:left + 97] = photograph(thing, EV[i], 0.05, seed=10 + i)
    _, found = register(ldr, EV)
    assert max(corner_error(found[i], true[i], height, width) for i in (0, 2)) < 0.5


def test_a_wrong_response_curve_and_a_wrong_exposure_do_no_harm():
    height, width = 200, 300
    true = [homography(height, width, (5.0, 3.0), 1.0), np.eye(3), homography(height, width, (-6.0, 2.0), -1.0)]
    ldr = bracket(height, width, true[0], true[2]) ** 1.15      # gamma 1.91
    _, found = register(ldr, EV + torch.tensor([0.15, 0.0, -0.1]))
    assert max(corner_error(found[i], true[i], height, width) for i in (0, 2)) < 0.3


def test_levels_left_out_for_their_size_do_not_shift_the_result(monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 30_000)      # 401 x 531 pixels, then 200 x 265, then 100 x 132, which is the finest used
    true = homography(401, 531, (23.0, -11.0), 1.0)
    found = estimate(photograph(radiance(401, 531), 2), photograph(radiance(401, 531, true), 0), 2.0)
    assert corner_error(found, true, 401, 531) < 0.4


def test_a_frame_that_did_not_move_is_left_bit_for_bit():
    for noise in (0.0, 0.05):
        ldr = bracket(180, 240, homography(180, 240, (0.1, -0.1)), None, noise)
        registered, found = register(ldr, EV)
        assert torch.equal(registered, ldr) and torch.equal(found, torch.eye(3, dtype=torch.float64).repeat(3, 1, 1))
        assert registered.data_ptr() != ldr.data_ptr()


def test_only_the_frame_that_moved_is_warped():
    ldr = bracket(180, 240, None, homography(180, 240, (5.0, 0.0)))
    registered, found = register(ldr, EV)
    assert torch.equal(registered[0], ldr[0]) and not torch.equal(registered[2], ldr[2])
    assert corner_error(found[2], homography(180, 240, (5.0, 0.0)), 180, 240) < 0.2


@pytest.mark.parametrize("kind", ["flat", "black", "white", "noise", "black and white"])
def test_where_there_is_nothing_to_see_nothing_is_done(kind):
    generator = torch.Generator().manual_seed(0)
    ldr = {"flat": torch.full((3, 3, 130, 170), 0.4), "black": torch.zeros(3, 3, 130, 170), "white": torch.ones(3, 3, 130, 170),
           "noise": (0.5 + 0.1 * torch.randn(3, 3, 130, 170, generator=generator)).clamp(0, 1),
           "black and white": torch.stack([torch.zeros(3, 130, 170), photograph(radiance(130, 170), 2), torch.ones(3, 130, 170)])}[kind]
    registered, found = register(ldr, EV)
    assert torch.equal(registered, ldr) and torch.equal(found, torch.eye(3, dtype=torch.float64).repeat(3, 1, 1))


def test_an_image_that_shows_something_in_one_place_only_is_aligned_there():
    height, width, true = 240, 320, homography(240, 320, (6.0, -4.0))
    y, x = np.mgrid[:height, :width]
    views = []
    for W in (np.eye(3), true):
        X, Y = x - W[0, 2], y - W[1, 2]
        inside = (abs(X - 150) < 40) & (abs(Y - 120) < 40)      # 8 % of the image, the rest is saturated
        views.append(np.where(inside, scene(X.astype(np.float32), Y.astype(np.float32)) * 0.5, 2.0))
    found = estimate(photograph(views[0], 2), photograph(views[1], 0), 2.0)
    assert np.allclose((found @ [150, 120, 1])[:2] / (found @ [150, 120, 1])[2], [156, 116], atol=0.1)


def test_a_motion_is_believed_only_if_it_fits_better_than_its_opposite():
    R = normalise(photograph(radiance(120, 160), 2).mean(dim=0).numpy())
    F = normalise(photograph(radiance(120, 160, homography(120, 160, (2.0, 0.0))), 2).mean(dim=0).numpy())
    assert believable(R, F, homography(120, 160, (2.0, 0.0)))
    assert not believable(R, F, homography(120, 160, (-2.0, 0.0)))
    assert not believable(R, R, np.eye(3))
    assert not believable(R, R, homography(120, 160, (2.0, 0.0)))       # alike enough, but no better than the opposite motion


def dark_and_noisy(seed):
    """Makes a static bracket of a dark, smooth scene, noisy and in 8 bits, (3, 3, 320, 480)."""
    y, x = np.mgrid[:320, :480].astype(np.float32) / 4
    hdr, rng = scene(x, y, seed) / 400, np.random.default_rng(seed)
    noisy = [light + rng.standard_normal(light.shape) * np.sqrt(6e-5 * light + 4e-7) for light in (hdr * 2.0 ** float(ev) for ev in EV)]
    return torch.from_numpy(np.stack([np.rint(light.clip(0, 1) ** (1 / 2.2) * 255) / 255 for light in noisy])).float()


def test_noise_alone_moves_no_frame():
    for seed in range(6):
        ldr = dark_and_noisy(seed)
        assert torch.equal(register(ldr, EV)[0], ldr)


def test_a_motion_that_no_hand_makes_is_not_believed(monkeypatch):
    reference, frame = photograph(radiance(120, 160), 2), photograph(radiance(120, 160, homography(120, 160, (8.0, 0.0))), 2)
    assert estimate(reference, frame, 0.0) is not None
    monkeypatch.setattr(module, "FAR", 0.04)        # 6.4 pixels
    assert estimate(reference, frame, 0.0) is None


def test_frames_of_another_scene_are_left_alone():
    reference = photograph(radiance(200, 300), 2)
    for seed in range(1, 7):
        assert estimate(reference, photograph(radiance(200, 300, seed=seed), 0), 2.0) is None
        assert estimate(reference, photograph(radiance(200, 300, seed=seed), 4), -2.0) is None


def test_a_tiny_image_is_left_alone():
    ldr = bracket(40, 300, homography(40, 300, (4.0, 0.0)), None)
    assert torch.equal(register(ldr, EV)[0], ldr)


def test_the_registered_frame_is_what_the_reference_camera_would_have_taken():
    height, width = 200, 300
    true = homography(height, width, (7.3, -4.6), 1.5)
    ldr = bracket(height, width, true, None)
    registered, _ = register(ldr, EV)
    exact, inner = photograph(radiance(height, width), 0), (slice(None), slice(20, -20), slice(20, -20))
    before, after = ((frame[inner] - exact[inner]).abs().mean() for frame in (ldr[0], registered[0]))
    assert after < 0.003 and before > 10 * after
    truth = T(torch.from_numpy(radiance(height, width)).clamp(max=1))[inner]
    merged = [((T(weighted_merge(frames[None], EV[None])[0])[inner] - truth) ** 2).mean() for frames in (ldr, registered)]
    assert -10 * math.log10(merged[1]) > -10 * math.log10(merged[0]) + 10


def test_pixels_from_outside_show_the_reference_at_the_frames_exposure():
    reference, frame = torch.full((3, 70, 90), 0.5), torch.full((3, 70, 90), 0.9)
    reference[:, :, :20] = 1.0
    for stops, of_half, of_one in ((2.0, 0.5 / 4 ** (1 / 2.2), 1 / 4 ** (1 / 2.2)), (-2.0, min(0.5 * 4 ** (1 / 2.2), 1), 1.0)):
        warped = warp(frame, homography(70, 90, (-15.0, 0.0)), reference, stops)        # x goes to x - 15: the first 15 columns are outside
        assert torch.allclose(warped[:, :, :15], torch.tensor(max(of_one, 0.9)), atol=1e-6)     # saturated: at least as bright as the frame's rim
        assert torch.allclose(warped[:, :, 16:], torch.tensor(0.9), atol=1e-6)
        warped = warp(frame / 9, homography(70, 90, (-15.0, 0.0)), reference, stops)            # the rim is too dark to be the same
        assert torch.allclose(warped[:, :, :15], torch.tensor(of_one), atol=1e-6)
        warped = warp(frame, homography(70, 90, (0.0, 10.0)), reference, stops)         # the last 10 rows
        assert torch.allclose(warped[:, 60:, 20:], torch.tensor(of_half), atol=1e-6)
        assert torch.allclose(warped[:, :59], torch.tensor(0.9), atol=1e-6)


def test_saturated_areas_stay_saturated_and_nothing_leaves_the_range():
    frame = torch.rand(3, 100, 120, generator=torch.Generator().manual_seed(0)) * 0.3
    frame[:, 30:70, 40:90] = 1.0
    frame[0, 33, 44] = 0.0                  # beside it a cubic would swing
    frame[:, 80:90, 20:60] = 0.0
    W = homography(100, 120, (3.4, -2.7), 2.0)
    warped = warp(frame, W, frame, 2.0)
    assert warped.min() >= 0 and warped.max() <= 1
    y, x = np.mgrid[:100, :120]
    X, Y, _ = np.einsum("ij,jhw->ihw", W, np.stack([x, y, np.ones_like(x)]).astype(float))
    white = (X > 40.001) & (X < 88.999) & (Y > 30.001) & (Y < 68.999)
    assert white.sum() > 1500 and (warped[1][torch.from_numpy(white)] == 1).all()


def test_a_shift_by_whole_pixels_copies_them_across_all_strips():
    frame = torch.rand(3, 1100, 1200, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1     # three strips
    warped = warp(frame, homography(1100, 1200, (3.0, -2.0)), torch.zeros_like(frame), 0.0)
    assert (warped[:, 3:, :-4] - frame[:, 1:-2, 3:-1]).abs().max() < 0.01     # 1200 pixels in float32: 1e-4 of a pixel
    assert (warped[:, :2] == 0).all() and (warped[:, :, -3:] == 0).all()


def test_a_warp_in_one_strip_is_the_warp_in_many_strips_and_threads(monkeypatch):
    frame, u = torch.rand(3, 64, 48), 6 * torch.randn(2, 64, 48, generator=torch.Generator().manual_seed(0))
    W, whole = homography(64, 48, (2.4, -1.3), 3.0, tilt=(0.1, 0.0)), []
    for strip in (64 * 48, 10 * 48):
        monkeypatch.setattr(module, "STRIP", strip)
        whole.append(warp(frame, W, frame.flip(2), 1.0, u))
    assert torch.equal(*whole)


def test_a_frame_warped_by_opencv_comes_back():
    true = homography(220, 310, (9.0, 4.0), -1.0, 1.005, (0.0, 0.015))
    reference = photograph(radiance(220, 310), 2)
    warped = cv2.warpPerspective(reference.permute(1, 2, 0).numpy(), true, (310, 220), flags=cv2.INTER_CUBIC,
                                 borderMode=cv2.BORDER_REPLICATE)
    found = estimate(reference, torch.from_numpy(warped).permute(2, 0, 1).clamp(0, 1), 0.0)
    assert corner_error(found, true, 220, 310) < 0.2


def test_the_warp_agrees_with_opencv():
    frame, W = photograph(radiance(150, 200), 2), homography(150, 200, (6.4, -3.3), 2.0, 1.01, (0.02, 0.01))
    ours = warp(frame, W, torch.full_like(frame, 0.5), 0.0)
    theirs = cv2.warpPerspective(frame.permute(1, 2, 0).numpy(), W, (200, 150), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
                                 borderMode=cv2.BORDER_REPLICATE)
    inner = (slice(None), slice(15, -15), slice(15, -15))
    assert (ours - torch.from_numpy(theirs).permute(2, 0, 1).clamp(0, 1))[inner].abs().max() < 0.02     # OpenCV rounds positions to 1/32 pixel


def test_it_agrees_with_opencvs_ecc():
    ldr = bracket(220, 300, homography(220, 300, (4.0, -3.0), 0.8, tilt=(0.01, 0.0)), None, noise=0.01)
    brightened = (ldr[0] * 4 ** (1 / 2.2)).clamp(max=1).mean(dim=0).numpy()
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-7)
    start, kind = np.eye(3, dtype=np.float32), cv2.MOTION_HOMOGRAPHY
    _, theirs = cv2.findTransformECC(ldr[1].mean(dim=0).numpy(), brightened, start, kind, criteria, None, 5)
    assert corner_error(estimate(ldr[1], ldr[0], 2.0), theirs, 220, 300) < 0.25


def test_coordinates_by_hand():
    small = module.shrunk(np.arange(35, dtype=np.float32).reshape(5, 7), 2)         # the last row and column are left out
    assert np.allclose(small, [[4, 6, 8], [18, 20, 22]])
    W = np.array([[1, 0, 3.0], [0.5, 1, -2.0], [0, 0, 1]])
    large = module.enlarged_by(2, W) @ [2 * 5 + 0.5, 2 * 4 + 0.5, 1]                # (5, 4) small is (10.5, 8.5) large, and goes to (8, 4.5)
    assert np.allclose(large, [2 * 8 + 0.5, 2 * 4.5 + 0.5, 1]) and np.allclose(module.enlarged_by(1 / 2, module.enlarged_by(2, W)), W)
    assert np.allclose(pixel_units(6, 8) @ [1, -0.5, 1], [7.5, 0.5, 1])
    assert corner_motion(homography(11, 21, (3.0, 4.0)), 11, 21) == pytest.approx(5)
    assert corner_motion(homography(11, 21, zoom=2.0), 11, 21) == pytest.approx(math.hypot(10, 5))
    assert corner_motion(homography(11, 21, tilt=(-3.0, 0.0)), 11, 21) == math.inf


def test_the_motion_is_told_in_words():
    told = in_words(homography(101, 201, (5.0, -2.0), 1.5), 101, 201)
    assert "shifted by +5.0, -2.0 pixels" in told and "turned by +1.50 degrees" in told
    assert "left alone" in in_words(torch.eye(3), 101, 201)


def test_another_shape_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"register: found ldr \(1, 3, 3, 80, 80\)"):
        register(torch.zeros(1, 3, 3, 80, 80), EV)
    with pytest.raises(ValueError, match="2 exposures"):
        register(torch.zeros(3, 3, 80, 80), EV[:2])
