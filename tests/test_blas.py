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


def test_threads_that_overlap_leave_as_many_as_there_were() -> None:
    before = threads()
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(threads()) == {1}
    second.__exit__(None, None, None)
    assert threads() == before
