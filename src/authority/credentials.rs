//! The secrets the gateway injects. Read from files or the environment, zeroized when dropped, never printed.

/// One secret.
pub struct Credential(());

/// All secrets by name.
pub struct Credentials(());

impl Credential {
    pub fn name(&self) -> &crate::model::SecretName {
        todo!()
    }
    pub fn expose(&self) -> &[u8] {
        todo!()
    }
}
