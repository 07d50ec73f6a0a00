import { equalScales, middleOf, sizeOf } from "explorer/box.js";
import { FrameLoop } from "explorer/frames.js";
import { AXIS, CONFIG, classTraces, layoutOf } from "explorer/traces.js";
import { clamp } from "explorer/vectors.js";

const MARGIN = { l: 46, r: 14, t: 14, b: 38 };
const [WIDEST, NARROWEST] = [3, 1 / 200]; // of the whole box

/** The map of a two-dimensional latent. Pixels count from the top left of the plotted area. */
export class PlaneView {
  hint = "Click anywhere to decode it · drag the ring · drag the plane to move it · scroll to zoom";

  constructor(host, data, box, changed) {
    Object.assign(this, { host, data, box, changed });
    this.loop = new FrameLoop(() => Plotly.relayout(this.host, this.#ranges()));
    this.reset();
  }

  async draw() {
    const layout = { ...layoutOf(this.host), margin: MARGIN };
    const axis = { ...AXIS, showline: true, ticks: "outside", ticklen: 4, tickcolor: AXIS.linecolor };
    const ranges = this.#ranges();
    layout.xaxis = { ...axis, title: { text: "z₁", standoff: 6 }, range: ranges["xaxis.range"] };
    layout.yaxis = { ...axis, title: { text: "z₂", standoff: 4 }, range: ranges["yaxis.range"] };
    await Plotly.newPlot(this.host, classTraces(this.data, this.host.clientWidth < 500 ? 6 : 8), layout, CONFIG);
    this.changed();
  }

  /** The plotted area inside the host, in pixels. */
  get area() {
    const [width, height] = [this.host.clientWidth, this.host.clientHeight];
    return { left: MARGIN.l, top: MARGIN.t, width: width - MARGIN.l - MARGIN.r, height: height - MARGIN.t - MARGIN.b };
  }

  async resize() {
    await Plotly.relayout(this.host, { width: this.host.clientWidth, height: this.host.clientHeight, ...this.#ranges() });
    this.changed();
  }

  reset() {
    this.center = middleOf(this.box);
    this.magnification = 1;
    this.#moved();
  }

  /** Latent units of a pixel on each axis. */
  get #units() {
    const { width, height } = this.area;
    const fitting = sizeOf(this.box).map((size, axis) => size / [width, height][axis] / this.magnification);
    return equalScales(this.box) ? fitting.fill(Math.max(...fitting)) : fitting;
  }

  #ranges() {
    const { width, height } = this.area;
    const halves = this.#units.map((unit, axis) => (unit * [width, height][axis]) / 2);
    const [x, y] = this.center.map((middle, axis) => [middle - halves[axis], middle + halves[axis]]);
    return { "xaxis.range": x, "yaxis.range": y };
  }

  project([x, y]) {
    const { width, height } = this.area;
    const [across, down] = this.#units;
    return { x: width / 2 + (x - this.center[0]) / across, y: height / 2 - (y - this.center[1]) / down, depth: 0 };
  }

  unproject({ x, y }) {
    const { width, height } = this.area;
    const [across, down] = this.#units;
    return [this.center[0] + (x - width / 2) * across, this.center[1] - (y - height / 2) * down];
  }

  pan(dx, dy) {
    const [across, down] = this.#units;
    this.center = [this.center[0] - dx * across, this.center[1] + dy * down];
    this.center = this.center.map((value, axis) => clamp(value, this.box.low[axis], this.box.high[axis]));
    this.#moved();
  }

  /** A drag of the background moves the plane. */
  turn(dx, dy) {
    this.pan(dx, dy);
  }

  /** Zooms in by a factor; what lies under the pixel stays there. */
  zoom(factor, pixel) {
    const before = this.unproject(pixel);
    this.magnification = clamp(this.magnification * factor, 1 / WIDEST, 1 / NARROWEST);
    const after = this.unproject(pixel);
    this.center = this.center.map((value, axis) => value + before[axis] - after[axis]);
    this.#moved();
  }

  setVisible(visible) {
    Plotly.restyle(this.host, { visible });
  }

  describe() {
    return { kind: "plane", center: [...this.center], magnification: this.magnification };
  }

  #moved() {
    if (this.host.layout) this.loop.request();
    this.changed();
  }
}
