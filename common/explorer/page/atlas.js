/** The sample atlas: a plane of the generator's own latent space. */

import { drawGrey } from "explorer/drawing.js";
import { clamp } from "explorer/geometry.js";
import { FrameLoop } from "explorer/store.js";

/** Samples on a grid over a plane; what lies between is blended from the nearest four. */
export class Atlas {
  constructor(elements, atlas, store) {
    Object.assign(this, { ...elements, ...atlas, store });
    this.grey = greyOf(atlas.sheet);
    this.loop = new FrameLoop(() => this.#draw());
    Object.assign(this.canvas, { width: atlas.sheet.width, height: atlas.sheet.height });
    this.canvas.getContext("2d").drawImage(atlas.sheet, 0, 0);
    this.frame.style.setProperty("--ratio", atlas.columns / atlas.rows);
    this.#listen();
    store.subscribe(["across", "down"], () => this.loop.request());
  }

  /** The image at shares (0 to 1) of the way from the first to the last column and row. */
  sample(across, down) {
    const { rows, columns, size } = this;
    const [x, y] = [across * (columns - 1), down * (rows - 1)];
    const [column, row] = [Math.min(Math.floor(x), columns - 2), Math.min(Math.floor(y), rows - 2)];
    const [u, v] = [x - column, y - row];
    const corner = row * size * columns * size + column * size;
    const image = new Uint8Array(size * size);
    for (let line = 0; line < size; line++) {
      const start = corner + line * columns * size;
      this.#blendLine(image.subarray(line * size, (line + 1) * size), start, u, v);
    }
    return image;
  }

  #blendLine(line, start, u, v) {
    const { grey, size, columns } = this;
    const below = size * columns * size; // from a sample to the one under it
    for (let k = 0; k < size; k++) {
      const at = start + k;
      const upper = grey[at] * (1 - u) + grey[at + size] * u;
      const lower = grey[at + below] * (1 - u) + grey[at + below + size] * u;
      line[k] = Math.round(upper * (1 - v) + lower * v);
    }
  }

  #listen() {
    const { surface, store } = this;
    const follow = (event) => {
      if (event.pointerType === "touch" && !event.buttons && event.type === "pointermove") return;
      const { left, top, width, height } = surface.getBoundingClientRect();
      this.#put((event.clientX - left) / width, (event.clientY - top) / height);
    };
    surface.addEventListener("pointermove", follow);
    surface.addEventListener("pointerdown", follow);
    surface.addEventListener("keydown", (event) => this.#key(event));
    for (const key of ["across", "down"]) {
      this.sliders[key].addEventListener("input", () => store.set({ [key]: Number(this.sliders[key].value) }));
    }
  }

  /** A sample's middle, not its edge, is its place on the plane. */
  #put(x, y) {
    const share = (value, count) => clamp((value * count - 0.5) / (count - 1), 0, 1);
    this.store.set({ across: share(x, this.columns), down: share(y, this.rows) });
  }

  #key(event) {
    const step = event.shiftKey ? 2 : 0.5;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    this.store.set({
      across: clamp(this.store.get("across") + move[0] / (this.columns - 1), 0, 1),
      down: clamp(this.store.get("down") + move[1] / (this.rows - 1), 0, 1),
    });
  }

  #draw() {
    const place = { across: this.store.get("across"), down: this.store.get("down") };
    drawGrey(this.image, this.sample(place.across, place.down), this.size);
    const percent = (share, count) => `${((share * (count - 1) + 0.5) / count) * 100}%`;
    this.ring.style.left = percent(place.across, this.columns);
    this.ring.style.top = percent(place.down, this.rows);
    this.ring.style.width = `${100 / this.columns}%`;
    for (const [key, share] of Object.entries(place)) {
      this.sliders[key].value = share;
      this.outputs[key].textContent = `${Math.round(share * 100)} %`;
    }
  }
}

/** One byte a pixel. */
function greyOf(sheet) {
  const context = new OffscreenCanvas(sheet.width, sheet.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(sheet, 0, 0);
  const { data } = context.getImageData(0, 0, sheet.width, sheet.height);
  const grey = new Uint8Array(data.length / 4);
  for (let k = 0; k < grey.length; k++) grey[k] = data[4 * k];
  return grey;
}
