"use strict";
(function () {
  var table = document.querySelector("#results table");
  var body = table ? table.tBodies[0] : null;
  var rows = body ? Array.prototype.slice.call(body.rows) : [];
  var filter = document.getElementById("filter"), count = document.getElementById("count");
  var off = {};

  function value(row, column) {
    var cell = row.cells[column], number = cell.dataset.value;
    return number === undefined ? cell.textContent.trim().toLowerCase() : number === "" ? null : Number(number);
  }

  /* Cases without a value stay at the end, whichever way the others go. */
  function sort(column, down) {
    rows.sort(function (a, b) {
      var x = value(a, column), y = value(b, column);
      if (x === null || y === null) { return (x === null) - (y === null); }
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
    });
    rows.forEach(function (row) { body.appendChild(row); });
  }

  function show() {
    var words = filter.value.toLowerCase().split(/\s+/), shown = 0;
    rows.forEach(function (row) {
      var text = row.textContent.toLowerCase();
      var fits = words.every(function (word) { return text.indexOf(word) >= 0; }) && !off[row.dataset.series];
      row.classList.toggle("hidden", !fits);
      shown += fits ? 1 : 0;
    });
    count.textContent = shown === rows.length ? "" : shown + " of " + rows.length + " rows";
  }

  function toggle(series) {
    off[series] = !off[series];
    document.querySelectorAll("svg [data-series]").forEach(function (part) {
      if (part.dataset.series === series) { part.classList.toggle("hidden", off[series]); }
    });
    document.querySelectorAll("[data-toggle]").forEach(function (button) {
      if (button.dataset.toggle === series) { button.setAttribute("aria-pressed", String(!off[series])); }
    });
    document.querySelectorAll("svg.plot").forEach(function (plot) {
      var first = plot.querySelector(".series:not(.hidden) .tip"), stop = plot.querySelector(".tip[tabindex=\"0\"]");
      if (first && stop && stop.closest(".hidden")) { stop.setAttribute("tabindex", "-1"); first.setAttribute("tabindex", "0"); }
    });
    show();
  }

  if (table) {
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, column) {
      var button = document.createElement("button");
      button.type = "button";
      /* Chromium leaves buttons out of a head that it repeats on the next printed page. */
      var printed = document.createElement("span");
      printed.className = "printed";
      printed.setAttribute("aria-hidden", "true");
      head.childNodes.forEach(function (node) { printed.appendChild(node.cloneNode(true)); });
      while (head.firstChild) { button.appendChild(head.firstChild); }
      head.appendChild(button);
      head.appendChild(printed);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", function () {
        var down = head.getAttribute("aria-sort") === "ascending";
        Array.prototype.forEach.call(table.tHead.rows[0].cells, function (other) { other.setAttribute("aria-sort", "none"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(column, down);
      });
    });
    filter.addEventListener("input", show);
  }
  document.querySelectorAll("[data-toggle]").forEach(function (button) {
    button.addEventListener("click", function () { toggle(button.dataset.toggle); });
  });

  /* Values of a mark beside the pointer, at once and in the page's letters. */
  var tip = document.getElementById("tip");
  document.querySelectorAll(".tip").forEach(function (mark) {
    var title = mark.querySelector("title");
    if (!title) { return; }
    var words = title.textContent;
    mark.setAttribute("aria-label", words);
    mark.setAttribute("role", "img");
    title.remove();
    function tell(x, y) {
      tip.textContent = words;
      tip.hidden = false;
      tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 8)) + "px";
      tip.style.top = Math.max(y - 34, 4) + "px";
    }
    mark.addEventListener("pointermove", function (event) { tell(event.clientX, event.clientY); });
    mark.addEventListener("pointerleave", function () { tip.hidden = true; });
    mark.addEventListener("focus", function () {
      var box = mark.getBoundingClientRect();
      tell(box.right, box.top);
    });
    mark.addEventListener("blur", function () { tip.hidden = true; });
  });

  /* One stop of the tabulator a figure; arrows, Home and End go from mark to mark, those of hidden methods aside. */
  document.querySelectorAll("svg.plot").forEach(function (plot) {
    var marks = Array.prototype.slice.call(plot.querySelectorAll(".tip"));
    if (!marks.length) { return; }
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", plot.getAttribute("aria-label") + " Arrow keys go from mark to mark.");
    function stop(at) { marks.forEach(function (mark, i) { mark.setAttribute("tabindex", i === at ? "0" : "-1"); }); }
    function shown(mark) { return !mark.closest(".hidden"); }
    stop(0);
    plot.addEventListener("focusin", function (event) {
      var at = marks.indexOf(event.target);
      if (at >= 0) { stop(at); }
    });
    plot.addEventListener("keydown", function (event) {
      var at = marks.indexOf(document.activeElement), step, next, keys = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      if (event.key === "Escape") { tip.hidden = true; return; }
      if (event.key === "Home") { at = -1; step = 1; }
      else if (event.key === "End") { at = marks.length; step = -1; }
      else { step = keys[event.key]; }
      if (!step) { return; }
      for (next = at + step; next >= 0 && next < marks.length && !shown(marks[next]); next += step) { }
      if (next >= 0 && next < marks.length) { marks[next].focus(); }
      event.preventDefault();
    });
  });
}());
