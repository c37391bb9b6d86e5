// Each figure: plotly's traces and layout, the same numbers as a table, and what it shows in a sentence.

// A line of a figure: one stack of one run. Its index gives its look everywhere on the page.
function linesOf(runs) {
  const lines = [];
  for (const run of runs)
    for (const stack of run.stacks) {
      const name = run.stacks.length > 1 ? `${run.name} ${stack.stack.replace(/\.$/, "")}` : run.name;
      lines.push({ run, ...stack, name, index: lines.length });
    }
  return lines;
}

function ticks(names) {
  const most = NARROW.matches ? 7 : 15;
  const step = Math.ceil(names.length / most);
  const last = names.length - 1;
  const at = names.map((_, i) => i).filter((i) => i === last || (i % step === 0 && last - i >= step));
  return { tickvals: at, ticktext: at.map((i) => names[i]) };
}

function curves(lines, metric, byDepth) {
  const held = lines.filter((one) => one.sites.some((site) => metric.name in site.values));
  const noisy = held.some((one) => one.sites.some((site) => metric.name in site.noise));
  const traces = held.map((one) => ({
    ...line(one.index),
    type: "scatter", mode: "lines+markers", name: one.name,
    x: one.sites.map((_, i) => (byDepth ? i / Math.max(one.sites.length - 1, 1) : i)),
    y: one.sites.map((site) => site.values[metric.name] ?? null),
    error_y: { array: one.sites.map((site) => site.noise[metric.name] ?? 0), thickness: 1.2, width: 4, visible: noisy, color: color(one.index) },
    customdata: one.sites.map((site) => [site.site, shown(site.values[metric.name]) + (noisy && site.noise[metric.name] ? ` ± ${shown(Number(site.noise[metric.name].toPrecision(2)))}` : "")]),
    hovertemplate: `${whose(held, one.name)}%{customdata[0]}: <b>%{customdata[1]}</b><extra></extra>`,
  }));
  const longest = held.reduce((a, b) => (b.sites.length > a.sites.length ? b : a), held[0]);
  const x = byDepth
    ? axis("depth, from the first site to the last", { zeroline: false, tickformat: ".0%" })
    : axis("layer", { ...ticks(longest.sites.map((site) => site.short)), zeroline: false, range: [-0.3, longest.sites.length - 0.7] });
  const names = [...new Set(held.flatMap((one) => one.sites.map((site) => site.site)))];
  const values = (name) => held.map((one) => one.sites.find((site) => site.site === name)?.values[metric.name] ?? null);
  const told = held.map((one) => {
    const known = one.sites.filter((site) => site.values[metric.name] !== undefined && site.values[metric.name] !== null);
    const [first, last] = [known[0], known[known.length - 1]];
    return `${one.name}: ${shown(first?.values[metric.name])} at ${first?.site}, ${shown(last?.values[metric.name])} at ${last?.site}`;
  });
  return {
    traces,
    noisy,
    layout: layout(x, axis(metric.label), { showlegend: held.length > 1, hovermode: byDepth ? "closest" : "x" }),
    table: [metric.label, ["site", ...held.map((one) => one.name)], names.map((name) => [name, ...values(name)])],
    alt: `${metric.label} over the layers. ${told.join("; ")}.`,
  };
}

function drifts(lines, drift, words) {
  const name = `drift.${drift}`;
  const held = lines.map((one) => ({ ...one, layers: one.sites.filter((site) => site.layer && name in site.values) }));
  const all = held.flatMap((one) => one.layers);
  const extent = [all.map((site) => site.values[name]), all.map((site) => site.values.mean_cosine)].map((v) => Math.max(...v) - Math.min(...v) || 1);
  const traces = held.map((one) => {
    const look = line(one.index);
    return {
      ...look, line: { ...look.line, width: 1 }, type: "scatter", mode: "lines+markers+text", name: one.name,
      x: one.layers.map((site) => site.values[name]),
      y: one.layers.map((site) => site.values.mean_cosine),
      text: apart(one.layers.map((site) => [site.values[name], site.values.mean_cosine]), extent).map((is, i) => (is ? one.layers[i].short : "")),
      textposition: "top center", textfont: { size: 11, color: css("soft") }, cliponaxis: false,
      customdata: one.layers.map((site) => [site.site, shown(site.values[name]), shown(site.values.mean_cosine)]),
      hovertemplate: `${whose(held, one.name)}<b>%{customdata[0]}</b><br>${words}: %{customdata[1]}<br>mean cosine: %{customdata[2]}<extra></extra>`,
    };
  });
  const rows = held.flatMap((one) => one.layers.map((site) => [`${one.name}, ${site.site}`, site.values[name], site.values.mean_cosine]));
  return {
    traces,
    layout: layout(axis(words, { zeroline: false }), axis("mean cosine"), { showlegend: held.length > 1 }),
    table: ["Drift against anisotropy", ["layer", words, "mean cosine"], rows],
    alt: `Mean cosine of each layer over its ${words}. ${correlations(held, drift).join(" ")}`,
  };
}

// Which points can be named: the first, the last, and those that no named one is near.
function apart(points, [width, height]) {
  const named = [];
  const near = ([x, y]) => named.some(([u, v]) => Math.abs(x - u) < 0.04 * width && Math.abs(y - v) < 0.08 * height);
  const order = [0, points.length - 1, ...points.keys()];
  for (const i of order) if (!near(points[i])) named.push(points[i]);
  return points.map((point) => named.includes(point));
}

function correlations(lines, drift) {
  return lines.map((one) => {
    const [rho, p, count, method] = one.correlations[drift];
    if (rho === null) return `${one.name}: fewer than three layers, or no spread; no correlation.`;
    return `${one.name}: Spearman ρ = ${signed(rho)}, ${chance(p)} over ${count} layers (two-sided, ${method}).`;
  });
}

function spectra(runs, name) {
  const held = runs.flatMap((run, i) => siteOf(run, name)?.spectrum?.length ? [{ run, index: run.look, site: siteOf(run, name) }] : []);
  const traces = held.map(({ run, index, site }) => ({
    type: "scatter", mode: "lines", name: run.name, line: line(index).line,
    x: site.spectrum.map(([rank]) => rank), y: site.spectrum.map(([, share]) => share),
    customdata: site.spectrum.map(([rank, share]) => [rank, shown(share)]),
    hovertemplate: `${whose(held, run.name)}rank %{customdata[0]}: <b>%{customdata[1]}</b><extra></extra>`,
  }));
  for (const dim of new Set(held.map(({ site }) => site.dim)))
    traces.push({
      type: "scatter", mode: "lines", name: `isotropic, 1/${dim}`, x: [1, dim], y: [1 / dim, 1 / dim],
      line: { color: css("faint"), width: 1.2, dash: "dot" }, hoverinfo: "skip",
    });
  const lowest = Math.log10(Math.min(...held.map(({ site }) => site.lowest)));
  const highest = Math.log10(Math.max(...held.map(({ site }) => site.spectrum[0][1]))) + 0.15;
  const ranks = [...new Set(held.flatMap(({ site }) => site.spectrum.map(([rank]) => rank)))].sort((a, b) => a - b);
  const share = (site, rank) => site.spectrum.find(([at]) => at === rank)?.[1] ?? null;
  const told = held.map(({ run, site }) => `${run.name}: ${shown(site.spectrum[0][1])} at rank 1, ${shown(site.spectrum[site.spectrum.length - 1][1])} at the last`);
  return {
    traces,
    layout: layout(axis("rank of the eigenvalue", { type: "log", zeroline: false, dtick: 1 }), axis("share of Σ‖x‖²", { type: "log", zeroline: false, dtick: 1, exponentformat: "power", range: [lowest, highest] }), { showlegend: true }),
    table: [`Spectrum of ${name}`, ["rank", ...held.map(({ run }) => run.name)], ranks.map((rank) => [rank, ...held.map(({ site }) => share(site, rank))])],
    alt: `Share of each eigenvalue of the uncentred second moments, ${name}. ${told.join("; ")}.`,
  };
}

// Bars of all runs share a scale: side by side they can be compared.
function topDimensions(run, name, runs) {
  const site = siteOf(run, name);
  const values = runs.flatMap((one) => siteOf(one, name)?.top.map(([, value]) => value) ?? []);
  const range = [Math.min(0, ...values) * 1.05, Math.max(0, ...values) * 1.05];
  return {
    traces: [{
      type: "bar", marker: { color: color(run.look) }, x: site.top.map((_, i) => i), y: site.top.map(([, value]) => value),
      customdata: site.top.map(([dimension, value]) => [dimension, shown(value)]),
      hovertemplate: "dimension %{customdata[0]}: <b>%{customdata[1]}</b><extra></extra>",
    }],
    layout: layout(axis("dimension", { tickvals: site.top.map((_, i) => i), ticktext: site.top.map(([dimension]) => String(dimension)), zeroline: false, showgrid: false }), axis("contribution", { range }), { bargap: 0.35, showlegend: false }),
    table: [`Dimensions that contribute most, ${run.name}, ${name}`, ["dimension", "contribution"], site.top],
    alt: `${run.name}, ${name}: dimension ${site.top[0]?.[0]} contributes most, ${shown(site.top[0]?.[1])} of a mean cosine of ${shown(site.values.mean_cosine)}.`,
  };
}

function cosines(runs) {
  const held = runs.filter((run) => run.pairs);
  const traces = held.map((run) => {
    const { edges, density } = run.pairs;
    return {
      type: "scatter", mode: "lines", name: run.name, x: edges, y: [...density, 0],
      line: { ...line(run.look).line, shape: "hv", width: 1.6, ...(held.length === 1 ? { dash: "solid" } : {}) }, fill: held.length === 1 ? "tozeroy" : "none",
      customdata: density.map((value, i) => [`${shown(edges[i])} to ${shown(edges[i + 1])}`, shown(value)]),
      hovertemplate: `${whose(held, run.name)}cosine %{customdata[0]}: density <b>%{customdata[1]}</b><extra></extra>`,
    };
  });
  const rows = held[0].pairs.quantiles.map(([q], i) => [`${q * 100} % quantile`, ...held.map((run) => run.pairs.quantiles[i][1])]);
  rows.unshift(["pairs", ...held.map((run) => run.pairs.pairs)], ["mean", ...held.map((run) => run.pairs.mean)], ["std", ...held.map((run) => run.pairs.std)]);
  return {
    traces,
    layout: layout(axis("cosine of a pair"), axis("density", { rangemode: "tozero" }), { showlegend: held.length > 1 }),
    table: ["Cosines of all pairs", ["", ...held.map((run) => run.name)], rows],
    alt: `Distribution of the cosine. ${held.map((run) => `${run.name}: mean ${shown(run.pairs.mean)}, std ${shown(run.pairs.std)}`).join("; ")}.`,
  };
}

const LAST = "the last layer of each run";

function siteOf(run, name) {
  if (name === LAST) return run.stacks[0].sites.filter((site) => site.layer).at(-1);
  return run.stacks.flatMap((stack) => stack.sites).find((site) => site.site === name);
}

// Whose value a label shows, where there are several.
function whose(held, name) {
  return held.length > 1 ? `${escaped(name)}<br>` : "";
}

// plotly reads a little markup in its texts.
function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("%{", "% {");
}
