/* Faults of the world that are no single failed call: limits, signals, vanishing files, hostile names. The
 * others are injected by tests/fault/sweep.py. */
#include "tests/support.h"

#include "base/host_memory.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "base/text.h"
#include "bench/run/child.h"
#include "checkpoint/checkpoint.h"
#include "model/model.h"
#include "plots/gnuplot.h"
#include "plots/plots.h"
#include "tokenizer/tokenizer.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char *scratch;

static int shell(const char *format, const char *a, const char *b) {
    qb_str line = {0};
    qb_str_printf(&line, "cd '%s' && { ", scratch);
    /* The formats are this file's own. */
    size_t n = strlen(format) + strlen(a) + strlen(b) + 1;
    char *text = malloc(n);
    assert_non_null(text);
    const char *first = strstr(format, "%1"), *second = strstr(format, "%2");
    assert_true(!second || (first && first < second));
    if (!first)
        snprintf(text, n, "%s", format);
    else if (!second)
        snprintf(text, n, "%.*s%s%s", (int)(first - format), format, a, first + 2);
    else
        snprintf(text, n, "%.*s%s%.*s%s%s", (int)(first - format), format, a, (int)(second - first - 2),
                 first + 2, b, second + 2);
    qb_str_text(&line, text);
    qb_str_text(&line, "; }");
    free(text);
    int status = system(qb_str_get(&line));
    qb_str_free(&line);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int make_scratch(void **state) {
    (void)state;
    scratch = scratch_make();
    char *cache = qb_path_join(scratch, "cache");
    setenv("BENCH_CACHE", cache, 1);
    qb_free(cache);
    return 0;
}
static int remove_scratch(void **state) {
    (void)state;
    scratch_remove(scratch);
    return 0;
}

#if !defined(QB_SANITIZED)
/* OpenBLAS, refused a buffer, used to try again for ever: every amount of address space ends in one way or
 * another. */
static void test_robust__little_address_space_is_no_hang(void **state) {
    (void)state;
    static const char *const kib[] = {"60000",  "100000", "150000", "200000",
                                      "250000", "300000", "400000", "500000"};
    int worked = 0, refused = 0;
    for (size_t i = 0; i < sizeof kib / sizeof kib[0]; i++) {
        /* Too little for the libraries alone: the loader says so, or libgfortran's constructor, out of
           memory, calls itself until the stack ends, before main. */
        int start =
            shell("ulimit -v %1 && timeout -s KILL 20 %2 --version >out 2>err", kib[i], QB_BENCH_PROGRAM);
        if (start == 137) fail_msg("ulimit -v %s: it hangs before main", kib[i]);
        if (start == 1) assert_int_equal(shell("test $(grep -c '^bench: ' err) = 1", "", ""), 0);
        if (start != 0) continue;
        int code = shell("ulimit -v %1 && timeout -s KILL 60 %2 eval demo --dataset demo --protocol gptq-64 "
                         "--max-windows 1 "
                         "-t 2 >out 2>err",
                         kib[i], QB_BENCH_PROGRAM);
        if (code != 0 && code != 1) fail_msg("ulimit -v %s: exit %d", kib[i], code);
        worked += code == 0;
        refused += code == 1;
        if (code == 1) assert_int_equal(shell("test $(grep -c '^bench: ' err) = 1", "", ""), 0);
    }
    assert_true(worked > 0 && refused > 0);
}

/* This program links it too: a pool of its threads would stand here already. */
static void test_robust__openblas_starts_no_threads(void **state) {
    (void)state;
    qb_status st = QB_OK;
    int n = 0;
    DIR *dir = opendir("/proc/self/task");
    assert_non_null(dir);
    while (qb_dir_next(dir, "/proc/self/task", &st)) n++;
    closedir(dir);
    assert_ok(st);
    assert_int_equal(n, 1);
}
#endif

static void test_robust__a_limit_of_file_sizes_names_the_file(void **state) {
    (void)state;
    assert_int_equal(
        shell("(ulimit -f 500; %1 quantize demo -m rtn -o w4 -q >out 2>err)", QB_BENCH_PROGRAM, ""), 1);
    assert_int_equal(
        shell("grep -q '^bench: .*w4.*File too large' err && test ! -e w4 && test $(wc -l <err) = 1", "", ""),
        0);
    assert_int_equal(
        shell("%1 quantize demo -m rtn -o w4 -q >out 2>err && test ! -e w4.partial", QB_BENCH_PROGRAM, ""),
        0);
}

static void test_robust__unknown_instruction_sets_are_refused(void **state) {
    (void)state;
    assert_int_equal(
        shell("BENCH_SIMD=avx3 %1 speed demo --prefill 8 --decode 1 >out 2>err", QB_BENCH_PROGRAM, ""), 2);
    assert_int_equal(shell("grep -q '^bench: BENCH_SIMD=avx3 is no instruction set that this processor and "
                           "build have (generic' err",
                           "", ""),
                     0);
}

/* ---- a file that is cut short while it is mapped ---- */

static qb_status reads_what_goes(void *ctx, qb_json **result) {
    const char *path = ctx;
    qb_map map;
    (void)result;
    qb_status st = qb_map_open(path, &map);
    if (st != QB_OK) return st;
    if (truncate(path, 0) != 0) return qb_fail(QB_ERR_IO, "truncate");
    volatile uint8_t byte = map.bytes[100];
    (void)byte;
    return QB_OK;
}
static void test_robust__a_file_that_vanishes_is_named(void **state) {
    (void)state;
    char *path = qb_path_join(scratch, "weights \"1\".safetensors"), bytes[9000] = {0};
    qb_child_end end;
    assert_ok(qb_file_write_atomic(path, bytes, sizeof bytes));
    assert_fails(qb_child_run("work", reads_what_goes, path, &end), QB_ERR_IO,
                 "weights \"1\".safetensors cannot be read any more");
    qb_free(path);
}

/* ---- control groups ---- */

static void put(const char *root, const char *path, const char *text) {
    char *file = qb_path_join(root, path), *dir = qb_path_dir(file);
    assert_ok(qb_make_dirs(dir));
    assert_ok(qb_file_write_atomic(file, text, strlen(text)));
    qb_free(file);
    qb_free(dir);
}

static qb_host_memory memory_in(const char *root) {
    qb_host_memory m;
    assert_ok(qb_host_memory_in(root, &m));
    return m;
}

static void test_robust__the_groups_above_limit_memory_too(void **state) {
    (void)state;
    char *root = scratch_make();
    put(root, "proc/meminfo", "MemTotal:       8000000 kB\nMemFree: 1 kB\nMemAvailable:   6000000 kB\n");
    put(root, "proc/self/cgroup", "0::/user.slice/job\n");
    assert_int_equal(memory_in(root).total_bytes, 8000000ll * 1024);
    put(root, "sys/fs/cgroup/user.slice/job/memory.max", "max\n");
    put(root, "sys/fs/cgroup/user.slice/memory.max", "4000000000\n");
    put(root, "sys/fs/cgroup/user.slice/memory.current", "1500000000\n");
    put(root, "sys/fs/cgroup/user.slice/memory.stat", "anon 7\ninactive_file 500000000\nx 1\n");
    assert_int_equal(memory_in(root).total_bytes, 4000000000ll);
    assert_int_equal(memory_in(root).available_bytes, 3000000000ll);
    /* Version 1 beside it: the memory controller's own path. */
    put(root, "proc/self/cgroup", "4:cpu,cpuacct:/x\n3:memory:/a/b\n0::/\n");
    put(root, "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "2000000000\n");
    put(root, "sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
    put(root, "sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "1900000000\n");
    assert_int_equal(memory_in(root).total_bytes, 2000000000ll);
    assert_int_equal(memory_in(root).available_bytes, 2000000000ll); /* of the cache nothing is said */
    put(root, "sys/fs/cgroup/memory/a/b/memory.stat", "total_inactive_file 0\n");
    assert_int_equal(memory_in(root).available_bytes, 100000000ll);
    /* A container that sees its own top only. */
    put(root, "proc/self/cgroup", "0::/../../host/path\n");
    put(root, "sys/fs/cgroup/memory.max", "1000000\n");
    assert_int_equal(memory_in(root).total_bytes, 1000000);
    /* A limit, or the machine's memory, that is there and cannot be read: neither 0 bytes nor no limit. */
    qb_host_memory m;
    char *file = qb_path_join(root, "sys/fs/cgroup/memory.current"),
         *info = qb_path_join(root, "proc/meminfo");
    assert_int_equal(symlink("memory.current", file), 0);
    assert_fails(qb_host_memory_in(root, &m), QB_ERR_IO, "memory.current, so that how much memory there is");
    assert_int_equal(unlink(file), 0);
    assert_true(memory_in(root).available_bytes > 0);
    assert_int_equal(unlink(info), 0);
    assert_true(memory_in(root).available_bytes > 0); /* no /proc: what the system says otherwise */
    assert_int_equal(mkdir(info, 0700), 0);           /* opens, and reading is an error */
    assert_fails(qb_host_memory_in(root, &m), QB_ERR_IO, "meminfo, so that how much memory there is");
    qb_free(file);
    qb_free(info);
    scratch_remove(root);
}

/* ---- an error is not absence: a name that leads to itself is there, and the system cannot say what it is
 * ---- */

#define DEMO QB_SOURCE_DIR "/bench/demo"

/* The demo model with `name` leading to itself. */
static const char *looped_demo(const char *name) {
    static char path[600];
    assert_int_equal(shell("rm -rf looped && cp -r '%1' looped && rm -f looped/%2", DEMO, name), 0);
    snprintf(path, sizeof path, "%s/looped/%s", scratch, name);
    assert_int_equal(symlink(name, path), 0);
    *strrchr(path, '/') = 0;
    return path;
}

static void test_robust__an_error_is_not_absence(void **state) {
    (void)state;
    static const char *const of_tokenizer[] = {"tokenizer.json", "tokenizer_config.json",
                                               "special_tokens_map.json", "added_tokens.json"};
    static const char *const of_checkpoint[] = {"config.json", "quantize_config.json", "model.safetensors"};
    qb_tokenizer *t;
    qb_checkpoint *ck;
    for (size_t i = 0; i < sizeof of_tokenizer / sizeof of_tokenizer[0]; i++) {
        assert_fails(qb_tokenizer_open(looped_demo(of_tokenizer[i]), &t), QB_ERR_IO, of_tokenizer[i]);
        assert_non_null(strstr(qb_error_text(), "cannot look for"));
    }
    for (size_t i = 0; i < sizeof of_checkpoint / sizeof of_checkpoint[0]; i++) {
        assert_fails(qb_checkpoint_open(looped_demo(of_checkpoint[i]), &ck), QB_ERR_IO, of_checkpoint[i]);
        assert_non_null(strstr(qb_error_text(), "cannot look for"));
    }
    /* The hub's cache, and the document of a run. */
    char *word;
    setenv("HF_HUB_CACHE", scratch, 1);
    assert_int_equal(shell("mkdir -p models--a--b/refs models--a--b/snapshots/1 && ln -s main "
                           "models--a--b/refs/main && ln -s r.json r.json",
                           "", ""),
                     0);
    assert_fails(qb_model_resolve("a/b", &word), QB_ERR_IO, "refs/main");
    assert_int_equal(shell("rm models--a--b/refs/main", "", ""), 0);
    assert_ok(qb_model_resolve("a/b", &word));
    qb_free(word);
    /* A snapshot that cannot be seen is not another one. */
    assert_int_equal(
        shell("echo 2 >models--a--b/refs/main && ln -s 2 models--a--b/snapshots/2 && ln -s loop loop", "",
              ""),
        0);
    assert_fails(qb_model_resolve("a/b", &word), QB_ERR_IO, "snapshots/2");
    unsetenv("HF_HUB_CACHE");
    assert_int_equal(
        shell("! %1 eval loop >out 2>err && grep -q 'cannot look for loop' err", QB_BENCH_PROGRAM, ""), 0);
    assert_int_equal(shell("! %1 tokenize demo --dataset ptb --data loop >out 2>err && "
                           "grep -q 'cannot look for loop' err",
                           QB_BENCH_PROGRAM, ""),
                     0);
    assert_int_equal(
        shell("%1 run --suite demo --synthetic --resume -o r.json >out 2>err", QB_BENCH_PROGRAM, ""), 1);
    assert_int_equal(shell("grep -q '^bench: .*r.json: Too many levels' err && test -L r.json", "", ""), 0);
}

/* ---- characters that steer ---- */

static void test_robust__control_characters_reach_no_sink(void **state) {
    (void)state;
    static const char hostile[] = "a\x1b[31mb\xc2\x9b"
                                  "c\xe2\x80\xae"
                                  "d\xd8\x9c"
                                  "e\x7f"
                                  "f\xff"
                                  "g\nh\xc3\xa9";
    qb_str line = {0}, lines = {0};
    qb_text_clean(hostile, 0, &line);
    assert_string_equal(qb_str_get(&line), "a?[31mb?c?d?e?f?g h\xc3\xa9");
    qb_text_clean_lines(hostile, strlen(hostile), &lines);
    assert_string_equal(qb_str_get(&lines), "a?[31mb?c?d?e?f?g\nh\xc3\xa9");
    qb_str_free(&line);
    qb_str_free(&lines);
    qb_json *j = qb_json_object();
    char *text;
    qb_json_put_text(j, "k", hostile);
    assert_ok(qb_json_print(j, false, &text));
    assert_string_equal(text,
                        "{\"k\":\"a\\u001b[31mb\\u009bc\\u202ed\\u061ce\\u007ff\\ufffdg\\nh\xc3\xa9\"}");
    qb_json *back;
    assert_ok(
        qb_json_parse(text, strlen(text), "text", &back)); /* and means the same, but for the broken byte */
    assert_int_equal(strncmp(qb_json_string(qb_json_get(back, "k")), hostile, 19), 0);
    qb_json_free(back);
    qb_json_free(j);
    qb_free(text);
    assert_int_equal(
        shell("%1 inspect \"$(printf 'no\\033[31m\\302\\233such')\" 2>err; grep -q 'no?.31m??*such' err && "
              "! grep -q \"$(printf '\\033')\" err",
              QB_BENCH_PROGRAM, ""),
        0);
}

/* gnuplot takes a string that begins with a quoted quote for an empty one. */
static void test_robust__names_may_begin_with_a_quote(void **state) {
    (void)state;
    static const struct {
        const char *text, *quoted;
    } rows[] = {{"it's", "'it''s'"}, {"'a\\b`c\"", "\"'a\\\\b\\140c\\\"\""}, {"", "''"}};
    for (size_t i = 0; i < 3; i++) {
        qb_str s = {0};
        qb_gnuplot_quote(rows[i].text, &s);
        assert_string_equal(qb_str_get(&s), rows[i].quoted);
        qb_str_free(&s);
    }
    char version[64];
    if (!qb_gnuplot_find(version)) {
        print_message("skipped: no gnuplot\n");
        skip();
    }
    assert_int_equal(shell("sed \"s/: *\\\"demo\\\"/:\\\"'de\\`mo'\\\"/; s/:\\tdemo/x/\" "
                           "'%1/results/baselines/demo.json' >q.json && "
                           "sed -i \"s/\\(\\\"name\\\":\\t\\)\\\"demo\\\"/\\1\\\"'de\\`mo'\\\"/\" q.json && "
                           "grep -q \"'de\" q.json && '%2' plot q.json --out plots --only pareto,memory >out "
                           "2>err || { cat err >&2; false; }",
                           QB_SOURCE_DIR, QB_BENCH_PROGRAM),
                     0);
}

/* The second signal, or the grace that runs out, ends what does not look at the flag. */
static void test_robust__a_second_signal_ends_at_once(void **state) {
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        qb_interrupt_watch();
        raise(SIGTERM);
        if (!qb_interrupted()) _exit(1);
        raise(SIGTERM);
        _exit(2);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 130);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#if !defined(QB_SANITIZED)
        cmocka_unit_test(test_robust__little_address_space_is_no_hang),
        cmocka_unit_test(test_robust__openblas_starts_no_threads),
#endif
        cmocka_unit_test(test_robust__a_limit_of_file_sizes_names_the_file),
        cmocka_unit_test(test_robust__unknown_instruction_sets_are_refused),
        cmocka_unit_test(test_robust__a_file_that_vanishes_is_named),
        cmocka_unit_test(test_robust__the_groups_above_limit_memory_too),
        cmocka_unit_test(test_robust__an_error_is_not_absence),
        cmocka_unit_test(test_robust__control_characters_reach_no_sink),
        cmocka_unit_test(test_robust__names_may_begin_with_a_quote),
        cmocka_unit_test(test_robust__a_second_signal_ends_at_once),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
