#!/usr/bin/env python3
"""Writes tests/golden/parquet/: small Parquet files by pyarrow, which tests/test_parquet.c reads, and rows.json, the rows
that they hold; and the texts of tests/golden/datasets/ as the hub has them in Parquet. Recorded with pyarrow 26.0.1.

  pip install pyarrow==26.0.1
  tools/make_parquet_golden.py                      # writes them
  tools/make_parquet_golden.py BENCH MODEL DATA     # holds BENCH's ids of DATA's whole texts against those of their Parquet form
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq

# name, the file, the hub's path, its rows: as the loaders Salesforce/wikitext and ptb_text_only make them of the file
texts = [
    ("wikitext2", "wikitext2/wiki.test.raw", "wikitext-2-raw-v1/test-00000-of-00001.parquet", "text",
     lambda line: "" if not line.strip() else line),
    ("ptb", "ptb/ptb.valid.txt", "penn_treebank/validation/0000.parquet", "sentence", str.strip),
    ("ptb-new", "ptb/ptb.test.txt", "penn_treebank/test/0000.parquet", "sentence", str.strip),
]


def write_text(source, target, column, row):
    with open(source, encoding="utf-8", newline="\n") as f:
        rows = [row(line) for line in f]
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: rows}), target, compression="snappy", row_group_size=1000)


def check(bench, model, data):
    for name, file, path, column, row in texts:
        source = pathlib.Path(data) / file
        if not source.exists():
            print("skipped:", source, "is not there")
            continue
        with tempfile.TemporaryDirectory() as folder:
            write_text(source, pathlib.Path(folder) / path, column, row)
            answers = []
            for where in (data, folder):
                done = subprocess.run([bench, "tokenize", model, "--dataset", name, "--data", where, "--json"],
                                      capture_output=True, text=True, check=True)
                assert "not comparable" not in done.stderr, done.stderr
                answers.append(json.loads(done.stdout))
            same = answers[0]["sha256"] == answers[1]["sha256"] and answers[0]["count"] == answers[1]["count"]
            print(name, answers[0]["count"], "ids,", "equal" if same else f"NOT equal: {answers}")
            if not same:
                sys.exit(1)


if len(sys.argv) == 4:
    check(*sys.argv[1:])
    sys.exit()

out = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "parquet"
out.mkdir(parents=True, exist_ok=True)
for old in out.glob("*.parquet"):
    old.unlink()

words = ["", " = Title = \n", "one", "two words", "naïve 漢字 🙂", 'a "quote" \\ and a\ttab', "x" * 300]
rows = [words[(i * i + i // 3) % len(words)] + (str(i) if i % 5 == 0 else "") for i in range(100)]
(out / "rows.json").write_text(json.dumps(rows, ensure_ascii=False) + "\n")


def table(values, name="text", nullable=True):
    fields = [pa.field("id", pa.int64()), pa.field(name, pa.string(), nullable=nullable), pa.field("other", pa.list_(pa.string()))]
    ids = pa.array(range(len(values)), pa.int64())
    other = pa.array([[str(i)] * (i % 3) for i in range(len(values))], pa.list_(pa.string()))
    return pa.table([ids, pa.array(values, pa.string()), other], schema=pa.schema(fields))


def write(name, data, **options):
    pq.write_table(data, out / f"{name}.parquet", **options)


# What is read: every codec, encoding, page version and division into groups and pages.
for codec in ("none", "snappy", "gzip", "zstd"):
    for version in ("1.0", "2.0"):
        for dictionary in (False, True):
            name = f"ok-{codec}-{'dictionary' if dictionary else 'plain'}-v{version[0]}"
            write(name, table(rows), compression=codec, use_dictionary=dictionary, data_page_version=version)
write("ok-groups", table(rows), compression="snappy", row_group_size=37)
write("ok-pages", table(rows), compression="zstd", use_dictionary=False, data_page_size=256, write_batch_size=8)
write("ok-fallback", table(rows), compression="snappy", dictionary_pagesize_limit=200, write_batch_size=16)
write("ok-required", table(rows, nullable=False), compression="snappy", data_page_version="2.0")
write("ok-old-dictionary", table(rows), compression="snappy", version="1.0")
write("ok-sentence", table(rows, name="sentence"), compression="snappy")
write("ok-checksums", table(rows), compression="snappy", write_page_checksum=True)

# What is refused.
few = rows[:9]
write("bad-null", table(few[:4] + [None] + few[4:]))
write("bad-no-column", pa.table({"a": few, "b": few}))
write("bad-number", pa.table({"text": list(range(9))}))
write("bad-nested", pa.table({"text": [{"value": r} for r in few]}))
write("bad-list", pa.table({"text": [[r] for r in few]}))
write("bad-brotli", table(few), compression="brotli")
write("bad-lz4", table(few), compression="lz4")
write("bad-delta", table(few), use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
for _, file, path, column, row in texts:
    source = out.parent / "datasets" / file
    if source.exists():
        write_text(source, out / "datasets" / path, column, row)
print(sum(f.stat().st_size for f in out.rglob('*.*')), "bytes, pyarrow", pa.__version__)
