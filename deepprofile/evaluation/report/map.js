/* A map of points on the plane of the EASE-2 grid: zoom, pan, and a cell chosen by pointer or key. */
const SVG = "http://www.w3.org/2000/svg";
const FIRST_LATITUDE = -84;

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function makeMap(svg, data, chosen, pointed) {
  const { x, y } = data.cells, [west, east, south, north] = data.window;
  const shape = Math.min(Math.max((north - south) / (east - west), 0.3), 0.75);
  const radius = x.length > 400 ? 4 : 6;
  let width = 0, height = 0, fit = 1, zoom = 1, middle = [(west + east) / 2, (south + north) / 2];
  let active = -1, open = -1, colours = [];

  const back = element("g", {}), points = element("g", {}), front = element("g", {});
  svg.append(back, points, front);
  const circles = x.map((_, i) => {
    const circle = element("circle", { r: radius, "data-cell": i });
    points.append(circle);
    return circle;
  });

  const scale = () => fit * zoom;
  const across = (metres) => width / 2 + (metres - middle[0]) * scale();
  const down = (metres) => height / 2 - (metres - middle[1]) * scale();

  function measure() {
    width = svg.clientWidth || 900;
    height = Math.round(width * shape);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.style.height = `${height}px`;
    fit = Math.min(width / (east - west), height / (north - south));
    draw();
  }

  function latitude(metres) {
    const table = data.latitudes;
    if (metres <= table[0]) return FIRST_LATITUDE;
    for (let i = 1; i < table.length; i++) {
      if (metres <= table[i])
        return FIRST_LATITUDE + i - 1 + (metres - table[i - 1]) / (table[i] - table[i - 1]);
    }
    return -FIRST_LATITUDE;
  }

  function northing(degrees) {
    const at = Math.min(Math.max(degrees - FIRST_LATITUDE, 0), data.latitudes.length - 1);
    const low = Math.floor(at), next = Math.min(low + 1, data.latitudes.length - 1);
    return data.latitudes[low] + (at - low) * (data.latitudes[next] - data.latitudes[low]);
  }

  function ticks(low, high) {
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60].find((s) => (high - low) / s <= 7) || 60;
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(+(i * step).toFixed(1));
    return found;
  }

  const named = (value, signs) => `${Math.abs(value)}° ${value >= 0 ? signs[0] : signs[1]}`;

  function drawBack() {
    back.replaceChildren();
    if (data.land) {
      const [left, right, bottom, top] = data.land.edges;
      back.append(element("image", {
        href: data.land.image, x: across(left), y: down(top), preserveAspectRatio: "none",
        width: (right - left) * scale(), height: (top - bottom) * scale(),
      }));
    }
    const half = [width / 2 / scale(), height / 2 / scale()], degree = data.limits[0] / 180;
    const lines = element("path", { class: "graticule" }), texts = [];
    let path = "";
    for (const value of ticks((middle[0] - half[0]) / degree, (middle[0] + half[0]) / degree)) {
      path += `M${across(value * degree).toFixed(1)} 0V${height}`;
      texts.push(element("text", { x: across(value * degree) + 3, y: height - 5 }, named(value, "EW")));
    }
    for (const value of ticks(latitude(middle[1] - half[1]), latitude(middle[1] + half[1]))) {
      const at = down(northing(value));
      path += `M0 ${at.toFixed(1)}H${width}`;
      texts.push(element("text", { x: 4, y: at - 4 }, named(value, "NS")));
    }
    lines.setAttribute("d", path);
    back.append(lines, ...texts);
  }

  function ring(i, kind) {
    const place = { cx: across(x[i]), cy: down(y[i]), r: radius + 3 };
    front.append(element("circle", { ...place, class: "halo" }));
    front.append(element("circle", { ...place, class: "ring", "stroke-dasharray": kind }));
  }

  function draw() {
    drawBack();
    circles.forEach((circle, i) => {
      circle.setAttribute("cx", across(x[i]).toFixed(1));
      circle.setAttribute("cy", down(y[i]).toFixed(1));
      circle.setAttribute("class", colours[i] ? "" : "empty");
      circle.style.fill = colours[i] || "";
    });
    front.replaceChildren();
    if (open >= 0) ring(open, "none");
    if (active >= 0 && active !== open) ring(active, "3 2");
  }

  function zoomBy(factor, at = [width / 2, height / 2]) {
    const before = [middle[0] + (at[0] - width / 2) / scale(), middle[1] - (at[1] - height / 2) / scale()];
    zoom = factor ? Math.min(Math.max(zoom * factor, 0.8), 400) : 1;
    middle = factor
      ? [before[0] - (at[0] - width / 2) / scale(), before[1] + (at[1] - height / 2) / scale()]
      : [(west + east) / 2, (south + north) / 2];
    draw();
  }

  function activate(i) {
    active = i;
    const place = [across(x[i]), down(y[i])];
    if (place[0] < 20 || place[0] > width - 20 || place[1] < 20 || place[1] > height - 20)
      middle = [x[i], y[i]];
    draw();
    pointed(i);
  }

  /* The nearest cell within 60 degrees of a direction; those aside count as further off. */
  function next(direction) {
    const from = active >= 0 ? active : Math.max(open, 0);
    let best = -1, least = Infinity;
    for (let i = 0; i < x.length; i++) {
      const step = [x[i] - x[from], y[i] - y[from]];
      const along = step[0] * direction[0] + step[1] * direction[1];
      const aside = Math.abs(step[0] * direction[1]) + Math.abs(step[1] * direction[0]);
      if (along <= 0 || aside > 1.75 * along) continue;
      if (along + 2 * aside < least) [best, least] = [i, along + 2 * aside];
    }
    return best;
  }

  const place = () => active >= 0 ? [across(x[active]), down(y[active])] : [width / 2, height / 2];
  const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  svg.addEventListener("keydown", (event) => {
    const direction = DIRECTIONS[event.key];
    if (direction) {
      const found = active < 0 ? Math.max(open, 0) : next(direction);
      if (found >= 0) activate(found);
    } else if (event.key === "Enter" || event.key === " ") {
      if (active >= 0) chosen(active);
    } else if (event.key === "+" || event.key === "=") zoomBy(1.6, place());
    else if (event.key === "-") zoomBy(0.625, place());
    else if (event.key === "0") zoomBy(0);
    else return;
    event.preventDefault();
  });

  const local = (event) => {
    const box = svg.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  svg.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 400), local(event));
  }, { passive: false });

  let drag = null;
  svg.addEventListener("pointerdown", (event) => {
    drag = { at: local(event), middle, moved: false, cell: event.target.dataset.cell };
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    const at = local(event);
    if (drag) {
      const step = [at[0] - drag.at[0], at[1] - drag.at[1]];
      if (!drag.moved && Math.hypot(...step) < 4) return;
      drag.moved = true;
      svg.classList.add("moving");
      middle = [drag.middle[0] - step[0] / scale(), drag.middle[1] + step[1] / scale()];
      draw();
    } else if (event.target.dataset.cell !== undefined) pointed(+event.target.dataset.cell);
  });
  svg.addEventListener("pointerup", () => {
    if (drag && !drag.moved && drag.cell !== undefined) chosen(+drag.cell);
    drag = null;
    svg.classList.remove("moving");
  });
  svg.addEventListener("pointercancel", () => { drag = null; });
  new ResizeObserver(() => { if (svg.clientWidth && svg.clientWidth !== width) measure(); }).observe(svg);
  measure();
  return {
    paint(list) { colours = list; draw(); },
    open(i) { open = i; active = i; draw(); },
    zoomBy,
  };
}
