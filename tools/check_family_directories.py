#!/usr/bin/env python3
"""Quantizes every tiny family checkpoint with RTN, dequantizes what was written by numpy, and compares transformers' logits with ours.

Needs torch, transformers, safetensors, numpy.  check_family_directories.py --bin build/bin [--only NAME]
Names and shapes must be those of the checkpoint that was quantized; a Conv1D's weight is turned back to [in, out].
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers
from gptq_tensors import dequantize_gptq
from safetensors.torch import load_file, save_file

GOLDEN = pathlib.Path("tests/golden/families")
TOLERANCE = 1e-4  # ||ours - theirs|| / ||theirs||


def plain_tensors(base, written, config):
    """The written tensors under the base checkpoint's names and shapes, and how many were dequantized."""
    plain, count = {}, 0
    for name, tensor in base.items():
        module = name.removesuffix(".weight")
        if name.endswith(".weight_scale_inv"):  # FP8's scales: the written directory is no longer FP8
            continue
        if f"{module}.qweight" in written:
            weight = dequantize_gptq(written, module, config)
            weight = weight if weight.shape == tensor.shape and not is_conv1d(module) else weight.T
            if weight.shape != tensor.shape:
                raise ValueError(f"{name}: {tuple(weight.shape)}, expected {tuple(tensor.shape)}")
            plain[name], count = weight.contiguous(), count + 1
        elif name in written:
            plain[name] = written[name].float()
        else:
            raise ValueError(f"{name} is not in the written directory")
    return {k: v.clone() for k, v in plain.items()}, count


def is_conv1d(module):
    return is_conv1d.family in ("gpt2", "openai-gpt") and module.rsplit(".", 1)[-1] in ("c_attn", "c_proj", "c_fc")


def check(case, options, ids, scratch):
    base, folder, plain = GOLDEN / case["name"], scratch / "quantized", scratch / "plain"
    is_conv1d.family = case["family"]
    done = subprocess.run([options.bin / "bench", "quantize", base, "--method", "rtn", "--bits", "4", "--group-size",
                           str(case["group"]), "-o", folder], capture_output=True, text=True)
    if done.returncode:
        return None, "refused: " + done.stderr.strip().splitlines()[-1][:150]
    subprocess.run([options.bin / "dump_logits", folder, scratch / "ids.txt", scratch / "ours"], check=True, capture_output=True)
    ours = np.fromfile(scratch / "ours", dtype=np.float32).reshape(len(ids), -1)
    written = {}
    for path in folder.glob("*.safetensors"):
        written.update(load_file(path))
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    tensors, count = plain_tensors(load_file(base / "model.safetensors"), written, config)
    plain.mkdir()
    original = json.loads((base / "config.json").read_text())
    original.pop("quantization_config", None)
    (plain / "config.json").write_text(json.dumps(original))
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    kind = getattr(transformers, case["architecture"])
    model = kind.from_pretrained(plain, dtype=torch.float32, attn_implementation=case["attention"]).eval()
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0].numpy()
    far = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    return far < TOLERANCE and count > 0, f"{far:.1e}, {count} tensors"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, default="build/bin")
    parser.add_argument("--only")
    options = parser.parse_args()
    results = {None: 0, True: 0, False: 0}
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    for case in manifest["cases"]:
        if options.only not in (None, case["name"]):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            (scratch / "ids.txt").write_text(" ".join(map(str, manifest["ids"])))
            try:
                ok, line = check(case, options, manifest["ids"], scratch)
            except Exception as error:  # one family's failure is a line, not the end
                ok, line = False, f"{type(error).__name__}: {str(error)[:150]}"
        results[bool(ok) if ok is not None else None] += 1
        print(f"{'skip' if ok is None else 'ok  ' if ok else 'FAIL'} {case['name']}: {line}", flush=True)
    print(f"{results[True]} equal, {results[False]} failed, {results[None]} refused by bench quantize")
    return 1 if results[False] else 0


if __name__ == "__main__":
    sys.exit(main())
