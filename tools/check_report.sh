#!/usr/bin/env bash
# The report's page in headless Chromium: it loads without an error, sorts, filters, hides a method, tells its marks to the
# keyboard and prints to PDF; the history's page of the same result filters too. DIR keeps the pages and screenshots: desktop
# and phone, light and dark. 77 where no Chromium is installed.
# usage: check_report.sh BENCH RESULT.json [DIR]
set -euo pipefail
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
[ -n "$browser" ] || { echo "no Chromium is installed"; exit 77; }
bench=$1 result=$2 dir=${3:-}
if [ -z "$dir" ]; then
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
fi
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
"$bench" report "$result" -o "$dir" --quiet
run() { "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$dir/profile" "$@" 2>"$dir/browser.log"; }
cat >"$dir/probe.js" <<'JS'
(function () {
  var said = [];
  function check(name, fine) { said.push((fine ? "ok " : "FAILED ") + name); }
  var table = document.querySelector("#results table"), body = table.tBodies[0];
  function column(i) { return Array.prototype.map.call(body.rows, function (row) { return row.cells[i].dataset.value; }); }
  function ordered(values, sign) {
    var numbers = values.filter(function (v) { return v !== ""; }).map(Number);
    return numbers.every(function (v, i) { return !i || sign * (v - numbers[i - 1]) >= 0; });
  }
  var heads = table.tHead.rows[0].cells, n = 0;
  while (!heads[n].classList.contains("n")) { n++; }
  heads[n].querySelector("button").click();
  check("sorts upwards", ordered(column(n), 1) && heads[n].getAttribute("aria-sort") === "ascending");
  heads[n].querySelector("button").click();
  check("sorts downwards", ordered(column(n), -1) && heads[n].getAttribute("aria-sort") === "descending");
  var filter = document.getElementById("filter");
  filter.value = "gptq";
  filter.dispatchEvent(new Event("input"));
  var shown = Array.prototype.filter.call(body.rows, function (row) { return !row.classList.contains("hidden"); });
  check("filters", shown.length > 0 && shown.length < body.rows.length &&
    shown.every(function (row) { return row.textContent.toLowerCase().indexOf("gptq") >= 0; }));
  filter.value = "";
  filter.dispatchEvent(new Event("input"));
  var button = document.querySelector("[data-toggle]"), series = button.dataset.toggle;
  button.click();
  var parts = Array.prototype.filter.call(document.querySelectorAll("svg [data-series]"), function (part) { return part.dataset.series === series; });
  check("hides a method", parts.length > 0 && button.getAttribute("aria-pressed") === "false" &&
    parts.every(function (part) { return getComputedStyle(part).display === "none"; }));
  button.click();
  check("shows it again", parts.every(function (part) { return getComputedStyle(part).display !== "none"; }));
  function key(name) { document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true })); }
  var plot = document.querySelector("svg.plot"), marks = plot.querySelectorAll(".tip"), tip = document.getElementById("tip");
  check("one stop of the tabulator a figure", plot.querySelectorAll("[tabindex='0']").length === 1);
  marks[0].focus();
  check("tells the mark in focus", !tip.hidden && tip.textContent === marks[0].getAttribute("aria-label"));
  key("ArrowRight");
  check("arrows go to the next mark", document.activeElement === marks[1] && tip.textContent === marks[1].getAttribute("aria-label"));
  key("End");
  check("End goes to the last", document.activeElement === marks[marks.length - 1]);
  key("Escape");
  check("Escape hides the words", tip.hidden);
  key("Home");
  check("Home goes to the first", document.activeElement === marks[0] && plot.querySelectorAll("[tabindex='0']").length === 1);
  check("every button and field has a name", Array.prototype.every.call(document.querySelectorAll("button, input"), function (part) {
    return part.textContent.trim() || part.getAttribute("aria-label") || (part.labels && part.labels.length);
  }));
  check("needs no network", performance.getEntriesByType("resource").length === 0);
  check("loads without errors", !window.failed);
  document.body.setAttribute("data-probe", said.join("; "));
}());
JS
# probe PAGE: what probe.js says of the page, put behind its own script, with errors counted from the first.
probe() {
  { sed -e 's|<head>|<head><script>window.onerror = function () { window.failed = true; };</script>|' -e '/<\/body>/,$d' "$1"
    echo "<script>"; cat "$dir/probe.js"; echo "</script></body></html>"; } >"$dir/probe.html"
  run --dump-dom "file://$dir/probe.html" | grep -o 'data-probe="[^"]*"' || true
}
said=$(probe "$dir/report.html")
echo "$said"
case $said in *FAILED* | "") exit 1 ;; esac
run --print-to-pdf="$dir/report.pdf" "file://$dir/report.html"
[ "$(head -c 5 "$dir/report.pdf")" = "%PDF-" ] || { echo "it does not print"; exit 1; }
# Three nights of the result, whose speeds differ a little.
mkdir -p "$dir/runs"
for day in 1 2 3; do
  sed -e "s/\(\"created\":[[:space:]]*\"[0-9-]*\)T[0-9]*/\1T0$day/" -e "s/\(\"value\":[[:space:]]*[0-9]*\)\.\([0-9]\)/\1.$day/" "$result" >"$dir/runs/$day.json"
done
"$bench" history "$dir/runs" -o "$dir/history" --no-plots --quiet >"$dir/history.txt"
cat >"$dir/probe.js" <<'JS'
(function () {
  var box = document.getElementById("find"), sections = document.querySelectorAll("section[data-name]");
  box.value = "perplexity";
  box.dispatchEvent(new Event("input"));
  var shown = Array.prototype.filter.call(sections, function (part) { return !part.hidden; });
  var fine = shown.length > 0 && shown.length < sections.length &&
    shown.every(function (part) { return part.dataset.name.indexOf("perplexity") >= 0; });
  document.body.setAttribute("data-probe", (fine && !window.failed && !performance.getEntriesByType("resource").length ? "ok" : "FAILED") +
    " the history's page filters");
}());
JS
said=$(probe "$dir/history/index.html")
echo "$said"
case $said in *FAILED* | "") exit 1 ;; esac
for page in report history/index; do
  name=${page%/*}
  run --window-size=1280,3000 --screenshot="$dir/$name-desktop.png" "file://$dir/$page.html"
  run --window-size=500,3000 --screenshot="$dir/$name-phone.png" "file://$dir/$page.html"
  run --blink-settings=preferredColorScheme=0 --window-size=1280,3000 --screenshot="$dir/$name-dark.png" "file://$dir/$page.html"
done
rm -rf "$dir/profile"
echo "the report works in $("$browser" --version 2>/dev/null)"
