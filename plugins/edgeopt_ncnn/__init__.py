"""ncnn: a `.param` with its `.bin`, for phones and boards."""
