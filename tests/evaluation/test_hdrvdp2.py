"""hdrvdp2: scores of the authors' release, and every step against hand values, closed forms or a slow version."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf

from brackets.files import write_image
from common import parse
from evaluation import hdrvdp2 as vdp
from evaluation.hdrvdp2 import HDRVDP2Config, hdrvdp2, main, pixels_per_degree, quality, settings

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
HERE = ROOT / "evaluation"
CONSTANTS = json.loads((HERE / "hdrvdp2.json").read_text(encoding="utf-8"))
PPD = 23.787357547725868            # 30 inches, 1500 x 1000 pixels, 0.55 m

# Q of release 2.2.2, run under Octave 7.3 on the pairs of reference_pair: (H, W, encoding, Q).
RELEASE = [
    (64, 96, "sRGB-display", 74.406502986093), (64, 96, "rgb-bt.709", 51.016729966997),
    (67, 100, "sRGB-display", 76.694521048734), (67, 100, "rgb-bt.709", 51.178798812106),
    (130, 200, "sRGB-display", 78.484417090495), (130, 200, "rgb-bt.709", 56.236764814158),
    (200, 301, "sRGB-display", 78.910120602807), (200, 301, "rgb-bt.709", 53.427831868956),
    (500, 750, "sRGB-display", 80.144469363777), (500, 750, "rgb-bt.709", 55.557099490237),
]


def reference_pair(H, W, encoding="sRGB-display"):
    y, x = np.mgrid[:H, :W].astype(np.float64)
    L = 10 ** (-3 + 3 * (0.5 + 0.5 * np.sin(x / 21) * np.cos(y / 17)))
    ref = np.stack([L * (1 + 0.4 * np.sin(x / 9)), L, L * (1 + 0.4 * np.cos(y / 7))])
    ref /= ref.max()
    test = np.clip(ref * (1 + 0.03 * np.sin(x / 1.7) * np.cos(y / 2.3)) + 0.002 * np.sin(x * y / 50), 0, 1)
    test, ref = torch.from_numpy(test), torch.from_numpy(ref)
    return (1000 * test + 0.1, 1000 * ref + 0.1) if encoding == "rgb-bt.709" else (test, ref)


def score(H, W, encoding, double=False):
    return hdrvdp2(*reference_pair(H, W, encoding), encoding, 30 if encoding == "rgb-bt.709" else PPD, double)


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- Q ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("H", "W", "encoding", "Q"), RELEASE)
def test_q_is_that_of_the_release(H, W, encoding, Q):
    assert abs(score(H, W, encoding) - Q) < 5e-5            # the pyramid is filtered in float32


@pytest.mark.parametrize(("H", "W", "encoding", "Q"), RELEASE[:8])
def test_q_in_double_precision_is_that_of_the_release(H, W, encoding, Q):
    assert abs(score(H, W, encoding, double=True) - Q) < 1e-5    # the release's resizing weights differ in their last digits


def test_double_precision_changes_the_last_digits_and_no_more():
    assert 0 < abs(score(64, 96, "sRGB-display") - score(64, 96, "sRGB-display", double=True)) < 5e-5


@pytest.mark.parametrize("encoding", vdp.ENCODINGS)
@pytest.mark.parametrize("double", [False, True])
def test_equal_images_have_exactly_100(encoding, double):
    _, reference = reference_pair(40, 60, encoding)
    assert hdrvdp2(reference.clone(), reference, encoding, 30, double) == 100


def test_black_against_black_has_exactly_100():
    black = torch.zeros(3, 32, 32)
    assert all(hdrvdp2(black, black.clone(), encoding) == 100 for encoding in vdp.ENCODINGS)


def test_q_falls_as_noise_rises():
    reference, noise = 0.2 + 0.5 * reference_pair(64, 80)[1], random(3, 64, 80) - 0.5
    scores = [hdrvdp2(reference + 0.4 * amount * noise, reference) for amount in (0, 0.01, 0.03, 0.1, 0.3, 1)]
    assert scores[0] == 100 and all(a > b + 1 for a, b in zip(scores, scores[1:])), scores


def test_q_falls_as_blur_rises():
    reference = nnf.interpolate(random(1, 3, 16, 20), size=(64, 80), mode="bicubic").clamp(0, 1)
    t, scores = torch.arange(-12, 13, dtype=torch.float64), [100]
    for sigma in (0.5, 1, 2, 4):
        kernel = torch.exp(-t ** 2 / (2 * sigma ** 2))
        kernel = (kernel[:, None] * kernel / kernel.sum() ** 2).expand(3, 1, 25, 25)
        scores.append(hdrvdp2(nnf.conv2d(nnf.pad(reference, [12] * 4, mode="reflect"), kernel, groups=3), reference))
    assert all(a > b + 1 for a, b in zip(scores, scores[1:])), scores


def test_pixels_that_differ_by_less_than_a_thousandth_do_not_count():
    reference = 1 + 99 * random(3, 40, 40)
    some = (random(3, 40, 40, seed=1) > 0.5).double()
    assert hdrvdp2(reference * (1 + 0.0009996 * some), reference, "rgb-bt.709", 30) == 100
    assert hdrvdp2(reference * (1 + 0.0010004 * some), reference, "rgb-bt.709", 30) < 99.9       # of the test, 0.0009994


def test_one_changed_channel_counts():
    reference = 50 * torch.ones(3, 40, 40)
    for channel in range(3):
        test = reference.clone()
        test[channel, 10:30:2] *= 1.5
        assert hdrvdp2(test, reference, "rgb-bt.709", 30) < 95


def test_a_batch_of_one_a_view_and_float32_are_taken_as_they_are():
    test, reference = (image.float() for image in reference_pair(40, 60))
    Q = hdrvdp2(test, reference)
    assert isinstance(Q, float) and abs(Q - hdrvdp2(*reference_pair(40, 60))) < 0.1
    assert hdrvdp2(test[None], reference) == hdrvdp2(test[None], reference[None]) == Q
    views = [image.permute(1, 2, 0).contiguous().permute(2, 0, 1) for image in (test, reference)]
    assert abs(hdrvdp2(*views) - Q) < 1e-6


def test_mixed_precision_and_gradients_around_it_change_nothing():
    test, reference = (image.float() for image in reference_pair(40, 60))
    Q = hdrvdp2(test, reference)
    with torch.autocast("cpu", torch.bfloat16):
        assert hdrvdp2(test.requires_grad_(), reference) == Q


@pytest.mark.parametrize("side", [17, 18, 33, 34])
def test_smallest_images_have_a_score(side):
    test, reference = reference_pair(side, side + 40)
    assert 0 < hdrvdp2(test, reference) < 100 and 0 < hdrvdp2(test.mT, reference.mT) < 100


# --- what is refused -------------------------------------------------------------------------------------------------

def image(value=0.5, shape=(3, 20, 20)):
    return torch.full(shape, value)


@pytest.mark.parametrize(("test", "reference", "options", "message"), [
    (image(), image(shape=(3, 20, 21)), {}, r"test is \(3, 20, 20\), reference \(3, 20, 21\); crop or resize"),
    (image(shape=(3, 16, 90)), image(shape=(3, 16, 90)), {}, r"test is \(3, 16, 90\); give \(3, H, W\) with H and W at least 17"),
    (image(shape=(20, 20, 3)), image(shape=(20, 20, 3)), {}, r"test is \(20, 20, 3\); give"),
    (image(shape=(2, 3, 20, 20)), image(shape=(2, 3, 20, 20)), {}, r"test is \(2, 3, 20, 20\); give"),
    (image(), image(shape=(20, 20)), {}, r"reference is \(20, 20\); give"),
    (image(math.nan), image(), {}, "test has values from nan to nan; .*clip or repair"),
    (image(), image(math.inf), {"encoding": "rgb-bt.709"}, "reference has values from inf to inf; "),
    (image(-0.1), image(), {}, r"test has values from -0\.1 to -0\.1; "),
    (image(), image(1.5), {}, r"reference goes up to 1\.5; sRGB-display shows \[0, 1\]"),
    (image(200).to(torch.uint8), image(), {}, r"test is torch\.uint8; scale it to \[0, 1\]"),
    (image(), image(), {"encoding": "srgb"}, "unknown encoding 'srgb'; use sRGB-display or rgb-bt.709"),
    (image(), image(), {"ppd": 0}, "0 pixels per degree; it must be positive"),
    (image(), image(), {"ppd": math.nan}, "nan pixels per degree; "),
])
def test_wrong_inputs_are_refused_with_a_cure(test, reference, options, message):
    with pytest.raises(ValueError, match=f"^hdrvdp2: {message}"):
        hdrvdp2(test, reference, **options)


def test_one_bad_pixel_is_enough():
    for value in (math.nan, math.inf, -1e-6):
        bad = image()
        bad[1, 7, 7] = value
        with pytest.raises(ValueError, match="^hdrvdp2: reference has values from"):
            hdrvdp2(image(), bad)


# --- settings, command line, files -------------------------------------------------------------------------------------

def test_defaults_of_function_and_settings_are_the_same_screen():
    test, reference = reference_pair(40, 60)
    assert quality(test, reference, HDRVDP2Config()) == hdrvdp2(test, reference)


def test_peak_makes_light_of_relative_radiance():
    test, reference = reference_pair(40, 60)
    config = HDRVDP2Config("rgb-bt.709", 24.0, (1500, 1000), 0.5, peak=500.0)
    assert quality(test, reference, config) == hdrvdp2(500 * test, 500 * reference, "rgb-bt.709", pixels_per_degree(24, (1500, 1000), 0.5))
    for wrong in (HDRVDP2Config(peak=500.0), HDRVDP2Config("rgb-bt.709", peak=-1.0)):
        with pytest.raises(ValueError, match="--peak .*positive number"):
            quality(test, reference, wrong)


def test_the_line_of_settings_has_them_all():
    assert settings(HDRVDP2Config()) == ('HDR-VDP-2.2, sRGB-display, 30" screen of 1500x1000 pixels at 0.55 m, 23.787 pixels per degree')
    line = settings(HDRVDP2Config("rgb-bt.709", 24.0, (1920, 1200), 0.5, 1000.0))
    assert line == 'HDR-VDP-2.2, rgb-bt.709 with 1 = 1000 cd/m2, 24" screen of 1920x1200 pixels at 0.5 m, 33.510 pixels per degree'


def test_settings_can_be_flags_of_another_script():
    config = parse(HDRVDP2Config, ["--encoding", "rgb-bt.709", "--resolution", "1920", "1200", "--peak", "400"])
    assert config == HDRVDP2Config("rgb-bt.709", resolution=(1920, 1200), peak=400.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vdp")
    for name, image in zip(("test", "reference"), reference_pair(40, 60)):
        rows = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        write_image(folder / f"{name}.hdr", rows.astype(np.float32))
        write_image(folder / f"{name}.png", np.round(rows * 65535).astype(np.uint16))
    write_image(folder / "small.hdr", np.ones((40, 50, 3), np.float32))
    return folder


def test_command_line_scores_radiance_files(files, capsys):
    assert main([str(files / "test.hdr"), str(files / "reference.hdr")]) == 0
    line = capsys.readouterr().out
    Q = hdrvdp2(*reference_pair(40, 60))
    assert line.endswith(f"({settings(HDRVDP2Config())})\n") and abs(float(line.split()[2]) - Q) < 1      # .hdr holds 8 bits of mantissa


def test_command_line_scores_16_bit_files_on_another_screen(files, capsys):
    assert main([str(files / "test.png"), str(files / "reference.png"), "--diagonal", "24", "--distance", "0.5"]) == 0
    line = capsys.readouterr().out
    Q = hdrvdp2(*reference_pair(40, 60), ppd=pixels_per_degree(24, (1500, 1000), 0.5))
    assert abs(float(line.split()[2]) - Q) < 0.1 and '24" screen of 1500x1000 pixels at 0.5 m' in line


def test_command_line_takes_encoding_peak_and_resolution(files, capsys):
    flags = ["--encoding", "rgb-bt.709", "--peak", "1000", "--resolution", "3000", "2000"]
    assert main([str(files / "test.hdr"), str(files / "reference.hdr"), *flags]) == 0
    line = capsys.readouterr().out
    test, reference = reference_pair(40, 60)
    Q = hdrvdp2(1000 * test, 1000 * reference, "rgb-bt.709", pixels_per_degree(30, (3000, 2000), 0.55))
    assert abs(float(line.split()[2]) - Q) < 1 and "rgb-bt.709 with 1 = 1000 cd/m2" in line and "3000x2000" in line


@pytest.mark.parametrize(("words", "message"), [
    (["test.hdr", "small.hdr"], r"hdrvdp2: test is \(3, 40, 60\), reference \(3, 40, 50\); crop"),
    (["test.hdr", "none.hdr"], "none.hdr: no such file"),
    (["test.png", "reference.png", "--encoding", "rgb-bt.709"], "test.png: uint16 is gamma-coded, rgb-bt.709 takes linear light; use"),
    (["test.hdr", "reference.hdr", "--distance", "0"], "pixels_per_degree: .*must be positive"),
])
def test_command_line_says_what_is_wrong_in_one_line(files, capsys, words, message):
    assert main([str(files / word) for word in words[:2]] + words[2:]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert re.search(message, captured.err)


def test_command_line_without_files_prints_its_usage():
    result = subprocess.run([sys.executable, "-m", "evaluation.hdrvdp2"], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2 and result.stdout.startswith("usage: ") and "hdrvdp2" in result.stdout.splitlines()[0]
    assert "--encoding" in result.stdout and not result.stderr


def test_two_files_suffice_to_use_it_elsewhere(tmp_path):
    for name in ("hdrvdp2.py", "hdrvdp2.json"):
        shutil.copy(HERE / name, tmp_path)
    script = ("import torch, hdrvdp2\nx = torch.linspace(0.1, 1, 1200).reshape(3, 20, 20)\nprint(hdrvdp2.__file__)\n"
              "print(hdrvdp2.hdrvdp2(x, x))\nprint(hdrvdp2.main(['a.hdr', 'b.hdr']))")
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    where, Q, code = result.stdout.split()
    assert Path(where).parent.resolve() == tmp_path.resolve() and Q == "100.0" and code == "2"
    assert result.stderr.startswith("error: a.hdr: image files are read by brackets/files.py") and result.stderr.count("\n") == 1


def test_missing_data_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(vdp, "__file__", str(tmp_path / "hdrvdp2.py"))
    with pytest.raises(FileNotFoundError, match=r"hdrvdp2\.json: no such file; copy it next to hdrvdp2\.py"):
        vdp._constants.__wrapped__()


def test_notices_stand_in_both_files():
    code, data = ((HERE / name).read_text(encoding="utf-8") for name in ("hdrvdp2.py", "hdrvdp2.json"))
    assert "Copyright (c) 2011, Rafal Mantiuk" in code and "Copyright (c) 2011, Rafal Mantiuk" in data
    licence = " ".join(CONSTANTS["licence"])
    assert "with or without fee is hereby granted" in licence and "NEGLIGENCE OR OTHER TORTIOUS ACTION" in licence


def test_filters_have_the_sums_that_make_a_pyramid():
    sums = {name: np.sum(CONSTANTS[name]) for name in ("sp3_hi0", "sp3_lo0", "sp3_lo")}
    assert abs(sums["sp3_hi0"]) < 1e-6 and abs(sums["sp3_lo0"] - 1) < 1e-6 and abs(sums["sp3_lo"] - 2) < 1e-6
    assert np.shape(CONSTANTS["sp3_bands"]) == (4, 9, 9) and np.abs(np.sum(CONSTANTS["sp3_bands"], axis=(1, 2))).max() < 1e-6
