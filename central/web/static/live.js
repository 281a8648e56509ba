// Keeps a page up to date. Without it the page can be read and used all the same.
"use strict";
(() => {
  const $ = (s, of = document) => of.querySelector(s), all = (s, of = document) => [...of.querySelectorAll(s)];

  // Times are shown in the zone of the browser.
  const localize = (of) => all("time", of).forEach((t) => {
    const d = new Date(t.dateTime), two = (n) => String(n).padStart(2, "0");
    t.title = t.dateTime;
    t.textContent = `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  });

  const tick = () => {
    const box = $("#all");
    if (!box) return;
    box.hidden = false;
    box.onchange = () => all("input[name=node]").forEach((one) => { one.checked = box.checked; });
  };

  localize(document);
  tick();
})();
