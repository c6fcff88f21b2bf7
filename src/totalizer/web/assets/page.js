"use strict";
// Totals by day of one rollup, asked for again and again. Everything shown is set as text, never as markup.
const REFRESH_MS = 2000;
const ROWS_SHOWN_MAX = 200;
const by = (id) => document.getElementById(id);
let rollups = [];
let timer = 0;
let asked = 0;

function key() {
  const fragment = new URLSearchParams(location.hash.slice(1)).get("key");
  if (fragment) {
    sessionStorage.setItem("key", fragment);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("key");
}

async function ask(path) {
  const answer = await fetch(path, { headers: { authorization: `Bearer ${key()}` } });
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.detail || answer.statusText), { status: answer.status });
  return body;
}

function options(select, values, kept) {
  select.replaceChildren(...values.map((value) => Object.assign(document.createElement("option"), { value, textContent: value || "—" })));
  if (values.includes(kept)) select.value = kept;
}

function chosen() {
  return rollups.find((rollup) => rollup.name === by("rollup").value);
}

function fillControls() {
  const rollup = chosen();
  options(by("measure"), rollup.measures, by("measure").value);
  options(by("dimension"), ["", ...rollup.dimensions], by("dimension").value || rollup.subject);
}

async function signIn() {
  const catalog = await ask("/api/catalog");
  rollups = catalog.rollups;
  options(by("rollup"), rollups.map((rollup) => rollup.name), sessionStorage.getItem("rollup"));
  fillControls();
  by("sign-in").hidden = true;
  by("totals").hidden = false;
  await refresh();
}

async function refresh() {
  clearTimeout(timer);
  const mine = ++asked;
  try {
    const rollup = chosen();
    const query = new URLSearchParams({
      event_type: rollup.event_type, aggregation_window: "1d", measures: by("measure").value, limit: "10000",
      start_date: new Date(Math.max(Date.now() - by("days").value * 86400000, 0)).toISOString().slice(0, 10),
    });
    if (by("dimension").value) query.set("group_by", by("dimension").value);
    const answer = await ask(`/api/metrics/aggregated?${query}`);
    if (mine === asked) show(answer);
  } catch (error) {
    if (error.status === 401 || error.status === 403) return signOut(error.message);
    by("freshness").textContent = `No answer: ${error.message}`;
  }
  if (mine === asked) timer = setTimeout(refresh, REFRESH_MS);
}

function show(answer) {
  const time = new Date(answer.as_of).toLocaleTimeString();
  const state = [answer.exact ? "exact" : "estimated", answer.complete ? "complete" : "more is being loaded"];
  by("freshness").textContent = `As of ${time}, ${state.join(", ")}; read from ${answer.source}.`;
  const measure = by("measure").value, dimension = by("dimension").value;
  by("empty").hidden = answer.data.length > 0;
  drawChart(answer.data, measure);
  drawTable(answer.data, measure, dimension);
}

function drawChart(rows, measure) {
  const days = new Map();
  for (const row of rows) {
    const day = row.window_start.slice(0, 10);
    days.set(day, (days.get(day) || 0) + (row[measure] || 0));
  }
  const width = 1000, height = 220, bottom = 24, top = Math.max(1, ...days.values());
  const svg = by("chart");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const step = width / Math.max(days.size, 1);
  const parts = [...days].flatMap(([day, total], index) => {
    const tall = (height - bottom - 12) * total / top;
    const bar = element("rect", { x: index * step + step * .1, y: height - bottom - tall, width: step * .8, height: tall });
    const title = element("title", {});
    title.textContent = `${day}: ${total.toLocaleString()} ${measure}`;
    bar.append(title);
    const every = Math.ceil(days.size / 12);
    if (index % every) return [bar];
    const label = element("text", { x: index * step + step / 2, y: height - 8, "text-anchor": "middle" });
    label.textContent = day;
    return [bar, label];
  });
  svg.replaceChildren(element("line", { x1: 0, x2: width, y1: height - bottom, y2: height - bottom }), ...parts);
}

function element(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
  return node;
}

function drawTable(rows, measure, dimension) {
  const names = ["day", ...(dimension ? [dimension] : []), measure];
  by("table").tHead.replaceChildren(tableRow("th", names, dimension));
  const newest = rows.slice(-ROWS_SHOWN_MAX).reverse();
  by("table").tBodies[0].replaceChildren(...newest.map((row) => tableRow("td", [
    row.window_start.slice(0, 10), ...(dimension ? [row[dimension] ?? "—"] : []), (row[measure] ?? 0).toLocaleString(),
  ], dimension)));
}

function tableRow(kind, texts, dimension) {
  const line = document.createElement("tr");
  line.append(...texts.map((text, index) => Object.assign(document.createElement(kind), {
    textContent: text, className: dimension && index === 1 ? "text" : "",
  })));
  return line;
}

function signOut(reason) {
  clearTimeout(timer);
  asked++;
  sessionStorage.removeItem("key");
  by("sign-in").hidden = false;
  by("totals").hidden = true;
  by("freshness").textContent = "Not signed in.";
  by("refusal").hidden = !reason;
  by("refusal").textContent = reason || "";
}

by("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", by("key").value.trim());
  by("key").value = "";
  signIn().catch((error) => signOut(error.message));
});
by("sign-out").addEventListener("click", () => signOut(""));
by("rollup").addEventListener("change", () => {
  sessionStorage.setItem("rollup", by("rollup").value);
  by("dimension").value = "";
  fillControls();
  refresh();
});
for (const id of ["measure", "dimension", "days"]) by(id).addEventListener("change", refresh);
if (key()) signIn().catch((error) => signOut(error.message));
