"""Plans what infer.py will do: which brackets there are, which frames of each are used, and where the results go.

All of this is settled before the work begins. A file is replaced only by a new result of the same bracket (ownership.py). If a name is taken,
the parent folder's name is put in front.
"""

import contextlib
import itertools
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from beyond.outputs import OutputConfig, endings
from brackets.choose import Choice, by_name, choose, in_words, pick_reference
from brackets.grouping import find_places
from brackets.ownership import check_writable, claim, disclaim, draft, key_of, open_record, read_record, this_run
from brackets.scenes import Bracket, find_bracket
from common import in_words as words_for


ALL = endings(OutputConfig(exr=True, save_aligned=True), True)      # of every file that a result may have


@dataclass
class InputConfig:
    """The photographs."""
    scene: str = ""             # folder of a bracket, of photographs that make several brackets, or of such folders
    reference: str = ""         # the frame whose moment the result shows: its name, or its number, 1 for the shortest; by default the one that shows most
    dry_run: bool = False       # only print what would be done


@dataclass
class Job:
    """One bracket, and where its results go."""
    bracket: Bracket
    choice: Choice
    source: str                 # where it is: its folder, and its name if the folder holds other brackets, too
    key: str                    # ownership.key_of it
    stem: Path | None = None    # path of the results without their endings


# --- names of the results -----------------------------------------------------------------------------------------------

def identity(path):
    """Returns what identifies a file, whatever links lead to it, or None if there is no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def files_of(job, ends):
    """Lists the files of a job's results. ends: from outputs.endings."""
    return [job.stem.with_name(job.stem.name + end) for end in ends]


def name_results(job, out, ends, record, inputs, run):
    """Gives a job its stem, and claims the names of its files in the record.

    out: folder; ends: from outputs.endings; record: from ownership.open_record; inputs: {identity: path} of all photographs and truths; run: from this_run.
    Raises: ValueError if a result with the bracket's own name would replace one of the inputs.
    """
    names = [job.bracket.name]
    for parent in (job.bracket.folder if job.bracket.part else job.bracket.folder.parent).parts[:0:-1]:      # from the nearest up; the root has no name
        names.append(f"{parent}_{names[-1]}")
    for name in itertools.chain(names, (f"{job.bracket.name}_{k}" for k in itertools.count(2))):
        job.stem = out / name
        lost = next((path for path in files_of(job, ends) if identity(path) in inputs), None)
        if lost and name == job.bracket.name:
            raise ValueError(f"--out {out}: {lost.name} would replace {inputs[identity(lost)]}; choose another folder")
        if not lost and claim(files_of(job, ends), job.key, record, run):
            return


# --- the plan -----------------------------------------------------------------------------------------------------------

def make_plan(config, out, ends, known):
    """Finds the brackets and settles what is done with each.

    config: InputConfig; out: folder of the results; ends: from outputs.endings; known: range of the steps that the weights know, stops, or None.
    Returns: list of Job; {name: what is wrong} of brackets that cannot be used.
    Raises: FileNotFoundError, ValueError, OSError if nothing can be done at all; with a single bracket, whatever is wrong with it.
    """
    root, out, jobs, failed = Path(config.scene), Path(out), [], {}
    if not config.dry_run:
        check_writable(out)
    places, singles = find_places(root)
    sources = {}                                # a link may lead to a bracket that is found anyway
    for place in places:
        sources.setdefault(str(place.folder.resolve() / (place.name if place.paths else "")), place)

    def attempt(source, step, *arguments):
        try:
            step(*arguments)
        except (ValueError, OSError, MemoryError) as error:
            if len(sources) == 1:
                raise
            failed[source] = words_for(error)

    def find(place, source):
        bracket = find_bracket(place.folder, only=place.paths, name=place.name)
        reference = by_name(bracket, config.reference) if config.reference else pick_reference(bracket, known)
        jobs.append(Job(bracket, choose(bracket.ev, reference, known), source, key_of(source, bracket.paths)))

    for source, place in sources.items():
        attempt(source, find, place, source)
    inputs = {identity(path): path for job in jobs for path in (*job.bracket.paths, job.bracket.truth) if path}
    with contextlib.nullcontext(read_record(out)) if config.dry_run else open_record(out) as record:
        run = "" if config.dry_run else this_run(out.resolve())
        for job in jobs:
            attempt(job.source, name_results, job, out, ends, record, inputs, run)
    jobs = [job for job in jobs if job.source not in failed]
    if len(sources) > 1 or config.dry_run or len(jobs[0].bracket.paths) != 3:
        print(plan_in_words(root, jobs, failed, singles))
    return jobs, failed


def plan_in_words(root, jobs, failed, singles):
    """Describes the plan in lines. singles: photographs that belong to no bracket."""
    lines = [f"{root}: {len(jobs) + len(failed)} brackets"] if len(jobs) + len(failed) > 1 else []
    for job in jobs:
        lines += [f"{job.bracket.name} -> {job.stem}", in_words(job.bracket, job.choice)]
    lines += [f"{name}: cannot be used: {reason}" for name, reason in failed.items()]
    if singles:
        lines.append(f"left out, because they belong to no bracket: {', '.join(path.name for path in singles)}")
    return "\n".join(lines)


def finish(job, ends, work, write):
    """Makes the results of a job and writes them; its claims end, whatever happens. Arguments: as in work_off. Returns: the lines to print."""
    files = files_of(job, ends)
    try:
        result = work(job)
        with draft(files, job.key) as folder:
            said = write(folder / job.stem.name, result)
    except BaseException:
        with contextlib.suppress(OSError, ValueError):      # the earlier error is the one to report
            disclaim(files)
        raise
    said += f"\nwrote {', '.join([str(files[0]), *(path.name for path in files[1:])])}"
    others = [path.name for path in files_of(job, ALL) if path not in files and path.is_file()]
    return said + (f"\nnot made again, and kept: {', '.join(others)}" if others else "")


def work_off(jobs, failed, ends, work, write):
    """Does all jobs. A job that fails does not stop the others, unless it is the only one.

    failed: from make_plan; ends: from outputs.endings; work: function (job) that makes a result; write: function (stem, result) that writes its files
    and returns the lines to print. Raises: ValueError at the end if some failed.
    """
    failed, waiting, total = dict(failed), list(jobs), len(jobs) + len(failed)
    try:
        for job in tqdm(jobs, unit="bracket", disable=True if total == 1 else None):
            waiting.pop(0)
            try:
                tqdm.write(finish(job, ends, work, write))
            except Exception as error:
                if total == 1 or not (words := words_for(error)):
                    raise
                failed[job.source] = words
                tqdm.write(f"error: {words if isinstance(error, (ValueError, OSError)) else f'{job.bracket.name}: {words}'}", file=sys.stderr)
    finally:
        with contextlib.suppress(OSError, ValueError):
            for job in waiting:
                disclaim(files_of(job, ends))
    if total > 1:
        print(f"{total - len(failed)} of {total} brackets done")
    if failed:
        raise ValueError(f"{len(failed)} bracket{'s' * (len(failed) > 1)} failed: " + "; ".join(f"{name} ({reason})" for name, reason in failed.items()))
