/** The state of the page, and frames of animation. */

/** The page's state; parts of the page subscribe to its keys. */
export class Store {
  #values;
  #listeners = [];

  constructor(values) {
    this.#values = { ...values };
  }

  get(key) {
    return this.#values[key];
  }

  /** Sets values and calls each listener of a changed key once. */
  set(changes) {
    const changed = Object.keys(changes).filter((key) => this.#values[key] !== changes[key]);
    Object.assign(this.#values, changes);
    for (const { keys, listener } of this.#listeners) {
      if (keys.some((key) => changed.includes(key))) listener();
    }
  }

  /** Calls `listener` now and after each change of one of `keys`. */
  subscribe(keys, listener) {
    this.#listeners.push({ keys, listener });
    listener();
  }

  snapshot() {
    return { ...this.#values };
  }
}

/** Work that is done at most once per frame of the screen. */
export class FrameLoop {
  #work;
  #pending = false;

  constructor(work) {
    this.#work = work;
  }

  request() {
    if (this.#pending) return;
    this.#pending = true;
    requestAnimationFrame(() => {
      this.#pending = false;
      this.#work();
    });
  }
}

/** Counts frames and tells how many there were in the last second. */
export class FrameCounter {
  count = 0;
  milliseconds = 0;
  #times = [];

  /** Does the work, counts it as a frame and keeps how long it took. */
  run(work) {
    const start = performance.now();
    work();
    const end = performance.now();
    this.milliseconds = end - start;
    this.count += 1;
    this.#times.push(end);
    while (this.#times[0] < end - 1000) this.#times.shift();
  }

  get perSecond() {
    const times = this.#times;
    const span = times.length > 1 ? times[times.length - 1] - times[0] : 0;
    return span > 0 ? ((times.length - 1) * 1000) / span : 0;
  }
}
