/** Dense layers in plain JavaScript. */

const ACTIVATIONS = {
  linear: (value) => value,
  relu: (value) => Math.max(value, 0),
  leaky_relu: (value, slope) => (value < 0 ? slope * value : value),
  tanh: Math.tanh,
  sigmoid: (value) => 1 / (1 + Math.exp(-value)),
};

export class Decoder {
  #layers;
  #range;

  constructor(layers, range) {
    this.#layers = layers.map((layer) => ({ ...layer, result: new Float32Array(layer.outputs) }));
    this.#range = range;
  }

  /** Grey levels of the image at a latent, rows first. */
  decode(latent) {
    let vector = Float32Array.from(latent);
    for (const layer of this.#layers) vector = forward(layer, vector);
    const [low, high] = this.#range;
    const scale = 255 / (high - low);
    const grey = new Uint8ClampedArray(vector.length); // it clips and rounds what is put in
    for (let k = 0; k < grey.length; k++) grey[k] = (vector[k] - low) * scale;
    return new Uint8Array(grey.buffer);
  }
}

/** activation(weight @ vector + bias), row by row. */
function forward({ weight, bias, activation, slope, result }, vector) {
  const activate = ACTIVATIONS[activation];
  for (let row = 0; row < result.length; row++) {
    result[row] = activate(dot(weight, row * vector.length, vector) + bias[row], slope);
  }
  return result;
}

/** Four sums at a time: additions that do not wait for each other. */
function dot(weight, start, vector) {
  const size = vector.length;
  const whole = size - (size % 4);
  let [a, b, c, d] = [0, 0, 0, 0];
  for (let k = 0; k < whole; k += 4) {
    const at = start + k;
    a += weight[at] * vector[k];
    b += weight[at + 1] * vector[k + 1];
    c += weight[at + 2] * vector[k + 2];
    d += weight[at + 3] * vector[k + 3];
  }
  for (let k = whole; k < size; k++) a += weight[start + k] * vector[k];
  return a + b + c + d;
}
