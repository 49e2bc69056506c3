"Runs survive what machines do: kill -9, two commands at once, failures, full disks"
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import make_dataclass
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from conftest import ROOT, write_paper

from xltnb.files import atomic_write
from xltnb.reports import pages as mill
from xltnb.core import XltError
from xltnb.records import leases
from xltnb.runs import slurm
from xltnb.runs.experiments import EXPERIMENTS, Ctx, Paused, Result, experiment, make_job, tidy
from xltnb.runs.job import Finished, Setup, _reset_peak, keep, run_job
from xltnb.runs.local import LocalPool
from xltnb.runs.plan import make_plan
from xltnb.runs.run import run_plan
from xltnb.verdicts.study import study as study_of
from xltnb.machine import cores, gpus, world
from xltnb.records.record import Record, RunKey
from xltnb.records.store import Store

# A study whose jobs take ten steps of 0.05 s, keep a checkpoint after each, and log every step they do
STUDY = '''
import json, os, time
from xltnb.core import seed_for
from xltnb.files import atomic_write
from xltnb.runs.experiments import Paused, Result, experiment, make_job, preset_jobs

@experiment('slow.sum')
def slow_sum(cfg, seed, ctx):
    f = ctx.cache/f"slow-{cfg['n']}-{seed}.json"
    state = json.loads(f.read_text()) if f.exists() else dict(step=0, total=0)
    while state['step']<10:
        if time.time()>ctx.deadline: raise Paused(f"at step {state['step']}")
        if cfg['n']==13: raise ValueError('thirteen, in caf\\udce9')  # a file's name need be no text
        time.sleep(0.05)
        state = dict(step=state['step']+1, total=state['total']+seed_for(cfg['n'], seed, state['step'])%1000)
        with open(ctx.cache/'log.txt', 'a') as log: log.write(f"{cfg['n']} {seed} {state['step']}\\n")
        atomic_write(f, json.dumps(state))
        ctx.report(state['step']/10, 'sums')
    return Result(metrics={'total': state['total']}, items={'parts': [seed*0.1, 0.2]})

@preset_jobs('slow')
def slow_jobs(preset, seeds=None):
    sizes = dict(smoke=(1,2), laptop=(1,13,2)).get(preset, (1,))
    return [make_job(f'sum-{n}', 'slow.sum', {'n': n}, s, cost_s=1.) for n in sizes for s in range(seeds or 2)]
'''


@pytest.fixture
def study(tmp_path):
    "Environment in which `xltnb run slow` works, with folders of its own"
    write_paper(tmp_path/'papers', 'slow', experiments=STUDY)
    (tmp_path/'cache').mkdir()
    return tmp_path, {**os.environ, 'XLTNB_PAPERS': str(tmp_path/'papers'), 'XLTNB_CACHE': str(tmp_path/'cache')}


def start(study, *args, store='store', **how):
    "A command in a process of its own"
    tmp, env = study
    return subprocess.Popen([sys.executable, '-m', 'xltnb.cli', 'run', 'slow', '--store', str(tmp/store), *args], cwd=ROOT, env=env, encoding='utf-8', stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **how)  # also where the tests run in the background


def finish(proc, code=0):
    "Wait for a command; what it printed"
    out = proc.communicate(timeout=120)[0]
    assert proc.returncode==code, out
    return out


def numbers(study, store='store'):
    "What the records say, without where and when"
    return {f.stem: {k: v for k, v in json.loads(f.read_text(encoding='utf-8')).items() if k not in ('provenance', 'sha256')} for f in (study[0]/store).glob('slow.sum/*.json')}


def steps(study):
    "How often each step was done"
    return Counter((study[0]/'cache'/'log.txt').read_text(encoding='utf-8').split('\n')[:-1])


def wait_for(cond, s=60):
    "Wait until `cond()` holds"
    end = time.time()+s
    while not cond():
        assert time.time()<end, 'waited too long'
        time.sleep(0.05)


@pytest.mark.parametrize('workers', ['1', '2'])
def test_kill_9_and_again(study, workers):
    log = study[0]/'cache'/'log.txt'
    first = start(study, '--workers', workers)
    wait_for(lambda: log.exists() and log.read_text(encoding='utf-8').count('\n')>=13)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    assert 0<=len(numbers(study))<4
    out = finish(start(study, '--workers', workers))
    assert len(numbers(study))==4, out
    assert sum(steps(study).values())<=40+2*int(workers), 'finished steps were done again'
    again = finish(start(study, '--workers', workers))
    assert 'all 4 runs are done' in again
    broken = numbers(study)
    (study[0]/'cache').rename(study[0]/'cache-1')
    (study[0]/'cache').mkdir()
    finish(start(study, '--workers', '2', store='unbroken'))
    assert numbers(study, 'unbroken')==broken
    assert not list((study[0]/'store').rglob('*.tmp'))


def test_two_at_once_share_the_work(study):
    procs = [start(study, '--workers', w, '--seeds', '3') for w in ('1', '2')]
    outs = [finish(p) for p in procs]
    assert len(numbers(study))==6, outs
    assert set(steps(study).values())=={1} and sum(steps(study).values())==60, 'some step was done twice'
    assert not list((study[0]/'store'/'.claims').glob('*.lock'))


def test_who_is_at_a_run_that_is_waited_for_is_named_once(study):
    log = study[0]/'said'
    plan = subprocess.run([sys.executable, '-m', 'xltnb.cli', 'plan', 'slow', '--json', '--store', str(study[0]/'store')], cwd=ROOT, env=study[1], capture_output=True, check=True)
    first = json.loads(plan.stdout)[0]['key']
    with Store(study[0]/'store', committed=False).lease(first) as mine:
        assert mine
        with log.open('w') as out: p = subprocess.Popen([sys.executable, '-m', 'xltnb.cli', 'run', 'slow', '--store', str(study[0]/'store'), '--engine', 'inline'], cwd=ROOT, env=study[1], stdout=out)
        wait_for(lambda: 'waits for' in log.read_text(encoding='utf-8'))
        time.sleep(1.5)
    assert p.wait(timeout=60)==0
    assert log.read_text(encoding='utf-8').count(f'waits for process {os.getpid()} on {socket.gethostname()}, which is at sum-1 seed 0')==1 and len(numbers(study))==4


def test_a_failure_does_not_stop_the_others(study):
    out = finish(start(study, '--preset', 'laptop', '--seeds', '1', '--workers', '2'), code=1)
    assert '1 failed' in out and '2 ran' in out and 'thirteen' in out
    trace = next((study[0]/'store'/'.failed').glob('*.txt')).read_text(encoding='utf-8')
    assert 'sum-13 seed 0' in trace and 'ValueError: thirteen' in trace


def workers_of(pid):
    "Processes that a driver started for its jobs, by number"
    kids = [k for f in Path(f'/proc/{pid}/task').glob('*/children') for k in f.read_text(encoding='utf-8').split()]
    return [int(k) for k in kids if b'spawn_main' in Path(f'/proc/{k}/cmdline').read_bytes()]


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='asks the system for the children of a process')
def test_a_job_of_a_killed_worker_is_tried_again(study):
    log, p = study[0]/'cache'/'log.txt', start(study, '--workers', '2', '--seeds', '3')
    wait_for(lambda: log.exists() and log.read_text(encoding='utf-8').count('\n')>=3)
    os.kill(workers_of(p.pid)[0], signal.SIGKILL)
    out = finish(p)
    assert '6 ran' in out and 'perhaps for want of memory' in out and 'tried again' in out
    assert len(numbers(study))==6 and sum(steps(study).values())<=61, 'it went on from its checkpoint'
    assert not (study[0]/'store'/'.failed').exists()


def test_minutes_pause_and_resume(study):
    codes = []
    while not codes or codes[-1]==3:
        p = start(study, '--workers', '1', '--seeds', '1', '--minutes', f'{.006*(1+len(codes)/8):.4f}') # longer sittings where a busy machine makes no step in one
        p.communicate(timeout=60)
        codes.append(p.returncode)
        assert len(codes)<60
    assert len(codes)>1 and codes[-1]==0 and len(numbers(study))==2
    assert set(steps(study).values())=={1}
    walls = [json.loads(f.read_text(encoding='utf-8'))['provenance']['wall_s'] for f in (study[0]/'store').glob('slow.sum/*.json')]
    assert min(walls)>=.5, 'a record counts all its sittings'
    assert not [p for p in (study[0]/'cache'/'.paused').iterdir() if p.is_file()]


@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_quiet(study, sent):
    p = start(study, '--workers', '2', '--seeds', '9')
    wait_for(lambda: (study[0]/'cache'/'log.txt').exists())
    p.send_signal(sent)
    out = finish(p, code=130)
    assert 'the same command goes on' in out and 'Traceback' not in out
    finish(start(study, '--workers', '2', '--seeds', '9'))
    assert len(numbers(study))==18


@pytest.mark.parametrize('engine', ['local', 'inline'])
@pytest.mark.parametrize('all_hear', [False, True], ids=['command', 'terminal'])
def test_ctrl_c_twice_leaves_no_lock_and_no_traceback(study, engine, all_hear):
    "as an impatient user presses it; a terminal tells every process of the command"
    for wait in (0., .7):  # while workers load their modules, and while they compute
        p = start(study, '--engine', engine, '--seeds', '9', *(['--workers', '2'] if engine == 'local' else []), start_new_session=True)
        wait_for(lambda: list((study[0]/'store'/'.claims').glob('*.lock')))
        time.sleep(wait)
        for _ in range(2):
            (os.killpg if all_hear else os.kill)(p.pid, signal.SIGINT)
            time.sleep(.015)
        out = finish(p, code=130)
        assert 'the same command goes on' in out and 'Traceback' not in out and 'Interrupt' not in out, out
        assert not list((study[0]/'store'/'.claims').glob('*.lock'))


def test_jobs_of_a_killed_parent_end(study):
    "Workers do not outlive a parent that was killed"
    p = start(study, '--workers', '2', '--seeds', '9')
    log = study[0]/'cache'/'log.txt'
    wait_for(lambda: log.exists() and log.read_text(encoding='utf-8').count('\n')>=4)
    p.send_signal(signal.SIGKILL)
    p.communicate(timeout=60)
    time.sleep(0.5)
    n = log.read_text(encoding='utf-8').count('\n')
    time.sleep(0.6)
    assert log.read_text(encoding='utf-8').count('\n')==n


def test_store_that_cannot_be_written(study):
    (study[0]/'store').write_text('a file', encoding='utf-8')
    out = finish(start(study), code=2)
    assert 'is a file; name a folder' in out and 'Traceback' not in out


def test_plain_progress_has_no_control_codes(study):
    out = finish(start(study, '--workers', '1', '--seeds', '1'))
    assert '\x1b' not in out and 'about' in out.splitlines()[0] and '2/2 jobs' in out


def test_gpu_preset_without_a_gpu_is_refused(study):
    out = finish(start((study[0], study[1] | dict(CUDA_VISIBLE_DEVICES='')), '--preset', 'gpu'), code=2)
    assert 'choose smoke or laptop, or ask for it with --device cpu' in out and 'Traceback' not in out
    assert '2/2 jobs' in finish(start(study, '--preset', 'gpu', '--device', 'cpu'))


def test_a_scratch_folder_has_one_user_and_goes_once_all_is_measured(tmp_path):
    ctx = lambda **kw: Ctx(tmp_path, **kw)
    lend = lambda c: c.scratch('slow.sum', make_dataclass('Cfg', ['n'])(1), 0)
    first = ctx()
    with lend(first) as out:
        out.mkdir(parents=True)
        with pytest.raises(Paused, match=f'process {os.getpid()} on .*the same command goes on'), lend(ctx(deadline=time.time())): pass
    assert out.is_dir(), 'what was trained is still to be measured'
    with lend(ctx()): tidy(first.lent)
    assert out.is_dir(), 'somebody else is at it'
    tidy(first.lent)
    assert not out.exists()
    with lend(ctx()): pass


@pytest.fixture
def trained(tmp_path):
    "A run with one checkpoint: its job, its setup, and the seeds that were trained"
    seeds = []
    @experiment('full.train')
    def train(cfg, seed, ctx):
        with ctx.scratch('full.train', cfg, seed) as folder:
            if not folder.exists():
                time.sleep(.05)
                seeds.append(seed)
                atomic_write(folder/'weights', 'trained')
        return Result(metrics={'acc': 1.})
    yield make_job('a', 'full.train', {}, 0), Setup(str(tmp_path/'store'), committed=False, cache=str(tmp_path/'cache')), seeds
    del EXPERIMENTS['full.train']


def test_a_store_that_is_full_at_the_end_costs_nothing(trained, tmp_path, monkeypatch):
    "The checkpoint outlives the failure, and so do the seconds that it took"
    job, setup, seeds = trained
    def full(*a): raise XltError('could not write: No space left on device; free some space')
    monkeypatch.setattr('xltnb.runs.job._NOTED_S', 0.)
    with monkeypatch.context() as m:
        m.setattr('xltnb.records.store.write_new', full)
        out = run_job(job, setup, lambda *a: None)
    assert out.status=='failed' and 'free some space' in out.note
    assert run_job(job, setup, lambda *a: None).status=='done' and seeds==[0]
    assert setup.open().get(job.key).provenance['wall_s']>=.05
    assert not [p for p in (tmp_path/'cache').rglob('*') if p.is_file()], 'the record is kept, so the rest goes'


def test_who_failed_after_another_has_kept_the_record_did_not_fail(trained):
    job, setup, _ = trained
    run_job(job, setup, lambda *a: None)
    assert keep(setup.open(), job, Finished('failed', 'its checkpoint is gone')).status=='there'


def test_each_job_has_its_own_peak_on_a_gpu(monkeypatch):
    said = []
    cuda = SimpleNamespace(is_initialized=lambda: True, reset_peak_memory_stats=lambda: said.append('reset'))
    monkeypatch.setitem(sys.modules, 'torch', SimpleNamespace(cuda=cuda))
    _reset_peak()
    assert said==['reset']


@pytest.fixture
def page(tmp_path, monkeypatch):
    "A page that is not executed but copied, with a library and a store of its own: `run()` gives the status"
    cells = [nbformat.v4.new_code_cell("store:str = 'results' # records", metadata={'tags': ['parameters']})]
    nb, lib = tmp_path/'page.ipynb', tmp_path/'lib'
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={'kernelspec': {'name': 'python3', 'language': 'python', 'display_name': 'x'}}), nb)
    (lib/'data').mkdir(parents=True)
    write_paper(tmp_path/'papers', 'a')
    monkeypatch.setenv('XLTNB_PAPERS', str(tmp_path/'papers'))
    monkeypatch.setattr(mill, 'package_data', lambda: lib/'data')
    monkeypatch.setattr(mill, 'execute_page', lambda nb, tmp, params: tmp.write_text('done', encoding='utf-8') and '')
    return lib, tmp_path/'store', lambda: mill.run_page(nb, dict(store=str(tmp_path/'store')), tmp_path/'pages').status


def test_a_page_during_whose_run_a_record_came_is_run_again(page, tmp_path, monkeypatch):
    "whoever made it: another process may have put it there after the page had looked"
    store = Store(tmp_path/'store', committed=False)
    def made(nb, tmp, params):
        if not store.keys(): store.put(Record('slow.sum', RunKey('slow.sum', 1, {}, 0).key, {}, 0, {}, provenance=dict(cpu='x')))
        return tmp.write_text('done', encoding='utf-8') and ''
    monkeypatch.setattr(mill, 'execute_page', made)
    assert [page[2](), page[2](), page[2]()]==['ok', 'ok', 'cached']


@pytest.mark.parametrize('what', ['lib/new.py', 'papers/a/published.yaml', 'papers/a/speed.py', 'store/pins.json'])
def test_a_page_is_run_again_when_a_rule_or_a_pin_changes(page, tmp_path, what):
    assert [page[2](), page[2]()]==['ok', 'cached']
    (tmp_path/'store').mkdir()
    (tmp_path/what).write_text('{"a": 1}', encoding='utf-8')
    assert [page[2](), page[2]()]==['ok', 'cached']


def test_a_page_during_whose_run_something_changed_is_run_again(page, monkeypatch):
    lib, _, run = page
    def change(nb, tmp, params):
        tmp.write_text('done', encoding='utf-8')
        (lib/'a.py').write_text('1', encoding='utf-8')
        return ''
    monkeypatch.setattr(mill, 'execute_page', change)
    assert [run(), run(), run()]==['ok', 'ok', 'cached']


@pytest.mark.skipif(cores() < 2, reason='one core binds nothing')
@pytest.mark.parametrize('held', [True, False])
def test_runs_are_not_bound_to_the_first_core(held):
    "as OMP_PROC_BIND of a batch system would have it: several processes of one thread would share that core"
    hold = 'from xltnb.runs.run import hold_threads as hold' if held else 'from contextlib import nullcontext as hold'
    code = f'import os; {hold}\nwith hold(1): import torch; torch.ones(300, 300)@torch.ones(300, 300)\nprint(len(os.sched_getaffinity(0)))'
    done = subprocess.run([sys.executable, '-c', code], env=os.environ | dict(OMP_PROC_BIND='true'), capture_output=True, text=True)
    assert int(done.stdout) == (cores() if held else 1), done.stderr


@pytest.mark.skipif(cores() < 2, reason='one core binds nothing')
def test_a_command_is_not_bound_to_the_first_core():
    "not even one that loads torch to ask for a GPU, nor a process that it starts"
    ask = 'import os; print(len(os.sched_getaffinity(0)), flush=True)'
    code = f'import subprocess, sys; from xltnb.cli import main\ntry: main(["--version"])\nexcept SystemExit: pass\nimport torch; {ask}; subprocess.run([sys.executable, "-c", {ask!r}])'
    done = subprocess.run([sys.executable, '-c', code], env=os.environ | dict(OMP_PROC_BIND='true'), capture_output=True, text=True)
    assert done.stdout.split()[1:] == [str(cores())]*2, done.stderr


def test_a_gpu_that_is_not_there_gets_no_worker(monkeypatch):
    "CUDA stops at the first name that it does not know"
    import torch
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,5')
    assert gpus() == ['0']


def test_a_share_of_a_slurm_task_is_kept(monkeypatch):
    monkeypatch.setenv('SLURM_CPUS_PER_TASK', '1')
    assert cores() == 1
    monkeypatch.setenv('SLURM_CPUS_PER_TASK', 'all')
    assert cores() >= 1


@pytest.mark.parametrize('silent_s,end', [(200, 'done'), (0, 'busy')])
def test_a_worker_of_a_queue_waits_for_a_lock_that_nobody_touches(tmp_path, monkeypatch, silent_s, end):
    "It was killed, and the queue started it again on another node, from which its former process cannot be asked for"
    monkeypatch.setattr(slurm, '_LOOK_S', .1)
    monkeypatch.setattr(leases, '_WATCH_S', .5)
    monkeypatch.setitem(EXPERIMENTS, 'queued.sum', None)
    experiment('queued.sum')(lambda cfg, seed, ctx: Result(metrics={'sum': 1.}))
    setup, job = Setup(tmp_path/'store', committed=False, cache=tmp_path), make_job('sum', 'queued.sum', {}, 0)
    lock = setup.open().lease(job.key).lock
    atomic_write(lock, json.dumps(dict(pid=1, host='another node', token='x')))
    os.utime(lock, (time.time()-silent_s,)*2)
    assert slurm.pull([job], setup, {}) == {job.key: end}


def test_words_of_torchrun_that_are_no_numbers(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', 'x')
    with pytest.raises(XltError, match="WORLD_SIZE is 'x', not a number"): world()


def test_the_first_inline_run_computes_on_as_many_threads_as_later_ones():
    "torch reads the number when it is loaded, which the first run does"
    code = 'import os, sys; from xltnb.runs.run import hold_threads; hold = hold_threads(1)\nwith hold: import torch; inside = torch.get_num_threads()\nprint("torch" in sys.modules, inside, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"])'
    done = subprocess.run([sys.executable, '-c', code], env=os.environ | dict(OMP_NUM_THREADS='3'), capture_output=True, text=True)
    assert done.stdout.split() == ['True', '1', '3', '3'], done.stderr


# Jobs that say when they ran and on how many threads; how many cores and how much memory they need stands in their config
WIDE = '''
import os, time
from xltnb.runs.experiments import Needs, Result, experiment, make_job, preset_jobs

@experiment('wide.nap', needs=lambda cfg: Needs(cfg['cores'], 0, cfg['gb']))
def nap(cfg, seed, ctx):
    import torch
    begin = time.time()
    time.sleep(.4)
    return Result(metrics=dict(begin=begin, end=time.time()), provenance=dict(threads=torch.get_num_threads(), said=os.environ['OMP_NUM_THREADS']))

@preset_jobs('wide')
def jobs(preset, seeds=None):
    asked = dict(smoke=[(1, 0.), (2, 0.), (1, 0.), (2, 0.)], laptop=[(1, .6), (1, .6), (1, .2)], gpu=[(1, 0.), (4096, 0.)], paper=[(1, 0.), (1, 1e6)])[preset]
    return [make_job(f'{i}-{n}-cores', 'wide.nap', dict(cores=n, gb=gb), i, cost_s=9.) for i, (n, gb) in enumerate(asked)]
'''


@pytest.fixture
def wide(tmp_path, monkeypatch):
    "`go(preset, **options)` runs jobs that need more than one core, or memory; their records, in order"
    write_paper(tmp_path/'papers', 'wide', experiments=WIDE)
    for k, v in dict(XLTNB_PAPERS=tmp_path/'papers', XLTNB_CACHE=tmp_path/'cache').items(): monkeypatch.setenv(k, str(v))
    def go(preset, **options):
        store = Store(tmp_path/'store', committed=False)
        report = run_plan(make_plan('wide', preset, store=store), show=False, device='cpu', **options)
        assert {o.status for o in report.outcomes} == {'done'}, report
        return sorted(store.records(), key=lambda r: r.seed)
    return go


def overlap(a, b): return a.metrics['begin'] < b.metrics['end'] and b.metrics['begin'] < a.metrics['end']


@pytest.mark.parametrize('how', [dict(workers=2), dict(engine='inline')], ids=str)
def test_a_job_computes_on_the_cores_that_it_needs(wide, monkeypatch, how):
    for at in ('run', 'local'): monkeypatch.setattr(f'xltnb.runs.{at}.cores', lambda: 2)
    runs = wide('smoke', **how)
    assert [(r.provenance['threads'], r.provenance['said']) for r in runs] == [(1, '1'), (2, '2'), (1, '1'), (2, '2')]
    assert not any(overlap(r, other) for r in (runs[1], runs[3]) for other in runs if other is not r), 'two cores are all there are'


def test_jobs_side_by_side_have_the_memory_that_they_need(wide, monkeypatch):
    monkeypatch.setattr('xltnb.runs.local.memory_gb', lambda: 1.)
    first, second, third = make_plan('wide', 'laptop').jobs  # of .6, .6 and .2 GB
    pool = LocalPool(Setup(''), 3)
    assert pool.room(first)
    pool.busy = dict(one=SimpleNamespace(job=first))
    assert not pool.room(second) and pool.room(third)


@pytest.mark.parametrize('preset, needs', [('gpu', '4096 cores'), ('paper', '1 core, 1e.06 GB of memory')])
@pytest.mark.parametrize('how', [dict(workers=2), dict(engine='inline')], ids=str)
def test_what_this_machine_can_never_hold_is_refused_before_anything_runs(wide, tmp_path, preset, needs, how):
    with pytest.raises(XltError, match=f'cores needs {needs}, and this machine has {cores()} core.*engine ray or slurm'): wide(preset, **how)
    assert not list((tmp_path/'store').glob('*/*.json')) and not list((tmp_path/'store'/'.claims').iterdir())


@pytest.mark.parametrize('engine', ['inline', 'ranks'])
def test_workers_of_an_engine_that_has_one_are_refused(wide, engine):
    with pytest.raises(XltError, match=f"workers is 8, and engine '{engine}' runs one job after another: leave workers out"): wide('smoke', engine=engine, workers=8)


def test_workers_that_are_asked_for_are_not_passed_over_at_smoke(wide, monkeypatch):
    asked = []
    monkeypatch.setattr('xltnb.verdicts.study.run_plan', lambda plan, **options: asked.append(options))
    s = study_of('wide', 'smoke')
    for options in ({}, dict(workers=2), dict(workers=2, engine='ray')): s.run(**options)
    assert [(o.get('engine'), o.get('workers')) for o in asked] == [('inline', None), (None, 2), ('ray', 2)]


@pytest.mark.parametrize('how, said', [(dict(engine='inline'), 'about 36 s with 1 worker'), (dict(workers=2), 'with 2 workers'),
                                       (dict(engine='ray', address='127.0.0.1:9'), 'core-hours, with as many workers as the cluster holds'),
                                       (dict(engine='ray', workers=8, address='127.0.0.1:9'), 'about 9 s with 8 workers')], ids=str)
def test_an_estimate_says_who_will_be_at_it(wide, tmp_path, capsys, monkeypatch, how, said):
    monkeypatch.setattr('xltnb.runs.run._rounds', lambda *a: [])
    run_plan(make_plan('wide', 'smoke', store=Store(tmp_path/'store', committed=False)), device='cpu', **how)
    assert said in capsys.readouterr().out
