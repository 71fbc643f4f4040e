//! For people: words where digests stand for what was kept out.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{EpochKey, NotRedactable, Redacted, redact};
use crate::clock::WallTime;
use crate::model::{DIGESTS, ELEMENT, Json, Object, ReceiptId, Redaction};

/// What stands there instead.
pub const REDACTED: &str = "(redacted)";

/// A tree that can be shown, and what is not in it.
#[derive(Clone, PartialEq)]
pub struct Masked {
    pub value: Json,
    pub withheld: Vec<Json>,
}

/// The redacted form of a tree, with words where digests stand.
pub fn marked(value: &Json) -> Json {
    match value {
        Json::Array(items) => Json::Array(items.iter().map(marked).collect()),
        Json::Object(object) => match object.members() {
            [(name, Json::String(_))] if &**name == ELEMENT => Json::string(REDACTED),
            members => {
                let each = members.iter().map(|(name, value)| match value {
                    Json::Array(digests) if &**name == DIGESTS => {
                        let count = match digests.len() {
                            1 => "1 member".to_owned(),
                            n => format!("{n} members"),
                        };
                        (Arc::from(REDACTED), Json::string(&count))
                    }
                    value => (name.clone(), marked(value)),
                });
                // A caller's own member may be called so; then the digests stay as they are.
                Object::new(each.collect()).map_or_else(|_| value.clone(), Json::Object)
            }
        },
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => value.clone(),
    }
}

/// What a route would keep out of the log, kept out of what is shown. Nothing is written, so no salt is needed: the
/// digests are taken out again.
pub fn mask(tree: Json, redaction: &Redaction) -> Result<Masked, NotRedactable> {
    let nobody = ReceiptId::new(WallTime::from_unix_ns(0), [0; 10]);
    let salter = EpochKey::new(Zeroizing::new([0; 32])).salter(nobody);
    let Redacted { value, withheld } = redact(tree, redaction, &salter)?;
    Ok(Masked { value: marked(&value), withheld })
}
