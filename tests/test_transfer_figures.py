"Baselines from their records: figures of the report, tables of answers, memory, and the encoder beside simple baselines"
from dataclasses import replace

import pandas as pd
import pytest

from xltnb.core import XltError
from xltnb.runs.experiments import load_jobs
from xltnb.runs.plan import Plan, make_plan
from xltnb.figures.look import REPORT_FIGURES
from xltnb.papers.baselines import figures as _ # registers them
from xltnb.records.record import Record
from xltnb.records.store import Store
from xltnb.studies.transfer import answers_df, control_runs, costs_df, languages_fig, with_runs

LANGS = ('en', 'de', 'zh')


def drawn_of(runs):
    "What the baselines register for a report"
    return [f for register in REPORT_FIGURES['baselines'].values() for f in register(runs)]


def made_up(job, level=.8):
    "A record of the right shape for a job of the baselines"
    by_lang = {l: dict(f1=level-.1*i, em=level-.2*i, control_f1=.04, control_em=.01) for i, l in enumerate(LANGS)}
    curves = dict(matrix=dict(langs=list(LANGS), acc=[[level]*3]*3)) if job.arm == 'lo_pair' else {}
    facts = dict(peak_mem_mb=1024.*(1+job.seed), wall_s=120., device='cpu')
    return Record(job.experiment, job.key, job.config, job.seed, {l: v['f1'] for l, v in by_lang.items()}, curves, by_lang, provenance=facts, version=job.version, arm=job.arm, labels=job.labels)


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    "Two seeds of some arms at the laptop preset"
    s = Store(tmp_path_factory.mktemp('runs'), committed=False)
    for j in load_jobs('baselines')('laptop', 2):
        if j.arm in ('cldr_cat', 'cldr_cat-random', 'lo_pair'): s.put(made_up(j, .3 if 'random' in j.arm else .8))
    return s


def test_the_report_draws_each_task_once_with_its_control(store):
    runs = [r for rs in make_plan('baselines', 'laptop', 2, store).records().values() for r in rs]
    drawn = dict(drawn_of(runs))
    assert list(drawn) == ['cldr_cat by language', 'lo_pair by language', 'lo_pair, pairs of languages'], 'a control is no task'
    assert [t.name for t in drawn['cldr_cat by language']().data] == ['fine-tuned on English (2 seeds)', 'random weights', 'expected']
    assert len(drawn['lo_pair, pairs of languages']().data[0].z) == 3
    assert drawn_of([]) == []


def test_answers_stand_beside_random_words(store):
    runs = [made_up(j) for j in load_jobs('baselines')('laptop', 3) if j.arm == 'xquad']
    df = answers_df(runs)
    assert list(df.index) == ['en', 'de', 'zh'] and df.loc['de', 'F1'] == 70 and df.loc['zh', 'exact match of random words'] == 1
    fig = languages_fig(runs, control_runs(runs), control_name='random words')
    assert set(fig.data[1].x) == {.04} and fig.data[1].name == 'random words'
    with pytest.raises(XltError, match='no runs'): answers_df([])
    (drawn, draw), = drawn_of(runs)
    assert drawn == 'xquad by language' and draw().data[1].name == 'random words'


def test_memory_is_the_largest_and_time_the_median(store):
    plan = make_plan('baselines', 'laptop', 2, store, 'cldr_cat*,lo_tag')
    df = costs_df([plan]).set_index('arm')
    assert df.loc['cldr_cat', 'memory_gb'] == 2 and df.loc['cldr_cat', 'minutes'] == 2 and df.loc['lo_tag', 'device'] == 'not run yet'
    assert costs_df([Plan('baselines', 'smoke', [], store)]).empty


@pytest.mark.parametrize('facts', [(dict(peak_mem_mb=1024.), {}), ({}, dict(peak_mem_mb=1024.))])
def test_a_run_that_knows_no_memory_hides_no_other(facts, tmp_path):
    "Whichever comes first"
    s, jobs = Store(tmp_path, committed=False), [j for j in load_jobs('baselines')('laptop', 2) if j.arm == 'cldr_cat']
    for j, known in zip(jobs, facts): s.put(replace(made_up(j), provenance=known | dict(device=known and 'cpu')))
    df = costs_df([Plan('baselines', 'laptop', jobs, s)])
    assert df[['device', 'memory_gb']].values.tolist() == [['cpu', 1.]] and df.minutes.isna().all()


def test_the_encoder_stands_in_a_data_card_where_it_ran(store):
    scores = pd.DataFrame(dict(ngrams=[.5, .2]), index=['de', 'fi'])
    df = with_runs(scores, 'cldr_cat', 'lo_tag', store=store)
    assert df['encoder, cldr_cat (n = 2)'].tolist() == [.7, '–'] and set(df['encoder, lo_tag']) == {'not run yet'}
    assert df.ngrams.tolist() == [.5, .2]
