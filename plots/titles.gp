# Title, subtitle and axis labels, set left as a caption is read. Needs: figure_title, figure_subtitle, x_label, y_label,
# canvas_width, canvas_height, area_x and area_y (the middle of the plot area on the screen).
set label figure_title at screen 16.0 / canvas_width, 1 - 22.0 / canvas_height left front font ",16" textcolor rgb '#111111'
set label figure_subtitle at screen 16.0 / canvas_width, 1 - 44.0 / canvas_height left front font ",11" textcolor rgb '#555555'
# Not set xlabel: its distance from the axis differs between terminals.
set label x_label at screen area_x, 18.0 / canvas_height center front font ",13" textcolor rgb '#222222'
set label y_label at screen 17.0 / canvas_width, area_y center rotate by 90 front font ",13" textcolor rgb '#222222'
