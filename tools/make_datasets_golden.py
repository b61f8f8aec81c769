#!/usr/bin/env python3
"""Writes tests/golden/datasets: small invented data files, a tokenizer of single bytes, and golden.json with what the
definitions of the field make of them, computed here without a line of the C code.

Needs: Python 3.9 or newer, its standard library alone. Run: python3 tools/make_datasets_golden.py
"""
import array
import hashlib
import json
import os
import random

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden", "datasets")
BOS, BYTE0, SPACE = 1, 3, 259
WORDS = "ranu mikel o tavi sorra den, lipa \u00e9tu na\u00efve \u6f22\u5b57 \U0001f600 gol@-@da ' unk N bre".split()


def encode(text):
    """BOS, then one id a byte; a space (and the one put before the text) is the piece U+2581."""
    ids = [BOS, SPACE]
    for c in text:
        ids += [SPACE] if c in " \u2581" else [BYTE0 + b for b in c.encode()]
    return ids


def digest(ids):
    return hashlib.sha256(array.array("i", ids).tobytes()).hexdigest()


def sentence(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def write(name, data):
    path = os.path.join(OUT, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def wiki(rng, articles):
    lines = []
    for _ in range(articles):
        lines += [" \n", f" = {sentence(rng, 2)} = \n", " \n", f" {sentence(rng, 30)} . \n", " \n"]
    return "".join(lines)


def rows_wikitext(name):
    """The rows of the Hugging Face loader: a line with its newline, or the empty string."""
    with open(os.path.join(OUT, name), encoding="utf-8") as f:
        return [line if line.strip() else "" for line in f]


def rows_ptb(name):
    with open(os.path.join(OUT, name), encoding="utf-8") as f:
        return [line.strip() for line in f]


def documents(name):
    with open(os.path.join(OUT, name), encoding="utf-8") as f:
        return [json.loads(line)["text"] for line in f if line.strip()]


def draw_text(ids, n, seqlen, seed):
    """datautils.py: randint(0, T - seqlen - 1)."""
    random.seed(seed)
    return [random.randint(0, len(ids) - seqlen - 1) for _ in range(n)]


def draw_documents(docs, n, seqlen, seed):
    """datautils.py's loop; a document of exactly seqlen tokens is taken whole, without a draw."""
    random.seed(seed)
    drawn = []
    while len(drawn) < n:
        i = random.randint(0, len(docs) - 1)
        ids = encode(docs[i])
        if len(ids) < seqlen:
            continue
        start = 0 if len(ids) == seqlen else random.randint(0, len(ids) - seqlen - 1)
        drawn.append((i, start, ids[start:start + seqlen]))
    return drawn


def cut_gptq(ids, n, _):
    return [[i * n, n, 1, n] for i in range(len(ids) // n)]


def cut_llamacpp(ids, n, _):
    return [[i * n, n, n // 2 + 1, n] for i in range(len(ids) // n)]


def cut_strided(ids, n, stride):
    """The loop of the Hugging Face guide; targets are scored when something stands before them in the window."""
    windows, previous_end = [], 0
    for begin in range(0, len(ids), stride):
        end = min(begin + n, len(ids))
        first = max(1, previous_end - begin)
        if first < end - begin:
            windows.append([begin, end - begin, first, end - begin])
        previous_end = end
        if end == len(ids):
            break
    return windows


def main():
    rng = random.Random(20240229)
    write("wikitext2/wiki.test.raw", wiki(rng, 6))
    # Every line end that Python knows, a line without one, white space that only Unicode calls so.
    write("wikitext2/wiki.train.raw", wiki(rng, 4) + "a\r\nb\rc\n\r\n \t\n\u3000\u00a0\n\u2003x\u2028\n \x1c\n\n" + wiki(rng, 4) + "end")
    for split, n in (("train", 40), ("valid", 15), ("test", 15)):
        lines = [f" {sentence(rng, rng.randint(3, 12))} \n" for _ in range(n)]
        write(f"ptb/ptb.{split}.txt", "".join(lines) + "\u2003\tcut\u00a0off \x1f\r\n\n\x85 z")

    seqlen = 64
    for split, n in (("train", 40), ("validation", 30)):
        texts = [sentence(rng, rng.randint(1, 40)) for _ in range(n)]
        texts[3] = texts[3] + '\n"quoted" \\u0000 \\ tab\t/'
        texts[7] = "x" * (seqlen - 2)  # exactly seqlen tokens
        lines = [json.dumps({"url": "u", "text": t}, ensure_ascii=i % 2 == 0) for i, t in enumerate(texts)]
        lines[5] = "  " + lines[5] + " \r"
        lines.insert(9, "")
        write(f"c4/c4-{split}.sample.jsonl", "\n".join(lines) + ("\n" if split == "train" else ""))

    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{b:02X}>": BYTE0 + b for b in range(256)}, "\u2581": SPACE}
    special = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True} for i, t in enumerate(("<unk>", "<s>", "</s>"))]
    write("tokenizer.json", json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                    {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "vocab": vocab, "merges": []},
    }) + "\n")

    validation, train = documents("c4/c4-validation.sample.jsonl"), documents("c4/c4-train.sample.jsonl")
    texts = {
        "wikitext2": encode("\n\n".join(rows_wikitext("wikitext2/wiki.test.raw"))),
        "ptb": encode("\n\n".join(rows_ptb("ptb/ptb.valid.txt"))),
        "ptb-new": encode(" ".join(rows_ptb("ptb/ptb.test.txt"))),
        "c4": sum((ids for _, _, ids in draw_documents(validation, 256, seqlen, 0)), []),
        "c4-new": encode(" ".join(validation[:1100]))[:256 * seqlen],
    }
    with open(os.path.join(OUT, "wikitext2/wiki.test.raw"), newline="", encoding="utf-8") as f:
        raw_wiki = encode(f.read())
    with open(os.path.join(OUT, "ptb/ptb.valid.txt"), newline="", encoding="utf-8") as f:
        raw_ptb = encode(f.read())
    raw = {"wikitext2": raw_wiki, "ptb": raw_ptb, "c4": encode("\n".join(validation)), "c4-new": encode("\n".join(validation))}

    train_texts = {
        "wikitext2": encode("\n\n".join(rows_wikitext("wikitext2/wiki.train.raw"))),
        "ptb": encode("\n\n".join(rows_ptb("ptb/ptb.train.txt"))),
        "ptb-new": encode(" ".join(rows_ptb("ptb/ptb.train.txt"))),
    }
    calibration = []
    for seed in (0, 3, 2**40 + 5):
        for name, ids in train_texts.items():
            starts = draw_text(ids, 12, seqlen, seed)
            calibration.append({"dataset": name, "seed": seed, "seqlen": seqlen, "starts": starts, "documents": [-1] * 12,
                                "tokens": len(ids),
                                "sha256": digest(sum((ids[s:s + seqlen] for s in starts), []))})
        for name in ("c4", "c4-new"):
            drawn = draw_documents(train, 40, seqlen, seed)
            calibration.append({"dataset": name, "seed": seed, "seqlen": seqlen, "starts": [s for _, s, _ in drawn],
                                "documents": [d for d, _, _ in drawn], "tokens": 40 * seqlen,
                                "sha256": digest(sum((ids for _, _, ids in drawn), []))})
    assert any(7 in c["documents"] for c in calibration), "the document of exactly seqlen tokens must be drawn"

    protocols = []
    for name, ids in texts.items():
        for protocol, cut, n, stride in (("gptq-64", cut_gptq, 64, 64), ("strided-64-32", cut_strided, 64, 32),
                                         ("strided-64-48", cut_strided, 64, 48), ("strided-64-64", cut_strided, 64, 64)):
            windows = cut(ids, n, stride)
            protocols.append({"dataset": name, "protocol": protocol, "tokens": len(ids), "sha256": digest(ids),
                              "count": len(windows), "scored": sum(w[3] - w[2] for w in windows),
                              "first": windows[:2], "last": windows[-1]})
    for name, ids in raw.items():
        windows = cut_llamacpp(ids, 64, 64)
        protocols.append({"dataset": name, "protocol": "llamacpp-64", "tokens": len(ids), "sha256": digest(ids),
                          "count": len(windows), "scored": sum(w[3] - w[2] for w in windows), "first": windows[:2],
                          "last": windows[-1]})
    write("golden.json", json.dumps({"protocols": protocols, "calibration": calibration}) + "\n")


if __name__ == "__main__":
    main()
