// The findings of an audit, by kind; each with its image and the one it is compared with.
(() => {
  const { byId, element, labelled, meter, named, number, sheet, short, shown } = page;
  const PAGE = 24;
  const { kinds, names, rows } = page.data.audit;
  const findings = rows.map(([kind, path, label, severity, detail, suggested, related, picture, other]) =>
    ({ kind, path, label: names[label], severity, detail, suggested, related, picture, other }));
  const more = new Set();

  for (const [kind, count] of kinds) {
    if (count) byId("kind").append(element("option", { value: kind }, `${kind} (${number.format(count)})`));
  }
  for (const name of [...new Set(findings.map((one) => one.label))].sort()) {
    if (name) byId("class").append(element("option", { value: name }, short(shown(name))));
  }
  const fields = ["kind", "class", "path"];
  const fill = () => fields.forEach((name) => (byId(name).value = filter.values[name] || ""));
  const filter = page.watchAddress(fields, [], () => { fill(); render(); });

  function images(one) {
    const details = () => element("p", {}, short(shown(one.detail)));
    const found = [{
      path: one.path, picture: one.picture, details, alt: `${kinds[one.kind][0]}: ${short(shown(one.path))}`,
      caption: [named(labelled(one.label))],
    }];
    if (one.related) {
      found.push({ path: one.related, picture: one.other, details, alt: `compared with: ${short(shown(one.related))}`,
        caption: [element("span", { class: "value" }, "compared with")] });
    }
    return found;
  }
  function finding(one) {
    const text = element("p", {});
    if (one.suggested) text.append(element("strong", {}, named(labelled(one.label)), " → ", named(one.suggested)), element("br"));
    if (!one.path) text.append(element("strong", {}, named(labelled(one.label))), element("br"));
    text.append(short(shown(one.detail)));
    return element("article", { class: "pair card" }, ...(one.path ? [sheet(images(one))] : []), text,
      element("div", { class: "track", role: "img", "aria-label": `severity ${one.severity.toFixed(2)}` }, meter(one.severity)));
  }
  function section([kind, , about], index, found) {
    const room = more.has(kind) ? found.length : PAGE;
    const button = element("button", { type: "button", onclick: () => { more.add(kind); render(); } },
      `Show all ${number.format(found.length)}`);
    button.hidden = found.length <= room;
    return element("section", { class: "of-kind" }, element("h3", {}, `${kind} (${number.format(found.length)})`),
      element("p", { class: "note" }, about),
      element("div", { class: "pairs" }, ...found.slice(0, room).map(finding)), button);
  }
  function render() {
    const text = (filter.values.path || "").toLowerCase(), { kind, class: label } = filter.values;
    const matching = findings.filter((one) => (!kind || kinds[one.kind][0] === kind) && (!label || one.label === label)
      && (!text || one.path.toLowerCase().includes(text) || one.related.toLowerCase().includes(text)));
    byId("status").textContent = kind || label || text
      ? `${number.format(matching.length)} ${matching.length === 1 ? "finding" : "findings"} on this page match${matching.length === 1 ? "es" : ""}.` : "";
    byId("kinds").replaceChildren(...kinds.flatMap((one, index) => {
      const found = matching.filter((row) => row.kind === index);
      return found.length ? [section(one, index, found)] : [];
    }));
  }
  fields.forEach((name) => byId(name).addEventListener("input", (event) => {
    filter.change({ [name]: event.target.value });
    render();
  }));
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("filter").addEventListener("reset", (event) => {
    event.preventDefault();
    filter.change({ kind: null, class: null, path: null });
    fill();
    render();
  });
  fill();
  render();
})();
