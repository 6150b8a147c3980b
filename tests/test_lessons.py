"""Mistakes that cost somebody a night, each with the tests that hold us to its lesson.

Some were met while this was built, some in the system of the incident that the
project answers. `NOT_OURS` are those that cannot happen here, with the reason.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_O = "tests/overnight/"
_BATCHFILE, _COLLECT, _FAULTS, _FOLLOW = (
    f"{_O}test_{n}.py::test_" for n in ("batchfile", "collect", "faults", "follow")
)
_GIT, _GUARD, _LOCK, _NIGHT = (f"{_O}test_{n}.py::test_" for n in ("git", "guard", "lockfile", "night"))
_OUTCOME, _PLAN, _PREFLIGHT = (f"{_O}test_{n}.py::" for n in ("outcome", "plan", "preflight"))
_SUPERVISOR, _WATCH = (f"{_O}test_{n}.py::" for n in ("supervisor", "watch"))
_SILENT, _WIRE, _WORKSPACE = (f"{_O}test_{n}.py::test_" for n in ("silent_runs", "wire", "workspace"))
_TRANSPORT, _EVENING = f"{_O}test_transport_mistakes.py::test_", "tests/flows/test_night.py::test_"
_AGAIN, _ENGINE = "tests/overnight/test_again.py::test_", "tests/tasks/test_engine.py::test_"
_HARNESS = f"{_O}harnesses/test_contract.py::TestEveryHarness::test_"

TRANSPORT: Mapping[str, tuple[str, ...]] = {
    "taking a scan of processes for the proof that none is left, while a chain forks and dies": (
        f"{_SUPERVISOR}TestEnd::test_a_chain_that_forks_and_dies_is_ended",
        f"{_SUPERVISOR}TestEnd::test_what_ignores_term_and_daemonises_is_killed_after_grace",
    ),
    "reading every process of the machine at each tick": (
        f"{_TRANSPORT}a_tick_reads_its_own_tree_and_never_all_processes",
    ),
    "a follower that outlives its connection": (f"{_TRANSPORT}a_follower_goes_when_nobody_listens_any_more",),
    "telling the end before the last bytes were read": (
        f"{_TRANSPORT}what_was_written_just_before_the_end_is_never_cut_off",
        f"{_FOLLOW}cut_at_any_byte_nothing_is_lost_and_nothing_comes_twice",
    ),
    "a new process on the host for each question how a run stands": (
        f"{_TRANSPORT}states_cancels_and_looks_cost_no_process_on_the_host",
    ),
}

KEYS_AND_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "the key in the variable that sends another header": (
        f"{_EVENING}the_wrong_variable_is_named_before_any_task_ran_on_its_route",
        f"{_O}test_probe.py::test_the_cause_of_the_incident_in_words",
        f"{_O}launchers/test_corpus.py::test_what_is_found",
    ),
    "a model id in the wrong spelling": (
        f"{_PLAN}TestNames::test_unknown_names_are_refused_with_near_ones",
        f"{_O}rehearsal/test_provider.py::test_a_model_spelled_wrongly_is_refused_in_the_dialect_of_the_site",
    ),
    "a workaround flag that hangs one version of the agent": (
        f"{_PREFLIGHT}test_a_version_known_as_bad_is_refused_unasked",
        f"{_SILENT}a_silent_run_is_called_what_it_is",
    ),
    "a probe with another environment than the run": (f"{_PLAN}TestProbe::test_it_differs_in_nothing_else",),
    "settings of the user's home that undo an empty environment": (
        f"{_PLAN}TestEnvironment::test_it_is_built_from_nothing",
        f"{_O}doctor/test_look.py::TestShadows::test_settings_and_logins_of_agents_are_read_by_name_only",
    ),
    "a silent change to another account when the key is refused": (
        f"{_LOCK}claude_code_sends_one_credential",
        f"{_LOCK}third_party_models_are_no_claude_names",
    ),
    "a model that the plan does not hold": (
        f"{_PREFLIGHT}test_another_model_than_the_one_asked_for_shuts_the_route",
        f"{_LOCK}claude_code_cannot_name_a_model_that_was_not_asked_for",
    ),
    "an expired plan that is tried for weeks": (
        f"{_WIRE}answers_of_providers",
        f"{_O}test_failures.py::test_what_somebody_has_to_mend_is_never_tried_again",
    ),
    "one provider's outage that holds up all others": (
        f"{_EVENING}commits_are_what_the_model_was_told_to_write",
        "tests/flows/test_doctor.py::test_one_shut_route_of_several_files",
    ),
    "a doctor that is blind because keys are elsewhere": (
        f"{_O}doctor/test_disagreement.py::test_answers_name_a_layer",
        f"{_O}doctor/test_find.py::test_no_part_of_a_key_is_in_what_was_found",
    ),
    "a doctor that calls a command which never existed": (
        f"{_O}test_hostcheck.py::test_it_finds_python_and_the_agents_and_leaves_nobody_behind",
        f"{_FAULTS}a_command_that_is_not_there_is_an_answer_and_asks_nobody",
    ),
    "an environment file that drops the lines of another dialect": (
        f"{_O}test_envtext.py::TestEveryPair::test_a_unit_reads_back",
        f"{_O}test_envtext.py::TestEveryValue::test_in_a_unit",
    ),
    "keys that are set and never reach the child": (
        f"{_SUPERVISOR}TestStart::test_the_child_gets_exactly_the_ordered_environment",
        f"{_SUPERVISOR}TestStart::test_several_secrets_reach_their_own_variables",
    ),
    "a search path without the agent's tools": (
        f"{_O}test_remote.py::TestInstall::test_finds_commands_by_absolute_path",
        f"{_SUPERVISOR}TestExecFailures::test_a_command_that_cannot_start_is_no_exit_127",
    ),
    "a login in a file where a variable was looked for": (
        f"{_O}doctor/test_look.py::TestShadows::test_a_login_that_others_may_read",
    ),
    "a provider or host that was never set and stands for something": (
        f"{_BATCHFILE}a_fault_is_refused_with_file_field_and_mend",
    ),
}

NAMES_AND_RETRIES: Mapping[str, tuple[str, ...]] = {
    "an instruction that the agent takes for a flag": (
        f"{_PLAN}TestShown::test_the_instruction_is_one_argument_that_is_no_flag",
        f"{_HARNESS}the_instruction_is_one_argument_and_the_last",
    ),
    "a retry without end of what fails at once": (
        f"{_AGAIN}the_last_attempt_is_the_last",
        f"{_ENGINE}auth_is_called_exactly_once",
    ),
    "no output taken for a rate limit": (
        f"{_WIRE}no_status_and_no_code_is_no_evidence",
        f"{_HARNESS}nothing_said_and_nothing_ended_is_no_fault",
        f"{_O}test_failures.py::test_at_night_an_unproven_name_becomes_unknown_and_says_so",
    ),
    "one flat pause for every kind of limit": (
        f"{_AGAIN}the_provider_s_own_time_is_honoured_and_never_anticipated",
        f"{_FAULTS}a_rate_limit_keeps_the_time_the_provider_named",
    ),
    "more runs on one key than the provider bears": (
        "tests/flows/test_team.py::test_a_worker_and_an_api_die_and_nothing_is_lost_or_doubled",
        f"{_LOCK}only_published_limits_are_limits",
    ),
    "a limit of time that has run out at the first second": (
        f"{_WATCH}TestClocks::test_a_run_that_speaks_and_works_goes_on",
        f"{_PLAN}TestBudget::test_a_wait_that_just_does_not_fit_is_refused_with_its_numbers",
    ),
    "words of the model or of a test taken for an error": (
        f"{_OUTCOME}TestHardNegatives::test_prose_is_never_a_cause",
        f"{_WATCH}TestCauses::test_prose_and_tool_output_do_not",
        f"{_WIRE}near_misses_are_not_taken",
    ),
    "a fault of ours in the middle that hides commits": (
        f"{_FAULTS}an_agent_that_is_killed_keeps_its_commits",
        f"{_OUTCOME}TestConclude::test_a_process_that_failed_stays_failed_whatever_it_committed",
    ),
}

SILENCE_AND_LEFTOVERS: Mapping[str, tuple[str, ...]] = {
    "an agent that waits for input that nobody gives": (
        f"{_SUPERVISOR}TestStart::test_the_child_reads_from_nowhere_and_starts_in_its_home",
    ),
    "an end for a healthy agent, then no end for a hung one": (
        f"{_SILENT}a_command_at_work_is_spared",
        f"{_GUARD}a_silence_is_ended_only_after_the_host_was_looked_at_and_the_route_asked_again",
    ),
    "a provider that says nothing for twenty minutes": (
        f"{_O}test_probe.py::test_a_provider_that_never_ends_is_mute",
        f"{_GUARD}what_the_provider_said_is_the_cause_of_a_silence",
    ),
    "only the shell killed, and its agent goes on": (
        f"{_SUPERVISOR}TestEnd::test_leftovers_are_counted_and_ended",
        f"{_FOLLOW.removesuffix('test_')}TestFollower::test_an_orphan_is_ended_and_named",
        "tests/flows/test_cancel.py::test_one_task_of_a_batch_that_somebody_runs_is_ended_and_the_others_go_on",
    ),
    "a wait for a process without a bound": (
        f"{_SUPERVISOR}TestEnd::test_total_s_ends_the_tree",
        f"{_O}test_remote.py::TestExecute::test_time_runs_out_here_and_on_the_host",
    ),
    "a wait for an approval that nobody can give": (
        "tests/flows/test_approval.py::test_a_flow_run_that_goes_on_without_an_answer_delivers_nothing",
    ),
    "what is finished begins again": (
        "tests/flows/test_resume.py::test_a_batch_that_is_killed_again_and_again_ends_as_if_it_never_was",
        f"{_O}test_dying.py::test_a_controller_killed_at_any_of_its_writes_repeats_nothing_and_loses_nothing",
    ),
    "what runs is started once more under another name": (
        f"{_SUPERVISOR}TestStart::test_six_starts_at_once_make_one_process",
        f"{_SUPERVISOR}TestStart::test_another_order_under_the_same_id_is_a_conflict",
        f"{_NIGHT}dispatching_again_finds_the_run",
    ),
    "a count of the living that dies with its process": (
        f"{_O}test_ledger.py::TestHeld::test_a_killed_controller_holds_nothing",
        "tests/flows/test_spread.py::test_tasks_whose_flows_died_are_found_again_and_nothing_runs_twice",
    ),
    "a process that looks like the run taken for it": (
        f"{_TRANSPORT}a_name_that_looks_like_the_run_does_not_count_as_it",
        f"{_TRANSPORT}another_process_under_the_old_number_is_not_the_run",
    ),
    "a cut link taken for a dead run": (
        f"{_NIGHT}a_host_that_is_gone_decides_nothing_about_its_run",
        f"{_O}test_long_outage.py::test_after_more_than_an_hour_every_byte_is_there",
        "tests/flows/test_outage.py::test_a_task_waits_for_its_host_in_its_slot_and_then_begins",
        f"{_WATCH}TestLink::test_without_heartbeats_nothing_is_silent",
    ),
    "an engine that refuses its own set-up at the first run": (
        "tests/deployments/test_bootstrap.py::test_the_first_run_makes_everything",
        f"{_ENGINE}the_rule_is_a_plain_function_or_prefect_would_never_call_it",
    ),
}

GIT: Mapping[str, tuple[str, ...]] = {
    "commits looked for where the agent did not make them": (
        f"{_COLLECT}the_branch_the_agent_switched_to_is_the_work",
        f"{_COLLECT}a_detached_head_is_the_work",
        f"{_COLLECT}work_beside_the_branch_comes_home_too",
    ),
    "many agents on one repository and its locks": (
        f"{_WORKSPACE}many_at_once_send_the_base_once",
        f"{_WORKSPACE}several_controllers_at_once_do_no_harm",
    ),
    "work that was never committed": (f"{_COLLECT}what_was_not_committed_is_saved",),
    "work that lands on the user's own branch": (
        f"{_GIT}a_branch_is_made_and_moved_only_while_it_is_ours",
        f"{_GIT}a_branch_that_is_checked_out_stays_where_it_is",
    ),
    "two who move one branch": (
        f"{_COLLECT}a_branch_that_the_user_went_on_with_is_left_alone",
        f"{_GIT}refs_are_set_all_or_none",
    ),
    "a delivery that checks out in the user's tree": (f"{_EVENING}nothing_was_checked_out_here",),
    "hooks that run, or hold a delivery up": (
        f"{_GIT}no_hook_and_no_helper_of_the_user_runs",
        f"{_WORKSPACE}hooks_of_the_user_run_neither_here_nor_there",
        f"{_GIT}a_slow_git_is_a_git_error",
    ),
    "a path with a tilde, or a bare name, used as it stands": (
        f"{_BATCHFILE.removesuffix('test_')}TestWhatIsRead::test_a_tilde_is_the_home",
        f"{_BATCHFILE.removesuffix('test_')}TestWhatIsRead::test_paths_are_relative_to_the_file",
    ),
    "the diff of another repository": (
        f"{_WORKSPACE}names_of_mirrors_tell_repositories_apart_and_hold_no_credential",
        "tests/flows/test_attach.py::test_another_repository_gets_nothing_and_says_why",
    ),
    "files changed that nobody asked for, and nobody shown": (
        f"{_O}test_delivery.py::test_commits_and_files_are_shown_with_the_way_to_the_whole_diff",
    ),
    "one word taken for a list of letters": (f"{_BATCHFILE}a_fault_is_refused_with_file_field_and_mend",),
    "what an agent wrote, run by its controller": (
        f"{_COLLECT}nothing_that_the_agent_planted_runs",
        f"{_O}test_verify.py::test_a_check_gets_no_key_and_touches_nothing_that_came_home",
    ),
}

NOT_OURS: Mapping[str, str] = {
    "a shell option that ends a retry when a search finds nothing": "no retry of ours is written in a shell",
    "another provider taken up by itself, which then fell silent": "another route is named, never taken by itself",
    "clock and path calls that a workflow sandbox forbids": "Prefect has no such sandbox",
    "a gate that keeps the agents' own commands behind a specification": "no command of ours is changed by an agent",
}

EVERY = {**TRANSPORT, **KEYS_AND_SETTINGS, **NAMES_AND_RETRIES, **SILENCE_AND_LEFTOVERS, **GIT}


def test_every_lesson_has_a_test_or_a_reason() -> None:
    assert all(EVERY.values())
    assert all(NOT_OURS.values())
    assert not set(EVERY) & set(NOT_OURS)
    parts = (TRANSPORT, KEYS_AND_SETTINGS, NAMES_AND_RETRIES, SILENCE_AND_LEFTOVERS, GIT)
    assert len(EVERY) == sum(map(len, parts)), "one lesson stands in two parts"


@pytest.mark.full
def test_every_test_that_is_named_is_collected() -> None:
    named = {node for nodes in EVERY.values() for node in nodes}
    files = sorted({node.partition("::")[0] for node in named})
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    told = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    collected = {line.partition("[")[0] for line in told.splitlines() if "::" in line}
    assert named - collected == set()
