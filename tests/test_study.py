"One handle for a study: it judges by its own jobs, and every page with parameters runs what it was asked for and shows that"
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace

import nbformat
import pytest
from conftest import NBS, PAGES, ROOT, write_paper
from test_notebooks import SKIP

from xltnb.records.leases import alive
from xltnb.records.store import Store, open_store
from xltnb.runs.experiments import has_part, jobs_for, papers
from xltnb.runs.plan import best_plan, make_plan
from xltnb.verdicts.claims import judge_plan
from xltnb.verdicts.findings import story
from xltnb.reports.pages import check_values, page_params
from xltnb.verdicts.study import claims, compare, plan, study


def tagged(page): return any('parameters' in c.metadata.get('tags', []) for c in nbformat.read(page, 4).cells)


ASKED = [p for p in PAGES if p.parent.parent.name == 'papers' and tagged(p)]
PARAMETERS = dict(preset=('str', "''"), seeds=('int', '0'), store=('str', "'results'"))


def code_of(page): return [c.source for c in nbformat.read(page, 4).cells if c.cell_type == 'code' and not c.source.startswith('#| export')]


def test_the_judge_knows_the_jobs():
    "What the top-level calls say is what a plan's own jobs say; they were asked without jobs once, and found nothing"
    for paper in ('mothello', 'salt'):
        own, told = judge_plan(make_plan(paper, 'laptop')).rows, claims(paper, 'laptop').rows
        assert [(r['verdict'], r['n']) for r in own] == [(r['verdict'], r['n']) for r in told]
        assert sum(r['n'] > 2 for r in told) > len(told)/2 and claims(paper).rows[0]['preset'] == 'laptop'
    assert [r['claim'] for r in claims('mothello.C2', 'laptop').rows] == ['mothello.C2']


def test_measured_cells_are_not_left_to_do():
    cells = compare('mothello.tab1', 'laptop').rows
    assert len(cells) == 12 and sum(r['n'] > 0 for r in cells) >= 5
    assert all((r['n'] > 0) == (r['verdict'] == 'not judged') for r in cells if r['verdict'] != 'open')
    done = subprocess.run([sys.executable, '-m', 'xltnb.cli', 'compare', 'mothello.tab1', '--preset', 'laptop', '--json'], cwd=ROOT, capture_output=True, text=True, encoding='utf-8')
    assert done.returncode == 0 and not [r for r in json.loads(done.stdout) if r['n'] and r['verdict'] == 'not measured']


def test_a_study_that_chose_its_preset_runs_nothing(tmp_path):
    s = study('mothello.tab1')
    ran = s.run()
    assert s.plan.preset == 'laptop' and not ran.outcomes and 'the largest preset that the store has runs of' in repr(ran)
    fresh = study('mothello.tab1', store=Store(tmp_path, committed=False))
    assert (fresh.plan.preset, fresh.asked, len(fresh.plan.todo()) > 0) == ('smoke', False, True)
    assert study('mothello.tab1', seeds=8).asked and study('mothello.tab1', jobs='align-*').asked
    assert plan('mothello.tab1', 'smoke', 2).seeds == 2 and len(plan('mothello.tab1', 'smoke', 2).jobs) > len(plan('mothello.tab1', 'smoke').jobs)


def test_ones_own_runs_stand_beside_shipped_ones_of_the_same_preset(tmp_path):
    "Who measured a shipped claim again is not shown the shipped verdict alone"
    mine = Store(tmp_path, committed=False)
    for r in (r for rs in make_plan('mothello.C7', 'laptop').records().values() for r in rs):
        mine.put(replace(r, metrics={k: .5 if k.startswith('target') else v for k, v in r.metrics.items()}))
    row = study('mothello.C7', store=Store(tmp_path)).told()[0]
    assert row['verdict'] == 'held' and row['here'] == 'not settled at laptop, n 5' and f"here: {row['here']}" in story(row)
    assert not study('mothello.C7', store=mine).told()[0]['here'] and not study('mothello.C7').told()[0]['here']


def test_pages_with_parameters_were_found(): assert len(ASKED) >= 29


@pytest.mark.parametrize('path', ASKED, ids=lambda p: p.stem)
def test_papermill_can_set_each_parameter(path):
    "Types that papermill reads, one default for all pages"
    spec = page_params(path)
    assert {k: (p['type'], p['default']) for k, p in spec.items() if k in PARAMETERS} == {k: v for k, v in PARAMETERS.items() if k in spec} and {'preset', 'store'} <= set(spec)
    check_values(dict(preset='smoke', store='results') | (dict(seeds=2) if 'seeds' in spec else {}), {k: p['type'] for k, p in spec.items()})


@pytest.mark.parametrize('path', ASKED, ids=lambda p: p.stem)
def test_a_page_runs_before_it_shows(path):
    "The study's run stands before anything that is drawn or judged, and nothing else plans, runs or picks a preset"
    cells = code_of(path)
    assert not re.search(r'\b(best_plan|make_plan|run_plan|check_params|jobs_for)\b', '\n'.join(cells)), 'a page asks its study'
    run = next(i for i, c in enumerate(cells) if re.search(r'\bs\.run\(', c))
    before = '\n'.join([*cells[:run], cells[run][:cells[run].index('s.run(')]])
    assert not re.search(r'\bs\.(runs|fig|figs|cells|claims|records)\b|_fig\(', before), 'something is shown before it was run'


def give(nb, **values):
    "Set parameters as papermill does: in a cell after the tagged one, and only those that it declares"
    from execnb.nbio import mk_cell
    at = next(i for i, c in enumerate(nb.cells) if 'parameters' in c.metadata.get('tags', []))
    declared = {k: v for k, v in values.items() if f'\n{k}:' in '\n'+nb.cells[at].source}
    nb.cells.insert(at+1, mk_cell('\n'.join(f'{k} = {v!r}' for k, v in declared.items())))


def run_page(path, **values):
    "The names of a page that ran from top to bottom"
    from execnb.shell import CaptureShell
    from fastcore.xtras import working_directory
    from nbdev.frontmatter import FrontmatterProc
    from nbdev.process import NBProcessor
    nb, shell = NBProcessor(path, procs=FrontmatterProc, process=True).nb, CaptureShell(path)
    give(nb, **values)
    skip = lambda c: c.cell_type != 'code' or bool(SKIP & (getattr(c, 'directives_', None) or {}).keys())
    try:
        with working_directory(path.parent): shell.run_all(nb, exc_stop=True, preproc=skip)
    except Exception: pytest.fail(shell.prettytb(fname=path), pytrace=False)
    return shell.user_ns


@pytest.mark.audit  # `make reproduce` runs them, too
@pytest.mark.parametrize('path', ASKED, ids=lambda p: p.stem)
def test_page(path, shared, monkeypatch):
    "On an empty store, two seeds at smoke: that is what ran, and every claim whose arms ran has its numbers from it"
    for k, v in dict(XLTNB_FRESH='1', IN_TEST='1').items(): monkeypatch.setenv(k, v)
    s = run_page(path, preset='smoke', seeds=2, store=str(shared/'pages-asked'))['s']
    assert (s.plan.preset, s.plan.seeds, s.plan.todo()) == ('smoke', 2 if 'seeds' in page_params(path) else None, [])
    arms, store = {r.arm for r in s.runs}, Store(shared/'pages-asked', committed=False)
    assert {r.key for r in s.runs} <= store.keys() and (arms or not s.plan.jobs) # questions have no runs at smoke
    ran = [k for r in s.claims().rows for k in r['checks'] if set(k['arms'].values()) <= arms]
    assert all(k['n'] > 0 for k in ran)


def test_a_page_by_plain_papermill(tmp_path):
    "As its users call it: another preset, another number of seeds, another store"
    page, out = NBS/'papers'/'mothello'/'mothello_tab2.ipynb', tmp_path/'out.ipynb'
    words = ['-p', 'preset', 'smoke', '-p', 'seeds', '1', '-p', 'store', str(tmp_path/'store')]
    env = os.environ | dict(XLTNB_FRESH='1', XLTNB_CACHE=str(tmp_path/'cache'))
    done = subprocess.run([sys.executable, '-m', 'papermill', str(page), str(out), *words], cwd=tmp_path, env=env, capture_output=True, text=True, encoding='utf-8')
    assert done.returncode == 0, done.stderr[-2000:]
    assert Store(tmp_path/'store', committed=False).keys() == {j.key for j in make_plan('mothello.tab2', 'smoke', 1).jobs}


EXPERIMENTS = """
from xltnb.runs.experiments import Result, experiment, make_job, preset_jobs

@experiment('two.one')
def one(cfg, seed, ctx): return Result(dict(one=1.))

@preset_jobs('two')
def jobs(preset, seeds=None): return [make_job('one', 'two.one', {}, 0, cost_s=.1)]
"""
ASKS = "preset:str = '' # whose runs\nstore:str = 'results' # folder of run records"
SLOW = "import os, time\nfrom pathlib import Path\nif not (at := Path(store)/'.slow').exists():\n    at.write_text(f'{os.getpid()} {os.getppid()}')\n    time.sleep(60)"


@pytest.fixture
def two(tmp_path):
    "A folder of papers, and in it one of two pages: its claims make a run; the other one takes a minute, and the second time no time"
    folder = write_paper(tmp_path/'papers', 'two', experiments=EXPERIMENTS)
    for name, code in dict(two_claims="from xltnb.verdicts.study import study\nstudy('two', preset, store=store).run()", two_slow=SLOW).items():
        cells = [nbformat.v4.new_code_cell(ASKS, metadata=dict(tags=['parameters'])), nbformat.v4.new_code_cell(code)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=dict(name='python3', language='python', display_name=''))), folder/f'{name}.ipynb')
    return folder.parent


def test_pages_go_on_after_a_kill(two, tmp_path):
    "kill -9 of the command alone: its workers leave too, what was whole is not run again, and nothing half is left"
    out, store = tmp_path/'pages', tmp_path/'store'
    args = [sys.executable, '-m', 'xltnb.cli', 'pages', 'two', '--store', str(store), '--out', str(out), '--workers', '1']
    env, until = os.environ | dict(XLTNB_FRESH='1', XLTNB_PAPERS=str(two)), time.monotonic()+240
    def wait_for(cond):
        while not cond() and time.monotonic() < until: time.sleep(.05)
        assert cond()
    with subprocess.Popen(args, cwd=ROOT, env=env, stdout=subprocess.DEVNULL) as first:
        wait_for(lambda: first.poll() is not None or (store/'.slow').exists() and ' ' in (store/'.slow').read_text(encoding='utf-8'))
        first.kill()
    wait_for(lambda: not any(map(alive, map(int, (store/'.slow').read_text(encoding='utf-8').split()))))
    assert len(list(out.glob('.*.json'))) == 1
    done = subprocess.run(args, cwd=ROOT, env=env, capture_output=True, text=True, encoding='utf-8')
    assert done.returncode == 0 and 'pages: 1 ok, 1 cached' in done.stdout, done.stdout[-500:]+done.stderr[-500:]
    assert not list(out.glob('*.partial.ipynb')) and 'two_claims' in (out/'index.html').read_text(encoding='utf-8')


@pytest.mark.parametrize('paper', [p for p in papers() if has_part(p, 'experiments')])
def test_the_best_plan_is_found_without_all_lists(paper):
    "The same preset as by the lists of all of them, in which a run counts for the smallest that has it"
    store, smaller, best = open_store('results'), set(), 'smoke'
    for preset in ('smoke', 'laptop', 'gpu', 'paper'):
        keys = {j.key for j in jobs_for(paper, preset)}
        if store.keys() & keys - smaller: best = preset
        smaller |= keys
    assert best_plan(paper, store).preset == best
