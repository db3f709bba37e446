"""bench.py, stages.py: what they count, against hand values and whole real passes; how they measure time, with a clock that the test sets."""

import json
import os
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn
from torch.utils.flop_counter import FlopCounterMode

from beyond import fast
from beyond.fast import FastDHRNet, speed_up
from beyond.weights import save_weights
from brackets.prepare import PrepareConfig
from common import count_parameters, parse, run
from ddim import DiffusionConfig
from denoiser import DenoiserConfig
from dhrnet import DHRNet, DHRNetConfig
from evaluation import bench, stages
from evaluation.bench import BenchConfig
from lfdiff import LFDiffConfig, Stage1, Stage2, reconstruct
from lpenet import LPENetConfig

WIDTH, HEIGHT, S = 64, 48, 3
FLAGS = ["--channels", "8", "--heads", "2", "--frms", "1", "0", "--high-blocks", "1", "--unet-width", "8", "--unet-blocks", "1",
         "--prior-width", "8", "--condition-width", "8"]
TINY = LFDiffConfig(DHRNetConfig(channels=8, heads=2, frms=(1, 0), high_blocks=1), LPENetConfig(prior_width=8, condition_width=8),
                    DenoiserConfig(unet_width=8, unet_blocks=1), DiffusionConfig())
PARTS = ["network input", "condition net", "all steps", "alignment", "block 1", "block 2", "output"]


class Hand:
    """A clock that stands still until a test moves it."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: self.now))
        for module in (bench, stages):
            monkeypatch.setattr(module, "timer", lambda: self.now)

    def move(self, seconds):
        self.now += seconds


@pytest.fixture(autouse=True)
def this_process_keeps_no_memory(monkeypatch):
    """Keeping memory could not be undone for the tests that follow."""
    monkeypatch.setattr(bench, "keep_memory", lambda: None)


@pytest.fixture
def hand(monkeypatch):
    return Hand(monkeypatch)


@pytest.fixture(scope="module")
def counted():
    """Returns (multiply-adds, convolutions) of the tiny network, by mark."""
    return stages.count_inference(Stage2(TINY).eval(), WIDTH, HEIGHT, S)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Stage2(TINY).eval()


def whole_pass(model):
    """FlopCounterMode of a real pass with real numbers."""
    with FlopCounterMode(display=False) as counter:
        reconstruct(model, torch.rand(1, 3, 3, HEIGHT, WIDTH), torch.zeros(1, 3), S)
    return counter


def multiply_adds(convolution):
    """Counts by the textbook: one for each weight at each place of the output."""
    (_, _, H, W), weight, _, stride, padding, dilation, _ = convolution
    rows, columns = ((size + 2 * padding[i] - dilation[i] * (weight[2 + i] - 1) - 1) // stride[i] + 1 for i, size in enumerate((H, W)))
    return weight[0] * weight[1] * weight[2] * weight[3] * rows * columns


# --- what it counts -------------------------------------------------------------------------------------------------

def test_multiply_adds_of_a_small_network_are_those_by_hand():
    def work(mark):
        x = nn.Conv2d(3, 5, 3, padding=1)(torch.empty(1, 3, 8, 10))
        mark("first")
        x = nn.Conv2d(5, 5, 3, stride=2, padding=1, groups=5, bias=False)(x)
        mark("again")
        nn.Conv2d(5, 7, 1)(x)
        mark("first")
        torch.empty(2, 6) @ torch.empty(6, 4)
        mark("product")
    macs, convolutions = stages.count_work(work)
    assert macs == {"first": 8 * 10 * 5 * 3 * 9 + 4 * 5 * 7 * 5, "again": 4 * 5 * 5 * 9, "product": 2 * 6 * 4}
    assert convolutions["first"] == {((1, 3, 8, 10), (5, 3, 3, 3), True, (1, 1), (1, 1), (1, 1), 1): 1,
                                     ((1, 5, 4, 5), (7, 5, 1, 1), True, (1, 1), (0, 0), (1, 1), 1): 1}
    assert convolutions["again"] == {((1, 5, 8, 10), (5, 1, 3, 3), False, (2, 2), (1, 1), (1, 1), 5): 1}
    assert not convolutions["product"]


def test_recorded_convolutions_have_the_multiply_adds_of_a_real_pass(counted, model):
    listed = sum(calls * multiply_adds(convolution) for counter in counted[1].values() for convolution, calls in counter.items())
    assert listed == whole_pass(model).get_flop_counts()["Global"][torch.ops.aten.convolution] // 2


def test_stages_add_up_to_a_real_pass(counted, model):
    rows = stages.table(counted[0], S)
    assert [name for name in rows if name not in ("one denoiser step", "DHRNet", "total")] == PARTS
    assert sum(rows[name] for name in PARTS) == rows["total"] == whole_pass(model).get_total_flops() // 2
    assert rows["one denoiser step"] * S == rows["all steps"] > 0


def test_counting_and_replaying_see_whole_maps_where_the_inference_has_strips(counted, model, monkeypatch):
    monkeypatch.setattr(fast, "STRIP_BYTES", 10_000)
    assert stages.count_inference(model, WIDTH, HEIGHT, S) == counted and type(model.dhrnet) is DHRNet
    heights = {convolution[0][2] for counter in counted[1].values() for convolution in counter}
    assert heights == {HEIGHT, HEIGHT // 2, HEIGHT // 4, HEIGHT // 8, HEIGHT // 16, 1}      # 1: the channel attention's means
    full = [convolution for convolution in counted[1]["alignment"] if convolution[0][2:] == (HEIGHT, WIDTH)]
    assert sum(counted[1]["alignment"][convolution] for convolution in full) == 3 + 2 * 2 + 1


def test_parameters_of_the_parts_add_up(model):
    counts = stages.parameters(model)
    assert sum(counts[name] for name in PARTS) == counts["total"] == count_parameters(model)
    assert counts["output"] == 3 * 8 * 9 + 3 and counts["one denoiser step"] == counts["all steps"]


def test_rows_are_sums_of_what_was_measured_between_marks():
    marks = {"network input": 1, "condition net": 2, "DDIM arithmetic": 4, "denoiser": 80, "alignment": 100, "block 1": 200, "output": 400}
    rows = stages.table(marks, 10)
    assert rows == {"network input": 1, "condition net": 2, "one denoiser step": 8, "all steps": 84, "alignment": 100, "block 1": 200,
                    "output": 400, "DHRNet": 700, "total": 787}
    del marks["alignment"], marks["block 1"]        # when compiled, nothing inside is measured
    assert stages.table(marks, 10) == {"network input": 1, "condition net": 2, "one denoiser step": 8, "all steps": 84, "DHRNet": 400, "total": 487}


# --- what it measures -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", [lambda model: model, speed_up])
@pytest.mark.parametrize("strip_bytes", [10_000, 2 ** 60])
def test_marks_stand_where_the_stages_of_reconstruct_end_and_change_nothing(form, strip_bytes, monkeypatch):
    monkeypatch.setattr(fast, "STRIP_BYTES", strip_bytes)
    torch.manual_seed(0)
    model, marks = form(Stage2(TINY).eval()), []
    ldr, ev = torch.rand(1, 3, 3, HEIGHT - 5, WIDTH - 9), torch.tensor([[0.0, 2.0, 4.0]])
    wanted = reconstruct(model, ldr, ev, S, generator=torch.Generator().manual_seed(7))
    stages.mark_stages(model, marks.append)
    assert torch.equal(reconstruct(model, ldr, ev, S, generator=torch.Generator().manual_seed(7)), wanted)
    assert marks == ["network input", "condition net", *["DDIM arithmetic", "denoiser"] * S, "DDIM arithmetic",
                     "alignment", "block 1", "block 2", "output"]


def test_clock_sums_the_stages_of_one_name(hand):
    clock = stages.Clock(torch.device("cpu"))
    for name, seconds in (("a", 0.5), ("b", 2), ("a", 0.25)):
        hand.move(seconds)
        clock.mark(name)
    assert clock.milliseconds() == {"a": 750, "b": 2000}


STAGES = ("network input", "condition net", "denoiser", "DDIM arithmetic", "output")


@pytest.fixture
def passes(monkeypatch):
    """Puts a function (model, ldr, mark) in the place of reconstruct. Returns: a function that takes that function."""
    def replace(one_pass):
        marks = []
        monkeypatch.setattr(bench, "mark_stages", lambda model, mark, inside: marks.append(mark))
        monkeypatch.setattr(bench, "reconstruct", lambda model, ldr, ev, S: one_pass(model, ldr, marks[0]))
    return replace


def test_median_is_of_the_passes_after_the_warm_up(hand, passes):
    durations = iter((100, 1, 3, 2))

    def one_pass(model, ldr, mark):
        assert ldr.shape == (1, 3, 3, HEIGHT, WIDTH) and torch.is_autocast_enabled("cpu")
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in model.parameters() if weight.dim() == 4)
        seconds = next(durations)
        for name in STAGES:
            hand.move(seconds)
            mark(name)
    passes(one_pass)
    found = bench.time_inference(BenchConfig(model=TINY, runs=3), "cpu", "bfloat16", "64x48", 2)
    assert found["ms"]["condition net"] == 2000 and found["ms"]["one denoiser step"] == 1000 and found["ms"]["total"] == 10_000
    assert found["first_pass_ms"] == 500_000 and next(durations, None) is None


def test_plain_are_the_papers_files_as_they_stand(passes, monkeypatch):
    seen = []

    def one_pass(model, ldr, mark):
        seen.append((type(model.dhrnet), torch.is_autocast_enabled("cpu"), model.dhrnet.align.fuse.weight.is_contiguous()))
        for name in STAGES:
            mark(name)
    passes(one_pass)
    monkeypatch.setattr(bench, "keep_memory", lambda: seen.append("memory kept"))
    config = BenchConfig(model=TINY, runs=1)
    bench.time_inference(config, "cpu", "float32", "64x48", 2, plain=True)
    assert seen == [(DHRNet, False, True)] * 2
    seen.clear()
    bench.time_inference(config, "cpu", "bfloat16", "64x48", 2)
    assert seen == ["memory kept"] + [(FastDHRNet, True, False)] * 2


def test_compiled_networks_are_timed_from_outside_with_the_first_pass_apart(monkeypatch):
    compiled, ran = [], []

    def compile(forward):
        compiled.append(forward)
        return lambda *inputs: ran.append(forward) or forward(*inputs)
    monkeypatch.setattr(torch, "compile", compile)
    config = BenchConfig(model=TINY, runs=1, compile=True)
    rows = bench.time_inference(config, "cpu", "float32", "64x48", 2)["ms"]
    assert list(rows) == ["network input", "condition net", "one denoiser step", "all steps", "DHRNet", "total"] and min(rows.values()) > 0
    assert len(compiled) == 3 and len(ran) == 3 * (1 + 2 + 1)       # two first passes and one run, of condition net, two steps and DHRNet
    bench.time_inference(config, "cpu", "float32", "64x48", 2, plain=True)
    assert len(compiled) == 3


def test_bare_calls_the_convolution_as_it_was_recorded(monkeypatch, hand):
    real, calls, durations = torch.conv2d, [], iter((9, 1, 5, 2))

    def conv2d(x, weight, bias, stride, padding, dilation, groups):
        calls.append((tuple(x.shape), tuple(weight.shape), bias is not None, stride, padding, dilation, groups))
        assert x.is_contiguous(memory_format=torch.channels_last) and x.dtype == weight.dtype == torch.bfloat16
        hand.move(next(durations))
        return real(x, weight, bias, stride, padding, dilation, groups)
    monkeypatch.setattr(torch, "conv2d", conv2d)
    for convolution in (((1, 4, 6, 8), (4, 1, 3, 3), False, (2, 2), (1, 1), (1, 1), 4),
                        ((1, 4, 6, 8), (2, 4, 1, 1), True, (1, 1), (0, 0), (1, 1), 1)):
        calls, durations = [], iter((9, 1, 5, 2))
        assert stages.bare_milliseconds(convolution, torch.device("cpu"), torch.bfloat16) == 2000
        assert calls == [convolution] * 4


def test_bare_time_of_a_stage_is_that_of_each_call_in_it(monkeypatch, counted):
    timed = []

    def bare_milliseconds(convolution, device, dtype):
        timed.append(convolution)
        return multiply_adds(convolution)
    monkeypatch.setattr(bench, "bare_milliseconds", bare_milliseconds)
    rows = bench.time_bare(BenchConfig(model=TINY), "cpu", "bfloat16", "64x48", S)
    assert len(timed) == len(set(timed))            # each distinct one once
    assert rows["alignment"] == counted[0]["alignment"] and rows["output"] == counted[0]["output"]      # no other products there
    assert rows["network input"] == 0 and rows["total"] == sum(rows[name] for name in PARTS)


def test_training_line_divides_by_the_time_after_the_warm_up(hand, monkeypatch):
    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 100

        def __getitem__(self, index):
            hand.move(50 if index < 2 * bench.WARMUP_STEPS else 1)
            return {"ldr": torch.rand(3, 3, 32, 32), "ev": torch.zeros(3), "hdr": torch.rand(3, 32, 32)}
    real = bench.reconstruction_loss

    def slow_loss(*inputs):
        hand.move(6)
        return real(*inputs)
    monkeypatch.setattr(bench, "open_data", lambda settings, beyond: (Slow(), None))
    monkeypatch.setattr(bench, "reconstruction_loss", slow_loss)
    config = BenchConfig(model=TINY, batch=2, patch=32, train_steps=4, workers=0)
    for plain in (False, True):
        found = bench.time_training(config, "cpu", "float32", plain)
        assert found["patches_per_s"] == 4 * 2 / (4 * (2 + 6)) and found["waiting"] == 2 / 8
        assert (found["batch"], found["patch"], found["steps"], found["lam"]) == (2, 32, 4, 0)


# --- the command ----------------------------------------------------------------------------------------------------

@pytest.fixture
def few_processes(monkeypatch):
    """Measures everything but the bare convolutions in this process, as importing torch takes seconds. Returns: list of the measurements."""
    real, done = bench.in_own_process, []

    def measure_here(measure, config, *job):
        done.append((measure.__name__, *job))
        return (real if measure is bench.time_bare else lambda measure, *inputs: measure(*inputs))(measure, config, *job)
    monkeypatch.setattr(bench, "in_own_process", measure_here)
    return done


def test_command_writes_what_it_prints(tmp_path, capsys, monkeypatch, few_processes):
    path = tmp_path / "deep" / "bench.json"
    monkeypatch.setattr(sys, "argv", ["bench.py", "--sizes", "60x48", "--devices", "cpu", "--precisions", "float32", "--runs", "1",
                                      "--steps", "2", "--patch", "32", "--batch", "2", "--train-steps", "1", "--workers", "0",
                                      "--json", str(path), *FLAGS])
    bench.main()
    case = "cpu", "float32", "60x48", 2
    assert few_processes == [("plan",), ("time_inference", *case, True), ("time_bare", *case), ("time_inference", *case), ("time_bare", *case),
                             ("time_preparation", case[2]), ("time_training", "cpu", "float32", True), ("time_training", "cpu", "float32", False)]
    printed, found = capsys.readouterr().out, json.loads(path.read_text(encoding="utf-8"))
    assert set(found) == {"machine", "config", "cases", "training"} and len(found["cases"]) == 1
    assert found["machine"]["torch"] == torch.__version__ and found["machine"]["threads"] >= 1
    assert found["config"]["model"]["dhrnet"]["channels"] == 8
    assert [line["plain"] for line in found["training"]] == [True, False] and all(line["patches_per_s"] > 0 for line in found["training"])
    case = found["cases"][0]
    assert (case["size"], case["device"], case["precision"], case["steps"]) == ("60x48", "cpu", "float32", 2)
    rows = {row["stage"]: row for row in case["rows"]}
    assert list(rows) == ["network input", "condition net", "one denoiser step", "all steps", "alignment", "block 1", "block 2", "output",
                          "DHRNet", "total"]
    for name, row in rows.items():
        assert row["ms"] > 0 and row["plain_ms"] > 0 and row["plain_over_ours"] == row["plain_ms"] / row["ms"]
        assert row["ours_over_bare"] == (None if name == "network input" else row["ms"] / row["bare_ms"])
        assert f"\n{name:<18}{row['ms']:>12,.1f}" in printed
    assert case["preparation_ms"] > 1
    assert case["diffusion_share"] == (rows["condition net"]["ms"] + rows["all steps"]["ms"]) / rows["total"]["ms"]
    if sys.platform != "win32":
        assert case["peak_bytes"] > 50e6 and case["plain_peak_bytes"] > 50e6        # Python and torch alone take more
    macs = stages.table(stages.count_inference(Stage2(TINY), 64, 48, 2)[0], 2)        # 60 is padded to 64
    assert {name: row["macs"] for name, row in rows.items()} == macs


def test_command_ends_with_one_line_for_a_wrong_size(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench.py", "--sizes", "1500", *FLAGS])
    with pytest.raises(SystemExit) as stop:
        run(bench.main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: --sizes 1500: not a size; write WIDTHxHEIGHT, such as 1500x1000\n"


@pytest.mark.parametrize(("words", "message"), [
    (["--sizes", "0x100"], "--sizes 0x100"), (["--sizes", "64x48", "10x20x30"], "--sizes 10x20x30"),
    (["--devices", "cpu", "nonsense"], "--device nonsense"), (["--devices", "cpu", "--precisions", "float16"], "--precision float16"),
    (["--precisions", "half"], "--precision half"), (["--runs", "0"], "--runs 0"), (["--steps", "-1"], "--steps -1"),
    (["--steps", "201"], "found 201 steps"), (["--patch", "20"], "--patch 20"), (["--heads", "3"], "--heads 3")])
def test_wrong_settings_are_refused_before_anything_is_measured(words, message):
    with pytest.raises(ValueError, match=message):
        bench.plan(parse(BenchConfig, [*FLAGS, *(["--sizes", "32x32"] if "--sizes" not in words else []), *words]))


def test_weights_bring_their_architecture_and_must_be_of_stage_2(tmp_path):
    save_weights(tmp_path / "two.pt", Stage2(TINY), PrepareConfig(), {})
    save_weights(tmp_path / "one.pt", Stage1(TINY), PrepareConfig(), {})
    config = BenchConfig(sizes=("32x32",), weights=str(tmp_path / "two.pt"))
    assert bench.network(config).config == TINY and type(bench.network(config).dhrnet) is DHRNet
    assert bench.plan(config)["parameters"]["total"] == count_parameters(Stage2(TINY))
    with pytest.raises(ValueError, match="variant s1"):
        bench.plan(BenchConfig(weights=str(tmp_path / "one.pt")))
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        bench.plan(BenchConfig(weights=str(tmp_path / "none.pt")))


def test_plan_asks_for_each_device_and_precision_once(monkeypatch):
    monkeypatch.setattr(bench, "pick_precision", lambda name, device: {"auto": torch.bfloat16}.get(name) or getattr(torch, name))
    config = BenchConfig(sizes=("32x32",), devices=("cpu", "cpu"), precisions=("auto", "float32", "bfloat16"), model=TINY)
    assert bench.plan(config)["pairs"] == [("cpu", "bfloat16"), ("cpu", "float32")]


def test_a_process_that_is_killed_says_so_and_errors_come_back_from_it():
    with pytest.raises(ValueError, match="_exit: its process was killed, perhaps for lack of memory"):
        bench.in_own_process(os._exit, 9)
    with pytest.raises(ValueError, match="^--sizes 1500: not a size; write WIDTHxHEIGHT, such as 1500x1000$"):
        bench.in_own_process(bench.read_size, "1500")
