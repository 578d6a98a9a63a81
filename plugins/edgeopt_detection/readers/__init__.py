"""Boxes from the files that people have: COCO's JSON, YOLO's folders, Pascal VOC's, and columns of Hugging Face."""
