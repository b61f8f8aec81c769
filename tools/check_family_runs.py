#!/usr/bin/env python3
"""Runs `bench run` with GGUF files of every family and variant that llama.cpp's converter knows, beside the directories that they
were converted from, and compares the perplexities of every method.

Needs what tools/make_family_gguf.py needs, but for a build of libllama.

  check_family_runs.py --bin build/bin --llama-cpp SOURCES [--only NAME]

The checkpoints are four times as wide as the committed ones (tools/families/wide.py), their GGUF files float16, which holds
their weights exactly. One `bench run` a case takes the directory and the file with no method, RTN, GPTQ with act-order (4 bits,
groups of 32) and NF4 on a text of random letters. The same weights give the same perplexity: TOLERANCE allows for the order of
float32 sums, and for the codes that they turn over in GPTQ's columns. Where the directory is refused or skipped, the file is to be,
too. Files that the converter or llama.cpp make otherwise than the class computes are left out as in make_family_gguf.py."""
import argparse
import collections
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile

import make_family_gguf as twins
from families import wide

TOLERANCE = {"none": 1e-5, "rtn": 1e-5, "nf4": 1e-5, "gptq": 2e-2}  # relative
GROUP = {"bits": 4, "group_size": 32}
SUITE = {"name": "twins", "summary": "a directory and its GGUF file", "models": ["directory", "model.gguf"], "backends": ["cpu"],
         "methods": [{"method": "none"}, {"method": "rtn", **GROUP},
                     {"method": "gptq", **GROUP, "act_order": True, "calibration": "calibration.txt", "samples": 16, "seqlen": 32},
                     {"method": "nf4"}],
         "datasets": ["text.txt"], "protocols": ["gptq-32"], "metrics": ["perplexity"]}


def write_texts(folder):
    random = twins.np.random.RandomState(3)
    for name in ("calibration.txt", "text.txt"):
        (folder / name).write_text("".join(chr(33 + i) for i in random.randint(0, 92, 2000)))


def write_tokenizer(folder, vocab_size):
    """The vocabulary that tools/make_family_gguf.py gives the file."""
    class Writer:
        def __getattr__(self, name):
            return lambda value: setattr(self, name[4:], value)
    wrote = Writer()
    twins.vocabulary(wrote, __import__("gguf"), vocab_size)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "vocab": {piece: i for i, piece in enumerate(vars(wrote)["token_list"])}, "merges": vars(wrote)["token_merges"]}
    special = [{"id": i, "content": piece, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i, piece in enumerate(vars(wrote)["token_list"][:3])]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": special, "normalizer": None, "pre_tokenizer": level, "post_processor": None,
        "decoder": level, "model": model}))


def perplexities(args, folder):
    """{(model, method): (perplexity, None) or (None, why)}"""
    (folder / "suite.json").write_text(json.dumps(SUITE))
    done = subprocess.run([args.bin.resolve() / "bench", "run", "--suite", "suite.json", "--data", ".", "--no-cache", "-q", "-o", "out.json"],
                          cwd=folder, capture_output=True, text=True)
    if not (folder / "out.json").exists():
        return {(m, k["method"]): (None, done.stderr.strip().splitlines()[-1]) for m in SUITE["models"] for k in SUITE["methods"]}
    found = {}
    for case in json.loads((folder / "out.json").read_text())["cases"]:
        rows = [m["value"] for m in case["metrics"] if m["name"] == "perplexity" and m["value"] is not None]
        model = SUITE["models"][case["id"].startswith("model")]
        method = case["config"]["method"]
        # A checkpoint that is quantized already is measured as it is, under its own method.
        method = method if method in {k["method"] for k in SUITE["methods"]} else "none"
        found[model, method] = (rows[0], None) if rows else (None, f"{case['status']}: {case['error']}")
    return found


def judge(method, ours, theirs):
    """(what became of it, line)"""
    (directory, why), (file, why_not) = ours, theirs
    if directory is None and file is None:
        return "neither", why.split(": ", 1)[-1][:120]
    if directory is None or file is None:
        return "failed", f"directory {directory or why}, file {file or why_not}"
    far = abs(file / directory - 1)
    return "equal" if far < TOLERANCE[method] else "failed", f"{directory:.4f}, file off by {far:.1e}"


def check(entry, args, conversion, base, folder):
    name, source, directory = entry["name"], folder / "tiny", folder / "directory"
    wide.make_checkpoint(entry, source)
    if name in twins.OLD_CONFIG:
        old = json.loads((twins.OUT / name / "config-old.json").read_text())
        (source / "config.json").write_text(json.dumps(wide.wider(old)))
    (source / "tokenizer.json").write_text(json.dumps(dict(model=dict(vocab={str(i): i for i in range(96)}), added_tokens=[])))
    twins.convert(conversion, base, source, folder / "model.gguf", "MOSTLY_F16", twins.HUB_KEYS.get(name, {}))
    source.rename(directory)
    write_tokenizer(directory, entry["vocab_size"])
    write_texts(folder)
    found = perplexities(args, folder)
    return {k["method"]: judge(k["method"], *[found.get((m, k["method"]), (None, "no row")) for m in SUITE["models"]])
            for k in SUITE["methods"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True)
    parser.add_argument("--only", help="cases whose names begin so")
    args = parser.parse_args()
    conversion, base = twins.load_converter(args.llama_cpp)
    twins.without_tokenizer(base)
    twins.mend(base, conversion)
    totals = collections.Counter()
    for entry in twins.MANIFEST["cases"]:
        name = entry["name"]
        if name in twins.NO_TWIN or entry["family"] in twins.NO_FAMILY or (args.only and not name.startswith(args.only)):
            continue
        entry.setdefault("attention", "eager")
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(None):
            try:
                results = check(entry, args, conversion, base, pathlib.Path(folder))
            except Exception as error:  # one failure is a line, not the end
                results = {"case": ("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")}
        for method, (state, line) in results.items():
            totals[method, state] += 1
            print(f"{state:8} {name} {method}: {line}", flush=True)
    if not totals:
        sys.exit(f"nothing was checked: no case begins with {args.only!r}")
    print("; ".join(f"{method} {state}: {n}" for (method, state), n in sorted(totals.items())))
    return 1 if any(state == "failed" for _, state in totals) else 0


if __name__ == "__main__":
    sys.exit(main())
