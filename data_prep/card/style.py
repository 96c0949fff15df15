"""The card's style: system fonts, one accent colour, light and dark, and print."""

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1d2429; --quiet: #5a666f; --line: #dbe0e4; --soft: #f4f6f7;
  --kept: #0b7285; --dropped: #b9c2c9; }
@media (prefers-color-scheme: dark) { :root { --back: #14181b; --text: #e4e9ec; --quiet: #9aa7b0; --line: #323b42;
  --soft: #1d2327; --kept: #3bb3c8; --dropped: #55616a; } }
@media print { :root { --back: #fff; --text: #000; --quiet: #444; --line: #ccc; --soft: #fff; --kept: #0b7285;
  --dropped: #b9c2c9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 5rem; max-width: 60rem; background: var(--back); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 3.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p, li { max-width: 46rem; }
.quiet, caption, figcaption { color: var(--quiet); font-size: .9rem; }
a { color: var(--kept); }
nav ul { columns: 3 12rem; padding: 0; margin: 1.5rem 0 0; list-style: none; }
nav li { padding: .1rem 0; }
.tiles { display: grid; grid-template-columns: repeat(3, 1fr); gap: .75rem;
  margin: 1.75rem 0; padding: 0; }
.tiles div { background: var(--soft); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; }
.tiles dt { color: var(--quiet); font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--quiet); }
@media (max-width: 40rem) { .tiles { grid-template-columns: repeat(2, 1fr); } }
.scroll { overflow-x: auto; }
figure { margin: 1rem 0; }
.picture { display: block; width: 100%; min-width: 40rem; height: auto; font-family: inherit; }
.picture text { fill: var(--text); font-variant-numeric: tabular-nums; white-space: pre; }
.picture text.dim { fill: var(--quiet); }
.kept { fill: var(--kept); } .dropped { fill: var(--dropped); } .flow { fill: var(--kept); opacity: .12; }
.grid { stroke: var(--line); } .axis { stroke: var(--quiet); } .mark { stroke: var(--text); stroke-dasharray: 3 3; }
.legend { color: var(--quiet); font-size: .9rem; margin: .25rem 0 .5rem; }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; margin: 0 .4rem 0 1rem;
  vertical-align: -.05rem; }
.key:first-child { margin-left: 0; } .key.kept { background: var(--kept); } .key.dropped { background: var(--dropped); }
table { border-collapse: collapse; font-size: .9rem; margin: .75rem 0; min-width: 50%; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; text-align: left; }
th, th.number { font-weight: 600; vertical-align: bottom; white-space: normal; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.text { overflow-wrap: break-word; }
td code { overflow-wrap: break-word; }
td bdi { overflow-wrap: anywhere; display: inline-block; min-width: 9rem; }
svg.cell { display: block; margin: .3rem 0 0 auto; }
td.heat { padding-left: .5rem; border-bottom-color: var(--back); }
.sample { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .9rem; margin: .75rem 0;
  background: var(--soft); break-inside: avoid; }
.sample .where { font-size: .85rem; color: var(--quiet); overflow-wrap: anywhere; }
.sample blockquote { margin: .5rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9rem;
  max-height: 16rem; overflow-y: auto; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: .5rem; padding: .9rem; overflow-x: auto;
  font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
details { margin: .75rem 0; } summary { cursor: pointer; color: var(--kept); }
.alarm { border-left: .3rem solid var(--kept); padding: .4rem .9rem; background: var(--soft); font-weight: 600; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } .scroll { overflow: visible; }
  .picture { min-width: 0; } .sample blockquote { max-height: none; } h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; } details::details-content { content-visibility: visible; height: auto; } }
"""
