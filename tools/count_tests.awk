# Counts single tests in a JUnit file as ctest writes it: cmocka's lines of each program, or its exit status where it has none.
# counts=FILE gets "passed failed skipped programs".
function attribute(name,   text) {
  text = $0
  return sub(".* " name "=\"", "", text) ? substr(text, 1, index(text, "\"") - 1) : ""
}
function plain(text) { # XML as text
  gsub(/&lt;/, "<", text); gsub(/&gt;/, ">", text); gsub(/&quot;/, "\"", text); gsub(/&apos;/, "'", text); gsub(/&amp;/, "\\&", text)
  return text
}
# The test that a cmocka line names: once where it runs, once more in the summary.
function named(mark,   at, text) {
  at = index($0, mark)
  if (!at) return ""
  text = substr($0, at + length(mark))
  if (text == "" || text ~ / test\(s\), listed below:/) return "" # a sum, not a test
  sub(/[ \t\r]+$/, "", text)
  return text # the whole line: names may be words
}
# What a failed program wrote: around each complaint, or its end where it made none.
function show(   i, until, shown) {
  for (i = 1; i <= lines; i++) {
    if (line[i] ~ /\[  (ERROR|FAILED) |runtime error|Sanitizer|Assertion/) until = i + 12
    if (i <= until && shown++ < 150) printf "    | %s\n", plain(line[i])
  }
  for (i = lines > 60 ? lines - 60 : 1; !shown && i <= lines; i++) printf "    | %s\n", plain(line[i])
}
function finish(   ok, bad, skip, note, word, name) {
  for (name in state) {
    if (state[name] == "bad") bad++
    else if (state[name] == "skip") skip++
    else ok++
  }
  ok += 0; bad += 0; skip += 0
  if (status == "notrun" && reason ~ /^SKIP_/) { if (ok + bad + skip == 0) skip = 1 }
  else if (status == "notrun" || status == "disabled") { bad = bad ? bad : 1; note = reason == "" ? status : reason }
  else if (status != "run") { if (!bad) { bad = 1; note = "died, see below" } }
  else if (announced != "" && ok + bad + skip != announced) { note = "announced " announced " tests, reported " ok + bad + skip; bad++ }
  else if (announced == "" && ok + bad + skip == 0) ok = 1
  word = bad ? "FAILED" : ok ? "ok" : "skipped"
  printf "  %-8s %s: %d passed, %d failed, %d skipped (%.1f s)%s\n", word, program, ok, bad, skip, time, note == "" ? "" : ": " note
  printf "%s", said
  if (bad) show()
  passed += ok; failed += bad; skipped += skip; programs++
  program = ""
}
/^\t<testcase / {
  program = attribute("name"); time = attribute("time"); status = attribute("status")
  announced = reason = said = ""; lines = 0
  split("", state)
  next
}
program == "" { next }
/^\t\t<skipped / { reason = plain(attribute("message")); next }
/^\t\t<failure / { next }
/^\t<\/testcase>/ { finish(); next }
{
  sub(/^\t\t<system-out>/, ""); sub(/<\/system-out>$/, "")
  if (match($0, /Running [0-9]+ test/)) announced += substr($0, RSTART + 8) + 0
  if ((name = named("[  FAILED  ] ")) != "") state[name] = "bad"
  else if ((name = named("[  SKIPPED ] ")) != "") { if (state[name] != "bad") state[name] = "skip" }
  else if ((name = named("[       OK ] ")) != "") { if (!(name in state)) state[name] = "ok" }
  if (/skipped: / && !($0 in told)) { told[$0]; said = said "           " plain($0) "\n" }
  line[++lines] = $0
}
END { print passed + 0, failed + 0, skipped + 0, programs + 0 >counts }
