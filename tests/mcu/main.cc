// Answers the images in a file of the machine that emulates this one: `kHeight * kWidth * kChannels` bytes each, 0 to
// 255. Their outputs, as the model has them, go to another; what the model takes of the arena is printed.

#include <cstdio>
#include <new>

#include "model.h"
#include "tensorflow/lite/micro/arena_allocator/single_arena_buffer_allocator.h"
#include "tensorflow/lite/micro/memory_planner/greedy_memory_planner.h"
#include "tensorflow/lite/micro/micro_allocator.h"
#include "tensorflow/lite/micro/micro_interpreter.h"

namespace {

using Memory = tflite::SingleArenaBufferAllocator;
using Planner = tflite::GreedyMemoryPlanner;

constexpr int kPixels = kHeight * kWidth * kChannels;

alignas(16) std::uint8_t arena[kArenaBytes];
std::uint8_t pixels[kPixels];

int Failed(const char* what) {
  std::printf("failed: %s\n", what);
  return 1;
}

}  // namespace

int main() {
  static tflite::MicroMutableOpResolver<kOperators> resolver;
  if (RegisterOperators(resolver) != kTfLiteOk) return Failed("RegisterOperators");

  // What MicroInterpreter(model, resolver, arena, kArenaBytes) makes, kept here to be asked for both ends of the arena.
  Memory* memory = Memory::Create(arena, kArenaBytes);
  Planner* planner = new (memory->AllocatePersistentBuffer(sizeof(Planner), alignof(Planner))) Planner();
  tflite::MicroInterpreter interpreter(tflite::GetModel(kModel), resolver,
                                       tflite::MicroAllocator::Create(memory, planner));
  if (interpreter.AllocateTensors() != kTfLiteOk) return Failed("AllocateTensors");

  std::FILE* images = std::fopen("images.bin", "rb");
  std::FILE* answers = std::fopen("answers.bin", "wb");
  if (images == nullptr || answers == nullptr) return Failed("images.bin or answers.bin");
  int count = 0;
  for (; std::fread(pixels, 1, kPixels, images) == kPixels; ++count) {
    std::int8_t* input = interpreter.input(0)->data.int8;
    for (int i = 0; i < kPixels; ++i) input[i] = ToInput(pixels[i], i % kChannels);
    if (interpreter.Invoke() != kTfLiteOk) return Failed("Invoke");
    for (std::size_t i = 0; i < interpreter.outputs_size(); ++i) {
      std::fwrite(interpreter.output(i)->data.raw, 1, interpreter.output(i)->bytes, answers);
    }
  }
  std::fclose(answers);
  std::printf("images %d\nhead %u\ntail %u\n", count, static_cast<unsigned>(memory->GetNonPersistentUsedBytes()),
              static_cast<unsigned>(memory->GetPersistentUsedBytes()));
  return 0;
}
