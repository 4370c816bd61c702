"""
Enrol voices under names: ``python -m sv_utils.enrol NAME FILE ... [--model M]``; ``--list``; ``--delete NAME``

What is kept is one file of embeddings (`enrolment.Voices`), readable by its owner alone; no audio. It belongs to one
model, whose vectors mean nothing to another. ``python -m sv_utils.identify FILE`` asks it who speaks.
"""

import argparse
from pathlib import Path

from sv_utils.base.errors import RequestError, command
from sv_utils.voices import asked
from sv_utils.voices.enrolment import counted, default_store, delete, enrol, read


@command
def main(argv: list[str] | None = None) -> None:
    """Enrol a voice from recordings, list the enrolled voices, or delete one."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.enrol", description=main.__doc__)
    parser.add_argument("name", nargs="?", help="of the voice; recordings are added to what it has")
    parser.add_argument("files", nargs="*", help="audio files")
    parser.add_argument("--model", default="campplus", help="campplus (default), or an evaluated .keras file")
    parser.add_argument("--store", type=Path, default=default_store(), help="file of voices (default: %(default)s)")
    parser.add_argument("--anyway", action="store_true", help="enrol recordings that do not sound like the others too")
    parser.add_argument("--segment", **asked.SEGMENT)
    parser.add_argument("--list", action="store_true", help="say who is enrolled")
    parser.add_argument("--delete", metavar="NAME", help="remove a voice")
    arguments = parser.parse_args(argv)
    if arguments.delete is not None:
        delete(arguments.store, arguments.delete)
        print(f"{arguments.delete} is deleted from {arguments.store}")
    elif arguments.list:
        voices = read(arguments.store)
        print(f"{arguments.store}: {len(voices.sums)} voices" + (f", of {voices.model}" if voices.sums else ""))
        for name, count in voices.counts.items():
            print(f"  {name} ({counted(count)})")
    elif not arguments.name or not arguments.files:
        raise RequestError("name a voice and its recordings: python -m sv_utils.enrol NAME FILE ...; or --list")
    else:
        segments = asked.segments(arguments.segment, len(arguments.files))
        wanted = arguments.model, arguments.store, arguments.anyway, segments
        count, warnings = enrol(arguments.name, arguments.files, *wanted)
        said = [f"{arguments.name} is enrolled with {counted(count)}", *(f"  warning: {text}" for text in warnings)]
        print("\n".join(said))


if __name__ == "__main__":
    raise SystemExit(main())
