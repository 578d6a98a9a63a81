// The task `angle` in pages whose files answer by themselves: what `task.py` says.

/** The angle of the direction that the file gives for twice of it: x and y. */
export const answer = ([[x, y]], card) => {
  const degrees = ((Math.atan2(y, x) * 90) / Math.PI + 180) % 180;
  return { words: `${Math.round(degrees)}°`, degrees, close: card.recipe.task.close_degrees };
};

/** Whether two answers are close to each other: half a turn is none. */
export const alike = (one, other) => {
  const apart = Math.abs(one.degrees - other.degrees);
  return Math.min(apart, 180 - apart) <= one.close;
};
