#!/usr/bin/env python3
"""Records tests/golden/tokenizer_formats.json: small SentencePiece models (Unigram and BPE, with a character map and without), a tekken.json
and a vocab.json with merges.txt, with the ids that sentencepiece, tiktoken and tokenizers give. usage: record_tokenizer_formats.py TEXT >
tests/golden/tokenizer_formats.json, where TEXT is a plain text to train on. With --wholes SHARED it prints
tests/golden/tokenizer_wholes.json. Made with sentencepiece 0.2.3, tiktoken 0.12, tokenizers 0.23.3."""
import base64, hashlib, json, os, struct, sys, tempfile
import sentencepiece, tiktoken, tokenizers

TEXTS = ["", " ", "Hello world", "  two  spaces ", "the unknown and the known", "ﬁne Ａ １ é e\u0301", "日本語 ☃ 👍", "a<sep>b <sep> c", "New York Newyork", "====", "===x===",
         "\n\tlines\n", "1234 56", "don't I'LL", "\u2581x \u2581", "xyzzy" * 12, "e" * 40, " " * 9, "…“”", "tab\tNUL\u0001"]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

def sentencepiece_case(name, text, **options):
    folder = tempfile.mkdtemp()
    sentencepiece.SentencePieceTrainer.train(input=text, model_prefix=f"{folder}/m", vocab_size=420, minloglevel=2, input_sentence_size=3000, character_coverage=0.9995,
                                             user_defined_symbols=["<sep>", "New York", "=="], shuffle_input_sentence=False, num_threads=1, **options)
    data = open(f"{folder}/m.model", "rb").read()
    t = sentencepiece.SentencePieceProcessor(model_proto=data)
    return dict(name=name, kind="model", data=data.hex(), ids=[t.encode(x) for x in TEXTS])

def small_ranks():
    ranks = {bytes([b]): b for b in range(256)}
    for piece in [b"th", b"the", b" the", b" w", b"or", b"wor", b"ld", b" world", b"He", b"ll", b"Hello", b"ee", b"eeee", b"12", b"\xe6\x97", b"\xe6\x97\xa5", b"  ", b"    "]:
        ranks[piece] = len(ranks)
    return ranks

def tekken_case():
    ranks = small_ranks()
    pattern, special = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+", 22
    document = dict(config=dict(pattern=pattern, num_vocab_tokens=len(ranks), default_vocab_size=len(ranks) + special, default_num_special_tokens=special, version="v3"),
                    vocab=[dict(rank=r, token_bytes=base64.b64encode(b).decode(), token_str=None) for b, r in ranks.items()])
    t = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return dict(name="tekken", kind="ranks", data=json.dumps(document).encode().hex(), ids=[[i + special for i in t.encode_ordinary(x)] for x in TEXTS])

def merges_case(name, kind, nfc):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "w"), ("l", "l"), ("Ġ", "Ġ"), ("Ã", "©"), ("1", "2")]
    vocab = {p: i for i, p in enumerate(alphabet + [a + b for a, b in merges])}
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    if nfc: t.normalizer = normalizers.NFC()
    qwen = GPT2 if not nfc else r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex(qwen), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    lines = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)
    return {"name": name, "kind": "merges", "class": kind, "data": json.dumps(vocab).encode().hex(), "merges": lines.encode().hex(), "ids": [t.encode(x).ids for x in TEXTS]}

def wholes(shared):
    rows = []
    for name in ("olmo-dolma2", "t5-small", "gpt-neox", "falcon", "claude-v2", "phi-2", "roberta-base", "llama2"):
        path = f"{shared}/tokenizers/{name}/tokenizer.json"
        if not os.path.exists(path): continue
        t = tokenizers.Tokenizer.from_file(path); t.no_truncation(); t.no_padding()
        for text in ("wikitext2/wiki.test.raw", "ptb/ptb.test.txt"):
            ids = t.encode(open(f"{shared}/data/{text}", encoding="utf-8", newline="").read(), add_special_tokens=False).ids
            digest = hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()
            rows.append(dict(tokenizer=f"{name}/tokenizer.json", text=text, count=len(ids), sha256=digest))
    print(json.dumps(rows, indent=1))

def main():
    if sys.argv[1] == "--wholes": return wholes(sys.argv[2])
    rules = tempfile.NamedTemporaryFile("w", suffix=".tsv", delete=False)
    for a, b in [("ﬁ", "fi"), ("Ａ", "A"), ("１", "1"), ("é", "e"), ("e\u0301", "e"), ("…", "..."), ("\t", " "), ("\n", " "), ("\u0001", "")]:
        rules.write(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n")
    rules.close()
    cases = []
    for kind in ("unigram", "bpe"):
        for fallback in (False, True):
            cases.append(sentencepiece_case(f"{kind}{' bytes' if fallback else ''}", sys.argv[1], model_type=kind, byte_fallback=fallback, normalization_rule_name="identity", remove_extra_whitespaces=not fallback))
        cases.append(sentencepiece_case(f"{kind} mapped", sys.argv[1], model_type=kind, normalization_rule_tsv=rules.name))
    cases += [tekken_case(), merges_case("gpt2 merges", "GPT2Tokenizer", False), merges_case("qwen2 merges", "Qwen2Tokenizer", True)]
    json.dump(dict(made_with=f"sentencepiece {sentencepiece.__version__}, tiktoken {tiktoken.__version__}, tokenizers {tokenizers.__version__}", texts=[t.encode().hex() for t in TEXTS], cases=cases), sys.stdout, separators=(",", ":"))
    print()

main()
