import { equalScales, middleOf, sizeOf } from "explorer/box.js";
import { Camera } from "explorer/camera.js";
import { FrameLoop } from "explorer/frames.js";
import { AXIS, CONFIG, classTraces, layoutOf } from "explorer/traces.js";

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
