#!/usr/bin/env python3
"""Makes the seed corpus of fuzz_gguf: small files of every version, sound and hostile. Needs nothing but Python.

  make_gguf_corpus.py tests/fuzz/corpus/gguf
"""
import pathlib
import struct
import sys

KIND = {"u8": 0, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "str": 8, "arr": 9, "u64": 10, "f64": 12}
FORMAT = {"u8": "<B", "i16": "<h", "u32": "<I", "i32": "<i", "f32": "<f", "bool": "<B", "u64": "<Q", "f64": "<d"}


class File:
    def __init__(self, version=3, tensors=0, values=0):
        self.size = "<I" if version == 1 else "<Q"
        self.data = b"GGUF" + struct.pack("<I", version) + struct.pack(self.size, tensors) + struct.pack(self.size, values)

    def string(self, text):
        text = text.encode()
        return struct.pack(self.size, len(text)) + text

    def item(self, kind, value):
        return self.string(value) if kind == "str" else struct.pack(FORMAT[kind], value)

    def value(self, key, kind, value):
        self.data += self.string(key) + struct.pack("<I", KIND[kind]) + self.item(kind, value)
        return self

    def array(self, key, kind, values, count=None):
        self.data += self.string(key) + struct.pack("<II", KIND["arr"], KIND[kind])
        self.data += struct.pack(self.size, len(values) if count is None else count)
        self.data += b"".join(self.item(kind, v) for v in values)
        return self

    def info(self, name, ne, kind, offset):
        self.data += self.string(name) + struct.pack("<I", len(ne)) + b"".join(struct.pack(self.size, n) for n in ne)
        self.data += struct.pack("<IQ", kind, offset)
        return self

    def end(self, size, alignment=32):
        self.data += b"\0" * (-len(self.data) % alignment) + bytes(i * 7 & 0x7b for i in range(size))
        return self.data


def model(version, kind, block_bytes):
    """A llama of one block, 32 wide; `kind` takes 32 columns a block."""
    row = block_bytes
    names = ["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"]
    linears = ["token_embd", "blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v", "blk.0.attn_output", "blk.0.ffn_gate",
               "blk.0.ffn_up", "blk.0.ffn_down"]
    f = File(version, len(names) + len(linears) + 1, 15)
    f.value("general.architecture", "str", "llama").value("llama.context_length", "u32", 16)
    f.value("llama.embedding_length", "u32", 32).value("llama.feed_forward_length", "u64", 32)
    f.value("llama.block_count", "u32", 1).value("llama.attention.head_count", "u32", 2)
    f.value("llama.attention.head_count_kv", "i32", 2).value("llama.attention.layer_norm_rms_epsilon", "f32", 1e-5)
    f.value("llama.rope.freq_base", "f64", 10000).value("llama.rope.scaling.type", "str", "none")
    f.value("tokenizer.ggml.model", "str", "llama").value("tokenizer.ggml.add_bos_token", "bool", 1)
    f.array("tokenizer.ggml.tokens", "str", ["<unk>", "a", "\u2581"])
    f.array("tokenizer.ggml.scores", "f32", [0, -1, -2]).array("tokenizer.ggml.token_type", "i32", [2, 1, 1])
    at = 0
    for name in linears:
        rows = 3 if name == "token_embd" else 32
        f.info(name + ".weight", [32, rows], kind, at)
        at += (rows * row + 31) // 32 * 32
    for name in names:
        f.info(name + ".weight", [32], 0, at)
        at += 128
    f.info("rope_freqs.weight", [8], 0, at)
    return f.end(at + 32)


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    huge = 1 << 62
    files = {
        "valid_empty": File().end(0),
        "valid_model_v1": model(1, 0, 128),
        "valid_model_v2": model(2, 2, 18),
        "valid_model_v3": model(3, 7, 24),
        "valid_k_blocks": File(3, 5, 0).info("a", [256, 2], 10, 0).info("b", [256], 11, 192).info("c", [256, 1], 12, 320)
        .info("d", [256, 1], 13, 480).info("e", [256, 1], 14, 672).end(900),
        "valid_listed_type": File(3, 1, 0).info("a", [256], 23, 0).end(136),
        "hostile_version": File(4).end(0),
        "hostile_big_endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "hostile_counts": File(3, huge, huge).end(0),
        "hostile_string": File(3, 0, 1).data + struct.pack("<Q", huge) + b"key",
        "hostile_array": File(3, 0, 1).array("a", "u64", [], huge).end(64),
        "hostile_alignment": File(3, 0, 1).value("general.alignment", "u32", 0).end(0),
        "hostile_dims": File(3, 1, 0).info("a", [huge, huge], 0, 0).end(64),
        "hostile_offset": File(3, 1, 0).info("a", [8], 0, (1 << 64) - 32).end(64),
        "hostile_overlap": File(3, 2, 0).info("a", [16], 0, 0).info("b", [8], 0, 32).end(64),
        "hostile_type": File(3, 1, 0).info("a", [32], 31, 0).end(64),
        "hostile_nesting": File(3, 0, 1).array("a", "u8", []).data[:-12] + struct.pack("<IQ", 9, 1) * 9 + struct.pack("<IQ", 0, 0),
    }
    for name, data in files.items():
        (out / name).write_bytes(data)


if __name__ == "__main__":
    main()
