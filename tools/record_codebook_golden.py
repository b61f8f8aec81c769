#!/usr/bin/env python3
"""Records what bitsandbytes' CPU code makes of a small weight, for tests/test_quant_codebook.c.

Needs: bitsandbytes (0.50.2 was used), torch (2.15.0), in any Python 3 environment:
    pip install bitsandbytes torch
    python tools/record_codebook_golden.py tests/golden/codebook.json

The weight is a function of the index alone, so that only results are recorded. Values are float32 of whole numbers over a
power of two: nothing depends on a random generator or on printing.
"""
import json
import struct
import sys

import bitsandbytes
import torch
from bitsandbytes import functional as F

ROWS, COLS = 56, 160  # 8960 weights: 280 blocks of 32, more than one nested block


def weight():
    values, state = [], 12345
    for i in range(ROWS * COLS):
        state = (state * 1103515245 + 12345) % 2**31
        x = (state >> 8) % 8192 - 4096
        scale = 1 + (i // 97) % 13
        values.append(x * scale / 65536.0)
    for i in range(640, 704):  # a block of zeros
        values[i] = 0.0
    values[64] = 4.0  # an outlier alone at the top of its block
    return torch.tensor(values, dtype=torch.float32).reshape(ROWS, COLS)


def hex_floats(tensor):
    return b"".join(struct.pack("<f", v) for v in tensor.flatten().tolist()).hex()


def hex_bytes(tensor):
    return bytes(tensor.flatten().tolist()).hex()


def record(w, kind, block, double):
    """The codes do not depend on double quantization: they are recorded once."""
    packed, state = F.quantize_4bit(w, blocksize=block, quant_type=kind, compress_statistics=double)
    case = {"quant_type": kind, "block_size": block, "double_quant": double}
    if double:
        case["absmax_codes_hex"] = hex_bytes(state.absmax)
        case["nested_absmax_hex"] = hex_floats(state.state2.absmax)
        case["nested_offset_hex"] = hex_floats(state.offset.reshape(1))
    else:
        case["packed_hex"] = hex_bytes(packed)
        case["absmax_hex"] = hex_floats(state.absmax)
    return case


def main():
    w = weight()
    cases = [record(w, kind, block, False) for kind in ("nf4", "fp4") for block in (64, 128)]
    cases += [record(w, "nf4", block, True) for block in (32, 64, 128)]
    document = {
        "made_by": f"tools/record_codebook_golden.py, bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}",
        "rows": ROWS,
        "cols": COLS,
        "cases": cases,
    }
    with open(sys.argv[1], "w") as f:
        json.dump(document, f, indent=0)
        f.write("\n")


main()
