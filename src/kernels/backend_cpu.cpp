// The backends of this build, in order of preference, and the format door.
#include <nibble/kernels/backend.hpp>

namespace nib::inline v0 {

extern const Backend kScalarBackend;
#if defined(__x86_64__)
extern const Backend kAvx2Backend;
extern const Backend kAvxvnniBackend;
extern const Backend kAvx512Backend;
#elif defined(__aarch64__)
extern const Backend kNeonBackend;
#endif

std::span<const Backend* const> cpu_backends() {
  static constexpr const Backend* kAll[] = {
#if defined(__x86_64__)
    &kAvx512Backend,
    &kAvxvnniBackend,
    &kAvx2Backend,
#elif defined(__aarch64__)
    &kNeonBackend,
#endif
    &kScalarBackend
  };
  return kAll;
}

namespace {

// Whether no two scales meet in a group of bytes.
bool whole_groups(const PackedWeight& shape) {
  return !tile_info(shape.format).shared || shape.run() % kInt8Group == 0;
}

bool takes(ActivationLayout x, const PackedWeight& shape, Numerics numerics) {
  if (group_dwords(x) > 0) return rounds_to_bf16(numerics) && whole_groups(shape);
  return x == ActivationLayout::floats || rounds_to_bf16(numerics);
}

}  // namespace

const MatmulKernel* find_kernel(const Backend& backend, const PackedWeight& shape, Numerics numerics,
                                ScaleRange scales) {
  if (shape.format == Format::none) return nullptr;
  const Format wanted = shape.tiled() ? shape.format : Format::none;
  const auto first_of = [&](std::span<const MatmulKernel> kernels) -> const MatmulKernel* {
    for (const MatmulKernel& kernel : kernels)
      if (kernel.weight == wanted && takes(kernel.x, shape, numerics) && kernel.scales >= scales)
        return &kernel;
    return nullptr;
  };
  if (numerics == Numerics::int8)
    if (const MatmulKernel* kernel = first_of(backend.int8_kernels)) return kernel;
  return first_of(backend.kernels);
}

}  // namespace nib::inline v0
