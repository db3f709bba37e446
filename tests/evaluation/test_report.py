"""evaluation/report.py: means, commands and Figure 1."""

import math

from evaluation import report


def test_flags_that_changed_are_written_as_the_command_line_takes_them():
    defaults = {"a_b": True, "c": False, "d": (1, 2), "e": {"f": 0.1, "g": ""}}
    assert list(report.changed_flags({"a_b": False, "c": True, "d": [3, 4], "e": {"f": 0.2, "g": "my dir"}}, defaults)) == [
        "--no-a-b", "--c", "--d 3 4", "--f 0.2", "--g 'my dir'"]
    assert list(report.changed_flags({"a_b": True, "c": False, "d": [1, 2], "e": {"f": 0.1, "g": ""}}, defaults)) == []


def test_averages_are_means_of_scores_and_medians_of_seconds():
    rows = [{"scene": str(i), "method": "m", "psnr_mu": value, "seconds": value} for i, value in enumerate((1.0, 2.0, 9.0))]
    assert report.averages([*rows, {"scene": "3", "method": "n", "psnr_l": 5.0}]) == {"m": {"psnr_mu": 4.0, "seconds": 2.0}, "n": {"psnr_l": 5.0}}


def test_figure_1_needs_a_time_and_a_finite_score(tmp_path):
    assert not report.plot_figure1(tmp_path / "a.png", {"files": {"psnr_mu": 40.0}, "exact": {"psnr_mu": math.inf, "seconds": 1.0}})
    assert report.plot_figure1(tmp_path / "b.png", {"ours": {"psnr_mu": 40.0, "seconds": 0.1}})
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]
