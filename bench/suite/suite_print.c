/* A suite written down again: what `bench run --print` shows. */
#include "bench/suite/keys.h"
#include "bench/suite/variant.h"

static qb_json *words_json(const qb_name_list *list) {
    qb_json *array = qb_json_array();
    for (int i = 0; i < list->n; i++) qb_json_push_text(array, list->items[i]);
    return array;
}

static qb_json *models_json(const qb_suite *s) {
    qb_json *array = qb_json_array();
    for (int i = 0; i < s->models.n; i++) {
        const qb_suite_model *entry = &s->model_entries[i];
        if (!entry->label && !entry->base && !entry->adapter) {
            qb_json_push_text(array, s->models.items[i]);
            continue;
        }
        qb_json *j = qb_json_object();
        qb_json_put_text(j, "model", entry->path);
        if (entry->adapter) qb_json_put_text(j, "adapter", entry->adapter_path);
        if (entry->label) qb_json_put_text(j, "label", entry->label);
        if (entry->base) qb_json_put_text(j, "base", s->models.items[qb_suite_model_find(s, entry->base)]);
        qb_json_push(array, j);
    }
    return array;
}

/* Options that are unset have no place in a file. */
static void put_set(const qb_json *from, qb_json *to) {
    for (const qb_json *v = qb_json_first(from); v; v = qb_json_next(v))
        if (!qb_json_is_null(v)) qb_json_put(to, qb_json_key(v), qb_json_copy(v));
}

/* The names of a method's models as the suite's list has them now. */
static qb_json *resolved(const qb_suite *s, const qb_json *names) {
    qb_json *array = qb_json_array();
    for (const qb_json *name = qb_json_first(names); name; name = qb_json_next(name))
        qb_json_push_text(array, s->models.items[qb_suite_model_find(s, qb_json_string(name))]);
    return array;
}

static qb_json *methods_json(const qb_suite *s) {
    qb_json *array = qb_json_array();
    for (size_t i = 0; i < s->n_variants; i++) {
        const qb_variant *v = &s->variants[i];
        qb_json *all = qb_variant_json(v), *j = qb_json_object();
        const char *label = qb_json_string(qb_json_get(v->entry, "label"));
        put_set(all, j);
        if (label) qb_json_put_text(j, "label", label);
        if (v->models && !s->models_given) qb_json_put(j, "models", resolved(s, v->models));
        qb_json_push(array, j);
        qb_json_free(all);
    }
    return array;
}

qb_json *qb_suite_json(const qb_suite *s) {
    qb_json *j = qb_json_object(), *settings = qb_json_object(), *all = qb_json_object(),
            *speed = qb_json_object();
    qb_json_put_text(j, "name", s->name);
    if (*s->summary) qb_json_put_text(j, "summary", s->summary);
    qb_json_put(j, "models", models_json(s));
    qb_json_put(j, "methods", methods_json(s));
    qb_json_put(j, "backends", words_json(&s->backends));
    if (s->datasets.n) qb_json_put(j, "datasets", words_json(&s->datasets));
    if (s->protocols.n) qb_json_put(j, "protocols", words_json(&s->protocols));
    qb_json_put(j, "metrics", words_json(&s->metrics));
    qb_options_to_json(qb_suite_options, &s->config, settings);
    put_set(settings, j);
    qb_options_to_json(qb_speed_options, &s->speed, all);
    put_set(all, speed);
    qb_json_put(j, "speed", speed);
    qb_json_free(settings);
    qb_json_free(all);
    return j;
}
