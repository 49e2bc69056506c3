"What engines add to the time of their jobs; a busy machine answers for itself, so in CI alone"
import os
import time

import pytest
from test_engines import LIGHT, finish, on_slurm, slurm, start, study  # noqa: F401 (fixtures among them)

from xltnb.runs import experiments
from xltnb.runs.drive import drive
from xltnb.runs.progress import JobProgress
from xltnb.runs.run import Setup

pytestmark = pytest.mark.audit


@pytest.fixture(scope='module')
def wide():
    "A Ray cluster of two machines with four cores each, that mostly sleep"
    os.environ |= dict(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER='0', RAY_raylet_start_wait_time_s='240', RAY_worker_niceness='0')
    from ray.cluster_utils import Cluster
    four = LIGHT | dict(num_cpus=4)
    c = Cluster(initialize_head=True, head_node_args=four | dict(no_monitor=True))
    c.add_node(**four, runtime_env_dir_name='env-1')
    yield c
    c.shutdown()


def sleepers(n, seconds, name): return [experiments.make_job(name, 'far.sum', dict(how=name, seconds=seconds), i) for i in range(n)]


def test_ray_adds_little_to_a_job(study, wide, monkeypatch):
    "At most 50 ms to a trivial job; two workers that sleep are at work nine tenths of the time, eight four fifths"
    from xltnb.runs.ray import RayPool
    for k, v in study[1].items(): monkeypatch.setenv(k, v)
    experiments.load_jobs('far')
    setup = Setup(str(study[0]/'store'), committed=False)
    pool = RayPool(setup, wide.address)
    close, pool.close = pool.close, lambda: None
    def seconds(jobs, workers):
        pool.workers, begin = workers, time.monotonic()
        outs = drive(jobs, setup, JobProgress(jobs, show=False), pool, every=.2)
        assert {o.status for o in outs} == {'done'}, outs
        return time.monotonic()-begin
    try:
        seconds(sleepers(16, 1., 'warms up'), 10)
        trivial = seconds(sleepers(200, 0., 'trivial'), 10)/200
        two, eight = 16/2/seconds(sleepers(16, 1., 'two'), 2), 64/8/seconds(sleepers(64, 1., 'eight'), 10)
    finally: close()
    print(f'{1000*trivial:.0f} ms a trivial job, efficiency {two:.2f} at 2 workers, {eight:.2f} at 8; load {os.getloadavg()[0]:.1f}')
    assert trivial <= .05 and two >= .9 and eight >= .8, (trivial, two, eight, os.getloadavg())


def test_workers_that_pull_take_little_longer_than_those_of_one_machine(study, slurm):
    "Twelve jobs of ten seconds, two workers; the queue's own start counts"
    write = study[0]/'papers'/'far'/'experiments.py'
    write.write_text(write.read_text(encoding='utf-8').replace('slow=dict(seconds=1.)', 'slow=dict(seconds=10.)'), encoding='utf-8')
    begin = time.monotonic()
    finish(start(study, '--preset', 'laptop', '--workers', '2', store='local'))
    local, begin = time.monotonic()-begin, time.monotonic()
    finish(on_slurm(study, '--preset', 'laptop'))
    pull = time.monotonic()-begin
    print(f'{local:.0f} s local, {pull:.0f} s by SLURM; load {os.getloadavg()[0]:.1f}')
    assert pull <= 1.3*local, (pull, local, os.getloadavg())
