"""The camera of the synthetic brackets: where it looks, what its sensor adds, what its files keep."""

import math

import imagecodecs
import numpy as np
import pytest

from synthetic import camera, objects, world
from synthetic.dataset import SyntheticConfig


def shifted(dx, dy):
    """The pose of a camera whose picture has moved by (dx, dy) pixels."""
    return np.array([[1.0, 0.0, -dx], [0.0, 1.0, -dy], [0.0, 0.0, 1.0]])


def brightest(image):
    """Returns x, y of the largest value."""
    y, x = np.unravel_index(image.argmax(), image.shape)
    return int(x), int(y)


# --- motion -----------------------------------------------------------------------------------------------------------


def test_a_camera_shift_moves_picture_and_objects_by_the_same_pixels():
    canvas = np.full((3, 61, 61), -3.0, np.float32)
    canvas[:, 30, 30] = 2.0  # one bright point in the middle
    for dx, dy in ((0, 0), (5, -7)):
        seen = camera.look(canvas, shifted(dx, dy), (30.0, 30.0), 41, 41)
        assert brightest(seen[0]) == (20 + dx, 20 + dy)
        assert seen[0].max() == pytest.approx(math.exp(2.0), rel=1e-4)
        x, y, *rest = objects.seen_by(shifted(dx, dy), (20.0, 20.0, 0.0, 0.0, 0.0), 41, 41)
        assert (x, y) == pytest.approx((20 + dx, 20 + dy))
        frame = np.zeros((3, 41, 41), np.float32)
        world.stamp(frame, np.ones((3, 5, 5), np.float32), np.pad([[np.float32(1)]], 2), [(x, y, *rest)])
        mass = frame[0].sum()
        assert (frame[0].sum(0) @ np.arange(41) / mass) == pytest.approx(20 + dx, abs=0.51)  # a pixel's centre or its edge
        assert (frame[0].sum(1) @ np.arange(41) / mass) == pytest.approx(20 + dy, abs=0.51)


def test_a_rotated_camera_turns_the_picture_about_its_centre_and_objects_with_it():
    canvas = np.full((3, 81, 81), -3.0, np.float32)
    canvas[:, 40, 60] = 2.0  # 20 pixels right of the centre
    pose = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # a quarter turn
    x, y = brightest(camera.look(canvas, pose, (40.0, 40.0), 61, 61)[0])
    assert (x - 30, y - 30) == (0, -20)
    u, v, angle, _, _ = objects.seen_by(pose, (50.0, 30.0, 0.25, 0.0, 0.0), 61, 61)
    assert (u, v) == pytest.approx((30, 10)) and angle == pytest.approx(0.25 - math.pi / 2)


def test_a_still_object_is_seen_where_the_homography_shows_its_place():
    height, width = 101, 121
    for seed in range(12):
        pose = camera.camera_poses(np.random.default_rng(seed), height, width, SyntheticConfig(static_camera=0.0))[2]
        canvas = np.full((3, 181, 201), -3.0, np.float32)
        canvas[:, 90 - 20, 100 + 30] = 2.0
        at = 60 + 30, 50 - 20
        x, y, *_ = objects.seen_by(pose, (*at, 0.0, 0.0, 0.0), height, width)
        seen = brightest(camera.look(canvas, pose, (100.0, 90.0), height, width)[0])
        assert abs(seen[0] - x) <= 0.6 and abs(seen[1] - y) <= 0.6


def test_of_a_steady_camera_no_corner_moves_more_than_it_may():
    moved = [camera.displacement(pose, 128, 160) for seed in range(200)
             for pose in camera.camera_poses(np.random.default_rng(seed), 128, 160, SyntheticConfig(static_camera=0.0, steady=1.0, steady_shift=2.0))[[0, 2]]]
    assert 1.5 < max(moved) <= 2.0 and np.median(moved) > 0.5


def test_no_corner_moves_more_than_thirty_pixels_and_most_move_little():
    for height, width in ((128, 128), (256, 384)):
        corners = np.array([[x, y, 1.0] for x in (-0.5, 0.5) for y in (-0.5, 0.5)]) * (width - 1, height - 1, 1)
        moved = []
        for seed in range(200):
            poses = camera.camera_poses(np.random.default_rng(seed), height, width, SyntheticConfig(static_camera=0.0, steady=0.0))
            assert (poses[1] == np.eye(3)).all()
            for pose in poses[[0, 2]]:
                there = corners @ pose.T
                moved.append(np.hypot(*(there[:, :2] / there[:, 2:] - corners[:, :2]).T).max())
                assert abs(pose[2, :2]).max() > 0  # a perspective change, not only a similarity
        assert max(moved) <= 30.0 + 1e-9 and max(moved) > 28
        assert 3 < np.median(moved) < 12
        assert np.mean(np.array(moved) > 20) > 0.05


def test_the_camera_stands_still_as_often_as_configured():
    rng, config = np.random.default_rng(0), SyntheticConfig(static_camera=0.15)
    still = [(camera.camera_poses(rng, 64, 64, config) == np.eye(3)).all() for _ in range(1000)]
    assert np.mean(still) == pytest.approx(0.15, abs=4 * math.sqrt(0.15 * 0.85 / 1000))


# --- lens and exposure ------------------------------------------------------------------------------------------------


def test_lens_blur_is_the_gaussian_it_says_and_keeps_the_light():
    point = np.zeros((3, 15, 15), np.float32)
    point[:, 7, 7] = 1.0
    out = camera.blur(point, 0.7)
    line = np.exp(-0.5 * (np.arange(-2, 3) / 0.7) ** 2)
    line /= line.sum()
    assert np.abs(out[0, 5:10, 5:10] - np.outer(line, line)).max() < 1e-6
    assert out[0].sum() == pytest.approx(1.0, abs=1e-5)


def test_veiling_glare_spreads_light_evenly_to_all_sides_and_makes_none():
    grey = np.full((3, 3, 64, 96), 0.3, np.float32)
    assert np.abs(camera.veiling_glare(grey, 0.2) - 0.3).max() < 1e-6
    lamp = np.zeros((3, 3, 160, 192), np.float32)
    lamp[..., 76:84, 92:100] = 1.0  # in the very middle, far from the edges, where none is lost
    out = camera.veiling_glare(lamp, 0.2)
    assert out[0, 0, 80, 96] > 0.8 and 0 < out[0, 0, 68, 88] < 0.1
    assert np.abs(out - out[..., ::-1]).max() < 1e-6 and np.abs(out - out[..., ::-1, :]).max() < 1e-6
    assert out.sum() == pytest.approx(lamp.sum(), rel=1e-3)


def test_a_whole_scene_saturates_by_the_drawn_fraction():
    config = SyntheticConfig()
    rng = np.random.default_rng(0)
    ev = np.array([0, 3, 6], np.float32)
    shares = []
    for _ in range(30):
        frames = np.exp(2.0 * rng.standard_normal((3, 3, 64, 64))).astype(np.float32)
        shares.append((camera.expose(rng, frames, ev, 1.0, config)[1].max(0) >= 2.0**-3).mean())
    assert min(shares) < 0.05 and 0.5 < max(shares) < 0.6 + 1e-3


# --- sensor -----------------------------------------------------------------------------------------------------------


def develop(level, iso=400.0, read_noise=20.0, gains=(1.0, 1.0, 1.0), correlated=False):
    """Puts a grey card through the sensor. Returns: linear values (3, 256, 512), and the electrons of the sensor's white level."""
    card = np.full((3, 256, 512), level, np.float32)
    out = camera.sensor(np.random.default_rng(1), card, iso, read_noise, 0, gains, correlated, 30000.0)
    return np.float64(out), 30000.0 * 100 / iso


def test_noise_variance_is_shot_noise_plus_read_noise():
    for level in (0.05, 0.2, 0.5, 0.8):
        out, electrons = develop(level)
        expected = level / electrons + (20.0 / electrons) ** 2
        assert out.var() == pytest.approx(expected, rel=5 * math.sqrt(2 / out.size))  # five deviations of a sample variance
        assert out.mean() == pytest.approx(level, abs=5 * math.sqrt(expected / out.size) + 1e-6)


def test_white_balance_amplifies_the_noise_of_its_channel_and_not_its_level():
    gains = (2.0, 1.0, 1.5)
    out, electrons = develop(0.3, gains=gains)
    for channel, gain in zip(out, gains):
        expected = gain * 0.3 / electrons + (gain * 20.0 / electrons) ** 2  # fewer electrons make the same level
        assert channel.var() == pytest.approx(expected, rel=5 * math.sqrt(2 / channel.size))
        assert channel.mean() == pytest.approx(0.3, abs=5 * math.sqrt(expected / channel.size) + 1e-6)


def test_what_is_far_above_white_is_exactly_white_in_every_channel_whatever_the_noise():
    out, _ = develop(40.0, iso=6400.0, gains=(2.4, 1.0, 1.7))
    assert (out == 1).all()
    at_white = develop(1.0, iso=6400.0)[0]
    assert 0.4 < (at_white < 1).mean() < 0.6  # on the edge, noise decides


def test_two_stops_more_light_halve_the_relative_shot_noise():
    noise = [np.std(develop(level, read_noise=0.0)[0]) / level for level in (0.1, 0.4)]
    assert noise[0] / noise[1] == pytest.approx(2.0, rel=0.02)


def test_correlated_noise_keeps_its_variance():
    plain, smooth = develop(0.4)[0], develop(0.4, correlated=True)[0]
    assert smooth.var() == pytest.approx(plain.var(), rel=0.02)
    neighbours = np.corrcoef(smooth[..., 1:].ravel(), smooth[..., :-1].ravel())[0, 1]
    assert neighbours == pytest.approx(0.25 / 1.125, abs=0.01)  # weights 1, 1/4, 1/4 on independent draws


# --- curve and file ---------------------------------------------------------------------------------------------------


def test_response_curves_have_the_values_of_their_standards():
    x = np.array([0.0, 0.001, 0.18, 0.5, 1.0], np.float32)
    assert camera.respond(x, 2.2) == pytest.approx([0, 0.04329, 0.45865, 0.72974, 1], abs=2e-5)  # x^(1/2.2)
    assert camera.respond(x, 0.0) == pytest.approx([0, 0.01292, 0.46136, 0.73536, 1], abs=2e-5)  # IEC 61966-2-1


def test_response_curves_can_be_undone():
    x = np.linspace(0, 1, 1001, dtype=np.float32)
    for gamma in (1.9, 2.2, 2.5):
        assert np.abs(camera.respond(x, gamma) ** gamma - x).max() < 1e-6
    coded = camera.respond(x, 0.0)
    assert (np.diff(coded) > 0).all()
    assert np.abs(np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4) - x).max() < 1e-5


def test_curves_are_drawn_by_their_shares():
    rng, config = np.random.default_rng(0), SyntheticConfig(response=(0.75, 0.1, 0.0), response_spread=0.04)
    drawn = np.array([camera.draw_response(rng, config) for _ in range(4000)])
    assert (drawn == 2.2).mean() == pytest.approx(0.75, abs=0.03) and (drawn == 0).mean() == pytest.approx(0.1, abs=0.02)
    other = np.log(drawn[(drawn != 2.2) & (drawn != 0)] / 2.2)
    assert other.std() == pytest.approx(0.04, rel=0.15) and abs(other.mean()) < 0.01


def test_a_jpeg_file_is_what_another_codec_reads_of_it(monkeypatch):
    rng = np.random.default_rng(3)
    picture = np.clip(0.5 + 0.2 * np.cumsum(rng.standard_normal((3, 40, 48)), -1) / 5, 0, 1).astype(np.float32)
    seen = []
    save = camera.Image.Image.save

    def watched(image, file, *args, **options):
        save(image, file, *args, **options)
        seen.append((np.asarray(image), file.getvalue()))

    monkeypatch.setattr(camera.Image.Image, "save", watched)
    out = camera.jpeg(picture, 80, "4:2:0", 5, 11)
    pixels, data = seen[0]
    top, left = pixels.shape[0] - 40, pixels.shape[1] - 48
    assert 0 <= top < 16 and 0 <= left < 16
    assert np.abs(pixels[top:, left:].transpose(2, 0, 1) / 255 - picture).max() <= 0.5 / 255 + 1e-6
    other = imagecodecs.jpeg8_decode(data)[top:, left:].transpose(2, 0, 1)
    assert np.abs(out * 255 - other).max() <= 2.01  # decoders may round and smooth colours differently


def test_jpeg_loses_more_at_low_quality_and_colours_where_they_are_subsampled():
    rng = np.random.default_rng(5)
    noise = rng.random((3, 64, 64)).astype(np.float32)
    error = [np.abs(camera.jpeg(noise, quality, "4:4:4") - noise).mean() for quality in (70, 98)]
    assert error[0] > 2 * error[1] > 2 * 0.25 / 255
    stripes = np.full((3, 64, 64), 0.5, np.float32)
    stripes[0, :, ::2], stripes[0, :, 1::2] = 0.7, 0.3
    files = [camera.jpeg(stripes, 95, subsampling, 3)[:, 16:48, 16:48] for subsampling in ("4:4:4", "4:2:0")]
    kept = [(red - green).std() for red, green, _ in files]  # 0.2 in the picture
    assert kept[0] > 0.15 and kept[1] < 0.03


def card(config, seed, level=0.05, size=16):
    """Photographs a grey card three times, 2 stops apart. Returns: ldr (3, 3, size, size), bits, stops of the misstatement."""
    frames = np.full((3, 3, size, size), level, np.float32)
    return camera.photograph(np.random.default_rng(seed), frames, np.array([0, 2, 4], np.float32), config)


QUIET = {"full_well": math.inf, "read_noise": (0.0, 0.0), "sensor_bits": (0,), "output_bits": (0,), "white_balance": (1.0, 1.0),
         "response": (1.0, 0.0, 0.0), "misstated": 0.0, "clipped_early": 0.0, "raised_black": 0.0}


def test_exposure_steps_are_a_little_off_and_the_reference_never_is():
    steps = []
    for seed in range(400):
        ldr, _, _ = card(SyntheticConfig(**QUIET, ev_error=0.03), seed)
        stops = np.log2(np.float64(ldr[:, 0, 0, 0]) ** 2.2)
        assert stops[1] == pytest.approx(math.log2(0.05) + 2, abs=1e-5)
        steps += [*np.diff(stops)]
    assert np.mean(steps) == pytest.approx(2.0, abs=0.01) and np.std(steps) == pytest.approx(0.03, rel=0.15)


def test_all_frames_of_a_bracket_share_the_curve():
    config = SyntheticConfig(**{**QUIET, "response": (0.0, 0.0, 0.0)}, ev_error=0.0)
    for seed in range(5):
        ldr, _, _ = card(config, seed)
        gamma = np.log([0.05, 0.2, 0.8]) / np.log(np.float64(ldr[:, 0, 0, 0]))
        assert gamma == pytest.approx(gamma[0], rel=1e-5) and abs(gamma[0] - 2.2) > 1e-4


def test_a_part_of_the_eight_bit_files_are_jpegs():
    base, changed = {"output_bits": (8,), "iso": (100.0, 100.0)}, 0
    for seed in range(60):
        plain, with_jpeg = (card(SyntheticConfig(**base, jpeg=share), seed) for share in (0.0, 0.5))
        assert plain[1] == with_jpeg[1] == 8
        difference = np.abs(plain[0] - with_jpeg[0])
        changed += difference.max() > 0
        assert difference.mean() < 0.02
    assert 15 < changed < 45


def test_a_picture_style_rises_from_near_black_to_white_and_is_steeper_than_srgb_in_the_middle():
    for seed in range(20):
        light = camera.picture_style(np.random.default_rng(seed))
        assert (np.diff(light) > 0).all() and light[-1] == 1 and light[0] < 1e-3
        assert np.array_equal(camera.respond(light, light), camera.CODED.astype(np.float32))
        slope = np.diff(np.log(light))[2000] / np.diff(np.log(camera.CODED))[2000]
        assert 1.5 < slope < 6                                  # gamma 2.2 has 2.2 everywhere


def test_a_misstated_bracket_is_off_by_what_is_returned_and_its_reference_is_right():
    config, seen = SyntheticConfig(**{**QUIET, "misstated": 0.5}, ev_error=0.0, misstatement=0.3), []
    for seed in range(60):
        ldr, _, misstated = card(config, seed)
        stops = np.log2(np.float64(ldr[:, 0, 0, 0]) ** 2.2) - math.log2(0.05)
        assert stops[:2] == pytest.approx([-misstated, 2], abs=1e-5) and abs(stops[2] - 4) <= 0.3 + 1e-5
        seen.append(misstated)
    assert 15 < np.count_nonzero(seen) < 45 and 0.25 < np.abs(seen).max() <= 0.3


def test_files_may_saturate_below_white_and_have_a_raised_black():
    early = [card(SyntheticConfig(**{**QUIET, "clipped_early": 1.0}, clip_codes=(240, 243)), seed, level=1.0)[0] for seed in range(40)]
    assert {round(float(ldr.max()) * 255, 3) for ldr in early} == {240, 241, 242, 243}
    black = [float(card(SyntheticConfig(**{**QUIET, "raised_black": 1.0}, black_level=0.01), seed, level=0.0)[0].max()) ** 2.2 for seed in range(40)]
    assert 0 < min(black) < 0.002 and 0.008 < max(black) <= 0.01 + 1e-6
