#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "core/weights/pickle_reader.h"

namespace permafrost {

// What the globals in a torch.save pickle mean. Nothing is called: a result is described.

/// "torch._utils _rebuild_tensor_v2" and the few others that tensors and checkpoints of plain values need.
bool is_known_global(std::string_view module_and_name);

/// What `function` of these arguments would give, into `result`. Returns what is wrong with the call, empty when
/// nothing is.
std::string understand_call(const std::string& function, const std::vector<const PickleValue*>& arguments,
                            PickleValue& result);

/// A persistent id, ('storage', type, key, device, elements), as a storage. Returns what is wrong with it.
std::string understand_storage(const PickleValue& id, PickleValue& storage);

}  // namespace permafrost
