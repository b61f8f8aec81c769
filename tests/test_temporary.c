/* Temporary files and directories, and whose they are; locks between processes. */
#include "tests/support.h"

#include "base/lock.h"
#include "base/temporary.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <utime.h>

static const char *below(const char *dir, const char *name) {
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

/* Runs in a child that then waits to be killed; 'y' comes back when it is ready. */
static pid_t start(void (*work)(const char *), const char *argument) {
    int ends[2];
    char ready = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        work(argument);
        (void)!write(ends[1], "y", 1);
        for (;;) pause();
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &ready, 1), 1);
    close(ends[0]);
    return pid;
}

static void end(pid_t pid) {
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static char *made; /* name of what the test itself made last */

static void make_both(const char *target) {
    qb_temporary_dir dir;
    int fd;
    if (qb_temporary_file(target, 0600, &made, &fd) != QB_OK || qb_temporary_dir_make(target, &dir) != QB_OK)
        _exit(1);
}

static int entries(const char *dir) {
    char command[600];
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", dir);
    FILE *f = popen(command, "r");
    int n = -1;
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &n), 1);
    pclose(f);
    return n;
}

static void test_temporary__what_the_dead_left_goes_what_the_living_hold_stays(void **state) {
    (void)state;
    char *dir = scratch_make();
    pid_t pid = start(make_both, below(dir, "w4"));
    assert_int_equal(entries(dir), 2);
    qb_temporary_sweep(dir, NULL);
    assert_int_equal(entries(dir), 2);
    end(pid);
    qb_temporary_sweep(dir, "w3"); /* another target's */
    assert_int_equal(entries(dir), 2);
    qb_temporary_sweep(dir, "w4");
    assert_int_equal(entries(dir), 0);
    scratch_remove(dir);
}

static void test_temporary__foreign_names_are_left_alone(void **state) {
    (void)state;
    static const char *const names[] = {"w4.tmp.1",
                                        "w4.tmp.x",
                                        "w4.tmp.0123456789ab.x.0",
                                        "w4.tmp.0123456789ab.7",
                                        ".tmp.0123456789ab.7.0",
                                        "w4.tmp.0123456789AB.7.0"};
    char *dir = scratch_make();
    for (size_t i = 0; i < 6; i++) assert_ok(qb_make_dirs(below(dir, names[i])));
    qb_temporary_sweep(dir, NULL);
    assert_int_equal(entries(dir), 6);
    scratch_remove(dir);
}

/* A process of another machine on a shared disk: its id says nothing here. Only a free lock and a day do. */
static void test_temporary__another_machines_work_is_not_removed(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *theirs = below(dir, "w4.tmp.00000000000a.999999.0");
    struct utimbuf old = {time(NULL) - 100000, time(NULL) - 100000};
    assert_ok(qb_make_dirs(theirs));
    qb_temporary_sweep(dir, NULL); /* no lock file: whether it lives cannot be said */
    assert_true(qb_path_exists(theirs));
    assert_ok(qb_file_write_atomic(below(dir, "w4.tmp.00000000000a.999999.0/lock"), "", 0));
    qb_temporary_sweep(dir, NULL); /* free, but fresh */
    assert_true(qb_path_exists(theirs));
    int fd = open(below(dir, "w4.tmp.00000000000a.999999.0/lock"), O_RDWR);
    assert_int_equal(qb_lock_try(fd, QB_LOCK_EXCLUSIVE), QB_LOCK_TAKEN);
    assert_int_equal(utime(theirs, &old), 0);
    qb_temporary_sweep(dir, NULL); /* old, but held */
    assert_true(qb_path_exists(theirs));
    close(fd);
    qb_temporary_sweep(dir, NULL);
    assert_false(qb_path_exists(theirs));
    scratch_remove(dir);
}

/* What stands where a lock file should, and cannot be locked, is never "free". */
static void test_temporary__an_error_is_not_a_free_lock(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *theirs = below(dir, "w4.tmp.00000000000a.999999.0");
    struct utimbuf old = {time(NULL) - 100000, time(NULL) - 100000};
    assert_ok(qb_make_dirs(below(dir, "w4.tmp.00000000000a.999999.0/lock")));
    assert_int_equal(utime(theirs, &old), 0);
    qb_temporary_sweep(dir, NULL);
    assert_true(qb_path_exists(theirs));
    scratch_remove(dir);
}

/* Names are taken exclusively: what somebody put there beforehand is neither opened nor followed. */
static void test_temporary__names_are_exclusive(void **state) {
    (void)state;
    char *dir = scratch_make(), *first, *second;
    int a, b;
    assert_ok(qb_temporary_file(below(dir, "x"), 0600, &first, &a));
    assert_ok(qb_temporary_file(below(dir, "x"), 0600, &second, &b));
    assert_string_not_equal(first, second);
    /* The next name is known: a link in its place must not be written through. */
    char next[600];
    size_t stem = (size_t)(strrchr(second, '.') - second) + 1;
    snprintf(next, sizeof next, "%.*s%ld", (int)stem, second, strtol(second + stem, NULL, 10) + 1);
    assert_int_equal(symlink(below(dir, "victim"), next), 0);
    assert_ok(qb_file_write_atomic(below(dir, "y"), "text", 4));
    close(a);
    close(b);
    qb_free(first);
    assert_ok(qb_temporary_file(below(dir, "x"), 0600, &first, &a));
    assert_false(qb_path_exists(below(dir, "victim")));
    close(a);
    qb_free(first);
    qb_free(second);
    scratch_remove(dir);
}

static void share(const char *path) {
    qb_file_lock lock;
    qb_lock_answer answer;
    if (qb_file_lock_try(path, QB_LOCK_SHARED, &lock, &answer) != QB_OK || answer != QB_LOCK_TAKEN) _exit(1);
}

static void test_lock__shared_by_several_exclusive_for_one(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *path = below(dir, "entry");
    qb_file_lock lock;
    qb_lock_answer answer;
    pid_t pid = start(share, path);
    assert_ok(qb_file_lock_try(path, QB_LOCK_EXCLUSIVE, &lock, &answer));
    assert_int_equal(answer, QB_LOCK_BUSY);
    assert_ok(qb_file_lock_try(path, QB_LOCK_SHARED, &lock, &answer));
    assert_int_equal(answer, QB_LOCK_TAKEN);
    qb_file_unlock(
        &lock); /* the other still holds it: the file must stay, or a new one would be a new lock */
    assert_true(qb_path_exists(below(dir, "entry.lock")));
    assert_ok(qb_file_lock_try(path, QB_LOCK_EXCLUSIVE, &lock, &answer));
    assert_int_equal(answer, QB_LOCK_BUSY);
    end(pid);
    assert_ok(qb_file_lock_try(path, QB_LOCK_EXCLUSIVE, &lock, &answer));
    assert_int_equal(answer, QB_LOCK_TAKEN);
    qb_file_unlock(&lock);
    assert_int_equal(entries(dir), 0);
    scratch_remove(dir);
}

static void test_path__an_error_is_not_absence(void **state) {
    (void)state;
    char *dir = scratch_make();
    bool there = true;
    assert_ok(qb_path_look(below(dir, "absent"), &there));
    assert_false(there);
    assert_ok(qb_path_look(dir, &there));
    assert_true(there);
    assert_int_equal(symlink("loop", below(dir, "loop")), 0);
    assert_fails(qb_path_look(below(dir, "loop"), &there), QB_ERR_IO, "cannot look for");
    int64_t bytes;
    assert_ok(qb_path_look_dir(dir, &there));
    assert_true(there);
    assert_ok(qb_path_look_dir(below(dir, "absent"), &there));
    assert_false(there);
    assert_ok(qb_file_write_atomic(below(dir, "file"), "abc", 3));
    assert_ok(qb_path_look_dir(below(dir, "file"), &there));
    assert_false(there);
    assert_fails(qb_path_look_dir(below(dir, "loop"), &there), QB_ERR_IO, "cannot look for");
    assert_ok(qb_file_size(below(dir, "file"), &bytes));
    assert_int_equal(bytes, 3);
    assert_fails(qb_file_size(below(dir, "absent"), &bytes), QB_ERR_NOT_FOUND, "absent");
    /* A list of words that is too long for a name is no path, and no error. */
    char words[400];
    memset(words, 'w', sizeof words);
    words[sizeof words - 1] = 0;
    assert_ok(qb_path_look(words, &there));
    assert_false(there);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_temporary__what_the_dead_left_goes_what_the_living_hold_stays),
        cmocka_unit_test(test_temporary__foreign_names_are_left_alone),
        cmocka_unit_test(test_temporary__another_machines_work_is_not_removed),
        cmocka_unit_test(test_temporary__an_error_is_not_a_free_lock),
        cmocka_unit_test(test_temporary__names_are_exclusive),
        cmocka_unit_test(test_lock__shared_by_several_exclusive_for_one),
        cmocka_unit_test(test_path__an_error_is_not_absence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
