"""Finds which files in a folder are photographs of its scene, and which are left out: results of this project, and photographs stored twice."""

import functools
import os
import re

from brackets.kinds import PHOTOGRAPHS, SUFFIXES, kind_of
from brackets.marks import ALIGNED, PICTURE, RESULT, mark_of
from brackets.ownership import written_here

FRAMES = tuple(suffix for kind in PHOTOGRAPHS for suffix in SUFFIXES[kind])
PICTURES = ("GIF", "Photoshop", "JPEG XL", "JPEG 2000", "AVIF", "HEIC")   # may be photographs, but are not read


@functools.cache
def say(line):
    """Prints a line once per process, because scenes are looked at several times."""
    print(line)


def natural(path):
    """Returns a sort key that puts 2 before 10 and ignores case."""
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(re.split(r"(\d+)", path.name))]


def named(folder, name):
    """Returns the file of that name, ignoring case, or None."""
    return next((p for p in sorted(folder.iterdir()) if name and p.name.lower() == name.lower()), None)


def is_pseudo(folder):
    """Whether a folder is, like /proc, a view of the system and not a place for files: a file system of its own, with no space. Windows has no such folders."""
    try:
        return folder.stat().st_dev != folder.parent.stat().st_dev and os.statvfs(folder).f_blocks == 0
    except (AttributeError, OSError):
        return False


def _kind(path):
    """kind_of, but "" for a file that cannot be opened; read_image says why, if the file is needed."""
    try:
        return kind_of(path)
    except OSError:
        return ""


def _why_left_out(path, kinds, marks):
    """Says why a file is not a photograph of the scene, or "". kinds: {path: kind} of all files in the folder; marks: {path: mark} of the candidates."""
    beside_results = RESULT in marks.values() and not named(path.parent, "exposure.txt")       # --save-aligned put it here
    if marks[path] in (RESULT, PICTURE) or (marks[path] == ALIGNED and ("" in marks.values() or beside_results)):
        return "made by this project"
    if kinds[path] == "Radiance":
        return "linear light, not a photograph"
    if kinds[path] in PICTURES:
        return f"{kinds[path]} files are not read"
    developed = [p for p in marks if p.stem == path.stem and kinds[p] in PHOTOGRAPHS and kinds[p] != "RAW"]
    if developed and (kinds[path] == "RAW" or path.suffix.lower() in SUFFIXES["RAW"]):
        return "another file holds the same photograph"
    return ""


def photographs(folder):
    """Finds the photographs in a folder: files that hold one, whatever their names, and files that are named like one, whatever they hold.

    folder: Path. Hidden files (._x.jpg) are skipped.
    Returns: list of paths, in natural order; {reason: [paths that are left out]}.
    """
    files = sorted((p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")), key=natural)
    kinds = {p: _kind(p) for p in files}
    written = written_here(folder, [p.name for p in files])            # an editor may have removed the mark from a result
    marks = {p: mark_of(p) or (RESULT if p.name in written else "") for p in files
             if kinds[p] in PHOTOGRAPHS + PICTURES or p.suffix.lower() in FRAMES}
    kept, left_out = [], {}
    for path in marks:
        why = _why_left_out(path, kinds, marks)
        (left_out.setdefault(why, []) if why else kept).append(path)
    return kept, left_out


def other_than_named(paths):
    """Returns {kind: [files whose names say another kind]}. paths: photographs that are read."""
    found = {}
    for path in paths:
        kind = _kind(path)
        if kind and path.suffix.lower() not in SUFFIXES[kind]:
            found.setdefault(kind, []).append(path)
    return found


def names(paths):
    """Joins the names of files, for a message."""
    return ", ".join(path.name for path in paths)
