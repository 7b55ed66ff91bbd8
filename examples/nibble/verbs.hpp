// The verbs of the program; each returns an exit code and has said what there was to say.
#pragma once

#include "flags.hpp"

namespace nib::program {

int run(const RunFlags& flags);
int chat(const ChatFlags& flags);
int inspect(const InspectFlags& flags);
int plan(const PlanFlags& flags);
int explain(const ExplainFlags& flags);
int perplexity(const PerplexityFlags& flags);
int bench(const BenchFlags& flags);
int doctor(const DoctorFlags& flags);
int tokenize(const TokenizeFlags& flags);
int quantize(const QuantizeFlags& flags);

}  // namespace nib::program
