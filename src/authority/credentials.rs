//! The secrets the gateway injects. Read from files or the environment, zeroized when dropped, never printed.

/// One secret.
pub struct Credential(());

/// All secrets by name.
pub struct Credentials(());
