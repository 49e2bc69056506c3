"""Othello against an independent engine, the whole 4×4 tree, and the tensor code."""
import numpy as np
import pytest

from xltnb.othello.rules import SYMMETRIES, Position, geometry, play, symmetries
from xltnb.othello.rules import NONE
from xltnb.othello.games import board_classes, perft, random_games, random_games_torch, replay, unpack

KNOWN = [4, 12, 56, 244, 1396, 8200, 55092, 390216, 3005288]

def test_perft_equals_the_known_counts():
    assert [perft(d) for d in range(1,9)] == KNOWN[:8]

def slow_perft(p, depth):
    return len(p.legal()) if depth==1 else sum(slow_perft(play(p,s),depth-1) for s in p.legal())

@pytest.mark.parametrize('n', [4,6,8])
def test_perft_equals_the_readable_rules(n):
    assert perft(4,n) == slow_perft(Position.start(n),4)

def grow(games, ply):
    "Every game of `ply` moves, continued by every legal move; games that have ended stay as they are"
    r = replay(games, 4) if ply else None
    legal = r.legal[:,ply-1] if ply else np.array([sum(1<<s for s in Position.start(4).legal())], np.uint64)
    bits = unpack(legal,16); ended = ~bits.any(1); rows,squares = np.nonzero(bits)
    new = games[rows].copy(); new[:,ply] = squares
    return np.concatenate([games[ended],new])

def readable(game):
    "Positions of a game by the readable rules"
    p = Position.start(4)
    for s in game[game!=NONE]: p = play(p,int(s))
    return p

def test_the_whole_4x4_tree():
    "All 60,060 games; a sample is played again by the readable rules, and chance plays nothing else"
    games = np.full((1,12), NONE, np.uint8)
    for ply in range(12): games = grow(games, ply)
    assert len(games)==60_060==len({g.tobytes() for g in games})
    r = replay(games, 4)
    assert not r.legal[:,-1].any() and not r.legal_opp[:,-1].any()
    for i in np.random.default_rng(0).choice(len(games), 300, replace=False):
        p = readable(games[i]); assert (p.black,p.white)==(int(r.black[i,-1]),int(r.white[i,-1])) and not p.legal() and not p.other().legal()
    played = {g.tobytes() for g in random_games(200_000, n=4, seed=1)}
    assert played <= {g.tobytes() for g in games} and len(played) > 30_000

@pytest.mark.parametrize('n', [4,6,8])
@pytest.mark.parametrize('opening', [(), 'three'])
def test_tensor_code_plays_the_same_games(n, opening):
    opening = () if not opening else {4:(1,0,4),6:(8,7,6),8:(19,18,17)}[n]
    count = 10_000 if not opening else 500
    assert (random_games_torch(count, n=n, seed=4, start=123, opening=opening).numpy() == random_games(count, n=n, seed=4, start=123, opening=opening)).all()

def test_agrees_with_an_independent_engine():
    "10,000 games: same legal moves, same passes, same final board"
    rr = pytest.importorskip('rust_reversi')
    games = random_games(10_000, seed=11); r = replay(games); final = board_classes(r)[np.arange(len(games)), r.length-1]
    for i,g in enumerate(games):
        b = rr.Board()
        for t,sq in enumerate(int(s) for s in g if s!=NONE):
            if b.is_pass(): b.do_pass()
            if i<500: assert sorted(b.get_legal_moves_vec()) == sorted(np.flatnonzero([(int(r.legal[i,t-1])>>k)&1 for k in range(64)]) if t else [19,26,37,44])
            assert b.is_legal_move(sq); b.do_move(sq)
        if b.is_pass() and not b.is_game_over(): b.do_pass()
        assert b.is_game_over()
        assert (b.black_piece_num(), b.white_piece_num()) == ((final[i]==2).sum(), (final[i]==0).sum())

def test_statistics_of_random_games():
    "Figures of our notes on the paper, within about four standard errors of 100,000 games"
    games = random_games(100_000, seed=3); r = replay(games)
    n = np.bitwise_count(r.legal[:,:59][games[:,1:]!=NONE])
    assert abs((r.length==60).mean()-.990) < .002 and abs((r.length==59).mean()-.009) < .002
    assert abs(r.length.mean()-59.97) < .01 and abs(n.mean()-8.61) < .03 and abs(np.log(n).mean()-2.010) < .004
    first = np.unique(games[:,0], return_counts=True)
    assert set(first[0])=={19,26,37,44} and (abs(first[1]/len(games)-.25) < .007).all()
    third = (games[:,:3]==[19,18,17]).all(1).mean(); assert abs(third-1/48) < .002

def test_seeds_and_sizes():
    assert not (random_games(100,seed=1)==random_games(100,seed=2)).all()
    for n in (4,6,8): assert geometry(n).moves==n*n-4

@pytest.mark.parametrize('s', range(4))
def test_symmetries_keep_the_rules(s):
    games = random_games(300, n=6, seed=s); image = symmetries(6)[s]
    turned = np.where(games==NONE, NONE, image[np.minimum(games,35)]).astype(np.uint8)
    assert (board_classes(replay(turned,6))[:,:,image]==board_classes(replay(games,6))).all(), SYMMETRIES[s]
