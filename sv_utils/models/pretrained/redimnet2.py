"""ReDimNet2 with the front end and the pooling of the authors' files, which hold a description of their network."""

import functools
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from sv_utils.base.errors import RequestError
from sv_utils.models.backbones.pooling import AttentivePooling
from sv_utils.models.backbones.redimnet import SIZES, Size, Stage, redimnet2
from sv_utils.models.features import HOP, SAMPLE_RATE, WINDOW, InstanceNormalization
from sv_utils.models.pretrained import converter
from sv_utils.models.pretrained.wespeaker import ECAPA, by_channel

FFT_LENGTH = 512
PAD = HOP // 2  # zeros at both ends [samples]
PRE_EMPHASIS = 0.97
FLOOR = 1e-8
CONFIG = "model_config"  # where a file describes its network
# What a description may say beside the sizes, and what is built here.
BUILT: dict[str, tuple] = {
    "causal": ("none",),
    "spec_in_channels": (1,),
    "block_1d_type": ("conv+att",),
    "block_2d_type": ("basic_resnet",),
    "compress_tconvs": (True,),
    "use_freq_pos_enc": (False,),
    "fm_weigthing_type": ("NC",),
    "group_divisor": (1,),
    "hop_length": (HOP,),
    "pooling_func": ("ASTP",),
    "global_context_att": (True,),
    "pad_right_samples": (None,),
    "before_pool_offset": (None,),
    "emb_bn": (False,),
    "return_all_outputs": (False,),
    "feat_type": ("tf", "tf_mel"),
}
FRONT_END: dict[str, Any] = {
    "do_preemph": True,
    "norm_signal": True,
    "n_fft": FFT_LENGTH,
    "win_length": WINDOW,
    "f_min": 20,
}
FRONT_END |= {"f_max": 7600, "eps": FLOOR, "sample_rate": SAMPLE_RATE, "hop_length": HOP}
# What the authors' class takes where a description does not say.
DEFAULTS: dict[str, Any] = {"feat_type": "pt", "block_1d_type": "conv+att", "do_preemph": True, "norm_signal": False}
FIXED = r"spec\..*|backbone\.stage0(_pre)?\.0\.w"  # the front end, and the weight of a single input
assign = functools.partial(converter.assign, tables={"": ECAPA}, ignored=FIXED)


def options(content: Any) -> dict:
    """
    Take what `build` needs out of a published file.

    Raises
    ------
    RequestError
        If it has no description of its network.
    """
    if not isinstance(content, dict) or not isinstance(content.get(CONFIG), dict):
        raise RequestError(f"the checkpoint has no {CONFIG}; it is not the expected model")
    return dict(content[CONFIG])


def described(name: str) -> dict:
    """
    Describe the network of a published file as the file does, for `build`.

    Parameters
    ----------
    name : str
        Of the catalogue; it begins with that of the backbone, as ``redimnet2_b2_lm``.
    """
    size = next(size for backbone, size in SIZES.items() if name.startswith(backbone))
    stages = [[(stage.bins, stage.frames), stage.blocks, stage.expansion, [], stage.part] for stage in size.stages]
    config = {"C": size.width, "out_channels": size.channels_out, "stages_setup": stages, "causal": "none"}
    return config | {"return_2d_output": size.by_bin, "feat_type": "tf", "spec_params": {"norm_signal": True}}


def build(**config: Any) -> keras.Model:
    """
    Build the encoder that a file's ``model_config`` describes, with fresh weights.

    Parameters
    ----------
    **config
        ``F`` (mel bands), ``C``, ``out_channels``, ``stages_setup``, ``return_2d_output``, ``dual_agg``,
        ``agg_gnorm``, ``embed_dim``, and what else the authors' ``ReDimNet2Wrap`` takes.

    Returns
    -------
    keras.Model
        waveform [shape=(batch, samples)] float32 in [-1, 1) at 16 kHz, 800 samples at least → unit vectors
        [shape=(batch, embed_dim)].

    Raises
    ------
    RequestError
        If it describes what is not known here.
    """
    _refuse_unknown(config)
    bands, by_bin = config.get("F", 72), config.get("return_2d_output", False)
    stages = tuple(
        Stage(bins, frames, blocks, growth, part) for (bins, frames), blocks, growth, _, part in config["stages_setup"]
    )
    size = Size(config["C"], config.get("out_channels") or 0, stages, by_bin)
    size = size._replace(normalised=config.get("agg_gnorm", False), split=config.get("dual_agg", False))
    waveform = keras.Input((None,), dtype="float32", name="waveform")
    x = InstanceNormalization(variance=False)(LevelledMel(bands)(waveform))
    x = redimnet2(layers.Reshape((-1, bands, 1))(x), size, cut=True)
    x = AttentivePooling(unbiased=True, name="pooling")(by_channel(x) if by_bin else x)
    return converter.encoder(waveform, x, config.get("embed_dim", 192), "redimnet2", normalised=True)


def _refuse_unknown(config: dict) -> None:
    """Refuse a description of what this network is not; kernels of the blocks are 3 x 3 whatever it says of them."""
    for key, known in BUILT.items():
        value = config.get(key, DEFAULTS.get(key, known[0]))
        if not any(value is choice or value == choice for choice in known):
            raise RequestError(f"{CONFIG}: {key} {value!r} is not known here, only {known[0]!r}; take another file")
    spec = {**DEFAULTS, **config.get("spec_params", {})}
    for key, only in FRONT_END.items():
        if key in spec and spec[key] != only:
            raise RequestError(f"{CONFIG}: the front end's {key} {spec[key]!r} is not known here, only {only!r}")


@keras.saving.register_keras_serializable(package="sv_utils")
class LevelledMel(layers.Layer):
    """
    Natural logarithm of the power in mel bands of a waveform of mean 0 and deviation 1, as ReDimNet2 was trained on.

    Frames of 25 ms of a symmetric Hamming window every 10 ms, 80 zeros at both ends. A bin k of 256 is taken to lie at
    ``8000 k / 255`` Hz; the one at 0 Hz has no weight.

    Parameters
    ----------
    n_mels : int
        Number of bands, 20 to 7600 Hz.

    Call: waveform [shape=(batch, samples)] → [shape=(batch, 1 + (samples - 240) // 160, n_mels)].
    """

    def __init__(self, n_mels: int = 72, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.n_mels = n_mels
        self._window = np.hamming(WINDOW).astype("float32")
        self._filters = mel_filters(n_mels).astype("float32")

    def call(self, waveform: keras.KerasTensor) -> keras.KerasTensor:
        waveform = waveform - ops.mean(waveform, axis=1, keepdims=True)
        deviation = ops.sqrt(ops.mean(ops.square(waveform), axis=1, keepdims=True))
        waveform = waveform / (deviation + FLOOR)
        waveform = waveform - PRE_EMPHASIS * ops.concatenate([waveform[:, 1:2], waveform[:, :-1]], axis=1)
        frames = ops.extract_sequences(ops.pad(waveform, [[0, 0], [PAD, PAD]]), WINDOW, HOP) * self._window
        real, imaginary = ops.rfft(frames, FFT_LENGTH)
        power = ops.clip(ops.square(real) + ops.square(imaginary), FLOOR, 1 / FLOOR)[..., :-1]
        return ops.log(ops.clip(ops.matmul(power, self._filters), FLOOR, 1 / FLOOR) + FLOOR)

    @staticmethod
    def heard(samples: np.ndarray) -> np.ndarray:
        """Every sample: the mean and the deviation are those of all."""
        return samples

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        samples = input_shape[1]
        return (input_shape[0], None if samples is None else 1 + (samples + 2 * PAD - WINDOW) // HOP, self.n_mels)

    def get_config(self) -> dict:
        return {**super().get_config(), "n_mels": self.n_mels}


def mel_filters(n_mels: int) -> np.ndarray:
    """
    Triangles that are straight on the mel scale ``2595 log10(1 + f / 700)``.

    Returns
    -------
    np.ndarray [shape=(256, n_mels)]
    """
    mel = 2595 * np.log10(1 + np.linspace(0, SAMPLE_RATE / 2, FFT_LENGTH // 2)[:, None] / 700)
    low, high = 2595 * np.log10(1 + np.array([20, 7600]) / 700)
    feet = np.linspace(low, high, n_mels + 2)
    rising = (mel - feet[:-2]) / (feet[1:-1] - feet[:-2])
    falling = (feet[2:] - mel) / (feet[2:] - feet[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling))
    filters[0] = 0
    return filters
