"Jobs on other machines: a Ray cluster of two machines on loopback, SLURM with two more; every record is what one process makes"
import getpass
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, write_paper


# Jobs of a fifth of a second. Each writes down where its code lies and who it is; some are wrong, and some kill their worker
STUDY = '''
import os, signal, time
from pathlib import Path
import numpy as np
import xltnb
from xltnb.core import seed_for
from xltnb.runs.experiments import Needs, Result, experiment, make_job, preset_jobs

@experiment('far.sum', needs=lambda cfg: Needs(cfg.get('cores', 1)))
def far_sum(cfg, seed, ctx):
    shared, how = Path(os.environ['XLTNB_SHARED']), cfg['how']
    with open(shared/'log', 'a') as f: f.write(f'{how} {seed}\\n')
    print('a job talks')
    if how=='wrong': raise ValueError('thirteen')
    if how=='dies' or how=='dies once' and not (mark := shared/f'died {seed}').exists():
        if how=='dies once': mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    for i in range(10):
        time.sleep(cfg.get('seconds', .2)/10)
        ctx.report(i/10, 'sums')
    xs = np.random.default_rng(seed_for(how, seed)).standard_normal(50)
    return Result(metrics={'sum': float(xs.sum())}, items={'xs': xs}, provenance=dict(code=[xltnb.__file__, __file__], pid=os.getpid(),
        gpu=os.environ.get('CUDA_VISIBLE_DEVICES')))

JOBS = dict(smoke=[('fine', 4), ('dies once', 1), ('dies', 1), ('wrong', 1)], laptop=[('slow', 12)], gpu=[('fine', 8)], paper=[('big', 1), ('fine', 1)])

@preset_jobs('far')
def far_jobs(preset, seeds=None):
    more = dict(slow=dict(seconds=1.), big=dict(cores=64))
    return [make_job(h, 'far.sum', dict(how=h) | more.get(h, {}), s, cost_s=1.) for h,n in JOBS[preset] for s in range(n)]
'''


@pytest.fixture
def study(tmp_path):
    "Environment in which `xltnb run far` works, with folders of its own"
    write_paper(tmp_path/'papers', 'far', experiments=STUDY)
    for d in ('cache', 'shared'): (tmp_path/d).mkdir()
    return tmp_path, os.environ | dict(XLTNB_PAPERS=str(tmp_path/'papers'), XLTNB_CACHE=str(tmp_path/'cache'), XLTNB_SHARED=str(tmp_path/'shared'))


def start(study, *args, store='store'):
    "A command in a process of its own"
    tmp, env = study
    return subprocess.Popen([sys.executable, '-m', 'xltnb.cli', 'run', 'far', '--store', str(tmp/store), *args], cwd=ROOT, env=env, encoding='utf-8',
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # also where the tests run in the background


def finish(proc, *codes):
    "Wait for a command; what it printed"
    out = proc.communicate(timeout=300)[0]
    assert proc.returncode in (codes or (0,)), out + ''.join(f.read_text(encoding='utf-8') for f in map(Path, re.findall(r'see (\S+\.txt)', out)))
    assert 'Traceback' not in out, out
    return out


def records(study, store='store'):
    "The records, by key"
    return {f.stem: json.loads(f.read_text(encoding='utf-8')) for f in (study[0]/store).glob('far.sum/*.json')}


def numbers(study, store='store'): return {k: {f: v for f, v in r.items() if f not in ('provenance', 'sha256')} for k, r in records(study, store).items()}


def started(study): return Counter((study[0]/'shared'/'log').read_text(encoding='utf-8').splitlines())


def wait_for(cond, s=240):
    "Wait until `cond()` holds"
    end = time.time()+s
    while not cond():
        assert time.time()<end, 'waited too long'
        time.sleep(.05)


def same_as_inline(study, preset):
    "Every record of the study is what one process makes, and nothing is left behind"
    had = {k for k, n in started(study).items() if n > 1}
    finish(start(study, '--preset', preset, '--engine', 'inline', '--device', 'cpu', *(['--jobs', 'fine,dies once'] if preset == 'smoke' else []), store='inline'))
    assert numbers(study) == numbers(study, 'inline') != {}
    assert not [p.name for p in (study[0]/'store').rglob('*') if '.lock' in p.name or p.name.endswith('.tmp')]
    return had


PAGE = """{"cells": [
 {"cell_type": "code", "execution_count": null, "id": "a", "metadata": {"tags": ["parameters"]}, "outputs": [], "source": "preset:str = 'laptop' # whose runs\\nstore:str = 'results' # folder of run records"},
 {"cell_type": "code", "execution_count": null, "id": "b", "metadata": {}, "outputs": [], "source": "from xltnb.verdicts.study import study\\nprint(*sorted((r.key, r.metrics['sum']) for r in study('far', preset, store=store).runs), sep='\\\\n')\\nWHAT"}],
 "metadata": {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}"""


def pages_are_made(study, *how):
    "Runs and pages of the paper are made on a cluster; a page that cannot work is told; what is there is not made again"
    tmp, env = study
    for name, what in (('far_fine', 'store'), ('far_wrong', "raise ValueError('page thirteen')")):
        (tmp/'papers'/'far'/f'{name}.ipynb').write_text(PAGE.replace('WHAT', what), encoding='utf-8')
    def pages(code):
        got = subprocess.run([sys.executable, '-m', 'xltnb.cli', 'pages', 'far', '--preset', 'laptop', '--store', str(tmp/'store'), '--out', str(tmp/'pages'), *how],
                             cwd=ROOT, env=env, encoding='utf-8', stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400)
        assert got.returncode == code, got.stdout
        return got.stdout
    out = pages(1)
    assert 'pages: 1 ok, 1 error' in out and 'page thirteen' in out, out
    [file] = (tmp/'pages').glob('far_fine-*.ipynb')
    page = json.loads(file.read_text(encoding='utf-8'))
    said = ''.join(page['cells'][-2]['outputs'][0]['text'])
    assert said.splitlines() == [str((k, r['metrics']['sum'])) for k, r in sorted(records(study).items())], said
    assert str(tmp/'store') in json.dumps(page) and 'index.html' in os.listdir(tmp/'pages')
    (tmp/'papers'/'far'/'far_wrong.ipynb').unlink()
    assert 'pages: 1 cached' in pages(0) and set(started(study).values()) == {1}


# ---- this machine

@pytest.mark.parametrize('names, workers, want', [('4,5,6,7', 4, '4567'), ('GPU-a', 2, ['GPU-a', 'GPU-a']), ('', 2, [''])])
def test_each_worker_sees_one_gpu(study, monkeypatch, names, workers, want):
    "Of the four that CUDA_VISIBLE_DEVICES names, each of four workers gets its own"
    from xltnb.runs import experiments, local, run
    from xltnb.runs.progress import JobProgress
    for k, v in (study[1] | dict(CUDA_VISIBLE_DEVICES=names)).items(): monkeypatch.setenv(k, v)
    monkeypatch.setattr('torch.cuda.device_count', lambda: len(names.split(','))*bool(names))
    jobs = experiments.jobs_for('far', 'gpu')[:4]
    assert run._workers(jobs, 'cuda') == max(1, len(names.split(',')))
    setup = run.Setup(str(study[0]/'store'), committed=False, device='cuda')
    outs = local.local(jobs, setup, workers, JobProgress(jobs, show=False))
    assert [o.status for o in outs] == ['done']*4, outs
    assert sorted({r['provenance']['gpu'] for r in records(study).values()}) == sorted(set(want))


# ---- Ray

LIGHT = dict(num_cpus=1, include_log_monitor=False, include_dashboard=False)


def new_cluster():
    "Two machines of one core each: two raylets with their own processes, on loopback"
    os.environ |= dict(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER='0', RAY_raylet_start_wait_time_s='240', RAY_worker_niceness='0')  # on loopback; a busy machine is no failure
    from ray.cluster_utils import Cluster
    c = Cluster(initialize_head=True, head_node_args=LIGHT | dict(no_monitor=True))
    c.add_node(**LIGHT, runtime_env_dir_name='env-1')  # each machine has its own copy of what is sent
    return c


@pytest.fixture(scope='module')
def cluster():
    c = new_cluster()
    yield c
    c.shutdown()


def on_ray(study, cluster, *args): return start(study, '--engine', 'ray', '--address', cluster.address, *args)


def test_ray_makes_the_records_of_one_process(study, cluster):
    "Code is sent, a lost job is tried again and after three times given up, an error is told once"
    out = finish(on_ray(study, cluster), 1)
    assert '5 ran' in out and '2 failed' in out and 'ValueError: thirteen' in out and '3 times' in out and 'tried again' in out, out
    assert started(study) == {'fine 0': 1, 'fine 1': 1, 'fine 2': 1, 'fine 3': 1, 'dies once 0': 2, 'dies 0': 3, 'wrong 0': 1}
    same_as_inline(study, 'smoke')
    told = [f.read_text(encoding='utf-8') for f in (study[0]/'store'/'.failed').glob('*.txt')]
    assert len(told) == 2 and any('ValueError: thirteen' in t and 'a job talks' in t and 'far_sum' in t for t in told)
    for r in records(study).values():
        where, here = r['provenance'], records(study, 'inline').popitem()[1]['provenance']
        assert (where['commit'], where['dirty']) == (here['commit'], here['dirty']) and where['rules'] == here['rules']
        assert not [f for f in where['code'] if f.startswith((str(ROOT/'xltnb'), str(study[0])))], 'its code was sent'
    again = finish(on_ray(study, cluster, '--jobs', 'fine'))
    assert 'all 4 runs are done' in again


def test_what_no_machine_holds_is_refused_at_once(study, cluster, monkeypatch):
    from xltnb.core import XltError
    from xltnb.runs.progress import JobProgress
    from xltnb.runs.ray import RayPool
    from xltnb.runs.job import Setup
    from xltnb.runs import drive, experiments
    for k, v in study[1].items(): monkeypatch.setenv(k, v)
    jobs = experiments.jobs_for('far', 'paper')
    setup = Setup(str(study[0]/'store'), committed=False)
    pool, begin = RayPool(setup, cluster.address), time.monotonic()
    with pytest.raises(XltError, match='can hold big: it needs 64 cores, the machines have: 1 cores, 0 GPUs.*; 1 cores'):
        drive.drive(jobs, setup, JobProgress(jobs, show=False), pool)
    assert time.monotonic()-begin < 5 and not (study[0]/'shared'/'log').exists()


def test_pages_are_made_on_ray(study, cluster): pages_are_made(study, '--engine', 'ray', '--address', cluster.address)


# ---- SLURM

def test_one_of_two_that_look_at_once_puts_workers_into_the_queue(study, monkeypatch):
    "The other one waits, and finds them there"
    from threading import Thread
    from xltnb.runs import experiments, slurm
    from xltnb.runs.job import Setup
    from xltnb.runs.progress import JobProgress
    for k, v in study[1].items(): monkeypatch.setenv(k, v)
    jobs, queue = experiments.jobs_for('far', 'gpu'), {}
    def submit(jobs, setup, workers, options, lost):
        time.sleep(.3)  # as sbatch takes it
        queue[str(len(queue)+1)] = [('PENDING', '')]*workers
        slurm.atomic_write(slurm._crews(setup.open()), json.dumps({a: [j.key for j in jobs] for a in queue}))
        return max(queue)
    monkeypatch.setattr(slurm, '_submit', submit)
    monkeypatch.setattr(slurm, '_squeue', lambda: dict(queue))
    watches = [slurm.Watch(jobs, Setup(str(study[0]/'store'), committed=False), JobProgress(jobs, show=False)) for _ in range(2)]
    arrays, threads = [], [Thread(target=lambda w=w: arrays.append(slurm._turn(w, 2, {}))) for w in watches]
    for t in threads: t.start()
    for t in threads: t.join()
    assert arrays == [{'1'}, {'1'}] and [*queue] == ['1'] and sum(bool(w.arrays) for w in watches) == 1


CONF = '''
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
SlurmctldPort={p0}
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/%n
SlurmctldPidFile={home}/ctld.pid
SlurmdPidFile={home}/%n.pid
SlurmctldLogFile={home}/ctld.log
SlurmdLogFile={home}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=10
KillWait=2
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={p1} CPUs=1 RealMemory=500
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={p2} CPUs=1 RealMemory=500
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
'''


def free_ports(n):
    "Ports of loopback that nobody has"
    socks = [socket.socket() for _ in range(n)]
    for s in socks: s.bind(('127.0.0.1', 0))
    ports = [s.getsockname()[1] for s in socks]
    for s in socks: s.close()
    return ports


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
    "SLURM of two machines of one core each: a controller and two slurmd, on loopback, from Debian's packages"
    os.environ['PATH'] += ':/usr/sbin'  # which a user's PATH need not have
    if not all(map(shutil.which, ('slurmctld', 'slurmd', 'sbatch'))):
        (pytest.fail if os.environ.get('CI') else pytest.skip)('SLURM is not on this machine (Debian: apt install slurm-wlm)')
    home, ports = tmp_path_factory.mktemp('slurm'), free_ports(3)
    (home/'state').mkdir()
    conf = home/'slurm.conf'
    conf.write_text(CONF.format(host=socket.gethostname(), user=getpass.getuser(), home=home, p0=ports[0], p1=ports[1], p2=ports[2]), encoding='utf-8')
    os.environ['SLURM_CONF'] = str(conf)
    run = lambda *cmd: subprocess.Popen(cmd, stdout=(home/'said').open('a'), stderr=subprocess.STDOUT)
    procs = dict(ctld=run('slurmctld', '-D'))
    for n in ('n1', 'n2'): procs[n] = run('slurmd', '-D', '-N', n)
    idle = lambda: subprocess.run(['sinfo', '-h', '-o', '%D %t'], capture_output=True, text=True).stdout.strip() == '2 idle'
    try:
        wait_for(idle, 60)
        yield procs
    finally:
        subprocess.run(['scancel', '-u', getpass.getuser()], capture_output=True)
        for p in reversed(procs.values()): p.terminate()
        for p in procs.values():
            try: p.wait(10)
            except subprocess.TimeoutExpired: p.kill()


def on_slurm(study, *args): return start(study, '--engine', 'slurm', '--workers', '2', '--slurm', 'partition=main time=30', *args)


def test_slurm_makes_the_records_of_one_process(study, slurm):
    "Workers share the list; a lost job is taken up by another worker, and given up after three times; an error is told once"
    out = finish(on_slurm(study), 1)
    assert '5 ran' in out and '2 failed' in out and 'ValueError: thirteen' in out and 'lost 3 times' in out, out
    assert started(study) == {'fine 0': 1, 'fine 1': 1, 'fine 2': 1, 'fine 3': 1, 'dies once 0': 2, 'dies 0': 3, 'wrong 0': 1}
    same_as_inline(study, 'smoke')


def test_slurms_workers_need_no_command(study, slurm):
    "Left to themselves they finish; the same command, given meanwhile, puts no second crew into the queue"
    assert '8 queued' in finish(on_slurm(study, '--preset', 'gpu', '--no-wait', '--device', 'cpu'), 3)
    told = subprocess.run([sys.executable, '-m', 'xltnb.cli', 'status', 'far', '--preset', 'gpu', '--store', str(study[0]/'store')], cwd=ROOT, env=study[1], capture_output=True, encoding='utf-8')
    assert 'far at gpu' in told.stdout and ("SLURM's workers" in told.stdout or '8 done' in told.stdout), told
    out = finish(on_slurm(study, '--preset', 'gpu', '--device', 'cpu'))
    assert ' failed' not in out and (' ran' in out or 'all 8 runs are done' in out), out
    assert len(json.loads((study[0]/'store'/'.slurm'/'crews.json').read_text(encoding='utf-8'))) == 1
    assert set(started(study).values()) == {1}
    same_as_inline(study, 'gpu')


def test_two_commands_given_at_once_put_one_crew_into_the_queue(study, slurm):
    both = [on_slurm(study, '--preset', 'gpu', '--device', 'cpu') for _ in range(2)]
    wait_for((study[0]/'store'/'.slurm'/'crews.json').exists)
    for p in both: finish(p)
    assert len(json.loads((study[0]/'store'/'.slurm'/'crews.json').read_text(encoding='utf-8'))) == 1
    assert set(started(study).values()) == {1} and len(records(study)) == 8


@pytest.mark.parametrize('sent, go_on', [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGKILL, True)])
def test_what_ends_the_command_of_slurm_ends_its_workers_unless_it_leaves_no_time(study, slurm, sent, go_on):
    cmd = on_slurm(study, '--preset', 'laptop')
    wait_for(lambda: len(records(study)) >= 1)
    cmd.send_signal(sent)
    cmd.communicate(timeout=60)
    queue = lambda: subprocess.run(['squeue', '-h', '--me'], capture_output=True, text=True).stdout
    if go_on: wait_for(lambda: len(records(study)) == 12)
    wait_for(lambda: not queue())
    assert (len(records(study)) == 12) == go_on


def test_pages_are_made_by_slurm(study, slurm): pages_are_made(study, '--engine', 'slurm', '--workers', '2', '--slurm', 'partition=main time=30')
