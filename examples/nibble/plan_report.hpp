// A plan as people and programs read it.
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/runtime/plan.hpp>

#include <string>

namespace nib::program {

// What takes memory and whether it fits; ends with a newline. `backend` is the one planned for, by name.
std::string plan_text(const Plan& plan, const std::string& backend);
// Keys are part of what the command line promises.
std::vector<Json::Member> plan_members(const Plan& plan, const std::string& backend);

}  // namespace nib::program
