"""scoring.py: which folders are scenes."""

import errno

from evaluation import scoring
from scripts import make_scene


def test_a_folder_that_may_not_be_opened_is_skipped_with_its_reason(tmp_path, monkeypatch, capsys):
    """Root may open any folder, so the test imitates the system's refusal."""
    for name in ("a", "closed"):
        make_scene(tmp_path / name)
    look = scoring.scene_files

    def refused(folder):
        if folder.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return look(folder)
    monkeypatch.setattr(scoring, "scene_files", refused)
    assert scoring.readable_folders(tmp_path) == [tmp_path / "a"]
    assert capsys.readouterr().out == f"skipped: {tmp_path / 'closed'}: Permission denied; allow it, or name another file or folder\n"
