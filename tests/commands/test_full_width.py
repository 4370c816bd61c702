"""
The road from archives to report at VoxCeleb's full width: what would stop a run after days stops it here.

``FULL_WIDTH=273516`` (files of both corpora; default `FILES`) is the whole of it, for some 15 GB and hours; all
speakers, and all lists at their length, are there in any case.
"""

import os

import full_width
import pytest

from sv_utils.pipeline import rehearsal
from sv_utils.pipeline.profile import Profile
from sv_utils.reports import tables

FILES = 24_000
STEPS = 25  # of an epoch; each phase has two


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    share = int(os.environ.get("FULL_WIDTH", FILES)) / sum(full_width.FILES.values())
    full_width.make(folder, {name: round(count * share) for name, count in full_width.FILES.items()})
    return folder


def narrow(profile, cores):
    """The profile's own parameters, but for a narrow encoder and short phases."""
    sections = rehearsal.small(profile, cores)
    for name in ("02_prep", "08_evaluate"):
        stage = next(stage for stage in profile.parameters if stage.startswith(name))
        own = profile.parameters[stage]
        sections[name] = {key: own[key] for key in own if key not in ("profile", "stage", "encoder")}
    sections["02_prep"] |= {"workers": cores}
    for name in (name for name in sections if "_train_" in name):
        own = sections[name]
        own["architecture"] |= {"width": 8, "embedding_dim": 64}
        own["engine"] |= {"jit_compile": False, "precision": "float32"}
        for phase in own["phases"]:
            phase |= {"steps_per_epoch": STEPS, "batch_size": 16}
    return sections


@pytest.mark.long
@pytest.mark.parametrize("name", ["voxceleb_original_resnet18", "voxceleb_modern_small"])
def test_every_stage_passes_at_full_width(name, release, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SV_REHEARSAL", str(release))
    folder, profile, cores = tmp_path_factory.getbasetemp() / "run", Profile.read(name), len(os.sched_getaffinity(0))
    names = {"SV_MIRROR": str(release), "SV_REHEARSAL": str(release)}
    went = []
    for done in rehearsal.run(profile, folder, names, cores, narrow(profile, cores)):
        went.append(done)
        print(
            f"{done.stage:28} {done.passed!s:6} {done.seconds:7.1f} s {done.host / 2**30:6.2f} GiB  {done.said}",
            flush=True,
        )
    assert all(done.passed for done in went), went
    monkeypatch.setenv("SV_OUTPUTS", str(folder / "outputs"))
    results = tables.read_results(name)
    counted = results.drop_duplicates("list").set_index("list")[["n_target", "n_nontarget"]].sum(axis=1).to_dict()
    assert counted["VoxCeleb1-E"] == 581_480 and counted["VoxCeleb1-O-cleaned"] == 37_611 and len(counted) == 6
    pages = sorted((folder / "outputs" / name).glob("*/*.html"))
    assert pages and max(page.stat().st_size for page in pages) < 3e6
