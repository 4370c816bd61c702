"""What a training reads: its speakers, its validation trials, and the sounds for augmentation."""

import dataclasses
from pathlib import Path

import numpy as np

from sv_utils.evaluation import trials
from sv_utils.speech import manifest
from sv_utils.speech.reader import Speech
from sv_utils.training import augment, schedules
from sv_utils.training.batches import Crops
from sv_utils.training.speaker_model import SAMPLE_RATE
from sv_utils.training.validation import ValidationTrials


@dataclasses.dataclass(frozen=True)
class Data:
    """
    What a training reads: dev speakers to train on, and others to validate on.

    Parameters
    ----------
    train : Speech
        Open store of the training utterances.
    labels : np.ndarray [shape=(utterances,)]
        Class of each training utterance's speaker.
    speakers : np.ndarray [shape=(speakers,)]
        Name of each class, in alphabetical order.
    validation : ValidationTrials
    musan, responses : Speech, optional
        Sounds and room responses for augmentation, where their corpora are prepared.
    """

    train: Speech
    labels: np.ndarray
    speakers: np.ndarray
    validation: ValidationTrials
    musan: Speech | None = None
    responses: Speech | None = None

    @classmethod
    def read(cls, prep: Path, fold: int = 0, folds: int = 0) -> "Data":
        """
        Read what stage ``02_prep`` left in its folder `prep`.

        Parameters
        ----------
        prep : Path
        fold, folds : int
            For cross-validation: of all dev speakers, cut into `folds` parts, number `fold` (from 1) is validated on
            and the others train. 0: as ``02_prep`` has split them.
        """
        table = manifest.read_utterances(prep / "utterances.csv")
        train, validation = (table[table["split"] == split] for split in ("train", "validation"))
        pairs = trials.read(prep / "validation_trials.txt")
        if folds:
            dev = table[table["split"] != "test"]
            place = np.random.default_rng(0).permutation(dev["speaker"].nunique())
            part = place[np.unique(dev["speaker"], return_inverse=True)[1]] % folds == fold - 1
            train, validation = dev[~part], dev[part]
            n_target, n_nontarget = np.bincount(1 - pairs.known_labels).tolist()
            pairs = trials.make(validation["id"], n_target, n_nontarget, seed=fold)
        speakers, labels = np.unique(train["speaker"].to_numpy(str), return_inverse=True)
        sides = trials.rows(pairs, validation["id"])
        path = prep / "augmentation.csv"
        others = manifest.read_utterances(path) if path.exists() else table[:0]
        rows = (others[others["corpus"] == corpus] for corpus in ("musan", "rirs_noises"))
        sounds = (None if kind.empty else Speech(kind) for kind in rows)
        return cls(
            Speech(train), labels, speakers, ValidationTrials(Speech(validation), pairs.known_labels, *sides), *sounds
        )

    def crops(self, phases: list[dict], batch_size: int, seed: int, speakers_per_batch: int = 0) -> list[Crops]:
        """
        Training batches of each phase, with its crop length, speeds and augmentation.

        A phase whose ``batch_size`` is not 0 has that many crops in a batch instead of `batch_size`.

        Raises
        ------
        RequestError
            If a phase has a value that is unknown or out of range.
        """
        schedules.check(phases)
        return [
            Crops(
                self.train,
                self.labels,
                phase["batch_size"] or batch_size,
                round(SAMPLE_RATE * phase["crop_seconds"]),
                seed,
                speakers_per_batch,
                self.augmentation(phase["augmentation"]),
                tuple(phase["speeds"]),
            )
            for phase in phases
        ]

    def augmentation(self, settings: dict) -> augment.Augmentation | None:
        """Augmentation with these corpora; None where nothing is switched on."""
        made = augment.Augmentation(settings, self.train, self.musan, self.responses)
        off = {key: value for key, value in augment.OFF.items() if not isinstance(value, list) or key == "gain"}
        return made if any(settings[key] != value for key, value in off.items()) else None
