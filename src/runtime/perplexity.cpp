#include <nibble/base/concat.hpp>
#include <nibble/runtime/perplexity.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

namespace nib::inline v0 {
namespace {

constexpr std::int64_t kLeastRows = 16, kMostRows = 256;          // appended at once
constexpr std::int64_t kMostKeptLogits = std::int64_t{16} << 20;  // of P

// One token of the text, predicted.
struct Prediction {
  double nll = 0;
  double nll_of_other = 0, divergence = 0;  // against another model
  bool agree = false;
};

Token likeliest(std::span<const float> row) {
  return static_cast<Token>(std::max_element(row.begin(), row.end()) - row.begin());
}

// log(sum(exp(x))).
double log_sum(std::span<const float> row, double largest) {
  double sum = 0;
  for (const float logit : row) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

Prediction predict(std::span<const float> row, Token next) {
  return {.nll = log_sum(row, row[likeliest(row)]) - row[next]};
}

// KL(P || Q) = sum of p (x_P - x_Q), - log_sum(x_P) + log_sum(x_Q).
Prediction compare(std::span<const float> truth, std::span<const float> row, Token next) {
  const Token best = likeliest(row), best_of_truth = likeliest(truth);
  const double normal = log_sum(row, row[best]), largest = truth[best_of_truth];
  double sum = 0, weighted = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    const double p = std::exp(truth[i] - largest);
    sum += p;
    weighted += p * (static_cast<double>(truth[i]) - row[i]);
  }
  const double normal_of_truth = largest + std::log(sum);
  return {.nll = normal - row[next],
          .nll_of_other = normal_of_truth - truth[next],
          .divergence = std::max(weighted / sum - normal_of_truth + normal, 0.0),
          .agree = best == best_of_truth};
}

// Computes windows, one after the other, in steps of a few rows: with two models, P's logits of a step are
// kept until the model has its own.
class Meter {
 public:
  Meter(Pool& pool, std::unique_ptr<Session> session, std::unique_ptr<Session> other, std::int64_t step,
        Buffer kept)
      : pool_(pool),
        session_(std::move(session)),
        other_(std::move(other)),
        step_(static_cast<std::size_t>(step)),
        kept_(std::move(kept)) {}

  // Predicts the tokens of the window from `from` on, at least 1.
  Status measure(std::span<const Token> window, std::size_t from, const Cancel* cancel) {
    window_ = window;
    from_ = from;
    const std::size_t known = predictions.size();
    predictions.resize(known + window.size() - from);
    NIB_TRY(session_->rewind(0));
    if (other_) NIB_TRY(other_->rewind(0));
    const std::span<const Token> fed = window.first(window.size() - 1);  // the last one predicts nothing
    for (std::size_t at = 0; at < fed.size(); at += step_) {
      const auto tokens = fed.subspan(at, std::min(step_, fed.size() - at));
      begin_ = at;
      if (other_) NIB_TRY(other_->append(tokens, cancel, {}, {&Meter::on_other, this}));
      NIB_TRY(session_->append(tokens, cancel, {}, {&Meter::on_logits, this}));
    }
    for (std::size_t i = known; i < predictions.size(); ++i)
      if (!std::isfinite(predictions[i].nll) || !std::isfinite(predictions[i].divergence))
        return Status(Code::internal, concat("prediction ", i, " of the text: the logits are no numbers"));
    return {};
  }

  std::vector<Prediction> predictions;  // of all windows

 private:
  static int on_other(void* user, const LogitRows& rows) {
    auto& meter = *static_cast<Meter*>(user);
    for (std::int64_t i = 0; i < rows.rows; ++i) std::ranges::copy(rows.row(i), meter.kept(rows, i).begin());
    return 0;
  }
  static int on_logits(void* user, const LogitRows& rows) {
    auto& meter = *static_cast<Meter*>(user);
    const std::size_t after_window = meter.predictions.size(), length = meter.window_.size();
    meter.pool_.run([&](int index, int count) {
      const Range mine = split(rows.rows, index, count);
      for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        const std::size_t next = rows.position + static_cast<std::size_t>(i) + 1;
        if (next < meter.from_) continue;
        meter.predictions[after_window + next - length] =
            meter.other_ ? compare(meter.kept(rows, i), rows.row(i), meter.window_[next])
                         : predict(rows.row(i), meter.window_[next]);
      }
    });
    return 0;
  }
  std::span<float> kept(const LogitRows& rows, std::int64_t i) {
    const std::size_t row = rows.position + static_cast<std::size_t>(i) - begin_;
    return kept_.as<float>().subspan(row * rows.vocabulary, rows.vocabulary);
  }

  Pool& pool_;
  std::unique_ptr<Session> session_, other_;
  std::size_t step_;
  Buffer kept_;
  std::span<const Token> window_;
  std::size_t from_ = 0, begin_ = 0;
};

// ---- from predictions to numbers

template <class Value>
Estimate estimate(const std::vector<Prediction>& predictions, Value value) {
  const auto count = static_cast<double>(predictions.size());
  double sum = 0, squares = 0;
  for (const Prediction& prediction : predictions) sum += value(prediction);
  const double mean = sum / count;
  for (const Prediction& prediction : predictions) {
    const double off = value(prediction) - mean;
    squares += off * off;
  }
  return {mean, count > 1 ? std::sqrt(squares / (count - 1) / count) : 0};
}

// To first order: exp moves by itself times what its argument moves.
Estimate exponential(const Estimate& of) {
  const double value = std::exp(of.value);
  return {value, value * of.error};
}

// Between the two values around it, in proportion.
double quantile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at), above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Comparison comparison_of(const std::vector<Prediction>& predictions) {
  Comparison c;
  c.nll = estimate(predictions, [](const Prediction& p) { return p.nll_of_other; });
  c.perplexity = exponential(c.nll);
  c.ratio = exponential(estimate(predictions, [](const Prediction& p) { return p.nll - p.nll_of_other; }));
  c.divergence = estimate(predictions, [](const Prediction& p) { return p.divergence; });
  c.agreement = estimate(predictions, [](const Prediction& p) { return p.agree ? 1.0 : 0.0; });
  std::vector<double> sorted;
  for (const Prediction& prediction : predictions) sorted.push_back(prediction.divergence);
  std::sort(sorted.begin(), sorted.end());
  c.median = quantile(sorted, 0.5);
  c.p90 = quantile(sorted, 0.9);
  c.p95 = quantile(sorted, 0.95);
  c.p99 = quantile(sorted, 0.99);
  c.p999 = quantile(sorted, 0.999);
  c.most = sorted.back();
  return c;
}

// ---- the text in windows

// Tokens of the text in a window and between two.
struct Cut {
  std::size_t length, stride;
};
Result<Cut> cut_of(const PerplexityOptions& options, std::size_t tokens) {
  if (options.window < 2)
    return Status(Code::argument, concat("window: expected at least 2 tokens, found ", options.window));
  const std::size_t length = options.window - (options.first ? 1 : 0);
  if (options.stride > length)
    return Status(Code::argument,
                  concat("stride: expected at most ", length, " tokens, found ", options.stride));
  if (tokens + (options.first ? 1 : 0) < 2)
    return Status(Code::argument, concat("the text has ", tokens, " tokens, and nothing to predict"));
  return Cut{length, options.stride ? options.stride : length};
}

Status same_vocabulary(const Model& model, const Model& against) {
  if (&model == &against) return Status(Code::argument, "the two models are one");
  if (model.info().vocabulary != against.info().vocabulary)
    return Status(Code::argument,
                  concat(model.info().path, " has a vocabulary of ", model.info().vocabulary, " tokens, and ",
                         against.info().path, " of ", against.info().vocabulary));
  return {};
}

}  // namespace

Result<Perplexity> measure_perplexity(const std::shared_ptr<Model>& model, std::span<const Token> tokens,
                                      const PerplexityOptions& options,
                                      const std::shared_ptr<Model>& against) {
  NIB_ASSIGN(const Cut cut, cut_of(options, tokens.size()));
  if (against) NIB_TRY(same_vocabulary(*model, *against));
  const SessionOptions session_options{.context = options.window};
  NIB_ASSIGN(auto session, Session::create(model, session_options));
  const std::int64_t vocabulary = model->info().vocabulary,
                     step = std::clamp(kMostKeptLogits / vocabulary, kLeastRows, kMostRows);
  Memory memory(model->runtime()->allocator());
  std::unique_ptr<Session> other;
  Buffer kept;
  if (against) {
    NIB_ASSIGN(other, Session::create(against, session_options));
    NIB_ASSIGN(kept, Buffer::make(static_cast<std::size_t>(step * vocabulary) * sizeof(float), memory,
                                  Purpose::activations, "the logits of the model compared with"));
  }
  Meter meter(model->runtime()->pool(), std::move(session), std::move(other), step, std::move(kept));

  Perplexity result;
  const std::uint64_t most = options.windows ? options.windows : UINT64_MAX;
  const std::uint64_t total =
      most <= tokens.size() / cut.stride
          ? std::min<std::uint64_t>(tokens.size(), (most - 1) * cut.stride + cut.length)
          : tokens.size();
  std::vector<Token> window;
  for (std::size_t begin = 0, counted = 0; counted < total; begin += cut.stride) {
    const std::size_t end = std::min<std::size_t>(begin + cut.length, total);
    window.clear();
    if (options.first) window.push_back(*options.first);
    const std::size_t before = window.size();
    window.insert(window.end(), tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                  tokens.begin() + static_cast<std::ptrdiff_t>(end));
    const std::size_t from = std::max<std::size_t>(before + std::max(counted, begin) - begin, 1);
    counted = end;
    if (from < window.size()) {  // else a single token is left, which nothing predicts
      NIB_TRY(meter.measure(window, from, options.cancel));
      ++result.windows;
    }
    if (options.progress({Stage::prefill, counted, total, "text"}))
      return Status(Code::stopped, "measuring perplexity was stopped by its progress callback");
  }
  result.predictions = meter.predictions.size();
  result.nll = estimate(meter.predictions, [](const Prediction& p) { return p.nll; });
  result.perplexity = exponential(result.nll);
  if (against) result.comparison = comparison_of(meter.predictions);
  return result;
}

}  // namespace nib::inline v0
