"""What the pages of the exercises say is true: the table, commands, line numbers of the reading path."""

import re

import pytest

from exercises.__main__ import COMMANDS
from exercises.bugs import BUGS
from exercises.catalog import EXERCISES, ROOT
from exercises.measure import MEASURES
from exercises.show import PICTURES
from exercises.source import function_in, read, span

PAGES = {name: read(ROOT / name) for name in ("exercises/README.md", "exercises/predict.md", "docs/reading.md")}
STOPS = re.findall(r"`(\w+\.py)` lines (\d+)–(\d+), `([\w.]+)` \| (\d+) \|", PAGES["docs/reading.md"])


def test_the_table_of_the_exercises_is_the_catalog():
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \| (\d+) \| (●+) \| (●+) \|$", PAGES["exercises/README.md"], re.MULTILINE)
    assert rows == [(str(task.number), task.title, " ".join(f"`{name}`" for name in task.functions), task.source, str(task.minutes),
                     "●" * task.difficulty, "●" * task.importance) for task in EXERCISES]
    assert "1 to 7 and 9 to 12 have pictures" in PAGES["exercises/README.md"] and sorted(PICTURES) == [*range(1, 8), *range(9, 13)]


def test_every_function_of_the_catalog_exists_and_shows_its_equation():
    for task in EXERCISES:
        texts = [function_in(read(ROOT / f"{name.split('.')[0]}.py"), name.partition(".")[2]) for name in task.functions]
        for number in re.findall(r"Eq\. ([\d, ]+)$", task.source):
            assert all(any(f"# Eq. {k}:" in text for text in texts) for k in number.split(", ")), task.number


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_known(page):
    for command, word in re.findall(r"python -m exercises ([a-z]+)(?: (\w+))?", PAGES[page]):
        assert command in COMMANDS, command
        if re.fullmatch(r"b?\d+", word):
            assert 1 <= int(word.strip("b")) <= (len(BUGS) if word[0] == "b" or command == "break" else len(EXERCISES))
    for what in re.findall(r"python -m exercises\.measure (\w+)", PAGES[page]):
        assert what in (*MEASURES, "all")
    for module in re.findall(r"python -m exercises\.(\w+)", PAGES[page]):
        assert (ROOT / "exercises" / f"{module}.py").is_file()


def test_every_measure_is_asked_for_and_every_question_has_its_answer():
    page = PAGES["exercises/predict.md"]
    assert set(re.findall(r"exercises\.measure (\w+)", page)) == {*MEASURES, "all"}
    questions = re.split(r"^## \d+ ", page, flags=re.MULTILINE)[1:]
    assert len(questions) == 9
    for question in questions:
        asked, answer = question.split("<details><summary>Answer</summary>")
        assert "?" in asked and "```bash\npython " in asked and answer.strip().endswith("</details>")


def test_the_reading_path_takes_an_hour_and_its_lines_are_those_of_the_functions():
    assert len(STOPS) == 12 and sum(int(minutes) for *_, minutes in STOPS) == 60
    for file, first, last, name, _ in STOPS:
        start, end = span(read(ROOT / file), name)
        assert (int(first), int(last)) == (start + 1, end), f"{name}: lines {start + 1}–{end}"
