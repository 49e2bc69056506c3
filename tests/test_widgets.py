"The explorer's logic: every control changes the picture, a game is computed once, wrong names are refused"
import json

import numpy as np
import pytest

from xltnb.core import XltError


@pytest.fixture
def explorer():
    from xltnb.papers.mothello.explorer import OthelloExplorer
    return OthelloExplorer()


def drawn(ex): return json.dumps(ex.fig().to_plotly_json(), default=lambda a: np.asarray(a).tolist(), sort_keys=True)


@pytest.mark.parametrize('name,value', [('model', 'anchors'), ('game', 3), ('move', 20), ('told', 1), ('probe', 1), ('layer', 0), ('symmetry', 1), ('swapped', True)])
def test_a_control_changes_the_picture(explorer, name, value):
    before = drawn(explorer)
    explorer.controls[name].value = value
    assert drawn(explorer) != before


def test_the_live_figure_follows(explorer):
    import plotly.graph_objects as go
    explorer.live = go.FigureWidget(explorer.fig())
    for name, value in (('move', 15), ('told', 1), ('model', 'anchors'), ('game', 7), ('symmetry', 2)):
        explorer.controls[name].value = value
        fig = explorer.fig()
        assert explorer.live.layout.title.text.startswith(fig.layout.title.text)
        for a, b in zip(explorer.live.data, fig.data):
            assert np.array_equal(a.x, b.x) if a.type == 'scatter' else np.array_equal(a.z, b.z)


def test_a_game_is_computed_once(explorer, monkeypatch):
    from xltnb.papers.mothello import demo
    calls, real = [], demo.game_states
    monkeypatch.setattr(demo, 'game_states', lambda *a: calls.append(a) or real(*a))
    explorer.games.clear()
    for move in range(1, 20): explorer.controls['move'].value = move; explorer.fig()
    for layer in range(3): explorer.controls['layer'].value = layer; explorer.fig()
    assert len(calls) == 1


def test_the_true_board_is_true(explorer):
    from xltnb.othello.rules import Position, classes, play
    d, s = explorer.demo('naive'), explorer.states()
    p = Position.start(d.n)
    for t, sq in enumerate(s.moves):
        p = play(p, sq)
        assert np.array_equal(classes(p), s.boards[t])
        assert list(np.flatnonzero(s.legal[t])) == p.legal()
        assert s.black_moves[t] == p.black_moves


def test_every_game_fits(explorer):
    for game in range(0, 50, 10):
        explorer.controls['game'].value = game
        explorer.controls['move'].value = explorer.controls['move'].max
        explorer.fig()


def test_a_symmetry_is_read_as_the_measure_reads_it(explorer):
    "Squares right under a symmetry agree with `board_accuracy`"
    import torch

    from xltnb.othello.replays import GameSet
    from xltnb.othello.games import board_classes, replay
    from xltnb.othello.probes import board_accuracy
    from xltnb.papers.mothello.explorer import probe_board
    d = explorer.demo('naive')
    game = d.games(1)
    s, r = d.states(game[0]), replay(game, d.n)
    boards = torch.from_numpy(board_classes(r)[:, :-1].copy()).long()
    gs = GameSet(torch.from_numpy(game), r, boards, torch.ones(boards.shape[:2], dtype=torch.bool))
    acc = board_accuracy(torch.from_numpy(s.probes[2, 1].argmax(-1))[None], gs)
    for k in range(4):
        for flip in (False, True):
            mine = np.mean([probe_board(d, s, t, 1, 2, k, flip).argmax(-1) == s.boards[t] for t in range(len(s.moves))])
            assert abs(mine-float(acc[k, int(flip), 0])) < 1e-6


def test_wrong_names():
    from xltnb.core import XltError
    from xltnb.papers.mothello.demo import load_demo, make_demo
    from xltnb.papers.mothello.explorer import OthelloExplorer
    with pytest.raises(XltError, match="did you mean 'naive'"): OthelloExplorer('naiv')
    with pytest.raises(XltError, match='choose from: naive, anchors'): make_demo('x')
    with pytest.raises(XltError, match='missing'): load_demo('naive', '/nowhere')


def test_a_broken_file_says_so(tmp_path):
    from xltnb.core import XltError
    from xltnb.papers.mothello.demo import load_demo
    (tmp_path/'mothello_naive.json').write_text('{}', encoding='utf-8')
    (tmp_path/'mothello_naive.safetensors').write_bytes(b'not weights')
    with pytest.raises(XltError, match='install the package again'): load_demo('naive', tmp_path)


def test_without_a_kernel_the_plain_figure_is_shown_and_with_one_the_controls(explorer, monkeypatch):
    import ipywidgets as W
    import plotly.graph_objects as go

    from xltnb.figures import explorer as page
    kind = type(explorer)
    shown, made, real = [], [], kind.widget
    monkeypatch.setattr(page, 'display', lambda x, **_: shown.append(x))
    monkeypatch.setattr(kind, 'widget', lambda self: made.append(real(self)) or made[-1])
    explorer._ipython_display_()
    assert not made
    monkeypatch.setattr(page, 'kernel_answers', lambda: True)
    explorer._ipython_display_()
    assert isinstance(shown[0], go.Figure) and not isinstance(shown[0], go.FigureWidget)
    assert shown[1]['application/vnd.jupyter.widget-view+json']['model_id'] == made[0].model_id
    assert shown[1]['image/svg+xml'].startswith('<svg')  # for readers of the saved page
    assert isinstance(made[0].children[0].children[0], W.IntSlider) and isinstance(made[0].children[-1], go.FigureWidget)
    explorer.controls['move'].value = 20
    assert made[0].children[-1].layout.title.text.startswith(explorer.fig().layout.title.text)


def test_a_drag_is_answered_at_once(explorer):
    "Half of 50 moves of the slider within 150 ms each, figure included"
    from time import perf_counter
    explorer.widget()
    took = []
    for i in range(50):
        start = perf_counter()
        explorer.controls['move'].value = 11+i % 15
        took.append(perf_counter()-start)
    assert np.median(took) < .15, sorted(took)


def test_a_paper_brings_its_widget():
    from xltnb import explore
    assert type(explore('mothello')).__name__ == 'OthelloExplorer'
    with pytest.raises(XltError, match='mothello'): explore('motello')


def test_every_explorer_leaves_a_picture_beside_its_widget(monkeypatch):
    "One mechanism for all papers: no widget shows itself in another way"
    from xltnb.figures.explorer import Explorer
    from xltnb.figures.explorer import _WIDGETS
    from xltnb.runs.experiments import has_part, load_part, papers
    for p in (p for p in papers() if has_part(p, 'explorer')): load_part(p, 'explorer')
    assert len(_WIDGETS) > 1
    for paper, kind in _WIDGETS.items():
        assert issubclass(kind, Explorer) and kind._ipython_display_ is Explorer._ipython_display_, f'{paper}: {kind.__name__} is no Explorer'


def test_arms_can_be_switched_in_any_order():
    "Every state of up to two arms of the shipped runs is drawn; an arm that starts in the second phase has no boundary"
    from itertools import combinations
    from xltnb.papers.metapretrain.explorer import PhasesExplorer
    e = PhasesExplorer()
    arms = list(e.runs)
    for on in [(), *((a,) for a in arms), *combinations(arms, 2)]:
        for a in arms: e.controls[a].value = a in on
        assert sum(t.visible is not False for t in e.fig().data) == 3*len(on)


@pytest.mark.parametrize('text, says', [('', 'the sentence is empty'), ('a', 'no word'), ('house '*600, 'subwords: type at most 100')])
def test_a_sentence_that_cannot_be_read_is_told(text, says):
    from xltnb.papers.salt.explorer import SaltExplorer
    e = SaltExplorer()
    e.controls['text'].value = text
    assert says in e.said and e.fig()


def test_a_still_of_nothing():
    import plotly.graph_objects as go
    from xltnb.still.still import still
    for z in ([], [[]]): assert still(go.Figure(go.Heatmap(z=z))).startswith('<svg')


def test_eight_words_can_be_read():
    "A row a word, letters of at least 12 pixels, and no proposal wider than its cell in the narrowest column"
    from xltnb.figures.look import COLUMN
    from xltnb.papers.salt.explorer import SaltExplorer
    from xltnb.still.ink import text_width
    e = SaltExplorer('river, mountain, house, water, green, music, school, winter')
    table, layout = e.fig().data[0], e.fig().layout
    assert len(table.y) == 8 and table.textfont.size >= 12
    words = max(text_width(w, 12) for w in table.y)
    assert max(text_width(t, table.textfont.size) for row in table.text for t in row) < (COLUMN-words-50)/len(table.text[0])
    assert layout.height*(layout.yaxis.domain[1]-layout.yaxis.domain[0])/8 > 14  # a row is higher than its letters


def test_an_explorer_opens_as_it_was_made():
    "No test cell of a page leaves its residue in a widget that the page shows"
    import json
    from conftest import NBS
    for page in (NBS/'papers').glob('*/*_explore.ipynb'):
        shown = [o['data'] for c in json.loads(page.read_text(encoding='utf-8'))['cells'] for o in c.get('outputs', ()) if 'application/vnd.plotly.v1+json' in o.get('data', {})]
        assert len(shown) == 1, page.name
    from xltnb.papers.salt.explorer import SaltExplorer
    start = SaltExplorer()
    before, after = (start.line(start.value('text'), start.chosen)[i] for i in (0, -1))
    assert after.argmax() == before.argmax() and after.max() > before.max()  # it opens on an effect


def test_settings_that_hang_on_others():
    "A word brings its proposals, a game its number of moves, in whatever order they are given"
    from xltnb.papers.mothello.explorer import OthelloExplorer
    from xltnb.papers.salt.explorer import SaltExplorer
    e = SaltExplorer(proposal=-1, word=1)
    assert [l for l, _ in e.controls['proposal'].options] == [l for l, _ in e.proposal_options(e.value('text'), 1)] and 1 not in e.chosen
    assert 'with 0 of 7 words' in SaltExplorer(switched={0: -1}).fig().layout.title.text
    for bad in (dict(switched={0: 35}), dict(switched={99: 0}), dict(word=99)):
        with pytest.raises(XltError, match='cannot'): SaltExplorer(**bad)
    o = OthelloExplorer(move=99, game=35)
    assert o.value('move') == len(o.states().moves) and o.fig()
