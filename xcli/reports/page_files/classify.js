// The classes of a table of `classify`, and its images by class, path and score.
(() => {
  const { byId, candidate, chart, digits, element, goTo, labelled, meter, named, number, sheet, short, shown } = page;
  const data = page.data.classify;
  const PAGE = 60, CLASSES = 60, NAMES = ["class", "path", "min", "max", "sort"];
  const rows = data.rows.map(([id, path, pairs, own, picture]) => ({
    id, path, pairs, own, picture,
    score: pairs.length ? pairs[0][1] : null,
    margin: pairs.length > 1 ? pairs[0][1] - pairs[1][1] : null,
  }));

  let room = PAGE;
  const filter = page.watchAddress(NAMES, ["class"], () => {
    room = PAGE;
    fillForm();
    render();
  });
  function change(changes) {
    room = PAGE;
    filter.change(changes);
    render();
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
      const link = element("a", { href: filter.address({ class: label }), onclick: () => goTo("images") },
        named(labelled(label)), element("span", { class: "bar" }, meter(count / most)),
        element("span", { class: "count" }, number.format(count)),
        element("span", { class: "mean", title: "mean of the best score" }, label === "" ? "–" : mean.toFixed(2)));
      if (filter.values.class === label) link.setAttribute("aria-current", "true");
      return element("li", {}, link);
    }));
    if (!found.length) list.append(element("li", { class: "note" }, "No class has such a name."));
    byId("more-classes").hidden = allClasses || found.length <= CLASSES;
    byId("more-classes").textContent = `Show all ${number.format(found.length)} classes`;
  }

  const image = (row) => {
    const label = labelled(data.labels[row.own]);
    return {
      path: row.path, picture: row.picture, alt: `${label}: ${short(shown(row.path))}`,
      caption: [named(label), element("span", { class: "value" }, digits(row.score))],
      details: () => element("ol", { class: "candidates" }, ...row.pairs.map(([place, score]) => candidate(data.labels[place], score))),
    };
  };
  const sheetOf = (found) => sheet(found.map(image));

  const ORDERS = {
    table: (one, other) => one.id - other.id,
    surest: (one, other) => (other.score ?? -Infinity) - (one.score ?? -Infinity) || one.id - other.id,
    least: (one, other) => (one.score ?? Infinity) - (other.score ?? Infinity) || one.id - other.id,
    margin: (one, other) => (one.margin ?? Infinity) - (other.margin ?? Infinity) || one.id - other.id,
    path: (one, other) => (one.path < other.path ? -1 : one.path > other.path ? 1 : one.id - other.id),
  };
  const bound = (text) => (text === null || text === "" || Number.isNaN(Number(text)) ? null : Number(text));
  function matching() {
    const wanted = filter.values;
    const low = bound(wanted.min), high = bound(wanted.max), text = (wanted.path || "").toLowerCase();
    return rows.filter((row) => (wanted.class === null || data.labels[row.own] === wanted.class)
      && (low === null || (row.score !== null && row.score >= low)) && (high === null || (row.score !== null && row.score <= high))
      && (!text || row.path.toLowerCase().includes(text)));
  }

  // The map follows this filter; its script may come after this one, and then begins with it.
  page.filterMap = () => {
    const { class: group, path, min, max } = filter.values;
    if (page.map) page.map.showOnly({ group, path, low: bound(min), high: bound(max) });
  };
  function render() {
    const wanted = filter.values;
    const found = matching(), sheets = byId("sheets"), place = data.classes.findIndex((one) => one[0] === wanted.class);
    const plain = ["path", "min", "max", "sort"].every((name) => !wanted[name]);
    const about = place < 0 ? "" : `; the class ${short(labelled(wanted.class))} has ${number.format(data.classes[place][1])} in the table`;
    byId("status").textContent = wanted.class !== null && place < 0
      ? `No image has the class ${short(shown(wanted.class))}.` : `${number.format(found.length)} rows on this page match${about}.`;
    sheets.replaceChildren();
    let rest = found;
    if (place >= 0 && plain) {
      const [surest, least] = data.top[place].map((places) => places.map((one) => rows[one]));
      const used = new Set(surest);
      const doubtful = least.filter((row) => !used.has(row));
      doubtful.forEach((row) => used.add(row));
      rest = found.filter((row) => !used.has(row));
      for (const [title, group] of [["Surest", surest], ["Least sure", doubtful]]) {
        if (group.length) sheets.append(element("h3", {}, title), sheetOf(group));
      }
      if (rest.length) sheets.append(element("h3", {}, "Others on this page"));
    }
    rest.sort(ORDERS[wanted.sort] || ORDERS.table);
    if (rest.length) sheets.append(sheetOf(rest.slice(0, room)));
    byId("more-images").hidden = rest.length <= room;
    byId("more-images").textContent = `Show more (${number.format(rest.length - room)} left)`;
    showClasses();
    page.filterMap();
  }
  function fillForm() {
    const wanted = filter.values;
    byId("class").value = wanted.class === null ? "all" : "class:" + wanted.class;
    for (const name of ["path", "min", "max"]) byId(name).value = wanted[name] || "";
    byId("sort").value = ORDERS[wanted.sort] ? wanted.sort : "table";
  }

  for (const [label, count] of data.classes) {
    byId("class").append(element("option", { value: "class:" + label }, `${labelled(label).slice(0, 80)} (${number.format(count)})`));
  }
  chart(byId("score-chart"), data.score, "Distribution of the best score",
    (low, high) => filter.address({ min: low.toFixed(4), max: high.toFixed(4) }), "images");
  chart(byId("margin-chart"), data.margin, "Distribution of the margin between the two best scores");
  byId("class").addEventListener("change", (event) => change({ class: event.target.value === "all" ? null : event.target.value.slice(6) }));
  for (const name of ["path", "min", "max", "sort"]) {
    byId(name).addEventListener(name === "sort" ? "change" : "input", (event) => change({ [name]: event.target.value }));
  }
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("filter").addEventListener("reset", (event) => {
    event.preventDefault();
    change(Object.fromEntries(NAMES.map((name) => [name, null])));
    fillForm();
  });
  byId("more-images").addEventListener("click", () => { room += 4 * PAGE; render(); });
  byId("more-classes").addEventListener("click", () => { allClasses = true; showClasses(); });
  byId("class-search").addEventListener("input", showClasses);
  byId("class-order").addEventListener("change", showClasses);
  fillForm();
  render();
  if (NAMES.some((name) => filter.values[name] !== null)) goTo("images");
})();
