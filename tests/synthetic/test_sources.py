"""Files as sources of synthetic brackets: views of panoramas and photographs, crops of renders, and who uses which file."""

import math

import numpy as np
import pytest

from brackets.files import write_image
from synthetic import sources
from synthetic.dataset import SOURCES, SyntheticBrackets, SyntheticConfig, validation_set
from synthetic.sources import in_validation


# --- folders of .hdr images -------------------------------------------------------------------------------------------


def directions(height):
    """Makes a panorama whose radiance is 2 + its own direction (right, down, forward): (height, 2 height, 3)."""
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
        assert abs(step - round(step)) < 0.05 and 1 <= round(step) <= 3  # 120 / 30 = 4 rows per pixel at most, 150 / 40 allows 3
        assert abs(abs(np.diff(view[0].mean(0)).mean()) - step) < 0.05
        assert view[1, 0, 0] >= 99.5 and view[0].max() <= 250.5


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
    with pytest.raises(FileNotFoundError, match="synthetic.rendered"):
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


# --- training and validation ------------------------------------------------------------------------------------------


def test_the_split_depends_on_the_name_alone_and_keeps_numbered_pictures_together():
    assert in_validation("chinese_garden_1k.hdr") and not in_validation("venice_sunset_1k.hdr")  # crc32 of the name: 0 and 2 mod 5
    assert in_validation("a/b/chinese_garden_4k.exr") and in_validation("12_chinese_garden_k.hdr") == in_validation("_chinese_garden_k")
    names = ["".join(letters) for letters in np.random.default_rng(0).choice(list("abcdefghij"), (4000, 6))]
    assert np.mean([in_validation(name) for name in names]) == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 4000))
    assert all(in_validation(name) == in_validation(f"{name[:3]}07{name[3:]}9") for name in names[:100])


def test_a_render_that_is_damaged_or_not_finite_is_named_and_never_used(tmp_path):
    (tmp_path / "train").mkdir()
    path, frames = tmp_path / "train" / "0.npy", np.full((3, 3, 100, 100), 0.5, np.float16)
    np.save(path, frames)
    whole = path.read_bytes()
    for content in (b"", whole[:60], whole[:-1], b"hello", b"PK\3\4" + whole):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"0\.npy: damaged \(.*\); copy it again"):
            sources.find_renders(tmp_path, 20, 20)
    frames[1, 1, 50, 50] = np.nan
    np.save(path, frames)
    assert np.isfinite(sources.read_render(path, (..., slice(50), slice(50)))).all()
    with pytest.raises(ValueError, match=r"0\.npy: holds values that are not finite; remove it"):
        sources.rendered_world(np.random.default_rng(0), 100, 100, (path, 100, 100))


def test_a_folder_that_is_not_there_is_no_empty_folder(tmp_path):
    (tmp_path / "file").touch()
    for find in (lambda folder: sources.find_images(folder, 20, 20), lambda folder: sources.find_renders(folder, 20, 20, "val")):
        with pytest.raises(FileNotFoundError, match="nothing: no such folder; "):
            find(tmp_path / "nothing")
        with pytest.raises(FileNotFoundError, match="file: a file, not a folder; "):
            find(tmp_path / "file")


def test_a_name_that_is_not_utf_8_has_its_split():
    assert in_validation("\udcff.hdr") == in_validation("\udcff1.hdr")


def test_no_file_serves_both_training_and_validation(folders, monkeypatch):
    opened = {"train": set(), "val": set()}
    read, load = sources.read_image, sources.read_array
    for split, paths in opened.items():
        sources._decoded.clear()
        dataset = SyntheticBrackets(32, split=split, config=SyntheticConfig(static_scene=0.0, rendered_objects=1.0), **folders)
        monkeypatch.setattr(sources, "read_image", lambda path, paths=paths: paths.add(path) or read(path))
        monkeypatch.setattr(sources, "read_array", lambda path, paths=paths: paths.add(path) or load(path))
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
    for name, share in zip(SOURCES, (0.3, 0.35, 0.35)):
        assert np.mean([source == name for source in drawn]) == pytest.approx(share, abs=0.045)  # four deviations
    without = SyntheticBrackets(32, split="train", hdr_dir=folders["hdr_dir"])
    assert np.mean([without.source(index)[0] == "procedural" for index in range(2000)]) == pytest.approx(0.3 / 0.65, abs=0.045)


def test_in_validation_the_sources_and_their_files_take_turns(folders):
    val = validation_set(32, 12, **folders)
    assert (val.split, len(val)) == ("val", 12)
    picked = [val.source(index)[:2] for index in range(12)]
    assert [name for name, _ in picked] == [*SOURCES] * 4
    images = [file[0] for name, file in picked if name == "photographed"]
    assert len(set(images)) == min(len(val.files["photographed"]), 4) > 1
    assert [file[0].stem for name, file in picked if name == "rendered"] == ["0000", "0001"] * 2
    assert val.name(1) == f"photographed_01_{images[0].stem}" and val.name(3) == "procedural_03"


def test_a_source_without_validation_files_leaves_its_turns_to_the_others(tmp_path):
    image = np.exp(np.random.default_rng(0).standard_normal((120, 130, 3))).astype(np.float32)
    write_image(tmp_path / "venice_sunset.hdr", image)
    assert [*validation_set(32, 4, tmp_path).shares] == ["procedural"]
    write_image(tmp_path / "chinese_garden_k.hdr", image)
    assert [*validation_set(32, 4, tmp_path).shares] == ["procedural", "photographed"]
    (tmp_path / "venice_sunset.hdr").unlink()
    with pytest.raises(ValueError, match="all 1 images put them into validation"):
        SyntheticBrackets(32, split="train", hdr_dir=tmp_path)
