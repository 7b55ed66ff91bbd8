// Room formats: the numbers that GGUF files give their types, and which Format each is.
#pragma once

#include <nibble/formats/format.hpp>

#include <cstdint>

namespace nib::inline v0 {

struct GgmlType {
  std::uint32_t number;
  const char* name;  // as ggml writes it, for messages
  Format format;     // none: a type that is not read
};

// Every number that is or was given out, as of 2026; gaps are types that were removed.
inline constexpr GgmlType kGgmlTypes[] = {
    {0, "f32", Format::f32},        {1, "f16", Format::f16},           {2, "q4_0", Format::q4_0},
    {3, "q4_1", Format::q4_1},      {6, "q5_0", Format::q5_0},         {7, "q5_1", Format::q5_1},
    {8, "q8_0", Format::q8_0},      {9, "q8_1", Format::none},         {10, "q2_K", Format::q2_k},
    {11, "q3_K", Format::q3_k},     {12, "q4_K", Format::q4_k},        {13, "q5_K", Format::q5_k},
    {14, "q6_K", Format::q6_k},     {15, "q8_K", Format::none},        {16, "iq2_xxs", Format::none},
    {17, "iq2_xs", Format::none},   {18, "iq3_xxs", Format::none},     {19, "iq1_s", Format::none},
    {20, "iq4_nl", Format::iq4_nl}, {21, "iq3_s", Format::none},       {22, "iq2_s", Format::none},
    {23, "iq4_xs", Format::iq4_xs}, {24, "i8", Format::none},          {25, "i16", Format::none},
    {26, "i32", Format::none},      {27, "i64", Format::none},         {28, "f64", Format::none},
    {29, "iq1_m", Format::none},    {30, "bf16", Format::bf16},        {34, "tq1_0", Format::none},
    {35, "tq2_0", Format::none},    {39, "mxfp4", Format::gguf_mxfp4}, {40, "nvfp4", Format::gguf_nvfp4},
    {41, "q1_0", Format::none},     {42, "q2_0", Format::none},
};

// Null for a number that stands for nothing.
constexpr const GgmlType* find_ggml_type(std::uint32_t number) {
  for (const GgmlType& type : kGgmlTypes)
    if (type.number == number) return &type;
  return nullptr;
}

// The number under which a GGUF file holds the format, or null where it has none.
constexpr const GgmlType* ggml_type_of(Format format) {
  for (const GgmlType& type : kGgmlTypes)
    if (type.format == format && format != Format::none) return &type;
  return nullptr;
}

}  // namespace nib::inline v0
