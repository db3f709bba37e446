"""Synthetic brackets: reproducible, physically consistent, and with the statistics of photographs."""

import math

import numpy as np
import pytest
import torch

import synthetic
import textures
import world
from images import write_image
from synthetic import SyntheticBrackets, SyntheticConfig

NOISE_FREE = {"full_well": math.inf, "read_noise": (0.0, 0.0), "sensor_bits": (0,), "output_bits": (0,)}
STILL = {"static_camera": 1.0, "static_scene": 1.0}


@pytest.fixture(scope="module")
def hundred():
    """A hundred brackets as training sees them."""
    dataset = SyntheticBrackets(128, seed=11)
    return [dataset[index] for index in range(100)]


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ("ldr", "ev", "hdr"))


def radiance(item):
    """H_i = L_i^2.2 / 2^ev_i, (3, 3, H, W)."""
    return item["ldr"] ** 2.2 / 2 ** item["ev"][:, None, None, None]


# --- reproducible -----------------------------------------------------------------------------------------------------


def test_the_same_index_gives_the_same_bits_in_any_order_and_in_spawned_workers():
    dataset = SyntheticBrackets(48, seed=3, length=8)
    backwards = {index: dataset[index] for index in reversed(range(8))}
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    count = 0
    for index, item in enumerate(loader):
        assert same(item, backwards[index])
        count += 1
    assert count == 8


def test_the_number_of_threads_does_not_change_a_bit():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = SyntheticBrackets(160, seed=4)[7]
        torch.set_num_threads(3)
        assert same(one, SyntheticBrackets(160, seed=4)[7])
    finally:
        torch.set_num_threads(threads)


def test_other_seeds_and_other_indices_give_other_brackets():
    items = [SyntheticBrackets(32, seed=seed)[index] for seed in (0, 1) for index in (0, 1, 10**9)]
    for i, a in enumerate(items):
        for b in items[:i]:
            assert not torch.equal(a["hdr"], b["hdr"])


def test_a_loop_over_the_data_set_ends_though_any_index_works():
    dataset = SyntheticBrackets(16, length=3)
    assert len(dataset) == 3 and len(list(dataset)) == 3
    assert dataset[12345]["hdr"].shape == (3, 16, 16)
    with pytest.raises(IndexError, match="-1"):
        dataset[-1]


# --- form -------------------------------------------------------------------------------------------------------------


def test_samples_have_the_promised_shapes_types_and_ranges(hundred):
    for item in hundred[:20] + [SyntheticBrackets((40, 72))[0]]:
        h, w = item["hdr"].shape[1:]
        assert item["ldr"].shape == (3, 3, h, w) and item["ev"].shape == (3,)
        for value in item.values():
            assert value.dtype == torch.float32 and torch.isfinite(value).all()
        for key in ("ldr", "hdr"):
            assert item[key].min() >= 0 and item[key].max() <= 1
    assert (h, w) == (40, 72)


def test_exposures_are_two_or_three_stops_apart(hundred):
    steps = {tuple(item["ev"].tolist()) for item in hundred}
    assert steps == {(0.0, 2.0, 4.0), (0.0, 3.0, 6.0)}


def test_frames_are_quantised_to_the_configured_bits():
    item = SyntheticBrackets(32, config=SyntheticConfig(output_bits=(8,)))[0]
    levels = item["ldr"] * 255
    assert (levels - levels.round()).abs().max() < 1e-4  # float32 spacing near 255 is 1.5e-5
    config = SyntheticConfig(sensor_bits=(4,), output_bits=(0,))
    levels = SyntheticBrackets(32, config=config)[0]["ldr"] ** 2.2 * 15
    assert (levels - levels.round()).abs().max() < 1e-4


# --- physics ----------------------------------------------------------------------------------------------------------


def test_truth_is_the_noise_free_reference_within_half_a_quantisation_step():
    for bits, bound in ((8, 2.2 * 0.5 / 255), (16, 2.2 * 0.5 / 65535), (0, 0.0)):
        dataset = SyntheticBrackets(64, seed=5, config=SyntheticConfig(**{**NOISE_FREE, "output_bits": (bits,)}))
        for index in range(4):
            item = dataset[index]
            open_pixels = item["ldr"][1] < 1
            error = (radiance(item)[1] - item["hdr"]).abs()[open_pixels] * 2 ** item["ev"][1]
            assert open_pixels.any() and error.max() <= bound + 3e-6  # dL^2.2 <= 2.2 dL; float32 power


def test_where_the_reference_is_saturated_the_truth_goes_on_above_its_white(hundred):
    beyond = 0
    for item in hundred:
        white = item["ldr"][1].amin(0) >= 1
        level = item["hdr"].amax(0)[white] * 2 ** item["ev"][1]
        beyond += int((level > 1.3).sum())
    assert beyond > 0.008 * 100 * 128 * 128  # of all pixels; in white ones, those of all three channels, about 3 %


def test_without_motion_and_noise_the_three_frames_agree_where_unsaturated():
    dataset = SyntheticBrackets(64, seed=6, config=SyntheticConfig(**NOISE_FREE, **STILL))
    for index in range(6):
        item = dataset[index]
        open_pixels = (item["ldr"] < 1).all(0)
        hdr = radiance(item)
        for frame in (0, 2):
            gap = (hdr[frame] - hdr[1]).abs()[open_pixels]
            assert gap.numel() == 0 or gap.max() < 3e-6  # float32 powers of values up to 1


def test_camera_and_objects_each_make_the_frames_differ():
    for still in ({"static_camera": 1.0, "static_scene": 0.0}, {"static_camera": 0.0, "static_scene": 1.0}):
        dataset = SyntheticBrackets(64, seed=7, config=SyntheticConfig(**NOISE_FREE, **still))
        moved = 0
        for index in range(12):
            item = dataset[index]
            open_pixels = (item["ldr"] < 1).all(0)
            hdr = radiance(item)
            moved += bool(((hdr[0] - hdr[1]).abs()[open_pixels] > 1e-3).any())
        assert moved >= 8


def test_a_camera_shift_moves_picture_and_objects_by_the_same_pixels():
    canvas = np.full((3, 61, 61), -3.0, np.float32)
    canvas[:, 30, 30] = 2.0  # one bright point in the middle
    for dx, dy in ((0, 0), (5, -7)):
        seen = synthetic.look(canvas, (dx, dy, 0.0, 0.0), (30.0, 30.0), 41, 41)
        y, x = np.unravel_index(seen[0].argmax(), seen[0].shape)
        assert (x, y) == (20 + dx, 20 + dy)
        assert seen[0, y, x] == pytest.approx(math.exp(2.0), rel=1e-4)
        frame = np.zeros((3, 41, 41), np.float32)
        world.stamp(frame, np.ones((3, 5, 5), np.float32), np.pad([[np.float32(1)]], 2), [(20 + dx, 20 + dy, 0.0, 0.0, 0.0)])
        mass = frame[0].sum()
        assert (frame[0].sum(0) @ np.arange(41) / mass) == pytest.approx(20 + dx, abs=0.51)  # a pixel's centre or its edge
        assert (frame[0].sum(1) @ np.arange(41) / mass) == pytest.approx(20 + dy, abs=0.51)


def test_an_object_that_stands_still_moves_with_the_camera():
    frames = np.ones((3, 3, 80, 90), np.float32)
    poses = np.array([[5, -3, 0, 0], [0, 0, 0, 0], [-4, 2, 0, 0]], float)
    config = SyntheticConfig(static_scene=0.0, object_motion=(1e-9, 1e-9), object_rotation=0.0, object_deformation=0.0, motion_blur=0.0)
    synthetic.add_objects(np.random.default_rng(4), frames, poses, 80, world.draw_object, config)
    inner = frames[1][:, 20:60, 20:70]
    assert np.ptp(inner) > 0.1
    assert np.abs(frames[0][:, 20 - 3:60 - 3, 20 + 5:70 + 5] - inner).max() < 1e-3
    assert np.abs(frames[2][:, 20 + 2:60 + 2, 20 - 4:70 - 4] - inner).max() < 1e-3


def test_a_rotated_camera_turns_the_picture_about_its_centre():
    canvas = np.full((3, 81, 81), -3.0, np.float32)
    canvas[:, 40, 60] = 2.0  # 20 pixels right of the centre
    seen = synthetic.look(canvas, (0.0, 0.0, math.pi / 2, 0.0), (40.0, 40.0), 61, 61)
    y, x = np.unravel_index(seen[0].argmax(), seen[0].shape)
    assert (x - 30, y - 30) in ((0, 20), (0, -20))


def test_an_opaque_object_hides_and_a_half_transparent_one_mixes():
    for opacity in (1.0, 0.5):
        frame = np.full((3, 32, 32), 8.0, np.float32)
        cut_out, alpha = np.full((3, 12, 12), 2.0, np.float32), np.full((12, 12), opacity, np.float32)
        world.stamp(frame, cut_out, alpha, [(16.0, 16.0, 0.0, 0.0, 0.0)])
        assert frame[:, 16, 16] == pytest.approx(2.0 * opacity + 8.0 * (1 - opacity))
        assert (frame[:, :8] == 8.0).all() and (frame[:, :, :8] == 8.0).all()


def develop(level, iso=400.0, read_noise=20.0, correlated=False):
    """A grey card through the sensor: linear values (256, 1024), and the electrons of its white level."""
    config = SyntheticConfig()
    card = np.full((256, 1024), level, np.float32)
    out = synthetic.sensor(np.random.default_rng(1), card, iso, read_noise, 0, 0, correlated, config)
    return np.float64(out) ** 2.2, config.full_well * 100 / iso


def test_noise_variance_is_shot_noise_plus_read_noise():
    for level in (0.05, 0.2, 0.5, 0.8):
        out, electrons = develop(level)
        expected = level / electrons + (20.0 / electrons) ** 2
        assert out.var() == pytest.approx(expected, rel=5 * math.sqrt(2 / out.size))  # five deviations of a sample variance
        assert out.mean() == pytest.approx(level, abs=5 * math.sqrt(expected / out.size) + 1e-6)


def test_two_stops_more_light_halve_the_relative_shot_noise():
    noise = [np.std(develop(level, read_noise=0.0)[0]) / level for level in (0.1, 0.4)]
    assert noise[0] / noise[1] == pytest.approx(2.0, rel=0.02)


def test_correlated_noise_keeps_its_variance():
    plain, smooth = develop(0.4)[0], develop(0.4, correlated=True)[0]
    assert smooth.var() == pytest.approx(plain.var(), rel=0.02)
    neighbours = np.corrcoef(smooth[:, 1:].ravel(), smooth[:, :-1].ravel())[0, 1]
    assert neighbours == pytest.approx(0.25 / 1.125, abs=0.01)  # weights 1, 1/4, 1/4 on independent draws


def test_lens_blur_is_the_gaussian_it_says_and_keeps_the_light():
    point = np.zeros((3, 15, 15), np.float32)
    point[:, 7, 7] = 1.0
    out = synthetic.blur(point, 0.7)
    line = np.exp(-0.5 * (np.arange(-2, 3) / 0.7) ** 2)
    line /= line.sum()
    assert np.abs(out[0, 5:10, 5:10] - np.outer(line, line)).max() < 1e-6
    assert out[0].sum() == pytest.approx(1.0, abs=1e-5)


def test_veiling_glare_spreads_light_evenly_to_all_sides_and_makes_none():
    grey = np.full((3, 3, 64, 96), 0.3, np.float32)
    assert np.abs(synthetic.veiling_glare(grey, 0.2) - 0.3).max() < 1e-6
    lamp = np.zeros((3, 3, 160, 192), np.float32)
    lamp[..., 76:84, 92:100] = 1.0  # in the very middle, far from the edges, where none is lost
    out = synthetic.veiling_glare(lamp, 0.2)
    assert out[0, 0, 80, 96] > 0.8 and 0 < out[0, 0, 68, 88] < 0.1
    assert np.abs(out - out[..., ::-1]).max() < 1e-6 and np.abs(out - out[..., ::-1, :]).max() < 1e-6
    assert out.sum() == pytest.approx(lamp.sum(), rel=1e-3)


# --- statistics -------------------------------------------------------------------------------------------------------


def test_three_to_twentyfive_percent_of_the_reference_saturate_on_average(hundred):
    share = [(item["ldr"][1].amax(0) >= 1).float().mean().item() for item in hundred]
    assert 0.03 < np.mean(share) < 0.25
    assert min(share) < 0.001 and max(share) > 0.3  # a patch of a larger scene may have none, or much


def test_a_whole_scene_saturates_by_the_drawn_fraction():
    config = SyntheticConfig()
    rng = np.random.default_rng(0)
    ev = np.array([0, 3, 6], np.float32)
    for _ in range(20):
        frames = np.exp(2.0 * rng.standard_normal((3, 3, 64, 64))).astype(np.float32)
        share = (synthetic.expose(rng, frames, ev, 1.0, config)[1].max(0) >= 2.0**-3).mean()
        assert 0.03 - 1e-3 < share < 0.25 + 1e-3


def test_the_short_exposure_is_hardly_clipped(hundred):
    share = [(item["hdr"].amax(0) >= 1).float().mean().item() for item in hundred]
    assert np.mean(share) < 0.01 and max(share) < 0.1
    assert max(share) > 0  # but light sources are


def test_radiance_spans_orders_of_magnitude(hundred):
    values = torch.stack([item["hdr"].mean(0).flatten()[::7] for item in hundred]).flatten()
    low, high = np.quantile(values.numpy(), [0.001, 0.999])
    assert 1e3 < high / low < 1e6
    stops = [np.ptp(np.log2(np.quantile(item["hdr"].mean(0).numpy(), [0.001, 0.999]))) for item in hundred]
    assert 4 < np.median(stops) < 10


def test_power_falls_with_frequency_as_in_photographs(hundred):
    """Power ~ f^-a; a is 2 where edges rule, and lens blur adds to it near the highest frequencies.

    HDR panoramas seen through the same lens give 2.9 to 3.2.
    """
    window = np.hanning(128)[:, None] * np.hanning(128)
    power = np.zeros((128, 128))
    for item in hundred:
        log_radiance = np.log2(np.maximum(item["hdr"].mean(0).numpy(), 1e-5))
        power += np.abs(np.fft.fft2((log_radiance - log_radiance.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None, :])
    centres = 2.0 ** -np.arange(1.5, 6)
    bands = [power[(frequency > f / 1.19) & (frequency < f * 1.19)].mean() for f in centres]
    slopes = np.diff(np.log2(bands)) / np.diff(np.log2(centres))
    assert (slopes < -1.5).all() and (slopes > -5.5).all()  # no bump and no gap at any scale
    assert -3.7 < np.polyfit(np.log2(centres), np.log2(bands), 1)[0] < -2.3


def test_colours_are_mostly_weak_and_sometimes_vivid(hundred):
    ratio = torch.stack([(item["hdr"].amax(0) / item["hdr"].amin(0).clamp(min=1e-5)).flatten()[::7] for item in hundred])
    weak, vivid = (ratio < 3).float().mean(), (ratio > 4).float().mean()
    assert weak > 0.6 and 0.02 < vivid < 0.3


def test_some_brackets_move_something_before_the_saturated_part_of_the_reference():
    """The hard case: the reference is white, and the short frame shows something else there."""
    dataset = SyntheticBrackets(96, seed=8, config=SyntheticConfig(**NOISE_FREE, static_scene=0.0))
    hard = 0
    for index in range(30):
        item = dataset[index]
        white = item["ldr"][1].amin(0) >= 1
        gap = (radiance(item)[0] - item["hdr"]).abs().amax(0) * 2 ** item["ev"][1]
        hard += (gap[white] > 0.3).sum() > 30
    assert hard >= 8


def test_textures_are_periodic_and_normalised():
    for name, levels in textures.texture_bank().items():
        tile = levels[0][0, 0]
        assert torch.equal(tile[0], tile[-1]) and torch.equal(tile[:, 0], tile[:, -1]), name
        assert abs(tile.mean()) < 0.1 and 0.8 < tile.std() < 1.1, name  # clipped at three deviations
        halved = tile[:-1, :-1].reshape(256, 2, 256, 2).mean((1, 3))
        assert torch.allclose(levels[1][0, 0, :-1, :-1], halved, atol=1e-5), name


# --- folders of .hdr images -------------------------------------------------------------------------------------------


def directions(height):
    """A panorama whose radiance is 2 + its own direction (right, down, forward): (height, 2 height, 3)."""
    latitude = ((np.arange(height) + 0.5) / height - 0.5)[:, None] * math.pi
    longitude = ((np.arange(2 * height) + 0.5) / (2 * height))[None, :] * 2 * math.pi
    down = np.sin(latitude) + 0 * longitude
    return np.stack([2 + np.cos(latitude) * np.sin(longitude), 2 + down, 2 + np.cos(latitude) * np.cos(longitude)], -1).astype(np.float32)


def test_views_into_a_panorama_are_pinhole_pictures():
    """Angles between what two pixels show are those between the two rays of a pinhole camera, whichever way it looks."""
    panorama = np.moveaxis(directions(128), -1, 0)
    for seed in range(6):
        view, focal = synthetic.perspective(np.random.default_rng(seed), panorama, 30, 40)
        shown = view - 2
        shown = shown / np.linalg.norm(shown, axis=0)
        y, x = np.mgrid[:30, :40]
        rays = np.stack([(x - 19.5) / focal, (y - 14.5) / focal, np.ones((30, 40))])
        rays = rays / np.linalg.norm(rays, axis=0)
        for a, b in (((0, 0), (29, 39)), ((0, 39), (29, 0)), ((3, 5), (20, 8)), ((14, 0), (14, 39))):
            expected = rays[:, a[0], a[1]] @ rays[:, b[0], b[1]]
            assert shown[:, a[0], a[1]] @ shown[:, b[0], b[1]] == pytest.approx(expected, abs=0.01)  # bilinear, pixels of 1.4 degrees
        assert shown[1, 29].mean() > shown[1, 0].mean()  # down is down
        assert np.linalg.det(np.stack([shown[:, 15, 39] - shown[:, 15, 0], shown[:, 29, 20] - shown[:, 0, 20], shown[:, 15, 20]])) > 0
        assert focal <= 256 / (2 * math.pi) + 1e-6  # never finer than the panorama


def test_views_of_a_photograph_are_crops_of_it(tmp_path):
    photograph = np.zeros((120, 150, 3), np.float32)
    photograph[..., 0] = np.arange(150) + 100.0
    photograph[..., 1] = np.arange(120)[:, None] + 100.0
    photograph[..., 2] = 100.0
    path = tmp_path / "photograph.hdr"
    write_image(path, photograph)
    for seed in range(8):
        view, _ = synthetic.photographed_view(np.random.default_rng(seed), [(path, 120, 150)], 30, 40)
        step = np.diff(view[1].mean(1)).mean()
        assert abs(step - round(step)) < 0.05 and 1 <= round(step) <= 3  # 120 / 30 = 4 rows a pixel at most, 150 / 40 allows 3
        assert abs(abs(np.diff(view[0].mean(0)).mean()) - step) < 0.05
        assert view[1, 0, 0] >= 99.5 and view[0].max() <= 250.5


def test_a_folder_of_images_takes_the_place_of_the_world(tmp_path):
    (tmp_path / "below").mkdir()
    sky = np.full((100, 200, 3), 0.05, np.float32)
    sky[:50] = (0.5, 1.0, 4.0)
    write_image(tmp_path / "below" / "sky.hdr", sky)
    dataset = SyntheticBrackets(24, seed=2, hdr_dir=tmp_path, config=SyntheticConfig(**NOISE_FREE, **STILL))
    share = []
    for index in range(20):
        item = dataset[index]
        hdr = item["hdr"]
        assert item["ldr"].shape == (3, 3, 24, 24) and torch.isfinite(hdr).all()
        assert same(item, dataset[index])
        assert hdr[2, 0].mean() >= hdr[2, -1].mean() * 0.9  # the sky is above
        share.append((item["ldr"][1].amax(0) >= 1).float().mean())
    assert 0.02 < np.mean(share) < 0.5


def test_folders_that_cannot_serve_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no .hdr image"):
        SyntheticBrackets(64, hdr_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SyntheticBrackets(64, hdr_dir=tmp_path / "nowhere")
    write_image(tmp_path / "small.hdr", np.ones((50, 100, 3), np.float32))
    with pytest.raises(ValueError, match="too small for 64x64"):
        SyntheticBrackets(64, hdr_dir=tmp_path)
    (tmp_path / "broken.hdr").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="broken.hdr"):
        SyntheticBrackets(64, hdr_dir=tmp_path)
    with pytest.raises(ValueError, match="16 pixels"):
        SyntheticBrackets(8)


def test_the_contact_sheet_has_five_pictures_a_row():
    sheet = synthetic.contact_sheet(SyntheticBrackets((24, 32)), 2)
    assert sheet.dtype == np.uint8 and sheet.shape == (2 * 24, 5 * 32, 3)
