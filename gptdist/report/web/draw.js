"use strict";
// Pictures of curves as SVG. A picture asks `view` what to show and tells it what the reader does.
const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8, DASHES = ["", "6 3", "2 3", "9 3 2 3"], MARGIN = { left: 58, right: 12, top: 8, bottom: 24 };

function node(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  for (const child of children) made.append(child);
  return made;
}

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e15 || size < 1e-3) return value.toExponential(2);
  for (const [unit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]])
    if (size >= unit) return Number((value / (unit === 1e4 ? 1e3 : unit)).toPrecision(4)) + " " + name;
  return String(Number(value.toPrecision(5)));
}

function ticks(low, high, count) {
  const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step)
    found.push(Math.abs(at) < step * 1e-6 ? 0 : at);
  return found;
}

function logTicks(low, high) {
  const found = [], decades = high - low;
  for (let power = Math.floor(low); power <= Math.ceil(high); power++)
    for (const lead of decades > 3 ? [1] : decades > 1 ? [1, 3] : [1, 1.5, 2, 3, 5, 7]) {
      const at = power + Math.log10(lead);
      if (at >= low && at <= high) found.push(at);
    }
  return found;
}

// Mean over `width` points around each; fewer at the ends.
function movingMean(values, width) {
  const half = width >> 1, sums = [0];
  for (const value of values) sums.push(sums[sums.length - 1] + value);
  return values.map((_, at) => {
    const begin = Math.max(0, at - half), end = Math.min(values.length, at + half + 1);
    return (sums[end] - sums[begin]) / (end - begin);
  });
}

class Picture {
  constructor(view) {
    this.view = view;
    this.svg = node("svg", { class: "plot", role: "img", tabindex: "0" });
    this.title = document.createElement("strong");
    this.unit = document.createElement("span");
    this.unit.className = "unit";
    this.logButton = document.createElement("button");
    this.logButton.type = "button";
    this.logButton.textContent = "log";
    this.legend = document.createElement("div");
    this.legend.className = "legend";
    this.read = document.createElement("output");
    this.read.className = "read";
    const caption = document.createElement("figcaption");
    caption.append(this.title, this.unit, this.logButton);
    this.figure = document.createElement("figure");
    this.figure.append(caption, this.svg, this.legend, this.read);
    this.isLog = false;
    this.at = null;
    this.listen();
  }

  listen() {
    this.logButton.addEventListener("click", () => { this.isLog = !this.isLog; this.draw(); });
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    this.svg.addEventListener("pointerleave", () => { if (!this.drag) this.point(null); });
    this.svg.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      this.drag = { from: this.place(event), to: this.place(event) };
      try { this.svg.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone already */ }
    });
    this.svg.addEventListener("pointerup", (event) => this.drop(event));
    this.svg.addEventListener("pointercancel", () => { this.drag = null; this.draw(); });
    this.svg.addEventListener("dblclick", () => this.view.zoom(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  show(chart, runs) {
    this.chart = chart;
    this.runs = runs;
    this.title.textContent = chart.title;
    this.unit.textContent = chart.unit;
    this.figure.id = "chart-" + chart.key;
    this.figure.className = chart.large ? "large" : "";
    this.logButton.hidden = chart.mode === "stack";
    this.logButton.setAttribute("aria-label", "logarithmic scale: " + chart.title);
    this.draw();
  }

  // The curves to draw: of each chosen run each line, cut into stretches, with x by the chosen axis.
  curves() {
    const axis = this.view.axis, found = [];
    this.runs.forEach(({ run, index }, order) => {
      if (this.chart.mode === "stack" && order) return;
      const keys = this.chart.mode === "stack" ? ["stack/" + this.chart.key] : this.chart.lines.map((line) => line.key);
      keys.forEach((key, line) => {
        const stretches = (run.curves[key] || []).filter((one) => one[axis]);
        if (!stretches.length) return;
        const many = this.view.numRuns > 1, label = this.chart.mode === "stack" ? "" : this.chart.lines[line].label;
        found.push({
          run, key, stretches, colour: (many ? index : line) % COLOURS, dash: many ? DASHES[line % 4] : "",
          label: many ? `${run.name}: ${label}` : label, isSparse: key.startsWith("validation/"),
        });
      });
    });
    return found;
  }

  range(curves) {
    const axis = this.view.axis, zoom = this.view.range;
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const { stretches } of curves) for (const one of stretches) {
      left = Math.min(left, one[axis][0]);
      right = Math.max(right, one[axis][one[axis].length - 1]);
    }
    if (left > right) [left, right] = [0, 1];
    if (zoom) [left, right] = zoom;
    if (right <= left) right = left + 1;
    for (const { stretches } of curves) for (const one of stretches) one[axis].forEach((x, at) => {
      if (x < left || x > right) return;
      const y = one.parts ? one.parts.reduce((sum, part) => sum + part[at], 0) : one.y[at];
      if (this.isLog && y <= 0) return;
      low = Math.min(low, y);
      high = Math.max(high, y);
    });
    if (low > high) [low, high] = this.isLog ? [1, 10] : [0, 1];
    if (this.chart.mode === "stack") low = 0;
    if (this.isLog) [low, high] = [Math.log10(low), Math.log10(high)];
    const margin = (high - low) * 0.05 || Math.abs(high) * 0.05 || 0.5;
    return { left, right, low: this.chart.mode === "stack" ? 0 : low - margin, high: high + margin };
  }

  draw() {
    const curves = this.curves(), range = (this.scale = this.range(curves));
    this.width = Math.max(240, this.svg.clientWidth || this.figure.clientWidth - 20 || 400);
    this.height = this.chart.large ? Math.min(380, Math.max(230, this.width * 0.35)) : 210;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.svg.setAttribute("height", this.height);
    const right = this.width - MARGIN.right, bottom = this.height - MARGIN.bottom;
    this.x = (value) => MARGIN.left + ((value - range.left) / (range.right - range.left)) * (right - MARGIN.left);
    const scaled = (value) => (this.isLog ? Math.log10(value) : value);
    this.y = (value) => bottom - ((scaled(value) - range.low) / (range.high - range.low)) * (bottom - MARGIN.top);
    const clip = "clip-" + this.chart.key;
    const inner = { x: MARGIN.left, y: MARGIN.top, width: right - MARGIN.left, height: bottom - MARGIN.top };
    this.marks = node("g", { "clip-path": `url(#${clip})` });
    this.over = node("g");
    this.svg.replaceChildren(node("clipPath", { id: clip }, node("rect", inner)), this.axes(right, bottom), this.marks, this.over);
    curves.forEach((curve) => (this.chart.mode === "stack" ? this.areas(curve) : this.line(curve)));
    if (this.chart.key === "loss") this.skips(bottom);
    this.logButton.setAttribute("aria-pressed", String(this.isLog));
    this.drawn = curves;
    this.legends(curves);
    this.svg.setAttribute("aria-label", this.words(curves));
    this.point(this.at);
  }

  axes(right, bottom) {
    const group = node("g"), { left, right: end, low, high } = this.scale;
    for (const at of this.isLog ? logTicks(low, high) : ticks(low, high, 5)) {
      const value = this.isLog ? 10 ** at : at, y = this.y(value);
      group.append(node("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y, y2: y }));
      group.append(node("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, short(Number(value.toPrecision(6)))));
    }
    for (const at of ticks(left, end, Math.max(2, Math.floor(this.width / 110)))) {
      const x = this.x(at);
      if (x > right + 1) continue;
      const anchor = x > right - 20 ? "end" : "middle";
      group.append(node("text", { x, y: bottom + 16, "text-anchor": anchor }, short(Number(at.toPrecision(9)))));
    }
    return group;
  }

  path(xs, ys) {
    let text = "";
    xs.forEach((x, at) => {
      if (this.isLog && ys[at] <= 0) return;
      text += `${text ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(ys[at]).toFixed(1)}`;
    });
    return text;
  }

  line({ stretches, colour, dash, isSparse, key }) {
    const axis = this.view.axis;
    for (const one of [...stretches.filter((one) => one.lost), ...this.joined(stretches)]) {
      const style = { class: `curve c${colour}${one.lost ? " lost" : ""}`, "data-key": key };
      if (dash && !one.lost) style["stroke-dasharray"] = dash;
      const smooth = this.view.smooth && !isSparse && !one.lost && one.y.length > 4;
      const raw = node("path", { ...style, d: this.path(one[axis], one.y) });
      if (smooth) raw.setAttribute("class", style.class + " raw");
      this.marks.append(raw);
      if (smooth) this.marks.append(node("path", { ...style, d: this.path(one.mx, movingMean(one.my, this.span(one.my))) }));
      if (isSparse || one.y.length === 1) one[axis].forEach((x, at) => {
        if (this.isLog && one.y[at] <= 0) return;
        this.marks.append(node("circle", { class: `dot c${colour}${one.lost ? " lost" : ""}`, cx: this.x(x), cy: this.y(one.y[at]), r: 2.5 }));
      });
    }
  }

  // What was kept goes on from attempt to attempt: one curve of all its stretches.
  joined(stretches) {
    const axis = this.view.axis, kept = stretches.filter((one) => !one.lost);
    if (!kept.length) return [];
    const all = (values) => kept.flatMap(values);
    const mx = all((one) => one["m" + axis] || one[axis]), my = all((one) => one.my || one.y);
    return [{ lost: false, [axis]: all((one) => one[axis]), y: all((one) => one.y), mx, my }];
  }

  span(values) { return Math.max(3, Math.round(values.length / 40)); }

  areas({ stretches }) {
    const axis = this.view.axis;
    for (const one of stretches) {
      let below = one[axis].map(() => 0);
      one.parts.forEach((part, line) => {
        const above = below.map((value, at) => value + part[at]);
        const back = this.path([...one[axis]].reverse(), [...below].reverse()).replace("M", "L");
        this.marks.append(node("path", { class: `area c${line % COLOURS}`, d: this.path(one[axis], above) + back + "Z" }));
        below = above;
      });
    }
  }

  // A cross at the lower edge for each skipped step, a triangle for a spike.
  skips(bottom) {
    for (const { run } of this.runs) for (const mark of run.marks) {
      if (mark.kind !== "skip" && mark.kind !== "spike") continue;
      const value = this.view.axis === "s" ? mark.step : this.view.tokensAt(run, mark.step);
      if (value === null) continue;
      const x = this.x(value), y = bottom - 7;
      const d = mark.kind === "skip" ? `M${x - 4} ${y - 4}l8 8m0 -8l-8 8` : `M${x} ${y - 4}l5 8h-10z`;
      this.marks.append(node("path", { class: "skipped", d }, node("title", {}, `step ${mark.step}: ${mark.text}`)));
    }
  }

  legends(curves) {
    const lines = this.chart.mode === "stack"
      ? this.chart.lines.map((line, at) => ({ label: line.label, colour: at % COLOURS, dash: "", isArea: true })) : curves;
    this.legend.replaceChildren();
    if (lines.length > 1) for (const one of lines) {
      const style = { class: `curve c${one.colour}`, x1: 0, x2: 22, y1: 4, y2: 4 };
      if (one.dash) style["stroke-dasharray"] = one.dash;
      const mark = one.isArea ? node("rect", { class: `area c${one.colour}`, width: 22, height: 8 }) : node("line", style);
      const key = document.createElement("span");
      key.className = "key";
      key.append(node("svg", { "aria-hidden": "true", viewBox: "0 0 22 8" }, mark), one.label);
      this.legend.append(key);
    }
    const notes = [this.chart.note];
    const longest = curves.flatMap((one) => one.stretches).sort((a, b) => b.lines - a.lines)[0];
    if (longest && longest.w) notes.push(`lowest and highest of each ${longest.w} lines of ${longest.lines.toLocaleString("en")}`);
    const smooth = this.chart.mode === "lines" && this.view.smooth && curves.find((one) => !one.isSparse);
    const [all] = smooth ? this.joined(smooth.stretches) : [];
    if (all && all.y.length > 4) {
      const width = Math.max(...smooth.stretches.map((one) => one.w || 1));
      notes.push(`bold: means over ${((this.span(all.my) >> 1) * 2 + 1) * width} lines`);
    }
    if (this.chart.mode === "stack" && this.view.numRuns > 1) notes.push(`of ${this.runs[0] ? this.runs[0].run.name : "none"}`);
    this.legend.append(notes.filter(Boolean).join("; "));
  }

  words(curves) {
    const axis = this.view.axis, unit = axis === "s" ? "step" : "token";
    const parts = curves.flatMap(({ label, stretches }) => {
      const kept = stretches.filter((one) => !one.lost && one.y), last = kept[kept.length - 1];
      if (!last) return [];
      const end = last.y.length - 1;
      return [`${label} from ${short(kept[0].y[0])} at ${unit} ${kept[0][axis][0]} to ${short(last.y[end])} at ${unit} ${last[axis][end]}`];
    });
    return `${this.chart.title}, ${this.chart.unit}: ${parts.join("; ") || this.chart.lines.map((line) => line.label).join(", ")}`;
  }

  place(event) {
    const box = this.svg.getBoundingClientRect(), right = this.width - MARGIN.right;
    const x = Math.min(right, Math.max(MARGIN.left, ((event.clientX - box.left) / box.width) * this.width));
    return this.scale.left + ((x - MARGIN.left) / (right - MARGIN.left)) * (this.scale.right - this.scale.left);
  }

  move(event) {
    const at = this.place(event);
    if (this.drag) this.drag.to = at;
    this.point(at);
  }

  drop(event) {
    const drag = this.drag;
    this.drag = null;
    if (!drag) return;
    const [from, to] = [drag.from, this.place(event)].sort((a, b) => a - b);
    if (this.x(to) - this.x(from) > 6) return this.view.zoom([from, to]);
    this.point(to);
    this.view.pin(this.nearest(to), this.chart);
  }

  key(event) {
    const { left, right } = this.scale, middle = this.at ?? (left + right) / 2;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") this.step(event.key === "ArrowLeft" ? -1 : 1);
    else if (event.key === "Enter") this.view.pin(this.nearest(middle), this.chart);
    else if (event.key === "Escape") this.view.zoom(null);
    else if (event.key === "+" || event.key === "-") {
      const half = ((right - left) / 2) * (event.key === "+" ? 0.5 : 2);
      this.view.zoom([middle - half, middle + half]);
    } else return;
    event.preventDefault();
  }

  step(by) {
    const axis = this.view.axis, first = this.drawn[0];
    if (!first) return;
    const xs = first.stretches.filter((one) => !one.lost).flatMap((one) => one[axis]).sort((a, b) => a - b);
    const now = this.at === null ? -1 : xs.findIndex((x) => x >= this.at - 1e-9);
    this.point(xs[Math.min(xs.length - 1, Math.max(0, (now < 0 ? (by > 0 ? -1 : xs.length) : now) + by))]);
  }

  // Of each curve the point nearest to x; steps that were lost only where nothing else is.
  nearest(at) {
    const axis = this.view.axis;
    return this.drawn.map((curve) => {
      const kept = curve.stretches.filter((one) => !one.lost);
      let best = null;
      for (const one of kept.length ? kept : curve.stretches) one[axis].forEach((x, place) => {
        if (best === null || Math.abs(x - at) < best.far) best = { far: Math.abs(x - at), x, one, place };
      });
      const { one, place, x } = best;
      const values = one.parts ? this.chart.lines.map((line, part) => [line.label, one.parts[part][place]]) : [[curve.label, one.y[place]]];
      return { run: curve.run, step: one.s[place], tokens: one.t ? one.t[place] : null, attempt: one.attempt, x, values };
    });
  }

  point(at) {
    this.at = at;
    this.over.replaceChildren();
    const bottom = this.height - MARGIN.bottom;
    if (this.drag && Math.abs(this.x(this.drag.to) - this.x(this.drag.from)) > 6) {
      const [from, to] = [this.x(this.drag.from), this.x(this.drag.to)].sort((a, b) => a - b);
      this.over.append(node("rect", { class: "picked", x: from, y: MARGIN.top, width: to - from, height: bottom - MARGIN.top }));
    }
    const found = at === null ? [] : this.nearest(at);
    if (!found.length) return (this.read.textContent = "");
    const x = this.x(found[0].x);
    if (x >= MARGIN.left - 1 && x <= this.width - MARGIN.right + 1)
      this.over.append(node("line", { class: "cursor", x1: x, x2: x, y1: MARGIN.top, y2: bottom }));
    this.read.textContent = this.view.sentence(found);
  }
}
