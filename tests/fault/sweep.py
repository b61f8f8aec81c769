#!/usr/bin/env python3
"""Makes single system calls fail, one a run, and judges what the program leaves: sweep.py BENCH LIBRARY [--all] [--only TEXT]

For every point (scenario, kind of call, n-th of its kind) the program runs with tests/fault/fault.c preloaded; n is
spread over as many calls as an undisturbed run makes. Then, whatever failed:
  - it ended by itself, with exit code 0 or 1, and with 1 said so in one line "bench: ..." (or in the failed rows of a run);
  - with exit code 0 everything is there and equal to what the undisturbed run made;
  - with exit code 1 there is no half output: a document is valid and holds every case that was told as finished, a
    checkpoint or a picture is whole or absent;
  - the same command run again (a run with --resume) ends with the undisturbed output, and nothing temporary is left.
"""
import argparse, concurrent.futures, hashlib, json, os, re, shutil, subprocess, sys, tempfile

TIMEOUT_S = 20
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
          "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
          "tie_word_embeddings": False, "torch_dtype": "float16"}
SUITE = {"name": "faults", "summary": "s", "models": ["./tiny"], "datasets": ["demo"], "protocols": ["gptq-64"],
         "metrics": ["memory", "determinism"],
         "methods": [{"method": "none"}, {"method": "rtn", "bits": 4, "group_size": 32},
                     {"method": "gptq", "bits": 4, "group_size": 32, "samples": 2, "seqlen": 32}]}


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def case_facts(document):
    """What does not depend on time: the state of each case, its hashes and its bits."""
    facts = {}
    for case in document["cases"]:
        hashes = [m.get("sha256") for m in case.get("metrics") or [] if m["name"] == "logits_sha256"]
        facts[case["id"]] = (case["status"], (case.get("model") or {}).get("sha256"), hashes)
    return facts


class Scenario:
    """A command, the paths that it makes, and what of them must repeat."""
    outputs = ()
    again = None  # words of the second run, when they differ

    def __init__(self, bench):
        self.bench = bench

    def prepare(self, folder):
        pass

    def facts(self, folder):
        """The outputs, in a form that repeats; None where absent. Raises when something is half there."""
        raise NotImplementedError

    def whole(self, facts, expected):
        """Whether what is there after exit code 1 may stand there."""
        return facts in (None, expected)

    def error_lines(self, folder, stderr):
        return sum(line.startswith("bench: ") for line in stderr.splitlines())

    def told(self, folder, stderr, code):
        """Faults of an output after a failure."""
        return []


class Run(Scenario):
    name = "run"
    words = ["run", "--suite", "suite.json", "--synthetic", "-o", "r.json", "-t", "1"]

    def second(self, folder):
        return self.words + (["--resume"] if os.path.exists(f"{folder}/r.json") else [])

    def prepare(self, folder):
        os.mkdir(f"{folder}/tiny")
        with open(f"{folder}/tiny/config.json", "w") as f:
            json.dump(CONFIG, f)
        with open(f"{folder}/suite.json", "w") as f:
            json.dump(SUITE, f)

    def facts(self, folder):
        if not os.path.exists(f"{folder}/r.json"):
            return None
        with open(f"{folder}/r.json") as f:
            return case_facts(json.load(f))

    def told(self, folder, stderr, code):
        finished = re.findall(r"^\[ *\d+/\d+\] (.*?)  +ok ", stderr, re.M)
        facts = self.facts(folder) or {}
        kept = [i for i, c in facts.items() if c[0] == "ok"]
        with open(f"{folder}/stdout", errors="replace") as f:  # where the document goes that could not be written
            printed = stderr.count('"status"') + len(re.findall(r'"status":\s*"ok"', f.read()))
        if len(finished) > len(kept) + printed:
            return [f"{len(finished)} cases were told as finished, the document holds {len(kept)}"]
        if code == 0 and (len(kept) != 3 or len(facts) != 3):
            return [f"exit code 0 with {len(kept)} of 3 cases ok"]
        return []


    def whole(self, facts, expected):
        return True  # a document of some of the cases, which told() judges

    def error_lines(self, folder, stderr):
        return 1 if re.search(r"\d+ of \d+ cases failed", stderr) else super().error_lines(folder, stderr)


class Cached(Run):
    """The same with a full cache: entries are verified."""
    name = "run-cached"

    def prepare(self, folder):
        super().prepare(folder)
        call(self.bench, self.words, folder)
        os.remove(f"{folder}/r.json")


class Directory(Scenario):
    out = "out"

    def second(self, folder):
        return self.words + (["--force"] if os.path.exists(f"{folder}/{self.out}") and self.forces else [])

    forces = True

    def facts(self, folder):
        top = f"{folder}/{self.out}"
        if not os.path.exists(top):
            return None
        found = {n: digest(f"{top}/{n}") for n in sorted(os.listdir(top)) if n not in ("quantize_report.json", "README.md")}
        return found, sorted(os.listdir(top))


class Quantize(Directory):
    name = "quantize"
    words = ["quantize", "demo", "-m", "rtn", "--bits", "4", "--group-size", "64", "-o", "out", "-t", "1", "-q"]


class Gptq(Directory):
    name = "quantize-gptq"
    words = ["quantize", "demo", "-m", "gptq", "--bits", "4", "--group-size", "64", "--calibration", "demo", "--samples", "2",
             "--seqlen", "32", "-o", "out", "-t", "1", "-q"]


class Convert(Directory):
    name = "convert"
    words = ["convert", "w4", "--to", "gptq_v2", "-o", "out", "-q"]

    def prepare(self, folder):
        call(self.bench, Quantize.words[:-4] + ["-q", "-o", "w4"], folder)


class Merge(Directory):
    name = "merge"
    words = ["merge", f"{SOURCE}/tests/golden/families/llama", f"{SOURCE}/tests/golden/adapters/plain", "-o", "out", "-t", "1", "-q"]


class Eval(Scenario):
    name = "eval"
    words = ["eval", "demo", "--dataset", "demo", "--protocol", "gptq-64", "--max-windows", "2", "-t", "1", "--json"]

    def second(self, folder):
        return self.words

    def facts(self, folder):
        with open(f"{folder}/stdout") as f:
            text = f.read()
        if not text:
            return None
        document = json.loads(text)
        return [(m["name"], m["value"]) for c in document["cases"] for m in c["metrics"] if m["name"] == "perplexity"]

    def whole(self, facts, expected):
        return facts in (None, expected) or all(value is None for _, value in facts)  # rows that say they failed


class Plot(Scenario):
    name = "plot"
    words = ["plot", "results.json", "--out", "plots", "--only", "pareto"]

    def second(self, folder):
        return self.words

    def prepare(self, folder):
        shutil.copy(f"{SOURCE}/results/baselines/demo.json", f"{folder}/results.json")

    def facts(self, folder):
        ends = {"svg": b"</svg>", "png": b"IEND\xaeB`\x82", "pdf": b"%%EOF"}
        top = f"{folder}/plots"
        names = sorted(os.listdir(top)) if os.path.isdir(top) else []
        for name in names:
            with open(f"{top}/{name}", "rb") as f:
                if not f.read().rstrip(b"\n").endswith(ends[name.split(".")[-1]]):
                    raise ValueError(f"{name} is cut off")
        return names or None


    def whole(self, facts, expected):
        return facts is None or set(facts) <= set(expected)  # each picture by itself


class Inspect(Scenario):
    name = "inspect"
    words = ["inspect", "demo", "--json"]

    def second(self, folder):
        return self.words

    def facts(self, folder):
        with open(f"{folder}/stdout") as f:
            text = f.read()
        return text or None

    def whole(self, facts, expected):
        return facts is None or json.loads(facts)["sound"] is False

    def error_lines(self, folder, stderr):
        facts = self.facts(folder)
        damaged = facts and any(o["damage"] for o in json.loads(facts)["oddities"])  # told on standard output
        return 1 if damaged else super().error_lines(folder, stderr)


SCENARIOS = [Run, Cached, Quantize, Gptq, Convert, Merge, Eval, Plot, Inspect]


def call(bench, words, folder, fault=None, log=None, library=None):
    environment = dict(os.environ, BENCH_CACHE=f"{folder}/cache", TMPDIR=folder)
    if library:
        environment["LD_PRELOAD"] = library
    if fault:
        environment["QB_FAULT"] = fault
    if log:
        environment["QB_FAULT_LOG"] = log
    with open(f"{folder}/stdout", "wb") as out, open(f"{folder}/stderr", "wb") as err:
        try:
            code = subprocess.run([bench] + words, cwd=folder, env=environment, stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                                  timeout=TIMEOUT_S).returncode
        except subprocess.TimeoutExpired:
            code = "hung"
    with open(f"{folder}/stderr", errors="replace") as f:
        return code, f.read()


def leftovers(folder):
    found = []
    for top, dirs, files in os.walk(folder):
        found += [os.path.join(top, n)[len(folder) + 1:] for n in dirs + files if ".tmp." in n or n.endswith((".partial", ".lock"))]
    return found


def safe_facts(scenario, folder, faults, when):
    try:
        return scenario.facts(folder)
    except Exception as error:  # a half output, whatever its form
        faults.append(f"{when}: half output: {type(error).__name__}: {error}")
        return None


def judge(scenario, folder, fault, library, expected):
    faults = []
    code, stderr = call(scenario.bench, scenario.words, folder, fault, None, library)
    lines = scenario.error_lines(folder, stderr)
    if code not in (0, 1):
        faults.append(f"exit code {code}")
    if code == 1 and lines != 1:
        faults.append(f"{lines} error lines")
    with open(f"{folder}/stdout", errors="replace") as f:
        if re.search(r"\b0 B of (device )?memory", stderr + f.read()):
            faults.append("a reading that failed was taken for 0 B of memory")
    if code == 0 and lines:
        faults.append("an error line with exit code 0")
    facts = safe_facts(scenario, folder, faults, "after the fault")
    if code == 0 and facts != expected and not faults:
        faults.append(f"exit code 0, but the output differs: {str(facts)[:300]}")
    if code == 1 and not scenario.whole(facts, expected):
        faults.append("exit code 1 with an output that is not whole")
    faults += scenario.told(folder, stderr, code) if not faults else []
    first = stderr
    code, stderr = call(scenario.bench, scenario.second(folder), folder)
    if code != 0:
        faults.append(f"the second run: exit code {code}: {stderr[-400:]}")
    facts = safe_facts(scenario, folder, faults, "second run")
    if facts != expected:
        faults.append(f"the second run's output differs: {str(facts)[:300]}")
    left = [path for path in leftovers(folder) if path not in first + stderr]  # told is not silent
    if left:
        faults.append(f"left behind: {left}")
    return faults, first


def spread(n, most):
    """At most `most` numbers of 1 .. n, the ends among them."""
    if n <= most:
        return list(range(1, n + 1))
    return sorted({1 + i * (n - 1) // (most - 1) for i in range(most)})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench")
    parser.add_argument("library")
    parser.add_argument("--all", action="store_true", help="every call, which takes hours")
    parser.add_argument("--only", default="", help="points whose name holds this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.bench, options.library = map(os.path.abspath, (options.bench, options.library))
    top = tempfile.mkdtemp(prefix="qb-faults-")
    points, expected, templates = [], {}, {}
    try:
        for kind in SCENARIOS:
            scenario = kind(options.bench)
            if options.only and not options.only.startswith(scenario.name) and not scenario.name.startswith(options.only.split(":")[0]):
                continue
            template = templates[scenario.name] = f"{top}/template-{scenario.name}"
            os.mkdir(template)
            scenario.prepare(template)
            folder = f"{top}/plain"
            shutil.copytree(template, folder, symlinks=True)
            code, stderr = call(options.bench, scenario.words, folder, None, f"{top}/log", options.library)
            if code != 0:
                sys.exit(f"{scenario.name} does not work undisturbed: exit code {code}: {stderr}")
            expected[scenario.name] = scenario.facts(folder)
            counts = dict(line.split() for line in open(f"{top}/log"))
            shutil.rmtree(folder)
            for call_kind, count in counts.items():
                most = 10**9 if options.all else MOST.get(call_kind, 4)
                for n in spread(int(count), most) if call_kind != "hits" else []:
                    points.append((scenario, f"{call_kind}:{n}"))
                if call_kind in ("write", "reserve", "malloc", "open") and int(count):
                    points += [(scenario, f"{call_kind}:{n}+") for n in spread(int(count), 10**9 if options.all else 3)]
        points = [p for p in points if options.only in f"{p[0].name}:{p[1]}"]
        failed = 0

        def work(item):
            number, (scenario, fault) = item
            folder = f"{top}/{number}"
            shutil.copytree(templates[scenario.name], folder, symlinks=True)
            result = judge(scenario, folder, fault, options.library, expected[scenario.name])
            shutil.rmtree(folder, ignore_errors=True)
            return scenario.name, fault, result

        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for name, fault, (faults, stderr) in pool.map(work, enumerate(points)):
                if faults:
                    failed += 1
                    print(f"{name}:{fault}: " + "\n    ".join(faults))
                    print("    | " + "\n    | ".join(stderr.strip().splitlines()[-6:]))
                    sys.stdout.flush()
        print(f"{len(points)} faults were injected, {failed} had a wrong outcome")
        return 1 if failed or not points else 0
    finally:
        shutil.rmtree(top, ignore_errors=True)


# How many calls of a kind are tried in a scenario; what is not named: 4.
MOST = {"malloc": 14, "open": 8, "read": 5, "write": 5, "stat": 9, "mmap": 5, "list": 6}

if __name__ == "__main__":
    sys.exit(main())
