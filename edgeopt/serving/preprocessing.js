// An image as a file takes it: what `edgeopt/preprocessing` does, to the grey level.
//
// Resizing is Pillow's: two passes of fixed-point sums with bytes between them. A browser's own resizing is another one, and
// answers change with it. Where an image is half transparent, its colours may be a grey level off before that: see `decoded`.

const PRECISION_BITS = 22; // of Pillow's fixed-point weights: 32 less 8 of a byte, less 2 for sums beyond it
const LARGEST_RESIZED = 2 ** 24; // pixels of a resized image, beyond which only the part that is kept is resized

const triangle = (x) => (Math.abs(x) < 1 ? 1 - Math.abs(x) : 0);
const cubic = (signed) => {
  const x = Math.abs(signed);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
};
const FILTERS = { bilinear: { support: 1, weight: triangle }, bicubic: { support: 2, weight: cubic } };

/** Half goes to the even side, as Python rounds. */
const rounded = (value) => {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 ? below + 1 : below;
};

/** Where the resized values from `first` on come from: a start and whole weights each, the sums of 2 ** 22. */
const weightsOf = (side, low, high, resized, first, count, { support, weight }) => {
  const scale = Math.fround(high - low) / resized;
  const wide = Math.max(scale, 1);
  return Array.from({ length: count }, (_, index) => {
    const centre = low + (first + index + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support * wide + 0.5));
    const end = Math.min(side, Math.trunc(centre + support * wide + 0.5));
    const shares = Array.from({ length: end - start }, (_, x) => weight((x + start - centre + 0.5) * (1 / wide)));
    const sum = shares.reduce((total, share) => total + share, 0);
    const whole = shares.map((share) => {
      const scaled = (sum === 0 ? share : share / sum) * 2 ** PRECISION_BITS;
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    return { start, weights: Int32Array.from(whole) };
  });
};

const byte = (sum) => {
  const value = sum >> PRECISION_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
};

/** Which of the old places the nearest of each new one is, added up as Pillow adds. */
const nearestOf = (side, low, high, resized, first, count) => {
  const step = Math.fround(high - low) / resized;
  const found = new Int32Array(count);
  for (let index = 0, place = low + step * 0.5; index < first + count; index += 1, place += step)
    if (index >= first) found[index - first] = Math.min(side - 1, Math.trunc(place));
  return found;
};

/** Each of `count` lines, resized: values of `data` that lie `taps` apart, in lines that lie `lines` apart, from `at` on. */
const pass = ({ data, lines, taps, at }, places, count, out) => {
  const made = new Uint8Array(places.length * count * 3);
  const half = 1 << (PRECISION_BITS - 1);
  for (let line = 0; line < count; line += 1)
    for (let place = 0; place < places.length; place += 1) {
      const { start, weights } = places[place];
      let from = at + line * lines + start * taps;
      const to = line * out.lines + place * out.places;
      if (weights === null) {
        for (let channel = 0; channel < 3; channel += 1) made[to + channel] = data[from + channel];
        continue;
      }
      let [red, green, blue] = [half, half, half];
      for (let tap = 0; tap < weights.length; tap += 1, from += taps) {
        red += data[from] * weights[tap];
        green += data[from + 1] * weights[tap];
        blue += data[from + 2] * weights[tap];
      }
      made[to] = byte(red);
      made[to + 1] = byte(green);
      made[to + 2] = byte(blue);
    }
  return made;
};

/** First and last place that any of `places` reads. */
const extent = (places) => [places[0].start, places.at(-1).start + (places.at(-1).weights?.length ?? 1)];

/** `size` × `size` pixels of an image, RGB, whose sides are resized and cut as `x` and `y` say. */
const resampled = ({ data, width, height }, interpolation, x, y, size) => {
  if (interpolation === "nearest") {
    const columns = nearestOf(width, x.low, x.high, x.resized, x.first, size);
    const rows = nearestOf(height, y.low, y.high, y.resized, y.first, size);
    const cut = new Uint8Array(size * size * 3);
    for (let row = 0, to = 0; row < size; row += 1)
      for (let column = 0; column < size; column += 1)
        for (let channel = 0; channel < 3; channel += 1, to += 1)
          cut[to] = data[(rows[row] * width + columns[column]) * 4 + channel];
    return cut;
  }
  const filter = FILTERS[interpolation];
  const placesOf = (side, { low, high, resized, first }) =>
    low === 0 && high === resized && side === resized
      ? Array.from({ length: size }, (_, index) => ({ start: first + index, weights: null }))
      : weightsOf(side, low, high, resized, first, size, filter);
  const [columns, rows] = [placesOf(width, x), placesOf(height, y)];
  const [left, right] = extent(columns);
  const [top, bottom] = extent(rows);
  // Pillow 13 begins with the height where that loses more than twice the pixels that the width loses
  if (height > y.resized && height - y.resized > 2 * (width - x.resized)) {
    const wide = right - left;
    const upright = { data, lines: 4, taps: width * 4, at: left * 4 };
    const flat = pass(upright, rows, wide, { lines: 3, places: wide * 3 });
    return pass({ data: flat, lines: wide * 3, taps: 3, at: -left * 3 }, columns, size, { lines: size * 3, places: 3 });
  }
  const flat = pass({ data, lines: width * 4, taps: 4, at: top * width * 4 }, columns, bottom - top, { lines: size * 3, places: 3 });
  return pass({ data: flat, lines: 3, taps: size * 3, at: -top * size * 3 }, rows, size, { lines: 3, places: size * 3 });
};

/** Where `length` px from `start` of a side come from: whole px around them, and the exact places within. */
const sourceOf = (start, length, resized, side) => {
  const scale = side / resized;
  const [low, high] = [start * scale, (start + length) * scale];
  const around = Math.ceil(2 * Math.max(1, scale)) + 1;
  const [first, last] = [Math.max(0, Math.floor(low) - around), Math.min(side, Math.ceil(high) + around)];
  return { first, last, low: Math.fround(low - first), high: Math.fround(Math.min(high, side) - first) };
};

/** A decoded image, RGBA and opaque, as bytes of RGB, the rows one after the other. */
export const pixels = (image, { resize, crop, interpolation }) => {
  const scale = resize / Math.min(image.width, image.height);
  const [width, height] = [image.width, image.height].map((side) => Math.max(crop, rounded(side * scale)));
  const [left, top] = [Math.floor((width - crop) / 2), Math.floor((height - crop) / 2)];
  if (width * height > Math.max(LARGEST_RESIZED, 8 * resize ** 2)) {
    const x = sourceOf(left, crop, width, image.width);
    const y = sourceOf(top, crop, height, image.height);
    const near = cutOut(image, x.first, y.first, x.last, y.last);
    const side = ({ low, high }) => ({ low, high, resized: crop, first: 0 });
    return resampled(near, interpolation, side(x), side(y), crop);
  }
  const x = { low: 0, high: image.width, resized: width, first: left };
  const y = { low: 0, high: image.height, resized: height, first: top };
  return resampled(image, interpolation, x, y, crop);
};

const cutOut = ({ data, width }, left, top, right, bottom) => {
  const cut = new Uint8Array((right - left) * (bottom - top) * 4);
  for (let row = top; row < bottom; row += 1)
    cut.set(data.subarray((row * width + left) * 4, (row * width + right) * 4), (row - top) * (right - left) * 4);
  return { data: cut, width: right - left, height: bottom - top };
};

/** Bytes of RGB as the model's input: floats, one plane after the other. */
export const normalized = (bytes, { mean, std }) => {
  const count = bytes.length / 3;
  const planes = new Float32Array(bytes.length);
  for (let channel = 0; channel < 3; channel += 1) {
    const scale = Math.fround(1 / (255 * std[channel]));
    const offset = Math.fround(-mean[channel] / std[channel]);
    const values = Float32Array.from({ length: 256 }, (_, value) => Math.fround(value * scale) + offset);
    for (let index = 0; index < count; index += 1) planes[channel * count + index] = values[bytes[index * 3 + channel]];
  }
  return planes;
};

/**
 * The image in a file, upright, what is transparent showing the ground: {data: RGBA, width, height}.
 * A canvas keeps colours times their opacity, in bytes. Throws where it is no image.
 */
export const decoded = async (blob, { background }) => {
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = `rgb(${background.join(" ")})`;
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { data: context.getImageData(0, 0, width, height).data, width, height };
};
