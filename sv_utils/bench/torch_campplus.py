"""CAM++ as published, in a process of its own: ``python -m sv_utils.bench.torch_campplus CODE WEIGHTS BATCH FRAMES``"""

import importlib.util
import os
import sys

import torch


def main(code: str, weights: str, batch: int, frames: int) -> None:
    """Answer each line of the standard input with the embedding of a batch of features."""
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    spec = importlib.util.spec_from_file_location("camplusplus", code)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.CAMPPlus(embedding_size=192)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval()
    features = torch.randn(batch, frames, 80)
    with torch.inference_mode():
        for _ in sys.stdin:
            print(float(network(features).sum()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
