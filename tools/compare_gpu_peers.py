#!/usr/bin/env python3
"""The peers' kernels on this machine's GPU, for the shares beside which `bench speed` stands: one JSON object.

The linears of Llama-2-7B's 32 blocks with random weights, each block its own, so that no cache holds them: PyTorch's bf16
product, its int4 kernel ("tinygemm", groups of 128, q+k+v and gate+up joined as gpt-fast joins them) and bitsandbytes' NF4
(blocks of 64, float32 scales, the seven linears by themselves as transformers calls them). No attention, norm or head is in
these times, which is to the peers' favour beside a whole token of ours. Decode is one CUDA graph a pass; the median of REPEAT.

Needs: an NVIDIA GPU and torch; bitsandbytes is left out, and it is said, where it is not installed. Exit 77 without a GPU.
  tools/compare_gpu_peers.py [--repeat 20] [--rows 1,8] [--prefill 2048]
"""
import argparse
import json
import statistics
import sys

try:
    import torch
except ImportError:
    print("skipped: no torch")
    sys.exit(77)

HIDDEN, FEED, BLOCKS, GROUP = 4096, 11008, 32, 128
JOINED = [(3 * HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (2 * FEED, HIDDEN), (HIDDEN, FEED)]  # rows, columns
SINGLE = [(HIDDEN, HIDDEN)] * 4 + [(FEED, HIDDEN)] * 2 + [(HIDDEN, FEED)]
PARAMETERS = BLOCKS * sum(n * k for n, k in SINGLE)


def bf16_linear(n, k):
    w = torch.randn(n, k, device="cuda", dtype=torch.bfloat16) * 0.02
    return lambda x: torch.nn.functional.linear(x, w), w.nbytes


def int4_linear(n, k):
    codes = torch.randint(0, 256, (n, k // 2), device="cuda", dtype=torch.uint8)
    packed = torch._convert_weight_to_int4pack(codes, 8)
    scales = torch.rand(k // GROUP, n, 2, device="cuda", dtype=torch.float32).mul_(0.01).to(torch.bfloat16)
    return lambda x: torch._weight_int4pack_mm(x, packed, GROUP, scales), packed.nbytes + scales.nbytes


def nf4_linear(n, k):
    import bitsandbytes as bnb

    w = torch.randn(n, k, device="cuda", dtype=torch.bfloat16) * 0.02
    codes, state = bnb.functional.quantize_4bit(w, blocksize=64, quant_type="nf4")
    return lambda x: bnb.matmul_4bit(x, codes.t(), state), codes.nbytes + state.absmax.nbytes


def model(make, shapes):
    blocks, size = [], 0
    for _ in range(BLOCKS):
        block = []
        for n, k in shapes:
            call, nbytes = make(n, k)
            block.append((call, k))
            size += nbytes
        blocks.append(block)
    return blocks, size


def timed(call, repeat):
    times = []
    for _ in range(repeat):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def passes(blocks, rows, inputs):
    for block in blocks:
        for call, k in block:
            call(inputs[k])


def measure(blocks, rows, repeat, graph):
    inputs = {k: torch.randn(rows, k, device="cuda", dtype=torch.bfloat16) for k in (HIDDEN, FEED)}
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # kernels load before a capture begins
        passes(blocks, rows, inputs)
    side.synchronize()
    if not graph:
        return timed(lambda: passes(blocks, rows, inputs), repeat)
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        passes(blocks, rows, inputs)
    g.replay()
    torch.cuda.synchronize()
    return timed(g.replay, repeat)


def ceilings(repeat):
    a = torch.empty(1 << 31, dtype=torch.uint8, device="cuda").random_(0, 255)
    b = torch.empty_like(a)
    b.copy_(a)
    copy = 2 * a.nbytes / timed(lambda: b.copy_(a), repeat) / 1e6
    x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    y = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    torch.mm(x, y)
    return {"copy_gb_s": copy, "gemm_bf16_tflop_s": 2 * 8192**3 / timed(lambda: torch.mm(x, y), repeat) / 1e9}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--repeat", type=int, default=20)
    p.add_argument("--rows", default="1,8")
    p.add_argument("--prefill", type=int, default=2048)
    a = p.parse_args()
    if not torch.cuda.is_available():
        print("skipped: no CUDA device")
        return 77
    torch.manual_seed(5)
    out = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "ceilings": ceilings(a.repeat), "peers": [], "left_out": []}
    kinds = [("torch bf16", bf16_linear, JOINED), ("torch int4 tinygemm g128", int4_linear, JOINED)]
    try:
        import bitsandbytes

        out["bitsandbytes"] = bitsandbytes.__version__
        kinds.append(("bitsandbytes nf4", nf4_linear, SINGLE))
    except Exception as e:  # not installed, or made for another CUDA
        out["left_out"].append(f"bitsandbytes: {e}")
    for name, make, shapes in kinds:
        row = {"name": name}
        try:
            blocks, row["bytes"] = model(make, shapes)
            for rows in (int(r) for r in a.rows.split(",")):
                ms = measure(blocks, rows, a.repeat, True)
                row[f"decode_batch{rows}_ms"] = ms
                row[f"decode_batch{rows}_gb_s"] = row["bytes"] / ms / 1e6
            ms = measure(blocks, a.prefill, 3, False)
            row[f"prefill{a.prefill}_ms"] = ms
            row["prefill_tflop_s"] = 2 * PARAMETERS * a.prefill / ms / 1e9
        except Exception as e:
            row["failed"] = f"{type(e).__name__}: {e}"[:300]
        out["peers"].append(row)
        blocks = None
        torch.cuda.empty_cache()
    print(json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
