// The clusters of a map, and its images by cluster and path.
(() => {
  const { byId, element, number, shown, short, named, thumbnail, watchAddress, goTo, sheet, map } = page;
  const { points, groups, swatch } = map;
  const { typical } = page.data.clusters;
  const PAGE = 60;
  const total = groups.reduce((sum, one) => sum + one.count, 0);
  const title = (group) => `Cluster ${group.name}`;
  const share = (count) => `${((100 * count) / total).toFixed(count < total / 100 ? 1 : 0)} %`;

  const watched = watchAddress(["cluster", "path", "sort"], [], () => {
    room = PAGE;
    fillForm();
    render();
  });
  function change(changes) {
    room = PAGE;
    watched.change(changes);
    render();
  }

  function card(group, place) {
    const images = typical[place].slice(0, 6).map((one) => thumbnail(points[one].picture, short(shown(points[one].path))));
    const text = `${number.format(group.count)} ${group.count === 1 ? "image" : "images"}, ${share(group.count)}`;
    const link = element("a", { href: watched.address({ cluster: group.name }), onclick: () => goTo("images") },
      element("span", { class: "mosaic" }, ...images),
      element("span", { class: "caption" }, element("span", { class: "name" }, swatch(place), title(group)), element("span", { class: "value" }, text)));
    return element("li", { class: "card", "data-cluster": group.name }, link);
  }

  const ORDERS = {
    near: (one, other) => one.value - other.value || one.place - other.place,
    far: (one, other) => other.value - one.value || one.place - other.place,
    path: (one, other) => (one.path < other.path ? -1 : one.path > other.path ? 1 : one.place - other.place),
  };
  // Points begin with the typical ones of each cluster.
  const asTheyCome = (one, other) => one.place - other.place;
  let room = PAGE;
  function render() {
    const { cluster, path, sort } = watched.values;
    const found = points.filter(map.showOnly({ group: cluster, path }));
    const place = groups.findIndex((one) => one.name === cluster);
    const about = place < 0 ? "" : `; cluster ${cluster} has ${number.format(groups[place].count)} in the table`;
    byId("status").textContent = cluster && place < 0
      ? `There is no cluster ${short(shown(cluster))}.` : `${number.format(found.length)} images on this page match${about}.`;
    let rest = found;
    const sheets = byId("sheets");
    sheets.replaceChildren();
    if (place >= 0 && !path && !sort) {
      const first = typical[place].map((one) => points[one]), used = new Set(first);
      rest = found.filter((one) => !used.has(one));
      if (first.length) sheets.append(element("h3", {}, "Most typical"), sheet(first.map(map.image)));
      if (rest.length) sheets.append(element("h3", {}, "Others on this page"));
    }
    rest.sort(ORDERS[sort] || (place < 0 ? asTheyCome : ORDERS.near));
    if (rest.length) sheets.append(sheet(rest.slice(0, room).map(map.image)));
    byId("more-images").hidden = rest.length <= room;
    byId("more-images").textContent = `Show more (${number.format(rest.length - room)} left)`;
    for (const one of document.querySelectorAll("[data-cluster]")) {
      const link = one.querySelector("a");
      if (one.dataset.cluster === cluster) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }
  function fillForm() {
    byId("cluster").value = groups.some((one) => one.name === watched.values.cluster) ? watched.values.cluster : "";
    byId("path").value = watched.values.path || "";
    byId("sort").value = ORDERS[watched.values.sort] ? watched.values.sort : "";
  }

  if (byId("cluster-list")) byId("cluster-list").append(...groups.map(card));
  for (const group of groups) {
    byId("cluster").append(element("option", { value: group.name }, `${title(group)} (${number.format(group.count)})`));
  }
  byId("cluster").addEventListener("change", (event) => change({ cluster: event.target.value || null }));
  byId("path").addEventListener("input", (event) => change({ path: event.target.value }));
  byId("sort").addEventListener("change", (event) => change({ sort: event.target.value || null }));
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("filter").addEventListener("reset", (event) => {
    event.preventDefault();
    change({ cluster: null, path: null, sort: null });
    fillForm();
  });
  byId("more-images").addEventListener("click", () => { room += 4 * PAGE; render(); });
  fillForm();
  render();
})();
