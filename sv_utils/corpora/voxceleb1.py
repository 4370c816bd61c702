"""
VoxCeleb1: 1,251 celebrities in 153,516 utterances out of interviews; the source of the evaluation lists O, E and H.

O names the test half only; E and H name files of both halves, so whoever reports them must not train on the dev half.
"""

from sv_utils.corpora import Archive, Corpus, Text

_META = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/"


def _list(file: str, rows: int, md5: str) -> Text:
    return Text(file, rows=rows, md5=md5, url=_META + file)


CORPUS = Corpus(
    name="voxceleb1",
    remotes=(
        Archive(
            name="vox1_dev_wav.zip",
            subset="dev",
            parts=(
                ("vox1_dev_wav_partaa", "e395d020928bc15670b570a21695ed96"),
                ("vox1_dev_wav_partab", "bbfaaccefab65d82b21903e81a8a8020"),
                ("vox1_dev_wav_partac", "017d579a2a96a077f40042ec33e51512"),
                ("vox1_dev_wav_partad", "7bb1e9f70fddc7a678fa998ea8b3ba19"),
            ),
            md5="ae63e55b951748cc486645f532ba230b",
            utterances=148642,
            speakers=1211,
            gigabytes=32,
            hours=340,
        ),
        Archive(
            name="vox1_test_wav.zip",
            subset="test",
            parts=(("vox1_test_wav.zip", "185fdc63c3c739954633d50379a3d102"),),
            utterances=4874,
            speakers=40,
            gigabytes=1.1,
            hours=12,
        ),
    ),
    table=Text("vox1_meta.csv", rows=1251, url=_META + "vox1_meta.csv"),
    lists={
        "VoxCeleb1-O": _list("veri_test.txt", 37720, "29fc7cc1c5d59f0816dc15d6e8be60f7"),
        "VoxCeleb1-O-cleaned": _list("veri_test2.txt", 37611, "b73110731c9223c1461fe49cb48dddfc"),
        "VoxCeleb1-E": _list("list_test_all.txt", 581480, "b9ecf7aa49d4b656aa927a8092844e4a"),
        "VoxCeleb1-E-cleaned": _list("list_test_all2.txt", 579818, "a53e059deb562ffcfc092bf5d90d9f3a"),
        "VoxCeleb1-H": _list("list_test_hard.txt", 552536, "21c341b6b2168eea2634df0fb4b8fff1"),
        "VoxCeleb1-H-cleaned": _list("list_test_hard2.txt", 550894, "857790e09d579a68eb2e339a090343c8"),
    },
    routes=(
        "https://cn01.mmai.io/download/voxceleb?file={file}&key={key}",
        "https://huggingface.co/datasets/ProgramComputer/voxceleb/resolve/main/vox1/{file}",
    ),
    licence="CC BY 4.0, for research; the copyright of the videos remains with their owners.",
    citation="A. Nagrani, J. S. Chung, A. Zisserman, VoxCeleb: a large-scale speaker identification dataset, "
    "Interspeech 2017.",
    manual="ask for a personal key at https://mm.kaist.ac.kr/datasets/voxceleb and set SV_VOXCELEB_KEY, or place the "
    "four parts vox1_dev_wav_partaa to -ad (or vox1_dev_wav.zip) and vox1_test_wav.zip in a folder named voxceleb1 and "
    "name the folder above it in SV_MIRROR",
)
