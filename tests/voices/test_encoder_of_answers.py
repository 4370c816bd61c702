"""What makes the next start of an encoder quick, and what does not."""

import json
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sv_utils.models import exports, pretrained, runtimes
from sv_utils.models.pretrained import catalogue, releases
from sv_utils.voices import activity, compare, encoder


def test_an_encoder_that_litert_cannot_hold_is_tried_once(tmp_path, monkeypatch, capsys):
    file, tried = tmp_path / "ge2e.1.keras", []
    file.write_bytes(b"weights")
    monkeypatch.setattr(pretrained, "locate", lambda _: file)
    monkeypatch.setattr(runtimes, "can_be_fast", lambda: True)
    monkeypatch.setattr(exports, "export", lambda *asked: tried.append(asked) or 1 / 0)
    for _ in range(2):
        encoder.prepare("ge2e")
    assert tried == [("ge2e", "litert")] and capsys.readouterr().err.count("quick") == 1
    file.write_bytes(b"other weights")
    encoder.prepare("ge2e")
    assert len(tried) == 2
    encoder.prepare("somebody's own")
    assert len(tried) == 2
    (note,) = tmp_path.glob("*.json")
    assert json.loads(note.read_text()) == {"sha256": runtimes.sha256(file), "failed": "ZeroDivisionError"}
    for damaged in ("", "[]", "{}"):
        note.write_text(damaged)
        encoder.prepare("ge2e")
    assert len(tried) == 5, "what tells nothing forbids nothing"
    note.unlink()
    monkeypatch.setattr(runtimes, "fast_form", lambda source: source == file)
    encoder.prepare("ge2e")
    monkeypatch.setattr(runtimes, "fast_form", lambda source: None)
    monkeypatch.setattr(runtimes, "can_be_fast", lambda: False)
    encoder.prepare("ge2e")
    assert len(tried) == 5, "there is one, and there can be none"


def test_the_network_of_a_file_is_read_once_and_not_compiled(monkeypatch, tmp_path):
    read = []
    monkeypatch.setattr(pretrained, "load", lambda file: read.append(file) or SimpleNamespace(run_eagerly=False))
    encoder._network.cache_clear()
    networks = [encoder._network(tmp_path / name) for name in "aaba"]
    assert all(network.run_eagerly for network in networks) and networks[0] is networks[1] is not networks[2]
    assert [file.name for file in read] == ["a", "b", "a"], "one is kept"
    encoder._network.cache_clear()


@pytest.fixture
def own(monkeypatch, tmp_path):
    """A model that has a LiteRT file, and what is asked of them."""
    model, asked = tmp_path / "own.keras", []
    model.write_bytes(b"weights")
    monkeypatch.setattr(pretrained, "locate", lambda name: asked.append(name) or Path(name))
    monkeypatch.setattr(runtimes, "fast_form", lambda source: source.with_suffix(".tflite"))
    monkeypatch.setattr(encoder, "_network", asked.append)
    return model, asked


@pytest.mark.parametrize(
    "ends", [ValueError("no audio"), KeyboardInterrupt()], ids=["an error", "Ctrl-C while it waits"]
)
def test_the_quick_form_is_loaded_by_a_second_thread_that_is_waited_for_whatever_happens(monkeypatch, own, ends):
    model, loaded, inside = own[0], [], threading.Event()

    def load(file):
        inside.wait(10)
        if isinstance(ends, KeyboardInterrupt):
            time.sleep(0.02)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.02)
        loaded.append((file.name, threading.current_thread() is threading.main_thread()))

    monkeypatch.setattr(encoder, "_network", load)
    with pytest.raises(type(ends)), encoder.begun(str(model)):
        assert not loaded
        inside.set()
        if isinstance(ends, ValueError):
            raise ends
    assert loaded == [("own.tflite", False)]


def test_only_what_is_at_hand_is_loaded_early_and_what_fails_is_left_to_the_answer(monkeypatch, own, tmp_path):
    (model, asked), told = own, []
    monkeypatch.setattr(threading, "excepthook", told.append)
    with encoder.begun(str(model)):
        pass
    assert asked == [str(model), model.with_suffix(".tflite")]
    asked.clear()
    monkeypatch.setattr(runtimes, "fast_form", lambda source: None)  # of another state of the model
    with encoder.begun(str(model)):
        pass
    assert asked == [str(model)]
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))  # where no published encoder is
    model.unlink()
    for name in (str(model), "campplus", "eres2netv2", "https://a.example/m.keras"):
        with encoder.begun(name):
            pass
    assert asked == [str(model)]
    campplus = releases.converted(catalogue.get("campplus"))
    campplus.parent.mkdir(parents=True)
    campplus.touch()
    monkeypatch.setattr(pretrained, "locate", lambda name: asked.append(name) or 1 / 0)
    with encoder.begun("campplus"):
        pass
    assert asked == [str(model), "campplus"] and not told
    monkeypatch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("no thread is left")))
    start = time.perf_counter()
    with encoder.begun("campplus"):
        pass
    assert len(asked) == 2 and time.perf_counter() - start < 1


@pytest.fixture
def angles(monkeypatch):
    """To the encoder a sample of 10 is a voice at 10 degrees; a recording is heard at 20 degrees to either side."""

    def embeddings(model, waveforms):
        points = np.radians([float(waveform[0]) for waveform in waveforms])
        return np.column_stack([np.cos(points), np.sin(points)]).astype(np.float32)

    monkeypatch.setattr(encoder, "embeddings", embeddings)
    monkeypatch.setattr(activity, "heard", lambda samples: ([(0, len(samples))], [samples - 20, samples + 20]))


def test_an_answer_takes_the_mean_of_what_is_heard(angles):
    first, second = np.full(48_000, 40, np.int16), np.full(48_000, 100, np.int16)
    assert compare.compare(first, second, threshold=0.4)["cosine"] == pytest.approx(0.5)  # 60 degrees apart
    assert compare.compare(first, first, threshold=0.4)["cosine"] == pytest.approx(1.0)
