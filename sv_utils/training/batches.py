"""Training batches: random crops, straight out of the memory-mapped store, through tf.data."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr

from sv_utils.base.errors import RequestError
from sv_utils.speech.reader import Speech

if TYPE_CHECKING:  # the processes that make batches (`readers`) load none
    import tensorflow as tf

THREADS = 2  # that make batches within this process


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
        Seed of order, positions, speeds and augmentation.
    speakers_per_batch : int
        P of a class-balanced P x K batch (K = batch_size / P crops of each speaker, from different utterances where
        there are enough); 0 draws from all utterances, each once an epoch.
    augmentation : callable, optional
        ``(crops [shape=(n, crop_samples)] float32, numpy Generator)`` to crops of the same shape, as
        `augment.Augmentation`.
    speeds : tuple of float
        Speeds that crops are played at, drawn evenly. Pitch and formants change with it: another speaker. The class is
        ``speaker + speakers * (place of the speed)``; begin with 1 so that a speaker's own number stays.

    References
    ----------
    Yamamoto, Lee, Okabe, Koshinaka: Speaker augmentation and bandwidth extension for deep speaker embedding,
    Interspeech 2019 (speeds as new speakers).
    """

    speech: Speech
    labels: np.ndarray
    batch_size: int
    crop_samples: int
    seed: int
    speakers_per_batch: int = 0
    augmentation: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None
    speeds: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.speeds or min(self.speeds) < 0.5 or max(self.speeds) > 2:
            raise RequestError(f"speeds must be factors from 0.5 to 2, not {list(self.speeds)}")
        if self.speakers_per_batch and (
            self.batch_size % self.speakers_per_batch or self.speakers_per_batch > self.n_classes
        ):
            raise RequestError(
                f"speakers_per_batch {self.speakers_per_batch} must divide batch_size {self.batch_size} "
                f"and not exceed the {self.n_classes} training speakers"
            )

    @property
    def n_classes(self) -> int:
        """Classes that a head has to tell apart: speakers times speeds."""
        return len(self._rows_of_speaker) * len(self.speeds)

    @functools.cached_property
    def _rows_of_speaker(self) -> list[np.ndarray]:
        order = np.argsort(self.labels, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.labels[order])) + 1)

    @functools.lru_cache(maxsize=2)  # noqa: B019 - lives as long as the training
    def _permutation(self, turn: int) -> np.ndarray:
        return np.random.default_rng((self.seed, 1, turn)).permutation(len(self.labels))

    def draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Utterances and classes of batch `step` [shape=(batch_size,) each]."""
        if self.speakers_per_batch:
            return self._balanced(step)
        # A batch may straddle two turns through the data, so that no utterance is ever left out.
        places = step * self.batch_size + np.arange(self.batch_size)
        turns, places = np.divmod(places, len(self.labels))
        rows = np.concatenate([self._permutation(int(turn))[places[turns == turn]] for turn in np.unique(turns)])
        speeds = np.random.default_rng((self.seed, 4, step)).integers(len(self.speeds), size=self.batch_size)
        return rows, self.labels[rows] + len(self._rows_of_speaker) * speeds

    def _balanced(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, 2, step))
        per_speaker = self.batch_size // self.speakers_per_batch
        classes = rng.choice(self.n_classes, self.speakers_per_batch, replace=False)
        pools = (self._rows_of_speaker[speaker] for speaker in classes % len(self._rows_of_speaker))
        rows = [rng.choice(pool, per_speaker, replace=len(pool) < per_speaker) for pool in pools]
        return np.concatenate(rows), np.repeat(classes, per_speaker)

    def batch(self, step: int, worker: int = 0, workers: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """
        One batch, or a worker's part of it.

        Parameters
        ----------
        step : int
            Number of the batch.
        worker, workers : int
            Of so many workers that share each batch, the one that this part is for, from 0. The parts are consecutive,
            so that in a P x K batch the crops of a speaker stay together.

        Returns
        -------
        crops : np.ndarray [shape=(batch_size / workers, crop_samples)], float32 in [-1, 1)
        classes : np.ndarray [shape=(batch_size / workers,)], int32
        """
        rows, classes = self.draw(int(step))
        speeds = np.take(self.speeds, classes // len(self._rows_of_speaker))
        # A sample more than needed: resampling may round the other way.
        lengths = np.where(speeds == 1, self.crop_samples, np.rint(self.crop_samples * speeds).astype(int) + 1)
        room = np.maximum(self.speech.samples[rows] - lengths, 0)
        starts = np.random.default_rng((self.seed, 3, int(step))).integers(0, room + 1)
        size = self.batch_size // workers
        places = range(worker * size, (worker + 1) * size)
        crops = [self._crop(rows[i], starts[i], lengths[i], speeds[i]) for i in places]
        if self.augmentation:
            # A generator for each crop: what becomes of it does not depend on which worker makes it.
            rngs = [np.random.default_rng((self.seed, 5, int(step), i)) for i in places]
            crops = [self.augmentation(crop[None], rng)[0] for crop, rng in zip(crops, rngs)]
        return np.stack(crops), classes[places].astype(np.int32)

    def _crop(self, row: int, start: int, length: int, speed: float) -> np.ndarray:
        crop = self.speech.crops([row], [start], length)[0].astype(np.float32) / 32768
        return crop if speed == 1 else soxr.resample(crop, speed, 1.0)[: self.crop_samples]

    def dataset(
        self, first_step: int = 0, worker: int = 0, workers: int = 1, made: Callable[[int], tuple] | None = None
    ) -> "tf.data.Dataset":
        """
        The batches from number `first_step` on.

        Parameters
        ----------
        first_step : int
            Number of the first batch; a resumed training continues here.
        worker, workers : int
            See `batch`.
        made : callable, optional
            Gives each batch, asked for in their order, as `readers.Readers.batch`; else threads of this process make
            them.

        Returns
        -------
        tf.data.Dataset
            Endless, of (waveforms [shape=(batch_size / workers, crop_samples)] float32 in [-1, 1), classes
            [shape=(batch_size / workers,)] int32).

        Raises
        ------
        RequestError
            If the workers cannot share a batch evenly.
        """
        import tensorflow as tf

        if self.batch_size % workers:
            raise RequestError(
                f"{workers} workers cannot share a batch of {self.batch_size} crops; make it a multiple of {workers}"
            )
        make, size = made or functools.partial(self.batch, worker=worker, workers=workers), self.batch_size // workers

        def load(step: Any) -> tuple:
            crops, classes = tf.numpy_function(make, [step], (tf.float32, tf.int32), stateful=False)
            return tf.ensure_shape(crops, (size, self.crop_samples)), tf.ensure_shape(classes, (size,))

        steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
        at_once = 1 if made else THREADS
        return steps.map(load, num_parallel_calls=at_once, deterministic=True).prefetch(4)
