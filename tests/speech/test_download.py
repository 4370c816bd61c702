import contextlib
import dataclasses
import errno
import gzip
import io
import json
import os
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from faulty_server import serve
from hypothesis import given
from hypothesis import strategies as st
from release import make, md5

from sv_utils import download
from sv_utils.base import fetch as network
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.corpora import Archive, Corpus, Text
from sv_utils.speech import acquisition, needs
from sv_utils.speech.acquisition import fetch
from sv_utils.speech.archives import VerifiedArchive, open_parts


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("SV_MIRROR", raising=False)
    monkeypatch.delenv("SV_VOXCELEB_KEY", raising=False)
    monkeypatch.setattr(network, "PAUSE", 0.0)


@pytest.fixture
def release(tmp_path):
    """A corpus that is published, but not part of the repository."""
    corpus = make(tmp_path / "published")
    return dataclasses.replace(corpus, data=None, bundled=None)


@pytest.fixture
def server(tmp_path):
    with serve(tmp_path / "published") as server:
        yield server


def test_bundled_archives_are_read_in_place(tmp_path, capsys):
    corpus = make(tmp_path / "bundle")
    dev, test = fetch(corpus)
    assert [file["path"] for file in test.files] == [str(tmp_path / "bundle" / "tiny_test_wav.zip")]
    assert (dev.subset, len(dev.files), dev.md5) == ("dev", 3, corpus.remotes[0].md5)
    assert dev.bytes == sum((tmp_path / "bundle" / f"tiny_dev_aac_parta{c}").stat().st_size for c in "abc")
    assert not (paths.corpus_dir("tiny") / "archives").exists()
    assert capsys.readouterr().out.count("verified") == 2


def test_mirror_folder_is_read_in_place(tmp_path, monkeypatch, release):
    shutil.copytree(tmp_path / "published", tmp_path / "mirror" / "tiny")
    monkeypatch.setenv("SV_MIRROR", str(tmp_path / "mirror"))
    archives = fetch(release)
    assert archives[0].files[0]["path"] == str(tmp_path / "mirror" / "tiny" / "tiny_dev_aac_partaa")
    assert len(release.trials("tiny")) == 2
    assert acquisition.recorded(release) == archives


def test_a_source_that_is_named_wins_over_the_mirror_and_so_does_what_is_bundled(tmp_path, monkeypatch, release):
    shutil.copytree(tmp_path / "published", tmp_path / "mirror" / "tiny")
    monkeypatch.setenv("SV_MIRROR", str(tmp_path / "mirror"))
    bundled = make(tmp_path / "bundle")
    for corpus, source, folder in ((release, str(tmp_path / "published"), "published"), (bundled, None, "bundle")):
        assert fetch(corpus, source)[1].files[0]["path"] == str(tmp_path / folder / "tiny_test_wav.zip")
        assert needs.own_folder(corpus, source) == tmp_path / folder  # what a forecast counts


def test_verified_archives_are_found_again_wherever_they_lie(release, tmp_path):
    with pytest.raises(RequestError, match=r"^corpus tiny is not fetched: run stage 01_download\.$"):
        acquisition.verified(release)
    archives = fetch(release, source=str(tmp_path / "published"))
    assert acquisition.verified(release) == archives
    part = tmp_path / "published" / "tiny_dev_aac_partab"
    before = part.stat()
    os.utime(part, (1, 1))
    with pytest.raises(RequestError, match="tiny_dev_aac_partab is gone or has changed since it was verified"):
        acquisition.verified(release)
    os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert acquisition.verified(release) == archives
    part.write_bytes(part.read_bytes() + b"!")
    with pytest.raises(RequestError, match="tiny_dev_aac_partab is gone or has changed since it was verified"):
        acquisition.verified(release)
    part.unlink()
    with pytest.raises(RequestError, match="tiny_dev_aac_partab is gone or has changed since it was verified"):
        acquisition.verified(release)


def test_the_whole_zip_serves_as_well_as_its_parts(tmp_path, release):
    folder = tmp_path / "published"
    parts = sorted(folder.glob("tiny_dev_aac_part*"))
    (folder / "tiny_dev_aac.zip").write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    dev = fetch(release, source=str(folder))[0]
    assert [file["path"] for file in dev.files] == [str(folder / "tiny_dev_aac.zip")]
    assert dev.md5 == release.remotes[0].md5


def test_unchanged_files_are_not_read_again(tmp_path, monkeypatch):
    corpus = make(tmp_path / "bundle")
    first = fetch(corpus)
    record = paths.corpus_dir("tiny") / "archives.json"
    written = record.stat().st_mtime_ns
    monkeypatch.setattr(acquisition, "_verify", None)
    assert fetch(corpus) == first
    assert record.stat().st_mtime_ns == written
    assert [entry["md5"] for entry in json.loads(record.read_text())] == [archive.md5 for archive in first]


def test_a_changed_file_is_read_again(tmp_path):
    corpus = make(tmp_path / "bundle")
    fetch(corpus)
    part = tmp_path / "bundle" / "tiny_dev_aac_partab"
    data = bytearray(part.read_bytes())
    data[100] ^= 1
    part.write_bytes(data)
    with pytest.raises(RequestError) as caught:
        fetch(corpus)
    assert str(caught.value) == (
        f"{part} ({len(data):,} bytes) has md5 {md5(data)}, expected {corpus.remotes[0].parts[1][1]}: "
        "it is damaged or cut off; remove it and fetch it again."
    )


def test_a_finished_archive_stays_recorded_when_the_next_one_fails(tmp_path):
    corpus = make(tmp_path / "bundle")
    (tmp_path / "bundle" / "tiny_test_wav.zip").write_bytes(b"cut off")
    with pytest.raises(RequestError, match=r"tiny_test_wav\.zip \(7 bytes\) has md5 "):
        fetch(corpus)
    assert [archive.name for archive in acquisition.recorded(corpus)] == ["tiny_dev_aac.zip"]


@pytest.mark.parametrize("gone", ["tiny_test_wav.zip", "tiny_dev_aac_partab"])
def test_a_missing_file_is_told_before_any_is_read(tmp_path, gone, monkeypatch):
    corpus = make(tmp_path / "bundle")
    (tmp_path / "bundle" / gone).unlink()
    monkeypatch.setattr(acquisition, "_verify", None)
    with pytest.raises(RequestError, match=rf"{gone} is missing: run the tests again\.$"):
        fetch(corpus)


def test_wrong_order_of_parts_is_told(tmp_path):
    corpus = make(tmp_path / "bundle")
    dev = dataclasses.replace(corpus.remotes[0], parts=corpus.remotes[0].parts[::-1])
    with pytest.raises(RequestError, match="right one by one, but together have md5"):
        fetch(dataclasses.replace(corpus, remotes=(dev,)))


def test_no_source_at_all_says_how_to_place_files(tmp_path, release):
    published = dataclasses.replace(release, data=tmp_path / "published")
    with pytest.raises(RequestError, match="tiny_dev_aac_partaa of corpus tiny is not here: run the tests again"):
        fetch(published)
    with pytest.raises(RequestError, match=r"nowhere is not a folder: .* tiny_dev_aac_partaa, .*"):
        fetch(published, source=str(tmp_path / "nowhere"))


def test_download_over_http(server, release):
    archives = fetch(release, source=server.url + "/{file}")
    assert [archive.md5 for archive in archives] == [release.remotes[0].md5, release.remotes[1].parts[0][1]]
    folder = paths.corpus_dir("tiny") / "archives"
    assert sorted(path.name for path in folder.iterdir()) == [
        "tiny_dev_aac_partaa", "tiny_dev_aac_partab", "tiny_dev_aac_partac", "tiny_test_wav.zip",
    ]  # fmt: skip
    assert len(release.trials("tiny")) == 2
    server.requests.clear()
    assert fetch(release, source=server.url + "/{file}") == archives
    assert server.requests == []


def test_drops_and_busy_servers_are_survived_by_resuming(server, tmp_path):
    data = bytes(range(256)) * 4096
    (tmp_path / "published").mkdir(exist_ok=True)
    (tmp_path / "published" / "big").write_bytes(data)
    server.faults = ["drop", 503, "drop", 429]
    network.download(f"{server.url}/big", tmp_path / "got", md5(data))
    assert (tmp_path / "got").read_bytes() == data
    half, three_quarters = len(data) // 2, (len(data) // 2 + len(data)) // 2
    assert [wanted for _, wanted in server.requests] == [
        None, f"bytes={half}-", f"bytes={half}-", f"bytes={three_quarters}-", f"bytes={three_quarters}-",
    ]  # fmt: skip
    assert not (tmp_path / "got.part").exists()


@pytest.fixture
def file_at_server(tmp_path):
    (tmp_path / "published").mkdir(exist_ok=True)
    data = b"0123456789" * 1000
    (tmp_path / "published" / "file").write_bytes(data)
    return data


def test_a_part_of_a_killed_run_is_resumed(server, tmp_path, file_at_server):
    (tmp_path / "got.part").write_bytes(file_at_server[:4000])
    network.download(f"{server.url}/file", tmp_path / "got", md5(file_at_server))
    assert server.requests == [("file", "bytes=4000-")]
    assert (tmp_path / "got").read_bytes() == file_at_server


def test_a_complete_part_is_only_checked(server, tmp_path, file_at_server):
    (tmp_path / "got.part").write_bytes(file_at_server)
    network.download(f"{server.url}/file", tmp_path / "got", md5(file_at_server))
    assert (tmp_path / "got").read_bytes() == file_at_server


def test_a_part_of_another_file_is_started_over(server, tmp_path, file_at_server):
    for content in (b"x" * 4000, b"x" * 20000):  # shorter and longer than the file
        (tmp_path / "got.part").write_bytes(content)
        network.download(f"{server.url}/file", tmp_path / "got", md5(file_at_server))
        assert (tmp_path / "got").read_bytes() == file_at_server


def test_server_without_ranges(server, tmp_path, file_at_server):
    (tmp_path / "got.part").write_bytes(file_at_server[:4000])
    server.faults = ["no ranges"]
    network.download(f"{server.url}/file", tmp_path / "got", md5(file_at_server))
    assert (tmp_path / "got").read_bytes() == file_at_server


def test_wrong_bytes_are_fetched_once_more_and_then_told(server, tmp_path, file_at_server):
    server.faults = ["wrong bytes"]
    network.download(f"{server.url}/file", tmp_path / "got", md5(file_at_server))
    server.faults = ["wrong bytes", "wrong bytes"]
    with pytest.raises(RequestError, match=f"/file has md5 [0-9a-f]+, expected {md5(file_at_server)}"):
        network.download(f"{server.url}/file", tmp_path / "other", md5(file_at_server))
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "other.part").exists()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (401, "answers 401: it wants a valid personal key, set SV_VOXCELEB_KEY"),
        (403, "answers 403: it wants a valid personal key, set SV_VOXCELEB_KEY"),
        (404, "answers 404: the file is not there"),
        ("page", "sends a web page instead of the file"),
    ],
)
def test_refusals_say_what_to_do(server, tmp_path, file_at_server, fault, told):
    server.faults = [fault]
    with pytest.raises(RequestError, match=told):
        network.download(f"{server.url}/file", tmp_path / "got")
    assert not (tmp_path / "got").exists()
    assert len(server.requests) == 1


def test_a_dead_server_is_given_up(server, tmp_path, file_at_server):
    server.faults = [503] * 50
    with pytest.raises(WorkError, match=r"/file cannot be reached or breaks off \(ConnectionError, 6 attempts"):
        network.download(f"{server.url}/file", tmp_path / "got")
    assert len(server.requests) == 6


def test_key_opens_the_first_route_and_stays_secret(server, release):
    keyed = dataclasses.replace(release, routes=(server.url + "/{file}?key={key}", server.url + "/{file}"))
    with pytest.raises(RequestError) as caught:
        fetch(dataclasses.replace(keyed, routes=keyed.routes[:1]), key="wrong")
    assert "answers 401" in str(caught.value)
    assert "wrong" not in str(caught.value)
    assert str(caught.value).endswith("run the tests again.")
    assert fetch(keyed, key="secret")[0].md5 == release.remotes[0].md5


def test_second_route_is_taken_when_the_first_refuses_or_wants_a_key(server, release, tmp_path):
    texts = dataclasses.replace(release, data=tmp_path / "published")
    routes = (server.url + "/{file}?key={key}", server.url + "/gone/{file}", server.url + "/{file}")
    assert len(fetch(dataclasses.replace(texts, routes=routes))) == 2
    first = [name for name, _ in server.requests if name.endswith("partaa")]
    assert first == ["gone/tiny_dev_aac_partaa", "tiny_dev_aac_partaa"]


def test_full_disk_while_downloading(server, tmp_path, file_at_server, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            super().write(data[:3000])
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(network, "open", Full, raising=False)
        with pytest.raises(WorkError, match=r"no space left for .*got\.part \([\d,]+ bytes free\): free some"):
            network.download(f"{server.url}/file", tmp_path / "got", md5(file_at_server))
    assert not (tmp_path / "got").exists()
    network.download(f"{server.url}/file", tmp_path / "got", md5(file_at_server))
    assert server.requests[-1] == ("file", "bytes=3000-")


def test_command_line(capsys, tmp_path):
    assert download.main(["oceann"]) == 2
    assert "did you mean 'ocean'?" in capsys.readouterr().err
    assert download.main(["ocean", "--source", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("sv_utils.download: ")
    assert "ocean_dev_aac_partaa is missing" in told
    assert told.count("\n") == 1


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.lists(st.integers(0, 110), max_size=8))
def test_parts_read_like_their_concatenation(tmp_path_factory, pieces, places):
    folder = tmp_path_factory.mktemp("parts")
    for number, piece in enumerate(pieces):
        (folder / str(number)).write_bytes(piece)
    whole = io.BytesIO(b"".join(pieces))
    with open_parts([folder / str(number) for number in range(len(pieces))]) as parts:
        for place in places:
            assert parts.seek(place) == whole.seek(place)
            assert parts.read(30) == whole.read(30)
        assert parts.seek(0, io.SEEK_END) == whole.seek(0, io.SEEK_END)
        with pytest.raises(OSError):
            parts.seek(-1)


def test_zip_in_parts_is_readable(tmp_path):
    corpus = make(tmp_path / "bundle")
    with fetch(corpus)[0].open() as parts, zipfile.ZipFile(parts) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 12


def redirect(server, *places):
    server.faults = [("to", place) for place in places]


def test_a_server_may_send_on_to_itself_and_to_nobody_else(server, tmp_path, file_at_server, monkeypatch):
    redirect(server, f"{server.url}/file", "/file")
    network.download(f"{server.url}/there", tmp_path / "got", md5(file_at_server))
    assert [name for name, _ in server.requests] == ["there", "file", "file"]
    for place in ("https://evil.example/file", "http://evil.example/file", "https://openslr.org.evil.example/file"):
        redirect(server, place)
        with pytest.raises(RequestError, match=r"/file sends to https?://\S*evil\.example, which is not known"):
            network.download(f"{server.url}/file", tmp_path / "other")
    asked = []
    monkeypatch.setattr(network.requests, "request", lambda method, url, **_: asked.append(url) or Sent("http://a/x"))
    for first, trusted in [("https://a/x", ""), ("https://evil.example/x", "a.org, a")]:
        monkeypatch.setenv("SV_TRUSTED_HOSTS", trusted)
        with pytest.raises(RequestError, match="sends to http://a, which"):  # out of https, whoever is trusted
            network.download(first, tmp_path / "other")
    assert asked == ["https://a/x", "https://evil.example/x"]


class Sent:
    is_redirect = True

    def __init__(self, place):
        self.headers = {"Location": place}

    def close(self):
        pass


def test_a_circle_of_addresses_ends(monkeypatch, tmp_path):
    monkeypatch.setattr(network.requests, "request", lambda *_, **__: Sent("https://a.openslr.org/x"))
    with pytest.raises(RequestError, match="sends from one address to the next"):
        network.download("https://www.openslr.org/x", tmp_path / "got")
    monkeypatch.setattr(network.requests, "request", lambda *_, **__: Sent("https://cdn.mine.example/x"))
    monkeypatch.setenv("SV_TRUSTED_HOSTS", "other.example, mine.example")
    with pytest.raises(RequestError, match="sends from one address to the next"):
        network.download("https://www.openslr.org/x", tmp_path / "got")


def test_what_a_server_packs_is_not_inflated(server, tmp_path):
    packed = gzip.compress(bytes(50_000_000))
    (tmp_path / "published").mkdir(exist_ok=True)
    (tmp_path / "published" / "file").write_bytes(packed)
    server.faults = ["packed"]
    network.download(f"{server.url}/file", tmp_path / "got", md5(packed))
    assert (tmp_path / "got").read_bytes() == packed


def test_only_what_has_a_published_checksum_is_called_right(tmp_path, monkeypatch, release):
    corpus = dataclasses.replace(release, name="tiny")
    monkeypatch.setattr(acquisition.corpora, "get", lambda _: corpus)
    found = fetch(corpus, source=str(tmp_path / "published"))
    assert acquisition.proof({"tiny": found}) == "every checksum is right"
    tree = dataclasses.replace(found[1], name="own")
    assert acquisition.proof({"tiny": [found[0], tree]}) == (
        "1 of 2 archives have a published checksum, which is right; none is published for tiny/own"
    )


@pytest.fixture
def small(tmp_path):
    """A corpus of two archives, a table and a list of a few bytes each, in the folder `published`."""
    folder = tmp_path / "published"
    (folder / "texts").mkdir(parents=True)
    data = {"dev_a": b"one half", "dev_b": b" of it", "test.zip": b"all of it", "texts/t.csv": b"id\ns1\n"}
    data["l.txt"] = b"1 a b\n0 a c\n"
    for name, content in data.items():
        (folder / name).write_bytes(content)
    dev = Archive("dev.zip", "dev", (("dev_a", md5(b"one half")), ("dev_b", md5(b" of it"))), md5(b"one half of it"))
    test = Archive("test.zip", "test", (("test.zip", md5(b"all of it")),))
    return Corpus(
        name="small",
        remotes=(dev, test),
        table=Text("t.csv", rows=1, md5=md5(data["texts/t.csv"])),
        lists={"l": Text("l.txt", rows=2, md5=md5(data["l.txt"]))},
        licence="none",
        citation="none",
        manual="ask for it",
    )


def test_texts_come_from_their_own_addresses_and_are_compared(server, small, monkeypatch):
    table = dataclasses.replace(small.table, url=server.url + "/texts/t.csv")
    routes = (server.url + "/gone/{file}?key={key}", server.url + "/{file}?key={key}")
    corpus = dataclasses.replace(small, table=table, routes=routes)
    with pytest.raises(RequestError, match=r"^l\.txt of corpus small is not here: ask for it\.$"):
        fetch(corpus)  # without a key, which no route goes without
    monkeypatch.setenv("SV_VOXCELEB_KEY", "secret")
    server.requests.clear()
    fetch(corpus)
    assert corpus.text_path(table).read_text() == "id\ns1\n" and corpus.trials("l")["test"].tolist() == ["b", "c"]
    assert [name for name, _ in server.requests[:2]] == ["gone/l.txt", "l.txt"]  # the table is here
    for wrong in (dataclasses.replace(table, md5="0" * 32), dataclasses.replace(small.lists["l"], md5="0" * 32)):
        corpus.text_path(wrong).unlink()
        lists = corpus.lists if wrong.url else {"l": wrong}
        with pytest.raises(RequestError, match=r"has md5 \w+, expected 0{32}.* Otherwise: ask for it\.$"):
            fetch(dataclasses.replace(corpus, table=wrong if wrong.url else table, lists=lists))
        fetch(corpus)


def test_texts_of_a_folder_are_copied_once_and_those_of_a_user_anew(tmp_path, small):
    folder = tmp_path / "published"
    shutil.copy(folder / "texts/t.csv", folder)
    fetch(small, str(folder))
    (folder / "t.csv").write_text("changed")
    fetch(small, str(folder))
    assert small.text_path(small.table).read_text() == "id\ns1\n"
    own = dataclasses.replace(small, table=Text("t.csv", rows=None))
    fetch(own, str(folder))
    assert own.text_path(own.table).read_text() == "changed"
    (folder / "t.csv").unlink()
    fetch(own, str(folder))
    assert not own.text_path(own.table).exists()
    os.mkfifo(folder / "t.csv")
    with pytest.raises(RequestError, match=r"t\.csv"):
        fetch(own, str(folder))


def test_a_fetch_says_of_each_archive_what_it_proved(tmp_path, small, capsys, monkeypatch):
    bare = dataclasses.replace(small.remotes[1], parts=(("test.zip", None),))
    corpus = dataclasses.replace(small, remotes=(small.remotes[0], bare), table=None, lists={})
    monkeypatch.chdir(tmp_path)
    found = fetch(corpus, "published")
    assert [file["path"] for file in found[0].files] == [str(tmp_path / "published" / f"dev_{k}") for k in "ab"]
    whole, alone = md5(b"one half of it"), md5(b"all of it")
    dev, test = f"small: dev.zip 0.0 MB, md5 {whole}, ", f"small: test.zip 0.0 MB, md5 {alone}, "
    assert capsys.readouterr().out.splitlines() == [dev + "verified", test + "none is published to compare with"]
    assert fetch(corpus, "published") == found
    assert capsys.readouterr().out.splitlines() == [dev + "unchanged", test + "unchanged"]
    (tmp_path / "unpacked" / "test" / "s1").mkdir(parents=True)
    (tmp_path / "unpacked" / "dev" / "s2").mkdir(parents=True)
    (tmp_path / "unpacked" / "dev" / "s2" / "1.wav").write_bytes(bytes(1_200_000))
    (tmp_path / "unpacked" / "dev" / "read.me").write_bytes(b"text")
    assert [(one.name, one.subset) for one in fetch(corpus, "unpacked")] == [("dev", "dev"), ("test", "test")]
    assert capsys.readouterr().out.splitlines() == [
        "small: dev.zip 1.2 MB, a tree as it lies, dev; left out: 1 of no audio format by their suffix (first read.me)",
        "small: test.zip 0.0 MB, a tree as it lies, test",
    ]


def test_an_archive_that_fails_leaves_the_record_of_the_others(tmp_path, small):
    folder = tmp_path / "published"
    small = dataclasses.replace(small, table=None, lists={})
    before = fetch(small, str(folder))
    os.utime(folder / "dev_a", (1, 1))
    (folder / "test.zip").write_bytes(b"cut off")
    with pytest.raises(RequestError, match="cut off"):
        fetch(small, str(folder))
    after = acquisition.recorded(small)
    assert [one.name for one in after] == ["dev.zip", "test.zip"] and after[1] == before[1]
    assert after[0].files[0]["mtime_ns"] == 10**9 and after[0].md5 == before[0].md5
    digests = {acquisition.result_digest(small, before)}
    for change in ({"name": "x"}, {"subset": "x"}, {"session": "x"}, {"md5": "x"}):
        digests.add(acquisition.result_digest(small, [before[0], dataclasses.replace(before[1], **change)]))
    assert len(digests) == 5 and acquisition.result_digest(small, after) in digests  # times are no result


def test_the_cause_is_told_where_one_download_ends_the_others(tmp_path, small, monkeypatch):
    asked, pools, together = [], [], threading.Barrier(3, timeout=60)

    def download(url, target, expected, report):
        asked.append((url, target.name, expected))
        together.wait()
        if target.name == "dev_b":
            raise WorkError("the network is down")
        assert report.stop.wait(60)  # what has failed stops the others
        report.arrived(1)

    def pool(connections):
        pools.append(connections)
        return ThreadPoolExecutor(connections)

    monkeypatch.setattr(acquisition, "download", download)
    monkeypatch.setattr(acquisition, "ThreadPoolExecutor", pool)
    shown, progress = [], acquisition.Progress
    monkeypatch.setattr(acquisition, "Progress", lambda *given: shown.append(given) or progress(*given))
    corpus = dataclasses.replace(small, table=None, lists={}, routes=("https://a.example/{file}",))
    with pytest.raises(WorkError, match=r"^the network is down$"):
        fetch(corpus, connections=3)
    assert shown == [("small: downloading", "bytes")]
    assert pools == [3] and sorted(asked) == [
        (f"https://a.example/{file}", file, checksum) for one in small.remotes for file, checksum in one.parts
    ]
    (paths.corpus_dir("small") / "archives").mkdir(parents=True)
    (paths.corpus_dir("small") / "archives" / "dev_b").write_bytes(b" of it")  # is not asked for again
    asked.clear()
    monkeypatch.setattr(acquisition, "download", lambda url, target, *_: asked.append(target.name) or md5(b""))
    with contextlib.suppress(FileNotFoundError):
        fetch(corpus)
    assert sorted(asked) == ["dev_a", "test.zip"] and pools == [3, 4]


def test_only_what_was_downloaded_as_a_whole_is_removed(tmp_path, small, capsys):
    folder = paths.corpus_dir("small") / "archives"
    folder.mkdir(parents=True)
    (tmp_path / "own.zip").write_bytes(b"12345")
    for name in ("a", "b"):
        (folder / name).write_bytes(b"123")

    def archive(name, *places):
        files = tuple({"path": str(place), "bytes": 3, "mtime_ns": 0, "md5": ""} for place in places)
        return VerifiedArchive(name, "dev", "", files)

    mixed, gone = archive("mixed", folder / "a", tmp_path / "own.zip"), archive("whole", folder / "b", folder / "c")
    acquisition._record(small, [mixed, gone])
    assert acquisition.remove(small) == 3 and not (folder / "b").exists()
    assert (folder / "a").exists() and (tmp_path / "own.zip").exists()
    assert acquisition.recorded(small) == [mixed, dataclasses.replace(gone, removed=True)]
    assert acquisition.remove(small) == 0 and acquisition.recorded(small)[1].removed
    acquisition._record(small, [dataclasses.replace(gone, removed=True)])
    capsys.readouterr()
    alone = dataclasses.replace(small, table=None, lists={})
    assert fetch(alone) == acquisition.recorded(small)
    assert capsys.readouterr().out == "small: archives removed after its preparation, not fetched again\n"
    assert [one.name for one in fetch(alone, str(tmp_path / "published"))] == ["dev.zip", "test.zip"]  # which is named


def test_a_key_that_is_given_is_shown_nowhere(small, monkeypatch):
    kept = []
    monkeypatch.setattr(acquisition.secret, "keep", kept.append)
    with pytest.raises(RequestError):
        fetch(dataclasses.replace(small, table=None, lists={}), key="a5b6c7")
    assert kept == ["a5b6c7"]


def test_a_tree_and_what_has_no_checksum_are_not_called_right(tmp_path, monkeypatch, small):
    public = Archive("all.tar", "", (("all.tar", None),))
    monkeypatch.setattr(
        acquisition.corpora, "get", lambda name: dataclasses.replace(small, name=name, public=(public,))
    )
    file = {"path": str(tmp_path / "nowhere.zip"), "bytes": 1, "mtime_ns": 0, "md5": ""}
    dev, test, everything = (VerifiedArchive(name, "", "", (file,)) for name in ("dev.zip", "test.zip", "all.tar"))
    assert acquisition.proof({"x": [dev, test]}) == "every checksum is right"
    tree = dataclasses.replace(dev, files=(file | {"path": str(tmp_path)},))
    assert acquisition.proof({"x": [tree, test], "y": [everything]}) == (
        "1 of 3 archives have a published checksum, which is right; none is published for x/dev.zip, y/all.tar"
    )
    assert acquisition.proof({"x": [dataclasses.replace(tree, removed=True)]}) == "every checksum is right"


def test_of_two_forms_the_public_one_is_downloaded_and_that_which_lies_here_is_read(tmp_path, small, monkeypatch):
    def download(url, target, expected, report):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"everything")
        return md5(b"everything")

    monkeypatch.setattr(acquisition, "download", download)
    public = (Archive("all.tar", "", (("all.tar", None),)),)
    corpus = dataclasses.replace(small, public=public, table=None, lists={}, routes=("https://a.example/{file}",))
    (found,) = fetch(corpus)
    assert (found.name, found.subset, found.md5) == ("all.tar", "", md5(b"everything"))
    folder = tmp_path / "published"
    found = fetch(corpus, str(folder))
    assert [one.name for one in found] == ["dev.zip", "test.zip"]
    assert acquisition.recorded(corpus) == found  # and no more of the other form
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "all.tar").write_bytes(b"own")
    (found,) = fetch(corpus, str(tmp_path / "own"))
    assert (found.name, found.md5) == ("all.tar", md5(b"own"))
    (tmp_path / "own" / "all.tar").unlink()
    with pytest.raises(RequestError, match=r"own/dev_a is missing: ask for it\.$"):
        fetch(corpus, str(tmp_path / "own"))
    (tmp_path / "own" / "s1").mkdir()
    halves = [
        fetch(dataclasses.replace(corpus, remotes=some), str(tmp_path / "own"))
        for some in (small.remotes, small.remotes[:1])
    ]
    assert [(one.name, one.subset) for (one,) in halves] == [("own", ""), ("own", "dev")]
    (folder / "test.zip").unlink()
    with pytest.raises(RequestError, match=r"published/test\.zip is missing: ask for it\.$"):
        fetch(corpus, str(folder))
