"Figures take records and rows and say what is missing"
import numpy as np
import pytest

from xltnb.papers.mothello import boards as board_figures
from xltnb.verdicts import figures as verdicts
from xltnb.papers.mothello import finetuning_figures as moving
from xltnb.papers.mothello import figures
from xltnb.core import XltError
from xltnb.records.record import Record


def align(k, seed, **curves):
    m = dict(within=.7, across=.5+.02*k, control=.5, majority_square=.55) | {f'across_s{s}': .5 for s in range(4)}
    m |= {f'{w}_L{layer}': .6 for w in ('within', 'across') for layer in range(3)}
    return Record('mothello.align', f'k{k}{seed}', dict(world=dict(n=6, kinds=['atomic', 'atomic'], anchors=k)), seed, m, curves, arm=f'align-atomic-{k}', labels=dict(study='pairs', second='atomic', anchors=k))


def transfer(arm, seed):
    cols = {c: [.1*seed, .5, .6] for c in ('source', 'target', 'source_lax', 'target_lax', 'probe')} | dict(wrong_language=[.1, .2, .3])
    return Record('mothello.transfer', f't{arm}{seed}', {}, seed, {}, dict(finetune=dict(epoch=[0, 2, 4], **cols)), arm=f'transfer-atomic-{arm}',
                  labels=dict(study='transfer', second='atomic', approach=arm))


def lines(fig, name): return [t for t in fig.data if t.legendgroup == name or t.name == name]


def test_board_takes_classes_and_probabilities():
    p = np.full((16, 3), 1/3); p[5] = 0, .1, .9
    fig = board_figures.board_fig(dict(a=np.ones(16), b=p), 4, last=5)
    assert len(fig.data) == 4 and fig.data[2].marker.opacity[5] == .9
    assert set(fig.data[0].marker.opacity) == {0.}
    assert fig.data[0].text[5].startswith('b2')
    with pytest.raises(XltError, match='16 classes'): board_figures.board_fig(dict(a=np.ones(9)), 4)


def test_anchor_counts_in_order_with_a_dot_a_seed():
    fig = figures.anchors_fig([align(k, s) for k in (8, 0, 2) for s in range(3)])
    mean, dots = lines(fig, 'across languages')
    np.testing.assert_allclose(mean.y, [.5, .54, .66])
    assert len(dots.y) == 9 and list(fig.layout.xaxis.ticktext) == ['0', '2', '8']


def test_one_seed_has_no_thin_line():
    assert len(lines(figures.layers_fig([align(0, 0)]), 'across languages')) == 1
    assert len(lines(figures.layers_fig([align(0, s) for s in range(3)]), 'across languages')) == 4


def test_transfer_counts_as_the_paper_beside_the_paper():
    runs = [transfer(a, s) for a in ('unified', 'naive', 'anchors') for s in range(2)]
    plain, beside = moving.transfer_fig(runs), moving.transfer_fig(runs, moving.printed_curves())
    assert 'side to move' in plain.layout.title.subtitle.text and 'either side' in beside.layout.title.subtitle.text
    of = lambda fig, name: [t for t in fig.data if name in (t.legendgroup or '')]
    assert len(of(beside, 'paper')) == 9 and not of(plain, 'paper')
    assert len(of(plain, 'any language')) == 9 and not of(beside, 'any language'), 'two seeds and their mean for each approach; the paper has no such curve'
    assert len(moving.wrong_language_fig(runs).data) == 9


def test_matrix_is_ordered_by_cluster():
    m = np.where(np.equal.outer([0, 1, 0, 1, 1], [0, 1, 0, 1, 1]), .9, .5)
    assert figures.cluster_order(m) == [1, 3, 4, 0, 2]
    rec = Record('x', 'k', {}, 0, curves=dict(matrix=dict(across=m.tolist(), sym=m.tolist())), arm='naive5')
    assert list(figures.matrix_fig(rec).data[0].x) == ['1', '3', '4', '0', '2']
    with pytest.raises(XltError, match='no matrix'): figures.matrix_fig(align(0, 0))


def test_answers_add_up_to_one_and_approaches_keep_their_order():
    fig = moving.wrong_language_fig([transfer(a, s) for a in ('unified', 'naive', 'anchors') for s in range(2)])
    assert [a.text for a in fig.layout.annotations] == ['naive', 'anchors', 'unified']
    for panel in range(3): np.testing.assert_allclose(np.sum([t.y for t in fig.data[3*panel:3*panel+3]], axis=0), 1)


def test_titles_say_what_the_records_say():
    assert figures.anchors_fig([align(k, s) for k in (0, 8) for s in range(3)]).layout.title.text == 'Across languages 0.50 (no anchors), 0.66 (8 anchors); within a language 0.70'
    fig = moving.transfer_fig([transfer('naive', s) for s in range(2)])
    assert fig.layout.title.text == 'The other language moves +55 (naive) points'


def test_the_paper_stands_beside_ours():
    fig = figures.anchors_fig([align(k, s) for k in (0, 4, 8) for s in range(2)])
    paper, = lines(fig, 'the paper, across')
    assert list(zip(paper.x, paper.y)) == [(0, .53), (1, .97)]  # it prints no 8
    assert not lines(figures.anchors_fig([align(0, 0)], printed={}), 'the paper, across')


def test_single_targets_are_drawn_apart():
    rec = transfer('naive', 0)
    rec.arm, rec.config = 'transfer4-naive', dict(world=dict(kinds=['atomic', 'atomic', 'split', 'compositional']))
    rec.curves['finetune'] |= {f'target_{lax}{j}': [.9, .8, .1*j] for j in (1, 2, 3) for lax in ('', 'lax_')}
    fig = moving.transfer_fig([rec], moving.printed_curves(table='F6'))
    assert lines(fig, 'legal moves, split target')[0].y[-1] == .2
    assert fig.layout.title.text.startswith('The other languages move on average')
    assert len([t for t in fig.data if t.legendgroup == 'paper']) == 5


def test_runs_of_two_presets_are_not_drawn_as_one():
    long = transfer('naive', 1)
    long.curves['finetune'] = {k: v+v for k, v in long.curves['finetune'].items()}
    with pytest.raises(XltError, match='one preset at a time'): moving.transfer_fig([transfer('naive', 0), long])


def test_boards_under_symmetries():
    from xltnb.othello.rules import symmetries
    b = np.arange(16) % 3
    fig = board_figures.boards_under_symmetries_fig(b, 4, last=1)
    same = [a.text.split(': ')[-1] for a in fig.layout.annotations][1:]
    assert same == [f'{(b[i]==b).mean():.0%} the same' for i in symmetries(4)[1:]]
    assert (fig.data[5].x[0], fig.data[5].y[0]) == (2, 3)  # a2 lands on d3


def test_claims_of_every_verdict_have_a_row():
    rows = [dict(claim=f'p.C{i}', preset='smoke', verdict=v, effect=np.nan if v in ('not measured', 'not read') else .1*i, low=np.nan, high=None, n=i, margin=None) for i, v in enumerate(verdicts.VERDICT_LOOK)]
    fig = verdicts.claims_fig(rows)
    assert list(fig.layout.yaxis.categoryarray) == [r['claim'] for r in rows][::-1]
    assert len(fig.layout.annotations) == 2 and fig.layout.title.text == f'Of {len(verdicts.VERDICT_LOOK)} claims: ' + ', '.join(f'1 {v}' for v in verdicts.VERDICT_LOOK)


@pytest.mark.parametrize('rule,inside', [('above', (.1, None)), ('below', (None, .1)), ('within', (-.1, .1))])
def test_the_claimed_side_is_shaded(rule, inside):
    row = dict(claim='p.C1', preset='smoke', verdict='held', effect=.5, low=.4, high=.6, n=3, margin=.1, rule=rule)
    fig = verdicts.claims_fig([row])
    box, = [s for s in fig.layout.shapes if s.type == 'rect']
    assert (box.x0, box.x1) == tuple(e if w is None else w for w, e in zip(inside, fig.layout.xaxis.range))


def test_what_counting_moves_scores_is_drawn_where_every_run_has_it():
    runs = [align(k, s) for k in (0, 4) for s in range(2)]
    name = 'commonest state of each square and move'
    assert not lines(figures.anchors_fig(runs), name) and lines(figures.anchors_fig(runs), 'commonest state of each square')
    for r in runs: r.metrics['majority_square_and_move'] = .61
    for fig in (figures.anchors_fig(runs), figures.layers_fig(runs)): assert set(lines(fig, name)[0].y) == {.61}


def test_a_short_and_a_long_pair_stand_side_by_side():
    looks = lambda t: dict(probe=dict(tokens=[t/2, t], within=[.6, .7], across=[.5, .55], across_sym=[.5, .6]))  # noqa: E731
    short, long = [align(0, s, **looks(12e6)) for s in range(2)], [align(0, s, **looks(52e6)) for s in range(2)]
    for r in long: r.arm, r.labels = 'long-atomic-0', dict(study='longer', second='atomic', anchors=0)
    for r in short+long: r.metrics['across_sym'] = .7 if r.arm.startswith('long') else .52
    fig = figures.probe_curve_fig(short+long)
    assert fig.layout.title.text == 'Across languages: 0.55 after 12 M tokens (no anchors), 0.55 after 52 M tokens (longer)'
    assert len([t for t in fig.data if t.name == 'across languages, best symmetry']) == 2
    assert figures.symmetry_fig(short+long).layout.title.text == 'The best symmetry beats the control by +0.02 (no anchors), +0.20 (longer)'
    assert figures.symmetry_fig(long).layout.title.text == 'Longer: 0.50 as it is, 0.70 under the best symmetry, control 0.50'
    names = [n for n, _ in figures.mothello_figures(short+long)]
    assert 'the longer pair, by layer' in names and 'the longer pair, by layer' not in [n for n, _ in figures.mothello_figures(short)]


@pytest.mark.parametrize('draw', ['anchors_fig', 'layers_fig', 'symmetry_fig'])
def test_nothing_to_draw_is_said(draw):
    with pytest.raises(XltError, match='no records'): getattr(figures, draw)([])


def test_other_figures_keep_their_look():
    import plotly.io as pio
    assert pio.templates.default != 'xltnb'


def test_every_figure_of_a_page_has_a_still_picture():
    "Repository viewers, mail and print run no script: `make stills` draws what is missing"
    import json
    from conftest import PAGES, ROOT
    bare = []
    for p in PAGES:
        outs = [o.get('data', {}) for c in json.loads(p.read_text(encoding='utf-8'))['cells'] for o in c.get('outputs', ())]
        for d in (d for d in outs if 'application/vnd.plotly.v1+json' in d):
            picture = ''.join(d.get('image/svg+xml', '')) or d.get('image/png', '')
            if not 0 < len(picture) < 60_000: bare.append(f'{p.relative_to(ROOT)}: {len(picture)} bytes')
    assert not bare, bare


def test_a_still_picture_holds_what_the_figure_holds():
    import xml.etree.ElementTree as ET
    import plotly.graph_objects as go
    from xltnb.still.still import still
    fig = go.Figure([go.Bar(x=['en', 'de'], y=[.8, -.2], name='a < b'), go.Bar(x=['en', 'de'], y=[.1, .2], name='c')])
    fig.add_hline(.5, line_dash='dot').update_layout(title_text='A & B', yaxis_title='points')
    words = ' '.join(ET.fromstring(still(fig)).itertext())
    assert all(w in words for w in ('a < b', 'A & B', 'points', 'en', 'de', '−0.2'))
    heat = go.Figure(go.Heatmap(z=[[1, None], [.5, 0]], texttemplate='%{z:.1f}'))
    assert 'nan' not in still(heat).lower() and still(heat).count('</text>') >= 6
    assert '<svg' in still(go.Figure())
    log = go.Figure(go.Scatter(x=[.01, .1, 1], y=[1, 2, None], mode='lines+markers')).update_xaxes(type='log')
    assert all(t in still(log) for t in ('>0.01<', '>0.1<', '>1<'))
