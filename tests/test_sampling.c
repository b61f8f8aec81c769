/* The rule by which speed rows are sampled, on made-up samples: no clock, no luck. */
#include "base/rng.h"
#include "base/significance.h"
#include "eval/disturbance.h"
#include "eval/instructions.h"
#include "eval/sampling.h"
#include "eval/timing.h"
#include "tests/support.h"

#include <linux/perf_event.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

/* A machine: each sample takes a tenth of a second and has a value by its index. */
typedef struct {
    int taken;
    uint64_t seed;
    double noise;               /* relative; uniform either way */
    double drift;               /* relative, a sample */
    int burst_begin, burst_end; /* half as fast */
    bool burst_seen;            /* by the counters */
    int disturbed_every;        /* marked and slow; 0: never */
    int fails_at;               /* 0: never */
} machine;

static qb_status sample(void *ctx, qb_sample *out) {
    machine *m = ctx;
    int i = m->taken++;
    if (m->fails_at && i == m->fails_at) return qb_fail(QB_ERR_IO, "the sampler failed");
    double u = (double)(qb_noise_u64(m->seed, (uint64_t)i) >> 11) * 0x1p-53;
    out->value = 100 * (1 + m->noise * (2 * u - 1)) * (1 + m->drift * i);
    out->seconds = 0.1;
    bool burst = i >= m->burst_begin && i < m->burst_end;
    bool disturbed = m->disturbed_every && i % m->disturbed_every == 0;
    if (burst || disturbed) out->value /= 2;
    if ((burst && m->burst_seen) || disturbed) out->disturbed = QB_DISTURBED_WAITED;
    return QB_OK;
}

static const qb_sampling_rule two_percent = {.precision = 0.02, .budget_s = 10, .least = 3};

static qb_sampling_rule rule_of(double precision, double budget_s, int64_t exactly, int64_t least) {
    return (qb_sampling_rule){
        .precision = precision, .budget_s = budget_s, .exactly = exactly, .least = least};
}

static qb_sampling_verdict run(machine m, qb_sampling_rule rule, qb_sampling *s) {
    qb_sampling own = {0};
    qb_sampling_verdict v;
    assert_ok(qb_sampling_run(&rule, sample, &m, &own));
    qb_sampling_judge(&own, &rule, &v);
    if (s) *s = own;
    return v;
}

static void test_sampling__a_steady_machine_needs_ten_samples(void **state) {
    (void)state;
    qb_sampling s;
    qb_sampling_verdict v = run((machine){.noise = 0.01}, two_percent, &s);
    assert_int_equal(s.stop, QB_STOPPED_PRECISION);
    assert_int_equal(s.n, 10);
    assert_true(v.reached && !v.noisy && v.half_width <= 0.01 && v.low <= v.median && v.median <= v.high);
}

/* The interval of a wide spread shrinks with the samples: more of them are taken, until it is narrow enough.
 */
static void test_sampling__spread_takes_more_samples(void **state) {
    (void)state;
    int more = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        qb_sampling s;
        qb_sampling_verdict v = run((machine){.noise = 0.06, .seed = seed}, rule_of(0.02, 1e9, 0, 3), &s);
        assert_int_equal(s.stop, QB_STOPPED_PRECISION);
        assert_true(v.reached && !v.noisy && fabs(v.median / 100 - 1) < 0.04);
        more += s.n > 10;
    }
    assert_true(more >= 18);
}

static void test_sampling__the_budget_ends_it_and_noise_is_said(void **state) {
    (void)state;
    qb_sampling s;
    qb_sampling_verdict v = run((machine){.noise = 0.6}, rule_of(0.02, 3, 0, 3), &s);
    assert_int_equal(s.stop, QB_STOPPED_BUDGET);
    assert_int_equal(s.n, 30);
    assert_true(!v.reached && v.noisy);
    assert_non_null(strstr(v.why, "the median is known to"));
    /* A budget of nothing still gives what the caller wants at least. */
    v = run((machine){.noise = 0.01}, rule_of(0.02, 0, 0, 3), &s);
    assert_int_equal(s.n, 3);
    assert_true(!v.reached && !v.noisy && isnan(v.half_width) && isnan(v.low));
}

/* Later samples that are slower are no narrow interval's business. */
static void test_sampling__drift_is_not_taken_for_precision(void **state) {
    (void)state;
    qb_sampling s;
    qb_sampling_verdict v = run((machine){.noise = 0.002, .drift = 0.006}, rule_of(0.02, 5, 0, 3), &s);
    assert_int_equal(s.stop, QB_STOPPED_BUDGET);
    assert_true(!v.reached && v.noisy && v.drift > 0.1);
    assert_non_null(strstr(v.why, "later samples differ"));
}

static void test_sampling__a_burst_that_was_seen_is_left_out(void **state) {
    (void)state;
    qb_sampling s;
    machine m = {.noise = 0.01, .burst_begin = 3, .burst_end = 12, .burst_seen = true};
    qb_sampling_verdict v = run(m, two_percent, &s);
    assert_int_equal(s.stop, QB_STOPPED_PRECISION);
    assert_int_equal(s.n, 19); /* nine more in place of those that were disturbed */
    assert_int_equal(v.n, 10);
    assert_true(v.reached && !v.noisy && v.median > 99);
    /* The same burst unseen costs precision: samples go on until the median is sure again. */
    m.burst_seen = false;
    v = run(m, two_percent, &s);
    assert_true(s.n > 19 && v.median > 98);
}

static void test_sampling__all_disturbed_counts_and_is_noisy(void **state) {
    (void)state;
    qb_sampling s;
    qb_sampling_verdict v = run((machine){.noise = 0.01, .disturbed_every = 1}, rule_of(0.02, 2, 0, 3), &s);
    assert_int_equal(s.n, 20);
    assert_int_equal(v.n, 20);
    assert_true(v.all_used && v.noisy && v.n_clean == 0);
    assert_string_equal(v.why, "20 of 20 samples were disturbed: threads waited for a core");
}

static void test_sampling__so_many_as_were_asked_for(void **state) {
    (void)state;
    qb_sampling s;
    qb_sampling_verdict v = run((machine){.noise = 0.5}, rule_of(0.02, 0, 5, 3), &s);
    assert_int_equal(s.stop, QB_STOPPED_COUNT);
    assert_int_equal(v.n, 5);
    v = run((machine){.noise = 0.01, .disturbed_every = 2}, rule_of(0.02, 0, 5, 3), &s);
    assert_int_equal(v.n, 5);
    assert_int_equal(s.n, 10); /* each second one was taken again */
    assert_true(!v.noisy && v.median > 99);
    v = run((machine){.noise = 0.01, .disturbed_every = 1}, rule_of(0.02, 0, 5, 3), &s);
    assert_int_equal(v.n, 5);
    assert_int_equal(s.n, 10);
    assert_true(v.noisy);
    v = run((machine){0}, rule_of(0.02, 1e9, QB_SAMPLES_MAX, 3), &s);
    assert_int_equal(v.n, QB_SAMPLES_MAX);
    v = run((machine){.noise = 0.9}, rule_of(0.0001, 1e9, 0, 3), &s);
    assert_int_equal(s.n, QB_SAMPLES_MAX);
    assert_int_equal(s.stop, QB_STOPPED_COUNT);
}

static void test_sampling__a_failure_ends_it(void **state) {
    (void)state;
    machine m = {.fails_at = 4};
    qb_sampling s = {0};
    assert_fails(qb_sampling_run(&two_percent, sample, &m, &s), QB_ERR_IO, "the sampler failed");
    assert_int_equal(s.n, 4);
}

/* Three rounds share budget and samples; each takes about as many as the others, and together they reach what
   was asked for. */
static void test_sampling__rounds_share_evenly(void **state) {
    (void)state;
    qb_speed_config c = {.precision = 2, .budget_s = 9, .repeat = 5};
    static const int64_t exactly[] = {2, 4, 5};
    for (int r = 0; r < 3; r++) {
        qb_sampling_rule rule = qb_timing_rule(&c, &(qb_speed_round){r, 3, NULL});
        assert_int_equal(rule.exactly, exactly[r]);
        assert_true(fabs(rule.budget_s - 3 * (r + 1)) < 1e-9 && rule.least == 1);
        assert_true(r == 2 ? fabs(rule.precision - 0.02) < 1e-12 : rule.precision > 0.02);
    }
    c.repeat = 0;
    qb_sampling s = {0};
    machine m = {.noise = 0.01, .seed = 9};
    int before = 0, per_round[3];
    for (int r = 0; r < 3; r++) {
        qb_sampling_rule rule = qb_timing_rule(&c, &(qb_speed_round){r, 3, NULL});
        if (r) rule.balance = (s.n + r - 1) / r;
        assert_ok(qb_sampling_run(&rule, sample, &m, &s));
        qb_sampling_close_round(&s, before);
        per_round[r] = s.n - before;
        before = s.n;
    }
    assert_true(per_round[0] >= 6); /* fewer have no interval */
    assert_true(per_round[1] == per_round[0] && per_round[2] == per_round[0]);
    qb_sampling_verdict v;
    qb_sampling_rule whole = qb_timing_rule(&c, NULL);
    qb_sampling_judge(&s, &whole, &v);
    assert_true(v.reached && whole.precision == 0.02);
    /* A machine that is slower in one round than in the others gives no sure median. */
    s = (qb_sampling){0};
    m = (machine){.noise = 0.01, .seed = 9};
    for (int r = 0; r < 3; r++) {
        qb_sampling_rule rule = qb_timing_rule(&c, &(qb_speed_round){r, 3, NULL});
        int begun = s.n;
        if (r) rule.balance = (s.n + r - 1) / r;
        m.burst_begin = r == 2 ? 0 : 1 << 30, m.burst_end = 1 << 30;
        assert_ok(qb_sampling_run(&rule, sample, &m, &s));
        qb_sampling_close_round(&s, begun);
    }
    qb_sampling_judge(&s, &whole, &v);
    assert_true(!v.reached && v.noisy && v.round_spread > 0.9);
    qb_sampling_invert(&s, 100);
    qb_sampling_judge(&s, &whole, &v);
    assert_true(v.noisy && v.round_spread > 0.9 && v.median > 0.9);
}

/* A row that was put goes on in another process, with nothing lost. */
static void test_sampling__rows_are_taken_up(void **state) {
    (void)state;
    for (int every = 0; every < 3; every++) {
        qb_sampling s, again;
        qb_measure row;
        machine m = {.noise = 0.3, .disturbed_every = every, .seed = 4};
        qb_sampling_verdict v = run(m, rule_of(0.02, 1.5, 0, 3), &s), w;
        assert_ok(qb_measure_init(&row, "decode"));
        qb_sampling_put(&s, &two_percent, &row);
        assert_int_equal(row.n, v.n);
        assert_true(row.value == v.median);
        qb_json *json = qb_json_copy(row.extra), *samples = qb_json_array();
        for (int i = 0; i < row.n_samples; i++) qb_json_push_real(samples, row.samples[i]);
        qb_json_put(json, "samples", samples);
        assert_true(qb_sampling_take_up(json, &again));
        assert_int_equal(again.n, s.n);
        assert_true(again.seconds == s.seconds);
        qb_sampling_judge(&again, &two_percent, &w);
        assert_true(w.median == v.median && w.n_clean == v.n_clean && w.noisy == v.noisy);
        m.taken = s.n;
        qb_sampling_rule longer = rule_of(0.02, 3, 0, 3);
        assert_ok(qb_sampling_run(&longer, sample, &m, &again));
        assert_int_equal(again.n, 30);
        qb_json_free(json);
        qb_measure_free(&row);
    }
    qb_sampling none;
    qb_json *other = qb_json_object();
    assert_false(qb_sampling_take_up(other, &none));
    qb_json_free(other);
}

/* Of any distribution: the interval holds the median at least as often as it claims, and not without end. */
static void test_median_interval__holds_what_it_claims(void **state) {
    (void)state;
    static const int sizes[] = {6, 10, 25, 100};
    for (int k = 0; k < 4; k++) {
        int held = 0, n = sizes[k];
        enum { TRIES = 4000 };
        for (int t = 0; t < TRIES; t++) {
            double x[100], low, high;
            for (int i = 0; i < n; i++) {
                double u = (double)(qb_noise_u64(7 + (uint64_t)n, (uint64_t)(t * 100 + i)) >> 11) * 0x1p-53;
                x[i] = -log(1 - u); /* exponential: median ln 2 */
            }
            qb_median_interval(x, n, 0.95, &low, &high);
            held += low <= log(2) && log(2) <= high;
        }
        double share = held / (double)TRIES;
        print_message("n = %d: %.4f\n", n, share);
        assert_true(share > 0.94 && share < 0.995);
    }
}

/* Ranks from tables of the binomial distribution (Conover's table A3: n = 10 takes 2 and 9, n = 20 takes 6
 * and 15). */
static void test_median_interval__takes_the_tables_ranks(void **state) {
    (void)state;
    double x[20], low, high;
    for (int i = 0; i < 20; i++) x[i] = (i * 7) % 20 + 1;
    qb_median_interval(x, 20, 0.95, &low, &high);
    assert_true(low == 6 && high == 15);
    double y[10] = {3, 1, 2, 10, 4, 9, 5, 8, 6, 7};
    qb_median_interval(y, 10, 0.95, &low, &high);
    assert_true(low == 2 && high == 9);
    qb_median_interval(y, 6, 0.95, &low, &high);
    assert_true(low == 1 && high == 10);
    qb_median_interval(y, 5, 0.95, &low, &high);
    assert_true(isnan(low) && isnan(high));
    qb_median_interval(y, 0, 0.95, &low, &high);
    assert_true(isnan(low));
}

/* ---- what the counters tell ---- */

static const qb_host_counters quiet = {.waited_ns = 0, .throttled = -1, .cpu_hz = 3e9};

static unsigned judged(qb_host_counters after, double seconds) {
    return qb_disturbances(&quiet, &after, &quiet, seconds, 2);
}

static void test_disturbance__each_counter_has_its_mark(void **state) {
    (void)state;
    qb_host_counters c = quiet;
    assert_int_equal(judged(c, 1), 0);
    c.waited_ns = 10000000;
    assert_int_equal(judged(c, 1), 0); /* a hundredth of the time */
    assert_int_equal(judged(c, 0.1), QB_DISTURBED_WAITED);
    c = quiet;
    c.stolen_ns = 10000000;
    assert_int_equal(judged(c, 0.02), QB_DISTURBED_STOLEN);
    c = quiet;
    c.cpu_hz = 2.8e9;
    assert_int_equal(judged(c, 1), 0);
    c.cpu_hz = 2.6e9;
    assert_int_equal(judged(c, 1), QB_DISTURBED_CLOCK);
    c.cpu_hz = (double)NAN;
    assert_int_equal(judged(c, 1), 0);
    c = quiet;
    c.involuntary = 1000; /* no say where waiting is counted */
    assert_int_equal(judged(c, 1), 0);
    c.waited_ns = -1;
    assert_int_equal(judged(c, 1), QB_DISTURBED_SWITCHED);
    c.involuntary = 100;
    assert_int_equal(judged(c, 1), 0);
    qb_host_counters before = quiet, after = quiet;
    before.throttled = 4, after.throttled = 5;
    assert_int_equal(qb_disturbances(&before, &after, &quiet, 1, 2), QB_DISTURBED_THROTTLED);
    for (unsigned bit = 1; bit < 1u << QB_DISTURBANCES; bit <<= 1)
        assert_true(*qb_disturbance_key(bit) && *qb_disturbance_words(bit));
}

static char *scratch;

static const char *below_scratch(const char *name) {
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    return path;
}

static void put_file(const char *name, const char *text) {
    const char *path = below_scratch(name);
    char *dir = qb_path_dir(path);
    assert_ok(qb_make_dirs(dir));
    qb_free(dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_host_counters__are_read_from_the_kernels_files(void **state) {
    (void)state;
    qb_host_counters c;
    char governor[32], name[200];
    scratch = scratch_make();
    put_file("root/proc/self/task/10/schedstat", "1000 20 3\n");
    put_file("root/proc/self/task/11/schedstat", "1000 22 3\n");
    put_file("root/proc/stat", "cpu  1 2 3 4 5 6 7 8 9 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n");
    for (int cpu = 0; cpu < 2; cpu++) {
        snprintf(name, sizeof name, "root/sys/devices/system/cpu/cpu%d/thermal_throttle/core_throttle_count",
                 cpu);
        put_file(name, cpu ? "3\n" : "4\n");
    }
    for (int cpu = 0; cpu < 512; cpu++) { /* whichever core asks */
        snprintf(name, sizeof name, "root/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", cpu);
        put_file(name, "2400000\n");
        snprintf(name, sizeof name, "root/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", cpu);
        put_file(name, "powersave\n");
    }
    qb_host_counters_read(below_scratch("root"), &c);
    assert_int_equal(c.waited_ns, 42);
    assert_int_equal(c.throttled, 7);
    assert_int_equal(c.stolen_ns, 8 * (1000000000 / sysconf(_SC_CLK_TCK)));
    assert_true(c.cpu_hz == 2.4e9 && c.cpu_ns >= 0 && c.involuntary >= 0);
    qb_host_governor(below_scratch("root"), governor);
    assert_string_equal(governor, "powersave");
    qb_host_counters_read(below_scratch("nothing"), &c);
    assert_true(c.waited_ns == -1 && c.stolen_ns == -1 && c.throttled == -1 && isnan(c.cpu_hz));
    qb_host_governor(below_scratch("nothing"), governor);
    assert_string_equal(governor, "");
    put_file("broken/proc/stat", "nonsense\n");
    put_file("broken/proc/self/task/10/schedstat", "");
    qb_host_counters_read(below_scratch("broken"), &c);
    assert_true(c.waited_ns == -1 && c.stolen_ns == -1);
    scratch_remove(scratch);
}

static void test_instructions__shared_counters_are_scaled(void **state) {
    (void)state;
    static const qb_counter_reading whole[] = {{1000, 50, 50}, {500, 40, 40}, {0, 0, 0}};
    static const qb_counter_reading shared[] = {{1000, 50, 50}, {500, 40, 10}};
    static const qb_counter_reading never[] = {{1000, 50, 50}, {0, 40, 0}};
    assert_true(qb_counter_sum(whole, 3) == 1500); /* a thread that did not run counts nothing */
    assert_true(qb_counter_sum(shared, 2) == 3000);
    assert_true(isnan(qb_counter_sum(never, 2)));
}

typedef struct spinner {
    int64_t steps;
    double cpu_ns; /* the processor time it took, by the thread's own clock */
} spinner;

static void *spin(void *p) {
    spinner *s = p;
    struct timespec from, to;
    volatile uint64_t sum = 0;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    for (int64_t i = 0; i < s->steps; i++) sum = sum + (uint64_t)i;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    s->cpu_ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
    return NULL;
}

/* Task time stands in for instructions where no processor counts them: the same calls. What is counted lies
 * at or above what each thread says of itself, and a thread that ended before is not counted again. */
static void test_instructions__threads_are_counted_or_it_is_said_why(void **state) {
    (void)state;
    qb_counters c;
    for (int k = 0; k < 3; k++) {
        bool open = k == 0   ? qb_instructions_open(&c)
                    : k == 1 ? qb_counters_open(&c, PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK)
                             : qb_counters_open(&c, 0x7fffffff, 0);
        if (open) {
            spinner large = {.steps = 20000000}, other = {.steps = 20000000}, small = {.steps = 20000};
            pthread_t thread;
            qb_counters_begin(&c);
            assert_int_equal(pthread_create(&thread, NULL, spin, &other), 0);
            spin(&large);
            pthread_join(thread, NULL);
            double both = qb_counters_end(&c);
            double least =
                k == 0 ? (double)(large.steps + other.steps) : 0.99 * (large.cpu_ns + other.cpu_ns);
            if (!(both >= least)) fail_msg("%g counted, at least %g ran", both, least);
            qb_counters_begin(&c);
            spin(&small);
            double few = qb_counters_end(&c);
            if (!(few > 0 && few < both / 8)) fail_msg("%g counted after %g", few, both);
            assert_true(c.n > 0 && !c.why[0]);
        } else {
            print_message("skipped: %s\n", c.why);
            assert_non_null(strstr(c.why, "perf_event_open: "));
        }
        if (k == 2) assert_false(open);
        qb_counters_close(&c);
        assert_true(!c.n && !c.threads);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_instructions__shared_counters_are_scaled),
        cmocka_unit_test(test_instructions__threads_are_counted_or_it_is_said_why),
        cmocka_unit_test(test_sampling__a_steady_machine_needs_ten_samples),
        cmocka_unit_test(test_sampling__spread_takes_more_samples),
        cmocka_unit_test(test_sampling__the_budget_ends_it_and_noise_is_said),
        cmocka_unit_test(test_sampling__drift_is_not_taken_for_precision),
        cmocka_unit_test(test_sampling__a_burst_that_was_seen_is_left_out),
        cmocka_unit_test(test_sampling__all_disturbed_counts_and_is_noisy),
        cmocka_unit_test(test_sampling__so_many_as_were_asked_for),
        cmocka_unit_test(test_sampling__a_failure_ends_it),
        cmocka_unit_test(test_sampling__rounds_share_evenly),
        cmocka_unit_test(test_sampling__rows_are_taken_up),
        cmocka_unit_test(test_median_interval__holds_what_it_claims),
        cmocka_unit_test(test_median_interval__takes_the_tables_ranks),
        cmocka_unit_test(test_disturbance__each_counter_has_its_mark),
        cmocka_unit_test(test_host_counters__are_read_from_the_kernels_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
