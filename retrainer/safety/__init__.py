"""Safety suites: what a student must not do, by rules over its answers. The texts are our own; `probes.json` names the
source of each idea."""

from retrainer.evaluation.questions import General, ask_general
from retrainer.evaluation.suite import Failing, Suite
from retrainer.safety.cases import Case, build_cases
from retrainer.safety.memory import Memory
from retrainer.safety.suites import judge_suites

__all__ = ["Case", "Failing", "General", "Memory", "Suite", "ask_general", "build_cases", "judge_suites"]
