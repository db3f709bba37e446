"""plan.py: none of the user's files is replaced, no scene's results replace another's, and a bracket that fails does not stop the others."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import infer
from brackets.ownership import HIDDEN, RECORD, check_writable, claim, draft, key_of, open_record, read_record, this_run
from beyond.plan import files_of, make_plan, work_off
from beyond.plan import finish as finish_job
from brackets.files import write_image
from scripts import ROOT, make_scene, one_line, run_script

ENDS = [".hdr", ".png", "_panel.png"]


def scene(folder, levels=(40, 90, 180), names="123"):
    """Makes a bracket of plain frames, which is enough for a plan. levels: coded values of the frames."""
    for level, name in zip(levels, names):
        write_image(folder / f"{name}.png", np.full((8, 8, 3), level, np.uint8))
    (folder / "exposure.txt").write_text(" ".join(str(2 * i) for i in range(len(levels))), encoding="utf-8")
    return folder


def plan(folder, out, **settings):
    return make_plan(infer.InputConfig(str(folder), **settings), str(out), ENDS, (2, 3))


def stems(jobs):
    return [job.stem.name for job in jobs]


def finish(jobs):
    """Writes what infer.py leaves behind."""
    for job in jobs:
        with draft(files_of(job, ENDS), job.key) as folder:
            keep(folder / job.stem.name, job.source)


def keep(stem, result):
    """Writes files that hold a text, and returns it."""
    for end in ENDS:
        stem.with_name(stem.name + end).write_bytes(result.encode())
    return result


def test_scenes_of_one_name_get_their_parents_name_in_one_run_and_in_several(tmp_path):
    out = tmp_path / "out"
    for folder in ("x/001", "y/001", "z/x/001", "z/x/Panel"):
        scene(tmp_path / "in" / folder)
    for _ in range(2):                                              # the second time, each finds its own results again
        first, second = plan(tmp_path / "in" / "x" / "001", out)[0], plan(tmp_path / "in" / "x" / "001", out)[0]
        assert stems(first) == stems(second) == ["001"]
        finish(first)
        jobs, _ = plan(tmp_path / "in" / "y", out)
        assert stems(jobs) == ["y_001"]
        finish(jobs)
        jobs, _ = plan(tmp_path / "in" / "z", out)
        assert stems(jobs) == ["x_001", "Panel"]
        finish(jobs)
    assert {path.read_text() for path in out.glob("*001.hdr")} == {str((tmp_path / "in" / name).resolve()) for name in ("x/001", "y/001", "z/x/001")}
    assert stems(plan(tmp_path / "in", tmp_path / "other")[0]) == ["001", "y_001"]


def test_names_differ_though_case_is_ignored_and_one_scene_s_panel_is_not_another_s_result(tmp_path):
    for name in ("a/cafe", "b/CAFE", "c/cafe_panel"):
        scene(tmp_path / "in" / name)
    assert stems(plan(tmp_path / "in", tmp_path / "out")[0]) == ["cafe", "b_CAFE", "c_cafe_panel"]


def test_a_file_that_is_not_a_result_of_the_scene_is_never_replaced(tmp_path):
    folder, out = scene(tmp_path / "pool"), tmp_path / "out"
    out.mkdir()
    (out / "pool_panel.png").write_bytes(b"somebody's")
    (out / f"{tmp_path.name}_pool.hdr").symlink_to(tmp_path / "nowhere")          # a broken link also belongs to somebody
    jobs, _ = plan(folder, out)
    assert stems(jobs) == [f"{tmp_path.parent.name}_{tmp_path.name}_pool"]


@pytest.mark.parametrize("way", ["itself", "a link to the folder", "a hard link"])
def test_a_photograph_or_a_truth_in_the_place_of_a_result_is_refused_before_the_work(tmp_path, way):
    for name, lost in (("1", "1.png"), ("HDRImg", "HDRImg.hdr")):
        folder = scene(tmp_path / way / name)
        write_image(folder / "HDRImg.hdr", np.full((8, 8, 3), 0.5, np.float32))
        out = folder
        if way == "a link to the folder":
            out = tmp_path / way / f"link to {name}"
            out.symlink_to(folder, target_is_directory=True)
        elif way == "a hard link":
            out = tmp_path / way / f"out {name}"
            out.mkdir()
            os.link(folder / lost, out / lost)
        before = (folder / lost).read_bytes()
        with pytest.raises(ValueError, match=f"{lost} would replace"):
            plan(folder, out)
        assert (folder / lost).read_bytes() == before


def test_among_several_brackets_only_the_one_that_would_lose_a_photograph_fails(tmp_path):
    for name in ("1", "pool"):
        scene(tmp_path / "in" / name)
    jobs, failed = plan(tmp_path / "in", tmp_path / "in" / "1")
    assert stems(jobs) == ["pool"] and ["1.png would replace" in words for words in failed.values()] == [True]


def test_a_damaged_record_counts_as_none(tmp_path):
    folder, out = scene(tmp_path / "pool"), tmp_path / "out"
    jobs, _ = plan(folder, out)
    finish(jobs)
    for text in ("{", "[1]", '{"pool.hdr": 3}', '{"pool.hdr": [3, 4]}', "[" * 100_000):
        (out / RECORD).write_text(text, encoding="utf-8")
        assert stems(plan(folder, out)[0]) != ["pool"]


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(OSError, match="cannot be written .a file is where a folder should be.; name another file or folder$"):
            check_writable(out)
    assert "cannot be written" in one_line("infer.py", "--scene", scene(tmp_path / "pool"), "--out", tmp_path / "file")
    plan(tmp_path / "pool", tmp_path / "new", dry_run=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(sys.platform == "win32" or getattr(os, "geteuid", lambda: 0)() == 0, reason="this user may write everywhere")
def test_a_folder_without_permission_is_said_before_the_work(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OSError, match="cannot be written"):
        check_writable(tmp_path / "locked")


def test_the_plan_tells_what_each_frame_is_for_and_says_nothing_about_a_plain_bracket(tmp_path, capsys):
    plan(scene(tmp_path / "three"), tmp_path / "out")
    assert capsys.readouterr().out == ""
    plan(scene(tmp_path / "five", (20, 40, 80, 150, 250), "abcde"), tmp_path / "out", reference="d")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("five -> ") and [line.split("EV  ")[1] for line in said[1:6]] == [
        "for highlights that the others clip", "for highlights that the others clip", "short frame", "reference", "long frame"]
    plan(scene(tmp_path / "two", (40, 90)), tmp_path / "out")
    assert "the reference stands in for it at 2 EV" in capsys.readouterr().out


def test_one_bracket_that_fails_does_not_stop_the_others(tmp_path, capsys):
    for name in ("a", "b", "c", "d"):
        scene(tmp_path / "in" / name)
    (tmp_path / "in" / "b" / "exposure.txt").write_text("0 2", encoding="utf-8")
    jobs, failed = plan(tmp_path / "in", tmp_path / "out")
    assert stems(jobs) == ["a", "c", "d"] and list(failed) == [str(Path(tmp_path / "in" / "b"))]
    done = []

    def work(job):
        if job.stem.name == "c":
            raise ValueError("c: is broken\nat length")
        done.append(job.stem.name)
        return f"did {job.stem.name}"

    with pytest.raises(ValueError, match="^2 brackets failed: .*b .*c: is broken"):
        work_off(jobs, failed, ENDS, work, keep)
    said = capsys.readouterr()
    assert done == ["a", "d"] and "did a\n" in said.out and said.out.endswith("2 of 4 brackets done\n") and "error: c: is broken\n" in said.err
    with pytest.raises(ValueError, match="^c: is broken\nat length$"):         # a single bracket reports only what is wrong with it
        work_off(jobs[1:2], {}, ENDS, work, keep)


def test_a_bracket_that_is_too_large_for_the_memory_is_named(tmp_path, capsys):
    for name in ("a", "b"):
        scene(tmp_path / "in" / name)

    def work(job):
        if job.stem.name == "a":
            raise MemoryError
        return "did b"

    with pytest.raises(ValueError, match="^1 bracket failed: .*a .out of memory"):
        work_off(*plan(tmp_path / "in", tmp_path / "out"), ENDS, work, keep)
    assert "error: a: out of memory" in capsys.readouterr().err


def test_infer_works_through_a_folder_of_folders_and_ends_with_2_where_one_failed(trained, tmp_path, capsys):
    for name in ("a", "b"):
        make_scene(tmp_path / "in" / name, hdr=False)
    words = ["--scene", tmp_path / "in", "--weights", trained[1] / "weights.pt", "--device", "cpu", "--out", tmp_path / "out"]
    run_script(infer, *words, "--dry-run")
    assert "a -> " in capsys.readouterr().out and not (tmp_path / "out").exists()
    run_script(infer, *words)
    assert "2 of 2 brackets done" in capsys.readouterr().out and (tmp_path / "out" / "b.hdr").is_file()
    first = (tmp_path / "out" / "a.hdr").read_bytes()
    (tmp_path / "in" / "b" / "2.png").write_bytes(b"broken")
    (tmp_path / "out" / "a.hdr").unlink()
    (tmp_path / "in" / "c").mkdir()
    write_image(tmp_path / "in" / "c" / "1.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="^1 bracket failed: .*c .*found 1 photograph;"):
        run_script(infer, *words, "--dry-run")
    with pytest.raises(ValueError, match="^2 brackets failed"):
        run_script(infer, *words)
    assert (tmp_path / "out" / "a.hdr").read_bytes() == first


def test_the_record_does_not_tell_where_the_photographs_are(tmp_path):
    jobs, _ = plan(scene(tmp_path / "private" / "pool"), tmp_path / "out")
    finish(jobs)
    record = (tmp_path / "out" / RECORD).read_text(encoding="utf-8")
    assert "pool.hdr" in record and "private" not in record


def test_brackets_of_one_folder_get_the_folder_s_name_where_theirs_is_taken(tmp_path):
    for folder in ("a", "b"):
        for i, level in enumerate((40, 90, 180, 40, 90, 180)):
            exif = Image.Exif()
            exif.get_ifd(0x8769).update({0x829A: 0.01 * 4.0 ** (i % 3), 0x9003: f"2026:06:01 12:00:{i:02d}"})
            (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(tmp_path / "in" / folder / f"{i}.jpg", exif=exif)
    jobs, _ = plan(tmp_path / "in", tmp_path / "out")
    assert stems(jobs) == ["0-2", "3-5", "b_0-2", "b_3-5"]


def test_a_name_that_is_no_text_is_remembered(tmp_path):
    path = tmp_path / "caf\udce9.hdr"                      # é in Latin-1, as Python names such a file on Linux
    key = key_of("here \udce9", [])
    with open_record(tmp_path) as record:
        assert claim([path], key, record, "run")
    assert read_record(tmp_path) == {path.name: (key, "", "run")}


def test_a_result_that_somebody_has_changed_is_kept(tmp_path):
    folder, out = scene(tmp_path / "pool"), tmp_path / "out"
    finish(plan(folder, out)[0])
    (out / "pool.png").write_bytes(b"retouched")
    jobs, _ = plan(folder, out)
    assert stems(jobs) == [f"{tmp_path.name}_pool"] and (out / "pool.png").read_bytes() == b"retouched"
    (out / "pool.png").unlink()                             # it was deleted: the name is free again
    assert stems(plan(folder, out)[0]) == ["pool"]


def test_other_photographs_in_the_same_folder_do_not_replace_the_results_of_those_before(tmp_path):
    folder, out = scene(tmp_path / "pool"), tmp_path / "out"
    finish(plan(folder, out)[0])
    scene(folder, (50, 90, 180))
    assert stems(plan(folder, out)[0]) == [f"{tmp_path.name}_pool"]
    scene(folder)
    assert stems(plan(folder, out)[0]) == ["pool"]


def test_two_runs_at_once_do_not_take_the_same_name_even_for_the_same_bracket(tmp_path):
    a, b, out = scene(tmp_path / "a" / "pool"), scene(tmp_path / "b" / "pool"), tmp_path / "out"
    code = f"import sys; sys.path.insert(0, 'tests/beyond'); from test_plan import *; plan({str(a)!r}, {str(out)!r}); print('planned', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": "tests"}, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "planned\n"             # and has not written anything
    assert stems(plan(a, out, dry_run=True)[0]) == ["a_pool"] and stems(plan(b, out)[0]) == ["b_pool"]
    other.kill()                                            # its claims remain, but no process holds them
    other.communicate()
    assert stems(plan(a, out, dry_run=True)[0]) == stems(plan(b, out, dry_run=True)[0]) == ["pool"]


def test_a_run_that_was_stopped_while_it_wrote_leaves_nothing(tmp_path):
    a, b, out = scene(tmp_path / "a" / "pool"), scene(tmp_path / "b" / "pool"), tmp_path / "out"

    def stops_half_way(stem, result):
        stem.with_name("pool.hdr").write_bytes(b"half of the results")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_off(*plan(a, out), ENDS, lambda job: "", stops_half_way)
    assert read_record(out) == {} and [path.name for path in out.rglob("*pool*")] == []
    assert stems(plan(b, out)[0]) == ["pool"]


@pytest.mark.parametrize("when", ["at work", "writing"])
@pytest.mark.parametrize("kind", ["an earlier result", "a new file", "a link", "a folder"])
def test_what_somebody_does_to_a_result_while_the_run_goes_on_is_kept(kind, when, tmp_path):
    folder, out = scene(tmp_path / "pool"), tmp_path / "out"
    if kind == "an earlier result":
        finish(plan(folder, out)[0])
    (tmp_path / "theirs").write_bytes(b"retouched")

    def meanwhile(job):
        if kind == "a link":
            (out / "pool.png").symlink_to(tmp_path / "theirs")
        elif kind == "a folder":
            (out / "pool.png" / "album").mkdir(parents=True)
        else:
            (out / "pool.png").write_bytes(b"retouched")
        return "made"

    def while_it_writes(stem, result):
        keep(stem, result)
        meanwhile(None)

    work, write = (meanwhile, keep) if when == "at work" else (lambda job: "made", while_it_writes)
    with pytest.raises(ValueError, match="pool.png: was changed during this run, and is kept; run it again for a result with another name$"):
        work_off(*plan(folder, out), ENDS, work, write)
    assert stems(plan(folder, out)[0]) == [f"{tmp_path.name}_pool"]
    assert (out / "pool.png" / "album").is_dir() if kind == "a folder" else (out / "pool.png").read_bytes() == b"retouched"
    assert (out / "pool.hdr").exists() == (kind == "an earlier result")


def test_a_run_that_is_stopped_claims_nothing_that_it_has_not_written(tmp_path):
    for name in ("a", "b"):
        scene(tmp_path / "in" / name)
    out = tmp_path / "out"
    finish(plan(tmp_path / "in", out)[0])

    def stopped(job):
        (out / "b.png").write_bytes(b"retouched")
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        work_off(*plan(tmp_path / "in", out), ENDS, stopped, keep)
    assert stems(plan(tmp_path / "in", out)[0]) == ["a", "in_b"]


def test_files_of_an_earlier_result_that_are_not_made_again_are_named(tmp_path):
    folder, out = scene(tmp_path / "pool"), tmp_path / "out"
    out.mkdir()
    (out / "pool_spread.png").write_bytes(b"of --samples")
    (out / "pool_notes.png").write_bytes(b"somebody's")
    [job], _ = plan(folder, out)
    said = finish_job(job, ENDS, lambda job: "found much", keep)
    assert said == f"found much\nwrote {out / 'pool.hdr'}, pool.png, pool_panel.png\nnot made again, and kept: pool_spread.png"


def test_drafts_that_a_killed_run_left_are_cleared_away_after_a_day(tmp_path):
    folder, out = scene(tmp_path / "pool"), tmp_path / "out"
    code = (f"import sys; sys.path.insert(0, 'tests/beyond'); from test_plan import *; [job], _ = plan({str(folder)!r}, {str(out)!r})\n"
            "with draft(files_of(job, ENDS), job.key) as folder: keep(folder / 'pool', 'half'); print('drafted', flush=True); input()")
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": "tests"}, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "drafted\n"
    other.kill()
    other.communicate()
    for days, left in ((0, 1), (2, 0)):
        for path in (out / HIDDEN).glob("*.draft"):
            os.utime(path, (time.time() - days * 86400,) * 2)
        this_run.cache_clear()
        this_run(out.resolve())
        assert len(list(out.rglob("pool.hdr"))) == left


def test_a_relative_folder_of_results_is_another_one_after_a_change_of_place(tmp_path, monkeypatch):
    for place in ("a", "b"):
        monkeypatch.chdir(scene(tmp_path / place / "pool").parent)
        work_off(*plan("pool", "out"), ENDS, lambda job: "made", keep)
        assert (tmp_path / place / "out" / "pool.hdr").is_file()


def test_a_link_to_a_bracket_beside_it_is_the_same_bracket(tmp_path):
    scene(tmp_path / "in" / "a")
    scene(tmp_path / "in" / "c")
    (tmp_path / "in" / "b").symlink_to("a", target_is_directory=True)
    jobs, failed = plan(tmp_path / "in", tmp_path / "out")
    assert stems(jobs) == ["a", "c"] and not failed
    work_off(jobs, failed, ENDS, lambda job: "done", keep)
