"""What the archives of a corpus take, and what its servers answer: numbers written out, servers played."""

from types import SimpleNamespace

import pytest
import requests

from sv_utils.base.errors import RequestError
from sv_utils.corpora import Archive, Corpus, Text
from sv_utils.speech import needs
from sv_utils.speech.archives import VerifiedArchive

DEV = Archive("dev.zip", "dev", (("dev_a", None), ("dev_b", None)), utterances=4000, gigabytes=2.0, hours=10)
TEST = Archive("test.zip", "test", (("test.zip", None),), gigabytes=0.5, hours=3)
PUBLIC = Archive("all.tar", "", (("all.tar", None),), gigabytes=1.5)
ROUTES = ("https://keyed.example/{file}?key={key}", "https://free.example/{file}")


def published(**changes) -> Corpus:
    given = {"name": "own", "remotes": (DEV, TEST), "routes": ROUTES, "manual": "ask", "licence": "-", "citation": "-"}
    return Corpus(**given | changes)


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    for name in ("SV_MIRROR", "SV_VOXCELEB_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def asked(monkeypatch):
    """Requests that were made; `answers` by the end of an address: status, headers, content, or an error."""
    made, given, answers = [], [], {}

    class Answer:
        def __init__(self, status, headers, content=b""):
            self.status_code, self.ok, self.headers = (
                status,
                status < 400,
                requests.structures.CaseInsensitiveDict(headers),
            )
            self.content, self.closed = content, False

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.close()

        def close(self):
            self.closed = True

        def iter_content(self, size):
            yield from (self.content[k : k + size] for k in range(0, len(self.content), size))

    def ask(url, method="GET", **options):
        made.append((url, method, options))
        found = next((answer for end, answer in answers.items() if url.endswith(end)), (404, {}))
        if isinstance(found, Exception):
            raise found
        given.append(Answer(*found))
        return given[-1]

    monkeypatch.setattr(needs.fetch, "ask", ask)
    return SimpleNamespace(made=made, given=given, answers=answers)


def rows(corpus, source=None, **options):
    return [tuple(row.values()) for row in needs.archives_of(corpus, source, **options)]


def test_sizes_come_from_servers_that_are_asked_and_else_from_what_is_stated(asked):
    asked.answers |= {"dev_a": (200, {"content-length": "700"}), "dev_b": (200, {"content-length": "60"})}
    stated = ("own", "test.zip", 500_000_000, "stated", 500_000_000, 3, 1440)  # 3 h in pieces of 7.5 s
    assert rows(published()) == [("own", "dev.zip", 760, "server", 760, 10, 4000), stated]
    heads = [(url, method, options) for url, method, options in asked.made]
    assert heads == [
        (f"https://free.example/{file}", "HEAD", {"timeout": 5}) for file in ("dev_a", "dev_b", "test.zip")
    ]
    asked.made.clear()
    plain = ("own", "dev.zip", 2_000_000_000, "stated", 2_000_000_000, 10, 4000)
    assert rows(published(), ask=False) == [plain, stated] and asked.made == []
    for spoilt in (
        (200, {"content-length": "9", "content-type": "text/html"}),
        (200, {}),
        (403, {"content-length": "9"}),
    ):
        asked.answers["dev_b"] = spoilt
        assert rows(published())[0] == plain
    asked.answers["dev_b"] = requests.ConnectionError("gone")
    assert rows(published())[0] == plain
    asked.answers["dev_b"] = RequestError("sends to a stranger")
    assert rows(published())[0] == plain
    bare = published(name="bare", remotes=(Archive("a.zip", "dev", (("a.zip", None),)),))
    with pytest.raises(RequestError, match=r"^nothing tells the size of a\.zip of corpus bare: fetch it first"):
        needs.archives_of(bare, None)


def test_a_personal_key_opens_the_first_address(asked, monkeypatch):
    monkeypatch.setenv("SV_VOXCELEB_KEY", "secret")
    asked.answers |= {
        "dev_a?key=secret": (200, {"content-length": "1"}),
        "dev_b?key=secret": (200, {"content-length": "2"}),
    }
    assert rows(published())[0][2:5] == (3, "server", 3)
    assert {url for url, _, _ in asked.made[:2]} == {f"https://keyed.example/dev_{k}?key=secret" for k in "ab"}


def test_what_lies_here_is_counted_by_its_files_and_not_fetched(tmp_path, monkeypatch):
    folder = tmp_path / "mirror" / "own"
    folder.mkdir(parents=True)
    for name, size in (("dev_a", 300), ("dev_b", 21)):
        (folder / name).write_bytes(bytes(size))
    lying = [
        ("own", "dev.zip", 321, "own files", 0, 10, 4000),
        ("own", "test.zip", 500_000_000, "own files", 0, 3, 1440),
    ]
    assert rows(published(), str(folder)) == lying
    monkeypatch.setenv("SV_MIRROR", str(tmp_path / "mirror"))
    assert rows(published()) == lying
    (folder / "dev_b").unlink()
    assert rows(published())[0][2] == 2_000_000_000  # half of an archive is not its size
    monkeypatch.delenv("SV_MIRROR")
    for place, where in ((tmp_path / "outputs/corpora/own/archives", "here"), (folder, "own files")):
        files = tuple({"path": str(place / name), "bytes": 50, "mtime_ns": 0, "md5": ""} for name in ("dev_a", "dev_b"))
        record = [VerifiedArchive("dev.zip", "dev", "", files)]
        monkeypatch.setattr(needs.acquisition, "recorded", lambda _, record=record: record)
        assert rows(published(), ask=False)[0] == ("own", "dev.zip", 100, where, 0, 10, 4000)


def test_of_two_forms_that_one_is_counted_which_will_be_taken(tmp_path):
    corpus = published(public=(PUBLIC,))
    assert rows(corpus, ask=False) == [("own", "all.tar", 1_500_000_000, "stated", 1_500_000_000, 0.0, 0)]
    (tmp_path / "dev_a").write_bytes(b"")
    assert [row[1] for row in rows(corpus, str(tmp_path))] == ["dev.zip", "test.zip"]


def test_speech_of_ones_own_is_at_most_so_long(tmp_path):
    own = published(remotes=(), routes=())
    with pytest.raises(RequestError, match=r"^corpus own needs a source: ask\.$"):
        needs.archives_of(own, None)
    (tmp_path / "anna" / "day").mkdir(parents=True)
    (tmp_path / "anna" / "day" / "1.wav").write_bytes(bytes(5_760_000))  # 12 minutes of 8 kB a second
    assert rows(own, str(tmp_path)) == [("own", "own", 5_760_000, "own files", 0, 0.2, 96)]


def test_only_what_is_still_here_of_a_record_is_readable(monkeypatch):
    kept, gone = (VerifiedArchive(name, "dev", "", (), removed=name == "b.zip") for name in ("a.zip", "b.zip"))
    monkeypatch.setattr(needs.acquisition, "verified", lambda _: [kept, gone])
    assert needs.readable(published()) == [kept]
    monkeypatch.setattr(needs.acquisition, "verified", lambda _: (_ for _ in ()).throw(RequestError("has changed")))
    assert needs.readable(published()) == []


def test_the_speed_of_a_server_is_that_of_eight_megabytes(asked, monkeypatch):
    times = iter([0, 1, 2, 0, 4, 0, 4, 0, 1, 4, 0, 11, 16])
    monkeypatch.setattr(needs, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    monkeypatch.setattr(needs, "FETCHED", 100_000)
    asked.answers["dev_a"] = (206, {"content-type": "audio"}, bytes(500_000))
    assert needs.rate(published(), ROUTES[1]) == 131_072 / 2  # after two blocks of 65,536 there is enough
    options = {"headers": {"Range": "bytes=0-99999"}, "stream": True, "timeout": 5}
    assert asked.made == [("https://free.example/dev_a", "GET", options)]
    asked.answers["dev_a"] = (200, {"content-type": "text/html; charset=utf-8"}, bytes(500_000))
    assert needs.rate(published(), ROUTES[1]) == 0.0
    asked.answers["dev_a"] = requests.Timeout("slow")
    assert needs.rate(published(), ROUTES[1]) == 0.0
    asked.answers["all.tar"] = (200, {}, bytes(10))
    assert needs.rate(published(public=(PUBLIC,)), ROUTES[1]) == 10 / 4
    asked.answers["all.tar"] = (200, {}, bytes(500_000))
    assert needs.rate(published(public=(PUBLIC,)), ROUTES[1]) == 65_536 / 16  # a slow one is not waited for
    assert all(answer.closed for answer in asked.given)


def test_each_address_is_asked_for_one_byte(asked, monkeypatch):
    asked.answers |= {
        "test.zip?key=mine": (206, {"content-range": "bytes 1-1/4321"}),
        "free.example/test.zip": (200, {"content-length": "77", "content-type": "text/html"}),
        "meta.csv": (200, {"content-length": "12"}),
        "list.txt": RequestError("it sends to a stranger"),
    }
    texts = {"table": Text("meta.csv", 3, url="https://texts.example/meta.csv"), "lists": {"l": Text("list.txt", 1)}}
    texts["lists"]["m"] = Text("list.txt", 1, url="https://texts.example/list.txt")
    corpus = published(remotes=(TEST,), **texts)
    none = {"good": False, "bytes": None, "ranges": False}
    keyed = {"file": "test.zip", "host": "keyed.example", "key": True}
    free = {
        "file": "test.zip",
        "host": "free.example",
        "key": False,
        "answers": "a web page instead of the file",
    } | none
    meta = {"file": "meta.csv", "host": "texts.example", "key": False, "answers": "status 200"}
    listed = {"file": "list.txt", "host": "texts.example", "key": False, "answers": "it sends to a stranger"} | none
    opened = keyed | {"answers": "status 206", "good": True, "bytes": 4321, "ranges": True}
    known = [free, meta | {"good": True, "bytes": 12, "ranges": False}, listed]
    assert needs.routes_of(corpus, "mine") == [opened, *known]
    options = {"headers": {"Range": "bytes=1-1", "Accept-Encoding": "identity"}, "stream": True, "timeout": 10}
    assert all(made[1:] == ("GET", options) for made in asked.made)
    closed = keyed | {"answers": "not asked: it needs a key"} | none
    assert needs.routes_of(corpus) == [closed, *known]
    monkeypatch.setenv("SV_VOXCELEB_KEY", "mine")
    assert needs.routes_of(corpus) == [opened, *known]
    asked.answers["meta.csv"] = requests.ConnectionError("gone")
    assert needs.routes_of(corpus)[2] == meta | {"answers": "no answer (ConnectionError)"} | none
    public = published(public=(PUBLIC,), routes=ROUTES[1:])
    assert [row["file"] for row in needs.routes_of(public)] == ["all.tar"]
