// Room model: the paged cache of keys and values: pages from a pool that the plan sized, a session's tables
// of them, and the checkpoints that a rewind goes back to.
//
// Layers with the same window in the same place are one kind and share pages: a page holds 64 positions of
// every layer of its kind, there where they attend. Pages are shared by reference count and never written
// while shared: the last, partly filled page is copied first.
#pragma once

#include <nibble/base/memory.hpp>
#include <nibble/base/status.hpp>
#include <nibble/kernels/device.hpp>
#include <nibble/kernels/ops.hpp>
#include <nibble/model/config.hpp>
#include <nibble/model/placement.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace nib::inline v0 {

// The layers of one window in one place.
struct LayerKind {
  std::uint32_t window = 0;  // 0: full attention
  std::uint32_t layers = 0;
  Place place = Place::host;
};

// Which kind a layer is of, and its place inside a page.
struct KvGeometry {
  KvLayout layout{};
  std::vector<LayerKind> kinds;
  std::vector<std::uint32_t> kind_of_layer, index_in_kind;

  static KvGeometry make(const ModelConfig& config, KvFormat format, const Placement& placement = {});
  std::size_t page_bytes(std::size_t kind) const { return kinds[kind].layers * layout.layer_bytes(); }
  std::size_t layer_offset(std::uint32_t layer) const { return index_in_kind[layer] * layout.layer_bytes(); }

  // Pages of a kind that one session of `context` positions may hold at once, prefilled `chunk` rows at a
  // time.
  std::uint64_t pages(std::size_t kind, std::uint32_t context, std::uint32_t chunk) const;
};

// Checkpoints a window layer keeps: one every so many positions, and the ends of the last appends.
inline constexpr std::int64_t kCheckpointEvery = 1024;
inline constexpr std::size_t kAppendCheckpoints = 8;

// The pages of one kind, of all sessions of a model. Thread-safe; but where they are on a device take() and
// copy() are for whoever has the device.
class PagePool {
 public:
  // device: whose memory that is; null: the host's.
  PagePool(Memory& memory, std::size_t page_bytes, const Device* device = nullptr)
      : memory_(memory), page_bytes_(page_bytes), device_(device) {}

  // Makes room for so many more pages, or takes as many back. Errors: budget, memory.
  Status reserve(std::uint64_t pages);
  void release(std::uint64_t pages);

  struct Page {
    std::byte* data;
    std::uint32_t references;
  };
  // A zeroed page with one reference. Errors: internal (there is none, though a session that stays within its
  // reservation always finds one), device.
  Result<Page*> take();
  // What is in a page, to another one. Errors: device.
  Status copy(const Page& from, Page& to) const;
  void share(Page* page);
  void drop(Page* page);
  // True when nobody else holds the page.
  bool sole(const Page* page);

 private:
  struct Slab {
    Buffer memory;
    std::vector<Page> pages;
  };
  Memory& memory_;
  std::size_t page_bytes_;
  const Device* device_;
  std::mutex mutex_;
  std::uint64_t capacity_ = 0, in_use_ = 0;
  std::deque<Slab> slabs_;  // addresses of pages stay
  std::vector<Page*> free_;
};

// Keys and values of one session. One thread at a time.
class KvCache {
 public:
  // Takes its pages' reservation from the pools (one per kind), which outlive it.
  static Result<std::unique_ptr<KvCache>> make(const KvGeometry& geometry,
                                               std::vector<std::unique_ptr<PagePool>>& pools,
                                               std::uint32_t context, std::uint32_t chunk);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  // Positions whose keys and values are here.
  std::int64_t length() const { return length_; }
  // Pages for `rows` more positions exist and may be written. Errors: internal (the reservation was too
  // small), device.
  Status extend(std::int64_t rows);
  // The rows were computed; what windows no longer see is let go.
  void advance(std::int64_t rows);
  // Keeps what a rewind to here will need. Call at the end of an append.
  void checkpoint();
  // Goes back to `position` or, when windows have let go of what it needs, to the nearest checkpoint before
  // it. Returns the new length.
  std::int64_t rewind(std::int64_t position);

  // The pages of a kind, from the first that is kept on.
  std::span<std::byte* const> pages(std::size_t kind) const { return tables_[kind].addresses; }

  // What an op needs of one row.
  KvRow row(std::size_t kind, std::int64_t position) const {
    const Table& table = tables_[kind];
    return {table.addresses.data(), table.first_page, position};
  }

 private:
  using Page = PagePool::Page;
  struct Table {
    std::vector<Page*> pages;           // from first_page on
    std::vector<std::byte*> addresses;  // the same pages
    std::int64_t first_page = 0;
  };
  struct Checkpoint {
    std::int64_t position;
    bool at_append;                         // not one of the regular ones
    std::vector<std::int64_t> first_page;   // by kind
    std::vector<std::vector<Page*>> pages;  // by kind, what its window needs; empty for full attention
  };

  KvCache(const KvGeometry& geometry, std::vector<std::unique_ptr<PagePool>>& pools)
      : geometry_(geometry), pools_(pools) {}
  std::int64_t first_needed_page(std::size_t kind, std::int64_t position) const;
  void truncate(std::size_t kind, std::int64_t length);
  void drop_checkpoint(std::size_t index);
  void add_checkpoint(bool at_append);

  const KvGeometry& geometry_;
  std::vector<std::unique_ptr<PagePool>>& pools_;
  std::vector<std::uint64_t> reserved_;
  std::vector<Table> tables_;
  std::vector<Checkpoint> checkpoints_;  // by position
  std::int64_t length_ = 0;
};

}  // namespace nib::inline v0
