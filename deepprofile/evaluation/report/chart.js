/* A chart of series over time on a canvas, with a line that shows the values of a day. */
const DAY = 86400000;
const MARGIN = { left: 58, right: 14, top: 12, bottom: 28 };

const dateOf = (day) => new Date(day * DAY).toISOString().slice(0, 10);

/* Round steps: at most n of them between low and high. */
function roundStep(low, high, n) {
  const raw = (high - low) / n, power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
}

/* First days of years, quarters or months, with their names. */
function timeTicks(first, last) {
  const span = last - first, months = span > 4200 ? 24 : span > 1100 ? 12 : span > 500 ? 6 : span > 200 ? 2 : 1;
  const begin = new Date(first * DAY), found = [];
  for (let i = 0; ; i += 1) {
    const month = (Math.floor(begin.getUTCMonth() / Math.min(months, 12)) * Math.min(months, 12)) + i * months;
    const day = Date.UTC(begin.getUTCFullYear(), month, 1) / DAY;
    if (day > last) return found;
    if (day >= first) found.push([day, dateOf(day).slice(0, months >= 12 ? 4 : 7)]);
  }
}

/* The reference and the subject first; lines are drawn in the opposite order. */
const readingOrder = (lines) => [lines[0], ...lines.slice(1).reverse()];

function makeChart(canvas, said) {
  let state = null, at = -1;

  function extent() {
    const { days, lines, from, to, step } = state;
    let low = Infinity, high = -Infinity;
    for (const line of lines) {
      if (!line.shown) continue;
      for (let i = from; i < to; i++) {
        const value = line.values[i];
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    if (!(low <= high)) [low, high] = [0, 0.5];
    const slack = Math.max((high - low) * 0.06, 0.005);
    return { low: low - slack, high: high + slack, first: days[from], last: days[to - 1] + step };
  }

  function draw() {
    if (!state) return;
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d"), box = extent();
    pen.scale(ratio, ratio);
    const across = (day) =>
      MARGIN.left + ((day - box.first) / (box.last - box.first)) * (width - MARGIN.left - MARGIN.right);
    const down = (value) =>
      height - MARGIN.bottom - ((value - box.low) / (box.high - box.low)) * (height - MARGIN.top - MARGIN.bottom);
    state.across = across;
    axes(pen, width, height, box, across, down);
    const middle = state.step / 2;
    for (const line of state.lines) if (line.shown) stroke(pen, line, across, down, middle);
    if (at >= 0) {
      const x = across(state.days[at] + middle);
      pen.strokeStyle = "#5b666b";
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(x, MARGIN.top);
      pen.lineTo(x, height - MARGIN.bottom);
      pen.stroke();
    }
  }

  function axes(pen, width, height, box, across, down) {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    pen.font = '12px "Source Sans 3", "Segoe UI", Arial, "DejaVu Sans", sans-serif';
    pen.fillStyle = "#5b666b";
    pen.strokeStyle = "#e6eaeb";
    pen.lineWidth = 1;
    const step = roundStep(box.low, box.high, 6), digits = Math.max(0, -Math.floor(Math.log10(step)));
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (let i = Math.ceil(box.low / step); i * step <= box.high; i++) {
      const y = Math.round(down(i * step)) + 0.5;
      pen.beginPath(); pen.moveTo(MARGIN.left, y); pen.lineTo(width - MARGIN.right, y); pen.stroke();
      pen.fillText((i * step).toFixed(digits).replace("-", "−"), MARGIN.left - 6, y);
    }
    pen.textAlign = "center";
    pen.textBaseline = "top";
    let free = -Infinity;
    for (const [day, name] of timeTicks(box.first, box.last)) {
      const x = Math.round(across(day)) + 0.5;
      pen.beginPath(); pen.moveTo(x, MARGIN.top); pen.lineTo(x, height - MARGIN.bottom + 4); pen.stroke();
      const half = pen.measureText(name).width / 2 + 6;
      if (x - half < free || x + half > width) continue;
      pen.fillText(name, x, height - MARGIN.bottom + 8);
      free = x + half;
    }
    pen.save();
    pen.translate(14, (height - MARGIN.bottom + MARGIN.top) / 2);
    pen.rotate(-Math.PI / 2);
    pen.textBaseline = "middle";
    pen.fillText("Soil moisture (m³ m⁻³)", 0, 0);
    pen.restore();
  }

  function stroke(pen, line, across, down, middle) {
    const { days, from, to, step } = state;
    pen.strokeStyle = pen.fillStyle = line.colour;
    if (line.dots) {
      const size = to - from > 1500 ? 1.2 : to - from > 500 ? 1.7 : 2.4;
      for (let i = from; i < to; i++) {
        if (Number.isNaN(line.values[i])) continue;
        pen.beginPath();
        pen.arc(across(days[i] + middle), down(line.values[i]), size, 0, 2 * Math.PI);
        pen.fill();
      }
      return;
    }
    pen.lineWidth = line.subject ? 1.8 : 1.2;
    pen.lineJoin = "round";
    pen.beginPath();
    let joined = false;
    for (let i = from; i < to; i++) {
      const value = line.values[i];
      if (Number.isNaN(value)) { joined = false; continue; }
      const alone = !joined && (i + 1 >= to || Number.isNaN(line.values[i + 1]));
      const x = across(days[i] + middle), y = down(value);
      if (!joined || days[i] - days[i - 1] > step) pen.moveTo(alone ? x - 1 : x, y);
      pen.lineTo(alone ? x + 1 : x, y);
      joined = true;
    }
    pen.stroke();
  }

  function say() {
    if (at < 0) return said("");
    const day = state.days[at], until = state.step > 1 ? ` to ${dateOf(day + state.step - 1)}` : "";
    const values = readingOrder(state.lines).filter((line) => line.shown).map((line) => {
      const value = line.values[at];
      return `${line.label} ${Number.isNaN(value) ? "–" : value.toFixed(3).replace("-", "−")}`;
    });
    said(`${dateOf(day)}${until}: ${values.join(", ")} m³ m⁻³`);
  }

  function move(to) {
    at = Math.min(Math.max(to, state.from), state.to - 1);
    draw();
    say();
  }

  canvas.addEventListener("pointermove", (event) => {
    if (!state) return;
    const x = event.clientX - canvas.getBoundingClientRect().left;
    let low = state.from, high = state.to - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (state.across(state.days[middle] + state.step) < x) low = middle + 1;
      else high = middle;
    }
    move(low);
  });
  canvas.addEventListener("pointerleave", () => { at = -1; draw(); say(); });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 }[event.key];
    if (!step || !state) return;
    event.preventDefault();
    move(at < 0 ? state.from : at + step);
  });
  new ResizeObserver(draw).observe(canvas);
  return { show(next) { state = next; at = -1; draw(); say(); }, draw };
}
