"""
Fetch the archives of a corpus, or find them where they lie, and check every checksum.

Archives and unpacked trees are taken from where they already lie (bundled with the repository, or in a mirror folder)
and read in place; only what comes from the network is stored, under ``outputs/corpora/<corpus>/archives/``. An archive
cut into parts stays in parts, so there is neither a concatenated copy nor an extracted tree.

``sv download --check voxceleb2`` asks every address for one byte: who answers, sizes, whether a download can be
resumed, whether a key is needed.

``--pretrained`` lists public encoders; ``--pretrained NAME`` fetches the file of one, checks and converts it, and says
what it is.
"""

import argparse

from sv_utils import corpora
from sv_utils.base.errors import command
from sv_utils.corpora import Corpus
from sv_utils.models import pretrained
from sv_utils.models.pretrained import catalogue, releases
from sv_utils.speech import needs
from sv_utils.speech.acquisition import fetch


def check(corpus: Corpus, key: str | None = None) -> int:
    """
    Print what each address of a corpus answers, and whether all of it can be fetched from here.

    Returns
    -------
    int
        0 where each file has an address that gives it, else 1.
    """
    rows = needs.routes_of(corpus, key)
    for row in rows:
        size = needs.size(row["bytes"]) if row["bytes"] else "-"
        more = [word for word, holds in (("resumes", row["ranges"]), ("needs a key", row["key"])) if holds]
        print(f"{row['file']:24} {row['host']:24} {row['answers']:32} {size:>10}  {', '.join(more)}")
    files = dict.fromkeys(row["file"] for row in rows)
    lost = [file for file in files if not any(row["good"] for row in rows if row["file"] == file)]
    if not rows or lost:
        said = f"{len(lost)} of {len(files)} files cannot be fetched from here" if rows else "nothing is to be fetched"
        print(f"{corpus.name}: {said}: {corpus.manual}.")
        return 1 if lost else 0
    total = sum(max(row["bytes"] or 0 for row in rows if row["file"] == file and row["good"]) for file in files)
    print(f"{corpus.name}: all {len(files)} files can be fetched, {needs.size(total)}.")
    return 0


def encoder(name: str, source: str | None = None, sha256: str | None = None, first_use: bool = False) -> None:
    """
    Convert a public encoder and tell what it is; list all of them for an empty name.

    Parameters and errors are those of `releases.provide`.
    """
    if not name:
        print(catalogue.listed(releases.here()))
        return
    found = catalogue.get(name)
    print(catalogue.told(found))
    file = pretrained.published(name) if found.package else releases.provide(name, source, sha256, first_use)
    print(f"  converted: {file}")


@command
def main(argv: list[str] | None = None) -> int:
    """Fetch the archives of a corpus, or a public encoder, or find them where they lie, and check every checksum."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.download", description=main.__doc__)
    parser.add_argument("corpus", nargs="?", help=", ".join(corpora.names()))
    parser.add_argument("--source", help="folder with the archives, or an address with {file} (and {key})")
    parser.add_argument("--key", help="personal key of VoxCeleb (default: $SV_VOXCELEB_KEY)")
    parser.add_argument("--connections", type=int, default=4, help="files downloaded at a time (4)")
    parser.add_argument("--check", action="store_true", help="ask the servers, and fetch nothing")
    parser.add_argument(
        "--pretrained", nargs="?", const="", metavar="NAME", help="a public encoder; without NAME: list"
    )
    parser.add_argument("--from", dest="file", metavar="FILE", help="of --pretrained: its authors' file, or its folder")
    parser.add_argument("--sha256", metavar="HEX", help="of --pretrained: checksum of that file, where none is public")
    parser.add_argument("--trust-first-use", action="store_true", help="of --pretrained: take the file without one")
    options = parser.parse_args(argv)
    if (options.corpus is None) == (options.pretrained is None):
        parser.error("name a corpus, or --pretrained and an encoder")
    if options.pretrained is not None:
        encoder(options.pretrained, options.file, options.sha256, options.trust_first_use)
        return 0
    if options.check:
        return check(corpora.get(options.corpus), options.key)
    fetch(corpora.get(options.corpus), options.source, options.key, options.connections)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
