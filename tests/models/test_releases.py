"""Public encoders: the catalogue, and a release from its address to a vector."""

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from parity import sound, weights
from test_parity import HERE
from test_pretrained import server  # noqa: F401
from test_weights_files import safetensors
from torch_save import saved

from sv_utils import download, export
from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.models import exports, pretrained
from sv_utils.models.pretrained import catalogue, drawn, redimnet2, releases
from sv_utils.pipeline.profile import Profile
from sv_utils.reports import published

KNOWN = json.loads((HERE / "wespeaker_ecapa.json").read_text("utf-8"))


def test_every_entry_can_be_found_checked_and_built():
    for name, encoder in catalogue.read().items():
        assert (catalogue.HERE / f"{encoder.family}.py").is_file() and name.startswith(encoder.family), (
            "a key counts by it"
        )
        assert bool(encoder.package) != bool(encoder.addresses and encoder.file), name
        assert encoder.title and encoder.licence and encoder.trained_on and encoder.front_end, name
        assert re.fullmatch("([0-9a-f]{64})?", encoder.sha256) and bool(encoder.sha256) == bool(encoder.sha256_from), (
            name
        )
        assert all(address.startswith("https://") for address in encoder.addresses), name
        assert not encoder.published or encoder.published[0]["scoring"] == "cosine", "the list shows the first"
    assert list(pretrained.PUBLISHED) == ["campplus", "ge2e"]


def test_the_catalogues_figures_are_those_of_the_table_of_published_systems():
    table = published.table().fillna(-1)
    known = {tuple(row) for row in table[["scoring", "O", "E", "H", "source"]].itertuples(index=False)}
    rows = [row for encoder in catalogue.read().values() for row in encoder.published]
    assert len(rows) > 12
    for row in rows:
        assert (row["scoring"], *(row.get(name, -1.0) for name in "OEH"), row["source"]) in known


def test_the_profile_of_known_encoders_names_all_that_are_free_and_waits_for_no_checksum():
    text = (paths.REPO / "params/voxceleb_known.yaml").read_text("utf-8")
    free = {encoder.name for encoder in catalogue.read().values() if encoder.licence != "not stated"}
    named = set(re.findall(r"(?m)^  (?:# )?[a-z0-9_]+: (\w+)", text.partition("encoders:")[2].partition("\n\n")[0]))
    assert named == free
    asked = Profile.read("voxceleb_known").encoders.values()
    assert all(catalogue.get(name).sha256 or catalogue.get(name).package for name in asked)


@pytest.fixture
def release(monkeypatch, tmp_path):
    """A narrow network in the catalogue, whose file is of no known checksum."""
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    arrays = weights(KNOWN["shapes"]) | {"projection.weight": np.ones((3, 16), "float32")}
    entries, numbers = {}, b""
    for name, array in arrays.items():
        kind = {"float32": "F32", "int64": "I64"}[str(array.dtype)]
        place = [len(numbers), len(numbers) + array.nbytes]
        entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": place}
        numbers += array.tobytes()
    file = safetensors(tmp_path / "tiny.safetensors", entries, numbers)
    about = {"title": "t", "licence": "l", "trained_on": "d", "front_end": "f"}
    tiny = catalogue.Encoder(
        "tiny", family="wespeaker", dimension=16, options=KNOWN["options"], file=file.name, **about
    )
    encoders = {**catalogue.read(), "tiny": tiny}
    monkeypatch.setattr(catalogue, "read", lambda: encoders)

    def change(**fields):
        encoders["tiny"] = dataclasses.replace(encoders["tiny"], **fields)

    return file, change


def test_a_release_is_fetched_checked_converted_and_embeds(release, server, tmp_path, capsys):  # noqa: F811
    file, change = release
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    server.files = {"tiny.safetensors": content}
    change(addresses=(f"{server.url}/gone/{{file}}",))
    with pytest.raises(RequestError, match=r"/gone/tiny.safetensors.*taken with --from FILE"):
        releases.provide("tiny", first_use=True)
    change(addresses=(f"{server.url}/gone/{{file}}", f"{server.url}/{{file}}"))
    with pytest.raises(RequestError, match=r"no public text states .*--sha256 HEX.*--trust-first-use"):
        pretrained.load("tiny")
    change(sha256="0" * 64, sha256_from="a text")
    with pytest.raises(RequestError, match=r"instead of 0000.*another file"):
        pretrained.load("tiny")
    assert not list((tmp_path / "outputs").rglob("*tiny*"))
    change(sha256="", sha256_from="")
    assert download.main(["--pretrained", "tiny", "--trust-first-use"]) == 0
    assert "converted: " in capsys.readouterr().out
    server.server_close()
    model = pretrained.load("tiny")
    np.testing.assert_allclose(np.asarray(model(sound()[None]))[0], KNOWN["embedding"], atol=1e-4)
    assert pretrained.fingerprint("tiny") == f"{digest}.1"
    assert download.main(["--pretrained"]) == 0
    assert re.search(r"tiny +16 .*here", capsys.readouterr().out)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # what came first is asked for from then on
    with pytest.raises(RequestError, match=f"instead of {digest}"):  # though it is converted already
        releases.provide("tiny", file, first_use=True)


PROFILE = """
common: {corpora: [mini]}
encoders: {b2: redimnet2_b2_lm}
01_download: {}
02_prep: {}
07_train_aam@tuned:
  initial_model: redimnet2_b2_lm
  batch_size: 16
  engine: {readers: 0}
  phases:
    - epochs: 1
      steps_per_epoch: 20
      crop_seconds: 1.0
      speeds: [1.0]
      augmentation: {noise: 0.0, babble: 0.0, reverberation: 0.0}
08_evaluate: {cuts: [1]}
09_report: {}
"""


def narrow_b2() -> bytes:
    """A file as ReDimNet2's authors release them, of a narrow network with drawn weights."""
    known = json.loads((HERE / "redimnet2_b2.json").read_text("utf-8"))
    shapes = {
        name: [192, *shape[1:]] if name.startswith("linear.") else shape for name, shape in known["shapes"].items()
    }
    state = {name: array for name, array in weights(shapes).items() if array.dtype == np.float32}
    return saved({"model_config": known["options"] | {"embed_dim": 192}, "state_dict": state})


@pytest.mark.long
def test_a_release_goes_all_the_way_through_a_profile(server, monkeypatch, tmp_path, capsys):  # noqa: F811
    name, content, known = "redimnet2_b2_lm", narrow_b2(), catalogue.read()
    server.files = {known[name].file: content}
    here = {**known, name: dataclasses.replace(known[name], addresses=(f"{server.url}/{{file}}",))}
    monkeypatch.setattr(catalogue, "read", lambda: here)
    assert download.main(["--pretrained", name]) == 2
    assert f"instead of {known[name].sha256}; it is another file" in capsys.readouterr().err
    assert download.main(["--pretrained", name, "--sha256", hashlib.sha256(content).hexdigest()]) == 0
    vector = np.asarray(pretrained.load(name)(sound()[None]))[0]
    assert vector.shape == (192,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)

    shutil.copytree(paths.REPO / "params", tmp_path / "params")
    (tmp_path / "params/fake.yaml").write_text(PROFILE)
    monkeypatch.setenv("SV_PARAMS", str(tmp_path / "params"))
    for stage in Profile.read("fake").stages:
        line = [sys.executable, "-m", "sv_utils.run", stage.name, "--profile", "fake"]
        done = subprocess.run(line, cwd=paths.REPO, capture_output=True, text=True)
        assert done.returncode == 0, (stage.name, done.stderr)
    made = tmp_path / "outputs/fake"
    steps = pd.read_csv(made / "07_train_aam@tuned/steps.csv").dropna(subset="loss")
    assert steps["step"].max() == 20 and steps["loss"].iloc[-1] < steps["loss"].iloc[0]
    assert set(pd.read_csv(made / "results.csv")["model"]) >= {"b2", "aam@tuned"}
    assert all(title in (made / "report.html").read_text("utf-8") for title in ("b2", "aam@tuned"))
    for to, suffix in exports.SUFFIXES.items():  # each is checked on real speech, and refused where it differs
        assert export.main([str(made / "07_train_aam@tuned/model.keras"), "--to", to]) == 0, to
        record = json.loads((made / f"07_train_aam@tuned/model{suffix}.json").read_text())
        assert record["format"] == to and record["cosine"] > 0.9999


def test_a_file_at_hand_needs_no_network_and_may_be_packed(release, monkeypatch, tmp_path, capsys):
    file, change = release
    assert download.main(["--pretrained", "tiny", "--from", str(tmp_path / "missing")]) == 2
    assert "--sha256 HEX" in capsys.readouterr().err
    mirror = tmp_path / "mirror" / "pretrained"
    mirror.mkdir(parents=True)
    change(file="tiny.zip")
    with zipfile.ZipFile(mirror / "tiny.zip", "w") as archive:
        archive.write(file, "voices/weights.safetensors")
        archive.writestr("voices/config.yaml", "a: 1")
    given = hashlib.sha256((mirror / "tiny.zip").read_bytes()).hexdigest()
    monkeypatch.setenv("SV_MIRROR", str(tmp_path / "mirror"))
    assert download.main(["--pretrained", "tiny", "--sha256", given.upper()]) == 0
    assert pretrained.load("tiny").output_shape == (None, 16)


def test_encoders_that_cannot_be_had_are_drawn_for_a_rehearsal_alone(monkeypatch, tmp_path):
    """Those of the outputs, and fetched ones, are lent as they are; what is drawn does not come among them."""
    real, folder = tmp_path / "outputs/pretrained", tmp_path / "rehearsal/pretrained"
    monkeypatch.setenv("SV_OUTPUTS", str(real.parent))
    for place in (real, folder.parent):
        place.mkdir(parents=True)
    folder.symlink_to(real)
    (real / "eres2netv2.1.keras").write_text("converted")
    answers = {"b2-vox2-lm.pt": False, "campplus_voxceleb.bin": True, "embedding_model.ckpt": True}
    said = {"campplus_voxceleb": "", "speechbrain_ecapa": "sv_utils.download: it is another file\n"}
    seen = []

    def run(line, **named):
        text = said[line[-1]]
        return subprocess.CompletedProcess(line, bool(text), "", text)

    route = {"host": "a.b", "answers": "no answer"}
    monkeypatch.setattr(drawn.needs, "route", lambda file, _: route | {"good": answers[file]})
    monkeypatch.setattr(drawn.subprocess, "run", run)
    monkeypatch.setattr(drawn, "draw", lambda encoder, place: seen.append((encoder.name, place)))
    assert drawn.lend(["eres2netv2", "campplus_voxceleb", "own.keras"], folder) == {} and folder.is_symlink()
    lacking = drawn.lend(["redimnet2_b2_lm", "eres2netv2", "speechbrain_ecapa"], folder)
    assert lacking == {"redimnet2_b2_lm": "a.b: no answer", "speechbrain_ecapa": "it is another file"}
    assert seen == [("redimnet2_b2_lm", folder), ("speechbrain_ecapa", folder)] and not folder.is_symlink()
    assert (folder / "eres2netv2.1.keras").read_text() == "converted"
    assert [file.name for file in real.iterdir()] == ["eres2netv2.1.keras"]


def test_a_drawn_encoder_lies_where_its_own_would(release, monkeypatch, tmp_path):
    _, change = release
    change(options=KNOWN["options"])
    drawn.draw(catalogue.get("tiny"), tmp_path / "outputs/pretrained")
    assert pretrained.load("tiny").output_shape == (None, 16) and pretrained.fingerprint("tiny") == "drawn.1"
    config = redimnet2.described("redimnet2_b6_voxblink2_lm")
    assert (config["C"], config["out_channels"], config["stages_setup"][4][2:]) == (64, 224, [0.75, [], 32])
    redimnet2._refuse_unknown(config)
    monkeypatch.delattr("sv_utils.models.pretrained.wespeaker.build")
    drawn.draw(catalogue.get("tiny"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a corpus, or --pretrained"),
        (["mini", "--pretrained"], "name a corpus, or --pretrained"),
        (["--pretrained", "redimnet2_b2_ml"], "did you mean 'redimnet2_b2_lm'"),
        (["--pretrained", "redimnet2_b2_lm", "--sha256", "abc"], "64 hex digits"),
        (["--pretrained", "redimnet2_b2_lm", "--from", "/nowhere"], "there is no file /nowhere"),
    ],
)
def test_what_is_asked_for_wrongly(arguments, said, capsys):
    try:
        code = download.main(arguments)
    except SystemExit as error:
        code = error.code
    assert code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"block_2d_type": "convnext_like"}, "block_2d_type 'convnext_like' is not known here"),
        ({"feat_type": None}, "feat_type None is not known"),
        ({"spec_params": {"do_preemph": False, "norm_signal": True}}, "do_preemph False is not known"),
        ({"spec_params": {}}, "norm_signal False is not known"),
    ],
)
def test_a_redimnet2_of_another_kind_is_refused(change, said):
    known = {"C": 4, "causal": "none", "feat_type": "tf", "spec_params": {"norm_signal": True}, "stages_setup": []}
    with pytest.raises(RequestError, match=said):
        redimnet2.build(**known | change)
    with pytest.raises(RequestError, match="no model_config"):
        redimnet2.options({"state_dict": {}})


KNOWN_KEYS = {  # what a description may say: of the network, and of the front end
    "": "causal spec_in_channels block_1d_type block_2d_type compress_tconvs use_freq_pos_enc fm_weigthing_type "
    "group_divisor hop_length pooling_func global_context_att pad_right_samples before_pool_offset emb_bn "
    "return_all_outputs feat_type",
    "spec_params": "do_preemph norm_signal n_fft win_length f_min f_max eps sample_rate hop_length",
}


@pytest.mark.parametrize("part", KNOWN_KEYS)
def test_nothing_that_a_redimnet2_says_of_itself_is_passed_over(part):
    known = {"C": 4, "causal": "none", "feat_type": "tf", "spec_params": {"norm_signal": True}, "stages_setup": []}
    redimnet2._refuse_unknown(known | {"feat_type": "tf_mel"})
    for key in KNOWN_KEYS[part].split():
        said = {key: "of another kind"}
        change = {part: known[part] | said} if part else said
        with pytest.raises(RequestError, match=f"{key} 'of another kind' is not known here, only"):
            redimnet2._refuse_unknown(known | change)
