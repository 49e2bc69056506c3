"Figures take records and rows and say what is missing"
import numpy as np
import pytest

figures = pytest.importorskip('xltnb.figures')
from xltnb.core import XltError  # noqa: E402
from xltnb.store import Record  # noqa: E402


def align(k, seed, **curves):
    m = dict(within=.7, across=.5+.02*k, control=.5, majority_square=.55) | {f'across_s{s}': .5 for s in range(4)}
    m |= {f'{w}_L{layer}': .6 for w in ('within', 'across') for layer in range(3)}
    return Record('mothello.align', f'k{k}{seed}', dict(world=dict(n=6, kinds=['atomic', 'atomic'], anchors=k)), seed, m, curves, arm=f'align-atomic-{k}')


def transfer(arm, seed):
    cols = {c: [.1*seed, .5, .6] for c in ('source', 'target', 'source_lax', 'target_lax', 'probe', 'wrong_language')}
    return Record('mothello.transfer', f't{arm}{seed}', {}, seed, {}, dict(finetune=dict(epoch=[0, 2, 4], **cols)), arm=f'transfer-atomic-{arm}')


def lines(fig, name): return [t for t in fig.data if t.legendgroup == name or t.name == name]


def test_board_takes_classes_and_probabilities():
    p = np.full((16, 3), 1/3); p[5] = 0, .1, .9
    fig = figures.board_fig(dict(a=np.ones(16), b=p), 4, last=5)
    assert len(fig.data) == 4 and fig.data[2].marker.opacity[5] == .9
    assert set(fig.data[0].marker.opacity) == {0.}
    assert fig.data[0].text[5].startswith('b2')
    with pytest.raises(XltError, match='16 classes'): figures.board_fig(dict(a=np.ones(9)), 4)


def test_anchor_counts_in_order_with_a_dot_a_seed():
    fig = figures.anchors_fig([align(k, s) for k in (8, 0, 2) for s in range(3)])
    mean, dots = lines(fig, 'across languages')
    np.testing.assert_allclose(mean.y, [.5, .54, .66])
    assert len(dots.y) == 9 and list(fig.layout.xaxis.ticktext) == ['0', '2', '8']


def test_one_seed_has_no_thin_line():
    assert len(lines(figures.layers_fig([align(0, 0)]), 'across languages')) == 1
    assert len(lines(figures.layers_fig([align(0, s) for s in range(3)]), 'across languages')) == 4


def test_transfer_counts_as_the_paper_beside_the_paper():
    runs = figures.by_arm([transfer(a, s) for a in ('naive', 'anchors', 'unified') for s in range(2)])
    plain, beside = figures.transfer_fig(runs), figures.transfer_fig(runs, figures.printed_curves())
    assert 'side to move' in plain.layout.title.subtitle.text and 'either side' in beside.layout.title.subtitle.text
    assert len(beside.data) - len(plain.data) == 9
    assert len(figures.wrong_language_fig(runs).data) == 9


def test_matrix_is_ordered_by_cluster():
    m = np.where(np.equal.outer([0, 1, 0, 1, 1], [0, 1, 0, 1, 1]), .9, .5)
    assert figures.cluster_order(m) == [1, 3, 4, 0, 2]
    rec = Record('x', 'k', {}, 0, curves=dict(matrix=dict(across=m.tolist(), sym=m.tolist())), arm='naive5')
    assert list(figures.matrix_fig(rec).data[0].x) == ['1', '3', '4', '0', '2']
    with pytest.raises(XltError, match='no matrix'): figures.matrix_fig(align(0, 0))


def test_claims_of_every_verdict_have_a_row():
    rows = [dict(claim=f'p.C{i}', preset='smoke', verdict=v, effect=np.nan if v in ('todo', 'open') else .1*i, low=np.nan, high=None, n=i, margin=None) for i, v in enumerate(figures.VERDICT_LOOK)]
    fig = figures.claims_fig(rows)
    assert list(fig.layout.yaxis.categoryarray) == [r['claim'] for r in rows][::-1]
    assert len(fig.layout.annotations) == 2


@pytest.mark.parametrize('draw', ['anchors_fig', 'layers_fig', 'symmetry_fig'])
def test_nothing_to_draw_is_said(draw):
    with pytest.raises(XltError, match='no records'): getattr(figures, draw)([])


def test_other_figures_keep_their_look():
    import plotly.io as pio
    assert pio.templates.default != 'xltnb'
