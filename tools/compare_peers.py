#!/usr/bin/env python3
"""The half of tools/compare_peers.sh that makes model files and measures; it sets the environment.

Models hold random weights: "t6" has six of TinyLlama-1.1B's 22 blocks and a vocabulary of 1024, "smollm2" SmolLM2-135M's
shape. One process a program and round, in turn, so that what else the machine does meets both. A ratio is that of the medians
over the rounds; its spread the least and the largest of the rounds' own ratios.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

import gguf
import numpy as np

SHAPES = {  # hidden, feed forward, blocks, heads, key heads, vocabulary
    "t6": (2048, 5632, 6, 32, 4, 1024),
    "smollm2": (576, 1536, 30, 9, 3, 49152),
}
# llama.cpp's type, and what of ours stands beside it: (name, method's words, activations); GGUF: the same file.
GGUF = None
FORMATS = {
    "f16": ("F16", [("same file", GGUF, "fastest")]),
    "q8_0": ("Q8_0", [("same file", GGUF, "fastest"), ("same file i8", GGUF, "i8"),
                      ("rtn 8 g128", "rtn --bits 8", "fastest"), ("rtn 8 g128 i8", "rtn --bits 8", "i8"),
                      ("int8", "int8", "fastest"), ("int8 i8", "int8", "i8")]),
    "q4_0": ("Q4_0", [("same file", GGUF, "fastest"), ("same file i8", GGUF, "i8"), ("same file f32", GGUF, "f32"),
                      ("rtn 4 g128", "rtn --bits 4", "fastest"), ("rtn 4 g128 i8", "rtn --bits 4", "i8"),
                      ("rtn 4 g128 f32", "rtn --bits 4", "f32")]),
    "q4_k": ("Q4_K_S", [("same file", GGUF, "fastest"), ("same file i8", GGUF, "i8")]),
    "q3_k": ("Q3_K_S", [("same file", GGUF, "fastest"), ("same file i8", GGUF, "i8"),
                        ("rtn 3 g128", "rtn --bits 3", "fastest"), ("rtn 3 g128 i8", "rtn --bits 3", "i8")]),
    "q2_k": ("Q2_K", [("same file", GGUF, "fastest"), ("same file i8", GGUF, "i8"),
                      ("rtn 2 g128", "rtn --bits 2", "fastest"), ("rtn 2 g128 i8", "rtn --bits 2", "i8")]),
    "iq4_nl": ("IQ4_NL", [("same file", GGUF, "fastest"), ("same file i8", GGUF, "i8"),
                          ("nf4 b64", "nf4", "fastest"), ("nf4 b64 i8", "nf4", "i8")]),
}


def run(*words):
    """A peer's program finds its libraries beside itself, and no other peer's."""
    libraries = {"LD_LIBRARY_PATH": str(pathlib.Path(words[0]).parent)} if words[0] != os.environ["BENCH"] else {}
    r = subprocess.run([str(w) for w in words], capture_output=True, text=True, env=os.environ | libraries)
    if r.returncode:
        sys.exit(f"{' '.join(map(str, words))}: exit {r.returncode}\n{(r.stderr or r.stdout)[-2000:]}")
    return r.stdout


def make_f16(path, shape):
    d, f, blocks, heads, kv, vocab = SHAPES[shape]
    dim = d // heads
    w = gguf.GGUFWriter(str(path), "llama")
    rng = np.random.default_rng(7)
    w.add_name("random-" + shape)
    w.add_context_length(2048)
    w.add_embedding_length(d)
    w.add_block_count(blocks)
    w.add_feed_forward_length(f)
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(dim)
    w.add_rope_freq_base(10000.0)
    w.add_vocab_size(vocab)
    w.add_tokenizer_model("no_vocab")
    w.add_file_type(1)

    def matrix(name, r, c):
        w.add_tensor(name + ".weight", (rng.standard_normal((r, c), dtype=np.float32) * 0.02).astype(np.float16))

    matrix("token_embd", vocab, d)
    matrix("output", vocab, d)
    w.add_tensor("output_norm.weight", np.ones(d, np.float32))
    for b in range(blocks):
        for name, r, c in (("attn_q", d, d), ("attn_k", kv * dim, d), ("attn_v", kv * dim, d), ("attn_output", d, d),
                           ("ffn_gate", f, d), ("ffn_up", f, d), ("ffn_down", d, f)):
            matrix(f"blk.{b}.{name}", r, c)
        w.add_tensor(f"blk.{b}.attn_norm.weight", np.ones(d, np.float32))
        w.add_tensor(f"blk.{b}.ffn_norm.weight", np.ones(d, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def made(path, make):
    """A file or folder that is made once, whole or not at all."""
    if not path.exists():
        part = path.with_name(path.name + ".part")
        make(part)
        part.rename(path)
    return path


def files_of(work, shape, name):
    """llama.cpp's file, and of ours [(name, path, activations)]."""
    kind, ours = FORMATS[name]
    f16 = made(work / f"{shape}-F16.gguf", lambda p: make_f16(p, shape))
    theirs = f16 if kind == "F16" else made(
        work / f"{shape}-{kind}.gguf", lambda p: run(pathlib.Path(os.environ["LLAMA_BIN"]) / "llama-quantize", "--pure", f16, p, kind))
    out = []
    for label, method, activations in ours:
        path = theirs
        if method is not GGUF:
            path = made(work / f"{shape}-{re.sub('[^a-z0-9]+', '-', method)}",
                        lambda p, m=method: run(os.environ["BENCH"], "quantize", f16, "--method", *m.split(), "-q", "-o", p))
        out.append((label, path, activations))
    return theirs, out


def peers():
    """[(name, folder of programs, words of its own)]"""
    out = [("llama.cpp", os.environ["LLAMA_BIN"], [])]
    if ik := os.environ.get("IK_BIN"):
        out += [("ik_llama.cpp", ik, []), ("ik_llama.cpp -rtr", ik, ["-rtr", "1"])]
    return out


def run_peer(folder, words, path, threads, a):
    out = run(pathlib.Path(folder) / "llama-bench", "-m", path, "-t", threads, "-r", 1, "-o", "json",
              "-p", a.prefill, "-n", a.decode, *words)
    rows = json.loads(out)
    return {"prefill": next(r["avg_ts"] for r in rows if r["n_gen"] == 0),
            "decode": next(r["avg_ts"] for r in rows if r["n_gen"] > 0)}, rows[0]["build_commit"]


def run_bench(path, threads, activations, a):
    doc = json.loads(run(os.environ["BENCH"], "speed", path, "--prefill", a.prefill, "--decode", a.decode, "--repeat", 1,
                         "--activations", activations, "-t", threads, "--json", "-q"))
    rows = {m["name"]: m for c in doc["cases"] for m in c["metrics"] if m["name"] in ("prefill", "decode")}
    got = {k: rows[k]["value"] for k in rows}
    got["activations"] = rows["decode"].get("activations", "f32")
    got["prompt_activations"] = rows["prefill"].get("activations", "f32")
    got["read_bytes_per_s"] = rows["decode"]["bytes_per_s"]
    return got, doc["context"]


def ratio(ours, theirs):
    each = [x / y for x, y in zip(ours, theirs)]
    return {"ratio": round(statistics.median(ours) / statistics.median(theirs), 3),
            "least": round(min(each), 3), "most": round(max(each), 3)}


def measure(a, name, threads):
    path, ours = files_of(a.work, a.model, name)
    theirs = {peer: {"prefill": [], "decode": []} for peer, _, _ in peers()}
    rows = [{"ours": label, "prefill": [], "decode": [], "bytes": []} for label, _, _ in ours]
    ceilings, builds = {}, {}
    for _ in range(a.rounds):
        for peer, folder, words in peers():
            got, builds[peer] = run_peer(folder, words, path, threads, a)
            for k, v in theirs[peer].items():
                v.append(got[k])
        for row, (_, file, activations) in zip(rows, ours):
            got, context = run_bench(file, threads, activations, a)
            row["activations"], row["prompt_activations"] = got["activations"], got["prompt_activations"]
            row["bytes"].append(got["read_bytes_per_s"])
            for k in ("prefill", "decode"):
                row[k].append(got[k])
            for k, v in context["devices"][0]["ceilings"].items():
                if k.endswith("_per_s"):
                    ceilings[k] = max(v, ceilings.get(k, 0))
    for peer, got in theirs.items():
        print(f"{name:7} t{threads}  {peer:22}" + "".join(f"  {k} {statistics.median(v):7.1f}" for k, v in got.items()))
    for row in rows:
        share = statistics.median(row.pop("bytes")) / ceilings["read_bytes_per_s"]
        row["decode_share_of_read_ceiling"] = round(share, 3)
        kinds = "/".join(dict.fromkeys((row["prompt_activations"], row["activations"])))
        line = f"{name:7} t{threads}  {row['ours'] + ' (' + kinds + ')':22}"
        for k in ("prefill", "decode"):
            row[k + "_ratio"] = {peer: ratio(row[k], got[k]) for peer, got in theirs.items()}
            best = max(theirs, key=lambda peer, k=k: statistics.median(theirs[peer][k]))
            r = row[k + "_ratio"][best]
            line += (f"  {k} {statistics.median(row[k]):7.1f} = {r['ratio']:.2f} of {best}"
                     f" ({r['least']:.2f} to {r['most']:.2f})")
            row[k] = [round(v, 1) for v in row[k]]
        print(f"{line}  {100 * share:3.0f} % of read", flush=True)
    return {"format": name, "model": a.model, "threads": threads, "gguf_type": FORMATS[name][0], "ceilings": ceilings,
            "peers": {peer: {k: [round(x, 1) for x in v] for k, v in got.items()} for peer, got in theirs.items()},
            "rows": rows}, builds, context


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--work", type=pathlib.Path, required=True)
    p.add_argument("-o", "--output", type=pathlib.Path, help="what was measured, as JSON; rows of other formats there stay")
    p.add_argument("--formats", default=",".join(FORMATS))
    p.add_argument("--model", choices=SHAPES, default="t6")
    p.add_argument("--threads", default="1,2")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--prefill", type=int, default=512)
    p.add_argument("--decode", type=int, default=64)
    p.add_argument("--only-make", action="store_true", help="make the model files and stop")
    a = p.parse_args()
    names = a.formats.split(",")
    if unknown := [n for n in names if n not in FORMATS]:
        p.error(f"no format {unknown[0]}; there are {', '.join(FORMATS)}")
    for name in names:
        files_of(a.work, a.model, name)
    if a.only_make:
        return
    doc = json.loads(a.output.read_text()) if a.output and a.output.exists() else {"rows": []}
    for name in names:
        for threads in map(int, a.threads.split(",")):
            row, builds, context = measure(a, name, threads)
            same = lambda r: (r["format"], r["model"], r["threads"]) == (name, a.model, threads)
            doc["rows"] = [r for r in doc["rows"] if not same(r)] + [row]
            row["program"] = context["program"]["git"]
            row["measured"] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
            device = context["devices"][0]
            doc.update(cpu=device["cpu"], cores=device["cores"], simd=device["simd"], compiler=context["program"]["compiler"],
                       peers={k: f"{os.environ['LLAMA_VERSION']}, {v}" if k == "llama.cpp" else v for k, v in builds.items()},
                       prefill_tokens=a.prefill, decode_tokens=a.decode)
            if a.output:
                a.output.parent.mkdir(parents=True, exist_ok=True)
                a.output.write_text(json.dumps(doc, indent=1) + "\n")


main()
