import io
import os
import subprocess
import sys
import threading

import av
import numpy as np
import pytest
from release import encoded, m4a, voice, wav

from sv_utils.base.errors import RequestError
from sv_utils.speech import audio


def test_pcm16_at_16_khz_passes_bit_by_bit():
    samples = np.random.default_rng(0).integers(-32768, 32768, 12345).astype(np.int16)
    decoded = audio.decode(wav(samples))
    np.testing.assert_array_equal(decoded.samples, samples)
    assert decoded.samples.dtype == np.int16
    assert (decoded.rate, decoded.channels, decoded.codec) == (16000, 1, "pcm_s16le")


def test_path_and_bytes_agree(tmp_path):
    samples = voice("id1", 1)
    (tmp_path / "a.wav").write_bytes(wav(samples))
    np.testing.assert_array_equal(audio.decode(tmp_path / "a.wav").samples, samples)
    (tmp_path / "a.wav").write_bytes(b"")  # which cannot be mapped
    with pytest.raises(audio.AudioError, match=r"^empty file$"):
        audio.decode(tmp_path / "a.wav")


def test_channels_are_averaged():
    stereo = np.stack([np.full(1600, 1000), np.full(1600, -400)], axis=1).astype(np.int16)
    decoded = audio.decode(wav(stereo))
    assert decoded.channels == 2
    np.testing.assert_array_equal(decoded.samples, np.full(1600, 300))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_stereo_44100_hz_becomes_mono_16_khz(subtype):
    time = np.arange(44100) / 44100
    stereo = np.stack([0.5 * np.sin(2 * np.pi * 440 * time), 0.1 * np.sin(2 * np.pi * 1000 * time)], axis=1)
    decoded = audio.decode(encoded(stereo, 44100, format="WAV", subtype=subtype))
    assert (decoded.rate, decoded.channels, len(decoded.samples)) == (44100, 2, 16000)
    time = np.arange(16000) / 16000
    expected = 0.25 * np.sin(2 * np.pi * 440 * time) + 0.05 * np.sin(2 * np.pi * 1000 * time)
    # Away from the ends the resampled tones are those of the formula, to 2 units of int16.
    np.testing.assert_allclose(decoded.samples[200:-200] / 32768, expected[200:-200], atol=2 / 32768)


@pytest.mark.parametrize(("format", "codec"), [("FLAC", "flac"), ("OGG", "vorbis"), ("MP3", "mp3float")])
def test_other_containers(format, codec):
    samples = voice("id1", 1)
    decoded = audio.decode(encoded(samples, 16000, format=format))
    assert decoded.codec == codec
    assert len(decoded.samples) == len(samples)
    error = decoded.samples.astype(float) - samples
    assert np.std(error) < 0.3 * np.std(samples.astype(float))  # shifted by as little as 20 samples it is above 1


def test_m4a_is_aligned_with_what_was_encoded():
    samples = voice("id1", 1)
    decoded = audio.decode(m4a(samples))
    assert (decoded.codec, decoded.rate) == ("aac", 16000)
    # The encoder's delay of 1024 samples is gone, the padding of its last frame stays.
    assert len(samples) <= len(decoded.samples) < len(samples) + 1024
    lags = np.arange(-40, 41)
    middle = samples[8000:16000].astype(float)
    correlation = [np.dot(middle, decoded.samples[8000 + lag : 16000 + lag]) for lag in lags]
    assert lags[int(np.argmax(correlation))] == 0
    assert np.corrcoef(middle, decoded.samples[8000:16000])[0, 1] > 0.98


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"This is a letter, not a recording.\n" * 100, "not audio, or cut off before its index"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "not audio: a playlist: name the recording itself"),
        (np.random.default_rng(0).bytes(5000), "not audio, or cut off before its index"),
        (wav(voice("id1", 1))[:20000], "truncated: 0.6 s of 1.5 s"),
        (wav(np.zeros(0, np.int16)), "no samples"),
        (wav(np.zeros(1000, np.int16), rate=10), "sample rate of 10 Hz"),
        (m4a(voice("id1", 1))[:8000], "truncated: 0.8 s of 1.5 s"),
        (encoded(voice("id1", 1), 16000, format="MP3")[:3000], "truncated: "),
        (encoded(voice("id1", 1), 16000, format="FLAC")[:9000], "truncated: 0.3 s of 1.5 s"),
    ],
    ids=["empty", "text", "playlist", "noise", "cut wav", "no samples", "10 Hz", "cut m4a", "cut mp3", "cut flac"],
)
def test_bad_files_give_a_reason(data, reason):
    with pytest.raises(audio.AudioError) as caught:
        audio.decode(data)
    assert str(caught.value).startswith(reason)


def test_picture_without_sound_has_no_audio_stream():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(audio.AudioError, match=r"^no audio stream$"):
        audio.decode(file.getvalue())


def test_length_is_bounded():
    bomb = encoded(np.zeros(16000 * 60, np.int16), 16000, format="FLAC")
    assert len(bomb) < 20000
    with pytest.raises(audio.AudioError, match=r"^longer than 5 s$"):
        audio.decode(bomb, max_seconds=5)


FUZZ = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from release import encoded, m4a, voice, wav
from sv_utils.speech import audio
rng = np.random.default_rng(7)
samples = voice("id1", 1, 1.0)
good = [m4a(samples), wav(samples)] + [encoded(samples, 16000, format=name) for name in ("FLAC", "OGG", "MP3")]
decoded = refused = 0
for number in range(400):
    data = bytearray(good[number % len(good)])
    if number % 3 == 0:
        for place in rng.integers(len(data), size=rng.integers(1, 30)):
            data[place] ^= 1 << int(rng.integers(8))
    elif number % 3 == 1:
        del data[int(rng.integers(len(data))):]
    else:
        size = int(rng.integers(1, 64))
        data[:size] = rng.bytes(size)
    try:
        result = audio.decode(bytes(data))
        assert result.samples.dtype == np.int16 and 0 < len(result.samples) < 3600 * 16000
        assert 0 <= audio.measure(result.samples)["peak"] <= 1
        decoded += 1
    except audio.AudioError as error:
        assert 0 < len(str(error)) < 120 and "crash" not in str(error) and "fail (" not in str(error)
        refused += 1
print(decoded, refused)
"""


def test_mutated_files_never_crash(request):
    # In a process of its own: a crash or hang inside a decoder would otherwise take the whole suite with it.
    command = [sys.executable, "-c", FUZZ, str(request.config.rootpath / "tests/helpers")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    decoded, refused = map(int, result.stdout.split())
    assert decoded + refused == 400
    assert decoded > 20
    assert refused > 100


def test_measures():
    quiet = np.tile(np.array([20, -20], np.int16), 160 * 5)  # five frames at -64 dBFS
    loud = np.tile(np.array([16384, -16384], np.int16), 160 * 3)  # three at -6 dBFS
    measures = audio.measure(np.concatenate([quiet, loud]))
    assert measures == {"peak": 0.5, "clipped": 0.0, "silent": 0.625}


def test_measures_of_clipping():
    samples = np.zeros(1000, np.int16)
    samples[:30], samples[30:50], samples[50:60] = 32767, -32768, 32766
    assert audio.measure(samples)["clipped"] == 0.05
    assert audio.measure(samples)["peak"] == 1.0


def test_measure_of_less_than_a_frame():
    assert audio.measure(np.full(7, 100, np.int16)) == {"peak": 100 / 32768, "clipped": 0.0, "silent": 0.0}


def test_every_wish_reaches_the_process_that_decodes(tmp_path, monkeypatch):
    """From bytes, a file and a pipe; in a process of its own, or in this one."""
    asked = []
    for name in ("decode", "decode_here"):

        def decode(source, *wishes, name=name):
            asked.append((name, source if isinstance(source, bytes) else source.read(), *wishes))
            return len(asked)

        monkeypatch.setattr(audio.guard, name, decode)
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "pipe")
    for number, source in enumerate((b"content", tmp_path / "file", tmp_path / "pipe")):
        for here in (False, True):
            writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"content"))
            if number == 2:
                writer.start()
            assert audio.decode(source, 8000, 7.5, True, in_worker=here) == len(asked)
            if number == 2:
                writer.join()
    assert asked == [(name, b"content", 8000, 7.5, True) for _ in range(3) for name in ("decode", "decode_here")]


def test_what_cannot_be_taken_for_samples_is_named():
    assert audio.as_int16([0.5], "a").tolist() == [16384]
    given = np.array([1, -2], np.int16)
    assert audio.as_int16(given) is given
    for samples, said in (
        (np.zeros((2, 2), np.int16), r"a has the shape \(2, 2\); give one channel"),
        (np.zeros(0, np.int16), "a has no samples"),
        (np.zeros(2, np.int32), "a is of type int32"),
        (np.array([0.0, np.nan]), "a holds NaN"),
        (np.array([0.5, -1.5]), r"a reaches 1\.5; scale"),
    ):
        with pytest.raises(RequestError, match=f"^{said}"):
            audio.as_int16(samples, "a")


def test_a_piece_of_a_flac_stream_is_that_of_the_sound():
    samples = voice("id1", 1)
    packed = audio.encode_flac(samples)
    np.testing.assert_array_equal(audio.decode_flac(packed, 5000, 700), samples[5000:5700])
    decoded = audio.decode(packed)
    assert (decoded.rate, decoded.channels, decoded.codec) == (16_000, 1, "flac") and len(packed) < samples.nbytes


def test_what_comes_out_of_a_pipe_is_bounded_and_nothing_stays_open(tmp_path, monkeypatch):
    before = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(audio, "PIPED", 1000)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(bytes(2000)))
    writer.start()
    with pytest.raises(audio.AudioError, match=r"^more than 0 MB come out of this pipe$"):
        audio.decode(tmp_path / "pipe")
    writer.join()
    with pytest.raises(IsADirectoryError):
        audio.decode(tmp_path)
    with pytest.raises(audio.AudioError, match=r"^not a file$"):
        audio.decode("/dev/null")
    assert len(os.listdir("/dev/fd")) <= before
