"""
Write what the authors' own code computes, for test_parity.py: ``python make.py OUT [--full] [NAME ...]``

Maintenance, by hand. It needs torch, torchaudio (its compliance.kaldi), speechbrain 1.1.2, and the repositories
wenet-e2e/wespeaker at dfa7419 (its __init__.py files emptied, for they import other programs), modelscope/3D-Speaker at
09e7806 and PalabraAI/redimnet2 at ffe8f27; with these and tests/helpers on PYTHONPATH. The weights are drawn
(`parity.weights`), and the networks are narrow or shallow. ``--full`` takes them as they were published: to be compared
once, for they are too slow for a test.
"""

import json
import sys
from pathlib import Path

import parity
import torch
import torchaudio.compliance.kaldi as kaldi


def fbank(sound, window):
    scale = 32768 if window == "hamming" else 1
    found = kaldi.fbank(scale * sound, num_mel_bins=80, sample_frequency=16_000, dither=0.0, window_type=window)
    return (found - found.mean(0))[None]


def wespeaker_resnet(depth, width=32, embedding_dim=256):
    from wespeaker.models import resnet

    full = getattr(resnet, f"ResNet{depth}")(80, embedding_dim)
    block, counts = type(full.layer1[0]), [len(full.get_submodule(f"layer{k}")) for k in (1, 2, 3, 4)]
    model = resnet.ResNet(block, counts, m_channels=width, feat_dim=80, embed_dim=embedding_dim)
    return model, lambda sound: fbank(sound, "hamming"), lambda out: out[-1]


def wespeaker_simam(depth, width=64, embedding_dim=256):
    from wespeaker.models import samresnet

    model = getattr(samresnet, f"SimAM_ResNet{depth}_ASP")(width, embedding_dim)
    return model, lambda sound: fbank(sound, "hamming"), lambda out: out


def wespeaker_ecapa(width, embedding_dim=192):
    from wespeaker.models import ecapa_tdnn

    model = ecapa_tdnn.ECAPA_TDNN(width, 80, embedding_dim, global_context_att=True)
    return model, lambda sound: fbank(sound, "hamming"), lambda out: out[-1]


def shallow(module, blocks):
    """Let CAM++, which has its depths in a zip of its constructor, have others."""
    module.zip = (lambda *_: [(depth, 3, dilation) for depth, dilation in blocks]) if blocks else zip


def wespeaker_campplus(embedding_dim=512, blocks=None):
    from wespeaker.models import campplus

    shallow(campplus, blocks)
    return campplus.CAMPPlus(80, embedding_dim), lambda sound: fbank(sound, "hamming"), lambda out: out


def speakerlab_campplus(embedding_dim=512, blocks=None):
    from speakerlab.models.campplus import DTDNN

    shallow(DTDNN, blocks)
    return DTDNN.CAMPPlus(80, embedding_dim), lambda sound: fbank(sound, "povey"), lambda out: out


def speakerlab_eres2netv2(width=64, embedding_dim=192, **options):
    from speakerlab.models.eres2net.ERes2NetV2 import ERes2NetV2

    model = ERes2NetV2(m_channels=width, embedding_size=embedding_dim, **options)
    return model, lambda sound: fbank(sound, "povey"), lambda out: out


def speechbrain_ecapa(width, embedding_dim=192, aggregated=3072):
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    model = ECAPA_TDNN(80, lin_neurons=embedding_dim, channels=[width] * 4 + [aggregated])

    def features(sound):
        found = Fbank(n_mels=80)(sound)
        return found - found.mean(1, keepdim=True)

    return model, features, lambda out: out[:, 0]


def redimnet2(**config):
    from redimnet2.redimnet2 import ReDimNet2Wrap

    model = ReDimNet2Wrap(**config)
    spec, model.spec = model.spec, torch.nn.Identity()
    return model, spec, lambda out: out


CASES = json.loads(Path(__file__).with_name("cases.json").read_text("utf-8"))


def computed(case, full):
    """What the authors' code gives, with all that it takes to repeat it."""
    options = case["authors_full" if full else "authors"]
    model, features, embedding = globals()[case["code"]](**options)
    model.eval()
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    drawn = parity.weights(shapes)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in drawn.items()})
    with torch.no_grad():
        seen = features(torch.from_numpy(parity.sound())[None])
        vector = embedding(model(seen.float()))[0].numpy()
    seen = seen[0].numpy()
    return {
        "source": case["source"],
        "family": case["family"],
        "options": case["options_full" if full else "options"],
        "parameters": sum(value.numel() for value in model.parameters() if value.requires_grad),
        "shapes": shapes,
        "features": {"shape": list(seen.shape), "some": [[round(float(v), 4) for v in row] for row in seen[::40, ::9]]},
        "embedding": [round(float(v), 7) for v in vector / (vector**2).sum() ** 0.5],
    }


if __name__ == "__main__":
    out, *wanted = [argument for argument in sys.argv[1:] if argument != "--full"]
    for name, case in CASES.items():
        if not wanted or name in wanted:
            text = json.dumps(computed(case, "--full" in sys.argv), separators=(",", ":"))
            Path(out, f"{name}.json").write_text(text + "\n", "utf-8")
            print(name, len(text))
