"""How good boxes are, as COCO counts it, with intervals; and how far two sets of answers agree."""
