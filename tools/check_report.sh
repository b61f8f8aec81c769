#!/usr/bin/env bash
# The report's page in headless Chromium: it loads without an error, sorts, filters, hides a method and prints to PDF.
# usage: check_report.sh BENCH RESULT.json [DIR]; 77 where no Chromium is installed. DIR keeps the pages and screenshots.
set -euo pipefail
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
[ -n "$browser" ] || { echo "no Chromium is installed"; exit 77; }
bench=$1 result=$2 dir=${3:-$(mktemp -d)}
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
  check("loads without errors", !window.failed);
  document.body.setAttribute("data-probe", said.join("; "));
}());
JS
# The page with the probe behind its own script, and errors counted from the first.
{ sed -e 's|<head>|<head><script>window.onerror = function () { window.failed = true; };</script>|' -e '/<\/body>/,$d' "$dir/report.html"
  echo "<script>"; cat "$dir/probe.js"; echo "</script></body></html>"; } >"$dir/probe.html"
said=$(run --dump-dom "file://$dir/probe.html" | grep -o 'data-probe="[^"]*"' || true)
echo "$said"
case $said in *FAILED* | "") exit 1 ;; esac
run --print-to-pdf="$dir/report.pdf" "file://$dir/report.html"
[ "$(head -c 5 "$dir/report.pdf")" = "%PDF-" ] || { echo "it does not print"; exit 1; }
run --window-size=1280,3000 --screenshot="$dir/desktop.png" "file://$dir/report.html"
run --window-size=400,3000 --screenshot="$dir/phone.png" "file://$dir/report.html"
rm -rf "$dir/profile"
echo "the report works in $("$browser" --version 2>/dev/null)"
