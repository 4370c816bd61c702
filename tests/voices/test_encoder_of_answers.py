"""What makes the next start of an encoder quick, and what does not."""

from sv_utils.models import exports, pretrained, runtimes
from sv_utils.voices import encoder


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
