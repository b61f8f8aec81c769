#!/usr/bin/env python3
"""Writes tokenizer/unicode_table.h: where the Unicode tables of the reference libraries and of ours may differ.
usage: make_unicode_table.py > tokenizer/unicode_table.h

Needs Python's own unicodedata (14 or older tables), unicodedata2 16.0.0 in the directory $UNICODE16 and 17.0.0 in $UNICODE17, a later unicodedata2, and
tokenizers 0.23.3 (whose regular expressions are of Unicode 16, whose normalization is of Unicode 9 or so, and whose
punctuation is of Unicode 8); made with unicodedata2 16.0.0, 17.0.0 and 18.0.0."""
import json, os, subprocess, sys, unicodedata
sys.path.insert(0, os.environ["UNICODE16"])
import unicodedata2 as u16
from tokenizers import normalizers, pre_tokenizers, __version__ as tokenizers_version

assert u16.unidata_version == "16.0.0" and unicodedata.unidata_version <= "14.0.0", "see the head of this script"
LATEST = '''
import unicodedata2 as u, json
points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
print(json.dumps({"version": u.unidata_version, "gc": [u.category(chr(c)) for c in points],
  "decomposed": [c for c in points if u.normalize("NFKD", chr(c)) != chr(c)],
  "low": [c for c in points if 0 < u.combining(chr(c)) < 240]}))'''
environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
latest = json.loads(subprocess.check_output([sys.executable, "-c", LATEST], env=environment))
points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

# One character a category and length that every table since Unicode 9 agrees on.
STAND_INS = {
    3: dict(Lu=0x1E00, Ll=0x1E01, Lt=0x1F88, Lm=0x1D2C, Lo=0xA000, Mn=0x1AB0, Mc=0x0903, Me=0x1ABE, Nd=0x0966, Nl=0x2160,
            No=0x2460, Pc=0x203F, Pd=0x2010, Ps=0x2045, Pe=0x2046, Pi=0x2E02, Pf=0x2E03, Po=0x2020, Sm=0x2200, Sc=0x20AC,
            Sk=0x1FBD, So=0x2500, Cf=0x200B, Cn=0x2FE0),
    4: dict(Lu=0x10400, Ll=0x10428, Lm=0x16B40, Lo=0x10000, Mn=0x101FD, Mc=0x11000, Nd=0x104A0, Nl=0x10140, No=0x10107,
            Pd=0x10EAD, Po=0x10100, Sm=0x1D6C1, Sk=0x1F3FB, So=0x1F600, Cf=0x110BD, Cn=0xEFFFE),
    2: dict(Cn=0x0378, Lo=0x05D0, Mn=0x0300, Lu=0x0100, Ll=0x0101),
}
length = lambda c: len(chr(c).encode())

def ranges(pairs):
    out = []
    for first, value in pairs:
        if out and out[-1][1] == first - 1 and out[-1][2] == value: out[-1][1] = first
        else: out.append([first, first, value])
    return out

stand = []
for c, later in zip(points, latest["gc"]):
    now = u16.category(chr(c))
    if c == 0x180E:  # PCRE2's \s has it, the reference's has not
        stand.append((c, 0x200B))
    elif not unicodedata.category(chr(c)) == now == later:
        han = unicodedata.name(chr(c), u16.name(chr(c), "")).startswith("CJK UNIFIED")
        stand.append((c, 0x20000 if han else STAND_INS[length(c)][now]))
nfkd, nfd = normalizers.NFKD(), normalizers.NFD()
low = set(latest["low"])  # combining classes below that of U+0345: they change places with it
def is_unknown(c):
    if c in low: return nfd.normalize_str("\u0345" + chr(c)) == "\u0345" + chr(c)
    return c in decomposed and nfkd.normalize_str(chr(c)) == chr(c)
decomposed = set(latest["decomposed"])
unknown = [c for c in points if (c in low or c in decomposed) and is_unknown(c)]
punctuation = pre_tokenizers.Punctuation()
is_punctuation = lambda c: len(punctuation.pre_tokenize_str("a" + chr(c) + "a")) > 1
flipped = [c for c in points if c >= 0x80 and is_punctuation(c) != (u16.category(chr(c))[0] == "P")]

def table(name, rows, what, value):
    print(f"/* {what} */\nstatic const {'stand_in' if value else 'range'} {name}[] = {{")
    line = "   "
    for first, last, v in rows:
        cell = f" {{0x{first:X}, 0x{last:X}, 0x{v:X}}}," if value else f" {{0x{first:X}, 0x{last:X}}},"
        if len(line) + len(cell) > 108: print(line); line = "   "
        line += cell
    print(line + "\n};\n")

print(f"""/* Made by tools/make_unicode_table.py from unicodedata2 16.0.0 and {latest['version']} and tokenizers {tokenizers_version}: where
   the tables of the reference and of whatever utf8proc and PCRE2 are installed may differ. */
#pragma once

#include <stdint.h>

typedef struct range {{
    uint32_t first, last;
}} range;
typedef struct stand_in {{
    uint32_t first, last, instead;
}} stand_in;
""")
print("/* clang-format off */")
table("stand_ins", ranges(stand), "Characters whose category is not the same since Unicode 14, and one that has had the category of Unicode 16\n   all along, of as many bytes in UTF-8.", True)
table("unnormalized", [r for r in ranges([(c, 0) for c in unknown])], "Characters that the reference's normalization, of an old Unicode, leaves as they are.", False)
seventeen = json.loads(subprocess.check_output([sys.executable, "-c", LATEST], env={**environment, "PYTHONPATH": os.environ["UNICODE17"]}))
assert seventeen["version"] == "17.0.0"
table("newer_extends", ranges([(c, 0) for c, g in zip(points, seventeen["gc"]) if g in ("Mn", "Me") and unicodedata.category(chr(c)) == "Cn"]),
      "Marks of Unicode 15 to 17: they extend a grapheme cluster.", False)
def flips(normalizer, categories):
    return ranges([(c, 0) for c in points if (normalizer.normalize_str("a" + chr(c)) == "a") != (u16.category(chr(c)) in categories)
                   and normalizers.NFD().normalize_str(chr(c)) == chr(c)])
table("flipped_marks", flips(normalizers.StripAccents(), ("Mn", "Mc", "Me")), "Characters whose being a mark StripAccents sees otherwise than Unicode 16.", False)
bert = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
table("flipped_nonspacing", flips(bert, ("Mn",)), "Characters whose being a nonspacing mark BertNormalizer sees otherwise than Unicode 16.", False)
lower = normalizers.Lowercase()
def lowers():
    out = []
    for c in points:
        low = lower.normalize_str(chr(c))
        if len(low) == 1 and low != chr(c).lower(): out.append((c, ord(low)))
    return out
rows = []
for c, low in lowers():
    if rows and rows[-1][1] == c - 1 and low - c == rows[-1][2] - rows[-1][0]: rows[-1][1] = c
    else: rows.append([c, c, low])
table("newer_lower", rows, "Lower case since Unicode 14: the first's; the others of a range keep their distance.", True)
table("flipped_punctuation", ranges([(c, 0) for c in flipped]), "Characters whose being punctuation the reference sees otherwise than Unicode 16.", False)
print("/* clang-format on */")
