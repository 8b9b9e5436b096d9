"use strict";
(() => {
  const root = document.documentElement;
  const themes = ["system", "light", "dark"];
  const theme = document.getElementById("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme || "system") + 1) % themes.length];
    root.dataset.theme = next;
    theme.textContent = "Colours: " + next;
  });

  const page = (pager) => {
    const rows = [...pager.querySelectorAll("article")];
    const place = pager.querySelector(".place");
    const [previous, next] = pager.querySelectorAll("button");
    const search = pager.querySelector("input");
    const selects = [...pager.querySelectorAll("select")];
    let found = rows, current = 0;
    const show = (index) => {
      current = found.length && (index + found.length) % found.length;
      rows.forEach((row) => { row.hidden = row !== found[current]; });
      place.textContent = found.length ? current + 1 + " of " + found.length : "none of " + rows.length;
    };
    const find = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      found = rows.filter((row) => {
        const text = row.textContent.toLowerCase();
        return words.every((word) => text.includes(word))
          && selects.every((select) => !select.value || row.dataset[select.dataset.by] === select.value.slice(1));
      });
      show(0);
    };
    for (const select of selects) {
      const values = [...new Set(rows.map((row) => row.dataset[select.dataset.by]).filter(Boolean))].sort();
      if (values.length < 2) continue;
      select.append(new Option("any " + select.dataset.by, ""));
      for (const value of values) select.append(new Option(value, "=" + value));
      select.hidden = false;
      select.addEventListener("change", find);
    }
    search.addEventListener("input", find);
    previous.addEventListener("click", () => show(current - 1));
    next.addEventListener("click", () => show(current + 1));
    pager.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input, select")) return;
      event.preventDefault();
      show(current + step);
    });
    pager.classList.add("paged");
    show(0);
  };
  document.querySelectorAll(".pager").forEach(page);
})();
