"What a reader of a page relies on: names that exist, named imports, a word on every parameter"
import inspect
import json
import re
import subprocess
import sys
from functools import cache

import pytest
from conftest import LIB, MODULES, PAGES, ROOT, none_wrong

STAR = re.compile(r'^\s*from\s+\S+\s+import\s+\*', re.M)


def read(path): return json.loads(path.read_text(encoding='utf-8'))['cells']


@cache
def all_cells(path):
    "What each cell of a page says, without its outputs: a page is read once for all checks"
    return [(c['cell_type'], ''.join(c['source'])) for c in read(path)]


def cells(path, kind='code'): return [s for k, s in all_cells(path) if k == kind]


def outputs(path): return [o for c in read(path) for o in c.get('outputs', [])]


def test_ruff_finds_no_undefined_or_unused_name():
    done = subprocess.run([sys.executable, '-m', 'ruff', 'check', '--no-cache', '--select', 'F', '--exclude', '_modidx.py', str(LIB)], capture_output=True, encoding='utf-8')
    assert done.returncode == 0, done.stdout + done.stderr


def test_named_imports_only(): none_wrong(PAGES, lambda p: [f'star import {c[:60]!r}' for c in cells(p) if STAR.search(c)])


def test_page_opens_with_a_title_and_a_subtitle():
    def fault(p):
        kind, text = all_cells(p)[0]
        if kind != 'markdown' or not re.match(r'# \S.*\n+> \S', text): return f'opens with {text[:60]!r}, not with "# Title" and "> subtitle"'
    none_wrong(PAGES, fault)


def test_nothing_stands_below_the_subtitle_in_its_cell():
    "The site takes title and subtitle from the first cell, and drops what else it holds"
    def fault(p):
        text = cells(p, 'markdown')[0]
        if not re.fullmatch(r'# \S[^\n]*\n+> \S[^\n]*(\n[^\n]+)*\s*', text): return f'the site would lose {text[-60:]!r}: give it a cell of its own'
    none_wrong(PAGES, fault)


@cache
def trees(path):
    "Syntax trees of a page's code cells"
    import ast
    return [ast.parse(re.sub(r'^[%!].*$', '', c, flags=re.M)) for c in cells(path)]


def test_import_cells_hold_imports_alone():
    "The docs build runs such cells by themselves"
    import ast
    mixed = lambda t: len({isinstance(n, (ast.Import, ast.ImportFrom)) for n in t.body}) > 1
    none_wrong(PAGES, lambda p: [f'imports beside other code in\n{c[:300]}' for c, t in zip(cells(p), trees(p)) if mixed(t)])


def public(module):
    "Names in `__all__` that are functions or classes of this module"
    import importlib
    m = importlib.import_module('xltnb.' + '.'.join(module.relative_to(LIB).with_suffix('').parts))
    for name in getattr(m, '__all__', []):
        o = getattr(m, name)
        if (inspect.isfunction(o) or inspect.isclass(o)) and getattr(o, '__module__', '') == m.__name__: yield name, o


def lacking(name, o):
    "Parameters of `o` without a comment, and `o` itself without a docstring"
    from fastcore.docments import docments
    if name.startswith('_'): return
    if not inspect.getdoc(o): yield f'{name}: no docstring'
    if inspect.isclass(o) and (issubclass(o, BaseException) or '__init__' not in vars(o)): return
    try: docs = docments(o, full=True, returns=False)
    except Exception as e: yield f'{name}: {e}'; return
    rest = {p.name for p in inspect.signature(o).parameters.values() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    fields = {f for base in o.__mro__[1:] for f in getattr(base, '__dataclass_fields__', ())} if inspect.isclass(o) else set()
    rest |= fields-{*vars(o).get('__annotations__', ())} # a field has its word where it is declared
    for arg, d in docs.items():
        if arg in {'self', 'cls', 'return'} | rest: continue
        if not d.docment: yield f'{name}({arg}): no comment'


def test_every_parameter_has_a_word(): none_wrong(MODULES, lambda p: [w for name, o in public(p) for w in lacking(name, o)])


def test_a_missing_word_is_seen(tmp_path, monkeypatch):
    (tmp_path/'undocumented.py').write_text('def f(\n  a:int, # fine\n  b:int,\n): "Does it"\n', encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    import undocumented
    assert list(lacking('f', undocumented.f)) == ['f(b): no comment']


WIDTH = 140


def too_long(path, width):
    "Lines of code of a page that are longer than `width`"
    return [line for c in cells(path) for line in c.split('\n') if len(line) > width]


def test_lines_fit_the_page():
    none_wrong(PAGES, lambda p: (bad := too_long(p, WIDTH)) and f'{len(bad)} lines are too long, the first is\n{bad[0]}')


def test_a_long_line_is_seen(tmp_path):
    nb = dict(cells=[dict(cell_type='code', source=[f'x = {"1+"*80}1'])])
    (tmp_path/'a.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    assert len(too_long(tmp_path/'a.ipynb', WIDTH)) == 1


def exported(path):
    "Trees of a page's exported cells"
    return [t for c, t in zip(cells(path), trees(path)) if re.search(r'^#\|\s*export', c, re.M)]


def definitions(tree):
    "How many functions and classes a cell defines"
    import ast
    return sum(isinstance(n, (ast.FunctionDef, ast.ClassDef)) for n in tree.body)


def test_a_cell_defines_one_thing():
    "Define, say why, show, check: two cells of three hold exactly one definition"
    counts = [n for p in PAGES for t in exported(p) if (n := definitions(t))]
    one = counts.count(1)/len(counts)
    assert one >= .65, f'{one:.0%} of the cells that define anything hold exactly one definition'


def test_a_cell_fits_the_screen():
    lines = lambda p: [len(c.strip().split('\n')) for c in cells(p) if re.search(r'^#\|\s*export', c, re.M)]
    none_wrong(PAGES, lambda p: [f'an exported cell has {n} lines' for n in lines(p) if n > 60])


def test_a_name_has_one_home():
    import importlib
    homes = {}
    for m in MODULES:
        name = '.'.join(m.relative_to(LIB).with_suffix('').parts)
        for n in getattr(importlib.import_module(f'xltnb.{name}'), '__all__', []): homes.setdefault(n, []).append(name)
    assert not (twice := {n: ms for n, ms in homes.items() if len(ms) > 1}), twice


def test_few_hidden_cells():
    for p in PAGES:
        code = cells(p)
        hidden = sum(c.lstrip().startswith('#| hide') for c in code)
        assert hidden <= max(2, len(code)//6), f'{p.name}: {hidden} of {len(code)} code cells hidden'


def bare(trees):
    "Calls that read or write text in the machine's own encoding"
    import ast
    for n in (n for t in trees for n in ast.walk(t)):
        if not isinstance(n, ast.Call) or any(k.arg in ('encoding', None) for k in n.keywords): continue
        method, name = isinstance(n.func, ast.Attribute) and n.func.attr, isinstance(n.func, ast.Name) and n.func.id
        mode = n.args[1] if len(n.args) > 1 else next((k.value for k in n.keywords if k.arg == 'mode'), ast.Constant('r'))
        if method in ('read_text', 'write_text') or name == 'open' and isinstance(mode, ast.Constant) and 'b' not in mode.value: yield ast.unparse(n)


def test_text_files_say_their_encoding():
    none_wrong(PAGES, lambda p: [f'{call}: pass encoding="utf-8"' for call in bare(trees(p))])


def test_tests_say_their_encoding():
    import ast
    none_wrong(sorted((ROOT/'tests').rglob('*.py')), lambda p: [f'{call}: pass encoding="utf-8"' for call in bare([ast.parse(p.read_text(encoding='utf-8'))])])


def test_a_bare_reading_is_seen():
    import ast
    code = "p.read_text()\np.read_text(encoding='utf-8')\np.write_text('x')\nopen(p)\nopen(p, 'rb')\nopen(p, 'a')\nopen(p, encoding='utf-8')"
    assert list(bare([ast.parse(code)])) == ['p.read_text()', "p.write_text('x')", 'open(p)', "open(p, 'a')"]


HERE = re.compile(r'/(?:home|root|Users|work|tmp|var/folders)/[\w.-]+')  # folders of one machine


def places(o):
    "Absolute paths in what a cell printed or showed"
    text = json.dumps([o.get('text', ''), [v for k, v in o.get('data', {}).items() if k.startswith('text/')], o.get('traceback', '')], ensure_ascii=False)
    return HERE.findall(text)


def test_outputs_name_no_machine():
    found = lambda p: [x for o in outputs(p) for x in places(o)]
    none_wrong(PAGES, lambda p: (bad := found(p)) and f'shows {bad[:3]}: print a name, or a path relative to its folder')


def test_records_name_no_machine():
    "No folder of a user, and no name of a host, in what is committed"
    for f in sorted((ROOT/'nbs'/'results').rglob('*.json')):
        text = f.read_text(encoding='utf-8')
        assert not HERE.search(text), f'{f} names {HERE.search(text)[0]}'
        assert not {'host', 'hostname', 'user', 'cwd'} & set(json.loads(text).get('provenance', {})), f


def test_committed_outputs_are_whole():
    "No traceback of a run that failed, no output that carries a library along"
    none_wrong(PAGES, lambda p: [o['evalue'] or o['ename'] for o in outputs(p) if o['output_type'] == 'error'])
    none_wrong(PAGES, lambda p: [f'an output of {n:,} characters' for o in outputs(p) if (n := len(json.dumps(o))) >= 1_000_000])


def test_all_offenders_are_named():
    said = {'conftest.py': 'wrong', 'test_export.py': ['a', 'b'], 'test_lint.py': []}
    with pytest.raises(AssertionError, match=r'(?s)2 of 3 files:.*conftest.py: wrong.*test_export.py: a; b'):
        none_wrong([ROOT/'tests'/f for f in ('conftest.py', 'test_lint.py', 'test_export.py')], lambda p: said.get(p.name))
