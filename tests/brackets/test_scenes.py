"""scenes.py: every layout, every order of frames and exposures, and what is said about a broken scene."""

import numpy as np
import pytest
import tifffile
import torch
from PIL.TiffImagePlugin import IFDRational

from brackets.choose import choose, load_three
from brackets.files import write_image
from brackets.scenes import find_bracket, find_scenes, load_scene, read_frames, scene_files
from photographs import frame, jpeg_bytes, kalantari_scene, linear_png, opencv, which


def test_kalantari_scene_keeps_all_16_bits_and_the_order_of_frames_and_channels(tmp_path):
    folder = kalantari_scene(tmp_path / "Test" / "PAPER" / "BarbequeDay")
    sample = load_scene(folder)
    assert set(sample) == {"ldr", "ev", "hdr", "name"} and sample["name"] == "BarbequeDay"
    assert sample["ldr"].shape == (3, 3, 24, 40) and sample["hdr"].shape == (3, 24, 40)
    assert all(sample[key].dtype == torch.float32 and sample[key].is_contiguous() for key in ("ldr", "ev", "hdr"))
    assert sample["ev"].tolist() == [0, 2, 4] and which(sample) == [1, 2, 3]
    for k in (1, 2, 3):
        expected = opencv(folder / f"262A000{k}.tif").transpose(2, 0, 1) / 65535
        assert np.abs(sample["ldr"][k - 1].numpy() - expected).max() < 1e-7
    assert np.array_equal(sample["hdr"].numpy(), opencv(folder / "HDRImg.hdr").transpose(2, 0, 1))


def test_exposures_that_do_not_rise_are_sorted_together_with_their_files(tmp_path):
    sample = load_scene(kalantari_scene(tmp_path / "s", ev="2.5\n-2\n0"))
    assert which(sample) == [2, 3, 1] and sample["ev"].tolist() == [0, 2, 4.5]


def test_truth_above_one_is_clipped_and_the_share_is_said_once(tmp_path, capsys):
    truth = np.full((24, 40, 3), 0.5, np.float32)
    truth[:6, :, 1] = 3
    write_image(kalantari_scene(tmp_path / "s", truth=False) / "HDRImg.hdr", truth)
    assert (load_scene(tmp_path / "s")["hdr"] == load_scene(tmp_path / "s")["hdr"].clamp(max=1)).all()
    assert capsys.readouterr().out == f"{tmp_path / 's' / 'HDRImg.hdr'}: 25 % of the pixels are above 1, up to 3; they are clipped, because white is 1\n"


def test_hu_scene_takes_the_input_images_alone(tmp_path):
    for k in (0, 1, 2):
        write_image(tmp_path / f"input_{k}_aligned.tif", frame(k + 1))
        write_image(tmp_path / f"ref_{k}_aligned.tif", frame(7))
    (tmp_path / "input_exp.txt").write_text("-2\n0\n2")
    write_image(tmp_path / "ref_hdr_aligned_linear.hdr", np.full((24, 40, 3), 0.5, np.float32))
    write_image(tmp_path / "ref_hdr_aligned.hdr", np.full((24, 40, 3), 0.25, np.float32))
    sample = load_scene(tmp_path)
    assert which(sample) == [1, 2, 3] and sample["ev"].tolist() == [0, 2, 4] and (sample["hdr"] == 0.5).all()


def test_sen_scene_takes_the_three_frames_in_the_middle_in_natural_order(tmp_path):
    for k in (1, 2, 3, 9, 10):
        write_image(tmp_path / f"img{k}.tif", frame(k))
    (tmp_path / "exposures.txt").write_text("-8\n-6.5\n-4\n-2\n0")
    sample = load_scene(tmp_path)
    assert which(sample) == [2, 3, 9] and sample["ev"].tolist() == [0, 2.5, 4.5] and "hdr" not in sample


@pytest.mark.parametrize("suffix", ["tif", "tiff", "TIFF", "png"])
def test_a_suffix_changes_nothing_about_exposure_txt(tmp_path, suffix):
    """It holds stops, as in the README. Times need a unit or the layout, because as numbers they look like stops."""
    for k in (1, 2, 3):
        write_image(tmp_path / f"{k}.{suffix}", frame(k))
    for text, stops in (("-2\n0\n+2\n", [0, 2, 4]), ("1\n3\n5\n", [0, 2, 4]), ("1\n4\n16\n", [0, 3, 15]), ("1s\n4s\n16s\n", [0, 2, 4])):
        (tmp_path / "exposure.txt").write_text(text)
        assert load_scene(tmp_path)["ev"].tolist() == stops
    (tmp_path / "exposure.txt").write_text("1\n4\n16")
    assert load_scene(tmp_path, layout="tursun")["ev"].tolist() == [0, 2, 4]


def test_numbers_that_can_be_no_stops_are_seconds_and_a_line_says_so(tmp_path, capsys):
    kalantari_scene(tmp_path, ev="0.004\n0.016\n0.064")
    assert np.allclose(load_scene(tmp_path)["ev"], [0, 2, 4], atol=1e-5)
    assert capsys.readouterr().out == f"{tmp_path / 'exposure.txt'}: the numbers differ by less than 0.1, so they are seconds and not stops\n"
    (tmp_path / "exposure.txt").write_text("1/250 1/60 1/15")
    assert np.allclose(load_scene(tmp_path)["ev"], np.log2([1, 250 / 60, 250 / 15]), atol=1e-5)


def photographs(folder, *exposures):
    """Makes JPEGs 1.jpg, 2.jpg, ... whose grey is 10, 20, ...; exposures: (time, f-number, ISO) of each, None for what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, (time, f_number, iso) in enumerate(exposures, start=1):
        (folder / f"{k}.jpg").write_bytes(jpeg_bytes(np.full((16, 24, 3), 10 * k, np.uint8), 6, time, f_number, iso))
    return folder


def greys(sample):
    return [round(float(f.mean()) * 255) for f in sample["ldr"]]


def test_photographs_are_sorted_by_their_exif_exposure_and_stand_upright(tmp_path):
    folder = photographs(tmp_path, (IFDRational(1, 15), 4.0, 100), (IFDRational(1, 240), 4.0, 100), (IFDRational(1, 240), 4.0, 400))
    sample = load_scene(folder)
    assert greys(sample) == [20, 30, 10] and np.allclose(sample["ev"], [0, 2, 4], atol=1e-5)
    assert sample["ldr"].shape == (3, 3, 24, 16) and sample["ldr"].max() < 0.2  # 8 bits: divided by 255


def test_the_aperture_counts_with_its_square(tmp_path):
    folder = photographs(tmp_path, (0.01, 8.0, 100), (0.01, 4.0, 100), (0.01, 2.0, 100))
    assert np.allclose(load_scene(folder)["ev"], [0, 2, 4], atol=1e-5)


def test_of_five_photographs_the_middle_three_are_taken(tmp_path):
    folder = photographs(tmp_path, *[(2.0 ** -k, 4.0, 100) for k in range(5)])
    assert greys(load_scene(folder)) == [40, 30, 20]


def test_an_f_number_missing_everywhere_is_ignored_and_one_missing_once_is_an_error(tmp_path):
    assert np.allclose(load_scene(photographs(tmp_path / "a", (0.01, None, 100), (0.04, None, 100), (0.16, None, 100)))["ev"], [0, 2, 4], atol=1e-5)
    with pytest.raises(ValueError, match=r"no f_number in the EXIF of 2\.jpg.*exposure.txt"):
        load_scene(photographs(tmp_path / "b", (0.01, 4.0, 100), (0.04, None, 100), (0.16, 4.0, 100)))


def test_exposure_txt_goes_before_exif(tmp_path):
    folder = photographs(tmp_path, (0.01, 4.0, 100), (0.04, 4.0, 100), (0.16, 4.0, 100))
    (folder / "Exposure.TXT").write_text("0 3 6")
    assert load_scene(folder)["ev"].tolist() == [0, 3, 6]


def test_other_files_in_the_folder_are_no_photographs(tmp_path):
    folder = tmp_path / "Übung mit Lücken 写真"
    kalantari_scene(folder)
    (folder / "262A0001.tif").rename(folder / "262A0001.TIF")
    for name in ("._262A0001.tif", ".x.jpg", "Thumbs.db", "notes.txt", "262A0001.CR2"):
        (folder / name).write_bytes(b"no image")
    sample = load_scene(folder)
    assert which(sample) == [1, 2, 3] and sample["hdr"].shape == (3, 24, 40) and sample["name"] == folder.name


def test_frames_of_different_bit_depths_each_go_by_their_own(tmp_path):
    for k, image in enumerate((np.full((4, 5, 3), 51, np.uint8), np.full((4, 5, 3), 26214, np.uint16), np.full((4, 5, 3), 0.6, np.float32)), 1):
        write_image(tmp_path / f"{k}.tif", image)
    (tmp_path / "exposure.txt").write_text("0 2 4")
    assert np.allclose(load_scene(tmp_path)["ldr"].mean(dim=(1, 2, 3)), [0.2, 0.4, 0.6])


def broken(folder, name):
    """Makes scenes with one thing wrong."""
    kalantari_scene(folder, ev={"too few exposures": "0 2", "two frames alike": "0 2 2"}.get(name, "0 2 4"))
    if name == "two frames":
        (folder / "262A0001.tif").unlink()
    if name == "sizes":
        write_image(folder / "262A0002.tif", frame(2, size=(40, 24)))
    if name == "truth size":
        write_image(folder / "HDRImg.hdr", np.ones((12, 20, 3), np.float32))
    if name == "two frames alike":
        (folder / "262A0003.tif").write_bytes((folder / "262A0002.tif").read_bytes())
    if name == "float range":
        write_image(folder / "262A0002.tif", np.full((24, 40, 3), 1.5, np.float32))
    if name == "damaged":
        (folder / "262A0003.tif").write_bytes(b"II*\0\x08\0\0\0")
    if name == "text as jpg":
        (folder / "exposure.txt").unlink()
        (folder / "262A0004.jpg").write_text("hello")
    return folder


@pytest.mark.parametrize("name, found", [
    ("two frames", "found 2 photographs"), ("too few exposures", "2 exposures for 3 photographs"), ("two frames alike", "cannot be estimated from the frames"),
    ("sizes", "24x40"), ("truth size", "HDRImg.hdr 20x12"), ("float range", "1.5"),
    ("damaged", "262A0003.tif"), ("text as jpg", "262A0004.jpg")])
def test_a_broken_scene_says_what_is_wrong_and_what_to_do(tmp_path, name, found):
    with pytest.raises((ValueError, FileNotFoundError), match=";") as caught:
        load_scene(broken(tmp_path / "scene", name))
    assert found in str(caught.value) and "scene" in str(caught.value) and "\n" not in str(caught.value)


def bracket_of(folder, stops, exposures=None):
    """Makes a scene of several brightnesses, photographed with gamma 2.2 as 8-bit PNGs a, b, c, ...; exposures: text of exposure.txt."""
    rng = np.random.default_rng(0)
    light = np.kron(np.exp(rng.uniform(-5, 0, (12, 16, 3))), np.ones((16, 16, 1)))
    for name, ev in zip("abcde", stops):
        write_image(folder / f"{name}.png", np.uint8(np.rint(255 * (light * 2.0 ** ev / 4).clip(0, 1) ** (1 / 2.2))))
    if exposures is not None:
        (folder / "exposure.txt").write_text(exposures)
    return folder


@pytest.mark.parametrize("exposures, why, cure", [
    (None, "no time in the EXIF of a.png", "write exposure.txt"), ("0 0 0", "0, 0, 0 in exposure.txt are not at least 0.1 stops apart", "correct exposure.txt"),
    ("250 60 15", "and within 20 stops (shutter speeds are written 1/250s)", "correct exposure.txt")])
def test_exposures_that_are_missing_or_absurd_are_estimated_and_a_line_says_so(tmp_path, capsys, exposures, why, cure):
    sample = load_scene(bracket_of(tmp_path, (4, 0, 2), exposures))        # in any order, which the frames themselves show
    assert (sample["ev"] - torch.tensor([0.0, 2.0, 4.0])).abs().max() < 0.15
    assert sample["ldr"][0].mean() < sample["ldr"][1].mean() < sample["ldr"][2].mean()
    said = capsys.readouterr().out
    assert why in said and "estimated from the frames: " in said and said.endswith(f" EV. To settle them, {cure}.\n") and said.count("\n") == 1


@pytest.mark.parametrize("exposures, cure", [("0 0 0", "correct exposure.txt, one EV per line"), (None, "write exposure.txt, one EV per line")])
def test_where_the_frames_cannot_tell_exposures_the_advice_fits_what_is_there(tmp_path, exposures, cure):
    bracket_of(tmp_path, (1, 1, 1), exposures)
    with pytest.raises(ValueError, match=rf"cannot be estimated from the frames \(.*\); {cure}, or times such as 1/60s$"):
        load_scene(tmp_path)


def test_exposures_of_exif_that_make_no_sense_are_called_exif_s(tmp_path, capsys):
    photographs(tmp_path, *[(1 / 60, 8, 100)] * 3)
    with pytest.raises(ValueError, match=" in EXIF are not at least 0.1 stops apart .*; write exposure.txt, one EV"):
        load_scene(tmp_path)


def test_two_files_of_exposures_must_say_the_same(tmp_path, capsys):
    bracket_of(tmp_path, (0, 2, 4), "-2 0 2")
    (tmp_path / "exposures.txt").write_text("-8 -5 -2")
    with pytest.raises(ValueError, match=r"exposures\.txt and exposure\.txt state different exposures; remove the one that is wrong"):
        load_scene(tmp_path)
    assert load_scene(tmp_path, "sen")["ev"].tolist() == [0, 3, 6] and load_scene(tmp_path, "photos")["ev"].tolist() == [0, 2, 4]    # if the layout is named
    (tmp_path / "exposures.txt").write_text("-8 -6 -4")
    assert load_scene(tmp_path)["ev"].tolist() == [0, 2, 4]
    (tmp_path / "exposure.txt").write_text("1/256 1/64 1/16")                  # seconds
    assert load_scene(tmp_path)["ev"].tolist() == [0, 2, 4]
    (tmp_path / "exposure.txt").write_text("1/256 1/64")
    with pytest.raises(ValueError, match=r"exposure\.txt: 2 exposures for 3 photographs"):
        load_scene(tmp_path)


@pytest.mark.parametrize("layout", ["auto", "kalantari"])
def test_two_files_of_exposures_that_differ_in_upper_and_lower_case_must_say_the_same(layout, tmp_path, capsys):
    bracket_of(tmp_path, (0, 2, 4), "-2 0 2")
    (tmp_path / "Exposure.TXT").write_text("0 1 2")
    if (tmp_path / "exposure.txt").read_text() == "0 1 2":
        pytest.skip("this file system does not tell them apart")
    with pytest.raises(ValueError, match=r"Exposure\.TXT and exposure\.txt state different exposures; remove the one that is wrong"):
        load_scene(tmp_path, layout)
    (tmp_path / "Exposure.TXT").write_text("0 2 4")
    assert load_scene(tmp_path, layout)["ev"].tolist() == [0, 2, 4]
    (tmp_path / "EXPOSURES.txt").write_text("0 3 6")        # the name that another layout uses
    if layout == "auto":
        with pytest.raises(ValueError, match=r"EXPOSURES\.txt and Exposure\.TXT state different exposures"):
            load_scene(tmp_path)
    else:
        assert load_scene(tmp_path, layout)["ev"].tolist() == [0, 2, 4]


def twelve_bits(folder, tags):
    """Makes three TIFFs of 16-bit samples with a grey of 1000, 2000 and 4095. tags: MaxSampleValue of each, or None."""
    for k, (grey, tag) in enumerate(zip((1000, 2000, 4095), tags)):
        extratags = [(281, "H", 1, tag, True)] if tag else []
        tifffile.imwrite(folder / f"{k}.tif", np.full((24, 40, 3), grey, np.uint16), photometric="rgb", metadata=None, extratags=extratags)
    (folder / "exposure.txt").write_text("0 2 4")
    return folder


def test_frames_of_12_bits_in_16_are_as_bright_as_they_say_and_a_line_says_so(tmp_path, capsys):
    sample = load_scene(twelve_bits(tmp_path, (4095, 4095, 4095)))
    assert np.abs(sample["ldr"][:, 0, 0, 0].numpy() - np.array([1000, 2000, 4095]) / 4095).max() < 1e-5
    assert capsys.readouterr().out == f"{tmp_path}: 0.tif, 1.tif, 2.tif: white is 4095, as the tag MaxSampleValue says\n"


def test_frames_that_do_not_agree_on_white_are_refused(tmp_path):
    twelve_bits(tmp_path, (None, 2000, 4095))           # perhaps only the largest sample of each: then only the brightest would be darkened
    with pytest.raises(ValueError, match=r"white is 65535 \(0\.tif\), 65535 \(1\.tif\), 4095 \(2\.tif\), as the tag .* leaves open; correct the tags, or"):
        load_scene(tmp_path)
    with pytest.raises(ValueError, match="correct the tags"):
        read_frames(tmp_path, [tmp_path / "0.tif"], among=[tmp_path / f"{k}.tif" for k in range(3)])


def test_a_frame_for_which_the_memory_does_not_suffice_is_named(tmp_path, monkeypatch):
    def too_large(*arguments):
        raise MemoryError("Unable to allocate 3 GiB")
    monkeypatch.setattr("brackets.scenes.as_frame", too_large)
    scene = bracket_of(tmp_path / "bracket", (0, 2, 4), "0 2 4")
    with pytest.raises(ValueError, match="bracket: too large for the memory of this machine; make it smaller"):
        load_scene(scene)


def test_of_five_frames_without_exposures_the_middle_three_are_taken(tmp_path):
    paths, ev, _ = scene_files(bracket_of(tmp_path, (2, 0, 4, 1, 3)))
    assert [path.name for path in paths] == ["d.png", "a.png", "e.png"] and np.abs(ev - [0, 1, 2]).max() < 0.15


def turned(folder, tags, sides=None):
    """Makes JPEGs with orientation tags. sides: (height, width) of each."""
    folder.mkdir()
    for k, tag in enumerate(tags, start=1):
        image = np.full((*(sides[k - 1] if sides else (16, 24)), 3), 10 * k, np.uint8)
        image[0, 0] = 255
        (folder / f"{k}.jpg").write_bytes(jpeg_bytes(image, tag, 2.0 ** k))
    return folder


def test_an_orientation_tag_against_the_others_is_named_and_not_believed(tmp_path, capsys):
    sample = load_scene(turned(tmp_path / "a", (6, 1, 6)))
    assert sample["ldr"].shape == (3, 3, 24, 16) and all(int(frame[0].argmax()) == 15 for frame in sample["ldr"])
    assert capsys.readouterr().out == f"{tmp_path / 'a'}: the orientation tag of 2.jpg says 1, those of the others 6; all are read as 6\n"
    assert load_scene(turned(tmp_path / "b", (1, 1, 3)))["ldr"].flatten(2)[:, 0].argmax(dim=1).tolist() == [0, 0, 0]


def test_the_tags_of_all_frames_count_and_not_only_those_of_the_frames_that_are_read(tmp_path):
    folder = turned(tmp_path / "a", (6, 1, 6, 6, 1))
    bracket = find_bracket(folder)
    frames, _ = read_frames(folder, bracket.paths[1:2], among=bracket.paths)
    assert frames[0].shape == (3, 24, 16) and load_three(bracket, choose(bracket.ev, 1))["ldr"].shape == (3, 3, 24, 16)


def test_a_frame_that_a_program_turned_with_its_tag_is_believed(tmp_path, capsys):
    sample = load_scene(turned(tmp_path / "a", (6, 6, 1), ((16, 24), (16, 24), (24, 16))))
    assert sample["ldr"].shape == (3, 3, 24, 16) and capsys.readouterr().out == ""


def test_orientation_tags_without_a_majority_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"1 \(1.jpg\), 3 \(2.jpg\), 6 \(3.jpg\); correct them"):
        load_scene(turned(tmp_path / "a", (1, 3, 6)))


def test_what_is_transparent_is_not_seen(tmp_path):
    alpha = np.full((24, 40, 1), 65535, np.uint16)
    alpha[:, :7] = 0
    for k in (1, 2, 3):
        tifffile.imwrite(tmp_path / f"{k}.tif", np.concatenate([frame(k), alpha], axis=2), photometric="rgb", extrasamples=["unassalpha"])
    (tmp_path / "exposure.txt").write_text("0 2 4")
    ldr = load_scene(tmp_path)["ldr"]
    assert ldr[:, :, :, :7].isnan().all() and not ldr[:, :, :, 7:].isnan().any() and int(ldr[1, 0, 0, 7] * 65535 + 0.5) == frame(2)[0, 7, 0]
    tifffile.imwrite(tmp_path / "2.tif", np.concatenate([frame(2), alpha * 0], axis=2), photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(ValueError, match="2.tif: no pixel is opaque; save it again without transparency"):
        load_scene(tmp_path)


def test_linear_frames_are_recoded_and_a_line_says_so(tmp_path, capsys):
    for k in (1, 2, 3):
        (tmp_path / f"{k}.png").write_bytes(linear_png(frame(k)))
    (tmp_path / "exposure.txt").write_text("0 2 4")
    assert np.allclose(load_scene(tmp_path)["ldr"][1].permute(1, 2, 0), (frame(2) / 65535) ** (1 / 2.2), atol=1e-5)
    assert capsys.readouterr().out == f"{tmp_path}: 1.png, 2.png, 3.png: linear light, coded with gamma 2.2\n"


def test_a_missing_folder_and_an_unknown_layout_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_scene(tmp_path / "nothing")
    with pytest.raises(ValueError, match="--layout 'canon': unknown"):
        load_scene(kalantari_scene(tmp_path / "s"), layout="canon")
    (tmp_path / "s" / "exposure.txt").unlink()
    with pytest.raises(FileNotFoundError, match="exposure.txt is missing"):
        load_scene(tmp_path / "s", layout="kalantari")


def test_scenes_of_kalantari_are_found_as_unzipped_and_flattened(tmp_path):
    for name in ("Training/10", "Training/9", "Training/001", "Test/EXTRA/002", "Test/PAPER/BarbequeDay"):
        kalantari_scene(tmp_path / name)
    (tmp_path / "Training" / "empty").mkdir()
    (tmp_path / "Training" / "readme.txt").touch()
    assert [p.name for p in find_scenes("kalantari", tmp_path, "train")] == ["001", "9", "10"]
    assert [p.name for p in find_scenes("kalantari", str(tmp_path), "test")] == ["002", "BarbequeDay"]
    (tmp_path / "Test").rename(tmp_path / "old")
    kalantari_scene(tmp_path / "test" / "007")
    assert [p.name for p in find_scenes("kalantari", tmp_path, "test")] == ["007"]


def test_hu_trains_on_the_first_85_and_tests_on_the_last_15(tmp_path):
    for k in range(1, 101):
        (tmp_path / f"{k:03d}").mkdir()
        (tmp_path / f"{k:03d}" / "input_0_aligned.tif").touch()
    train, test = (find_scenes("hu", tmp_path, split) for split in ("train", "test"))
    assert [p.name for p in train + test] == [f"{k:03d}" for k in range(1, 101)] and len(train) == 85 and len(test) == 15


@pytest.mark.parametrize("name, split", [("kalantari", "train"), ("kalantari", "test"), ("hu", "test"), ("sen", "test"), ("tursun", "test")])
def test_a_missing_data_set_is_one_line_with_the_files_and_the_address(tmp_path, name, split):
    for root in (tmp_path, tmp_path / "not there"):
        with pytest.raises(FileNotFoundError) as caught:
            find_scenes(name, root, split)
        message = str(caught.value)
        assert "\n" not in message and str(root) in message and "https://" in message and ("exp" in message.split("expected", 1)[1])


def test_data_sets_without_truth_are_not_for_training(tmp_path):
    with pytest.raises(ValueError, match="no ground truth"):
        find_scenes("sen", tmp_path, "train")
    with pytest.raises(ValueError, match="validation"):
        find_scenes("hu", tmp_path, "validation")
