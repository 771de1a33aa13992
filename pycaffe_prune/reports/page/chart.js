// Charts: values at a marker, arrow keys, zoom. Everything is placed again from data-u and data-v.
const SVG = "http://www.w3.org/2000/svg";
const numbers = (text) => text.trim().split(/[ ,]+/).map(Number);

function readable(value) {
  for (const [factor, sign] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (value >= factor) return +(value / factor).toPrecision(4) + sign;
  return String(+value.toPrecision(4));
}

function evenTicks([low, high], count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((size) => size * power).find((size) => size >= rough);
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++)
    found.push(index * step);
  return found.map((value) => [value, String(+value.toPrecision(6))]);
}

function logTicks([low, high]) {
  if (high - low < 0.7)
    return evenTicks([10 ** low, 10 ** high], 5).map(([value]) => [Math.log10(value), readable(value)]);
  const found = [];
  for (let power = Math.floor(low); power <= high; power++)
    for (const step of high - low < 2.2 ? [1, 2, 5] : [1]) {
      const at = power + Math.log10(step);
      if (at >= low && at <= high) found.push([at, readable(10 ** at)]);
    }
  return found;
}

function startChart(figure) {
  const svg = figure.querySelector(".chart"), readout = figure.querySelector(".readout");
  const points = [...figure.querySelectorAll(".point")];
  const lines = [...svg.querySelectorAll("polyline")], ticks = svg.querySelector(".ticks");
  const box = svg.querySelector(".box");
  const [left, top, right, bottom] = numbers(svg.dataset.frame);
  const start = { x: numbers(svg.dataset.x), y: numbers(svg.dataset.y) };
  let view = start, current = null;

  const within = (value, [low, high]) => value >= low && value <= high;
  const toX = (u) => left + (u - view.x[0]) / (view.x[1] - view.x[0]) * (right - left);
  const toY = (v) => bottom - (v - view.y[0]) / (view.y[1] - view.y[0]) * (bottom - top);
  const toU = (x) => view.x[0] + (x - left) / (right - left) * (view.x[1] - view.x[0]);
  const toV = (y) => view.y[0] + (bottom - y) / (bottom - top) * (view.y[1] - view.y[0]);
  const valueOf = (point) => [Number(point.dataset.u ?? view.x[0]), Number(point.dataset.v)];

  function draw() {
    svg.classList.toggle("zoomed", view !== start);
    for (const point of points) {
      const [u, v] = valueOf(point);
      const x = point.dataset.u === undefined ? 0 : toX(u);
      point.setAttribute("transform", `translate(${x.toFixed(2)} ${toY(v).toFixed(2)})`);
      point.classList.toggle("out", !(within(u, view.x) && within(v, view.y)));
      const whisker = point.querySelector(".whisker");
      if (whisker) {
        const [low, high] = numbers(whisker.dataset.spread)
          .map((end) => toY(Math.min(Math.max(end, view.y[0]), view.y[1])) - toY(v));
        whisker.setAttribute("d", `M0,${low.toFixed(2)} V${high.toFixed(2)}`);
      }
    }
    for (const line of lines) {
      const flat = numbers(line.dataset.values), pairs = [];
      for (let index = 0; index + 1 < flat.length; index += 2)
        pairs.push(`${toX(flat[index]).toFixed(2)},${toY(flat[index + 1]).toFixed(2)}`);
      line.setAttribute("points", pairs.join(" "));
    }
    drawTicks();
    enter();
  }

  function drawTicks() {
    const made = [];
    const add = (name, attributes, text) => {
      const element = document.createElementNS(SVG, name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      if (text !== undefined) element.textContent = text;
      made.push(element);
    };
    const along = "logarithmic" in svg.dataset ? logTicks(view.x) : evenTicks(view.x, 10);
    for (const [u, label] of along) {
      const x = toX(u).toFixed(2);
      add("path", { class: "grid", d: `M${x},${top} V${bottom}` });
      add("text", { x, y: bottom + 32, "text-anchor": "middle" }, label);
    }
    for (const [v, label] of evenTicks(view.y, 10)) {
      const y = toY(v).toFixed(2);
      add("path", { class: "grid", d: `M${left},${y} H${right}` });
      add("text", { x: left - 10, y, dy: "0.35em", "text-anchor": "end" }, label);
    }
    ticks.replaceChildren(...made);
  }

  // One stop for the Tab key: the current marker, or the first that is in view
  function enter() {
    const seen = points.filter((point) => !point.classList.contains("out"));
    const stop = seen.includes(current) ? current : seen[0];
    for (const point of points) point.tabIndex = point === stop ? 0 : -1;
  }

  function show(point) {
    current = point;
    readout.textContent = point.getAttribute("aria-label");
  }

  function look(x, y) {
    view = { x, y };
    draw();
  }

  function zoom(factor) {
    const middle = ([low, high]) => (low + high) / 2;
    const shown = current && current.dataset.u !== undefined && !current.classList.contains("out");
    const [u, v] = shown ? valueOf(current) : [middle(view.x), middle(view.y)];
    const around = (at, [low, high]) => [at - (at - low) * factor, at + (high - at) * factor];
    look(around(u, view.x), around(v, view.y));
  }

  function showAll() {
    const values = points.map(valueOf), spread = (list, margin) => {
      const low = Math.min(...list), high = Math.max(...list);
      const more = Math.max((high - low) * 0.05, margin);
      return [low - more, high + more];
    };
    const placed = points.filter((point) => point.dataset.u !== undefined).map(valueOf);
    if (placed.length)
      look(spread(placed.map(([u]) => u), 0.05), spread(values.map(([, v]) => v), 0.2));
  }

  const actions = {
    in: () => zoom(0.5), out: () => zoom(2), all: showAll,
    start: () => { view = start; draw(); },
  };
  for (const element of figure.querySelectorAll(".zoom")) element.hidden = false;
  for (const button of figure.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => actions[button.dataset.zoom]());

  points.forEach((point, index) => {
    point.addEventListener("focus", () => { show(point); enter(); });
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("pointerdown", () => show(point));
    point.addEventListener("keydown", (event) => {
      const named = { "+": "in", "=": "in", "-": "out", "0": "start" }[event.key];
      if (named && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        actions[named]();
        // Focus does not stay on a marker that has gone
        if (point.classList.contains("out")) points.find((other) => other.tabIndex === 0)?.focus();
        return;
      }
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      for (let place = index + step; ; place += step) {
        const other = points[(place + points.length * 2) % points.length];
        if (other === point || !other.classList.contains("out")) return other.focus();
      }
    });
  });

  let from = null;
  const place = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [Math.min(Math.max(at.x, left), right), Math.min(Math.max(at.y, top), bottom)];
  };
  svg.addEventListener("pointerdown", (event) => {
    if (event.button || (event.pointerType !== "mouse" && view === start)) return;
    from = { at: place(event), view, pans: event.pointerType !== "mouse" };
  });
  svg.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [x, y] = place(event), [x0, y0] = from.at;
    if (!svg.hasPointerCapture(event.pointerId)) {
      if (Math.hypot(x - x0, y - y0) < 6) return;
      svg.setPointerCapture(event.pointerId);
    }
    if (from.pans) {
      const du = toU(x0) - toU(x), dv = toV(y0) - toV(y);
      look(from.view.x.map((end) => end + du), from.view.y.map((end) => end + dv));
      return;
    }
    box.removeAttribute("hidden");
    const size = { x: Math.min(x, x0), y: Math.min(y, y0), width: Math.abs(x - x0), height: Math.abs(y - y0) };
    for (const [key, value] of Object.entries(size)) box.setAttribute(key, value);
  });
  const end = (event) => {
    const begun = from, [x, y] = place(event);
    from = null;
    box.setAttribute("hidden", "");
    if (!begun || begun.pans || event.type === "pointercancel") return;
    const xs = [x, begun.at[0]].sort((a, b) => a - b), ys = [y, begun.at[1]].sort((a, b) => b - a);
    if (xs[1] - xs[0] > 12 && ys[0] - ys[1] > 12) look(xs.map(toU), ys.map(toV));
  };
  svg.addEventListener("pointerup", end);
  svg.addEventListener("pointercancel", end);
  enter();
}

document.querySelectorAll("figure").forEach(startChart);
