"""prepare.py: each step alone and all of them together, and scenes that are prepared once and kept."""

import math
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from brackets import prepare as module
from brackets.files import write_image
from brackets.flow import follow_flow
from brackets.light import Light, apply
from brackets.prepare import UNPREPARED, PrepareConfig, Prepared, cache_scenes, prepare, prepared_sample, registered_frames
from brackets.register import register
from brackets.scenes import load_scene
from data import Patches
from photographs import kalantari_scene, two_scenes
from synthetic.dataset import AS_TAKEN, FIRST, SyntheticBrackets, SyntheticConfig, export


def bracket_as_taken(size=128, seed=8):
    """Makes a bracket in which camera and objects moved, coded with another gamma, which light.py takes for other exposures."""
    sample = SyntheticBrackets(size, seed=seed, config=SyntheticConfig(static_camera=0.0, steady=0.0, static_scene=0.0, **FIRST, **AS_TAKEN))[0]
    return {**sample, "ldr": sample["ldr"] ** (2.2 / 3)}


# --- one bracket ------------------------------------------------------------------------------------------------------

def test_prepare_registers_recodes_and_follows_unless_told_not_to():
    sample = bracket_as_taken()
    ldr, ev = sample["ldr"], sample["ev"]
    registered, homographies = register(ldr, ev)
    recoded = prepare(ldr, ev, PrepareConfig(flow=False))
    once = follow_flow(ldr, ev, homographies)
    corrected, true_ev = apply(ldr, recoded.light)
    homographies_in_light = register(corrected, true_ev)[1]
    assert not torch.equal(homographies_in_light, homographies) and torch.equal(recoded.homographies, homographies_in_light)
    assert torch.equal(recoded.ev, true_ev) and (true_ev - ev).abs().max() > 0.3 and torch.equal(recoded.stated, ev)
    for flags, expected in (((), follow_flow(corrected, true_ev, homographies_in_light)), ((True, False), once), ((True, True, False), recoded.ldr),
                            ((True, False, False), registered), ((False, False, True), follow_flow(ldr, ev)), ((False, False, False), ldr)):
        assert torch.equal(prepare(ldr, ev, PrepareConfig(*flags)).ldr, expected)
    assert torch.equal(prepare(ldr, ev).ldr, prepare(ldr, ev, PrepareConfig()).ldr)
    assert torch.equal(registered_frames(ldr, ev, homographies_in_light, recoded.light), recoded.ldr)
    assert not torch.equal(registered, ldr) and not torch.equal(recoded.ldr, registered) and not torch.equal(once, registered)
    assert not torch.equal(once, follow_flow(registered, ev)) and torch.equal(once[1], ldr[1])


def test_a_bracket_is_still_where_neither_the_camera_nor_a_thing_moved():
    config = SyntheticConfig(static_camera=1.0, static_scene=1.0, shake=0.0, **{**FIRST, **AS_TAKEN, "iso": (100.0, 100.0)})
    ldr, ev = (SyntheticBrackets(128, seed=8, config=config)[0][name] for name in ("ldr", "ev"))
    prepared = prepare(ldr, ev)
    assert 0.001 < prepared.noise < 0.02 and prepared.in_words().endswith(f"; still, with {100 * prepared.noise:.1f} % of noise")
    moved = ldr.clone()
    moved[2, :, 50:60, 50:60] = moved[2, :, 70:80, 70:80]
    sample = bracket_as_taken()
    assert {prepare(*bracket).noise for bracket in ((moved, ev), (ldr, ev, UNPREPARED), (ldr, ev, PrepareConfig(flow=False)), (sample["ldr"], sample["ev"]))
            } == {math.inf}


def test_exposures_against_the_brightness_of_the_frames_are_reported_with_the_name_of_the_bracket():
    sample = {**bracket_as_taken(), "name": "harbour"}
    sample["ldr"] = sample["ldr"][[2, 1, 0]]
    cure = "correct the exposure file, or write exposure.txt$"
    with pytest.raises(ValueError, match="^holiday/harbour: frame 2 is darker than frame 1, .*; " + cure):
        prepare(sample["ldr"], sample["ev"], where="holiday/harbour")
    with pytest.raises(ValueError, match="^harbour: frame 2 is darker than frame 1, .*; " + cure):
        prepared_sample(sample)


def test_a_prepared_sample_keeps_what_is_not_a_frame():
    sample = {**bracket_as_taken(64), "name": "a"}
    prepared = prepared_sample(sample, PrepareConfig(register=False))
    assert set(prepared) == set(sample) and prepared["name"] == "a" and prepared["hdr"] is sample["hdr"] and torch.equal(prepared["ev"], sample["ev"])
    assert torch.equal(prepared["ldr"], prepare(sample["ldr"], sample["ev"], PrepareConfig(register=False)).ldr)
    assert prepared["ldr"] is not sample["ldr"] and prepared_sample(sample, UNPREPARED)["ldr"] is sample["ldr"]


def test_what_was_done_is_told_in_words():
    ldr, homographies = torch.zeros(3, 3, 40, 50), torch.eye(3).double().repeat(3, 1, 1)
    assert Prepared(ldr, torch.arange(3), homographies, None, torch.arange(3)).in_words() == "exposures +0, +1, +2 EV"
    homographies[2, :2, 2] = torch.tensor([3.0, -4.0])
    light = Light(torch.tensor([0, 1.1, 2.0]), np.zeros(13), 248 / 255, 0.0, np.zeros((3, 3)), 0.0)
    assert Prepared(ldr, light.ev, homographies, light, torch.arange(3)).in_words() == (
        "exposures +0, +1.1, +2 EV (stated +0, +1, +2); clips at 248 of 255; registered by 5.0 px")


def test_the_command_line_goes_before_the_settings_of_training():
    assert PrepareConfig().overridden() == PrepareConfig() and UNPREPARED.overridden() == UNPREPARED
    assert PrepareConfig().overridden(flow=False) == PrepareConfig(True, True, False)
    assert UNPREPARED.overridden(register=True, response=False) == PrepareConfig(True, False, False)
    assert UNPREPARED.overridden(response=True) == PrepareConfig(False, True, False)


def test_another_shape_is_refused_whatever_the_steps():
    for config in (None, UNPREPARED):
        with pytest.raises(ValueError, match="give one bracket"):
            prepare(torch.zeros(2, 3, 80, 80), torch.arange(3), config)


# --- scenes on the disk -----------------------------------------------------------------------------------------------

def patches_of(folders, cache, config=UNPREPARED, **settings):
    return Patches(cache_scenes(folders, cache, config=config), **settings)


def content(cache):
    return {file.name: file.read_bytes() for file in cache.iterdir()}


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ("ldr", "ev", "hdr"))


def test_74_scenes_of_1000x1500_give_the_22792_patches_of_the_paper(tmp_path):
    folder = kalantari_scene(tmp_path / "scene", truth=False)
    for k in (1, 2, 3):
        write_image(folder / f"262A000{k}.tif", np.full((1000, 1500, 3), k, np.uint16))
    write_image(folder / "HDRImg.hdr", np.ones((1000, 1500, 3), np.float32))
    patches = patches_of([folder] * 74, tmp_path / "cache")
    assert len(patches) == 22792 == 74 * ((1000 - 128) // 64 + 1) * ((1500 - 128) // 64 + 1)
    assert len(content(tmp_path / "cache")) == 2     # the pixels and the exposures, once
    assert patches[22791]["ldr"].shape == (3, 3, 128, 128)


def test_the_cache_is_used_until_a_file_of_the_scene_changes(tmp_path, monkeypatch):
    folder, cache = kalantari_scene(tmp_path / "s"), tmp_path / "cache"
    patches_of([folder], cache, patch=8)
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_scene", lambda *_: pytest.fail("decoded again"))
        patches_of([folder], cache, patch=8)
    write_image(folder / "262A0002.tif", np.full((24, 40, 3), 65535, np.uint16))
    assert (patches_of([folder], cache, patch=8)[0]["ldr"][1] == 1).all()
    (folder / "exposure.txt").write_text("0\n3\n6\n")
    assert patches_of([folder], cache, patch=8)[0]["ev"].tolist() == [0, 3, 6]


def test_prepared_frames_are_cached_in_16_bits_beside_the_frames_as_they_are(tmp_path, monkeypatch):
    folder, seen = kalantari_scene(tmp_path / "s"), []

    def darker(ldr, ev, config, where):
        seen.append((ldr, ev, config))
        return Prepared(torch.stack([ldr[1], ldr[1], 0.25 * ldr[2]]), ev, None, None, ev)
    plain = patches_of([folder], tmp_path / "cache", patch=24, augment=False)[0]
    monkeypatch.setattr(module, "prepare", darker)
    prepared = patches_of([folder], tmp_path / "cache", PrepareConfig(), patch=24, augment=False)[0]
    scene = load_scene(folder)
    assert len(seen) == 1 and torch.equal(seen[0][0], scene["ldr"]) and torch.equal(seen[0][1], scene["ev"]) and seen[0][2] == PrepareConfig()
    assert torch.equal(plain["ldr"], scene["ldr"][..., :24, :24]) and torch.equal(plain["hdr"], prepared["hdr"])
    expected = torch.stack([scene["ldr"][1], scene["ldr"][1], 0.25 * scene["ldr"][2]])[..., :24, :24]
    assert (prepared["ldr"] - expected).abs().max() <= 0.5 / 65535 + 1e-7
    assert len(content(tmp_path / "cache")) == 4
    (folder / "exposure.txt").write_text("0\n3\n6\n")
    cache_scenes([folder], tmp_path / "cache", config=PrepareConfig())
    assert len(seen) == 2 and seen[1][1].tolist() == [0, 3, 6]


def test_a_new_version_or_another_step_prepares_a_cached_scene_anew(tmp_path, monkeypatch):
    folder, files = kalantari_scene(tmp_path / "s"), set()
    for config in (UNPREPARED, PrepareConfig(), PrepareConfig(flow=False), PrepareConfig(response=False), PrepareConfig(register=False)):
        for version in (module.VERSION, module.VERSION + 1):
            with monkeypatch.context() as patch:
                patch.setattr(module, "VERSION", version)
                files.add(cache_scenes([folder], tmp_path / "cache", config=config)[0][0])
    assert len(files) == 10 and all(file.exists() for file in files)


def test_folders_of_one_name_are_different_scenes(tmp_path):
    first = kalantari_scene(tmp_path / "EXTRA" / "001")
    second = shutil.copytree(first, tmp_path / "PAPER" / "001")         # with the same sizes and times
    (a, _), (b, _) = cache_scenes([first, second], tmp_path / "cache")
    assert a != b and a.exists() and b.exists()


def test_whichever_of_a_scenes_two_files_is_lost_it_is_made_again(tmp_path):
    folder, cache = kalantari_scene(tmp_path / "s"), tmp_path / "cache"
    cache_scenes([folder], cache)
    whole = content(cache)
    for name in whole:
        (cache / name).unlink()
        cache_scenes([folder], cache)
        assert content(cache) == whole


def test_the_cache_keeps_tiny_radiance_exactly(tmp_path):
    folder = kalantari_scene(tmp_path / "s", truth=False)
    write_image(folder / "HDRImg.hdr", np.full((24, 40, 3), 2.0 ** -30, np.float32))  # 0 in half precision
    hdr = patches_of([folder], tmp_path / "cache", patch=8)[0]["hdr"]
    assert hdr.dtype == torch.float32 and (hdr.double() == 2.0 ** -30).all()


def test_the_cache_keeps_frames_of_different_bit_depths(tmp_path):
    folder = kalantari_scene(tmp_path / "s", size=(8, 8))
    write_image(folder / "262A0001.tif", np.full((8, 8, 3), 51, np.uint8))
    sample = patches_of([folder], tmp_path / "cache", patch=8, augment=False)[0]
    assert torch.equal(sample["ldr"], load_scene(folder)["ldr"]) and np.allclose(sample["ldr"][0], 0.2)


def test_processes_that_fill_one_cache_at_once_agree(tmp_path):
    folders = two_scenes(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        made = [*pool.map(lambda _: patches_of(folders, tmp_path / "cache", patch=8)[5], range(4))]
    assert all(same(made[0], m) for m in made) and len(content(tmp_path / "cache")) == 4


@pytest.mark.parametrize("dtype, white", [(np.uint8, 255), (np.uint16, 65535)])
def test_frames_come_out_of_the_cache_exactly_in_every_value(tmp_path, dtype, white):
    values = np.arange(256 * 256 * 3).reshape(256, 256, 3) % (white + 1)
    for k in range(3):
        write_image(tmp_path / "s" / f"{k}.png", np.roll(values, k, axis=1).astype(dtype))
    write_image(tmp_path / "s" / "HDRImg.hdr", np.ones((256, 256, 3), np.float32))
    (tmp_path / "s" / "exposure.txt").write_text("0 2 4")
    ldr = patches_of([tmp_path / "s"], tmp_path / "cache", patch=256, augment=False)[0]["ldr"]
    for k in range(3):
        expected = np.roll(values, k, axis=1).astype(np.float32) / np.float32(white)
        assert np.array_equal(ldr[k].permute(1, 2, 0).numpy(), expected)


def test_a_scene_without_truth_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no ground truth"):
        cache_scenes([kalantari_scene(tmp_path / "a", truth=False)], tmp_path / "cache")


def test_workers_write_what_one_process_writes_and_a_second_call_does_nothing(tmp_path, monkeypatch):
    taken = SyntheticBrackets(96, seed=3, length=3, config=SyntheticConfig(static_camera=0.0, steady=0.0, static_scene=0.0, **FIRST, **AS_TAKEN))
    folders, caches = export(taken, tmp_path / "scenes"), (tmp_path / "one", tmp_path / "two")
    pools, pool = [], module.ProcessPoolExecutor
    monkeypatch.setattr(module, "ProcessPoolExecutor", lambda count, *rest: pools.append(count) or pool(count, *rest))
    found = [cache_scenes(folders, cache, config=PrepareConfig(), workers=workers) for cache, workers in zip(caches, (0, 2))]
    assert pools == [2]
    assert content(caches[0]) == content(caches[1]) and len(content(caches[0])) == 6
    for (a, ev_a), (b, ev_b), folder in zip(*found, folders, strict=True):
        assert a.name == b.name and a.name.startswith(folder.name) and np.array_equal(ev_a, ev_b)
    for (prepared, _), (plain, _) in zip(found[0], cache_scenes(folders, tmp_path / "plain")):
        assert not np.array_equal(np.load(prepared)["ldr"], np.load(plain)["ldr"])
    monkeypatch.setattr(module, "load_scene", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr(module, "ProcessPoolExecutor", lambda *_: pytest.fail("workers were started"))
    again = cache_scenes(folders, caches[1], config=PrepareConfig(), workers=2)
    assert [file for file, _ in again] == [file for file, _ in found[1]]


def test_a_scene_that_fails_in_a_worker_is_one_line_in_the_parent(tmp_path):
    folders = two_scenes(tmp_path)
    (folders[1] / "262A0003.tif").write_bytes(b"II*\0\x08\0\0\0")
    with pytest.raises(ValueError, match="262A0003.tif: damaged.*; copy it again") as caught:
        cache_scenes(folders, tmp_path / "cache", workers=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rank, first", [(0, 0), (1, 1), (2, 2), (3, 3)])
def test_each_rank_begins_at_another_scene_and_goes_through_all(tmp_path, monkeypatch, rank, first):
    folders, fill, order = [kalantari_scene(tmp_path / str(k)) for k in range(4)], module._fill_cache, []
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(module, "_fill_cache", lambda file, folder, **settings: order.append(folder) or fill(file, folder, **settings))
    cached = cache_scenes(folders, tmp_path / "cache")
    assert order == folders[first:] + folders[:first] and [file.name[0] for file, _ in cached] == ["0", "1", "2", "3"]


def test_a_file_that_another_process_has_open_is_taken_as_it_is(tmp_path, monkeypatch):
    """As on Windows, which does not replace an open file."""
    folder, cache, write = kalantari_scene(tmp_path / "s"), tmp_path / "cache", module.write_atomically

    def refuse(path, _):
        raise PermissionError(path)
    monkeypatch.setattr(module, "write_atomically", refuse)
    with pytest.raises(PermissionError):
        cache_scenes([folder], cache)
    monkeypatch.setattr(module, "write_atomically", lambda path, save: write(path, save) or refuse(path, save))
    assert cache_scenes([folder], cache)[0][1].tolist() == [0, 2, 4]
