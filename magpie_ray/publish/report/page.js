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

  const pager = document.getElementById("pager");
  if (!pager) return;
  const rows = [...pager.querySelectorAll("article")];
  const place = document.getElementById("place");
  const [previous, next] = pager.querySelectorAll("button");
  let current = 0;
  const show = (index) => {
    current = (index + rows.length) % rows.length;
    rows.forEach((row, i) => { row.hidden = i !== current; });
    place.textContent = (current + 1) + " of " + rows.length;
  };
  previous.addEventListener("click", () => show(current - 1));
  next.addEventListener("click", () => show(current + 1));
  pager.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    show(current + step);
  });
  pager.classList.add("paged");
  show(0);
})();
