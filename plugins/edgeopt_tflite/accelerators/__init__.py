"""What processors that take `.tflite` files run of one."""
