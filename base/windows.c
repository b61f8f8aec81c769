#include "base/windows.h"

#include "base/memory.h"

void qb_windows_free(qb_windows *w) {
    if (!w) return;
    qb_free(w->ids);
    qb_free(w->windows);
    *w = (qb_windows){0};
}
