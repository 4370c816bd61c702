"""
Faults put in one at a time, on the road from archives to report over a miniature of VoxCeleb.

Each ends soon in one sentence, or the run goes on as configured; and what is finished is not done twice.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from release import rebuilt

from sv_utils import corpora
from sv_utils.pipeline import rehearsal
from sv_utils.pipeline.profile import Profile
from sv_utils.speech import miniature

pytestmark = pytest.mark.long
NAME, TRAINING, JUDGING = "voxceleb_original_resnet18", "06_train_adacos", "08_evaluate@adacos"
LISTS = ["VoxCeleb1-O", "VoxCeleb1-H-cleaned"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Miniatures of VoxCeleb1 and 2, of 12 speakers that train."""
    root = tmp_path_factory.mktemp("made")
    miniature.make(corpora.get("voxceleb1"), root, speakers=12)
    miniature.make(corpora.get("voxceleb2"), root, speakers=12, utterances=40)
    return root


class Road:
    """A copy of the miniatures, a narrow profile, and the stages as `make` runs them."""

    def __init__(self, made: Path, folder: Path):
        self.release, self.outputs, self.params = folder / "release", folder / "outputs", folder / "params"
        shutil.copytree(made, self.release)
        self.params.mkdir()
        sections = rehearsal.small(Profile.read(NAME), 1)
        sections["02_prep"] |= {"lists": LISTS, "utterances_per_shard": 2}
        sections["08_evaluate"] |= {"lists": LISTS}
        own = sections[TRAINING]
        own["architecture"] |= {"backbone": "resnet18", "width": 4, "embedding_dim": 16}
        own["engine"] |= {"jit_compile": False}
        own["phases"] = [phase | {"crop_seconds": 1.0, "epochs": 4} for phase in own["phases"]]
        self.sections = sections

    def start(self, stage: str) -> subprocess.Popen:
        (self.params / f"{NAME}.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(self.sections))))
        names = {"SV_MIRROR": self.release, "SV_REHEARSAL": self.release, "SV_OUTPUTS": self.outputs}
        environment = os.environ | {name: str(path) for name, path in (names | {"SV_PARAMS": self.params}).items()}
        line = [sys.executable, "-m", "sv_utils.run", stage, "--profile", NAME]
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(line, env=environment, start_new_session=True, **piped)

    def run(self, *stages: str) -> None:
        """Run stages that are to pass."""
        for stage in stages:
            with self.start(stage) as process:
                said = process.communicate(timeout=600)
            assert process.returncode == 0, said

    def refused(self, stage: str) -> str:
        """The one sentence in which a stage ends."""
        with self.start(stage) as process:
            said = process.communicate(timeout=600)[1].strip()
        assert process.returncode in (1, 2) and "\n" not in said, said
        assert not (self.folder(stage) / "run.json").exists()
        return said

    def kill(self, stage: str, sign: str) -> None:
        """End a stage and its kernel with SIGKILL as soon as a file is there."""
        process, end = self.start(stage), time.monotonic() + 300
        while not any(self.outputs.glob(sign)):
            assert process.poll() is None and time.monotonic() < end, process.communicate()
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL and not (self.folder(stage) / "run.json").exists()

    def folder(self, stage: str) -> Path:
        return self.outputs / NAME / stage

    def printed(self, stage: str) -> str:
        cells = nbformat.read(self.folder(stage) / f"{stage}.ipynb", 4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        return "".join(
            output.get("text", "") or str(output.get("data", {}).get("text/markdown", "")) for output in outputs
        )

    def times(self, pattern: str) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in sorted(self.outputs.glob(pattern))}

    def rebuild(self, change) -> str:
        """Change the files of VoxCeleb1's test half, by name; returns the first that a list names."""
        named = (self.release / "voxceleb1/veri_test.txt").read_text().split()[1]
        rebuilt(self.release, lambda files: change(files, f"wav/{named}"))
        return named


@pytest.fixture
def road(made, tmp_path):
    return Road(made, tmp_path)


def test_a_table_in_another_spelling_passes_and_another_table_does_not(road):
    table = road.release / "voxceleb2/vox2_meta.csv"
    text = table.read_text()
    table.write_bytes(b"\xef\xbb\xbf" + re.sub(r"[ ]*,", "\t", text).replace(" \n", "\r\n").encode())
    road.run("01_download")
    shutil.rmtree(road.outputs)
    table.write_text(text.replace("VoxCeleb2 ID ", "Celebrity"))
    assert "vox2_meta.csv has the columns Celebrity, " in road.refused("01_download")


def test_a_listed_file_that_is_missing_stops_or_loses_its_trials(road):
    named = road.rebuild(lambda files, name: files.pop(name))
    assert f"name are not there, first {named} (not in the archives)" in road.refused("01_download")
    road.sections["02_prep"]["missing_trials"] = "drop"
    road.run("01_download", "02_prep")
    kept = (road.folder("02_prep") / "trials/VoxCeleb1-O.txt").read_text()
    assert named not in kept and 0 < kept.count("\n") < 96
    assert "VoxCeleb1-O" in (road.folder("02_prep") / "session_notes.json").read_text()


def test_a_listed_file_that_is_clipped_is_judged_and_flagged(road):
    loud = miniature.wav(np.sign(miniature.voice(1, 99)).astype(np.int16) * 32767)
    named = road.rebuild(lambda files, name: files.update({name: loud}))
    road.run("01_download", "02_prep")
    table = pd.read_csv(road.folder("02_prep") / "utterances.csv").set_index("id")
    assert table["quality"].loc[named] == "clipped"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1 id19999/a/00001.wav id10270/b/00001.wav", "files that trial lists of corpus voxceleb1 name are not there"),
        ("1 id10270/b/00001.wav", "has 2 columns where line 1 has 3"),
    ],
)
def test_a_list_with_a_wrong_row_is_told(road, row, said):
    path, described = road.release / "voxceleb1/veri_test.txt", road.release / "voxceleb1.json"
    path.write_text(path.read_text() + row + "\n")
    told = json.loads(described.read_text())
    told["rows"]["veri_test.txt"] += 1
    described.write_text(json.dumps(told))
    assert said in road.refused("01_download")


def test_a_damaged_part_is_told(road):
    part = road.release / "voxceleb2/vox2_dev_aac_partac"
    data = bytearray(part.read_bytes())
    data[1000] ^= 1
    part.write_bytes(data)
    said = road.refused("01_download")
    assert "vox2_dev_aac_partac " in said and "damaged or cut off" in said


def test_a_speaker_of_whom_nothing_decodes_is_left_out(road):
    here = road.release / "voxceleb2"
    parts = sorted(here.glob("vox2_dev_aac_part*"))
    whole = here / "whole.zip"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    with zipfile.ZipFile(whole) as old:
        files = {name: old.read(name) for name in old.namelist()}
    empty = min(name.split("/")[2] for name in files)
    files = {name: b"" if f"/{empty}/" in name else data for name, data in files.items()}
    described = json.loads((road.release / "voxceleb2.json").read_text())
    described["archives"][0] |= miniature.packed(corpora.get("voxceleb2").remotes[0], here, files.items(), 12)
    (road.release / "voxceleb2.json").write_text(json.dumps(described))
    road.run("01_download", "02_prep")
    table = pd.read_csv(road.folder("02_prep") / "utterances.csv")
    assert empty not in set(table["speaker"]) and table.query("split == 'train'")["speaker"].nunique() == 12 - 1 - 4


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only the superuser makes a small disk")
def test_a_full_disk_ends_in_a_sentence_and_nothing_finished_is_done_twice(road):
    """Room for half of the store, before anything is decoded; then half and 99 % of it, which filled up meanwhile."""
    store, disk = 32_000 * 2 * (12 * 40 + 12 * 4 + 24), road.outputs
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={store // 2}", "tmpfs", disk], check=True)
    try:
        assert re.search(r"of stores are needed, and .* are free in .*: free .* more", road.refused("01_download"))
        resize(disk, 2 * store)
        road.run("01_download")
        finished: dict[str, int] = {}
        for share in (0.5, 0.99):
            resize(disk, share * store)
            said = road.refused("02_prep")
            assert "no space left for " in said and "finished shards stay" in said
            now = road.times("corpora/*/store-*/shard-*.csv")
            assert finished.items() <= now.items() and len(now) > len(finished)
            finished = now
        resize(disk, 3 * store)
        road.run("02_prep")
        assert finished.items() <= road.times("corpora/*/store-*/shard-*.csv").items()
        resize(disk, used(disk) + 40_000)
        assert "No space left" in road.refused(TRAINING)
        resize(disk, 3 * store)
        road.run(TRAINING)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def resize(disk: Path, size: float) -> None:
    subprocess.run(["mount", "-o", f"remount,size={max(round(size), used(disk) + 8192)}", disk], check=True)


def used(disk: Path) -> int:
    return shutil.disk_usage(disk).used


def test_a_kill_in_each_stage_costs_what_was_in_work(road):
    shards = "corpora/*/store-*/shard-*.csv"
    road.kill("01_download", f"{NAME}/01_download/*.partial.ipynb")
    road.run("01_download")
    road.kill("02_prep", shards)
    finished = road.times(shards)
    road.run("02_prep")
    assert finished.items() <= road.times(shards).items() and len(finished) < len(road.times(shards))
    road.kill(TRAINING, f"{NAME}/{TRAINING}/checkpoint.npz")
    road.run(TRAINING)
    assert "resumes after epoch" in road.printed(TRAINING)
    log = pd.read_csv(road.folder(TRAINING) / "log.csv")
    assert log["epoch"].tolist() == list(range(9))
    embeddings = f"{NAME}/embeddings/**/test.npz"
    road.kill(JUDGING, embeddings)
    finished = road.times(embeddings)
    road.run(JUDGING)
    assert finished and finished == road.times(embeddings)
    road.kill("09_report", f"{NAME}/09_report/*.partial.ipynb")
    before = road.times(f"{NAME}/0[1-8]*/*.ipynb") | road.times(shards)
    road.run("09_report")
    assert before == road.times(f"{NAME}/0[1-8]*/*.ipynb") | road.times(shards)
    with road.start(TRAINING) as again:  # finished: nothing is done
        assert "starts" not in again.communicate(timeout=60)[0]
