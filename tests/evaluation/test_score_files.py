"""Score files: written to the last digit, read in each form, matched to a list."""

import zlib
from zipfile import BadZipFile

import numpy as np
import pytest
from whole_files import written_whole

from sv_utils.base.errors import RequestError
from sv_utils.evaluation import calibration, score_files, trials


def test_columns_are_written_with_all_that_a_float32_has(tmp_path):
    columns = {"label": np.array([1, 0], np.int8), "enrol": np.array(["a/1,2.wav", "b"])}
    columns |= {"score": np.array([0.1, -1 / 3], np.float32), "llr": np.array([1e-5, 12345678912.0])}
    score_files.write_table(tmp_path / "new" / "scores.csv", columns)
    assert (tmp_path / "new" / "scores.csv").read_bytes() == (
        b'label,enrol,score,llr\n1,"a/1,2.wav",0.100000001,1e-05\n0,b,-0.333333343,1.23456789e+10\n'
    )


def test_a_float32_comes_back_from_its_nine_digits(tmp_path):
    scores = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    score_files.write_table(tmp_path / "scores.csv", {"score": scores})
    read = np.loadtxt(tmp_path / "scores.csv", skiprows=1)
    assert (read.astype(np.float32) == scores).all()


def test_what_an_evaluation_writes_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    written = written_whole(monkeypatch, score_files, trials, calibration)
    score_files.write_table(tmp_path / "scores.csv", {"score": np.zeros(1)})
    trials.write(tmp_path / "list.txt", listed(("a", "b"), labels=[1]))
    calibration.Calibration(("cosine",), (1.0,), 0.0, 0.5, 1, 1).save(tmp_path / "calibration.json")
    assert [path.name for path in written] == ["scores.csv", "list.txt", "calibration.json"]
    assert sorted(written) == sorted(tmp_path.iterdir())


def test_columns_of_several_lengths_are_refused_and_leave_no_file(tmp_path):
    with pytest.raises(RequestError, match="the columns score, llr are not equally long"):
        score_files.write_table(tmp_path / "scores.csv", {"score": np.zeros(2), "llr": np.zeros(3)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line", ["0.5 a/1 b/2", "a/1 b/2 0.5", "0 a/1 b/2 0.5", "nontarget a/1 b/2 0.5", "a/1 b/2 0.5 nontarget"]
)
def test_each_form_of_a_score_file(tmp_path, line):
    (tmp_path / "scores.txt").write_text(line + "\n")
    given, scores = score_files.read_scores(str(tmp_path / "scores.txt"))
    assert (given.enrol.tolist(), given.test.tolist(), scores.tolist()) == (["a/1"], ["b/2"], [0.5])
    assert given.labels is None if len(line.split()) == 3 else given.labels.tolist() == [0]


def test_where_ids_are_numbers_the_scores_are_those_that_look_so_or_stand_first(tmp_path):
    for text, scores in (
        ("1 2 0.5\n", [0.5]),
        ("0.5 2 1\n", [0.5]),
        ("1 x -2\n", [-2]),
        ("-3 x -2\n", [-3]),
        ("a b 1\n", [1]),
    ):
        (tmp_path / "scores.txt").write_text(text)
        assert score_files.read_scores(str(tmp_path / "scores.txt"))[1].tolist() == scores


def test_columns_that_are_named_are_found_in_any_order_among_others(tmp_path):
    (tmp_path / "scores.csv").write_text("llr,test,note,Score,enrol\n9,b/2,x,0.5,a/1\n")
    given, scores = score_files.read_scores(str(tmp_path / "scores.csv"))
    assert (given.enrol.tolist(), given.test.tolist(), scores.tolist()) == (["a/1"], ["b/2"], [0.5])


def test_three_columns_that_are_named_are_taken_by_their_names(tmp_path):
    (tmp_path / "scores.csv").write_text("test,enrol,score\nb/2,a/1,0.5\n")
    given, _ = score_files.read_scores(str(tmp_path / "scores.csv"))
    assert (given.enrol.tolist(), given.test.tolist()) == (["a/1"], ["b/2"])


def test_trials_of_a_score_file_know_where_they_stand(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("label;enrol;test;score\n\n1;ann lee/1;b/2;0.5\n0;c;d;-2\n")
    given, scores = score_files.read_scores(str(path))
    assert (given.source, given.line(0), given.line(1), given.labels.dtype) == (str(path), 3, 4, np.int8)
    assert (given.labels.tolist(), given.enrol.tolist(), scores.tolist()) == ([1, 0], ["ann lee/1", "c"], [0.5, -2])
    path.write_text("ann lee/1;b/2;0.5\n")  # in two columns at the blank
    assert score_files.read_scores(str(path))[0].enrol.tolist() == ["ann lee/1"]
    path.write_text("enrol,test,score\n")
    with pytest.raises(RequestError, match=r"scores\.csv"):
        score_files.read_scores(str(path))
    path.write_text("1 2 3 4 5\n")
    with pytest.raises(RequestError, match=r"scores.csv has 5 columns"):
        score_files.read_scores(str(path))


@pytest.mark.parametrize("shape", [(2,), (3, 4)])
def test_embeddings_are_a_row_a_path(tmp_path, shape):
    np.savez(tmp_path / "e.npz", paths=np.array(["a", "b"]), embeddings=np.ones(shape))
    with pytest.raises(RequestError, match="one row of real numbers a path is needed"):
        score_files.read_embeddings(str(tmp_path / "e.npz"))


DAMAGES = [KeyError, ValueError, TypeError, AttributeError, EOFError, MemoryError, OSError, BadZipFile, zlib.error]


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_a_damaged_file_of_embeddings_raises_becomes_a_sentence(tmp_path, monkeypatch, damage):
    np.savez(tmp_path / "e.npz", paths=np.array(["a"]), embeddings=np.ones((1, 2)))

    def load(path):
        raise damage("within NumPy")

    monkeypatch.setattr(score_files.np, "load", load)
    with pytest.raises(RequestError, match="holds no arrays `paths`"):
        score_files.read_embeddings(str(tmp_path / "e.npz"))


def test_embeddings_that_are_missing_or_a_bomb_are_told_as_such(tmp_path, monkeypatch):
    with pytest.raises(RequestError, match=r"e\.npz does not exist; make it with"):
        score_files.read_embeddings(str(tmp_path / "e.npz"))
    asked = []
    monkeypatch.setattr(score_files, "refuse_bomb", asked.append)
    np.savez(tmp_path / "e.npz", paths=np.array([1]), embeddings=np.ones((1, 2)))
    with pytest.raises(RequestError, match="one row of real numbers a path"):
        score_files.read_embeddings(str(tmp_path / "e.npz"))
    assert asked == [str(tmp_path / "e.npz")]


def test_a_trial_that_is_scored_in_two_ways_is_refused():
    given, wanted = listed(("a", "b"), ("c", "d"), ("a", "b")), listed(("a", "b"), labels=[1])
    with pytest.raises(RequestError, match=r"scores a and b twice, once as 1\.0 in line 1"):
        score_files.match(wanted, given, np.array([1.0, 3.0, 2.0]))
    assert score_files.match(wanted, given, np.array([1.0, 3.0, 1.0]))[0].tolist() == [1.0]


def test_a_score_that_is_no_finite_number_is_named_with_its_line(tmp_path):
    (tmp_path / "scores.txt").write_text("a b 0.5\na c nan\n")
    with pytest.raises(RequestError, match=r"scores.txt line 2 has the score 'nan'"):
        score_files.read_scores(str(tmp_path / "scores.txt"))
    (tmp_path / "scores.txt").write_text("a b 0.5\na c high\n")
    with pytest.raises(RequestError, match=r"scores.txt line 2 has the score 'high'"):
        score_files.read_scores(str(tmp_path / "scores.txt"))


def test_a_label_that_is_none_is_named_with_its_line(tmp_path):
    (tmp_path / "scores.csv").write_text("label,enrol,test,score\n1,a,b,0.5\nmaybe,a,c,0.2\n")
    with pytest.raises(RequestError, match=r"scores.csv line 3 has the label 'maybe'"):
        score_files.read_scores(str(tmp_path / "scores.csv"))


def listed(*pairs, labels=None):
    enrol, test = zip(*pairs)
    return trials.Trials(None if labels is None else np.array(labels), np.array(enrol), np.array(test), "list.txt")


def test_scores_are_brought_into_the_order_of_the_list():
    given = listed(("c", "d"), ("x", "y"), ("a", "b"))
    scores, notes = score_files.match(listed(("a", "b"), ("c", "d"), labels=[1, 0]), given, np.array([3.0, 9.0, 1.0]))
    assert scores.tolist() == [1.0, 3.0]
    assert notes == ["1 scores of list.txt belong to no trial of list.txt."]
    labelled, three = listed(("c", "d"), ("x", "y"), labels=[0, 1]), np.array([3.0, 9.0])
    assert score_files.match(listed(("c", "d"), labels=[0]), labelled, three)[0].tolist() == [3.0]
    assert score_files.match(labelled, labelled, three)[1] == []
    assert score_files.match(listed(("c", "d")), labelled, three)[0].tolist() == [3.0]  # a list that tells no labels


def test_a_trial_without_a_score_is_named_with_its_line():
    with pytest.raises(RequestError, match=r"no score for 1 of the 2 trials .* first c and d of line 2"):
        score_files.match(listed(("a", "b"), ("c", "d"), labels=[1, 0]), listed(("a", "b")), np.array([1.0]))


def test_labels_of_both_must_agree():
    given = listed(("a", "b"), ("c", "d"), labels=[1, 1])
    with pytest.raises(RequestError, match=r"line 2 has the label 1, list\.txt another"):
        score_files.match(listed(("a", "b"), ("c", "d"), labels=[1, 0]), given, np.array([1.0, 2.0]))


def test_embeddings_are_read_with_their_ids(tmp_path):
    np.savez(tmp_path / "E.npz", paths=np.array(["a", "b"]), embeddings=np.eye(2, dtype=np.float32))
    paths, embeddings = score_files.read_embeddings(str(tmp_path / "E.npz"))
    assert paths.tolist() == ["a", "b"] and embeddings.tolist() == [[1, 0], [0, 1]]


def test_embeddings_whose_squares_are_no_numbers_keep_their_directions():
    given = np.array([[3e20, 4e20], [0, 3e-30], [0, 0], [3, 4]], np.float32)
    found = score_files._measurable(given)
    np.testing.assert_allclose(found, [[0.75, 1], [0, 1], [0, 0], [3, 4]], rtol=1e-6)
    assert score_files._measurable(given[:, :0]).shape == (4, 0)
    ordinary = np.array([[0.3, 0.4], [1e20, 0]], np.float32)
    assert score_files._measurable(ordinary).tolist() == [ordinary[0].tolist(), [1, 0]]
    halves = score_files._measurable(np.array([[400, 0.5]], np.float16))
    assert halves.tolist() == [[400, 0.5]] and halves.dtype == np.float32
