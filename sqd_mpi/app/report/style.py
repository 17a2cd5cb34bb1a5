"""The style sheet of the page, for light and dark screens, wide and narrow ones, and paper."""

# Names of colours are those of `app.figures.canvas.THEME`, which the drawings refer to.
STYLE = """
:root { color-scheme: light dark;
  --page: #f6f5f2; --surface: #ffffff; --ink: #1b1b1a; --soft: #55544f; --grid: #dddbd5; --faint: #85837c;
  --edge: #404040; --series-0: #1c5cab; --series-1: #d9631e; --series-2: #12876b; --series-3: #8a5fc7;
  --series-4: #a8720a; --good: #0b6b2f; --bad: #b3161b; --warn: #8a5200;
  --good-back: #e3f3e6; --bad-back: #fde8e6; --warn-back: #fdf1d9; }
@media (prefers-color-scheme: dark) { :root {
  --page: #121211; --surface: #1d1d1b; --ink: #ecebe6; --soft: #b9b7af; --grid: #3b3a37; --faint: #918f87;
  --edge: #a9a8a2; --series-0: #6aa8f0; --series-1: #ee8a4d; --series-2: #3fbf98; --series-3: #b493ea;
  --series-4: #d9a53a; --good: #7fd89a; --bad: #ff9b94; --warn: #f2c26b;
  --good-back: #12301c; --bad-back: #451615; --warn-back: #3a2a0b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 16px; }
.columns { columns: 2 520px; column-gap: 16px; margin-top: 16px; }
h1 { font-size: 1.5rem; margin: 8px 0 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 8px; }
section { background: var(--surface); border: 1px solid var(--grid); border-radius: 8px; padding: 16px;
  margin: 0 0 16px; break-inside: avoid; }
.banner { border: 2px solid; border-radius: 8px; padding: 10px 16px; margin: 12px 0; overflow-wrap: anywhere; }
.banner strong { font-size: 1.15rem; }
.banner.good { color: var(--good); background: var(--good-back); border-color: var(--good); }
.banner.bad { color: var(--bad); background: var(--bad-back); border-color: var(--bad); border-width: 4px; }
.banner.warn { color: var(--warn); background: var(--warn-back); border-color: var(--warn); }
.banner ul { margin: 4px 0; padding-left: 1.3em; }
.good { color: var(--good); } .bad { color: var(--bad); }
.tiles { display: grid; gap: 12px; margin: 16px 0; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); }
.tiles div:first-child { grid-column: span 2; }
.tiles div { background: var(--surface); border: 1px solid var(--grid); border-radius: 8px; padding: 10px 14px; }
.tiles .value { display: block; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles .name { color: var(--soft); font-size: 0.85rem; }
figure { margin: 0 0 12px; }
figure svg { display: block; width: 100%; height: auto; max-width: 620px; margin: 0 auto; }
figure svg text { fill: var(--ink); }
figcaption, caption, p { color: var(--soft); font-size: 0.9rem; text-align: left; margin: 4px 0; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 12px 3px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--grid); }
th { font-weight: 600; } tbody th { font-weight: 400; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
thead .number { white-space: normal; vertical-align: bottom; }
td.bar { width: 40%; min-width: 100px; } meter { width: 100%; }
dl { display: grid; grid-template-columns: fit-content(62%) minmax(0, 1fr); gap: 3px 16px; margin: 8px 0 0;
  font-size: 0.9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: 8px; } summary { cursor: pointer; color: var(--soft); font-size: 0.95rem; }
details[open] .scroll { max-height: 480px; overflow-y: auto; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.95em; }
footer { max-width: 1240px; margin: 0 auto; padding: 0 16px 24px; color: var(--soft); font-size: 0.85rem; }
@media (max-width: 600px) { main { padding: 8px; } section { padding: 12px; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 6px; }
  .cards, .cards caption, .cards tbody, .cards tr, .cards tbody th, .cards td { display: block; }
  .cards thead { display: none; }
  .cards tbody th { font-weight: 600; border-bottom: none; margin-top: 8px; }
  .cards td { display: flex; justify-content: space-between; gap: 12px; padding-right: 0; }
  .cards td::before { content: attr(data-name); color: var(--soft); } }
@media print { body { background: none; } .columns { columns: 1; } section { border: none; break-inside: avoid; } }
"""
