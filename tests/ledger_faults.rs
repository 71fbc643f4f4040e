//! ledger_faults.
