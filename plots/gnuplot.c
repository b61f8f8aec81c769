#include "plots/gnuplot.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "plots/plots.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs gnuplot in `dir` (NULL: here) with the given arguments, commands from `input` (NULL: none); its exit
   status (127: it could not be started) and what it said on both channels. */
static qb_status run(const char *dir, char *const *argv, const char *input, int *exit_status, qb_str *said) {
    FILE *in = tmpfile(), *out = tmpfile();
    qb_status st = QB_OK;
    if (!in || !out || (input && fputs(input, in) == EOF) || fflush(in) != 0) {
        st = qb_fail(QB_ERR_IO, "cannot write a temporary file for gnuplot: %s", strerror(errno));
        goto out;
    }
    rewind(in);
    pid_t child = fork();
    if (child == 0) {
        if (dup2(fileno(in), 0) < 0 || dup2(fileno(out), 1) < 0 || dup2(fileno(out), 2) < 0 ||
            (dir && chdir(dir) != 0))
            _exit(126);
        execvp(argv[0], argv);
        _exit(127);
    }
    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0)
        if (errno != EINTR) break;
    if (child < 0) {
        st = qb_fail(QB_ERR_IO, "cannot start gnuplot: %s", strerror(errno));
        goto out;
    }
    *exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    rewind(out);
    char buffer[4096];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, out)) > 0;) qb_str_append(said, buffer, n);
    st = qb_str_status(said);
out:
    if (in) fclose(in);
    if (out) fclose(out);
    return st;
}

bool qb_gnuplot_find(char version[64]) {
    char *argv[] = {(char[]){"gnuplot"}, (char[]){"--version"}, NULL};
    qb_str said = {0};
    int status = 127;
    bool found = run(NULL, argv, NULL, &status, &said) == QB_OK && status == 0;
    const char *line = qb_str_get(&said);
    if (!strncmp(line, "gnuplot ", 8)) line += 8;
    if (!found) line = "apt-get install gnuplot-nox";
    snprintf(version, 64, "%.*s", (int)strcspn(line, "\r\n"), line);
    qb_str_free(&said);
    return found;
}

qb_status qb_gnuplot_terminals(qb_str *terminals) {
    char *argv[] = {(char[]){"gnuplot"}, (char[]){"-d"}, (char[]){"-e"}, (char[]){"print GPVAL_TERMINALS"},
                    NULL};
    int status = 127;
    qb_str_text(terminals, " ");
    qb_status st = run(NULL, argv, NULL, &status, terminals);
    if (st == QB_OK && status != 0)
        st = qb_fail(QB_ERR_NOT_FOUND, "gnuplot is not there, plots need it: apt-get install gnuplot-nox");
    return st;
}

void qb_gnuplot_quote(const char *text, qb_str *out) {
    qb_str_text(out, "'");
    for (const char *p = text; *p; p++) {
        if (*p == '\'') qb_str_text(out, "'");
        if (*p != '\n' && *p != '\r') qb_str_append(out, p, 1);
    }
    qb_str_text(out, "'");
}

typedef struct format {
    const char *suffix, *terminal;
    int scale;
    double point_scale;  /* terminals differ in what a mark of size 1 is */
    const char *options; /* after the size */
} format;

/* Enhanced text is off: labels are shown as they are. */
static const format formats[] = {
    {"svg", "svg", 1, 0.65, "dashlength 1.6 noenhanced font 'Arial,13' background rgb 'white'"},
    {"png", "pngcairo", 2, 1,
     "noenhanced font 'Arial,13' fontscale 1.5 linewidth 2 pointscale 2 background rgb 'white'"},
    {"pdf", "pdfcairo", 1, 1.3,
     "noenhanced font 'Arial,13' fontscale 0.75 linewidth 1 background rgb 'white'"},
};

static void put_terminal(const format *f, qb_canvas canvas, const char *file, qb_str *out) {
    qb_str_text(out, "reset session\n");
    if (!strcmp(f->suffix, "pdf"))
        qb_str_printf(out, "set terminal pdfcairo size %.4fin,%.4fin %s\n", canvas.width / 72.0,
                      canvas.height / 72.0, f->options);
    else
        qb_str_printf(out, "set terminal %s size %d,%d %s\n", f->terminal, canvas.width * f->scale,
                      canvas.height * f->scale, f->options);
    qb_str_printf(out, "point_scale = %g\nset output '%s'\n", f->point_scale, file);
}

/* What gnuplot says of an error is the line that names it, behind the echo of the command and a caret. */
static const char *reason(qb_str *said) {
    char *last = said->text;
    for (char *line = said->text ? strtok(said->text, "\n") : NULL; line; line = strtok(NULL, "\n"))
        if (strspn(line, " ^\t") != strlen(line)) last = line;
    return last ? last + strspn(last, " \t") : "no reason given";
}

static bool has_terminal(const char *terminals, const format *f) {
    char word[32];
    snprintf(word, sizeof word, " %s ", f->terminal);
    return strstr(terminals, word) != NULL;
}

/* DIR/NAME.SUFFIX, and the name it has until it is whole; free both with qb_free. */
static qb_status name_files(const char *dir, const char *name, const format *f, char **temporary,
                            char **final) {
    qb_str t = {0}, w = {0};
    qb_str_printf(&w, "%s.%s", name, f->suffix);
    qb_str_printf(&t, "%s.%s.tmp.%ld", name, f->suffix, (long)getpid());
    *temporary = t.failed ? NULL : qb_path_join(dir, qb_str_get(&t));
    *final = w.failed ? NULL : qb_path_join(dir, qb_str_get(&w));
    qb_str_free(&t);
    qb_str_free(&w);
    return *temporary && *final ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
}

/* Moves one drawn file to its name when `st` is still good, else removes it. */
static qb_status finish_file(const char *dir, const char *name, const format *f, qb_status st) {
    char *temporary = NULL, *final = NULL;
    qb_status named = name_files(dir, name, f, &temporary, &final);
    if (st == QB_OK) st = named;
    if (st == QB_OK && qb_file_size(temporary) <= 0)
        st = qb_fail(QB_ERR_IO, "gnuplot wrote nothing for %s: is the disk full?", final);
    if (st == QB_OK && rename(temporary, final) != 0)
        st = qb_fail(QB_ERR_IO, "cannot rename into %s: %s", final, strerror(errno));
    if (st != QB_OK && temporary) unlink(temporary);
    qb_free(temporary);
    qb_free(final);
    return st;
}

qb_status qb_gnuplot_draw(const char *terminals, const char *dir, const char *name, qb_canvas canvas,
                          const char *script, int *n_files) {
    enum { N_FORMATS = sizeof formats / sizeof formats[0] };
    char *argv[] = {(char[]){"gnuplot"}, (char[]){"-d"}, (char[]){"-"}, NULL};
    qb_str commands = {0}, said = {0};
    int status = 0;
    qb_status st;
    for (int i = 0; i < N_FORMATS; i++) {
        if (!has_terminal(terminals, &formats[i])) continue;
        qb_str file = {0};
        qb_str_printf(&file, "%s.%s.tmp.%ld", name, formats[i].suffix, (long)getpid());
        put_terminal(&formats[i], canvas, qb_str_get(&file), &commands);
        qb_str_text(&commands, script);
        qb_str_text(&commands, "\nunset output\n");
        qb_str_free(&file);
    }
    QB_TRY(st, qb_str_status(&commands));
    QB_TRY(st, run(dir, argv, qb_str_get(&commands), &status, &said));
    if (status == 127)
        st = qb_fail(QB_ERR_NOT_FOUND, "gnuplot is not there, plots need it: apt-get install gnuplot-nox");
    else if (status != 0)
        st = qb_fail(QB_ERR_IO, "gnuplot failed (status %d) on %s in %s: %.300s", status, name, dir,
                     reason(&said));
    for (int i = 0; i < N_FORMATS; i++) {
        if (!has_terminal(terminals, &formats[i])) continue;
        st = finish_file(dir, name, &formats[i], st);
        if (st == QB_OK) ++*n_files;
    }
out:
    qb_str_free(&commands);
    qb_str_free(&said);
    return st;
}
