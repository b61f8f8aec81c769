#!/usr/bin/env python3
"""Quantizes a checkpoint of every family and variant with RTN, GPTQ and NF4, opens what was written in transformers, and
compares the logits with ours.

Needs (in a virtual environment) torch, transformers, safetensors, numpy, bitsandbytes; gptqmodel and optimum to load GPTQ.
  check_family_directories.py --bin build/bin [--only NAME] [--method rtn|gptq|nf4]

The checkpoints are those of tools/families/cases.py, four times as wide, so that every linear fits the GPTQ layout. Three things
are held against each directory:
  linears  the modules that are quantized are those that transformers' own class makes nn.Linear or Conv1D in its blocks, and
           every part of every expert; routers, heads, embeddings, the delta rule's projections of a row a head and what stands
           outside the blocks stay as they are
  exact    its weights, dequantized by code that is not ours (numpy for GPTQ, bitsandbytes' functions for NF4), in transformers'
           dense class, which must find every tensor and want no other; InternLM2 and Baichuan in tools/families/remote.py
  loaded   the directory as from_pretrained opens it with its quantization_config; a GPTQ directory that it cannot open, as
           GPTQModel.load does (in a process of its own: it rewrites transformers' classes). Their modules are asked to compute
           in float32
"""
import argparse
import collections
import concurrent.futures
import contextlib
import functools
import json
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys
import tempfile

os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
import make_family_goldens as goldens  # first: it makes transformers quiet
import bitsandbytes as bnb
import numpy as np
import torch
import transformers
from families import remote, wide
from gptq_tensors import dequantize_gptq
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

try:
    import gptqmodel
except ImportError:
    gptqmodel = None

TOLERANCE = 1e-4  # ||ours - theirs|| / ||theirs||
METHODS = {"rtn": ["--bits", "4", "--group-size", "32"],
           "gptq": ["--bits", "4", "--group-size", "32", "--act-order", "--samples", "16", "--seqlen", "32"],
           "nf4": []}
# routers by the names of their modules, and the delta rule's projections of a row a head
KEPT = re.compile(r"(^|\.)(gate|router|router\.layer|shared_expert_gate|in_proj_(a|b|ba))$")


# ---------------------------------------------------------------- checkpoints


def write_tokenizer(folder):
    """Letters and the space, so that calibration text is not needed from elsewhere; ids below 30."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{c: i + 3 for i, c in enumerate("Ġabcdefghijklmnopqrstuvwxyz")}}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "vocab": vocab,
             "merges": []}
    tokenizer = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": level, "post_processor": None,
                 "decoder": level, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def write_text(path):
    letters = np.random.RandomState(3).choice(list("abcdefghijklmnopqrstuvwxyz   "), size=4000)
    path.write_text("".join(letters))


# ---------------------------------------------------------------- what was written


def dequantize_nf4(tensors, module):
    parts = {k.removeprefix(module + "."): t for k, t in tensors.items() if k.startswith(module + ".weight")}
    state = bnb.functional.QuantState.from_dict({k.removeprefix("weight."): t for k, t in parts.items() if k != "weight"},
                                                device="cpu")
    shape, state.dtype = state.shape, torch.float32
    # by blocks: bitsandbytes 0.50.2 begins a block with every row on the CPU, whatever the block's size
    state.shape = torch.Size((shape.numel() // state.blocksize, state.blocksize)) if shape.numel() % state.blocksize == 0 else shape
    return bnb.functional.dequantize_4bit(parts["weight"], state).reshape(shape)


def quantized_modules(tensors):
    found = {k.removesuffix(".qweight") for k in tensors if k.endswith(".qweight")}
    return found | {k.split(".weight.quant_state")[0] for k in tensors if ".weight.quant_state" in k}


def plain_tensors(tensors, quantization, conv1d):
    """Every tensor of the directory in float32, the quantized ones dequantized; a Conv1D's weight is [in, out]."""
    modules, plain = quantized_modules(tensors), {}
    for name, tensor in tensors.items():
        owner = re.sub(r"\.(weight(\..*)?|qweight|qzeros|scales|g_idx)$", "", name)
        if owner not in modules:
            plain[name] = tensor.float()
    for module in modules:
        gptq = quantization["quant_method"] == "gptq"
        weight = dequantize_gptq(tensors, module, quantization) if gptq else dequantize_nf4(tensors, module)
        plain[module + ".weight"] = (weight.T if module in conv1d else weight).float().contiguous()
    return plain


STACK = re.compile(r"\.experts\.|\.block_sparse_moe\.(input|output)_linear\b")  # a block's experts


def stacked(plain):
    """The tensors with the experts in one that the class's files have so: gpt-oss's and Llama 4's [experts, in, out], gate beside
    up, Granite's [experts, out, in]."""
    out, stacks = {}, collections.defaultdict(dict)
    for name, tensor in plain.items():
        granite = re.fullmatch(r"(.*_linear)\.(\d+)\.linear\.weight", name)
        other = re.fullmatch(r"(.*\.experts)\.(\d+)\.(gate|up|down)_proj\.(weight|bias)", name)
        if granite:
            stacks[granite[1] + ".weight"][int(granite[2]), 0] = tensor
        elif other:
            name = f"{other[1]}.{'down' if other[3] == 'down' else 'gate_up'}_proj{'_bias' if other[4] == 'bias' else ''}"
            stacks[name][int(other[2]), other[3] == "up"] = tensor.T
        else:
            out[name] = tensor
    for name, parts in stacks.items():
        experts = sorted({e for e, _ in parts})
        out[name] = torch.stack([torch.cat([parts[k] for k in sorted(parts) if k[0] == e], -1) for e in experts]).contiguous()
    return out


def linears_of(model, fused):
    """Names of the linears in the class's blocks, and how many linears its experts are."""
    head, names, experts = model.get_output_embeddings(), set(), 0
    for name, module in model.named_modules():
        inside = re.search(r"\.\d+\.", name) and not KEPT.search(name) and module is not head
        if inside and isinstance(module, (torch.nn.Linear, Conv1D)):
            names.add(name)
    for name, p in model.named_parameters():
        if STACK.search(name) and p.ndim == 3:
            experts += p.shape[0] * (2 if "gate_up" in name and not fused else 1)
    return names, experts


def check_linears(modules, model):
    fused = any(".input_linear." in m for m in modules)  # Granite's, whose gate and up GPTQModel keeps as one
    names, experts = linears_of(model, fused)
    dense = {m for m in modules if not STACK.search(m)}
    if dense != names:
        raise ValueError(f"linears: missing {sorted(names - dense)[:3]}, not expected {sorted(dense - names)[:3]}")
    if len(modules) - len(dense) != experts:
        raise ValueError(f"{len(modules) - len(dense)} linears of experts, expected {experts}")


# ---------------------------------------------------------------- logits


def distance(ours, theirs):
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def logits_of(model):
    with torch.no_grad():
        return model.eval()(torch.tensor([goldens.IDS]), use_cache=False).logits[0].float().numpy()


def open_dense(folder, entry):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=entry["attention"], experts_implementation="eager",
        output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[key]:
            raise ValueError(f"{key}: {sorted(map(str, info[key]))[:3]}")
    return model


def exact(entry, folder, scratch):
    """Logits of the directory's weights in a dense class, and the number of its quantized modules."""
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors.update(load_file(path))
    config = json.loads((folder / "config.json").read_text())
    quantization, plain = config.pop("quantization_config"), scratch / "plain"
    modules = quantized_modules(tensors)
    plain.mkdir()
    (plain / "config.json").write_text(json.dumps(config))
    if entry["name"] in remote.FORWARDS:
        save_file(plain_tensors(tensors, quantization, ()), plain / "model.safetensors", metadata={"format": "pt"})
        expected = {k.removesuffix(".weight") for k, shape in remote.shapes_of(config).items() if ".layers." in k and len(shape) == 2}
        if modules != expected:
            raise ValueError(f"linears: {sorted(modules ^ expected)[:3]}")
        return remote.forward(entry["name"], plain, goldens.IDS, torch.float32).float().numpy(), len(modules)
    with torch.device("meta"):
        shape = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(plain))
    check_linears(modules, shape)
    conv1d = {name for name, module in shape.named_modules() if isinstance(module, Conv1D)}
    tensors = plain_tensors(tensors, quantization, conv1d)
    if config["model_type"] in ("gpt_oss", "llama4_text", "granitemoe", "granitemoeshared"):
        tensors = stacked(tensors)
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    return logits_of(open_dense(plain, entry)), len(modules)


def quantized_kinds(model):
    found = (m for m in model.modules() if hasattr(m, "qweight") or isinstance(m, bnb.nn.Linear4bit))
    return collections.Counter(type(m).__name__ for m in found)


def measure(model, n_modules, ours):
    """(distance, kinds of quantized modules) of a loaded model, which computes in float32 from here on: scales that stay
    float16 round the products."""
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False  # else it computes in bfloat16 whatever compute_dtype says
    kinds = quantized_kinds(model)
    if sum(kinds.values()) != n_modules:
        raise ValueError(f"{sum(kinds.values())} of {n_modules} modules are quantized")
    return distance(ours, logits_of(model if "Linear4bit" in kinds else torch.nn.Module.float(model))), ", ".join(kinds)


def in_transformers(folder, entry, gptq, n_modules, ours):
    bits = json.loads((folder / "config.json").read_text())["quantization_config"].get("bits")
    how = dict(quantization_config=transformers.GPTQConfig(bits=bits, backend="torch")) if gptq else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map="cpu", attn_implementation=entry["attention"], experts_implementation="eager",
        **how)
    return measure(model, n_modules, ours)


def load_in_gptqmodel(folder, n_modules, ours):
    """Run in the other process."""
    model = gptqmodel.GPTQModel.load(folder, backend=gptqmodel.BACKEND.TORCH, device="cpu", dtype=torch.float16).model
    return measure(model, n_modules, ours)


@functools.cache
def other_process():
    return concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def in_gptqmodel(folder, entry, gptq, n_modules, ours):
    return other_process().submit(load_in_gptqmodel, str(folder), n_modules, ours).result(timeout=120)


def error_line(error):
    return f"{type(error).__name__} {' '.join(str(error).split())[:110]}"


def loaded(entry, folder, n_modules, ours):
    """(program, distance, kinds of modules) of the first that opens the directory with all its modules; else (None, why)."""
    gptq = json.loads((folder / "config.json").read_text())["quantization_config"]["quant_method"] == "gptq"
    if entry["name"] in remote.FORWARDS:
        return None, "its class is not in transformers"
    if gptq and gptqmodel is None:
        return None, "gptqmodel is absent"
    why = []
    for program, opens in [("transformers", in_transformers)] + [("GPTQModel", in_gptqmodel)] * gptq:
        try:
            return program, *opens(folder, entry, gptq, n_modules, ours)
        except Exception as error:
            why.append(f"{program}: {error_line(error)}")
    return None, "; ".join(why)


# ---------------------------------------------------------------- one case


def check(entry, method, options, base, scratch):
    """(what became of it, line)"""
    folder = scratch / "quantized"
    arguments = [*METHODS[method], *(["--calibration", str(scratch.parent / "text.txt")] if method == "gptq" else [])]
    if method == "nf4" and "quantization_config" in (base / "config.json").read_text():
        arguments += ["--block-size", "32"]  # as wide as its rows: see dequantize_nf4
    done = subprocess.run([options.bin / "bench", "quantize", base, "--method", method, *arguments, "-o", folder],
                          capture_output=True, text=True)
    if done.returncode:
        return "refused", done.stderr.strip().splitlines()[-1].split(": ", 1)[-1][:200]
    subprocess.run([options.bin / "dump_logits", folder, scratch.parent / "ids.txt", scratch / "ours"], check=True,
                   capture_output=True)
    ours = np.fromfile(scratch / "ours", dtype=np.float32).reshape(len(goldens.IDS), -1)
    report = json.loads((folder / "quantize_report.json").read_text())["report"]
    theirs, n = exact(entry, folder, scratch)
    far, line = distance(ours, theirs), f"{n} linears"
    if len(report["modules"]) != n:
        return "failed", f"the report has {len(report['modules'])} modules, the directory {n}"
    line += f", exact {far:.1e}"
    if not far < TOLERANCE:
        return "failed", line
    program, *how = loaded(entry, folder, n, ours)
    if program is None:
        return "exact alone", f"{line}, not loaded: {how[0]}"
    far, kinds = how
    return program if far < TOLERANCE else "failed", f"{line}, loaded {far:.1e} by {program} ({kinds})"


def check_case(entry, methods, options, scratch):
    results = {}
    base = scratch / "base"
    wide.make_checkpoint(entry, base)
    write_tokenizer(base)
    for method in methods:
        with tempfile.TemporaryDirectory(dir=scratch) as inner:
            try:
                results[method] = check(entry, method, options, base, pathlib.Path(inner))
            except Exception as error:  # one failure is a line, not the end
                results[method] = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=pathlib.Path, default="build/bin")
    parser.add_argument("--only", help="cases whose names begin so")
    parser.add_argument("--method", choices=METHODS)
    options = parser.parse_args()
    manifest = json.loads((goldens.OUT / "manifest.json").read_text())
    print(", ".join(f"{m.__name__} {m.__version__}" for m in (torch, transformers, bnb, gptqmodel) if m))
    totals = collections.Counter()
    for entry in manifest["cases"]:
        if options.only and not entry["name"].startswith(options.only):
            continue
        entry.setdefault("attention", "eager")
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(None):
            scratch = pathlib.Path(scratch)
            (scratch / "ids.txt").write_text(" ".join(map(str, goldens.IDS)))
            write_text(scratch / "text.txt")
            for method, (state, line) in check_case(entry, [options.method] if options.method else METHODS, options, scratch).items():
                totals[method, state] += 1
                print(f"{state:12} {entry['name']} {method}: {line}", flush=True)
    if not totals:
        sys.exit(f"nothing was checked: no case begins with {options.only!r}")
    print("; ".join(f"{method} {state}: {n}" for (method, state), n in sorted(totals.items())))
    return 1 if any(state == "failed" for _, state in totals) else 0


if __name__ == "__main__":
    sys.exit(main())
