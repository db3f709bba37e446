"""The log of a training run: a CSV file, a line on the terminal, and a plot."""

import csv
import io
import math
import sys
import time

import torch
import torch.distributed as dist
from tqdm import tqdm

from brackets.files import save_figure
from brackets.ownership import check_replaceable
from common import reason_and_cure, write_atomically


class Log:
    """A CSV file, and its plot beside it. A resumed run continues after the row of its first step.

    Rows hold means over the steps since the previous row. Only a writing log (rank 0) touches the disk.
    Raises: ValueError if a file that is not from a run has the name of the log or of a picture.
    """

    def __init__(self, path, columns, first_step=0, write=True):
        self.path, self.columns, self.write = path, ["step", *columns], write
        if write:
            check_replaceable(path, first="step,.*patches_per_s")
            check_replaceable(path.with_suffix(".png"), *path.parent.glob("step_" + 6 * "[0-9]" + ".png"))
            rows, text = [row for row in self.rows() if int(row["step"]) <= first_step] if first_step else [], io.StringIO()
            writer = csv.DictWriter(text, self.columns)
            writer.writeheader()
            writer.writerows(rows)
            write_atomically(path, lambda file: file.write(text.getvalue().encode()))
        self.restart_clock()

    def rows(self):
        """Reads all rows so far, as dicts of strings; a value that was not measured at that step is empty.

        Rows are appended, so a kill or a full disk may cut the last one off. A row without its line end does not count, and neither does one
        that somebody has made unreadable.
        """
        if not self.path.is_file():
            return []
        lines = self.path.read_bytes().decode("utf-8-sig", errors="replace").splitlines(keepends=True)
        rows = csv.DictReader(line for line in lines if line.endswith("\n"))
        return [{name: row.get(name) or "" for name in self.columns} for row in rows if self.is_whole(row)]

    def is_whole(self, row):
        """Whether a row has a step, and its other columns of this log hold a number or nothing."""
        try:
            int(row["step"]), *(float(row.get(name) or 0) for name in self.columns)
        except (KeyError, TypeError, ValueError):
            return False
        return True

    def collect(self, terms):
        """Keeps the detached scalars of one step for the next row."""
        self.terms.append(terms)

    def row(self, step, batch):
        """Computes the means of what was collected, over all processes, and patches per second. All processes call it. Returns: dict.

        Raises: ValueError if a loss is not finite: the run must stop before it overwrites a good checkpoint.
        """
        row = {"step": step}
        for name in self.terms[-1]:
            mean = torch.stack([terms[name].float() for terms in self.terms if name in terms]).mean()
            if dist.is_initialized():
                dist.all_reduce(mean)
                mean = mean / dist.get_world_size()
            row[name] = mean.item()
        row["patches_per_s"] = len(self.terms) * batch / (time.perf_counter() - self.clock)
        self.check_finite(row)
        return row

    def check_finite(self, row):
        """Raises: ValueError if a loss or a score is nan, or a loss infinite (a PSNR may be, and so may float16's first gradients)."""
        for name, value in row.items():
            if (math.isnan(value) and name != "grad_norm") or (math.isinf(value) and name.startswith("L")):
                last = self.path.with_name("last.pt")
                advice = f"resume the last good checkpoint, {last}," if last.is_file() else "start again"
                raise ValueError(f"step {row['step']}: {name} is {value}; {advice} with a lower --lr, or with --precision float32")

    def restart_clock(self):
        """Starts a new window, so that a validation does not count as training time."""
        self.terms, self.clock = [], time.perf_counter()

    def add(self, row, bar):
        """Appends a row to the file and the terminal, and shows its losses on the progress bar."""
        self.check_finite(row)
        if not self.write:
            return
        try:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow({name: f"{value:.6g}" if name != "step" else value for name, value in row.items()})
        except OSError as error:                    # on a full disk, the error names no file
            raise type(error)("{}: cannot be written ({}); {}".format(self.path, *reason_and_cure(error))) from error
        tqdm.write("  ".join(f"{name} {value:.4g}" if name != "step" else f"step {value}" for name, value in row.items()))
        sys.stdout.flush()      # a log file shows the line now, not with the next 8 kB
        bar.set_postfix({name: f"{value:.4f}" for name, value in row.items() if name.startswith("L")}, refresh=False)
        if any(name.startswith("val_") for name in row):
            plot_log(self.path.with_suffix(".png"), self.columns, self.rows())


def plot_log(path, columns, rows):
    """Draws a training log: losses over the steps on a logarithmic axis, and validations in dB.

    columns: names, of which those that begin with L or val_ are drawn; rows: dicts of strings, "" where nothing was measured.
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, decibels = figure.subplots(1, 2)
    for name in (name for name in columns if name.startswith(("L", "val_"))):
        points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        if any(value > 0 for _, value in points):
            (losses if name.startswith("L") else decibels).plot(*zip(*points), label=name, marker="" if name.startswith("L") else ".")
    losses.set(yscale="log", xlabel="step", title="training losses")
    decibels.set(xlabel="step", title="validation PSNR, dB")
    for axis in (losses, decibels):
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    save_figure(path, figure, dpi=100)
