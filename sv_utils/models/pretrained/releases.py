"""Files of weights as their authors release them: found or fetched, checked against a checksum, converted once."""

import contextlib
import importlib
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.base.text import refuse_special
from sv_utils.base.zips import refuse_bomb
from sv_utils.models.pretrained import catalogue
from sv_utils.models.pretrained.catalogue import Encoder
from sv_utils.models.runtimes import sha256 as sha256_of

SHA256 = re.compile("[0-9a-f]{64}")
WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")  # how a file of weights within a zip ends


def provide(
    name: str, source: str | os.PathLike | None = None, sha256: str | None = None, first_use: bool = False
) -> Path:
    """
    Give our Keras file of a public encoder, made of its authors' file if it is not there yet.

    Parameters
    ----------
    name : str
        Of the catalogue.
    source : path, optional
        The authors' file, or a folder that holds it. Default: ``$SV_MIRROR/pretrained``, else the network.
    sha256 : str, optional
        Checksum of that file [hex], where no public text states it, or in place of the one that is stated.
    first_use : bool
        Trust the file as it comes where no checksum is known. The checksum is kept, and asked for from then on.

    Returns
    -------
    Path
        In ``outputs/pretrained``.

    Raises
    ------
    RequestError
        If there is no such encoder, no checksum is known, the file has another, or does not hold this network.
    WorkError
        If it cannot be fetched.
    """
    encoder, known = catalogue.get(name), _kept(name)
    target = converted(encoder)
    if sha256 is not None and not SHA256.fullmatch(sha256.lower()):
        raise RequestError(f"{sha256!r} is no sha256; give the 64 hex digits that sha256sum prints for the file")
    expected = sha256.lower() if sha256 else known or encoder.sha256
    if source is None and target.exists() and known and expected == known:
        return target
    if not expected and not first_use:
        raise RequestError(
            f"no public text states the sha256 of {encoder.file}; give yours with sv download --pretrained {name} "
            f"--sha256 HEX, or trust the file as it comes with --trust-first-use"
        )
    with _file(encoder, source) as file:
        found = sha256_of(file)
        if expected and found != expected:
            raise RequestError(
                f"{source or encoder.file} has the sha256 {found} instead of {expected}; it is another file"
            )
        _write(of_file(encoder, file), encoder, target)
    how = "given" if sha256 else "kept" if known else encoder.sha256_from or "first use"
    record(encoder, found, how, _record(name))
    return target


def record(encoder: Encoder, sha256: str, sha256_from: str, place: Path) -> None:
    """Keep the checksum of the file that an encoder was converted from, and where it was known from."""
    content = {"file": encoder.file, "sha256": sha256, "sha256_from": sha256_from}
    with paths.replace_on_success(place) as temporary:
        temporary.write_text(json.dumps(content) + "\n", "utf-8")


def fingerprint(name: str) -> str:
    """Tell what an encoder's vectors come from: the checksum of its authors' file, and our revision of it."""
    encoder = catalogue.get(name)
    if not _kept(name):
        provide(name)
    return f"{_kept(name)}.{encoder.revision}"


def note(file: Path) -> Path:
    """Where the checksum stands that a file had when it was made here."""
    return file.with_name(f"{file.name}.sha256")


def converted(encoder: Encoder) -> Path:
    """Give the place of our Keras file of an encoder, whether it is there or not."""
    return paths.outputs() / "pretrained" / f"{encoder.name}.{encoder.revision}.keras"


def here() -> set[str]:
    """Name the encoders that are converted already."""
    return {name for name, encoder in catalogue.read().items() if converted(encoder).exists()}


def convert(encoder: Encoder, found: Any, target: Path) -> None:
    """
    Write the Keras model of what a file of weights holds.

    Parameters
    ----------
    encoder : Encoder
    found : Any
        Of `content`.
    target : Path

    Raises
    ------
    RequestError
        If it is not the network that the catalogue says.
    """
    _write(_model(encoder, found), encoder, target)


def of_file(encoder: Encoder, file: Path) -> Any:
    """Build the Keras model of an authors' file; the errors are those of `convert`."""
    family = importlib.import_module(f"{__package__}.{encoder.family}")
    return family.of_file(file) if hasattr(family, "of_file") else _model(encoder, content(file))


def _model(encoder: Encoder, found: Any) -> Any:
    from sv_utils.models.pretrained import torch_file

    family = importlib.import_module(f"{__package__}.{encoder.family}")
    described = family.options(found) if hasattr(family, "options") else {}
    part = encoder.part or (encoder.package.part if encoder.package else "")
    state = torch_file.table(found, part, encoder.file or encoder.name)
    model = family.build(**{**described, **encoder.options})
    family.assign(model, state)
    return model


def _write(model: Any, encoder: Encoder, target: Path) -> None:
    if model.output_shape[-1] != encoder.dimension:
        raise RequestError(f"{encoder.file} has {model.output_shape[-1]} dimensions and not {encoder.dimension}")
    note(target).unlink(missing_ok=True)
    with paths.replace_on_success(target) as temporary:
        model.save(temporary)


def content(file: Path) -> Any:
    """
    Read what a file of weights holds, whatever its form: PyTorch's, safetensors, or a zip with one of them.

    Raises
    ------
    RequestError
        If it is none of these, or would have to be executed.
    """
    from sv_utils.models.pretrained import safetensors_file, torch_file  # kept weights need neither

    with open(file, "rb") as start:
        first = start.read(9)
    source = (_inner(file) or file) if first.startswith(b"PK") else file
    first = source[:9] if isinstance(source, bytes) else first
    return (safetensors_file.read if first[8:] == b"{" else torch_file.content)(source)


def _inner(file: Path) -> bytes | None:
    """The file of weights in a zip that somebody packed; None for the zip that ``torch.save`` writes."""
    from sv_utils.models.pretrained import torch_file

    refuse_bomb(file)
    try:
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("data.pkl") for name in archive.namelist()):
                return None
            names = [name for name in archive.namelist() if name.endswith(WEIGHTS)]
            if len(names) != 1:
                raise RequestError(f"{file} holds {len(names)} files of weights; unpack it and name one with --from")
            if archive.getinfo(names[0]).file_size > torch_file.LARGEST:
                raise RequestError(f"{names[0]} in {file} is larger than any encoder; do not trust it")
            return archive.read(names[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise RequestError(f"{file} is a damaged zip ({error}); fetch it again") from None


@contextlib.contextmanager
def _file(encoder: Encoder, source: str | os.PathLike | None) -> Iterator[Path]:
    """The authors' file, where it lies, or fetched for as long as it is needed."""
    mirror = mirrored(encoder)
    if source is None and not mirror:
        arrived = paths.outputs() / "pretrained" / f".{encoder.file}"  # what a broken connection leaves is resumed
        try:
            yield _fetched(encoder, arrived)
        finally:
            arrived.unlink(missing_ok=True)
        return
    file = Path(source or mirror or "")
    file = file / encoder.file if file.is_dir() else file
    refuse_special(file)
    if not file.is_file():
        raise RequestError(f"there is no file {file}; name the one that {encoder.name}'s authors published")
    yield file


def mirrored(encoder: Encoder) -> Path | None:
    """Where an encoder's file lies in ``$SV_MIRROR/pretrained``; None where it does not."""
    file = Path(os.environ.get("SV_MIRROR") or os.devnull) / "pretrained" / encoder.file
    return file if file.is_file() else None


def _fetched(encoder: Encoder, target: Path) -> Path:
    """Fetch a file from the first of its addresses that answers."""
    from sv_utils.base import fetch  # and with it requests, for which an answer from kept weights need not wait

    failed: RequestError | WorkError = RequestError(f"{encoder.name} has no address.")
    for address in encoder.addresses:
        try:
            fetch.download(address.format(file=quote(encoder.file)), target)
            return target
        except (RequestError, WorkError) as error:
            failed = error
    raise type(failed)(f"{failed} A file that came another way is taken with --from FILE.")


def _record(name: str) -> Path:
    return paths.outputs() / "pretrained" / f"{name}.json"


def _kept(name: str) -> str:
    """The checksum of the file that was converted; empty where none was."""
    try:
        return str(json.loads(_record(name).read_text("utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
