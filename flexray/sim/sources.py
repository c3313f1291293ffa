"""What ``flexray simulate`` can run, by its options, each with its JSON, its tables and its page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flexray.config import PoolConfig, load_config
from flexray.errors import UsageError
from flexray.model.devices import Inventory
from flexray.sim.azure import read_azure, read_calls
from flexray.sim.gavel import GavelResult, simulate_gavel
from flexray.sim.journal import ReplayResult, check_replay, read_journal, what_if
from flexray.sim.openb import Experiment, OpenbResult, Task, read_nodes, read_tasks
from flexray.sim.openb_load import Load, LoadResult, replay_load
from flexray.sim.openb_timed import replay_times
from flexray.sim.parallel import Progress, parse_seeds, run_seeds
from flexray.sim.report import openb_page, results_page, serving_page, timed_page
from flexray.sim.result import Part, Result, as_json, collect
from flexray.sim.scenario import (
    inventory_of,
    json_schemas,
    load_scenario,
    parse_scenario,
    run_scenario,
    with_requests,
)
from flexray.sim.serving import serve
from flexray.sim.serving_options import fleet_of
from flexray.sim.serving_result import ServingResult
from flexray.sim.sheets import (
    Sheet,
    comparison_sheets,
    gavel_sheets,
    load_sheets,
    openb_sheets,
    replay_sheets,
    result_sheets,
    serving_sheets,
    timed_sheets,
)
from flexray.sim.table import read_table

DEFAULT_SEEDS = "42-51"
"""The seeds of the published results."""

LOADED_INFLATE = 8.0
"""With --load the pool has to fill and empty several times before departures decide."""

_OPENB_ONLY = ("inflate", "seeds", "timed", "load", "clip", "workers")
_GAVEL_ONLY = ("throughputs", "cluster", "rate", "measure", "throughputs_known")
_SERVE_ONLY = ("cards", "share", "replicas", "models", "service", "objective")
_NOT_SERVED = ("table", "journal", "openb_nodes", "openb_tasks", "gavel_trace")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command, as given."""

    scenario: Path | None = None
    table: Path | None = None
    azure: Path | None = None
    openb_nodes: Path | None = None
    openb_tasks: Path | None = None
    journal: Path | None = None
    policies: tuple[str, ...] = ()
    config: Path | None = None
    inflate: float | None = None
    seeds: str | None = None
    timed: bool = False
    load: float | None = None
    clip: float | None = None
    workers: int | None = None
    gavel_trace: Path | None = None
    throughputs: Path | None = None
    cluster: str | None = None
    rate: float | None = None
    measure: str | None = None
    throughputs_known: bool = False
    serve: bool = False
    cards: str | None = None
    share: tuple[float, ...] = ()
    replicas: int | None = None
    models: int | None = None
    service: str | None = None
    objective: str | None = None
    schema: bool = False
    check: bool = False
    estimates: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is printed as JSON or as tables, and the page, if there is one."""

    json: str
    sheets: list[Sheet] = field(default_factory=list)
    page: Callable[[], str] | None = None


def run_source(options: Options, progress: Progress = lambda done, of: None) -> Outcome:
    """Run what the options ask for. Raises UsageError when they ask for nothing, or for two things."""
    if options.schema:
        return _schema()
    if options.serve:
        return _serve(options, progress)
    _refuse(options, "this: only --serve has it", *_SERVE_ONLY)
    openb = options.openb_nodes or options.openb_tasks
    if openb and (options.scenario or options.journal):
        raise UsageError("openb brings its own nodes and tasks; leave --scenario and --journal out")
    if not openb:
        _refuse(options, "this: only openb has it", *_OPENB_ONLY)
    if options.gavel_trace:
        return _gavel(options, options.gavel_trace, progress)
    _refuse(options, "this: only --gavel-trace has it", *_GAVEL_ONLY)
    if options.config is not None and not options.journal:
        raise UsageError("--config is the configuration of the pool that wrote a --journal; a scenario has config:")
    if options.journal:
        return _journal(options, options.journal)
    if options.scenario:
        return _scenario(options, options.scenario)
    if options.table or options.azure:
        raise UsageError("--table and --azure bring requests; give the nodes with --scenario NODES.yaml (or --serve)")
    if openb:
        return _openb(options, progress)
    raise UsageError(
        "say what to simulate: --scenario, --openb-nodes with --openb-tasks, --gavel-trace with --throughputs, "
        "--azure with --serve, or --journal (see flexray simulate --help)"
    )


def _schema() -> Outcome:
    text = json.dumps(json_schemas(), indent=2)
    return Outcome(text, [("JSON Schemas; --json prints them", ("name",), [[name] for name in json_schemas()])])


def _scenario(options: Options, path: Path) -> Outcome:
    scenario = load_scenario(path)
    if options.table and options.azure:
        raise UsageError("give one of --table and --azure")
    if options.table:
        scenario = with_requests(scenario, read_table(options.table), str(options.table))
    if options.azure:
        scenario = with_requests(scenario, read_azure(options.azure), str(options.azure))
    policies: Sequence[str | None] = options.policies or (None,)
    runs = [run_scenario(scenario, policy, check=options.check, all_estimates=options.estimates) for policy in policies]
    return _results(runs)


def _results(runs: list[Result]) -> Outcome:
    sheets = result_sheets(runs[0]) if len(runs) == 1 else comparison_sheets(runs)
    return Outcome(_one_or_many(runs), sheets, lambda: results_page(runs))


def _serve(options: Options, progress: Progress) -> Outcome:
    _refuse(options, "--serve", *_NOT_SERVED, *_OPENB_ONLY, *_GAVEL_ONLY, "config", "check")
    if options.azure is None or (options.cards is None) == (options.scenario is None):
        raise UsageError(
            "--serve needs the calls, --azure TRACE.csv, and the cards: --cards 8xnvidia/A100-80GB, or --scenario "
            "NODES.yaml, whose own requests are a background load"
        )
    if options.scenario:
        scenario = load_scenario(options.scenario)
    else:  # nothing else is there, and the replicas are up when the first call comes
        nodes = [{"name": "cards", "devices": options.cards}]
        scenario = parse_scenario({"version": 1, "nodes": nodes, "costs": {"start": 0}}, "--cards")
    calls = read_calls(options.azure)
    policies: Sequence[str | None] = options.policies or (None,)
    runs = [(policy, share) for policy in policies for share in options.share or (1.0,)]
    results: list[ServingResult] = []
    for policy, share in runs:
        fleet = fleet_of(share, options.replicas, options.models, options.service, options.objective)
        results.append(serve(scenario, calls, fleet, policy))
        progress(len(results), len(runs))
    return Outcome(_one_or_many(results), serving_sheets(results), lambda: serving_page(results))


def _journal(options: Options, path: Path) -> Outcome:
    entries, config = read_journal(path), load_config(options.config)
    if not options.policies and not options.scenario:
        replayed: ReplayResult = check_replay(entries, config)
        return Outcome(as_json(replayed), replay_sheets(replayed))
    nodes = None
    if options.scenario:
        nodes = [inventory_of(node) for node in load_scenario(options.scenario).nodes]
    configs = [config.model_copy(update={"policy": policy}) for policy in options.policies or (config.policy,)]
    return _results([collect(what_if(entries, one, nodes)) for one in configs])


def _gavel(options: Options, trace: Path, progress: Progress) -> Outcome:
    if options.throughputs is None:
        raise UsageError("--gavel-trace TRACE.csv needs --throughputs FILE.json")
    cluster = _numbers("--cluster", options.cluster or "36:36:36", 3)
    first, last = _numbers("--measure", options.measure or "4000:5000", 2)
    rate = 4.0 if options.rate is None else options.rate
    results: list[GavelResult] = []
    for policy in options.policies or ("rounds",):
        known = options.throughputs_known or policy == "las"  # the linear program cannot learn
        results.append(
            simulate_gavel(
                trace, options.throughputs, cluster, rate, (first, last), policy, known=known, progress=progress
            )
        )
    one = len(results) == 1
    text = results[0].to_json() if one else json.dumps([json.loads(r.to_json()) for r in results], indent=2)
    return Outcome(text, gavel_sheets(results))


def _numbers(option: str, text: str, count: int) -> tuple[int, ...]:
    parts = text.split(":")
    if len(parts) != count or not all(part.isdigit() for part in parts):
        raise UsageError(f"{option}={text!r} must be {count} whole numbers with colons between, such as 36:36:36")
    return tuple(int(part) for part in parts)


def _openb(options: Options, progress: Progress) -> Outcome:
    if options.openb_nodes is None or options.openb_tasks is None:
        raise UsageError("--openb-nodes NODES.csv and --openb-tasks TASKS.csv belong together")
    nodes, tasks = read_nodes(options.openb_nodes), read_tasks(options.openb_tasks)
    policies = options.policies or (PoolConfig().policy,)
    if options.load is not None:
        return _openb_load(options, options.load, nodes, tasks, policies, progress)
    _refuse(options, "this: it belongs to --timed with --load", "clip")
    if options.timed:
        _refuse(options, "--timed, which has nothing random without --load", "seeds", "inflate", "workers")
        timed = [replay_times(nodes, tasks, policy) for policy in policies]
        return Outcome(_one_or_many(timed), timed_sheets(timed), lambda: timed_page(timed))
    seeds = parse_seeds(options.seeds or DEFAULT_SEEDS)
    inflate = 1.3 if options.inflate is None else options.inflate
    if not 0 < inflate <= 100:
        raise UsageError(f"--inflate {inflate:g} must be above 0: the demand that arrives, as a multiple of the GPUs")
    results: list[OpenbResult] = []
    for policy in policies:
        before = len(results)
        results.append(
            run_seeds(
                Experiment(nodes, tasks, policy, inflate),
                seeds,
                lambda done, of, before=before: progress(before * of + done, of * len(policies)),  # type: ignore[misc]
                options.workers,
            )
        )
    return Outcome(_one_or_many(results), openb_sheets(results), lambda: openb_page(results))


def _openb_load(
    options: Options,
    load: float,
    nodes: Sequence[Inventory],
    tasks: Sequence[Task],
    policies: Sequence[str],
    progress: Progress,
) -> Outcome:
    if not options.timed or options.clip is None:
        raise UsageError("--load needs --timed, and --clip SECONDS: the longest life")
    _refuse(options, "--load, which runs in one process", "workers")
    orders: Sequence[int | None] = parse_seeds(options.seeds) if options.seeds else (None,)
    inflate = LOADED_INFLATE if options.inflate is None else options.inflate
    runs = [(policy, Load(load, options.clip, inflate, order)) for policy in policies for order in orders]
    results: list[LoadResult] = []
    for policy, asked in runs:
        progress(len(results), len(runs))
        results.append(replay_load(nodes, tasks, policy, asked))
    return Outcome(_one_or_many(results), load_sheets(results))


def _one_or_many(results: Sequence[Part]) -> str:
    """One policy's result as it is, several as ``{"version", "runs"}``."""
    if len(results) == 1:
        return as_json(results[0])
    return json.dumps(
        {"version": 1, "runs": [json.loads(as_json(one)) for one in results]}, indent=2, ensure_ascii=False
    )


def _refuse(options: Options, what: str, *names: str) -> None:
    """Options that mean nothing here are an error, not ignored."""
    for name in names:
        if getattr(options, name) not in (None, False, ()):
            raise UsageError(f"--{name.replace('_', '-')} means nothing for {what}")
