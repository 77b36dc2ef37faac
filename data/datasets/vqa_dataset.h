#pragma once
#include <filesystem>
#include <string>

#include "data/datasets/file_dataset.h"

namespace permafrost {

enum class VqaFormat {
  kVqav2,   ///< official: {"data_subtype", "questions": [{question_id, image_id, question}]} and annotations in a file
            ///< of their own: {"data_subtype", "annotations": [{question_id, answers: [{answer}]}]}
  kVlt5,    ///< [{question_id, img_id, sent, label: {answer: soft score}}], of VQAv2 or GQA
  kAokvqa,  ///< [{question_id, image_id, question, direct_answers: [text]}]; also {"questions": [...]} and "answers"
  kGqa,     ///< {question id: {imageId, question, answer}}
};

struct VqaDatasetConfig {
  VqaFormat format = VqaFormat::kVqav2;
  std::filesystem::path questions;
  std::filesystem::path annotations;  ///< of kVqav2; empty: no answers
  std::filesystem::path images;       ///< folder
  /// File of an image below the folder, by its id (see image_file_name). Empty, by format: kVqav2
  /// "COCO_<data_subtype>_%012d.jpg"; kVlt5 "train2014/%s.jpg" and so on, as the id says, "VG_100K/%s.jpg" for ids that
  /// are numbers and "%s.jpg" for others; kAokvqa "%012d.jpg"; kGqa "%s.jpg".
  std::string image_name;
  MissingImages missing_images = MissingImages::kFail;
};

/// Questions about images in the order of the file, one sample per question. Ids that are no numbers are kept as the
/// sample's name. Answers that several people gave have VQAv2's soft scores: 0.3, 0.6, 0.9, and 1 from four on. A label
/// of kVlt5 without any score above 0 is the empty answer, as published.
/// Sources: VQA v2 (Goyal et al. 2017) and A-OKVQA (Schwenk et al. 2022) releases; GQA (Hudson, Manning 2019);
/// VL-T5's vqa_data.py; soft scores: compute_softscore.py of Hu's bottom-up-attention-vqa, which VL-T5's files follow.
class VqaDataset : public FileDataset {
 public:
  /// Errors: kData naming the file: not found, malformed, another structure, ids twice, an annotation of a question
  /// that is not listed, a question without annotation in the file of annotations, a score below 0, an image missing,
  /// no questions; kConfig for an image_name without placeholder.
  static VqaDataset load(const VqaDatasetConfig& config);

 private:
  friend class VqaReader;
};

}  // namespace permafrost
