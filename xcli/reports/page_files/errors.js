// The error rows of a table, and a search in them.
(() => {
  const { byId, element, number, shown } = page;
  const { rows, total } = page.data.errors;
  function show() {
    const wanted = byId("error-search").value.toLowerCase();
    const found = rows.filter((row) => row.some((text) => text.toLowerCase().includes(wanted)));
    byId("error-rows").replaceChildren(...found.map((row) => element("tr", {}, ...row.map((text) =>
      element("td", {}, element("span", { class: "clamp" }, element("bdi", {}, shown(text))))))));
    const some = rows.length < total ? `; this page has the first ${number.format(rows.length)} of ${number.format(total)}` : "";
    byId("error-status").textContent = `${number.format(found.length)} error rows match${some}.`;
  }
  byId("error-search").addEventListener("input", show);
  show();
})();
