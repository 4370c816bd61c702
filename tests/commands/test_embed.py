"""Embedding files from the command line: right order, any format, one sentence for bad input."""

import wave

import numpy as np
import pytest

from sv_utils import embed
from sv_utils.models import encoders
from sv_utils.voices import activity


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    encoders.build(backbone="resnet18", width=4, stem="imagenet", embedding_dim=8, n_mels=20).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    """Three noises of different lengths, one of them stereo at 44.1 kHz, and a file that is no audio."""
    rng = np.random.default_rng(0)
    for name, seconds, rate, channels in [("a", 1.0, 16_000, 1), ("b", 2.0, 44_100, 2), ("c", 1.5, 16_000, 1)]:
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setparams((channels, 2, rate, 0, "NONE", ""))
            file.writeframes(rng.integers(-9000, 9000, round(seconds * rate) * channels).astype("<i2").tobytes())
    (tmp_path / "text.wav").write_text("no audio at all")
    return tmp_path


def run(model, root, names, out="e.npz", more=()):
    (root / "files.txt").write_text("\n".join(names) + "\n")
    arguments = ["--model", model, "--root", root, "--list", root / "files.txt", "--out", root / out, *more]
    return embed.main([str(argument) for argument in arguments])


def test_embeddings_are_unit_vectors_in_the_order_of_the_list(model, root):
    assert run(model, root, ["c.wav", "a.wav", "b.wav", "c.wav"]) == 0
    with np.load(root / "e.npz") as file:
        paths, embeddings = file["paths"], file["embeddings"]
    assert paths.tolist() == ["c.wav", "a.wav", "b.wav", "c.wav"]
    assert embeddings.dtype == np.float32 and embeddings.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(embeddings[0], embeddings[3], atol=1e-5)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 1e-3


def test_with_speech_only_the_speech_of_a_file_is_embedded(model, root, monkeypatch, capsys):
    cuts = {False: 9000, True: 4000}  # of recordings of less than 20,000 samples, and of longer ones
    monkeypatch.setattr(activity, "heard", lambda samples: ([], [samples[: cuts[len(samples) >= 20_000]], samples]))
    assert run(model, root, ["a.wav"]) == 0 and run(model, root, ["a.wav"], "s.npz", ["--speech"]) == 0
    whole, speech = (np.load(root / name)["embeddings"] for name in ("e.npz", "s.npz"))
    assert np.abs(whole - speech).max() > 1e-3
    assert run(model, root, ["a.wav", "c.wav"], "none.npz", ["--speech"]) == 2
    assert "c.wav: 0.25 s of it are speech, too few to embed" in capsys.readouterr().err
    assert run(model, root, ["a.wav", "c.wav"], "some.npz", ["--speech", "--skip-bad"]) == 0
    assert np.load(root / "some.npz")["paths"].tolist() == ["a.wav"]


@pytest.mark.parametrize(
    ("names", "said"),
    [(["a.wav", "absent.wav"], "absent.wav"), (["text.wav"], "text.wav: not audio"), ([], "names no file")],
)
def test_bad_files_are_named_and_nothing_is_written(model, root, capsys, names, said):
    assert run(model, root, names) == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1
    assert not (root / "e.npz").exists()


@pytest.mark.parametrize(("names", "said"), [(["absent.wav"], "1 of 1"), (["text.wav", "absent.wav"], "2 of 2")])
def test_where_no_file_is_good_none_is_skipped(model, root, capsys, names, said):
    assert run(model, root, names, more=["--skip-bad"]) == 2
    assert f"{said} files cannot be embedded" in capsys.readouterr().err
    assert not (root / "e.npz").exists()


def test_missing_list_and_missing_model_are_named(model, root, capsys):
    assert embed.main(["--model", str(model), "--root", str(root), "--list", "absent.txt", "--out", "e.npz"]) == 2
    assert "absent.txt" in capsys.readouterr().err
    assert run("absent.keras", root, ["a.wav"]) == 2
    assert "absent.keras" in capsys.readouterr().err
