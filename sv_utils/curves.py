"""
Store the curves of a profile that has been run as those to expect: ``python -m sv_utils.curves PROFILE``

They go into ``params/expected/PROFILE.csv``; the training notebooks draw them behind those of a new run.
"""

import argparse

from sv_utils.base.errors import command
from sv_utils.base.paths import replace_on_success
from sv_utils.pipeline.profile import Profile
from sv_utils.reports.expected import collect, file_of


@command
def main(argv: list[str] | None = None) -> None:
    """Store the curves of a profile's trainings as those to expect."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.curves", description=main.__doc__)
    parser.add_argument("profile", help="name of a file in params/ that has been run")
    profile = parser.parse_args(argv).profile
    table = collect(Profile.read(profile))
    with replace_on_success(file_of(profile)) as temporary:
        table.to_csv(temporary, index=False, float_format="%.5g")
    print(f"{file_of(profile)}: {len(table)} rows")


if __name__ == "__main__":
    raise SystemExit(main())
