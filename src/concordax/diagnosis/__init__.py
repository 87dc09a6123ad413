"""What went wrong in a run, and what to do: signatures that are looked for in its history and its parameters."""

from .explain import explain as explain
from .explain import explain_fit as explain_fit
from .finding import Diagnosis as Diagnosis
from .finding import Finding as Finding
from .finding import Severity as Severity
