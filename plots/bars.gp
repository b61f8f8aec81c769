# Horizontal bars, a row a case, row 1 at the top. Needs: $bars (row, value, spread, hue, inner value, mark value; 0 where there
# is none; filling: 0 plain, 1 projected, 2 noisy); has_inner, has_mark. An inner bar makes the outer one pale; a projected one
# is an empty dotted frame, a noisy one hatched.
set grid noytics
set border 1
unset ytics
array hues_tint[8]
do for [i=1:8] { hues_tint[i] = int("0x" . substr(word(hues, i), 2, 7)) }
set style fill solid 1.0 noborder
pale(c) = (255 - (255 - (c / 65536)) / 3) * 65536 + (255 - (255 - (c / 256) % 256) / 3) * 256 + (255 - (255 - c % 256) / 3)
outer(c) = has_inner ? pale(c) : c
plot $bars using (int($7) == 2 ? $2 / 2 : NaN):1:($2 / 2):(0.34):(hues_tint[int($4) + 1]) with boxxyerror lc rgb variable \
    lw 1.2 fs pattern 4 border notitle, \
  $bars using (int($7) ? NaN : $2 / 2):1:($2 / 2):(0.34):(outer(hues_tint[int($4) + 1])) with boxxyerror lc rgb variable notitle, \
  $bars using (int($7) == 1 ? $2 / 2 : NaN):1:($2 / 2):(0.34):(hues_tint[int($4) + 1]) with boxxyerror lc rgb variable \
    dt projected_dash lw 1.6 fs empty border notitle, \
  for [k=1:has_inner] $bars using ($5 / 2):1:($5 / 2):(0.34):(hues_tint[int($4) + 1]) with boxxyerror lc rgb variable notitle, \
  $bars using ($3 > 0 ? $2 : NaN):1:3 with xerrorbars lc rgb '#222222' dt 1 pt 0 ps 0 lw 1.1 notitle, \
  for [k=1:has_mark] $bars using ($6 > 0 ? $6 : NaN):1 with points pt 12 ps 1.1 * point_scale lw 1.4 lc rgb '#000000' notitle
