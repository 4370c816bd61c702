"""What is no speaker, no gender, and which corpora are of several microphones."""

import pytest

from sv_utils import corpora
from sv_utils.base.errors import RequestError
from sv_utils.corpora import _tables


@pytest.mark.parametrize("folder", ["dev", "test", "wav", "aac"])
def test_folders_of_voxceleb_are_no_speakers(folder):
    with pytest.raises(RequestError, match="name is not <speaker>/<session>/<file>"):
        corpora.parse(f"{folder}/id00012/00001.wav")


def test_a_gender_that_is_neither_is_not_known(tmp_path):
    (tmp_path / "speakers.csv").write_text("id,gender\nanna,f\nben,other\n")
    assert _tables.read(tmp_path / "speakers.csv")["gender"].to_dict() == {"anna": "f", "ben": ""}


def test_of_several_microphones_in_a_room_the_first_is_taken():
    assert [name for name in corpora.names() if corpora.get(name).first_channel] == ["rirs_noises"]
