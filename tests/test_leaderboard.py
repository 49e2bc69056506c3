"The leaderboard: one protocol for all rows, comparisons named before the runs, methods from a user's file"
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from xltnb.cli import main
from xltnb.core import XltError, from_dict
from xltnb.leaderboard import board
from xltnb.leaderboard.board import BOARD_METHODS, board_methods, run_board
from xltnb.leaderboard.own import file_print, load_own, method_words, offered, own_call
from xltnb.leaderboard.rows import BOARD_CONTROLS, BOARD_PLANNED, BOARD_ROWS, TRAINED_ROWS, BoardCfg, board_jobs, board_studies
from xltnb.leaderboard.score import read_methods
from xltnb.leaderboard.table import board_table, comparisons
from xltnb.records.record import Record
from xltnb.runs.experiments import Ctx, call_job
from xltnb.studies.recipes import make_methods
from xltnb.stats import holm
from xltnb.training.methods import Method

MINE = '''from xltnb.training.methods import Method
class Mine(Method):
    "Does nothing"
    def __init__(self, size=1.): self.size = size
'''


@pytest.fixture
def mine(tmp_path):
    path = tmp_path/'mine.py'
    path.write_text(MINE, encoding='utf-8')
    return path


@pytest.mark.parametrize('preset', ['smoke', 'laptop', 'gpu'])
def test_rows_differ_in_their_methods_alone(preset):
    "Same rows, encoder, head and updates; the weight of the originals follows from the kind of method, and one row averages checkpoints"
    fine = lambda j: {k: v for k, v in j.config['fine'].items() if j.labels['row'] != 'salt_average' or k not in ('looks', 'select')}
    for scale, task in {(j.labels['scale'], j.labels['task']) for j in board_jobs(preset)}:
        jobs = [j for j in board_jobs(preset) if (j.labels['scale'], j.labels['task']) == (scale, task)]
        rest = [{k: v for k, v in j.config.items() if k not in ('methods', 'frozen', 'fine')} | fine(j) for j in jobs]
        assert all(r.items() <= rest[0].items() for r in rest)
        heads = {json.dumps({k: v for k, v in j.config['frozen'].items() if k != 'originals'}) for j in jobs}
        assert len(heads) == 1
        seeds = {j.labels['row']: 0 for j in jobs}
        for j in jobs: seeds[j.labels['row']] += 1
        assert len(set(seeds.values())) == 1, seeds
        if scale == 'finetune': assert jobs[0].config['fine']['steps'] > 0  # updates, not passes: a copy costs no row more training


def test_every_row_can_be_made():
    for row, calls in (BOARD_ROWS | TRAINED_ROWS).items():
        made = make_methods(calls, BOARD_METHODS, table={'big': ('large',)}, model='e5-small-mlm', also=['one sentence'])
        assert [type(m).__name__ for m in made] == [BOARD_METHODS[c.name].__name__ for c in calls], row


@pytest.mark.parametrize('more, says', [
    (dict(rows=['consistency']), 'smoke has no row consistency: it has'), (dict(encoder='./none'), 'no folder'), (dict(seeds=2.5), 'integer')])
def test_what_no_study_has_is_refused(more, says):
    with pytest.raises(XltError, match=says): board_jobs('smoke', **more)


def test_one_name_for_two_methods_is_refused(mine):
    with pytest.raises(XltError, match='two methods are called'): board_jobs('smoke', methods=[f'{mine}:Mine(size=1.)', f'{mine}:Mine(size=1.0)'])


def test_a_file_that_changed_after_planning_is_refused(mine, tmp_path):
    job = [j for j in board_jobs('smoke', methods=[f'{mine}:Mine']) if j.labels['row'] == 'Mine'][0]
    mine.write_text(MINE+'# another\n', encoding='utf-8')
    with pytest.raises(XltError, match="the method of this run is not what it was planned with"): call_job(job, Ctx(tmp_path, inputs=job.inputs))


def test_a_file_with_dataclasses_is_imported_and_a_broken_one_is_named(tmp_path):
    file = tmp_path/'own.py'
    file.write_text('from __future__ import annotations\nfrom dataclasses import dataclass\nfrom xltnb.training.methods import Method\n@dataclass\nclass M(Method):\n    size: float = 1.\n', encoding='utf-8')
    assert load_own(file, 'M')(2.).size == 2.
    file.write_text('def :', encoding='utf-8')
    with pytest.raises(XltError, match=r'own.py cannot be imported \(SyntaxError'): load_own(file, 'M')


def test_originals_weigh_half_in_every_row():
    for j in board_jobs('laptop'):
        words, beside = ' '.join(j.config['methods']), j.config['frozen']['originals']
        acts = any(k in words for k in ('ADV', 'RSRP', 'EmbedMixup'))
        assert beside == float(acts and j.labels['scale'] == 'frozen')
        if words and not acts: assert any(k in words for k in ('originals=True', 'originals=1.0', 'Consistency'))  # its loss holds both by halves


def test_planned_comparisons_are_six_and_are_run():
    runs = {(j.labels['task'], j.labels['row']) for j in board_jobs('laptop') if j.labels['scale'] == 'frozen'}
    assert len(BOARD_PLANNED) == 6 and {(t, r) for t, *ab in BOARD_PLANNED for r in ab} <= runs and set(BOARD_CONTROLS) <= set(BOARD_ROWS)


def test_a_method_of_ones_own(mine):
    "Its file's content is part of the key; it runs beside plain training; its arguments are read"
    one, = {j.key for j in board_jobs('smoke', methods=[f'{mine}:Mine(size=2.0)'], rows=['plain']) if j.labels['row'] == 'Mine' and j.labels['scale'] == 'frozen'}
    job = next(j for j in board_jobs('smoke', methods=[f'{mine}:Mine(size=2.0)']) if j.labels['row'] == 'Mine')
    made, = board_methods(from_dict(BoardCfg, job.config), [])
    assert made.size == 2. and job.key == one and job.config['frozen']['originals'] == 0.  # whether it acts in training is known when it runs
    mine.write_text(MINE+'# changed\n', encoding='utf-8')
    two, = {j.key for j in board_jobs('smoke', methods=[f'{mine}:Mine(size=2.0)'], rows=['plain']) if j.labels['row'] == 'Mine' and j.labels['scale'] == 'frozen'}
    assert one != two


@pytest.mark.parametrize('acts', [False, True])
def test_a_users_method_gets_originals_if_it_acts_in_training(acts, tmp_path, monkeypatch):
    "As the methods of the table do: one class scores the same built in and in a file"
    (tmp_path/'m.py').write_text(MINE+'    def loss(self, step, rest): return rest(step)\n'*acts, encoding='utf-8')
    job = next(j for j in board_jobs('smoke', methods=[f'{tmp_path}/m.py:Mine']) if j.labels['row'] == 'Mine')
    cfg, seen = from_dict(BoardCfg, job.config), []
    monkeypatch.setattr(board, 'reader_of', lambda *args: SimpleNamespace(arithmetic='float32'))
    monkeypatch.setattr(board, 'frozen_study', lambda task, methods, seed, how, *args, **kw: (seen.append(how.originals), {}))
    board._frozen(cfg, SimpleNamespace(languages=()), board_methods(cfg, []), 0, Ctx(tmp_path))
    assert seen == [float(acts)]


def test_bad_input_is_answered(mine):
    for text, said in (('mine:Mine', 'FILE.py:CLASS'), ('nowhere.py:Mine', 'not there'), (f'{mine}:Mine(2.0)', 'arguments need their names')):
        with pytest.raises(XltError, match=said): own_call(text)
    with pytest.raises(XltError, match='it has Mine'): load_own(mine, 'Yours')
    with pytest.raises(XltError, match='did you mean'): board_jobs('smoke', rows=['slat'])
    with pytest.raises(XltError, match='use smoke, laptop or gpu'): board_studies('paper')
    mine.write_text(MINE.replace('Mine', 'salt'), encoding='utf-8')
    with pytest.raises(XltError, match='another name'): board_jobs('smoke', methods=[f'{mine}:salt'])


def test_an_encoder_without_a_head_gets_no_rows_of_salt():
    rows = {j.labels['row'] for j in board_jobs('laptop', encoder='mine', mlm=False)}
    assert rows == {'plain', 'rsrp', 'adv', 'rsda', 'words', 'consistency'}
    assert all(j.config['encoder'] == j.config['mlm'] == 'mine' for j in board_jobs('laptop', encoder='mine'))


def run(task, row, seed, targets):
    m = dict(targets=targets, source=.7, seconds=1.)
    return Record('leaderboard.run', f'{task}{row}{seed}', {}, seed, m, provenance=dict(peak_mem_mb=500.), labels=dict(task=task, row=row, scale='frozen'))


def test_planted_gains_are_found_and_corrected():
    rng = np.random.default_rng(0)
    gain = dict(plain=0., salt=.05, salt_adv=.05, switch=.01, subwords=.01)
    runs = [run(t, r, s, .5+g+rng.normal(0, .004)) for t in ('cldr_cat', 'ha_intent') for r, g in gain.items() for s in range(12)]
    t = comparisons(runs)
    assert t[t.method == 'salt'].p_holm.max() < .001 < .05 < t[t.method != 'salt'].p_holm.min()
    assert t.p_holm[t.n > 0].tolist() == pytest.approx([p for p, n in zip(holm(t.p.fillna(1.).tolist()), t.n) if n])
    assert comparisons([r for r in runs if r.labels['row'] in ('plain', 'salt')]).p_holm.isna().tolist() == [False, True, True]*2
    table = board_table(runs, 'ha_intent')
    assert set(table.method[:2]) == {'salt', 'salt_adv'} and table.gain[0] == pytest.approx(5., abs=.5) and set(table[table.control].method) == {'plain', 'subwords'}


def test_an_encoder_trained_again_in_its_folder_is_another_encoder(tmp_path, monkeypatch):
    "In one process: its scores are its own, not those of the one before"
    import shutil
    import torch
    from xltnb.models.encoders import first_layers, load_encoder
    from xltnb.records.store import Store
    from xltnb.runs.plan import Plan
    from xltnb.runs.run import run_plan
    monkeypatch.chdir(tmp_path)
    net, tok = load_encoder('e5-small', 'benchmark')
    first_layers(net, 1)
    def scores(seed, fresh=False):
        shutil.rmtree('mine', ignore_errors=True)
        torch.manual_seed(seed)
        with torch.no_grad(): net.embeddings.LayerNorm.weight.copy_(torch.rand(384)*seed)
        net.save_pretrained('mine'), tok.save_pretrained('mine')
        if fresh: (by_name._reader.cache_clear(), by_name.proposer_of.cache_clear())
        jobs = [j for j in board_jobs('smoke', None, (), 'mine', False, ['plain']) if j.labels['scale'] == 'frozen']
        plan = Plan('leaderboard', 'smoke', jobs, Store(f'st{fresh}', committed=False))
        run_plan(plan, engine='inline', show=False)
        return {r.key: r.metrics['targets'] for rs in plan.records().values() for r in rs}
    from xltnb.studies import by_name
    one, two = scores(1), scores(9)
    assert one.keys().isdisjoint(two) and two == scores(9, fresh=True)


def test_a_method_that_ends_the_program_is_told(tmp_path):
    (tmp_path/'a.py').write_text('import sys\nsys.exit(0)\n', encoding='utf-8')
    with pytest.raises(XltError, match=r'a.py cannot be imported \(SystemExit: 0\)'): load_own(tmp_path/'a.py', 'M')
    (tmp_path/'b.py').write_text('from xltnb.training.methods import Method\nclass M(Method):\n    def prepare(self, data, ctx): raise SystemExit(0)\n', encoding='utf-8')
    job = next(j for j in board_jobs('smoke', methods=[f'{tmp_path}/b.py:M']) if j.labels['row'] == 'M')
    with pytest.raises(XltError, match='ends the program'): run_board(from_dict(BoardCfg, job.config), 0, Ctx())


def test_a_helper_of_a_method_is_a_part_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', [*sys.path])
    (tmp_path/'own_helper.py').write_text('import own_deep\nSIZE = own_deep.SIZE\n', encoding='utf-8'), (tmp_path/'own_deep.py').write_text('SIZE = 1\n', encoding='utf-8')
    (tmp_path/'m.py').write_text('import numpy\nfrom own_helper import SIZE\nfrom xltnb.training.methods import Method\nclass M(Method): size = SIZE\n', encoding='utf-8')
    def key(): return next(j.key for j in board_jobs('smoke', methods=[f'{tmp_path}/m.py:M']) if j.labels['row'] == 'M')
    before = key()
    assert load_own(tmp_path/'m.py', 'M').size == 1 and key() == before
    (tmp_path/'own_deep.py').write_text('SIZE = 22\n', encoding='utf-8')
    assert key() != before and load_own(tmp_path/'m.py', 'M').size == 22


def test_a_folder_of_helpers_needs_no_init(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', [*sys.path])
    (tmp_path/'own_folder').mkdir()
    (tmp_path/'own_folder'/'util.py').write_text('SIZE = 1\n', encoding='utf-8')
    (tmp_path/'m.py').write_text('from own_folder.util import SIZE\nfrom xltnb.training.methods import Method\nclass M(Method): size = SIZE\n', encoding='utf-8')
    before = file_print(tmp_path/'m.py')
    assert load_own(tmp_path/'m.py', 'M').size == 1
    (tmp_path/'own_folder'/'util.py').write_text('SIZE = 22\n', encoding='utf-8')
    assert file_print(tmp_path/'m.py') != before and load_own(tmp_path/'m.py', 'M').size == 22


@pytest.mark.parametrize('command', ['leaderboard', 'score e5-small'])
def test_a_store_without_runs_says_so(command, tmp_path, capsys):
    with pytest.raises(SystemExit) as end: main([*command.split(), '--preset', 'smoke', '--show', '--store', str(tmp_path)])
    said = 'no runs yet at smoke: the same command without --show makes them, --preset laptop has some'
    assert end.value.code == 0 and capsys.readouterr().out.startswith(said)


def test_rows_of_a_user_are_named_by_their_calls(tmp_path):
    "Methods of the package too; one class with two settings gives two rows"
    (tmp_path/'m.py').write_text('from xltnb.training.methods import Method\nclass Half(Method):\n    def __init__(self, k=1.): self.k = k\n', encoding='utf-8')
    own = f'{tmp_path}/m.py:Half'
    rows = lambda *methods: {j.labels['row']: j.config['methods'] for j in board_jobs('smoke', methods=methods, rows=['plain']) if j.labels['scale'] == 'finetune' and j.labels['row'] != 'plain'}
    assert rows(own) == {'Half': [f'{own}()']} and rows(f'{own}(k=2.)') == {'Half': [f'{own}(k=2.0)']}
    assert rows(own, f'{own}(k=2.)') == {'Half()': [f'{own}()'], 'Half(k=2.0)': [f'{own}(k=2.0)']}
    assert rows('ADV(rho=.1)') == {'ADV(rho=0.1)': ['ADV(rho=0.1)']}
    assert rows(f'ADV(rho=.1) + {own}') == {'ADV(rho=0.1) + Half': ['ADV(rho=0.1)', f'{own}()']}
    with pytest.raises(XltError, match='two methods are called'): board_jobs('smoke', methods=[own, own])


def test_a_wrong_name_of_a_method_ends_the_table_at_once(tmp_path, capsys):
    with pytest.raises(SystemExit) as end: main(['leaderboard', '--method', 'ADVV(rho=.1)', '--store', str(tmp_path)])
    assert end.value.code == 2 and "did you mean 'ADV'" in capsys.readouterr().err


def test_a_chain_is_split_between_its_methods(tmp_path):
    from xltnb.leaderboard.score import read_methods
    (tmp_path/'m.py').write_text('from xltnb.training.methods import Method\nclass M(Method):\n    def __init__(self, rho=(1+2)): self.rho = rho\n', encoding='utf-8')
    for text in (f'{tmp_path}/m.py:M + RSDA(copies=1)', f'{tmp_path}/m.py:M(rho=0.5)+RSDA(copies=1)'):
        assert [w.rpartition(':')[2].partition('(')[0] for w in read_methods(text)[0]] == ['M', 'RSDA']


def test_a_users_encoder_is_known_by_its_files_however_many_layers_are_kept(tmp_path, monkeypatch):
    (tmp_path/'enc').mkdir()
    (tmp_path/'enc'/'config.json').write_text('{}', encoding='utf-8')
    made = lambda encoder: {j.inputs.get('encoder') for j in board_jobs('smoke', encoder=encoder, mlm=False)}
    before, = made(f'{tmp_path}/enc')
    assert before and made(f'{tmp_path}/enc:1') == {before}
    monkeypatch.chdir(tmp_path)
    (tmp_path/'e5-small').mkdir()
    (tmp_path/'e5-small'/'notes.txt').write_text('mine', encoding='utf-8')
    assert made('e5-small') == {None}, 'a folder of that name is not the packaged encoder'
    job = board_jobs('smoke', encoder=f'{tmp_path}/enc', mlm=False)[0]
    (tmp_path/'enc'/'config.json').write_text('{"a": 1}', encoding='utf-8')
    with pytest.raises(XltError, match='the encoder of this run is not what it was planned with'): call_job(job, Ctx(tmp_path, inputs=job.inputs))


def test_who_proposes_is_a_part_of_the_key(tmp_path):
    from xltnb.leaderboard.rows import board_inputs
    (tmp_path/'config.json').write_text('{}', encoding='utf-8')
    cfg = BoardCfg(mlm=str(tmp_path), methods=('SelfSwitch(copies=1)',))
    before = board_inputs(cfg)
    (tmp_path/'config.json').write_text('{"a": 1}', encoding='utf-8')
    assert board_inputs(cfg) != before and 'mlm' not in board_inputs(BoardCfg(methods=cfg.methods))
    jobs = board_jobs('smoke', encoder=f'{tmp_path}:2')
    assert {j.config['mlm'] for j in jobs} == {str(tmp_path)} and 'mlm' not in board_inputs(from_dict(BoardCfg, jobs[0].config))


def test_a_class_named_like_one_of_ours_stands_beside_it(tmp_path):
    (tmp_path/'c++').mkdir()
    path = tmp_path/'c++'/'mine.py'
    path.write_text('from xltnb.training.methods import Method\nclass RSDA(Method): pass\n', encoding='utf-8')
    words = method_words(f'{path}:RSDA() + RSDA(copies=1)+ADV') # a plus in a path parts nothing
    assert words == (f'{path}:RSDA()', 'RSDA(copies=1)', 'ADV')
    calls, classes = offered(words[:2], BOARD_METHODS)
    own, ours = (classes[c.name] for c in calls)
    assert own.__module__.startswith('xltnb_own_') and ours is BOARD_METHODS['RSDA']
    assert read_methods(' + '.join(words[:2]))[0] == words[:2]
