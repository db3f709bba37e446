"""evaluation/report.py: means, commands and Figure 1."""

import math
from dataclasses import asdict

from evaluation import report
from train_stage1 import Stage1Config


def test_flags_that_changed_are_written_as_the_command_line_takes_them():
    defaults = {"a_b": True, "c": False, "d": (1, 2), "e": {"f": 0.1, "g": ""}}
    assert list(report.changed_flags({"a_b": False, "c": True, "d": [3, 4], "e": {"f": 0.2, "g": "my dir"}}, defaults)) == [
        "--no-a-b", "--c", "--d 3 4", "--f 0.2", "--g 'my dir'"]
    assert list(report.changed_flags({"a_b": True, "c": False, "d": [1, 2], "e": {"f": 0.1, "g": ""}}, defaults)) == []
    earlier = {"model": {"e": {"f": 0.2}, "gone": 3}, "c": False}               # of a version that grouped its flags in another way
    assert list(report.changed_flags(earlier, defaults)) == ["--f 0.2"]


def test_averages_are_means_of_scores_and_medians_of_seconds():
    rows = [{"scene": str(i), "method": "m", "psnr_mu": value, "seconds": value} for i, value in enumerate((1.0, 2.0, 9.0))]
    assert report.averages([*rows, {"scene": "3", "method": "n", "psnr_l": 5.0}]) == {"m": {"psnr_mu": 4.0, "seconds": 2.0}, "n": {"psnr_l": 5.0}}


def test_a_name_that_is_not_utf_8_does_not_stop_the_table(tmp_path):
    report.save_csv(tmp_path / "scores.csv", [{"scene": "a\udcff", "method": "m", "psnr_mu": 1.0}], "")
    assert "\na?,m,1.0," in (tmp_path / "scores.csv").read_text(encoding="utf-8")


def test_figure_1_needs_a_time_and_a_finite_score(tmp_path):
    assert not report.plot_figure1(tmp_path / "a.png", {"files": {"psnr_mu": 40.0}, "exact": {"psnr_mu": math.inf, "seconds": 1.0}})
    assert report.plot_figure1(tmp_path / "b.png", {"ours": {"psnr_mu": 40.0, "seconds": 0.1}})
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


def test_scenes_of_the_ruler_are_averaged_by_kind_and_by_step_and_harm_is_told():
    scores = {("static_1ev_drawn_000", "net"): 50.0, ("static_1ev_drawn_000", "merge, aligned"): 50.4, ("static_1ev_drawn_000", "reference alone"): 30.0,
              ("night_1ev_drawn_001", "net"): 30.0, ("night_1ev_drawn_001", "merge, aligned"): 31.0, ("night_1ev_drawn_001", "reference alone"): 32.0,
              ("night_4ev_drawn_002", "net"): 40.0, ("night_4ev_drawn_002", "merge, aligned"): 38.0, ("night_4ev_drawn_002", "reference alone"): 20.0}
    rows = [{"scene": scene, "method": method, "psnr_mu": value, "psnr_l": value - 10} for (scene, method), value in scores.items()]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.by_kind(rows, ["net"]).splitlines()]
    assert lines[0] == ["PSNR-μ / PSNR-L", "scenes", "net", "merge, aligned", "reference alone"]
    assert lines[2:6] == [["night", "2", "35.00 / 25.00", "34.50 / 24.50", "26.00 / 16.00"], ["static", "1", "50.00 / 40.00", "50.40 / 40.40", "30.00 / 20.00"],
                          ["1 EV", "2", "40.00 / 30.00", "40.70 / 30.70", "31.00 / 21.00"], ["4 EV", "1", "40.00 / 30.00", "38.00 / 28.00", "20.00 / 10.00"]]
    assert lines[7] == ["net, scenes more than 0.5 dB in PSNR-μ below the better of reference alone and merge, aligned: night_1ev_drawn_001 (2.0 dB)"]
    assert report.by_kind([{"scene": "cafe", "method": "net", "psnr_mu": 30.0}], ["net"]) == ""
    assert "below the better" not in report.by_kind([row for row in rows if row["method"] != "merge, aligned"], ["net"])      # nothing to compare with


def test_the_command_of_a_resumed_run_starts_it_anew():
    saved = {"variant": "s1", "training": {**asdict(Stage1Config()), "out": "runs/a"}}
    saved["training"]["training"]["resume"] = True
    assert report.training_command(saved) == "python train_stage1.py --out runs/a"
