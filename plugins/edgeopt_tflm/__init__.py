"""Files for microcontrollers: int8 `.tflite` in TensorFlow Lite Micro, and source code around them."""
