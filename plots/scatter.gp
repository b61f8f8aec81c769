# Points with error bars, lines through those of one series, the steps of a front.
# Needs: $baselines and $floors (horizontal lines, a blank line between), n_baselines and n_floors (0: none), $points (a data set a series: x y spread), $lines (the joined series), $front, n_series, n_lines, n_fronts,
# series_hue, series_variant, line_hue, line_variant.
plot for [i=1:n_baselines] $baselines using 1:2 with lines lc rgb '#4d4d4d' lw 1.3 dt 1 notitle, \
  for [i=1:n_floors] $floors using 1:2 with lines lc rgb '#4d4d4d' lw 1.3 dt 3 notitle, \
  for [i=1:n_fronts] $front using 1:2 with steps lc rgb '#999999' lw 2.4 dt 1 notitle, \
  for [i=1:n_lines] $lines index i-1 using 1:2 with lines \
    lc rgb hue(item(line_hue, i)) dt dash(item(line_hue, i), item(line_variant, i)) lw 1.4 notitle, \
  for [i=1:n_series] $points index i-1 using 1:2:($3 > 0 ? $3 : NaN) with yerrorbars \
    lc rgb hue(item(series_hue, i)) dt 1 pt 0 ps 0 lw 1.1 notitle, \
  for [i=1:n_series] $points index i-1 using 1:2 with points \
    lc rgb hue(item(series_hue, i)) pt mark(item(series_hue, i), item(series_variant, i)) ps point_scale lw 1.3 notitle
