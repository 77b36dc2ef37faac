"""Goldens of the caption and answer metrics: the official tools' own numbers on sentences of our own.

Needs Java (for the tokenizer in pycocoevalcap), pycocoevalcap, pycocotools, and a clone of GT-Vision-Lab/VQA, whose Python 2 is converted in memory.
"""
import contextlib
import hashlib
import io
import json
import random
import tempfile
import types
import warnings
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from pycocotools.coco import COCO

from metrics_texts import ODD, PLAIN, captions
from store import save_json


def tokenize(lines):
    """One string a line. The tool takes captions by image; one image holds them all, so their order stays."""
    with contextlib.redirect_stdout(io.StringIO()):
        return PTBTokenizer().tokenize({0: [{"caption": line} for line in lines]})[0]


def score(gts, res):
    """Tokenises and scores dictionaries id -> [{"caption"}] as COCOEvalCap.evaluate does, without METEOR and SPICE."""
    gts, res = PTBTokenizer().tokenize(gts), PTBTokenizer().tokenize(res)
    bleu, bleus = Bleu(4).compute_score(gts, res, verbose=0)
    rouge, rouges = Rouge().compute_score(gts, res)
    cider, ciders = Cider().compute_score(gts, res)
    ids = list(gts)
    return {"ids": ids, "bleu": [float(b) for b in bleu], "rouge_l": float(rouge), "cider": float(cider),
            "items": [{"bleu": [float(bleus[k][i]) for k in range(4)], "rouge_l": float(rouges[i]), "cider": float(ciders[i])} for i in range(len(ids))]}


def caption_scores():
    items = captions(40, seed=7)
    gts = {i: [{"caption": r} for r in references] for i, (_, references) in enumerate(items)}
    res = {i: [{"caption": candidate}] for i, (candidate, _) in enumerate(items)}
    scores = score(gts, res)
    del scores["ids"]
    return {"items": [{"candidate": c, "references": r} for c, r in items], "scores": scores}


def coco_files():
    """A captions file whose list of images is not in the order of ids, and results for some of them, through pycocotools."""
    rng, items = random.Random(11), captions(12, seed=5)
    images = [{"id": 100 + 7 * i} for i in range(len(items))]
    rng.shuffle(images)
    annotations = [{"id": 1000 + 10 * i + k, "image_id": 100 + 7 * i, "caption": text} for i, (_, references) in enumerate(items) for k, text in enumerate(references)]
    rng.shuffle(annotations)
    results = [{"image_id": 100 + 7 * i, "caption": candidate} for i, (candidate, _) in enumerate(items) if i % 4 != 1]
    rng.shuffle(results)
    truth = {"images": images, "annotations": annotations}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        paths = [Path(folder) / name for name in ("truth.json", "results.json")]
        for path, content in zip(paths, (truth, results)):
            path.write_text(json.dumps(content))
        coco = COCO(str(paths[0]))
        loaded = coco.loadRes(str(paths[1]))
        ids = loaded.getImgIds()
        scores = score({i: coco.imgToAnns[i] for i in ids}, {i: loaded.imgToAnns[i] for i in ids})
    return {"annotations": truth, "results": results, "scores": scores}


def vqa_evaluator(code):
    """The class VQAEval of the official repository, translated to Python 3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from lib2to3.refactor import RefactoringTool, get_fixers_from_package

        source = (code / "PythonEvaluationTools/vqaEvaluation/vqaEval.py").read_text() + "\n"
        source = str(RefactoringTool(get_fixers_from_package("lib2to3.fixes")).refactor_string(source, "vqaEval.py"))
        module = types.ModuleType("vqaEval")
        exec(compile(source, "vqaEval.py", "exec"), module.__dict__)
    return module.VQAEval


ANSWERS = """yes|no|Yes|two|2|Two dogs|2 dogs|a dog|the dog|dog|an apple|dogs|none|0|ten|10|dont|don't|isnt it|couldnt've|somebody'd|she's|Im here|oclock|3 oclock|red, white|red,white|red and white|1,000|1,000 dogs!|u.s.|U.S.A.|
3.5|.5|5.|t-shirt|t - shirt|t- shirt|black/white|black / white|what?|what ?|(red)|( red )|"stop"|stop sign|a|the|A the an|  spaces   inside  |tab\there|line\nbreak|semi;colon|semi ;colon|under_score|a@b|a>b <c|back\\slash|
`tick`|100%|$5|5:30|5:30 pm|l'eau|ELEVEN|Straße|ÉTÉ|ok...|a.b.c|................................................x|no.1|no. 1|,|-|1,2;3|1,2 -3|x,y-z|[b]{c}|=+=""".replace("\n", "").split("|")


def vqa(code):
    evaluator = vqa_evaluator(code)
    rules = evaluator(types.SimpleNamespace(getQuesIds=lambda: []), None)
    normalised = [[text, rules.processDigitArticle(rules.processPunctuation(text))] for text in ANSWERS]
    normalised += [[key, rules.processDigitArticle(rules.processPunctuation(key))] for key in rules.contractions]
    rng, truth, results = random.Random(3), {}, {}
    for question in range(120):
        pool = rng.sample(ANSWERS, rng.randint(1, 4))
        answers = [rng.choice(pool) for _ in range(10)]
        truth[question] = {"question_id": question, "answer_type": rng.choice(["yes/no", "number", "other"]), "question_type": rng.choice(["is the", "how many", "what"]),
                           "answers": [{"answer": text, "answer_id": k + 1} for k, text in enumerate(answers)]}
        results[question] = {"question_id": question, "answer": rng.choice([rng.choice(answers), answers[0].upper(), "the " + answers[1], answers[2] + ".", rng.choice(ANSWERS)])}
    golden = {"annotations": {"annotations": json.loads(json.dumps(list(truth.values())))}, "results": list(results.values())}
    run = evaluator(types.SimpleNamespace(qa=truth, getQuesIds=lambda: list(truth)), types.SimpleNamespace(qa=results), n=6)
    with contextlib.redirect_stdout(io.StringIO()):
        run.evaluate()
    # Percent, rounded to six decimals.
    golden["scores"] = {"overall": run.accuracy["overall"], "answer_type": run.accuracy["perAnswerType"], "question_type": run.accuracy["perQuestionType"],
                        "questions": [run.evalQA[q] for q in truth]}
    return {"normalised": normalised, **golden}


def public_captions(path):
    """Of COCO's val2017 captions, which are not in this repository: a hash of all tokens, and scores of each image's first caption against the others."""
    annotations = json.loads(path.read_text())["annotations"]
    lines = tokenize([entry["caption"] for entry in annotations])
    assert len(lines) == len(annotations)
    by_image = {}
    for entry in annotations:
        by_image.setdefault(entry["image_id"], []).append({"caption": entry["caption"]})
    scores = score({i: c[1:] for i, c in by_image.items()}, {i: c[:1] for i, c in by_image.items()})
    return {"captions": len(lines), "sha256": hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest(), "images": len(by_image),
            "scores": {name: scores[name] for name in ("bleu", "rouge_l", "cider")}}


def make_metrics(vqa_code, coco_captions):
    texts = [line for line in PLAIN + ODD]
    save_json("metrics", {"tokens": [[text, tokens] for text, tokens in zip(texts, tokenize(texts))], "captions": caption_scores(), "coco": coco_files(), "vqa": vqa(vqa_code),
                               "val2017": public_captions(coco_captions)})
