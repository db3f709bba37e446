"""train_stage1.py, train_stage2.py, training.py: what a run learns, leaves behind, resumes and refuses."""

import os
import re
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import train_stage1
import train_stage2
import training
from beyond.checkpoints import load_checkpoint, save_checkpoint
from beyond.config import BeyondConfig
from beyond.weights import load_weights
from brackets.prepare import UNPREPARED, PrepareConfig
from lfdiff import Stage1, Stage2
from scripts import DATA, DM, NET, PLAIN_BRACKETS, ROOT, column, make_scene, one_line, run_script, same, stage1, stage2, weights
from synthetic.dataset import SyntheticBrackets
from training import Run


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
    assert len(column(second, "val_psnr_mu_mean")) == 5     # with the mean, the true and the predicted prior
    assert column(second, "val_psnr_mu_true") != column(second, "val_psnr_mu_predicted")
    before, after = weights(first), weights(second)
    assert any(not torch.equal(after[name], before[name]) for name in before if name.startswith("dhrnet."))
    lpenet = load_checkpoint(second / "last.pt")["lpenet"]
    assert all(torch.equal(lpenet[name], before["lpenet." + name]) for name in lpenet)


def test_the_prior_is_standardised_by_the_training_set(trained):
    first, second = trained
    model = load_weights(second / "best.pt")
    teacher = load_weights(first / "last.pt").lpenet
    train_set = SyntheticBrackets(32, seed=0, length=16, config=PLAIN_BRACKETS)
    z = model.standardise(teacher(torch.stack([train_set[i]["hdr"] for i in range(8)])))    # the two batches that were measured
    assert z.mean((0, 2, 3)).abs().max() < 1e-4 and (z.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-3


def test_training_goes_on_from_weights_with_their_architecture(trained, tmp_path):
    first, second = trained
    file = second / "weights.pt"
    shipped = load_checkpoint(file)
    run_script(train_stage1, *DATA, "--init", file, "--epochs", "1", "--lr", "1e-9", "--out", tmp_path / "one")     # no --channels: the file knows
    run_script(train_stage2, *DATA, "--init", file, "--epochs", "1", "--lr", "1e-9", "--out", tmp_path / "two")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in shipped["model"].items():
        assert torch.allclose(two[name].float(), value.float(), atol=1e-6), name                # z_mean and z_std too
        assert not name.startswith("dhrnet.") or torch.allclose(one[name], value.float(), atol=1e-6), name
    for name, value in shipped["lpenet"].items():
        assert torch.allclose(one["lpenet." + name], value.float(), atol=1e-6), name
    assert load_checkpoint(tmp_path / "one" / "last.pt")["config"] == shipped["config"]


def test_stage_2_has_a_dhrnet_correct_a_merge_that_did_not_and_keeps_the_rest(trained, tmp_path):
    first, second = trained
    run_script(train_stage2, *DATA, "--init", second / "weights.pt", "--correct", "--epochs", "2", "--lr", "1e-3", "--warmup", "0", "--out", tmp_path / "two")
    saved = load_checkpoint(tmp_path / "two" / "last.pt")
    assert saved["correct"] and saved["model"]["dhrnet.blend.weigh.weight"].abs().max() > 0       # and it learns
    run_script(train_stage2, *DATA, "--init", tmp_path / "two" / "weights.pt", "--epochs", "1", "--lr", "1e-9", "--out", tmp_path / "three")
    assert "dhrnet.blend.weigh.weight" in weights(tmp_path / "three")
    config = train_stage2.Stage2Config(init=str(second / "weights.pt"), beyond=BeyondConfig(correct=True))
    with pytest.raises(ValueError, match="--split leaves it as it is"):
        train_stage2.first_networks(replace(config, split=True), torch.device("cpu"))
    network, _ = train_stage2.first_networks(config, torch.device("cpu"))
    before, now = load_checkpoint(second / "weights.pt")["model"], network.state_dict()
    assert all(torch.equal(now[name], value.float()) for name, value in before.items() if not name.startswith("dhrnet.out."))
    assert now["dhrnet.out.weight"].abs().max() == 0        # Eq. 10 no longer paints the image; what it corrects, it has to learn


def test_the_shipped_weights_hold_what_training_needs_to_go_on():
    file = ROOT / "weights" / "lfdiff.pt"
    network, lpenet = train_stage2.first_networks(train_stage2.Stage2Config(init=str(file)), torch.device("cpu"))
    assert all(value.isfinite().all() for value in [*network.parameters(), *lpenet.parameters()]) and file.stat().st_size < 16e6
    assert network.z_std.min() > 0.1 and not any(parameter.requires_grad for parameter in lpenet.parameters())


def test_training_refuses_to_go_on_from_the_weights_of_something_else(trained, tmp_path):
    message = one_line("train_stage2.py", *DATA, "--init", trained[0] / "last.pt", "--out", tmp_path / "a")
    assert "variant s1" in message and "train_stage2.py" in message
    assert "holds variant s2" in one_line("train_stage1.py", *DATA, "--baseline", "--init", trained[1] / "weights.pt", "--out", tmp_path / "b")


def test_checkpoints_that_do_not_fit_are_one_line_with_file_and_tensor(trained, tmp_path):
    first, second = trained
    saved = load_checkpoint(second / "weights.pt")
    lost = next(name for name in saved["model"] if name.startswith("dhrnet."))
    saved["model"].pop(lost)
    save_checkpoint(tmp_path / "missing.pt", saved)
    for script in (train_stage1, train_stage2):
        with pytest.raises(ValueError, match=rf"missing\.pt: {re.escape(lost)} is missing; "):
            run_script(script, *DATA, "--init", tmp_path / "missing.pt", "--out", tmp_path / "run")
    save_checkpoint(tmp_path / "first.pt", {**load_checkpoint(first / "last.pt"), "model": saved["model"]})
    with pytest.raises(ValueError, match=r"first\.pt: .*; "):
        run_script(train_stage2, *DATA, *DM, "--stage1", tmp_path / "first.pt", "--out", tmp_path / "run")


@pytest.mark.parametrize("name", ["optimiser", "training", "best", "trained"])
def test_a_checkpoint_without_a_part_or_with_another_s_cannot_be_resumed(name, tmp_path):
    stage1(tmp_path, "--epochs", "1")
    saved = load_checkpoint(tmp_path / "last.pt")
    save_checkpoint(tmp_path / "last.pt", {key: value for key, value in saved.items() if key != name})
    with pytest.raises(ValueError, match=rf"last\.pt: has no {name}, .*; name"):
        stage1(tmp_path, "--epochs", "2", "--resume")
    if name not in ("training", "best"):
        save_checkpoint(tmp_path / "last.pt", {**saved, name: {"param_groups": 3}})
        with pytest.raises(ValueError, match=r"last\.pt: .*; "):
            stage1(tmp_path, "--epochs", "2", "--resume")


def test_the_prior_is_left_as_it_is_when_no_batches_are_to_be_measured(trained, tmp_path):
    after = weights(stage2(tmp_path, trained[0], "--epochs", "1", "--prior-batches", "0"))
    assert after["z_mean"].eq(0).all() and after["z_std"].eq(1).all()


def test_split_training_leaves_dhrnet_as_stage_1_made_it(trained, tmp_path):
    before, after = weights(trained[0]), weights(stage2(tmp_path, trained[0], "--epochs", "1", "--split", "--warmup", "0"))
    names = [name for name in before if name.startswith("dhrnet.")]
    assert names and all(torch.equal(before[name], after[name]) for name in names)


def test_split_training_does_not_ask_for_vgg19(trained, tmp_path):
    """It never computes Eq. 11."""
    words = ("--epochs", "1", "--lam", "0.01", "--vgg", tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        stage2(tmp_path / "joint", trained[0], *words)
    assert len(column(stage2(tmp_path / "split", trained[0], *words, "--split"), "L_diff")) == 1


@pytest.mark.parametrize("script", [train_stage1, train_stage2])
def test_l_r_in_the_log_is_eq_11_whatever_is_added_to_it(script, trained, tmp_path):
    words = ("--epochs", "1", "--log-every", "1", "--linear", "1")
    out = stage1(tmp_path, *words) if script is train_stage1 else stage2(tmp_path, trained[0], *words, "--warmup", "0")
    assert column(out, "L_r") == column(out, "L1_mu") and min(column(out, "L1_lin")) > 0


def test_without_a_diffusion_model_there_is_no_denoiser_and_no_noise_loss(trained, tmp_path):
    out = stage2(tmp_path, trained[0], "--epochs", "1", "--without-dm", "--warmup", "0")
    assert not any(name.startswith("denoiser") for name in weights(out)) and column(out, "L_eps") == [] and len(column(out, "L1_z")) == 1


def test_the_baseline_trains_without_a_prior(tmp_path):
    out = stage1(tmp_path, "--epochs", "1", "--baseline")
    assert not any("lpenet" in name or "low.k" in name for name in weights(out)) and load_checkpoint(out / "last.pt")["variant"] == "baseline"


@pytest.mark.parametrize(("script", "ema"), [(train_stage1, 0), (train_stage1, 0.9), (train_stage2, 0.9)])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(script, ema, trained, tmp_path, monkeypatch):
    def train(out, *words):
        words = ("--epochs", "2", "--decay-epochs", "1", "--seed", "3", "--ema", ema, *words)
        return stage1(out, *words) if script is train_stage1 else stage2(out, trained[0], *words)
    whole = train(tmp_path / "whole")
    keep = Run.save

    def save_and_stop(run, name):
        keep(run, name)
        if run.step == 4 and name == "last.pt":
            raise KeyboardInterrupt
    monkeypatch.setattr(Run, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut")
    monkeypatch.undo()
    cut = train(tmp_path / "cut", "--resume")
    assert load_checkpoint(cut / "last.pt")["step"] == 8
    assert same(weights(whole), weights(cut))
    trained_weights = [load_checkpoint(folder / "last.pt")["trained"] for folder in (whole, cut)]
    assert same(*trained_weights) and same(trained_weights[0], weights(whole)) == (not ema)
    best = [load_checkpoint(folder / "best.pt") for folder in (whole, cut)]
    assert best[0]["step"] == best[1]["step"] and same(best[0]["model"], best[1]["model"])
    saved = [load_checkpoint(folder / "last.pt")["optimiser"]["state"] for folder in (whole, cut)]
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
    (tmp_path / "last.pt").unlink()         # the best weights alone are a run's result, too
    with pytest.raises(ValueError, match="best.pt: would be replaced, and there is no last.pt to resume"):
        stage1(tmp_path, "--epochs", "1")


def test_the_mean_of_the_weights_is_its_sum_written_out():
    def follow(ema, values):
        trained, average = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        average.weight.data.fill_(2.0)
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
    last, best, saved = (load_checkpoint(out / name) for name in ("last.pt", "best.pt", "weights.pt"))
    assert not same(last["model"], last["trained"])
    assert same(saved["model"], {name: value.half() for name, value in best["model"].items()})


@pytest.mark.parametrize("words", [["--batch", "0"], ["--ema", "1"], ["--val-every", "0"], ["--epochs", "0"], ["--patch", "30"], ["--data", "flowers"],
                                   ["--heads", "3"], ["--pool-pim", "2"], ["--upsample", "cubic"], ["--precision", "float8"], ["--device", "abacus"],
                                   ["--device", "meta"], ["--heads", "0"], ["--channels", "-8"], ["--lr", "nan"], ["--clip", "0"], ["--seed", "-1"],
                                   ["--seed", str(2 ** 70)], ["--decibel", "0", "inf"], ["--workers", "-1"], ["--save-every", "0"]])
def test_a_setting_out_of_range_is_named_before_anything_starts(words, tmp_path):
    with pytest.raises(ValueError, match=words[0]):
        stage1(tmp_path, "--epochs", "1", *words)
    assert not any(tmp_path.glob("[!.]*"))


@pytest.mark.parametrize(("script", "warmup"), [(train_stage1, None), (train_stage2, "0"), (train_stage2, "1")])
def test_two_processes_give_the_weights_of_one_with_the_same_global_batch(script, warmup, trained, tmp_path):
    """Stage 1 runs four steps. Stage 2 runs one, joint or of the diffusion alone: where the true gradient is 0 (a bias before a GroupNorm),
    Adam turns rounding errors into a whole step, and from the second step on the runs differ by that."""
    words = [*DATA, "--epochs", "1", "--lr", "1e-3", "--clip", "1e9"]
    words += NET if script is train_stage1 else [*DM, "--samples", "4", "--stage1", str(trained[0] / "last.pt"), "--warmup", warmup]
    alone, together = tmp_path / "alone", tmp_path / "together"
    run_script(script, *words, "--out", alone)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / f"{script.__name__}.py"),
                           *words, "--out", str(together)], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    a, b = (load_checkpoint(folder / "last.pt") for folder in (alone, together))
    assert a["optimiser"]["state"].keys() == b["optimiser"]["state"].keys()     # of the diffusion alone: DHRNet has no gradient in either
    losses = [column(folder, "L_r" if warmup != "1" else "L_diff") for folder in (alone, together)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)                      # the log is of the whole batch, not of one process's share
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

    def broken(*arguments):
        L_r, terms = true_loss(*arguments)
        return L_r * float("nan"), terms
    monkeypatch.setattr(train_stage1, "reconstruction_loss", broken)
    with pytest.raises(ValueError, match=r"step 8: L_r is nan.*last\.pt.*lower --lr"):
        stage1(tmp_path, "--epochs", "2", "--resume")
    assert (tmp_path / "last.pt").read_bytes() == before
    monkeypatch.undo()
    monkeypatch.setattr(training, "validate", lambda *_: {"": (float("nan"), float("nan"))})
    with pytest.raises(ValueError, match="step 8: val_psnr_mu is nan"):
        stage1(tmp_path, "--epochs", "2", "--resume")
    assert (tmp_path / "last.pt").read_bytes() == before


@pytest.mark.parametrize("script", [train_stage1, train_stage2])
def test_the_further_terms_and_the_alignment_are_off_by_default_and_reach_where_they_count(script, trained, tmp_path, monkeypatch):
    asked, prepared, true_terms = [], [], script.further_terms

    def terms(beyond, *images):
        asked.append((beyond.linear, beyond.decibel))
        return true_terms(beyond, *images)

    def prepare(sample, config):
        prepared.append(config)
        return sample
    monkeypatch.setattr(script, "further_terms", terms)
    monkeypatch.setattr(training, "prepared_sample", prepare)
    for name, flags in (("paper", []), ("beyond", ["--linear", "3", "--decibel", "0.5", "0.75", "--align"])):
        words = ["--epochs", "1", *flags]
        out = stage1(tmp_path / name, *words) if script is train_stage1 else stage2(tmp_path / name, trained[0], "--warmup", "0", *words)
        assert load_checkpoint(out / "last.pt")["prepare"] == asdict(PrepareConfig() if flags else UNPREPARED)
        assert (len(column(out, "dB_l")) if flags else "dB_l" not in (out / "log.csv").read_text()) == 1
    assert set(asked) == {(0.0, (0.0, 0.0)), (3.0, (0.5, 0.75))} and prepared == [UNPREPARED, PrepareConfig()]


def test_every_default_is_the_paper_s():
    """Sec. 5.1 and 4.1; the two departures that training needs (D3, D4) and nothing else."""
    one, two = train_stage1.Stage1Config(), train_stage2.Stage2Config()
    for config in (one, two):
        t = config.training
        assert (t.data, t.patch, t.stride, t.batch, t.epochs, t.lr, t.decay, t.decay_epochs) == ("kalantari", 128, 64, 64, 300, 1e-4, 0.1, 50)
        assert asdict(config.beyond) == {"align": False, "correct": False, "cosine": 0, "ema": 0.0, "linear": 0.0, "decibel": (0.0, 0.0)}
        assert config.loss.lam == 1e-2 and config.beyond.prepare == UNPREPARED
    assert (one.dhrnet.channels, one.dhrnet.frms, one.dhrnet.heads) == (60, (3, 3, 3), 6)
    assert (two.diffusion.T, two.diffusion.S, two.diffusion.predict, two.warmup) == (200, 10, "v", 0.3)


def test_more_epochs_on_resuming_do_not_move_the_end_of_the_warm_up(trained, tmp_path):
    """4 + 12 steps: the warm-up of half the steps ended after 2, and after it every step has an L_r."""
    out = stage2(tmp_path, trained[0], "--epochs", "1", "--warmup", "0.5", "--log-every", "1")
    assert len(column(out, "L_diff")) == 4 and len(column(out, "L_r")) == 2
    saved = load_checkpoint(out / "last.pt")
    save_checkpoint(out / "last.pt", {**saved, "warmup_steps": None})
    with pytest.raises(ValueError, match=r"last\.pt: its warmup_steps is None, from which no run can continue; start from it with --init"):
        stage2(tmp_path, trained[0], "--epochs", "4", "--warmup", "0.5", "--log-every", "1", "--resume")
    save_checkpoint(out / "last.pt", saved)
    stage2(tmp_path, trained[0], "--epochs", "4", "--warmup", "0.5", "--log-every", "1", "--resume")
    assert len(column(out, "L_diff")) == 16 and len(column(out, "L_r")) == 14


def test_networks_are_in_training_mode_in_the_loop_and_in_evaluation_mode_in_validation(trained, tmp_path, monkeypatch):
    seen, forward, rebuild = {"loop": set(), "validation": set()}, Stage2.forward, Stage2.rebuild
    monkeypatch.setattr(Stage2, "forward", lambda self, *inputs: seen["loop"].add(self.training) or forward(self, *inputs))

    def rebuild_and_note(self, *inputs):
        if not torch.is_grad_enabled():
            seen["validation"].add(self.training)
        return rebuild(self, *inputs)
    monkeypatch.setattr(Stage2, "rebuild", rebuild_and_note)
    stage2(tmp_path, trained[0], "--epochs", "2", "--warmup", "0")
    assert seen == {"loop": {True}, "validation": {False}}


def test_stage_1_too_trains_in_training_mode_and_validates_in_evaluation_mode(tmp_path, monkeypatch):
    seen, forward = {True: set(), False: set()}, Stage1.forward
    monkeypatch.setattr(Stage1, "forward", lambda self, *inputs: seen[torch.is_grad_enabled()].add(self.training) or forward(self, *inputs))
    stage1(tmp_path, "--epochs", "2")
    assert seen == {True: {True}, False: {False}}


def test_a_new_setting_orphans_no_run(tmp_path):
    stage1(tmp_path, "--epochs", "1")
    saved = load_checkpoint(tmp_path / "last.pt")
    del saved["training"]["training"]["val_on"]
    save_checkpoint(tmp_path / "last.pt", saved)
    stage1(tmp_path, "--epochs", "2", "--resume")
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 8


def test_a_constant_channel_of_the_prior_is_left_at_its_scale():
    class Constant(torch.nn.Module):
        def forward(self, hdr):
            return torch.stack([torch.full_like(hdr[:, 0], 3.0), hdr[:, 1], hdr[:, 2]], dim=1)
    config = training.TrainingConfig(data="synthetic", batch=4, workers=0)
    mean, std = train_stage2.measure_prior(Constant(), SyntheticBrackets(32, length=8, config=PLAIN_BRACKETS), config, 2, torch.device("cpu"))
    assert mean[0, 0].item() == 3 and std[0, 0].item() == 1 and 0 < std[0, 1].item() < 1


def make_kalantari(root, train, test):
    for split, count in (("Training", train), ("Test", test)):
        for k in range(count):
            make_scene(root / split / f"{k:03d}", size=(32, 48))


def test_the_best_checkpoint_is_chosen_on_scenes_held_back_from_training(tmp_path):
    make_kalantari(tmp_path, 7, 2)
    settings = training.TrainingConfig(root=str(tmp_path), patch=16, val_scenes=3, workers=0)
    train_set, val_set = training.open_data(settings, BeyondConfig())
    held_back = {sample["name"] for sample in val_set}
    assert held_back == {"000", "002", "004"} and {file.name[:3] for file in train_set.files} == {"001", "003", "005", "006"}
    train_set, val_set = training.open_data(replace(settings, val_on="test", val_scenes=0), BeyondConfig())
    assert len(train_set.files) == 7 and [sample["ldr"].shape[-1] for sample in val_set] == [48, 48]
    with pytest.raises(ValueError, match="--val-scenes 7: only 7 training scenes .*; hold back fewer"):
        training.open_data(replace(settings, val_scenes=7), BeyondConfig())


def test_validation_scenes_are_prepared_once(tmp_path, monkeypatch):
    calls, true_prepare = [], training.prepared_sample
    monkeypatch.setattr(training, "prepared_sample", lambda *arguments: calls.append(1) or true_prepare(*arguments))
    stage1(tmp_path, "--epochs", "3")                       # three validations of one scene
    assert len(column(tmp_path, "val_psnr_mu")) == 3 and len(calls) == 1


def test_a_missing_data_set_is_one_line_that_says_what_is_expected_where(tmp_path):
    message = one_line("train_stage1.py", "--data", "kalantari", "--root", tmp_path / "nowhere", "--device", "cpu")
    assert str(tmp_path / "nowhere") in message and "HDRImg.hdr" in message and "https://" in message
