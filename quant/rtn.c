#include "quant/affine.h"
#include "quant/on_device.h"

static const qb_option options[] = {QB_AFFINE_OPTIONS, {0}};

static qb_status quantize(const qb_quant_job *job, qb_qweight *out, qb_module_report *report) {
    *out = (qb_qweight){0};
    qb_qweight shape = {0};
    qb_status st;
    QB_TRY(st, qb_affine_describe(job->module, job->rows, job->cols, job->source_dtype, job->config, &shape));
    QB_TRY(st, qb_qweight_alloc_affine(job->rows, job->cols, shape.bits, shape.group_size, false, out));
    out->symmetric = shape.symmetric;
    out->source_dtype = shape.source_dtype;
    if (job->dev) {
        qb_grid_rule rule = qb_affine_rule(job->config);
        QB_TRY(st, qb_round_on_device(job, &rule, NULL, out, report));
    } else {
        QB_TRY(st, qb_affine_round(job, out, report));
    }
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}

static qb_status site(const qb_site_job *job) {
    return qb_site_each(job, NULL, qb_device_rounds(job->dev) ? QB_SITE_ON_DEVICE : QB_SITE_BY_ROWS,
                        quantize);
}

static void label(const qb_quant_config *config, qb_str *out) {
    qb_affine_label(config, out);
    qb_affine_label_search(config, out);
}

extern const qb_quant_method qb_method_rtn;
const qb_quant_method qb_method_rtn = {
    .name = "rtn",
    .summary = "round to nearest on affine groups, without calibration",
    .source = "the baseline of Frantar et al. 2022, arXiv:2210.17323, with groups",
    .by_rows = true,
    .options = options,
    .describe = qb_affine_describe,
    .site = site,
    .label = label,
};
