// Labelled images: the confusion matrix, figures by class, reliability, and images by true and predicted class.
(() => {
  const { byId, drawn, element, labelled, named, number, short, shown } = page;
  const data = page.data.labelled;
  const PAGE = 60, PAIRS = 15, FIGURES = 50, SIDE = 25, SINGLE = 40, NONE = -1;
  const title = document.querySelector(".outcomes-title"), pathField = byId(data.isFirst ? "path" : "outcome-path");
  // Beside another part the names that it has in the address are taken.
  const PATH = data.isFirst ? "path" : "file", ORDER = data.isFirst ? "sort" : "order";
  const NAMES = ["truth", "predicted", "show", PATH, ORDER];
  const text = (index) => (index === NONE ? "" : data.names[index]);
  const readable = (index) => short(labelled(text(index)));
  const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.001 ? 2 : 1)} %`;
  const images = (count) => `${number.format(count)} ${count === 1 ? "image" : "images"}`;
  const support = (index) => data.classes[index][0];
  const classCount = data.names.length;

  const matrix = data.names.map(() => new Map());
  for (const [truth, predicted, count] of data.cells) matrix[truth].set(predicted, count);
  const wrong = data.cells.filter(([truth, predicted]) => truth !== predicted);
  const mistakes = wrong.reduce((sum, one) => sum + one[2], 0);
  const left = data.allCells > data.cells.length
    ? ` The ${number.format(data.cells.length)} largest of ${number.format(data.allCells)} cells are on this page.` : "";

  const filter = page.watchAddress(NAMES, ["truth", "predicted"], () => { room = PAGE; fillForm(); render(); });
  function change(changes) {
    room = PAGE;
    filter.change(changes);
    render();
  }
  // The title takes the focus, so that the keyboard goes on from there.
  const reveal = () => setTimeout(() => title.focus());
  const cellAddress = (truth, predicted) => filter.address({
    truth: truth === null ? null : text(truth), predicted: predicted === null ? null : text(predicted),
    show: truth !== null && predicted !== null ? null : "all" });
  const linkTo = (truth, predicted, properties, ...children) =>
    element("a", { href: cellAddress(truth, predicted), onclick: reveal, ...properties }, ...children);

  // ---- The matrix: single classes, or blocks of them that open.
  // A view has groups of classes, each a list of their numbers; those of rows may be others than those of columns.
  const all = data.names.map((_, index) => index);
  function grouped(indices) {
    if (indices.length <= SINGLE) return indices.map((one) => [one]);
    const size = Math.ceil(indices.length / SIDE), groups = [];
    for (let start = 0; start < indices.length; start += size) groups.push(indices.slice(start, start + size));
    return groups;
  }
  // The classes of the most frequent confusions: where pairs meet in a class, they meet in the matrix.
  function mostConfused(most) {
    const found = new Set();
    for (const [truth, predicted] of wrong) {
      const more = [truth, predicted].filter((one) => one !== NONE && !found.has(one));
      if (found.size + more.length <= most) more.forEach((one) => found.add(one));
      if (found.size >= most - 1) break;
    }
    return [...found];
  }
  function around(index) {
    const near = wrong.filter(([truth, predicted]) => truth === index || predicted === index)
      .flatMap(([truth, predicted]) => [truth, predicted]).filter((one) => one !== NONE);
    return [...new Set([index, ...near])].slice(0, SIDE);
  }
  const groupName = (group) => (group.length === 1 ? readable(group[0])
    : `${readable(group[0])} to ${readable(group[group.length - 1])}`);
  let view = null;
  function show(rows, columns, note, isOpened = false) {
    view = { rows: grouped(rows), columns: grouped(columns), note, isOpened };
    showMatrix();
  }
  function counted(rows, columns) {
    const numbers = new Map(columns.flatMap((group, at) => group.map((one) => [one, at])));
    return rows.map((group) => {
      const counts = columns.map(() => 0);
      let hidden = 0;
      for (const truth of group) {
        for (const [predicted, count] of matrix[truth]) {
          const at = numbers.get(predicted);
          if (at === undefined) hidden += count;
          else counts[at] += count;
        }
      }
      return { counts, hidden, total: group.reduce((sum, one) => sum + support(one), 0) };
    });
  }
  function cell(row, column, count, total) {
    const isSingle = row.length === 1 && column.length === 1, isRight = isSingle ? row[0] === column[0] : row[0] === column[0] && row.length === column.length;
    const made = element("td", { class: isRight ? "right" : "wrong" });
    const share = total ? count / total : 0;
    // The root makes rare confusions visible.
    made.style.setProperty("--share", count ? Math.max(0.12, Math.sqrt(share)).toFixed(3) : "0");
    const what = `true ${groupName(row)}, predicted ${groupName(column)}: ${images(count)}, ${percent(share)} of the row`;
    made.dataset.what = what;
    if (!count) {
      made.tabIndex = -1;
      made.setAttribute("aria-label", what);
      return made;
    }
    const label = count < 1000 ? String(count) : `${(count / 1000).toFixed(count < 10000 ? 1 : 0)}k`;
    made.append(isSingle ? linkTo(row[0], column[0], { "aria-label": what, tabindex: "-1" }, label)
      : element("button", { type: "button", "aria-label": `${what}; opens these classes`, tabindex: "-1", onclick: () => zoom(row, column) }, label));
    return made;
  }
  function zoom(row, column) {
    show(row, column, `Opened: rows ${groupName(row)}, columns ${groupName(column)}.`, true);
    focusable()[0].focus();
  }
  const focusable = () => [...byId("matrix-scroll").querySelectorAll("td a, td button, td[tabindex]")];
  function showMatrix() {
    const { rows, columns, note, isOpened } = view;
    const found = counted(rows, columns);
    const head = element("tr", {}, element("td", {}), ...columns.map((group) =>
      element("th", { scope: "col" }, element("span", {}, named(groupName(group))))));
    const body = rows.map((group, at) => element("tr", {}, element("th", { scope: "row" }, named(groupName(group))),
      ...columns.map((column, place) => cell(group, column, found[at].counts[place], found[at].total))));
    const table = element("table", { role: "grid", "aria-label": "Confusion matrix", class: Math.max(rows.length, columns.length) > 15 ? "dense" : null },
      element("thead", {}, head), element("tbody", {}, ...body));
    byId("matrix-scroll").replaceChildren(table);
    (table.querySelector("td a, td button") || focusable()[0] || table).tabIndex = 0;
    const hidden = found.reduce((sum, one) => sum + one.hidden, 0);
    byId("matrix-note").textContent = note + (hidden ? ` ${images(hidden)} of these rows are in no column: they were taken for other classes, or none.` : "") + left;
    byId("matrix-back").hidden = !isOpened;
    tell(null);
  }
  const tell = (made) => { byId("matrix-info").textContent = made && made.dataset.what ? made.dataset.what : " "; };
  byId("matrix-scroll").addEventListener("pointerover", (event) => tell(event.target.closest("td")));
  byId("matrix-scroll").addEventListener("focusin", (event) => {
    focusable().forEach((one) => (one.tabIndex = one === event.target ? 0 : -1));
    tell(event.target.closest("td"));
  });
  byId("matrix-scroll").addEventListener("keydown", (event) => {
    const here = event.target.closest("td"), line = here && here.parentElement;
    if (!here || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = here.cellIndex, lines = [...line.parentElement.children], up = lines.indexOf(line);
    const to = {
      ArrowRight: [up, at + 1], ArrowLeft: [up, at - 1], ArrowDown: [up + 1, at], ArrowUp: [up - 1, at],
      Home: [up, 1], End: [up, line.cells.length - 1],
    }[event.key];
    const next = to && to[1] > 0 && lines[to[0]] && lines[to[0]].cells[to[1]];
    if (!to) return;
    event.preventDefault();
    if (next) (next.firstElementChild || next).focus();
  });
  function chooseView() {
    const value = byId("matrix-view").value;
    if (value === "blocks") {
      const size = Math.ceil(classCount / SIDE);
      return show(all, all, `All ${number.format(classCount)} classes, in blocks of ${size}. A block opens its classes.`);
    }
    if (value.startsWith("class:")) {
      const index = Number(value.slice(6)), found = around(index);
      return show(found, found, `${readable(index)}, and ${number.format(found.length - 1)} of the classes it is confused with, the most frequent first.`);
    }
    const found = mostConfused(SIDE);
    return show(found, found, `${found.length} of ${number.format(classCount)} classes: those of the most frequent confusions.`);
  }
  if (classCount <= SINGLE) {
    show(all, all, "");
  } else {
    byId("matrix-controls").hidden = false;
    byId("matrix-view").append(
      element("option", { value: "worst" }, "the most confused"),
      element("option", { value: "blocks" }, `all ${number.format(classCount)}, in blocks`),
      element("optgroup", { label: "around one class" }, ...all.map((one) => element("option", { value: `class:${one}` }, readable(one).slice(0, 80)))));
    byId("matrix-view").addEventListener("change", chooseView);
    byId("matrix-back").addEventListener("click", () => {
      byId("matrix-view").value = "blocks";
      chooseView();
      focusable()[0].focus();
    });
    chooseView();
  }

  // ---- Pairs of classes, most frequent first.
  let pairRoom = PAIRS;
  function showPairs() {
    byId("pairs-note").textContent = wrong.length
      ? `${number.format(mistakes)} mistakes in ${number.format(wrong.length)} pairs of classes.${left}` : "No mistakes.";
    byId("pairs").replaceChildren(...wrong.slice(0, pairRoom).map(([truth, predicted, count]) => element("li", {},
      linkTo(truth, predicted, {}, element("span", { class: "pair" }, named(readable(truth)), " ", element("span", { class: "to" }, "taken for"), " ", named(readable(predicted))), " ",
        element("span", { class: "count" }, number.format(count)), " ",
        element("span", { class: "share" }, percent(count / support(truth)))))));
    byId("more-pairs").hidden = wrong.length <= pairRoom;
    byId("more-pairs").textContent = `Show more (${number.format(wrong.length - pairRoom)} left)`;
  }
  byId("more-pairs").addEventListener("click", () => { pairRoom += 5 * PAIRS; showPairs(); });
  showPairs();

  // ---- Figures of each class.
  const mostOften = new Map();
  for (const one of wrong) if (!mostOften.has(one[0])) mostOften.set(one[0], one);
  const COLUMNS = [["Class", (one) => labelled(text(one))], ["Images", support], ["Predicted", (one) => data.classes[one][1]],
    ["Precision", (one) => data.classes[one][2]], ["Recall", (one) => data.classes[one][3]], ["F1", (one) => data.classes[one][4]],
    ["Most often taken for", (one) => (mostOften.has(one) ? mostOften.get(one)[2] / support(one) : 0)]];
  const sorted = { column: 5, down: false };
  let figureRoom = FIGURES;
  function figureRow(index) {
    const [images, guessed, ...figures] = data.classes[index], other = mostOften.get(index);
    return element("tr", {}, element("th", { scope: "row" }, linkTo(index, null, {}, named(labelled(text(index))))),
      element("td", {}, number.format(images)), element("td", {}, number.format(guessed)),
      ...figures.map((value) => {
        const made = element("td", { class: "figure" }, value.toFixed(3));
        made.style.setProperty("--value", value);
        return made;
      }),
      element("td", {}, other ? linkTo(index, other[1], {}, named(readable(other[1])), ` (${number.format(other[2])})`) : "–"));
  }
  function showFigures() {
    const wanted = byId("figure-search").value.toLowerCase(), value = COLUMNS[sorted.column][1];
    const found = all.filter((one) => labelled(text(one)).toLowerCase().includes(wanted));
    const sign = sorted.down ? -1 : 1;
    found.sort((one, other) => {
      const a = value(one), b = value(other);
      return sign * (typeof a === "string" ? a.localeCompare(b) : a - b) || one - other;
    });
    byId("figure-rows").replaceChildren(...found.slice(0, figureRoom).map(figureRow));
    byId("figure-status").textContent = `${number.format(found.length)} classes${wanted ? " match" : ""}` +
      (found.length > figureRoom ? `; the first ${number.format(figureRoom)} are shown.` : ".");
    byId("more-figures").hidden = found.length <= figureRoom;
    byId("more-figures").textContent = `Show all ${number.format(found.length)} classes`;
    [...byId("figure-heads").children].forEach((head, at) => {
      if (at === sorted.column) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }
  byId("figure-heads").append(...COLUMNS.map(([name], at) => element("th", { scope: "col" }, element("button", { type: "button", onclick: () => {
    sorted.down = sorted.column === at ? !sorted.down : at > 0 && at !== 3 && at !== 4 && at !== 5;
    sorted.column = at;
    showFigures();
  } }, name))));
  byId("figure-search").closest(".controls").hidden = classCount <= 12;
  byId("figure-search").addEventListener("input", () => { figureRoom = FIGURES; showFigures(); });
  byId("more-figures").addEventListener("click", () => { figureRoom = classCount; showFigures(); });
  showFigures();

  // ---- Reliability.
  function showReliability() {
    const bins = data.bins, width = 480, height = 300, side = { left: 34, right: 8, top: 10, bottom: 24 };
    const x = (share) => side.left + share * (width - side.left - side.right);
    const y = (share) => height - side.bottom - share * (height - side.top - side.bottom);
    const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Accuracy by score" });
    for (const at of [0, 0.25, 0.5, 0.75, 1]) {
      picture.append(drawn("line", { x1: x(0), x2: x(1), y1: y(at), y2: y(at) }),
        drawn("text", { x: x(0) - 5, y: y(at) + 4, "text-anchor": "end" }, at.toFixed(2)),
        drawn("text", { x: x(at), y: height - 6, "text-anchor": at === 1 ? "end" : "middle" }, at.toFixed(2)));
    }
    bins.forEach(([count, mean, accuracy], at) => {
      const low = at / bins.length, high = (at + 1) / bins.length, range = `${low.toFixed(2)} to ${high.toFixed(2)}`;
      const cells = [range, number.format(count), count ? mean.toFixed(3) : "–", count ? accuracy.toFixed(3) : "–"];
      byId("bin-rows").append(element("tr", {}, ...cells.map((one) => element("td", {}, one))));
      if (!count) return;
      const what = `score ${range}: ${images(count)}, mean score ${mean.toFixed(3)}, accuracy ${accuracy.toFixed(3)}`;
      const gap = [Math.max(mean, accuracy), Math.min(mean, accuracy)];
      picture.append(drawn("g", { role: "img", "aria-label": what }, drawn("title", {}, what),
        drawn("rect", { class: "bar", x: x(low) + 1, width: x(high) - x(low) - 2, y: y(accuracy), height: Math.max(1, y(0) - y(accuracy)) }),
        drawn("rect", { class: accuracy < mean ? "gap over" : "gap under", x: x(low) + 1, width: x(high) - x(low) - 2, y: y(gap[0]), height: y(gap[1]) - y(gap[0]) }),
        drawn("rect", { class: "hit", x: x(low), width: x(high) - x(low), y: y(1), height: y(0) - y(1) })));
    });
    picture.append(drawn("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }));
    byId("reliability-chart").append(picture);
    byId("reliability-chart").append(element("p", { class: "note" }, element("span", { class: "key gap" }), " distance of the accuracy from the mean score"));
    page.chart(byId("confidence-chart"), { low: 0, high: 1, counts: bins.map((one) => one[0]) }, "Images by score");
    const total = bins.reduce((sum, one) => sum + one[0], 0), mean = (at) => bins.reduce((sum, one) => sum + one[0] * one[at], 0) / total;
    const verdict = mean(1) > mean(2) ? "too sure" : "not sure enough";
    byId("confidence-chart").append(element("p", { class: "note" },
      `The mean score is ${mean(1).toFixed(3)}, the accuracy ${mean(2).toFixed(3)}${Math.abs(mean(1) - mean(2)) < 0.005 ? "" : `: on the whole, the model is ${verdict}`}.`));
  }
  if (data.bins) showReliability();

  // ---- Images.
  const rows = data.rows.map(([path, truth, predicted, score, picture]) => ({ path, truth, predicted, score, picture }));
  let room = PAGE;
  const image = (row) => {
    const isRight = row.truth === row.predicted;
    const caption = [named(readable(row.predicted), isRight ? "name" : "name mistaken"), element("span", { class: "value" }, page.digits(row.score))];
    const details = () => element("dl", { class: "outcome" }, element("dt", {}, "true"), element("dd", {}, named(readable(row.truth))),
      element("dt", {}, "predicted"), element("dd", { class: isRight ? null : "mistaken" }, named(readable(row.predicted))),
      element("dt", {}, "score"), element("dd", {}, page.digits(row.score)));
    const alt = `true ${readable(row.truth)}, predicted ${readable(row.predicted)}: ${short(shown(row.path))}`;
    return { path: row.path, picture: row.picture, alt, caption, below: isRight ? null : `true: ${readable(row.truth)}`, details };
  };
  const ORDERS = {
    surest: (one, other) => (other.score ?? -Infinity) - (one.score ?? -Infinity),
    least: (one, other) => (one.score ?? Infinity) - (other.score ?? Infinity),
    path: (one, other) => (one.path < other.path ? -1 : one.path > other.path ? 1 : 0),
  };
  // A pair of classes shows all of its images; otherwise mistakes come first.
  const kind = (wanted) => wanted.show || (wanted.truth !== null && wanted.predicted !== null ? "all" : "wrong");
  const belongs = (wanted, truth, predicted) => (wanted.truth === null || text(truth) === wanted.truth)
    && (wanted.predicted === null || text(predicted) === wanted.predicted)
    && (kind(wanted) === "all" || (kind(wanted) === "right") === (truth === predicted));
  function heading(wanted) {
    const which = { wrong: "Surest mistakes", right: "Right ones", all: "Images" }[kind(wanted)] || "Images";
    const name = (label) => short(labelled(label));
    if (wanted.truth !== null && wanted.predicted !== null) {
      return wanted.truth === wanted.predicted ? `${name(wanted.truth)}, rightly predicted` : `${name(wanted.truth)} taken for ${name(wanted.predicted)}`;
    }
    if (wanted.truth !== null) return `${which}: true ${name(wanted.truth)}`;
    return wanted.predicted !== null ? `${which}: predicted ${name(wanted.predicted)}` : which;
  }
  function render() {
    const wanted = filter.values, find = (wanted[PATH] || "").toLowerCase();
    const total = data.cells.reduce((sum, [truth, predicted, count]) => sum + (belongs(wanted, truth, predicted) ? count : 0), 0);
    const found = rows.filter((row) => belongs(wanted, row.truth, row.predicted) && (!find || row.path.toLowerCase().includes(find)));
    found.sort(ORDERS[wanted[ORDER]] || ORDERS.surest);
    title.replaceChildren(element("bdi", {}, heading(wanted)));
    const unknown = [wanted.truth, wanted.predicted].filter((one) => one !== null && one !== "" && !data.names.includes(one));
    byId("outcome-status").textContent = unknown.length ? `No image has the class ${short(shown(unknown[0]))}.`
      : find ? `${images(found.length)} of this page match.`
        : `${images(total)}${found.length < total ? `, ${number.format(found.length)} of them on this page` : ""}.`;
    byId("outcome-sheets").replaceChildren(...(found.length ? [page.sheet(found.slice(0, room).map(image))] : []));
    byId("more-outcomes").hidden = found.length <= room;
    byId("more-outcomes").textContent = `Show more (${number.format(found.length - room)} left)`;
  }
  function fillForm() {
    const wanted = filter.values;
    for (const name of ["truth", "predicted"]) byId(name).value = wanted[name] === null ? "any" : `class:${wanted[name]}`;
    byId("show").value = kind(wanted);
    pathField.value = wanted[PATH] || "";
    byId("outcome-order").value = ORDERS[wanted[ORDER]] ? wanted[ORDER] : "surest";
  }
  const isWithoutClass = data.cells.some((one) => one[1] === NONE);
  for (const name of ["truth", "predicted"]) {
    const options = [...new Set([...data.names, ...(isWithoutClass && name === "predicted" ? [""] : [])])];
    byId(name).append(element("option", { value: "any" }, "any"),
      ...options.map((one) => element("option", { value: `class:${one}` }, labelled(one).slice(0, 80))));
    byId(name).addEventListener("change", (event) => {
      change({ [name]: event.target.value === "any" ? null : event.target.value.slice(6), show: null });
      byId("show").value = kind(filter.values);
    });
  }
  byId("show").addEventListener("change", (event) => change({ show: event.target.value }));
  pathField.addEventListener("input", (event) => change({ [PATH]: event.target.value }));
  byId("outcome-order").addEventListener("change", (event) => change({ [ORDER]: event.target.value }));
  byId("outcome-filter").addEventListener("submit", (event) => event.preventDefault());
  byId("outcome-filter").addEventListener("reset", (event) => {
    event.preventDefault();
    change(Object.fromEntries(NAMES.map((name) => [name, null])));
    fillForm();
  });
  byId("more-outcomes").addEventListener("click", () => { room += 4 * PAGE; render(); });
  fillForm();
  render();
  // Others that sent the address meant these images.
  if (NAMES.some((name) => filter.values[name] !== null)) page.goTo(title.id);
})();
