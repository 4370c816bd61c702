"""
A page to try with one's own voice: ``python -m sv_utils.demo`` (or ``make demo``).

It listens on this machine alone unless ``--host`` (or ``GRADIO_SERVER_NAME``, as on a Hugging Face Space) says
otherwise, and needs no network. Recordings lie in a temporary folder for ten minutes at most; embeddings only in
memory. A gate stands before the page (`base.gate`): it answers to its own names, to no other page, and only what it
needs.
"""

import argparse
import asyncio
import contextlib
import functools
import html
import importlib.util
import os
import signal
import sys
import zipfile
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sv_utils import corpora
from sv_utils.base import gate, paths, terminal
from sv_utils.base.errors import RequestError, WorkError, command
from sv_utils.models import pretrained
from sv_utils.pipeline.profile import Profile
from sv_utils.reports import figures, tables
from sv_utils.speech import archives, audio
from sv_utils.voices import compare as comparison
from sv_utils.voices import enrolment, identify, measured, recordings
from sv_utils.voices.enrolment import Voices

LONGEST = 300  # of a recording [s]
LARGEST = 60 * 2**20  # of a file [bytes]
DRAWN = 20  # of a recording in the figures [s]
MOST = 30  # voices that a visitor can enrol
LOOKS = 0.05  # how often a page that waits looks for a question [s]
WAITING = 40  # visitors in the queue; one is served at a time, with all cores
KEPT = 600  # a recording that nobody removed is removed after [s]
SWEPT = 30  # between two looks at what is to be removed [s]
NEEDED = (  # of all that Gradio would answer: the page itself, its looks, uploads, questions and their answers
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(assets|static|svelte)/[\w./-]*)"
    r"|/gradio_api/(startup-events|upload|upload_progress|queue/(join|data)|heartbeat/\w+|info|file={folder}/.*)/?"
)
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self' https://huggingface.co"
)
EXAMPLES = {
    "One voice, twice": ("wav/mv041/carlo/00013.wav", "wav/mv041/carlo/00014.wav"),
    "Two voices": ("wav/mv041/carlo/00013.wav", "wav/mv058/tuxpaint-nl/00014.wav"),
}
PEOPLE = {"Carlo": "wav/mv041/carlo/00013.wav", "Tux": "wav/mv058/tuxpaint-nl/00014.wav"}
HEADLINES = {"same speaker": "Same voice", "different speakers": "Different voices", "cannot tell": "Cannot tell"}
SIGNS = {"same speaker": "✓", "different speakers": "✗", "cannot tell": "?"}
STYLE = """
.gradio-container { max-width: 66rem !important; margin: 0 auto !important }
.gradio-container h1 { font-size: clamp(1.7rem, 6vw, 2.4rem); letter-spacing: -0.01em; margin: 0.6rem 0 0.2rem }
.html-container { padding: 0 !important }
.lead, figcaption { color: var(--body-text-color); opacity: 0.78 }
.lead { max-width: 44rem; font-size: 1.05rem }
.answer { border-left: 6px solid var(--tone); padding: 0.25rem 0 0.25rem 1.1rem; margin: 0.5rem 0 }
.answer h2 { font-size: 1.7rem; margin: 0 0 0.3rem; color: var(--body-text-color) }
.answer p, .words p { max-width: 44rem; font-size: 1.02rem; line-height: 1.55; margin: 0.35rem 0 }
.answer .sign { display: inline-block; width: 1.5em; height: 1.5em; line-height: 1.5em; margin-right: 0.35em;
  color: #fff; text-align: center; border-radius: 50%; background: var(--tone); font-size: 0.8em }
.same { --tone: #0b6aa8 } .different { --tone: #b35900 } .unsure { --tone: #5a6776 } .wrong { --tone: #b3261e }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem 2rem;
  margin-top: 1rem; align-items: start }
figure { margin: 0; min-width: 0 }
figure svg { width: 100%; height: auto; max-width: 40rem; display: block }
figure svg text { font-family: inherit }
figcaption { font-size: 0.92rem; max-width: 40rem }
.chips span { display: inline-block; border: 1px solid var(--border-color-primary); border-radius: 1rem;
  padding: 0.1rem 0.7rem; margin: 0.15rem 0.3rem 0.15rem 0; font-size: 0.88rem }
.scroll { overflow-x: auto; contain: inline-size }
.scroll table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; border: 0 !important }
.scroll :is(thead, tbody, tr) { border: 0 !important }
.scroll :is(th, td) { text-align: left; padding: 0.35rem 0.9rem 0.35rem 0 !important; white-space: nowrap;
  border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important }
.words details { margin-top: 0.8rem }
.words summary { cursor: pointer }
.words pre { white-space: pre-wrap; font-size: 0.85rem }
:is(a, button, input, summary, [tabindex]):focus-visible { outline: 3px solid #2f8fd0 !important; outline-offset: 2px }
"""
WELCOME = """<h1>Same voice?</h1><p class='lead'>Record or choose recordings of speech, of a few seconds each. The page
says whether one person speaks in them, and how sure it can be.</p>"""
ABOUT = """
**What the answer is not.** It is no proof: error rates differ between kinds of recordings and between groups of people.
Replayed, converted and synthetic speech is not noticed.

**What is kept.** Nothing. A recording is removed ten minutes after it came, or when the page is stopped; what
you enrol stays in memory, for you alone, for an hour. A voice is biometric data: compare voices with the consent of
those who speak.
"""


def plainly(answer: Callable[..., str]) -> Callable[..., str]:
    """Turn what goes wrong in an answer into a sentence on the page; what nobody foresaw goes to the log."""

    @functools.wraps(answer)
    def wrapped(*arguments: Any, **options: Any) -> str:
        try:
            return answer(*arguments, **options)
        except (RequestError, WorkError) as error:
            said = str(error)
            for file in filter(os.path.isabs, (words for words in arguments if isinstance(words, str))):
                said = said.replace(file, "the recording")  # its place is ours
            return panel("wrong", "That did not work", [html.escape(said[0].upper() + said[1:])])
        except Exception as error:  # a visitor can do nothing with its text, which may name files of this machine
            print(f"sv_utils.demo: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            said = "Something went wrong on this side; it is not your recording's fault. Please try again."
            return panel("wrong", "That did not work", [said])

    return wrapped


@plainly
def compare(first: str | None, second: str | None, model: str = "campplus") -> str:
    """
    Say in words and figures whether one voice speaks in two recordings.

    Parameters
    ----------
    first, second : str or None
        Files; None where there is none yet.
    model : str
        As of `compare.compare`.

    Returns
    -------
    str
        HTML.
    """
    names = {"first": first, "second": second}
    waveforms = [listen(file, f"the {name} recording") for name, file in names.items()]
    assert first and second  # as they were listened to
    answer = comparison.compare(first, second, model)
    for name, file in names.items():
        answer["warnings"] = [text.replace(f"{file}:", f"The {name} recording:") for text in answer["warnings"]]
    shown = [marks(recording["chips"]) for recording in answer["recordings"]]
    for name, recording in zip(names, answer["recordings"]):
        recording["file"] = f"{name} recording"
    kind = {"same speaker": "same", "different speakers": "different"}.get(answer["decision"], "unsure")
    voices = drawn_voices(waveforms, ["first recording", "second recording"])
    details = (
        f"<details><summary>The exact figures</summary><pre>{html.escape(comparison.text(answer))}</pre></details>"
    )
    title = f"<span class='sign' aria-hidden='true'>{SIGNS[answer['decision']]}</span>{HEADLINES[answer['decision']]}"
    said = panel(kind, title, sentences(answer), answer["warnings"])
    voices = [voice + chips for voice, chips in zip(voices, shown)]
    return beside(said, drawn_scores(answer, model)) + beside(*voices) + details


def marks(chips: list[str]) -> str:
    """The conditions of a recording, a chip each."""
    return f"<p class='chips'>{''.join(f'<span>{html.escape(text)}</span>' for text in chips)}</p>"


def listen(file: str | None, name: str) -> np.ndarray:
    """
    Decode a visitor's recording.

    Returns
    -------
    np.ndarray [shape=(samples,), dtype=float32]
        At 16 kHz, in [-1, 1).

    Raises
    ------
    RequestError
        If there is none, or it cannot be heard.
    """
    if not file:
        raise RequestError(f"{name[0].upper()}{name[1:]} is missing: record it with the microphone, or choose a file.")
    try:
        return audio.decode(file, max_seconds=LONGEST).samples / np.float32(32768)
    except (OSError, audio.AudioError) as error:
        reason = error if isinstance(error, audio.AudioError) else "it is no longer here, choose it anew"
        if "longer than" in str(reason):
            reason = f"it is longer than {LONGEST // 60} minutes; cut a piece out of it"
        known = "wav, mp3, m4a, ogg, flac and webm can be read"
        raise RequestError(f"{name[0].upper()}{name[1:]} cannot be used: {reason} ({known}).") from None


def sentences(answer: dict) -> list[str]:
    """Tell an answer of `compare.compare` to someone who has never heard of a likelihood ratio."""
    point = answer["operating_point"]
    if answer["score"] is None:
        few = f"at least {recordings.SHORTEST:g} s are needed in each recording"
        return [f"There is too little speech to compare: {few}. Noise, music and silence are no speech."]
    ratio, chance = answer["log_likelihood_ratio"], answer["probability"]
    one, other = ("one person speaks in both", "two people do") if ratio > 0 else ("two people speak", "one does")
    wrong, missed = (f"{rates[0]:.1%}" for rates in (point["false_accept"], point["miss"]))
    sure = f"{min(max(chance, 0.001), 0.999):.1%}"
    sure = f"{'less' if chance < 0.001 else 'more'} than {sure}" if not 0.001 <= chance <= 0.999 else sure
    return [
        f"What was heard is about {comparison.times(ratio)} times likelier if {one} than if {other}. "
        f"If both were as likely before, one voice now has a probability of {sure}.",
        f"The score is {answer['score']:.2f}; from {point['threshold']:.2f} on we say <em>same voice</em>. "
        f"Measured on {point['n_speakers']} voices that the system had not heard before "
        f"({point.get('condition', 'list ' + point['list'])}): "
        f"{wrong} of pairs of different voices were taken for one, {missed} of pairs of one voice were missed. "
        + html.escape(comparison.other_days(point)),
    ]


def panel(kind: str, title: str, paragraphs: list[str], warnings: Sequence[str] = ()) -> str:
    """A heading with sentences below; `title` and `paragraphs` are ours, `warnings` are text."""
    said = "".join(f"<p>{text}</p>" for text in paragraphs)
    said += "".join(f"<p>⚠ {html.escape(text)}</p>" for text in warnings)
    return f"<div class='answer {kind}'><h2>{title}</h2>{said}</div>"


def drawn_scores(answer: dict, model: str) -> str:
    """The score among those of the list that the error rates come from."""
    among = measured.among(answer, model)
    figure = figures.score_histogram(**among, names=("one voice", "two voices"), width=5.2)
    return _figure(
        figure,
        "Where your score lies among those of pairs whose answer is known, recorded as yours were. Deep in one hill "
        "the answer is clear; between the hills it is weak.",
    )


def drawn_voices(waveforms: list[np.ndarray], names: list[str]) -> list[str]:
    """Waveform and spectrogram of each recording."""
    from sv_utils.models import features  # and with it Keras

    shown = []
    for waveform, name in zip(waveforms, names):
        piece = waveform[: DRAWN * 16_000]
        spectrogram = np.asarray(features.LogSpectrogram()(np.resize(piece, max(len(piece), 1600))[None]))[0]
        said = f", first {DRAWN} s" if len(waveform) > len(piece) else ""
        shown.append(_figure(figures.voices([piece], [f"{name}{said}"], [spectrogram]), ""))
    return shown


def beside(*parts: str) -> str:
    """Side by side where there is room, else one below the other."""
    return f"<div class='beside'>{''.join(f'<div>{part}</div>' for part in parts)}</div>"


def _figure(figure: Any, caption: str) -> str:
    return f"<figure>{figures.svg(figure)}<figcaption>{caption}</figcaption></figure>"


@plainly
def remember(voices: Voices, name: str, file: str | None, model: str = "campplus") -> str:
    """
    Enrol a voice in memory.

    Parameters
    ----------
    voices : enrol.Voices
        Of one visitor; changed in place.
    name : str
    file : str or None
    model : str
        As of `compare.compare`.

    Returns
    -------
    str
        What makes the recording weak, as HTML.
    """
    listen(file, "the recording")
    if not name.strip():
        raise RequestError("the name is missing: say whose voice it is.")
    name = enrolment.called(name)  # as it is kept, so that a recording is held against what is known of it
    if name not in voices.sums and len(voices.sums) >= MOST:
        raise RequestError(f"there are {MOST} voices already, which is as many as this page keeps.")
    assert file
    sides, warnings = enrolment.heard([file], model)
    enrolment.refuse_others(name, sides, model, voices.side(name) if name in voices.sums else None, "record it anew")
    voices.add(model, pretrained.fingerprint(model), name, list(sides.values()))
    return "".join(f"<p>⚠ {html.escape(name)}: {html.escape(_unplaced(text, file))}</p>" for text in warnings)


def people(voices: Voices) -> str:
    """Who is enrolled, as HTML."""
    if not voices.sums:
        return "<p>Nobody is enrolled yet.</p>"
    counts = {name: enrolment.counted(count) for name, count in voices.counts.items()}
    names = ", ".join(f"<b>{html.escape(name)}</b> ({count})" for name, count in counts.items())
    return f"<p>Enrolled: {names}. Three recordings or more, of different days, are better than one.</p>"


@plainly
def who(voices: Voices, file: str | None) -> str:
    """Say in words whose of the visitor's voices is heard in a recording, as HTML."""
    if not voices.sums:
        raise RequestError("nobody is enrolled yet: enrol one voice or more, then ask.")
    listen(file, "the recording")
    assert file
    answer = identify.among(voices, file)
    kind, title = {"known": ("same", html.escape(answer["name"] or "")), "unknown": ("different", "None of them")}.get(
        answer["decision"], ("unsure", "Cannot tell")
    )
    point, rows = answer["operating_point"], answer["candidates"][:5]
    these = f"one of these {len(voices.sums)}" if len(voices.sums) > 1 else "this voice"
    said = [
        f"From a score of {point['threshold']:.2f} on a voice counts as one of them. At most "
        f"{answer['stranger_accepted']:.1%} of strangers would be taken for {these}, as measured on "
        f"{html.escape(comparison.speakers(point))}."
    ]
    if not rows:
        said = ["No speech was found, or too little. Noise, music and silence are no speech."]
    numbers = [(row["name"], f"{row['score']:.2f}", f"{row['log_likelihood_ratio']:+.1f}") for row in rows]
    cells = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in numbers)
    head = "<tr><th>voice</th><th>score</th><th>log-likelihood ratio</th></tr>"
    table = marks(answer["recording"]["chips"]) + (f"<table>{head}{cells}</table>" if rows else "")
    warnings = [_unplaced(text, file) for text in answer["warnings"]]
    return panel(kind, title, said, warnings) + f"<div class='scroll' tabindex='0'>{table}</div>"


def _unplaced(text: str, file: str) -> str:
    return text.removeprefix(f"{file}: ")


@plainly
def last_results() -> str:
    """Table and DET curves of the run whose results are the newest, as HTML."""
    found = sorted(paths.outputs().glob("*/results.csv"), key=lambda path: path.stat().st_mtime)
    if not found:
        return "<p>Nothing has been trained on this machine yet; <code>make reproduce</code> does it.</p>"
    profile = found[-1].parent.name
    results = tables.read_results(profile)
    table = tables.summary(results).to_html(index=False, border=0)
    parts = [f"<h2>The last run: {html.escape(profile)}</h2><p>{html.escape(tables.session_note(profile))}</p>"]
    parts += [f"<div class='scroll' tabindex='0'>{table}</div><div class='beside'>"]
    for name, rows in tables.read_scores(Profile.read(profile)).items():
        of = {m: [t.loc[t["label"] == label, "score"].to_numpy() for label in (1, 0)] for m, t in rows.items()}
        systems = {model: (target, nontarget) for model, (target, nontarget) in of.items()}
        said = "How often different voices are accepted, against how often one voice is missed, at every threshold."
        parts.append(_figure(figures.det_curves(systems, title=name), f"{said} Closer to the lower left is better."))
    return "".join([*parts, "</div>"])


def example_files(folder: Path) -> dict[str, str]:
    """Write the examples' recordings, out of the embedded corpus, into a folder: name to file."""
    corpus = corpora.get("mini")
    assert corpus.bundled is not None
    parts = [corpus.bundled / file for file, _ in corpus.remotes[1].parts]
    names = {name for pair in EXAMPLES.values() for name in pair} | set(PEOPLE.values())
    with zipfile.ZipFile(archives.open_parts(parts)) as archive:
        return {name: archive.extract(name, folder) for name in sorted(names)}


def build(files: dict[str, str], model: str = "campplus") -> Any:
    """
    Build the page.

    Parameters
    ----------
    files : dict
        As of `example_files`.
    model : str
        As of `compare.compare`.

    Returns
    -------
    gradio.Blocks
        Its queue set up, not yet launched.
    """
    import gradio

    with gradio.Blocks(title="Same voice?", analytics_enabled=False, delete_cache=(SWEPT, KEPT)) as page:
        gradio.HTML(WELCOME)
        with gradio.Tab("Two voices"):
            _two_recordings(files, model)
        with gradio.Tab("Who is this?"):
            _enrolled(files, model)
        with gradio.Tab("Results") as tab:
            results = gradio.HTML("", elem_classes="words")
            tab.select(last_results, None, results, **_ours())
        gradio.Markdown(ABOUT)
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    page._queue.sleep_when_free = LOOKS  # Gradio's own millisecond keeps a twelfth of a core busy with nothing
    return page


def _two_recordings(files: dict[str, str], model: str) -> None:
    import gradio

    with gradio.Row():
        sides = [_recorder(f"{name} recording") for name in ("First", "Second")]
    with gradio.Row():
        go = gradio.Button("Compare", variant="primary", min_width=120)
        tries = {title: gradio.Button(f"Try: {title.lower()}", min_width=120) for title in EXAMPLES}
    answer = gradio.HTML("", elem_id="answer", elem_classes="words")
    run = {"fn": functools.partial(compare, model=model), "inputs": sides, "outputs": answer, **_ours()}
    go.click(**run)
    for title, button in tries.items():
        chosen = [files[name] for name in EXAMPLES[title]]
        button.click(lambda chosen=chosen: chosen, None, sides, **_ours()).then(**run)


def _enrolled(files: dict[str, str], model: str) -> None:
    import gradio

    voices = gradio.State(Voices(), time_to_live=3600)

    def remembered(voices: Voices, name: str, file: str | None) -> tuple:
        return voices, remember(voices, name, file, model) + people(voices), None

    def tried(voices: Voices) -> Any:
        said = "".join(remember(voices, name, files[file], model) for name, file in PEOPLE.items())
        return voices, said + people(voices), files[EXAMPLES["One voice, twice"][1]]

    with gradio.Row():
        with gradio.Column(min_width=280):
            name = gradio.Textbox(label="Name", placeholder="Whose voice is it?", max_length=enrolment.LONGEST_NAME)
            known = _recorder("Recording of this person")
            with gradio.Row():
                add = gradio.Button("Enrol", variant="primary", min_width=120)
                example = gradio.Button("Try: two people", min_width=120)
            voices_here = gradio.HTML(people(Voices()), elem_id="enrolled", elem_classes="words")
        with gradio.Column(min_width=280):
            asked = _recorder("Recording of someone")
            ask = gradio.Button("Who is this?", variant="primary")
            answer = gradio.HTML("", elem_id="who", elem_classes="words")
    add.click(remembered, [voices, name, known], [voices, voices_here, known], **_ours())
    ask.click(who, [voices, asked], answer, **_ours())
    example.click(tried, voices, [voices, voices_here, asked], **_ours()).then(who, [voices, asked], answer, **_ours())


def _recorder(label: str) -> Any:
    import gradio

    options = gradio.WaveformOptions(waveform_color="#8aa0b5", waveform_progress_color="#0b6aa8")
    return gradio.Audio(
        label=label,
        sources=["upload", "microphone"],
        type="filepath",
        buttons=[],
        editable=False,
        waveform_options=options,
    )


def _ours() -> dict:
    """Of every event: one queue, and no address for programs."""
    return {"api_visibility": "private", "concurrency_id": "encoder", "show_progress": "minimal"}


def launch(
    page: Any, folder: Path, host: str | None = None, port: int | None = None, names: Collection[str] = ()
) -> str:
    """
    Serve the page of `build` in the background.

    Parameters
    ----------
    page : gradio.Blocks
    folder : Path
        Where what is uploaded lies, of this page alone: it is swept.
    host : str, optional
        Address to listen on.
    port : int, optional
    names : collection of str
        Other names that the page may be called by.

    Returns
    -------
    str
        Its address.
    """
    import gradio

    font = ["system-ui", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]  # of the visitor's machine
    look = gradio.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=font, font_mono=["ui-monospace", "monospace"]
    )
    options = {
        "max_file_size": LARGEST,
        "footer_links": [],
        "ssr_mode": False,
        "quiet": True,
        "css": STYLE,
        "show_error": True,
    }
    options |= {"theme": look, "prevent_thread_lock": True}
    options |= {"enable_monitoring": False, "run_history": False, "share": False, "mcp_server": False, "pwa": False}

    @contextlib.asynccontextmanager
    async def gated(app: Any) -> AsyncIterator[None]:
        """Before the first request: the gate stands before everything, also before what Gradio itself answers."""
        known = [*names, host] if host else names
        app.middleware_stack = gate.Gate(app.middleware_stack, folder, known, NEEDED, LARGEST, POLICY)
        sweeper = asyncio.create_task(gate.keep_small(folder, KEPT, SWEPT))
        yield
        sweeper.cancel()

    options["app_kwargs"] = {"lifespan": gated}
    _, address, _ = page.launch(server_name=host, server_port=port, **options)
    return address


PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def _listen_to_this_machine_alone() -> None:
    """Forget proxies, which would be asked for our own page, and end by every signal as by Ctrl-C, which cleans up."""
    for name in [name for name in os.environ if name.lower() in PROXIES]:
        del os.environ[name]
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _stop)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


@command
def main(argv: list[str] | None = None) -> None:
    """Serve the page until it is stopped (Ctrl-C)."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.demo", description=main.__doc__)
    parser.add_argument(
        "--model", default="campplus", help="campplus (default), or an evaluated training's .keras file"
    )
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1, this machine alone)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument(
        "--trust",
        action="append",
        metavar="NAME",
        help="a name that the page may be called by, again "
        "for each; needed behind a name of one's own (default: $SPACE_HOST)",
    )
    arguments = parser.parse_args(argv)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if importlib.util.find_spec("gradio") is None:
        raise RequestError(
            "the page needs gradio; install it with: make setup, or pip install 'sv_utils[demo]'"
        ) from None
    names = arguments.trust or os.environ.get("SPACE_HOST", "").replace(",", " ").split()
    with gate.private_folder("sv_utils_page") as home:
        folder, files = home / "uploads", example_files(home / "examples")
        folder.mkdir()
        os.environ["GRADIO_TEMP_DIR"] = str(folder)  # what is uploaded goes when the page does
        with terminal.without_notices():  # the first visitor need not wait for the encoder, nor a wrong model be served
            first, second = (files[name] for name in EXAMPLES["Two voices"])
            comparison.compare(first, second, arguments.model)
            drawn_voices([np.zeros(16_000, np.float32)], [""])
        _listen_to_this_machine_alone()
        page = build(files, arguments.model)
        address = launch(page, folder, arguments.host, arguments.port, names)
        print(f"The page is at {address} (Ctrl-C stops it)", flush=True)
        page.block_thread()


if __name__ == "__main__":
    raise SystemExit(main())
