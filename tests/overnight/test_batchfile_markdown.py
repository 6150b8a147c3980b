from __future__ import annotations

from pathlib import Path

import pytest

from overnight.batchfile import load
from overnight.spec import HostSpec
from tests.overnight.batchfiles import refusal

HEAD = "route: {host: box, harness: claude-code, provider: zai, model: glm-5.2}\nrepo: app\n"
BOX = "hosts: {box: {address: 10.0.0.5, user: dev, key_file: id}}\n"


class TestMarkdown:
    def write(self, folder: Path, name: str, head: str = HEAD, body: str = "Do it.\n") -> Path:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"---\n{head}---\n{body}")
        return path

    def test_one_file_is_one_task(self, tmp_path: Path) -> None:
        body = "\n# Do it\n\n---\n\nAnd ${that}.\n---\nEnd\n"
        batch = load([self.write(tmp_path, "Parser.md", HEAD + BOX, body)], {})
        (task,) = batch.tasks
        assert (batch.name, batch.source, task.id) == ("batch", str(tmp_path / "Parser.md"), "parser")
        assert task.instruction == body.strip()
        assert task.route.model == "glm-5.2"
        assert batch.hosts["box"].address == "10.0.0.5"

    def test_several_files_are_one_batch(self, tmp_path: Path) -> None:
        one = self.write(tmp_path / "a", "one.md", "name: both\n" + HEAD)
        two = self.write(tmp_path / "b", "two.md", "limits: {quiet_s: 500}\n" + HEAD + BOX)
        batch = load([one, two], {})
        assert (batch.name, [task.id for task in batch.tasks]) == ("both", ["one", "two"])
        assert [task.repo for task in batch.tasks] == [str(tmp_path / "a/app"), str(tmp_path / "b/app")]
        assert batch.hosts["box"].key_file == tmp_path / "b/id"
        assert batch.source == f"{one} and 1 more"
        assert [task.field for task in batch.tasks] == ["one.md", "two.md"]

    def test_a_host_that_nobody_describes_is_a_block(self, tmp_path: Path) -> None:
        batch = load([self.write(tmp_path, "one.md"), self.write(tmp_path, "two.md")], {})
        assert batch.hosts == {"box": HostSpec(block="box")}

    def test_windows_line_ends_and_a_byte_order_mark_do_not_matter(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "one.md")
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
        assert load([path], {}).tasks[0].instruction == "Do it."

    @pytest.mark.parametrize(
        ("text", "field", "problem"),
        [
            ("Do it.\n", "front matter", "is missing"),
            ("Do it.\n\n---\n\nroute: x\n\n---\n\nThen that.\n", "front matter", "is missing"),
            ("---\nroute: {}\n", "front matter", "is missing"),
            ("---\n---\nDo it.", "front matter", "holds no mapping"),
            ("---\n- a\n---\nDo it.", "front matter", "holds no mapping"),
            ("---\nrepo: x\nrepo: y\n---\nDo it.", "line 3, column 1", "duplicate key"),
            ("---\nrepo: [\n---\nDo it.", "line 3, column 1", "expected"),
            ("---\nrepo: x\n---\nDo it.", "one.md.route.host", "is missing"),
            ("---\nhosts: [box]\n---\nDo it.", "hosts", "valid dictionary"),
            ("---\nroute: {host: [box]}\n---\nDo it.", "one.md.route.host", "valid string"),
            ("---\nroute: box\n---\nDo it.", "one.md.route", "valid dictionary"),
            ("---\nrepos: x\n---\nDo it.", "one.md.repos", "unknown key"),
            ("---\ntasks: []\n---\nDo it.", "one.md.tasks", "unknown key"),
            ("---\ninstruction: x\n---\nDo it.", "instruction", "beside a body"),
            (f"---\n{HEAD}---\n", "one.md.instruction", "is empty"),
            (f"---\n{HEAD}limits: {{total: 1}}\n---\nDo it.", "one.md.limits.total", "unknown key"),
        ],
    )
    def test_faults_name_the_file_they_are_in(self, tmp_path: Path, text: str, field: str, problem: str) -> None:
        bad = tmp_path / "one.md"
        bad.write_text(text)
        error = refusal(self.write(tmp_path, "good.md"), bad)
        assert (error.where, error.field) == (str(bad), field)
        assert problem in error.problem

    @pytest.mark.parametrize(
        ("one", "two", "field"),
        [
            (BOX, BOX.replace("10.0.0.5", "10.0.0.6"), "hosts.box"),
            ("name: a\n", "name: b\n", "name"),
            ("author: A <a@x>\n", "author: B <b@x>\n", "author"),
        ],
    )
    def test_files_that_disagree_are_refused(self, tmp_path: Path, one: str, two: str, field: str) -> None:
        second = self.write(tmp_path, "two.md", HEAD + two)
        error = refusal(self.write(tmp_path, "one.md", HEAD + one), second)
        assert (error.where, error.field) == (str(second), field)
        assert error.problem == "differs from an earlier file"

    def test_a_host_described_twice_alike_is_one(self, tmp_path: Path) -> None:
        files = [self.write(tmp_path, name, HEAD + BOX) for name in ("one.md", "two.md")]
        assert list(load(files, {}).hosts) == ["box"]

    def test_the_same_id_twice_is_refused(self, tmp_path: Path) -> None:
        files = [self.write(tmp_path / folder, "one.md") for folder in ("a", "b")]
        error = refusal(*files)
        assert (error.field, error.problem) == ("one.md.id", "'one' is also one.md")

    def test_a_file_name_that_fits_no_branch_is_refused(self, tmp_path: Path) -> None:
        assert refusal(self.write(tmp_path, "My task.md")).field == "My task.md.id"
