"""Files for microcontrollers: int8 `.tflite` in TensorFlow Lite Micro, source code around them, and small networks."""
