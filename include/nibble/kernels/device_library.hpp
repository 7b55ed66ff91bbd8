// Room kernels: what a library with kernels for a device, opened at run time, hands over: one table of C
// functions under one name.
//
// Library and core are built from the same sources or do not work together at all: the core reads the first
// three fields, which keep their places for ever, and calls nothing unless they are exactly its own.
#pragma once

#include <nibble/kernels/device_logits.hpp>
#include <nibble/kernels/ops.hpp>
#include <nibble/version.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

// Grows with every change of this file, and of anything that both sides take to be the same.
inline constexpr std::uint32_t kDeviceInterface = 6;
// Major, minor and patch of this nibble, three digits each.
inline constexpr std::uint32_t kDeviceVersion =
    NIBBLE_VERSION_MAJOR * 1'000'000 + NIBBLE_VERSION_MINOR * 1'000 + NIBBLE_VERSION_PATCH;

// A sentence for Status, zero-terminated, cut where it is too long.
struct DeviceMessage {
  char text[256];
};

// One device, as DeviceLibrary::describe fills it in.
struct DeviceFacts {
  char name[128];             // "NVIDIA H200", zero-terminated
  std::int32_t major, minor;  // of the compute capability
  std::int32_t processors;    // streaming multiprocessors
  std::int32_t fast;          // 1: it has kernels of the fast class (device_layout.hpp), 0: it has none
  std::uint64_t memory;       // bytes in all
};

// A device that was opened: its memory, and a queue in which it does what is asked of it, one after the
// other.
struct DeviceQueue;

// Which rows of a packed matrix lie together on a device, sixteen at a time.
struct DeviceRows {
  enum Order : std::uint8_t {
    consecutive,
    gate_up,  // of strips gate, up, gate, up: eight gates, then the eight ups of the same units
    heads,    // of heads: eight dimensions, then the eight that these are rotated with (rows_in_pairs)
  };
  Order order = consecutive;
  std::int32_t head_dim = 0;  // of heads; a multiple of sixteen

  constexpr DeviceRows(Order rows = consecutive, std::int32_t dim = 0) : order(rows), head_dim(dim) {}
  bool operator==(const DeviceRows&) const = default;
};

// One op, as backends of the processor have it (ops.hpp), with these differences: what pointers lead to is on
// the device, but for the arrays of PackedWeight, which are read before the op returns; OpContext has neither
// pool nor activations, and its tiles are scratch of device_scratch_bytes, the counters in it zero;
// matrices of rows that only ops of one device exchange (QkvArgs::normed, AttentionArgs::out,
// RouteArgs::normed, NextNorm::normed, expert_inputs) are bf16, each row at a multiple of 64; rows of an rms
// norm are as NextNorm says, with `squares` beside them. Without a router route() leaves
// no lists, and experts() of one expert reads none; with ProjectArgs::route, project() does what route()
// would. The op has been queued when it returns.
template <class Args>
using DeviceOp = std::int32_t (*)(DeviceQueue*, const OpContext*, const Args*, DeviceMessage*);

struct DeviceOps {
  DeviceOp<QkvArgs> qkv;
  DeviceOp<AttentionArgs> attention;
  DeviceOp<ProjectArgs> project;
  DeviceOp<RouteArgs> route;
  DeviceOp<ExpertsArgs> experts;
  DeviceOp<HeadArgs> head;
  DeviceOp<DigestArgs> digest;  // of logits; needs no scratch
};

// All functions return a Code as its number, and unless it is Code::ok fill in the message and leave the
// other outputs alone. Those that take no queue: any thread. A queue belongs to one thread at a time.
struct DeviceLibrary {
  std::uint32_t table_bytes;  // sizeof(DeviceLibrary)
  std::uint32_t interface;    // kDeviceInterface
  std::uint32_t version;      // kDeviceVersion

  // How many devices there are, at least one. Errors: unsupported (no driver, one that is too old, no device:
  // the message says which), device.
  std::int32_t (*count)(std::int32_t* out, DeviceMessage* message);
  // Device `index` of them. Errors: argument, device.
  std::int32_t (*describe)(std::int32_t index, DeviceFacts* out, DeviceMessage* message);

  // Device `index`, to be closed. Errors: argument, unsupported (no kernels for its compute capability),
  // device_memory, device.
  std::int32_t (*open)(std::int32_t index, DeviceQueue** out, DeviceMessage* message);
  // Waits for what was asked of it. Its memory has been released before.
  void (*close)(DeviceQueue* queue);
  // Bytes of the device's memory that nobody has taken. Errors: device.
  std::int32_t (*free_memory)(DeviceQueue* queue, std::uint64_t* out, DeviceMessage* message);
  // Bytes at a multiple of 256, not zeroed; null when there are not as many. Any thread, as is release.
  void* (*allocate)(DeviceQueue* queue, std::size_t bytes);
  void (*release)(DeviceQueue* queue, void* pointer);

  // Page-locked memory of the host, which the device reads at the rate of the bus, under the same address;
  // at a multiple of 256, not zeroed; null when there are not as many. Any thread, as is its release.
  void* (*allocate_locked)(DeviceQueue* queue, std::size_t bytes);
  void (*release_locked)(DeviceQueue* queue, void* pointer);

  // What follows is done in order with the ops. Errors: device.
  // From the host's memory, which may change as soon as this returns.
  std::int32_t (*upload)(DeviceQueue* queue, void* to, const void* from, std::size_t bytes,
                         DeviceMessage* message);
  // To the host's memory; has happened when this returns, and so has all that was asked before. Errors of
  // what was asked before are found here.
  std::int32_t (*download)(DeviceQueue* queue, void* to, const void* from, std::size_t bytes,
                           DeviceMessage* message);
  std::int32_t (*copy)(DeviceQueue* queue, void* to, const void* from, std::size_t bytes,
                       DeviceMessage* message);
  std::int32_t (*clear)(DeviceQueue* queue, void* to, std::size_t bytes, DeviceMessage* message);

  // The bytes in which the device holds a matrix (device_layout.hpp), from the processor's packed order; both
  // in the host's memory. Writes part `index` of `count`, so that threads can share the work. Any thread.
  // Errors: unsupported (scales that are too far apart).
  std::int32_t (*pack)(const PackedWeight* weight, DeviceRows rows, std::byte* out, std::int32_t index,
                       std::int32_t count, DeviceMessage* message);

  DeviceOps ops;
};

// The name under which a library exports its table, a constant of type DeviceLibrary.
inline constexpr char kDeviceLibrarySymbol[] = "nibble_device_library";

}  // namespace nib::inline v0
