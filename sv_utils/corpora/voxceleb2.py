"""VoxCeleb2: 6,112 celebrities in 1.13 million utterances; its dev half is what speaker encoders are trained on."""

from sv_utils.corpora import Archive, Corpus, Text

CORPUS = Corpus(
    name="voxceleb2",
    remotes=(
        Archive(
            name="vox2_dev_aac.zip",
            subset="dev",
            parts=(
                ("vox2_dev_aac_partaa", "da070494c573e5c0564b1d11c3b20577"),
                ("vox2_dev_aac_partab", "17fe6dab2b32b48abaf1676429cdd06f"),
                ("vox2_dev_aac_partac", "1de58e086c5edf63625af1cb6d831528"),
                ("vox2_dev_aac_partad", "5a043eb03e15c5a918ee6a52aad477f9"),
                ("vox2_dev_aac_partae", "cea401b624983e2d0b2a87fb5d59aa60"),
                ("vox2_dev_aac_partaf", "fc886d9ba90ab88e7880ee98effd6ae9"),
                ("vox2_dev_aac_partag", "d160ecc3f6ee3eed54d55349531cb42e"),
                ("vox2_dev_aac_partah", "6b84a81b9af72a9d9eecbb3b1f602e65"),
            ),
            md5="bbc063c46078a602ca71605645c2a402",
            utterances=1092009,
            speakers=5994,
            gigabytes=76,
            hours=2360,
        ),
        Archive(
            name="vox2_test_aac.zip",
            subset="test",
            parts=(("vox2_test_aac.zip", "0d2b3ea430a821c33263b5ea37ede312"),),
            speakers=118,  # in 36,237 utterances by some tables, 36,273 by others: not compared
            gigabytes=2.5,
            hours=82,
        ),
    ),
    table=Text("vox2_meta.csv", rows=6114, url="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/vox2_meta.csv"),
    lists={},
    routes=(
        "https://cn01.mmai.io/download/voxceleb?file={file}&key={key}",
        "https://huggingface.co/datasets/ProgramComputer/voxceleb/resolve/main/vox2/{file}",
    ),
    licence="CC BY 4.0, for research; the copyright of the videos remains with their owners.",
    citation="J. S. Chung, A. Nagrani, A. Zisserman, VoxCeleb2: Deep Speaker Recognition, Interspeech 2018.",
    manual="ask for a personal key at https://mm.kaist.ac.kr/datasets/voxceleb and set SV_VOXCELEB_KEY, or place the "
    "eight parts vox2_dev_aac_partaa to -ah (or vox2_dev_aac.zip) and vox2_test_aac.zip in a folder named voxceleb2 "
    "and name the folder above it in SV_MIRROR",
)
