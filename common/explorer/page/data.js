/** Reads what the file carries: a description in JSON and blocks of base64. */

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

/** Integers are small to carry; floats are faster to compute with. */
function weightOf(values, scales, inputs) {
  const weight = new Float32Array(values.length);
  for (let k = 0; k < weight.length; k++) weight[k] = values[k] * scales[Math.floor(k / inputs)];
  return weight;
}

function rowsOf(flat, size) {
  return Array.from({ length: flat.length / size }, (_, row) => Array.from(flat.subarray(row * size, (row + 1) * size)));
}

/** Bytes of a block; its text is dropped from the page, which would keep it a second time. */
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
