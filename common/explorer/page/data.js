/** The data in the file (a description in JSON and blocks of base64), and the decoder in plain JavaScript. */

const TYPES = { int8: Int8Array, float32: Float32Array };

/** Everything the page shows: points, captions, thumbnails, the decoder's layers, the atlas. */
export async function readData() {
  const description = JSON.parse(document.getElementById("description").textContent);
  const points = await readArray("points", Float32Array);
  const layers = await Promise.all(description.layers.map(readLayer));
  const thumbnails = { ...description.thumbnails, sheet: await readPicture("thumbnails") };
  const atlas = description.atlas && { ...description.atlas, sheet: await readPicture("atlas") };
  return { ...description, points: rowsOf(points, description.dimensions), layers, thumbnails, atlas };
}

async function readLayer(layer, index) {
  const [values, scales, bias] = await Promise.all([
    readArray(`layer${index}-values`, TYPES[layer.type]),
    readArray(`layer${index}-scales`, Float32Array),
    readArray(`layer${index}-bias`, Float32Array),
  ]);
  return { ...layer, weight: weightOf(values, scales, layer.inputs), bias };
}

/** Integers make the file small; floats are faster to compute with. */
function weightOf(values, scales, inputs) {
  const weight = new Float32Array(values.length);
  for (let k = 0; k < weight.length; k++) weight[k] = values[k] * scales[Math.floor(k / inputs)];
  return weight;
}

function rowsOf(flat, size) {
  return Array.from({ length: flat.length / size }, (_, row) => Array.from(flat.subarray(row * size, (row + 1) * size)));
}

/** Bytes of a block; its text is removed from the page, to keep it in memory only once. */
function takeBytes(name) {
  const element = document.getElementById(`block-${name}`);
  const text = atob(element.textContent);
  element.remove();
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < bytes.length; k++) bytes[k] = text.charCodeAt(k);
  return bytes;
}

async function readArray(name, type) {
  const stream = new Blob([takeBytes(name)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new type(await new Response(stream).arrayBuffer());
}

function readPicture(name) {
  return createImageBitmap(new Blob([takeBytes(name)], { type: "image/jpeg" }));
}

const ACTIVATIONS = {
  linear: (value) => value,
  relu: (value) => Math.max(value, 0),
  leaky_relu: (value, slope) => (value < 0 ? slope * value : value),
  tanh: Math.tanh,
  sigmoid: (value) => 1 / (1 + Math.exp(-value)),
};

/** Dense layers. */
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

/** Four sums side by side, whose additions do not wait for each other. */
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
