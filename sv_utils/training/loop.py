"""Training in phases: judged on held-out speakers, resumed at the step after a kill."""

import contextlib
import dataclasses
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from sv_utils.base.errors import RequestError, WorkError, nearest
from sv_utils.base.paths import replace_on_success
from sv_utils.models import encoders, pretrained
from sv_utils.training import checkpoints, devices, readers, schedules
from sv_utils.training.batches import Crops
from sv_utils.training.board import Board
from sv_utils.training.devices import Devices
from sv_utils.training.speaker_model import SpeakerModel
from sv_utils.training.validation import Judgement, ValidationTrials, why_not_finite

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
KEPT = ("best", "last")
RENEWAL_BATCHES = 50  # from which averaged weights get their batch-normalisation statistics, and embeddings their mean
SETTLED = 100  # steps from which embeddings may be called collapsed: normalisation has gathered its statistics
UNREAD = 50  # steps after which losses are fetched from the device at the latest, and looked at for NaN


def start(seed: int, engine: dict) -> Devices:
    """
    Seed Python, NumPy and Keras, set up the engine, find the devices, and print what they are.

    To be called before anything is computed.

    Parameters
    ----------
    seed : int
    engine : dict
        See `Training`.

    Raises
    ------
    RequestError
        For a name that does not exist, and for an option that cannot be had here.
    """
    precision = engine["precision"]
    if precision not in PRECISIONS:
        raise RequestError(f"engine.precision: there is no {precision!r}{nearest(precision, PRECISIONS)}")
    if precision == "mixed_bfloat16":
        devices.spare_amx()
    readers.count(engine["readers"])
    where = Devices(engine["distribution"])
    if lacking := devices.lacks(engine):
        raise RequestError(f"engine.{lacking}")
    print(f"device: {devices.described()}" + (f", {where.replicas} together" if where.replicas > 1 else ""), flush=True)
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow" and engine["deterministic"]:
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()
    return where


def make_encoder(initial_model: str, architecture: dict) -> keras.Model:
    """
    Give the encoder to begin with: a trained one for fine-tuning, or one with fresh weights.

    Parameters
    ----------
    initial_model : str
        As in `pretrained.load`: ``campplus``, or the path of a ``.keras`` file; one of `pretrained.BACKBONES`, for an
        encoder that is fresh behind its backbone; ``""`` for a fresh one. It computes in the engine's precision.
    architecture : dict
        Arguments of `encoder.build`, for a fresh one.
    """
    if initial_model in pretrained.BACKBONES:
        return pretrained.begin(initial_model, architecture)
    if initial_model:
        encoder = pretrained.load(initial_model)
        return encoder if keras.config.dtype_policy().name == "float32" else encoders.in_present_policy(encoder)
    return _drawn_on_the_cpu(lambda: encoders.build(**architecture))


def _drawn_on_the_cpu(build: Callable[[], keras.Model]) -> keras.Model:
    """
    Build a model whose first weights are the same with a GPU and without: a GPU rounds what it draws otherwise.

    Draws from Python's generator, of which Keras takes its seeds, as one build does.
    """
    if not devices.described().startswith("GPU"):
        return build()
    state = random.getstate()
    with keras.device("cpu:0"):
        weights = build().get_weights()
    random.setstate(state)
    model = build()
    model.set_weights(weights)
    return model


def steps_per_epoch(crops: Crops, phase: dict) -> int:
    """Steps of an epoch of a phase: as many as it says, or one pass over the utterances."""
    return phase["steps_per_epoch"] or max(1, len(crops.labels) // crops.batch_size)


@dataclasses.dataclass
class Training:
    """
    One training, from its parameters to ``model.keras``.

    Parameters
    ----------
    encoder : keras.Model
        Encoder to begin with; holds what is judged, so that training on several devices leaves a plain model.
    head : keras.Layer
        Speaker head of `sv_utils.losses`.
    crops : list of Crops
        Training batches of each phase.
    validation : ValidationTrials
        Trials of held-out dev speakers.
    directory : Path
        Receives ``model.keras`` (see `outcome`), ``initial.keras`` (untrained), ``log.csv``, ``steps.csv``,
        ``engine.json`` (what computed it), ``tensorboard/`` and ``checkpoint.npz``, from which a killed training goes
        on.
    phases : list of dict
        See `schedules` for ``optimizer, learning_rate, momentum, nesterov, weight_decay, clip_norm, ema, accumulate,
        schedule, final_learning_rate, warmup_epochs, frozen`` and ``margin, margin_start_epoch, margin_end_epoch,
        margin_growth, hard_margin_share`` (only for heads with a margin). ``epochs, steps_per_epoch`` (0: one pass).
        ``plateau_factor, plateau_patience``: under schedule ``plateau`` the learning rate is multiplied by the factor
        after so many epochs in which the validation EER did not fall. ``average_last``: the phase ends with the mean
        of the weights after so many last epochs (0: off). ``batch_size``: see `data.Data.crops`.
    accuracy : callable
        ``(labels, outputs)`` to per-sample accuracy, shown as `accuracy`.
    devices : Devices
        As `start` gives them.
    engine : dict
        ``needs_gpu``: stop where there is none. ``precision``: ``"float32"``, ``"mixed_bfloat16"`` or
        ``"mixed_float16"``; what is judged and saved is float32. ``distribution``: see `devices.Devices`.
        ``deterministic``: the same numbers each time, on one machine. ``jit_compile``: XLA, which pays on a GPU and
        costs on a CPU. ``gradient_checkpointing``: see `recomputing`. ``readers``: see `readers.count`.
        ``checkpoint_steps, validate_steps``: checkpoint and validate every so many steps (0: after each epoch only).
    outcome : dict
        ``keep``: ``"best"`` by validation EER, or ``"last"``, the encoder as the last phase leaves it, as published
        recipes have it; then the best one is ``best.keras``. ``centred``: at the end the mean embedding of training
        crops is taken away within the encoder that is kept (`checkpoints.centre`).
    watch : callable, optional
        Takes the row of an epoch and returns what is to be said of it at once, or ''; see `reports.expected.watch`.
    """

    encoder: keras.Model
    head: keras.Layer
    crops: list[Crops]
    validation: ValidationTrials
    directory: Path
    phases: list[dict]
    accuracy: Callable
    devices: Devices
    engine: dict
    outcome: dict = dataclasses.field(default_factory=lambda: {"keep": "best", "centred": False})
    watch: Callable[[dict], str] | None = None
    _unread: list[dict] = dataclasses.field(default_factory=list, init=False)  # figures of the last steps

    def run(self) -> tuple[SpeakerModel, pd.DataFrame, pd.DataFrame]:
        """
        Train all phases, from the checkpoint where there is one.

        Returns
        -------
        model : SpeakerModel
            As it stands after the last step (the encoder that is kept is in ``model.keras``).
        history : pd.DataFrame
            A row an epoch; row 0 is the untrained encoder. An average of weights has a row of its own, without loss,
            and so has an encoder that is centred.
        steps : pd.DataFrame
            Loss, learning rate, and what the head has of scale and margin, along the steps.

        Raises
        ------
        RequestError
            For phases that do not fit the head or the devices.
        WorkError
            When the loss or the embeddings are not finite, or the embeddings have collapsed. The last good checkpoint
            and the best encoder stay.
        """
        self._check()
        given = SpeakerModel(self.encoder, self.head)
        self._judged = given
        if self.engine["precision"] != "float32":
            self.encoder = encoders.in_float32(self.encoder)
            self._judged = SpeakerModel(self.encoder, self.head)
        checkpointing = self.engine["gradient_checkpointing"]
        self._model = self.devices.build(lambda: given.twin(self.devices.replicas, checkpointing))
        self._board = Board(self.directory / "tensorboard")
        self._progress = progress = checkpoints.read_progress(self._checkpoint)
        self.devices.agree(progress.step)
        self._note_engine()
        if progress.history:
            print(f"resumes after epoch {progress.epoch}, step {progress.step}", flush=True)
            checkpoints.read_variables(self._checkpoint, "model", self._model.variables)
            self._judged.set_weights(self._model.get_weights())
        else:
            self._judge_untrained()
        self._try_largest_phase()
        while progress.phase < len(self.phases):
            self._run_phase()
        self._finish()
        history, steps = pd.DataFrame(progress.history), pd.DataFrame(progress.steps)
        for table, name in ((history, "log.csv"), (steps, "steps.csv")):
            with replace_on_success(self.directory / name) as temporary:
                table.to_csv(temporary, index=False)
        return self._judged, history, steps

    def _check(self) -> None:
        schedules.check(self.phases)
        if self.outcome["keep"] not in KEPT:
            raise RequestError(
                f"outcome.keep: there is no {self.outcome['keep']!r}{nearest(self.outcome['keep'], KEPT)}"
            )
        if self.outcome["centred"]:
            checkpoints.shift(self.encoder)
        for number, phase in enumerate(self.phases):
            if "margin" in phase and not hasattr(self.head, "margin"):
                raise RequestError(f"phases[{number}].margin: this loss has none; remove it")
            scaled = self.engine["precision"] == "mixed_float16"
            if phase["accumulate"] > 1 and self.devices.replicas > 1 and scaled:
                raise RequestError(
                    f"phases[{number}].accumulate: on several devices it needs another precision than mixed_float16; "
                    "take mixed_bfloat16, or set accumulate to 1 and raise batch_size"
                )

    @property
    def _checkpoint(self) -> Path:
        return self.directory / "checkpoint.npz"

    @property
    def _best(self) -> Path:
        """Where the best encoder so far is: apart from what is kept, where that is another one in the end."""
        is_kept = self.outcome["keep"] == "best" and not self.outcome["centred"]
        return self.directory / ("model.keras" if is_kept else "best.keras")

    @property
    def _phase(self) -> dict:
        return self.phases[self._progress.phase]

    @property
    def _steps_per_epoch(self) -> int:
        return steps_per_epoch(self.crops[self._progress.phase], self._phase)

    def _note_engine(self) -> None:
        """Leave for the record what computes this training, and the digest of the weights that it began with."""
        said = self.devices.facts(self.engine) | {"initial_weights": checkpoints.digest(self.encoder)}
        with replace_on_success(self.directory / "engine.json") as temporary:
            temporary.write_text(json.dumps(said, indent=1) + "\n", "utf-8")

    def _judge_untrained(self) -> None:
        checkpoints.save(self.encoder, self.directory / "initial.keras")
        eer = self.validation.eer(self.encoder)
        self._progress.history.append({"epoch": 0, "phase": 0, "val_eer": eer})
        print(f"untrained: validation EER {100 * eer:.2f} %", flush=True)

    def _run_phase(self) -> None:
        progress, phase, per_epoch = self._progress, self._phase, self._steps_per_epoch
        self._compile()
        if progress.phase_step:  # resumed in the middle of this phase
            checkpoints.read_variables(self._checkpoint, "optimizer", self._model.optimizer.variables)
        else:
            progress.plateau, progress.phase_best, progress.epochs_without_gain = 1.0, math.inf, 0
        step, processes = self.devices.step(self._model), readers.count(self.engine["readers"])
        with self.devices.batches(self.crops[progress.phase], progress.step, processes) as batches:
            while progress.phase_step < phase["epochs"] * per_epoch:
                started, batch = time.perf_counter(), next(batches)
                with self._on_the_device(progress.phase):
                    self._note(step(batch, self._settings(), self._ends_step()))
                progress.seconds += time.perf_counter() - started
                self._after_step()
        self._end_phase()

    def _ends_step(self) -> bool:
        """Whether the next batch completes a step of the optimizer."""
        return (self._progress.phase_step + 1) % self._phase["accumulate"] == 0

    @contextlib.contextmanager
    def _on_the_device(self, number: int) -> Iterator[None]:
        """Say which phase is too large for the device, or cannot be compiled for it, and the mend."""
        try:
            yield
        except Exception as error:
            kind = type(error).__name__  # TensorFlow's, which another backend has not
            if kind == "ResourceExhaustedError":
                raise RequestError(
                    f"phases[{number}] does not fit into the memory of {devices.described()}: halve its batch_size "
                    "and double its accumulate, or set engine.gradient_checkpointing"
                ) from None
            if kind in ("InternalError", "UnimplementedError", "InvalidArgumentError") and self.engine["jit_compile"]:
                raise RequestError(
                    f"phases[{number}] fails under XLA on {devices.described()} ({str(error).strip()[:200]} ...): set "
                    "engine.jit_compile to false"
                ) from error
            raise

    def _try_largest_phase(self) -> None:
        """
        Take one step of the phase that needs most memory and forget it, so that it does not fail after days.

        A phase that has begun tries itself.
        """
        progress = self._progress
        sizes = [crops.batch_size * crops.crop_samples for crops in self.crops]
        largest = max(range(progress.phase, len(sizes)), key=sizes.__getitem__, default=progress.phase)
        if largest == progress.phase:
            return
        before, begun = [keras.ops.convert_to_numpy(variable) for variable in self._model.variables], progress.phase
        progress.phase = largest
        self._compile()
        with self.devices.batches(self.crops[largest], 0) as batches, self._on_the_device(largest):
            logs = self.devices.step(self._model)(next(batches), self._settings(), True)
            float(logs["loss"])  # wait for it
        progress.phase = begun
        for variable, value in zip(self._model.variables, before):
            variable.assign(value)

    def _compile(self) -> None:
        """Optimizer and frozen layers of the present phase."""
        for encoder in (self._model.encoder, self.encoder):
            schedules.freeze(encoder, self._phase["frozen"])

        def compiled() -> None:
            scale_loss = self.engine["precision"] == "mixed_float16"
            optimizer = schedules.optimizer(self._phase, scale_loss, self.devices.replicas)
            accuracy = keras.metrics.MeanMetricWrapper(self.accuracy, name="accuracy")
            self._model.compile(optimizer, metrics=[accuracy], jit_compile=self.engine["jit_compile"])
            if self.engine["jit_compile"] and not self._model.jit_compile:
                raise RequestError(
                    "engine.jit_compile: Keras refuses XLA here (deterministic operations are on, or a layer does not "
                    "support it); set it to false"
                )
            optimizer.build(self._model.trainable_variables)

        self.devices.build(compiled)

    def _settings(self) -> dict[str, float]:
        """What the schedules prescribe for the next step."""
        progress, phase, per_epoch = self._progress, self._phase, self._steps_per_epoch
        rate = schedules.learning_rate(phase, progress.phase_step, per_epoch)
        settings = {"learning_rate": rate * progress.plateau}
        of_head = schedules.of_head(phase, progress.phase_step / per_epoch)
        return settings | {name: value for name, value in of_head.items() if hasattr(self._model.head, name)}

    def _note(self, logs: dict[str, Any]) -> None:
        """Count a step; its figures are fetched from the device when they are due, so that it need not wait."""
        progress = self._progress
        self._unread.append(logs)
        progress.step += 1
        progress.phase_step += 1
        if progress.step % max(1, self._steps_per_epoch // 10) == 0:
            row = {"loss": self._read(), "learning_rate": self._rate()}
            for name in ("scale", "margin"):
                if hasattr(self._model.head, name):
                    row[name] = float(keras.ops.convert_to_numpy(getattr(self._model.head, name)))
            progress.steps.append({"step": progress.step, **row})
            self._board.scalars(progress.step, {f"step/{name}": value for name, value in row.items()})
        elif len(self._unread) >= UNREAD:
            self._read()

    def _read(self) -> float:
        """Add up the figures of the steps that were not read yet, look for NaN, and give the last loss."""
        progress, loss = self._progress, math.nan
        first = progress.step - len(self._unread) + 1
        for step, logs in enumerate(self._unread, first):
            figures = {name: float(value) for name, value in logs.items()}
            loss = figures["loss"]
            if not math.isfinite(loss):
                self._diverged(f"the loss is {loss} in step {step}", step)
            for name, value in figures.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
        self._unread.clear()
        return loss

    def _diverged(self, what: str, step: int) -> None:
        losses = [row["loss"] for row in self._progress.steps[-20:] if "loss" in row]
        waveforms, _ = self.crops[self._progress.phase].batch(step - 1)
        raise WorkError(f"{what}: {why_not_finite(waveforms, self._phase, self._rate(), losses)}. {self._kept()}")

    def _after_step(self) -> None:
        """Judge and write what is due after this step."""
        progress = self._progress
        epoch_ends = progress.phase_step % self._steps_per_epoch == 0
        if epoch_ends or self._is_due("validate_steps") or self._is_due("checkpoint_steps"):
            self._read()  # nothing is judged or kept after a step that nobody has looked at
        if epoch_ends:
            self._end_epoch()
        elif self._is_due("validate_steps"):
            judgement = self._judge()
            progress.steps.append({"step": progress.step, "val_eer": judgement.eer})
        if epoch_ends or self._is_due("checkpoint_steps"):
            checkpoints.write(self._checkpoint, self._model, progress)

    def _is_due(self, name: str) -> bool:
        return self.engine[name] > 0 and self._progress.step % self.engine[name] == 0

    def _end_epoch(self) -> None:
        progress, phase = self._progress, self._phase
        started = time.perf_counter()
        judgement = self._judge()
        progress.epoch += 1
        row: dict[str, float] = {"epoch": progress.epoch, "phase": progress.phase + 1}
        row |= {name: total / self._steps_per_epoch for name, total in progress.sums.items()}
        row |= {"val_eer": judgement.eer, "spread": judgement.spread, "learning_rate": self._rate()}
        row["seconds"] = progress.seconds + time.perf_counter() - started
        progress.history.append(row)
        progress.sums, progress.seconds = {}, 0.0
        self._board.scalars(progress.step, {f"epoch/{name}": row[name] for name in ("loss", "accuracy")})
        self._lower_on_plateau(judgement.eer)
        self._print(row)
        if progress.phase_step > (phase["epochs"] - phase["average_last"]) * self._steps_per_epoch:
            checkpoints.write_weights(self._weights(progress.epoch), self._judged)

    def _judge(self) -> Judgement:
        """Judge the encoder as it stands (its moving average, where the phase has one), and keep it if it is best."""
        self._take_weights()
        return self._keep_best(self.validation.judge(self.encoder))

    def _keep_best(self, judgement: Judgement) -> Judgement:
        if not judgement.finite:
            self._diverged(f"the embeddings are not finite after step {self._progress.step}", self._progress.step)
        self._board.judgement(self._progress.step, judgement)
        if self._progress.step >= SETTLED:
            judgement.raise_if_collapsed(self._kept())
        if judgement.eer < self._progress.best_eer:
            self._progress.best_eer = judgement.eer
            checkpoints.save(self.encoder, self._best)
        return judgement

    def _take_weights(self) -> None:
        checkpoints.copy_weights(self._model, self._judged)
        if self._phase["ema"]:
            self._renew_statistics()

    def _renew_statistics(self) -> None:
        crops = self.crops[self._progress.phase]
        count = min(RENEWAL_BATCHES, self._progress.step)  # not more than there were to train on
        checkpoints.renew_statistics(self.encoder, (crops.batch(i)[0] for i in range(count)))

    def _lower_on_plateau(self, eer: float) -> None:
        progress, phase = self._progress, self._phase
        if phase["schedule"] != "plateau":
            return
        if eer < progress.phase_best:
            progress.phase_best, progress.epochs_without_gain = eer, 0
            return
        progress.epochs_without_gain += 1
        if progress.epochs_without_gain >= phase["plateau_patience"]:
            progress.plateau *= phase["plateau_factor"]
            progress.epochs_without_gain = 0

    def _end_phase(self) -> None:
        """Hand over to the next phase, with the averaged weights where the phase asks for that."""
        progress, phase = self._progress, self._phase
        if phase["average_last"]:
            last = range(progress.epoch - min(phase["average_last"], phase["epochs"]), progress.epoch)
            files = [self._weights(epoch + 1) for epoch in last]
            checkpoints.average(files, self._judged)
            self._renew_statistics()
            judgement = self._keep_best(self.validation.judge(self.encoder))
            row = {"epoch": progress.epoch, "phase": progress.phase + 1, "val_eer": judgement.eer}
            progress.history.append(row | {"spread": judgement.spread})
            print(f"mean of the last {len(files)} epochs: validation EER {100 * judgement.eer:.2f} %", flush=True)
        elif phase["ema"]:
            self._take_weights()  # a run that is resumed just here has not judged them yet
        if phase["average_last"] or phase["ema"]:
            self._model.set_weights(self._judged.get_weights())
        progress.phase, progress.phase_step = progress.phase + 1, 0
        checkpoints.write(self._checkpoint, self._model, progress)
        for path in self.directory.glob("weights_*.npz"):
            path.unlink()

    def _finish(self) -> None:
        """Write the encoder that is kept, where that is not the best one as it was judged, and say what it reached."""
        progress, keep, centred = self._progress, self.outcome["keep"], self.outcome["centred"]
        said = {"best": progress.best_eer, "last": progress.history[-1]["val_eer"]}
        if keep == "last" or centred:
            kept = self.encoder if keep == "last" else encoders.load(self._best)
            if centred:
                said[f"{keep} less the mean of training embeddings"] = self._centre(kept)
            checkpoints.save(kept, self.directory / "model.keras")
        eers = ", ".join(f"{name} {100 * eer:.2f} %" for name, eer in said.items())
        print(f"validation EER: {eers}; kept is the {list(said)[-1] if centred else keep}", flush=True)

    def _centre(self, encoder: keras.Model) -> float:
        """Take the mean embedding of training crops away, and give the validation EER without it."""
        crops = dataclasses.replace(self.crops[-1], augmentation=None, speeds=(1.0,))
        count = min(RENEWAL_BATCHES, self._progress.step or RENEWAL_BATCHES)  # a rehearsal of few steps takes as few
        checkpoints.centre(encoder, (crops.batch(i)[0] for i in range(count)))
        judgement = self.validation.judge(encoder)
        row = {"epoch": self._progress.epoch, "phase": len(self.phases), "val_eer": judgement.eer}
        self._progress.history.append(row | {"spread": judgement.spread})
        return judgement.eer

    def _weights(self, epoch: int) -> Path:
        return self.directory / f"weights_{epoch:04d}.npz"

    def _rate(self) -> float:
        return float(keras.ops.convert_to_numpy(self._model.optimizer.learning_rate))

    def _kept(self) -> str:
        found = [path.name for path in (self._best, self._checkpoint) if path.exists()]
        return f"What was good before is kept in {self.directory}: {', '.join(found) or 'nothing yet'}"

    def _print(self, row: dict) -> None:
        print(
            f"epoch {row['epoch']:3d}/{sum(phase['epochs'] for phase in self.phases)}  loss {row['loss']:.4f}  "
            f"accuracy {row['accuracy']:.3f}  validation EER {100 * row['val_eer']:.2f} %  "
            f"learning rate {row['learning_rate']:.2g}  {row['seconds']:.0f} s",
            flush=True,
        )
        said = self.watch(row) if self.watch else ""
        if said:
            print(said, flush=True)
