"""Trial lists: reading, refusing, finding utterances, drawing lists over own data."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sv_utils.base.errors import RequestError
from sv_utils.evaluation import trials

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LIST = "1 a/1/x.wav a/2/y.wav\n0 a/1/x.wav b/1/z.wav\n0 b/1/z.wav a/2/y.wav\n"


@pytest.fixture
def listed(tmp_path):
    def put(text, name="list.txt"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return put


def test_read(listed):
    read = trials.read(listed(LIST))
    assert read.labels.tolist() == [1, 0, 0]
    assert read.labels.dtype == np.int8
    assert read.enrol.tolist() == ["a/1/x.wav", "a/1/x.wav", "b/1/z.wav"]
    assert read.test.tolist() == ["a/2/y.wav", "b/1/z.wav", "a/2/y.wav"]
    assert len(read) == 3


def test_read_forgives_windows_and_a_missing_last_newline(listed):
    read = trials.read(listed(b"\xef\xbb\xbf" + LIST.rstrip().replace("\n", "\r\n").encode()))
    assert read.labels.tolist() == [1, 0, 0]
    assert read.test.tolist() == ["a/2/y.wav", "b/1/z.wav", "a/2/y.wav"]


def test_read_without_labels(listed):
    read = trials.read(listed("a b\nc d\n"))
    assert read.labels is None
    assert read.test.tolist() == ["b", "d"]


def test_a_line_is_that_of_the_file_and_of_what_was_made_here_its_place(listed):
    assert [trials.read(listed("a b\n\nc d\n")).line(place) for place in (0, 1)] == [1, 3]
    assert trials.Trials(None, np.array(["a"]), np.array(["b"])).line(0) == 1


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "is empty"),
        ("1 a b\n0 a\n", "line 2 has 2 columns where line 1 has 3"),
        ("1 a b\n\n2 a c\n", "line 3 has the label '2'"),
        ("1 a b 0.5\n", "has 4 columns"),
        ("1 a b\n2 a c\n", "line 2 has the label '2'"),
        ("1 a b\n0 a c\n0 b a\n", r"gives a and b the label 1 in line 1 and 0 in line 3"),
        ("1 a b\n0 a c\n1 d c\n1 e d\n0 c d\n", r"gives d and c the label 1 in line 3 and 0 in line 5"),
        (b"\xff\xfe\x00", "is not a text file"),
    ],
)
def test_unreadable_lists_are_refused(listed, text, sentence):
    with pytest.raises(RequestError, match=sentence):
        trials.read(listed(text, "bad.txt"))


def test_an_absent_list_is_a_wrong_request(tmp_path):
    with pytest.raises(RequestError, match="is no file"):
        trials.read(tmp_path / "no.txt")


WORDS = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8).filter(
    lambda word: word.split() == [word]
)


@UNTIMED
@given(
    st.lists(
        st.tuples(st.integers(0, 1), WORDS, WORDS), min_size=1, max_size=20, unique_by=lambda row: frozenset(row[1:])
    )
)
def test_what_is_written_is_read(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    labels, enrol, test = zip(*lines)
    trials.write(path, trials.Trials(np.array(labels, dtype=np.int8), np.array(enrol), np.array(test)))
    read = trials.read(path)
    assert (tuple(read.labels), tuple(read.enrol), tuple(read.test)) == (labels, enrol, test)


def test_write_without_labels(tmp_path):
    trials.write(tmp_path / "pairs.txt", trials.Trials(None, np.array(["a"]), np.array(["b"])))
    assert (tmp_path / "pairs.txt").read_text() == "a b\n"


def test_speaker_is_the_first_component():
    assert trials.speaker(["id1/v/1.wav", "id2/1.wav", "3.wav"]).tolist() == ["id1", "id2", "3.wav"]
    assert trials.speaker([]).dtype.kind == "U"


def test_speakers_of_a_list(listed):
    enrol, test = trials.speakers(trials.read(listed(LIST)))
    assert (enrol.tolist(), test.tolist()) == (["a", "a", "b"], ["a", "b", "a"])


def test_ids_that_hold_no_speaker_are_recognised(listed):
    assert trials.speakers(trials.read(listed("1 a.wav b.wav\n0 a.wav c.wav\n"))) is None
    assert trials.speakers(trials.read(listed("1 wav/a wav/b\n0 wav/a wav/c\n"))) is None


def test_a_label_against_the_speakers_is_refused(listed):
    with pytest.raises(RequestError, match=r"list.txt line 4 gives a/1/x.wav and b/1/w.wav the label 1"):
        trials.speakers(trials.read(listed(LIST + "1 a/1/x.wav b/1/w.wav\n")))
    twentieth = "1 a/1/u.wav a/1/v.wav\n" * 18 + "0 a/1/u.wav c/2/v.wav\n1 a/1/u.wav b/1/v.wav\n"
    with pytest.raises(RequestError, match="line 20 gives"):  # though the second folder would contradict none
        trials.speakers(trials.read(listed(twentieth)))


def test_rows(listed):
    enrol, test = trials.rows(trials.read(listed(LIST)), ["b/1/z.wav", "a/2/y.wav", "unused", "a/1/x.wav"])
    assert (enrol.tolist(), test.tolist()) == ([3, 3, 0], [1, 0, 1])


def test_a_trial_that_names_a_missing_file_is_refused_with_its_line(listed):
    with pytest.raises(RequestError, match=r"list.txt line 2 names b/1/z.wav, .* 2 utterances .*\(2 of 3 trials"):
        trials.rows(trials.read(listed(LIST)), ["a/1/x.wav", "a/2/y.wav"])
    with pytest.raises(RequestError, match=r"line 1 names a/1/x\.wav"):
        trials.rows(trials.read(listed(LIST)), ["b/1/z.wav", "a/2/y.wav"])
    with pytest.raises(RequestError, match="more than once"):
        trials.rows(trials.read(listed(LIST)), ["a/1/x.wav", "a/1/x.wav"])


def test_repeats_tells_the_same_line_from_the_swapped_one(listed):
    exact, swapped = trials.repeats(trials.read(listed("0 a b\n0 c d\n0 b a\n0 a b\n0 d c\n0 d e\n0 b a\n")))
    assert exact.tolist() == [3, 6]
    assert swapped.tolist() == [2, 4]
    # ties of which a faster sort keeps no order
    assert trials._later(np.repeat([9, 3], 20)).tolist() == [*range(1, 20), *range(21, 40)]


def voices(**sessions):
    """Ids of speakers with so many utterances in each session: voices(a=[2, 1]) is a/0/0, a/0/1, a/1/0."""
    return [f"{name}/{s}/{u}" for name, counts in sessions.items() for s, n in enumerate(counts) for u in range(n)]


def kinds(made):
    owner = trials.speaker(made.enrol), trials.speaker(made.test)
    return made.labels, owner[0] == owner[1]


@UNTIMED
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=2),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(0, 9),
)
def test_make_never_repeats_and_gives_all_it_can(sessions, n_target, n_nontarget, seed):
    ids = voices(**sessions)
    sizes = [sum(counts) for counts in sessions.values()]
    targets = sum(n * (n - 1) // 2 for n in sizes)
    nontargets = (sum(sizes) ** 2 - sum(n * n for n in sizes)) // 2
    if not targets:
        with pytest.raises(RequestError, match="give no target trial"):
            trials.make(ids, n_target, n_nontarget, seed)
        return
    made = trials.make(ids, n_target, n_nontarget, seed)
    labels, same = kinds(made)
    np.testing.assert_array_equal(labels == 1, same)
    assert labels.sum() == min(n_target, targets)
    assert (labels == 0).sum() == min(n_nontarget, nontargets)
    assert [len(places) for places in trials.repeats(made)] == [0, 0]
    assert not (made.enrol == made.test).any()


def test_make_prefers_pairs_across_sessions():
    # a gives 4 pairs across sessions and 2 within, b only pairs within
    ids = voices(a=[2, 2], b=[5])
    across = [e.split("/")[1] != t.split("/")[1] for e, t in pairs(trials.make(ids, 4, 1, 0))]
    assert across == [True] * 4
    made = pairs(trials.make(ids, 6, 1, 0))
    assert sum(e.split("/")[1] != t.split("/")[1] for e, t in made) == 4
    assert len(made) == 6


def pairs(made):
    return list(zip(made.enrol[made.labels == 1].tolist(), made.test[made.labels == 1].tolist()))


def test_speakers_stand_at_the_same_place_from_the_end_where_ids_are_not_equally_deep():
    enrol, test = ["phone/1/ann/1.wav", "web/bob/2.wav"], ["web/ann/3.wav", "phone/1/ann/1.wav"]
    found = trials.speakers(trials.Trials(np.array([1, 0]), np.array(enrol), np.array(test)))
    assert [side.tolist() for side in found] == [["ann", "bob"], ["ann", "ann"]]
    enrol, test = ["x/y/ann/1/1.wav", "y/bob/2/2.wav"], ["y/ann/3/3.wav", "x/y/ann/1/1.wav"]  # the last but one
    found = trials.speakers(trials.Trials(np.array([1, 0]), np.array(enrol), np.array(test)))
    assert [side.tolist() for side in found] == [["ann", "bob"], ["ann", "ann"]]
    enrol, test = ["phone/ann/1/1/1.wav", "web/bob/2/2.wav"], ["web/ann/3/3.wav", "phone/ann/1/1/1.wav"]
    found = trials.speakers(trials.Trials(np.array([1, 0]), np.array(enrol), np.array(test)))
    assert [side.tolist() for side in found] == [["ann", "bob"], ["ann", "ann"]]  # the second


def test_what_cannot_be_shared_evenly_goes_to_the_last_of_many_equals():
    assert trials._spread(45, np.full(40, 9)).tolist() == [1] * 35 + [2] * 5
    halves = np.repeat([9, 3], 20)  # ties of which a faster sort keeps no order
    assert trials._spread(150, halves).tolist() == [4] * 10 + [5] * 10 + [3] * 20


def test_make_spreads_over_speakers_and_pairs_of_speakers():
    made = trials.make(voices(a=[30, 30], b=[5, 5], c=[4, 4], d=[1]), 48, 60, 1)
    labels, _ = kinds(made)
    assert Counter(trials.speaker(made.enrol[labels == 1]).tolist()) == {"a": 16, "b": 16, "c": 16}
    met = Counter(
        frozenset(pair)
        for pair in zip(
            trials.speaker(made.enrol[labels == 0]).tolist(), trials.speaker(made.test[labels == 0]).tolist()
        )
    )
    assert met[frozenset("cd")] == 8  # all there is; the other 52 go evenly to the other five pairs
    assert sorted(met.values()) == [8, 10, 10, 10, 11, 11]


def test_make_keeps_the_share_of_one_gender():
    ids = voices(**{name: [3] for name in "abcdefgh"})
    genders = {**dict.fromkeys("bcd", "f"), **dict.fromkeys("efg", "m")}
    made = trials.make(ids, 10, 40, 2, genders, same_gender_share=0.75)
    labels, _ = kinds(made)
    sides = [trials.speaker(side[labels == 0]).tolist() for side in (made.enrol, made.test)]
    same = [genders[e] == genders[t] for e, t in zip(*sides)]
    assert (len(same), sum(same)) == (40, 30)
    by_halves = (trials.make(ids, 10, 40, 2, genders, *share) for share in ((), (0.5,)))
    assert len({tuple(made.enrol) for made in by_halves}) == 1
    assert set("ah").isdisjoint(sides[0] + sides[1])  # their genders are not known


def test_make_depends_on_the_seed_and_not_on_the_order_of_ids():
    ids = voices(a=[3, 3], b=[3, 3], c=[3, 3])
    made, again, other = (
        trials.make(ids, 9, 9, 7),
        trials.make(np.array(ids[::-1], object), 9, 9, 7),
        trials.make(ids, 9, 9, 8),
    )
    assert made.enrol.tolist() == again.enrol.tolist() and made.test.tolist() == again.test.tolist()
    assert made.enrol.tolist() != other.enrol.tolist() and made.enrol.dtype == again.enrol.dtype
    assert made.labels.dtype == np.int8  # a byte a trial


def test_make_puts_either_utterance_on_the_enrol_side():
    made = trials.make(voices(a=[9, 9], b=[9, 9]), 60, 60, 0)
    assert 20 < sum(enrol < test for enrol, test in zip(made.enrol, made.test)) < 100


def test_one_speaker_gives_no_list():
    with pytest.raises(RequestError, match="1 speakers give no non-target trial"):
        trials.make(voices(a=[3]), 1, 1, 0)


def test_share_of_target_trials_within_one_session():
    enrol, test = ["a/1/x", "a/1/x", "b/y", "a/1/x"], ["a/2/x", "a/1/z", "b/z", "b/y"]
    listed = trials.Trials(np.array([1, 1, 1, 0], np.int8), np.array(enrol), np.array(test))
    assert trials.same_session_share(listed) == pytest.approx(2 / 3)


def test_labels_that_are_needed_and_missing_are_named_with_the_list(listed):
    assert trials.read(listed(LIST)).known_labels.tolist() == [1, 0, 0]
    with pytest.raises(RequestError, match=r"pairs\.txt has no labels; begin each line with 1"):
        _ = trials.read(listed("a b\nc d\n", "pairs.txt")).known_labels
