"""The fast matching in PyTorch alone: any device, any number of coordinates, slower than the compiled op.

All pairs of a batch are matched at once. The trees split all nodes of a level at once. The swaps go in rounds: every
slot proposes its best exchange, and those that no better proposal touches are made.

Where numbers are unequal and one is no multiple of the other, the points that have a partner more are chosen
beforehand, evenly; the compiled op chooses them by cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apml_plugin.matching.inputs import Clouds
from apml_plugin.matching.search import neighbours_of, squared_distance
from apml_plugin.matching.settings import FastSettings

LEAF = 8
"""Nodes of at most so many points are sorted and paired off."""

DRAWS = 4096
"""Different random planes in a tree; a node's key chooses one of them."""

ROUNDS = 6
"""Rounds of swaps for each pass of the compiled op, which makes many exchanges of a point in one pass."""


def pairs_in_torch(clouds: Clouds, settings: FastSettings) -> list[Tensor]:
    """What :func:`apml_plugin.matching.fast.fast_pairs` gives."""
    sizes = [(len(x), len(y)) for x, y in map(clouds.pair, range(clouds.pred.shape[0]))]
    full = [b for b, (n, m) in enumerate(sizes) if n and m]
    result = [torch.empty(0, 2, dtype=torch.int64, device=clouds.pred.device) for _ in sizes]
    if not full:
        return result
    problem = _Problem.of([clouds.pair(b) for b in full], settings)
    best = _match(problem, settings, 0)
    for restart in range(1, settings.restarts):
        best = _cheaper(problem, settings, best, _match(problem, settings, restart))
        best = _swap(problem, settings, best)
    slot = column = 0
    for b in full:
        n, m = sizes[b]
        slots, columns = settings.matched(n, m), max(n, m)
        mine = problem.point[slot : slot + slots]
        theirs = best[slot : slot + slots] - column
        first, second = (theirs, mine) if n > m else (mine, theirs)
        order = (mine if settings.unequal == "smaller" else theirs).argsort()
        result[b] = torch.stack((first[order], second[order]), dim=1)
        slot, column = slot + slots, column + columns
    return result


@dataclass
class _Problem:
    """All pairs of a batch, one after another. The smaller cloud's points have slots, the larger one's are columns."""

    slots: Tensor  # (S, D) coordinates of the slots
    columns: Tensor  # (C, D)
    point: Tensor  # (S,) the point of each slot within its cloud
    turn: Tensor  # (S,) the number of each slot within its pair of clouds
    slot_counts: list[int]
    column_counts: list[int]
    near_columns: Tensor  # (S, K) columns near each slot
    near_first: Tensor  # (S, K) the first slot of points near it, and
    near_number: Tensor  # (S, K) how many slots those have

    @classmethod
    def of(cls, pairs: list[tuple[Tensor, Tensor]], settings: FastSettings) -> _Problem:
        parts: list[tuple[Tensor, ...]] = []
        slot_counts: list[int] = []
        column_counts: list[int] = []
        for x, y in pairs:
            a, b = _framed(*((x, y) if len(x) <= len(y) else (y, x)))
            slots = settings.matched(len(a), len(b))
            steps = torch.arange(len(a) + 1, device=a.device)
            bounds = steps * slots // len(a)
            # Which points have a slot more must not depend on the order in which they were given.
            order = (a @ _draws(settings.seed, a)[0][0]).argsort(stable=True)
            number, first = torch.empty_like(order), torch.empty_like(order)
            number[order], first[order] = bounds.diff(), bounds[:-1]
            point = order.repeat_interleave(bounds.diff(), output_size=slots)
            to_b = _near(a, b, settings.neighbours)[point]
            to_a = _near(a, a, settings.neighbours + 1)[point]
            parts.append((a[point], b, point, to_b + sum(column_counts), first[to_a] + sum(slot_counts), number[to_a]))
            slot_counts.append(slots)
            column_counts.append(len(b))
        # Small clouds have shorter lists; a slot's first candidate then stands in for those that are missing.
        widths = [max(part[k].shape[1] for part in parts) for k in range(3, 6)]
        for k, width in enumerate(widths, start=3):
            parts = [
                (*part[:k], part[k][:, torch.arange(width, device=part[k].device) % part[k].shape[1]], *part[k + 1 :])
                for part in parts
            ]
        slots_at, columns_at, point, near_columns, near_first, near_number = map(torch.cat, zip(*parts, strict=True))
        turn = torch.cat([torch.arange(count, device=point.device) for count in slot_counts])
        return cls(slots_at, columns_at, point, turn, slot_counts, column_counts, near_columns, near_first, near_number)


def _framed(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both clouds in float32 with coordinates in [-1, 1], whatever their unit."""
    wide = [cloud.detach().to(torch.float32 if cloud.device.type == "mps" else torch.float64) for cloud in (a, b)]
    low, high = torch.minimum(*(c.amin(0) for c in wide)), torch.maximum(*(c.amax(0) for c in wide))
    centre, half = low / 2 + high / 2, (high / 2 - low / 2).amax()
    half = torch.where(half > 0, half, 1.0)
    first, second = (((cloud - centre) / half).float() for cloud in wide)
    return first, second


def _near(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """(n, k) indices of the nearest of ``points`` for each query; fewer where there are fewer points."""
    searchable = queries.device.type in ("cpu", "cuda")
    x, y = (queries, points) if searchable else (queries.cpu(), points.cpu())
    return neighbours_of(y).nearest(x, min(k, len(y))).to(queries.device)


def _draws(seed: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Directions (DRAWS, D) and fractions (DRAWS,) of a tree, made on the CPU: the same on every device."""
    generator = torch.Generator().manual_seed(_mixed(seed) >> 32)  # it reads no more than 32 bits
    directions = torch.randn(DRAWS, like.shape[1], generator=generator)
    return directions.to(like.device), torch.rand(DRAWS, generator=generator).to(like.device)


def _mixed(seed: int) -> int:
    """The finaliser of SplitMix64, as in cuda_ext/common/random.h."""
    key = (seed + 0x9E3779B97F4A7C15) % 2**64
    key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    key = (key ^ key >> 27) * 0x94D049BB133111EB % 2**64
    return key ^ key >> 31


def _match(problem: _Problem, settings: FastSettings, restart: int) -> Tensor:
    """(S,) the column of each slot, by two trees and swaps."""
    return _swap(problem, settings, _trees(problem, *_draws(_mixed(settings.seed) ^ restart, problem.slots)))


def _trees(problem: _Problem, directions: Tensor, fractions: Tensor) -> Tensor:
    device = problem.slots.device
    count_a, count_b = (torch.tensor(counts, device=device) for counts in (problem.slot_counts, problem.column_counts))
    node_a, node_b = (torch.arange(len(c), device=device).repeat_interleave(c) for c in (count_a, count_b))
    order_a, order_b = (torch.arange(len(node), device=device) for node in (node_a, node_b))
    equal = problem.slot_counts == problem.column_counts
    key = torch.ones_like(count_a)  # every pair of a batch has the same tree, as it would have alone
    while True:
        draw = (key >> 33) % DRAWS
        order_a, along_a = _sorted(problem.slots, order_a, node_a, directions[draw])
        order_b, along_b = _sorted(problem.columns, order_b, node_b, directions[draw])
        start_a, start_b = count_a.cumsum(0) - count_a, count_b.cumsum(0) - count_b
        large = count_a > LEAF
        if not bool(large.any()):
            break
        least = count_a // 4
        cut_a = torch.where(large, least + (fractions[draw] * (count_a - 2 * least + 1)).long(), count_a)
        cut_a = torch.minimum(cut_a, count_a)
        cut_b = cut_a
        if not equal:  # at the same plane, as far as both parts keep enough columns
            plane = along_a[torch.minimum(start_a + cut_a, start_a + count_a - 1)]
            below = torch.zeros_like(count_b).index_add_(0, node_b, (along_b < plane[node_b]).long())
            cut_b = torch.minimum(torch.maximum(below, cut_a), count_b - (count_a - cut_a))
            cut_b = torch.where(large, cut_b, count_b)
        parts_a, parts_b = (
            torch.stack((cut, c - cut), dim=1).flatten() for cut, c in ((cut_a, count_a), (cut_b, count_b))
        )
        sides = torch.tensor([1442695040888963407, 2531011], device=device)
        keys = torch.where(large[:, None], key[:, None] * 6364136223846793005 + sides, key[:, None]).flatten()
        kept = parts_a > 0
        number = kept.cumsum(0) - 1
        upper_a = torch.arange(len(node_a), device=device) - start_a[node_a] >= cut_a[node_a]
        upper_b = torch.arange(len(node_b), device=device) - start_b[node_b] >= cut_b[node_b]
        node_a, node_b = number[2 * node_a + upper_a], number[2 * node_b + upper_b]
        count_a, count_b, key = parts_a[kept], parts_b[kept], keys[kept]
    # In each leaf by rank; where there are columns to spare, evenly among them.
    rank = torch.arange(len(node_a), device=device) - start_a[node_a]
    chosen = start_b[node_a] + (2 * rank + 1) * count_b[node_a] // (2 * count_a[node_a])
    partner = torch.empty_like(order_a)
    partner[order_a] = order_b[chosen]
    return partner


def _sorted(points: Tensor, order: Tensor, node: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """The order of the points along the directions of their nodes, node by node, and how far along they are."""
    along = (points[order] * directions[node]).sum(dim=1)
    by = along.argsort(stable=True)
    by = by[node[by].argsort(stable=True)]
    return order[by], along[by]


def _cost(problem: _Problem, settings: FastSettings, slot: Tensor, column: Tensor) -> Tensor:
    squared = squared_distance(problem.slots[slot], problem.columns[column])
    return squared if settings.norm == "L2" else squared.sqrt()


def _swap(problem: _Problem, settings: FastSettings, column: Tensor) -> Tensor:
    """(S,) the columns after rounds of exchanges."""
    device, slots = column.device, len(column)
    every = torch.arange(slots, device=device)
    cost = _cost(problem, settings, every, column)
    owner = torch.full((len(problem.columns),), -1, device=device)
    owner[column] = every
    active = every
    spare = len(problem.columns) > slots
    for turn in range(ROUNDS * settings.passes):
        near = problem.near_columns[active]
        one = owner[near]
        two = problem.near_first[active] + (problem.turn[active][:, None] + turn) % problem.near_number[active]
        other = torch.cat((one, two), dim=1)
        offered = torch.cat((near, column[two]), dim=1)
        mine = _cost(problem, settings, active[:, None], offered)
        theirs = _cost(problem, settings, other, column[active][:, None])
        gain = cost[active][:, None] + cost[other] - mine - theirs
        if spare:
            gain = torch.where(other < 0, cost[active][:, None] - mine, gain)
        gain, choice = gain.max(dim=1)
        # What rounding could feign is no gain.
        proposing = gain > 1e-6 * cost[active]
        active, gain, choice = active[proposing], gain[proposing], choice[proposing]
        if len(active) == 0:
            break
        with_ = other[proposing].gather(1, choice[:, None])[:, 0]
        to = offered[proposing].gather(1, choice[:, None])[:, 0]
        # A free column that two slots want is a place of its own.
        place = torch.where(with_ < 0, slots + to, with_)
        made = _undisputed(active, place, gain, slots + len(problem.columns))
        slot, exchanged, to = active[made], with_[made], to[made]
        left = column[slot]
        owner[left] = exchanged
        owner[to] = slot
        column = column.scatter(0, slot, to)
        both = exchanged >= 0
        column = column.scatter(0, exchanged[both], left[both])
        changed = torch.cat((slot, exchanged[both]))
        cost = cost.scatter(0, changed, _cost(problem, settings, changed, column[changed]))
        active = torch.cat((active, exchanged[both])).unique()
    return column


def _undisputed(slot: Tensor, place: Tensor, gain: Tensor, places: int) -> Tensor:
    """Which proposals no better one touches, in slot or place; of equally good ones that of the first slot."""
    best = torch.zeros(places, dtype=gain.dtype, device=gain.device)
    for touched in (slot, place):
        best.scatter_reduce_(0, touched, gain, "amax")
    top = (gain == best[slot]) & (gain == best[place])
    first = torch.full((places,), places, device=gain.device)
    for touched in (slot, place):
        first.scatter_reduce_(0, touched, torch.where(top, slot, places), "amin")
    return top & (first[slot] == slot) & (first[place] == slot)


def _cheaper(problem: _Problem, settings: FastSettings, one: Tensor, other: Tensor) -> Tensor:
    """(S,) the cheaper of two matchings on each cycle of their union, and on each path where columns are free."""
    every = torch.arange(len(one), device=one.device)
    ring = every
    for mine, theirs in ((one, other), (other, one)):  # forwards, then backwards
        owner = torch.full((len(problem.columns),), -1, device=one.device)
        owner[mine] = every
        follower = owner[theirs]
        follower = torch.where(follower < 0, every, follower)
        for _ in range(len(one).bit_length()):  # the least slot of the next 2, 4, 8, ... on its cycle
            ring = torch.minimum(ring, ring[follower])
            follower = follower[follower]
    gain = _cost(problem, settings, every, one) - _cost(problem, settings, every, other)
    gain = torch.zeros_like(gain).index_add_(0, ring, gain)
    return torch.where(gain[ring] > 0, other, one)
