#include "plots/axis.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_TICS = 256 };

qb_axis qb_axis_fit(double min, double max, double margin, bool log, bool from_zero) {
    if (!isfinite(min) || !isfinite(max) || min > max) return (qb_axis){0, 1, false};
    if (from_zero && min >= 0 && max <= 1e300) return (qb_axis){0, max > 0 ? max * (1 + margin) : 1, false};
    if (log && min > 0) {
        double ratio = pow(max / min, margin);
        if (ratio < 1.02) ratio = 1.02;
        double low = min / ratio, high = max * ratio;
        if (low > 0 && isfinite(high)) return (qb_axis){low, high, true};
    }
    double pad = (max - min) * margin;
    /* Values that agree to rounding must not fill the picture with their rounding. */
    double least = fmax(fabs(max), fabs(min)) * 1e-3;
    if (pad <= least) pad = least > 0 ? least : 1;
    if (!isfinite(max + pad) || !isfinite(min - pad)) return (qb_axis){min / 2, max / 2, false};
    return (qb_axis){min - pad, max + pad, false};
}

double qb_axis_place(const qb_axis *a, double v) {
    double place =
        a->log ? (log(v) - log(a->min)) / (log(a->max) - log(a->min)) : (v - a->min) / (a->max - a->min);
    return isnan(place) ? 0 : fmin(fmax(place, -1), 2);
}

static void put_superscript(int n, qb_str *out) {
    static const char *const digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
    if (n < 0) qb_str_text(out, "⁻");
    n = n < 0 ? -n : n;
    if (n >= 100) qb_str_text(out, digits[n / 100 % 10]);
    if (n >= 10) qb_str_text(out, digits[n / 10 % 10]);
    qb_str_text(out, digits[n % 10]);
}

double qb_axis_step(const double *values, int n) {
    double least = (double)INFINITY;
    for (int i = 1; i < n; i++) least = fmin(least, values[i] - values[i - 1]);
    return isfinite(least) && least > 0 ? least : 0;
}

/* Significant digits of a value on a scale of that step, whose own digits are two at most ("2.5"). */
static int digits_of(double size, double step, int least) {
    if (!(step > 0) || !(size > step)) return least;
    int digits = (int)(floor(log10(size) + 1e-9) - floor(log10(step) + 1e-9)) + 2;
    return digits < least ? least : digits > 15 ? 15 : digits;
}

void qb_axis_format(double value, double step, qb_str *out) {
    double size = fabs(value);
    /* On an even scale that reaches a little further, 100000 stands beside 50000. */
    double largest = step > 0 && size <= 64 * step ? 999999.5 : 99999.5;
    if (size == 0 || (size >= 1e-3 * 0.999 && size < largest)) {
        qb_str_printf(out, "%.*g", digits_of(size, step, 6), size < 1e-300 ? 0 : value);
        return;
    }
    char mantissa[32];
    int power = (int)floor(log10(size) + 1e-9);
    snprintf(mantissa, sizeof mantissa, "%.*g", digits_of(size, step, 3), value / pow(10, power));
    if (strcmp(mantissa, "1") != 0 && strcmp(mantissa, "-1") != 0)
        qb_str_printf(out, "%s×", mantissa);
    else if (value < 0)
        qb_str_text(out, "-");
    qb_str_text(out, "10");
    put_superscript(power, out);
}

typedef struct tics {
    double *values;
    int n, max;
} tics;

static void add_tic(tics *t, double value) {
    if (t->n < t->max) t->values[t->n++] = value;
}

static void linear_tics(const qb_axis *a, int wanted, tics *out) {
    double rough = (a->max - a->min) / wanted, unit = pow(10, floor(log10(rough)));
    static const double steps[] = {1, 2, 2.5, 5, 10};
    double step = unit * 10;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        if (steps[i] * unit >= rough * 0.999) {
            step = steps[i] * unit;
            break;
        }
    double first = ceil(a->min / step - 1e-9);
    for (int i = 0; i <= 4 * wanted && (first + i) * step <= a->max * (1 + 1e-12); i++) {
        double v = (first + i) * step;
        add_tic(out, fabs(v) < step * 1e-9 ? 0 : v);
    }
}

static int count_log(const qb_axis *a, const double *mantissas, int n, int stride) {
    int count = 0;
    for (int power = (int)floor(log10(a->min)) - 1; power <= (int)ceil(log10(a->max)); power++)
        for (int i = 0; i < n && power % stride == 0; i++) {
            double v = mantissas[i] * pow(10, power);
            count += v >= a->min && v <= a->max;
        }
    return count;
}

/* The densest of the usual sets of mantissas that gives no more tics than wanted. */
static void log_tics(const qb_axis *a, int wanted, tics *out) {
    static const double sets[][8] = {
        {1, 1.5, 2, 3, 4, 5, 6, 8}, {1, 2, 3, 4, 6, 8}, {1, 2, 3, 5}, {1, 2, 5}, {1, 3}, {1}};
    static const int sizes[] = {8, 6, 4, 3, 2, 1};
    int set = 0, stride = 1;
    while (set < 5 && count_log(a, sets[set], sizes[set], 1) > wanted) set++;
    while (stride < 64 && count_log(a, sets[set], sizes[set], stride) > wanted + 2) stride++;
    if (count_log(a, sets[set], sizes[set], stride) < 3) {
        linear_tics(a, wanted, out);
        return;
    }
    for (int power = (int)floor(log10(a->min)) - 1; power <= (int)ceil(log10(a->max)); power++)
        for (int i = 0; i < sizes[set] && power % stride == 0; i++) {
            double v = sets[set][i] * pow(10, power);
            if (v >= a->min && v <= a->max) add_tic(out, v);
        }
}

int qb_axis_values(const qb_axis *a, int wanted, double *values, int max) {
    tics t = {values, 0, max};
    if (a->log)
        log_tics(a, wanted, &t);
    else
        linear_tics(a, wanted, &t);
    return t.n;
}

void qb_axis_tics(const qb_axis *a, int wanted, qb_str *out) {
    double values[MAX_TICS];
    int n = qb_axis_values(a, wanted, values, MAX_TICS);
    qb_str_text(out, "(");
    for (int i = 0; i < n; i++) {
        qb_str_text(out, i ? ", '" : "'");
        qb_axis_format(values[i], qb_axis_step(values, n), out);
        qb_str_printf(out, "' %.12g", values[i]);
    }
    qb_str_text(out, ")");
}
