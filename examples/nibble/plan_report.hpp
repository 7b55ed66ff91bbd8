// A plan as people and programs read it.
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/runtime/plan.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace nib::program {

// What takes memory, in all places together: items of one name.
struct PlanRow {
  std::string name;
  std::uint64_t host_bytes = 0, device_bytes = 0;
  std::uint64_t stored_bytes = 0;  // of weights: in the files
};
std::vector<PlanRow> plan_rows(const Plan& plan);

// What takes memory and whether it fits; ends with a newline. `backend` is the one planned for, by name.
std::string plan_text(const Plan& plan, const std::string& backend);
// Keys are part of what the command line promises.
std::vector<Json::Member> plan_members(const Plan& plan, const std::string& backend);

}  // namespace nib::program
