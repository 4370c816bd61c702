"""The command ``sv``: it lists the commands of the package, and runs the one that is named."""

import ast
import importlib
import pkgutil
import re
import sys
from pathlib import Path

import sv_utils
from sv_utils.base.errors import RequestError, command, nearest

SHORT = {"pretrained": ("download", "--pretrained")}  # a word for a command and its option


def commands() -> dict[str, str]:
    """
    Find the commands of the package: its flat files, and the folders that have a ``__main__.py``.

    Returns
    -------
    dict
        Name of each command to the first line of its docstring, which is read without importing the module.

    Examples
    --------
    >>> commands()["doctor"]
    'What this machine has and lacks.'
    """
    found = {}
    for module in pkgutil.iter_modules(sv_utils.__path__):
        folder = Path(sv_utils.__path__[0]) / module.name
        if not module.ispkg or (folder / "__main__.py").exists():
            found[module.name] = _first_line(folder / "__init__.py" if module.ispkg else folder.with_suffix(".py"))
    return found


def _first_line(file: Path) -> str:
    """First line of a module's docstring, without the example of a call that may end it."""
    docstring = ast.get_docstring(ast.parse(file.read_bytes())) or ""
    said = re.split(r"`+python -m", docstring.partition("\n")[0])[0].rstrip(": (")
    return said if said.endswith((".", "?")) else f"{said}."


def overview() -> str:
    """
    Say how `sv` is called, with the commands, one a line.

    Returns
    -------
    str
    """
    rows = [f"  {name:10} {line}" for name, line in commands().items()]
    short = [f"  {name:10} Short for {' '.join(words)}." for name, words in SHORT.items()]
    return "\n".join(["usage: sv COMMAND ...", "", *rows, *short, "", "sv COMMAND --help tells what a command takes."])


@command(failed=2)  # what hinders a command from starting is no answer of `verify`, whose 1 is one
def main(argv: list[str] | None = None) -> int:
    """Run the command that is named, as in ``sv verify a.wav b.m4a``; without a name, or with --help, list them."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    name, *rest = (*SHORT.get(words[0], tuple(words[:1])), *words[1:])
    if name not in commands():
        raise RequestError(f"there is no command '{name}'{nearest(name, commands())}; sv --help lists them")
    return importlib.import_module(f"sv_utils.{name}").main(rest)


if __name__ == "__main__":
    raise SystemExit(main())
