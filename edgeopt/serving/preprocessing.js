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

/** The pixels of an image, RGB, whose sides are resized and cut as `x` and `y` say: `count` of each are kept. */
const resampled = ({ data, width, height }, interpolation, x, y) => {
  if (interpolation === "nearest") {
    const columns = nearestOf(width, x.low, x.high, x.resized, x.first, x.count);
    const rows = nearestOf(height, y.low, y.high, y.resized, y.first, y.count);
    const cut = new Uint8Array(x.count * y.count * 3);
    for (let row = 0, to = 0; row < y.count; row += 1)
      for (let column = 0; column < x.count; column += 1)
        for (let channel = 0; channel < 3; channel += 1, to += 1)
          cut[to] = data[(rows[row] * width + columns[column]) * 4 + channel];
    return cut;
  }
  const filter = FILTERS[interpolation];
  const placesOf = (side, { low, high, resized, first, count }) =>
    low === 0 && high === resized && side === resized
      ? Array.from({ length: count }, (_, index) => ({ start: first + index, weights: null }))
      : weightsOf(side, low, high, resized, first, count, filter);
  const [columns, rows] = [placesOf(width, x), placesOf(height, y)];
  const [left, right] = extent(columns);
  const [top, bottom] = extent(rows);
  // Pillow 13 begins with the height where that loses more than twice the pixels that the width loses
  if (height > y.resized && height - y.resized > 2 * (width - x.resized)) {
    const wide = right - left;
    const upright = { data, lines: 4, taps: width * 4, at: left * 4 };
    const flat = pass(upright, rows, wide, { lines: 3, places: wide * 3 });
    return pass({ data: flat, lines: wide * 3, taps: 3, at: -left * 3 }, columns, y.count, { lines: x.count * 3, places: 3 });
  }
  const flat = pass({ data, lines: width * 4, taps: 4, at: top * width * 4 }, columns, bottom - top, { lines: x.count * 3, places: 3 });
  return pass({ data: flat, lines: 3, taps: x.count * 3, at: -top * x.count * 3 }, rows, x.count, { lines: 3, places: x.count * 3 });
};

/** Where `length` px from `start` of a side come from: whole px around them, and the exact places within. */
const sourceOf = (start, length, resized, side) => {
  const scale = side / resized;
  const [low, high] = [start * scale, (start + length) * scale];
  const around = Math.ceil(2 * Math.max(1, scale)) + 1;
  const [first, last] = [Math.max(0, Math.floor(low) - around), Math.min(side, Math.ceil(high) + around)];
  return { first, last, low: Math.fround(low - first), high: Math.fround(Math.min(high, side) - first) };
};

/** Height and width of a size as a card has it: the edge of a square, or both. */
const sidesOf = (size) => (Array.isArray(size) ? size : [size, size]);

/** [height, width, channels] of what a file takes. */
export const shapeOf = ({ image_size, channel_order }) => [...sidesOf(image_size), channel_order === "grey" ? 1 : 3];

const greyOf = (red, green, blue) => (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16;

/** An image without colours: grey in all three. */
const grey = ({ data, width, height }) => {
  const turned = new Uint8Array(data.length);
  for (let at = 0; at < data.length; at += 4) turned.fill(greyOf(data[at], data[at + 1], data[at + 2]), at, at + 3);
  return { data: turned, width, height };
};

/** A decoded image, RGBA and opaque, as bytes of RGB or grey, the rows one after the other. */
export const pixels = (image, card) => {
  if (shapeOf(card)[2] === 3) return coloured(image, card);
  const ground = greyOf(...card.background);
  const bytes = coloured(grey(image), { ...card, background: [ground, ground, ground] });
  return Uint8Array.from({ length: bytes.length / 3 }, (_, index) => bytes[index * 3]);
};

/** [height, width] of all of an image after resizing. */
const resizedOf = (image, { image_size, resize, fit = "crop" }) => {
  const sides = sidesOf(image_size);
  const [frameHeight, frameWidth] = sidesOf(resize);
  const scales = [frameHeight / image.height, frameWidth / image.width];
  const scaled = (scale, least) => [image.height, image.width].map((side, index) => Math.max(least[index], rounded(side * scale)));
  return fit === "stretch" ? sides : fit === "letterbox" ? scaled(Math.min(...scales), [1, 1]) : scaled(Math.max(...scales), sides);
};

/** How an image of {width, height} comes into the frame: `resized` [width, height], and the `offset` [x, y] of its corner there, px. */
export const geometryOf = (image, card) => {
  const [tall, wide] = sidesOf(card.image_size);
  const [height, width] = resizedOf(image, card);
  const start = (room, side) => (side > room ? -Math.floor((side - room) / 2) : Math.floor((room - side) / 2));
  return { resized: [width, height], offset: [start(wide, width), start(tall, height)] };
};

const coloured = (image, card) => {
  const { image_size, resize, interpolation, background } = card;
  const [tall, wide] = sidesOf(image_size);
  const [frameHeight, frameWidth] = sidesOf(resize);
  const [height, width] = resizedOf(image, card);
  const [rows, columns] = [Math.min(tall, height), Math.min(wide, width)];
  const [left, top] = [Math.floor((width - columns) / 2), Math.floor((height - rows) / 2)];
  if (width * height > Math.max(LARGEST_RESIZED, 8 * frameHeight * frameWidth)) {
    const x = sourceOf(left, columns, width, image.width);
    const y = sourceOf(top, rows, height, image.height);
    const near = cutOut(image, x.first, y.first, x.last, y.last);
    const side = ({ low, high }, count) => ({ low, high, resized: count, first: 0, count });
    return resampled(near, interpolation, side(x, columns), side(y, rows));
  }
  const x = { low: 0, high: image.width, resized: width, first: left, count: columns };
  const y = { low: 0, high: image.height, resized: height, first: top, count: rows };
  const kept = resampled(image, interpolation, x, y);
  return rows === tall && columns === wide ? kept : framed(kept, rows, columns, tall, wide, background);
};

/** `rows` × `columns` pixels in the middle of `tall` × `wide` ones of the ground. */
const framed = (kept, rows, columns, tall, wide, ground) => {
  const whole = Uint8Array.from({ length: tall * wide * 3 }, (_, index) => ground[index % 3]);
  const [left, top] = [Math.floor((wide - columns) / 2), Math.floor((tall - rows) / 2)];
  for (let row = 0; row < rows; row += 1)
    whole.set(kept.subarray(row * columns * 3, (row + 1) * columns * 3), ((top + row) * wide + left) * 3);
  return whole;
};

const cutOut = ({ data, width }, left, top, right, bottom) => {
  const cut = new Uint8Array((right - left) * (bottom - top) * 4);
  for (let row = top; row < bottom; row += 1)
    cut.set(data.subarray((row * width + left) * 4, (row * width + right) * 4), (row - top) * (right - left) * 4);
  return { data: cut, width: right - left, height: bottom - top };
};

/** Bytes of RGB or grey as the model's input: floats, one plane after the other. */
export const normalized = (bytes, { mean, std }) => {
  const channels = mean.length;
  const count = bytes.length / channels;
  const planes = new Float32Array(bytes.length);
  for (let channel = 0; channel < channels; channel += 1) {
    const scale = Math.fround(1 / (255 * std[channel]));
    const offset = Math.fround(-mean[channel] / std[channel]);
    const values = Float32Array.from({ length: 256 }, (_, value) => Math.fround(value * scale) + offset);
    for (let index = 0; index < count; index += 1) planes[channel * count + index] = values[bytes[index * channels + channel]];
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
