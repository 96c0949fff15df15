"use strict";
// Everything beside the curves. Text from files is set as text, never as markup.
function el(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties || {});
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

function when(seconds) {
  if (!seconds) return "–";
  const date = new Date(seconds * 1000), two = (n) => String(n).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

function lasting(seconds) {
  const whole = Math.max(0, Math.round(seconds)), two = (n) => String(n).padStart(2, "0");
  const days = Math.floor(whole / 86400), rest = whole % 86400;
  const clock = `${two(Math.floor(rest / 3600))}:${two(Math.floor(rest / 60) % 60)}:${two(rest % 60)}`;
  return days ? `${days} d ${clock}` : clock;
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  for (const [unit, name] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]])
    if (bytes >= unit) return `${(bytes / unit).toFixed(2)} ${name}`;
  return `${bytes} bytes`;
}

const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));

// Rows of cells; a cell is text or an element, and columns named in `words` may break.
function table(heads, rows, words = []) {
  const cell = (name, value, at) => {
    const made = el(name, { className: words.includes(at) ? "words" : "" }, value ?? "–");
    if (name === "th") made.scope = "col";
    return made;
  };
  return el("div", { className: "wide" }, el("table", {},
    el("thead", {}, el("tr", {}, heads.map((head, at) => cell("th", head, at)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, at) => cell("td", value, at)))))));
}

function value(row) {
  if (!row) return "–";
  if (row.time) return when(row.time);
  return row.label === "state" ? el("span", { className: `state ${row.value}` }, row.value) : row.value;
}

function summary(runs) {
  if (runs.length === 1) {
    const facts = runs[0].summary.map((row) => el("div", {}, el("dt", {}, row.label), el("dd", {}, value(row))));
    return el("dl", { className: "facts" }, facts);
  }
  const labels = [...new Set(runs.flatMap((run) => run.summary.map((row) => row.label)))];
  const of = (run, label) => value(run.summary.find((row) => row.label === label));
  return table(["", ...runs.map((run) => run.name)], labels.map((label) => [label, ...runs.map((run) => of(run, label))]),
    runs.map((_, at) => at + 1));
}

function differences(rows, runs) {
  return table(["key", ...runs.map((run) => run.name)], rows, runs.map((_, at) => at + 1));
}

function command(text) { return el("code", { className: "command" }, text); }

const ENDS = { done: "done", stopped: "stopped", rewind: "went back", failed: "killed or failed", runs: "runs" };
const MARKS = { skip: "skipped step", spike: "spike, not skipped", rewind: "rewind", checkpoint_failed: "checkpoint failed",
  early_stop: "early stop" };

// A bar an attempt over time, with ticks at checkpoints and crosses at skipped steps.
function timeline(run, width) {
  const timed = run.attempts.filter((one) => one.begin > 0);
  if (!timed.length) return null;
  const begin = timed[0].begin, end = Math.max(...timed.map((one) => one.end), begin + 1);
  const row = Math.max(5, Math.min(22, 700 / timed.length)), left = 34, right = 12, foot = 22, bar = row * 0.7;
  const x = (time) => left + ((time - begin) / (end - begin)) * (width - left - right);
  const height = row * timed.length + foot;
  const svg = node("svg", { class: "timeline", viewBox: `0 0 ${width} ${height}`, height, role: "img" });
  const said = timed.map((one) => `attempt ${one.number}, ${lasting(one.end - one.begin)}, ${one.how}`);
  svg.setAttribute("aria-label", `attempts over ${lasting(end - begin)}: ${said.slice(0, 20).join("; ")}`);
  const cuts = Math.max(2, Math.floor(width / 160));
  for (let cut = 0; cut <= cuts; cut++) {
    const time = begin + ((end - begin) * cut) / cuts, anchor = cut === 0 ? "start" : cut === cuts ? "end" : "middle";
    svg.append(node("line", { class: "grid", x1: x(time), x2: x(time), y1: 0, y2: height - foot + 4 }));
    svg.append(node("text", { x: x(time), y: height - 6, "text-anchor": anchor }, "+" + lasting(time - begin)));
  }
  timed.forEach((one, place) => {
    const y = place * row, wide = Math.max(2, x(one.end) - x(one.begin));
    if (row > 11) svg.append(node("text", { x: left - 6, y: y + bar * 0.8, "text-anchor": "end" }, String(one.number)));
    const shape = node("rect", { class: `bar ${one.kind}`, x: x(one.begin), y, width: wide, height: bar, rx: 2 });
    shape.append(node("title", {}, `attempt ${one.number}: steps ${one.first_step + 1} to ${one.last_step}, ${one.how}`));
    svg.append(shape);
    for (const mark of run.marks.filter((mark) => mark.attempt === one.number && mark.time)) {
      const at = x(mark.time), middle = y + bar / 2, arm = Math.min(4, bar / 2);
      const d = mark.kind === "checkpoint" ? `M${at} ${y}v${bar}` : mark.kind === "skip"
        ? `M${at - arm} ${middle - arm}l${2 * arm} ${2 * arm}m0 ${-2 * arm}l${-2 * arm} ${2 * arm}`
        : `M${at + arm} ${y}l${-2 * arm} ${bar / 2}l${2 * arm} ${bar / 2}`;
      const style = mark.kind === "skip" || mark.kind === "checkpoint" ? "tick" : "skipped";
      svg.append(node("path", { class: style, fill: "none", d }, node("title", {}, `step ${mark.step}: ${mark.text}`)));
    }
  });
  return svg;
}

function attempts(run, width) {
  if (!run.attempts.length) return [el("p", {}, "The ledger knows of no attempt.")];
  const rows = run.attempts.map((one) => {
    const how = one.text ? `${one.how}: ${one.text}` : one.how;
    const from = one.first_step ? `step ${one.first_step}` + (one.from_attempt ? ` of attempt ${one.from_attempt}` : "") : "the beginning";
    const took = lasting(one.end - one.begin) + (one.is_end_known || one.kind === "runs" ? "" : " at least");
    const changed = one.changed.length ? el("ul", {}, one.changed.map((line) => el("li", {}, line))) : "–";
    return [one.number, one.last_step > one.first_step ? `${one.first_step + 1}–${one.last_step}` : "none", from,
      count(one.lost_steps), when(one.begin), took, how, one.layout || "–", changed];
  });
  const heads = ["attempt", "steps", "goes on from", "lost steps", "began", "took", "end", "layout", "config changed"];
  const key = el("p", { className: "hint" }, "Ticks: checkpoints. Crosses: skipped steps. Arrows: rewinds.");
  return [timeline(run, width), key, table(heads, rows, [6, 7, 8]), trouble(run)];
}

function trouble(run) {
  const marks = run.marks.filter((mark) => mark.kind !== "checkpoint").sort((a, b) => b.step - a.step);
  if (!marks.length) return null;
  const rows = marks.slice(0, 200).map((mark) => [mark.step, MARKS[mark.kind] || mark.kind, mark.attempt, mark.text,
    mark.command ? command(mark.command) : "–"]);
  const more = marks.length > 200 ? el("p", { className: "hint" }, `The newest 200 of ${marks.length}.`) : null;
  return el("div", {}, el("h3", {}, "Skipped steps, spikes, rewinds"),
    table(["step", "what", "attempt", "why", "look into it"], rows, [3, 4]), more);
}

function data(run) {
  if (!run.sources.length) return el("p", {}, "No attempt noted its data.");
  const rows = run.sources.map((one) => [one.name, one.share === null ? "–" : (one.share * 100).toFixed(2) + " %",
    one.weight ?? "–", one.epochs === null ? "–" : one.epochs.toFixed(3), one.path]);
  return table(["source", "share of samples", "weight", "epochs read", "folder"], rows, [4]);
}

function texts(run) {
  if (!run.samples.length) return el("p", {}, "The run wrote none: see generation and intervals.sample_steps.");
  return run.samples.map((one, at) => el("details", { open: at === 0 }, el("summary", {}, `step ${count(one.step)}`),
    one.texts.map((text) => el("pre", {}, el("span", { className: "prompt" }, text.prompt), text.text))));
}

function checkpoints(run) {
  if (!run.checkpoints.length) return el("p", {}, "None yet.");
  const rows = run.checkpoints.map((one) => {
    const state = el("span", { className: one.state === "damaged" ? "damaged" : "" }, one.state);
    return [count(one.step), size(one.bytes), when(one.time), one.loss === null || one.loss === undefined ? "–" : one.loss.toFixed(4),
      one.write_seconds ? one.write_seconds.toFixed(2) : "–", one.problems.length ? [state, ": " + one.problems.join("; ")] : state];
  });
  return table(["step", "size", "saved", "loss (nats)", "written in (s)", "looked at"],
    rows.map((row) => row.map((cell) => (Array.isArray(cell) ? el("span", {}, cell) : cell))), [5]);
}

function plan(run) {
  if (run.plan.problem) return el("p", {}, `No comparison: ${run.plan.problem}.`);
  const rows = run.plan.rows.map(([name, measured, planned, unit]) => [name, `${short(measured)} ${unit}`,
    `${short(planned)} ${unit}`, measured ? (planned / measured).toFixed(2) : "–"]);
  const { attempt, lines, steps, layout, device } = run.plan;
  const where = `Medians of ${lines} lines of attempt ${attempt}, steps ${steps[0]} to ${steps[1]}; ${layout} of ${device}.`;
  return [table(["a step", "measured", "planned", "planned / measured"], rows),
    el("p", { className: "hint" }, where + " The plan assumes an idle machine: ", command(`gptdist plan --from ${run.name}`))];
}

function config(run) {
  if (!run.config) return el("p", {}, "config.yaml is not there.");
  return el("details", {}, el("summary", {}, "the newest attempt's, resolved"), el("pre", {}, run.config));
}
