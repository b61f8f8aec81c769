#!/usr/bin/env python3
"""Loads what `bench quantize` writes in the programs that it is for, and compares logits with ours.

Needs (in a virtual environment): torch, transformers, bitsandbytes, safetensors, numpy; for GPTQ also optimum and gptqmodel
(BUILD_CUDA_EXT=0 pip install --no-build-isolation gptqmodel). Run with torch 2.15.0, transformers 5.23.0, bitsandbytes
0.50.2, gptqmodel 7.7.0, optimum 2.3.0 on the CPU. Exit code 77 when torch, transformers or bitsandbytes are absent; without
gptqmodel the GPTQ directories are checked by gptq_tensors.py alone, and that is said.

  check_ecosystem.py --bin build/bin --model ../shared/models/wikimini-hf [--only NAME]

Each directory is looked at in two ways. "exact": its weights, dequantized in float32 by code that is not ours (bitsandbytes'
own functions; for GPTQ a few lines of numpy after the format's documentation), in transformers' float32 model; the logits
must agree to float32 rounding. "loaded": the directory as transformers loads it, whose kernels round weights and some
activations to float16; the logits must agree to that.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
try:
    import numpy as np
    import torch
    import transformers
    import bitsandbytes as bnb
    from gptq_tensors import dequantize_gptq
    from safetensors import safe_open
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)
try:
    import gptqmodel
except ImportError:
    gptqmodel = None

EXACT, LOADED = 2e-5, 5e-3  # largest ||ours - theirs|| / ||theirs||

GPTQ = ["--samples", "16", "--seqlen", "128"]
CASES = {
    "gptq-4b-g64": ["gptq", "--bits", "4", "--group-size", "64", *GPTQ],
    "gptq-4b-g64-act": ["gptq", "--bits", "4", "--group-size", "64", "--act-order", *GPTQ],
    "gptq-8b-act": ["gptq", "--bits", "8", "--group-size", "-1", "--act-order", *GPTQ],
    "gptq-3b-g32": ["gptq", "--bits", "3", "--group-size", "32", *GPTQ],
    "gptq-2b-g32-v2": ["gptq", "--bits", "2", "--group-size", "32", "--no-sym", *GPTQ],
    "gptq-4b-g128-act-v2": ["gptq", "--bits", "4", "--group-size", "128", "--no-sym", "--act-order", *GPTQ],
    "rtn-4b-g64-v2-sym": ["rtn", "--bits", "4", "--group-size", "64", "--format", "gptq_v2"],
    "nf4": ["nf4"],
    "nf4-dq": ["nf4", "--double-quant"],
    "fp4": ["fp4"],
    "int8": ["int8"],
}


def dequantize_loaded(layer):
    if isinstance(layer, bnb.nn.Linear4bit):
        state = layer.weight.quant_state
        kept, state.dtype = state.dtype, torch.float32
        weight = bnb.functional.dequantize_4bit(layer.weight.data, state)
        state.dtype = kept
        return weight
    row = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB
    return bnb.functional.int8_vectorwise_dequant(layer.weight.data, row)


def tensors_of(folder):
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors.update({name: file.get_tensor(name) for name in file.keys()})
    return tensors


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def distance(ours, theirs):
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def load(folder):
    config = transformers.AutoConfig.from_pretrained(folder).quantization_config
    how = {}
    if config["quant_method"] == "gptq":
        how["quantization_config"] = transformers.GPTQConfig(bits=config["bits"], backend="torch")
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu", **how), config


def exact_model(base, folder, loaded, config):
    """The float32 model with the directory's weights."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tensors = tensors_of(folder) if config["quant_method"] == "gptq" else None
    layers = dict(loaded.named_modules()) if loaded is not None else {}
    for name, layer in model.named_modules():
        if not isinstance(layer, torch.nn.Linear) or not re.search(r"\.layers\.", name):
            continue
        weight = dequantize_gptq(tensors, name, config) if tensors else dequantize_loaded(layers[name])
        assert weight.shape == layer.weight.shape, (name, weight.shape)
        layer.weight.data = weight.float()
    return model


def check(name, arguments, options, scratch, ids):
    folder = scratch / name
    calibration = ["--calibration", str(options.text)] if "--samples" in arguments else []
    subprocess.run([options.bin / "bench", "quantize", options.model, "--method", *arguments, *calibration, "-o", folder],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run([options.bin / "dump_logits", folder, scratch / "ids.txt", scratch / "ours"], check=True)
    ours = np.fromfile(scratch / "ours", dtype=np.float32).reshape(len(ids), -1)
    config = transformers.AutoConfig.from_pretrained(folder).quantization_config
    is_gptq = config["quant_method"] == "gptq"
    loaded = None if is_gptq and gptqmodel is None else load(folder)[0]
    exact = distance(ours, logits_of(exact_model(options.model, folder, loaded, config), ids))
    ok, line = exact < EXACT, f"exact {exact:.2e}"
    if loaded is None:
        line += ", not loaded: gptqmodel is absent"
    elif name == "int8":
        line += ", loaded without errors (its kernel quantizes activations, which ours does not)"
    else:
        far = distance(ours, logits_of(loaded, ids))
        kind = type(loaded.get_submodule("model.layers.0.self_attn.q_proj")).__name__
        ok, line = ok and far < LOADED, f"{line}, loaded {far:.2e} ({kind})"
    print(f"{'ok  ' if ok else 'FAIL'} {name}: {line}", flush=True)
    return ok


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, default="build/bin")
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, default="README.md", help="calibration text")
    parser.add_argument("--only")
    options = parser.parse_args()
    if options.only not in {None, *CASES}:
        parser.error(f"--only {options.only}: expected one of {', '.join(CASES)}")
    versions = {m.__name__: m.__version__ for m in (torch, transformers, bnb, gptqmodel) if m}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    vocab = transformers.AutoConfig.from_pretrained(options.model).vocab_size
    ids = [1] + np.random.RandomState(0).randint(3, vocab, size=95).tolist()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "ids.txt").write_text(" ".join(map(str, ids)))
        for name, arguments in CASES.items():
            if options.only is None or options.only == name:
                failed += not check(name, arguments, options, scratch, ids)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
