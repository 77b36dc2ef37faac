#include "configs/json.h"

#include <google/protobuf/descriptor.h>

#include "core/base/check.h"
#include "core/base/json.h"

namespace permafrost::config {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

namespace {

OrderedJson convert(const Message& message);

#define PERMAFROST_GET(Name)                                           \
  return index < 0 ? OrderedJson(reflection.Get##Name(message, field)) \
                   : OrderedJson(reflection.GetRepeated##Name(message, field, index))

/// One value; index < 0 for a field that is not repeated.
OrderedJson value_of(const Message& message, const FieldDescriptor* field, int index) {
  const auto& reflection = *message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      PERMAFROST_GET(Int32);
    case FieldDescriptor::CPPTYPE_INT64:
      PERMAFROST_GET(Int64);
    case FieldDescriptor::CPPTYPE_UINT32:
      PERMAFROST_GET(UInt32);
    case FieldDescriptor::CPPTYPE_UINT64:
      PERMAFROST_GET(UInt64);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      PERMAFROST_GET(Double);
    case FieldDescriptor::CPPTYPE_FLOAT:
      PERMAFROST_GET(Float);
    case FieldDescriptor::CPPTYPE_BOOL:
      PERMAFROST_GET(Bool);
    case FieldDescriptor::CPPTYPE_STRING:
      PERMAFROST_GET(String);
    case FieldDescriptor::CPPTYPE_ENUM:
      return (index < 0 ? reflection.GetEnum(message, field) : reflection.GetRepeatedEnum(message, field, index))
          ->name();
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return convert(index < 0 ? reflection.GetMessage(message, field)
                               : reflection.GetRepeatedMessage(message, field, index));
  }
  fail(ErrorKind::kInternal, "to_json: field ", field->full_name(), " has a type of its own");
}
#undef PERMAFROST_GET

OrderedJson convert(const Message& message) {
  const auto& reflection = *message.GetReflection();
  const auto& descriptor = *message.GetDescriptor();
  OrderedJson json = OrderedJson::object();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor* field = descriptor.field(i);
    if (field->is_repeated()) {
      OrderedJson list = OrderedJson::array();
      for (int j = 0; j < reflection.FieldSize(message, field); ++j) list.push_back(value_of(message, field, j));
      json[field->name()] = list;
    } else if (reflection.HasField(message, field)) {
      json[field->name()] = value_of(message, field, -1);
    }
  }
  return json;
}

}  // namespace

std::string to_json(const Message& message) { return json_text(convert(message), 2) + "\n"; }

}  // namespace permafrost::config
