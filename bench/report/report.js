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
    show();
  }

  if (table) {
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, column) {
      var button = document.createElement("button");
      button.type = "button";
      while (head.firstChild) { button.appendChild(head.firstChild); }
      head.appendChild(button);
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
    title.remove();
    mark.addEventListener("pointermove", function (event) {
      tip.textContent = words;
      tip.hidden = false;
      tip.style.left = Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8) + "px";
      tip.style.top = Math.max(event.clientY - 34, 4) + "px";
    });
    mark.addEventListener("pointerleave", function () { tip.hidden = true; });
  });
}());
