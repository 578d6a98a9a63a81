// Stands for the profiler of the ruy library, of which TensorFlow Lite Micro uses the label alone, and no image has one.
#pragma once

namespace ruy::profiler {

struct ScopeLabel {
  template <typename... Parts>
  explicit ScopeLabel(Parts...) {}
};

}  // namespace ruy::profiler
