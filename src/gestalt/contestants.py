"""Who is compared: recorded runs and folders of predictions, found by what a person typed.

A contestant has entries, one per benchmark: its predictions, or the numbers that are left of it, and the state of the
benchmark that they belong to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gestalt.data.coco_files import read_coco_panoptic
from gestalt.data.shards import INDEX_FILE
from gestalt.errors import ConfigError, DataError
from gestalt.evaluation.coco import picture_folder
from gestalt.evaluation.predicted_side import PredictedSide, coco_predicted, shard_predicted
from gestalt.evaluation.truth_side import TruthSide
from gestalt.panoptic import Vocabulary
from gestalt.tracking.cached_outputs import fetch_output, has_output, restore_output
from gestalt.tracking.lineage import evaluation_hash, output_hashes

if TYPE_CHECKING:
    from gestalt.tracking.recorded_runs import RecordedRun

BENCHMARKS, PREDICTIONS = "data/benchmarks", "data/predictions"
# A state of a benchmark that goes with every other: a folder of predictions does not say what it was made for.
ANY_STATE = ""
# What runs of one experiment may differ in: the seed, and what changes no result.
SEED, NOT_IN_GROUP = "seed", "runtime."

# Given a place for files and the benchmark's ground truth, opens predictions.
OpenPredictions = Callable[[Path, TruthSide], PredictedSide]


@dataclass(frozen=True)
class Entry:
    """A contestant on one benchmark.

    Attributes:
        state: Hash of the benchmark that the predictions were made for; ``ANY_STATE`` where nobody knows.
        open_predictions: None where only numbers are left.
        why_none: Why there are no predictions.
        numbers: Convention -> metric -> percent, as recorded.
        protocol: ``name@hash`` that they were recorded under.
        identity: Equal for entries that hold the same bytes; empty where unknown.
    """

    state: str
    open_predictions: OpenPredictions | None = None
    why_none: str = ""
    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    protocol: str = ""
    identity: str = ""


@dataclass(frozen=True)
class Contestant:
    """One column of a comparison.

    Attributes:
        name: Short, unlike the others.
        origin: What it is: the name of a run, or a path.
        entries: By benchmark.
        run: The recorded run; None for a folder.
        parts: Words that short names are made of.
        key: What tells it apart where these words are the same.
        network: Which network of a run.
    """

    name: str
    origin: str
    entries: Mapping[str, Entry]
    run: RecordedRun | None = None
    parts: tuple[str, ...] = ()
    key: str = ""
    network: str = ""


def find_contestants(
    texts: Sequence[str],
    *,
    root: Path,
    network: str,
    benchmark: str = "",
    find_run: Callable[[str], RecordedRun],
    can_fetch: bool = True,
) -> list[Contestant]:
    """The contestants that a person named.

    Args:
        texts: Runs (id, beginning of an id, name; ``RUN/NETWORK`` says which network) or folders; ``NAME=...`` gives a
            short name.
        root: Repository root.
        network: Which network of other runs, and of folders that hold several.
        benchmark: Benchmark of folders that do not say it.
        find_run: Finds a recorded run.
        can_fetch: Whether to ask the DVC remote for what is not here.

    Raises:
        ConfigError: Fewer than two, or two have one name.
        DataError: A run is unknown or ambiguous, a folder holds no predictions.
    """
    if len(texts) < 2:
        raise ConfigError(
            f"a comparison needs at least two runs or folders. Got: {', '.join(texts) or 'none'}; "
            "`gestalt evaluate` measures one"
        )
    found, given = [], []
    for text in texts:
        name, _, rest = text.partition("=")
        is_named = bool(rest) and not Path(text).exists()
        place = rest if is_named else text
        given.append(name if is_named else "")
        if Path(place).is_dir():
            found.append(_folder_contestant(Path(place), root, network, benchmark))
        else:
            found.append(_run_contestant(*_run(place, network, find_run), root, can_fetch))
    short = _short_names(found)
    names = [mine or other for mine, other in zip(given, short)]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"two contestants are called {', '.join(repeated)}; say NAME=RUN to tell them apart"
        )
    return [replace(entry, name=name) for entry, name in zip(found, names)]


def short_names(parts: Sequence[Sequence[str]], keys: Sequence[str], joint: str) -> list[str]:
    """A name each: the words that not all have, with the key where two would be called the same.

    Args:
        parts: Words of each.
        keys: What tells each apart; may be empty.
        joint: Stands between words.
    """
    common = set(parts[0]).intersection(*parts[1:]) if len(parts) > 1 else set()
    names = [joint.join(word for word in words if word not in common) for words in parts]
    names = [
        " ".join(filter(None, (name, key))) if not name or names.count(name) > 1 else name
        for name, key in zip(names, keys)
    ]
    return [name or joint.join(words) for name, words in zip(names, parts)]


def _short_names(contestants: Sequence[Contestant]) -> list[str]:
    """Runs are told apart from runs, folders from folders; a folder alone is called by its end."""
    names = dict.fromkeys(range(len(contestants)), "")
    for is_run, joint in ((True, " | "), (False, "/")):
        places = [place for place, entry in enumerate(contestants) if (entry.run is not None) == is_run]
        parts = [contestants[place].parts for place in places]
        if len(parts) == 1:
            # A run alone needs no network in its name, a folder alone no more than its end.
            parts = [parts[0][:-1] if is_run else parts[0][-2:]]
        if places:
            names |= zip(places, short_names(parts, [contestants[place].key for place in places], joint))
    return list(names.values())


def common_benchmarks(contestants: Sequence[Contestant], wanted: Sequence[str] = ()) -> list[str]:
    """Benchmarks that at least two contestants have, sorted.

    Args:
        contestants: All of them.
        wanted: Only these; all when empty.

    Raises:
        DataError: There is none, or a wanted one is not among them.
    """
    counted: dict[str, int] = {}
    for contestant in contestants:
        for name in contestant.entries:
            counted[name] = counted.get(name, 0) + 1
    common = sorted(name for name, count in counted.items() if count > 1)
    lists = "; ".join(f"{entry.name}: {', '.join(sorted(entry.entries)) or 'none'}" for entry in contestants)
    if not common:
        raise DataError(f"no benchmark was predicted by two of the contestants; {lists}")
    if missing := sorted(set(wanted) - set(common)):
        raise DataError(f"--benchmark {', '.join(missing)} was not predicted by two of them; {lists}")
    return [name for name in common if not wanted or name in wanted]


@dataclass(frozen=True)
class Benchmark:
    """The state of a benchmark that a comparison uses, and who fits it.

    Attributes:
        folder: Holds ``source.yaml``.
        names: Contestants that belong to this state.
        notes: Who does not, and why.
    """

    folder: Path
    names: tuple[str, ...]
    notes: tuple[str, ...]


def open_benchmark(name: str, contestants: Sequence[Contestant], root: Path, place: Path) -> Benchmark:
    """The state of a benchmark that the first contestant belongs to: the workspace's, or one from DVC's cache.

    Args:
        name: Of the benchmark.
        contestants: All of them.
        root: Repository root.
        place: Empty folder to put a state from the cache into.

    Raises:
        DataError: That state is not here.
    """
    here = benchmark_state(name, root)
    states = {
        contestant.name: contestant.entries[name].state
        for contestant in contestants
        if name in contestant.entries
    }
    wanted = next((state for state in states.values() if state != ANY_STATE), here)
    fitting = tuple(who for who, state in states.items() if state in (wanted, ANY_STATE))
    notes = tuple(
        f"{name}: {who} was measured on another state of the benchmark ({_short(state)} instead of "
        f"{_short(wanted)}) and is left out"
        for who, state in states.items()
        if who not in fitting
    )
    folder = root / BENCHMARKS / name
    if wanted == here:
        if not folder.is_dir():
            raise DataError(f"{folder} does not exist; `dvc checkout {BENCHMARKS}/{name}` brings it back")
        return Benchmark(folder, fitting, notes)
    if not has_output(root, wanted):
        raise DataError(
            f"{name}: the runs were measured on state {_short(wanted)} of {BENCHMARKS}/{name}, but the workspace "
            f"holds {_short(here)} and DVC's cache does not hold the other; `git checkout` the commit of the run, "
            "then `dvc pull`"
        )
    restore_output(root, wanted, place)
    old = f"{name}: measured on state {_short(wanted)} of the benchmark, the workspace holds {_short(here)}"
    return Benchmark(place, fitting, (*notes, old))


def benchmark_state(name: str, root: Path) -> str:
    """What tells one state of a benchmark from another: DVC's hash, or that of all sets where DVC did not make it."""
    outputs = output_hashes(root / "dvc.lock")
    made = outputs.get(f"{BENCHMARKS}/{name}")
    return made or evaluation_hash(outputs, Path(BENCHMARKS), root)


def seed_groups(contestants: Sequence[Contestant]) -> list[tuple[str, ...]]:
    """Names of runs that differ in the seed only: equal parameters and equal code; groups of two and more."""
    groups: dict[str, list[str]] = {}
    for contestant in contestants:
        if contestant.run is None or not contestant.run.parameters:
            continue
        same = {
            key: value
            for key, value in contestant.run.parameters.items()
            if key != SEED and not key.startswith(NOT_IN_GROUP)
        }
        key = json.dumps([same, dict(contestant.run.code), contestant.network], sort_keys=True)
        groups.setdefault(key, []).append(contestant.name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def _run(text: str, network: str, find_run: Callable[[str], RecordedRun]) -> tuple[RecordedRun, str]:
    """The run and its network, ``RUN`` or ``RUN/NETWORK``."""
    name, _, own = text.partition("/")
    if text != name and (not name.strip(".") or Path(name).exists() or "/" in own):
        raise DataError(
            f"{text} is no folder (seen from {Path.cwd()}); runs are named by id, beginning of an id, or name"
        )
    return find_run(name), own or network


def _run_contestant(run: RecordedRun, network: str, root: Path, can_fetch: bool) -> Contestant:
    paths = {
        path.removeprefix(f"{PREDICTIONS}/"): md5
        for path, md5 in run.outputs.items()
        if path.startswith(f"{PREDICTIONS}/")
    }
    entries = {}
    for benchmark in sorted({*paths, *run.evaluations}):
        content = run.evaluations.get(benchmark, {})
        if content and network not in content.get("networks", {}):
            continue
        entries[benchmark] = _run_entry(run, benchmark, paths.get(benchmark, ""), root, network, can_fetch)
    if not entries:
        known = sorted({name for content in run.evaluations.values() for name in content["networks"]})
        raise DataError(
            f"the run {run.run_id} ({run.name}) holds no predictions of the network {network!r}; "
            + (f"it has: {', '.join(known)}" if known else "it was not brought to its end")
        )
    return Contestant(
        "", f"run {run.name}", entries, run, (*run.name.split(" | "), network), run.run_id[:8], network
    )


def _run_entry(
    run: RecordedRun, benchmark: str, md5: str, root: Path, network: str, can_fetch: bool
) -> Entry:
    content = run.evaluations.get(benchmark)
    state = run.outputs.get(f"{BENCHMARKS}/{benchmark}") or run.tags.get("evaluation.hash", ANY_STATE)
    numbers, protocol = _recorded_numbers(content, network) if content else ({}, "")
    entry = Entry(state, numbers=numbers, protocol=protocol, identity=f"{md5}/{network}" if md5 else "")
    if not md5 or content is None:
        return replace(entry, why_none="the run did not record what was predicted")
    why = ""
    if not has_output(root, md5, network):
        why = fetch_output(root, md5, f"{PREDICTIONS}/{benchmark}") if can_fetch else "nothing is fetched"
        if not has_output(root, md5, network):
            why = f"the predictions {_short(md5)} are not in DVC's cache any more, and {why or 'not in the remote'}"
            return replace(entry, why_none=why)
    vocabulary = _recorded_vocabulary(content["networks"][network]["assignment"])

    def open_predictions(place: Path, truth: TruthSide) -> PredictedSide:
        restore_output(root, md5, place, network)
        return shard_predicted(place, vocabulary)

    return replace(entry, open_predictions=open_predictions)


def _recorded_vocabulary(assignment: Sequence[Mapping[str, Any]]) -> Vocabulary:
    """The split that a network's outputs followed, from what the stage ``evaluate`` wrote."""
    return Vocabulary(
        things=tuple(record["cluster"] for record in assignment if record["is_thing"]),
        stuff=tuple(record["cluster"] for record in assignment if not record["is_thing"]),
    )


def _recorded_numbers(content: Mapping[str, Any], network: str) -> tuple[dict[str, dict[str, float]], str]:
    metrics, protocol = content["networks"][network], content["protocol"]
    numbers = {
        convention: {
            **{metric: metrics[convention][metric] for metric in ("PQ", "SQ", "RQ")},
            **{f"PQ_{part}": metrics[convention][part]["PQ"] for part in ("thing", "stuff")},
            **{metric: metrics[metric] for metric in ("mIoU", "pixel_accuracy")},
        }
        for convention in protocol["conventions"]
    }
    return numbers, f"{protocol['name']}@{protocol['hash']}"


def _folder_contestant(folder: Path, root: Path, network: str, benchmark: str) -> Contestant:
    """A shard folder, a folder of networks, a folder of benchmarks with networks, or COCO panoptic files."""
    entries: dict[str, Entry] = {}
    parts = folder.parts if folder.name == network else (*folder.parts, network)
    if (folder / INDEX_FILE).is_file():
        entries[_benchmark_of(folder.resolve().parent, root, benchmark)] = _shard_entry(folder, root)
        parts, network = folder.parts, folder.name
    elif (folder / network / INDEX_FILE).is_file():
        entries[_benchmark_of(folder.resolve(), root, benchmark)] = _shard_entry(folder / network, root)
    elif shards := sorted(folder.glob(f"*/{network}/{INDEX_FILE}")):
        entries = {path.parents[1].name: _shard_entry(path.parent, root) for path in shards}
    elif files := sorted(folder.glob("*.json")):
        panoptic = [path for path in files if _is_coco_panoptic(path)]
        if len(panoptic) == 1:
            parts, network = folder.parts, ""
            entries[_benchmark_of(folder.resolve(), root, benchmark)] = _coco_entry(panoptic[0])
    if not entries:
        inside = sorted(path.name for path in folder.iterdir())
        raise DataError(
            f"{folder} holds no predictions of the network {network!r}: expected a shard folder ({INDEX_FILE}), one "
            f"below {network}/ or */{network}/, or one COCO panoptic JSON file. Got: "
            f"{', '.join(inside[:8]) or 'nothing'}"
        )
    return Contestant("", str(folder), entries, None, parts, "", network)


def _shard_entry(folder: Path, root: Path) -> Entry:
    vocabulary = card_vocabulary(folder, root)

    def open_predictions(place: Path, truth: TruthSide) -> PredictedSide:
        return shard_predicted(folder, vocabulary)

    return Entry(ANY_STATE, open_predictions)


def _coco_entry(path: Path) -> Entry:
    def open_predictions(place: Path, truth: TruthSide) -> PredictedSide:
        return coco_predicted(read_coco_panoptic(path, picture_folder(path)), truth, "named")

    return Entry(ANY_STATE, open_predictions)


def _is_coco_panoptic(path: Path) -> bool:
    """Whether a JSON file lists panoptic annotations; only its beginning is looked at."""
    with path.open(encoding="utf-8") as file:
        return re.search(r'"(annotations|categories|images|info)"', file.read(4096)) is not None


def card_vocabulary(folder: Path, root: Path) -> Vocabulary:
    """The split of the network that a folder is named after: its card lies in the same project."""
    relative = Path("models") / folder.name / "card.json"
    places = [parent / relative for parent in (*folder.resolve().parents, root)]
    for path in places:
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))["vocabulary"]
            return Vocabulary(tuple(content["things"]), tuple(content["stuff"]))
    raise DataError(
        f"{folder}: nothing says which pseudo-classes are things: {relative} is in no folder above it, nor in {root}"
    )


def _benchmark_of(folder: Path, root: Path, otherwise: str) -> str:
    """The benchmark a folder of predictions is named after, or what a person said."""
    if (root / BENCHMARKS / folder.name).is_dir():
        return folder.name
    if otherwise:
        return otherwise
    known = sorted(path.name for path in (root / BENCHMARKS).glob("*") if path.is_dir())
    raise DataError(
        f"{folder} does not say which benchmark it predicts; name it with --benchmark, one of: "
        f"{', '.join(known) or f'none below {root / BENCHMARKS}'}"
    )


def _short(state: str) -> str:
    return state.removesuffix(".dir")[:8] or "unknown"
