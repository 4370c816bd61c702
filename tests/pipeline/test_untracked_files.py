"""A file that git does not know makes the state of the repository another one."""

import subprocess

from sv_utils.pipeline import records


def test_a_file_that_git_does_not_know_differs_from_the_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(records.paths, "REPO", tmp_path)
    (tmp_path / "known.py").write_text("")
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert records.facts()["git"]["dirty"] is False
    (tmp_path / "new.py").write_text("")
    assert records.facts()["git"]["dirty"] is True
