#!/usr/bin/env python3
"""Baichuan 13B, Baichuan 2 7B and 13B from GGUF, which llama.cpp tells from Baichuan 7B by 40 layers and by nothing else, so
that no tiny twin of tests/golden/families is one: checkpoints of as many layers and pieces as the published ones, 32 wide, go
through llama.cpp's converter and are compared with llama.cpp and with tools/families/remote.py.

Needs what tools/make_family_gguf.py needs.

  check_baichuan_gguf.py --bin build/bin --llama-cpp SOURCES --build BUILD

1. our logits of the file are remote.py's of the checkpoint;
2. llama.cpp's are the same; it takes the head of Baichuan 2 as it lies, so there of a file whose head has rows of length one,
   which makes no difference to ours;
3. `bench convert` writes W_pack and config.json back as they were.
Run by hand: llama.cpp 0c1e57098 (sdist of llama_cpp_python 0.3.36), torch 2.15.0.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import make_family_gguf as twins
from families import remote

FORMS = {"baichuan-13b": (40, 96), "baichuan2-7b": (32, 125696), "baichuan2-13b": (40, 125696)}
TOLERANCE = 5e-5  # float32 after 40 layers


def checkpoint(name, folder, unit_head):
    """config, and the folder filled"""
    remote.LAYERS, remote.V = FORMS[name]
    kept = remote.baichuan(**(dict(z_loss_weight=0) if "2" in name.split("-")[0] else {}),
                           **(dict(max_position_embeddings=64) if "7b" in name else {}))
    config = {**kept, "num_hidden_layers": remote.LAYERS, "vocab_size": remote.V}
    tensors = remote.fill(name, config)
    if unit_head:
        tensors["lm_head.weight"] = torch.nn.functional.normalize(tensors["lm_head.weight"])
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(dict(model=dict(vocab={str(i): i for i in range(96)}), added_tokens=[])))
    return config


def of_bench(args, model, scratch):
    (scratch / "ids").write_text(" ".join(map(str, twins.MANIFEST["ids"])))
    subprocess.run([args.bin / "dump_logits", model, scratch / "ids", scratch / "ours"], check=True, capture_output=True)
    return np.fromfile(scratch / "ours", "<f4").astype(float)


def of_llama_cpp(program, model, scratch):
    subprocess.run([program, model, scratch / "theirs", *map(str, twins.MANIFEST["ids"])], check=True, capture_output=True)
    return np.fromfile(scratch / "theirs", "<f4").astype(float)


def written_back(args, model, folder, config, scratch):
    """Whether bench's directory holds the tensors and the keys that the checkpoint has."""
    subprocess.run([args.bin / "bench", "convert", model, "--to", "f32", "-o", scratch / "back", "-q"], check=True)
    ours, theirs = load_file(scratch / "back/model.safetensors"), load_file(folder / "model.safetensors")
    said = json.loads((scratch / "back/config.json").read_text())
    keys = "architectures", "model_max_length", "max_position_embeddings", "z_loss_weight", "num_hidden_layers"
    same = {k for k in keys if k == "model_max_length" or config.get(k) == said.get(k)}
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in theirs) and len(same) == len(keys)


def check(name, unit_head, args, conversion, base, program, scratch):
    folder, model = scratch / "tiny", scratch / "model.gguf"
    config = checkpoint(name, folder, unit_head)
    twins.convert(conversion, base, folder, model, "ALL_F32", {})
    want = remote.forward(name, folder, twins.MANIFEST["ids"], torch.float64).numpy().ravel()
    far = [np.abs(got - want).max() / np.abs(want).max()
           for got in (of_bench(args, model, scratch), of_llama_cpp(program, model, scratch))]
    same = unit_head or "2" not in name.split("-")[0]  # as llama.cpp takes the head
    back = written_back(args, model, folder, config, scratch)
    good = far[0] < TOLERANCE and (far[1] < TOLERANCE) == same and back
    print(f"{'ok      ' if good else 'FAILED  '}{name}{', head of length one' if unit_head else ''}: bench {far[0]:.1e}, "
          f"llama.cpp {far[1]:.1e} from remote.py; written back {'the same' if back else 'DIFFERENT'}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("bin", "llama-cpp", "build"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    args = parser.parse_args()
    conversion, base = twins.load_converter(args.llama_cpp)
    twins.without_tokenizer(base)
    twins.mend(base, conversion)
    good = True
    with tempfile.TemporaryDirectory() as outer:
        program = twins.build_reader(args.build, args.llama_cpp, pathlib.Path(outer))
        for name, unit_head in [("baichuan-13b", False)] + [(n, u) for n in ("baichuan2-7b", "baichuan2-13b") for u in (False, True)]:
            with tempfile.TemporaryDirectory() as scratch:
                good &= check(name, unit_head, args, conversion, base, program, pathlib.Path(scratch))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
