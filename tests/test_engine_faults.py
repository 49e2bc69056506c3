"What machines do to engines: each fault once, and the same command again; minutes, so in CI alone"
import os
import signal
import subprocess

import pytest
from test_engines import finish, new_cluster, on_ray, on_slurm, records, same_as_inline, slurm, started, study, wait_for  # noqa: F401 (fixtures among them)

pytestmark = pytest.mark.audit
JOBS = 12


def under_way(study, cmd):
    "Wait until some jobs are done and others are not"
    wait_for(lambda: 3 <= len(records(study)) < JOBS or cmd.poll() is not None)
    assert cmd.poll() is None, cmd.communicate()[0]
    return {r['seed'] for r in records(study).values()}


def nothing_lost_or_doubled(study, before, most):
    "All records are there and equal; what was done before the fault ran once, and at most so many others ran twice"
    n = started(study)
    assert all(n[f'slow {s}'] == 1 for s in before), (before, n)
    assert sum(n.values()) <= JOBS+most and max(n.values()) <= 2, n
    same_as_inline(study, 'laptop')
    assert len(records(study)) == JOBS


@pytest.fixture
def cluster():
    c = new_cluster()
    yield c
    c.shutdown()


def again(study, start, *args): assert f'all {JOBS} runs are done' in finish(start(study, *args, '--preset', 'laptop'))


def kill_all(*words):
    "kill -9 of the processes whose environment or command holds all words"
    for p in os.listdir('/proc'):
        if not p.isdigit() or int(p) == os.getpid(): continue
        try: text = b''.join(open(f'/proc/{p}/{f}', 'rb').read() for f in ('environ', 'cmdline'))
        except OSError: continue
        if all(w.encode() in text for w in words): os.kill(int(p), signal.SIGKILL)


def test_a_machine_of_ray_is_lost(study, cluster):
    cmd = on_ray(study, cluster, '--preset', 'laptop')
    before = under_way(study, cmd)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    assert '12 ran' in finish(cmd)
    nothing_lost_or_doubled(study, before, 3)
    again(study, on_ray, cluster)


def test_the_driver_of_ray_is_killed(study, cluster):
    cmd = on_ray(study, cluster, '--preset', 'laptop')
    before = under_way(study, cmd)
    cmd.kill()
    cmd.communicate()
    finish(on_ray(study, cluster, '--preset', 'laptop'))
    nothing_lost_or_doubled(study, before, 4)
    again(study, on_ray, cluster)


def test_two_drivers_share_a_cluster(study, cluster):
    both = [on_ray(study, cluster, '--preset', 'laptop') for _ in range(2)]
    for p in both: finish(p)
    nothing_lost_or_doubled(study, range(JOBS), 0)


def test_the_head_of_ray_is_lost(study, cluster):
    "The command ends, sooner or later; another cluster finishes"
    cmd = on_ray(study, cluster, '--preset', 'laptop')
    before = under_way(study, cmd)
    cluster.head_node.kill_gcs_server()
    cluster.head_node.kill_raylet()
    try: cmd.communicate(timeout=20)
    except subprocess.TimeoutExpired: cmd.kill()
    cmd.communicate()
    for node in cluster.list_all_nodes(): node.kill_all_processes(check_alive=False, allow_graceful=False)
    other = new_cluster()
    try: finish(on_ray(study, other, '--preset', 'laptop'))
    finally: other.shutdown()
    nothing_lost_or_doubled(study, before, 4)


def test_a_worker_of_slurm_is_cancelled(study, slurm):
    cmd = on_slurm(study, '--preset', 'laptop')
    before = under_way(study, cmd)
    ids = subprocess.run(['squeue', '-h', '-r', '--me', '-o', '%i'], capture_output=True, text=True).stdout.split()
    subprocess.run(['scancel', ids[0]], check=True)
    assert '12 ran' in finish(cmd)
    nothing_lost_or_doubled(study, before, 1)
    again(study, on_slurm)


def test_the_command_of_slurm_is_killed(study, slurm):
    cmd = on_slurm(study, '--preset', 'laptop')
    before = under_way(study, cmd)
    cmd.kill()
    cmd.communicate()
    wait_for(lambda: len(records(study)) == JOBS)
    wait_for(lambda: not subprocess.run(['squeue', '-h', '--me'], capture_output=True, text=True).stdout)
    nothing_lost_or_doubled(study, before, 0)
    again(study, on_slurm)


def test_a_machine_of_slurm_is_lost(study, slurm):
    "Its slurmd, and all that ran there: the other machine finishes"
    cmd = on_slurm(study, '--preset', 'laptop')
    before = under_way(study, cmd)
    slurm['n2'].kill()
    kill_all('SLURMD_NODENAME=n2', os.environ['SLURM_CONF'])
    try:
        assert '12 ran' in finish(cmd)
        nothing_lost_or_doubled(study, before, 1)
        again(study, on_slurm)
    finally:
        slurm['n2'] = subprocess.Popen(['slurmd', '-D', '-N', 'n2'], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)


def test_a_preempted_worker_is_queued_again(study, slurm):
    "Its job is free at once, and nobody counts it as lost"
    cmd = on_slurm(study, '--preset', 'laptop')
    before = under_way(study, cmd)
    ids = subprocess.run(['squeue', '-h', '-r', '--me', '-t', 'R', '-o', '%i'], capture_output=True, text=True).stdout.split()
    wait_for(lambda: not subprocess.run(['scancel', '--signal', 'USR2', ids[0]]).returncode) # its step may be starting
    told = lambda: subprocess.run(['scontrol', 'show', 'job', ids[0]], capture_output=True, text=True).stdout
    wait_for(lambda: 'Restarts=1' in told())
    assert '12 ran' in finish(cmd)
    nothing_lost_or_doubled(study, before, 1)
    subprocess.run(['scancel', *ids], check=True)
