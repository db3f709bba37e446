"""How fast, how large: the stages of the inference (Fig. 2 (c)) and a training step of stage 1, beside two limits of the same run.

Paper: Table 2 and Sec. 5, which give 0.72 s at 1000x1500 on an A100, 0.106 s of them for the diffusion.

    python bench.py                                                        the paper's size at 1500x1000; minutes on a laptop
    python bench.py --sizes 750x500 1500x1000 --precisions auto float32    several cases, one table each
    python bench.py --no-plain --no-train                                  without the slow limit and the training lines
    python bench.py --devices cpu cuda --compile --json bench.json         every number, as JSON too

    column          what it means
    ms              median of --runs complete passes after a warm-up, with the settings of infer.py; the frames are on the device already
    plain           the same passes of the same code without its care: float32, contiguous maps, no strips, memory not kept
    bare            the stage's convolutions alone, as conv2d calls on whole random maps: channels_last, the case's own precision,
                    memory kept; each distinct one is timed (median of 3 after a warm-up) and counted as often as it is called; the mean
                    of a process before ours and one after it, for a shared machine's speed drifts
    plain/ours      how many times faster than plain; ours/bare: how far from what the library's convolutions take
    parameters      of the stage; all S steps share those of one
    GMAC            1e9 multiply-adds of convolutions, linear layers and attention on whole maps (rows that strips do twice count once)
    peak            most memory a case's own process held: resident, weights and libraries included (CUDA: allocated by torch; n/a on
                    Windows and MPS)

Stages: "network input" is padding and X_i of DHRNet (the condition net makes its own, strip by strip); a denoiser step is one of S, "all
steps" has DDIM's arithmetic too; DHRNet is the sum of alignment, blocks and output; the total is the whole pass; the diffusion is the
condition net and all steps. Weights are random unless --weights names some: time does not depend on them.

Training: stage 1 on synthetic patches, without the perceptual term (lam = 0). "waiting" is the share of the time in which the loop has no
batch; the peak is the training process's, without the processes that load data.

Each measurement runs in a process of its own: its peak is its own and settings do not leak into the next.
"""

import contextlib
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from beyond import fast as strips
from common import autocast, config_from, count_parameters, parse, pick_device, pick_precision, run, seed_all, write_atomically
from data import network_input
from ddim import ddim
from lfdiff import LFDiffConfig, Stage1, Stage2, load_weights, pad_to_multiple
from loss import reconstruction_loss
from training import TrainingConfig, batches, open_data, to_device

try:
    import resource
except ImportError:         # Windows has none
    resource = None

WARMUP_STEPS = 2            # of training


@dataclass
class BenchConfig:
    """The benchmark."""
    sizes: tuple[str, ...] = ("1500x1000",)     # images, WIDTHxHEIGHT
    devices: tuple[str, ...] = ("auto",)        # auto, cpu, cuda, cuda:1, mps
    precisions: tuple[str, ...] = ("auto",)     # auto, float32, bfloat16, float16
    runs: int = 3               # passes to take the median of
    weights: str = ""           # weights of stage 2; empty: random ones of the architecture below
    steps: int = 0              # DDIM steps S; 0: as trained [paper: 10]
    plain: bool = True          # measure the plain limit, which is slow
    compile: bool = False       # torch.compile the networks, as infer.py --compile and train_stage1.py --compile do
    train: bool = True          # measure training too
    batch: int = 0              # patches in a training step; 0: 8 on the CPU, the paper's 64 elsewhere
    patch: int = 128            # side of a training patch, pixels
    train_steps: int = 0        # training steps to measure; 0: 8 on the CPU, 100 elsewhere
    workers: int = 2            # processes that load training data; 0 loads in the main one
    json: str = ""              # file for every number
    case: str = ""              # internal: one measurement, as JSON
    model: LFDiffConfig = field(default_factory=LFDiffConfig)


# --- the inference, stage by stage ----------------------------------------------------------------------------------

def inference(model, ldr, ev, S, mark):
    """lfdiff.reconstruct of a whole image; calls mark(name) where a stage ends. ldr: (1, 3, 3, H, W), ev: (1, 3). Returns: padded H^."""
    ldr = pad_to_multiple(ldr)
    mark("network input")
    D = strips.by_strips(lambda ldr: model.condition(network_input(ldr, ev)), ldr, halo=model.condition.halo,
                         shrink=model.config.lpenet.unshuffle).float()
    mark("condition net")

    def eps_theta(z_t, t):
        mark("DDIM arithmetic")
        eps_hat = model.eps_theta(z_t, D, t)
        mark("denoiser")
        return eps_hat
    z_hat = ddim(eps_theta, torch.randn(D.shape).to(D), model.schedule, S, model.config.diffusion.eta)
    mark("DDIM arithmetic")
    X = network_input(ldr, ev)
    mark("network input")
    hdr_hat = model.rebuild(X, z_hat)
    mark("output")
    return hdr_hat


def mark_inside(model, mark):
    """Has DHRNet call mark(name) at the end of its alignment and of each block. A compiled one is not to be looked into."""
    parts = {"alignment": model.dhrnet.align, **{f"block {i}": block for i, block in enumerate(model.dhrnet.blocks, start=1)}}
    for name, part in parts.items():
        part.register_forward_hook(lambda part, inputs, output, name=name: mark(name))


def table(marks, S):
    """From what was measured between marks to the table's rows.

    marks: {name: number}, as `inference` and `mark_inside` name them. Returns: {row: number}; the parts of DHRNet are None where only its
    sum was seen.
    """
    blocks = {name: number for name, number in marks.items() if name.startswith("block ")}
    steps = marks["denoiser"] + marks["DDIM arithmetic"]
    seen = bool(blocks)
    rows = {"network input": marks["network input"], "condition net": marks["condition net"], "one denoiser step": marks["denoiser"] / S,
            "all steps": steps, "alignment": marks["alignment"] if seen else None, **blocks, "output": marks["output"] if seen else None}
    rows["DHRNet"] = marks["output"] + (marks["alignment"] + sum(blocks.values()) if seen else 0)
    rows["total"] = rows["network input"] + rows["condition net"] + steps + rows["DHRNet"]
    return rows


def parameters(model):
    """{row of the table: parameters}, as `table` names them."""
    dhrnet = model.dhrnet
    parts = {"condition net": model.condition, "one denoiser step": model.denoiser, "all steps": model.denoiser, "alignment": dhrnet.align,
             **{f"block {i}": block for i, block in enumerate(dhrnet.blocks, start=1)},
             "output": dhrnet.out, "DHRNet": dhrnet, "total": model}
    return {"network input": 0, **{name: count_parameters(part) for name, part in parts.items()}}


# --- multiply-adds and convolutions, counted without computing ------------------------------------------------------

class ConvolutionLog(TorchDispatchMode):
    """Counts the convolutions called while it is entered, by (input shape, weight shape, bias, stride, padding, dilation, groups)."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution.default:
            x, weight, bias, stride, padding, dilation, _, _, groups = args
            self.calls[(tuple(x.shape), tuple(weight.shape), bias is not None, tuple(stride), tuple(padding), tuple(dilation), groups)] += 1
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def without_strips():
    """Whole maps everywhere."""
    before, strips.STRIP_BYTES = strips.STRIP_BYTES, 2 ** 60
    try:
        yield
    finally:
        strips.STRIP_BYTES = before


def count_work(work):
    """What each stage of work(mark) does, from shapes alone: the tensors it makes have no values and take no memory.

    Returns: {name: multiply-adds} and {name: Counter of convolutions as in ConvolutionLog}, by the names it marks.
    """
    macs, convolutions, done = Counter(), {}, 0

    def mark(name):
        nonlocal done
        total = counter.get_total_flops() // 2
        macs[name] += total - done
        convolutions[name] = convolutions.get(name, Counter()) + log.calls
        done, log.calls = total, Counter()
    with torch.no_grad(), without_strips(), FakeTensorMode(), FlopCounterMode(display=False) as counter, ConvolutionLog() as log:
        work(mark)
    return dict(macs), convolutions


def count_inference(config, width, height, S):
    """count_work of the inference. config: LFDiffConfig. The maps are on the CPU, whose operations the counter knows."""
    def work(mark):
        model = Stage2(config).eval()
        mark_inside(model, mark)
        inference(model, torch.empty(1, 3, 3, height, width), torch.zeros(1, 3), S, mark)
    return count_work(work)


def bare_milliseconds(convolution, device, dtype, runs=3):
    """Median time of one convolution (as ConvolutionLog has it) of random maps, channels_last, after a warm-up."""
    shape, weight_shape, bias, stride, padding, dilation, groups = convolution
    x, weight, bias = (torch.randn(size, dtype=dtype, device=device) for size in (shape, weight_shape, weight_shape[:1] if bias else 0))
    x, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, weight))
    times = []
    with torch.no_grad():
        for _ in range(1 + runs):
            clock = Clock(device)
            torch.conv2d(x, weight, bias if len(bias) else None, stride, padding, dilation, groups)
            clock.mark("conv2d")
            times.append(clock.milliseconds()["conv2d"])
    return statistics.median(times[1:])


# --- time and memory ------------------------------------------------------------------------------------------------

def synchronise(device):
    """Waits until the device has done what it was given."""
    if device.type in ("cuda", "mps"):
        (torch.cuda if device.type == "cuda" else torch.mps).synchronize()


class Clock:
    """Time between marks. On CUDA the marks are events in the stream, so that the GPU never waits for the clock."""

    def __init__(self, device):
        self.device, self.marks = device, []
        synchronise(device)
        self.mark("start")

    def mark(self, name):
        """Ends the stage of this name."""
        if self.device.type == "cuda":
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        else:
            synchronise(self.device)
            moment = time.perf_counter()
        self.marks.append((name, moment))

    def milliseconds(self):
        """{name: milliseconds}, the sum over the stages of that name."""
        synchronise(self.device)
        spans = Counter()
        for (_, before), (name, after) in zip(self.marks, self.marks[1:]):
            spans[name] += before.elapsed_time(after) if self.device.type == "cuda" else 1000 * (after - before)
        return dict(spans)


def peak_bytes(device):
    """The most memory this process has held so far, or None where the system does not say.

    On Linux a process begins with the peak of the one that started it, so whatever is large happens in processes of its own.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or resource is None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)       # bytes on macOS, else KiB


# --- the measurements, each in its own process ----------------------------------------------------------------------

def read_size(text):
    """"1500x1000" -> (1500, 1000). Raises: ValueError."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise ValueError(f"--sizes {text}: not a size; write WIDTHxHEIGHT, such as 1500x1000")
    return tuple(int(number) for number in found.groups())


def network(config):
    """The Stage2 to measure, on the CPU, in eval mode. Raises: ValueError for weights of another variant."""
    if not config.weights:
        return Stage2(config.model).eval()
    model = load_weights(config.weights)
    if model.variant != "s2":
        raise ValueError(f"--weights {config.weights}: these are of the variant {model.variant}; bench.py measures s2 (train_stage2.py)")
    return model


def training_config(config, device):
    """TrainingConfig of the training measurement."""
    return TrainingConfig(batch=config.batch or (8 if device.type == "cpu" else 64), patch=config.patch, workers=config.workers)


def plan(config):
    """What there is to measure, and what needs no clock. Raises: ValueError where a setting, a device or a file is not usable."""
    for name, least in (("runs", 1), ("steps", 0), ("batch", 0), ("train_steps", 0), ("workers", 0)):
        if getattr(config, name) < least:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(config, name)}: must be {least} or more")
    sizes, model = {text: read_size(text) for text in config.sizes}, network(config)
    S, pairs = config.steps or model.config.diffusion.S, []
    for device in map(pick_device, config.devices):
        for name in config.precisions:
            pair = str(device), str(pick_precision(name, device)).removeprefix("torch.")
            pairs += [pair] if pair not in pairs else []
        if config.train:
            open_data(training_config(config, device))
    gpus = {device: torch.cuda.get_device_name(device) for device, _ in pairs if device.startswith("cuda")}
    machine = {"system": f"{platform.system()} {platform.machine()}", "torch": torch.__version__, "threads": torch.get_num_threads(),
               "cpu": torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine(), "gpu": gpus}
    work = {text: table(count_inference(model.config, *size, S)[0], S) for text, size in sizes.items()}
    return {"machine": machine, "pairs": pairs, "steps": S, "macs": work, "parameters": parameters(model)}


def time_inference(config, job, plain=False):
    """Times the passes. job: {"device", "precision", "size", "steps"}; plain: the limit of that name. Returns: dict."""
    device, (width, height), S = pick_device(job["device"]), read_size(job["size"]), job["steps"]
    dtype = torch.float32 if plain else getattr(torch, job["precision"])
    seed_all(0)
    model = network(config).to(device, memory_format=torch.contiguous_format if plain else torch.channels_last)
    ldr, ev = torch.rand(1, 3, 3, height, width).to(device), torch.tensor([[0.0, 2.0, 4.0]], device=device)
    compiled = config.compile and not plain
    if not plain:
        strips.keep_memory()                                    # here as in infer.py: what was needed for loading is given back
    for part in model.children() if compiled else ():
        part.compile()

    clocks = []
    if not compiled:
        mark_inside(model, lambda name: clocks[-1].mark(name))
    with torch.no_grad(), without_strips() if plain else contextlib.nullcontext():
        for _ in range(compiled + 1 + config.runs):
            clocks.append(Clock(device))
            with autocast(device, dtype):
                inference(model, ldr, ev, S, clocks[-1].mark)
    passes = [table(clock.milliseconds(), S) for clock in clocks]
    timed = passes[-config.runs:]
    middle = {row: None if timed[0][row] is None else statistics.median(rows[row] for rows in timed) for row in timed[0]}
    return {"ms": middle, "peak_bytes": peak_bytes(device), "first_pass_ms": passes[0]["total"]}


def time_bare(config, job):
    """Times each convolution of the network by itself. Returns: {"ms": {row: milliseconds}}."""
    device, dtype, S = pick_device(job["device"]), getattr(torch, job["precision"]), job["steps"]
    strips.keep_memory()
    convolutions = count_inference(network(config).config, *read_size(job["size"]), S)[1]
    each = {convolution: bare_milliseconds(convolution, device, dtype) for convolution in set().union(*convolutions.values())}
    return {"ms": table({name: sum(each[convolution] * calls for convolution, calls in counter.items())
                         for name, counter in convolutions.items()}, S)}


def time_training(config, job, plain=False):
    """Times stage 1's training step as train_stage1.py takes it, without VGG19. job, plain: as in time_inference. Returns: dict."""
    device = pick_device(job["device"])
    dtype, settings = torch.float32 if plain else getattr(torch, job["precision"]), training_config(config, device)
    if not plain:
        strips.keep_memory()
    seed_all(0)
    model = Stage1(network(config).config).to(device, memory_format=torch.contiguous_format if plain else torch.channels_last)
    if config.compile and not plain:
        model.compile()
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.lr)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    steps = config.train_steps or (8 if device.type == "cpu" else 100)
    loader, waited = iter(batches(open_data(settings)[0], settings, 0, WARMUP_STEPS + steps)), 0.0
    for step in range(WARMUP_STEPS + steps):
        if step == WARMUP_STEPS:
            synchronise(device)
            start, waited = time.perf_counter(), 0.0
        before = time.perf_counter()
        batch = next(loader)
        waited += time.perf_counter() - before
        ldr, ev, hdr = to_device(batch, device)
        with autocast(device, dtype):
            hdr_hat = model(network_input(ldr, ev), hdr)
        L_r, _ = reconstruction_loss(hdr_hat, hdr, None, 0)
        optimiser.zero_grad()
        scaler.scale(L_r).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        scaler.step(optimiser)
        scaler.update()
    synchronise(device)
    seconds = time.perf_counter() - start
    return {"patches_per_s": steps * settings.batch / seconds, "waiting": waited / seconds, "peak_bytes": peak_bytes(device),
            "batch": settings.batch, "patch": settings.patch, "steps": steps, "lam": 0}


def measure(job):
    """Does one job in this process. job: as `in_own_process` sends it. Returns: dict of plain values."""
    config, plain, kind = config_from(BenchConfig, job["config"]), job["kind"].startswith("plain "), job["kind"].removeprefix("plain ")
    if job.get("device", "").startswith("cuda"):
        torch.cuda.set_device(job["device"])
    if kind == "plan":
        return plan(config)
    if kind == "bare":
        return time_bare(config, job)
    return (time_inference if kind == "inference" else time_training)(config, job, plain)


# --- the command ----------------------------------------------------------------------------------------------------

def in_own_process(config, kind, **job):
    """Runs `measure` in a new process. Returns: its dict. Raises: ValueError with what the process said."""
    if job:
        print(f"... {kind}: {' '.join(str(value) for value in job.values())}", file=sys.stderr, flush=True)
    job = json.dumps({"kind": kind, "config": asdict(config), **job})
    done = subprocess.run([sys.executable, __file__, "--case", job], capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        if said and said[-1].startswith("error: "):
            raise ValueError(said[-1].removeprefix("error: "))
        raise ValueError(f"{kind}: its process ended with code {done.returncode} ({said[-1] if said else 'killed: too little memory?'}); "
                         "try a smaller --sizes or --batch, or --no-plain")
    sys.stderr.write(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def quotient(above, below):
    """above / below, or None where one is missing or there is nothing to divide by."""
    return above / below if above is not None and below else None


def measure_case(config, planned, device, precision, size, plain):
    """The passes and the bare convolutions of one case. plain: result of the plain limit, or None. Returns: the case's part of the JSON."""
    job = {"device": device, "precision": precision, "size": size, "steps": planned["steps"]}
    before, ours, after = (in_own_process(config, kind, **job) for kind in ("bare", "inference", "bare"))
    rows = []
    for name, ms in ours["ms"].items():
        plain_ms, bare_ms = plain and plain["ms"][name], (before["ms"][name] + after["ms"][name]) / 2
        rows.append({"stage": name, "ms": ms, "plain_ms": plain_ms, "bare_ms": bare_ms,
                     "plain_over_ours": quotient(plain_ms, ms), "ours_over_bare": quotient(ms, bare_ms),
                     "parameters": planned["parameters"][name], "macs": planned["macs"][size][name]})
    return {**job, "rows": rows, "diffusion_share": (ours["ms"]["condition net"] + ours["ms"]["all steps"]) / ours["ms"]["total"],
            "first_pass_ms": ours["first_pass_ms"], "peak_bytes": ours["peak_bytes"], "plain_peak_bytes": plain and plain["peak_bytes"]}


def cell(value, form):
    """A number, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def gigabytes(size):
    """Bytes as text."""
    return "n/a" if size is None else f"{size / 1e9:.2f} GB"


def print_case(case, compiled):
    """The table of one case."""
    limit = f" (plain: {gigabytes(case['plain_peak_bytes'])})" if case["rows"][0]["plain_ms"] is not None else ""
    print(f"\n{case['size']} on {case['device']} in {case['precision']}, {case['steps']} steps, peak {gigabytes(case['peak_bytes'])}{limit}"
          + (f", compiled: first pass {case['first_pass_ms'] / 1000:.1f} s" if compiled else ""))
    print(f"{'stage':<18}" + "".join(f"{title:>12}" for title in ("ms", "plain", "bare", "plain/ours", "ours/bare", "parameters", "GMAC")))
    for row in case["rows"]:
        cells = [cell(row[name], ",.1f") for name in ("ms", "plain_ms", "bare_ms")]
        cells += [cell(row[name], ".2f") for name in ("plain_over_ours", "ours_over_bare")]
        print(f"{row['stage']:<18}" + "".join(f"{text:>12}" for text in (*cells, f"{row['parameters']:,}", f"{row['macs'] / 1e9:,.3f}")))
    print(f"diffusion share of total: {100 * case['diffusion_share']:.1f} %", flush=True)


def print_training(line):
    """One training line."""
    print(f"training on {line['device']} in {line['precision']}{', plain' if line['plain'] else ''}, {line['batch']} patches of "
          f"{line['patch']}, lam 0: {line['patches_per_s']:.2f} patches/s, waiting for data {100 * line['waiting']:.1f} %, "
          f"peak {gigabytes(line['peak_bytes'])}", flush=True)


def main():
    """Plans, measures case by case, prints each table when it is there, writes the JSON."""
    config = parse(BenchConfig, description=__doc__)
    if config.case:
        print(json.dumps(measure(json.loads(config.case))))
        return
    planned = in_own_process(config, "plan")
    machine, cases, training, plains = planned["machine"], [], [], {}
    print(f"{machine['system']}, {machine['cpu']}, {', '.join(machine['gpu'].values()) or 'no GPU used'}, torch {machine['torch']}, "
          f"{machine['threads']} threads", flush=True)
    for device, precision in planned["pairs"]:
        for size in config.sizes:
            if config.plain and (device, size) not in plains:
                job = {"device": device, "precision": "float32", "size": size, "steps": planned["steps"]}
                plains[device, size] = in_own_process(config, "plain inference", **job)
            cases.append(measure_case(config, planned, device, precision, size, plains.get((device, size))))
            print_case(cases[-1], config.compile)
    for device in dict.fromkeys(device for device, _ in planned["pairs"] if config.train):
        jobs = [("plain training", "float32")] if config.plain else []
        jobs += [("training", precision) for of, precision in planned["pairs"] if of == device]
        for kind, precision in jobs:
            line = {"device": device, "precision": precision, "plain": kind.startswith("plain")}
            training.append({**line, **in_own_process(config, kind, device=device, precision=precision)})
            print_training(training[-1])
    if config.json:
        text = json.dumps({"machine": machine, "config": asdict(config), "cases": cases, "training": training}, indent=1)
        write_atomically(config.json, lambda file: file.write(text.encode()))
        print(f"wrote {config.json}")


if __name__ == "__main__":
    run(main)
