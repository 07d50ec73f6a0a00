/** Vectors, the box of the latent space that is shown, and nearest points. */

/** Vectors as plain arrays of two or three numbers. */
export const add = (a, b) => a.map((value, axis) => value + b[axis]);
export const subtract = (a, b) => a.map((value, axis) => value - b[axis]);
export const scaled = (a, factor) => a.map((value) => value * factor);
export const dot = (a, b) => a.reduce((sum, value, axis) => sum + value * b[axis], 0);
export const length = (a) => Math.sqrt(dot(a, a));
export const unit = (a) => scaled(a, 1 / length(a));
export const mix = (a, b, share) => a.map((value, axis) => value + (b[axis] - value) * share);
export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];

/** Turns a vector about a unit axis (Rodrigues' formula). */
export function turned(vector, axis, angle) {
  const [sine, cosine] = [Math.sin(angle), Math.cos(angle)];
  const along = scaled(axis, dot(axis, vector) * (1 - cosine));
  return add(add(scaled(vector, cosine), scaled(cross(axis, vector), sine)), along);
}

const MARGIN = 0.12; // of the points' spread, on each side
const UNEQUAL = 5; // from this ratio of the spreads on, each axis has its own scale

/** The region of the latent space that the page shows, and in which the cursor stays. */
export function boxOf(points) {
  const axes = points[0].map((_, axis) => points.map((point) => point[axis]));
  const low = axes.map((values) => values.reduce((a, b) => Math.min(a, b)));
  const high = axes.map((values) => values.reduce((a, b) => Math.max(a, b)));
  const spread = low.map((value, axis) => high[axis] - value || 1);
  return {
    low: low.map((value, axis) => value - MARGIN * spread[axis]),
    high: high.map((value, axis) => value + MARGIN * spread[axis]),
  };
}

export const sizeOf = (box) => box.low.map((value, axis) => box.high[axis] - value);
export const middleOf = (box) => box.low.map((value, axis) => (value + box.high[axis]) / 2);

/** True where one unit should be as long on every axis. */
export function equalScales(box) {
  const size = sizeOf(box);
  return Math.max(...size) < UNEQUAL * Math.min(...size);
}

/** The row of the point nearest to a latent, by Euclidean distance. */
export function nearest(points, latent) {
  let best = 0;
  let least = Infinity;
  points.forEach((point, row) => {
    let distance = 0;
    for (let axis = 0; axis < latent.length; axis++) distance += (point[axis] - latent[axis]) ** 2;
    if (distance < least) {
      best = row;
      least = distance;
    }
  });
  return best;
}
