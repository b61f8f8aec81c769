/* For tests that run the program as a user does: a process of its own, judged by exit code, standard output
   and error. */
#pragma once

#include "base/json.h"
#include "base/str.h"
#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>

enum { ARGS_MAX = 32, OUTPUT_MAX = 64 << 20 };

static char *scratch; /* of the whole test program: cache and outputs */

typedef struct {
    int code; /* exit code, or 128 + signal */
    char *out, *err;
    size_t n_out;
} outcome;

static inline void outcome_free(outcome *o) {
    qb_free(o->out);
    qb_free(o->err);
    *o = (outcome){0};
}

static inline char *scratch_path(const char *name) {
    static char paths[8][1024];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

static inline pid_t start(const char *const *args, const char *out_path, const char *err_path) {
    char *argv[ARGS_MAX + 2] = {(char *)(uintptr_t)QB_BENCH_PROGRAM};
    for (int i = 0; args[i]; i++) {
        assert_true(i < ARGS_MAX);
        argv[i + 1] = (char *)(uintptr_t)args[i];
    }
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid) return pid;
    int out = open(out_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int err = open(err_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (out < 0 || err < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) _exit(120);
    execv(QB_BENCH_PROGRAM, argv);
    _exit(121);
}

static inline int wait_code(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0) assert_int_equal(errno, EINTR);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline outcome bench(const char *const *args) {
    outcome o = {0};
    char out[1024], err[1024]; /* not scratch_path: callers keep several of its buffers */
    snprintf(out, sizeof out, "%s/stdout", scratch);
    snprintf(err, sizeof err, "%s/stderr", scratch);
    size_t n;
    o.code = wait_code(start(args, out, err));
    assert_ok(qb_file_read(out, OUTPUT_MAX, &o.out, &o.n_out));
    assert_ok(qb_file_read(err, OUTPUT_MAX, &o.err, &n));
    return o;
}
#define BENCH(...) bench((const char *const[]){__VA_ARGS__, NULL})

/* A refusal: that code, nothing on standard output, a last line "bench: ... needle ..." on standard error. */
static inline void assert_refused(outcome o, int code, const char *needle) {
    const char *line = strstr(o.err, "bench: ");
    while (line && strstr(line + 1, "\nbench: ")) line = strstr(line + 1, "\nbench: ") + 1;
    bool one_line =
        line && (line == o.err || line[-1] == '\n') && strchr(line, '\n') == line + strlen(line) - 1;
    if (o.code != code || o.n_out || !one_line || !strstr(line, needle))
        fail_msg("exit %d, %zu bytes on standard output, standard error: %s\nexpected exit %d and \"%s\"",
                 o.code, o.n_out, o.err, code, needle);
    outcome_free(&o);
}

static inline void assert_worked(const outcome *o) {
    if (o->code != 0) fail_msg("exit %d: %s", o->code, o->err);
}

static inline qb_json *json_of(const outcome *o) {
    qb_json *j;
    assert_ok(qb_json_parse(o->out, o->n_out, "standard output", &j));
    return j;
}

/* Group set-up and tear-down: the scratch folder with a cache of its own. */
static inline int program_begin(void **state) {
    (void)state;
    if (!qb_path_exists(QB_BENCH_PROGRAM)) {
        print_message("skipped: %s is not built\n", QB_BENCH_PROGRAM);
        exit(0);
    }
    scratch = scratch_make();
    setenv("BENCH_CACHE", scratch_path("cache"), 1);
    unsetenv("BENCH_DATA");
    return 0;
}

static inline int program_end(void **state) {
    (void)state;
    scratch_remove(scratch);
    return 0;
}
