// Images on a map: drawn on a canvas, reached with the pointer and with the arrows. It is `page.map` for other parts.
page.map = (() => {
  const { byId, data, digits, element, number, shown, short, named, labelled, thumbnail, open } = page;
  const kind = data.map.kind;
  const groups = data.map.groups.map(([name, count]) => ({ name, count }));
  const points = data.map.points.map(([path, x, y, group, value, picture], place) => ({ path, x, y, group, value, picture, place }));
  const SIDE = 9999, STRETCH = 1.6, REACH = 18;

  // A turn by the golden angle keeps the colours of successive groups apart, three lightnesses those that come near again.
  let isDark = false;
  const hue = (group) => (group * 137.508 + 190) % 360;
  const colour = (group) => (isDark ? `oklch(${[0.72, 0.84, 0.63][group % 3]} 0.13 ${hue(group)})` : `oklch(${[0.55, 0.42, 0.64][group % 3]} 0.14 ${hue(group)})`);
  function swatch(group) {
    const made = element("span", { class: "swatch", "data-colour": group });
    made.style.background = colour(group);
    return made;
  }

  const groupName = (point) => {
    const { name } = groups[point.group];
    return kind === "cluster" ? `Cluster ${name}` : labelled(name);
  };
  // As `page.sheet` and `page.open` take it.
  const image = (point) => ({
    path: point.path,
    picture: point.picture,
    alt: `${short(groupName(point))}: ${short(shown(point.path))}`,
    caption: [element("span", { class: "name" }, swatch(point.group), short(groupName(point)))],
    details: () => element("p", { class: "about" }, named(point.path, "path"), element("span", {},
      kind === "cluster" ? `${groupName(point)}, ${digits(point.value)} from its centre` : `${short(groupName(point))}, ${digits(point.value)}`)),
  });

  const frame = byId("map-frame"), canvas = byId("map-canvas"), tip = byId("map-tip");
  const made = { points, groups, swatch, image, showOnly: () => () => true };
  if (!frame) return made;  // it has no points
  const context = canvas.getContext("2d");
  let wide = 0, tall = 0, scale = 1, middle = { x: SIDE / 2, y: SIDE / 2 };
  let matches = () => true, current = null, isHovering = false;
  const pictures = new Map();

  // Pixels a unit in both directions. Distances mean little, so a map may be stretched to fill its frame.
  let unit = { x: 1, y: 1 }, thumbnailSide = 46;
  function measure() {
    thumbnailSide = wide < 500 ? 34 : 46;
    const right = wide - thumbnailSide - 16, below = tall - thumbnailSide - 16, { height } = data.map;
    const even = Math.min(right, below / height);
    unit = { x: Math.min(right, STRETCH * even) / SIDE * scale, y: Math.min(below, STRETCH * even * height) / SIDE * scale };
  }
  const across = (point) => wide / 2 + (point.x - middle.x) * unit.x;
  const down = (point) => tall / 2 + (point.y - middle.y) * unit.y;
  const isVisible = (x, y, margin) => x > -margin && y > -margin && x < wide + margin && y < tall + margin;

  let waiting = false;
  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; drawNow(); });
  }
  function pictureOf(point) {
    if (typeof point.picture !== "number") return null;
    let found = pictures.get(point.picture);
    if (!found) {
      found = new Image();
      found.addEventListener("load", draw);
      found.src = "data:image/webp;base64," + data.thumbnails[point.picture];
      pictures.set(point.picture, found);
    }
    return found.complete && found.naturalWidth ? found : null;
  }
  function dot(point, radius, fill) {
    context.beginPath();
    context.arc(across(point), down(point), radius, 0, 2 * Math.PI);
    context.fillStyle = fill;
    context.fill();
  }
  function tileAt(point, side) {
    const found = pictureOf(point), x = across(point) - side / 2, y = down(point) - side / 2;
    context.fillStyle = colour(point.group);
    context.beginPath();
    context.roundRect(x - 2, y - 2, side + 4, side + 4, 6);
    context.fill();
    if (!found) return;
    context.save();
    context.beginPath();
    context.roundRect(x, y, side, side, 4);
    context.clip();
    context.drawImage(found, x, y, side, side);
    context.restore();
  }
  // Points come in the order of their weight; each picture that finds room between those before it is drawn.
  let tiles = [];
  function chooseTiles(inside) {
    const cells = new Map(), step = thumbnailSide + 8;
    tiles = [];
    for (const point of inside) {
      if (typeof point.picture !== "number") continue;
      const x = across(point), y = down(point), column = Math.floor(x / step), row = Math.floor(y / step);
      let isFree = true;
      for (let i = -1; i <= 1 && isFree; i++) {
        for (let j = -1; j <= 1 && isFree; j++) {
          const other = cells.get((column + i) * 10007 + row + j);
          if (other && Math.abs(other[0] - x) < step && Math.abs(other[1] - y) < step) isFree = false;
        }
      }
      if (!isFree) continue;
      cells.set(column * 10007 + row, [x, y]);
      tiles.push(point);
    }
  }
  function drawNow() {
    const dense = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(wide * dense) || canvas.height !== Math.round(tall * dense)) {
      canvas.width = Math.round(wide * dense);
      canvas.height = Math.round(tall * dense);
    }
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, wide, tall);
    const inView = points.filter((point) => isVisible(across(point), down(point), thumbnailSide));
    const inside = inView.filter(matches);
    const radius = Math.min(6, (points.length > 3000 ? 2 : 3) * Math.sqrt(scale));
    if (inside.length < inView.length) {
      const grey = isDark ? "#3a4047" : "#d2cfc8";
      for (const point of inView) if (!matches(point)) dot(point, radius * 0.8, grey);
    }
    for (let place = inside.length - 1; place >= 0; place--) dot(inside[place], radius, colour(inside[place].group));
    tiles = [];
    if (byId("map-pictures").checked) {
      chooseTiles(inside);
      for (let place = tiles.length - 1; place >= 0; place--) tileAt(tiles[place], thumbnailSide);
    }
    if (current) {
      const size = tiles.includes(current) ? thumbnailSide / 2 + 5 : radius + 4;
      context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
      context.lineWidth = 3;
      context.beginPath();
      if (tiles.includes(current)) {
        tileAt(current, thumbnailSide);
        context.beginPath();
        context.roundRect(across(current) - size, down(current) - size, 2 * size, 2 * size, 8);
      } else context.arc(across(current), down(current), size, 0, 2 * Math.PI);
      context.stroke();
    }
    placeTip();
  }

  function placeTip() {
    const isShown = current !== null && isVisible(across(current), down(current), 0);
    tip.hidden = !isShown;
    if (!isShown) return;
    const gap = 34, x = across(current), y = down(current);
    const left = Math.max(6, Math.min(wide - tip.offsetWidth - 6, x - tip.offsetWidth / 2));
    const isAbove = y - gap - tip.offsetHeight > 6 || y > tall / 2;
    tip.style.left = `${left}px`;
    tip.style.top = `${isAbove ? Math.max(6, y - gap - tip.offsetHeight) : Math.min(tall - tip.offsetHeight - 6, y + gap)}px`;
  }
  function choose(point, announces) {
    if (point === current) return;
    current = point;
    if (point) {
      tip.replaceChildren(thumbnail(point.picture, ""), element("strong", {}, swatch(point.group), short(groupName(point))), named(point.path, "where"));
    }
    if (announces) byId("map-status").textContent = point ? `${short(groupName(point))}: ${short(shown(point.path))}` : summary();
    frame.classList.toggle("pointing", point !== null && isHovering);
    draw();
  }
  function summary() {
    const found = points.reduce((sum, point) => sum + (matches(point) ? 1 : 0), 0);
    return found === points.length ? "" : `${number.format(found)} of ${number.format(points.length)} images on the map match the filter.`;
  }

  function clampView() {
    for (const axis of ["x", "y"]) middle[axis] = Math.max(0, Math.min(SIDE, middle[axis]));
    frame.classList.toggle("zoomed", scale > 1);
    byId("zoom-out").disabled = byId("zoom-all").disabled = scale <= 1;
    byId("zoom-in").disabled = scale >= 64;
  }
  // What is at (x, y) stays there.
  function zoom(factor, x = wide / 2, y = tall / 2) {
    const before = { x: middle.x + (x - wide / 2) / unit.x, y: middle.y + (y - tall / 2) / unit.y };
    scale = Math.max(1, Math.min(64, scale * factor));
    measure();
    if (scale === 1) middle = { x: SIDE / 2, y: SIDE / 2 };
    else middle = { x: before.x - (x - wide / 2) / unit.x, y: before.y - (y - tall / 2) / unit.y };
    clampView();
    draw();
  }
  function zoomBy(factor) {
    if (current) zoom(factor, across(current), down(current));
    else zoom(factor);
  }
  function bringIntoView(point) {
    if (scale === 1) return;  // all of the map is there
    const x = across(point), y = down(point), edge = thumbnailSide;
    if (x < edge || x > wide - edge || y < edge || y > tall - edge) middle = { x: point.x, y: point.y };
    clampView();
  }

  // The nearest image in a direction: one beside the way counts as farther.
  function towards(right, below) {
    if (!current) {
      const inside = points.filter(matches);
      const far = (point) => (across(point) - wide / 2) ** 2 + (down(point) - tall / 2) ** 2;
      return inside.length ? inside.reduce((best, point) => (far(point) < far(best) ? point : best)) : null;
    }
    let best = null, least = Infinity;
    for (const point of points) {
      const x = across(point) - across(current), y = down(point) - down(current);
      const along = x * right + y * below, beside = Math.abs(x * below) + Math.abs(y * right);
      if (along <= 0 || beside > along || point === current || !matches(point)) continue;
      const far = along + 2 * beside;
      if (far < least) [best, least] = [point, far];
    }
    return best;
  }
  const STEPS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = STEPS[event.key];
    if (step) {
      const found = towards(...step);
      isHovering = false;
      if (found) { bringIntoView(found); choose(found, true); }
    } else if (event.key === "+" || event.key === "=") zoomBy(1.6);
    else if (event.key === "-") zoomBy(1 / 1.6);
    else if (event.key === "0") zoom(0);
    else if (event.key === "Home") { const found = points.find(matches); if (found) { bringIntoView(found); choose(found, true); } }
    else if (event.key === "Enter" && current) open(image(current));
    else if (event.key === "Escape" && current) choose(null, true);
    else return;
    event.preventDefault();
  }

  function under(x, y) {
    for (const point of tiles) {
      if (Math.abs(across(point) - x) <= thumbnailSide / 2 && Math.abs(down(point) - y) <= thumbnailSide / 2) return point;
    }
    let best = null, least = REACH ** 2;
    for (const point of points) {
      const far = (across(point) - x) ** 2 + (down(point) - y) ** 2;
      if (far < least && matches(point)) [best, least] = [point, far];
    }
    return best;
  }
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  let drag = null;
  frame.addEventListener("pointerdown", (event) => {
    if (event.button === 0) drag = { x: event.clientX, y: event.clientY, from: { ...middle }, moved: false };
  });
  frame.addEventListener("pointermove", (event) => {
    if (!drag) {
      isHovering = true;
      return choose(under(...at(event)), false);
    }
    const x = event.clientX - drag.x, y = event.clientY - drag.y;
    if (!drag.moved && Math.hypot(x, y) < 5) return;
    if (!drag.moved) frame.setPointerCapture(event.pointerId);
    drag.moved = true;
    middle = { x: drag.from.x - x / unit.x, y: drag.from.y - y / unit.y };
    clampView();
    draw();
  });
  frame.addEventListener("pointerup", (event) => {
    const clicked = drag && !drag.moved;
    drag = null;
    if (!clicked) return;
    const point = under(...at(event));
    choose(point, true);
    if (point && event.pointerType === "mouse") open(image(point));
  });
  frame.addEventListener("pointercancel", () => { drag = null; });
  frame.addEventListener("pointerleave", () => {
    if (isHovering && !drag && !byId("detail").open) choose(null, false);
    isHovering = false;
  });
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), ...at(event));
  }, { passive: false });
  tip.addEventListener("pointerdown", (event) => event.stopPropagation());
  tip.addEventListener("click", () => current && open(image(current)));
  frame.addEventListener("keydown", press);
  frame.addEventListener("blur", () => { if (!byId("detail").open) choose(null, true); });
  byId("zoom-in").addEventListener("click", () => zoom(1.6));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 1.6));
  byId("zoom-all").addEventListener("click", () => zoom(0));
  byId("map-pictures").addEventListener("change", draw);

  const scheme = matchMedia("(prefers-color-scheme: dark)");
  function recolour(dark) {
    isDark = dark;
    for (const one of document.querySelectorAll(".swatch")) one.style.background = colour(Number(one.dataset.colour));
    drawNow();
  }
  new ResizeObserver(() => {
    wide = frame.clientWidth;
    tall = frame.clientHeight;
    measure();
    draw();
  }).observe(frame);
  [wide, tall] = [frame.clientWidth, frame.clientHeight];
  measure();
  isDark = scheme.matches;
  scheme.addEventListener("change", () => recolour(scheme.matches));
  addEventListener("beforeprint", () => recolour(false));
  addEventListener("afterprint", () => recolour(scheme.matches));

  const LEGEND = 40;
  byId("map-legend").append(...groups.slice(0, LEGEND).map((group, place) => element("li", {},
    element("a", { href: `#${kind}=${encodeURIComponent(group.name)}`, "data-group": group.name },
      swatch(place), named(kind === "cluster" ? group.name : labelled(group.name)), element("span", { class: "value" }, number.format(group.count))))));
  if (groups.length > LEGEND) byId("map-legend").append(element("li", { class: "note" }, `and ${number.format(groups.length - LEGEND)} more`));

  clampView();
  // Shows only the points of a group, by its name, with a text in their paths, and values from one number to another;
  // returns the test whether a point is shown.
  made.showOnly = ({ group = null, path = null, low = null, high = null }) => {
    const text = (path || "").toLowerCase();
    matches = (point) => (group === null || groups[point.group].name === group) && (!text || point.path.toLowerCase().includes(text))
      && (low === null || (point.value !== null && point.value >= low)) && (high === null || (point.value !== null && point.value <= high));
    if (current && !matches(current)) choose(null, false);
    for (const one of byId("map-legend").querySelectorAll("a")) {
      if (one.dataset.group === group) one.setAttribute("aria-current", "true");
      else one.removeAttribute("aria-current");
    }
    byId("map-status").textContent = summary();
    draw();
    return matches;
  };
  draw();
  made.at = (point) => ({ x: across(point), y: down(point) });
  return made;
})();
if (page.filterMap) page.filterMap();
