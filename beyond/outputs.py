"""Writes the files that infer.py makes from a scene.

    NAME.hdr            linear radiance in units of the shortest exposure, so in [0, 1], 8 bits per channel and an exponent (Radiance)
    NAME.jpg            the picture to look at, with a gain map for HDR screens (gainmap.py) and the EXIF of the reference (exif.py)
    NAME.png            T(H) of Eq. 6 in 8 bits, as the paper shows its results
    NAME_panel.png      the frames, a plain merge with its ghosts, our result by T and as in NAME.jpg, and truth and error if there is a truth
    NAME_spread.png     where several samples differ (--samples)
    NAME.exr            as NAME.hdr, in half floats (--exr)
    NAME_aligned_1.tif, _2, _3 and NAME_aligned_exposure.txt    the frames as the network sees them, 16 bits, gamma 2.2, and their EV (--save-aligned)

Colours keep the primaries of the photographs, which are sRGB's unless a colour profile says otherwise. NAME.jpg gets the profile of the
reference if it is Display P3 or Adobe RGB; the other files have none. Only write_results() writes, and endings() says beforehand what it
will write.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from beyond.exif import exif_for_result, profile_of
from beyond.gainmap import gain_map_jpeg
from beyond.pictures import panels, plain_results, save_panel, save_spread, spread_in_words
from beyond.tonemap import picture
from brackets.files import write_image
from brackets.marks import ALIGNED, RESULT
from brackets.prepare import Prepared
from common import write_atomically
from data import T, psnr


@dataclass
class OutputConfig:
    """The results."""
    out: str = "results"        # folder for the results
    exr: bool = False           # also write NAME.exr: the radiance in half floats; needs requirements-exr.txt
    save_aligned: bool = False  # also write the aligned frames as the network sees them: NAME_aligned_1.tif and so on, 16 bits, gamma 2.2


@dataclass
class Result:
    """What was made from a bracket."""
    hdr_hat: torch.Tensor           # (1, 3, H, W) linear radiance in [0, 1], units of the shortest exposure
    prepared: Prepared              # the aligned frames, their exposures, and what was found out about them
    registered: torch.Tensor        # (1, 3, 3, h, w) the frames before flow; smaller where a large bracket has no truth
    longer_by: float                # stops by which the shortest of the three frames is exposed longer than the shortest of the bracket
    reference: Path                 # the photograph whose moment the result shows
    how: str                        # time, device, number format
    spread: torch.Tensor | None     # (1, 1, H, W) over several samples; None for one sample
    hdr: torch.Tensor | None        # (3, H, W) the truth, if there is one


def endings(config, spread):
    """Lists what is appended to a scene's name to make the names of its files. config: OutputConfig; spread: whether there is one."""
    aligned = [*(f"_aligned_{i}.tif" for i in (1, 2, 3)), "_aligned_exposure.txt"]
    return [".hdr", ".jpg", ".png", "_panel.png"] + ["_spread.png"] * spread + [".exr"] * config.exr + aligned * config.save_aligned


def check_outputs(config):
    """Raises: ValueError if --exr needs a package that is not installed."""
    if config.exr and importlib.util.find_spec("OpenEXR") is None:
        raise ValueError("--exr: OpenEXR is not installed; run pip install -r requirements-exr.txt")


def write_exr(path, hdr):
    """Writes radiance (H, W, 3), float32, as an OpenEXR file of half floats, atomically."""
    import OpenEXR
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    half = OpenEXR.File(header, {"RGB": hdr.astype(np.float16)})

    def write(file):
        try:
            half.write(file.name)
        except RuntimeError as error:       # on a full disk: Failed to write pixel data to image file "NAME". No space left on device.
            raise OSError(str(error).split('"')[-1].strip(". ")) from None
    write_atomically(path, write)


def write_aligned(stem, prepared):
    """Writes the frames as the network sees them and their exposures. stem: path of the results without ending; prepared: Prepared."""
    for i, frame in enumerate(prepared.ldr, 1):
        write_image(stem.with_name(f"{stem.name}_aligned_{i}.tif"), (frame.permute(1, 2, 0) * 65535).round().numpy().astype(np.uint16), ALIGNED)
    text = "".join(f"{float(stops):.4g}\n" for stops in prepared.ev)
    write_atomically(stem.with_name(f"{stem.name}_aligned_exposure.txt"), lambda file: file.write(text.encode()))


def write_results(stem, result, config):
    """Writes all files of one scene. stem: path of the results without ending; result: Result; config: OutputConfig. Returns: the lines to print."""
    def path(ending):
        return stem.with_name(stem.name + ending)

    hdr_mu, ev, (H, W) = T(result.hdr_hat[0]), result.prepared.ev[None], result.hdr_hat.shape[-2:]
    radiance = result.hdr_hat[0].permute(1, 2, 0).contiguous().numpy()
    write_image(path(".hdr"), radiance, RESULT)
    for_the_eye, profile = picture(radiance), profile_of(result.reference)
    jpeg, _ = gain_map_jpeg(for_the_eye, radiance, exif_for_result(result.reference, W, H, profile), profile)
    write_atomically(path(".jpg"), lambda file: file.write(jpeg))
    write_image(path(".png"), (hdr_mu.permute(1, 2, 0) * 255).round().byte().numpy(), RESULT)
    save_panel(path("_panel.png"), *panels(result.registered, ev, result.hdr_hat, result.hdr, result.longer_by, for_the_eye), mark=RESULT)
    if result.spread is not None:
        save_spread(path("_spread.png"), hdr_mu, result.spread[0, 0])
    if config.exr:
        write_exr(path(".exr"), radiance)
    if config.save_aligned:
        write_aligned(stem, result.prepared)
    return in_words(stem.name, result)


def in_words(name, result):
    """Says in lines what was found and done, and the scores if there is a truth. name: of the scene; result: Result."""
    ldr, ev, (H, W) = result.prepared.ldr[None], result.prepared.ev[None], result.hdr_hat.shape[-2:]
    lines = [f"{name}: {W}x{H}, {result.prepared.in_words()}; {result.how}"]
    if result.hdr is not None:
        lines.append(f"{'':<16} {'PSNR-μ':>8} {'PSNR-L':>8}   (dB, against the ground truth)")
        plain = {title: image * 2.0 ** -result.longer_by for title, image in plain_results(result.registered, ev).items()}
        for title, image in {**plain, "LF-Diff": result.hdr_hat}.items():
            lines.append(f"{title:<16} {psnr(T(image), T(result.hdr[None])):>8.2f} {psnr(image, result.hdr[None]):>8.2f}")
    if result.spread is not None:
        lines.append(f"spread over the samples, mean standard deviation of T(H):\n{spread_in_words(result.spread, ldr, ev)}")
    return "\n".join(lines)
