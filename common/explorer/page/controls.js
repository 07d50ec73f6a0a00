/** Pointer gestures (hover, tap, drag, pinch, wheel; by mouse, pen and touch) and keys. */

const STILL = 4; // pixels a pointer may move and still tap

/**
 * Calls the target's `hover(pixel)`, `leave()`, `tap(pixel, type)`, `grab(pixel, event)`, which returns what a
 * drag moves, `drag(what, pixel, dx, dy)`, `drop(what)`, `pinch(factor, pixel, dx, dy)` and `wheel(factor, pixel)`.
 */
export class Gestures {
  #surface;
  #target;
  #pointers = new Map();
  #drag = null;

  constructor(surface, target) {
    this.#surface = surface;
    this.#target = target;
    surface.addEventListener("pointerdown", (event) => this.#down(event));
    surface.addEventListener("pointermove", (event) => this.#move(event));
    surface.addEventListener("pointerup", (event) => this.#up(event, true));
    surface.addEventListener("pointercancel", (event) => this.#up(event, false));
    surface.addEventListener("pointerleave", () => this.#pointers.size || target.leave());
    surface.addEventListener("contextmenu", (event) => event.preventDefault());
    surface.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  #pixel(event) {
    const { left, top } = this.#surface.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  #down(event) {
    this.#surface.setPointerCapture(event.pointerId);
    this.#surface.focus({ preventScroll: true });
    const pixel = this.#pixel(event);
    this.#pointers.set(event.pointerId, pixel);
    if (this.#pointers.size === 1) {
      this.#drag = { what: this.#target.grab(pixel, event), start: pixel, moved: false };
    } else {
      this.#end();
    }
  }

  #move(event) {
    const pixel = this.#pixel(event);
    const before = this.#pointers.get(event.pointerId);
    if (!before) {
      this.#target.hover(pixel);
    } else if (this.#pointers.size === 2) {
      this.#pinch(event.pointerId, pixel);
    } else if (this.#drag) {
      this.#dragTo(pixel, before);
    }
    if (before) this.#pointers.set(event.pointerId, pixel);
  }

  #dragTo(pixel, before) {
    const drag = this.#drag;
    drag.moved ||= Math.hypot(pixel.x - drag.start.x, pixel.y - drag.start.y) > STILL;
    if (drag.moved) this.#target.drag(drag.what, pixel, pixel.x - before.x, pixel.y - before.y);
  }

  #pinch(id, pixel) {
    const [other] = [...this.#pointers].filter(([key]) => key !== id).map(([, value]) => value);
    const before = this.#pointers.get(id);
    const spread = (end) => Math.max(Math.hypot(end.x - other.x, end.y - other.y), 1);
    const middle = { x: (pixel.x + other.x) / 2, y: (pixel.y + other.y) / 2 };
    const factor = spread(pixel) / spread(before);
    this.#target.pinch(factor, middle, (pixel.x - before.x) / 2, (pixel.y - before.y) / 2);
  }

  #up(event, whole) {
    this.#pointers.delete(event.pointerId);
    if (this.#drag && !this.#drag.moved && whole) this.#target.tap(this.#pixel(event), event.pointerType);
    this.#end();
  }

  #end() {
    if (this.#drag) this.#target.drop(this.#drag.what);
    this.#drag = null;
  }

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    this.#target.wheel(Math.exp(-event.deltaY * lines * 0.0015), this.#pixel(event));
  }
}

const [STEP, ZOOM] = [12, 1.2]; // pixels; factor of one press
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Connects the keys; they act while the map has the focus. */
export function listenToKeys(map, path, player, store) {
  const space = map.data.dimensions === 3;
  const arrow = (event) => {
    const [x, y] = ARROWS[event.key];
    if (event.shiftKey && space) return map.view.turn(x * 3 * STEP, y * 3 * STEP);
    const step = event.shiftKey ? 4 * STEP : STEP;
    return map.nudge(x * step, y * step);
  };
  const actions = {
    "+": () => map.zoom(ZOOM),
    "=": () => map.zoom(ZOOM),
    "-": () => map.zoom(1 / ZOOM),
    "0": () => map.view.reset(),
    " ": () => player.toggle(),
    a: () => path.setHere("a"),
    b: () => path.setHere("b"),
    Enter: () => map.put("cursor", map.data.points[store.get("nearest")]),
    Escape: () => store.set({ armed: null, hovered: null, playing: false }),
  };
  if (space) Object.assign(actions, { PageUp: () => map.push(STEP), PageDown: () => map.push(-STEP) });
  for (const key of Object.keys(ARROWS)) actions[key] = arrow;

  map.surface.addEventListener("keydown", (event) => {
    const action = actions[event.key] ?? actions[event.key.toLowerCase()];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action(event);
  });
}

/** What the help lists: keys and gestures, and what they do. */
export function helpRows(dimensions) {
  const space = dimensions === 3;
  return [
    ["Click or tap", space ? "decode a point, or the place under the pointer at the cursor's depth" : "decode that place"],
    ["Drag the ring", "decode on the way"],
    ["Drag elsewhere", space ? "rotate" : "move the map"],
    ...(space ? [["Shift + drag, right button", "move the view"]] : []),
    ["Wheel, pinch, + −", "zoom"],
    ["Arrow keys", "move the cursor" + (space ? " in the plane of the screen" : "; with Shift farther")],
    ...(space ? [["Page up, page down", "move the cursor away and nearer"], ["Shift + arrows", "rotate"]] : []),
    ["Enter", "jump to the nearest point"],
    ["A, B", "put an end of the path at the cursor"],
    ["Space", "play or pause the path"],
    ["0", "show everything"],
  ];
}
