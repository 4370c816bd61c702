"""Print the results of a profile and whether they are as expected: ``python -m sv_utils.report PROFILE``"""

import argparse
from pathlib import Path

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError, command
from sv_utils.base.paths import replace_on_success
from sv_utils.reports import expected, reproduction, site
from sv_utils.reports.tables import markdown, on_record, over_seeds, read_results, session_note, summary

FRONT, FURTHER = "README.md", "params/README.md"  # the front page has room for the plain models alone


def write_readme(profile: str) -> None:
    """
    Put the trainings of a profile that are on record between its two marks, in ``README.md`` or ``params/README.md``.

    Parameters
    ----------
    profile : str
        Marked by ``<!-- results PROFILE -->`` and ``<!-- end results PROFILE -->``.

    Raises
    ------
    RequestError
        If neither file has the marks, or no training of the profile is on record.
    """
    begin, end = f"<!-- results {profile} -->\n", f"<!-- end results {profile} -->"
    for name in (FRONT, FURTHER):
        path = paths.REPO / name
        text = path.read_text("utf-8") if path.exists() else ""
        head, marked, rest = text.partition(begin)
        _, ended, tail = rest.partition(end)
        if marked and ended:
            table = markdown(on_record(profile, plain=name == FRONT))
            with replace_on_success(path) as temporary:
                temporary.write_text(f"{head}{begin}{table}\n{end}{tail}", "utf-8")
            return
    raise RequestError(f"neither {FRONT} nor {FURTHER} has the marks '{begin.strip()}' and '{end}'; add them to one")


def show(profile: str, strict: bool) -> None:
    """
    Print the results of a profile, and the verdict, which is also written to ``reproduction.json``.

    Parameters
    ----------
    profile : str
    strict : bool
        Whether another verdict than "as expected" is an error.

    Raises
    ------
    WorkError
        If `strict`, and the results are not as expected, or no verdict is possible.
    """
    results = read_results(profile)
    print(*(markdown(table) for table in (summary(results), over_seeds(results)) if not table.empty), sep="\n\n")
    print(session_note(profile))
    found = reproduction.of_profile(profile)
    print(found["sentence"])
    if strict and found["verdict"] != reproduction.AS_EXPECTED:
        raise WorkError(f"{profile}: {found['verdict']}; see {paths.profile_dir(profile) / 'reproduction.json'}")


@command
def main(argv: list[str] | None = None) -> None:
    """Print a profile's results with the verdict; or store what is to be expected, fill the README, make a site."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.report", description=main.__doc__)
    parser.add_argument("profiles", nargs="+", metavar="PROFILE")
    parser.add_argument("--strict", action="store_true", help="exit with 1 unless the results are as expected")
    parser.add_argument(
        "--expected",
        nargs="*",
        metavar="RUN",
        help="store the trainings of these runs (each an outputs/PROFILE) in params/expected/ as those to expect",
    )
    parser.add_argument(
        "--readme", action="store_true", help="write what is expected into README.md or params/README.md, by its marks"
    )
    parser.add_argument("--site", metavar="DIR", help="gather the pages of the profiles in a folder for any web server")
    arguments = parser.parse_args(argv)
    if arguments.site:
        return print(site.build(Path(arguments.site), arguments.profiles))
    for profile in arguments.profiles:
        if arguments.expected is not None:
            print(expected.store(profile, [Path(folder) for folder in arguments.expected]))
            print(reproduction.judged_by_others(profile) or "too few runs to judge each by the others")
        elif arguments.readme:
            write_readme(profile)
        else:
            show(profile, arguments.strict)
    return None


if __name__ == "__main__":
    raise SystemExit(main())
