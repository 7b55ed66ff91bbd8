// The layout of every struct of nibble.h on 64-bit systems. This file is the check: it compiles or it does
// not.
//
// Rule: append only. A line that is here may never change; a field that a release adds goes to the end of its
// struct (into `reserved` first), gets a line here, and NIB_ABI_VERSION grows by one.
#include <cstddef>

#include <nibble.h>

#define SIZE(type, bytes) static_assert(sizeof(type) == bytes, "the size of " #type " has changed")
#define FIELD(type, field, offset) \
  static_assert(offsetof(type, field) == offset, #type "." #field " has moved")

#if defined(__LP64__)

SIZE(nib_error, 512);
FIELD(nib_error, struct_size, 0);
FIELD(nib_error, status, 4);
FIELD(nib_error, message, 8);

SIZE(nib_string, 16);
FIELD(nib_string, data, 0);
FIELD(nib_string, size, 8);

SIZE(nib_runtime_options, 88);
FIELD(nib_runtime_options, struct_size, 0);
FIELD(nib_runtime_options, flags, 4);
FIELD(nib_runtime_options, threads, 8);
FIELD(nib_runtime_options, reserved, 12);
FIELD(nib_runtime_options, run_threads, 16);
FIELD(nib_runtime_options, run_threads_user, 24);
FIELD(nib_runtime_options, allocate, 32);
FIELD(nib_runtime_options, release, 40);
FIELD(nib_runtime_options, allocator_user, 48);
FIELD(nib_runtime_options, on_log, 56);
FIELD(nib_runtime_options, on_log_user, 64);
FIELD(nib_runtime_options, cuda_library, 72);
FIELD(nib_runtime_options, cuda_library_size, 80);

SIZE(nib_backend_info, 40);
FIELD(nib_backend_info, struct_size, 0);
FIELD(nib_backend_info, flags, 4);
FIELD(nib_backend_info, name, 8);
FIELD(nib_backend_info, name_size, 16);
FIELD(nib_backend_info, missing, 24);
FIELD(nib_backend_info, missing_size, 32);

SIZE(nib_machine_rates, 24);
FIELD(nib_machine_rates, struct_size, 0);
FIELD(nib_machine_rates, reserved, 4);
FIELD(nib_machine_rates, read_bytes_per_second, 8);
FIELD(nib_machine_rates, dot_flops_per_second, 16);

SIZE(nib_progress, 40);
FIELD(nib_progress, struct_size, 0);
FIELD(nib_progress, stage, 4);
FIELD(nib_progress, done, 8);
FIELD(nib_progress, total, 16);
FIELD(nib_progress, name, 24);
FIELD(nib_progress, name_size, 32);

SIZE(nib_budget, 24);
FIELD(nib_budget, device, 0);
FIELD(nib_budget, device_size, 8);
FIELD(nib_budget, bytes, 16);

SIZE(nib_model_options, 112);
FIELD(nib_model_options, struct_size, 0);
FIELD(nib_model_options, flags, 4);
FIELD(nib_model_options, backend, 8);
FIELD(nib_model_options, backend_size, 16);
FIELD(nib_model_options, numerics, 24);
FIELD(nib_model_options, kv_format, 28);
FIELD(nib_model_options, budgets, 32);
FIELD(nib_model_options, budget_count, 40);
FIELD(nib_model_options, budget_size, 48);
FIELD(nib_model_options, prefill_rows, 56);
FIELD(nib_model_options, sessions, 60);
FIELD(nib_model_options, session_context, 64);
FIELD(nib_model_options, reserved, 68);
FIELD(nib_model_options, on_progress, 72);
FIELD(nib_model_options, on_progress_user, 80);
FIELD(nib_model_options, cancel, 88);
FIELD(nib_model_options, device_layers, 96);
FIELD(nib_model_options, device, 100);
FIELD(nib_model_options, expert_cache_bytes, 104);

SIZE(nib_session_options, 96);
FIELD(nib_session_options, struct_size, 0);
FIELD(nib_session_options, flags, 4);
FIELD(nib_session_options, context, 8);
FIELD(nib_session_options, top_k, 12);
FIELD(nib_session_options, temperature, 16);
FIELD(nib_session_options, top_p, 20);
FIELD(nib_session_options, min_p, 24);
FIELD(nib_session_options, repetition_penalty, 28);
FIELD(nib_session_options, seed, 32);
FIELD(nib_session_options, stop_ids, 40);
FIELD(nib_session_options, stop_id_count, 48);
FIELD(nib_session_options, stop_texts, 56);
FIELD(nib_session_options, stop_text_count, 64);
FIELD(nib_session_options, on_progress, 72);
FIELD(nib_session_options, on_progress_user, 80);
FIELD(nib_session_options, cancel, 88);

SIZE(nib_plan_item, 48);
FIELD(nib_plan_item, struct_size, 0);
FIELD(nib_plan_item, purpose, 4);
FIELD(nib_plan_item, bytes, 8);
FIELD(nib_plan_item, device, 16);
FIELD(nib_plan_item, device_size, 24);
FIELD(nib_plan_item, name, 32);
FIELD(nib_plan_item, name_size, 40);

SIZE(nib_plan_summary, 72);
FIELD(nib_plan_summary, struct_size, 0);
FIELD(nib_plan_summary, flags, 4);
FIELD(nib_plan_summary, host_bytes, 8);
FIELD(nib_plan_summary, host_budget, 16);
FIELD(nib_plan_summary, context, 24);
FIELD(nib_plan_summary, longest_context, 28);
FIELD(nib_plan_summary, kv_bytes_per_token, 32);
FIELD(nib_plan_summary, decode_bytes, 40);
FIELD(nib_plan_summary, prefill_flops, 48);
FIELD(nib_plan_summary, device_bytes, 56);
FIELD(nib_plan_summary, device_budget, 64);

SIZE(nib_predicted_rates, 24);
FIELD(nib_predicted_rates, struct_size, 0);
FIELD(nib_predicted_rates, reserved, 4);
FIELD(nib_predicted_rates, prefill_tokens_per_second, 8);
FIELD(nib_predicted_rates, decode_tokens_per_second, 16);

SIZE(nib_model_info, 152);
FIELD(nib_model_info, struct_size, 0);
FIELD(nib_model_info, flags, 4);
FIELD(nib_model_info, path, 8);
FIELD(nib_model_info, path_size, 16);
FIELD(nib_model_info, architecture, 24);
FIELD(nib_model_info, architecture_size, 32);
FIELD(nib_model_info, backend, 40);
FIELD(nib_model_info, backend_size, 48);
FIELD(nib_model_info, numerics, 56);
FIELD(nib_model_info, kv_format, 60);
FIELD(nib_model_info, layers, 64);
FIELD(nib_model_info, hidden, 68);
FIELD(nib_model_info, vocabulary, 72);
FIELD(nib_model_info, experts, 76);
FIELD(nib_model_info, experts_per_token, 80);
FIELD(nib_model_info, max_context, 84);
FIELD(nib_model_info, parameters, 88);
FIELD(nib_model_info, decode_bytes, 96);
FIELD(nib_model_info, prefill_flops, 104);
FIELD(nib_model_info, host_bytes, 112);
FIELD(nib_model_info, bos, 120);
FIELD(nib_model_info, reserved, 124);
FIELD(nib_model_info, device, 128);
FIELD(nib_model_info, device_size, 136);
FIELD(nib_model_info, device_bytes, 144);

SIZE(nib_explain_item, 160);
FIELD(nib_explain_item, struct_size, 0);
FIELD(nib_explain_item, flags, 4);
FIELD(nib_explain_item, purpose, 8);
FIELD(nib_explain_item, reserved, 12);
FIELD(nib_explain_item, bytes, 16);
FIELD(nib_explain_item, decode_bytes, 24);
FIELD(nib_explain_item, name, 32);
FIELD(nib_explain_item, name_size, 40);
FIELD(nib_explain_item, op, 48);
FIELD(nib_explain_item, op_size, 56);
FIELD(nib_explain_item, format, 64);
FIELD(nib_explain_item, format_size, 72);
FIELD(nib_explain_item, computed, 80);
FIELD(nib_explain_item, computed_size, 88);
FIELD(nib_explain_item, kernel, 96);
FIELD(nib_explain_item, kernel_size, 104);
FIELD(nib_explain_item, instruction_set, 112);
FIELD(nib_explain_item, instruction_set_size, 120);
FIELD(nib_explain_item, device, 128);
FIELD(nib_explain_item, device_size, 136);
FIELD(nib_explain_item, slots, 144);
FIELD(nib_explain_item, locked_bytes, 152);

SIZE(nib_token_event, 40);
FIELD(nib_token_event, struct_size, 0);
FIELD(nib_token_event, flags, 4);
FIELD(nib_token_event, position, 8);
FIELD(nib_token_event, text, 16);
FIELD(nib_token_event, text_size, 24);
FIELD(nib_token_event, id, 32);
FIELD(nib_token_event, log_probability, 36);

SIZE(nib_generate_options, 40);
FIELD(nib_generate_options, struct_size, 0);
FIELD(nib_generate_options, flags, 4);
FIELD(nib_generate_options, max_tokens, 8);
FIELD(nib_generate_options, reserved, 12);
FIELD(nib_generate_options, on_token, 16);
FIELD(nib_generate_options, on_token_user, 24);
FIELD(nib_generate_options, cancel, 32);

SIZE(nib_usage, 40);
FIELD(nib_usage, struct_size, 0);
FIELD(nib_usage, finish, 4);
FIELD(nib_usage, prompt_tokens, 8);
FIELD(nib_usage, tokens, 16);
FIELD(nib_usage, prefill_seconds, 24);
FIELD(nib_usage, decode_seconds, 32);

SIZE(nib_step_result, 56);
FIELD(nib_step_result, status, 0);
FIELD(nib_step_result, id, 4);
FIELD(nib_step_result, position, 8);
FIELD(nib_step_result, text, 16);
FIELD(nib_step_result, text_size, 24);
FIELD(nib_step_result, message, 32);
FIELD(nib_step_result, message_size, 40);
FIELD(nib_step_result, log_probability, 48);
FIELD(nib_step_result, reserved, 52);

SIZE(nib_target_info, 40);
FIELD(nib_target_info, struct_size, 0);
FIELD(nib_target_info, flags, 4);
FIELD(nib_target_info, name, 8);
FIELD(nib_target_info, name_size, 16);
FIELD(nib_target_info, meaning, 24);
FIELD(nib_target_info, meaning_size, 32);

SIZE(nib_quantize_options, 80);
FIELD(nib_quantize_options, struct_size, 0);
FIELD(nib_quantize_options, flags, 4);
FIELD(nib_quantize_options, format, 8);
FIELD(nib_quantize_options, format_size, 16);
FIELD(nib_quantize_options, scale_rule, 24);
FIELD(nib_quantize_options, reserved, 28);
FIELD(nib_quantize_options, choose, 32);
FIELD(nib_quantize_options, choose_user, 40);
FIELD(nib_quantize_options, most_shard_bytes, 48);
FIELD(nib_quantize_options, on_progress, 56);
FIELD(nib_quantize_options, on_progress_user, 64);
FIELD(nib_quantize_options, cancel, 72);

SIZE(nib_quantize_report, 72);
FIELD(nib_quantize_report, struct_size, 0);
FIELD(nib_quantize_report, notes, 4);
FIELD(nib_quantize_report, tensors, 8);
FIELD(nib_quantize_report, quantized, 16);
FIELD(nib_quantize_report, weights, 24);
FIELD(nib_quantize_report, weight_bytes, 32);
FIELD(nib_quantize_report, bytes_before, 40);
FIELD(nib_quantize_report, bytes_after, 48);
FIELD(nib_quantize_report, signal, 56);
FIELD(nib_quantize_report, noise, 64);

#endif
