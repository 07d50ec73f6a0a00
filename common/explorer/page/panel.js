/** The panel beside the map: decoded image, nearest point, sliders, tooltip, and the path from A to B. */

import { drawGrey, drawTile, greyImage, mark } from "explorer/drawing.js";
import { clamp, mix, nearest } from "explorer/geometry.js";
import { FrameLoop } from "explorer/store.js";

const SECONDS = 4; // from A to B at speed 1

/** Moves the cursor along the path from A to B while `playing` is set. */
export class Player {
  #store;
  #last = null;
  #run = 0;
  #direction = 1;

  constructor(store) {
    this.#store = store;
    store.subscribe(["playing"], () => store.get("playing") && this.#start());
  }

  get ready() {
    return Boolean(this.#store.get("a") && this.#store.get("b"));
  }

  toggle() {
    if (!this.ready) return;
    const playing = !this.#store.get("playing");
    if (playing && this.#store.get("position") >= 1) this.seek(0);
    this.#store.set({ playing });
  }

  /** Puts the cursor at a share of the path. */
  seek(position) {
    const [a, b] = [this.#store.get("a"), this.#store.get("b")];
    this.#store.set({ position, cursor: mix(a, b, position) });
  }

  #start() {
    this.#last = null;
    this.#direction = 1;
    const run = ++this.#run;
    requestAnimationFrame((time) => this.#step(time, run));
  }

  #step(time, run) {
    if (!this.#store.get("playing") || !this.ready || run !== this.#run) return;
    const passed = this.#last === null ? 0 : (time - this.#last) / 1000;
    this.#last = time;
    const wanted = this.#store.get("position") + (this.#direction * passed * this.#store.get("speed")) / SECONDS;
    this.seek(clamp(wanted, 0, 1));
    if (wanted >= 1 || wanted <= 0) this.#turnOrStop(wanted);
    requestAnimationFrame((next) => this.#step(next, run));
  }

  #turnOrStop(wanted) {
    if (this.#store.get("loop")) this.#direction = wanted >= 1 ? -1 : 1;
    else if (wanted >= 1) this.#store.set({ playing: false });
  }
}

const SUBSCRIPTS = ["₁", "₂", "₃"];
const STEPS = 1000; // of a slider over its range

/** A number with a true minus sign and as many digits as a caption needs. */
export const short = (value) => value.toFixed(2).replace("-", "−");
export const shortLatent = (latent) => latent.map(short).join(", ");

/** Decodes at the cursor whenever it has moved: once for each picture that the screen shows. */
export function showDecoded({ canvas, rate }, data, decoder, frames, store) {
  const loop = new FrameLoop(() => {
    frames.run(() => drawGrey(canvas, decoder.decode(store.get("cursor")), data.imageSize));
    const perSecond = frames.perSecond;
    const often = perSecond >= 5 ? ` · ${Math.round(perSecond)} images/s` : "";
    rate.textContent = `Decoded in this page in ${frames.milliseconds.toFixed(1)} ms${often}`;
  });
  store.subscribe(["cursor"], () => loop.request());
}

/** Thumbnail and caption of the point nearest to the cursor, by Euclidean distance. */
export function showNearest({ canvas, name, kind }, data, store) {
  store.subscribe(["cursor"], () => {
    const row = nearest(data.points, store.get("cursor"));
    if (row === store.get("nearest")) return;
    store.set({ nearest: row });
    drawTile(canvas, data.thumbnails, row);
    name.textContent = data.names[row];
    name.title = data.names[row];
    kind.innerHTML = mark(data.classes[row]);
    kind.append(data.classNames[data.classes[row]]);
  });
}

/** A slider for each coordinate of the cursor. */
export function fillSliders(host, box, map, store) {
  const rows = box.low.map((low, axis) => {
    const input = Object.assign(document.createElement("input"), { type: "range", min: 0, max: STEPS, id: `z${axis}` });
    const label = Object.assign(document.createElement("label"), { htmlFor: input.id, textContent: `z${SUBSCRIPTS[axis]}` });
    const output = document.createElement("output");
    const span = box.high[axis] - low;
    input.addEventListener("input", () => {
      map.put("cursor", store.get("cursor").with(axis, low + (input.value / STEPS) * span));
    });
    host.append(label, input, output);
    return { input, output, toStep: (value) => ((value - low) / span) * STEPS };
  });
  store.subscribe(["cursor"], () => {
    store.get("cursor").forEach((value, axis) => {
      rows[axis].input.value = rows[axis].toStep(value);
      rows[axis].input.setAttribute("aria-valuetext", short(value));
      rows[axis].output.textContent = short(value);
    });
  });
}

const GAP = 14; // pixels between the pointer and the tooltip

/** Thumbnail, class and caption of the point under the pointer. */
export function showTooltip(elements, data, store) {
  const { tooltip, map, surface } = elements;
  const draw = () => {
    const row = store.get("hovered");
    tooltip.hidden = row === null;
    if (row === null) return;
    drawTile(elements.image, data.thumbnails, row);
    elements.kind.innerHTML = mark(data.classes[row]);
    elements.kind.append(data.classNames[data.classes[row]]);
    elements.name.textContent = data.names[row];
    const { x, y } = store.get("pointer");
    const left = surface.offsetLeft + x + GAP;
    const beside = left + tooltip.offsetWidth < map.clientWidth ? left : left - 2 * GAP - tooltip.offsetWidth;
    const top = clamp(surface.offsetTop + y + GAP, 4, map.clientHeight - tooltip.offsetHeight - 4);
    tooltip.style.transform = `translate(${Math.max(beside, 4)}px, ${top}px)`;
  };
  store.subscribe(["hovered", "pointer"], draw);
}

const IMAGES = 7; // in the strip

const lessMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** The path tool: choose A and B, see what lies between, play it. */
export class PathTool {
  constructor(elements, data, decoder, player, store) {
    Object.assign(this, { ...elements, data, decoder, player, store });
    this.strips = new FrameLoop(() => this.#drawStrip());
    for (const key of ["a", "b"]) this.choose[key].addEventListener("click", () => this.arm(key));
    this.clear.addEventListener("click", () => store.set({ a: null, b: null, armed: null, playing: false, position: 0 }));
    this.play.addEventListener("click", () => player.toggle());
    this.position.addEventListener("input", () => this.#scrub());
    this.speed.addEventListener("change", () => store.set({ speed: Number(this.speed.value) }));
    this.loop.addEventListener("change", () => store.set({ loop: this.loop.checked }));
    store.subscribe(["a", "b", "armed"], () => this.#showEnds());
    store.subscribe(["position", "playing"], () => this.#showPosition());
  }

  /** The next place that is chosen on the map becomes this end; a second press takes that back. */
  arm(key) {
    const armed = this.store.get("armed") === key ? null : key;
    this.store.set({ armed });
    if (armed) this.map.scrollIntoView({ block: "nearest", behavior: lessMotion() ? "auto" : "smooth" });
  }

  /** Takes over that an end was chosen on the map: asks for the other one, or plays. */
  chosen(key) {
    if (key === "cursor") return;
    const missing = ["a", "b"].find((end) => !this.store.get(end));
    this.store.set({ armed: missing ?? null, position: 0 });
    if (!missing) this.begin();
  }

  /** Puts an end where the cursor is. */
  setHere(key) {
    this.store.set({ [key]: [...this.store.get("cursor")] });
    this.chosen(key);
  }

  /** Plays from A, or waits for the button where the reader asked for less motion. */
  begin() {
    this.player.seek(0);
    this.store.set({ playing: !lessMotion() });
  }

  #scrub() {
    this.store.set({ playing: false });
    this.player.seek(Number(this.position.value));
  }

  #showEnds() {
    const armed = this.store.get("armed");
    for (const key of ["a", "b"]) {
      const latent = this.store.get(key);
      this.choose[key].setAttribute("aria-pressed", armed === key);
      this.ends[key].textContent = armed === key ? "now click the map" : latent ? shortLatent(latent) : "choose on the map";
    }
    this.play.disabled = this.position.disabled = !this.player.ready;
    this.clear.disabled = !(this.store.get("a") || this.store.get("b"));
    this.strips.request();
  }

  #showPosition() {
    this.play.textContent = this.store.get("playing") ? "Pause" : "Play";
    this.position.value = this.store.get("position");
    this.position.setAttribute("aria-valuetext", `${Math.round(this.store.get("position") * 100)} % of the way`);
  }

  /** Images at equal steps from A to B. */
  #drawStrip() {
    const [a, b, size] = [this.store.get("a"), this.store.get("b"), this.data.imageSize];
    this.strip.hidden = !this.player.ready;
    if (!this.player.ready) return;
    if (this.strip.width !== IMAGES * size) Object.assign(this.strip, { width: IMAGES * size, height: size });
    const context = this.strip.getContext("2d");
    for (let k = 0; k < IMAGES; k++) {
      const grey = this.decoder.decode(mix(a, b, k / (IMAGES - 1)));
      context.putImageData(greyImage(grey, size), k * size, 0);
    }
  }
}
