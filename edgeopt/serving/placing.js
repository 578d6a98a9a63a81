// What a task's code found in the frame of a file, in px of the image as it was given: what `findings.py` does.
import { geometryOf, shapeOf } from "./preprocessing.js";

/** `found` is what `answer` of a task's module gives, of an image {width, height}. */
export const placed = (found, { width, height }, { classes, preprocessing }, prepared) => {
  const [tall, wide] = shapeOf(preprocessing);
  const geometry = prepared ? { resized: [wide, tall], offset: [0, 0] } : geometryOf({ width, height }, preprocessing);
  const sides = [width, height];
  /** A place of the frame, by its axis. */
  const original = (value, axis) => {
    const place = ((value - geometry.offset[axis]) * sides[axis]) / geometry.resized[axis];
    return Math.round(100 * Math.min(Math.max(place, 0), sides[axis])) / 100;
  };
  const box = ([x1, y1, x2, y2]) => ({ x1: original(x1, 0), y1: original(y1, 1), x2: original(x2, 0), y2: original(y2, 1) });
  const named = (index) => ({ label: classes[index] ?? `class ${index}`, index });
  return {
    words: found.words ?? "",
    width,
    height,
    labels:
      found.labels?.map(({ label, ...rest }) => ({ ...named(label), ...rest })).sort((one, other) => other.confidence - one.confidence) ?? null,
    boxes: found.boxes?.map(({ label, score, corners }) => ({ ...named(label), score, ...box(corners) })) ?? null,
    shown_score: found.shown_score ?? null,
    mask: found.mask ? maskOf(found.mask, [wide, tall], geometry, box, named) : null,
  };
};

/** The part of a mask that shows the image, and where that lies in it. */
const maskOf = ({ data, width, height }, [wide, tall], { resized, offset }, box, named) => {
  const seen = [Math.max(0, offset[0]), Math.max(0, offset[1]), Math.min(wide, offset[0] + resized[0]), Math.min(tall, offset[1] + resized[1])];
  const [left, top, right, bottom] = seen.map((value, place) => Math.round((value * (place % 2 ? height : width)) / (place % 2 ? tall : wide)));
  const part = new Uint8Array((right - left) * (bottom - top));
  for (let row = top; row < bottom; row += 1) part.set(data.subarray(row * width + left, row * width + right), (row - top) * (right - left));
  const counts = new Map();
  for (const index of part) counts.set(index, (counts.get(index) ?? 0) + 1);
  const classes = [...counts].sort(([one], [other]) => one - other).sort(([, one], [, other]) => other - one);
  return {
    data: part, width: right - left, height: bottom - top, ...box(seen),
    classes: classes.map(([index, count]) => ({ ...named(index), share: count / part.length })),
  };
};
