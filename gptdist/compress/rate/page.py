"""The page that raters see. Texts are set as text, never as markup."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="token" content="@TOKEN@"><title>Which is better?</title>
<link rel="stylesheet" href="/rate.css"><script src="/rate.js" defer></script></head>
<body>
<form id="who"><h1>Which is better?</h1>
<p>You will see the beginning of a text and two ways to go on. You are not told who wrote which.</p>
<label for="name">Your name</label>
<div class="row"><input id="name" maxlength="60" autocomplete="nickname" required autofocus><button>Begin</button></div>
</form>
<main id="rating" hidden>
<header><span id="count" role="status"></span><progress id="progress" value="0" max="1"></progress></header>
<section class="prompt"><h2>Beginning</h2><div id="prompt" class="text"></div></section>
<div class="sides">
<section><h2>Left</h2><div id="left" class="text"></div></section>
<section><h2>Right</h2><div id="right" class="text"></div></section>
</div>
<p id="trouble" role="alert" hidden></p>
<nav class="choices">
<button data-choice="left">Left is better <kbd>1</kbd></button>
<button data-choice="tie">Tie <kbd>2</kbd></button>
<button data-choice="both_bad">Both bad <kbd>3</kbd></button>
<button data-choice="right">Right is better <kbd>4</kbd></button>
</nav>
<nav class="moves"><button id="back">← Back</button><button id="next">Next →</button></nav>
<p class="hint">Keys: 1 left, 2 tie, 3 both bad, 4 right; arrows go back and on. A vote can be changed: the last one
counts.</p>
</main>
</body></html>
"""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #22262b; --line: #cdd3d9; --shade: #f3f5f7; --chosen: #1d6fb8;
  --on-chosen: #fff; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #16191d; --ink: #e4e7ea; --line: #454c54; --shade: #20252a;
  --chosen: #7ab8f0; --on-chosen: #10141a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 0.85rem; margin: 0 0 0.3rem; font-weight: 600; opacity: 0.75; }
header { display: flex; gap: 1rem; align-items: center; margin-bottom: 1rem; } progress { flex: 1; height: 0.6rem; }
.row { display: flex; gap: 0.5rem; margin-top: 0.3rem; } input { flex: 1; min-width: 0; max-width: 20rem; }
input, button { font: inherit; padding: 0.55rem 0.8rem; border: 1px solid var(--line); border-radius: 6px;
  background: var(--shade); color: var(--ink); }
button { cursor: pointer; } button:disabled { opacity: 0.45; cursor: default; }
button:focus-visible, input:focus-visible { outline: 2px solid var(--chosen); outline-offset: 2px; }
section { border: 1px solid var(--line); border-radius: 6px; padding: 0.7rem; min-width: 0; }
.prompt { margin-bottom: 0.8rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 45vh; overflow-y: auto; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 0.8rem; }
.choices { display: grid; grid-template-columns: repeat(4, 1fr); gap: 0.5rem; margin: 1rem 0 0.6rem; }
.choices button[aria-pressed=true] { background: var(--chosen); color: var(--on-chosen); border-color: var(--chosen); }
.moves { display: flex; justify-content: space-between; } kbd { font: inherit; font-size: 0.8em; opacity: 0.7; }
.hint { font-size: 0.85rem; opacity: 0.75; } #trouble { color: var(--bad); font-weight: 600; }
@media (max-width: 640px) { .sides { grid-template-columns: 1fr; } .choices { grid-template-columns: 1fr 1fr; }
  .hint { display: none; } .text { max-height: 30vh; } }
"""

SCRIPT = """
"use strict";
const by = (id) => document.getElementById(id);
const token = document.querySelector("meta[name=token]").content;
const choices = { 1: "left", 2: "tie", 3: "both_bad", 4: "right" };
let rater = "", pairs = [], at = 0, busy = false;

function show() {
  const pair = pairs[at], done = pairs.filter((one) => one.choice).length;
  by("count").textContent = done === pairs.length
    ? `All ${done} rated. Thank you!` : `${at + 1} of ${pairs.length}, ${done} rated`;
  by("progress").max = pairs.length;
  by("progress").value = done;
  for (const part of ["prompt", "left", "right"]) {
    by(part).textContent = pair[part];
    by(part).scrollTop = 0;
  }
  for (const button of document.querySelectorAll("[data-choice]"))
    button.setAttribute("aria-pressed", String(button.dataset.choice === pair.choice));
  by("back").disabled = at === 0;
  by("next").disabled = at === pairs.length - 1;
}

function trouble(text) {
  by("trouble").textContent = text;
  by("trouble").hidden = !text;
}

async function vote(choice) {
  if (busy || !pairs.length) return;
  busy = true;
  const pair = pairs[at];
  try {
    const answer = await fetch("/votes", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Token": token },
      body: JSON.stringify({ key: pair.key, rater, choice }),
    });
    if (!answer.ok) throw new Error((await answer.json()).error);
    pair.choice = choice;
    trouble("");
    const open = pairs.findIndex((one, index) => index > at && !one.choice);
    if (open >= 0) at = open;
    else if (pairs.some((one) => !one.choice)) at = pairs.findIndex((one) => !one.choice);
    show();
  } catch (error) {
    trouble(`Not kept: ${error.message}. Try again.`);
  }
  busy = false;
}

function move(step) {
  at = Math.min(Math.max(at + step, 0), pairs.length - 1);
  show();
}

by("who").addEventListener("submit", async (event) => {
  event.preventDefault();
  rater = by("name").value.trim();
  const answer = await fetch("/pairs?rater=" + encodeURIComponent(rater));
  const found = await answer.json();
  if (!answer.ok) return alert(found.error);
  pairs = found.pairs;
  at = Math.max(0, pairs.findIndex((one) => !one.choice));
  by("who").hidden = true;
  by("rating").hidden = false;
  show();
});
for (const button of document.querySelectorAll("[data-choice]"))
  button.addEventListener("click", () => vote(button.dataset.choice));
by("back").addEventListener("click", () => move(-1));
by("next").addEventListener("click", () => move(1));
document.addEventListener("keydown", (event) => {
  if (by("rating").hidden || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (choices[event.key]) vote(choices[event.key]);
  else if (event.key === "ArrowLeft") move(-1);
  else if (event.key === "ArrowRight") move(1);
});
"""
