"""The documents point at files, symbols, settings and pages that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from app.settings import ApiSettings
from tests import waiting

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
# Pages that are kept true. Notes in the lab and superseded decisions describe their own day.
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "CONTRIBUTING.md"]
GUIDES = [page for page in PAGES if page.name in ("adding.md", "glossary.md", "tour.md")]
LONGEST_LINE = 130

CODE_SPAN = re.compile(r"`([^`\n]+)`")
NEW_FILE = re.compile(r"[Nn]ew file\s+`([^`]+)`")  # a file that the reader makes
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"(?:app|workers|models|tests|benchmarks|deploy|docs)/[\w./-]*|[\w-]+\.(?:md|toml)|Makefile")
SYMBOL = re.compile(r"[A-Z]\w*[a-z]\w*(?:\.\w+)?(?:\(\))?|\w+(?:\.\w+)?\(\)")
SETTING = re.compile(r"\bFOVEA_[A-Z_]*[A-Z]\b")
COMMENT = re.compile(r"<!--.*?-->")
LINK = re.compile(r"\](?:\(|: )([^)\s]+)")
STATUS = re.compile(r"^\*\*Status\.\*\* (Accepted|Superseded by \[(\d{4})\]\(\2-[\w-]+\.md\))[.;,].*$", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def status_of(decision: Path) -> re.Match[str]:
    """The line that says whether the decision holds."""
    match = STATUS.search(decision.read_text(encoding="utf-8"))
    assert match, f"{decision.name} has no line '**Status.** Accepted.' or '**Status.** Superseded by [NNNN](...).'"
    return match


def heading_ids(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def symbols_in(path: Path) -> frozenset[str]:
    """What the file, or the files of the directory, define: classes, functions, members, type aliases."""
    found: set[str] = set()
    for file in path.rglob("*.py") if path.is_dir() else [path] if path.suffix == ".py" else []:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            if isinstance(node, ast.Assign):  # a type alias
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            if isinstance(node, ast.ClassDef):
                found |= {f"{node.name}.{member}" for member in _members(node)}
    return frozenset(found)


def _members(node: ast.ClassDef) -> Iterator[str]:
    for member in node.body:
        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
            yield member.name
        elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            yield member.target.id


def blocks(page: Path) -> Iterator[str]:
    """Paragraphs, list items and table rows."""
    for paragraph in re.split(r"\n\s*\n", prose(page)):
        yield from re.split(r"\n(?=\s*[-*|] |\s*\d+\. )", paragraph)


@pytest.mark.parametrize(
    "page", [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name_of
)
def test_links_of_a_page_lead_to_pages_and_headings(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{target} does not exist"
        assert not anchor or anchor in heading_ids(linked), f"{target}: no such heading"


@pytest.mark.parametrize("page", [*PAGES, *DECISIONS], ids=name_of)
def test_files_that_a_page_names_exist(page: Path) -> None:
    if page in DECISIONS and status_of(page)[1] != "Accepted":
        return
    text = prose(page)
    named = {span for span in CODE_SPAN.findall(text) if PATH.fullmatch(span)} - set(NEW_FILE.findall(text))
    missing = {span for span in named if not (ROOT / span).exists() and not (page.parent / span).exists()}
    assert not missing


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_symbols_that_a_guide_names_are_in_a_file_named_beside_them(page: Path) -> None:
    for block in blocks(page):
        spans = CODE_SPAN.findall(block)
        new = NEW_FILE.findall(block)
        wanted = {span.removesuffix("()") for span in spans if SYMBOL.fullmatch(span)}
        defined = {
            symbol for span in spans if PATH.fullmatch(span) and span not in new for symbol in symbols_in(ROOT / span)
        }
        assert new or wanted <= defined, f"{wanted - defined} of {block.strip()!r}"


def test_there_are_guides() -> None:
    assert {page.name for page in GUIDES} == {"adding.md", "glossary.md", "tour.md"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_that_a_page_names_exist(page: Path) -> None:
    named = set(SETTING.findall(page.read_text(encoding="utf-8")))
    assert named <= {f"FOVEA_{name.upper()}" for name in ApiSettings.model_fields} | {waiting.SETTING}


@pytest.mark.parametrize("page", [*sorted(DOCS.rglob("*.md")), ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_lines_of_a_page_fit_on_a_screen(page: Path) -> None:
    is_lab = page.parent.name == "lab"  # its tables are wide, and quoted defaults carry a comment
    lines = page.read_text(encoding="utf-8").splitlines()
    assert not [
        line for line in lines if len(COMMENT.sub("", line)) > LONGEST_LINE and not (is_lab and line.startswith("|"))
    ]


@pytest.mark.parametrize("decision", DECISIONS, ids=name_of)
def test_decision_has_a_status_and_is_in_the_index_with_it(decision: Path) -> None:
    status = status_of(decision)
    if status[2]:
        assert list(decision.parent.glob(f"{status[2]}-*.md")), "the decision that supersedes it does not exist"
    index = (DOCS / "decisions/README.md").read_text(encoding="utf-8").splitlines()
    number = decision.name[:4]
    title = decision.read_text(encoding="utf-8").splitlines()[0].removeprefix(f"# {number}: ")
    said = f"superseded by [{status[2]}]" if status[2] else "accepted"
    assert f"| [{number}] | {title} | {said} |" in index
    assert f"[{number}]: {decision.name}" in index


def test_decisions_are_numbered_one_by_one() -> None:
    assert [decision.name[:4] for decision in DECISIONS] == [f"{n:04d}" for n in range(1, len(DECISIONS) + 1)]


@pytest.mark.parametrize(
    "page", [*sorted(DOCS.glob("*.md")), DOCS / "decisions/README.md", DOCS / "lab/README.md"], ids=name_of
)
def test_page_is_in_the_index(page: Path) -> None:
    index = DOCS / "README.md"
    linked = LINK.findall(index.read_text(encoding="utf-8"))
    assert page == index or page.relative_to(DOCS).as_posix() in linked
