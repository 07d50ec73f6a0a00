/** The region of the latent space that the page shows, and in which the cursor stays. */

const MARGIN = 0.12; // of the points' spread, on each side
const UNEQUAL = 5; // from this ratio of the spreads on, each axis has its own scale

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
