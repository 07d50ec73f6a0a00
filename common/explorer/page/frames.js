/** Work that is done at most once for each picture the screen shows. */
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
