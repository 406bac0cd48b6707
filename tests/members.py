"""``make test`` runs some members of the long tables of tests, and ``make test-thorough`` the others.

The tables of a long test are products of operators, solvers, schedules and backends, whose members repeat each other:
every k-th of them still meets every value of every parameter where k shares no factor with the lengths of the tables.
A test that is named on the command line, or found by ``-k``, runs with all its members.
"""

from __future__ import annotations

from collections import Counter

import pytest

EVERY = {
    "test_capture.py::test_every_operator": 3,
    "test_capture.py::test_three_solvers_call_every_function_of_an_operator_that_any_calls": 4,
    "test_cuda.py::test_values": 3,
    "test_engine.py::test_what_a_run_calls": 5,
    "test_graph.py::test_a_replay_is_an_eager_run_bit_for_bit": 5,
    "test_isolation.py::test_operators": 3,
    "test_isolation.py::test_rows": 3,
    "test_isolation.py::test_runs": 5,
    "test_latents.py::test_latent_restoration_is_that_of_images": 5,
    "test_linear.py::test_no_host_sync_and_gradients": 3,
    "test_linear.py::test_whole_runs": 5,
    "test_multistep.py::test_observed_orders": 4,
    "test_native.py::test_rows_with_tensors": 5,
    "test_native.py::test_threads_and_batch": 3,
    "test_networks.py::test_zoo": 7,
    "test_noise.py::test_bayes_weights_give_the_exact_posterior_of_a_unit_gaussian": 5,
    "test_noise.py::test_coefficients_over_many_singular_values_are_those_over_few": 3,
    "test_noise.py::test_converges_to_the_noisy_guided_ode": 5,
    "test_noise.py::test_the_stochastic_sampler_has_the_posterior_s_standard_deviation": 5,
    "test_noise.py::test_vanishing_noise_gives_the_noiseless_row": 4,
    "test_operators.py::test_half": 3,
    "test_operators.py::test_laws": 3,
    "test_operators.py::test_matrices": 3,
    "test_operators.py::test_one_graph_under_torch_compile": 4,
    "test_operators.py::test_strides_and_purity": 3,
    "test_options.py::test_orders_of_convergence_to_the_guided_ode": 3,
    "test_options.py::test_the_parametrisation_of_the_network_does_not_matter": 4,
    "test_presets.py::test_one_step_more_is_never_clearly_worse": 5,
    "test_pure_noise.py::test_pure_noise_is_the_limit_or_refused": 4,
    "test_recorded.py::test_results_are_those_recorded": 2,
    "test_report.py::test_a_section_of_the_page_from_the_committed_results": 4,
    "test_surroundings.py::test_settings_of_torch_change_nothing": 3,
    "test_triton.py::test_coefficients_are_read_from_the_table": 3,
    "test_triton.py::test_dtypes": 5,
    "test_triton.py::test_large_launch": 3,
    "test_triton.py::test_rows": 3,
    "test_triton.py::test_strides": 3,
    "test_truth.py::test_converges_to_the_guided_ode_at_first_order": 7,
}
"""Tests whose every k-th member is run by ``make test``."""


def pytest_addoption(parser):
    parser.addoption("--members", choices=("some", "others", "all"), default="some", help="of the tables in members.py")


def select(config, items) -> None:
    """Deselect the members that ``--members`` leaves out."""
    which = config.getoption("members")
    if which == "all" or (which == "some" and (config.option.keyword or any("::" in name for name in config.args))):
        return
    seen, kept, left = Counter(), [], []
    for item in items:
        name = f"{item.path.name}::{getattr(item, 'originalname', item.name)}"
        common = seen[name] % EVERY.get(name, 1) == 0
        seen[name] += 1
        (kept if common == (which == "some") else left).append(item)
    for name in EVERY:
        file = name.partition("::")[0]
        if name not in seen and any(item.path.name == file for item in items):
            raise pytest.UsageError(f"members.py: there is no test {name}")
    config.hook.pytest_deselected(items=left)
    items[:] = kept
