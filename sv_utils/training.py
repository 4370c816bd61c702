"""Training in stages: an encoder, a speaker head, an EER monitor on held-out speakers, and resume after a kill."""

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from . import encoder as encoders
from . import metrics, scoring, store, trials
from .batches import Crops
from .errors import WorkError
from .paths import replace_on_success
from .store import Speech

SAMPLE_RATE = 16_000  # [Hz], of every store and every encoder


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and Keras, and let TensorFlow use deterministic kernels only."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()


class SpeakerModel(keras.Model):
    """
    What is trained: the encoder with a speaker head on top, which is dropped afterwards.

    Parameters
    ----------
    encoder : keras.Model
        Waveform [shape=(batch, samples)] to unit vector [shape=(batch, dimension)].
    head : keras.Layer
        One of `sv_utils.losses`: embeddings to outputs, and ``loss(labels, outputs)``.
    """

    def __init__(self, encoder: keras.Model, head: keras.Layer):
        super().__init__(name="speaker_model")
        self.encoder = encoder
        self.head = head

    def call(self, waveforms, training=False):
        """Outputs of the head for waveforms [shape=(batch, samples)]."""
        return self.head(self.encoder(waveforms, training=training), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean loss of the batch, as the head defines it."""
        return self.head.loss(y, y_pred)


@dataclasses.dataclass(frozen=True)
class ValidationTrials:
    """
    Trials between held-out dev speakers: all that checkpoints and learning rates are chosen on.

    Parameters
    ----------
    speech : Speech
        Open store of the validation utterances.
    labels : np.ndarray [shape=(trials,)]
        1 target, 0 non-target.
    enrol_rows, test_rows : np.ndarray [shape=(trials,)]
        Rows of `speech`.
    """

    speech: Speech
    labels: np.ndarray
    enrol_rows: np.ndarray
    test_rows: np.ndarray

    def scores(self, encoder: keras.Model) -> tuple[np.ndarray, np.ndarray]:
        """Cosines of the target and of the non-target trials, each utterance embedded once at full length."""
        embeddings = encoders.embed(encoder, self.speech.samples, self.speech.waveform)
        cosines = scoring.cosine(embeddings, self.enrol_rows, self.test_rows)
        return cosines[self.labels == 1], cosines[self.labels == 0]

    def eer(self, encoder: keras.Model) -> float:
        """Equal error rate of the trials, a fraction."""
        target, nontarget = self.scores(encoder)
        if not (np.isfinite(target).all() and np.isfinite(nontarget).all()):
            raise WorkError("the encoder gives NaN embeddings: training has diverged; lower the learning_rate")
        return float(metrics.eer(target, nontarget)[0])


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
    """

    train: Speech
    labels: np.ndarray
    speakers: np.ndarray
    validation: ValidationTrials

    @classmethod
    def read(cls, prep: Path) -> "Data":
        """Read what stage ``02_prep`` left in its folder `prep`."""
        table = store.read_utterances(prep / "utterances.csv")
        train, validation = (table[table["split"] == split] for split in ("train", "validation"))
        speakers, labels = np.unique(train["speaker"].to_numpy(str), return_inverse=True)
        pairs = trials.read(prep / "validation_trials.txt")
        sides = trials.rows(pairs, validation["id"])
        return cls(Speech(train), labels, speakers, ValidationTrials(Speech(validation), pairs.labels, *sides))

    def crops(self, batch_size: int, seed: int, speakers_per_batch: int = 0, seconds: float = 3.0) -> Crops:
        """Training batches of these utterances."""
        samples = round(SAMPLE_RATE * seconds)
        return Crops(self.train, self.labels, batch_size, samples, seed, speakers_per_batch)


@dataclasses.dataclass
class Progress:
    """Everything of a training that is not a variable of the model or optimizer; saved with them."""

    epoch: int = 0
    step: int = 0
    stage: int = 0
    best_eer: float = math.inf
    stage_best: float = math.inf
    epochs_without_gain: int = 0
    history: list[dict] = dataclasses.field(default_factory=list)
    steps: list[dict] = dataclasses.field(default_factory=list)


class Judge(keras.callbacks.Callback):
    """
    After each epoch: validation EER, best model kept, learning rate lowered on a plateau, one line printed.

    The learning rate is multiplied by ``plateau_factor`` after ``plateau_patience`` epochs in which the validation EER
    did not fall (ReduceLROnPlateau of the original system, monitored on EER).
    """

    def __init__(self, validation: ValidationTrials, progress: Progress, stage: dict, best_path: Path, epochs: int):
        super().__init__()
        self.validation, self.progress, self.stage = validation, progress, stage
        self.best_path, self.epochs = best_path, epochs

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise WorkError(
                f"the loss is {logs['loss']} in epoch {epoch + 1}: lower the learning_rate "
                f"(the best encoder so far, if any, stays in {self.best_path.name})"
            )
        logs["val_eer"] = self.validation.eer(self.model.encoder)
        row = {
            "epoch": epoch + 1,
            "stage": self.progress.stage + 1,
            **{key: float(value) for key, value in logs.items()},
        }
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = time.perf_counter() - self.started
        self.progress.history.append(row)
        self.progress.epoch = epoch + 1
        self._keep_best(logs["val_eer"])
        self._lower_on_plateau(logs["val_eer"])
        self._print(row)

    def _keep_best(self, eer: float) -> None:
        if eer < self.progress.best_eer:
            self.progress.best_eer = eer
            save(self.model.encoder, self.best_path)

    def _lower_on_plateau(self, eer: float) -> None:
        if eer < self.progress.stage_best:
            self.progress.stage_best, self.progress.epochs_without_gain = eer, 0
            return
        self.progress.epochs_without_gain += 1
        if self.progress.epochs_without_gain >= self.stage["plateau_patience"]:
            optimizer = self.model.optimizer
            optimizer.learning_rate = float(optimizer.learning_rate) * self.stage["plateau_factor"]
            self.progress.epochs_without_gain = 0

    def _print(self, row: dict) -> None:
        accuracy = f"accuracy {row['accuracy']:.3f}  " if "accuracy" in row else ""
        print(
            f"epoch {row['epoch']:3d}/{self.epochs}  loss {row['loss']:.4f}  {accuracy}"
            f"validation EER {100 * row['val_eer']:.2f} %  learning rate {row['learning_rate']:.2g}  "
            f"{row['seconds']:.0f} s",
            flush=True,
        )


class StepLog(keras.callbacks.Callback):
    """Notes the running loss, and the head's scale where it has one, every `every` steps."""

    def __init__(self, progress: Progress, every: int):
        super().__init__()
        self.progress, self.every = progress, every

    def on_train_batch_end(self, batch, logs=None):
        self.progress.step += 1
        if self.progress.step % self.every:
            return
        row = {"step": self.progress.step, "loss": float(logs["loss"])}
        if hasattr(self.model.head, "scale"):
            row["scale"] = float(keras.ops.convert_to_numpy(self.model.head.scale))
        self.progress.steps.append(row)


class Checkpoint(keras.callbacks.Callback):
    """Saves all variables (model, optimizer) and the progress in one file, replaced as a whole after each epoch."""

    def __init__(self, progress: Progress, path: Path):
        super().__init__()
        self.progress, self.path = progress, path

    def on_epoch_end(self, epoch, logs=None):
        write_checkpoint(self.path, self.model, self.progress)


def write_checkpoint(path: Path, model: SpeakerModel, progress: Progress) -> None:
    """Write the whole state of a training to one ``.npz`` file."""
    arrays = {f"model_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.variables)}
    arrays |= {f"optimizer_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.optimizer.variables)}
    with replace_on_success(path) as temporary:
        np.savez(temporary, progress=json.dumps(dataclasses.asdict(progress)), **arrays)


def read_progress(path: Path) -> Progress:
    """Progress of the checkpoint, or a fresh one where there is none."""
    if not path.exists():
        return Progress()
    with np.load(path) as arrays:
        return Progress(**json.loads(str(arrays["progress"])))


def read_variables(path: Path, owner: str, variables: list[keras.Variable]) -> None:
    """Set the variables of ``owner`` ("model" or "optimizer") from a checkpoint."""
    with np.load(path) as arrays:
        for i, variable in enumerate(variables):
            variable.assign(arrays[f"{owner}_{i}"])


def save(encoder: keras.Model, path: Path) -> None:
    """Save an encoder so that `path` never holds a part of it."""
    with replace_on_success(path) as temporary:
        encoder.save(temporary)


def freeze_batch_normalization(encoder: keras.Model, frozen: bool) -> None:
    """
    Freeze all BatchNormalization layers but the last, which precedes the L2 normalisation of the embedding.

    The original system's second stage: statistics and affine parameters of the frozen layers stay as they are.
    """
    layers = [layer for layer in encoder._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in layers[:-1]:
        layer.trainable = not frozen


def make_optimizer(stage: dict) -> keras.optimizers.Optimizer:
    """SGD of a stage; biases and normalisation parameters are spared by the weight decay."""
    optimizer = keras.optimizers.SGD(
        stage["learning_rate"],
        momentum=stage["momentum"],
        nesterov=stage["nesterov"],
        weight_decay=stage["weight_decay"] or None,
        clipnorm=stage["clip_norm"] or None,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


@dataclasses.dataclass(frozen=True)
class Training:
    """
    One training, from its parameters to ``model.keras``.

    Parameters
    ----------
    encoder : keras.Model
        Untrained encoder.
    head : keras.Layer
        Speaker head of `sv_utils.losses`.
    crops : Crops
        Training batches; each stage sets their length.
    validation : ValidationTrials
        Trials of held-out dev speakers.
    directory : Path
        Receives ``model.keras`` (best by validation EER), ``initial.keras`` (untrained), ``log.csv``, ``steps.csv``,
        ``tensorboard/`` and ``checkpoint.npz``, from which a killed training goes on.
    stages : list of dict
        ``epochs, steps_per_epoch`` (0: one pass)``, crop_seconds, learning_rate, momentum, nesterov,
        weight_decay, clip_norm, plateau_factor, plateau_patience, freeze_batch_normalization``.
    accuracy : callable
        ``(labels, outputs)`` to per-sample accuracy, shown as `accuracy`.
    jit_compile : bool
        Compile the step with XLA: pays on a GPU, costs on a CPU.
    """

    encoder: keras.Model
    head: keras.Layer
    crops: Crops
    validation: ValidationTrials
    directory: Path
    stages: list[dict]
    accuracy: Callable
    jit_compile: bool = False

    def run(self) -> tuple[SpeakerModel, pd.DataFrame, pd.DataFrame]:
        """
        Train all stages, from the checkpoint where there is one.

        Returns
        -------
        model : SpeakerModel
            As it stands after the last step (the best encoder is in ``model.keras``).
        history : pd.DataFrame
            A row an epoch; row 0 is the untrained encoder.
        steps : pd.DataFrame
            Loss and scale along the steps.

        Raises
        ------
        WorkError
            When the loss or the embeddings are not finite.
        """
        model = SpeakerModel(self.encoder, self.head)
        model(np.zeros((1, SAMPLE_RATE), np.float32))
        progress = read_progress(self._checkpoint)
        if progress.epoch:
            print(f"resumes after epoch {progress.epoch}", flush=True)
            read_variables(self._checkpoint, "model", model.variables)
        else:
            self._judge_untrained(progress)
        first_epoch = 0
        for number, stage in enumerate(self.stages):
            if progress.epoch <= first_epoch + stage["epochs"]:
                self._run_stage(model, progress, number, first_epoch)
            first_epoch += stage["epochs"]
        history, steps = pd.DataFrame(progress.history), pd.DataFrame(progress.steps)
        for table, name in ((history, "log.csv"), (steps, "steps.csv")):
            with replace_on_success(self.directory / name) as temporary:
                table.to_csv(temporary, index=False)
        return model, history, steps

    @property
    def _checkpoint(self) -> Path:
        return self.directory / "checkpoint.npz"

    def _judge_untrained(self, progress: Progress) -> None:
        save(self.encoder, self.directory / "initial.keras")
        progress.history.append({"epoch": 0, "stage": 0, "val_eer": self.validation.eer(self.encoder)})
        print(f"untrained: validation EER {100 * progress.history[0]['val_eer']:.2f} %", flush=True)

    def _run_stage(self, model: SpeakerModel, progress: Progress, number: int, first_epoch: int) -> None:
        stage = self.stages[number]
        crops = dataclasses.replace(self.crops, crop_samples=round(SAMPLE_RATE * stage["crop_seconds"]))
        steps = stage["steps_per_epoch"] or max(1, len(crops.labels) // crops.batch_size)
        freeze_batch_normalization(self.encoder, stage["freeze_batch_normalization"])
        accuracy = keras.metrics.MeanMetricWrapper(self.accuracy, name="accuracy")
        model.compile(make_optimizer(stage), metrics=[accuracy], jit_compile=self.jit_compile)
        model.optimizer.build(model.trainable_variables)
        if progress.epoch > first_epoch:  # resumed in the middle of this stage
            read_variables(self._checkpoint, "optimizer", model.optimizer.variables)
        else:
            progress.stage, progress.stage_best, progress.epochs_without_gain = number, math.inf, 0
        model.fit(
            crops.dataset(progress.step),
            steps_per_epoch=steps,
            initial_epoch=progress.epoch,
            epochs=first_epoch + stage["epochs"],
            callbacks=self._callbacks(progress, stage, every=max(1, steps // 10)),
            verbose=0,
            shuffle=False,  # the batches are in their order already
        )

    def _callbacks(self, progress: Progress, stage: dict, every: int) -> list[keras.callbacks.Callback]:
        epochs = sum(stage["epochs"] for stage in self.stages)
        callbacks = [
            StepLog(progress, every),
            Judge(self.validation, progress, stage, self.directory / "model.keras", epochs),
            Checkpoint(progress, self._checkpoint),
        ]
        if keras.backend.backend() == "tensorflow":  # TensorBoard's writer is TensorFlow's
            callbacks.insert(2, keras.callbacks.TensorBoard(self.directory / "tensorboard", write_graph=False))
        return callbacks
