// Sort and filter tables, and open what is folded before printing. Without this script the page is whole.
"use strict";
const number = /^[+\-−]?\d[\d,]*(\.\d+)?(e[+\-]?\d+)?/i;

// What a cell is sorted by: a number, or lower-case words; null where a value is missing.
function keyOf(cell) {
  const text = cell.textContent.trim();
  if (text === "" || text === "–" || text.toLowerCase() === "nan") return null;
  const found = cell.classList.contains("n") && text.match(number);
  return found ? parseFloat(found[0].replace(/,/g, "").replace("−", "-")) : text.toLowerCase();
}

// Numbers come before words; what is missing comes last in both directions.
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
}

function sortable(table, rows) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      // Up, down, and as the page was written.
      const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      const order = next === undefined ? "ascending" : next;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (order) head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const keyed = rows.map((row) => [row, keyOf(row.cells[column])]);
      if (order) keyed.sort((a, b) => compare(a[1], b[1], sign));
      table.tBodies[0].append(...keyed.map((pair) => pair[0]));
    });
  });
}

function filterable(figure, rows, name) {
  const box = document.createElement("p");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const found = document.createElement("output");
  box.className = "filter";
  input.type = "search";
  input.setAttribute("aria-label", "Filter rows: " + name);
  label.append("Filter rows ", input);
  box.append(label, " ", found);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    rows.forEach((row) => { row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word)); });
    const shown = rows.filter((row) => !row.hidden).length;
    found.textContent = input.value ? shown + " of " + rows.length + " rows" : "";
  });
  figure.insertBefore(box, figure.querySelector(".scroll"));
}

document.querySelectorAll("figure.table").forEach((figure) => {
  const table = figure.querySelector("table");
  const rows = [...table.tBodies[0]?.rows ?? []];
  const caption = figure.querySelector("figcaption");
  if (rows.length > 1) sortable(table, rows);
  if (rows.length > 7) filterable(figure, rows, caption ? caption.textContent : "table");
});

let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach((details) => { details.open = true; });
});
addEventListener("afterprint", () => { opened.forEach((details) => { details.open = false; }); });

// A link into something folded opens it.
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) target.closest("details")?.setAttribute("open", "");
}
addEventListener("hashchange", unfold);
unfold();
