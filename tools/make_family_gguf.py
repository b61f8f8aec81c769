#!/usr/bin/env python3
"""Makes model.gguf beside every checkpoint of tests/golden/families that llama.cpp knows, with llama.cpp's own converter.

Needs: what tools/make_family_goldens.py needs, the unpacked sdist of llama_cpp_python 0.3.36 (its vendor/llama.cpp, SOURCES,
holds the converter, conversion/*.py, and the gguf package), and a build of libllama from the same sources:
  cmake -B BUILD -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_COMMON=OFF SOURCES
  cmake --build BUILD --target llama

  make_family_gguf.py --llama-cpp SOURCES --build BUILD [NAME...]

Takes half a minute of one core. Matrices are float16 (the weights are multiples of 2^-8, which float16 holds: checked
against a float32 conversion), vectors float32. The converter asks for a tokenizer, which these checkpoints have not: its
set_vocab is replaced by a vocabulary of 96 pieces of no meaning. The logits of every file are computed by llama.cpp itself,
weights in float32; gguf.json holds their distance from transformers', the reasons where there is one, and why some cases
have no twin.
"""
import argparse
import importlib
import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ["TQDM_DISABLE"] = "1"

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/golden/families"
MANIFEST = json.loads((OUT / "manifest.json").read_text())
CONVERTER = "llama.cpp 0c1e57098 (sdist of llama_cpp_python 0.3.36)"
NONE = "the converter does not know the architecture"
NO_FAMILY = {family: NONE for family in ("opt", "gptj", "codegen", "gpt_neo", "xglm", "openai-gpt", "persimmon", "helium",
                                         "ministral")}
NO_KEY = "no key of GGUF says so"
NO_TWIN = {
    "baichuan-13b": "llama.cpp takes the form from the number of layers, 40: tools/check_baichuan_gguf.py",
    "baichuan2-7b": "the converter leaves the head's rows as they are: tools/check_baichuan_gguf.py",
    "bloom-residual-after-norm": NO_KEY,
    "deepseek-v2": "llama.cpp has no groups by their best expert, and no mscale beside mscale_all_dim",
    "exaone4": "llama.cpp takes the window from the number of layers, 64",
    "falcon-rw": "the converter has no name for its second norm",
    "gemma2-27b": "llama.cpp takes the scale from the number of layers",
    "gemma3-wrapped": "llama.cpp takes the scale from the number of layers",
    "gpt-bigcode-mha": "the architecture starcoder has one head of keys",
    "gpt-neox-no-bias": "llama.cpp refuses attention without biases",
    "gpt2-inverse-layer": NO_KEY,
    "gpt2-no-scale": NO_KEY,
    "internlm2-dynamic": NO_KEY,
    "llama-dynamic": NO_KEY,
    "llama-longrope": "the converter of Llama writes no factors",
    "llama-yarn-attention-factor": NO_KEY,
    "llama4": "llama.cpp has the size of a chunk and the temperature's floor as constants",
    "mistral-window": NO_KEY,
    "mpt-softmax-scale": NO_KEY,
    "olmoe-clip": NO_KEY,
    "phi-qk-norm": "the converter has no name for these norms",
    "phimoe-jitter": NO_KEY,
    "qwen2-moe": "the converter has no name for a dense layer",
    "qwen2-moe-window": NO_KEY,
    "qwen2-window": NO_KEY,
    "qwen3-fp8": "the converter asks for blocks of 128",
    "qwen3-moe-sparse-step": "the converter has no name for a dense layer",
    "qwen3_5-wrapped": "llama.cpp has one size for the heads of keys and values",
    "starcoder2": NO_KEY,
}
UNLIKE = {  # files as they are published, which llama.cpp refuses at this size or computes otherwise than transformers
    "baichuan-7b": "llama.cpp ropes only if there are 32 layers",
    "cohere-qk-norm": "llama.cpp looks for these norms only if there are 64 layers",
    "deepseek-v2-lite": "llama.cpp takes the form without q_lora_rank from the number of layers, 27",
    "gpt-oss-mxfp4": "llama.cpp multiplies MXFP4 with activations of 8 bits",
    "phi3-long": "llama.cpp switches the window of Phi-3 off",
    "phimoe": "llama.cpp routes by plain softmax and top-k",
}
GELU_TABLE = ("bloom", "bloom-6-heads", "falcon-40b", "falcon-7b", "falcon2-11b", "gemma", "gemma2", "gemma3", "gpt-bigcode",
              "gpt-neox", "gpt-neox-sequential", "gpt2", "mpt", "mpt-6-heads", "phi", "starcoder2-full")
OLD_CONFIG = ("falcon-7b",)  # the converter takes num_kv_heads of the newer spelling for true
HUB_KEYS = {  # keys that the published files have, the converter reads, and transformers no longer writes
    "cohere2": dict(rotary_pct=1.0),
    "gpt-neox": dict(rotary_pct=0.25),
    "gpt-neox-sequential": dict(rotary_pct=1.0),
    "gpt2": dict(n_ctx=64),
    "gpt2-inverse-layer": dict(n_ctx=64),
    "gpt2-no-scale": dict(n_ctx=64),
    "mpt": dict(architectures=["MPTForCausalLM"]),
    "mpt-6-heads": dict(architectures=["MPTForCausalLM"]),
    "phimoe": dict(architectures=["PhiMoEForCausalLM"]),
}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("names", nargs="*")
    return parser.parse_args()


def load_converter(folder):
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(folder), str(folder / "gguf-py")]
    logging.disable(logging.WARNING)
    conversion = importlib.import_module("conversion")
    conversion.load_all_models()
    return conversion, importlib.import_module("conversion.base")


def vocabulary(writer, gguf, size):
    """Special pieces, the printable bytes, one merge, and more where there are to be more."""
    pieces = ["<pad>", "<s>", "</s>"] + [chr(33 + i) for i in range(92)] + ["ab"] + [f"piece {i}" for i in range(96, size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces[:size])
    kind = gguf.TokenType
    writer.add_token_types([kind.CONTROL if i < 3 else kind.NORMAL for i in range(size)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


def without_tokenizer(base):
    def set_vocab(self):
        vocabulary(self.gguf_writer, base.gguf, self.hparams["vocab_size"])

    def classes(kind):
        yield kind
        for child in kind.__subclasses__():
            yield from classes(child)
    for kind in classes(base.TextModel):
        if "set_vocab" in vars(kind):
            kind.set_vocab = set_vocab


def mend(base, conversion):
    """Two faults of this converter: the stacked norms of StableLM are returned by a generator, which loses them, and Baichuan's
    other tensors are handed to itself."""
    def finish(original):
        def modify_tensors(self, data, name, bid):
            rest = yield from original(self, data, name, bid)
            yield from rest or ()
        return modify_tensors
    stablelm = conversion.get_model_class("StableLmForCausalLM")
    stablelm.modify_tensors = finish(stablelm.modify_tensors)
    baichuan = conversion.get_model_class("BaichuanForCausalLM")
    packed = baichuan.modify_tensors

    def modify_tensors(self, data, name, bid):
        one = packed if "W_pack" in name else base.TextModel.modify_tensors
        yield from one(self, data, name, bid)
    baichuan.modify_tensors = modify_tensors


def convert(conversion, base, source, out, outtype, hub_keys):
    load = base.ModelBase.load_hparams
    hparams = {**load(source, False), **hub_keys}
    base.ModelBase.load_hparams = staticmethod(lambda *given, **named: dict(hparams))
    try:
        kind = conversion.get_model_class(base.get_model_architecture(hparams, base.ModelType.TEXT))
        kind.no_mtp = True
        kind(source, getattr(base.gguf.LlamaFileType, outtype), out).write()
    finally:
        base.ModelBase.load_hparams = staticmethod(load)


def source_of(name, scratch):
    """A folder that holds the checkpoint alone: the converter takes every file of a model's folder into account."""
    folder = scratch / name / "tiny"  # its name becomes general.name, and llama.cpp looks for phi-3 in that
    folder.mkdir(parents=True)
    shutil.copy(OUT / name / "model.safetensors", folder)
    config = "config-old.json" if name in OLD_CONFIG else "config.json"
    config = json.loads((OUT / name / config).read_text())
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(dict(model=dict(vocab={str(i): i for i in range(96)}), added_tokens=[])))
    return folder


def same_values(gguf, half, full):
    """Every tensor of the float16 file equals that of the float32 file."""
    a, b = [{t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(p).tensors} for p in (half, full)]
    for name in b:
        if not np.array_equal(a[name], b[name]):
            raise SystemExit(f"{half}: {name} changes in float16")


def build_reader(build, sources, scratch):
    program = scratch / "llama_logits"
    subprocess.run(["cc", "-O1", f"-I{sources}/include", f"-I{sources}/ggml/include", ROOT / "tools/families/llama_logits.c",
                    "-o", program, f"-L{build}/bin", f"-Wl,-rpath,{build}/bin", "-lllama", "-lggml", "-lggml-base"], check=True)
    return program


def verify(program, path, entry, scratch):
    out = scratch / "logits.bin"
    out.unlink(missing_ok=True)
    ids, quiet = map(str, MANIFEST["ids"]), {**os.environ, "GGML_NO_BACKTRACE": "1"}
    run = subprocess.run([program, path, out, *ids], capture_output=True, text=True, env=quiet)

    if run.returncode or not out.exists():
        told = [line for line in run.stderr.splitlines() if line.strip() and "failed to load model" not in line]
        return "llama.cpp: " + (told or [f"exit {run.returncode}"])[-1][:200]
    got = np.fromfile(out, "<f4").astype(float)
    want = np.fromfile(OUT / entry["name"] / "logits.bin", "<f4").astype(float)
    return float("%.2g" % (np.abs(got - want).max() / np.abs(want).max()))


def make(name, conversion, base, scratch):
    """Writes the file; returns the float32 form that llama.cpp computes with."""
    source, full = source_of(name, scratch), scratch / f"{name}.gguf"
    keys, out = HUB_KEYS.get(name, {}), OUT / name / "model.gguf"
    convert(conversion, base, source, full, "ALL_F32", keys)
    convert(conversion, base, source, out, "MOSTLY_F16", keys)
    same_values(base.gguf, out, full)
    return full


def judge(name, distance):
    """The row of gguf.json: how far llama.cpp stands from transformers, and why where it is not at rounding."""
    limit = 1e-3 if name in GELU_TABLE else 1e-5
    close = isinstance(distance, float) and distance < limit
    if close == (name in UNLIKE):
        raise SystemExit(f"{name}: {distance}, which is not what this script says of it")
    row = dict(name=name, llama_cpp_distance=distance if isinstance(distance, float) else None)
    if name in GELU_TABLE:
        row["note"] = "llama.cpp looks the tanh GELU up in a float16 table, whatever form the model has"
    return {**row, "note": UNLIKE[name]} if name in UNLIKE else row


def main():
    args = parse()
    conversion, base = load_converter(args.llama_cpp)
    without_tokenizer(base)
    mend(base, conversion)
    path = OUT / "gguf.json"
    rows = {row["name"]: row for row in json.loads(path.read_text())["files"]} if args.names and path.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        program = build_reader(args.build, args.llama_cpp, scratch)
        for entry in MANIFEST["cases"]:
            name = entry["name"]
            if name in NO_TWIN or entry["family"] in NO_FAMILY or (args.names and name not in args.names):
                continue
            rows[name] = judge(name, verify(program, make(name, conversion, base, scratch), entry, scratch))
            print(json.dumps(rows[name]))
    head = dict(made_by="tools/make_family_gguf.py", converter=CONVERTER, without_twin={**NO_FAMILY, **NO_TWIN})
    lines = ",\n".join("  " + json.dumps(rows[name]) for name in sorted(rows))
    path.write_text(json.dumps(head, indent=1)[:-2] + ',\n "files": [\n' + lines + "\n ]}\n")


if __name__ == "__main__":
    main()
