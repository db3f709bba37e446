"""The scripts in examples/: what they measure and how they align, on images whose answer is known."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import ablations
import common
import figures
import flow_merge
import operators
import sharpness
import spread
import two_frames
import train_stage1
import train_stage2
from beyond.weights import save_weights
from brackets.files import read_image, write_image
from brackets.merge import weighted_merge
from brackets.ownership import check_replaceable
from brackets.prepare import UNPREPARED, PrepareConfig
from brackets.register import register
from brackets.scenes import load_scene
from data import T, psnr
from denoiser import DenoiserConfig
from dhrnet import DHRNetConfig
from lfdiff import LFDiffConfig, Stage2
from synthetic.dataset import AS_TAKEN, FIRST, SyntheticBrackets, SyntheticConfig, export
from beyond.checkpoints import flags_of
from training import check

STILL = SyntheticConfig(static_camera=1.0, static_scene=1.0, shake=0.0, jpeg=0.0, output_bits=(16,), ev_error=0.0,
                        **{**FIRST, "iso": (100.0, 100.0), "response": (1.0, 0.0, 0.0)}, **AS_TAKEN)
TINY = LFDiffConfig(DHRNetConfig(channels=8, heads=2, frms=(1,), high_blocks=1),
                    denoiser=DenoiserConfig(unet_width=8, unet_multipliers=(1, 1, 1), unet_blocks=1))


def test_flow_brings_a_shifted_bracket_together_again():
    sample = SyntheticBrackets(160, seed=8, config=STILL)[1]
    ldr = sample["ldr"].clone()
    ldr[0], ldr[2] = ldr[0].roll((3, -4), (1, 2)), ldr[2].roll((-2, 5), (1, 2))
    inner = (..., slice(12, -12), slice(12, -12))
    def score(hdr):
        return psnr(T(hdr[inner]), T(sample["hdr"][inner]))
    shifted, merged = score(weighted_merge(ldr[None], sample["ev"][None])[0]), score(flow_merge.flow_merge(ldr, sample["ev"]))
    assert merged > shifted + 5 and merged > score(weighted_merge(sample["ldr"][None], sample["ev"][None])[0]) - 4


def test_flow_merge_samples_each_frame_at_its_own_exposure():
    hdr = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).repeat_interleave(8, 2).repeat_interleave(8, 3)[0]
    ldr = torch.stack([(hdr * 2.0 ** stops).clamp(max=1) ** (1 / 2.2) for stops in (0, 2, 4)])
    aligned = [flow_merge.align_to(ldr[1], ldr[i].roll(3, 2), stops) for i, stops in ((0, 2.0), (2, -2.0))]
    inner = (..., slice(8, -8), slice(8, -8))
    assert max((image[inner] - ldr[i][inner]).abs().mean() for i, image in zip((0, 2), aligned)) < 0.02


def test_flow_merge_writes_every_scene_and_registers_first_where_it_is_told_to(tmp_path, monkeypatch):
    export(SyntheticBrackets(128, seed=8, config=SyntheticConfig(static_camera=0.0, steady=0.0, **FIRST, **AS_TAKEN), length=2), tmp_path / "scenes")
    for flag in ("--no-register", "--register"):
        monkeypatch.setattr(sys, "argv", ["flow_merge.py", "--scenes", str(tmp_path / "scenes"), "--out", str(tmp_path / flag), flag])
        flow_merge.main()
    for folder in sorted((tmp_path / "scenes").iterdir()):
        sample = load_scene(folder)
        registered = register(sample["ldr"], sample["ev"])[0]
        assert not torch.equal(registered, sample["ldr"])
        for flag, ldr in (("--no-register", sample["ldr"]), ("--register", registered)):
            expected = flow_merge.flow_merge(ldr, sample["ev"]).clamp(0, 1)
            written = torch.from_numpy(read_image(tmp_path / flag / f"{folder.name}.hdr")).permute(2, 0, 1)
            assert (written - expected).abs().max() < 0.01


def test_gain_is_1_for_the_truth_and_for_noise_and_below_for_a_blur():
    hdr = SyntheticBrackets(96, seed=8, config=STILL)[2]["hdr"][None]
    everywhere = torch.ones(1, 1, 96, 96, dtype=torch.bool)
    def ratios(image):
        product, energy, truth = sharpness.products(image, hdr, everywhere)
        return (product / truth).item(), (energy / truth).item()
    assert ratios(hdr) == (1.0, 1.0)
    gain, energy = ratios(nnf.avg_pool2d(hdr, 3, 1, 1))
    assert gain < 0.9 and energy < 0.9
    gain, energy = ratios((hdr * (1 + 0.1 * torch.randn(hdr.shape, generator=torch.Generator().manual_seed(0)))).clamp(0, 1))
    assert abs(gain - 1) < 0.05 and energy > 1.02


def test_only_pixels_that_the_frames_agree_about_count():
    sample = SyntheticBrackets(96, seed=8, config=STILL)[2]
    ldr, ev = sample["ldr"][None].clone(), sample["ev"][None]
    before = sharpness.agreed(ldr, ev)
    ldr[:, 1, :, 20:60, 20:60] = 0.3                                                        # something stands there in the reference alone
    after = sharpness.agreed(ldr, ev)
    assert before.float().mean() > 0.3 and not after[..., 24:56, 24:56].any() and torch.equal(before[..., 64:, :], after[..., 64:, :])


def test_network_gets_the_bracket_as_it_was_trained_and_the_truth_stays():
    sample = SyntheticBrackets(96, seed=8, config=SyntheticConfig(static_camera=0.0, steady=0.0, static_scene=0.0, **FIRST, **AS_TAKEN))[1]
    registered, ldr, ev, hdr, _ = sharpness.prepared_batch(sample, UNPREPARED)
    assert torch.equal(registered[0], sample["ldr"]) and torch.equal(ldr[0], sample["ldr"])
    assert torch.equal(ev[0], sample["ev"]) and torch.equal(hdr[0], sample["hdr"])
    registered, ldr, _, hdr, _ = sharpness.prepared_batch(sample, PrepareConfig(response=False))
    assert torch.equal(registered[0], register(sample["ldr"], sample["ev"])[0]) and not torch.equal(ldr, registered) and torch.equal(hdr[0], sample["hdr"])


def test_sharpness_and_spread_print_their_numbers_and_ask_for_what_is_missing(tmp_path, monkeypatch, capsys):
    export(SyntheticBrackets(64, seed=8, config=STILL, length=1), tmp_path / "scenes")
    save_weights(tmp_path / "weights.pt", Stage2(TINY), PrepareConfig(), {})
    words = ["--scenes", str(tmp_path / "scenes"), "--weights", str(tmp_path / "weights.pt"), "--device", "cpu"]
    for script, said in ((sharpness, ["reference alone", "network alone", "LF-Diff"]), (spread, ["not saturated", "rank correlation", "(1 scenes)"])):
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *words])
        script.main()
        printed = capsys.readouterr().out
        assert all(part in printed for part in said)
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *words[2:]])
        with pytest.raises(ValueError, match="--scenes: missing"):
            script.main()
    monkeypatch.setattr(sys, "argv", ["spread.py", *words, "--samples", "1"])
    with pytest.raises(ValueError, match="--samples 1: must be 2 or more"):
        spread.main()
    next((tmp_path / "scenes").glob("*/HDRImg.hdr")).unlink()
    monkeypatch.setattr(sys, "argv", ["sharpness.py", *words])
    with pytest.raises(ValueError, match="has no truth to compare with"):
        sharpness.main()


def test_all_figures_are_drawn(tmp_path, monkeypatch, capsys):
    save_weights(tmp_path / "weights.pt", Stage2(TINY), UNPREPARED, {})
    monkeypatch.setattr(sys, "argv", ["figures.py", "--weights", str(tmp_path / "weights.pt"), "--out", str(tmp_path), "--samples", "2", "--device", "cpu"])
    figures.main()
    shapes = {name: read_image(tmp_path / f"{name}.png").shape for name in ("cafe_panel", "spread")}
    assert shapes["cafe_panel"][:2] == (890, 2400) and shapes["spread"][:2] == (660, 1600)
    assert capsys.readouterr().out.count("LF-Diff") == 2
    with Image.open(tmp_path / "cafe.jpg") as image:
        assert image.size == (1500, 500)
        reference = np.asarray(image)[:, :750].astype(float)
    assert np.abs(reference - 255 * load_scene(figures.HERE / "cafe")["ldr"][1].permute(1, 2, 0).numpy()).mean() < 4


def test_rank_correlation_agrees_with_hand_values():
    a = torch.tensor([0.1, 5.0, 2.0, 3.0])
    assert abs(spread.rank_correlation(a, a.exp()) - 1) < 1e-12 and abs(spread.rank_correlation(a, -a) + 1) < 1e-12
    assert abs(spread.rank_correlation(a, torch.tensor([1.0, 2.0, 4.0, 3.0])) - 0.2) < 1e-12         # 1 - 6 (0 + 4 + 4 + 0) / (4 (16 - 1))


# --- ablations ------------------------------------------------------------------------------------------------------

def write_log(folder, **scores):
    folder.mkdir(parents=True)
    columns = {f"val_psnr_{name}": value for name, value in scores.items()}
    (folder / "log.csv").write_text(",".join(["step", "L_r", *columns]) + "\n80,0.5" + "," * len(columns) + "\n"
                                    + ",".join(map(str, [160, 0.4, *columns.values()])) + "\n", encoding="utf-8")


def test_ablations_table_is_the_mean_and_deviation_of_each_run_s_last_validation(tmp_path):
    write_log(tmp_path / "seed0" / "baseline", mu=30.0, l=20.0)
    write_log(tmp_path / "seed2" / "baseline", mu=32.0, l=21.0)
    write_log(tmp_path / "seed2" / "stage2", mu_predicted=33.5, l_predicted=25.0, mu_true=36.0, l_true=30.0, mu_mean=31.0, l_mean=22.0)
    rows = {line.split(" | ")[0].strip("| "): line for line in ablations.table(ablations.AblationsConfig(out=str(tmp_path), seeds=(0, 2)))}
    assert rows["baseline"] == "| baseline | 2 | 31.00 ± 1.41 | 20.50 ± 0.71 | – | – |"
    assert rows["s2 with DM"] == "| s2 with DM | 1 | 33.50 | 25.00 | 36.00 | 31.00 |"
    assert rows["split training"] == "| split training | 0 | – | – | – | – |"


def test_a_damaged_log_of_an_ablation_is_named(tmp_path):
    write_log(tmp_path / "run", mu="thirty")
    with pytest.raises(ValueError, match=r"log\.csv: damaged \(.*thirty.*\); delete the run"):
        ablations.last_scores(tmp_path / "run")


def test_ablations_train_each_row_once_from_the_stage_1_it_names(tmp_path, monkeypatch):
    commands = []

    def start(words, stdout, **settings):
        commands.append(words[1:])
        out = Path(words[words.index("--out") + 1])
        write_log(out, mu=30.0, l=20.0)
        (out / "best.pt").write_bytes(b"")
        return subprocess.CompletedProcess(words, 0)
    monkeypatch.setattr(subprocess, "run", start)
    config = ablations.AblationsConfig(out=str(tmp_path), recipe="made", hdr_dir="hdr", device="cpu")
    for _ in range(2):
        for name in ("stage1", "stage2_split"):
            ablations.train(config, name, seed=7)
    assert [words[0] for words in commands] == ["train_stage1.py", "train_stage2.py"]       # and not again
    for script, words in zip((train_stage1.Stage1Config, train_stage2.Stage2Config), commands):
        parsed = common.parse(script, words[1:])                                            # the train scripts understand every flag
        assert parsed.training.seed == 7 and parsed.training.data == "bank" and parsed.training.root == str(Path("made").resolve() / "bank")
    assert parsed.split and Path(parsed.stage1) == tmp_path.resolve() / "seed7" / "stage1" / "best.pt"
    monkeypatch.setattr(subprocess, "run", lambda words, **settings: subprocess.CompletedProcess(words, 1))
    with pytest.raises(ValueError, match="stage1: training failed"):
        ablations.train(config, "stage1", seed=8)


def test_every_row_of_the_ablations_sees_as_many_patches_and_changes_what_it_says():
    settings = {}
    for name, (_, _, command) in ablations.RUNS.items():
        script = {"train_stage1.py": train_stage1.Stage1Config, "train_stage2.py": train_stage2.Stage2Config}[command.split()[0]]
        settings[name] = common.parse(script, command.split()[1:])
    epochs = {name: settings[name].training.epochs + (settings[begin].training.epochs if begin else 0)
              for name, (title, begin, _) in ablations.RUNS.items() if not title.startswith("(")}
    assert len(set(epochs.values())) == 1 and len({config.training.batch for config in settings.values()}) == 1
    changed = {name: {flag for flag, value in flags_of(asdict(settings[name])).items() if flags_of(asdict(settings["stage2"]))[flag] != value}
               for name, (_, begin, _) in ablations.RUNS.items() if begin}
    assert changed == {"stage2": set(), "stage2_split": {"split"}, "stage2_without_dm": {"without_dm"}, "raw_z": {"prior_batches"},
                       "leak": {"beta_1", "beta_T"}, "stage2_paints": {"correct"}}
    assert settings["stage1"].beyond.correct and not settings["stage1_paints"].beyond.correct
    for config in settings.values():
        check(config.training, config.beyond)


def test_the_sheet_of_operators_has_a_column_per_image_and_a_row_per_operator(tmp_path, monkeypatch):
    hdr = np.linspace(0, 2, 60 * 90 * 3, dtype=np.float32).reshape(60, 90, 3)
    write_image(tmp_path / "a.hdr", hdr)
    np.save(tmp_path / "b.npy", np.stack([0 * hdr, hdr, 0 * hdr]).transpose(0, 3, 1, 2))
    images = [operators.load(tmp_path / name) for name in ("a.hdr", "b.npy")]
    assert np.isclose(images[0].max(), 1) and np.allclose(*images, atol=0.01)
    words = ["--images", tmp_path / "a.hdr", tmp_path / "b.npy", "--out", tmp_path / "s.jpg", "--width", 90]
    monkeypatch.setattr(sys, "argv", ["operators.py", *map(str, words)])
    operators.main()
    with Image.open(tmp_path / "s.jpg") as sheet:
        assert sheet.size == (180, 60 * len(operators.OPERATORS))
        shown = np.asarray(sheet).astype(int)
    assert np.abs(shown[20:60, :90] - 255 * T(torch.from_numpy(images[0])).numpy()[20:]).mean() < 3
    np.save(tmp_path / "c.npy", hdr)
    write_image(tmp_path / "d.png", shown.astype(np.uint8))
    with pytest.raises(ValueError, match=r"d\.png: found uint8, coded for a display; give radiance"):
        operators.load(tmp_path / "d.png")
    monkeypatch.setattr(sys, "argv", ["operators.py", "--images", str(tmp_path / "a.hdr"), "--out", str(tmp_path / "a.hdr"), "--width", "90"])
    with pytest.raises(ValueError, match=r"a\.hdr: uint8 cannot be written as \.hdr"):
        operators.main()
    with pytest.raises(ValueError, match=r"c\.npy: holds float32 of shape \(60, 90, 3\), not \(3, 3, height, width\)"):
        operators.load(tmp_path / "c.npy")


def test_two_frames_prints_each_stand_in_for_both_missing_frames(tmp_path, monkeypatch, capsys):
    export(SyntheticBrackets(64, seed=8, config=STILL, length=1), tmp_path / "scenes")
    save_weights(tmp_path / "weights.pt", Stage2(TINY), UNPREPARED, {})
    monkeypatch.setattr(sys, "argv", ["two_frames.py", "--scenes", str(tmp_path / "scenes"), "--weights", str(tmp_path / "weights.pt"), "--device", "cpu"])
    two_frames.main()
    rows = {line[:44].strip(): [float(number) for number in line[44:].replace("/", " ").split()] for line in capsys.readouterr().out.splitlines()[1:]}
    sample = load_scene(next((tmp_path / "scenes").iterdir()))
    short, reference, ev, hdr = sample["ldr"][0] ** 2.2, sample["ldr"][1] ** 2.2, sample["ev"], sample["hdr"]
    alone = [psnr(T(reference / 2 ** float(ev[1])), T(hdr)), psnr(reference, (hdr * 2 ** float(ev[1])).clamp(max=1))]
    assert [rows["no network: the reference alone"][0], rows["no network: the reference alone"][3]] == pytest.approx(alone, abs=0.01)
    assert len(rows) == 6
    shown = two_frames.stand_ins(sample["ldr"], ev, 2)["the other frame at its exposure"]
    assert torch.allclose(shown[0, 2] ** 2.2, (short * 2 ** float(ev[2])).clamp(max=1), atol=1e-5)


def test_the_pictures_of_the_repository_may_be_drawn_again_by_their_scripts():
    check_replaceable(*(Path(figures.HERE) / name for name in ("cafe_panel.png", "cafe.jpg", "spread.png")),
                      *(Path(figures.HERE).parent / "docs" / name for name in ("walk.png", "pictures.jpg")))
