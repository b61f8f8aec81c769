#!/usr/bin/env python3
"""Keeps what the machine code of the kernels that count has reached: instructions per 2 KiB of codes in the loop of each GEMV,
registers, bytes spilled, widths of the panel kernels' stores, against tools/sass_limits.json (of one nvcc and sm_90).

    tools/check_sass.py [--record] [--cuobjdump PROGRAM] [OBJECT_FOLDER]     default: build-cuda/CMakeFiles/qb_cuda.dir/kernels/cuda

--record writes the table anew, to be looked at as a diff. Exit 77 where cuobjdump or the build is missing or nvcc is another one.

A warp's HMMA.16816 takes 16 x 16 weights as its A operand; of the loops that hold the most of them the shortest is the GEMV's,
and its instructions over its weights, times the weights in 2 KiB of codes, are what a streaming multiprocessor must issue while
its share of the bandwidth brings 2 KiB. Kernels for more than one tile of tokens multiply each A again, and are left out."""
import json
import os
import re
import shutil
import subprocess
import sys

ARCH = "sm_90"
SLACK = 1.02  # a rebuild may order a few instructions otherwise
REGISTER_UNIT = 8  # a thread's registers are handed out in eights (CUDA C++ programming guide, compute capabilities): 122 and 124 cost 128
FILES = ["dequant", "matmul_few", "decode_mlp", "decode_project", "decode_ops"]
BITS = {0: 2, 1: 3, 2: 4, 3: 8, 4: 4, 5: 16, 6: 16}  # of QB_CODES_*: view.h
GEMV = re.compile(r"(matmul_kernel<(\d), \w+, \w+, 1, 1|mlp_kernel<(\d), \w+, 1|project_kernel<(\d), \w+|residual_kernel<(\d), \w+)")
HERE = os.path.dirname(os.path.abspath(__file__))


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def plain(name):
    name = re.sub(r"\(anonymous namespace\)::|qb::|void ", "", name)
    return re.sub(r"(>)\(.*", r"\1", name)


def functions(sass):
    """(mangled name, [(address, instruction)])"""
    name, code = None, []
    for line in sass.splitlines():
        if "Function : " in line:
            if name:
                yield name, code
            name, code = line.split("Function : ")[1].strip(), []
            continue
        found = re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", line)
        if found:
            code.append((int(found.group(1), 16), found.group(2)))
    if name:
        yield name, code


def gemv_loop(code):
    """(instructions, HMMAs) of the shortest loop among those with the most HMMAs of one level, or None."""
    at = {address: i for i, (address, _) in enumerate(code)}
    hmma = [0]
    for _, text in code:
        hmma.append(hmma[-1] + ("HMMA.16816" in text))
    loops = []
    for i, (address, text) in enumerate(code):
        found = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if found and int(found.group(1), 16) < address and int(found.group(1), 16) in at:
            first = at[int(found.group(1), 16)]
            if hmma[i + 1] > hmma[first]:
                loops.append((i + 1 - first, hmma[i + 1] - hmma[first]))
    return min(loops, default=None)


def measure(folder, cuobjdump):
    table = {}
    for file in FILES:
        path = f"{folder}/{file}.cu.o"
        usage = {}
        for found in re.finditer(r"Function (\S+?):\s*REG:(\d+) STACK:\d+ SHARED:\d+ LOCAL:\d+", run(cuobjdump, "-res-usage", "-arch", ARCH, path)):
            usage[found.group(1)] = int(found.group(2))
        all_code = list(functions(run(cuobjdump, "--dump-sass", "-arch", ARCH, path)))
        names = run("c++filt", *(name for name, _ in all_code)).splitlines() if all_code else []
        for (mangled, code), name in zip(all_code, names):
            row = {"registers": usage.get(mangled, 0), "spills": sum(bool(re.search(r"\bSTL\b", text)) for _, text in code)}
            found = GEMV.search(plain(name))
            if found:
                loop = gemv_loop(code)
                if not loop:
                    continue
                bits = BITS[int(next(g for g in found.groups()[1:] if g is not None))]
                row["per_2_kib"] = round(loop[0] * (16384 / bits) / (loop[1] * 256), 1)
            elif "panel_kernel" in name:
                stores = [text for _, text in code if re.search(r"\bSTG\b", text)]
                row["narrow_stores"] = sum(".128" not in text for text in stores)
                row["wide_stores"] = len(stores) - row["narrow_stores"]
            else:
                continue
            table[plain(name)] = row
    return table


def allowed(key, limit):
    if key == "per_2_kib":
        return limit * SLACK
    return -(-limit // REGISTER_UNIT) * REGISTER_UNIT if key == "registers" else limit


def main():
    words = sys.argv[1:]
    record = "--record" in words
    words = [w for w in words if w != "--record"]
    cuobjdump = shutil.which("cuobjdump", path=os.environ.get("PATH", "") + ":/usr/local/cuda/bin")
    if "--cuobjdump" in words:
        at = words.index("--cuobjdump")
        cuobjdump = words[at + 1]
        del words[at:at + 2]
    folder = words[0] if words else f"{HERE}/../build-cuda/CMakeFiles/qb_cuda.dir/kernels/cuda"
    nvcc = shutil.which("nvcc", path=os.environ.get("PATH", "") + ":/usr/local/cuda/bin")
    if not cuobjdump or not nvcc:
        print("cuobjdump is not installed" if nvcc else "nvcc is not installed")
        return 77
    if not os.path.exists(f"{folder}/dequant.cu.o"):
        print(f"no CUDA build in {folder}")
        return 77
    release = re.search(r"release ([\d.]+)", run(nvcc, "--version")).group(1)
    limits_path = f"{HERE}/sass_limits.json"
    limits = json.load(open(limits_path)) if os.path.exists(limits_path) else {}
    if not record and limits.get("nvcc") != release:
        print(f"the table is of nvcc {limits.get('nvcc')}, this is {release}: other instructions")
        return 77
    table = measure(folder, cuobjdump)
    if not table:
        print(f"no kernel of {ARCH} in {folder}")
        return 1
    if record:
        rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(table.items()))
        open(limits_path, "w").write('{"nvcc": "%s", "arch": "%s", "kernels": {\n%s}}\n' % (release, ARCH, rows))
    bad = 0
    for name, most in (limits["kernels"] if not record else table).items():
        if name not in table:
            print(f"{name} is not there any more: tools/check_sass.py --record")
            bad += 1
            continue
        for key, limit in most.items():
            value = table[name][key]
            if key != "wide_stores" and value > allowed(key, limit):
                print(f"{name}: {key} {value}, not {limit}")
                bad += 1
    for name in table:
        if not record and name not in limits["kernels"]:
            print(f"{name} is new: tools/check_sass.py --record")
            bad += 1
    for name, row in table.items():
        if "panel_kernel" in name and (row["narrow_stores"] or not row["wide_stores"]):
            print(f"{name}: {row['narrow_stores']} stores are not of 16 bytes")
            bad += 1
    print(f"{len(table)} kernels of {ARCH}: {'as good as recorded' if not bad else str(bad) + ' are worse or unknown'}")
    return bad > 0


sys.exit(main())
