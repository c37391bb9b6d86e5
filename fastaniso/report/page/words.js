"use strict";
// Elements and numbers as words. Text only ever goes in as text: names of models and files are not markup.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

function shown(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (value === 0 || Number.isInteger(value) && Math.abs(value) < 1e6) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(2).replace("e+", "e").replace("-", "−").replace("e-", "e−");
  return value.toLocaleString("en-US", { maximumSignificantDigits: 4 }).replace("-", "−");
}

// Beyond a millionth an approximation says no more than that.
function chance(p) {
  if (p < 1e-6) return "p < 1e−6";
  return `p = ${p < 1e-3 ? p.toExponential(1).replace("e-", "e−") : p.toPrecision(2)}`;
}

function signed(value) {
  return value === null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
}

function plural(count, word) {
  return `${count.toLocaleString("en-US")} ${word}${count === 1 ? "" : "s"}`;
}

function table(caption, head, rows, kind = "numbers") {
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    element(
      "table",
      { class: kind },
      element("caption", { class: kind === "words" ? "hidden" : false }, caption),
      head ? element("thead", {}, element("tr", {}, head.map((name) => element("th", { scope: "col" }, name)))) : null,
      element(
        "tbody",
        {},
        rows.map(([first, ...rest]) =>
          element("tr", {}, element("th", { scope: "row" }, first), rest.map((cell) => element("td", {}, shown(cell)))),
        ),
      ),
    ),
  );
}

function select(label, groups, chosen, change) {
  const option = ([value, name]) => element("option", { value, selected: value === chosen }, name);
  const options = groups.map(([group, items]) =>
    group ? element("optgroup", { label: group }, items.map(option)) : items.map(option),
  );
  const control = element("select", { onchange: (event) => change(event.target.value) }, options.flat());
  return element("label", { class: "control" }, element("span", {}, label), control);
}
