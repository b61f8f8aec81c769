"""Qwen3 with its linears in F8_E4M3 and one float32 factor a block, as DeepSeek-V3 and Qwen3-FP8 are published.

`*.weight` float8_e4m3fn [out, in], `*.weight_scale_inv` float32 [out/rows, in/columns]; value = weight * scale of its block. The
blocks here are 16 x 32, `weight_block_size` of the config. The reference is transformers, which turns the file into floats by
itself where there is no GPU; ours are compared with its to the bit.
"""
import json

import torch
from safetensors.torch import load_file, save_file

ROWS, COLUMNS = 16, 32
CONFIG = dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=[ROWS, COLUMNS])


def pack(dense):
    blocks = dense.unflatten(0, (-1, ROWS)).unflatten(2, (-1, COLUMNS))
    scale = blocks.abs().amax((1, 3)).clamp(min=1e-12) / 448
    stored = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
    return stored.flatten(2).flatten(0, 1).contiguous(), scale.contiguous()


def unpack(stored, scale):
    blocks = stored.float().unflatten(0, (-1, ROWS)).unflatten(2, (-1, COLUMNS)) * scale[:, None, :, None]
    return blocks.flatten(2).flatten(0, 1)


def dense_of(tensors):
    dense = {name: t for name, t in tensors.items() if not name.endswith("_scale_inv")}
    for name in dense:
        if name + "_scale_inv" in tensors:
            dense[name] = unpack(dense[name], tensors[name + "_scale_inv"])
    return dense


def make(source, folder, case, load, logits_of, store, measure):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = load_file(source / "model.safetensors")
    for name, value in list(tensors.items()):
        if name.endswith("_proj.weight"):
            tensors[name], tensors[name + "_scale_inv"] = pack(value)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": CONFIG}, indent=2, sort_keys=True) + "\n")
    model, dense = load(folder, case), dense_of(tensors)
    for name, value in model.state_dict().items():
        if not torch.equal(value, dense[name]):
            raise SystemExit(f"{name}: unpacked differently by transformers")
    logits = logits_of(model)
    store(folder, logits)
    return dict(name=folder.name, family=case["model_type"], architecture=config["architectures"][0], vocab_size=logits.shape[1],
                group=32, n_params=sum(t.numel() for t in dense.values()), reference="transformers",
                **measure(case, model, logits), stored="linears in F8_E4M3, float32 scales of 16 x 32 blocks")
