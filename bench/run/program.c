#define _GNU_SOURCE
#include "bench/run/program.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "bench/run/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_STARTED = 127, LOG_MAX_BYTES = 1 << 24 };

static _Noreturn void become(const char *const *argv, int log, pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    setpgid(0, 0);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    if (getppid() != parent || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
        _exit(NOT_STARTED);
    /* exec takes words that it does not change, under a type that says it might. */
    union {
        const char *const *words;
        char *const *taken;
    } of = {argv};
    execvp(argv[0], of.taken);
    _exit(NOT_STARTED);
}

qb_status qb_program_run(const char *const *argv, const char *log, int *exit_code) {
    int status = 0, fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    *exit_code = NOT_STARTED;
    if (fd < 0) return qb_fail(QB_ERR_IO, "cannot write %s: %s", log, strerror(errno));
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) become(argv, fd, parent);
    int reason = errno;
    close(fd);
    if (pid > 0) setpgid(pid, pid); /* here too: a signal may come before the child has run */
    if (pid < 0) return qb_fail(QB_ERR_MEMORY, "cannot start %s: %s", argv[0], strerror(reason));
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) return qb_fail(QB_ERR_IO, "cannot wait for %s: %s", argv[0], strerror(errno));
        if (qb_interrupted()) kill(-pid, SIGTERM);
    }
    if (qb_interrupted()) return qb_fail(QB_ERR_INTERRUPTED, "interrupted");
    *exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return *exit_code != NOT_STARTED ? QB_OK : qb_fail(QB_ERR_NOT_FOUND, "%s could not be started", argv[0]);
}

void qb_program_last_line(const char *log, char out[QB_LAST_LINE_CHARS]) {
    char *text = NULL;
    size_t n = 0;
    snprintf(out, QB_LAST_LINE_CHARS, "it said nothing");
    if (qb_file_read(log, LOG_MAX_BYTES, &text, &n) == QB_OK) {
        while (n && (text[n - 1] == '\n' || text[n - 1] == '\r')) text[--n] = 0;
        const char *line = n ? strrchr(text, '\n') : NULL;
        if (n) snprintf(out, QB_LAST_LINE_CHARS, "%s", line ? line + 1 : text);
        qb_clean_line(out);
    } else {
        qb_error_clear();
    }
    qb_free(text);
}
