"""
Fit what a published encoder's scores mean under conditions: ``python -m sv_utils.calibrate campplus``

Maintenance: writes ``campplus_conditions.json`` and ``.md`` of `sv_utils.models.pretrained`. Dev speakers of the
corpora at hand (mini, and those below ``$SV_MIRROR``) are sent through simulated channels, embedded once (kept in
``outputs/calibration``) and compared. The error rates that are claimed of a corpus come from a fit without it.
"""

import argparse
import functools
import json
from pathlib import Path
from typing import Any

from sv_utils.base import paths
from sv_utils.base.errors import command
from sv_utils.models import pretrained
from sv_utils.reports.card import in_short, of_conditions
from sv_utils.voices import activity, development, encoder, fitting
from sv_utils.voices.development import Heard


def heard(model: str) -> tuple[dict[str, dict[str, Heard]], dict]:
    """
    Embed the dev speech at hand through all channels, and joined recordings of it.

    Parameters
    ----------
    model : str
        A published encoder.

    Returns
    -------
    heard : dict of str to dict of str to Heard
        By corpus and channel.
    joined : dict of (str, str) to list
        By corpus and channel, as of `development.joined`.
    """
    made_with = f"{pretrained.fingerprint(model)[:8]}-speech{activity.REVISION}"
    folder = paths.outputs() / "calibration" / f"{model}-{made_with}"
    embed = functools.partial(encoder.embeddings, model)
    found: dict[str, dict[str, Any]] = {}
    joined = {}
    for corpus in development.at_hand():
        sounds = development.waveforms(corpus)
        found[corpus] = {}
        for channel in development.channels_of(corpus):
            print(f"{corpus} through {channel}: {len(sounds)} utterances", flush=True)
            found[corpus][channel] = development.through(corpus, channel, sounds, embed, folder)
            if channel in development.JOINED:
                joined[corpus, channel] = development.joined(corpus, channel, sounds, embed, folder)
    return found, joined


@command
def main(argv: list[str] | None = None) -> None:
    """Fit and measure what an encoder's scores mean under conditions, and write them with their card."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.calibrate", description=main.__doc__)
    parser.add_argument("model", choices=sorted(pretrained.PUBLISHED), help="a published encoder")
    parser.add_argument("--out", type=Path, help="file to write (default: the encoder's own, within the package)")
    arguments = parser.parse_args(argv)
    file = arguments.out or Path(pretrained.__file__).with_name(f"{arguments.model}_conditions.json")
    content = fitting.content(arguments.model, *heard(arguments.model))
    for name, text in ((file, json.dumps(content, indent=1) + "\n"), (file.with_suffix(".md"), of_conditions(content))):
        with paths.replace_on_success(name) as temporary:
            temporary.write_text(text, "utf-8")
    print(f"{file} and its card {file.with_suffix('.md').name}: {content['chosen']}")
    print(f"The README of voices shows of it:\n{in_short(content)}", end="")


if __name__ == "__main__":
    raise SystemExit(main())
