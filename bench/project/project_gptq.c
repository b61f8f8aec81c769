/* How much arithmetic GPTQ of a list of modules is (docs/methods.md, arithmetic). */
#include "bench/project/project.h"

#include <math.h>
#include <string.h>

/* Linears that see the same input have the same Hessian; the first of each set stands for it. A name that is
   in none of the sets has its own. */
static bool shares_input(const char *module) {
    static const char *const followers[] = {"k_proj", "v_proj", "up_proj"};
    const char *leaf = strrchr(module, '.');
    leaf = leaf ? leaf + 1 : module;
    for (size_t i = 0; i < sizeof followers / sizeof followers[0]; i++)
        if (!strcmp(leaf, followers[i])) return true;
    return false;
}

bool qb_gptq_work_of(const qb_row_module *modules, int n, double tokens, qb_gptq_work *out) {
    *out = (qb_gptq_work){0};
    for (int i = 0; i < n; i++) {
        double rows = modules[i].rows, cols = modules[i].cols;
        if (!(rows > 0) || !(cols > 0) || !*modules[i].name) return false;
        out->forward += 2 * rows * cols * tokens;
        out->update += rows * cols * cols;
        if (shares_input(modules[i].name)) continue;
        out->hessian += tokens * cols * cols; /* the lower triangle: half of 2 n d^2 */
        out->factor += 4.0 / 3 * cols * cols * cols;
    }
    return out->forward > 0 && tokens > 0;
}
