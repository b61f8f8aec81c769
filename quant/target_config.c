/* config.json of a directory that is written: the source's, with how it is quantized now. */
#include "base/log.h"
#include "quant/target.h"

#include <stdio.h>
#include <string.h>

/* The first of "a|b|c". */
static void first_of(const char *names, char out[64]) {
    snprintf(out, 64, "%.*s", (int)strcspn(names, "|"), names);
}

static void copy_absent(qb_json *to, const qb_json *from, const char *key) {
    if (qb_json_is_null(qb_json_get(to, key)) && !qb_json_is_null(qb_json_get(from, key)))
        qb_json_put(to, key, qb_json_copy(qb_json_get(from, key)));
}

/* The source's config without its quantization. Of a multimodal wrapper only the language model is written,
   so the config becomes that of the text part's own class, which has the names that the tensors have here. */
static qb_json *config_of(const qb_model *m) {
    static const char *const shared[] = {"dtype",        "torch_dtype",  "bos_token_id",
                                         "eos_token_id", "pad_token_id", "transformers_version"};
    const qb_json *from = qb_checkpoint_config(m->checkpoint), *text = qb_json_get(from, "text_config");
    qb_json *config = qb_json_object();
    bool wrapper = qb_json_is_object(text);
    for (const qb_json *e = qb_json_first(wrapper ? text : from); e; e = qb_json_next(e))
        if (strcmp(qb_json_key(e), "quantization_config") != 0)
            qb_json_put(config, qb_json_key(e), qb_json_copy(e));
    if (m->config.vocab != m->topology.vocab && !qb_json_is_null(qb_json_get(config, "vocab_size")))
        qb_json_put_int(config, "vocab_size", m->config.vocab); /* a merge may resize it */
    /* Programs that follow the flag would drop the head that was measured. */
    if (m->head_differs) qb_json_put_bool(config, "tie_word_embeddings", false);
    const qb_family *f = m->config.family;
    char name[64];
    first_of(f->model_types, name); /* a config made of GGUF's keys has none, and transformers wants it */
    if (!qb_json_string(qb_json_get(config, "model_type"))) qb_json_put_text(config, "model_type", name);
    if (!wrapper) return config;
    qb_json *architectures = qb_json_array();
    first_of(f->architectures, name);
    qb_json_push_text(architectures, name);
    qb_json_put(config, "architectures", architectures);
    qb_info("%s: the language model alone is written, as %s", m->name, name);
    qb_json_put_bool(config, "tie_word_embeddings", m->config.tied_head && !m->head_differs);
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) copy_absent(config, from, shared[i]);
    return config;
}

static void push_kept(const qb_list *l, int64_t layer, int skip, qb_json *names) {
    char name[QB_NAME_BYTES];
    for (size_t i = 0; i < l->n_linears; i++) {
        if (l->linears[i].quantized || (int)i == skip) continue;
        qb_linear_name(&l->linears[i], layer, name);
        qb_json_push_text(names, name);
    }
}

/* transformers makes a quantized module of every linear but the head, or, given a list, of every linear that
   it does not name: routers and OPT's projections of the embedding are named, then the head too, which newer
   versions call lm_head whatever the file calls it (GPT-NeoX). */
static void say_skipped(const qb_model *m, qb_json *quantization) {
    const qb_topology *t = &m->topology;
    const qb_json *skipped = qb_json_get(quantization, "llm_int8_skip_modules");
    qb_json *names = qb_json_is_array(skipped) ? qb_json_copy(skipped) : qb_json_array();
    char head[QB_NAME_BYTES];
    push_kept(&t->enter, -1, -1, names);
    for (int64_t layer = 0; layer < t->n_layers; layer++) push_kept(&t->layers[layer], layer, -1, names);
    push_kept(&t->leave, t->n_layers, t->head, names);
    if (qb_json_count(names) > 0) {
        qb_linear_name(&t->leave.linears[t->head], t->n_layers, head);
        qb_json_push_text(names, head);
        if (strcmp(head, "lm_head") != 0) qb_json_push_text(names, "lm_head");
        qb_json_put(quantization, "llm_int8_skip_modules", names);
    } else {
        qb_json_free(names);
    }
}

static bool is_listed(const qb_json *names, const char *name) {
    for (const qb_json *j = qb_json_first(names); j; j = qb_json_next(j))
        if (!strcmp(qb_json_string(j), name)) return true;
    return false;
}

/* "model.layers" of "model.layers.%d."; false where a list's names do not stand behind a number. */
static bool block_name(const qb_list *l, char out[QB_NAME_BYTES]) {
    for (size_t i = 0; i < l->n_linears; i++) {
        const char *prefix = l->linears[i].prefix, *number = strstr(prefix, ".%d.");
        if (!l->linears[i].quantized || !number) continue;
        snprintf(out, QB_NAME_BYTES, "%.*s", (int)(number - prefix), prefix);
        return true;
    }
    return false;
}

/* Names of quantized linears as they stand in a block, each once; NULL where no block keeps one dense. */
static qb_json *names_in_blocks(const qb_topology *t, const char *block) {
    qb_json *names = qb_json_array();
    bool keeps = false;
    for (int64_t layer = 0; layer < t->n_layers; layer++)
        for (size_t i = 0; i < t->layers[layer].n_linears; i++) {
            const qb_linear *l = &t->layers[layer].linears[i];
            char name[QB_NAME_BYTES];
            qb_linear_name(l, layer, name);
            const char *inside = strchr(name + strlen(block) + 1, '.');
            keeps = keeps || !l->quantized;
            if (l->quantized && inside && !is_listed(names, inside + 1)) qb_json_push_text(names, inside + 1);
        }
    if (keeps) return names;
    qb_json_free(names);
    return NULL;
}

/* optimum, through which transformers opens the gptq layouts, guesses what holds the blocks from five names
   and knows no other (MPT's transformer.blocks), and takes every linear there for a quantized one unless it
   is told which are. */
static void say_blocks(const qb_model *m, qb_json *quantization) {
    const char *method = qb_json_string(qb_json_get(quantization, "quant_method"));
    char block[QB_NAME_BYTES];
    if (!method || strcmp(method, "gptq") != 0 || !block_name(&m->topology.layers[0], block)) return;
    qb_json_put_text(quantization, "block_name_to_quantize", block);
    qb_json *names = names_in_blocks(&m->topology, block);
    if (!names) return;
    qb_json *at_once = qb_json_array();
    qb_json_push(at_once, names);
    qb_json_put(quantization, "modules_in_block_to_quantize", at_once);
}

/* Since its fifth version transformers holds a block's experts in one tensor, and bitsandbytes in its linears
   alone. */
static void warn_of_experts(const qb_model *m) {
    for (int64_t layer = 0; layer < m->topology.n_layers; layer++)
        for (size_t i = 0; i < m->topology.layers[layer].n_linears; i++) {
            const qb_linear *l = &m->topology.layers[layer].linears[i];
            if (l->expert < 0 || !l->quantized) continue;
            qb_warn("%s: experts quantized in bitsandbytes' layouts are not opened by transformers 5, which "
                    "holds "
                    "them in one tensor; the gptq layout is for programs that read experts one by one",
                    m->name);
            return;
        }
}

qb_status qb_target_put_config(const qb_model *m, const qb_json *quantization, const char *file,
                               const char *torch_dtype, qb_writer *w) {
    qb_json *config = config_of(m), *how = quantization ? qb_json_copy(quantization) : NULL;
    if (how && qb_json_get(how, "llm_int8_skip_modules")) {
        say_skipped(m, how);
        warn_of_experts(m);
    }
    if (how) say_blocks(m, how);
    if (how) qb_json_put(config, "quantization_config", how);
    /* Newer programs say "dtype"; the older name is read by all. */
    if (torch_dtype && qb_json_get(config, "dtype")) qb_json_put_text(config, "dtype", torch_dtype);
    if (torch_dtype) qb_json_put_text(config, "torch_dtype", torch_dtype);
    qb_status st = qb_writer_put_json(w, "config.json", config);
    if (st == QB_OK && quantization && file) st = qb_writer_put_json(w, file, quantization);
    qb_json_free(config);
    return st;
}
