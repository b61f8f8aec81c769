#!/usr/bin/env python3
"""Quantizes a Llama with the GPTQ paper's own code and with `bench`, and compares the perplexities with plain rounding's.

Needs torch and transformers (CPU), and a checkout of github.com/IST-DASLab/gptq, of which gptq.py and quant.py are imported as they are;
nothing of it is copied here. What is stated in docs/methods.md: 2d65066, torch 2.15.0, transformers 5.24.0.

  compare_gptq_paper.py --bin build/bin --gptq CHECKOUT --model DIR --calibration FILE --text FILE
                        [--bits 4] [--group-size 64] [--samples 16] [--seqlen 512] [--windows 16] [--asym] [--act-order]

The paper's class sees each block as its llama.py shows it (without --true-sequential, so bench runs without it too): inputs of all
windows through the quantized blocks before, a Hessian a linear, the block's outputs taken again after. Windows are those that bench
draws, and bench measures all the directories: only the codes differ.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
import transformers


def windows_of(args):
    ids = transformers.AutoTokenizer.from_pretrained(args.model)(args.calibration.read_text(), return_tensors="pt").input_ids
    draw = random.Random(0)
    starts = [draw.randint(0, ids.shape[1] - args.seqlen - 1) for _ in range(args.samples)]
    return [ids[:, i:i + args.seqlen] for i in starts]


class Stop(Exception):
    pass


def first_inputs(model, windows):
    """What the first block is given: hidden states of each window, and the arguments beside them."""
    inputs, beside = [], {}

    def catch(module, positional, named):
        inputs.append(positional[0] if positional else named.pop("hidden_states"))
        beside.update(named)
        raise Stop
    hook = model.model.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    for window in windows:
        try:
            model(window, use_cache=False)
        except Stop:
            pass
    hook.remove()
    return inputs, beside


def run(block, x, beside):
    out = block(x, **beside)
    return out[0] if isinstance(out, tuple) else out


@torch.no_grad()
def quantize(args, folder):
    """The model with the paper's weights, written to `folder`."""
    sys.path.insert(0, str(args.gptq))
    torch.cuda.synchronize = torch.cuda.empty_cache = lambda: None  # it asks for them on the CPU, too
    import gptq
    import quant
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    inputs, beside = first_inputs(model, windows_of(args))
    for block in model.model.layers:
        linears = {n: m for n, m in block.named_modules() if isinstance(m, torch.nn.Linear)}
        solvers = {}
        for name, linear in linears.items():
            solvers[name] = gptq.GPTQ(linear)
            solvers[name].quantizer = quant.Quantizer()
            solvers[name].quantizer.configure(args.bits, perchannel=True, sym=not args.asym, mse=False)
        hooks = [m.register_forward_hook(lambda _, x, y, n=n: solvers[n].add_batch(x[0].data, y.data)) for n, m in linears.items()]
        for x in inputs:
            run(block, x, beside)
        for hook in hooks:
            hook.remove()
        for solver in solvers.values():
            solver.fasterquant(percdamp=.01, groupsize=args.group_size, actorder=args.act_order)
            solver.free()
        inputs = [run(block, x, beside) for x in inputs]
    model.save_pretrained(folder)
    for path in args.model.glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())


def bench(args, *words):
    done = subprocess.run([args.bin / "bench", *map(str, words), "-q"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def perplexity(args, folder):
    out = bench(args, "eval", folder, "--dataset", args.text, "--protocol", f"gptq-{args.seqlen}", "--max-windows", args.windows, "--json")
    return json.loads(out)["cases"][0]["metrics"][0]["value"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("bin", "gptq", "model", "calibration", "text"):
        parser.add_argument("--" + name, type=pathlib.Path, required=True)
    for name, value in (("bits", 4), ("group-size", 64), ("samples", 16), ("seqlen", 512), ("windows", 16)):
        parser.add_argument("--" + name, type=int, default=value)
    for name in ("asym", "act-order"):
        parser.add_argument("--" + name, action="store_true")
    args = parser.parse_args()
    grid = ["--bits", args.bits, "--group-size", args.group_size, *(["--no-sym"] if args.asym else [])]
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        quantize(args, tmp / "paper")
        bench(args, "quantize", args.model, "--method", "rtn", *grid, "-o", tmp / "rtn")
        bench(args, "quantize", args.model, "--method", "gptq", *grid, "--no-true-sequential", "--calibration", args.calibration, "--samples",
              args.samples, "--seqlen", args.seqlen, *(["--act-order"] if args.act_order else []), "-o", tmp / "ours")
        found = {name: perplexity(args, folder) for name, folder in (
            ("dense", args.model), ("rounding", tmp / "rtn"), ("paper", tmp / "paper"), ("bench", tmp / "ours"))}
    for name, value in found.items():
        print(f"{name:9} {value:.4f}")
    print(f"bench against the paper's code: {found['bench'] / found['paper'] - 1:+.2%}")


if __name__ == "__main__":
    main()
