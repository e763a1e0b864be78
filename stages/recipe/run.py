"""Run the jobs of a recipe one after the other: skip existing results, report failures at the end."""

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.distributed.ranks import current_ranks
from rela.errors import ChoiceError, PreemptedError, failure_of
from rela.pipeline import Say
from rela.result import Result, Table
from rela.stages.display import format_table, next_command
from rela.stages.evaluate.measured import Evaluation
from rela.stages.recipe.kinds import Job
from rela.stages.recipe.results import (
    Reference,
    ResultRow,
    format_results,
    notes_on,
    references_of,
    results_of,
    results_table,
)
from rela.stages.train.processes import RankFailedError
from rela.stages.workspace.workspace import Workspace

MADE, THERE, FAILED, NOT_RUN = "made", "was there", "failed", "not run"
_UNEXPLAINED = 70


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job: the `path` of its result, or the error `message`."""

    job: str
    what: str
    state: str
    seconds: float
    path: Path | None = None
    message: str | None = None
    exit_status: int = 0


@dataclass(frozen=True, repr=False)
class RecipeResult(Result):
    """Every job's outcome, the results of evaluated runs, and the exit status of the first failure.

    `references`: priors and chance; `notes`: what the figures do not show by themselves.
    """

    jobs: list[Outcome]
    results: list[ResultRow]
    references: list[Reference]
    notes: list[str]
    exit_status: int

    def shown(self) -> dict[str, Any]:
        """How many jobs there are in each state."""
        states = [job.state for job in self.jobs]
        counts = {state: states.count(state) or None for state in (MADE, THERE, FAILED, NOT_RUN)}
        return {"jobs": len(self.jobs), **counts}

    def tables(self) -> dict[str, Table]:
        """A row for each job; the results of evaluated runs."""
        rows = [[o.job, o.what, o.state, round(o.seconds, 1)] for o in self.jobs]
        found: dict[str, Table] = {"jobs": (("job", "what", "state", "seconds"), rows)}
        if self.results:
            found["results"] = results_table(self.results, self.references)
        return found


def run_recipe(workspace: Workspace, jobs: list[Job], say: Say = print) -> RecipeResult:
    """Run the jobs in order, skipping finished ones and those that need a failed one."""
    if current_ranks().world_size > 1:
        raise ChoiceError(
            "`rela run` was started as several processes; start it once, and it starts one for every "
            "device itself"
        )
    outcomes: list[Outcome] = []
    found: dict[int, Any] = {}
    for number, job in enumerate(jobs):
        title = f"[{number + 1}/{len(jobs)}] {job.stage} {job.what}"
        lost = [jobs[i] for i in job.needs if i not in found]
        if lost:
            needed = ", ".join(f"{one.stage} {one.what}" for one in lost)
            outcome = Outcome(job.stage, job.what, NOT_RUN, 0.0, message=f"needs {needed}")
            say(f"{title}: not run, needs {needed}")
        else:
            say(title)
            outcome = _attempt(workspace, job, number, found, say)
        outcomes.append(outcome)
    failures = [outcome.exit_status for outcome in outcomes if outcome.state == FAILED]
    evaluated = [e for e in found.values() if isinstance(e, Evaluation)]
    return RecipeResult(
        outcomes,
        results_of(workspace, evaluated),
        references_of(evaluated),
        notes_on(evaluated),
        next(iter(failures), 0),
    )


def format_result(result: RecipeResult) -> str:
    """A table of the jobs, and a table of the results of evaluated runs."""
    table = format_table(*result.tables()["jobs"])
    if not result.results:
        return table
    results = format_results(result.results, result.references, result.notes)
    return f"{table}\n\n{results}\n{next_command('report')}"


def describe_failures(result: RecipeResult) -> str:
    """A summary, and one line for every failed job."""
    failed = [o for o in result.jobs if o.state == FAILED]
    not_run = sum(o.state == NOT_RUN for o in result.jobs)
    rest = f", and {not_run} that depend on them were not run" if not_run else ""
    return "\n".join(
        [
            f"{len(failed)} of {len(result.jobs)} jobs failed{rest}; fix the errors below and run the "
            "same command again; finished jobs are skipped:",
            *(f"  {o.job} {o.what}: {o.message}" for o in failed),
        ]
    )


def _attempt(
    workspace: Workspace, job: Job, number: int, found: dict[int, Any], say: Say
) -> Outcome:
    """Run one job and keep its result in `found`. Only a request to stop is raised."""
    start = time.perf_counter()
    try:
        result, cached = job.run(workspace, found, say)
    except PreemptedError:
        raise
    except Exception as error:
        if isinstance(error, RankFailedError) and error.exit_status == PreemptedError.exit_status:
            raise
        failure = failure_of(error)
        if failure is None:  # a bug, which should not stop the other jobs
            say(traceback.format_exc())
            failure = f"{type(error).__name__}: {error}", _UNEXPLAINED
        message, status = failure
        say(f"failed: {message}")
        seconds = time.perf_counter() - start
        return Outcome(job.stage, job.what, FAILED, seconds, None, message, status)
    found[number] = result
    seconds = time.perf_counter() - start
    return Outcome(job.stage, job.what, THERE if cached else MADE, seconds, result.path)
