"""
Write an encoder for other runtimes: ``python -m sv_utils.export MODEL --to onnx|litert [--int8] [--out FILE]``

The front end goes along: the file takes waveforms of any number and length. What is written is checked on the spot
against the Keras model, and removed when it fails. ``FILE.json`` beside it says what it was made of and what the check
found.
"""

import argparse
import contextlib
import functools
import os
import tempfile
from pathlib import Path
from typing import Any

from sv_utils import corpora
from sv_utils.base.errors import RequestError, command
from sv_utils.evaluation import intervals, metrics, scoring, trials
from sv_utils.models import embedding, exports


def compared(
    written: Any,
    encoder: Any,
    trial_list: str | os.PathLike | None = None,
    root: str | os.PathLike | None = None,
) -> dict:
    """
    Compare the equal error rates of two encoders on one list.

    Parameters
    ----------
    written, encoder
        As of `pretrained.load`.
    trial_list, root : path, optional
        Trials, and the folder of their recordings; by default those of the corpus ``mini``.

    Returns
    -------
    dict
        ``list, n_speakers, n_trials, eer`` of both, and ``eer_change`` as [change, low, high] of its 95 % interval over
        speakers.

    Raises
    ------
    RequestError
        The list has no labels or no speakers.
    """
    with contextlib.ExitStack() as stack:
        if trial_list is None:
            trial_list = corpora.get("mini").list_path("mini")
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sv_utils")))
            _unpack_test_voices(root)
        pairs = trials.read(trial_list)
        sides = trials.speakers(pairs)
        if pairs.labels is None or sides is None:
            raise RequestError(f"{trial_list}: labels, and ids that begin with the speaker, are needed to judge int8")
        names = sorted({*pairs.enrol.tolist(), *pairs.test.tolist()})
        rows = trials.rows(pairs, names)
        vectors = [embedding.embed_files(model, root or ".", names)[0] for model in (written, encoder)]
    scores = [scoring.cosine(embedded, *rows) for embedded in vectors]
    same = pairs.labels == 1
    change = intervals.compare(scores[0], scores[1], pairs.labels, *sides)
    return {
        "list": os.fspath(Path(trial_list).name),
        "n_speakers": len(set(sides[0]) | set(sides[1])),
        "n_trials": len(pairs.labels),
        "eer": [metrics.eer(values[same], values[~same])[0] for values in scores],
        "eer_change": [change[name] for name in ("difference", "low", "high")],
    }


def _unpack_test_voices(root: Path) -> None:
    """Lay the recordings out by the names that the trial list has: without the archive's first folder."""
    with exports.test_voices() as archive:
        for member in archive.infolist():
            target = root / member.filename.partition("/")[2]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(member))


def text(out: Path, found: dict) -> str:
    """Say what `export` found in words."""
    lines = [
        f"{out}: {found['megabytes']:.1f} MB, least cosine with the Keras model's embeddings {found['cosine']:.6f}"
    ]
    if found["int8"]:
        change, low, high = (100 * value for value in found["eer_change"])
        lines.append(
            f"EER {found['eer'][0]:.2%} instead of {found['eer'][1]:.2%} on {found['list']} ({found['n_speakers']} "
            f"speakers, {found['n_trials']:,} trials): {change:+.2f} points [{low:+.2f}, {high:+.2f}]"
        )
    return "\n".join(lines)


@command
def main(argv: list[str] | None = None) -> None:
    """Write an encoder as ONNX or LiteRT file, and check it against the Keras model."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.export", description=main.__doc__)
    parser.add_argument("model", help="campplus, or a .keras file")
    parser.add_argument("--to", required=True, choices=exports.SUFFIXES, help="format")
    parser.add_argument("--out", help="file to write (default: beside the model)")
    parser.add_argument("--int8", action="store_true", help="8-bit weights: a quarter of the size")
    parser.add_argument("--list", help="trials that int8 is judged on (default: those of the corpus mini)")
    parser.add_argument("--root", help="folder that the list's names start from")
    arguments = parser.parse_args(argv)
    judge = functools.partial(compared, trial_list=arguments.list, root=arguments.root)
    out, found = exports.export(arguments.model, arguments.to, arguments.out, arguments.int8, judge)
    print(text(out, found))


if __name__ == "__main__":
    raise SystemExit(main())
