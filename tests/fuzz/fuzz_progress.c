/* Any bytes as the module reports of an interrupted run (progress.json). */
#include "base/memory.h"
#include "quant/driver.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static void require(int holds) {
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qb_json *json, *back = NULL;
    qb_quant_report report = {0}, again = {0};
    if (qb_json_parse((const char *)data, size, "fuzz", &json) != QB_OK) return 0;
    if (qb_quant_report_restore(qb_json_get(json, "modules"), "fuzz", &report) == QB_OK) {
        for (size_t i = 0; i < report.n_modules; i++) {
            const qb_module_report *m = &report.modules[i];
            require(m->rows > 0 && m->cols > 0 && m->bits >= 0 && m->error >= 0);
            require(memchr(m->module, 0, sizeof m->module) != NULL);
        }
        /* What we write of it says the same. */
        back = qb_quant_report_json(&report);
        require(qb_quant_report_restore(qb_json_get(back, "modules"), "again", &again) == QB_OK);
        require(again.n_modules == report.n_modules);
    }
    require(strchr(qb_error_text(), '\n') == NULL);
    qb_quant_report_free(&report);
    qb_quant_report_free(&again);
    qb_json_free(json);
    qb_json_free(back);
    return 0;
}
