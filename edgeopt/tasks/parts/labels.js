// The task `multi-label` in pages whose files answer by themselves: what `multilabel.py` says.

/** Every label with its confidence and its threshold. */
export const answer = ([logits], { classes, decision }) => ({
  labels: Array.from(classes, (_, label) => ({
    label,
    confidence: 1 / (1 + Math.exp(-logits[label])),
    threshold: decision?.thresholds?.[label] ?? decision?.threshold ?? 0.5,
  })),
});

const told = ({ labels }) => labels.map(({ confidence, threshold }) => confidence >= threshold);

/** Whether both tell the same labels. */
export const alike = (one, other) => {
  const others = told(other);
  return told(one).every((has, label) => has === others[label]);
};
