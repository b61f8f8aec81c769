/* Makes the n-th call of one kind fail in the program it is preloaded into, and counts the calls of every
   kind. QB_FAULT="KIND:N" fails the N-th, "KIND:N+" every one from the N-th on; QB_FAULT_LOG=FILE receives
   the counts. Calls are counted from main on, over the process and all it forks; other programs that it
   starts are left alone. With one thread a count always means the same call. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum kind {
    MALLOC,
    MMAP,
    OPEN,
    READ,
    WRITE,
    RESERVE,
    FSYNC,
    RENAME,
    MKDIR,
    STAT,
    LIST,
    FORK,
    PIPE,
    THREAD,
    N_KINDS
};
static const struct {
    const char *name;
    int error;
} kinds[N_KINDS] = {
    {"malloc", ENOMEM},  {"mmap", ENOMEM}, {"open", EMFILE}, {"read", EIO},      {"write", ENOSPC},
    {"reserve", ENOSPC}, {"fsync", EIO},   {"rename", EIO},  {"mkdir", ENOSPC},  {"stat", EIO},
    {"list", EIO},       {"fork", EAGAIN}, {"pipe", EMFILE}, {"thread", EAGAIN},
};

typedef struct {
    _Atomic long calls[N_KINDS];
    _Atomic long hits;
} counts;
static counts *shared; /* NULL before main and in other programs */
static int wanted = -1;
static long wanted_n;
static bool wanted_more;

static bool fails(enum kind k) {
    if (!shared) return false;
    long n = atomic_fetch_add(&shared->calls[k], 1) + 1;
    if ((int)k != wanted || !(n == wanted_n || (wanted_more && n > wanted_n))) return false;
    atomic_fetch_add(&shared->hits, 1);
    errno = kinds[k].error;
    return true;
}

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

/* ---- where counting begins and ends ---- */

static int (*program_main)(int, char **, char **);
static pid_t first;

static void log_counts(void) {
    const char *path = getenv("QB_FAULT_LOG");
    counts *c = shared;
    if (!path || !c || getpid() != first) return;
    shared = NULL;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    for (int k = 0; fd >= 0 && k < N_KINDS; k++)
        dprintf(fd, "%s %ld\n", kinds[k].name, atomic_load(&c->calls[k]));
    if (fd >= 0) dprintf(fd, "hits %ld\n", atomic_load(&c->hits));
    if (fd >= 0) close(fd);
}

static int counted_main(int argc, char **argv, char **environment) {
    const char *fault = getenv("QB_FAULT"), *program = strrchr(argv[0], '/');
    if (strcmp(program ? program + 1 : argv[0], "bench") != 0) return program_main(argc, argv, environment);
    for (int k = 0; fault && k < N_KINDS; k++) {
        size_t n = strlen(kinds[k].name);
        if (strncmp(fault, kinds[k].name, n) != 0 || fault[n] != ':') continue;
        char *end;
        wanted = k;
        wanted_n = strtol(fault + n + 1, &end, 10);
        wanted_more = *end == '+';
    }
    void *page = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) abort();
    first = getpid();
    atexit(log_counts);
    shared = page;
    return program_main(argc, argv, environment);
}

typedef int start_fn(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void),
                     void (*)(void), void *);
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *stack_end);
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *stack_end) {
    program_main = main;
    return ((start_fn *)real("__libc_start_main"))(counted_main, argc, argv, init, fini, rtld_fini,
                                                   stack_end);
}

/* ---- memory; glibc's own names, because dlsym itself allocates ---- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *old, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

void *malloc(size_t n) {
    return fails(MALLOC) ? NULL : __libc_malloc(n);
}
void *calloc(size_t count, size_t n) {
    return fails(MALLOC) ? NULL : __libc_calloc(count, n);
}
void *realloc(void *old, size_t n) {
    return n && fails(MALLOC) ? NULL : __libc_realloc(old, n);
}
void *aligned_alloc(size_t alignment, size_t n) {
    return fails(MALLOC) ? NULL : __libc_memalign(alignment, n);
}
int posix_memalign(void **out, size_t alignment, size_t n) {
    if (fails(MALLOC)) return ENOMEM;
    void *p = __libc_memalign(alignment, n);
    if (p) *out = p;
    return p ? 0 : ENOMEM;
}
void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    return fails(MMAP) ? MAP_FAILED : REAL(mmap)(at, n, protection, flags, fd, offset);
}

/* ---- files ---- */

static mode_t mode_of(int flags, va_list args) {
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(args, int) : 0;
}
int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return fails(OPEN) ? -1 : REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return fails(OPEN) ? -1 : REAL(open)(path, flags, mode);
}
FILE *fopen(const char *path, const char *mode) {
    return fails(OPEN) ? NULL : REAL(fopen)(path, mode);
}
FILE *fdopen(int fd, const char *mode) {
    return fails(OPEN) ? NULL : REAL(fdopen)(fd, mode);
}
ssize_t read(int fd, void *to, size_t n) {
    return fails(READ) ? -1 : REAL(read)(fd, to, n);
}
ssize_t pread(int fd, void *to, size_t n, off_t at) {
    return fails(READ) ? -1 : REAL(pread)(fd, to, n, at);
}
size_t fread(void *to, size_t size, size_t n, FILE *file) {
    if (!fails(READ)) return REAL(fread)(to, size, n, file);
    file->_flags |= 0x20; /* _IO_ERR_SEEN, so that ferror tells */
    errno = EIO;
    return 0;
}
/* Standard error is how the fault is told; from N on the disk is full, but pipes are not. */
static bool is_spared(int fd) {
    struct stat info;
    return fd <= 2 || (wanted_more && (REAL(fstat)(fd, &info) != 0 || !S_ISREG(info.st_mode)));
}
ssize_t write(int fd, const void *from, size_t n) {
    return !is_spared(fd) && fails(WRITE) ? -1 : REAL(write)(fd, from, n);
}
ssize_t pwrite(int fd, const void *from, size_t n, off_t at) {
    return !is_spared(fd) && fails(WRITE) ? -1 : REAL(pwrite)(fd, from, n, at);
}
int posix_fallocate(int fd, off_t from, off_t n) {
    return fails(RESERVE) ? ENOSPC : REAL(posix_fallocate)(fd, from, n);
}
int ftruncate(int fd, off_t n) {
    return fails(RESERVE) ? -1 : REAL(ftruncate)(fd, n);
}
int fsync(int fd) {
    return fails(FSYNC) ? -1 : REAL(fsync)(fd);
}
int rename(const char *from, const char *to) {
    return fails(RENAME) ? -1 : REAL(rename)(from, to);
}
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return fails(RENAME) ? -1 : REAL(renameat2)(from_dir, from, to_dir, to, flags);
}
int mkdir(const char *path, mode_t mode) {
    return fails(MKDIR) ? -1 : REAL(mkdir)(path, mode);
}
int stat(const char *path, struct stat *out) {
    return fails(STAT) ? -1 : REAL(stat)(path, out);
}
int lstat(const char *path, struct stat *out) {
    return fails(STAT) ? -1 : REAL(lstat)(path, out);
}
int fstat(int fd, struct stat *out) {
    return fails(STAT) ? -1 : REAL(fstat)(fd, out);
}
int access(const char *path, int mode) {
    return fails(STAT) ? -1 : REAL(access)(path, mode);
}
char *realpath(const char *path, char *out) {
    return fails(STAT) ? NULL : REAL(realpath)(path, out);
}
DIR *opendir(const char *path) {
    return fails(LIST) ? NULL : REAL(opendir)(path);
}
struct dirent *readdir(DIR *dir) {
    return fails(LIST) ? NULL : REAL(readdir)(dir);
}

/* ---- processes ---- */

pid_t fork(void) {
    return fails(FORK) ? -1 : REAL(fork)();
}
int pipe2(int ends[2], int flags) {
    return fails(PIPE) ? -1 : REAL(pipe2)(ends, flags);
}
int pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*work)(void *), void *argument) {
    return fails(THREAD) ? EAGAIN : REAL(pthread_create)(id, attributes, work, argument);
}
