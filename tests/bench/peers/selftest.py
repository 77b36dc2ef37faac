"""Checks of the harness itself: `run.sh --selftest`. Tiny shapes, CPU, a minute or two. Needs a built program and PERMAFROST_TEST_DATA."""
import dataclasses
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import torch

import agree
import baselines
import inputs
import layers
import measure
import models
import report
import workloads
from batches import Batches
from sides import ROOT, Ended, Layout, OurSide, PeerSide, Pipe

PROGRAM = str(ROOT / "build/cpu/bin/permafrost")
CPU = torch.device("cpu")
STEPS = 8


class WithFolder(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(prefix="peers-selftest-")
        cls.folders = {}

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def folder(self, workload, dtype):
        key = (workload.name, dtype)
        if key not in self.folders:
            config = ROOT / "configs" / workload.config
            path = Path(self.scratch.name) / f"{workload.name}-{dtype}"
            self.folders[key] = inputs.make(path, workload, dtype, PROGRAM, config, inputs.tokenizer_folder())
        return self.folders[key]

    def side(self, workload, dtype=torch.float32, **settings):
        folder = self.folder(workload, "fp32" if dtype != torch.bfloat16 else "bf16")
        return baselines.make_side("b0", workload, folder, dtype, CPU, 1, dataclasses.replace(baselines.Options(), **settings))

    def losses(self, side, workload, dtype=torch.float32, steps=STEPS, first=0):
        folder = self.folder(workload, "fp32" if dtype != torch.bfloat16 else "bf16")
        batches = Batches(folder / "data", workload, inputs.Texts(inputs.tokenizer_folder()), 0, 1, dtype, CPU)
        return [float(side.step(batches.at(first + k))) for k in range(steps)]


def tiny(name):
    return workloads.find(name, "tiny", 24, 4)


class InputsTest(WithFolder):
    def test_texts_have_exactly_the_tokens(self):
        texts = inputs.Texts(inputs.tokenizer_folder())
        self.assertEqual(texts.ids("I like you."), [2, 100, 101, 47, 4, 2])
        batches = Batches(self.folder(tiny("e1"), "fp32") / "data", tiny("e1"), texts, 0, 2, torch.float32, CPU)
        self.assertEqual(tuple(batches.at(0)["ids"].shape), (2, 24))
        self.assertFalse(torch.equal(batches.at(0)["ids"], batches.at(1)["ids"]))
        self.assertTrue(torch.equal(batches.at(1)["ids"], batches.at(1 + workloads.BATCHES)["ids"]))

    def test_adapter_has_what_is_trained(self):
        for name in workloads.MAKERS:
            workload = tiny(name)
            stored = dict(models.read_tensors(self.folder(workload, "fp32") / "adapter.safetensors"))
            self.assertEqual({k: tuple(v.shape) for k, v in stored.items()}, models.trainable_shapes(workload))


class ModelTest(WithFolder):
    def test_forms_of_attention_and_loss_are_one_function(self):
        for name in workloads.MAKERS:
            workload = tiny(name)
            plain = self.losses(self.side(workload, attention="sdpa", loss_rows=0), workload)
            for settings in ({"attention": "products"}, {"attention": "sdpa32"}, {"loss_rows": 7}, {"packed": "1"}, {"micro_batch": 1}):
                self.assertTrue(agree.compare(plain, self.losses(self.side(workload, **settings), workload), "fp32", 92)["agrees"], (name, settings))

    def test_chunked_loss_has_the_gradient_of_the_plain_one(self):
        generator = torch.Generator().manual_seed(3)
        hidden, head = torch.randn(10, 6, generator=generator, dtype=torch.float64), torch.randn(17, 6, generator=generator, dtype=torch.float64)
        labels = torch.randint(0, 17, (10,), generator=generator)
        one, two = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
        (0.3 * torch.nn.functional.cross_entropy(one @ head.T, labels, reduction="sum")).backward()
        (0.3 * layers.ChunkedLoss.apply(two, head, labels, 4)).backward()
        self.assertLess((one.grad - two.grad).abs().max(), 1e-6)

    def test_frozen_parameters_stay_and_all_trained_ones_move(self):
        for name in workloads.MAKERS:
            workload = tiny(name)
            side = self.side(workload)
            before = {k: v.clone() for k, v in side.model.state_dict().items()}
            self.losses(side, workload, steps=2)
            names = {models.adapter_name(k) for k in models.trainable_shapes(workload)}
            for key, value in side.model.state_dict().items():
                self.assertEqual(torch.equal(before[key], value), key not in names, key)

    def test_usual_stack_computes_the_same(self):
        import usual

        for name in workloads.MAKERS:
            workload = tiny(name)
            folder = self.folder(workload, "fp32")
            side = usual.UsualSide(workload, folder, torch.float32, CPU, 1, baselines.Options())
            self.assertTrue(agree.compare(self.losses(self.side(workload), workload), self.losses(side, workload), "fp32", 92)["agrees"], name)

    def test_fp32_is_within_its_bound_of_fp64(self):
        workload = tiny("e1")
        self.assertTrue(agree.compare(self.losses(self.side(workload, torch.float64, attention="sdpa"), workload, torch.float64), self.losses(self.side(workload), workload), "fp32", 92)["agrees"])


class AgreementTest(WithFolder):
    """That the comparison can fail: what goes wrong in such ports is found."""

    def check_found(self, other, dtype="fp32"):
        workload = tiny("e1")
        good = self.losses(self.side(workload), workload)
        self.assertFalse(agree.compare(good, other(workload), dtype, 92)["agrees"])

    def test_another_order_of_samples(self):
        self.check_found(lambda workload: self.losses(self.side(workload), workload, first=1), "bf16")

    def test_a_causal_class_token(self):
        def other(workload):
            side = self.side(workload, attention="sdpa")
            side.model.mask[0, 1:] = False
            return self.losses(side, workload)

        self.check_found(other)

    def test_another_learning_rate(self):
        def other(workload):
            side = self.side(workload)
            for group in side.optimizer.param_groups:
                group["lr"] *= 20
            return self.losses(side, workload)

        self.check_found(other)

    def test_no_losses_and_nan(self):
        self.assertFalse(agree.compare([], [], "fp32", 92)["agrees"])
        self.assertFalse(agree.compare([1.0, 2.0], [1.0], "fp32", 92)["agrees"])
        self.assertFalse(agree.compare([1.0], [float("nan")], "bf16", 92)["agrees"])


def line(kind, side, **what):
    return {"kind": kind, "side": side, "run": "r", "commit": "c", "workload": "e1", "size": "tiny", "tokens": 8, "batch": 16, "dtype": "fp32", "device": "cpu",
            "ranks": 1, "threads": 1} | what


class ReportTest(unittest.TestCase):
    def rounds(self):
        return [line("round", side, seconds=[s, s], loopback_bytes=0) for side, s in (("ours", 1.0), ("b0", 2.0))]

    def agreement(self, agrees=True, commit="c"):
        return [line("agreement", side, agrees=agrees, commit=commit) for side in ("ours", "b0")]

    def ratio(self, lines):
        return report.Figures([x for x in lines if x["commit"] == "c"]).ratio("ours", "b0")

    def test_ratio_with_an_agreement(self):
        self.assertEqual(self.ratio(self.rounds() + self.agreement())[1], 2.0)

    def test_no_ratio_without_one(self):
        elsewhere = [x | {"run": "other"} for x in self.agreement()]
        apart = [x | {"run": x["side"]} for x in self.rounds() + self.agreement()]
        for lines in (self.rounds(), self.rounds() + self.agreement(agrees=False), self.rounds() + self.agreement(commit="other"), self.rounds() + self.agreement()[:1],
                      self.rounds() + elsewhere, apart):
            with self.assertRaises(report.Refused):
                self.ratio(lines)

    def test_report_without_results_says_what_to_do(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "empty.jsonl").write_text("")
            for name in ("missing.jsonl", "empty.jsonl"):
                words = [sys.executable, str(ROOT / "tests/bench/peers/page.py"), f"{folder}/{name}", f"--page={folder}/page.md"]
                done = subprocess.run(words, capture_output=True, text=True, check=False)
                self.assertEqual(done.returncode, 1)
                self.assertRegex(done.stderr, f"^report: expected lines of results, which run.sh writes; got none .*{name}")
                self.assertFalse((Path(folder) / "page.md").exists())

    def test_text_says_that_it_refuses(self):
        text = report.text_of(self.rounds())
        self.assertIn("ours: no ratio to b0", text)
        self.assertNotIn(" x (", text)


class GpuTest(unittest.TestCase):
    """What a machine without a GPU can tell of the runs on one."""

    def test_our_side_is_told_of_it(self):
        workload = workloads.find("e1", "6.7b", 49)
        for device, expected in (("cpu", False), ("cuda", True)):
            side = OurSide(workload, "bf16", Layout(1, device), "folder", "logs", "permafrost", "tokenizer")
            self.assertEqual("--set=parallel.device=CUDA" in side.command(), expected)
        self.assertIn("--set=model.epalm.vision.size=VIT_L16", side.command())

    def test_batches_stay_on_it(self):
        batches = Batches.__new__(Batches)
        batches.device, batches.kept, made = torch.device("cuda"), {}, []
        batches.make = lambda index: made.append(index) or {"ids": index}
        self.assertEqual([batches.at(k)["ids"] for k in (0, 1, workloads.BATCHES, 1)], [0, 1, 0, 1])
        self.assertEqual(made, [0, 1])

    def test_the_drivers_reading_is_by_process(self):
        lines = [["7", "100"], ["8", "20"], ["7", "1"], ["9", "[N/A]"]]
        self.assertEqual(measure.gpu_bytes([7, 8, 9, 10], lines), [101 * 2**20, 20 * 2**20, 0, 0])


class ProcessTest(WithFolder):
    def run_side(self, side, steps=STEPS):
        try:
            side.start()
            return side.run(steps)["losses"], side.checkpoint(), measure.pss_of(side.pids())
        finally:
            side.close()

    def test_all_sides_as_processes(self):
        workload, dtype = tiny("e1"), "fp32"
        folder, tokenizer = self.folder(workload, dtype), inputs.tokenizer_folder()
        for ranks, names in ((1, ("b0", "b1-ignored")), (2, ("b0", "b1-sharded", "b3"))):
            layout = Layout(ranks, "cpu")
            ours = self.run_side(OurSide(workload, dtype, layout, folder, self.scratch.name, PROGRAM, tokenizer))
            for name in names:
                losses, checkpoint, memory = self.run_side(PeerSide(name, workload, dtype, layout, folder, self.scratch.name))
                self.assertTrue(agree.compare(ours[0], losses, dtype, 4 * 23)["agrees"], (name, ranks))
                self.assertGreater(checkpoint["bytes"], 0)
                self.assertGreater(memory, 0)

    def test_a_side_that_fails_says_why(self):
        workload = tiny("e1")
        with self.assertRaisesRegex(Ended, "No such file"):
            self.run_side(PeerSide("b0", workload, "fp32", Layout(1, "cpu"), Path(self.scratch.name) / "nothing", self.scratch.name))

    def test_a_side_that_is_killed_says_so_wherever_it_is_missed(self):
        for lines in (["run 1"], ["run 1", "run 1"]):  # missed when it is to answer, or already when it is asked
            pipe = Pipe(["sh", "-c", "read line; kill -9 $$" if len(lines) == 1 else "kill -9 $$"], None, f"{self.scratch.name}/killed.log")
            if len(lines) > 1:
                pipe.process.wait()
            with self.assertRaisesRegex(Ended, "code -9: killed"):
                for line in lines:
                    pipe.send(line)
                pipe.read()
            pipe.close()

    def test_run_refuses_to_time_what_does_not_agree(self):
        command = [sys.executable, str(ROOT / "tests/bench/peers/run.py"), "--size=tiny", "--tokens=24", "--batch=4", "--dtype=fp32", "--ranks=1", "--side=ours", "--side=b0",
                   "--ours-set=optimizer.lr=0.01", "--agree-steps=8", "--rounds=1", "--steps=2", "--starts=0", f"--work={self.scratch.name}/refused"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("DO NOT AGREE", done.stdout)
        self.assertIn("no ratio is printed", done.stderr)
        self.assertNotIn(" x (", done.stdout)

    def test_agreement_of_fewer_samples(self):
        command = [sys.executable, str(ROOT / "tests/bench/peers/run.py"), "--size=tiny", "--tokens=24", "--batch=4", "--dtype=fp32", "--ranks=1", "--side=ours", "--side=b0",
                   "--agree-steps=6", "--agree-batch=2", "--warmup=3", "--rounds=1", "--steps=2", "--starts=0", f"--work={self.scratch.name}/fewer"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        for words in ("b0: losses of 6 steps of 2 samples agree", "b0: losses of 3 steps of 4 samples agree", " x ("):
            self.assertIn(words, done.stdout)
        done = subprocess.run([*command, "--ours-set=optimizer.lr=0.01"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertNotIn("of 4 samples", done.stdout)

    def test_unknown_names(self):
        for words, message in ((["--workload=e2"], "joins when that model lands"), (["--workload=e9"], "expected one of e1"), (["--size=9b"], "expected one of tiny")):
            done = subprocess.run([sys.executable, str(ROOT / "tests/bench/peers/run.py"), *words], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 2)
            self.assertIn(message, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
