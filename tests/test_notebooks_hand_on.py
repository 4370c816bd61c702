"""What a notebook hands on: each of its parameters reaches what does the work, seen by what that is given."""

import hashlib
import importlib
import json
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest

from sv_utils.base import paths
from sv_utils.evaluation import calibration, evaluate, trials
from sv_utils.models import altered, complexity, encoders, pieces, pretrained
from sv_utils.pipeline import keys, records
from sv_utils.pipeline.profile import Profile
from sv_utils.reports import expected, reproduction, tables
from sv_utils.speech import acquisition, inspection, manifest, splits


class Enough(Exception):
    """What was to be seen has been seen."""


def code(notebook, given):
    """The code cells of a notebook, the first followed by other values of its parameters."""
    cells = nbformat.read(paths.NOTEBOOKS / f"{notebook}.ipynb", 4).cells
    first, *others = [cell.source for cell in cells if cell.cell_type == "code"]
    return ["\n".join([first, *(f"{name} = {value!r}" for name, value in given.items())]), *others]


def cell_with(cells, words):
    (found,) = [cell for cell in cells if words in cell]
    return found


CLASSES = 21
TRAININGS = {  # the head that a loss trains with, what of the parameters it is given, and speakers in a batch
    "03_train_softmax": ("softmax.SoftmaxHead", (CLASSES,), {"scale": 3.0}, ()),
    "04_train_contrastive": ("contrastive.ContrastiveHead", (), {"margin": 0.3}, (4,)),
    "05_train_cosface": ("cosface.CosFaceHead", (CLASSES,), {"scale": 3.0}, ()),
    "06_train_adacos": ("adacos.AdaCosHead", (CLASSES,), {"dynamic": False, "margin": 0.1}, ()),
    "07_train_aam": ("aam.AamHead", (CLASSES,), {"scale": 3.0, "centres": 2, "hard_margin": 0.06}, ()),
    "07_train_angular_prototypical": ("prototypes.AngularPrototypicalHead", (), {}, (4,)),
    "07_train_ge2e": ("prototypes.Ge2eHead", (), {}, (4,)),
    "07_train_sphereface2": ("sphereface2.SphereFace2Head", (CLASSES,), {"scale": 3.0}, ()),
}
ASKED = {"profile": "own", "seed": 5, "initial_model": "begin.keras", "batch_size": 24, "architecture": {"width": 4}}
ASKED |= {"phases": [{"epochs": 3}, {"epochs": 9}], "engine": {"readers": 7}, "outcome": {"keep": "last"}}


@pytest.mark.parametrize("notebook", TRAININGS)
def test_a_training_is_what_its_parameters_say(notebook, monkeypatch):
    from sv_utils.training import loop
    from sv_utils.training.data import Data

    head, arguments, options, per_batch = TRAININGS[notebook]
    seen = {}

    def training(*given, **named):
        seen["training"] = given, named
        raise Enough

    def crops(*given):
        seen["crops"] = given
        return [SimpleNamespace(n_classes=7), SimpleNamespace(n_classes=CLASSES)]

    data = SimpleNamespace(labels=[0], speakers=["a"], validation=SimpleNamespace(labels=[1]), crops=crops)
    model = SimpleNamespace(name="model", count_params=lambda: 9, output_shape=(None, 8))
    monkeypatch.setattr(loop, "start", lambda *given: seen.update(start=given) or "devices")
    monkeypatch.setattr(Data, "read", lambda *given: seen.update(read=given) or data)
    monkeypatch.setattr(loop, "make_encoder", lambda *given: seen.update(encoder=given) or model)
    monkeypatch.setattr(loop, "Training", training)
    monkeypatch.setattr(expected, "watch", lambda *given: given)
    module, name = head.split(".")
    made = importlib.import_module(f"sv_utils.losses.{module}")
    monkeypatch.setattr(made, name, lambda *given, **named: (given, named))
    named = {"speakers_per_batch": 4} if per_batch else {}
    cells = code(notebook, ASKED | {"stage": f"{notebook}@own"} | options | named)
    with pytest.raises(Enough):
        exec("\n".join(cell for cell in cells if "augment.examples" not in cell), {})
    given, named = seen["training"]
    phases, engine = given[5], given[8]
    assert [phase["epochs"] for phase in phases] == [3, 9] and engine["readers"] == 7
    assert seen["start"] == (5, engine) and seen["read"] == (paths.stage_dir("own", "02_prep"),)
    assert seen["crops"] == (phases, 24, 5, *per_batch)
    assert seen["encoder"][0] == "begin.keras" and seen["encoder"][1]["width"] == 4
    assert given[:2] == (model, (arguments, options)) and [one.n_classes for one in given[2]] == [7, CLASSES]
    assert given[3] is data.validation and given[4] == paths.stage_dir("own", f"{notebook}@own")
    accuracy = "nearest_neighbour_accuracy" if per_batch else "sparse_categorical_accuracy"
    assert given[6].__name__ == accuracy and given[7] == "devices"
    assert named["outcome"]["keep"] == "last" and named["watch"] == ("own", f"{notebook}@own")


EVALUATION = {"profile": "own", "stage": "08_evaluate@m", "lists": ["O"], "seed": 5, "replicates": 30, "batch_size": 7}
EVALUATION |= {"top_k": 11, "qmf_trials": 13, "cohort_utterances": 17, "part_utterances": 19}


def heard(part):
    """Two utterances of a speaker, the ids of which say in which part they are."""
    return pd.DataFrame({"id": [f"{part}/1", f"{part}/2"], "speaker": part})


class Embeddings:
    """Embeds each utterance as its number, and remembers for whom and with which lengths it was asked."""

    made, asked = [], []

    def __init__(self, *given):
        self.encoder = str(given[0])
        self.made.append(given)

    def embed(self, part, network, speech, lengths=None, rows=None):
        self.asked.append((part, network, speech, None if lengths is None else lengths.tolist(), rows))
        return np.array([[1.0, 0.0], [0.6, 0.8]])[: 2 if rows is None else len(rows)], 1.0


def test_an_evaluation_is_what_its_parameters_say(monkeypatch):
    import sv_utils.speech.reader as reader
    import sv_utils.training.augment  # noqa: F401  (it takes `Speech` for its types: before there is another)

    seen, loaded = {}, {"network": "without its last layer"}
    Embeddings.made, Embeddings.asked = [], []

    def kept(name, result):
        return lambda *given, **named: seen.update({name: (given, named)}) or result

    def judge(*given):
        seen["judge"] = given
        raise Enough

    parts = {part: heard(part) for part in ("train", "validation", "test", "short")}
    scorer = SimpleNamespace(
        calibrations={evaluate.COSINE: SimpleNamespace(save=lambda path: seen.update(saved=path))},
        score=kept("score", "scored"),
        judge=judge,
    )
    folder, trained = paths.stage_dir("own", "02_prep"), paths.stage_dir("own", "07_train_aam@m")
    monkeypatch.setattr(Profile, "read", lambda name: SimpleNamespace(models={"m": "07_train_aam@m"}))
    monkeypatch.setattr(records, "read_key", lambda *given: given)
    monkeypatch.setattr(manifest, "read_utterances", lambda path: path)
    monkeypatch.setattr(splits, "judged", kept("judged", parts))
    monkeypatch.setattr(reader, "Speech", lambda rows: SimpleNamespace(of=rows["speaker"][0], samples=np.array([5, 6])))
    monkeypatch.setattr(calibration, "shortened", lambda lengths, seed: lengths - seed)
    monkeypatch.setattr(pretrained, "load", lambda file: seen.update(load=file) or "model")
    monkeypatch.setattr(encoders, "unnormalised", lambda model: loaded["network"])
    monkeypatch.setattr(encoders, "load", lambda file: f"loaded {file.name}")
    monkeypatch.setattr(keys, "code_key", lambda *given: given)
    monkeypatch.setattr(pieces, "Pieces", Embeddings)
    monkeypatch.setattr(trials, "read", lambda path: path.relative_to(folder).as_posix())
    monkeypatch.setattr(evaluate, "draw_parts", kept("parts", ({"O": "part of O"}, np.array([1]))))
    monkeypatch.setattr(evaluate.Scorer, "fit", kept("fit", scorer))
    monkeypatch.setattr(complexity, "properties", lambda model: {"of": model})
    monkeypatch.setattr(pretrained, "fingerprint", lambda file: f"print of {file}")
    cells = code("08_evaluate", EVALUATION)
    with pytest.raises(Enough):
        exec("\n".join(cells[:4]), {})
    assert seen["judged"][0] == (folder / "utterances.csv", 17, 5)
    embeddings = paths.embeddings_dir("own", "m"), ("models", "training/augment"), 7
    assert Embeddings.made == [(trained / f"{name}.keras", *embeddings) for name in ("model", "initial")]
    lengths = {"train": [5, 6], "validation": [5, 6], "test": [5, 6], "short": [0, 1]}
    *own, (part, network, speech, _, rows) = Embeddings.asked
    assert [(one, by, where.of, heard) for one, by, where, heard, _ in own] == [
        (one, "without its last layer", one, heard) for one, heard in lengths.items()
    ]
    assert (part, network, speech.of, rows.tolist()) == ("untrained", "loaded initial.keras", "test", [1])
    listed, tested, *counts = seen["parts"][0]
    assert listed == {"O": "trials/O.txt"} and tested.ids.tolist() == ["test/1", "test/2"] and counts == [19, 5]
    (name, *sides, dev), options = seen["fit"]
    assert (name, dev) == ("m", "validation_trials.txt")
    assert [side.ids[0] for side in sides] == ["train/1", "validation/1", "short/1"]
    assert options == {"use_norms": True, "top_k": 11, "qmf_trials": 13, "seed": 5}
    scored, before = seen["score"][0], seen["score"][0][3]
    assert scored[:2] == ("O", "trials/O.txt") and scored[2] is tested and scored[4] == "part of O"
    assert before.tolist() == [[1.0, 0.0], [1.0, 0.0]], "what the part does not name stays as it is"
    said, profile, loss, made, *drawn = seen["judge"]
    assert (said, profile, loss, drawn) == ("scored", "own", "aam", [5, 30])
    assert made["key"] == ("own", "07_train_aam@m") and made["seconds"] == 1.0
    assert made["encoder"] == {
        "of": "model",
        "speech_seconds": 11 / 16_000,
        "sha256": f"print of {trained / 'model.keras'}",
    }
    assert seen["load"] == trained / "model.keras"
    assert seen["saved"] == paths.stage_dir("own", "08_evaluate@m") / "calibration.json"


@pytest.mark.parametrize("telephone", [True, False])
def test_altered_speech_groups_and_the_hardest_trials_are_those_that_the_parameters_name(telephone):
    seen, cells = {"altered": [], "judged": []}, code("08_evaluate", {})

    def embed_altered(*given):
        seen["altered"].append(given)
        return np.array([3, 4]), np.eye(2)

    def at_condition(found, name, changed, whole, drawn):
        seen["judged"].append((found, name, changed.samples.tolist(), whole, drawn))
        return {"cut": name}

    table = pd.DataFrame({"id": ["a/1", "b/1"], "speaker": ["a", "b"], "gender": ["f", None], "nationality": ""})
    test = SimpleNamespace(embeddings="whole embeddings")
    given = {"name": "m", "cuts": [2], "telephone": telephone, "hardest_trials": 7, "players": 0, "display": str}
    given |= {"rows": [{"list": "O", "model": "m"}, {"list": "O", "model": "m + AS-norm"}], "scored": {"O": "scored O"}}
    given |= {"parts": {"test": table.assign(language="", quality="")}, "heard": {"test": test}, "model": "model"}
    given |= {"speech": {"test": "speech"}, "lengths": {"test": "lengths"}, "trained": "pieces", "drawn": "drawn"}
    given |= {
        "scorer": SimpleNamespace(at_condition=at_condition),
        "Markdown": str,
        "out": paths.outputs(),
        "json": json,
    }
    given["augment"] = SimpleNamespace(telephone="by telephone")
    given["altered"] = SimpleNamespace(conditions=altered.conditions, embed_altered=embed_altered)
    of_list = {"by_known": lambda *pair: seen.update(known=pair) or "groups", "Heard": evaluate.Heard}
    given["evaluate"] = SimpleNamespace(hardest=lambda *pair: seen.update(hardest=pair) or "hardest", **of_list)
    told = SimpleNamespace(conditions=list, groups=list, hardest=lambda rows: seen.update(rows=list(rows)) or "")
    words = SimpleNamespace(durations=str, groups=str, hardest=str)
    given |= {"evaluated": told, "sentences": words, "tables": SimpleNamespace(markdown=str, escaped=str)}
    exec(cell_with(cells, "embed_altered"), given)
    exec(cell_with(cells, "hardest_trials)").partition("with paths")[0], given)
    phone = [("telephone, 2 s", 2, "by telephone"), ("telephone", np.inf, "by telephone")] if telephone else []
    conditions = [("2 s", 2, None), ("full", np.inf, None), *phone]
    asked = [(one[:2], (one[2].name, one[2].seconds, one[2].change), one[3:]) for one in seen["altered"]]
    assert asked == [(("model", "speech"), one, ("whole embeddings", "pieces", "drawn")) for one in conditions]
    assert seen["judged"] == [("scored O", name, [3, 4], "lengths", "drawn") for name, _, _ in conditions]
    found, known = seen["known"]
    groups = {name: values.tolist() for name, values in known.items()}
    assert found == "scored O" and groups.pop("gender") == ["f", ""]
    assert groups == {name: ["", ""] for name in ("nationality", "language", "quality")}
    assert seen["hardest"] == ("scored O", 7)
    told = {"by_group": "groups", "by_duration": [{"cut": name} for name, _, _ in conditions], "hardest": "hardest"}
    assert seen["rows"] == [{"list": "O", "model": "m"} | told]


def test_a_download_takes_its_source_and_is_inspected_as_the_preparation_will_ask(monkeypatch):
    seen = {"fetch": [], "inspect": []}

    def fetch(corpus, **named):
        seen["fetch"].append((corpus.name, named))
        return []

    def inspect(corpus, archives, lists, **named):
        seen["inspect"].append((corpus.name, lists, named))
        return SimpleNamespace(told=[])

    def full(found, encoding):
        seen["full"] = list(found), encoding
        raise Enough

    asked = {"lists": ["mini"], "missing_trials": "drop", "allow_incomplete": True, "encoding": "flac"}
    monkeypatch.setattr(Profile, "read", lambda name: SimpleNamespace(parameters={"02_prep": asked}))
    monkeypatch.setattr(inspection, "refuse_unwritable", lambda names: seen.update(unwritable=names))
    monkeypatch.setattr(inspection, "refuse_small_disk", lambda *given: seen.update(small=given))
    monkeypatch.setattr(acquisition, "fetch", fetch)
    monkeypatch.setattr(inspection, "inspect", inspect)
    monkeypatch.setattr(inspection, "refuse_full", full)
    cells = code("01_download", {"corpora": ["mini", "musan"], "source": "here", "connections": 9})
    with pytest.raises(Enough):
        exec("\n".join(cell for cell in cells if "tables.styled" not in cell), {})
    assert seen["unwritable"] == ["mini", "musan"]
    chosen, *told = seen["small"]
    assert [corpus.name for corpus in chosen] == ["mini", "musan"] and told == ["here", "flac"]
    named = {"source": "here", "connections": 9}
    assert seen["fetch"] == [("mini", named), ("musan", named)]
    named = {"missing_trials": "drop", "allow_incomplete": True, "encoding": "flac"}
    assert seen["inspect"] == [("mini", ["mini"], named), ("musan", [], named)] and seen["full"] == (
        ["mini", "musan"],
        "flac",
    )


def test_trials_of_a_preparation_are_drawn_as_its_parameters_say(monkeypatch, tmp_path):
    """Those of validation, and those of own speech without a list."""
    seen, written, handed_on = [], [], []

    def utterances(*_, **__):
        raise Enough

    made = SimpleNamespace(
        make=lambda ids, *given: seen.append((list(ids), *given)) or "drawn",
        write=lambda *given: written.append(given),
        same_session_share=lambda drawn: 0.5,
    )
    rows = {"id": ["a/1", "b/1", "c/1"], "split": ["train", "validation", "test"], "subset": ["dev", "dev", "test"]}
    table = pd.DataFrame(rows | {"speaker": list("abc"), "gender": ["f", "m", "f"], "error": "", "decoded": True})
    own = SimpleNamespace(is_drawn=lambda name: True, list_path=lambda name: f"list {name}", session_note="")
    asked = {"validation_targets": 3, "validation_nontargets": 4, "test_targets": 5, "test_nontargets": 6}
    cells, given = code("02_prep", asked | {"seed": 7, "same_gender_share": 0.25}), {}
    exec(cells[0], given)
    given |= {"trials": made, "splits": splits, "paths": paths, "pd": pd, "json": json, "hashlib": hashlib}
    given |= {"corpora": ["own"], "speaking": ["own"], "corpus": {"own": own}, "lists_of": {"own": ["folder"]}}
    given |= {"views": {"own": table}, "table": table.assign(seconds=1.0, quality=""), "refused": [], "notes": ["a"]}
    given |= {"out": tmp_path, "records": SimpleNamespace(hand_on=lambda out, digests: handed_on.extend(digests))}
    monkeypatch.setattr(splits, "utterances", utterances)
    with pytest.raises(Enough):
        exec(cell_with(cells, "test_targets, test_nontargets"), given)
    exec(cell_with(cells, "validation_trials.txt"), given)
    assert seen == [(["c/1"], 5, 6, 7, {"c": "f"}, 0.25), (["b/1"], 3, 4, 7)]
    assert written == [("list folder", "drawn"), (tmp_path / "validation_trials.txt", "drawn")]
    assert sorted(handed_on) == ["augmentation.csv", "session_notes.json", "utterances.csv"]
    left = pd.read_csv(tmp_path / "utterances.csv")
    assert left["id"].tolist() == ["a/1", "b/1", "c/1"] and "seconds" not in left


def test_a_report_resamples_as_it_is_asked_and_judges_its_own_results(monkeypatch):
    seen = {}
    monkeypatch.setattr(Profile, "read", lambda name: f"profile {name}")
    for name in ("write_results", "read_scores", "properties"):
        monkeypatch.setattr(tables, name, lambda asked, name=name: f"{name} of {asked}")
    monkeypatch.setattr(tables, "paired_differences", lambda *given: seen.update(compared=given) or "differences")
    for name in ("session_note", "provenance_note"):
        monkeypatch.setattr(tables, name, lambda *given: str(given))
    monkeypatch.setattr(tables, "findings", lambda *given: seen.update(findings=given) or "")
    monkeypatch.setattr(reproduction, "write", lambda *given: seen.update(verdict=given) or {"sentence": ""})
    exec("\n".join(code("09_report", {"profile": "own", "seed": 5, "replicates": 30})[:2]), {})
    results = "write_results of profile own"
    assert seen["compared"] == ("read_scores of profile own", 30, 5)
    assert seen["findings"] == (results, "differences") and seen["verdict"] == ("profile own", results)


def test_two_recordings_are_compared_as_the_parameters_say(tmp_path):
    seen, cells = {}, code("10_verify", {})
    compared = SimpleNamespace(compare=lambda *given: seen.update(compare=given) or {}, text=lambda answer: "same\n a")
    given = {"rec1": "a.wav", "rec2": "b.wav", "model": "own.keras", "prior": 0.1, "out": tmp_path, "paths": paths}
    given |= {"compare": compared, "json": json, "tables": tables, "display": print, "Markdown": str}
    exec(cell_with(cells, "compare.compare"), given)
    assert seen["compare"] == ("a.wav", "b.wav", "own.keras", 0.1) and (tmp_path / "answer.json").read_text() == "{}"
    among = SimpleNamespace(among=lambda *pair: seen.update(among=pair) or {})
    drawn = SimpleNamespace(score_histogram=lambda **named: None)
    exec(cell_with(cells, "measured.among"), given | {"measured": among, "figures": drawn, "answer": "the answer"})
    assert seen["among"] == ("the answer", "own.keras")
