"""
Fetch the archives of a corpus, or find them where they lie, and check every checksum.

Archives and unpacked trees are taken from where they already lie (bundled with the repository, or in a mirror folder)
and read in place; only what comes from the network is stored, under ``outputs/corpora/<corpus>/archives/``. An archive
cut into parts stays in parts, so there is neither a concatenated copy nor an extracted tree.
"""

import argparse

from sv_utils import corpora
from sv_utils.base.errors import command
from sv_utils.speech.acquisition import fetch


@command
def main(argv: list[str] | None = None) -> int:
    """Fetch the archives of a corpus, or find them where they lie, and check every checksum."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.download", description=main.__doc__)
    parser.add_argument("corpus", help=", ".join(corpora.names()))
    parser.add_argument("--source", help="folder with the archives, or an address with {file} (and {key})")
    parser.add_argument("--key", help="personal key of VoxCeleb (default: $SV_VOXCELEB_KEY)")
    parser.add_argument("--connections", type=int, default=4, help="files downloaded at a time (4)")
    options = parser.parse_args(argv)
    fetch(corpora.get(options.corpus), options.source, options.key, options.connections)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
