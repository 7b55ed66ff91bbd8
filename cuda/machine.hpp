// Room cuda: what stands between the library's table and a device: opening it, its memory, copies, and the
// ops. Implemented for CUDA (machine_cuda.cu) and for the emulator (emulator/machine.cpp).
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/kernels/device_library.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

Result<int> count_devices();
Result<DeviceFacts> describe_device(int index);
Result<DeviceQueue*> open_queue(int index);
void close_queue(DeviceQueue* queue);

Result<std::uint64_t> free_memory(DeviceQueue& queue);
void* allocate(DeviceQueue& queue, std::size_t bytes);
void release(DeviceQueue& queue, void* pointer);
void* allocate_locked(DeviceQueue& queue, std::size_t bytes);
void release_locked(DeviceQueue& queue, void* pointer);

Status upload(DeviceQueue& queue, void* to, const void* from, std::size_t bytes);
Status download(DeviceQueue& queue, void* to, const void* from, std::size_t bytes);
Status copy(DeviceQueue& queue, void* to, const void* from, std::size_t bytes);
Status clear(DeviceQueue& queue, void* to, std::size_t bytes);

// ops.cu
Status run_qkv(DeviceQueue& queue, const OpContext& context, const QkvArgs& args);
Status run_attention(DeviceQueue& queue, const OpContext& context, const AttentionArgs& args);
Status run_project(DeviceQueue& queue, const OpContext& context, const ProjectArgs& args);
Status run_route(DeviceQueue& queue, const OpContext& context, const RouteArgs& args);
Status run_experts(DeviceQueue& queue, const OpContext& context, const ExpertsArgs& args);
Status run_head(DeviceQueue& queue, const OpContext& context, const HeadArgs& args);
Status run_digest(DeviceQueue& queue, const OpContext& context, const DigestArgs& args);

}  // namespace nib::inline v0::cuda
