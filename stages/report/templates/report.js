"use strict";

// Unchecked runs are hidden in every figure.
for (const box of document.querySelectorAll("input[data-run]")) {
  const follow = () => {
    for (const drawn of document.querySelectorAll(`svg .run-${box.dataset.run}`)) {
      drawn.classList.toggle("hidden", !box.checked);
    }
  };
  box.addEventListener("change", follow);
  follow();  // browsers restore checkboxes on reload
}

// Clicking a column's head sorts by it; clicking again reverses the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const isNumber = head.dataset.kind === "number";
    if (isNumber) {
      for (const row of table.rows) row.cells[column].classList.add("number");
    }
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column];
        const text = cell.dataset.value ?? cell.textContent.trim();
        if (!isNumber) return text;
        const number = parseFloat(text);
        return Number.isNaN(number) ? -Infinity : number;
      };
      const compare = (a, b) => isNumber ? value(a) - value(b) : value(a).localeCompare(value(b), "en", { numeric: true });
      const rows = [...table.tBodies[0].rows].sort((a, b) => down ? compare(b, a) : compare(a, b));
      table.tBodies[0].append(...rows);
    });
  });
}
