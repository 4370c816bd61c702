"""Embeddings that are kept: what is written once is not computed again, and what changed is."""

import os

import numpy as np
import pandas as pd
import pytest

from sv_utils.evaluation import score_files
from sv_utils.models import altered, pieces
from sv_utils.models.pieces import Pieces
from sv_utils.speech.reader import Speech

LENGTHS = [24_000, 16_000, 40_000, 16_100, 24_000]  # of hops: 150, 100, 250, 100, 150


class Counting:
    """Gives (mean sample, number of samples), and counts the utterances that it heard; stops after so many batches."""

    output_shape = (None, 2)

    def __init__(self, batches=99):
        self.count, self.batches = 0, batches

    def predict_on_batch(self, waves):
        if not self.batches:
            raise KeyboardInterrupt
        self.count, self.batches = self.count + len(waves), self.batches - 1
        return np.stack([waves.mean(axis=1), np.full(len(waves), waves.shape[1] / 16_000)], axis=1)


@pytest.fixture
def speech(tmp_path):
    """Five utterances, constant each."""
    np.concatenate([np.full(n, 1000 * (k + 1)) for k, n in enumerate(LENGTHS)]).astype("<i2").tofile(tmp_path / "s.pcm")
    offsets, ids = np.cumsum([0, *LENGTHS[:-1]]), [f"a/{k}" for k in range(5)]
    columns = {"id": ids, "shard": "s.pcm", "offset": offsets, "samples": LENGTHS, "content": list("abcde")}
    return Speech(pd.DataFrame(columns), tmp_path)


@pytest.fixture
def kept(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"weights")
    return Pieces(tmp_path / "model.keras", tmp_path / "kept", "code")


EXPECTED = [[1000 / 32768, 1.5], [2000 / 32768, 1], [3000 / 32768, 2.5], [4000 / 32768, 1], [5000 / 32768, 1.5]]


def test_embeddings_are_those_of_the_order_given_and_can_be_scored(kept, speech):
    vectors, seconds = kept.embed("test", Counting(), speech)
    np.testing.assert_allclose(vectors, EXPECTED, rtol=1e-6)
    assert seconds > 0 and [file.name for file in kept.folder.iterdir()] == ["test.npz"]
    paths, embeddings = score_files.read_embeddings(str(kept.folder / "test.npz"))
    assert paths.tolist() == [f"a/{k}" for k in range(5)] and embeddings.tolist() == vectors.tolist()


def test_so_many_are_embedded_at_once_as_is_asked(kept, speech, monkeypatch):
    seen = []
    embed = lambda model, lengths, read, batch_size: seen.append(batch_size) or np.ones((len(lengths), 2))  # noqa: E731
    monkeypatch.setattr(pieces.embedding, "embed", embed)
    Pieces(kept.encoder, kept.folder, "code", 7).embed("test", Counting(), speech)
    assert seen == [7]


def test_no_shape_is_tuned_for_while_it_embeds_and_all_are_as_before_afterwards(kept, speech, monkeypatch):
    monkeypatch.delenv("TF_CUDNN_USE_AUTOTUNE", raising=False)
    model, seen = Counting(), []
    monkeypatch.setattr(
        speech, "waveform", lambda row: seen.append(os.environ["TF_CUDNN_USE_AUTOTUNE"]) or np.ones(16_000, "i2")
    )
    kept.embed("test", model, speech, np.full(5, 16_000))
    assert seen == ["0"] * 5 and "TF_CUDNN_USE_AUTOTUNE" not in os.environ


def test_what_is_there_is_used_again_and_tells_the_seconds_of_then(kept, speech):
    first, again = kept.embed("test", Counting(), speech), kept.embed("test", Counting(batches=0), speech)
    assert again[0].tolist() == first[0].tolist() and again[1] == first[1]


def test_a_stopped_run_goes_on_where_it_was(kept, speech, monkeypatch):
    monkeypatch.setattr(pieces, "SECONDS_PER_PIECE", 2.1)
    whole = Pieces(kept.encoder, kept.folder / "whole", "code").embed("test", Counting(), speech)[0]
    with pytest.raises(KeyboardInterrupt):
        kept.embed("test", Counting(batches=2), speech)
    assert not (kept.folder / "test.npz").exists()
    done = sorted((kept.folder / "test.pieces").glob("*.npz"))
    assert done
    done[-1].write_bytes(b"damaged")  # as by a machine that lost its power
    rest = Counting()
    assert kept.embed("test", rest, speech)[0].tolist() == whole.tolist()
    assert 0 < rest.count < 5 and not (kept.folder / "test.pieces").exists()


WHATS = ["weights", "code", "batch", "layer", "hours", "id", "shard", "offset", "samples", "content", "lengths", "name"]


@pytest.mark.parametrize("what", WHATS)
def test_what_changed_is_embedded_again(kept, speech, monkeypatch, what):
    kept.embed("test", Counting(), speech)
    fresh, lengths = Counting(), speech.samples.copy()
    if what == "weights":
        kept.encoder.write_bytes(b"others")
    if what == "layer":  # the same without its last: vectors of another length
        fresh.layers = ["the last but one"]
    if what == "hours":  # other pieces have other batches, which round otherwise
        monkeypatch.setattr(pieces, "SECONDS_PER_PIECE", 2.1)
    if what in speech.table:
        speech.table[what] = speech.table[what] * 2
    if what == "lengths":
        lengths[2] -= 16_000
    code, batch_size = "other" if what == "code" else "code", 16 if what == "batch" else 32
    other = Pieces(kept.encoder, kept.folder, code, batch_size)
    other.embed("again" if what == "name" else "test", fresh, speech, lengths)
    assert fresh.count == 5


def test_pieces_of_another_encoder_are_not_gone_on_with(kept, speech, monkeypatch):
    monkeypatch.setattr(pieces, "SECONDS_PER_PIECE", 2.1)
    with pytest.raises(KeyboardInterrupt):
        kept.embed("test", Counting(batches=2), speech)
    kept.encoder.write_bytes(b"others")
    fresh = Counting()
    kept.embed("test", fresh, speech)
    assert fresh.count == 5


def test_altered_speech_is_kept_and_only_what_is_asked_for_is_embedded(kept, speech):
    whole, model = np.ones((5, 2), np.float32), Counting()
    condition, rows = altered.Condition("1 s", 1, lambda wave: wave / 2), np.array([0, 2, 3])
    samples, vectors = altered.embed_altered(model, speech, condition, whole, kept, rows)
    assert model.count == 3
    with np.load(kept.folder / "test, 1 s.npz") as held:
        assert held["paths"].tolist() == ["a/0", "a/2", "a/3"]
    assert samples.tolist() == [16_000, 16_000, 16_000, 16_000, 24_000]
    np.testing.assert_allclose(vectors[rows], [[500 / 32768, 1], [1500 / 32768, 1], [2000 / 32768, 1]], rtol=1e-6)
    assert (vectors[[1, 4]] == 1).all()
    again = altered.embed_altered(Counting(batches=0), speech, condition, whole, kept, rows)[1]
    assert again.tolist() == vectors.tolist()


def test_conditions_of_one_length_are_kept_apart(kept, speech):
    whole, rows = np.ones((5, 2), np.float32), np.array([0])
    alike = altered.Condition("1 s", 1), altered.Condition("telephone, 1 s", 1, lambda wave: wave / 2)
    found = [altered.embed_altered(Counting(), speech, one, whole, kept, rows)[1][0, 0] for one in alike]
    assert found == pytest.approx([1000 / 32768, 500 / 32768])


def test_how_far_it_is_is_told_in_seconds_of_speech(kept, speech, monkeypatch, capsys):
    monkeypatch.setattr("sv_utils.base.progress.EVERY", 0.0)
    monkeypatch.setattr(pieces, "SECONDS_PER_PIECE", 2.1)
    kept.embed("test", Counting(), speech)
    assert "test: embedding 2 of 8 s of speech, " in capsys.readouterr().out
