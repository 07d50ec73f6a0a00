/** The latent map: the cursor, the ends of the path, and what pointers do to them. */

import { Gestures } from "explorer/controls.js";
import { clamp } from "explorer/geometry.js";
import { FrameLoop } from "explorer/store.js";
import { PlaneView, SpaceView } from "explorer/views.js";

const NAMESPACE = "http://www.w3.org/2000/svg";

function shape(parent, kind, attributes) {
  const element = document.createElementNS(NAMESPACE, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return parent.appendChild(element);
}

function place(element, at) {
  element.toggleAttribute("hidden", !at);
  if (at) element.setAttribute("transform", `translate(${at.x} ${at.y})`);
}

/** The cursor, the ends and the path, drawn over the map. */
class Overlay {
  constructor(svg) {
    this.halo = shape(svg, "line", { class: "path-halo" });
    this.line = shape(svg, "line", { class: "path-line" });
    this.ends = ["a", "b"].map((name) => this.#end(svg, name));
    this.cursor = shape(svg, "g", { class: "cursor" });
    for (const part of ["halo", "ring"]) {
      shape(this.cursor, "path", { class: part, d: "M0 -16V-7M0 7V16M-16 0H-7M7 0H16M0 -9a9 9 0 1 0 .01 0" });
    }
  }

  #end(svg, name) {
    const group = shape(svg, "g", { class: `end-mark ${name}`, hidden: "" });
    shape(group, "circle", { r: 11 });
    shape(group, "text", { dy: "0.35em" }).textContent = name.toUpperCase();
    return group;
  }

  /** Each place is in pixels or null. */
  draw({ cursor, a, b }) {
    place(this.cursor, cursor);
    [a, b].forEach((at, index) => place(this.ends[index], at));
    for (const line of [this.halo, this.line]) {
      line.toggleAttribute("hidden", !(a && b));
      if (a && b) {
        const ends = { x1: a.x, y1: a.y, x2: b.x, y2: b.y };
        for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
      }
    }
  }
}

const REACH = { mouse: 12, pen: 16, touch: 24 }; // pixels around a point or handle that count as on it
const EDGE = 24; // pixels from the edge at which the view follows the cursor
const HANDLES = ["cursor", "a", "b"];

/** The map with what can be done on it. It reads and writes the store; it does not decode. */
export class LatentMap {
  constructor(elements, data, box, store) {
    Object.assign(this, { ...elements, data, box, store });
    const kind = data.dimensions === 3 ? SpaceView : PlaneView;
    this.overlay = new Overlay(elements.overlay);
    this.loop = new FrameLoop(() => this.#drawOverlay());
    this.view = new kind(elements.plot, data, box, () => this.loop.request());
    new Gestures(this.surface, this);
  }

  async draw() {
    this.size = { width: this.plot.clientWidth, height: this.plot.clientHeight };
    await this.view.draw();
    this.#fit();
    this.store.subscribe(["cursor", "a", "b"], () => this.loop.request());
    this.store.subscribe(["visible"], () => this.view.setVisible(this.store.get("visible")));
    new ResizeObserver(() => this.#resize()).observe(this.plot);
  }

  async #resize() {
    const { clientWidth: width, clientHeight: height } = this.plot;
    if (!width || (width === this.size.width && height === this.size.height)) return; // no width: another view is shown
    this.size = { width, height };
    await this.view.resize();
    this.#fit();
  }

  #fit() {
    for (const [name, value] of Object.entries(this.view.area)) this.surface.style[name] = `${value}px`;
  }

  #drawOverlay() {
    const seen = (key) => {
      const latent = this.store.get(key);
      const at = latent && this.view.project(latent);
      return at && at.depth >= 0 ? at : null;
    };
    this.overlay.draw({ cursor: seen("cursor"), a: seen("a"), b: seen("b") });
  }

  /** Moves one of the handles, inside the box. */
  put(key, latent) {
    const inside = latent.map((value, axis) => clamp(value, this.box.low[axis], this.box.high[axis]));
    this.store.set({ [key]: inside, ...(key === "cursor" ? { playing: false } : {}) });
  }

  /** The row of the nearest visible point within reach of a pixel, or null; of two as near, the one in front. */
  pointAt(pixel, type = "mouse") {
    const visible = this.store.get("visible");
    let best = { row: null, distance: REACH[type] ?? REACH.mouse, depth: Infinity };
    this.data.points.forEach((point, row) => {
      if (!visible[this.data.classes[row]]) return;
      const at = this.view.project(point);
      const distance = Math.hypot(at.x - pixel.x, at.y - pixel.y);
      const nearer = distance < best.distance - 2 || (distance < best.distance + 2 && at.depth < best.depth);
      if (at.depth >= 0 && distance <= REACH[type] && nearer) best = { row, distance, depth: at.depth };
    });
    return best.row;
  }

  #handleAt(pixel, type) {
    const distance = (key) => {
      const latent = this.store.get(key);
      const at = latent && this.view.project(latent);
      return at ? Math.hypot(at.x - pixel.x, at.y - pixel.y) : Infinity;
    };
    const [nearest] = HANDLES.map((key) => [distance(key), key]).sort((a, b) => a[0] - b[0]);
    return nearest[0] <= REACH[type] + 4 ? nearest[1] : null;
  }

  hover(pixel) {
    const handle = this.#handleAt(pixel, "mouse");
    this.surface.dataset.over = handle ? "handle" : "";
    this.store.set({ hovered: this.pointAt(pixel), pointer: pixel });
  }

  leave() {
    this.store.set({ hovered: null });
  }

  tap(pixel, type) {
    const row = this.pointAt(pixel, type);
    const key = this.store.get("armed") ?? "cursor";
    const latent = row === null ? this.view.unproject(pixel, this.store.get("cursor")) : this.data.points[row];
    this.put(key, latent);
    // A mouse that stays shows the point's own panel; a finger has no hover, so its tap stands for one.
    this.store.set({ hovered: type === "mouse" ? null : row, pointer: pixel });
    this.chosen?.(key);
  }

  grab(pixel, event) {
    if (this.store.get("armed")) return "view";
    const secondary = event.button === 2 || event.shiftKey;
    return secondary ? "frame" : (this.#handleAt(pixel, event.pointerType) ?? "view");
  }

  drag(what, pixel, dx, dy) {
    this.store.set({ hovered: null });
    this.surface.dataset.over = what === "view" || what === "frame" ? "moving" : "handle";
    if (what === "view") this.view.turn(dx, dy);
    else if (what === "frame") this.view.pan(dx, dy);
    else this.put(what, this.view.unproject(pixel, this.store.get(what)));
  }

  drop() {
    this.surface.dataset.over = "";
  }

  pinch(factor, pixel, dx, dy) {
    this.view.zoom(factor, pixel);
    this.view.pan(dx, dy);
  }

  wheel(factor, pixel) {
    this.view.zoom(factor, pixel);
  }

  /** Zooms about the middle of the map. */
  zoom(factor) {
    const { width, height } = this.view.area;
    this.view.zoom(factor, { x: width / 2, y: height / 2 });
  }

  /** Moves the cursor by pixels on the screen; the view follows it over the edge. */
  nudge(dx, dy) {
    const at = this.view.project(this.store.get("cursor"));
    this.put("cursor", this.view.unproject({ x: at.x + dx, y: at.y + dy }, this.store.get("cursor")));
    const { x, y } = this.view.project(this.store.get("cursor"));
    const { width, height } = this.view.area;
    const missing = (value, size) => clamp(value, EDGE, size - EDGE) - value;
    if (missing(x, width) || missing(y, height)) this.view.pan(missing(x, width), missing(y, height));
  }

  /** Moves the cursor away from the viewer by pixels, in three dimensions. */
  push(pixels) {
    this.put("cursor", this.view.deeper(this.store.get("cursor"), pixels));
  }
}
