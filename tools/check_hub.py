#!/usr/bin/env python3
"""What `bench fetch` brings is found by Python's huggingface_hub offline, and the other way round. No network: a hub on the
loopback serves one small repository. Checked with huggingface_hub 2.4.0.

  pip install huggingface_hub==2.4.0
  tools/check_hub.py [build/bin/bench]
"""
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

bench = sys.argv[1] if len(sys.argv) > 1 else "build/bin/bench"
commit = "0123456789abcdef0123456789abcdef01234567"
demo = pathlib.Path(bench).resolve().parent.parent / "share" / "quantbench" / "demo"
names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
files = {name: (demo / name).read_bytes() for name in names}
requests = []


def etag(name):
    data = files[name]
    if name.endswith(".safetensors"):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        requests.append(f"{self.command} {path}")
        name = path.rsplit("/", 1)[1]
        if "/tree/" in path:
            entries = []
            for n, data in files.items():
                entry = {"type": "file", "path": n, "size": len(data), "oid": etag(n)[:40]}
                if n.endswith(".safetensors"):
                    entry["lfs"] = {"oid": etag(n), "size": len(data), "pointerSize": 134}
                entries.append(entry)
            return self.answer(200, json.dumps(entries).encode(), Content_Type="application/json")
        if path.startswith("/api/"):
            info = {"id": "org/demo", "sha": commit, "private": False, "gated": False, "tags": [], "downloads": 0, "likes": 0,
                    "siblings": [{"rfilename": n} for n in names]}
            return self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
        if name not in files:
            return self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        return self.answer(200, files[name], X_Repo_Commit=commit, ETag=f'"{etag(name)}"')

    do_HEAD = do_GET


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
scratch = tempfile.TemporaryDirectory()
base = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
base["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"


def variables(cache, offline):
    return {**base, "HF_HUB_CACHE": f"{scratch.name}/{cache}", **({"HF_HUB_OFFLINE": "1"} if offline else {})}


def run(words, cache, offline=False):
    done = subprocess.run(words, env=variables(cache, offline), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{words}: exit {done.returncode}\n{done.stderr}")
    return done.stdout.strip().splitlines()[-1]


def python(code, cache, offline=False):
    return run([sys.executable, "-c", "import huggingface_hub as h\n" + code], cache, offline)


def same(folder):
    for n, data in files.items():
        if (pathlib.Path(folder) / n).read_bytes() != data:
            sys.exit(f"{folder}/{n} is not what the hub has")


def tree(cache):
    root = pathlib.Path(scratch.name) / cache / "models--org--demo"
    out = {}
    for p in sorted(root.rglob("*")):
        if p.relative_to(root).parts[0] == "trees":  # lists that Python keeps for itself
            continue
        if p.is_symlink():
            out[str(p.relative_to(root))] = "-> " + os.readlink(p)
        elif p.is_file():
            out[str(p.relative_to(root))] = hashlib.sha256(p.read_bytes()).hexdigest()
    return out


# bench fetches, Python finds.
same(run([bench, "fetch", "org/demo"], "a"))
n = len(requests)
same(python("print(h.snapshot_download('org/demo'))", "a", offline=True))
python("print(h.hf_hub_download('org/demo', 'model.safetensors'))", "a", offline=True)
cached = python("print([r.repo_id for r in h.scan_cache_dir().repos])", "a", offline=True)
assert cached == "['org/demo']", cached
assert len(requests) == n, "a request was made offline"

# Python fetches, bench finds: offline, and in a command that takes a model.
same(python("print(h.snapshot_download('org/demo'))", "b"))
n = len(requests)
same(run([bench, "fetch", "org/demo"], "b", offline=True))
run([bench, "inspect", "org/demo"], "b", offline=True)
run([bench, "eval", "org/demo", "--dataset", "demo", "--protocol", "gptq-256", "--max-windows", "1"], "b", offline=True)
assert len(requests) == n, "a request was made offline"

# Both lay down the same files and links.
a, b = tree("a"), tree("b")
assert a == b, f"the layouts differ:\n{set(a.items()) ^ set(b.items())}"

# Each goes on without a download where the other has been.
n = len(requests)
run([bench, "fetch", "org/demo"], "b")
python("print(h.snapshot_download('org/demo'))", "a")
assert not [r for r in requests[n:] if r.startswith("GET") and "/resolve/" in r], requests[n:]
import huggingface_hub

print(f"ok: {len(a)} entries are the same both ways, huggingface_hub {huggingface_hub.__version__}")
