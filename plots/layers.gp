# A line a case over the layers, faint marks for its single matrices.
# Needs: $layers (a data set a case: layer, mean), $modules (a data set a case: layer, error), n_cases, has_modules, case_hue,
# case_variant.
plot for [i=1:has_modules*n_cases] $modules index i-1 using 1:2 with points lc rgb hue(item(case_hue, i)) pt 7 ps 0.22 * point_scale notitle, \
  for [i=1:n_cases] $layers index i-1 using 1:2 with linespoints lc rgb hue(item(case_hue, i)) \
    dt dash(item(case_hue, i), item(case_variant, i)) \
    pt mark(item(case_hue, i), item(case_variant, i)) ps 0.7 * point_scale lw 1.4 notitle
