// Keeps a page up to date. Without it the page can be read and used all the same.
"use strict";
(() => {
  const $ = (s, of = document) => of.querySelector(s), all = (s, of = document) => [...of.querySelectorAll(s)];
  const two = (n) => String(n).padStart(2, "0");
  const clock = (d) => `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  const day = (d) => `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${clock(d)}`;
  const kind = document.body.dataset.live, what = document.body.dataset.what;

  // Times are shown in the zone of the browser, those in texts for ears and pointers, too.
  const inZone = (text) => text.replace(/\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(Z| UTC)/g,
    (t) => day(new Date(t.slice(0, 10) + "T" + t.slice(11, 19) + "Z")));
  const localize = (of) => {
    all("time", of).forEach((t) => {
      t.title = t.dateTime;
      t.textContent = day(new Date(t.dateTime));
    });
    all("svg title", of).forEach((t) => { t.textContent = inZone(t.textContent); });
    all("svg[aria-label]", of).forEach((t) => t.setAttribute("aria-label", inZone(t.getAttribute("aria-label"))));
  };
  const ready = (of) => {
    localize(of);
    const first = $(".cells .c", of);
    if (first) first.tabIndex = 0; // the arrows lead to the others
    const box = $("#all");
    if (!box) return;
    box.hidden = false;
    box.onchange = () => all("input[name=node]").forEach((one) => { one.checked = box.checked; });
  };

  // The squares of the site.
  const cells = new Map();
  const name = (c) => decodeURIComponent(c.pathname.slice(c.pathname.lastIndexOf("/") + 1));
  const index = () => {
    cells.clear();
    all(".cells").forEach((row) => {
      [...row.children].forEach((c) => cells.set(name(c), c));
      if (row.firstChild) row.firstChild.tabIndex = 0; // the arrows lead to the others
    });
  };
  const counts = (of) => {
    const n = (s) => of.getElementsByClassName(s).length;
    return [n("c n"), n("c f"), n("c u")];
  };
  const recount = (tiles) => {
    tiles.forEach((tile) => {
      const [on, off, other] = counts($(".cells", tile));
      $(".sum", tile).textContent = `${on} on, ${off} off${other ? `, ${other} unknown` : ""}`;
    });
    const sum = [0, 0, 0];
    all(".cells").forEach((row) => counts(row).forEach((n, i) => { sum[i] += n; }));
    ["on", "off", "other"].forEach((id, i) => { $("#" + id).textContent = sum[i]; });
  };
  const update = (changed) => {
    const tiles = new Set();
    for (const [key, now] of Object.entries(changed)) {
      const c = cells.get(key);
      if (!c) {
        if (now) return location.reload(); // a node that is new
        continue;
      }
      if (!now) {
        cells.delete(key);
        tiles.add(c.closest(".tile"));
        c.remove();
        continue;
      }
      const [cls, mark, words] = now;
      if (c.className === cls && c.textContent === mark && c.title === words) continue;
      if (c.className !== cls) { c.className = cls; tiles.add(c.closest(".tile")); }
      if (c.textContent !== mark) c.textContent = mark;
      c.title = words;
    }
    if (tiles.size) recount(tiles);
  };

  // What was ticked, typed and looked at stays when a part of the page is put in place of another.
  const key = (f, i) => f.type === "checkbox" ? f.name + "=" + f.value : f.name + "#" + i;
  const keep = (old, fresh) => {
    const fields = (of) => all("input:not([type=hidden]),select", of);
    const was = new Map(fields(old).map((f, i) => [key(f, i), f]));
    fields(fresh).forEach((f, i) => {
      const o = was.get(key(f, i));
      if (o && o.type === "checkbox") f.checked = o.checked;
      else if (o) f.value = o.value;
    });
    const at = document.activeElement, inside = old.contains(at) && at !== old;
    const like = (of) => all("a,button,input,select,summary,[tabindex]", of);
    const place = inside ? like(old).indexOf(at) : -1;
    const open = all("details", old).map((d) => d.open), across = all(".scroll", old).map((s) => s.scrollLeft);
    all("details", fresh).forEach((d, i) => { d.open = open[i]; });
    return () => {
      all(".scroll", fresh).forEach((s, i) => { s.scrollLeft = across[i] || 0; });
      const now = place >= 0 && like(fresh)[place];
      if (now && now.tagName === at.tagName && (now.name || now.href) === (at.name || at.href)) now.focus({ preventScroll: true });
    };
  };
  const replace = (old, fresh) => {
    if (!old || !fresh) return;
    localize(fresh);
    if (old.isEqualNode(fresh)) return;
    const after = keep(old, fresh);
    old.replaceWith(fresh);
    ready(fresh);
    after();
  };

  const read = async (url) => {
    const answer = await fetch(url, { headers: { Accept: "text/html" } });
    if (answer.status === 401) return location.reload();
    if (!answer.ok && answer.status !== 404) throw new Error(answer.status);
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  };
  const refresh = async () => {
    if (kind === "cells") {
      const heads = await read("/ui/heads");
      if (!heads) return;
      replace($("#top"), $("#top", heads));
      all(".tile", heads).forEach((fresh) => {
        const tile = document.getElementById(fresh.id);
        if (!tile) return;
        tile.className = fresh.className;
        replace($("header", tile), $("header", fresh));
      });
    } else {
      const page = await read(location.href);
      if (page) replace($("main"), $("main", page));
    }
  };

  // One refresh at a time, and a rest after it: many changes are one.
  let busy = false, again = false;
  const news = () => {
    if (busy) { again = true; return; }
    busy = true;
    refresh().catch(() => { again = true; }).finally(() => setTimeout(() => {
      busy = false;
      if (again) { again = false; news(); }
    }, kind === "cells" ? 3000 : 1000));
  };

  // The numbers of the menu, of which a tab in the background shows one in its title.
  let cut = false;
  const title = document.title.replace(/^\(\d+\) /, "");
  const entitle = () => {
    const n = $("#n-attention").textContent;
    document.title = (cut ? "(cut off) " : n ? `(${n}) ` : "") + title;
  };
  const count = (c) => {
    const n = $("#n-attention");
    n.textContent = c.attention || "";
    n.className = c.critical ? "count critical" : "count";
    $("#n-approvals").textContent = c.approvals || "";
    entitle();
  };

  // What is shown is as old as the last sign of central.
  let heard = Date.now(), source = null;
  const age = $("#age");
  const tell = () => {
    const was = cut;
    cut = Date.now() - heard > 10000;
    if (cut !== was) entitle();
    age.className = cut ? "cut" : "";
    const text = cut ? `cut off: what is shown is as of ${clock(new Date(heard))}; trying again` : `live, as of ${clock(new Date(heard))}`;
    if (age.textContent !== text) age.textContent = text;
    age.setAttribute("aria-live", cut ? "assertive" : "off");
  };
  const connect = () => {
    source = new EventSource(`/ui/live?kind=${kind}&${what}`);
    const on = (event, f) => source.addEventListener(event, (e) => { heard = Date.now(); f(JSON.parse(e.data)); });
    on("cells", update);
    on("news", news);
    on("counts", count);
    on("reload", () => location.reload());
    on("beat", () => {});
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(connect, 5000);
      news(); // it was refused: where that is for want of a log-in, one is asked for
    };
  };

  // The arrows go from square to square, over the racks; / goes to the search.
  const move = (c, by) => {
    const list = all(".cells .c"), i = list.indexOf(c);
    if (by === "left" || by === "right") return list[i + (by === "left" ? -1 : 1)];
    const r = c.getBoundingClientRect(), down = by === "down";
    const row = down ? list.slice(i + 1) : list.slice(0, i).reverse();
    return row.find((o) => {
      const q = o.getBoundingClientRect();
      return (down ? q.top > r.top + 4 : q.top < r.top - 4) && q.left < r.right - 8 && q.right > r.left + 8;
    });
  };
  document.addEventListener("keydown", (e) => {
    const at = document.activeElement;
    if (e.key === "/" && !/INPUT|SELECT/.test(at.tagName)) {
      $("#find")?.focus();
      e.preventDefault();
    }
    if (!at.classList.contains("c") || !e.key.startsWith("Arrow")) return;
    const to = move(at, e.key.slice(5).toLowerCase());
    if (to) to.focus();
    e.preventDefault();
  });
  document.addEventListener("focusin", (e) => {
    const tip = $("#tip");
    if (tip) tip.textContent = e.target.classList.contains("c") ? e.target.title : "";
  });

  ready(document);
  $("#zone").textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (kind === "cells") index();
  if (kind && age) {
    connect();
    setInterval(tell, 1000);
    setInterval(news, 30000); // what becomes older without an event
  }
})();
