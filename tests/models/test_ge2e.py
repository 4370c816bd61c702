"""The LSTM encoder of Resemblyzer: the same vectors as its formulas written out in NumPy on librosa's features."""

import keras
import librosa
import numpy as np
import pytest

from sv_utils.base.errors import RequestError, WorkError
from sv_utils.models import exports, pretrained
from sv_utils.models.pretrained import ge2e, torch_file
from sv_utils.speech import audio


@pytest.fixture(scope="module")
def state():
    """Arrays of a checkpoint, drawn so that the layers do not saturate."""
    rng, found = np.random.default_rng(0), {}
    for i, width in enumerate((40, 256, 256)):
        found[f"lstm.weight_ih_l{i}"] = rng.normal(0, 0.08, (1024, width))
        found[f"lstm.weight_hh_l{i}"] = rng.normal(0, 0.08, (1024, 256))
        found[f"lstm.bias_ih_l{i}"], found[f"lstm.bias_hh_l{i}"] = rng.normal(0, 0.1, (2, 1024))
    found["linear.weight"], found["linear.bias"] = rng.normal(0, 0.1, (256, 256)), rng.normal(0, 0.1, 256)
    return {name: array.astype("float32") for name, array in found.items()}


@pytest.fixture(scope="module")
def model(state):
    model = ge2e.build()
    ge2e.assign(model, state)
    return model


def speech(samples):
    noise = np.random.default_rng(samples).normal(0, 0.01, samples)
    return (noise * (1.2 + np.sin(np.arange(samples) / 900))).astype("float32")


def written_out(wave, state):
    """As Resemblyzer's `embed_utterance`, with its loudness and without its silence detector."""
    wave = wave * max(1, 10 ** (-30 / 20) / np.sqrt(np.mean(wave**2)))
    starts = list(range(0, max(1, len(wave) // 160 + 1 - 160 + 77 + 1), 77))
    if (len(wave) - starts[-1] * 160) / 25_600 < 0.75 and len(starts) > 1:
        starts.pop()
    padded = np.pad(wave, (0, max(0, (starts[-1] + 160) * 160 - len(wave))))
    mels = librosa.feature.melspectrogram(y=padded, sr=16_000, n_fft=400, hop_length=160, n_mels=40).T
    voices = []
    for start in starts:
        frames = mels[start : start + 160]
        for layer in range(3):
            frames = lstm(
                frames,
                *(state[f"lstm.{kind}_l{layer}"] for kind in ("weight_ih", "weight_hh")),
                *(state[f"lstm.{kind}_l{layer}"] for kind in ("bias_ih", "bias_hh")),
            )
        voice = np.maximum(state["linear.weight"] @ frames[-1] + state["linear.bias"], 0)
        voices.append(voice / np.linalg.norm(voice))
    return np.mean(voices, axis=0) / np.linalg.norm(np.mean(voices, axis=0))


def lstm(frames, inward, across, bias, other_bias):
    hidden, cell, states = np.zeros(256), np.zeros(256), []
    frames, inward, across = (array.astype(np.float64) for array in (frames, inward, across))
    for frame in frames:
        gates = np.split(inward @ frame + across @ hidden + bias + other_bias, 4)
        enter, forget, leave = (1 / (1 + np.exp(-gates[i])) for i in (0, 1, 3))
        cell = forget * cell + enter * np.tanh(gates[2])
        hidden = leave * np.tanh(cell)
        states.append(hidden)
    return np.array(states)


# One window; exactly one; a last window with less and with more than three quarters of speech; several.
@pytest.mark.parametrize("samples", [8_000, 25_600, 31_000, 45_000, 64_321])
def test_vectors_are_those_of_the_formulas(model, state, samples):
    wave = speech(samples)
    np.testing.assert_allclose(model.predict_on_batch(wave[None])[0], written_out(wave, state), atol=2e-5)


def test_loud_speech_stays_as_it_is(model, state):
    """At -25 dBFS, above the -30 dBFS that quieter speech is raised to: it may not be lowered."""
    wave = (4 * speech(25_600)).astype("float32")
    assert 10 * np.log10(np.mean(wave**2)) == pytest.approx(-24.7, abs=0.1)
    found = model.predict_on_batch(wave[None])[0]
    np.testing.assert_allclose(found, written_out(wave, state), atol=2e-5)
    quieter = written_out(0.54 * wave, state)  # at -30 dBFS
    assert np.abs(found - quieter).max() > 2e-3, "the loudness of loud speech tells"


@pytest.fixture(scope="module")
def original():
    """The checkpoint that Resemblyzer publishes, by its checksum; converted anew in each run."""
    package = pretrained.PUBLISHED["ge2e"]
    try:
        return torch_file.read(pretrained._weights(package), package.part)
    except WorkError as error:
        pytest.skip(f"no weights: {error}")


def test_the_published_weights_stand_where_the_formulas_want_them(original):
    model = ge2e.build()
    ge2e.assign(model, original)
    assert model.count_params() == 1_423_616 - 3 * 1024  # of the two biases of each gate PyTorch keeps both
    same, again, other = (voice.astype("float32") / 32768 for voice in published_voices())
    found = [model.predict_on_batch(wave[None])[0] for wave in (same, again, other)]
    np.testing.assert_allclose(found[0], written_out(same, original), atol=2e-5)
    assert found[0] @ found[1] > 0.75 > found[0] @ found[2]


def published_voices():
    """Two recordings of one voice and one of another, of the embedded corpus."""
    names = ("mv041/carlo/00013.wav", "mv041/carlo/00014.wav", "mv058/tuxpaint-nl/00014.wav")
    with exports.test_voices() as archive:
        return [audio.decode(archive.read(f"wav/{name}")).samples for name in names]


def test_an_utterance_does_not_depend_on_its_neighbours(model):
    waves = np.stack([speech(9_000), 3 * speech(9_001)[:9_000]])
    np.testing.assert_allclose(model.predict_on_batch(waves)[1], model.predict_on_batch(waves[1:])[0], atol=1e-6)


def test_mel_filters_are_librosas():
    wanted = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=40).T
    np.testing.assert_allclose(ge2e.mel_filters(), wanted, atol=1e-8)


def test_another_checkpoint_is_refused(state):
    with pytest.raises(RequestError, match="not the expected model"):
        ge2e.assign(keras.models.clone_model(ge2e.build()), {**state, "linear.bias": np.zeros(3, "float32")})
    with pytest.raises(RequestError, match=r"lstm\.bias_ih_l0"):
        ge2e.assign(ge2e.build(), {})
