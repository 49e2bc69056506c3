"In JupyterLab: the widget's notebook runs, a control moves, the picture changes"
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from conftest import LIB, ROOT

pytestmark = pytest.mark.skipif(not (LIB/'widgets.py').exists(), reason='no widgets yet')
CHANGED = 'b => { const e = document.querySelector(".js-plotly-plot"); return e && JSON.stringify(e.data) + JSON.stringify(e.layout) !== b }'
CODE = ['from xltnb.widgets import OthelloExplorer', 'OthelloExplorer()']


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


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab over a folder with one notebook; its address"
    import nbformat
    home, work, port = tmp_path_factory.mktemp('jupyter'), tmp_path_factory.mktemp('work'), free_port()
    kernel = {'kernelspec': {'name': 'python3', 'display_name': 'python3', 'language': 'python'}}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CODE], metadata=kernel), work/'explore.ipynb')
    names = ('JUPYTER_CONFIG_DIR', 'JUPYTERLAB_SETTINGS_DIR', 'JUPYTERLAB_WORKSPACES_DIR', 'JUPYTER_RUNTIME_DIR')
    env = {**os.environ, **{n: str(home/n.lower()) for n in names}, 'PYTHONPATH': str(ROOT)}
    (home/'jupyterlab_settings_dir'/'@jupyterlab'/'apputils-extension').mkdir(parents=True)
    (home/'jupyterlab_settings_dir'/'@jupyterlab'/'apputils-extension'/'notification.jupyterlab-settings').write_text('{"fetchNews": "false", "checkForUpdates": false}')
    args = f'-m jupyter lab --no-browser --allow-root --port={port} --ip=127.0.0.1 --IdentityProvider.token= --ServerApp.root_dir={work}'
    with open(home/'log', 'w') as log:
        server = subprocess.Popen([sys.executable, *args.split()], env=env, stdout=log, stderr=log, cwd=work)
        try:
            wait_for(f'http://127.0.0.1:{port}/api', server)
            yield f'http://127.0.0.1:{port}/lab/tree/explore.ipynb?reset'
        finally:
            server.terminate()
            server.wait(20)


def picture(page): return page.locator('.js-plotly-plot').first.evaluate('e => JSON.stringify(e.data) + JSON.stringify(e.layout)')


def test_a_control_changes_the_picture(browser, lab):
    page = browser.new_page(viewport={'width': 1400, 'height': 1000})
    page.set_default_timeout(90_000)
    wrong = []
    page.on('pageerror', lambda e: wrong.append(str(e)))
    page.on('console', lambda m: wrong.append(f'{m.text} ({m.location.get("url", "")})') if m.type == 'error' else None)
    page.goto(lab)
    page.locator('.jp-Notebook').wait_for(timeout=60000)
    page.get_by_text('| Idle').first.wait_for(timeout=60000)
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_text('Run All Cells', exact=True).click()
    page.locator('.js-plotly-plot .main-svg').first.wait_for(timeout=90000)
    before = picture(page)
    handle = page.locator('.widget-slider .noUi-handle').first
    handle.focus()
    for _ in range(3): handle.press('ArrowRight')
    page.wait_for_function(CHANGED, arg=before, timeout=30000)
    assert picture(page) != before
    before = picture(page)
    page.locator('.widget-dropdown select').nth(1).select_option('B')  # told in another language
    page.wait_for_function(CHANGED, arg=before, timeout=30000)
    assert 'told in B' in page.locator('.js-plotly-plot .gtitle').first.text_content()
    before = picture(page)
    page.locator('.jupyter-widgets.widget-play button').first.click()
    page.wait_for_function(CHANGED, arg=before, timeout=30000)
    assert page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
    assert not wrong, '\n'.join(wrong)
    page.close()
