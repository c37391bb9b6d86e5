// A figure on the page: the plot, keys that go through its points, and its numbers as a table.

const REDRAW = [];

function figureBox(draw, { low = false } = {}) {
  const plot = element("div", { class: low ? "plot low" : "plot", tabindex: 0, role: "group", "aria-roledescription": "chart" });
  const numbers = element("details", {}, element("summary", {}, "Numbers as a table"));
  const box = element("figure", {}, plot, numbers);
  let at = null;
  box.draw = () => {
    const made = draw();
    at = null;
    plot.setAttribute("aria-label", `${made.alt} Arrow keys go through the points.`);
    numbers.replaceChildren(numbers.firstChild, table(...made.table));
    Plotly.react(plot, made.traces, made.layout, CONFIG);
  };
  plot.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Escape") Plotly.Fx.unhover(plot);
    if (!steps) return;
    event.preventDefault();
    const map = plot.data[0].type === "heatmap";
    at = (map ? movedOnMap : moved)(plot, at, steps);
    if (at) tell(plot, at, map);
  });
  REDRAW.push(box);
  return box;
}

function moved(plot, at, [curves, points]) {
  const open = plot.data.map((trace, i) => [trace, i]).filter(([trace]) => trace.hoverinfo !== "skip").map(([, i]) => i);
  if (!open.length) return null;
  if (at === null) return [open[0], 0];
  const curve = open[Math.min(Math.max(open.indexOf(at[0]) + curves, 0), open.length - 1)];
  return [curve, Math.min(Math.max(at[1] + points, 0), plot.data[curve].y.length - 1)];
}

// In a heat map a step up or down is one to another row.
function movedOnMap(plot, at, [rows, columns]) {
  const { z } = plot.data[0];
  if (at === null) return [0, 0];
  return [Math.min(Math.max(at[0] - rows, 0), z.length - 1), Math.min(Math.max(at[1] + columns, 0), z[0].length - 1)];
}

function tell(plot, [first, second], map) {
  Plotly.Fx.hover(plot, map ? { xval: second, yval: first } : [{ curveNumber: first, pointNumber: second }], "xy");
  const trace = plot.data[map ? 0 : first];
  const said = (map ? trace.customdata[first]?.[second] : trace.customdata?.[second]) ?? [];
  document.getElementById("told").textContent = [trace.name, ...said].filter(Boolean).join(", ");
}

function section(id, heading, lead, ...content) {
  const made = element("section", { id, "aria-labelledby": `${id}-heading` }, element("h2", { id: `${id}-heading` }, heading), lead ? element("p", {}, lead) : null, content);
  document.getElementById("main").append(made);
  document.getElementById("contents").append(element("a", { href: `#${id}` }, heading));
  return made;
}

function metricGroups(metrics) {
  const groups = new Map();
  for (const metric of metrics) groups.set(metric.group, [...(groups.get(metric.group) ?? []), [metric.name, metric.label]]);
  return [...groups];
}

function layersSection({ metrics }, all) {
  const lines = all.filter((one) => one.sites.length > 1);
  if (!lines.length) return;
  let metric = metrics[0];
  const lengths = new Set(lines.map((one) => one.sites.length));
  let byDepth = lengths.size > 1;
  const convention = element("p", { class: "convention" });
  const box = figureBox(() => {
    const made = curves(lines, metric, byDepth);
    const bars = made.noisy ? "bars: what other data of the same kind would likely change, 95 %" : "";
    convention.textContent = [metric.convention.replaceAll("!=", "≠"), bars].filter(Boolean).join("; ");
    return made;
  });
  const switches = [
    select("Metric", metricGroups(metrics), metric.name, (name) => {
      metric = metrics.find((one) => one.name === name);
      box.draw();
    }),
  ];
  if (lengths.size > 1)
    switches.push(
      select("Layers by", [["", [["depth", "relative depth"], ["number", "number"]]]], "depth", (value) => {
        byDepth = value === "depth";
        box.draw();
      }),
    );
  section("layers", "Layer by layer", null, element("div", { class: "controls" }, switches), convention, box);
}

function driftSection(payload, all) {
  const lines = all.filter((one) => one.sites.filter((site) => site.layer).length > 2);
  if (!lines.length) return;
  let drift = "norm_of_mean";
  const told = element("ul", { class: "notes" });
  const box = figureBox(() => {
    told.replaceChildren(...correlations(lines, drift).map((sentence) => element("li", {}, sentence)));
    return drifts(lines, drift, payload.drifts[drift]);
  });
  const control = select("Drift", [["", Object.entries(payload.drifts)]], drift, (name) => {
    drift = name;
    box.draw();
  });
  const lead = "Does the mean explain the anisotropy? Where it does, layers with a larger drift have a larger mean cosine. Neighbouring layers are not independent: p is a description, not a test of a model.";
  section("drift", "Drift against anisotropy", lead, element("div", { class: "controls" }, control), box, told);
}

function siteSection(payload) {
  const runs = payload.runs;
  const names = [...new Set(runs.flatMap((run) => run.stacks.flatMap((stack) => stack.sites.map((site) => site.site))))];
  // Runs of other lengths have no last layer of one name: theirs are put side by side.
  const last = new Set(runs.map((run) => siteOf(run, LAST).site));
  let name = last.size > 1 ? LAST : [...last][0];
  const beside = element("div", { class: "beside" });
  const values = element("div", {});
  const spectrum = figureBox(() => spectra(runs, name));
  const none = element("p", {}, "No spectrum here: the run was made without second moments, or its states are not in the folder.");
  const show = () => {
    for (const old of beside.querySelectorAll("figure")) REDRAW.splice(REDRAW.indexOf(old), 1);
    const held = runs.filter((run) => siteOf(run, name));
    const boxes = held.map((run) => figureBox(() => topDimensions(run, name, held), { low: true }));
    beside.replaceChildren(...held.map((run, i) => element("div", {}, element("h3", {}, run.name), boxes[i])));
    const known = payload.metrics.filter((metric) => held.some((run) => metric.name in siteOf(run, name).values));
    const rows = known.map((metric) => [metric.label, ...held.map((run) => siteOf(run, name).values[metric.name] ?? null)]);
    values.replaceChildren(table(`All values of ${name}`, ["metric", ...held.map((run) => run.name)], rows));
    const any = held.some((run) => siteOf(run, name).spectrum?.length);
    spectrum.hidden = !any;
    none.hidden = any;
    for (const box of any ? [spectrum, ...boxes] : boxes) box.draw();
  };
  const control = select("Site", [["", [...(last.size > 1 ? [LAST] : []), ...names].map((one) => [one, one])]], name, (chosen) => {
    name = chosen;
    show();
  });
  section(
    "site", "Inside a site", null, names.length > 1 ? element("div", { class: "controls" }, control) : null,
    element("h3", {}, "Spectrum"), none, spectrum,
    element("h3", {}, "Dimensions that contribute most to the mean cosine"), beside,
    element("h3", {}, "Side by side"), values,
  );
  show();
}

function cosineSection({ runs }) {
  if (!runs.some((run) => run.pairs)) return;
  const lead = "Cosines of all pairs of rows, each visited once.";
  const box = figureBox(() => cosines(runs));
  section("cosines", "Distribution of the cosine", lead, box);
}
