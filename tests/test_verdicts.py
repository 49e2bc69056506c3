"Words for verdicts: planted intervals, the shipped records, what a correction says, and what would decide"
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from xltnb.core import XltError, plain
from xltnb.records.published import load_paper, rule_hashes
from xltnb.records.record import MeanOf, Record, RunKey
from xltnb.records.rules import Check, Claim, range_edges
from xltnb.records.store import Store
from xltnb.runs.experiments import PRESET_JOBS, Job
from xltnb.runs.plan import Plan, make_plan
from xltnb.stats import mean_ci, rows_to_decide, seeds_to_decide
from xltnb.verdicts import judge
from xltnb.verdicts.compare import _cell_verdict, compare_plan
from xltnb.verdicts.claims import _claim_row, _stated, judge_plan
from xltnb.verdicts.judge import judge_claim
from xltnb.verdicts.power import decide_text, plan_power, to_decide
from xltnb.verdicts.study import claims
from xltnb.verdicts.words import VERDICTS, WORST, verdict, what_decides

ORDER = ['did not hold', 'not measured', 'not settled', 'held, smaller', 'held']


def word(low, high, rule, margin):
    "The word of an interval, derived again: distances from the range, positive where an end lies outside"
    if low is None or high is None: return 'not settled'
    if rule == 'below': return word(-high, -low, 'above', -margin)
    if rule == 'within':
        if max(abs(low), abs(high)) <= margin: return 'held'
        return 'did not hold' if min(abs(low), abs(high)) > margin and low*high > 0 else 'not settled'
    if margin < low: return 'held'
    if high >= margin: return 'not settled'
    return 'held, smaller' if 0 < low else 'did not hold' # high < margin: a low end above zero needs a margin above zero


@pytest.fixture(scope='module', params=['mothello', 'robust', 'salt', 'baselines'])
def rows(request, tmp_path_factory):
    "Claims of a paper by the shipped records"
    return plain(claims(request.param, 'laptop', Store(tmp_path_factory.mktemp('none'))).rows)


def test_a_softer_verdict_has_a_reason(rows):
    "Widened for the number of checks, the interval contains an edge; the claim says so"
    for row in rows:
        for c in row['checks']:
            if not c['alone'] or 'the precondition' in c['note']: continue
            wide = mean_ci(c['seeds'], c['items'], 1-(1-c['level'])/len(row['checks']))[1:]
            assert word(*wide, c['rule'], c['margin']) == 'not settled' or max(map(abs, wide)) > row['smallest'] > 0
            assert f"{c['alone']} alone, but not as one of {len(row['checks'])} checks" in row['note']


def test_some_shipped_verdict_is_softer():
    "Else the test above has nothing to look at"
    rows = [r for p in ('robust', 'baselines') for r in claims(p, 'laptop').rows]
    assert any(c['alone'] and 'the precondition' not in c['note'] for r in rows for c in r['checks'])


def test_what_is_unclear_says_what_would_decide(rows):
    says = lambda r: any(s in r['note'] for s in ('would settle it', 'more seeds alone cannot settle it', 'the precondition'))
    unsure = lambda r: r['verdict'] == 'not settled' and r['n'] > 2
    for row in rows:
        for r in (row, *row['checks']): assert says(r) or not unsure(r), row['claim']


def test_a_seed_without_a_number_says_nothing():
    from math import isnan, nan
    from xltnb.stats import detectable, mean_diff, seeds_to_decide
    xs = [nan, 1., 2.]
    assert all(map(isnan, (mean_diff(xs).low, detectable(xs), seeds_to_decide(xs, [0.]))))


PLANTED = [ # rule, margin, low, high, seeds, word
    ('above', .2, .25, .4, 3, 'held'), ('above', .2, .2, .4, 3, 'not settled'), ('above', .2, .1, .4, 3, 'not settled'), ('above', .2, .1, .2, 3, 'not settled'),
    ('above', .2, .05, .15, 3, 'held, smaller'), ('above', .2, 0., .15, 3, 'did not hold'), ('above', .2, -.17, .01, 3, 'did not hold'), ('above', .2, -.3, -.1, 3, 'did not hold'),
    ('above', .2, -.3, .4, 3, 'not settled'), ('above', 0., .1, .2, 3, 'held'), ('above', 0., 0., .2, 3, 'not settled'), ('above', 0., -.2, -.1, 3, 'did not hold'),
    ('above', -.03, -.02, .2, 3, 'held'), ('above', -.03, -.1, -.04, 3, 'did not hold'), ('above', -.03, -.1, 0., 3, 'not settled'),
    ('below', -.2, -.4, -.25, 3, 'held'), ('below', -.2, -.15, -.05, 3, 'held, smaller'), ('below', -.2, -.15, 0., 3, 'did not hold'), ('below', -.2, .1, .3, 3, 'did not hold'),
    ('below', -.2, -.3, -.1, 3, 'not settled'), ('below', .03, -.2, .02, 3, 'held'), ('below', .03, -.2, .03, 3, 'not settled'), ('below', .03, .04, .1, 3, 'did not hold'),
    ('within', .1, -.05, .05, 3, 'held'), ('within', .1, -.1, .1, 3, 'held'), ('within', .1, .05, .2, 3, 'not settled'), ('within', .1, -.3, .3, 3, 'not settled'),
    ('within', .1, .1, .2, 3, 'not settled'), ('within', .1, .11, .2, 3, 'did not hold'), ('within', .1, -.2, -.11, 3, 'did not hold'),
    ('above', .2, .25, .4, 2, 'not settled'), ('above', .2, math.nan, math.nan, 5, 'not settled'),
]


@pytest.mark.parametrize('rule,margin,low,high,n,says', PLANTED)
def test_planted_interval(rule, margin, low, high, n, says):
    assert verdict(low, high, n, rule, margin) == says
    if n >= 3 and math.isfinite(low): assert word(low, high, rule, margin) == says
    if rule != 'within': assert verdict(-high, -low, n, dict(above='below', below='above')[rule], -margin) == says, 'a mirrored rule says the same'


def planted(tmp_path, seeds, rule='above', margin=.2, others=(), **said):
    "Judge a claim with one check on planted effects of seeds, and with more checks of the same arm"
    check = Check(('laptop',), {'a': 'x'}, 'a.m', rule, margin, 'made up')
    claim = Claim('p.C1', 'made up', 'nowhere', checks=(check, *others), **said)
    store, jobs = Store(tmp_path, committed=False), [Job('p', 'x', 'p.x', 1, {}, s) for s in range(max(3, len(seeds)))]
    for j, m in zip(jobs, seeds):
        store.put(Record(j.experiment, j.key, j.config, j.seed, dict(m=m), arm='x', provenance=dict(cpu='x')))
    plan = Plan('p', 'laptop', jobs, store)
    return _claim_row(claim, plan, judge_claim(claim, plan))


RUNS = dict(held=(.30, .31, .32), smaller=(.10, .11, .12), failed=(-.10, -.11, -.12), open=(.10, .20, .33), few=(.30, .31), none=())
SAYS = dict(held='held', smaller='held, smaller', failed='did not hold', open='not settled', few='not settled', none='not measured')


@pytest.mark.parametrize('says', RUNS)
def test_planted_runs_for_every_word_of_a_claim(tmp_path, says):
    assert planted(tmp_path, RUNS[says])['verdict'] == SAYS[says]


def test_a_note_stands_beside_the_word_and_changes_none(tmp_path):
    row = planted(tmp_path, RUNS['failed'], notes={'laptop': 'three layers'})
    assert row['verdict'] == 'did not hold' and row['note'].startswith('three layers') and row['effect'] == pytest.approx(-.11)
    assert planted(tmp_path/'none', (), notes={'laptop': 'three layers'})['note'] == 'three layers; not run'
    with pytest.raises(XltError, match="did you mean 'laptop'"): Claim('p.C1', 'made up', 'nowhere', notes={'labtop': 'why'})


@pytest.mark.parametrize('seeds,says,note', [((.001, -.002, .002), 'did not hold', 'no effect of 0.01 or more'), ((.004, .005, .006), 'held', 'smaller than 0.01'),
    ((.03, -.02, .02), 'not settled', 'would settle it'), ((-.03, -.031, -.029), 'did not hold', '')])
def test_none_is_a_finding_where_a_smallest_effect_is_stated(tmp_path, seeds, says, note):
    row = planted(tmp_path, seeds, margin=0., smallest=.01, smallest_since='2026-11-24: one point')
    assert row['verdict'] == says and note in row['note']
    if note.startswith('no effect'): assert planted(tmp_path, seeds, margin=0.)['verdict'] == 'not settled', 'without the statement a zero is never found'


def test_more_seeds_than_planned_are_a_second_look(planted_paper, monkeypatch):
    folder, store = planted_paper
    write_planted(folder)
    jobs = [j for j in put_planted(store) if j.arm == 'held']
    once = judge_plan(Plan('planted.C0', 'laptop', jobs, store)).rows[0]
    monkeypatch.setitem(PRESET_JOBS, 'planted', lambda preset, seeds: jobs[:2])
    twice = judge_plan(Plan('planted.C0', 'laptop', jobs, store, 3)).rows[0]
    assert 'looked at once before, so a 97.5 % interval' in twice['note'] and twice['low'] < once['low'] and 'planned, so' not in once['note']


@pytest.mark.parametrize('looks,level', [(1, '97.5'), (2, '98.3')])
def test_each_declared_look_takes_its_share_of_the_error(tmp_path, looks, level):
    days = tuple(f'2026-11-2{i}: more seeds' for i in range(looks))
    row, once = planted(tmp_path, (.1, .2, .3), looked={'laptop': days}), planted(tmp_path, (.1, .2, .3))
    assert f'so a {level} % interval' in row['note'] and row['low'] < once['low'] and row['looked'] == [*days] and not once['looked']
    with pytest.raises(XltError, match='has no day'): Claim('p.C1', 'made up', 'nowhere', looked={'laptop': ('more seeds',)})


def test_a_changed_rule_judges_older_runs_only_where_the_change_is_declared(tmp_path):
    old, new = (Check(('laptop',), {'a': 'x'}, 'a.m', 'above', m, 'made up') for m in (.4, .2))
    was, now = (Claim('p.C1', 'made up', 'nowhere', checks=(c,)) for c in (old, new))
    why = '2026-11-22: the margin was read off the wrong row'
    said = replace(now, formerly={'laptop': (was.hash_at('laptop'),)}, changed={'laptop': why})
    store, jobs = Store(tmp_path, committed=False), [Job('p', 'x', 'p.x', 1, {}, s) for s in range(3)]
    for j, m in zip(jobs, RUNS['held']):
        store.put(Record(j.experiment, j.key, j.config, j.seed, dict(m=m), arm='x', provenance=dict(rules={'C1/laptop': was.hash_at('laptop')})))
    plan = Plan('p', 'laptop', jobs, store)
    row = lambda c: _claim_row(c, plan, judge_claim(c, plan))
    assert row(was)['verdict'] == 'held, smaller' and row(now)['verdict'] == 'not measured' and 'rule was changed after these runs' in row(now)['note']
    assert row(said)['verdict'] == 'held' and why in row(said)['note'] and row(said)['changed'] == why
    assert row(replace(said, formerly={'laptop': ('0'*16,)}))['verdict'] == 'not measured', 'another rule is not excused'
    assert row(replace(said, formerly={'paper': said.formerly['laptop']}, changed=said.changed | {'paper': why}))['verdict'] == 'not measured'
    for bad in (dict(formerly={'laptop': ('0'*16,)}), dict(formerly={'laptop': ('x',)}, changed={'laptop': why}), dict(changed={'laptop': 'better so'}),
                dict(changed={'labtop': why})):
        with pytest.raises(XltError): replace(now, **bad)


def test_words_of_cells_that_are_not_judged():
    cell = replace(load_paper('mothello').tables['T1'].cells[0], tolerance=.03)
    assert _cell_verdict(replace(cell, value=None), .5, .6, 3, True) == 'not read' and _cell_verdict(cell, .5, .6, 3, False) == 'not judged' and _cell_verdict(cell, .5, .6, 0, True) == 'not measured'
    at = cell.value
    says = [_cell_verdict(cell, at+a, at+b, 3, True) for a, b in ((-.02, .02), (.02, .05), (.05, .09))]
    assert says == ['held', 'not settled', 'did not hold']


CLAIM = '  - {id: %s, text: t, place: p, checks: [{presets: [laptop], arms: {a: "%s"}, effect: a.m, rule: above, margin: %s, why: planted}]}'
CELL = '      - {arm: "%s", metric: m, label: "%s", rows: [r], columns: [c], values: [[%s]]}'
CELLS = dict(held='.31', open='.35', failed='.9', unread='null', few='.3', none='.3') # what is printed beside the runs


def write_planted(folder, margin=.2):
    "A paper with one claim and one table cell for each word, each measured by an arm of that name; returns its claims by number"
    claims = {f'C{i}': w for i, w in enumerate(RUNS)}
    rules = [CLAIM % (c, w, margin) for c, w in claims.items()]
    cells = [CELL % (dict(open='held', failed='held').get(w, w), w, v) for w, v in CELLS.items()]
    head = 'paper: planted\ncitation: {title: t, authors: a, venue: v, year: 2026}\ntables:\n  T1:\n    {caption: c, place: Table 1, source: printed, tolerance: .05, blocks: [\n'
    cells = ',\n'.join(c.strip().removeprefix('- ') for c in cells)
    (folder/'planted').mkdir(parents=True, exist_ok=True)
    (folder/'planted'/'published.yaml').write_text(f'{head}{cells}]}}\nclaims:\n' + '\n'.join(rules) + '\n', encoding='utf-8')
    return claims


def put_planted(store):
    "The records of every arm, written to files and sealed; returns the jobs"
    jobs, arms = [], RUNS | dict(unread=RUNS['held'])
    for arm, scores in arms.items():
        for seed in range(3):
            key = RunKey('planted.x', 1, dict(arm=arm), seed).key
            jobs.append(Job('planted', arm, 'planted.x', 1, dict(arm=arm), seed))
            assert jobs[-1].key == key
            if seed >= len(scores): continue
            store.put(Record('planted.x', key, dict(arm=arm), seed, dict(m=scores[seed]), arm=arm, provenance=dict(rules=rule_hashes('planted'))))
    return jobs


@pytest.fixture
def planted_paper(tmp_path, monkeypatch):
    "A folder of papers that the library finds, and a store of its own"
    monkeypatch.setenv('XLTNB_PAPERS', str(tmp_path/'papers'))
    (tmp_path/'papers').mkdir()
    yield tmp_path/'papers', Store(tmp_path/'store', committed=False)


def test_each_word_from_files_through_the_public_functions(planted_paper):
    "Records on disk, rules in a published file: `claims` and `compare` say every word"
    folder, store = planted_paper
    planted, jobs = write_planted(folder), put_planted(store)
    rows = {r['claim']: r for r in judge_plan(Plan('planted', 'laptop', jobs, store)).rows}
    assert {planted[c.split('.')[1]]: r['verdict'] for c, r in rows.items()} == {w: SAYS[w] for w in planted.values()}
    assert {planted[c.split('.')[1]]: r['n'] for c, r in rows.items()} == {w: len(x) for w, x in RUNS.items()}
    cells = {r['cell'].split('.')[2]: r['verdict'] for r in compare_plan(Plan('planted.T1', 'paper', jobs, store)).rows}
    assert cells == {w: 'not read' if w == 'unread' else SAYS[w] for w in CELLS}
    said = {r['verdict'] for r in rows.values()} | set(cells.values()) | {'not judged'}
    assert said == set(VERDICTS), 'a word that nothing says'
    assert {r['verdict'] for r in compare_plan(Plan('planted.T1', 'laptop', jobs, store)).rows} == {'not read', 'not judged', 'not measured'}, 'printed numbers are judged at the preset of that size alone'


def test_runs_that_are_older_than_a_rule_say_so(planted_paper):
    "A margin changed after the runs undoes the verdict"
    folder, store = planted_paper
    planted, jobs = write_planted(folder), put_planted(store)
    rows = judge_plan(Plan('planted', 'laptop', jobs, store)).rows
    assert rows[0]['verdict'] == 'held'
    write_planted(folder, margin=.25)
    later = judge_plan(Plan('planted', 'laptop', jobs, store)).rows
    assert {r['verdict'] for r in later} == {'not measured'}
    assert all('the rule was changed after these runs' in r['note'] for r in later if planted[r['claim'].split('.')[1]] in ('held', 'failed', 'open', 'few'))


def test_jobs_that_are_registered_anew_are_counted(planted_paper, monkeypatch):
    folder, store = planted_paper
    write_planted(folder)
    jobs = [j for j in put_planted(store) if j.arm == 'held']
    error = lambda: judge_plan(Plan('planted.C0', 'laptop', jobs, store, 3)).rows[0]['checks'][0]['level']
    for own, level in ((jobs, .95), (jobs[:2], .975)):
        monkeypatch.setitem(PRESET_JOBS, 'planted', lambda preset, seeds, own=own: own)
        assert math.isclose(error(), level)


def test_every_word_is_planted_somewhere():
    assert set(SAYS.values()) | {'not read', 'not judged'} == set(VERDICTS)
    assert {x[-1] for x in PLANTED} == set(VERDICTS)-{'not read', 'not judged', 'not measured'}


def test_worst_check_decides_and_hides_no_other(tmp_path):
    "Two targets, one held and one not: their mean would be held"
    other = Check(('laptop',), {'a': 'x'}, 'a.m - 0.45', 'above', .2, 'another target')
    row = planted(tmp_path, RUNS['held'], others=(other,))
    assert row['verdict'] == 'did not hold' and [c['verdict'] for c in row['checks']] == ['did not hold', 'held']
    assert list(WORST) == ORDER


@pytest.mark.parametrize('seeds,alone', [((-.03, -.02, -.028), 'did not hold'), ((.03, .02, .028), 'held, smaller')])
def test_a_correction_that_softens_is_shown(tmp_path, seeds, alone):
    margin = 0. if alone == 'did not hold' else .04
    more = [Check(('laptop',), {'a': 'x'}, f'a.m + {i+1}', 'above', .5, 'easy') for i in range(7)]
    assert planted(tmp_path/'one', seeds, margin=margin)['verdict'] == alone
    row = planted(tmp_path/'many', seeds, margin=margin, others=more)
    assert row['verdict'] == 'not settled' and f'{alone} alone, but not as one of 8 checks' in row['note'] and row['checks'][0]['alone'] == alone


@pytest.mark.parametrize('rule,margin', [('above', .2), ('below', .4), ('within', .4)])
@pytest.mark.parametrize('level', [.95, .99])
def test_so_many_seeds_decide_and_one_fewer_does_not(rule, margin, level):
    "Planted seeds with the very mean and standard deviation"
    xs = [.25, .32, .36]
    n = int(seeds_to_decide(xs, range_edges(rule, margin), level=level))
    def alike(n):
        z = [math.cos(math.pi*(i+.5)/n) for i in range(n)] # any n numbers of mean zero
        sd = math.sqrt(sum(v*v for v in z)/(n-1))
        return [sum(xs)/3+v/sd*math.sqrt(sum((x-sum(xs)/3)**2 for x in xs)/2) for v in z]
    assert n > 3 and verdict(*mean_ci(alike(n), level=level)[1:], n, rule, margin) == 'held'
    assert verdict(*mean_ci(alike(n-1), level=level)[1:], n-1, rule, margin) == 'not settled'


def as_many(xs, n):
    "Records of `n` seeds with the very mean and standard deviation of `xs`"
    mean, z = sum(xs)/len(xs), [math.cos(math.pi*(i+.5)/n) for i in range(n)]
    wide = math.sqrt(sum((x-mean)**2 for x in xs)/(len(xs)-1)) / math.sqrt(sum(v*v for v in z)/(n-1))
    return [{'a': Record('p.x', f'k{s}', {}, s, dict(m=mean+v*wide))} for s, v in enumerate(z)]


@pytest.mark.parametrize('xs,rule,margin,smallest', [
    ([.012, -.004, .009, .001], 'above', 0., .01), ([-.012, .004, -.009, .003], 'above', -.005, .01), ([.012, -.004, .009, .003], 'within', .01, .01),
    ([.008, -.009, .007, -.002], 'above', 0., .01), ([-.02, .013, -.016, -.02], 'above', 0., 0.)])
@pytest.mark.parametrize('count,looks', [(1, 1), (4, 1), (4, 2)])
def test_seeds_that_would_settle_it_do(xs, rule, margin, smallest, count, looks):
    "At the level that the seeds beyond a plan are judged at: one more look"
    check = Check(('laptop',), {'a': 'x'}, 'a.m', rule, margin, 'made up')
    judged = lambda runs, error: judge._among(count, check, runs, False, smallest, error)
    now = judged(as_many(xs, len(xs)), .05/looks)
    need = judge._needs(replace(now, planned=len(xs)), check, count, smallest, .05/looks).need_seeds
    assert now.verdict == 'not settled' and len(xs) < need <= 10_000
    assert judged(as_many(xs, int(need)), .05/(looks+1)).verdict != 'not settled' == judged(as_many(xs, int(need)-1), .05/(looks+1)).verdict
    planned = judge._needs(replace(now, planned=int(need)), check, count, smallest, .05/looks).need_seeds
    assert planned <= need and judged(as_many(xs, int(planned)), .05/looks).verdict != 'not settled'


@pytest.mark.parametrize('xs', [[.3]*5, [.1+.2, .3, .3]], ids=['alike', 'up to rounding'])
def test_seeds_that_agree_tell_no_number_of_seeds(xs): assert math.isnan(seeds_to_decide(xs, [.2]))


def test_seeds_cannot_free_the_interval_of_the_items(tmp_path):
    assert rows_to_decide(.3, .2/1.96, [.2]) == pytest.approx(4, rel=1e-3) and rows_to_decide(.3, .05/1.96, [.2]) < 1
    assert seeds_to_decide([.2, .2, .2000001], [.2]) > 10 and math.isnan(seeds_to_decide([.2], [.2]))
    items = [1., 0., 0., 1., 0., 0.]*4
    check = Check(('laptop',), {'a': 'x'}, 'a.m', 'above', .2, 'made up')
    runs = [{'a': Record('p.x', f'k{s}', {}, s, dict(m=1/3+.01*s), items=dict(m=items))} for s in range(3)]
    j = judge._needs(judge._among(1, check, runs), check, 1)
    assert j.verdict == 'not settled' and math.isinf(j.need_seeds) and j.need_rows >= 1 and 'more seeds alone cannot settle it' in what_decides(j.need_seeds, j.need_rows)


@pytest.mark.parametrize('paper', ['mothello', 'robust'])
def test_a_plan_knows_the_half_width_that_its_records_gave(paper, tmp_path):
    "Planned again with the seeds that it had, a check has the interval that it had"
    plan = make_plan(paper, 'laptop', store=tmp_path)
    rows = {c['effect']+'/'.join(c['arms'].values()): c for r in judge_plan(plan).rows for c in r['checks']}
    power, checks = plan_power(plan), [c for claim in load_paper(paper).claims.values() for c in claim.at('laptop')]
    assert len(power) == len(checks)
    for p, c in zip(power, checks):
        was = rows[c.effect+'/'.join(c.arms.values())]
        assert p['of'] == 'laptop' or was['n'] < 2, c.effect
        if was['n'] == p['seeds'] and 'not as one of' not in was['note']: assert p['half_width'] == pytest.approx((was['high']-was['low'])/2, rel=1e-6), c.effect


@pytest.mark.parametrize('paper', ['mothello', 'robust'])
def test_each_unclear_check_says_its_seeds_and_their_cost(paper, tmp_path):
    plan = make_plan(paper, 'laptop', store=tmp_path)
    found, judged = to_decide(plan), judge_plan(plan).rows
    unclear = [r for r in judged if r['verdict'] == 'not settled']
    assert {r['claim'] for r in found} == {r['claim'] for r in unclear}
    assert len(found) == sum(c['verdict'] == 'not settled' for r in unclear for c in r['checks'])
    assert all((r['more'] is None) == (r['hours'] is None) and (not r['more'] or r['hours'] > 0) and r['says'] for r in found)
    assert decide_text(found, plan).startswith(f'{paper} at laptop: {len(unclear)} claims are not settled')
    assert not to_decide(make_plan(paper, 'paper', store=tmp_path))




def by_hand(row):
    "Effect and interval of a check, from the files of its records: unpacked, paired and summed without the library's judge"
    import base64, zlib
    import numpy as np
    from scipy.stats import t
    files = {f.stem: json.loads(f.read_text(encoding='utf-8')) for k in row['keys'] for f in (ROOT/'nbs'/'results').glob(f'*/{k}.json')}
    def scores(d, m):
        "Sums over languages of their items, by the number of items; they average to the metric"
        x = d['items'][m]
        langs = x.get('mean_of') or [l for l in d['per_language'] if l != d['source'] and m == 'targets'] or [m]
        out = {}
        for l in langs:
            x = d['items'][l]
            x = x['low']+x['scale']*np.frombuffer(zlib.decompress(base64.b64decode(x['u16'])), '<u2').astype(float)
            out[len(x)] = out.get(len(x), 0)+x/len(langs)
        return out
    arms = {a: {d['seed']: d for d in files.values() if d['arm'] == arm} for a, arm in row['arms'].items()}
    seeds = sorted(set.intersection(*map(set, arms.values())))
    a, m, b = re.fullmatch(r'(\w+)\.(\w+) - (\w+)\.\w+', row['effect']).groups()
    both = [(scores(arms[a][s], m), scores(arms[b][s], m)) for s in seeds]
    sets = [np.array([x[n]-y[n] for x, y in both]) for n in both[0][0]]
    S, total = len(seeds), sum(y.mean(1) for y in sets)
    v_seeds, v_items = total.var(ddof=1)/S, 0.
    for y in sets:
        n, of_seeds, of_items = y.shape[1], y.mean(1), y.mean(0)
        ms_items = S*((of_items-y.mean())**2).sum()/(n-1)
        ms_rest = ((y-of_seeds[:, None]-of_items+y.mean())**2).sum()/((S-1)*(n-1))
        v_items += max(0, ms_items-ms_rest)/(S*n)
    half = t.ppf((1+row['level'])/2, (S-1)*(v_seeds+v_items)/v_seeds)*math.sqrt(v_seeds+v_items)
    return total.mean(), total.mean()-half, total.mean()+half


def test_ten_checks_recomputed_by_hand_from_their_files():
    "A crossed analysis of variance written down once more; ten checks of three papers agree"
    found = [(p, c) for p in ('salt', 'robust', 'mothello') for r in claims(p, 'laptop', Store('no-such-folder')).rows for c in r['checks']
             if c['n'] > 2 and c['items'] and re.fullmatch(r'\w+\.(\w+) - \w+\.\1', c['effect'])]
    some = {(p, n): c for n, (p, c) in enumerate(found) if n % (len(found)//10) == 0 or p == 'mothello'}
    assert len(some) >= 10 and {p for p, _ in some} == {'salt', 'robust', 'mothello'}
    for c in some.values(): assert by_hand(c) == pytest.approx((c['value'], c['low'], c['high']), abs=2e-5), c['effect']


@pytest.mark.parametrize('turn', [False, True])
def test_a_judged_interval_covers(turn):
    "Five seeds of two arms without a difference, right answers of 100 sentences in five languages; the same sentences, or other ones each seed"
    rng, check, missed = np.random.default_rng(1), Check(('laptop',), dict(a='x', b='y'), 'a.targets - b.targets', 'above', 0., 'w'), 0
    def record(name, seed, share):
        items = {f'l{k}': (rng.random(100) < share).astype(float).tolist() for k in range(5)}
        mean = float(np.mean([*items.values()]))
        return Record('d', f'{name}{seed}', dict(turn=True) if turn else {}, seed, dict(targets=mean), items=items | dict(targets=MeanOf(tuple(items))))
    for _ in range(200):
        pull, easy = rng.normal(0, .25, 500), rng.uniform(.3, .7, 500)
        runs = []
        for s in range(5):
            at, e = np.arange(100)+100*s*turn, rng.normal(0, .02)
            a, b = (np.clip(easy[at]+sign*(pull[at]+e)/2, 0, 1) for sign in (1, -1))
            runs.append(dict(a=record('a', s, a), b=record('b', s, b)))
        j = judge.judge(check, runs)
        missed += not j.low <= 0 <= j.high
    assert 1 <= missed <= 20  # 10 of 200 are expected


@pytest.mark.parametrize('rules,day,late', [('today', '2026-11-20', False), ('before', '2026-11-25', False), ('before', '2026-11-24', True)])
def test_a_smallest_effect_is_late_for_older_runs_alone(rules, day, late):
    "A run that stands on an earlier rule, declared since, may be younger than the statement"
    claim, job = load_paper('robust').claims['H3'], Job('robust', 'a', 'robust.finetune', 1, {}, 0)
    stood = claim.hash_at('laptop') if rules == 'today' else claim.formerly['laptop'][0]
    run = Record('robust.finetune', job.key, {}, 0, provenance=dict(rules={'H3/laptop': stood}, started=f'{day}T10:00:00+0000'))
    said = _stated(claim, Plan('robust', 'laptop', [job], None), [(None, judge.Judged('ok', keys=(job.key,)))], {job.key: run}.get)
    assert bool(said) == late


@pytest.mark.parametrize('low, high, said', [(-.004, .008, ', so no effect of 1 point or more'), (-.009, -.002, ''), (-.02, .008, '')])
def test_no_effect_is_not_said_of_one_on_the_other_side(low, high, said):
    from xltnb.verdicts.findings import no_effect
    assert no_effect(dict(verdict='did not hold', rule='above', low=low, high=high, smallest=.01, unit='points')) == said


def test_no_seed_is_planned_without_test_rows_of_its_own(tmp_path):
    "Fourteen turns of 350 rows use up the 5,010 of XNLI"
    plan = make_plan('robust.H1', 'laptop', 23)
    assert {j.seed for j in plan.jobs if j.arm == 'xnli_slow-plain'} == set(range(14))
    spread = lambda s: .02*(-1)**s
    check = Check(('laptop',), {'r': 'r', 'p': 'p'}, 'r.m - p.m', 'above', 0., '')
    def says(turns):
        jobs = [Job('demo', a, 'demo.x', 1, {'a': a}, s, turns=turns) for a in 'rp' for s in range(6)]
        made = {j.key: Record('demo.x', j.key, j.config, j.seed, dict(m=.5+(j.arm == 'r')*(.01+spread(j.seed)))) for j in jobs}
        (_, j), = judge_claim(Claim('demo.C1', '', '', checks=(check,)), Plan('demo', 'laptop', jobs, None), made.get)
        return j.need_seeds, j.note
    need, _ = says(0)
    assert 6 < need < 1000
    none, note = says(8)
    assert math.isnan(none) and f'about {need:.0f} seeds would settle it, and no more than 8 find test rows of their own' in note
