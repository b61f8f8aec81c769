#!/usr/bin/env python3
"""Makes tests/golden/tokenizer_classes.json: ids by transformers of directories with vocab.json and merges.txt, where the class, and
what lies beside, say which tokens are special. Made with transformers 5.24.0, tokenizers 0.23.3.
usage: record_tokenizer_classes.py OUT.json"""
import json, os, sys, tempfile
import tokenizers, transformers

FILES = {"config": "config.json", "tokenizer": "tokenizer_config.json", "map": "special_tokens_map.json"}
CASES = [{"config": {"model_type": name}} for name in ("gpt2", "opt", "gpt_neox", "qwen2", "codegen")] + [
    {"tokenizer": {"tokenizer_class": name}} for name in ("GPT2Tokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer")] + [
    {"tokenizer": {"tokenizer_class": "GPT2Tokenizer", "unk_token": None, "bos_token": "<s>", "eos_token": "</s>"}},
    {"tokenizer": {"tokenizer_class": "GPT2Tokenizer"}, "map": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "</s>"}},
    {"tokenizer": {"tokenizer_class": "GPT2Tokenizer"}, "map": {"bos_token": "<s>"}},
    {"tokenizer": {"tokenizer_class": "Qwen2Tokenizer", "unk_token": None, "eos_token": None, "pad_token": None}}]
TEXTS = ["hello<|endoftext|>hell", "a<s>b</s>c <|padding|>", "<|endoftext|>\u0338e\u0301"]
MERGES = ["h e", "l l", "he ll"]

def main():
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printed]
    vocab = {chr(256 + rest.index(b) if b in rest else b): b for b in range(256)}  # GPT-2's alphabet of bytes
    for piece in [m.replace(" ", "") for m in MERGES] + ["<|endoftext|>", "<s>", "</s>", "<|padding|>"]: vocab[piece] = len(vocab)
    for case in CASES:
        with tempfile.TemporaryDirectory() as d:
            json.dump(vocab, open(os.path.join(d, "vocab.json"), "w"))
            with open(os.path.join(d, "merges.txt"), "w") as f: f.write("#version: 0.2\n" + "\n".join(MERGES) + "\n")
            for key, name in FILES.items():
                if key in case: json.dump(case[key], open(os.path.join(d, name), "w"))
            t = transformers.AutoTokenizer.from_pretrained(d)
        case["ids"] = [t.backend_tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
        case["bos"], case["eos"] = (-1 if i is None else i for i in (t.bos_token_id, t.eos_token_id))
    out = {"made_by": "tools/record_tokenizer_classes.py", "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
           "vocab": vocab, "merges": MERGES, "texts": TEXTS, "cases": CASES}
    json.dump(out, open(sys.argv[1], "w"), separators=(",", ":"))

if __name__ == "__main__":
    main()
