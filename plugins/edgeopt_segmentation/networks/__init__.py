"""Networks that give logits for each place of an image."""
