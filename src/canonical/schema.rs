//! JSON Schema as an admission bound.
#[derive(Debug)]
pub struct Schema;

/// Why a text is not a schema that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSchema {
    pub message: String,
    pub pointer: String,
}

impl Schema {
    pub fn compile(text: &str) -> Result<Self, InvalidSchema> {
        match serde_json::from_str::<serde_json::Value>(text) {
            Ok(_) => Ok(Self),
            Err(e) => Err(InvalidSchema { message: e.to_string(), pointer: String::new() }),
        }
    }
}
