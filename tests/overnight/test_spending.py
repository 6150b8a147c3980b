"""Caps over SSH, with the emulated provider: an answer there is 100 tokens in and 10 out."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime

import pytest

from overnight.failures import Failure, FailureKind
from overnight.report import RunReport
from overnight.spec import Budget, BudgetCaps
from overnight.stages import Stages
from overnight.totals import spent
from tests.overnight import samples
from tests.overnight.nights import MODEL, Evening, carry_out

K = FailureKind
ANSWER = 110
RATES = {
    "fresh": 1000,
    "output": 10_000,
    "provenance": {"source": "a price list", "date": "2026-11-20", "confidence": "official"},
}
PER_ANSWER = 0.2  # 100 x 1000 and 10 x 10 000 USD a million


def priced(evening: Evening) -> None:
    """Give the model of the evening rates."""
    lock = json.loads(evening.lock.read_text())
    lock["providers"]["rehearsal"]["models"][MODEL]["rates"] = RATES
    evening.lock.write_text(json.dumps(lock))


def limited(evening: Evening, **caps: float) -> None:
    evening.limits = evening.limits.model_copy(update=caps)


def stopped(evening: Evening, batch_id: str) -> tuple[RunReport, Failure]:
    task = evening.task("t", "Go six steps")
    with evening.night(task, batch_id=batch_id) as night:
        run = carry_out(night, task)
    assert run.failure is not None
    assert run.failure.evidence[0].source == "event"
    assert 0 < len(run.commits) < 6, "what it had done is home, and it was not left to finish"
    return run, run.failure


@pytest.mark.full
def test_a_run_ends_at_its_token_cap_with_its_commits_home(evening: Evening) -> None:
    limited(evening, max_tokens=2 * ANSWER)
    run, failure = stopped(evening, "tokens")
    assert (run.state, failure.kind, failure.retry) == ("failed", K.BUDGET_LIMIT, "never")
    assert f"limits.max_tokens is {2 * ANSWER}" in failure.evidence[0].seen
    assert run.monitor is not None
    assert run.monitor.rule == "max_tokens"
    assert (run.tokens or 0) >= 2 * ANSWER


@pytest.mark.full
def test_a_run_ends_at_its_spend_cap_at_the_rates_of_the_lock(evening: Evening) -> None:
    priced(evening)
    limited(evening, max_usd=2 * PER_ANSWER)
    run, failure = stopped(evening, "usd")
    assert failure.kind is K.BUDGET_LIMIT
    assert "limits.max_usd is 0.4" in failure.evidence[0].seen
    assert run.cost is not None
    assert (run.cost.source, str(run.cost.as_of), run.usd) == ("rates", "2026-11-20", run.cost.usd)
    assert run.usd == pytest.approx((run.tokens or 0) / ANSWER * PER_ANSWER)


@pytest.mark.full
def test_a_run_ends_at_its_turn_cap_only_when_it_goes_on(evening: Evening) -> None:
    limited(evening, max_turns=2)
    well = evening.task("well", "Add a greeting")  # two answers: a tool, and the last word
    with evening.night(well, batch_id="turns-well") as night:
        assert carry_out(night, well).failure is None
    run, failure = stopped(evening, "turns")
    assert failure.kind is K.TURN_LIMIT
    assert "limits.max_turns is 2" in failure.evidence[0].seen
    assert (run.tokens or 0) <= 3 * ANSWER


@pytest.mark.full
def test_a_batchs_budget_ends_what_runs_and_lets_nothing_start_also_after_a_restart(evening: Evening) -> None:
    evening.budget = Budget(max_tokens=5 * ANSWER)
    first, second, third = (evening.task(name, "Go six steps") for name in ("a", "b", "c"))
    runs: list[RunReport] = []
    with evening.night(first, second, third, batch_id="shared") as night:
        threads = [threading.Thread(target=lambda t=t: runs.append(carry_out(night, t))) for t in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {run.failure.kind for run in runs if run.failure} == {K.BUDGET_LIMIT}
        assert all(run.monitor is not None and run.monitor.rule == "budget" for run in runs)
        assert "budget.max_tokens 550 is reached" in runs[0].failure.evidence[0].seen if runs[0].failure else False
        assert sum(len(run.commits) for run in runs) > 0
        assert night.spending.refusal("rehearsal") is not None
    with evening.night(first, second, third, batch_id="shared") as again:
        refused = again.spending.refusal("rehearsal")
    assert refused is not None
    assert (refused.kind, "budget.max_tokens" in refused.remedy) == (K.BUDGET_LIMIT, True)
    with evening.night(third, batch_id="its-own") as other:
        assert other.spending.refusal("rehearsal") is None, "another batch has another budget"


@pytest.mark.full
def test_answers_are_counted_beside_the_first_and_only_those_of_this_start(evening: Evening) -> None:
    task = evening.task("t", "Go six steps")
    with evening.night(task, batch_id="asked") as night:
        carry_out(night, task)
        assert night.spending.further("rehearsal") == 6, "six steps and the last word"
        assert night.spending.further("zai") == 0
    with evening.night(task, batch_id="asked") as again:
        plan, _ = again.dispatch(again.planner.resolve(task, 1, None))
        watched = again.monitor(plan)
        assert watched.watch.meter.answers == 7
        again.spending.priced(samples.run(), plan, Stages(0.0, watched=watched))
        assert again.spending.further("rehearsal") == 0


@pytest.mark.full
def test_a_providers_budget_is_its_own(evening: Evening) -> None:
    evening.budget = Budget(providers={"rehearsal": BudgetCaps(max_tokens=ANSWER)})
    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id="provider") as night:
        assert night.spending.refusal("rehearsal") is None
        carry_out(night, task)
        refused = night.spending.refusal("rehearsal")
        assert refused is not None
        assert "budget.providers.rehearsal.max_tokens 110 is reached" in refused.evidence[0].seen
        assert night.spending.refusal("zai") is None


def test_a_run_without_rates_costs_what_nobody_knows(evening: Evening) -> None:
    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id="unknown") as night:
        run = carry_out(night, task)
    assert run.failure is None
    assert (run.tokens, run.usd) == (2 * ANSWER, None)
    assert run.usage is not None
    assert (run.usage.fresh, run.usage.output) == (200, 20)
    assert run.cost is not None
    assert (run.cost.source, run.cost.why) == ("unknown", f"the lock has no rates for {MODEL} of rehearsal")
    assert run.started_at is not None
    assert run.started_at <= datetime.now(UTC)
    whole = spent([run])
    assert (whole.attempts, whole.unknown, whole.usd, whole.tokens) == (1, 1, 0.0, 2 * ANSWER)


def test_what_another_worker_runs_is_capped_at_what_is_left(evening: Evening) -> None:
    evening.budget = Budget(max_tokens=1000, providers={"rehearsal": BudgetCaps(max_tokens=700)})
    limited(evening, max_tokens=650)
    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id="share") as night:
        assert night.spending.share(task).max_tokens == 650
        night.spending.note(samples.run(run_id="share.a.1", provider="rehearsal", tokens=200))
        assert night.spending.share(task).max_tokens == 500
        night.spending.note(samples.run(run_id="share.b.1", provider="another", tokens=700))
        assert night.spending.share(task).max_tokens == 100
        night.spending.note(samples.run(run_id="share.c.1", provider="another", tokens=None))
        night.spending.note(samples.run(run_id="share.d.1", provider="another", tokens=700))
        assert night.spending.share(task).max_tokens == 1, "no cap of nothing can be written down"
        assert night.spending.share(task).max_usd is None


def test_money_is_shared_where_its_cost_is_known_as_it_runs(evening: Evening) -> None:
    evening.budget = Budget(max_tokens=10_000, max_usd=2.5)
    task = evening.task("t", "Add a greeting")
    with evening.night(task, batch_id="unpriced") as night:
        assert (night.spending.share(task).max_tokens, night.spending.share(task).max_usd) == (10_000, None)
    priced(evening)
    with evening.night(task, batch_id="priced") as night:
        night.spending.note(samples.run(run_id="priced.a.1", provider="rehearsal", usd=1.0))
        assert night.spending.share(task).max_usd == 1.5
