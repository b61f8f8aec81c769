#!/usr/bin/env python3
"""Records tests/golden/gguf: random blocks of every type and tiny models, with what the gguf package dequantizes them to and
the logits of a plain float64 forward pass.

Needs: numpy, gguf (recorded with 0.19.0, from PyPI).

  record_gguf_golden.py --out tests/golden/gguf

Recorded values are data of ours (seeded) in blocks of theirs; no weights of anyone else are in them.
"""
import argparse
import hashlib
import json
import pathlib
import struct

import gguf
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T

BLOCKS = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]
# Byte positions of the float16 numbers in a block, and how large a scale makes weights near 1.
HALVES = {T.Q4_0: ([0], 8), T.Q4_1: ([0, 2], 8), T.Q5_0: ([0], 16), T.Q5_1: ([0, 2], 16), T.Q8_0: ([0], 128),
          T.Q2_K: ([80, 82], 24), T.Q3_K: ([108], 64), T.Q4_K: ([0, 2], 256), T.Q5_K: ([0, 2], 512), T.Q6_K: ([208], 2048)}
# Recorded with a generator of their own, so that what was recorded before stays.
LATER = [T.IQ4_NL, T.IQ4_XS, T.MXFP4]
HALVES |= {T.IQ4_NL: ([0], 64), T.IQ4_XS: ([0], 2048), T.MXFP4: ([], 1)}
MINIMUMS = {T.Q4_1: 2, T.Q5_1: 2, T.Q2_K: 82, T.Q4_K: 2, T.Q5_K: 2}


def sha256_of(values):
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()


def random_blocks(rng, kind, rows, cols, size, any_sign):
    """uint8 [rows, bytes]: random bits, with finite float16 scales."""
    block, width = GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (rows * cols // block, width), dtype=np.uint8)
    places, codes = HALVES[kind]
    for at in places:
        scale = rng.uniform(0.5, 1.5, len(data)) * size / codes
        if any_sign:
            scale *= rng.choice([-1, 1], len(data))
        elif at == MINIMUMS.get(kind):  # centres the weights, so that a model of them behaves
            scale *= -codes / 2 if kind in (T.Q4_1, T.Q5_1) else (1.5 if kind == T.Q2_K else 7.5 if kind == T.Q4_K else 15.5)
        data[:, at:at + 2] = scale.astype("<f2").view(np.uint8).reshape(-1, 2)
    return data.reshape(rows, -1)


def record_blocks(rng, kinds):
    out = []
    for kind in kinds:
        block, _ = GGML_QUANT_SIZES[kind]
        rows, cols = (3, 1024) if block == 256 else (3, 160)
        data = random_blocks(rng, kind, rows, cols, 1.0, True)
        if kind == T.MXFP4:  # any exponent but 255, which stands for NaN
            data[:, ::GGML_QUANT_SIZES[kind][1]] = rng.integers(0, 255, (rows, cols // block), dtype=np.uint8)
        values = gguf.quants.dequantize(data, kind)
        out.append({"type": kind.name, "rows": rows, "cols": cols, "blocks": data.tobytes().hex(), "sha256": sha256_of(values)})
    return out


def put_back(values, heads):
    """The inverse of the converter's permutation of query and key rows."""
    rows = values.shape[0]
    return values.reshape(heads, rows // heads // 2, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


class Model:
    def __init__(self, rng, path, *, hidden, ffn, heads, kv, width, layers, types, version, factors):
        self.rng, self.path, self.hidden, self.ffn, self.heads, self.kv, self.width = rng, path, hidden, ffn, heads, kv, width
        self.layers, self.types, self.version, self.factors = layers, types, version, factors
        self.pieces = ["<unk>", "<s>", "</s>", "\u2581"] + [chr(c) for c in range(ord("a"), ord("z") + 1)] + \
            ["th", "\u2581th", "\u2581the", "an", "and", "\u2581and", "in", "ing", "er", "\u2581a", "re", "on", "at", "en", "or",
             "\u00e9", "\u4e16", ".,"]
        self.weights, self.record = {}, {}

    def tensor(self, writer, name, ours, kind, rows, cols, permuted=0):
        size = cols ** -0.5 if cols else 1
        if cols == 0:
            values = self.rng.uniform(0.5, 1.5, rows).astype(np.float32)
            writer.add_tensor(name, values)
        elif kind in HALVES:
            data = random_blocks(self.rng, kind, rows, cols, 1.7 * size, False)
            values = gguf.quants.dequantize(data, kind)
            writer.add_tensor(name, data, raw_dtype=kind)
        else:
            plain = (self.rng.standard_normal((rows, cols)) * size).astype(np.float32)
            data = gguf.quants.quantize(plain, kind)
            values = gguf.quants.dequantize(data, kind) if kind != T.F32 else plain
            writer.add_tensor(name, data, raw_dtype=kind)
        values = put_back(values, permuted) if permuted else values
        self.weights[ours] = values.astype(np.float64)
        self.record[ours] = {"type": kind.name if cols else "F32", "shape": list(values.shape), "sha256": sha256_of(values)}

    def write(self):
        w = gguf.GGUFWriter(self.path, "llama")
        t = self.types
        w.add_context_length(64)
        w.add_embedding_length(self.hidden)
        w.add_feed_forward_length(self.ffn)
        w.add_block_count(self.layers)
        w.add_head_count(self.heads)
        w.add_head_count_kv(self.kv)
        w.add_key_length(self.width)
        w.add_value_length(self.width)
        w.add_rope_dimension_count(self.width)
        w.add_rope_freq_base(5000.0)
        w.add_layer_norm_rms_eps(1e-5)
        w.add_file_type(t["file"])
        w.add_quantization_version(2)
        w.add_tokenizer_model("llama")
        w.add_token_list(self.pieces)
        w.add_token_scores([0.0] * 3 + [-float(len(self.pieces) + i if len(p) == 1 else 2 * i)
                                        for i, p in enumerate(self.pieces[3:])])
        w.add_token_types([2, 3, 3] + [1] * (len(self.pieces) - 3))
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_add_bos_token(True)
        vocab = len(self.pieces)
        self.tensor(w, "token_embd.weight", "model.embed_tokens", t["embed"], vocab, self.hidden)
        for i in range(self.layers):
            a, b = f"blk.{i}.", f"model.layers.{i}."
            q, k = self.heads * self.width, self.kv * self.width
            self.tensor(w, a + "attn_norm.weight", b + "input_layernorm", T.F32, self.hidden, 0)
            self.tensor(w, a + "attn_q.weight", b + "self_attn.q_proj", t["q"], q, self.hidden, self.heads)
            self.tensor(w, a + "attn_k.weight", b + "self_attn.k_proj", t["k"], k, self.hidden, self.kv)
            self.tensor(w, a + "attn_v.weight", b + "self_attn.v_proj", t["v"], k, self.hidden)
            self.tensor(w, a + "attn_output.weight", b + "self_attn.o_proj", t["o"], self.hidden, q)
            self.tensor(w, a + "ffn_norm.weight", b + "post_attention_layernorm", T.F32, self.hidden, 0)
            self.tensor(w, a + "ffn_gate.weight", b + "mlp.gate_proj", t["gate"], self.ffn, self.hidden)
            self.tensor(w, a + "ffn_up.weight", b + "mlp.up_proj", t["up"], self.ffn, self.hidden)
            self.tensor(w, a + "ffn_down.weight", b + "mlp.down_proj", t["down"], self.hidden, self.ffn)
        self.tensor(w, "output_norm.weight", "model.norm", T.F32, self.hidden, 0)
        if "head" in t:
            self.tensor(w, "output.weight", "lm_head", t["head"], vocab, self.hidden)
        if self.factors:
            w.add_tensor("rope_freqs.weight", np.array(self.factors, dtype=np.float32))
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        data = bytearray(self.path.read_bytes())
        data[4:8] = struct.pack("<I", self.version)  # versions 2 and 3 have one layout on little-endian machines
        self.path.write_bytes(data)

    def rope(self, x):
        """x [tokens, heads, width]: pairs (i, i + half) turn."""
        half = self.width // 2
        frequency = 5000.0 ** (-np.arange(half) / half) / np.array(self.factors or [1.0] * half)
        angle = np.arange(len(x))[:, None] * frequency[None]
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def logits(self, ids):
        w, n = self.weights, len(ids)

        def norm(x, name):
            return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w[name]

        x = w["model.embed_tokens"][ids]
        for i in range(self.layers):
            b = f"model.layers.{i}."
            h = norm(x, b + "input_layernorm")
            q = self.rope((h @ w[b + "self_attn.q_proj"].T).reshape(n, self.heads, self.width))
            k = self.rope((h @ w[b + "self_attn.k_proj"].T).reshape(n, self.kv, self.width))
            v = (h @ w[b + "self_attn.v_proj"].T).reshape(n, self.kv, self.width)
            k, v = (np.repeat(m, self.heads // self.kv, axis=1) for m in (k, v))
            s = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(self.width)
            s = np.where(np.tril(np.ones((n, n), bool)), s, -np.inf)
            s = np.exp(s - s.max(-1, keepdims=True))
            o = np.einsum("hij,jhd->ihd", s / s.sum(-1, keepdims=True), v).reshape(n, -1)
            x = x + o @ w[b + "self_attn.o_proj"].T
            h = norm(x, b + "post_attention_layernorm")
            g = h @ w[b + "mlp.gate_proj"].T
            x = x + (g / (1 + np.exp(-g)) * (h @ w[b + "mlp.up_proj"].T)) @ w[b + "mlp.down_proj"].T
        return norm(x, "model.norm") @ w["lm_head" if "lm_head" in w else "model.embed_tokens"].T


def record_model(rng, folder, name, **shape):
    model = Model(rng, folder / name, **shape)
    model.write()
    ids = [1] + [int(i) for i in rng.integers(3, len(model.pieces), 11)]
    logits = model.logits(ids)
    return {"file": name, "tensors": model.record, "ids": ids, "logits": [float(f"{v:.9g}") for v in logits[-1]]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20)
    golden = {"blocks": record_blocks(rng, BLOCKS) + record_blocks(np.random.default_rng(20), LATER), "models": []}
    golden["models"].append(record_model(
        rng, folder, "k.gguf", hidden=256, ffn=64, heads=2, kv=1, width=32, layers=1, version=3,
        types={"file": 15, "embed": T.Q6_K, "q": T.Q5_K, "k": T.Q6_K, "v": T.Q4_K, "o": T.Q4_1, "gate": T.Q2_K, "up": T.Q3_K,
               "down": T.Q5_1},
        factors=[1.0] * 4 + [1.5, 2.0, 3.0, 4.0] + [8.0] * 8))
    golden["models"].append(record_model(
        rng, folder, "legacy.gguf", hidden=64, ffn=96, heads=4, kv=2, width=16, layers=2, version=2, factors=None,
        types={"file": 2, "embed": T.Q4_0, "q": T.Q4_0, "k": T.Q5_0, "v": T.Q8_0, "o": T.F16, "gate": T.BF16, "up": T.F32,
               "down": T.Q4_1, "head": T.Q8_0}))
    (folder / "golden.json").write_text(json.dumps(golden, indent=0) + "\n")


if __name__ == "__main__":
    main()
