import { clamp, mix } from "explorer/vectors.js";

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
