/* Feeds every file of the given folders (or the files themselves) to the fuzz target once. */
#include "base/file.h"
#include "base/memory.h"
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

static int replay_file(const char *path) {
    char *bytes;
    size_t n;
    if (qb_file_read(path, (size_t)1 << 30, &bytes, &n) != QB_OK) {
        fprintf(stderr, "%s\n", qb_error_text());
        return -1;
    }
    /* An exact copy, so that AddressSanitizer sees a read one byte too far. */
    uint8_t *copy;
    if (qb_alloc(n, 1, &copy) != QB_OK) return -1;
    if (n) memcpy(copy, bytes, n);
    qb_free(bytes);
    LLVMFuzzerTestOneInput(copy, n);
    qb_free(copy);
    return 1;
}

static int replay(const char *path) {
    bool is_dir;
    if (qb_path_look_dir(path, &is_dir) != QB_OK || !is_dir) return replay_file(path);
    DIR *dir = opendir(path);
    int total = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        char *child = qb_path_join(path, e->d_name);
        int n = child ? replay_file(child) : -1;
        qb_free(child);
        if (n < 0) {
            closedir(dir);
            return -1;
        }
        total += n;
    }
    if (dir) closedir(dir);
    return total;
}

int main(int argc, char **argv) {
    int total = 0;
    for (int i = 1; i < argc; i++) {
        int n = replay(argv[i]);
        if (n < 0) return 1;
        total += n;
    }
    printf("%d inputs replayed\n", total);
    return total > 0 ? 0 : 1; /* an empty corpus tests nothing */
}
