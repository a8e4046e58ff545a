// Each query of a search with its answers.
(() => {
  const { byId, element, meter, named, number, sheet, short, shown, thumbnail } = page;
  const PAGE = 20;
  const queries = page.data.search.queries.map(([name, rows, picture]) => ({ name, rows, picture }));

  let room = PAGE;
  const filter = page.watchAddress(["path"], [], () => {
    room = PAGE;
    byId("path").value = filter.values.path || "";
    render();
  });
  const answer = (rank, [path, score, picture]) => ({
    path, picture, alt: `answer ${rank}: ${short(shown(path))}`,
    caption: [element("span", { class: "name" }, `${rank}.`), element("span", { class: "value" }, score.toFixed(4))],
    details: () => element("div", { class: "track" }, meter(score)),
  });
  function asked(query) {
    const alt = `query: ${short(shown(query.name))}`;
    const picture = query.picture === null ? element("span", { class: "picture none" }, "a vector") : thumbnail(query.picture, alt);
    return element("div", { class: "asked" }, picture, element("h3", {}, named(query.name, "path")));
  }
  const result = (query) => element("article", { class: "query" }, asked(query), query.rows.length
    ? sheet(query.rows.map((row, place) => answer(place + 1, row))) : element("p", { class: "note" }, "The table has no other row."));

  function render() {
    const text = (filter.values.path || "").toLowerCase();
    const found = queries.filter((query) => !text || query.name.toLowerCase().includes(text));
    byId("status").textContent = text ? `${number.format(found.length)} ${found.length === 1 ? "query" : "queries"} on this page match${found.length === 1 ? "es" : ""}.` : "";
    byId("answers").replaceChildren(...found.slice(0, room).map(result));
    byId("more-queries").hidden = found.length <= room;
    byId("more-queries").textContent = `Show more (${number.format(found.length - room)} left)`;
  }
  byId("path").addEventListener("input", (event) => {
    room = PAGE;
    filter.change({ path: event.target.value });
    render();
  });
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("more-queries").addEventListener("click", () => { room += 4 * PAGE; render(); });
  byId("path").value = filter.values.path || "";
  render();
})();
