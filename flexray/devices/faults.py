"""What the faults that makers report by code mean for the device: one table a maker.

NVIDIA's driver calls them Xid. Sources: NVIDIA's Xid catalog (docs.nvidia.com/deploy/xid-errors: codes, and the action
it advises: RESTART_APP, RESET_GPU, RESTART_BM and so on), the Xid checks of its Health Validation (which drain for 46,
48 and 79), and its Kubernetes device plugin, which leaves the faults of applications aside (13, 31, 43, 45, 68, 109).
"""

from __future__ import annotations

from dataclasses import dataclass

from flexray.model.condition import Fault, Severity

_APPLICATION, _PASSES, _CONDEMNS, _GONE = Severity.NOTE, Severity.PASSING, Severity.CONDEMNS, Severity.GONE


@dataclass(frozen=True, slots=True)
class Rule:
    """What a code means, and what an operator has to do before the device is well; "" where nothing."""

    severity: Severity
    meaning: str
    advice: str = ""


_RESET = "reset the GPU"
XIDS: dict[int, Rule] = {
    8: Rule(_APPLICATION, "a channel stopped making progress"),
    11: Rule(_APPLICATION, "a command that the GPU does not know"),
    13: Rule(_APPLICATION, "an exception in a kernel, such as an address out of bounds"),
    31: Rule(_APPLICATION, "a page fault: an address that is not mapped"),
    43: Rule(_APPLICATION, "a channel was stopped after an error of its application"),
    45: Rule(_APPLICATION, "channels were removed because their process ended or failed"),
    46: Rule(_CONDEMNS, "the GPU stopped processing", _RESET),
    48: Rule(_CONDEMNS, "a memory error that cannot be corrected (double-bit ECC)", _RESET),
    61: Rule(_PASSES, "an internal microcontroller met a breakpoint or a warning"),
    62: Rule(_CONDEMNS, "an internal microcontroller halted", _RESET),
    63: Rule(_PASSES, "a memory row is to be remapped (or a page retired)", f"{_RESET} to have it done"),
    64: Rule(_CONDEMNS, "a memory row could not be remapped (or a page retired)", _RESET),
    68: Rule(_APPLICATION, "an exception in the video decoder"),
    69: Rule(_APPLICATION, "an exception in the graphics engine"),
    74: Rule(_CONDEMNS, "an NVLink error", "look at the links, then reset the GPU"),
    79: Rule(_GONE, "the GPU has fallen off the bus", "restart the node"),
    92: Rule(_PASSES, "many memory errors that were corrected"),
    94: Rule(_PASSES, "a memory error that was contained: it hit one application", _RESET),
    95: Rule(_CONDEMNS, "a memory error that was not contained", _RESET),
    109: Rule(_APPLICATION, "a context switch took too long"),
    110: Rule(_CONDEMNS, "a security fault", "restart the node"),
    119: Rule(_CONDEMNS, "the GPU's system processor (GSP) did not answer", _RESET),
    120: Rule(_CONDEMNS, "an error of the GPU's system processor (GSP)", _RESET),
    140: Rule(_CONDEMNS, "memory errors that were not contained", _RESET),
}
"""What to do about an Xid. One that is not here is taken for a fault that may pass."""

_UNKNOWN = Rule(_PASSES, "an error that is not known here")


def xid_fault(code: int, pid: int = 0) -> Fault:
    """The fault that an Xid is; ``pid``: the process it hit, where that is known."""
    rule = XIDS.get(code, _UNKNOWN)
    message = f"{rule.meaning}; {rule.advice}" if rule.advice else rule.meaning
    return Fault(f"XID {code}", rule.severity, message, pid if rule.severity is _APPLICATION else 0)
