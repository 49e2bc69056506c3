"The site builds, its links hold, its pages work in a browser without a network, and README is the front page"
import http.server
import re
import shutil
import threading
from contextlib import contextmanager
from functools import partial

import pytest
from conftest import NBS, PAGES, ROOT

from xltnb.dev import docs
from xltnb.dev.links import dead_links
from xltnb.dev.sitemap import bare_name
from xltnb.dev.readme import readme
from xltnb.dev.staging import PLOTLY_MIME
from xltnb.reports.start import start_pages
from xltnb.verdicts.study import study

WALKS = sorted((NBS/'papers').glob('*/*_walk.ipynb'))


@pytest.fixture(scope='module')
def site(tmp_path_factory): return docs.build_docs(ROOT, tmp_path_factory.mktemp('site')/'_docs')


@contextmanager
def served(site, plotly=None):
    "Address of the site while it is served, if need be with another file for plotly.js"
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *a): pass
        def translate_path(self, path): return str(plotly) if plotly and path.endswith('/plotly.min.js') else super().translate_path(path)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


@pytest.fixture(scope='module')
def address(site):
    with served(site) as url: yield url


def html_of(page):
    rel = page.relative_to(NBS)
    return 'nbs/' + str(rel.with_name(bare_name(rel.name)).with_suffix('.html').as_posix())


def visit(browser, url):
    "Open a page; the page, and everything that went wrong"
    page, wrong = browser.new_page(viewport={'width': 1300, 'height': 1000}), []
    page.set_default_timeout(90_000) # a busy machine is slow, not broken
    page.on('console', lambda m: wrong.append(f'{m.type}: {m.text}') if m.type == 'error' else None)
    page.on('pageerror', lambda e: wrong.append(f'error: {e}'))
    page.on('request', lambda r: wrong.append(f'another host: {r.url}') if not r.url.startswith(('http://127.0.0.1:', 'file:', 'data:', 'blob:')) else None)
    page.goto(url, wait_until='load')
    return page, wrong


def test_every_page_is_on_the_site(site):
    missing = [html_of(p) for p in PAGES if not (site/html_of(p)).exists()]
    assert not missing
    assert (site/'index.html').exists() and (site/'plotly.min.js').stat().st_size > 1e6


def test_no_dead_link(site):
    dead = dead_links(site)
    assert not dead, '\n'.join(dead)


def test_a_dead_link_is_seen(site, tmp_path):
    "On a copy of one page and of what it lies beside, without the other pages"
    copy = shutil.copytree(site/'nbs', tmp_path/'site'/'nbs', ignore=lambda at, names: [n for n in names if n.endswith('.html') and n != 'index.html' or n == 'results'])
    (copy/'index.html').write_text((copy/'index.html').read_text(encoding='utf-8').replace('</main>', '<a href="gone.html">x</a><a href="site.js">x</a></main>'), encoding='utf-8')
    dead = dead_links(tmp_path/'site')
    assert 'nbs/index.html: gone.html' in dead and 'nbs/index.html: site.js' not in dead


ASKS = re.compile(rb"""(?:\b(?:src|href)\s*=\s*|\burl\(\s*|@import\s+)["']?\s*((?:https?:)?//[^"'\s>)]+\.(?:m?js|css|woff2?|[ot]tf|eot|png|jpe?g|gif|svg|webp|avif|ico)\b)""", re.I)


@pytest.mark.parametrize('spoiled, host', [('<script src="https://a.org/x.js"></script>', True), ("<link rel=stylesheet href='//a.org/x.css'>", True), ('<script type=module src = http://a.org/x.mjs>', True),
                                           ('<IMG alt="a > b" SRC="https://a.org/x.png?v=1">', True), ('<style>@font-face {src: url(https://a.org/x.woff2)}</style>', True), ('<style>@import "https://a.org/x.css";</style>', True),
                                           ('<a href="https://a.org/x.html">x</a>', False), ('<script src="site.js"></script>', False), ('<pre>&lt;script src=&quot;https://a.org/x.js&quot;&gt;</pre>', False)])
def test_what_asks_another_host_is_seen(spoiled, host): assert bool(ASKS.search(spoiled.encode())) == host


def test_no_page_asks_another_host(site):
    asked = {p.relative_to(site): found for p in site.rglob('*') if p.suffix in ('.html', '.css') and (found := ASKS.findall(p.read_bytes()))}
    assert not asked, asked


def test_source_stands_on_the_page(site):
    text = (site/'nbs'/'dev'/'sitemap.html').read_text(encoding='utf-8')
    assert '<summary' in text and 'folder of the notebooks' in text


def test_readme_is_the_front_page():
    want = readme(NBS/'index.ipynb')
    assert (ROOT/'README.md').read_text(encoding='utf-8') == want, 'README.md is out of date: make docs'


def test_readme_links_hold():
    import re
    for target in re.findall(r'\]\((?!https?:|#)([^)#]+)', readme(NBS/'index.ipynb')):
        assert (ROOT/target).exists(), f'README links to {target}'


def test_front_page_in_a_browser(browser, address):
    page, wrong = visit(browser, f'{address}/index.html')
    page.wait_for_url('**/nbs/index.html')
    page.get_by_role('heading', name='What was found').wait_for(timeout=60000)
    assert not wrong, '\n'.join(wrong)
    page.close()


@pytest.mark.parametrize('walk', WALKS, ids=lambda p: p.stem)
def test_walk_page_in_a_browser(browser, address, walk):
    page, wrong = visit(browser, f'{address}/{html_of(walk)}')
    page.locator('.js-plotly-plot .main-svg').first.wait_for(timeout=60000)
    drawn = page.locator('.js-plotly-plot').count()
    assert drawn == page.locator('.plotly-graph-div').count() > 0
    assert not wrong, '\n'.join(wrong)
    page.close()


def test_figures_and_formulas_in_a_browser(browser, tmp_path_factory, monkeypatch):
    "A page made for the purpose: a figure is drawn and a formula set without a network"
    import json
    import nbformat
    import plotly.graph_objects as go
    root = tmp_path_factory.mktemp('tiny')
    (root/'nbs').mkdir()
    for f in ('settings.ini', '_quarto.yml'): shutil.copy2(ROOT/f, root)
    for f in ('icon.svg', 'site.css', 'search.js', 'site.js'): shutil.copy2(NBS/f, root/'nbs')
    out = nbformat.v4.new_output('display_data', data={PLOTLY_MIME: json.loads(go.Figure(go.Bar(x=['a'], y=[1])).to_json())})
    cells = [nbformat.v4.new_markdown_cell('# A page\n\n> With a figure'), nbformat.v4.new_markdown_cell('The radius $\\rho \\le 1$'), nbformat.v4.new_code_cell('fig', outputs=[out])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), root/'nbs'/'index.ipynb')
    page, wrong = visit(browser, (docs.build_docs(root)/'nbs'/'index.html').as_uri())
    page.locator('.js-plotly-plot .main-svg').first.wait_for(timeout=60000)
    assert page.locator('math').count() == 1 and not wrong, '\n'.join(wrong)
    page.close()


def test_readme_is_short_and_has_its_picture():
    assert len((ROOT/'README.md').read_text(encoding='utf-8').splitlines()) <= 100 # a row for each headline, and what to keep in mind of each paper
    picture = (NBS/'finding.svg').read_text(encoding='utf-8')
    numbers = re.findall(r'[+−]\d+', study('mothello').fig('transfer').layout.title.text)
    assert len(numbers) == 3 and all(n in picture for n in numbers), f'{numbers} is not what the picture says: make docs'
    assert len(picture) < 60_000 and 'prefers-color-scheme' in picture and 'finding.svg' in (ROOT/'README.md').read_text(encoding='utf-8')


def test_the_start_page_shows_a_picture_of_each_page():
    text = (NBS/'start.ipynb').read_text(encoding='utf-8')
    assert '[open it]' not in text and text.count('[![') == sum(map(len, start_pages().values())), 'execute nbs/start.ipynb again'


@pytest.mark.parametrize('paper', ['mothello', 'robust', 'salt', 'arithmetic', 'metapretrain'])
def test_readme_tells_what_the_records_say(paper):
    "The front page judges nothing itself: each headline stands there with its word and its effect"
    from xltnb.verdicts.findings import amount, headlines, signed
    lines = (ROOT/'README.md').read_text(encoding='utf-8').splitlines()
    rows = headlines(paper)
    assert rows, 'a paper without a headline'
    for r in rows:
        line, = [l for l in lines if f"| {r['text']} |" in l]
        assert f'**{signed(r)[2:]}**' in line and amount(r) in line


def test_the_search_finds_words_in_any_order(browser, address):
    page, wrong = visit(browser, f'{address}/nbs/index.html')
    for query, title in (('language wrong', 'mOthello, Figure 5'), ('how do I add a training method', 'method'), ('anchor tokens', 'Glossary')):
        page.locator('input[type=search]').first.fill(query)
        page.locator('.search-result-title').first.wait_for(timeout=30_000)
        page.wait_for_timeout(500)
        found = page.locator('.search-result-title').all_inner_texts()
        assert any(title in t for t in found), (query, found)
    assert not wrong, '\n'.join(wrong)
    page.close()


def test_search_for_a_paper_shows_its_walk_first(browser, address):
    page, wrong = visit(browser, f'{address}/nbs/index.html')
    for query in ('SALT', 'mothello'):
        page.locator('input[type=search]').first.fill(query)
        page.locator('.search-result-title').first.wait_for(timeout=30_000)
        page.wait_for_timeout(500)
        assert f'{query.lower()}_walk.html' in page.locator('a.search-result').first.get_attribute('href'), query
    assert not wrong, '\n'.join(wrong)
    page.close()


def test_the_bar_and_a_papers_sidebar(site):
    "The bar names what a visitor looks for; a paper lists its pages for readers, then its modules; previous and next follow"
    import re
    page = (site/'nbs'/'papers'/'mothello'/'mothello_claims.html').read_text(encoding='utf-8')
    bar = page.split('id="navbarCollapse"')[1].split('quarto-navbar-tools')[0]
    said = re.findall(r'class="nav-link[^"]*"[^>]*><span class="menu-text">([^<]*)', bar)
    assert [s for s in said if s] == ['Papers', 'Results', 'Leaderboard', 'Tutorials', 'How-to', 'Glossary', 'Library']
    menu = page.split('id="quarto-sidebar"')[1].split('</nav>')[0]
    listed = [h for h in re.findall(r'href="([^"#]+)"', menu)]
    assert listed[:3] == ['mothello_walk.html', 'mothello_explore.html', 'mothello_claims.html']
    readers = [h.startswith('mothello_') for h in listed]
    assert readers == sorted(readers, reverse=True) and not readers[-1]
    assert [*re.findall(r'href="([^"]+)" class="pagination-link"', page)] == [listed[1], listed[3]]


WIDE = """() => { document.querySelectorAll('details').forEach(d => d.open = true); const main = document.querySelector('main.content');
    return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
      const edge = main.getBoundingClientRect().right + 1, out = [];
      for (const e of main.querySelectorAll('table, pre')) {
        const scrolls = e.closest('.wide-table.scrolls'), own = scrolls || e, box = own.getBoundingClientRect(); // it scrolls in a box of its own
        let wide = box.width && (box.right > (scrolls ? innerWidth : edge) || !scrolls && e.scrollWidth > e.clientWidth + 1);
        if (scrolls) wide ||= scrolls.scrollWidth > scrolls.clientWidth + 1 && !(scrolls.tabIndex === 0 && scrolls.ariaLabel);
        else for (let p = e.parentElement; p !== main; p = p.parentElement)
          wide ||= box.width && !p.querySelector('.page-wide') && p.scrollWidth > p.clientWidth + 1; // which reaches over the contents
        if (wide) out.push(`${e.tagName} of ${Math.round(box.width)}: ${e.textContent.trim().slice(0, 40)}`) }
      if (document.documentElement.scrollWidth > innerWidth) out.push('the page');
      done(out) }))) }"""


@pytest.mark.audit
def test_nothing_is_wider_than_its_column(browser, site, tmp_path):
    "No table and no piece of code of any page, on a phone and on a desk; a table that scrolls in a box can be reached by keys and has a name"
    (tmp_path/'plotly.js').write_text('var Plotly = {react() {}}', encoding='utf-8')  # figures are asked elsewhere
    page, found, widths = browser.new_page(), [], [1400, 390]
    with served(site, tmp_path/'plotly.js') as url:  # a route in the browser would switch off its cache: each page would load every style anew
        for file in sorted((site/'nbs').rglob('*.html')):
            widths.reverse()  # the width that stands stays, since each change lays the page out again
            for i, width in enumerate(widths):
                page.set_viewport_size(dict(width=width, height=900))
                if not i: page.goto(f'{url}/{file.relative_to(site).as_posix()}', wait_until='domcontentloaded')
                found += [f'{file.stem} at {width}: {w}' for w in page.evaluate(WIDE)]
        page.close()
    assert not found, '\n'.join(found)


def test_code_is_copied_as_it_was(site):
    "Lines that hang under their indent hold the same letters"
    import re
    from html import unescape
    page = (site/'nbs'/'dev'/'links.html').read_text(encoding='utf-8')
    text = unescape(re.sub('<[^>]+>', '', page))
    assert '\n    "Read what a page refers to, and what can be referred to on it"\n    p = _Refs()\n' in text


def test_a_page_is_light(site):
    heavy = [f'{p.stem}: {p.stat().st_size/1e6:.1f} MB' for p in (site/'nbs').rglob('*.html') if p.stat().st_size > 1.5e6]
    assert not heavy, '\n'.join(heavy)


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_axe_finds_nothing_serious(browser, address, scheme):
    "Contrast, names, keys: home, a walk, Results, records, a page of the library"
    from pathlib import Path
    import axe_playwright_python
    axe = (Path(axe_playwright_python.__file__).parent/'axe.min.js').read_text(encoding='utf-8')
    found = []
    for name in ('index', 'papers/mothello/mothello_walk', 'explain/results', 'papers/arithmetic/arithmetic_records', 'verdicts/study', 'start'):
        page = browser.new_page(viewport={'width': 1400, 'height': 900}, color_scheme=scheme)
        page.set_default_timeout(90_000)
        page.goto(f'{address}/nbs/{name}.html', wait_until='load')
        page.evaluate(axe)
        for v in page.evaluate("axe.run({resultTypes: ['violations']}).then(r => r.violations)"):  # what passes needs no report
            if v['impact'] in ('serious', 'critical'): found += [f"{name}: {v['id']}: {n['html'][:120]}" for n in v['nodes']]
        page.close()
    assert not found, '\n'.join(found)


def test_a_number_leads_to_its_record_and_back(browser, address):
    "One click from a claim to key and command, one more to the file; a link leads back"
    page, wrong = visit(browser, f'{address}/nbs/papers/mothello/mothello_claims.html')
    page.locator('td a.origin', has_text='mothello.C8').first.click()
    page.wait_for_url('**/mothello_records.html#C8')
    section = page.locator('section:has(> h3#C8), section#C8').first
    assert 'xltnb run mothello.C8' in section.inner_text()
    key = section.locator('ul.keys a').first.get_attribute('href').lstrip('#')
    assert page.locator(f'a[id="{key}"]').get_attribute('href').endswith(f'{key}.json')
    section.get_by_role('link', name='mOthello, claims').click()
    page.wait_for_url('**/mothello_claims.html')
    answer = page.request.get(f'{address}/nbs/results/{key_folder(page, address, key)}/{key}.json')
    assert answer.ok and answer.json()['key'] == key
    assert not wrong, '\n'.join(wrong)
    page.close()


def key_folder(page, address, key):
    "Experiment of a record, as the page of records links it"
    text = page.request.get(f'{address}/nbs/papers/mothello/mothello_records.html').text()
    return text.split(f'/{key}.json')[0].rpartition('results/')[2]


def test_every_figure_of_a_paper_leads_to_its_runs(site):
    "A page of a figure leads to the runs of that figure, a walk to all of its paper"
    pages = {'mothello_fig5': 'mothello_records.html#F5', 'mothello_walk': 'mothello_records.html'}
    for name, to in pages.items():
        page = (site/'nbs'/'papers'/'mothello'/f'{name}.html').read_text(encoding='utf-8')
        assert page.count('class="plotly-graph-div"') == page.count(f'<p class="origin"><a href="{to}">'), name


def test_a_figure_has_words(site):
    "The alternative text tells title and values"
    import re
    page = (site/'nbs'/'papers'/'mothello'/'mothello_fig5.html').read_text(encoding='utf-8')
    said = re.findall(r'<img class="still" alt="([^"]*)"', page)
    assert said and all(len(s) > 30 and re.search(r'\d', s) for s in said)


def test_a_page_fits_a_phone(browser, address):
    page = browser.new_page(viewport={'width': 390, 'height': 844}, color_scheme='dark')
    page.goto(f'{address}/nbs/papers/mothello/mothello_fig5.html')
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    assert page.locator('img.still').first.is_visible() and not page.locator('.plotly-graph-div').first.is_visible()
    page.close()
