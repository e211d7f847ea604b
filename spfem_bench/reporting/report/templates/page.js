"use strict";
// Everything that is to be read is in the page without this. It adds: the choice of light or dark,
// copying, and sorting.
(() => {
  for (const e of document.querySelectorAll(".js")) e.hidden = false;

  // ---- light or dark
  const theme = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  const remembered = (value) => {
    try { // a page from a disk may not be allowed to remember
      if (value) localStorage.setItem("theme", value);
      return localStorage.getItem("theme");
    } catch { return null; }
  };
  const show = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    theme.textContent = `Theme: ${name}`;
  };
  let chosen = remembered();
  if (!themes.includes(chosen)) chosen = "auto";
  show(chosen);
  theme.hidden = false;
  theme.addEventListener("click", () => {
    chosen = themes[(themes.indexOf(chosen) + 1) % themes.length];
    remembered(chosen);
    show(chosen);
  });

  // ---- copying: a page from a disk may not use the clipboard; the text is selected there
  for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", async () => {
    const text = button.parentElement.querySelector("pre");
    getSelection().selectAllChildren(text);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch { button.textContent = "Selected: press Ctrl-C"; }
  });

  // ---- sorting: by a cell's data-key, else by its text; what has neither comes last
  for (const table of document.querySelectorAll(".sortable")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if ("unsorted" in head.dataset) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      // A key is smaller for what is better: of such a column the first click puts the best first.
      const downwards = head.dataset.better === "higher";
      button.addEventListener("click", () => {
        const first = downwards ? "descending" : "ascending", other = downwards ? "ascending" : "descending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
        const key = (row) => {
          const cell = row.cells[column], text = cell.dataset.key ?? cell.textContent;
          const number = parseFloat(text.replace("−", "-"));
          return !head.classList.contains("n") ? text : Number.isNaN(number) ? null : number;
        };
        const up = order === first ? 1 : -1;
        const rows = [...body.rows].map((row) => [key(row), row]);
        rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null)
          : (a < b ? -1 : a > b ? 1 : 0) * up);
        body.append(...rows.map(([, row]) => row));
        for (const [, row] of rows) {
          const place = row.querySelector(".place");
          if (place) place.textContent = row.cells[column].dataset.place ?? "";
        }
      });
    });
  }
})();
