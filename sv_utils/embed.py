"""Embeddings of audio files: ``python -m sv_utils.embed --model M --root DIR --list FILES.txt --out E.npz``."""

import argparse
from pathlib import Path

import numpy as np

from sv_utils.base.errors import RequestError, command
from sv_utils.base.paths import replace_on_success
from sv_utils.models import embedding, pretrained


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
    embeddings = embedding.embed_files(pretrained.load(arguments.model), arguments.root, names)
    out = Path(arguments.out).with_suffix(".npz")
    with replace_on_success(out) as temporary:
        np.savez(temporary, paths=np.array(names), embeddings=embeddings)
    print(f"{out}: {len(names)} embeddings of {embeddings.shape[1]} dimensions")


if __name__ == "__main__":
    raise SystemExit(main())
