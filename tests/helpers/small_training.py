"""Parts of a training that tests share: parameters of its phases, six synthetic speakers, a small encoder."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd

from sv_utils.evaluation import trials
from sv_utils.models import encoders, features
from sv_utils.models.backbones import pooling
from sv_utils.training import augment

PHASE = {
    "epochs": 2,
    "steps_per_epoch": 3,
    "batch_size": 0,
    "crop_seconds": 0.5,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 1e-3,
    "clip_norm": 0.0,
    "schedule": "plateau",
    "final_learning_rate": 0.0,
    "warmup_epochs": 0.0,
    "plateau_factor": 0.5,
    "plateau_patience": 1,
    "margin": 0.2,
    "margin_start_epoch": 0,
    "margin_end_epoch": 1,
    "margin_growth": "exponential",
    "frozen": "none",
    "ema": 0.0,
    "average_last": 0,
    "accumulate": 1,
    "speeds": [1.0, 0.9],
    "augmentation": augment.OFF | {"noise": 0.5, "telephone": 0.5},
}
PHASES = [
    PHASE | {"average_last": 2},
    PHASE
    | {"epochs": 1, "optimizer": "adamw", "learning_rate": 1e-3, "schedule": "cosine", "warmup_epochs": 1.0}
    | {"frozen": "batch_normalization", "ema": 0.5, "margin_end_epoch": 0, "augmentation": augment.OFF},
]
ENGINE = {
    "needs_gpu": False,
    "precision": "float32",
    "distribution": "one",
    "deterministic": True,
    "jit_compile": False,
    "gradient_checkpointing": False,
    "readers": 0,
    "checkpoint_steps": 1,
    "validate_steps": 2,
}
SPEAKERS, UTTERANCES, SAMPLES = 6, 4, 12_000


def prepared(root: Path) -> Path:
    """What 02_prep leaves, for six synthetic speakers with a pitch each: four to train on, two to validate on."""
    rng, time = np.random.default_rng(0), np.arange(SAMPLES) / 16_000
    waves, rows = [], []
    for i in range(SPEAKERS * UTTERANCES):
        pitch = 100 + 40 * (i // UTTERANCES)
        tone = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in range(1, 9))
        waves.append((3000 * (tone + 0.2 * rng.normal(size=SAMPLES))).clip(-32768, 32767).astype("<i2"))
        speaker = f"s{i // UTTERANCES}"
        split = "train" if i // UTTERANCES < 4 else "validation"
        rows.append(
            {"corpus": "tones", "id": f"{speaker}/v{i % 2}/{i}.wav", "speaker": speaker, "session": f"v{i % 2}"}
        )
        rows[-1] |= {
            "subset": "dev",
            "shard": "shard-00000.pcm",
            "offset": i * SAMPLES,
            "samples": SAMPLES,
            "split": split,
        }
    np.concatenate(waves).tofile(root / "shard-00000.pcm")
    filler = dict.fromkeys(("rate", "channels", "peak", "clipped", "silent"), 0)
    table = pd.DataFrame(rows).assign(source_sha256="", error="", content="", **filler)
    table.to_csv(root / "utterances.csv", index=False)
    ids = table.loc[table["split"] == "validation", "id"]
    trials.write(root / "validation_trials.txt", trials.make(ids, 8, 8, seed=0))
    return root


def small_encoder(channels=8, masks=True):
    """The parts of an encoder that a training has to do with: masks that are drawn, normalisations, few weights."""
    x = waveform = keras.Input((None,), name="waveform")
    for layer in (features.LogMel(20), features.InstanceNormalization(variance=False)):
        x = layer(x)
    x = keras.layers.Reshape((-1, 20, 1))(features.SpecAugment(5, 3)(x) if masks else x)
    for _ in range(2):
        x = keras.layers.Conv2D(channels, 3, strides=2, use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.5)(x))
    x = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Dense(8)(pooling.StatisticsPooling()(x)))
    return keras.Model(waveform, encoders.UnitVectors(dtype="float32")(x), name="encoder")
