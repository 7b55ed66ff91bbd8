// Private to the room: the rows of a weight that is to be written, in the order in which the new file has
// them, out of whichever tensors hold them now.
#pragma once

#include <nibble/base/pool.hpp>
#include <nibble/base/status.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/kernels/encode.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace nib::inline v0 {

// Where the rows of one matrix of the new tensor come from, in the matrix as it is stored.
struct RowOrder {
  enum Kind : std::uint8_t {
    same,
    pairs,        // GGUF's llama: the halves of a head that rotate together, as neighbours
    halves,       // and these as halves again
    even,         // every other row: the gates of alternating gates and ups
    odd,          // the ups
    alternating,  // rows of two tensors by turns: gates and ups
    by_parts,     // heads of q, then of k, then of v, out of q, k and v of one head after another
    by_heads,     // and these out of those
  };
  Kind kind = same;
  std::int64_t head_dim = 0, heads = 0;

  std::int64_t stored(std::int64_t row) const;
};

// Which matrices are not [rows that `order` numbers, columns] but the other way round.
enum class Turned : std::uint8_t { none, stored, written };

// A weight as the new file will have it: one matrix, a stack of them, or a vector (one row).
struct WeightPlan {
  std::string name;
  std::vector<std::uint64_t> shape;
  // Several are matrices to be stacked in this order, or the two that alternate.
  std::vector<const CheckpointTensor*> parts;
  RowOrder order;
  Turned turned = Turned::none;

  // A vector whose values move as the rows of a matrix do: here it has rows of one value.
  bool values_as_rows = false;
  // Of a part that is a stack, the matrix with which the new tensor begins.
  std::int64_t first_matrix = 0;

  std::int64_t columns() const {
    return values_as_rows || shape.empty() ? 1 : static_cast<std::int64_t>(shape.back());
  }
  std::int64_t matrix_rows() const { return height(shape); }
  // Of one matrix, those that `order` numbers.
  std::int64_t ordered_rows() const { return turned == Turned::written ? columns() : matrix_rows(); }
  std::int64_t rows() const;
  std::uint64_t values() const {
    return static_cast<std::uint64_t>(rows()) * static_cast<std::uint64_t>(columns());
  }
  // Rows of one matrix of a tensor of that shape.
  std::int64_t height(const std::vector<std::uint64_t>& of) const {
    if (values_as_rows) return of.empty() ? 1 : static_cast<std::int64_t>(of.back());
    return of.size() < 2 ? 1 : static_cast<std::int64_t>(of[of.size() - 2]);
  }
  // Bytes of the stored tensors, of each the share of its values that the new tensor has.
  std::uint64_t stored_bytes() const;
};

// Reads rows of a plan. One thread prepares, with all threads of the pool; then any may read.
class RowSource {
 public:
  RowSource(const Checkpoint& checkpoint, const WeightPlan& plan, Pool& pool);

  // Brings what the reads of these rows share into memory: of turned matrices those that have them, of a
  // vector that moves the whole. Errors: memory, those of read_values.
  Status prepare(std::int64_t first_row, std::int64_t count);

  // values [count, columns], of rows that are prepared. `stored` is room that the thread keeps from call to
  // call. Errors: memory, those of read_values.
  Status read(std::int64_t first_row, std::int64_t count, float* values,
              std::vector<std::byte>& stored) const;

  // Where a row of the plan is: the tensor and the row among those of all its matrices. Not of turned ones.
  struct Place {
    const CheckpointTensor* tensor;
    std::int64_t row;
  };
  Place place(std::int64_t row) const;

 private:
  // Rows as `order` numbers them, each where place() says.
  Status read_ordered(std::int64_t first_row, std::int64_t count, std::int64_t columns, float* values,
                      std::vector<std::byte>& stored) const;
  void read_turned(std::int64_t first_row, std::int64_t count, float* values) const;
  Status load_vectors();
  Result<std::vector<float>> load_matrix(std::int64_t matrix) const;

  const Checkpoint& checkpoint_;
  const WeightPlan& plan_;
  Pool& pool_;
  const Wideners widen_;
  std::map<std::int64_t, std::vector<float>> matrices_;  // by number, of turned plans: as they are not yet
  std::map<const CheckpointTensor*, std::vector<float>> vectors_;
};

// Calls body(begin, end) for shares of [0, count) on the threads of the pool; returns the first failure of
// the thread with the lowest number.
Status in_parallel(Pool& pool, std::int64_t count,
                   const std::function<Status(std::int64_t begin, std::int64_t end)>& body);

}  // namespace nib::inline v0
