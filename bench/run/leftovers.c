#include "bench/run/leftovers.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* "NAME.tmp.123" -> 123; 0 for any other name, or when NAME is not `target`. */
static long maker_of(const char *name, const char *target) {
    static const char mark[] = ".tmp.";
    const char *found = NULL;
    for (const char *p = name; (p = strstr(p, mark)); p++) found = p;
    if (!found || found == name) return 0;
    size_t n = (size_t)(found - name);
    if (target && (strlen(target) != n || strncmp(name, target, n) != 0)) return 0;
    char *end;
    long pid = strtol(found + sizeof mark - 1, &end, 10);
    return *end || end == found + sizeof mark - 1 ? 0 : pid;
}

void qb_leftovers_remove(const char *dir, const char *target) {
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        long pid = maker_of(e->d_name, target);
        if (pid <= 0 || kill((pid_t)pid, 0) == 0 || errno != ESRCH) continue;
        char *path = qb_path_join(dir, e->d_name);
        if (path && qb_path_is_dir(path) && qb_remove_tree(path) != QB_OK) qb_warn("%s", qb_error_text());
        qb_free(path);
    }
    if (d) closedir(d);
}
