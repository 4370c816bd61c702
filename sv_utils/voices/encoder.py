"""The encoder that answers, without TensorFlow where there is a LiteRT file of it."""

import contextlib
import functools
import itertools
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sv_utils.base.paths import replace_on_success
from sv_utils.models import embedding, pretrained, runtimes
from sv_utils.models.pretrained import catalogue, releases

TOGETHER = 4  # windows of one length that are embedded at once
PATIENCE = 10.0  # for an encoder that is loaded meanwhile; it takes a tenth of a second [s]


@contextlib.contextmanager
def begun(model: str) -> Iterator[None]:
    """
    Load a model's LiteRT file, where there is one, in a second thread: while recordings are decoded and heard.

    Nothing is fetched or converted by it, and what goes wrong is told by `embeddings`, which needs the model. The
    thread has done its work when the block ends, however that ends.

    Parameters
    ----------
    model : str
        As of `compare`.
    """
    loaded = threading.Event()
    with contextlib.ExitStack() as block:
        for _ in range(2):  # once more where Ctrl-C ends the first; Thread.join would then take the thread for ended
            block.callback(loaded.wait, PATIENCE)
        try:
            threading.Thread(target=_load_what_is_at_hand, args=(model, loaded)).start()
        except RuntimeError:  # there is no thread to be had
            loaded.set()
        yield


def _load_what_is_at_hand(model: str, loaded: threading.Event) -> None:
    """Load the LiteRT file of a model where that takes no fetching and no converting; errors are not told here."""
    try:
        source = releases.converted(catalogue.get(model)) if model in pretrained.PUBLISHED else Path(model)
        quick = runtimes.fast_form(pretrained.locate(model)) if source.is_file() else None
        if quick:
            _network(quick)
    except Exception:
        return
    finally:
        loaded.set()


def embeddings(model: str, waveforms: list[np.ndarray]) -> np.ndarray:
    """
    Embed recordings, without TensorFlow where there is a LiteRT file of the model.

    Parameters
    ----------
    model : str
        As of `compare`.
    waveforms : list of np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.

    Returns
    -------
    np.ndarray [shape=(recordings, d)], float32
        Unit vectors.
    """
    source = pretrained.locate(model)
    network, lengths = _network(runtimes.fast_form(source) or source), [len(samples) for samples in waveforms]
    order = sorted(range(len(waveforms)), key=lambda row: -lengths[row])  # what a runtime holds grows once
    alike = [list(rows) for _, rows in itertools.groupby(order, key=lengths.__getitem__)]
    vectors = [_embedded(network, [waveforms[row] for row in rows]) for rows in alike]
    return np.concatenate(vectors)[np.argsort(np.concatenate(alike))]


def _embedded(network: Any, waveforms: list[np.ndarray]) -> np.ndarray:
    """Unit vectors of waveforms of one length, a few at a time."""
    return embedding.embed(network, [len(samples) for samples in waveforms], waveforms.__getitem__, batch_size=TOGETHER)


def of_voices(model: str, hearings: Sequence[list[np.ndarray]]) -> np.ndarray:
    """
    Embed recordings that are heard in several ways, each as the mean of its hearings.

    Parameters
    ----------
    model : str
        As of `compare`.
    hearings : sequence of list of np.ndarray [shape=(n,), dtype=int16]
        Of each recording, as of `activity.heard`.

    Returns
    -------
    np.ndarray [shape=(recordings, d)], float32
        Unit vectors.
    """
    found = embeddings(model, [hearing for recording in hearings for hearing in recording])
    return means(found, [len(recording) for recording in hearings])


def means(embeddings: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """
    Take the mean of each so many rows, as a unit vector [shape=(len(counts), d)].

    Examples
    --------
    >>> means(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), [2, 1]).round(3).tolist()
    [[0.707, 0.707], [1.0, 0.0]]
    """
    sums = np.stack([part.sum(axis=0) for part in np.split(embeddings, np.cumsum(counts)[:-1])])
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


@functools.lru_cache(maxsize=1)
def _network(file: Path) -> Any:
    """The encoder of a file, kept for the next answer of this process."""
    network = pretrained.load(file)
    network.run_eagerly = True  # of Keras: to compile the graph takes longer than to run it twice
    return network


def prepare(model: str) -> None:
    """
    Write a published encoder's LiteRT file beside it, where LiteRT is installed, for quick starts from now on.

    An encoder that LiteRT cannot hold is tried once; then a note beside it says so.
    """
    if model not in pretrained.PUBLISHED or not runtimes.can_be_fast():
        return
    source = pretrained.locate(model)
    if runtimes.fast_form(source) or _in_vain(source):
        return
    print("sv_utils.verify: making the next starts quick, this once: about half a minute ...", file=sys.stderr)
    from sv_utils.models import exports  # and with it TensorFlow

    try:
        exports.export(model, "litert")
    except Exception as error:  # a convenience: the answer stands, and Keras gives the next
        said = {"sha256": runtimes.sha256(source), "failed": type(error).__name__}
        with contextlib.suppress(OSError), replace_on_success(_note(source)) as temporary:
            temporary.write_text(json.dumps(said), "utf-8")


def _note(source: Path) -> Path:
    return source.with_name(f"{source.stem}.not_litert.json")


def _in_vain(source: Path) -> bool:
    """Whether a LiteRT file of this state of an encoder could not be made."""
    try:
        return json.loads(_note(source).read_text("utf-8"))["sha256"] == runtimes.sha256(source)
    except (OSError, ValueError, KeyError, TypeError):
        return False
