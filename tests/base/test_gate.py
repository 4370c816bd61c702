"""Who may ask a page for what, how much of it, and what is left."""

import asyncio
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sv_utils.base import gate

OPEN = r"/|/upload|/queue/join|/file={folder}/.*"


class Page:
    """Answers everything; of an upload it writes a file for each piece, and moves them when the upload ends."""

    def __init__(self, folder):
        self.folder, self.asked = folder, []

    async def __call__(self, scope, receive, send):
        self.asked.append(scope["path"])
        own = self.folder / f"tmp{len(self.asked)}"
        while scope["path"] == "/upload":
            message = await receive()
            own.write_bytes(b"voice")
            if message["type"] == "http.disconnect":
                raise ConnectionError("left")
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"yes"})


def next_descriptor():
    """The lowest number that no open file has."""
    number = os.dup(0)
    os.close(number)
    return number


@pytest.fixture
def page(tmp_path):
    folder = tmp_path / "uploads"
    folder.mkdir()
    return Page(folder)


@pytest.fixture
def guarded(page):
    return gate.Gate(page, page.folder, ["voices.example"], OPEN, largest=1000, policy="default-src 'self'")


async def answer(guarded, path="/", method="GET", messages=(), client="192.0.2.1", **headers):
    """Status and headers of the answer."""
    headers = {"host": "voices.example", **{name.replace("_", "-"): value for name, value in headers.items()}}
    headers = [(name.encode(), value.encode()) for name, value in headers.items() if value is not None]
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": (client, 1)}
    told, sent = list(messages) or [{"type": "http.request", "body": b""}], []

    async def receive():
        return told.pop(0)

    async def send(message):
        sent.append(message)

    await guarded(scope, receive, send)
    return (sent[0]["status"], dict(sent[0]["headers"])) if sent else (0, {})


def status(guarded, *arguments, **options):
    return asyncio.run(answer(guarded, *arguments, **options))[0]


@pytest.mark.parametrize(
    "host", ["voices.example", "VOICES.example:8080", "localhost.:7860", "127.0.0.1:7860", "[::1]:1", "[2001:DB8::abc]"]
)
def test_a_page_answers_to_its_own_names(guarded, host):
    assert status(guarded, host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "voices.example.evil",
        "a@voices.example",
        "127.0.0.1.evil:1",
        "Xvoices.example",
        "[",
        "[::1",
        "::1",
    ],
)
def test_a_page_does_not_answer_to_foreign_names(guarded, page, host):
    code, headers = asyncio.run(answer(guarded, host=host, origin="http://evil.example"))
    assert (code, page.asked) == (400, []) and b"access-control-allow-origin" not in headers
    assert status(guarded, method="OPTIONS", host=host, origin="http://evil.example") == 400


ORIGINS = {"http://voices.example": 200, "https://voices.example": 200, "http://evil.example": 403}
ORIGINS |= {"http://voices.example:81": 403, "null": 403, "": 403, "http://[": 403}
ORIGINS |= {"http://evil.example://voices.example": 403}


@pytest.mark.parametrize(("origin", "code"), ORIGINS.items())
def test_another_page_may_not_ask(guarded, origin, code):
    assert status(guarded, origin=origin) == code
    assert status(guarded, "/upload", "POST", origin=origin, content_length="0") == code


@pytest.mark.parametrize("path", ["/monitoring", "/monitoring/summary", "/process_recording", "/deep_link", "//", "/x"])
def test_what_the_page_does_not_need_is_closed(guarded, page, path):
    assert (status(guarded, path), page.asked) == (404, [])


def test_files_are_given_out_of_the_folder_alone(guarded, page):
    assert status(guarded, f"/file={page.folder}/a/b..c.wav") == 200
    for path in (
        "/etc/passwd",
        f"{page.folder}/../b.wav",
        f"{page.folder}/..",
        f"{page.folder}/%2e%2e/a",
        "http://evil.example/x",
        f"{page.folder}",
        f"{page.folder}x/a",
    ):
        assert status(guarded, f"/file={path}") == 404


def test_every_answer_has_the_policy(guarded):
    headers = asyncio.run(answer(guarded))[1]
    assert headers == {
        b"content-security-policy": b"default-src 'self'",
        b"x-content-type-options": b"nosniff",
        b"referrer-policy": b"no-referrer",
        b"cross-origin-resource-policy": b"same-origin",
    }


def test_an_answer_that_has_no_headers_gets_those_of_the_gate(guarded):
    sent = []

    async def send(message):
        sent.append(message)

    own = gate.HEADERS | {b"content-security-policy": b"default-src 'self'"}
    asyncio.run(guarded._with_headers(send)({"type": "http.response.start", "status": 200}))
    assert dict(sent.pop()["headers"]) == own
    of_the_page = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    asyncio.run(guarded._with_headers(send)({"type": "http.response.start", "headers": of_the_page}))
    assert sent[0]["headers"] == [*of_the_page, *own.items()]


def test_what_is_no_question_of_a_visitor_is_left_to_the_page(page):
    given = []

    async def app(*handed):
        given.append(handed)

    handed = ({"type": "lifespan"}, "receive", "send")
    asyncio.run(gate.Gate(app, page.folder, [], OPEN, largest=1000)(*handed))
    assert given == [handed]


def test_what_is_sent_with_a_question_reaches_the_page(page):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200 + len((await receive())["body"])})

    asked = {"method": "POST", "messages": [{"type": "http.request", "body": b"abc"}], "content_length": "3"}
    assert status(gate.Gate(app, page.folder, [], OPEN, largest=1), host="[::1]", **asked) == 203


@pytest.mark.parametrize("host", ["localhost", "box:7860", "box.example"])
def test_a_page_answers_to_the_names_of_its_machine(page, host, monkeypatch):
    monkeypatch.setattr(gate.socket, "gethostname", lambda: "Box")
    monkeypatch.setattr(gate.socket, "getfqdn", lambda: "Box.example")
    assert status(gate.Gate(page, page.folder, [], OPEN, largest=1), host=host) == 200


def test_without_a_policy_none_is_told(page):
    assert asyncio.run(answer(gate.Gate(page, page.folder, [], OPEN, largest=1), host="[::1]"))[1] == gate.HEADERS


def test_one_client_cannot_fill_the_queue(guarded, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(gate.time, "monotonic", lambda: now[0])
    asked = {"path": "/queue/join", "method": "POST", "content_length": "2"}
    codes = [status(guarded, **asked) for _ in range(23)]
    assert codes == [200] * 20 + [503] * 3
    assert status(guarded, client="192.0.2.2", **asked) == 200
    now[0] = 6.0
    assert [status(guarded, **asked) for _ in range(3)] == [200, 200, 503]
    now[0] = 6000.0  # who was away for long has saved nothing up
    assert [status(guarded, **asked) for _ in range(21)] == [200] * 20 + [503]
    codes = [status(guarded, client=f"2001:db8::{number:x}", **asked) for number in range(21)]
    assert codes[-1] == 503  # all addresses of one network are one client
    assert status(guarded, client="2001:db8:0:1::1", **asked) == 200


def test_clients_that_were_away_for_long_are_forgotten_when_there_are_many(guarded, monkeypatch):
    monkeypatch.setattr(gate.time, "monotonic", lambda: 60.0)
    guarded.asked = dict.fromkeys(map(str, range(10_000)), (0.0, 0.0))
    guarded._take_turn("192.0.2.1")
    assert len(guarded.asked) == 10_001  # so many may be known
    guarded.asked = {f"198.51.100.{number}": (0.0, number / 10_000) for number in range(10_001)}
    guarded._take_turn("192.0.2.1")
    assert list(guarded.asked) == [f"198.51.100.{number}" for number in range(1, 10_001)] + ["192.0.2.1"]


def test_a_refusal_is_told_in_words_and_ends_the_connection():
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(gate._answer(send, gate.Refused(404, "There is nothing here.")))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"36"), (b"connection", b"close")]
    assert sent == [
        {"type": "http.response.start", "status": 404, "headers": headers},
        {"type": "http.response.body", "body": b'{"detail": "There is nothing here."}'},
    ]


def test_a_folder_is_swept_after_each_pause_of_what_is_old_and_of_aborted_uploads(tmp_path, monkeypatch):
    done = []

    async def sleep(pause):
        done.append(pause)
        if len(done) > 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(gate.asyncio, "sleep", sleep)
    monkeypatch.setattr(gate, "sweep", lambda *given: done.append(given))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(gate.keep_small(tmp_path, 600.0, 30.0))
    assert done == [30.0, (tmp_path, 600.0), (tmp_path, 120.0, True), 30.0]


LENGTHS = {("/upload", "1000"): 200, ("/upload", "70000"): 413, ("/upload", "9" * 5000): 413, ("/upload", None): 411}
LENGTHS |= {("/upload", "-1"): 411, ("/queue/join", "70000"): 200, ("/queue/join", "2000000"): 413}
LENGTHS |= {("/upload", "66536"): 200, ("/upload", "66537"): 413}  # a file, and what stands around it
LENGTHS |= {("/upload", "1000".zfill(15)): 200, ("/upload", "1000".zfill(16)): 413}
LENGTHS |= {("/queue/join", "1048576"): 200, ("/queue/join", "1048577"): 413}


@pytest.mark.parametrize(("path", "length", "code"), [(*sent, code) for sent, code in LENGTHS.items()])
def test_what_is_sent_has_a_length_and_a_limit(guarded, path, length, code):
    assert status(guarded, path, "POST", content_length=length) == code


def test_what_comes_in_pieces_of_untold_length_is_refused(guarded, page):
    asked = {"path": "/upload", "method": "POST", "content_length": "5"}
    assert (status(guarded, **asked, transfer_encoding="chunked"), page.asked) == (411, [])


def test_headers_alone_may_be_asked_for_and_nothing_may_be_changed(guarded):
    codes = [status(guarded, method=method, content_length="1") for method in ("HEAD", "PUT", "DELETE", "PATCH")]
    assert codes == [200, 404, 404, 404]


LEAVES = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}]


def test_aborted_uploads_leave_nothing(guarded, page):
    for _ in range(20):
        assert status(guarded, "/upload", "POST", LEAVES, content_length="500") == 0
    assert len(page.asked) == 20 and list(page.folder.iterdir()) == []
    assert (guarded.uploads, guarded.coming) == ({}, 0)


def test_what_has_arrived_stays_when_the_last_upload_ends(guarded, page):
    (page.folder / "a").mkdir()
    (page.folder / "a/b.wav").write_bytes(b"voice")
    assert status(guarded, "/upload", "POST", LEAVES, content_length="500") == 0
    assert [path.name for path in page.folder.rglob("*")] == ["a", "b.wav"]


def test_uploads_that_are_still_on_their_way_keep_their_files(guarded, page):
    async def run():
        more = asyncio.Event()

        async def receive():
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"", "more_body": not more.is_set()}

        async def send(message):
            pass

        headers = [(b"host", b"localhost"), (b"content-length", b"10")]
        scope = {"type": "http", "method": "POST", "path": "/upload", "headers": headers, "client": ("192.0.2.9", 1)}
        tasks = [asyncio.create_task(guarded(scope, receive, send)) for _ in range(4)]
        while len(list(page.folder.iterdir())) < 4:
            await asyncio.sleep(0.01)
        await answer(guarded, "/upload", "POST", LEAVES, content_length="5")
        kept = len(list(page.folder.iterdir()))
        fifth = (await answer(guarded, "/upload", "POST", client="192.0.2.9", content_length="5"))[0]
        more.set()
        await asyncio.gather(*tasks)
        return kept, fifth

    assert asyncio.run(run()) == (5, 503)  # of the four, and of the one who left
    assert list(page.folder.iterdir()) == []


def test_an_upload_that_stalls_is_cut(guarded, page, monkeypatch):
    monkeypatch.setattr(gate, "STALLED", 0.01)

    async def run():
        async def never():
            await asyncio.sleep(60)

        headers = [(b"host", b"localhost"), (b"content-length", b"10")]
        scope = {"type": "http", "method": "POST", "path": "/upload", "headers": headers, "client": None}
        await guarded(scope, never, never)

    asyncio.run(asyncio.wait_for(run(), 5))
    assert list(page.folder.iterdir()) == []


def test_all_recordings_together_have_a_limit(guarded, page):
    (page.folder / "a").mkdir()
    (page.folder / "a/b.wav").touch()
    os.truncate(page.folder / "a/b.wav", 2**30 - 500)  # it is sparse
    assert status(guarded, "/upload", "POST", content_length="501") == 503
    assert status(guarded, "/upload", "POST", content_length="500") == 200


def test_uploads_that_are_still_to_come_have_their_room(guarded, page, monkeypatch):
    monkeypatch.setattr(gate, "ROOM", 1000)

    async def run():
        more = asyncio.Event()

        async def receive():
            await more.wait()
            return {"type": "http.request", "body": b""}

        async def send(message):
            pass

        headers = [(b"host", b"localhost"), (b"content-length", b"600")]
        scope = {"type": "http", "method": "POST", "path": "/upload", "headers": headers, "client": ("192.0.2.9", 1)}
        task = asyncio.create_task(guarded(scope, receive, send))
        while not page.asked:
            await asyncio.sleep(0)
        asked = {"path": "/upload", "method": "POST", "client": "192.0.2.9"}
        codes = [(await answer(guarded, **asked, content_length=size))[0] for size in ("401", "400")]
        assert guarded.uploads == {"192.0.2.9": 1}
        more.set()
        await task
        return codes

    assert asyncio.run(run()) == [503, 200]


def test_a_question_that_sends_nothing_needs_no_room(guarded, monkeypatch):
    monkeypatch.setattr(gate, "ROOM", 0)
    assert (status(guarded, "/upload"), status(guarded, "/upload", "POST", content_length="1")) == (200, 503)


def test_a_file_that_goes_meanwhile_takes_no_room(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(b"voice")
    monkeypatch.setattr(gate.os, "walk", lambda folder: [(str(folder), [], ["gone.wav", "a.wav"])])
    assert gate.taken(tmp_path) == 5


# Before its end, when a thing came into a folder and when it was last written to [s].
DATED = {
    "just.wav": (60, 60),
    "fresh.wav": (59, 61),
    "touched.wav": (61, 59),
    "full/new.wav": (59, 60),
    "full": (99, 99),
}
DATED |= {"empty": (60, 0), "young": (59, 99), "old/a.wav": (99, 99), "old": (60, 60)}
LEFT = {(60, False): {"fresh.wav", "full/new.wav", "full", "young"}}
LEFT |= {(600, False): set(DATED) - {"empty"}, (60, True): set(DATED) - {"just.wav", "fresh.wav"}}


@pytest.mark.parametrize(("age", "aborted"), LEFT)
def test_a_sweep_goes_by_when_a_file_came_and_for_uploads_by_when_one_was_written_to(
    age, aborted, tmp_path, monkeypatch
):
    real, place = os.lstat, len(str(tmp_path)) + 1

    def dated(path):
        came, written = DATED[str(path)[place:]]
        return SimpleNamespace(st_mode=real(path).st_mode, st_ctime=1000 - came, st_mtime=1000 - written)

    for name in DATED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch() if name.endswith(".wav") else (tmp_path / name).mkdir(exist_ok=True)
    with monkeypatch.context() as patched:
        patched.setattr(gate.os, "lstat", dated)
        patched.setattr(gate.time, "time", lambda: 1000)
        gate.sweep(tmp_path, age, aborted)
    assert {str(path)[place:] for path in tmp_path.rglob("*")} == LEFT[age, aborted]


def test_of_folders_that_were_left_no_file_and_no_link_is_opened(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    locked = []
    monkeypatch.setattr(gate.fcntl, "flock", lambda *_: locked.append(1))
    free = next_descriptor()
    for name in ("file", "link", "absent"):
        gate._remove_orphan(tmp_path / name)
    assert not locked and (tmp_path / "folder").exists()
    gate._remove_orphan(tmp_path / "folder")
    assert locked and not (tmp_path / "folder").exists()
    assert next_descriptor() <= free


def test_a_sweep_removes_what_is_old_and_no_more(tmp_path):
    for name in ("old/a.wav", "new/b.wav", "old/deep/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"voice")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    gate.sweep(tmp_path, age=60)
    assert gate.taken(tmp_path) == 15
    gate.sweep(tmp_path, 0, aborted=True)
    assert (tmp_path / "old/a.wav").exists()  # what stands in folders has arrived
    assert (tmp_path / "empty").exists()  # and something may come into a new folder
    gate.sweep(tmp_path, age=0)
    assert list(tmp_path.iterdir()) == [] and tmp_path.exists()


def test_a_folder_of_a_process_that_was_killed_goes_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(gate.tempfile, "gettempdir", lambda: str(tmp_path))
    code = "import sys, tempfile, time\ntempfile.tempdir = sys.argv[1]\nfrom sv_utils.base import gate\n"
    code += "with gate.private_folder('page') as folder:\n    (folder / 'voice').touch()\n"
    code += "    print(folder, flush=True)\n    time.sleep(60)\n"
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    killed, alive = (process.stdout.readline().strip() for process in running)
    os.kill(running[0].pid, signal.SIGKILL)
    running[0].communicate()
    assert os.path.exists(killed)
    (tmp_path / "page-of-another").symlink_to(tmp_path)
    with gate.private_folder("page") as own:
        assert own.stat().st_mode & 0o777 == 0o700
        assert not os.path.exists(killed) and os.path.exists(f"{alive}/voice")
    assert not own.exists()
    running[1].kill()
    running[1].communicate()
    assert tmp_path.exists()


def test_a_folder_that_is_not_locked_yet_is_not_taken_for_one_that_was_left(tmp_path, monkeypatch):
    monkeypatch.setattr(gate.tempfile, "gettempdir", lambda: str(tmp_path))

    def lock(*_):
        for left in tmp_path.glob("page-*"):  # as another process does that begins just now
            left.rmdir()
        raise OSError("this file system keeps no locks")

    monkeypatch.setattr(gate.fcntl, "flock", lock)
    free = next_descriptor()
    with gate.private_folder("page") as own:
        assert own.is_dir() and own.name.startswith("page-")
        own.rmdir()  # nothing is left to remove
    assert next_descriptor() <= free
    assert list(tmp_path.iterdir()) == []


def test_visitors_are_told_apart_by_the_first_half_of_a_long_address():
    asked = ("203.0.113.9", "2001:db8:1:2:3::4", "unix")
    known = [gate._client({"client": (address, 5)}) for address in asked]
    assert known == ["203.0.113.9", "2001:db8:1:2::/64", "unix"] and gate._client({}) == ""
