/* Quantizing that is killed at any point goes on where it was and gives the same bytes. */
#include "tests/checkpoint_files.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/lock.h"
#include "checkpoint/writer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static char *scratch;
static const char demo[] = QB_SOURCE_DIR "/bench/demo";

static const char *below(const char *name) {
    static char paths[16][1024];
    static int next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

static int make_scratch(void **state) {
    (void)state;
    scratch = scratch_make();
    setenv("BENCH_CACHE", below("cache"), 1);
    return 0;
}
static int remove_scratch(void **state) {
    (void)state;
    scratch_remove(scratch);
    return 0;
}

/* ---- the writer ---- */

static const char mark[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
enum { N_TENSORS = 6 };

static qb_writer *begin_over(const char *dir, bool replace, const char *fingerprint, bool resume) {
    qb_writer *w;
    char name[16];
    assert_ok(qb_writer_create_resumable(dir, replace, 100, fingerprint, resume, &w));
    for (int i = 0; i < N_TENSORS; i++) {
        snprintf(name, sizeof name, "t%d", i);
        assert_ok(qb_writer_plan(w, name, QB_DTYPE_U8, 1, (int64_t[]){40}));
    }
    assert_ok(qb_writer_begin(w));
    return w;
}

static qb_writer *begin(const char *dir, const char *fingerprint, bool resume) {
    return begin_over(dir, false, fingerprint, resume);
}

static void put(qb_writer *w, int i) {
    char name[16];
    uint8_t bytes[40];
    snprintf(name, sizeof name, "t%d", i);
    memset(bytes, 'a' + i, sizeof bytes);
    assert_ok(qb_writer_put(w, name, bytes, sizeof bytes));
}

static void save(qb_writer *w, int blocks) {
    qb_json *state = qb_json_object();
    qb_json_put_int(state, "blocks", blocks);
    assert_ok(qb_writer_save(w, state));
}

static int saved_blocks(const qb_writer *w) {
    const qb_json *state = qb_writer_saved(w);
    return state ? (int)qb_json_number(qb_json_get(state, "blocks")) : -1;
}

static void finish(qb_writer *w, const char *dir) {
    qb_json *config = qb_json_object();
    assert_ok(qb_writer_put_json(w, "config.json", config));
    qb_json_free(config);
    assert_ok(qb_writer_finish(w));
    qb_checkpoint *ck;
    assert_ok(qb_checkpoint_open(dir, &ck));
    assert_int_equal((int)qb_checkpoint_count(ck), N_TENSORS);
    for (int i = 0; i < N_TENSORS; i++) {
        const qb_tensor *t = qb_checkpoint_at(ck, (size_t)i);
        const void *bytes;
        assert_ok(qb_checkpoint_acquire(ck, t, &bytes));
        assert_int_equal(*(const char *)bytes, 'a' + (t->name[1] - '0'));
        qb_checkpoint_release(ck, t);
    }
    qb_checkpoint_close(ck);
}

static void test_resume__a_writer_takes_up_what_was_saved(void **state) {
    (void)state;
    const char *dir = below("taken");
    qb_writer *w = begin(dir, mark, true);
    assert_int_equal(saved_blocks(w), -1);
    put(w, 0);
    put(w, 1);
    save(w, 1);
    put(w, 2); /* not saved: to be put again */
    qb_writer_keep(w);
    write_text(below("taken.partial/checkpoint"), "config.json.tmp.1", "half");
    w = begin(dir, mark, true);
    assert_int_equal(saved_blocks(w), 1);
    uint8_t bytes[40] = {0};
    assert_fails(qb_writer_put(w, "t0", bytes, 40), QB_ERR_INTERNAL, "is put twice");
    for (int i = 2; i < N_TENSORS; i++) put(w, i);
    finish(w, dir);
    assert_false(qb_path_exists(below("taken.partial")));
    assert_false(qb_path_exists(below("taken/config.json.tmp.1")));
    assert_false(qb_path_exists(below("taken/progress.json")));
}

static void test_resume__another_fingerprint_or_plan_begins_anew(void **state) {
    (void)state;
    const char *dir = below("anew");
    static const struct {
        const char *fingerprint;
        bool resume;
    } rows[] = {{"other", true}, {mark, false}};
    for (size_t i = 0; i < 2; i++) {
        qb_writer *w = begin(dir, mark, true);
        put(w, 0);
        save(w, 1);
        qb_writer_keep(w);
        w = begin(dir, rows[i].fingerprint, rows[i].resume);
        assert_int_equal(saved_blocks(w), -1);
        qb_writer_abort(w);
        assert_false(qb_path_exists(below("anew.partial")));
    }
    qb_writer *w = begin(dir, mark, true);
    put(w, 0);
    save(w, 1);
    qb_writer_keep(w);
    assert_ok(qb_writer_create_resumable(dir, false, 100, mark, true, &w));
    assert_ok(qb_writer_plan(w, "t0", QB_DTYPE_U8, 1, (int64_t[]){41}));
    assert_ok(qb_writer_begin(w));
    assert_int_equal(saved_blocks(w), -1);
    qb_writer_abort(w);
}

/* What someone or something did to the directory is noticed, and never trusted. */
static void test_resume__damage_begins_anew(void **state) {
    (void)state;
    const char *dir = below("damaged");
    static const char *const journals[] = {
        "", "{", "[]", "{\"schema\":\"qb.progress/1\"}",
        "{\"schema\":\"qb.progress/1\",\"fingerprint\":3,\"plan\":null,\"put\":[],\"state\":{}}"};
    size_t n = sizeof journals / sizeof journals[0];
    for (size_t i = 0; i < n + 3; i++) {
        qb_writer *w = begin(dir, mark, true);
        put(w, 0);
        save(w, 1);
        qb_writer_keep(w);
        char *text = NULL;
        size_t size;
        assert_ok(qb_file_read(below("damaged.partial/progress.json"), 1 << 20, &text, &size));
        if (i < n) write_text(below("damaged.partial"), "progress.json", journals[i]);
        if (i == n) { /* one digit too many */
            char *at = strstr(text, "\"put\":");
            assert_non_null(at);
            memcpy(strchr(at + 6, '"') + 1, "x", 1);
            write_text(below("damaged.partial"), "progress.json", text);
        }
        if (i == n + 1)
            write_text(below("damaged.partial/checkpoint"), "model-00001-of-00003.safetensors", "short");
        if (i == n + 2)
            assert_int_equal(unlink(below("damaged.partial/checkpoint/model-00002-of-00003.safetensors")), 0);
        qb_free(text);
        w = begin(dir, mark, true);
        assert_int_equal(saved_blocks(w), -1);
        for (int t = 0; t < N_TENSORS; t++) put(w, t);
        finish(w, dir);
        assert_ok(qb_remove_tree(dir));
    }
}

static void test_resume__a_second_writer_is_refused(void **state) {
    (void)state;
    qb_writer *w = begin(below("shared"), mark, true), *second;
    assert_fails(qb_writer_create_resumable(below("shared"), false, 0, mark, true, &second), QB_ERR_IO,
                 "another process is writing");
    assert_true(qb_path_exists(below("shared.partial/checkpoint")));
    qb_writer_abort(w);
}

static void move(const char *from, const char *to) {
    assert_int_equal(rename(from, to), 0);
}

/* Killed when TARGET.partial/checkpoint had become the target: the next one removes the rest, though it is
   refused. */
static void test_resume__what_a_published_run_left_is_removed(void **state) {
    (void)state;
    qb_writer *w = begin(below("out"), mark, true);
    for (int i = 0; i < N_TENSORS; i++) put(w, i);
    save(w, 1);
    qb_writer_keep(w);
    write_text(below("out.partial/checkpoint"), "config.json", "{}");
    move(below("out.partial/checkpoint"), below("out"));
    assert_true(qb_path_exists(below("out.partial/progress.json")));
    assert_fails(qb_writer_create_resumable(below("out"), false, 100, mark, true, &w), QB_ERR_IO,
                 "exists and is not empty");
    assert_false(qb_path_exists(below("out.partial")));
    assert_ok(qb_make_dirs(below("out.partial"))); /* somebody's own */
    write_text(below("out.partial"), "notes", "mine");
    assert_fails(qb_writer_create_resumable(below("out"), false, 100, mark, true, &w), QB_ERR_IO,
                 "exists and is not empty");
    assert_fails(qb_writer_create_resumable(below("out"), true, 100, mark, true, &w), QB_ERR_IO,
                 "was not left by an interrupted run");
    assert_true(qb_path_exists(below("out.partial/notes")));
}

/* Killed when it had been exchanged for an older one, whose shards look the same: they are not taken for what
   was done. */
static void test_resume__a_replaced_checkpoint_is_not_taken_up(void **state) {
    (void)state;
    qb_writer *w = begin(below("old"), "older", true);
    for (int i = 0; i < N_TENSORS; i++) put(w, i);
    finish(w, below("old"));
    w = begin_over(below("old"), true, mark, true);
    for (int i = 0; i < N_TENSORS; i++) put(w, i);
    save(w, 1);
    qb_writer_keep(w);
    w = begin_over(below("old"), true, mark, true); /* what is half made is, beside a target too */
    assert_int_equal(saved_blocks(w), 1);
    save(w, 2);
    qb_writer_keep(w);
    move(below("old"), below("aside"));
    move(below("old.partial/checkpoint"), below("old"));
    move(below("aside"), below("old.partial/checkpoint"));
    w = begin_over(below("old"), true, mark, true);
    assert_int_equal(saved_blocks(w), -1);
    qb_writer_abort(w);
    assert_false(qb_path_exists(below("old.partial")));
}

/* ---- the program ---- */

static pid_t start(const char *out, const char *const *more) {
    const char *argv[40] = {"bench",
                            "quantize",
                            demo,
                            "--method",
                            "gptq",
                            "--bits",
                            "4",
                            "--group-size",
                            "32",
                            "--act-order",
                            "--calibration",
                            QB_SOURCE_DIR "/README.md",
                            "--samples",
                            "24",
                            "--seqlen",
                            "128",
                            "--shard-size",
                            "0.0003",
                            "-o",
                            out};
    int n = 20;
    while (more && *more) argv[n++] = *more++;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid) return pid;
    int log = open(below("log"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (log < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) _exit(120);
    execv(QB_BENCH_PROGRAM, (char **)(uintptr_t)argv);
    _exit(121);
}

static int wait_for(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0) assert_int_equal(errno, EINTR);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool log_has(const char *needle) {
    char *text;
    size_t n;
    assert_ok(qb_file_read(below("log"), 1 << 20, &text, &n));
    bool found = strstr(text, needle) != NULL;
    qb_free(text);
    return found;
}

static void assert_worked(pid_t pid) {
    if (wait_for(pid) == 0) return;
    char *text;
    size_t n;
    assert_ok(qb_file_read(below("log"), 1 << 20, &text, &n));
    fail_msg("%s", text);
}

/* All but what names times and the command line. */
static void assert_same_files(const char *a, const char *b) {
    DIR *dir = opendir(a);
    int shards = 0;
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.' || !strcmp(e->d_name, "quantize_report.json") ||
            !strcmp(e->d_name, "README.md"))
            continue;
        char *x = qb_path_join(a, e->d_name), *y = qb_path_join(b, e->d_name), *p, *q;
        size_t n, k;
        assert_ok(qb_file_read(x, 64 << 20, &p, &n));
        assert_ok(qb_file_read(y, 64 << 20, &q, &k));
        if (n != k || memcmp(p, q, n) != 0) fail_msg("%s differs", e->d_name);
        shards += strstr(e->d_name, "-of-") != NULL;
        qb_free(x);
        qb_free(y);
        qb_free(p);
        qb_free(q);
    }
    closedir(dir);
    assert_true(shards > 1);
}

static void pause_ms(long ms) {
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static bool has_saved(const char *path) {
    qb_json *j = NULL;
    if (!qb_path_exists(path) || qb_json_read(path, 1 << 20, &j) != QB_OK) return false;
    double blocks = qb_json_number(qb_json_get(qb_json_get(j, "state"), "blocks"));
    qb_json_free(j);
    return blocks >= 1;
}

/* Killed again and again, each time a little later; what is saved is never lost. */
static void test_resume__killed_again_and_again_it_gives_the_same_bytes(void **state) {
    (void)state;
    int resumed = 0, kills = 0;
    int64_t begun = qb_now_ns();
    assert_worked(start(below("whole"), NULL));
    long step = (long)((qb_now_ns() - begun) / 1000000 / 60 + 1); /* slow machines get longer ones */
    for (; !qb_path_exists(below("broken")) && kills < 300; kills++) {
        pid_t pid = start(below("broken"), NULL);
        pause_ms(step * (kills + 1));
        kill(pid, SIGKILL);
        wait_for(pid);
        resumed += log_has("going on after block");
    }
    assert_true(qb_path_exists(below("broken")));
    assert_same_files(below("whole"), below("broken"));
    /* Killed between its last two steps, which a kill seldom meets: what it left the next one removes. */
    assert_ok(qb_make_dirs(below("broken.partial")));
    write_text(below("broken.partial"), "progress.json", "{}");
    assert_int_not_equal(wait_for(start(below("broken"), NULL)), 0);
    assert_true(log_has("exists already"));
    assert_false(qb_path_exists(below("broken.partial")));
    print_message("%d runs, %d of them went on from a saved block\n", kills, resumed);
}

/* A run that is stopped behind a finished block: what comes next depends on what is asked for. */
static void leave_partial(const char *out, const char *progress, const char *const *more) {
    pid_t pid = start(out, more);
    for (int i = 0; i < 6000 && !has_saved(progress); i++) pause_ms(1);
    kill(pid, SIGKILL);
    wait_for(pid);
    if (qb_path_exists(out)) {
        print_message("skipped: the run was over before it could be stopped\n");
        skip();
    }
}

static void test_resume__says_what_it_does(void **state) {
    (void)state;
    const char *out = below("said");
    leave_partial(out, below("said.partial/progress.json"), NULL);
    assert_worked(start(out, NULL));
    assert_true(log_has("going on after block"));
    leave_partial(below("said2"), below("said2.partial/progress.json"), NULL);
    assert_worked(start(below("said2"), (const char *const[]){"--seed", "7", NULL}));
    assert_true(log_has("starting anew"));
    leave_partial(below("said3"), below("said3.partial/progress.json"), NULL);
    assert_worked(start(below("said3"), (const char *const[]){"--no-resume", NULL}));
    assert_false(log_has("going on after block"));
    assert_same_files(out, below("said3"));
}

/* From the stored stream the same bytes come; one that is damaged is not believed. */
static void test_resume__the_stream_is_taken_from_the_disk(void **state) {
    (void)state;
    static const char *const stored[] = {"--save-every", "0", NULL};
    assert_worked(start(below("streamless"), NULL));
    for (int damaged = 0; damaged < 2; damaged++) {
        const char *out = below(damaged ? "stream2" : "stream1");
        char file[1100], progress[1100];
        snprintf(file, sizeof file, "%s.partial/stream", out);
        snprintf(progress, sizeof progress, "%s.partial/progress.json", out);
        leave_partial(out, progress, stored);
        for (int i = 0; i < 20 && !qb_path_exists(file); i++) { /* killed before it was there: once more */
            pid_t pid = start(out, stored);
            for (int ms = 0; ms < 6000 && !qb_path_exists(file) && !qb_path_exists(out); ms++) pause_ms(1);
            kill(pid, SIGKILL);
            wait_for(pid);
        }
        if (qb_path_exists(out)) {
            print_message("skipped: the run was over before it could be stopped\n");
            skip();
        }
        if (damaged) {
            int fd = open(file, O_RDWR);
            char byte;
            assert_int_equal(pread(fd, &byte, 1, 5000), 1);
            byte ^= 1;
            assert_int_equal(pwrite(fd, &byte, 1, 5000), 1);
            close(fd);
        }
        assert_worked(start(out, stored));
        assert_true(log_has("going on after block"));
        assert_int_equal(log_has("stream is not whole"), damaged);
        assert_same_files(below("streamless"), out);
    }
}

static void test_resume__interrupted_it_keeps_what_is_done(void **state) {
    (void)state;
    pid_t pid = start(below("stopped"), NULL);
    for (int i = 0; i < 6000 && !has_saved(below("stopped.partial/progress.json")); i++) pause_ms(1);
    kill(pid, SIGINT);
    int code = wait_for(pid);
    if (code == 0) {
        print_message("skipped: the run was over before it could be stopped\n");
        skip();
    }
    assert_int_equal(code, 130);
    assert_true(log_has("the same command goes on from there"));
    assert_true(qb_path_exists(below("stopped.partial/progress.json")));
}

/* Two at once: the second says who holds the directory and leaves it alone. */
static void test_resume__a_second_process_is_refused(void **state) {
    (void)state;
    assert_int_equal(mkdir(below("held.partial"), 0700), 0);
    int fd = open(below("held.partial/lock"), O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0 && qb_lock_try(fd, QB_LOCK_EXCLUSIVE) == QB_LOCK_TAKEN);
    assert_int_equal(wait_for(start(below("held"), NULL)), 1);
    assert_true(log_has("another process is writing"));
    close(fd);
    assert_worked(start(below("held"), NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume__a_writer_takes_up_what_was_saved),
        cmocka_unit_test(test_resume__another_fingerprint_or_plan_begins_anew),
        cmocka_unit_test(test_resume__damage_begins_anew),
        cmocka_unit_test(test_resume__a_second_writer_is_refused),
        cmocka_unit_test(test_resume__what_a_published_run_left_is_removed),
        cmocka_unit_test(test_resume__a_replaced_checkpoint_is_not_taken_up),
        cmocka_unit_test(test_resume__killed_again_and_again_it_gives_the_same_bytes),
        cmocka_unit_test(test_resume__says_what_it_does),
        cmocka_unit_test(test_resume__the_stream_is_taken_from_the_disk),
        cmocka_unit_test(test_resume__interrupted_it_keeps_what_is_done),
        cmocka_unit_test(test_resume__a_second_process_is_refused),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
