"""Synthetic brackets: reproducible, physically consistent, and with the statistics of photographs."""

import math

import numpy as np
import pytest
import torch

from brackets.files import write_image
from brackets.flow import follow_flow
from brackets.register import register
from data import T
from synthetic.camera import blur
from synthetic.dataset import AS_TAKEN, FIRST, SyntheticBrackets, SyntheticConfig, draw_exposures, strengthen, validation_set

EXACT = {"ev_error": 0.0, "white_balance": (1.0, 1.0), "response": (1.0, 0.0, 0.0), "jpeg": 0.0,
         "misstated": 0.0, "clipped_early": 0.0, "raised_black": 0.0}
NOISE_FREE = {"full_well": math.inf, "read_noise": (0.0, 0.0), "sensor_bits": (0,), "output_bits": (0,), **EXACT}
STILL = {"static_camera": 1.0, "static_scene": 1.0}


@pytest.fixture(scope="module")
def hundred():
    """A hundred brackets as training sees them."""
    dataset = SyntheticBrackets(128, seed=11)
    return [dataset[index] for index in range(100)]


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ("ldr", "ev", "hdr"))


def disagreement(item):
    """Returns the median difference in T between the radiance of short frame and reference, where neither is dark or saturated."""
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


def test_exposure_steps_cover_their_range_some_in_thirds_some_unequal(hundred):
    ev = np.array([item["ev"].tolist() for item in hundred])
    steps = np.diff(ev)
    assert (ev[:, 0] == 0).all() and steps.min() >= 0.7 - 1e-6 and steps.max() <= 4 + 1e-6
    assert steps.min() < 1.1 and steps.max() > 3.6 and 1.8 < np.median(steps) < 2.9
    thirds = (np.abs(3 * steps - np.rint(3 * steps)) < 1e-4).all(1)
    unequal = np.abs(steps[:, 0] - steps[:, 1]) > 1e-4
    assert 0.5 < thirds.mean() < 0.85 and 0.15 < unequal.mean() < 0.45


def test_steps_may_be_a_choice_as_in_kalantari_s_data():
    drawn = {tuple(draw_exposures(np.random.default_rng(seed), SyntheticConfig(**FIRST)).tolist()) for seed in range(20)}
    assert drawn == {(0.0, 2.0, 4.0), (0.0, 3.0, 6.0)}
    assert {tuple(item["ev"].tolist()) for item in validation_set(64, 8)} <= drawn


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


def test_the_truth_is_in_units_of_the_shortest_exposure_as_it_was_taken_where_that_is_misstated():
    dataset, steps = SyntheticBrackets(64, seed=6, config=SyntheticConfig(**{**NOISE_FREE, "misstated": 1.0}, **STILL, **AS_TAKEN)), []
    for index in range(6):
        item = dataset[index]
        open_pixels = (item["ldr"][0] < 1) & (item["hdr"] < 1)
        assert (item["ldr"][0] ** 2.2 - item["hdr"]).abs()[open_pixels].max() < 3e-6
        seen = open_pixels & (item["ldr"] > 0.05).all(0) & (item["ldr"] < 1).all(0)
        steps += (torch.diff(torch.log2(item["ldr"] ** 2.2), dim=0)[:, seen].median(dim=1)[0] - torch.diff(item["ev"])).tolist() if seen.any() else []
    assert len(steps) > 6 and 0.1 < max(abs(step) for step in steps) <= 0.3 + 1e-4


# --- statistics -------------------------------------------------------------------------------------------------------


def test_three_to_thirtyfive_percent_of_the_reference_saturate_on_average(hundred):
    share = [(item["ldr"][1].amax(0) >= 1).float().mean().item() for item in hundred]
    assert 0.03 < np.mean(share) < 0.35
    assert min(share) < 0.001 and max(share) > 0.3  # a patch of a larger scene may have none, or much


def test_the_short_exposure_is_hardly_clipped(hundred):
    share = [(item["hdr"].amax(0) >= 1).float().mean().item() for item in hundred]
    assert np.mean(share) < 0.025 and max(share) < 0.25
    assert max(share) > 0  # but light sources are


def test_validation_scenes_are_whole_photographs_of_which_the_drawn_fraction_saturates():
    share = [(item["hdr"].amax(0) >= 2.0 ** -item["ev"][1]).float().mean().item() for item in validation_set(64, 12)]
    assert 0.03 - 1e-3 < min(share) and max(share) < 0.6  # more than 0.35 only where large areas are of one brightness


def test_many_brackets_use_the_whole_range_of_radiance(hundred):
    """Saturated parts of the reference reach up to where the shortest exposure clips. Otherwise networks shy away from white."""
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


def test_stronger_colours_keep_their_mean_and_their_hue():
    log = np.log(np.float32([0.2, 0.1, 0.05]))[:, None, None]
    strong = strengthen(log, 1.5)
    assert np.exp(strong[:, 0, 0]) == pytest.approx([0.1 * 2**1.5, 0.1, 0.1 / 2**1.5])
    assert np.ptp(strengthen(log, 100.0)) == pytest.approx(4.6)  # no further than 10 from the mean


# --- brackets of images and renders -----------------------------------------------------------------------------------


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
    canvas = np.exp(8 * blur(blur(np.float32(np.random.default_rng(2).standard_normal((3, 180, 190))), 2.0), 2.0))
    (tmp_path / "train").mkdir()
    np.save(tmp_path / "train" / "0.npy", np.stack([canvas[:, y:y + 150, x:x + 150] for x, y in ((8, 3), (4, 6), (0, 12))]).astype(np.float16))
    raw, done = (SyntheticBrackets(96, rendered_dir=tmp_path, split="train", config=SyntheticConfig(
        mix=(0, 0, 1), rendered_camera=0.0, rendered_objects=0.0, **{**AS_TAKEN, "registered": share}))[0] for share in (0.0, 1.0))
    assert torch.equal(done["ldr"], register(raw["ldr"], raw["ev"])[0]) and not torch.equal(done["ldr"], raw["ldr"])
