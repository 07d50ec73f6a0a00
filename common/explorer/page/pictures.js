/** Pictures on canvases: decoded grey levels, tiles of a sheet. */

/** Draws grey levels (size * size bytes, rows first) on a canvas of that size. */
export function drawGrey(canvas, grey, size) {
  if (canvas.width !== size || canvas.height !== size) Object.assign(canvas, { width: size, height: size });
  canvas.getContext("2d").putImageData(greyImage(grey, size), 0, 0);
}

/** Grey levels as an ImageData. */
export function greyImage(grey, size) {
  const image = new ImageData(size, size);
  const pixels = new Uint32Array(image.data.buffer);
  for (let k = 0; k < grey.length; k++) pixels[k] = 0xff000000 | (grey[k] * 0x010101);
  return image;
}

/** Draws the tile of a sheet that is filled row by row. */
export function drawTile(canvas, { sheet, size, columns }, index) {
  if (canvas.width !== size) Object.assign(canvas, { width: size, height: size });
  const [column, row] = [index % columns, Math.floor(index / columns)];
  canvas.getContext("2d").drawImage(sheet, column * size, row * size, size, size, 0, 0, size, size);
}
