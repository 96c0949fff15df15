"use strict";
// The page: what is chosen, and how it follows a run that goes on.
const by = (id) => document.getElementById(id);
const view = {
  axis: "s", smooth: false, range: null, hidden: new Set(), chosen: null, numRuns: 1,
  zoom(range) { view.range = range; by("whole").hidden = range === null; pictures.forEach((one) => one.draw()); },
  sentence(found) {
    const { step, tokens, attempt } = found[0];
    const values = found.flatMap((one) => one.values.map(([label, value]) => `${label} ${short(value)}`));
    return `step ${count(step)}${tokens === null ? "" : `, ${count(tokens)} tokens`}, attempt ${attempt}: ${values.join(", ")}`;
  },
  tokensAt(run, step) {
    for (const one of (run.curves["train/loss"] || []).filter((one) => one.t)) {
      const place = one.s.findIndex((other) => other >= step);
      if (place >= 0) return one.t[place];
    }
    return null;
  },
  pin(found, chart) {
    if (!found.length) return;
    const train = found.find((one) => chart.key !== "loss" || one.run.curves["train/loss"]) || found[0];
    by("pinned").replaceChildren(el("strong", {}, `${chart.title}: `), view.sentence(found), " ",
      command(`gptdist triage ${train.run.name} --step ${train.step}`));
  },
};
const pictures = new Map();
let records = JSON.parse(by("records").textContent);
const drawn = {};

function chosenRun() { return records.runs.find((run) => run.name === view.chosen) || records.runs[0]; }

function fill(id, content, source) {
  const now = JSON.stringify(source);
  if (drawn[id] === now) return;
  drawn[id] = now;
  by(id).querySelector(":scope > div").replaceChildren(...[content].flat().filter((one) => one !== null));
}

function showCharts() {
  const runs = records.runs.map((run, index) => ({ run, index })).filter(({ run }) => !view.hidden.has(run.name));
  const chosen = chosenRun();
  for (const chart of records.charts) {
    if (!pictures.has(chart.key)) {
      const picture = new Picture(view);
      pictures.set(chart.key, picture);
      by("plots").append(picture.figure);
    }
    const first = chart.mode === "stack" ? runs.filter(({ run }) => run === chosen) : runs;
    pictures.get(chart.key).show(chart, first);
  }
  by("faint").hidden = !records.runs.some((run) => Object.values(run.curves).flat().some((one) => one.lost));
  by("curves").hidden = !records.charts.length;
}

function showRun() {
  const run = chosenRun(), width = Math.max(300, by("attempts").clientWidth);
  fill("attempts", attempts(run, width), [run.name, run.attempts, run.marks, width]);
  fill("data", data(run), [run.name, run.sources]);
  fill("texts", texts(run), [run.name, run.samples]);
  fill("checkpoints", checkpoints(run), [run.name, run.checkpoints]);
  fill("plan", plan(run), [run.name, run.plan]);
  fill("config", config(run), [run.name, run.config]);
}

function showChoices() {
  if (records.runs.length < 2 || by("shown").children.length) return;
  records.runs.forEach((run, index) => {
    const box = el("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      box.checked ? view.hidden.delete(run.name) : view.hidden.add(run.name);
      showCharts();
    });
    const swatch = node("svg", { viewBox: "0 0 22 8", "aria-hidden": "true" }, node("rect", { class: `area c${index % COLOURS}`, width: 22, height: 8 }));
    by("shown").append(el("label", { className: "key" }, box, swatch, run.name));
  });
  const select = el("select", { id: "run" }, records.runs.map((run) => el("option", { value: run.name }, run.name)));
  select.addEventListener("change", () => { view.chosen = select.value; showCharts(); showRun(); });
  by("chosen").append(el("h2", {}, "One run"), el("label", {}, "below, and time by part: ", select));
}

function show() {
  view.numRuns = records.runs.length;
  const names = records.runs.map((run) => run.name);
  by("title").textContent = names.length === 1 ? names[0] : `${names.length} runs compared`;
  by("about").textContent = `read ${when(records.made)}`;
  const notes = records.runs.flatMap((run) => run.notes);
  by("notes").replaceChildren(...notes.map((note) => el("p", { className: "note" }, note)));
  fill("summary", summary(records.runs), records.runs.map((run) => run.summary));
  by("differences").hidden = !records.differences.length;
  fill("differences", differences(records.differences, records.runs), records.differences);
  showChoices();
  showCharts();
  showRun();
}

for (const input of document.querySelectorAll("input[name=axis]")) input.addEventListener("change", () => {
  view.axis = input.value;
  view.zoom(null);
});
by("smooth").addEventListener("change", () => { view.smooth = by("smooth").checked; pictures.forEach((one) => one.draw()); });
by("whole").addEventListener("click", () => view.zoom(null));
let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (width === window.innerWidth) return;
  width = window.innerWidth;
  pictures.forEach((one) => one.draw());
  showRun();
});
by("axis").hidden = false;
show();

// Of a served page: ask again while the run goes on; what the reader has chosen stays.
const POLL_SECONDS = 2, live = document.querySelector("meta[name=live]").content;
async function follow() {
  try {
    const answer = await fetch(`${live}?made=${records.made}`);
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const found = await answer.json();
    if (found.made !== records.made) {
      records = found;
      show();
    }
    by("about").textContent = `read ${when(records.made)}; updates by itself`;
  } catch (error) {
    by("about").textContent = `read ${when(records.made)}; no answer since (${error.message})`;
  }
  setTimeout(follow, POLL_SECONDS * 1000);
}
if (live) follow();
