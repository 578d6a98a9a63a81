// The task `segmentation` in pages whose files answer by themselves: what `task.py` of this plugin says.

const ALIKE = 0.99; // of the places of an image: two masks that nobody tells apart

/** A class for each place, of logits (1, classes, height, width) or of classes themselves, (1, height, width). */
export const answer = ([values], card) => {
  const [, ...shape] = card.outputs?.[0].shape ?? card.output.shape;
  if (shape.length === 2) return { mask: { data: Uint8Array.from(values, Number), height: shape[0], width: shape[1] } };
  const [classes, height, width] = shape;
  const places = height * width;
  const data = new Uint8Array(places);
  for (let place = 0; place < places; place += 1) {
    let best = 0;
    for (let label = 1; label < classes; label += 1)
      if (values[label * places + place] > values[best * places + place]) best = label;
    data[place] = best;
  }
  return { mask: { data, height, width } };
};

/** Whether nearly all places have the same class. */
export const alike = ({ mask: one }, { mask: other }) => {
  let same = 0;
  for (let place = 0; place < one.data.length; place += 1) same += one.data[place] === other.data[place];
  return same / one.data.length >= ALIKE;
};
