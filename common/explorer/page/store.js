/** The page's state in one place; whoever shows a part of it subscribes to its keys. */
export class Store {
  #values;
  #listeners = [];

  constructor(values) {
    this.#values = { ...values };
  }

  get(key) {
    return this.#values[key];
  }

  /** Takes over what differs and calls each listener of a changed key once. */
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
