"Distances between languages: the embedded table, definitions, errors"
import io
import json
import lzma
import zipfile

import numpy as np
import pytest

from xltnb.core import XltError
from xltnb.tasks.bench import BENCH, bench_languages, load_text
from xltnb.tasks.catalog import PUBLISHED
from xltnb.tasks.languages import (CODES, DISTANCE_KINDS, FEATURE_KINDS, URIEL, URIEL_FILE, _place, _xyz, build_typology, distance, distances,
                                   nearest_languages, read_uriel, uriel_features)


def test_every_language_of_the_companion_has_a_row():
    used = {l for n in BENCH for l in bench_languages(n)} | {l for p in PUBLISHED.values() for l in p.languages} | set(load_text().unique('lang'))
    assert used <= set(CODES)
    assert np.isfinite(distances(sorted(used), 'genetic')).all(axis=None)


def test_the_table_is_small_complete_and_licensed():
    assert URIEL_FILE.stat().st_size < 64*2**10
    table = json.loads(lzma.decompress(URIEL_FILE.read_bytes()))
    n = len(table['features'])
    assert n == len(set(table['features'])) == 289 and set(table['languages']) == set(CODES)
    for code, row in table['languages'].items():
        assert row['iso'] == CODES[code]
        assert all(len(row[k]) == n and set(row[k]) <= {'0', '1'} for k in ('values', 'known'))
        assert abs(row['place'][0]) <= 90 and abs(row['place'][1]) <= 180
    assert {c for c, r in table['languages'].items() if not r['families']} == {'eu', 'qu'}
    readme = (URIEL_FILE.parent/'README.md').read_text(encoding='utf-8')
    assert 'CC BY-SA 4.0' in readme and 'Changes:' in readme and URIEL['file'] in readme
    assert 'Attribution-ShareAlike 4.0 International' in (URIEL_FILE.parent/'LICENSE-CC-BY-SA-4.0.txt').read_text(encoding='utf-8')


def test_a_damaged_table_is_refused(monkeypatch, tmp_path):
    import xltnb.tasks.languages as m
    for data, why in ((b'not xz', 'missing or damaged'), (lzma.compress(b'{}'), 'expected')):
        (tmp_path/'t.xz').write_bytes(data)
        monkeypatch.setattr(m, 'URIEL_FILE', tmp_path/'t.xz')
        with pytest.raises(XltError, match=why): m._table.__wrapped__()


@pytest.mark.parametrize('kind', DISTANCE_KINDS)
@pytest.mark.parametrize('metric', ['cosine', 'angular'])
def test_symmetric_zero_to_itself_and_bounded(kind, metric):
    d = distances(CODES, kind, metric).to_numpy()
    assert np.allclose(d, d.T) and not np.diag(d).any() and d.min() >= 0 and d.max() <= 1


@pytest.mark.parametrize('kind', DISTANCE_KINDS)
def test_the_angle_is_a_metric_and_keeps_the_order(kind):
    d = distances(CODES, kind, 'angular').to_numpy()
    assert all((d <= d[:, [m]] + d[m] + 1e-9).all() for m in range(len(d)))
    c = distances(CODES, kind).to_numpy().ravel()
    assert (np.diff(d.ravel()[np.argsort(c, kind='stable')]) > -1e-9).all()


def test_against_the_definition():
    from scipy.spatial.distance import cosine
    for a, b in (('en', 'fr'), ('sw', 'th'), ('hi', 'ta')):
        for kind in FEATURE_KINDS:
            want = cosine(uriel_features(a, kind).value.astype(float), uriel_features(b, kind).value.astype(float))
            assert distance(a, b, kind) == pytest.approx(want, abs=1e-9)
            assert distance(a, b, kind, 'angular') == pytest.approx(2/np.pi*np.arccos(1-want), abs=1e-9)
    rows = json.loads(lzma.decompress(URIEL_FILE.read_bytes()))['languages']
    f, g = set(rows['es']['families']), set(rows['fr']['families'])
    assert distance('es', 'fr', 'genetic') == pytest.approx(1 - len(f & g)/np.sqrt(len(f)*len(g)))
    assert distance('en', 'de', 'genetic') == pytest.approx(1 - 4/np.sqrt(9*6))  # nine names down to English, six to German, four shared


def test_what_is_known_elsewhere():
    assert distance('da', 'de', 'geographic') == pytest.approx(.0361, abs=5e-5)  # printed in the package's description
    for kind in ('syntactic', 'featural', 'genetic', 'geographic'):
        assert nearest_languages('de', ['tr', 'nl'], kind) == ['nl', 'tr']
    assert nearest_languages('pt', ['tr', 'es', 'de', 'it'])[:2] == ['it', 'es']
    assert nearest_languages('bg', [l for l in PUBLISHED['xnli'].languages if l != 'en'])[0] == 'ru'
    assert distance('eu', 'es', 'genetic') == 1 and distance('hi', 'ur', 'genetic') == 0 and distance('zh', 'zh-tw', 'syntactic') == 0


def test_places_on_the_globe():
    rng = np.random.default_rng(0)
    points = np.c_[np.degrees(np.arcsin(rng.uniform(-1, 1, 50))), rng.uniform(-180, 180, 50)]
    for at in ((53.0, -1.0), (-14.5, 179.9), (0.0, -90.0)):
        far = np.arccos(np.clip(_xyz(points) @ _xyz([at])[0], -1, 1))/np.pi
        assert _place(far, points) == pytest.approx(at, abs=.006)


def test_nearest():
    langs = list(PUBLISHED['xnli'].languages)
    got = nearest_languages('de', langs + ['de', 'fr'])
    assert sorted(got) == sorted(set(langs) - {'de'}) and got[0] == 'en'
    d = distances(['de', *got]).loc['de', got]
    assert d.is_monotonic_increasing
    assert nearest_languages('sw', ['zh', 'vi', 'th'], 'genetic') == ['zh', 'vi', 'th'], 'ties keep the order given'


@pytest.mark.parametrize('call, why', [
    (lambda: distance('xx'), "unknown language 'xx'"), (lambda: distance('de', 'eng'), "unknown language 'eng'"),
    (lambda: distance('de', kind='phonologic'), "did you mean 'phonological'"), (lambda: distances(['de'], metric='cos'), "did you mean 'cosine'"),
    (lambda: distances([]), 'at least one'), (lambda: nearest_languages('de', ['de']), 'give others'), (lambda: nearest_languages('de', ['zz']), "unknown language 'zz'"),
    (lambda: uriel_features('de', 'genetic'), 'kind of features'),
])
def test_errors_name_value_and_remedy(call, why):
    with pytest.raises(XltError, match=why): call()


def wheel(path, knns, raws):
    "A wheel with the files that are read, all languages alike except for the given rows"
    isos = sorted(set(CODES.values()))
    feats = np.array(['S_SVO', 'S_SOV', 'P_TONE', 'INV_P'])
    points = np.array([(-83, 42), (10, 20), (40, -70), (-20, 110)])
    far = np.arccos(_xyz(points) @ _xyz([(48.6, 12.5)])[0])/np.pi
    knn = np.array([knns.get(i, [1, 0, 0, 1]) for i in isos], dtype='f4')[..., None]
    raw = np.array([raws.get(i, [[1, -1], [0, 0], [-1, -1], [-1, 1]]) for i in isos], dtype='f4')
    fam = np.ones((len(isos), 2, 1), 'f4')
    content = dict(feature_predictions=(feats, knn), features=(feats, raw), family_features=(np.array(['F_B', 'F_A']), fam),
                   geocoord_features=(np.array([f'GC_{a}_{b}' for a, b in points]), np.tile(far, (len(isos), 1))[..., None]))
    with zipfile.ZipFile(path, 'w') as z:
        for name, (names, data) in content.items():
            buf = io.BytesIO()
            np.savez(buf, feats=names, langs=np.array(isos), data=data)
            z.writestr(f'lang2vec/data/{name}.npz', buf.getvalue())
    return path


def test_reading_a_wheel(tmp_path):
    got = read_uriel(wheel(tmp_path/'a.whl', {'deu': [0, 1, 1, 1]}, {'deu': [[-1, -1]]*4}))
    assert got['features'] == ['S_SVO', 'S_SOV', 'P_TONE', 'INV_P']
    assert got['languages']['de'] == dict(iso='deu', values='0111', known='0000', families=['F_A', 'F_B'], place=[48.6, 12.5])
    assert got['languages']['en']['known'] == '1101' and list(got['languages']) == sorted(CODES)


def test_another_wheel_is_refused(tmp_path):
    with pytest.raises(XltError, match='expected'): build_typology(wheel(tmp_path/'a.whl', {}, {}), tmp_path/'t.xz')
    with pytest.raises(XltError, match='pip download --no-deps lang2vec==1.1.2'): build_typology(tmp_path/'none.whl')
    assert not (tmp_path/'t.xz').exists()


def test_the_same_wheel_gives_the_same_table(tmp_path):
    import os
    path = os.environ.get('LANG2VEC_WHEEL', '')
    if not path: pytest.skip('LANG2VEC_WHEEL names no wheel')
    assert lzma.decompress(build_typology(path, tmp_path/'t.xz').read_bytes()) == lzma.decompress(URIEL_FILE.read_bytes())
