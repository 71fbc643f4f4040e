//! JSON Schema as an admission bound.
#[derive(Debug)]
pub struct Schema;
