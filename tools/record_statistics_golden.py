#!/usr/bin/env python3
"""Records tests/golden/statistics.json: p values of rank and permutation tests by SciPy, Holm's and models of runs by statsmodels.

Needs (in a virtual environment): scipy (recorded with 1.16.3), statsmodels (0.15.0), numpy.

  record_statistics_golden.py --out tests/golden/statistics.json
"""
import argparse
import importlib.metadata
import json
import pathlib

import numpy as np
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests


def signed(rng, n, digits):
    return [round(float(v), digits) for v in rng.normal(0.3, 1, n)]


def mann_whitney(rng):
    for n, m, digits in ((3, 3, 6), (5, 5, 6), (9, 12, 6), (30, 25, 6), (50, 50, 6), (51, 20, 6), (80, 60, 6), (6, 7, 0), (20, 30, 1)):
        x, y = signed(rng, n, digits), [v + 0.5 for v in signed(rng, m, digits)]
        tied = len(set(x + y)) < n + m
        exact = not tied and n <= 50 and m <= 50
        p = stats.mannwhitneyu(x, y, alternative="two-sided", method="exact" if exact else "asymptotic").pvalue
        yield {"x": x, "y": y, "p": float(p)}


def wilcoxon(rng):
    for n, digits in ((4, 6), (9, 6), (20, 6), (50, 6), (60, 6), (12, 0), (40, 1)):
        d = signed(rng, n, digits)
        kept = [abs(v) for v in d if v != 0]
        exact = len(set(kept)) == len(kept) and len(kept) <= 50
        p = stats.wilcoxon([v for v in d if v != 0], method="exact" if exact else "asymptotic", correction=not exact).pvalue
        yield {"d": d, "p": float(p)}


def sign_flip(rng):
    for n, digits in ((2, 6), (5, 6), (8, 6), (10, 0), (13, 6), (16, 2), (18, 6)):
        d = signed(rng, n, digits)
        p = stats.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=True).pvalue
        yield {"d": d, "p": float(p)}


def holm(rng):
    for n in (1, 4, 12):
        p = [round(float(v), 6) for v in rng.uniform(0, 1, n) ** 3]
        yield {"p": p, "adjusted": [float(v) for v in multipletests(p, method="holm")[1]]}
    yield {"p": [0.01, 0.01, 0.2], "adjusted": [float(v) for v in multipletests([0.01, 0.01, 0.2], method="holm")[1]]}


def run_figures(rng):
    """Two groups of runs' figures by least squares: a group may be one run."""
    for n, m in ((3, 1), (2, 2), (10, 1), (10, 3), (1, 6)):
        x, y = signed(rng, n, 6), [v + 2 for v in signed(rng, m, 6)]
        fit = sm.OLS(np.array(x + y), sm.add_constant(np.array([0.0] * n + [1.0] * m))).fit()
        yield {"x": x, "y": y, "difference": float(fit.params[1]), "error": float(fit.bse[1]), "freedom": int(fit.df_resid), "p": float(fit.pvalues[1])}


def run_rounds(rng):
    """The same from several measurements in each run by a mixed model (REML, a random effect for each run), balanced."""
    for runs, rounds, between, within in ((6, 3, 1.0, 0.4), (5, 4, 0.5, 0.5), (8, 5, 2.0, 1.0)):
        effects = rng.normal(0, between, 2 * runs)
        side = np.repeat([0.0, 1.0], runs * rounds)
        y = np.round(side * 1.5 + np.repeat(effects, rounds) + rng.normal(0, within, 2 * runs * rounds), 6)
        fit = sm.MixedLM(y, sm.add_constant(side), groups=np.repeat(np.arange(2 * runs), rounds)).fit(reml=True)
        values = y.reshape(2 * runs, rounds)
        error_within = float(values.var(axis=1, ddof=1).mean() / rounds)
        means = [round(float(v), 12) for v in values.mean(axis=1)]
        yield {"x": means[:runs], "y": means[runs:], "within": error_within, "difference": float(fit.fe_params[1]),
               "error": float(fit.bse_fe[1]), "between": float(fit.cov_re[0, 0])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    rng = np.random.default_rng(7)
    golden = {"versions": {m: importlib.metadata.version(m) for m in ("scipy", "statsmodels", "numpy")}}
    for name, cases in (("mann_whitney", mann_whitney), ("wilcoxon", wilcoxon), ("sign_flip", sign_flip), ("holm", holm),
                        ("run_figures", run_figures), ("run_rounds", run_rounds)):
        golden[name] = list(cases(rng))
    text = json.dumps(golden, separators=(",", ":"))
    args.out.write_text(text.replace('{"x"', '\n{"x"').replace('{"d"', '\n{"d"').replace('{"p"', '\n{"p"') + "\n")


if __name__ == "__main__":
    main()
