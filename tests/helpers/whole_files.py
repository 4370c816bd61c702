"""Files that appear complete or not at all: which ones a module writes that way."""

from pathlib import Path

from sv_utils.base import paths


def written_whole(monkeypatch, *modules):
    """Give the list into which the paths come that these modules hand to `replace_on_success` from now on."""
    written = []

    def replace_on_success(path):
        written.append(Path(path))
        return paths.replace_on_success(path)

    for module in modules:
        monkeypatch.setattr(module, "replace_on_success", replace_on_success)
    return written
