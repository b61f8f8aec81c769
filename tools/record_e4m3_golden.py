#!/usr/bin/env python3
"""Records tests/golden/e4m3.bin: the float32 values of the 256 codes of F8_E4M3, as torch converts them.

Needs: torch (recorded with 2.15.0, CPU, from PyPI).

  record_e4m3_golden.py --out tests/golden/e4m3.bin
"""
import argparse
import pathlib

import torch

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=pathlib.Path, required=True)
args = parser.parse_args()
codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
args.out.write_bytes(codes.to(torch.float32).numpy().tobytes())
