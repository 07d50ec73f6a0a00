import { add, clamp, cross, dot, length, scaled, subtract, turned, unit } from "explorer/vectors.js";

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
