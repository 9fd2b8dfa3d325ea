/* The map of cells and the chart of a cell, driven by the data in the page. */
const REFERENCE_COLOUR = "#6e6e6e";

async function stations(figure) {
  const data = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
  const part = (name) => figure.querySelector(`[data-part=${name}]`);
  const choice = (name) => figure.querySelector(`[data-choice=${name}]`);
  const say = (name, text) => { part(name).textContent = text; };
  if (typeof DecompressionStream === "undefined") {
    return say("place", "The map needs a browser of 2023 or later.");
  }
  const n = data.estimates.length, rows = await decodeRows(data.values, n * data.series.length);
  const byCell = data.cells.row.map(() => []);
  data.series.forEach(([cell], at) => byCell[cell].push(at));
  const lengthOfKept = data.kept.length + 1;
  let open = -1, shown = null;
  const hidden = new Set();

  const fill = (select, texts, chosen = 0) => {
    select.replaceChildren(...texts.map((text, i) => new Option(text, i, i === chosen, i === chosen)));
    select.disabled = texts.length < 2;
  };
  fill(choice("reference"), data.references);
  fill(choice("estimate"), data.estimates.map((estimate) => estimate.label));
  fill(choice("group"), data.groups, data.first);
  fill(choice("metric"), data.metrics.map((metric) => metric.label));
  fill(choice("scale"), ["for this map", "the same for all estimates"]);
  const titles = data.cells.row.map((row, i) => {
    const text = data.cells.text[i];
    return `Row ${row}, column ${data.cells.column[i]}${text ? ` (${text})` : ""}`;
  });
  fill(choice("cell"), titles);
  for (const box of figure.querySelectorAll("[hidden]"))
    if (!box.classList.contains("cell")) box.hidden = false;

  const at = (name) => +choice(name).value;
  const format = (value, digits) => Number.isNaN(value) ? "–" : value.toFixed(digits).replace("-", "−");

  function valueOf(cell, estimate = at("estimate")) {
    let sum = 0, count = 0;
    for (const index of byCell[cell]) {
      const [, reference, group] = data.series[index];
      const value = rows[at("metric")][index * n + estimate];
      if (reference === at("reference") && group === at("group") && !Number.isNaN(value)) {
        sum += value;
        count += 1;
      }
    }
    return count ? sum / count : NaN;
  }

  function pointed(cell) {
    const metric = data.metrics[at("metric")], value = valueOf(cell);
    const { latitude, longitude } = data.cells;
    const place = `${Math.abs(latitude[cell]).toFixed(2)}° ${latitude[cell] >= 0 ? "N" : "S"}, ` +
      `${Math.abs(longitude[cell]).toFixed(2)}° ${longitude[cell] >= 0 ? "E" : "W"}`;
    say("place", `${titles[cell]}, ${place}: ${metric.label} ${format(value, metric.digits)}`);
  }

  const map = makeMap(figure.querySelector("svg"), data, choose, pointed);

  /* From the 2nd to the 98th percentile, even about 0 where colours diverge. */
  function limits(diverging) {
    const chosen = at("scale") ? data.estimates.keys() : [at("estimate")];
    const found = [...chosen].flatMap((estimate) => byCell.map((_, cell) => valueOf(cell, estimate)));
    const sorted = found.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
    if (!sorted.length) return [0, 1];
    const quantile = (share) => sorted[Math.round(share * (sorted.length - 1))];
    const low = quantile(0.02), high = quantile(0.98), most = Math.max(-low, high, 0.001);
    return diverging ? [-most, most] : [low, Math.max(high, low + 0.001)];
  }

  function paint() {
    const metric = data.metrics[at("metric")], shades = data.shades[metric.shades];
    const values = byCell.map((_, cell) => valueOf(cell));
    const [low, high] = limits(metric.shades === "RdBu");
    map.paint(values.map((value) => {
      if (Number.isNaN(value)) return "";
      const place = (value - low) / (high - low);
      return shades[Math.min(Math.max(Math.floor(place * shades.length), 0), shades.length - 1)];
    }));
    const bar = figure.querySelector(".bar"), box = (name, text = "") => {
      const made = document.createElement("span");
      made.className = name;
      made.textContent = text;
      return made;
    };
    const there = values.filter((value) => !Number.isNaN(value)).length;
    const strip = box("shades");
    strip.style.background = `linear-gradient(to right, ${shades.join(", ")})`;
    bar.replaceChildren(
      box("title", `${metric.label}, ${there} cells`), strip,
      box("low", `≤ ${format(low, metric.digits)}`),
      box("middle", format((low + high) / 2, metric.digits)),
      box("high", `≥ ${format(high, metric.digits)}`));
  }

  function choose(cell) {
    open = cell;
    choice("cell").value = cell;
    map.open(cell);
    pointed(cell);
    figure.querySelector(".cell").hidden = false;
    figure.querySelector("h3").textContent = titles[cell];
    say("more", data.cells.more[cell]);
    const mine = byCell[cell];
    const wanted = mine.findIndex((index) =>
      data.series[index][1] === at("reference") && data.series[index][2] === at("group"));
    fill(choice("series"), mine.map((index) => {
      const [, reference, group, compared] = data.series[index];
      const name = `${data.groups[group]}, ${compared}`;
      return data.references.length > 1 ? `${data.references[reference]}: ${name}` : name;
    }), Math.max(wanted, 0));
    showSeries();
  }

  const chart = makeChart(figure.querySelector("canvas"), (text) => say("day", text));

  async function showSeries() {
    const index = byCell[open][at("series")], series = data.series[index], canvas = figure.querySelector("canvas");
    skillTable(index);
    canvas.hidden = !series[4];
    figure.querySelector(".lines").hidden = choice("period").parentElement.hidden = !series[4];
    if (!series[4]) return say("day", "The series of this cell is not in this page.");
    const { days, step, texts } = data.packed, cell = open;
    const decoded = await decodeRows(texts[cell], days.length);
    if (cell !== open || index !== byCell[open][at("series")]) return;
    const kept = byCell[cell].filter((other) => data.series[other][4]), first = kept.indexOf(index) * lengthOfKept;
    const lines = [{
      key: "reference", label: data.references[series[1]], colour: REFERENCE_COLOUR, dots: true,
      values: decoded[first],
    }];
    data.kept.forEach((estimate, i) => {
      const values = decoded[first + 1 + i];
      if (estimate < 0 || !values.some((value) => !Number.isNaN(value))) return;
      lines.push({ ...data.estimates[estimate], key: estimate, subject: estimate === 0, values });
    });
    lines.sort((a, b) => (b.key === "reference") - (a.key === "reference") || b.key - a.key);
    shown = { days, step, lines };
    periods();
    toggles();
    update();
  }

  function periods() {
    const { days, lines } = shown, years = new Set();
    days.forEach((day, i) => { if (!Number.isNaN(lines[0].values[i])) years.add(dateOf(day).slice(0, 4)); });
    const names = ["all", ...[...years].sort()], before = choice("period").selectedOptions[0]?.textContent;
    fill(choice("period"), names, Math.max(names.indexOf(before), 0));
  }

  function toggles() {
    figure.querySelector(".lines").replaceChildren(...readingOrder(shown.lines).map((line) => {
      const row = document.createElement("label"), tick = document.createElement("input"), mark = document.createElement("i");
      tick.type = "checkbox";
      tick.checked = !hidden.has(line.key);
      tick.addEventListener("change", () => {
        if (tick.checked) hidden.delete(line.key);
        else hidden.add(line.key);
        update();
      });
      mark.style.background = line.colour;
      mark.className = line.dots ? "dot" : "";
      row.append(tick, mark, line.label);
      return row;
    }));
  }

  function update() {
    const { days, lines } = shown, year = choice("period").selectedOptions[0].textContent;
    let from = 0, to = days.length;
    const inside = (i) => year === "all" ? !Number.isNaN(lines[0].values[i]) : dateOf(days[i]).startsWith(year);
    while (from < to - 1 && !inside(from)) from += 1;
    while (to > from + 1 && !inside(to - 1)) to -= 1;
    for (const line of lines) line.shown = !hidden.has(line.key);
    chart.show({ ...shown, from, to });
  }

  function skillTable(index) {
    const table = figure.querySelector(".skill"), days = rows[data.metrics.length];
    const line = (tag, texts) => {
      const row = document.createElement("tr");
      row.append(...texts.map((text, i) => {
        const cell = document.createElement(tag);
        cell.textContent = text;
        if (i) cell.className = "number";
        return cell;
      }));
      return row;
    };
    const found = data.estimates.flatMap((estimate, i) => {
      const count = days[index * n + i];
      if (Number.isNaN(count)) return [];
      const values = data.metrics.map((metric, m) => format(rows[m][index * n + i], metric.digits));
      return [line("td", [estimate.label, format(count * 10000, 0), ...values])];
    });
    table.replaceChildren(line("th", ["Estimate", "Days", ...data.metrics.map((metric) => metric.label.replace(" (dimensionless)", ""))]), ...found);
  }

  for (const name of ["reference", "estimate", "group", "metric", "scale"]) {
    choice(name).addEventListener("change", () => {
      paint();
      if (open >= 0 && (name === "group" || name === "reference")) choose(open);
      else if (open >= 0) pointed(open);
    });
  }
  choice("cell").addEventListener("change", () => choose(at("cell")));
  choice("series").addEventListener("change", showSeries);
  choice("period").addEventListener("change", update);
  for (const button of figure.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => map.zoomBy(+button.dataset.zoom));
  paint();
  const ranked = byCell.map((_, cell) => cell).filter((cell) => !Number.isNaN(valueOf(cell)));
  ranked.sort((a, b) => valueOf(a) - valueOf(b));
  choose(ranked.length ? ranked[ranked.length >> 1] : 0);
}

const figureOfStations = document.getElementById("stations");
if (figureOfStations) stations(figureOfStations);
