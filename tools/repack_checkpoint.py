#!/usr/bin/env python3
"""Packs the linears of a 4-bit gptq_v2 checkpoint into another layout, codes unchanged, so that perplexities can be compared.

Needs: numpy, torch, safetensors. The packing follows the formats' documentation (docs/formats.md), independently of the program.

  repack_checkpoint.py IN OUT --to awq|compressed-tensors|gptq|bin|bin-legacy|bin-sharded

bin, bin-legacy and bin-sharded keep the gptq_v2 tensors and change the container: torch.save's zip file, its older form, and
shards with an index.
"""
import argparse
import json
import pathlib
import shutil

import numpy as np
import torch
from safetensors.torch import load_file, save_file

SHIFTS = np.arange(8, dtype=np.uint32) * 4


def unpack_down(words):
    """int32 [n/8, m] to codes [n, m], eight to a word down the rows."""
    fields = words.numpy().view(np.uint32)[:, None, :] >> SHIFTS[None, :, None] & 15
    return fields.reshape(-1, words.shape[1]).astype(np.uint32)


def pack_across(codes, order=range(8)):
    """codes [n, m] to int32 [n, m/8], nibble i of a word from column order[i]."""
    fields = codes.reshape(codes.shape[0], -1, 8)[:, :, list(order)].astype(np.uint32) << SHIFTS
    return torch.from_numpy(np.bitwise_or.reduce(fields, axis=2).astype(np.uint32).view(np.int32).copy())


def unpack_across(words):
    fields = words.numpy().view(np.uint32)[:, :, None] >> SHIFTS & 15
    return fields.reshape(words.shape[0], -1).astype(np.uint32)


def to_awq(parts):
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    return {"qweight": pack_across(unpack_down(parts["qweight"]), order),
            "qzeros": pack_across(unpack_across(parts["qzeros"]), order), "scales": parts["scales"]}


def to_compressed(parts):
    codes, zeros = unpack_down(parts["qweight"]).T, unpack_across(parts["qzeros"])  # [out, in], [groups, out]
    return {"weight_packed": pack_across(np.ascontiguousarray(codes)), "weight_scale": parts["scales"].t().contiguous(),
            "weight_zero_point": pack_across(zeros).t().contiguous(), "weight_shape": torch.tensor(codes.shape)}


def to_gptq(parts):
    zeros = unpack_across(parts["qzeros"])
    return {**parts, "qzeros": pack_across((zeros - 1) & 15)}


def save_bin(tensors, out, kind):
    if kind != "bin-sharded":
        torch.save(tensors, out / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "bin")
        return
    names = sorted(tensors)
    half = len(names) // 2
    shards = {f"pytorch_model-{i + 1:05}-of-00002.bin": part for i, part in enumerate((names[:half], names[half:]))}
    for file, part in shards.items():
        torch.save({n: tensors[n] for n in part}, out / file)
    weight_map = {n: file for file, part in shards.items() for n in part}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (out / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--to", required=True, choices=["awq", "compressed-tensors", "gptq", "bin", "bin-legacy", "bin-sharded"])
    args = parser.parse_args()
    config = json.loads((args.source / "config.json").read_text())
    how = config["quantization_config"]
    assert how["checkpoint_format"] == "gptq_v2" and how["bits"] == 4 and not how["desc_act"], how
    tensors = {}
    for path in sorted(args.source.glob("*.safetensors")):
        tensors.update(load_file(path))
    args.out.mkdir(parents=True)
    for path in args.source.iterdir():
        if path.name.startswith("tokenizer") or path.name in ("special_tokens_map.json", "generation_config.json"):
            shutil.copy(path, args.out / path.name)
    if not args.to.startswith("bin"):
        repack = {"awq": to_awq, "compressed-tensors": to_compressed, "gptq": to_gptq}[args.to]
        for name in [n for n in tensors if n.endswith(".qweight")]:
            module = name[: -len(".qweight")]
            parts = {s: tensors.pop(f"{module}.{s}") for s in ("qweight", "qzeros", "scales", "g_idx")}
            tensors.update({f"{module}.{s}": t for s, t in repack(parts).items()})
    if args.to == "awq":
        config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": how["group_size"], "zero_point": True,
                                         "version": "gemm"}
    elif args.to == "compressed-tensors":
        config["quantization_config"] = {
            "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                "num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": how["group_size"]}}}}
    elif args.to == "gptq":
        how["checkpoint_format"] = "gptq"
        how["meta"] = {}
    (args.out / "config.json").write_text(json.dumps(config, indent=1))
    if args.to.startswith("bin"):
        save_bin(tensors, args.out, args.to)
    else:
        save_file({n: t.contiguous() for n, t in tensors.items()}, args.out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
