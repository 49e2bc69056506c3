"Imports go downwards only; methods (40) do not know each other, nor do measures (50)"
import ast
import re
from functools import cache

import pytest
from conftest import LIB, MODULES, NBS, PAGES

CLI_FLOOR = 80  # commands import in their bodies


@cache
def numbers():
    "Module name -> number of the page that exports it"
    found = {}
    for p in PAGES:
        m = re.match(r'(\d\d)_', p.name)
        exp = re.search(r'#\|\s*default_exp\s+([\w.]+)', p.read_text())
        if m and exp: found[exp[1]] = int(m[1])
    return found


def module_of(path): return '.'.join(path.relative_to(LIB).with_suffix('').parts)


def imports(tree):
    "(module, at the top?) of each import of this package"
    top = {id(n) for n in tree.body}
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and (n.level or (n.module or '').split('.')[0] == 'xltnb'):
            base = (n.module or '').removeprefix('xltnb').strip('.')
            yield from ((m, id(n) in top) for m in ([base] if base else [a.name for a in n.names]))
        elif isinstance(n, ast.Import):
            yield from ((a.name.removeprefix('xltnb.'), id(n) in top) for a in n.names if a.name.startswith('xltnb.'))


def breaches(module, imported):
    "Why `module` may not import `imported`; empty when it may"
    num = numbers()
    if imported not in num: return f'imports xltnb.{imported}, which no page exports' if imported != '__version__' else ''
    a, b = num[module], num[imported]
    if a//10 == b//10 and a//10 in (4, 5): return f'floor {a//10*10}: {module} and {imported} share code by moving it down a floor'
    place = [(n, m.startswith('exp_')) for n, m in ((a, module), (b, imported))]  # 60_exp_<paper> pages come after 60_experiments, x_y after x
    if place[1] >= place[0] and not (a == b and module.startswith(f'{imported}_')): return f'{a:02d}_{module} imports {b:02d}_{imported}, a later page'
    return ''


@pytest.mark.parametrize('path', MODULES, ids=module_of)
def test_imports_go_down(path):
    name = module_of(path)
    assert name in numbers(), f'{path.name} comes from no page: its notebook was renamed or removed; delete the module'
    bad = [w for m, _ in imports(ast.parse(path.read_text())) if (w := breaches(name, m))]
    assert not bad, '\n'.join(bad)


@pytest.mark.parametrize('path', [p for p in MODULES if numbers().get(module_of(p), 0) != CLI_FLOOR], ids=module_of)
def test_imports_stand_at_the_top(path):
    inside = [m for m, top in imports(ast.parse(path.read_text())) if not top]
    assert not inside, f'{path.name} imports {inside} inside a function: only the command line does that'


def test_base_floor_needs_no_torch():
    heavy = {'torch', 'transformers', 'datasets', 'accelerate'}
    for p in MODULES:
        if numbers().get(module_of(p), 99) >= 10: continue
        for n in ast.walk(ast.parse(p.read_text())):
            names = [n.module] if isinstance(n, ast.ImportFrom) and n.module else [a.name for a in n.names] if isinstance(n, ast.Import) else []
            assert not {x.split('.')[0] for x in names} & heavy, f'{p.name} imports {names}'


def test_one_module_a_page():
    names = [m for p in NBS.glob('*.ipynb') for m in re.findall(r'#\|\s*default_exp\s+([\w.]+)', p.read_text())]
    assert len(names) == len(set(names)), f'exported twice: {sorted(n for n in set(names) if names.count(n) > 1)}'


def test_the_rule_itself(monkeypatch):
    "The rule catches what it is for"
    fake = dict(store=2, othello=10, othello_games=10, lm=32, mothello=40, robust=41, experiments=60, exp_mothello=60, exp_salt=60, run=62)
    monkeypatch.setitem(globals(), 'numbers', lambda: fake)
    assert breaches('mothello', 'store') == ''
    assert 'later page' in breaches('store', 'lm')
    assert breaches('exp_mothello', 'experiments') == ''
    assert 'later page' in breaches('experiments', 'exp_mothello') and 'later page' in breaches('exp_salt', 'exp_mothello')
    assert breaches('othello_games', 'othello') == '' and 'later page' in breaches('othello', 'othello_games')
    assert 'share code' in breaches('robust', 'mothello')
    assert 'no page exports' in breaches('run', 'gone')
    assert list(imports(ast.parse('from .core import a\nimport xltnb.records.store\ndef f():\n from xltnb.othello.train import b'))) == [('core', True), ('store', True), ('lm', False)]
