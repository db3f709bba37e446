"""What infer.py is going to do: which brackets there are, which frames of each are used, and where the results go.

All of it is settled before the work begins. No file is replaced but by a new result of the same bracket: a hidden file beside the results
says which bracket each of them was made from. A name that is taken gets the parent folder's name in front.
"""

import hashlib
import itertools
import json
import os
import sys
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from brackets.choose import Choice, by_name, choose, in_words, pick_reference
from brackets.grouping import find_places
from brackets.scenes import Bracket, find_bracket
from common import in_words as words_for
from common import reason_and_cure, write_atomically

RECORD = ".lfdiff.json"     # {name of a result: key_of the bracket that it was made from}


@dataclass
class InputConfig:
    """The photographs."""
    scene: str = ""             # folder of a bracket, of photographs that make several brackets, or of such folders
    reference: str = ""         # the frame whose moment the result shows: its name, or its number from the shortest, 1, on; else the one that shows most
    dry_run: bool = False       # only print what would be done


@dataclass
class Job:
    """One bracket, and where its results go."""
    bracket: Bracket
    choice: Choice
    source: str                 # where it is: its folder, and its name if the folder holds others, too
    stem: Path | None = None    # path of the results without their endings


# --- names of the results -----------------------------------------------------------------------------------------------

def check_writable(out, flag="--out"):
    """Raises: OSError where no file can be made in the folder of the results, which is made where it does not exist. flag: by which it was named."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError("{} {}: cannot be written ({}); {}".format(flag, out, *reason_and_cure(error))) from None


def folded(name):
    """A file's name as systems see it that do not tell upper from lower case."""
    return unicodedata.normalize("NFC", name).casefold()


def key_of(source):
    """What the record says of a bracket: not its path, for folders of results are passed on."""
    return hashlib.sha256(source.encode(errors="surrogateescape")).hexdigest()[:20]


def read_record(out):
    """{folded name of a result: key of its bracket}, empty where there is no record."""
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        return {folded(name): key for name, key in record.items()} if isinstance(record, dict) else {}
    except (OSError, ValueError):
        return {}


def remember(stem, source, ends):
    """Notes in the record that a bracket's results are its own."""
    record = {**read_record(stem.parent), **{folded(stem.name + end): key_of(source) for end in ends}}
    write_atomically(stem.parent / RECORD, lambda file: file.write(json.dumps(record, indent=0).encode()))


def identity(path):
    """What tells a file from all others, whatever links lead to it, or None where there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def name_results(job, out, ends, record, taken, inputs):
    """Gives a job its stem.

    out: folder; ends: of outputs.endings; record: of read_record; taken: {folded name: key} of the jobs before, to which this one is added;
    inputs: {identity: path} of all photographs and truths.
    Raises: ValueError where a result of the bracket's own name would replace one of those.
    """
    key, names = key_of(job.source), [job.bracket.name]
    for parent in (job.bracket.folder if job.bracket.part else job.bracket.folder.parent).parts[:0:-1]:      # from the nearest up; the root has no name
        names.append(f"{parent}_{names[-1]}")
    for name in itertools.chain(names, (f"{job.bracket.name}_{k}" for k in itertools.count(2))):
        files = [out / (name + end) for end in ends]
        owners = [taken.get(folded(path.name), record.get(folded(path.name)) if path.exists() or path.is_symlink() else key) for path in files]
        lost = next((path for path in files if identity(path) in inputs), None)
        if lost and name == job.bracket.name:
            raise ValueError(f"--out {out}: {lost.name} would replace {inputs[identity(lost)]}; choose another folder")
        if not lost and all(owner == key for owner in owners):
            job.stem = out / name
            taken.update((folded(path.name), key) for path in files)
            return


# --- the plan -----------------------------------------------------------------------------------------------------------

def make_plan(config, out, ends, known):
    """Finds the brackets and settles what is done with each.

    config: InputConfig; out: folder of the results; ends: of outputs.endings; known: exposure steps that the weights know, or None.
    Returns: list of Job; {name: what is wrong} of brackets that cannot be used.
    Raises: FileNotFoundError, ValueError, OSError where nothing can be done at all; with a single bracket, whatever is wrong with it.
    """
    root, out, jobs, failed = Path(config.scene), Path(out), [], {}
    if not config.dry_run:
        check_writable(out)
    places, singles = find_places(root)

    def attempt(source, step):
        try:
            step()
        except (ValueError, OSError) as error:
            if len(places) == 1:
                raise
            failed[source] = words_for(error)

    def find(place, source):
        bracket = find_bracket(place.folder, only=place.paths, name=place.name)
        reference = by_name(bracket, config.reference) if config.reference else pick_reference(bracket, known)
        jobs.append(Job(bracket, choose(bracket.ev, reference, known), source))

    for place in places:
        source = str(place.folder.resolve() / (place.name if place.paths else ""))
        attempt(source, lambda place=place, source=source: find(place, source))
    record, taken = read_record(out), {}
    inputs = {identity(path): path for job in jobs for path in (*job.bracket.paths, job.bracket.truth) if path}
    for job in jobs:
        attempt(job.source, lambda job=job: name_results(job, out, ends, record, taken, inputs))
    jobs = [job for job in jobs if job.stem]
    if len(places) > 1 or config.dry_run or len(jobs[0].bracket.paths) != 3:
        print(plan_in_words(root, jobs, failed, singles))
    return jobs, failed


def plan_in_words(root, jobs, failed, singles):
    """The plan as lines. singles: photographs that belong to no bracket."""
    lines = [f"{root}: {len(jobs) + len(failed)} brackets"] if len(jobs) + len(failed) > 1 else []
    for job in jobs:
        lines += [f"{job.bracket.name} -> {job.stem}", in_words(job.bracket, job.choice)]
    lines += [f"{name}: cannot be used: {reason}" for name, reason in failed.items()]
    if singles:
        lines.append(f"left out, for they belong to no bracket: {', '.join(path.name for path in singles)}")
    return "\n".join(lines)


def work_off(jobs, failed, ends, work):
    """Does all jobs. One that fails does not stop the others, unless it is the only one.

    failed: of make_plan; ends: of outputs.endings; work: function (job) that does one and returns what there is to say.
    Raises: ValueError at the end where some failed.
    """
    failed, alone = dict(failed), len(jobs) + len(failed) == 1
    for job in tqdm(jobs, unit="bracket", disable=True if alone else None):
        try:
            remember(job.stem, job.source, ends)
            tqdm.write(work(job))
        except Exception as error:
            if alone or not (words := words_for(error)):
                raise
            failed[job.source] = words
            tqdm.write(f"error: {words}", file=sys.stderr)
    total = len(jobs) + len([name for name in failed if name not in {job.source for job in jobs}])
    if total > 1:
        print(f"{total - len(failed)} of {total} brackets done")
    if failed:
        raise ValueError(f"{len(failed)} bracket{'s' * (len(failed) > 1)} failed: " + "; ".join(f"{name} ({reason})" for name, reason in failed.items()))
