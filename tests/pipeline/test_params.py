import json
import re

import pytest
import tiny_repository
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.pipeline import params
from sv_utils.pipeline.profile import Profile
from sv_utils.pipeline.stages import Stage

SECTIONS = {"01_download": {}, "02_prep": {}, "03_train_softmax": {}, "08_evaluate": {}, "09_report": {}}
TRAINING_DEFAULTS = """\
# every kind of default
seed = 1
learning_rate = 0.1
loss: str = "softmax"
mixed = False
checkpoint = None
sizes = (32, 64)
tags = []
extra = {}
augmentation = {"noise": 0.5, "room": {"size": 3, "wet": 0.25}}
stages = [{"epochs": 10, "learning_rate": 0.1, "freeze": []}]
"""


class WithoutAliases(yaml.SafeDumper):
    """Writes an object that occurs twice out twice."""

    def ignore_aliases(self, data):
        return True


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Notebooks with every kind of default, and a function that writes params/mine.yaml."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(paths, "REPO", tmp_path)
    monkeypatch.setenv("SV_PARAMS", str(tmp_path))
    names = ["01_download", "02_prep", "04_train_contrastive", "05_train_cosface", "08_evaluate", "09_report"]
    for name in names:
        tiny_repository.write_notebook(tmp_path / f"{name}.ipynb", "seed = 1\n", "1 / 0")
    tiny_repository.write_notebook(tmp_path / "03_train_softmax.ipynb", TRAINING_DEFAULTS, "1 / 0")

    def write(text: str = "", **sections) -> None:
        document = yaml.dump(SECTIONS | sections, Dumper=WithoutAliases, sort_keys=False)
        (tmp_path / "mine.yaml").write_text(text or document)

    return write


def refused(match: str, stage: str = "03_train_softmax") -> None:
    with pytest.raises(RequestError, match=match) as caught:
        Profile.read("mine").of(stage)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def training(text: str) -> str:
    return "01_download:\n02_prep:\n08_evaluate:\n09_report:\n03_train_softmax:\n" + text


def test_defaults_come_from_the_notebook(house):
    house()
    assert Profile.read("mine").of("03_train_softmax") == {
        "seed": 1,
        "learning_rate": 0.1,
        "loss": "softmax",
        "mixed": False,
        "checkpoint": None,
        "sizes": [32, 64],
        "tags": [],
        "extra": {},
        "augmentation": {"noise": 0.5, "room": {"size": 3, "wet": 0.25}},
        "stages": [{"epochs": 10, "learning_rate": 0.1, "freeze": []}],
        "profile": "mine",
        "stage": "03_train_softmax",
    }


def test_files_are_read_as_utf_8_on_any_system(house, tmp_path, another_encoding):
    cells = [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "title = 'é'"}]
    notebook = {"cells": [{"cell_type": "code", "source": ""}, *cells]}
    (tmp_path / "09_report.ipynb").write_text(json.dumps(notebook, ensure_ascii=False), "utf-8")
    (tmp_path / "mine.yaml").write_text(training("  loss: ä"), "utf-8")
    assert (Profile.read("mine").of("09_report")["title"], Profile.read("mine").of("03_train_softmax")["loss"]) == (
        "é",
        "ä",
    )


def test_later_sections_override_earlier_ones(house):
    house(common={"seed": 2}, train={"learning_rate": 0.2}, **{"04_train_contrastive": {"seed": 5}})
    assert Profile.read("mine").of("02_prep")["seed"] == 2
    assert Profile.read("mine").of("08_evaluate@softmax")["seed"] == 2
    assert Profile.read("mine").of("03_train_softmax")["seed"] == 2
    assert Profile.read("mine").of("03_train_softmax")["learning_rate"] == 0.2
    assert Profile.read("mine").of("04_train_contrastive") == {
        "seed": 5,
        "profile": "mine",
        "stage": "04_train_contrastive",
    }


def test_dicts_merge_deeply_over_all_sections(house):
    house(
        train={"augmentation": {"room": {"wet": 1}}, "extra": {"a": {"b": 1}}},
        **{"03_train_softmax": {"augmentation": {"room": {"size": 9}}, "extra": {"a": {"c": 2}}}},
    )
    resolved = Profile.read("mine").of("03_train_softmax")
    assert resolved["augmentation"] == {"noise": 0.5, "room": {"size": 9, "wet": 1.0}}
    assert resolved["extra"] == {"a": {"b": 1, "c": 2}}


def test_dicts_in_a_list_are_completed_from_the_first_default(house):
    house(**{"03_train_softmax": {"stages": [{"epochs": 3}, {"learning_rate": 1, "freeze": ["bn"]}]}})
    assert Profile.read("mine").of("03_train_softmax")["stages"] == [
        {"epochs": 3, "learning_rate": 0.1, "freeze": []},
        {"epochs": 10, "learning_rate": 1.0, "freeze": ["bn"]},
    ]


def test_a_whole_number_for_a_float_becomes_a_float(house):
    house(**{"03_train_softmax": {"learning_rate": 1}})
    value = Profile.read("mine").of("03_train_softmax")["learning_rate"]
    assert (value, type(value)) == (1.0, float)


def test_a_none_default_takes_any_value(house):
    for value in (None, 3, "a", [1, "b"], {"c": 1.5}):
        house(**{"03_train_softmax": {"checkpoint": value}})
        assert Profile.read("mine").of("03_train_softmax")["checkpoint"] == value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"sead": 1}, r"03_train_softmax\.sead is unknown \(did you mean 'seed'\?\)"),
        ({"augmentation": {"nois": 1}}, r"03_train_softmax\.augmentation\.nois is unknown .*'noise'"),
        ({"stages": [{"epochs": 1}, {"epoch": 1}]}, r"stages\[1\]\.epoch is unknown .*'epochs'"),
        ({"seed": True}, r"03_train_softmax\.seed must be a whole number, not True"),
        ({"seed": 1.0}, r"seed must be a whole number, not 1\.0"),
        ({"seed": None}, r"seed must be a whole number, not None"),
        ({"seed": "seven"}, r"seed must be a whole number, not 'seven'"),
        ({"learning_rate": "fast"}, r"learning_rate must be a number, not 'fast'"),
        ({"learning_rate": False}, r"learning_rate must be a number, not False"),
        ({"learning_rate": 10**400}, r"learning_rate must be a number"),
        ({"mixed": 1}, r"mixed must be true or false, not 1"),
        ({"mixed": "true"}, r"mixed must be true or false, not 'true'"),
        ({"loss": 3}, r"loss must be text, not 3: put it in quotes"),
        ({"sizes": 32}, r"sizes must be a list, not 32: write \[32\]"),
        ({"sizes": [32, "64"]}, r"sizes\[1\] is text where a number belongs: write 64 instead"),
        ({"sizes": [32, [64]]}, r"sizes\[1\] must be a whole number, not \[64\]"),
        ({"augmentation": 0.5}, r"augmentation must be `key: value` lines, not 0\.5"),
        ({"augmentation": {"room": []}}, r"augmentation\.room must be `key: value` lines, not \[\]"),
        ({"stages": [1]}, r"stages\[0\] must be `key: value` lines, not 1"),
        ({"profile": "other"}, r"profile is set by the run itself"),
    ],
)
def test_wrong_keys_and_types_are_refused(house, content, sentence):
    house(**{"03_train_softmax": content})
    refused(sentence)


@pytest.mark.parametrize(
    ("written", "mend"),
    [
        ("1e-3", "1.0e-3"),
        ("5e-05", "5.0e-5"),
        ("1E4", "1.0e+4"),
        ("1.5e3", "1.5e+3"),
        ("'0.1'", "0.1"),
        ("-2e0", "-2.0e+0"),
    ],
)
def test_numbers_that_yaml_reads_as_text_are_named_with_their_mend(house, written, mend):
    house(training(f"  learning_rate: {written}\n"))
    refused(rf"03_train_softmax\.learning_rate is text where a number belongs: write {re.escape(mend)} instead of ")
    house(training(f"  learning_rate: {mend}\n"))
    assert Profile.read("mine").of("03_train_softmax")["learning_rate"] == float(written.strip("'"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (training("  seed: 1\n  seed: 2\n"), r"line 7: key 'seed' stands twice"),
        (training("  seed: 1\n02_prep:\n"), r"key '02_prep' stands twice"),
        (training("  seed: [1\n"), "is not readable as YAML"),
        (training("\tseed: 1\n"), "is not readable as YAML"),
        (training("  extra: &a {b: 1}\n  augmentation: *a\n"), r"line 7: aliases"),
        (training("  extra: !!python/object/apply:os.system [touch hacked]\n"), "is not readable as YAML"),
        (training("  seed: !!int abc\n"), "is not readable as YAML"),
        (training("  checkpoint: 2024-99-99\n"), "is not readable as YAML"),
        (training("  checkpoint: 2024-01-01\n"), "checkpoint is of type date; put it in quotes"),
        (training("  learning_rate: .nan\n"), "learning_rate is nan; give a finite number"),
        (training("  extra: {1: a}\n"), "extra has the key 1, which is no text"),
        (training("  loss: no\n"), "loss must be text, not False: put it in quotes"),
        (training("  - seed\n"), "section 03_train_softmax must hold"),
        (training("  extra: " + "[" * 5000 + "\n"), "is not readable as YAML"),
        ("- 1\n", "must hold sections"),
        ("\n", "must hold sections"),
        ("\x00", "is not readable as YAML"),
        ("common: {}\n", r"section 01_download is missing; add `01_download: \{\}`"),
        (
            "01_download:\n02_prep:\n08_evaluate:\n09_report:\n",
            "a training section is missing.* of 03_train_softmax, 04_train_contrastive",
        ),
        (training("") + "tran:\n", r"section 'tran' is unknown \(did you mean 'train'\?\)"),
        (training("") + "09_train_new:\n", "section '09_train_new' is unknown"),
        (training("") + "03_train_softmax@:\n", "section '03_train_softmax@' is unknown .*'03_train_softmax'"),
        (training("") + "08_evaluate@softmax:\n", "unknown .*'08_evaluate'"),
        (training("") + "common: {sead: 1}\n", r"common\.sead is unknown \(did you mean 'seed'\?\)"),
        (training("") + "common: {seed: x}\n", r"mine\.yaml: common\.seed must be a whole number"),
        (training("") + "train: {trials: 1}\n", r"train\.trials is unknown"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(house, tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    house(text)
    with pytest.raises(RequestError, match=sentence) as caught:
        Profile.read("mine").of("03_train_softmax")
    assert "mine.yaml" in str(caught.value)
    assert not (tmp_path / "hacked").exists()


def test_what_the_run_sets_is_refused_also_where_a_notebook_declares_it(house, tmp_path):
    tiny_repository.write_notebook(tmp_path / "08_evaluate.ipynb", "encoder = ''\n", "")
    house(**{"08_evaluate": {"encoder": "campplus"}})
    refused(r"08_evaluate\.encoder is set by the run itself")


def test_any_section_is_checked_before_any_stage_runs(house):
    house(**{"09_report": {"sead": 1}})
    refused(r"09_report\.sead is unknown", stage="01_download")


def test_an_unknown_profile_or_stage_is_refused(house):
    house()
    with pytest.raises(RequestError, match=r"mime\.yaml \(did you mean 'mine'\?\)"):
        Profile.read("mime")
    with pytest.raises(RequestError, match=r"there is no .*/\.\./mine\.yaml"):
        Profile.read("../mine")
    (paths.params_dir() / "my own.yaml").touch()
    with pytest.raises(RequestError, match=r"my own\.yaml: a profile's name holds letters, digits and _ \. - only"):
        Profile.read("my own")
    refused(r"no stage '03_train_softmx' \(did you mean '03_train_softmax'\?\)", stage="03_train_softmx")


MODELS = {
    "softmax": "03_train_softmax",
    "cosface": "05_train_cosface",
    "cosface@re_train_2": "05_train_cosface@re_train_2",
}


def test_stages_follow_the_training_sections(house):
    tiny_repository.write_notebook(paths.NOTEBOOKS / "10_verify.ipynb", "seed = 1\n", "")
    house(**{"05_train_cosface@re_train_2": {}, "05_train_cosface": {}, "10_verify": {}})
    assert list(Profile.read("mine").stages) == [
        Stage("01_download", "01_download", ()),
        Stage("02_prep", "02_prep", ("01_download",)),
        Stage("03_train_softmax", "03_train_softmax", ("02_prep",)),
        Stage("05_train_cosface", "05_train_cosface", ("02_prep",)),
        Stage("05_train_cosface@re_train_2", "05_train_cosface", ("02_prep",)),
        Stage("08_evaluate@softmax", "08_evaluate", ("02_prep", "03_train_softmax")),
        Stage("08_evaluate@cosface", "08_evaluate", ("02_prep", "05_train_cosface")),
        Stage("08_evaluate@cosface@re_train_2", "08_evaluate", ("02_prep", "05_train_cosface@re_train_2")),
        Stage("09_report", "09_report", tuple(f"08_evaluate@{model}" for model in MODELS)),
        Stage("10_verify", "10_verify", ("09_report",)),
    ]
    assert Profile.read("mine").models == MODELS


def test_encoders_trained_elsewhere_are_judged_after_the_preparation_alone(house, tmp_path):
    (tmp_path / "mine.onnx").touch()
    house(encoders={"known": "campplus", "mine": str(tmp_path / "mine.onnx"), "far@2": "hf://house/model.onnx"})
    assert Profile.read("mine").models == {"softmax": "03_train_softmax", "known": "", "mine": "", "far@2": ""}
    assert Profile.read("mine").of("08_evaluate@far@2")["encoder"] == "hf://house/model.onnx"
    assert Stage("08_evaluate@known", "08_evaluate", ("02_prep",)) in list(Profile.read("mine").stages)
    assert Profile.read("mine").of("08_evaluate@known")["encoder"] == "campplus"
    assert Profile.read("mine").of("08_evaluate@mine")["encoder"] == str(tmp_path / "mine.onnx")
    assert "encoder" not in Profile.read("mine").of("08_evaluate@softmax")


def test_a_training_that_is_called_as_an_encoder_does_not_judge_it(house):
    house(encoders={"known": "campplus"}, **{"05_train_cosface@known": {}})
    assert "encoder" not in Profile.read("mine").of("05_train_cosface@known")


def test_a_model_to_start_from_is_found_before_anything_runs(house, tmp_path):
    tiny_repository.write_notebook(tmp_path / "03_train_softmax.ipynb", "initial_model = ''\n", "")
    (tmp_path / "mine.keras").touch()
    for named, found in (("", ""), ("campplus", "campplus"), (str(tmp_path / "mine.keras"),) * 2):
        house(**{"03_train_softmax": {"initial_model": named}})
        assert Profile.read("mine").of("03_train_softmax")["initial_model"] == found
    house(**{"03_train_softmax": {"initial_model": "no/such.keras"}})
    refused(r"03_train_softmax\.initial_model: there is no file .*no/such\.keras")


def test_a_profile_may_train_nothing_and_judge_an_encoder(house, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "encoders: {known: campplus}\n01_download:\n02_prep:\n08_evaluate:\n09_report:\n"
    )
    assert Profile.read("mine").models == {"known": ""}
    assert [stage.name for stage in list(Profile.read("mine").stages)][2:] == ["08_evaluate@known", "09_report"]


@pytest.mark.parametrize(
    "encoders, sentence",
    [
        ({"a": "no/such.onnx"}, r"encoders\.a: there is no file .*no/such\.onnx; correct the path"),
        ({"a": "no/such"}, r"encoders\.a: there is no file"),
        ({"a": "none.onnx"}, r"encoders\.a: there is no file"),
        ({"a": 3}, r"encoders\.a must be the name of an encoder or a file, not 3"),
        ({"a": ""}, r"encoders\.a must be"),
        ({3: "campplus"}, r"encoders: 3 is no name of a model"),
        ({"A b": "campplus"}, r"encoders: 'A b' is no name of a model"),
        ({"softmax": "campplus"}, r"both have a model called softmax; write softmax@another_name"),
        (["campplus"], r"section encoders must hold `key: value` lines"),
    ],
)
def test_encoders_that_cannot_be_judged_are_refused(house, encoders, sentence):
    house(encoders=encoders)
    refused(sentence)


def test_two_trainings_of_one_model_are_refused(house, tmp_path):
    tiny_repository.write_notebook(tmp_path / "11_train_softmax.ipynb", "seed = 1\n", "")
    house(**{"11_train_softmax": {}})
    refused("03_train_softmax and 11_train_softmax both train a model called softmax")


@pytest.mark.parametrize(
    "source",
    [
        "a = b = 1",
        "a, b = 1, 2",
        "import os",
        "a = 1 + 1",
        "a = [x for x in y]",
        "a = 1\na = 2",
        "a: int",
        "a =",
        "a += 1",
        "a = {1, 2}",
        "a = b'x'",
        "a.b = 1",
        "a = float('nan')",
        "a = 1e999",
    ],
)
def test_a_parameters_cell_holds_literals_only(house, tmp_path, source):
    house()
    tiny_repository.write_notebook(tmp_path / "02_prep.ipynb", source, "")
    with pytest.raises(RequestError, match=r"02_prep\.ipynb: parameters cell"):
        Profile.read("mine").of("02_prep")


def test_a_number_that_is_none_is_named_by_its_place_in_the_cell(house, tmp_path):
    house()
    tiny_repository.write_notebook(tmp_path / "02_prep.ipynb", "a = {'b': [1, 1e999]}", "")
    with pytest.raises(RequestError, match=r"parameters cell: a\.b\[1\] is inf"):
        Profile.read("mine")


def test_files_of_the_repository_are_named_as_seen_from_it(tmp_path):
    assert params.show(paths.REPO / "params/mini.yaml") == "params/mini.yaml"
    assert params.show(tmp_path / "mine.yaml") == str(tmp_path / "mine.yaml")


def test_a_notebook_without_its_cell_or_that_is_none_is_refused(house, tmp_path):
    house()
    (tmp_path / "02_prep.ipynb").unlink()
    with pytest.raises(RequestError, match=r"^02_prep\.ipynb does not exist$"):
        Profile.read("mine")
    tiny_repository.write_notebook(tmp_path / "02_prep.ipynb", "b = 1\na: int", "")
    with pytest.raises(RequestError, match="line 2 is no `name = value`"):
        Profile.read("mine")
    for text, sentence in [
        ('{"cells": []}', "one cell tagged"),
        ("<html>", "is not a notebook"),
        ("[]", "is not a notebook"),
    ]:
        (tmp_path / "02_prep.ipynb").write_text(text)
        with pytest.raises(RequestError, match=rf"02_prep\.ipynb .*{sentence}"):
            Profile.read("mine").of("02_prep")


words = st.text(st.characters(max_codepoint=0xD7FF), max_size=5)  # above lie surrogates, which no file holds
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["seed", "learning_rate", "loss", "mixed", "sizes", "tags", "extra", "augmentation", "stages"])


def shape(value: object) -> object:
    """The type of a value, and of what it holds, as far as the defaults fix it."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return type(value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(KEYS, plain, max_size=3))
def test_whatever_is_given_has_the_types_of_the_defaults_or_is_refused(house, content):
    house()
    defaults = Profile.read("mine").of("03_train_softmax")
    house(**{"03_train_softmax": content})
    try:
        resolved = Profile.read("mine").of("03_train_softmax")
    except RequestError as error:
        assert "mine.yaml" in str(error)
        return
    assert resolved.keys() == defaults.keys()
    for key in resolved.keys() - {"extra", "tags"}:
        assert shape(resolved[key]) == shape(defaults[key])
    for key in content.keys() & {"seed", "loss", "mixed", "tags", "extra"}:
        assert resolved[key] == content[key]
    json.dumps(resolved, allow_nan=False)  # raises where a number is not finite


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(alphabet="abe: \n-[]{}&*!<|>'\"#%@,?.1_0~\tx\\", max_size=60),
    key=st.sampled_from(["extra", "checkpoint"]),
)
def test_any_text_is_read_or_refused_in_words(house, text, key):
    house(training(f"  {key}: {text}\n"))
    try:
        resolved = Profile.read("mine").of("03_train_softmax")
    except RequestError as error:
        assert "mine.yaml" in str(error)
    else:
        json.dumps(resolved, allow_nan=False)


SHARED = """\
batch_size: 32
phases: [{epochs: 8, learning_rate: 0.02, augmentation: {noise: 0.0, gain: [0.0, 0.0]}}]
engine: {precision: float32}
"""


@pytest.fixture
def sharing(house, tmp_path):
    """The same, with what trainings share, and a training notebook that declares what is its own."""
    (tmp_path / "params/shared").mkdir(parents=True)
    (tmp_path / "params/shared/training.yaml").write_text(SHARED)
    own = 'seed = 1\nmargin = 0.2\nphases = [{"learning_rate": 0.1, "margin": 0.3}]\nengine = {}\n'
    tiny_repository.write_notebook(tmp_path / "03_train_softmax.ipynb", own, "1 / 0")
    return house


def test_a_training_declares_what_is_its_own_over_what_all_share(sharing):
    sharing(**{"03_train_softmax": {"phases": [{"epochs": 2}, {"augmentation": {"noise": 0.5}}]}})
    resolved = Profile.read("mine").of("03_train_softmax")
    own = {"learning_rate": 0.1, "margin": 0.3}
    assert (resolved["batch_size"], resolved["engine"]) == (32, {"precision": "float32"})
    assert resolved["phases"] == [
        {"epochs": 2, **own, "augmentation": {"noise": 0.0, "gain": [0.0, 0.0]}},
        {"epochs": 8, **own, "augmentation": {"noise": 0.5, "gain": [0.0, 0.0]}},
    ]
    assert Profile.read("mine").of("02_prep").keys() == {"seed", "profile", "stage"}


def test_a_cell_run_by_hand_is_completed_and_a_complete_one_stays(sharing):
    (phases, engine) = params.complete(phases=[{"learning_rate": 0.1, "margin": 0.3}], engine={})
    expected = {"epochs": 8, "learning_rate": 0.1, "augmentation": {"noise": 0.0, "gain": [0.0, 0.0]}, "margin": 0.3}
    assert (phases, engine) == ([expected], {"precision": "float32"})
    assert params.complete(phases=phases, engine=engine) == [phases, engine]


@pytest.mark.parametrize(
    ("shared", "own"),
    [([], [{"a": 1}]), ({"a": 1}, [{"b": 1}]), ([1, 2], 3), ([{"a": 1}], [2]), ({"a": 1}, None), (1, [2])],
)
def test_what_a_training_declares_otherwise_than_all_share_stays(shared, own):
    assert params._united(shared, own) == own


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"stages": [{"epochs": 2}]}, r"03_train_softmax\.stages is called phases now; rename it$"),
        ({"phases": [{"epoch": 2}]}, r"phases\[0\]\.epoch is unknown \(did you mean 'epochs'\?\)"),
        ({"engine": {"precision": 16}}, r"engine\.precision must be text, not 16: put it in quotes"),
    ],
)
def test_what_all_share_is_held_to_its_keys_and_types(sharing, section, message):
    sharing(**{"03_train_softmax": section})
    refused(message)


def test_what_is_said_for_trainings_reaches_no_other_stage(house):
    house(common={"seed": 5}, train={"seed": 9}, **{"03_train_softmax": {}, "04_train_contrastive": {"seed": 11}})
    seeds = {stage: parameters["seed"] for stage, parameters in Profile.read("mine").parameters.items()}
    assert seeds == {
        "01_download": 5,
        "02_prep": 5,
        "03_train_softmax": 9,
        "04_train_contrastive": 11,
        "08_evaluate@softmax": 5,
        "08_evaluate@contrastive": 5,
        "09_report": 5,
    }


def test_pages_of_ones_own_speech_carry_no_voices_unless_asked_to():
    for name in ("folder", "folder_finetune"):
        parameters = Profile.read(name).parameters
        assert {one["players"] for stage, one in parameters.items() if stage.startswith("08_")} == {0}
    assert params.declared_parameters("10_verify")["players"] is False


MISMATCHES = [(1, "many", "must be a whole number, not 'many'"), ([], {"a": 1}, "must be a list, not {'a': 1}")]
MISMATCHES += [({}, 2, "must be `key: value` lines, not 2"), ([], 2, "must be a list, not 2: write [2]")]
MISMATCHES += [("", 2, "must be text, not 2: put it in quotes"), (True, 1, "must be true or false, not 1")]


@pytest.mark.parametrize(("default", "value", "said"), MISMATCHES)
def test_a_value_of_another_type_is_told_with_what_to_write_where_that_is_plain(default, value, said):
    assert params._mismatch(default, value) == said
