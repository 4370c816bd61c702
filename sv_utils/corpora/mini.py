"""
mini: 58 real voices out of Debian packages in VoxCeleb's shape, part of the repository.

``mini_data/README.md`` says what the recordings are, ``mini_data/LICENCES.md`` whose they are.
"""

from pathlib import Path

from sv_utils.corpora import Archive, Corpus, Text

DATA = Path(__file__).parent / "mini_data"
CORPUS = Corpus(
    name="mini",
    remotes=(
        Archive(
            name="mini_dev_aac.zip",
            subset="dev",
            parts=(
                ("mini_dev_aac_partaa", "57119fba5f63b7157315502830a88dce"),
                ("mini_dev_aac_partab", "3dfee537d05d78f4adfc468119e4f49f"),
                ("mini_dev_aac_partac", "2e55165c36cc0a9159c1c9e56663313f"),
                ("mini_dev_aac_partad", "fcd33c8336a19698ce6c1a4a9fa3aa7f"),
                ("mini_dev_aac_partae", "ee1b94df566a8b84f6755ba1671f862a"),
            ),
            md5="0a13a95b055aade6dfd3efdf37a9218e",
            utterances=634,
            speakers=40,
            hours=0.75,
        ),
        Archive(
            name="mini_test.zip",
            subset="test",
            parts=(
                ("mini_test_partaa", "b933e46896409d11e2e19c257324db61"),
                ("mini_test_partab", "91f695addaafa57d0c1f5ff1bc03bb54"),
                ("mini_test_partac", "2ede7e08ee25f056d262c0cfc6c74c8d"),
                ("mini_test_partad", "3c6718d9e246272dcad4a66999883524"),
            ),
            md5="00fb13a15976059e0b9ba65d88b6adcb",
            utterances=252,
            speakers=18,
            hours=0.25,
        ),
    ),
    table=Text("mini_meta.csv", rows=58, md5="64b6aeea91961b6d0322abba5375aca6"),
    lists={"mini": Text("mini_trials.txt", rows=3060, md5="c0a4d8db27d551db0b3cf9d9fafe9114")},
    data=DATA,
    bundled=DATA,
    licence="Free licences, by voice: Creative Commons BY and BY-SA, GPL, BSD-like; see mini_data/LICENCES.md.",
    citation="Voices of Debian 12 packages, credited in mini_data/LICENCES.md.",
    manual="it is part of the repository: restore sv_utils/corpora/mini_data from version control",
    same_session=True,
    session_note="One voice is one microphone and mostly one session: an error rate on mini checks the pipeline and "
    "says nothing about VoxCeleb.",
)
