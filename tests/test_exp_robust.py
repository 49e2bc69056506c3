"Robust training as experiments: words to methods, the choice of a radius, and controls that are what they claim to be"
import ast
import copy
import math
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import LIB
from datasets import Dataset, DatasetDict

from xltnb.papers.robust import training as exp
import xltnb.papers.robust.experiments as rows
from xltnb.core import XltError, from_dict, to_dict
from xltnb.papers.robust.augmentation import RSDA
from xltnb.papers.robust.experiments import RobustCfg, robust_jobs
from xltnb.papers.robust.training import run_robust
from xltnb.models.encoders import first_layers, load_encoder
from xltnb.runs.experiments import Ctx, Paused, call_job, tidy
from xltnb.runs.plan import make_plan, plan_line
from xltnb.runs.run import run_plan
from xltnb.tasks.synonyms import load_synonyms
from xltnb.studies.by_name import encoder_of
from xltnb.studies.recipes import Call, make_methods, read_call
from xltnb.training.scores import Transfer
from xltnb.training.trainer import Finetuner
from xltnb.training.views import symmetric_kl


@pytest.fixture(scope='module')
def few_rows():
    "Rows of four languages, 24 a split, and an encoder with their subwords alone: trainings cost little of loading and drawing"
    task = exp.task_of('cldr_cat', ('en', 'de', 'zh', 'hi'), 48, 0)
    cut = lambda d: DatasetDict({split: rows.select(range(min(len(rows), 48 if split == 'train' else 24))) for split, rows in d.items()})
    task = replace(task, data={l: cut(d) for l, d in task.data.items()})
    net, tok = load_encoder('e5-small', task)
    net.config.drawn_vocab = None
    return task, first_layers(net, 6), tok


@pytest.fixture
def few(few_rows, monkeypatch):
    "Runs read these rows with this encoder"
    task, net, tok = few_rows

    def of(name, langs=(), train=0, seed=0, limit=0):
        assert name == task.name and train
        return replace(task, data={l: DatasetDict(task.data[l]) for l in langs or task.languages}).take(train, seed=seed)
    monkeypatch.setattr(exp, 'task_of', of)
    monkeypatch.setattr(exp, 'rows_of', lambda cfg, seed: of(cfg.task, cfg.langs, cfg.train, seed))
    monkeypatch.setattr(exp, 'encoder_of', lambda name, **kw: (first_layers(copy.deepcopy(net), int(name.split(':')[1])), tok))
    return of


def updates(cfg, copies):
    "Updates of a run: what the trainer will do"
    words = ' '.join(cfg.methods)
    n = cfg.train*((copies if 'copies=' in words else 1)+('originals=True' in words))
    return math.ceil(cfg.fine.epochs*math.ceil(n/cfg.fine.batch))


@pytest.mark.parametrize('study', rows.studies('laptop'))
def test_plain_training_is_the_matched_control(study):
    s = rows.studies('laptop')[study]
    counts = {row: updates(rows.row_cfg(s.cfg, row, s.copies, s.passes), s.copies) for row in (*s.rows, 'originals') if row not in ('once', 'rsrp', 'adv')}
    assert len(set(counts.values())) == 1, counts


@pytest.mark.parametrize('preset', ['smoke', 'laptop', 'gpu', 'paper'])
def test_every_row_of_every_preset_can_be_made(preset):
    table = load_synonyms()
    for job in rows.robust_jobs(preset, 1):
        if job.experiment != 'robust.finetune': continue
        cfg = from_dict(rows.RobustCfg, job.config)
        assert to_dict(cfg) == job.config
        words = [read_call(w).filled(RHO=.1) for w in cfg.methods]
        assert len(make_methods(words, exp.METHODS, table=table)) == len(cfg.methods)
        assert bool(cfg.grid) == any('RHO' in w for w in cfg.methods)


@pytest.mark.parametrize('row', ['online', 'consistency', 'ear', 'both', 'free', 'rsrp_last', 'adv_last', 'average'])
def test_rows_that_wait_for_a_gpu_take_a_step(row, tmp_path, few):
    cfg = rows.RobustCfg('cldr_cat', 8, 4, ('en', 'de'), 'e5-small:6', fine=rows.FineCfg(steps=2, batch=4))
    cfg = rows.row_cfg(cfg, row, 2)
    res = exp.run_robust(exp.replace(cfg, grid=cfg.grid[:1]), 0, Ctx(cache=tmp_path))
    assert res.provenance['updates'] == 2 and 0 <= res.metrics['targets'] <= 1


def test_the_paper_looks_words_up_as_released():
    words = {j.arm: j.config['methods'] for j in rows.robust_jobs('paper', 1)}
    assert words['pawsx-released'] == words['pawsx-english'] == ['RSDA(copies=10)'] and words['xnli-random_released'] == ['RSDA(copies=3, random=True)']
    assert words['xnli-rsda'] == ['RSDA(copies=3, lower=True, punct=True)']


@pytest.mark.parametrize('preset', ['smoke', 'laptop', 'gpu', 'paper'])
def test_a_job_says_what_it_is(preset):
    "Labels, so that nobody parses an arm's name; a text that a record holds is read back as the value it was written from"
    for job in rows.robust_jobs(preset, 1):
        if job.experiment == 'robust.around': assert 'row' not in job.labels; continue
        frozen = job.experiment == 'robust.frozen'
        assert job.arm == f"{job.labels['task']}{'_frozen'*frozen}-{job.labels['row']}" and (job.labels.get('scale') == 'frozen') == frozen
        assert all(str(read_call(w)) == w for w in job.config['methods'])
        methods = rows.FROZEN_ROWS[job.labels['row']] if frozen else rows.ROWS[job.labels['row']].methods
        assert [c.name for c in map(read_call, job.config['methods'])] == [c.name for c in methods]


@pytest.mark.parametrize('text', ['ADV(rho=RHO)', 'RSRP(rho=RHO, site="last")', 'RSDA(copies=10)', 'EAR(views=4, lower=True, punct=True, push=0)', 'ADV(rho=0.03)'])
def test_a_text_is_its_value(text): assert isinstance(read_call(text), Call) and str(read_call(text)) == text


def test_a_value_that_is_missing_is_named():
    with pytest.raises(XltError, match='RHO stands for a value'): make_methods(['ADV(rho=RHO)'], exp.METHODS)


def test_sources_of_synonyms_are_named():
    with pytest.raises(XltError, match="did you mean 'english'"): exp.table_of('englsh', 'cldr_cat')


def test_what_lies_around_texts():
    res = exp.run_around(rows.AroundCfg(3, ('en', 'de'), (.3,), (.01, .3)), 0, Ctx())
    again = exp.run_around(rows.AroundCfg(3, ('en', 'de'), (.3,), (.01, .3)), 0, Ctx())
    a = res.curves['around']
    assert res.metrics == again.metrics and a == again.curves['around']
    assert set(a['kind']) == {'noise', 'attack', 'synonyms', 'translation'} and all(0 <= x <= 2 for x in a['moved']) and all(0 <= x <= 1 for x in a['kept'])


@pytest.mark.parametrize('word', ['ADW', 'ADV(0.1)', 'ADV(rho=[x for x in ()])', '__import__("os").system("true")', 'ADV(rho=0.1) + 1',
                                  'ADV(rho=1e)', 'Adv(rho=0.1)', 'ADV(radius=0.1)', '', 'ADV(**{"rho": 1})', 'lambda: 1'])
def test_nothing_but_methods_is_read(word):
    with pytest.raises(XltError): make_methods([word], exp.METHODS, table=load_synonyms())


def test_a_choice_is_the_largest_within_one_standard_error():
    rng = np.random.default_rng(0)
    for _ in range(200):
        hits = {r: (rng.random(142) < p).astype(float) for r, p in zip((.1, .3, 1.), rng.uniform(.6, .95, 3))}
        pick, best = exp.choose(hits), max(hits, key=lambda r: hits[r].mean())
        behind = lambda r: (hits[best]-hits[r]).mean() <= (hits[best]-hits[r]).std(ddof=1)/142**.5
        assert pick >= best and behind(pick)
        assert all(not behind(r) for r in hits if r > pick)


def test_a_table_is_read_for_methods_that_take_it(monkeypatch, tmp_path):
    monkeypatch.delenv('XLTNB_SYNONYMS', raising=False)
    monkeypatch.setattr(exp, 'encoder_of', lambda *args, **kw: (None, None))
    monkeypatch.setattr(exp, 'fine_tuned', lambda task, fine, methods, *args: methods)
    made = lambda *words: exp.trained(rows.RobustCfg(methods=words, synonyms='counterfitted'), None, 0, Ctx(cache=tmp_path), tmp_path, .1)
    assert made() == [] and made('ADV(rho=RHO)')[0].rho == .1
    with pytest.raises(XltError, match='XLTNB_SYNONYMS'): made('RSDA(copies=2)')


@pytest.mark.filterwarnings('error')
def test_one_row_chooses_the_best_and_of_ties_the_larger():
    assert exp.choose({.1: np.ones(1), .3: np.zeros(1)}) == .1 and exp.choose({.1: np.ones(1), .3: np.ones(1)}) == .3


@pytest.mark.parametrize('name', ['e5-small:two', 'C:\\models\\x'])
def test_only_a_number_behind_a_colon_is_one_of_layers(name):
    with pytest.raises(XltError) as e: encoder_of(name)
    assert repr(name) in str(e.value)


def test_a_search_keeps_the_model_it_chose(tmp_path, few):
    job = next(j for j in rows.robust_jobs('smoke') if j.arm == 'cldr-rsrp')
    cfg = from_dict(rows.RobustCfg, job.config | dict(grid=[.1, .3]))
    ctx = Ctx(cache=tmp_path)
    res = exp.run_robust(cfg, 0, ctx)
    alone = exp.run_robust(from_dict(rows.RobustCfg, to_dict(cfg) | dict(grid=[res.metrics['radius']])), 0, ctx)
    same = ('source', 'targets', 'dev', 'slope')
    assert {k: res.metrics[k] for k in same} == {k: alone.metrics[k] for k in same}
    assert res.items == alone.items and res.curves['grid']['radius'] == [.1, .3]


def test_half_of_one_row_is_one():
    "0 rows would be all of them"
    asked, z = [], Transfer('t', 'en', 'accuracy', dict(en=dict(accuracy=1.)), dict(en=[1.]))
    task = SimpleNamespace(source='en', targets=('de',), data=dict(de=dict(validation=[])))
    ft = SimpleNamespace(task=task, zero_shot=lambda split, langs, limit=0: asked.append(limit) or z)
    for n in (1, 2, 5, 0): exp._dev_scores(ft, SimpleNamespace(limit=n))
    assert asked == [0, 1, 0, 1, 0, 3, 0, 0]


def test_a_search_does_without_dev_rows_in_other_languages(tmp_path, monkeypatch, few):
    job = next(j for j in rows.robust_jobs('smoke') if j.arm == 'cldr-rsrp')
    task = few('cldr_cat', ('en', 'de'), 24)
    for l in task.targets: del task.data[l]['validation']
    monkeypatch.setattr(exp, 'rows_of', lambda *args: task)
    res = exp.run_robust(from_dict(rows.RobustCfg, job.config | dict(langs=['en', 'de'], grid=[.1, .3])), 0, Ctx(cache=tmp_path))
    assert res.metrics['radius'] in (.1, .3) and not [m for m in res.metrics if 'oracle' in m]
    assert set(res.curves['grid']) == {'radius', 'source'}


def test_smoke_is_reproducible(tmp_path):
    job = next(j for j in rows.robust_jobs('smoke') if j.arm == 'cldr-rsda')
    a, b = (call_job(job, Ctx(cache=tmp_path/str(i))) for i in range(2))
    assert a.metrics == b.metrics and a.provenance['updates'] == 3


def test_published_tasks_ask_for_their_files(monkeypatch):
    monkeypatch.delenv('XLTNB_PAWSX', raising=False)
    job = next(j for j in rows.robust_jobs('paper') if j.arm == 'pawsx-rsda')
    with pytest.raises(XltError, match='XLTNB_PAWSX'): call_job(job, Ctx())
    with pytest.raises(XltError, match='XLTNB_SYNONYMS'): exp.table_of('counterfitted', 'pawsx')


def test_the_paper_preset_runs_on_published_files(monkeypatch, tmp_path):
    for lang in rows.PAWSX:
        folder = tmp_path/'x-final'/lang
        folder.mkdir(parents=True)
        lines = lambda n: 'id\tsentence1\tsentence2\tlabel\n' + ''.join(f'{i}\tthe big house {i}\ta large home {i%7}\t{i%2}\n' for i in range(1, n+1))
        for split in ('dev_2k', 'test_2k'): (folder/f'{split}.tsv').write_text(lines(6), encoding='utf-8')
        (folder/('train.tsv' if lang == 'en' else 'translated_train.tsv')).write_text(lines(24), encoding='utf-8')
    monkeypatch.setenv('XLTNB_PAWSX', str(tmp_path))
    monkeypatch.setattr(exp, 'table_of', lambda name, task: load_synonyms('wordnet'))
    job = next(j for j in rows.robust_jobs('paper') if j.arm == 'pawsx-rsda')
    fine = job.config['fine'] | dict(steps=2, batch=4, accumulation=2, looks=2)
    res = exp.run_robust(from_dict(rows.RobustCfg, job.config | dict(encoder='e5-small:2', fine=fine)), 0, Ctx(cache=tmp_path/'cache'))
    assert np.shape(res.curves['matrix']['acc']) == (7, 7)
    assert {'source', 'targets', 'avg', 'cross', 'all', 'slope', *rows.PAWSX} <= set(res.metrics)


@pytest.mark.parametrize('arm', ['cldr-plain', 'cldr-rsrp'])
def test_a_run_pauses_at_its_deadline_and_goes_on(tmp_path, few, arm):
    job = next(j for j in robust_jobs('smoke') if j.arm == arm)
    said, cfg = [], from_dict(RobustCfg, job.config)
    with pytest.raises(Paused): run_robust(cfg, 0, Ctx(tmp_path/'a', report=lambda share, note: said.append(share), deadline=0.))
    assert len(said)==1 and 0<said[0]<.85
    assert run_robust(cfg, 0, Ctx(tmp_path/'a')).metrics==run_robust(cfg, 0, Ctx(tmp_path/'b')).metrics


def test_a_run_that_fails_while_it_scores_is_not_trained_again(tmp_path, few, monkeypatch):
    job = next(j for j in robust_jobs('smoke') if j.arm == 'cldr-plain')
    cfg, later, trained = from_dict(RobustCfg, job.config), time.time()+3600, []
    score, train = Finetuner.zero_shot, Finetuner.train
    def broken(*args, **kwargs): raise RuntimeError('no room')
    monkeypatch.setattr(Finetuner, 'train', lambda self, *args, **kwargs: trained.append(1) or train(self, *args, **kwargs))
    monkeypatch.setattr(Finetuner, 'zero_shot', broken)
    with pytest.raises(RuntimeError, match='no room'): run_robust(cfg, 0, Ctx(tmp_path/'a', deadline=later))
    monkeypatch.setattr(Finetuner, 'zero_shot', score)
    ctx = Ctx(tmp_path/'a', deadline=later)
    found = run_robust(cfg, 0, ctx).metrics
    assert len(trained) == 1 and found == run_robust(cfg, 0, Ctx(tmp_path/'b')).metrics
    tidy(ctx.lent)
    assert not [p for p in (tmp_path/'a'/'robust.finetune').iterdir() if not p.name.startswith('.')]


def test_runs_without_their_data_wait_and_say_for_what(tmp_path, monkeypatch):
    for name in ('PAWSX', 'XNLI', 'XQUAD'): monkeypatch.delenv(f'XLTNB_{name}', raising=False)
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('XLTNB_FRESH', '1')
    plan = lambda target, preset='paper': make_plan(target, preset, store=tmp_path)
    report = run_plan(plan('baselines.B8', 'laptop'), show=False)
    assert report.exit_code == 3 and report.count() == dict(waits=5) and '5 wait for data (' in repr(report)
    assert not plan('robust').todo() and 'wait for data: set XLTNB_PAWSX and XLTNB_XNLI' in plan_line(plan('robust'))
    assert {s for a, s in plan('baselines', 'laptop').df[['arm', 'state']].values if a == 'xquad'} == {'waits'}
    monkeypatch.setenv('XLTNB_XNLI', str(tmp_path))
    there = plan('robust')
    assert {j.arm.split('-')[0] for j in there.todo()} == {'xnli', 'xnli_xlmr'} and {j.waits for j in there.jobs} == {'', 'XLTNB_PAWSX'}
    monkeypatch.setenv('HF_HUB_OFFLINE', '0')
    assert plan('robust').todo() == plan('robust').jobs, 'the hub has both'


@pytest.mark.parametrize('paper', ['robust', 'baselines'])
def test_rows_and_jobs_ask_for_no_model(paper):
    "Planning reads this page alone: it imports settings and jobs, nothing that trains or loads data"
    tree = ast.parse((LIB/'papers'/paper/'experiments.py').read_text(encoding='utf-8'))
    names = {'.'.join(x for x in (n.module, ) if x) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names <= {'dataclasses', 'core', 'invented.words', 'records.presets', 'runs.experiments', 'studies.recipes', 'tasks.catalog', 'training.settings'}


def test_rsda_says_how_much_it_changed():
    data, m = Dataset.from_dict(dict(text=['big cat']*400, label=[0]*400)), RSDA(dict(big=('large',)), copies=2)
    m.prepare(data, SimpleNamespace(seed=0))
    assert abs(m.facts()['swapped']-.25) < .04
    assert RSDA(dict(big=('large',))).facts() == {}


def test_divergence_is_that_of_the_definition():
    a, b = torch.randn(5, 4), torch.randn(5, 4)
    p, q = a.softmax(-1), b.softmax(-1)
    kl = lambda p, q: (p*(p/q).log()).sum(-1).mean()
    assert float(symmetric_kl(a, b)) == pytest.approx(float(kl(p, q)+kl(q, p))/2, rel=1e-5)
