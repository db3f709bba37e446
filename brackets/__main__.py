"""Prints what was found in a scene's folder: files, exposures, camera motion, light, moving objects.

    python -m brackets DIR

For a folder with several brackets, it lists them. Which frames are used depends on the weights; this command assumes the shipped ones.
"""

from dataclasses import dataclass
from pathlib import Path

from common import in_words as words_for, parse, run
import numpy as np
from tyro.conf import Positional

from beyond.checkpoints import load_checkpoint
from beyond.weights import SHIPPED
from brackets import light
from brackets.choose import choose, in_words, load_three, missing_in_words, pick_reference, use_of
from brackets.curve import phi
from brackets.files import read_image, read_stored
from brackets.flow import SMALLEST, find_flow
from brackets.grouping import Place, find_places
from brackets.kinds import kind_of
from brackets.prepare import PrepareConfig, prepare
from brackets.register import in_words as motion_in_words
from brackets.scenes import find_bracket, read_frames


@dataclass
class Config:
    """Which scene to look at."""
    folder: Positional[str]     # folder with two or more photographs and their exposures
    layout: str = "auto"        # auto, kalantari, hu, sen, tursun or photos: see brackets/scenes.py


def print_files(bracket, choice, sample):
    """Prints a line for each frame and for the truth. bracket, choice, sample: see brackets/choose.py."""
    height, width = sample["ldr"].shape[-2:]
    print(f"{bracket.name}: {width}x{height}")
    for i, (path, stops) in enumerate(zip(bracket.paths, bracket.ev)):
        frame = sample["ldr"][choice.three.index(i)] if i in choice.three else read_frames(bracket.folder, [path], among=bracket.paths)[0][0]
        saturated, unseen = (100 * where.float().mean() for where in (frame.amax(dim=0) >= 1, frame[0].isnan()))
        print(f"  {path.name:24s} {kind_of(path):5s} {read_stored(path).pixels.dtype!s:8s} +{stops:.2f} EV  mean {frame.nanmean():.3f}, "
              f"{saturated:.1f} % saturated" + (f", {unseen:.1f} % transparent" if unseen else "")
              + (f"; {use_of(choice, i)}" if len(bracket.paths) != 3 else ""))
    if bracket.truth:
        print(f"  {bracket.truth.name:24s} {kind_of(bracket.truth)} float32  truth      mean {sample['hdr'].mean():.4f}, "
              f"largest {read_image(bracket.truth).max():.4f} before clipping at 1")
    if None in choice.three:
        print(missing_in_words(choice))


def print_motion(prepared, three):
    """Prints how the camera moved, what was found out about the light, and how far objects moved.

    prepared: Prepared, without flow; three: as in Choice.
    """
    ldr, ev, outer = prepared.ldr, prepared.ev, [(i, name) for i, name in ((0, "short"), (2, "long")) if three[i] is not None]
    height, width = ldr.shape[-2:]
    print("camera")
    for i, name in outer:
        print(f"  {name:<6} {motion_in_words(prepared.homographies[i], height, width)}")
    print(f"light\n  {light.in_words(prepared.light, prepared.stated)}")
    if prepared.light is not None and prepared.light.curve.any():
        for v in np.linspace(0.1, 1, 10):
            print(f"  {v:.1f} shows what gamma 2.2 would code as {phi(v[None], prepared.light.curve)[0]:.3f}")
    print("moving objects")
    for i, name in outer:
        if min(height, width) < SMALLEST:
            print(f"  {name:<6} not searched for in frames smaller than {SMALLEST} pixels a side")
            continue
        length = find_flow(ldr[1], ldr[i], float(ev[1] - ev[i])).norm(dim=0).flatten().sort().values
        half, most, nearly_all = (length[int(share * (len(length) - 1))] for share in (0.5, 0.9, 0.99))
        print(f"  {name:<6} 50 % of the pixels moved by at most {half:.1f} pixels, 90 % by {most:.1f}, 99 % by {nearly_all:.1f}")


def find(place, layout, known):
    """Finds the bracket at a place, and chooses the frames. place: from find_places; known: steps of the weights. Returns: Bracket, Choice.

    Raises: as find_bracket and choose.
    """
    bracket = find_bracket(place.folder, layout, place.paths, place.name)
    return bracket, choose(bracket.ev, pick_reference(bracket, known), known)


def print_list(places, singles, known):
    """Prints the brackets of a folder, and why some cannot be used. Arguments: as in find. Returns: how many can be used."""
    usable = 0
    for place in places:
        try:
            bracket, choice = find(place, "auto", known)
        except (ValueError, OSError, MemoryError) as error:
            print(f"{place.folder}: cannot be used: {words_for(error)}")
        else:
            print(f"{bracket.name}\n{in_words(bracket, choice)}")
            usable += 1
    for path in singles:
        print(f"{path.name}: left out, it belongs to no bracket")
    return usable


def main():
    """Reads the command line and the scene, and prints what was found."""
    config = parse(Config, description=__doc__)
    if not config.folder:
        raise ValueError("FOLDER: missing; give the folder of a bracket, such as examples/cafe")
    known, folder = load_checkpoint(SHIPPED).get("steps"), Path(config.folder)
    places, singles = find_places(folder) if config.layout == "auto" else ([Place(folder, "", None)], [])
    if len(places) > 1:
        if not print_list(places, singles, known):
            raise ValueError(f"{folder}: holds no bracket that can be used")
        return
    bracket, choice = find(places[0], config.layout, known)
    sample = load_three(bracket, choice)
    print_files(bracket, choice, sample)
    print_motion(prepare(sample["ldr"], sample["ev"], PrepareConfig(flow=False), bracket.folder), choice.three)


if __name__ == "__main__":
    run(main)
