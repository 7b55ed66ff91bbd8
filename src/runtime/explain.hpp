// From what was loaded to what is told. Private to the room.
#pragma once

#include <nibble/model/weights.hpp>
#include <nibble/runtime/explain.hpp>
#include <nibble/runtime/plan.hpp>

#include <vector>

namespace nib::inline v0 {

// The items of a model: its parts, then the caches of the plan. is_fast: products of the device are of the
// fast class where they can be.
std::vector<ExplainItem> explain(std::vector<WeightPart> parts, const Plan& plan, const Backend& backend,
                                 KvFormat kv_format, bool is_fast);

}  // namespace nib::inline v0
