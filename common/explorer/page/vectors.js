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
