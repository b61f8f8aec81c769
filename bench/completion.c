#include "bench/completion.h"

#include "bench/help/topics.h"

#include <string.h>

const char qb_completion_shells[] = "bash|zsh|fish";

/* ---- what follows an option, or stands alone ---- */

typedef enum { NOTHING, FILES, CHOICES, NAMES } value_kind;
typedef struct value {
    value_kind kind;
    const char *words; /* CHOICES: "a|b|c"; NAMES: the word for `bench list` */
} value;

/* Options whose values are names of a registry. */
static value value_of(const qb_option *row) {
    static const struct {
        const char *option, *registry;
    } named[] = {{"method", "methods"}, {"methods", "methods"},  {"backend", "backends"},
                 {"suite", "suites"},   {"dataset", "datasets"}, {"calibration", "datasets"},
                 {"metric", "metrics"}, {"format", "layouts"},   {"to", "layouts"},
                 {"plot", "plots"},     {"model", "models"}};
    if (row->type == QB_OPTION_BOOL || row->type == QB_OPTION_INT || row->type == QB_OPTION_REAL ||
        row->type == QB_OPTION_INT_LIST)
        return (value){NOTHING, NULL};
    if (row->choices) return (value){CHOICES, row->choices};
    if (!strcmp(row->name, "protocol")) return (value){CHOICES, "gptq-2048|llamacpp-512|strided-2048-512"};
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++)
        if (!strcmp(named[i].option, row->name)) return (value){NAMES, named[i].registry};
    bool path = row->unit && (!strcmp(row->unit, "FILE") || !strcmp(row->unit, "DIR"));
    return (value){path ? FILES : NOTHING, NULL};
}

static value words_of(const qb_page *page) {
    return page->words ? (value){CHOICES, page->words} : (value){FILES, NULL};
}

static void spaced(qb_str *out, const char *choices) {
    for (; *choices; choices++) qb_str_append(out, *choices == '|' ? " " : choices, 1);
}

static void command_names(qb_str *out) {
    for (size_t i = 0; qb_command_at(i); i++) qb_str_printf(out, "%s ", qb_command_at(i)->name);
    qb_str_text(out, "help");
}

/* What stands behind `help`. */
static void help_names(qb_str *out) {
    for (size_t i = 0; qb_command_at(i); i++) qb_str_printf(out, "%s ", qb_command_at(i)->name);
    for (size_t i = 0; qb_topic_at(i); i++) qb_str_printf(out, "%s%s", i ? " " : "", qb_topic_at(i)->name);
}

/* ---- bash ---- */

static void bash_value(qb_str *out, value v) {
    switch (v.kind) {
    case NOTHING:
        qb_str_text(out, "return");
        break;
    case FILES:
        qb_str_text(out, "_bench_files; return");
        break;
    case CHOICES:
        qb_str_text(out, "_bench_words \"");
        spaced(out, v.words);
        qb_str_text(out, "\"; return");
        break;
    case NAMES:
        qb_str_printf(out, "_bench_words \"$(_bench_names %s)\"; return", v.words);
        break;
    }
}

static qb_status bash_command(void *user, const qb_page *page, const qb_option_set *sets, size_t n_sets) {
    qb_str *out = user;
    qb_str_printf(out, "    %s)\n      case $before in\n", page->name);
    for (size_t s = 0; s < n_sets; s++)
        for (const qb_option *row = sets[s].rows; row->name; row++) {
            if (row->type == QB_OPTION_BOOL) continue;
            qb_str_printf(out, "        --%s", row->name);
            if (row->letter) qb_str_printf(out, " | -%c", row->letter);
            qb_str_text(out, ") ");
            bash_value(out, value_of(row));
            qb_str_text(out, " ;;\n");
        }
    qb_str_text(out, "      esac\n      if [[ $now == -* ]]; then\n        _bench_words \"");
    for (size_t s = 0; s < n_sets; s++)
        for (const qb_option *row = sets[s].rows; row->name; row++) qb_str_printf(out, "--%s ", row->name);
    qb_str_text(out, "\"\n        return\n      fi\n      ");
    bash_value(out, words_of(page));
    qb_str_text(out, "\n      ;;\n");
    return qb_str_status(out);
}

static qb_status bash(qb_str *out) {
    qb_status st = QB_OK;
    qb_str_text(out,
                "# bash completion of bench\n"
                "_bench_words() { mapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$now\"); }\n"
                "_bench_files() { compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$now\"); }\n"
                "_bench_names() { \"${COMP_WORDS[0]}\" list \"$1\" 2>/dev/null | cut -d ' ' -f 1; }\n"
                "_bench() {\n"
                "  local now=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
                "  COMPREPLY=()\n"
                "  if [[ $now == = ]]; then now=; elif [[ $before == = ]]; then "
                "before=${COMP_WORDS[COMP_CWORD - 2]}; fi\n"
                "  if ((COMP_CWORD == 1)); then\n    _bench_words \"");
    command_names(out);
    qb_str_text(
        out, " --help --version\"\n    return\n  fi\n  case ${COMP_WORDS[1]} in\n    help) _bench_words \"");
    help_names(out);
    qb_str_text(out, "\" ;;\n");
    for (size_t i = 0; st == QB_OK && qb_command_at(i); i++)
        st = qb_command_describe(qb_command_at(i), bash_command, out);
    qb_str_text(out, "  esac\n}\ncomplete -F _bench bench\n");
    return st == QB_OK ? qb_str_status(out) : st;
}

/* ---- zsh ---- */

/* A description inside '...[...]' of _arguments, or '...' of _describe. */
static void zsh_text(qb_str *out, const char *text) {
    for (; *text; text++) {
        if (*text == '\'')
            qb_str_text(out, "'\\''");
        else if (strchr("[]:\\", *text))
            qb_str_printf(out, "\\%c", *text);
        else
            qb_str_append(out, text, 1);
    }
}

static void zsh_value(qb_str *out, value v) {
    switch (v.kind) {
    case NOTHING:
        break;
    case FILES:
        qb_str_text(out, "_files");
        break;
    case CHOICES:
        qb_str_text(out, "(");
        spaced(out, v.words);
        qb_str_text(out, ")");
        break;
    case NAMES:
        qb_str_printf(out, "{_bench_names %s}", v.words);
        break;
    }
}

static qb_status zsh_command(void *user, const qb_page *page, const qb_option_set *sets, size_t n_sets) {
    qb_str *out = user;
    qb_str_printf(out, "    %s)\n      _arguments -s \\\n", page->name);
    for (size_t s = 0; s < n_sets; s++)
        for (const qb_option *row = sets[s].rows; row->name; row++) {
            qb_str_text(out, "        ");
            if (row->letter)
                qb_str_printf(out, "'(-%c --%s)'{-%c,--%s}", row->letter, row->name, row->letter, row->name);
            if (!row->letter) qb_str_printf(out, "'--%s", row->name);
            qb_str_text(out, row->letter ? "'[" : "[");
            zsh_text(out, row->help);
            qb_str_text(out, "]");
            if (row->type != QB_OPTION_BOOL) {
                qb_str_text(out, ":");
                zsh_text(out, row->unit ? row->unit : "VALUE");
                qb_str_text(out, ":");
                zsh_value(out, value_of(row));
            }
            qb_str_text(out, "' \\\n");
        }
    qb_str_text(out, "        '*:word:");
    zsh_value(out, words_of(page));
    qb_str_text(out, "'\n      ;;\n");
    return qb_str_status(out);
}

static qb_status zsh(qb_str *out) {
    qb_status st = QB_OK;
    qb_str_text(
        out,
        "#compdef bench\n"
        "_bench_names() { compadd -- ${(f)\"$($_bench_program list $1 2>/dev/null | cut -d ' ' -f 1)\"} }\n"
        "_bench() {\n"
        "  local _bench_program=$words[1]\n"
        "  if ((CURRENT == 2)) || [[ $words[2] == help ]]; then\n"
        "    local -a commands=(\n");
    for (size_t i = 0; qb_command_at(i); i++) {
        qb_str_printf(out, "      '%s:", qb_command_at(i)->name);
        zsh_text(out, qb_command_at(i)->summary);
        qb_str_text(out, "'\n");
    }
    qb_str_text(out, "      'help:show the page of a command or topic'\n    )\n");
    for (size_t i = 0; qb_topic_at(i); i++) {
        qb_str_printf(out, i ? "      '%s:" : "    local -a topics=(\n      '%s:", qb_topic_at(i)->name);
        zsh_text(out, qb_topic_at(i)->summary);
        qb_str_text(out, "'\n");
    }
    qb_str_text(out, "    )\n    [[ $words[2] == help ]] && _describe topic topics\n"
                     "    _describe command commands\n    return\n  fi\n"
                     "  shift words\n  ((CURRENT--))\n  case $words[1] in\n");
    for (size_t i = 0; st == QB_OK && qb_command_at(i); i++)
        st = qb_command_describe(qb_command_at(i), zsh_command, out);
    qb_str_text(out, "  esac\n}\n"
                     "if [[ $funcstack[1] == _bench ]]; then _bench \"$@\"; else compdef _bench bench; fi\n");
    return st == QB_OK ? qb_str_status(out) : st;
}

/* ---- fish ---- */

static void fish_text(qb_str *out, const char *text) {
    qb_str_text(out, "'");
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\') qb_str_text(out, "\\");
        qb_str_append(out, text, 1);
    }
    qb_str_text(out, "'");
}

static void fish_value(qb_str *out, value v) {
    switch (v.kind) {
    case NOTHING:
        qb_str_text(out, " -x");
        break;
    case FILES:
        qb_str_text(out, " -r -F");
        break;
    case CHOICES:
        qb_str_text(out, " -x -a '");
        spaced(out, v.words);
        qb_str_text(out, "'");
        break;
    case NAMES:
        qb_str_printf(out, " -x -a '(__bench_names %s)'", v.words);
        break;
    }
}

static qb_status fish_command(void *user, const qb_page *page, const qb_option_set *sets, size_t n_sets) {
    qb_str *out = user;
    for (size_t s = 0; s < n_sets; s++)
        for (const qb_option *row = sets[s].rows; row->name; row++) {
            qb_str_printf(out, "complete -c bench -n '__bench_is %s' -l %s", page->name, row->name);
            if (row->letter) qb_str_printf(out, " -s %c", row->letter);
            qb_str_text(out, " -d ");
            fish_text(out, row->help);
            if (row->type != QB_OPTION_BOOL) fish_value(out, value_of(row));
            qb_str_text(out, "\n");
        }
    if (page->words) {
        qb_str_printf(out, "complete -c bench -n '__bench_is %s' -f -a '", page->name);
        spaced(out, page->words);
        qb_str_text(out, "'\n");
    }
    return qb_str_status(out);
}

static qb_status fish(qb_str *out) {
    qb_status st = QB_OK;
    qb_str_text(out, "# fish completion of bench\n"
                     "function __bench_names\n    set -l words (commandline -opc)\n"
                     "    $words[1] list $argv[1] 2>/dev/null | string replace -r ' .*' ''\nend\n"
                     "function __bench_is\n    set -l words (commandline -opc)\n"
                     "    test (count $words) -gt 1; and test $words[2] = $argv[1]\nend\n");
    for (size_t i = 0; qb_command_at(i); i++) {
        qb_str_printf(out, "complete -c bench -f -n __fish_use_subcommand -a %s -d ", qb_command_at(i)->name);
        fish_text(out, qb_command_at(i)->summary);
        qb_str_text(out, "\n");
    }
    qb_str_text(out, "complete -c bench -f -n '__fish_use_subcommand' -a help\n"
                     "complete -c bench -f -n '__bench_is help' -a '");
    help_names(out);
    qb_str_text(out, "'\n");
    for (size_t i = 0; st == QB_OK && qb_command_at(i); i++)
        st = qb_command_describe(qb_command_at(i), fish_command, out);
    return st == QB_OK ? qb_str_status(out) : st;
}

qb_status qb_completion_script(const char *shell, qb_str *out) {
    if (!strcmp(shell, "bash")) return bash(out);
    if (!strcmp(shell, "zsh")) return zsh(out);
    if (!strcmp(shell, "fish")) return fish(out);
    return qb_fail(QB_ERR_USAGE, "no completion for '%.40s': bash, zsh and fish are known", shell);
}
