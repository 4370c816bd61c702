"""What a preparation hands to its shards, its processes and its display; nothing here decodes."""

import contextlib
import errno
import sys
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.corpora import Archive, Utterance
from sv_utils.speech import preparation
from sv_utils.speech.archives import Member, VerifiedArchive
from sv_utils.speech.decoded import AudioError, Decoded


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))


def member(name: str, refusal: str = "") -> Member:
    return Member(name, Utterance(*name.split("/")), 0, 0, 0, 0, 0, refusal)


def archive(name: str, subset: str, *times: int) -> VerifiedArchive:
    files = tuple({"path": f"{name}.{k}", "bytes": 1, "mtime_ns": time, "md5": ""} for k, time in enumerate(times))
    return VerifiedArchive(name, subset, f"md5 of {name}", files)


def naming(name: str) -> Utterance:
    return Utterance(*name.split("/"))


CORPUS = SimpleNamespace(name="own", naming=naming, first_channel=True, remotes=(), public=())
HELD = {"a": ["s1/x/1", "s1/x/2", "s2/y/1"], "b": ["s3/z/1"], "empty": []}


def test_each_shard_is_told_all_that_its_files_need(monkeypatch):
    asked = []

    def members(one, named):
        asked.append((one.name, named))
        return iter([member(name) for name in HELD[one.name]])

    monkeypatch.setattr(preparation.archives, "members", members)
    two = [archive("a", "dev", 5, 6), archive("b", "test", 7)]
    jobs = list(preparation._jobs(CORPUS, two, 60.0, 2, Path("store"), "flac"))
    assert asked == [("a", naming), ("b", naming)]
    first, last = (("a.0", 5), ("a.1", 6)), (("b.0", 7),)
    assert [(job.files, [one.name for one in job.members], job.subset, job.target) for job in jobs] == [
        (first, ["s1/x/1", "s1/x/2"], "dev", Path("store/shard-00000.flac")),
        (first, ["s2/y/1"], "dev", Path("store/shard-00001.flac")),
        (last, ["s3/z/1"], "test", Path("store/shard-00002.flac")),
    ]
    assert {(job.corpus, job.max_seconds, job.first_channel) for job in jobs} == {("own", 60.0, True)}
    with pytest.raises(RequestError, match=r"^empty holds no audio file: it is not the archive of corpus own\.$"):
        list(preparation._jobs(CORPUS, [two[0], archive("empty", "dev", 1)], 60.0, 2, Path("store"), "pcm"))


def test_a_row_of_the_manifest_written_out(monkeypatch):
    asked = []
    sounds = np.int16([32767, 16384, -8192, *[0, 16384, -8192] * 639])
    sound = Decoded(sounds, 44_100, 2, "own", ("a little short", "tags in the midst"))
    monkeypatch.setattr(preparation.archives, "read", lambda *given: asked.append(given) or b"file")
    monkeypatch.setattr(preparation.audio, "decode", lambda *given, **named: asked.append((*given, named)) or sound)
    job = preparation._Job("own", (("p", 1),), (), "dev", 60.0, True, Path("shard-00000.pcm"))
    row, samples = preparation._examine(job, member("s1/x/1"))
    assert asked == [(job.files, member("s1/x/1")), (b"file", 16_000, 60.0, True, {"in_worker": True})]
    known = {"corpus": "own", "id": "s1/x/1", "speaker": "s1", "session": "x", "subset": "dev"}
    places = {"shard": "", "offset": 0, "bytes": 0}
    digest = "3b9c358f36f0a31b6ad3e14f309c7cf198ac9246e8316f9ce543d5b19ac02b80"  # of b"file"
    measured = {"samples": 1920, "rate": 44_100, "channels": 2, "peak": 0.999969, "clipped": 0.000521, "silent": 0.0}
    said = {"error": "", "content": "774275a2bc363440", "warning": "a little short; tags in the midst"}
    assert row == known | places | {"source_sha256": digest} | measured | said
    assert samples is sounds and list(row) == preparation.COLUMNS
    nothing = dict.fromkeys(("samples", "rate", "channels", "peak", "clipped", "silent"), 0)
    nothing |= places | {"content": "", "warning": ""}

    def refuse(*_, **__):
        raise AudioError("cut off")

    monkeypatch.setattr(preparation.audio, "decode", refuse)
    assert preparation._examine(job, member("s1/x/1")) == (
        known | nothing | {"source_sha256": digest, "error": "cut off"},
        None,
    )
    unknown = known | {"speaker": "", "session": ""} | nothing
    assert preparation._examine(job, member("s1/x/1", "encrypted")) == (
        unknown | {"source_sha256": "", "error": "encrypted"},
        None,
    )


@pytest.fixture
def played(monkeypatch):
    """A preparation whose pool, display and lock take note; its jobs are the shards that `HELD` makes."""
    noted = SimpleNamespace(pools=[], shown=[], locks=[], wrote=[], added=[], failed=[])

    class Pool:
        def __init__(self, **settings):
            noted.pools.append(settings)

        def __call__(self, tasks):
            return (function(*given) for function, given, _ in tasks)

    class Shown:
        def __init__(self, *given):
            noted.shown.append(given)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            noted.shown.append("closed")

        def add(self, amount, done_before=False):
            noted.added.append((amount, done_before))

    def write(job):
        noted.wrote.append(job.target.name)
        preparation._write_rows(job.target.with_suffix(".csv"), [{"id": one.name} for one in job.members])
        return len(job.members), [(one.name, "no sound") for one in job.members if one.name in noted.failed]

    monkeypatch.setattr(preparation.joblib, "Parallel", Pool)
    monkeypatch.setattr(preparation, "Progress", Shown)
    monkeypatch.setattr(
        preparation.locks, "alone", lambda path: noted.locks.append(path) or contextlib.nullcontext(path)
    )
    monkeypatch.setattr(preparation, "_write_shard", write)
    monkeypatch.setattr(preparation.archives, "members", lambda one, _: iter(map(member, HELD[one.name])))
    return noted


def test_a_preparation_uses_its_workers_shows_its_files_and_goes_on_where_it_was(played):
    counted = (Archive("a", "dev", (), utterances=3), Archive("other", "test", (), utterances=50))
    corpus = SimpleNamespace(**vars(CORPUS) | {"remotes": counted, "public": (Archive("b", "", (), utterances=4),)})
    two = [archive("a", "dev", 5), archive("b", "test", 7)]
    asked = {"workers": 3, "utterances_per_shard": 2}
    played.failed = ["s2/y/1"]
    with pytest.raises(RequestError, match=r"^s2/y/1, which a trial list names, cannot be decoded \(no sound; 1 such"):
        preparation.prepare(corpus, two, **asked, required=["s2/y/1"])
    assert played.wrote == ["shard-00000.pcm", "shard-00001.pcm"]  # and no more: it is of no use
    (folder,) = paths.corpus_dir("own").iterdir()
    (folder / ".shard-00002.pcm-x").write_bytes(b"")
    assert preparation.prepare(corpus, two, **asked) == folder
    assert played.wrote[2:] == ["shard-00002.pcm"] and not list(folder.glob(".shard-*"))
    assert played.pools[1] == {"n_jobs": 3, "return_as": "generator_unordered"}
    assert played.shown[2:] == [("own: decoding", "files", 7), "closed"]
    assert played.added == [(2, False), (1, False), (2, True), (1, True), (1, False)]
    assert played.locks == [folder / ".lock"] * 2
    rows = (folder / "manifest.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows] == ["id", "s1/x/1", "s1/x/2", "s2/y/1", "s3/z/1"]
    assert preparation.prepare(corpus, two, **asked) == folder and len(played.wrote) == 3
    assert preparation.prepare(corpus, two, workers=3) != folder and played.wrote[3:] == [
        "shard-00000.pcm",
        "shard-00001.pcm",
    ]


def test_an_archive_that_cannot_be_listed_ends_a_preparation_and_keeps_its_shards(played):
    two = [archive("a", "dev", 5), archive("empty", "test", 7)]
    with pytest.raises(RequestError, match=r"^empty holds no audio file"):
        preparation.prepare(CORPUS, two)
    (folder,) = paths.corpus_dir("own").iterdir()
    assert [path.name for path in folder.iterdir()] == ["shard-00000.csv"]
    with pytest.raises(
        RequestError, match=r"^b of corpus own was removed after an earlier preparation: remove .*own/arch"
    ):
        removed = VerifiedArchive("b", "dev", "", (), removed=True)
        preparation.prepare(CORPUS, [two[0], removed])


def test_listing_that_fails_raises_nothing_in_the_threads_that_ask_for_it():
    def jobs():
        yield "job"
        raise RequestError("no archive")

    work = preparation._Work(frozenset())
    assert list(work.caught(jobs())) == ["job"]
    with pytest.raises(RequestError, match=r"^no archive$"):
        work.refuse()


def test_processes_are_those_of_this_machine_or_of_a_scheduler(monkeypatch):
    noted, failing = [], {"tcp://gone:1": TimeoutError(), "no address": ValueError()}

    class Client:
        def __init__(self, *given, **named):
            noted.append((given, named))
            if given[0] in failing:
                raise failing[given[0]]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            noted.append("closed")

    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=Client))
    monkeypatch.setattr(preparation.joblib, "Parallel", lambda **settings: settings)
    monkeypatch.setattr(
        preparation.joblib, "parallel_config", lambda **named: noted.append(named) or contextlib.nullcontext()
    )
    with preparation._pool(4, "") as pool:
        assert pool == {"n_jobs": 4, "return_as": "generator_unordered"} and noted == []
    with preparation._pool(4, "tcp://a:1") as pool:
        assert pool == {"n_jobs": -1, "return_as": "generator_unordered"}
    assert noted == [(("tcp://a:1",), {"timeout": 30}), {"backend": "dask"}, "closed"]
    for address, error in failing.items():
        said = rf"^no Dask scheduler answers at {address} \({type(error).__name__}\)\.$"
        with pytest.raises(RequestError, match=said), preparation._pool(4, address):
            pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RequestError, match=r"^scheduler wants the package distributed"), preparation._pool(4, "a"):
        pass


def test_what_ends_a_preparation_is_told_in_a_sentence():
    died = joblib.externals.loky.process_executor.TerminatedWorkerError("x")
    for error, said in (
        (OSError(errno.ENOSPC, ""), "no space left for store: free some and run again, finished shards stay."),
        (OSError(errno.EFBIG, ""), "no space left for store: run again, finished shards stay."),
        (
            died,
            "a worker died while writing store (out of memory?): run again with fewer workers, finished shards stay.",
        ),
    ):
        with pytest.raises(WorkError) as caught, preparation._told(Path("store")):
            raise error
        assert str(caught.value) == said
    with pytest.raises(OSError, match="broken"), preparation._told(Path("store")):
        raise OSError(errno.EIO, "broken")


def test_the_key_of_a_store_follows_the_decoder_and_the_measures(monkeypatch):
    def key():
        return preparation.store_key(CORPUS, [archive("a", "dev", 5)], 60.0, 2, "pcm")

    keys = [key()]
    monkeypatch.setattr(preparation.audio, "DECODER", preparation.audio.DECODER + 1)
    keys.append(key())
    monkeypatch.setattr(preparation.audio, "measure", lambda samples: {})
    keys.append(key())
    assert len(set(keys)) == 3 and key() == keys[-1]
