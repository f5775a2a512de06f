// Sort and filter tables, and open what is folded before printing. Without this script the page is whole.
const number = /^[<>]?\s*([+\-−]?\d[\d,]*(\.\d+)?(e[+\-]?\d+)?)/;

// What a cell is sorted by: a number, or lower-case words; null where a value is missing.
function keyOf(cell) {
  const text = cell.textContent.trim().toLowerCase();
  if (["", "–", "nan"].includes(text)) return null;
  const found = cell.classList.contains("n") && text.match(number);
  return found ? parseFloat(found[1].replace(/,/g, "").replace("−", "-")) : text;
}

// Numbers come before words; what is missing comes last in both directions.
const rank = (key) => ["number", "string", "object"].indexOf(typeof key);
function compare(a, b, sign) {
  const words = () => String(a).localeCompare(b, "en", { numeric: true });
  return rank(a) - rank(b) || sign * (rank(a) ? words() : a - b);
}

const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

// Buttons in the heads of columns: up, down, and as the page was written.
function sortable(table, rows) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort"), sign = before ? -1 : 1;
      const keyed = rows.map((row) => [row, keyOf(row.cells[column])]);
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (before !== "descending") {
        head.setAttribute("aria-sort", before ? "descending" : "ascending");
        keyed.sort((a, b) => compare(a[1], b[1], sign));
      }
      table.tBodies[0].append(...keyed.map((pair) => pair[0]));
    });
  });
}

// A field above the table that hides the rows without all of its words.
function filterable(figure, rows, name) {
  const box = make("p", { className: "filter" }), label = make("label", { textContent: "Filter rows " });
  const input = make("input", { type: "search", ariaLabel: "Filter rows: " + name }), found = make("output");
  label.append(input);
  box.append(label, " ", found);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    rows.forEach((row) => { row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word)); });
    found.value = input.value && rows.filter((row) => !row.hidden).length + " of " + rows.length + " rows";
  });
  figure.querySelector(".scroll").before(box);
}

document.querySelectorAll("figure.table").forEach((figure) => {
  const table = figure.querySelector("table"), rows = [...table.tBodies[0]?.rows ?? []];
  if (rows.length > 1) sortable(table, rows);
  if (rows.length > 7) filterable(figure, rows, figure.querySelector("figcaption")?.textContent ?? "table");
});

const folded = [...document.getElementsByTagName("details")];
let closed = [];
addEventListener("beforeprint", () => {
  closed = folded.filter((details) => !details.open);
  closed.forEach((details) => { details.open = true; });
});
addEventListener("afterprint", () => closed.forEach((details) => { details.open = false; }));
