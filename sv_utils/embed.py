"""Embeddings of audio files: ``python -m sv_utils.embed --model M --root DIR --list FILES.txt --out E.npz``."""

import argparse
from pathlib import Path

import numpy as np

from . import audio, embedding, pretrained
from .errors import RequestError, command
from .paths import replace_on_success

BLOCK = 512  # files decoded at once: bounds the memory, and lets equal lengths share a batch


def read_list(path: str | Path) -> list[str]:
    """
    Read file names, one a line; empty lines are passed over.

    Raises
    ------
    RequestError
        When the list is missing or empty.
    """
    try:
        names = Path(path).read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            f"the list {path} cannot be read ({error}); give a text file with one file name a line"
        ) from None
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise RequestError(f"the list {path} names no file; give a text file with one file name a line")
    return names


def embed_files(model, root: str | Path, names: list[str]) -> np.ndarray:
    """
    Embed audio files of any format.

    Parameters
    ----------
    model : keras.Model
        Encoder of `pretrained.load`.
    root : path
        Folder that the names start from.
    names : list of str

    Returns
    -------
    np.ndarray [shape=(files, dimension)], float32
        Unit vectors in the order of `names`.

    Raises
    ------
    RequestError
        When a file is missing or cannot be decoded; it is named.
    """
    blocks = (names[i : i + BLOCK] for i in range(0, len(names), BLOCK))
    return np.concatenate([_embed_block(model, Path(root), block) for block in blocks])


def _embed_block(model, root: Path, names: list[str]) -> np.ndarray:
    waveforms = []
    for name in names:
        try:
            waveforms.append(audio.decode(root / name).samples)
        except (OSError, audio.AudioError) as error:
            raise RequestError(f"{root / name}: {error}; mend the file or take it off the list") from None
    return embedding.embed(model, [len(w) for w in waveforms], waveforms.__getitem__)


@command
def main(argv: list[str] | None = None) -> None:
    """Write the embeddings of the listed audio files: arrays `paths` (str) and `embeddings` (float32, n x d)."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.embed", description=main.__doc__)
    parser.add_argument("--model", required=True, help="encoder: campplus, ge2e, or a .keras, .onnx or .tflite file")
    parser.add_argument("--root", required=True, help="folder that the listed names start from")
    parser.add_argument("--list", required=True, help="text file, one audio file name a line")
    parser.add_argument("--out", required=True, help=".npz file to write")
    arguments = parser.parse_args(argv)
    names = read_list(arguments.list)
    embeddings = embed_files(pretrained.load(arguments.model), arguments.root, names)
    out = Path(arguments.out).with_suffix(".npz")
    with replace_on_success(out) as temporary:
        np.savez(temporary, paths=np.array(names), embeddings=embeddings)
    print(f"{out}: {len(names)} embeddings of {embeddings.shape[1]} dimensions")


if __name__ == "__main__":
    raise SystemExit(main())
