"""`edgeopt check --target`: what an accelerator takes of the files of a recipe, before anything is trained."""
