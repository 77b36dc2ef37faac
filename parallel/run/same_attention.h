#pragma once
#include <span>

#include "core/kernels/attention.h"
#include "parallel/group/group.h"

namespace permafrost {

/// That every call of attention which two ranks have met so far is computed by the same on both: by one version of a
/// library, or by own kernels. A call that only some ranks have met is no difference. Collective. Errors: kConfig, the
/// same on every rank: the call, a rank whose library takes it and one that computes it otherwise, and why.
void require_same_attention(Group& world, std::span<const AttentionChoice> mine);
/// Of the context's stream. Nothing on CPU, on all ranks alike.
void require_same_attention(Group& world, const Context& context);

}  // namespace permafrost
