"Verdicts and intervals of the shipped records are what they were before the move into rooms, bit for bit"
import json
from pathlib import Path

import pytest

from xltnb.core import plain
from xltnb.records.judge import claims
from xltnb.records.store import Store
from xltnb.runs.experiments import jobs_for

BEFORE = json.loads((Path(__file__).parent/'data'/'verdicts_laptop.json').read_text(encoding='utf-8'))
CHECK = 'effect', 'verdict', 'value', 'low', 'high', 'n', 'seeds', 'keys', 'note'


@pytest.mark.parametrize('paper', BEFORE)
def test_verdicts_are_what_they_were(paper, tmp_path):
    now = {r['claim']: r for r in plain(claims(paper, 'laptop', Store(tmp_path), jobs_for(paper, 'laptop')).rows)}
    assert list(now) == [old['claim'] for old in BEFORE[paper]]
    for old in BEFORE[paper]:
        row = now[old['claim']]
        assert {k: row[k] for k in old if k != 'checks'} == {k: v for k, v in old.items() if k != 'checks'}, old['claim']
        assert [{k: c[k] for k in CHECK} for c in row['checks']] == old['checks'], old['claim']


def test_a_moved_interval_is_seen():
    row = dict(BEFORE['mothello'][0])
    assert row | dict(low=row['low']*(1+1e-15)) != row
