// Queries, keys and attention: a heat map of the heads of each run, and the heads' mean and range over the layers.

function headRows(run, name) {
  return run.attentions.filter((one) => name in one.values).map((one) => ({ site: one.site, short: one.short, values: one.values[name] }));
}

function headRange(runs, value) {
  const all = runs.flatMap((run) => headRows(run, value.name).flatMap((row) => row.values)).filter((one) => one !== null);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
  return value.group === "signed" ? [-most, most] : [low, high];
}

function headMap(run, value, [low, high]) {
  const rows = headRows(run, value.name);
  const heads = Math.max(...rows.map((row) => row.values.length));
  const names = rows.map((row) => row.short);
  const { tickvals, ticktext } = ticks(names);
  return {
    traces: [{
      type: "heatmap", z: rows.map((row) => row.values), x: [...Array(heads).keys()], y: [...names.keys()],
      zmin: low, zmax: high, colorscale: value.group === "signed" ? diverging() : "Cividis", xgap: 1, ygap: 1, hoverongaps: false,
      colorbar: { thickness: 10, outlinewidth: 0, tickfont: { size: 11.5 }, len: 1 },
      customdata: rows.map((row) => row.values.map((one, head) => [`${row.site}, head ${head}`, shown(one)])),
      hovertemplate: "%{customdata[0]}: <b>%{customdata[1]}</b><extra></extra>",
    }],
    layout: layout(
      axis("head", { zeroline: false, showgrid: false, tickformat: "d", dtick: heads > 16 ? 4 : 1 }),
      axis("attention", { zeroline: false, showgrid: false, tickvals, ticktext }),
    ),
    table: [`${value.label}, ${run.name}`, ["attention", ...[...Array(heads).keys()].map((head) => `head ${head}`)], rows.map((row) => [row.site, ...row.values])],
    alt: `${value.label} of each head, ${run.name}: ${rows.length} attentions of ${heads} heads, from ${shown(low)} to ${shown(high)} on a common scale.`,
  };
}

function diverging() {
  const middle = css("paper");
  return [[0, color(0)], [0.5, middle], [1, color(1)]];
}

function headCurves(runs, value) {
  const held = runs.map((run) => ({ run, rows: headRows(run, value.name) })).filter(({ rows }) => rows.length);
  const known = (row) => row.values.filter((one) => one !== null);
  const mean = (row) => (known(row).length ? known(row).reduce((a, b) => a + b, 0) / known(row).length : null);
  const end = (pick) => (row) => (known(row).length ? pick(...known(row)) : null);
  const traces = held.flatMap(({ run, rows }) => {
    const x = rows.map((_, i) => i);
    const edge = { type: "scatter", mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false, x };
    return [
      { ...edge, y: rows.map(end(Math.min)) },
      { ...edge, y: rows.map(end(Math.max)), fill: "tonexty", fillcolor: `${color(run.look)}22` },
      {
        ...line(run.look), type: "scatter", mode: "lines+markers", name: run.name, x, y: rows.map(mean),
        customdata: rows.map((row) => [row.site, `${shown(mean(row))}, heads from ${shown(end(Math.min)(row))} to ${shown(end(Math.max)(row))}`]),
        hovertemplate: `${whose(held, run.name)}%{customdata[0]}: <b>%{customdata[1]}</b><extra></extra>`,
      },
    ];
  });
  const longest = held.reduce((a, b) => (b.rows.length > a.rows.length ? b : a));
  const sites = [...new Set(held.flatMap(({ rows }) => rows.map((row) => row.site)))];
  const cells = (site) => held.flatMap(({ rows }) => {
    const row = rows.find((one) => one.site === site);
    return row ? [mean(row), end(Math.min)(row), end(Math.max)(row)] : [null, null, null];
  });
  return {
    traces,
    layout: layout(axis("attention", { ...ticks(longest.rows.map((row) => row.short)), zeroline: false }), axis(value.label), { showlegend: held.length > 1 }),
    table: [`${value.label} over the layers`, ["attention", ...held.flatMap(({ run }) => [`${run.name}, mean of heads`, "least", "largest"])], sites.map((site) => [site, ...cells(site)])],
    alt: `${value.label}, mean over the heads of each attention. ${held.map(({ run, rows }) => `${run.name}: ${shown(mean(rows[0]))} at ${rows[0].site}, ${shown(mean(rows[rows.length - 1]))} at ${rows[rows.length - 1].site}`).join("; ")}.`,
  };
}

const SINK = 0.3;

function sinks(run) {
  const heads = headRows(run, "first_key").flatMap((row) => row.values).filter((one) => one !== null);
  const above = heads.filter((one) => one > SINK).length;
  return heads.length ? `${run.name}: ${above} of ${heads.length} heads give their first key more than ${SINK} of the attention (sink rate ${shown(above / heads.length)}).` : null;
}

function headsSection(payload) {
  const runs = payload.runs.filter((run) => run.attentions.length);
  if (!runs.length) return;
  const named = (name) => payload.heads.find((one) => one.name === name);
  let value = named("normalized_entropy") ?? payload.heads[0];
  const convention = element("p", { class: "convention" });
  const beside = element("div", { class: "beside" });
  const over = figureBox(() => headCurves(runs, value));
  const show = () => {
    convention.textContent = value.convention;
    for (const old of beside.querySelectorAll("figure")) REDRAW.splice(REDRAW.indexOf(old), 1);
    const held = runs.filter((run) => headRows(run, value.name).length);
    const range = headRange(held, value);
    const boxes = held.map((run) => figureBox(() => headMap(run, value, range)));
    beside.replaceChildren(...held.map((run, i) => element("div", {}, element("h3", {}, run.name), boxes[i])));
    for (const box of [over, ...boxes]) box.draw();
  };
  const group = (one) => (one.name.startsWith("before_rotation.") ? "Before rotation" : /queries|keys|means/.test(one.name) ? "Queries and keys" : "Scores and softmax");
  const groups = new Map();
  for (const one of payload.heads) groups.set(group(one), [...(groups.get(group(one)) ?? []), [one.name, one.label]]);
  const control = select("Value", [...groups], value.name, (name) => {
    value = named(name);
    show();
  });
  section(
    "attention", "Queries, keys, attention", "Each head of each attention, on one scale for all runs; below, the mean of the heads with the least and the largest.",
    element("div", { class: "controls" }, control), convention, beside,
    element("ul", { class: "notes" }, runs.map(sinks).filter(Boolean).map((sentence) => element("li", {}, sentence))),
    element("h3", {}, "Over the layers"), over,
  );
  show();
}
