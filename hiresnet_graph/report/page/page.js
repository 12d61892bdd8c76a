// The page of a report. All numbers come from the JSON in #data; Vega draws the charts.
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const state = { baseline: data.baseline, chosen: "", hidden: new Set(), level: data.levels.at(-1) ?? null, sort: null, isLog: false };
const views = new Map();
const byId = (id) => document.getElementById(id);

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const signed = (value) => (value === null || value === undefined ? "-" : (value < 0 ? "-" : "+") + Math.abs(value).toFixed(2));
function si(value) {
  const [unit, size] = value >= 1e9 ? ["G", 1e9] : value >= 1e6 ? ["M", 1e6] : value >= 1e3 ? ["k", 1e3] : ["", 1];
  return unit ? `${(value / size).toPrecision(4)} ${unit}` : `${value}`;
}
const count = (value) => value.toLocaleString("en-US");

// ---- the table

const scores = new Map(data.networks.map((one) => [one.label, Object.values(one.seeds)]));
const everything = [...scores.values()].flat();
const [low, high] = [Math.min(...everything), Math.max(...everything)];
const order = new Map(data.networks.map((one, i) => [one.label, i]));
// A difference: its value, its p value, and the cells of the report: value, interval, p and what is detectable.
const between = (label, baseline) => data.comparisons[baseline]?.differences[order.get(label)] ?? [];
const difference = (one) => between(one.label, state.baseline);

const longest = Math.max(0, ...Object.values(data.curves).flat().map((curve) => curve.length));

function epochsTo(one) {
  if (state.level === null) return [];
  return (data.curves[one.label] ?? []).map((curve) => {
    const at = curve.findIndex((value) => value >= state.level);
    return at < 0 ? null : at + 1;
  });
}

// A mean of the seeds that got there would favour networks that rarely do.
function epochsText(one) {
  const found = epochsTo(one);
  const missing = found.filter((epoch) => epoch === null).length;
  if (!found.length) return "-";
  return missing ? `${missing} of ${found.length} never` : mean(found).toFixed(1);
}

// Networks that did not get there with every seed are behind all others: those that missed it most often are last.
function epochsOrder(one) {
  const found = epochsTo(one);
  const missing = found.filter((epoch) => epoch === null).length;
  if (!found.length) return null;
  return missing ? longest + missing / found.length : mean(found);
}

function randomDifference(one) {
  const found = one.random.map((label) => between(one.label, label)[0]).filter((value) => value !== undefined);
  return found.length ? mean(found) : null;
}

const columns = [
  { id: "variant", title: "variant", isText: true, sort: (one) => one.label, text: (one) => [one.label, ...one.also].join(" = ") },
  { id: "accuracy", title: "test accuracy", sort: (one) => (scores.get(one.label).length ? mean(scores.get(one.label)) : null), text: (one) => one.accuracy },
  { id: "seeds", title: "seeds", node: dots },
  { id: "n", title: "n", sort: (one) => scores.get(one.label).length, text: runsText },
  { id: "parameters", title: "parameters", sort: (one) => one.parameters, text: (one) => count(one.parameters) },
  { id: "macs", title: "MACs", sort: (one) => one.macs, text: (one) => si(one.macs) },
  { id: "difference", title: "difference", sort: (one) => difference(one)[0] ?? null, text: (one) => difference(one)[2] ?? "-" },
  { id: "interval", title: "95 % CI", text: (one) => difference(one)[3] ?? "-" },
  { id: "p", title: "p (Holm)", sort: (one) => difference(one)[1] ?? null, text: (one) => difference(one)[4] ?? "-" },
  { id: "detectable", title: "detectable", text: (one) => difference(one)[5] ?? "-" },
  { id: "random", title: "against random edges", sort: randomDifference, text: (one) => signed(randomDifference(one)), isShown: data.networks.some((one) => one.random.length) },
  { id: "published", title: "published", sort: (one) => one.published?.mean ?? null, text: publishedText, isShown: data.networks.some((one) => one.published) },
  { id: "epochs", title: () => `epochs to ${state.level} %`, sort: epochsOrder, text: epochsText, isShown: data.levels.length > 0 },
].filter((column) => column.isShown !== false);

function runsText(one) {
  const parts = [scores.get(one.label).length === one.runs ? `${one.runs}` : `${scores.get(one.label).length} of ${one.runs}`];
  if (one.failed) parts.push(`${one.failed} failed`);
  return parts.join(", ");
}
function publishedText(one) {
  if (!one.published) return "-";
  return one.published.mean.toFixed(2) + (one.published.std ? ` (${one.published.std.toFixed(2)})` : "");
}
function dots(one) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", 90);
  svg.setAttribute("height", 14);
  for (const [seed, value] of Object.entries(one.seeds)) {
    const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    dot.setAttribute("cx", 5 + (high > low ? (80 * (value - low)) / (high - low) : 40));
    dot.setAttribute("cy", 7);
    dot.setAttribute("r", 3.5);
    dot.setAttribute("fill", "var(--accent)");
    dot.setAttribute("fill-opacity", 0.6);
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = `seed ${seed}: ${value.toFixed(2)} %`;
    dot.append(title);
    svg.append(dot);
  }
  return svg;
}

function sorted() {
  if (!state.sort) return data.networks;
  const column = columns.find((one) => one.id === state.sort.id);
  const order = state.sort.isUp ? 1 : -1;
  return [...data.networks].sort((a, b) => {
    const [x, y] = [column.sort(a), column.sort(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return order * (typeof x === "string" ? x.localeCompare(y, "en") : x - y);
  });
}

function drawTable() {
  const head = element("tr");
  head.append(element("th", "shown", { class: "text" }));
  for (const column of columns) {
    const title = typeof column.title === "function" ? column.title() : column.title;
    const cell = element("th", title, { class: column.isText ? "text" : "", "data-column": column.id });
    if (column.sort) {
      cell.tabIndex = 0;
      cell.addEventListener("click", () => sortBy(column.id));
      cell.addEventListener("keydown", (event) => event.key === "Enter" && sortBy(column.id));
    }
    if (state.sort?.id === column.id) cell.setAttribute("aria-sort", state.sort.isUp ? "ascending" : "descending");
    head.append(cell);
  }
  byId("table").tHead.replaceChildren(head);
  byId("table").tBodies[0].replaceChildren(...sorted().map(row));
}

function row(one) {
  const made = element("tr", "", { "data-label": one.label });
  made.classList.toggle("chosen", state.chosen === one.label);
  made.classList.toggle("hidden", state.hidden.has(one.label));
  const box = element("input", "", { type: "checkbox", "aria-label": `show ${one.label}` });
  box.checked = !state.hidden.has(one.label);
  box.addEventListener("click", (event) => {
    event.stopPropagation();
    state.hidden[box.checked ? "delete" : "add"](one.label);
    update();
  });
  const first = element("td", "", { class: "text" });
  first.append(box);
  made.append(first);
  for (const column of columns) {
    const cell = element("td", column.text ? column.text(one) : "", { class: column.isText ? "text" : "" });
    if (column.isText) cell.title = cell.textContent;
    if (column.node) cell.append(column.node(one));
    made.append(cell);
  }
  made.addEventListener("click", () => choose(one.label));
  return made;
}

function sortBy(id) {
  state.sort = { id, isUp: state.sort?.id === id ? !state.sort.isUp : id === "variant" };
  drawTable();
}

// ---- highlighting and choices, in all parts at once

function choose(label) {
  state.chosen = state.chosen === label ? "" : label;
  update();
}

function update() {
  drawTable();
  showComparison();
  markChosen();
  const shown = data.networks.map((one) => one.label).filter((label) => !state.hidden.has(label));
  for (const view of views.values()) view.signal("chosen", state.chosen).signal("shown", shown).runAsync();
}

// The sentences about the chosen baseline.
function showComparison() {
  const found = data.comparisons[state.baseline];
  const epochs = "epochs to: mean over seeds of the first epoch with at least this validation accuracy; none where a seed never reaches it.";
  byId("conclusion").textContent = found?.conclusion ?? data.conclusion;
  const parts = [data.captions.table, found?.caption, data.levels.length && epochs];
  byId("table-caption").textContent = parts.filter(Boolean).join(" ");
}

// ---- charts

// Rows of the columns that the page stores: of each column its different values, and their index for each row.
function rows(columns) {
  const names = Object.keys(columns);
  return columns[names[0]][1].map((_, i) => Object.fromEntries(names.map((name) => [name, columns[name][0][columns[name][1][i]]])));
}

function themed(spec) {
  const isDark = root.dataset.theme === "dark";
  const [ink, soft, line] = isDark ? ["#e8e8e8", "#a8a8a8", "#3c3c3c"] : ["#222222", "#5a5a5a", "#d8d8d8"];
  const copy = JSON.parse(JSON.stringify(spec).replaceAll("#222222", ink));
  for (const name of Object.keys(copy.datasets)) copy.datasets[name] = rows(copy.datasets[name]);
  copy.background = "transparent";
  copy.width = "container";
  copy.config = {
    ...copy.config,
    // Enough lines to read numbers off, whatever the width of the chart is.
    axisX: { tickCount: { expr: "ceil(width / 100)" } },
    axis: { ...copy.config?.axis, labelColor: ink, titleColor: ink, gridColor: line, domainColor: soft, tickColor: soft },
    legend: { labelColor: ink, titleColor: ink },
    text: { color: ink, fill: ink },
  };
  if (state.isLog) setLog(copy);
  return copy;
}

function setLog(spec) {
  for (const part of [spec, ...(spec.layer ?? [])]) {
    if (part.encoding?.x?.field === "parameters") part.encoding.x.scale = { type: "log", nice: true };
    if (part !== spec && part.layer) setLog(part);
  }
}

async function drawChart(kind) {
  views.get(kind)?.finalize();
  const found = await window.vegaEmbed(byId(`chart-${kind}`), themed(data.charts[kind]), {
    mode: "vega-lite",
    renderer: "svg",
    actions: { export: true, source: false, compiled: false, editor: false },
  });
  views.set(kind, found.view);
  found.view.addEventListener("click", (event, item) => item?.datum?.label && choose(item.datum.label));
  const shown = data.networks.map((one) => one.label).filter((label) => !state.hidden.has(label));
  await found.view.signal("chosen", state.chosen).signal("shown", shown).runAsync();
}

const drawCharts = () => Promise.all(Object.keys(data.charts).map(drawChart));

function addCharts() {
  for (const kind of Object.keys(data.charts)) {
    const section = element("section");
    section.append(element("h2", data.titles[kind]));
    if (data.answers?.[kind]) section.append(element("p", data.answers[kind]));
    section.append(element("div", "", { id: `chart-${kind}`, class: "chart" }));
    if (data.tables?.[kind]) section.append(foldable(plainTable(data.tables[kind]), data.tables[kind].rows.length));
    if (data.captions[kind]) section.append(element("p", data.captions[kind], { class: "caption" }));
    byId("charts").append(section);
  }
}

// A long table is folded.
function foldable(table, rows) {
  if (rows <= 20) return table;
  const made = element("details");
  made.append(element("summary", `Table (${rows} rows)`), table);
  return made;
}

function plainTable({ columns, rows }) {
  const kind = (i) => ({ class: columns[i][1] ? "" : "text" });
  const line = (name, cells) => {
    const made = element("tr");
    made.append(...cells.map((text, i) => element(name, text, kind(i))));
    return made;
  };
  const [frame, table, head, body] = [element("div", "", { class: "scroll" }), element("table"), element("thead"), element("tbody")];
  head.append(line("th", columns.map(([header]) => header)));
  body.append(...rows.map((cells) => line("td", cells)));
  table.append(head, body);
  frame.append(table);
  return frame;
}

// ---- the network, with the effects on its arcs

function arcs(edge) {
  const ending = "." + edge.replace(">", "__");
  return [...document.querySelectorAll("#diagram g.edge")].filter((group) => group.id.endsWith(ending) && !group.id.startsWith("edge.flow."));
}

// The skips of the chosen variant; those of others are faint.
function markChosen() {
  const chosen = data.networks.find((one) => one.label === state.chosen);
  const own = new Set(chosen?.edges.flatMap(arcs));
  for (const group of document.querySelectorAll("#diagram g.edge")) {
    const isFaint = chosen && !group.id.startsWith("edge.flow.") && !own.has(group);
    for (const part of [group, ...document.querySelectorAll(`#diagram text[data-arc="${CSS.escape(group.id)}"]`)]) part.setAttribute("opacity", isFaint ? 0.12 : 1);
  }
  for (const item of byId("variants").children) item.classList.toggle("chosen", item.dataset.variant === chosen?.variant);
}

// The skips of each variant that is not named after them.
function listVariants() {
  const variants = new Map(data.networks.map((one) => [one.variant, one]));
  if (new Set(data.networks.map((one) => one.edges.join())).size < 2) return;
  // Variants that are named by their edges need no explanation.
  const isNamed = (one) => one.edges.length && one.variant === one.edges.join(" + ");
  const explained = [...variants.values()].filter((one) => !isNamed(one));
  for (const one of explained.some((one) => one.edges.length) ? explained : []) {
    const item = element("div", "", { "data-variant": one.variant });
    const skips = one.edges.length ? one.edges.join(", ") : "no skips";
    item.append(element("dt", one.variant), element("dd", skips));
    item.addEventListener("click", () => choose(one.label));
    byId("variants").append(item);
    byId("diagram").hidden = false;
  }
}

function markDiagram() {
  const svg = document.querySelector("#diagram svg");
  if (!svg) return;
  byId("diagram").hidden = false;
  const largest = Math.max(...data.effects.map((one) => Math.abs(one.value)), 1e-9);
  let marked = 0;
  for (const one of data.effects) {
    for (const group of arcs(one.edge)) {
      const color = one.value >= 0 ? "#0072b2" : "#d55e00";
      const isSure = one.p !== null && one.p < 0.05;
      for (const path of group.querySelectorAll("path")) {
        path.setAttribute("stroke", color);
        path.setAttribute("stroke-width", 1 + (5 * Math.abs(one.value)) / largest);
        path.setAttribute("stroke-opacity", isSure ? 1 : 0.45);
        path.removeAttribute("stroke-dasharray");
      }
      mark(group, signed(one.value), color);
      for (const arrow of group.querySelectorAll("polygon")) { arrow.setAttribute("fill", color); arrow.setAttribute("stroke", color); }
      marked += 1;
    }
  }
  // Colours and dashes do not show distances any more.
  for (const line of marked ? svg.querySelectorAll("text") : []) if (/^(distance|colour and dashes) of skips:/.test(line.textContent)) line.remove();
  byId("diagram-caption").textContent = marked
    ? "Width and number: the main effect of the edge in points of test accuracy, with the edge minus without it; blue where it raises accuracy, orange where it lowers it; pale where p (Holm) is at least 0.05." + (data.effects_at && ` At ${data.effects_at}.`)
    : data.networks.every((one) => one.edges.every((edge) => arcs(edge).length)) ? "The network with the skips of all variants." : "The network with the most skips.";
}

// The number takes the place of the text of the edge, or stands at its middle.
function mark(group, text, color) {
  const [first, ...others] = group.querySelectorAll("text");
  for (const other of others) other.remove();
  if (!first) return label(group, text, color);
  first.textContent = text;
  first.setAttribute("fill", color);
  first.setAttribute("font-weight", "bold");
}

function label(group, text, color) {
  const path = group.querySelector("path");
  const middle = path.getPointAtLength(path.getTotalLength() / 2);
  const made = document.createElementNS("http://www.w3.org/2000/svg", "text");
  for (const [name, value] of Object.entries({ x: middle.x, y: middle.y - 4, "text-anchor": "middle", "font-size": 9, "font-family": "sans-serif", fill: color, stroke: "var(--picture)", "stroke-width": 3, "paint-order": "stroke" })) made.setAttribute(name, value);
  made.textContent = text;
  made.dataset.arc = group.id;
  path.ownerSVGElement.append(made);
}

// ---- parts that are wider than the page

// A frame that can be scrolled sideways fades out at its right edge, and says so.
function watchWidth(frame) {
  const hint = element("p", "Scroll sideways for the rest \u2192", { class: "hint" });
  frame.before(hint);
  const look = () => {
    hint.hidden = frame.scrollWidth <= frame.clientWidth + 1;
    frame.classList.toggle("more", frame.scrollLeft + frame.clientWidth < frame.scrollWidth - 1);
  };
  frame.addEventListener("scroll", look);
  const observer = new ResizeObserver(look);
  for (const part of [frame, ...frame.children]) observer.observe(part);
}

// ---- provenance

function addProvenance() {
  const section = byId("provenance");
  const list = element("dl");
  const add = (name, value) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    list.append(pair);
  };
  add("data", data.provenance.data);
  add("seeds", data.provenance.seeds.join(", "));
  for (const [name, value] of Object.entries(data.provenance.recipe)) {
    const isObject = value !== null && typeof value === "object";
    if (value === null || (isObject && !Object.keys(value).length)) continue;
    const text = Array.isArray(value) ? value.join(", ") : isObject ? Object.entries(value).map(([key, item]) => `${key}: ${item}`).join(", ") : String(value);
    add(name.replaceAll("_", " "), text);
  }
  section.append(list);
  for (const machine of data.provenance.machines) {
    const { runs, ...rest } = machine;
    section.append(element("p", `${runs} runs: ${Object.entries(rest).filter(([, value]) => value !== null && value !== "" && value?.length !== 0).map(([name, value]) => `${name} ${value}`).join(", ")}`, { class: "caption" }));
  }
  if (data.provenance.failed.length) fold(section, `Failed runs (${data.provenance.failed.length})`, data.provenance.failed.join("\n"), true);
  if (data.study) fold(section, "Study file (hrg ablate FILE -o DIR trains it)", data.study, false);
  if (data.spec) fold(section, "Spec of the network with the most edges", data.spec, false);
}

function fold(section, title, text, isOpen) {
  const made = element("details");
  made.open = isOpen;
  made.append(element("summary", title), element("pre", text));
  section.append(made);
}

// ---- controls

function addControls() {
  const select = byId("baseline");
  const names = Object.keys(data.comparisons);
  for (const name of names.length ? names : [data.baseline]) select.append(element("option", name, { value: name }));
  select.value = state.baseline;
  select.addEventListener("change", () => { state.baseline = select.value; update(); });
  const level = byId("level");
  if (state.level === null) level.parentElement.hidden = true;
  else level.value = state.level;
  level.addEventListener("change", () => { state.level = level.value === "" ? null : Number(level.value); update(); });
  byId("log").addEventListener("change", (event) => { state.isLog = event.target.checked; drawChart("pareto"); });
  if (!data.charts.pareto) byId("log").parentElement.hidden = true;
  byId("all").addEventListener("click", () => { state.hidden.clear(); state.chosen = ""; update(); });
  const isDark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(isDark ? "dark" : "light");
  byId("theme").addEventListener("click", () => { setTheme(root.dataset.theme === "dark" ? "light" : "dark"); drawCharts(); });
}

function setTheme(name) {
  root.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-pressed", String(name === "dark"));
}

addControls();
drawTable();
showComparison();
addCharts();
markDiagram();
listVariants();
addProvenance();
for (const frame of document.querySelectorAll(".scroll")) watchWidth(frame);
await drawCharts();
root.dataset.ready = "true";
