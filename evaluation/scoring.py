"""Does the work of evaluate.py: scenes, methods, the scores of each method on each scene, and the runs of Table 3.

Paper: Sec. 5. A scene is a bracket that is loaded when its turn comes. A method turns it into an image: a network, a plain merge, or the files
of another program. `config` is evaluate.py's EvaluateConfig everywhere.

A network gets its frames prepared as in its training, unless --register, --response or --flow says otherwise.
"""

import math
import re
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.utils.benchmark import timer
from tqdm import tqdm

from beyond.checkpoints import load_checkpoint
from beyond.fast import by_strips
from beyond.pictures import panels, save_panel
from beyond.still import with_merge
from beyond.tiles import check_sampler, check_steps, keep_memory_for, reconstruct_in_tiles, tile_for
from beyond.weights import SHIPPED, load_weights
from brackets.files import read_image, write_image
from brackets.kinds import check_folder
from brackets.marks import PICTURE
from brackets.ownership import RUN_LOCK, check_replaceable, check_writable, lock
from brackets.prepare import UNPREPARED, PrepareConfig, prepare
from brackets.scenes import find_scenes, load_scene, scene_files
from common import autocast, count_parameters, in_words
from brackets.merge import PLAIN, weighted_merge
from data import T, network_input
from evaluation.hdrvdp2 import quality, settings
from evaluation.metrics import METRICS, score
from evaluation.report import PAPER_TABLE3, save_csv, training_command
from lfdiff import pad_to_multiple
from synthetic.dataset import validation_set

MERGES = {"merge, registered": PrepareConfig(response=False, flow=False), "merge, aligned": PrepareConfig()}    # weighted merges of prepared frames


@dataclass
class Scene:
    """One bracket, not yet loaded."""
    name: str
    load: Callable                      # function () -> sample, as data.py describes it
    truth: bool                         # whether the scene has one


@dataclass
class Method:
    """One line of the tables."""
    name: str
    predict: Callable                   # function (scene's name, sample) -> H^ (1, 3, H, W) in [0, 1], float32, on the CPU
    model: torch.nn.Module | None = None
    S: int | None = None                # steps, for Table 4
    computed: bool = True               # False: read from files, so there is no time


def check(config):
    """Checks the settings before anything takes time. Raises: ValueError if they are out of range or contradict each other."""
    if config.table not in (0, 3):
        raise ValueError(f"--table {config.table}: only 3; Table 1 is --data kalantari or hu, Table 2 python -m evaluation.bench, Table 4 --steps")
    if config.table and (config.weights or config.steps):
        raise ValueError("--table 3: takes its checkpoints from --runs and S as trained; leave out --weights and --steps")
    check_sampler(config.sampler, config.steps)
    for folder in config.predictions if config.save else ():
        if (Path(config.out) / file_name(Path(folder).resolve().name)).resolve() == Path(folder).resolve():
            raise ValueError(f"--out {config.out}: --save would replace the files of --predictions {folder}; choose another folder, or leave out --save")
    if config.hdrvdp2:
        quality(torch.zeros(3, 17, 17), torch.zeros(3, 17, 17), config.screen)      # its own checks of encoding, screen and peak


# --- scenes -----------------------------------------------------------------------------------------------------------

def open_scenes(config):
    """Opens the scenes to score, in order. Returns: list of Scene, all with different names.

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
    """Returns the sub-folders of root that are scenes, else root itself, and prints which ones are not. Raises: FileNotFoundError."""
    check_folder(root or "--root (missing)", "give a scene, or a folder of scenes")
    found, reasons = [], []
    for folder in [*sorted(p for p in Path(root).iterdir() if p.is_dir() and not p.name.startswith(".")), Path(root)]:
        try:
            if folder != Path(root) or not found:
                scene_files(folder)
                found.append(folder)
        except (ValueError, OSError) as error:
            reasons.append(in_words(error))
    if not found:
        raise FileNotFoundError(f"--root {root}: neither a scene nor a folder of scenes ({reasons[-1]}); name another folder")
    for reason in reasons if found != [Path(root)] else ():
        print(f"skipped: {reason}")
    return found


def printable(name):
    """Makes the name of a file printable in tables and figures: what is not UTF-8 becomes a question mark."""
    return name.encode(errors="replace").decode()


# --- methods ----------------------------------------------------------------------------------------------------------

def network_method(name, model, config, device, dtype, S=None):
    """Wraps a trained network as a Method. model: from load_weights, on the device. s1 gets the prior of the truth and always the whole image."""
    @torch.no_grad()
    def predict(scene, sample):
        how, (H, W) = model.prepare.overridden(**vars(config.alignment)), sample["ldr"].shape[-2:]
        prepared = prepare(sample["ldr"], sample["ev"], how, scene)
        ldr, ev = prepared.ldr[None].to(device), prepared.ev[None].to(device)
        tile = tile_for(config.tile, H, W)
        keep_memory_for(tile)
        with autocast(device, dtype):
            if model.variant != "s1":
                hdr_hat = reconstruct_in_tiles(model, ldr, ev, tile, S, config.sampler, torch.Generator().manual_seed(config.seed))
            elif "hdr" in sample:
                hdr = pad_to_multiple(sample["hdr"])[None].to(device)
                hdr_hat = model(network_input(pad_to_multiple(ldr), ev), hdr)[..., :H, :W]
            else:
                raise ValueError(f"{name}: these weights are of stage 1, whose prior comes from the truth, and {scene} has none; use stage 2's")
        if not torch.isfinite(hdr_hat).all():
            raise ValueError(f"{name} on {scene}: the result is not finite in {dtype}; try --precision float32")
        return with_merge(hdr_hat, ldr, ev, prepared.noise).cpu()
    return Method(name, predict, model, S)


def weights_methods(config, device, dtype):
    """Returns the Methods of --weights, one for each S of --steps. A file with a generic name (weights.pt) is named after its folder, too."""
    methods = []
    for path in map(Path, config.weights or (() if config.predictions else (SHIPPED,))):
        name = printable(f"{path.resolve().parent.name}_{path.stem}" if path.stem in ("weights", "best", "last") else path.stem)
        model = load_weights(path, device)
        for S in config.steps or (None,):
            check_steps(S, config.sampler, model, path)
            methods.append(network_method(f"{name}, S={S}" if S else name, model, config, device, dtype, S))
    return methods


def plain_method(name):
    """Wraps a result without any network as a Method. name: a key of PLAIN or MERGES."""
    @torch.no_grad()
    def predict(scene, sample):
        prepared = prepare(sample["ldr"], sample["ev"], MERGES.get(name, UNPREPARED), scene)
        return by_strips(lambda ldr: PLAIN.get(name, weighted_merge)(ldr, prepared.ev[None]), prepared.ldr[None], halo=0)
    return Method(name, predict)


def prediction_methods(config, scenes):
    """Returns the Methods of --predictions. Raises: ValueError where no scene has a truth to score them, or Table 3, against."""
    with_truth = [scene for scene in scenes if scene.truth]
    if (config.predictions or config.table) and scenes and not with_truth:
        raise ValueError(f"--data {config.data}: has no truth to score --predictions or --table 3 against; use kalantari, hu or synthetic")
    return [prediction_method(folder, with_truth) for folder in config.predictions]


def prediction_method(folder, scenes):
    """Wraps the .hdr files of another program as a Method. Raises: FileNotFoundError, ValueError for a scene with no file or with too many."""
    check_folder(folder, "give a folder with one .hdr file per scene")
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
    return Method(printable(Path(folder).resolve().name), predict, computed=False)


def table3_runs(config, device, dtype):
    """Finds the rows of Table 3 that have a checkpoint. Returns: list of Method, and the `runs` of report.table3.

    Raises: ValueError for a checkpoint that is not of its row's variant.
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
            raise ValueError(f"{path}: holds {saved['variant']}, not what {command} trains; move the run to its own folder in {config.runs}")
        model, training = load_weights(path, device), saved["training"]["training"]
        methods.append(network_method(row, model, config, device, dtype))
        runs[folder] = {"parameters": count_parameters(model), "trained on": training["data"], "seed": str(training["seed"]),
                        "command": training_command(saved)}
    return methods, runs


# --- scoring ----------------------------------------------------------------------------------------------------------

@torch.no_grad()
def time_diffusion(model, sample, S, seed, device, dtype):
    """Times what Table 4 times: the condition net and S DDIM steps, with the frames already on the device. Returns: seconds."""
    X = network_input(pad_to_multiple(sample["ldr"])[None], sample["ev"][None]).to(device)
    start = timer()                     # after the device has finished its earlier work
    with autocast(device, dtype):
        D = model.condition(X).float()
        model.sample(torch.randn(D.shape, generator=torch.Generator().manual_seed(seed)).to(D), D, S)
    return timer() - start


def file_name(text):
    """Turns a method's name into a part of a file name."""
    return re.sub(r"[^\w.-]+", "_", text)


def evaluate_scene(method, scene, sample, config, device, dtype, extremes):
    """Runs one method on one scene, scores it and writes its files. extremes: {(method, "worst" or "best"): rank so far}, updated here.

    Returns: {"scene", "method", the keys of METRICS, "seconds", "diffusion_seconds"}, without what was not measured.
    """
    start, out = time.perf_counter(), Path(config.out)
    hdr_hat, row = method.predict(scene.name, sample), {"scene": scene.name, "method": method.name}
    if method.computed:
        row["seconds"] = time.perf_counter() - start
    if method.S:
        row["diffusion_seconds"] = time_diffusion(method.model, sample, method.S, config.seed, device, dtype)
    if scene.truth:
        row.update(score(hdr_hat.to(device), sample["hdr"][None].to(device), config.screen if config.hdrvdp2 else None))
        for which, rank in (("worst", -row["psnr_mu"]), ("best", row["psnr_mu"])):
            if method.name not in (*PLAIN, *MERGES) and rank > extremes.get((method.name, which), -math.inf):
                extremes[method.name, which] = rank
                shown, columns = panels(sample["ldr"][None], sample["ev"][None], hdr_hat, sample["hdr"])
                save_panel(out / f"{file_name(method.name)}_{which}.png", shown, columns)
    if config.save or not scene.truth:
        folder = out / file_name(method.name)
        write_image(folder / f"{scene.name}.png", (T(hdr_hat[0]).permute(1, 2, 0) * 255).round().byte().contiguous().numpy(), PICTURE)
        write_image(folder / f"{scene.name}.hdr", hdr_hat[0].permute(1, 2, 0).contiguous().numpy(), PICTURE)
    return row


def evaluate(methods, scenes, config, device, dtype):
    """Runs all methods on all scenes; prints and saves scores as they come. Returns: list of evaluate_scene's rows.

    Raises: ValueError if two methods have the same name, or if a file that is not evaluate.py's would be replaced.
    """
    names, rows, extremes = [method.name for method in methods], [], {}
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--weights, --predictions: two are called {name!r}; rename one, because the tables tell them apart by name")
    out, kept = Path(config.out), [file_name(name) for name in names]
    check_writable(out)
    held = lock(out / RUN_LOCK)
    check_replaceable(out / "scores.csv", first="scene,method,psnr_mu,")
    check_replaceable(out / "scores.md", first="`python evaluate.py")
    check_replaceable(out / "figure1.png", *(out / f"{name}_{which}.png" for name in kept for which in ("worst", "best")))
    written = [scene.name for scene in scenes if config.save or not scene.truth]
    check_replaceable(*(out / name / f"{scene}.{kind}" for name in kept for scene in written for kind in ("png", "hdr")))
    bar = tqdm(total=len(methods) * len(scenes), unit="image", disable=None)
    for scene in scenes:
        sample = scene.load()
        for method in methods:
            if scene.truth or method.computed:
                if (config.steps or len(scenes) < 3) and scene is scenes[0] and method.model is not None:
                    method.predict(scene.name, sample)      # the first pass is slow; a median over many scenes hides that
                rows.append(evaluate_scene(method, scene, sample, config, device, dtype, extremes))
                said = " ".join(f"{title} {rows[-1][key]:{form}}" for key, (title, form) in METRICS.items() if key in rows[-1])
                tqdm.write(f"{scene.name:<16} {method.name:<{max(map(len, names))}} {said or 'no truth: pictures only'}")
                sys.stdout.flush()
            bar.update()
        save_csv(out / "scores.csv", rows, settings(config.screen))
    bar.close()
    held.release()
    without = sum(not scene.truth for scene in scenes)
    if without:
        print(f"{without} scenes have no truth: their results are in {config.out}, unscored")
    return rows
