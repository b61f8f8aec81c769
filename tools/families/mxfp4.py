"""gpt-oss with its experts in MXFP4, as the published checkpoints hold them: blocks of 32 four-bit floats and one power of two.

`*_blocks` u8 [E, rows, columns/32, 16], low nibble first; `*_scales` u8 [E, rows, columns/32], value 2^(scale - 127); rows are
out features, the transpose of the dense tensor. The reference is transformers on the values, which its own unpacking must give
too.
"""
import json

import torch
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

LEVELS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
CONFIG = dict(quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                             "model.embed_tokens", "lm_head"])


def pack(dense):
    """dense [E, columns, rows] -> blocks, scales: the nearest level under a scale that holds the largest of the block."""
    x = dense.transpose(1, 2).unflatten(-1, (-1, 32))
    power = torch.floor(torch.log2(x.abs().amax(-1, keepdim=True).clamp(min=2.0 ** -100))) - 2
    y = x * 2.0 ** -power
    code = (y.abs()[..., None] - LEVELS).abs().argmin(-1) + 8 * (y < 0)
    blocks = (code[..., ::2] | code[..., 1::2] << 4).to(torch.uint8)
    return blocks.contiguous(), (power[..., 0] + 127).to(torch.uint8).contiguous()


def unpack(blocks, scales):
    code = torch.stack((blocks & 15, blocks >> 4), -1).flatten(-2).long()
    value = LEVELS[code % 8] * (1 - 2 * (code // 8)) * 2.0 ** (scales[..., None].float() - 127)
    return value.flatten(-2).transpose(1, 2).contiguous()


def dense_of(tensors):
    """The tensors with their experts unpacked; ours and transformers' unpacking agree to the bit."""
    dense = dict(tensors)
    for name in list(tensors):
        if name.endswith("_blocks"):
            stem = name[: -len("_blocks")]
            blocks, scales = dense.pop(name), dense.pop(stem + "_scales")
            dense[stem] = unpack(blocks, scales)
            theirs = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
            if not torch.equal(dense[stem], theirs):
                raise SystemExit(f"{stem}: unpacked differently by transformers")
    return dense


def forward(folder, case, build, logits_of):
    model = build(case)
    model.load_state_dict(dense_of(load_file(folder / "model.safetensors")))
    return logits_of(model)


def make(source, folder, case, build, logits_of, store, measure):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, value in load_file(source / "model.safetensors").items():
        if name.endswith(EXPERTS):
            tensors[name + "_blocks"], tensors[name + "_scales"] = pack(value)
        else:
            tensors[name] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": CONFIG}, indent=2, sort_keys=True) + "\n")
    logits = forward(folder, case, build, logits_of)
    store(folder, logits)
    n_params = sum(t.numel() for t in dense_of(tensors).values())
    model = build(case)
    model.load_state_dict(dense_of(tensors))
    return dict(name=folder.name, family="gpt_oss", architecture=config["architectures"][0], vocab_size=logits.shape[1],
                group=32, n_params=n_params, reference="transformers", **measure(case, model, logits),
                stored="experts in MXFP4")
