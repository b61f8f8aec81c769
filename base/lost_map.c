#include "base/lost_map.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MOST_MAPS = 1024, PATH_SHOWN = 400 };

/* The handler takes no lock: an entry is in use while its address is set, which happens last. */
typedef struct {
    _Atomic uintptr_t at;
    size_t n;
    char path[PATH_SHOWN];
} entry;
static entry entries[MOST_MAPS];
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;
static qb_last_words last_words;

void qb_lost_map_add(const void *at, size_t n, const char *path) {
    pthread_mutex_lock(&changing);
    for (size_t i = 0; i < MOST_MAPS; i++) {
        if (atomic_load(&entries[i].at)) continue;
        size_t length = strlen(path), skipped = length < PATH_SHOWN ? 0 : length - PATH_SHOWN + 1;
        entries[i].n = n;
        memcpy(entries[i].path, path + skipped, length - skipped + 1);
        atomic_store(&entries[i].at, (uintptr_t)at);
        break;
    }
    pthread_mutex_unlock(&changing);
}

void qb_lost_map_remove(const void *at) {
    pthread_mutex_lock(&changing);
    for (size_t i = 0; i < MOST_MAPS; i++)
        if (atomic_load(&entries[i].at) == (uintptr_t)at) atomic_store(&entries[i].at, 0);
    pthread_mutex_unlock(&changing);
}

static void on_bus_error(int number, siginfo_t *info, void *context) {
    (void)context;
    uintptr_t where = (uintptr_t)info->si_addr;
    for (size_t i = 0; i < MOST_MAPS; i++) {
        uintptr_t at = atomic_load(&entries[i].at);
        size_t page = 65536; /* the last page reaches beyond the file's end */
        if (!at || where < at || where - at >= entries[i].n + page) continue;
        char sentence[PATH_SHOWN + 160];
        size_t n = 0;
        const char *parts[] = {
            entries[i].path,
            " cannot be read any more: it was cut short or removed while it was in use, or its "
            "disk has a fault"};
        for (size_t k = 0; k < 2; k++)
            for (const char *p = parts[k]; *p && n + 1 < sizeof sentence; p++)
                sentence[n++] = (char)((unsigned char)*p < 0x20 || *p == 0x7F ? '?' : *p);
        sentence[n] = 0;
        if (last_words) {
            last_words(sentence);
        } else {
            (void)!write(STDERR_FILENO, "bench: ", 7);
            (void)!write(STDERR_FILENO, sentence, n);
            (void)!write(STDERR_FILENO, "\n", 1);
        }
        _exit(1);
    }
    signal(number, SIG_DFL); /* not a file of ours: as if nobody had watched */
    raise(number);
}

void qb_lost_map_watch(qb_last_words tell) {
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    last_words = tell;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}
