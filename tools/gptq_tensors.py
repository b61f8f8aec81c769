"""Tensors of the gptq and gptq_v2 layouts back to weights, by numpy alone. Needs numpy, torch."""
import numpy as np
import torch


def unpack(words, bits, count):
    """Words of 32 bits to `count` fields along the last axis: field k stands at bit k * bits of the stream."""
    raw = np.ascontiguousarray(words.astype(np.uint32)).view(np.uint8)
    stream = np.unpackbits(raw, axis=-1, bitorder="little").reshape(*words.shape[:-1], -1)
    fields = stream[..., : count * bits].reshape(*words.shape[:-1], count, bits)
    return (fields.astype(np.int64) << np.arange(bits)).sum(-1)


def dequantize_gptq(tensors, module, config):
    """[out, in] in float32: scale[g, n] * (code - zero), zeros stored minus one in v1."""
    bits = config["bits"]
    qweight, qzeros, scales, g_idx = (tensors[f"{module}.{part}"].numpy() for part in ("qweight", "qzeros", "scales", "g_idx"))
    n_in, n_out = g_idx.shape[0], scales.shape[1]
    codes = unpack(qweight.T, bits, n_in)
    zeros = unpack(qzeros, bits, n_out)
    if config["checkpoint_format"] == "gptq":
        zeros = zeros + 1
    return torch.from_numpy((scales.astype(np.float32)[g_idx] * (codes.T - zeros[g_idx]).astype(np.float32)).T.copy())
