"""Which files of a folder may be replaced: only what this project made there, and nobody has changed since.

A hidden file beside the results of infer.py, the record, says which bracket each of them was made from, and holds a digest of what was written.
A name is claimed in it before the work, so that another run that goes on at the same time takes another name. The pictures and tables of
evaluation and training need no record, for they can be told by what is in them.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import unicodedata

from filelock import FileLock, Timeout

from brackets.marks import RESULT, mark_of
from common import reason_and_cure, write_atomically

RECORD, RECORD_LOCK, RUN_LOCK = ".lfdiff.json", ".lfdiff.lock", ".run.lock"


def check_writable(out, flag="--out"):
    """Raises: OSError where no file can be made in the folder of the results, which is made where it does not exist. flag: by which it was named."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError("{} {}: cannot be written ({}); {}".format(flag, out, *reason_and_cure(error))) from None


def lock(path, patience=0.0):
    """Keeps other processes away, as far as they ask for the same lock. It ends with the process at the latest, however that ends. Within a
    process it may be taken again.

    path: of the lock, an empty file; patience: seconds to wait for another process.
    Returns: the lock, which its release() or the end of its last reference gives back.
    Raises: ValueError where another process keeps it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path, is_singleton=True)
    try:
        held.acquire(timeout=patience)
    except Timeout:
        raise ValueError(f"{path.parent}: another run writes there; wait for its end, or choose another --out") from None
    except (OSError, NotImplementedError):      # some network drives have no locks
        pass
    return held


# --- the record ---------------------------------------------------------------------------------------------------------

def folded(name):
    """A file's name as systems see it that do not tell upper from lower case."""
    return unicodedata.normalize("NFC", name).casefold()


def digest(path):
    """What tells the content of a file from any other; "" where there is no plain file. A link counts as none."""
    if path.is_symlink() or not path.is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(source, photographs):
    """What the record says of a bracket: not its path, for folders of results are passed on.

    source: where the bracket is, text; photographs: paths. Other photographs in the same place make another bracket.
    """
    parts = [os.fsencode(source), *(digest(path.resolve()).encode() for path in photographs)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def read_record(out):
    """{folded name of a result: (key of its bracket, digest, "" while it is not written yet)}, empty where there is no record."""
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8")) if (out / RECORD).is_file() else {}
        entries = {folded(name): tuple(entry) for name, entry in record.items() if isinstance(entry, list)}
    except (OSError, ValueError, AttributeError, RecursionError):       # none, or not ours
        return {}
    return {name: entry for name, entry in entries.items() if len(entry) == 2 and all(isinstance(part, str) for part in entry)}


@contextlib.contextmanager
def open_record(out):
    """The record as a dict, to be changed while other processes wait; what was changed is written at the end."""
    held = lock(out / RECORD_LOCK, patience=60)
    try:
        before = read_record(out)
        record = dict(before)
        yield record
        if record != before:
            write_atomically(out / RECORD, lambda file: file.write(json.dumps(record, indent=0).encode()))
    finally:
        held.release()


def claim(paths, key, record):
    """Claims the names of a bracket's results in the record, if each is free, or is the bracket's own and as it was written.

    Returns: whether they are claimed.
    """
    for path in paths:
        owner, content = record.get(folded(path.name), (key, ""))
        if path.exists() or path.is_symlink():
            if owner != key or not content or content != digest(path):
                return False
        elif owner != key and not content:      # another run is about to write it; one with a digest was deleted
            return False
    record.update((folded(path.name), (key, digest(path))) for path in paths)
    return True


def settle(paths, key):
    """Notes what has been written under names that were claimed; those that were not written are free again."""
    with open_record(paths[0].parent) as record:
        for path in paths:
            if content := digest(path):
                record[folded(path.name)] = key, content
            elif record.get(folded(path.name), ("", ""))[0] == key:
                del record[folded(path.name)]


# --- files that can be told by what is in them --------------------------------------------------------------------------

def check_replaceable(*paths, begins=""):
    """Raises: ValueError for a file that this project did not make. paths: of pictures, .hdr files with their pictures, or texts that start as `begins`."""
    for path in (path for path in paths if path.is_file()):
        if path.suffix in (".png", ".hdr"):
            ours = mark_of(path.with_suffix(".png")) == RESULT
        else:
            with open(path, "rb") as file:
                ours = file.read(len(begins)) == begins.encode()
        if not ours:
            raise ValueError(f"{path}: would be replaced, but no earlier run made it; choose another --out, or move it away")
