"The rooms: folders stand in one order, a page imports what stands before it, a paper knows no other paper"
import ast
import re
import subprocess
import sys
from functools import cache

from conftest import LIB, MODULES, NBS, PAGES, none_wrong

from xltnb.dev.sitemap import ROOMS

LIGHT = 'core', 'files', 'stats', 'machine', 'records', 'runs', 'verdicts', 'reports'  # rooms that load no torch


@cache
def numbers():
    "Module -> number of the page that exports it"
    found = {}
    for p in PAGES:
        m, exp = re.match(r'(\d\d)_', p.name), re.search(r'#\|\s*default_exp\s+([\w.]+)', p.read_text(encoding='utf-8'))
        if m and exp: found[exp[1]] = int(m[1])
    return found


def module_of(path): return '.'.join(path.relative_to(LIB).with_suffix('').parts)


def imports(tree, module):
    "(module, at the top?) of each import of this package; `module` is where it stands"
    top = {id(n) for n in tree.body}
    here = module.split('.')
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and (n.level or (n.module or '').split('.')[0] == 'xltnb'):
            base = here[:len(here)-n.level] if n.level else []
            name = '.'.join([*base, *(n.module or '').removeprefix('xltnb').strip('.').split('.')]).strip('.')
            names = [name] if name in numbers() else ['.'.join(x for x in (name, a.name) if x) for a in n.names]
            yield from ((m, id(n) in top) for m in names)
        elif isinstance(n, ast.Import):
            yield from ((a.name.removeprefix('xltnb.'), id(n) in top) for a in n.names if a.name.startswith('xltnb.'))


def breaches(module, imported):
    "Why `module` may not import `imported`; empty when it may"
    if imported == '__version__': return ''
    if imported not in numbers(): return f'{module} imports xltnb.{imported}, which no page exports'
    (*home, _), (*other, _) = module.split('.'), imported.split('.')
    if home == other and home: return '' if numbers()[imported] < numbers()[module] else f'{module} imports {imported}, a later page of its folder'
    if imported.startswith('papers.') and home != ['leaderboard']: return f'{module} imports {imported}: nothing imports papers, and a paper imports no other paper'
    a, b = ROOMS.index(module.split('.')[0]), ROOMS.index(imported.split('.')[0])
    return '' if b < a else f'{module} imports {imported}, which stands in a later folder'


def imported(path): return imports(ast.parse(path.read_text(encoding='utf-8')), module_of(path))


def test_imports_go_down():
    none_wrong(MODULES, lambda p: module_of(p) not in numbers() and 'comes from no page: its notebook was renamed or removed; delete the module')
    none_wrong(MODULES, lambda p: [w for m, _ in imported(p) if (w := breaches(module_of(p), m))])


def test_imports_stand_at_the_top():
    library = [p for p in MODULES if module_of(p) not in ('commands', 'tools', 'cli')]
    none_wrong(library, lambda p: [f'imports {m} inside a function: only the commands do that' for m, top in imported(p) if not top])


def test_a_page_lies_where_its_module_does():
    for p in PAGES:
        if exp := re.search(r'#\|\s*default_exp\s+([\w.]+)', p.read_text(encoding='utf-8')):
            assert exp[1] == '.'.join([*p.relative_to(NBS).parts[:-1], p.stem.split('_', 1)[1]]), f'{p.relative_to(NBS)} exports {exp[1]}'


def test_every_folder_is_a_room():
    rooms = {p.name for p in LIB.iterdir() if p.is_dir() and list(p.glob('[!_]*.py'))} | {'papers'}
    assert rooms <= set(ROOMS), f'{rooms-set(ROOMS)} stand in no order: add them to ROOMS'


def test_numbers_count_inside_a_folder():
    for d in {p.parent for p in PAGES}:
        ns = sorted(p.name[:2] for p in d.glob('[0-9][0-9]_*.ipynb'))
        assert ns == [f'{i:02d}' for i in range(len(ns))], f'{d.name}: pages are numbered {ns}'


def test_light_rooms_load_no_torch():
    "What is read, judged and drawn starts in a blink; a function that is about tensors imports torch when it is called"
    light = [m for p in MODULES if (m := module_of(p)).split('.')[0] in LIGHT]
    asked = f"import importlib, sys; [importlib.import_module('xltnb.'+m) for m in {light}]; print(*sorted({{'torch','transformers','datasets','accelerate'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, '-c', asked], capture_output=True, encoding='utf-8', cwd=NBS.parent, check=True)
    assert not done.stdout.strip(), f'a light room loads {done.stdout.strip()}'


def test_one_module_a_page():
    names = [m for p in PAGES for m in re.findall(r'#\|\s*default_exp\s+([\w.]+)', p.read_text(encoding='utf-8'))]
    assert len(names) == len(set(names)), f'exported twice: {sorted(n for n in set(names) if names.count(n) > 1)}'


def test_the_rule_itself(monkeypatch):
    "The rule catches what it is for"
    fake = {'core': 0, 'records.store': 5, 'othello.rules': 0, 'othello.games': 1, 'runs.plan': 1, 'papers.a.methods': 0, 'papers.a.figures': 1, 'papers.b.methods': 0, 'leaderboard.table': 0}
    monkeypatch.setitem(globals(), 'numbers', lambda: fake)
    assert breaches('othello.games', 'othello.rules') == '' == breaches('papers.a.figures', 'papers.a.methods') == breaches('records.store', 'core')
    assert 'later page' in breaches('othello.rules', 'othello.games') and 'later folder' in breaches('records.store', 'runs.plan')
    for m in ('papers.b.methods', 'runs.plan'): assert 'imports papers' in breaches(m, 'papers.a.methods')
    assert breaches('leaderboard.table', 'papers.a.methods') == ''  # only the leaderboard looks at several papers
    assert 'no page exports' in breaches('runs.plan', 'gone')
    seen = list(imports(ast.parse('from ..core import a\nfrom .games import x\nimport xltnb.core\ndef f():\n from xltnb.runs.plan import b'), 'othello.rules'))
    assert seen == [('core', True), ('othello.games', True), ('core', True), ('runs.plan', False)]
