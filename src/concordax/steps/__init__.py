"""Step rules, one a file."""

from .backtracking import Backtracking as Backtracking
from .barzilai_borwein import BarzilaiBorwein as BarzilaiBorwein
from .base import AbstractStep as AbstractStep
from .base import LocalProblem as LocalProblem
from .base import Solves as Solves
from .base import StepOutcome as StepOutcome
from .base import Trial as Trial
from .base import fixed_damping as fixed_damping
from .base import no_solves as no_solves
from .base import start_is_finite as start_is_finite
from .corrections import corrected as corrected
from .damped_metric import damped as damped
from .fixed import FixedStep as FixedStep
from .growth import damped_at_two as damped_at_two
from .published import PublishedStep as PublishedStep
from .self_concordant import SelfConcordantStep as SelfConcordantStep
