"""An assistant's mail, calendar and payments, guarded by what a run has done so far."""
