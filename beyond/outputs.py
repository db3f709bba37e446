"""The files that infer.py writes of a scene: NAME.hdr, NAME.png, NAME_panel.png and NAME_spread.png.

write_results() is the one place that writes, and endings() says beforehand what it will write.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from beyond.pictures import panels, plain_results, save_panel, save_spread, spread_in_words
from brackets.files import write_image
from brackets.marks import RESULT
from brackets.prepare import Prepared
from data import T, psnr


@dataclass
class OutputConfig:
    """output"""
    out: str = "results"        # folder for the results


@dataclass
class Result:
    """What became of a bracket."""
    hdr_hat: torch.Tensor           # (1, 3, H, W) linear radiance in [0, 1], units of the shortest exposure
    prepared: Prepared              # the aligned frames, their exposures, and what was found out about them
    registered: torch.Tensor        # (1, 3, 3, h, w) the frames before flow; smaller where a large bracket has no truth
    reference: Path                 # the photograph whose moment the result shows
    how: str                        # time, device, number format
    spread: torch.Tensor | None     # (1, 1, H, W) over several samples; None of one sample
    hdr: torch.Tensor | None        # (3, H, W) the truth, if there is one


def endings(config, spread):
    """What is put behind a scene's name to make the names of its files. config: OutputConfig; spread: whether there is one."""
    return [".hdr", ".png", "_panel.png"] + ["_spread.png"] * spread


def write_results(stem, result, config):
    """Writes all files of one scene. stem: path of the results without ending; result: Result; config: OutputConfig. Returns: what there is to say."""
    def path(ending):
        return stem.with_name(stem.name + ending)

    hdr_mu, ev = T(result.hdr_hat[0]), result.prepared.ev[None]
    write_image(path(".hdr"), result.hdr_hat[0].permute(1, 2, 0).contiguous().numpy())
    write_image(path(".png"), (hdr_mu.permute(1, 2, 0) * 255).round().byte().numpy(), RESULT)
    save_panel(path("_panel.png"), *panels(result.registered, ev, result.hdr_hat, result.hdr))
    if result.spread is not None:
        save_spread(path("_spread.png"), hdr_mu, result.spread[0, 0])
    return in_words(stem, result, config)


def in_words(stem, result, config):
    """What was found and done, the scores where there is a truth, and which files were written, in lines. Arguments as of write_results."""
    ldr, ev, (H, W) = result.prepared.ldr[None], result.prepared.ev[None], result.hdr_hat.shape[-2:]
    lines = [f"{stem.name}: {W}x{H}, {result.prepared.in_words()}; {result.how}"]
    if result.hdr is not None:
        lines.append(f"{'':<16} {'PSNR-μ':>8} {'PSNR-L':>8}   (dB, against the ground truth)")
        for title, image in {**plain_results(result.registered, ev), "LF-Diff": result.hdr_hat}.items():
            lines.append(f"{title:<16} {psnr(T(image), T(result.hdr[None])):>8.2f} {psnr(image, result.hdr[None]):>8.2f}")
    if result.spread is not None:
        lines.append(f"spread over the samples, mean standard deviation of T(H):\n{spread_in_words(result.spread, ldr, ev)}")
    first, *others = endings(config, result.spread is not None)
    return "\n".join([*lines, f"wrote {stem}{first}" + "".join(f", {stem.name}{ending}" for ending in others)])
