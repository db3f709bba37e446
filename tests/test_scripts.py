"""The scripts as a user runs them: tiny runs of both stages, resuming, several processes, inference on a folder."""

import csv
import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import common
import infer
import lfdiff
import train_stage1
import train_stage2
import training
from data import T, load_scene
from brackets.flow import follow_flow
from brackets.files import read_image, write_image
from lfdiff import load_weights
from loss import psnr
from synthetic.dataset import SyntheticBrackets

ROOT = Path(__file__).parent.parent
DATA = ["--precision", "float32", "--lam", "0", "--patch", "32", "--batch", "4", "--samples", "16", "--val-scenes", "1", "--val-size", "32", "--val-every", "4",
        "--log-every", "4", "--workers", "0", "--device", "cpu"]
NET = ["--channels", "8", "--heads", "2", "--frms", "1", "--high-blocks", "1", "--prior-width", "8", "--prior-blocks", "1"]
DM = ["--unet-width", "8", "--unet-multipliers", "1", "1", "1", "--unet-blocks", "1", "--prior-batches", "2"]


def run_script(script, *words):
    """Runs a train script's main() in this process with a command line."""
    before = sys.argv
    sys.argv = [script.__name__, *map(str, words)]
    try:
        script.main()
    finally:
        sys.argv = before


def stage1(out, *words):
    run_script(train_stage1, *DATA, *NET, "--out", out, *words)
    return out


def stage2(out, first, *words):
    run_script(train_stage2, *DATA, *DM, "--stage1", first / "last.pt", "--out", out, *words)
    return out


def column(folder, name):
    with open(folder / "log.csv", newline="", encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def weights(folder):
    return common.load_checkpoint(folder / "last.pt")["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny stage 1 of 120 steps and a tiny stage 2 of 40."""
    folder = tmp_path_factory.mktemp("runs")
    first = stage1(folder / "stage1", "--epochs", "30", "--lr", "3e-3", "--val-every", "12", "--log-every", "12")
    second = stage2(folder / "stage2", first, "--epochs", "10", "--lr", "2e-3", "--warmup", "0.5")
    return first, second


def test_stage_1_learns_and_leaves_what_its_header_promises(trained):
    first, _ = trained
    L_r = column(first, "L_r")
    assert len(L_r) == 10 and np.mean(L_r[-3:]) < 0.6 * np.mean(L_r[:2])
    assert column(first, "val_psnr_mu")[-1] > column(first, "val_psnr_mu")[0] + 3
    for name in ("last.pt", "best.pt", "log.csv", "log.png", "step_000120.png"):
        assert (first / name).stat().st_size > 0, name


def test_stage_2_trains_the_diffusion_alone_and_then_all_of_it(trained):
    first, second = trained
    L1_z = column(second, "L1_z")
    assert np.mean(L1_z[-3:]) < 0.9 * np.mean(L1_z[:2])
    assert len(column(second, "L_r")) == 5                  # joint in the second half only
    assert len(column(second, "val_psnr_mu_mean")) == 10    # with the mean, the true and the predicted prior
    assert column(second, "val_psnr_mu_true") != column(second, "val_psnr_mu_predicted")
    before, after = weights(first), weights(second)
    assert any(not torch.equal(after[name], before[name]) for name in before if name.startswith("dhrnet."))
    lpenet = common.load_checkpoint(second / "last.pt")["lpenet"]
    assert all(torch.equal(lpenet[name], before["lpenet." + name]) for name in lpenet)


def test_the_prior_is_standardised_by_the_training_set(trained):
    first, second = trained
    model = load_weights(second / "best.pt")
    teacher = load_weights(first / "last.pt").lpenet
    train_set = SyntheticBrackets(32, seed=0, length=16)
    z = model.standardise(teacher(torch.stack([train_set[i]["hdr"] for i in range(8)])))    # the two batches that were measured
    assert z.mean((0, 2, 3)).abs().max() < 1e-4 and (z.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-3


def test_training_goes_on_from_weights_with_their_architecture(trained, tmp_path):
    first, second = trained
    file = second / "weights.pt"
    shipped = common.load_checkpoint(file)
    run_script(train_stage1, *DATA, "--init", file, "--epochs", "1", "--lr", "1e-9", "--out", tmp_path / "one")     # no --channels: the file knows
    run_script(train_stage2, *DATA, "--init", file, "--epochs", "1", "--lr", "1e-9", "--out", tmp_path / "two")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in shipped["model"].items():
        assert torch.allclose(two[name].float(), value.float(), atol=1e-6), name                # z_mean and z_std too
        assert not name.startswith("dhrnet.") or torch.allclose(one[name], value.float(), atol=1e-6), name
    for name, value in shipped["lpenet"].items():
        assert torch.allclose(one["lpenet." + name], value.float(), atol=1e-6), name
    assert common.load_checkpoint(tmp_path / "one" / "last.pt")["config"] == shipped["config"]


def test_stage_2_gives_a_blend_to_a_dhrnet_that_has_none_and_keeps_the_rest(trained, tmp_path):
    first, second = trained
    run_script(train_stage2, *DATA, "--init", second / "weights.pt", "--blend", "--epochs", "2", "--lr", "1e-3", "--warmup", "0", "--out", tmp_path / "two")
    saved = common.load_checkpoint(tmp_path / "two" / "last.pt")
    assert saved["config"]["dhrnet"]["blend"] and saved["model"]["dhrnet.blend.weigh.weight"].abs().max() > 0       # and it learns
    run_script(train_stage2, *DATA, "--init", tmp_path / "two" / "weights.pt", "--epochs", "1", "--lr", "1e-9", "--out", tmp_path / "three")
    assert "dhrnet.blend.weigh.weight" in weights(tmp_path / "three")
    with pytest.raises(ValueError, match="--split, --blend"):
        train_stage2.first_networks(train_stage2.Stage2Config(init=str(second / "weights.pt"), blend=True, split=True), torch.device("cpu"))
    network, _ = train_stage2.first_networks(train_stage2.Stage2Config(init=str(second / "weights.pt"), blend=True), torch.device("cpu"))
    shipped = common.load_checkpoint(second / "weights.pt")["model"]
    assert all(torch.equal(network.state_dict()[name], value.float()) for name, value in shipped.items())


def test_the_shipped_weights_hold_what_training_needs_to_go_on():
    file = ROOT / "weights" / "lfdiff.pt"
    network, lpenet = train_stage2.first_networks(train_stage2.Stage2Config(init=str(file)), torch.device("cpu"))
    assert all(value.isfinite().all() for value in [*network.parameters(), *lpenet.parameters()]) and file.stat().st_size < 16e6
    assert network.z_std.min() > 0.1 and not any(parameter.requires_grad for parameter in lpenet.parameters())


def test_training_refuses_to_go_on_from_the_weights_of_something_else(trained, tmp_path):
    message = one_line("train_stage2.py", *DATA, "--init", trained[0] / "last.pt", "--out", tmp_path / "a")
    assert "variant s1" in message and "train_stage2.py" in message
    assert "holds variant s2" in one_line("train_stage1.py", *DATA, "--baseline", "--init", trained[1] / "weights.pt", "--out", tmp_path / "b")


def test_the_prior_is_left_as_it_is_when_no_batches_are_to_be_measured(trained, tmp_path):
    after = weights(stage2(tmp_path, trained[0], "--epochs", "1", "--prior-batches", "0"))
    assert after["z_mean"].eq(0).all() and after["z_std"].eq(1).all()


def test_split_training_leaves_dhrnet_as_stage_1_made_it(trained, tmp_path):
    before, after = weights(trained[0]), weights(stage2(tmp_path, trained[0], "--epochs", "1", "--split", "--warmup", "0"))
    names = [name for name in before if name.startswith("dhrnet.")]
    assert names and all(torch.equal(before[name], after[name]) for name in names)


def test_without_a_diffusion_model_there_is_no_denoiser_and_no_noise_loss(trained, tmp_path):
    out = stage2(tmp_path, trained[0], "--epochs", "1", "--without-dm", "--warmup", "0")
    assert not any(name.startswith("denoiser") for name in weights(out)) and column(out, "L_eps") == [0.0]


def test_the_baseline_trains_without_a_prior(tmp_path):
    out = stage1(tmp_path, "--epochs", "1", "--baseline")
    assert not any("lpenet" in name or "low.k" in name for name in weights(out)) and common.load_checkpoint(out / "last.pt")["variant"] == "baseline"


@pytest.mark.parametrize(("script", "ema"), [(train_stage1, 0), (train_stage1, 0.9), (train_stage2, 0.9)])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(script, ema, trained, tmp_path, monkeypatch):
    def train(out, *words):
        words = ("--epochs", "2", "--decay-epochs", "1", "--seed", "3", "--ema", ema, *words)
        return stage1(out, *words) if script is train_stage1 else stage2(out, trained[0], *words)
    whole = train(tmp_path / "whole")
    keep = script.save_run

    def save_and_stop(path, parts, network, config, step, best):
        keep(path, parts, network, config, step, best)
        if step == 4 and path.name == "last.pt":
            raise KeyboardInterrupt
    monkeypatch.setattr(script, "save_run", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut")
    monkeypatch.undo()
    cut = train(tmp_path / "cut", "--resume")
    assert common.load_checkpoint(cut / "last.pt")["step"] == 8
    assert same(weights(whole), weights(cut))
    trained_weights = [common.load_checkpoint(folder / "last.pt")["trained"] for folder in (whole, cut)]
    assert same(*trained_weights) and same(trained_weights[0], weights(whole)) == (not ema)
    best = [common.load_checkpoint(folder / "best.pt") for folder in (whole, cut)]
    assert best[0]["step"] == best[1]["step"] and same(best[0]["model"], best[1]["model"])
    saved = [common.load_checkpoint(folder / "last.pt")["optimiser"]["state"] for folder in (whole, cut)]
    assert all(torch.equal(saved[0][i]["exp_avg_sq"], saved[1][i]["exp_avg_sq"]) for i in saved[0])
    assert column(cut, "lr") == column(whole, "lr") == pytest.approx([1e-5, 1e-6])


def test_a_run_is_not_overwritten_nor_resumed_with_other_flags_but_with_a_lower_rate(tmp_path):
    stage1(tmp_path, "--epochs", "1")
    with pytest.raises(ValueError, match="holds a run already"):
        stage1(tmp_path, "--epochs", "1")
    with pytest.raises(ValueError, match="another architecture"):
        stage1(tmp_path, "--epochs", "2", "--channels", "16", "--resume")
    with pytest.raises(ValueError, match="another --seed"):
        stage1(tmp_path, "--epochs", "2", "--seed", "1", "--resume")
    stage1(tmp_path, "--epochs", "2", "--lr", "1e-5", "--resume")
    assert column(tmp_path, "lr") == pytest.approx([1e-4, 1e-5])


def test_the_mean_of_the_weights_is_its_sum_written_out():
    def follow(ema, values):
        trained = torch.nn.Linear(1, 1, bias=False)
        trained.weight.data.fill_(2.0)
        average = training.averaged(trained, ema)
        for step, value in enumerate(values, 1):
            trained.weight.data.fill_(value)
            training.follow(average, trained, ema, step)
        assert trained.weight.item() == values[-1]
        return average.weight.item()
    assert follow(0.05, [3.0, -1.0, 8.0]) == pytest.approx(0.95 * (8 - 0.05 + 0.05 ** 2 * 3) + 0.05 ** 3 * 2)
    assert follow(0.999, [13.0]) == pytest.approx(12.0)          # the first step keeps 1/11 of 2, not 0.999
    assert follow(0, [3.0, 7.0]) == 7.0


def test_what_is_saved_is_the_mean_of_the_weights(trained, tmp_path):
    out = stage2(tmp_path / "mean", trained[0], "--epochs", "2", "--lr", "1e-3", "--warmup", "0", "--ema", "0.9")
    last, best, saved = (common.load_checkpoint(out / name) for name in ("last.pt", "best.pt", "weights.pt"))
    assert not same(last["model"], last["trained"])
    assert same(saved["model"], {name: value.half() for name, value in best["model"].items()})


@pytest.mark.parametrize("words", [["--batch", "0"], ["--ema", "1"], ["--val-every", "0"], ["--epochs", "0"], ["--patch", "30"], ["--data", "flowers"],
                                   ["--heads", "3"], ["--pool-pim", "2"], ["--upsample", "cubic"], ["--precision", "float8"], ["--device", "abacus"]])
def test_a_setting_out_of_range_is_named_before_anything_starts(words, tmp_path):
    with pytest.raises(ValueError, match=words[0]):
        stage1(tmp_path, "--epochs", "1", *words)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("script", "warmup"), [(train_stage1, None), (train_stage2, "0"), (train_stage2, "1")])
def test_two_processes_give_the_weights_of_one_with_the_same_global_batch(script, warmup, trained, tmp_path):
    """Stage 1 over four steps. Stage 2 over one, joint or of the diffusion alone: where the true gradient is 0 (a bias before a GroupNorm),
    Adam makes a whole step of rounding, and from the second step on the runs differ by that."""
    words = [*DATA, "--epochs", "1", "--lr", "1e-3", "--clip", "1e9"]
    words += NET if script is train_stage1 else [*DM, "--samples", "4", "--stage1", str(trained[0] / "last.pt"), "--warmup", warmup]
    alone, together = tmp_path / "alone", tmp_path / "together"
    run_script(script, *words, "--out", alone)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / f"{script.__name__}.py"),
                    *words, "--out", str(together)], env=environment, check=True, capture_output=True, text=True, timeout=240)
    a, b = (common.load_checkpoint(folder / "last.pt") for folder in (alone, together))
    assert a["optimiser"]["state"].keys() == b["optimiser"]["state"].keys()     # of the diffusion alone: DHRNet has no gradient in both
    gradient = [torch.cat([state["exp_avg"].flatten() for state in saved["optimiser"]["state"].values()]) for saved in (a, b)]
    assert (gradient[0] - gradient[1]).norm() < 1e-4 * gradient[0].norm()
    difference = torch.cat([(a["model"][name] - b["model"][name]).abs().flatten() for name in a["model"] if name.startswith("dhrnet.")])
    assert difference.median() < 1e-6 and (difference > 1e-4).float().mean() < 0.02
    if script is train_stage2:
        moved = max((a["model"][name] - value).abs().max() for name, value in weights(trained[0]).items() if name.startswith("dhrnet."))
        assert (moved > 5e-4) == (warmup == "0")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    stage1(tmp_path, "--epochs", "1")
    before = (tmp_path / "last.pt").read_bytes()
    true_loss = train_stage1.reconstruction_loss

    def broken(*arguments, **weights):
        L_r, terms = true_loss(*arguments, **weights)
        return L_r * float("nan"), terms
    monkeypatch.setattr(train_stage1, "reconstruction_loss", broken)
    with pytest.raises(ValueError, match=r"step 8: L_r is nan.*last\.pt.*lower --lr"):
        stage1(tmp_path, "--epochs", "2", "--resume")
    assert (tmp_path / "last.pt").read_bytes() == before
    monkeypatch.undo()
    monkeypatch.setattr(train_stage1, "validate", lambda *_: {"H": (float("nan"), float("nan"))})
    with pytest.raises(ValueError, match="step 8: val_psnr_mu is nan"):
        stage1(tmp_path, "--epochs", "2", "--resume")
    assert (tmp_path / "last.pt").read_bytes() == before


@pytest.mark.parametrize("script", [train_stage1, train_stage2])
def test_the_weights_of_the_loss_and_the_alignment_reach_where_they_count(script, trained, tmp_path, monkeypatch):
    asked, aligned = [], []
    true_loss, true_validate = script.reconstruction_loss, script.validate

    def loss(hdr_hat, hdr, vgg, lam, **rest):
        asked.append((rest["linear"], rest["decibel"], rest["sharp"], rest["seen"].shape))
        return true_loss(hdr_hat, hdr, vgg, lam, **rest)

    def validate(*arguments):
        aligned.append(arguments[4])
        return true_validate(*arguments)
    monkeypatch.setattr(script, "reconstruction_loss", loss)
    monkeypatch.setattr(script, "validate", validate)
    for flag in ("--align", "--no-align"):
        words = ["--epochs", "1", "--linear", "3", "--decibel", "0.5", "0.75", "--sharp", "0.25", flag]
        if script is train_stage1:
            stage1(tmp_path / flag, *words)
        else:
            stage2(tmp_path / flag, trained[0], "--warmup", "0", *words)
    assert set(asked) == {(3.0, (0.5, 0.75), 0.25, (4, 1, 32, 32))} and aligned == [True, False]


def one_line(script, *words):
    """Runs a script by itself; returns its stderr, after checking that it ended with code 2 and a single line."""
    done = subprocess.run([sys.executable, str(ROOT / script), *map(str, words)], capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def test_a_missing_data_set_is_one_line_that_says_what_is_expected_where(tmp_path):
    message = one_line("train_stage1.py", "--data", "kalantari", "--root", tmp_path / "nowhere", "--device", "cpu")
    assert str(tmp_path / "nowhere") in message and "HDRImg.hdr" in message and "https://" in message


def make_scene(folder, size=(37, 50), hdr=True):
    """A synthetic bracket as a user's folder: 8-bit PNGs and exposure.txt."""
    sample = SyntheticBrackets(size, seed=5)[0]
    for i, frame in enumerate(sample["ldr"]):
        write_image(folder / f"{i + 1}.png", (frame.permute(1, 2, 0) * 255).round().byte().numpy())
    (folder / "exposure.txt").write_text("\n".join(str(float(stops)) for stops in sample["ev"]))
    if hdr:
        write_image(folder / "HDRImg.hdr", sample["hdr"].permute(1, 2, 0).contiguous().numpy())
    return folder, sample


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


def test_equal_seeds_have_no_spread_and_the_spread_of_others_is_their_standard_deviation(trained):
    model, sample = load_weights(trained[1] / "weights.pt"), SyntheticBrackets(48, seed=3)[0]
    ldr, ev = sample["ldr"][None], sample["ev"][None]
    mean, spread = infer.sample_images(model, ldr, ev, [4, 4, 4])
    images = [lfdiff.reconstruct(model, ldr, ev, generator=torch.Generator().manual_seed(seed)) for seed in (4, 5, 6)]
    assert torch.equal(spread, torch.zeros(1, 1, 48, 48)) and torch.equal(mean, images[0])
    mean, spread = infer.sample_images(model, ldr, ev, [4, 5, 6])
    stack = torch.stack(images).double()
    assert spread.min() > 0 and (mean - stack.mean(0)).abs().max() < 1e-6
    assert (spread - T(stack).var(0, correction=0).mean(1, keepdim=True).sqrt()).abs().max() < 1e-6


def test_regions_are_those_of_a_hand_made_bracket():
    H = torch.tensor([0.1, 0.9, 0.9, 0.1, 0.25])                # of the five pixels at the reference's moment; it saturates at 1/4
    short = torch.tensor([0.1, 0.9, 0.1, 0.9, 0.25])            # at the short frame's: something dark has moved before the third
    frames = [(radiance * 2 ** stops).clamp(0, 1) ** (1 / 2.2) for radiance, stops in ((short, 0), (H, 2), (H, 4))]
    ldr = torch.stack(frames)[None, :, None, None, :].repeat(1, 1, 3, 1, 1)                 # (1, 3, 3, 1, 5)
    found = [region.flatten().tolist() for region in infer.regions(ldr, torch.tensor([[0.0, 2.0, 4.0]])).values()]
    assert found == [[False, False, True, False, False], [False, True, False, False, True], [True, False, False, True, False]]


def test_infer_with_samples_writes_the_map_of_their_spread(trained, tmp_path, capsys):
    scene, _ = make_scene(tmp_path / "scene", hdr=False)
    for samples in (1, 3):
        run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", tmp_path / str(samples), "--samples", samples, "--device", "cpu")
    assert read_image(tmp_path / "3" / "scene_spread.png").shape[1] > 1000 and not (tmp_path / "1" / "scene_spread.png").exists()
    assert "not saturated" in capsys.readouterr().out
    assert (tmp_path / "3" / "scene.hdr").read_bytes() != (tmp_path / "1" / "scene.hdr").read_bytes()


def test_infer_registers_hand_held_frames_unless_told_not_to(trained, tmp_path, capsys):
    scene, sample = make_scene(tmp_path / "scene", size=(160, 192))
    short = (sample["ldr"][0].roll((5, -7), (1, 2)).permute(1, 2, 0) * 255).round().byte().numpy()
    write_image(scene / "1.png", np.ascontiguousarray(short))
    score = {}
    for words in ([], ["--no-register"]):
        run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", tmp_path / "out", "--device", "cpu", *words)
        said = capsys.readouterr().out
        assert ("registered by" in said) == (not words)
        score[bool(words)] = float(next(line for line in said.splitlines() if line.startswith("weighted merge")).split()[2])
    assert score[False] > score[True] + 1           # of the plain merge, in dB


def test_infer_follows_what_moved_unless_told_not_to_and_merges_the_frames_that_it_did_not_follow(trained, tmp_path, monkeypatch, capsys):
    scene, _ = make_scene(tmp_path / "scene", size=(64, 80))
    network, said = [], []
    reconstruct = infer.reconstruct
    monkeypatch.setattr(infer, "reconstruct", lambda model, ldr, *rest: network.append(ldr) or reconstruct(model, ldr, *rest))
    for words in ([], ["--no-flow"]):
        run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", tmp_path / "out", "--device", "cpu", "--no-register", *words)
        said.append(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("weighted merge")))
    sample = load_scene(scene)
    followed = follow_flow(sample["ldr"], sample["ev"])
    assert torch.equal(network[0][0], followed) and torch.equal(network[1][0], sample["ldr"]) and not torch.equal(followed, sample["ldr"])
    assert said[0] == said[1]


def test_infer_takes_tiles_by_itself_above_its_limit_and_none_when_told(trained, tmp_path, monkeypatch):
    scene, _ = make_scene(tmp_path / "scene", size=(277, 300), hdr=False)
    tiles, rebuild = [], lfdiff.rebuild_in_tiles
    monkeypatch.setattr(lfdiff, "rebuild_in_tiles", lambda *arguments: tiles.append(arguments[3]) or rebuild(*arguments))
    monkeypatch.setattr(infer, "TILE", 272)
    for out, words, limit in (("whole", [], 10 ** 6), ("tiled", [], 1000), ("named", ["--tile", "256"], 10 ** 6), ("never", ["--tile", "-1"], 1000)):
        monkeypatch.setattr(infer, "WHOLE", limit)
        run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", tmp_path / out, "--device", "cpu", *words)
    assert tiles == [272, 256]
    images = {out: read_image(tmp_path / out / "scene.hdr") for out in ("whole", "tiled", "named", "never")}
    assert np.array_equal(images["whole"], images["never"])
    assert all(images[out].shape == (277, 300, 3) and psnr(*(T(torch.from_numpy(images[name])) for name in (out, "whole"))) > 40 for out in ("tiled", "named"))


def test_infer_may_write_into_the_scene_and_run_again(trained, tmp_path):
    scene, _ = make_scene(tmp_path / "scene", hdr=False)
    for _ in range(2):
        run_script(infer, "--scene", scene, "--weights", trained[1] / "weights.pt", "--out", scene, "--device", "cpu")
    assert (scene / "scene_panel.png").is_file()


def test_infer_says_in_one_line_what_is_wrong(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "three or more" in one_line("infer.py", "--scene", tmp_path / "empty")
    assert "truth" in one_line("infer.py", "--scene", make_scene(tmp_path / "s")[0], "--weights", trained[0] / "last.pt", "--device", "cpu")


def test_the_shipped_weights_beat_the_reference_and_the_merge_by_2_db_on_the_example(tmp_path, capsys):
    run_script(infer, "--scene", ROOT / "examples" / "cafe", "--out", tmp_path, "--device", "cpu")
    said = capsys.readouterr().out.splitlines()
    psnr_mu = {name: float(line.removeprefix(name).split()[0]) for line in said for name in ("reference alone", "weighted merge", "LF-Diff")
               if line.startswith(name)}
    assert psnr_mu["LF-Diff"] > max(psnr_mu["reference alone"], psnr_mu["weighted merge"]) + 2


@pytest.mark.parametrize("name", ["align", "lpenet", "dhrnet", "denoiser", "ddim", "loss", "lfdiff"])
def test_a_component_run_by_itself_prints_its_shapes(name, capsys):
    runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")
    promised = {"align": "-> (1, 60, 64, 64)   489,720 parameters", "lpenet": "z (1, 3, 32, 32)   151,203 parameters",
                "dhrnet": "-> (1, 3, 64, 64)", "denoiser": "-> (2, 3, 32, 32)", "ddim": "t = [200, 180,", "loss": "phi_44 (512 channels)",
                "lfdiff": "7.48 M"}
    assert promised[name] in capsys.readouterr().out
