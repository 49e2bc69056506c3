"Pretraining: two processes that want the same model train it once"
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xltnb.othello.settings import LMCfg
from xltnb.papers.mothello.approaches import WorldCfg
from xltnb.papers.mothello.training import pretrain, pretrain_key

WORLD, CFG = WorldCfg(n=4, layers=1, heads=2, width=16), LMCfg(steps=400, batch=32, warmup=2)
ASK = '''
import json, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from test_mothello import CFG, WORLD
from xltnb.papers.mothello.training import pretrain
told = []
run = pretrain(WORLD, CFG, 1, Path(sys.argv[1]), report=lambda done, note: told.append(note))
print(json.dumps([run.done, run.curves['loss'][-1], len(told)]))
'''


def test_of_two_processes_one_trains(tmp_path):
    both = [subprocess.Popen([sys.executable, '-c', ASK, str(tmp_path)], stdout=subprocess.PIPE, encoding='utf-8', cwd=Path(__file__).parent) for _ in range(2)]
    one, two = sorted((json.loads(p.communicate(timeout=120)[0]) for p in both), key=lambda r: r[2])
    assert one[0] and two[0] and one[1] == two[1] and one[2] == 0 < two[2]
    assert [p.name for p in (tmp_path/'models').glob('[!.]*.safetensors')] == [f'{pretrain_key(WORLD, CFG, 1)}.safetensors'] and not list((tmp_path/'checkpoints').iterdir())


def test_time_that_is_up_leaves_no_model(tmp_path):
    assert not pretrain(WORLD, CFG, 1, tmp_path, deadline=0).done and not list((tmp_path/'models').glob('[!.]*.safetensors'))


def test_keys_of_cached_models_stay_and_what_is_measured_can_change_them():
    assert pretrain_key(WORLD, CFG, 1) == pretrain_key(WORLD, CFG, 1, about='') == 'da3b094822f52e38'
    assert pretrain_key(WORLD, CFG, 1, about='x') != pretrain_key(WORLD, CFG, 1)


def test_keys_of_shipped_records_are_those_of_jobs():
    "Fields that came later left no older run behind"
    from xltnb.records.store import Store
    from xltnb.runs.experiments import jobs_for
    store = Store(committed=True)
    shipped = {k for k in store.keys() if (r := store.get(k)).experiment.startswith('mothello.')}
    jobs = {j.key: j for j in jobs_for('mothello', 'laptop')}
    assert len(shipped) >= 46 and not shipped - set(jobs)
    assert {j.arm for k, j in jobs.items() if k in shipped} >= {'align-atomic-0', 'long-atomic-0', 'transfer4-naive'}


@pytest.mark.parametrize('groups, verdict', [(4, 'held'), (20, 'did not hold')])
def test_clusters_are_judged_with_and_without_a_pair_inside(groups, verdict):
    "Four clusters of twenty languages, as printed, or none, as if the paper were wrong: both are settled by three runs"
    from xltnb.papers.mothello.measures import clusters
    from xltnb.records.published import load_paper
    from xltnb.records.record import Record
    from xltnb.verdicts.judge import judge
    def run(seed):
        rng = np.random.default_rng(seed)
        same = np.equal.outer(np.arange(20) % groups, np.arange(20) % groups)
        plain = np.where(same, .965, .58)+rng.uniform(-.02, .02, (20, 20))
        return dict(m=Record('x', str(seed), {}, seed, clusters(plain, np.maximum(plain, .93))))
    check = next(c for c in load_paper('mothello').claims['C5'].at('gpu') if 'inside' in c.effect)
    assert judge(check, [run(s) for s in range(3)]).verdict == verdict
