#!/usr/bin/env python3
"""Records tests/golden/layouts: small checkpoints packed by bitsandbytes and AutoGPTQ, and checks directories of ours.

Needs (in a virtual environment): numpy, torch, safetensors, bitsandbytes (recorded with 0.50.2 on the CPU), and the folder
auto_gptq of the unpacked wheel auto-gptq 0.7.1 (pip download auto-gptq==0.7.1 --no-deps; unzip it): it need not be installed.

  record_layout_golden.py record --autogptq DIR --out tests/golden/layouts
  record_layout_golden.py check DIR...     opens directories written by bench as their users' programs would

Recorded values are data of ours (seeded) in layouts of theirs; no weights of anyone else are in them.
"""
import argparse
import hashlib
import importlib.util
import json
import pathlib
import sys
import types

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def write_checkpoint(folder, tensors, quantization):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.contiguous() for name, t in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}, indent=1) + "\n")


def sha256_of(tensor):
    digest = hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
    return torch.tensor(list(digest.encode()), dtype=torch.uint8)


def bnb_module(functional, weight, kind, block, double):
    packed, state = functional.quantize_4bit(weight, blocksize=block, compress_statistics=double, quant_type=kind)
    tensors = {"m.weight": packed}
    for key, value in state.as_dict(packed=True).items():
        tensors[f"m.weight.{key}"] = value
    absmax = state.absmax
    if double:
        absmax = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    tensors["absmax"] = absmax.float().clone()
    # The definition in float32, element by element: what the library's own dequantization rounds from.
    codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], 1).flatten()[: weight.numel()]
    blocks = torch.arange(weight.numel()) // block
    exact = state.code[codes.long()] * absmax.float()[blocks]
    tensors["dequantized_sha256"] = sha256_of(exact)
    theirs = functional.dequantize_4bit(packed, state).flatten().float()
    if not torch.equal(theirs, exact.to(weight.dtype).float()):
        print(f"note: the library's {weight.dtype} dequantization differs by {(theirs - exact).abs().max().item():g}")
    return tensors


def record_bnb(out):
    import bitsandbytes.functional as functional

    generator = torch.Generator().manual_seed(20)
    rows = [  # name, codebook, shape, block, double quantization, dtype
        ("nf4", "nf4", (24, 40), 64, False, torch.float32),
        ("fp4", "fp4", (24, 40), 64, False, torch.float16),
        ("nf4-odd", "nf4", (5, 7), 32, False, torch.float32),
        ("fp4-odd", "fp4", (5, 7), 32, False, torch.float32),
        ("nf4-double", "nf4", (64, 152), 32, True, torch.float32),
        ("fp4-double", "fp4", (64, 152), 32, True, torch.bfloat16),
    ]
    for name, kind, shape, block, double, dtype in rows:
        weight = (torch.randn(shape, generator=generator) * 0.02).to(dtype)
        tensors = bnb_module(functional, weight, kind, block, double)
        write_checkpoint(
            out / f"bnb-{name}",
            tensors,
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False,
             "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double},
        )


def autogptq_linear(folder):
    """The class with AutoGPTQ's own packing, loaded alone: the package needs CUDA builds that packing does not."""
    stub = types.ModuleType("transformers")
    stub.pytorch_utils = types.SimpleNamespace(Conv1D=type("Conv1D", (), {}))
    sys.modules.setdefault("transformers", stub)
    path = pathlib.Path(folder) / "nn_modules" / "qlinear" / "qlinear_cuda.py"
    spec = importlib.util.spec_from_file_location("autogptq_qlinear", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.QuantLinear


def pack_gptq(cls, bits, group, codes, zeros, scales, g_idx):
    n, k = codes.shape
    linear = torch.nn.Linear(k, n, bias=False)
    groups = g_idx.long()
    linear.weight.data = scales[:, groups] * (codes.float() - zeros[:, groups].float())
    quantized = cls(bits, group, k, n, bias=False, weight_dtype=torch.float32)
    quantized.pack(linear, scales.clone(), zeros.float().clone(), g_idx.clone())
    return quantized, linear.weight.data


def record_gptq(out, folder):
    cls = autogptq_linear(folder)
    rng = np.random.default_rng(20)
    n, k, group = 32, 64, 24  # three groups, the last one short
    for bits in (2, 3, 4, 8):
        n_groups = -(-k // group)
        codes = torch.from_numpy(rng.integers(0, 2**bits, (n, k), dtype=np.uint8))
        zeros = torch.from_numpy(rng.integers(1, 2**bits, (n, n_groups), dtype=np.uint8))
        scales = torch.from_numpy(rng.uniform(0.01, 0.1, (n, n_groups)).astype(np.float16)).float()
        g_idx = torch.from_numpy(rng.permutation(np.arange(k) // group).astype(np.int32))
        v1, weight = pack_gptq(cls, bits, group, codes, zeros, scales, g_idx)
        # Packing subtracts one: zeros one higher give the words of gptq_v2. 2^bits - 1 would not fit and is left out.
        low = torch.clamp(zeros, max=2**bits - 2)
        v2, _ = pack_gptq(cls, bits, group, codes, low + 1, scales, g_idx)
        write_checkpoint(
            out / f"gptq-{bits}bit",
            {
                "m.qweight": v1.qweight, "m.qzeros": v1.qzeros, "m.scales": v1.scales.half(), "m.g_idx": v1.g_idx,
                "codes": codes, "zeros": zeros, "zeros_low": low, "qzeros_v2_of_low": v2.qzeros,
                "dequantized_sha256": sha256_of(weight),
            },
            {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": True, "sym": False,
             "checkpoint_format": "gptq"},
        )


def check(folder):
    """Every tensor through safetensors' own readers; bitsandbytes states through QuantState.from_dict."""
    folder = pathlib.Path(folder)
    tensors = {}
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            assert file.metadata() == {"format": "pt"}, file.metadata()
            count += len(list(file.keys()))
        tensors.update(load_file(path))
    assert len(tensors) == count, "a tensor is in two shards"
    for name in sorted(tensors):
        if ".quant_state." in name:
            from bitsandbytes.functional import QuantState, dequantize_4bit

            prefix = name[: name.index(".quant_state.")]
            parts = {n[len(prefix) + 1:]: t for n, t in tensors.items() if n.startswith(prefix + ".")}
            state = QuantState.from_dict(parts, device=torch.device("cpu"))
            weight = dequantize_4bit(tensors[prefix], state)
            assert torch.isfinite(weight.float()).all()
            print(f"{prefix}: {tuple(weight.shape)} {weight.dtype}, mean |w| {weight.float().abs().mean().item():g}")
    index = folder / "model.safetensors.index.json"
    if index.exists():
        weight_map = json.loads(index.read_text())["weight_map"]
        assert len(weight_map) == count, (len(weight_map), count)
    print(f"{folder}: {count} tensors read")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record")
    record.add_argument("--autogptq", required=True)
    record.add_argument("--out", required=True, type=pathlib.Path)
    commands.add_parser("check").add_argument("folders", nargs="+")
    args = parser.parse_args()
    if args.command == "record":
        record_bnb(args.out)
        record_gptq(args.out, args.autogptq)
    else:
        for folder in args.folders:
            check(folder)


if __name__ == "__main__":
    main()
