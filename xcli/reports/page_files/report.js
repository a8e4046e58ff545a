"use strict";
// Texts of the table reach the page only as text nodes and attributes; nothing is ever parsed as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en");
  const PAGE = 60, CLASSES = 60;
  const control = /[\u0000-\u001f\u007f-\u009f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  // Characters that hide, or turn the direction of the text, are shown by their number.
  const shown = (text) => text.replace(control, (one) => "\\u" + one.charCodeAt(0).toString(16).padStart(4, "0"));
  const short = (text) => (text.length > 300 ? text.slice(0, 300) + "…" : text);
  const labelled = (label) => (label === "" ? "no class" : shown(label));

  const rows = data.rows.map(([id, path, pairs, own, picture]) => ({
    id, path, pairs, own, picture,
    score: pairs.length ? pairs[0][1] : null,
    margin: pairs.length > 1 ? pairs[0][1] - pairs[1][1] : null,
  }));

  function element(name, properties, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties || {})) {
      if (key === "class") made.className = value;
      else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value !== null) made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }
  function drawn(name, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  const named = (text, kind = "name") => element("bdi", { class: kind, title: short(shown(text)) }, short(shown(text)));
  const digits = (value) => (value === null ? "–" : value.toFixed(3));
  function meter(share) {
    const bar = element("div", { class: "meter" });
    bar.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
    return bar;
  }

  // The filter lives in the address: that is what links, Back and a reload restore.
  const NAMES = ["class", "path", "min", "max", "sort"];
  function readAddress() {
    const parsed = new URLSearchParams(location.hash.slice(1));
    return Object.fromEntries(NAMES.map((name) => [name, parsed.get(name)]));
  }
  function address(filter) {
    const kept = NAMES.filter((name) => filter[name] !== null && filter[name] !== undefined && (filter[name] !== "" || name === "class"));
    return "#" + kept.map((name) => `${name}=${encodeURIComponent(filter[name])}`).join("&");
  }
  let filter = readAddress();
  function change(changes) {
    filter = { ...filter, ...changes };
    history.replaceState(null, "", address(filter));
    render();
  }

  function chart(figure, values, caption, linked) {
    if (!values) return;
    const { low, high, counts } = values;
    const width = 480, height = 190, left = 4, bottom = 22, top = 16;
    const most = Math.max(...counts), step = (width - 2 * left) / counts.length;
    const edge = (index) => low + ((high - low) * index) / counts.length;
    const total = counts.reduce((sum, one) => sum + one, 0);
    const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": caption });
    picture.append(drawn("line", { x1: left, x2: width - left, y1: height - bottom + 0.5, y2: height - bottom + 0.5 }));
    counts.forEach((count, index) => {
      const tall = count ? Math.max(1.5, ((height - bottom - top) * count) / most) : 0;
      const range = `${edge(index).toFixed(2)} to ${edge(index + 1).toFixed(2)}`;
      const text = `${range}: ${number.format(count)} images, ${((100 * count) / total).toFixed(1)} %`;
      const parts = [
        drawn("title", {}, text),
        drawn("rect", { class: "hit", x: left + index * step, y: top - 8, width: step, height: height - bottom - top + 8 }),
        drawn("rect", { class: "bar", x: left + index * step + 1.5, y: height - bottom - tall, width: step - 3, height: tall, rx: 2 }),
      ];
      if (!linked) return picture.append(drawn("g", { role: "img", "aria-label": text }, ...parts));
      const to = { min: edge(index).toFixed(4), max: edge(index + 1).toFixed(4) };
      const link = drawn("a", { href: address(to), "aria-label": text }, ...parts);
      link.addEventListener("click", () => setTimeout(() => byId("images").scrollIntoView()));
      picture.append(link);
    });
    [0, 0.25, 0.5, 0.75, 1].forEach((at) => {
      const anchor = at === 0 ? "start" : at === 1 ? "end" : "middle";
      const text = (low + at * (high - low)).toFixed(2);
      picture.append(drawn("text", { x: left + at * (width - 2 * left), y: height - 5, "text-anchor": anchor }, text));
    });
    picture.append(drawn("text", { x: width - left, y: 11, "text-anchor": "end" }, `highest bar: ${number.format(most)}`));
    figure.append(picture);
    figure.hidden = false;
  }

  let allClasses = false;
  function showClasses() {
    const wanted = byId("class-search").value.toLowerCase(), order = byId("class-order").value;
    const found = data.classes.filter(([label]) => labelled(label).toLowerCase().includes(wanted));
    if (order === "name") found.sort((one, other) => one[0].localeCompare(other[0]));
    if (order === "score") found.sort((one, other) => one[2] - other[2]);
    const most = Math.max(1, ...data.classes.map((one) => one[1]));
    const list = byId("class-list");
    list.replaceChildren(...(allClasses ? found : found.slice(0, CLASSES)).map(([label, count, mean]) => {
      const link = element("a", { href: address({ class: label }), onclick: () => setTimeout(() => byId("images").scrollIntoView()) },
        named(labelled(label)), element("span", { class: "bar" }, meter(count / most)),
        element("span", { class: "count" }, number.format(count)),
        element("span", { class: "mean", title: "mean of the best score" }, label === "" ? "–" : mean.toFixed(2)));
      if (filter.class === label) link.setAttribute("aria-current", "true");
      return element("li", {}, link);
    }));
    if (!found.length) list.append(element("li", { class: "note" }, "No class has such a name."));
    byId("more-classes").hidden = allClasses || found.length <= CLASSES;
    byId("more-classes").textContent = `Show all ${number.format(found.length)} classes`;
  }

  function picture(row) {
    if (typeof row.picture === "number") {
      const alt = `${labelled(data.labels[row.own])}: ${short(shown(row.path))}`;
      return element("img", { class: "picture", alt, loading: "lazy", width: 144, height: 144,
        src: "data:image/webp;base64," + data.thumbnails[row.picture] });
    }
    const reason = row.picture ? `not shown: ${row.picture}` : "no room for a thumbnail";
    return element("span", { class: "picture none" }, reason);
  }
  const candidates = (row) => row.pairs.map(([label, score]) => element("li", {},
    named(labelled(data.labels[label])), element("span", { class: "value" }, digits(score)),
    element("div", { class: "track" }, meter(score))));

  function open(row) {
    byId("detail-image").replaceChildren(picture(row));
    byId("detail-path").replaceChildren(named(row.path, "path"));
    byId("detail-candidates").replaceChildren(...candidates(row));
    byId("detail").showModal();
  }
  function tile(row) {
    const caption = element("span", { class: "caption" }, named(labelled(data.labels[row.own])), element("span", { class: "value" }, digits(row.score)));
    const leaf = element("span", { class: "where" }, named(row.path.split("/").pop() || row.path, "leaf"));
    const others = element("div", { class: "others", "aria-hidden": "true" }, element("ol", { class: "candidates" }, ...candidates(row)));
    const button = element("button", { type: "button", tabindex: "-1", onclick: () => open(row) }, picture(row), caption, leaf);
    return element("li", {}, button, others);
  }
  // One image of a sheet is reached with Tab, the others from there with the arrows.
  function sheet(found) {
    const list = element("ul", { class: "sheet" }, ...found.map(tile));
    const buttons = () => [...list.querySelectorAll("button")];
    const first = list.querySelector("button");
    if (first) first.tabIndex = 0;
    list.addEventListener("focusin", (event) => {
      buttons().forEach((one) => (one.tabIndex = one === event.target ? 0 : -1));
    });
    list.addEventListener("keydown", (event) => {
      const all = buttons(), here = all.indexOf(document.activeElement);
      const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
      const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
      const to = event.key === "Home" ? 0 : event.key === "End" ? all.length - 1 : here + (steps[event.key] || 0);
      if (here < 0 || to === here || !all[to]) return;
      event.preventDefault();
      all[to].focus();
    });
    return list;
  }

  const ORDERS = {
    table: (one, other) => one.id - other.id,
    surest: (one, other) => (other.score ?? -Infinity) - (one.score ?? -Infinity) || one.id - other.id,
    least: (one, other) => (one.score ?? Infinity) - (other.score ?? Infinity) || one.id - other.id,
    margin: (one, other) => (one.margin ?? Infinity) - (other.margin ?? Infinity) || one.id - other.id,
    path: (one, other) => (one.path < other.path ? -1 : one.path > other.path ? 1 : one.id - other.id),
  };
  const bound = (text) => (text === null || text === "" || Number.isNaN(Number(text)) ? null : Number(text));
  function matching() {
    const low = bound(filter.min), high = bound(filter.max), text = (filter.path || "").toLowerCase();
    return rows.filter((row) => (filter.class === null || data.labels[row.own] === filter.class)
      && (low === null || (row.score !== null && row.score >= low)) && (high === null || (row.score !== null && row.score <= high))
      && (!text || row.path.toLowerCase().includes(text)));
  }

  let room = PAGE;
  function render() {
    const found = matching(), sheets = byId("sheets"), place = data.classes.findIndex((one) => one[0] === filter.class);
    const plain = ["path", "min", "max", "sort"].every((name) => !filter[name]);
    const about = place < 0 ? "" : `; the class ${short(labelled(filter.class))} has ${number.format(data.classes[place][1])} in the table`;
    byId("status").textContent = filter.class !== null && place < 0
      ? `No image has the class ${short(shown(filter.class))}.` : `${number.format(found.length)} rows on this page match${about}.`;
    sheets.replaceChildren();
    let rest = found;
    if (place >= 0 && plain) {
      const [surest, least] = data.top[place].map((places) => places.map((one) => rows[one]));
      const used = new Set(surest);
      const doubtful = least.filter((row) => !used.has(row));
      doubtful.forEach((row) => used.add(row));
      rest = found.filter((row) => !used.has(row));
      for (const [title, group] of [["Surest", surest], ["Least sure", doubtful]]) {
        if (group.length) sheets.append(element("h3", {}, title), sheet(group));
      }
      if (rest.length) sheets.append(element("h3", {}, "Others on this page"));
    }
    rest.sort(ORDERS[filter.sort] || ORDERS.table);
    if (rest.length) sheets.append(sheet(rest.slice(0, room)));
    byId("more-images").hidden = rest.length <= room;
    byId("more-images").textContent = `Show more (${number.format(rest.length - room)} left)`;
    showClasses();
  }
  function fillForm() {
    byId("class").value = filter.class === null ? "all" : "class:" + filter.class;
    for (const name of ["path", "min", "max"]) byId(name).value = filter[name] || "";
    byId("sort").value = ORDERS[filter.sort] ? filter.sort : "table";
  }

  function showErrors() {
    const table = byId("error-rows");
    if (!table) return;
    const wanted = byId("error-search").value.toLowerCase();
    const total = data.reasons.reduce((sum, [, count]) => sum + count, 0);
    const found = data.errors.filter((row) => row.some((text) => text.toLowerCase().includes(wanted)));
    table.replaceChildren(...found.map((row) => element("tr", {}, ...row.map((text) =>
      element("td", {}, element("span", { class: "clamp" }, element("bdi", {}, shown(text))))))));
    const some = data.errors.length < total ? `; this page has the first ${number.format(data.errors.length)} of ${number.format(total)}` : "";
    byId("error-status").textContent = `${number.format(found.length)} error rows match${some}.`;
  }

  for (const [label, count] of data.classes) {
    byId("class").append(element("option", { value: "class:" + label }, `${labelled(label).slice(0, 80)} (${number.format(count)})`));
  }
  chart(byId("score-chart"), data.score, "Distribution of the best score", true);
  chart(byId("margin-chart"), data.margin, "Distribution of the margin between the two best scores", false);
  byId("class").addEventListener("change", (event) => {
    room = PAGE;
    change({ class: event.target.value === "all" ? null : event.target.value.slice(6) });
  });
  for (const name of ["path", "min", "max", "sort"]) {
    byId(name).addEventListener(name === "sort" ? "change" : "input", (event) => {
      room = PAGE;
      change({ [name]: event.target.value });
    });
  }
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("filter").addEventListener("reset", (event) => {
    event.preventDefault();
    room = PAGE;
    change(Object.fromEntries(NAMES.map((name) => [name, null])));
    fillForm();
  });
  byId("more-images").addEventListener("click", () => { room += 4 * PAGE; render(); });
  byId("more-classes").addEventListener("click", () => { allClasses = true; showClasses(); });
  byId("class-search").addEventListener("input", showClasses);
  byId("class-order").addEventListener("change", showClasses);
  if (byId("error-search")) byId("error-search").addEventListener("input", showErrors);
  addEventListener("hashchange", () => {
    // The headings have addresses, too; those are no filters.
    if (["#images", "#classes", "#errors", "#overview"].includes(location.hash)) return;
    filter = readAddress();
    room = PAGE;
    fillForm();
    render();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, select, dialog[open]")) return;
    event.preventDefault();
    byId("path").focus();
  });
  fillForm();
  render();
  showErrors();
})();
