// Room runtime: ExplainItem: how a model is computed, tensor by tensor: what it is stored as, which kernel
// multiplies it, on which instructions of which device.
#pragma once

#include <nibble/base/memory.hpp>
#include <nibble/formats/format.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace nib::inline v0 {

// How the bytes of an item are read. Nothing is widened in memory but vectors: every matrix is multiplied
// from the codes and scales that its file has.
enum class KernelKind : std::uint8_t {
  tiles,    // a kernel made for the format, from weights packed in the order in which it reads them
  records,  // the generic kernel of any format: rows as stored, decoded value by value; right, but slow
  lookup,   // a row for each token
  vector,   // norms, biases, sinks: widened to f32 when loaded
  cache,    // keys and values
  chain,    // the one kernel of a device for all formats that have none of their own there; right, but slow
  wgmma,    // of a device: tiles for few rows, and the fast class for kFastRows and more
};
constexpr const char* kernel_name(KernelKind kind) {
  constexpr const char* names[] = {"tiles", "records", "lookup", "vector", "cache", "chain", "wgmma"};
  return names[static_cast<int>(kind)];
}

// Whether it serves every format that has no kernel of its own.
constexpr bool is_generic(KernelKind kind) {
  return kind == KernelKind::records || kind == KernelKind::chain;
}

struct ExplainItem {
  std::string name;     // tensors: "model.layers.0.self_attn.{q,k,v}_proj.weight", "*" for every expert; or
                        // "keys and values, 12 full layers"
  std::string_view op;  // that reads it: "embed", "qkv", "attention", "project", "route", "experts", "head"
  Purpose purpose;      // weights, or kv_cache
  Format format;        // as stored; of a cache: as kept
  Format computed;      // what inputs are rounded to before they are multiplied; sums are f32
  KernelKind kernel;
  std::string_view instruction_set;  // "avx2": the backend's name; "cuda"
  std::string device;                // "host", "cuda:0"
  std::uint64_t bytes;               // in memory; of a cache: planned, for all sessions
  std::uint64_t decode_bytes;        // of weights, those read for one token at batch 1
  std::uint32_t slots = 0;         // of experts that take turns there, `bytes` in all; 0: every one is there
  std::uint64_t locked_bytes = 0;  // of all of them then, in page-locked memory of the host
};

}  // namespace nib::inline v0
