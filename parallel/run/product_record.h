#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "core/kernels/product_choices.h"

namespace permafrost {

/// What a run computes its products with, as it is stored and handed to other ranks: JSON, one product a line.
struct ProductRecord {
  ProductDevice device;
  std::vector<ProductChoice> choices;
  /// The library that computes what of it a library can (AttentionLibrary::name), "own kernels" where there is no such
  /// call; "" in records from before there was a choice.
  std::string attention{};
};

std::string to_text(const ProductRecord& record);

/// who: what the text comes from, for messages. Errors: kWeights for what is not such a record.
ProductRecord parse_product_record(std::string_view text, std::string_view who);

}  // namespace permafrost
