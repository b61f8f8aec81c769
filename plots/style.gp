# The looks that all plots share. Colours: Okabe and Ito's palette, told apart by colour-blind readers; every method has its own
# mark and dash too, so that a grey print says the same. Index 0 is the unquantized model, then gptq, rtn, nf4, fp4, others.
set encoding utf8
hues = "#4d4d4d #0072b2 #d55e00 #009e73 #b5508c #a87300 #2f8fc4 #000000"
pales = "#9b9b9b #73aed6 #e5a473 #73c9b0 #d19bb8 #cfb073 #90c3de #737373"
inks = "#333333 #00588a #a84a00 #00704f #8f3d6d #7d5600 #246f99 #000000"
filled = "7 7 5 9 13 11 15 3"
hollow = "6 6 4 8 12 10 14 2"
dashes = "1 1 2 4 5 3 2 4"
# The i-th number of a list; gnuplot evaluates it once even where a loop has no rounds and the list is empty.
item(list, i) = i <= words(list) ? int(word(list, i)) : 0
hue(i) = word(hues, i + 1)
# What was projected rather than measured is pale and dotted.
shade(i, projected) = word(projected ? pales : hues, i + 1)
projected_dash = 3
ink(i) = word(inks, i + 1)
mark(i, variant) = int(word(variant > 0 ? hollow : filled, i + 1))
dash(i, variant) = 1 + (int(word(dashes, i + 1)) - 1 + variant) % 5
dash_of(i, variant, projected) = projected ? projected_dash : dash(i, variant)
font_11 = sprintf(",%.4g", 11 * font_scale)
font_12 = sprintf(",%.4g", 12 * font_scale)
font_13 = sprintf(",%.4g", 13 * font_scale)
font_16 = sprintf(",%.4g", 16 * font_scale)
label_font = font_11
# Where a label has to stand on a line, the line pales behind it.
set style textbox opaque noborder fillcolor rgb '#38ffffff' margins 0.3, 0.1
set border 3 lc rgb '#555555' lw 1
set tics out nomirror scale 0.6 textcolor rgb '#333333' font font_12
set grid xtics ytics lt 1 lc rgb '#e6e6e6' lw 0.7
set errorbars small
set key off
