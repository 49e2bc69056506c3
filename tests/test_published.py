"Published files: what loads, what is refused with file, line and remedy, and what a rule's hash covers"
import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from xltnb.core import XltError
from xltnb.records.published import SOURCES, find_papers, load_paper, published_file, read_published, rule_hashes
from xltnb.records.record import MeanOf, Record
from xltnb.records.rules import RULES, evaluate, names_in
from xltnb.records.store import Store
from xltnb.runs.experiments import Job, load_jobs
from xltnb.runs.plan import Plan
from xltnb.stats import holm, mean_ci, mean_diff
from xltnb.tasks.bench import BENCH
from xltnb.verdicts import compare, judge
from xltnb.verdicts.claims import Claims

MOTHELLO = published_file('mothello')
FIRST_CLAIM = {'robust': 'C1', 'salt': 'S1', 'arithmetic': '1', 'metapretrain': 'R1', 'mothello': 'C1', 'baselines': 'B1'}
OURS = {'baselines'} # files with numbers of our own, from no paper
PAPERS = [p for p in find_papers() if p not in OURS]


def cells(paper): return [c for t in load_paper(paper).tables.values() for c in t.cells]


def test_a_file_for_every_paper():
    assert set(find_papers()) == set(FIRST_CLAIM) > OURS


@pytest.mark.parametrize('name', FIRST_CLAIM)
def test_file_loads(name):
    d, paper = read_published(published_file(name)), load_paper(name)
    assert d.paper == name and FIRST_CLAIM[name] in paper.claims
    assert {'title', 'authors', 'venue', 'year'} | (set() if name in OURS else {'arxiv', 'code'}) <= set(paper.citation)
    assert len(paper.claims) == len(d.claims), 'two claims share an id'
    assert all(paper.claims[c.id].id == f'{name}.{c.id}' for c in d.claims)
    assert all(c.text and c.place and c.paper for c in paper.claims.values())
    assert {k.rule for c in paper.claims.values() for k in c.checks} <= set(RULES)


@pytest.mark.parametrize('paper', FIRST_CLAIM)
def test_cells(paper):
    got = cells(paper)
    assert not [k for k, n in Counter(c.id for c in got).items() if n > 1]
    assert {c.source for c in got} <= set(SOURCES)
    assert all(c.id.startswith(f'{paper}.') and c.metric is not None and c.tolerance >= 0 for c in got)
    assert all(c.span is None or c.span[0] <= c.span[1] for c in got)
    known = [c for c in got if c.value is not None or c.span]
    assert not [c.id for c in known if c.source == 'not at hand'], 'a number nobody has read'


@pytest.mark.parametrize('paper', [p for p in PAPERS if p != 'mothello'])
def test_baselines_are_not_called_printed(paper):
    assert {c.source for c in cells(paper)} <= {'second-hand', 'not at hand'}


def test_mothello_cells(): assert len(cells('mothello')) == 455


@pytest.mark.parametrize('paper', PAPERS)
def test_a_paper_holds_no_number_of_ours(paper):
    assert 'pilot' not in {c.source for c in cells(paper)}


@pytest.mark.parametrize('paper', sorted(OURS))
def test_ours_are_called_a_pilot(paper):
    p = load_paper(paper)
    assert {c.source for c in cells(paper)} == {'pilot'} and all(c.value is not None for c in cells(paper))
    assert {c.place for c in cells(paper)} == {'our pilot'} and {c.place for c in p.claims.values()} <= {'our pilot', 'our control'}
    assert all(c.rank == 'ours' for c in p.claims.values())


PILOT = [t for t in BENCH if t != 'lo_topic']  # built after the pilot whose numbers the tables hold


def test_baseline_tables_are_the_embedded_tasks():
    tables = load_paper('baselines').tables
    assert set(tables) == set(PILOT)
    assert all(c.arm == t and 0 < c.value <= 100 for t in PILOT for c in tables[t].cells)


@pytest.mark.parametrize('task', PILOT)
def test_baseline_margins_are_the_means_of_the_cells(task):
    "Each check compares a group of languages with the number that the table gives for it, and the groups cover the table"
    cell, seen = {c.metric: c.value/100 for c in load_paper('baselines').tables[task].cells}, []
    checks = [k for c in load_paper('baselines').claims.values() for k in c.checks if k.arms == {'a': task} and (k.rule, k.margin) == ('above', -.05)]
    for k in checks:
        assert evaluate(k.effect, lambda a, m: cell[m]) == pytest.approx(0, abs=6e-5), k.effect
        seen += [m for _, m in names_in(k.effect)]
    assert sorted(seen) == sorted(cell)


FAULTS = [ # what is replaced, by what, and what the message must say
    ('paper: mothello', 'papr: mothello', "unknown key of Published 'papr'; did you mean 'paper'?"),
    ('source: printed', 'source: printd', "did you mean 'printed'"),
    ('    caption: Cross-lingual probe accuracy', '    captain: Cross-lingual probe accuracy', "unknown key of TableEntry 'captain'; did you mean 'caption'?"),
    ('[0.53, 0.82, 0.97, 0.97]', '[0.53, 0.82, 0.97]', "row 'atomic' has 3 values for 4 columns: write null"),
    ('[0.53, 0.82, 0.97, 0.97]', '[0.53, 0.82, high, 0.97]', "must be float or None or a list, not str 'high'"),
    ('[0.53, 0.82, 0.97, 0.97], ', '', '2 rows of values for 3 row names'),
    ('metric: across, rows: [atomic', 'metrik: across, rows: [atomic', "unknown key of Block 'metrik'; did you mean 'metric'?"),
    ('    place: "4.2, T 2"\n', '', 'Claim needs a value for: place'),
    ('rule: above', 'rule: over', 'choose from: above, below, within'),
    ('    source: printed\n', '', 'TableEntry needs a value for: source'),
    ('margin: 0.1', 'margin: tiny', "Check.margin must be float, not str 'tiny'"),
    ('margin: 0.1', 'margin: yes', 'Check.margin must be float, not bool True'),
    ('effect: "a.within - a.across"', 'effect: "a.within - b.across"', 'b in the effect is not among the arms a'),
    ('effect: "a.within - a.across"', 'effect: "open(1)"', 'not allowed in an effect: use arm.metric'),
    ('effect: "a.within - a.across"', 'effect: "a.within -"', 'is no expression'),
    ('citation:', 'citation: [', 'no YAML that can be read'),
    ('    tolerance: 0.03\n', '', 'has numbers and no tolerance: say how far'),
    ('tolerance: 0.03', 'tolerance: small', "TableEntry.tolerance must be float or None, not str 'small'"),
    ('tolerance: 0.03', 'tolerance: -1', 'tolerance is -1.0: give a number at least 0'),
    ('tolerance: 0.03', 'tolerance: yes', 'TableEntry.tolerance must be float or None, not bool True'),
]


@pytest.mark.parametrize('old,new,says', FAULTS, ids=[f'{i}-{s[:24]}' for i, (_, _, s) in enumerate(FAULTS)])
def test_malformed_is_refused(tmp_path, old, new, says):
    good, bad = MOTHELLO.read_text(encoding='utf-8'), tmp_path/'bad.yaml'
    assert old in good, 'the file has changed: change this test'
    bad.write_text(good.replace(old, new, 1), encoding='utf-8')
    with pytest.raises(XltError) as e: read_published(bad)
    msg = str(e.value)
    assert says in msg
    line = int(re.match(rf'{re.escape(str(bad))}:(\d+): ', msg)[1])
    assert 1 <= line <= len(good.splitlines())
    if new and 'missing' not in says and 'YAML' not in says: assert abs(line-good[:good.index(old)].count('\n')-1) <= 8


SHAPES = [ # what a small file holds, and what the message must say
    ('tables: {T1: null}\nclaims: []', "Published.tables['T1'] must be a mapping with caption, place, source, blocks, not None"),
    ('tables: [1]\nclaims: []', 'Published.tables must be a mapping, not list [1]'),
    ('tables: null\nclaims: []', 'Published.tables must be a mapping, not None'),
    ('claims:', 'Published.claims must be a list, not None'),
    ('claims: {C1: 2}', 'Published.claims must be a list, not dict'),
    ('tables: {T1: {caption: a, place: b, source: printed, tolerance: 1, blocks: null}}\nclaims: []', 'TableEntry.blocks must be a list, not None'),
    ('tables: {T1: {caption: a, place: b, source: printed, tolerance: 1, blocks: [3]}}\nclaims: []', 'TableEntry.blocks[0] must be a mapping with arm, metric, rows, columns, values, not int 3'),
    ('tables: {T1: {caption: a, place: b, source: printed, tolerance: 1, blocks: [{arm: a, metric: m, rows: 3, columns: [x], values: [[1]]}]}}\nclaims: []',
     'Block.rows must be a list, not int 3'),
    ('tables: {T1: {caption: a, place: b, source: printed, tolerance: 1, blocks: [{arm: a, metric: m, rows: [r], columns: [x], values: [1]}]}}\nclaims: []',
     'Block.values[0] must be a list, not int 1'),
    ('tables: {T1: {caption: a, place: b, source: printed, tolerance: 1, blocks: [{arm: "{x}", metric: m, rows: [r], columns: [x], values: [[1]]}]}}\nclaims: []',
     "'{x}' may hold {row} and {col}, nothing else in braces"),
    ('claims: [{id: C1, text: t, place: p, checks: [null]}]', 'Claim.checks[0] must be a mapping with presets, arms, effect, rule, margin, why, not None'),
    ('claims: [{id: C1, text: t, place: p, checks: null}]', 'Claim.checks must be a list, not None'),
    ('claims: [{id: C1, text: t, place: p, checks: [{presets: smoke, arms: {a: x}, effect: a.m, rule: above, margin: 0, why: w}]}]',
     "Check.presets must be a list, not str 'smoke'"),
    ('claims: [{id: 7, text: t, place: p}]', 'Claim.id must be str, not int 7'),
    ('claims: [{id: C1, text: t, place: p, notes: {labtop: why}}]', "unknown preset 'labtop'; did you mean 'laptop'"),
    ('claims: [{id: C1, text: t, place: p, notes: laptop}]', 'Claim.notes must be a mapping'),
]


@pytest.mark.parametrize('body,says', SHAPES, ids=[s[:30] for _, s in SHAPES])
def test_values_of_the_wrong_kind_are_refused(tmp_path, body, says):
    (bad := tmp_path/'bad.yaml').write_text(f'paper: x\ncitation: {{title: t}}\n{body}\n', encoding='utf-8')
    with pytest.raises(XltError) as e: read_published(bad)
    assert says in str(e.value) and re.match(rf'{re.escape(str(bad))}:[34]: ', str(e.value)), str(e.value)


@pytest.mark.parametrize('text', ['', '- a\n- b\n', 'paper'])
def test_no_mapping_is_refused(tmp_path, text):
    (bad := tmp_path/'bad.yaml').write_text(text, encoding='utf-8')
    with pytest.raises(XltError, match='bad.yaml:1: .*start with `paper:`'): read_published(bad)


@pytest.mark.parametrize('effect', ['f(a.x)', '__import__("os")', 'a.x.y', 'a', '"a"', 'a.x if 1 else 2', 'a.x == 1', 'a.x ** 9',
                                    'a["x"]', '[a.x]', 'lambda: 1', 'a.f(1)', 'max(a.x, key=1)', 'a.x; b.y', '(y := 1)', '', 'a.x and b.y'])
def test_effects_are_arithmetic(effect):
    looked = []
    with pytest.raises(XltError): evaluate(effect, lambda a, m: looked.append((a, m)) or 1.)
    with pytest.raises(XltError): names_in(effect)


def test_effect_values():
    look = lambda a, m: {'a.x': 3., 'b.y': -2.}[f'{a}.{m}']
    assert evaluate('max(a.x, b.y) - min(a.x, b.y)/2 + abs(b.y)*mean(a.x, 1) + -1', look) == 3+1+4-1
    assert names_in('(a.x - b.y)/a.x') == {('a', 'x'), ('b', 'y')}


def test_rule_hash():
    check = load_paper('mothello').claims['C2'].checks[0]
    assert replace(check, why='said otherwise').hash == check.hash
    others = [replace(check, margin=check.margin+.01), replace(check, effect='a.across'), replace(check, arms={'a': 'naive5'}), replace(check, rule='below')]
    assert len({check.hash, *(c.hash for c in others)}) == 5


def test_rule_hashes_name_claim_and_preset():
    got = rule_hashes('mothello')
    want = {f'{k}/{p}' for k, c in load_paper('mothello').claims.items() for x in c.checks for p in x.presets}
    assert set(got) == want and all(re.fullmatch('[0-9a-f]{16}', h) for h in got.values())


@pytest.mark.parametrize('preset', ['smoke', 'laptop', 'gpu', 'paper'])
@pytest.mark.parametrize('paper', ['mothello', 'baselines', 'robust'])
def test_arms_of_checks_have_jobs(paper, preset):
    arms = {j.arm for j in load_jobs(paper)(preset, None)}
    lost = {c.id: sorted(x) for c in load_paper(paper).claims.values() if (x := {a for k in c.at(preset) for a in k.arms.values()} - arms)}
    assert not lost, f'no job at {preset} measures {lost}'


@pytest.mark.parametrize('paper,claim', [(p, c) for p in ('mothello', 'baselines', 'robust') for c in sorted(load_paper(p).claims)])
def test_checks_name_no_idle_arm(paper, claim):
    for k in load_paper(paper).claims[claim].checks: assert {a for a, _ in names_in(k.effect)} == set(k.arms), k.effect


def test_unknown_item():
    with pytest.raises(XltError, match='T1'): load_paper('mothello').arms('T11', 'laptop')
    with pytest.raises(XltError, match='mothello'): load_paper('motello')


SCORES = [1., 1., 0., 1.]*5


@pytest.fixture
def judged(tmp_path):
    "Judge the only check of a claim on three seeds of its two arms; `change(record)` makes some of them different"
    claim = next(c for c in load_paper('robust').claims.values() if len(c.at('laptop')) > 1)
    check = replace(claim.checks[0], presets=('laptop',), arms={'a': 'x', 'b': 'y'}, effect='a.avg - b.avg', rule='above', margin=0.)
    claim = replace(claim, checks=(check,), looked={})
    rules = {f"{claim.id.split('.')[1]}/laptop": claim.hash_at('laptop')}
    def run(change, seeds=range(3), planned=range(3), **told):
        store, jobs = Store(tmp_path, committed=False), [Job('robust', arm, 'robust.finetune', 1, {'arm': arm}, s) for arm in 'xy' for s in planned]
        for j in (j for j in jobs if j.seed in seeds):
            facts = dict(data=f'rows of seed {j.seed}', rules=dict(rules))
            r = Record(j.experiment, j.key, j.config, j.seed, dict(avg=.5+(.2+.001*j.seed)*(j.arm == 'x')), items=dict(avg=SCORES), provenance=facts, arm=j.arm)
            change(r)
            store.put(r)
        return judge.judge_claim(replace(claim, **told), Plan('robust', 'laptop', jobs, store))[0][1]
    return run


@pytest.mark.parametrize('change, n, verdict, says', [
    (lambda r: None, 3, 'held', ''),
    (lambda r: r.provenance['rules'].clear(), 3, 'not measured', 'the rule was changed after these runs'),
    (lambda r: r.provenance['rules'].clear() if r.arm == 'y' else None, 3, 'held', ''),
    (lambda r: r.provenance['rules'].clear() if r.arm == 'y' or r.seed == 1 else None, 3, 'not measured', 'the rule was changed after these runs'),
    (lambda r: r.provenance['rules'].update({k: 'f'*16 for k in r.provenance['rules']}) if r.arm == 'y' else None, 3, 'not measured', 'the rule was changed after these runs'),
    (lambda r: r.provenance.pop('rules'), 3, 'held', ''),
    (lambda r: r.provenance.pop('data'), 3, 'held', ''),
    (lambda r: r.items.pop('avg') if r.seed else None, 3, 'held', 'not all runs hold the same items'),
    (lambda r: r.items.update(avg=[*SCORES, math.nan]) if r.arm == 'y' else None, 3, 'held', 'not all runs hold the same items'),
    (lambda r: r.items.clear(), 3, 'held', ''),
    (lambda r: r.provenance.update(data=r.arm) if r.seed == 1 else None, 2, 'not settled', '1 of 3 seeds left out, their arms saw different data'),
    (lambda r: r.provenance.update(data=r.arm), 0, 'not measured', '3 of 3 seeds left out'),
    (lambda r: r.provenance.update(trained={'encoder': r.arm}), 0, 'not measured', '3 of 3 seeds left out, their arms saw different data, trained weights'),
    (lambda r: r.provenance.update(trained={'encoder': f'weights {r.seed}'}), 3, 'held', ''),
    (lambda r: r.provenance.update(trained={f'first phase of {r.arm}': r.arm}), 3, 'held', '3 seeds share 1 trained encoder'),
    (lambda r: r.provenance.update(arithmetic='torch.bfloat16' if r.arm == 'y' else 'bfloat16'), 3, 'held', ''),
    (lambda r: r.provenance.update(arithmetic='float32' if r.arm == 'y' else 'bfloat16') if r.seed else None, 1, 'not settled', '2 of 3 seeds left out'),
], ids=['all', 'rule-after', 'rule-before-the-last-arm', 'rule-after-a-seed', 'other-rule-of-an-arm', 'no-rules', 'no-data', 'some-items', 'items-of-an-arm', 'no-items', 'data-of-a-seed', 'data',
        'other-weights', 'weights-of-a-seed', 'other-artefacts', 'arithmetic-in-two-words', 'arithmetic'])
def test_what_judging_leaves_out_is_said(judged, change, n, verdict, says):
    j = judged(change)
    assert (j.n, j.verdict) == (n, verdict) and j.note.startswith(says) and bool(j.note) == bool(says)


@pytest.mark.parametrize('stands, verdict, says', [(None, 'held', 'looked at once before, so a 97.5 % interval'),
    ('f'*16, 'not measured', 'the rule was changed after these runs')], ids=['none', 'another'])
def test_a_rule_that_is_later_than_its_runs_says_so(judged, stands, verdict, says):
    rules = lambda r: {k: stands for k in r.provenance['rules'] if stands}
    j = judged(lambda r: r.provenance.update(rules=rules(r)), late={'laptop': '2026-11-26: the rule was written after its runs'})
    assert j.verdict == verdict and j.note.startswith(says)
    seeds = {'laptop': ('2026-11-26: more seeds after a look at three',)} # says nothing of the rule
    assert judged(lambda r: r.provenance.update(rules=rules(r)), looked=seeds).verdict == 'not measured'
    assert '98.3 %' in judged(lambda r: None, looked=seeds, late={'laptop': '2026-11-26: late'}).note


def test_an_interim_look_says_so(judged):
    "The verdict stays what it is, and what is displayed tells of the seeds that are missing"
    j = judged(lambda r: None, planned=range(5))
    assert (j.n, j.verdict, j.note) == (3, 'held', '3 of 5 planned seeds')
    assert judged(lambda r: r.provenance.update(data=r.arm) if r.seed == 1 else None, planned=range(5)).note.split('; ')[0].startswith('1 of 3 seeds left out')
    row = dict.fromkeys(('paper', 'claim', 'preset', 'verdict', 'effect', 'low', 'high', 'n', 'text'), 0) | dict(note=j.note)
    assert j.note in Claims([row])._repr_html_()


def test_what_is_not_drawn_is_judged_by_its_items(tmp_path):
    "A fixed run stands for every seed; alone it has the interval of its items, and none without them"
    claim = replace(load_paper('robust').claims['C1'], looked={})
    store = Store(tmp_path, committed=False)
    jobs = [Job('robust', arm, 'robust.finetune', 1, {'arm': arm}, s, fixed=arm == 'x') for arm, n in (('x', 1), ('y', 3)) for s in range(n)]
    for j in jobs: store.put(Record(j.experiment, j.key, j.config, j.seed, dict(avg=.75-.3*(j.arm == 'y')-.01*j.seed), items=dict(avg=SCORES) if j.arm == 'x' else {}, provenance=dict(cpu='x'), arm=j.arm))
    def judged(arms, effect, jobs=jobs):
        check = replace(claim.checks[0], presets=('laptop',), arms=arms, effect=effect, rule='above', margin=0.)
        return judge.judge_claim(replace(claim, checks=(check,)), Plan('robust', 'laptop', jobs, store))[0][1]
    alone = judged({'a': 'x'}, 'a.avg - 0.3')
    assert (alone.verdict, alone.n, alone.note) == ('held', 1, '') and alone.low < .45 < alone.high
    assert judged({'a': 'x'}, 'a.avg - 0.3', [replace(j, fixed=False) for j in jobs]).verdict == 'not settled'
    both = judged({'a': 'x', 'b': 'y'}, 'a.avg - b.avg')
    assert (both.verdict, both.n, both.note) == ('held', 3, 'over seeds alone: this number keeps no test items') and both.effect == pytest.approx(.31)
    assert judged({'a': 'y', 'b': 'z'}, 'a.avg - b.avg').verdict == 'not measured'
    row = dict(pinned=alone.effect, now=alone.effect, n=1, low=alone.low)
    assert not compare.moved(row) and compare.moved(row | dict(pinned=.4)) and not compare.moved(row | dict(pinned=.4, low=math.nan))


def test_an_item_moves_in_all_languages_together(judged):
    "Four languages with the same rows tell as much as one; other rows would tell more"
    check = replace(load_paper('robust').claims['C1'].checks[0], arms={'a': 'x'}, effect='a.targets', rule='above', margin=0.)
    rng = np.random.default_rng(0)
    def se(parts):
        runs = [{'a': Record('demo', f'k{s}', {}, s, dict(targets=.5+.01*s), items=parts | dict(targets=MeanOf(tuple(parts))))} for s in range(3)]
        return judge.judge(check, runs).items
    same, other = list(rng.random(100)), [list(rng.random(100)) for _ in range(4)]
    assert se(dict(de=same)) == pytest.approx(se({l: same for l in 'abcd'})) and se({l: x for l, x in zip('abcd', other)}) < .6*se(dict(de=same))
    assert se(dict(de=same, sw=same[:90])) > 0, 'languages of unequal size count too'


@pytest.mark.parametrize('rule', ['above', 'below', 'within'])
@pytest.mark.parametrize('value', [0., .3])
def test_seeds_that_agree_are_not_certainty(rule, value):
    check = replace(load_paper('robust').claims['C1'].checks[0], arms={'a': 'x', 'b': 'y'}, effect='a.m - b.m', rule=rule, margin=.1)
    runs = lambda **kw: [{k: Record('demo', f'{k}{s}', {}, s, dict(m=.1*s+value*(k == 'a')), **kw) for k in 'ab'} for s in range(3)]
    j = judge.judge(check, runs())
    assert j.verdict == 'not settled' and j.effect == pytest.approx(value) and np.isnan([j.low, j.high]).all() and 'all seeds agree' in j.note
    wide = runs()
    for x in wide: x['a'].items['m'], x['b'].items['m'] = [1., 1., 0., 1.]*50, [0., 1., 1., 1.]*50
    j = judge.judge(check, wide)
    assert np.isfinite([j.low, j.high]).all() and j.verdict != 'not settled' and not j.note


def test_no_spread_has_no_interval():
    d = mean_diff(np.subtract([.3, .4, .5], [.1, .2, .3]))
    assert d.effect == pytest.approx(.2) and np.isnan([d.low, d.high, d.p]).all()
    assert np.isnan(mean_ci([1/3, 1/3, 1/3])[1:]).all() and np.isfinite(mean_ci([.1, .2])).all() and holm([d.p, .01]) == [1., .02]
    row = dict(pinned=.333333, now=1/3, n=3, low=np.nan, high=np.nan)
    assert not compare.moved(row) and compare.moved(row | dict(now=.4))


def test_cells_that_nobody_read_or_ran_are_one_line():
    row = dict(cell='c1', paper='0.5', source='', pinned=None, now=np.nan, n=0, low=np.nan, high=np.nan, verdict='not measured', command='', keys=[])
    lost, run = row | dict(cell='c2', paper='–'), row | dict(cell='c3', paper='–', n=1, now=.7)
    both = compare.Comparison([row, lost, run, lost])
    assert len(both.df) == len(both.rows) == 4
    html = re.sub(r'<style.*?</style>| (id|class)="[^"]*"', '', both._repr_html_(), flags=re.S)
    assert all(c in html for c in ('c1', 'c3', '2 cells of the table could not be read')) and 'c2' not in html
    assert compare.Comparison([lost])._table().startswith('<p>1 cells') and compare.Comparison([])._table() == ''


@pytest.mark.parametrize('paper', find_papers())
def test_every_check_says_what_it_measures(paper):
    "A number in a list of claims is of something; and where a check stands for several tasks, of which"
    checks = [(k, c) for k, claim in load_paper(paper).claims.items() for c in claim.checks if {'laptop', 'gpu'} & {*c.presets}]
    assert not [(k, c.effect) for k, c in checks if 'laptop' in c.presets and not c.what or '{}' in c.what]


ARM_WORDS = {'plain': 'plain', 'salt': 'SALT', 'switch': 'switching', 'mix': 'mixing', 'random': 'random words', 'shuffled': 'shuffled', 'repeat': 'repeated',
             'english': 'English proposals', 'mask': 'hidden', 'synonyms': 'synonyms', 'tlm': 'translations', 'long': 'read more', 'rsda': 'RS-DA',
             'released': 'RS-DA', 'rsda_originals': 'RS-DA', 'rsrp': 'RS-RP', 'rsrp_originals': 'RS-RP', 'rsrp_fixed': 'RS-RP', 'adv': 'ADV',
             'adv_fixed': 'ADV', 'random_originals': 'random words', 'random_released': 'random words', 'exact_random': 'random words',
             'META': 'first|both|all', 'JOINT': 'joint|shared places', 'JOINT_EN': 'joint with as much', 'XPHASE': 'second|nothing carried'}
TASK_WORDS = {'cldr': 'emoji names', 'intent': 'intents', 'topic': 'topics', 'infer': 'invented inference', 'pawsx': 'PAWS-X'}


@pytest.mark.parametrize('paper', PAPERS)
def test_a_difference_is_told_the_right_way_round(paper):
    "`loss`: less is better, and what stands first is still what is subtracted from"
    for claim in load_paper(paper).claims.values():
        for c in claim.checks:
            two = re.fullmatch(r'([a-z]\w*)\.\w+ - ([a-z]\w*)\.\w+', c.effect)
            first, minus, then = c.what.partition(' minus ')
            if not two or not minus or c.arms[two[1]] == c.arms[two[2]]: continue
            for side, arm in (first, c.arms[two[1]]), (then, c.arms[two[2]]):
                word = ARM_WORDS.get(arm.split('-')[-1])
                assert word is None or re.search(word, side), (claim.id, c.what, c.effect, c.arms)


@pytest.mark.parametrize('paper', FIRST_CLAIM)
def test_checks_of_a_claim_are_told_apart(paper):
    "A task that a sentence names is that of its arms, and no two checks of a preset say the same"
    for claim in load_paper(paper).claims.values():
        for c in claim.checks:
            said = {t for t, words in TASK_WORDS.items() if words in c.what}
            assert all(any(t in a for a in c.arms.values()) for t in said), (claim.id, c.what, c.arms)
        for preset in {p for c in claim.checks for p in c.presets}:
            told = [c.what for c in claim.checks if preset in c.presets and c.what]
            assert len(told) == len(set(told)), (claim.id, preset, told)
