"""How the HTML report looks: one style sheet, light and dark, screen and paper."""

__all__ = ["STYLE"]

STYLE = """
:root {
  --ink: #1d2430; --soft: #5b6675; --line: #dde2e8; --paper: #ffffff; --shade: #f4f6f9; --mark: #e3f1e6;
  --info: #2563a8; --warning: #9a6200; --danger: #b3140f;
  --info-bg: #edf4fc; --warning-bg: #fdf5e2; --danger-bg: #fdeceb;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ee; --soft: #9aa6b5; --line: #353d49; --paper: #14181e; --shade: #1d232c; --mark: #1e3a28;
    --info: #7db4ee; --warning: #e3b04b; --danger: #ff8a80;
    --info-bg: #16263a; --warning-bg: #33280f; --danger-bg: #3f1513;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h1 + p { color: var(--soft); font-size: 1.05rem; margin: 0 0 1.5rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p, ul, dl { max-width: 46rem; }
p { margin: .6rem 0; }
.muted, figcaption { color: var(--soft); font-size: .875rem; }
.notice {
  margin: 1rem 0; padding: .8rem 1.1rem; border-left: 4px solid; border-radius: 4px; color: var(--ink);
}
.notice p, .notice ul { margin: .25rem 0 0; max-width: none; }
.notice ul { padding-left: 1.2rem; }
.notice.info { border-color: var(--info); background: var(--info-bg); }
.notice.warning { border-color: var(--warning); background: var(--warning-bg); }
.notice.danger { border-color: var(--danger); background: var(--danger-bg); }
.notice.info > strong { color: var(--info); }
.notice.warning > strong { color: var(--warning); }
.notice.danger > strong { color: var(--danger); }
figure { margin: 1.25rem 0 1.75rem; }
figure.table figcaption { margin-bottom: .4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { border-bottom: 2px solid var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; }
tbody tr:hover { background: var(--shade); }
.t { text-align: left; }
.n { text-align: right; }
td.best { background: var(--mark); }
figure.picture img {
  display: block; max-width: 100%; height: auto; margin: 0 auto; padding: .5rem;
  background: #ffffff; border: 1px solid var(--line); border-radius: 6px;
}
figure.picture figcaption { margin-top: .5rem; text-align: center; }
a { color: var(--info); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .9rem; }
.tiles figure { margin: 0; }
.tiles figcaption { font-size: .8rem; line-height: 1.35; margin-top: .3rem; overflow-wrap: anywhere; }
.tiles img, .lost {
  display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  background: var(--shade); border: 1px solid var(--line); border-radius: 6px;
}
.tiles img.small { image-rendering: pixelated; }
.lost { padding: .6rem; overflow: auto; border-style: dashed; font-size: .8rem; }
figure.gallery > figcaption { margin-bottom: .5rem; }
details { margin: 1rem 0; padding: .55rem .9rem; border: 1px solid var(--line); border-radius: 6px; }
summary { cursor: pointer; font-weight: 600; }
details[open] > summary { margin-bottom: .75rem; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .3rem 1.25rem; font-size: .92rem; }
dt { color: var(--soft); max-width: 18rem; }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
}
@media print {
  :root {
    --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --shade: #fff; --mark: #eee;
    --info: #000; --warning: #000; --danger: #000; --info-bg: #fff; --warning-bg: #fff; --danger-bg: #fff;
  }
  @page { margin: 15mm; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  h2 { break-after: avoid; }
  figure, .notice, tr { break-inside: avoid; }
  figure.table { break-inside: auto; }
  figure.picture img { max-height: 105mm; width: auto; }
  thead { display: table-header-group; }
  .scroll { overflow: visible; }
  table { font-size: 8pt; }
  th, td { padding: .2rem .3rem; white-space: normal; }
  details { border: 0; padding: 0; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""
