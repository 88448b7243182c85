"""Matrix products of a cohort's statistics stay on one thread, and other work gets its threads back."""

from threadpoolctl import threadpool_info

from pathoml.blas import one_blas_thread


def threads() -> list[int]:
    return [one["num_threads"] for one in threadpool_info() if one["internal_api"] == "openblas"]


def test_products_have_one_thread_inside_and_as_many_as_before_outside() -> None:
    before = threads()
    with one_blas_thread():
        assert set(threads()) == {1}
        with one_blas_thread():
            assert set(threads()) == {1}
        assert set(threads()) == {1}
    assert threads() == before
