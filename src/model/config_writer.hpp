// Private to the room: a ModelConfig in the words of config.json: config.cpp the other way round.
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/formats/format.hpp>
#include <nibble/model/config.hpp>

#include <string_view>
#include <vector>

namespace nib::inline v0 {

// The keys that parse_config reads of this architecture, as its published files have them. Biases are yes or
// no, never if_stored. What the keys cannot say is left to first_difference to find.
std::vector<Json::Member> config_members(const ModelConfig& config);

// The value of torch_dtype for weights in that plain format.
Json dtype_json(Format plain);

// config.json's name for the first number that is another in b; empty: it is the same model.
std::string_view first_difference(const ModelConfig& a, const ModelConfig& b);

}  // namespace nib::inline v0
