#define _GNU_SOURCE
#include "bench/run/child.h"

#include "base/clock.h"
#include "base/json_memory.h"
#include "base/lost_map.h"
#include "base/memory.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;

enum { GRACE_S = 30, EXIT_CODE_INTERRUPTED = 130 };

/* What does not come to a look at the flag (a library that waits, a disk that hangs) ends all the same: after
 * a while, or at the second signal. */
static void end_now(int signal_number) {
    static const char line[] = "bench: interrupted, and ended without waiting for the work\n";
    (void)signal_number;
    (void)!write(STDERR_FILENO, line, sizeof line - 1);
    _exit(EXIT_CODE_INTERRUPTED);
}

static void on_signal(int signal_number) {
    if (interrupted) end_now(signal_number);
    interrupted = 1;
    alarm(GRACE_S);
}

void qb_interrupt_watch(void) {
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: waiting calls return */
    sigemptyset(&action.sa_mask);
    struct sigaction last = {.sa_handler = end_now};
    sigemptyset(&last.sa_mask);
    sigaction(SIGALRM, &last, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction before;
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* nohup stays in force */
        sigaction(SIGHUP, &action, NULL);
}

bool qb_interrupted(void) {
    return interrupted != 0;
}

/* ---- in the child ---- */

static bool write_all(int fd, const char *bytes, size_t n) {
    while (n) {
        ssize_t done = write(fd, bytes, n);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return false;
        bytes += done;
        n -= (size_t)done;
    }
    return true;
}

static int last_fd; /* of the pipe to the parent */

/* In a signal handler: the sentence as a message, without memory or locks. */
static void send_last_words(const char *sentence) {
    char text[1024];
    size_t n = 0;
    static const char head[] = "{\"error\":\"";
    memcpy(text, head, sizeof head - 1);
    n = sizeof head - 1;
    for (const char *p = sentence; *p && n < sizeof text - 40; p++) {
        if (*p == '"' || *p == '\\') text[n++] = '\\';
        text[n++] = *p;
    }
    _Static_assert(QB_ERR_IO < 10, "one digit");
    const char tail[] = {'"', ',', '"', 's', 't', 'a', 't', 'u', 's', '"', ':', '0' + QB_ERR_IO, '}'};
    memcpy(text + n, tail, sizeof tail);
    (void)write_all(last_fd, text, n + sizeof tail);
}

static _Noreturn void child_main(int fd, pid_t parent, qb_child_fn fn, void *ctx) {
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGALRM, SIG_DFL);
    /* No work goes on for a parent that was killed. It may be gone before prctl took effect. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    last_fd = fd;
    qb_lost_map_watch(send_last_words);
    qb_json *result = NULL;
    qb_error_clear();
    qb_json_losses_reset(0); /* the parent's */
    qb_status st = fn(ctx, &result);
    if (st == QB_OK && qb_json_losses())
        st = qb_fail(QB_ERR_MEMORY, "out of memory while its result was built");
    if (qb_json_losses()) {
        qb_json_free(result);
        result = NULL;
        qb_json_losses_reset(0);
    }
    qb_json *message = qb_json_object();
    qb_json_put_int(message, "status", (int64_t)st);
    qb_json_put_text(message, "error", st == QB_OK ? NULL : qb_error_text());
    if (result) qb_json_put(message, "result", result);
    char *text, plain[128];
    if (qb_json_print(message, false, &text) != QB_OK) { /* what is left to say needs no memory */
        snprintf(plain, sizeof plain, "{\"status\":%d,\"error\":\"out of memory for its result\"}",
                 QB_ERR_MEMORY);
        text = plain;
    }
    bool sent = write_all(fd, text, strlen(text));
    fflush(stderr);
    /* Not exit: buffers and handlers of the parent are not the child's to run. */
    _exit(sent ? 0 : 1);
}

/* ---- in the parent ---- */

/* Polls rather than reads blindly: a signal that comes just before a blocking read would not be seen. */
static qb_status read_all(int fd, pid_t pid, qb_str *out) {
    char buffer[65536];
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int n_ready = poll(&ready, 1, 200);
        if (interrupted) kill(pid, SIGTERM);
        if (n_ready <= 0) continue;
        ssize_t n = read(fd, buffer, sizeof buffer);
        if (n > 0)
            qb_str_append(out, buffer, (size_t)n);
        else if (n == 0)
            return qb_str_status(out);
        else if (errno != EINTR)
            return qb_fail(QB_ERR_IO, "cannot read from a child process: %s", strerror(errno));
    }
}

static qb_status died(const char *what, int wait_status, int64_t peak_rss_bytes) {
    char peak[32];
    if (!WIFSIGNALED(wait_status))
        return qb_fail(QB_ERR_INTERNAL, "%s ended with code %d and no result", what,
                       WEXITSTATUS(wait_status));
    int number = WTERMSIG(wait_status);
    return qb_fail(QB_ERR_INTERNAL, "%s was ended by signal %d (%s) when it held %s%s", what, number,
                   strsignal(number), qb_format_bytes((double)peak_rss_bytes, peak),
                   number == SIGKILL ? "; the system kills so when memory runs out" : "");
}

static qb_status take_message(const char *what, const qb_str *text, int wait_status, qb_child_end *end) {
    qb_json *message = NULL;
    qb_status st = QB_ERR_FORMAT;
    for (int tries = 0; text->length && st != QB_OK && tries < 3; tries++) { /* again when memory was short */
        st = qb_json_parse(qb_str_get(text), text->length, what, &message);
        if (st == QB_ERR_FORMAT) break;
    }
    if (st == QB_ERR_MEMORY) return st;
    if (st != QB_OK) return died(what, wait_status, end->peak_rss_bytes);
    st = (qb_status)qb_json_number(qb_json_get(message, "status"));
    const char *error = qb_json_string(qb_json_get(message, "error"));
    end->result = qb_json_take(message, "result");
    if (st != QB_OK) st = qb_fail(st, "%s", error && *error ? error : qb_status_text(st));
    qb_json_free(message);
    return st;
}

qb_status qb_child_run(const char *what, qb_child_fn fn, void *ctx, qb_child_end *end) {
    int ends[2];
    *end = (qb_child_end){0};
    if (interrupted) return qb_fail(QB_ERR_INTERRUPTED, "interrupted");
    if (pipe2(ends, O_CLOEXEC) != 0) return qb_fail(QB_ERR_IO, "cannot make a pipe: %s", strerror(errno));
    /* What is buffered would otherwise be written twice. */
    fflush(stdout);
    fflush(stderr);
    int64_t started = qb_now_ns();
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) {
        int reason = errno;
        close(ends[0]);
        close(ends[1]);
        return qb_fail(QB_ERR_MEMORY, "cannot start a child process: %s", strerror(reason));
    }
    if (pid == 0) {
        close(ends[0]);
        child_main(ends[1], parent, fn, ctx);
    }
    close(ends[1]);
    qb_str text = {0};
    qb_status st = read_all(ends[0], pid, &text);
    close(ends[0]);
    int wait_status = 0;
    struct rusage usage = {0};
    while (wait4(pid, &wait_status, 0, &usage) < 0 && errno == EINTR)
        if (interrupted) kill(pid, SIGTERM);
    end->peak_rss_bytes = (int64_t)usage.ru_maxrss * 1024;
    end->seconds = (double)(qb_now_ns() - started) * 1e-9;
    if (interrupted)
        st = qb_fail(QB_ERR_INTERRUPTED, "interrupted");
    else if (st == QB_OK)
        st = take_message(what, &text, wait_status, end);
    qb_str_free(&text);
    return st;
}
