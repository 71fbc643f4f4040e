//! Makes the disclosure of a value again, for whoever has the value and the run's key.

use std::sync::Arc;

use super::{Disclosure, Salter};
use crate::model::{DIGESTS, ELEMENT, Json, unescape_pointer};

/// The disclosure of the value at a place of a redacted tree, and whether the tree holds its digest.
///
/// `None` if the tree has no such place: the pointer leads through what is not there, or is not a pointer.
pub fn disclose(redacted: &Json, pointer: &str, value: Json, salter: &Salter) -> Option<(Disclosure, bool)> {
    let steps = unescape_pointer(pointer)?;
    let (last, parents) = steps.split_last()?;
    let parent = parents.iter().try_fold(redacted, |value, step| child(value, step))?;
    let salt = salter.salt(pointer);
    match parent {
        Json::Object(object) => {
            let disclosure = Disclosure::of_member(&salt, last, value);
            let digest = disclosure.digest();
            let held = match object.member(DIGESTS) {
                Some(Json::Array(digests)) => digests.iter().any(|d| d.as_str() == Some(digest.as_str())),
                Some(Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_))
                | None => false,
            };
            Some((disclosure, held))
        }
        Json::Array(items) => {
            let item = element(items, last)?;
            let disclosure = Disclosure::of_element(&salt, value);
            let digest = item.as_object().and_then(|o| o.member(ELEMENT)).and_then(Json::as_str);
            let held = digest == Some(disclosure.digest().as_str());
            Some((disclosure, held))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

fn child<'j>(value: &'j Json, step: &Arc<str>) -> Option<&'j Json> {
    match value {
        Json::Object(object) => object.member(step),
        Json::Array(items) => element(items, step),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

/// RFC 6901 section 4: digits without a leading zero.
fn element<'j>(items: &'j [Json], step: &str) -> Option<&'j Json> {
    let index: usize = step.parse().ok()?;
    if index.to_string() == *step { items.get(index) } else { None }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::clock::WallTime;
    use crate::model::{ReceiptId, Redaction};
    use crate::redaction::{Disclosures, EpochKey, redact};

    #[test]
    fn the_disclosure_of_a_value_can_be_made_again_and_that_of_no_other() {
        let id = ReceiptId::new(WallTime::from_unix_ns(0), [7; 10]);
        let salter = EpochKey::new(Zeroizing::new([1; 32])).salter(id);
        let read =
            |text: &str| crate::canonical::json::parse(text.as_bytes(), crate::canonical::json::Bounds::BODY);
        let tree = read(r#"{"request":{"body":{"a/b":[{"pin":"1234"},5,6]}}}"#).expect("JSON");
        let pointers = ["/request/body/a~1b/*/pin", "/request/body/a~1b/1"].map(|p| p.parse().expect(p));
        // The second is inside what `*` means, so config would refuse the pair; here the outer place wins.
        let redaction = Redaction::new(&pointers, false).expect("places");
        let redacted = redact(tree.clone(), &redaction, &salter).expect("redacted").value;
        let of =
            |pointer: &str, value: &str| disclose(&redacted, pointer, read(value).expect("JSON"), &salter);
        let (pin, held) = of("/request/body/a~1b/0/pin", r#""1234""#).expect("a place");
        assert!(held);
        let (five, held) = of("/request/body/a~1b/1", "5").expect("a place");
        assert!(held);
        let disclosures: Disclosures = [pin, five].into_iter().collect();
        assert_eq!(disclosures.restore(redacted.clone()).expect("restored").value, tree);
        for (pointer, value) in [
            ("/request/body/a~1b/0/pin", r#""1235""#),
            ("/request/body/a~1b/0/pin", "1234"),
            ("/request/body/a~1b/0/nip", r#""1234""#),
            ("/request/body/a~1b/1", "6"),
            ("/request/body/a~1b/2", "6"),
        ] {
            assert!(!of(pointer, value).expect("a place").1, "{pointer} {value}");
        }
        for pointer in
            ["", "request", "/request/body/a~1b/01", "/request/body/a~1b/3", "/request/body/x/y", "/a~"]
        {
            assert!(of(pointer, "6").is_none(), "{pointer}");
        }
    }
}
