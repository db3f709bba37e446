"""Every number of the paper has a command: Table 1 (five metrics), Table 3 (ablations), Table 4 (sampling steps), Figure 1 (time).

Paper: Sec. 5; Table 2 is bench.py.

    python evaluate.py --data folder --root examples --compare           the example, beside reference frame and weighted merge; half a minute
    python evaluate.py --data kalantari --root DIR                       Table 1, left half (--data hu: right half)
    python evaluate.py --data kalantari --root DIR --table 3             Table 3 from the checkpoints in runs/
    python evaluate.py --data kalantari --root DIR --steps 5 10 20 50 100 --weights runs/stage2/weights.pt      Table 4
    python evaluate.py --data sen --root DIR                             no truth: pictures only
    python evaluate.py --data kalantari --root DIR --predictions DIR     the .hdr files of any other program, by the same ruler

A prediction is DIR/NAME.hdr, or the one .hdr file in DIR/NAME/, for each scene folder NAME: linear radiance in units of the shortest
exposure. The last part of DIR names the method. Values above 1 are clipped, as the truth's are. An .hdr file has 8-bit mantissas: that costs
a result of 52 dB up to 0.4 dB, one of 42 dB 0.05.

Written to --out: scores.csv, scores.md, figure1.png (mean PSNR-μ against median seconds an image), METHOD_worst.png and METHOD_best.png
(by PSNR-μ), and for scenes without truth, or with --save, METHOD/SCENE.hdr and .png, which --predictions can read.

Seconds are those of the whole inference from frames in memory to the result in memory, files and metrics not counted; of the diffusion
(Table 4): condition net and S steps. Both in the scores are of one pass, in the tables the median over the scenes.
"""

import math
import re
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from evaluation.bench import synchronise
from common import autocast, count_parameters, load_checkpoint, parse, pick_device, pick_precision, run, save_panel, write_atomically
from brackets.scenes import find_scenes, load_scene, scene_files
from brackets.prepare import align_frames
from data import PLAIN, T, weighted_merge
from evaluation.hdrvdp2 import HDRVDP2Config, quality, settings
from brackets.files import read_image, write_image
from infer import InferConfig, panels, tile_for
from lfdiff import estimate_prior, load_weights, pad_to_multiple, reconstruct
from evaluation.metrics import METRICS, score
from evaluation.report import PAPER_TABLE3, averages, every_image, plot_figure1, save_csv, table1, table3, table4, training_command
from beyond.fast import by_strips, keep_memory
from synthetic.dataset import validation_set
from train_stage1 import validation_predictor

MERGES = {"merge, registered": (True, False, False), "merge, aligned": (True, True, True)}     # weighted merges after register.py, or all of align_frames


@dataclass
class EvaluateConfig:
    """Scores on a data set."""
    data: str = "synthetic"             # kalantari, hu, sen, tursun (their test scenes), synthetic, or folder: --root or its sub-folders are scenes
    root: str = ""                      # folder of the data set (default: data/NAME)
    weights: tuple[str, ...] = ()       # files to score (default: the shipped one, unless --predictions or --table say what to score)
    predictions: tuple[str, ...] = ()   # folders of .hdr files made by other programs
    compare: bool = False               # score the reference frame alone and weighted merges, too: plain, registered, aligned
    steps: tuple[int, ...] = ()         # DDIM steps S, one or several, for Table 4 (default: as trained) [paper: 10]
    table: int = 0                      # 3: the rows of Table 3, from --runs
    runs: str = "runs"                  # folder of the runs baseline, stage1, stage2_split, stage2_without_dm and stage2, for --table 3
    out: str = "results/evaluate"       # folder for the results
    save: bool = False                  # write every result as .hdr and .png, not only where there is no truth
    hdrvdp2: bool = True                # measure HDR-VDP-2, which takes seconds an image
    scenes: int = 0                     # score the first so many; 0: all (synthetic: 8)
    size: int = 256                     # side of a synthetic scene, pixels
    hdr_dir: str = ""                   # folder of .hdr images for the synthetic scenes, as in training
    rendered_dir: str = ""              # folder made by render_scenes.py for the synthetic scenes, as in training
    seed: int = 0                       # of the initial noise z_T, the same for each image
    device: str = "auto"                # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"             # auto (bfloat16 where the hardware has it; else float16 on CUDA, float32 elsewhere), float32, bfloat16, float16
    register: bool = True               # give the networks registered frames, as infer.py does [departs D6]
    response: bool = True               # ... recoded to gamma 2.2 where the camera's curve is another, too [departs D10]
    flow: bool = True                   # ... aligned along optical flow, too [departs D9]
    tile: int = 0                       # side of the tiles of a large image, pixels; 0: none up to 3 megapixels, else 1280; -1: never any
    screen: HDRVDP2Config = field(default_factory=HDRVDP2Config)


@dataclass
class Scene:
    """One bracket, not yet loaded."""
    name: str
    load: Callable                      # function () -> sample, as data.py describes it
    truth: bool                         # whether there is one


@dataclass
class Method:
    """One line of the tables."""
    name: str
    predict: Callable                   # function (scene's name, sample) -> H^ (1, 3, H, W) in [0, 1], float32, on the CPU
    model: torch.nn.Module | None = None
    S: int | None = None                # steps that Table 4 asks for
    computed: bool = True               # False: read from files, so without a time


# --- scenes -----------------------------------------------------------------------------------------------------------

def open_scenes(config):
    """The scenes to score, in order. config: EvaluateConfig. Returns: list of Scene, their names all different.

    Raises: ValueError for an unknown data set; FileNotFoundError where there are no scenes.
    """
    if config.data == "synthetic":
        made = validation_set(config.size, config.scenes or 8, config.hdr_dir, config.rendered_dir)
        return [Scene(made.name(i), partial(made.__getitem__, i), True) for i in range(len(made))]
    if config.data not in ("kalantari", "hu", "sen", "tursun", "folder"):
        raise ValueError(f"--data {config.data}: unknown; use kalantari, hu, sen, tursun, synthetic or folder")
    if config.data == "folder":
        layout, folders = "auto", readable_folders(config.root)
    else:
        layout, folders = config.data, find_scenes(config.data, config.root or Path("data") / config.data, "test")
    folders = [Path(folder).resolve() for folder in folders[:config.scenes or len(folders)]]
    names = [folder.name for folder in folders]
    names = [name if names.count(name) == 1 else f"{folder.parent.name}_{name}" for name, folder in zip(names, folders)]
    return [Scene(name, partial(load_scene, folder, layout), scene_files(folder, layout)[2] is not None) for name, folder in zip(names, folders)]


def readable_folders(root):
    """root itself if it is a scene, else those of its sub-folders that are; says which are not. Raises: FileNotFoundError."""
    if not root or not Path(root).is_dir():
        raise FileNotFoundError(f"--root {root or '(missing)'}: no such folder; give a scene, or a folder of scenes")
    found, reasons = [], []
    for folder in [Path(root), *sorted(p for p in Path(root).iterdir() if p.is_dir() and not p.name.startswith("."))]:
        try:
            scene_files(folder)
        except (ValueError, FileNotFoundError) as error:
            reasons.append(str(error))
            continue
        found.append(folder)
        if folder == Path(root):
            return found
    if not found:
        raise FileNotFoundError(f"--root {root}: neither a scene nor a folder of scenes ({reasons[-1]})")
    for reason in reasons[1:]:
        print(f"skipped: {reason}")
    return found


# --- methods ----------------------------------------------------------------------------------------------------------

def network_method(name, model, config, device, dtype, S=None):
    """A trained network as a Method. model: Stage1 or Stage2, on the device. s1 gets the truth's prior, and takes the image whole."""
    def predict(scene, sample):
        ldr, ev, (H, W) = sample["ldr"], sample["ev"][None].to(device), sample["ldr"].shape[-2:]
        ldr = align_frames(ldr, sample["ev"], config.register, config.response, config.flow)[None].to(device)
        if model.variant == "s1":
            if "hdr" not in sample:
                raise ValueError(f"{name}: these weights are of stage 1, whose prior comes from the truth, and {scene} has none; use stage 2's")
            hdr_hat = validation_predictor(model, device, dtype)(ldr, ev, sample["hdr"][None].to(device)).cpu()
        else:
            tile = tile_for(config.tile, H, W)
            keep_memory(2 ** 26 if tile else 2 ** 30)
            with autocast(device, dtype):
                hdr_hat = reconstruct(model, ldr, ev, S, torch.Generator().manual_seed(config.seed), tile).cpu()
        if not torch.isfinite(hdr_hat).all():
            raise ValueError(f"{name} on {scene}: the result is not finite in {dtype}; try --precision float32")
        return hdr_hat
    return Method(name, predict, model, S)


def weights_methods(config, device, dtype):
    """The Methods of --weights, one for each S of --steps. A file that says nothing (weights.pt) is named after its folder, too."""
    methods = []
    for path in map(Path, config.weights or (() if config.predictions else (InferConfig().weights,))):
        name = f"{path.resolve().parent.name}_{path.stem}" if path.stem in ("weights", "best", "last") else path.stem
        model = load_weights(path, device)
        if config.steps and (model.variant != "s2" or not 1 <= min(config.steps) <= max(config.steps) <= model.schedule.T):
            raise ValueError(f"--steps {' '.join(map(str, config.steps))} with {path}: found the variant {model.variant}; "
                             "give weights of s2 (train_stage2.py) and no fewer than 1 step, no more than the diffusion's T")
        methods += [network_method(f"{name}, S={S}" if S else name, model, config, device, dtype, S) for S in config.steps or (None,)]
    return methods


def plain_method(name):
    """What one has without any network, as a Method. name: of PLAIN, or MERGES."""
    def predict(scene, sample):
        ldr = align_frames(sample["ldr"], sample["ev"], *MERGES.get(name, (False,) * 3))
        return by_strips(lambda ldr: PLAIN.get(name, weighted_merge)(ldr, sample["ev"][None]), ldr[None], halo=0)
    return Method(name, torch.no_grad()(predict))


def prediction_method(folder, scenes):
    """The .hdr files of another program as a Method. Raises: FileNotFoundError, ValueError: which file is missing or too many."""
    files = {}
    for scene in scenes:
        path, inside = Path(folder) / f"{scene.name}.hdr", sorted((Path(folder) / scene.name).glob("*.hdr"))
        if not path.is_file() and len(inside) != 1:
            raise (ValueError if inside else FileNotFoundError)(
                f"--predictions {folder}: found {len(inside)} files for the scene {scene.name}; give {path.name}, or one .hdr file in {scene.name}/")
        files[scene.name] = path if path.is_file() else inside[0]

    def predict(scene, sample):
        image, (H, W) = read_image(files[scene]), sample["ldr"].shape[-2:]
        if image.shape[:2] != (H, W):
            raise ValueError(f"{files[scene]}: {image.shape[1]}x{image.shape[0]} pixels, the scene has {W}x{H}; give a result of its size")
        share = float((image > 1).mean())
        if share > 0.001:
            tqdm.write(f"{files[scene]}: {100 * share:.1f} % of the values are above 1 and were clipped; is it in units of the shortest exposure?")
        return torch.from_numpy(image.clip(0, 1)).permute(2, 0, 1)[None].contiguous()
    return Method(Path(folder).resolve().name, predict, computed=False)


# --- scoring ----------------------------------------------------------------------------------------------------------

@torch.no_grad()
def time_diffusion(model, sample, S, config, device, dtype):
    """Seconds of what Table 4 times, the condition net and S steps, of frames that are on the device."""
    ldr, ev = pad_to_multiple(sample["ldr"])[None].to(device), sample["ev"][None].to(device)
    synchronise(device)
    start = time.perf_counter()
    with autocast(device, dtype):
        estimate_prior(model, ldr, ev, S, torch.Generator().manual_seed(config.seed))
    synchronise(device)
    return time.perf_counter() - start


def file_name(text):
    """A method's name as a part of a file's."""
    return re.sub(r"[^\w.-]+", "_", text)


def evaluate_scene(method, scene, sample, config, device, dtype, extremes):
    """One method on one scene; writes its files. extremes: {(method, "worst" or "best"): rank so far}, kept up to date.

    Returns: {"scene", "method", the keys of METRICS, "seconds", "diffusion_seconds"}, without what was not measured.
    """
    start, out = time.perf_counter(), Path(config.out)
    hdr_hat, row = method.predict(scene.name, sample), {"scene": scene.name, "method": method.name}
    if method.computed:
        row["seconds"] = time.perf_counter() - start
    if method.S:
        row["diffusion_seconds"] = time_diffusion(method.model, sample, method.S, config, device, dtype)
    if scene.truth:
        row.update(score(hdr_hat.to(device), sample["hdr"][None].to(device), config.screen if config.hdrvdp2 else None))
        for which, rank in (("worst", -row["psnr_mu"]), ("best", row["psnr_mu"])):
            if method.name not in (*PLAIN, *MERGES) and rank > extremes.get((method.name, which), -math.inf):
                extremes[method.name, which] = rank
                shown, columns = panels(sample["ldr"][None], sample["ev"][None], hdr_hat, sample["hdr"])
                save_panel(out / f"{file_name(method.name)}_{which}.png", shown, columns)
    if config.save or not scene.truth:
        folder = out / file_name(method.name)
        write_image(folder / f"{scene.name}.hdr", hdr_hat[0].permute(1, 2, 0).contiguous().numpy())
        write_image(folder / f"{scene.name}.png", (T(hdr_hat[0]).permute(1, 2, 0) * 255).round().byte().contiguous().numpy())
    return row


def evaluate(methods, scenes, config, device, dtype):
    """All methods on all scenes, with a line and scores.csv as they come. Returns: list of evaluate_scene's rows."""
    rows, extremes, width = [], {}, max(len(method.name) for method in methods)
    bar = tqdm(total=len(methods) * len(scenes), unit="image", disable=None)
    for scene in scenes:
        sample = scene.load()
        for method in methods:
            if scene.truth or method.computed:
                if (config.steps or len(scenes) < 3) and scene is scenes[0] and method.model is not None:
                    method.predict(scene.name, sample)      # a first pass is slow; a median over many scenes does not see it
                rows.append(evaluate_scene(method, scene, sample, config, device, dtype, extremes))
                said = " ".join(f"{title} {rows[-1][key]:{form}}" for key, (title, form) in METRICS.items() if key in rows[-1])
                tqdm.write(f"{scene.name:<16} {method.name:<{width}} {said or 'no truth: pictures only'}")
                sys.stdout.flush()
            bar.update()
        save_csv(Path(config.out) / "scores.csv", rows, settings(config.screen))
    bar.close()
    return rows


# --- the command ------------------------------------------------------------------------------------------------------

def table3_runs(config, device, dtype):
    """The rows of Table 3 that have a checkpoint. Returns: list of Method, and the `runs` of report.table3.

    Raises: ValueError for a checkpoint of another variant in a row's place.
    """
    methods, runs = [], {}
    for folder, (row, variant, _, _, command) in PAPER_TABLE3.items():
        path = Path(config.runs) / folder / "best.pt"
        if not path.is_file():
            words = [f"python {command} --data {config.data if config.data in ('synthetic', 'hu') else 'kalantari'}"]
            words += [f"--root {shlex.quote(config.root)}"] if config.root and config.data in ("kalantari", "hu") else []
            words += [f"--stage1 {Path(config.runs, 'stage1', 'best.pt').as_posix()}"] if "stage2" in command else []
            runs[folder] = {"command": " ".join([*words, f"--out {path.parent.as_posix()}"])}
            continue
        saved = load_checkpoint(path)
        if saved["variant"] != variant or "training" not in saved or saved["training"].get("split", False) != (folder == "stage2_split"):
            raise ValueError(f"{path}: holds {saved['variant']}, not what {command} trains; move the run to its own folder of {config.runs}")
        model, training = load_weights(path, device), saved["training"]["training"]
        methods.append(network_method(row, model, config, device, dtype))
        runs[folder] = {"parameters": count_parameters(model), "trained on": training["data"], "seed": str(training["seed"]),
                        "command": training_command(saved)}
    return methods, runs


def check(config):
    """Raises: ValueError for settings that are out of range or contradict each other, before anything takes time."""
    if config.table not in (0, 3):
        raise ValueError(f"--table {config.table}: only 3; Table 1 is --data kalantari or hu, Table 2 bench.py, Table 4 --steps")
    if config.table and (config.weights or config.steps):
        raise ValueError("--table 3: takes its checkpoints from --runs and S as trained; leave --weights and --steps away")
    if config.scenes < 0:
        raise ValueError(f"--scenes {config.scenes}: must be 1 or more (0: all)")
    if config.hdrvdp2:
        quality(torch.zeros(3, 17, 17), torch.zeros(3, 17, 17), config.screen)      # its own checks of encoding, screen and peak


def write_report(rows, methods, runs, config, precision):
    """The tables, printed and in scores.md, and the plot. rows: of `evaluate`; runs: of `table3_runs`, or None."""
    out, means = Path(config.out), averages(row for row in rows if "psnr_mu" in row)
    steps, parts = {method.name: method.S for method in methods if method.S and method.name in means}, []
    drawn = plot_figure1(out / "figure1.png", means)
    if means:
        count = len({row["scene"] for row in rows if "psnr_mu" in row})
        parts += [table1(means, config.data), f"{count} scene{'s' * (count > 1)} of {config.data}, {precision}"]
        parts += [settings(config.screen)] if config.hdrvdp2 else []
    if runs is not None:
        parts.append(table3(runs, means, config.data))
    if steps:
        parts.append(table4(steps, means, config.data, config.seed))
    print("\n" + "\n\n".join(parts) if parts else "no scene was scored")
    parts = [f"`python evaluate.py {shlex.join(sys.argv[1:])}`", *parts, *([every_image(rows)] if rows else [])]
    write_atomically(out / "scores.md", lambda file: file.write(("\n\n".join(parts) + "\n").encode()))
    print(f"\nwrote {out / 'scores.md'}" + (", scores.csv" if rows else "") + (", figure1.png" if drawn else ""))


def main():
    """Settings, methods, scenes, scores, tables."""
    config = parse(EvaluateConfig, description=__doc__)
    check(config)
    device = pick_device(config.device)
    dtype, runs = pick_precision(config.precision, device), None
    if config.table:
        methods, runs = table3_runs(config, device, dtype)
    else:
        methods = weights_methods(config, device, dtype)
    methods += [plain_method(name) for name in (*PLAIN, *MERGES)] if config.compare else []
    scenes = open_scenes(config) if methods or config.predictions else []
    with_truth = [scene for scene in scenes if scene.truth]
    if (config.predictions or config.table) and scenes and not with_truth:
        raise ValueError(f"--data {config.data}: has no truth to score --predictions or --table 3 against; use kalantari, hu or synthetic")
    methods += [prediction_method(folder, with_truth) for folder in config.predictions]
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--weights, --predictions: two are called {name!r}; rename one, for the tables tell them apart by name")
    rows = evaluate(methods, scenes, config, device, dtype) if methods else []
    if len(with_truth) < len(scenes):
        print(f"{len(scenes) - len(with_truth)} scenes have no truth: their results are in {config.out}, unscored")
    write_report(rows, methods, runs, config, f"{str(dtype).removeprefix('torch.')} on {device}, seed {config.seed}")


if __name__ == "__main__":
    run(main)
