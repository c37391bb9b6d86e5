// How figures look: Okabe and Ito's colours, told apart by dash and marker as well, on the page's own paper and ink.

const COLORS = {
  light: ["#0072b2", "#d55e00", "#009e73", "#a34f86", "#b57a00", "#3d8fc4", "#555555"],
  dark: ["#56b4e9", "#ff9b5e", "#2fc498", "#e39cc6", "#f0c04a", "#9fd4f5", "#b8b8b8"],
};
const DASHES = ["solid", "dash", "dashdot", "dot", "longdash", "longdashdot", "solid"];
const MARKERS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "star", "x"];
const SIZES = [7, 7, 9, 8, 9, 10, 8];
const DARK = matchMedia("(prefers-color-scheme: dark)");
const NARROW = matchMedia("(max-width: 520px)");

function color(index) {
  const palette = COLORS[DARK.matches ? "dark" : "light"];
  return palette[index % palette.length];
}

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function line(index) {
  return {
    line: { color: color(index), width: 2, dash: DASHES[index % DASHES.length] },
    marker: { color: color(index), size: SIZES[index % MARKERS.length], symbol: MARKERS[index % MARKERS.length], line: { color: css("paper"), width: 1 } },
  };
}

// The same look beside a name: a piece of the line with its marker.
function swatch(index) {
  const space = "http://www.w3.org/2000/svg";
  const drawn = document.createElementNS(space, "svg");
  const attributes = { width: 30, height: 14, viewBox: "0 0 30 14", "aria-hidden": "true", class: "swatch" };
  for (const [name, value] of Object.entries(attributes)) drawn.setAttribute(name, value);
  const dash = { solid: "", dash: "6 3", dashdot: "6 2 2 2", dot: "2 3", longdash: "9 3", longdashdot: "9 2 2 2" };
  const stroke = document.createElementNS(space, "path");
  stroke.setAttribute("d", "M0 7H30");
  stroke.setAttribute("stroke", color(index));
  stroke.setAttribute("stroke-width", 2);
  stroke.setAttribute("stroke-dasharray", dash[DASHES[index % DASHES.length]]);
  const shapes = [
    "M11 7a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z", "M11 3H19V11H11Z", "M15 2L20 11H10Z", "M15 2L20 7L15 12L10 7Z", "M15 12L20 3H10Z",
    "M15 1L17 6H21L18 9L19 13L15 10L11 13L12 9L9 6H13Z", "M11 4L12 3L15 6L18 3L19 4L16 7L19 10L18 11L15 8L12 11L11 10L14 7Z",
  ];
  const marker = document.createElementNS(space, "path");
  marker.setAttribute("d", shapes[index % shapes.length]);
  marker.setAttribute("fill", color(index));
  drawn.append(stroke, marker);
  return drawn;
}

function axis(title, more = {}) {
  return {
    title: { text: title, standoff: 10, font: { size: 13, color: css("soft") } },
    gridcolor: css("grid"), linecolor: css("line"), zerolinecolor: css("line"), tickcolor: css("line"),
    zeroline: true, fixedrange: true, automargin: true, ...more,
  };
}

function layout(x, y, more = {}) {
  return {
    font: { family: css("sans"), size: 12.5, color: css("ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 58, r: 14, t: 18, b: 48 },
    xaxis: x, yaxis: y, dragmode: false, hovermode: "closest",
    hoverlabel: { bgcolor: css("card"), bordercolor: css("line"), font: { family: css("sans"), size: 13, color: css("ink") }, namelength: -1 },
    legend: { orientation: "h", traceorder: "normal", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12.5 } },
    ...more,
  };
}

const CONFIG = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };
