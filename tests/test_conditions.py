"The same tests on other people's machines: records of a user, variables, an old terminal, colours, another order"
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, copy_checkout

# quick tests that once failed under one of these conditions, or would be the first to
TELLING = '''test_cli.py::test_a_narrow_table_keeps_its_first_columns test_cli.py::test_doctor test_cli.py::test_a_result_that_moved_is_told
test_cli.py::test_the_best_runs_come_first_and_ours_beside test_sixth_paper.py::test_list test_sixth_paper.py::test_its_command
test_store.py::test_committed_records_come_first test_store.py::test_hash_ignores_order_and_container test_light.py::test_a_job_still_finds_its_function
test_light.py::test_a_folder_of_our_name_hides_nothing test_mothello.py::test_keys_of_shipped_records_are_those_of_jobs test_encoders.py::test_a_missing_package_is_named
test_published.py::test_a_file_for_every_paper test_requirements.py'''.split()
# variables, and an order that has nothing to do with them: one process tests both
CONDITIONS = {
    "a user's variables": (dict(XLTNB_FRESH='1', XLTNB_PAPERS='/nope', XLTNB_ENCODER='/nope', XLTNB_CACHE='/dev/null/x', XLTNB_HOME='/dev/null/y', HF_HUB_OFFLINE='0', COLUMNS='40', FORCE_COLOR='1', TERM='xterm'), ''),
    'C locale': (dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0'), '1'),
    'a Latin terminal': (dict(PYTHONIOENCODING='latin-1'), 'reversed'),
}


def passes(args, env={}, cwd=ROOT, timeout=400):
    "Run the telling tests in a process of their own, in a folder whose checkout comes first"
    env = os.environ | dict(PYTHONPATH=str(cwd)) | env
    env = {k: v for k, v in env.items() if not k.startswith(('PYTEST_', 'ASKED_'))}
    done = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-p', 'no:xdist', *args], cwd=cwd, env=env, capture_output=True, encoding='utf-8', errors='replace', timeout=timeout)
    assert not done.returncode, done.stdout[-6000:] + done.stderr[-2000:]


def telling(root=ROOT):
    "Those of the telling tests that are there"
    return [str(root/'tests'/t) for t in TELLING if f"def {t.partition('::')[2] or 'test_'}" in (ROOT/'tests'/t.partition('::')[0]).read_text(encoding='utf-8')]


def test_the_telling_tests_are_there(): assert len(telling()) == len(TELLING), set(TELLING) - {t.split('tests/')[1] for t in telling()}


@pytest.mark.audit
@pytest.mark.parametrize('name', CONDITIONS)
def test_under(name):
    env, order = CONDITIONS[name]
    passes([*telling(), '--order', order], env)


# files that share processes, stores and registered studies, in an order of their own each time; without those tests whose every step
# is a process of its own or a look at a finished page, which no order reaches
FAIR = '''test_store.py test_run.py test_methods.py test_report.py test_cli.py'''.split()
APART = '''test_kill_9_and_again test_two_at_once_share_the_work test_a_failure_does_not_stop_the_others test_a_job_of_a_killed_worker_is_tried_again
test_minutes_pause_and_resume test_ctrl_c_is_quiet test_jobs_of_a_killed_parent_end test_gpu_preset_without_a_gpu_is_refused
test_runs_are_not_bound_to_the_first_core test_a_command_is_not_bound_to_the_first_core test_the_first_inline_run_computes_on_as_many_threads_as_later_ones
test_full_report_in_a_browser test_empty_report_in_a_browser test_on_paper_the_origins_are_unfolded test_on_a_phone_the_verdict_is_in_sight'''.split()


def test_what_stands_apart_is_there():
    text = ''.join((ROOT/'tests'/f).read_text(encoding='utf-8') for f in FAIR)
    assert not [t for t in APART if f'def {t}(' not in text]


@pytest.mark.audit
@pytest.mark.parametrize('order', ['7'])
def test_a_fair_part_in_random_order(order):
    passes([*(str(ROOT/'tests'/f) for f in FAIR), '--order', order, '-k', f"not ({' or '.join(APART)})"], timeout=1500)


@pytest.mark.audit
def test_beside_a_users_records(tmp_path):
    "In a checkout that is not the installed one, with records and pinned numbers of a user, from another folder"
    copy = copy_checkout(tmp_path/'a copy')
    shutil.copytree(ROOT/'nbs'/'results', copy/'nbs'/'results')
    code = '''
from xltnb.records.record import Record
from xltnb.records.store import Store
from xltnb.runs.experiments import jobs_for
from xltnb.files import atomic_write
mine = Store('results')
for paper, preset in (('mothello', 'smoke'), ('mothello', 'gpu'), ('robust', 'smoke')):
    for j in jobs_for(paper, preset): mine.put(Record(j.experiment, j.key, j.config, j.seed, dict(within=.1, across=.2), arm=j.arm, version=j.version))
atomic_write(mine.path/'pins.json', '{"mothello.C1@laptop": 99.0}')
print(mine.path)
'''
    env = {k: v for k, v in os.environ.items() if k != 'XLTNB_HOME'} | dict(PYTHONPATH=str(copy))
    done = subprocess.run([sys.executable, '-c', code], cwd=copy, env=env, capture_output=True, encoding='utf-8')
    assert done.stdout.strip() == str(copy/'results'), done.stderr
    before = sorted((copy/'results').rglob('*'))
    passes([*telling(copy), f'--rootdir={copy}'], dict(PYTHONPATH=str(copy)), cwd=tmp_path)
    assert sorted((copy/'results').rglob('*')) == before, 'no test writes there'


@pytest.mark.parametrize('env', [dict(PYTHONIOENCODING='ascii'), dict(PYTHONIOENCODING='latin-1'), CONDITIONS['C locale'][0]], ids=['ascii', 'latin-1', 'C'])
def test_any_terminal_shows_every_command(env):
    for words in ('list', 'list mothello', 'plan mothello --preset laptop', 'claims mothello --preset laptop', 'compare mothello --preset laptop', 'compare mothello.tab1 --json', '--help'):
        done = subprocess.run([sys.executable, '-m', 'xltnb.cli', *words.split()], cwd=ROOT, env=os.environ | env, capture_output=True)
        assert done.returncode in (0, 4) and b'Traceback' not in done.stderr, (words, done.stderr[-2000:])
        if words.startswith('plan') and 'latin-1' not in env.values(): assert b'+/-' in done.stdout
