#pragma once
#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/weights/safetensors.h"

namespace permafrost {

/// The pickle (protocol 2) of {"model": OrderedDict of these tensors, and the entries of `others`}, tensor i with all
/// of storage "i". Errors: kInvalidArgument for a dtype that torch's storages lack, or `others` that is no object.
std::string torch_pickle(const std::vector<TensorDeclaration>& tensors, const Json& others);

}  // namespace permafrost
