"A sixth paper is one new folder: it appears everywhere, and nothing else is edited"
import io
import json
from contextlib import redirect_stderr, redirect_stdout

import nbformat
import pytest
from conftest import ROOT, write_paper

from xltnb.cli import main
from xltnb.dev.docs import stage
from xltnb.records.published import find_papers

PUBLISHED = '''
paper: toy
order: 60
commands:
  flip: {where: 'commands:flip', about: Flip a coin}
citation: {title: Coins that remember, authors: A. Toy, venue: Journal of Toys, year: 2026}
tables:
  T1:
    caption: Heads by coin
    place: Table 1
    source: printed
    tolerance: .2
    blocks:
      - {arm: 'coin-{col}', metric: heads, rows: [heads], columns: [fair, bent], values: [[.5, .8]]}
claims:
  - id: C1
    text: The bent coin falls on heads more often
    place: Section 1
    paper: .8 against .5
    checks:
      - {presets: [smoke, laptop], arms: {bent: coin-bent, fair: coin-fair}, effect: bent.heads - fair.heads, rule: above, margin: .1, why: a third of what is printed}
'''
EXPERIMENTS = '''
from dataclasses import dataclass
from xltnb.runs.experiments import experiment, make_job, preset_jobs

@dataclass(frozen=True)
class CoinCfg:
    p:float = .5 # of heads
    throws:int = 200 # of the coin

experiment('toy.coin', cfg=CoinCfg, where='xltnb.papers.toy.training:run_coin')

@preset_jobs('toy')
def toy_jobs(preset, seeds=None):
    coins = dict(fair=.5, bent=.8)
    return [make_job(f'coin-{n}', 'toy.coin', CoinCfg(p), s, cost_s=.1, coin=n) for s in range(seeds or 3) for n,p in coins.items()]
'''
TRAINING = '''
import random
from xltnb.runs.experiments import Result

def run_coin(cfg, seed, ctx):
    rng = random.Random(f'{cfg.p}{seed}')
    heads = [float(rng.random()<cfg.p) for _ in range(cfg.throws)]
    return Result(metrics=dict(heads=sum(heads)/len(heads)), items=dict(heads=heads))
'''
FIGURES = '''
import plotly.graph_objects as go
from xltnb.figures.look import report_figures

@report_figures('toy')
def toy_figures(runs):
    return [('heads by coin', lambda: go.Figure(go.Bar(x=[r.labels['coin'] for r in runs], y=[r.metrics['heads'] for r in runs], name='toy heads')))]
'''
SPEED = '''
from xltnb.studies.speed import speed_figure, speed_line

@speed_figure('toy-throws')
def toy_throws(): return speed_line('toy-throws', 'throws/s', 2., 1., 2., 4.)
'''

COMMANDS = '''
def flip(
    coin:str='fair', # which coin
    *,
    times:int=1, # how often
):
    "Flip a coin"
    print(f'{coin} fell {times} times')
'''


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    "A folder with a toy paper and a planned one, named by XLTNB_PAPERS"
    tmp = tmp_path_factory.mktemp('sixth')
    home = write_paper(tmp/'papers', 'toy', PUBLISHED, experiments=EXPERIMENTS, training=TRAINING, figures=FIGURES, speed=SPEED, commands=COMMANDS)
    write_paper(tmp/'papers', 'someday')
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('# Coins, the walk\n\n> How a coin falls'), nbformat.v4.new_code_cell('1+1')])
    nbformat.write(page, home/'toy_walk.ipynb')
    with pytest.MonkeyPatch.context() as m:
        m.setenv('XLTNB_PAPERS', str(tmp/'papers'))
        m.setenv('XLTNB_CACHE', str(tmp/'cache'))
        m.setenv('COLUMNS', '200')
        yield tmp


def xltnb(*args, code=0):
    "What a command prints"
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out), pytest.raises(SystemExit) as end: main([str(a) for a in args])
    assert end.value.code==code, out.getvalue()
    return out.getvalue()


def test_nothing_names_it():
    assert not [p for p in (*ROOT.glob('xltnb/**/*.py'), *ROOT.glob('nbs/**/*.ipynb')) if 'toy_walk' in p.read_text(encoding='utf-8')]


def test_list(toy):
    rows = {r['paper']: r for r in json.loads(xltnb('list', '--json'))}
    assert list(find_papers())[-2:]==['toy', 'someday'] and (rows['toy']['state'], rows['toy']['claims'])==('ready', 1)
    assert rows['someday']['state']=='planned'
    assert {'toy.T1', 'toy.C1', 'coin-bent'}<={r['target'] for r in json.loads(xltnb('list', 'toy', '--json'))}


def test_plan_loads_configs_and_no_training(toy):
    import sys
    assert {r['arm'] for r in json.loads(xltnb('plan', 'toy.T1', '--json'))}=={'coin-fair', 'coin-bent'}
    assert 'xltnb.papers.toy.training' not in sys.modules


def test_run_claims_compare_report(toy):
    store = '--store', toy/'store'
    assert '6 ran' in xltnb('run', 'toy', '--workers', 2, *store)
    [claim] = json.loads(xltnb('claims', 'toy', '--json', *store))
    assert (claim['claim'], claim['verdict'], claim['n'])==('toy.C1', 'held', 3)
    assert '> 0.1' in (text := xltnb('claims', 'toy', *store)) and '.8 against .5' in text
    assert len(json.loads(xltnb('compare', 'toy.tab1', '--json', *store)))==2
    out = toy/'report.html'
    xltnb('report', 'toy', '--out', out, *store)
    html = out.read_text(encoding='utf-8')
    assert 'Coins that remember' in html and 'toy heads' in html and 'toy.C1' in html


@pytest.mark.parametrize('was, now, said', [
    ('bent.heads - fair.heads', 'bent.heds - fair.heads', "the runs have no metric 'heds': did you mean 'heads'"),
    ('margin: .1', 'margin: .05', 'rule changed'),
    ('bent: coin-bent', 'bent: coin-bnt', "no run is called 'coin-bnt': did you mean 'coin-bent'?")])
def test_a_rule_that_does_not_fit_the_runs_says_why(toy, was, now, said):
    "In the list and in the story, with a remedy that helps"
    file, store = toy/'papers'/'toy'/'published.yaml', ('--store', toy/'store')
    xltnb('run', 'toy', '--workers', 2, *store)
    try:
        file.write_text(PUBLISHED.replace(was, now), encoding='utf-8')
        listed, told = (' '.join(xltnb('claims', target, '--preset', 'smoke', *store).split()) for target in ('toy', 'toy.C1'))
        assert said in listed and said in told and all('run them again in another --store' in x or 'coin-bnt' in x for x in (listed, told))
        assert xltnb('claims', 'toy', '--preset', 'smoke', '--check', *store, code=3)
    finally: file.write_text(PUBLISHED, encoding='utf-8')


@pytest.mark.parametrize('name, part, text, said', [
    ('lacks', 'experiments', 'import nix\n', "experiments.py:1: ModuleNotFoundError: No module named 'nix'"),
    ('breaks', 'experiments', 'def f(:\n', 'experiments.py:1: SyntaxError'),
    ('bare', 'training', 'def run_coin(cfg, seed, ctx): return .5\n', 'bare.coin returned float: return a Result')])
def test_a_mistake_in_a_users_file_is_a_line(tmp_path, monkeypatch, name, part, text, said):
    "Each in a paper of its own, since Python keeps what it has imported"
    files = dict(experiments=EXPERIMENTS.replace('toy', name), training=TRAINING) | {part: text}
    write_paper(tmp_path, name, PUBLISHED.replace('toy', name), **files)
    monkeypatch.setenv('XLTNB_PAPERS', str(tmp_path))
    out = xltnb('run', name, '--engine', 'inline', '--store', tmp_path/'store', code=1 if part=='training' else 2)
    assert said in ' '.join(out.split()) and (part=='training' or 'Traceback' not in out)


def test_speed(toy):
    assert json.loads(xltnb('speed', 'toy-throws', '--json'))['ratio']==2


def test_its_command(toy):
    from xltnb.cli import COMMANDS as ours
    assert 'Flip a coin' in xltnb('--help') and 'flip' not in ours  # the overview imports nothing
    assert xltnb('flip', 'bent', '--times', 3)=='bent fell 3 times\n'
    assert '--times TIMES' in (said := xltnb('flip', '--help')) and 'how often' in said
    assert "did you mean 'flip'" in xltnb('flp', code=2)
    ours.pop('flip')


@pytest.mark.parametrize('old, new, says', [("flip:", "run:", 'toy offers a command called run, which is one of ours'),
    ("'commands:flip'", "'commands:flop'", 'toy offers flip, but commands:flop is not there'), ("'commands:flip'", 'flip', "write 'module:function'")])
def test_a_wrong_offer_is_told(toy, monkeypatch, old, new, says):
    from xltnb.cli import COMMANDS as ours
    ours.pop('flip', None)
    file = toy/'papers'/'toy'/'published.yaml'
    text = file.read_text(encoding='utf-8')
    try:
        file.write_text(text.replace(old, new), encoding='utf-8')
        assert says in xltnb('flip' if 'flip:' in file.read_text(encoding='utf-8') else 'frun', code=2)
    finally: file.write_text(text, encoding='utf-8')


def test_site(toy):
    folder = toy/'staged'
    stage(ROOT, folder, [ROOT/'nbs'/'index.ipynb', toy/'papers'/'toy'/'toy_walk.ipynb'])
    assert 'Coins, the walk' in (folder/'nbs'/'papers'/'toy'/'toy_walk.ipynb').read_text(encoding='utf-8')
    assert 'papers/toy/toy_walk' in (folder/'_quarto.yml').read_text(encoding='utf-8')


def test_the_site_finds_it(toy):
    from xltnb.dev.sitemap import find_pages
    assert toy/'papers'/'toy'/'toy_walk.ipynb' in find_pages(ROOT/'nbs')


@pytest.mark.parametrize('command', ['plan', 'run', 'claims', 'report', 'reproduce'])
def test_a_planned_paper_says_so(toy, command):
    args = ['--out', toy/'planned.html'] if command in ('report', 'reproduce') else []
    (toy/'planned.html').write_text('kept', encoding='utf-8')
    said = xltnb(command, 'someday', *args, '--store', toy/'store', code=2)
    assert 'someday is planned' in said and 'experiments.py' not in said and 'xltnb.papers' not in said
    assert (toy/'planned.html').read_text(encoding='utf-8')=='kept'
    assert 'planned' in xltnb('list', 'someday')
