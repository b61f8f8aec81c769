# Counts single tests in a JUnit file as ctest writes it: cmocka's lines of each program, or its exit status where it has none.
# counts=FILE gets "passed failed skipped programs"; junit=FILE, where it is given, a <testsuite> of JUnit for each program with
# a case a single test, under the words of suite.
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
# What a failed program wrote, as XML: around each complaint, or its end where it made none.
function excerpt(   i, until, shown, text) {
  for (i = 1; i <= lines; i++) {
    if (line[i] ~ /\[  (ERROR|FAILED) |runtime error|Sanitizer|Assertion/) until = i + 12
    if (i <= until && shown++ < 150) text = text line[i] "\n"
  }
  for (i = lines > 60 ? lines - 60 : 1; !shown && i <= lines; i++) text = text line[i] "\n"
  return text
}
function show(text) {
  gsub(/\n/, "\n    | ", text)
  printf "    | %s\n", plain(substr(text, 1, length(text) - 6))
}
function quoted(text) { gsub(/"/, "\\&quot;", text); return text } # XML's text, in an attribute
function escaped(text) { # text in an attribute
  gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text)
  return quoted(text)
}
function test_case(name, word, message, text) {
  printf "    <testcase classname=\"%s\" name=\"%s\"", program, quoted(name) >junit
  if (word == "ok") printf "/>\n" >junit
  else if (word == "skip") printf "><skipped message=\"%s\"/></testcase>\n", escaped(message) >junit
  else printf "><failure message=\"%s\">%s</failure></testcase>\n", escaped(message), text >junit
}
# The program's cases; one of its own name for what is no single test's.
function record(ok, bad, skip, note, text,   i, said_it) {
  printf "  <testsuite name=\"%s%s\" tests=\"%d\" failures=\"%d\" errors=\"0\" skipped=\"%d\" time=\"%s\">\n",
    suite == "" ? "" : escaped(suite) ": ", program, ok + bad + skip, bad, skip, time >junit
  for (i = 1; i <= tests; i++) {
    if (state[order[i]] == "bad") { test_case(order[i], "bad", "failed", said_it++ ? "" : text); bad-- }
    else { test_case(order[i], state[order[i]], "skipped"); if (state[order[i]] == "ok") ok--; else skip-- }
  }
  if (bad) test_case(program, "bad", note == "" ? "failed" : note, said_it ? "" : text)
  else if (ok) test_case(program, "ok")
  else if (skip) test_case(program, "skip", reason)
  printf "  </testsuite>\n" >junit
}
function remember(name, word) {
  if (!(name in state)) order[++tests] = name
  state[name] = word
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
  if (bad) show(excerpt())
  if (junit != "") record(ok, bad, skip, note, bad ? excerpt() : "")
  passed += ok; failed += bad; skipped += skip; programs++
  program = ""
}
/^\t<testcase / {
  program = attribute("name"); time = attribute("time"); status = attribute("status")
  announced = reason = said = ""; lines = tests = 0
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
  if ((name = named("[  FAILED  ] ")) != "") remember(name, "bad")
  else if ((name = named("[  SKIPPED ] ")) != "") { if (!(name in state) || state[name] != "bad") remember(name, "skip") }
  else if ((name = named("[       OK ] ")) != "") { if (!(name in state)) remember(name, "ok") }
  if (/skipped: / && !($0 in told)) { told[$0]; said = said "           " plain($0) "\n" }
  line[++lines] = $0
}
END { print passed + 0, failed + 0, skipped + 0, programs + 0 >counts }
