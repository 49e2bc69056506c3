"Every page runs from top to bottom, in one process: torch is imported once"
import os
import random

import pytest
from conftest import MODULES, NBS, PAGES

SKIP = {'slow', 'gpu'}  # `#| slow` and `#| gpu` cells: settings.ini, tst_flags


@pytest.fixture(scope='module')
def folders(shared): return shared/'pages-cache', shared/'pages-results'


@pytest.fixture
def as_found(folders):
    "Pages share a cache and a store that are not the user's, in all processes, and leave no environment behind"
    env = dict(os.environ)
    os.environ['XLTNB_CACHE'] = str(folders[0])
    yield folders[1]
    os.environ.clear()
    os.environ.update(env)


def give(nb, **values):
    "Set parameters as papermill does: in a cell after the tagged one, and only those that it declares"
    from execnb.nbio import mk_cell
    at = next((i for i, c in enumerate(nb.cells) if 'parameters' in c.metadata.get('tags', [])), None)
    if at is None: return
    declared = {k: v for k, v in values.items() if f'\n{k}' in '\n'+nb.cells[at].source}
    nb.cells.insert(at+1, mk_cell('\n'.join(f'{k} = {v!r}' for k, v in declared.items())))


def run_page(path, store=None):
    "Run the cells of a page; the traceback of the first that fails, or None"
    from execnb.shell import CaptureShell
    from fastcore.xtras import working_directory
    from nbdev.frontmatter import FrontmatterProc
    from nbdev.process import NBProcessor
    os.environ['IN_TEST'] = '1'
    nb = NBProcessor(path, procs=FrontmatterProc, process=True).nb
    if store: give(nb, store=str(store))
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
    return None


@pytest.mark.parametrize('path', PAGES, ids=lambda p: str(p.relative_to(NBS)))
def test_page(path, as_found):
    random.seed(0)
    failed = run_page(path, as_found)
    if failed: pytest.fail(failed, pytrace=False)


def test_a_failing_page_fails(tmp_path, as_found):
    import nbformat
    cells = ['x = 1', 'assert x == 2, "wrong"']
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells]), tmp_path/'bad.ipynb')
    assert 'wrong' in run_page(tmp_path/'bad.ipynb')


def test_a_parameter_reaches_its_page(tmp_path, as_found):
    import nbformat
    cells = [nbformat.v4.new_code_cell("store:str = 'results' # records", metadata={'tags': ['parameters']}), nbformat.v4.new_code_cell("assert store == 'elsewhere', store")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path/'page.ipynb')
    assert run_page(tmp_path/'page.ipynb', 'elsewhere') is None
    assert 'results' in run_page(tmp_path/'page.ipynb')


def test_pages_were_found():
    assert NBS/'index.ipynb' in PAGES
    assert {m.stem for m in MODULES} <= {p.stem.split('_', 1)[1] for p in PAGES if p.stem[:2].isdigit()}
