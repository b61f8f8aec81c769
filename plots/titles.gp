# Title, subtitle and axis labels, set left as a caption is read. Needs: figure_title, figure_subtitle, x_label, y_label,
# font_scale, subtitle_px, has_title, canvas_width, canvas_height, area_x and area_y (the middle of the plot area on the screen).
if (has_title) set label figure_title at screen 16.0 * font_scale / canvas_width, 1 - 22.0 * font_scale / canvas_height left front font font_16 textcolor rgb '#111111'
if (has_title) set label figure_subtitle at screen 16.0 * font_scale / canvas_width, 1 - 44.0 * font_scale / canvas_height left front font sprintf(',%.4g', subtitle_px) textcolor rgb '#555555'
# Not set xlabel: its distance from the axis differs between terminals.
set label x_label at screen area_x, 18.0 * font_scale / canvas_height center front font font_13 textcolor rgb '#222222'
set label y_label at screen 17.0 * font_scale / canvas_width, area_y center rotate by 90 front font font_13 textcolor rgb '#222222'
