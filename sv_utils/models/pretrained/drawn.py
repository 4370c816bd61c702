"""
Public encoders with drawn weights, which stand in at a rehearsal for files that cannot be had on this machine.

``python -m sv_utils.models.pretrained.drawn FOLDER NAME...`` prints what `lend` gives, as JSON.
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from sv_utils.base import paths
from sv_utils.models.pretrained import catalogue, releases
from sv_utils.models.pretrained.catalogue import Encoder
from sv_utils.speech import needs


def lend(names: Iterable[str], folder: Path) -> dict[str, str]:
    """
    Let stand-ins lie beside the public encoders of the outputs, for those that cannot be had; fetch the others.

    Parameters
    ----------
    names : iterable of str
        What the catalogue does not have is passed over.
    folder : Path
        ``pretrained`` of a rehearsal's outputs, a link to that of the real ones; stays one where nothing is drawn.

    Returns
    -------
    dict
        Names of those whose own weights cannot be had, and why.
    """
    real, known = folder.resolve(), catalogue.read()
    lacking = {name: why for name in sorted(set(names) & set(known)) if (why := refusal(known[name]))}
    if lacking:
        folder.unlink()
        folder.mkdir()
        for file in real.iterdir():
            (folder / file.name).symlink_to(file)
    for name in lacking:
        draw(known[name], folder)
    return lacking


def refusal(encoder: Encoder) -> str:
    """Why an encoder cannot be had; empty where it is here, or was fetched or found just now."""
    if encoder.name in releases.here():
        return ""
    asked = [] if releases.mirrored(encoder) else [needs.route(encoder.file, at) for at in encoder.addresses]
    if asked and not any(row["good"] for row in asked):  # a download would try for a minute
        return "; ".join(f"{row['host']}: {row['answers']}" for row in asked)
    line = [sys.executable, "-m", "sv_utils.download", "--pretrained", encoder.name]
    ran = subprocess.run(line, capture_output=True, text=True)
    said = [text for text in ran.stderr.splitlines() if text.strip()] or [f"it ended with {ran.returncode}"]
    return said[-1].removeprefix("sv_utils.download: ") if ran.returncode else ""


def draw(encoder: Encoder, folder: Path) -> None:
    """
    Write the network of a public encoder with drawn weights, by the name that its own would have.

    Nothing is written where the network is known by its file alone.
    """
    family = importlib.import_module(f"{__package__}.{encoder.family}")
    if not hasattr(family, "build"):
        return
    described = family.described(encoder.name) if hasattr(family, "described") else {}
    releases.record(encoder, "drawn", "no file: its weights are drawn", folder / f"{encoder.name}.json")
    with paths.replace_on_success(folder / releases.converted(encoder).name) as temporary:
        family.build(**{**described, **encoder.options}).save(temporary)


if __name__ == "__main__":
    place, *asked_for = sys.argv[1:]
    print(json.dumps(lend(asked_for, Path(place))))
