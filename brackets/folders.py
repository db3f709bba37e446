"""Which files of a folder are photographs of its scene, and which are left out: results of this project, and photographs that stand there twice."""

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
    """Prints a line, once in the life of a process: scenes are looked at several times."""
    print(line)


def natural(path):
    """A sort key that puts 2 before 10, in upper or lower case."""
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(re.split(r"(\d+)", path.name))]


def named(folder, name):
    """The file of that name in upper or lower case, or None."""
    return next((p for p in sorted(folder.iterdir()) if name and p.name.lower() == name.lower()), None)


def is_pseudo(folder):
    """Whether a folder is no place for files but a view of the system, such as /proc: a file system of its own that has no room. Windows has none."""
    try:
        return folder.stat().st_dev != folder.parent.stat().st_dev and os.statvfs(folder).f_blocks == 0
    except (AttributeError, OSError):
        return False


def _kind(path):
    """kind_of, but "" for what cannot be opened: read_image says why, where the file turns out to be needed."""
    try:
        return kind_of(path)
    except OSError:
        return ""


def _why_left_out(path, kinds, marks):
    """Why a file is no photograph of the scene, or "". kinds: {path: kind} of all files of the folder; marks: {path: mark} of those that may be."""
    beside_results = RESULT in marks.values() and not named(path.parent, "exposure.txt")       # where --save-aligned put it
    if marks[path] in (RESULT, PICTURE) or (marks[path] == ALIGNED and ("" in marks.values() or beside_results)):
        return "made by this project"
    if kinds[path] == "Radiance":
        return "linear light, and no photograph"
    if kinds[path] in PICTURES:
        return f"{kinds[path]} files are not read"
    developed = [p for p in marks if p.stem == path.stem and kinds[p] in PHOTOGRAPHS and kinds[p] != "RAW"]
    if developed and (kinds[path] == "RAW" or path.suffix.lower() in SUFFIXES["RAW"]):
        return "the photograph is there in another file, too"
    return ""


def photographs(folder):
    """The photographs in a folder: by content whatever their names, and files that are named like photographs whatever they hold.

    folder: Path. Hidden files (._x.jpg) are passed over.
    Returns: list of paths, in natural order; {reason: [paths that are left out]}.
    """
    files = sorted((p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")), key=natural)
    kinds = {p: _kind(p) for p in files}
    written = written_here(folder, [p.name for p in files])            # an editor may have taken the mark off a result
    marks = {p: mark_of(p) or (RESULT if p.name in written else "") for p in files
             if kinds[p] in PHOTOGRAPHS + PICTURES or p.suffix.lower() in FRAMES}
    kept, left_out = [], {}
    for path in marks:
        why = _why_left_out(path, kinds, marks)
        (left_out.setdefault(why, []) if why else kept).append(path)
    return kept, left_out


def other_than_named(paths):
    """{kind: [files whose names say something else]}. paths: photographs that are read."""
    found = {}
    for path in paths:
        kind = _kind(path)
        if kind and path.suffix.lower() not in SUFFIXES[kind]:
            found.setdefault(kind, []).append(path)
    return found


def names(paths):
    """The names of files, for a message."""
    return ", ".join(path.name for path in paths)
