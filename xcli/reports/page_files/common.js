"use strict";
// What every page uses. Texts of a table reach a page only as text nodes and attributes; nothing is ever parsed as markup.
const page = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en");
  const control = /[\u0000-\u001f\u007f-\u009f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  // Characters that hide, or turn the direction of the text, are shown by their number.
  const shown = (text) => text.replace(control, (one) => "\\u" + one.charCodeAt(0).toString(16).padStart(4, "0"));
  const short = (text) => (text.length > 300 ? text.slice(0, 300) + "…" : text);
  const labelled = (label) => (label === "" ? "no class" : shown(label));

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
  const candidate = (label, score) => element("li", {},
    named(labelled(label)), element("span", { class: "value" }, digits(score)),
    element("div", { class: "track" }, meter(score)));

  // What a page shows lives in its address: that is what links, Back and a reload restore. Names that the address does
  // not have are null. `blank` are those for which the empty text is a value; `changed` is told that the values changed.
  function watchAddress(names, blank, changed) {
    const read = () => {
      const parsed = new URLSearchParams(location.hash.slice(1));
      return Object.fromEntries(names.map((name) => [name, parsed.get(name)]));
    };
    const address = (values) => {
      const kept = names.filter((name) => values[name] !== null && values[name] !== undefined && (values[name] !== "" || blank.includes(name)));
      return "#" + kept.map((name) => `${name}=${encodeURIComponent(values[name])}`).join("&");
    };
    const watched = {
      values: read(),
      address,
      change(changes) {
        watched.values = { ...watched.values, ...changes };
        // What other parts of the page have in the address stays.
        const others = location.hash.includes("=") ? location.hash.slice(1).split("&").filter((one) => !names.includes(one.split("=")[0])) : [];
        const own = address(watched.values).slice(1);
        history.replaceState(null, "", "#" + [...others, ...(own ? [own] : [])].join("&"));
      },
    };
    addEventListener("hashchange", () => {
      // The headings have addresses, too; those change nothing.
      if (location.hash.length > 1 && !location.hash.includes("=")) return;
      watched.values = read();
      changed();
    });
    return watched;
  }
  const goTo = (id) => setTimeout(() => byId(id).scrollIntoView());

  // Draws a distribution into a figure; `addressOf` gives the address of the images between two values.
  function chart(figure, values, caption, addressOf, target) {
    if (!values) return;
    const { low, high, counts } = values;
    const width = 480, height = 190, left = 4, bottom = 22, top = 16;
    const most = Math.max(...counts), step = (width - 2 * left) / counts.length;
    const edge = (index) => low + ((high - low) * index) / counts.length;
    const total = counts.reduce((sum, one) => sum + one, 0);
    const places = Math.max(2, Math.ceil(-Math.log10(high - low)) + 2);
    const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": caption });
    picture.append(drawn("line", { x1: left, x2: width - left, y1: height - bottom + 0.5, y2: height - bottom + 0.5 }));
    counts.forEach((count, index) => {
      const tall = count ? Math.max(1.5, ((height - bottom - top) * count) / most) : 0;
      const range = `${edge(index).toFixed(places)} to ${edge(index + 1).toFixed(places)}`;
      const text = `${range}: ${number.format(count)} images, ${((100 * count) / total).toFixed(1)} %`;
      const parts = [
        drawn("title", {}, text),
        drawn("rect", { class: "hit", x: left + index * step, y: top - 8, width: step, height: height - bottom - top + 8 }),
        drawn("rect", { class: "bar", x: left + index * step + 1.5, y: height - bottom - tall, width: step - 3, height: tall, rx: 2 }),
      ];
      if (!addressOf) return picture.append(drawn("g", { role: "img", "aria-label": text }, ...parts));
      const link = drawn("a", { href: addressOf(edge(index), edge(index + 1)), "aria-label": text }, ...parts);
      link.addEventListener("click", () => goTo(target));
      picture.append(link);
    });
    [0, 0.25, 0.5, 0.75, 1].forEach((at) => {
      const anchor = at === 0 ? "start" : at === 1 ? "end" : "middle";
      const text = (low + at * (high - low)).toFixed(places);
      picture.append(drawn("text", { x: left + at * (width - 2 * left), y: height - 5, "text-anchor": anchor }, text));
    });
    picture.append(drawn("text", { x: width - left, y: 8, "text-anchor": "end" }, `highest bar: ${number.format(most)}`));
    figure.append(picture);
    figure.hidden = false;
  }

  // Of an image: the number of its thumbnail, or why it has none, and its alternative text.
  function thumbnail(picture, alt) {
    if (typeof picture === "number") {
      return element("img", { class: "picture", alt, loading: "lazy", width: 144, height: 144,
        src: "data:image/webp;base64," + data.thumbnails[picture] });
    }
    return element("span", { class: "picture none" }, picture ? `not shown: ${picture}` : "no room for a thumbnail");
  }
  // An image of a sheet is { path, picture, alt, caption, below, details }: its path, its thumbnail, the alternative text,
  // the elements below it, perhaps a line of text below these, and a function that makes what stands beside it under the pointer and in the dialog.
  function open(image) {
    byId("detail-image").replaceChildren(thumbnail(image.picture, image.alt));
    byId("detail-path").replaceChildren(named(image.path, "path"));
    byId("detail-more").replaceChildren(image.details());
    byId("detail").showModal();
  }
  function tile(image) {
    const caption = element("span", { class: "caption" }, ...image.caption);
    const below = image.below ? [element("span", { class: "where" }, named(image.below, "below"))] : [];
    const leaf = element("span", { class: "where" }, named(image.path.split("/").pop() || image.path, "leaf"));
    const others = element("div", { class: "others", "aria-hidden": "true" }, image.details());
    const button = element("button", { type: "button", tabindex: "-1", onclick: () => open(image) },
      thumbnail(image.picture, image.alt), caption, ...below, leaf);
    return element("li", {}, button, others);
  }
  // One image of a sheet is reached with Tab, the others from there with the arrows.
  function sheet(images) {
    const list = element("ul", { class: "sheet" }, ...images.map(tile));
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

  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, select, dialog[open]")) return;
    if (!byId("path")) return;
    event.preventDefault();
    byId("path").focus();
  });

  return { data, byId, number, shown, short, labelled, element, drawn, named, digits, meter, candidate, watchAddress, goTo, chart,
    thumbnail, open, sheet };
})();
