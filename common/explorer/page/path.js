import { FrameLoop } from "explorer/frames.js";
import { shortLatent } from "explorer/panel.js";
import { greyImage } from "explorer/pictures.js";
import { mix } from "explorer/vectors.js";

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
