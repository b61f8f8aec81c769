#!/usr/bin/env python3
"""Sets `bench eval MODEL --base BASE` beside llama.cpp's `llama-perplexity --kl-divergence` on the same GGUF files and text.

Needs: a GGUF of a trained model (--model), a folder with llama-quantize and llama-perplexity (--llama-bin), wikitext2's test
file (--data). Recorded in docs/protocols.md: SmolLM2-135M-Instruct Q4_1, llama.cpp 0c1e570 (0.5.0-dev), 16 windows.

  check_divergence.py --bin build/bin --model FILE.gguf --llama-bin DIR --data DATA [--windows 16] [--work DIR]

The base is the model's weights as float32 (base.gguf); the model is requantized to Q4_0 (q.gguf). llama.cpp multiplies Q4_0
with activations rounded to 8 bits, so it reads the same weights as float32 too (q32.gguf), which is what bench computes with.
--work keeps the files, and takes up what is there. Exit status 1 where figures are further apart than what the 16 bits
of llama.cpp's file of log-probabilities cost.
"""
import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile

# Figure, how it stands in llama.cpp's output, how far the two may be apart (absolute).
FIGURES = [("ln(PPL(Q)/PPL(base))", r"Mean ln\(PPL\(Q\)/PPL\(base\)\)\s*:\s*(\S+)", 5e-4),
           ("mean KLD", r"Mean\s+KLD:\s*(\S+)", 1e-3), ("99.9 % KLD", r"99\.9%\s+KLD:\s*(\S+)", 1e-2),
           ("99 % KLD", r"99\.0%\s+KLD:\s*(\S+)", 5e-3), ("90 % KLD", r"90\.0%\s+KLD:\s*(\S+)", 3e-3),
           ("median KLD", r"Median\s+KLD:\s*(\S+)", 2e-3), ("10 % KLD", r"10\.0%\s+KLD:\s*(\S+)", 1e-3),
           ("mean delta p, %", r"Mean\s+\S+p:\s*(\S+)", 2e-2), ("RMS delta p, %", r"RMS\s+\S+p\s*:\s*(\S+)", 2e-2),
           ("same top p, %", r"Same top p:\s*(\S+)", 0.1), ("PPL(Q)", r"Mean PPL\(Q\)\s*:\s*(\S+)", 5e-3)]


def run(words, log, env=None):
    with open(log, "w", encoding="utf-8") as out:
        if subprocess.run([str(w) for w in words], stdout=out, stderr=subprocess.STDOUT, env=env, check=False).returncode:
            sys.exit(f"{words[0]} failed: {log}")
    return pathlib.Path(log).read_text(encoding="utf-8", errors="replace")


def theirs(args, work):
    """The figures of q.gguf and of the same weights as float32."""
    env = dict(os.environ, LD_LIBRARY_PATH=f"{args.llama_bin}:{os.environ.get('LD_LIBRARY_PATH', '')}")
    for source, name, kind in ((args.model, "base", "F32"), (args.model, "q", "Q4_0"), (work / "q.gguf", "q32", "F32")):
        if not (work / f"{name}.gguf").exists():
            run([args.llama_bin / "llama-quantize", "--allow-requantize", source, work / f"{name}.gguf", kind], work / f"{name}.log", env)
    common = ["-f", args.data / "wikitext2/wiki.test.raw", "-c", 512, "--chunks", args.windows, "--kl-divergence-base"]
    program, kept = args.llama_bin / "llama-perplexity", work / f"base-{args.windows}.kld"
    if not kept.exists():
        part = work / "base.kld.part"
        run([program, "-m", work / "base.gguf", *common, part], work / "base-perplexity.log", env)
        part.rename(kept)
    return [run([program, "-m", work / f"{name}.gguf", *common, kept, "--kl-divergence"], work / f"{name}-divergence.log", env) for name in ("q", "q32")]


def ours(args, work):
    out = subprocess.run([args.bin / "bench", "eval", work / "q.gguf", "--base", work / "base.gguf", "--dataset", "wikitext2", "--protocol",
                          "llamacpp-512", "--max-windows", str(args.windows), "--data", args.data, "--json", "-q"], capture_output=True, text=True,
                         check=False)
    if out.returncode:
        sys.exit(out.stderr)
    row = next(m for m in json.loads(out.stdout)["cases"][0]["metrics"] if m["name"] == "kl_divergence")
    kl = {p["percent"]: p["value"] for p in row["kl_percentiles"]}
    return [row["ln_perplexity_ratio"]["value"], row["value"], kl[99.9], kl[99], kl[90], kl[50], kl[10], 100 * row["delta_p"]["value"],
            100 * row["rms_delta_p"]["value"], 100 * row["same_top"]["value"], row["perplexity"]["value"]]


def compare(args, work):
    quantized, as_float = theirs(args, work)
    mine = ours(args, work)
    # The file clips what is far below the largest: by so much the base's perplexity that is read back from it is off.
    exact = float(re.search(r"Final estimate: PPL = (\S+)", (work / "base-perplexity.log").read_text(errors="replace")).group(1))
    clipped = abs(math.log(exact / float(re.search(r"Mean PPL\(base\)\s*:\s*(\S+)", as_float).group(1))))
    print(f"the file of log-probabilities moves ln PPL(base) by {clipped:.6f}")
    bad = 0
    print(f"{'':22} {'bench':>12} {'llama.cpp F32':>14} {'llama.cpp Q4_0':>14}")
    for (name, pattern, near), value in zip(FIGURES, mine):
        figures = [float(re.search(pattern, text).group(1).rstrip("%")) for text in (as_float, quantized)]
        fine = abs(value - figures[0]) <= near + (clipped if name.startswith("ln(") else 0)
        bad += not fine
        print(f"{name:22} {value:12.6f} {figures[0]:14.6f} {figures[1]:14.6f} {'' if fine else '  FAILED'}")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    for name in ("bin", "model", "llama-bin", "data"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--work", type=pathlib.Path)
    args = parser.parse_args()
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
        sys.exit(1 if compare(args, args.work) else 0)
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(1 if compare(args, pathlib.Path(scratch)) else 0)


if __name__ == "__main__":
    main()
