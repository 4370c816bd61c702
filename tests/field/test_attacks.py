"""
Archives, models and tables that were made to harm: each is refused in a sentence, soon, and in little memory.

All of them are made here, none is kept.
"""

import gzip
import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import bombs
import numpy as np
import pytest
from release import archive_of, voice, wav

from sv_utils import embed, enrol, identify, score, verify
from sv_utils.base.errors import RequestError
from sv_utils.evaluation import score_files
from sv_utils.models import pretrained
from sv_utils.models.pretrained import torch_file
from sv_utils.speech import archives


@pytest.fixture
def frugal():
    """Let a test take at most 2 s, and 300 MB more than the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before, started = resource.getrlimit(resource.RLIMIT_AS), time.process_time()
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 300_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.process_time() - started < 20  # a bomb takes minutes; busy cores count double


def sparse(path, size, end=b""):
    """A file of `size` bytes that takes no room on the disk but for its end."""
    with open(path, "wb") as file:
        file.truncate(size)
        file.seek(size - len(end))
        file.write(end)
    return path


def end_record(size, start, count=1):
    return archives.END.pack(b"PK\5\6", 0, 0, count, count, size, start, 0)


def zip64(size, start, place):
    record = archives.END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, place, 1)
    return record + locator + end_record(0xFFFFFFFF, 0xFFFFFFFF)


ZIPS = {
    "zip64 record beyond the file": zip64(46, 0, 1 << 50),
    "zip64 record beyond all files": zip64(46, 0, (1 << 64) - 1),
    "zip64 directory beyond all files": zip64(46, (1 << 64) - 1, 0),
    "zip64 directory larger than all": zip64((1 << 64) - 1, 0, 0),
    "directory before the file": zip64((1 << 64) - 46, (1 << 64) - 46, 0),
    "next to nothing": b"PK",
    "end record alone": end_record(46, 0),
}


@pytest.mark.parametrize("name", ZIPS)
def test_a_zip_whose_places_cannot_be_is_told(tmp_path, frugal, name):
    with pytest.raises(RequestError, match=r"a\.zip is not a zip"):
        list(archives.members(archive_of(tmp_path / "a.zip", ZIPS[name])))


def test_a_sparse_zip_that_is_all_directory_is_told(tmp_path, frugal):
    size = 30 << 30
    sparse(tmp_path / "a.zip", size, zip64(size - 200, 0, size - 98))
    with pytest.raises(RequestError, match="its directory is damaged"):
        list(archives.members(archive_of(tmp_path / "a.zip")))


def test_a_file_beyond_its_zip_is_refused(tmp_path, frugal):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("id1/s/1.wav", b"sound")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\1\2") + 42, 0x7FFFFFFF)
    (member,) = archives.members(archive_of(tmp_path / "b.zip", bytes(data)))
    assert member.refusal == "damaged archive: no file where its directory says"


def overlapping(count, unpacked):
    """Fifield's bomb: `count` entries of a zip's directory that all name the same bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("id1/s/00000.wav", bytes(unpacked))
    data = file.getvalue()
    start = data.rindex(b"PK\1\2")
    entry = data[start : data.rindex(b"PK\5\6")]
    directory = b"".join(entry.replace(b"00000", b"%05d" % number) for number in range(count))
    return data[:start] + directory + end_record(len(directory), start, count)


def test_a_zip_bomb_is_told_before_anything_is_unpacked(tmp_path, frugal):
    """python/cpython#109858: entries that overlap."""
    with pytest.raises(RequestError, match=r"a\.zip is an archive bomb \(its files would take 40,000,000,000 bytes"):
        list(archives.members(archive_of(tmp_path / "a.zip", overlapping(4000, 10_000_000))))


def test_a_file_that_grows_two_hundredfold_is_no_speech(tmp_path, frugal):
    (member,) = archives.members(archive_of(tmp_path / "a.zip", overlapping(1, 50_000_000)))
    assert member.refusal.startswith("archive bomb: 50,000,000 bytes out of ")


def zeros_packed(count):
    """`count` MB of zeros, as gzip packs them."""
    packer = gzip.compress(bytes(1 << 20))
    return packer * count  # members of a gzip follow each other


def tar_header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_name_of_600_megabytes_is_told(tmp_path, frugal, kind):
    data = gzip.compress(tar_header("././@LongLink", 600 << 20, kind)) + zeros_packed(60)
    with pytest.raises(RequestError, match="is no tar or breaks off after 0 audio files"):
        list(archives.members(archive_of(tmp_path / "a.tar.gz", data)))


def test_a_tar_that_unpacks_to_a_terabyte_is_told(tmp_path, frugal):
    data = gzip.compress(tar_header("id1/s/notes.txt", 1 << 33) + bytes(512)) + zeros_packed(8)
    with pytest.raises(RequestError, match="is an archive bomb"):
        list(archives.members(archive_of(tmp_path / "a.tar.gz", data)))


def test_a_sparse_file_of_a_tar_is_refused(tmp_path, frugal):
    data = tar_header("id1/s/1.wav", 0, tarfile.GNUTYPE_SPARSE) + bytes(1024)
    members = list(archives.members(archive_of(tmp_path / "a.tar", data)))
    assert [member.refusal for member in members] == ["unsafe: a sparse file"]


class Reduced:
    """A pickle that calls what it likes."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def checkpoint(tmp_path, pickled, storages=(), name="w.pt"):
    """A file as torch.save writes it, around any pickle."""
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("w/data.pkl", pickled)
        for key, data in storages:
            archive.writestr(f"w/data/{key}", data)
    return tmp_path / name


# GLOBAL, MARK, ... by hand: PyTorch is not installed here.
def tensor(key, count, shape, stride=None):
    stride = stride or tuple(np.cumprod((1, *shape[:0:-1]))[::-1].tolist())
    persistent = b"(Vstorage\nctorch\nFloatStorage\nV%s\nVcpu\nI%d\ntQ" % (str(key).encode(), count)
    sizes = [b"(" + b"".join(b"I%d\n" % n for n in numbers) + b"t" for numbers in (shape, stride)]
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + b"I0\n" + sizes[0] + sizes[1] + b"I00\n)tR"


def state(**tensors):
    return b"\x80\x02}(" + b"".join(b"V%s\n" % name.encode() + data for name, data in tensors.items()) + b"u."


def test_a_checkpoint_of_this_form_is_read(tmp_path):
    values = np.arange(6, dtype="<f4")
    file = checkpoint(tmp_path, state(a=tensor(0, 6, (2, 3)), b=tensor(0, 6, (6,))), [(0, values.tobytes())])
    read = torch_file.read(file)
    assert read["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and read["b"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_storage_is_read_once_however_often_it_is_named(tmp_path, monkeypatch):
    opened, plain = [], zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *given: opened.append(given[1]) or plain(*given))
    many = {f"t{number}": tensor(0, 6, (6,)) for number in range(50)}
    torch_file.read(checkpoint(tmp_path, state(**many), [(0, bytes(24))]))
    assert opened == ["w/data.pkl", "w/data/0"]


BAD = {
    "a call": pickle.dumps(Reduced(os.system, "true")),
    "a state for an object": b"\x80\x02}}(Vx\nI1\nub.",
    "an object of a class": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "a hundred thousand lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a hundred thousand tuples": b"\x80\x02" + b")" + b"\x85" * 100_000 + b".",
    "no number of elements": state(a=tensor(0, -1, (6,))),
    "elements beyond the file": state(a=tensor(0, 1 << 40, (1 << 40,))),
    "an endless shape": state(a=tensor(0, 6, (1 << 40, 1 << 40))),
    "a negative shape": state(a=tensor(0, 6, (-2, -3))),
    "a text of a memo that is not there": b"\x80\x02h\x07.",
    "no end": b"\x80\x02}",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("form", ["zip", "stream"])
def test_a_checkpoint_that_wants_more_than_arrays_is_refused(tmp_path, frugal, name, form):
    if form == "zip":
        file = checkpoint(tmp_path, BAD[name], [(0, bytes(24))])
    else:
        file = tmp_path / "old.pt"
        head = b"".join(pickle.dumps(n, 2) for n in (0x1950A86A20F9469CFC6C, 1001, {}))
        file.write_bytes(head + BAD[name] + pickle.dumps(["0"], 2) + struct.pack("<q", 6) + bytes(24))
    with pytest.raises(RequestError, match=r"(w|old)\.pt (asks for|is no)"):
        torch_file.read(file)


def test_what_pytorch_notes_beside_the_weights_is_passed_over(tmp_path):
    """`torch.save(model.state_dict())` writes versions of layers as attributes of the dict."""
    noted = state(a=tensor(0, 6, (6,))).replace(b"}(", b"ccollections\nOrderedDict\n)R(", 1)[:-1] + b"}(Vitems\nI1\nub."
    read = torch_file.read(checkpoint(tmp_path, noted, [(0, bytes(24))]))
    assert list(read) == ["a"] and type(read) is dict


@pytest.mark.parametrize("file", ["w.pt", "model.keras", "E.npz"])
def test_models_and_tables_that_unpack_to_gigabytes_are_refused(tmp_path, frugal, file):
    (tmp_path / file).write_bytes(overlapping(400, 10_000_000))
    read = {"w.pt": torch_file.read, "model.keras": pretrained.load, "E.npz": score_files.read_embeddings}[file]
    with pytest.raises(RequestError, match=r"is an archive bomb|asks for packed data"):
        read(tmp_path / file)


@pytest.mark.parametrize("file", ["w.pt", "old.pt", "model.keras", "model.onnx", "model.tflite", "E.npz", "list.txt"])
def test_sparse_files_of_thirty_gigabytes_are_refused(tmp_path, file):
    """In a process of its own: what a runtime does with one is not Python's memory alone."""
    sparse(tmp_path / file, 30 << 30, b"" if file == "old.pt" else zip64((30 << 30) - 200, 0, (30 << 30) - 98))
    readers = {
        ".pt": "sv_utils.models.pretrained.torch_file.read",
        ".npz": "sv_utils.evaluation.score_files.read_embeddings",
    }
    readers[".txt"] = "sv_utils.base.lists.read_names"
    module, _, function = readers.get((tmp_path / file).suffix, "sv_utils.models.pretrained.load").rpartition(".")
    code = (
        "import importlib, resource, sys, time\n"
        f"read = getattr(importlib.import_module({module!r}), {function!r})\n"
        "before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()\n"
        "try:\n    read(sys.argv[1])\nexcept ValueError as error:\n    print(type(error).__name__, error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000, time.process_time() - started)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / file], capture_output=True, text=True, timeout=60)
    said, measured = done.stdout.splitlines()
    megabytes, seconds = map(float, measured.split())
    assert said.startswith("RequestError ") and megabytes < 300 and seconds < 2, done.stdout


def test_embeddings_that_claim_terabytes_are_refused(tmp_path, frugal):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 30, 192)})
    with zipfile.ZipFile(tmp_path / "E.npz", "w") as archive:
        archive.writestr("paths.npy", header.getvalue())
        archive.writestr("embeddings.npy", header.getvalue())
    with pytest.raises(RequestError, match="holds no arrays"):
        score_files.read_embeddings(str(tmp_path / "E.npz"))


PIPES = {
    "embed, its list": ["sv_utils.embed", "--model", "campplus", "--root", ".", "--list", "pipe", "--out", "e"],
    "embed, its model": ["sv_utils.embed", "--model", "pipe", "--root", ".", "--list", "list.txt", "--out", "e"],
    "embed, a recording": ["sv_utils.embed", "--model", "m.keras", "--root", ".", "--list", "pipes.txt", "--out", "e"],
    "score, its embeddings": ["sv_utils.score", "pipe.npz", "trials.txt"],
    "score, its scores": ["sv_utils.score", "pipe"],
    "score, its list": ["sv_utils.score", "list.txt", "pipe"],
}


@pytest.mark.parametrize("name", PIPES)
def test_a_pipe_as_an_argument_is_refused_and_does_not_hang(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "list.txt").write_text("a.wav\n")
    (tmp_path / "trials.txt").write_text("1 a.wav b.wav\n0 a.wav c.wav\n")
    (tmp_path / "pipes.txt").write_text("pipe\n")
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", *PIPES[name]]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "a pipe or a device" in done.stderr


COMMANDS = {
    "verify, a recording": (verify, ["bomb.m4a", "good.wav"]),
    "verify, its model": (verify, ["good.wav", "good.wav", "--model", "bomb.keras"]),
    "enrol, a recording": (enrol, ["anna", "bomb.m4a", "--store", "voices.npz"]),
    "identify, its store": (identify, ["good.wav", "--store", "bomb.npz"]),
    "score, its embeddings": (score, ["bomb.npz", "trials.txt"]),
    "embed, its model": (embed, ["--model", "bomb.onnx", "--root", ".", "--list", "list.txt", "--out", "e.npz"]),
    "embed, its list": (embed, ["--model", "bomb.onnx", "--root", ".", "--list", "sparse.txt", "--out", "e.npz"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_refuses_an_attack_by_exit_code_2_in_one_sentence(tmp_path, monkeypatch, frugal, capsys, name):
    monkeypatch.chdir(tmp_path)
    Path("bomb.m4a").write_bytes(bombs.mp4(85_000_000, padding=1_500_000))
    Path("good.wav").write_bytes(wav(voice("id1", 1)))
    Path("list.txt").write_text("good.wav\n")
    Path("trials.txt").write_text("1 a b\n0 a c\n")
    for file in ("bomb.keras", "bomb.npz"):
        Path(file).write_bytes(overlapping(400, 10_000_000))
    sparse(tmp_path / "bomb.onnx", 30 << 30)
    sparse(tmp_path / "sparse.txt", 30 << 30)
    command, arguments = COMMANDS[name]
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "unforeseen" not in said and "Traceback" not in said
    assert not list(tmp_path.glob("e.npz")) + list(tmp_path.glob("voices.npz"))
