"""The page for visitors, driven in a real browser; every request of these tests stays on this machine."""

import asyncio
import collections
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from browser import DESK, PHONE, chromium, needs_chromium, sideways, strangers

from sv_utils import demo
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.models import pretrained
from sv_utils.voices import compare
from sv_utils.voices.enrolment import Voices

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'sv_utils[demo]'")
CARLO = ("wav/mv041/carlo/00013.wav", "wav/mv041/carlo/00014.wav")
TUX = "wav/mv058/tuxpaint-nl/00014.wav"
POINT = {
    "threshold": 0.41,
    "list": "mini",
    "n_speakers": 18,
    "false_accept": [0.028, 0.01, 0.05],
    "miss": [0.007, 0, 0.01],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The examples' recordings; without the encoder's weights there is nothing to try."""
    try:
        pretrained.published("campplus")
    except WorkError as error:
        pytest.skip(f"no weights: {error}")
    return demo.example_files(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """Where what visitors send lies."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(files, uploads):
    """Of the page, served in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        page = demo.build(files)
        yield demo.launch(page, uploads)
        page.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Chromium whose microphone hears the second recording of Carlo, over and over."""
    found = demo.example_files(tmp_path_factory.mktemp("microphone"))
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with chromium(*fake, f"--use-file-for-fake-audio-capture={found[CARLO[1]]}") as opened:
        yield opened


@pytest.fixture
def browser(running):
    """The same; the pages of a test are closed behind it, for each that is left open goes on drawing and asking."""
    yield running
    for context in running.contexts:
        context.close()


def bad_files(folder):
    """A text called wav, half an hour of noise, and silence."""
    (folder / "text.wav").write_text("no sound")
    soundfile.write(folder / "long.wav", np.random.default_rng(0).normal(0, 0.1, 1800 * 4000), 4000, "PCM_U8")
    soundfile.write(folder / "silence.wav", np.zeros(48_000), 16_000)
    return {name: str(folder / f"{name}.wav") for name in ("text", "long", "silence")}


def open_page(browser, address, size, visitor=""):
    """A page that shows; `visitor` is the address of one who comes through a proxy of this machine."""
    page = browser.new_page(viewport=size, extra_http_headers={"X-Forwarded-For": visitor} if visitor else {})
    found = strangers(page, address)
    page.on("response", lambda answer: answer.status in (400, 403, 404) and found.append(answer.url))
    page.on("console", lambda message: "Content Security" in message.text and found.append(message.text))
    page.goto(address)
    page.get_by_role("button", name="Compare").wait_for()
    return page, found


def choose(page, number, file):
    """Give a file to one of the drop areas, as the dialog of a browser does."""
    with page.expect_file_chooser() as chooser:
        page.get_by_label("Drop an audio file here to upload").nth(number).click()
    chooser.value.set_files(file)


def answer(page, words=""):
    headline = page.locator("#answer h2", has_text=words)
    headline.wait_for(timeout=300_000)
    return headline.inner_text()


@needs_chromium
@pytest.mark.parametrize("size", [pytest.param(DESK, marks=pytest.mark.long), PHONE], ids=["desk", "phone"])
def test_a_visitor_uploads_two_files_and_reads_the_answer(browser, address, files, size):
    page, found = open_page(browser, address, size)
    choose(page, 1, files[TUX])  # the second first: afterwards it has no drop area
    choose(page, 0, files[CARLO[0]])
    page.get_by_label("Clear").nth(1).wait_for()
    page.get_by_role("button", name="Compare").focus()
    page.keyboard.press("Enter")
    assert "Different voices" in answer(page)
    said = page.locator("#answer").inner_text()
    assert (
        "times likelier if two people speak than if one does" in said
        and "of pairs of different voices were taken for one" in said
    )
    assert page.locator("#answer figure svg").count() == 3
    assert (found, sideways(page)) == ([], 0)


@needs_chromium
def test_a_visitor_records_with_the_microphone(browser, address, files):
    page, found = open_page(browser, address, DESK)
    choose(page, 1, files[CARLO[0]])
    page.get_by_label("Record audio").first.click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(3500)
    with page.expect_response(lambda response: "/upload" in response.url):
        page.get_by_role("button", name="Stop").click()
    page.get_by_label("Play").nth(1).wait_for()
    page.wait_for_timeout(500)  # the answer of the upload has come; the page takes it in
    page.get_by_role("button", name="Compare").click()
    assert "Same voice" in answer(page)
    assert found == []


@needs_chromium
def test_an_example_is_one_click_and_people_are_enrolled_for_their_visitor_alone(browser, address):
    page, found = open_page(browser, address, PHONE)
    page.get_by_role("button", name="Try: one voice, twice").click()
    assert "Same voice" in answer(page)
    page.get_by_role("tab", name="Who is this?").click()
    page.get_by_role("button", name="Try: two people").click()
    page.locator("#who h2", has_text="Carlo").wait_for(timeout=300_000)
    assert "Tux (1 recording)" in page.locator("#enrolled").inner_text()
    assert (found, sideways(page)) == ([], 0)
    other, _ = open_page(browser, address, DESK)
    other.get_by_role("tab", name="Who is this?").click()
    other.get_by_role("button", name="Who is this?").click()
    other.locator("#who", has_text="Nobody is enrolled yet").wait_for(timeout=300_000)


@needs_chromium
def test_what_cannot_be_used_is_told_in_a_sentence(browser, address, tmp_path):
    page, _ = open_page(browser, address, DESK)
    bad = bad_files(tmp_path)
    choose(page, 1, bad["silence"])
    choose(page, 0, bad["text"])
    page.get_by_label("Clear").nth(1).wait_for()
    page.get_by_role("button", name="Compare").click()
    assert "That did not work" in answer(page)
    said = page.locator("#answer").inner_text()
    assert "The first recording cannot be used: not audio" in said and "/" not in said and "Traceback" not in said


def visit_at_once(browser, address, visitors):
    pages = [open_page(browser, address, PHONE, f"192.0.2.{number}")[0] for number in range(visitors)]
    for number, page in enumerate(pages):
        page.get_by_role("button", name=("Try: one voice, twice", "Try: two voices")[number % 2]).click()
    for number, page in enumerate(pages):
        assert ("Same voice", "Different voices")[number % 2] in answer(page)
        page.close()


@needs_chromium
def test_visitors_at_once_get_their_own_answers(browser, address):
    visit_at_once(browser, address, 3)


@needs_chromium
def test_a_file_that_is_too_large_is_refused(browser, address, tmp_path):
    with open(tmp_path / "large.wav", "wb") as file:
        file.truncate(61 * 10**6 + 5 * 2**20)
    page, _ = open_page(browser, address, DESK)
    choose(page, 0, tmp_path / "large.wav")
    page.get_by_text("exceed the maximum allowed size of 60.0 Mb").first.wait_for(timeout=60_000)


@needs_chromium
def test_a_visitor_who_finds_the_queue_full_is_told(browser, files, monkeypatch, tmp_path):
    served, go = threading.Event(), threading.Event()

    def slowly(*_):
        served.set()
        go.wait(60)
        raise RequestError("the recording is at its end")

    monkeypatch.setattr(compare, "compare", slowly)
    monkeypatch.setattr(demo, "WAITING", 1)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    served_page = demo.build(files)
    place = demo.launch(served_page, tmp_path)
    try:
        pages = [open_page(browser, place, DESK)[0] for _ in range(3)]
        for number, page in enumerate(pages):
            page.get_by_role("button", name="Try: two voices").click()
            if number == 0:
                assert served.wait(60)
        pages[2].get_by_text("currently busy. Please try again").first.wait_for(timeout=60_000)
        go.set()
        assert "That did not work" in answer(pages[1])
    finally:
        go.set()
        served_page.close()


@needs_chromium
@pytest.mark.long
def test_twenty_visitors_at_once_get_their_own_answers(browser, address):
    visit_at_once(browser, address, 20)


@pytest.mark.long
@needs_chromium
def test_a_recording_is_removed(browser, files, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(demo, "KEPT", 5)
    page = demo.build(files)
    visitor, _ = open_page(browser, demo.launch(page, tmp_path), DESK)
    choose(visitor, 0, files[TUX])
    visitor.get_by_label("Clear").wait_for()
    uploaded = [path for path in tmp_path.rglob("*.wav") if path.is_file()]
    assert uploaded
    end = time.monotonic() + 120
    while any(path.exists() for path in uploaded):
        assert time.monotonic() < end
        time.sleep(1)
    page.close()


def test_half_an_hour_silence_and_nothing_are_told_apart(files, tmp_path):
    bad, good = bad_files(tmp_path), files[TUX]
    assert "longer than 5 minutes; cut a piece out of it" in demo.compare(bad["long"], good)
    silence = demo.compare(good, bad["silence"])
    assert "Cannot tell" in silence and "too little speech" in silence and str(tmp_path) not in silence
    assert "The second recording is missing: record it" in demo.compare(good, None)
    assert "it is no longer here" in demo.compare(good, str(tmp_path / "gone.wav"))


def test_what_nobody_foresaw_shows_no_traceback_and_no_path(files, monkeypatch, capsys):
    monkeypatch.setattr(compare, "compare", lambda *_: 1 / 0)
    page = demo.compare(files[TUX], files[TUX])
    assert "Something went wrong on this side" in page and "division" not in page
    assert "ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_names_are_text_and_voices_stay_with_their_visitor(files):
    voices, other = Voices(), Voices()
    assert demo.remember(voices, "<b>Eve</b>", files[TUX]) == ""
    assert "&lt;b&gt;Eve" in demo.people(voices) and "Nobody" in demo.people(other)
    assert "The name is missing" in demo.remember(voices, " ", files[TUX])
    assert "&lt;b&gt;Eve" in demo.who(voices, files[TUX])
    assert "None of them" in demo.who(voices, files[CARLO[0]])


@pytest.mark.parametrize(
    ("ratio", "probability", "said"),
    [
        (
            9.1,
            0.99989,
            "about 9,000 times likelier if one person speaks in both than if two people do. .* more than 99.9%",
        ),
        (-2.0, 0.119, "about 7.4 times likelier if two people speak than if one does. .* of 11.9%"),
    ],
)
def test_an_answer_in_words(ratio, probability, said):
    answer = {"score": 0.5, "log_likelihood_ratio": ratio, "probability": probability, "operating_point": POINT}
    assert re.search(said, demo.sentences(answer)[0])
    assert "list mini" in demo.sentences(answer)[1] and "2.8% of pairs" in demo.sentences(answer)[1]


def test_what_the_page_is_told_reaches_its_questions_and_its_gate(monkeypatch, tmp_path):
    seen, files = [], {name: name for name in (*CARLO, TUX)}
    monkeypatch.setattr(demo, "example_files", lambda folder: files)
    monkeypatch.setattr(demo.comparison, "compare", lambda *given: seen.append(given))
    monkeypatch.setattr(demo, "drawn_voices", lambda *_: None)
    monkeypatch.setattr(demo, "_listen_to_this_machine_alone", lambda: None)
    monkeypatch.setattr(demo, "build", lambda *given: SimpleNamespace(block_thread=lambda: seen.append(given)))
    monkeypatch.setattr(demo, "launch", lambda page, folder, *given: seen.append((folder.name, *given)))
    line = ["--model", "own.keras", "--host", "0.0.0.0", "--port", "7000", "--trust", "a.org", "--trust", "b.org"]
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # main sets it
    assert demo.main(line) == 0
    pair = [files[name] for name in demo.EXAMPLES["Two voices"]]
    uploads = ("uploads", "0.0.0.0", 7000, ["a.org", "b.org"])
    assert seen == [(*pair, "own.keras"), uploads, (files, "own.keras")]


def test_every_question_of_the_page_is_answered_by_its_model(monkeypatch):
    asked = []
    monkeypatch.setattr(demo, "remember", lambda voices, name, file, model: asked.append((name, file, model)) or "")
    page = demo.build({name: f"/{name}" for name in (*CARLO, TUX)}, "own.keras")
    events = [event.fn for event in page.fns.values()]
    assert [event.keywords for event in events if hasattr(event, "keywords")] == [{"model": "own.keras"}] * 3
    named = {event.__name__: event for event in events if not hasattr(event, "keywords")}
    named["remembered"](Voices(), "ada", "f.wav")
    named["tried"](Voices())
    people = [(name, f"/{file}", "own.keras") for name, file in demo.PEOPLE.items()]
    assert asked == [("ada", "f.wav", "own.keras"), *people]
    count = collections.Counter(getattr(event, "__name__", "compare") for event in events)
    assert count == {"compare": 3, "<lambda>": 2, "remembered": 1, "tried": 1, "who": 2, "last_results": 1}
    said = [block.value for block in page.blocks.values() if isinstance(getattr(block, "value", None), str)]
    assert demo.WELCOME in said and any("What the answer is not" in text for text in said)
    kinds = {(event.concurrency_id, event.api_visibility) for event in page.fns.values()}
    assert kinds == {("encoder", "private")}, "one visitor is served at a time, and no program"
    queue = page._queue
    assert (queue.max_size, queue.default_concurrency_limit, queue.sleep_when_free) == (demo.WAITING, 1, demo.LOOKS)
    assert page.delete_cache == (demo.SWEPT, demo.KEPT) and not page.analytics_enabled and not page.api_open
    sounds = [(block.type, block.sources) for block in page.blocks.values() if hasattr(block, "sources")]
    assert sounds == [("filepath", ["upload", "microphone"])] * 4
    assert [block.time_to_live for block in page.blocks.values() if hasattr(block, "time_to_live")] == [3600]


def test_the_gate_knows_the_names_the_folder_and_the_limits_of_its_page(monkeypatch, tmp_path):
    gates, swept, asked = [], [], []

    async def served(options):
        app = SimpleNamespace(middleware_stack="gradio")
        async with options["app_kwargs"]["lifespan"](app):
            await asyncio.sleep(0)  # the sweeper begins
        await asyncio.sleep(0)
        swept.append("gone")

    def launched(server_name, server_port, **options):
        thread = threading.Thread(target=lambda: asyncio.run(served(options)))  # this one may serve the browser
        thread.start()
        thread.join()
        asked.append({name: value for name, value in options.items() if name not in ("app_kwargs", "theme")})
        return None, f"{server_name}:{server_port} {options['max_file_size']}", None

    async def keep_small(*given):
        swept.append(given)
        try:
            await asyncio.sleep(3600)
        finally:
            swept.append("ended with the page")

    monkeypatch.setattr(demo.gate, "Gate", lambda *given: gates.append(given))
    monkeypatch.setattr(demo.gate, "keep_small", keep_small)
    page = SimpleNamespace(launch=launched)
    assert demo.launch(page, tmp_path, "0.0.0.0", 7000, ["a.org"]) == f"0.0.0.0:7000 {demo.LARGEST}"
    demo.launch(page, tmp_path)
    limits = (demo.NEEDED, demo.LARGEST, demo.POLICY)
    assert gates == [("gradio", tmp_path, ["a.org", "0.0.0.0"], *limits), ("gradio", tmp_path, (), *limits)]
    assert swept == [(tmp_path, demo.KEPT, demo.SWEPT), "ended with the page", "gone"] * 2
    nothing = ("ssr_mode", "enable_monitoring", "run_history", "share", "mcp_server", "pwa")  # that others could see
    shown = {"max_file_size": demo.LARGEST, "footer_links": [], "quiet": True, "css": demo.STYLE, "show_error": True}
    assert asked == [dict.fromkeys(nothing, False) | shown | {"prevent_thread_lock": True}] * 2


def test_a_wrong_model_is_refused_before_anything_is_served(capsys):
    assert demo.main(["--model", "campluss"]) == 2
    assert "did you mean 'campplus'" in capsys.readouterr().err
    with pytest.raises(RequestError):
        demo.listen(None, "the recording")


SERVES = """
import sys
from sv_utils import demo

demo.comparison.compare = demo.drawn_voices = lambda *_: None
sys.exit(demo.main([]))
"""


def leave(address, visitor):
    """Begin an upload and go away: what a visitor does whose connection breaks."""
    host, port = re.search(r"//([^:/]+):(\d+)", address).groups()
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nX-Forwarded-For: {visitor}\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 90000\r\n\r\n"
    head += '--b\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + bytes(5000))


def status(address, **headers):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(urllib.request.Request(address, headers=headers), timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    "endings, aborted",
    [
        ([signal.SIGTERM], 0),
        pytest.param([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], 200, marks=pytest.mark.long),
    ],
)
def test_the_page_is_served_past_proxies_and_leaves_nothing_however_it_is_ended(endings, aborted, tmp_path):
    """Also after it was killed, once the next one has started."""
    nowhere = {
        "http_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "all_proxy": "socks5://127.0.0.1:9",
    }
    environment = os.environ | nowhere | {"TMPDIR": str(tmp_path), "GRADIO_ANALYTICS_ENABLED": "False"}
    left = []
    for ending in endings:
        served = subprocess.Popen([sys.executable, "-c", SERVES], env=environment, stdout=subprocess.PIPE, text=True)
        address = served.stdout.readline().split()[4]
        assert not any(path.exists() for path in left)
        (uploads,) = tmp_path.glob("sv_utils_page-*/uploads")
        assert status(address) == 200 and uploads.parent.stat().st_mode & 0o777 == 0o700
        if ending == signal.SIGTERM:
            assert status(address, Host="evil.example") == 400
            assert status(address, Origin="http://evil.example") == 403
            assert status(address + "monitoring/summary") == status(address + "gradio_api/deep_link") == 404
            for number in range(aborted):
                leave(address, f"192.0.2.{number}")
            end = time.monotonic() + 60
            while aborted and list(uploads.iterdir()):
                assert time.monotonic() < end, "what was aborted stays"
                time.sleep(0.1)
        (uploads / "voice.wav").touch()
        served.send_signal(ending)
        served.communicate(timeout=120)
        left = [path for path in tmp_path.iterdir() if path.name.startswith("sv_utils")]
        assert len(left) == (ending == signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_two_visitors_see_nothing_of_each_other(files, uploads, address):
    """One uploads; the other asks for it in every way that Gradio knows, and for what it may have heard."""
    body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="mine.wav"\r\n\r\nvoice\r\n--b--\r\n'
    request = urllib.request.Request(
        f"{address}gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=b"}
    )
    (mine,) = json.load(urllib.request.urlopen(request, timeout=60))
    assert mine.startswith(str(uploads)) and re.fullmatch("[0-9a-f]{64}", mine.split("/")[-2])
    assert mine.split("/")[-2] != hashlib.sha256(b"voice").hexdigest()  # nobody can guess where it lies
    for path in (f"file={uploads}", f"file={uploads}/", "queue/status", "info", "api_info", "app_id", "runs", "user"):
        if status(f"{address}gradio_api/{path}") == 200:
            said = urllib.request.urlopen(f"{address}gradio_api/{path}", timeout=60).read()
            assert b"mine.wav" not in said, path
    for path in (
        "monitoring",
        "monitoring/summary",
        "gradio_api/deep_link",
        "gradio_api/run/compare",
        "gradio_api/queue/status",
    ):
        assert status(address + path) == 404
