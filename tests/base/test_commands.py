"""The command `sv`: it lists what lies flat in the package and runs it; nobody keeps a list."""

import subprocess
import sys

import pytest

from sv_utils.base import commands, paths

SV = [sys.executable, "-m", "sv_utils.base.commands"]


def test_every_flat_module_is_listed_with_a_line():
    flat = {path.stem for path in (paths.REPO / "sv_utils").glob("*.py")} - {"__init__"}
    found = commands.commands()
    assert found.keys() == flat | {"bench"}
    lines = commands.overview().splitlines()
    assert (lines[0], lines[1], lines[-2]) == ("usage: sv COMMAND ...", "", "")
    assert lines[-1].startswith("sv COMMAND --help ") and lines[-1].endswith(".")
    for name, said in found.items():
        assert f"  {name:10} {said}" in lines
        assert 10 < len(said) < 120 and "python -m" not in said, name


SAID = {"Compare X with X": "Compare X with X.", "Compare two.": "Compare two.", "Is it X?": "Is it X?"}
SAID |= {"Compare: ``python -m sv_utils.x A``.": "Compare.", "Compare (`python -m x`).\n\nMore.": "Compare.", "": "."}


@pytest.mark.parametrize("docstring", SAID)
def test_of_a_docstring_the_first_line_is_told_as_a_sentence_without_a_call(docstring, tmp_path):
    (tmp_path / "command.py").write_text(f'"""{docstring}"""' if docstring else "import sys")
    assert commands._first_line(tmp_path / "command.py") == SAID[docstring]


def test_the_list_needs_neither_tensorflow_nor_numpy():
    code = (
        "import sys; from sv_utils.base import commands; code = commands.main(['--help']);"
        "sys.exit(code or bool({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.REPO, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: sv COMMAND")


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_without_a_name_the_commands_are_listed(words, capsys):
    assert commands.main(words) == 0
    assert capsys.readouterr().out == commands.overview() + "\n"


def test_arguments_and_exit_codes_pass_through(capsys):
    assert commands.main(["run", "--list", "mini"]) == 0
    assert capsys.readouterr().out.startswith("01_download ")
    assert commands.main(["verify", "no_such.wav", "nor_this.wav"]) == 2
    assert "no_such.wav" in capsys.readouterr().err


def test_a_word_stands_for_a_command_and_its_option(capsys):
    assert commands.main(["pretrained"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("campplus ")
    assert commands.main(["pretrained", "redimnet2_b2", "--from", "x.pt"]) == 2
    assert "no public encoder 'redimnet2_b2'" in capsys.readouterr().err
    assert "  pretrained Short for download --pretrained." in commands.overview().splitlines()


def test_a_command_that_cannot_be_loaded_is_no_answer(monkeypatch, capsys):
    """`sv verify` must not end with 1, which would say "different speakers"."""

    def broken(name: str):
        raise ImportError("the package is half installed")

    monkeypatch.setattr(commands.importlib, "import_module", broken)
    assert commands.main(["verify", "a.wav", "b.wav"]) == 2
    assert "the package is half installed" in capsys.readouterr().err


def test_a_wrong_name_is_answered_with_the_nearest():
    done = subprocess.run([*SV, "verifi"], cwd=paths.REPO, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "sv: there is no command 'verifi' (did you mean 'verify'?); sv --help lists them\n"


def test_no_command_imports_tensorflow_before_it_works_nor_builds_a_grammar():
    """Notices are kept off the terminal while a command works; what it imports before that would still give some."""
    code = (
        "import importlib, sys; from sv_utils.base import commands\n"
        "for name in commands.commands(): importlib.import_module(f'sv_utils.{name}')\n"
        "slow = 'tensorflow' in sys.modules; import nbformat\n"  # which a stage reads its notebook by
        "sys.exit(slow + 2 * ('lark' in sys.modules))"  # a second for a grammar that nobody asks for
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.REPO, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
