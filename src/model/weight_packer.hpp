// Private to the room: WeightPacker: the threads that bring a matrix from its file into the packed order,
// piece by piece.
#pragma once

#include <nibble/base/concat.hpp>
#include <nibble/kernels/pack.hpp>
#include <nibble/model/weights.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>

namespace nib::inline v0 {

class WeightPacker {
 public:
  using Matrix = WeightLayout::Matrix;
  using RowMap = WeightLayout::RowMap;
  static constexpr std::size_t kMostParts = 3;  // of a matrix: q, k and v

  // Bytes of staging that one thread needs for this matrix.
  static std::uint64_t staging_of(const Matrix& m) { return pieces_of(m).bytes; }

  WeightPacker(const Checkpoint& checkpoint, Pool& pool, const Cancel* cancel)
      : checkpoint_(checkpoint), pool_(pool), cancel_(cancel) {}

  // What threads read into, shared out evenly.
  void use(Buffer staging) {
    staging_ = std::move(staging);
    staging_each_ = staging_.size() / static_cast<std::size_t>(pool_.threads());
  }
  std::byte* staging() { return staging_.data(); }

  bool stopped() const { return cancel_ && cancel_->triggered(); }
  Status stopped_status() const {
    return {Code::stopped, concat(checkpoint_.path, ": was cancelled while its weights were read")};
  }

  // Packs these experts one after another at `out`, each of shape().bytes(). Returns what the kernel must be
  // able to take. Errors: format (a scale that is not a number, by tensor), stopped, those of reading.
  Result<ScaleRange> pack(const Matrix& m, Range experts, std::byte* out);

  // Some groups of four strips of one expert, from a prepared file where there is one, as a matrix of their
  // own. (Of one that is stored [k, rows], all of them.) The same errors.
  Status pack_groups(const Matrix& m, std::int64_t expert, Range groups, std::byte* out);

  // The same of a prepared matrix, all experts.
  Result<ScaleRange> read(const Matrix& m, const PreparedMatrix& prepared, std::byte* out);

  // A whole plane, to `out`.
  Status read(const Plane& plane, std::byte* out);

 private:
  // How a matrix is cut into pieces of work: `count` groups of strips (or, transposed, k tiles) of one
  // expert.
  struct Pieces {
    std::int64_t units;   // groups or tiles in an expert
    std::int64_t count;   // in a piece
    std::uint64_t bytes;  // staging of one piece
    std::int64_t per_expert() const { return ceil_div(units, count); }
  };
  static Pieces pieces_of(const Matrix& m);

  // The rows of the file that a piece needs, staged: where each row of the result finds its codes and scales.
  struct StagedRows;

  Status stage(const Matrix& m, std::int64_t expert, Range rows, std::byte* staging, StagedRows& staged);
  Status read_scales(const Matrix& m, const CheckpointTensor& tensor, std::uint64_t first,
                     std::uint64_t count, std::byte* out);
  Status stage_strip(const Matrix& m, std::int64_t expert, std::int64_t strip, std::byte* staging,
                     StripRows& natural);
  Status pack_strips(const Matrix& m, std::int64_t expert, Range groups, std::byte* staging, std::byte* out);
  Status read_bytes(const Plane& plane, std::uint64_t first, std::uint64_t bytes, std::byte* out);
  Status copy_records(const Matrix& m, std::int64_t expert, Range groups, std::byte* out);
  Status pack_transposed(const Matrix& m, std::int64_t expert, Range tiles, std::byte* staging,
                         std::byte* out);
  Status note(const Matrix& m, PackFindings findings);

  // Runs work(piece, staging of the thread) for all pieces; the first failure ends it.
  template <class Work>
  Status in_parallel(std::int64_t pieces, Work&& work) {
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex mutex;
    Status first;
    pool_.run([&](int index, int) {
      std::byte* staging = staging_.data() + static_cast<std::size_t>(index) * staging_each_;
      for (std::int64_t piece; !failed && !stopped() && (piece = next.fetch_add(1)) < pieces;)
        if (Status status = work(piece, staging); !status.ok()) {
          const std::lock_guard lock(mutex);
          if (!failed.exchange(true)) first = std::move(status);
        }
    });
    if (failed) return first;
    return stopped() ? stopped_status() : Status();
  }

  const Checkpoint& checkpoint_;
  Pool& pool_;
  const Cancel* cancel_;
  Buffer staging_;
  std::size_t staging_each_ = 0;
  std::atomic<ScaleRange> scales_{ScaleRange::narrow};  // of the matrix being packed
};

}  // namespace nib::inline v0
