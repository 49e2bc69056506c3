"Every page runs from top to bottom, in one process: torch is imported once"
import ast
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


def run_page(path):
    "Run the cells of a page; the traceback of the first that fails, or None"
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


def test_pages_were_found():
    assert NBS/'index.ipynb' in PAGES
    assert {m.stem for m in MODULES} <= {p.stem.split('_', 1)[1] for p in PAGES if p.stem[:2].isdigit()}
