// The page from top to bottom.

function runCard(run) {
  const sites = run.stacks.flatMap((stack) => stack.sites);
  const last = siteOf(run, LAST);
  const figures = [
    ["rows", last.n], ["dimension", last.dim], ["sites", sites.length > 1 ? sites.length : null],
    [sites.length > 1 ? `mean cosine, ${last.site}` : "mean cosine", last.values.mean_cosine],
    ["IsoScore", last.values.isoscore],
  ].filter(([, value]) => value !== undefined && value !== null);
  return element(
    "article", { class: "card" },
    element("h3", {}, swatch(run.look), element("span", {}, run.name)),
    element("p", {}, run.heading),
    element("dl", { class: "figures" }, figures.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, shown(value))))),
  );
}

function provenanceSection({ runs }) {
  const cards = runs.map((run) =>
    element(
      "div", {},
      element("h3", {}, run.name),
      table(`What ${run.name} was made from`, null, [...run.about, ...run.provenance], "words"),
      run.notes.length ? element("ul", { class: "notes" }, run.notes.map((note) => element("li", {}, note))) : null,
    ),
  );
  const conventions = Object.entries(Object.assign({}, ...runs.map((run) => run.conventions)));
  section(
    "provenance", "What it was made from", null, element("div", { class: "beside" }, cards),
    element(
      "details", {}, element("summary", {}, "Conventions"),
      element("dl", { class: "conventions" }, conventions.flatMap(([name, words]) => [element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, words)])),
    ),
  );
}

function start() {
  const payload = JSON.parse(document.getElementById("payload").textContent);
  const lines = linesOf(payload.runs);
  for (const run of payload.runs) run.look = lines.find((one) => one.run === run).index;
  document.getElementById("lead").textContent = `${plural(payload.runs.length, "run")}. Every value is exact over all rows that were kept; hover, or go through a figure with the arrow keys, to read it.`;
  const cards = () => document.getElementById("runs").replaceChildren(...payload.runs.map(runCard));
  cards();
  layersSection(payload, lines);
  driftSection(payload, lines);
  headsSection(payload);
  cosineSection(payload);
  siteSection(payload);
  provenanceSection(payload);
  const redraw = () => {
    cards();
    for (const box of REDRAW) if (!box.hidden) box.draw();
  };
  redraw();
  DARK.addEventListener("change", redraw);
  NARROW.addEventListener("change", redraw);
  document.getElementById("footer").textContent = `Made by fastaniso. This page is complete in itself: it loads nothing and sends nothing.`;
}

start();
