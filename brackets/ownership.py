"""Decides which files in a folder may be replaced: only those that this project wrote there and nobody has changed since.

infer.py keeps a hidden folder beside its results. The record in it says which bracket each result was made from, and holds a digest of what was
written. A run claims names in the record before it starts work, so that another run at the same time takes other names. Results are drafted in
the hidden folder, and all results of a bracket are moved into place together. The pictures and tables of evaluation and training need no record,
because they can be recognised by their content.
"""

import atexit
import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
import unicodedata
from pathlib import Path

from filelock import FileLock, Timeout

from brackets.marks import PICTURE, TRUTH, mark_of
from common import reason_and_cure, write_atomically

HIDDEN = ".lfdiff"                      # folder, beside the results
RECORD, RECORD_LOCK = f"{HIDDEN}/results.json", f"{HIDDEN}/results.lock"
RUN_LOCK = ".run.lock"                  # in the folder of a training run or an evaluation
NO_LOCKS = {getattr(errno, name, None) for name in ("ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP")}      # from some network drives


def check_writable(out, flag="--out"):
    """Checks that the folder of the results can be written to, and makes it if it does not exist. flag: the option that names it. Raises: OSError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError("{} {}: cannot be written ({}); {}".format(flag, out, *reason_and_cure(error))) from None


def lock(path, patience=0.0):
    """Keeps out other processes that ask for the same lock. The lock ends with the process at the latest, however it ends. The same process may
    take it again.

    path: of the lock, an empty file; patience: seconds to wait for another process.
    Returns: the lock, held until release() is called or the last reference to it is gone.
    Raises: ValueError if another process holds it; OSError if it cannot be made.
    """
    held = FileLock(path, is_singleton=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=patience)
    except Timeout:
        raise ValueError(f"{path.parent}: another run is writing there; wait until it ends, or choose another --out") from None
    except NotImplementedError:         # from filelock: this file system has no locks
        pass
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise OSError(f"{path}: cannot be locked ({reason_and_cure(error)[0]}); move it away, or choose another --out") from None
    return held


# --- the record ---------------------------------------------------------------------------------------------------------

def folded(name):
    """Returns a file's name as case-insensitive systems see it."""
    return unicodedata.normalize("NFC", name).casefold()


def digest(path):
    """Returns a digest of a file's content; "" if there is no plain file. A link does not count as one."""
    if path.is_symlink() or not path.is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(source, photographs):
    """Returns the key that stands for a bracket in the record. It does not reveal the path, because folders of results are passed on.

    source: where the bracket is, text; photographs: paths. Different photographs in the same place are a different bracket.
    """
    parts = [os.fsencode(source), *(digest(path.resolve()).encode() for path in photographs)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def read_record(out):
    """Returns {folded name of a result: (key of its bracket, digest, name of the run that is about to write it)}, empty if there is no record.

    The digest is "" if nothing has been written yet. The run is "" once it has written.
    """
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8")) if (out / RECORD).is_file() else {}
        entries = {folded(name): tuple(entry) for name, entry in record.items() if isinstance(entry, list)}
    except (ValueError, AttributeError, RecursionError):                # not ours
        return {}
    return {name: entry for name, entry in entries.items() if len(entry) == 3 and all(isinstance(part, str) for part in entry)}


@contextlib.contextmanager
def open_record(out):
    """Opens the record as a dict to be changed while other processes wait. Changes are written at the end, even after an error."""
    held = lock(out / RECORD_LOCK, patience=60)
    try:
        before = read_record(out)
        record = dict(before)
        try:
            yield record
        finally:
            if record != before:
                write_atomically(out / RECORD, lambda file: file.write(json.dumps(record, indent=0).encode()))
    finally:
        held.release()


@functools.cache
def this_run(out):
    """Returns the name under which this process claims files in a folder. A lock of that name tells other processes that it is still running.

    out: absolute path, because the name is remembered for it. Drafts that killed runs have left there are removed after a day. Returns: text.
    """
    name = secrets.token_hex(8)
    held = lock(out / HIDDEN / name)
    for left in (out / HIDDEN).glob("*.draft"):
        with contextlib.suppress(OSError):          # another run has just removed it
            if time.time() - left.stat().st_mtime > 86400:
                shutil.rmtree(left)

    def end():
        held.release()
        with contextlib.suppress(OSError):
            (out / HIDDEN / name).unlink()
    atexit.register(end)
    return name


def is_at_work(out, run):
    """Whether another process is at work under this name."""
    if not (out / HIDDEN / run).is_file():
        return False
    try:
        lock(out / HIDDEN / run).release()
    except ValueError:
        return True
    return False


def claim(paths, key, record, run):
    """Claims the names of a bracket's results in the record, if each is free, or belongs to the bracket and its file is as it was written.

    run: from this_run, or "" if nothing will be written. Returns: whether they are claimed.
    """
    for path in paths:
        owner, content, by = record.get(folded(path.name), (key, "", ""))
        if by and (owner != key if by == run else is_at_work(path.parent, by)):
            return False
        if (path.exists() or path.is_symlink()) and (owner != key or not content or content != digest(path)):
            return False
    record.update((folded(path.name), (key, digest(path), run)) for path in paths)
    return True


def check_claims(paths, record):
    """Raises: ValueError if a file has changed since its name was claimed, so that it must not be replaced."""
    for path in paths:
        if path.is_symlink() or (path.exists() and (not path.is_file() or digest(path) != record.get(folded(path.name), ("", "", ""))[1])):
            raise ValueError(f"{path}: was changed during this run, and is kept; run it again for a result with another name")


@contextlib.contextmanager
def draft(paths, key):
    """Makes a folder in which to write the results of a bracket. At the end they are moved into place, and their claims end.

    paths: of the results, all in one folder, whose names are claimed; key: of the bracket. Yields: Path.
    Raises: ValueError if somebody has changed a file in the meantime; OSError if one cannot be moved into place.
    """
    out = paths[0].parent
    (out / HIDDEN).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out / HIDDEN, suffix=".draft") as folder:
        try:
            yield Path(folder)
        except OSError as error:                    # the user knows nothing about drafts
            raise type(error)(str(error).replace(folder, str(out))) if folder in str(error) else error from None
        with open_record(out) as record:
            contents = [digest(Path(folder) / path.name) for path in paths]
            check_claims(paths, record)
            for path, content in zip(paths, contents):
                try:
                    (Path(folder) / path.name).replace(path)
                except OSError as error:            # on Windows, a file that a viewer keeps open
                    raise OSError("{}: cannot be written ({}); {}".format(path, *reason_and_cure(error))) from None
                record[folded(path.name)] = key, content, ""


def disclaim(paths):
    """Ends the claims of a bracket that was given up: each name goes back to what it was before, and is free if there was no file."""
    with open_record(paths[0].parent) as record:
        for path in paths:
            owner, content, _ = record.pop(folded(path.name), ("", "", ""))
            if content:
                record[folded(path.name)] = owner, content, ""


def written_here(folder, names):
    """Finds which files in a folder are results, even if an editor has changed them since. Returns: set of names.

    Deleted results do not count: a bracket whose .hdr is gone has no results, and a photograph may have taken one of their names.
    """
    entries = read_record(folder)
    record = {name: entries[folded(name)] for name in names if entries.get(folded(name), ("", ""))[1]}
    whole = {key for name, (key, *_) in record.items() if name.lower().endswith(".hdr")}
    return {name for name, (key, *_) in record.items() if key in whole}


# --- files that can be recognised by their content ----------------------------------------------------------------------

def check_replaceable(*paths, first=""):
    """Raises: ValueError for a file that this project did not make, or that is a result of infer.py.

    paths: of images, or, if `first` is given, of text files whose first line must match this regular expression.
    """
    for path in (Path(path) for path in paths):
        if not path.is_file() or not path.stat().st_size:
            continue
        if not first:
            ours = mark_of(path) == PICTURE
        else:
            with open(path, encoding="utf-8-sig", errors="replace") as file:
                ours = re.match(first, file.readline(10_000))
        if not ours:
            raise ValueError(f"{path}: is not from an earlier run and would be replaced; move it away, or choose another --out")


def check_bracket_folder(folder):
    """Raises: ValueError for a folder that is not empty and holds no bracket of ours. folder: Path."""
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or mark_of(folder / "HDRImg.hdr") == TRUTH)):
        raise ValueError(f"{folder}: exists and holds no bracket that this command made; move it away, or name another folder")
