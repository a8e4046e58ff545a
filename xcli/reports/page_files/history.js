// The history of a fine-tuning: loss and accuracy by epoch.
(() => {
  const { byId, drawn, element, named, short, shown } = page;
  const { epochs, kept } = page.data.history;
  const LOSS = 3, ACCURACY = 4, VALIDATION = 2; // places in an epoch; those of validation are so much further
  const decimals = (value, count) => (value === null ? "–" : value.toFixed(count));

  function curves(figure, caption, place) {
    const width = 480, height = 260, side = { left: 40, right: 10, top: 26, bottom: 24 };
    const series = [["training", "training", place], ["validation", "validation", place + VALIDATION]]
      .filter(([, , at]) => epochs.some((one) => one[at] !== null));
    const values = series.flatMap(([, , at]) => epochs.map((one) => one[at])).filter((one) => one !== null);
    if (!values.length) return;
    const least = Math.min(...values), most = Math.max(...values), margin = (most - least) * 0.06 || 0.05;
    const low = Math.max(0, least - margin), high = place === LOSS ? most + margin : Math.min(1, most + margin);
    const x = (at) => side.left + ((at + 0.5) / epochs.length) * (width - side.left - side.right);
    const y = (value) => height - side.bottom - ((value - low) / (high - low)) * (height - side.top - side.bottom);
    const last = (at) => [...epochs].reverse().find((one) => one[at] !== null);
    const label = `${caption} by epoch: ` + series.map(([name, , at]) => `${name} ${decimals(last(at)[at], 3)} at the end`).join(", ");
    const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    epochs.forEach((one, at) => {
      if (at && one[0] === epochs[at - 1][0]) return;
      const begin = x(at) - (x(1) - x(0)) / 2;
      if (at) picture.append(drawn("line", { class: "phase", x1: begin, x2: begin, y1: 6, y2: height - side.bottom }));
      picture.append(drawn("text", { x: begin + 4, y: 14 }, short(shown(one[0])).slice(0, 24)));
    });
    for (let step = 0; step <= 4; step += 1) {
      const value = low + (step / 4) * (high - low);
      picture.append(drawn("line", { x1: side.left, x2: width - side.right, y1: y(value), y2: y(value) }),
        drawn("text", { x: side.left - 5, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(2)));
    }
    const every = Math.ceil(epochs.length / 10);
    epochs.forEach((_, at) => {
      if (at % every === 0) picture.append(drawn("text", { x: x(at), y: height - 6, "text-anchor": "middle" }, String(at + 1)));
    });
    for (const [name, kind, at] of series) {
      const points = epochs.map((one, epoch) => (one[at] === null ? null : `${x(epoch).toFixed(1)},${y(one[at]).toFixed(1)}`)).filter(Boolean);
      picture.append(drawn("polyline", { class: `curve ${kind}`, points: points.join(" ") }, drawn("title", {}, name)));
      if (points.length <= 40) points.forEach((point) => picture.append(drawn("circle", { class: kind, cx: point.split(",")[0], cy: point.split(",")[1], r: 2.5 })));
    }
    if (kept && epochs[kept - 1][place + VALIDATION] !== null) {
      picture.append(drawn("circle", { class: "kept", cx: x(kept - 1), cy: y(epochs[kept - 1][place + VALIDATION]), r: 6 }));
    }
    figure.append(picture, element("p", { class: "note legend" }, ...series.flatMap(([name, kind]) => [element("span", { class: `key ${kind}` }), `${name} `]),
      ...(kept ? [element("span", { class: "key kept" }), "kept"] : [])));
  }
  curves(byId("loss-chart"), "Loss", LOSS);
  curves(byId("accuracy-chart"), "Accuracy", ACCURACY);
  byId("epoch-rows").append(...epochs.map(([phase, epoch, rate, loss, accuracy, valLoss, valAccuracy, seconds], at) => element("tr", {},
    element("td", {}, named(phase), at + 1 === kept ? " (kept)" : ""), ...[String(epoch), rate === null ? "–" : rate.toExponential(2),
      decimals(loss, 4), decimals(accuracy, 4), decimals(valLoss, 4), decimals(valAccuracy, 4), decimals(seconds, 1)].map((one) => element("td", {}, one)))));
})();
