# Points with error bars, lines through those of one series, the steps of a front. Projected series, which nobody measured, are
# hollow, pale and dotted; a point that stayed noisy is crossed.
# Needs: $baselines, $floors and $projections (horizontal lines, a blank line between), n_baselines, n_floors and n_projections
# (0: none), $points (a data set a series: x y spread), $lines (the joined series), $front, $noisy, n_series, n_lines, n_fronts, n_noisy,
# series_hue, series_variant, series_projected, line_hue, line_variant, line_projected.
plot for [i=1:n_baselines] $baselines using 1:2 with lines lc rgb '#4d4d4d' lw 1.3 dt 1 notitle, \
  for [i=1:n_floors] $floors using 1:2 with lines lc rgb '#4d4d4d' lw 1.3 dt 3 notitle, \
  for [i=1:n_projections] $projections using 1:2 with lines lc rgb shade(0, 1) lw 1.3 dt projected_dash notitle, \
  for [i=1:n_fronts] $front using 1:2 with steps lc rgb '#999999' lw 2.4 dt 1 notitle, \
  for [i=1:n_lines] $lines index i-1 using 1:2 with lines lc rgb shade(item(line_hue, i), item(line_projected, i)) \
    dt dash_of(item(line_hue, i), item(line_variant, i), item(line_projected, i)) lw 1.4 notitle, \
  for [i=1:n_series] $points index i-1 using 1:2:($3 > 0 ? $3 : NaN) with yerrorbars \
    lc rgb hue(item(series_hue, i)) dt 1 pt 0 ps 0 lw 1.1 notitle, \
  for [i=1:n_series] $points index i-1 using 1:2 with points \
    lc rgb shade(item(series_hue, i), item(series_projected, i)) \
    pt mark(item(series_hue, i), item(series_variant, i) + item(series_projected, i)) ps point_scale lw 1.3 notitle, \
  for [i=1:n_noisy] $noisy using 1:2 with points lc rgb '#111111' pt 2 ps 1.5 * point_scale lw 1.4 notitle
