"""The paper's numbers beside ours: averages, the tables of evaluate.py (1, 3, 4) as text and CSV, and the plot of Figure 1.

Paper: Tables 1, 3, 4, Fig. 1. Two numbers of it are odd: only S = 5 of Table 4 has a PSNR-μ below its PSNR-L, and the text credits joint training
with 1.51 dB where Table 3 shows 2.83.

A row is a dict: "scene", "method", the keys of METRICS (metrics.py), "seconds", "diffusion_seconds". What was not measured is left out.
Tables are Markdown with aligned columns, so that they read well in files and in terminals.
"""

import csv
import io
import math
import re
import shlex
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

from beyond.checkpoints import flags_of
from brackets.files import save_figure
from common import write_atomically
from evaluation.hdrvdp2 import settings
from evaluation.metrics import METRICS
from lfdiff import PAPER_PARAMETERS
from train_stage1 import Stage1Config
from train_stage2 import Stage2Config

PAPER_TABLE1 = {"kalantari": (44.76, 42.59, 0.9919, 0.9906, 66.54), "hu": (48.74, 52.10, 0.9968, 0.9993, 77.35)}    # in METRICS' order
PAPER_TABLE3 = {    # folder of the run: row, variant, PSNR-mu, PSNR-L, command that trains it
    "baseline": ("Baseline", "baseline", 44.23, 42.19, "train_stage1.py --baseline"),
    "stage1": ("LF-Diff_s1 (sees the truth)", "s1", 50.42, 50.89, "train_stage1.py"),
    "stage2_split": ("Split training", "s2", 41.93, 39.30, "train_stage2.py --split"),
    "stage2_without_dm": ("LF-Diff_s2 w/o DM", "s2_without_dm", 44.45, 42.35, "train_stage2.py --without-dm"),
    "stage2": ("LF-Diff_s2 w/ DM", "s2", 44.76, 42.59, "train_stage2.py")}
PAPER_TABLE4 = {    # S: PSNR-mu, PSNR-L, seconds of the diffusion on an A100
    5: (39.76, 41.33, 0.049), 10: (44.76, 42.59, 0.106), 20: (44.73, 42.54, 0.208), 50: (44.66, 42.45, 0.479), 100: (44.65, 42.44, 0.971)}

HARM = 0.5      # decibels of PSNR-mu


def averages(rows):
    """Computes the means of the metrics and the medians of the seconds over the scenes. Returns: {method: {key: number}}."""
    found = {}
    for row in rows:
        columns = found.setdefault(row["method"], {})
        for key in row.keys() - {"scene", "method"}:
            columns.setdefault(key, []).append(row[key])
    return {method: {key: statistics.median(values) if key.endswith("seconds") else sum(values) / len(values) for key, values in columns.items()}
            for method, columns in found.items()}


# --- text -------------------------------------------------------------------------------------------------------------

def cell(value, form):
    """Formats a number, or a dash where there is none."""
    return "–" if value is None else format(value, form)


def pair(psnr_mu, psnr_l):
    """Formats PSNR-mu / PSNR-L."""
    return f"{cell(psnr_mu, '.2f')} / {cell(psnr_l, '.2f')}"


def table(header, lines):
    """Makes a Markdown table with aligned columns. header: list of texts; lines: list of such lists. Returns: text."""
    widths = [max(map(len, column)) for column in zip(header, *lines)]
    written = ["| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |" for line in [header, *lines]]
    return "\n".join([written[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *written[1:]])


def score_cells(row):
    """Returns the cells of a row of scores: METRICS, then seconds."""
    return [cell(row.get(key), form) for key, (_, form) in METRICS.items()] + [cell(row.get("seconds"), ".3g")]


def table1(means, data):
    """Makes Table 1: the averages of each method, below the paper's for this data set. means: from `averages`. Returns: text."""
    lines = [["LF-Diff, paper", *score_cells(dict(zip(METRICS, PAPER_TABLE1[data])))]] if data in PAPER_TABLE1 else []
    lines += [[name, *score_cells(row)] for name, row in means.items()]
    return table(["method", *(title for title, _ in METRICS.values()), "seconds"], lines)


def every_image(rows):
    """Makes the table of each image's scores. Returns: text."""
    return table(["scene", "method", *(title for title, _ in METRICS.values()), "seconds"],
                 [[row["scene"], row["method"], *score_cells(row)] for row in rows])


def table3(runs, means, data):
    """Makes Table 3 with our numbers beside the paper's.

    runs: {folder of PAPER_TABLE3: {"parameters", "trained on", "seed", "command"}, only the command where there is no checkpoint};
    means: from `averages`; data: what was scored. Returns: text.
    """
    lines = []
    for folder, (row, variant, psnr_mu, psnr_l, _) in PAPER_TABLE3.items():
        found, ours = runs[folder], means.get(row)
        millions = found["parameters"] / 1e6 if "parameters" in found else None
        lines.append([row, f"{PAPER_PARAMETERS[variant] / 1e6:.2f}", cell(millions, ".2f"), pair(psnr_mu, psnr_l),
                      pair(ours["psnr_mu"], ours["psnr_l"]) if ours else "not run", found.get("trained on", "–"), data if ours else "–",
                      found.get("seed", "–"), f"`{found['command']}`"])
    return table(["Table 3", "M parameters, paper", "ours", "PSNR-μ / -L, paper (Kalantari)", "ours", "trained on", "scored on", "seed", "trained by"], lines)


def table4(steps, means, data, seed):
    """Makes Table 4 with our numbers beside the paper's. steps: {method: S}; means: from `averages`; seed: of z_T. Returns: text."""
    lines = []
    for name, S in steps.items():
        ours, (psnr_mu, psnr_l, seconds) = means[name], PAPER_TABLE4.get(S, (None, None, None))
        lines.append([name, pair(psnr_mu, psnr_l), pair(ours.get("psnr_mu"), ours.get("psnr_l")), cell(seconds, ".3f"),
                      f"{ours['diffusion_seconds']:.3g}", data, str(seed)])
    return table(["Table 4", "PSNR-μ / -L, paper (Kalantari)", "ours", "s of the diffusion, paper (A100)", "ours", "data", "seed of z_T"], lines)


def by_kind(rows, networks):
    """Averages the ruler's scenes (synthetic/ruler.py) by kind and by exposure step, and lists where a network harms. Returns: text; "" for other scenes.

    rows: from scoring.evaluate, with scores; networks: names of the methods that are networks. A network harms a scene if its PSNR-mu is more than
    HARM below that of the reference alone or of the merge of the aligned frames.
    """
    found = [(re.match(r"([a-z]+)_(\d)ev_", row["scene"]), row) for row in rows]
    if not all(match for match, _ in found):
        return ""
    groups = {}
    for match, row in found:
        for group in (match[1], f"{match[2]} EV"):
            groups.setdefault(group, []).append(row)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = []
    for group, members in sorted(groups.items(), key=lambda item: (item[0][0].isdigit(), item[0])):
        means = averages(members)
        lines.append([group, str(len(members) // len(methods)), *(pair(means[name].get("psnr_mu"), means[name].get("psnr_l")) for name in methods)])
    scores = {(row["scene"], row["method"]): row["psnr_mu"] for row in rows}
    parts = [table(["PSNR-μ / PSNR-L", "scenes", *methods], lines)]
    for name in networks if {"reference alone", "merge, aligned"} <= set(methods) else ():
        plain = lambda scene: max(scores[scene, other] for other in ("reference alone", "merge, aligned"))
        harmed = [f"{scene} ({plain(scene) - value:.1f} dB)" for (scene, method), value in scores.items() if method == name and value < plain(scene) - HARM]
        parts.append(f"{name}, scenes more than {HARM} dB in PSNR-μ below the better of reference alone and merge, aligned: {', '.join(harmed) or 'none'}")
    return "\n\n".join(parts)


# --- commands ---------------------------------------------------------------------------------------------------------

def changed_flags(values, defaults):
    """Yields the flags by which `values` differs from `defaults`, less --resume and those that `defaults` does not have. Both come from asdict(config)."""
    defaults = flags_of(defaults)
    for name, value in flags_of(values).items():
        flag = "--" + name.replace("_", "-")
        if name not in defaults or name == "resume" or (tuple(value) if isinstance(value, list) else value) == defaults[name]:
            continue
        if isinstance(value, bool):
            yield flag if value else flag.replace("--", "--no-", 1)
        else:
            yield " ".join([flag, *(shlex.quote(str(part)) for part in (value if isinstance(value, (list, tuple)) else [value]))])


def training_command(saved):
    """Returns the command that trained a checkpoint, with every flag whose value is not the default. saved: the checkpoint."""
    script, default = ("train_stage1.py", Stage1Config()) if saved["variant"] in ("baseline", "s1") else ("train_stage2.py", Stage2Config())
    return " ".join(["python", script, *changed_flags(saved["training"], asdict(default))])


# --- files ------------------------------------------------------------------------------------------------------------

def save_csv(path, rows, hdrvdp2_settings):
    """Writes a row for each image and method, then the averages. Every row with an HDR-VDP-2 score also holds its settings."""
    means = [{"scene": "average", "method": method, **columns} for method, columns in averages(rows).items()]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["scene", "method", *METRICS, "hdrvdp2_settings", "seconds", "diffusion_seconds"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "hdrvdp2_settings": hdrvdp2_settings if "hdrvdp2" in row else ""} for row in rows + means)
    write_atomically(path, lambda file: file.write(text.getvalue().encode(errors="replace")))


def plot_figure1(path, means):
    """Plots PSNR-mu against seconds per image, on Figure 1's axes, with a point for each method that has both. Returns: whether there was one."""
    from matplotlib.figure import Figure    # 0.3 s to import: only when a plot is drawn
    points = [(name, row["seconds"], row["psnr_mu"]) for name, row in means.items()
              if "seconds" in row and math.isfinite(row.get("psnr_mu", math.inf))]
    if not points:
        return False
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for name, seconds, psnr_mu in points:
        axis.plot(seconds, psnr_mu, "o", label=name)
    axis.set(xscale="log", xlabel="seconds per image", ylabel="PSNR-μ, dB")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save_figure(path, figure, 150)
    return True


def write_report(rows, methods, runs, config, machine):
    """Prints the tables, and writes scores.md and figure1.png.

    rows, methods: as in scoring.evaluate; runs: from scoring.table3_runs, or None; config: EvaluateConfig; machine: precision, device and seed
    as text.
    """
    out, means = Path(config.out), averages(row for row in rows if "psnr_mu" in row)
    steps, parts = {method.name: method.S for method in methods if method.S and method.name in means}, []
    drawn = plot_figure1(out / "figure1.png", means)
    if means:
        count = len({row["scene"] for row in rows if "psnr_mu" in row})
        parts += [table1(means, config.data), f"{count} scene{'s' * (count > 1)} of {config.data}, {machine}"]
        parts += [settings(config.screen)] if config.hdrvdp2 else []
        grouped = by_kind([row for row in rows if "psnr_mu" in row], [method.name for method in methods if method.model])
        parts += [grouped] if grouped else []
    if runs is not None:
        parts.append(table3(runs, means, config.data))
    if steps:
        parts.append(table4(steps, means, config.data, config.seed))
    print("\n" + "\n\n".join(parts) if parts else "no scene was scored")
    parts = [f"`python evaluate.py {shlex.join(sys.argv[1:])}`", *parts, *([every_image(rows)] if rows else [])]
    write_atomically(out / "scores.md", lambda file: file.write(("\n\n".join(parts) + "\n").encode(errors="replace")))
    print(f"\nwrote {out / 'scores.md'}" + (", scores.csv" if rows else "") + (", figure1.png" if drawn else ""))
