"""Signals to this very process, whose handler pytest keeps otherwise."""

import signal

import pytest

from realisvsr_jax.training.termination import Terminated, Termination


def test_before_training_is_patient_a_signal_ends_it_at_once():
    with pytest.raises(Terminated), Termination() as termination:
        signal.raise_signal(signal.SIGTERM)
    assert termination()


def test_then_it_is_noted_and_only_a_second_one_breaks_off(monkeypatch):
    with Termination() as termination:
        termination.patient = True
        assert not termination()
        signal.raise_signal(signal.SIGTERM)
        assert termination()
        signal.raise_signal(signal.SIGTERM)  # the same one, from a parent
        monkeypatch.setattr("realisvsr_jax.training.termination.AT_ONCE", 0.0)
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)


def test_the_handler_before_is_there_again():
    before = signal.getsignal(signal.SIGTERM)
    with Termination():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
