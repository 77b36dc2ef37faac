#pragma once
#include <filesystem>
#include <string_view>

namespace permafrost {

/// Makes a folder and those above it; one that is there is left alone. Errors: kStorage naming it and the reason, said
/// by `who`.
void make_folder(const std::filesystem::path& folder, std::string_view who);

}  // namespace permafrost
