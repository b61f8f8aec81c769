#!/usr/bin/env python3
"""Records tests/golden/torch: one dictionary of tensors as torch.save writes it, and the same as safetensors.

Needs: torch; with --expected also safetensors. Recorded with torch 1.13 and 2.15; run once with each.

  record_torch_golden.py --label 1.13 --out tests/golden/torch [--expected]

Writes zip-LABEL and old-LABEL (the form before PyTorch 1.6), each a directory with config.json and pytorch_model.bin, and
nested-LABEL, whose dictionary lies in one named state_dict.
"""
import argparse
import pathlib

import torch


def tensors():
    """Every element type, a module's own state_dict, and views: transposed, with an offset, of one storage."""
    torch.manual_seed(22)
    state = torch.nn.Linear(6, 4).state_dict()  # an OrderedDict with attributes
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state["views.whole"] = base
    state["views.transposed"] = base.t()
    state["views.rows"] = base[1:3]
    state["views.tied"] = state["weight"]
    state["parameter"] = torch.nn.Parameter(torch.tensor([1.5, -2.0]))
    state["scalar"] = torch.tensor(7, dtype=torch.int64)
    state["empty"] = torch.zeros(0, 3)
    state["column"] = torch.arange(5, dtype=torch.int32).reshape(5, 1).t()
    for name in ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"):
        state[f"types.{name}"] = torch.tensor([[1, 0, 3], [4, 5, 1]]).to(getattr(torch, name))
    return state


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", required=True)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--expected", action="store_true")
    args = parser.parse_args()
    state = tensors()
    rows = {"zip": (state, True), "old": (state, False), "nested": ({"epoch": 3, "lr": 0.5, "state_dict": state}, True)}
    for name, (value, archive) in rows.items():
        folder = args.out / f"{name}-{args.label}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}\n")
        torch.save(value, folder / "pytorch_model.bin", _use_new_zipfile_serialization=archive)
    if args.expected:
        from safetensors.torch import save_file

        folder = args.out / "expected"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}\n")
        save_file({n: t.detach().clone().contiguous() for n, t in state.items()}, folder / "model.safetensors")


if __name__ == "__main__":
    main()
