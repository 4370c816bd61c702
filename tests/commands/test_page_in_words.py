"""What the page says: its sentences, figures and tables from answers that are written out, without an encoder."""

import os
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import sv_utils.models
from sv_utils import demo
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.speech import audio
from sv_utils.voices.conditions import Conditions
from sv_utils.voices.enrolment import Voices
from sv_utils.voices.judging import Side

GOOD = Conditions(5.0, 8000.0, 40.0, 0.0, 0.0, 0.1)
POINT = {"name": "equal error", "threshold": 0.41, "threshold_of": "cosine", "threshold_from": "dev", "list": "mini"}
POINT |= {"n_speakers": 18, "n_target": 10, "n_nontarget": 20, "false_accept": [0.028, 0.01, 0.05]}
POINT |= {"miss": [0.007, 0, 0.01], "condition": "wide band"}


def answered(decision="different speakers", **others):
    sides = [
        {"file": f"/tmp/{name}.wav", "segment": None, "chips": [f"chip of {name}", "<quiet>"]} for name in ("a", "b")
    ]
    found = {"decision": decision, "score": 0.3, "cosine": 0.3, "log_likelihood_ratio": -2.0, "probability": 0.119}
    found |= {"prior": 0.5, "model": "own.keras", "operating_point": POINT, "recordings": sides}
    return found | {"warnings": ["/tmp/a.wav: <mostly> not speech", "/tmp/b.wav: too short", "so near"]} | others


@pytest.fixture
def page(monkeypatch):
    """The page with an answer of ours; what it drew is told by name."""
    answers = []
    monkeypatch.setattr(demo, "listen", lambda file, name: (file, name))
    monkeypatch.setattr(demo.comparison, "compare", lambda *asked: answers.pop())
    monkeypatch.setattr(demo, "drawn_voices", lambda heard, names: [f"drawn {pair}" for pair in zip(heard, names)])
    monkeypatch.setattr(demo, "drawn_scores", lambda answer, model: f"scores of {model}")
    return answers


def test_an_answer_names_the_recordings_and_never_their_places(page):
    page.append(answered())
    said = demo.compare("/tmp/a.wav", "/tmp/b.wav", "own.keras")
    shown, details = said.split("<details>")
    sign = "<span class='sign' aria-hidden='true'>✗</span>Different voices"
    assert shown.startswith(f"<div class='beside'><div><div class='answer different'><h2>{sign}</h2><p>What was heard")
    warnings = ["The first recording: &lt;mostly&gt; not speech", "The second recording: too short", "so near"]
    assert re.findall("⚠ (.*?)</p>", shown) == warnings
    assert "</div><div>scores of own.keras</div>" in shown
    drawn = [f"drawn (('/tmp/{name}.wav', 'the {place} recording'), '{place} recording')" for name, place in PLACES]
    chips = [f"<p class='chips'><span>chip of {name}</span><span>&lt;quiet&gt;</span></p>" for name, _ in PLACES]
    assert shown.endswith(demo.beside(*(figure + marks for figure, marks in zip(drawn, chips))))
    assert "  first recording: chip of a, &lt;quiet&gt;\n  second recording: chip of b" in details
    assert "/tmp" not in details and "cosine 0.300, threshold 0.410 (own.keras)" in details
    for decision, kind, headline in (("same speaker", "same", "✓</span>Same voice"), ("cannot tell", "unsure", "?<")):
        page.append(answered(decision))
        assert f"<div class='answer {kind}'><h2><span class='sign' aria-hidden='true'>{headline}" in demo.compare(
            "/tmp/a.wav", "/tmp/b.wav"
        )


PLACES = (("a", "first"), ("b", "second"))


def test_an_answer_in_sentences_has_the_figures_of_its_point():
    first, second = demo.sentences(answered())
    assert first == (
        "What was heard is about 7.4 times likelier if two people speak than if one does. If both were as likely "
        "before, one voice now has a probability of 11.9%."
    )
    assert second == (
        "The score is 0.30; from 0.41 on we say <em>same voice</em>. Measured on 18 voices that the system had not "
        "heard before (wide band): 2.8% of pairs of different voices were taken for one, 0.7% of pairs of one voice "
        "were missed. Both recordings of a voice were of one session there: between days, rooms and devices expect "
        "more errors."
    )
    assert "less than 0.1%" in demo.sentences(answered(probability=0.0001))[0]
    assert "of 99.9%." in demo.sentences(answered(probability=0.999))[0]
    (silent,) = demo.sentences(answered(score=None))
    assert silent.startswith("There is too little speech to compare: at least 0.5 s are needed in each recording.")


def test_what_goes_wrong_is_a_sentence_without_places(page, monkeypatch, capsys):
    for error, said in (
        (RequestError("/tmp/a.wav: <odd> file"), "<p>The recording: &lt;odd&gt; file</p>"),
        (WorkError("no network"), "<p>No network</p>"),
        (ValueError("/tmp/a.wav"), "<p>Something went wrong on this side; it is not your recording's fault."),
    ):
        monkeypatch.setattr(demo.comparison, "compare", lambda *_, error=error: raising(error))
        told = demo.compare("/tmp/a.wav", "/tmp/b.wav")
        assert told.startswith(f"<div class='answer wrong'><h2>That did not work</h2>{said}") and "/tmp" not in told
    assert capsys.readouterr().err == "sv_utils.demo: ValueError: /tmp/a.wav\n"


def raising(error):
    raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (audio.AudioError("not audio"), "cannot be used: not audio (wav, mp3"),
        (audio.AudioError("it is longer than 300 s"), "cannot be used: it is longer than 5 minutes; cut a piece out"),
        (FileNotFoundError(2, "No such file", "/tmp/a"), "cannot be used: it is no longer here, choose it anew (wav"),
    ],
)
def test_a_recording_is_decoded_up_to_a_length_or_told_of(monkeypatch, error, said):
    seen = []
    sound = SimpleNamespace(samples=np.array([16384, -32768], np.int16))
    monkeypatch.setattr(audio, "decode", lambda file, max_seconds: seen.append((file, max_seconds)) or sound)
    assert demo.listen("a.wav", "the recording").tolist() == [0.5, -1.0] and seen == [("a.wav", demo.LONGEST)]
    with pytest.raises(RequestError, match="The second recording is missing: record it with the microphone, or choose"):
        demo.listen(None, "the second recording")
    monkeypatch.setattr(audio, "decode", lambda *_, **__: raising(error))
    with pytest.raises(RequestError, match=re.escape(f"The first recording {said}")):
        demo.listen("a.wav", "the first recording")


def test_who_is_enrolled_and_what_makes_a_recording_weak_is_told(page, monkeypatch):
    side = Side(np.array([1.0, 0.0]), GOOD)
    asked = []
    monkeypatch.setattr(demo.enrolment, "heard", lambda files, model: ({"f": side}, [f"{files[0]}: <short>", "odd"]))
    monkeypatch.setattr(demo.enrolment, "refuse_others", lambda *given: asked.append(given))
    monkeypatch.setattr(demo.pretrained, "fingerprint", lambda model: "print")
    voices = Voices()
    assert demo.people(voices) == "<p>Nobody is enrolled yet.</p>"
    told = demo.remember(voices, " <b>Eve ", "/tmp/a.wav", "own.keras")
    assert told == "<p>⚠ &lt;b&gt;Eve: &lt;short&gt;</p><p>⚠ &lt;b&gt;Eve: odd</p>"
    demo.remember(voices, "<b>Eve", "/tmp/a.wav", "own.keras")
    assert demo.people(voices) == (
        "<p>Enrolled: <b>&lt;b&gt;Eve</b> (2 recordings). Three recordings or more, of different days, are better than "
        "one.</p>"
    )
    monkeypatch.setattr(demo, "MOST", 1)
    assert "There are 1 voices already, which is as many as this page keeps." in demo.remember(voices, "bob", "a.wav")
    assert "&lt;short" in demo.remember(voices, " <b>Eve", "/tmp/a.wav", "own.keras") and len(asked) == 3
    ann = Voices()
    for spelling in ("Ann Lee", " Ann   Lee "):
        demo.remember(ann, spelling, "/tmp/a.wav", "own.keras")
    assert ann.counts == {"Ann Lee": 2} and [known is None for *_, known, _ in asked[3:]] == [True, False]
    assert "The name is missing: say whose voice it is" in demo.remember(Voices(), "  ", "a.wav")


def test_whose_voice_it_is_is_told_with_the_nearest_five(page, monkeypatch):
    rows = [{"name": f"<v{k}>", "score": 0.5 - k / 10, "log_likelihood_ratio": 2.0 - k} for k in range(6)]
    found = {"decision": "known", "name": "<v0>", "candidates": rows, "operating_point": POINT}
    found |= {"stranger_accepted": 0.17, "recording": {"chips": ["quiet"]}, "warnings": ["/tmp/a.wav: too short"]}
    seen = []
    monkeypatch.setattr(demo.identify, "among", lambda *given: seen.append(given) or found)
    voices = Voices(sums=dict.fromkeys("abcdef"))
    said = demo.who(voices, "/tmp/a.wav")
    assert seen == [(voices, "/tmp/a.wav")]
    cells = "".join(f"<tr><td>&lt;v{k}&gt;</td><td>{0.5 - k / 10:.2f}</td><td>{2 - k:+.1f}</td></tr>" for k in range(5))
    head = "<tr><th>voice</th><th>score</th><th>log-likelihood ratio</th></tr>"
    assert said == (
        "<div class='answer same'><h2>&lt;v0&gt;</h2><p>From a score of 0.41 on a voice counts as one of them. At most "
        "17.0% of strangers would be taken for one of these 6, as measured on speakers of list mini.</p>"
        "<p>⚠ too short</p></div><div class='scroll' tabindex='0'><p class='chips'><span>quiet</span></p>"
        f"<table>{head}{cells}</table></div>"
    )
    found |= {"decision": "unknown", "name": None}
    told = demo.who(Voices(sums={"a": 1}), "/tmp/a.wav")
    assert told.startswith("<div class='answer different'><h2>None of them</h2>") and "taken for this voice, as" in told
    found |= {"decision": "cannot tell", "candidates": []}
    told = demo.who(voices, "/tmp/a.wav")
    assert told.startswith("<div class='answer unsure'><h2>Cannot tell</h2><p>No speech was found, or too little.")
    assert "<table>" not in told
    assert "Nobody is enrolled yet: enrol one voice or more" in demo.who(Voices(), "/tmp/a.wav")
    monkeypatch.setattr(demo, "listen", lambda file, name: raising(RequestError(f"{name} is too long")))
    for told in (demo.who(voices, "/tmp/a.wav"), demo.remember(voices, "ada", "/tmp/a.wav")):
        assert "<p>The recording is too long</p>" in told


def test_figures_are_of_the_scores_of_the_model_and_of_the_beginning_of_each_recording(monkeypatch):
    seen = []
    monkeypatch.setattr(demo.measured, "among", lambda answer, model: {"target": answer, "label": model})
    monkeypatch.setattr(demo.figures, "score_histogram", lambda **given: seen.append(given) or "scores")
    monkeypatch.setattr(demo.figures, "svg", lambda figure: f"<svg of {figure}>")
    assert demo.drawn_scores("answer", "own").startswith("<figure><svg of scores><figcaption>Where your score lies")
    names = ("one voice", "two voices")
    assert seen == [{"target": "answer", "label": "own", "names": names, "width": 5.2}]
    spectrogram = SimpleNamespace(LogSpectrogram=lambda: lambda waves: waves[:, :3])
    monkeypatch.setitem(sys.modules, "sv_utils.models.features", spectrogram)
    monkeypatch.setattr(sv_utils.models, "features", spectrogram, raising=False)
    monkeypatch.setattr(
        demo.figures, "voices", lambda waves, names, shown: f"{len(waves[0])} {names[0]} {shown[0].tolist()}"
    )
    long, short = np.full(20 * 16_000 + 1, 2.0), np.array([1.0, 0.0])
    assert demo.drawn_voices([long, short], ["first", "second"]) == [
        "<figure><svg of 320000 first, first 20 s [2.0, 2.0, 2.0]><figcaption></figcaption></figure>",
        "<figure><svg of 2 second [1.0, 0.0, 1.0]><figcaption></figcaption></figure>",
    ]


def test_the_results_are_those_of_the_run_that_ended_last(monkeypatch, tmp_path):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    assert "Nothing has been trained on this machine yet" in demo.last_results()
    for time, name in ((2, "older"), (3, "newest"), (1, "oldest")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.csv").touch()
        os.utime(tmp_path / name / "results.csv", (time, time))
    drawn, scores = [], pd.DataFrame({"label": [1, 0, 1], "score": [0.9, 0.1, 0.8]})
    monkeypatch.setattr(demo.tables, "read_results", lambda profile: f"results of {profile}")
    monkeypatch.setattr(demo.tables, "summary", lambda results: pd.DataFrame({"of": [results]}))
    monkeypatch.setattr(demo.tables, "session_note", lambda profile: f"<note> of {profile}")
    monkeypatch.setattr(demo.tables, "read_scores", lambda profile: {"a list": {"softmax": scores}})
    monkeypatch.setattr(demo.Profile, "read", lambda name: name)
    monkeypatch.setattr(demo.figures, "det_curves", lambda systems, title: drawn.append((systems, title)) or "curves")
    monkeypatch.setattr(demo.figures, "svg", lambda figure: f"<svg of {figure}>")
    said = demo.last_results()
    assert said.startswith("<h2>The last run: newest</h2><p>&lt;note&gt; of newest</p>")
    assert "results of newest" in said and said.count("<svg of curves>") == 1 and said.endswith("</div>")
    ((systems, title),) = drawn
    told = {model: [side.tolist() for side in scores] for model, scores in systems.items()}
    assert (told, title) == ({"softmax": [[0.9, 0.8], [0.1]]}, "a list")


@pytest.mark.parametrize(("given", "names"), [(["--trust", "a.org"], ["a.org"]), ([], ["b.org", "c.org"])])
def test_the_page_is_tried_before_it_is_served_and_lays_uploads_where_they_go_with_it(monkeypatch, given, names):
    seen = []
    monkeypatch.setenv("SPACE_HOST", "b.org,c.org")
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")  # main sets them
    monkeypatch.delenv("GRADIO_ANALYTICS_ENABLED")
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(demo, "example_files", lambda folder: {name: name for name in demo.EXAMPLES["Two voices"]})
    monkeypatch.setattr(demo.comparison, "compare", lambda *asked: seen.append(("compared", asked[2])))
    monkeypatch.setattr(demo, "drawn_voices", lambda waves, _: seen.append(("drawn", len(waves[0]))))
    monkeypatch.setattr(demo, "_listen_to_this_machine_alone", lambda: seen.append("proxies forgotten"))
    monkeypatch.setattr(demo, "build", lambda files, model: SimpleNamespace(block_thread=lambda: seen.append("served")))

    def launch(page, folder, host, port, known):
        uploads = str(folder) == os.environ["GRADIO_TEMP_DIR"] and folder.is_dir()
        seen.append(("launched", uploads, host, port, known, os.environ["GRADIO_ANALYTICS_ENABLED"]))

    monkeypatch.setattr(demo, "launch", launch)
    assert demo.main(given) == 0
    tried = [("compared", "campplus"), ("drawn", 16_000), "proxies forgotten"]
    assert seen == [*tried, ("launched", True, None, None, names, "False"), "served"]
    assert not os.path.exists(os.environ["GRADIO_TEMP_DIR"]) and paths.REPO.is_dir()
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert demo.main([]) == 2
