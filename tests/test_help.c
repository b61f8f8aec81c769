/* bench help TOPIC, and colours: who sees them. */
#define _XOPEN_SOURCE 700
#include "tests/program.h"

#include "bench/help/topics.h"

#include <dirent.h>
#include <stdlib.h>

/* ---- topics ---- */

static void test_help__markdown_becomes_text(void **state) {
    (void)state;
    static const char page[] =
        "# A **head** of `two \\ words`\n\nSome [words](gate.md) and [more](https://a.b/c) of a\nparagraph "
        "that "
        "is wrapped.\n- an item\n  that goes on\n- `[x](y)`\n\n"
        "| a | b | c |\n|---|---:|---|\n| 1 \\| 2 | `x|y` | |\n| | z<br>w | v |\n\n| k | v |\n|---|---|\n| "
        "key | "
        "value |\n```\ncode  | stays\n\n# so\n```\n![picture](p.png)\n<!-- nothing -->\nend";
    static const char expected[] =
        "A head of `two \\ words`\n\n    Some words and more\n    (https://a.b/c) of a\n    paragraph that "
        "is\n    wrapped.\n    - an item that goes\n      on\n    - `[x](y)`\n\n    1 | 2\n        b: "
        "`x|y`\n        b: z w\n        c: v\n\n    key\n        value\n\n        code  | stays\n\n"
        "        # so\n\n    end\n";
    qb_str out = {0};
    qb_markdown_as_text(page, 24, &out);
    assert_string_equal(qb_str_get(&out), expected);
    qb_str_free(&out);
}

static int columns(const char *line, size_t n) {
    int width = 0;
    for (size_t i = 0; i < n; i++) width += ((unsigned char)line[i] & 0xC0) != 0x80;
    return width;
}

/* Every page of a topic: heads, no line that is broken by a terminal but code and long words. */
static void test_help__every_topic_is_a_page(void **state) {
    (void)state;
    for (size_t i = 0; qb_topic_at(i); i++) {
        const qb_topic *topic = qb_topic_at(i);
        outcome o = BENCH("help", topic->name), raw = BENCH("help", topic->name, "markdown");
        assert_worked(&o);
        assert_worked(&raw);
        assert_int_equal(strncmp(raw.out, "# ", 2), 0);
        if (o.n_out < 400) fail_msg("bench help %s has %zu bytes", topic->name, o.n_out);
        for (const char *line = o.out; *line; line += strcspn(line, "\n") + (strchr(line, '\n') != NULL)) {
            size_t n = strcspn(line, "\n"), lead = strspn(line, " ");
            bool breakable = lead < n && memchr(line + lead, ' ', n - lead) && lead != 8 && lead != 0 &&
                             !strchr("{\"", line[lead]); /* heads, code */
            if (breakable && columns(line, n) > 100)
                fail_msg("bench help %s: %.*s", topic->name, (int)n, line);
        }
        if (topic->page) {
            char *path = qb_path_join(QB_SOURCE_DIR "/docs", topic->page), *text;
            size_t n;
            assert_ok(qb_file_read(path, 1 << 22, &text, &n));
            assert_string_equal(raw.out, text);
            qb_free(text);
            qb_free(path);
        }
        outcome_free(&o);
        outcome_free(&raw);
    }
}

/* What docs/ tells users, the program tells too. */
static void test_help__every_page_of_docs_is_a_topic(void **state) {
    (void)state;
    static const char *const others[] = {"ARCHITECTURE.md", "proof.md",
                                         "suites.md"}; /* the last is written by `help suite` */
    DIR *dir = opendir(QB_SOURCE_DIR "/docs");
    assert_non_null(dir);
    int n = 0;
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        size_t length = strlen(e->d_name);
        bool found = length < 3 || strcmp(e->d_name + length - 3, ".md") != 0;
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) found |= !strcmp(e->d_name, others[i]);
        for (size_t i = 0; qb_topic_at(i); i++)
            found |= qb_topic_at(i)->page && !strcmp(e->d_name, qb_topic_at(i)->page);
        if (!found) fail_msg("docs/%s is no topic: bench/help/topics.def", e->d_name);
        n++;
    }
    closedir(dir);
    assert_true(n > 9);
    outcome o = BENCH("help");
    assert_worked(&o);
    for (size_t i = 0; qb_topic_at(i); i++) assert_non_null(strstr(o.out, qb_topic_at(i)->summary));
    outcome_free(&o);
    assert_refused(BENCH("help", "gaet"), 2, "did you mean gate?");
    assert_refused(BENCH("help", "quantise"), 2, "did you mean quantize?");
    assert_refused(BENCH("help", "gate", "html"), 2, "unexpected 'html'");
}

/* ---- colours ---- */

/* What the words print on a terminal; `head` stands before them in a shell. */
static char *on_terminal(const char *head, const char *words) {
    char command[1024];
    qb_str text = {0};
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) {
        print_message("skipped: this system has no terminal to give (is devpts mounted?)\n");
        skip();
    }
    const char *name = ptsname(master);
    assert_non_null(name);
    int slave = open(name, O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    snprintf(command, sizeof command, "%s %s %s", head, QB_BENCH_PROGRAM, words);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(slave, 1);
        dup2(slave, 2);
        close(master);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(121);
    }
    close(slave);
    char bytes[4096];
    for (ssize_t n; (n = read(master, bytes, sizeof bytes)) > 0;) qb_str_append(&text, bytes, (size_t)n);
    close(master);
    (void)wait_code(pid);
    assert_non_null(text.text);
    return text.text;
}

static void test_help__colours_are_for_terminals_that_want_them(void **state) {
    (void)state;
    static const struct {
        const char *head, *words, *has, *lacks;
    } rows[] = {
        {"env -u NO_COLOR TERM=xterm", "help gate", "\033[1mWhat is compared\033[0m", NULL},
        {"env -u NO_COLOR TERM=xterm", "run --help", "\033[1mSYNOPSIS\033[0m", NULL},
        {"env -u NO_COLOR TERM=xterm", "xyzzy", "\033[1;31mbench:\033[0m unknown", NULL},
        {"env NO_COLOR= TERM=xterm", "xyzzy", "\033[1;31mbench:\033[0m unknown", NULL}, /* empty is unset */
        {"env NO_COLOR=1 TERM=xterm", "help gate", "What is compared", "\033"},
        {"env NO_COLOR=1 TERM=xterm", "xyzzy", "bench: unknown", "\033"},
        {"env -u NO_COLOR TERM=dumb", "run --help", "SYNOPSIS", "\033"},
        {"env -u NO_COLOR -u TERM", "run --help", "SYNOPSIS", "\033"},
        {"env -u NO_COLOR TERM=xterm", "run --help --color never", "SYNOPSIS", "\033"},
        {"env NO_COLOR=1 TERM=dumb", "run --help --color=always", "\033[1mSYNOPSIS", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *text = on_terminal(rows[i].head, rows[i].words);
        if (!strstr(text, rows[i].has) || (rows[i].lacks && strstr(text, rows[i].lacks)))
            fail_msg("%s bench %s: %.300s", rows[i].head, rows[i].words, text);
        qb_free(text);
    }
    outcome o = BENCH("run", "--help"); /* into a file */
    assert_null(strchr(o.out, '\033'));
    outcome_free(&o);
    assert_refused(BENCH("list", "--color", "sometimes"), 2, "--color");
}

static void write_result(const char *name, int decode) {
    qb_str text = {0};
    qb_str_printf(
        &text,
        "{\"schema\":\"qb.results/2\",\"context\":{\"program\":{\"name\":\"bench\",\"version\":\"1\"},"
        "\"created\":\"2026-11-22T06:10:00Z\",\"devices\":[]},\"cases\":[{\"id\":\"m/f16/"
        "cpu\",\"status\":\"ok\","
        "\"error\":null,\"config\":{},\"model\":{\"name\":\"m\"},\"metrics\":[{\"name\":\"checkpoint_bytes\","
        "\"value\":%d,"
        "\"unit\":\"B\",\"better\":\"lower\",\"status\":\"ok\"}]}]}",
        decode);
    assert_ok(qb_file_write_atomic(scratch_path(name), text.text, text.length));
    qb_str_free(&text);
}

/* Verdicts are painted on standard output, never in a file or another format. */
static void test_help__verdicts_are_painted(void **state) {
    (void)state;
    write_result("old.json", 100000000);
    write_result("new.json", 200000000);
    char *old = scratch_path("old.json"), *new_one = scratch_path("new.json"), *out = scratch_path("out.txt");
    outcome o = BENCH("compare", old, new_one, "--color", "always", "-o", out);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.out, "\033[1;31mREGRESSION\033[0m"));
    outcome_free(&o);
    char *text;
    size_t n;
    assert_ok(qb_file_read(out, 1 << 20, &text, &n));
    assert_non_null(strstr(text, "REGRESSION"));
    assert_null(strchr(text, '\033'));
    qb_free(text);
    o = BENCH("compare", old, new_one, "--color", "always", "--format", "markdown");
    assert_null(strchr(o.out, '\033'));
    outcome_free(&o);
    o = BENCH("compare", new_one, old, "--color", "always");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "\033[32mimproved\033[0m"));
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help__markdown_becomes_text),
        cmocka_unit_test(test_help__every_topic_is_a_page),
        cmocka_unit_test(test_help__every_page_of_docs_is_a_topic),
        cmocka_unit_test(test_help__colours_are_for_terminals_that_want_them),
        cmocka_unit_test(test_help__verdicts_are_painted),
    };
    return cmocka_run_group_tests(tests, program_begin, program_end);
}
