"Every page runs from top to bottom, in one process: torch is imported once"
import ast
import json
import os
import random

import pytest
from conftest import MODULES, NBS, PAGES

SKIP = {'slow', 'gpu'}  # `#| slow` and `#| gpu` cells: settings.ini, tst_flags


def assigned(nb, exported):
    "Names that the exported cells of a page assign, or the others"
    code = [c.source for c in nb.cells if c.cell_type == 'code' and ('export' in (getattr(c, 'directives_', None) or {})) == exported]
    plain = [c for c in code if not c.lstrip('#| \n').startswith(('%', '!'))] # Python, no magic
    return {n.id for c in plain for n in ast.walk(ast.parse(c)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def forget(shell, nb):
    """Drop what the examples of a page made: IPython keeps each of its shells for good, and with it encoders of half a GB.
    What exported cells made or imported stays: the page has registered their functions, and other pages call them"""
    made = assigned(nb, False)-assigned(nb, True)
    shell.user_ns.get('_oh', {}).clear()
    shell.result = shell.exc = shell.displayhook._ = shell.displayhook.__ = shell.displayhook.___ = None
    for name in made & shell.user_ns.keys(): del shell.user_ns[name]


def said(outputs):
    "Title and caption of each figure, and each text, that the outputs of a cell hold"
    data = [o.get('data') or {} for o in outputs]
    drawn = [json.loads(f) if isinstance(f, str) else f for d in data for k, f in d.items() if 'plotly' in k]
    layouts = [f.get('layout', {}) for f in drawn]
    titles = [(f.get('title', {}).get('text'), (f.get('meta') or {}).get('caption')) for f in layouts]
    return [*titles, *(''.join(d['text/markdown']) for d in data if 'text/markdown' in d)]


def stale(path, nb):
    "Cells of a page of results whose saved figures and texts are not those that the page makes from the committed records"
    if path.stem.partition('_')[0] != path.parent.name and path.parent.name != 'explain': return []
    saved = {c['id']: said(c.get('outputs', [])) for c in json.loads(path.read_text(encoding='utf-8'))['cells']}
    live = lambda c: 'Explorer' in c.source # computed by a model, on another processor perhaps
    return [c['id'] for c in nb.cells if c.cell_type == 'code' and not live(c) and said(c.outputs) != saved[c['id']]]


def run_page(path):
    "Run the cells of a page; the traceback of the first that fails, or what its saved outputs say otherwise, or None"
    from execnb.shell import CaptureShell
    from fastcore.xtras import working_directory
    from nbdev.frontmatter import FrontmatterProc
    from nbdev.process import NBProcessor
    os.environ['IN_TEST'] = '1'
    nb = NBProcessor(path, procs=FrontmatterProc, process=True).nb
    shell = CaptureShell(path)

    def skip(cell):
        if cell.cell_type != 'code': return True
        d = getattr(cell, 'directives_', {}) or {}
        return d.get('eval:', [''])[0].lower() == 'false' or bool(SKIP & d.keys())

    try:
        with working_directory(path.parent): shell.run_all(nb, exc_stop=True, preproc=skip)
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt): raise
        return shell.prettytb(fname=path)
    finally: forget(shell, nb)
    if old := stale(path, nb): return f'the outputs of {", ".join(old)} are those of earlier code or records: run the page and save it'
    return None


@pytest.mark.parametrize('path', PAGES, ids=lambda p: str(p.relative_to(NBS)))
def test_page(path):
    random.seed(0)
    failed = run_page(path)
    if failed: pytest.fail(failed, pytrace=False)


def test_a_failing_page_fails(tmp_path):
    import nbformat
    cells = ['x = 1', 'assert x == 2, "wrong"']
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells]), tmp_path/'bad.ipynb')
    assert 'wrong' in run_page(tmp_path/'bad.ipynb')


def test_an_old_caption_is_seen(tmp_path):
    import nbformat
    (tmp_path/'quick').mkdir()
    page, cell = tmp_path/'quick'/'quick_claims.ipynb', nbformat.v4.new_code_cell('from IPython.display import Markdown\nMarkdown("new")')
    for word, old in (('new', False), ('old', True)):
        cell.outputs = [nbformat.v4.new_output('execute_result', {'text/markdown': word}, execution_count=1)]
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), page)
        assert ('earlier code or records' in (run_page(page) or '')) == old


def test_pages_were_found():
    assert NBS/'index.ipynb' in PAGES
    assert {m.stem for m in MODULES} <= {p.stem.split('_', 1)[1] for p in PAGES if p.stem[:2].isdigit()}
