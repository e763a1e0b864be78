"""The plan of a recipe: every job, whether its result exists, and its estimated cost.

Nothing is written into the workspace, no prior is built or downloaded, and images are read only to measure.
"""

from dataclasses import dataclass
from typing import Any

from rela.errors import ChoiceError
from rela.pipeline import Say
from rela.result import Result, Table
from rela.stages.display import format_table
from rela.stages.recipe.estimate import NOTHING, Estimator
from rela.stages.recipe.kinds import Job, Outlook
from rela.stages.recipe.rates import measured_rates
from rela.stages.workspace.workspace import Workspace

THERE, TO_DO, SAME, REFUSED = "there", "to do", "as above", "refused"


@dataclass(frozen=True)
class PlannedJob:
    """A job, its state, and the seconds it is expected to take (None: unknown)."""

    job: str
    what: str
    state: str
    seconds: float | None
    basis: str


@dataclass(frozen=True, repr=False)
class Plan(Result):
    """Every job; `seconds` is the sum of all estimates, `num_unknown` the number of jobs without one."""

    jobs: list[PlannedJob]
    seconds: float
    num_unknown: int

    def shown(self) -> dict[str, Any]:
        """How many jobs are to do, and what they are expected to take."""
        return {
            "jobs": len(self.jobs),
            "to do": sum(job.state == TO_DO for job in self.jobs),
            "takes": _duration(self.seconds),
            "not estimated": self.num_unknown or None,
        }

    def tables(self) -> dict[str, Table]:
        """A row for each job."""
        rows = [
            [job.job, job.what, job.state, _rounded(job.seconds, job.state), job.basis or None]
            for job in self.jobs
        ]
        return {"jobs": (("job", "what", "state", "seconds", "estimated from"), rows)}


def plan_recipe(
    workspace: Workspace, jobs: list[Job], measure: bool = True, say: Say = print
) -> Plan:
    """Look up every job and estimate those to do; `measure`: time a few steps for unknown speeds."""
    outlook = Outlook(workspace, jobs, Estimator(measured_rates(workspace), measure, say))
    planned = [_plan(outlook, number, job) for number, job in enumerate(jobs)]
    seconds = [job.seconds for job in planned if job.seconds is not None]
    return Plan(planned, round(sum(seconds), 1), len(planned) - len(seconds))


def format_plan(plan: Plan) -> str:
    """The table and the total."""
    table, num_to_do = format_table(*plan.tables()["jobs"]), plan.shown()["to do"]
    total = f"{num_to_do} of {len(plan.jobs)} jobs to do"
    if not plan.num_unknown:
        return f"{table}\n{total}: {_duration(plan.seconds)}"
    known = f"; the others: {_duration(plan.seconds)}" if plan.num_unknown < num_to_do else ""
    return f"{table}\n{total}; {plan.num_unknown} of them could not be estimated{known}"


def _plan(outlook: Outlook, number: int, job: Job) -> PlannedJob:
    """State and cost of one job, after the jobs before it are planned."""
    try:
        found = job.find(outlook)
        estimate = NOTHING if found is not None else job.estimate(outlook)
    except ChoiceError as error:
        return PlannedJob(job.stage, job.what, REFUSED, None, str(error))
    if found is not None:
        outlook.there[number] = found
        return PlannedJob(job.stage, job.what, THERE, 0.0, "")
    state = SAME if estimate is NOTHING else TO_DO
    return PlannedJob(job.stage, job.what, state, estimate.seconds, estimate.basis)


def _rounded(seconds: float | None, state: str) -> float | str | None:
    if state in (THERE, SAME):
        return None
    return "?" if seconds is None else f"{seconds:.1f}"


def _duration(seconds: float) -> str:
    """`95 s`, `12 min`, `3.4 h`, `5.1 days`."""
    for unit, length in (("days", 86400), ("h", 3600)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.1f} {unit}"
    return f"about {seconds / 60:.0f} min" if seconds >= 600 else f"about {seconds:.0f} s"
