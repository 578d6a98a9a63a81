// The self-test of a card: drawn images, the pixels that must come of them, and the answers.
import { pixels } from "./preprocessing.js";

/** An image of the card, drawn: {data: RGBA, width, height}. See `edgeopt/cards/card.py`. */
const drawn = ({ width, height, tile, waves }) => {
  const data = new Uint8Array(width * height * 4).fill(255);
  for (let y = 0, at = 0; y < height; y += 1)
    for (let x = 0; x < width; x += 1, at += 4) {
      const inverted = (Math.floor(x / tile) + Math.floor(y / tile)) % 2 === 1;
      waves.forEach(([across, down, start], channel) => {
        const value = Math.min(255, Math.abs(((across * x + down * y + start) % 512) - 256));
        data[at + channel] = inverted ? 255 - value : value;
      });
    }
  return { data, width, height };
};

const crc32 = (bytes) => {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
};

/** What is wrong, or null: `run` gives the logits of bytes of RGB. */
export const selfTest = async (card, run) => {
  for (const { image, crc32: expected, answers, file_answers: own } of card.self_test?.vectors ?? []) {
    const bytes = pixels(drawn(image), card.preprocessing);
    if (crc32(bytes) !== expected) return "the self-test of its card fails: this page prepares images in another way";
    const logits = await run(bytes);
    const wrong = answers.find(([index, logit], n) => !(Math.abs(logits[index] - (own[n] ?? logit)) <= card.self_test.tolerance));
    if (wrong) return "the self-test of its card fails: it answers otherwise here";
  }
  return null;
};
