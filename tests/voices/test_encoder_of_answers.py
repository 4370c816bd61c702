"""What makes the next start of an encoder quick, and what does not."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sv_utils.models import exports, pretrained, runtimes
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
