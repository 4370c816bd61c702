"""What makes the next start of an encoder quick, and what does not."""

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
