"""`pytest -m gpu`: everything that runs emulated, on a GPU. The emulated backend's name leads to the real one here."""

from __future__ import annotations

import pytest
import test_contractions
import test_lockstep
import test_ops_emulated
import test_plans

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends import registry
from symgrad.backends.cuda import emulated
from symgrad.base.errors import BackendError
from symgrad.testing import assert_close

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def real(monkeypatch):
    from symgrad.backends.cuda import runtime
    try:
        runtime.device()
    except BackendError as error:
        pytest.skip(" ".join(str(error).split()))
    monkeypatch.setitem(registry.BACKENDS, "cuda-emulated", "symgrad.backends.cuda.runtime")


@pytest.fixture
def watched(monkeypatch):
    """Nothing: a GPU does not watch. compute-sanitizer does."""
    monkeypatch.setattr(emulated.EmulatedDevice, "checks", False)


test_value = test_ops_emulated.test_value
test_gradient_is_that_of_the_reference = test_ops_emulated.test_gradient_is_that_of_the_reference
test_reductions = test_lockstep.test_reductions
test_what_a_row_shares_is_computed_by_its_block = test_lockstep.test_what_a_row_shares_is_computed_by_its_block
test_sizes_known_at_the_call = test_lockstep.test_sizes_known_at_the_call
test_conditions_are_looked_at_on_the_device = test_lockstep.test_conditions_are_looked_at_on_the_device
test_matrix_products_with_what_follows = test_contractions.test_matrix_products_with_what_follows
test_transposed_operands_in_batches = test_contractions.test_transposed_operands_in_batches
test_convolutions_and_their_adjoints = test_contractions.test_convolutions_and_their_adjoints
test_strides_groups_and_one_axis = test_contractions.test_strides_groups_and_one_axis
test_long_sums_of_few_results_are_divided = test_contractions.test_long_sums_of_few_results_are_divided
test_a_training_step_moves_the_parameters = test_plans.test_a_training_step_moves_the_parameters
test_scan_and_its_gradient = test_plans.test_scan_and_its_gradient
test_scan_with_deep_taps_and_an_end = test_plans.test_scan_with_deep_taps_and_an_end
test_scan_on_one_side_of_a_branch = test_plans.test_scan_on_one_side_of_a_branch
test_draws_are_the_same_bits_on_every_backend = test_plans.test_draws_are_the_same_bits_on_every_backend
test_a_network_of_open_batch = test_plans.test_a_network_of_open_batch
test_sizes_counted_on_the_device = test_plans.test_sizes_counted_on_the_device
test_results_stay_on_the_device = test_plans.test_results_stay_on_the_device


def test_calls_are_replayed(rng):
    """The first call launches, the others replay a graph: on new arguments, with the same results."""
    x = T.tensor("x", (64, 64))
    y = T.softmax(x @ x)
    f, g = (sg.function([x], [y, *sg.grad(T.sum(y ** 2), [x])], backend=b) for b in ("cuda", "reference"))
    for _ in range(3):
        a = rng.standard_normal((64, 64)).astype("f")
        for got, want in zip(f(a), g(a)):
            assert_close(got, want, factor=16.0)
