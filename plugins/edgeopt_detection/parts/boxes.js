// The task `detection` in pages whose files answer by themselves: what `task.py` of this plugin says.
import { BoxDecoder } from "./decoding.js"; // where a page has both

const SAME_OVERLAP = 0.9;
const decoders = new WeakMap();

const decoderOf = (card) => {
  if (!decoders.has(card)) decoders.set(card, new BoxDecoder(card.decision.decoding));
  return decoders.get(card);
};

/** All boxes that the decoding finds, the best first, and the score from which on they are shown. */
export const answer = (outputs, card) => ({
  boxes: decoderOf(card).decode(...outputs).map(({ label, score, x1, y1, x2, y2 }) => ({ label, score, corners: [x1, y1, x2, y2] })),
  shown_score: card.decision.shown_score,
});

const overlap = ({ corners: one }, { corners: other }) => {
  const side = (axis) => Math.max(0, Math.min(one[axis + 2], other[axis + 2]) - Math.max(one[axis], other[axis]));
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  const shared = side(0) * side(1);
  return shared / (area(one) + area(other) - shared);
};

/** Whether every shown box of either has one of the other, of its class and nearly its place. */
export const alike = (one, other) => {
  const shown = ({ boxes, shown_score: least }) => boxes.filter(({ score }) => score >= least);
  const left = shown(other);
  for (const box of shown(one)) {
    let best = -1;
    for (const [place, each] of left.entries())
      if (each.label === box.label && overlap(box, each) >= SAME_OVERLAP && (best < 0 || overlap(box, each) > overlap(box, left[best]))) best = place;
    if (best < 0) return false;
    left.splice(best, 1);
  }
  return left.length === 0;
};
