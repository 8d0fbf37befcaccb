"""How the page looks: on a screen, light and dark, and on paper.  Nothing in it is fetched from anywhere."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f3f5f8; --paper: #ffffff; --ink: #18212d; --soft: #566274; --line: #dde3ea; --faint: #eef1f5;
  --accent: #1d5a9c; --good: #1c7a4a; --warn: #a86200; --bad: #b3261e;
  --content: #2b6cb0; --bulk: #7a4fc0; --headers: #a9c1d9; --removed: #c9761a; --denied: #b3261e; --failed: #e09a94;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ground: #10151b; --paper: #19212a; --ink: #e5eaf0; --soft: #9aa8b8; --line: #2e3946; --faint: #222c37;
    --accent: #7db4ee; --good: #58c48b; --warn: #e9ad4b; --bad: #ff8a80;
    --content: #5f9fe0; --bulk: #b193f5; --headers: #47627e; --removed: #e39a45; --denied: #f2796f; --failed: #8c4c48;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1160px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 19px; line-height: 1.3; margin: 0 0 4px; }
h3 { font-size: 14px; margin: 20px 0 4px; }
p { margin: 4px 0; }
a { color: var(--accent); }
code { font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", "Liberation Mono", monospace; overflow-wrap: anywhere; }
header { display: flex; justify-content: space-between; gap: 24px; align-items: flex-end; margin-bottom: 20px; }
header .period { font-size: 17px; color: var(--soft); margin-top: 6px; }
header .made { text-align: right; color: var(--soft); font-size: 13px; white-space: nowrap; }
section, .seal { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; }
section { padding: 20px 24px; margin-top: 20px; }
.lead { color: var(--soft); max-width: 85ch; margin-bottom: 12px; }
.none { color: var(--soft); font-style: italic; }
.note { color: var(--soft); font-size: 13px; margin-top: 8px; }

.seal { display: flex; gap: 18px; align-items: center; padding: 16px 24px; border-left: 6px solid var(--state); }
.seal .sign {
  flex: none; width: 40px; height: 40px; border-radius: 50%; background: var(--state); color: var(--paper);
  font-size: 22px; font-weight: 700; line-height: 40px; text-align: center;
}
.seal strong { display: block; font-size: 17px; color: var(--state); }
.good { --state: var(--good); } .warn { --state: var(--warn); } .bad { --state: var(--bad); }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 10px; margin-top: 20px; }
.tile { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 22px; line-height: 1.25; font-weight: 650; white-space: nowrap; }
.tile span { color: var(--soft); font-size: 13px; }
.tile.bad b { color: var(--bad); } .tile.warn b { color: var(--warn); }

nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 18px 2px 0; font-size: 13.5px; }
.points { list-style: none; margin: 8px 0 0; padding: 0; }
.points li { padding: 8px 0 8px 22px; border-top: 1px solid var(--line); position: relative; overflow-wrap: anywhere; }
.points li::before {
  content: ""; position: absolute; left: 2px; top: 16px; width: 9px; height: 9px; border-radius: 50%;
  background: var(--state);
}
.points a { white-space: nowrap; margin-left: 6px; font-size: 13px; }

.table { overflow-x: auto; margin-top: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th {
  text-align: left; font-size: 12px; font-weight: 600; color: var(--soft); border-bottom: 2px solid var(--line);
  padding: 6px 14px 6px 0; vertical-align: bottom;
}
td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.long { display: inline-block; min-width: 16ch; overflow-wrap: anywhere; }
.who { overflow-wrap: break-word; }
td:last-child, th:last-child { padding-right: 0; }
th.number, td.number { text-align: right; white-space: nowrap; }
td .when { white-space: nowrap; }
td .who { font-weight: 600; }
.less { color: var(--soft); }
.flag {
  display: inline-block; font-size: 11px; font-weight: 600; line-height: 16px; padding: 0 7px; border-radius: 8px;
  color: var(--paper); background: var(--state); white-space: nowrap;
}

svg { display: block; }
svg.chart { width: 100%; height: auto; margin: 4px 0 2px; }
svg.strip { width: 96px; height: auto; margin-top: 2px; }
svg text { font-size: 12px; fill: var(--soft); }
svg .grid { stroke: var(--line); } svg .base { stroke: var(--soft); }
svg .axis { fill: var(--line); }
.content { fill: var(--content); background: var(--content); }
.bulk { fill: var(--bulk); background: var(--bulk); }
.headers { fill: var(--headers); background: var(--headers); }
.removed { fill: var(--removed); background: var(--removed); }
.denied { fill: var(--denied); background: var(--denied); }
.failed { fill: var(--failed); background: var(--failed); }
svg .cell { fill: var(--content); } svg .cell.none { fill: var(--faint); }
svg .late, svg .night { fill: var(--bulk); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: var(--soft); }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 8px 0 0; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: 13px; margin-top: 24px; }

@media (max-width: 720px) {
  main { padding: 16px 10px 40px; } section, .seal { padding: 14px; }
  header { display: block; } header .made { text-align: left; margin-top: 8px; }
}
@page {
  size: A4; margin: 16mm 14mm 18mm;
  @bottom-right { content: counter(page) " / " counter(pages); font-size: 9pt; }
}
@media print {
  body { background: none; font-size: 10pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  section { border: 0; border-top: 1px solid var(--line); border-radius: 0; padding: 14px 0 0; }
  section, .seal { background: none; }
  table { font-size: 8.5pt; } svg.strip { width: 66px; }
  .tiles { grid-template-columns: repeat(8, 1fr); gap: 6px; }
  .tile { padding: 6px 8px; } .tile b { font-size: 13pt; } .tile span { font-size: 8pt; }
  h2, h3, .lead { break-after: avoid; } tr, svg.chart, .seal, .tiles { break-inside: avoid; }
  thead { display: table-header-group; } .table { overflow: visible; } nav, .points a { display: none; }
}
"""
