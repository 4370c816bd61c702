"""Speech as it might have arrived: cut to its first seconds, or sent through a telephone, and then embedded."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sv_utils.models.embedding import embed
from sv_utils.models.pieces import Pieces
from sv_utils.speech.reader import SAMPLE_RATE, Speech

Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Condition:
    """
    What happens to an utterance before an encoder hears it.

    Attributes
    ----------
    name : str
    seconds : float
        So much of its beginning is heard at most [s].
    change : callable, optional
        From a waveform in [-1, 1) [shape=(n,), float32] at 16 kHz to another.
    """

    name: str
    seconds: float = math.inf
    change: Change | None = None

    def apply(self, samples: np.ndarray) -> np.ndarray:
        """Alter int16 samples [shape=(n,)]; what comes back is int16 too, as a store would hold it."""
        cut = samples[: int(min(len(samples), self.seconds * SAMPLE_RATE))]
        if self.change is None:
            return cut
        changed = 32768 * self.change(cut / np.float32(32768))
        return np.clip(np.rint(changed), -32768, 32767).astype(np.int16)


def conditions(cuts: Sequence[float], telephone: Change | None = None) -> list[Condition]:
    """
    List the conditions that ``08_evaluate`` looks at.

    Parameters
    ----------
    cuts : sequence of float
        Lengths to cut to [s].
    telephone : callable, optional
        Change by a telephone, which is heard whole and cut to 2 s.

    Examples
    --------
    >>> [condition.name for condition in conditions([1, 5])]
    ['1 s', '5 s', 'full']
    """
    found = [*(Condition(f"{cut} s", cut) for cut in cuts), Condition("full")]
    if telephone:
        found += [Condition("telephone, 2 s", 2, telephone), Condition("telephone", change=telephone)]
    return found


def embed_altered(
    model: Any,
    speech: Speech,
    condition: Condition,
    whole: np.ndarray,
    pieces: Pieces | None = None,
    rows: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Embed utterances under a condition, one at a time in memory; what the condition leaves alone is not embedded again.

    Parameters
    ----------
    model : keras.Model
        See `embedding.embed`.
    speech : Speech
    condition : Condition
    whole : np.ndarray [shape=(m, d)]
        Embeddings of the unaltered utterances.
    pieces : Pieces, optional
        Where the embeddings are kept; by default nowhere.
    rows : np.ndarray of int [shape=(k,)], optional
        Utterances that are asked for; the others stay as they were. By default all.

    Returns
    -------
    samples : np.ndarray of int [shape=(m,)]
        How much of each is heard.
    embeddings : np.ndarray [shape=(m, d)]
    """
    samples, asked = speech.samples.astype(int), np.arange(len(speech)) if rows is None else np.asarray(rows)
    samples[asked] = np.minimum(samples[asked], condition.seconds * SAMPLE_RATE).astype(int)
    altered = asked[(samples[asked] < speech.samples[asked]) | (condition.change is not None)]

    def read(place: int) -> np.ndarray:
        return condition.apply(speech.waveform(altered[place]))

    embeddings = whole.copy()
    if pieces is None:
        embeddings[altered] = embed(model, samples[altered], read)
    elif len(altered):
        name = f"test, {condition.name}"
        embeddings[altered], _ = pieces.embed(name, model, speech, samples[altered], altered, condition.apply)
    return samples, embeddings
