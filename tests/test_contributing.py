"What CONTRIBUTING.md, the hooks and the workflow name is there"
import re

import yaml
from conftest import ROOT

TEXT = (ROOT/'CONTRIBUTING.md').read_text(encoding='utf-8')
QUESTIONS = 'a file format', 'a merge method', 'a way to compute an interval', 'a widget', 'an engine', 'a paper', 'a preset', 'a claim'


def named(): return {n for n in re.findall(r'(?<![\w/.])(?:nbs|tests|xltnb)/[\w./-]*\w|[\w.-]+\.(?:toml|ini|yml|yaml|md)\b|\.ci/run', TEXT) if '/NN_' not in n and 'FOLDER' not in n}


def test_files_that_it_names_exist():
    lost = sorted(n for n in named() - {'published.yaml'} if not (ROOT/n).exists())
    assert len(named()) > 25 and not lost, lost


def test_it_answers_where_to_add_what():
    rows = [line for line in TEXT.split('\n') if line.startswith('| ')]
    for q in QUESTIONS: assert any(r.startswith(f'| {q}') and re.search(r'`(nbs|xltnb)/[^`]+\.\w+`', r) for r in rows), q


def test_names_beside_the_files_stand_in_them():
    "`MERGES`, `_reader`, `Explorer`: what a row says of a page is on that page"
    pages = {n: (ROOT/n).read_text(encoding='utf-8') for n in named() if n.endswith('.ipynb')}
    names = {n for row in TEXT.split('\n') if row.startswith('| ') for n in re.findall(r'`(@?\w+)`', row)}
    assert not [n for n in names if not any(re.search(rf'\b{n.lstrip("@")}\b', t) for t in pages.values())]


def test_commands_of_make_exist():
    rules = re.findall(r'(?m)^([\w-]+):', (ROOT/'Makefile').read_text(encoding='utf-8'))
    assert set(re.findall(r'`?make (\w+)', TEXT)) <= set(rules)


def test_hooks_and_workflow_call_what_there_is():
    hooks = yaml.safe_load((ROOT/'.pre-commit-config.yaml').read_text(encoding='utf-8'))['repos'][0]['hooks']
    assert [h['id'] for h in hooks] == ['nbdev-export', 'nbdev-clean', 'ruff']
    assert '.ci/run' in (ROOT/'.github'/'workflows'/'test.yml').read_text(encoding='utf-8')
    ci = (ROOT/'.ci'/'run').read_text(encoding='utf-8')
    assert 0 < ci.index('\nmake reproduce') < ci.index('\nexec make test')


def test_the_newest_change_stands_first():
    heads = re.findall(r'(?m)^## (.+)$', (ROOT/'CHANGELOG.md').read_text(encoding='utf-8'))
    import xltnb
    assert heads[0] == 'Unreleased' and heads[1] == xltnb.__version__
