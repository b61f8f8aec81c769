#!/usr/bin/env python3
"""Compares a real trained GGUF (SmolLM2-135M-Instruct, Q4_1) with llama.cpp and with transformers: ids, perplexity, tokenizer.

Needs: the GGUF (--model), a build of libllama with its sources (--llama-cpp SOURCES --build BUILD, as tools/make_family_gguf.py
says), a C compiler, and for the second half torch and transformers. Without libllama, or without those packages, that half
is skipped, which is said; exit status 77 when both are. Stated results: llama.cpp 0c1e57098 (sdist of llama_cpp_python
0.3.36), torch 2.15.0, transformers 5.24.0.

  check_real_model.py --bin build/bin --model FILE.gguf --data DATA --llama-cpp SOURCES --build BUILD [--windows N]

1. wikitext2's ids equal llama.cpp's, and the perplexity under llamacpp-512 of the first N windows lies within 0.5 % of it, which
   multiplies quantized types with activations rounded to 8 bits and has keys and values in float16.
2. `bench convert` of it to f32: transformers' float32 model of that directory has the same perplexity within 1e-4, and
   its tokenizer gives the same ids.
"""
import argparse
import hashlib
import json
import math
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CONTEXT = 512


def bench(args, *words):
    out = subprocess.run([args.bin / "bench", *words, "-q", "--json"], capture_output=True, text=True)
    if out.returncode:
        sys.exit(out.stderr)
    return json.loads(out.stdout)


def ours(args):
    """The perplexity of the first windows, and the SHA-256 of all ids."""
    text = args.data / "wikitext2/wiki.test.raw"
    row = bench(args, "eval", args.model, "--dataset", "wikitext2", "--protocol", f"llamacpp-{CONTEXT}", "--data", args.data,
                "--max-windows", str(args.windows))["cases"][0]["metrics"][0]
    ids = bench(args, "tokenize", args.model, "--file", text, "--special-tokens", "text")
    return text, row["value"], row["scored_tokens"], ids


def check(what, good):
    print(("ok      " if good else "FAILED  ") + what, flush=True)
    return good


def llama_cpp(args, tmp, mine):
    if not (args.llama_cpp and args.build):
        return print("skipped: no libllama was given (--llama-cpp, --build)")
    text, perplexity, scored, ids = mine
    program, lib = tmp / "llama_perplexity", args.build / "bin"
    subprocess.run(["cc", "-O2", HERE / "families/llama_perplexity.c", "-I", args.llama_cpp / "include", "-I",
                    args.llama_cpp / "ggml/include", "-L", lib, "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{lib}", "-lm",
                    "-o", program], check=True)
    out = subprocess.run([program, args.model, text, str(CONTEXT), str(args.windows), tmp / "ids"], check=True, capture_output=True)
    theirs, raw = json.loads(out.stdout), (tmp / "ids").read_bytes()
    off = perplexity / theirs["perplexity"] - 1
    return [check(f"{theirs['ids']} ids equal llama.cpp's", hashlib.sha256(raw).hexdigest() == ids["sha256"]),
            check(f"{theirs['windows']} windows: perplexity {perplexity:.5f}, llama.cpp {theirs['perplexity']:.5f}, off by {100 * off:+.3f} %",
                  abs(off) < 5e-3 and theirs["scored"] == scored)]


def by_transformers(args, tmp, mine):
    try:
        import torch
        import transformers
    except ImportError as missing:
        return print(f"skipped: {missing}")
    text, perplexity, scored, ids = mine
    bench(args, "convert", args.model, "--to", "f32", "-o", tmp / "f32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp / "f32", local_files_only=True)
    raw = tokenizer.backend_tokenizer.encode(text.read_text(), add_special_tokens=False).ids
    same = hashlib.sha256(torch.tensor(raw, dtype=torch.int32).numpy().tobytes()).hexdigest() == ids["sha256"]
    good = [check(f"{len(raw)} ids equal those of the tokenizer.json that was written", same)]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp / "f32", dtype=torch.float32, local_files_only=True).eval()
    total = 0.0
    with torch.no_grad():
        for w in range(args.windows):
            window = torch.tensor(raw[w * CONTEXT:(w + 1) * CONTEXT])
            logits = model(window[None], use_cache=False).logits[0, CONTEXT // 2:-1].double()
            total += torch.nn.functional.cross_entropy(logits, window[CONTEXT // 2 + 1:], reduction="sum").item()
    theirs = math.exp(total / scored)
    off = perplexity / theirs - 1
    return good + [check(f"{args.windows} windows: perplexity {perplexity:.6f}, transformers {theirs:.6f}, off by {off:+.1e}", abs(off) < 1e-4)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, needed in (("bin", True), ("model", True), ("data", True), ("llama-cpp", False), ("build", False)):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=needed)
    parser.add_argument("--windows", type=int, default=10)
    args = parser.parse_args()
    if not args.model.exists():
        print(f"skipped: {args.model} is absent")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as scratch:
        tmp, mine = pathlib.Path(scratch), ours(args)
        halves = [llama_cpp(args, tmp, mine), by_transformers(args, tmp, mine)]
    results = [ok for half in halves if half for ok in half]
    sys.exit(77 if not results else 0 if all(results) else 1)


if __name__ == "__main__":
    main()
