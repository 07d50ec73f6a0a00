/** Pointers on a surface as gestures: hover, tap, drag, pinch and wheel, by mouse, pen and touch alike. */

const STILL = 4; // pixels a pointer may move and still tap

/**
 * `target` answers to `hover(pixel)`, `leave()`, `tap(pixel, type)`, `grab(pixel, event)`, which returns what a
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
