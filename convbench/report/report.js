"use strict";
// Sorting and filtering of the tables, and the choice of the problem whose front is shown.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // A cell's value: its number where it has one; the empty ones come last in either direction.
  function value(row, column) {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent.trim().toLowerCase();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  }

  function compare(a, b) {
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function sort(header) {
    const table = header.closest("table");
    const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => [value(row, header.cellIndex), row]);
    rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
    all("thead th", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    header.setAttribute("aria-sort", direction);
  }

  const box = document.getElementById("filter");
  const boxes = all("input[name=engine]");

  // Every word must occur in a row; an engine that is not checked hides its columns and its rows.
  function filter() {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const off = new Set(boxes.filter((one) => !one.checked).map((one) => one.value));
    all("thead [data-engine], td[data-engine]").forEach((cell) => (cell.hidden = off.has(cell.dataset.engine)));
    all("table.sortable").forEach((table) => {
      const rows = [...table.tBodies[0].rows];
      rows.forEach((row) => {
        const found = row.dataset.find.toLowerCase();
        row.hidden = off.has(row.dataset.engine) || !words.every((word) => found.includes(word));
      });
      const shown = rows.filter((row) => !row.hidden).length;
      document.getElementById(`${table.id}-count`).textContent = `${shown} of ${rows.length} lines`;
    });
  }

  function showFront() {
    all("#fronts figure").forEach((figure) => (figure.hidden = figure.id !== chooser.value));
  }

  all("table.sortable thead th").forEach((header) => {
    header.setAttribute("aria-sort", "none");
    header.querySelector("button").addEventListener("click", () => sort(header));
  });
  box.addEventListener("input", filter);
  boxes.forEach((one) => one.addEventListener("change", filter));
  const chooser = document.getElementById("front-of");
  if (chooser) {
    chooser.addEventListener("change", showFront);
    showFront();
  }
  filter();
})();
