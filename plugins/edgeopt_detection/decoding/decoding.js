// From the raw heads of a file to boxes: what `reference.py` beside it does, to the last bit.
//
// `new BoxDecoder(decoding)` takes the `decoding` of a card. All arithmetic is in the order of the reference, and the exponential is its
// own: a browser's may differ in the last bit.

const LARGEST_EXPONENT = 708;
const LOG2_E = 1.4426950408889634;
const LN_2_HIGH = 0.6931471803691238;
const LN_2_LOW = 1.9082149292705877e-10;
const TAYLOR = [
  1.6059043836821613e-10, 2.08767569878681e-9, 2.505210838544172e-8, 2.755731922398589e-7, 2.7557319223985893e-6,
  2.48015873015873e-5, 0.0001984126984126984, 0.001388888888888889, 0.008333333333333333, 0.041666666666666664,
  0.16666666666666666, 0.5, 1, 1,
];

const power = new Float64Array(1);
const powerBits = new Int32Array(power.buffer);
const HIGH_WORD = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1 ? 1 : 0; // which half holds the exponent

const exponential = (value) => {
  if (Number.isNaN(value)) return NaN;
  const bounded = Math.min(Math.max(value, -LARGEST_EXPONENT), LARGEST_EXPONENT);
  const whole = Math.floor(bounded * LOG2_E + 0.5);
  const rest = (bounded - whole * LN_2_HIGH) - whole * LN_2_LOW;
  let series = TAYLOR[0];
  for (let term = 1; term < TAYLOR.length; term += 1) series = series * rest + TAYLOR[term];
  powerBits[HIGH_WORD] = (whole + 1023) << 20;
  powerBits[1 - HIGH_WORD] = 0;
  return series * power[0];
};

const sigmoid = (value) => 1 / (1 + exponential(-value));

/** The better of two candidates first; of equals, the one that was found first. */
const better = (one, other) => other.score - one.score || one.found - other.found;

const overlap = (one, other) => {
  const width = Math.max(Math.min(one.x2, other.x2) - Math.max(one.x1, other.x1), 0);
  const height = Math.max(Math.min(one.y2, other.y2) - Math.max(one.y1, other.y1), 0);
  const shared = width * height;
  const either = (one.x2 - one.x1) * (one.y2 - one.y1) + (other.x2 - other.x1) * (other.y2 - other.y1) - shared;
  return either > 0 ? shared / either : 0;
};

/** Turns the raw heads of one image into boxes: `{ x1, y1, x2, y2, label, score }`, in px of the file's input, the best first. */
export class BoxDecoder {
  constructor(decoding) {
    this.decoding = decoding;
    this.columns = decoding.classes + (decoding.background === null ? 0 : 1);
    this.levels = decoding.levels.map((level) => level.rows * level.columns * level.boxes.length);
    this.count = this.levels.reduce((sum, each) => sum + each, 0);
    this.anchors = new Float64Array(this.count * 4);
    let to = 0;
    for (const { rows, columns, origin, step, boxes } of decoding.levels)
      for (let row = 0; row < rows; row += 1)
        for (let column = 0; column < columns; column += 1) {
          const [y, x] = [origin[0] + row * step[0], origin[1] + column * step[1]];
          for (const [x1, y1, x2, y2] of boxes) {
            this.anchors.set([x + x1, y + y1, x + x2, y + y2], to);
            to += 4;
          }
        }
  }

  /** The boxes of a file that ends at them: `boxes` (rows, 4) are y1, x1, y2, x2 in shares of the input's height and width. */
  read(boxes, labels, scores, count) {
    const { height, width, classes } = this.decoding;
    const cut = (share, limit) => Math.fround(Math.min(Math.max(share * limit, 0), limit) + 0);
    const found = [];
    for (let row = 0; row < Math.min(Number(count), scores.length); row += 1) {
      const [y1, x1, y2, x2] = [0, 1, 2, 3].map((side) => cut(boxes[row * 4 + side], side % 2 ? width : height));
      const [label, score] = [Number(labels[row]), scores[row]];
      if ([y1, x1, y2, x2, score].every(Number.isFinite) && label >= 0 && label < classes) found.push({ x1, y1, x2, y2, label, score });
    }
    return found;
  }

  /**
   * `logits` are Float32Array (anchors, columns), `boxes` (anchors, 4), and `centerness` (anchors, 1) where it is used. A file that ends
   * at boxes gives four arrays, which are read: boxes, classes, scores and how many there are.
   */
  decode(logits, boxes, centerness, count) {
    if (count !== undefined) return this.read(logits, boxes, centerness, count[0]);
    const { classes, candidates } = this.decoding;
    const scores = this.scores(logits, centerness);
    const known = new Map();
    const boxOf = (anchor) => {
      if (!known.has(anchor)) known.set(anchor, this.box(boxes, anchor));
      return known.get(anchor);
    };
    const chosen = [];
    const add = (first, last, labels) => {
      const found = this.found(scores, boxOf, first, last, labels).sort(better).slice(0, candidates.most);
      for (const { box, label, score } of found) chosen.push({ ...box, label, score, found: chosen.length });
    };
    if (candidates.per === "class") for (let label = 0; label < classes; label += 1) add(0, this.count, [label]);
    else {
      const labels = Array.from({ length: classes }, (_, label) => label);
      let first = 0;
      for (const anchors of this.levels) {
        add(first, first + anchors, labels);
        first += anchors;
      }
    }
    return this.withoutOverlaps(chosen.sort(better)).map(({ found, ...box }) => box);
  }

  /** Candidates among some anchors and labels, in the order of these. */
  found(scores, boxOf, first, last, labels) {
    const { classes, score_threshold: threshold } = this.decoding;
    const found = [];
    for (let anchor = first; anchor < last; anchor += 1)
      for (const label of labels) {
        const score = scores[anchor * classes + label];
        const box = score > threshold ? boxOf(anchor) : null;
        if (box !== null) found.push({ box, label, score, found: found.length });
      }
    return found;
  }

  scores(logits, centerness) {
    const { classes, background, scores: kind } = this.decoding;
    const scores = new Float32Array(this.count * classes);
    const powers = new Float64Array(this.columns);
    for (let anchor = 0; anchor < this.count; anchor += 1) {
      const [from, to] = [anchor * this.columns, anchor * classes];
      if (kind === "softmax") {
        let largest = -Infinity;
        for (let column = 0; column < this.columns; column += 1) largest = Math.max(largest, logits[from + column]);
        let total = 0;
        for (let column = 0; column < this.columns; column += 1) total += powers[column] = exponential(logits[from + column] - largest);
        for (let column = 0, label = 0; column < this.columns; column += 1)
          if (column !== background) scores[to + label++] = powers[column] / total;
        continue;
      }
      const centre = kind === "sigmoid" ? 1 : sigmoid(centerness[anchor]);
      for (let label = 0; label < classes; label += 1) {
        const score = sigmoid(logits[from + label]);
        scores[to + label] = kind === "sigmoid" ? score : Math.sqrt(score * centre);
      }
    }
    return scores;
  }

  /** Corners of an anchor's box, cut at the borders of the input; null where they are no numbers. */
  box(numbers, anchor) {
    const { boxes: kind, weights, scale_limit: limit, width, height } = this.decoding;
    const at = anchor * 4;
    const corners = new Float64Array(4);
    for (let axis = 0; axis < 2; axis += 1) {
      const [low, high] = [this.anchors[at + axis], this.anchors[at + 2 + axis]];
      const size = high - low;
      if (kind === "offsets") {
        const centre = (numbers[at + axis] / weights[axis]) * size + (low + 0.5 * size);
        const half = 0.5 * (exponential(Math.min(numbers[at + 2 + axis] / weights[2 + axis], limit)) * size);
        corners[axis] = centre - half;
        corners[2 + axis] = centre + half;
      } else {
        const middle = 0.5 * (low + high);
        corners[axis] = middle - numbers[at + axis] * size;
        corners[2 + axis] = middle + numbers[at + 2 + axis] * size;
      }
    }
    const [x1, y1, x2, y2] = Array.from(corners, (value, place) =>
      Math.fround(Math.min(Math.max(value, 0), place % 2 ? height : width) + 0));
    return [x1, y1, x2, y2].some(Number.isNaN) ? null : { x1, y1, x2, y2 };
  }

  /** Of boxes that stand with the best first, those that overlap no better one of their class that stays. */
  withoutOverlaps(boxes) {
    const { iou_threshold: threshold, most } = this.decoding;
    const kept = [];
    const ofLabel = new Map();
    for (const box of boxes) {
      if (kept.length === most) break;
      if (!ofLabel.has(box.label)) ofLabel.set(box.label, []);
      const stronger = ofLabel.get(box.label);
      if (stronger.some((other) => overlap(other, box) > threshold)) continue;
      stronger.push(box);
      kept.push(box);
    }
    return kept;
  }
}
