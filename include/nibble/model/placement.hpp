// Room model: Placement: which parts of a model a device computes. It is fixed when a model is opened, for it
// decides the bits of results; where bytes lie meanwhile does not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace nib::inline v0 {

enum class Place : std::uint8_t { host, device };
inline constexpr int kPlaces = 2;

// A layer's two halves, with their norms: qkv, attention and projection; router and experts (or the dense
// ones).
struct LayerPlacement {
  Place attention = Place::host, experts = Place::host;
};

struct Placement {
  std::vector<LayerPlacement> layers{};  // of each layer; empty: the host computes all
  Place head = Place::host;              // embeddings are looked up by the host
  bool may_be_fast = false;              // products of the device (kFastRows in kernels/device_layout.hpp)

  // The last `device_layers` of `layers` on the device, if it is more than there are with the head; experts
  // stay with the host if so wished.
  static Placement of_last(std::uint32_t layers, std::uint32_t device_layers, bool host_experts) {
    Placement made;
    if (device_layers == 0) return made;
    made.head = device_layers > layers ? Place::device : Place::host;
    made.layers.resize(layers);
    for (std::uint32_t l = layers - (device_layers < layers ? device_layers : layers); l < layers; ++l)
      made.layers[l] = {Place::device, host_experts ? Place::host : Place::device};
    return made;
  }

  LayerPlacement layer(std::size_t index) const { return layers.empty() ? LayerPlacement{} : layers[index]; }
  bool uses_device() const {
    bool uses = head == Place::device;
    for (const LayerPlacement& layer : layers)
      uses = uses || layer.attention == Place::device || layer.experts == Place::device;
    return uses;
  }
};

}  // namespace nib::inline v0
