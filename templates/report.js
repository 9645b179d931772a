"use strict";
(() => {
  const page = document.documentElement;
  page.classList.add("js");
  const table = document.getElementById("violations");
  if (!table) return;
  const rows = [...table.tBodies];
  const find = (id) => document.getElementById(id);
  const [text, which, what, count] = ["find", "which", "what", "count"].map(find);
  const compare = new Intl.Collator(undefined, { numeric: true }).compare;

  const filter = () => {
    const wanted = text.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const { name, table, effect } = row.dataset;
      const fits = (!wanted || `${name} ${table} ${row.textContent}`.toLowerCase().includes(wanted)) &&
        (!which.value || which.value === table) && (!what.value || what.value === effect);
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    count.textContent = `${shown} of ${rows.length} checks`;
  };
  for (const control of [text, which, what]) control.addEventListener("input", filter);
  filter();

  const headers = [...table.tHead.querySelectorAll("th[data-key]")];
  for (const header of headers) {
    const { key } = header.dataset;
    header.querySelector("button").addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "descending" || (key !== "rows" && !header.hasAttribute("aria-sort")) ? 1 : -1;
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
      const by = key === "rows" ? (a, b) => a.dataset.rows - b.dataset.rows : (a, b) => compare(a.dataset[key], b.dataset[key]);
      rows.sort((a, b) => down * by(a, b) || a.dataset.order - b.dataset.order);
      table.append(...rows);
    });
  }

  const open = (row, wanted) => {
    row.classList.toggle("open", wanted);
    row.querySelector(".open-it").setAttribute("aria-expanded", String(row.classList.contains("open")));
  };
  for (const row of rows) {
    open(row, false);
    row.querySelector(".main").addEventListener("click", () => {
      if (!String(getSelection())) open(row);
    });
  }
  const linked = () => {
    const row = rows.find((row) => row.id && `#${row.id}` === location.hash);
    if (row) {
      open(row, true);
      row.scrollIntoView();
    }
  };
  addEventListener("hashchange", linked);
  linked();
})();
