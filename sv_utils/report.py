"""Print the results of a profile, or put them into the README: ``python -m sv_utils.report PROFILE``"""

import argparse

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, command
from sv_utils.base.paths import replace_on_success
from sv_utils.reports.tables import markdown, over_seeds, read_results, session_note, summary


def write_readme(profile: str) -> None:
    """Put the results table of a profile between its two marks in the README."""
    path = paths.REPO / "README.md"
    text = path.read_text()
    begin, end = f"<!-- results {profile} -->\n", f"<!-- end results {profile} -->"
    if begin not in text or end not in text:
        raise RequestError(f"{path.name} lacks the marks '{begin.strip()}' and '{end.strip()}'; add them")
    head, rest = text.split(begin, 1)
    tail = rest.split(end, 1)[1]
    with replace_on_success(path) as temporary:
        results = read_results(profile)
        repeated = over_seeds(results)
        table = summary(results) if repeated.empty else repeated
        temporary.write_text(head + begin + markdown(table) + "\n" + end + tail)


@command
def main(argv: list[str] | None = None) -> None:
    """Print a profile's results, or put them into the README."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.report", description=main.__doc__)
    parser.add_argument("profile")
    parser.add_argument("--readme", action="store_true", help="update the table in README.md instead of printing it")
    arguments = parser.parse_args(argv)
    if arguments.readme:
        return write_readme(arguments.profile)
    results = read_results(arguments.profile)
    print(*(markdown(table) for table in (summary(results), over_seeds(results)) if not table.empty), sep="\n\n")
    print(session_note(arguments.profile))


if __name__ == "__main__":
    raise SystemExit(main())
