"""Files that are there whole or not at all, and folders that the environment moves."""

import pytest

from sv_utils.base import paths


def test_a_file_is_replaced_when_the_block_ends_well(tmp_path):
    file = tmp_path / "deeper" / "still" / "a.csv"
    for content in ("one", "two"):
        with paths.replace_on_success(file) as temporary:
            assert temporary != file and (temporary.suffix, temporary.parent) == (".csv", file.parent)
            temporary.write_text(content)
            assert not file.exists() or file.read_text() == "one"
        assert file.read_text() == content
    assert list(file.parent.iterdir()) == [file]


def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("old")
    with pytest.raises(OSError), paths.replace_on_success(file) as temporary:
        temporary.write_text("half")
        raise OSError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_outputs_and_params_lie_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "o"))
    monkeypatch.setenv("SV_PARAMS", str(tmp_path / "p"))
    assert (paths.outputs(), paths.params_dir()) == (tmp_path / "o", tmp_path / "p")
    assert paths.stage_dir("mini", "02_prep") == tmp_path / "o" / "mini" / "02_prep"
    assert paths.embeddings_dir("mini", "aam") == tmp_path / "o" / "mini" / "embeddings" / "aam"
    assert paths.expected_file("mini") == tmp_path / "p" / "expected" / "mini.csv"
    assert paths.corpus_dir("ocean") == tmp_path / "o" / "corpora" / "ocean"
    for name in ("SV_OUTPUTS", "SV_PARAMS"):
        monkeypatch.setenv(name, "")
    assert (paths.outputs(), paths.params_dir()) == (paths.REPO / "outputs", paths.REPO / "params")


def test_the_repository_is_found_from_within():
    assert (paths.REPO / "pyproject.toml").is_file() and (paths.NOTEBOOKS / "02_prep.ipynb").is_file()
