/* How a checkpoint says that it is quantized. Dialects: config.json's quantization_config as transformers
   writes it, quantize_config.json as AutoGPTQ and GPTQModel write it, quant_config.json as AutoAWQ does;
   docs/formats.md. */
#include "checkpoint/quantization.h"

#include "base/log.h"
#include "base/unread.h"
#include "checkpoint/state.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { MAX_CONFIG_BYTES = 16 << 20 };

typedef struct {
    const qb_json *json;
    const char *where; /* heads errors */
    qb_quantization *out;
    qb_module_rules *rules;
} reader;

/* The spelling under which a key is present; the proper one when neither is. */
static const char *spelling(const qb_json *json, const char *name, const char *synonym) {
    bool other = qb_json_is_null(qb_json_get(json, name)) && !qb_json_is_null(qb_json_get(json, synonym));
    return other ? synonym : name;
}

static bool is_gptqmodel(const qb_json *name) {
    return qb_json_is_string(name) && !strncmp(qb_json_string(name), "gptqmodel", 9);
}

/* GPTQModel turns true zeros into v1 by an integer subtraction on the words, and back by the addition. The
   quantizer is a text, or several of which one worked for the other. */
static bool made_by_gptqmodel(const qb_json *json) {
    const qb_json *quantizer = qb_json_get(qb_json_get(json, "meta"), "quantizer");
    bool made = is_gptqmodel(quantizer);
    if (qb_json_is_array(quantizer))
        for (const qb_json *j = qb_json_first(quantizer); j; j = qb_json_next(j))
            made = made || is_gptqmodel(j);
    return made;
}

static qb_status read_gptq(const reader *r) {
    qb_quantization *q = r->out;
    int64_t bits = 0;
    bool marlin = false;
    const char *format = "gptq", *pack_dtype = "int32";
    q->group_size = -1;
    q->symmetric = true;
    qb_status st;
    QB_TRY(st, qb_json_int(r->json, spelling(r->json, "bits", "w_bit"), r->where, true, 1, 64, &bits));
    QB_TRY(st, qb_json_int(r->json, spelling(r->json, "group_size", "q_group_size"), r->where, false, -1,
                           INT32_MAX, &q->group_size));
    QB_TRY(st, qb_json_bool(r->json, "desc_act", r->where, false, &q->desc_act));
    QB_TRY(st, qb_json_bool(r->json, "static_groups", r->where, false, &q->static_groups));
    if (qb_json_is_null(qb_json_get(r->json, "sym")))
        qb_warn("%s: \"sym\" is missing: taken as true, as AutoGPTQ does", r->where);
    QB_TRY(st, qb_json_bool(r->json, "sym", r->where, false, &q->symmetric));
    QB_TRY(st, qb_json_text(r->json, "format", r->where, false, &format));
    QB_TRY(st, qb_json_text(r->json, "checkpoint_format", r->where, false, &format));
    QB_TRY(st, qb_json_bool(r->json, "is_marlin_format", r->where, false, &marlin));
    q->group_size_missing =
        qb_json_is_null(qb_json_get(r->json, spelling(r->json, "group_size", "q_group_size")));
    QB_TRY(st, qb_module_rules_add_dynamic(r->rules, qb_json_get(r->json, "dynamic"), r->where));
    QB_TRY(st, qb_json_text(r->json, "pack_dtype", r->where, false, &pack_dtype));
    if (marlin) format = "marlin";
    if (strcmp(pack_dtype, "int32") != 0 && strcmp(pack_dtype, "int64") != 0 &&
        strcmp(pack_dtype, "int16") != 0 && strcmp(pack_dtype, "int8") != 0)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: pack_dtype \"%.40s\" is not supported (supported: int8, int16, int32, int64)",
                       r->where, pack_dtype);
    if (strcmp(format, "gptq") != 0 && strcmp(format, "gptq_v2") != 0)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: checkpoint_format \"%.40s\" is not supported (supported: gptq, gptq_v2)",
                       r->where, format);
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: %d-bit gptq is not supported (supported: 2, 3, 4, 8)",
                       r->where, (int)bits);
    if (q->group_size == 0)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: \"group_size\" must be positive, or -1 for one group a row, found 0", r->where);
    q->bits = (int)bits;
    q->zeros_by_word = bits != 3 && made_by_gptqmodel(r->json);
    snprintf(q->layout, sizeof q->layout, "%s", format);
out:
    return st;
}

static qb_status read_bitsandbytes(const reader *r) {
    qb_quantization *q = r->out;
    bool four = false, eight = false;
    const char *codebook = "fp4"; /* the library's own default */
    qb_status st;
    QB_TRY(st,
           qb_json_bool(r->json, spelling(r->json, "load_in_4bit", "_load_in_4bit"), r->where, false, &four));
    QB_TRY(st, qb_json_bool(r->json, spelling(r->json, "load_in_8bit", "_load_in_8bit"), r->where, false,
                            &eight));
    QB_TRY(st, qb_json_bool(r->json, "bnb_4bit_use_double_quant", r->where, false, &q->double_quant));
    QB_TRY(st, qb_json_text(r->json, "bnb_4bit_quant_type", r->where, false, &codebook));
    if (four == eight)
        return qb_fail(QB_ERR_FORMAT, "%s: load_in_4bit and load_in_8bit are both %s: expected one of them",
                       r->where, four ? "true" : "false");
    q->group_size = -1;
    q->symmetric = eight;
    q->bits = eight ? 8 : 4;
    q->double_quant = q->double_quant && four;
    snprintf(q->layout, sizeof q->layout, eight ? "bnb8" : "bnb4");
    if (eight) return QB_OK;
    if (strcmp(codebook, "nf4") != 0 && strcmp(codebook, "fp4") != 0)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: bnb_4bit_quant_type \"%.40s\" is not supported (supported: nf4, fp4)", r->where,
                       codebook);
    snprintf(q->codebook, sizeof q->codebook, "%s", codebook);
out:
    return st;
}

/* AutoAWQ's keys, or transformers' AwqConfig. The versions exllama and ipex are other kernels for gemm's
   files. */
static qb_status read_awq(const reader *r) {
    static const char *const same_files[] = {"gemm", "exllama", "ipex"};
    qb_quantization *q = r->out;
    int64_t bits = 4;
    bool zero_point = true, known = false;
    const char *version = "gemm", *backend = "autoawq";
    q->group_size = 128;
    qb_status st;
    QB_TRY(st, qb_json_int(r->json, spelling(r->json, "bits", "w_bit"), r->where, false, 1, 64, &bits));
    QB_TRY(st, qb_json_int(r->json, spelling(r->json, "group_size", "q_group_size"), r->where, false, -1,
                           INT32_MAX, &q->group_size));
    QB_TRY(st, qb_json_bool(r->json, "zero_point", r->where, false, &zero_point));
    QB_TRY(st, qb_json_text(r->json, spelling(r->json, "format", "checkpoint_format"), r->where, false,
                            &version));
    QB_TRY(st, qb_json_text(r->json, "version", r->where, false, &version));
    QB_TRY(st, qb_json_text(r->json, "backend", r->where, false, &backend));
    for (size_t i = 0; i < sizeof same_files / sizeof same_files[0]; i++)
        known = known || !strcasecmp(version, same_files[i]);
    if (!known || !strcmp(backend, "llm-awq"))
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: awq %s \"%.40s\" is not supported (supported: gemm)",
                       r->where, known ? "backend" : "version", known ? backend : version);
    if (bits != 4)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: %d-bit awq is not supported (supported: 4)", r->where,
                       (int)bits);
    if (q->group_size == 0)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: \"group_size\" must be positive, or -1 for one group a row, found 0", r->where);
    q->bits = (int)bits;
    q->symmetric = !zero_point;
    snprintf(q->layout, sizeof q->layout, "awq");
out:
    return st;
}

/* auto-round's files are GPTQ's or AWQ's, by the last word of packing_format ("auto_round:auto_gptq"). */
static qb_status read_auto_round(const reader *r) {
    const char *packing = NULL;
    bool symmetric = true;
    qb_status st;
    QB_TRY(st,
           qb_json_text(r->json, spelling(r->json, "packing_format", "backend"), r->where, true, &packing));
    QB_TRY(st, qb_json_bool(r->json, "sym", r->where, false, &symmetric));
    QB_TRY(st, qb_module_rules_add_names(r->rules, qb_json_get(r->json, "extra_config"), r->where));
    const char *last = strrchr(packing, ':') ? strrchr(packing, ':') + 1 : packing;
    if (!strcmp(last, "auto_gptq") || !strcmp(last, "gptq")) return read_gptq(r);
    if (strcmp(last, "auto_awq") != 0 && strcmp(last, "awq") != 0)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: packing_format \"%.60s\" is not supported (supported: auto_round:auto_gptq, "
                       "auto_round:auto_awq)",
                       r->where, packing);
    QB_TRY(st, read_awq(r));
    r->out->symmetric = symmetric;
out:
    return st;
}

/* `assumed` is the method of files that need not name it. */
static qb_status read_dialect(const reader *r, const char *assumed) {
    const char *method = assumed, *version = NULL;
    qb_status st;
    QB_TRY(st, qb_json_text(r->json, spelling(r->json, "quant_method", "method"), r->where, false, &method));
    QB_TRY(st, qb_json_text(r->json, "version", r->where, false, &version));
    if (version && !strncasecmp(version, "gem", 3) && method == assumed) method = "awq";
    if (!method) return qb_fail(QB_ERR_FORMAT, "%s: \"quant_method\" is missing", r->where);
    snprintf(r->out->method, sizeof r->out->method, "%s", method);
    if (!qb_json_is_null(qb_json_get(r->json, "kv_cache_scheme")))
        qb_warn("%s: \"kv_cache_scheme\" is not applied: keys and values are kept as floats here", r->where);
    if (!qb_json_is_null(qb_json_get(r->json, "activation_scheme")))
        qb_warn("%s: \"activation_scheme\" is not applied: activations are floats here", r->where);
    if (!strcmp(method, "gptq"))
        st = read_gptq(r);
    else if (!strcmp(method, "bitsandbytes"))
        st = read_bitsandbytes(r);
    else if (!strcmp(method, "awq"))
        st = read_awq(r);
    else if (!strcmp(method, "auto-round") || !strcmp(method, "intel/auto-round"))
        st = read_auto_round(r);
    else if (!strcmp(method, "mxfp4")) {
        r->out->bits = 4;
        r->out->group_size = 32;
        snprintf(r->out->layout, sizeof r->out->layout, "mxfp4");
    } else if (!strcmp(method, "fp8") || !strcmp(method, "fbgemm_fp8"))
        r->out->method[0] = 0; /* dense tensors of F8_E4M3, with scales: checkpoint/widen.c */
    else if (!strcmp(method, "compressed-tensors"))
        st = qb_quantization_read_compressed(r->json, r->where, r->out);
    else
        st = qb_fail(QB_ERR_UNSUPPORTED,
                     "%s: quant_method \"%.40s\" is not supported (supported: gptq, awq, auto-round, "
                     "compressed-tensors, bitsandbytes, fp8, mxfp4)",
                     r->where, method);
out:
    return st;
}

/* Members of all dialects that are read, or that say how the weights came to be and not what they are.
   Sources: transformers' quantization_config.py, GPTQModel's and AutoGPTQ's QuantizeConfig, AutoAWQ,
   auto-round. */
static const qb_inert_key known_members[] = {
#define X(pattern, values) {pattern, values},
#include "checkpoint/quantization_keys.def"
#undef X
};

/* The same of a group of compressed-tensors, and of its weights. */
static const qb_inert_key group_members[] = {
    {"targets", "*"},
    {"format", "*"},
    {"weights", "*"},
    {"input_activations", "*"}, /* refused, or warned of, where it is read */
    {"output_activations", "*"},
};
static const qb_inert_key group_weights[] = {
    {"num_bits", "*"},        {"type", "*"},        {"symmetric", "*"},
    {"group_size", "*"},      {"strategy", "*"},    {"actorder", "*"},
    {"block_structure", "*"}, {"scale_dtype", "*"}, /* the tensors say */
    {"zp_dtype", "*"},        {"observer", "*"},    /* how the codes were found */
    {"observer_kwargs", "*"}, {"dynamic", "false"},
};

/* The members of an object, told behind `prefix`: "", or the object's own name and a dot. */
static void gather_unread(const qb_json *object, const char *prefix, const qb_inert_key *known, size_t n,
                          qb_unread *unread) {
    char name[256];
    for (const qb_json *j = qb_json_is_object(object) ? qb_json_first(object) : NULL; j;
         j = qb_json_next(j)) {
        if (qb_inert_among(known, n, j)) continue;
        snprintf(name, sizeof name, "%s%s", prefix, qb_json_key(j));
        qb_unread_add_json(unread, name, j);
    }
}

static void warn_of_unread(const reader *r) {
    qb_unread unread = {0};
    char prefix[200];
#define KNOWN(rows) rows, sizeof rows / sizeof rows[0]
    gather_unread(r->json, "", KNOWN(known_members), &unread);
    const qb_json *groups = qb_json_get(r->json, "config_groups");
    for (const qb_json *g = qb_json_is_object(groups) ? qb_json_first(groups) : NULL; g;
         g = qb_json_next(g)) {
        snprintf(prefix, sizeof prefix, "config_groups.%.100s.", qb_json_key(g));
        gather_unread(g, prefix, KNOWN(group_members), &unread);
        snprintf(prefix, sizeof prefix, "config_groups.%.100s.weights.", qb_json_key(g));
        gather_unread(qb_json_get(g, "weights"), prefix, KNOWN(group_weights), &unread);
    }
#undef KNOWN
    qb_unread_warn(&unread, r->where);
}

static qb_status read_method(const reader *r, const char *assumed) {
    qb_status st = read_dialect(r, assumed);
    if (st == QB_OK) warn_of_unread(r);
    return st;
}

bool qb_checkpoint_ruled_dense(const qb_checkpoint *ck, const char *module) {
    return qb_module_rules_skip(&ck->rules, module);
}

qb_quantization qb_module_quantization(const qb_checkpoint *ck, const char *module) {
    qb_quantization how = ck->quantization;
    qb_module_rules_apply(&ck->rules, module, &how);
    return how;
}

qb_status qb_quantization_read(qb_checkpoint *ck) {
    static const struct {
        const char *file, *assumed;
    } beside[] = {{"quantize_config.json", "gptq"}, {"quant_config.json", "awq"}};
    reader r = {qb_json_get(ck->config, "quantization_config"), NULL, &ck->quantization, &ck->rules};
    char where[1200];
    snprintf(where, sizeof where, "%s/config.json: quantization_config", ck->dir);
    qb_status st = qb_arena_strdup(&ck->arena, where, &r.where);
    ck->quantization_source = r.where;
    if (st != QB_OK) return st;
    if (qb_json_is_object(r.json)) return read_method(&r, NULL);
    if (!qb_json_is_null(r.json)) return qb_fail(QB_ERR_FORMAT, "%s: expected a JSON object", where);
    for (size_t i = 0; i < sizeof beside / sizeof beside[0]; i++) {
        char *path = qb_path_join(ck->dir, beside[i].file);
        qb_json *json = NULL;
        if (!path) return qb_fail(QB_ERR_MEMORY, "out of memory");
        bool exists = false;
        st = qb_path_look(path, &exists);
        if (exists) {
            st = qb_arena_strdup(&ck->arena, path, &r.where);
            if (st == QB_OK) st = qb_json_read(path, MAX_CONFIG_BYTES, &json);
            r.json = json;
            ck->quantization_source = r.where;
            if (st == QB_OK)
                st = qb_json_is_object(json) ? read_method(&r, beside[i].assumed)
                                             : qb_fail(QB_ERR_FORMAT, "%s: expected a JSON object", path);
            qb_json_free(json);
        }
        qb_free(path);
        if (exists || st != QB_OK) return st;
    }
    return QB_OK;
}
