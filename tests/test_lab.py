"""In JupyterLab: the widget's notebook runs, a control moves, the picture changes

`pytest tests/test_lab.py -k answers --drag 50` measures a drag of every paper's widget instead: milliseconds from a key press on the
first slider to the redrawn picture, median and 95th percentile. Run it on an idle machine; on a busy one read the processor time
beside it: of browser, server and kernel together, which idle cores would need at most. It fails where nothing is redrawn.
"""
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from conftest import NBS, ROOT

from xltnb.runs.experiments import has_part, papers

PLOT = '.jupyter-widgets .js-plotly-plot'
DONE = "() => ![...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))"  # no cell waits or runs
CHANGED = f'b => {{ const e = document.querySelector("{PLOT}"); return e && JSON.stringify(e.data) + JSON.stringify(e.layout) !== b }}'
BOOKS = {f'explore_{p}': [f'from xltnb import explore\nexplore({p!r})'] for p in papers() if has_part(p, 'explorer')} | dict(regions=['from xltnb.papers.robust.explorer import RegionExplorer', 'RegionExplorer(radius=.03)'])
WIDGETS = {'mothello_explore': 1, 'mothello_walk': 2}  # a page, and how many widgets it leaves


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def wait_for(url, server, seconds=60):
    end = time.time() + seconds
    while time.time() < end and server.poll() is None:
        try: return urllib.request.urlopen(url, timeout=2).status
        except OSError: time.sleep(.3)
    raise RuntimeError(f'JupyterLab did not answer at {url}')


def set_option(home, extension, name, text):
    "A setting of JupyterLab"
    folder = home/'jupyterlab_settings_dir'/'@jupyterlab'/extension
    folder.mkdir(parents=True)
    (folder/f'{name}.jupyterlab-settings').write_text(text, encoding='utf-8')


def without_outputs(path):
    "A page as it is before its first run"
    import nbformat
    book = nbformat.read(path, 4)
    for c in book.cells:
        if c.cell_type == 'code': c.update(outputs=[], execution_count=None)
    return book


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab over a folder with a notebook for each widget; address of a notebook"
    import nbformat
    home, work, port, token = tmp_path_factory.mktemp('jupyter'), tmp_path_factory.mktemp('work'), free_port(), secrets.token_hex(16)
    kernel = {'kernelspec': {'name': 'python3', 'display_name': 'python3', 'language': 'python'}}
    for name, code in BOOKS.items():
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in code], metadata=kernel), work/f'{name}.ipynb')
    for name in WIDGETS: nbformat.write(without_outputs(NBS/'papers'/'mothello'/f'{name}.ipynb'), work/f'{name}.ipynb')
    names = ('JUPYTER_CONFIG_DIR', 'JUPYTERLAB_SETTINGS_DIR', 'JUPYTERLAB_WORKSPACES_DIR', 'JUPYTER_RUNTIME_DIR')
    env = {**os.environ, **{n: str(home/n.lower()) for n in names}, 'PYTHONPATH': str(ROOT), 'JUPYTER_TOKEN': token}  # on a command line every user could read it
    set_option(home, 'apputils-extension', 'notification', '{"fetchNews": "false", "checkForUpdates": false}')
    set_option(home, 'notebook-extension', 'tracker', '{"windowingMode": "none"}')  # cells out of sight are drawn too
    args = f'-m jupyter lab --no-browser --allow-root --port={port} --ip=127.0.0.1 --ServerApp.root_dir={work}'
    with open(home/'log', 'w', encoding='utf-8') as log:
        server = subprocess.Popen([sys.executable, *args.split()], env=env, stdout=log, stderr=log, cwd=work)
        try:
            wait_for(f'http://127.0.0.1:{port}/api', server)
            yield lambda name, token=token: f'http://127.0.0.1:{port}/lab/tree/{name}.ipynb?reset' + f'&token={token}'*bool(token)
        finally:
            server.terminate()
            server.wait(20)


def test_without_the_token_nothing_is_handed_out(lab):
    "Another user of this machine gets neither a file nor a terminal"
    root = lab('').split('/lab')[0]
    for path in ('api/contents', 'api/terminals', 'api/kernels'):
        with pytest.raises(urllib.error.HTTPError, match='403'): urllib.request.urlopen(f'{root}/{path}', timeout=10)
    assert urllib.request.urlopen(lab('', token='').replace('?reset', ''), timeout=10).url.startswith(f'{root}/login')


def test_our_command_listens_on_this_machine_and_keeps_the_token(monkeypatch, capsys):
    from xltnb import tools as cli
    called = []
    monkeypatch.setattr(cli.subprocess, 'call', lambda words: called.append(words) or 0)
    cli.cmd_lab('mothello_tab1', no_browser=True)
    assert '--ip=127.0.0.1' in called[0] and not [w for w in called[0] if 'token' in w.lower() or 'password' in w.lower()]
    said = capsys.readouterr().out
    assert '127.0.0.1 alone' in said and (ROOT/said.rsplit(': ', 1)[1].strip()).is_file()


@pytest.fixture
def our_lab(tmp_path):
    "What `xltnb lab` starts; the address that it prints"
    names = ('JUPYTER_CONFIG_DIR', 'JUPYTERLAB_SETTINGS_DIR', 'JUPYTERLAB_WORKSPACES_DIR', 'JUPYTER_RUNTIME_DIR')
    env = {**os.environ, **{n: str(tmp_path/n.lower()) for n in names}, 'PYTHONPATH': str(ROOT), 'JUPYTER_PORT': str(free_port())}
    set_option(tmp_path, 'apputils-extension', 'notification', '{"fetchNews": "false", "checkForUpdates": false}')
    with open(tmp_path/'log', 'w', encoding='utf-8') as log:
        server = subprocess.Popen([sys.executable, '-m', 'xltnb.cli', 'lab', '--no-browser'], env=env, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    try:
        end, found = time.time() + 90, None
        while not found and time.time() < end and server.poll() is None:
            time.sleep(.3)
            found = re.search(r'http://127\.0\.0\.1:\d+\S*token=\S+', (tmp_path/'log').read_text(encoding='utf-8'))
        assert found, (tmp_path/'log').read_text(encoding='utf-8')[-2000:]
        yield found[0]
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # the command and the JupyterLab that it started
        server.wait(30)


def test_the_board_leads_to_a_walk_and_the_walk_to_its_links(browser, our_lab):
    "`xltnb lab` prints the address of the board; its pictures and the links of a walk lead somewhere"
    assert '/lab/tree/start.ipynb' in our_lab
    page, missing = browser.new_page(viewport={'width': 1400, 'height': 1000}), []
    page.set_default_timeout(120_000)
    page.on('response', lambda r: missing.append(r.url) if r.status == 404 and '/api/contents/' in r.url and '.ipynb' in r.url else None)
    page.goto(our_lab)
    board = page.locator('.jp-Notebook').first
    board.get_by_role('link', name='mOthello, a walk').first.wait_for(timeout=120_000)
    assert board.locator('img').count() >= 6
    board.locator('img').nth(0).evaluate('e => e.decode()')  # a picture that is there
    board.get_by_role('link', name='mOthello, a walk').first.click()
    walk = page.locator('.jp-NotebookPanel:visible', has_text='The world')
    walk.wait_for()
    walk.locator('a[href*=".ipynb"], a[data-commandlinker-command]').first.wait_for()
    link = walk.locator('.jp-MarkdownOutput a[href*=".ipynb"]:visible, .jp-MarkdownCell a[href*=".ipynb"]:visible').first
    to = link.get_attribute('href').split('/')[-1].split('?')[0].split('#')[0]
    link.click()
    page.locator('.lm-TabBar-tabLabel', has_text=to).first.wait_for()
    assert not missing, missing
    page.close()


def picture(page): return page.locator(PLOT).first.evaluate('e => JSON.stringify(e.data) + JSON.stringify(e.layout)')


@contextmanager
def run_all(browser, address):
    "The notebook's page with all cells run and its picture drawn; nothing may go wrong on it"
    page = browser.new_page(viewport={'width': 1400, 'height': 1000})
    page.set_default_timeout(120_000)
    wrong = []
    page.on('pageerror', lambda e: wrong.append(str(e)))
    page.on('console', lambda m: wrong.append(f'{m.text} ({m.location.get("url", "")})') if m.type == 'error' and 'WebSocket' not in m.text else None)  # a lost connection is taken up again
    page.goto(address)
    page.locator('.jp-Notebook').wait_for(timeout=120_000)
    page.get_by_text('| Idle').first.wait_for(timeout=120_000)
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.locator('.lm-Menu-itemLabel', has_text=re.compile('^Run All Cells$')).click()
    page.locator(f'{PLOT} .main-svg').first.wait_for(timeout=240_000)
    page.wait_for_function(DONE, timeout=240_000)  # before, the kernel would answer a widget after the last cell only
    yield page
    assert page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
    assert not wrong, '\n'.join(wrong)
    page.close()


def changes(page, act, title=''):
    "`act` on the page, and wait for another picture with this in its title"
    before = picture(page)
    act()
    page.wait_for_function(CHANGED, arg=before, timeout=120_000)
    page.locator(f'{PLOT} .gtitle', has_text=title).first.wait_for(timeout=120_000)


def drag(page, steps):
    handle = page.locator('.widget-slider .noUi-handle').first
    handle.focus()
    for _ in range(steps): handle.press('ArrowRight')


CONTROLS = '.jupyter-widgets :is([role=slider], select, button, input, [tabindex="0"])'
TABS = f"""() => [...document.querySelectorAll('{CONTROLS}')].filter(e => e.offsetParent && !e.disabled && !e.closest('[aria-hidden=true]') && e.tabIndex >= 0).length"""


def check_keys(page):
    "Tab reaches every control of a widget, one after the other"
    many = page.evaluate(TABS)
    first = page.locator(f'{CONTROLS} >> visible=true').first
    first.focus()
    seen = set()
    for _ in range(4*many):
        at = page.evaluate(f"() => [...document.querySelectorAll('{CONTROLS}')].indexOf(document.activeElement)")
        seen.add(at)
        page.keyboard.press('Tab')
        if len(seen - {-1}) == many: break
    assert many and len(seen - {-1}) == many, (many, seen)


@pytest.mark.parametrize('paper', ['salt', 'arithmetic', 'metapretrain'])
def test_every_control_is_reached_by_key(browser, lab, paper):
    with run_all(browser, lab(f'explore_{paper}')) as page: check_keys(page)


def test_a_control_changes_the_picture(browser, lab):
    with run_all(browser, lab('mothello_explore')) as page:
        check_keys(page)
        changes(page, lambda: drag(page, 3))
        changes(page, lambda: page.locator('.widget-dropdown select').nth(1).select_option('B'), 'told in B')
        changes(page, lambda: page.locator('.jupyter-widgets.widget-play button').first.click())


@pytest.mark.parametrize('name', list(WIDGETS)[1:])
def test_run_all_leaves_a_working_widget(browser, lab, name):
    with run_all(browser, lab(name)) as page:
        page.wait_for_function('n => document.querySelectorAll(".widget-slider").length == n', arg=WIDGETS[name], timeout=240_000)
        changes(page, lambda: drag(page, 3))


def test_a_region_grows(browser, lab):
    with run_all(browser, lab('regions')) as page:
        check_keys(page)
        changes(page, lambda: drag(page, 1), 'attack of 0.1 ')
        changes(page, lambda: page.locator('.widget-dropdown select').first.select_option('🍑 peach'))


WATCH = """e => { window.took = [];
    const plot = document.querySelector('PLOT'), done = () => requestAnimationFrame(() => setTimeout(() => took.push(performance.now() - window.pressed)));
    e.addEventListener('keydown', k => { window.pressed = k.timeStamp }, true);
    for (const told of ['plotly_update', 'plotly_restyle', 'plotly_relayout']) plot.on(told, done) }""".replace('PLOT', PLOT)


def spent():
    "Processor time of everything that this process started, in milliseconds"
    import psutil
    total = 0.
    for p in psutil.Process().children(recursive=True):
        try: total += 1000*sum(p.cpu_times()[:2])
        except psutil.NoSuchProcess: pass
    return total


def milliseconds(page, moves):
    "From a key press on the first slider to the redrawn picture, for each of `moves` presses; at the slider's end they turn back"
    handle, key = page.locator('.widget-slider .noUi-handle').first, 'ArrowRight'
    handle.focus()
    handle.evaluate(WATCH)
    at = lambda name: float(handle.get_attribute(f'aria-value{name}'))
    for i in range(moves):
        if at('now') >= at('max'): key = 'ArrowLeft'
        elif at('now') <= at('min'): key = 'ArrowRight'
        page.evaluate('took.length = 0')
        handle.press(key)
        page.wait_for_function('took.length > 0', timeout=10_000)
        yield page.evaluate('took[0]')
        page.wait_for_timeout(50)  # the kernel comes to rest


@pytest.mark.parametrize('paper', [p for p in papers() if has_part(p, 'explorer')])
def test_a_drag_answers(browser, lab, pytestconfig, capsys, paper):
    if not (moves := pytestconfig.getoption('--drag')): pytest.skip('a measurement: name a number of moves with --drag 50')
    import numpy as np
    with run_all(browser, lab(f'explore_{paper}')) as page:
        drag(page, 2)  # warm
        page.wait_for_timeout(1000)
        before = spent()
        took = list(milliseconds(page, moves))
        cpu = (spent() - before)/moves
    with capsys.disabled():
        load = os.getloadavg()[0]
        print(f'\n{paper}: {len(took)} moves, median {np.median(took):.0f} ms, 95th percentile {np.percentile(took, 95):.0f} ms, processor {cpu:.0f} ms a move, load {load:.1f}')
