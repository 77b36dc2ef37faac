#include "configs/overrides.h"

#include <google/protobuf/descriptor.h>

#include <charconv>
#include <optional>

#include "configs/fields.h"
#include "configs/parse.h"

namespace permafrost::config {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

namespace {

struct Assignment {
  std::vector<std::string> path;
  std::string value;
  bool append = false;
};

struct Step {
  std::string name;
  std::optional<int> index;
};

std::optional<Assignment> split(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) return std::nullopt;
  Assignment result;
  result.append = text[equals - 1] == '+';
  const std::string path = text.substr(0, equals - (result.append ? 1 : 0));
  result.value = text.substr(equals + 1);
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    if (end == begin) return std::nullopt;
    result.path.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return result.path.empty() ? std::nullopt : std::optional(result);
}

template <typename T>
bool parse_number(const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end;
}

std::optional<Step> parse_step(const std::string& text) {
  const size_t bracket = text.find('[');
  if (bracket == std::string::npos) return Step{text, std::nullopt};
  int index = 0;
  if (text.back() != ']' || !parse_number(text.substr(bracket + 1, text.size() - bracket - 2), index))
    return std::nullopt;
  return Step{text.substr(0, bracket), index};
}

/// Sets or (repeated fields) adds one scalar. Returns what was expected when the text does not fit, else nothing.
template <typename T, typename Set, typename Add>
std::optional<std::string> put_number(const std::string& text, bool repeated, const char* expected, Set set, Add add) {
  T value{};
  if (!parse_number(text, value)) return expected;
  repeated ? add(value) : set(value);
  return std::nullopt;
}

#define PERMAFROST_PUT(Type, Name, expected)                                                                   \
  return put_number<Type>(                                                                                     \
      text, field->is_repeated(), expected, [&](Type value) { reflection.Set##Name(&message, field, value); }, \
      [&](Type value) { reflection.Add##Name(&message, field, value); })

std::optional<std::string> put_bool(const std::string& text, Message& message, const FieldDescriptor* field) {
  if (text != "true" && text != "false") return "true or false";
  const Reflection& reflection = *message.GetReflection();
  field->is_repeated() ? reflection.AddBool(&message, field, text == "true")
                       : reflection.SetBool(&message, field, text == "true");
  return std::nullopt;
}

std::optional<std::string> put_enum(const std::string& text, Message& message, const FieldDescriptor* field) {
  const EnumValueDescriptor* value = field->enum_type()->FindValueByName(text);
  if (!value) return "one of " + value_names(*field->enum_type());
  const Reflection& reflection = *message.GetReflection();
  field->is_repeated() ? reflection.AddEnum(&message, field, value) : reflection.SetEnum(&message, field, value);
  return std::nullopt;
}

std::optional<std::string> put_scalar(const std::string& text, Message& message, const FieldDescriptor* field) {
  const Reflection& reflection = *message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      PERMAFROST_PUT(int32_t, Int32, "a whole number of 32 bits");
    case FieldDescriptor::CPPTYPE_INT64:
      PERMAFROST_PUT(int64_t, Int64, "a whole number of 64 bits");
    case FieldDescriptor::CPPTYPE_UINT32:
      PERMAFROST_PUT(uint32_t, UInt32, "a whole number of 32 bits, 0 and up");
    case FieldDescriptor::CPPTYPE_UINT64:
      PERMAFROST_PUT(uint64_t, UInt64, "a whole number of 64 bits, 0 and up");
    case FieldDescriptor::CPPTYPE_DOUBLE:
      PERMAFROST_PUT(double, Double, "a number");
    case FieldDescriptor::CPPTYPE_FLOAT:
      PERMAFROST_PUT(float, Float, "a number");
    case FieldDescriptor::CPPTYPE_BOOL:
      return put_bool(text, message, field);
    case FieldDescriptor::CPPTYPE_ENUM:
      return put_enum(text, message, field);
    case FieldDescriptor::CPPTYPE_STRING:
      field->is_repeated() ? reflection.AddString(&message, field, text) : reflection.SetString(&message, field, text);
      return std::nullopt;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  fail(ErrorKind::kInternal, "override: field ", field->full_name(), " is no scalar");
}
#undef PERMAFROST_PUT

void assign_message(const std::string& where, std::string text, Message& message, Problems& problems) {
  if (text.size() < 2 || text.front() != '{' || text.back() != '}') {
    problems.expected(where, "{ fields in protobuf text: " + field_names(*message.GetDescriptor()) + " }",
                      "'" + text + "'");
    return;
  }
  parse_text(text.substr(1, text.size() - 2), where, message, problems);
}

void assign(const std::string& where, const Assignment& assignment, Message& message, const FieldDescriptor* field,
            Problems& problems) {
  const Reflection& reflection = *message.GetReflection();
  if (!assignment.append) reflection.ClearField(&message, field);
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    if (field->is_repeated() && assignment.value.empty()) return;
    assign_message(
        where, assignment.value,
        field->is_repeated() ? *reflection.AddMessage(&message, field) : *reflection.MutableMessage(&message, field),
        problems);
    return;
  }
  std::vector<std::string> values{assignment.value};
  if (field->is_repeated()) {
    values.clear();
    for (size_t begin = 0; begin < assignment.value.size();) {
      const size_t end = std::min(assignment.value.find(',', begin), assignment.value.size());
      values.push_back(assignment.value.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  for (const std::string& value : values)
    if (const auto wanted = put_scalar(value, message, field)) problems.expected(where, *wanted, "'" + value + "'");
}

/// One step down the path. Null after adding a problem.
Message* descend(const std::string& where, const Step& step, Message& message, const FieldDescriptor* field,
                 Problems& problems) {
  const Reflection& reflection = *message.GetReflection();
  if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
    problems.add(where, "'" + step.name + "' is a single value and has no fields");
    return nullptr;
  }
  if (!field->is_repeated()) {
    if (!step.index) return reflection.MutableMessage(&message, field);
    problems.add(where, "'" + step.name + "' is not a list and takes no index");
    return nullptr;
  }
  const int size = reflection.FieldSize(message, field);
  if (!step.index || *step.index < 0 || *step.index >= size) {
    problems.expected(where,
                      concat("an index into the ", size, " elements of '", step.name, "', as ", step.name, "[0]"),
                      step.index ? std::to_string(*step.index) : std::string("none"));
    return nullptr;
  }
  return reflection.MutableRepeatedMessage(&message, field, *step.index);
}

}  // namespace

void apply_override(const std::string& text, Message& root, Problems& problems) {
  const std::string where = "--set " + text;
  const auto assignment = split(text);
  if (!assignment) {
    problems.expected(where, "path.to.field=value", "'" + text + "'");
    return;
  }
  Message* message = &root;
  for (size_t i = 0; i < assignment->path.size(); ++i) {
    const bool last = i + 1 == assignment->path.size();
    const auto step = parse_step(assignment->path[i]);
    if (!step) {
      problems.expected(where, "a field name, or name[index]", "'" + assignment->path[i] + "'");
      return;
    }
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(step->name);
    if (!field) {
      problems.add(where, no_such_field(*message->GetDescriptor(), step->name));
      return;
    }
    if (last && !step->index) {
      if (assignment->append && !field->is_repeated())
        problems.add(where, "'" + step->name + "' is not a list; += appends to lists only");
      else
        assign(where, *assignment, *message, field, problems);
      return;
    }
    message = descend(where, *step, *message, field, problems);
    if (!message) return;
    if (last) {
      if (assignment->append)
        problems.add(where, "+= appends to lists, not to elements of lists");
      else
        assign_message(where, assignment->value, *message, problems);
    }
  }
}

}  // namespace permafrost::config
