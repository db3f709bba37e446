"""infer.py: what it writes and prints, and that its flags have their effect."""

import cv2
import numpy as np
import torch

import infer
from beyond import tiles as beyond_tiles
from brackets.files import read_image, write_image
from brackets.flow import follow_flow
from brackets.merge import weighted_merge
from brackets.scenes import load_scene
from data import T, psnr
from scripts import ROOT, make_scene, one_line, run_script
from synthetic.dataset import FIRST, SyntheticBrackets, SyntheticConfig


def test_infer_writes_what_it_promises_and_another_reader_agrees(trained, tmp_path, capsys):
    scene, sample = make_scene(tmp_path / "garden walk")
    words = ["--scene", scene, "--weights", trained[1] / "weights.pt", "--device", "cpu"]
    run_script(infer, *words, "--out", tmp_path / "out")
    said = capsys.readouterr().out
    hdr = read_image(tmp_path / "out" / "garden walk.hdr")
    by_opencv = cv2.imread(str(tmp_path / "out" / "garden walk.hdr"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert hdr.shape == (37, 50, 3) and np.array_equal(hdr, by_opencv) and 0 <= hdr.min() and hdr.max() <= 1
    shown = read_image(tmp_path / "out" / "garden walk.png")
    assert shown.shape == (37, 50, 3) and np.abs(shown / 255 - T(torch.from_numpy(hdr)).numpy()).max() < 0.02   # .hdr keeps 8 bits
    assert read_image(tmp_path / "out" / "garden walk_panel.png").shape[1] > 600
    printed = float(next(line for line in said.splitlines() if line.startswith("LF-Diff")).split()[1])
    measured = psnr(T(torch.from_numpy(hdr).permute(2, 0, 1)), T(sample["hdr"]))
    assert abs(printed - measured) < 0.3


def test_the_same_seed_gives_the_same_file_and_another_seed_another(trained, tmp_path):
    scene, _ = make_scene(tmp_path / "scene", hdr=False)
    for out, seed in (("a", 7), ("b", 7), ("c", 8)):
        run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", tmp_path / out, "--seed", seed, "--device", "cpu")
    a, b, c = ((tmp_path / out / "scene.hdr").read_bytes() for out in "abc")
    assert a == b != c


def test_infer_with_samples_writes_the_map_of_their_spread(trained, tmp_path, capsys):
    scene, _ = make_scene(tmp_path / "scene", hdr=False)
    for samples in (1, 3):
        run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", tmp_path / str(samples), "--samples", samples, "--device", "cpu")
    assert read_image(tmp_path / "3" / "scene_spread.png").shape[1] > 1000 and not (tmp_path / "1" / "scene_spread.png").exists()
    assert "not saturated" in capsys.readouterr().out
    assert (tmp_path / "3" / "scene.hdr").read_bytes() != (tmp_path / "1" / "scene.hdr").read_bytes()


def test_infer_registers_hand_held_frames_as_it_is_told_and_else_as_the_weights_were_trained(trained, tmp_path, capsys):
    scene, sample = make_scene(tmp_path / "scene", size=(160, 192))
    short = (sample["ldr"][0].roll((5, -7), (1, 2)).permute(1, 2, 0) * 255).round().byte().numpy()
    write_image(scene / "1.png", np.ascontiguousarray(short))
    score = {}
    for words in (["--register"], ["--no-register"], []):
        run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", tmp_path / "out", "--device", "cpu", *words)
        said = capsys.readouterr().out
        assert ("registered by" in said) == (words == ["--register"])       # these weights were trained on unregistered frames, so that is the default
        score[" ".join(words)] = float(next(line for line in said.splitlines() if line.startswith("weighted merge")).split()[2])
    assert score["--register"] > score["--no-register"] + 1 and score[""] == score["--no-register"]           # of the plain merge, in dB


def test_infer_follows_what_moved_when_told_to_and_merges_the_frames_that_it_did_not_follow(trained, tmp_path, monkeypatch, capsys):
    scene, _ = make_scene(tmp_path / "scene", size=(64, 80))
    network, said, sample_images = [], [], infer.sample_images
    monkeypatch.setattr(infer, "sample_images", lambda model, ldr, *rest: network.append(ldr) or sample_images(model, ldr, *rest))
    for word in ("--flow", "--no-flow"):
        run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", tmp_path / "out", "--device", "cpu", word)
        said.append(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("weighted merge")))
    sample = load_scene(scene)
    followed = follow_flow(sample["ldr"], sample["ev"])
    assert torch.equal(network[0][0], followed) and torch.equal(network[1][0], sample["ldr"]) and not torch.equal(followed, sample["ldr"])
    assert said[0] == said[1]


def test_infer_takes_the_ancestral_sampler(trained, tmp_path, monkeypatch):
    scene, _ = make_scene(tmp_path / "scene", hdr=False)
    for out, words in (("ddim", []), ("ancestral", ["--sampler", "ancestral"])):
        run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", tmp_path / out, "--device", "cpu", *words)
    assert (tmp_path / "ddim" / "scene.hdr").read_bytes() != (tmp_path / "ancestral" / "scene.hdr").read_bytes()
    assert "--sampler euler: use ddim or ancestral" in one_line("infer.py", "--scene", scene, "--sampler", "euler")
    assert "leave out --steps" in one_line("infer.py", "--scene", scene, "--sampler", "ancestral", "--steps", 5)
    assert "lfdiff.pt has T = 200; choose fewer" in one_line("infer.py", "--scene", scene, "--steps", 201)


def test_infer_takes_tiles_by_itself_above_its_limit_and_none_when_told(trained, tmp_path, monkeypatch):
    scene, _ = make_scene(tmp_path / "scene", size=(277, 300), hdr=False)
    rebuild = beyond_tiles.rebuild_in_tiles
    tiles = []
    monkeypatch.setattr(beyond_tiles, "rebuild_in_tiles", lambda *arguments: tiles.append(arguments[3]) or rebuild(*arguments))
    monkeypatch.setattr(beyond_tiles, "TILE", 272)
    for out, words, limit in (("whole", [], 10 ** 6), ("tiled", [], 1000), ("named", ["--tile", "256"], 10 ** 6), ("never", ["--tile", "-1"], 1000)):
        monkeypatch.setattr(beyond_tiles, "WHOLE", limit)
        run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", tmp_path / out, "--device", "cpu", *words)
    assert tiles == [272, 256]
    images = {out: read_image(tmp_path / out / "scene.hdr") for out in ("whole", "tiled", "named", "never")}
    assert np.array_equal(images["whole"], images["never"])
    assert all(images[out].shape == (277, 300, 3) and psnr(*(T(torch.from_numpy(images[name])) for name in (out, "whole"))) > 40 for out in ("tiled", "named"))


def test_infer_may_write_into_the_scene_and_run_again(trained, tmp_path):
    scene, _ = make_scene(tmp_path / "scene", hdr=False)
    for _ in range(2):
        run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", scene, "--device", "cpu", "--save-aligned")
    assert (scene / "scene_panel.png").is_file()


def test_infer_says_in_one_line_what_is_wrong(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "two or more" in one_line("infer.py", "--scene", tmp_path / "empty")
    assert "variant s1" in one_line("infer.py", "--scene", make_scene(tmp_path / "s")[0], "--weights", trained[0] / "last.pt", "--device", "cpu")


def test_the_shipped_weights_beat_the_reference_and_the_merge_by_2_db_on_the_example(tmp_path, capsys):
    run_script(infer, "--scene", ROOT / "examples" / "cafe", "--out", tmp_path, "--device", "cpu")
    said = capsys.readouterr().out.splitlines()
    psnr_mu = {name: float(line.removeprefix(name).split()[0]) for line in said for name in ("reference alone", "weighted merge", "LF-Diff")
               if line.startswith(name)}
    assert psnr_mu["LF-Diff"] > max(psnr_mu["reference alone"], psnr_mu["weighted merge"]) + 2


def write_seven(folder):
    """Writes seven hand-held 8-bit frames, one EV apart. Returns: the truth of the middle one (3, H, W), 1 where the shortest frame clips."""
    hdr, shifts = SyntheticBrackets((176, 208), seed=3, config=SyntheticConfig(**FIRST))[4]["hdr"], [(3, 8), (11, 5), (6, 2), (8, 8), (5, 12), (12, 9), (9, 4)]
    noise = torch.Generator().manual_seed(0)
    for i, (down, right) in enumerate(shifts):
        light = hdr[:, down:down + 160, right:right + 192] * 2.0 ** i
        light = light + torch.randn(light.shape, generator=noise) * ((light + 1e-3) / 20_000).sqrt()
        write_image(folder / f"{i}.png", (light.clamp(0, 1) ** (1 / 2.2) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
    return hdr[:, 8:168, 8:200]


def test_seven_frames_meet_the_truth_3_db_better_than_their_middle_three(tmp_path):
    """In PSNR-mu, where 1 is the level at which the shortest of the seven clips; the middle three alone clip at a quarter of it."""
    truth, score = write_seven(tmp_path / "all"), {}
    (tmp_path / "some").mkdir()
    for i in (2, 3, 4):
        (tmp_path / "some" / f"{i}.png").write_bytes((tmp_path / "all" / f"{i}.png").read_bytes())
    for name, evs, unit in (("all", range(7), 1), ("some", range(3), 4)):
        (tmp_path / name / "exposure.txt").write_text(" ".join(map(str, evs)))
        run_script(infer, "--scene", tmp_path / name, "--out", tmp_path / "out", "--device", "cpu", "--reference", "3.png")
        hdr = torch.from_numpy(read_image(tmp_path / "out" / f"{name}.hdr")).permute(2, 0, 1) / unit
        score[name] = psnr(T(hdr), T(truth))
    assert score["all"] > score["some"] + 3


def test_two_frames_meet_the_truth_2_db_better_than_a_merge_of_them(tmp_path, capsys):
    sample = load_scene(ROOT / "examples" / "cafe")
    hdr = sample["hdr"][:, 100:292, 300:556]
    for k, name in enumerate(("short", "long")):
        write_image(tmp_path / f"{name}.png", (sample["ldr"][k, :, 100:292, 300:556] * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
    (tmp_path / "exposure.txt").write_text("3 0")        # long.png comes first by name
    write_image(tmp_path / "HDRImg.hdr", hdr.permute(1, 2, 0).contiguous().numpy())
    run_script(infer, "--scene", tmp_path, "--out", tmp_path / "out", "--device", "cpu", "--reference", "2")
    said = capsys.readouterr().out
    scores = {name: [float(number) for number in line.removeprefix(name).split()] for line in said.splitlines()
              for name in ("reference alone", "weighted merge", "LF-Diff") if line.startswith(name)}
    assert "stands in for it at 3 EV" in said
    assert scores["LF-Diff"][0] > max(scores["reference alone"][0], scores["weighted merge"][0]) + 2, scores


def test_a_bracket_in_which_nothing_moves_and_nearly_no_noise_is_becomes_its_merge(trained, tmp_path, capsys):
    scene, sample = make_scene(tmp_path / "scene", size=(48, 64))
    for name, ev in zip("123", sample["ev"]):
        frame = (sample["hdr"] * 2 ** ev).clamp(max=1) ** (1 / 2.2)
        write_image(scene / f"{name}.png", (frame.permute(1, 2, 0) * 65535).round().numpy().astype(np.uint16))
    run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", tmp_path / "out", "--device", "cpu", "--flow")
    still = load_scene(scene)
    merge = weighted_merge(still["ldr"][None], still["ev"][None])[0]
    result = torch.from_numpy(read_image(tmp_path / "out" / "scene.hdr")).permute(2, 0, 1)
    assert "still, with 0.0 % of noise" in capsys.readouterr().out and psnr(T(result), T(merge)) > 45       # .hdr keeps 8 bits
