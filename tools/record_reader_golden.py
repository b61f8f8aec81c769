#!/usr/bin/env python3
"""Records tests/golden/readers: one small module in the layouts that other programs write, packed by those programs.

Needs (in a virtual environment): numpy, torch, safetensors, bitsandbytes, compressed-tensors, gptqmodel, and the folder
autoawq-0.2.9 of the unpacked source of autoawq 0.2.9 (pip download --no-deps autoawq==0.2.9), which need not be
installed. Recorded on the CPU with torch 2.15.0, bitsandbytes 0.50.2, compressed-tensors 0.20.0, gptqmodel 7.7.0.

  record_reader_golden.py --autoawq DIR --out tests/golden/readers

Codes, zeros and scales are drawn from a seed; each directory holds them as plain tensors beside what the program packed:
`codes` uint8 [out, in], `zeros` uint8 [out, groups], `scales` [out, groups], `dequantized_sha256` of the float32 weights.
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
from safetensors.torch import save_file

N, K, GROUP = 32, 64, 32


def sha256_of(tensor):
    digest = hashlib.sha256(tensor.contiguous().float().numpy().tobytes()).hexdigest()
    return torch.tensor(list(digest.encode()), dtype=torch.uint8)


def write(folder, tensors, quantization):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.clone().contiguous() for name, t in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}, indent=1) + "\n")


class Weight:
    """codes, zeros and float16 scales of a module, and the float32 weights that they stand for."""

    def __init__(self, rng, bits, symmetric, group=GROUP, g_idx=None, low_zero=1, dtype=torch.float16, cols=K):
        groups = -(-cols // group)
        self.bits, self.group, self.symmetric, self.cols = bits, group, symmetric, cols
        self.codes = torch.from_numpy(rng.integers(0, 2**bits, (N, cols), dtype=np.uint8))
        drawn = torch.from_numpy(rng.integers(low_zero, 2**bits, (N, groups), dtype=np.uint8))
        self.zeros = torch.full_like(drawn, 2 ** (bits - 1)) if symmetric else drawn
        self.scales = torch.from_numpy(rng.uniform(0.01, 0.1, (N, groups)).astype(np.float32)).to(dtype)
        self.g_idx = torch.arange(cols) // group if g_idx is None else g_idx
        index = self.g_idx.long()
        whole = self.codes.float() - self.zeros.float()[:, index]
        self.dense = self.scales.float()[:, index] * whole

    def truth(self):
        return {"codes": self.codes, "zeros": self.zeros, "scales": self.scales, "dequantized_sha256": sha256_of(self.dense)}

    def linear(self):
        linear = torch.nn.Linear(self.cols, N, bias=False)
        linear.weight.data = self.dense.clone()
        return linear


def record_gptqmodel(out, weights):
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    for name, w in weights.items():
        module = TorchLinear(bits=w.bits, group_size=w.group, sym=w.symmetric, desc_act=False, in_features=K, out_features=N,
                             bias=False, register_buffers=True)
        module.pack_original(w.linear(), w.scales.float(), w.zeros.float(), w.g_idx.int())
        config = {"quant_method": "gptq", "bits": w.bits, "group_size": w.group, "desc_act": False, "sym": w.symmetric,
                  "lm_head": False, "pack_dtype": "int32", "meta": {"quantizer": ["gptqmodel:7.7.0"]}}
        keys = ("qweight", "qzeros", "scales", "g_idx")

        def tensors(module=module, w=w):
            return {**{f"m.{k}": getattr(module, k).clone() for k in keys}, **{f"true.{k}": v for k, v in w.truth().items()}}

        write(out / f"gptqmodel-{name}-v2", tensors(), {**config, "checkpoint_format": "gptq_v2"})
        settings = types.SimpleNamespace(bits=w.bits, pack_dtype=torch.int32)
        convert_gptq_v2_to_v1_format_module(module, settings)
        write(out / f"gptqmodel-{name}-v1", tensors(), {**config, "checkpoint_format": "gptq"})


def autoawq_linear(folder):
    """WQLinear_GEMM loaded alone: the package imports kernels that packing does not need."""
    root = pathlib.Path(folder) / "awq"
    for name in ("awq", "awq.utils", "awq.modules", "awq.modules.triton"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    stubs = {"awq.utils.module": {"try_import": lambda name: (None, "")},
             "awq.utils.utils": {"get_best_device": lambda: "cpu"},
             "awq.modules.triton.gemm": {"awq_gemm_triton": None, "awq_dequantize_triton": None}}
    for name, members in stubs.items():
        sys.modules[name] = types.SimpleNamespace(**members)
    for name in ("awq.utils.packing_utils", "awq.modules.linear.gemm"):
        spec = importlib.util.spec_from_file_location(name, root.parent / (name.replace(".", "/") + ".py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return module.WQLinear_GEMM, sys.modules["awq.utils.packing_utils"].dequantize_gemm


def record_awq(out, folder, weights):
    cls, dequantize = autoawq_linear(folder)
    for name, w in weights.items():
        packed = cls.from_linear(w.linear(), w.bits, w.group, scales=w.scales.float().t().contiguous(),
                                 zeros=w.zeros.float().t().contiguous())
        theirs = dequantize(packed.qweight, packed.qzeros, packed.scales.float(), w.bits, w.group).t()
        assert torch.equal(theirs, w.dense), "AutoAWQ's own dequantization differs"
        tensors = {f"m.{k}": getattr(packed, k) for k in ("qweight", "qzeros", "scales")}
        write(out / f"awq-{name}", {**tensors, **{f"true.{k}": v for k, v in w.truth().items()}},
              {"quant_method": "awq", "bits": w.bits, "group_size": w.group, "zero_point": True, "version": "gemm",
               "modules_to_not_convert": None})


def record_compressed(out, weights):
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme

    for name, w in weights.items():
        middle = 2 ** (w.bits - 1)
        channel, ordered = w.group >= w.cols, "order" in name
        args = QuantizationArgs(num_bits=w.bits, symmetric=w.symmetric, strategy="channel" if channel else "group",
                                group_size=None if channel else w.group)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        signed = (w.zeros.int() - middle).to(torch.int8)
        state = {"weight": w.dense.clone(), "weight_scale": w.scales.float(), "weight_zero_point": signed}
        if ordered:
            # The library no longer writes this order (it did, as actorder "group"): its packing, by hand.
            packed = {"weight_packed": pack_to_int32((w.codes.int() - middle).to(torch.int8), w.bits),
                      "weight_shape": torch.tensor(w.codes.shape), "weight_scale": w.scales,
                      "weight_g_idx": w.g_idx.int(),
                      "weight_zero_point": pack_to_int32(signed, w.bits, packed_dim=0).contiguous()}
        else:
            packed = PackedQuantizationCompressor.compress(state, scheme)
            theirs = PackedQuantizationCompressor.decompress(packed, scheme)["weight"]
            assert torch.equal(theirs.float(), w.dense), "the library's own dequantization differs"
            packed["weight_scale"] = w.scales
        config = QuantizationConfig(config_groups={"group_0": scheme}, format="pack-quantized",
                                    quantization_status="compressed", ignore=["lm_head"]).to_dict()
        config = json.loads(json.dumps(config, default=str))
        if ordered:
            config["config_groups"]["group_0"]["weights"]["actorder"] = "group"
        write(out / f"compressed-{name}",
              {**{f"m.{k}": v for k, v in packed.items()}, **{f"true.{k}": v for k, v in w.truth().items()}}, config)


def record_bnb8(out, rng):
    import bitsandbytes

    for name, dtype in (("half", torch.float16), ("float", torch.float32), ("bfloat", torch.bfloat16)):
        weight = torch.from_numpy((rng.standard_normal((N, K)) * 0.02).astype(np.float32)).to(dtype)
        weight[3] = 0
        weight[5] = torch.arange(-32, 32) / 32 * 127 / 128  # ties: halves between the steps of 1/127 of the absmax
        weight[6, :] = torch.arange(K) * 0.5 / 127
        weight[6, 0] = 1.0
        linear = bitsandbytes.nn.Linear8bitLt(K, N, bias=False, has_fp16_weights=False)
        linear.load_state_dict({"weight": weight})
        state = linear.to("cpu").state_dict()
        exact = state["weight"].float() * (state["SCB"].view(-1, 1) / 127.0)
        write(out / f"bnb8-{name}",
              {**{f"m.{k}": v for k, v in state.items()}, "true.weight": weight, "true.dequantized_sha256": sha256_of(exact)},
              {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True, "llm_int8_threshold": 6.0,
               "llm_int8_skip_modules": None, "llm_int8_has_fp16_weight": False,
               "llm_int8_enable_fp32_cpu_offload": False})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoawq", required=True)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    args = parser.parse_args()
    rng = np.random.default_rng(21)
    asym, sym = Weight(rng, 4, False), Weight(rng, 4, True)
    gptq = {"asym": asym, "sym": sym}
    # Zero points of 0: gptqmodel subtracts one from whole words, so that the borrow reaches the neighbours.
    for bits in (2, 3, 4, 8):
        gptq[f"{bits}bit-zero"] = Weight(rng, bits, False, low_zero=0)
    record_gptqmodel(args.out, gptq)
    record_awq(args.out, args.autoawq, {"asym": asym, "sym": sym})
    g_idx = torch.from_numpy(rng.permutation(np.arange(K) // GROUP))
    record_compressed(args.out, {
        "asym": asym, "sym": sym, "order": Weight(rng, 4, False, g_idx=g_idx),
        "3bit": Weight(rng, 3, False, cols=72, group=24), "8bit-channel": Weight(rng, 8, True, group=K),
        "bf16": Weight(rng, 4, True, dtype=torch.bfloat16)})
    record_bnb8(args.out, rng)
    record_compressed(args.out, {f"{bits}bit": Weight(rng, bits, False) for bits in (5, 6)})


if __name__ == "__main__":
    main()
