"""What the keys of the real notebooks count and leave out: each list here is that of the real repository."""

import dataclasses

import pytest

from sv_utils.base import paths
from sv_utils.pipeline import keys, stages
from sv_utils.pipeline.profile import Profile

HOW_AND_NOT_WHAT = {"workers", "scheduler", "connections", "remove_archives", "readers", "needs_gpu"}
TRAINING = {"training.loop", "training.batches", "training.augment", "training.schedules", "training.checkpoints"}
TRAINING |= {"training.devices", "training.data", "training.validation", "training.speaker_model"}
TRAINING |= {"models.encoders", "models.features", "models.backbones", "models.backbones.resnet", "models.embedding"}
TRAINING |= {"models.backbones.pooling", "speech.reader", "evaluation.metrics", "evaluation.scoring", "losses"}
JUDGING = {f"evaluation.{name}" for name in ("calibration", "groups", "intervals", "judging", "metrics", "scoring")}
JUDGING |= {"evaluation.normalisation", "evaluation.trials", "models.embedding", "models.encoders", "speech.reader"}
PREPARING = {f"speech.{name}" for name in ("acquisition", "archives", "audio", "manifest", "preparation", "splits")}
NEVER = ("base", "pipeline", "voices", "bench")
COUNTED = {  # stage: modules that must count, and folders or modules that must not
    "01_download": ({"speech.acquisition", "corpora.mini"}, ("corpora.ocean", "training", "models", "losses")),
    "02_prep": (
        PREPARING | {"corpora.mini", "evaluation.trials"},
        ("corpora.ocean", "training", "losses", "models.encoders"),
    ),
    "03_train_softmax": (TRAINING | {"losses.softmax"}, ("losses.aam", "losses.adacos", "models.backbones.ecapa")),
    "07_train_aam": (
        TRAINING | {"losses.aam", "losses.heads", "losses.softmax"},
        ("losses.adacos", "losses.prototypes", "models.backbones.ecapa", "models.pretrained.campplus", "corpora.mini"),
    ),
    "07_train_ge2e": (TRAINING | {"losses.prototypes", "losses.contrastive"}, ("losses.aam", "models.pretrained.ge2e")),
    "08_evaluate@softmax": (JUDGING | {"training.augment"}, ("losses", "training.loop", "models.backbones.resnet")),
    "09_report": ({"reports.tables", "reports.figures", "reports.published"}, ("training", "models", "speech")),
}
EVERY_TRAINING = "common: {corpora: [mini]}\n01_download: {}\n02_prep: {}\n08_evaluate: {}\n09_report: {}\n"
EVERY_TRAINING += "03_train_softmax: {}\n07_train_aam: {}\n07_train_ge2e: {}\n"


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """All kinds of stages, under outputs without any results."""
    (tmp_path / "all.yaml").write_text(EVERY_TRAINING)
    monkeypatch.setenv("SV_PARAMS", str(tmp_path))
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    return Profile.read("all")


@pytest.fixture
def counted(profile, monkeypatch):
    """The modules that went into the key of each stage, by the real `stage_keys`."""
    seen = []
    monkeypatch.setattr(keys, "content_key", lambda cells, parameters, modules, upstream: str(seen.append(modules)))
    names = list(keys.stage_keys(profile))
    return {name: {module.removeprefix("sv_utils.") for module in found} for name, found in zip(names, seen)}


@pytest.mark.parametrize("stage", COUNTED)
def test_modules_that_a_stage_uses_count_and_no_others(counted, stage):
    must, must_not = COUNTED[stage]
    assert must <= counted[stage], must - counted[stage]
    drawing = () if stage == "09_report" else ("reports",)
    for other in (*must_not, *NEVER, *drawing):
        assert not [name for name in counted[stage] if f"{name}.".startswith(f"{other}.")], other


def test_a_published_encoder_and_another_backbone_count_where_they_are_named(profile):
    def modules(**changed):
        cells = keys.code_cells(paths.NOTEBOOKS / "07_train_aam.ipynb")
        return keys.used_modules(cells, keys._words(profile.of("07_train_aam") | changed), keys.MACHINERY)

    assert "sv_utils.models.pretrained.campplus" in modules(initial_model="campplus")
    assert "sv_utils.models.pretrained.campplus" in modules(encoder="campplus")  # that is judged
    assert "sv_utils.models.pretrained.campplus" not in modules(profile="campplus")
    ecapa = modules(architecture={"backbone": "ecapa"})
    assert "sv_utils.models.backbones.ecapa" in ecapa and "sv_utils.models.backbones.resnet" not in ecapa


def other(value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        return {**value, "another": 1}
    return [*value, 1] if isinstance(value, list) else f"{value}x"


def own_key(profile, stage, parameters):
    """The key of a stage if its parameters were these."""
    changed = dataclasses.replace(profile, parameters={**profile.parameters, stage: parameters})
    return keys.stage_keys(changed)[stage]


def test_every_parameter_counts_but_those_that_say_how(profile):
    left_out = set()
    for stage in ("01_download", "02_prep", "07_train_aam", "08_evaluate@softmax"):
        parameters, known = profile.of(stage), keys.stage_keys(profile)[stage]
        for name in parameters.keys() - {"profile", "stage"}:
            if own_key(profile, stage, parameters | {name: other(parameters[name])}) == known:
                left_out.add(name)
    engine, known = profile.of("07_train_aam")["engine"], keys.stage_keys(profile)["07_train_aam"]
    for name in engine:
        changed = profile.of("07_train_aam") | {"engine": engine | {name: other(engine[name])}}
        if own_key(profile, "07_train_aam", changed) == known:
            left_out.add(name)
    assert left_out == HOW_AND_NOT_WHAT == keys.WAYS


def test_a_nested_setting_counts(profile):
    parameters = profile.of("07_train_aam")
    known = keys.stage_keys(profile)["07_train_aam"]
    deeper = parameters["phases"][0]["augmentation"] | {"noise": 0.123}
    phases = [parameters["phases"][0] | {"augmentation": deeper}]
    assert own_key(profile, "07_train_aam", parameters | {"phases": phases}) != known


def test_the_report_alone_draws():
    assert stages.LAST[-1] == "09_report" and keys.MACHINERY == ("base", "pipeline") and keys.READING == "reports"
