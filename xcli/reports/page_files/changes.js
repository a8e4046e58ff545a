// What has changed from one table to another one of the same images: pairs of classes, and the images of each change.
(() => {
  const { byId, candidate, chart, digits, element, goTo, labelled, meter, named, number, sheet, short, shown } = page;
  const data = page.data.changes;
  const PAGE = 60, PAIRS = 30, NAMES = ["change", "from", "to"];
  const KINDS = {
    class: "other class", "ok-to-error": "now an error", "error-to-ok": "no longer an error", "only-a": "in A only",
    "only-b": "in B only", score: "same class, other score", cosine: "other features",
  };
  const name = (place) => data.labels[place];
  // The class of a side is null where it has none: no row, an error, or features.
  const best = (outcome) => (Array.isArray(outcome) ? (outcome.length ? name(outcome[0][0]) : "") : null);
  const rows = data.rows.map(([kind, path, a, b, change, picture], id) => ({ id, kind, path, a, b, change, picture, from: best(a), to: best(b) }));

  let room = PAGE;
  const filter = page.watchAddress(NAMES, ["from", "to"], () => {
    room = PAGE;
    fillForm();
    render();
    if (NAMES.some((one) => filter.values[one] !== null)) goTo("changed");
  });
  function change(changes) {
    room = PAGE;
    filter.change(changes);
    render();
  }
  const isClass = () => filter.values.from !== null || filter.values.to !== null;

  let allPairs = false;
  function showPairs() {
    const list = byId("pair-list");
    if (!list) return;
    const wanted = byId("pair-search").value.toLowerCase(), { from, to } = filter.values;
    const found = data.pairs.filter(([a, b]) => [a, b].some((one) => labelled(name(one)).toLowerCase().includes(wanted)));
    const most = Math.max(1, ...data.pairs.map((one) => one[2]));
    list.replaceChildren(...(allPairs ? found : found.slice(0, PAIRS)).map(([a, b, count]) => {
      const link = element("a", { href: filter.address({ from: name(a), to: name(b) }), onclick: () => goTo("changed") },
        named(labelled(name(a))), element("span", { class: "arrow" }, element("span", { class: "unseen" }, "to"), "→"),
        named(labelled(name(b))), element("span", { class: "bar" }, meter(count / most)),
        element("span", { class: "count" }, number.format(count)));
      if (name(a) === from && name(b) === to) link.setAttribute("aria-current", "true");
      return element("li", {}, link);
    }));
    if (!found.length) list.append(element("li", { class: "note" }, "No pair has such a class."));
    byId("more-changed-pairs").hidden = allPairs || found.length <= PAIRS;
    byId("more-changed-pairs").textContent = `Show all ${number.format(found.length)} pairs`;
  }

  // What a table says of an image: the best class and its score, or a word.
  function said(row, side) {
    const outcome = row[side], absent = row.kind === (side === "a" ? "only-b" : "only-a");
    if (absent) return [element("span", { class: "name absent" }, "no row")];
    if (typeof outcome === "string") return [element("span", { class: "name failed" }, "error")];
    if (!outcome) return [element("span", { class: "name" }, "ok")];
    return [named(labelled(best(outcome))), element("span", { class: "value" }, digits(outcome.length ? outcome[0][1] : null))];
  }
  const side = (row, key) => element("span", { class: "side" }, element("span", { class: "key" }, key.toUpperCase()), ...said(row, key));
  function outcomes(row, key) {
    const outcome = row[key], title = element("h4", {}, key.toUpperCase());
    if (row.kind === (key === "a" ? "only-b" : "only-a")) return element("div", {}, title, element("p", {}, "This table has no row of it."));
    if (typeof outcome === "string") return element("div", {}, title, element("p", { class: "clamp" }, element("bdi", {}, shown(outcome))));
    if (!outcome) return element("div", {}, title, element("p", {}, "ok"));
    if (!outcome.length) return element("div", {}, title, element("p", {}, "No class reached the least score."));
    return element("div", {}, title, element("ol", { class: "candidates" }, ...outcome.map(([place, score]) => candidate(name(place), score))));
  }
  function details(row) {
    if (row.kind === "cosine") return element("p", { class: "note" }, `cosine ${row.change.toFixed(7)}`);
    return element("div", { class: "both" }, outcomes(row, "a"), outcomes(row, "b"));
  }
  function image(row) {
    const caption = row.kind === "cosine"
      ? [element("span", { class: "side" }, element("span", { class: "name" }, "cosine"), element("span", { class: "value" }, row.change.toFixed(4)))]
      : [side(row, "a"), side(row, "b")];
    const spoken = row.kind === "class" ? `${short(labelled(row.from))}, then ${short(labelled(row.to))}` : KINDS[row.kind];
    return { path: row.path, picture: row.picture, alt: `${spoken}: ${short(shown(row.path))}`, caption, details: () => details(row) };
  }

  function matching() {
    const { change: kind, from, to } = filter.values;
    return rows.filter((row) => (kind === null || row.kind === kind)
      && (!isClass() || (row.kind === "class" && (from === null || row.from === from) && (to === null || row.to === to))));
  }
  function about() {
    const { change: kind, from, to } = filter.values;
    if (isClass()) {
      const count = data.pairs.filter(([a, b]) => (from === null || name(a) === from) && (to === null || name(b) === to))
        .reduce((sum, one) => sum + one[2], 0);
      const where = data.pairs.length < data.pair_count ? "in the pairs above" : "in the tables";
      return `; ${number.format(count)} images changed so ${where}`;
    }
    return data.counts[kind] === undefined ? "" : `; ${number.format(data.counts[kind])} in the tables`;
  }
  function render() {
    const found = matching();
    const size = (row) => (row.change === null ? -1 : row.kind === "cosine" ? 1 - row.change : Math.abs(row.change));
    found.sort((one, other) => size(other) - size(one) || one.id - other.id);
    byId("change-status").textContent = rows.length
      ? `${number.format(found.length)} images on this page match${about()}.` : "No image has changed.";
    byId("change-sheet").replaceChildren(...(found.length ? [sheet(found.slice(0, room).map(image))] : []));
    byId("more-changed").hidden = found.length <= room;
    byId("more-changed").textContent = `Show more (${number.format(found.length - room)} left)`;
    showPairs();
  }
  function fillForm() {
    byId("change").value = data.counts[filter.values.change] === undefined ? "all" : filter.values.change;
    for (const one of ["from", "to"]) {
      if (byId(one)) byId(one).value = filter.values[one] === null ? "all" : "class:" + filter.values[one];
    }
  }

  byId("change").append(element("option", { value: "all" }, "any"), ...Object.entries(data.counts).filter(([, count]) => count)
    .map(([kind, count]) => element("option", { value: kind }, `${KINDS[kind]} (${number.format(count)})`)));
  byId("change").addEventListener("change", (event) => change({ change: event.target.value === "all" ? null : event.target.value }));
  ["from", "to"].forEach((one, place) => {
    if (!byId(one)) return;
    const labels = [...new Set(data.pairs.map((pair) => name(pair[place])))].sort((a, b) => a.localeCompare(b));
    byId(one).append(element("option", { value: "all" }, "any"),
      ...labels.map((label) => element("option", { value: "class:" + label }, labelled(label).slice(0, 80))));
    byId(one).addEventListener("change", (event) => change({ [one]: event.target.value === "all" ? null : event.target.value.slice(6) }));
  });
  byId("change-filter").addEventListener("submit", (event) => event.preventDefault());
  byId("change-filter").addEventListener("reset", (event) => {
    event.preventDefault();
    change(Object.fromEntries(NAMES.map((one) => [one, null])));
    fillForm();
  });
  if (byId("pair-search")) {
    byId("pair-search").addEventListener("input", showPairs);
    byId("more-changed-pairs").addEventListener("click", () => { allPairs = true; showPairs(); });
  }
  byId("more-changed").addEventListener("click", () => { room += 4 * PAGE; render(); });
  chart(byId("change-chart"), data.change, data.of === "features" ? "Distribution of the cosines" : "Distribution of the drift of scores");
  (data.scores || []).forEach((values, place) => {
    chart(byId(`scores-${"ab"[place]}-chart`), values, `Distribution of the best score in ${"AB"[place]}`);
  });
  fillForm();
  render();
  if (NAMES.some((one) => filter.values[one] !== null)) goTo("changed");
})();
