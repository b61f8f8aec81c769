#!/usr/bin/env python3
"""Records tests/golden/divergence.json: logits of two models that numpy drew, and what numpy makes of them.

Needs: numpy (recorded with 2.4.6). Usage: tools/record_divergence_golden.py
The formulas are those that llama.cpp's tools/perplexity prints for --kl-divergence, by numpy's own functions: percentile,
corrcoef, cov, std with one degree of freedom.
"""
import json
import pathlib

import numpy as np

VOCAB, WINDOWS, EACH = 19, 9, 3
PERCENTILES = [100, 99.9, 99, 95, 90, 50, 10, 5, 1, 0.1, 0]


def log_softmax(x):
    x = x.astype(np.float64)
    m = x.max(axis=1, keepdims=True)
    return x - m - np.log(np.exp(x - m).sum(axis=1, keepdims=True))


def error(x):
    return x.std(ddof=1) / np.sqrt(len(x))


def main():
    rng = np.random.default_rng(20261126)
    n = WINDOWS * EACH
    base = (rng.standard_normal((n, VOCAB)) * 3).astype(np.float32)
    model = (base + rng.standard_normal((n, VOCAB)).astype(np.float32)).astype(np.float32)
    model[4, 2] = 60  # almost certain, and elsewhere than the base thinks
    target = rng.integers(0, VOCAB, n)
    p, q, row = log_softmax(base), log_softmax(model), np.arange(n)
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    nll, base_nll = -q[row, target], -p[row, target]
    delta = np.exp(-nll) - np.exp(-base_nll)
    same = (p.argmax(axis=1) == q.argmax(axis=1)).astype(np.float64)
    means = (nll - base_nll).reshape(WINDOWS, EACH).mean(axis=1)
    cov = np.cov(nll, base_nll) / n
    ppl, base_ppl = np.exp(nll.mean()), np.exp(base_nll.mean())
    golden = {
        "numpy": np.__version__, "vocab": VOCAB, "windows": WINDOWS,
        "base": [float(v) for v in base.ravel()], "model": [float(v) for v in model.ravel()],
        "target": [int(v) for v in target],
        "kl": kl.tolist(), "nll": nll.tolist(), "base_nll": base_nll.tolist(), "delta_p": delta.tolist(),
        "same_top": [bool(v) for v in same],
        "perplexity": [ppl, ppl * error(nll)], "base_perplexity": [base_ppl, base_ppl * error(base_nll)],
        "correlation": np.corrcoef(nll, base_nll)[0, 1],
        "ln_ratio": [(nll - base_nll).mean(), error(nll - base_nll)], "ln_ratio_window_error": error(means),
        "difference": [ppl - base_ppl, np.sqrt(ppl**2 * cov[0, 0] + base_ppl**2 * cov[1, 1] - 2 * ppl * base_ppl * cov[0, 1])],
        "mean_kl": [kl.mean(), error(kl)], "kl_percentiles": np.percentile(kl, PERCENTILES).tolist(),
        "mean_delta_p": [delta.mean(), error(delta)], "delta_p_percentiles": np.percentile(delta, PERCENTILES).tolist(),
        "rms_delta_p": [np.sqrt((delta**2).mean()), 0.5 / np.sqrt((delta**2).mean()) * error(delta**2)],
        "same_share": [same.mean(), error(same)],
    }
    path = pathlib.Path(__file__).parent.parent / "tests/golden/divergence.json"
    path.write_text(json.dumps(golden) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
