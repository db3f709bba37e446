"""Measures the speed and size of each inference stage (stages.py) and of a training step of stage 1, beside two reference timings of the same run.

Paper: Table 2 and Sec. 5, which give 0.72 s at 1000x1500 on an A100, of which the diffusion takes 0.106 s.

    python -m evaluation.bench                                                        the paper's network at 1500x1000; minutes on a laptop
    python -m evaluation.bench --sizes 750x500 1500x1000 --precisions auto float32    several cases, one table each
    python -m evaluation.bench --no-plain --no-train                                  without the slow plain passes and the training lines
    python -m evaluation.bench --devices cpu cuda --compile --json bench.json         every number, as JSON too

    column          what it means
    ms              median of --runs passes after a warm-up, run as in infer.py: fast modules (beyond/fast.py), channels_last, memory kept
    plain           the same passes with the paper's files unchanged: float32, contiguous maps, memory not kept
    bare            only the convolutions of the plain stage, as conv2d calls on whole random maps: channels_last, the case's own precision,
                    memory kept. Each distinct one is timed (median of 3 after a warm-up) and multiplied by the number of its calls. A shared
                    machine's speed drifts, so this is done once before our passes and once after them; the column is the mean of both
    plain/ours      how many times faster than plain; ours/bare: how many times slower than the library's bare convolutions
    parameters      of the stage; all S steps share one set
    GMAC            1e9 multiply-adds of the plain stage: convolutions, linear layers and attention
    peak            the most resident memory that the case's own process held, weights and libraries included (CUDA: allocated by torch; n/a on
                    Windows and MPS)

Preparation is what brackets/prepare.py does first: registration, light, optical flow. The diffusion is the condition net and all steps.
Weights are random unless --weights names a file; they do not affect the time. The training lines train stage 1 on synthetic patches without
the perceptual term (lam = 0). "waiting" is the share of the time in which the loop waits for a batch; the peak leaves out the processes that
load data. Each measurement runs in a process of its own, so its peak is its own and its settings do not leak into the next one.
"""

import json
import platform
import re
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

from common import Count, Sixteens, Whole, autocast, parse, pick_device, pick_precision, run, write_atomically
import torch
from torch.utils.benchmark import timer

from beyond.config import BeyondConfig
from beyond.fast import keep_memory, speed_up
from beyond.weights import load_weights
from brackets.ownership import check_replaceable, check_writable
from brackets.prepare import prepare
from data import network_input
from evaluation.report import cell
from evaluation.stages import Clock, bare_milliseconds, count_inference, mark_stages, parameters, table
from lfdiff import LFDiffConfig, Stage1, Stage2, reconstruct
from loss import reconstruction_loss
from synthetic.dataset import AS_TAKEN, SyntheticBrackets, SyntheticConfig
from training import TrainingConfig, batches, open_data, to_device

try:
    import resource
except ImportError:         # not on Windows
    resource = None

WARMUP_STEPS = 2            # of training


@dataclass
class BenchConfig:
    """The benchmark."""
    sizes: tuple[str, ...] = ("1500x1000",)     # images, WIDTHxHEIGHT
    devices: tuple[str, ...] = ("auto",)        # auto, cpu, cuda, cuda:1, mps
    precisions: tuple[str, ...] = ("auto",)     # auto, float32, bfloat16, float16
    runs: Count = 3             # passes to take the median of
    weights: str = ""           # stage 2 weights; empty: random ones for the architecture below
    steps: Whole = 0            # DDIM steps S; 0: as trained [paper: 10]
    plain: bool = True          # measure the plain passes too, which is slow
    compile: bool = False       # torch.compile the networks, as infer.py --compile and train_stage1.py --compile do
    train: bool = True          # measure training too
    batch: Whole = 0            # patches in a training step; 0: 8 on the CPU, the paper's 64 elsewhere
    patch: Sixteens = 128       # side of a training patch, pixels
    train_steps: Whole = 0      # training steps to measure; 0: 8 on the CPU, 100 elsewhere
    workers: Whole = 2          # processes that load training data; 0: the main process loads it
    json: str = ""              # file to write every number to
    model: LFDiffConfig = field(default_factory=LFDiffConfig)


# --- the measurements, each in its own process ----------------------------------------------------------------------

def peak_bytes(device):
    """Returns the most memory that this process has held so far, or None where the system does not say.

    On Linux a process inherits the peak of the process that started it, so everything large runs in a process of its own.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or resource is None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)       # bytes on macOS, else KiB


def read_size(text):
    """Parses "1500x1000" into (1500, 1000). Raises: ValueError."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise ValueError(f"--sizes {text}: not a size; write WIDTHxHEIGHT, such as 1500x1000")
    return tuple(int(number) for number in found.groups())


def network(config):
    """Returns the Stage2 to measure, in its plain form, on the CPU, in eval mode. Raises: ValueError for weights of another variant."""
    if not config.weights:
        return Stage2(config.model).eval()
    model = load_weights(config.weights, fast=False)
    if model.variant != "s2":
        raise ValueError(f"--weights {config.weights}: these are of the variant {model.variant}; give weights of s2 (train_stage2.py)")
    return model


def training_config(config, device):
    """Returns the TrainingConfig of the training measurement."""
    return TrainingConfig("synthetic", batch=config.batch or (8 if device.type == "cpu" else 64), patch=config.patch, workers=config.workers,
                          val_scenes=1, val_size=64)


def plan(config):
    """Lists what to measure, and computes what needs no timing. Raises: ValueError for a setting, a device or a file that cannot be used."""
    sizes, model = {text: read_size(text) for text in config.sizes}, network(config)
    S, pairs = config.steps or model.config.diffusion.S, []
    for device in map(pick_device, config.devices):
        pairs += [(str(device), str(pick_precision(name, device)).removeprefix("torch.")) for name in config.precisions]
        if config.train:
            open_data(training_config(config, device), BeyondConfig())
    gpus = {device: torch.cuda.get_device_name(device) for device, _ in pairs if device.startswith("cuda")}
    machine = {"system": f"{platform.system()} {platform.machine()}", "torch": torch.__version__, "threads": torch.get_num_threads(),
               "cpu": torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine(), "gpu": gpus}
    macs = {text: table(count_inference(model, *size, S)[0], S) for text, size in sizes.items()}
    return {"machine": machine, "pairs": list(dict.fromkeys(pairs)), "steps": S, "macs": macs, "parameters": parameters(model)}


def place(model, device, plain):
    """Moves the model to the device, either in the paper's plain form or with everything that makes it fast."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if plain:
        return model.to(device, memory_format=torch.contiguous_format)
    keep_memory()                                                   # after loading, as in infer.py, so that memory used for loading is given back
    return speed_up(model).to(device, memory_format=torch.channels_last)


def time_inference(config, device, precision, size, S, plain=False):
    """Times the passes. Returns: {"ms": {row: milliseconds}, "peak_bytes", "first_pass_ms"}."""
    device, (width, height), compiled = pick_device(device), read_size(size), config.compile and not plain
    dtype = pick_precision(precision, device)
    torch.manual_seed(0)
    model = place(network(config), device, plain)
    ldr, ev = torch.rand(1, 3, 3, height, width).to(device), torch.tensor([[0.0, 2.0, 4.0]], device=device)
    for part in model.children() if compiled else ():
        part.forward = torch.compile(part.forward)                  # not the module itself, whose hooks would be compiled with it
    clocks, passes = [], []
    mark_stages(model, lambda name: clocks[-1].mark(name), inside=not compiled)
    for _ in range(compiled + 1 + config.runs):
        clocks.append(Clock(device))
        with autocast(device, dtype):
            reconstruct(model, ldr, ev, S)
        passes.append(table(clocks[-1].milliseconds(), S))
    median = {row: statistics.median(each[row] for each in passes[-config.runs:]) for row in passes[0]}
    return {"ms": median, "peak_bytes": peak_bytes(device), "first_pass_ms": passes[0]["total"]}


def time_preparation(config, size):
    """Times registration, light and flow (brackets/prepare.py), which run on the CPU whatever the device. Returns: median milliseconds.

    The bracket is synthetic, with camera and object motion, and enlarged to the size. What is found depends on the frames; the time hardly does.
    """
    width, height = read_size(size)
    taken = SyntheticBrackets((256, 384), seed=1, config=SyntheticConfig(ev_steps=(2.0,), static_camera=0.0, static_scene=0.0, **AS_TAKEN))[0]
    ldr, times = torch.nn.functional.interpolate(taken["ldr"], size=(height, width), mode="bilinear", align_corners=False), []
    for _ in range(1 + config.runs):
        start = timer()
        prepare(ldr, taken["ev"])
        times.append(1000 * (timer() - start))
    return statistics.median(times[1:])


def time_bare(config, device, precision, size, S):
    """Times each convolution of the network by itself. Returns: {row: milliseconds}."""
    device = pick_device(device)
    dtype = pick_precision(precision, device)
    keep_memory()
    convolutions = count_inference(network(config), *read_size(size), S)[1]
    each = {convolution: bare_milliseconds(convolution, device, dtype) for convolution in set().union(*convolutions.values())}
    return table({name: sum(each[convolution] * calls for convolution, calls in counter.items()) for name, counter in convolutions.items()}, S)


def time_training(config, device, precision, plain=False):
    """Times the training step of stage 1 as in train_stage1.py, without VGG19. Returns: the results for a training line."""
    device = pick_device(device)
    dtype, settings = pick_precision(precision, device), training_config(config, device)
    torch.manual_seed(0)
    model = place(Stage1(network(config).config), device, plain)
    if config.compile and not plain:
        model.compile()
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.lr)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    steps = config.train_steps or (8 if device.type == "cpu" else 100)
    loader, waited = iter(batches(open_data(settings, BeyondConfig())[0], settings, 0, WARMUP_STEPS + steps)), 0.0
    model.train()
    for step in range(WARMUP_STEPS + steps):
        if step == WARMUP_STEPS:
            start, waited = timer(), 0.0
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
    seconds = timer() - start
    return {"patches_per_s": steps * settings.batch / seconds, "waiting": waited / seconds, "peak_bytes": peak_bytes(device),
            "batch": settings.batch, "patch": settings.patch, "steps": steps, "lam": 0}


# --- the command ----------------------------------------------------------------------------------------------------

def in_own_process(measure, config, *job):
    """Runs measure(config, *job) in a new process. Returns: its result. Raises: ValueError if the process is killed, else what measure raises."""
    if job:
        print(f"... {measure.__name__} {' '.join(map(str, job))}", file=sys.stderr, flush=True)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(measure, config, *job).result()
        except BrokenProcessPool:
            raise ValueError(f"{measure.__name__}: its process was killed, perhaps for lack of memory; try smaller --sizes or --batch, "
                             "or --no-plain") from None


def quotient(above, below):
    """Returns above / below, or None where one is missing or `below` is 0."""
    return above / below if above is not None and below else None


def measure_case(config, planned, device, precision, size, plain):
    """Measures the passes and the bare convolutions of one case. plain: result of the plain passes, or None. Returns: the case's part of the JSON."""
    job = device, precision, size, planned["steps"]
    before, ours, after = (in_own_process(measure, config, *job) for measure in (time_bare, time_inference, time_bare))
    rows = []
    for name, count in planned["parameters"].items():
        ms, plain_ms, bare_ms = ours["ms"].get(name), plain and plain["ms"][name], (before[name] + after[name]) / 2
        rows.append({"stage": name, "ms": ms, "plain_ms": plain_ms, "bare_ms": bare_ms, "plain_over_ours": quotient(plain_ms, ms),
                     "ours_over_bare": quotient(ms, bare_ms), "parameters": count, "macs": planned["macs"][size][name]})
    return {**dict(zip(("device", "precision", "size", "steps"), job)), "rows": rows, "preparation_ms": in_own_process(time_preparation, config, size),
            "diffusion_share": (ours["ms"]["condition net"] + ours["ms"]["all steps"]) / ours["ms"]["total"],
            "first_pass_ms": ours["first_pass_ms"], "peak_bytes": ours["peak_bytes"], "plain_peak_bytes": plain and plain["peak_bytes"]}


def gigabytes(size):
    """Formats a number of bytes as text."""
    return "n/a" if size is None else f"{size / 1e9:.2f} GB"


def print_case(case, compiled):
    """Prints the table of one case."""
    limit = f" (plain: {gigabytes(case['plain_peak_bytes'])})" if case["rows"][0]["plain_ms"] is not None else ""
    print(f"\n{case['size']} on {case['device']} in {case['precision']}, {case['steps']} steps, peak {gigabytes(case['peak_bytes'])}{limit}"
          + (f", compiled: first pass {case['first_pass_ms'] / 1000:.1f} s" if compiled else ""))
    print(f"{'stage':<18}" + "".join(f"{title:>12}" for title in ("ms", "plain", "bare", "plain/ours", "ours/bare", "parameters", "GMAC")))
    for row in case["rows"]:
        cells = [cell(row[name], ",.1f") for name in ("ms", "plain_ms", "bare_ms")]
        cells += [cell(row[name], ".2f") for name in ("plain_over_ours", "ours_over_bare")]
        print(f"{row['stage']:<18}" + "".join(f"{text:>12}" for text in (*cells, f"{row['parameters']:,}", f"{row['macs'] / 1e9:,.3f}")))
    print(f"diffusion share of total: {100 * case['diffusion_share']:.1f} %; preparing the frames beforehand (on the CPU): "
          f"{case['preparation_ms']:,.0f} ms", flush=True)


def print_training(line):
    """Prints one training line."""
    print(f"training on {line['device']} in {line['precision']}{', plain' if line['plain'] else ''}, {line['batch']} patches of "
          f"{line['patch']}, lam 0: {line['patches_per_s']:.2f} patches/s, waiting for data {100 * line['waiting']:.1f} %, "
          f"peak {gigabytes(line['peak_bytes'])}", flush=True)


def main():
    """Plans, measures case by case, prints each table as soon as it is ready, and writes the JSON."""
    config = parse(BenchConfig, description=__doc__)
    if config.json:
        check_writable(Path(config.json).parent, "--json")
        check_replaceable(config.json, first=r"\{")
    planned = in_own_process(plan, config)
    machine, cases, training, plains = planned["machine"], [], [], {}
    print(f"{machine['system']}, {machine['cpu']}, {', '.join(machine['gpu'].values()) or 'no GPU used'}, torch {machine['torch']}, "
          f"{machine['threads']} threads", flush=True)
    for device, precision in planned["pairs"]:
        for size in config.sizes:
            if config.plain and (device, size) not in plains:
                plains[device, size] = in_own_process(time_inference, config, device, "float32", size, planned["steps"], True)
            cases.append(measure_case(config, planned, device, precision, size, plains.get((device, size))))
            print_case(cases[-1], config.compile)
    for device in dict.fromkeys(device for device, _ in planned["pairs"] if config.train):
        jobs = [("float32", True)] if config.plain else []
        for precision, plain in jobs + [(precision, False) for of, precision in planned["pairs"] if of == device]:
            line = {"device": device, "precision": precision, "plain": plain}
            training.append({**line, **in_own_process(time_training, config, device, precision, plain)})
            print_training(training[-1])
    if config.json:
        text = json.dumps({"machine": machine, "config": asdict(config), "cases": cases, "training": training}, indent=1)
        write_atomically(config.json, lambda file: file.write(text.encode()))
        print(f"wrote {config.json}")


if __name__ == "__main__":
    run(main)
