"""What a sampler looks at of a long study, and what is best of it, are known trial by trial."""

from hypothesis import given
from hypothesis import strategies as st

from edgeopt.tuning.goals import Figures, Missed
from edgeopt.tuning.memory import Memory
from edgeopt.tuning.trials import Ending, Trial
from edgeopt.tuning.winner import Leaders


def at(number, *objectives, excess=0.0, ending=Ending.DONE):
    missed = (Missed("accuracy", 0.9, 0.9 - excess, excess),) if excess else ()
    return Trial(number=number, values={}, ending=ending, figures=Figures(), objectives=objectives, missed=missed)


def numbers(trials):
    return [each.number for each in trials]


def test_the_last_and_the_best_stay():
    memory, forgets = Memory(8), []
    for number in range(30):
        forgets.append(memory.meet(at(number, float(abs(number - 5)), excess=0.5 if number == 5 else 0.0)))
        assert len(memory.trials) < 8 and numbers(memory.trials) == sorted(numbers(memory.trials))
        assert number in numbers(memory.trials)
    assert {4, 6} <= set(numbers(memory.trials)), "the best that reach the goal, and not 5, which is less and misses it"
    assert sum(forgets) == 12
    everything = Memory()
    assert not any(everything.meet(at(number, 1.0)) for number in range(30)) and len(everything.trials) == 30


def test_of_several_things_that_are_to_be_least_the_front_stays():
    memory = Memory(8)
    front = [at(0, 1.0, 9.0), at(1, 9.0, None)]
    for each in (*front, *(at(number, 9.0 + number, 9.0) for number in range(2, 30))):
        memory.meet(each)
    assert 0 in numbers(memory.trials) and 1 in numbers(memory.trials)
    failed = Memory(8)
    for number in range(30):
        failed.meet(at(number, ending=Ending.FAILED))
    assert len(failed.trials) < 8


trials = st.lists(
    st.tuples(
        st.tuples(st.sampled_from([1.0, 2.0, 3.0, None]), st.sampled_from([1.0, 2.0, 3.0])),
        st.sampled_from([0.0, 0.0, 0.5, 1.0]),
        st.sampled_from(list(Ending)),
    ),
    max_size=30,
)


@given(trials)
def test_the_best_and_the_front_are_those_of_all_trials(told):
    met = [at(number, *least, excess=excess, ending=ending) for number, (least, excess, ending) in enumerate(told)]
    leaders = Leaders(met)

    def order(trial):
        return [float("inf") if each is None else each for each in trial.objectives]

    reaching = [each for each in met if each.reaches_goal]
    able = [each for each in met if each.ending is not Ending.FAILED]
    if reaching:
        assert leaders.best is min(reaching, key=lambda each: (order(each), each.number))
    else:
        late = (Ending.REFUSED, Ending.BEATEN)
        by_goal = sorted(able, key=lambda each: (each.ending in late, each.excess, order(each), each.number))
        assert leaders.best is (by_goal[0] if by_goal else None)
    done = [each for each in reaching if each.ending is Ending.DONE]
    beaten = [
        any(order(other) != order(each) and all(map(float.__le__, order(other), order(each))) for other in done)
        for each in done
    ]
    front = [each for each, is_beaten in zip(done, beaten, strict=True) if not is_beaten]
    assert list(leaders.front) == sorted(front, key=lambda each: (order(each), each.number))
