"Figures take records and rows and say what is missing"
import numpy as np
import pytest

from xltnb.papers.mothello import boards as board_figures
from xltnb.verdicts import figures as verdicts
from xltnb.papers.mothello import finetuning_figures as moving
from xltnb.papers.mothello import figures
from xltnb.core import XltError
from xltnb.figures.look import caption_of
from xltnb.records.record import Record


def align(k, seed, **curves):
    m = dict(within=.7, across=.5+.02*k, control=.5, majority_square=.55) | {f'across_s{s}': .5 for s in range(4)}
    m |= {f'{w}_L{layer}': .6 for w in ('within', 'across') for layer in range(3)}
    return Record('mothello.align', f'k{k}{seed}', dict(world=dict(n=6, kinds=['atomic', 'atomic'], anchors=k)), seed, m, curves, arm=f'align-atomic-{k}', labels=dict(study='pairs', second='atomic', anchors=k))


def transfer(arm, seed):
    cols = {c: [.1*seed, .5, .6] for c in ('source', 'target', 'source_lax', 'target_lax', 'probe')} | dict(wrong_language=[.1, .2, .3])
    return Record('mothello.transfer', f't{arm}{seed}', {}, seed, {}, dict(finetune=dict(epoch=[0, 2, 4], **cols)), arm=f'transfer-atomic-{arm}',
                  labels=dict(study='transfer', second='atomic', approach=arm))


def said(title): return title.text.replace('<br>', ' ')  # whatever lines it was broken into


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
    thin, mean = lines(figures.layers_fig([align(0, s) for s in range(3)]), 'across languages')  # the lines of three seeds are one trace with gaps
    assert np.isnan(np.array(thin.y, float)).sum() == 3 and len(thin.y) == 3*(len(mean.y)+1)


def test_transfer_counts_as_the_paper_beside_the_paper():
    runs = [transfer(a, s) for a in ('unified', 'naive', 'anchors') for s in range(2)]
    plain, beside = moving.transfer_fig(runs), moving.transfer_fig(runs, moving.printed_curves())
    assert 'side to move' in said(plain.layout.title.subtitle) and 'either side' in said(beside.layout.title.subtitle)
    of = lambda fig, name: [t for t in fig.data if name in (t.legendgroup or '')]
    assert len(of(beside, 'paper')) == 9 and not of(plain, 'paper')
    assert len(of(plain, 'any words')) == 6 and not of(beside, 'any words'), 'two seeds in one trace and their mean for each approach; the paper has no such curve'
    assert all(np.isnan(np.array(t.y, float)).sum() == 2 for t in of(plain, 'any words')[::2]), 'a gap behind each seed'
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
    assert said(figures.anchors_fig([align(k, s) for k in (0, 8) for s in range(3)]).layout.title) == 'Across languages 0.50 (no anchors), 0.66 (8 anchors); within a language 0.70'
    fig = moving.transfer_fig([transfer('naive', s) for s in range(2)])
    assert said(fig.layout.title) == 'Legal moves in the other language: +55 (naive) points'


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
    assert lines(fig, 'legal moves, other language, split')[0].y[-1] == .2
    assert said(fig.layout.title).startswith('Legal moves in the other languages, on average: +60')
    assert len([t for t in fig.data if t.legendgroup == 'paper']) == 5


def test_runs_of_two_presets_are_not_drawn_as_one():
    long = transfer('naive', 1)
    long.curves['finetune'] = {k: v+v for k, v in long.curves['finetune'].items()}
    with pytest.raises(XltError, match='one preset at a time'): moving.transfer_fig([transfer('naive', 0), long])


def test_claims_of_every_verdict_have_a_row():
    rows = [dict(claim=f'p.C{i}', preset='smoke', verdict=v, effect=np.nan if v in ('not measured', 'not read') else .1*i, low=np.nan, high=None, n=i, margin=None) for i, v in enumerate(verdicts.VERDICT_LOOK)]
    fig = verdicts.claims_fig(rows)
    assert list(fig.layout.yaxis.categoryarray) == [r['claim'] for r in rows][::-1]
    assert sum(a.text in verdicts.VERDICT_LOOK for a in fig.layout.annotations) == 2 and said(fig.layout.title) == f'Of {len(verdicts.VERDICT_LOOK)} claims: ' + ', '.join(f'1 {v}' for v in verdicts.VERDICT_LOOK)


@pytest.mark.parametrize('rule,inside', [('above', (.1, None)), ('below', (None, .1)), ('within', (-.1, .1))])
def test_the_claimed_side_is_shaded(rule, inside):
    row = dict(claim='p.C1', preset='smoke', verdict='held', effect=.5, low=.4, high=.6, n=3, margin=.1, rule=rule)
    fig = verdicts.claims_fig([row])
    box, = [s for s in fig.layout.shapes if s.type == 'rect']
    largest = .6  # of the row: what 1 means on its axis
    assert (box.x0, box.x1) == tuple(e if w is None else pytest.approx(w/largest) for w, e in zip(inside, fig.layout.xaxis.range))


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
    assert said(fig.layout.title) == 'Across languages: 0.55 after 12 M tokens (no anchors), 0.55 after 52 M tokens (no anchors, longer)'
    assert len([t for t in fig.data if t.name == 'across languages, best symmetry']) == 2
    assert said(figures.symmetry_fig(short+long).layout.title) == 'Best symmetry minus control within rings: +0.02 (no anchors), +0.20 (no anchors, longer)'
    assert said(figures.symmetry_fig(long).layout.title) == 'No anchors, longer: 0.50 as it is, 0.70 under the best symmetry, control within rings 0.50'
    short[1].metrics['control_orbits'] = short[1].metrics.pop('control')
    fig = figures.symmetry_fig(short+long)
    assert said(fig.layout.title) == 'Best symmetry minus control within orbits: +0.02 (atomic + atomic, no anchors)'
    assert [t.name for t in fig.data if t.x is not None and len(t.x) and t.y[0] == 'control'] == ['random relabellings within orbits', 'random relabellings within rings']
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


def test_a_hidden_axis_leaves_nothing_in_a_still():
    import plotly.graph_objects as go
    from xltnb.still.still import still
    fig = go.Figure(go.Heatmap(z=[[1, 2, 3]], showscale=False)).update_xaxes(title='a title')
    shown, hidden = still(fig), still(fig.update_xaxes(visible=False))
    assert '>2.0<' in shown and '>a title<' in shown and '>2.0<' not in hidden and '>a title<' not in hidden
    assert hidden.count('<path') < shown.count('<path') and '>0.0<' in hidden  # no line and no grid; the other axis stays


@pytest.mark.parametrize('flat', [False, True])
def test_bars_of_one_panel_stand_side_by_side(flat):
    "As plotly draws them: those that share a place part it, panel by panel; a trace alone in its panel keeps its width"
    import re
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots
    from xltnb.still.still import still
    fig, where = make_subplots(1, 2), ('y', 'height') if flat else ('x', 'width')
    for col, values, colour in ((1, [.5, .6], '#111111'), (2, [.2, .3], '#222222'), (2, [.2, .4], '#333333')):
        places = dict(x=values, y=['a', 'b'], orientation='h') if flat else dict(x=['a', 'b'], y=values)
        fig.add_trace(go.Bar(marker_color=colour, **places), 1, col)
    bars = re.findall(rf'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" fill="(#\w+)"', still(fig))
    at = {colour: (float(x if where[0] == 'x' else y), float(w if where[1] == 'width' else h)) for x, y, w, h, colour in bars[::2]}
    alone, (left, wide), right = (at[c] for c in ('#111111', '#222222', '#333333'))
    assert right[1] == pytest.approx(wide) and alone[1] == pytest.approx(2*wide, abs=.2) and abs(right[0]-left) == pytest.approx(wide, abs=.2)


# In a browser: what a reader meets at three widths, and in both themes at one. A text may touch no other text and no edge; a mark may not fade into its ground
LOOKED_AT = r'''geometry => {
  const rgb = c => { const m = c.match(/[\d.]+/g) || [0, 0, 0, 0]; return [+m[0], +m[1], +m[2], m[3] === undefined ? 1 : +m[3]] }
  const light = c => [.2126, .7152, .0722].reduce((s, w, i) => { const v = c[i]/255; return s + w*(v <= .04045 ? v/12.92 : ((v+.055)/1.055)**2.4) }, 0)
  const contrast = (c, a, ground) => { const on = [0, 1, 2].map(i => a*c[i]+(1-a)*ground[i]), [x, y] = [light(on), light(ground)].sort(); return (Math.max(x, y)+.05)/(Math.min(x, y)+.05) }
  const corners = t => { // of the letters: the box of a line is a third higher than they are
    const b = t.getBBox(), m = t.getScreenCTM(), q = .18*Math.min(b.height, 16)
    return [[b.x+.5, b.y+q], [b.x+b.width-.5, b.y+q], [b.x+b.width-.5, b.y+b.height-q], [b.x+.5, b.y+b.height-q]].map(([x, y]) => [m.a*x+m.c*y+m.e, m.b*x+m.d*y+m.f]) }
  const apart = (p, q) => [p, q].some(s => [0, 1].some(i => { // boxes that may be turned: a line parts them, along a side of either
    const n = [s[i][1]-s[i+1][1], s[i+1][0]-s[i][0]], at = r => r.map(v => v[0]*n[0]+v[1]*n[1]), a = at(p), b = at(q)
    return Math.max(...a) <= Math.min(...b) || Math.max(...b) <= Math.min(...a) }))
  const wrong = []
  for (const f of document.querySelectorAll('section')) {
    const svg = f.querySelector('.main-svg') || f.querySelector('svg'), box = svg.getBoundingClientRect(), live = f.querySelector('.js-plotly-plot'), body = rgb(getComputedStyle(document.body).backgroundColor)
    const colour = name => { const e = document.createElement('i'); e.style.color = name; f.append(e); const c = rgb(getComputedStyle(e).color); e.remove(); return c }
    const paper = live ? colour(live._fullLayout.paper_bgcolor) : rgb(getComputedStyle(f.querySelector('svg > rect')).fill), plot = live ? colour(live._fullLayout.plot_bgcolor) : paper
    const say = (what, s) => wrong.push(`${f.id}: ${what}: ${s}`)
    if (box.right > document.documentElement.clientWidth+1) say('wider than its column by', Math.round(box.right-document.documentElement.clientWidth))
    const texts = [...f.querySelectorAll('svg text')].filter(t => t.textContent.trim() && t.getBBox().width && getComputedStyle(t).visibility != 'hidden').map(t => ({t, q: geometry && corners(t), s: t.textContent.slice(0, 50)}))
    for (const {q, s} of geometry ? texts : []) {
      const xs = q.map(v => v[0]), ys = q.map(v => v[1]), over = Math.max(box.left-Math.min(...xs), Math.max(...xs)-box.right, box.top-Math.min(...ys), Math.max(...ys)-box.bottom)
      if (over > 1) say(`leaves the picture by ${Math.round(over)} px`, s)
    }
    if (geometry) texts.forEach((a, i) => texts.slice(i+1).forEach(b => { if (!apart(a.q, b.q)) say('stands on another text', `${a.s} | ${b.s}`) }))
    for (const {t, s} of texts) {
      const own = t.closest('.hm, .heatmaplayer, .annotation') || !live && /^#(111|fefefe)$/.test(t.getAttribute('fill')) || paper.join() != plot.join()
      const c = rgb(getComputedStyle(t).fill)
      if (!own && contrast(c, c[3], paper) < 3) say('is hard to read', s)
    }
    for (const m of live && paper.join() == plot.join() ? f.querySelectorAll('.scatterlayer .point, .scatterlayer .js-line, .barlayer .point path') : []) {
      const look = getComputedStyle(m), shown = [['fill', 'fillOpacity'], ['stroke', 'strokeOpacity']].filter(([k]) => look[k] != 'none').map(([k, o]) => { const c = rgb(look[k]); return [c, c[3]*look[o]*look.opacity] })
      if (shown.length && shown.some(([, a]) => a > .05) && Math.max(...shown.map(([c, a]) => contrast(c, a, plot))) < 1.25) { say('a mark fades into its ground', m.getAttribute('class')); break }
    }
  }
  return wrong }'''
DRAWN = '''() => [...document.querySelectorAll('section')].every(s => { const p = s.querySelector('.js-plotly-plot'), m = p && p.querySelector('.main-svg')
  return m && (p._fullLayout.width == m.getBoundingClientRect().width) && (p.layout.width || Math.abs(p._fullLayout.width-s.clientWidth) < 2) })'''


@pytest.fixture(scope='module')
def stored():
    "Every figure of a page, by page and cell, once"
    import json
    from conftest import NBS, PAGES
    found = {}
    for p in PAGES:
        for i, c in enumerate(json.loads(p.read_text(encoding='utf-8'))['cells']):
            for j, o in enumerate(c.get('outputs', ())):
                if fig := o.get('data', {}).get('application/vnd.plotly.v1+json'):
                    found.setdefault(json.dumps(fig, sort_keys=True), f'{p.relative_to(NBS).with_suffix("").as_posix()}-{i}-{j}')
    return {where: json.loads(fig) for fig, where in found.items()}


def sections(parts):
    ground = 'body{margin:0;background:#fff}@media(prefers-color-scheme:dark){body{background:#12171c}}.still{display:none}section>svg{max-width:100%;height:auto}' # as `img.still` on the site
    return f'<!doctype html><meta charset="utf-8"><style>{ground}</style>' + ''.join(f'<section id="{k}">{v}</section>' for k, v in parts.items())


def test_the_text_of_every_figure_stands_free_and_every_mark_is_seen(browser, stored, tmp_path):
    "The site's columns on screens of 760 and 1400 pixels are 607 and 760 wide; a phone of 390 shows the still picture"
    from pathlib import Path

    import plotly

    from xltnb.dev.staging import _DRAWN, figure_html
    from xltnb.still.still import still
    script = (Path(plotly.__file__).parent/'package_data'/'plotly.min.js').as_uri()
    (tmp_path/'live.html').write_text(f'<script src="{script}"></script>{_DRAWN}' + sections({k: figure_html(d, f'f-{i}') for i, (k, d) in enumerate(stored.items())}), encoding='utf-8')
    (tmp_path/'still.html').write_text(sections({k: still(d, 390) for k, d in stored.items()}), encoding='utf-8')
    wrong = []
    for name, widths, ready in (('still', (390,), '() => true'), ('live', (607, 760), DRAWN)):
        page = browser.new_page(viewport=dict(width=widths[0], height=900))
        page.set_default_timeout(300_000)  # a busy machine is slow, not broken
        page.goto((tmp_path/f'{name}.html').as_uri())
        for theme, width in (*(('light', w) for w in widths), ('dark', widths[-1])):  # where a text stands does not depend on the theme
            page.set_viewport_size(dict(width=width, height=900))
            page.emulate_media(color_scheme=theme)
            page.evaluate("dark => document.documentElement.classList.toggle('quarto-dark', dark)", theme == 'dark')  # what the site sets, and live figures watch
            page.wait_for_function(ready)
            wrong += [f'{width} px, {theme}: {w}' for w in page.evaluate(LOOKED_AT, theme == 'light')]
        page.close()
    assert not wrong, '\n'.join(wrong)


def test_every_figure_of_a_paper_has_a_caption_that_counts_its_seeds(stored):
    "What is drawn, what to see, how many seeds; a figure that was made for a lesson has none"
    bare = [k for k, d in stored.items() if k.startswith('papers/') and '/0' not in k and '/1' not in k and not caption_of(d)]
    assert not bare, bare
    from xltnb.figures.explorer import _WIDGETS, Explorer
    from xltnb.runs.experiments import has_part, load_part, papers
    for p in (p for p in papers() if has_part(p, 'explorer')): load_part(p, 'explorer')
    widgets = {Explorer.caption(kind.__new__(kind)) for kind in _WIDGETS.values()}  # what they draw is set by their controls
    told = [said for k, d in stored.items() if k.startswith('papers/') and (said := caption_of(d)) and said not in widgets]
    assert told and all(any(w in t for w in ('seed', 'run', 'Seed')) for t in told), [t for t in told if 'seed' not in t.lower()]


def test_a_picture_is_the_same_bytes_in_every_process():
    "No set and no hash decides in which order a picture is drawn"
    import os
    import subprocess
    import sys
    code = ('import plotly.graph_objects as go; from plotly.subplots import make_subplots; from xltnb.still.still import still\n'
            'f = make_subplots(2, 3, subplot_titles=list("abcdef"))\n'
            'for i in range(6): f.add_trace(go.Scatter(x=["p", "q", "r"], y=[1, i, 2], name=str(i), line_color=f"rgba({i},9,9,.5)"), i//3+1, i%3+1)\n'
            'print(still(f.update_xaxes(title="x").update_yaxes(title="y")))')
    pictures = {subprocess.run([sys.executable, '-c', code], env=os.environ | dict(PYTHONHASHSEED=s), capture_output=True, text=True, check=True).stdout for s in '12'}
    assert len(pictures) == 1 and '<svg' in pictures.pop()


def test_what_a_figure_hides_is_not_drawn():
    import plotly.graph_objects as go
    from xltnb.still.still import still
    def drawn(visible):
        fig = go.Figure(go.Scatter(x=[1, 2], y=[1, 2]))
        fig.add_shape(type='line', x0=40, x1=40, y0=0, y1=1, yref='paper', visible=visible)
        return still(fig.add_annotation(text='a line', x=1.5, y=1.5, visible=visible))
    assert drawn(False) == still(go.Figure(go.Scatter(x=[1, 2], y=[1, 2]))) != drawn(True)
