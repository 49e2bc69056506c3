"One HTML file: every claim a row, every figure drawn, no network, nothing unescaped"
import re

import numpy as np
import pytest

from conftest import write_paper
from test_docs import visit

from xltnb.reports import report as reports
from xltnb.core import XltError
from xltnb.runs.experiments import load_jobs
from xltnb.records.published import load_paper
from xltnb.records.rules import names_in
from xltnb.records.record import Record
from xltnb.records.store import Store
from xltnb.runs.plan import Plan
from xltnb.verdicts.claims import judge_plan

EVIL = '<script>document.title="broken"</script>'


def made_up(job):
    "A record of the right shape for a mothello job"
    wanted = {m for c in load_paper('mothello').claims.values() for k in c.checks for _, m in names_in(k.effect)}
    m = {k: .6+.01*job.seed for k in wanted} | dict(within=.7, across=.6, control=.5, majority_square=.55) | {f'across_s{s}': .5+.02*s for s in range(4)}
    m |= {f'{w}_L{layer}': .6+.05*layer for w in ('within', 'across') for layer in range(4)}
    m |= {f'{edit}_err_{k}': .6 for edit in ('edit', 'linear') for k in ('own', 'cross', 'null') if any(x.startswith('edit_err') for x in m)}
    t = [0., 2., 4.]
    cols = ('source', 'target', 'source_lax', 'target_lax', 'probe', 'probe_within', 'wrong_language')
    curves = dict(finetune=dict(epoch=t, **{c: [.5, .6, .7] for c in cols})) if job.experiment.endswith('transfer') else dict(probe=dict(tokens=t, within=t, across=t))
    if job.arm.startswith('naive'):
        n = int(job.arm[5:])
        z = np.where(np.equal.outer(np.arange(n)%3, np.arange(n)%3), .9, .5).tolist()
        curves['matrix'] = dict(across=z, sym=z)
    return Record(job.experiment, job.key, job.config, job.seed, m, curves, arm=job.arm, provenance=dict(cpu=f'a cpu {EVIL}', cores=2, device='cpu', commit='0'*40, versions=dict(python='3.11'), wall_s=60., started='2026-01-01'))


@pytest.fixture(scope='module')
def full(tmp_path_factory):
    "A report on made-up runs of the laptop preset, its claims"
    tmp = tmp_path_factory.mktemp('full')
    store, jobs = Store(tmp/'results', committed=False), load_jobs('mothello')('laptop', None)
    for j in jobs: store.put(made_up(j))
    return reports.report(['mothello'], 'laptop', store, tmp/'report.html'), judge_plan(Plan('mothello', 'laptop', jobs, store)).rows


@pytest.fixture(scope='module')
def empty(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('empty')
    return reports.report('mothello', 'smoke', Store(tmp/'results', committed=False), tmp/'report.html')


def test_plotly_stands_in_it_once(full):
    text = full[0].read_text(encoding='utf-8')
    assert text.count('plotly.js v') == 1 and len(text) < 8e6
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)', text)


def test_text_is_escaped(full):
    text = full[0].read_text(encoding='utf-8')
    assert EVIL not in text and '&lt;script&gt;document.title' in text


def test_every_number_has_its_command_and_records(full):
    text = full[0].read_text(encoding='utf-8')
    for r in full[1]:
        assert f'id="from-{r["claim"]}"' in text
        assert (f'xltnb run {r["claim"]} --preset laptop' in text) == bool(r['checks']), r['claim']
        assert all(k in text for k in r['keys'])
    assert 'xltnb run mothello.T1 --preset laptop' in text


def test_full_report_in_a_browser(browser, full):
    page, wrong = visit(browser, full[0].as_uri())
    page.locator('.js-plotly-plot .main-svg').first.wait_for(timeout=60000)
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length == document.querySelectorAll('.plotly-graph-div').length")
    assert page.locator('.js-plotly-plot').count() == 15
    assert page.locator('table.claims tbody tr').count() == len(full[1])
    assert 'Not drawn' not in page.inner_text('body') and page.title() == 'xltnb report'
    page.locator('table.claims a').first.click()
    page.locator(f'details[id="from-{full[1][0]["claim"]}"] pre').wait_for(state='visible', timeout=20000)
    assert not wrong, '\n'.join(wrong)
    page.close()


def test_empty_report_in_a_browser(browser, empty):
    page, wrong = visit(browser, empty.as_uri())
    assert page.locator('table.claims tbody tr').count() == len(load_paper('mothello').claims)
    text = page.inner_text('body')
    assert 'nothing has run yet' in text and 'Not drawn, for want of runs: claims' in text
    assert not wrong, '\n'.join(wrong)
    page.close()


def test_names_are_checked_before_anything_is_written(tmp_path):
    with pytest.raises(XltError, match='did you mean'): reports.report('mothelo', 'smoke', tmp_path, tmp_path/'r.html')
    with pytest.raises(XltError, match='did you mean'): reports.report('mothello', 'lapto', tmp_path, tmp_path/'r.html')
    assert not (tmp_path/'r.html').exists()


def test_what_a_preset_changes_is_listed(full, empty):
    for text, board in ((full[0].read_text(encoding='utf-8'), '6'), (empty.read_text(encoding='utf-8'), '4')):
        cells = [('setting', '<code>world.n</code>'), ('as printed', 8), ('here', board), ('arms', 'all')]
        assert ''.join(f'<td data-label="{k}">{v}</td>' for k, v in cells) in text
    jobs = load_jobs('mothello')('paper', None)
    assert reports.changed(jobs, jobs) == {}


def test_on_paper_the_origins_are_unfolded(browser, full):
    page, wrong = visit(browser, full[0].as_uri())
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator('details:not([data-screen]):not([open])').count() == 0
    assert page.locator('details[data-screen][open]').count() == 0
    page.wait_for_function("document.querySelector('.js-plotly-plot .main-svg').getBoundingClientRect().width == 680")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.wait_for_function("document.querySelector('.js-plotly-plot .main-svg').getBoundingClientRect().width > 680")
    assert not wrong, '\n'.join(wrong)
    page.close()


def test_a_planned_paper_leaves_the_file_alone(tmp_path, monkeypatch):
    out = tmp_path/'report.html'
    out.write_text('mine', encoding='utf-8')
    write_paper(tmp_path/'papers', 'sixth')
    monkeypatch.setenv('XLTNB_PAPERS', str(tmp_path/'papers'))
    with pytest.raises(XltError, match='sixth is planned'): reports.report('sixth', 'smoke', tmp_path, out)
    assert out.read_text(encoding='utf-8') == 'mine'


def test_on_a_phone_the_verdict_is_in_sight(browser, full):
    page = browser.new_page(viewport={'width': 390, 'height': 800}, color_scheme='dark')
    page.goto(full[0].as_uri())
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    for b in page.locator('table.claims .verdict').all():
        box = b.bounding_box()
        assert 0 <= box['x'] and box['x']+box['width'] <= 390
    assert page.evaluate('getComputedStyle(document.body).backgroundColor') == 'rgb(18, 23, 28)'
    page.close()
