/** The two views of the latent space: a plane, and a space seen by a camera. */

import { AXIS, classTraces, CONFIG, layoutOf } from "explorer/drawing.js";
import { add, clamp, cross, dot, equalScales, length, middleOf, scaled, sizeOf, subtract, turned, unit } from "explorer/geometry.js";
import { FrameLoop } from "explorer/store.js";

const HALF_FIELD = Math.tan(Math.PI / 8); // Plotly's scenes see 45 degrees from top to bottom
const [CLOSEST, FARTHEST] = [0.25, 8];
const HOME = { eye: [1.3, -1.6, 0.95], center: [0, 0, -0.08], up: [0, 0, 1] };

/** A trackball camera in the units of a Plotly scene: it turns about any axis of the screen, with no pole. */
export class Camera {
  /** Starts far enough to show all on a view that is `ratio` times as wide as it is high. */
  constructor(ratio) {
    this.reset(ratio);
  }

  reset(ratio) {
    Object.assign(this, structuredClone(HOME));
    this.zoom(clamp(ratio, 0.3, 1.12));
  }

  /** Unit vectors to the right, upwards and into the screen. */
  get axes() {
    const forward = unit(subtract(this.center, this.eye));
    const right = unit(cross(forward, this.up));
    return { right, up: cross(right, forward), forward };
  }

  /** Half the height that is seen at a depth. */
  reach(depth) {
    return depth * HALF_FIELD;
  }

  /** Turns by angles (radians) to the right and upwards, as if a hand moved a ball. */
  rotate(across, upwards) {
    const { right, up } = this.axes;
    const turn = (vector) => turned(turned(vector, up, -across), right, upwards);
    this.eye = add(this.center, turn(subtract(this.eye, this.center)));
    this.up = turn(up);
  }

  /** Comes closer by a factor above one. */
  zoom(factor) {
    const arm = subtract(this.eye, this.center);
    const distance = clamp(length(arm) / factor, CLOSEST, FARTHEST);
    this.eye = add(this.center, scaled(unit(arm), distance));
  }

  /** Moves sideways so that what lies at the centre follows by `across`, `upwards` in half heights of the view. */
  pan(across, upwards) {
    const { right, up } = this.axes;
    const reach = this.reach(length(subtract(this.eye, this.center)));
    const shift = add(scaled(right, -across * reach), scaled(up, -upwards * reach));
    this.eye = add(this.eye, shift);
    this.center = add(this.center, shift);
  }

  /** Where a place is seen: to the right and upwards in half heights of the view, and its depth. */
  project(place) {
    const { right, up, forward } = this.axes;
    const arm = subtract(place, this.eye);
    const depth = dot(arm, forward);
    const reach = this.reach(depth);
    return { across: dot(arm, right) / reach, upwards: dot(arm, up) / reach, depth };
  }

  /** The place that is seen there at a depth. */
  unproject({ across, upwards, depth }) {
    const { right, up, forward } = this.axes;
    const reach = this.reach(depth);
    const sideways = add(scaled(right, across * reach), scaled(up, upwards * reach));
    return add(add(this.eye, scaled(forward, depth)), sideways);
  }
}

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

const HALF_TURN = Math.PI; // by a drag across the whole map

/** The map of a three-dimensional latent, seen by a trackball camera. */
export class SpaceView {
  hint = "Drag to rotate · scroll to zoom · click a point to decode it · drag the ring to move in the plane of the screen";

  constructor(host, data, box, changed) {
    Object.assign(this, { host, data, box, changed });
    this.camera = new Camera(this.#ratio);
    this.loop = new FrameLoop(() => Plotly.relayout(this.host, { "scene.camera": this.#plotlyCamera() }));
    const size = sizeOf(box);
    const largest = Math.max(...size);
    this.aspect = equalScales(box) ? size.map((value) => value / largest) : [1, 1, 1];
  }

  async draw() {
    const axis = (name, index) => ({
      ...AXIS,
      title: { text: name },
      range: [this.box.low[index], this.box.high[index]],
      showbackground: true,
      backgroundcolor: "#f7f9fc",
      showspikes: false,
      nticks: 6,
    });
    const [x, y, z] = this.aspect;
    const scene = { xaxis: axis("z₁", 0), yaxis: axis("z₂", 1), zaxis: axis("z₃", 2), dragmode: false, hovermode: false };
    Object.assign(scene, { aspectmode: "manual", aspectratio: { x, y, z }, camera: this.#plotlyCamera() });
    const layout = { ...layoutOf(this.host), margin: { l: 0, r: 0, t: 0, b: 0 }, scene };
    await Plotly.newPlot(this.host, classTraces(this.data, 4.5), layout, CONFIG);
    this.changed();
  }

  get #ratio() {
    return this.host.clientWidth / this.host.clientHeight;
  }

  get area() {
    return { left: 0, top: 0, width: this.host.clientWidth, height: this.host.clientHeight };
  }

  async resize() {
    await Plotly.relayout(this.host, { width: this.host.clientWidth, height: this.host.clientHeight });
    this.changed();
  }

  reset() {
    this.camera.reset(this.#ratio);
    this.#moved();
  }

  /** Pixels from the top left, and the depth behind the screen in units of the scene. */
  project(latent) {
    const { across, upwards, depth } = this.camera.project(this.#place(latent));
    const { width, height } = this.area;
    return { x: width / 2 + (across * height) / 2, y: height / 2 - (upwards * height) / 2, depth };
  }

  /** The latent under a pixel in the plane that is parallel to the screen and contains `reference`. */
  unproject({ x, y }, reference) {
    const { width, height } = this.area;
    const { depth } = this.camera.project(this.#place(reference));
    const place = { across: (2 * x - width) / height, upwards: (height - 2 * y) / height, depth };
    return this.#latent(this.camera.unproject(place));
  }

  /** A latent moved away from the viewer by as much as `pixels` are at its depth. */
  deeper(latent, pixels) {
    const place = this.camera.project(this.#place(latent));
    const depth = place.depth + this.camera.reach(place.depth) * ((2 * pixels) / this.area.height);
    return this.#latent(this.camera.unproject({ ...place, depth: Math.max(depth, 0.01) }));
  }

  pan(dx, dy) {
    this.camera.pan((2 * dx) / this.area.height, (-2 * dy) / this.area.height);
    this.#moved();
  }

  turn(dx, dy) {
    const { width, height } = this.area;
    const angle = HALF_TURN / Math.min(width, height);
    this.camera.rotate(dx * angle, -dy * angle);
    this.#moved();
  }

  zoom(factor) {
    this.camera.zoom(factor);
    this.#moved();
  }

  setVisible(visible) {
    Plotly.restyle(this.host, { visible });
  }

  describe() {
    const { eye, center, up } = this.camera;
    return { kind: "space", eye: [...eye], center: [...center], up: [...up] };
  }

  #place(latent) {
    const [middle, size] = [middleOf(this.box), sizeOf(this.box)];
    return latent.map((value, axis) => ((value - middle[axis]) / size[axis]) * this.aspect[axis]);
  }

  #latent(place) {
    const [middle, size] = [middleOf(this.box), sizeOf(this.box)];
    return place.map((value, axis) => (value / this.aspect[axis]) * size[axis] + middle[axis]);
  }

  #plotlyCamera() {
    const named = ([x, y, z]) => ({ x, y, z });
    const { eye, center, up } = this.camera;
    return { eye: named(eye), center: named(center), up: named(up), projection: { type: "perspective" } };
  }

  #moved() {
    if (this.host.layout) this.loop.request();
    this.changed();
  }
}
