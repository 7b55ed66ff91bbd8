// Room base: a few functions in double precision without libm, so that every machine gives the same bits. For
// tables and sampling, not for inner loops. They need round-to-nearest (FloatScope).
#pragma once

namespace nib::inline v0 {

// ln x for normal x > 0; error below 2 ulp.
double log_plain(double x);
// e^x for |x| < 700; error below 2 ulp.
double exp_plain(double x);

struct CosSin {
  double cos, sin;
};
// For |x| < 2^25; absolute error below 2^-50.
CosSin cos_sin(double x);

}  // namespace nib::inline v0
