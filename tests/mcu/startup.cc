// What a Cortex-M reads first: where its stack begins, and where it starts. The rest is the C library's, whose files and
// console are those of the emulator or debugger (semihosting).

extern "C" {

extern unsigned char stack_top[];  // of board.ld
void _start();

static void Stop() {
  for (;;) {
  }
}

union Entry {
  void* stack;
  void (*code)();
};

__attribute__((section(".vectors"), used)) const Entry vectors[16] = {
    {.stack = stack_top}, {.code = _start}, {.code = Stop}, {.code = Stop}, {.code = Stop}, {.code = Stop}, {.code = Stop},
};

}  // extern "C"
