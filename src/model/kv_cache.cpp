#include <nibble/base/bits.hpp>
#include <nibble/model/kv_cache.hpp>

#include <algorithm>
#include <cstring>

namespace nib::inline v0 {

KvGeometry KvGeometry::make(const ModelConfig& config, KvFormat format, const Placement& placement) {
  KvGeometry geometry;
  geometry.layout = {format, static_cast<int>(config.kv_heads), static_cast<int>(config.head_dim)};
  for (std::size_t l = 0; l < config.windows.size(); ++l) {
    const std::uint32_t window = config.windows[l];
    const Place place = placement.layer(l).attention;
    const auto same = [&](const LayerKind& kind) { return kind.window == window && kind.place == place; };
    auto kind = std::find_if(geometry.kinds.begin(), geometry.kinds.end(), same);
    if (kind == geometry.kinds.end()) kind = geometry.kinds.insert(kind, {window, 0, place});
    geometry.kind_of_layer.push_back(static_cast<std::uint32_t>(kind - geometry.kinds.begin()));
    geometry.index_in_kind.push_back(kind->layers++);
  }
  return geometry;
}

std::uint64_t KvGeometry::pages(std::size_t kind, std::uint32_t context, std::uint32_t chunk) const {
  const std::uint64_t page = kPagePositions;
  const std::uint64_t all = ceil_div(std::uint64_t{context}, page);
  const std::uint64_t window = kinds[kind].window;
  if (window == 0) return all;
  const std::uint64_t live = std::min(all, ceil_div(window - 1 + chunk, page) + 1);
  const std::uint64_t each = std::min(all, ceil_div(window - 1, page) + 1);
  // One page more: the copy of a shared last page exists before the original is let go.
  return live + each * (context / kCheckpointEvery + kAppendCheckpoints) + 1;
}

// ---- PagePool

Status PagePool::reserve(std::uint64_t pages) {
  const std::lock_guard lock(mutex_);
  std::uint64_t held = 0;
  for (const Slab& slab : slabs_) held += slab.pages.size();
  if (capacity_ + pages > held) {
    const std::uint64_t more = capacity_ + pages - held;
    Slab slab;
    NIB_ASSIGN(slab.memory, Buffer::make(more * page_bytes_, memory_, Purpose::kv_cache,
                                         "the key/value cache of a session"));
    slab.pages.reserve(more);
    for (std::uint64_t i = 0; i < more; ++i) slab.pages.push_back({slab.memory.data() + i * page_bytes_, 0});
    free_.reserve(held + more);
    Slab& kept = slabs_.emplace_back(std::move(slab));
    for (Page& page : kept.pages) free_.push_back(&page);
  }
  capacity_ += pages;
  return {};
}

void PagePool::release(std::uint64_t pages) {
  const std::lock_guard lock(mutex_);
  capacity_ -= pages;
  if (capacity_ > 0 || in_use_ > 0) return;  // the next session reuses the slabs
  free_.clear();
  slabs_.clear();
}

Result<PagePool::Page*> PagePool::take() {
  Page* page = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return Status(Code::internal, "the key/value cache is out of pages");
    page = free_.back();
    free_.pop_back();
    page->references = 1;
    ++in_use_;
  }
  if (!device_) {
    std::memset(page->data, 0, page_bytes_);
  } else if (Status cleared = device_->clear(page->data, page_bytes_); !cleared.ok()) {
    drop(page);
    return cleared;
  }
  return page;
}

Status PagePool::copy(const Page& from, Page& to) const {
  if (device_) return device_->copy(to.data, from.data, page_bytes_);
  std::memcpy(to.data, from.data, page_bytes_);
  return {};
}

void PagePool::share(Page* page) {
  const std::lock_guard lock(mutex_);
  ++page->references;
}

void PagePool::drop(Page* page) {
  const std::lock_guard lock(mutex_);
  if (--page->references > 0) return;
  free_.push_back(page);
  --in_use_;
}

bool PagePool::sole(const Page* page) {
  const std::lock_guard lock(mutex_);
  return page->references == 1;
}

// ---- KvCache

Result<std::unique_ptr<KvCache>> KvCache::make(const KvGeometry& geometry,
                                               std::vector<std::unique_ptr<PagePool>>& pools,
                                               std::uint32_t context, std::uint32_t chunk) {
  std::unique_ptr<KvCache> cache(new KvCache(geometry, pools));
  cache->tables_.resize(geometry.kinds.size());
  cache->reserved_.reserve(geometry.kinds.size());
  for (std::size_t kind = 0; kind < geometry.kinds.size(); ++kind) {
    const std::uint64_t pages = geometry.pages(kind, context, chunk);
    NIB_TRY(pools[kind]->reserve(pages));
    cache->reserved_.push_back(pages);
    cache->tables_[kind].pages.reserve(pages);
    cache->tables_[kind].addresses.reserve(pages);
  }
  return cache;
}

KvCache::~KvCache() {
  while (!checkpoints_.empty()) drop_checkpoint(checkpoints_.size() - 1);
  for (std::size_t kind = 0; kind < tables_.size(); ++kind)
    for (Page* page : tables_[kind].pages) pools_[kind]->drop(page);
  for (std::size_t kind = 0; kind < reserved_.size(); ++kind) pools_[kind]->release(reserved_[kind]);
}

// The page of the oldest key that a token at `position` sees.
std::int64_t KvCache::first_needed_page(std::size_t kind, std::int64_t position) const {
  const std::int64_t window = geometry_.kinds[kind].window;
  return window == 0 ? 0 : std::max<std::int64_t>(0, position - (window - 1)) / kPagePositions;
}

Status KvCache::extend(std::int64_t rows) {
  for (std::size_t kind = 0; kind < tables_.size(); ++kind) {
    Table& table = tables_[kind];
    PagePool& pool = *pools_[kind];
    if (length_ % kPagePositions != 0 && !pool.sole(table.pages.back())) {
      NIB_ASSIGN(Page * copy, pool.take());
      if (Status copied = pool.copy(*table.pages.back(), *copy); !copied.ok()) {
        pool.drop(copy);
        return copied;
      }
      pool.drop(table.pages.back());
      table.pages.back() = copy;
      table.addresses.back() = copy->data;
    }
    const std::int64_t pages = ceil_div(length_ + rows, std::int64_t{kPagePositions});
    while (table.first_page + static_cast<std::int64_t>(table.pages.size()) < pages) {
      NIB_ASSIGN(Page * page, pool.take());
      table.pages.push_back(page);
      table.addresses.push_back(page->data);
    }
  }
  return {};
}

void KvCache::advance(std::int64_t rows) {
  length_ += rows;
  for (std::size_t kind = 0; kind < tables_.size(); ++kind) {
    Table& table = tables_[kind];
    const std::int64_t gone = first_needed_page(kind, length_) - table.first_page;
    if (gone <= 0) continue;
    for (std::int64_t i = 0; i < gone; ++i) pools_[kind]->drop(table.pages[static_cast<std::size_t>(i)]);
    table.pages.erase(table.pages.begin(), table.pages.begin() + gone);
    table.addresses.erase(table.addresses.begin(), table.addresses.begin() + gone);
    table.first_page += gone;
  }
  if (length_ % kCheckpointEvery == 0) add_checkpoint(false);
}

void KvCache::checkpoint() {
  if (length_ % kCheckpointEvery != 0) add_checkpoint(true);
}

void KvCache::add_checkpoint(bool at_append) {
  if (!checkpoints_.empty() && checkpoints_.back().position >= length_) return;
  std::size_t appends = 0, oldest = 0;
  for (std::size_t i = checkpoints_.size(); i-- > 0;)
    if (checkpoints_[i].at_append) ++appends, oldest = i;
  if (at_append && appends >= kAppendCheckpoints) drop_checkpoint(oldest);
  Checkpoint point{length_, at_append, {}, std::vector<std::vector<Page*>>(tables_.size())};
  for (std::size_t kind = 0; kind < tables_.size(); ++kind) {
    point.first_page.push_back(tables_[kind].first_page);
    if (geometry_.kinds[kind].window != 0) point.pages[kind] = tables_[kind].pages;
  }
  checkpoints_.push_back(std::move(point));
  for (std::size_t kind = 0; kind < tables_.size(); ++kind)
    for (Page* page : checkpoints_.back().pages[kind]) pools_[kind]->share(page);
}

void KvCache::drop_checkpoint(std::size_t index) {
  Checkpoint& point = checkpoints_[index];
  for (std::size_t kind = 0; kind < point.pages.size(); ++kind)
    for (Page* page : point.pages[kind]) pools_[kind]->drop(page);
  checkpoints_.erase(checkpoints_.begin() + static_cast<std::ptrdiff_t>(index));
}

// Keeps the pages of positions below `length`.
void KvCache::truncate(std::size_t kind, std::int64_t length) {
  Table& table = tables_[kind];
  const std::int64_t pages =
      std::max<std::int64_t>(0, ceil_div(length, std::int64_t{kPagePositions}) - table.first_page);
  while (static_cast<std::int64_t>(table.pages.size()) > pages) {
    pools_[kind]->drop(table.pages.back());
    table.pages.pop_back();
    table.addresses.pop_back();
  }
}

std::int64_t KvCache::rewind(std::int64_t position) {
  if (position >= length_) return length_;
  while (!checkpoints_.empty() && checkpoints_.back().position > position)
    drop_checkpoint(checkpoints_.size() - 1);
  bool live = true;  // every window still holds what `position` needs
  for (std::size_t kind = 0; kind < tables_.size(); ++kind)
    live = live && tables_[kind].first_page <= first_needed_page(kind, position);
  const Checkpoint* point = checkpoints_.empty() ? nullptr : &checkpoints_.back();
  length_ = live ? position : point ? point->position : 0;
  for (std::size_t kind = 0; kind < tables_.size(); ++kind) {
    Table& table = tables_[kind];
    if (live || geometry_.kinds[kind].window == 0) {
      truncate(kind, length_);
      continue;
    }
    truncate(kind, 0);
    table.first_page = point ? point->first_page[kind] : 0;
    if (!point) continue;
    for (Page* page : point->pages[kind]) {
      pools_[kind]->share(page);
      table.pages.push_back(page);
      table.addresses.push_back(page->data);
    }
  }
  return length_;
}

}  // namespace nib::inline v0
