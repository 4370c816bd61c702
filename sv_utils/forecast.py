"""
Say how much disk and time a profile takes: to fetch and prepare its speech, and to train on it.

``python -m sv_utils.forecast PROFILE`` (`make forecast`). Sizes come from what lies here already, from the servers
where they answer, and else from what the corpora state. Speed is measured on a sample: of the profile's own files where
they were fetched, else of the embedded voices. Steps of each phase of each training are timed on this machine's device
with the phase's own shapes.

``--rehearse`` (`make rehearse`) runs every stage of the profile on a miniature of its corpora, and ends with what is
missing for the real run.
"""

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sv_utils import corpora
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError, command
from sv_utils.corpora import Corpus
from sv_utils.pipeline import rehearsal
from sv_utils.pipeline.profile import Profile
from sv_utils.pipeline.stages import LAST, TRAINING, is_training
from sv_utils.speech import acquisition, archives, audio, manifest, miniature, needs, reader

SAMPLE = 60  # files that are decoded to measure
WIDTH, NAME = 256, 140  # of an embedding that nothing states, and of its utterance's name [bytes]
SPEAKERS = 40  # of a rehearsal, where there is no GPU
# What time and memory of a step depend on; of losses that differ in nothing else the first stands for all.
SHAPES = ("architecture", "initial_model", "engine", "n_classes", "batch_size", "crop_seconds", "frozen", "optimizer")
PUBLISHED = "  beside: thin ResNet-34 on two RTX 2080 Ti, 30 to 40 minutes an epoch of VoxCeleb2 (wespeaker's issue 93)"


def forecast(profile: str) -> dict[str, Any]:
    """
    Forecast the first two stages of a profile.

    Returns
    -------
    dict
        ``archives``: a row per archive with ``corpus, archive, bytes, source`` ('here', 'own files', 'server' or
        'stated') and ``to_fetch`` [bytes]. ``stages``: a row per stage with ``stage, peak`` (bytes of the outputs
        folder in use while it runs), ``after`` [bytes], ``seconds`` (NaN: not known). ``speed``: what was measured.
        ``embeddings``: of all models [bytes], where the corpora state how many utterances there are.

    Raises
    ------
    RequestError
        No such profile, or a corpus whose size nothing tells.
    """
    resolved = Profile.read(profile).parameters
    fetching, preparing = resolved["01_download"], resolved["02_prep"]
    chosen = [corpora.get(name) for name in fetching["corpora"]]
    rows = [row for corpus in chosen for row in needs.archives_of(corpus, fetching["source"] or None)]
    speed = measure(chosen, preparing["encoding"])
    found = pd.DataFrame(rows)
    hours = float(found["hours"].sum())
    fetch, here = int(found["to_fetch"].sum()), int(found.loc[found["source"] == "here", "bytes"].sum())
    written = round(hours * 3600 * speed["bytes_per_second_of_speech"])
    kept = 0 if preparing["remove_archives"] else fetch + here
    embedded = embeddings(resolved, chosen)
    cores = min(preparing["workers"], len(os.sched_getaffinity(0)))
    unknown = not speed["download"] and fetch
    stages = [
        ("01_download", fetch + here, fetch + here, np.nan if unknown else fetch / (speed["download"] or 1)),
        ("02_prep", fetch + here + written, kept + written, _decoded_in(found, speed) / cores),
        ("08_evaluate", kept + written + embedded, kept + written + embedded, np.nan),
    ]
    return {
        "archives": found,
        "stages": pd.DataFrame(stages, columns=["stage", "peak", "after", "seconds"]),
        "speed": speed | {"cores": cores, "hours": hours, "on_8_cores": _decoded_in(found, speed) / 8},
        "embeddings": embedded,
    }


def embeddings(resolved: dict[str, dict], chosen: list[Corpus]) -> int:
    """
    Say how much the embeddings take that evaluations keep: of listed utterances, whole and altered, and of the cohort.

    Parameters
    ----------
    resolved : dict
        Parameters by stage.
    chosen : list of Corpus

    Returns
    -------
    int
        Of all models [bytes]; nothing is counted of a corpus that does not state its utterances.
    """
    total, (trained, listed) = 0, _stated(resolved, chosen)
    for stage, asked in ((stage, asked) for stage, asked in resolved.items() if stage.startswith(LAST[0])):
        trainings = (own for name, own in resolved.items() if _model(name) == _model(stage) and "architecture" in own)
        width = next((own["architecture"]["embedding_dim"] for own in trainings), WIDTH)
        altered = 1 + len(asked["cuts"]) + 2 * asked["telephone"]  # the first: by the untrained encoder
        vectors = listed + altered * min(listed, asked["part_utterances"]) + trained * asked["cohort_utterances"]
        total += vectors * (4 * width + NAME)
    return total


def _model(stage: str) -> str:
    """Name of the model that a stage trains or judges."""
    training = TRAINING.fullmatch(stage)
    return training["model"] if training else stage.partition("@")[2]


def _stated(resolved: dict[str, dict], chosen: list[Corpus]) -> tuple[int, int]:
    """Speakers that are trained on and utterances that lists name, as the corpora state them."""
    preparing = resolved["02_prep"]
    dev = [item for corpus in chosen if corpus.name in preparing["train_corpora"] for item in corpus.remotes]
    speakers = sum(item.speakers or 0 for item in dev if item.subset != "test")
    whole = set(miniature.IN_BOTH_HALVES) & set(preparing["lists"])
    judged = [item for corpus in chosen if set(corpus.lists) & set(preparing["lists"]) for item in corpus.remotes]
    return speakers, sum(item.utterances or 0 for item in judged if whole or item.subset == "test")


def measure(chosen: list[Corpus], encoding: str, ask: bool = True) -> dict:
    """
    Measure on this machine, with one core; with `ask`, servers too.

    Returns
    -------
    dict
        ``per_file``: what any file costs, however short [s]; ``decoding``: seconds of speech decoded, measured, hashed
        and encoded in a second beside that; ``sample``: what that was measured on; ``bytes_per_second_of_speech`` of a
        shard; ``download`` [bytes/s], 0 where no server answers.
    """
    verified = next((known for corpus in chosen if (known := needs.readable(corpus))), None)
    with contextlib.redirect_stdout(io.StringIO()):
        source = verified or acquisition.fetch(corpora.get("mini"))
    archive = source[0]
    files = tuple((file["path"], file["mtime_ns"]) for file in archive.files)
    encode, size, lengths, times = manifest.ENCODINGS[encoding][0], 0, [], []
    members = list(itertools.islice(archives.members(archive), SAMPLE))
    for member in [*members[:1], *members]:  # the first once more: it loads what decodes
        started = time.process_time()  # of this process alone, whatever else the machine does
        with contextlib.suppress(audio.AudioError):
            samples = audio.decode(archives.read(files, member), in_worker=True).samples  # as preparation does
            audio.measure(samples)
            hashlib.sha256(samples.tobytes()).hexdigest()
            size += len(encode(samples))
            lengths.append(len(samples) / reader.SAMPLE_RATE)
            times.append(time.process_time() - started)
    if not lengths:
        raise RequestError(f"none of the first files of {archive.name} can be decoded: nothing to measure on.")
    per_file, per_second = fitted(np.array(lengths[1:] or lengths), np.array(times[1:] or times))
    routes = [(corpus, route) for corpus in chosen if ask and not needs.readable(corpus) for route in corpus.routes]
    return {
        "per_file": per_file,
        "decoding": 1 / per_second,
        "sample": archive.name,
        "bytes_per_second_of_speech": size / sum(lengths),
        "download": next((rate for corpus, route in routes if (rate := needs.rate(corpus, route))), 0.0),
    }


def fitted(lengths: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """
    Part the time that files take into what each costs and what each second of them costs, by least squares.

    Parameters
    ----------
    lengths, times : np.ndarray [shape=(n,)]
        Of the files [s].

    Returns
    -------
    per_file, per_second : float
        Neither below 0; all of it is laid to the seconds where the files tell nothing else.

    Examples
    --------
    >>> tuple(round(cost, 6) for cost in fitted(np.array([1.0, 3.0]), np.array([0.002, 0.004])))
    (0.001, 0.001)
    """
    spread = float(np.var(lengths))
    per_second = float(np.mean((lengths - lengths.mean()) * (times - times.mean()))) / spread if spread else 0.0
    per_file = float(times.mean()) - per_second * float(lengths.mean())
    if per_second <= 0 or per_file < 0:
        return 0.0, float(times.sum() / lengths.sum())
    return per_file, per_second


def _decoded_in(found: pd.DataFrame, speed: dict[str, Any]) -> float:
    """Time that one core takes for the files of all archives [s]."""
    return float(found["files"].sum() * speed["per_file"] + found["hours"].sum() * 3600 / speed["decoding"])


def _speakers(word: str | None) -> int | None:
    """How many speakers to rehearse with; None for all."""
    if word is None:
        return None if rehearsal.gpus() else SPEAKERS
    if word != "all" and not (word.isdecimal() and int(word) >= 10):
        raise RequestError(f"--speakers is a number from 10, or all, not {word!r}")
    return None if word == "all" else int(word)


def trainings(profile: str) -> pd.DataFrame:
    """
    Time steps of each phase of each training of a profile.

    Returns
    -------
    pd.DataFrame
        A row a phase: ``stage, phase`` (from 1), ``steps`` (batches) of an epoch, ``epochs``, ``hours`` in all, and
        what `bench.phases.measure` tells. Phases of equal shapes are measured once.

    Raises
    ------
    RequestError
        The utterances of a corpus are not known before it is prepared; or the engine cannot be had here.
    WorkError
        A step cannot be taken, for example for want of memory.
    """
    asked = Profile.read(profile)
    utterances, speakers = _counts(profile, asked.of("02_prep"))
    rows: list[dict] = []
    known: dict[str, dict] = {}
    for stage, parameters in asked.parameters.items():
        for number, phase in enumerate(parameters["phases"] if is_training(stage) else (), 1):
            batch_size = phase["batch_size"] or parameters["batch_size"]
            work = {key: parameters[key] for key in parameters if key not in ("phases", "profile", "stage")}
            work |= {"loss": stage.split("@")[0].partition("_train_")[2], "batch_size": batch_size}
            work["n_classes"] = speakers * max(len(other["speeds"]) for other in parameters["phases"])
            work["phase"] = phase | {"learning_rate": 0.0}
            shapes = {name: (phase | work).get(name) for name in SHAPES}
            text = json.dumps(shapes, sort_keys=True)
            known[text] = told = known.get(text) or _measured(work)
            steps = phase["steps_per_epoch"] or max(1, utterances // batch_size)
            hours = steps * phase["epochs"] * told["seconds"] / 3600
            row = {"stage": stage, "phase": number, "steps": steps, "epochs": phase["epochs"], "hours": hours}
            rows.append(row | {"batch_size": batch_size, "crop_seconds": phase["crop_seconds"]} | told)
    return pd.DataFrame(rows)


def _counts(profile: str, preparing: dict) -> tuple[int, int]:
    """Utterances and speakers to train on: of the prepared store, else as the corpora state them."""
    prepared = paths.stage_dir(profile, "02_prep") / "utterances.csv"
    if prepared.exists():
        split = manifest.read_utterances(prepared).query("split == 'train'")
        return len(split), split["speaker"].nunique()
    archives_of = [corpora.get(name).remotes for name in preparing["train_corpora"]]
    found = [archive for remotes in archives_of for archive in remotes if archive.subset != "test"]
    if not found or not all(archive.utterances and archive.speakers for archive in found):
        raise RequestError(f"how many utterances {profile} trains on is known after 02_prep: run that first")
    speakers = sum(archive.speakers or 0 for archive in found) - preparing["validation_speakers"]
    return sum(archive.utterances or 0 for archive in found), speakers


def _measured(work: dict) -> dict:
    """What `bench.phases` tells of a phase, from a process of its own."""
    line = [sys.executable, "-m", "sv_utils.bench.phases"]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    ran = subprocess.run(line, input=json.dumps(work), capture_output=True, text=True, env=quiet)
    if ran.returncode:
        last = (ran.stderr.strip() or "it was killed, perhaps for want of memory").splitlines()[-1]
        raise WorkError(f"a step of {work['loss']} with batch_size {work['batch_size']} cannot be taken: {last}")
    return json.loads(ran.stdout)


def _print_trainings(found: pd.DataFrame) -> None:
    for row in found.itertuples():
        print(
            f"{row.stage}, phase {row.phase}: {row.epochs} epochs of {row.steps:,} batches of {row.batch_size} x "
            f"{row.crop_seconds:g} s, {row.seconds:.3g} s each: {row.hours:,.1f} h; memory "
            f"{needs.size(row.bytes)} with {row.crops} crops, {needs.size(row.bytes_per_crop)} a crop"
        )
    for device, hours in found.groupby("device")["hours"].sum().items():
        print(f"training: {hours:,.1f} h on {device}, by the time of a step; batches and validation come on top")
        if "GPU" not in str(device).split(" (")[0]:
            print("  a CPU's time and peak memory of the process: measured with few crops and reckoned for a batch")
    print(PUBLISHED)


def _said_of(stage: str, seconds: float, told: dict[str, Any], files: int) -> str:
    if stage.startswith(LAST[0]):
        return f"with {needs.size(told['embeddings'])} of embeddings"
    speed, said = told["speed"], f"takes {_duration(seconds)}"
    if "prep" not in stage:
        return said
    of = f"{speed['hours']:,.0f} h in {files:,} files"
    return f"{said} for {of} on {speed['cores']} cores ({_duration(speed['on_8_cores'])} on 8), or as the disk writes"


def _duration(seconds: float) -> str:
    if np.isnan(seconds):
        return "not known, no server answers"
    return f"{seconds / 3600:,.1f} h" if seconds > 5400 else f"{seconds / 60:,.1f} min"


def rehearse(name: str, speakers: int | None = None) -> bool:
    """
    Run all stages of a profile on a miniature of its corpora, and print how each went and what the real one will take.

    Parameters
    ----------
    name : str
        Of the profile.
    speakers : int, optional
        To train on; default: all that there are officially.

    Returns
    -------
    bool
        Whether all stages passed.

    Raises
    ------
    RequestError
        No such profile.
    """
    asked = Profile.read(name)
    folder, cores = paths.outputs() / ".rehearsal" / name, len(os.sched_getaffinity(0))
    shutil.rmtree(folder, ignore_errors=True)
    _make_miniatures(asked, folder / "corpora", speakers, cores)
    environment = {"SV_MIRROR": str(folder / "corpora"), "SV_REHEARSAL": str(folder / "corpora")}
    lacking = _lend_encoders(asked, folder / "outputs")
    for encoder, why in lacking.items():
        print(f"{encoder}: its network with drawn weights stands in for it: {why}", flush=True)
    project, passed = _Projection(asked, folder / "outputs" / name, cores, list(lacking)), True
    print(f"{'stage':28} {'passed':7} {'seconds':>8} {'memory':>9} {'GPU':>9}  the real one", flush=True)
    for done in rehearsal.run(asked, folder, environment, cores):
        word = {True: "yes", False: "NO", None: "not run"}[done.passed]
        device = needs.size(done.device) if done.device else "-"
        told = done.said or (project.of(done.stage) if done.passed else "")
        print(
            f"{done.stage:28} {word:7} {done.seconds:8.1f} {needs.size(done.host):>9} {device:>9}  {told}", flush=True
        )
        passed &= done.passed is True
    for rest in ("corpora", "outputs/corpora"):
        shutil.rmtree(folder / rest, ignore_errors=True)
    if any(map(is_training, asked.parameters)):
        print("hours of training hold the validation after each of few steps; make forecast times the steps alone")
    print(f"the notebooks of the rehearsal lie in {folder / 'outputs' / name}")
    print(project.missing())
    return passed


def _make_miniatures(asked: Profile, folder: Path, speakers: int | None, cores: int) -> None:
    started, trained = time.perf_counter(), asked.parameters["02_prep"]["train_corpora"]
    for corpus in map(corpora.get, asked.parameters["01_download"]["corpora"]):
        if corpus.bundled is None:
            places = [corpus.data, paths.corpus_dir(corpus.name) / "texts", needs.own_folder(corpus, None)]
            texts = next((place for place in places if place and place.is_dir()), None)
            many = speakers if corpus.name in trained else miniature.TESTED
            miniature.make(corpus, folder, many, workers=cores, texts=texts)
    size, seconds = needs.size(needs.tree_size(folder)), time.perf_counter() - started
    print(f"miniatures of the corpora made, {size}, {seconds:.0f} s", flush=True)


def _lend_encoders(asked: Profile, outputs: Path) -> dict[str, str]:
    """Let a rehearsal use, and fetch for later, the published encoders; which had to be drawn there, and why."""
    real = paths.outputs() / "pretrained"
    real.mkdir(parents=True, exist_ok=True)
    outputs.mkdir(parents=True, exist_ok=True)
    (outputs / "pretrained").symlink_to(real.absolute(), target_is_directory=True)
    begun = (own.get("initial_model") for own in asked.parameters.values())
    if not (named := sorted({*asked.encoders.values(), *filter(None, begun)})):
        return {}
    line = [sys.executable, "-m", "sv_utils.models.pretrained.drawn", str(outputs / "pretrained"), *named]
    ran = subprocess.run(line, capture_output=True, text=True)
    if ran.returncode:
        last = (ran.stderr.strip() or "it was killed, perhaps for want of memory").splitlines()[-1]
        raise WorkError(f"no weights can be drawn for {' and '.join(named)}: {last}")
    return json.loads(ran.stdout)


class _Projection:
    """From what was measured on a miniature to what the real run takes."""

    def __init__(self, asked: Profile, outputs: Path, cores: int, lacking: list[str]):
        self.asked, self.outputs, self.cores, self.lacking = asked, outputs, cores, lacking
        fetching = asked.parameters["01_download"]
        self.corpora = [corpora.get(name) for name in fetching["corpora"]]
        self.preparing = asked.parameters["02_prep"]
        self.rows = []
        for corpus in self.corpora:
            with contextlib.suppress(RequestError):  # a folder of the user's that is not here
                self.rows += needs.archives_of(corpus, fetching["source"] or None, ask=False)
        self.hours = sum(row["hours"] for row in self.rows)
        self.fetch = sum(row["to_fetch"] for row in self.rows)
        self.store = self.hours * 3600 * needs.BYTES_A_SECOND[self.preparing["encoding"]]

    def of(self, stage: str) -> str:
        """What the real stage takes, and what limits it."""
        if stage == "01_download":
            return f"{needs.size(self.fetch)} to fetch, as fast as the network"
        if stage == "02_prep":
            speed = measure(self.corpora, self.preparing["encoding"], ask=False)
            cores = min(self.cores, self.preparing["workers"])
            taken = _duration(_decoded_in(pd.DataFrame(self.rows), speed) / cores)
            return f"{self.hours:,.0f} h of sound, {needs.size(self.store)}: {taken}, by {cores} core(s)"
        if is_training(stage):
            return self._training(stage)
        return self._evaluation(stage) if stage.startswith("08") else ""

    def _training(self, stage: str) -> str:
        own, table = self.asked.parameters[stage], pd.read_csv(self.outputs / stage / "log.csv")
        rehearsed = rehearsal.small(self.asked, self.cores)[stage]
        official = [item for corpus in self.corpora for item in corpus.remotes if item.subset != "test"]
        trained = {item.name for name in self.preparing["train_corpora"] for item in corpora.get(name).remotes}
        utterances = sum(item.utterances or 0 for item in official if item.name in trained)
        seconds, told = 0.0, []
        for number, phase in enumerate(own["phases"], 1):
            rows = table[(table["phase"] == number) & table["seconds"].notna()]
            short, crops = rehearsed["phases"][number - 1], phase["batch_size"] or own["batch_size"]
            step = float(rows["seconds"].iloc[-1]) / short["steps_per_epoch"]
            step *= crops / (short["batch_size"] or own["batch_size"])
            steps = phase["epochs"] * (phase["steps_per_epoch"] or max(1, utterances // crops))
            seconds += step * steps
            told.append(f"{steps:,} steps of {step:.2g} s")
        known = utterances or all(phase["steps_per_epoch"] for phase in own["phases"])
        unknown = "up to " if known else "at least "  # up to: the validation of two steps is in it
        engine = "the GPU" if rehearsal.gpus() else "this CPU"
        engine += f", from batches of {rehearsal.CROPS} crops" if rehearsal.has_few_crops(own) else ""
        return f"{unknown}{_duration(seconds)} ({', then '.join(told)}), by {engine}"

    def _evaluation(self, stage: str) -> str:
        first = json.loads((self.outputs / stage / "metrics.json").read_text())[0]
        rate = first["encoder"]["speech_seconds"] / first["seconds"]
        lists = self.asked.parameters[stage]["lists"]
        judged = [corpus for corpus in self.corpora if set(corpus.lists) & set(lists)]
        whole = bool(set(lists) & set(miniature.IN_BOTH_HALVES))
        found = [item for corpus in judged for item in corpus.remotes if whole or item.subset == "test"]
        hours = sum(item.hours or 0 for item in found)
        taken = _duration(hours * 3600 / rate)
        return f"{hours:,.1f} h of listed speech at {rate:,.0f} s a second: {taken} to embed it once"

    def missing(self) -> str:
        """What the real run needs and this machine has not."""
        found = []
        absent = sorted({row["corpus"] for row in self.rows if row["to_fetch"]})
        keyed = [name for name in absent if any("{key}" in route for route in corpora.get(name).routes)]
        if keyed and not os.environ.get("SV_VOXCELEB_KEY"):
            found.append(f"a key (SV_VOXCELEB_KEY) for {' and '.join(keyed)}, or their archives in SV_MIRROR")
        found += [f"{corpus.name}: {corpus.manual}" for corpus in self.corpora if not self._is_here(corpus)]
        found += [f"the file of {name} (sv download --pretrained {name})" for name in self.lacking]
        folder = next(path for path in (paths.outputs(), *paths.outputs().parents) if path.exists())
        lacking = self.fetch + self.store - shutil.disk_usage(folder).free
        if lacking > 0 and self.fetch:
            found.append(f"{needs.size(lacking)} of disk")
        engines = [own["engine"] for own in self.asked.parameters.values() if "engine" in own]
        wanted = any(engine["jit_compile"] or engine["precision"] != "float32" for engine in engines)
        if wanted and not rehearsal.gpus():
            found.append("a GPU")
        return f"missing for the real run: {'; '.join(found) or 'nothing that could be seen'}."

    def _is_here(self, corpus: Corpus) -> bool:
        return (
            bool(corpus.remotes) or needs.own_folder(corpus, self.asked.parameters["01_download"]["source"]) is not None
        )


@command
def main(argv: list[str] | None = None) -> int:
    """Say what fetching, preparing and training take (exit code 1: the disk is too small), or rehearse it all."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.forecast", description=main.__doc__)
    parser.add_argument("profile", help="name of a file in params/")
    parser.add_argument("--rehearse", action="store_true", help="run all stages on a miniature of the corpora")
    parser.add_argument("--speakers", help=f"of the miniature, a number or all (without a GPU {SPEAKERS}, else all)")
    parser.add_argument("--speech-only", action="store_true", help="leave the training out, which takes minutes")
    options = parser.parse_args(argv)
    if options.rehearse:
        return 0 if rehearse(options.profile, _speakers(options.speakers)) else 1
    told = forecast(options.profile)
    for row in told["archives"].itertuples():
        print(f"{row.corpus:12} {row.archive:24} {needs.size(row.bytes):>10}  {row.source}")
    speed = told["speed"]
    print(
        f"measured on {speed['sample']}: one core takes {1000 * speed['per_file']:.1f} ms a file and decodes "
        f"{speed['decoding']:,.0f} s of speech a second, a shard takes "
        f"{speed['bytes_per_second_of_speech'] / 1000:.1f} kB a second of speech"
        + (f", downloads arrive at {speed['download'] / 1e6:.1f} MB/s" if speed["download"] else "")
    )
    files = int(told["archives"]["files"].sum())
    for row in told["stages"].itertuples():
        print(
            f"{row.stage:12} needs {needs.size(row.peak):>10}, leaves {needs.size(row.after):>10}, "
            + _said_of(row.stage, row.seconds, told, files)
        )
    if not options.speech_only:
        _print_trainings(trainings(options.profile))
    folder = next(path for path in (paths.outputs(), *paths.outputs().parents) if path.exists())
    used = needs.tree_size(paths.outputs() / "corpora")
    used += needs.tree_size(paths.profile_dir(options.profile) / "embeddings")
    free, peak = shutil.disk_usage(folder).free, int(told["stages"]["peak"].max())
    enough = free + used >= peak
    missing = "enough" if enough else f"{needs.size(peak - used - free)} are missing"
    print(f"free in {folder}: {needs.size(free)} ({missing})")
    return 0 if enough else 1


if __name__ == "__main__":
    raise SystemExit(main())
