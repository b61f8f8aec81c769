#include "plots/gnuplot.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/temporary.h"
#include "plots/plots.h"

#include <errno.h>
#include <fcntl.h>
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

/* gnuplot takes '' at the beginning of a single-quoted string for the whole of it; in double quotes
 * backslashes are escapes and backquotes start programs, so the latter are written as what they are by
 * number. */
static void double_quote(const char *text, qb_str *out) {
    qb_str_text(out, "\"");
    for (const char *p = text; *p; p++) {
        if (*p == '`')
            qb_str_text(out, "\\140");
        else if (*p == '"' || *p == '\\')
            qb_str_printf(out, "\\%c", *p);
        else if (*p != '\n' && *p != '\r')
            qb_str_append(out, p, 1);
    }
    qb_str_text(out, "\"");
}

void qb_gnuplot_quote(const char *text, qb_str *out) {
    if (*text == '\'') {
        double_quote(text, out);
        return;
    }
    qb_str_text(out, "'");
    for (const char *p = text; *p; p++) {
        if (*p == '\'') qb_str_text(out, "'");
        if (*p != '\n' && *p != '\r') qb_str_append(out, p, 1);
    }
    qb_str_text(out, "'");
}

typedef struct format {
    const char *suffix, *terminal;
    const char *end; /* what a whole file ends with, newlines aside */
    int scale;
    double point_scale;  /* terminals differ in what a mark of size 1 is */
    const char *options; /* after the size */
} format;

/* Enhanced text is off: labels are shown as they are. */
static const format formats[] = {
    {"svg", "svg", "</svg>", 1, 0.65, "dashlength 1.6 noenhanced background rgb 'white'"},
    {"png", "pngcairo", "IEND\xae\x42\x60\x82", 2, 1,
     "noenhanced fontscale 1.5 linewidth 2 pointscale 2 background rgb 'white'"},
    {"pdf", "pdfcairo", "%%EOF", 1, 1.3, "noenhanced fontscale 0.75 linewidth 1 background rgb 'white'"},
};

double qb_canvas_scale(const qb_canvas *canvas) {
    return canvas->scale > 0 ? canvas->scale : 1;
}

static void put_terminal(const format *f, qb_canvas canvas, const char *file, qb_str *out) {
    qb_str font = {0};
    qb_str_printf(&font, "%s,%.4g", canvas.family ? canvas.family : "Arial",
                  QB_CANVAS_FONT_PX * qb_canvas_scale(&canvas));
    qb_str_text(out, "reset session\n");
    if (!strcmp(f->suffix, "pdf"))
        qb_str_printf(out, "set terminal pdfcairo size %.4fin,%.4fin %s font ", canvas.width / 72.0,
                      canvas.height / 72.0, f->options);
    else
        qb_str_printf(out, "set terminal %s size %d,%d %s font ", f->terminal, canvas.width * f->scale,
                      canvas.height * f->scale, f->options);
    qb_gnuplot_quote(qb_str_get(&font), out);
    qb_str_printf(out, "\npoint_scale = %g\nset output '%s'\n", f->point_scale * qb_canvas_scale(&canvas),
                  file);
    out->failed |= font.failed;
    qb_str_free(&font);
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

/* One file on its way: drawn under a name of its own, moved to its own when it is whole. */
typedef struct picture {
    const format *format;
    char *temporary, *final;
    int lock_fd; /* of the temporary, held so that nobody sweeps it meanwhile */
} picture;

static qb_status begin_file(const char *dir, const char *name, const format *f, picture *out) {
    qb_str file = {0};
    *out = (picture){.format = f, .lock_fd = -1};
    qb_str_printf(&file, "%s.%s", name, f->suffix);
    qb_status st = qb_str_status(&file);
    if (st == QB_OK && !(out->final = qb_path_join(dir, qb_str_get(&file))))
        st = qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK) {
        qb_temporary_sweep(dir, qb_str_get(&file));
        st = qb_temporary_file(out->final, 0666, &out->temporary, &out->lock_fd);
    }
    qb_str_free(&file);
    return st;
}

/* A full disk cuts pictures off, and gnuplot does not always say so: their last bytes do. */
static qb_status check_whole(const picture *p) {
    qb_map map;
    size_t n = strlen(p->format->end);
    qb_status st = qb_map_open(p->temporary, &map);
    if (st != QB_OK) return st;
    size_t size = map.size;
    while (size && map.bytes[size - 1] == '\n') size--;
    if (size < n || memcmp(map.bytes + size - n, p->format->end, n) != 0)
        st = qb_fail(QB_ERR_IO, "gnuplot wrote %s to %s: is the disk full?",
                     map.size ? "only a part" : "nothing", p->final);
    qb_map_close(&map);
    return st;
}

/* Publishes one drawn file when `st` is still good. */
static qb_status publish_file(const picture *p, qb_status st) {
    int fd = st == QB_OK ? open(p->temporary, O_RDONLY | O_CLOEXEC) : -1;
    if (st == QB_OK && (fd < 0 || fsync(fd) != 0))
        st = qb_fail(QB_ERR_IO, "cannot write %s: %s", p->final, strerror(errno));
    if (fd >= 0) close(fd);
    if (st == QB_OK) st = check_whole(p);
    if (st == QB_OK && rename(p->temporary, p->final) != 0)
        st = qb_fail(QB_ERR_IO, "cannot rename into %s: %s", p->final, strerror(errno));
    return st;
}

static void end_file(picture *p, bool published) {
    if (p->temporary && !published) unlink(p->temporary);
    if (p->lock_fd >= 0) close(p->lock_fd);
    qb_free(p->temporary);
    qb_free(p->final);
}

qb_status qb_gnuplot_draw(const char *terminals, const char *dir, const char *name, qb_canvas canvas,
                          const char *script, int *n_files) {
    enum { N_FORMATS = sizeof formats / sizeof formats[0] };
    char *argv[] = {(char[]){"gnuplot"}, (char[]){"-d"}, (char[]){"-"}, NULL};
    picture pictures[N_FORMATS];
    qb_str commands = {0}, said = {0};
    int status = 0, n = 0, published = 0;
    qb_status st = QB_OK;
    for (int i = 0; st == QB_OK && i < N_FORMATS; i++) {
        if (!has_terminal(terminals, &formats[i])) continue;
        st = begin_file(dir, name, &formats[i], &pictures[n++]);
        if (st != QB_OK) break;
        put_terminal(&formats[i], canvas, qb_path_base(pictures[n - 1].temporary), &commands);
        qb_str_text(&commands, script);
        qb_str_text(&commands, "\nunset output\n");
    }
    if (st == QB_OK) st = qb_str_status(&commands);
    if (st == QB_OK) st = run(dir, argv, qb_str_get(&commands), &status, &said);
    if (st == QB_OK && status == 127)
        st = qb_fail(QB_ERR_NOT_FOUND, "gnuplot is not there, plots need it: apt-get install gnuplot-nox");
    else if (st == QB_OK && status != 0)
        st = qb_fail(QB_ERR_IO, "gnuplot failed (status %d) on %s in %s: %.300s", status, name, dir,
                     reason(&said));
    for (; st == QB_OK && published < n; published++)
        if ((st = publish_file(&pictures[published], st)) != QB_OK) break;
    *n_files += published;
    for (int i = 0; i < n; i++) end_file(&pictures[i], i < published);
    qb_str_free(&commands);
    qb_str_free(&said);
    return st;
}

static qb_status write_source(const char *dir, const char *name, const char *suffix, const qb_str *text,
                              int *n_files) {
    qb_str file = {0};
    qb_str_printf(&file, "%s%s", name, suffix);
    qb_status st = qb_str_status(&file);
    char *path = st == QB_OK ? qb_path_join(dir, qb_str_get(&file)) : NULL;
    if (st == QB_OK && !path) st = qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK) st = qb_str_status(text);
    if (st == QB_OK) st = qb_file_write_atomic(path, qb_str_get(text), text->length);
    *n_files += st == QB_OK;
    qb_free(path);
    qb_str_free(&file);
    return st;
}

qb_status qb_gnuplot_sources(const char *dir, const char *name, qb_canvas canvas, const char *script,
                             const char *csv, int *n_files) {
    qb_str file = {0}, commands = {0}, data = {0};
    qb_str_printf(&file, "%s.svg", name);
    qb_str_printf(&commands, "# gnuplot %s.gp\n", name);
    put_terminal(&formats[0], canvas, qb_str_get(&file), &commands);
    qb_str_printf(&commands, "%s\nunset output\n", script);
    qb_str_text(&data, csv);
    commands.failed |= file.failed;
    qb_status st = write_source(dir, name, ".gp", &commands, n_files);
    if (st == QB_OK) st = write_source(dir, name, ".csv", &data, n_files);
    qb_str_free(&file);
    qb_str_free(&commands);
    qb_str_free(&data);
    return st;
}
