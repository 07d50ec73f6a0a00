/** Builds the page from its parts. */

import { Atlas } from "explorer/atlas.js";
import { helpRows, listenToKeys } from "explorer/controls.js";
import { Decoder, readData } from "explorer/data.js";
import { fillLegend } from "explorer/drawing.js";
import { boxOf, middleOf, nearest } from "explorer/geometry.js";
import { LatentMap } from "explorer/map.js";
import { fillSliders, PathTool, Player, shortLatent, showDecoded, showNearest, showTooltip } from "explorer/panel.js";
import { FrameCounter, Store } from "explorer/store.js";

/** Tabs as the ARIA patterns describe them: arrows move between them, one is in the tab order. */
export function connectTabs(list) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const select = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", tab === chosen);
      tab.tabIndex = tab === chosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!move) return;
      const next = tabs[(index + move + tabs.length) % tabs.length];
      next.focus();
      select(next);
    });
  });
}

const element = (id) => document.getElementById(id);

function initialState(data, box) {
  return {
    cursor: data.points[nearest(data.points, middleOf(box))],
    nearest: null,
    hovered: null,
    pointer: { x: 0, y: 0 },
    visible: data.classNames.map(() => true),
    a: null,
    b: null,
    armed: null,
    position: 0,
    playing: false,
    speed: 1,
    loop: false,
    across: 0.5,
    down: 0.5,
  };
}

function fillTexts(data, map) {
  element("title").textContent = data.title;
  element("notes").textContent = data.notes;
  element("notes").hidden = !data.notes;
  element("hint").textContent = map.view.hint;
  for (const [keys, meaning] of helpRows(data.dimensions)) {
    const term = Object.assign(document.createElement("dt"), { textContent: keys });
    element("help-list").append(term, Object.assign(document.createElement("dd"), { textContent: meaning }));
  }
}

function makeMap(data, box, store) {
  const [surface, plot, overlay] = ["surface", "plot", "overlay"].map(element);
  const map = new LatentMap({ surface, plot, overlay }, data, box, store);
  element("zoom-in").addEventListener("click", () => map.zoom(1.4));
  element("zoom-out").addEventListener("click", () => map.zoom(1 / 1.4));
  element("reset").addEventListener("click", () => map.view.reset());
  return map;
}

function makePath(data, decoder, player, store) {
  const named = Object.fromEntries(["play", "position", "speed", "loop", "strip", "map"].map((id) => [id, element(id)]));
  const choose = { a: element("choose-a"), b: element("choose-b") };
  const ends = { a: element("end-a"), b: element("end-b") };
  return new PathTool({ ...named, choose, ends, clear: element("path-clear") }, data, decoder, player, store);
}

function fillPanel(data, box, decoder, frames, map, store) {
  showDecoded({ canvas: element("decoded"), rate: element("rate") }, data, decoder, frames, store);
  const nearest = { canvas: element("nearest-image"), name: element("nearest-name"), kind: element("nearest-class") };
  showNearest(nearest, data, store);
  fillSliders(element("sliders"), box, map, store);
  const tooltip = { image: element("tooltip-image"), kind: element("tooltip-class"), name: element("tooltip-name") };
  showTooltip({ ...tooltip, tooltip: element("tooltip"), map: element("map"), surface: element("surface") }, data, store);
}

function makeAtlas(data, store) {
  if (!data.atlas) return null;
  for (const corner of document.querySelectorAll("[data-corner]")) {
    corner.textContent = data.atlas.corners[corner.dataset.corner];
  }
  element("atlas-notes").textContent = data.atlas.notes;
  element("atlas-about").hidden = !data.atlas.notes;
  element("tabs").hidden = false;
  connectTabs(element("tabs"));
  const both = (suffix) => ({ across: element(`atlas-across${suffix}`), down: element(`atlas-down${suffix}`) });
  const parts = { frame: "atlas", canvas: "atlas-sheet", surface: "atlas-surface", ring: "atlas-ring", image: "atlas-image" };
  const elements = Object.fromEntries(Object.entries(parts).map(([name, id]) => [name, element(id)]));
  return new Atlas({ ...elements, sliders: both(""), outputs: both("-value") }, data.atlas, store);
}

/** Tells a screen reader where the cursor is, once it rests. */
function speak(store, data) {
  let timer = 0;
  store.subscribe(["cursor"], () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      element("voice").textContent = `Cursor at ${shortLatent(store.get("cursor"))}, nearest ${data.names[store.get("nearest")]}`;
    }, 700);
  });
}

/** For tests and for use from the console: `decode(latent)`, `state`, `project(latent)`, `frames`, `atlas`. */
function publish(data, decoder, frames, map, atlas, store) {
  Object.assign(window.explorer, {
    data,
    frames,
    atlas,
    decode: (latent) => decoder.decode(latent),
    /** Page coordinates of a latent. */
    project: (latent) => {
      const { left, top } = map.surface.getBoundingClientRect();
      const at = map.view.project(latent);
      return { x: left + at.x, y: top + at.y, depth: at.depth };
    },
  });
  Object.defineProperty(window.explorer, "state", { get: () => ({ ...store.snapshot(), view: map.view.describe() }) });
}

async function start() {
  const data = await readData();
  element("main").hidden = false; // the map needs a size to be drawn in
  const box = boxOf(data.points);
  const store = new Store(initialState(data, box));
  const [decoder, frames, player] = [new Decoder(data.layers, data.valueRange), new FrameCounter(), new Player(store)];
  const map = makeMap(data, box, store);
  fillTexts(data, map);
  await map.draw();
  fillLegend(element("legend"), data, store);
  const path = makePath(data, decoder, player, store);
  map.chosen = (key) => path.chosen(key);
  fillPanel(data, box, decoder, frames, map, store);
  listenToKeys(map, path, player, store);
  speak(store, data);
  publish(data, decoder, frames, map, makeAtlas(data, store), store);
  element("message").hidden = true;
}

window.explorer = {};
window.explorer.ready = start().catch((error) => {
  element("message").textContent = `The explorer could not start: ${error.message}. A current browser is needed.`;
  throw error;
});
