"use strict";
// Keeps the page up to date: asks for it again, and puts what changed in the place of what was. Everything is there
// without this script, but for the chart.
const REFRESH_MS = 2000;
const ASK_MS = 15000;
const CHART_EVERY = 5;
const WHAT = ["not loaded", "not rolled up"];
const by = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
let drawn = null;
let loading = null;
let drawing = Promise.resolve();
let turns = 0;

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(ASK_MS) });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer;
}

// What somebody is at stays as it is: a form that is filled in, a question that was opened.
function inUse(region) {
  return region.contains(document.activeElement) && document.activeElement !== region || region.querySelector("details[open]");
}

async function refresh() {
  const text = await (await ask(location.pathname + location.search)).text();
  const fresh = new DOMParser().parseFromString(text, "text/html");
  if (!fresh.getElementById("cards")) return stale("You are signed out. Load the page again to sign in.");
  for (const region of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(region.id);
    if (other && other.innerHTML !== region.innerHTML && !inUse(region)) {
      region.replaceChildren(...document.importNode(other, true).childNodes);
      region.className = other.className;
    }
  }
  stale("");
}

function stale(why) {
  by("stale").hidden = !why;
  if (by("stale").textContent !== why) by("stale").textContent = why;
}

async function turn() {
  if (!document.hidden) {
    const since = new Date().toLocaleTimeString();
    try {
      await refresh();
      if (turns++ % CHART_EVERY === 0) await draw();
    } catch (error) {
      if (by("stale").hidden) stale(`Not up to date since ${since}: ${error.message}`);
    }
  }
  setTimeout(turn, REFRESH_MS);
}

function spec(width, values, colours) {
  return {
    width, height: 130, padding: 0, background: null, data: { name: "lag", values },
    mark: { type: "line", interpolate: "monotone", strokeWidth: 2 },
    encoding: {
      x: { field: "at", type: "temporal", title: null, axis: { format: "%H:%M", tickCount: 6, grid: false } },
      y: { field: "seconds", type: "quantitative", title: null, axis: { tickCount: 4 }, scale: { domain: { unionWith: [0, 10] } } },
      color: { field: "what", type: "nominal", title: null, scale: { domain: WHAT, range: colours.lines },
        legend: { orient: "top", direction: "horizontal", offset: 4, symbolType: "stroke" } },
      strokeDash: { field: "what", type: "nominal", title: null, scale: { domain: WHAT, range: [[1, 0], [5, 3]] } },
    },
    config: {
      view: { stroke: null }, font: "system-ui, sans-serif",
      axis: { labelColor: colours.text, domainColor: colours.grid, tickColor: colours.grid, gridColor: colours.grid },
      legend: { labelColor: colours.text },
    },
  };
}

function colours() {
  return dark.matches
    ? { text: "#a0a5b1", grid: "#343842", lines: ["#8fb0ff", "#f3bd5c"] }
    : { text: "#5c606b", grid: "#e0e1e5", lines: ["#2450c4", "#b26a00"] };
}

async function chart() {
  const box = by("chart");
  const { samples } = await (await ask(box.dataset.src)).json();
  if (samples.length < 2) return;
  const values = samples.flatMap(({ at, load_s, rollup_s }) => [
    { at, what: WHAT[0], seconds: load_s }, { at, what: WHAT[1], seconds: rollup_s },
  ]);
  if (drawn) return drawn.view.data("lag", values).resize().runAsync();
  await library(box.dataset.script);
  box.parentElement.hidden = false;
  // `ast`: expressions are interpreted, so that nothing is evaluated, which the page's policy forbids.
  const options = { ast: true, actions: false, defaultStyle: false, tooltip: false, renderer: "canvas" };
  drawn = await vegaEmbed(box, spec(box.clientWidth - 60, values, colours()), options);
  return undefined;
}

// One after the other: a page that is resized is drawn again while it is being drawn.
function draw() {
  return drawing = drawing.then(chart, chart);
}

function library(src) {
  return loading ??= new Promise((done, failed) => {
    const script = Object.assign(document.createElement("script"), { src, onload: done });
    script.onerror = () => failed(new Error("the chart library cannot be loaded"));
    document.head.append(script);
  });
}

function redraw() {
  if (!drawn) return;
  drawn.finalize();
  drawn = null;
  draw().catch((error) => stale(error.message));
}

if (by("chart")) {
  dark.addEventListener("change", redraw);
  addEventListener("resize", redraw);
  draw().catch((error) => stale(error.message));
  setTimeout(turn, REFRESH_MS);
}
