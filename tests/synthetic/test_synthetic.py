"""Synthetic brackets: reproducible, physically consistent, and with the statistics of photographs."""

import math

import numpy as np
import pytest
import torch

from synthetic import camera
from synthetic import objects
from synthetic import sources
from synthetic import dataset as synthetic
from synthetic import textures
import training
from synthetic import world
from data import T, load_scene
from brackets.flow import align_frames, follow_flow
from brackets.files import write_image
from brackets.register import register
from synthetic.sources import in_validation
from synthetic.dataset import AS_TAKEN, SyntheticBrackets, SyntheticConfig
from training import TrainingConfig, open_data

EXACT = {"ev_error": 0.0, "white_balance": (1.0, 1.0), "response": (1.0, 0.0), "jpeg": 0.0}
NOISE_FREE = {"full_well": math.inf, "read_noise": (0.0, 0.0), "sensor_bits": (0,), "output_bits": (0,), **EXACT}
STILL = {"static_camera": 1.0, "static_scene": 1.0}


@pytest.fixture(scope="module")
def hundred():
    """A hundred brackets as training sees them."""
    dataset = SyntheticBrackets(128, seed=11)
    return [dataset[index] for index in range(100)]


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ("ldr", "ev", "hdr"))


def shifted(dx, dy):
    """The pose of a camera whose picture has moved by (dx, dy) pixels."""
    return np.array([[1.0, 0.0, -dx], [0.0, 1.0, -dy], [0.0, 0.0, 1.0]])


def disagreement(item):
    """Median difference of the short frame's and the reference's radiance in T, where neither is dark or saturated."""
    usable = ((item["ldr"][:2] > 0.1) & (item["ldr"][:2] < 0.95)).all(dim=0)
    H = T(radiance(item))
    return (H[0] - H[1])[usable].abs().median().item()


def radiance(item):
    """H_i = L_i^2.2 / 2^ev_i, (3, 3, H, W)."""
    return item["ldr"] ** 2.2 / 2 ** item["ev"][:, None, None, None]


# --- registered -------------------------------------------------------------------------------------------------------


def test_registered_frames_show_what_the_reference_shows_up_to_the_error_they_are_given():
    moving = {**AS_TAKEN, "static_camera": 0.0, "steady": 0.0, "static_scene": 1.0, "lens_blur": (0.7, 1.0), "shake": 0.0, **NOISE_FREE}
    found = []
    for index in range(8):
        configs = [SyntheticConfig(**{**moving, "registered": share, "residual": (error, error)}) for share, error in ((0.0, 1.0), (1.0, 2.0), (1.0, 1e-3))]
        items = [SyntheticBrackets(96, seed=5, config=config)[index] for config in configs]
        assert all(torch.equal(items[0]["ldr"][1], item["ldr"][1]) and torch.equal(items[0]["hdr"], item["hdr"]) for item in items)
        found.append([disagreement(item) for item in items])
    raw, coarse, exact = np.median(found, axis=0)
    assert raw > 4 * exact and raw > coarse > 2 * exact and max(row[2] for row in found) < 0.01


def test_a_still_camera_s_frames_are_registered_by_leaving_them_alone():
    raw, done = (SyntheticBrackets(64, seed=5, config=SyntheticConfig(**{**AS_TAKEN, "static_camera": 1.0, "registered": share}))[0] for share in (0.0, 1.0))
    assert same(raw, done)


def test_frames_are_followed_in_the_larger_image_that_the_patch_is_cut_out_of():
    def draw(size, followed, context):
        return SyntheticBrackets(size, seed=5, config=SyntheticConfig(patches=False, followed=followed, context=context))[1]
    whole, cut, raw = draw(96, 1.0, 0.0), draw(64, 1.0, 0.5), draw(96, 0.0, 0.0)
    assert torch.equal(whole["ldr"], follow_flow(raw["ldr"], raw["ev"])) and not torch.equal(whole["ldr"], raw["ldr"])
    places = [(y, x) for y in range(33) for x in range(33) if torch.equal(whole["hdr"][:, y:y + 64, x:x + 64], cut["hdr"])]
    assert len(places) == 1 and torch.equal(whole["ldr"][..., places[0][0]:places[0][0] + 64, places[0][1]:places[0][1] + 64], cut["ldr"])


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
        for config in (SyntheticConfig(**AS_TAKEN), SyntheticConfig(static_camera=0.0, registered=1.0, followed=1.0)):
            torch.set_num_threads(1)
            one = SyntheticBrackets(160, seed=4, config=config)[7]
            torch.set_num_threads(3)
            assert same(one, SyntheticBrackets(160, seed=4, config=config)[7])
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
    for bits in (8, 12):
        levels = SyntheticBrackets(32, config=SyntheticConfig(output_bits=(bits,), **AS_TAKEN))[0]["ldr"] * (2**bits - 1)
        assert (levels - levels.round()).abs().max() < 2e-6 * 2**bits  # float32 spacing at 1 is 1.2e-7
    config = SyntheticConfig(**{**EXACT, "sensor_bits": (4,), "output_bits": (0,), **AS_TAKEN})
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


def test_an_object_that_stands_still_moves_with_the_camera():
    frames = np.ones((3, 3, 80, 90), np.float32)
    poses = np.stack([shifted(5, -3), np.eye(3), shifted(-4, 2)])
    config = SyntheticConfig(static_scene=0.0, object_motion=(1e-9, 1e-9), object_rotation=0.0, object_deformation=0.0, motion_blur=0.0)
    objects.add_objects(np.random.default_rng(4), frames, poses, world.draw_object, config)
    inner = frames[1][:, 20:60, 20:70]
    assert np.ptp(inner) > 0.1
    assert np.abs(frames[0][:, 20 - 3:60 - 3, 20 + 5:70 + 5] - inner).max() < 1e-3
    assert np.abs(frames[2][:, 20 + 2:60 + 2, 20 - 4:70 - 4] - inner).max() < 1e-3


def test_an_opaque_object_hides_and_a_half_transparent_one_mixes():
    for opacity in (1.0, 0.5):
        frame = np.full((3, 32, 32), 8.0, np.float32)
        cut_out, alpha = np.full((3, 12, 12), 2.0, np.float32), np.full((12, 12), opacity, np.float32)
        world.stamp(frame, cut_out, alpha, [(16.0, 16.0, 0.0, 0.0, 0.0)])
        assert frame[:, 16, 16] == pytest.approx(2.0 * opacity + 8.0 * (1 - opacity))
        assert (frame[:, :8] == 8.0).all() and (frame[:, :, :8] == 8.0).all()


# --- statistics -------------------------------------------------------------------------------------------------------


def test_three_to_thirtyfive_percent_of_the_reference_saturate_on_average(hundred):
    share = [(item["ldr"][1].amax(0) >= 1).float().mean().item() for item in hundred]
    assert 0.03 < np.mean(share) < 0.35
    assert min(share) < 0.001 and max(share) > 0.3  # a patch of a larger scene may have none, or much


def test_the_short_exposure_is_hardly_clipped(hundred):
    share = [(item["hdr"].amax(0) >= 1).float().mean().item() for item in hundred]
    assert np.mean(share) < 0.025 and max(share) < 0.2
    assert max(share) > 0  # but light sources are


def test_validation_scenes_are_whole_photographs_of_which_the_drawn_fraction_saturates():
    share = [(item["hdr"].amax(0) >= 2.0 ** -item["ev"][1]).float().mean().item() for item in synthetic.validation_set(64, 12)]
    assert 0.03 - 1e-3 < min(share) and max(share) < 0.6  # more than 0.35 only where large areas are of one brightness


def test_many_brackets_use_the_whole_range_of_radiance(hundred):
    """Saturated parts of the reference reach up to where the shortest exposure clips: networks otherwise shy away from white."""
    bright = [((item["hdr"].amax(0) > 0.5).float().mean() > 0.02).item() for item in hundred]
    assert 0.3 < np.mean(bright) < 0.7


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


# --- motion of objects ------------------------------------------------------------------------------------------------


def test_objects_move_up_to_eighty_pixels_between_neighbouring_frames_and_pass_their_focus():
    config, steps = SyntheticConfig(), []
    for seed in range(600):
        path = np.array(objects.object_path(np.random.default_rng(seed), (50.0, 40.0), config))
        steps += [*np.hypot(*np.diff(path[:, :2], axis=0).T)]
        assert np.isclose(path[:, :2], (50.0, 40.0)).all(1).any()
    assert max(steps) <= 80 and max(steps) > 70 and min(steps) < 1
    assert 3 < np.median(steps) < 10  # log-uniform from 0.5 to 80, then 0.5 to 1 of it


def test_a_smeared_object_covers_its_share_of_the_way_and_stays_where_it_was():
    path = [(0.0, 0.0, 0.1, 0.2, 0.3), (30.0, -10.0, 0.0, 0.0, 0.0), (50.0, 20.0, 0.4, 0.5, 0.6)]
    x, y, *rest = np.array(objects.smeared(path, 2, 0.4)).T
    assert (np.ptp(x), np.ptp(y)) == pytest.approx((8, 12)) and (x.mean(), y.mean()) == pytest.approx((50, 20))
    assert [part.tolist() for part in rest] == [[0.4] * 15, [0.5] * 15, [0.6] * 15]     # 14.4 pixels


def test_motion_blur_smears_the_long_frame_and_sometimes_the_reference_never_the_short_one(monkeypatch):
    stamped = []
    monkeypatch.setattr(objects, "stamp", lambda frame, radiance, alpha, poses: stamped.append(len(poses)))
    config = SyntheticConfig(static_scene=0.0, motion_blur=1.0, middle_blur=0.5)
    for seed in range(40):
        frames = np.ones((3, 3, 32, 32), np.float32)
        objects.add_objects(np.random.default_rng(seed), frames, np.stack([np.eye(3)] * 3), world.draw_object, config)
    counts = np.array(stamped).reshape(-1, 3)
    assert (counts[:, 0] == 1).all() and (counts[:, 2] >= 4).all()
    assert 0.3 < (counts[:, 1] > 1).mean() < 0.7


def test_stronger_colours_keep_their_mean_and_their_hue():
    log = np.log(np.float32([0.2, 0.1, 0.05]))[:, None, None]
    strong = synthetic.strengthen(log, 1.5)
    assert np.exp(strong[:, 0, 0]) == pytest.approx([0.1 * 2**1.5, 0.1, 0.1 / 2**1.5])
    assert np.ptp(synthetic.strengthen(log, 100.0)) == pytest.approx(4.6)  # no further than 10 from the mean


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

    def averaged(level):
        return panorama.reshape(3, 128 >> level, 1 << level, 256 >> level, 1 << level).mean((2, 4))

    for seed in range(6):
        view, focal = sources.perspective(np.random.default_rng(seed), averaged, 30, 40)
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
        view, _ = sources.photographed_view(np.random.default_rng(seed), (path, 120, 150), 30, 40)
        step = np.diff(view[1].mean(1)).mean()
        assert abs(step - round(step)) < 0.05 and 1 <= round(step) <= 3  # 120 / 30 = 4 rows a pixel at most, 150 / 40 allows 3
        assert abs(abs(np.diff(view[0].mean(0)).mean()) - step) < 0.05
        assert view[1, 0, 0] >= 99.5 and view[0].max() <= 250.5


def test_a_folder_of_images_takes_the_place_of_the_world(tmp_path):
    (tmp_path / "below").mkdir()
    sky = np.full((128, 256, 3), 0.05, np.float32)
    sky[:64] = (0.5, 1.0, 4.0)
    write_image(tmp_path / "below" / "sky.hdr", sky)
    dataset = SyntheticBrackets(24, seed=2, hdr_dir=tmp_path, config=SyntheticConfig(mix=(0, 1, 0), **NOISE_FREE, **STILL))
    share = []
    for index in range(20):
        item = dataset[index]
        hdr = item["hdr"]
        assert item["ldr"].shape == (3, 3, 24, 24) and torch.isfinite(hdr).all()
        assert same(item, dataset[index])
        assert hdr[2, 0].mean() >= hdr[2, -1].mean() * 0.9  # the sky is above
        share.append((item["ldr"][1].amax(0) >= 1).float().mean())
    assert 0.02 < np.mean(share) < 0.6  # of a picture of two levels, the sky's half saturates as a whole


def test_folders_that_cannot_serve_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no .hdr image"):
        SyntheticBrackets(64, hdr_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SyntheticBrackets(64, hdr_dir=tmp_path / "nowhere")
    write_image(tmp_path / "small.hdr", np.ones((50, 100, 3), np.float32))
    with pytest.raises(ValueError, match="too small for views of 162x162"):
        SyntheticBrackets(64, hdr_dir=tmp_path)
    (tmp_path / "broken.hdr").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="broken.hdr"):
        SyntheticBrackets(64, hdr_dir=tmp_path)
    with pytest.raises(ValueError, match="16 pixels"):
        SyntheticBrackets(8)
    with pytest.raises(ValueError, match="split 'test'"):
        SyntheticBrackets(64, split="test")
    with pytest.raises(FileNotFoundError, match="render_scenes.py"):
        SyntheticBrackets(64, rendered_dir=tmp_path)
    (tmp_path / "train").mkdir()
    np.save(tmp_path / "train" / "0.npy", np.ones((3, 3, 40, 90), np.float16))
    with pytest.raises(ValueError, match="all smaller than 96x96"):
        SyntheticBrackets(64, rendered_dir=tmp_path)
    np.save(tmp_path / "train" / "1.npy", np.ones((3, 90, 90), np.float16))
    with pytest.raises(ValueError, match="1.npy"):
        SyntheticBrackets(64, rendered_dir=tmp_path)


# --- renders ----------------------------------------------------------------------------------------------------------


def test_a_rendered_view_is_one_crop_of_all_three_frames_mirrored_or_turned(tmp_path):
    render = np.ones((3, 3, 40, 60), np.float16)
    render[:, 0] += np.arange(40)[:, None]  # red counts rows, green columns, blue frames
    render[:, 1] += np.arange(60)
    render[:, 2] += np.arange(3)[:, None, None]
    np.save(tmp_path / "0.npy", render)
    seen = set()
    for seed in range(60):
        log, ratio = sources.rendered_world(np.random.default_rng(seed), 20, 30, (tmp_path / "0.npy", 40, 60), turn=0.5)
        view = np.exp(log)
        assert view.shape == (3, 3, 20, 30) and view.dtype == np.float32
        assert np.abs(view[:, 2] - np.arange(1, 4)[:, None, None]).max() < 1e-4
        assert (view[0, :2] == view[1, :2]).all() and (view[0, :2] == view[2, :2]).all()
        down, right = (np.diff(view[0, :2], axis=axis) for axis in (1, 2))
        down, right = (tuple(int(step) for step in np.rint(steps.mean((1, 2)))) for steps in (down, right))
        assert (abs(down[0]), abs(down[1])) == (abs(right[1]), abs(right[0])) and abs(down[0]) + abs(down[1]) == 1
        assert ratio == pytest.approx(40 / 20 if down[0] else 40 / 30)
        seen.add((down, right))
    assert len(seen) == 8  # four turns, each mirrored or not


def test_each_frame_of_a_rendered_bracket_shows_its_own_moment(tmp_path):
    render = np.exp(np.random.default_rng(1).standard_normal((1, 3, 48, 64))).repeat(3, 0)
    render[2] = 1.0  # a wall, in the last frame only
    (tmp_path / "train").mkdir()
    np.save(tmp_path / "train" / "0.npy", render.astype(np.float16))
    config = SyntheticConfig(mix=(0, 0, 1), rendered_camera=0.0, rendered_objects=0.0, **NOISE_FREE)
    dataset = SyntheticBrackets(32, rendered_dir=tmp_path, split="train", config=config)
    for index in range(4):
        hdr, short_and_middle = radiance(dataset[index]), dataset[index]["ldr"][:2]
        assert (hdr[0] - hdr[1]).abs()[(short_and_middle < 1).all(0)].max() < 3e-6
        assert hdr[2].std() < 0.2 * hdr[1].std()


def test_renders_move_by_themselves_and_are_registered_by_register(tmp_path):
    canvas = np.exp(8 * camera.blur(camera.blur(np.float32(np.random.default_rng(2).standard_normal((3, 180, 190))), 2.0), 2.0))
    (tmp_path / "train").mkdir()
    np.save(tmp_path / "train" / "0.npy", np.stack([canvas[:, y:y + 150, x:x + 150] for x, y in ((8, 3), (4, 6), (0, 12))]).astype(np.float16))
    raw, done = (SyntheticBrackets(96, rendered_dir=tmp_path, split="train", config=SyntheticConfig(
        mix=(0, 0, 1), rendered_camera=0.0, rendered_objects=0.0, **{**AS_TAKEN, "registered": share}))[0] for share in (0.0, 1.0))
    assert torch.equal(done["ldr"], register(raw["ldr"], raw["ev"])[0]) and not torch.equal(done["ldr"], raw["ldr"])


# --- training and validation ------------------------------------------------------------------------------------------


def test_the_split_depends_on_the_name_alone_and_keeps_numbered_pictures_together():
    assert in_validation("chinese_garden_1k.hdr") and not in_validation("venice_sunset_1k.hdr")  # crc32 of the name: 0 and 2 mod 5
    assert in_validation("a/b/chinese_garden_4k.exr") and in_validation("12_chinese_garden_k.hdr") == in_validation("_chinese_garden_k")
    names = ["".join(letters) for letters in np.random.default_rng(0).choice(list("abcdefghij"), (4000, 6))]
    assert np.mean([in_validation(name) for name in names]) == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 4000))
    assert all(in_validation(name) == in_validation(f"{name[:3]}07{name[3:]}9") for name in names[:100])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of twenty small .hdr images and one of six renders, as keywords of SyntheticBrackets."""
    folder, rng = tmp_path_factory.mktemp("sources"), np.random.default_rng(0)
    for k, letter in enumerate("abcdefghijklmnopqrst"):
        image = np.exp(rng.standard_normal((116, 116 + 2 * k, 3)))
        write_image(folder / "hdr" / f"picture_{letter}.hdr", image.astype(np.float32))
    for split, count in (("train", 4), ("val", 2)):
        (folder / "rendered" / split).mkdir(parents=True)
        for k in range(count):
            np.save(folder / "rendered" / split / f"{k:04d}.npy", np.exp(rng.standard_normal((3, 3, 48, 64))).astype(np.float16))
    return {"hdr_dir": folder / "hdr", "rendered_dir": folder / "rendered"}


def test_no_file_serves_both_training_and_validation(folders, monkeypatch):
    opened = {"train": set(), "val": set()}
    read, load = sources.read_image, np.load
    for split, paths in opened.items():
        sources._decoded.clear()
        dataset = SyntheticBrackets(32, split=split, config=SyntheticConfig(static_scene=0.0, rendered_objects=1.0), **folders)
        monkeypatch.setattr(sources, "read_image", lambda path, paths=paths: paths.add(path) or read(path))
        monkeypatch.setattr(sources.np, "load", lambda path, paths=paths, **options: paths.add(path) or load(path, **options))
        for index in range(60):
            dataset[index]  # cut-outs that move are taken from the images as well
        monkeypatch.undo()
        images = [path for path in paths if path.suffix == ".hdr"]
        assert images and all(in_validation(path) == (split == "val") for path in images)
        assert {path.parent.name for path in paths if path.suffix == ".npy"} == {split}
    every = SyntheticBrackets(32, **folders).files
    assert opened["train"] | opened["val"] == {file[0] for name in ("photographed", "rendered") for file in every[name]}
    assert len(every["photographed"]) == 20 and len(every["rendered"]) == 6


def test_training_mixes_the_sources_by_their_shares(folders):
    dataset = SyntheticBrackets(32, split="train", **folders)
    drawn = [dataset.source(index)[0] for index in range(2000)]
    for name, share in zip(synthetic.SOURCES, (0.3, 0.35, 0.35)):
        assert np.mean([source == name for source in drawn]) == pytest.approx(share, abs=0.045)  # four deviations
    without = SyntheticBrackets(32, split="train", hdr_dir=folders["hdr_dir"])
    assert np.mean([without.source(index)[0] == "procedural" for index in range(2000)]) == pytest.approx(0.3 / 0.65, abs=0.045)


def test_in_validation_the_sources_and_their_files_take_turns(folders):
    train, val = open_data(TrainingConfig(patch=32, val_size=32, val_scenes=12, **{name: str(path) for name, path in folders.items()}))
    assert (train.split, val.split, len(val)) == ("train", "val", 12)
    picked = [val.source(index)[:2] for index in range(12)]
    assert [name for name, _ in picked] == [*synthetic.SOURCES] * 4
    images = [file[0] for name, file in picked if name == "photographed"]
    assert len(set(images)) == min(len(val.files["photographed"]), 4) > 1
    assert [file[0].stem for name, file in picked if name == "rendered"] == ["0000", "0001"] * 2
    assert val.name(1) == f"photographed_01_{images[0].stem}" and val.name(3) == "procedural_03"


def test_training_brackets_are_aligned_unless_told_not_to():
    configs = [open_data(TrainingConfig(patch=32, align=align))[0].config for align in (True, False)]
    assert configs == [SyntheticConfig(), SyntheticConfig(**AS_TAKEN)] and configs[0].registered > 0.5 and configs[0].followed > 0.5


def test_frames_of_a_data_set_are_aligned_unless_told_not_to(monkeypatch):
    functions = []
    monkeypatch.setattr(training, "find_scenes", lambda *_: [])
    monkeypatch.setattr(training, "Patches", lambda *_, align: functions.append(align))
    for align in (True, False):
        open_data(TrainingConfig(data="kalantari", align=align))
    assert functions == [align_frames, None]


def test_exported_brackets_are_as_the_camera_gives_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["synthetic.py", "--export", str(tmp_path), "--count", "2", "--size", "48", "--split", "train", "--seed", "5"])
    synthetic.main()
    for index, folder in enumerate(sorted(tmp_path.iterdir())):
        expected = SyntheticBrackets(48, 5, 2, split="train", config=SyntheticConfig(**AS_TAKEN))[index]
        assert (load_scene(folder)["ldr"] - expected["ldr"]).abs().max() <= 0.5 / 65535 + 1e-6


def test_a_source_without_validation_files_leaves_its_turns_to_the_others(tmp_path):
    image = np.exp(np.random.default_rng(0).standard_normal((120, 130, 3))).astype(np.float32)
    write_image(tmp_path / "venice_sunset.hdr", image)
    assert [*synthetic.validation_set(32, 4, tmp_path).shares] == ["procedural"]
    write_image(tmp_path / "chinese_garden_k.hdr", image)
    assert [*synthetic.validation_set(32, 4, tmp_path).shares] == ["procedural", "photographed"]
    (tmp_path / "venice_sunset.hdr").unlink()
    with pytest.raises(ValueError, match="all 1 images fall to validation"):
        SyntheticBrackets(32, split="train", hdr_dir=tmp_path)


def test_exported_scenes_are_the_validation_scenes(folders, tmp_path):
    """As load_scene reads them: frames within half a step of the file, truth within the step of RGBE."""
    dataset = synthetic.validation_set((32, 48), 9, **folders)
    made, suffixes = synthetic.export(dataset, tmp_path), set()
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in made} and len(made) == 9
    for folder, item in zip(made, dataset):
        scene = load_scene(folder)
        suffix = next(folder.glob("1.*")).suffix
        suffixes.add(suffix)
        assert torch.equal(scene["ev"], item["ev"])
        assert (scene["ldr"] - item["ldr"]).abs().max() <= {".png": 1e-6, ".tif": 0.5 / 65535 + 1e-6}[suffix]
        assert ((scene["hdr"] - item["hdr"]).abs() <= item["hdr"].amax(0) / 255 + 1e-9).all()  # 1/256, and a little where 511.5 rounds up
    assert suffixes == {".png", ".tif"}


def test_the_contact_sheet_has_five_pictures_a_row():
    sheet = synthetic.contact_sheet(SyntheticBrackets((24, 32)), 2)
    assert sheet.dtype == np.uint8 and sheet.shape == (2 * 24, 5 * 32, 3)
