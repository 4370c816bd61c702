"""
Recordings as users of other projects reported them: good ones that were refused, bad ones that were taken.

Each test makes its file on the spot and names the report that it comes from.
"""

import io
import os
import struct
import threading

import numpy as np
import pytest
from recordings import agreement, by_sndfile, encoded, speech
from release import wav

from sv_utils.speech import audio

REFERENCE = speech()
PCM = (REFERENCE * 32767).astype(np.int16)
NOT_UTF8 = b"\xe9\xff\xfe\x80\x81\xd0\xc3\x28\xa0"


def heard(data: bytes, reference: np.ndarray = REFERENCE, at_least: float = 0.97) -> audio.Decoded:
    """Decode; all of the reference is there, at its place but for an encoder's delay, and little more."""
    decoded = audio.decode(data)
    correlation, shift = agreement(decoded.samples, reference)
    assert correlation > at_least, correlation
    assert abs(shift) < 0.15
    assert abs(len(decoded.samples) - len(reference)) < 0.2 * 16000
    return decoded


def refused(data: bytes) -> str:
    with pytest.raises(audio.AudioError) as caught:
        audio.decode(data)
    return str(caught.value)


def with_data_size(data: bytes, size: int) -> bytes:
    """A wav file whose header announces another size of its sound."""
    place = data.index(b"data") + 4
    return data[:place] + struct.pack("<I", size) + data[place + 4 :]


# Tags


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("wav", "pcm_s16le"),
        ("aiff", "pcm_s16be"),
        ("flac", "flac"),
        ("mp3", "mp3"),
        ("ipod", "aac"),
        ("mov", "pcm_s16le"),
        ("matroska", "flac"),
        ("avi", "pcm_s16le"),
        ("caf", "pcm_s16le"),
        ("au", "pcm_s16be"),
    ],
)
def test_tags_may_be_in_any_encoding(container, codec):
    """PyAV-Org/PyAV#629, imageio/imageio#1059: UnicodeDecodeError for the tags of a good file."""
    data = encoded(REFERENCE, 16000, container, codec, metadata={"title": "TITLEMARK"})
    assert b"TITLEMARK" in data
    heard(data.replace(b"TITLEMARK", NOT_UTF8))


def test_names_of_handlers_may_be_in_any_encoding():
    """Zulko/moviepy#2563: a QuickTime handler whose name is in a Cyrillic code page."""
    data = encoded(REFERENCE, 16000, "mov", "aac")
    assert data.count(b"SoundHandler") == 1
    heard(data.replace(b"SoundHandler", b"\xce\xe1\xf0\xe0\xe1\xee\xf2\xf7\xe8\xea  "))


# Durations that nobody stated


@pytest.mark.parametrize(
    "data",
    [
        encoded(REFERENCE, 16000, "adts", "aac"),
        encoded(REFERENCE, 16000, "mp3", "mp3", options={"write_xing": "0"}),
        encoded(REFERENCE, 16000, "mp3", "mp3", piped=True),
        encoded(REFERENCE, 48000 // 3, "asf", "mp3", piped=True),
        encoded(speech(48000), 48000, "webm", "opus", piped=True),
        encoded(REFERENCE, 16000, "matroska", "pcm_s16le", piped=True),
    ],
    ids=["adts", "mp3 without Xing", "mp3 from a pipe", "asf from a pipe", "live webm", "live mkv of PCM"],
)
def test_an_estimated_duration_announces_nothing(data):
    """DSheirer/sdrtrunk#1377: no Xing header, so that programs guess the length by the bit rate of the first frame."""
    assert heard(data).warnings == ()


def test_a_guess_by_the_first_frames_is_no_announcement():
    """sdrtrunk#1377: quiet frames of 8 kbit/s first, loud ones later; the guess is a multiple of the duration."""
    quiet = encoded(np.zeros(32000), 16000, "mp3", "mp3", options={"write_xing": "0"}, bit_rate=8000)
    loud = encoded(REFERENCE, 16000, "mp3", "mp3", options={"write_xing": "0"}, bit_rate=160000)
    decoded = heard(quiet + loud, np.concatenate([np.zeros(32000, np.float32), REFERENCE]))
    assert not any("missing" in text for text in decoded.warnings)


def test_joined_mp3_files_are_heard_in_full():
    """google/ExoPlayer#9238: the Xing header of the first file states 2:37 hours of 28."""
    one = encoded(REFERENCE, 16000, "mp3", "mp3")
    decoded = audio.decode(one * 3)
    assert abs(len(decoded.samples) - 3 * 32000) < 5000
    for third in (0, 1, 2):
        part = decoded.samples[third * 32000 : (third + 1) * 32000 + 4000]
        assert agreement(part, REFERENCE)[0] > 0.9


def test_a_cut_mp3_that_states_its_frames_is_truncated():
    data = encoded(REFERENCE, 16000, "mp3", "mp3")
    assert refused(data[: len(data) * 7 // 10]).startswith("truncated: 1.4 s of 2.0 s")


# Bytes behind the sound


def ape_tag(size: int) -> bytes:
    item = struct.pack("<II", size, 2) + b"Cover Art (Front)\0" + b"\xff\xd8\xff\xe0" + os.urandom(size - 4)
    ends = [b"APETAGEX" + struct.pack("<IIIIQ", 2000, len(item) + 32, 1, flag << 29, 0) for flag in (5, 4)]
    return ends[0] + item + ends[1]


def lyrics3() -> bytes:
    text = b"LYRICSBEGININD0000200LYR05000" + b"la la " * 833 + b"\r\n"
    return text + b"%06dLYRICS200" % len(text) + b"TAG" + NOT_UTF8.ljust(125, b"\0")


BEHIND = {
    "id3v1": b"TAG" + NOT_UTF8.ljust(125, b"\0"),
    "lyrics3": lyrics3(),
    "ape": ape_tag(200_000),
    "zeros": bytes(65_536),
    "html": b"<html><body>404 not found</body></html>\n" * 100,
}


@pytest.mark.parametrize("tail", BEHIND)
@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp3", "mp3"), ("adts", "aac"), ("flac", "flac"), ("wav", "pcm_s16le"), ("ipod", "aac"), ("aiff", "pcm_s16be")],
)
def test_bytes_behind_the_last_frame_do_no_harm(container, codec, tail):
    """WohlSoft/SDL-Mixer-X#31: decoders stumble over Lyrics3, APE and ID3 tags at the end."""
    decoded = heard(encoded(REFERENCE, 16000, container, codec) + BEHIND[tail])
    assert not any("missing" in text for text in decoded.warnings)


@pytest.mark.parametrize(
    ("container", "codec"), [("au", "pcm_s16be"), ("w64", "pcm_s16le"), ("caf", "pcm_s16le"), ("NIST", "PCM_16")]
)
def test_bytes_behind_the_sound_are_not_taken_for_sound(container, codec):
    """mpruett/audiofile#3: a tag behind the sound is played as static."""
    sound = (by_sndfile if container == "NIST" else encoded)(REFERENCE, 16000, container, codec)
    assert len(heard(sound + BEHIND["html"]).samples) == 32000


def test_damage_between_frames_is_still_damage():
    data = bytearray(encoded(REFERENCE, 16000, "ipod", "aac"))
    middle = len(data) // 2
    data[middle : middle + 600] = b"\xff" * 600
    assert refused(bytes(data)).startswith("damaged: decoding stops at ")


def test_a_frame_that_is_lost_in_the_middle_is_told():
    data = bytearray(encoded(REFERENCE, 16000, "flac", "flac"))
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(600)
    assert audio.decode(bytes(data)).warnings == ("0.14 s of the sound that its header announces are missing",)


# Sizes in wav headers


@pytest.mark.parametrize("more", [2, 16, 36, 44, 320])
def test_a_wav_header_that_is_a_little_off_is_a_warning(more):
    """cjcliffe/CubicSDR#616 and llfbandit/record#96: the header announces 16 or 44 bytes more than there are."""
    decoded = heard(with_data_size(wav(PCM), 64000 + more))
    np.testing.assert_array_equal(decoded.samples, PCM)
    (warning,) = decoded.warnings
    assert warning == f"{'0.01' if more == 320 else '0.001'} s of the sound that its header announces are missing"


def test_the_last_10_ms_of_a_wav_file_may_be_missing():
    assert audio.decode(wav(PCM)[:-320]).warnings == ("0.01 s of the sound that its header announces are missing",)


def test_half_a_second_is_the_limit():
    assert audio.decode(wav(PCM)[:-15000]).warnings == ("0.47 s of the sound that its header announces are missing",)
    assert refused(wav(PCM)[:-17000]) == "truncated: 1.5 s of 2.0 s"


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFDB, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", ["PCM_16", "PCM_24", "IMA_ADPCM"])
def test_sizes_that_programs_write_into_pipes_are_unknown(kind, size):
    """kaldi-asr/kaldi#1567: sox writes 0x7ffff000 bytes, rounded down to whole blocks."""
    block = {"PCM_16": 2, "PCM_24": 3, "IMA_ADPCM": 256}[kind]
    rounded = size // block * block if size == 0x7FFFF000 else size
    assert heard(with_data_size(by_sndfile(REFERENCE, 16000, "WAV", kind), rounded)).warnings == ()


def test_six_channels_from_a_pipe():
    """kaldi-asr/kaldi#1567, with 24 bit and six channels: a block of 18 bytes."""
    data = by_sndfile(np.repeat(REFERENCE[:, None], 6, axis=1), 16000, "WAV", "PCM_24")
    decoded = heard(with_data_size(data, 0x7FFFF000 // 18 * 18))
    assert (decoded.channels, decoded.warnings) == (6, ())


# Compressed sound that a wav header calls samples of 16 bit


def test_ac3_in_a_wav_file_is_decoded():
    """As discs are ripped: AC-3 in the frames of a digital output, under the header of a CD."""
    framed = encoded(speech(48000), 48000, "spdif", "ac3")
    assert heard(wav(np.frombuffer(framed, np.int16), 48000)).codec == "ac3"


@pytest.mark.parametrize("length", [1024, 4096, 16384])
@pytest.mark.parametrize("order", [">u2", "<u2"])
def test_dts_in_a_wav_file_is_not_taken_for_samples(length, order):
    """Frames of DTS of any length, none of which can be decoded: taken for samples they would be noise."""
    fields = [(0x7FFE8001, 32), (1, 1), (31, 5), (0, 1), (15, 7), (length - 1, 14), (2, 6), (8, 4), (15, 5)]
    bits = "".join(f"{value:0{width}b}" for value, width in fields).ljust(128, "0")
    frame = int(bits, 2).to_bytes(16, "big").ljust(length, b"\0")
    assert refused(wav(np.frombuffer(frame * 40, order).astype("<u2").view("<i2"), 44100)) == "no samples"


# Rates that change


def test_each_part_of_a_stream_has_its_own_rate():
    """espressif/esp-adf#861 and the like: the second part of an ADTS stream played at a third of its speed."""
    parts = [encoded(speech(rate), rate, "adts", "aac") for rate in (16000, 48000)]
    decoded = audio.decode(b"".join(parts))
    assert abs(len(decoded.samples) - 2 * 32000) < 4000
    for half in (decoded.samples[:34000], decoded.samples[33000:]):
        assert agreement(half, REFERENCE)[0] > 0.9
    assert decoded.warnings == ("its sample rate changes midway: 16000 and 48000 Hz",)
    assert decoded.rate == 16000


def test_channels_may_change_midway():
    parts = [encoded(sound, 16000, "adts", "aac") for sound in (REFERENCE, np.stack([REFERENCE, REFERENCE]))]
    decoded = audio.decode(b"".join(parts))
    assert agreement(decoded.samples[:34000], REFERENCE)[0] > 0.9
    assert agreement(decoded.samples[33000:], REFERENCE)[0] > 0.9


@pytest.mark.parametrize("second", ["same", "other rate", "other codec"])
def test_chained_ogg_is_heard_in_full(second):
    """DeaDBeeF-Player/deadbeef#1021 and est31/lewton (RustAudio/lewton#18): links of other rates are garbled."""
    first = by_sndfile(REFERENCE, 16000, "OGG", "VORBIS")
    other = {
        "same": first,
        "other rate": by_sndfile(speech(44100), 44100, "OGG", "VORBIS"),
        "other codec": encoded(speech(48000), 48000, "ogg", "opus"),
    }[second]
    decoded = audio.decode(first + other)
    assert abs(len(decoded.samples) - 2 * 32000) < 1000
    assert agreement(decoded.samples[:32000], REFERENCE)[0] > 0.97
    assert agreement(decoded.samples[31500:], REFERENCE)[0] > 0.97


def test_a_chain_is_bounded_as_a_whole():
    part = by_sndfile(REFERENCE, 16000, "OGG", "VORBIS")  # of 2 s
    assert abs(len(audio.decode(part + part, max_seconds=4.1).samples) - 64000) < 1000
    with pytest.raises(audio.AudioError, match=r"^longer than 3 s$"):
        audio.decode(part + part, max_seconds=3)


# Several tracks


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "flac"), ("mov", "pcm_s16le")])
def test_a_silent_track_beside_one_that_is_not_is_told(container, codec):
    """SubtitleEdit/subtitleedit#6110: the first track of a screen recording, which is blank, is taken."""
    two = np.stack([np.zeros_like(REFERENCE), REFERENCE])[:, None]
    decoded = audio.decode(encoded(two, 16000, container, codec, tracks=2))
    assert decoded.warnings == ("audio track 1 of 2 was taken, which is silent; another is not",)


@pytest.mark.parametrize("container", ["matroska", "mp4"])
def test_the_default_track_is_taken(container):
    """SubtitleEdit/subtitleedit#9183: always the first track, whichever the file calls the default."""
    other = speech(seed=1)
    assert abs(agreement(other, REFERENCE)[0]) < 0.5
    two = np.stack([other, REFERENCE])[:, None]
    decoded = heard(encoded(two, 16000, container, "flac", tracks=2, default=1))
    assert decoded.warnings == ()


# Formats


@pytest.mark.parametrize("coding", ["PCM_16", "PCM_24", "PCM_S8", "ULAW", "ALAW"])
def test_sphere_files_are_read(coding):
    """pytorch/audio#868: files of TED-LIUM; zzw922cn/Automatic_Speech_Recognition#2: those of TIMIT."""
    heard(by_sndfile(REFERENCE, 16000, "NIST", coding))


def sphere(fields: str, sound: bytes) -> bytes:
    head = f"NIST_1A\n   1024\nchannel_count -i 1\nsample_rate -i 16000\nsample_count -i {len(PCM)}\n{fields}end_head\n"
    return head.encode().ljust(1024) + sound


def test_sphere_files_of_timit_state_no_coding():
    fields = "database_id -s5 TIMIT\nsample_n_bytes -i 2\nsample_byte_format -s2 01\nsample_sig_bits -i 16\n"
    np.testing.assert_array_equal(audio.decode(sphere(fields, PCM.tobytes())).samples, PCM)
    swapped = sphere(fields.replace("s2 01", "s2 10"), PCM.byteswap().tobytes())
    np.testing.assert_array_equal(audio.decode(swapped).samples, PCM)


def test_sphere_files_that_are_compressed_are_named():
    """pytorch/audio#989: "unsupported coding 'ulaw,embedded-shorten-v2.00'"."""
    data = sphere("sample_n_bytes -i 2\nsample_coding -s26 pcm,embedded-shorten-v2.00\n", b"ajkg\x02" + bytes(5000))
    assert refused(data) == "not audio: NIST SPHERE compressed by Shorten: unpack it with sph2pipe"


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html><html>", "a web page: the download failed"),
        (b"MThd\0\0\0\6", "MIDI"),
        (b"#!SILK_V3", "SILK"),
        (b"ajkg\x02", "Shorten"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x1fC\xb6u\x01\xff\xff\xff\xff\xff\xff\xff", "a later piece of a webm recording"),
    ],
)
def test_what_is_no_recording_is_named(start, said):
    """CheyneyComputerScience/CREMA-D#3 (Git LFS), shouri123/Late-Meet#678 (webm), and what else people hand in."""
    assert refused(start + bytes(range(1, 200)) * 3).startswith(f"not audio: {said}")


# Samples that are floats


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE"])
def test_samples_that_are_no_numbers_are_refused(kind, value):
    """LMMS/lmms#1048: "infinitely loud silence"; they were decoded as zeros."""
    samples = REFERENCE.copy()
    samples[[100, 2000]] = value
    assert refused(by_sndfile(samples, 16000, "WAV", kind)) == "2 of its 32000 samples are not finite numbers"


@pytest.mark.parametrize(("scale", "unit"), [(2**15, 2**15), (60, 2**15), (2**23, 2**23), (2**31, 2**31)])
def test_integers_stored_as_floats_are_scaled(scale, unit):
    """scipy/scipy#16515: a float wav file takes whatever array it is given."""
    samples = np.rint(REFERENCE.astype(float) * scale)
    decoded = heard(by_sndfile(samples, 16000, "WAV", "DOUBLE"))
    np.testing.assert_allclose(decoded.samples / 32768, samples / unit, atol=1 / 32768)
    (warning,) = decoded.warnings
    assert warning.startswith("its samples are integers stored as floats") and warning.endswith(f"divided by {unit}")


def test_floats_beyond_full_scale_are_told():
    decoded = audio.decode(by_sndfile(4 * REFERENCE, 16000, "WAV", "FLOAT"))
    share = np.mean(np.abs(4 * REFERENCE) > 1)
    assert decoded.warnings == (f"{share:.2%} of the samples lie beyond full scale and are clipped",)


def test_floats_within_full_scale_are_untouched():
    decoded = audio.decode(by_sndfile(REFERENCE, 16000, "WAV", "FLOAT"))
    np.testing.assert_array_equal(decoded.samples, np.rint(REFERENCE * np.float32(32768)).astype(np.int16))
    assert decoded.warnings == ()


# What was found beside the reports


@pytest.mark.parametrize("size", [1000, 4096])
def test_a_recorder_that_stopped_early_leaves_a_header_that_says_too_little(size):
    """silverstein/minutes#519, island-io/mila#151: most of the sound lies behind what the header announces."""
    decoded = audio.decode(with_data_size(wav(PCM), size))
    np.testing.assert_array_equal(decoded.samples, PCM)
    assert decoded.warnings == (f"{64000 - size} bytes behind the sound that its header announces are decoded as well",)


def test_chunks_behind_the_sound_are_no_sound():
    decoded = audio.decode(wav(PCM[:100]) + b"LIST" + struct.pack("<I", 4000) + b"INFO" + bytes(3996))
    assert (len(decoded.samples), decoded.warnings) == (100, ())


def test_zeros_before_the_first_frame_are_passed_over():
    """nomadkaraoke/karaoke-gen#826: a shop's mp3 files begin with 731 zeros."""
    heard(bytes(731) + encoded(REFERENCE, 16000, "mp3", "mp3"))
    heard(bytes(100_000) + wav(PCM))
    assert refused(bytes(5000)) == "nothing but zeros"


@pytest.mark.parametrize("container", ["WAV", "AIFF", "FLAC"])
def test_id3_tags_may_precede_any_format(container):
    """polyfloyd/rust-id3#63: the tag stands before the RIFF header."""
    tag = b"ID3\x04\0\0" + bytes([0, 0, 7, 104]) + bytes(1000)
    heard(tag + by_sndfile(REFERENCE, 16000, container, "PCM_16"))


@pytest.mark.parametrize(
    ("container", "codec"),
    [("matroska", "pcm_s16le"), ("webm", "opus"), ("w64", "pcm_s16le"), ("avi", "pcm_s16le"), ("caf", "pcm_s16le")],
)
def test_cut_files_of_formats_that_state_bytes_are_truncated(container, codec):
    rate = 48000 if codec == "opus" else 16000
    data = encoded(speech(rate), rate, container, codec)
    assert refused(data[: len(data) // 2]).startswith("truncated: ")


def test_an_ogg_file_that_breaks_off_within_a_page_is_told():
    data = by_sndfile(speech(seconds=20), 16000, "OGG", "VORBIS")
    assert audio.decode(data[: len(data) * 3 // 4]).warnings == ("it breaks off: its last page is incomplete",)


def test_sixteen_channels_that_lie_apart():
    """Frames of more than eight planar channels crashed the interpreter inside PyAV: wavpack, vorbis, opus."""
    data = encoded(np.repeat(REFERENCE[None], 16, axis=0), 48000 // 3, "wv", "wavpack")
    assert heard(data).channels == 16


def test_pictures_beside_the_sound_are_not_decoded():
    """A picture of 12000 x 12000 in the tag of a file took gigabytes of whoever looked for the sound."""
    from recordings import png_of_zeros

    picture = b"\0image/png\0\x03\0" + png_of_zeros(12000)
    frame = b"APIC" + syncsafe(len(picture)) + b"\0\0" + picture
    heard(b"ID3\x04\0\0" + syncsafe(len(frame)) + frame + encoded(REFERENCE, 16000, "mp3", "mp3"))


def syncsafe(number: int) -> bytes:
    return bytes((number >> shift) & 127 for shift in (21, 14, 7, 0))


def test_a_recording_comes_through_a_pipe(tmp_path):
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(wav(PCM),))
    writer.start()
    np.testing.assert_array_equal(audio.decode(pipe).samples, PCM)
    writer.join()


def test_a_pipe_that_nobody_fills_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "PATIENCE", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(audio.AudioError, match=r"^nothing is written into this pipe$"):
        audio.decode(tmp_path / "pipe")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_devices_are_no_recordings(path):
    with pytest.raises(audio.AudioError, match=r"^not a file$"):
        audio.decode(path)


def test_file_objects_and_bytes_agree(tmp_path):
    data = io.BytesIO(encoded(REFERENCE, 16000, "ipod", "aac")).getvalue()
    (tmp_path / "a.m4a").write_bytes(data)
    np.testing.assert_array_equal(audio.decode(tmp_path / "a.m4a").samples, audio.decode(data).samples)
