"""Training batches: random crops, straight out of the memory-mapped store, through tf.data."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from .errors import RequestError
from .store import Speech


@dataclasses.dataclass(frozen=True, eq=False)
class Crops:
    """
    An endless, seeded series of training batches in which batch number ``i`` depends on nothing but ``i`` and the seed.

    That makes a resumed training see what an uninterrupted one sees, and lets several readers share the work.

    Parameters
    ----------
    speech : Speech
        Open store of the training utterances.
    labels : np.ndarray [shape=(utterances,)]
        Class of each utterance's speaker, from 0.
    batch_size : int
        Crops in a batch.
    crop_samples : int
        Length of a crop [samples]; utterances that are shorter repeat.
    seed : int
        Seed of order and positions.
    speakers_per_batch : int
        P of a class-balanced P x K batch (K = batch_size / P crops of each speaker, from different utterances where
        there are enough); 0 draws from all utterances, each once an epoch.
    """

    speech: Speech
    labels: np.ndarray
    batch_size: int
    crop_samples: int
    seed: int
    speakers_per_batch: int = 0

    def __post_init__(self):
        if self.speakers_per_batch:
            speakers = len(self._rows_of_speaker)
            if self.batch_size % self.speakers_per_batch or self.speakers_per_batch > speakers:
                raise RequestError(
                    f"speakers_per_batch {self.speakers_per_batch} must divide batch_size {self.batch_size} "
                    f"and not exceed the {speakers} training speakers"
                )

    @functools.cached_property
    def _rows_of_speaker(self) -> list[np.ndarray]:
        order = np.argsort(self.labels, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.labels[order])) + 1)

    @functools.lru_cache(maxsize=2)  # noqa: B019 - lives as long as the training
    def _permutation(self, turn: int) -> np.ndarray:
        return np.random.default_rng((self.seed, 1, turn)).permutation(len(self.labels))

    def rows(self, step: int) -> np.ndarray:
        """Utterances of batch `step` [shape=(batch_size,)]."""
        if self.speakers_per_batch:
            return self._balanced_rows(step)
        # A batch may straddle two turns through the data, so that no utterance is ever left out.
        places = step * self.batch_size + np.arange(self.batch_size)
        turns, places = np.divmod(places, len(self.labels))
        return np.concatenate([self._permutation(int(turn))[places[turns == turn]] for turn in np.unique(turns)])

    def _balanced_rows(self, step: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, 2, step))
        per_speaker = self.batch_size // self.speakers_per_batch
        speakers = rng.choice(len(self._rows_of_speaker), self.speakers_per_batch, replace=False)
        pools = (self._rows_of_speaker[speaker] for speaker in speakers)
        return np.concatenate([rng.choice(pool, per_speaker, replace=len(pool) < per_speaker) for pool in pools])

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """
        One batch.

        Returns
        -------
        crops : np.ndarray [shape=(batch_size, crop_samples)], int16
        labels : np.ndarray [shape=(batch_size,)], int32
        """
        rows = self.rows(int(step))
        rng = np.random.default_rng((self.seed, 3, int(step)))
        room = np.maximum(self.speech.samples[rows] - self.crop_samples, 0)
        starts = rng.integers(0, room + 1)
        return self.speech.crops(rows, starts, self.crop_samples), self.labels[rows].astype(np.int32)

    def dataset(self, first_step: int = 0, readers: int = 2) -> tf.data.Dataset:
        """
        The batches from number `first_step` on, as float32 waveforms in [-1, 1) and int32 labels.

        Parameters
        ----------
        first_step : int
            Number of the first batch; a resumed training continues here.
        readers : int
            Batches made at once; their order does not change.

        Returns
        -------
        tf.data.Dataset
            Endless, of (waveforms [shape=(batch_size, crop_samples)], labels [shape=(batch_size,)]).
        """

        def load(step):
            crops, labels = tf.numpy_function(self.batch, [step], (tf.int16, tf.int32), stateful=False)
            crops = tf.ensure_shape(crops, (self.batch_size, self.crop_samples))
            return tf.cast(crops, tf.float32) / 32768.0, tf.ensure_shape(labels, (self.batch_size,))

        steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
        return steps.map(load, num_parallel_calls=readers, deterministic=True).prefetch(4)
