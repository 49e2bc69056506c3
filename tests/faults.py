"""What machines do to runs, many times at random moments: `python tests/faults.py --tries 20` prints the table.

One process loads the libraries and forks a driver (`xltnb run`) for each try. The driver runs a toy study of four jobs that use what
real ones use: a model and an encoder folder in the cache (`built_once`), a checkpoint after each step (`write_state`), and a record.
After the fault the same command runs once more, and every record is compared with that of an undisturbed run.
"""
import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

STUDY = '''
import os, time
from pathlib import Path
from zlib import crc32
import torch
from xltnb.core import seed_for
from xltnb.records.checkpoints import newest_state, write_state
from xltnb.records.built import built_once
from xltnb.records.record import RunKey
from xltnb.runs.experiments import Paused, Result, experiment, make_job, preset_jobs

def model(n): return lambda path: path.write_bytes(str(seed_for('model', n)).encode()*400)

def encoder(path):
    path.mkdir()
    for name in ('config.json', 'model.safetensors'): (path/name).write_text(name*500)

@experiment('toy.sum')
def toy_sum(cfg, seed, ctx):
    n, job = cfg['n'], f"{cfg['n']}-{seed}"
    note = lambda what: os.write(log, f"{what} {job} {os.environ['TOY_STORE']}\\n".encode())
    log = os.open(os.environ['TOY_LOG'], os.O_WRONLY|os.O_CREAT|os.O_APPEND)
    note('start')
    if (Path(os.environ['TOY_STORE'])/'toy.sum'/f"{RunKey('toy.sum', 1, cfg, seed).key}.json").exists(): note('again')
    total = crc32(built_once(ctx.cache/'models'/f'{n}.bin', model(n)).read_bytes())
    total += sum(crc32(f.read_bytes()) for f in sorted(built_once(ctx.cache/'encoders'/'toy', encoder).iterdir()))
    ckpt = ctx.cache/'checkpoints'/f'{job}.safetensors'
    found = newest_state(ckpt)
    t, step = (found[0]['t'], found[1]['step']) if found else (torch.zeros(64, dtype=torch.int64), 0)
    while step<5:
        if time.time()>ctx.deadline: raise Paused('time is up')
        t, step = (t*31+seed_for(n, seed, step)%1000)%100003, step+1
        time.sleep(.004)
        write_state(ckpt, dict(t=t), dict(step=step))
        ctx.report(step/5, 'sums')
    os.close(log)
    return Result(metrics=dict(total=float(t.sum()+total)), items=dict(parts=(t%7).tolist()))

@preset_jobs('toy')
def toy_jobs(preset, seeds=None):
    return [make_job(f'sum-{n}', 'toy.sum', dict(n=n), s, cost_s=.01) for n in (1, 2) for s in range(2)]
'''
JOBS = 4


class Try:
    "Folders of one try, and the drivers that it starts"
    def __init__(self, rng):
        self.rng, self.home, self.pids = rng, Path(tempfile.mkdtemp(prefix='faults-')), []
        self.cache, self.store, self.log = self.home/'cache', self.home/'store', self.home/'log'
        self.cache.mkdir()

    def start(self, *args, store=None, first=None, space=False):
        "Fork a driver; `first` is called in it before it starts, `space` gives it a process namespace of its own"
        pid = os.fork()
        if pid: return self.pids.append(pid) or pid
        code = 99
        try:
            if space: enter_space()
            store = store or self.store
            os.environ.update(XLTNB_CACHE=str(self.cache), TOY_STORE=str(store), TOY_LOG=str(self.log))
            fd = os.open(self.home/f'out-{os.getpid()}-{time.monotonic_ns()}', os.O_CREAT|os.O_WRONLY|os.O_APPEND)
            for to in (1, 2): os.dup2(fd, to)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if first: first()
            from xltnb.cli import main
            main(['run', 'toy', '--store', str(store), *(args or ('--workers', '1'))])
        except SystemExit as e: code = e.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            for f in (sys.stdout, sys.stderr): f.flush()
            os._exit(code if isinstance(code, int) else 99)

    def end(self, pid, seconds=120):
        "Exit code of a driver; one that hangs is killed"
        until = time.monotonic()+seconds
        while time.monotonic()<until:
            got, status = os.waitpid(pid, os.WNOHANG)
            if got: return os.waitstatus_to_exitcode(status)
            time.sleep(.002)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return 'hung'

    def run(self, *args, **kw): return self.end(self.start(*args, **kw))

    def said(self): return '\n'.join(f.read_text(errors='replace', encoding='utf-8') for f in sorted(self.home.glob('out-*')))

    def moment(self): time.sleep(self.rng.uniform(0, 1.1*TOOK))

    def close(self): shutil.rmtree(self.home, ignore_errors=True)


def records(store):
    "What the records say, without where and when; a file that is none is None"
    out = {}
    for f in store.glob('toy.sum/[!.]*.json'):
        try: out[f.stem] = {k: v for k, v in json.loads(f.read_text(encoding='utf-8')).items() if k not in ('provenance', 'sha256')}
        except ValueError: out[f.stem] = None
    return out


def enter_space():
    "A process namespace: this process goes on as its first one"
    if ctypes.CDLL(None).unshare(0x20000000): raise OSError('no namespaces here')
    pid = os.fork()
    if pid: os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) % 256)


def mounts():
    "May this process mount? Then in a namespace of its own, so that nothing is left"
    if os.geteuid() or ctypes.CDLL(None).unshare(0x00020000): return False
    return not subprocess.run(['mount', '--make-rprivate', '/'], capture_output=True).returncode


def mount(*args): subprocess.run(['mount', *map(str, args)], check=True, capture_output=True)
def umount(path): subprocess.run(['umount', '-l', str(path)], check=True, capture_output=True)


# ---- faults: each is called with a `Try`, does its harm, and returns exit codes that are right for the disturbed run

def kill(t, sig=signal.SIGKILL, codes=(-9, 0)):
    pid = t.start()
    t.moment()
    try: os.kill(pid, sig)
    except ProcessLookupError: pass
    return t.end(pid) in codes


def interrupt(t): return kill(t, signal.SIGINT, (130, 0))
def terminate(t): return kill(t, signal.SIGTERM, (130, 0, -15))  # before the handler is there, the system's own word counts


def kill_in_a_write(t):
    "At the k-th write or rename: half of the bytes are written, or the name is old or new"
    left, half = [t.rng.randrange(1, 90)], t.rng.random()<.5
    def arm():
        write, replace = os.write, os.replace
        def count():
            left[0] -= 1
            return not left[0]
        def cut(fd, data):
            if not count(): return write(fd, data)
            write(fd, bytes(data)[:len(data)//2])
            os.kill(os.getpid(), signal.SIGKILL)
        def rename(a, b):
            if not count(): return replace(a, b)
            if half: replace(a, b)
            os.kill(os.getpid(), signal.SIGKILL)
        os.write, os.replace = cut, rename
    return t.run(first=arm) in (-9, 0)


def kill_worker(t):
    pid = t.start('--workers', '2')
    until = time.monotonic()+60
    while not (t.log.exists() and 'start' in t.log.read_text(encoding='utf-8')) and time.monotonic()<until: time.sleep(.01)
    time.sleep(t.rng.uniform(0, .1))
    kids = [int(k) for f in Path(f'/proc/{pid}/task').glob('*/children') for k in f.read_text(encoding='utf-8').split()]
    if kids:
        try: os.kill(t.rng.choice(kids), signal.SIGKILL)
        except ProcessLookupError: pass
    return t.end(pid) == 0


def full(t, folder):
    "A small disk with room for a few files more"
    folder.mkdir(exist_ok=True)
    mount('-t', 'tmpfs', '-o', 'size=400k', 'tmpfs', folder)
    try:
        (folder/'ballast').write_bytes(bytes(4096*(100-t.rng.randrange(0, 40))))
    except OSError: pass
    code = t.run()
    (folder/'ballast').unlink()
    t.mounted = folder
    return code in (0, 1, 2) and (code == 0 or 'No space left' in t.said())


def full_store(t): return full(t, t.store)
def full_cache(t): return full(t, t.cache)


def read_only(t):
    t.store.mkdir()
    mount('-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', t.store)
    t.mounted = t.store
    pid = t.start()
    t.moment()
    while subprocess.run(['mount', '-o', 'remount,ro', str(t.store)], capture_output=True).returncode:  # while a file is open for writing
        if os.waitpid(pid, os.WNOHANG)[0]: return True
    code = t.end(pid)
    mount('-o', 'remount,rw', t.store)
    return code in (0, 1, 2)


def harm(t, f):
    "Cut a file, change a byte of it, or empty it"
    data = f.read_bytes()
    at = t.rng.randrange(len(data))
    f.write_bytes(t.rng.choice([data[:at], data[:at]+bytes([data[at]^(1 << t.rng.randrange(8))])+data[at+1:], b'']))


def again_elsewhere(t):
    "The next run is for another store, so that everything in the cache is wanted again"
    shutil.rmtree(t.store)
    t.log.unlink()


def damaged(t, pattern):
    t.run()
    harm(t, t.rng.choice(sorted(t.cache.glob(pattern))))
    again_elsewhere(t)
    return True


def bad_model(t): return damaged(t, 'models/*.bin')
def bad_encoder(t): return damaged(t, 'encoders/toy/*')
def bad_seal(t): return damaged(t, '*/*.seal')


def bad_checkpoint(t):
    kill(t)
    there = sorted(t.cache.glob('checkpoints/*.safetensors'))
    if not there: return kill(t) and bad_checkpoint(t)
    harm(t, t.rng.choice(there))
    return True


def bad_record(t):
    t.run()
    f = t.rng.choice(sorted(t.store.glob('toy.sum/*.json')))
    harm(t, f)
    t.harmed = f
    return True


def cache_gone(t):
    pid = t.start()
    t.moment()
    shutil.rmtree(t.cache, ignore_errors=True)
    code = t.end(pid)
    return code in (0, 1, 2)


def clock(t):
    "Two drivers on one store; the clock of one jumps by a day, forward or back"
    day = t.rng.choice([-86400, 86400])
    def arm():
        real, at = time.time, time.monotonic()+t.rng.uniform(0, TOOK)
        time.time = lambda: real()+(day if time.monotonic()>at else 0)
    both = [t.start(first=arm), t.start()]
    return [t.end(p) for p in both] == [0, 0]


def two_drivers(t):
    both = [t.start()]
    t.moment()
    return [t.end(p) for p in (*both, t.start())] == [0, 0]


def two_stores(t):
    "Two stores, one cache: the other store must come out the same"
    other = t.home/'other'
    both = [t.start()]
    t.moment()
    codes = [t.end(p) for p in (*both, t.start(store=other))]
    t.other = other
    return codes == [0, 0]


def two_spaces(t):
    both = [t.start(space=True), t.start(space=True)]
    return [t.end(p) for p in both] == [0, 0]


FAULTS = {'kill -9 of the driver': kill, 'kill -9 inside a write or rename': kill_in_a_write, 'SIGTERM': terminate, 'SIGINT': interrupt,
          'full store': full_store, 'full cache': full_cache, 'store turns read-only': read_only, 'damaged model': bad_model, 'damaged encoder file': bad_encoder,
          'damaged seal': bad_seal, 'damaged checkpoint': bad_checkpoint, 'damaged record': bad_record, 'cache deleted': cache_gone, 'clock moved by a day, two drivers': clock,
          'two drivers, one store': two_drivers, 'two stores, one cache': two_stores, 'two process namespaces': two_spaces, 'kill -9 of a worker': kill_worker}
NEED_ROOT = 'full store', 'full cache', 'store turns read-only', 'two process namespaces'


def one(fault, seed, want):
    "A try: what was lost, done twice, wrong, and what was wrong in words"
    from xltnb.records.leases import Lease
    t, told = Try(random.Random(seed)), []
    t.mounted = t.other = t.harmed = None
    try:
        if not fault(t): told.append('the disturbed run ended wrongly')
        code = t.run()
        if code: told.append(f'the run after it ended with {code}')
        got = records(t.store)
        lost = sum(got.get(k) is None for k in want)
        bad = sum(got[k] is not None and got[k] != want[k] for k in want if k in got)+sum(k not in want for k in got)
        if t.other and records(t.other) != want: told.append('the other store differs')
        again = [l for l in t.log.read_text(encoding='utf-8').splitlines() if l.startswith('again')] if t.log.exists() else []
        said = t.said()
        if 'Traceback' in said: told.append('a traceback')
        files = [f for s in (t.store, t.other or t.store) for f in (*s.rglob('*.lock'), *s.rglob('*.tmp'))]
        left = [str(f.relative_to(t.home)) for f in files if f.suffix == '.tmp' or Lease(f).busy()]  # a dead process's lock holds nobody up
        if left: told.append(f'left behind: {left[0]}')
        return dict(lost=lost, doubled=len(again)-bool(t.harmed and again), wrong=bad, told=told, said=said[-1500:] if told or lost or bad else '')
    finally:
        if t.mounted: umount(t.mounted)
        t.close()


def reference():
    "Records of an undisturbed run, and the time that it takes"
    t = Try(random.Random(0))
    begin = time.monotonic()
    code, want = t.run(), records(t.store)
    took = time.monotonic()-begin
    assert not code and len(want) == JOBS, t.said()
    t.close()
    return want, took


def prepare():
    "Load what every driver needs, once"
    papers = Path(tempfile.mkdtemp(prefix='faults-papers-'))
    (papers/'toy').mkdir()
    (papers/'toy'/'published.yaml').write_text('paper: toy\ncitation: {title: toy, authors: nobody, venue: none, year: 2026}\nclaims: []\n', encoding='utf-8')
    (papers/'toy'/'experiments.py').write_text(STUDY, encoding='utf-8')
    os.environ.update(XLTNB_PAPERS=str(papers), OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')
    os.chdir(ROOT)
    import xltnb.cli  # noqa: F401
    from xltnb.records.record import provenance
    from xltnb.runs.experiments import load_jobs
    from xltnb.runs.run import run_plan  # noqa: F401
    load_jobs('toy')
    provenance()
    return papers


def main():
    global TOOK
    p = argparse.ArgumentParser(description='Faults, each several times at random moments; prints fault, tries, lost, doubled, wrong, healed.')
    p.add_argument('--tries', type=int, default=20, help='tries of each fault')
    p.add_argument('--seed', type=int, default=0, help='draws the moments')
    p.add_argument('--only', default='', help='faults whose names hold this word')
    p.add_argument('--json', default='', help='file for the table; faults that stand in it are not tried again')
    p.add_argument('--minutes', type=float, default=1e9, help='start no fault after this time')
    a = p.parse_args()
    begin, papers = time.monotonic(), prepare()
    may, (want, TOOK) = mounts(), reference()
    kept = json.loads(Path(a.json).read_text(encoding='utf-8')) if a.json and Path(a.json).exists() else {}
    print(f'an undisturbed run takes {TOOK:.2f} s', flush=True)
    print(f"{'fault':<36}{'tries':>7}{'lost':>7}{'doubled':>9}{'wrong':>7}{'healed':>8}{'s':>7}", flush=True)
    failed = 0
    for name, fault in FAULTS.items():
        if a.only not in name: continue
        if name in NEED_ROOT and not may:
            print(f'{name:<36} skipped: this container may not mount', flush=True)
            continue
        if name not in kept:
            if time.monotonic()-begin > 60*a.minutes: break
            start = time.monotonic()
            got = [one(fault, f'{a.seed}-{name}-{i}', want) for i in range(a.tries)]
            row = {k: sum(g[k] for g in got) for k in ('lost', 'doubled', 'wrong')}
            row['wrong'] += sum(len(g['told']) for g in got)
            kept[name] = dict(tries=a.tries, **row, healed=sum(not (g['lost'] or g['wrong'] or g['told']) for g in got), seconds=round(time.monotonic()-start, 1))
            for g in got:
                if g['told'] or g['lost'] or g['wrong'] or g['doubled']: print(f"  {name}: {g['told']} lost {g['lost']} doubled {g['doubled']} wrong {g['wrong']}\n{g['said']}", flush=True)
            if a.json: Path(a.json).write_text(json.dumps(kept, indent=1)+'\n', encoding='utf-8')
        r = kept[name]
        failed += bool(r['lost'] or r['doubled'] or r['wrong'] or r['healed']<r['tries'])
        print(f"{name:<36}{r['tries']:>7}{r['lost']:>7}{r['doubled']:>9}{r['wrong']:>7}{r['healed']:>8}{r['seconds']:>7.0f}", flush=True)
    shutil.rmtree(papers, ignore_errors=True)
    raise SystemExit(failed > 0)


if __name__ == '__main__': main()
