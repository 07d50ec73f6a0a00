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
