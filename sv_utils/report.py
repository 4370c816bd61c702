"""Print the results of a profile, or put them into the README: ``python -m sv_utils.report PROFILE``"""

import argparse

import pandas as pd

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, command
from sv_utils.base.paths import replace_on_success
from sv_utils.evaluation.systems import COSINE
from sv_utils.reports import expected
from sv_utils.reports.tables import markdown, over_seeds, read_results, session_note, summary

FRONT, FURTHER = "README.md", "params/README.md"  # the front page has room for the plain models alone


def write_readme(profile: str) -> None:
    """
    Put the results of a profile between its two marks, in ``README.md`` or in ``params/README.md``.

    Parameters
    ----------
    profile : str
        Marked by ``<!-- results PROFILE -->`` and ``<!-- end results PROFILE -->``.

    Raises
    ------
    RequestError
        If neither file has the marks, or the profile has no results.
    """
    begin, end = f"<!-- results {profile} -->\n", f"<!-- end results {profile} -->"
    for name in (FRONT, FURTHER):
        path = paths.REPO / name
        text = path.read_text("utf-8") if path.exists() else ""
        head, marked, rest = text.partition(begin)
        _, ended, tail = rest.partition(end)
        if marked and ended:
            table = markdown(_shown(read_results(profile), plain=name == FRONT))
            with replace_on_success(path) as temporary:
                temporary.write_text(f"{head}{begin}{table}\n{end}{tail}", "utf-8")
            return
    raise RequestError(f"neither {FRONT} nor {FURTHER} has the marks '{begin.strip()}' and '{end}'; add them to one")


def _shown(results: pd.DataFrame, plain: bool) -> pd.DataFrame:
    """The mean over seeds where there are several, else a row a model; `plain`: only the scores that are cosines."""
    if plain:
        results = results[results["scoring"] == COSINE.name]
    repeated = over_seeds(results)
    return summary(results) if repeated.empty else repeated


@command
def main(argv: list[str] | None = None) -> None:
    """Print a profile's results, put them into the README, or store its curves as those to expect."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.report", description=main.__doc__)
    parser.add_argument("profile")
    parser.add_argument(
        "--readme", action="store_true", help="write it into README.md or params/README.md, where its marks are"
    )
    parser.add_argument(
        "--curves", action="store_true", help="store the curves of its trainings in params/expected/ as those to expect"
    )
    arguments = parser.parse_args(argv)
    if arguments.curves:
        return print(expected.store(arguments.profile))
    if arguments.readme:
        return write_readme(arguments.profile)
    results = read_results(arguments.profile)
    print(*(markdown(table) for table in (summary(results), over_seeds(results)) if not table.empty), sep="\n\n")
    print(session_note(arguments.profile))


if __name__ == "__main__":
    raise SystemExit(main())
