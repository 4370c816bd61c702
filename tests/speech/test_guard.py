"""The process that decodes: what it may take, and what becomes of the next file when it dies."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from bombs import box, mp4, words
from recordings import encoded, speech
from release import m4a, voice, wav

from sv_utils.base.errors import WorkError
from sv_utils.speech import audio, guard, headers

GOOD = wav(voice("id1", 1))
HELPERS = os.path.join(os.path.dirname(__file__), "..", "helpers")

# Each attack in a process of its own: the time, and the most that the decoding process held of memory.
ATTACK = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
import bombs
from release import voice, wav
from sv_utils.speech import audio, guard
data = eval(sys.argv[2], vars(bombs))
audio.decode(wav(voice("id1", 1)))
def status(process, name):
    with open(f"/proc/{process}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024
idle = status(guard._idle[0]._process.pid, "VmRSS")
start, reason = time.perf_counter(), ""
try:
    audio.decode(data)
except audio.AudioError as error:
    reason = str(error)
seconds = time.perf_counter() - start
own = status("self", "VmHWM")
guard.close()
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps({"reason": reason, "seconds": seconds, "own": own, "most": most, "idle": idle, "bytes": len(data)}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        ("mp4(85_000_000)", "damaged: 85000000 samples announced in "),
        ("mp4(85_000_000, tracks=3)", "damaged: 85000000 samples announced in "),
        ("fragmented(60_000_000)", "damaged: 60000000 samples announced in "),
        # Those that no gate sees, for the file is as large as its counts allow, or the count is packed:
        ("mp4(85_000_000, padding=1_500_000)", ""),
        ("fragmented(60_000_000, padding=1_000_000)", ""),
        ("compressed(0x7fffffff)", ""),
    ],
)
def test_a_small_file_cannot_take_gigabytes(bomb, reason):
    """They took 2.2 to 7.2 GB: refused within 2 s and 300 MB beyond what the idle process holds."""
    command = [sys.executable, "-c", ATTACK, HELPERS, bomb]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    said = json.loads(result.stdout)
    assert said["reason"] and said["reason"].startswith(reason), said
    assert said["most"] < said["idle"] + 300, said
    assert said["own"] < 250, said
    assert said["seconds"] < 2, said


def test_counts_that_fit_are_not_refused():
    for container, codec in [("mp4", "aac"), ("mov", "adpcm_ima_qt"), ("mov", "pcm_s16le"), ("3gp", "aac")]:
        assert headers.impossible_count(encoded(speech(), 16000, container, codec)) == ""
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    assert headers.impossible_count(encoded(speech(), 16000, "mp4", "aac", options=options)) == ""


@pytest.mark.parametrize(
    ("kind", "head"),
    [(b"stts", 4), (b"stsc", 4), (b"stco", 4), (b"co64", 4), (b"ctts", 4), (b"stss", 4), (b"stsd", 4), (b"sbgp", 8)],
)
def test_a_table_with_more_entries_than_it_has_room_for_is_refused(kind, head):
    table = box(b"moov", box(kind, bytes(head), words(1000), bytes(64)))
    assert headers.impossible_count(table) == f"a table '{kind.decode()}' of 1000 entries in {head + 68} bytes"


def test_boxes_that_hold_themselves_or_nothing_end():
    assert headers.impossible_count(box(b"moov", b"\0" * 100_000)) == ""
    assert headers.impossible_count(words(1) + b"moov" + bytes(3)) == ""
    assert headers.impossible_count(words(8) + b"moov" * 10) == ""


def test_the_next_file_gets_a_new_process():
    decoder = guard.Decoder()
    assert len(decoder.decode(GOOD).samples) == 24000
    os.kill(decoder._process.pid, signal.SIGKILL)
    with pytest.raises(audio.AudioError, match=r"^damaged: it makes the decoder crash$"):
        decoder.decode(GOOD)
    assert len(decoder.decode(GOOD).samples) == 24000
    decoder.close()


def test_a_file_that_takes_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(guard, "PATIENCE", 0.2)
    decoder = guard.Decoder()
    decoder.decode(GOOD, max_seconds=60)
    os.kill(decoder._process.pid, signal.SIGSTOP)
    with pytest.raises(audio.AudioError, match=r"^damaged: decoding takes longer than 0 s$"):
        decoder.decode(GOOD, max_seconds=0.1)
    assert len(decoder.decode(GOOD, max_seconds=60).samples) == 24000
    decoder.close()


def test_one_process_decodes_file_after_file(tmp_path):
    decoder = guard.Decoder()
    decoder.decode(GOOD)
    first = decoder._process.pid
    with pytest.raises(audio.AudioError, match="not audio"):
        decoder.decode(b"a letter")
    (tmp_path / "a.m4a").write_bytes(m4a(voice("id1", 2)))
    with open(tmp_path / "a.m4a", "rb") as file:
        decoder.decode(file)
    assert decoder._process.pid == first
    decoder.close()


def test_threads_decode_side_by_side():
    files = [wav(voice("id1", number)) for number in range(12)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(audio.decode, files))
    for number, sound in enumerate(decoded):
        np.testing.assert_array_equal(sound.samples, voice("id1", number))


def test_a_forked_process_starts_its_own():
    decoder = guard.Decoder()
    decoder.decode(GOOD)
    child = os.fork()
    if not child:
        os._exit(0 if len(decoder.decode(GOOD).samples) == 24000 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(decoder.decode(GOOD).samples) == 24000
    decoder.close()


def test_it_ends_with_the_process_that_started_it():
    program = (
        "from sv_utils.speech import guard; import sys, os; d = guard.Decoder(); d.decode(sys.stdin.buffer.read());"
    )
    program += "print(d._process.pid, flush=True); os._exit(1)"
    result = subprocess.run([sys.executable, "-c", program], input=GOOD, capture_output=True, timeout=60)
    number = int(result.stdout)
    for _ in range(50):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("the decoding process outlives its owner")


def test_here_and_apart_give_the_same_samples():
    data = m4a(voice("id1", 1))
    np.testing.assert_array_equal(audio.decode(data).samples, audio.decode(data, in_worker=True).samples)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a limit of the address space is not kept")
def test_the_ceiling_here_is_lifted_afterwards():
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(audio.AudioError):
        audio.decode(mp4(85_000_000, padding=1_500_000), in_worker=True)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert len(audio.decode(GOOD, in_worker=True).samples) == 24000


def test_a_watch_on_the_memory_ends_the_process_where_the_system_sets_no_limit():
    program = "from sv_utils.speech import guard; import time, sys\n"
    program += "with guard.watched(50 * 2**20):\n    kept = bytearray(int(sys.argv[1]) * 2**20); time.sleep(0.5)\n"
    # By way of a small process, for Linux hands the greatest size of the one that starts it down.
    between = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]]).returncode)"
    for megabytes, code in [(10, 0), (200, 1)]:
        command = [sys.executable, "-c", between, program, str(megabytes)]
        assert subprocess.run(command, timeout=60).returncode == code


def test_an_interrupt_leaves_nothing_for_the_next_file(monkeypatch):
    decoder = guard.Decoder()
    decoder.decode(GOOD)
    monkeypatch.setattr(guard, "_receive", lambda connection: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        decoder.decode(GOOD)
    monkeypatch.undo()
    other = wav(voice("id2", 3))
    np.testing.assert_array_equal(decoder.decode(other).samples, voice("id2", 3))
    decoder.close()


def test_a_process_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr(guard, "START", guard.START.replace("guard.serve()", "sys.modules['av'] = None; guard.serve()"))
    with pytest.raises(WorkError, match=r"^the decoding process does not start \(.*av.*\); run make setup$"):
        guard.Decoder().decode(GOOD)


def test_a_process_that_began_early_decodes_the_first_file():
    guard.close()
    guard.begin()
    guard.begin()
    (decoder,) = guard._idle
    process = decoder._process
    assert len(guard.decode(GOOD).samples) == 24000
    assert guard._idle == [decoder] and decoder._process is process
    guard.close()
    assert process.poll() is not None


def test_what_hinders_an_early_start_is_told_by_the_first_file(monkeypatch):
    """Also where the process has long said so, and ended."""
    guard.close()
    monkeypatch.setattr(guard, "START", guard.START.replace("guard.serve()", "sys.modules['av'] = None; guard.serve()"))
    guard.begin()
    guard._idle[0]._process.wait(60)
    with pytest.raises(WorkError, match=r"^the decoding process does not start \(.*av.*\); run make setup$"):
        guard.decode(GOOD)
    monkeypatch.undo()
    monkeypatch.setattr(guard.subprocess, "Popen", lambda *_, **__: (_ for _ in ()).throw(OSError("no more processes")))
    guard.begin()
    with pytest.raises(OSError, match="no more processes"):
        guard.decode(GOOD)
    monkeypatch.undo()
    assert len(guard.decode(GOOD).samples) == 24000
    guard.close()


def test_an_early_start_waits_for_no_numpy_and_leaves_nothing_behind():
    """What a command imports until then is in a child of this test, which ends badly without a file."""
    program = "import os, sys; from sv_utils import identify, verify; from sv_utils.speech import guard\n"
    program += "verify.asked.begin()\nassert not {'numpy', 'yaml'} & set(sys.modules)\n"
    program += "assert os.environ['OPENBLAS_NUM_THREADS'] == '1'\n"
    program += "import sv_utils.voices.compare; assert 'ml_dtypes' not in sys.modules\n"  # of weights to convert
    program += "print(guard._idle[0]._process.pid, flush=True); raise SystemExit(3)"
    alone = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=alone)
    assert result.returncode == 3, result.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(result.stdout), 0)


def test_every_command_decodes_under_the_ceiling():
    """Only preparation, and the forecast of its time, decode in their own process."""
    from sv_utils.base import paths

    for file in (paths.REPO / "sv_utils").rglob("*.py"):
        text = file.read_text("utf-8")
        inside = file.parent.name == "speech"
        assert inside or file.name == "forecast.py" or "in_worker" not in text, file
        assert inside or file.parent.name == "mini_data" or "import av\n" not in text, file
