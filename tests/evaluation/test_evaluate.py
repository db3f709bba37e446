"""evaluate.py, scoring.py, report.py: the numbers of the tables, against hand values, numpy and scikit-image."""

import csv
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import common
import evaluate
from beyond.checkpoints import save_checkpoint
from beyond.config import BeyondConfig
from beyond.weights import architecture, save_weights
from brackets.files import read_image, write_image
from brackets.flow import follow_flow
from brackets.merge import weighted_merge
from brackets.prepare import UNPREPARED, AlignmentConfig, PrepareConfig, prepare
from brackets.register import register
from brackets.scenes import load_scene
from by_other_means import assert_scored, expected, mu_law
from data import T, psnr
from ddim import DiffusionConfig
from denoiser import DenoiserConfig
from dhrnet import DHRNetConfig
from evaluation import report, scoring
from evaluation.hdrvdp2 import hdrvdp2
from lfdiff import LFDiffConfig, build, reconstruct
from loss import LossConfig
from lpenet import LPENetConfig
from synthetic.dataset import FIRST, SyntheticBrackets, SyntheticConfig
from train_stage1 import Stage1Config
from train_stage2 import Stage2Config
from training import TrainingConfig, open_data

ROOT = Path(__file__).parents[2]
TINY = LFDiffConfig(DHRNetConfig(channels=8, heads=2, frms=(1,), high_blocks=1), LPENetConfig(prior_width=8, prior_blocks=1),
                    DenoiserConfig(unet_width=8, unet_multipliers=(1, 1, 1), unet_blocks=1), DiffusionConfig(S=3))
PLAIN = ["--device", "cpu", "--precision", "float32"]


def tiny(variant, seed=0):
    """Makes a random network in which every part matters: zero-initialised weights get values, too."""
    torch.manual_seed(seed)
    model = build(variant, TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def run_evaluate(*words):
    """Runs main() in this process with a command line."""
    before = sys.argv
    sys.argv = ["evaluate.py", *PLAIN, *map(str, words)]
    try:
        evaluate.main()
    finally:
        sys.argv = before


def scores(out):
    """Returns {(scene, method): row of scores.csv}, numbers as floats."""
    with open(out / "scores.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {(row["scene"], row["method"]): {key: float(value) if re.fullmatch(r"-?[\d.]+(e-?\d+)?|inf", value) else value for key, value in row.items()}
            for row in rows}


def write_scene(folder, index, size=(37, 50), hdr=True):
    """Writes a synthetic bracket as a user's folder: 16-bit PNGs, exposure.txt, HDRImg.hdr."""
    sample = SyntheticBrackets(size, seed=5, config=SyntheticConfig(**FIRST))[index]
    for i, frame in enumerate(sample["ldr"]):
        write_image(folder / f"{i + 1}.png", (frame.permute(1, 2, 0) * 65535).round().numpy().astype(np.uint16))
    (folder / "exposure.txt").write_text("\n".join(str(float(stops)) for stops in sample["ev"]))
    if hdr:
        write_image(folder / "HDRImg.hdr", sample["hdr"].permute(1, 2, 0).contiguous().numpy())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three scenes with a truth, one without, and weights of three variants. Nothing writes into it."""
    folder = tmp_path_factory.mktemp("world")
    for i, name in enumerate(("alley", "bridge", "court")):
        write_scene(folder / "scenes" / name, i)
    write_scene(folder / "wild" / "dusk", 3, hdr=False)
    for variant in ("s2", "s1", "baseline"):
        save_weights(folder / f"{variant}.pt", tiny(variant), PrepareConfig(), {})
    return folder


# --- the whole script -------------------------------------------------------------------------------------------------

def test_networks_and_the_merges_get_aligned_frames_and_the_weighted_merge_does_not():
    sample = SyntheticBrackets(160, seed=8, config=SyntheticConfig(**FIRST))[1]
    sample["ldr"][0] = sample["ldr"][0].roll((6, -5), (1, 2))
    merges = {name: scoring.plain_method(name).predict("", sample) for name in ("weighted merge", *scoring.MERGES)}
    assert torch.equal(merges["weighted merge"][0], scoring.PLAIN["weighted merge"](sample["ldr"][None], sample["ev"][None])[0])
    inner = (..., slice(16, -16), slice(16, -16))
    registered, aligned, plain = (psnr(T(merges[name][0][inner]), T(sample["hdr"][inner])) for name in (*scoring.MERGES, "weighted merge"))
    assert registered > plain + 1 and aligned > plain + 1
    registered, homographies = register(sample["ldr"], sample["ev"])
    followed = follow_flow(sample["ldr"], sample["ev"], homographies)
    expected = weighted_merge(followed[None], sample["ev"][None])[0]
    assert torch.equal(merges["merge, aligned"][0], expected)
    model = tiny("s2")
    def predict(register, flow):
        model.prepare, config = PrepareConfig(), evaluate.EvaluateConfig(alignment=AlignmentConfig(register=register, flow=flow))
        return scoring.network_method("s2", model, config, torch.device("cpu"), torch.float32).predict("", sample)
    found = [predict(*flags) for flags in ((True, True), (True, False), (False, False))]
    for hdr_hat, ldr in zip(found, (followed, registered, sample["ldr"])):
        assert torch.equal(hdr_hat, reconstruct(model, ldr[None], sample["ev"][None], generator=torch.Generator().manual_seed(0)))
    assert not torch.allclose(found[0], found[1], atol=1e-4) and not torch.allclose(found[1], found[2], atol=1e-4)


def test_frames_are_prepared_as_the_weights_were_trained_unless_a_flag_says_otherwise(world, tmp_path, monkeypatch):
    names = {"a": UNPREPARED, "b": PrepareConfig(response=False, flow=False), "c": PrepareConfig()}
    for name, trained in names.items():
        save_weights(tmp_path / f"{name}.pt", tiny("s2"), trained, {})
    asked, real = [], scoring.prepare

    def watched(ldr, ev, config, where):
        asked.append(config)
        return real(ldr, ev, config)
    monkeypatch.setattr(scoring, "prepare", watched)
    words = ["--data", "folder", "--root", world / "wild", "--out", tmp_path / "out", "--weights", *(tmp_path / f"{name}.pt" for name in names)]
    for flags, wanted in (([], names.values()), (["--register"], [PrepareConfig(True, False, False), names["b"], names["c"]]),
                          (["--no-register", "--no-flow"], [UNPREPARED, UNPREPARED, PrepareConfig(False, True, False)]),
                          (["--response"], [PrepareConfig(False, True, False), PrepareConfig(True, True, False), names["c"]])):
        asked.clear()
        run_evaluate(*words, *flags)
        assert asked == [config for config in wanted for _ in range(2)]         # a first pass and the one that counts


def test_sampler_is_that_of_the_command_line(world, tmp_path):
    words, sample = ["--data", "folder", "--root", world / "wild", "--weights", world / "s2.pt"], load_scene(world / "wild" / "dusk")
    ldr, model = prepare(sample["ldr"], sample["ev"]).ldr, tiny("s2").half().float()
    for sampler in ("ddim", "ancestral"):
        run_evaluate(*words, "--sampler", sampler, "--out", tmp_path / sampler)
        hdr_hat = reconstruct(model, ldr[None], sample["ev"][None], sampler=sampler, generator=torch.Generator().manual_seed(0))[0].permute(1, 2, 0).numpy()
        assert np.abs(read_image(tmp_path / sampler / "s2" / "dusk.hdr") - hdr_hat).max() < hdr_hat.max() / 256
    assert (tmp_path / "ddim" / "s2" / "dusk.hdr").read_bytes() != (tmp_path / "ancestral" / "s2" / "dusk.hdr").read_bytes()


def test_scores_are_those_of_the_reconstruction_and_of_what_one_has_anyway(world, tmp_path, capsys):
    run_evaluate("--data", "folder", "--root", world / "scenes", "--weights", world / "s2.pt", "--compare", "--seed", 4, "--out", tmp_path)
    rows, model = scores(tmp_path), tiny("s2").half().float()
    assert len(rows) == 4 * 5
    for name in ("alley", "bridge", "court"):
        sample = load_scene(world / "scenes" / name)
        with torch.no_grad():
            ldr = prepare(sample["ldr"], sample["ev"]).ldr
            hdr_hat = reconstruct(model, ldr[None], sample["ev"][None], generator=torch.Generator().manual_seed(4))[0]
        assert_scored(rows[name, "s2"], hdr_hat, sample["hdr"])
        assert rows[name, "s2"]["hdrvdp2"] == pytest.approx(hdrvdp2(hdr_hat, sample["hdr"]), abs=1e-3)
        assert_scored(rows[name, "reference alone"], sample["ldr"][1] ** 2.2 / 2 ** sample["ev"][1], sample["hdr"])
        assert rows[name, "weighted merge"]["psnr_mu"] not in (rows[name, "reference alone"]["psnr_mu"], rows[name, "s2"]["psnr_mu"])
    for method in ("s2", "reference alone", "weighted merge"):
        for key in ("psnr_mu", "psnr_l", "ssim_mu", "ssim_l", "hdrvdp2"):
            assert rows["average", method][key] == pytest.approx(np.mean([rows[name, method][key] for name in ("alley", "bridge", "court")]), rel=1e-9)
        assert rows["average", method]["seconds"] == np.median([rows[name, method]["seconds"] for name in ("alley", "bridge", "court")]) > 0
    assert all('sRGB-display, 30" screen' in row["hdrvdp2_settings"] for row in rows.values())

    said, written = capsys.readouterr().out, (tmp_path / "scores.md").read_text(encoding="utf-8")
    line = found_line(written, "| s2 ")
    assert line in said and [float(text) for text in line.split("|")[2:7]] == pytest.approx(
        [rows["average", "s2"][key] for key in ("psnr_mu", "psnr_l", "ssim_mu", "ssim_l", "hdrvdp2")], abs=6e-3)
    assert "23.787 pixels per degree" in said and "23.787 pixels per degree" in written and "3 scenes of folder, float32 on cpu, seed 4" in said
    assert read_image(tmp_path / "figure1.png").shape[1] == 900
    assert {path.name for path in tmp_path.glob("[!.]*")} == {"scores.csv", "scores.md", "figure1.png", "s2_worst.png", "s2_best.png"}


def test_pictures_are_of_the_worst_and_the_best_scene_of_each_weights_file(world, tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(scoring, "save_panel", lambda path, panels, columns: shown.update({path.name: dict(panels)}))
    run_evaluate("--data", "folder", "--root", world / "scenes", "--weights", world / "s2.pt", world / "baseline.pt", "--compare", "--no-hdrvdp2",
                 "--out", tmp_path)
    rows = scores(tmp_path)
    assert shown.keys() == {f"{method}_{which}.png" for method in ("s2", "baseline") for which in ("worst", "best")}
    for method in ("s2", "baseline"):
        ranked = sorted(("alley", "bridge", "court"), key=lambda name: rows[name, method]["psnr_mu"])
        for which, name in (("worst", ranked[0]), ("best", ranked[-1])):
            reference = next(image for title, image in shown[f"{method}_{which}.png"].items() if title.startswith("frame 2"))
            assert torch.equal(reference, load_scene(world / "scenes" / name)["ldr"][1])
    assert all(row["hdrvdp2"] == row["hdrvdp2_settings"] == "" for row in rows.values())


def test_synthetic_scenes_are_those_that_training_is_validated_by(world, tmp_path):
    _, val_set = open_data(TrainingConfig("synthetic", val_scenes=2, val_size=48), BeyondConfig())
    run_evaluate("--scenes", 2, "--size", 48, "--weights", world / "s2.pt", "--compare", "--no-hdrvdp2", "--out", tmp_path)
    found = [row["psnr_l"] for (scene, method), row in scores(tmp_path).items() if method == "reference alone" and scene != "average"]
    assert found == pytest.approx([expected(s["ldr"][1] ** 2.2 / 2 ** s["ev"][1], s["hdr"])["psnr_l"] for s in (val_set[0], val_set[1])], abs=1e-4)


def test_files_of_other_programs_are_scored_by_the_same_ruler(world, tmp_path, capsys):
    exact, grey = tmp_path / "exact", tmp_path / "grey"
    for name in ("alley", "bridge", "court"):
        (exact / name).mkdir(parents=True)
        (exact / name / "anything.hdr").write_bytes((world / "scenes" / name / "HDRImg.hdr").read_bytes())
        write_image(grey / f"{name}.hdr", np.full((37, 50, 3), 0.5 if name != "court" else 1.5, np.float32))
    run_evaluate("--data", "folder", "--root", world / "scenes", "--predictions", exact, grey, "--out", tmp_path / "out")
    rows, said = scores(tmp_path / "out"), capsys.readouterr().out
    assert {method for _, method in rows} == {"exact", "grey"}                  # no network: nobody asked for one
    for name in ("alley", "bridge", "court"):
        hdr = load_scene(world / "scenes" / name)["hdr"]
        assert [rows[name, "exact"][key] for key in ("psnr_mu", "psnr_l", "ssim_mu", "ssim_l", "hdrvdp2")] == [np.inf, np.inf, 1, 1, 100]
        assert_scored(rows[name, "grey"], torch.full_like(hdr, 0.5 if name != "court" else 1.0), hdr)
    assert "court.hdr: 100.0 % of the values are above 1" in said and "alley.hdr:" not in said and "bridge.hdr:" not in said
    assert rows["alley", "exact"]["seconds"] == "" and "figure1" not in said


def test_saved_results_score_as_predictions_to_the_8_bits_of_their_files(world, tmp_path):
    words = ["--data", "folder", "--root", world / "scenes", "--scenes", 2, "--no-hdrvdp2"]
    run_evaluate(*words, "--weights", world / "s2.pt", "--save", "--out", tmp_path / "a")
    run_evaluate(*words, "--predictions", tmp_path / "a" / "s2", "--compare", "--out", tmp_path / "b")
    a, b = scores(tmp_path / "a"), scores(tmp_path / "b")
    assert {method for _, method in b} == {"s2", "reference alone", "weighted merge", *scoring.MERGES}
    assert len(a) == 3 and all(a[key]["psnr_mu"] == pytest.approx(b[key]["psnr_mu"], abs=0.05) for key in a)


@pytest.mark.parametrize(("files", "error", "message"), [
    ({"alley.hdr": (37, 50)}, FileNotFoundError, r"found 0 files for the scene bridge; give bridge\.hdr, or one"),
    ({"alley/a.hdr": (37, 50), "alley/b.hdr": (37, 50)}, ValueError, "found 2 files for the scene alley"),
    ({"alley.hdr": (37, 49), "bridge.hdr": (37, 50), "court.hdr": (37, 50)}, ValueError, r"alley\.hdr: 49x37 pixels, the scene has 50x37"),
])
def test_a_missing_or_wrong_prediction_is_named(files, error, message, world, tmp_path):
    for name, size in files.items():
        write_image(tmp_path / "other" / name, np.zeros((*size, 3), np.float32))
    with pytest.raises(error, match=message):
        run_evaluate("--data", "folder", "--root", world / "scenes", "--predictions", tmp_path / "other", "--out", tmp_path / "out")


def test_scenes_without_a_truth_give_pictures_and_no_scores(world, tmp_path, capsys):
    run_evaluate("--data", "folder", "--root", world / "wild", "--weights", world / "s2.pt", "--compare", "--out", tmp_path)
    said = capsys.readouterr().out
    assert said.count("no truth: pictures only") == 5 and "PSNR" not in said
    sample = load_scene(world / "wild" / "dusk")
    ldr = prepare(sample["ldr"], sample["ev"]).ldr
    with torch.no_grad():
        hdr_hat = reconstruct(tiny("s2").half().float(), ldr[None], sample["ev"][None], generator=torch.Generator().manual_seed(0))[0]
    hdr_hat = hdr_hat.permute(1, 2, 0).numpy()
    assert np.abs(read_image(tmp_path / "s2" / "dusk.hdr") - hdr_hat).max() < hdr_hat.max() / 256
    assert np.abs(read_image(tmp_path / "s2" / "dusk.png") / 255 - mu_law(hdr_hat)).max() < 0.51 / 255
    assert (tmp_path / "reference_alone" / "dusk.hdr").is_file() and (tmp_path / "weighted_merge" / "dusk.png").is_file()
    assert not list(tmp_path.glob("*.png"))


def test_a_folder_may_be_a_scene_and_what_is_none_is_skipped_with_its_reason(world, tmp_path, capsys):
    run_evaluate("--data", "folder", "--root", world / "scenes" / "bridge", "--weights", world / "s2.pt", "--no-hdrvdp2", "--out", tmp_path / "out")
    assert {scene for scene, _ in scores(tmp_path / "out")} == {"bridge", "average"}
    write_scene(tmp_path / "mixed" / "b", 0)
    write_scene(tmp_path / "mixed" / "a", 1, hdr=False)
    write_scene(tmp_path / "mixed" / "c", 2)
    (tmp_path / "mixed" / "c" / "exposure.txt").write_text("0 2")
    capsys.readouterr()
    run_evaluate("--data", "folder", "--root", tmp_path / "mixed", "--weights", world / "s2.pt", "--no-hdrvdp2", "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert re.search(r"skipped: .*exposure\.txt: 2 exposures for 3 photographs", said) and "1 scenes have no truth" in said
    rows = scores(tmp_path / "out")
    assert list(rows) == [("a", "s2"), ("b", "s2"), ("average", "s2")] and rows["average", "s2"]["psnr_mu"] == rows["b", "s2"]["psnr_mu"]


def test_kalantaris_test_scenes_are_found_and_those_of_one_name_told_apart(world, tmp_path, capsys):
    for part in ("EXTRA", "PAPER"):
        for i in range(3):
            (tmp_path / "Test" / part / "001").mkdir(parents=True, exist_ok=True)
            image = read_image(world / "scenes" / "alley" / f"{i + 1}.png")
            write_image(tmp_path / "Test" / part / "001" / f"{i + 1}.tif", image)
        for name in ("exposure.txt", "HDRImg.hdr"):
            (tmp_path / "Test" / part / "001" / name).write_bytes((world / "scenes" / "alley" / name).read_bytes())
    run_evaluate("--data", "kalantari", "--root", tmp_path, "--weights", world / "s2.pt", "--no-hdrvdp2", "--out", tmp_path / "out")
    rows, said = scores(tmp_path / "out"), capsys.readouterr().out
    assert list(rows) == [("EXTRA_001", "s2"), ("PAPER_001", "s2"), ("average", "s2")]
    assert re.search(r"\| LF-Diff, paper \| 44\.76 +\| 42\.59 +\| 0\.9919 \| 0\.9906 \| 66\.54 ", said)


# --- Tables 3 and 4 ---------------------------------------------------------------------------------------------------

def write_run(folder, variant, config, model=None):
    """Writes best.pt as the train scripts do."""
    model = model or tiny(variant)
    save_checkpoint(folder / "best.pt", {**architecture(model, PrepareConfig()), "training": asdict(config), "step": 7, "best": 1.0,
                                                "model": model.state_dict()})
    return model


def found_line(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def cells(text, table, row):
    """Returns the cells of a row, without the first, from the table with this title."""
    return [part.strip() for part in found_line(text.split(f"| {table} ")[1], f"| {row} ").split("|")[2:-1]]


def test_table_3_scores_what_was_trained_and_says_how_to_train_the_rest(world, tmp_path, capsys):
    config = Stage1Config(out="my runs/s1", training=TrainingConfig(data="synthetic", seed=3, lr=5e-4, batch=4, compile=True), loss=LossConfig(lam=0.0),
                          dhrnet=TINY.dhrnet, lpenet=TINY.lpenet, beyond=BeyondConfig(align=True, decibel=(0.01, 0.02)))
    model = write_run(tmp_path / "runs" / "stage1", "s1", config)
    run_evaluate("--data", "folder", "--root", world / "scenes", "--scenes", 1, "--table", 3, "--runs", tmp_path / "runs", "--no-hdrvdp2",
                 "--out", tmp_path / "out")
    said, sample = capsys.readouterr().out, load_scene(world / "scenes" / "alley")

    # The prior of stage 1 comes from the truth: 37 x 50 reflected to 48 x 64 by numpy, and cut back.
    def padded(image):
        return torch.from_numpy(np.pad(image.numpy(), [(0, 0)] * (image.dim() - 2) + [(0, 11), (0, 14)], mode="reflect"))
    t = (2.0 ** sample["ev"])[:, None, None, None]
    X = torch.cat([padded(sample["ldr"]), padded(sample["ldr"]) ** 2.2 / t], dim=1)[None]
    with torch.no_grad():
        hdr_hat = model.dhrnet(X, model.lpenet(padded(sample["hdr"])[None]))[0, :, :37, :50]
    by_hand = expected(hdr_hat, sample["hdr"])

    paper_m, ours_m, paper, ours, trained_on, scored_on, seed, command = cells(said, "Table 3", "LF-Diff_s1 (sees the truth)")
    assert (paper_m, paper, trained_on, scored_on, seed) == ("5.24", "50.42 / 50.89", "synthetic", "folder", "3")
    assert [float(part) for part in ours.split(" / ")] == pytest.approx([by_hand["psnr_mu"], by_hand["psnr_l"]], abs=0.006)
    assert float(ours_m) == pytest.approx(sum(value.numel() for value in model.state_dict().values()) / 1e6, abs=0.006)
    words = shlex.split(command.strip("`"))
    assert words[:2] == ["python", "train_stage1.py"] and common.parse(Stage1Config, words[2:]) == config
    assert "--lam" in words and "--patch" not in words                          # nothing that is a default
    for row, paper_m, paper, flag in (("Baseline", "5.09", "44.23 / 42.19", "--baseline"), ("Split training", "7.48", "41.93 / 39.30", "--split"),
                                      ("LF-Diff_s2 w/o DM", "5.85", "44.45 / 42.35", "--without-dm"), ("LF-Diff_s2 w/ DM", "7.48", "44.76 / 42.59", "")):
        found = cells(said, "Table 3", row)
        assert found[:7] == [paper_m, "–", paper, "not run", "–", "–", "–"] and flag in found[7] and "--data kalantari" in found[7]
        script = Stage1Config if "train_stage1.py" in found[7] else Stage2Config
        common.parse(script, shlex.split(found[7].strip("`"))[2:])              # would exit with code 2 if a flag were unknown
    assert found_line(said, "| Baseline ") in (tmp_path / "out" / "scores.md").read_text(encoding="utf-8")


def test_table_3_has_all_its_rows_when_all_are_trained(world, tmp_path, capsys):
    for folder, variant, config in (("baseline", "baseline", Stage1Config(baseline=True)), ("stage1", "s1", Stage1Config()),
                                    ("stage2_split", "s2", Stage2Config(split=True)), ("stage2_without_dm", "s2_without_dm", Stage2Config(without_dm=True)),
                                    ("stage2", "s2", Stage2Config(training=TrainingConfig(seed=2)))):
        write_run(tmp_path / folder, variant, config, tiny(variant, seed=len(folder)))
    words = ["--data", "folder", "--root", world / "scenes", "--scenes", 1, "--table", 3, "--runs", tmp_path, "--no-hdrvdp2", "--compare"]
    run_evaluate(*words, "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert "not run" not in said
    ours = [cells(said, "Table 3", row)[3] for row, *_ in report.PAPER_TABLE3.values()]
    assert len(set(ours)) == 5
    assert cells(said, "Table 3", "LF-Diff_s2 w/ DM")[6:] == ["2", "`python train_stage2.py --seed 2`"]
    (tmp_path / "stage2_split" / "best.pt").write_bytes((tmp_path / "stage2" / "best.pt").read_bytes())
    with pytest.raises(ValueError, match=r"best\.pt: holds s2, not what train_stage2\.py --split trains"):
        run_evaluate(*words, "--out", tmp_path / "out")


def test_table_3_without_any_checkpoint_needs_no_data(tmp_path, capsys):
    run_evaluate("--data", "kalantari", "--root", tmp_path / "not there", "--table", 3, "--runs", tmp_path, "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert said.count("not run") == 5 and f"--root '{tmp_path / 'not there'}'" in said


def test_table_4_has_a_line_for_each_number_of_steps(world, tmp_path, capsys):
    run_evaluate("--data", "folder", "--root", world / "scenes", "--scenes", 1, "--weights", world / "s2.pt", "--steps", 5, 1, 20, "--no-hdrvdp2",
                 "--out", tmp_path)
    said, rows, sample = capsys.readouterr().out, scores(tmp_path), load_scene(world / "scenes" / "alley")
    for S, paper, paper_seconds in ((5, "39.76 / 41.33", "0.049"), (1, "– / –", "–"), (20, "44.73 / 42.54", "0.208")):
        with torch.no_grad():
            hdr_hat = reconstruct(tiny("s2").half().float(), sample["ldr"][None], sample["ev"][None], S, generator=torch.Generator().manual_seed(0))[0]
        by_hand = expected(hdr_hat, sample["hdr"])
        found = cells(said, "Table 4", f"s2, S={S}")
        assert (found[0], found[2], found[4:]) == (paper, paper_seconds, ["folder", "0"])
        assert [float(part) for part in found[1].split(" / ")] == pytest.approx([by_hand["psnr_mu"], by_hand["psnr_l"]], abs=0.006)
        assert float(found[3]) == pytest.approx(rows["alley", f"s2, S={S}"]["diffusion_seconds"], rel=0.01)
    assert len({row["psnr_mu"] for row in rows.values()}) == 3
    assert (tmp_path / "s2_S_20_worst.png").is_file()


def test_time_of_the_diffusion_is_that_of_condition_net_and_all_steps_alone(world):
    model, calls = tiny("s2"), []
    for name, part in (("condition", model.condition), ("denoiser", model.denoiser), ("dhrnet", model.dhrnet)):
        part.register_forward_hook(lambda part, inputs, output, name=name: calls.append(name))
    seconds = scoring.time_diffusion(model, load_scene(world / "scenes" / "alley"), 4, 0, torch.device("cpu"), torch.float32)
    assert calls == ["condition"] + 4 * ["denoiser"] and 0 < seconds < 60


# --- what is wrong ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("words", "message"), [
    (["--data", "flowers"], "--data flowers: unknown"), (["--data", "folder"], r"--root \(missing\)"), (["--scenes", "-1"], "--scenes -1"),
    (["--table", "2"], "--table 2: only 3"), (["--table", "3", "--steps", "5"], "--table 3: takes"), (["--steps", "0"], "--steps 0: must be .* 1 or more"),
    (["--steps", "5", "201"], "--steps 201: .* has T = 200"), (["--sampler", "euler"], "--sampler euler"),
    (["--sampler", "ancestral", "--steps", "5"], "--sampler ancestral: takes all T steps"), (["--encoding", "film"], "film"), (["--peak", "100"], "--peak 100"),
    (["--distance", "0"], "(?i)distance|metres"), (["--weights", "nothing.pt"], "no such checkpoint"), (["--data", "kalantari", "--root", "nowhere"], "https://"),
])
def test_a_wrong_setting_is_named_before_anything_takes_time(words, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_evaluate(*words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_scored_is_refused(world, tmp_path):
    for words, message in ((["--root", world / "wild", "--predictions", tmp_path], "no truth to score"),
                           (["--root", world / "wild", "--weights", world / "s1.pt"], "prior comes from the truth, and dusk has none"),
                           (["--root", world / "scenes", "--weights", world / "baseline.pt", "--steps", 5], "baseline.pt is of the variant baseline"),
                           (["--root", world / "scenes", "--weights", world / "s2.pt", world / "s2.pt"], "two are called 's2'"),
                           (["--root", tmp_path], "neither a scene nor a folder of scenes")):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            run_evaluate("--data", "folder", *words, "--out", tmp_path / "out")


def test_predictions_are_not_replaced_by_their_own_scores(world, tmp_path):
    with pytest.raises(ValueError, match="--save would replace the files of --predictions"):
        run_evaluate("--data", "folder", "--root", world / "scenes", "--predictions", tmp_path / "other", "--save", "--out", tmp_path)
    (tmp_path / "figure1.png").write_bytes(b"somebody's")
    with pytest.raises(ValueError, match="figure1.png: is not from an earlier run and would be replaced"):
        run_evaluate("--data", "folder", "--root", world / "scenes", "--weights", world / "s2.pt", "--out", tmp_path)
    for folder, what in ((tmp_path / "nothing", "no such folder"), (world / "s1.pt", "a file, not a folder")):
        with pytest.raises(FileNotFoundError, match=f"{what}; give a folder with one .hdr file per scene"):
            run_evaluate("--data", "folder", "--root", world / "scenes", "--predictions", folder, "--out", tmp_path / "out")


def test_an_error_of_the_script_is_one_line(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "evaluate.py"), "--data", "hu", "--root", str(tmp_path)], capture_output=True, text=True,
                          encoding="utf-8", timeout=120)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "input_exp.txt" in done.stderr
