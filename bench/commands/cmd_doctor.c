/* bench doctor: what this machine offers, what is missing, and the command that mends it. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/command.h"
#include "bench/machine/machine.h"
#include "bench/measure/best_ceilings.h"
#include "bench/measure/record.h"
#include "bench/run/cache.h"
#include "bench/session.h"
#include "kernels/cpu/cpu.h"
#include "plots/plots.h"
#include "results/ceilings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *data;
} doctor_options;

static const qb_option rows[] = {
    {"data", 'd', QB_OPTION_TEXT, offsetof(doctor_options, data), NULL, 0, 0, NULL, "DIR",
     "folder of dataset files to look at"},
    {0},
};

static const qb_page page = {
    .name = "doctor",
    .summary = "show what this machine offers and what is missing",
    .synopsis = "doctor [--data DIR] [--json]",
    .description = "Prints CPU, cores, vector instructions, memory, the core that OpenBLAS uses, GPUs, "
                   "gnuplot, the folders for\n"
                   "cache and data, and the measured ceilings that speed rows refer to, of the CPU and of "
                   "each CUDA device: bytes read a\n"
                   "second from far beyond the caches (a GPU: copied in its memory; of several memory nodes\n"
                   "also each one's threads from its own memory), and operations a second "
                   "of large matrix products\n"
                   "(float32; a GPU: float16 with float32 sums), and of products of codes with 8-bit and "
                   "16-bit activations. What is missing\n"
                   "is listed with the command that mends it.",
    .examples = "bench doctor\n"
                "bench doctor --json",
    .exit_status = "0   nothing that the program needs is missing\n"
                   "1   something is; the list says what\n"
                   "2   the command line is wrong",
};

typedef struct {
    qb_json *missing; /* [{what, why, fix, needed}] */
    bool ill;         /* something needed is missing */
} findings;

static void find(findings *f, bool needed, const char *what, const char *why, const char *fix) {
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "what", what);
    qb_json_put_text(j, "why", why);
    qb_json_put_text(j, "fix", fix);
    qb_json_put_bool(j, "needed", needed);
    qb_json_push(f->missing, j);
    f->ill = f->ill || needed;
}

static qb_json *check_blas(findings *f) {
    /* What qb_blas_ensure_core leaves behind when it had to start the program again with a better core. */
    const char *core = qb_blas_core(), *simd = qb_cpu_simd(), *restarted = getenv("BENCH_BLAS_RESTARTED");
    const char *forced = getenv("OPENBLAS_CORETYPE");
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "core", core);
    qb_json_put_text(j, "chosen_by", restarted ? "bench" : forced ? "OPENBLAS_CORETYPE" : "OpenBLAS");
    qb_json_put_text(j, "simd", simd);
    qb_json_put_text(j, "integer", qb_cpu_integer());
    const char *better = qb_blas_better_core();
    char fix[128];
    snprintf(fix, sizeof fix,
             forced && !restarted ? "unset OPENBLAS_CORETYPE (or set it to %s)"
                                  : "export OPENBLAS_CORETYPE=%s",
             better ? better : "");
    if (better) find(f, false, "a fast OpenBLAS core", "matrix products run slower than this CPU can", fix);
    return j;
}

static qb_json *check_gnuplot(findings *f) {
    char version[64];
    qb_json *j = qb_json_object();
    bool there = qb_gnuplot_find(version);
    qb_json_put_text(j, "version", there ? version : NULL);
    if (!there) find(f, false, "gnuplot", "plots cannot be drawn", "apt-get install gnuplot-nox");
    return j;
}

static void check_share(findings *f, const char *share, const char *below, const char *why) {
    char *path = qb_path_join(share, below);
    bool there = false;
    bool seen = path && qb_path_look(path, &there) == QB_OK;
    if (path && !there)
        find(f, true, path, seen ? why : qb_error_text(),
             "set BENCH_SHARE to the folder share/quantbench of the build or installation");
    qb_free(path);
}

static qb_json *check_folders(findings *f, const char *data_option) {
    qb_json *j = qb_json_object();
    char *cache = qb_cache_dir(), *share = qb_share_dir(), free_text[32];
    const char *data = data_option ? data_option : getenv("BENCH_DATA");
    qb_json_put_text(j, "cache", cache);
    qb_json_put_int(j, "cache_free_bytes", qb_cache_free_bytes());
    if (qb_cache_writable() != QB_OK)
        find(f, true, "a writable cache", qb_error_text(),
             "export BENCH_CACHE=DIR, a folder that you may write to");
    else if (qb_cache_free_bytes() >= 0 && qb_cache_free_bytes() < (int64_t)1e9)
        find(f, false, "room in the cache", qb_format_bytes((double)qb_cache_free_bytes(), free_text),
             "export BENCH_CACHE=DIR on a larger disk");
    qb_json_put_text(j, "share", share);
    if (share) {
        check_share(f, share, "suites", "`bench run` has no suites");
        check_share(f, share, "demo/config.json", "the demo model is not there");
        check_share(f, share, "plots", "plots cannot be drawn");
    }
    qb_json_put_text(j, "data", data);
    bool is_dir = false;
    bool seen = !data || qb_path_look_dir(data, &is_dir) == QB_OK;
    if (data && !is_dir)
        find(f, false, data, seen ? "it is no directory" : qb_error_text(),
             "give --data DIR or set BENCH_DATA to one");
    if (!data)
        find(f, false, "a data folder", "only the demo text comes with the program",
             "export BENCH_DATA=DIR; `bench list datasets --json` tells which files and how to get them");
    qb_free(cache);
    qb_free(share);
    return j;
}

static qb_json *examine(const qb_device_facts *facts, const char *backend, const char *data, findings *f) {
    qb_json *top = qb_json_object();
    qb_json_put(top, "program", qb_program_json());
    qb_json *machine = qb_record_device(backend, backend, facts);
    qb_ceilings_remember(machine);
    qb_json_put(top, "machine", machine);
    qb_json_put_text(top, "backend", backend);
    int64_t available = qb_available_memory_bytes();
    if (available >= 0) {
        qb_json_put_int(top, "memory_available_bytes", available);
    } else {
        qb_warn("%s", qb_error_text());
        qb_json_put_null(top, "memory_available_bytes");
    }
    qb_json_put(top, "openblas", check_blas(f));
    qb_json_put(top, "cuda", qb_cuda_json());
    qb_json_put(top, "gnuplot", check_gnuplot(f));
    qb_json_put(top, "folders", check_folders(f, data));
    qb_json_put(top, "missing", f->missing);
    qb_json_put_bool(top, "healthy", !f->ill);
    return top;
}

/* ---- as text ---- */

static const char *text_of(const qb_json *object, const char *key) {
    const char *text = qb_json_string(qb_json_get(object, key));
    return text ? text : "none";
}

static double number_of(const qb_json *object, const char *key) {
    return qb_json_number(qb_json_get(object, key));
}

static void print_gpus(const qb_json *gpus) {
    char size[32];
    if (!qb_json_first(gpus)) qb_output("GPU            none\n");
    for (const qb_json *g = qb_json_first(gpus); g; g = qb_json_next(g))
        qb_output("GPU            %s, %s, driver %s\n", text_of(g, "name"),
                  qb_format_bytes(number_of(g, "memory_bytes"), size), text_of(g, "driver"));
}

static void print_device(const qb_json *d) {
    char rate[32];
    qb_output("CUDA           %s, compute capability %s, copy %s/s, GEMM %.1f TFLOP/s in float16\n",
              text_of(d, "name"), text_of(d, "compute_capability"),
              qb_format_bytes(number_of(d, "copy_bytes_per_s"), rate),
              number_of(d, "gemm_flop_per_s") * 1e-12);
    if (isfinite(number_of(d, "temperature_c")))
        qb_output(
            "               %.0f W at most, %.0f C, SM %.0f MHz, memory %.0f MHz%s%s, %.0f other processes\n",
            number_of(d, "power_limit_w"), number_of(d, "temperature_c"), number_of(d, "sm_clock_hz") * 1e-6,
            number_of(d, "memory_clock_hz") * 1e-6,
            qb_json_string(qb_json_get(d, "throttled")) ? ", throttled: " : "",
            qb_json_string(qb_json_get(d, "throttled")) ? text_of(d, "throttled") : "",
            number_of(d, "foreign_processes"));
}

static void print_cuda(const qb_json *cuda) {
    const qb_json *devices = qb_json_get(cuda, "devices");
    if (!qb_json_first(devices)) qb_output("CUDA           %s\n", text_of(cuda, "reason"));
    for (const qb_json *d = qb_json_first(devices); d; d = qb_json_next(d)) {
        if (qb_json_string(qb_json_get(d, "error")))
            qb_output("CUDA           %s\n", text_of(d, "error"));
        else
            print_device(d);
    }
}

static void print_missing(const qb_json *missing) {
    qb_output("\n%s\n", qb_json_first(missing) ? "missing" : "nothing is missing");
    for (const qb_json *m = qb_json_first(missing); m; m = qb_json_next(m))
        qb_output("    %s%s: %s\n        mend it: %s\n", text_of(m, "what"),
                  qb_json_true(qb_json_get(m, "needed")) ? " (needed)" : "", text_of(m, "why"),
                  text_of(m, "fix"));
}

static void print_ceilings(const qb_json *json, const char *product) {
    qb_ceilings ceilings = qb_ceilings_read(json, "");
    const qb_ceiling *c;
    for (size_t i = 0; (c = qb_ceiling_at(i)); i++) {
        bool gemm = c->offset == offsetof(qb_ceilings, gemm_flop_per_s);
        if (qb_ceiling_of(&ceilings, c) > 0)
            qb_output("%-5s ceiling  %.1f %s%s%s\n", c->name, qb_ceiling_of(&ceilings, c) / c->scale, c->unit,
                      gemm ? " in " : "", gemm ? product : "");
    }
    qb_str doubt = {0};
    qb_ceiling_doubt_put("this machine", json, &doubt);
    if (doubt.length) qb_output("%s\n", qb_str_get(&doubt));
    qb_str_free(&doubt);
}

/* A list of words, where there is one. */
static void print_list(const char *label, const qb_json *list) {
    if (!qb_json_first(list)) return;
    qb_output("%-14s", label);
    for (const qb_json *e = qb_json_first(list); e; e = qb_json_next(e))
        qb_output("%s %s", e == qb_json_first(list) ? "" : ",", qb_json_string(e));
    qb_output("\n");
}

static void print_nodes(const qb_json *machine) {
    const char *numa = qb_json_string(qb_json_get(machine, "numa"));
    if (!numa) return;
    qb_output("numa           %s\n", numa);
    for (const qb_json *n = qb_json_first(qb_json_get(machine, "nodes")); n; n = qb_json_next(n)) {
        double read = number_of(n, "read_bytes_per_s");
        char node[16];
        snprintf(node, sizeof node, "node %.0f", number_of(n, "node"));
        qb_output("%-14s processors %s, %.0f threads", node, text_of(n, "processors"),
                  number_of(n, "threads"));
        if (read > 0) qb_output(", read %.1f GB/s from its own memory", read * 1e-9);
        qb_output("\n");
    }
    print_list("placed", qb_json_get(machine, "placed"));
    print_list("not placed", qb_json_get(machine, "not_placed"));
}

static void print_text(const qb_json *top) {
    const qb_json *machine = qb_json_get(top, "machine"), *blas = qb_json_get(top, "openblas");
    const qb_json *folders = qb_json_get(top, "folders");
    char a[32], b[32];
    qb_output("program        bench %s\n", qb_program_version());
    qb_output("CPU            %s\n", text_of(machine, "cpu"));
    qb_output("cores          %.0f to use, %.0f threads\n", number_of(machine, "cores"),
              number_of(machine, "threads"));
    qb_output("vectors        %s, whole numbers by %s\n", text_of(blas, "simd"), text_of(blas, "integer"));
    qb_output("memory         %s, %s available\n", qb_format_bytes(number_of(machine, "memory_bytes"), a),
              qb_format_bytes(number_of(top, "memory_available_bytes"), b));
    qb_output("system         %s, %s\n", text_of(machine, "os"), text_of(machine, "kernel"));
    const char *chosen_by = text_of(blas, "chosen_by");
    qb_output("OpenBLAS core  %s, %s\n", text_of(blas, "core"),
              !strcmp(chosen_by, "bench")      ? "chosen by bench: OpenBLAS itself had taken a slower one"
              : !strcmp(chosen_by, "OpenBLAS") ? "as OpenBLAS chose it"
                                               : "as OPENBLAS_CORETYPE says");
    print_gpus(qb_json_get(machine, "gpu"));
    print_cuda(qb_json_get(top, "cuda"));
    qb_output("gnuplot        %s\n", text_of(qb_json_get(top, "gnuplot"), "version"));
    const char *product = strcmp(text_of(top, "backend"), "cpu") ? "float16 with float32 sums" : "float32";
    print_ceilings(qb_json_get(machine, "ceilings"), product);
    print_nodes(machine);
    qb_output("cache          %s, %s free\n", text_of(folders, "cache"),
              qb_format_bytes(number_of(folders, "cache_free_bytes"), a));
    qb_output("data           %s\n", text_of(folders, "data"));
    qb_output("share          %s\n", text_of(folders, "share"));
    print_missing(qb_json_get(top, "missing"));
}

static qb_status doctor_main(int argc, char **argv, int *exit_code) {
    doctor_options options;
    qb_compute compute;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options},
                            {"COMPUTING", qb_compute_options, &compute},
                            {"COMMON OPTIONS", qb_common_options, &common}};
    size_t n_words;
    bool done;
    qb_device *dev = NULL;
    qb_device_facts facts = {0};
    qb_json *top = NULL;
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 3, argc, argv, NULL, 0, &n_words, &done));
    if (done) goto out;
    QB_TRY(st, qb_session_device(&compute, &dev));
    QB_TRY(st, qb_device_facts_take(dev, true, &facts));
    findings found = {.missing = qb_json_array()};
    top = examine(&facts, compute.backend, options.data, &found);
    if (common.json)
        st = qb_output_json(top);
    else
        print_text(top);
    *exit_code = found.ill ? 1 : 0;
out:
    qb_json_free(top);
    qb_device_facts_free(&facts);
    qb_session_close(dev);
    return st;
}

const qb_command qb_command_doctor = {"doctor", "show what this machine offers and what is missing",
                                      doctor_main};
